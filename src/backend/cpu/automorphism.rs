//! `X -> X^g` in the NTT domain: a permutation of one limb.

/// `dst[i] = src[brv((g (2 brv(i) + 1) mod 2N - 1) / 2)]`: the value of `a(X^g)` at the i-th root is the value of `a` at
/// that root's g-th power.
pub fn permute(dst: &mut [u32], src: &[u32], galois: u32) {
    let log_n = src.len().trailing_zeros();
    let mask = 2 * src.len() as u32 - 1;
    let reverse = |i: u32| i.reverse_bits() >> (32 - log_n);
    for (i, out) in dst.iter_mut().enumerate() {
        let exponent = galois.wrapping_mul(2 * reverse(i as u32) + 1) & mask;
        *out = src[reverse(exponent >> 1) as usize];
    }
}

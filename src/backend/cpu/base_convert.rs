//! Base conversion in coefficient domain, by the formula of [`crate::math::base_conversion`].

use crate::math::{BaseConversion, Modulus};

/// `y *= inv_hat` limb by limb: `y` is `[from][len]`.
pub fn scale(y: &mut [u32], modulus: &Modulus, inv_hat: u32, inv_hat_shoup: u32) {
    for v in y {
        *v = modulus.mul_shoup(*v, inv_hat, inv_hat_shoup);
    }
}

/// The quotients `u` from scaled limbs `y`, `[from][degree]`.
pub fn quotient(u: &mut [u32], y: &[u32], conversion: &BaseConversion) {
    let n = u.len();
    u.fill(1 << (BaseConversion::QUOTIENT_BITS - 1));
    for (limb, &r) in y.chunks_exact(n).zip(&conversion.reciprocal) {
        for (u, &y) in u.iter_mut().zip(limb) {
            *u += ((u64::from(4 * y) * u64::from(r)) >> 32) as u32;
        }
    }
    for u in u {
        *u >>= BaseConversion::QUOTIENT_BITS;
    }
}

/// Target limb `j`: `sum_i y_i matrix[j][i] + u neg_product[j]`.
pub fn convert_limb(out: &mut [u32], y: &[u32], u: &[u32], conversion: &BaseConversion, j: usize, modulus: &Modulus) {
    let n = out.len();
    let from = conversion.from.len();
    let row = &conversion.matrix[j * from..][..from];
    for (c, out) in out.iter_mut().enumerate() {
        let mut acc = u64::from(u[c]) * u64::from(conversion.neg_product[j]);
        for (i, &m) in row.iter().enumerate() {
            if i % 15 == 14 {
                acc = u64::from(modulus.redc(acc)) * u64::from(modulus.r());
            }
            acc += u64::from(y[i * n + c]) * u64::from(m);
        }
        *out = modulus.redc(acc);
    }
}

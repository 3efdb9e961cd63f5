// Arithmetic modulo one prime q < 2^30 (docs/arithmetic.md). Every kernel's text starts with one of the wide_*.wgsl, then this.

/// One prime of the global order.
struct Modulus {
    q: u32,
    /// q^-1 mod 2^32.
    q_inv: u32,
    /// 2^32 mod q: one in Montgomery form.
    r: u32,
    /// floor(r 2^32 / q).
    r_shoup: u32,
}

/// By global limb id. Binding 0 is a call's arguments: a struct of the kernel's file, the same as the host's (backend/gpu/arguments.rs).
@group(0) @binding(1) var<storage, read> moduli: array<Modulus>;

/// Threads of a workgroup.
const THREADS: u32 = 256u;

/// Products that fit a sum, and how many more fit when it has been folded by 2q: each is below q 2^30.
const TERMS: u32 = 16u;
const FOLDED_TERMS: u32 = 8u;

/// From [0, 2q) to [0, q).
fn reduce_once(x: u32, q: u32) -> u32 {
    return min(x, x - q);
}

/// From [0, 4q) to [0, 2q).
fn reduce_twice(x: u32, q: u32) -> u32 {
    return min(x, x - 2u * q);
}

/// a + b; all in [0, q).
fn add_mod(a: u32, b: u32, q: u32) -> u32 {
    return reduce_once(a + b, q);
}

/// a - b; all in [0, q). A negative difference wraps to a number above q, so the smaller of both forms is it.
fn sub_mod(a: u32, b: u32, q: u32) -> u32 {
    let d = a - b;
    return min(d, d + q);
}

/// x w in [0, 2q) for any x, w.x in [0, q) with its Shoup companion w.y.
fn mul_shoup_lazy(x: u32, w: vec2<u32>, q: u32) -> u32 {
    return x * w.x - mulhi(x, w.y) * q;
}

/// x w in [0, q).
fn mul_shoup(x: u32, w: vec2<u32>, q: u32) -> u32 {
    return reduce_once(mul_shoup_lazy(x, w, q), q);
}

/// t 2^-32 in [0, q) for sums t < 4 q 2^32.
fn redc(t: Sum, m: Modulus) -> u32 {
    let taken = mulhi(low(t) * m.q_inv, m.q);
    return sub_mod(reduce_once(reduce_twice(high(t), m.q), m.q), taken, m.q);
}

/// a b 2^-32 in [0, q) for a b < 4 q 2^32.
fn mul_mont(a: u32, b: u32, m: Modulus) -> u32 {
    return redc(mac(zero_sum(), a, b), m);
}

//! Sums of products, reduced once: [`super::super::Backend::key_inner_product`] and
//! [`super::super::Backend::plain_inner_product`].
//!
//! Products of two residues are below `q 2^30`: sixteen fit an accumulator, then it is folded every eight.

use super::lanes::{LaneModulus, Lanes, kernel};
use crate::math::Modulus;

/// Vectors that are accumulated together: enough chains to hide the latency.
const VECTORS: usize = 2;

/// One product: `x` and the pair it is multiplied by, at the tile.
#[derive(Debug, Clone, Copy)]
pub struct Term {
    /// The common factor.
    pub x: *const u32,
    /// The factor of the first half.
    pub a: *const u32,
    /// The factor of the second half.
    pub b: *const u32,
}

// SAFETY: only pointers; the kernels' callers answer for them.
unsafe impl Send for Term {}
// SAFETY: as above.
unsafe impl Sync for Term {}

/// `(sum x a, sum x b)` over the terms, at word `at`, in `[0, q)` after one reduction.
#[inline(always)]
unsafe fn sums<L: Lanes, const V: usize>(m: &LaneModulus<L>, terms: &[Term], at: usize) -> [(L::V, L::V); V] {
    let l = m.l;
    let mut sums = [(l.zero(), l.zero()); V];
    let mut room = 16;
    for term in terms {
        if room == 0 {
            for sum in &mut sums {
                *sum = (l.fold(sum.0, m.q2), l.fold(sum.1, m.q2));
            }
            room = 8;
        }
        room -= 1;
        for (v, sum) in sums.iter_mut().enumerate() {
            let at = at + v * L::WIDTH;
            // SAFETY: the caller's promise.
            let (x, a, b) = unsafe { (l.load(term.x.add(at)), l.load(term.a.add(at)), l.load(term.b.add(at))) };
            let x = l.factor(x);
            *sum = (l.mac(sum.0, x, l.factor(a)), l.mac(sum.1, x, l.factor(b)));
        }
    }
    let mut out = [(m.q, m.q); V];
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = (m.redc(sum.0), m.redc(sum.1));
    }
    out
}

#[inline(always)]
unsafe fn inner_product_body<L: Lanes>(l: L, out: [*mut u32; 2], terms: &[Term], len: usize, modulus: &Modulus) {
    let m = LaneModulus::new(l, modulus);
    let mut at = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while at + VECTORS * L::WIDTH <= len {
            let sums = sums::<L, VECTORS>(&m, terms, at);
            for (v, sum) in sums.iter().enumerate() {
                l.store(out[0].add(at + v * L::WIDTH), sum.0);
                l.store(out[1].add(at + v * L::WIDTH), sum.1);
            }
            at += VECTORS * L::WIDTH;
        }
        while at < len {
            let [sum] = sums::<L, 1>(&m, terms, at);
            l.store(out[0].add(at), sum.0);
            l.store(out[1].add(at), sum.1);
            at += L::WIDTH;
        }
    }
}

#[inline(always)]
unsafe fn inner_product_divide_body<L: Lanes>(
    l: L,
    out: [*mut u32; 2],
    terms: &[Term],
    (w, w_shoup): (u32, u32),
    len: usize,
    modulus: &Modulus,
) {
    let m = LaneModulus::new(l, modulus);
    let (w, w_shoup) = (l.splat(w), l.splat(w_shoup));
    let mut at = 0;
    while at < len {
        // SAFETY: the caller's promise.
        unsafe {
            let [sum] = sums::<L, 1>(&m, terms, at);
            for (out, sum) in [(out[0], sum.0), (out[1], sum.1)] {
                let difference = l.sub(l.add(sum, m.q), l.load(out.add(at)));
                l.store(out.add(at), m.reduce_once(m.mul_shoup_lazy(difference, w, w_shoup)));
            }
        }
        at += L::WIDTH;
    }
}

kernel! {
    /// `out = (sum x a, sum x b) 2^-32`.
    /// # Safety
    /// All pointers valid for `len` words, the outputs apart from the rest.
    pub fn inner_product(out: [*mut u32; 2], terms: &[Term], len: usize, modulus: &Modulus) = inner_product_body
}
kernel! {
    /// `out = ((sum x a, sum x b) 2^-32 - out) w`: the inner product and the division by P in one.
    /// # Safety
    /// As for [`inner_product`].
    pub fn inner_product_divide(
        out: [*mut u32; 2], terms: &[Term], w: (u32, u32), len: usize, modulus: &Modulus,
    ) = inner_product_divide_body
}

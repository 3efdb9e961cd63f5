//! Sums of products, reduced once: [`super::super::Kernels::key_inner_product`] and
//! [`super::super::Kernels::plain_inner_product`].
//!
//! Products of two residues are below `q 2^30`: sixteen fit an accumulator, then it is folded every eight. The words
//! stream from memory, and limbs stand powers of two apart, so that more streams than a cache set has ways push each
//! other out before they are used. So a tile is swept by few streams at a time: one half of a key after the other, a few
//! plaintexts after the other with the sums kept in cache.
//!
//! # Safety
//! As [`lanes`](super::lanes) says. Every pointer, of outputs and of terms, is valid for `len` words; the outputs are apart from the rest.

use super::elementwise::Shoup;
use super::lanes::{LaneModulus, Lanes, kernel};
use crate::math::Modulus;
use std::mem::MaybeUninit;

/// Words of a tile that is swept several times: long enough runs of each stream for the hardware to fetch ahead.
pub(super) const TILE: usize = 4096;
/// Terms of a sweep.
const SWEEP: usize = 8;
/// Products that fit an accumulator, and how many more fit when it has been folded.
const TERMS: (usize, usize) = (16, 8);
/// Vectors that are accumulated together: enough chains to hide the latency.
const VECTORS: usize = 4;

/// One product: `x` and the pair it is multiplied by, at the first word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term {
    /// The common factor.
    pub x: *const u32,
    /// The factors of the halves.
    pub pair: [*const u32; 2],
}

/// `sum x pair[half]` over the terms, at `V` vectors from word `at`, in `[0, q)` after one reduction.
#[inline(always)]
unsafe fn half_sums<L: Lanes, const V: usize>(m: &LaneModulus<L>, terms: &[Term], half: usize, at: usize) -> [L::V; V] {
    let l = m.l;
    let mut sums = [l.zero(); V];
    let mut room = TERMS.0;
    for term in terms {
        if room == 0 {
            for sum in &mut sums {
                *sum = l.fold(*sum, m.q2);
            }
            room = TERMS.1;
        }
        room -= 1;
        for (v, sum) in sums.iter_mut().enumerate() {
            let at = at + v * L::WIDTH;
            // SAFETY: the caller's promise.
            let (x, y) = unsafe { (l.load(term.x.add(at)), l.load(term.pair[half].add(at))) };
            *sum = l.mac(*sum, l.factor(x), l.factor(y));
        }
    }
    let mut out = [m.q; V];
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = m.redc(sum);
    }
    out
}

#[inline(always)]
unsafe fn key_inner_product_body<L: Lanes>(l: L, out: [*mut u32; 2], terms: &[Term], len: usize, modulus: &Modulus) {
    let m = LaneModulus::new(l, modulus);
    for tile in (0..len).step_by(TILE) {
        let end = len.min(tile + TILE);
        for (half, out) in out.into_iter().enumerate() {
            let mut at = tile;
            // SAFETY: the caller's promise.
            unsafe {
                while at + VECTORS * L::WIDTH <= end {
                    let sums = half_sums::<L, VECTORS>(&m, terms, half, at);
                    for (v, sum) in sums.into_iter().enumerate() {
                        l.store(out.add(at + v * L::WIDTH), sum);
                    }
                    at += VECTORS * L::WIDTH;
                }
                while at < end {
                    let [sum] = half_sums::<L, 1>(&m, terms, half, at);
                    l.store(out.add(at), sum);
                    at += L::WIDTH;
                }
            }
        }
    }
}

/// `(sum - out) w`.
#[inline(always)]
unsafe fn divide<L: Lanes>(m: &LaneModulus<L>, out: *mut u32, sum: L::V, (w, w_shoup): (L::V, L::V)) {
    let l = m.l;
    // SAFETY: the caller's promise.
    unsafe {
        let difference = l.sub(l.add(sum, m.q), l.load(out));
        l.store(out, m.reduce_once(m.mul_shoup_lazy(difference, w, w_shoup)));
    }
}

#[inline(always)]
unsafe fn key_inner_product_divide_body<L: Lanes>(
    l: L,
    out: [*mut u32; 2],
    terms: &[Term],
    w: Shoup,
    len: usize,
    modulus: &Modulus,
) {
    let m = LaneModulus::new(l, modulus);
    let w = (l.splat(w.constant), l.splat(w.companion));
    for tile in (0..len).step_by(TILE) {
        let end = len.min(tile + TILE);
        for (half, out) in out.into_iter().enumerate() {
            let mut at = tile;
            // SAFETY: the caller's promise.
            unsafe {
                while at + VECTORS * L::WIDTH <= end {
                    let sums = half_sums::<L, VECTORS>(&m, terms, half, at);
                    for (v, sum) in sums.into_iter().enumerate() {
                        divide(&m, out.add(at + v * L::WIDTH), sum, w);
                    }
                    at += VECTORS * L::WIDTH;
                }
                while at < end {
                    let [sum] = half_sums::<L, 1>(&m, terms, half, at);
                    divide(&m, out.add(at), sum, w);
                    at += L::WIDTH;
                }
            }
        }
    }
}

/// Room for both sums of a tile.
#[repr(C, align(64))]
struct Kept([MaybeUninit<u64>; 2 * TILE]);

/// Both sums of a vector, over at most [`SWEEP`] more terms.
#[inline(always)]
unsafe fn both_sums<L: Lanes>(l: L, mut sums: (L::A, L::A), terms: &[Term], at: usize) -> (L::A, L::A) {
    for term in terms {
        // SAFETY: the caller's promise.
        let (x, a, b) = unsafe { (l.load(term.x.add(at)), l.load(term.pair[0].add(at)), l.load(term.pair[1].add(at))) };
        let x = l.factor(x);
        sums = (l.mac(sums.0, x, l.factor(a)), l.mac(sums.1, x, l.factor(b)));
    }
    sums
}

/// `ADD`: to what the outputs hold.
#[inline(always)]
unsafe fn plain_sums<L: Lanes, const ADD: bool>(l: L, out: [*mut u32; 2], terms: &[Term], len: usize, modulus: &Modulus) {
    let m = LaneModulus::new(l, modulus);
    let mut kept = Kept([MaybeUninit::uninit(); 2 * TILE]);
    let kept = kept.0.as_mut_ptr().cast::<(L::A, L::A)>();
    let mut room = TERMS.0;
    let mut done = 0;
    loop {
        let sweep = &terms[done..terms.len().min(done + SWEEP)];
        let fold = room < sweep.len();
        room = if fold { TERMS.1 } else { room } - sweep.len();
        let (first, last) = (done == 0, done + sweep.len() == terms.len());
        let next = &terms[done + sweep.len()..terms.len().min(done + 2 * SWEEP)];
        let mut at = 0;
        // SAFETY: the caller's promise; the sums kept are two 64-bit words for each of at most TILE words, aligned, and written
        // by the first sweep.
        unsafe {
            while at < len {
                let kept = kept.add(at / L::WIDTH);
                let mut sums = if first { (l.zero(), l.zero()) } else { *kept };
                if fold {
                    sums = (l.fold(sums.0, m.q2), l.fold(sums.1, m.q2));
                }
                sums = both_sums(l, sums, sweep, at);
                if last {
                    for (out, sum) in out.into_iter().zip([m.redc(sums.0), m.redc(sums.1)]) {
                        let to = out.add(at);
                        l.store(to, if ADD { m.reduce_once(l.add(l.load(to), sum)) } else { sum });
                    }
                } else {
                    *kept = sums;
                }
                at += L::WIDTH;
            }
        }
        for term in next {
            for line in 0..8 {
                l.prefetch(term.x.wrapping_add(16 * line));
            }
        }
        done += sweep.len();
        if last {
            break;
        }
    }
}

#[inline(always)]
unsafe fn plain_inner_product_body<L: Lanes>(l: L, out: [*mut u32; 2], terms: &[Term], len: usize, modulus: &Modulus) {
    // SAFETY: the caller's promise.
    unsafe { plain_sums::<L, false>(l, out, terms, len, modulus) }
}

#[inline(always)]
unsafe fn add_plain_inner_product_body<L: Lanes>(l: L, out: [*mut u32; 2], terms: &[Term], len: usize, modulus: &Modulus) {
    // SAFETY: the caller's promise.
    unsafe { plain_sums::<L, true>(l, out, terms, len, modulus) }
}

kernel! {
    /// `out = (sum x a, sum x b) 2^-32`, the pairs (a, b) being a key's.
    /// # Safety
    /// As the module says.
    pub(super) fn key_inner_product(out: [*mut u32; 2], terms: &[Term], len: usize, modulus: &Modulus) = key_inner_product_body
}
kernel! {
    /// `out = ((sum x a, sum x b) 2^-32 - out) w`: the inner product and the division by P in one.
    /// # Safety
    /// As the module says; the outputs are read too.
    pub(super) fn key_inner_product_divide(
        out: [*mut u32; 2], terms: &[Term], w: Shoup, len: usize, modulus: &Modulus,
    ) = key_inner_product_divide_body
}
kernel! {
    /// `out = (sum x a, sum x b) 2^-32` over at most [`TILE`] words, the x (plaintexts) coming from memory.
    /// # Safety
    /// As the module says; `len <= TILE`.
    pub(super) fn plain_inner_product(out: [*mut u32; 2], terms: &[Term], len: usize, modulus: &Modulus) = plain_inner_product_body
}
kernel! {
    /// `out += (sum x a, sum x b) 2^-32`, else as [`plain_inner_product`].
    /// # Safety
    /// As the module says; `len <= TILE`, and the outputs are read too.
    pub(super) fn add_plain_inner_product(
        out: [*mut u32; 2], terms: &[Term], len: usize, modulus: &Modulus,
    ) = add_plain_inner_product_body
}

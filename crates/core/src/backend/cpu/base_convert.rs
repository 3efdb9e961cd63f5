//! Base conversion in coefficient domain, by the formula of [`crate::math::base_conversion`].
//!
//! A target limb is a sum of `from + 1` products of 60 bits (the last one is the quotient's). Sixteen of them fit an
//! accumulator that [`crate::math::Modulus::redc`] takes (`< 4 q 2^32`); beyond, every eight products the accumulator is
//! folded below `2 q 2^32`, which costs two operations. Several target limbs are accumulated at once, so that a load of
//! y serves all of them; the multiplications then are the floor: two of 8 lanes a (word, pair of limbs).
//!
//! # Safety
//! As [`lanes`](super::lanes) says. `span.y` is valid for `span.len` words of each of the conversion's source limbs, `span.stride` words
//! from one to the next, `span.u` for `span.len` words; outputs are apart from these.

use super::lanes::{LaneModulus, Lanes, kernel};
use crate::math::{BaseConversion, Modulus, RnsTables};

/// Words of a tile: a tile of all source limbs stays in the first-level cache.
pub(super) const TILE: usize = 256;
/// Target limbs of a block of constants, at most.
pub(super) const BLOCK: usize = 8;
/// Products that fit an accumulator.
const TERMS: usize = 16;
/// Products that fit a folded accumulator.
const FOLDED_TERMS: usize = 8;

/// The distance between limbs of a scratch buffer: limbs a power of two apart would share their cache sets.
pub(super) const fn padded(degree: usize) -> usize {
    degree + TILE
}

/// The constants of some target limbs of a conversion, in the order the kernel reads them.
#[derive(Debug)]
pub(super) struct Packed {
    from: usize,
    /// Moduli of the targets.
    moduli: Vec<Modulus>,
    /// Target limbs of a block: even blocks, so that none is left with few.
    block: usize,
    /// `[target / block][term][block]`; term 0 is the quotient's.
    constants: Vec<u32>,
}

impl Packed {
    /// For the target limbs `rows` of a conversion over these tables.
    pub(super) fn new(tables: &RnsTables, conversion: &BaseConversion, rows: std::ops::Range<usize>) -> Self {
        let from = conversion.from.len();
        let blocks = rows.len().div_ceil(BLOCK).max(1);
        let block = rows.len().div_ceil(blocks);
        let mut constants = vec![0; blocks * (from + 1) * block];
        for (j, row) in rows.clone().enumerate() {
            let at = &mut constants[j / block * (from + 1) * block + j % block..];
            at[0] = conversion.neg_product[row];
            for i in 0..from {
                at[(i + 1) * block] = conversion.matrix[row * from + i];
            }
        }
        Self { from, moduli: conversion.to.limbs()[rows].iter().map(|&l| *tables.modulus(l)).collect(), block, constants }
    }
    /// Source limbs.
    pub(super) fn from(&self) -> usize {
        self.from
    }
    /// Target limbs.
    pub(super) fn to(&self) -> usize {
        self.moduli.len()
    }
}

/// Part of the words of a conversion.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// The scaled source limbs, at the span.
    pub y: *const u32,
    /// Words between source limbs.
    pub stride: usize,
    /// The quotients, at the span.
    pub u: *mut u32,
    /// Words.
    pub len: usize,
}

#[inline(always)]
unsafe fn quotient_body<L: Lanes>(l: L, span: Span, reciprocal: &[u32]) {
    let half = l.splat(1 << (BaseConversion::QUOTIENT_BITS - 1));
    let mut at = 0;
    while at < span.len {
        let mut sum = half;
        for (i, &r) in reciprocal.iter().enumerate() {
            // SAFETY: the caller's promise.
            let y = unsafe { l.load(span.y.add(i * span.stride + at)) };
            let y2 = l.add(y, y);
            sum = l.add(sum, l.mul_hi_splat(l.add(y2, y2), l.splat(r)));
        }
        // SAFETY: the caller's promise.
        unsafe { l.store(span.u.add(at), l.shift_right::<{ BaseConversion::QUOTIENT_BITS }>(sum)) };
        at += L::WIDTH;
    }
}

kernel! {
    /// The quotients u of a span.
    /// # Safety
    /// As the module says; as many source limbs as reciprocals. `span.u` is the output.
    pub(super) fn quotient(span: Span, reciprocal: &[u32]) = quotient_body
}

/// `M` target limbs from `first` on, all in one block of constants.
#[inline(always)]
unsafe fn convert_outputs<L: Lanes, const M: usize>(
    l: L,
    span: Span,
    packed: &Packed,
    first: usize,
    (out, to): (&[*mut u32], usize),
) {
    let from = packed.from;
    let block = packed.block;
    let constants = packed.constants[first / block * (from + 1) * block + first % block..].as_ptr();
    let mut at = 0;
    while at < span.len {
        let mut sums = [l.zero(); M];
        // SAFETY: the caller's promise; the constants have from + 1 terms.
        unsafe {
            let u = l.factor(l.load(span.u.add(at)));
            for (m, sum) in sums.iter_mut().enumerate() {
                *sum = l.mac(*sum, u, l.factor_splat(l.splat(*constants.add(m))));
            }
            let mut i = 0;
            let mut end = from.min(TERMS - 1);
            loop {
                while i < end {
                    let word = span.y.add(i * span.stride + at);
                    if first == 0 {
                        l.prefetch(word.wrapping_add(TILE));
                    }
                    let y = l.factor(l.load(word));
                    let row = constants.add((i + 1) * block);
                    let mut m = 0;
                    while m < M {
                        let count = (M - m).min(4);
                        let mut products = [l.zero(); 4];
                        for (k, product) in products.iter_mut().enumerate().take(count) {
                            *product = l.product(y, l.factor_splat(l.splat(*row.add(m + k))));
                        }
                        if count == 4 {
                            l.settle(&mut products);
                        }
                        for (k, product) in products.into_iter().enumerate().take(count) {
                            sums[m + k] = l.add_sums(sums[m + k], product);
                        }
                        m += count;
                    }
                    i += 1;
                }
                if i == from {
                    break;
                }
                for (m, sum) in sums.iter_mut().enumerate() {
                    *sum = l.fold(*sum, l.splat(2 * packed.moduli[first + m].value()));
                }
                end = from.min(i + FOLDED_TERMS);
            }
            for (m, sum) in sums.iter().enumerate() {
                let modulus = LaneModulus::new(l, &packed.moduli[first + m]);
                l.store(out[m].add(to + at), modulus.redc_lazy(*sum));
            }
        }
        at += L::WIDTH;
    }
}

/// [`convert_outputs`] for a number of outputs known only now.
macro_rules! by_outputs {
    ($l:ident $span:ident $packed:ident $first:ident $out:ident $count:ident: $($m:literal)*) => {
        match $count {
            $( $m if $m <= L::OUTPUTS => convert_outputs::<L, $m>($l, $span, $packed, $first, $out), )*
            _ => {}
        }
    };
}

#[inline(always)]
unsafe fn convert_body<L: Lanes>(l: L, span: Span, packed: &Packed, at: usize, out: &[*mut u32]) {
    let mut tile = 0;
    while tile < span.len {
        let len = TILE.min(span.len - tile);
        let mut first = 0;
        while first < out.len() {
            let count = (packed.block - first % packed.block).min(out.len() - first).min(L::OUTPUTS);
            // SAFETY: the caller's promise: the tile lies within the span.
            unsafe {
                let span = Span { y: span.y.add(tile), u: span.u.add(tile), stride: span.stride, len };
                let (out, at) = (&out[first..], at + tile);
                let out = (out, at);
                by_outputs!(l span packed first out count: 1 2 3 4 5 6 7 8);
            }
            first += count;
        }
        tile += len;
    }
}

kernel! {
    /// The words of a span of the packed target limbs, in `[0, 3q)`, each at word `at` of its pointer.
    /// # Safety
    /// As the module says; every pointer of `out` is valid for `at + span.len` words, and there are as many as packed target limbs.
    pub(super) fn convert(span: Span, packed: &Packed, at: usize, out: &[*mut u32]) = convert_body
}

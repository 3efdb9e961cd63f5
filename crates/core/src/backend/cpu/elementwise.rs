//! Word-by-word kernels of one limb.
//!
//! # Safety
//! As [`lanes`](super::lanes) says. Every pointer is valid for `len` words; an output may be one of the inputs, and is else apart from
//! them.

use super::lanes::{LaneModulus, Lanes, kernel};
use crate::math::Modulus;

/// A constant in `[0, q)` with its Shoup companion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shoup {
    pub constant: u32,
    pub companion: u32,
}

/// The factors of the tail of a division in one limb: of what is kept, and of what is taken away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Division {
    pub keep: Shoup,
    pub tail: Shoup,
}

/// `out[i] = e` over vectors of the inputs.
macro_rules! map {
    ($l:ident, $len:ident, $out:ident <- ($($in:ident),*) $e:expr) => {{
        let mut at = 0;
        while at < $len {
            // SAFETY: the caller's promise: all pointers are valid for `len` words.
            unsafe {
                $( let $in = $l.load($in.add(at)); )*
                $l.store($out.add(at), $e);
            }
            at += L::WIDTH;
        }
    }};
}

#[inline(always)]
unsafe fn add_body<L: Lanes>(l: L, out: *mut u32, a: *const u32, b: *const u32, len: usize, modulus: &Modulus) {
    let m = LaneModulus::new(l, modulus);
    map!(l, len, out <- (a, b) m.add(a, b))
}
#[inline(always)]
unsafe fn sub_body<L: Lanes>(l: L, out: *mut u32, a: *const u32, b: *const u32, len: usize, modulus: &Modulus) {
    let m = LaneModulus::new(l, modulus);
    map!(l, len, out <- (a, b) m.sub(a, b))
}
#[inline(always)]
unsafe fn negate_body<L: Lanes>(l: L, out: *mut u32, a: *const u32, len: usize, modulus: &Modulus) {
    let m = LaneModulus::new(l, modulus);
    map!(l, len, out <- (a) m.reduce_once(l.sub(m.q, a)))
}
#[inline(always)]
unsafe fn add_constant_body<L: Lanes>(l: L, out: *mut u32, a: *const u32, c: u32, len: usize, modulus: &Modulus) {
    let m = LaneModulus::new(l, modulus);
    let c = l.splat(c);
    map!(l, len, out <- (a) m.add(a, c))
}
#[inline(always)]
unsafe fn mul_constant_body<L: Lanes>(l: L, out: *mut u32, a: *const u32, c: u32, len: usize, modulus: &Modulus) {
    let m = LaneModulus::new(l, modulus);
    let (w, ws) = (l.splat(c), l.splat(modulus.shoup(c)));
    map!(l, len, out <- (a) m.reduce_once(m.mul_shoup_lazy(a, w, ws)))
}
#[inline(always)]
unsafe fn mul_plain_body<L: Lanes>(l: L, out: *mut u32, a: *const u32, b: *const u32, len: usize, modulus: &Modulus) {
    let m = LaneModulus::new(l, modulus);
    map!(l, len, out <- (a, b) m.redc(l.mac(l.zero(), l.factor(a), l.factor(b))))
}

#[inline(always)]
unsafe fn reduce_body<L: Lanes>(l: L, out: *mut u32, a: *const u32, len: usize, modulus: &Modulus) {
    let m = LaneModulus::new(l, modulus);
    map!(l, len, out <- (a) m.reduce_once(m.reduce_twice(a)))
}

/// `out = out + a c`.
#[inline(always)]
unsafe fn add_product_body<L: Lanes>(l: L, out: *mut u32, a: *const u32, c: Shoup, len: usize, modulus: &Modulus) {
    let m = LaneModulus::new(l, modulus);
    let (w, ws) = (l.splat(c.constant), l.splat(c.companion));
    let read = out.cast_const();
    map!(l, len, out <- (read, a) m.add(read, m.reduce_once(m.mul_shoup_lazy(a, w, ws))))
}

/// The first words of a limb of two ciphertexts, both halves each.
pub(super) type Pair = [[*const u32; 2]; 2];

/// Products of a value in `[0, 2q)` and one below q that fit an accumulator, and that fit a folded one: each is below `q 2^31`.
const TENSOR_TERMS: (usize, usize) = (8, 4);

#[inline(always)]
unsafe fn tensor_body<L: Lanes>(l: L, out: [*mut u32; 3], pairs: &[Pair], len: usize, modulus: &Modulus) {
    let m = LaneModulus::new(l, modulus);
    let (r, rs) = (l.splat(modulus.r()), l.splat(modulus.shoup(modulus.r())));
    let mut at = 0;
    while at < len {
        let mut sums = [l.zero(); 3];
        let mut room = TENSOR_TERMS.0;
        for [a, b] in pairs {
            if room == 0 {
                sums = sums.map(|sum| l.fold(sum, m.q2));
                room = TENSOR_TERMS.1;
            }
            // The middle sum takes two.
            room -= 2;
            // SAFETY: the caller's promise: all pointers are valid for `len` words.
            unsafe {
                // Into Montgomery form, in [0, 2q).
                let a0 = l.factor(m.mul_shoup_lazy(l.load(a[0].add(at)), r, rs));
                let a1 = l.factor(m.mul_shoup_lazy(l.load(a[1].add(at)), r, rs));
                let (b0, b1) = (l.factor(l.load(b[0].add(at))), l.factor(l.load(b[1].add(at))));
                sums = [l.mac(sums[0], a0, b0), l.mac(l.mac(sums[1], a0, b1), a1, b0), l.mac(sums[2], a1, b1)];
            }
        }
        for (out, sum) in out.into_iter().zip(sums) {
            // SAFETY: as above.
            unsafe { l.store(out.add(at), m.redc(sum)) };
        }
        at += L::WIDTH;
    }
}

#[inline(always)]
unsafe fn divide_tail_body<L: Lanes>(
    l: L,
    out: *mut u32,
    kept: Option<*const u32>,
    factors: Division,
    len: usize,
    modulus: &Modulus,
) {
    let m = LaneModulus::new(l, modulus);
    let keep_is_tail = factors.keep == factors.tail;
    let (tail, tail_shoup) = (l.splat(factors.tail.constant), l.splat(factors.tail.companion));
    let (keep, keep_shoup) = (l.splat(factors.keep.constant), l.splat(factors.keep.companion));
    let read = out.cast_const();
    match kept {
        // Nothing comes in: one product of the difference.
        Some(kept) if keep_is_tail => map!(l, len, out <- (read, kept) {
            m.reduce_once(m.mul_shoup_lazy(l.sub(l.add(kept, m.q), read), tail, tail_shoup))
        }),
        Some(kept) => map!(l, len, out <- (read, kept) {
            let kept = m.reduce_once(m.mul_shoup_lazy(kept, keep, keep_shoup));
            m.sub(kept, m.reduce_once(m.mul_shoup_lazy(read, tail, tail_shoup)))
        }),
        None => map!(l, len, out <- (read) {
            m.reduce_once(l.sub(m.q, m.reduce_once(m.mul_shoup_lazy(read, tail, tail_shoup))))
        }),
    }
}

kernel! {
    /// `out = a + b`.
    /// # Safety
    /// As the module says.
    pub(super) fn add(out: *mut u32, a: *const u32, b: *const u32, len: usize, modulus: &Modulus) = add_body
}
kernel! {
    /// `out = a mod q`, from `[0, 4q)`.
    /// # Safety
    /// As the module says.
    pub(super) fn reduce(out: *mut u32, a: *const u32, len: usize, modulus: &Modulus) = reduce_body
}
kernel! {
    /// `out = a - b`.
    /// # Safety
    /// As the module says.
    pub(super) fn sub(out: *mut u32, a: *const u32, b: *const u32, len: usize, modulus: &Modulus) = sub_body
}
kernel! {
    /// `out = -a`.
    /// # Safety
    /// As the module says.
    pub(super) fn negate(out: *mut u32, a: *const u32, len: usize, modulus: &Modulus) = negate_body
}
kernel! {
    /// `out = a + c`.
    /// # Safety
    /// As the module says.
    pub(super) fn add_constant(out: *mut u32, a: *const u32, c: u32, len: usize, modulus: &Modulus) = add_constant_body
}
kernel! {
    /// `out = a c`.
    /// # Safety
    /// As the module says.
    pub(super) fn mul_constant(out: *mut u32, a: *const u32, c: u32, len: usize, modulus: &Modulus) = mul_constant_body
}
kernel! {
    /// `out = out + a c`.
    /// # Safety
    /// As the module says; the output is read too.
    pub(super) fn add_product(out: *mut u32, a: *const u32, c: Shoup, len: usize, modulus: &Modulus) = add_product_body
}
kernel! {
    /// `out = a b 2^-32`: b in Montgomery form.
    /// # Safety
    /// As the module says.
    pub(super) fn mul_plain(out: *mut u32, a: *const u32, b: *const u32, len: usize, modulus: &Modulus) = mul_plain_body
}
kernel! {
    /// `out = sum (a0 b0, a0 b1 + a1 b0, a1 b1)` over the pairs (a, b).
    /// # Safety
    /// As the module says.
    pub(super) fn tensor(out: [*mut u32; 3], pairs: &[Pair], len: usize, modulus: &Modulus) = tensor_body
}
kernel! {
    /// `out = kept keep - out tail`: the tail of a division with rounding.
    /// # Safety
    /// As the module says; the output is read too.
    pub(super) fn divide_tail(
        out: *mut u32, kept: Option<*const u32>, factors: Division, len: usize, modulus: &Modulus,
    ) = divide_tail_body
}

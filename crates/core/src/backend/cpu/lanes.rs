//! Machine operations on lanes of `u32`: all that the kernels know of an instruction set.
//!
//! A kernel is written once, `#[inline(always)]` and generic over [`Lanes`], and instantiated inside functions that
//! enable the instruction set ([`kernel`]). A value of a `Lanes` type is the proof that the CPU has it.
//!
//! # Safety
//! What all that is `unsafe` here and every kernel asks of its caller; a kernel's module says the rest.
//! - A pointer to words is aligned as a word is, and need be to no more. It is valid for as many words as are said: an output's for
//!   writes, any other for reads.
//! - Words are read and written [`Lanes::WIDTH`] at a time, so lengths are multiples of it; multiples of 16 are for every instruction set.
//! - While a kernel runs, no other thread writes the words that it reads, or touches those that it writes.
//!
//! That the CPU has the instructions is not asked: a kernel takes an [`Isa`](super::isa::Isa), which is made only where it has them, and
//! a body takes a token.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;
pub(super) use scalar::Scalar;

/// An instruction set; a token, made only where the CPU is known to have it.
pub(super) trait Lanes: Copy {
    /// Lanes of a vector, a power of two, at most 16 (the smallest degree).
    const WIDTH: usize;
    /// Its log2.
    const LOG_WIDTH: u32;
    /// Most transform stages worth doing in registers (2^this vectors are live).
    const LOG_RADIX: u32;
    /// Target limbs that a base conversion accumulates at once.
    const OUTPUTS: usize;
    /// `WIDTH` values of 32 bits.
    type V: Copy;
    /// A vector made ready to be a factor of [`Lanes::mac`].
    type F: Copy;
    /// `WIDTH` sums of 64 bits.
    type A: Copy;

    /// Reads `WIDTH` words.
    ///
    /// # Safety
    /// As the module says, of `WIDTH` words.
    unsafe fn load(self, at: *const u32) -> Self::V;
    /// Writes `WIDTH` words.
    ///
    /// # Safety
    /// As the module says, of `WIDTH` words.
    unsafe fn store(self, at: *mut u32, v: Self::V);
    /// Reads `2^log_count <= WIDTH` words and repeats them: lane i is word `i mod 2^log_count`.
    ///
    /// # Safety
    /// As the module says, of `2^log_count` words.
    unsafe fn load_repeated(self, at: *const u32, log_count: u32) -> Self::V;
    /// The word in every lane.
    fn splat(self, x: u32) -> Self::V;
    /// `a + b mod 2^32`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b mod 2^32`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// The unsigned minimum.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a >> BITS`.
    fn shift_right<const BITS: u32>(self, a: Self::V) -> Self::V;
    /// `a b mod 2^32`.
    fn mul_lo(self, a: Self::V, b: Self::V) -> Self::V;
    /// `floor(a b / 2^32)`.
    fn mul_hi(self, a: Self::V, b: Self::V) -> Self::V;
    /// [`Lanes::mul_hi`] for a `b` with the same word in every lane.
    fn mul_hi_splat(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a_0 b_0 a_1 b_1 ...`, as two vectors.
    fn zip(self, a: Self::V, b: Self::V) -> (Self::V, Self::V);
    /// The inverse of [`Lanes::zip`].
    fn unzip(self, a: Self::V, b: Self::V) -> (Self::V, Self::V);
    /// Lane i is `a[index_i]`, `index_i < WIDTH`.
    fn permute(self, a: Self::V, index: Self::V) -> Self::V;

    /// A factor.
    fn factor(self, a: Self::V) -> Self::F;
    /// A factor from a vector with the same word in every lane.
    fn factor_splat(self, a: Self::V) -> Self::F;
    /// Sums of zero.
    fn zero(self) -> Self::A;
    /// `a b`, 64 bits each.
    fn product(self, a: Self::F, b: Self::F) -> Self::A;
    /// Nothing, but all of these are computed before what follows: the optimiser puts an addition right behind its
    /// product, which stalls the pipes (a fifth of a conversion's loop on Zen 4).
    #[inline(always)]
    fn settle(self, _products: &mut [Self::A; 4]) {}
    /// `a + b mod 2^64`.
    fn add_sums(self, a: Self::A, b: Self::A) -> Self::A;
    /// `sum + a b mod 2^64`.
    #[inline(always)]
    fn mac(self, sum: Self::A, a: Self::F, b: Self::F) -> Self::A {
        self.add_sums(sum, self.product(a, b))
    }
    /// The low words.
    fn low(self, sum: Self::A) -> Self::V;
    /// The high words.
    fn high(self, sum: Self::A) -> Self::V;
    /// Takes `bound 2^32` from the sums that are not below it, for sums below `2 bound 2^32`.
    fn fold(self, sum: Self::A, bound: Self::V) -> Self::A;
    /// Asks for the cache line at `at`, which need not be valid.
    fn prefetch(self, at: *const u32);
    /// [`Lanes::prefetch`], but no further than the second-level cache.
    fn prefetch_far(self, at: *const u32);
}

/// Modular arithmetic on lanes, for one modulus.
#[derive(Clone, Copy)]
pub(super) struct LaneModulus<L: Lanes> {
    /// The instruction set.
    pub l: L,
    /// q in every lane.
    pub q: L::V,
    /// 2q in every lane.
    pub q2: L::V,
    /// q^-1 mod 2^32 in every lane.
    pub q_inv: L::V,
}

impl<L: Lanes> LaneModulus<L> {
    /// For a modulus.
    #[inline(always)]
    pub(super) fn new(l: L, modulus: &crate::math::Modulus) -> Self {
        let q = modulus.value();
        Self { l, q: l.splat(q), q2: l.splat(2 * q), q_inv: l.splat(modulus.q_inv()) }
    }
    /// From `[0, 2q)` to `[0, q)`.
    #[inline(always)]
    pub(super) fn reduce_once(&self, x: L::V) -> L::V {
        self.l.min(x, self.l.sub(x, self.q))
    }
    /// From `[0, 4q)` to `[0, 2q)`.
    #[inline(always)]
    pub(super) fn reduce_twice(&self, x: L::V) -> L::V {
        self.l.min(x, self.l.sub(x, self.q2))
    }
    /// `a + b`; all in `[0, q)`.
    #[inline(always)]
    pub(super) fn add(&self, a: L::V, b: L::V) -> L::V {
        self.reduce_once(self.l.add(a, b))
    }
    /// `a - b`; all in `[0, q)`. A negative difference wraps to a number above q, so the smaller of both forms is it.
    #[inline(always)]
    pub(super) fn sub(&self, a: L::V, b: L::V) -> L::V {
        let d = self.l.sub(a, b);
        self.l.min(d, self.l.add(d, self.q))
    }
    /// `x w` in `[0, 2q)` for any `x`, by a constant and its Shoup companion, both the same in every lane.
    #[inline(always)]
    pub(super) fn mul_shoup_lazy(&self, x: L::V, w: L::V, w_shoup: L::V) -> L::V {
        let hi = self.l.mul_hi_splat(x, w_shoup);
        self.l.sub(self.l.mul_lo(x, w), self.l.mul_lo(hi, self.q))
    }
    /// [`Self::mul_shoup_lazy`] with one constant a lane.
    #[inline(always)]
    pub(super) fn mul_shoup_lanes_lazy(&self, x: L::V, w: L::V, w_shoup: L::V) -> L::V {
        let hi = self.l.mul_hi(x, w_shoup);
        self.l.sub(self.l.mul_lo(x, w), self.l.mul_lo(hi, self.q))
    }
    /// `t 2^-32` in `[0, 3q)` for sums `t < 4 q 2^32`.
    #[inline(always)]
    pub(super) fn redc_lazy(&self, t: L::A) -> L::V {
        let m = self.l.mul_lo(self.l.low(t), self.q_inv);
        let taken = self.l.mul_hi_splat(m, self.q);
        let high = self.reduce_twice(self.l.high(t));
        self.l.sub(self.l.add(high, self.q), taken)
    }
    /// `t 2^-32` in `[0, q)` for sums `t < 4 q 2^32`.
    #[inline(always)]
    pub(super) fn redc(&self, t: L::A) -> L::V {
        let m = self.l.mul_lo(self.l.low(t), self.q_inv);
        let taken = self.l.mul_hi_splat(m, self.q);
        let high = self.reduce_once(self.reduce_twice(self.l.high(t)));
        self.sub(high, taken)
    }
}

/// Makes the dispatching entry point of a kernel: `kernel! { pub fn name(args) -> ret = body }` where
/// `unsafe fn body<L: Lanes>(l: L, args) -> ret` is `#[inline(always)]` and asks the same of its caller.
macro_rules! kernel {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "a kernel takes its operands flat")]
        $vis unsafe fn $name(isa: $crate::backend::cpu::isa::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            #[allow(clippy::too_many_arguments, reason = "a kernel takes its operands flat")]
            unsafe fn avx2($($arg: $ty),*) {
                // SAFETY: only called where the CPU has AVX2; the rest is the caller's promise.
                unsafe { $body($crate::backend::cpu::lanes::Avx2::new(), $($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            #[allow(clippy::too_many_arguments, reason = "a kernel takes its operands flat")]
            unsafe fn avx512($($arg: $ty),*) {
                // SAFETY: only called where the CPU has AVX-512; the rest is the caller's promise.
                unsafe { $body($crate::backend::cpu::lanes::Avx512::new(), $($arg),*) }
            }
            // SAFETY: an `Isa` other than scalar is only made where the CPU has it; the rest is the caller's promise.
            unsafe {
                match isa.level() {
                    #[cfg(target_arch = "x86_64")]
                    $crate::backend::cpu::isa::Level::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::backend::cpu::isa::Level::Avx512 => avx512($($arg),*),
                    _ => $body($crate::backend::cpu::lanes::Scalar, $($arg),*),
                }
            }
        }
    };
}
pub(super) use kernel;

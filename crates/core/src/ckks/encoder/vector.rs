//! Vectors of f64 of three widths, for loops that the compiler does not vectorise by itself.
//!
//! No operation contracts or reorders, so all widths give the same bits.

/// Some numbers side by side.
///
/// # Safety
/// The methods of a type may run only where its instructions exist: that is for the caller to see to, and all there is to see to. A slice
/// that is too short panics.
pub(super) unsafe trait Vector: Copy {
    /// How many numbers.
    const WIDTH: usize;
    /// The first [`Self::WIDTH`] numbers of a slice at least that long.
    unsafe fn load(from: &[f64]) -> Self;
    /// Into the first numbers of a slice at least that long.
    unsafe fn store(self, to: &mut [f64]);
    /// One number everywhere.
    unsafe fn splat(x: f64) -> Self;
    /// `a + b`.
    unsafe fn add(self, other: Self) -> Self;
    /// `a - b`.
    unsafe fn sub(self, other: Self) -> Self;
    /// `a * b`.
    unsafe fn mul(self, other: Self) -> Self;
}

// SAFETY: plain arithmetic, everywhere.
unsafe impl Vector for f64 {
    const WIDTH: usize = 1;
    #[inline(always)]
    unsafe fn load(from: &[f64]) -> Self {
        from[0]
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [f64]) {
        to[0] = self;
    }
    #[inline(always)]
    unsafe fn splat(x: f64) -> Self {
        x
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self + other
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self - other
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self * other
    }
}

/// Implements [`Vector`] for a type of `std::arch`.
#[cfg(target_arch = "x86_64")]
macro_rules! vector {
    ($vector:ident, $width:literal, $load:ident, $store:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident) => {
        // SAFETY: the intrinsics of one instruction set, which the trait's contract asks the caller for.
        unsafe impl Vector for std::arch::x86_64::$vector {
            const WIDTH: usize = $width;
            #[inline(always)]
            unsafe fn load(from: &[f64]) -> Self {
                // SAFETY: the slice is cut to the width first; unaligned loads are allowed.
                unsafe { std::arch::x86_64::$load(from[..$width].as_ptr()) }
            }
            #[inline(always)]
            unsafe fn store(self, to: &mut [f64]) {
                // SAFETY: as for loads.
                unsafe { std::arch::x86_64::$store(to[..$width].as_mut_ptr(), self) }
            }
            #[inline(always)]
            unsafe fn splat(x: f64) -> Self {
                // SAFETY: by the trait's contract.
                unsafe { std::arch::x86_64::$splat(x) }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: by the trait's contract.
                unsafe { std::arch::x86_64::$add(self, other) }
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                // SAFETY: by the trait's contract.
                unsafe { std::arch::x86_64::$sub(self, other) }
            }
            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                // SAFETY: by the trait's contract.
                unsafe { std::arch::x86_64::$mul(self, other) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
vector!(__m256d, 4, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_set1_pd, _mm256_add_pd, _mm256_sub_pd, _mm256_mul_pd);
#[cfg(target_arch = "x86_64")]
vector!(__m512d, 8, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_set1_pd, _mm512_add_pd, _mm512_sub_pd, _mm512_mul_pd);

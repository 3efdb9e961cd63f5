//! Eight lanes: AVX2.

use super::Lanes;
use std::arch::x86_64::*;

/// The proof that the CPU has AVX2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The token.
    ///
    /// # Safety
    /// The CPU must have AVX2.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }
}

const ODD: i32 = 0b1010_1010;

/// Runs intrinsics.
macro_rules! with {
    ($e:expr) => {
        // SAFETY: `self` is the proof that the CPU has the instructions; memory is the caller's promise.
        unsafe { $e }
    };
}

impl Lanes for Avx2 {
    const WIDTH: usize = 8;
    const LOG_WIDTH: u32 = 3;
    const LOG_RADIX: u32 = 3;
    const OUTPUTS: usize = 4;
    type V = __m256i;
    /// The even lanes, and the odd ones moved down.
    type F = (__m256i, __m256i);
    /// Sums of the even lanes, and of the odd ones.
    type A = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn load(self, at: *const u32) -> __m256i {
        with!(_mm256_loadu_si256(at.cast()))
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut u32, v: __m256i) {
        with!(_mm256_storeu_si256(at.cast(), v))
    }
    #[inline(always)]
    unsafe fn load_repeated(self, at: *const u32, log_count: u32) -> __m256i {
        match log_count {
            0 => with!(_mm256_set1_epi32(at.cast::<i32>().read_unaligned())),
            1 => with!(_mm256_set1_epi64x(at.cast::<i64>().read_unaligned())),
            2 => with!(_mm256_broadcastsi128_si256(_mm_loadu_si128(at.cast()))),
            _ => with!(_mm256_loadu_si256(at.cast())),
        }
    }
    #[inline(always)]
    fn splat(self, x: u32) -> __m256i {
        with!(_mm256_set1_epi32(x as i32))
    }
    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        with!(_mm256_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256i, b: __m256i) -> __m256i {
        with!(_mm256_sub_epi32(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m256i, b: __m256i) -> __m256i {
        with!(_mm256_min_epu32(a, b))
    }
    #[inline(always)]
    fn shift_right<const BITS: u32>(self, a: __m256i) -> __m256i {
        with!(_mm256_srl_epi32(a, _mm_cvtsi32_si128(BITS as i32)))
    }
    #[inline(always)]
    fn mul_lo(self, a: __m256i, b: __m256i) -> __m256i {
        with!(_mm256_mullo_epi32(a, b))
    }
    #[inline(always)]
    fn mul_hi(self, a: __m256i, b: __m256i) -> __m256i {
        let (a, b) = (self.factor(a), self.factor(b));
        self.high((with!(_mm256_mul_epu32(a.0, b.0)), with!(_mm256_mul_epu32(a.1, b.1))))
    }
    #[inline(always)]
    fn mul_hi_splat(self, a: __m256i, b: __m256i) -> __m256i {
        let a = self.factor(a);
        self.high((with!(_mm256_mul_epu32(a.0, b)), with!(_mm256_mul_epu32(a.1, b))))
    }
    #[inline(always)]
    fn zip(self, a: __m256i, b: __m256i) -> (__m256i, __m256i) {
        with!({
            let (low, high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            (_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high))
        })
    }
    #[inline(always)]
    fn unzip(self, a: __m256i, b: __m256i) -> (__m256i, __m256i) {
        with!({
            let (low, high) = (_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b));
            let (low, high) = (_mm256_castsi256_ps(low), _mm256_castsi256_ps(high));
            (
                _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(low, high)),
                _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(low, high)),
            )
        })
    }
    #[inline(always)]
    fn permute(self, a: __m256i, index: __m256i) -> __m256i {
        with!(_mm256_permutevar8x32_epi32(a, index))
    }
    #[inline(always)]
    fn factor(self, a: __m256i) -> (__m256i, __m256i) {
        (a, with!(_mm256_srli_epi64::<32>(a)))
    }
    #[inline(always)]
    fn factor_splat(self, a: __m256i) -> (__m256i, __m256i) {
        (a, a)
    }
    #[inline(always)]
    fn zero(self) -> (__m256i, __m256i) {
        with!((_mm256_setzero_si256(), _mm256_setzero_si256()))
    }
    #[inline(always)]
    fn product(self, a: Self::F, b: Self::F) -> Self::A {
        with!((_mm256_mul_epu32(a.0, b.0), _mm256_mul_epu32(a.1, b.1)))
    }
    #[inline(always)]
    fn add_sums(self, a: Self::A, b: Self::A) -> Self::A {
        with!((_mm256_add_epi64(a.0, b.0), _mm256_add_epi64(a.1, b.1)))
    }
    #[inline(always)]
    fn low(self, sum: Self::A) -> __m256i {
        with!(_mm256_blend_epi32::<ODD>(sum.0, _mm256_slli_epi64::<32>(sum.1)))
    }
    #[inline(always)]
    fn high(self, sum: Self::A) -> __m256i {
        with!(_mm256_blend_epi32::<ODD>(_mm256_srli_epi64::<32>(sum.0), sum.1))
    }
    #[inline(always)]
    fn fold(self, sum: Self::A, bound: __m256i) -> Self::A {
        // Only the high words change: the low ones meet a zero, and so equal themselves.
        with!({
            let bound = _mm256_slli_epi64::<32>(bound);
            (_mm256_min_epu32(sum.0, _mm256_sub_epi32(sum.0, bound)), _mm256_min_epu32(sum.1, _mm256_sub_epi32(sum.1, bound)))
        })
    }
    #[inline(always)]
    fn prefetch(self, at: *const u32) {
        with!(_mm_prefetch::<_MM_HINT_T0>(at.cast()))
    }
    #[inline(always)]
    fn prefetch_far(self, at: *const u32) {
        with!(_mm_prefetch::<_MM_HINT_T1>(at.cast()))
    }
}

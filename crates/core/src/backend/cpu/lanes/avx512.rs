//! Sixteen lanes: AVX-512 F, BW, DQ and VL.

use super::Lanes;
use std::arch::x86_64::*;

/// The proof that the CPU has AVX-512.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512 {
    /// The mask of the even lanes, unknown to the optimiser: it turns a masked move with a known mask into two shuffles.
    even: __mmask16,
}

impl Avx512 {
    /// The token.
    ///
    /// # Safety
    /// The CPU must have AVX-512 F, BW, DQ and VL.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Self { even: std::hint::black_box(0x5555) }
    }
}

/// Runs intrinsics.
macro_rules! with {
    ($e:expr) => {
        // SAFETY: `self` is the proof that the CPU has the instructions; memory is the caller's promise.
        unsafe { $e }
    };
}

#[inline(always)]
fn index(f: impl Fn(u32) -> u32) -> __m512i {
    let words: [u32; 16] = std::array::from_fn(|i| f(i as u32));
    bytemuck_cast(words)
}

#[inline(always)]
fn bytemuck_cast(words: [u32; 16]) -> __m512i {
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute::<[u32; 16], __m512i>(words) }
}

/// An empty instruction that all of these go through.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn settle([a, b, c, d]: &mut [(__m512i, __m512i); 4]) {
    // SAFETY: no instruction at all.
    unsafe {
        std::arch::asm!(
            "/* {0} {1} {2} {3} {4} {5} {6} {7} */",
            inout(zmm_reg) a.0, inout(zmm_reg) a.1, inout(zmm_reg) b.0, inout(zmm_reg) b.1,
            inout(zmm_reg) c.0, inout(zmm_reg) c.1, inout(zmm_reg) d.0, inout(zmm_reg) d.1,
            options(nomem, nostack, preserves_flags)
        );
    }
}

impl Lanes for Avx512 {
    const WIDTH: usize = 16;
    const LOG_WIDTH: u32 = 4;
    const LOG_RADIX: u32 = 4;
    const OUTPUTS: usize = 8;
    type V = __m512i;
    /// The even lanes, and the odd ones moved down.
    type F = (__m512i, __m512i);
    /// Sums of the even lanes, and of the odd ones.
    type A = (__m512i, __m512i);

    #[inline(always)]
    unsafe fn load(self, at: *const u32) -> __m512i {
        with!(_mm512_loadu_si512(at.cast()))
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut u32, v: __m512i) {
        with!(_mm512_storeu_si512(at.cast(), v))
    }
    #[inline(always)]
    unsafe fn load_repeated(self, at: *const u32, log_count: u32) -> __m512i {
        match log_count {
            0 => with!(_mm512_set1_epi32(at.cast::<i32>().read_unaligned())),
            1 => with!(_mm512_set1_epi64(at.cast::<i64>().read_unaligned())),
            2 => with!(_mm512_broadcast_i32x4(_mm_loadu_si128(at.cast()))),
            3 => with!(_mm512_broadcast_i64x4(_mm256_loadu_si256(at.cast()))),
            _ => with!(_mm512_loadu_si512(at.cast())),
        }
    }
    #[inline(always)]
    fn splat(self, x: u32) -> __m512i {
        with!(_mm512_set1_epi32(x as i32))
    }
    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        with!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        with!(_mm512_sub_epi32(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512i, b: __m512i) -> __m512i {
        with!(_mm512_min_epu32(a, b))
    }
    #[inline(always)]
    fn shift_right<const BITS: u32>(self, a: __m512i) -> __m512i {
        with!(_mm512_srl_epi32(a, _mm_cvtsi32_si128(BITS as i32)))
    }
    #[inline(always)]
    fn mul_lo(self, a: __m512i, b: __m512i) -> __m512i {
        with!(_mm512_mullo_epi32(a, b))
    }
    #[inline(always)]
    fn mul_hi(self, a: __m512i, b: __m512i) -> __m512i {
        let (a, b) = (self.factor(a), self.factor(b));
        self.high((with!(_mm512_mul_epu32(a.0, b.0)), with!(_mm512_mul_epu32(a.1, b.1))))
    }
    #[inline(always)]
    fn mul_hi_splat(self, a: __m512i, b: __m512i) -> __m512i {
        let a = self.factor(a);
        self.high((with!(_mm512_mul_epu32(a.0, b)), with!(_mm512_mul_epu32(a.1, b))))
    }
    #[inline(always)]
    fn zip(self, a: __m512i, b: __m512i) -> (__m512i, __m512i) {
        let low = index(|i| i / 2 + i % 2 * 16);
        let high = index(|i| 8 + i / 2 + i % 2 * 16);
        (with!(_mm512_permutex2var_epi32(a, low, b)), with!(_mm512_permutex2var_epi32(a, high, b)))
    }
    #[inline(always)]
    fn unzip(self, a: __m512i, b: __m512i) -> (__m512i, __m512i) {
        let even = index(|i| 2 * i);
        let odd = index(|i| 2 * i + 1);
        (with!(_mm512_permutex2var_epi32(a, even, b)), with!(_mm512_permutex2var_epi32(a, odd, b)))
    }
    #[inline(always)]
    fn permute(self, a: __m512i, index: __m512i) -> __m512i {
        with!(_mm512_permutexvar_epi32(index, a))
    }
    #[inline(always)]
    fn factor(self, a: __m512i) -> (__m512i, __m512i) {
        (a, with!(_mm512_srli_epi64::<32>(a)))
    }
    #[inline(always)]
    fn factor_splat(self, a: __m512i) -> (__m512i, __m512i) {
        (a, a)
    }
    #[inline(always)]
    fn zero(self) -> (__m512i, __m512i) {
        with!((_mm512_setzero_si512(), _mm512_setzero_si512()))
    }
    #[inline(always)]
    fn product(self, a: Self::F, b: Self::F) -> Self::A {
        with!((_mm512_mul_epu32(a.0, b.0), _mm512_mul_epu32(a.1, b.1)))
    }
    #[inline(always)]
    fn settle(self, products: &mut [Self::A; 4]) {
        with!(settle(products))
    }
    #[inline(always)]
    fn add_sums(self, a: Self::A, b: Self::A) -> Self::A {
        with!((_mm512_add_epi64(a.0, b.0), _mm512_add_epi64(a.1, b.1)))
    }
    #[inline(always)]
    fn low(self, sum: Self::A) -> __m512i {
        with!(_mm512_mask_shuffle_epi32::<0b10_10_00_00>(sum.0, !self.even, sum.1))
    }
    #[inline(always)]
    fn high(self, sum: Self::A) -> __m512i {
        with!(_mm512_mask_shuffle_epi32::<0b11_11_01_01>(sum.1, self.even, sum.0))
    }
    #[inline(always)]
    fn fold(self, sum: Self::A, bound: __m512i) -> Self::A {
        with!({
            let bound = _mm512_slli_epi64::<32>(bound);
            (_mm512_min_epu64(sum.0, _mm512_sub_epi64(sum.0, bound)), _mm512_min_epu64(sum.1, _mm512_sub_epi64(sum.1, bound)))
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

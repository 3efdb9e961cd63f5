//! One lane, on any CPU.

use super::Lanes;

/// Plain integers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar;

impl Lanes for Scalar {
    const WIDTH: usize = 1;
    const LOG_WIDTH: u32 = 0;
    const LOG_RADIX: u32 = 2;
    const OUTPUTS: usize = 4;
    type V = u32;
    type F = u32;
    type A = u64;

    #[inline(always)]
    unsafe fn load(self, at: *const u32) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { *at }
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut u32, v: u32) {
        // SAFETY: the caller's promise.
        unsafe { *at = v }
    }
    #[inline(always)]
    unsafe fn load_repeated(self, at: *const u32, _log_count: u32) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { *at }
    }
    #[inline(always)]
    fn splat(self, x: u32) -> u32 {
        x
    }
    #[inline(always)]
    fn add(self, a: u32, b: u32) -> u32 {
        a.wrapping_add(b)
    }
    #[inline(always)]
    fn sub(self, a: u32, b: u32) -> u32 {
        a.wrapping_sub(b)
    }
    #[inline(always)]
    fn min(self, a: u32, b: u32) -> u32 {
        a.min(b)
    }
    #[inline(always)]
    fn shift_right<const BITS: u32>(self, a: u32) -> u32 {
        a >> BITS
    }
    #[inline(always)]
    fn mul_lo(self, a: u32, b: u32) -> u32 {
        a.wrapping_mul(b)
    }
    #[inline(always)]
    fn mul_hi(self, a: u32, b: u32) -> u32 {
        ((u64::from(a) * u64::from(b)) >> 32) as u32
    }
    #[inline(always)]
    fn mul_hi_splat(self, a: u32, b: u32) -> u32 {
        self.mul_hi(a, b)
    }
    #[inline(always)]
    fn zip(self, a: u32, b: u32) -> (u32, u32) {
        (a, b)
    }
    #[inline(always)]
    fn unzip(self, a: u32, b: u32) -> (u32, u32) {
        (a, b)
    }
    #[inline(always)]
    fn permute(self, a: u32, _index: u32) -> u32 {
        a
    }
    #[inline(always)]
    fn factor(self, a: u32) -> u32 {
        a
    }
    #[inline(always)]
    fn factor_splat(self, a: u32) -> u32 {
        a
    }
    #[inline(always)]
    fn zero(self) -> u64 {
        0
    }
    #[inline(always)]
    fn product(self, a: u32, b: u32) -> u64 {
        u64::from(a) * u64::from(b)
    }
    #[inline(always)]
    fn add_sums(self, a: u64, b: u64) -> u64 {
        a.wrapping_add(b)
    }
    #[inline(always)]
    fn low(self, sum: u64) -> u32 {
        sum as u32
    }
    #[inline(always)]
    fn high(self, sum: u64) -> u32 {
        (sum >> 32) as u32
    }
    #[inline(always)]
    fn fold(self, sum: u64, bound: u32) -> u64 {
        sum.min(sum.wrapping_sub(u64::from(bound) << 32))
    }
    #[inline(always)]
    fn prefetch(self, _at: *const u32) {}
    #[inline(always)]
    fn prefetch_far(self, _at: *const u32) {}
}

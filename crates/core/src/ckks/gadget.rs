//! How key switching cuts a value into digits.

use crate::math::Basis;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The shape of a key: a contiguous range of limbs cut into digits of `alpha` limbs from its start, and the number of
/// special primes. A key made for a gadget serves every level whose window lies in the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gadget {
    pub(super) start: u16,
    pub(super) end: u16,
    pub(super) alpha: u16,
    pub(super) special: u16,
}

impl Gadget {
    /// The limbs of the global order that are cut into digits.
    pub fn range(&self) -> Range<usize> {
        self.start.into()..self.end.into()
    }
    /// Limbs a digit (the last one may have fewer).
    pub fn alpha(&self) -> usize {
        self.alpha.into()
    }
    /// Special primes used.
    pub fn special(&self) -> usize {
        self.special.into()
    }
    /// Digits of a key: its first axis.
    pub fn digits(&self) -> usize {
        // A gadget read from a file is checked by `Params::key_basis`; until then alpha may be anything.
        self.range().len().div_ceil(self.alpha().max(1))
    }
    /// Limbs of a key: those of the range, then the special ones.
    pub fn key_limbs(&self) -> usize {
        self.range().len() + self.special()
    }
    /// Bytes of a key in ring degree `degree`: `digits * 2 * key_limbs * degree` words.
    pub fn key_bytes(&self, degree: usize) -> u64 {
        [self.digits(), 2 * self.key_limbs(), degree].iter().fold(4, |bytes: u64, &n| bytes.saturating_mul(n as u64))
    }
    /// Whether all limbs of a window are in the range.
    pub fn covers(&self, window: &Basis) -> bool {
        window.limbs().iter().all(|l| self.range().contains(&l.index()))
    }
    /// The primes of digit `k`.
    pub fn digit(&self, k: usize) -> Range<usize> {
        let start = self.range().start + k * self.alpha();
        start..(start + self.alpha()).min(self.range().end)
    }
}

impl std::fmt::Display for Gadget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "limbs {}..{} in digits of {} with {} special primes", self.start, self.end, self.alpha, self.special)
    }
}

/// By how many bits P exceeds the digits of a [quiet gadget](super::Params::quiet_gadget). The noise of a key switch over that of rounding is
/// `sigma sqrt(3 digits / 2) D / P` with a dense secret (docs of [`noise`](super::noise)): 2^2 with one digit and P = D.
pub const QUIET_BITS: f64 = 5.0;

/// The most limbs that one base conversion reads: its quotient is a 32-bit sum of as many terms below 2^26, and 2^25.
pub const MAX_CONVERSION_LIMBS: usize = 63;

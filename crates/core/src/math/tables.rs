//! All primes of a parameter set in one global order, with their transform tables.

use super::{MathError, Modulus, NttTable};
use rayon::prelude::*;
use std::sync::Arc;

/// The place of a prime in the global order of one [`RnsTables`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimbId(pub u16);

impl LimbId {
    /// As an array index.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// An ordered set of primes: which modulus each limb of a buffer belongs to. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Basis(Arc<[LimbId]>);

impl Basis {
    /// A basis from limb ids in buffer order; they must be distinct (checked in debug builds).
    pub fn new(limbs: impl IntoIterator<Item = LimbId>) -> Self {
        let limbs: Arc<[LimbId]> = limbs.into_iter().collect();
        debug_assert!((1..limbs.len()).all(|i| !limbs[..i].contains(&limbs[i])), "distinct limbs");
        Self(limbs)
    }

    /// The limbs of a range of the global order.
    pub fn range(range: std::ops::Range<usize>) -> Self {
        Self::new(range.map(|i| LimbId(i as u16)))
    }

    /// The limbs, in buffer order.
    pub fn limbs(&self) -> &[LimbId] {
        &self.0
    }
    /// How many limbs.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The buffer position of a prime.
    pub fn position(&self, limb: LimbId) -> Option<usize> {
        self.0.iter().position(|&l| l == limb)
    }
    /// Whether the prime is in the basis.
    pub fn contains(&self, limb: LimbId) -> bool {
        self.position(limb).is_some()
    }
    /// Limbs of `self` that are not in `other`, in order.
    pub fn minus(&self, other: &Basis) -> Basis {
        Self::new(self.0.iter().copied().filter(|&l| !other.contains(l)))
    }
    /// Limbs of `self`, then those of `other`.
    pub fn then(&self, other: &Basis) -> Basis {
        Self::new(self.0.iter().chain(other.0.iter()).copied())
    }
}

/// Every prime of a parameter set (global order: terminal primes reversed, main primes, special primes).
#[derive(Debug)]
pub struct RnsTables {
    log_n: u32,
    limbs: Vec<NttTable>,
}

impl RnsTables {
    /// Builds the tables; primes must be distinct and `= 1 mod 2N`. Cost: about 5 ms a prime at N = 2^16.
    ///
    /// # Errors
    /// [`MathError::DuplicatePrime`] for a prime that is there twice; else as [`Modulus::new`] and [`NttTable::new`].
    pub fn new(log_n: u32, primes: &[u32]) -> Result<Self, MathError> {
        NttTable::check_degree(log_n)?;
        for (i, &q) in primes.iter().enumerate() {
            if primes[..i].contains(&q) {
                return Err(MathError::DuplicatePrime { q });
            }
        }
        let limbs = primes.par_iter().map(|&q| NttTable::new(log_n, Modulus::new(q)?)).collect::<Result<_, _>>()?;
        Ok(Self { log_n, limbs })
    }

    /// log2 of the ring degree.
    pub fn log_n(&self) -> u32 {
        self.log_n
    }
    /// The ring degree N.
    pub fn degree(&self) -> usize {
        1 << self.log_n
    }
    /// How many primes.
    pub fn len(&self) -> usize {
        self.limbs.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.limbs.is_empty()
    }
    /// The transform table of a prime.
    #[inline(always)]
    pub fn ntt(&self, limb: LimbId) -> &NttTable {
        &self.limbs[limb.index()]
    }
    /// The modulus of a limb.
    #[inline(always)]
    pub fn modulus(&self, limb: LimbId) -> &Modulus {
        self.limbs[limb.index()].modulus()
    }
    /// log2 of the product of the primes of a basis.
    pub fn log2(&self, basis: &Basis) -> f64 {
        basis.limbs().iter().map(|&l| self.modulus(l).log2()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_that_there_are_not_are_refused() {
        for log_n in [0, 3, 18, 63, 64, u32::MAX] {
            assert!(matches!(RnsTables::new(log_n, &[]), Err(MathError::Degree { .. })), "2^{log_n}");
        }
        assert_eq!(RnsTables::new(4, &[]).unwrap().degree(), 16);
    }
}

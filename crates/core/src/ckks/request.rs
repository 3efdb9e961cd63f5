//! Keys to be made: what they do, over which primes, and which of them may exist.

use super::gadget::Gadget;
use super::params::{Level, Params, ParamsError, SPARSE_CAPS_128, SPARSE_WEIGHT};
use crate::math::galois;
use serde::{Deserialize, Serialize};

/// What a key switching key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeyKind {
    /// From `s^2` to `s`.
    Relin,
    /// From `s` to `sigma_g^-1(s)` for this g.
    Galois(u32),
    /// From `s` to the sparse secret, at level 0 ([`encapsulation`](super::encapsulation)).
    ToSparse,
    /// From the sparse secret to `s`, at the top.
    ToDense,
}

impl std::fmt::Display for KeyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyKind::Relin => write!(f, "relinearization"),
            KeyKind::Galois(g) => write!(f, "Galois {g}"),
            KeyKind::ToSparse => write!(f, "to-sparse"),
            KeyKind::ToDense => write!(f, "to-dense"),
        }
    }
}

/// A key to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyRequest {
    /// What it does.
    pub kind: KeyKind,
    /// Its primes and digits.
    pub gadget: Gadget,
}

impl KeyRequest {
    /// Errors unless such a key may exist on a parameter set: its gadget and automorphism are of the set, one to the sparse secret stays
    /// under the cap, and one to or from it is of a set for bootstrapping. What [`KeyGenerator`](super::KeyGenerator) would refuse to make,
    /// and readers refuse to take.
    ///
    /// # Errors
    /// [`ParamsError::GaloisElement`] for an automorphism that the ring has not, [`ParamsError::NoBootstrap`] for a key to or from the
    /// sparse secret where there is none, [`ParamsError::SparseModulus`] for one to it whose modulus exceeds the cap; of the gadget, as
    /// [`Params::key_basis`].
    pub fn check(&self, params: &Params) -> Result<(), ParamsError> {
        let basis = params.key_basis(&self.gadget)?;
        if let KeyKind::Galois(element) = self.kind {
            let degree = params.degree();
            if !galois::is_element(element, degree) {
                return Err(ParamsError::GaloisElement { element, degree });
            }
        }
        if !matches!(self.kind, KeyKind::ToSparse | KeyKind::ToDense) {
            return Ok(());
        }
        let circuit = params.need_bootstrap()?;
        if self.kind == KeyKind::ToDense {
            return Ok(());
        }
        let log_q = params.tables().log2(&basis);
        let row = |log_n: u32| SPARSE_CAPS_128.iter().find(|row| row.0 == log_n).map(|row| row.1);
        let cap = match (params.is_insecure(), circuit.weight >= SPARSE_WEIGHT) {
            (true, _) => SPARSE_CAPS_128[SPARSE_CAPS_128.len() - 1].1,
            (false, true) => row(params.log_n()).unwrap_or(0.0),
            (false, false) => 0.0,
        };
        if log_q > cap {
            return Err(ParamsError::SparseModulus { name: params.name().into(), log_q, cap, weight: circuit.weight });
        }
        Ok(())
    }

    /// The key of products of ciphertexts at a level, in the cheapest digits.
    ///
    /// # Errors
    /// As [`Params::best_gadget`].
    pub fn relinearization(params: &Params, level: Level) -> Result<Self, ParamsError> {
        Ok(Self { kind: KeyKind::Relin, gadget: params.best_gadget(level..=level)? })
    }

    /// The keys of rotations by each of `steps` at a level, in the cheapest digits.
    ///
    /// # Errors
    /// As [`Params::best_gadget`].
    pub fn rotations(params: &Params, level: Level, steps: &[i64]) -> Result<Vec<Self>, ParamsError> {
        let gadget = params.best_gadget(level..=level)?;
        Ok(steps.iter().map(|&k| Self { kind: KeyKind::Galois(params.galois_element(k)), gadget }).collect())
    }
}

impl Params {
    /// The two keys that [`Evaluator::mod_raise`](super::Evaluator::mod_raise) needs: to the sparse secret at level 0, and back at the top.
    ///
    /// # Errors
    /// [`ParamsError::NoBootstrap`] for a set without levels for bootstrapping, [`ParamsError::SparseModulus`] where the key to the
    /// sparse secret would exceed its cap; else as [`Params::gadget`] and [`Params::best_gadget`].
    pub fn encapsulation_requests(&self) -> Result<[KeyRequest; 2], ParamsError> {
        self.need_bootstrap()?;
        let (bottom, top) = (Level(0), self.max_level());
        // One digit: q0 is small, and the sum P' q0 is what the cap is on.
        let to_sparse = KeyRequest { kind: KeyKind::ToSparse, gadget: self.gadget(bottom..=bottom, self.window(bottom).len())? };
        to_sparse.check(self)?;
        Ok([to_sparse, KeyRequest { kind: KeyKind::ToDense, gadget: self.best_gadget(top..=top)? }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ckks::presets;

    #[test]
    fn no_key_to_the_sparse_secret_exceeds_its_cap() {
        let params = presets::by_name("insecure-boot").unwrap();
        let requests = params.encapsulation_requests().unwrap();
        assert!(requests[0].check(&params).is_ok());
        let log_q = params.tables().log2(&params.key_basis(&requests[0].gadget).unwrap());
        assert!(log_q < 120.0, "2^{log_q}");
        let wide = params.best_gadget(Level(0)..=params.max_level()).unwrap();
        let request = KeyRequest { kind: KeyKind::ToSparse, gadget: wide };
        assert!(matches!(request.check(&params), Err(ParamsError::SparseModulus { cap: 200.0, .. })));
        assert!(KeyRequest { kind: KeyKind::ToDense, gadget: wide }.check(&params).is_ok());
        let plain = presets::by_name("insecure-toy").unwrap();
        assert!(matches!(plain.encapsulation_requests(), Err(ParamsError::NoBootstrap { .. })));
    }
}

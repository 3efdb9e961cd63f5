//! Sparse-secret encapsulation (Bossuat, Troncoso-Pastoriza and Hubaux, "Bootstrapping for Approximate Homomorphic Encryption with
//! Negligible Failure Probability by Using Sparse-Secret Encapsulation", 2022): the modulus is raised under a secret with few
//! nonzero coefficients, so that the multiples of q0 to remove afterwards are small, while everything else is under the dense secret.
//!
//! A key from the dense secret to the sparse one is an encryption under the sparse one, so its modulus, `q0 P'`, must be
//! small: [`SPARSE_CAPS_128`]. No key object for it exists beyond that. The key back is an encryption under the dense secret
//! and may have any modulus the parameter set has.

use super::ciphertext::Ciphertext;
use super::error::{CkksError, Result};
use super::evaluator::{Evaluator, check_levels, check_scales, first_halves, second_halves};
use super::keys::{KeyId, KeyKind, KeyRequest};
use super::params::{Level, Params, ParamsError};
use super::sampler::{SecretVec, finish, sparse_ternary, stream};
use crate::backend::Buffer;
use crate::math::{BaseConversion, galois};
use zeroize::Zeroizing;

/// Cap on log2 of the modulus of anything encrypted under a secret of weight [`SPARSE_WEIGHT`], by log2 N, for well over 128 bits (script and
/// output: `docs/security.md`; whoever breaks this secret has the dense one too): the lowest attack found by the lattice estimator (27a581b; primal and dual, with meet in the middle and all splits of the
/// support) is 2^147 at N = 2^16 and 2^200, and 2^140 at N = 2^15 and 2^120. Sets without a security claim obey the last row.
pub const SPARSE_CAPS_128: [(u32, f64); 3] = [(15, 120.0), (16, 200.0), (17, 200.0)];

/// The least weight that [`SPARSE_CAPS_128`] is stated for.
pub const SPARSE_WEIGHT: usize = 32;

/// The sparse secret: `weight` coefficients of -1 or 1, the others 0. Wiped when dropped, redacted in Debug, never on a
/// backend other than the host.
///
/// It is derived from the dense secret by a hash, so that keys to it and from it fit together whenever they are made, and there is
/// nothing more to store.
#[derive(Debug)]
pub(super) struct SparseSecret {
    pub(super) coefficients: SecretVec<i8>,
}

impl SparseSecret {
    /// The sparse secret that belongs to a dense one.
    pub(super) fn derive(key_id: &KeyId, dense: &[i8], weight: usize) -> Self {
        let mut hasher = Zeroizing::new(blake3::Hasher::new_derive_key("cipherlens sparse secret for encapsulation, version 1"));
        hasher.update(&key_id.0);
        hasher.update(&(weight as u64).to_le_bytes());
        let bytes = Zeroizing::new(dense.iter().map(|&c| c as u8).collect::<Vec<u8>>());
        hasher.update(&bytes);
        let seed = finish(&hasher);
        let mut coefficients = SecretVec(vec![0i8; dense.len()]);
        sparse_ternary(&mut stream(&seed, "sparse ternary", 0, 0), weight, &mut coefficients.0);
        Self { coefficients }
    }
}

/// Errors unless a key may exist: its gadget and automorphism are of this parameter set, one to the sparse secret stays under the
/// cap, and one to or from it is of a set for bootstrapping.
pub(super) fn check_request(params: &Params, request: &KeyRequest) -> std::result::Result<(), ParamsError> {
    let basis = params.key_basis(&request.gadget)?;
    if let KeyKind::Galois(element) = request.kind {
        let degree = params.degree();
        if !galois::is_element(element, degree) {
            return Err(ParamsError::GaloisElement { element, degree });
        }
    }
    if !matches!(request.kind, KeyKind::ToSparse | KeyKind::ToDense) {
        return Ok(());
    }
    let circuit = params.need_bootstrap()?;
    if request.kind == KeyKind::ToDense {
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

impl Params {
    /// The two keys that [`Evaluator::mod_raise`] needs: to the sparse secret at level 0, and back at the top.
    ///
    /// # Errors
    /// [`ParamsError::NoBootstrap`] for a set without levels for bootstrapping, [`ParamsError::SparseModulus`] where the key to the
    /// sparse secret would exceed its cap; else as [`Params::gadget`] and [`Params::best_gadget`].
    pub fn encapsulation_requests(&self) -> std::result::Result<[KeyRequest; 2], ParamsError> {
        self.need_bootstrap()?;
        let (bottom, top) = (Level(0), self.max_level());
        // One digit: q0 is small, and the sum P' q0 is what the cap is on.
        let to_sparse = KeyRequest { kind: KeyKind::ToSparse, gadget: self.gadget(bottom..=bottom, self.window(bottom).len())? };
        check_request(self, &to_sparse)?;
        Ok([to_sparse, KeyRequest { kind: KeyKind::ToDense, gadget: self.best_gadget(top..=top)? }])
    }
}

impl Evaluator {
    /// From level 0 to the top, where the same residues modulo q0 stand for something else: with m the message polynomial (so that
    /// the input decrypts to `scale(0) m` modulo q0), the result is `m / ratio + I` for an integer polynomial I with `|I| < k` (but for
    /// the probability of [`overflow::log2_failure`](super::overflow::log2_failure)), at the top's canonical scale.
    ///
    /// Needs the keys of [`Params::encapsulation_requests`]; errors unless the input is at level 0 and its canonical scale
    /// ([`Self::drop_to`] brings it there). Cost: a key switch at level 0, two limbs to all limbs, a key switch at the top.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`] above level 0, [`CkksError::ScaleMismatch`] at another scale, [`CkksError::Params`] as
    /// [`Params::encapsulation_requests`]; else those of a key switch ([`Evaluator`]).
    pub fn mod_raise(&self, ct: &Ciphertext) -> Result<Ciphertext> {
        let op = "mod_raise";
        self.check(ct, op)?;
        self.keys.tag().check_same(&ct.tag, op)?;
        self.params.need_bootstrap()?;
        let (bottom, top) = (Level(0), self.params.max_level());
        check_levels(op, bottom, ct.level)?;
        check_scales(op, self.params.scale(bottom), ct.scale)?;
        let [to_sparse, to_dense] = self.params.encapsulation_requests()?;
        let mut sparse = self.switch_secret(&ct.buffer, to_sparse, bottom)?;
        self.backend.ntt_inverse(&mut sparse, self.window(bottom))?;
        let mut raised = self.backend.base_convert(&sparse, &*self.params.raise_conversion()?)?;
        drop(sparse);
        self.backend.ntt_forward(&mut raised, self.window(top))?;
        let buffer = self.switch_secret(&raised, to_dense, top)?;
        Ok(Ciphertext { buffer, level: top, scale: self.params.scale(top), tag: ct.tag })
    }

    /// A ciphertext's words under the secret that a key leads to.
    fn switch_secret(&self, ct: &Buffer, request: KeyRequest, level: Level) -> Result<Buffer> {
        let key = self.keys.exact(request.kind, &request.gadget, level)?;
        let plan = self.params.gadget_plan(&request.gadget, level)?;
        let shards = ct.shape().polys / 2;
        let mut switched = self.backend.key_switch(ct, second_halves(shards), key.buffer(), &plan)?;
        let first = self.backend.select(ct, first_halves(shards))?;
        self.backend.add_plain_assign(&mut switched, first_halves(shards), &first, self.window(level))?;
        Ok(switched)
    }

    /// Multiplies the values by a factor, at no cost: the scale is divided by it. A result within 1e-9 of the level's canonical
    /// scale is canonical.
    ///
    /// # Errors
    /// [`CkksError::ParamsMismatch`] for a ciphertext of another parameter set, [`CkksError::ScaleRange`] where the scale would be below
    /// 1, not below the modulus, or not finite.
    pub fn scaled_by(&self, mut ct: Ciphertext, factor: f64) -> Result<Ciphertext> {
        let op = "scaled_by";
        self.check(&ct, op)?;
        let scale = super::params::Scale(ct.scale.0 / factor);
        let log_q = self.params.log_q(ct.level);
        if !(scale.0.is_finite() && scale.0 >= 1.0 && scale.log2() < log_q) {
            return Err(CkksError::ScaleRange { op, scale, level: ct.level, log_q });
        }
        ct.scale = self.snapped(scale, ct.level);
        Ok(ct)
    }
}

/// The conversion of [`Evaluator::mod_raise`]: from the primes of level 0 to all of the top's, times [`Params::raise_factor`].
pub(super) fn raise_conversion(params: &Params) -> BaseConversion {
    let (bottom, top) = (Level(0), params.max_level());
    let conversion = BaseConversion::new(params.tables(), params.window(bottom), params.window(top), |_| 1);
    conversion.times(params.tables(), params.raise_factor() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ckks::presets;

    #[test]
    fn the_sparse_secret_has_its_weight_and_is_redacted() {
        let params = presets::by_name("insecure-boot").unwrap();
        let dense = vec![1i8; params.degree()];
        let derive = |id: u8, weight: usize| SparseSecret::derive(&KeyId([id; 16]), &dense, weight);
        for weight in [1, 32, 64, params.degree()] {
            let secret = derive(1, weight);
            assert_eq!(secret.coefficients.0.iter().filter(|&&c| c != 0).count(), weight);
            assert!(secret.coefficients.0.iter().all(|c| (-1..=1).contains(c)));
            assert_eq!(secret.coefficients.0, derive(1, weight).coefficients.0);
            assert_ne!(secret.coefficients.0, derive(2, weight).coefficients.0);
            assert!(!format!("{secret:?}").contains("-1") && format!("{secret:?}").contains("redacted"));
        }
    }

    #[test]
    fn no_key_to_the_sparse_secret_exceeds_its_cap() {
        let params = presets::by_name("insecure-boot").unwrap();
        let requests = params.encapsulation_requests().unwrap();
        assert!(check_request(&params, &requests[0]).is_ok());
        let log_q = params.tables().log2(&params.key_basis(&requests[0].gadget).unwrap());
        assert!(log_q < 120.0, "2^{log_q}");
        let wide = params.best_gadget(Level(0)..=params.max_level()).unwrap();
        let request = KeyRequest { kind: KeyKind::ToSparse, gadget: wide };
        assert!(matches!(check_request(&params, &request), Err(ParamsError::SparseModulus { cap: 200.0, .. })));
        assert!(check_request(&params, &KeyRequest { kind: KeyKind::ToDense, gadget: wide }).is_ok());
        let plain = presets::by_name("insecure-toy").unwrap();
        assert!(matches!(plain.encapsulation_requests(), Err(ParamsError::NoBootstrap { .. })));
    }
}

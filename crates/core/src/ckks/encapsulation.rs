//! Sparse-secret encapsulation (Bossuat, Troncoso-Pastoriza and Hubaux, "Bootstrapping for Approximate Homomorphic Encryption with
//! Negligible Failure Probability by Using Sparse-Secret Encapsulation", 2022): the modulus is raised under a secret with few
//! nonzero coefficients, so that the multiples of q0 to remove afterwards are small, while everything else is under the dense secret.
//!
//! A key from the dense secret to the sparse one is an encryption under the sparse one, so its modulus, `q0 P'`, must be
//! small: [`SPARSE_CAPS_128`]. No key object for it exists beyond that. The key back is an encryption under the dense secret
//! and may have any modulus the parameter set has.

pub use super::params::{SPARSE_CAPS_128, SPARSE_WEIGHT};

use super::ciphertext::Ciphertext;
use super::error::{CkksError, Result};
use super::evaluator::{Evaluator, check_levels, check_scales, first_halves, second_halves};
use super::params::{Level, Scale};
use super::request::KeyRequest;
use crate::backend::Buffer;

impl Evaluator {
    /// From level 0 to the top, where the same residues modulo q0 stand for something else: with m the message polynomial (so that
    /// the input decrypts to `scale(0) m` modulo q0), the result is `m / ratio + I` for an integer polynomial I with `|I| < k` (but for
    /// the probability of [`overflow::log2_failure`](super::overflow::log2_failure)), at the top's canonical scale.
    ///
    /// Needs the keys of [`Params::encapsulation_requests`](super::Params::encapsulation_requests); errors unless the input is at level 0 and its canonical scale
    /// ([`Self::drop_to`] brings it there). Cost: a key switch at level 0, two limbs to all limbs, a key switch at the top.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`] above level 0, [`CkksError::ScaleMismatch`] at another scale, [`CkksError::Params`] as
    /// [`Params::encapsulation_requests`](super::Params::encapsulation_requests); else those of a key switch ([`Evaluator`]).
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
        let plan = self.params.key_switch_tables(&request.gadget, level)?;
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
        let scale = Scale(ct.scale.0 / factor);
        let log_q = self.params.log_q(ct.level);
        if !(scale.0.is_finite() && scale.0 >= 1.0 && scale.log2() < log_q) {
            return Err(CkksError::ScaleRange { op, scale, level: ct.level, log_q });
        }
        ct.scale = self.snapped(scale, ct.level);
        Ok(ct)
    }
}

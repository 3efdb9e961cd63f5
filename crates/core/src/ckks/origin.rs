//! Where values come from: the parameter set and the secret key that everything made with them is marked with.

use super::error::{CkksError, Result};
use super::params::Params;
use serde::{Deserialize, Serialize};

/// Names a secret key in everything made with it. Random; says nothing about the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 16]);

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl std::fmt::Debug for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// Where a value comes from: its parameter set and its secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// Fingerprint of the parameter set.
    pub fingerprint: [u8; 32],
    /// The secret key's name.
    pub key_id: KeyId,
    /// Whether the parameter set makes no security claim.
    pub insecure: bool,
}

impl Tag {
    /// Errors unless the parameter set is this one.
    pub(crate) fn check_params(&self, params: &Params, op: &'static str) -> Result<()> {
        check_fingerprint(params, &self.fingerprint, op)
    }
    /// Errors unless the parameter set and the key are these.
    pub(super) fn check_same(&self, found: &Tag, op: &'static str) -> Result<()> {
        if self.fingerprint != found.fingerprint {
            return Err(params_mismatch(&self.fingerprint, &found.fingerprint, op));
        }
        if self.key_id == found.key_id {
            return Ok(());
        }
        Err(CkksError::KeyMismatch { op, expected: self.key_id.to_string(), found: found.key_id.to_string() })
    }
}

pub(super) fn check_fingerprint(params: &Params, found: &[u8; 32], op: &'static str) -> Result<()> {
    if params.fingerprint() == *found {
        return Ok(());
    }
    Err(params_mismatch(&params.fingerprint(), found, op))
}

fn params_mismatch(expected: &[u8; 32], found: &[u8; 32], op: &'static str) -> CkksError {
    let hex = |f: &[u8; 32]| f[..8].iter().map(|b| format!("{b:02x}")).collect();
    CkksError::ParamsMismatch { op, expected: hex(expected), found: hex(found) }
}

//! Encrypted values.

use super::error::{CkksError, Result};
use super::gadget::Gadget;
use super::origin::Tag;
use super::params::{Level, Params, Scale};
use crate::backend::{Backend, Buffer};

/// One or more encrypted vectors (shards) at one level and scale: `[shard][2][limb][N]`, NTT domain, plain form, over the
/// window of the level. Every operation works on all shards at once.
#[derive(Debug)]
pub struct Ciphertext {
    pub(crate) buffer: Buffer,
    pub(crate) level: Level,
    pub(crate) scale: Scale,
    pub(crate) tag: Tag,
}

impl Ciphertext {
    /// From parts, for loading; the shape must be `[2 shards][window][N]`. Residues are the caller's to check.
    ///
    /// # Errors
    /// [`CkksError::ParamsMismatch`] where the tag is of another parameter set, [`CkksError::Params`] for a level above the top,
    /// [`CkksError::Malformed`] for another shape, [`CkksError::ScaleRange`] for a scale that is not finite or below 1.
    pub fn from_parts(params: &Params, buffer: Buffer, level: Level, scale: Scale, tag: Tag) -> Result<Self> {
        tag.check_params(params, "load ciphertext")?;
        params.check_level(level)?;
        let shape = buffer.shape();
        let limbs = params.window(level).len();
        if shape.limbs != limbs || shape.degree != params.degree() || shape.polys == 0 || !shape.polys.is_multiple_of(2) {
            let expected = format!("an even number of polynomials, {limbs} limbs of {}", params.degree());
            return Err(CkksError::Malformed { what: "ciphertext", expected, found: format!("{shape:?}") });
        }
        check_scale(params, "load ciphertext", scale, level)?;
        Ok(Self { buffer, level, scale, tag })
    }
    /// The residues.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }
    /// The level.
    pub fn level(&self) -> Level {
        self.level
    }
    /// The scale.
    pub fn scale(&self) -> Scale {
        self.scale
    }
    /// Origin.
    pub fn tag(&self) -> Tag {
        self.tag
    }
    /// How many vectors.
    pub fn shards(&self) -> usize {
        self.buffer.shape().polys / 2
    }
    /// Bytes on the backend.
    pub fn bytes(&self) -> usize {
        self.buffer.shape().bytes()
    }
    /// A copy.
    ///
    /// # Errors
    /// [`CkksError::Backend`] where the backend has no room, or the ciphertext is another's.
    pub fn duplicate(&self, backend: &dyn Backend) -> Result<Self> {
        Ok(self.with(backend.duplicate(&self.buffer)?))
    }
    pub(super) fn with(&self, buffer: Buffer) -> Self {
        Self { buffer, level: self.level, scale: self.scale, tag: self.tag }
    }
}

/// Errors for a scale that no ciphertext can have.
pub(super) fn check_scale(params: &Params, op: &'static str, scale: Scale, level: Level) -> Result<()> {
    if scale.0.is_finite() && scale.0 >= 1.0 {
        return Ok(());
    }
    Err(CkksError::ScaleRange { op, scale, level, log_q: params.log_q(level) })
}

/// The digits of the second halves of a ciphertext, ready for any number of rotations: `[shard][digit]` over the extended
/// basis of a gadget at a level.
#[derive(Debug)]
pub struct Digits {
    pub(super) buffer: Buffer,
    pub(super) gadget: Gadget,
    pub(super) level: Level,
    pub(super) shards: usize,
    pub(super) tag: Tag,
}

impl Digits {
    /// The gadget.
    pub fn gadget(&self) -> Gadget {
        self.gadget
    }
    /// The level.
    pub fn level(&self) -> Level {
        self.level
    }
    /// How many vectors.
    pub fn shards(&self) -> usize {
        self.shards
    }
    /// Bytes on the backend.
    pub fn bytes(&self) -> usize {
        self.buffer.shape().bytes()
    }
}

/// A ciphertext times P, modulo QP: `[shard][2]` over the extended basis (window, then special primes) of a gadget. Sums of
/// these need only one division by P. The scale is that of the value without P.
#[derive(Debug)]
pub struct ExtendedCiphertext {
    pub(crate) buffer: Buffer,
    pub(crate) gadget: Gadget,
    pub(crate) level: Level,
    pub(crate) scale: Scale,
    pub(crate) tag: Tag,
}

impl ExtendedCiphertext {
    /// The residues.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }
    /// The gadget.
    pub fn gadget(&self) -> Gadget {
        self.gadget
    }
    /// The level.
    pub fn level(&self) -> Level {
        self.level
    }
    /// The scale, without P.
    pub fn scale(&self) -> Scale {
        self.scale
    }
    /// Origin.
    pub fn tag(&self) -> Tag {
        self.tag
    }
    /// How many vectors.
    pub fn shards(&self) -> usize {
        self.buffer.shape().polys / 2
    }
    pub(super) fn with(&self, buffer: Buffer) -> Self {
        Self { buffer, gadget: self.gadget, level: self.level, scale: self.scale, tag: self.tag }
    }
}

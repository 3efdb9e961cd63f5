//! Encoded values.

use super::params::Scale;
use crate::backend::Buffer;
use crate::math::Basis;

/// What an encoded value is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlainForm {
    /// Residues as they are: for additions and encryption.
    Plain,
    /// Residues times 2^32: for products.
    Montgomery,
}

/// Encoded vectors, one polynomial each, NTT domain: `[vector][limb][N]`.
#[derive(Debug)]
pub struct Plaintext {
    pub(crate) buffer: Buffer,
    pub(crate) basis: Basis,
    pub(crate) scale: Scale,
    pub(crate) form: PlainForm,
    pub(crate) fingerprint: [u8; 32],
}

impl Plaintext {
    /// The residues.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }
    /// The primes of its limbs.
    pub fn basis(&self) -> &Basis {
        &self.basis
    }
    /// The scale.
    pub fn scale(&self) -> Scale {
        self.scale
    }
    /// What it is for.
    pub fn form(&self) -> PlainForm {
        self.form
    }
    /// How many vectors.
    pub fn polys(&self) -> usize {
        self.buffer.shape().polys
    }
    /// Fingerprint of the parameter set.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

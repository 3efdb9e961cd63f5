//! What the kernels are given beside buffers: how keys are cut and switched, rotations, and terms of products.

use super::Buffer;
#[cfg(doc)]
use super::{Backend, Kernels};
use crate::math::{BaseConversion, Basis, BasisChange};

/// How a value is cut into digits for key switching, at one level (docs/arithmetic.md).
///
/// `digits[k]` are limbs of `window`; together they are all of it. The extended basis is `window` then `special`.
/// `mod_up[k]` goes from digit k to every limb of the extended basis that is not in the digit, in order.
#[derive(Debug)]
pub struct KeySwitchTables {
    /// The ciphertext's primes.
    pub window: Basis,
    /// The special primes P used.
    pub special: Basis,
    /// `window` then `special`.
    pub extended: Basis,
    /// The digits' primes.
    pub digits: Vec<Basis>,
    /// Conversion of each digit to the rest of `extended`.
    pub mod_up: Vec<BaseConversion>,
    /// `extended` -> `window`: division by P with rounding.
    pub mod_down: BasisChange,
    /// For each active digit, its index in the key's digit axis.
    pub key_digits: Vec<usize>,
    /// For each limb of `extended`, its index in the key's limb axis.
    pub key_limbs: Vec<usize>,
}

/// One rotation of [`Backend::rotate_digits`].
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    /// The Galois element.
    pub galois: u32,
    /// Its key; none for the rotation by nothing, a copy.
    pub key: Option<&'a Buffer>,
}

/// One rotation by something, of [`Backend::rotate`] and [`Backend::rotate_extended`].
#[derive(Debug, Clone, Copy)]
pub struct KeyRotation<'a> {
    /// The Galois element.
    pub galois: u32,
    /// Its key.
    pub key: &'a Buffer,
}

/// The rotations of [`Backend::rotated_inner_product`].
#[derive(Debug, Clone, Copy)]
pub struct HoistedRotations<'a> {
    /// The ciphertexts, `[shard][2]` over the window.
    pub ct: &'a Buffer,
    /// [`Kernels::mod_up`] of their second halves.
    pub digits: &'a Buffer,
    /// What they are rotated by.
    pub rotations: &'a [Rotation<'a>],
    /// Multiplies by P into the extended basis.
    pub lift: &'a BasisChange,
}

/// One step of Horner's rule over sums of rotations: [`Backend::rotate_sum`], and its like on whole values.
#[derive(Debug, Clone, Copy)]
pub struct HornerStep<'a, T = Buffer> {
    /// What is rotated, shard by shard.
    pub x: &'a T,
    /// The first of its shards to rotate.
    pub first: usize,
    /// What is added.
    pub plus: &'a T,
    /// The first of its shards to add.
    pub first_plus: usize,
    /// How many shards of each.
    pub shards: usize,
}

/// One term of [`Kernels::plain_inner_product`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainTerm {
    /// Index of the plaintext polynomial.
    pub plain: usize,
    /// Index of the ciphertext shard.
    pub source: usize,
}

/// Plaintexts still to be made, of [`Backend::encoded_inner_product`]. A function `(plain, limb, words)` is one.
pub trait PlainSource: Sync {
    /// Writes the canonical coefficients of one limb of a plaintext, in Montgomery form; called in parallel and in any order.
    fn residues(&self, plain: usize, limb: usize, words: &mut [u32]);
    /// The integers that the residues are of, for a device that reduces them itself; none where some are 2^53 or more.
    fn coefficients(&self) -> Option<Coefficients<'_>> {
        None
    }
}

impl<F: Fn(usize, usize, &mut [u32]) + Sync> PlainSource for F {
    fn residues(&self, plain: usize, limb: usize, words: &mut [u32]) {
        self(plain, limb, words);
    }
}

/// Integer coefficients below 2^53 in magnitude, held in f64.
#[derive(Debug, Clone, Copy)]
pub struct Coefficients<'a> {
    /// `[plain][stored]`.
    pub values: &'a [f64],
    /// Stored of each polynomial: all N, or the first N/2 of a real vector, whose second half is `m_(N-k) = -m_k`, `m_(N/2) = 0`.
    pub stored: usize,
}

/// One sum of [`Backend::linear_combinations`].
#[derive(Debug, Clone)]
pub struct Combination<'a> {
    /// What is summed.
    pub parts: Vec<&'a Buffer>,
    /// For each part, a canonical constant for each limb.
    pub constants: Vec<Vec<u32>>,
}

//! Integers that a suspect keeps, and what a reference makes of them.

use crate::backend::{Buffer, Coefficients, DeviceStorage, PlainSource, Storage};
use crate::math::{Basis, RnsTables};
use std::any::Any;

/// What a suspect keeps, with the integers.
#[derive(Debug)]
pub(super) struct Kept {
    /// The suspect's.
    pub(super) buffer: Buffer,
    pub(super) plains: usize,
    /// As [`Coefficients`] has them.
    values: Vec<f64>,
    stored: usize,
}

impl DeviceStorage for Kept {}

impl Kept {
    pub(super) fn new(buffer: Buffer, plains: usize, Coefficients { values, stored }: Coefficients<'_>) -> Self {
        Self { buffer, plains, values: values.to_vec(), stored }
    }

    /// Found again in a buffer; none where the buffer is another.
    pub(super) fn of(buffer: &Buffer) -> Option<&Self> {
        match buffer.storage() {
            Storage::Device(words) => (words.as_ref() as &dyn Any).downcast_ref(),
            Storage::Host(_) => None,
        }
    }
}

/// Their residues over a basis, by 128-bit arithmetic.
#[derive(Debug)]
pub(super) struct Reduced<'a> {
    pub(super) kept: &'a Kept,
    pub(super) tables: &'a RnsTables,
    pub(super) basis: &'a Basis,
}

impl PlainSource for Reduced<'_> {
    fn residues(&self, plain: usize, limb: usize, words: &mut [u32]) {
        let (n, stored) = (words.len(), self.kept.stored);
        let q = i128::from(self.tables.modulus(self.basis.limbs()[limb]).value());
        // Below 2^53 in magnitude, so that the products do not overflow; in Montgomery form.
        let residue = |x: f64| ((x as i128) << 32).rem_euclid(q) as u32;
        let x = &self.kept.values[plain * stored..][..stored];
        for (k, word) in words.iter_mut().enumerate() {
            *word = match k {
                _ if k < stored => residue(x[k]),
                _ if n - k < stored => residue(-x[n - k]),
                _ => 0,
            };
        }
    }
}

//! Two backends side by side, to find the first call on which they differ.

mod calls;
mod composites;
mod kept;
mod kernels;

pub use calls::Calls;

use super::{
    Backend, BackendError, Buffer, Combination, HoistedRotations, HornerStep, Kernels, KeyRotation, KeySwitchTables, Place,
    PlainSource, PlainTerm, PolySelect, Result, Rotation, Shape, Statistics,
};
use crate::math::{BaseConversion, Basis, BasisChange, RnsTables};
use kept::{Kept, Reduced};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Runs calls on a reference and on a suspect, compares every word, and fails at the first difference with
/// [`BackendError::Divergence`].
///
/// Buffers are the reference's; the suspect is given copies of a call's inputs, so that each call is judged alone, whatever
/// went before. What is asked of a backend before it is called (place, memory, what it keeps) the suspect answers, so that the
/// calls are those that would be made of it. A run may begin on the reference and turn to the suspect at a named call: with
/// [`Mirror::only`], calls of other names run on the reference alone. Slow: every input goes to the suspect and every result
/// comes back.
#[derive(Debug)]
pub struct Mirror {
    reference: Arc<dyn Backend>,
    suspect: Arc<dyn Backend>,
    only: Calls,
    calls: AtomicU64,
    compared: Mutex<BTreeMap<&'static str, u64>>,
}

/// A suspect and the copies it is given.
#[derive(Debug, Clone, Copy)]
struct Copies<'a>(&'a Mirror);

impl Copies<'_> {
    fn of(&self, buffer: &Buffer) -> Result<Buffer> {
        let words = self.0.reference.download(buffer)?;
        self.0.suspect.upload(buffer.shape(), &words)
    }
    fn all<'b>(&self, buffers: impl IntoIterator<Item = &'b Buffer>) -> Result<Vec<Buffer>> {
        buffers.into_iter().map(|b| self.of(b)).collect()
    }
    fn keys(&self, rotations: &[Rotation<'_>]) -> Result<Vec<Option<Buffer>>> {
        rotations.iter().map(|r| r.key.map(|key| self.of(key)).transpose()).collect()
    }
}

/// The rotations with other keys.
fn with_keys<'a>(rotations: &[Rotation<'_>], keys: &'a [Option<Buffer>]) -> Vec<Rotation<'a>> {
    rotations.iter().zip(keys).map(|(r, key)| Rotation { galois: r.galois, key: key.as_ref() }).collect()
}

impl Mirror {
    /// Compares all calls.
    pub fn new(reference: Arc<dyn Backend>, suspect: Arc<dyn Backend>) -> Self {
        Self { reference, suspect, only: Calls::ALL, calls: AtomicU64::new(0), compared: Mutex::default() }
    }

    /// Compares only these calls.
    pub fn only(self, calls: Calls) -> Self {
        Self { only: calls, ..self }
    }

    /// Calls that have been compared and agreed, by name.
    pub fn compared(&self) -> BTreeMap<&'static str, u64> {
        self.compared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a call; its number if it is one to look at.
    fn number(&self, op: &'static str) -> Option<u64> {
        let number = self.calls.fetch_add(1, Relaxed);
        self.only.has(op).then_some(number)
    }

    /// Compares what the suspect gave with what the reference gave.
    fn compare(&self, (op, call): (&'static str, u64), expected: &[Buffer], found: &[Buffer]) -> Result<()> {
        if found.len() != expected.len() {
            return Err(BackendError::Shape { op, expected: expected.len().to_string(), found: found.len().to_string() });
        }
        for (expected, found) in expected.iter().zip(found) {
            let shape = expected.shape();
            if found.shape() != shape {
                return Err(BackendError::Shape { op, expected: format!("{shape:?}"), found: format!("{:?}", found.shape()) });
            }
            let (expected, found) = (self.reference.download(expected)?, self.suspect.download(found)?);
            if let Some(at) = expected.iter().zip(&found).position(|(a, b)| a != b) {
                return Err(BackendError::Divergence {
                    op,
                    backend: self.suspect.name(),
                    call,
                    poly: at / shape.poly_words(),
                    limb: at / shape.degree % shape.limbs,
                    coefficient: at % shape.degree,
                    expected: expected[at],
                    found: found[at],
                });
            }
        }
        *self.compared.lock().unwrap_or_else(PoisonError::into_inner).entry(op).or_default() += 1;
        Ok(())
    }

    /// A call that makes a buffer.
    fn made(
        &self,
        op: &'static str,
        on_reference: impl FnOnce(&dyn Backend) -> Result<Buffer>,
        on_suspect: impl FnOnce(&dyn Backend, Copies<'_>) -> Result<Buffer>,
    ) -> Result<Buffer> {
        let number = self.number(op);
        let out = [on_reference(self.reference.as_ref())?];
        if let Some(number) = number {
            let found = on_suspect(self.suspect.as_ref(), Copies(self))?;
            self.compare((op, number), &out, &[found])?;
        }
        let [out] = out;
        Ok(out)
    }

    /// A call that changes a buffer.
    fn changed(
        &self,
        op: &'static str,
        data: &mut Buffer,
        call: impl Fn(&dyn Backend, &mut Buffer, &dyn Fn(&Buffer) -> Result<Option<Buffer>>) -> Result<()>,
    ) -> Result<()> {
        let number = self.number(op);
        let before = number.map(|_| Copies(self).of(data)).transpose()?;
        call(self.reference.as_ref(), data, &|_| Ok(None))?;
        if let Some((number, mut found)) = number.zip(before) {
            call(self.suspect.as_ref(), &mut found, &|other| Copies(self).of(other).map(Some))?;
            self.compare((op, number), std::slice::from_ref(data), &[found])?;
        }
        Ok(())
    }
}

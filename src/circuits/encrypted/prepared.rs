//! Encoded plaintexts kept between calls.

use super::{EncryptedEngine, Result};
use crate::backend::Backend;
use crate::circuits::linear_transform::Product;
use crate::ckks::{Gadget, KeptIntegers, Level, PlainForm, Plaintext};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What an encoded plaintext depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// The diagonals of a [`crate::circuits::DiagonalTransform`]: on the extended basis of a gadget, none without rotations; the
    /// scale by its bits.
    Diagonals { transform: u64, level: Level, gadget: Option<Gadget>, scale: u64 },
    /// Products of a [`crate::circuits::LinearTransform`], in this order.
    Products { transform: u64, level: Level, terms: Vec<Product> },
    /// A network's vectors, by a digest of their values: the plaintexts of biases and masks.
    Vectors { values: [u8; 32], level: Level, scale: u64, form: PlainForm },
    /// `i` in every slot, or `-i`.
    Unit { level: Level, negative: bool },
}

/// Encoded plaintexts, kept up to a budget of bytes; the rest is encoded again whenever it is used.
///
/// Those of [`crate::circuits::DiagonalTransform`]s are used several times in a run and are always worth it. Those of a
/// network's [`crate::circuits::LinearTransform`]s, biases and masks are used once a run, and are kept where that is asked for: on a
/// device that runs the network again.
#[derive(Debug)]
pub struct Prepared {
    budget: usize,
    /// Whether a network's plaintexts are kept, and how many bytes of all may be encoded ones: the rest is left to their integers.
    products: bool,
    encoded: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: usize,
    plaintexts: HashMap<Key, Arc<Plaintext>>,
    integers: HashMap<Key, Arc<KeptIntegers>>,
}

impl Default for Prepared {
    fn default() -> Self {
        Self::new(Self::BYTES)
    }
}

impl Prepared {
    /// The usual budget in host memory.
    pub const BYTES: usize = 2 << 30;

    /// Nothing yet.
    pub fn new(budget: usize) -> Self {
        Self { budget, products: false, encoded: budget, kept: Mutex::default() }
    }
    /// As much as suits a backend: where memory is bounded, what is kept leaves room for what is computed.
    pub(super) fn on(backend: &dyn Backend) -> Self {
        Self::new(backend.memory_limit().map_or(Self::BYTES, |limit| Self::BYTES.min(limit as usize / 4)))
    }
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
    /// What is kept under a key, else what `encode` makes, kept where there is room.
    pub(super) fn get(&self, key: Key, encode: impl FnOnce() -> Result<Plaintext>) -> Result<Arc<Plaintext>> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().plaintexts.get(&key) {
            return Ok(found.clone());
        }
        let plain = Arc::new(encode()?);
        let (bytes, mut kept) = (plain.buffer().shape().bytes(), lock());
        if kept.bytes + bytes <= self.budget {
            kept.bytes += bytes;
            kept.plaintexts.insert(key, plain.clone());
        }
        Ok(plain)
    }
    /// Whether a network's plaintexts are kept.
    pub(super) fn keeps_products(&self) -> bool {
        self.products
    }
    /// Whether `bytes` more, or what is kept under a key already, can stay.
    pub(super) fn has_room(&self, key: &Key, bytes: usize) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes.saturating_add(bytes) <= self.encoded || kept.plaintexts.contains_key(key)
    }
    /// The integers kept under a key, else those that `keep` makes, where there is room for `bytes` more.
    pub(super) fn integers(
        &self,
        key: Key,
        bytes: usize,
        keep: impl FnOnce() -> Result<Option<KeptIntegers>>,
    ) -> Result<Option<Arc<KeptIntegers>>> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = lock();
        if let Some(found) = kept.integers.get(&key) {
            return Ok(Some(found.clone()));
        }
        let room = kept.bytes.saturating_add(bytes) <= self.budget;
        drop(kept);
        let Some(made) = (if room { keep()? } else { None }) else { return Ok(None) };
        let (made, mut kept) = (Arc::new(made), lock());
        kept.bytes += made.bytes();
        kept.integers.insert(key, made.clone());
        Ok(Some(made))
    }
}

impl EncryptedEngine {
    /// Keeps at most this many bytes of encoded plaintexts.
    pub fn with_prepared_bytes(self, budget: usize) -> Self {
        Self { prepared: Prepared::new(budget), ..self }
    }

    /// Also keeps the plaintexts of a network's linear transforms, at most `bytes` more: for a device that runs the network
    /// several times. The first run makes room for them, which costs as much as encoding; later ones send their ciphertext alone.
    /// They are kept encoded as far as the integers of all, `integers` bytes, would fit beside; the others as integers.
    pub fn keeping_products(self, bytes: u64, integers: u64) -> Self {
        let more = usize::try_from(bytes).unwrap_or(usize::MAX);
        let encoded = more.saturating_sub(usize::try_from(integers).unwrap_or(usize::MAX));
        let (before, budget) = (self.prepared.budget, self.prepared.budget.saturating_add(more));
        let prepared = Prepared { products: true, encoded: before.saturating_add(encoded), ..Prepared::new(budget) };
        Self { prepared, ..self }
    }

    /// The encoded plaintexts kept.
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }
}

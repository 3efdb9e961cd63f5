//! Residues that a backend owns: their shape, where they are, and which polynomials of them a kernel reads.

use super::cpu;
use std::any::Any;
use std::sync::{Arc, OnceLock};

/// Shape of a buffer: `[polys][limbs][degree]`. A ciphertext of S shards has `2 S` polys, halves of a shard adjacent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Polynomials.
    pub polys: usize,
    /// RNS limbs of each.
    pub limbs: usize,
    /// Coefficients N of each limb.
    pub degree: usize,
}

impl Shape {
    /// A shape.
    pub const fn new(polys: usize, limbs: usize, degree: usize) -> Self {
        Self { polys, limbs, degree }
    }
    /// Words in all.
    pub const fn words(&self) -> usize {
        self.polys * self.limbs * self.degree
    }
    /// Words in all, where they can be counted.
    pub const fn checked_words(&self) -> Option<usize> {
        match self.polys.checked_mul(self.limbs) {
            Some(limbs) => limbs.checked_mul(self.degree),
            None => None,
        }
    }
    /// Bytes in all.
    pub const fn bytes(&self) -> usize {
        self.words() * 4
    }
    /// Words of one polynomial.
    pub const fn poly_words(&self) -> usize {
        self.limbs * self.degree
    }
}

/// Residues owned by a backend.
#[derive(Debug)]
pub struct Buffer {
    shape: Shape,
    storage: Storage,
    /// Made when it is first asked for: copies of these very words on other devices are found by it.
    identity: OnceLock<Arc<()>>,
}

/// Where a buffer's words live.
#[derive(Debug)]
pub enum Storage {
    /// Host memory, 64-byte aligned.
    Host(cpu::AlignedWords),
    /// Memory of a device, which its backend alone can read.
    Device(Box<dyn DeviceStorage>),
}

/// Words in a device's memory. Its backend finds its own type again by a downcast.
pub trait DeviceStorage: Any + Send + Sync + std::fmt::Debug {}

impl Buffer {
    /// Words in host memory.
    ///
    /// # Panics
    /// In debug builds, where there are not as many words as the shape says.
    pub fn from_host(shape: Shape, words: cpu::AlignedWords) -> Self {
        debug_assert_eq!(shape.words(), words.len());
        Self { shape, storage: Storage::Host(words), identity: OnceLock::new() }
    }
    /// As many words as the shape says, in a device's memory.
    pub fn from_device(shape: Shape, words: impl DeviceStorage) -> Self {
        Self { shape, storage: Storage::Device(Box::new(words)), identity: OnceLock::new() }
    }
    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }
    /// Has the words wiped when dropped, where they are in host memory.
    pub(crate) fn mark_secret(&mut self) {
        if let Storage::Host(words) = &mut self.storage {
            words.mark_secret();
        }
    }
    /// Where the words are.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }
    /// Stands for these words: shared by nothing else as long as it is held, gone when they change or are dropped.
    pub fn identity(&self) -> &Arc<()> {
        self.identity.get_or_init(Arc::default)
    }
    /// Where the words are, to change them.
    pub fn storage_mut(&mut self) -> &mut Storage {
        // Whoever asks may change the words; copies made before are of other ones.
        self.identity.take();
        &mut self.storage
    }
}

/// Which polynomials of a buffer a kernel reads: `first, first + stride, ...`, `count` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolySelect {
    /// First polynomial.
    pub first: usize,
    /// Distance between two.
    pub stride: usize,
    /// How many.
    pub count: usize,
}

impl PolySelect {
    /// All polynomials of a shape.
    pub const fn all(shape: Shape) -> Self {
        Self { first: 0, stride: 1, count: shape.polys }
    }
    /// The second halves (c1) of a ciphertext buffer.
    pub const fn second_halves(shape: Shape) -> Self {
        Self { first: 1, stride: 2, count: shape.polys / 2 }
    }
}

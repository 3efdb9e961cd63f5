//! The CPU backend: kernels on the host's cores, in rayon's current thread pool.
//!
//! A kernel is written once over `lanes::Lanes` and compiled for scalar code, AVX2 and AVX-512; the instruction set is
//! found when the backend is made. The composites (`mod_up`, `change_basis`, `key_switch`) are fused and blocked so
//! that intermediate limbs stay in the caches: memory, not arithmetic, is the wall.

use super::check::Checks;
use super::{
    Backend, BackendError, Buffer, HoistedRotations, HornerStep, Kernels, KeyRotation, KeySwitchTables, PlainSource, PlainTerm,
    PolySelect, Result, Rotation, Shape, Storage, check, rotate_digits_by_steps, rotate_sum_by_steps,
    rotated_inner_product_by_steps,
};
use crate::math::{BaseConversion, Basis, BasisChange, Modulus, RnsTables};
use base_convert::{Packed, padded};
use inner_product::Term;
use key_switch::{Key, Switch};
use parallel::Shared;
use rotate_digits::Hoisted;
use stages::{Job, Selected, Source};
use std::sync::Arc;
use switch_extended::{RotateSum, Shards};
use words::Pool;

mod automorphism;
mod base_convert;
mod change_basis;
mod composites;
mod elementwise;
mod encoded_inner_product;
mod inner_product;
mod isa;
mod kernels;
mod key_switch;
mod lanes;
mod mod_up;
mod ntt;
mod pages;
mod parallel;
mod plain_inner_product;
mod rotate_digits;
mod rotated_inner_product;
mod stages;
mod switch_extended;
mod words;

pub use isa::Isa;
pub use words::AlignedWords;

/// Kernels on the host's cores.
#[derive(Debug)]
pub struct CpuBackend {
    tables: Arc<RnsTables>,
    isa: Isa,
    /// The instruction set of the transforms: `isa`, or a narrower one where the degree asks for it.
    ntt_isa: Isa,
    pool: Arc<Pool>,
}

impl CpuBackend {
    /// A backend for these primes, with the best instruction set or the one named by [`Isa::VARIABLE`].
    ///
    /// # Errors
    /// [`BackendError::Isa`], as [`Isa::detect`].
    pub fn new(tables: Arc<RnsTables>) -> Result<Self> {
        Ok(Self::with_isa(tables, Isa::detect()?))
    }

    /// A backend for these primes with a given instruction set.
    pub fn with_isa(tables: Arc<RnsTables>, isa: Isa) -> Self {
        let ntt_isa = isa.for_degree(tables.degree());
        Self { tables, isa, ntt_isa, pool: Arc::default() }
    }

    fn checks(&self) -> Checks<'_> {
        Checks(&self.tables)
    }

    /// The words of a buffer of this backend.
    fn read<'a>(&self, buffer: &'a Buffer, op: &'static str) -> Result<&'a [u32]> {
        match buffer.storage() {
            Storage::Host(words) => Ok(words.as_slice()),
            Storage::Device(_) => Err(BackendError::ForeignBuffer { op, backend: self.name() }),
        }
    }

    /// The words of a buffer of this backend, mutable.
    fn write<'a>(&self, buffer: &'a mut Buffer, op: &'static str) -> Result<&'a mut [u32]> {
        match buffer.storage_mut() {
            Storage::Host(words) => Ok(words.as_mut_slice()),
            Storage::Device(_) => Err(BackendError::ForeignBuffer { op, backend: self.name() }),
        }
    }

    fn modulus(&self, basis: &Basis, limb: usize) -> &Modulus {
        self.tables.modulus(basis.limbs()[limb])
    }

    /// Runs `f(modulus, out, poly, limb)` for all limbs of `words`, in parallel, all polynomials of a limb together (their
    /// tables are then read once); `cost` in operations a word.
    fn each_limb(&self, words: &mut [u32], basis: &Basis, cost: usize, f: impl Fn(&Modulus, *mut u32, usize, usize) + Sync) {
        let (n, limbs) = (self.tables.degree(), basis.len());
        let count = words.len() / n;
        let polys = count / limbs.max(1);
        let work = words.len() * cost;
        let words = Shared::new(words);
        parallel::each(count, work, |i| {
            let (l, p) = (i / polys, i % polys);
            f(self.modulus(basis, l), words.piece((p * limbs + l) * n, n), p, l);
        });
    }

    /// A new buffer from [`Self::each_limb`]'s `f`, which overwrites every limb.
    fn build(&self, shape: Shape, basis: &Basis, f: impl Fn(&Modulus, *mut u32, usize, usize) + Sync) -> Buffer {
        let mut words = self.pool.take(shape.words());
        self.each_limb(words.as_mut_slice(), basis, 1, f);
        Buffer::from_host(shape, words)
    }

    /// A function to the first word of a limb, `[poly][limb][N]`.
    fn limbs<'a>(&self, words: &'a [u32], limbs: usize) -> impl Fn(usize, usize) -> &'a [u32] + Copy + use<'a> {
        let n = self.tables.degree();
        move |poly, limb| &words[(poly * limbs + limb) * n..][..n]
    }
}

//! The contract between the scheme and the machines that run it.
//!
//! A [`Backend`] owns [`Buffer`]s of residues, `[poly][limb][coefficient]` in `u32`, and runs batched calls on them:
//! kernels, which every backend has, and composed calls, which have a definition in kernels here and may be overridden
//! by something faster that gives the same bits. Which prime a limb belongs to is said by the [`Basis`] given with it.
//! Every kernel takes all limbs, all polynomials (both halves of all shards) in one call: one parallel region on a CPU,
//! one dispatch on a GPU.
//!
//! Contract, the same for every backend:
//! - residues are canonical, in `[0, q)`, in every buffer at every call boundary; the same call gives the same bits;
//! - ciphertext data is never in Montgomery form; [`Backend::key_inner_product`]'s keys and the plaintext factors of
//!   [`Backend::mul_plain`] and [`Backend::plain_inner_product`] are (`x 2^32 mod q`), so their products need no
//!   correction;
//! - "NTT domain" means the order of [`crate::math::ntt_table`];
//! - outputs are freshly allocated or fully overwritten; inputs are never changed unless the name says `_assign`;
//! - shapes and bases that do not fit give [`BackendError::Shape`], a buffer of another backend
//!   [`BackendError::ForeignBuffer`]; nothing panics (all errors: [`Backend`]);
//! - calls may be asynchronous on a device: only [`Backend::download`] and [`Backend::synchronize`] wait.
//!
//! The chain of trust is `math::naive` -> scalar -> SIMD -> WGSL, bit-exact at each step.

use crate::math::{BaseConversion, Basis, BasisChange, RnsTables};
use rayon::prelude::*;
use std::any::Any;
use std::sync::Arc;

mod arguments;
mod buffer;
mod by_steps;
pub mod check;
pub mod cpu;
mod error;
mod mirror;
mod statistics;

pub use arguments::{
    Coefficients, Combination, HoistedRotations, KeyRotation, KeySwitchTables, PlainSource, PlainTerm, Rotation,
};
pub use buffer::{Buffer, DeviceStorage, PolySelect, Shape, Storage};
pub use by_steps::{
    change_basis_adding_by_steps, rotate_digits_by_steps, rotate_digits_extended_by_steps, rotate_sum_by_steps,
    rotated_inner_product_by_steps, rotated_sum_by_steps,
};
pub use error::{BackendError, Result};
pub use mirror::{Calls, Mirror};
pub use statistics::{Place, Statistics};

/// Batched kernels over RNS limbs. See the module documentation for the contract.
///
/// # Errors
/// Of every call, where it says no more:
/// - [`BackendError::ForeignBuffer`] for a buffer of another backend;
/// - [`BackendError::OutOfMemory`] where a device has no room for the result, or for what is made on the way, and where
///   a shape has more words than can be addressed;
/// - [`BackendError::Device`] where a device has failed, in this call or before it;
/// - of a [`Mirror`], also [`BackendError::Divergence`], and whatever the suspect gives.
///
/// A call says itself what it refuses as [`BackendError::Shape`]. A basis fits a buffer that has a limb for each of its
/// primes, all of which are in [`Self::tables`], and the degree of those.
pub trait Backend: Any + Send + Sync + std::fmt::Debug {
    /// Short name: `cpu-avx512`, `cpu-avx2`, `cpu-scalar`, ...
    fn name(&self) -> &'static str;
    /// The primes and degree.
    fn tables(&self) -> &Arc<RnsTables>;
    /// Where its buffers are.
    fn place(&self) -> Place {
        Place::Host
    }
    /// The most bytes that buffers may take, where that is bounded.
    fn memory_limit(&self) -> Option<u64> {
        None
    }
    /// The most bytes that a device takes before it refuses: its limit, or most of its memory; none where that is
    /// unknown, and on a processor.
    fn device_bytes(&self) -> Option<u64> {
        None
    }
    /// What a device has been asked to do; zeros where there is none.
    fn statistics(&self) -> Statistics {
        Statistics::default()
    }

    /// A buffer of zeros.
    ///
    /// # Errors
    /// As [`Backend`] says.
    fn alloc(&self, shape: Shape) -> Result<Buffer>;
    /// A buffer of zeros for a key, to be filled where it is and then taken as `key` by any backend: a device that has
    /// memory of its own keeps such buffers on the host and uploads them when they are needed.
    ///
    /// # Errors
    /// As [`Backend`] says.
    fn alloc_key(&self, shape: Shape) -> Result<Buffer> {
        self.alloc(shape)
    }
    /// A buffer with these words, `[poly][limb][coefficient]`, canonical.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where there are not as many words as the shape says; else as [`Backend`] says.
    fn upload(&self, shape: Shape, words: &[u32]) -> Result<Buffer>;
    /// A buffer in NTT domain. `fill(poly, limb, words)` writes the canonical coefficients of each limb, in parallel
    /// and in any order; a CPU transforms each limb while it is still in cache.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the basis is not one of [`Self::tables`]; else as [`Backend`] says.
    fn upload_ntt(&self, polys: usize, basis: &Basis, fill: &(dyn Fn(usize, usize, &mut [u32]) + Sync)) -> Result<Buffer> {
        let shape = Shape::new(polys, basis.len(), self.tables().degree());
        let mut words = vec![0u32; check::room(shape, "upload_ntt")?];
        let limbs = basis.len().max(1);
        words.par_chunks_mut(shape.degree).enumerate().for_each(|(i, limb)| fill(i / limbs, i % limbs, limb));
        let mut buffer = self.upload(shape, &words)?;
        self.ntt_forward(&mut buffer, basis)?;
        Ok(buffer)
    }
    /// The words of a buffer. Waits for all pending work on it.
    ///
    /// # Errors
    /// As [`Backend`] says.
    fn download(&self, buffer: &Buffer) -> Result<Vec<u32>>;
    /// Waits until all calls made so far are done. A CPU is done when a call returns.
    ///
    /// # Errors
    /// [`BackendError::Device`] where the device has failed.
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
    /// A copy.
    ///
    /// # Errors
    /// As [`Backend`] says.
    fn duplicate(&self, buffer: &Buffer) -> Result<Buffer>;
    /// The selected polynomials as a new buffer.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where a polynomial is not there or is taken twice; else as [`Backend`] says.
    fn select(&self, src: &Buffer, select: PolySelect) -> Result<Buffer>;
    /// A buffer cut into parts of so many polynomials each; a device cuts it where it lies.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the parts are not all of it; else as [`Backend`] says.
    fn split(&self, buffer: Buffer, polys: &[usize]) -> Result<Vec<Buffer>> {
        let parts = check::parts(buffer.shape(), polys, "split")?;
        match parts.len() {
            1 => Ok(vec![buffer]),
            _ => parts.into_iter().map(|part| self.select(&buffer, part)).collect(),
        }
    }
    /// The polynomials of all `parts`, one after the other; equal limbs and degree.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the parts have other limbs or another degree than the first; else as [`Backend`]
    /// says.
    fn concat(&self, parts: &[&Buffer]) -> Result<Buffer>;

    /// Forward negacyclic NTT of every polynomial, in place.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the basis does not fit; else as [`Backend`] says.
    fn ntt_forward(&self, data: &mut Buffer, basis: &Basis) -> Result<()>;
    /// Inverse negacyclic NTT of every polynomial, in place, N^-1 included.
    ///
    /// # Errors
    /// As [`Self::ntt_forward`].
    fn ntt_inverse(&self, data: &mut Buffer, basis: &Basis) -> Result<()>;

    /// `a + b`.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the shapes differ or the basis does not fit; else as [`Backend`] says.
    fn add(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer>;
    /// `a += b`.
    ///
    /// # Errors
    /// As [`Self::add`].
    fn add_assign(&self, a: &mut Buffer, b: &Buffer, basis: &Basis) -> Result<()>;
    /// `a - b`.
    ///
    /// # Errors
    /// As [`Self::add`].
    fn sub(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer>;
    /// `a -= b`.
    ///
    /// # Errors
    /// As [`Self::add`].
    fn sub_assign(&self, a: &mut Buffer, b: &Buffer, basis: &Basis) -> Result<()> {
        *a = self.sub(a, b, basis)?;
        Ok(())
    }
    /// `-a`.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the basis does not fit; else as [`Backend`] says.
    fn negate(&self, a: &Buffer, basis: &Basis) -> Result<Buffer>;
    /// `a * constants[limb]`; one canonical constant per limb.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the basis does not fit, or the constants are not a canonical one for each limb;
    /// else as [`Backend`] says.
    fn mul_constant(&self, a: &Buffer, constants: &[u32], basis: &Basis) -> Result<Buffer>;
    /// `sum_k constants[k][limb] * parts[k]`; parts of one shape, one canonical constant per limb for each.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where there is no part, the parts differ in shape, there are not as many lists of
    /// constants, or as for [`Self::mul_constant`]; else as [`Backend`] says.
    fn linear_combination(&self, parts: &[&Buffer], constants: &[Vec<u32>], basis: &Basis) -> Result<Buffer> {
        check::combination(parts, constants, "linear_combination")?;
        let mut sum = self.mul_constant(parts[0], &constants[0], basis)?;
        for (part, constants) in parts.iter().zip(constants).skip(1) {
            self.add_assign(&mut sum, &self.mul_constant(part, constants, basis)?, basis)?;
        }
        Ok(sum)
    }
    /// Adds `constants[limb]` to every word of the selected polynomials (in NTT domain: adds that constant polynomial).
    ///
    /// # Errors
    /// [`BackendError::Shape`] as for [`Self::mul_constant`] and [`Self::select`]; else as [`Backend`] says.
    fn add_constant_assign(&self, a: &mut Buffer, select: PolySelect, constants: &[u32], basis: &Basis) -> Result<()>;
    /// [`Self::add_constant_assign`] with constants for each of several runs of the selected polynomials, all as long:
    /// `constants[run][limb]`.
    ///
    /// # Errors
    /// As [`Self::add_constant_assign`]; [`BackendError::Shape`] too where the polynomials cannot be shared out.
    fn add_constants_assign(&self, a: &mut Buffer, select: PolySelect, constants: &[Vec<u32>], basis: &Basis) -> Result<()> {
        let count = check::runs(select, constants.len(), "add_constants_assign")?;
        for (i, constants) in constants.iter().enumerate() {
            let run = PolySelect { first: select.first + i * count * select.stride, count, ..select };
            self.add_constant_assign(a, run, constants, basis)?;
        }
        Ok(())
    }
    /// Adds polynomial `i % plain.polys` of `plain` (plain form) to the i-th selected polynomial of `a`.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the basis does not fit both, there is no plaintext to add, or as for
    /// [`Self::select`]; else as [`Backend`] says.
    fn add_plain_assign(&self, a: &mut Buffer, select: PolySelect, plain: &Buffer, basis: &Basis) -> Result<()>;
    /// `a * plain`: shard i (polys 2i, 2i+1) times polynomial `i % plain.polys` of `plain` (Montgomery form). NTT
    /// domain.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the basis does not fit both, a half of a ciphertext is missing, or there is no
    /// plaintext; else as [`Backend`] says.
    fn mul_plain(&self, a: &Buffer, plain: &Buffer, basis: &Basis) -> Result<Buffer>;
    /// Degree-2 product of ciphertexts, shard by shard: polys `[shard][3]` = (a0 b0, a0 b1 + a1 b0, a1 b1). NTT domain.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the shapes differ, the basis does not fit, or a half of a ciphertext is missing;
    /// else as [`Backend`] says.
    fn tensor(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer>;
    /// The sum of [`Self::tensor`] over pairs, one at least, all of one shape.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where there is no pair, the pairs differ in shape, or as for [`Self::tensor`]; else as
    /// [`Backend`] says.
    fn tensor_sum(&self, pairs: &[(&Buffer, &Buffer)], basis: &Basis) -> Result<Buffer> {
        check::pairs(pairs, "tensor_sum")?;
        let mut sum = self.tensor(pairs[0].0, pairs[0].1, basis)?;
        for (a, b) in &pairs[1..] {
            self.add_assign(&mut sum, &self.tensor(a, b, basis)?, basis)?;
        }
        Ok(sum)
    }
    /// [`Self::tensor_sum`] for several lists of pairs, all of one shape: the sums one after the other.
    ///
    /// # Errors
    /// As [`Self::tensor_sum`]; [`BackendError::Shape`] too where there is no list.
    fn tensor_sums(&self, sums: &[Vec<(&Buffer, &Buffer)>], basis: &Basis) -> Result<Buffer> {
        let sums = sums.iter().map(|pairs| self.tensor_sum(pairs, basis)).collect::<Result<Vec<_>>>()?;
        self.concat(&sums.iter().collect::<Vec<_>>())
    }
    /// [`Self::linear_combination`] for several lists of parts, all of one shape: the sums one after the other.
    ///
    /// # Errors
    /// As [`Self::linear_combination`]; [`BackendError::Shape`] too where there is no list.
    fn linear_combinations(&self, sums: &[Combination<'_>], basis: &Basis) -> Result<Buffer> {
        let sum = |s: &Combination<'_>| self.linear_combination(&s.parts, &s.constants, basis);
        let sums = sums.iter().map(sum).collect::<Result<Vec<_>>>()?;
        self.concat(&sums.iter().collect::<Vec<_>>())
    }
    /// For each output shard o: `sum_t plain[t.plain] * ct[t.source]` over the terms of `terms[o]`; `ct` is
    /// `[shard][2]`, both halves of a shard multiplied alike, `plain` polynomials in Montgomery form. NTT domain.
    ///
    /// Plaintexts may be of a lower degree D, a power of two: polynomials in `X^(N/D)`, each word standing for N / D
    /// equal ones.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the basis does not fit both (but for a lower degree of the plaintexts), a half of
    /// a ciphertext is missing, or a term names a shard or plaintext that is not there; else as [`Backend`] says.
    fn plain_inner_product(&self, ct: &Buffer, plain: &Buffer, terms: &[Vec<PlainTerm>], basis: &Basis) -> Result<Buffer>;

    /// [`Self::plain_inner_product`] with `plains` plaintexts made on the way, in Montgomery form, once or more for
    /// each term. For plaintexts that are used once and need not be kept.
    ///
    /// # Errors
    /// As [`Self::plain_inner_product`].
    fn encoded_inner_product(
        &self,
        ct: &Buffer,
        plains: usize,
        source: &dyn PlainSource,
        terms: &[Vec<PlainTerm>],
        basis: &Basis,
    ) -> Result<Buffer> {
        self.plain_inner_product(ct, &self.encode_plain(plains, source, basis)?, terms, basis)
    }

    /// The integers of a source's plaintexts, kept on a device that reduces them itself whenever
    /// [`Self::kept_inner_product`] needs them: less than the plaintexts take, and no more to send. None on a backend
    /// that does not, or where the source has none.
    ///
    /// # Errors
    /// As [`Backend`] says.
    fn keep_integers(&self, _plains: usize, _source: &dyn PlainSource) -> Result<Option<Buffer>> {
        Ok(None)
    }
    /// [`Self::encoded_inner_product`] of integers that [`Self::keep_integers`] gave.
    ///
    /// # Errors
    /// As [`Self::plain_inner_product`]; [`BackendError::ForeignBuffer`] on a backend that keeps none.
    fn kept_inner_product(&self, _ct: &Buffer, _kept: &Buffer, _terms: &[Vec<PlainTerm>], _basis: &Basis) -> Result<Buffer> {
        Err(BackendError::ForeignBuffer { op: "kept_inner_product", backend: self.name() })
    }
    /// Plaintexts made from a source, in Montgomery form, NTT domain, to be kept.
    ///
    /// # Errors
    /// As [`Self::upload_ntt`].
    fn encode_plain(&self, plains: usize, source: &dyn PlainSource, basis: &Basis) -> Result<Buffer> {
        self.upload_ntt(plains, basis, &|plain, limb, words| source.residues(plain, limb, words))
    }

    /// X -> X^galois on every polynomial, NTT domain to NTT domain (a permutation of words).
    ///
    /// # Errors
    /// [`BackendError::Galois`] for an element that is even or not below 2N, [`BackendError::Shape`] where the basis
    /// does not fit; else as [`Backend`] says.
    fn automorphism(&self, src: &Buffer, galois: u32, basis: &Basis) -> Result<Buffer>;

    /// Coefficient domain: `[poly][from][N]` -> `[poly][to][N]` by the formula of [`crate::math::base_conversion`].
    ///
    /// # Errors
    /// [`BackendError::Shape`] where `src` is not over `conversion.from`, or the constants are not those of so many
    /// limbs; else as [`Backend`] says.
    fn base_convert(&self, src: &Buffer, conversion: &BaseConversion) -> Result<Buffer>;
    /// Digits of the selected polynomials (NTT domain in and out): `[selected][digit][extended limb][N]`, that is
    /// `polys = selected * digits`. A digit's own limbs are copied, the rest converted. Cost: one inverse NTT a window
    /// limb, one forward NTT a converted limb.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where `src` is not over the window, the plan contradicts itself, or as for
    /// [`Self::select`]; else as [`Backend`] says.
    fn mod_up(&self, src: &Buffer, select: PolySelect, plan: &KeySwitchTables) -> Result<Buffer>;
    /// `sum_k digits[s][k] * key[k]`: polys `[shard][2]` over `plan.extended`. `key` is `[key digit][2][key limb][N]`
    /// in Montgomery form (`polys = key digits * 2`). NTT domain. The key is read once for all shards.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the digits are not whole shards over the extended basis, or the key has not the
    /// plan's digits and limbs; else as [`Backend`] says.
    fn key_inner_product(&self, digits: &Buffer, key: &Buffer, plan: &KeySwitchTables) -> Result<Buffer>;
    /// `round(x * prod(incoming) / prod(dropped))` for every polynomial, NTT domain to NTT domain (mod_down, rescale,
    /// both merged).
    ///
    /// # Errors
    /// [`BackendError::Shape`] where `src` is not over `change.source`, or the change contradicts itself; else as
    /// [`Backend`] says.
    fn change_basis(&self, src: &Buffer, change: &BasisChange) -> Result<Buffer>;
    /// [`Self::change_basis`] of ciphertexts, polys `[shard][2]`, and constants added to first halves:
    /// `constants[run][limb]` for each of several runs of as many shards.
    ///
    /// # Errors
    /// As [`Self::change_basis`] and [`Self::add_constants_assign`].
    fn change_basis_adding(&self, src: &Buffer, change: &BasisChange, constants: &[Vec<u32>]) -> Result<Buffer> {
        change_basis_adding_by_steps(self, src, change, constants)
    }
    /// Rotations that share digits (hoisting): for each of `rotations`, all shards of `sigma(c0 + k0, k1)` where
    /// `(k0, k1)` is the digits' product with its key, divided by P. The result is `[rotation][shard][2]` over
    /// `plan.window`; `digits` is [`Self::mod_up`] of the second halves of `ct`. Each key is read once for all shards.
    ///
    /// # Errors
    /// [`BackendError::Galois`] as for [`Self::automorphism`], but for a rotation by nothing; [`BackendError::Shape`]
    /// where `ct` is not whole ciphertexts over the window, there are not as many digits as it has, the plan
    /// contradicts itself, or a key does not fit it; else as [`Backend`] says.
    fn rotate_digits(&self, ct: &Buffer, digits: &Buffer, rotations: &[Rotation<'_>], plan: &KeySwitchTables) -> Result<Buffer> {
        rotate_digits_by_steps(self, ct, digits, rotations, plan)
    }
    /// One rotation, times P and in the extended basis: `sigma(P c0 + k0, k1)` for all shards, with `(k0, k1)` the
    /// digits' product with the key and `lifted` the first halves times P, `[shard]` over `plan.extended`.
    ///
    /// # Errors
    /// [`BackendError::Galois`] as for [`Self::automorphism`]; [`BackendError::Shape`] as for
    /// [`Self::key_inner_product`], and where `lifted` is not one polynomial a shard over the extended basis; else as
    /// [`Backend`] says.
    fn rotate_extended(
        &self,
        digits: &Buffer,
        lifted: &Buffer,
        rotation: KeyRotation<'_>,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        let mut sum = self.key_inner_product(digits, rotation.key, plan)?;
        let halves = PolySelect { first: 0, stride: 2, count: sum.shape().polys / 2 };
        self.add_plain_assign(&mut sum, halves, lifted, &plan.extended)?;
        self.automorphism(&sum, rotation.galois, &plan.extended)
    }
    /// One step of Horner's rule in the extended basis: `sigma(x0 + k0, k1) + plus` for `shards` shards of `x` and of
    /// `plus`, each from a first one on, `[shard][2]` over `plan.extended`; `(k0, k1)` are the digits of `x1 / P` times
    /// the key.
    ///
    /// # Errors
    /// [`BackendError::Galois`] as for [`Self::automorphism`]; [`BackendError::Shape`] where `x` or `plus` is not over
    /// the extended basis or has not the shards asked for, the plan contradicts itself, or the key does not fit it;
    /// else as [`Backend`] says.
    fn rotate_sum(
        &self,
        x: (&Buffer, usize),
        plus: (&Buffer, usize),
        shards: usize,
        rotation: KeyRotation<'_>,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        rotate_sum_by_steps(self, x, plus, shards, rotation, plan)
    }
    /// A sum of rotations in the extended basis, each of ciphertexts of its own: the sum of `sigma(P c0 + k0, k1)` over
    /// `rotations`, with `(k0, k1)` the digits of c1 times the rotation's key. `ct` is `[rotation][shard][2]` over the
    /// window, the result `[shard][2]` over `plan.extended`; `lift` multiplies by P into it. P times the ciphertexts
    /// `plus`, over the window too, are added where there are any.
    ///
    /// # Errors
    /// [`BackendError::Galois`] as for [`Self::automorphism`]; [`BackendError::Shape`] where `ct` is not as many
    /// ciphertexts for each rotation, there is no rotation, `lift` does not lead from the window to the extended basis,
    /// the plan contradicts itself, or a key does not fit it; else as [`Backend`] says.
    fn rotated_sum(
        &self,
        (ct, plus): (&Buffer, Option<&Buffer>),
        rotations: &[KeyRotation<'_>],
        lift: &BasisChange,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        rotated_sum_by_steps(self, (ct, plus), rotations, lift, plan)
    }
    /// One rotation of a ciphertext: `sigma(c0 + k0, k1)` for all shards, with `(k0, k1)` the key switch of c1.
    ///
    /// # Errors
    /// [`BackendError::Galois`] as for [`Self::automorphism`]; [`BackendError::Shape`] as for [`Self::key_switch`], and
    /// where a half of a ciphertext is missing; else as [`Backend`] says.
    fn rotate(&self, ct: &Buffer, rotation: KeyRotation<'_>, plan: &KeySwitchTables) -> Result<Buffer> {
        let mut switched = self.key_switch(ct, PolySelect::second_halves(ct.shape()), rotation.key, plan)?;
        let halves = PolySelect { first: 0, stride: 2, count: ct.shape().polys / 2 };
        let first = self.select(ct, halves)?;
        self.add_plain_assign(&mut switched, halves, &first, &plan.window)?;
        self.automorphism(&switched, rotation.galois, &plan.window)
    }
    /// Relinearization without the division: `P (d0, d1) + (k0, k1)` for each shard of a product `[shard][3]`, with
    /// `(k0, k1)` the digits of d2 times the key. The result is `[shard][2]` over `plan.extended`; `lift` multiplies by
    /// P into it.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the product is not three polynomials a shard over the window, `lift` does not lead
    /// from there to the extended basis, the plan contradicts itself, or the key does not fit it; else as [`Backend`]
    /// says.
    fn relinearize_extended(&self, product: &Buffer, key: &Buffer, lift: &BasisChange, plan: &KeySwitchTables) -> Result<Buffer> {
        let shards = product.shape().polys / 3;
        let digits = self.mod_up(product, PolySelect { first: 2, stride: 3, count: shards }, plan)?;
        let mut sum = self.key_inner_product(&digits, key, plan)?;
        drop(digits);
        for half in 0..2 {
            let part = self.select(product, PolySelect { first: half, stride: 3, count: shards })?;
            let part = self.change_basis(&part, lift)?;
            self.add_plain_assign(&mut sum, PolySelect { first: half, stride: 2, count: shards }, &part, &plan.extended)?;
        }
        Ok(sum)
    }
    /// [`Self::rotate_digits`] without the division: all shards of `sigma(P c0 + k0, k1)` for each rotation,
    /// `P (c0, c1)` for the rotation by nothing. The result is `[rotation][shard][2]` over `plan.extended`; `lift`
    /// multiplies by P into it.
    ///
    /// # Errors
    /// As [`Self::rotate_digits`]; [`BackendError::Shape`] also where `lift` does not lead from the window to the
    /// extended basis.
    fn rotate_digits_extended(
        &self,
        ct: &Buffer,
        digits: &Buffer,
        rotations: &[Rotation<'_>],
        lift: &BasisChange,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        rotate_digits_extended_by_steps(self, ct, digits, rotations, lift, plan)
    }
    /// [`Self::plain_inner_product`] of [`Self::rotate_digits_extended`]: source `r * shards + s` of a term is rotation
    /// r of shard s. The result is `[output][2]` over `plan.extended`.
    ///
    /// # Errors
    /// As [`Self::rotate_digits_extended`] and [`Self::plain_inner_product`].
    fn rotated_inner_product(
        &self,
        hoisted: HoistedRotations<'_>,
        plan: &KeySwitchTables,
        plain: &Buffer,
        terms: &[Vec<PlainTerm>],
    ) -> Result<Buffer> {
        rotated_inner_product_by_steps(self, hoisted, plan, plain, terms)
    }
    /// mod_up, key_inner_product and mod_down in one: polys `[selected][2]` over `plan.window`.
    ///
    /// # Errors
    /// [`BackendError::Shape`] as for [`Self::mod_up`], [`Self::key_inner_product`] and [`Self::change_basis`]; else as
    /// [`Backend`] says.
    fn key_switch(&self, src: &Buffer, select: PolySelect, key: &Buffer, plan: &KeySwitchTables) -> Result<Buffer> {
        let digits = self.mod_up(src, select, plan)?;
        let extended = self.key_inner_product(&digits, key, plan)?;
        self.change_basis(&extended, &plan.mod_down)
    }
}

//! What can be composed of kernels, and what a backend may do faster.

#[cfg(doc)]
use super::Mirror;
use super::{
    BackendError, Buffer, Combination, HoistedRotations, HornerStep, Kernels, KeyRotation, KeySwitchTables, PlainSource,
    PlainTerm, PolySelect, Result, Rotation, Shape, change_basis_adding_by_steps, check, rotate_digits_by_steps,
    rotate_digits_extended_by_steps, rotate_sum_by_steps, rotated_inner_product_by_steps, rotated_sum_by_steps,
};
use crate::math::{Basis, BasisChange};
use rayon::prelude::*;

/// A backend: its [`Kernels`], and calls composed of them. Every method here has a default that runs kernel after kernel,
/// and may be overridden by something faster that gives the same bits.
///
/// - Buffers: [`Self::upload_ntt`], [`Self::split`].
/// - Sums: [`Self::sub_assign`], [`Self::add_constants_assign`], [`Self::linear_combination`], [`Self::tensor_sum`], and
///   several such sums at once, [`Self::linear_combinations`], [`Self::tensor_sums`].
/// - Plaintexts: [`Self::encode_plain`], [`Self::encoded_inner_product`]; [`Self::keep_integers`] and
///   [`Self::kept_inner_product`], by default none and refused.
/// - Key switches: [`Self::key_switch`], [`Self::rotate`], [`Self::rotate_digits`], [`Self::change_basis_adding`]; those
///   that stay in the extended basis, [`Self::rotate_extended`], [`Self::rotate_digits_extended`], [`Self::rotate_sum`],
///   [`Self::rotated_sum`], [`Self::rotated_inner_product`], [`Self::relinearize_extended`].
///
/// The definitions that an implementation falls back on, and is tested against, stand alone too: those named `_by_steps`
/// in [`crate::backend`].
///
/// # Errors
/// Of every call, where it says no more, those of all [`Kernels`].
pub trait Backend: Kernels {
    /// A buffer in NTT domain. `fill(poly, limb, words)` writes the canonical coefficients of each limb, in parallel
    /// and in any order; a CPU transforms each limb while it is still in cache.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where the basis is not one of [`Kernels::tables`]; else as [`Backend`] says.
    fn upload_ntt(&self, polys: usize, basis: &Basis, fill: &(dyn Fn(usize, usize, &mut [u32]) + Sync)) -> Result<Buffer> {
        let shape = Shape::new(polys, basis.len(), self.tables().degree());
        let mut words = vec![0u32; check::room(shape, "upload_ntt")?];
        let limbs = basis.len().max(1);
        words.par_chunks_mut(shape.degree).enumerate().for_each(|(i, limb)| fill(i / limbs, i % limbs, limb));
        let mut buffer = self.upload(shape, &words)?;
        self.ntt_forward(&mut buffer, basis)?;
        Ok(buffer)
    }
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
    /// `a -= b`.
    ///
    /// # Errors
    /// As [`Kernels::add`].
    fn sub_assign(&self, a: &mut Buffer, b: &Buffer, basis: &Basis) -> Result<()> {
        *a = self.sub(a, b, basis)?;
        Ok(())
    }
    /// `sum_k constants[k][limb] * parts[k]`; parts of one shape, one canonical constant per limb for each.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where there is no part, the parts differ in shape, there are not as many lists of
    /// constants, or as for [`Kernels::mul_constant`]; else as [`Backend`] says.
    fn linear_combination(&self, parts: &[&Buffer], constants: &[Vec<u32>], basis: &Basis) -> Result<Buffer> {
        check::combination(parts, constants, "linear_combination")?;
        let mut sum = self.mul_constant(parts[0], &constants[0], basis)?;
        for (part, constants) in parts.iter().zip(constants).skip(1) {
            self.add_assign(&mut sum, &self.mul_constant(part, constants, basis)?, basis)?;
        }
        Ok(sum)
    }
    /// [`Kernels::add_constant_assign`] with constants for each of several runs of the selected polynomials, all as long:
    /// `constants[run][limb]`.
    ///
    /// # Errors
    /// As [`Kernels::add_constant_assign`]; [`BackendError::Shape`] too where the polynomials cannot be shared out.
    fn add_constants_assign(&self, a: &mut Buffer, select: PolySelect, constants: &[Vec<u32>], basis: &Basis) -> Result<()> {
        let count = check::runs(select, constants.len(), "add_constants_assign")?;
        for (i, constants) in constants.iter().enumerate() {
            let run = PolySelect { first: select.first + i * count * select.stride, count, ..select };
            self.add_constant_assign(a, run, constants, basis)?;
        }
        Ok(())
    }
    /// The sum of [`Kernels::tensor`] over pairs, one at least, all of one shape.
    ///
    /// # Errors
    /// [`BackendError::Shape`] where there is no pair, the pairs differ in shape, or as for [`Kernels::tensor`]; else as
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

    /// [`Kernels::plain_inner_product`] with `plains` plaintexts made on the way, in Montgomery form, once or more for
    /// each term. For plaintexts that are used once and need not be kept.
    ///
    /// # Errors
    /// As [`Kernels::plain_inner_product`].
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
    /// As [`Kernels::plain_inner_product`]; [`BackendError::ForeignBuffer`] on a backend that keeps none.
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
    /// [`Kernels::change_basis`] of ciphertexts, polys `[shard][2]`, and constants added to first halves:
    /// `constants[run][limb]` for each of several runs of as many shards.
    ///
    /// # Errors
    /// As [`Kernels::change_basis`] and [`Self::add_constants_assign`].
    fn change_basis_adding(&self, src: &Buffer, change: &BasisChange, constants: &[Vec<u32>]) -> Result<Buffer> {
        change_basis_adding_by_steps(self, src, change, constants)
    }
    /// Rotations that share digits (hoisting): for each of `rotations`, all shards of `sigma(c0 + k0, k1)` where
    /// `(k0, k1)` is the digits' product with its key, divided by P. The result is `[rotation][shard][2]` over
    /// `plan.window`; `digits` is [`Kernels::mod_up`] of the second halves of `ct`. Each key is read once for all shards.
    ///
    /// # Errors
    /// [`BackendError::Galois`] as for [`Kernels::automorphism`], but for a rotation by nothing; [`BackendError::Shape`]
    /// where `ct` is not whole ciphertexts over the window, there are not as many digits as it has, the plan
    /// contradicts itself, or a key does not fit it; else as [`Backend`] says.
    fn rotate_digits(&self, ct: &Buffer, digits: &Buffer, rotations: &[Rotation<'_>], plan: &KeySwitchTables) -> Result<Buffer> {
        rotate_digits_by_steps(self, ct, digits, rotations, plan)
    }
    /// One rotation, times P and in the extended basis: `sigma(P c0 + k0, k1)` for all shards, with `(k0, k1)` the
    /// digits' product with the key and `lifted` the first halves times P, `[shard]` over `plan.extended`.
    ///
    /// # Errors
    /// [`BackendError::Galois`] as for [`Kernels::automorphism`]; [`BackendError::Shape`] as for
    /// [`Kernels::key_inner_product`], and where `lifted` is not one polynomial a shard over the extended basis; else as
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
    /// One step of Horner's rule in the extended basis: `sigma(x0 + k0, k1) + plus` for so many shards of `x` and of
    /// `plus`, `[shard][2]` over `plan.extended`; `(k0, k1)` are the digits of `x1 / P` times
    /// the key.
    ///
    /// # Errors
    /// [`BackendError::Galois`] as for [`Kernels::automorphism`]; [`BackendError::Shape`] where `x` or `plus` is not over
    /// the extended basis or has not the shards asked for, the plan contradicts itself, or the key does not fit it;
    /// else as [`Backend`] says.
    fn rotate_sum(&self, step: &HornerStep<'_>, rotation: KeyRotation<'_>, plan: &KeySwitchTables) -> Result<Buffer> {
        rotate_sum_by_steps(self, step, rotation, plan)
    }
    /// A sum of rotations in the extended basis, each of ciphertexts of its own: the sum of `sigma(P c0 + k0, k1)` over
    /// `rotations`, with `(k0, k1)` the digits of c1 times the rotation's key. `ct` is `[rotation][shard][2]` over the
    /// window, the result `[shard][2]` over `plan.extended`; `lift` multiplies by P into it. P times the ciphertexts
    /// `plus`, over the window too, are added where there are any.
    ///
    /// # Errors
    /// [`BackendError::Galois`] as for [`Kernels::automorphism`]; [`BackendError::Shape`] where `ct` is not as many
    /// ciphertexts for each rotation, there is no rotation, `lift` does not lead from the window to the extended basis,
    /// the plan contradicts itself, or a key does not fit it; else as [`Backend`] says.
    fn rotated_sum(
        &self,
        ct: &Buffer,
        plus: Option<&Buffer>,
        rotations: &[KeyRotation<'_>],
        lift: &BasisChange,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        rotated_sum_by_steps(self, ct, plus, rotations, lift, plan)
    }
    /// One rotation of a ciphertext: `sigma(c0 + k0, k1)` for all shards, with `(k0, k1)` the key switch of c1.
    ///
    /// # Errors
    /// [`BackendError::Galois`] as for [`Kernels::automorphism`]; [`BackendError::Shape`] as for [`Self::key_switch`], and
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
    /// [`Kernels::plain_inner_product`] of [`Self::rotate_digits_extended`]: source `r * shards + s` of a term is rotation
    /// r of shard s. The result is `[output][2]` over `plan.extended`.
    ///
    /// # Errors
    /// As [`Self::rotate_digits_extended`] and [`Kernels::plain_inner_product`].
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
    /// [`BackendError::Shape`] as for [`Kernels::mod_up`], [`Kernels::key_inner_product`] and [`Kernels::change_basis`]; else as
    /// [`Backend`] says.
    fn key_switch(&self, src: &Buffer, select: PolySelect, key: &Buffer, plan: &KeySwitchTables) -> Result<Buffer> {
        let digits = self.mod_up(src, select, plan)?;
        let extended = self.key_inner_product(&digits, key, plan)?;
        self.change_basis(&extended, &plan.mod_down)
    }
}

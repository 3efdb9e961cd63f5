//! The composed calls that are faster here than their steps: checks, then the code of the other files.

use super::elementwise::Addend;
use super::products::Whole;
use super::*;
use rayon::prelude::*;

impl Backend for GpuBackend {
    fn upload_ntt(&self, polys: usize, basis: &Basis, fill: &(dyn Fn(usize, usize, &mut [u32]) + Sync)) -> Result<Buffer> {
        let shape = Shape::new(polys, basis.len(), self.tables.degree());
        self.checks().basis(shape, basis, "upload_ntt")?;
        let mut buffer = if self.device.live.is_some() {
            let mut words = vec![0u32; shape.words()];
            let limbs = basis.len().max(1);
            words.par_chunks_mut(shape.degree).enumerate().for_each(|(i, limb)| fill(i / limbs, i % limbs, limb));
            self.upload(shape, &words)?
        } else {
            self.memory.uploaded(shape.bytes() as u64);
            self.made(shape, self.take(shape, "upload_ntt")?)
        };
        self.ntt_forward(&mut buffer, basis)?;
        Ok(buffer)
    }

    fn split(&self, buffer: Buffer, polys: &[usize]) -> Result<Vec<Buffer>> {
        let op = "split";
        let selects = check::parts(buffer.shape(), polys, op)?;
        let alone = matches!(buffer.storage(), Storage::Device(_)) && self.read(&buffer, op)?.alone();
        let mut parts = Vec::with_capacity(selects.len());
        for select in selects {
            let shape = Shape { polys: select.count, ..buffer.shape() };
            let first = select.first * shape.poly_words();
            let apart = if alone { self.read(&buffer, op)?.part(first, shape.words()) } else { None };
            parts.push(match apart {
                Some(part) => self.made(shape, part.apart()),
                None => self.select(&buffer, select)?,
            });
        }
        Ok(parts)
    }
    fn add_constants_assign(&self, a: &mut Buffer, select: PolySelect, constants: &[Vec<u32>], basis: &Basis) -> Result<()> {
        let op = "add_constants_assign";
        self.checks().basis(a.shape(), basis, op)?;
        constants.iter().try_for_each(|constants| self.checks().constants(constants, basis, op))?;
        check::runs(select, constants.len(), op)?;
        check::select(a.shape(), select, op)?;
        self.own(a, None, op)?;
        self.add_in_place(a, select, Addend::Constants(&constants.concat()), basis, op)
    }
    fn tensor_sum(&self, pairs: &[(&Buffer, &Buffer)], basis: &Basis) -> Result<Buffer> {
        self.tensor_sums(&[pairs.to_vec()], basis)
    }
    fn tensor_sums(&self, sums: &[Vec<(&Buffer, &Buffer)>], basis: &Basis) -> Result<Buffer> {
        let op = "tensor_sum";
        let shape = check::pairs(&sums.concat(), op)?;
        sums.iter().try_for_each(|pairs| check::pairs(pairs, op).map(drop))?;
        self.checks().basis(shape, basis, op)?;
        let all = Shape { polys: 3 * (shape.polys / 2) * sums.len(), ..shape };
        let out = self.take(all, op)?;
        self.multiply_all(sums, shape, basis, Polys::new(&out, all))?;
        Ok(self.made(all, out))
    }
    fn linear_combination(&self, parts: &[&Buffer], constants: &[Vec<u32>], basis: &Basis) -> Result<Buffer> {
        self.linear_combinations(&[Combination { parts: parts.to_vec(), constants: constants.to_vec() }], basis)
    }
    fn linear_combinations(&self, sums: &[Combination<'_>], basis: &Basis) -> Result<Buffer> {
        let op = "linear_combination";
        let (parts, constants): (Vec<_>, Vec<_>) = sums.iter().map(|s| (&s.parts[..], &s.constants[..])).unzip();
        let each = check::combination(&parts.concat(), &constants.concat(), op)?;
        self.checks().basis(each, basis, op)?;
        for sum in sums {
            check::combination(&sum.parts, &sum.constants, op)?;
            sum.constants.iter().try_for_each(|constants| self.checks().constants(constants, basis, op))?;
        }
        let shape = Shape { polys: each.polys * sums.len(), ..each };
        let out = self.take(shape, op)?;
        self.combine_all(sums, each, basis, Polys::new(&out, shape))?;
        Ok(self.made(shape, out))
    }

    /// Coefficients that fit are sent as they are, once instead of once for each limb, and reduced on the device.
    fn encoded_inner_product(
        &self,
        ct: &Buffer,
        plains: usize,
        source: &dyn PlainSource,
        terms: &[Vec<PlainTerm>],
        basis: &Basis,
    ) -> Result<Buffer> {
        let op = "encoded_inner_product";
        let Some(coefficients) = self.coefficients(plains, source) else {
            return self.plain_inner_product(ct, &self.encode_plain(plains, source, basis)?, terms, basis);
        };
        let shape = self.checks().inner_product(ct.shape(), plains, terms, basis, op)?;
        let out = self.take(shape, op)?;
        self.coefficient_product(self.polys(ct, op)?, (plains, Whole::Sent(coefficients)), terms, basis, &out)?;
        Ok(self.made(shape, out))
    }

    fn keep_integers(&self, plains: usize, source: &dyn PlainSource) -> Result<Option<Buffer>> {
        let op = "keep_integers";
        self.coefficients(plains, source).map(|coefficients| self.send_coefficients(coefficients, op)).transpose()
    }

    fn kept_inner_product(&self, ct: &Buffer, kept: &Buffer, terms: &[Vec<PlainTerm>], basis: &Basis) -> Result<Buffer> {
        let op = "kept_inner_product";
        let (plains, half) = (kept.shape().polys, self.tables.degree() / 2);
        let stored = if kept.shape().degree == half { half } else { 2 * half };
        check::same(Shape::new(plains, 2, stored), kept.shape(), op)?;
        let shape = self.checks().inner_product(ct.shape(), plains, terms, basis, op)?;
        let out = self.take(shape, op)?;
        let kept = Whole::Kept(self.polys(kept, op)?);
        self.coefficient_product(self.polys(ct, op)?, (plains, kept), terms, basis, &out)?;
        Ok(self.made(shape, out))
    }

    fn encode_plain(&self, plains: usize, source: &dyn PlainSource, basis: &Basis) -> Result<Buffer> {
        let Some(coefficients) = self.coefficients(plains, source) else {
            return self.upload_ntt(plains, basis, &|plain, limb, words| source.residues(plain, limb, words));
        };
        let shape = Shape::new(plains, basis.len(), self.tables.degree());
        self.checks().basis(shape, basis, "encode_plain")?;
        let out = self.take(shape, "encode_plain")?;
        self.encode_coefficients(Whole::Sent(coefficients), basis, Polys::new(&out, shape))?;
        Ok(self.made(shape, out))
    }
    fn change_basis_adding(&self, src: &Buffer, change: &BasisChange, constants: &[Vec<u32>]) -> Result<Buffer> {
        let op = "change_basis";
        self.checks().basis(src.shape(), &change.source, op)?;
        let positions = self.checks().change(change, op)?;
        check::even(src.shape(), op)?;
        check::shards_each(src.shape(), constants.len(), op)?;
        constants.iter().try_for_each(|constants| self.checks().constants(constants, &change.target, op))?;
        if positions.is_empty() {
            return crate::backend::change_basis_adding_by_steps(self, src, change, constants);
        }
        self.change_basis_words(self.polys(src, op)?, src.shape().limbs, change, &positions, constants)
    }

    fn rotate_digits(&self, ct: &Buffer, digits: &Buffer, rotations: &[Rotation<'_>], plan: &KeySwitchTables) -> Result<Buffer> {
        self.rotate_all(ct, digits, rotations, plan)
    }
    fn rotate_extended(
        &self,
        digits: &Buffer,
        lifted: &Buffer,
        rotation: KeyRotation<'_>,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        self.rotate_lifted(digits, lifted, rotation, plan)
    }
    fn rotated_inner_product(
        &self,
        hoisted: HoistedRotations<'_>,
        plan: &KeySwitchTables,
        plain: &Buffer,
        terms: &[Vec<PlainTerm>],
    ) -> Result<Buffer> {
        self.rotated_products_of(hoisted, plan, plain, terms)
    }
    fn rotate_sum(&self, step: &HornerStep<'_>, rotation: KeyRotation<'_>, plan: &KeySwitchTables) -> Result<Buffer> {
        self.rotate_sum_shards(step, rotation, plan)
    }
    fn rotated_sum(
        &self,
        ct: &Buffer,
        plus: Option<&Buffer>,
        rotations: &[KeyRotation<'_>],
        lift: &BasisChange,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        self.rotated_sum_shards(ct, plus, rotations, lift, plan)
    }
    fn relinearize_extended(&self, product: &Buffer, key: &Buffer, lift: &BasisChange, plan: &KeySwitchTables) -> Result<Buffer> {
        self.relinearize_lifted(product, key, lift, plan)
    }
    fn rotate_digits_extended(
        &self,
        ct: &Buffer,
        digits: &Buffer,
        rotations: &[Rotation<'_>],
        lift: &BasisChange,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        self.rotate_all_lifted(ct, digits, rotations, lift, plan)
    }
    fn rotate(&self, ct: &Buffer, rotation: KeyRotation<'_>, plan: &KeySwitchTables) -> Result<Buffer> {
        self.rotate_shards(ct, rotation, plan)
    }
    fn key_switch(&self, src: &Buffer, select: PolySelect, key: &Buffer, plan: &KeySwitchTables) -> Result<Buffer> {
        self.switch(src, select, (key, None), plan, "key_switch")
    }
}

//! The composed calls, each on both backends as one call.

use super::*;

impl Backend for Mirror {
    fn upload_ntt(&self, polys: usize, basis: &Basis, fill: &(dyn Fn(usize, usize, &mut [u32]) + Sync)) -> Result<Buffer> {
        self.made("upload_ntt", |b| b.upload_ntt(polys, basis, fill), |b, _| b.upload_ntt(polys, basis, fill))
    }
    fn split(&self, buffer: Buffer, polys: &[usize]) -> Result<Vec<Buffer>> {
        let op = "split";
        let number = self.number(op);
        let copy = number.map(|_| Copies(self).of(&buffer)).transpose()?;
        let parts = self.reference.split(buffer, polys)?;
        if let Some((number, copy)) = number.zip(copy) {
            self.compare((op, number), &parts, &self.suspect.split(copy, polys)?)?;
        }
        Ok(parts)
    }
    fn sub_assign(&self, x: &mut Buffer, y: &Buffer, basis: &Basis) -> Result<()> {
        self.changed("sub_assign", x, |b, x, copy| b.sub_assign(x, copy(y)?.as_ref().unwrap_or(y), basis))
    }
    fn add_constants_assign(&self, x: &mut Buffer, select: PolySelect, constants: &[Vec<u32>], basis: &Basis) -> Result<()> {
        self.changed("add_constants_assign", x, |b, x, _| b.add_constants_assign(x, select, constants, basis))
    }
    fn tensor_sum(&self, pairs: &[(&Buffer, &Buffer)], basis: &Basis) -> Result<Buffer> {
        self.made(
            "tensor_sum",
            |b| b.tensor_sum(pairs, basis),
            |b, c| {
                let copies = pairs.iter().map(|(x, y)| Ok((c.of(x)?, c.of(y)?))).collect::<Result<Vec<_>>>()?;
                b.tensor_sum(&copies.iter().map(|(x, y)| (x, y)).collect::<Vec<_>>(), basis)
            },
        )
    }
    fn tensor_sums(&self, sums: &[Vec<(&Buffer, &Buffer)>], basis: &Basis) -> Result<Buffer> {
        self.made(
            "tensor_sums",
            |b| b.tensor_sums(sums, basis),
            |b, c| {
                let copy = |pairs: &Vec<(&Buffer, &Buffer)>| {
                    pairs.iter().map(|(x, y)| Ok((c.of(x)?, c.of(y)?))).collect::<Result<Vec<_>>>()
                };
                let copies = sums.iter().map(copy).collect::<Result<Vec<_>>>()?;
                let sums: Vec<Vec<_>> = copies.iter().map(|pairs| pairs.iter().map(|(x, y)| (x, y)).collect()).collect();
                b.tensor_sums(&sums, basis)
            },
        )
    }
    fn linear_combination(&self, parts: &[&Buffer], constants: &[Vec<u32>], basis: &Basis) -> Result<Buffer> {
        self.made(
            "linear_combination",
            |b| b.linear_combination(parts, constants, basis),
            |b, c| {
                let copies = c.all(parts.iter().copied())?;
                b.linear_combination(&copies.iter().collect::<Vec<_>>(), constants, basis)
            },
        )
    }
    fn linear_combinations(&self, sums: &[Combination<'_>], basis: &Basis) -> Result<Buffer> {
        self.made(
            "linear_combinations",
            |b| b.linear_combinations(sums, basis),
            |b, c| {
                let copies = sums.iter().map(|s| c.all(s.parts.iter().copied())).collect::<Result<Vec<_>>>()?;
                let with = |(s, parts): (&Combination<'_>, _)| Combination { parts, constants: s.constants.clone() };
                let parts = copies.iter().map(|parts| parts.iter().collect::<Vec<_>>());
                b.linear_combinations(&sums.iter().zip(parts).map(with).collect::<Vec<_>>(), basis)
            },
        )
    }
    fn encoded_inner_product(
        &self,
        ct: &Buffer,
        plains: usize,
        source: &dyn PlainSource,
        terms: &[Vec<PlainTerm>],
        basis: &Basis,
    ) -> Result<Buffer> {
        self.made(
            "encoded_inner_product",
            |b| b.encoded_inner_product(ct, plains, source, terms, basis),
            |b, c| b.encoded_inner_product(&c.of(ct)?, plains, source, terms, basis),
        )
    }
    /// What the suspect keeps, and the integers, of which the reference makes the plaintexts anew: there are no words to compare
    /// before they are multiplied.
    fn keep_integers(&self, plains: usize, source: &dyn PlainSource) -> Result<Option<Buffer>> {
        if !self.only.has("kept_inner_product") {
            return self.reference.keep_integers(plains, source);
        }
        let Some((kept, integers)) = self.suspect.keep_integers(plains, source)?.zip(source.coefficients()) else {
            return Ok(None);
        };
        Ok(Some(Buffer::from_device(kept.shape(), Kept::new(kept, plains, integers))))
    }
    fn kept_inner_product(&self, ct: &Buffer, kept: &Buffer, terms: &[Vec<PlainTerm>], basis: &Basis) -> Result<Buffer> {
        let op = "kept_inner_product";
        let Some(kept) = Kept::of(kept) else {
            return self.reference.kept_inner_product(ct, kept, terms, basis);
        };
        let plaintexts = Reduced { kept, tables: self.tables(), basis };
        self.made(
            op,
            |b| b.encoded_inner_product(ct, kept.plains, &plaintexts, terms, basis),
            |b, c| b.kept_inner_product(&c.of(ct)?, &kept.buffer, terms, basis),
        )
    }
    fn encode_plain(&self, plains: usize, source: &dyn PlainSource, basis: &Basis) -> Result<Buffer> {
        self.made("encode_plain", |b| b.encode_plain(plains, source, basis), |b, _| b.encode_plain(plains, source, basis))
    }
    fn change_basis_adding(&self, src: &Buffer, change: &BasisChange, constants: &[Vec<u32>]) -> Result<Buffer> {
        self.made(
            "change_basis_adding",
            |b| b.change_basis_adding(src, change, constants),
            |b, c| b.change_basis_adding(&c.of(src)?, change, constants),
        )
    }
    fn rotate_digits(&self, ct: &Buffer, digits: &Buffer, rotations: &[Rotation<'_>], plan: &KeySwitchTables) -> Result<Buffer> {
        self.made(
            "rotate_digits",
            |b| b.rotate_digits(ct, digits, rotations, plan),
            |b, c| {
                let keys = c.keys(rotations)?;
                b.rotate_digits(&c.of(ct)?, &c.of(digits)?, &with_keys(rotations, &keys), plan)
            },
        )
    }
    fn relinearize_extended(&self, product: &Buffer, key: &Buffer, lift: &BasisChange, plan: &KeySwitchTables) -> Result<Buffer> {
        self.made(
            "relinearize_extended",
            |b| b.relinearize_extended(product, key, lift, plan),
            |b, c| b.relinearize_extended(&c.of(product)?, &c.of(key)?, lift, plan),
        )
    }
    fn rotate_digits_extended(
        &self,
        ct: &Buffer,
        digits: &Buffer,
        rotations: &[Rotation<'_>],
        lift: &BasisChange,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        self.made(
            "rotate_digits_extended",
            |b| b.rotate_digits_extended(ct, digits, rotations, lift, plan),
            |b, c| {
                let keys = c.keys(rotations)?;
                b.rotate_digits_extended(&c.of(ct)?, &c.of(digits)?, &with_keys(rotations, &keys), lift, plan)
            },
        )
    }
    fn rotated_inner_product(
        &self,
        hoisted: HoistedRotations<'_>,
        plan: &KeySwitchTables,
        plain: &Buffer,
        terms: &[Vec<PlainTerm>],
    ) -> Result<Buffer> {
        self.made(
            "rotated_inner_product",
            |b| b.rotated_inner_product(hoisted, plan, plain, terms),
            |b, c| {
                let keys = c.keys(hoisted.rotations)?;
                let hoisted = HoistedRotations {
                    ct: &c.of(hoisted.ct)?,
                    digits: &c.of(hoisted.digits)?,
                    rotations: &with_keys(hoisted.rotations, &keys),
                    lift: hoisted.lift,
                };
                b.rotated_inner_product(hoisted, plan, &c.of(plain)?, terms)
            },
        )
    }
    fn rotate_extended(
        &self,
        digits: &Buffer,
        lifted: &Buffer,
        rotation: KeyRotation<'_>,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        self.made(
            "rotate_extended",
            |b| b.rotate_extended(digits, lifted, rotation, plan),
            |b, c| {
                let rotation = KeyRotation { key: &c.of(rotation.key)?, ..rotation };
                b.rotate_extended(&c.of(digits)?, &c.of(lifted)?, rotation, plan)
            },
        )
    }
    fn rotate_sum(&self, step: &HornerStep<'_>, rotation: KeyRotation<'_>, plan: &KeySwitchTables) -> Result<Buffer> {
        self.made(
            "rotate_sum",
            |b| b.rotate_sum(step, rotation, plan),
            |b, c| {
                let rotation = KeyRotation { key: &c.of(rotation.key)?, ..rotation };
                let (x, plus) = (&c.of(step.x)?, &c.of(step.plus)?);
                b.rotate_sum(&HornerStep { x, plus, ..*step }, rotation, plan)
            },
        )
    }
    fn rotated_sum(
        &self,
        ct: &Buffer,
        plus: Option<&Buffer>,
        rotations: &[KeyRotation<'_>],
        lift: &BasisChange,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        self.made(
            "rotated_sum",
            |b| b.rotated_sum(ct, plus, rotations, lift, plan),
            |b, c| {
                let keys = c.all(rotations.iter().map(|r| r.key))?;
                let copies = rotations.iter().zip(&keys).map(|(r, key)| KeyRotation { galois: r.galois, key });
                let plus = plus.map(|plus| c.of(plus)).transpose()?;
                b.rotated_sum(&c.of(ct)?, plus.as_ref(), &copies.collect::<Vec<_>>(), lift, plan)
            },
        )
    }
    fn rotate(&self, ct: &Buffer, rotation: KeyRotation<'_>, plan: &KeySwitchTables) -> Result<Buffer> {
        self.made(
            "rotate",
            |b| b.rotate(ct, rotation, plan),
            |b, c| b.rotate(&c.of(ct)?, KeyRotation { key: &c.of(rotation.key)?, ..rotation }, plan),
        )
    }
    fn key_switch(&self, src: &Buffer, select: PolySelect, key: &Buffer, plan: &KeySwitchTables) -> Result<Buffer> {
        self.made(
            "key_switch",
            |b| b.key_switch(src, select, key, plan),
            |b, c| b.key_switch(&c.of(src)?, select, &c.of(key)?, plan),
        )
    }
}

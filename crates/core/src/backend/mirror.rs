//! Two backends side by side, to find the first call on which they differ.

mod calls;
mod kept;

pub use calls::Calls;

use super::{
    Backend, BackendError, Buffer, Combination, HoistedRotations, KeyRotation, KeySwitchTables, Place, PlainSource, PlainTerm,
    PolySelect, Result, Rotation, Shape, Statistics,
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

impl Backend for Mirror {
    fn name(&self) -> &'static str {
        self.reference.name()
    }
    fn tables(&self) -> &Arc<RnsTables> {
        self.reference.tables()
    }
    fn place(&self) -> Place {
        self.suspect.place()
    }
    fn memory_limit(&self) -> Option<u64> {
        self.suspect.memory_limit()
    }
    fn device_bytes(&self) -> Option<u64> {
        self.suspect.device_bytes()
    }
    fn statistics(&self) -> Statistics {
        self.suspect.statistics()
    }
    fn alloc(&self, shape: Shape) -> Result<Buffer> {
        self.made("alloc", |b| b.alloc(shape), |b, _| b.alloc(shape))
    }
    fn alloc_key(&self, shape: Shape) -> Result<Buffer> {
        self.made("alloc_key", |b| b.alloc_key(shape), |b, _| b.alloc_key(shape))
    }
    fn upload(&self, shape: Shape, words: &[u32]) -> Result<Buffer> {
        self.made("upload", |b| b.upload(shape, words), |b, _| b.upload(shape, words))
    }
    fn upload_ntt(&self, polys: usize, basis: &Basis, fill: &(dyn Fn(usize, usize, &mut [u32]) + Sync)) -> Result<Buffer> {
        self.made("upload_ntt", |b| b.upload_ntt(polys, basis, fill), |b, _| b.upload_ntt(polys, basis, fill))
    }
    fn download(&self, buffer: &Buffer) -> Result<Vec<u32>> {
        self.reference.download(buffer)
    }
    fn synchronize(&self) -> Result<()> {
        self.reference.synchronize()?;
        self.suspect.synchronize()
    }
    fn duplicate(&self, buffer: &Buffer) -> Result<Buffer> {
        self.made("duplicate", |b| b.duplicate(buffer), |b, c| b.duplicate(&c.of(buffer)?))
    }
    fn select(&self, src: &Buffer, select: PolySelect) -> Result<Buffer> {
        self.made("select", |b| b.select(src, select), |b, c| b.select(&c.of(src)?, select))
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
    fn concat(&self, parts: &[&Buffer]) -> Result<Buffer> {
        self.made("concat", |b| b.concat(parts), |b, c| b.concat(&c.all(parts.iter().copied())?.iter().collect::<Vec<_>>()))
    }
    fn ntt_forward(&self, data: &mut Buffer, basis: &Basis) -> Result<()> {
        self.changed("ntt_forward", data, |b, data, _| b.ntt_forward(data, basis))
    }
    fn ntt_inverse(&self, data: &mut Buffer, basis: &Basis) -> Result<()> {
        self.changed("ntt_inverse", data, |b, data, _| b.ntt_inverse(data, basis))
    }
    fn add(&self, x: &Buffer, y: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.made("add", |b| b.add(x, y, basis), |b, c| b.add(&c.of(x)?, &c.of(y)?, basis))
    }
    fn add_assign(&self, x: &mut Buffer, y: &Buffer, basis: &Basis) -> Result<()> {
        self.changed("add_assign", x, |b, x, copy| b.add_assign(x, copy(y)?.as_ref().unwrap_or(y), basis))
    }
    fn sub(&self, x: &Buffer, y: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.made("sub", |b| b.sub(x, y, basis), |b, c| b.sub(&c.of(x)?, &c.of(y)?, basis))
    }
    fn negate(&self, x: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.made("negate", |b| b.negate(x, basis), |b, c| b.negate(&c.of(x)?, basis))
    }
    fn sub_assign(&self, x: &mut Buffer, y: &Buffer, basis: &Basis) -> Result<()> {
        self.changed("sub_assign", x, |b, x, copy| b.sub_assign(x, copy(y)?.as_ref().unwrap_or(y), basis))
    }
    fn mul_constant(&self, x: &Buffer, constants: &[u32], basis: &Basis) -> Result<Buffer> {
        self.made("mul_constant", |b| b.mul_constant(x, constants, basis), |b, c| b.mul_constant(&c.of(x)?, constants, basis))
    }
    fn add_constant_assign(&self, x: &mut Buffer, select: PolySelect, constants: &[u32], basis: &Basis) -> Result<()> {
        self.changed("add_constant_assign", x, |b, x, _| b.add_constant_assign(x, select, constants, basis))
    }
    fn add_constants_assign(&self, x: &mut Buffer, select: PolySelect, constants: &[Vec<u32>], basis: &Basis) -> Result<()> {
        self.changed("add_constants_assign", x, |b, x, _| b.add_constants_assign(x, select, constants, basis))
    }
    fn add_plain_assign(&self, x: &mut Buffer, select: PolySelect, plain: &Buffer, basis: &Basis) -> Result<()> {
        self.changed("add_plain_assign", x, |b, x, copy| {
            b.add_plain_assign(x, select, copy(plain)?.as_ref().unwrap_or(plain), basis)
        })
    }
    fn mul_plain(&self, x: &Buffer, plain: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.made("mul_plain", |b| b.mul_plain(x, plain, basis), |b, c| b.mul_plain(&c.of(x)?, &c.of(plain)?, basis))
    }
    fn tensor(&self, x: &Buffer, y: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.made("tensor", |b| b.tensor(x, y, basis), |b, c| b.tensor(&c.of(x)?, &c.of(y)?, basis))
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
    fn plain_inner_product(&self, ct: &Buffer, plain: &Buffer, terms: &[Vec<PlainTerm>], basis: &Basis) -> Result<Buffer> {
        self.made(
            "plain_inner_product",
            |b| b.plain_inner_product(ct, plain, terms, basis),
            |b, c| b.plain_inner_product(&c.of(ct)?, &c.of(plain)?, terms, basis),
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
    fn automorphism(&self, src: &Buffer, galois: u32, basis: &Basis) -> Result<Buffer> {
        self.made("automorphism", |b| b.automorphism(src, galois, basis), |b, c| b.automorphism(&c.of(src)?, galois, basis))
    }
    fn base_convert(&self, src: &Buffer, conversion: &BaseConversion) -> Result<Buffer> {
        self.made("base_convert", |b| b.base_convert(src, conversion), |b, c| b.base_convert(&c.of(src)?, conversion))
    }
    fn mod_up(&self, src: &Buffer, select: PolySelect, plan: &KeySwitchTables) -> Result<Buffer> {
        self.made("mod_up", |b| b.mod_up(src, select, plan), |b, c| b.mod_up(&c.of(src)?, select, plan))
    }
    fn key_inner_product(&self, digits: &Buffer, key: &Buffer, plan: &KeySwitchTables) -> Result<Buffer> {
        self.made(
            "key_inner_product",
            |b| b.key_inner_product(digits, key, plan),
            |b, c| b.key_inner_product(&c.of(digits)?, &c.of(key)?, plan),
        )
    }
    fn change_basis(&self, src: &Buffer, change: &BasisChange) -> Result<Buffer> {
        self.made("change_basis", |b| b.change_basis(src, change), |b, c| b.change_basis(&c.of(src)?, change))
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
    fn rotate_sum(
        &self,
        (x, first): (&Buffer, usize),
        (plus, first_plus): (&Buffer, usize),
        shards: usize,
        rotation: KeyRotation<'_>,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        self.made(
            "rotate_sum",
            |b| b.rotate_sum((x, first), (plus, first_plus), shards, rotation, plan),
            |b, c| {
                let rotation = KeyRotation { key: &c.of(rotation.key)?, ..rotation };
                b.rotate_sum((&c.of(x)?, first), (&c.of(plus)?, first_plus), shards, rotation, plan)
            },
        )
    }
    fn rotated_sum(
        &self,
        (ct, plus): (&Buffer, Option<&Buffer>),
        rotations: &[KeyRotation<'_>],
        lift: &BasisChange,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        self.made(
            "rotated_sum",
            |b| b.rotated_sum((ct, plus), rotations, lift, plan),
            |b, c| {
                let keys = c.all(rotations.iter().map(|r| r.key))?;
                let copies = rotations.iter().zip(&keys).map(|(r, key)| KeyRotation { galois: r.galois, key });
                let plus = plus.map(|plus| c.of(plus)).transpose()?;
                b.rotated_sum((&c.of(ct)?, plus.as_ref()), &copies.collect::<Vec<_>>(), lift, plan)
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

//! Circuits on ciphertexts.

mod double_hoisting;
mod prepared;

pub use prepared::Prepared;

use super::{
    CircuitError, DiagonalTransform, Engine, Gadgets, LinearTransform, PairSum, WeightedSum, check, linear_transform::Product,
};
use crate::{
    backend::{Backend, Buffer, Place, PlainTerm, PolySelect},
    ckks::{
        Ciphertext, CkksError, Evaluator, ExtendedCiphertext, Gadget, Integers, KeyRequest, Level, Params, PlainForm, Plaintext,
        Scale,
    },
    math::Basis,
};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use prepared::Key;

pub(super) type Result<T> = std::result::Result<T, CircuitError>;

/// Evaluates with an [`Evaluator`]; plaintexts are encoded as they are needed.
#[derive(Debug)]
pub struct EncryptedEngine {
    pub(super) evaluator: Evaluator,
    /// Every vector repeats with this period.
    slots: usize,
    /// Coefficients of the diagonals in work; kept because fresh memory costs as much as a transform.
    integers: Mutex<Integers>,
    /// Encoded diagonals of transforms.
    pub(super) prepared: Prepared,
}

/// A sum of rotated products, over the plain primes as long as nothing was rotated.
#[derive(Debug)]
pub enum ProductSum {
    /// Over the ciphertext's primes.
    Plain(Ciphertext),
    /// Over the extended basis.
    Extended(ExtendedCiphertext),
}

impl ProductSum {
    fn level(&self) -> Level {
        match self {
            Self::Plain(s) => s.level(),
            Self::Extended(s) => s.level(),
        }
    }
    fn shards(&self) -> usize {
        match self {
            Self::Plain(s) => s.shards(),
            Self::Extended(s) => s.shards(),
        }
    }
}

impl EncryptedEngine {
    /// Most bytes of diagonals' coefficients held at once: they should stay in the last-level cache.
    const COEFFICIENT_BYTES: usize = 16 << 20;
    /// Shards of a value that leave a device idle.
    const FEW_SHARDS: usize = 4;
    /// Products of one call on a device, whose memory they stay in.
    const DEVICE_PIECE: usize = 512;

    /// An engine on an evaluator, for vectors that use all N/2 slots.
    pub fn new(evaluator: Evaluator) -> Self {
        let (slots, prepared) = (evaluator.params().slots(), Prepared::on(evaluator.backend().as_ref()));
        Self { slots, evaluator, integers: Mutex::default(), prepared }
    }

    /// An engine for circuits on `slots` slots, a power of two up to N/2: every vector repeats with that period.
    ///
    /// # Errors
    /// [`CkksError::Period`] for another number of slots.
    pub fn with_slots(evaluator: Evaluator, slots: usize) -> Result<Self> {
        evaluator.encoder().check_period(slots)?;
        Ok(Self { slots, ..Self::new(evaluator) })
    }

    /// The evaluator.
    pub fn evaluator(&self) -> &Evaluator {
        &self.evaluator
    }

    fn backend(&self) -> &dyn Backend {
        self.evaluator.backend().as_ref()
    }

    /// The scale of plaintext factors at a level: with it a product, rescaled, is at the canonical scale below.
    fn factor_scale(&self, level: Level) -> Scale {
        self.evaluator.params().plain_scale(level)
    }

    fn like(&self, x: &Ciphertext, buffer: Buffer, scale: Scale) -> Result<Ciphertext> {
        Ok(Ciphertext::from_parts(self.evaluator.params(), buffer, x.level(), scale, x.tag())?)
    }

    /// What is held here alone is changed in place, what others hold too is left alone.
    fn changed(
        &self,
        x: Arc<Ciphertext>,
        in_place: impl FnOnce(&mut Ciphertext) -> Result<()>,
        anew: impl FnOnce(&Ciphertext) -> Result<Ciphertext>,
    ) -> Result<Arc<Ciphertext>> {
        match Arc::try_unwrap(x) {
            Ok(mut x) => {
                in_place(&mut x)?;
                Ok(Arc::new(x))
            }
            Err(x) => Ok(Arc::new(anew(&x)?)),
        }
    }

    fn shards_of(&self, x: &Ciphertext, shards: Range<usize>) -> Result<Ciphertext> {
        let polys = PolySelect { first: 2 * shards.start, stride: 1, count: 2 * shards.len() };
        let buffer = self.backend().select(x.buffer(), polys).map_err(CkksError::from)?;
        self.like(x, buffer, x.scale())
    }

    /// The shards of all parts, of one level.
    fn concat<C: std::borrow::Borrow<Ciphertext>>(&self, parts: &[C]) -> Result<Ciphertext> {
        let Some(first) = parts.first().map(|p| p.borrow()) else { return Err(CircuitError::Nothing { operation: "join" }) };
        let buffers: Vec<&Buffer> = parts.iter().map(|p| p.borrow().buffer()).collect();
        self.like(first, self.backend().concat(&buffers).map_err(CkksError::from)?, first.scale())
    }

    /// Adds rotations of shards of x to a sum.
    fn add_rotated(&self, sum: &mut Option<ProductSum>, x: &Ciphertext, ks: &[i64], gadget: Gadget) -> Result<()> {
        let ev = &self.evaluator;
        *sum = Some(ProductSum::Extended(match sum.take() {
            None => ev.rotated_sum(x, ks, gadget, None)?,
            Some(ProductSum::Plain(before)) => ev.rotated_sum(x, ks, gadget, Some(&before))?,
            Some(ProductSum::Extended(mut before)) => {
                ev.add_extended_assign(&mut before, &ev.rotated_sum(x, ks, gadget, None)?)?;
                before
            }
        }));
        Ok(())
    }

    fn conjugate(&self, x: &Ciphertext, gadgets: &Gadgets) -> Result<Ciphertext> {
        let galois = self.evaluator.params().conjugation_element();
        Ok(self.evaluator.apply_galois_with(x, galois, gadgets.rotation(x.level())?)?)
    }

    fn encode(&self, vectors: &[Vec<f64>], scale: Scale, basis: &Basis, form: PlainForm) -> Result<Plaintext> {
        Ok(self.evaluator.encoder().encode_repeated(vectors, self.slots, scale, basis, form)?)
    }

    /// [`Self::encode`] over a level's primes, kept where a network's plaintexts are.
    fn encoded_vectors(&self, vectors: &[Vec<f64>], scale: Scale, level: Level, form: PlainForm) -> Result<Arc<Plaintext>> {
        let encode = || self.encode(vectors, scale, self.evaluator.params().window(level), form);
        if !self.prepared.keeps_products() {
            return Ok(Arc::new(encode()?));
        }
        let mut hasher = blake3::Hasher::new();
        for vector in vectors {
            hasher.update(&(vector.len() as u64).to_le_bytes()).update(bytemuck::cast_slice(vector));
        }
        let values = *hasher.finalize().as_bytes();
        self.prepared.get(Key::Vectors { values, level, scale: scale.0.to_bits(), form }, encode)
    }

    /// `i` or `-i` in every slot: the monomial `X^(N/2)` or its negative, exact at scale 1.
    fn imaginary_unit(&self, level: Level, sign: f64) -> Result<Arc<Plaintext>> {
        self.prepared.get(Key::Unit { level, negative: sign < 0.0 }, || {
            let params = self.evaluator.params();
            let mut coefficients = vec![0.0; params.degree()];
            coefficients[params.slots()] = sign;
            let (basis, form) = (params.window(level), PlainForm::Montgomery);
            Ok(self.evaluator.encoder().encode_coefficients(coefficients, Scale(1.0), basis, form)?)
        })
    }
}

/// Fills a vector with copies of its first `period` entries.
fn repeat(values: &mut [f64], period: usize) {
    let (first, rest) = values.split_at_mut(period);
    rest.chunks_exact_mut(period).for_each(|c| c.copy_from_slice(first));
}

impl Engine for EncryptedEngine {
    type Value = Arc<Ciphertext>;
    type Sum = ProductSum;

    fn level(&self, x: &Self::Value) -> Level {
        x.level()
    }
    fn shards(&self, x: &Self::Value) -> usize {
        x.shards()
    }
    fn check_keys(&self, keys: &[KeyRequest]) -> Result<()> {
        Ok(self.evaluator.keys().check(keys)?)
    }
    fn add(&self, a: Self::Value, b: &Self::Value) -> Result<Self::Value> {
        check::same("add", self, &a, b)?;
        self.changed(a, |a| Ok(self.evaluator.add_assign(a, b)?), |a| Ok(self.evaluator.add(a, b)?))
    }
    fn sub(&self, a: Self::Value, b: &Self::Value) -> Result<Self::Value> {
        check::same("sub", self, &a, b)?;
        self.changed(a, |a| Ok(self.evaluator.sub_assign(a, b)?), |a| Ok(self.evaluator.sub(a, b)?))
    }
    fn add_scalar(&self, x: Self::Value, c: f64) -> Result<Self::Value> {
        self.changed(x, |x| Ok(self.evaluator.add_scalar_assign(x, c)?), |x| Ok(self.evaluator.add_scalar(x, c)?))
    }
    fn multiply_sum(&self, pairs: &[(&Self::Value, &Self::Value)], gadgets: &Gadgets) -> Result<Self::Value> {
        check::product(self, pairs)?;
        let gadget = gadgets.product(pairs[0].0.level())?;
        let pairs: Vec<(&Ciphertext, &Ciphertext)> = pairs.iter().map(|(a, b)| (a.as_ref(), b.as_ref())).collect();
        Ok(Arc::new(self.evaluator.mul_sum_rescale(&pairs, 0.0, gadget)?))
    }
    fn weighted_sum(&self, values: &[&Self::Value], coefficients: &[f64], constant: f64, to: Level) -> Result<Self::Value> {
        check::weighted_sum(self, values, coefficients, to)?;
        let parts: Vec<&Ciphertext> = values.iter().map(|x| x.as_ref()).collect();
        Ok(Arc::new(self.evaluator.linear_combination_to(&parts, coefficients, constant, to)?))
    }
    fn multiply_sums(&self, sums: &[PairSum<'_, Self::Value>], gadgets: &Gadgets) -> Result<Vec<Self::Value>> {
        // Of one scale, so that all is as if they were made one by one.
        let scale = |&(a, b): &(&Self::Value, &Self::Value)| a.scale().0 * b.scale().0;
        let mut scales = sums.iter().flat_map(|s| &s.pairs).map(scale);
        let first = scales.next();
        sums.iter().try_for_each(|s| check::product(self, &s.pairs).map(drop))?;
        if sums.len() < 2 || !scales.all(|s| Some(s) == first) || self.backend().place() == Place::Host {
            let one = |s: &PairSum<'_, Self::Value>| {
                let gadget = gadgets.product(s.pairs[0].0.level())?;
                let pairs: Vec<(&Ciphertext, &Ciphertext)> = s.pairs.iter().map(|(a, b)| (a.as_ref(), b.as_ref())).collect();
                Ok(Arc::new(self.evaluator.mul_sum_rescale(&pairs, s.constant, gadget)?))
            };
            return sums.iter().map(one).collect();
        }
        let gadget = gadgets.product(sums[0].pairs[0].0.level())?;
        let mut ciphertexts: Vec<Vec<(&Ciphertext, &Ciphertext)>> = Vec::with_capacity(sums.len());
        for sum in sums {
            ciphertexts.push(sum.pairs.iter().map(|(a, b)| (a.as_ref(), b.as_ref())).collect());
        }
        let constants: Vec<f64> = sums.iter().map(|s| s.constant).collect();
        Ok(self.evaluator.mul_sums_rescale(&ciphertexts, &constants, gadget)?.into_iter().map(Arc::new).collect())
    }
    fn weighted_sums(&self, sums: &[WeightedSum<'_, Self::Value>], to: Level) -> Result<Vec<Self::Value>> {
        if self.backend().place() == Place::Host {
            return sums.iter().map(|s| self.weighted_sum(&s.values, &s.coefficients, s.constant, to)).collect();
        }
        // Of one level and scale together, so that all is as if they were made one by one.
        let mut levels: BTreeMap<(Level, u64), Vec<usize>> = BTreeMap::new();
        for (i, s) in sums.iter().enumerate() {
            let first = check::weighted_sum(self, &s.values, &s.coefficients, to)?;
            levels.entry((first.level(), first.scale().0.to_bits())).or_default().push(i);
        }
        let mut made: Vec<Option<Self::Value>> = vec![None; sums.len()];
        for group in levels.into_values() {
            if let [i] = group[..] {
                made[i] = Some(self.weighted_sum(&sums[i].values, &sums[i].coefficients, sums[i].constant, to)?);
                continue;
            }
            let of = |&i: &usize| (sums[i].values.iter().map(|x| x.as_ref()).collect(), &sums[i].coefficients[..]);
            let parts: Vec<(Vec<&Ciphertext>, &[f64])> = group.iter().map(of).collect();
            let constants: Vec<f64> = group.iter().map(|&i| sums[i].constant).collect();
            for (i, sum) in group.into_iter().zip(self.evaluator.linear_combinations_to(&parts, &constants, to)?) {
                made[i] = Some(Arc::new(sum));
            }
        }
        Ok(made.into_iter().flatten().collect())
    }
    fn takes_many(&self, shards: usize) -> bool {
        self.backend().place() != Place::Host && shards <= Self::FEW_SHARDS
    }
    fn multiply_plain(&self, x: &Self::Value, factor: &[Vec<f64>]) -> Result<Self::Value> {
        check::multiply_plain(self, x, factor)?;
        let plain = self.encoded_vectors(factor, self.factor_scale(x.level()), x.level(), PlainForm::Montgomery)?;
        Ok(Arc::new(self.evaluator.rescale(&self.evaluator.mul_plain(x, &plain)?)?))
    }
    fn add_plain(&self, x: &Self::Value, offset: &[Vec<f64>]) -> Result<Self::Value> {
        check::add_plain(self, x, offset)?;
        let plain = self.encoded_vectors(offset, x.scale(), x.level(), PlainForm::Plain)?;
        Ok(Arc::new(self.evaluator.add_plain(x, &plain)?))
    }
    fn drop_to(&self, x: &Self::Value, level: Level) -> Result<Self::Value> {
        check::drop_to(self, x, level)?;
        if level == x.level() { Ok(x.clone()) } else { Ok(Arc::new(self.evaluator.drop_to(x, level)?)) }
    }
    fn rotate(&self, x: &Self::Value, k: usize, gadgets: &Gadgets) -> Result<Self::Value> {
        let galois = self.evaluator.params().galois_element(k as i64);
        Ok(Arc::new(self.evaluator.apply_galois_with(x, galois, gadgets.rotation(x.level())?)?))
    }
    fn rotate_all(&self, x: &Self::Value, ks: &[usize], gadgets: &Gadgets) -> Result<Self::Value> {
        let ev = &self.evaluator;
        let ks: Vec<i64> = ks.iter().map(|&k| k as i64).collect();
        if ks[..] == [0] {
            return Ok(x.clone());
        }
        Ok(Arc::new(ev.rotate_digits_all(&ev.mod_up(x, gadgets.rotation(x.level())?)?, x, &ks)?))
    }
    fn select(&self, x: &Self::Value, shards: Range<usize>) -> Result<Self::Value> {
        check::select(self, x, &shards)?;
        Ok(Arc::new(self.shards_of(x, shards)?))
    }
    fn join(&self, values: &[Self::Value]) -> Result<Self::Value> {
        check::join(self, values)?;
        match values {
            [one] => Ok(one.clone()),
            _ => Ok(Arc::new(self.concat(values)?)),
        }
    }
    fn pack_pairs(&self, x: &Self::Value) -> Result<Self::Value> {
        let unit = self.imaginary_unit(x.level(), 1.0)?;
        let mut pairs = Vec::with_capacity(x.shards().div_ceil(2));
        for first in (0..x.shards()).step_by(2) {
            let mut pair = self.shards_of(x, first..first + 1)?;
            if first + 1 < x.shards() {
                let second = self.evaluator.mul_plain(&self.shards_of(x, first + 1..first + 2)?, &unit)?;
                self.evaluator.add_assign(&mut pair, &second)?;
            }
            pairs.push(pair);
        }
        Ok(Arc::new(self.concat(&pairs)?))
    }
    fn real_parts(&self, x: &Self::Value, gadgets: &Gadgets) -> Result<Self::Value> {
        Ok(Arc::new(self.evaluator.add(x, &self.conjugate(x, gadgets)?)?))
    }
    fn unpack_pairs(&self, x: &Self::Value, count: usize, gadgets: &Gadgets) -> Result<Self::Value> {
        check::unpack_pairs(self, x, count)?;
        let conjugate = self.conjugate(x, gadgets)?;
        let real = self.evaluator.add(x, &conjugate)?;
        if count == 1 {
            return Ok(Arc::new(real));
        }
        let unit = self.imaginary_unit(x.level(), -1.0)?;
        let imaginary = self.evaluator.mul_plain(&self.evaluator.sub(x, &conjugate)?, &unit)?;
        let shards = (0..count)
            .map(|k| self.shards_of(if k % 2 == 0 { &real } else { &imaginary }, k / 2..k / 2 + 1))
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(self.concat(&shards)?))
    }
    fn inner_product(&self, rotated: &Self::Value, transform: &LinearTransform, sums: &[Vec<Product>]) -> Result<Self::Value> {
        check::inner_product(self, rotated, sums)?;
        let params = self.evaluator.params();
        // Pieces of the terms of all sums, one after the other, whose coefficients fit the cache.
        let piece = match self.backend().place() {
            Place::Host => (Self::COEFFICIENT_BYTES / (params.degree() * 8)).max(8),
            Place::Device | Place::Nowhere => Self::DEVICE_PIECE,
        };
        let all: Vec<(usize, Product)> =
            sums.iter().enumerate().flat_map(|(o, terms)| terms.iter().map(move |&t| (o, t))).collect();
        let mut sum: Option<Ciphertext> = None;
        for start in (0..all.len().max(1)).step_by(piece) {
            let terms = &all[start..all.len().min(start + piece)];
            let fill = |t: usize, re: &mut [f64], im: &mut [f64]| {
                let Product { output, giant, term, .. } = terms[t].1;
                transform.turned_diagonal(output, giant, term, &mut re[..self.slots], &mut im[..self.slots]);
                repeat(re, self.slots);
                repeat(im, self.slots);
            };
            let level = rotated.level();
            let (scale, basis) = (self.factor_scale(level), params.window(level));
            let mut products = vec![Vec::new(); sums.len()];
            for (plain, &(o, product)) in terms.iter().enumerate() {
                products[o].push(PlainTerm { plain, source: product.source });
            }
            let mut integers = self.integers.lock().unwrap_or_else(PoisonError::into_inner);
            let send =
                |integers: &mut Integers| self.evaluator.encoder().integers_into(integers, terms.len(), fill, scale, basis);
            let bytes = terms.len() * basis.len() * params.degree() * 4;
            // Its list of terms is made only where it is looked for.
            let key = self.prepared.keeps_products().then(|| {
                let terms = terms.iter().map(|&(_, product)| product).collect();
                Key::Products { transform: transform.id(), level, terms }
            });
            let integer_bytes = terms.len() * params.degree() * 8;
            let part = match key {
                Some(key) if self.prepared.has_room(&key, bytes) => {
                    let plain = self.prepared.get(key, || {
                        send(&mut integers)?;
                        Ok(self.evaluator.encode_integers(&integers, level)?)
                    })?;
                    self.evaluator.plain_inner_product(rotated, &plain, &products)?
                }
                key => {
                    let keep = || {
                        send(&mut integers)?;
                        Ok(self.evaluator.keep_integers(&integers)?)
                    };
                    match key.map(|key| self.prepared.integers(key, integer_bytes, keep)).transpose()?.flatten() {
                        Some(kept) => self.evaluator.kept_inner_product(rotated, &kept, &products)?,
                        None => {
                            send(&mut integers)?;
                            self.evaluator.encoded_inner_product(rotated, &integers, &products)?
                        }
                    }
                }
            };
            match &mut sum {
                Some(sum) => self.evaluator.add_assign(sum, &part)?,
                None => sum = Some(part),
            }
        }
        Ok(Arc::new(sum.ok_or(CircuitError::EmptyMatrix)?))
    }
    fn accumulate_rotated(&self, sum: &mut Option<ProductSum>, x: Self::Value, k: usize, gadgets: &Gadgets) -> Result<()> {
        check::accumulate(self, sum.as_ref().map(|s| (s.level(), s.shards())), &x)?;
        let ev = &self.evaluator;
        if k == 0 {
            *sum = Some(match sum.take() {
                None => ProductSum::Plain(ev.duplicate(&x)?),
                Some(ProductSum::Plain(mut s)) => {
                    ev.add_assign(&mut s, &x)?;
                    ProductSum::Plain(s)
                }
                Some(ProductSum::Extended(mut s)) => {
                    let lifted = ev.lift(&x, s.gadget())?;
                    ev.add_extended_assign(&mut s, &lifted)?;
                    ProductSum::Extended(s)
                }
            });
            return Ok(());
        }
        let gadget = gadgets.rotation(x.level())?;
        self.add_rotated(sum, &x, &[k as i64], gadget)
    }
    fn accumulate_all_rotated(
        &self,
        sum: &mut Option<ProductSum>,
        x: &Self::Value,
        ks: &[usize],
        gadgets: &Gadgets,
    ) -> Result<()> {
        let shards = check::shards_each(self, x, ks.len())?;
        let at = |range: Range<usize>| self.shards_of(x, range.start * shards..range.end * shards);
        // Rotations by nothing apart: they need no key.
        let mut next = 0;
        for run in ks.chunk_by(|&a, &b| a != 0 && b != 0) {
            let range = next..next + run.len();
            next = range.end;
            if run == [0] {
                self.accumulate_rotated(sum, Arc::new(at(range)?), 0, gadgets)?;
                continue;
            }
            let part = if run.len() == ks.len() { x.clone() } else { Arc::new(at(range)?) };
            check::accumulate_shards(sum.as_ref().map(|s| (s.level(), s.shards())), part.level(), shards)?;
            let gadget = gadgets.rotation(x.level())?;
            let rotations: Vec<i64> = run.iter().map(|&k| k as i64).collect();
            self.add_rotated(sum, &part, &rotations, gadget)?;
        }
        Ok(())
    }
    fn products_together(&self) -> usize {
        match self.backend().place() {
            Place::Host => 32,
            Place::Device | Place::Nowhere => Self::DEVICE_PIECE,
        }
    }
    fn finish(&self, sum: ProductSum) -> Result<Self::Value> {
        check::finish(sum.level())?;
        Ok(Arc::new(match sum {
            ProductSum::Plain(s) => self.evaluator.rescale(&s)?,
            ProductSum::Extended(s) => self.evaluator.mod_down_rescale(&s)?,
        }))
    }
    fn transform(&self, x: &Self::Value, transform: &DiagonalTransform, gadgets: &Gadgets) -> Result<Self::Value> {
        check::transform(self, x)?;
        self.finish(self.double_hoisted(x, transform, gadgets)?)
    }
    fn transform_parts(
        &self,
        x: &Self::Value,
        transform: &DiagonalTransform,
        count: usize,
        gadgets: &Gadgets,
    ) -> Result<Self::Value> {
        check::transform_parts(self, x, count)?;
        let product = match self.double_hoisted(x, transform, gadgets)? {
            ProductSum::Plain(s) => s,
            ProductSum::Extended(s) => self.evaluator.mod_down(&s)?,
        };
        let parts = self.unpack_pairs(&Arc::new(product), count, gadgets)?;
        Ok(Arc::new(self.evaluator.rescale(&parts)?))
    }
    fn mod_raise(&self, x: &Self::Value, _: &Params) -> Result<Self::Value> {
        check::mod_raise(self, x, self.evaluator.params())?;
        Ok(Arc::new(self.evaluator.mod_raise(x)?))
    }
    fn scaled_by(&self, x: &Self::Value, factor: f64) -> Result<Self::Value> {
        Ok(Arc::new(self.evaluator.scaled_by(self.evaluator.duplicate(x)?, factor)?))
    }
}

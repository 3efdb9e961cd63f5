//! Operations on ciphertexts. Every one works on all shards at once.
//!
//! Levels and scales: operands of additions have one level and scales equal to 2^-20; a product has the product of the
//! scales and stays at its level until [`Evaluator::rescale`] takes it one level down. Values at canonical scales stay there: a
//! product at level l, rescaled, is at the canonical scale of level l - 1.

use super::ciphertext::Ciphertext;
use super::encoder::{Encoder, Integers};
use super::error::{CkksError, Result};
use super::gadget::Gadget;
use super::keys::{KeySet, KeySwitchKey};
use super::origin::check_fingerprint;
use super::params::{Level, Params, Scale};
use super::plaintext::{PlainForm, Plaintext};
use super::request::KeyKind;
use crate::backend::{Backend, Buffer, Combination, PlainTerm, PolySelect};
use crate::math::{Basis, BasisChange};
use std::sync::Arc;

/// Scales of summands may differ by this, relatively.
pub const SCALE_TOLERANCE: f64 = 1.0 / (1u64 << 20) as f64;
/// A scale this close to canonical, relatively, is set to canonical.
pub const CANONICAL_TOLERANCE: f64 = 1e-9;

/// Evaluates with a key set on a backend. All methods take `&self`.
///
/// # Errors
/// A method says which of these it has, and what else:
/// - of an operand, always: [`CkksError::ParamsMismatch`] where it is of another parameter set, [`CkksError::Backend`] where it is on
///   another backend, or the backend has no room or has failed;
/// - of two operands: [`CkksError::KeyMismatch`], [`CkksError::LevelMismatch`] and [`CkksError::ShardMismatch`] where they are under
///   different secret keys, at different levels, or of different numbers of shards;
/// - of extended operands: the same, and [`CkksError::GadgetMismatch`] where they are over different gadgets;
/// - of sums: [`CkksError::ScaleMismatch`] where the scales differ by more than [`SCALE_TOLERANCE`];
/// - of plaintexts: [`CkksError::FormMismatch`] for the form of the other operation, [`CkksError::BasisMismatch`] for other primes than
///   the ciphertext's, [`CkksError::ShardMismatch`] for neither one vector nor as many as there are shards;
/// - of products: [`CkksError::ScaleRange`] where the product's scale is below 1 or not below the modulus, and
///   [`CkksError::LevelsExhausted`] for that at level 0, where the factor's scale is above 1;
/// - of key switches: [`CkksError::KeyMismatch`] where the keys are another secret key's, [`CkksError::MissingKey`] where the one that is
///   needed is not there, [`CkksError::Params`] where the gadget does not serve the level ([`Params::key_switch_tables`]).
#[derive(Debug)]
pub struct Evaluator {
    pub(super) params: Arc<Params>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) keys: Arc<KeySet>,
    encoder: Encoder,
}

/// Integers of plaintexts on a device ([`Evaluator::keep_integers`]).
#[derive(Debug)]
pub struct KeptIntegers {
    buffer: Buffer,
    scale: Scale,
    fingerprint: [u8; 32],
}

impl KeptIntegers {
    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.buffer.shape().bytes()
    }
}

/// The first halves of `shards` ciphertexts.
pub(super) const fn first_halves(shards: usize) -> PolySelect {
    PolySelect { first: 0, stride: 2, count: shards }
}

/// The second halves of `shards` ciphertexts.
pub(super) const fn second_halves(shards: usize) -> PolySelect {
    PolySelect { first: 1, stride: 2, count: shards }
}

impl Evaluator {
    /// An evaluator; the keys must live on `backend` and belong to `params`.
    ///
    /// # Errors
    /// [`CkksError::ParamsMismatch`] for keys of another parameter set.
    pub fn new(params: Arc<Params>, backend: Arc<dyn Backend>, keys: Arc<KeySet>) -> Result<Self> {
        keys.tag().check_params(&params, "evaluator")?;
        let encoder = Encoder::new(params.clone(), backend.clone());
        Ok(Self { params, backend, keys, encoder })
    }
    /// The parameter set.
    pub fn params(&self) -> &Arc<Params> {
        &self.params
    }
    /// The backend.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }
    /// The keys.
    pub fn keys(&self) -> &Arc<KeySet> {
        &self.keys
    }
    /// An encoder for the same parameters and backend.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }
    pub(super) fn window(&self, level: Level) -> &Basis {
        self.params.window(level)
    }

    /// A copy.
    ///
    /// # Errors
    /// [`CkksError::Backend`] where the backend has no room, or the ciphertext is another's.
    pub fn duplicate(&self, ct: &Ciphertext) -> Result<Ciphertext> {
        ct.duplicate(self.backend.as_ref())
    }

    /// `a + b`.
    ///
    /// # Errors
    /// Those of two operands and of sums ([`Evaluator`]).
    pub fn add(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        self.check_summands("add", a, b)?;
        Ok(a.with(self.backend.add(&a.buffer, &b.buffer, self.window(a.level))?))
    }

    /// `a += b`.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_assign(&self, a: &mut Ciphertext, b: &Ciphertext) -> Result<()> {
        self.check_summands("add", a, b)?;
        Ok(self.backend.add_assign(&mut a.buffer, &b.buffer, self.params.window(a.level))?)
    }

    /// `a -= b`.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn sub_assign(&self, a: &mut Ciphertext, b: &Ciphertext) -> Result<()> {
        self.check_summands("sub", a, b)?;
        Ok(self.backend.sub_assign(&mut a.buffer, &b.buffer, self.params.window(a.level))?)
    }

    /// `a - b`.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn sub(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        self.check_summands("sub", a, b)?;
        Ok(a.with(self.backend.sub(&a.buffer, &b.buffer, self.window(a.level))?))
    }

    /// `-a`.
    ///
    /// # Errors
    /// Those of an operand ([`Evaluator`]).
    pub fn negate(&self, a: &Ciphertext) -> Result<Ciphertext> {
        self.check(a, "negate")?;
        Ok(a.with(self.backend.negate(&a.buffer, self.window(a.level))?))
    }

    /// `a + plain`; the plaintext holds one vector for all shards or one for each, at the ciphertext's scale.
    ///
    /// # Errors
    /// Those of plaintexts and of sums ([`Evaluator`]).
    pub fn add_plain(&self, a: &Ciphertext, plain: &Plaintext) -> Result<Ciphertext> {
        let mut out = self.duplicate(a)?;
        self.add_plain_assign(&mut out, plain)?;
        Ok(out)
    }

    /// `a += plain`; see [`Self::add_plain`].
    ///
    /// # Errors
    /// As [`Self::add_plain`].
    pub fn add_plain_assign(&self, a: &mut Ciphertext, plain: &Plaintext) -> Result<()> {
        let op = "add_plain";
        self.check(a, op)?;
        self.check_plain(op, plain, PlainForm::Plain, a.level, self.window(a.level), a.shards())?;
        check_scales(op, a.scale, plain.scale)?;
        let select = first_halves(a.shards());
        Ok(self.backend.add_plain_assign(&mut a.buffer, select, &plain.buffer, self.params.window(a.level))?)
    }

    /// `a * plain`, not rescaled; the plaintext is in Montgomery form, one vector for all shards or one for each.
    ///
    /// # Errors
    /// Those of plaintexts and of products ([`Evaluator`]).
    pub fn mul_plain(&self, a: &Ciphertext, plain: &Plaintext) -> Result<Ciphertext> {
        let op = "mul_plain";
        self.check(a, op)?;
        self.check_plain(op, plain, PlainForm::Montgomery, a.level, self.window(a.level), a.shards())?;
        let scale = self.product_scale(op, a.level, a.scale, plain.scale)?;
        let buffer = self.backend.mul_plain(&a.buffer, &plain.buffer, self.window(a.level))?;
        Ok(Ciphertext { scale, ..a.with(buffer) })
    }

    /// For each output o: `sum_t plain[t.plain] * a[t.source]` over `terms[o]`, not rescaled. Plaintexts in Montgomery form.
    ///
    /// # Errors
    /// Those of plaintexts (of any number of vectors) and of products ([`Evaluator`]). A term that names a shard or a plaintext that is
    /// not there is the backend's to refuse.
    pub fn plain_inner_product(&self, a: &Ciphertext, plain: &Plaintext, terms: &[Vec<PlainTerm>]) -> Result<Ciphertext> {
        let op = "plain_inner_product";
        self.check(a, op)?;
        self.check_plain(op, plain, PlainForm::Montgomery, a.level, self.window(a.level), 0)?;
        let scale = self.product_scale(op, a.level, a.scale, plain.scale)?;
        let buffer = self.backend.plain_inner_product(&a.buffer, &plain.buffer, terms, self.window(a.level))?;
        Ok(Ciphertext { scale, ..a.with(buffer) })
    }

    /// [`Self::plain_inner_product`] with plaintexts still to be reduced and transformed, used once and not kept.
    ///
    /// # Errors
    /// Those of products ([`Evaluator`]). Terms as for [`Self::plain_inner_product`].
    pub fn encoded_inner_product(&self, a: &Ciphertext, plain: &Integers, terms: &[Vec<PlainTerm>]) -> Result<Ciphertext> {
        let op = "encoded_inner_product";
        self.check(a, op)?;
        let scale = self.product_scale(op, a.level, a.scale, plain.scale().unwrap_or(Scale(1.0)))?;
        let basis = self.window(a.level);
        let source = self.encoder.residues(plain, basis, PlainForm::Montgomery)?;
        let buffer = self.backend.encoded_inner_product(&a.buffer, plain.polys(), &source, terms, basis)?;
        Ok(Ciphertext { scale, ..a.with(buffer) })
    }

    /// Integers kept where the backend computes, for [`Self::kept_inner_product`]; none on a backend that does not reduce them itself, or
    /// where some are too large.
    ///
    /// # Errors
    /// [`CkksError::SlotCount`] for integers of another degree, [`CkksError::Backend`] where the backend has no room.
    pub fn keep_integers(&self, plain: &Integers) -> Result<Option<KeptIntegers>> {
        let source = self.encoder.residues(plain, self.window(Level(0)), PlainForm::Montgomery)?;
        let (scale, fingerprint) = (plain.scale().unwrap_or(Scale(1.0)), self.params.fingerprint());
        let buffer = self.backend.keep_integers(plain.polys(), &source)?;
        Ok(buffer.map(|buffer| KeptIntegers { buffer, scale, fingerprint }))
    }

    /// [`Self::encoded_inner_product`] of integers that were kept.
    ///
    /// # Errors
    /// As [`Self::encoded_inner_product`]; [`CkksError::ParamsMismatch`] for those of another parameter set.
    pub fn kept_inner_product(&self, a: &Ciphertext, plain: &KeptIntegers, terms: &[Vec<PlainTerm>]) -> Result<Ciphertext> {
        let op = "kept_inner_product";
        self.check(a, op)?;
        check_fingerprint(&self.params, &plain.fingerprint, op)?;
        let scale = self.product_scale(op, a.level, a.scale, plain.scale)?;
        let buffer = self.backend.kept_inner_product(&a.buffer, &plain.buffer, terms, self.window(a.level))?;
        Ok(Ciphertext { scale, ..a.with(buffer) })
    }

    /// The plaintext of integers at a level, in Montgomery form, on the backend's device, to be kept.
    ///
    /// # Errors
    /// [`CkksError::Params`] for a level above the top, [`CkksError::SlotCount`] for integers of another degree, [`CkksError::Backend`]
    /// where the backend has no room.
    pub fn encode_integers(&self, plain: &Integers, level: Level) -> Result<Plaintext> {
        self.params.check_level(level)?;
        let basis = self.window(level);
        let source = self.encoder.residues(plain, basis, PlainForm::Montgomery)?;
        let buffer = self.backend.encode_plain(plain.polys(), &source, basis)?;
        let (scale, fingerprint) = (plain.scale().unwrap_or(Scale(1.0)), self.params.fingerprint());
        Ok(Plaintext { buffer, basis: basis.clone(), scale, form: PlainForm::Montgomery, fingerprint })
    }

    /// Adds a number to every slot.
    ///
    /// # Errors
    /// [`CkksError::NotFinite`] and [`CkksError::EncodingOverflow`] as [`Encoder::constant`]; else those of an operand ([`Evaluator`]).
    pub fn add_scalar(&self, a: &Ciphertext, value: f64) -> Result<Ciphertext> {
        let mut out = self.duplicate(a)?;
        self.add_scalar_assign(&mut out, value)?;
        Ok(out)
    }

    /// Adds a number to every slot, in place.
    ///
    /// # Errors
    /// As [`Self::add_scalar`].
    pub fn add_scalar_assign(&self, a: &mut Ciphertext, value: f64) -> Result<()> {
        self.check(a, "add_scalar")?;
        let basis = self.params.window(a.level);
        let constants = self.encoder.constant(value, a.scale, basis)?;
        let select = first_halves(a.shards());
        Ok(self.backend.add_constant_assign(&mut a.buffer, select, &constants, basis)?)
    }

    /// `value * a` with the number at scale `scale`, not rescaled. At scale 1, a product with an integer costs no level.
    ///
    /// # Errors
    /// [`CkksError::NotFinite`] and [`CkksError::EncodingOverflow`] as [`Encoder::constant`]; else those of products ([`Evaluator`]).
    pub fn mul_scalar(&self, a: &Ciphertext, value: f64, scale: Scale) -> Result<Ciphertext> {
        let op = "mul_scalar";
        self.check(a, op)?;
        let scale_out = self.product_scale(op, a.level, a.scale, scale)?;
        let constants = self.encoder.constant(value, scale, self.window(a.level))?;
        let buffer = self.backend.mul_constant(&a.buffer, &constants, self.window(a.level))?;
        Ok(Ciphertext { scale: scale_out, ..a.with(buffer) })
    }

    /// `sum_k values[k] * parts[k]` with the numbers at scale `scale`, not rescaled; parts of one level and scale.
    ///
    /// # Errors
    /// [`CkksError::ShardMismatch`] where there is no part, or not a number for each; of numbers as [`Encoder::constant`]; else those of
    /// two operands, sums and products ([`Evaluator`]).
    pub fn linear_combination(&self, parts: &[&Ciphertext], values: &[f64], scale: Scale) -> Result<Ciphertext> {
        let op = "linear_combination";
        let Some((&first, others)) = parts.split_first() else {
            return Err(CkksError::ShardMismatch { op, expected: 1, found: 0 });
        };
        check_shards(op, parts.len(), values.len())?;
        self.check(first, op)?;
        others.iter().try_for_each(|part| self.check_summands(op, first, part))?;
        let basis = self.window(first.level);
        let scale_out = self.product_scale(op, first.level, first.scale, scale)?;
        let constants = values.iter().map(|&v| self.encoder.constant(v, scale, basis)).collect::<Result<Vec<_>>>()?;
        let buffers: Vec<&Buffer> = parts.iter().map(|part| &part.buffer).collect();
        let buffer = self.backend.linear_combination(&buffers, &constants, basis)?;
        Ok(Ciphertext { scale: scale_out, ..first.with(buffer) })
    }

    /// `constant + sum_k values[k] * parts[k]` at a lower level and its canonical scale, by one division; parts of one level and scale.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`] where `to` is not below the parts' level; else as [`Self::linear_combination`] and
    /// [`Self::rescale_to`].
    pub fn linear_combination_to(&self, parts: &[&Ciphertext], values: &[f64], constant: f64, to: Level) -> Result<Ciphertext> {
        let op = "linear_combination_to";
        let Some(&first) = parts.first() else { return Err(CkksError::ShardMismatch { op, expected: 1, found: 0 }) };
        self.check(first, op)?;
        if to >= first.level {
            return Err(CkksError::LevelMismatch { op, expected: to, found: first.level });
        }
        let scale = Scale(self.params.scale(to).0 / first.scale.0 * self.params.divisor(first.level, to));
        let change = self.params.rescale_change(first.level, to)?;
        if let (&[part], &[value]) = (parts, values) {
            // The factor goes into the constants of the division.
            let scale_out = self.product_scale(op, part.level, part.scale, scale)?;
            let factor = self.encoder.constant(value, scale, self.window(part.level))?;
            return self.divided((part, &part.buffer, scale_out), &change.times(self.params.tables(), &factor), to, &[constant]);
        }
        let sum = self.linear_combination(parts, values, scale)?;
        self.divided((&sum, &sum.buffer, sum.scale), &change, to, &[constant])
    }

    /// A division of words at a ciphertext's level, of some scale; to the slots of each of several ciphertexts that stand in one a number
    /// is added.
    fn divided(
        &self,
        (of, words, scale): (&Ciphertext, &Buffer, Scale),
        change: &BasisChange,
        to: Level,
        numbers: &[f64],
    ) -> Result<Ciphertext> {
        let scale = self.snapped(Scale(scale.0 / self.params.divisor(of.level, to)), to);
        let buffer = if numbers.iter().all(|&v| v == 0.0) {
            self.backend.change_basis(words, change)?
        } else {
            let basis = self.params.window(to);
            let constants = numbers.iter().map(|&v| self.encoder.constant(v, scale, basis)).collect::<Result<Vec<_>>>()?;
            self.backend.change_basis_adding(words, change, &constants)?
        };
        Ok(Ciphertext { buffer, level: to, scale, tag: of.tag })
    }

    /// `a * b`, relinearized, not rescaled. Needs a relinearization key that covers the level.
    ///
    /// # Errors
    /// As [`Self::tensor`] and [`Self::relinearize`].
    pub fn mul(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        let product = self.tensor("mul", a, b)?;
        self.relinearize(product)
    }

    /// `a * a`, relinearized, not rescaled.
    ///
    /// # Errors
    /// As [`Self::tensor`] and [`Self::relinearize`].
    pub fn square(&self, a: &Ciphertext) -> Result<Ciphertext> {
        let product = self.tensor("square", a, a)?;
        self.relinearize(product)
    }

    /// `a * b`, relinearized and rescaled by one level, with a single division: `(d0, d1)` is lifted to the extended basis,
    /// added to the key's inner product, and P and the leaving primes are divided out together. Cheaper than [`Self::mul`] then
    /// [`Self::rescale`], with less rounding; not bit for bit the same.
    ///
    /// # Errors
    /// As [`Self::tensor`] and [`Self::relinearize_rescale`].
    pub fn mul_rescale(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        let product = self.tensor("mul_rescale", a, b)?;
        self.relinearize_rescale(product)
    }

    /// `constant + sum a b` over pairs at one level with products of one scale, like [`Self::mul_rescale`] with one relinearization and one division
    /// for all.
    /// The relinearization key is the one of `gadget`.
    ///
    /// # Errors
    /// [`CkksError::ShardMismatch`] where there is no pair; else those of two operands, sums and products ([`Evaluator`]), and as
    /// [`Self::relinearize_rescale`].
    pub fn mul_sum_rescale(&self, pairs: &[(&Ciphertext, &Ciphertext)], constant: f64, gadget: Gadget) -> Result<Ciphertext> {
        let op = "mul_sum_rescale";
        let Some((&(a, b), others)) = pairs.split_first() else {
            return Err(CkksError::ShardMismatch { op, expected: 1, found: 0 });
        };
        let scale = self.check_factors(op, a, b)?;
        for (c, d) in others {
            check_levels(op, a.level, c.level)?;
            check_shards(op, a.shards(), c.shards())?;
            a.tag.check_same(&c.tag, op)?;
            check_scales(op, scale, self.check_factors(op, c, d)?)?;
        }
        let buffers: Vec<(&Buffer, &Buffer)> = pairs.iter().map(|(a, b)| (&a.buffer, &b.buffer)).collect();
        let buffer = self.backend.tensor_sum(&buffers, self.window(a.level))?;
        self.relinearize_rescale_with(&Degree2 { value: Ciphertext { scale, ..a.with(buffer) } }, &[constant], gadget)
    }

    /// [`Self::mul_sum_rescale`] for several lists of pairs, with one relinearization and one division for the ciphertexts of all: for a
    /// device, which has more to do at once then. A number is added to each sum.
    ///
    /// # Errors
    /// As [`Self::mul_sum_rescale`], and where the lists' products differ in level, shards or scale.
    pub fn mul_sums_rescale(
        &self,
        sums: &[Vec<(&Ciphertext, &Ciphertext)>],
        constants: &[f64],
        gadget: Gadget,
    ) -> Result<Vec<Ciphertext>> {
        let op = "mul_sum_rescale";
        let Some(&(a, b)) = sums.first().and_then(|pairs| pairs.first()) else { return Ok(Vec::new()) };
        check_shards(op, sums.len(), constants.len())?;
        let scale = self.check_factors(op, a, b)?;
        for &(c, d) in sums.iter().flatten() {
            check_levels(op, a.level, c.level)?;
            check_shards(op, a.shards(), c.shards())?;
            a.tag.check_same(&c.tag, op)?;
            check_scales(op, scale, self.check_factors(op, c, d)?)?;
        }
        let mut buffers: Vec<Vec<(&Buffer, &Buffer)>> = Vec::with_capacity(sums.len());
        for pairs in sums {
            buffers.push(pairs.iter().map(|(a, b)| (&a.buffer, &b.buffer)).collect());
        }
        let buffer = self.backend.tensor_sums(&buffers, self.window(a.level))?;
        let all = self.relinearize_rescale_with(&Degree2 { value: Ciphertext { scale, ..a.with(buffer) } }, constants, gadget)?;
        self.parts_of(all, a.shards(), sums.len())
    }

    /// [`Self::linear_combination_to`] for several sums, each with its numbers, by one division for the ciphertexts of all. A number is
    /// added to each.
    ///
    /// # Errors
    /// As [`Self::linear_combination_to`], and where the sums differ in level, shards or scale.
    pub fn linear_combinations_to(
        &self,
        sums: &[(Vec<&Ciphertext>, &[f64])],
        constants: &[f64],
        to: Level,
    ) -> Result<Vec<Ciphertext>> {
        let op = "linear_combination_to";
        let Some(&first) = sums.first().and_then(|(parts, _)| parts.first()) else { return Ok(Vec::new()) };
        check_shards(op, sums.len(), constants.len())?;
        self.check(first, op)?;
        if to >= first.level {
            return Err(CkksError::LevelMismatch { op, expected: to, found: first.level });
        }
        let scale = Scale(self.params.scale(to).0 / first.scale.0 * self.params.divisor(first.level, to));
        let scale_out = self.product_scale(op, first.level, first.scale, scale)?;
        let basis = self.window(first.level);
        let mut combinations = Vec::with_capacity(sums.len());
        for (parts, values) in sums {
            check_shards(op, parts.len(), values.len())?;
            parts.iter().try_for_each(|part| self.check_summands(op, first, part))?;
            let constants = values.iter().map(|&v| self.encoder.constant(v, scale, basis)).collect::<Result<Vec<_>>>()?;
            combinations.push(Combination { parts: parts.iter().map(|part| &part.buffer).collect(), constants });
        }
        let buffer = self.backend.linear_combinations(&combinations, basis)?;
        let all =
            self.divided((first, &buffer, scale_out), self.params.rescale_change(first.level, to)?.as_ref(), to, constants)?;
        self.parts_of(all, first.shards(), sums.len())
    }

    /// So many ciphertexts of so many shards each.
    fn parts_of(&self, all: Ciphertext, shards: usize, count: usize) -> Result<Vec<Ciphertext>> {
        let Ciphertext { buffer, level, scale, tag } = all;
        let parts = self.backend.split(buffer, &vec![2 * shards; count])?;
        Ok(parts.into_iter().map(|buffer| Ciphertext { buffer, level, scale, tag }).collect())
    }

    /// The scale of a product.
    fn check_factors(&self, op: &'static str, a: &Ciphertext, b: &Ciphertext) -> Result<Scale> {
        self.check(a, op)?;
        self.check(b, op)?;
        check_levels(op, a.level, b.level)?;
        check_shards(op, a.shards(), b.shards())?;
        a.tag.check_same(&b.tag, op)?;
        self.product_scale(op, a.level, a.scale, b.scale)
    }

    /// The product before relinearization.
    ///
    /// # Errors
    /// Those of two operands and of products ([`Evaluator`]).
    pub fn tensor(&self, op: &'static str, a: &Ciphertext, b: &Ciphertext) -> Result<Degree2> {
        let scale = self.check_factors(op, a, b)?;
        let buffer = self.backend.tensor(&a.buffer, &b.buffer, self.window(a.level))?;
        Ok(Degree2 { value: Ciphertext { scale, ..a.with(buffer) } })
    }

    /// `(d0, d1, d2) -> (d0, d1) + key switch of d2`.
    ///
    /// # Errors
    /// Those of an operand and of key switches ([`Evaluator`]).
    pub fn relinearize(&self, product: Degree2) -> Result<Ciphertext> {
        let ct = &product.value;
        let (gadget, shards) = (self.relin_gadget(ct)?, ct.buffer.shape().polys / 3);
        let (key, plan) = (self.relin_key(ct, gadget)?, self.params.key_switch_tables(&gadget, ct.level)?);
        let thirds = PolySelect { first: 2, stride: 3, count: shards };
        let mut out = self.backend.key_switch(&ct.buffer, thirds, key.buffer(), &plan)?;
        self.add_low(&mut out, &ct.buffer, shards, &plan.window)?;
        Ok(ct.with(out))
    }

    /// [`Self::relinearize`] and [`Self::rescale`] with a single division.
    ///
    /// # Errors
    /// [`CkksError::LevelsExhausted`] at level 0, [`CkksError::Params`] as [`Params::mod_down_rescale_change`]; else those of an operand
    /// and of key switches ([`Evaluator`]).
    pub fn relinearize_rescale(&self, product: Degree2) -> Result<Ciphertext> {
        let gadget = self.relin_gadget(&product.value)?;
        self.relinearize_rescale_with(&product, &[], gadget)
    }

    /// To the slots of each of several ciphertexts that stand in one a number is added.
    fn relinearize_rescale_with(&self, product: &Degree2, numbers: &[f64], gadget: Gadget) -> Result<Ciphertext> {
        let ct = &product.value;
        let key = self.relin_key(ct, gadget)?;
        let to = one_below("mul_rescale", ct.level)?;
        let plan = self.params.key_switch_tables(&gadget, ct.level)?;
        let lift = self.params.lift_change(&gadget, ct.level)?;
        let sum = self.backend.relinearize_extended(&ct.buffer, key.buffer(), &lift, &plan)?;
        let change = self.params.mod_down_rescale_change(&gadget, ct.level, to)?;
        self.divided((ct, &sum, ct.scale), &change, to, numbers)
    }

    /// The gadget of the smallest relinearization key that covers a product's level.
    fn relin_gadget(&self, ct: &Ciphertext) -> Result<Gadget> {
        self.check(ct, "relinearize")?;
        Ok(self.keys.covering(&self.params, KeyKind::Relin, ct.level)?.gadget())
    }

    fn relin_key(&self, ct: &Ciphertext, gadget: Gadget) -> Result<&KeySwitchKey> {
        self.keys.tag().check_same(&ct.tag, "relinearize")?;
        Ok(self.keys.exact(KeyKind::Relin, &gadget, ct.level)?)
    }

    fn add_low(&self, out: &mut Buffer, product: &Buffer, shards: usize, basis: &Basis) -> Result<()> {
        for (half, select) in [first_halves(shards), second_halves(shards)].into_iter().enumerate() {
            let part = self.backend.select(product, PolySelect { first: half, stride: 3, count: shards })?;
            self.backend.add_plain_assign(out, select, &part, basis)?;
        }
        Ok(())
    }

    /// One level down: divides by the primes that leave, times those that enter.
    ///
    /// # Errors
    /// [`CkksError::LevelsExhausted`] at level 0; else as [`Self::rescale_to`].
    pub fn rescale(&self, a: &Ciphertext) -> Result<Ciphertext> {
        self.rescale_to(a, one_below("rescale", a.level)?)
    }

    /// To a lower level with one division, whatever scale that gives.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`] for a level that is not lower, [`CkksError::Params`] as [`Params::rescale_change`]; else those of an
    /// operand ([`Evaluator`]).
    pub fn rescale_to(&self, a: &Ciphertext, to: Level) -> Result<Ciphertext> {
        self.check(a, "rescale")?;
        if to >= a.level {
            return Err(CkksError::LevelMismatch { op: "rescale", expected: to, found: a.level });
        }
        self.divided((a, &a.buffer, a.scale), self.params.rescale_change(a.level, to)?.as_ref(), to, &[])
    }

    /// To a lower level and its canonical scale: one division over all levels between, a factor included (two or more where they span
    /// over 900 bits). At its own level, a copy, if the scale is canonical.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`] for a higher level, [`CkksError::ScaleMismatch`] at its own level but another scale,
    /// [`CkksError::ScaleRange`] where the factor would be below 2^20 (a scale far above canonical), [`CkksError::EncodingOverflow`]
    /// where it reaches half the modulus; else as [`Self::rescale_to`].
    pub fn drop_to(&self, a: &Ciphertext, level: Level) -> Result<Ciphertext> {
        let op = "drop_to";
        self.check(a, op)?;
        if level > a.level {
            return Err(CkksError::LevelMismatch { op, expected: level, found: a.level });
        }
        if level == a.level {
            check_scales(op, self.params.scale(level), a.scale)?;
            return self.duplicate(a);
        }
        let log_q = |l: Level| self.params.log_q(l);
        if log_q(a.level) - log_q(level) > 900.0 {
            let middle = (level.0..a.level.0).map(Level).find(|&l| log_q(a.level) - log_q(l) <= 900.0);
            let middle = middle.ok_or(CkksError::LevelMismatch { op, expected: level, found: a.level })?;
            return self.drop_to(&self.drop_to(a, middle)?, level);
        }
        let target = self.params.scale(level);
        let factor = (target.0 / a.scale.0 * self.params.divisor(a.level, level)).round();
        if !(factor.is_finite() && factor >= SCALE_TOLERANCE.recip()) {
            return Err(CkksError::ScaleRange { op, scale: a.scale, level: a.level, log_q: log_q(a.level) });
        }
        let constants = self.encoder.constant(factor, Scale(1.0), self.window(a.level))?;
        let change = self.params.rescale_change(a.level, level)?.times(self.params.tables(), &constants);
        let buffer = self.backend.change_basis(&a.buffer, &change)?;
        let mut out = a.with(buffer);
        out.level = level;
        out.scale = Scale(a.scale.0 * factor / self.params.divisor(a.level, level));
        // The factor is an integer of 21 bits or more, so the scale is canonical to 2^-21 at worst and 2^-53 as a rule.
        out.scale = self.snapped(out.scale, level);
        Ok(out)
    }

    /// The canonical scale if this is it to within rounding of f64.
    pub(super) fn snapped(&self, scale: Scale, level: Level) -> Scale {
        let canonical = self.params.scale(level);
        if scale.agrees(canonical, CANONICAL_TOLERANCE) { canonical } else { scale }
    }

    pub(super) fn product_scale(&self, op: &'static str, level: Level, a: Scale, b: Scale) -> Result<Scale> {
        let scale = Scale(a.0 * b.0);
        let log_q = self.params.log_q(level);
        if scale.0.is_finite() && scale.0 >= 1.0 && scale.log2() < log_q {
            return Ok(scale);
        }
        if level == Level(0) && b.0 > 1.0 {
            return Err(CkksError::LevelsExhausted { op, level, needed: 1 });
        }
        Err(CkksError::ScaleRange { op, scale, level, log_q })
    }

    pub(super) fn check(&self, a: &Ciphertext, op: &'static str) -> Result<()> {
        a.tag.check_params(&self.params, op)
    }

    fn check_summands(&self, op: &'static str, a: &Ciphertext, b: &Ciphertext) -> Result<()> {
        self.check(a, op)?;
        self.check(b, op)?;
        a.tag.check_same(&b.tag, op)?;
        check_levels(op, a.level, b.level)?;
        check_shards(op, a.shards(), b.shards())?;
        check_scales(op, a.scale, b.scale)
    }

    /// A plaintext in the right form over the right primes, one vector or `shards` of them (any number if 0).
    pub(super) fn check_plain(
        &self,
        op: &'static str,
        plain: &Plaintext,
        form: PlainForm,
        level: Level,
        basis: &Basis,
        shards: usize,
    ) -> Result<()> {
        check_fingerprint(&self.params, &plain.fingerprint, op)?;
        if plain.form != form {
            let expected = if form == PlainForm::Plain { "plain" } else { "Montgomery" };
            return Err(CkksError::FormMismatch { op, expected });
        }
        if plain.basis != *basis {
            return Err(CkksError::BasisMismatch { op, level, expected: basis.len(), found: plain.basis.len() });
        }
        if shards != 0 && plain.polys() != 1 && plain.polys() != shards {
            return Err(CkksError::ShardMismatch { op, expected: shards, found: plain.polys() });
        }
        Ok(())
    }
}

/// A product before relinearization: `[shard][3]`.
#[derive(Debug)]
pub struct Degree2 {
    value: Ciphertext,
}

pub(super) fn one_below(op: &'static str, level: Level) -> Result<Level> {
    level.below(1).ok_or(CkksError::LevelsExhausted { op, level, needed: 1 })
}

pub(super) fn check_levels(op: &'static str, expected: Level, found: Level) -> Result<()> {
    if expected == found { Ok(()) } else { Err(CkksError::LevelMismatch { op, expected, found }) }
}

pub(super) fn check_shards(op: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(CkksError::ShardMismatch { op, expected, found }) }
}

pub(super) fn check_scales(op: &'static str, expected: Scale, found: Scale) -> Result<()> {
    if expected.agrees(found, SCALE_TOLERANCE) { Ok(()) } else { Err(CkksError::ScaleMismatch { op, expected, found }) }
}

//! Rotations and conjugation, alone, hoisted, and in the extended basis.
//!
//! A rotation by g is `sigma_g(c0 + k0, k1)` where `(k0, k1)` is the key switch of c1 from `s` to `sigma_g^-1(s)`. The
//! automorphism comes last, so the digits of c1 (mod_up) serve every rotation as they are (hoisting, Halevi and Shoup 2018). In
//! the extended basis the division by P is left out and `P c0` is added instead: sums of products of such values need one
//! division in all (double hoisting, Bossuat et al. 2021).

use super::ciphertext::{Ciphertext, Digits, ExtendedCiphertext};
use super::error::{CkksError, Result};
use super::evaluator::{Evaluator, check_levels, check_scales, check_shards, first_halves, one_below, second_halves};
use super::gadget::Gadget;
use super::keys::KeySwitchKey;
use super::origin::Tag;
use super::params::{Level, Scale};
use super::plaintext::{PlainForm, Plaintext};
use super::request::KeyKind;
use crate::backend::{Buffer, KeyRotation, PlainTerm, Rotation};
use std::sync::Arc;

impl Evaluator {
    /// Slot i of the result is slot i + k of the input. Needs the Galois key of `5^k`.
    ///
    /// # Errors
    /// As [`Self::apply_galois`].
    pub fn rotate(&self, ct: &Ciphertext, k: i64) -> Result<Ciphertext> {
        self.apply_galois(ct, self.params.galois_element(k))
    }

    /// Complex conjugation of every slot. Needs the Galois key of `2N - 1`.
    ///
    /// # Errors
    /// As [`Self::apply_galois`].
    pub fn conjugate(&self, ct: &Ciphertext) -> Result<Ciphertext> {
        self.apply_galois(ct, self.params.conjugation_element())
    }

    /// The automorphism `X -> X^galois`, with its key switch.
    ///
    /// # Errors
    /// Those of key switches ([`Evaluator`]). The element 1 needs no key: a copy.
    pub fn apply_galois(&self, ct: &Ciphertext, galois: u32) -> Result<Ciphertext> {
        self.check(ct, "rotate")?;
        if galois == 1 {
            return self.duplicate(ct);
        }
        let gadget = self.keys.covering(&self.params, KeyKind::Galois(galois), ct.level)?.gadget();
        self.apply_galois_with(ct, galois, gadget)
    }

    /// [`Self::apply_galois`] with the key of this very gadget.
    ///
    /// # Errors
    /// As [`Self::apply_galois`].
    pub fn apply_galois_with(&self, ct: &Ciphertext, galois: u32, gadget: Gadget) -> Result<Ciphertext> {
        let op = "rotate";
        self.check(ct, op)?;
        if galois == 1 {
            return self.duplicate(ct);
        }
        self.keys.tag().check_same(&ct.tag, op)?;
        let key = self.keys.exact(KeyKind::Galois(galois), &gadget, ct.level)?;
        let plan = self.params.key_switch_tables(&key.gadget(), ct.level)?;
        Ok(ct.with(self.backend.rotate(&ct.buffer, KeyRotation { galois, key: key.buffer() }, &plan)?))
    }

    /// Rotations that share one mod_up wherever their keys share a gadget: `out[i] = rotate(ct, ks[i])`, the same bits.
    ///
    /// # Errors
    /// As [`Self::apply_galois`].
    pub fn rotate_many(&self, ct: &Ciphertext, ks: &[i64]) -> Result<Vec<Ciphertext>> {
        self.check(ct, "rotate_many")?;
        let mut hoisted: Vec<Digits> = Vec::new();
        let mut out = Vec::with_capacity(ks.len());
        for &k in ks {
            let galois = self.params.galois_element(k);
            if galois == 1 {
                out.push(self.duplicate(ct)?);
                continue;
            }
            let gadget = self.keys.covering(&self.params, KeyKind::Galois(galois), ct.level)?.gadget();
            if !hoisted.iter().any(|d| d.gadget == gadget) {
                hoisted.push(self.mod_up(ct, gadget)?);
            }
            if let Some(digits) = hoisted.iter().find(|d| d.gadget == gadget) {
                out.push(self.rotate_digits(digits, ct, k)?);
            }
        }
        Ok(out)
    }

    /// The digits of the second halves. Cost: one inverse NTT a limb and one forward NTT a digit and converted limb.
    ///
    /// # Errors
    /// [`CkksError::Params`] as [`Params::key_switch_tables`](super::Params::key_switch_tables); else those of an operand ([`Evaluator`]).
    pub fn mod_up(&self, ct: &Ciphertext, gadget: Gadget) -> Result<Digits> {
        self.check(ct, "mod_up")?;
        let plan = self.params.key_switch_tables(&gadget, ct.level)?;
        let buffer = self.backend.mod_up(&ct.buffer, second_halves(ct.shards()), &plan)?;
        Ok(Digits { buffer, gadget, level: ct.level, shards: ct.shards(), tag: ct.tag })
    }

    /// A rotation from digits made by [`Self::mod_up`] of the same ciphertext.
    ///
    /// # Errors
    /// As [`Self::rotate_digits_all`].
    pub fn rotate_digits(&self, digits: &Digits, ct: &Ciphertext, k: i64) -> Result<Ciphertext> {
        self.galois_digits(digits, ct, self.params.galois_element(k))
    }

    /// An automorphism from digits of the same ciphertext.
    ///
    /// # Errors
    /// As [`Self::rotate_digits_all`].
    pub fn galois_digits(&self, digits: &Digits, ct: &Ciphertext, galois: u32) -> Result<Ciphertext> {
        self.galois_digits_all(digits, ct, &[galois])
    }

    /// All rotations of all shards as one value of `ks.len() * shards` shards, those of `ks[0]` first; 0 copies. Each key is
    /// read once for all shards.
    ///
    /// # Errors
    /// Those of two operands (digits and ciphertext) and of key switches ([`Evaluator`]).
    pub fn rotate_digits_all(&self, digits: &Digits, ct: &Ciphertext, ks: &[i64]) -> Result<Ciphertext> {
        let galois: Vec<u32> = ks.iter().map(|&k| self.params.galois_element(k)).collect();
        self.galois_digits_all(digits, ct, &galois)
    }

    fn galois_digits_all(&self, digits: &Digits, ct: &Ciphertext, galois: &[u32]) -> Result<Ciphertext> {
        self.check_digits("rotate_digits", digits, ct)?;
        let plan = self.params.key_switch_tables(&digits.gadget, ct.level)?;
        let rotation = |&galois: &u32| {
            let key = if galois == 1 { None } else { Some(self.exact_key(digits, galois)?.buffer()) };
            Ok(Rotation { galois, key })
        };
        let rotations = galois.iter().map(rotation).collect::<Result<Vec<_>>>()?;
        Ok(ct.with(self.backend.rotate_digits(&ct.buffer, &digits.buffer, &rotations, &plan)?))
    }

    /// P times the ciphertext in the extended basis: both halves, special residues 0. The rotation by 0 of a hoisted sum.
    ///
    /// # Errors
    /// [`CkksError::Params`] as [`Params::lift_change`](super::Params::lift_change); else those of an operand ([`Evaluator`]).
    pub fn lift(&self, ct: &Ciphertext, gadget: Gadget) -> Result<ExtendedCiphertext> {
        self.check(ct, "lift")?;
        let change = self.params.lift_change(&gadget, ct.level)?;
        let buffer = self.backend.change_basis(&ct.buffer, &change)?;
        Ok(ExtendedCiphertext { buffer, gadget, level: ct.level, scale: ct.scale, tag: ct.tag })
    }

    /// P times the first halves of a ciphertext in the extended basis, to be shared by the rotations of
    /// [`Self::rotate_digits_extended`].
    ///
    /// # Errors
    /// As [`Self::lift`].
    pub fn lift_first(&self, ct: &Ciphertext, gadget: Gadget) -> Result<Lifted> {
        self.check(ct, "lift_first")?;
        let change = self.params.lift_change(&gadget, ct.level)?;
        let first = self.backend.select(&ct.buffer, first_halves(ct.shards()))?;
        let buffer = self.backend.change_basis(&first, &change)?;
        Ok(Lifted { buffer, gadget, level: ct.level, scale: ct.scale, shards: ct.shards(), tag: ct.tag })
    }

    /// A rotation times P in the extended basis: everything of a rotation but the division by P.
    ///
    /// # Errors
    /// Those of extended operands and of key switches ([`Evaluator`]). For `k = 0` too there must be a key, since second halves are here as
    /// digits alone; [`Self::lift`] needs none.
    pub fn rotate_digits_extended(&self, digits: &Digits, lifted: &Lifted, k: i64) -> Result<ExtendedCiphertext> {
        let op = "rotate_digits_extended";
        self.check_gadgets(op, digits.gadget, lifted.gadget)?;
        lifted.tag.check_same(&digits.tag, op)?;
        check_levels(op, digits.level, lifted.level)?;
        check_shards(op, digits.shards, lifted.shards)?;
        self.keys.tag().check_same(&digits.tag, op)?;
        let galois = self.params.galois_element(k);
        let key = self.exact_key(digits, galois)?;
        let plan = self.params.key_switch_tables(&digits.gadget, digits.level)?;
        let rotation = KeyRotation { galois, key: key.buffer() };
        let buffer = self.backend.rotate_extended(&digits.buffer, &lifted.buffer, rotation, &plan)?;
        Ok(ExtendedCiphertext { buffer, gadget: digits.gadget, level: digits.level, scale: lifted.scale, tag: digits.tag })
    }

    /// Divides by P: back to the window of the level.
    ///
    /// # Errors
    /// [`CkksError::Params`] as [`Params::key_switch_tables`](super::Params::key_switch_tables); else those of an operand ([`Evaluator`]).
    pub fn mod_down(&self, value: &ExtendedCiphertext) -> Result<Ciphertext> {
        value.tag.check_params(&self.params, "mod_down")?;
        let plan = self.params.key_switch_tables(&value.gadget, value.level)?;
        let buffer = self.backend.change_basis(&value.buffer, &plan.mod_down)?;
        Ok(Ciphertext { buffer, level: value.level, scale: value.scale, tag: value.tag })
    }

    /// Divides by P and rescales one level down in one step, with one rounding.
    ///
    /// # Errors
    /// [`CkksError::LevelsExhausted`] at level 0, [`CkksError::Params`] as
    /// [`Params::mod_down_rescale_change`](super::Params::mod_down_rescale_change); else those of an operand ([`Evaluator`]).
    pub fn mod_down_rescale(&self, value: &ExtendedCiphertext) -> Result<Ciphertext> {
        value.tag.check_params(&self.params, "mod_down_rescale")?;
        let to = one_below("mod_down_rescale", value.level)?;
        let change = self.params.mod_down_rescale_change(&value.gadget, value.level, to)?;
        let buffer = self.backend.change_basis(&value.buffer, &change)?;
        let scale = self.snapped(Scale(value.scale.0 / self.params.divisor(value.level, to)), to);
        Ok(Ciphertext { buffer, level: to, scale, tag: value.tag })
    }

    /// `a += b` in the extended basis.
    ///
    /// # Errors
    /// Those of extended operands and of sums ([`Evaluator`]).
    pub fn add_extended_assign(&self, a: &mut ExtendedCiphertext, b: &ExtendedCiphertext) -> Result<()> {
        let op = "add_extended";
        a.tag.check_params(&self.params, op)?;
        a.tag.check_same(&b.tag, op)?;
        self.check_gadgets(op, a.gadget, b.gadget)?;
        check_levels(op, a.level, b.level)?;
        check_shards(op, a.shards(), b.shards())?;
        check_scales(op, a.scale, b.scale)?;
        let plan = self.params.key_switch_tables(&a.gadget, a.level)?;
        Ok(self.backend.add_assign(&mut a.buffer, &b.buffer, &plan.extended)?)
    }

    /// `a * plain` in the extended basis; the plaintext (Montgomery form) is encoded over the extended basis.
    ///
    /// # Errors
    /// Those of plaintexts (over the extended basis) and of products ([`Evaluator`]).
    pub fn mul_plain_extended(&self, a: &ExtendedCiphertext, plain: &Plaintext) -> Result<ExtendedCiphertext> {
        let op = "mul_plain_extended";
        a.tag.check_params(&self.params, op)?;
        let plan = self.params.key_switch_tables(&a.gadget, a.level)?;
        self.check_plain(op, plain, PlainForm::Montgomery, a.level, &plan.extended, a.shards())?;
        let scale = self.product_scale(op, a.level, a.scale, plain.scale)?;
        let buffer = self.backend.mul_plain(&a.buffer, &plain.buffer, &plan.extended)?;
        Ok(ExtendedCiphertext { scale, ..a.with(buffer) })
    }

    /// [`Self::plain_inner_product`] in the extended basis.
    ///
    /// # Errors
    /// As [`Self::plain_inner_product`], with plaintexts over the extended basis.
    pub fn plain_inner_product_extended(
        &self,
        a: &ExtendedCiphertext,
        plain: &Plaintext,
        terms: &[Vec<PlainTerm>],
    ) -> Result<ExtendedCiphertext> {
        let op = "plain_inner_product_extended";
        a.tag.check_params(&self.params, op)?;
        let plan = self.params.key_switch_tables(&a.gadget, a.level)?;
        self.check_plain(op, plain, PlainForm::Montgomery, a.level, &plan.extended, 0)?;
        let scale = self.product_scale(op, a.level, a.scale, plain.scale)?;
        let buffer = self.backend.plain_inner_product(&a.buffer, &plain.buffer, terms, &plan.extended)?;
        Ok(ExtendedCiphertext { scale, ..a.with(buffer) })
    }

    fn check_digits(&self, op: &'static str, digits: &Digits, ct: &Ciphertext) -> Result<()> {
        self.check(ct, op)?;
        ct.tag.check_same(&digits.tag, op)?;
        self.keys.tag().check_same(&ct.tag, op)?;
        check_levels(op, digits.level, ct.level)?;
        check_shards(op, digits.shards, ct.shards())
    }

    fn exact_key(&self, digits: &Digits, galois: u32) -> Result<&Arc<KeySwitchKey>> {
        self.keys.exact(KeyKind::Galois(galois), &digits.gadget, digits.level)
    }

    pub(super) fn check_gadgets(&self, op: &'static str, expected: Gadget, found: Gadget) -> Result<()> {
        if expected == found {
            return Ok(());
        }
        Err(CkksError::GadgetMismatch { op, expected: expected.to_string(), found: found.to_string() })
    }
}

/// P times the first halves of a ciphertext: `[shard]` over the extended basis.
#[derive(Debug)]
pub struct Lifted {
    buffer: Buffer,
    gadget: Gadget,
    level: Level,
    scale: Scale,
    shards: usize,
    tag: Tag,
}

//! Rotations within the extended basis, where sums of products wait for their one division (Bossuat et al. 2021, section 4).

use super::ciphertext::{Ciphertext, Digits, ExtendedCiphertext};
use super::error::Result;
use super::evaluator::{Evaluator, check_levels, check_scales, check_shards};
use super::gadget::Gadget;
use super::plaintext::{PlainForm, Plaintext};
use super::request::KeyKind;
use crate::backend::{HoistedRotations, HornerStep, KeyRotation, PlainTerm, Rotation, check};

impl Evaluator {
    /// For each output the sum of products with plaintexts of rotations of shards, all in the extended basis: nothing is divided by P.
    /// Source `r * shards + s` of a term is shard s rotated by `ks[r]`; `digits` are those of `ct`; plaintexts are in Montgomery form over
    /// the extended basis of the digits' gadget. Each key is read once for all shards.
    ///
    /// # Errors
    /// Those of two operands, of plaintexts, products and key switches ([`Evaluator`]). A term that names a shard or a plaintext that is
    /// not there is the backend's to refuse.
    pub fn rotated_inner_product(
        &self,
        (digits, ct): (&Digits, &Ciphertext),
        ks: &[i64],
        plain: &Plaintext,
        terms: &[Vec<PlainTerm>],
    ) -> Result<ExtendedCiphertext> {
        let op = "rotated_inner_product";
        self.check(ct, op)?;
        ct.tag.check_same(&digits.tag, op)?;
        self.keys.tag().check_same(&ct.tag, op)?;
        check_levels(op, digits.level, ct.level)?;
        check_shards(op, digits.shards, ct.shards())?;
        let gadget = digits.gadget;
        let (plan, lift) = (self.params.key_switch_tables(&gadget, ct.level)?, self.params.lift_change(&gadget, ct.level)?);
        self.check_plain(op, plain, PlainForm::Montgomery, ct.level, &plan.extended, 0)?;
        let scale = self.product_scale(op, ct.level, ct.scale, plain.scale)?;
        let mut rotations = Vec::with_capacity(ks.len());
        for &k in ks {
            let galois = self.params.galois_element(k);
            let key = match galois {
                1 => None,
                _ => Some(self.keys.exact(KeyKind::Galois(galois), &gadget, ct.level)?.buffer()),
            };
            rotations.push(Rotation { galois, key });
        }
        let hoisted = HoistedRotations { ct: &ct.buffer, digits: &digits.buffer, rotations: &rotations, lift: &lift };
        let buffer = self.backend.rotated_inner_product(hoisted, &plan, &plain.buffer, terms)?;
        Ok(ExtendedCiphertext { buffer, gadget, level: ct.level, scale, tag: ct.tag })
    }

    /// The sum of rotations in the extended basis, by each of `ks`, of shards of its own: `ct` has all shards of `ks[0]` first. Nothing is
    /// divided by P. `plus` is added as it is, where there is one.
    ///
    /// # Errors
    /// [`CkksError::Backend`](super::CkksError::Backend) where the shards cannot be shared out; else those of two operands, of sums and of
    /// key switches ([`Evaluator`]). The rotation by 0 needs a key too.
    pub fn rotated_sum(
        &self,
        ct: &Ciphertext,
        ks: &[i64],
        gadget: Gadget,
        plus: Option<&Ciphertext>,
    ) -> Result<ExtendedCiphertext> {
        let op = "rotated_sum";
        self.check(ct, op)?;
        self.keys.tag().check_same(&ct.tag, op)?;
        if let Some(plus) = plus {
            plus.tag.check_same(&ct.tag, op)?;
            check_levels(op, ct.level, plus.level)?;
            check_scales(op, ct.scale, plus.scale)?;
            check_shards(op, ct.shards(), plus.shards() * ks.len())?;
        }
        let (plan, lift) = (self.params.key_switch_tables(&gadget, ct.level)?, self.params.lift_change(&gadget, ct.level)?);
        let rotation = |&k: &i64| {
            let galois = self.params.galois_element(k);
            let key = self.keys.exact(KeyKind::Galois(galois), &gadget, ct.level)?.buffer();
            Ok(KeyRotation { galois, key })
        };
        let rotations = ks.iter().map(rotation).collect::<Result<Vec<_>>>()?;
        let buffer = self.backend.rotated_sum(&ct.buffer, plus.map(|p| &p.buffer), &rotations, &lift, &plan)?;
        Ok(ExtendedCiphertext { buffer, gadget, level: ct.level, scale: ct.scale, tag: ct.tag })
    }

    /// One step of Horner's rule in the extended basis: some shards of x rotated by k, plus as many shards of `plus`. Only second halves are divided by P and switched.
    ///
    /// Cost: half a mod_down, a mod_up and a product with a key of the values' gadget.
    ///
    /// # Errors
    /// Those of extended operands, of sums and of key switches ([`Evaluator`]). Shards that are not there are the backend's to refuse. The
    /// rotation by 0 needs no key: a sum.
    pub fn rotate_sum_extended(&self, step: &HornerStep<'_, ExtendedCiphertext>, k: i64) -> Result<ExtendedCiphertext> {
        let op = "rotate_sum_extended";
        let &HornerStep { x, first, plus, first_plus, shards } = step;
        x.tag.check_params(&self.params, op)?;
        self.keys.tag().check_same(&x.tag, op)?;
        x.tag.check_same(&plus.tag, op)?;
        self.check_gadgets(op, x.gadget, plus.gadget)?;
        check_levels(op, x.level, plus.level)?;
        check_scales(op, x.scale, plus.scale)?;
        let galois = self.params.galois_element(k);
        let plan = self.params.key_switch_tables(&x.gadget, x.level)?;
        if galois == 1 {
            let part = |value: &ExtendedCiphertext, first| {
                self.backend.select(&value.buffer, check::shards(value.buffer.shape(), first, shards, op)?)
            };
            let mut sum = part(x, first)?;
            self.backend.add_assign(&mut sum, &part(plus, first_plus)?, &plan.extended)?;
            return Ok(x.with(sum));
        }
        let key = self.keys.exact(KeyKind::Galois(galois), &x.gadget, x.level)?;
        let rotation = KeyRotation { galois, key: key.buffer() };
        let step = HornerStep { x: &x.buffer, first, plus: &plus.buffer, first_plus, shards };
        let buffer = self.backend.rotate_sum(&step, rotation, &plan)?;
        Ok(x.with(buffer))
    }
}

//! [`DiagonalTransform`]s on ciphertexts.

use super::prepared::Key;
use super::{EncryptedEngine, ProductSum, Result};
use crate::{
    backend::{HornerStep, PlainTerm},
    circuits::{DiagonalTransform, Gadgets, diagonal_transform::DiagonalTerm},
    ckks::{Ciphertext, CkksError, ExtendedCiphertext, Gadget, Level, PlainForm, Plaintext, Scale},
    math::Basis,
};
use std::sync::Arc;

impl EncryptedEngine {
    /// Everything of a transform but the division at the end.
    pub(super) fn double_hoisted(&self, x: &Ciphertext, transform: &DiagonalTransform, gadgets: &Gadgets) -> Result<ProductSum> {
        let ev = &self.evaluator;
        let (params, shards, level) = (ev.params(), x.shards(), x.level());
        // A scale somewhat off is made good by the diagonals'; one far off is a mistake, and would leave them few bits.
        let drift = params.scale(level).0 / x.scale().0;
        if !(0.5..=2.0).contains(&drift) {
            return Err(CkksError::ScaleMismatch { op: "transform", expected: params.scale(level), found: x.scale() }.into());
        }
        let scale = Scale(params.plain_scale(level).0 * drift);
        let term = |(plain, t): (usize, &DiagonalTerm), s: usize| PlainTerm { plain, source: t.baby * shards + s };
        let mut first = 0;
        let mut terms = Vec::with_capacity(transform.sums().len() * shards);
        for sum in transform.sums() {
            terms.extend((0..shards).map(|s| (first..).zip(sum).map(|t| term(t, s)).collect::<Vec<_>>()));
            first += sum.len();
        }
        if transform.rotations().is_empty() {
            let plain = self.encoded(transform, (level, None), scale, params.window(level))?;
            return Ok(ProductSum::Plain(ev.plain_inner_product(x, &plain, &terms)?));
        }
        let gadget = gadgets.rotation(level)?;
        let plan = params.key_switch_tables(&gadget, level).map_err(CkksError::from)?;
        let plain = self.encoded(transform, (level, Some(gadget)), scale, &plan.extended)?;
        let babies: Vec<i64> = transform.babies().iter().map(|&b| b as i64).collect();
        let inner = ev.rotated_inner_product((&ev.mod_up(x, gadget)?, x), &babies, &plain, &terms)?;
        // Horner's rule over the sums, from the last one on.
        let mut sum: Option<ExtendedCiphertext> = None;
        let mut first = (transform.sums().len() - 1) * shards;
        while first > 0 {
            let (x, at) = sum.as_ref().map_or((&inner, first), |sum| (sum, 0));
            let step = HornerStep { x, first: at, plus: &inner, first_plus: first - shards, shards };
            sum = Some(ev.rotate_sum_extended(&step, transform.giant() as i64)?);
            first -= shards;
        }
        Ok(ProductSum::Extended(sum.unwrap_or(inner)))
    }

    fn encoded(
        &self,
        transform: &DiagonalTransform,
        (level, gadget): (Level, Option<Gadget>),
        scale: Scale,
        basis: &Basis,
    ) -> Result<Arc<Plaintext>> {
        let key = Key::Diagonals { transform: transform.id(), level, gadget, scale: scale.0.to_bits() };
        self.prepared.get(key, || {
            let terms: Vec<&DiagonalTerm> = transform.sums().iter().flatten().collect();
            let fill = |t: usize, re: &mut [f64], im: &mut [f64]| {
                let diagonal = transform.diagonal(terms[t].diagonal);
                // A period of 1 is encoded as one of 2.
                for (to, from) in [(re, &diagonal.0), (im, &diagonal.1)] {
                    to.iter_mut().zip(from.iter().cycle()).for_each(|(to, &from)| *to = from);
                }
            };
            let (period, form) = (transform.period().max(2), PlainForm::Montgomery);
            Ok(self.evaluator.encoder().encode_periodic(period, terms.len(), fill, scale, basis, form)?)
        })
    }
}

//! [`DiagonalTransform`]s on ciphertexts, and the plaintexts kept for them.

use super::{EncryptedEngine, ProductSum, Result};
use crate::{
    backend::PlainTerm,
    circuits::DiagonalTransform,
    ckks::{Ciphertext, CkksError, Gadget, KeyKind, Level, PlainForm, Plaintext, Scale},
    math::Basis,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// What encoded diagonals depend on: the transform, the level, the extended basis (none without rotations), the scale's bits.
type Key = (u64, Level, Option<Gadget>, u64);

/// Encoded diagonals, kept up to a budget of bytes; the rest is encoded again whenever it is used.
#[derive(Debug)]
pub struct Prepared {
    budget: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: usize,
    sums: HashMap<(Key, usize), Arc<Plaintext>>,
}

impl Default for Prepared {
    fn default() -> Self {
        Self::new(Self::BYTES)
    }
}

impl Prepared {
    /// The usual budget.
    pub const BYTES: usize = 2 << 30;

    /// Nothing yet.
    pub fn new(budget: usize) -> Self {
        Self { budget, kept: Mutex::default() }
    }
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
    fn get(&self, key: Key, sum: usize, encode: impl FnOnce() -> Result<Plaintext>) -> Result<Arc<Plaintext>> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().sums.get(&(key, sum)) {
            return Ok(found.clone());
        }
        let plain = Arc::new(encode()?);
        let (bytes, mut kept) = (plain.buffer().shape().bytes(), lock());
        if kept.bytes + bytes <= self.budget {
            kept.bytes += bytes;
            kept.sums.insert((key, sum), plain.clone());
        }
        Ok(plain)
    }
}

impl EncryptedEngine {
    /// Keeps at most this many bytes of encoded diagonals.
    pub fn with_prepared_bytes(self, budget: usize) -> Self {
        Self { prepared: Prepared::new(budget), ..self }
    }

    /// The encoded diagonals kept.
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Everything of a transform but the division at the end.
    pub(super) fn double_hoisted(&self, x: &Ciphertext, transform: &DiagonalTransform) -> Result<ProductSum> {
        let ev = &self.evaluator;
        let (params, shards, level) = (ev.params(), x.shards(), x.level());
        // A scale somewhat off is made good by the diagonals'; one far off is a mistake, and would leave them few bits.
        let drift = params.scale(level).0 / x.scale().0;
        if !(0.5..=2.0).contains(&drift) {
            return Err(CkksError::ScaleMismatch { op: "transform", expected: params.scale(level), found: x.scale() }.into());
        }
        let scale = Scale(params.plain_scale(level).0 * drift);
        let terms = |sum: usize| -> Vec<Vec<PlainTerm>> {
            let of_shard = |s: usize| {
                let term = |(plain, t): (usize, &crate::circuits::diagonal_transform::DiagonalTerm)| PlainTerm {
                    plain,
                    source: t.baby * shards + s,
                };
                transform.sums()[sum].iter().enumerate().map(term).collect()
            };
            (0..shards).map(of_shard).collect()
        };
        let Some(&first) = transform.rotations().first() else {
            let plain = self.encoded(transform, 0, (level, None), scale, params.window(level))?;
            return Ok(ProductSum::Plain(ev.plain_inner_product(x, &plain, &terms(0))?));
        };
        let gadget = ev.keys().covering(params, KeyKind::Galois(params.galois_element(first as i64)), level)?.gadget();
        let babies: Vec<i64> = transform.babies().iter().map(|&b| b as i64).collect();
        let rotated = ev.rotate_digits_extended_all(&ev.mod_up(x, gadget)?, x, &babies)?;
        let plan = params.gadget_plan(&gadget, level).map_err(CkksError::from)?;
        let mut sum = None;
        for g in (0..transform.sums().len()).rev() {
            let plain = self.encoded(transform, g, (level, Some(gadget)), scale, &plan.extended)?;
            let inner = ev.plain_inner_product_extended(&rotated, &plain, &terms(g))?;
            sum = Some(match sum {
                None => inner,
                Some(above) => {
                    let mut turned = ev.rotate_extended(&above, transform.giant() as i64)?;
                    ev.add_extended_assign(&mut turned, &inner)?;
                    turned
                }
            });
        }
        sum.map(ProductSum::Extended).ok_or(crate::circuits::CircuitError::EmptyMatrix)
    }

    fn encoded(
        &self,
        transform: &DiagonalTransform,
        sum: usize,
        (level, gadget): (Level, Option<Gadget>),
        scale: Scale,
        basis: &Basis,
    ) -> Result<Arc<Plaintext>> {
        self.prepared.get((transform.id(), level, gadget, scale.0.to_bits()), sum, || {
            let terms = &transform.sums()[sum];
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

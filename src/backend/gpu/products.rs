//! Sums of products: digits with a key, ciphertexts with plaintexts.

use super::arguments::{self, KeyProductRow, PlainProduct, PlainProductRow, Reduce, ReduceLimb, row, words};
use super::commands::View;
use super::memory::DeviceWords;
use super::polys::{Polys, Window};
use super::registry::{Kernel, THREADS};
use super::transform::{Limb, Source};
use super::{GpuBackend, word};
use crate::backend::check::DigitLayout;
use crate::backend::{BackendError, Buffer, Coefficients, GadgetPlan, PlainSource, PlainTerm, Result, Shape};
use crate::math::{Basis, LimbId};
use std::ops::Range;

/// What is added to a product with a key before it is permuted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Added<'a> {
    /// To the first halves, one for each shard.
    pub first: Window<'a>,
    /// Words from there to what is added to the second halves; 0 if nothing is.
    pub second: usize,
}

/// What a product with a key is made of, and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyProduct<'a> {
    pub plan: &'a GadgetPlan,
    /// `[shard][digit][extended limb]`.
    pub digits: View<'a>,
    /// Where a digit's own limbs are instead: `[shard]` polynomials over the window, and where the digits stand.
    pub own: Option<(Window<'a>, &'a DigitLayout)>,
    /// The inverse of the Galois element that the sums are permuted by; 1 for none.
    pub inverse: u32,
    pub added: Option<Added<'a>>,
    pub shards: usize,
}

impl GpuBackend {
    fn tiles(&self) -> usize {
        self.tables.degree().div_ceil(THREADS as usize)
    }

    /// One dispatch, or one for each part of a key that cannot be bound whole.
    pub(super) fn key_product(&self, product: &KeyProduct<'_>, key: &Buffer, out: Window<'_>) -> Result<()> {
        let op = Kernel::KeyInnerProduct.row().name;
        let held = self.key(key, op)?;
        let KeyProduct { plan, digits, own, inverse, added, shards } = *product;
        let key_shape = key.shape();
        let (limbs, count) = (plan.extended.len(), plan.digits.len());
        let mut call = arguments::KeyProduct {
            log_degree: self.tables.log_n(),
            limb_count: word(limbs),
            key_limbs: word(key_shape.limbs),
            digits: word(count),
            galois_inverse: inverse,
            output: word(out.first),
            ..Default::default()
        };
        let (mut own_view, mut added_view) = (self.moduli(), self.moduli());
        if let Some((window, _)) = own {
            (call.reads_own, call.own, call.own_stride) = (1, word(window.first), word(window.stride));
            own_view = window.view;
        }
        if let Some(Added { first, second }) = added {
            (call.added, call.added_stride, call.added_second) = (word(first.first), word(first.stride), word(second));
            added_view = first.view;
        }
        let mut rows = Vec::new();
        for (l, (id, &key_limb)) in plan.extended.limbs().iter().zip(&plan.key_limbs).enumerate() {
            let owner = own.and_then(|(_, layout)| (0..count).find_map(|k| layout.own_at(k, l).map(|from| [k + 1, from])));
            let [owner, own_limb] = owner.unwrap_or([0, 0]).map(word);
            rows.push(KeyProductRow { prime: u32::from(id.0), key_limb: word(key_limb), owner, own_limb, key_digit: 0 });
        }
        plan.key_digits.iter().enumerate().for_each(|(k, &digit)| row(&mut rows, k).key_digit = word(digit));
        let parts = self.key_parts(plan, key_shape)?;
        let pairs = Polys { block: held.block(), size: 2 * key_shape.poly_words(), count: key_shape.polys / 2 };
        for (digit, (part, bound)) in parts.iter().enumerate() {
            let window = pairs.window(bound.start, bound.len());
            [call.first_digit, call.end_digit, call.bound_digit] = [part.start, part.end, bound.start].map(word);
            call.adds = u32::from(digit > 0);
            if digit > 0 {
                // It has been added by the first part.
                call.added_stride = 0;
            }
            let args = words(&call, &rows);
            let views = [self.moduli(), digits, window.view, out.view, own_view, added_view];
            self.device.dispatch(Kernel::KeyInnerProduct, &args, &views, [shards, self.tiles(), limbs])?;
        }
        Ok(())
    }

    /// Ranges of the digits, and with each the digits of the key that are bound for it.
    fn key_parts(&self, plan: &GadgetPlan, key: Shape) -> Result<Vec<(Range<usize>, Range<usize>)>> {
        let size = 2 * key.poly_words();
        let most = self.bound_words() / size.max(1);
        if key.polys / 2 <= most {
            return Ok(vec![(0..plan.digits.len(), 0..key.polys / 2)]);
        }
        if most == 0 {
            return Err(BackendError::OutOfMemory { op: Kernel::KeyInnerProduct.row().name, bytes: 4 * size });
        }
        let mut parts: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        for (k, &number) in plan.key_digits.iter().enumerate() {
            if let Some((digits, bound)) = parts.last_mut() {
                let joined = bound.start.min(number)..bound.end.max(number + 1);
                if joined.len() <= most {
                    *bound = joined;
                    digits.end = k + 1;
                    continue;
                }
            }
            parts.push((k..k + 1, number..number + 1));
        }
        Ok(parts)
    }

    /// Ciphertexts times plaintexts on checked arguments: one dispatch, or one for each part of the ciphertexts, the plaintexts
    /// and the outputs where they cannot be bound whole.
    pub(super) fn plain_product(
        &self,
        ct: Polys<'_>,
        plain: Polys<'_>,
        terms: &[Vec<PlainTerm>],
        basis: &Basis,
        (out, add): (&DeviceWords, bool),
    ) -> Result<()> {
        let op = Kernel::PlainInnerProduct.row().name;
        let pairs = |p: Polys<'_>| 2 * p.size;
        // Plaintexts of a lower degree: log2 of how many words each word stands for.
        let repeat = ct.size.checked_div(plain.size).map_or(0, usize::ilog2);
        let outputs = Polys { block: out.block(), size: ct.size, count: 2 * terms.len() };
        let shards = self.batches(ct.count / 2, &[pairs(ct)], 1, op)?;
        let plains = self.batches(plain.count, &[plain.size], 1, op)?;
        for to in self.batches(terms.len(), &[pairs(ct)], 1, op)? {
            let mut add = add;
            let whole = shards.len() == 1 && plains.len() == 1;
            for from in &shards {
                for factors in &plains {
                    let here = |t: &&PlainTerm| from.contains(&t.source) && factors.contains(&t.plain);
                    let lists: Vec<Vec<PlainTerm>> = terms[to.clone()]
                        .iter()
                        .map(|terms| {
                            let near =
                                |t: &PlainTerm| PlainTerm { plain: t.plain - factors.start, source: t.source - from.start };
                            terms.iter().filter(here).map(near).collect()
                        })
                        .collect();
                    if !whole && lists.iter().all(Vec::is_empty) {
                        continue;
                    }
                    let views = [
                        self.moduli(),
                        ct.window(2 * from.start, 2 * from.len()).view,
                        plain.window(factors.start, factors.len()).view,
                        outputs.window(2 * to.start, 2 * to.len()).view,
                    ];
                    self.plain_dispatch(&lists, (add, repeat), basis, &views)?;
                    add = true;
                }
            }
            if !add {
                // No term at all: zeros.
                let views = [self.moduli(), self.moduli(), self.moduli(), outputs.window(2 * to.start, 2 * to.len()).view];
                self.plain_dispatch(&vec![Vec::new(); to.len()], (false, 0), basis, &views)?;
            }
        }
        Ok(())
    }

    fn plain_dispatch(
        &self,
        terms: &[Vec<PlainTerm>],
        (add, repeat): (bool, u32),
        basis: &Basis,
        views: &[View<'_>],
    ) -> Result<()> {
        let [degree, limb_count] = [self.tables.degree(), basis.len()].map(word);
        let call = PlainProduct { degree, limb_count, adds: u32::from(add), log_repeat: repeat };
        let mut rows: Vec<PlainProductRow> = Vec::new();
        basis.limbs().iter().enumerate().for_each(|(l, id)| row(&mut rows, l).prime = u32::from(id.0));
        let mut first = 0;
        for (output, terms) in terms.iter().enumerate() {
            let row = row(&mut rows, output);
            (row.first_term, row.terms) = (word(first), word(terms.len()));
            first += terms.len();
        }
        for (t, term) in terms.iter().flatten().enumerate() {
            let row = row(&mut rows, t);
            (row.plaintext, row.shard) = (word(term.plain), word(term.source));
        }
        let args = words(&call, &rows);
        self.device.dispatch(Kernel::PlainInnerProduct, &args, views, [terms.len(), self.tiles(), basis.len()])
    }

    /// The integers of a source, where they are what is sent.
    pub(super) fn coefficients<'a>(&self, plains: usize, source: &'a dyn PlainSource) -> Option<Coefficients<'a>> {
        let half = self.tables.degree() / 2;
        let fits = |c: &Coefficients<'_>| (c.stored == half || c.stored == 2 * half) && c.values.len() == plains * c.stored;
        source.coefficients().filter(fits)
    }

    /// Sends plaintexts as integers, reduces and transforms them.
    pub(super) fn encode_coefficients(&self, coefficients: Coefficients<'_>, basis: &Basis, out: Polys<'_>) -> Result<()> {
        let op = "encode_plain";
        let (n, Coefficients { values, stored }) = (self.tables.degree(), coefficients);
        let limbs: Vec<_> = basis.limbs().iter().enumerate().map(|(l, &id)| Limb { from: l, to: l, id, factor: 1 }).collect();
        let of_prime = |&l: &LimbId| {
            let m = self.tables.modulus(l);
            // 2^32 f and 2^64 f for f = 2^32.
            let r2 = m.mul(m.r(), m.r());
            ReduceLimb { prime: u32::from(l.0), low: r2, high: m.mul(r2, m.r()) }
        };
        let [degree, limb_count, stored_words] = [n, basis.len(), stored].map(word);
        let rows: Vec<_> = basis.limbs().iter().map(of_prime).collect();
        let args = words(&Reduce { degree, limb_count, stored: stored_words }, &rows);
        for range in self.batches(out.count, &[out.size, 2 * stored], 1, op)? {
            let values = &values[range.start * stored..range.end * stored];
            let sent = self.memory.take(2 * values.len(), op)?;
            self.device.write(sent.block(), values, op)?;
            self.memory.uploaded(8 * values.len() as u64);
            let (count, to) = (range.len(), out.window(range.start, range.len()).view);
            let grid = [self.tiles(), basis.len(), count];
            self.device.dispatch(Kernel::Reduce, &args, &[self.moduli(), sent.view(), to], grid)?;
            self.transform(false, Source::Output, &limbs, (to, out.size), count)?;
        }
        Ok(())
    }

    /// Sums of products with plaintexts that are sent as integers, reduced and transformed on the device, and forgotten.
    pub(super) fn coefficient_product(
        &self,
        ct: Polys<'_>,
        (plains, coefficients): (usize, Coefficients<'_>),
        terms: &[Vec<PlainTerm>],
        basis: &Basis,
        out: &DeviceWords,
    ) -> Result<()> {
        let op = "encoded_inner_product";
        let stored = coefficients.stored;
        let size = basis.len() * self.tables.degree();
        let mut add = false;
        for range in self.batches(plains, &[size, 2 * stored], 1, op)? {
            let count = range.len();
            let values = &coefficients.values[range.start * stored..range.end * stored];
            let plain = self.memory.take(count * size, op)?;
            let polys = Polys { block: plain.block(), size, count };
            self.encode_coefficients(Coefficients { values, stored }, basis, polys)?;
            let near = |t: &PlainTerm| PlainTerm { plain: t.plain - range.start, ..*t };
            let here = |terms: &Vec<PlainTerm>| terms.iter().filter(|t| range.contains(&t.plain)).map(near).collect();
            let lists: Vec<Vec<PlainTerm>> = terms.iter().map(here).collect();
            self.plain_product(ct, polys, &lists, basis, (out, add))?;
            add = true;
        }
        if !add {
            let nothing = Polys { block: out.block(), size, count: 0 };
            self.plain_product(ct, nothing, terms, basis, (out, false))?;
        }
        Ok(())
    }
}

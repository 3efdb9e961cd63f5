//! Sums of products: digits with a key, ciphertexts with plaintexts.

use super::arguments::{PlainProduct, PlainProductRow, Reduce, ReduceLimb, row, words};
use super::commands::View;
use super::memory::DeviceWords;
use super::polys::Polys;
use super::registry::{Kernel, THREADS};
use super::transform::{Limb, Source};
use super::{GpuBackend, word};
use crate::backend::{Coefficients, PlainSource, PlainTerm, Result};
use crate::math::{Basis, LimbId};

impl GpuBackend {
    /// Workgroups of a limb.
    pub(super) fn tiles(&self) -> usize {
        self.tables.degree().div_ceil(THREADS as usize)
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
        let outputs = Polys::of(out, ct.size, 2 * terms.len());
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
            let polys = Polys::of(&plain, size, count);
            self.encode_coefficients(Coefficients { values, stored }, basis, polys)?;
            let near = |t: &PlainTerm| PlainTerm { plain: t.plain - range.start, ..*t };
            let here = |terms: &Vec<PlainTerm>| terms.iter().filter(|t| range.contains(&t.plain)).map(near).collect();
            let lists: Vec<Vec<PlainTerm>> = terms.iter().map(here).collect();
            self.plain_product(ct, polys, &lists, basis, (out, add))?;
            add = true;
        }
        if !add {
            let nothing = Polys::of(out, size, 0);
            self.plain_product(ct, nothing, terms, basis, (out, false))?;
        }
        Ok(())
    }
}

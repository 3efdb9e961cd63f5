//! Sums of products: digits with a key, ciphertexts with plaintexts.

use super::arguments::{PlainProduct, PlainProductRow, Reduce, ReduceLimb, row, words};
use super::commands::View;
use super::memory::DeviceWords;
use super::polys::{Polys, Strip};
use super::registry::{Kernel, THREADS};
use super::transform::{Limb, Source};
use super::{GpuBackend, word};
use crate::backend::{Buffer, Coefficients, PlainSource, PlainTerm, Result, Shape};
use crate::math::{Basis, LimbId};
use std::collections::HashSet;
use std::ops::Range;

/// Integers of plaintexts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whole<'a> {
    /// To be sent.
    Sent(Coefficients<'a>),
    /// On the device, two words each.
    Kept(Polys<'a>),
}

impl Whole<'_> {
    /// Integers of a polynomial.
    fn stored(&self) -> usize {
        match self {
            Self::Sent(coefficients) => coefficients.stored,
            Self::Kept(polys) => polys.size / 2,
        }
    }
    /// Those of some polynomials.
    fn part(&self, range: &Range<usize>) -> Self {
        match *self {
            Self::Sent(Coefficients { values, stored }) => {
                Self::Sent(Coefficients { values: &values[range.start * stored..range.end * stored], stored })
            }
            Self::Kept(polys) => Self::Kept(Polys { first: polys.first + range.start * polys.size, count: range.len(), ..polys }),
        }
    }
}

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
        let log_repeat = ct.size.checked_div(plain.size).map_or(0, usize::ilog2);
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
                    self.plain_dispatch(&lists, add, log_repeat, basis, &views)?;
                    add = true;
                }
            }
            if !add {
                // No term at all: zeros.
                let views = [self.moduli(), self.moduli(), self.moduli(), outputs.window(2 * to.start, 2 * to.len()).view];
                self.plain_dispatch(&vec![Vec::new(); to.len()], false, 0, basis, &views)?;
            }
        }
        Ok(())
    }

    fn plain_dispatch(
        &self,
        terms: &[Vec<PlainTerm>],
        add: bool,
        log_repeat: u32,
        basis: &Basis,
        views: &[View<'_>],
    ) -> Result<()> {
        let [degree, limb_count] = [self.tables.degree(), basis.len()].map(word);
        let call = PlainProduct { degree, limb_count, adds: u32::from(add), log_repeat };
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
        let distinct = |of: &dyn Fn(&PlainTerm) -> usize| terms.iter().flatten().map(of).collect::<HashSet<_>>().len();
        let sources = 2 * (distinct(&|t| t.source) + terms.len() * (1 + usize::from(add)));
        let moved =
            basis.len() * (sources * self.tables.degree() + distinct(&|t| t.plain) * (self.tables.degree() >> log_repeat));
        self.device.dispatch(Kernel::PlainInnerProduct, &args, views, [terms.len(), self.tiles(), basis.len()], moved)
    }

    /// The integers of a source, where they are what is sent.
    pub(super) fn coefficients<'a>(&self, plains: usize, source: &'a dyn PlainSource) -> Option<Coefficients<'a>> {
        let half = self.tables.degree() / 2;
        let fits = |c: &Coefficients<'_>| (c.stored == half || c.stored == 2 * half) && c.values.len() == plains * c.stored;
        source.coefficients().filter(fits)
    }

    /// Sends integers to be kept.
    pub(super) fn send_coefficients(
        &self,
        Coefficients { values, stored }: Coefficients<'_>,
        op: &'static str,
    ) -> Result<Buffer> {
        let shape = Shape::new(values.len() / stored.max(1), 2, stored);
        let out = self.take(shape, op)?;
        self.device.write(out.block(), values, op)?;
        self.memory.uploaded(8 * values.len() as u64);
        Ok(self.made(shape, out))
    }

    /// Makes plaintexts of integers: reduces and transforms them.
    pub(super) fn encode_coefficients(&self, integers: Whole<'_>, basis: &Basis, out: Polys<'_>) -> Result<()> {
        let op = "encode_plain";
        let (n, stored) = (self.tables.degree(), integers.stored());
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
            let (count, to) = (range.len(), out.window(range.start, range.len()).view);
            let grid = [self.tiles(), basis.len(), count];
            let moved = count * (2 * stored + out.size);
            let reduce = |from: View<'_>| self.device.dispatch(Kernel::Reduce, &args, &[self.moduli(), from, to], grid, moved);
            match integers.part(&range) {
                Whole::Sent(coefficients) => reduce(self.read(&self.send_coefficients(coefficients, op)?, op)?.view())?,
                Whole::Kept(polys) => reduce(polys.window(0, count).view)?,
            }
            self.transform(false, Source::Output, &limbs, Strip { view: to, size: out.size }, count)?;
        }
        Ok(())
    }

    /// Sums of products with plaintexts made of integers on the device, and forgotten.
    pub(super) fn coefficient_product(
        &self,
        ct: Polys<'_>,
        (plains, integers): (usize, Whole<'_>),
        terms: &[Vec<PlainTerm>],
        basis: &Basis,
        out: &DeviceWords,
    ) -> Result<()> {
        let op = "encoded_inner_product";
        let stored = integers.stored();
        let size = basis.len() * self.tables.degree();
        let mut add = false;
        for range in self.batches(plains, &[size, 2 * stored], 1, op)? {
            let count = range.len();
            let plain = self.memory.take(count * size, op)?;
            let polys = Polys::of(&plain, size, count);
            self.encode_coefficients(integers.part(&range), basis, polys)?;
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

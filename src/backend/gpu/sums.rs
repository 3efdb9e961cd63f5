//! Sums over several ciphertexts: with constants, and of products.

use super::arguments::{Summation, SummationRow, words};
use super::polys::Polys;
use super::registry::{Kernel, PAIRS, PARTS};
use super::{GpuBackend, word};
use crate::backend::{Buffer, Result};
use crate::math::{Basis, Modulus};

impl GpuBackend {
    /// The rows of some terms, each with a factor of each limb.
    fn summation_rows(&self, terms: usize, basis: &Basis, factor: impl Fn(usize, usize, &Modulus) -> u32) -> Vec<SummationRow> {
        let row = |term: usize, (l, &id): (usize, &crate::math::LimbId)| {
            let m = self.tables.modulus(id);
            let factor = m.to_mont(factor(term, l, m));
            SummationRow { prime: u32::from(id.0), factor, factor_shoup: m.shoup(factor) }
        };
        (0..terms).flat_map(|t| basis.limbs().iter().enumerate().map(move |l| row(t, l))).collect()
    }

    fn summation(&self, terms: usize, adds: bool, basis: &Basis) -> Summation {
        let [degree, limb_count, terms] = [self.tables.degree(), basis.len(), terms].map(word);
        Summation { degree, limb_count, terms, adds: u32::from(adds), output: 0 }
    }

    /// [`crate::backend::Backend::linear_combination`] on checked arguments, to the polynomials of `to` from `first` on: one dispatch for
    /// five parts.
    pub(super) fn combine(
        &self,
        parts: &[&Buffer],
        constants: &[Vec<u32>],
        basis: &Basis,
        (to, first): (Polys<'_>, usize),
    ) -> Result<()> {
        let op = Kernel::LinearCombination.row().name;
        let shape = parts[0].shape();
        let parts = parts.iter().map(|p| self.polys(p, op)).collect::<Result<Vec<_>>>()?;
        const MOST: usize = PARTS as usize;
        for (i, (parts, constants)) in parts.chunks(MOST).zip(constants.chunks(MOST)).enumerate() {
            let rows = self.summation_rows(parts.len(), basis, |k, l, _| constants[k][l]);
            let call = self.summation(parts.len(), i > 0, basis);
            for range in self.batches(shape.polys, &[shape.poly_words()], 1, op)? {
                let target = to.window(first + range.start, range.len());
                let args = words(&Summation { output: word(target.first), ..call }, &rows);
                let mut views = vec![self.moduli()];
                // The last is bound again and not read, where there are fewer.
                let bound = (0..MOST).map(|k| parts[k.min(parts.len() - 1)]);
                views.extend(bound.map(|p| p.window(range.start, range.len()).view));
                views.push(target.view);
                self.device.dispatch(Kernel::LinearCombination, &args, &views, self.grid(shape.limbs, range.len()))?;
            }
        }
        Ok(())
    }

    /// [`crate::backend::Backend::tensor_sum`] on checked arguments, to the shards of `to` from `first` on: one dispatch for two pairs.
    /// A pair that is there several times is read once.
    pub(super) fn multiply_pairs(
        &self,
        pairs: &[(&Buffer, &Buffer)],
        basis: &Basis,
        (to, first): (Polys<'_>, usize),
    ) -> Result<()> {
        let op = Kernel::TensorSum.row().name;
        let shape = pairs[0].0.shape();
        let mut different: Vec<((&Buffer, &Buffer), u32)> = Vec::new();
        for &(a, b) in pairs {
            match different.iter_mut().find(|((c, d), _)| std::ptr::eq(a, *c) && std::ptr::eq(b, *d)) {
                Some((_, times)) => *times += 1,
                None => different.push(((a, b), 1)),
            }
        }
        for (i, pairs) in different.chunks(PAIRS as usize).enumerate() {
            let operands = pairs.iter().flat_map(|((a, b), _)| [a, b]);
            let operands = operands.map(|x| self.polys(x, op)).collect::<Result<Vec<_>>>()?;
            let rows = self.summation_rows(pairs.len(), basis, |k, _, m| pairs[k].1 % m.value());
            let call = self.summation(pairs.len(), i > 0, basis);
            for range in self.batches(shape.polys / 2, &[2 * shape.poly_words(), 3 * shape.poly_words()], 1, op)? {
                let (start, count) = (range.start, range.len());
                let target = to.window(3 * (first + start), 3 * count);
                let args = words(&Summation { output: word(target.first), ..call }, &rows);
                let mut views = vec![self.moduli()];
                // Bound and not read, where there is one pair.
                views.extend((0..2 * PAIRS as usize).map(|k| operands[k % operands.len()].window(2 * start, 2 * count).view));
                views.push(target.view);
                self.device.dispatch(Kernel::TensorSum, &args, &views, self.grid(shape.limbs, count))?;
            }
        }
        Ok(())
    }
}

//! Sums over several ciphertexts: with constants, and of products; where an adapter binds as many buffers, several sums at once.

use super::arguments::{Summation, SummationRow, words};
use super::commands::View;
use super::polys::{Polys, Window};
use super::registry::{Kernel, OPERANDS, PAIRS, PARTS};
use super::{GpuBackend, word};
use crate::backend::{Buffer, Combination, Result, Shape};
use crate::math::{Basis, Modulus};

/// The number of a buffer among those that are read, new ones at the end.
fn number_of<'a>(operands: &mut Vec<&'a Buffer>, buffer: &'a Buffer) -> usize {
    operands.iter().position(|known| std::ptr::eq(*known, buffer)).unwrap_or_else(|| {
        operands.push(buffer);
        operands.len() - 1
    })
}

/// Pairs that are there once, and how often each is summed.
fn different<'a>(pairs: &[(&'a Buffer, &'a Buffer)]) -> Vec<((&'a Buffer, &'a Buffer), u32)> {
    let mut different: Vec<((&Buffer, &Buffer), u32)> = Vec::new();
    for &(a, b) in pairs {
        match different.iter_mut().find(|((c, d), _)| std::ptr::eq(a, *c) && std::ptr::eq(b, *d)) {
            Some((_, times)) => *times += 1,
            None => different.push(((a, b), 1)),
        }
    }
    different
}

impl GpuBackend {
    /// The rows of some terms, each with a factor of each limb.
    fn summation_rows(&self, terms: usize, basis: &Basis, factor: impl Fn(usize, usize, &Modulus) -> u32) -> Vec<SummationRow> {
        let row = |term: usize, (l, &id): (usize, &crate::math::LimbId)| {
            let m = self.tables.modulus(id);
            let factor = m.to_mont(factor(term, l, m));
            SummationRow { prime: u32::from(id.0), factor, factor_shoup: m.shoup(factor), ..Default::default() }
        };
        (0..terms).flat_map(|t| basis.limbs().iter().enumerate().map(move |l| row(t, l))).collect()
    }

    fn summation(&self, terms: usize, adds: bool, basis: &Basis) -> Summation {
        let [degree, limb_count, terms] = [self.tables.degree(), basis.len(), terms].map(word);
        Summation { degree, limb_count, terms, adds: u32::from(adds), ..Default::default() }
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
                let moved = (parts.len() + 1 + usize::from(i > 0)) * range.len() * shape.poly_words();
                self.device.dispatch(Kernel::LinearCombination, &args, &views, self.grid(shape.limbs, range.len()), moved)?;
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
        for (i, pairs) in different(pairs).chunks(PAIRS as usize).enumerate() {
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
                let moved = (4 * pairs.len() + 3 + 3 * usize::from(i > 0)) * count * shape.poly_words();
                self.device.dispatch(Kernel::TensorSum, &args, &views, self.grid(shape.limbs, count), moved)?;
            }
        }
        Ok(())
    }

    /// Whether several sums can be made at once, and bound whole: `polys` polynomials of a shape are written.
    fn makes_several(&self, sums: usize, polys: usize, shape: Shape, op: &'static str) -> Result<bool> {
        let bound = self.device.limits().storage_buffers >= Kernel::TensorSums.storage_buffers();
        Ok(sums > 1
            && bound
            && polys * shape.poly_words() <= self.bound_words()
            && self.batches(shape.polys, &[shape.poly_words()], 1, op)?.len() == 1)
    }

    /// What is bound for so many operands; the last again, and not read, where there are fewer.
    fn operand_views<'a>(&'a self, operands: &[Polys<'a>], out: Window<'a>) -> Vec<View<'a>> {
        // In the order of the kernels' rows: the output stands where it does for kernels of five operands.
        let mut views = vec![self.moduli()];
        views.extend((0..OPERANDS as usize).map(|k| operands[k.min(operands.len() - 1)]).map(|p| p.window(0, p.count).view));
        views.insert(1 + PARTS as usize, out.view);
        views
    }

    /// [`crate::backend::Backend::linear_combinations`] on checked arguments: one dispatch for twelve ciphertexts, however many sums.
    pub(super) fn combine_all(&self, sums: &[Combination<'_>], shape: Shape, basis: &Basis, to: Polys<'_>) -> Result<()> {
        let op = Kernel::LinearCombinations.row().name;
        if !self.makes_several(sums.len(), to.count, shape, op)? {
            let each = |(i, s): (usize, &Combination<'_>)| self.combine(&s.parts, &s.constants, basis, (to, i * shape.polys));
            return sums.iter().enumerate().try_for_each(each);
        }
        let mut operands = Vec::new();
        // A part that a sum has several times, and those that it has not.
        let mut factors: Vec<Vec<(usize, &[u32])>> = Vec::with_capacity(sums.len());
        for sum in sums {
            let numbered = sum.parts.iter().zip(&sum.constants);
            factors.push(numbered.map(|(part, constants)| (number_of(&mut operands, part), &constants[..])).collect());
        }
        let operands = operands.into_iter().map(|p| self.polys(p, op)).collect::<Result<Vec<_>>>()?;
        let target = to.window(0, to.count);
        for (i, bound) in operands.chunks(OPERANDS as usize).enumerate() {
            let first = i * OPERANDS as usize;
            let factor = |row: usize, l: usize, m: &Modulus| {
                let (sum, part) = (row / bound.len(), first + row % bound.len());
                let of_part = factors[sum].iter().filter(|(number, _)| *number == part);
                of_part.fold(0, |all, (_, constants)| m.add(all, constants[l]))
            };
            let rows = self.summation_rows(sums.len() * bound.len(), basis, factor);
            let call = Summation {
                output: word(target.first),
                sums: word(sums.len()),
                sum_stride: word(shape.words()),
                ..self.summation(bound.len(), i > 0, basis)
            };
            let views = self.operand_views(bound, target);
            let moved = (bound.len() + sums.len() * (1 + usize::from(i > 0))) * shape.words();
            let grid = self.grid(shape.limbs, shape.polys);
            self.device.dispatch(Kernel::LinearCombinations, &words(&call, &rows), &views, grid, moved)?;
        }
        Ok(())
    }

    /// [`crate::backend::Backend::tensor_sums`] on checked arguments: one dispatch for the sums that twelve ciphertexts make.
    pub(super) fn multiply_all(
        &self,
        sums: &[Vec<(&Buffer, &Buffer)>],
        shape: Shape,
        basis: &Basis,
        to: Polys<'_>,
    ) -> Result<()> {
        let op = Kernel::TensorSums.row().name;
        let shards = shape.polys / 2;
        let several = self.makes_several(sums.len(), to.count, shape, op)?;
        let mut next = 0;
        while next < sums.len() {
            let mut operands: Vec<&Buffer> = Vec::new();
            // (ciphertexts, how often, whether the sum ends) of each pair.
            let mut terms: Vec<([usize; 2], u32, bool)> = Vec::new();
            let mut taken = 0;
            for pairs in sums[next..].iter().take(if several { sums.len() } else { 0 }) {
                let mut more = operands.clone();
                let numbered =
                    different(pairs).into_iter().map(|((a, b), times)| ([a, b].map(|x| number_of(&mut more, x)), times, false));
                let mut numbered: Vec<_> = numbered.collect();
                if more.len() > OPERANDS as usize {
                    break;
                }
                numbered.last_mut().into_iter().for_each(|last| last.2 = true);
                terms.extend(numbered);
                (operands, taken) = (more, taken + 1);
            }
            if taken < 2 {
                self.multiply_pairs(&sums[next], basis, (to, next * shards))?;
                next += 1;
                continue;
            }
            let operands = operands.into_iter().map(|x| self.polys(x, op)).collect::<Result<Vec<_>>>()?;
            let mut rows = self.summation_rows(terms.len(), basis, |t, _, m| terms[t].1 % m.value());
            for (row, &([first, second], _, ends)) in rows.chunks_mut(basis.len()).zip(&terms) {
                (row[0].first, row[0].second, row[0].ends) = (word(first), word(second), u32::from(ends));
            }
            let target = to.window(3 * next * shards, 3 * taken * shards);
            let call = Summation {
                output: word(target.first),
                sum_stride: word(3 * shards * shape.poly_words()),
                ..self.summation(terms.len(), false, basis)
            };
            let views = self.operand_views(&operands, target);
            let (grid, moved) = (self.grid(shape.limbs, shards), (2 * operands.len() + 3 * taken) * shards * shape.poly_words());
            self.device.dispatch(Kernel::TensorSums, &words(&call, &rows), &views, grid, moved)?;
            next += taken;
        }
        Ok(())
    }
}

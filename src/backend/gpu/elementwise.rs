//! Word-by-word kernels.

use super::arguments::{Elementwise, ElementwiseLimb, words};
use super::polys::{Polys, part};
use super::registry::{Kernel, THREADS};
use super::{GpuBackend, word};
use crate::backend::{Buffer, PolySelect, Result};
use crate::math::{Basis, BasisChange, LimbId};

/// What is added to selected polynomials.
#[derive(Debug, Clone, Copy)]
pub(super) enum Addend<'a> {
    /// `[run of polynomials][limb]`.
    Constants(&'a [u32]),
    /// Polynomials, in turn.
    Plain(&'a Buffer),
}

impl GpuBackend {
    pub(super) fn grid(&self, limbs: usize, z: usize) -> [usize; 3] {
        [self.tables.degree().div_ceil(THREADS as usize), limbs, z]
    }

    /// What all these kernels are told, and of each limb; `constants` are none, or one for each, or as many for each of several runs.
    fn of_limbs(&self, basis: &Basis, constants: &[u32]) -> (Elementwise, Vec<ElementwiseLimb>) {
        let call = Elementwise { degree: word(self.tables.degree()), limb_count: word(basis.len()), ..Default::default() };
        let runs = (constants.len() / basis.len().max(1)).max(1);
        let limb = |(i, &l): (usize, &LimbId)| {
            let constant = constants.get(i).copied().unwrap_or(0);
            let constant_shoup = self.tables.modulus(l).shoup(constant);
            ElementwiseLimb { prime: u32::from(l.0), constant, constant_shoup, a_limb: 0 }
        };
        (call, basis.limbs().iter().cycle().take(runs * basis.len()).enumerate().map(limb).collect())
    }

    /// A kernel from one or two buffers of a shape to a new one, polynomial by polynomial.
    pub(super) fn map(&self, kernel: Kernel, inputs: &[&Buffer], constants: &[u32], basis: &Basis) -> Result<Buffer> {
        let op = kernel.row().name;
        let shape = inputs[0].shape();
        let inputs = inputs.iter().map(|b| self.polys(b, op)).collect::<Result<Vec<_>>>()?;
        let out = self.take(shape, op)?;
        let to = Polys::new(&out, shape);
        let (call, limbs) = self.of_limbs(basis, constants);
        let args = words(&call, &limbs);
        for range in self.batches(shape.polys, &[shape.poly_words()], 1, op)? {
            let views = inputs.iter().chain([&to]).map(|p| p.window(range.start, range.len()).view);
            let views: Vec<_> = std::iter::once(self.moduli()).chain(views).collect();
            let moved = (inputs.len() + 1) * range.len() * shape.poly_words();
            self.device.dispatch(kernel, &args, &views, self.grid(shape.limbs, range.len()), moved)?;
        }
        Ok(self.made(shape, out))
    }

    /// Adds to the selected polynomials of a buffer in place.
    pub(super) fn add_in_place(
        &self,
        a: &Buffer,
        select: PolySelect,
        addend: Addend<'_>,
        basis: &Basis,
        op: &'static str,
    ) -> Result<()> {
        let to = self.polys(a, op)?;
        let (constants, plain) = match addend {
            Addend::Constants(constants) => (constants, None),
            Addend::Plain(plain) => (&[][..], Some(self.polys(plain, op)?)),
        };
        // Few plaintexts serve all polynomials in turn and are bound whole; else each has its own.
        let turns = plain.is_some_and(|p| p.count < select.count);
        for range in self.batches(select.count, &[to.size * select.stride.max(1), to.size], 1, op)? {
            let window = to.select(part(select, &range));
            let grid = self.grid(basis.len(), range.len());
            let words_changed = range.len() * to.size;
            let (call, limbs) = self.of_limbs(basis, constants);
            let call = Elementwise { output: word(window.first), output_stride: word(window.stride), ..call };
            match &plain {
                None => {
                    let run = select.count / (constants.len() / basis.len().max(1)).max(1);
                    let args = words(&Elementwise { b_polys: word(run.max(1)), first: word(range.start), ..call }, &limbs);
                    let views = [self.moduli(), window.view];
                    self.device.dispatch(Kernel::AddConstantAssign, &args, &views, grid, 2 * words_changed)?;
                }
                Some(plain) => {
                    let (b, first) = if turns {
                        (plain.window(0, plain.count), range.start)
                    } else {
                        (plain.window(range.start, range.len()), 0)
                    };
                    let b_polys = word(if turns { plain.count } else { range.len() });
                    let args = words(&Elementwise { b_polys, first: word(first), ..call }, &limbs);
                    let moved = 2 * words_changed + plain.count.min(range.len()) * plain.size;
                    self.device.dispatch(Kernel::AddAssign, &args, &[self.moduli(), b.view, window.view], grid, moved)?;
                }
            }
        }
        Ok(())
    }

    /// Shards times plaintexts.
    pub(super) fn multiply_plain(&self, a: &Buffer, plain: &Buffer, basis: &Basis, op: &'static str) -> Result<Buffer> {
        let shape = a.shape();
        let (from, plain) = (self.polys(a, op)?, self.polys(plain, op)?);
        let out = self.take(shape, op)?;
        let to = Polys::new(&out, shape);
        let turns = plain.count < shape.polys / 2;
        for range in self.batches(shape.polys / 2, &[2 * shape.poly_words()], 2, op)? {
            let (first, count) = (2 * range.start, 2 * range.len());
            let (b, base) =
                if turns { (plain.window(0, plain.count), first) } else { (plain.window(range.start, range.len()), 0) };
            let b_polys = word(if turns { plain.count } else { range.len() });
            let (call, limbs) = self.of_limbs(basis, &[]);
            let args = words(&Elementwise { b_polys, first: word(base), ..call }, &limbs);
            let views = [self.moduli(), from.window(first, count).view, b.view, to.window(first, count).view];
            let moved = 2 * count * from.size + plain.count.min(range.len()) * plain.size;
            self.device.dispatch(Kernel::MulPlain, &args, &views, self.grid(shape.limbs, count), moved)?;
        }
        Ok(self.made(shape, out))
    }

    /// A division where nothing is dropped, of all polynomials of `src` into the first ones of `to`.
    pub(super) fn multiply_kept(&self, src: Polys<'_>, limbs: usize, change: &BasisChange, to: Polys<'_>) -> Result<()> {
        let op = Kernel::MultiplyKept.row().name;
        let (call, mut rows) = self.of_limbs(&change.target, &change.keep);
        for (row, position) in rows.iter_mut().zip(&change.source_position) {
            row.a_limb = word(position.map_or(0, |p| p + 1));
        }
        for range in self.batches(src.count, &[src.size, to.size], 1, op)? {
            let [from, to] = [src, to].map(|polys| polys.window(range.start, range.len()));
            let call = Elementwise { output: word(to.first), a: word(from.first), a_limbs: word(limbs), ..call };
            let args = words(&call, &rows);
            let views = [self.moduli(), from.view, to.view];
            let grid = self.grid(change.target.len(), range.len());
            self.device.dispatch(
                Kernel::MultiplyKept,
                &args,
                &views,
                grid,
                range.len() * (src.size + change.target.len() * self.tables.degree()),
            )?;
        }
        Ok(())
    }
}

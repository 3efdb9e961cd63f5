//! Base conversions, and the composites made of them: mod_up, change_basis.

use super::arguments::{Convert, Permute, PermuteLimb, words};
use super::commands::View;
use super::polys::{Polys, Strip, Window, part};
use super::registry::{self, Kernel, THREADS};
use super::transform::{Limb, RotationTail, Source, Tail};
use super::{GpuBackend, word};
use crate::backend::check::DigitLayout;
use crate::backend::{Buffer, KeySwitchTables, PolySelect, Result, Shape};
use crate::math::{BaseConversion, BasisChange, RnsTables};

/// Target limbs of a block.
const BLOCK: usize = registry::BLOCK as usize;

/// One conversion of the limbs from `first` on of the scaled source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job<'a> {
    pub conversion: &'a BaseConversion,
    pub first: usize,
    /// For each target limb, its place in the output.
    pub targets: &'a [usize],
    /// For each target limb what becomes of it in a division; empty where it is written as it is.
    pub differences: &'a [Difference],
}

/// A target limb of a division that digits follow: `y = kept - converted tail`, and `y factor`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Difference {
    /// The limb of the source that is kept, multiplied already.
    kept: usize,
    tail: u32,
    /// What the next conversion multiplies its source by, and the limb of that.
    factor: u32,
    next: usize,
}

/// The rows of some conversions, in fours.
fn rows(tables: &RnsTables, jobs: &[Job<'_>]) -> Vec<[u32; 4]> {
    let blocks: usize = jobs.iter().map(|j| j.targets.len().div_ceil(BLOCK)).sum();
    let mut heads = Vec::new();
    let mut rows: Vec<[u32; 4]> = Vec::new();
    for job in jobs {
        let c = job.conversion;
        let from = c.from.len();
        for first in (0..job.targets.len()).step_by(BLOCK) {
            let end = job.targets.len().min(first + BLOCK);
            heads.push([job.first, from, end - first, blocks + rows.len()].map(word));
            // Rows past the last target repeat it.
            let target: [usize; BLOCK] = std::array::from_fn(|t| (first + t).min(end - 1));
            rows.extend(target.map(|t| {
                let m = tables.modulus(c.to.limbs()[t]);
                [m.value(), m.q_inv(), word(job.targets[t]), word(job.differences.get(t).map_or(0, |d| d.kept))]
            }));
            let times = |t: usize, constant: u32| match job.differences.get(t) {
                Some(d) => tables.modulus(c.to.limbs()[t]).mul(constant, d.tail),
                None => constant,
            };
            let mut term = |reciprocal: u32, factors: [u32; BLOCK]| {
                let [a, b, c, d, e, f, g, h] = factors;
                rows.extend([[reciprocal, 0, 0, 0], [a, b, c, d], [e, f, g, h]]);
            };
            term(0, target.map(|t| times(t, c.neg_product[t])));
            for i in 0..from {
                term(c.reciprocal[i], target.map(|t| times(t, c.matrix[t * from + i])));
            }
            if !job.differences.is_empty() {
                rows.extend(target.map(|t| {
                    let Difference { factor, next, .. } = job.differences[t];
                    [factor, tables.modulus(c.to.limbs()[t]).shoup(factor), word(next), 0]
                }));
            }
        }
    }
    heads.extend(rows);
    heads
}

impl GpuBackend {
    /// Converts scaled limbs of `count` polynomials.
    pub(super) fn convert(&self, jobs: &[Job<'_>], scaled: Strip<'_>, out: Strip<'_>, count: usize) -> Result<()> {
        let [degree, source_stride, output_stride] = [self.tables.degree(), scaled.size, out.size].map(word);
        let args = words(&Convert { degree, source_stride, output_stride, next_stride: 0 }, &rows(&self.tables, jobs));
        let limbs: usize = jobs.iter().map(|job| job.conversion.from.len() + job.targets.len()).sum();
        let moved = count * limbs * self.tables.degree();
        self.device.dispatch(Kernel::Convert, &args, &[scaled.view, out.view], self.conversion_grid(jobs, count), moved)
    }

    fn conversion_grid(&self, jobs: &[Job<'_>], count: usize) -> [usize; 3] {
        let blocks = jobs.iter().map(|j| j.targets.len().div_ceil(BLOCK)).sum();
        [self.tables.degree().div_ceil(THREADS as usize), blocks, count]
    }

    /// Permutes limbs `[from, to]` of `count` polynomials by a Galois element.
    pub(super) fn permute(
        &self,
        from: Window<'_>,
        out: Strip<'_>,
        galois: u32,
        limbs: &[[usize; 2]],
        count: usize,
    ) -> Result<()> {
        let n = self.tables.degree();
        let [degree, source, source_stride, output_stride] = [n, from.first, from.stride, out.size].map(word);
        let call = Permute { degree, log_degree: self.tables.log_n(), galois, source, source_stride, output_stride };
        let places: Vec<_> =
            limbs.iter().map(|limb| limb.map(word)).map(|[source, output]| PermuteLimb { source, output }).collect();
        let args = words(&call, &places);
        let grid = [n.div_ceil(THREADS as usize), limbs.len(), count];
        self.device.dispatch(Kernel::Permute, &args, &[from.view, out.view], grid, 2 * limbs.len() * count * n)
    }

    /// The converted limbs of the digits of `count` polynomials, transformed, to `out`, `[polynomial][digit][extended limb]`; a
    /// digit's own limbs are left as they are. Three dispatches, five where transforms take two, whatever the count.
    pub(super) fn mod_up_into(
        &self,
        from: Window<'_>,
        plan: &KeySwitchTables,
        layout: &DigitLayout,
        out: View<'_>,
        count: usize,
    ) -> Result<()> {
        let op = "mod_up";
        let (extended, n) = (plan.extended.len(), self.tables.degree());
        let size = plan.digits.len() * extended * n;
        let places: Vec<Vec<usize>> =
            layout.converted.iter().enumerate().map(|(k, c)| c.iter().map(|&l| k * extended + l).collect()).collect();
        let (jobs, limbs) = Self::digit_jobs(plan, layout, &places);
        let scaled_shape = Shape::new(count, limbs.len(), n);
        let scaled = self.take(scaled_shape, op)?;
        let (scaled, out) = (Strip { view: scaled.view(), size: scaled_shape.poly_words() }, Strip { view: out, size });
        self.transform(true, Source::Other(from), &limbs, scaled, count)?;
        self.convert(&jobs, scaled, out, count)?;
        let converted = plan.mod_up.iter().zip(&places).flat_map(|(c, places)| c.to.limbs().iter().zip(places));
        let limbs: Vec<_> = converted.map(|(&id, &place)| Limb { from: place, to: place, id, factor: 1 }).collect();
        self.transform(false, Source::Output, &limbs, out, count)
    }

    /// The conversions of all digits to these places, and the limbs of the window that they read, digit by digit, scaled.
    fn digit_jobs<'a>(plan: &'a KeySwitchTables, layout: &DigitLayout, places: &'a [Vec<usize>]) -> (Vec<Job<'a>>, Vec<Limb>) {
        let mut limbs = Vec::new();
        let mut jobs = Vec::new();
        for (k, conversion) in plan.mod_up.iter().enumerate() {
            jobs.push(Job { conversion, first: limbs.len(), targets: &places[k], differences: &[] });
            for (i, &(from, _)) in layout.own[k].iter().enumerate() {
                limbs.push(Limb { from, to: limbs.len(), id: conversion.from.limbs()[i], factor: conversion.inv_hat[i] });
            }
        }
        (jobs, limbs)
    }

    /// The digits of `count` polynomials over the extended basis divided by P, `[polynomial][digit][extended limb]`, whole. The division
    /// ends in coefficient domain, where the digits are cut: six dispatches where transforms take two, instead of ten.
    pub(super) fn divided_digits_into(
        &self,
        from: Window<'_>,
        plan: &KeySwitchTables,
        layout: &DigitLayout,
        positions: &[usize],
        out: View<'_>,
        count: usize,
    ) -> Result<()> {
        let op = "mod_up";
        let (change, extended, n) = (&plan.mod_down, plan.extended.len(), self.tables.degree());
        let size = plan.digits.len() * extended * n;
        let places: Vec<Vec<usize>> =
            layout.converted.iter().enumerate().map(|(k, c)| c.iter().map(|&l| k * extended + l).collect()).collect();
        let (jobs, scaled) = Self::digit_jobs(plan, layout, &places);
        let dropped = positions.len();
        let inverse = |(d, &from): (usize, &usize)| {
            let id = change.dropped.limbs()[d];
            Limb { from, to: d, id, factor: change.conversion.inv_hat[d] }
        };
        let mut limbs: Vec<_> = positions.iter().enumerate().map(inverse).collect();
        // By place in the window, as the division's target is.
        let mut targets = vec![0; change.target.len()];
        let mut differences = vec![Difference { kept: 0, tail: 0, factor: 0, next: 0 }; targets.len()];
        let owned = layout.own.iter().enumerate().flat_map(|(k, own)| own.iter().map(move |&(_, to)| k * extended + to));
        for (limb, place) in scaled.iter().zip(owned) {
            let (at, next) = (limb.from, limb.to);
            let kept =
                change.source_position[at].map(|from| Limb { from, to: dropped + next, id: limb.id, factor: change.keep[at] });
            limbs.extend(kept);
            targets[at] = place;
            differences[at] = Difference { kept: dropped + next, tail: change.tail[at], factor: limb.factor, next };
        }
        let (part_size, next_size) = (limbs.len() * n, scaled.len() * n);
        let [parts, next] = [self.memory.take(count * part_size, op)?, self.memory.take(count * next_size, op)?];
        let parts = Strip { view: parts.view(), size: part_size };
        let next = Strip { view: next.view(), size: next_size };
        let out = Strip { view: out, size };
        self.transform(true, Source::Other(from), &limbs, parts, count)?;
        let division = [Job { conversion: &change.conversion, first: 0, targets: &targets, differences: &differences }];
        let [degree, source_stride, output_stride, next_stride] = [n, parts.size, out.size, next.size].map(word);
        let call = Convert { degree, source_stride, output_stride, next_stride };
        let args = words(&call, &rows(&self.tables, &division));
        let views = [parts.view, out.view, next.view];
        let moved = count * n * (dropped + 3 * targets.len());
        self.device.dispatch(Kernel::ConvertDivide, &args, &views, self.conversion_grid(&division, count), moved)?;
        self.convert(&jobs, next, out, count)?;
        let all = (0..plan.digits.len())
            .flat_map(|k| plan.extended.limbs().iter().enumerate().map(move |(l, &id)| (k * extended + l, id)));
        let limbs: Vec<_> = all.map(|(place, id)| Limb { from: place, to: place, id, factor: 1 }).collect();
        self.transform(false, Source::Output, &limbs, out, count)
    }

    /// [`crate::backend::Kernels::mod_up`] on checked arguments.
    pub(super) fn mod_up_words(
        &self,
        src: Polys<'_>,
        select: PolySelect,
        plan: &KeySwitchTables,
        layout: &DigitLayout,
    ) -> Result<Buffer> {
        let op = "mod_up";
        let (extended, digits) = (plan.extended.len(), plan.digits.len());
        let shape = Shape::new(select.count * digits, extended, self.tables.degree());
        let size = digits * shape.poly_words();
        let own: Vec<_> = layout
            .own
            .iter()
            .enumerate()
            .flat_map(|(k, own)| own.iter().map(move |&(from, to)| [from, k * extended + to]))
            .collect();
        let out = self.take(shape, op)?;
        let to = Polys::of(&out, size, select.count);
        for range in self.batches(select.count, &[size, src.size * select.stride.max(1), src.size], 1, op)? {
            let from = src.select(part(select, &range));
            let view = to.window(range.start, range.len()).view;
            self.mod_up_into(from, plan, layout, view, range.len())?;
            self.permute(from, Strip { view, size }, 1, &own, range.len())?;
        }
        Ok(self.made(shape, out))
    }

    /// Divides selected polynomials into the first ones of `out`.
    pub(super) fn change_basis_into(
        &self,
        src: Polys<'_>,
        select: PolySelect,
        division: &Division<'_>,
        out: Polys<'_>,
    ) -> Result<()> {
        let op = "change_basis";
        let &Division { change, positions, rotations, constants } = division;
        let n = self.tables.degree();
        let [dropped, target] = [change.dropped.len() * n, change.target.len() * n];
        let limbs: Vec<_> = positions
            .iter()
            .enumerate()
            .map(|(d, &from)| Limb { from, to: d, id: change.dropped.limbs()[d], factor: change.conversion.inv_hat[d] })
            .collect();
        let targets: Vec<_> = (0..change.target.len()).collect();
        let job = Job { conversion: &change.conversion, first: 0, targets: &targets, differences: &[] };
        for range in self.batches(select.count, &[src.size * select.stride.max(1), src.size, target], 1, op)? {
            let count = range.len();
            let from = src.select(part(select, &range));
            let scaled = self.memory.take(count * dropped, op)?;
            let u = self.memory.take(count * target, op)?;
            let scaled = Strip { view: scaled.view(), size: dropped };
            let u = Strip { view: u.view(), size: target };
            self.transform(true, Source::Other(from), &limbs, scaled, count)?;
            let start = if self.converts_few(change.dropped.len()) {
                Source::Converted(Window { view: scaled.view, first: 0, stride: scaled.size }, &change.conversion)
            } else {
                self.convert(&[job], scaled, u, count)?;
                Source::Output
            };
            let rotation = rotations.map(|r| RotationTail {
                inverses: r.inverses,
                polys: 2 * r.shards,
                added: r.ct.select(PolySelect { first: 2 * r.first, stride: 2, count: r.shards }),
            });
            let constants = select.count.checked_div(constants.len()).map(|polys| (constants, polys));
            let tail = Tail { change, kept: from, rotation, constants, first: range.start };
            self.transform_divide(start, u, &tail, out.window(range.start, count), count)?;
        }
        Ok(())
    }

    /// [`crate::backend::Kernels::change_basis`] on checked arguments.
    pub(super) fn change_basis_words(
        &self,
        src: Polys<'_>,
        limbs: usize,
        change: &BasisChange,
        positions: &[usize],
        constants: &[Vec<u32>],
    ) -> Result<Buffer> {
        let shape = Shape::new(src.count, change.target.len(), self.tables.degree());
        let out = self.take(shape, "change_basis")?;
        let to = Polys::new(&out, shape);
        if change.dropped.is_empty() {
            self.multiply_kept(src, limbs, change, to)?;
        } else {
            self.change_basis_into(src, src.all(), &Division { change, positions, rotations: None, constants }, to)?;
        }
        Ok(self.made(shape, out))
    }
}

/// A division of products or of other ciphertexts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Division<'a> {
    pub change: &'a BasisChange,
    /// Of the dropped limbs in the source.
    pub positions: &'a [usize],
    /// What follows it, where products of rotations are divided.
    pub rotations: Option<&'a Rotations<'a>>,
    /// What first halves add: nothing, or `[run][limb]` for each run of as many polynomials.
    pub constants: &'a [Vec<u32>],
}

/// Rotations whose products are divided: `[rotation][shard][2]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotations<'a> {
    /// Inverses of their Galois elements.
    pub inverses: &'a [u32],
    /// The ciphertexts whose first halves are added, `[shard][2]`.
    pub ct: Polys<'a>,
    /// The first of their shards, and how many.
    pub first: usize,
    pub shards: usize,
}

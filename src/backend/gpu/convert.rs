//! Base conversions, and the composites made of them: mod_up, change_basis.

use super::memory::DeviceWords;
use super::registry::{Kernel, THREADS};
use super::transform::{Limb, Source};
use super::{GpuBackend, ROWS, word};
use crate::backend::check::DigitLayout;
use crate::backend::{Buffer, GadgetPlan, PolySelect, Result, Shape};
use crate::math::{BaseConversion, BasisChange};

/// Target limbs of a block.
const BLOCK: usize = 8;

/// One conversion of the limbs from `first` on of the scaled source.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    pub conversion: &'a BaseConversion,
    pub first: usize,
    /// For each target limb, its place in the output.
    pub targets: &'a [usize],
}

/// The arguments of some conversions, and how many blocks of targets they have.
fn arguments(jobs: &[Job<'_>], degree: usize, sizes: [usize; 2]) -> (Vec<u32>, usize) {
    let blocks: usize = jobs.iter().map(|j| j.targets.len().div_ceil(BLOCK)).sum();
    let mut args = vec![word(degree), word(sizes[0]), word(sizes[1])];
    args.resize(ROWS, 0);
    let mut rows = Vec::new();
    let tables = ROWS + 8 * blocks;
    for job in jobs {
        let c = job.conversion;
        let from = c.from.len();
        let reciprocals = tables + rows.len();
        rows.extend_from_slice(&c.reciprocal);
        for first in (0..job.targets.len()).step_by(BLOCK) {
            let block = first..job.targets.len().min(first + BLOCK);
            let targets = tables + rows.len();
            rows.extend(block.clone().flat_map(|j| [u32::from(c.to.limbs()[j].0), word(job.targets[j])]));
            let matrix = tables + rows.len();
            // Rows past the last target repeat it.
            let target = |t: usize| (first + t).min(block.end - 1);
            rows.extend((0..BLOCK).map(|t| c.neg_product[target(t)]));
            for i in 0..from {
                rows.extend((0..BLOCK).map(|t| c.matrix[target(t) * from + i]));
            }
            args.extend([job.first, from, block.len(), reciprocals, targets, matrix, 0, 0].map(word));
        }
    }
    args.extend(rows);
    (args, blocks)
}

impl GpuBackend {
    /// Converts scaled limbs of `polys` polynomials: `(buffer, words of a polynomial)` to the same.
    pub(super) fn convert(
        &self,
        jobs: &[Job<'_>],
        (scaled, scaled_size): (&wgpu::Buffer, usize),
        (out, size): (&DeviceWords, usize),
        polys: usize,
    ) -> Result<()> {
        let n = self.tables.degree();
        let (args, blocks) = arguments(jobs, n, [scaled_size, size]);
        let grid = [n.div_ceil(THREADS as usize), blocks, polys];
        self.device.dispatch(Kernel::Convert, &args, &[&self.moduli, scaled, out.buffer()], grid)
    }

    /// Permutes limbs `[from, to]` of the selected polynomials by a Galois element.
    pub(super) fn permute(
        &self,
        (src, (select, src_size)): (&wgpu::Buffer, (PolySelect, usize)),
        (out, size): (&DeviceWords, usize),
        galois: u32,
        limbs: &[[usize; 2]],
    ) -> Result<()> {
        let n = self.tables.degree();
        let mut args = vec![word(n), self.tables.log_n(), galois];
        args.extend([select.first * src_size, select.stride * src_size, size].map(word));
        args.resize(ROWS, 0);
        args.extend(limbs.iter().flatten().map(|&l| word(l)));
        let grid = [n.div_ceil(THREADS as usize), limbs.len(), select.count];
        self.device.dispatch(Kernel::Permute, &args, &[src, out.buffer()], grid)
    }

    /// [`crate::backend::Backend::mod_up`] on checked arguments: four dispatches, six where transforms take two, whatever the
    /// number of shards.
    pub(super) fn mod_up_words(
        &self,
        src: &wgpu::Buffer,
        select: PolySelect,
        plan: &GadgetPlan,
        layout: &DigitLayout,
    ) -> Result<Buffer> {
        let op = "mod_up";
        let n = self.tables.degree();
        let (window, extended, digits) = (plan.window.len(), plan.extended.len(), plan.digits.len());
        let shape = Shape::new(select.count * digits, extended, n);
        let scaled_size = layout.own.iter().map(Vec::len).sum::<usize>() * n;
        let scaled_shape = Shape::new(select.count, scaled_size / n, n);
        let size = digits * extended * n;
        let all = PolySelect { first: 0, stride: 1, count: select.count };

        let mut limbs = Vec::new();
        let mut jobs = Vec::new();
        let places: Vec<Vec<usize>> =
            layout.converted.iter().enumerate().map(|(k, c)| c.iter().map(|&l| k * extended + l).collect()).collect();
        for (k, conversion) in plan.mod_up.iter().enumerate() {
            jobs.push(Job { conversion, first: limbs.len(), targets: &places[k] });
            for (i, &(from, _)) in layout.own[k].iter().enumerate() {
                limbs.push(Limb { from, to: limbs.len(), id: conversion.from.limbs()[i], factor: conversion.inv_hat[i] });
            }
        }
        let out = self.take(shape, op)?;
        let middle = self.take(shape, op)?;
        {
            let scaled = self.take(scaled_shape, op)?;
            let source = Source { buffer: src, select, size: window * n };
            self.transform(true, source, &limbs, &middle, (&scaled, scaled_size))?;
            let converted = if self.two_passes() { &out } else { &middle };
            self.convert(&jobs, (scaled.buffer(), scaled_size), (converted, size), select.count)?;
            let limbs: Vec<_> = plan
                .mod_up
                .iter()
                .zip(&places)
                .flat_map(|(c, places)| c.to.limbs().iter().zip(places))
                .map(|(&id, &place)| Limb { from: place, to: place, id, factor: 1 })
                .collect();
            self.transform(false, Source { buffer: converted.buffer(), select: all, size }, &limbs, &middle, (&out, size))?;
        }
        let own: Vec<_> = layout
            .own
            .iter()
            .enumerate()
            .flat_map(|(k, own)| own.iter().map(move |&(from, to)| [from, k * extended + to]))
            .collect();
        self.permute((src, (select, window * n)), (&out, size), 1, &own)?;
        Ok(Buffer::from_device(shape, out))
    }

    /// [`crate::backend::Backend::change_basis`] on checked arguments; `positions` of the dropped limbs in the source.
    pub(super) fn change_basis_words(
        &self,
        src: &wgpu::Buffer,
        shape: Shape,
        change: &BasisChange,
        positions: &[usize],
    ) -> Result<Buffer> {
        let op = "change_basis";
        let n = self.tables.degree();
        let (dropped, target) = (change.dropped.len(), change.target.len());
        let out_shape = Shape { limbs: target, ..shape };
        let scaled_shape = Shape { limbs: dropped, ..shape };
        let (size, scaled_size) = (out_shape.poly_words(), scaled_shape.poly_words());
        let all = PolySelect::all(shape);
        let out = self.take(out_shape, op)?;
        // It also holds the words between two passes, of the dropped limbs too.
        let middle = self.take(Shape { limbs: target.max(dropped), ..shape }, op)?;
        let scaled = self.take(scaled_shape, op)?;
        let limbs: Vec<_> = positions
            .iter()
            .enumerate()
            .map(|(d, &from)| Limb { from, to: d, id: change.dropped.limbs()[d], factor: change.conversion.inv_hat[d] })
            .collect();
        let source = Source { buffer: src, select: all, size: shape.poly_words() };
        self.transform(true, source, &limbs, &middle, (&scaled, scaled_size))?;
        let targets: Vec<_> = (0..target).collect();
        let job = Job { conversion: &change.conversion, first: 0, targets: &targets };
        // The tail reads one of both buffers and writes the other.
        let (first, last) = if self.two_passes() { (&out, &out) } else { (&middle, &out) };
        self.convert(&[job], (scaled.buffer(), scaled_size), (first, size), shape.polys)?;
        let limbs: Vec<_> =
            change.target.limbs().iter().enumerate().map(|(j, &id)| Limb { from: j, to: j, id, factor: 1 }).collect();
        self.transform(false, Source { buffer: first.buffer(), select: all, size }, &limbs, &middle, (last, size))?;

        let mut args = vec![word(n), word(target), word(shape.limbs)];
        args.resize(ROWS, 0);
        for (j, id) in change.target.limbs().iter().enumerate() {
            let position = change.source_position[j].map_or(0, |p| p + 1);
            args.extend([u32::from(id.0), word(position), change.keep[j], change.keep_shoup[j]]);
            args.extend([change.tail[j], change.tail_shoup[j], 0, 0]);
        }
        let result = self.elementwise(Kernel::DivideTail, &args, &[src, last.buffer()], out_shape, shape.polys)?;
        Ok(Buffer::from_device(out_shape, result))
    }
}

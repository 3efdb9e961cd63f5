//! What the fused composites share: quotients and conversions of many limbs, tile by tile, and how much of them to take
//! at once so that what one stage writes is still in the cache when the next one reads it.

use super::CpuBackend;
use super::base_convert::{self, Packed, Span};
use super::parallel::{self, Shared};
use crate::backend::PolySelect;
use crate::math::BaseConversion;
use std::ops::Range;

/// Bytes of last-level cache that a group of limbs between two stages may take. As many groups as there are threads are under way: while
/// one waits for the last of a step, threads go on with another.
pub(super) const GROUP_BYTES: usize = 4 << 20;
/// Bytes of last-level cache that the scaled source limbs may take.
pub(super) const SOURCE_BYTES: usize = 12 << 20;
/// Words of a task of a conversion.
const SPAN: usize = 1024;

/// Where limbs are: a buffer and a first word.
pub(super) type At<'a> = (Shared<'a>, usize);

/// Selected polynomials of `[poly][limb][N]` words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selected<'a> {
    /// The words.
    pub words: &'a [u32],
    /// Which polynomials.
    pub select: PolySelect,
}

impl Selected<'_> {
    /// The place of the i-th selected polynomial among all.
    pub(super) fn poly(&self, i: usize) -> usize {
        self.select.first + i * self.select.stride
    }
}

/// Source limbs of one polynomial, scaled, with their quotients.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// The conversion.
    pub conversion: &'a BaseConversion,
    /// The limbs.
    pub y: At<'a>,
    /// Words between two limbs.
    pub stride: usize,
    /// The quotients.
    pub u: At<'a>,
}

/// One source converted to some limbs.
#[derive(Debug)]
pub(super) struct Job<'a> {
    /// From here.
    pub source: &'a Source<'a>,
    /// The constants of the targets.
    pub packed: Packed,
    /// The targets.
    pub out: Vec<At<'a>>,
}

/// How `count` limbs are taken in groups, of as many as fit `budget` at `bytes` each: whole blocks of a conversion for every
/// thread if they fit, and no small rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    size: usize,
    /// Limbs of the largest group.
    pub largest: usize,
}

impl Groups {
    /// For at most `count` limbs.
    pub(super) fn new(count: usize, bytes: usize, budget: usize) -> Self {
        let threads = parallel::threads();
        let fits = (budget / parallel::crowd() / bytes.max(1)).max(threads);
        let unit = if fits < base_convert::BLOCK { threads } else { threads.max(base_convert::BLOCK) };
        let size = if count <= fits { count.max(1) } else { fits / unit.min(fits) * unit.min(fits) };
        Self { size, largest: count.min(size + size / 4) }
    }

    /// The groups of a range, in order.
    pub(super) fn of(self, limbs: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut start = limbs.start;
        std::iter::from_fn(move || {
            let left = limbs.end - start;
            let take = if left <= self.largest { left } else { self.size };
            let group = start..start + take;
            start += take;
            (take > 0).then_some(group)
        })
    }
}

impl CpuBackend {
    fn spans(&self) -> (usize, usize) {
        let n = self.tables.degree();
        (n.div_ceil(SPAN), n.min(SPAN))
    }

    fn span(&self, source: &Source<'_>, at: usize, len: usize) -> Span {
        let from = source.conversion.from.len();
        let y = source.y.0.piece(source.y.1 + at, if from == 0 { 0 } else { (from - 1) * source.stride + len });
        Span { y, stride: source.stride, u: source.u.0.piece(source.u.1 + at, len), len }
    }

    /// The quotients of all sources.
    pub(super) fn quotients(&self, sources: &[Source<'_>]) {
        let (spans, len) = self.spans();
        let limbs: usize = sources.iter().map(|s| s.conversion.from.len()).sum();
        parallel::each(sources.len() * spans, limbs * self.tables.degree(), |i| {
            let source = &sources[i / spans];
            let span = self.span(source, i % spans * len, len);
            // SAFETY: the pieces were checked to be there; each task has its own part of u.
            unsafe { base_convert::quotient(self.isa, span, &source.conversion.reciprocal) };
        });
    }

    /// All conversions; targets in `[0, 3q)`.
    pub(super) fn convert(&self, jobs: &[Job<'_>]) {
        let (spans, len) = self.spans();
        let work: usize = jobs.iter().map(|j| j.packed.from() * j.packed.to()).sum();
        parallel::each(jobs.len() * spans, work * self.tables.degree(), |i| {
            let (job, at) = (&jobs[i % jobs.len()], i / jobs.len() * len);
            let out: Vec<_> = job.out.iter().map(|&(to, first)| to.piece(first, at + len)).collect();
            // SAFETY: the pieces were checked to be there; each task writes its own words.
            unsafe { base_convert::convert(self.isa, self.span(job.source, at, len), &job.packed, at, &out) };
        });
    }
}

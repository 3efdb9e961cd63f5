//! Polynomials in device memory, and how many of them a kernel takes at once.

use super::GpuBackend;
use super::commands::{ALIGN, Start, View};
use super::device::Block;
use super::memory::DeviceWords;
use crate::backend::{BackendError, PolySelect, Result, Shape};
use std::ops::Range;

/// Polynomials of equal size, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Polys<'a> {
    pub block: &'a Block,
    /// The first word of the first.
    pub first: usize,
    /// Words of each.
    pub size: usize,
    /// How many.
    pub count: usize,
}

/// What a kernel is given of some polynomials: a view, and in it the first word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    pub view: View<'a>,
    pub first: usize,
    /// Words from one polynomial to the next.
    pub stride: usize,
}

/// Neighbouring polynomials as a kernel reads or writes them, from the view's first word on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strip<'a> {
    pub view: View<'a>,
    /// Words of each.
    pub size: usize,
}

impl<'a> Polys<'a> {
    /// So many of this size.
    pub(super) fn of(words: &'a DeviceWords, size: usize, count: usize) -> Self {
        Self { block: words.block(), first: words.first(), size, count }
    }

    /// The polynomials of a shape.
    pub(super) fn new(words: &'a DeviceWords, shape: Shape) -> Self {
        Self::of(words, shape.poly_words(), shape.polys)
    }

    /// The first word of the i-th.
    pub(super) fn start(&self, i: usize) -> Start<'a> {
        Start { block: self.block, word: self.first + i * self.size }
    }

    /// Those from the i-th on.
    pub(super) fn after(&self, i: usize) -> Self {
        Self { first: self.first + i * self.size, count: self.count.saturating_sub(i), ..*self }
    }

    /// All of them.
    pub(super) fn all(&self) -> PolySelect {
        PolySelect { first: 0, stride: 1, count: self.count }
    }

    /// `count` polynomials from `first` on.
    pub(super) fn window(&self, first: usize, count: usize) -> Window<'a> {
        self.select(PolySelect { first, stride: 1, count })
    }

    /// Some of the polynomials. What is bound starts on a boundary, a little before the first word where it must.
    pub(super) fn select(&self, select: PolySelect) -> Window<'a> {
        let start = self.first + select.first * self.size;
        let bound = start / ALIGN * ALIGN;
        let end = (select.first + select.count.saturating_sub(1) * select.stride + 1).min(self.count) * self.size + self.first;
        let view = View { block: self.block, first: bound, words: end.saturating_sub(bound).max(1) };
        Window { view, first: start - bound, stride: select.stride * self.size }
    }
}

/// A part of a selection.
pub(super) fn part(select: PolySelect, range: &Range<usize>) -> PolySelect {
    PolySelect { first: select.first + range.start * select.stride, stride: select.stride, count: range.len() }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl GpuBackend {
    /// Words that one operand of a dispatch may have.
    pub(super) fn bound_words(&self) -> usize {
        usize::try_from(self.device.limits().binding / 4).unwrap_or(usize::MAX)
    }

    /// `units` cut into ranges that one dispatch each can take, where operands have `sizes` words a unit and the grid `polys`
    /// workgroups a unit. Ranges but the last are multiples of so many units that each operand's part starts on a boundary.
    /// With a memory limit, parts are small beside it.
    pub(super) fn batches(&self, units: usize, sizes: &[usize], polys: usize, op: &'static str) -> Result<Vec<Range<usize>>> {
        let largest = sizes.iter().copied().max().unwrap_or(0).max(1);
        let groups = self.device.limits().groups / polys.max(1);
        let room = self.memory.limit().map_or(usize::MAX, |limit| usize::try_from(limit / 32).unwrap_or(usize::MAX));
        let fits = (self.bound_words() / largest).min(groups);
        if fits == 0 {
            return Err(BackendError::OutOfMemory { op, bytes: largest.saturating_mul(4) });
        }
        let count = fits.min((room / largest).max(1));
        if count >= units {
            return Ok(std::iter::once(0..units).filter(|r| !r.is_empty()).collect());
        }
        let step = sizes.iter().map(|&size| ALIGN / gcd(ALIGN, size)).max().unwrap_or(1);
        let count = (count / step * step).max(step);
        if count > fits {
            return Err(BackendError::OutOfMemory { op, bytes: largest.saturating_mul(4 * step) });
        }
        Ok((0..units).step_by(count).map(|first| first..units.min(first + count)).collect())
    }
}

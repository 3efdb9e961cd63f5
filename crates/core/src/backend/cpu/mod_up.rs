//! Digits for key switching, group of limbs by group of limbs: a group is converted and transformed before the next one.

use super::base_convert::{Packed, padded};
use super::check::DigitLayout;
use super::parallel::{self, Shared};
use super::stages::{At, GROUP_BYTES, Groups, Job, SOURCE_BYTES, Selected, Source};
use super::words::AlignedWords;
use super::{CpuBackend, ntt};
use crate::backend::{KeySwitchTables, Shape};
use std::ops::Range;

/// The digits of some shards before conversion: scaled coefficients of all window limbs, and quotients.
#[derive(Debug)]
pub(super) struct Digits {
    y: AlignedWords,
    u: AlignedWords,
}

impl CpuBackend {
    /// How many polynomials to cut into digits at once, `others` limbs of the same size being kept beside each.
    pub(super) fn digit_batch(&self, plan: &KeySwitchTables, others: usize, count: usize) -> usize {
        let bytes = (plan.window.len() + others) * padded(self.tables.degree()) * 4;
        (SOURCE_BYTES / bytes.max(1)).clamp(1, count.max(1))
    }

    /// Memory for the digits of `batch` polynomials.
    pub(super) fn digits_scratch(&self, plan: &KeySwitchTables, batch: usize) -> Digits {
        let n = self.tables.degree();
        Digits { y: self.pool.take(batch * plan.window.len() * padded(n)), u: self.pool.take(batch * plan.digits.len() * n) }
    }

    /// Inverse transforms and quotients of some polynomials of the selection.
    pub(super) fn digits<'a>(
        &self,
        scratch: &'a mut Digits,
        x: Selected<'_>,
        polys: Range<usize>,
        plan: &'a KeySwitchTables,
        layout: &DigitLayout,
    ) -> Vec<Source<'a>> {
        let (n, count) = (self.tables.degree(), polys.len());
        let (limbs, stride) = (plan.window.len(), padded(n));
        let y = Shared::new(scratch.y.as_mut_slice());
        let u = Shared::new(scratch.u.as_mut_slice());
        let mut sources = Vec::new();
        let mut tasks = Vec::new();
        for (c, poly) in polys.map(|i| x.poly(i)).enumerate() {
            let mut at = c * limbs * stride;
            for (k, conversion) in plan.mod_up.iter().enumerate() {
                sources.push(Source { conversion, y: (y, at), stride, u: (u, (c * plan.digits.len() + k) * n) });
                for (i, &(from, _)) in layout.own[k].iter().enumerate() {
                    tasks.push((
                        &x.words[(poly * limbs + from) * n..][..n],
                        at,
                        conversion.from.limbs()[i],
                        conversion.inv_hat[i],
                    ));
                    at += stride;
                }
            }
        }
        // All polynomials of a limb together: its twiddles are then read once.
        parallel::each(tasks.len(), tasks.len() * n * 8, |i| {
            let (x, at, limb, factor) = tasks[i % count * limbs + i / count];
            // SAFETY: one limb each, y's checked to be there and its task's own.
            unsafe { ntt::inverse(self.ntt_isa, x.as_ptr(), y.piece(at, n), self.tables.ntt(limb), factor) };
        });
        self.quotients(&sources);
        sources
    }

    /// The conversions of digits to some limbs of the extended basis, to `place(shard, digit, limb)`.
    pub(super) fn digit_jobs<'a>(
        &self,
        sources: &'a [Source<'a>],
        layout: &DigitLayout,
        limbs: Range<usize>,
        place: &dyn Fn(usize, usize, usize) -> At<'a>,
    ) -> Vec<Job<'a>> {
        let digits = layout.own.len();
        let job = |(i, source): (usize, &'a Source<'a>)| {
            let (c, k) = (i / digits, i % digits);
            let rows = layout.rows(k, limbs.clone());
            (!rows.is_empty()).then(|| Job {
                source,
                packed: Packed::new(&self.tables, source.conversion, rows.clone()),
                out: layout.converted[k][rows].iter().map(|&limb| place(c, k, limb)).collect(),
            })
        };
        sources.iter().enumerate().filter_map(job).collect()
    }

    /// [`crate::backend::Kernels::mod_up`] on checked arguments.
    pub(super) fn mod_up_words(&self, x: Selected<'_>, plan: &KeySwitchTables, layout: &DigitLayout) -> (Shape, AlignedWords) {
        let n = self.tables.degree();
        let (limbs, extended, digits) = (plan.window.len(), plan.extended.len(), plan.digits.len());
        let shape = Shape::new(x.select.count * digits, extended, n);
        let mut words = self.pool.take(shape.words());
        let out = Shared::new(words.as_mut_slice());
        let (bytes, work) = (limbs * padded(n) * 4, x.select.count * extended * n * 16);
        parallel::items(x.select.count, bytes, work, |range| self.mod_up_range(x, plan, layout, range, out));
        (shape, words)
    }

    fn mod_up_range(&self, x: Selected<'_>, plan: &KeySwitchTables, layout: &DigitLayout, range: Range<usize>, out: Shared<'_>) {
        let n = self.tables.degree();
        let (limbs, extended, digits) = (plan.window.len(), plan.extended.len(), plan.digits.len());
        let batch = self.digit_batch(plan, 0, range.len());
        let mut scratch = self.digits_scratch(plan, batch);
        for first in range.clone().step_by(batch) {
            let count = batch.min(range.end - first);
            let sources = self.digits(&mut scratch, x, first..first + count, plan, layout);
            let groups: Vec<_> = Groups::new(extended, count * digits * n * 4, GROUP_BYTES).of(0..extended).collect();
            parallel::each(groups.len(), count * digits * extended * n * 16, |g| {
                let (start, end) = (groups[g].start, groups[g].end);
                let place = |c: usize, k: usize, limb: usize| (((first + c) * digits + k) * extended + limb) * n;
                let jobs = self.digit_jobs(&sources, layout, start..end, &|c, k, limb| (out, place(c, k, limb)));
                self.convert(&jobs);
                let tasks = (end - start) * count * digits;
                parallel::each(tasks, tasks * n * 8, |i| {
                    let (limb, c, k) = (start + i / (count * digits), i / digits % count, i % digits);
                    let to = out.piece(place(c, k, limb), n);
                    // SAFETY: one limb, this task's own.
                    unsafe {
                        if let Some(from) = layout.own_at(k, limb) {
                            let poly = x.poly(first + c);
                            std::ptr::copy_nonoverlapping(x.words[(poly * limbs + from) * n..][..n].as_ptr(), to, n);
                        } else {
                            ntt::forward(self.ntt_isa, to, to, self.tables.ntt(plan.extended.limbs()[limb]));
                        }
                    }
                });
            });
        }
    }
}

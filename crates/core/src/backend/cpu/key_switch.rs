//! The whole key switch, fused: nothing but the key, the input and the output goes through memory.
//!
//! Limbs of the extended basis are taken in groups whose digits fit the last-level cache, special limbs first. For a
//! group, the digits are converted tile by tile; then, limb by limb, the digits are transformed block by block, multiplied with the key while they are in the first-level cache, and the sums stay there for what comes next:
//! the inverse transform for a special limb, the division by P for a limb of the window (whose converted P-part was
//! written to the output together with the group's digits, and is transformed in the same block loop). The twiddles of a
//! limb and its slice of the key are read once for all shards of a batch.

use super::base_convert::{Packed, padded};
use super::check::DigitLayout;
use super::elementwise::Shoup;
use super::inner_product::{self, Term};
use super::parallel::{self, Shared};
use super::stages::{GROUP_BYTES, Groups, Job, Selected, Source};
use super::words::AlignedWords;
use super::{CpuBackend, ntt};
use crate::backend::{KeySwitchTables, Shape};
use std::ops::Range;

/// A key's words, `[key digit][2][limbs][N]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a> {
    /// The words.
    pub words: &'a [u32],
    /// Limbs of each polynomial.
    pub limbs: usize,
}

/// A key switch, on checked arguments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switch<'a> {
    /// What is switched, over the window.
    pub x: Selected<'a>,
    /// The key.
    pub key: Key<'a>,
    /// How digits are cut.
    pub plan: &'a KeySwitchTables,
    /// Where they lie.
    pub layout: &'a DigitLayout,
}

/// What is to be done in one limb of the extended basis.
#[derive(Debug)]
pub(super) struct LimbTask {
    /// Which one.
    pub limb: usize,
    /// Limbs to transform, with their shard.
    pub transforms: Vec<(usize, *mut u32)>,
    /// Per shard, both halves of the product and its terms.
    pub shards: Vec<([*mut u32; 2], Vec<Term>)>,
    /// Divide by P: the halves hold the converted P-part.
    pub divide: bool,
}

/// Where the digits of some limbs of the extended basis, from `start` on, are while they are worked on: `[shard][digit][size]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct DigitPlaces<'a> {
    pub words: Shared<'a>,
    pub digits: usize,
    pub size: usize,
    pub stride: usize,
    pub start: usize,
}

impl DigitPlaces<'_> {
    pub(super) fn at(&self, shard: usize, digit: usize, limb: usize) -> usize {
        ((shard * self.digits + digit) * self.size + limb - self.start) * self.stride
    }
}

// SAFETY: only pointers; `run_limb_tasks` answers for them.
unsafe impl Send for LimbTask {}
// SAFETY: as above.
unsafe impl Sync for LimbTask {}

/// Whether a plan has the shape that the fused form takes: `window` then `special`, P dropped and nothing coming in.
pub(super) fn fusible(plan: &KeySwitchTables) -> bool {
    let down = &plan.mod_down;
    plan.extended.limbs() == [plan.window.limbs(), plan.special.limbs()].concat()
        && down.source == plan.extended
        && down.target == plan.window
        && down.dropped == plan.special
        && down.keep == down.tail
        && down.source_position.iter().enumerate().all(|(j, &p)| p == Some(j))
}

impl CpuBackend {
    /// [`crate::backend::Backend::key_switch`] on checked arguments, for a [`fusible`] plan.
    pub(super) fn key_switch_words(&self, switch: Switch<'_>) -> (Shape, AlignedWords) {
        let Switch { x: Selected { select, .. }, plan, .. } = switch;
        let n = self.tables.degree();
        let (window, special) = (plan.window.len(), plan.special.len());
        let shape = Shape::new(select.count * 2, window, n);
        let mut words = self.pool.take(shape.words());
        let out = Shared::new(words.as_mut_slice());
        let bytes = (window + 2 * special) * padded(n) * 4;
        let work = select.count * plan.extended.len() * n * 16;
        parallel::items(select.count, bytes, work, |range| self.key_switch_range(switch, range, out));
        (shape, words)
    }

    fn key_switch_range(&self, switch: Switch<'_>, range: Range<usize>, out: Shared<'_>) {
        let Switch { x, plan, layout, .. } = switch;
        let n = self.tables.degree();
        let (window, special, extended) = (plan.window.len(), plan.special.len(), plan.extended.len());
        let (digits, stride) = (plan.digits.len(), padded(n));
        let down = &plan.mod_down.conversion;

        let batch = self.digit_batch(plan, 2 * special, range.len());
        let mut scratch = self.digits_scratch(plan, batch);
        let mut y = self.pool.take(batch * 2 * special * stride);
        let mut u = self.pool.take(batch * 2 * n);
        let (y, u) = (Shared::new(y.as_mut_slice()), Shared::new(u.as_mut_slice()));
        let groups = Groups::new(extended, batch * digits * stride * 4, GROUP_BYTES);
        let size = groups.largest;
        let all = [groups.of(window..extended).collect::<Vec<_>>(), groups.of(0..window).collect()];

        for first in range.clone().step_by(batch) {
            let count = batch.min(range.end - first);
            let sources = self.digits(&mut scratch, x, first..first + count, plan, layout);
            // The special part of the product, [shard][2]: sums, then their scaled coefficients.
            let dropped: Vec<_> = (0..2 * count)
                .map(|p| Source { conversion: down, y: (y, p * special * stride), stride, u: (u, p * n) })
                .collect();
            // The special limbs first: their sums are what is divided by.
            for (phase, groups) in all.iter().enumerate() {
                if phase == 1 {
                    self.quotients(&dropped);
                }
                parallel::each(groups.len(), count * digits * extended * n * 16, |g| {
                    let (start, end) = (groups[g].start, groups[g].end);
                    let mut t = self.pool.take(count * digits * size * stride);
                    let t = Shared::new(t.as_mut_slice());
                    let places = DigitPlaces { words: t, digits, size, stride, start };
                    let out_at = |p: usize, limb: usize| ((2 * first + p) * window + limb) * n;
                    let mut jobs = self.digit_jobs(&sources, layout, start..end, &|c, k, limb| (t, places.at(c, k, limb)));
                    if start < window {
                        jobs.extend(dropped.iter().enumerate().map(|(p, source)| Job {
                            source,
                            packed: Packed::new(&self.tables, down, start..end),
                            out: (start..end).map(|limb| (out, out_at(p, limb))).collect(),
                        }));
                    }
                    self.convert(&jobs);

                    let tasks: Vec<_> = (start..end)
                        .map(|limb| {
                            let divide = limb < window;
                            let halves = |c: usize| {
                                [0, 1].map(|h| match limb.checked_sub(window) {
                                    Some(s) => y.piece(((2 * c + h) * special + s) * stride, n),
                                    None => out.piece(out_at(2 * c + h, limb), n),
                                })
                            };
                            let mut task = self.limb_task(switch, first..first + count, limb, &places, &halves);
                            if divide {
                                task.transforms.extend((0..count).flat_map(|c| task.shards[c].0.map(|half| (c, half))));
                            }
                            LimbTask { divide, ..task }
                        })
                        .collect();
                    let inverse = |task: &LimbTask, i: usize| {
                        if let Some(s) = task.limb.checked_sub(window) {
                            let at = task.shards[i / 2].0[i % 2];
                            let table = self.tables.ntt(plan.extended.limbs()[task.limb]);
                            // SAFETY: a whole limb, this step's own.
                            unsafe { ntt::inverse(self.ntt_isa, at, at, table, down.inv_hat[s]) };
                        }
                    };
                    // SAFETY: all pointers are to whole limbs, those written to each task's own.
                    unsafe { self.run_limb_tasks(&tasks, plan, end > window, &|_, _, _| {}, &inverse) };
                });
            }
        }
    }

    /// The task of one limb of the extended basis: the digits of some of the selected polynomials, and their products with the key, into
    /// `halves(shard)`, shards being counted from the first of them.
    pub(super) fn limb_task(
        &self,
        switch: Switch<'_>,
        polys: Range<usize>,
        limb: usize,
        places: &DigitPlaces<'_>,
        halves: &dyn Fn(usize) -> [*mut u32; 2],
    ) -> LimbTask {
        let Switch { x, key, plan, layout } = switch;
        let (n, window) = (self.tables.degree(), plan.window.len());
        let mut task = LimbTask { limb, transforms: Vec::new(), shards: Vec::new(), divide: false };
        for (c, poly) in polys.map(|i| x.poly(i)).enumerate() {
            let mut terms = Vec::with_capacity(places.digits);
            for k in 0..places.digits {
                let x = match layout.own_at(k, limb) {
                    Some(from) => x.words[(poly * window + from) * n..][..n].as_ptr(),
                    None => {
                        let at = places.words.piece(places.at(c, k, limb), n);
                        task.transforms.push((c, at));
                        at.cast_const()
                    }
                };
                let pair = [0, 1].map(|half| {
                    let poly = 2 * plan.key_digits[k] + half;
                    key.words[(poly * key.limbs + plan.key_limbs[limb]) * n..][..n].as_ptr()
                });
                terms.push(Term { x, pair });
            }
            task.shards.push((halves(c), terms));
        }
        task
    }

    /// All steps of some limbs: one task a limb on one thread (what a step leaves is in the core's own cache for the next);
    /// on several threads one loop a step, since whole limbs are too coarse to share out evenly. `after_block(task, first word, words)`
    /// follows the products of a block, `last(task, half)`, if `finish` says that it does anything, all blocks of a limb.
    ///
    /// # Safety
    /// As [`lanes`](super::lanes) says; the tasks' pointers are valid for N words, those written to apart from all others.
    pub(super) unsafe fn run_limb_tasks(
        &self,
        tasks: &[LimbTask],
        plan: &KeySwitchTables,
        finish: bool,
        after_block: &(dyn Fn(&LimbTask, usize, usize) + Sync),
        last: &(dyn Fn(&LimbTask, usize) + Sync),
    ) {
        let blocks = 1 << ntt::log_blocks(self.ntt_isa, self.tables.log_n());
        let len = self.tables.degree() / blocks;
        let transforms: usize = tasks.iter().map(|task| task.transforms.len()).sum();
        let work = transforms * self.tables.degree();
        // SAFETY: the caller's promise; tops, blocks and the rest of a limb are done in this order.
        unsafe {
            let block = |task: &LimbTask, block: usize| {
                self.limb_block(task, block, plan);
                after_block(task, block * len, len);
            };
            if parallel::threads() == 1 {
                for task in tasks {
                    (0..task.transforms.len()).for_each(|i| self.limb_top(task, i, plan));
                    (0..blocks).for_each(|b| block(task, b));
                    (0..2 * task.shards.len()).filter(|_| finish).for_each(|i| last(task, i));
                }
            } else {
                let tops: Vec<_> = tasks.iter().flat_map(|task| (0..task.transforms.len()).map(move |i| (task, i))).collect();
                parallel::each(tops.len(), 2 * work, |i| self.limb_top(tops[i].0, tops[i].1, plan));
                parallel::each(tasks.len() * blocks, 8 * work, |i| block(&tasks[i / blocks], i % blocks));
                let halves = tasks.first().filter(|_| finish).map_or(0, |task| 2 * task.shards.len());
                let work = tasks.len() * halves * self.tables.degree() * 8;
                parallel::each(tasks.len() * halves, work, |i| last(&tasks[i / halves], i % halves));
            }
        }
    }

    /// The first pass of one of a task's transforms.
    ///
    /// # Safety
    /// As [`Self::run_limb_tasks`].
    unsafe fn limb_top(&self, task: &LimbTask, i: usize, plan: &KeySwitchTables) {
        let (_, at) = task.transforms[i];
        // SAFETY: the caller's promise.
        unsafe { ntt::forward_top(self.ntt_isa, at, at, self.tables.ntt(plan.extended.limbs()[task.limb])) };
    }

    /// Transforms and products of one block, for all shards.
    ///
    /// # Safety
    /// As [`Self::run_limb_tasks`]; `block < 2^log_blocks`, after all first passes of the task.
    unsafe fn limb_block(&self, task: &LimbTask, block: usize, plan: &KeySwitchTables) {
        let table = self.tables.ntt(plan.extended.limbs()[task.limb]);
        let len = self.tables.degree() >> ntt::log_blocks(self.ntt_isa, table.log_n());
        let at = block * len;
        for (c, (halves, terms)) in task.shards.iter().enumerate() {
            // SAFETY: the caller's promise: the block lies within the limbs.
            unsafe {
                let halves = halves.map(|half| half.add(at));
                let terms: Vec<_> = terms.iter().map(|t| Term { x: t.x.add(at), pair: t.pair.map(|p| p.add(at)) }).collect();
                // The block's part of the key comes from memory while the first shard is transformed.
                let mut key: Vec<_> = terms.iter().flat_map(|term| term.pair).collect();
                let mut own: Vec<_> = task.transforms.iter().filter(|&&(shard, _)| shard == c).collect();
                while let Some(&(_, limb)) = own.pop() {
                    let share = if c == 0 { key.len().div_ceil(own.len() + 1) } else { 0 };
                    let ahead = key.split_off(key.len() - share);
                    ntt::forward_block(self.ntt_isa, limb, limb, table, block, &ahead);
                }
                if task.divide {
                    let w = Shoup { constant: plan.mod_down.tail[task.limb], companion: plan.mod_down.tail_shoup[task.limb] };
                    inner_product::key_inner_product_divide(self.isa, halves, &terms, w, len, table.modulus());
                } else {
                    inner_product::key_inner_product(self.isa, halves, &terms, len, table.modulus());
                }
            }
        }
    }
}

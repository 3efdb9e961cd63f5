//! Key switches that stay in the extended basis, fused: [`crate::backend::Backend::relinearize_extended`] and
//! [`crate::backend::Backend::rotate_sum`].
//!
//! As in `key_switch`, digits are made for a group of limbs at a time and never reach memory. What a composition of calls would copy
//! out, lift and add in passes of its own is added to each block of the products while it is in the first-level cache.

use super::CpuBackend;
use super::automorphism::{self, Permutation};
use super::base_convert::padded;
use super::check::DigitLayout;
use super::elementwise::{self, Shoup};
use super::key_switch::{DigitPlaces, Key, LimbTask, Switch};
use super::parallel::{self, Shared};
use super::stages::{GROUP_BYTES, Groups, Selected};
use super::words::AlignedWords;
use crate::backend::{KeySwitchTables, PolySelect};
use crate::math::BasisChange;

/// Shards from a first one on, of words `[shard][2][extended][N]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shards<'a> {
    /// The words.
    pub words: &'a [u32],
    /// The first shard to take.
    pub first: usize,
}

/// Checked arguments of [`crate::backend::Backend::rotate_sum`].
#[derive(Debug)]
pub(super) struct RotateSum<'a> {
    /// What is rotated.
    pub x: Shards<'a>,
    /// What is added.
    pub plus: Shards<'a>,
    /// Shards.
    pub shards: usize,
    /// The key.
    pub key: Key<'a>,
    /// The automorphism.
    pub permutation: Permutation,
}

/// `(first shard, task, first word, words)`: after each block of a limb.
type AfterBlock<'a> = dyn Fn(usize, &LimbTask, usize, usize) + Sync + 'a;
/// `(first shard, task, half)`: after all blocks of a limb.
type AfterLimb<'a> = dyn Fn(usize, &LimbTask, usize) + Sync + 'a;

/// What follows the products of a switch, told the first of the shards worked on.
struct Finish<'a> {
    block: &'a AfterBlock<'a>,
    limb: Option<&'a AfterLimb<'a>>,
}

impl CpuBackend {
    /// Digits of the selected polynomials times a key, without the division: into `halves(shard, limb)` if that is given, else into
    /// scratch, from where `finish` takes them.
    fn switch_extended(
        &self,
        switch: Switch<'_>,
        halves: Option<&(dyn Fn(usize, usize) -> [*mut u32; 2] + Sync)>,
        finish: &Finish<'_>,
    ) {
        let Switch { x, plan, layout, .. } = switch;
        let (n, polys) = (self.tables.degree(), x.select.count);
        let (extended, digits, stride) = (plan.extended.len(), plan.digits.len(), padded(n));
        let batch = self.digit_batch(plan, 0, polys);
        let mut scratch = self.digits_scratch(plan, batch);
        let limb_bytes = batch * (digits + if halves.is_some() { 0 } else { 2 }) * stride * 4;
        let groups = Groups::new(extended, limb_bytes, GROUP_BYTES);
        let size = groups.largest;
        let groups: Vec<_> = groups.of(0..extended).collect();
        for first in (0..polys).step_by(batch) {
            let count = batch.min(polys - first);
            let sources = self.digits(&mut scratch, x, first..first + count, plan, layout);
            parallel::each(groups.len(), count * digits * extended * n * 16, |g| {
                let (group, start) = (groups[g].clone(), groups[g].start);
                let mut t = self.pool.take(count * digits * size * stride);
                let mut sums = self.pool.take(if halves.is_some() { 0 } else { count * 2 * size * stride });
                let (t, sums) = (Shared::new(t.as_mut_slice()), Shared::new(sums.as_mut_slice()));
                let places = DigitPlaces { words: t, digits, size, stride, start };
                self.convert(&self.digit_jobs(&sources, layout, group.clone(), &|c, k, limb| (t, places.at(c, k, limb))));
                let task = |limb: usize| {
                    let halves = |c: usize| match halves {
                        Some(halves) => halves(first + c, limb),
                        None => [0, 1].map(|h| sums.piece(((2 * c + h) * size + limb - start) * stride, n)),
                    };
                    self.limb_task(switch, first..first + count, limb, &places, &halves)
                };
                let tasks: Vec<_> = group.map(task).collect();
                let after_block = |task: &LimbTask, at: usize, len: usize| (finish.block)(first, task, at, len);
                let last = |task: &LimbTask, half: usize| {
                    if let Some(limb) = finish.limb {
                        limb(first, task, half);
                    }
                };
                // SAFETY: all pointers are to whole limbs, those written to each task's own.
                unsafe { self.run_limb_tasks(&tasks, plan, finish.limb.is_some(), &after_block, &last) };
            });
        }
    }

    /// [`crate::backend::Backend::relinearize_extended`] on checked arguments: `switch` is that of the last thirds of
    /// `[shard][3][window][N]`.
    pub(super) fn relinearize_extended_words(&self, switch: Switch<'_>, lift: &BasisChange) -> AlignedWords {
        let Switch { x: Selected { words: x, select }, plan, .. } = switch;
        let shards = select.count;
        let (n, window, extended) = (self.tables.degree(), plan.window.len(), plan.extended.len());
        let mut words = self.pool.take(shards * 2 * extended * n);
        let out = Shared::new(words.as_mut_slice());
        let halves = |s: usize, limb: usize| [0, 1].map(|half| out.piece(((2 * s + half) * extended + limb) * n, n));
        let block = |first: usize, task: &LimbTask, at: usize, len: usize| {
            let Some(from) = lift.source_position[task.limb] else { return };
            let modulus = self.modulus(&plan.extended, task.limb);
            let factor = Shoup { constant: lift.keep[task.limb], companion: lift.keep_shoup[task.limb] };
            for (c, (halves, _)) in task.shards.iter().enumerate() {
                for (half, sum) in halves.iter().enumerate() {
                    let product = x[((3 * (first + c) + half) * window + from) * n + at..][..len].as_ptr();
                    // SAFETY: a block of whole limbs, the sum this task's own.
                    unsafe { elementwise::add_product(self.isa, sum.add(at), product, factor, len, modulus) };
                }
            }
        };
        self.switch_extended(switch, Some(&halves), &Finish { block: &block, limb: None });
        words
    }

    /// [`crate::backend::Backend::rotate_sum`] on checked arguments; `positions` of the special limbs in the extended basis.
    pub(super) fn rotate_sum_words(
        &self,
        sum: &RotateSum<'_>,
        positions: &[usize],
        plan: &KeySwitchTables,
        layout: &DigitLayout,
    ) -> AlignedWords {
        let (n, extended, shards) = (self.tables.degree(), plan.extended.len(), sum.shards);
        let seconds = PolySelect { first: 2 * sum.x.first + 1, stride: 2, count: shards };
        let seconds = Selected { words: sum.x.words, select: seconds };
        let (second_shape, second) = self.change_basis_words(seconds, &plan.mod_down, positions);
        let mut words = self.pool.take(shards * 2 * extended * n);
        let out = Shared::new(words.as_mut_slice());
        let limb_of =
            |x: Shards<'_>, shard: usize, half: usize, limb: usize| ((2 * (x.first + shard) + half) * extended + limb) * n;
        let block = |first: usize, task: &LimbTask, at: usize, len: usize| {
            let modulus = self.modulus(&plan.extended, task.limb);
            for (c, (halves, _)) in task.shards.iter().enumerate() {
                let x0 = sum.x.words[limb_of(sum.x, first + c, 0, task.limb) + at..][..len].as_ptr();
                // SAFETY: a block of whole limbs, the sum this task's own.
                unsafe {
                    let to = halves[0].add(at);
                    elementwise::add(self.isa, to, to, x0, len, modulus);
                }
            }
        };
        let limb = |first: usize, task: &LimbTask, i: usize| {
            let (c, half) = (i / 2, i % 2);
            let to = out.piece(((2 * (first + c) + half) * extended + task.limb) * n, n);
            let plus = sum.plus.words[limb_of(sum.plus, first + c, half, task.limb)..][..n].as_ptr();
            // SAFETY: whole limbs, the output this task's own; the permutation is for this width.
            unsafe {
                automorphism::permute(self.isa, to, task.shards[c].0[half], &sum.permutation);
                elementwise::add(self.isa, to, to, plus, n, self.modulus(&plan.extended, task.limb));
            }
        };
        let finish = Finish { block: &block, limb: Some(&limb) };
        let second = Selected { words: second.as_slice(), select: PolySelect::all(second_shape) };
        self.switch_extended(Switch { x: second, key: sum.key, plan, layout }, None, &finish);
        words
    }
}

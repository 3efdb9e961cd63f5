//! Key switches that stay in the extended basis, fused: [`crate::backend::Backend::relinearize_extended`] and
//! [`crate::backend::Backend::rotate_sum`].
//!
//! As in `key_switch`, digits are made for a group of limbs at a time and never reach memory. What a composition of calls would copy
//! out, lift and add in passes of its own is added to each block of the products while it is in the first-level cache.

use super::CpuBackend;
use super::automorphism::{self, Permutation};
use super::base_convert::padded;
use super::check::DigitLayout;
use super::elementwise;
use super::key_switch::{DigitPlaces, Key, LimbTask};
use super::parallel::{self, Shared};
use super::stages::{GROUP_BYTES, Groups};
use super::words::AlignedWords;
use crate::backend::{KeySwitchTables, PolySelect};
use crate::math::BasisChange;

/// Checked arguments of [`crate::backend::Backend::rotate_sum`]: words `[shard][2][extended][N]` with the first shard to take.
#[derive(Debug)]
pub(super) struct RotateSum<'a> {
    /// What is rotated.
    pub x: (&'a [u32], usize),
    /// What is added.
    pub plus: (&'a [u32], usize),
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
        (x, select): (&[u32], PolySelect),
        key: Key<'_>,
        (plan, layout): (&KeySwitchTables, &DigitLayout),
        halves: Option<&(dyn Fn(usize, usize) -> [*mut u32; 2] + Sync)>,
        finish: &Finish<'_>,
    ) {
        let n = self.tables.degree();
        let (extended, digits, stride) = (plan.extended.len(), plan.digits.len(), padded(n));
        let batch = self.digit_batch(plan, 0, select.count);
        let mut scratch = self.digits_scratch(plan, batch);
        let limb_bytes = batch * (digits + if halves.is_some() { 0 } else { 2 }) * stride * 4;
        let groups = Groups::new(extended, limb_bytes, GROUP_BYTES);
        let size = groups.largest;
        let groups: Vec<_> = groups.of(0..extended).collect();
        for first in (0..select.count).step_by(batch) {
            let count = batch.min(select.count - first);
            let sources = self.digits(&mut scratch, (x, select), (first, count), plan, layout);
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
                    self.limb_task((x, select), (first, count), key, (plan, layout), (limb, &places), &halves)
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

    /// [`crate::backend::Backend::relinearize_extended`] on checked arguments, `x` being `[shard][3][window][N]`.
    pub(super) fn relinearize_extended_words(
        &self,
        x: &[u32],
        shards: usize,
        key: Key<'_>,
        lift: &BasisChange,
        (plan, layout): (&KeySwitchTables, &DigitLayout),
    ) -> AlignedWords {
        let (n, window, extended) = (self.tables.degree(), plan.window.len(), plan.extended.len());
        let mut words = self.pool.take(shards * 2 * extended * n);
        let out = Shared::new(words.as_mut_slice());
        let halves = |s: usize, limb: usize| [0, 1].map(|half| out.piece(((2 * s + half) * extended + limb) * n, n));
        let block = |first: usize, task: &LimbTask, at: usize, len: usize| {
            let Some(from) = lift.source_position[task.limb] else { return };
            let (modulus, constant) =
                (self.modulus(&plan.extended, task.limb), (lift.keep[task.limb], lift.keep_shoup[task.limb]));
            for (c, (halves, _)) in task.shards.iter().enumerate() {
                for (half, sum) in halves.iter().enumerate() {
                    let product = x[((3 * (first + c) + half) * window + from) * n + at..][..len].as_ptr();
                    // SAFETY: a block of whole limbs, the sum this task's own.
                    unsafe { elementwise::add_product(self.isa, sum.add(at), product, constant, len, modulus) };
                }
            }
        };
        let select = PolySelect { first: 2, stride: 3, count: shards };
        self.switch_extended((x, select), key, (plan, layout), Some(&halves), &Finish { block: &block, limb: None });
        words
    }

    /// [`crate::backend::Backend::rotate_sum`] on checked arguments; `positions` of the special limbs in the extended basis.
    pub(super) fn rotate_sum_words(
        &self,
        sum: &RotateSum<'_>,
        positions: &[usize],
        (plan, layout): (&KeySwitchTables, &DigitLayout),
    ) -> AlignedWords {
        let (n, extended, shards) = (self.tables.degree(), plan.extended.len(), sum.shards);
        let halves = |half: usize| PolySelect { first: 2 * sum.x.1 + half, stride: 2, count: shards };
        let (second_shape, second) = self.change_basis_words(sum.x.0, halves(1), &plan.mod_down, positions);
        let mut words = self.pool.take(shards * 2 * extended * n);
        let out = Shared::new(words.as_mut_slice());
        let limb_of =
            |x: (&[u32], usize), shard: usize, half: usize, limb: usize| ((2 * (x.1 + shard) + half) * extended + limb) * n;
        let block = |first: usize, task: &LimbTask, at: usize, len: usize| {
            let modulus = self.modulus(&plan.extended, task.limb);
            for (c, (halves, _)) in task.shards.iter().enumerate() {
                let x0 = sum.x.0[limb_of(sum.x, first + c, 0, task.limb) + at..][..len].as_ptr();
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
            let plus = sum.plus.0[limb_of(sum.plus, first + c, half, task.limb)..][..n].as_ptr();
            // SAFETY: whole limbs, the output this task's own; the permutation is for this width.
            unsafe {
                automorphism::permute(self.isa, to, task.shards[c].0[half], &sum.permutation);
                elementwise::add(self.isa, to, to, plus, n, self.modulus(&plan.extended, task.limb));
            }
        };
        let finish = Finish { block: &block, limb: Some(&limb) };
        let second = (second.as_slice(), PolySelect::all(second_shape));
        self.switch_extended(second, sum.key, (plan, layout), None, &finish);
        words
    }
}

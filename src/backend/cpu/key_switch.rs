//! The whole key switch, fused: nothing but the key, the input and the output goes through memory.
//!
//! Limbs of the extended basis are taken in groups whose digits fit the last-level cache, special limbs first. For a
//! group, the digits are converted tile by tile; then every limb is one task: its digits are transformed block by
//! block, multiplied with the key while they are in the first-level cache, and the sums stay there for what comes next:
//! the inverse transform for a special limb, the division by P for a limb of the window (whose converted P-part was
//! written to the output together with the group's digits, and is transformed in the same block loop). The twiddles of a
//! limb and its slice of the key are read once for all shards of a batch.

use super::base_convert::{Packed, padded};
use super::check::DigitLayout;
use super::inner_product::{self, Term};
use super::parallel::{self, Shared};
use super::stages::{GROUP_BYTES, Groups, Job, Source};
use super::words::AlignedWords;
use super::{CpuBackend, ntt};
use crate::backend::{GadgetPlan, PolySelect, Shape};

/// A key's words, `[key digit][2][limbs][N]`.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// The words.
    pub words: &'a [u32],
    /// Limbs of each polynomial.
    pub limbs: usize,
}

/// Whether a plan has the shape that the fused form takes: `window` then `special`, P dropped and nothing coming in.
pub fn fusible(plan: &GadgetPlan) -> bool {
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
    pub(super) fn key_switch_words(
        &self,
        x: &[u32],
        select: PolySelect,
        key: Key<'_>,
        plan: &GadgetPlan,
        layout: &DigitLayout,
    ) -> (Shape, AlignedWords) {
        let n = self.tables.degree();
        let (window, special, extended) = (plan.window.len(), plan.special.len(), plan.extended.len());
        let (digits, stride) = (plan.digits.len(), padded(n));
        let down = &plan.mod_down.conversion;
        let shape = Shape::new(select.count * 2, window, n);
        let mut words = self.pool.take(shape.words());
        let out = Shared::new(words.as_mut_slice());

        let batch = self.digit_batch(plan, 2 * special, select.count);
        let mut scratch = self.digits_scratch(plan, batch);
        let mut y = self.pool.take(batch * 2 * special * stride);
        let mut u = self.pool.take(batch * 2 * n);
        let (y, u) = (Shared::new(y.as_mut_slice()), Shared::new(u.as_mut_slice()));
        let groups = Groups::new(extended, batch * digits * stride * 4, GROUP_BYTES);
        let size = groups.largest;
        let mut t = self.pool.take(batch * digits * size * stride);
        let t = Shared::new(t.as_mut_slice());

        for first in (0..select.count).step_by(batch) {
            let count = batch.min(select.count - first);
            let sources = self.digits(&mut scratch, (x, select), (first, count), plan, layout);
            // The special part of the product, [shard][2]: sums, then their scaled coefficients.
            let dropped: Vec<_> = (0..2 * count)
                .map(|p| Source { conversion: down, y: (y, p * special * stride), stride, u: (u, p * n) })
                .collect();
            for group in groups.of(window..extended).chain(groups.of(0..window)) {
                let (start, end) = (group.start, group.end);
                let digit_at = |c: usize, k: usize, limb: usize| ((c * digits + k) * size + limb - start) * stride;
                let out_at = |p: usize, limb: usize| ((2 * first + p) * window + limb) * n;
                if start == 0 {
                    self.quotients(&dropped);
                }
                let mut jobs = Vec::new();
                for (i, source) in sources.iter().enumerate() {
                    let (c, k) = (i / digits, i % digits);
                    let rows = layout.rows(k, start..end);
                    if !rows.is_empty() {
                        jobs.push(Job {
                            source,
                            packed: Packed::new(&self.tables, source.conversion, rows.clone()),
                            out: layout.converted[k][rows].iter().map(|&limb| (t, digit_at(c, k, limb))).collect(),
                        });
                    }
                }
                if start < window {
                    jobs.extend(dropped.iter().enumerate().map(|(p, source)| Job {
                        source,
                        packed: Packed::new(&self.tables, down, start..end),
                        out: (start..end).map(|limb| (out, out_at(p, limb))).collect(),
                    }));
                }
                self.convert(&jobs);

                parallel::each(end - start, (end - start) * count * digits * n * 16, |i| {
                    let limb = start + i;
                    let table = self.tables.ntt(plan.extended.limbs()[limb]);
                    let log_blocks = ntt::log_blocks(self.ntt_isa, table.log_n());
                    let len = n >> log_blocks;
                    // The limbs to transform, and the terms of the inner product, per shard.
                    let mut transforms = Vec::new();
                    let mut shards = Vec::new();
                    for c in 0..count {
                        let poly = select.first + (first + c) * select.stride;
                        let halves = [0, 1].map(|h| match limb.checked_sub(window) {
                            Some(s) => y.piece(((2 * c + h) * special + s) * stride, n),
                            None => out.piece(out_at(2 * c + h, limb), n),
                        });
                        let terms: Vec<_> = (0..digits)
                            .map(|k| {
                                let x = match layout.own_at(k, limb) {
                                    Some(from) => x[(poly * window + from) * n..][..n].as_ptr(),
                                    None => {
                                        let at = t.piece(digit_at(c, k, limb), n);
                                        transforms.push((c, at));
                                        at.cast_const()
                                    }
                                };
                                let key = |half: usize| {
                                    let poly = 2 * plan.key_digits[k] + half;
                                    key.words[(poly * key.limbs + plan.key_limbs[limb]) * n..][..n].as_ptr()
                                };
                                Term { x, pair: [key(0), key(1)] }
                            })
                            .collect();
                        if limb < window {
                            transforms.extend(halves.map(|half| (c, half)));
                        }
                        shards.push((halves, terms));
                    }
                    // SAFETY: all pointers are to whole limbs, the written ones this task's own.
                    unsafe {
                        for &(_, at) in &transforms {
                            ntt::forward_top(self.ntt_isa, at, at, table);
                        }
                        for block in 0..1 << log_blocks {
                            for (c, (halves, terms)) in shards.iter_mut().enumerate() {
                                // The block's part of the key comes from memory while the first shard is transformed.
                                let mut key: Vec<_> = terms.iter().flat_map(|term| term.pair).collect();
                                let mut own: Vec<_> = transforms.iter().filter(|&&(shard, _)| shard == c).collect();
                                while let Some(&(_, at)) = own.pop() {
                                    let share = if c == 0 { key.len().div_ceil(own.len() + 1) } else { 0 };
                                    let ahead = key.split_off(key.len() - share);
                                    ntt::forward_block(self.ntt_isa, at, at, table, block, &ahead);
                                }
                                let out = halves.map(|half| half.add(block * len));
                                if limb < window {
                                    let w = (plan.mod_down.tail[limb], plan.mod_down.tail_shoup[limb]);
                                    inner_product::key_inner_product_divide(self.isa, out, terms, w, len, table.modulus());
                                } else {
                                    inner_product::key_inner_product(self.isa, out, terms, len, table.modulus());
                                }
                                for term in terms {
                                    *term = Term { x: term.x.add(len), pair: term.pair.map(|p| p.add(len)) };
                                }
                            }
                        }
                        if let Some(s) = limb.checked_sub(window) {
                            for half in shards.iter().flat_map(|(halves, _)| halves) {
                                ntt::inverse(self.ntt_isa, *half, *half, table, down.inv_hat[s]);
                            }
                        }
                    }
                });
            }
        }
        (shape, words)
    }
}

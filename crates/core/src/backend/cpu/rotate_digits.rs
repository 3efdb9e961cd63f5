//! Hoisted rotations, fused: [`crate::backend::Backend::rotate_digits`].
//!
//! The products over the special primes come first and stay in the cache until they are divided out; then each limb of
//! the window is one task: the converted P-part is transformed block by block, the digits are multiplied with the key,
//! the division and the sum with c0 follow while the block is in the first-level cache, and the finished limb is permuted
//! on its way out. Memory sees the digits and the key once and the result once, nothing in between. Limbs come before
//! shards, so that a limb of the key is read once for all shards of a batch.

use super::base_convert::{Packed, padded};
use super::elementwise::Shoup;
use super::inner_product::{self, Term};
use super::key_switch::Key;
use super::parallel::{self, Shared};
use super::stages::{GROUP_BYTES, Groups, Job, SOURCE_BYTES, Source};
use super::{CpuBackend, automorphism::Permutation, elementwise, ntt};
use crate::backend::KeySwitchTables;

/// A ciphertext `[shard][2][window][N]` and its digits `[shard][digit][extended][N]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hoisted<'a> {
    /// The ciphertext's words.
    pub ct: &'a [u32],
    /// The digits' words.
    pub digits: &'a [u32],
    /// Shards of both.
    pub shards: usize,
}

impl CpuBackend {
    /// One rotation into `out` from word `at`, `[shard][2][window][N]`, on checked arguments and a fusible plan.
    pub(super) fn rotate_digits_words(
        &self,
        x: Hoisted<'_>,
        key: Key<'_>,
        plan: &KeySwitchTables,
        permutation: &Permutation,
        (out, at): (Shared<'_>, usize),
    ) {
        let n = self.tables.degree();
        let (window, special, extended, digits) = (plan.window.len(), plan.special.len(), plan.extended.len(), plan.digits.len());
        let (down, stride) = (&plan.mod_down.conversion, padded(n));
        let terms = |shard: usize, limb: usize| -> Vec<Term> {
            let key = |k: usize, half: usize| {
                let poly = 2 * plan.key_digits[k] + half;
                key.words[(poly * key.limbs + plan.key_limbs[limb]) * n..][..n].as_ptr()
            };
            let digit = |k: usize| x.digits[((shard * digits + k) * extended + limb) * n..][..n].as_ptr();
            (0..digits).map(|k| Term { x: digit(k), pair: [key(k, 0), key(k, 1)] }).collect()
        };
        let batch = (SOURCE_BYTES / (2 * special * stride * 4).max(1)).clamp(1, x.shards.max(1));
        let mut y = self.pool.take(batch * 2 * special * stride);
        let mut u = self.pool.take(batch * 2 * n);
        let groups = Groups::new(window, batch * 2 * stride * 4, GROUP_BYTES);
        let size = groups.largest;
        let groups: Vec<_> = groups.of(0..window).collect();
        let (y, u) = (Shared::new(y.as_mut_slice()), Shared::new(u.as_mut_slice()));
        for first in (0..x.shards).step_by(batch) {
            let count = batch.min(x.shards - first);
            parallel::each(special * count, special * count * digits * n * 16, |i| {
                let (s, c) = (i / count, i % count);
                let table = self.tables.ntt(plan.special.limbs()[s]);
                let halves = [0, 1].map(|h| y.piece(((2 * c + h) * special + s) * stride, n));
                // SAFETY: whole limbs, the written ones this task's own.
                unsafe {
                    inner_product::key_inner_product(self.isa, halves, &terms(first + c, window + s), n, table.modulus());
                    for half in halves {
                        ntt::inverse(self.ntt_isa, half, half, table, down.inv_hat[s]);
                    }
                }
            });
            let dropped: Vec<_> = (0..2 * count)
                .map(|p| Source { conversion: down, y: (y, p * special * stride), stride, u: (u, p * n) })
                .collect();
            self.quotients(&dropped);
            parallel::each(groups.len(), window * count * digits * n * 16, |g| {
                let (start, end) = (groups[g].start, groups[g].end);
                let mut t = self.pool.take(count * 2 * size * stride);
                let t = Shared::new(t.as_mut_slice());
                let place = |p: usize, limb: usize| (p * size + limb - start) * stride;
                let jobs: Vec<_> = dropped
                    .iter()
                    .enumerate()
                    .map(|(p, source)| Job {
                        source,
                        packed: Packed::new(&self.tables, down, start..end),
                        out: (start..end).map(|limb| (t, place(p, limb))).collect(),
                    })
                    .collect();
                self.convert(&jobs);
                parallel::each((end - start) * count, (end - start) * count * digits * n * 16, |i| {
                    let (limb, c) = (start + i / count, i % count);
                    let table = self.tables.ntt(plan.window.limbs()[limb]);
                    let mut terms = terms(first + c, limb);
                    let w = Shoup { constant: plan.mod_down.tail[limb], companion: plan.mod_down.tail_shoup[limb] };
                    let halves = [0, 1].map(|h| t.piece(place(2 * c + h, limb), n));
                    let word = |half: usize| ((2 * (first + c) + half) * window + limb) * n;
                    let c0 = x.ct[word(0)..][..n].as_ptr();
                    let log_blocks = ntt::log_blocks(self.ntt_isa, table.log_n());
                    let len = n >> log_blocks;
                    // SAFETY: whole limbs, block by block; the written ones are this task's own.
                    unsafe {
                        for half in halves {
                            ntt::forward_top(self.ntt_isa, half, half, table);
                        }
                        for block in 0..1 << log_blocks {
                            for half in halves {
                                ntt::forward_block(self.ntt_isa, half, half, table, block, &[]);
                            }
                            let part = halves.map(|half| half.add(block * len));
                            inner_product::key_inner_product_divide(self.isa, part, &terms, w, len, table.modulus());
                            elementwise::add(self.isa, part[0], part[0], c0.add(block * len), len, table.modulus());
                            for term in &mut terms {
                                *term = Term { x: term.x.add(len), pair: term.pair.map(|p| p.add(len)) };
                            }
                        }
                        for (h, half) in halves.into_iter().enumerate() {
                            super::automorphism::permute(self.isa, out.piece(at + word(h), n), half, permutation);
                        }
                    }
                });
            });
        }
    }
}

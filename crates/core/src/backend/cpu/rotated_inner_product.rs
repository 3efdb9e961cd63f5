//! Sums of products with hoisted rotations: [`crate::backend::Backend::rotated_inner_product`].
//!
//! One task is one limb of the extended basis. It makes the limb of every rotation in its own scratch (digits times key, plus P c0,
//! permuted), and multiplies and sums them from there: digits, keys and plaintexts are read from memory once, the sums written once,
//! and the rotations, many times as large, stay in the caches. A rotation alone goes the same way.

use super::automorphism::{self, Permutation};
use super::base_convert::padded;
use super::inner_product::{self, TILE, Term};
use super::key_switch::Key;
use super::parallel::{self, Shared};
use super::plain_inner_product::SPREAD_TILE;
use super::rotate_digits::Hoisted;
use super::words::AlignedWords;
use super::{CpuBackend, elementwise};
use crate::backend::{KeySwitchTables, PlainTerm};

impl CpuBackend {
    /// On checked arguments; `x.ct` are the lifted ciphertexts, `[shard][2][extended][N]`, `plain` is `[plain][extended][degree]`. The
    /// result is `[output][2][extended][N]`.
    pub(super) fn rotated_inner_product_words(
        &self,
        x: Hoisted<'_>,
        turns: &[Option<(Key<'_>, Permutation)>],
        plan: &KeySwitchTables,
        (plain, degree): (&[u32], usize),
        terms: &[Vec<PlainTerm>],
    ) -> AlignedWords {
        let n = self.tables.degree();
        let (extended, digits, stride) = (plan.extended.len(), plan.digits.len(), padded(n));
        let mut words = self.pool.take(terms.len() * 2 * extended * n);
        let out = Shared::new(words.as_mut_slice());
        let rotated = turns.len() * x.shards;
        let repeat = n / degree;
        let tile = n.min(if repeat > 1 { SPREAD_TILE } else { TILE });
        let longest = terms.iter().map(Vec::len).max().unwrap_or(0);
        parallel::each(extended, rotated * extended * digits * n * 4, |limb| {
            let modulus = self.modulus(&plan.extended, limb);
            let mut scratch = self.pool.take(2 * (rotated + 1) * stride);
            let scratch = Shared::new(scratch.as_mut_slice());
            let half_at = |i: usize, half: usize| scratch.piece((2 * i + half) * stride, n);
            let sums = [0, 1].map(|half| half_at(rotated, half));
            for (r, turn) in turns.iter().enumerate() {
                for s in 0..x.shards {
                    let lifted = [0, 1].map(|half| x.ct[((2 * s + half) * extended + limb) * n..][..n].as_ptr());
                    let to = [0, 1].map(|half| half_at(r * x.shards + s, half));
                    let Some((key, permutation)) = turn else {
                        for (to, from) in to.into_iter().zip(lifted) {
                            // SAFETY: whole limbs, the scratch this task's own.
                            unsafe { std::ptr::copy_nonoverlapping(from, to, n) };
                        }
                        continue;
                    };
                    let first = (limb < plan.window.len()).then_some(lifted[0]);
                    // SAFETY: whole limbs, the scratch this task's own; the permutation is for this width.
                    unsafe { self.rotated_limb(x.digits, *key, permutation, plan, (s, limb), first, sums, to) };
                }
            }
            let mut spread = vec![0u32; if repeat > 1 { longest * tile } else { 0 }];
            let mut list = Vec::with_capacity(longest);
            for at in (0..n).step_by(tile) {
                for (o, terms) in terms.iter().enumerate() {
                    list.clear();
                    for (k, t) in terms.iter().enumerate() {
                        let factors = &plain[(t.plain * extended + limb) * degree..][..degree];
                        let factor = if repeat > 1 {
                            let to = &mut spread[k * tile..][..tile];
                            for (j, run) in to.chunks_mut(repeat).enumerate() {
                                run.fill(factors[at / repeat + j]);
                            }
                            to.as_ptr()
                        } else {
                            factors[at..].as_ptr()
                        };
                        list.push(Term {
                            x: factor,
                            // SAFETY: `tile` words from `at` are within the limb.
                            pair: [0, 1].map(|half| unsafe { half_at(t.source, half).add(at).cast_const() }),
                        });
                    }
                    let to = [0, 1].map(|half| out.piece(((2 * o + half) * extended + limb) * n + at, tile));
                    // SAFETY: a tile of each limb, the outputs this task's own.
                    unsafe { inner_product::plain_inner_product(self.isa, to, &list, tile, modulus) };
                }
            }
        });
        words
    }

    /// [`crate::backend::Backend::rotate_extended`] on checked arguments: `[shard][2][extended][N]` from `first`, `[shard][extended][N]`.
    pub(super) fn rotate_extended_words(
        &self,
        (digits, first): (&[u32], &[u32]),
        shards: usize,
        key: Key<'_>,
        permutation: &Permutation,
        plan: &KeySwitchTables,
    ) -> AlignedWords {
        let (n, extended) = (self.tables.degree(), plan.extended.len());
        let mut words = self.pool.take(shards * 2 * extended * n);
        let out = Shared::new(words.as_mut_slice());
        parallel::each(extended, shards * extended * plan.digits.len() * n * 4, |limb| {
            let mut scratch = self.pool.take(2 * padded(n));
            let scratch = Shared::new(scratch.as_mut_slice());
            let sums = [0, 1].map(|half| scratch.piece(half * padded(n), n));
            for s in 0..shards {
                let to = [0, 1].map(|half| out.piece(((2 * s + half) * extended + limb) * n, n));
                let first = first[(s * extended + limb) * n..][..n].as_ptr();
                // SAFETY: whole limbs, the scratch and the outputs this task's own; the permutation is for this width.
                unsafe { self.rotated_limb(digits, key, permutation, plan, (s, limb), Some(first), sums, to) };
            }
        });
        words
    }

    /// One limb of one rotation of one shard: digits times key, plus `first` to the first half, permuted.
    ///
    /// # Safety
    /// As [`lanes`](super::lanes) says; `first`, `sums` and `to` are valid for N words, `sums` and `to` apart from all else, and the
    /// permutation was made for this width.
    #[allow(clippy::too_many_arguments, reason = "a kernel takes its operands flat")]
    unsafe fn rotated_limb(
        &self,
        digits: &[u32],
        key: Key<'_>,
        permutation: &Permutation,
        plan: &KeySwitchTables,
        (shard, limb): (usize, usize),
        first: Option<*const u32>,
        sums: [*mut u32; 2],
        to: [*mut u32; 2],
    ) {
        let (n, extended, count) = (self.tables.degree(), plan.extended.len(), plan.digits.len());
        let modulus = self.modulus(&plan.extended, limb);
        let term = |k: usize| Term {
            x: digits[((shard * count + k) * extended + limb) * n..][..n].as_ptr(),
            pair: [0, 1].map(|half| {
                let poly = 2 * plan.key_digits[k] + half;
                key.words[(poly * key.limbs + plan.key_limbs[limb]) * n..][..n].as_ptr()
            }),
        };
        let terms: Vec<Term> = (0..count).map(term).collect();
        // SAFETY: whole limbs, as the caller promises.
        unsafe {
            inner_product::key_inner_product(self.isa, sums, &terms, n, modulus);
            if let Some(first) = first {
                elementwise::add(self.isa, sums[0], sums[0], first, n, modulus);
            }
            for (to, sum) in to.into_iter().zip(sums) {
                automorphism::permute(self.isa, to, sum, permutation);
            }
        }
    }
}

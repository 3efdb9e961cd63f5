//! Hoisted rotations that stay in the extended basis: [`crate::backend::Backend::rotate_digits_extended`].
//!
//! One task is one limb of the extended basis, for all rotations and shards: its digits are read from memory once for all
//! rotations, a limb of a key once for all shards, and sums are permuted into the result out of the core's own cache.

use super::automorphism::{self, Permutation};
use super::inner_product::{self, Term};
use super::key_switch::Key;
use super::parallel::{self, Shared};
use super::rotate_digits::Hoisted;
use super::words::AlignedWords;
use super::{CpuBackend, elementwise};
use crate::backend::GadgetPlan;

impl CpuBackend {
    /// On checked arguments; `x.ct` are the lifted ciphertexts, `[shard][2][extended][N]`. The result is
    /// `[rotation][shard][2][extended][N]`.
    pub(super) fn rotate_digits_extended_words(
        &self,
        x: Hoisted<'_>,
        turns: &[Option<(Key<'_>, Permutation)>],
        plan: &GadgetPlan,
    ) -> AlignedWords {
        let n = self.tables.degree();
        let (extended, digits) = (plan.extended.len(), plan.digits.len());
        let mut words = self.pool.take(turns.len() * x.shards * 2 * extended * n);
        let out = Shared::new(words.as_mut_slice());
        parallel::each(extended, turns.len() * x.shards * extended * digits * n * 4, |limb| {
            let modulus = self.modulus(&plan.extended, limb);
            let mut sums = self.pool.take(2 * n);
            let sums = Shared::new(sums.as_mut_slice());
            let sums = [0, 1].map(|half| sums.piece(half * n, n));
            for (r, turn) in turns.iter().enumerate() {
                for s in 0..x.shards {
                    let lifted = [0, 1].map(|half| x.ct[((2 * s + half) * extended + limb) * n..][..n].as_ptr());
                    let to = [0, 1].map(|half| out.piece((((r * x.shards + s) * 2 + half) * extended + limb) * n, n));
                    let Some((key, permutation)) = turn else {
                        for (to, from) in to.into_iter().zip(lifted) {
                            // SAFETY: whole limbs, the output this task's own.
                            unsafe { std::ptr::copy_nonoverlapping(from, to, n) };
                        }
                        continue;
                    };
                    let terms: Vec<Term> = (0..digits)
                        .map(|k| Term {
                            x: x.digits[((s * digits + k) * extended + limb) * n..][..n].as_ptr(),
                            pair: [0, 1].map(|half| {
                                let poly = 2 * plan.key_digits[k] + half;
                                key.words[(poly * key.limbs + plan.key_limbs[limb]) * n..][..n].as_ptr()
                            }),
                        })
                        .collect();
                    // SAFETY: whole limbs, the sums and the outputs this task's own; the permutation is for this width.
                    unsafe {
                        inner_product::key_inner_product(self.isa, sums, &terms, n, modulus);
                        if limb < plan.window.len() {
                            elementwise::add(self.isa, sums[0], sums[0], lifted[0], n, modulus);
                        }
                        for (to, sum) in to.into_iter().zip(sums) {
                            automorphism::permute(self.isa, to, sum, permutation);
                        }
                    }
                }
            }
        });
        words
    }
}

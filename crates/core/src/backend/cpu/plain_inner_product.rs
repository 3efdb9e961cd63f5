//! Sums of products with plaintexts at hand: [`crate::backend::Kernels::plain_inner_product`].
//!
//! A task is a tile of one limb for all outputs: the ciphertexts' words of the tile are gathered once, the plaintexts stream by.
//! Plaintexts of a lower degree are spread out to a tile in cache before they are multiplied: each is read from memory at its own
//! size, and a diagonal that repeats every few slots costs no memory traffic at all.

use super::CpuBackend;
use super::inner_product::{self, TILE, Term};
use super::parallel::{self, Shared};
use super::words::AlignedWords;
use crate::backend::PlainTerm;
use crate::math::Basis;

/// Words of a tile whose plaintexts are spread out, so that those of an output fit the second-level cache with the ciphertexts.
pub(super) const SPREAD_TILE: usize = 1024;

impl CpuBackend {
    /// On checked arguments: `x(poly, limb)` are the limbs of `polys` ciphertext halves, `plain` `[plain][limb][degree]`. The
    /// result is `[output][2][limb][N]`.
    pub(super) fn plain_inner_product_words<'a>(
        &self,
        x: impl Fn(usize, usize) -> &'a [u32] + Sync,
        polys: usize,
        (plain, degree): (&[u32], usize),
        terms: &[Vec<PlainTerm>],
        basis: &Basis,
    ) -> AlignedWords {
        let (n, limbs) = (self.tables.degree(), basis.len());
        let repeat = n / degree;
        let tile = n.min(if repeat > 1 { SPREAD_TILE } else { TILE });
        let tiles = n / tile;
        let mut words = self.pool.take(terms.len() * 2 * limbs * n);
        let out = Shared::new(words.as_mut_slice());
        let all: usize = terms.iter().map(Vec::len).sum();
        let longest = terms.iter().map(Vec::len).max().unwrap_or(0);
        parallel::each(limbs * tiles, (all + terms.len()) * limbs * n, |i| {
            let (l, at) = (i / tiles, i % tiles * tile);
            // The ciphertexts' words of this tile, side by side: they are read for every term.
            let mut near = Vec::with_capacity(polys * tile);
            for p in 0..polys {
                near.extend_from_slice(&x(p, l)[at..at + tile]);
            }
            let mut spread = vec![0u32; if repeat > 1 { longest * tile } else { 0 }];
            let mut list = Vec::with_capacity(longest);
            for (o, terms) in terms.iter().enumerate() {
                list.clear();
                for (k, t) in terms.iter().enumerate() {
                    let limb = &plain[(t.plain * limbs + l) * degree..][..degree];
                    let factor = if repeat > 1 {
                        let to = &mut spread[k * tile..][..tile];
                        for (j, run) in to.chunks_mut(repeat).enumerate() {
                            run.fill(limb[at / repeat + j]);
                        }
                        to.as_ptr()
                    } else {
                        limb[at..].as_ptr()
                    };
                    list.push(Term { x: factor, pair: [0, 1].map(|half| near[(2 * t.source + half) * tile..].as_ptr()) });
                }
                let to = [0, 1].map(|h| out.piece(((2 * o + h) * limbs + l) * n + at, tile));
                // SAFETY: a tile of each limb, the outputs this task's own.
                unsafe { inner_product::plain_inner_product(self.isa, to, &list, tile, self.modulus(basis, l)) };
            }
        });
        words
    }
}

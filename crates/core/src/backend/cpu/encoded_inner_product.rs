//! Sums of products with plaintexts that do not exist yet: [`crate::backend::Backend::encoded_inner_product`].
//!
//! A plaintext of a convolution is used once. Written out it would cross memory twice (L limbs out, L limbs in); here a
//! task makes one limb of a few plaintexts in its own cache, multiplies and forgets them, so that only the ciphertexts
//! and the integer coefficients (as long as two limbs, whatever L is) are read from memory.

use super::base_convert::padded;
use super::inner_product::{self, Term};
use super::parallel::{self, Shared};
use super::words::AlignedWords;
use super::{CpuBackend, elementwise, ntt};
use crate::backend::{PlainSource, PlainTerm};
use crate::math::Basis;

/// Words of the plaintext limbs made before they are multiplied: few enough for a core's own cache, enough that sums are reduced and
/// written seldom.
const PIECE_WORDS: usize = 6 << 15;
/// Words of each multiplied at a time.
const TILE: usize = 2048;

/// Plaintexts made at once.
fn piece(n: usize) -> usize {
    (PIECE_WORDS / n).clamp(2, 12)
}

impl CpuBackend {
    /// On checked arguments; `x(poly, limb)` are the ciphertexts' limbs. The result is `[output][2][limb][N]`.
    pub(super) fn encoded_inner_product_words<'a>(
        &self,
        x: impl Fn(usize, usize) -> &'a [u32] + Sync,
        source: &dyn PlainSource,
        terms: &[Vec<PlainTerm>],
        basis: &Basis,
    ) -> AlignedWords {
        let (n, limbs, outputs) = (self.tables.degree(), basis.len(), terms.len());
        let longest = terms.iter().map(Vec::len).max().unwrap_or(0);
        // Few limbs and outputs are cut into parts, so that every thread has work; the parts' sums are added at the end.
        let wanted = (4 * rayon::current_num_threads()).div_ceil((limbs * outputs).max(1));
        let piece = piece(n);
        let parts = wanted.min(longest.div_ceil(piece)).max(1);
        let mut words = self.pool.take(outputs * 2 * limbs * n);
        let size = words.len();
        let mut partial = self.pool.take((parts - 1) * size);
        let (out, rest) = (Shared::new(words.as_mut_slice()), Shared::new(partial.as_mut_slice()));
        parallel::each(parts * outputs * limbs, usize::MAX, |i| {
            // All sums of a limb one after the other: its ciphertexts' words are then still in the last-level cache.
            let (l, o, part) = (i / (parts * outputs), i % outputs, i / outputs % parts);
            let length = terms[o].len().div_ceil(parts).next_multiple_of(piece);
            let of_part = &terms[o][(part * length).min(terms[o].len())..((part + 1) * length).min(terms[o].len())];
            let to = [0, 1].map(|h| {
                let at = ((2 * o + h) * limbs + l) * n;
                if part == 0 { out.piece(at, n) } else { rest.piece((part - 1) * size + at, n) }
            });
            self.sum_of_part(&x, source, of_part, (basis, l), to);
        });
        if parts > 1 {
            parallel::each(2 * outputs * limbs, (parts - 1) * size, |i| {
                let to = out.piece(i * n, n);
                for part in 0..parts - 1 {
                    // SAFETY: one limb of each, the output this task's own.
                    unsafe {
                        elementwise::add(self.isa, to, to, rest.piece(part * size + i * n, n), n, self.modulus(basis, i % limbs))
                    };
                }
            });
        }
        words
    }

    fn sum_of_part<'a>(
        &self,
        x: &impl Fn(usize, usize) -> &'a [u32],
        source: &dyn PlainSource,
        terms: &[PlainTerm],
        (basis, l): (&Basis, usize),
        out: [*mut u32; 2],
    ) {
        let n = self.tables.degree();
        let (modulus, table) = (self.modulus(basis, l), self.tables.ntt(basis.limbs()[l]));
        let (stride, tile) = (padded(n), n.min(TILE));
        let count = piece(n);
        let mut scratch = self.pool.take(count.min(terms.len()) * stride);
        let scratch = Shared::new(scratch.as_mut_slice());
        let mut list = Vec::with_capacity(count);
        if terms.is_empty() {
            // SAFETY: whole limbs, this task's own.
            out.iter().for_each(|to| unsafe { to.write_bytes(0, n) });
        }
        for (piece, terms) in terms.chunks(count).enumerate() {
            for (k, term) in terms.iter().enumerate() {
                let plain = scratch.piece(k * stride, n);
                // SAFETY: n initialised words (the pool's are) of this task's own scratch; `ntt_isa` suits the degree.
                unsafe {
                    source.residues(term.plain, l, std::slice::from_raw_parts_mut(plain, n));
                    ntt::forward(self.ntt_isa, plain, plain, table);
                }
            }
            for at in (0..n).step_by(tile) {
                list.clear();
                list.extend(terms.iter().enumerate().map(|(k, t)| Term {
                    x: scratch.piece(k * stride + at, tile),
                    pair: [0, 1].map(|half| x(2 * t.source + half, l)[at..].as_ptr()),
                }));
                // SAFETY: `tile` words from `at` of whole limbs; the outputs and the scratch are this task's own.
                unsafe {
                    let to = out.map(|o| o.add(at));
                    if piece == 0 {
                        inner_product::plain_inner_product(self.isa, to, &list, tile, modulus);
                    } else {
                        inner_product::add_plain_inner_product(self.isa, to, &list, tile, modulus);
                    }
                }
            }
        }
    }
}

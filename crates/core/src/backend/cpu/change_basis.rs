//! Division with rounding from one basis to another (mod_down, rescale, both merged), group of limbs by group of limbs.

use super::base_convert::{Packed, padded};
use super::elementwise::{self, Division, Shoup};
use super::parallel::{self, Shared};
use super::stages::{GROUP_BYTES, Groups, Job, SOURCE_BYTES, Selected, Source};
use super::words::AlignedWords;
use super::{CpuBackend, ntt};
use crate::backend::Shape;
use crate::math::BasisChange;
use std::ops::Range;

impl CpuBackend {
    /// [`crate::backend::Kernels::change_basis`] of selected polynomials, on checked arguments; `positions` of the dropped limbs in the
    /// source.
    pub(super) fn change_basis_words(&self, x: Selected<'_>, change: &BasisChange, positions: &[usize]) -> (Shape, AlignedWords) {
        let n = self.tables.degree();
        let (source, dropped, target) = (change.source.len(), change.dropped.len(), change.target.len());
        let count = x.select.count;
        let out_shape = Shape::new(count, target, n);
        let mut words = self.pool.take(out_shape.words());
        let out = Shared::new(words.as_mut_slice());
        if dropped == 0 {
            self.multiply_kept(x, change, out);
            return (out_shape, words);
        }
        let (bytes, work) = (dropped * padded(n) * 4, count * source * n * 8);
        parallel::items(count, bytes, work, |range| self.change_basis_range(x, change, positions, range, out));
        (out_shape, words)
    }

    fn change_basis_range(
        &self,
        x: Selected<'_>,
        change: &BasisChange,
        positions: &[usize],
        range: Range<usize>,
        out: Shared<'_>,
    ) {
        let n = self.tables.degree();
        let (source, dropped, target) = (change.source.len(), change.dropped.len(), change.target.len());
        let stride = padded(n);
        let batch = (SOURCE_BYTES / (dropped * stride * 4).max(1)).clamp(1, range.len().max(1));
        let mut y = self.pool.take(batch * dropped * stride);
        let mut u = self.pool.take(batch * n);
        let (y, u) = (Shared::new(y.as_mut_slice()), Shared::new(u.as_mut_slice()));
        let conversion = &change.conversion;
        for first in range.clone().step_by(batch) {
            let count = batch.min(range.end - first);
            parallel::each(count * dropped, count * dropped * n * 8, |i| {
                // All polynomials of a limb together: its twiddles are then read once.
                let (c, d) = (i % count, i / count);
                let from = &x.words[(x.poly(first + c) * source + positions[d]) * n..][..n];
                let table = self.tables.ntt(change.dropped.limbs()[d]);
                // SAFETY: one limb, this task's own.
                unsafe {
                    ntt::inverse(
                        self.ntt_isa,
                        from.as_ptr(),
                        y.piece((c * dropped + d) * stride, n),
                        table,
                        conversion.inv_hat[d],
                    )
                };
            });
            let sources: Vec<_> =
                (0..count).map(|c| Source { conversion, y: (y, c * dropped * stride), stride, u: (u, c * n) }).collect();
            self.quotients(&sources);
            let groups: Vec<_> = Groups::new(target, count * n * 4, GROUP_BYTES).of(0..target).collect();
            parallel::each(groups.len(), count * target * n * 16, |g| {
                let (start, end) = (groups[g].start, groups[g].end);
                let place = |c: usize, j: usize| ((first + c) * target + j) * n;
                let jobs: Vec<_> = sources
                    .iter()
                    .enumerate()
                    .map(|(c, source)| Job {
                        source,
                        packed: Packed::new(&self.tables, conversion, start..end),
                        out: (start..end).map(|j| (out, place(c, j))).collect(),
                    })
                    .collect();
                self.convert(&jobs);
                let tasks = (end - start) * count;
                parallel::each(tasks, tasks * n * 8, |i| {
                    let (j, c) = (start + i / count, i % count);
                    let table = self.tables.ntt(change.target.limbs()[j]);
                    let kept = change.source_position[j].map(|p| &x.words[(x.poly(first + c) * source + p) * n..][..n]);
                    let factors = Division {
                        keep: Shoup { constant: change.keep[j], companion: change.keep_shoup[j] },
                        tail: Shoup { constant: change.tail[j], companion: change.tail_shoup[j] },
                    };
                    let to = out.piece(place(c, j), n);
                    let log_blocks = ntt::log_blocks(self.ntt_isa, table.log_n());
                    let len = n >> log_blocks;
                    // SAFETY: one limb, this task's own, block by block.
                    unsafe {
                        ntt::forward_top(self.ntt_isa, to, to, table);
                        for block in 0..1 << log_blocks {
                            ntt::forward_block(self.ntt_isa, to, to, table, block, &[]);
                            let at = block * len;
                            let kept = kept.map(|k| k[at..][..len].as_ptr());
                            elementwise::divide_tail(self.isa, to.add(at), kept, factors, len, table.modulus());
                        }
                    }
                });
            });
        }
    }

    /// Nothing is dropped: `x prod(incoming)`, which is 0 modulo the incoming primes. No transform.
    fn multiply_kept(&self, x: Selected<'_>, change: &BasisChange, out: Shared<'_>) {
        let n = self.tables.degree();
        let (source, target, polys) = (change.source.len(), change.target.len(), x.select.count);
        parallel::each(polys * target, polys * target * n, |i| {
            let (p, j) = (i / target, i % target);
            let to = out.piece(i * n, n);
            let m = self.tables.modulus(change.target.limbs()[j]);
            match change.source_position[j] {
                Some(from) => {
                    let from = x.words[(x.poly(p) * source + from) * n..][..n].as_ptr();
                    // SAFETY: one limb, this task's own.
                    unsafe { elementwise::mul_constant(self.isa, to, from, change.keep[j], n, m) }
                }
                // SAFETY: as above.
                None => unsafe { to.write_bytes(0, n) },
            }
        });
    }
}

//! Transforms: how their stages are cut into dispatches and rounds.

use super::memory::DeviceWords;
use super::registry::Kernel;
use super::{GpuBackend, word};
use crate::backend::{Buffer, PolySelect, Result, Shape};
use crate::math::{Basis, LimbId, NttTable};

/// log2 of the words of the largest tile: 16 KiB of workgroup memory.
const LOG_TILE: u32 = 12;
/// Stages of the dispatch on neighbouring words, where there are two.
const LOG_BLOCK: u32 = 8;
/// Stages of a round in registers.
const ROUND: u32 = 4;
/// Where the rows of the arguments start.
const ROWS: usize = 24;

/// Some stages of a transform, on tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pass {
    log_n: u32,
    /// Stages done before and after it, in the forward transform's order.
    stages: (u32, u32),
    log_tile: u32,
    /// log2 of the neighbouring words that a row of a tile holds.
    log_row: u32,
    /// log2 of the words between rows.
    log_between: u32,
}

impl Pass {
    /// The passes of a forward transform in order.
    fn of(log_n: u32) -> Vec<Self> {
        if log_n <= LOG_TILE {
            return vec![Self { log_n, stages: (0, log_n), log_tile: log_n, log_row: log_n, log_between: 0 }];
        }
        // At most eight stages on columns leave rows of sixteen words.
        let columns = (log_n - LOG_BLOCK).min(LOG_TILE - 4);
        vec![
            Self { log_n, stages: (0, columns), log_tile: LOG_TILE, log_row: LOG_TILE - columns, log_between: log_n - columns },
            Self { log_n, stages: (columns, log_n), log_tile: LOG_TILE, log_row: LOG_TILE, log_between: 0 },
        ]
    }

    /// (log2 of the stride in the tile, first stage of the network, stages left out) of each round of a forward pass.
    fn rounds(&self) -> Vec<[u32; 3]> {
        let (mut done, last) = self.stages;
        let mut rounds = Vec::new();
        while done < last {
            // The first round is a whole one: the blocks of a part of one must lie within the tile.
            let left = last - done;
            let stages = if rounds.is_empty() { ROUND } else { left.div_ceil(left.div_ceil(ROUND)) };
            done += stages;
            // Rows of a tile of columns are one word of the limb's stride apart; the rest of the tile are neighbours.
            let log_stride = if self.log_between > 0 { self.stages.1 - done + self.log_row } else { self.log_n - done };
            rounds.push([log_stride, done - ROUND, ROUND - stages]);
        }
        rounds
    }
}

/// One limb to transform: where it is read and written, in limbs of a polynomial, its prime, and a factor (inverse only).
#[derive(Debug, Clone, Copy)]
pub struct Limb {
    pub from: usize,
    pub to: usize,
    pub id: LimbId,
    pub factor: u32,
}

/// Polynomials of a buffer.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub buffer: &'a wgpu::Buffer,
    pub select: PolySelect,
    /// Words of a polynomial.
    pub size: usize,
}

impl GpuBackend {
    /// Whether transforms take two dispatches, so that their source may be their output.
    pub(super) fn two_passes(&self) -> bool {
        self.tables.log_n() > LOG_TILE
    }

    fn factors(&self, limb: &Limb) -> [u32; 4] {
        let table: &NttTable = self.tables.ntt(limb.id);
        let m = table.modulus();
        let c = m.mul(table.n_inv(), limb.factor);
        let difference = m.mul(c, table.inverse().0[1]);
        [c, m.shoup(c), difference, m.shoup(difference)]
    }

    /// Transforms limbs of the source's polynomials to `out`, `size` words a polynomial. With two passes `middle` holds the
    /// words between them, and the source may be `out`.
    pub(super) fn transform(
        &self,
        inverse: bool,
        source: Source<'_>,
        limbs: &[Limb],
        middle: &DeviceWords,
        (out, size): (&DeviceWords, usize),
    ) -> Result<()> {
        let mut passes = Pass::of(self.tables.log_n());
        if inverse {
            passes.reverse();
        }
        let n = self.tables.degree();
        let count = passes.len();
        for (i, pass) in passes.iter().enumerate() {
            let last = i + 1 == count;
            let mut rounds = pass.rounds();
            if inverse {
                rounds.reverse();
            }
            let (buffer, select, from_size) = if i == 0 {
                (source.buffer, source.select, source.size)
            } else {
                (middle.buffer(), PolySelect { first: 0, stride: 1, count: source.select.count }, size)
            };
            let mut args = vec![pass.log_n, pass.log_tile, pass.log_row, pass.log_between];
            args.extend([select.first * from_size, select.stride * from_size, size, rounds.len()].map(word));
            args.extend(rounds.iter().flat_map(|&[stride, stage, out]| [stride, stage, out, 0]));
            args.resize(20, 0);
            args.push(u32::from(last));
            args.resize(ROWS, 0);
            for limb in limbs {
                args.extend([if i == 0 { limb.from } else { limb.to }, limb.to, limb.id.index()].map(word));
                args.extend(self.factors(limb));
                args.push(0);
            }
            let to = if last { out } else { middle };
            let kernel = if inverse { Kernel::Inverse } else { Kernel::Forward };
            let buffers = [&self.moduli, &self.twiddles[usize::from(inverse)], buffer, to.buffer()];
            self.device.dispatch(kernel, &args, &buffers, [n >> pass.log_tile, limbs.len(), select.count])?;
        }
        Ok(())
    }

    /// Transforms all limbs of a buffer.
    pub(super) fn transform_in_place(&self, data: &mut Buffer, basis: &Basis, inverse: bool, op: &'static str) -> Result<()> {
        self.host.check_basis(data.shape(), basis, op)?;
        let shape: Shape = data.shape();
        let limbs: Vec<_> = basis.limbs().iter().enumerate().map(|(l, &id)| Limb { from: l, to: l, id, factor: 1 }).collect();
        let buffer = self.read(data, op)?;
        let source = Source { buffer, select: PolySelect::all(shape), size: shape.poly_words() };
        let out = self.take(shape, op)?;
        if self.two_passes() {
            let middle = self.take(shape, op)?;
            self.transform(inverse, source, &limbs, &middle, (&out, shape.poly_words()))?;
        } else {
            self.transform(inverse, source, &limbs, &out, (&out, shape.poly_words()))?;
        }
        self.replace(data, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_do_every_stage_once_within_their_tiles() {
        for log_n in NttTable::MIN_LOG_N..=NttTable::MAX_LOG_N {
            let passes = Pass::of(log_n);
            assert_eq!(passes.first().unwrap().stages.0, 0);
            assert_eq!(passes.last().unwrap().stages.1, log_n);
            assert!(passes.windows(2).all(|p| p[0].stages.1 == p[1].stages.0));
            for pass in passes {
                let mut done = pass.stages.0;
                assert!(pass.rounds().len() <= 3);
                for [log_stride, stage, left_out] in pass.rounds() {
                    assert!(log_stride + ROUND <= pass.log_tile, "2^{log_n} {pass:?}");
                    assert_eq!(stage + left_out, done);
                    done = stage + ROUND;
                }
                assert_eq!(done, pass.stages.1);
            }
        }
    }
}

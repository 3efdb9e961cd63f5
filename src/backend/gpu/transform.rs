//! Transforms: how their stages are cut into dispatches and rounds.

use super::arguments::{Transform, TransformRow, row, words};
use super::commands::View;
use super::device::Constants;
use super::polys::{Strip, Window};
use super::registry::{Kernel, LOG_TILE};
use super::{GpuBackend, word};
use crate::backend::{Buffer, Result};
use crate::math::{BaseConversion, Basis, BasisChange, LimbId, NttTable};

/// Stages of the dispatch on neighbouring words, where there are two.
const LOG_BLOCK: u32 = 8;
/// Limbs that a transform converts as it reads them, at most: with more, reading them for every target costs more than a write.
pub(super) const FEW: usize = 6;
/// Stages of a round in registers.
const ROUND: u32 = 4;

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

/// A pass of a transform in one direction.
#[derive(Debug, Clone, Copy)]
struct Step<'a> {
    pass: &'a Pass,
    inverse: bool,
    /// Whether it is the last of the transform.
    ends: bool,
}

impl Step<'_> {
    /// What a pipeline of it is made for (shaders/ntt.wgsl); `converts` limbs as it reads them.
    fn constants(&self, in_place: bool, converts: usize) -> Constants {
        let Self { pass, inverse, ends } = *self;
        let mut rounds = pass.rounds();
        if inverse {
            rounds.reverse();
        }
        let mut all = vec![
            ("LOG_N", pass.log_n),
            ("LOG_TILE", pass.log_tile),
            ("LOG_ROW", pass.log_row),
            ("LOG_BETWEEN", pass.log_between),
            ("ENDS", u32::from(ends)),
            ("IN_PLACE", u32::from(in_place)),
            ("CONVERTS", word(converts)),
            ("ROUNDS", word(rounds.len())),
        ];
        const NAMES: [[&str; 3]; 3] =
            [["STRIDE_0", "STAGE_0", "SKIPPED_0"], ["STRIDE_1", "STAGE_1", "SKIPPED_1"], ["STRIDE_2", "STAGE_2", "SKIPPED_2"]];
        all.extend(NAMES.into_iter().zip(rounds).flat_map(|(names, numbers)| names.into_iter().zip(numbers)));
        all
    }
}

/// Kernels whose pipelines are made for a pass.
pub(super) const KERNELS: [Kernel; 3] = [Kernel::Forward, Kernel::Inverse, Kernel::ForwardDivide];

/// All pipelines of [`KERNELS`] that a degree needs.
pub(super) fn variants(log_n: u32) -> Vec<(Kernel, Constants)> {
    let passes = Pass::of(log_n);
    let last = passes.len() - 1;
    let mut all = Vec::new();
    for (i, pass) in passes.iter().enumerate() {
        let forward = Step { pass, inverse: false, ends: i == last };
        let inverse = Step { pass, inverse: true, ends: i == 0 };
        // Only the first dispatch of a transform reads elsewhere.
        for in_place in [true, false] {
            if in_place || i == 0 {
                all.push((Kernel::Forward, forward.constants(in_place, 0)));
            }
            if in_place || i == last {
                all.push((Kernel::Inverse, inverse.constants(in_place, 0)));
            }
        }
        if i == last {
            all.push((Kernel::ForwardDivide, forward.constants(false, 0)));
        } else {
            all.extend((1..=FEW).map(|few| (Kernel::Forward, forward.constants(false, few))));
        }
    }
    all
}

/// One limb to transform: where it is read and written, in limbs of a polynomial, its prime, and a factor (inverse only).
#[derive(Debug, Clone, Copy)]
pub(super) struct Limb {
    pub from: usize,
    pub to: usize,
    pub id: LimbId,
    pub factor: u32,
}

impl Limb {
    fn row(&self) -> TransformRow {
        let [source, output, prime] = [self.from, self.to, self.id.index()].map(word);
        TransformRow { source, output, prime, ..Default::default() }
    }
}

/// Where a transform reads from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// The place it writes to.
    Output,
    /// Polynomials of another buffer.
    Other(Window<'a>),
    /// Scaled limbs from the first one of each polynomial of another buffer on, [`FEW`] at most, converted to each limb.
    Converted(Window<'a>, &'a BaseConversion),
}

/// What follows the last stage of a forward transform of u: `out = kept keep - u tail`, and for rotations more.
#[derive(Debug)]
pub(super) struct Tail<'a> {
    pub change: &'a BasisChange,
    /// The divided polynomials.
    pub kept: Window<'a>,
    pub rotation: Option<RotationTail<'a>>,
    /// What first halves add, for each run of as many polynomials: `[run][limb]`.
    pub constants: Option<(&'a [Vec<u32>], usize)>,
    /// The first polynomial's place among all.
    pub first: usize,
}

/// Adds first halves and permutes.
#[derive(Debug)]
pub(super) struct RotationTail<'a> {
    /// Inverses of the Galois elements, one for each rotation.
    pub inverses: &'a [u32],
    /// Polynomials of a rotation: two for each shard.
    pub polys: usize,
    /// The ciphertexts, `[shard][2]`: their first halves are added.
    pub added: Window<'a>,
}

impl GpuBackend {
    fn factors(&self, limb: &Limb) -> [u32; 4] {
        let table: &NttTable = self.tables.ntt(limb.id);
        let m = table.modulus();
        let c = m.mul(table.n_inv(), limb.factor);
        let difference = m.mul(c, table.inverse().0[1]);
        [c, m.shoup(c), difference, m.shoup(difference)]
    }

    /// What a pass is told before its rows.
    fn of_pass(source: Source<'_>, size: usize) -> Transform {
        let (first, stride) = match source {
            Source::Output => (0, 0),
            Source::Other(window) | Source::Converted(window, _) => (window.first, window.stride),
        };
        let [source, source_stride, output_stride] = [first, stride, size].map(word);
        Transform { source, source_stride, output_stride, ..Default::default() }
    }

    /// Transforms limbs of `count` polynomials to `out`.
    pub(super) fn transform(
        &self,
        inverse: bool,
        source: Source<'_>,
        limbs: &[Limb],
        out: Strip<'_>,
        count: usize,
    ) -> Result<()> {
        let mut passes = Pass::of(self.tables.log_n());
        if inverse {
            passes.reverse();
        }
        let last = passes.len() - 1;
        for (i, pass) in passes.iter().enumerate() {
            let source = if i == 0 { source } else { Source::Output };
            self.pass(Step { pass, inverse, ends: i == last }, source, limbs, out, count)?;
        }
        Ok(())
    }

    fn pass(&self, step: Step<'_>, source: Source<'_>, limbs: &[Limb], out: Strip<'_>, count: usize) -> Result<()> {
        let Step { pass, inverse, .. } = step;
        let row = |limb: &Limb| {
            let [x, x_shoup, y, y_shoup] = if inverse { self.factors(limb) } else { [0; 4] };
            TransformRow { x, x_shoup, y, y_shoup, ..limb.row() }
        };
        let mut rows: Vec<_> = limbs.iter().map(row).collect();
        let mut converts = 0;
        let from = match source {
            // Bound and not read.
            Source::Output => self.moduli(),
            Source::Other(window) => window.view,
            Source::Converted(window, conversion) => {
                converts = conversion.from.len();
                self.conversion_columns(&mut rows, limbs, conversion);
                window.view
            }
        };
        let args = words(&Self::of_pass(source, out.size), &rows);
        let kernel = if inverse { Kernel::Inverse } else { Kernel::Forward };
        let views = [self.moduli(), View::all(&self.twiddles[usize::from(inverse)]), from, out.view];
        let grid = [self.tables.degree() >> pass.log_tile, limbs.len(), count];
        let constants = step.constants(matches!(source, Source::Output), converts);
        let read = if converts > 0 { converts } else { limbs.len() };
        let moved = count * (read + limbs.len()) * self.tables.degree() + self.twiddle_words(pass, limbs);
        self.device.dispatch_specialised((kernel, constants), &args, &views, grid, moved)
    }

    /// Words of the twiddles that a pass reads, those of a prime once.
    fn twiddle_words(&self, pass: &Pass, limbs: &[Limb]) -> usize {
        let mut seen = vec![false; self.tables.len()];
        let first = |l: &&Limb| !std::mem::replace(&mut seen[l.id.index()], true);
        let primes = limbs.iter().filter(first).count();
        2 * primes * ((1 << pass.stages.1) - (1 << pass.stages.0))
    }

    /// What rows say of a conversion to their limbs.
    fn conversion_columns(&self, rows: &mut [TransformRow], limbs: &[Limb], conversion: &BaseConversion) {
        let terms = conversion.from.len();
        let or_none = |words: &[u32], i: usize| words.get(i).copied().unwrap_or(0);
        for (row, limb) in rows.iter_mut().zip(limbs) {
            let factors = &conversion.matrix[limb.to * terms..][..terms];
            row.source = 0;
            row.product = conversion.neg_product[limb.to];
            [row.factor_0, row.factor_1, row.factor_2, row.factor_3, row.factor_4, row.factor_5] =
                std::array::from_fn(|i| or_none(factors, i));
        }
        let first = &mut rows[0];
        let reciprocals: [u32; FEW] = std::array::from_fn(|i| or_none(&conversion.reciprocal, i));
        [
            first.reciprocal_0,
            first.reciprocal_1,
            first.reciprocal_2,
            first.reciprocal_3,
            first.reciprocal_4,
            first.reciprocal_5,
        ] = reciprocals;
    }

    /// Whether [`Self::transform_divide`] can convert so many limbs as it reads them.
    pub(super) fn converts_few(&self, limbs: usize) -> bool {
        (1..=FEW).contains(&limbs) && self.tables.log_n() > LOG_TILE
    }

    /// The forward transform of `count` polynomials u over the target of a division, in place but for its start, which may convert what
    /// it reads, and its end, which writes what becomes of them to `out`.
    pub(super) fn transform_divide(
        &self,
        start: Source<'_>,
        u: Strip<'_>,
        tail: &Tail<'_>,
        out: Window<'_>,
        count: usize,
    ) -> Result<()> {
        let change = tail.change;
        let passes = Pass::of(self.tables.log_n());
        let Some((last, before)) = passes.split_last() else { return Ok(()) };
        let limbs: Vec<_> =
            change.target.limbs().iter().enumerate().map(|(j, &id)| Limb { from: j, to: j, id, factor: 1 }).collect();
        for (i, pass) in before.iter().enumerate() {
            let source = if i == 0 { start } else { Source::Output };
            self.pass(Step { pass, inverse: false, ends: false }, source, &limbs, u, count)?;
        }
        let source = Source::Other(Window { view: u.view, first: 0, stride: u.size });
        let mut call = Self::of_pass(source, out.stride);
        [call.kept_first, call.kept_stride, call.output] = [tail.kept.first, tail.kept.stride, out.first].map(word);
        let row_of = |limb: &Limb| {
            let j = limb.to;
            let kept = word(change.source_position[j].map_or(0, |p| p + 1));
            let (x, x_shoup, y, y_shoup) = (change.keep[j], change.keep_shoup[j], change.tail[j], change.tail_shoup[j]);
            TransformRow { kept, x, x_shoup, y, y_shoup, ..limb.row() }
        };
        let mut rows: Vec<_> = limbs.iter().map(row_of).collect();
        [call.first, call.limb_count] = [tail.first, limbs.len()].map(word);
        if let Some((constants, polys)) = tail.constants {
            call.constant_polys = word(polys);
            constants.iter().flatten().enumerate().for_each(|(i, &constant)| row(&mut rows, i).constant = constant);
        }
        let mut added = self.moduli();
        if let Some(rotation) = &tail.rotation {
            call.rotation_polys = word(rotation.polys);
            [call.added, call.added_stride] = [rotation.added.first, rotation.added.stride].map(word);
            rotation.inverses.iter().enumerate().for_each(|(r, &inverse)| row(&mut rows, r).galois_inverse = inverse);
            added = rotation.added.view;
        }
        let args = words(&call, &rows);
        let views = [self.moduli(), View::all(&self.twiddles[0]), u.view, out.view, tail.kept.view, added];
        let grid = [self.tables.degree() >> last.log_tile, limbs.len(), count];
        let kept = change.source_position.iter().flatten().count();
        // What rotations add, to every other polynomial, is of each shard once.
        let shared = tail.rotation.as_ref().map_or(0, |r| (count / 2).min(r.polys / 2) * limbs.len());
        let words_of_limbs = (count * (2 * limbs.len() + kept) + shared) * self.tables.degree();
        let moved = words_of_limbs + self.twiddle_words(last, &limbs);
        let pipeline = (Kernel::ForwardDivide, Step { pass: last, inverse: false, ends: true }.constants(false, 0));
        self.device.dispatch_specialised(pipeline, &args, &views, grid, moved)
    }

    /// Transforms all limbs of a buffer in place.
    pub(super) fn transform_in_place(&self, data: &Buffer, basis: &Basis, inverse: bool, op: &'static str) -> Result<()> {
        self.checks().basis(data.shape(), basis, op)?;
        let limbs: Vec<_> = basis.limbs().iter().enumerate().map(|(l, &id)| Limb { from: l, to: l, id, factor: 1 }).collect();
        let polys = self.polys(data, op)?;
        for range in self.batches(polys.count, &[polys.size], 1, op)? {
            let view = polys.window(range.start, range.len()).view;
            self.transform(inverse, Source::Output, &limbs, Strip { view, size: polys.size }, range.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_degree_has_few_pipelines_and_no_two_are_the_same() {
        for log_n in NttTable::MIN_LOG_N..=NttTable::MAX_LOG_N {
            let mut all = variants(log_n);
            let count = all.len();
            assert_eq!(count, if log_n <= LOG_TILE { 5 } else { 7 + FEW });
            all.sort_by_key(|(kernel, constants)| (*kernel as usize, constants.clone()));
            all.dedup();
            assert_eq!(all.len(), count);
        }
    }

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

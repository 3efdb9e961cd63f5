//! A convolution, or a pooling, between two layouts.

use super::dense::keep_one;
use super::rotations::ConvRotations;
use crate::circuits::SlotMatrix;
use crate::nn::layout::Layout;
use crate::nn::model::Window;
use rayon::prelude::*;
use std::sync::{Arc, OnceLock};

/// What a convolution multiplies with.
#[derive(Clone)]
pub(super) struct ConvWeights {
    /// `[out][in / groups][kernel row][kernel column]`.
    pub weight: Vec<f64>,
    /// Inputs of a group.
    pub per_group: usize,
    pub groups: usize,
    pub window: Window,
    /// A factor for each output row and each output column (an average that leaves out the padding).
    pub factors: Option<(Vec<f64>, Vec<f64>)>,
}

/// A convolution as a matrix of slots.
///
/// A diagonal is made by looking up, for each slot s, the output element at s and the input element at s + rotation,
/// and the kernel tap that joins them, if any. A slot without output element gets 0, and one without input element is
/// multiplied by 0: what unused slots hold does not matter.
pub(super) struct ConvMatrix {
    weights: Arc<ConvWeights>,
    input: Layout,
    output: Layout,
    /// Made for the first diagonal: planning asks for none.
    slots: OnceLock<Slots>,
    rotations: Arc<Vec<Vec<u32>>>,
}

/// What stands in the slots.
struct Slots {
    /// Input elements by shard.
    sources: Vec<Coordinates>,
    /// Output elements by shard: the channel is the first of the group's inputs, row and column are those that the
    /// kernel's first tap reads.
    targets: Vec<Coordinates>,
    /// By output shard and slot, where the weights of the output start.
    starts: Vec<Vec<u32>>,
    /// By output shard and slot, if there are factors.
    factors: Option<Vec<Vec<f64>>>,
}

/// What stands in the slots of a shard. Where nothing does, the coordinates are so far off that no kernel reaches them.
#[derive(Clone)]
struct Coordinates {
    channel: Vec<i32>,
    row: Vec<i32>,
    column: Vec<i32>,
}

/// A row that no kernel reaches from a picture, for a slot without source; its negative is the one without target.
/// Sizes, paddings and kernels are at most 2^16 ([`crate::nn::model::MAX_EXTENT`]), dilation included below 2^27.
const NOWHERE: i32 = 1 << 28;

/// Slots looked up together.
const CHUNK: usize = 64;

impl std::fmt::Debug for ConvMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let products: usize = self.rotations.iter().map(Vec::len).sum();
        let (i, o) = (self.input.shards(), self.output.shards());
        write!(f, "ConvMatrix({i} -> {o} shards, {products} diagonals, {:?})", self.weights.window)
    }
}

impl Slots {
    fn new(weights: &ConvWeights, input: &Layout, output: &Layout) -> Self {
        let (slots, window) = (input.slots(), weights.window);
        let nothing = |row| Coordinates { channel: vec![0; slots], row: vec![row; slots], column: vec![0; slots] };
        let mut sources = vec![nothing(NOWHERE); input.shards()];
        let (width, plane) = (input.shape().width, input.shape().plane());
        input.for_each(|i, place| {
            let shard = &mut sources[place.shard];
            shard.channel[place.slot] = (i / plane) as i32;
            shard.row[place.slot] = (i % plane / width) as i32;
            shard.column[place.slot] = (i % width) as i32;
        });

        let mut targets = vec![nothing(-NOWHERE); output.shards()];
        let mut starts = vec![vec![0; slots]; output.shards()];
        let mut factors = weights.factors.as_ref().map(|_| vec![vec![1.0; slots]; output.shards()]);
        let (width, plane) = (output.shape().width, output.shape().plane());
        let per_output = weights.per_group * window.kernel[0] * window.kernel[1];
        let outputs_per_group = output.shape().channels / weights.groups;
        output.for_each(|i, place| {
            let (channel, row, column) = (i / plane, i % plane / width, i % width);
            let shard = &mut targets[place.shard];
            shard.channel[place.slot] = (channel / outputs_per_group * weights.per_group) as i32;
            shard.row[place.slot] = (row * window.stride[0]) as i32 - window.padding[0] as i32;
            shard.column[place.slot] = (column * window.stride[1]) as i32 - window.padding[1] as i32;
            starts[place.shard][place.slot] = (channel * per_output) as u32;
            if let (Some(factors), Some((rows, columns))) = (&mut factors, &weights.factors) {
                factors[place.shard][place.slot] = rows[row] * columns[column];
            }
        });

        Self { sources, targets, starts, factors }
    }
}

impl ConvMatrix {
    /// The matrix that takes a tensor in layout `input` to its convolution in layout `output`, with rotations found by
    /// [`Self::rotations_of`], for these weights or others that are zero at the same places.
    pub(super) fn new(weights: Arc<ConvWeights>, input: &Layout, output: &Layout, rotations: Arc<Vec<Vec<u32>>>) -> Self {
        Self { weights, input: input.clone(), output: output.clone(), slots: OnceLock::new(), rotations }
    }

    /// The rotations between two layouts whose diagonals are not all zero: `[output shard * input shards + input shard]`.
    pub(super) fn rotations_of(weights: &Arc<ConvWeights>, input: &Layout, output: &Layout) -> Arc<Vec<Vec<u32>>> {
        let mut rotations = ConvRotations::new(input, output, &weights.window, weights.groups).into_lists();
        keep_one(&mut rotations);
        // These are those of a kernel without zeros.
        if weights.weight.contains(&0.0) {
            rotations = Self::new(weights.clone(), input, output, Arc::new(rotations)).nonempty_diagonals();
        }
        Arc::new(rotations)
    }

    fn slots_of(&self) -> &Slots {
        self.slots.get_or_init(|| Slots::new(&self.weights, &self.input, &self.output))
    }

    fn nonempty_diagonals(&self) -> Vec<Vec<u32>> {
        let inputs = self.input.shards();
        let kept = self.rotations.par_iter().enumerate().map(|(block, rotations)| {
            let (o, i) = (block / inputs, block % inputs);
            rotations.iter().copied().filter(|r| self.has_weight(o, i, *r as usize)).collect()
        });
        let mut kept: Vec<Vec<u32>> = kept.collect();
        keep_one(&mut kept);
        kept
    }

    /// Whether any weight on a diagonal is not zero: looks no further than the first one.
    fn has_weight(&self, output: usize, input: usize, rotation: usize) -> bool {
        let mut values = [0.0; 8 * CHUNK];
        let slots = self.slots();
        let spans = [(0, rotation, slots - rotation), (slots - rotation, 0, rotation)];
        spans.into_iter().any(|(to, from, len)| {
            (0..len).step_by(values.len()).any(|skip| {
                let part = &mut values[..(len - skip).min(8 * CHUNK)];
                self.fill_any(output, input, (to + skip, from + skip), part);
                part.iter().any(|v| *v != 0.0)
            })
        })
    }

    fn fill_any(&self, output: usize, input: usize, at: (usize, usize), values: &mut [f64]) {
        if self.weights.window.dilation == [1, 1] {
            self.fill::<false>(output, input, at, values);
        } else {
            self.fill::<true>(output, input, at, values);
        }
    }

    /// Fills `values` with the weights that join the targets of shard `output` from slot `to` on with the sources of
    /// shard `input` from slot `from` on; neither wraps around.
    fn fill<const DILATED: bool>(&self, output: usize, input: usize, (to, from): (usize, usize), values: &mut [f64]) {
        let ConvWeights { weight, per_group, window, .. } = &*self.weights;
        let [kh, kw] = window.kernel.map(|k| k as i32);
        let [vertical, horizontal] = window.dilation.map(|d| d as i32);
        let (inputs, taps) = (*per_group as i32, kh * kw);
        let Slots { sources, targets, starts, .. } = self.slots_of();
        let (target, source, starts) = (&targets[output], &sources[input], &starts[output]);
        for (n, chunk) in values.chunks_mut(CHUNK).enumerate() {
            let (t, s, len) = (to + n * CHUNK, from + n * CHUNK, chunk.len());
            let (tc, tr, tx) = (&target.channel[t..t + len], &target.row[t..t + len], &target.column[t..t + len]);
            let (sc, sr, sx) = (&source.channel[s..s + len], &source.row[s..s + len], &source.column[s..s + len]);
            let start = &starts[t..t + len];
            // Indices first, without branches, so that this loop runs in vectors.
            let mut at = [u32::MAX; CHUNK];
            for i in 0..len {
                let (channel, mut row, mut column) = (sc[i] - tc[i], sr[i] - tr[i], sx[i] - tx[i]);
                let mut joined = true;
                if DILATED {
                    joined = row % vertical == 0 && column % horizontal == 0;
                    (row, column) = (row / vertical, column / horizontal);
                    // A division that rounds to 0 from below must not pass; the remainder has told them apart.
                }
                joined &= within(channel, inputs) & within(row, kh) & within(column, kw);
                let index = start[i]
                    .wrapping_add((channel.wrapping_mul(taps)).wrapping_add(row.wrapping_mul(kw)).wrapping_add(column) as u32);
                at[i] = if joined { index } else { u32::MAX };
            }
            for (value, at) in chunk.iter_mut().zip(at) {
                *value = weight.get(at as usize).copied().unwrap_or(0.0);
            }
        }
    }
}

/// `0 <= x < end`.
#[inline(always)]
fn within(x: i32, end: i32) -> bool {
    (x as u32) < end as u32
}

impl SlotMatrix for ConvMatrix {
    fn inputs(&self) -> usize {
        self.input.shards()
    }

    fn outputs(&self) -> usize {
        self.output.shards()
    }

    fn slots(&self) -> usize {
        self.input.slots()
    }

    fn rotations(&self, output: usize, input: usize) -> &[u32] {
        &self.rotations[output * self.input.shards() + input]
    }

    fn diagonal(&self, output: usize, input: usize, rotation: u32, values: &mut [f64]) {
        let rotation = rotation as usize % self.slots();
        let (straight, wrapped) = values.split_at_mut(self.slots() - rotation);
        self.fill_any(output, input, (0, rotation), straight);
        self.fill_any(output, input, (straight.len(), 0), wrapped);
        if let Some(factors) = &self.slots_of().factors {
            values.iter_mut().zip(&factors[output]).for_each(|(v, f)| *v *= f);
        }
    }
}

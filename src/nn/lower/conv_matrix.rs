//! A convolution, or a pooling, between two layouts.

use super::dense::nonzero_rotations;
use super::rotations::ConvRotations;
use crate::circuits::SlotMatrix;
use crate::nn::layout::Layout;
use crate::nn::model::Window;
use std::sync::Arc;

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
    slots: usize,
    inputs: Vec<Vec<Source>>,
    outputs: Vec<Vec<Target>>,
    rotations: Vec<Vec<u32>>,
}

/// The input element in a slot.
#[derive(Clone, Copy)]
struct Source {
    /// Channel, or [`NONE`].
    channel: u32,
    row: i32,
    column: i32,
}

/// The output element in a slot.
#[derive(Clone, Copy)]
struct Target {
    /// Channel, or [`NONE`].
    channel: u32,
    /// First input channel of its group.
    first: u32,
    /// Input row and column that the kernel's first tap reads; may lie in the padding.
    row: i32,
    column: i32,
    factor: f64,
}

/// No element. Far from any channel, so that no range check passes.
const NONE: u32 = u32::MAX;

impl std::fmt::Debug for ConvMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let products: usize = self.rotations.iter().map(Vec::len).sum();
        let (i, o) = (self.inputs.len(), self.outputs.len());
        write!(f, "ConvMatrix({i} -> {o} shards, {products} diagonals, {:?})", self.weights.window)
    }
}

impl ConvMatrix {
    /// The matrix that takes a tensor in layout `input` to its convolution in layout `output`.
    pub fn new(weights: Arc<ConvWeights>, input: &Layout, output: &Layout) -> Self {
        let (slots, window) = (input.slots(), weights.window);
        let none = Source { channel: NONE, row: 0, column: 0 };
        let mut inputs = vec![vec![none; slots]; input.shards()];
        let (width, plane) = (input.shape().width, input.shape().plane());
        input.for_each(|i, place| {
            let (row, column) = ((i % plane / width) as i32, (i % width) as i32);
            inputs[place.shard][place.slot] = Source { channel: (i / plane) as u32, row, column };
        });

        let none = Target { channel: NONE, first: 0, row: 0, column: 0, factor: 1.0 };
        let mut outputs = vec![vec![none; slots]; output.shards()];
        let (width, plane) = (output.shape().width, output.shape().plane());
        let (ci, co) = (input.shape().channels / weights.groups, output.shape().channels / weights.groups);
        output.for_each(|i, place| {
            let (channel, row, column) = (i / plane, i % plane / width, i % width);
            outputs[place.shard][place.slot] = Target {
                channel: channel as u32,
                first: (channel / co * ci) as u32,
                row: (row * window.stride[0]) as i32 - window.padding[0] as i32,
                column: (column * window.stride[1]) as i32 - window.padding[1] as i32,
                factor: weights.factors.as_ref().map_or(1.0, |(r, c)| r[row] * c[column]),
            };
        });

        let sets = ConvRotations::new(input, output, &window, weights.groups).sets;
        let rotations = sets.iter().map(|s| s.iter().map(|r| r as u32).collect()).collect();
        let mut matrix = Self { weights, slots, inputs, outputs, rotations };
        if matrix.weights.weight.contains(&0.0) {
            matrix.rotations = nonzero_rotations(&matrix);
        }
        matrix
    }

    #[inline]
    fn tap(&self, target: &Target, source: &Source) -> f64 {
        let ConvWeights { weight, per_group, window, .. } = &*self.weights;
        let [kh, kw] = window.kernel;
        let channel = source.channel.wrapping_sub(target.first) as usize;
        let (dy, dx) = (source.row - target.row, source.column - target.column);
        if channel >= *per_group || target.channel == NONE || dy < 0 || dx < 0 {
            return 0.0;
        }
        let (dy, dx) = (dy as usize, dx as usize);
        let [vertical, horizontal] = window.dilation;
        let (ky, kx) = (dy / vertical, dx / horizontal);
        if ky >= kh || kx >= kw || ky * vertical != dy || kx * horizontal != dx {
            return 0.0;
        }
        weight[((target.channel as usize * per_group + channel) * kh + ky) * kw + kx] * target.factor
    }
}

impl SlotMatrix for ConvMatrix {
    fn inputs(&self) -> usize {
        self.inputs.len()
    }

    fn outputs(&self) -> usize {
        self.outputs.len()
    }

    fn slots(&self) -> usize {
        self.slots
    }

    fn rotations(&self, output: usize, input: usize) -> &[u32] {
        &self.rotations[output * self.inputs.len() + input]
    }

    fn diagonal(&self, output: usize, input: usize, rotation: u32, values: &mut [f64]) {
        let (targets, sources) = (&self.outputs[output], &self.inputs[input]);
        let (wrapped, straight) = sources.split_at(rotation as usize % self.slots);
        for ((value, target), source) in values.iter_mut().zip(targets).zip(straight.iter().chain(wrapped)) {
            *value = self.tap(target, source);
        }
    }
}

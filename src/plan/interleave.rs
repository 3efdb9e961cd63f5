//! Several inputs in one run, where one leaves slots free.
//!
//! Slot s of input i becomes slot `count * s + i`. A rotation by r of the one input is then a rotation by `count * r` of
//! all, and whatever a program does to one it does to the others, wrapping included: with inputs one after the other, what
//! a rotation carries over the end of one would come out in the next. A run pays for slots, so `count` inputs cost little
//! more than one.

use super::program::{Operation, Program, SlotVectors, Step};
use crate::circuits::SlotMatrix;
use std::sync::Arc;

pub use cipherlens_core::client::interleave::{interleave, part};

impl Program {
    /// The program that runs on `count` inputs at once, a power of two, with `count` times as many slots and as many
    /// levels, rotations and products.
    pub fn interleaved(&self, count: usize) -> Self {
        let steps = self.steps.iter().map(|step| Step { operation: step.operation.interleaved(count), ..step.clone() });
        Self { slots: self.slots * count, input_shards: self.input_shards, steps: steps.collect(), output: self.output }
    }
}

impl Operation {
    fn interleaved(&self, count: usize) -> Self {
        let vectors = |v: &Option<SlotVectors>| v.as_ref().map(|v| Arc::new(v.iter().map(|v| spread(v, count)).collect()));
        match self {
            Self::Linear { input, matrix, rotate_sums, bias } => Self::Linear {
                input: *input,
                matrix: Arc::new(Interleaved::new(matrix.clone(), count)),
                rotate_sums: rotate_sums.iter().map(|r| r * count).collect(),
                bias: vectors(bias),
            },
            Self::Affine { input, factor, offset } => {
                Self::Affine { input: *input, factor: vectors(factor), offset: vectors(offset) }
            }
            Self::Square { .. } | Self::Polynomial { .. } | Self::Add { .. } | Self::Multiply { .. } => self.clone(),
        }
    }
}

/// Every entry `count` times.
fn spread(values: &[f64], count: usize) -> Vec<f64> {
    values.iter().flat_map(|v| std::iter::repeat_n(*v, count)).collect()
}

/// A matrix applied to each of several interleaved inputs.
#[derive(Debug)]
struct Interleaved {
    matrix: Arc<dyn SlotMatrix>,
    count: usize,
    /// `[output * inputs + input]`.
    rotations: Vec<Vec<u32>>,
}

impl Interleaved {
    fn new(matrix: Arc<dyn SlotMatrix>, count: usize) -> Self {
        let (inputs, outputs) = (matrix.inputs(), matrix.outputs());
        let blocks = (0..outputs * inputs).map(|block| matrix.rotations(block / inputs, block % inputs));
        let rotations = blocks.map(|rotations| rotations.iter().map(|r| r * count as u32).collect()).collect();
        Self { matrix, count, rotations }
    }
}

impl SlotMatrix for Interleaved {
    fn inputs(&self) -> usize {
        self.matrix.inputs()
    }
    fn outputs(&self) -> usize {
        self.matrix.outputs()
    }
    fn slots(&self) -> usize {
        self.matrix.slots() * self.count
    }
    fn rotations(&self, output: usize, input: usize) -> &[u32] {
        &self.rotations[output * self.inputs() + input]
    }
    fn diagonal(&self, output: usize, input: usize, rotation: u32, values: &mut [f64]) {
        let slots = self.matrix.slots();
        self.matrix.diagonal(output, input, rotation / self.count as u32, &mut values[..slots]);
        // From the end, so that nothing is overwritten before it is read.
        for slot in (0..slots).rev() {
            let value = values[slot];
            values[slot * self.count..][..self.count].fill(value);
        }
    }
}

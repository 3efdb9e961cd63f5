//! A program: what a network is once tensors are laid out over shards. Straight-line, in single-assignment form.
//!
//! A value is a set of shards at one level. `nn` lowers a model to a program; the planner gives it levels, splits and
//! keys; the executor runs it on any [`crate::circuits`] engine.

use crate::circuits::{SlotMatrix, polynomial::Chebyshev};
use std::sync::Arc;

/// Names a value of a program: the result of the step with this index + 1; value 0 is the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// Slot vectors, one for each shard: `[shard][slot]`.
pub type SlotVectors = Arc<Vec<Vec<f64>>>;

/// One step.
#[derive(Debug, Clone)]
pub enum Operation {
    /// `rotate_sum(matrix * x) + bias`. One level.
    ///
    /// `rotate_sums` are applied in order after the matrix: `x <- x + rotate(x, r)` for each r (a sum over slots by
    /// doubling). `bias` may be absent.
    Linear {
        /// The operand.
        input: ValueId,
        /// The map.
        matrix: Arc<dyn SlotMatrix>,
        /// Rotations summed after it.
        rotate_sums: Vec<usize>,
        /// Added at the end.
        bias: Option<SlotVectors>,
    },
    /// `x^2`. One level.
    Square {
        /// The operand.
        input: ValueId,
    },
    /// The same polynomial in every slot; [`Chebyshev::depth`] levels. Every slot that is used holds a number of its interval.
    Polynomial {
        /// The operand.
        input: ValueId,
        /// The polynomial. Lowering makes the operand so that the interval is `[-1, 1]` where that costs nothing.
        polynomial: Chebyshev,
    },
    /// `x * factor + offset`, slot by slot. One level if `factor` is there, none otherwise.
    Affine {
        /// The operand.
        input: ValueId,
        /// Slot-wise factor.
        factor: Option<SlotVectors>,
        /// Slot-wise offset.
        offset: Option<SlotVectors>,
    },
    /// `a + b`; the planner brings both to one level. No level.
    Add {
        /// First operand.
        a: ValueId,
        /// Second operand.
        b: ValueId,
    },
    /// `a * b`, slot by slot. One level.
    Multiply {
        /// First operand.
        a: ValueId,
        /// Second operand.
        b: ValueId,
    },
}

/// A step with the name of the layer it comes from.
#[derive(Debug, Clone)]
pub struct Step {
    /// Layer name, for plans, progress and errors. Consecutive steps of one layer share it.
    pub layer: String,
    /// What is done.
    pub operation: Operation,
    /// The largest magnitude that the result's slots may have, if that is known. Only values with a bound can be
    /// bootstrapped: what is beyond it comes back wrong.
    pub bound: Option<f64>,
}

/// A straight-line program from one sharded input to one sharded output.
#[derive(Debug, Clone)]
pub struct Program {
    /// Slots of a shard: a power of two up to the ring's N/2. If it is less, every vector repeats with that period.
    pub slots: usize,
    /// Shards of the input.
    pub input_shards: usize,
    /// The steps; step i makes value i + 1.
    pub steps: Vec<Step>,
    /// The result.
    pub output: ValueId,
}

impl Operation {
    /// The values it reads.
    pub fn operands(&self) -> Vec<ValueId> {
        match *self {
            Self::Linear { input, .. } | Self::Square { input } | Self::Polynomial { input, .. } | Self::Affine { input, .. } => {
                vec![input]
            }
            Self::Add { a, b } | Self::Multiply { a, b } => vec![a, b],
        }
    }
}

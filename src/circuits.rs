//! Circuits built from evaluator operations: linear transforms over shards, polynomials, bootstrapping.
//!
//! A circuit is written once, over [`Engine`], and runs on ciphertexts ([`EncryptedEngine`]), on levels and shards alone
//! ([`TraceEngine`], which counts what it would cost), on clear slot vectors ([`ClearEngine`]) and on those with the noise that ciphertexts
//! would have ([`NoisyEngine`]; several runs in step: [`NoisyRuns`]). All refuse the same.

pub mod approximation;
pub mod bootstrap;
mod check;
pub mod clear;
pub mod diagonal_transform;
pub mod encrypted;
pub mod engine;
pub mod gadgets;
pub mod linear_transform;
pub mod noisy;
pub mod polynomial;
pub mod trace;

pub use bootstrap::{BootstrapOptions, Bootstrapper, Order};
pub use clear::ClearEngine;
pub use diagonal_transform::DiagonalTransform;
pub use encrypted::EncryptedEngine;
pub use engine::{Engine, PairSum, WeightedSum};
pub use gadgets::{Gadgets, Switch};
pub use linear_transform::{LinearTransform, Packing, SlotMatrix, Split};
pub use noisy::{NoisyEngine, NoisyRuns};
pub use trace::{Counts, TraceEngine};

use crate::ckks::{CkksError, Level};

/// What can go wrong in a circuit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CircuitError {
    /// Wrong number of shards.
    #[error("{operation}: expected {expected} shards, found {found}")]
    Shards {
        /// The operation.
        operation: &'static str,
        /// Shards it needs.
        expected: usize,
        /// Shards it got.
        found: usize,
    },
    /// Vectors of another number of slots than the value's.
    #[error("{operation}: expected vectors of {expected} slots, found one of {found}")]
    Slots {
        /// The operation.
        operation: &'static str,
        /// Slots of the first operand.
        expected: usize,
        /// Slots of the second.
        found: usize,
    },
    /// Values for another number of runs in step.
    #[error("{expected} runs in step take a value each, one run at least, found {found}")]
    Runs {
        /// Runs there are.
        expected: usize,
        /// Values that came.
        found: usize,
    },
    /// Shards that a value does not have.
    #[error("{operation}: shards {first}..{end} of a value with {shards}")]
    ShardRange {
        /// The operation.
        operation: &'static str,
        /// The first shard asked for.
        first: usize,
        /// The one after the last.
        end: usize,
        /// Shards there are.
        shards: usize,
    },
    /// A sum or a join of nothing.
    #[error("{operation}: there is nothing to take; one value at least is needed")]
    Nothing {
        /// The operation.
        operation: &'static str,
    },
    /// Coefficients for another number of values.
    #[error("weighted sum: {expected} values take a coefficient each, found {found}")]
    Coefficients {
        /// Values there are.
        expected: usize,
        /// Coefficients that came.
        found: usize,
    },
    /// Two operands at different levels, or a target that is not where the operation can go from a value's.
    #[error("{operation}: operands at levels {left} and {right}; drop the higher one first")]
    Levels {
        /// The operation.
        operation: &'static str,
        /// Level of the first operand.
        left: Level,
        /// Level of the second, or the level needed.
        right: Level,
    },
    /// No level left.
    #[error("{operation} needs {needed} level(s) and the value is at level {have}; use a preset with more levels")]
    LevelsExhausted {
        /// The operation.
        operation: &'static str,
        /// Levels it consumes.
        needed: usize,
        /// Levels there are.
        have: usize,
    },
    /// A key switch at a level that no gadget was chosen for.
    #[error(
        "a key is switched at level {level} and gadgets were chosen for the lowest {levels} levels alone; plan for this parameter set"
    )]
    NoGadget {
        /// The level.
        level: Level,
        /// Levels with gadgets.
        levels: usize,
    },
    /// A matrix that is all zero.
    #[error("a linear transform without any nonzero diagonal computes nothing; remove the layer or fix its weights")]
    EmptyMatrix,
    /// Diagonals that do not fit together.
    #[error("diagonals of {period} values do not make a map of {slots} slots: one period, a power of two that divides the slots")]
    Diagonals {
        /// Slots of a shard.
        slots: usize,
        /// The period found first.
        period: usize,
    },
    /// Slots beyond those that a parameter set can bootstrap.
    #[error("bootstrapping with `{preset}` serves 2 to {most} slots (powers of two), found {found}")]
    BootstrapSlots {
        /// The parameter set.
        preset: String,
        /// The most slots.
        most: usize,
        /// The slots asked for.
        found: usize,
    },
    /// Baby rotations for another number of transforms.
    #[error("bootstrapping has {expected} linear transforms, and baby rotations were given for {found}")]
    Babies {
        /// Transforms there are.
        expected: usize,
        /// Numbers that came.
        found: usize,
    },
    /// A parameter set with another number of levels for EvalMod than it takes.
    #[error("EvalMod takes {needed} levels and `{preset}` has {have} for it")]
    EvalModLevels {
        /// The parameter set.
        preset: String,
        /// Levels it takes.
        needed: usize,
        /// Levels there are for it.
        have: usize,
    },
    /// Keys that cannot be made as small as asked for.
    #[error("bootstrapping needs keys of {least} bytes at least, and {most} are allowed")]
    KeyBytes {
        /// The fewest bytes.
        least: u64,
        /// The bytes allowed.
        most: u64,
    },
    /// A polynomial that cannot be evaluated.
    #[error("polynomial: {0}")]
    Polynomial(String),
    /// From the scheme.
    #[error(transparent)]
    Ckks(#[from] CkksError),
}

/// The level `by` below, or the typed error that says it does not exist.
fn below(level: Level, by: usize, operation: &'static str) -> Result<Level, CircuitError> {
    let have = level.0;
    have.checked_sub(by).map(Level).ok_or(CircuitError::LevelsExhausted { operation, needed: by, have })
}

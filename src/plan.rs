//! Plans: programs over sharded values, their levels, splits, keys, counts, cost and execution.
//!
//! A [`Plan`] is a value made before any key exists: it says what a program will do on a parameter set. What it counts
//! is counted by running the same circuits that will run on ciphertexts, on an engine that only tracks levels.

pub mod cost;
pub mod decisions;
pub mod demand;
#[cfg(feature = "gpu")]
pub mod dry_run;
pub mod execute;
pub mod fallback;
pub mod interleave;
mod key_budget;
mod memory;
pub mod parameters;
mod placement;
pub mod planner;
pub mod program;
mod steps;

pub use cost::{CostModel, Target};
pub use decisions::{Cut, Decision, Decisions};
pub use demand::{DeviceDemand, LayerDemand};
pub use execute::{Progress, execute};
pub use fallback::{Checkpoints, Completed, Fallback, Fault};
pub use planner::{LayerReport, MemoryLimits, Plan, PlanOptions};
pub use program::{Operation, Program, Step, ValueId};
pub use steps::{CutCounts, PlannedOperation, PlannedStep};

use crate::{
    backend::BackendError,
    circuits::CircuitError,
    ckks::{CkksError, ParamsError},
};

const MIB: f64 = (1u64 << 20) as f64;

/// What can go wrong in planning or running a program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Whoever watched the run ended it.
    #[error("the run was ended before layer `{layer}`")]
    Stopped {
        /// The layer that would have come next.
        layer: String,
    },
    /// The program is deeper than the parameter set.
    #[error(
        "the program needs {needed} levels and preset `{preset}` has {have}; use a preset with more levels or a shallower model"
    )]
    LevelsExhausted {
        /// Levels the program consumes.
        needed: usize,
        /// Levels the preset has.
        have: usize,
        /// The preset.
        preset: String,
    },
    /// No way to run a step, whatever is bootstrapped before it.
    #[error(
        "layer `{layer}` needs {needed} levels at once; values have {top} at most, and a bootstrap takes one with at least {input} and \
         gives it back with {output} (values of unknown range are never bootstrapped)"
    )]
    NoPlacement {
        /// The layer that nothing reaches.
        layer: String,
        /// Levels it consumes.
        needed: usize,
        /// Most levels of any value.
        top: usize,
        /// Level that a bootstrap needs.
        input: usize,
        /// Level that a bootstrap gives.
        output: usize,
    },
    /// The program was laid out for a slot count that the parameter set cannot hold.
    #[error(
        "the program is laid out for {program} slots and preset `{preset}` holds powers of two up to {have}; lower the model again"
    )]
    Slots {
        /// Slots of the program's layouts.
        program: usize,
        /// Slots of the preset.
        have: usize,
        /// The preset.
        preset: String,
    },
    /// Keys that do not fit, however few are made.
    #[error(
        "the keys take at least {:.1} MiB, more than the {:.1} MiB allowed; allow more, or use a parameter set with fewer levels",
        *.least as f64 / MIB, *.most as f64 / MIB
    )]
    KeyBytes {
        /// The fewest bytes found.
        least: u64,
        /// The most allowed.
        most: u64,
    },
    /// A step that names a value not made before it.
    #[error("step {step} (`{layer}`) uses value {value}, which no earlier step makes")]
    UndefinedValue {
        /// The step.
        step: usize,
        /// Its layer.
        layer: String,
        /// The value.
        value: usize,
    },
    /// An input that does not fit the program.
    #[error("the program takes {expected} input shards at level {level}, found {found} at level {found_level}")]
    Input {
        /// Shards it takes.
        expected: usize,
        /// Level it takes them at.
        level: usize,
        /// Shards it got.
        found: usize,
        /// Their level.
        found_level: usize,
    },
    /// Decisions made for another program or parameter set.
    #[error("step {step} (`{layer}`): {reason}")]
    Decisions {
        /// The step of the program.
        step: usize,
        /// Its layer.
        layer: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// A plan that was kept, and is not for this program and parameter set: of a changed file, or of another version of this program.
    #[error("the plan kept with the network does not fit it: {0}; compile the network again")]
    Kept(Box<PlanError>),
    /// Keys that do not belong to the plan.
    #[error("the evaluation keys are not those of this plan: {0}; make the keys again for it")]
    Keys(#[source] CircuitError),
    /// A failure inside a layer.
    #[error("layer `{layer}`: {source}")]
    Layer {
        /// The layer.
        layer: String,
        /// What happened.
        source: CircuitError,
    },
    /// A layer for which a device has too little memory.
    #[error("layer `{layer}` needs more memory than the device has or may take: {source}")]
    DeviceMemory {
        /// The layer.
        layer: String,
        /// What was refused.
        source: BackendError,
    },
    /// From the parameter set.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// From the scheme.
    #[error(transparent)]
    Ckks(#[from] CkksError),
}

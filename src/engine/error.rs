//! What can go wrong between a model and an answer.

use crate::backend::BackendError;
use crate::ckks::{CkksError, ParamsError};
use crate::nn::calibration::CalibrationError;
use crate::nn::compiled::CompiledError;
use crate::nn::fit::ChooseError;
use crate::nn::layout::LayoutError;
use crate::nn::lower::LowerError;
use crate::nn::model::ModelError;
use crate::nn::simulate::SimulateError;
use crate::nn::tensor::ShapeMismatch;
use crate::plan::PlanError;
use cipherlens_core::client::ClientError;

/// Why a step of the engine fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A parameter set that there is not, or that must not be used.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The backend that was asked for cannot be had.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The scheme.
    #[error(transparent)]
    Scheme(#[from] CkksError),
    /// A client's step.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The network cannot be turned into a program.
    #[error("cannot run `{network}` with preset `{preset}`: {source}")]
    Lower {
        /// The network.
        network: String,
        /// The parameter set.
        preset: String,
        /// Why.
        source: LowerError,
    },
    /// The program cannot be planned.
    #[error("cannot run `{network}` with preset `{preset}`: {source}")]
    Plan {
        /// The network.
        network: String,
        /// The parameter set.
        preset: String,
        /// Why.
        source: PlanError,
    },
    /// The network needs more GPU memory than may be taken.
    #[error("the network does not fit the GPU memory that may be taken: {0}")]
    DeviceMemory(#[source] PlanError),
    /// The run.
    #[error("the encrypted run failed: {0}")]
    Run(#[source] PlanError),
    /// No parameter set runs the network.
    #[error("no parameter set runs `{network}`: {why}")]
    NoPreset {
        /// The network.
        network: String,
        /// What stands in the way of each.
        why: super::NoneFits,
    },
    /// The network cannot be calibrated.
    #[error("the network cannot be calibrated: {0}")]
    Calibration(#[from] CalibrationError),
    /// No fits keep its answers.
    #[error("the activations cannot be fitted: {0}")]
    Fits(#[from] ChooseError),
    /// The network cannot be evaluated on the pictures.
    #[error("the network cannot be evaluated: {0}")]
    Simulate(#[from] SimulateError),
    /// Logits that differ by so little that the noise of encryption decides too many answers.
    #[error(
        "the two largest logits differ by {median:.2e} (median), and encryption moves that difference by {mean_shift:.2e}: {:.2} % of the answers \
         should stay, {:.2} % are asked for", 100.0 * expected, 100.0 * target
    )]
    Noise {
        /// Median of the difference of the two largest logits.
        median: f64,
        /// Mean of how far noise moves it.
        mean_shift: f64,
        /// The part of the answers that should stay.
        expected: f64,
        /// The part asked for.
        target: f64,
    },
    /// Results, or numbers inside the network, that no ciphertext can hold.
    #[error(transparent)]
    Overflow(#[from] super::Overflow),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The compiled network.
    #[error(transparent)]
    Compiled(#[from] CompiledError),
    /// A tensor of another shape.
    #[error(transparent)]
    Shape(#[from] ShapeMismatch),
    /// Slot vectors of another layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// What is asked for needs pictures, and none came.
    #[error("a network is compiled with pictures, and none came")]
    NoPictures,
    /// A picture that is labelled with a class that the network does not have.
    #[error("picture {picture} has the label {label}, and the network has classes 0 to {}", .classes - 1)]
    Label {
        /// Its index, from 0.
        picture: usize,
        /// Its label.
        label: usize,
        /// Classes of the network.
        classes: usize,
    },
    /// A picture with a number that is none.
    #[error("picture {picture} holds {found} at element {element}, and pictures must be finite")]
    NotFinite {
        /// Its index, from 0.
        picture: usize,
        /// Which of its elements.
        element: usize,
        /// What is there.
        found: f32,
    },
}

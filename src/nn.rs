//! Networks: the model file, tensors, direct evaluation, layouts over shards, and lowering to programs.
//!
//! ```text
//! model file, ONNX file -> Model -> lower -> Program (slot matrices, squares, sums)      what runs encrypted
//!                             \---> clear::Network                                       what it is compared with
//! picture -> Input::normalise -> Tensor -> Layout::pack -> slot vectors       what is encrypted
//! ```

pub mod calibration;
pub mod clear;
pub mod compiled;
pub mod equalize;
pub mod fit;
pub mod lower;
pub mod model;
pub mod onnx;
mod open;
pub mod simulate;

pub use cipherlens_core::client::{layout, tensor};
pub use compiled::Compiled;
pub use layout::Layout;
pub use lower::{Counted, Layouts, LowerOptions, Lowered, fitting_slots, least_depth, lower};
pub use model::Model;
pub use tensor::{Shape, Tensor};

/// What can go wrong between a model file, a picture and a program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NnError {
    /// The model file is not usable.
    #[error(transparent)]
    Model(#[from] model::ModelError),
    /// The model cannot be turned into a program.
    #[error(transparent)]
    Lower(#[from] lower::LowerError),
    /// A tensor of another shape was expected.
    #[error(transparent)]
    Shape(#[from] tensor::ShapeMismatch),
}

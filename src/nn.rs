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
pub mod notes;
pub mod onnx;
mod open;
pub mod pooling;
pub mod simulate;

pub use cipherlens_core::client::{layout, tensor};
pub use compiled::Compiled;
pub use layout::Layout;
pub use lower::{Counted, Layouts, LowerOptions, Lowered, fitting_slots, least_depth, lower};
pub use model::Model;
pub use notes::Notes;
pub use tensor::{Shape, Tensor};

//! What the tests of all crates share. Nothing here is published.

pub mod calls;
/// A client and a server in one, for tests of the scheme.
pub mod ckks;
pub mod cnn;
pub mod diagonals;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod kernels;
pub mod models;
pub mod onnx;
pub mod resnet20;
pub mod shared;
pub mod slots;

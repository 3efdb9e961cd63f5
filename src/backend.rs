//! Machines that compute: the contract and the processor of [`cipherlens_core::backend`], the GPU, and which to take.

pub use cipherlens_core::backend::*;

pub mod choice;
#[cfg(feature = "gpu")]
pub mod gpu;

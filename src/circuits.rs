//! Circuits built from evaluator operations: linear transforms over shards, polynomials.

pub mod linear_transform;
pub use linear_transform::SlotMatrix;

//! Networks on encrypted pictures, from a model file to a decrypted answer: what programs use.
//!
//! ```text
//! Model + pictures -> compile -> Compiled (net.lens, for the server) and ClientSpec (net.client, for clients)
//! Compiled -> prepare -> Prepared -> Server -> Session (a client's keys) -> answers
//! ```
//!
//! A [`Client`] never sees the weights, a [`Server`] never sees a secret. Everything is decided once, when the network
//! is compiled; keys, ciphertexts and answers carry the digest of the plan they belong to.

mod answer;
mod compile;
mod error;
mod estimate;
mod prepare;
mod server;
mod spec;
mod terms;

pub use answer::{Overflow, divisor, largest_result, most_at_the_end};
pub use cipherlens_core::client::{Client, ClientError, ClientSpec, Rest, RunSpec};
pub use compile::{Compilation, CompileOptions, PRESETS, compile};
pub use error::EngineError;
pub use estimate::{Estimator, NoneFits, Unfit};
pub use prepare::{
    BOOTSTRAPPING_PRESET, Costs, DEFAULT_PRESET, Foreseen, PrepareOptions, Prepared, keep, open, prepare, prepare_any, slots_for,
};
pub use server::{Answer, DeviceRun, Server, Session};
pub use spec::run_spec;
pub use terms::{Purpose, Terms};

/// Result of an engine's step.
pub type Result<T> = std::result::Result<T, EngineError>;

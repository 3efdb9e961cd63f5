//! Cipherlens: run trained convolutional networks on encrypted images.
//!
//! The scheme is RNS-CKKS with primes below 2^30 and residues stored as `u32`; an image too large for one
//! ciphertext is sharded over several in plain row-major order. Dependencies point one way:
//! [`nn`] -> [`plan`] -> [`circuits`] -> [`ckks`] -> [`backend`] -> [`math`].
//!
//! See `ARCHITECTURE.md` for the map and `docs/arithmetic.md` for the number system.

pub use cipherlens_core::{ckks, client, math, wire};

pub mod backend;
pub mod circuits;
pub mod engine;
pub mod nn;
pub mod plan;

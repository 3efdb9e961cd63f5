//! The part of Cipherlens that holds secrets, and what it rests on: RNS-CKKS over primes below 2^30 with residues stored as
//! `u32`. It reads no network and knows no GPU, so that it can be audited alone and built for a browser.
//!
//! Dependencies point one way: [`client`], [`wire`] -> [`ckks`] -> [`backend`] -> [`math`].
//!
//! Use it through `cipherlens`, which gives all of it under the same names.

pub mod backend;
pub mod ckks;
pub mod client;
pub mod math;
pub mod wire;

//! Run trained convolutional networks on encrypted images.
//!
//! A client encrypts a picture, a server runs the network on it without seeing it, and only the client can decrypt the answer:
//!
//! ```
//! use cipherlens::backend::choice::Devices;
//! use cipherlens::engine::{self, Client, Compilation, CompileOptions, Server};
//! use cipherlens::nn::{Model, fit::ChooseOptions, simulate::Labelled};
//! use std::sync::Arc;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Whoever has the network fits it to pictures like those it will see: here stripes of 16 x 16 pixels from 0 to 1.
//!     let network = Model::from_onnx(include_bytes!("../examples/data/stripes.onnx"), &Default::default())?;
//!     let stripe = |i: usize, at: usize| 0.5 + 0.4 * ((0.6 + 0.004 * i as f64) * [at % 16, at / 16][i % 2] as f64).sin();
//!     let pixels = |i: usize| (0..256).map(|at| stripe(i, at)).collect::<Vec<_>>();
//!     let inputs = (0..160).map(|i| network.input().normalise(&pixels(i))).collect::<Result<Vec<_>, _>>()?;
//!     let seen: Vec<_> = inputs.iter().map(|x| Labelled { x: x.clone(), label: None }).collect();
//!     // The default keeps 99 % of the answers, which takes more pictures to show.
//!     let choose = ChooseOptions { target: 0.9, ..Default::default() };
//!     let options = CompileOptions { choose, ..Default::default() };
//!     let Compilation { compiled, client: spec, .. } = engine::compile(&network, &seen, &options, &())?;
//!
//!     // The client knows the description, which has no weights, and keeps the secret key.
//!     let client = Client::new(&spec, &spec.params()?)?;
//!     let run = spec.run(1)?;
//!     let keys = Arc::new(client.evaluation_keys(run, &|| ())?);
//!     let encrypted = client.encrypt(run, &[inputs[0].cast()])?;
//!
//!     // The server has the network, the evaluation keys and the ciphertext.
//!     let session = Server::new(&engine::open(&compiled, 1, &Devices::default())?).session(keys, 1)?;
//!     let answer = session.run(session.expand(&encrypted)?, &())?;
//!
//!     // The answer is for the client alone.
//!     let logits = client.decrypt(run, &answer.ciphertext)?.remove(0);
//!     assert_eq!(logits.len(), 4);
//!     Ok(())
//! }
//! ```
//!
//! [`engine`] is what programs use. Its errors print their cause with themselves, so that `{e}` says all; [`source`](std::error::Error::source)
//! gives the cause as a value. Compiled networks and descriptions are files ([`nn::Compiled`], [`client::ClientSpec`]), and so are keys
//! and ciphertexts ([`wire`]); `cipherlens`, the command, does the same with them.
//!
//! The scheme is RNS-CKKS with primes below 2^30 and residues stored as `u32`; an image too large for one
//! ciphertext is sharded over several in plain row-major order. Dependencies point one way:
//! [`engine`] -> [`nn`] -> [`plan`] -> [`circuits`] -> [`ckks`] -> [`backend`](mod@backend) -> [`math`]. What holds secrets is the crate `cipherlens-core`,
//! all of which is here under the same names.
//!
//! See `ARCHITECTURE.md` for the map and `docs/arithmetic.md` for the number system.

pub use cipherlens_core::{ckks, client, math, wire};

pub mod backend;
pub mod circuits;
pub mod engine;
pub mod nn;
pub mod plan;

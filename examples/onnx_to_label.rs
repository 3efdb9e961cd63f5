//! From an ONNX file to an encrypted label: which way do the stripes of a picture run?
//!
//!     cargo run --release --example onnx_to_label [-- --backend auto|cpu|gpu]
//!
//! The client knows `net.client` alone, the server never has the secret key; here they are in one program, and hand over what they would
//! send. `training/stripes.py` trained the network.

use cipherlens::engine::{self, Client, Compilation, CompileOptions, Server};
use cipherlens::nn::Model;
use cipherlens::nn::simulate::Labelled;
use std::error::Error;
use std::sync::Arc;

#[path = "shared/backend.rs"]
mod backend;
#[path = "shared/stripes.rs"]
mod stripes;
use stripes::stripes;

fn main() -> Result<(), Box<dyn Error>> {
    let devices = backend::devices()?;

    // Whoever has the network: it is fitted to pictures like those it will see, and planned.
    let network = Model::from_onnx(include_bytes!("data/stripes.onnx"), &Default::default())?;
    let network = network.described(&[0.5], &[0.25], &["vertical", "falling", "horizontal", "rising"].map(String::from))?;
    let calibration: Vec<_> = (0..200).map(|i| stripes(&network, i)).collect::<Result<_, _>>()?;
    let seen: Vec<_> = calibration.iter().map(|x| Labelled { x: x.cast(), label: None }).collect();
    let Compilation { compiled, client: spec, .. } = engine::compile(&network, &seen, &CompileOptions::default(), &())?;
    println!("compiled for {}: logits off by about {:.1e}", compiled.preset, spec.noise);

    // The client, who has a picture and the description.
    let client = Client::new(&spec, &spec.params()?)?;
    let run = spec.run(1)?;
    let keys = Arc::new(client.evaluation_keys(run, &|| ())?);
    let picture = stripes(&network, 4321)?;
    let encrypted = client.encrypt(run, std::slice::from_ref(&picture))?;

    // The server, who has the network, the keys and the ciphertext.
    let prepared = engine::open(&compiled, 1, &devices)?;
    let session = Server::new(&prepared).session(keys, 1)?;
    let answer = session.run(session.expand(&encrypted)?, &())?;
    println!("{} layers on {}", answer.layer_seconds.len(), prepared.backend.name());

    // The client again.
    let logits = client.decrypt(run, &answer.ciphertext)?.remove(0);
    let label = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).ok_or("no logits")?;
    println!("the stripes are {}: {logits:?}", spec.class_name(label));
    if label == 4321 % 4 { Ok(()) } else { Err("that is wrong".into()) }
}

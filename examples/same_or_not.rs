//! Do two pictures show the same? Neither is ever seen by the server, and only the client learns the answer.
//!
//!     cargo run --release --example same_or_not [-- --backend auto|cpu|gpu]
//!
//! The network's result is taken for a vector, and two pictures are the same where their vectors point in about one direction. A network of
//! faces is used in the same way: `docs/networks.md` has dlib's. Here stripes that run the same way are the same.

use cipherlens::client::Metric;
use cipherlens::engine::{self, Client, Compilation, CompileOptions, Server};
use cipherlens::nn::Model;
use cipherlens::nn::fit::ChooseOptions;
use cipherlens::nn::simulate::{Judge, Labelled};
use std::error::Error;
use std::sync::Arc;

#[path = "shared/backend.rs"]
mod backend;
#[path = "shared/stripes.rs"]
mod stripes;
use stripes::stripes;

/// Below this distance, 1 less the cosine, two pictures are the same.
const THRESHOLD: f64 = 0.5;

fn main() -> Result<(), Box<dyn Error>> {
    let devices = backend::devices()?;

    // The owner of the network chooses fits under which pairs of pictures stay the same or different.
    let network = Model::from_onnx(include_bytes!("data/stripes.onnx"), &Default::default())?;
    let network = network.described(&[0.5], &[0.25], &[])?;
    let labelled = |i: usize| Ok(Labelled { x: stripes(&network, i)?.cast(), label: Some(i % 4) });
    let seen = (0..200).map(labelled).collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let judge = Judge::Distance { metric: Metric::Cosine, threshold: THRESHOLD };
    let options = CompileOptions { choose: ChooseOptions { judge, ..ChooseOptions::default() }, ..CompileOptions::default() };
    let Compilation { compiled, client: spec, choice, .. } = engine::compile(&network, &seen, &options, &())?;
    if let Some(found) = choice.map(|choice| choice.simulation) {
        println!("{} of {} pairs keep their verdict", found.agree, found.answers);
    }

    // The client makes keys once, and encrypts one picture after the other.
    let client = Client::new(&spec, &spec.params()?)?;
    let run = spec.run(1)?;
    let keys = Arc::new(client.evaluation_keys(run, &|| ())?);
    let prepared = engine::open(&compiled, 1, &devices)?;
    let session = Server::new(&prepared).session(keys, 1)?;
    let mut vectors = Vec::new();
    for i in [1000, 2004, 3001] {
        let encrypted = client.encrypt(run, &[stripes(&network, i)?])?;
        // The server sees ciphertexts alone.
        let answer = session.run(session.expand(&encrypted)?, &())?;
        vectors.push(client.decrypt(run, &answer.ciphertext)?.remove(0));
    }

    // The client compares what it has decrypted.
    let distance = |a: usize, b: usize| Metric::Cosine.distance(&vectors[a], &vectors[b]);
    for (a, b) in [(0, 1), (0, 2)] {
        let verdict = if distance(a, b) < THRESHOLD { "the same" } else { "different" };
        println!("pictures {} and {} are {verdict}: their distance is {:.3}", a + 1, b + 1, distance(a, b));
    }
    if distance(0, 1) < THRESHOLD && distance(0, 2) > THRESHOLD { Ok(()) } else { Err("that is wrong".into()) }
}

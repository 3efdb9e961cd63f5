//! A network written in code, planned, run encrypted and compared with its clear evaluation.
//!
//!     cargo run --release --example small_network [-- --backend auto|cpu|gpu]

use cipherlens::engine::{self, Client, PrepareOptions, Purpose, Server, Terms};
use cipherlens::nn::clear::Network;
use cipherlens::nn::model::{NumberType, TensorData};
use cipherlens::nn::{Model, Tensor};
use cipherlens::plan::{self, PlannedStep};
use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

#[path = "shared/backend.rs"]
mod backend;

/// One convolution, one square, the mean of each channel, three classes; on pictures of 2 x 50 x 40.
const GRAPH: &str = r#"{
  "name": "small", "output": "logits", "classes": ["left", "middle", "right"],
  "input": {"name": "image", "channels": 2, "height": 50, "width": 40, "mean": [0.5, 0.5], "std": [0.25, 0.25]},
  "nodes": [
    {"op": "conv2d", "name": "conv", "inputs": ["image"], "output": "conv", "weight": "conv.weight", "bias": "conv.bias",
     "stride": [2, 2], "padding": [1, 1, 1, 1]},
    {"op": "polynomial", "name": "square", "inputs": ["conv"], "output": "square", "coefficients": "square.coefficients"},
    {"op": "global_avg_pool", "name": "pool", "inputs": ["square"], "output": "pool"},
    {"op": "flatten", "name": "flatten", "inputs": ["pool"], "output": "flatten"},
    {"op": "linear", "name": "fc", "inputs": ["flatten"], "output": "logits", "weight": "fc.weight", "bias": "fc.bias"}
  ]
}"#;

/// Says which layer runs.
struct Print;

impl plan::Progress for Print {
    fn step_started(&self, _: usize, step: &PlannedStep) {
        println!("  {}: {} -> {}", step.layer, step.level_in, step.level_out);
    }
    fn step_finished(&self, _: usize, _: &PlannedStep) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    // Weights of any origin; here a smooth made-up pattern.
    let weights = |shape: &[usize]| -> (Vec<usize>, Vec<u8>) {
        let count: usize = shape.iter().product();
        let value = |i: usize| ((i as f32 * 0.7).sin() * 0.3).to_le_bytes();
        (shape.to_vec(), (0..count).flat_map(value).collect())
    };
    let tensors: HashMap<&str, _> = [
        ("conv.weight", weights(&[4, 2, 3, 3])),
        ("conv.bias", weights(&[4])),
        ("square.coefficients", weights(&[3])),
        ("fc.weight", weights(&[3, 4])),
        ("fc.bias", weights(&[3])),
    ]
    .into();
    let model = Model::from_graph(GRAPH, |name| {
        let (shape, bytes) = tensors.get(name)?;
        Some(TensorData { shape: shape.clone(), dtype: NumberType::F32, bytes })
    })?;

    // The plan, before any key exists. This preset is small and gives NO security; `n14` would.
    let prepared = engine::prepare(&model, "insecure-small", PrepareOptions::default(), &backend::devices()?)?;
    let (plan, counts) = (&prepared.plan, prepared.plan.counts());
    println!(
        "{} shards, {} levels, {} keys, {} rotations, {} plaintext products",
        plan.program().input_shards,
        plan.input_level().0,
        plan.keys().len(),
        counts.rotations,
        counts.plaintext_products
    );
    println!("the picture lies as {}; {} computes", prepared.lowered.input, prepared.backend.name());

    // What the client is told, and what it makes of that: keys, and an encrypted picture.
    let shape = model.input().shape;
    let picture = Tensor::new(shape, (0..shape.len()).map(|i| (i as f64 * 0.01).sin()).collect())?;
    let spec = Terms::default().client_spec(&model, model.digest(), &prepared, Purpose::Decrypting(&picture))?;
    let (client, run) = (Client::new(&spec, &prepared.params)?, spec.run(1)?);
    let keys = client.evaluation_keys(run, &|| ())?;
    let encrypted = client.encrypt(run, std::slice::from_ref(&picture))?;

    // The server runs the plan.
    let session = Server::new(&prepared).session(Arc::new(keys), 1)?;
    let answer = session.run(session.expand(&encrypted)?, &Print)?;

    // The client decrypts; what it gives out has the digits that the noise leaves.
    let logits = client.decrypt(run, &answer.ciphertext)?.remove(0);
    let clear = Network::<f64>::new(&model).evaluate(&picture)?;
    println!("encrypted {logits:?}");
    println!("clear     {:?}", clear.values());
    let worst = logits.iter().zip(clear.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    if worst > 1e-4 {
        return Err(format!("the logits are off by {worst:e}").into());
    }
    Ok(())
}

//! An encrypted convolution over an image that is too large for one ciphertext: it is laid out over several shards, and
//! neighbouring pixels may lie in different ones.
//!
//!     cargo run --release --example sharded_convolution [-- --backend auto|cpu|gpu]

use cipherlens::circuits::EncryptedEngine;
use cipherlens::ckks::{Evaluator, Owner, presets};
use cipherlens::nn::clear::Network;
use cipherlens::nn::model::{NumberType, TensorData};
use cipherlens::nn::{LowerOptions, Model, Tensor, lower};
use cipherlens::plan::{self, Plan, PlanOptions};
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

#[path = "shared/backend.rs"]
mod backend;

/// 3 x 3, three channels to four, on pictures of 100 x 90: 27,000 numbers, for ciphertexts of 4,096 slots.
const GRAPH: &str = r#"{
  "name": "edges", "output": "edges", "classes": [],
  "input": {"name": "image", "channels": 3, "height": 100, "width": 90, "mean": [0, 0, 0], "std": [1, 1, 1]},
  "nodes": [{"op": "conv2d", "name": "conv", "inputs": ["image"], "output": "edges", "weight": "weight", "bias": "bias",
             "padding": [1, 1, 1, 1]}]
}"#;

fn main() -> Result<(), Box<dyn Error>> {
    // A made-up kernel for each pair of channels.
    let numbers = |count: usize| -> Vec<u8> { (0..count).flat_map(|i| ((i as f32 * 0.7).sin() / 4.0).to_le_bytes()).collect() };
    let (weight, bias) = (numbers(4 * 3 * 3 * 3), numbers(4));
    let model = Model::from_graph(GRAPH, |name| {
        let (shape, bytes) = if name == "weight" { (vec![4, 3, 3, 3], &weight) } else { (vec![4], &bias) };
        Some(TensorData { shape, dtype: NumberType::F32, bytes })
    })?;

    // Layout and plan, before any key exists: which pixel lies in which slot of which shard, and what has to be rotated.
    let params = presets::by_name("n13")?;
    let lowered = lower(&model, params.slots(), &LowerOptions::default())?;
    let plan = Plan::new(&lowered.program, &params, &PlanOptions::default())?;
    println!("the image lies as {}", lowered.input);
    println!(
        "{} shards in, {} at most; {} rotations with {} keys, {} plaintext products, {} level",
        lowered.program.input_shards,
        plan.max_shards(),
        plan.counts().rotations,
        plan.keys().len(),
        plan.counts().plaintext_products,
        plan.input_level().0,
    );

    // The client lays an image out, encrypts it, and makes the keys that the plan lists.
    let backend = backend::from_arguments(&params)?.backend;
    let owner = Owner::new(&params, backend.clone())?;
    let shape = model.input().shape;
    let image = Tensor::new(shape, (0..shape.len()).map(|i| ((i * i) as f64 / 5000.0).sin()).collect())?;
    let encrypted = owner.encrypt(plan.input_level(), &lowered.input.pack(&image)?)?;
    let keys = owner.evaluation_keys(plan.keys())?;

    // The server convolves.
    let engine = EncryptedEngine::new(Evaluator::new(params.clone(), backend.clone(), keys)?);
    let clock = Instant::now();
    let answer = plan::execute(&plan, &engine, Arc::new(encrypted), &())?;
    backend.synchronize()?;
    println!("convolved in {:.0} ms: {} shards at {}", 1e3 * clock.elapsed().as_secs_f64(), answer.shards(), answer.level());

    // The client decrypts and collects the pixels from their slots.
    let edges = lowered.output.unpack(&owner.decrypt(&answer)?)?;
    let clear = Network::<f64>::new(&model).evaluate(&image)?;
    let worst = edges.values().iter().zip(clear.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("{} pixels; largest difference from the clear convolution 2^{:.1}", edges.values().len(), worst.log2());
    if edges.values().len() != clear.values().len() || worst > 1e-3 {
        return Err(format!("the convolution is off by {worst:e}").into());
    }
    Ok(())
}

//! Rotations batched over shards: a tensor that spans many ciphertexts is rotated by reading each rotation key once.
//!
//!     cargo run --release --example batched_rotations [-- --backend auto|cpu|gpu]
//!
//! On a GPU a rotation is one sequence of dispatches, as long for sixteen shards as for one.

use cipherlens::ckks::{Evaluator, KeyRequest, Owner, presets};
use std::error::Error;
use std::time::Instant;

#[path = "shared/backend.rs"]
mod backend;

/// Rotations that a 3 x 3 convolution needs on rows of 64 pixels, but for the one by nothing.
const STEPS: [i64; 8] = [-65, -64, -63, -1, 1, 63, 64, 65];

fn main() -> Result<(), Box<dyn Error>> {
    let params = presets::by_name("n13")?;
    let backend = backend::from_arguments(&params)?.backend;
    let top = params.max_level();
    let owner = Owner::new(&params, backend.clone())?;
    let requests = KeyRequest::rotations(&params, top, &STEPS)?;
    let gadget = requests[0].gadget;
    let keys = owner.evaluation_keys(&requests)?;
    println!("{} rotation keys, {} bytes, read once whatever the number of shards", keys.len(), keys.bytes());
    let server = Evaluator::new(params.clone(), backend.clone(), keys)?;

    let value = |shard: usize, slot: usize| ((shard * 31 + slot) as f64 / 50.0).cos();
    let mut sequences = Vec::new();
    for shards in [1, 4, 16] {
        // One ciphertext value holds all shards of a tensor.
        let vectors: Vec<Vec<f64>> = (0..shards).map(|s| (0..params.slots()).map(|i| value(s, i)).collect()).collect();
        let tensor = owner.encrypt(top, &vectors)?;
        // Hoisting: the digits of a ciphertext serve all its rotations. The first round compiles kernels and fills pools.
        let rotate = || -> Result<_, Box<dyn Error>> {
            let digits = server.mod_up(&tensor, gadget)?;
            let rotated = server.rotate_digits_all(&digits, &tensor, &STEPS)?;
            backend.synchronize()?;
            Ok(rotated)
        };
        let rotated = rotate()?;
        let before = backend.statistics().dispatches;
        let clock = Instant::now();
        rotate()?;
        let seconds = clock.elapsed().as_secs_f64();
        let each = 1e3 * seconds / (shards * STEPS.len()) as f64;
        print!("{shards:2} shards, {} rotations: {:7.2} ms, {each:.3} ms for one of one shard", STEPS.len(), 1e3 * seconds);
        sequences.push(backend.statistics().dispatches - before);
        if let Some(dispatches @ 1..) = sequences.last() {
            print!(", {dispatches} dispatches");
        }
        println!();

        // All shards of the first rotation come first, then those of the second.
        let slots = owner.decrypt(&rotated)?;
        let mut worst: f64 = 0.0;
        for (i, shard) in slots.iter().enumerate() {
            let (step, of) = (STEPS[i / shards], i % shards);
            for (at, slot) in shard.iter().enumerate() {
                let from = (at as i64 + step).rem_euclid(params.slots() as i64) as usize;
                worst = worst.max((slot - value(of, from)).abs());
            }
        }
        if slots.len() != shards * STEPS.len() || worst > 1e-4 {
            return Err(format!("{} vectors, off by {worst:e}", slots.len()).into());
        }
    }
    println!("every slot of every rotation is where it belongs");
    if sequences.windows(2).any(|pair: &[u64]| pair[0] != pair[1]) {
        return Err(format!("the number of dispatches grows with the shards: {sequences:?}").into());
    }
    Ok(())
}

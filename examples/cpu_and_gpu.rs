//! One encrypted computation on the processor and on a GPU: how long each takes, and that the ciphertexts are equal, word
//! for word.
//!
//!     cargo run --release --example cpu_and_gpu [-- --backend auto|cpu|gpu]
//!
//! With `--backend cpu`, or where there is no GPU, only the processor computes, and that is said. Everything is seeded here,
//! so that both have the same keys: never do that with data that matter.

use cipherlens::backend::{Backend, choice::Choice, choice::Devices};
use cipherlens::ckks::{Evaluator, KeyRequest, Owner, presets};
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

#[path = "shared/backend.rs"]
mod backend;

const SHARDS: usize = 4;

/// The words of `rotate(a b, 3)` for all shards, and the least milliseconds of three runs on ciphertexts that are there already.
fn compute(backend: Arc<dyn Backend>) -> Result<(Vec<u32>, f64), Box<dyn Error>> {
    let params = presets::by_name("n13")?;
    let top = params.max_level();
    let below = top.below(1).ok_or("a level to spend")?;
    let owner = Owner::insecure_seeded(&params, backend.clone(), 1)?;
    let mut requests = KeyRequest::rotations(&params, below, &[3])?;
    requests.push(KeyRequest::relinearization(&params, top)?);
    let server = Evaluator::new(params.clone(), backend.clone(), owner.evaluation_keys(&requests)?)?;
    let vector = |seed: usize| (0..params.slots()).map(|i| ((seed + i) as f64 / 100.0).sin()).collect::<Vec<_>>();
    let encrypt = |first: usize| owner.encrypt(top, &(first..first + SHARDS).map(vector).collect::<Vec<_>>());
    let (a, b) = (encrypt(0)?, encrypt(50)?);

    // The first run compiles kernels and fills pools. Calls return before a GPU has done their work, so wait for it.
    let mut result = server.rotate(&server.mul_rescale(&a, &b)?, 3)?;
    backend.synchronize()?;
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let clock = Instant::now();
        result = server.rotate(&server.mul_rescale(&a, &b)?, 3)?;
        backend.synchronize()?;
        least = least.min(1e3 * clock.elapsed().as_secs_f64());
    }
    Ok((backend.download(result.buffer())?, least))
}

fn main() -> Result<(), Box<dyn Error>> {
    let params = presets::by_name("n13")?;
    let asked = backend::from_arguments(&params)?.backend;
    let cpu = Devices::from(Choice::Cpu).open(params.tables().clone())?.backend;
    let (want, on_cpu) = compute(cpu.clone())?;
    println!("{} shards: product, relinearized and rescaled, then rotated", SHARDS);
    println!("{:<12} {on_cpu:8.2} ms with {} threads", cpu.name(), rayon::current_num_threads());
    if asked.name() == cpu.name() {
        println!("no GPU was asked for, or there is none: nothing to compare with");
        return Ok(());
    }
    let (got, on_gpu) = compute(asked.clone())?;
    println!("{:<12} {on_gpu:8.2} ms: {:.2} times as fast", asked.name(), on_cpu / on_gpu);
    if got != want {
        return Err("the ciphertexts differ".into());
    }
    println!("{} words, all equal", got.len());
    Ok(())
}

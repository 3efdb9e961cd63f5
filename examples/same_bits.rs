//! One encrypted computation on the processor and on a GPU: the ciphertexts are equal, word for word.
//!
//!     cargo run --release --example same_bits
//!     WGPU_ADAPTER_NAME=llvmpipe cargo run --release --example same_bits      # a software adapter, by name
//!
//! Without a GPU it says so. Everything is seeded here, so that both runs have the same keys: never do that with data that matter.

use cipherlens::backend::gpu::{GpuBackend, GpuOptions};
use cipherlens::backend::{Backend, BackendError, cpu::CpuBackend};
use cipherlens::ckks::{Encoder, Encryptor, Evaluator, KeyGenerator, KeyKind, KeyRequest, PlainForm, RandomSource, presets};
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

/// The words of rotate(a b, 3) for four shards at once, and the seconds from ciphertexts on the device to words on the host.
fn compute(backend: Arc<dyn Backend>) -> Result<(Vec<u32>, f64), Box<dyn Error>> {
    let params = presets::by_name("n13")?;
    let top = params.max_level();
    let below = top.below(1).ok_or("a level to spend")?;
    let generator = KeyGenerator::new(&params, backend.clone(), RandomSource::insecure_seeded(1))?;
    let secret = generator.secret_key()?;
    let galois = KeyKind::Galois(params.galois_element(3));
    let requests = [
        KeyRequest { kind: KeyKind::Relin, gadget: params.best_gadget(top..=top)? },
        KeyRequest { kind: galois, gadget: params.best_gadget(below..=below)? },
    ];
    let keys = Arc::new(generator.generate(&secret, &requests)?);
    let encoder = Encoder::new(params.clone(), backend.clone());
    let encryptor = Encryptor::new(&params, backend.clone(), RandomSource::insecure_seeded(2))?;
    let shard = |s: usize| (0..params.slots()).map(|i| ((s + i) as f64 / 100.0).sin()).collect::<Vec<_>>();
    let encrypt = |first: usize| {
        let shards: Vec<_> = (first..first + 4).map(shard).collect();
        let plain = encoder.encode_shards(&shards, params.scale(top), params.window(top), PlainForm::Plain)?;
        encryptor.encrypt(&secret, &plain)
    };
    let (a, b) = (encrypt(0)?, encrypt(50)?);
    let evaluator = Evaluator::new(params.clone(), backend.clone(), keys)?;
    let run = || -> Result<Vec<u32>, Box<dyn Error>> {
        let result = evaluator.rotate(&evaluator.mul_rescale(&a, &b)?, 3)?;
        // Calls return before a GPU has done their work; only this waits.
        Ok(backend.download(result.buffer())?)
    };
    // The first run compiles kernels and fills pools.
    run()?;
    let clock = Instant::now();
    Ok((run()?, clock.elapsed().as_secs_f64()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let tables = presets::by_name("n13")?.tables().clone();
    let cpu = CpuBackend::new(tables.clone())?;
    let name = cpu.name();
    let (want, seconds) = compute(Arc::new(cpu))?;
    println!("{name}: {:.1} ms", 1e3 * seconds);
    let gpu = match GpuBackend::new(tables, &GpuOptions::from_env()) {
        Err(e @ BackendError::NoAdapter { .. }) => {
            println!("{e}");
            return Ok(());
        }
        other => other?,
    };
    let name = format!("{} on {}", gpu.name(), gpu.adapter().name);
    let (got, seconds) = compute(Arc::new(gpu))?;
    println!("{name}: {:.1} ms", 1e3 * seconds);
    if got != want {
        return Err("the ciphertexts differ".into());
    }
    println!("{} words, all equal", got.len());
    Ok(())
}

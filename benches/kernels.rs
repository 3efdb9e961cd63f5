//! Kernels, key switches and rotations on the processor and on a GPU, at the sizes of docs/kernels.md.
//!
//! `cargo bench --bench kernels [-- FILTER] [--quick]`; with `--quick`, the smallest ring and the key switch of 47 limbs.
//! `RAYON_NUM_THREADS` sets the threads, `CIPHERLENS_CPU` the instruction set, `WGPU_ADAPTER_NAME` the GPU (a software
//! adapter by name only). `cipherlens bench backends` measures the same and compares the bits.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use cipherlens::backend::Backend;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::{Duration, Instant};

#[path = "shared/machines.rs"]
mod machines;

use cipherlens_cli::measured::cases::{Case, Kind, Material, SIZES};
use machines::quick;

/// Cases that take more are left out.
const MOST_BYTES: u64 = 3 << 30;
/// Cases that take less are not tried out first.
const SURELY_FITS: u64 = 256 << 20;

/// Throughputs are of the floor's bytes: each input and output word once.
fn kernels(c: &mut Criterion) {
    let shards: &[usize] = if quick() { &[1, 4] } else { &[1, 4, 16, 64] };
    for machine in machines::all() {
        for size in SIZES {
            let material = Material::new(size).unwrap();
            let backend = machine.open(&material.tables);
            let profiled = machine.open_profiled(&material.tables);
            let mut group = c.benchmark_group(format!("{}/{}", size.name, backend.name()));
            let (warm, measured) = if quick() { (30, 150) } else { (200, 1000) };
            group.sample_size(10).warm_up_time(Duration::from_millis(warm)).measurement_time(Duration::from_millis(measured));
            for case in Case::all(shards) {
                let wanted = !quick() || size.name == "n14" || size.name == "n16-47" && case.kind == Kind::KeySwitch;
                if !wanted || !fits(case, &material, backend.as_ref()) {
                    continue;
                }
                let name = format!("{} x{}", case.name(), case.shards);
                group.throughput(Throughput::Bytes(case.floor(&material).bytes));
                // Inputs are made where a filter lets the benchmark run.
                group.bench_function(&name, |b| {
                    let mut run = prepared(case, &material, backend.as_ref());
                    b.iter_custom(|calls| {
                        let clock = Instant::now();
                        run(calls);
                        clock.elapsed()
                    });
                });
                if let Some(profiled) = &profiled {
                    group.bench_function(format!("{name}, the device's clock"), |b| {
                        let mut run = prepared(case, &material, profiled.backend());
                        b.iter_custom(|calls| {
                            let before = profiled.kernel_time();
                            run(calls);
                            profiled.kernel_time() - before
                        });
                    });
                }
            }
            group.finish();
        }
    }
}

/// Whether a device can hold a case; where it cannot, that is said.
fn fits(case: Case, material: &Material, backend: &dyn Backend) -> bool {
    let needed = case.memory(material);
    if needed < SURELY_FITS {
        return true;
    }
    let tried = || case.job(material, backend).and_then(|mut job| job(None)).err().map(|e| e.to_string());
    let Some(why) = (if needed > MOST_BYTES { Some(format!("it takes {} MB", needed >> 20)) } else { tried() }) else {
        return true;
    };
    println!("{} x{} on {} is left out: {why}", case.name(), case.shards, backend.name());
    false
}

/// Some calls in a row, the device waited for after the last.
fn prepared<'a>(case: Case, material: &'a Material, backend: &'a dyn Backend) -> impl FnMut(u64) + 'a {
    let mut job = case.job(material, backend).unwrap();
    let mut result = Some(job(None).unwrap());
    move |calls| {
        for _ in 0..calls {
            result = Some(job(result.take()).unwrap());
        }
        backend.synchronize().unwrap();
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);

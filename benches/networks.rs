//! A convolution layer and the demo's network on the processor and on a GPU: the server's work, from ciphertexts to a ciphertext.
//!
//! `cargo bench --bench networks [-- FILTER] [--quick]`; with `--quick`, a small convolution alone. Variables as for `kernels`.

#![allow(missing_docs, dead_code, clippy::unwrap_used, reason = "a benchmark; it uses a part of what it shares with the other")]

use cipherlens::ckks::{Level, presets};
use cipherlens::nn::Model;
use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Duration;

#[path = "shared/machines.rs"]
mod machines;

use cipherlens_cli::measured::networks::Workload;
use machines::quick;

fn networks(c: &mut Criterion) {
    let preset = |name| presets::by_name(name).unwrap();
    let mut workloads = Vec::new();
    if quick() {
        workloads.push(Workload::convolution(4, 64, preset("n13"), Level(1)).unwrap());
    } else {
        workloads.push(Workload::convolution(16, 64, preset("n15-cnn"), Level(7)).unwrap());
        let model = Model::from_bytes(include_bytes!("../models/imagenette11.safetensors")).unwrap();
        workloads.push(Workload::new("demo", &model, preset("n15-cnn"), Level(0)).unwrap());
    }
    for machine in machines::all() {
        for workload in &workloads {
            let backend = machine.open(workload.params.tables());
            let mut group = c.benchmark_group(format!("{}/{}", workload.params.name(), backend.name()));
            group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(3));
            group.bench_function(&workload.name, |b| {
                // Keys are made where a filter lets the benchmark run.
                let loaded = workload.load(backend.clone()).unwrap();
                b.iter(|| loaded.run().unwrap());
            });
            group.finish();
        }
    }
}

criterion_group!(benches, networks);
criterion_main!(benches);

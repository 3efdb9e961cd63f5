//! Kernels and composites of the CPU backend, at the sizes of docs/kernels.md.
//!
//! `cargo bench --bench kernels [-- FILTER]`; `RAYON_NUM_THREADS` sets the threads, `CIPHERLENS_CPU` the instruction set.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use cipherlens::backend::cpu::CpuBackend;
use cipherlens::backend::{Backend, Buffer, GadgetPlan, PlainTerm, PolySelect, Shape};
use cipherlens::math::primes::closest_primes;
use cipherlens::math::{BaseConversion, Basis, BasisChange, RnsTables};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Arc;
use std::time::Duration;

/// A size to measure: the peers' key switch, the demo's, and a small one.
#[derive(Clone, Copy)]
struct Size {
    name: &'static str,
    log_n: u32,
    limbs: usize,
    alpha: usize,
    shards: usize,
}

const SIZES: [Size; 3] = [
    Size { name: "n16", log_n: 16, limbs: 42, alpha: 14, shards: 1 },
    Size { name: "n15x4", log_n: 15, limbs: 20, alpha: 7, shards: 4 },
    Size { name: "n13", log_n: 13, limbs: 4, alpha: 2, shards: 1 },
];

struct Bench {
    backend: CpuBackend,
    plan: GadgetPlan,
    ciphertext: Buffer,
    other: Buffer,
    key: Buffer,
}

impl Bench {
    fn new(size: Size) -> Self {
        let primes = closest_primes(29.9, size.limbs + size.alpha, size.log_n + 1, &[]).unwrap();
        let tables = Arc::new(RnsTables::new(size.log_n, &primes).unwrap());
        let backend = CpuBackend::new(tables.clone()).unwrap();
        let (window, special) = (Basis::range(0..size.limbs), Basis::range(size.limbs..primes.len()));
        let extended = window.then(&special);
        let digits: Vec<_> = window.limbs().chunks(size.alpha).map(|c| Basis::new(c.iter().copied())).collect();
        let plan = GadgetPlan {
            mod_up: digits.iter().map(|d| BaseConversion::new(&tables, d, &extended.minus(d), |_| 1)).collect(),
            mod_down: BasisChange::new(&tables, &extended, &window),
            key_digits: (0..digits.len()).collect(),
            key_limbs: (0..extended.len()).collect(),
            window,
            special,
            extended,
            digits,
        };
        let ciphertext = random(&backend, 2 * size.shards, &plan.window);
        let other = random(&backend, 2 * size.shards, &plan.window);
        let key = random(&backend, 2 * plan.digits.len(), &plan.extended);
        Self { backend, plan, ciphertext, other, key }
    }
}

fn random(backend: &CpuBackend, polys: usize, basis: &Basis) -> Buffer {
    let tables = backend.tables();
    let mut rng = StdRng::seed_from_u64(1);
    let shape = Shape::new(polys, basis.len(), tables.degree());
    let words: Vec<u32> = (0..shape.words())
        .map(|i| rng.random_range(0..tables.modulus(basis.limbs()[i / shape.degree % basis.len()]).value()))
        .collect();
    backend.upload(shape, &words).unwrap()
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, bytes: usize, mut f: impl FnMut()) {
    group.throughput(Throughput::Bytes(bytes as u64)).bench_function(name, |b| b.iter(&mut f));
}

/// Throughputs are of the compulsory bytes: each input and output word once.
fn kernels(c: &mut Criterion) {
    for size in SIZES {
        let Bench { backend, plan, ciphertext, other, key } = Bench::new(size);
        let backend = &backend;
        let mut group = c.benchmark_group(format!("{}/{}/{}", size.name, backend.name(), rayon::current_num_threads()));
        group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        let (window, bytes) = (&plan.window, ciphertext.shape().bytes());
        let select = PolySelect::second_halves(ciphertext.shape());

        let one = Basis::range(0..1);
        let mut limb = random(backend, 1, &one);
        let limb_bytes = limb.shape().bytes();
        measure(&mut group, "ntt_forward one limb", 2 * limb_bytes, || backend.ntt_forward(&mut limb, &one).unwrap());
        measure(&mut group, "ntt_inverse one limb", 2 * limb_bytes, || backend.ntt_inverse(&mut limb, &one).unwrap());
        let mut all = backend.duplicate(&ciphertext).unwrap();
        measure(&mut group, "ntt_forward", 2 * bytes, || backend.ntt_forward(&mut all, window).unwrap());
        measure(&mut group, "ntt_inverse", 2 * bytes, || backend.ntt_inverse(&mut all, window).unwrap());

        measure(&mut group, "add", 3 * bytes, || drop(backend.add(&ciphertext, &other, window).unwrap()));
        measure(&mut group, "tensor", 7 * bytes / 2, || drop(backend.tensor(&ciphertext, &other, window).unwrap()));
        measure(&mut group, "automorphism", 2 * bytes, || drop(backend.automorphism(&ciphertext, 5, window).unwrap()));

        let conversion = &plan.mod_up[0];
        let digit = random(backend, 1, &plan.digits[0]);
        let converted = digit.shape().bytes() / conversion.from.len() * (conversion.from.len() + conversion.to.len());
        measure(&mut group, "base_convert", converted, || drop(backend.base_convert(&digit, conversion).unwrap()));

        let digits = backend.mod_up(&ciphertext, select, &plan).unwrap();
        let product = backend.key_inner_product(&digits, &key, &plan).unwrap();
        let (digit_bytes, key_bytes, product_bytes) = (digits.shape().bytes(), key.shape().bytes(), product.shape().bytes());
        measure(&mut group, "mod_up", bytes / 2 + digit_bytes, || drop(backend.mod_up(&ciphertext, select, &plan).unwrap()));
        measure(&mut group, "key_inner_product", digit_bytes + key_bytes + product_bytes, || {
            drop(backend.key_inner_product(&digits, &key, &plan).unwrap())
        });
        measure(&mut group, "change_basis (mod_down)", product_bytes + bytes, || {
            drop(backend.change_basis(&product, &plan.mod_down).unwrap())
        });
        measure(&mut group, "key_switch", bytes / 2 + key_bytes + bytes, || {
            drop(backend.key_switch(&ciphertext, select, &key, &plan).unwrap())
        });
        measure(&mut group, "mul and relinearize", 3 * bytes + key_bytes, || {
            let product = backend.tensor(&ciphertext, &other, window).unwrap();
            let square = PolySelect { first: 2, stride: 3, count: size.shards };
            let mut switched = backend.key_switch(&product, square, &key, &plan).unwrap();
            for half in 0..2 {
                let low = backend.select(&product, PolySelect { first: half, stride: 3, count: size.shards }).unwrap();
                let to = PolySelect { first: half, stride: 2, count: size.shards };
                backend.add_plain_assign(&mut switched, to, &low, window).unwrap();
            }
        });

        let plain = random(backend, 16, window);
        let terms: Vec<Vec<_>> =
            (0..2).map(|o| (0..8).map(|i| PlainTerm { plain: 8 * o + i, source: i % size.shards }).collect()).collect();
        measure(&mut group, "plain_inner_product", bytes + plain.shape().bytes() + bytes / size.shards * 2, || {
            drop(backend.plain_inner_product(&ciphertext, &plain, &terms, window).unwrap())
        });
        group.finish();
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);

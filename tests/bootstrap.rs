//! Whole bootstraps on small insecure rings, against the values that went in.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

#[path = "support/ckks.rs"]
mod support;

use cipherlens::{
    circuits::{BootstrapOptions, Bootstrapper, EncryptedEngine, Order},
    ckks::{KeyRequest, PrecisionStats},
};
use std::sync::Arc;
use support::Bench;

/// Values of a period, repeated over all slots.
fn repeated(bench: &Bench, shards: usize, slots: usize, seed: u64) -> Vec<Vec<f64>> {
    let period = |v: Vec<f64>| v[..slots].iter().copied().cycle().take(v.len()).collect();
    bench.values(shards, seed).into_iter().map(period).collect()
}

fn engine(bench: &Bench, keys: &[KeyRequest]) -> EncryptedEngine {
    EncryptedEngine::new(bench.evaluator(keys))
}

#[test]
fn values_come_back_with_levels_in_both_orders() {
    let bench = Bench::new("insecure-boot");
    let n = bench.params.slots();
    for order in [Order::SlotsFirst, Order::SlotsLast] {
        for (slots, shards, batch) in [(n, 1, 4), (n, 3, 4), (n, 5, 1), (n / 8, 2, 4), (2, 1, 1)] {
            let options = BootstrapOptions { order, slots, batch, ..BootstrapOptions::new(&bench.params) };
            let bootstrapper = Bootstrapper::new(&bench.params, &options).unwrap();
            let engine = engine(&bench, bootstrapper.keys());
            let x = repeated(&bench, shards, slots, 5);
            let ct = Arc::new(bench.encrypt(&x, bootstrapper.input_level().unwrap()));
            let y = bootstrapper.apply(&engine, &ct).unwrap();
            assert_eq!(y.level(), bootstrapper.output_level().unwrap());
            assert_eq!(y.scale(), bench.params.scale(y.level()), "canonical scale");
            let got = bench.decryptor.decrypt_real(&bench.secret, &y).unwrap();
            let stats = PrecisionStats::compare_shards(&x, &got).unwrap();
            println!("{order:?} {slots} slots {shards} shards: {stats}");
            assert!(stats.mean_bits > 20.0 && stats.worst_bits > 16.0, "{order:?} {slots} slots {shards} shards: {stats}");
        }
    }
}

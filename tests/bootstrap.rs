//! Whole bootstraps on small insecure rings, against the values that went in.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens_testkit::ckks as support;

use cipherlens::{
    circuits::{BootstrapOptions, Bootstrapper, CircuitError, EncryptedEngine, NoisyEngine, Order},
    ckks::{Ciphertext, CkksError, KeyKind, KeyRequest, Level, PlainForm, PrecisionStats, Scale},
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
            let ct = Arc::new(bench.encrypt(&x, bootstrapper.input_level()));
            let y = bootstrapper.apply(&engine, &ct).unwrap();
            assert_eq!(y.level(), bootstrapper.output_level());
            assert_eq!(y.scale(), bench.params.scale(y.level()), "canonical scale");
            let got = bench.decryptor.decrypt_real(&bench.secret, &y).unwrap();
            let stats = PrecisionStats::compare_shards(&x, &got).unwrap();
            println!("{order:?} {slots} slots {shards} shards: {stats}");
            assert!(stats.mean_bits > 20.0 && stats.worst_bits > 16.0, "{order:?} {slots} slots {shards} shards: {stats}");
        }
    }
}

#[test]
fn predicted_precision_is_that_measured() {
    let bench = Bench::new("insecure-boot");
    for order in [Order::SlotsFirst, Order::SlotsLast] {
        let options = BootstrapOptions { order, ..BootstrapOptions::new(&bench.params) };
        let bootstrapper = Bootstrapper::new(&bench.params, &options).unwrap();
        let (x, level) = (bench.values(4, 7), bootstrapper.input_level());
        let y = bootstrapper.apply(&engine(&bench, bootstrapper.keys()), &Arc::new(bench.encrypt(&x, level))).unwrap();
        let measured = PrecisionStats::compare_shards(&x, &bench.decryptor.decrypt_real(&bench.secret, &y).unwrap()).unwrap();
        let noisy = NoisyEngine::new(&bench.params, 8);
        let y = bootstrapper.apply(&noisy, &noisy.encrypted(x.clone(), level)).unwrap();
        let predicted = PrecisionStats::compare_shards(&x, &y.shards).unwrap();
        println!("{order:?}: measured {measured}, predicted {predicted}");
        assert!((measured.mean_bits - predicted.mean_bits).abs() < 1.5, "{order:?}: {measured}, predicted {predicted}");
        assert!((measured.worst_bits - predicted.worst_bits).abs() < 1.5, "{order:?}: {measured}, predicted {predicted}");
    }
}

/// The keys listed are those used: without any one of them the bootstrap fails and says which is missing, also where another key of its
/// kind would do.
#[test]
fn the_key_list_is_exact() {
    let bench = Bench::new("insecure-boot");
    let options = BootstrapOptions { slots: 32, ..BootstrapOptions::new(&bench.params) };
    let bootstrapper = Bootstrapper::new(&bench.params, &options).unwrap();
    let x = repeated(&bench, 1, 32, 9);
    let ct = Arc::new(bench.encrypt(&x, bootstrapper.input_level()));
    let wide = bench.params.best_gadget(Level(0)..=bench.params.max_level()).unwrap();
    for left_out in 0..bootstrapper.keys().len() {
        let mut keys = bootstrapper.keys().to_vec();
        let missing = keys.remove(left_out);
        if missing.gadget != wide && !matches!(missing.kind, KeyKind::ToSparse | KeyKind::ToDense) {
            keys.push(KeyRequest { gadget: wide, ..missing });
        }
        match bootstrapper.apply(&engine(&bench, &keys), &ct) {
            Err(CircuitError::Ckks(CkksError::MissingKey { kind, .. })) => assert_eq!(kind, missing.kind),
            other => panic!("without {missing:?}: {:?}", other.map(|_| ())),
        }
    }
}

#[test]
fn few_keys_and_no_prepared_diagonals_give_the_same_values() {
    let bench = Bench::new("insecure-boot");
    let free = Bootstrapper::new(&bench.params, &BootstrapOptions::new(&bench.params)).unwrap();
    let options = BootstrapOptions { max_key_bytes: Some(free.key_bytes() / 2), ..free.options().clone() };
    let tight = Bootstrapper::new(&bench.params, &options).unwrap();
    let x = bench.values(1, 13);
    let ct = Arc::new(bench.encrypt(&x, free.input_level()));
    for (bootstrapper, prepared) in [(&free, 2 << 30), (&free, 0), (&tight, 1 << 20)] {
        let engine = engine(&bench, bootstrapper.keys()).with_prepared_bytes(prepared);
        let once = bootstrapper.apply(&engine, &ct).unwrap();
        let again = bootstrapper.apply(&engine, &ct).unwrap();
        assert!(engine.prepared().bytes() <= prepared);
        let words = |ct: &Ciphertext| bench.backend.download(ct.buffer()).unwrap();
        assert!(words(&once) == words(&again), "what is kept gives the bits of what is made again");
        let stats = PrecisionStats::compare_shards(&x, &bench.decryptor.decrypt_real(&bench.secret, &once).unwrap()).unwrap();
        assert!(stats.mean_bits > 20.0, "{stats}");
    }
}

#[test]
fn a_drifted_scale_is_made_good_and_a_wrong_one_refused() {
    let bench = Bench::new("insecure-boot");
    let bootstrapper = Bootstrapper::new(&bench.params, &BootstrapOptions::new(&bench.params)).unwrap();
    let engine = engine(&bench, bootstrapper.keys());
    let (x, level) = (bench.values(1, 11), bootstrapper.input_level());
    let at = |factor: f64| {
        let scale = Scale(bench.params.scale(level).0 * factor);
        let plain = bench.encoder.encode_shards(&x, scale, bench.params.window(level), PlainForm::Plain).unwrap();
        Arc::new(bench.encryptor.encrypt(&bench.secret, &plain).unwrap())
    };
    let y = bootstrapper.apply(&engine, &at(1.01)).unwrap();
    let stats = PrecisionStats::compare_shards(&x, &bench.decryptor.decrypt_real(&bench.secret, &y).unwrap()).unwrap();
    assert!(stats.mean_bits > 20.0, "one per cent off: {stats}");
    let error = bootstrapper.apply(&engine, &at(1024.0)).unwrap_err();
    assert!(matches!(error, CircuitError::Ckks(CkksError::ScaleMismatch { .. })), "{error}");
    let low = Arc::new(bench.encrypt(&x, Level(level.0 - 1)));
    let error = bootstrapper.apply(&engine, &low).unwrap_err();
    assert!(matches!(error, CircuitError::LevelsExhausted { needed: 3, have: 2, .. }), "{error}");

    let last = BootstrapOptions { order: Order::SlotsLast, ..bootstrapper.options().clone() };
    let last = Bootstrapper::new(&bench.params, &last).unwrap();
    let bottom = Scale(bench.params.scale(Level(0)).0 * 1.01);
    let plain = bench.encoder.encode_shards(&x, bottom, bench.params.window(Level(0)), PlainForm::Plain).unwrap();
    let drifted = Arc::new(bench.encryptor.encrypt(&bench.secret, &plain).unwrap());
    let error = last.apply(&self::engine(&bench, last.keys()), &drifted).unwrap_err();
    assert!(matches!(error, CircuitError::Ckks(CkksError::ScaleMismatch { .. })), "{error}");
}

#[test]
fn keys_of_another_secret_are_refused() {
    let bench = Bench::new("insecure-boot");
    let options = BootstrapOptions { slots: 8, ..BootstrapOptions::new(&bench.params) };
    let bootstrapper = Bootstrapper::new(&bench.params, &options).unwrap();
    assert!(bootstrapper.keys().iter().any(|k| k.kind == KeyKind::ToSparse));
    let other = bench.generator.secret_key().unwrap();
    let keys = Arc::new(bench.generator.generate(&other, bootstrapper.keys()).unwrap());
    let evaluator = cipherlens::ckks::Evaluator::new(bench.params.clone(), bench.backend.clone(), keys).unwrap();
    let ct = Arc::new(bench.encrypt(&repeated(&bench, 1, 8, 3), bootstrapper.input_level()));
    let error = bootstrapper.apply(&EncryptedEngine::new(evaluator), &ct).unwrap_err();
    assert!(matches!(error, CircuitError::Ckks(CkksError::KeyMismatch { .. })), "{error}");
}

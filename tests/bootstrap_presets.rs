//! Every insecure preset for bootstrapping, end to end: what is left, and how close.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens::circuits::{BootstrapOptions, Bootstrapper, EncryptedEngine};
use cipherlens::ckks::{PrecisionStats, presets};
use std::sync::Arc;
use support::Bench;

use cipherlens_testkit::ckks as support;

#[test]
fn insecure_presets_bootstrap_all_the_slots_they_promise() {
    let names: Vec<_> = presets::all().iter().filter(|s| s.insecure && s.bootstrap.is_some()).map(|s| s.name).collect();
    assert_eq!(names, ["insecure-boot", "insecure-boot-deep", "insecure-boot-lean", "insecure-boot-sparse"]);
    for (name, left, mean, worst) in [
        ("insecure-boot", 4, 21.0, 18.0),
        ("insecure-boot-deep", 9, 21.0, 18.0),
        ("insecure-boot-lean", 3, 21.0, 18.0),
        ("insecure-boot-sparse", 3, 21.0, 18.0),
    ] {
        let bench = Bench::new(name);
        let params = &bench.params;
        let slots = 1 << params.bootstrap().unwrap().log_slots;
        let options = BootstrapOptions { slots, ..BootstrapOptions::new(params) };
        let bootstrapper = Bootstrapper::new(params, &options).unwrap();
        let engine = EncryptedEngine::new(bench.evaluator(bootstrapper.keys()));
        let (input, output) = (bootstrapper.input_level(), bootstrapper.output_level());
        assert_eq!(output.0 - input.0, left, "{name}");
        let repeat = |v: Vec<f64>| v[..slots].iter().copied().cycle().take(v.len()).collect();
        let x: Vec<Vec<f64>> = bench.values(2, 21).into_iter().map(repeat).collect();
        let y = bootstrapper.apply(&engine, &Arc::new(bench.encrypt(&x, input))).unwrap();
        assert_eq!((y.level(), y.scale()), (output, params.scale(output)));
        let stats = PrecisionStats::compare_shards(&x, &bench.decryptor.decrypt_real(&bench.secret, &y).unwrap()).unwrap();
        println!("{name}: {left} levels left, {stats}");
        assert!(stats.mean_bits > mean && stats.worst_bits > worst, "{name}: {stats}");
    }
}

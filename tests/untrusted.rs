//! Files that someone else may have made: whatever their bytes are, readers answer, and do not panic. The functions and the first files are those
//! of the fuzz targets (`fuzz/`), run here with mutations of a seeded generator, so that a stable compiler and a minute are enough.
//!
//! `CIPHERLENS_MUTANTS` is the number for each target (2,000 if it is not set), `CIPHERLENS_SEED` the generator's seed.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

#[allow(dead_code, unreachable_pub, reason = "the fuzzer uses what this test does not, from another crate")]
#[path = "../fuzz/src/targets.rs"]
mod targets;

use cipherlens_testkit as common;

use chacha20::ChaCha8Rng;
use cipherlens::ckks::{KeyGenerator, KeyRequest, RandomSource};
use cipherlens::client::{ClientSpec, Layout, Rest, RunSpec};
use cipherlens::nn::compiled::{Compiled, KeptPlan};
use cipherlens::nn::model::Model;
use cipherlens::nn::tensor::Shape;
use cipherlens::plan::{Decision, Decisions};
use cipherlens::wire::network::NetworkDigest;
use cipherlens::wire::objects;
use common::models::{Builder, fit, picture, seeded};
use common::onnx::{Attribute, Data, File, node};
use rand::RngExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use targets::BED;

type Target = (&'static str, fn(&[u8]) -> bool);

/// Every reader of the library.
const TARGETS: [Target; 10] = [
    ("params", targets::params),
    ("secret_key", targets::secret_key),
    ("public_key", targets::public_key),
    ("evaluation_keys", targets::evaluation_keys),
    ("ciphertext", targets::ciphertext),
    ("seeded_ciphertext", targets::seeded_ciphertext),
    ("compiled", targets::compiled),
    ("client_spec", targets::client_spec),
    ("model", targets::model),
    ("onnx", targets::onnx),
];

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(corpus(target)).expect("a folder of first files").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a whole number"))
}

/// A file with one to four changes. Half of them fall into the first 256 bytes: where headers are.
fn mutant(seed: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    const TELLING: [u8; 12] = [0, 1, 2, 3, 127, 128, 249, 250, 251, 252, 253, 255];
    let mut bytes = seed.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        if bytes.is_empty() {
            break;
        }
        let reach = if rng.random() { bytes.len() } else { bytes.len().min(256) };
        let at = rng.random_range(0..reach);
        match rng.random_range(0..7) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 | 3 => bytes[at] = TELLING[rng.random_range(0..TELLING.len())],
            4 => bytes.insert(at, rng.random()),
            5 => drop(bytes.remove(at)),
            _ => {
                let from = rng.random_range(0..bytes.len());
                let length = rng.random_range(0..=(bytes.len() - from.max(at)).min(16));
                bytes.copy_within(from..from + length, at);
            }
        }
    }
    if rng.random_range(0..32) == 0 {
        bytes.truncate(rng.random_range(0..=bytes.len()));
    }
    bytes
}

#[test]
fn readers_survive_whatever_they_are_given() {
    let (count, first) = (number("CIPHERLENS_MUTANTS", 2000), number("CIPHERLENS_SEED", 71));
    for (index, (name, target)) in TARGETS.into_iter().enumerate() {
        let mut rng = seeded(first + index as u64);
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no first file");
        for (i, seed) in seeds.iter().enumerate() {
            assert!(
                target(seed),
                "{name}: first file {i} is not accepted: was the format changed? Then write the corpus anew (fuzz/README.md)"
            );
        }
        let mut accepted = 0;
        for round in 0..count {
            let bytes = mutant(&seeds[rng.random_range(0..seeds.len())], &mut rng);
            match catch_unwind(AssertUnwindSafe(|| target(&bytes))) {
                Ok(true) => accepted += 1,
                Ok(false) => {}
                Err(_) => {
                    let path = std::env::temp_dir().join(format!("cipherlens-{name}-{round}"));
                    std::fs::write(&path, &bytes).expect("a file that can be written");
                    panic!("{name}: mutant {round} of seed {} panics; it is kept as {}", first + index as u64, path.display());
                }
            }
        }
        println!("{name}: {count} mutants, {accepted} accepted");
    }
}

/// Where hashes are made right again, damage behind them is reached: a word that is no residue is refused as such, not for its hash.
#[test]
fn resealing_reaches_what_lies_behind_the_hashes() {
    let file = &seeds("ciphertext")[0];
    let mut damaged = file.clone();
    let last = damaged.len() - 4;
    damaged[last..].copy_from_slice(&u32::MAX.to_le_bytes());
    let dir = tempfile::tempdir().expect("a folder");
    let refusal = |bytes: &[u8]| {
        let path = dir.path().join("file");
        std::fs::write(&path, bytes).expect("a file that can be written");
        objects::read_ciphertext(&path, &BED.params, BED.backend.as_ref()).map(|_| ()).map_err(|e| e.to_string())
    };
    assert!(refusal(&damaged).is_err_and(|e| e.contains("hash")));
    let resealed = targets::resealed(&damaged);
    assert!(refusal(&resealed).is_err_and(|e| !e.contains("hash")), "{:?}", refusal(&resealed));
    assert_eq!(targets::resealed(file), *file);
}

/// The first files of all targets of the library. Run it where a format has changed: `cargo test --test untrusted -- --ignored`.
#[test]
#[ignore = "writes fuzz/corpus"]
fn write_corpus() {
    let (params, backend, owner) = (&BED.params, BED.backend.as_ref(), &BED.owner);
    let top = params.max_level();
    let place = |target: &str, name: &str| {
        std::fs::create_dir_all(corpus(target)).expect("a folder that can be written");
        let path = corpus(target).join(name);
        // A secret key is never replaced.
        let _ = std::fs::remove_file(&path);
        path
    };
    objects::write_params(&place("params", "tiny"), params).expect("written");
    let boot = cipherlens::ckks::presets::by_name("insecure-boot-lean").expect("a preset");
    objects::write_params(&place("params", "bootstrapping"), &boot).expect("written");
    objects::write_secret_key(&place("secret_key", "tiny"), params, owner.secret()).expect("written");
    let generator = KeyGenerator::new(params, BED.backend.clone(), RandomSource::insecure_seeded(8)).expect("a generator");
    let public = generator.public_key(owner.secret()).expect("a key");
    objects::write_public_key(&place("public_key", "tiny"), params, &public).expect("written");
    let mut requests = KeyRequest::rotations(params, top, &[1, 2]).expect("requests");
    requests.push(KeyRequest::relinearization(params, top).expect("a request"));
    let keys = owner.evaluation_keys(&requests).expect("keys");
    objects::write_evaluation_keys(&place("evaluation_keys", "tiny"), params, backend, &keys, None).expect("written");
    let values = vec![vec![0.5; params.slots()]; 2];
    let seeded_ct = owner.encrypt_seeded(top, &values).expect("a ciphertext");
    objects::write_seeded_ciphertext(&place("seeded_ciphertext", "tiny"), params, &seeded_ct, None).expect("written");
    let low = owner.encrypt(cipherlens::ckks::Level(1), &values).expect("a ciphertext");
    objects::write_ciphertext(&place("ciphertext", "tiny"), params, backend, &low, None).expect("written");

    let mut rng = seeded(72);
    let shape = Shape::new(2, 4, 4);
    let mut b = Builder::new(shape);
    b.random("k", &[2, 2, 3, 3], 1.0, &mut rng);
    b.node("c", &["x"], serde_json::json!({"op": "conv2d", "weight": "k"}));
    b.node("a", &["c"], serde_json::json!({"op": "activation", "function": {"name": "relu"}}));
    let model = b.build("a");
    let model = fit(&model, &picture(shape, &mut rng), &mut rng);
    std::fs::write(place("model", "convolution"), model.to_bytes()).expect("written");
    let layout = Layout::row_major(shape, params.slots()).expect("it fits");
    let run = RunSpec {
        pictures: 1,
        plan: NetworkDigest([7; 32]),
        slots: params.slots(),
        input: layout.clone(),
        input_level: top,
        output: layout,
        rest: Rest::Zeros,
        output_level: cipherlens::ckks::Level(0),
        keys: requests,
    };
    let spec = ClientSpec {
        name: "convolution".into(),
        network: NetworkDigest([7; 32]),
        params: params.literal().clone(),
        input: model.input().clone(),
        interval: vec![[-2.0, 2.0]; 2],
        classes: vec!["one".into(), "other".into()],
        output_divisor: 1.0,
        largest: 100.0,
        noise: 1e-5,
        runs: vec![run],
    };
    spec.check(params).expect("it fits together");
    spec.write(&place("client_spec", "convolution")).expect("written");

    let decisions = Decisions {
        input_level: 3,
        steps: vec![Decision::Run { level: 3, cut: None }, Decision::Bootstrap { value: 1 }],
        bootstrap_babies: vec![4],
    };
    let layouts = Some(vec![Arc::new(spec.runs[0].input.clone()), Arc::new(spec.runs[0].output.clone())]);
    let plans = vec![KeptPlan { together: 1, decisions, layouts }];
    let report = r#"{"agreement": 0.99}"#.parse().expect("notes");
    let compiled = Compiled { model, preset: "n16-boot".into(), max_key_bytes: Some(1 << 32), plans, client: None, report };
    compiled.write(&place("compiled", "convolution")).expect("written");

    let onnx = File::new(&[1, 3, 8, 8], "y")
        .constant("w", &[4, 3, 3, 3], Data::Real((0..108).map(|i| (i % 7) as f32 - 3.0).collect()))
        .constant("pads", &[8], Data::Whole(vec![0, 0, 1, 1, 0, 0, 1, 1]))
        .constant("f", &[3, 4], Data::Real((0..12).map(|i| i as f32 / 8.0).collect()))
        .node(node("Conv", &["x", "w"], "c").ints("pads", &[1, 1, 1, 1]))
        .node(node("Relu", &["c"], "r"))
        .node(node("Add", &["r", "c"], "s"))
        .node(node("Pad", &["s", "pads"], "p"))
        .node(node("AveragePool", &["p"], "v").ints("kernel_shape", &[2, 2]).ints("strides", &[2, 2]))
        .node(node("Sigmoid", &["v"], "g"))
        .node(node("Mul", &["v", "g"], "m"))
        .node(node("GlobalAveragePool", &["m"], "h"))
        .node(node("Flatten", &["h"], "l"))
        .node(node("Gemm", &["l", "f"], "y").int("transB", 1));
    let bytes = onnx.bytes();
    Model::from_onnx(&bytes, &Default::default()).expect("a network that is read");
    std::fs::write(place("onnx", "small"), bytes).expect("written");
}

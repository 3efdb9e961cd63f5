//! Files that an older program wrote, one of every kind, open for ever: `tests/fixtures/frozen/v2` and what comes after it, one folder for
//! each format version, never written again once it is released (docs/files.md).
//!
//! A new version's folder is made by `cargo test --test frozen_files -- --ignored`.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens::backend::{Backend, choice::Devices, cpu::CpuBackend};
use cipherlens::ckks::{Ciphertext, KeyGenerator, RandomSource, presets};
use cipherlens::engine::{self, Client, ClientSpec, CompileOptions, Prepared, Server, Session};
use cipherlens::nn::onnx::OnnxOptions;
use cipherlens::nn::simulate::Labelled;
use cipherlens::nn::{Compiled, Model, Tensor, tensor::Shape};
use cipherlens::wire::{container, objects, verify};
use cipherlens_testkit::onnx::{Attribute, Data, File, node};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a folder holds.
const FILES: [&str; 9] = [
    "net.lens",
    "net.client",
    "params",
    "secret.key",
    "public.key",
    "evaluation.keys",
    "picture.ct",
    "picture_whole.ct",
    "answer.ct",
];
/// The answer for the picture, as the clear network gave it.
const LOGITS: [f64; 3] = [0.158_029_556, 0.030_656_815, -0.234_671_593];

fn frozen() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/frozen")
}

/// 4 x 4 pixels of 0 to 1 in steps of 1/16.
fn picture(k: usize) -> Tensor<f64> {
    let values = (0..16).map(|i| ((5 * i + 3 * k * (i / 4) + k) % 17) as f64 / 16.0).collect();
    Tensor::new(Shape::new(1, 4, 4), values).expect("its size")
}

fn devices() -> Devices {
    Devices::from(cipherlens::backend::choice::Choice::Cpu)
}

fn open(dir: &Path) -> (Arc<ClientSpec>, Client, Prepared) {
    let (spec, params) = ClientSpec::read(&dir.join("net.client")).expect("a description");
    let spec = Arc::new(spec);
    let secret = objects::read_secret_key(&dir.join("secret.key"), &params).expect("a secret key");
    let client = Client::with_secret(&spec, &params, secret).expect("its key");
    let compiled = Compiled::read(&dir.join("net.lens")).expect("a compiled network");
    (spec, client, engine::open(&compiled, 1, &devices()).expect("its plan"))
}

fn close(found: &[f64], what: &str) {
    assert_eq!(found.len(), LOGITS.len());
    let error = found.iter().zip(LOGITS).map(|(f, w)| (f - w).abs()).fold(0.0, f64::max);
    assert!(error < 1e-3, "{what}: {found:?}, {error:e} off");
}

#[test]
fn files_of_every_version_open_and_work_together() {
    let mut versions = 0;
    for entry in std::fs::read_dir(frozen()).expect("a folder") {
        let dir = entry.expect("an entry").path();
        println!("{}", dir.display());
        let (spec, client, prepared) = open(&dir);
        // The network and its description were read whole.
        for name in &FILES[2..] {
            verify(&dir.join(name), Some(client.params())).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let (run, params) = (spec.run(1).expect("one picture"), client.params());
        let read = objects::read_params(&dir.join("params")).expect("parameters");
        assert_eq!(read.fingerprint(), params.fingerprint());
        objects::read_public_key(&dir.join("public.key"), params).expect("a public key");

        // What was answered then, and what is answered now, to what was encrypted then and to what is encrypted now.
        let backend = prepared.backend.as_ref();
        let ciphertext =
            |name: &str| objects::read_ciphertext(&dir.join(name), params, backend).unwrap_or_else(|e| panic!("{name}: {e}"));
        let answer = ciphertext("answer.ct");
        close(&client.decrypt(run, &answer).expect("an answer")[0], "the answer of then");
        let keys = objects::read_evaluation_keys(&dir.join("evaluation.keys"), params, backend).expect("keys");
        let session = Server::new(&prepared).session(Arc::new(keys), 1).expect("its keys");
        let again = |session: &Session, input| session.run(input, &()).expect("an answer").ciphertext;
        for name in ["picture.ct", "picture_whole.ct"] {
            let found = again(&session, ciphertext(name));
            let words = |c: &Ciphertext| backend.download(c.buffer()).expect("words");
            assert_eq!(words(&found), words(&answer), "{name}: the same bits as then");
        }
        let fresh = client.encrypt(run, &[picture(3)]).expect("a ciphertext");
        let found = again(&session, session.expand(&fresh).expect("a ciphertext"));
        close(&client.decrypt(run, &found).expect("an answer")[0], "a new one");
        versions += 1;
    }
    assert!(versions > 0 && frozen().join(format!("v{}", container::VERSION)).is_dir(), "today's version has files too");
}

#[test]
#[ignore = "writes the files of a new format version"]
fn write_frozen_files() {
    let dir = frozen().join(format!("v{}", container::VERSION));
    assert!(!dir.exists(), "{} is there: files of a version that was released are never written again", dir.display());
    std::fs::create_dir_all(&dir).expect("a folder");
    let at = |name: &str| dir.join(name);
    let weights = |n: usize, step: usize| Data::Real((0..n).map(|i| ((i * step) % 9) as f32 / 8.0 - 0.5).collect());
    let file = File::new(&[1, 1, 4, 4], "y")
        .constant("w", &[2, 1, 3, 3], weights(18, 5))
        .constant("fc", &[3, 2], weights(6, 2))
        .constant("b", &[3], Data::Real(vec![0.25, 0.0, -0.25]))
        .node(node("Conv", &["x", "w"], "c").ints("pads", &[1, 1, 1, 1]))
        .node(node("Mul", &["c", "c"], "s"))
        .node(node("GlobalAveragePool", &["s"], "p"))
        .node(node("Flatten", &["p"], "f"))
        .node(node("Gemm", &["f", "fc", "b"], "y").int("transB", 1));
    let network = Model::from_onnx(&file.bytes(), &OnnxOptions::default()).expect("a network");
    let seen: Vec<_> = (0..40).map(|k| Labelled { x: picture(k).cast(), label: None }).collect();
    let mut options = CompileOptions { preset: Some("insecure-tiny".into()), ..CompileOptions::default() };
    options.choose.target = 0.5;
    let made = engine::compile(&network, &seen, &options, &()).expect("it compiles");
    made.compiled.write(&at("net.lens")).expect("written");
    made.client.write(&at("net.client")).expect("written");
    let params = presets::by_name("insecure-tiny").expect("a preset");
    objects::write_params(&at("params"), &params).expect("written");
    let spec = Arc::new(ClientSpec::read(&at("net.client")).expect("a description").0);
    let client = Client::new(&spec, &params).expect("a client");
    objects::write_secret_key(&at("secret.key"), &params, client.secret()).expect("written");
    let run = spec.run(1).expect("one picture");
    let backend: Arc<dyn Backend> = Arc::new(CpuBackend::new(params.tables().clone()).expect("a backend"));
    let generator = KeyGenerator::new(&params, backend.clone(), RandomSource::from_os().expect("random")).expect("one");
    let public = generator.public_key(client.secret()).expect("a key");
    objects::write_public_key(&at("public.key"), &params, &public).expect("written");
    let keys = Arc::new(client.evaluation_keys(run, &|| ()).expect("keys"));
    objects::write_evaluation_keys(&at("evaluation.keys"), &params, backend.as_ref(), &keys, Some(run.plan)).expect("written");
    let encrypted = client.encrypt(run, &[picture(3)]).expect("a ciphertext");
    objects::write_seeded_ciphertext(&at("picture.ct"), &params, &encrypted, Some(run.plan)).expect("written");
    let prepared = engine::open(&made.compiled, 1, &devices()).expect("its plan");
    let session = Server::new(&prepared).session(keys, 1).expect("its keys");
    let whole = session.expand(&encrypted).expect("a ciphertext");
    objects::write_ciphertext(&at("picture_whole.ct"), &params, backend.as_ref(), &whole, Some(run.plan)).expect("written");
    let answer = session.run(whole, &()).expect("an answer").ciphertext;
    objects::write_ciphertext(&at("answer.ct"), &params, backend.as_ref(), &answer, Some(run.plan)).expect("written");
    let clear = cipherlens::nn::clear::Network::<f64>::new(&network).evaluate(&picture(3)).expect("its shape");
    println!("LOGITS: {:?}", clear.values());
}

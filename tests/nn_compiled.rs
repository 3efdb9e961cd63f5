//! Models written to files and read again, and compiled networks.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use cipherlens::circuits::Packing;
use cipherlens::nn::Layout;
use cipherlens::nn::clear::Network;
use cipherlens::nn::compiled::{Compiled, CompiledError, KeptPlan};
use cipherlens::nn::model::{Model, Rearrange};
use cipherlens::nn::tensor::Shape;
use cipherlens::plan::{Cut, Decision, Decisions};
use cipherlens::wire::WireError;
use common::models::{Builder, fit, picture, random_layers, seeded};
use rand::RngExt;
use std::path::PathBuf;
use std::sync::Arc;

/// What is read is what was written: the same nodes, and the same bits from every picture.
#[test]
fn random_networks_survive_their_file() {
    let mut rng = seeded(61);
    for case in 0..60 {
        let input = Shape::new(rng.random_range(1..=4), rng.random_range(2..=12), rng.random_range(2..=12));
        let mut b = Builder::new(input);
        let mut output = random_layers(&mut b, rng.random_range(2..=9), &mut rng);
        let exact = b.build(&output);
        let shape = exact.shape(exact.output());
        let map = Rearrange { channels: vec![None, Some(0)], ..Rearrange::identity(shape) };
        let attributes =
            serde_json::json!({"op": "rearrange", "channels": map.channels, "rows": map.rows, "columns": map.columns});
        b.node("moved", &[&output], attributes);
        output = "moved".into();
        let exact = b.build(&output);
        let x = picture(input, &mut rng);
        for model in [exact.clone(), fit(&exact, &x, &mut rng)] {
            let read = Model::from_bytes(&model.to_bytes()).unwrap_or_else(|e| panic!("case {case}: {e}"));
            assert_eq!(read.nodes().len(), model.nodes().len());
            for (a, b) in model.nodes().iter().zip(read.nodes()) {
                assert_eq!((&a.name, &a.inputs, a.shape, a.operator.name()), (&b.name, &b.inputs, b.shape, b.operator.name()));
            }
            let value = |m: &Model| Network::<f64>::new(m).evaluate(&x).expect("the shape fits");
            let (before, after) = (value(&model), value(&read));
            assert!(before.values().iter().zip(after.values()).all(|(a, b)| a.to_bits() == b.to_bits()), "case {case}");
            assert_eq!(read.to_bytes(), model.to_bytes());
        }
    }
}

fn compiled(dir: &tempfile::TempDir) -> (Compiled, PathBuf) {
    let mut rng = seeded(62);
    let mut b = Builder::new(Shape::new(2, 6, 6));
    b.random("k", &[3, 2, 3, 3], 1.0, &mut rng);
    b.node("c", &["x"], serde_json::json!({"op": "conv2d", "weight": "k"}));
    b.node("a", &["c"], serde_json::json!({"op": "activation", "function": {"name": "relu"}}));
    let model = b.build("a");
    let model = fit(&model, &picture(Shape::new(2, 6, 6), &mut rng), &mut rng);
    let report = r#"{"agreement": 0.99, "layers": ["a"]}"#.parse().expect("notes");
    let run = Decision::Run { level: 3, cut: Some(Cut { modulus: 64, packing: Packing::Halves }) };
    let decisions =
        Decisions { input_level: 3, steps: vec![run, Decision::Bootstrap { value: 1 }], bootstrap_babies: vec![4, 8] };
    let layout = |shape| Arc::new(Layout::row_major(shape, 64).expect("it fits"));
    let of_values = [layout(Shape::new(2, 6, 6)), layout(Shape::new(3, 6, 6)), layout(Shape::new(3, 6, 6))];
    let plans = vec![
        KeptPlan { together: 1, decisions: decisions.clone(), layouts: None },
        KeptPlan { together: 2, decisions, layouts: Some(of_values.into()) },
    ];
    let compiled = Compiled { model, preset: "n16-boot".into(), max_key_bytes: Some(1 << 32), plans, client: None, report };
    let path = dir.path().join("net.lens");
    compiled.write(&path).expect("a folder that can be written");
    (compiled, path)
}

#[test]
fn compiled_networks_survive_their_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let (compiled, path) = compiled(&dir);
    assert!(Compiled::is_one(&path));
    let read = Compiled::read(&path).expect("what was written");
    assert_eq!((&read.preset, &read.report), (&compiled.preset, &compiled.report));
    assert_eq!((read.max_key_bytes, &read.plans), (Some(1 << 32), &compiled.plans));
    assert_eq!(read.model.to_bytes(), compiled.model.to_bytes());
}

/// Every cut and every changed byte is refused with a typed error.
#[test]
fn damaged_files_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_, path) = compiled(&dir);
    let bytes = std::fs::read(&path).expect("just written");
    let attempt = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("a folder that can be written");
        Compiled::read(&path)
    };
    let mut rng = seeded(63);
    for _ in 0..500 {
        let cut = rng.random_range(0..bytes.len());
        assert!(matches!(attempt(&bytes[..cut]), Err(CompiledError::File(_))), "cut at {cut}");
        let mut changed = bytes.clone();
        let at = rng.random_range(0..bytes.len());
        changed[at] ^= 1 << rng.random_range(0..8);
        // Bytes between the chunks mean nothing and are not hashed.
        match attempt(&changed) {
            Err(CompiledError::File(_)) => {}
            Err(other) => panic!("byte {at}: {other}"),
            Ok(read) => assert_eq!(read.preset, "n16-boot", "byte {at}"),
        }
    }
    assert!(matches!(attempt(b"CIPHLENS"), Err(CompiledError::File(WireError::Length { .. }))));
}

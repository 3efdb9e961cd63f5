//! Layers and the demo network against what PyTorch computed (tests/fixtures, written by training/make_fixtures.py).
#![allow(clippy::expect_used, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use cipherlens::nn::clear::{Network, Ranges};
use cipherlens::nn::model::{NumberType, TensorData};
use cipherlens::nn::tensor::{Shape, Tensor};
use cipherlens::nn::{LowerOptions, Model, lower};
use common::slots;
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn metadata(bytes: &[u8], key: &str) -> serde_json::Value {
    let (_, header) = SafeTensors::read_metadata(bytes).expect("a safetensors file");
    let text = header.metadata().as_ref().and_then(|m| m.get(key).cloned()).expect("the entry is there");
    serde_json::from_str(&text).expect("JSON")
}

/// A tensor of any rank as channels, rows, columns.
fn tensor(file: &SafeTensors<'_>, name: &str) -> Tensor<f64> {
    let view = file.tensor(name).expect("the tensor is there");
    let extent = |i: usize| view.shape().get(i).copied().unwrap_or(1);
    let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect();
    Tensor::new(Shape::new(extent(0), extent(1), extent(2)), values).expect("the sizes agree")
}

/// Both come from f32 arithmetic of some hundreds of terms of size about 1: 1e-5 of the largest value is some 100 ulp.
fn close(name: &str, got: &Tensor<f64>, want: &Tensor<f64>) {
    assert_eq!(got.values().len(), want.values().len(), "{name}");
    let size = want.values().iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (got, want)) in got.values().iter().zip(want.values()).enumerate() {
        assert!((got - want).abs() <= 1e-5 * size, "{name}, element {i}: {got} here, {want} in PyTorch");
    }
}

#[test]
fn layers_as_in_pytorch() {
    let bytes = std::fs::read(root().join("tests/fixtures/pytorch_layers.safetensors")).expect("the fixture is there");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let cases = metadata(&bytes, "cases");
    let cases = cases.as_array().expect("a list");
    for case in cases {
        let text = |key: &str| case[key].as_str().expect("a string");
        let name = text("name");
        let find = |name: &str| {
            let view = file.tensor(name).ok()?;
            Some(TensorData { shape: view.shape().to_vec(), dtype: NumberType::F32, bytes: view.data() })
        };
        let model = Model::from_graph(&case["graph"].to_string(), find).expect(name);
        let (x, want) = (tensor(&file, text("input")), tensor(&file, text("output")));
        let in_f64 = Network::<f64>::new(&model).evaluate(&x).expect("the shape fits");
        close(name, &in_f64, &want);
        let in_f32 = Network::<f32>::new(&model).evaluate(&x.cast()).expect("the shape fits");
        close(name, &in_f32.cast(), &want);

        // The same through slots; polynomials of degree 3 need a range.
        let mut ranges = Ranges::new(&model);
        ranges.observe(&Network::<f64>::new(&model), &x).expect("the shape fits");
        let ranges = ranges.iter().map(|(node, range)| (node.to_owned(), range.magnitude())).collect();
        let lowered = lower(&model, 512, &LowerOptions { ranges, ..Default::default() }).expect(name);
        let out = slots::run(&lowered.program, lowered.input.pack(&x).expect("packs"));
        let got = lowered.output.unpack(&out).expect("the output has its layout");
        close(name, &got, &want);
        for (i, (a, b)) in got.values().iter().zip(in_f64.values()).enumerate() {
            assert!((a - b).abs() < 1e-9, "{name}, element {i}: {a} by the program, {b} directly");
        }
    }
    println!("{} cases", cases.len());
    assert!(cases.len() >= 18);
}

#[test]
fn demo_network_as_in_pytorch() {
    let bytes = std::fs::read(root().join("tests/fixtures/chelsea_logits.safetensors")).expect("the fixture is there");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let model = Model::from_file(&root().join("models/imagenette11.safetensors")).expect("the demo's model loads");
    let got = Network::<f32>::new(&model).evaluate(&tensor(&file, "input").cast()).expect("the shape fits");
    close("demo", &got.cast(), &tensor(&file, "logits"));
    let label = got.argmax().map(|i| model.classes()[i].clone());
    assert_eq!(label.as_deref(), Some("cat"));
}

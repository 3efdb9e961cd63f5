//! Pointwise functions: what ONNX files spell out against what onnxruntime computes (tests/fixtures, written by
//! tests/pointwise.py), and what comes of them: files, fits, programs.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

mod common;

use cipherlens::nn::calibration::{Calibration, CalibrationError};
use cipherlens::nn::clear::Network;
use cipherlens::nn::fit::{ChooseOptions, FitError, FitSpec, Form, choose, fit, levels};
use cipherlens::nn::model::{ActivationFunction, Model, ModelError, Operator};
use cipherlens::nn::onnx::OnnxOptions;
use cipherlens::nn::simulate::Labelled;
use cipherlens::nn::tensor::{Shape, Tensor};
use cipherlens::nn::{LowerOptions, lower};
use common::models::{picture, seeded};
use common::onnx::{Attribute, Data, File, node};
use common::slots;
use rand::RngExt;
use safetensors::SafeTensors;
use std::path::Path;

/// Pictures as they are.
fn read(bytes: &[u8], channels: usize) -> Result<Model, ModelError> {
    let options = OnnxOptions { mean: vec![0.0; channels], std: vec![1.0; channels], ..OnnxOptions::default() };
    Model::from_onnx(bytes, &options)
}

fn built(file: &File, channels: usize) -> Model {
    read(&file.bytes(), channels).expect("the file is read")
}

/// What a node is, in one word, or the function.
fn called(operator: &Operator) -> String {
    match operator {
        Operator::Activation(function) => function.to_string(),
        operator => operator.name().into(),
    }
}

#[test]
fn functions_are_what_onnxruntime_computes_out_to_forty() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pointwise.safetensors");
    let bytes = std::fs::read(path).expect("the fixture is there");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors file");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let cases = header.metadata().as_ref().and_then(|m| m.get("cases")).expect("the cases are there");
    let cases: Vec<serde_json::Value> = serde_json::from_str(cases).expect("JSON");
    let floats = |name: &str| -> Vec<f64> {
        let data = file.tensor(name).expect("the tensor is there").data();
        data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect()
    };
    let x = Tensor::new(Shape::new(4, 9, 9), floats("x")).expect("4 x 9 x 9");
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().expect("a name");
        let model = match read(file.tensor(&format!("{name}.onnx")).expect("the file is there").data(), 4) {
            Ok(model) => model,
            Err(e) => {
                wrong.push(format!("{name}: {e}"));
                continue;
            }
        };
        let nodes: Vec<String> = model.nodes().iter().map(|n| called(&n.operator)).collect();
        println!("{name}: {nodes:?}");
        if let Some(recognised) = case["recognised"].as_array()
            && *recognised != nodes
        {
            wrong.push(format!("{name}: {nodes:?}, expected {recognised:?}"));
        }
        // As a file of this program it is the same, bit for bit.
        let again = Model::from_bytes(&model.to_bytes()).expect("what was written is read");
        let got = Network::<f64>::new(&model).evaluate(&x).expect("the shape fits");
        assert_eq!(got, Network::<f64>::new(&again).evaluate(&x).expect("the shape fits"), "{name}");
        // onnxruntime computes in f32, in the order of the file, and its erf and tanh are some 1e-7 off: 2e-5 of the value.
        for ((x, got), want) in x.values().iter().zip(got.values()).zip(floats(&format!("{name}.output"))) {
            if (got - want).abs() > 2e-5 * (1.0 + want.abs()) {
                wrong.push(format!("{name} of {x} is {got}, expected {want}"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(cases.len() >= 70);
}

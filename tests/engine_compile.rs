//! What a compile tells clients of a network: what its answers may be, and what lies beside them.
#![allow(clippy::expect_used, reason = "a test that cannot go on may stop")]

use cipherlens::client::Rest;
use cipherlens::engine::{self, ClientSpec, CompileOptions, EngineError};
use cipherlens::nn::onnx::{OnnxOptions, schema::NodeProto};
use cipherlens::nn::simulate::Labelled;
use cipherlens::nn::{Model, Tensor, tensor::Shape};
use cipherlens_testkit::onnx::{Attribute, Data, File, node};

/// 4 x 4 to 3, linear.
fn linear() -> Model {
    linear_then(&[node("Identity", &["y"], "z")])
}

/// The same with more behind it, which makes `z`.
fn linear_then(nodes: &[NodeProto]) -> Model {
    let weights = Data::Real((0..48).map(|i| ((i * 7) % 11) as f32 / 10.0 - 0.5).collect());
    let file = File::new(&[1, 1, 4, 4], "z").constant("w", &[3, 16], weights).node(node("Flatten", &["x"], "f"));
    let file = file.node(node("Gemm", &["f", "w"], "y").int("transB", 1));
    let file = nodes.iter().cloned().fold(file, File::node);
    Model::from_onnx(&file.bytes(), &OnnxOptions::default()).expect("a network")
}

fn compiled(pictures: impl Iterator<Item = Vec<f32>>) -> ClientSpec {
    let seen = |values| Labelled { x: Tensor::new(Shape::new(1, 4, 4), values).expect("its size"), label: None };
    let seen: Vec<_> = pictures.map(seen).collect();
    let options = CompileOptions { preset: Some("insecure-tiny".into()), ..CompileOptions::default() };
    let made = engine::compile(&linear(), &seen, &options, &()).expect("it compiles");
    (*made.client).clone()
}

#[test]
fn pictures_and_labels_that_cannot_be_are_refused() {
    let picture = |value: f32, label| {
        let mut values = vec![0.25; 16];
        values[5] = value;
        Labelled { x: Tensor::new(Shape::new(1, 4, 4), values).expect("its size"), label }
    };
    let options = CompileOptions { preset: Some("insecure-tiny".into()), ..CompileOptions::default() };
    let refused = |pictures: &[Labelled]| engine::compile(&linear(), pictures, &options, &()).expect_err("refused");
    let found = refused(&[picture(0.5, Some(2)), picture(0.5, Some(3))]);
    assert!(matches!(found, EngineError::Label { picture: 1, label: 3, classes: 3 }), "{found}");
    for value in [f32::NAN, f32::INFINITY] {
        let found = refused(&[picture(value, None)]);
        assert!(matches!(found, EngineError::NotFinite { picture: 0, element: 5, .. }), "{found}");
    }
}

/// Whoever prints an error alone reads what it is due to.
#[test]
fn errors_say_their_cause() {
    let relu = linear_then(&[node("Relu", &["y"], "z")]);
    let picture = Labelled { x: Tensor::new(Shape::new(1, 4, 4), vec![0.5; 16]).expect("its size"), label: None };
    let error = engine::compile(&relu, &[picture], &CompileOptions::default(), &()).expect_err("too few");
    assert!(error.to_string().starts_with("the activations cannot be fitted: 1 picture is too few"), "{error}");
    let error = engine::prepare(&relu, "insecure-tiny", Default::default(), &Default::default()).expect_err("not fitted");
    assert!(error.to_string().contains("insecure-tiny`: ") && error.to_string().contains("relu"), "{error}");
}

#[test]
fn a_picture_that_makes_zeros_does_not_say_what_lies_beside_an_answer() {
    let of = |values: fn(usize) -> f32| compiled((0..20).map(|k| (0..16).map(|i| values(5 * k + 3 * i)).collect()));
    let (black, usual) = (of(|_| 0.0), of(|i| (i % 17) as f32 / 17.0));
    let rest = |spec: &ClientSpec| spec.run(1).expect("one picture").rest;
    assert_eq!(rest(&black), rest(&usual));
    assert_ne!(rest(&usual), Rest::Zeros, "the sums of a linear layer go on beside its results");
    // Of zeros it is not known how large results are; of others, a bound that holds what calibration saw, and not all that fits.
    assert!(black.largest > 1e3 && (4.0..40.0).contains(&usual.largest), "{} {}", black.largest, usual.largest);
}

//! What a compile tells clients of a network: what its answers may be, and what lies beside them.
#![allow(clippy::expect_used, reason = "a test that cannot go on may stop")]

use cipherlens::client::Rest;
use cipherlens::engine::{self, ClientSpec, CompileOptions};
use cipherlens::nn::onnx::OnnxOptions;
use cipherlens::nn::simulate::Labelled;
use cipherlens::nn::{Model, Tensor, tensor::Shape};
use cipherlens_testkit::onnx::{Attribute, Data, File, node};

/// 4 x 4 to 3, linear.
fn linear() -> Model {
    let weights = Data::Real((0..48).map(|i| ((i * 7) % 11) as f32 / 10.0 - 0.5).collect());
    let file = File::new(&[1, 1, 4, 4], "y").constant("w", &[3, 16], weights).node(node("Flatten", &["x"], "f"));
    Model::from_onnx(&file.node(node("Gemm", &["f", "w"], "y").int("transB", 1)).bytes(), &OnnxOptions::default())
        .expect("a network")
}

fn compiled(pictures: impl Iterator<Item = Vec<f32>>) -> ClientSpec {
    let seen = |values| Labelled { x: Tensor::new(Shape::new(1, 4, 4), values).expect("its size"), label: None };
    let seen: Vec<_> = pictures.map(seen).collect();
    let options = CompileOptions { preset: Some("insecure-tiny".into()), ..CompileOptions::default() };
    let made = engine::compile(&linear(), &seen, &options, &()).expect("it compiles");
    (*made.client).clone()
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

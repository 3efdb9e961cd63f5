//! Model files: what is wrong is said, and nothing makes the reader panic.
#![allow(clippy::expect_used, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use cipherlens::nn::Model;
use cipherlens::nn::clear::Network;
use cipherlens::nn::model::{MAX_FILE_BYTES, ModelError};
use cipherlens::nn::tensor::{Shape, Tensor};
use common::models::{Builder, ConvShape, seeded};
use rand::{Rng, RngExt};
use serde_json::json;

fn plain_conv(input: Shape, outputs: usize) -> ConvShape {
    ConvShape { input, outputs, kernel: [3, 3], stride: [2, 2], padding: [1; 4], dilation: [1, 1], groups: 1 }
}

/// Every operator once.
fn every_operator() -> Builder {
    let mut rng = seeded(21);
    let input = Shape::new(2, 8, 6);
    let mut b = Builder::new(input);
    b.conv("conv", "x", &plain_conv(input, 4), &mut rng);
    for name in ["scale", "bias", "mean"] {
        b.random(name, &[4], 1.0, &mut rng);
    }
    b.tensor("var", &[4], [0.5, 1.0, 1.5, 2.0]);
    let norm = json!({"op": "batch_norm", "scale": "scale", "bias": "bias", "mean": "mean", "var": "var", "epsilon": 1e-5});
    b.node("norm", &["conv"], norm);
    b.random("coefficients", &[4, 3], 1.0, &mut rng);
    b.node("act", &["norm"], json!({"op": "polynomial", "coefficients": "coefficients"}));
    b.node("add", &["norm", "act"], json!({"op": "add"}));
    let pool =
        json!({"op": "avg_pool2d", "kernel": [2, 1], "stride": [2, 1], "padding": [0, 0, 0, 0], "count_include_pad": false});
    b.node("pool", &["add"], pool);
    b.node("global", &["pool"], json!({"op": "global_avg_pool"}));
    b.node("flat", &["global"], json!({"op": "flatten"}));
    b.random("w", &[3, 4], 1.0, &mut rng).random("b", &[3], 1.0, &mut rng);
    b.node("fc", &["flat"], json!({"op": "linear", "weight": "w", "bias": "b"}));
    b
}

fn refused(b: &Builder, output: &str) -> ModelError {
    Model::from_bytes(&b.file(output)).expect_err("this model is wrong")
}

#[test]
fn a_good_file_is_read() {
    let model = Model::from_bytes(&every_operator().file("fc")).expect("every operator is known");
    assert_eq!(model.nodes().len(), 8);
    assert_eq!(model.shape(model.output()), Shape::new(3, 1, 1));
    let out = Network::<f64>::new(&model).evaluate(&Tensor::zeros(model.input().shape)).expect("the shape fits");
    assert!(out.values().iter().all(|v| v.is_finite()));
    let wrong = Network::<f64>::new(&model).evaluate(&Tensor::zeros(Shape::new(2, 6, 8))).expect_err("another shape");
    assert_eq!(wrong.to_string(), "a tensor of 2x8x6 was expected, 2x6x8 came");
}

#[test]
fn nodes_may_come_in_any_order_and_unused_ones_are_dropped() {
    let mut b = every_operator();
    b.nodes.reverse();
    let model = Model::from_bytes(&b.file("act")).expect("the order does not matter");
    let names: Vec<&str> = model.nodes().iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["conv", "norm", "act"]);
}

#[test]
fn every_unsupported_operator_is_listed_at_once() {
    let mut b = every_operator();
    b.node("r1", &["conv"], json!({"op": "relu"}));
    b.node("m1", &["r1"], json!({"op": "max_pool2d", "kernel": [2, 2]}));
    b.node("odd", &["m1"], json!({"op": "fourier"}));
    let ModelError::UnsupportedOperators(list) = refused(&b, "fc") else { panic!("another error") };
    let found: Vec<_> = list.iter().map(|o| (o.node.as_str(), o.operator.as_str())).collect();
    assert_eq!(found, [("r1", "relu"), ("m1", "max_pool2d"), ("odd", "fourier")]);
    assert!(list[0].advice.contains("polynomial") && list[1].advice.contains("avg_pool2d"));
}

#[test]
fn wrong_graphs_are_refused_with_what_is_wrong() {
    let with = |edit: &dyn Fn(&mut Builder)| {
        let mut b = every_operator();
        edit(&mut b);
        refused(&b, "fc").to_string()
    };
    let cases = [
        (with(&|b| b.nodes[1]["inputs"] = json!(["fc"])), "in a cycle"),
        (with(&|b| b.nodes[1]["inputs"] = json!(["nowhere"])), "\"nowhere\", which nothing makes"),
        (with(&|b| b.nodes[1]["output"] = json!("x")), "exists already"),
        (with(&|b| b.nodes[0]["stride"] = json!([0, 1])), "at least 1"),
        (with(&|b| b.nodes[0]["stride"] = json!([1, 1, 1])), "node \"conv\""),
        (with(&|b| b.nodes[0]["groups"] = json!(3)), "3 groups do not divide 2 channels into 4"),
        (with(&|b| b.nodes[0]["padding"] = json!([1, 2, 3, 99999999])), "beyond the limit"),
        (with(&|b| b.nodes[0]["padding"] = json!([60000, 60000, 60000, 60000])), "the padded input of \"conv\""),
        (with(&|b| b.nodes[0]["dilation"] = json!([9, 1])), "larger than the padded input 2x8x6"),
        (with(&|b| b.nodes[3]["inputs"] = json!(["conv", "pool"])), "in a cycle"),
        (with(&|b| b.nodes[3]["inputs"] = json!(["conv", "x"])), "cannot add 4x4x3 and 2x8x6"),
        (with(&|b| b.nodes[3]["inputs"] = json!(["conv"])), "it has 1 operands, expected 2"),
        (with(&|b| b.nodes[6]["inputs"] = json!(["pool"])), "[3, 4], expected [out, 24]"),
        (with(&|b| b.nodes[7]["inputs"] = json!(["pool"])), "put flatten before it"),
        (with(&|b| b.nodes[4]["padding"] = json!([2, 0, 0, 0])), "not smaller than the kernel"),
        (with(&|b| _ = b.tensors.remove("mean")), "\"mean\", which the file does not have"),
        (with(&|b| _ = b.tensor("mean", &[5], [0.0; 5])), "[5], expected [4]"),
        (with(&|b| _ = b.tensor("var", &[4], [1.0, -1.0, 1.0, 1.0])), "variance -1 of channel 1"),
        (with(&|b| _ = b.tensor("coefficients", &[3, 3], [0.0; 9])), "expected [degree + 1] or [4, degree + 1]"),
        (with(&|b| b.input = Shape::new(2, 1 << 20, 6)), "an extent of \"x\""),
        (with(&|b| b.input = Shape::new(1 << 12, 1 << 12, 1 << 12)), "the size of \"x\""),
        (with(&|b| b.nodes = vec![b.nodes[0].clone(); 5000]), "5000 nodes"),
    ];
    for (i, (message, part)) in cases.iter().enumerate() {
        println!("{message}");
        assert!(message.contains(part), "case {i}: {message:?} does not say {part:?}");
    }
}

#[test]
fn weights_that_are_not_finite_are_named() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut b = every_operator();
        let mut w = [0.5; 12];
        w[7] = value;
        b.tensor("w", &[3, 4], w);
        match refused(&b, "fc") {
            ModelError::NotFinite { tensor, index, .. } => assert_eq!((tensor.as_str(), index), ("w", 7)),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn other_files_are_refused() {
    for bytes in [&b""[..], b"{}", b"not a model at all, but longer than a header"] {
        assert!(matches!(Model::from_bytes(bytes), Err(ModelError::OtherFile { .. })));
    }
    assert!(matches!(Model::from_bytes(&[0xff; 64]), Err(ModelError::NotSafetensors(_))));
    let empty: [(&str, safetensors::tensor::TensorView<'_>); 0] = [];
    let plain = safetensors::serialize(empty, None).expect("serializable");
    assert!(matches!(Model::from_bytes(&plain), Err(ModelError::NotAModel { key: "format", .. })));
    let huge = vec![0; MAX_FILE_BYTES as usize + 1];
    assert!(matches!(Model::from_bytes(&huge), Err(ModelError::FileTooLarge { .. })));
    let nowhere = Model::from_file(std::path::Path::new("no/such/model")).expect_err("there is none");
    assert!(nowhere.to_string().contains("no/such/model"));
}

/// Changes some bytes: anywhere, or digits and quotes of the header so that it still parses.
fn mutate(bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().expect("a header length")) as usize;
    match rng.random_range(0..6) {
        0 => bytes.truncate(rng.random_range(0..bytes.len())),
        1 => {
            for _ in 0..rng.random_range(1..8) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
        }
        2 => {
            let at = rng.random_range(0..8);
            bytes[at] = rng.random();
        }
        // Other digits keep the JSON valid: other extents, offsets, strides.
        3 | 4 => {
            let digits: Vec<usize> = (8..header).filter(|i| bytes[*i].is_ascii_digit()).collect();
            for _ in 0..rng.random_range(1..4) {
                bytes[digits[rng.random_range(0..digits.len())]] = b'0' + rng.random_range(0..10u8);
            }
        }
        _ => {
            let at = rng.random_range(8..header);
            let with = [b'"', b'[', b']', b'{', b'}', b',', b'-', b'9', b'e', 0xc3];
            bytes[at] = with[rng.random_range(0..with.len())];
        }
    }
}

#[test]
fn thousands_of_damaged_files_never_panic() {
    let mut rng = seeded(22);
    let good = every_operator().file("fc");
    let (mut read, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        mutate(&mut bytes, &mut rng);
        match Model::from_bytes(&bytes) {
            // What is accepted can be evaluated and lowered, if it is still small.
            Ok(model) if model.multiplications() < 100_000 => {
                let x = Tensor::<f64>::zeros(model.input().shape);
                Network::new(&model).evaluate(&x).expect("the shape fits");
                let _ = cipherlens::nn::lower(&model, 512, &Default::default());
                read += 1;
            }
            Ok(_) => read += 1,
            Err(e) => {
                assert!(!e.to_string().is_empty());
                refused += 1;
            }
        }
    }
    println!("{read} read, {refused} refused");
    assert!(read > 1000 && refused > 5000);
}

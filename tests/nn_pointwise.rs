//! Pointwise functions: what ONNX files spell out against what onnxruntime computes (tests/fixtures, written by
//! tests/pointwise.py), and what comes of them: files, fits, programs.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

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

/// Convolution, a function, convolution, as small networks have them.
fn between_convolutions(function: impl FnOnce(File) -> File) -> Model {
    let mut rng = seeded(71);
    let mut weights = |count: usize, size: f32| Data::Real((0..count).map(|_| rng.random_range(-size..size)).collect());
    let file = File::new(&[1, 2, 8, 8], "y")
        .constant("w1", &[4, 2, 3, 3], weights(72, 1.0))
        .constant("b1", &[4], weights(4, 0.5))
        .constant("w2", &[3, 4, 8, 8], weights(768, 0.2))
        .node(node("Conv", &["x", "w1", "b1"], "c").ints("pads", &[1, 1, 1, 1]));
    built(&function(file).node(node("Conv", &["f", "w2"], "y")), 2)
}

fn pictures(count: usize, seed: u64) -> Vec<Tensor<f32>> {
    let mut rng = seeded(seed);
    (0..count).map(|_| picture(Shape::new(2, 8, 8), &mut rng).cast()).collect()
}

fn slopes(values: [f32; 4]) -> Data {
    Data::Real(values.to_vec())
}

/// Formulas and slopes of channels: calibrated, fitted, close to what they stand for, and lowered to what is evaluated.
#[test]
fn any_function_is_fitted_and_lowered() {
    let quick_gelu = |f: File| {
        f.constant("k", &[], Data::Real(vec![1.702]))
            .node(node("Mul", &["c", "k"], "s"))
            .node(node("Sigmoid", &["s"], "g"))
            .node(node("Mul", &["c", "g"], "f"))
    };
    let below_one = |f: File| f.constant("k", &[], Data::Real(vec![1.0])).node(node("Clip", &["c", "", "k"], "f"));
    let squared = |f: File| f.node(node("Relu", &["c"], "r")).node(node("Mul", &["r", "r"], "f"));
    // One channel nearly straight, one that is; one that goes to 0.
    let prelu =
        |values: [f32; 4]| move |f: File| f.constant("k", &[4, 1, 1], slopes(values)).node(node("PRelu", &["c", "k"], "f"));
    let models = [
        ("x * sigmoid(x * 1.702)", between_convolutions(quick_gelu)),
        ("relu", between_convolutions(below_one)),
        ("relu(x) * relu(x)", between_convolutions(squared)),
        ("relu", between_convolutions(prelu([0.1, -0.3, 0.25, 0.5]))),
        ("relu", between_convolutions(prelu([0.999, 1.0, 0.0, 3.0]))),
    ];
    for (name, model) in models {
        let functions: Vec<String> = model.activations().map(|(.., f)| f.to_string()).collect();
        assert_eq!(functions, [name], "one fit serves all channels");
        let calibration = Calibration::measure(&model, &pictures(40, 72)).expect("pictures");
        let fitted = fit(&model, &calibration, &[FitSpec::series(31)]).expect("a fit");
        let fitted = Model::from_bytes(&fitted.to_bytes()).expect("what was written is read");
        let lowered = lower(&fitted, 1024, &LowerOptions::default()).expect("lowers");
        let (exact, direct) = (Network::<f64>::new(&model), Network::<f64>::new(&fitted));
        for x in pictures(4, 73) {
            let x = x.cast();
            let (exact, direct) = (exact.evaluate(&x).expect("a shape"), direct.evaluate(&x).expect("a shape"));
            let out = slots::run(&lowered.program, lowered.input.pack(&x).expect("packs"));
            let program = lowered.output.unpack(&out).expect("the output has its layout");
            let size = exact.values().iter().fold(1.0f64, |m, v| m.max(v.abs()));
            for ((exact, direct), program) in exact.values().iter().zip(direct.values()).zip(program.values()) {
                assert!((exact - direct).abs() < 0.1 * size, "{name}: {direct}, exactly {exact}");
                assert!((direct - program).abs() < 1e-9 * size, "{name}: {program} by the program, {direct} directly");
            }
        }
    }
}

/// Where a function has no value: named with its layer, by what calibration sees and by what the margin adds.
#[test]
fn functions_are_refused_where_they_have_no_value() {
    let shifted_log = |by: f32| {
        between_convolutions(|f| {
            f.constant("k", &[], Data::Real(vec![by])).node(node("Add", &["c", "k"], "s")).node(node("Log", &["s"], "f"))
        })
    };
    let seen = pictures(40, 74);
    // Far below what the layer is fed, which is from some -6 to 6: every picture meets a logarithm of a negative number.
    match Calibration::measure(&shifted_log(1.0), &seen) {
        Err(e @ CalibrationError::Undefined { .. }) => {
            let text = e.to_string();
            assert!(text.contains("\"f.Log\"") && text.contains("log(x + 1)"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    let model = shifted_log(40.0);
    let calibration = Calibration::measure(&model, &seen).expect("pictures");
    let range = calibration.layers[0].range();
    // The sum that is just positive over all that is seen: only a wider interval reaches below it.
    let model = shifted_log((-range.min + 0.05) as f32);
    let calibration = Calibration::measure(&model, &seen).expect("pictures");
    let spec = |margin: f64| FitSpec { margin, ..FitSpec::series(7) };
    fit(&model, &calibration, &[spec(1.0)]).expect("it is defined on all that was seen");
    match fit(&model, &calibration, &[spec(1.5)]) {
        Err(FitError::Undefined { layer, function, interval, at, .. }) => {
            assert_eq!(layer, "f.Log");
            assert!(matches!(function, ActivationFunction::Formula { .. }));
            assert!(interval[0] < range.min && (interval[0]..=range.min).contains(&at), "{interval:?} {at}");
        }
        other => panic!("{other:?}"),
    }
    // A choice leaves such margins out.
    let labelled: Vec<Labelled> = seen.into_iter().map(|x| Labelled { x, label: None }).collect();
    let options =
        ChooseOptions { target: 0.5, forms: vec![Form::Series(31)], margins: vec![2.0, 1.002], ..ChooseOptions::default() };
    let chosen = choose(&model, &labelled, &options, &levels, &());
    assert!(!matches!(&chosen, Err(e) if e.to_string().contains("no finite value")), "{chosen:?}");
}

#[test]
fn what_is_no_function_of_one_tensor_is_refused_with_the_reason() {
    let refused = |file: File| read(&file.bytes(), 2).expect_err("refused").to_string();
    let file = || File::new(&[1, 2, 3, 3], "y");
    let per_element = file().constant("k", &[2, 3, 3], Data::Real((0..18).map(|i| i as f32 / 18.0).collect())).node(node(
        "PRelu",
        &["x", "k"],
        "y",
    ));
    let text = refused(per_element);
    assert!(text.contains("[2, 3, 3]") && text.contains("one for each channel"), "{text}");
    // Three slopes along the columns are none of the channels.
    let columns = file().constant("k", &[3], Data::Real(vec![0.1, 0.2, 0.3])).node(node("PRelu", &["x", "k"], "y"));
    assert!(refused(columns).contains("one for each channel"));
    let chosen = file()
        .constant("w", &[2, 2, 1, 1], Data::Real(vec![1.0, 2.0, 3.0, 4.0]))
        .constant("zero", &[], Data::Real(vec![0.0]))
        .node(node("Conv", &["x", "w"], "c"))
        .node(node("Greater", &["c", "zero"], "g"))
        .node(node("Where", &["g", "x", "c"], "y"));
    assert!(refused(chosen).contains("functions of the one that is compared"));
    let infinite = file().constant("k", &[], Data::Real(vec![f32::INFINITY])).node(node("Add", &["x", "k"], "y"));
    assert!(refused(infinite).contains("not finite"));
}

//! Random graphs against what onnxruntime computed for them (tests/operators.py).
#![allow(clippy::expect_used, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use cipherlens::nn::clear::Network;
use cipherlens::nn::model::{Model, ModelError, Operator};
use cipherlens::nn::onnx::OnnxOptions;
use cipherlens::nn::tensor::Tensor;
use cipherlens::nn::{LowerOptions, lower};
use common::slots;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::Path;

/// Of the largest magnitude of a result: what f32 leaves after some tens of operators.
const TOLERANCE: f64 = 1e-5;

struct Case<'f> {
    name: &'f str,
    /// The operators, for people.
    about: String,
    onnx: &'f [u8],
    input: Vec<f64>,
    output: Vec<f64>,
}

/// The cases of a file, in the order of their names.
fn cases(bytes: &[u8]) -> Vec<Case<'_>> {
    let (_, header) = SafeTensors::read_metadata(bytes).expect("a safetensors file");
    let notes = header.metadata().clone().unwrap_or_default();
    let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
    let floats = |name: String| {
        let data = file.tensor(&name).expect("it is there").data();
        data.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
    };
    let mut names: Vec<&str> = notes.keys().filter_map(|key| key.strip_suffix(".bytes")).collect();
    names.sort_unstable();
    let case = |name: &str| {
        let data = file.tensor(&format!("{name}.onnx")).expect("it is there").data();
        let start = data.as_ptr() as usize - bytes.as_ptr() as usize;
        let length: usize = notes[&format!("{name}.bytes")].parse().expect("a number");
        let (key, about) = notes.get_key_value(name).expect("it is described");
        (key.clone(), about.clone(), start..start + length)
    };
    let found: Vec<_> = names.into_iter().map(case).collect();
    let made = found.into_iter().map(|(name, about, range)| Case {
        input: floats(format!("{name}.input")),
        output: floats(format!("{name}.output")),
        name: name.leak(),
        about,
        onnx: &bytes[range],
    });
    made.collect()
}

/// The largest difference relative to the largest result: of direct evaluation from the expected, and of the program that the
/// network is lowered to from direct evaluation, if it has no activation that must be fitted first.
fn differences(case: &Case<'_>) -> Result<(f64, Option<f64>), ModelError> {
    let channels_last = case.input.len();
    let model = Model::from_onnx(case.onnx, &OnnxOptions::default())?;
    let x = Tensor::new(model.input().shape, case.input.clone()).expect("as many values as the model takes");
    assert_eq!(x.values().len(), channels_last);
    let got = Network::<f64>::new(&model).evaluate(&x).expect("the shape fits");
    assert_eq!(got.values().len(), case.output.len(), "{}: {}", case.name, case.about);
    let size = case.output.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    let largest = |a: &[f64], b: &[f64]| a.iter().zip(b).fold(0.0f64, |m, (a, b)| m.max((a - b).abs() / size));
    let from_expected = largest(got.values(), &case.output);
    let exact = model.nodes().iter().all(|n| !matches!(n.operator, Operator::Activation(_) | Operator::Polynomial(_)));
    let lowered = exact.then(|| {
        let lowered = lower(&model, 2048, &LowerOptions::default()).expect("it is lowered");
        let packed = lowered.input.pack(&x).expect("it is packed");
        let out = lowered.output.unpack(&slots::run(&lowered.program, packed)).expect("the output has its layout");
        largest(out.values(), got.values())
    });
    Ok((from_expected, lowered))
}

#[test]
fn every_operator_as_in_onnxruntime() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/operators.safetensors");
    let bytes = std::fs::read(path).expect("the fixture is there");
    let cases = cases(&bytes);
    assert!(cases.len() >= 44, "{} cases", cases.len());
    for case in &cases {
        let (expected, lowered) = differences(case).expect(case.name);
        assert!(expected <= TOLERANCE, "{} ({}): {expected:.1e} from onnxruntime", case.name, case.about);
        assert!(lowered.unwrap_or(0.0) <= 1e-9, "{} ({}): {lowered:?} by the program", case.name, case.about);
    }
}

#[test]
#[ignore = "takes a file that tests/operators.py wrote, named by CIPHERLENS_OPERATORS"]
fn random_graphs_as_in_onnxruntime() {
    let path = std::env::var("CIPHERLENS_OPERATORS").expect("CIPHERLENS_OPERATORS names a file of tests/operators.py");
    let bytes = std::fs::read(path).expect("the file is there");
    let cases = cases(&bytes);
    let (mut alike, mut run, mut wrong) = (0, 0, 0);
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for case in &cases {
        match differences(case) {
            Ok((expected, lowered)) if expected <= TOLERANCE && lowered.unwrap_or(0.0) <= 1e-9 => {
                alike += 1;
                run += usize::from(lowered.is_some());
            }
            Ok((expected, lowered)) => {
                wrong += 1;
                println!("WRONG {} ({}): {expected:.1e}, {lowered:?}", case.name, case.about);
            }
            Err(error) => {
                // Numbers and names apart, the reason.
                let reason = error.to_string();
                let reason: String = reason.chars().filter(|c| !c.is_ascii_digit()).take(160).collect();
                *refused.entry(reason).or_default() += 1;
            }
        }
    }
    println!("{} graphs: {alike} alike ({run} of them as programs too), {wrong} wrong", cases.len());
    refused.iter().for_each(|(reason, count)| println!("{count} refused: {reason}"));
    assert_eq!(wrong, 0);
}

//! Programs that `nn` makes, run on clear slot vectors, against direct evaluation.
#![allow(clippy::expect_used, reason = "a test that cannot go on may stop")]

mod common;

use cipherlens::nn::clear::Network;
use cipherlens::nn::tensor::Tensor;
use cipherlens::nn::{LowerOptions, Lowered, Model, lower};
use common::models::{Builder, ConvShape, picture, seeded};
use common::slots;
use rand::{Rng, RngExt};
use std::path::Path;

/// Slots of a shard in the small tests: those of the ring of degree 1024.
const SLOTS: usize = 512;

/// Direct evaluation and the program agree to 1e-9 of the largest value; unused input slots hold garbage.
fn agrees(model: &Model, x: &Tensor<f64>, n: usize, rng: &mut impl Rng) -> Lowered {
    let lowered = lower(model, n, &LowerOptions::default()).expect("lowers");
    let want = Network::<f64>::new(model).evaluate(x).expect("the shape fits");
    let mut packed = lowered.input.pack(x).expect("packs");
    for (shard, elements) in packed.iter_mut().zip(lowered.input.elements()) {
        for (value, _) in shard.iter_mut().zip(&elements).filter(|(_, e)| e.is_none()) {
            *value = rng.random_range(-9.0..9.0);
        }
    }
    let got = lowered.output.unpack(&slots::run(&lowered.program, packed)).expect("the output has its layout");
    let size = want.values().iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    assert_eq!(want.values().len(), got.values().len());
    for (i, (want, got)) in want.values().iter().zip(got.values()).enumerate() {
        assert!((want - got).abs() <= 1e-9 * size, "element {i}: {want} directly, {got} by the program");
    }
    for (layout, name) in lowered.layouts.iter().zip(0..) {
        let axes = [layout.channels().clone(), layout.rows().clone(), layout.columns().clone()];
        let checked = cipherlens::nn::Layout::new(layout.shape(), layout.slots(), axes);
        assert_eq!(checked.as_ref(), Ok(&**layout), "value {name}");
    }
    lowered
}

#[test]
fn random_convolutions() {
    let mut rng = seeded(11);
    let mut shards = [0; 13];
    for case in 0..300 {
        let conv = ConvShape::random(&mut rng, SLOTS, 12);
        println!("case {case}: {conv:?}");
        let model = Builder::new(conv.input).conv("y", "x", &conv, &mut rng).build("y");
        let x = picture(conv.input, &mut rng);
        let lowered = agrees(&model, &x, SLOTS, &mut rng);
        shards[lowered.input.shards().min(12)] += 1;
    }
    println!("cases by input shards: {shards:?}");
    assert!(shards[1..].iter().filter(|s| **s > 0).count() >= 8, "{shards:?}");
}

#[test]
fn demo_model() {
    let mut rng = seeded(12);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/imagenette11.safetensors");
    let model = Model::from_file(&path).expect("the demo's model loads");
    let lowered = agrees(&model, &picture(model.input().shape, &mut rng), 16384, &mut rng);
    for (step, layout) in lowered.program.steps.iter().zip(&lowered.layouts[1..]) {
        println!("{}: {layout}", step.layer);
    }
}

//! Programs that `nn` makes, run on clear slot vectors, against direct evaluation.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use cipherlens::circuits::polynomial::Chebyshev;
use cipherlens::nn::clear::{Network, Ranges};
use cipherlens::nn::lower::LowerError;
use cipherlens::nn::model::{ActivationForm, FittedActivation};
use cipherlens::nn::tensor::{Shape, Tensor};
use cipherlens::nn::{Layout, Layouts, LowerOptions, Lowered, Model, lower};
use cipherlens::plan::program::Operation;
use common::models::{Builder, ConvShape, fit, picture, random_layers, seeded};
use common::slots;
use rand::{Rng, RngExt};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Slots of a shard in the small tests: those of the ring of degree 1024.
const SLOTS: usize = 512;

/// Direct evaluation and the program agree to 1e-9 of the largest value; unused input slots hold garbage.
fn agrees(model: &Model, x: &Tensor<f64>, n: usize, rng: &mut impl Rng) -> Lowered {
    let layouts = match rng.random_range(0..4) {
        0 => Layouts::Multiplexed,
        1 => Layouts::Bootstrapped { levels: 0 },
        _ => Layouts::Cheapest,
    };
    let model = &fit(model, x, rng);
    let mut ranges = Ranges::new(model);
    let want = ranges.observe(&Network::<f64>::new(model), x).expect("the shape fits");
    let ranges = ranges.iter().map(|(node, range)| (node.to_owned(), range.magnitude().max(1e-3))).collect();
    let options = LowerOptions { ranges, layouts, ..LowerOptions::default() };
    let lowered = lower(model, n, &options).expect("lowers");
    kept_layouts_are_taken_as_they_are(model, n, &options, &lowered);
    let mut packed = lowered.input.pack(x).expect("packs");
    for (shard, elements) in packed.iter_mut().zip(lowered.input.elements()) {
        for (value, _) in shard.iter_mut().zip(&elements).filter(|(_, e)| e.is_none()) {
            *value = rng.random_range(-9.0..9.0);
        }
    }
    let values = slots::run_all(&lowered.program, packed);
    for (step, (value, layout)) in lowered.program.steps.iter().zip(values.iter().zip(&lowered.layouts).skip(1)) {
        let Some(bound) = step.bound else { continue };
        for (shard, elements) in value.iter().zip(layout.elements()) {
            let most = shard.iter().zip(&elements).filter(|(_, e)| e.is_some()).fold(0.0, |m: f64, (v, _)| m.max(v.abs()));
            assert!(most <= bound * (1.0 + 1e-9), "{}: {most} where {bound} was promised", step.layer);
        }
    }
    let got = lowered.unpack(&values[lowered.program.output.0]).expect("the output has its layout").remove(0);
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

/// The same program from the layouts that were chosen, whatever would be chosen now; none from others.
fn kept_layouts_are_taken_as_they_are(model: &Model, n: usize, options: &LowerOptions, lowered: &Lowered) {
    let with = |kept: Vec<Arc<Layout>>| {
        lower(model, n, &LowerOptions { layouts: Layouts::Multiplexed, kept: Some(kept), ..options.clone() })
    };
    let again = with(lowered.chosen.clone()).expect("its own");
    assert_eq!((&again.chosen, &again.layouts), (&lowered.chosen, &lowered.layouts));
    assert_eq!((again.input, again.output), (lowered.input.clone(), lowered.output.clone()));
    let refused = |kept| assert!(matches!(with(kept), Err(LowerError::KeptLayouts { .. })));
    refused(lowered.chosen[1..].to_vec());
    for i in 0..lowered.chosen.len() {
        let mut kept = lowered.chosen.clone();
        let shape = kept[i].shape();
        kept[i] = Arc::new(Layout::row_major(Shape::new(shape.channels, shape.height, shape.width + 1), n).expect("it fits"));
        refused(kept);
    }
}

#[test]
fn random_convolutions() {
    let mut rng = seeded(11);
    let mut shards = [0; 13];
    for case in 0..400 {
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
fn random_networks() {
    let mut rng = seeded(13);
    let mut operations = BTreeMap::new();
    for case in 0..400 {
        let input = Shape::new(rng.random_range(1..=5), rng.random_range(1..=20), rng.random_range(1..=20));
        let mut b = Builder::new(input);
        let output = random_layers(&mut b, rng.random_range(2..=9), &mut rng);
        println!("case {case}: {}", b.graph(&output));
        let model = b.build(&output);
        let x = picture(input, &mut rng);
        let lowered = agrees(&model, &x, SLOTS, &mut rng);
        for step in &lowered.program.steps {
            let name = format!("{:?}", step.operation);
            let name = name.split([' ', '(']).next().unwrap_or_default().to_owned();
            *operations.entry(name).or_insert(0) += 1;
        }
    }
    println!("{operations:?}");
    assert_eq!(operations.len(), 6, "every operation of programs occurs: {operations:?}");
}

/// A result that is divided while it is encrypted is the same once it is unpacked, and costs no level where a layer with weights, or
/// a view of one, makes it.
#[test]
fn divided_results() {
    let mut rng = seeded(20);
    for case in 0..60 {
        let input = Shape::new(rng.random_range(1..=4), rng.random_range(1..=9), rng.random_range(1..=9));
        let mut b = Builder::new(input);
        let mut output = random_layers(&mut b, rng.random_range(1..=5), &mut rng);
        let linear = case % 2 == 0;
        if linear {
            let shape = b.build(&output).shape(b.build(&output).output());
            b.random("last", &[3, shape.channels, 1, 1], 1.0, &mut rng);
            b.node("conv_at_the_end", &[&output], serde_json::json!({"op": "conv2d", "weight": "last"}));
            output = "conv_at_the_end".into();
            if case % 4 == 0 {
                b.node("view", &[&output], serde_json::json!({"op": "flatten"}));
                output = "view".into();
            }
        }
        println!("case {case}: {}", b.graph(&output));
        let model = b.build(&output);
        let x = picture(input, &mut rng);
        let divided = model.with_output_divisor(256.0).expect("a power of two");
        let noise: u64 = rng.random();
        let (mut one, mut other) = (seeded(noise), seeded(noise));
        let (before, after) = (agrees(&model, &x, SLOTS, &mut one), agrees(&divided, &x, SLOTS, &mut other));
        assert_eq!(after.output_divisor, 256.0);
        if linear {
            assert_eq!(before.program.steps.len(), after.program.steps.len(), "no step more");
        }
        let at_the_end = |l: &Lowered| {
            let values = slots::run_all(&l.program, l.input.pack(&x).expect("packs"));
            let logits = l.output.unpack(&values[l.program.output.0]).expect("the output has its layout");
            logits.values().iter().fold(0.0, |m: f64, v| m.max(v.abs()))
        };
        let (whole, part) = (at_the_end(&before), at_the_end(&after));
        assert!((256.0 * part - whole).abs() <= 1e-9 * whole.max(1e-3), "{part} of {whole}");
    }
    let model = Builder::new(Shape::new(1, 1, 1)).node("y", &["x"], serde_json::json!({"op": "flatten"})).build("y");
    for good in [0.5, 2f64.powi(-40), 2f64.powi(40)] {
        assert_eq!(model.with_output_divisor(good).expect("a power of two").output_divisor(), good);
    }
    for bad in [0.0, -2.0, 0.3, 3.0, f64::NAN, f64::INFINITY, 2f64.powi(41), 2f64.powi(-41)] {
        assert!(model.with_output_divisor(bad).is_err(), "{bad}");
    }
}

/// A divisor comes to the layer with weights, not to an average, whose weights are small already: divided once more, the rounding of its
/// plaintexts would be a factor common to all results.
#[test]
fn divisors_pass_averages_and_sums() {
    let mut rng = seeded(23);
    let shape = Shape::new(3, 8, 8);
    let conv = ConvShape::same(shape, 4, 3);
    for sum in [false, true] {
        let mut b = Builder::new(shape);
        b.conv("c", "x", &conv, &mut rng).node("pool", &["c"], serde_json::json!({"op": "global_avg_pool"}));
        if sum {
            b.conv("d", "x", &conv, &mut rng).node("other", &["d"], serde_json::json!({"op": "global_avg_pool"}));
            b.node("sum", &["pool", "other"], serde_json::json!({"op": "add"}));
        }
        b.node("view", &[if sum { "sum" } else { "pool" }], serde_json::json!({"op": "flatten"}));
        for divisor in [2f64.powi(20), 2f64.powi(-20)] {
            let model = b.build("view").with_output_divisor(divisor).expect("a power of two");
            let lowered = agrees(&model, &picture(shape, &mut rng), SLOTS, &mut rng);
            let of = |layer: &str| lowered.program.steps.iter().find(|s| s.layer == layer).expect("it is there");
            let Operation::Linear { matrix, .. } = &of("pool").operation else { panic!("an average is linear") };
            let mut diagonal = vec![0.0; SLOTS];
            matrix.diagonal(0, 0, matrix.rotations(0, 0)[0], &mut diagonal);
            let largest = diagonal.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            assert!((largest - 1.0 / 64.0).abs() < 1e-12, "sum: {sum}, {divisor}: {largest}");
        }
    }
}

/// Interleaved inputs come out as each does alone, to the last bit: the same numbers are added in the same order.
#[test]
fn several_pictures_in_one_run() {
    let mut rng = seeded(18);
    for case in 0..60 {
        let input = Shape::new(rng.random_range(1..=4), rng.random_range(1..=12), rng.random_range(1..=12));
        let mut b = Builder::new(input);
        let output = random_layers(&mut b, rng.random_range(2..=6), &mut rng);
        let model = fit(&b.build(&output), &picture(input, &mut rng), &mut rng);
        let count = [2, 4, 8][case % 3];
        let given = rng.random_range(1..=count);
        println!("case {case}: {given} of {count}: {}", b.graph(&output));
        let mut ranges = Ranges::new(&model);
        let pictures: Vec<Tensor<f64>> = (0..given).map(|_| picture(input, &mut rng)).collect();
        for x in &pictures {
            ranges.observe(&Network::<f64>::new(&model), x).expect("the shape fits");
        }
        let ranges = ranges.iter().map(|(node, range)| (node.to_owned(), range.magnitude().max(1e-3))).collect();
        let one = lower(&model, SLOTS, &LowerOptions { ranges, ..LowerOptions::default() }).expect("lowers");
        let alone = |x: &Tensor<f64>| one.output.unpack(&slots::run(&one.program, one.input.pack(x).expect("packs")));
        let want: Vec<_> = pictures.iter().map(|x| alone(x).expect("the output has its layout")).collect();

        let all = one.clone().interleaved(count);
        assert_eq!((all.together, all.program.slots), (count, count * SLOTS));
        assert_eq!((levels(&all), all.program.input_shards), (levels(&one), one.program.input_shards));
        let got = all.unpack(&slots::run(&all.program, all.pack(&pictures).expect("packs"))).expect("the layout");
        assert_eq!(got.len(), count);
        assert!(want.iter().zip(&got).all(|(want, got)| want.values() == got.values()));
        for too_many in [&[][..], &vec![pictures[0].clone(); count + 1]] {
            let error = all.pack(too_many).expect_err("refused").to_string();
            assert!(error.contains(&format!("a run that takes 1 to {count}")), "{error}");
        }
    }
}

#[test]
fn what_cannot_be_lowered_is_said() {
    let mut rng = seeded(14);
    let huge = Shape::new(3, 1000, 1000);
    let conv =
        ConvShape { input: huge, outputs: 2, kernel: [1, 1], stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 };
    let model = Builder::new(huge).conv("y", "x", &conv, &mut rng).build("y");
    let error = lower(&model, SLOTS, &LowerOptions::default()).expect_err("too many shards");
    assert!(error.to_string().contains("takes 5860 shards of 512 slots"), "{error}");

    let mut b = Builder::new(Shape::new(1, 4, 4));
    b.tensor("k", &[4], [0.0, 1.0, 0.0, 1.0]);
    b.node("cubic", &["x"], serde_json::json!({"op": "polynomial", "coefficients": "k"}));
    let error = lower(&b.build("cubic"), SLOTS, &LowerOptions::default()).expect_err("no range");
    assert!(matches!(&error, LowerError::RangeUnknown { node } if node == "cubic"));
    // The training's notes tell it.
    b.training = serde_json::json!({"max_abs_activation_input": {"cubic": 2.0}});
    let lowered = lower(&b.build("cubic"), SLOTS, &LowerOptions::default()).expect("the range is known");
    let Operation::Polynomial { polynomial, .. } = &lowered.program.steps[0].operation else { panic!("a cubic is a polynomial") };
    assert_eq!(polynomial.interval(), [-2.5, 2.5]);

    // Every activation at once, and none of those that are fitted.
    let mut b = Builder::new(Shape::new(1, 4, 4));
    for (name, from) in [("first", "x"), ("second", "first"), ("third", "second")] {
        b.node(name, &[from], serde_json::json!({"op": "activation", "function": {"name": "relu"}}));
    }
    let error = lower(&b.build("third"), SLOTS, &LowerOptions::default()).expect_err("not fitted");
    assert!(error.to_string().contains("first (relu), second (relu), third (relu); fit them first"), "{error}");
    assert!(matches!(error, LowerError::NotFitted { .. }));
}

/// Levels from the input to the output.
fn levels(lowered: &Lowered) -> usize {
    let mut levels = vec![0];
    for step in &lowered.program.steps {
        let of = |v: &cipherlens::plan::program::ValueId| levels[v.0];
        levels.push(match &step.operation {
            Operation::Linear { input, .. } | Operation::Square { input } => of(input) + 1,
            Operation::Affine { input, factor, .. } => of(input) + usize::from(factor.is_some()),
            Operation::Add { a, b } => of(a).max(of(b)),
            Operation::Polynomial { input, polynomial } => of(input) + polynomial.depth(),
            Operation::Multiply { a, b } => of(a).max(of(b)) + 1,
        });
    }
    levels[lowered.program.output.0]
}

/// Each convolution and each quadratic takes one level, the pooled linear layer one, constants and scales none.
#[test]
fn the_demo_network_takes_thirteen_levels() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/imagenette11.safetensors");
    let model = Model::from_file(&path).expect("the demo's model loads");
    assert_eq!(levels(&lower(&model, 16384, &LowerOptions::default()).expect("lowers")), 13);
}

/// A residual block whose activation comes after the sum: quadratics of either sign on both sides cost no further level,
/// because the side that has one to spare is rescaled.
#[test]
fn residual_blocks_take_no_extra_level() {
    let mut rng = seeded(15);
    let shape = Shape::new(4, 8, 8);
    let conv = ConvShape::same(shape, 4, 3);
    let mut b = Builder::new(shape);
    for (i, (name, from)) in [("c0", "x"), ("c1", "a0"), ("c2", "a1")].into_iter().enumerate() {
        b.conv(name, from, &conv, &mut rng);
        b.tensor(&format!("k{i}"), &[4, 3], (0..12).map(|j| [0.1, 0.5, 0.3 - 0.2 * (j / 3 + i) as f32][j % 3]));
        let (name, from) = if i == 2 { ("a2", "sum") } else { (["a0", "a1"][i], name) };
        if i == 2 {
            b.node("sum", &["a0", "c2"], serde_json::json!({"op": "add"}));
        }
        b.node(name, &[from], serde_json::json!({"op": "polynomial", "coefficients": format!("k{i}")}));
    }
    b.node("pool", &["a2"], serde_json::json!({"op": "global_avg_pool"}));
    b.random("w", &[3, 4], 1.0, &mut rng);
    b.node("fc", &["pool"], serde_json::json!({"op": "linear", "weight": "w"}));
    let lowered = agrees(&b.build("fc"), &picture(shape, &mut rng), SLOTS, &mut rng);
    assert_eq!(levels(&lowered), 7, "three convolutions, three quadratics, one linear layer");
}

/// A residual block of fitted activations on intervals that are not symmetric: the changes of variable and the scales of
/// both sides of the sum are folded into convolutions and coefficients, so that only products take levels.
#[test]
fn fitted_activations_take_the_levels_of_their_degree() {
    let mut rng = seeded(17);
    let shape = Shape::new(4, 8, 8);
    let conv = ConvShape::same(shape, 4, 3);
    let relu = || serde_json::json!({"op": "activation", "function": {"name": "relu"}});
    let mut b = Builder::new(shape);
    b.conv("c0", "x", &conv, &mut rng).node("a0", &["c0"], relu());
    b.conv("c1", "a0", &conv, &mut rng).node("a1", &["c1"], relu());
    b.conv("c2", "a1", &conv, &mut rng).node("sum", &["a0", "c2"], serde_json::json!({"op": "add"}));
    b.node("a2", &["sum"], relu()).conv("c3", "a2", &conv, &mut rng);
    let model = b.build("c3");
    for form in ["one polynomial", "two polynomials", "two polynomials and a product"] {
        let stage = Chebyshev::new(vec![0.0, 1.125, 0.0, -0.125], [-1.0, 1.0]).expect("a polynomial");
        let fitted = model.activations().map(|(i, _, function)| {
            let interval = [-4.0 - i as f64, 7.0];
            let form = match form {
                "one polynomial" => {
                    ActivationForm::Chebyshev(Chebyshev::interpolate(|x| function.value(x), 15, interval).expect("a polynomial"))
                }
                "two polynomials" => {
                    let first = Chebyshev::new(stage.coefficients().to_vec(), interval).expect("a polynomial");
                    ActivationForm::Composite(vec![first, stage.clone()])
                }
                _ => ActivationForm::Sign { stages: vec![stage.clone(); 2], bound: 5.0 + i as f64 },
            };
            (i, FittedActivation { function, form })
        });
        let model = model.with_activations(&fitted.collect()).expect("the nodes are activations");
        let x = picture(shape, &mut rng);
        let lowered = lower(&model, SLOTS, &LowerOptions::default()).expect("lowers");
        let depth = if form == "two polynomials and a product" { 2 + 2 + 1 } else { 4 };
        assert_eq!(levels(&lowered), 4 + 3 * depth, "{form}");
        let packed = lowered.input.pack(&x).expect("packs");
        let values = slots::run_all(&lowered.program, packed);
        // What comes to an activation can be bootstrapped, in every slot; and what goes to convolutions only.
        for (step, value) in lowered.program.steps.iter().zip(&values[1..]) {
            let most = value.iter().flatten().fold(0.0, |m: f64, v| m.max(v.abs()));
            assert!(step.bound.is_none_or(|b| most <= b * (1.0 + 1e-9)), "{}: {most}, promised {:?}", step.layer, step.bound);
        }
        let bounded = |layer: &str| {
            let last = lowered.program.steps.iter().rfind(|s| s.layer == layer).and_then(|s| s.bound);
            last.is_some_and(|b| b <= 1.0)
        };
        assert!(["c0", "c1", "sum", "a1", "a2"].iter().all(|l| bounded(l)), "{form}");
        let got = lowered.output.unpack(&values[lowered.program.output.0]).expect("the output has its layout");
        let want = Network::<f64>::new(&model).evaluate(&x).expect("the shape fits");
        for (want, got) in want.values().iter().zip(got.values()) {
            assert!((want - got).abs() <= 1e-9, "{want} directly, {got} by the program");
        }
    }
}

/// Channels whose weights are all zero, and layers with nothing else, are constants.
#[test]
fn pruned_channels_and_layers() {
    let mut rng = seeded(16);
    let shape = Shape::new(3, 10, 9);
    for kept in [0, 1, 5, 40] {
        let mut b = Builder::new(shape);
        let conv =
            ConvShape { input: shape, outputs: 40, kernel: [3, 3], stride: [2, 1], padding: [1; 4], dilation: [1, 1], groups: 1 };
        b.conv("c", "x", &conv, &mut rng);
        b.tensor("c.w", &[40, 3, 3, 3], (0..40 * 27).map(|i| if i / 27 < kept { 0.1 + (i % 7) as f32 } else { 0.0 }));
        b.node("flat", &["c"], serde_json::json!({"op": "flatten"}));
        let len = 40 * 5 * 9;
        b.tensor("w", &[6, len], (0..6 * len).map(|i| if i / len < kept { (i % 11) as f32 - 5.0 } else { 0.0 }));
        b.random("b", &[6], 1.0, &mut rng);
        b.node("fc", &["flat"], serde_json::json!({"op": "linear", "weight": "w", "bias": "b"}));
        agrees(&b.build("c"), &picture(shape, &mut rng), SLOTS, &mut rng);
        agrees(&b.build("fc"), &picture(shape, &mut rng), SLOTS, &mut rng);
    }
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

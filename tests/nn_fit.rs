//! Calibration, equalization, fits and simulation: against their definitions on small networks, and on a public ResNet-20.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use cipherlens::nn::calibration::{BINS, Calibration, CalibrationError, Histogram, LayerInputs, channel_ranges};
use cipherlens::nn::clear::{Network, Range};
use cipherlens::nn::equalize::{equalize, equalize_with_ranges};
use cipherlens::nn::fit::{
    ChooseError, ChooseOptions, FitError, FitSpec, Form, TriedFit, Watch, choose, fit, fit_layer, interval, levels,
};
use cipherlens::nn::model::{ActivationForm, ActivationFunction, FittedActivation, Node, Operator};
use cipherlens::nn::simulate::{
    ExactAnswers, Judge, Labelled, NoiseLevels, SimulateError, bits_for_error, check_picture, exact_logits, simulate,
    simulate_against,
};
use cipherlens::nn::tensor::{Shape, Tensor};
use cipherlens::nn::{Model, onnx::OnnxOptions};
use common::models::{Builder, ConvShape, seeded};
use common::onnx::{File, node};
use common::resnet20;
use rand::RngExt;
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Two convolutions around a residual sum, channels of very different sizes, and a linear layer at the end.
fn residual() -> Model {
    residual_with([0.0; 3])
}

fn residual_with(bias: [f32; 3]) -> Model {
    let mut rng = seeded(31);
    let input = Shape::new(2, 8, 6);
    let mut b = Builder::new(input);
    let relu = || json!({"op": "activation", "function": {"name": "relu"}});
    let shape = |input: Shape, outputs: usize| ConvShape::same(input, outputs, 3);
    let inner = Shape::new(6, 8, 6);
    b.conv("conv1", "x", &shape(input, 6), &mut rng);
    b.tensor("scale", &[6], [4.0, 0.1, 1.0, 0.3, 2.0, 0.05]);
    b.random("bias", &[6], 0.2, &mut rng).random("mean", &[6], 0.2, &mut rng);
    b.tensor("var", &[6], [1.0; 6]);
    b.node("norm", &["conv1"], json!({"op": "batch_norm", "scale": "scale", "bias": "bias", "mean": "mean", "var": "var"}));
    b.node("relu1", &["norm"], relu());
    b.conv("conv2", "relu1", &ConvShape { groups: 2, ..shape(inner, 6) }, &mut rng);
    b.node("relu2", &["conv2"], relu());
    b.conv("conv3", "relu2", &shape(inner, 6), &mut rng);
    b.node("add", &["conv3", "relu1"], json!({"op": "add"}));
    b.node("relu3", &["add"], relu());
    b.node("pool", &["relu3"], json!({"op": "avg_pool2d", "kernel": [4, 3]}));
    b.node("flat", &["pool"], json!({"op": "flatten"}));
    b.random("w", &[3, 24], 1.0, &mut rng).tensor("b", &[3], bias);
    b.node("fc", &["flat"], json!({"op": "linear", "weight": "w", "bias": "b"}));
    b.build("fc")
}

fn pictures(model: &Model, count: usize, seed: u64) -> Vec<Tensor<f32>> {
    let mut rng = seeded(seed);
    let shape = model.input().shape;
    let one = |_| Tensor::new(shape, (0..shape.len()).map(|_| rng.random_range(-2.0..2.0)).collect()).expect("the shape");
    (0..count).map(one).collect()
}

fn unlabelled(xs: Vec<Tensor<f32>>) -> Vec<Labelled> {
    xs.into_iter().map(|x| Labelled { x, label: None }).collect()
}

/// What the definition says an activation is fed: evaluated in f64, one picture at a time.
#[test]
fn calibration_sees_what_the_activations_are_fed() {
    let model = residual();
    let xs = pictures(&model, 40, 32);
    let found = Calibration::measure(&model, &xs).expect("pictures");
    let folded = model.fold_batch_norms();
    let network = Network::<f64>::new(&model);
    let mut values: Vec<Vec<Vec<f64>>> = vec![vec![Vec::new(); 6]; 3];
    for x in &xs {
        let watch = |node: usize, operand: &Tensor<f64>, _: &Tensor<f64>| {
            if let Some(k) = folded.activations().position(|(i, ..)| i == node) {
                (0..6).for_each(|c| values[k][c].extend(operand.channel(c)));
            }
        };
        network.evaluate_with(&x.cast(), watch).expect("the shape");
    }
    assert_eq!(found.pictures, 40);
    assert_eq!(found.layers.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["relu1", "relu2", "relu3"]);
    for (layer, values) in found.layers.iter().zip(&values) {
        assert!(matches!(model.nodes()[layer.node].operator, Operator::Activation(_)));
        for (range, values) in layer.channels.iter().zip(values) {
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert!((range.min - least).abs() < 1e-5 && (range.max - largest).abs() < 1e-5);
        }
        let all: Vec<f64> = values.concat();
        let histogram = &layer.histogram;
        assert_eq!(histogram.total(), all.len() as u64);
        let bin = (layer.range().max - layer.range().min) / BINS as f64;
        for part in [0.01, 0.5, 0.99] {
            let quantile = histogram.quantile(part);
            let below = |x: f64| all.iter().filter(|v| **v <= x).count() as f64 / all.len() as f64;
            assert!(below(quantile + 1e-5) >= part && below(quantile - bin - 1e-5) < part, "{}: {part}", layer.name);
        }
        let whole = layer.range();
        let width = (whole.max - whole.min) / 1000.0;
        let mass: f64 = (0..1000).map(|i| histogram.density(whole.min + (f64::from(i) + 0.5) * width) * width).sum();
        assert!((mass - 1.0).abs() < 0.05, "{mass}");
    }
}

#[test]
fn equalized_networks_compute_the_same_with_channels_equally_wide() {
    let model = residual();
    let xs = pictures(&model, 60, 33);
    let ranges = channel_ranges(&model, &xs).expect("pictures");
    let equal = equalize(&model, &ranges);
    let (a, b) = (Network::<f64>::new(&model), Network::<f64>::new(&equal));
    for x in &xs {
        let (y, z) = (a.evaluate(&x.cast()).expect("a shape"), b.evaluate(&x.cast()).expect("a shape"));
        y.values().iter().zip(z.values()).for_each(|(y, z)| assert!((y - z).abs() < 1e-12 * (1.0 + y.abs()), "{y} {z}"));
    }
    let after = channel_ranges(&equal, &xs).expect("pictures");
    let (_, foreseen) = equalize_with_ranges(&model, &ranges);
    for (a, b) in foreseen.iter().flatten().zip(after.iter().flatten()) {
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * b.abs().max(1e-3);
        assert!(close(a.min, b.min) && close(a.max, b.max), "{a:?} {b:?}");
    }
    assert_eq!(foreseen.iter().map(Vec::len).collect::<Vec<_>>(), after.iter().map(Vec::len).collect::<Vec<_>>());
    let narrowest = |channels: &[cipherlens::nn::clear::Range]| {
        let sizes: Vec<f64> = channels.iter().map(|r| r.magnitude()).collect();
        sizes.iter().copied().fold(f64::INFINITY, f64::min) / sizes.iter().copied().fold(0.0, f64::max)
    };
    // relu1 and relu3 meet in the sum, where the widest of the two counts; relu2 is on its own.
    for (before, after) in ranges.iter().zip(&after) {
        assert!(narrowest(after) > 0.95 * narrowest(before));
    }
    assert!(narrowest(&after[1]) > 0.5 && narrowest(&after[1]) > narrowest(&ranges[1]));
}

#[test]
fn layers_of_any_size_are_brought_near_one() {
    // Values of a million, of a millionth, and the network's own again.
    let mut rng = seeded(36);
    let input = Shape::new(2, 6, 6);
    let mut b = Builder::new(input);
    let shape = |input: Shape, kernel: usize| ConvShape {
        input,
        outputs: 4,
        kernel: [kernel; 2],
        stride: [1, 1],
        padding: [kernel / 2; 4],
        dilation: [1, 1],
        groups: 1,
    };
    let (inner, mut last) = (Shape::new(4, 6, 6), "x".to_owned());
    for (i, factor) in [1e6, 1e-12, 1e6].into_iter().enumerate() {
        let [conv, norm, relu] = ["conv", "norm", "relu"].map(|name| format!("{name}{i}"));
        b.conv(&conv, &last, &shape(if i == 0 { input } else { inner }, 3), &mut rng);
        let [s, o, m, v] = ["scale", "bias", "mean", "var"].map(|name| format!("{name}{i}"));
        b.tensor(&s, &[4], [factor; 4]).tensor(&o, &[4], [0.0; 4]).tensor(&m, &[4], [0.0; 4]).tensor(&v, &[4], [1.0; 4]);
        b.node(&norm, &[&conv], json!({"op": "batch_norm", "scale": s, "bias": o, "mean": m, "var": v}));
        b.node(&relu, &[&norm], json!({"op": "activation", "function": {"name": "relu"}}));
        last = relu;
    }
    b.node("pool", &[&last], json!({"op": "global_avg_pool"}));
    let model = b.build("pool");
    let xs = pictures(&model, 20, 37);
    let ranges = channel_ranges(&model, &xs).expect("pictures");
    let (equal, scaled) = equalize_with_ranges(&model, &ranges);
    let size = |layer: &Vec<cipherlens::nn::clear::Range>| layer.iter().map(|r| r.magnitude()).fold(0.0, f64::max);
    let [before, after]: [Vec<f64>; 2] = [&ranges, &scaled].map(|of| of.iter().map(size).collect());
    assert!(before[0] > 1e5 && before[1] < 1e-3, "{before:?}");
    // The last is the network's result and keeps its size.
    assert!(after[..2].iter().all(|size| (0.5..=2.0).contains(size)) && after[2] == before[2], "{after:?}");
    let (a, b) = (Network::<f64>::new(&model), Network::<f64>::new(&equal));
    for x in &xs {
        let (y, z) = (a.evaluate(&x.cast()).expect("a shape"), b.evaluate(&x.cast()).expect("a shape"));
        y.values().iter().zip(z.values()).for_each(|(y, z)| assert!((y - z).abs() <= 1e-12 * y.abs(), "{y} {z}"));
    }
}

#[test]
fn fits_lie_on_what_was_seen_and_simulation_measures_them() {
    let model = residual();
    let xs = pictures(&model, 80, 34);
    let calibration = Calibration::measure(&model, &xs).expect("pictures");
    let test = unlabelled(pictures(&model, 100, 35));
    let mut errors = Vec::new();
    for form in [Form::Series(7), Form::Series(15), Form::Series(31), Form::Series(63), Form::Composite(vec![31, 63])] {
        let spec = FitSpec { form: form.clone(), margin: 1.4, floor: 1e-3 };
        let fitted = fit(&model, &calibration, std::slice::from_ref(&spec)).expect("a fit");
        for (layer, (_, node, _)) in calibration.layers.iter().zip(fitted.activations()) {
            let Operator::Fitted(fit) = &node.operator else { panic!("{} is not fitted", node.name) };
            let [a, b] = interval(layer.range(), 1.4);
            assert!(a <= layer.range().min && layer.range().max <= b && a <= 0.0 && 0.0 <= b);
            assert_eq!(fit.depth(), form.depth());
            if let ActivationForm::Chebyshev(_) = fit.form {
                assert_eq!(fit.interval(), [a, b]);
            }
        }
        let s = simulate(&fitted, &test, NoiseLevels::NONE, 1).expect("a simulation");
        s.check_ranges().expect("within the margin");
        assert_eq!((s.pictures, s.diverged, s.layers.len()), (100, 0, 3));
        // Against the definition: the clear evaluation of the fitted model, in f64.
        let (exact, network) = (Network::<f64>::new(&model), Network::<f64>::new(&fitted));
        let mut worst: f64 = 0.0;
        for p in &test {
            let (y, z) = (exact.evaluate(&p.x.cast()).expect("a shape"), network.evaluate(&p.x.cast()).expect("a shape"));
            worst = y.values().iter().zip(z.values()).fold(worst, |w, (y, z)| w.max((y - z).abs()));
        }
        assert!((s.max_error - worst).abs() < 1e-3 * (1.0 + worst), "{form:?}: {} {worst}", s.max_error);
        errors.push(s.rms_error);
    }
    assert!(errors[..4].windows(2).all(|e| e[1] < 0.75 * e[0]), "{errors:?}");
    assert!(errors[4] < 0.05 * errors[3], "{errors:?}");
}

/// What a layer was fed: normally distributed about a middle, out to four deviations.
fn fed(function: ActivationFunction, middle: f64, deviation: f64) -> LayerInputs {
    let range = Range { min: middle - 4.0 * deviation, max: middle + 4.0 * deviation };
    let place = |bin: usize| ((bin as f64 + 0.5) / BINS as f64 - 0.5) * 8.0;
    let counts = (0..BINS).map(|bin| (1e6 * (-place(bin).powi(2) / 2.0).exp()) as u64).collect();
    LayerInputs { node: 0, name: "f".into(), function, channels: vec![range], histogram: Histogram { range, counts } }
}

#[test]
fn a_composite_is_nearer_for_every_function_that_has_one() {
    use ActivationFunction::{Clip, Gelu, HardSigmoid, HardSwish, LeakyRelu, Relu, Sigmoid};
    let error = |layer: &LayerInputs, fitted: &FittedActivation| {
        let (mut square, mut weight) = (0.0, 0.0);
        for i in 0..40_000 {
            let x = layer.histogram.range.min
                + (layer.histogram.range.max - layer.histogram.range.min) * (f64::from(i) + 0.5) / 40_000.0;
            let density = layer.histogram.density(x);
            square += density * (fitted.value(x) - layer.function.value(x)).powi(2);
            weight += density;
        }
        (square / weight).sqrt()
    };
    let relu6 = Clip { min: 0.0, max: 6.0 };
    let (product, chain) = (11, 10);
    for (function, middle, deviation, levels, times) in [
        (Relu, -0.3, 1.0, product, 2.0),
        (LeakyRelu { alpha: 0.1 }, 0.2, 1.0, product, 2.0),
        // Flat on both sides of a ramp that is a tenth of what is fed.
        (relu6.clone(), 2.0, 15.0, chain, 3.0),
        (HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }, 0.0, 20.0, chain, 3.0),
        (Sigmoid, 1.0, 30.0, chain, 10.0),
        // Within the ramp it is a ReLU.
        (relu6, 0.2, 0.7, product, 2.0),
        (HardSwish, 0.0, 12.0, product, 2.0),
        (Gelu, 0.0, 12.0, product, 2.0),
        // One polynomial is as near as f64 goes.
        (Sigmoid, 0.0, 0.3, 8, 0.99),
    ] {
        let layer = fed(function, middle, deviation);
        let fit = |form| fit_layer(&layer, &FitSpec { form, margin: 1.5, floor: 1e-2 }).expect("a fit");
        let (series, composite) = (fit(Form::Series(255)), fit(Form::Composite(vec![15, 63])));
        assert_eq!(composite.depth(), levels, "{}", layer.function);
        let [a, b] = composite.interval();
        assert!(a <= interval(layer.range(), 1.5)[0] && interval(layer.range(), 1.5)[1] <= b);
        let (one, two) = (error(&layer, &series), error(&layer, &composite));
        assert!(times * two <= one, "{}: {two:e} against {one:e}", layer.function);
    }
}

#[test]
fn noise_is_as_large_as_it_is_said_to_be_and_repeats() {
    let model = residual();
    let calibration = Calibration::measure(&model, &pictures(&model, 50, 36)).expect("pictures");
    let fitted = fit(&model, &calibration, &[FitSpec::series(31)]).expect("a fit");
    let test = unlabelled(pictures(&model, 60, 37));
    let run = |noise, seed| simulate(&fitted, &test, noise, seed).expect("a simulation");
    let quiet = run(NoiseLevels::NONE, 1);
    assert_eq!(run(NoiseLevels::bits(12.0), 5), run(NoiseLevels::bits(12.0), 5));
    assert_ne!(run(NoiseLevels::bits(12.0), 5), run(NoiseLevels::bits(12.0), 6));
    // The part of the error that the noise makes falls like the noise.
    let excess = |bits: f64| (run(NoiseLevels::bits(bits), 7).rms_error.powi(2) - quiet.rms_error.powi(2)).abs().sqrt();
    let (loud, louder) = (excess(8.0), excess(6.0));
    assert!((louder / loud - 4.0).abs() < 1.2, "{louder} {loud}");
    // The noise that moves the largest of three logits by a tenth on average moves all of them by less, but not by much less.
    let bits = |error: f64| bits_for_error(&fitted, &test, error, 10.0, 8).expect("pictures");
    let ratio = 0.1 / excess(bits(0.1));
    assert!((1.0..2.0).contains(&ratio), "{ratio}");
    assert!((bits(0.1 / 8.0) - bits(0.1) - 3.0).abs() < 1e-9);
    assert_eq!(bits(0.0), 10.0, "no noise makes no error");
    let wild = unlabelled(vec![Tensor::new(test[0].x.shape(), vec![1e3; test[0].x.values().len()]).expect("the shape")]);
    assert_eq!(bits_for_error(&fitted, &wild, 0.1, 10.0, 8), Ok(10.0), "a picture that leaves its intervals says nothing");
}

#[test]
fn what_leaves_its_range_is_named() {
    let model = residual();
    let calibration = Calibration::measure(&model, &pictures(&model, 50, 38)).expect("pictures");
    let fitted = fit(&model, &calibration, &[FitSpec::series(15)]).expect("a fit");
    let fine = pictures(&model, 1, 39).remove(0);
    check_picture(&fitted, &fine).expect("like the others");
    let wild = Tensor::new(fine.shape(), fine.values().iter().map(|v| 40.0 * v).collect()).expect("the shape");
    let refused = check_picture(&fitted, &wild).expect_err("far outside");
    let SimulateError::OutOfRange { layer, used, interval, value, .. } = &refused else { panic!("{refused}") };
    assert_eq!(layer, "relu1", "the first layer that is outside, not one behind it");
    assert!(*used > 1.0 && (*value < interval[0] || *value > interval[1]));
    let s = simulate(&fitted, &unlabelled(vec![fine, wild.clone()]), NoiseLevels::NONE, 1).expect("a simulation");
    let left = s.check_ranges().expect_err("one of the two");
    let SimulateError::OutOfRange { layer, picture: 1, outside: 1, pictures: 2, .. } = &left else { panic!("{left}") };
    assert_eq!(layer, "relu1");
    assert_eq!(s.layers.iter().map(|l| l.outside).collect::<Vec<_>>(), [1, 0, 0], "behind it nothing is told of that picture");
    assert!(s.layers[1..].iter().all(|l| l.used <= 1.0 && l.max < 100.0));
    let infinite = Tensor::new(wild.shape(), vec![f32::NAN; wild.shape().len()]).expect("the shape");
    assert!(matches!(check_picture(&fitted, &infinite), Err(SimulateError::OutOfRange { .. })));
}

/// A network whose activation sees one value where the pictures are alike.
fn flat() -> Model {
    let file = File::new(&[1, 1, 2, 2], "y").node(node("GlobalAveragePool", &["x"], "m")).node(node("Relu", &["m"], "r"));
    Model::from_onnx(&file.node(node("Flatten", &["r"], "y")).bytes(), &OnnxOptions::default()).expect("a network")
}

#[test]
fn a_simulation_wants_exact_logits_of_every_picture() {
    let model = residual();
    let xs = pictures(&model, 3, 41);
    let seen: Vec<_> = xs.iter().map(|x| Labelled { x: x.clone(), label: None }).collect();
    let calibration = Calibration::measure(&model, &xs).expect("pictures");
    let fitted = fit(&model, &calibration, &[FitSpec::series(7)]).expect("fits");
    let exact = ExactAnswers::of(&model, &seen, Judge::Class).expect("logits");
    assert_eq!(exact.logits, exact_logits(&model, &seen).expect("logits"));
    let simulated = |exact: &ExactAnswers| simulate_against(exact, &fitted, &seen[..2], NoiseLevels::NONE, 1);
    assert_eq!(simulated(&exact).map(|s| s.pictures), Ok(2));
    let one = ExactAnswers { logits: exact.logits[..1].to_vec(), ..exact };
    assert_eq!(simulated(&one), Err(SimulateError::ExactLogits { pictures: 2, found: 1 }));
}

#[test]
fn what_cannot_be_calibrated_or_fitted_is_refused_with_numbers() {
    let model = residual();
    let good = pictures(&model, 2, 40);
    assert_eq!(Calibration::measure(&model, &[]), Err(CalibrationError::NoPictures));
    let small = Tensor::zeros(Shape::new(2, 6, 8));
    let mixed = [good[0].clone(), small.clone()];
    let refused = Calibration::measure(&model, &mixed).expect_err("of another shape").to_string();
    assert_eq!(refused, "picture 1 of 2 is of the wrong kind: a tensor of 2x8x6 was expected, 2x6x8 came");
    let nan = Tensor::new(good[0].shape(), vec![f32::NAN; good[0].shape().len()]).expect("the shape");
    let refused = Calibration::measure(&model, &[nan]);
    assert!(matches!(refused, Err(CalibrationError::NotFinite { picture: 0, .. })), "{refused:?}");
    let alike = [Shape::new(1, 2, 2); 2].map(Tensor::zeros);
    let dead = Calibration::measure(&flat(), &alike);
    assert!(matches!(&dead, Err(CalibrationError::NoSpread { layer, pictures: 2, .. }) if layer == "r.Relu"), "{dead:?}");
    let calibration = Calibration::measure(&model, &good).expect("pictures");
    let spec = |form, margin, floor| fit(&model, &calibration, &[FitSpec { form, margin, floor }]);
    assert!(matches!(spec(Form::Series(7), 0.9, 0.1), Err(FitError::Setting { what: "margin", .. })));
    assert!(matches!(spec(Form::Series(7), 1.1, 0.0), Err(FitError::Setting { what: "floor", .. })));
    assert!(matches!(spec(Form::Composite(vec![4]), 1.1, 0.1), Err(FitError::Approximation { .. })));
    let two = [FitSpec::series(7), FitSpec::series(7)];
    assert!(matches!(fit(&model, &calibration, &two), Err(FitError::Layers { expected: 3, found: 2 })));
    assert!(matches!(simulate(&model, &[], NoiseLevels::NONE, 0), Err(SimulateError::NoPictures)));
    let wrong = simulate(&model, &unlabelled(vec![small]), NoiseLevels::NONE, 0);
    assert!(matches!(wrong, Err(SimulateError::WrongKind { picture: 0, .. })));
}

/// The exact network's own words as labels, so that agreement is what matters.
#[test]
fn the_cheapest_that_keeps_the_answers_is_chosen() {
    let xs = pictures(&residual(), 400, 42);
    // Classes as likely as each other, so that answers are easily lost.
    let network = Network::<f32>::new(&residual());
    let mut mean = [0.0; 3];
    for x in &xs {
        let logits = network.evaluate(x).expect("the shape");
        mean.iter_mut().zip(logits.values()).for_each(|(m, l)| *m -= l / xs.len() as f32);
    }
    let (model, all) = (residual_with(mean), unlabelled(xs));
    let forms = [2, 3, 7, 15, 31].map(Form::Series).into_iter().chain([Form::Composite(vec![31, 63])]).collect::<Vec<_>>();
    let options = |target| ChooseOptions {
        target,
        forms: forms.clone(),
        margins: vec![1.3, 1.5],
        floors: vec![1e-1, 1e-3],
        ..Default::default()
    };
    let loose = choose(&model, &all, &options(0.6), &levels, &()).expect("a choice");
    // Those held out stand where they stood.
    let exactly = exact_logits(&model, &all).expect("logits");
    assert_eq!(loose.logits.len(), all.len());
    for (found, exact) in loose.logits.iter().flatten().zip(exactly.iter().flatten()) {
        assert!((found - exact).abs() < 1e-4 * exact.abs().max(1.0), "{found}, not {exact}");
        assert!(f64::from(found.abs()) <= loose.largest_logit);
    }
    let tight = choose(&model, &all, &options(0.97), &levels, &()).expect("a choice");
    for choice in [&loose, &tight] {
        assert_eq!(choice.cost, levels(&choice.model).expect("a sum"));
        let chosen = choice.tried.iter().filter(|c| c.keeps && c.specs == choice.specs).count();
        assert!(chosen > 0, "what is chosen was tried and keeps the answers");
        // Nothing notably cheaper keeps them.
        assert!(choice.tried.iter().all(|c| !c.keeps || 1.05 * c.cost >= choice.cost));
        choice.simulation.check_ranges().expect("within the margin");
    }
    assert!(tight.simulation.agreement() >= 0.97 && loose.simulation.agreement() >= 0.6);
    assert!(loose.cost < tight.cost, "{} {}", loose.cost, tight.cost);
    // Stopped after the first fit that keeps the answers, the search gives that one; before, none.
    let stopped = StopAfter { kept: 1, ..StopAfter::default() };
    let choice = choose(&model, &all, &options(0.6), &levels, &stopped).expect("the best so far");
    let best = choice.tried.last().expect("one was tried");
    assert!(best.keeps && best.specs == choice.specs && choice.tried.iter().filter(|c| c.keeps).count() == 1);
    let left = stopped.left.lock().expect("no panic").clone();
    assert_eq!(left.len(), choice.tried.len());
    assert!(left.iter().all(|s| s.is_finite() && *s > 0.0), "{left:?}");
    let at_once = StopAfter::default();
    let early = choose(&model, &all, &options(0.6), &levels, &at_once).expect_err("nothing was tried");
    assert!(matches!(early, ChooseError::Stopped { tried: 0, .. }), "{early}");
    // A cost that forbids series leaves composites.
    let no_series = |m: &Model| {
        let long = m.nodes().iter().any(|n| matches!(&n.operator, Operator::Fitted(f) if f.degrees().len() == 1));
        if long { Err("no series here".into()) } else { levels(m) }
    };
    let composite = choose(&model, &all, &options(0.9), &no_series, &()).expect("a choice");
    assert!(composite.specs.iter().all(|s| matches!(s.form, Form::Composite(_))));
    // What only bounded values let run is tried beside what runs as it is.
    assert!(loose.model.magnitudes().is_empty());
    let single = |n: &Node| matches!(&n.operator, Operator::Fitted(f) if f.degrees().len() == 1);
    let if_bounded = |m: &Model| {
        let free = m.nodes().iter().any(single) && m.magnitudes().is_empty();
        if free { Err("values of unknown range".into()) } else { levels(m) }
    };
    let bounded = choose(&model, &all, &options(0.6), &if_bounded, &()).expect("a choice");
    assert_eq!((bounded.specs, bounded.cost), (loose.specs.clone(), loose.cost));
    assert!(!bounded.model.magnitudes().is_empty());
    let nothing = choose(&model, &all, &options(0.9), &|_: &Model| Err("no plan".into()), &()).expect_err("nothing runs");
    assert!(matches!(&nothing, ChooseError::NoPlan { forms: 6, reason } if reason.to_string() == "no plan"), "{nothing}");
    let weak = ChooseOptions { forms: vec![Form::Series(2)], ..options(0.997) };
    assert!(matches!(
        choose(&model, &all, &weak, &levels, &()),
        Err(ChooseError::TargetNotReached { tried: 1, pictures: 32, .. })
    ));
    assert!(matches!(choose(&model, &all[..5], &options(0.9), &levels, &()), Err(ChooseError::TooFewPictures { found: 5, .. })));
    // What the pictures cannot show is told before anything is tried.
    struct Untried;
    impl Watch for Untried {
        fn planning(&self, _: usize) {
            panic!("forms were planned");
        }
    }
    let untried = Untried;
    assert!(matches!(
        choose(&model, &all, &options(0.999), &levels, &untried),
        Err(ChooseError::TooFewForTarget { found: 400, needed: 999, highest: 0.997, .. })
    ));
    assert!(matches!(choose(&model, &all, &options(1.0), &levels, &untried), Err(ChooseError::TargetTooHigh { .. })));
    assert!(matches!(choose(&model, &all, &options(1.5), &levels, &()), Err(ChooseError::Target { .. })));
}

/// Stops a search when so many fits have kept the answers.
#[derive(Default)]
struct StopAfter {
    kept: usize,
    seen: AtomicUsize,
    left: Mutex<Vec<f64>>,
}

impl Watch for StopAfter {
    fn tried(&self, candidate: &TriedFit, seconds_left: f64) {
        self.seen.fetch_add(usize::from(candidate.keeps), Ordering::Relaxed);
        self.left.lock().expect("no panic").push(seconds_left);
    }
    fn goes_on(&self) -> bool {
        self.seen.load(Ordering::Relaxed) < self.kept
    }
}

/// A public ResNet-20 on the first 500 test pictures of CIFAR-10, calibrated on training pictures.
#[test]
#[ignore = "needs ResNet-20 and pictures of CIFAR-10 (CIPHERLENS_DATA)"]
fn resnet20_keeps_its_answers() {
    let model = resnet20::model();
    let (test, reference) = (resnet20::test_pictures(&model), resnet20::reference_logits());
    let training = resnet20::training_pictures(&model, 0);
    let network = Network::<f32>::new(&model);
    for (picture, expected) in test.iter().zip(reference) {
        let found = network.evaluate(&picture.x).expect("a picture");
        for (found, expected) in found.values().iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-4, "{found} {expected}");
        }
    }
    let calibration_pictures = resnet20::inputs(&training);
    let ranges = channel_ranges(&model, &calibration_pictures).expect("pictures");
    let model = equalize(&model, &ranges);
    let calibration = Calibration::measure(&model, &calibration_pictures).expect("pictures");
    let spec = FitSpec { form: Form::Series(63), margin: 1.5, floor: 1e-2 };
    let fitted = fit(&model, &calibration, &[spec]).expect("a fit");
    let s = simulate(&fitted, &test, NoiseLevels::bits(18.0), 41).expect("a simulation");
    let accuracy = s.accuracy().expect("labels");
    println!("degree 63: top-1 {accuracy}, agreement {}, logit error rms {} max {}", s.agreement(), s.rms_error, s.max_error);
    s.check_ranges().expect("within the margin");
    assert_eq!(s.exact_accuracy(), Some(0.91));
    assert!((accuracy - 0.91).abs() <= 0.005 + 1e-9 && s.agreement() >= 0.99);
}

/// The taps of a maximum are larger than their difference, in whose scale they are wanted: where calibration noted their size, all that is
/// held is stored within what a bootstrap takes.
#[test]
fn what_a_maximum_holds_can_be_bootstrapped_where_its_size_is_known() {
    use cipherlens::nn::{LowerOptions, calibration::magnitudes, lower};
    use common::onnx::Attribute;
    let file = File::new(&[1, 1, 12, 12], "y")
        .node(node("MaxPool", &["x"], "a").ints("kernel_shape", &[3, 3]).ints("strides", &[2, 2]).ints("pads", &[1, 1, 1, 1]))
        .node(node("GlobalAveragePool", &["a"], "y"));
    let model = Model::from_onnx(&file.bytes(), &OnnxOptions::default()).expect("it is read");
    // Smooth pictures: neighbours differ by less than they are large.
    let picture = |i: usize| {
        let value = |at: usize| (3.0 * (0.2 * (at % 12) as f64 + 0.15 * (at / 12) as f64 + i as f64).sin()) as f32;
        Tensor::new(model.input().shape, (0..144).map(value).collect()).expect("the shape fits")
    };
    let pictures: Vec<Tensor<f32>> = (0..8).map(picture).collect();
    let calibration = Calibration::measure(&model, &pictures).expect("it is measured");
    let specs: Vec<FitSpec> =
        calibration.layers.iter().map(|_| FitSpec { form: Form::Series(15), margin: 1.3, floor: 0.1 }).collect();
    let fitted = fit(&model, &calibration, &specs).expect("it is fitted");
    let noted = fitted.with_magnitudes(&magnitudes(&fitted, &pictures).expect("it is measured"));
    // What several steps read is held meanwhile.
    let within = |model: &Model| {
        let steps = lower(model, 256, &LowerOptions::default()).expect("it is lowered").program.steps;
        let readers = |value: usize| steps.iter().flat_map(|s| s.operation.operands()).filter(|v| v.0 == value).count();
        let held = steps.iter().enumerate().filter(|(i, _)| readers(i + 1) >= 2);
        held.map(|(_, s)| s.bound.is_some_and(|bound| bound <= 1.0 + 1e-6)).collect::<Vec<_>>()
    };
    let (before, after) = (within(&fitted), within(&noted));
    assert!(before.len() >= 4 && !before.iter().all(|b| *b), "{before:?}");
    assert!(after.iter().all(|b| *b), "{after:?}");
}

/// A sum of sums of convolutions brings the constant of the interval that is fed, and where nothing can, the middle is left where it is:
/// what an activation is fed can be bootstrapped either way.
#[test]
fn what_activations_are_fed_can_be_bootstrapped_whatever_makes_it() {
    use cipherlens::nn::{LowerOptions, lower};
    let mut rng = seeded(61);
    let shape = Shape::new(3, 8, 8);
    let same = ConvShape::same(shape, 3, 3);
    let mut b = Builder::new(shape);
    let act = |b: &mut Builder, name: &str, from: &str| {
        b.node(name, &[from], json!({"op": "activation", "function": {"name": "gelu"}}));
    };
    b.conv("c0", "x", &same, &mut rng);
    act(&mut b, "a0", "c0");
    for name in ["c1", "c2", "c3"] {
        b.conv(name, "a0", &same, &mut rng);
    }
    let add = json!({"op": "add"});
    // What is fed to the second is a0 and a sum of sums; to the third, two values that others read as well.
    b.node("s1", &["c1", "c2"], add.clone()).node("s2", &["s1", "c3"], add.clone()).node("s3", &["a0", "s2"], add.clone());
    act(&mut b, "a1", "s3");
    b.node("s4", &["a0", "a1"], add);
    act(&mut b, "a2", "s4");
    b.node("pool", &["a2"], json!({"op": "global_avg_pool"}));
    let model = b.build("pool");
    let calibration = Calibration::measure(&model, &pictures(&model, 30, 62)).expect("it is measured");
    let fitted = fit(&model, &calibration, &[FitSpec { form: Form::Series(15), margin: 1.3, floor: 0.1 }]).expect("it is fitted");
    let program = lower(&fitted, 64, &LowerOptions::default()).expect("it is lowered").program;
    for layer in ["c0", "s3", "s4"] {
        let bound = program.steps.iter().rfind(|s| s.layer == layer).and_then(|s| s.bound);
        assert!(bound.is_some_and(|bound| bound <= 1.0 + 1e-9), "{layer}: {bound:?}");
    }
}

/// Weights that are all zero, as training begins with in the last norm of a branch: the others are fitted as they are, and what comes of a
/// constant is a constant.
#[test]
fn a_layer_that_is_fed_one_value_is_fitted_about_it() {
    let mut rng = seeded(63);
    let shape = Shape::new(2, 6, 6);
    let same = ConvShape::same(shape, 2, 3);
    for offset in [0.0f32, -3.0] {
        let mut b = Builder::new(shape);
        b.conv("c0", "x", &same, &mut rng);
        b.node("a0", &["c0"], json!({"op": "activation", "function": {"name": "relu"}}));
        b.conv("dead", "a0", &same, &mut rng).scale("dead.w", 0.0);
        b.tensor("dead.b", &[2], [offset; 2]);
        b.node("a1", &["dead"], json!({"op": "activation", "function": {"name": "silu"}}));
        b.node("sum", &["a0", "a1"], json!({"op": "add"}));
        b.node("pool", &["sum"], json!({"op": "global_avg_pool"}));
        let model = b.build("pool");
        let calibration = Calibration::measure(&model, &pictures(&model, 30, 64)).expect("one is alive");
        assert_eq!(calibration.dead, ["a1"]);
        let fitted = fit(&model, &calibration, &[FitSpec { form: Form::Series(15), margin: 1.5, floor: 0.1 }]).expect("a fit");
        let dead = fitted.nodes().iter().find(|n| n.name == "a1").expect("it is there");
        let Operator::Fitted(silu) = &dead.operator else { panic!("it is fitted") };
        let error = silu.value(offset.into()) - ActivationFunction::Silu.value(offset.into());
        assert!(error.abs() < 1e-6, "{offset}: {error}");
        simulate(&fitted, &unlabelled(pictures(&model, 30, 65)), NoiseLevels::NONE, 1)
            .expect("it runs")
            .check_ranges()
            .expect("inside");
    }
}

//! Convolutions in the place of MaxPool.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use cipherlens::nn::clear::Network;
use cipherlens::nn::model::Operator;
use cipherlens::nn::onnx::{MaxPools, OnnxOptions};
use cipherlens::nn::pooling::{self, PoolingError};
use cipherlens::nn::simulate::{Judge, Labelled, SimulateError, exact_logits};
use cipherlens::nn::tensor::Shape;
use cipherlens::nn::{Model, Tensor};
use common::models::seeded;
use common::onnx::{Attribute, Data, File, node};
use rand::RngExt;

/// Two convolutions with a MaxPool between them, and one at the end.
fn file(pool: &[(&str, &[i64])], ceil: bool) -> Vec<u8> {
    let mut rng = seeded(71);
    let mut weights = |n: usize| Data::Real((0..n).map(|_| rng.random_range(-0.5..0.5)).collect());
    let attributes = |mut n: cipherlens::nn::onnx::schema::NodeProto| {
        for (name, values) in pool {
            n = n.ints(name, values);
        }
        n.int("ceil_mode", i64::from(ceil))
    };
    File::new(&[1, 2, 13, 11], "y")
        .constant("w1", &[4, 2, 3, 3], weights(72))
        .constant("w2", &[3, 4, 3, 3], weights(108))
        .constant("f", &[5, 3], weights(15))
        .node(node("Conv", &["x", "w1"], "c").ints("pads", &[1, 1, 1, 1]))
        .node(node("Relu", &["c"], "r"))
        .node(attributes(node("MaxPool", &["r"], "p")))
        .node(node("Conv", &["p", "w2"], "d").ints("pads", &[1, 1, 1, 1]))
        .node(node("Relu", &["d"], "e"))
        .node(node("GlobalAveragePool", &["e"], "g"))
        .node(node("Flatten", &["g"], "h"))
        .node(node("Gemm", &["h", "f"], "y").int("transB", 1))
        .bytes()
}

/// The network with its maxima, and with a convolution in their place.
fn both(pool: &[(&str, &[i64])], ceil: bool) -> (Model, Model) {
    let bytes = file(pool, ceil);
    let read = |max_pools| Model::from_onnx(&bytes, &OnnxOptions { max_pools, ..OnnxOptions::default() }).expect("a network");
    (read(MaxPools::Exact), read(MaxPools::Convolved))
}

fn pictures(count: usize) -> Vec<Labelled> {
    let mut rng = seeded(72);
    let shape = Shape::new(2, 13, 11);
    let one = |_| {
        let (mean, size) = (rng.random_range(-1.0f32..1.0), rng.random_range(0.2f32..1.5));
        let values = (0..shape.len()).map(|_| mean + size * rng.random_range(-1.0f32..1.0)).collect();
        Labelled { x: Tensor::new(shape, values).expect("its size"), label: Some(0) }
    };
    (0..count).map(one).collect()
}

/// Attributes of a MaxPool.
type Attributes = &'static [(&'static str, &'static [i64])];

/// With whether the number of windows is rounded up.
const POOLS: [(Attributes, bool); 4] = [
    (&[("kernel_shape", &[3, 3]), ("strides", &[2, 2]), ("pads", &[1, 1, 1, 1])], false),
    (&[("kernel_shape", &[2, 2]), ("strides", &[2, 2])], true),
    (&[("kernel_shape", &[2, 3]), ("strides", &[2, 1]), ("pads", &[0, 1, 1, 1])], false),
    (&[("kernel_shape", &[2, 2]), ("strides", &[1, 3]), ("dilations", &[2, 2])], false),
];

/// What is fitted to are the maxima, whatever the window: the answers with them are those of the network read with exact maxima.
#[test]
fn what_is_lost_is_told_against_the_network_with_max_pool() {
    for (pool, ceil) in POOLS {
        let (exact, convolved) = both(pool, ceil);
        let seen = pictures(80);
        let fitted = pooling::fit(&convolved, &seen, Judge::Class).expect("it fits");
        let others: Vec<Labelled> = seen.iter().skip(1).step_by(2).cloned().collect();
        let answer = |logits: &[f32]| (0..5).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("a class");
        let answers = |model: &Model| -> Vec<usize> {
            exact_logits(model, &others).expect("logits").iter().map(|logits| answer(logits)).collect()
        };
        let (with_maxima, with_convolutions) = (answers(&exact), answers(&fitted.model));
        let same = with_maxima.iter().zip(&with_convolutions).filter(|(a, b)| a == b).count();
        assert_eq!((fitted.loss.pictures, fitted.loss.agree), (40, same), "{pool:?}");
        let right = |answers: &[usize]| Some(answers.iter().filter(|a| **a == 0).count() as f64 / 40.0);
        assert_eq!((fitted.loss.exact_accuracy(), fitted.loss.accuracy()), (right(&with_maxima), right(&with_convolutions)));
        assert_eq!(pooling::max_pools(&exact).len(), 1);
        assert_eq!(pooling::max_pools(&fitted.model), Vec::<String>::new());
        let [stand_in] = &fitted.stand_ins[..] else { panic!("one MaxPool") };
        assert!(stand_in.unexplained > 0.0 && stand_in.unexplained < 0.5, "{stand_in:?}");
    }
}

fn convolutions(model: &Model) -> Vec<usize> {
    let nodes = model.nodes().iter().enumerate();
    nodes.filter(|(_, n)| matches!(n.operator, Operator::Conv2d(_))).map(|(i, _)| i).collect()
}

/// No weights come nearer to the maxima than those found, and what comes behind has the moments that it has behind maxima.
#[test]
fn weights_are_the_nearest_and_moments_are_kept() {
    for (pool, ceil) in POOLS {
        let (exact, convolved) = both(pool, ceil);
        let seen = pictures(60);
        let fitted = pooling::fit(&convolved, &seen, Judge::Class).expect("it fits").model;
        let [_, stand_in, behind] = convolutions(&fitted)[..] else { panic!("three convolutions") };
        // The maxima are what the last convolution of the network with MaxPool is fed.
        let last = *convolutions(&exact).last().expect("one");
        let (with_maxima, with_it) = (Network::<f64>::new(&exact), Network::<f64>::new(&fitted));
        let (mut errors, mut moments) = (vec![0.0f64; 3], [[0.0f64; 2]; 2]);
        for picture in seen.iter().step_by(2) {
            let x = picture.x.cast();
            let (mut maxima, mut operand) = (None, None);
            let mut note = |at: usize, r: &Tensor<f64>| {
                r.values().iter().for_each(|v| {
                    moments[at][0] += v;
                    moments[at][1] += v * v;
                })
            };
            with_maxima
                .evaluate_with(&x, |node, operand, result| {
                    if node == last {
                        maxima = Some(operand.clone());
                        note(0, result);
                    }
                })
                .expect("its shape");
            with_it
                .evaluate_with(&x, |node, first, result| {
                    if node == stand_in {
                        operand = Some((first.clone(), result.clone()));
                    } else if node == behind {
                        note(1, result);
                    }
                })
                .expect("its shape");
            let (maxima, (operand, result)) = (maxima.expect("fed"), operand.expect("made"));
            assert_eq!(maxima.shape(), result.shape(), "{pool:?}");
            let error = |by: f64| maxima.values().iter().zip(result.values()).map(|(m, r)| (m - r - by).powi(2)).sum::<f64>();
            errors[0] += error(0.0);
            errors[1] += error(0.01);
            errors[2] += error(-0.01);
            assert!(operand.values().iter().all(|v| *v >= 0.0), "behind the ReLU");
        }
        assert!(errors[0] < errors[1] && errors[0] < errors[2], "another bias comes nearer: {errors:?}");
        let [wanted, found] = moments;
        for k in 0..2 {
            assert!((wanted[k] - found[k]).abs() < 1e-3 * wanted[1].abs().max(1.0), "{pool:?}: {wanted:?} {found:?}");
        }
    }
}

#[test]
fn what_cannot_be_fitted_is_said() {
    let (exact, convolved) = both(POOLS[0].0, false);
    let fit = |model: &Model, pictures: &[Labelled]| pooling::fit(model, pictures, Judge::Class).map(|f| f.stand_ins);
    assert_eq!(fit(&exact, &pictures(20)), Err(PoolingError::NoPools));
    assert_eq!(fit(&convolved, &pictures(7)), Err(PoolingError::TooFewPictures { found: 7 }));
    let mut odd = pictures(20);
    odd[3].x = Tensor::zeros(Shape::new(2, 11, 13));
    assert!(matches!(fit(&convolved, &odd), Err(PoolingError::Simulate(SimulateError::WrongKind { picture: 3, .. }))));
}

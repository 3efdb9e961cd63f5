//! ONNX files: the shared ones against their reference, built ones against direct evaluation, and damaged ones.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use chacha20::ChaCha8Rng;
use cipherlens::nn::clear::Network;
use cipherlens::nn::model::{Model, ModelError, Operator};
use cipherlens::nn::onnx::OnnxOptions;
use cipherlens::nn::onnx::schema::{ModelProto, NodeProto};
use cipherlens::nn::tensor::{Shape, Tensor};
use cipherlens::nn::{LowerOptions, lower};
use cipherlens::plan::program::Operation;
use common::models::{picture, seeded};
use common::onnx::{Attribute, Data, File, node};
use common::{shared, slots};
use prost::Message;
use rand::RngExt;
use rayon::prelude::*;
use safetensors::SafeTensors;

const NETWORKS: [&str; 5] = [
    "cifar10_resnet20_akamaster.onnx",
    "cifar10_resnet20_akamaster_fused.onnx",
    "cifar10_resnet20_akamaster_rawexport.onnx",
    "cifar10_resnet32_akamaster.onnx",
    "imagenette128_resnet18w32.onnx",
];

/// The 500 pictures of `cifar10/test500_lossless.nhwc.u8`, normalised.
fn pictures(model: &Model) -> Vec<Tensor<f64>> {
    let pixels = shared::read("cifar10/test500_lossless.nhwc.u8");
    let picture = |pixels: &[u8]| {
        let planes: Vec<f64> = (0..3).flat_map(|c| pixels.iter().skip(c).step_by(3).map(|v| f64::from(*v) / 255.0)).collect();
        model.input().normalise(&planes).expect("3 x 32 x 32")
    };
    pixels.chunks_exact(3 * 32 * 32).map(picture).collect()
}

/// Clear logits of the three exports on 500 pictures, in f64, against those of the framework; top-1 as published.
#[test]
#[ignore = "needs ResNet-20 and pictures of CIFAR-10 (CIPHERLENS_DATA)"]
fn resnet20_gives_the_reference_logits() {
    let reference = shared::read("reference/cifar10_resnet20_test500_logits_fp64.npz");
    let labels = shared::read("cifar10/test500_lossless.labels.u8");
    let want = shared::npz_f64(&reference, "logits.npy");
    assert_eq!(want.len(), 5000);
    for name in &NETWORKS[..3] {
        let model = Model::from_file(&shared::path(&format!("models/{name}"))).expect("the network is read");
        let pictures = pictures(&model);
        let network = Network::<f64>::new(&model);
        let got: Vec<Tensor<f64>> = pictures.par_iter().map(|x| network.evaluate(x).expect("the shape fits")).collect();
        let error = got.iter().flat_map(|t| t.values()).zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let right = got.iter().zip(&labels).filter(|(t, l)| t.argmax() == Some(usize::from(**l))).count();
        println!("{name}: largest difference {error:.2e}, {right} of 500 right");
        assert!(error < 1e-4, "{name}: {error}");
        assert_eq!(right, 455, "{name}: 91.0 %");
    }
}

/// The same nodes, whether batch normalisation was folded by the exporter or is folded here, and however shapes are spelled.
#[test]
#[ignore = "needs exports of ResNet-20 (CIPHERLENS_DATA)"]
fn the_exports_of_one_network_are_one_graph() {
    let models: Vec<Model> = NETWORKS[..3]
        .iter()
        .map(|name| Model::from_file(&shared::path(&format!("models/{name}"))).expect("the network is read"))
        .collect();
    let (first, others) = models.split_first().expect("three");
    for other in others {
        assert_eq!(first.nodes().len(), other.nodes().len());
        for (a, b) in first.nodes().iter().zip(other.nodes()) {
            assert_eq!((&a.inputs, a.shape, a.operator.name()), (&b.inputs, b.shape, b.operator.name()), "{} {}", a.name, b.name);
            let weights = |o: &Operator| match o {
                Operator::Conv2d(c) => [&c.weight[..], &c.bias].concat(),
                Operator::Linear { weight, bias } => [&weight[..], bias].concat(),
                _ => Vec::new(),
            };
            if let (Operator::Rearrange(a), Operator::Rearrange(b)) = (&a.operator, &b.operator) {
                assert_eq!(a, b);
            }
            let (a, b) = (weights(&a.operator), weights(&b.operator));
            assert!(a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-5 * (1.0 + a.abs())));
        }
    }
    let kinds = |kind: &str| first.nodes().iter().filter(|n| n.operator.name() == kind).count();
    assert_eq!([kinds("conv2d"), kinds("activation"), kinds("add"), kinds("rearrange")], [19, 19, 9, 2]);
    assert_eq!([kinds("global_avg_pool"), kinds("linear")], [1, 1]);
}

#[test]
#[ignore = "needs networks of others (CIPHERLENS_DATA)"]
fn other_networks_are_read() {
    for (name, convolutions, shape) in [(NETWORKS[3], 31, Shape::new(3, 32, 32)), (NETWORKS[4], 20, Shape::new(3, 128, 128))] {
        let model = Model::from_file(&shared::path(&format!("models/{name}"))).expect("the network is read");
        assert_eq!(model.nodes().iter().filter(|n| n.operator.name() == "conv2d").count(), convolutions, "{name}");
        assert_eq!((model.input().shape, model.shape(model.output())), (shape, Shape::new(10, 1, 1)));
        let x = common::models::picture(shape, &mut common::models::seeded(5));
        let logits = Network::<f64>::new(&model).evaluate(&x).expect("the shape fits");
        assert!(logits.values().iter().all(|v| v.is_finite()));
    }
}

/// A random file through the importer, evaluated, and the program it is lowered to against that.
fn evaluates(file: &File, x: &Tensor<f64>, want: &[f64]) -> Model {
    let model = Model::from_onnx(&file.bytes(), &plain(x.shape().channels)).expect("the file is read");
    let got = Network::<f64>::new(&model).evaluate(x).expect("the shape fits");
    assert_eq!(got.values().len(), want.len());
    for (got, want) in got.values().iter().zip(want) {
        assert!((got - want).abs() <= 1e-6 * (1.0 + want.abs()), "{got}, expected {want}");
    }
    model
}

/// Pictures as they are.
fn plain(channels: usize) -> OnnxOptions {
    OnnxOptions { mean: vec![0.0; channels], std: vec![1.0; channels], ..OnnxOptions::default() }
}

fn counted(shape: Shape) -> Tensor<f64> {
    Tensor::new(shape, (0..shape.len()).map(|i| (i % 23) as f64 / 7.0 - 1.5).collect()).expect("as many as the shape says")
}

/// Zeros that a file puts around a picture are padding of the window that reads it: no step of their own, and the same results as where
/// a step makes them.
#[test]
fn zeros_around_a_picture_are_padding_of_what_reads_it() {
    let x = counted(Shape::new(2, 7, 6));
    let weights: Vec<f32> = (0..4 * 2 * 9).map(|i| (i % 11) as f32 / 5.0 - 1.0).collect();
    let run = |file: &File, x: &Tensor<f64>| {
        let model = Model::from_onnx(&file.bytes(), &plain(2)).expect("the file is read");
        let y = Network::<f64>::new(&model).evaluate(x).expect("the shape fits");
        (model, y)
    };
    // The whole in one file, and in two of which the second takes what the first has padded.
    let compare = |pads: &[i64], fill: f32, function: &str, reader: NodeProto| {
        let padded = |output: &str| {
            File::new(&[1, 2, 7, 6], output)
                .constant("w", &[4, 2, 3, 3], Data::Real(weights.clone()))
                .constant("pads", &[8], Data::Whole(pads.to_vec()))
                .constant("fill", &[], Data::Real(vec![fill]))
                .node(node(function, &["x"], "r"))
                .node(node("Pad", &["r", "pads", "fill"], "p"))
        };
        let (_, between) = run(&padded("p"), &x);
        let Shape { height, width, .. } = between.shape();
        let mut alone = reader.clone();
        alone.input[0] = "x".into();
        let second = File::new(&[1, 2, height as i64, width as i64], "y")
            .constant("w", &[4, 2, 3, 3], Data::Real(weights.clone()))
            .node(alone);
        let (_, want) = run(&second, &between);
        let (model, got) = run(&padded("y").node(reader), &x);
        assert_eq!(got.shape(), want.shape());
        for (got, want) in got.values().iter().zip(want.values()) {
            assert!((got - want).abs() < 1e-12, "{got}, not {want}");
        }
        model
    };
    let moves = |model: &Model| model.nodes().iter().any(|n| matches!(n.operator, Operator::Rearrange(_) | Operator::Gather(_)));
    let conv = || node("Conv", &["p", "w"], "y").ints("strides", &[2, 1]);
    let average = || node("AveragePool", &["p"], "y").ints("kernel_shape", &[3, 3]).ints("strides", &[2, 2]);
    let around = [0, 0, 0, 1, 0, 0, 2, 2];
    for (name, pads, fill, function, reader, moved) in [
        ("asymmetric", around, 0.0, "Relu", conv(), false),
        ("and padding of its own", [0, 0, 0, 1, 0, 0, 1, 0], 0.0, "Tanh", conv().ints("pads", &[1, 1, 1, 0]), false),
        ("as far as the window reaches", around, 0.0, "Relu", conv().ints("pads", &[0, 0, 1, 0]), true),
        ("another number", around, 0.5, "Relu", conv(), true),
        ("cut off at one side", [0, 0, -1, 1, 0, 0, 1, 1], 0.0, "Relu", conv(), true),
        ("an average", around, 0.0, "Tanh", average(), false),
        ("an average that does not count its own", around, 0.0, "Relu", average().ints("pads", &[1, 1, 1, 1]), true),
        (
            "an average that counts its own",
            [0, 0, 1, 1, 0, 0, 1, 1],
            0.0,
            "Relu",
            { average().ints("pads", &[1, 1, 1, 1]).int("count_include_pad", 1) },
            false,
        ),
    ] {
        assert_eq!(moves(&compare(&pads, fill, function, reader)), moved, "{name}");
    }
    let greatest =
        |own: &[i64]| node("MaxPool", &["p"], "y").ints("kernel_shape", &[3, 3]).ints("strides", &[2, 2]).ints("pads", own);
    let (around, own) = ([0, 0, 0, 1, 0, 0, 2, 1], [0, 1, 2, 1]);
    for (function, same) in [("Sigmoid", true), ("Tanh", false)] {
        let [of_zeros, of_nothing] = [(around, [0; 4]), ([0; 8], own)].map(|(pads, own)| {
            let model = compare(&pads, 0.0, function, greatest(&own));
            (model.nodes().len(), Network::<f64>::new(&model).evaluate(&x).expect("the shape fits"))
        });
        assert_eq!(of_zeros == of_nothing, same, "{function}: zeros are the greatest only beside negative numbers");
    }
}

/// Linear interpolation by any factors, against its definition.
#[test]
fn pictures_are_interpolated() {
    let shape = Shape::new(2, 4, 6);
    let x = counted(shape);
    let file = |mode: &'static str, sizes: [i64; 2]| {
        File::new(&[1, 2, 4, 6], "y").constant("sizes", &[4], Data::Whole(vec![1, 2, sizes[0], sizes[1]])).node(
            node("Resize", &["x", "", "", "sizes"], "y").text("mode", "linear").text("coordinate_transformation_mode", mode),
        )
    };
    for (mode, [height, width]) in [
        ("half_pixel", [8usize, 18usize]),
        ("half_pixel", [8, 3]),
        ("half_pixel", [4, 2]),
        ("half_pixel", [20, 6]),
        ("pytorch_half_pixel", [2, 12]),
        ("asymmetric", [12, 3]),
        ("asymmetric", [2, 24]),
        ("align_corners", [10, 11]),
        ("align_corners", [2, 26]),
        ("half_pixel", [6, 6]),
        ("half_pixel", [7, 9]),
        ("half_pixel", [3, 5]),
        ("pytorch_half_pixel", [6, 18]),
        ("asymmetric", [5, 4]),
        ("asymmetric", [1, 13]),
        ("align_corners", [8, 12]),
        ("align_corners", [3, 4]),
        ("half_pixel_symmetric", [10, 15]),
    ] {
        let whole = |n: usize, size: usize| {
            let (n, size) = if mode == "align_corners" { (n - 1, size - 1) } else { (n, size) };
            n.is_multiple_of(size) || size.is_multiple_of(n)
        };
        let coordinate = |i: usize, n: usize, size: usize| {
            let (i, n, size) = (i as f64, n as f64, size as f64);
            match mode {
                "asymmetric" => i * n / size,
                "align_corners" => i * (n - 1.0) / (size - 1.0),
                _ => (i + 0.5) * n / size - 0.5,
            }
        };
        // The two elements beside a place, and what the second one weighs; the last one goes on beyond the end.
        let beside = |i: usize, n: usize, size: usize| {
            let at = coordinate(i, n, size).clamp(0.0, (n - 1) as f64);
            let first = (at.floor() as usize).min(n - 1);
            (first, (first + 1).min(n - 1), at - first as f64)
        };
        let mut want = Vec::new();
        for c in 0..2 {
            for y in 0..height {
                for column in 0..width {
                    let ((up, down, v), (left, right, h)) = (beside(y, 4, height), beside(column, 6, width));
                    let row = |y: usize| x.at(c, y, left) * (1.0 - h) + x.at(c, y, right) * h;
                    want.push(row(up) * (1.0 - v) + row(down) * v);
                }
            }
        }
        println!("{mode} to {height} x {width}");
        let model = evaluates(&file(mode, [height as i64, width as i64]), &x, &want);
        let each = [whole(4, height), whole(6, width)].iter().filter(|whole| !**whole).count();
        assert!(model.nodes().len() <= 2 + 3 * each, "{} nodes", model.nodes().len());
    }
    // One row is the same in every place, and a place of its own for corners.
    let file_of_one = |mode: &'static str| {
        File::new(&[1, 2, 1, 6], "y").constant("sizes", &[4], Data::Whole(vec![1, 2, 4, 6])).node(
            node("Resize", &["x", "", "", "sizes"], "y").text("mode", "linear").text("coordinate_transformation_mode", mode),
        )
    };
    let one = counted(Shape::new(2, 1, 6));
    let four: Vec<f64> = (0..2).flat_map(|c| one.channel(c).repeat(4)).collect();
    evaluates(&file_of_one("half_pixel"), &one, &four);
    evaluates(&file_of_one("align_corners"), &one, &four);
    let error = Model::from_onnx(&file("tf_crop_and_resize", [8, 12]).bytes(), &plain(2)).expect_err("it is refused");
    assert!(error.to_string().contains("Resize") || matches!(error, ModelError::BadNode { .. }), "{error}");
}

/// Slices, paddings, resizing and joining of channels, against indices written out here.
#[test]
fn elements_are_moved() {
    let shape = Shape::new(3, 5, 6);
    let x = counted(shape);
    let at = |c: usize, y: usize, col: usize| x.at(c, y, col);
    let whole = |v: &[i64]| Data::Whole(v.to_vec());

    // [:, :, 3:0:-2, 1::2] and two channels of zeros before, one after.
    let file = File::new(&[1, 3, 5, 6], "y")
        .constant("starts", &[2], whole(&[3, 1]))
        .constant("ends", &[2], whole(&[0, i64::MAX]))
        .constant("axes", &[2], whole(&[2, -1]))
        .constant("steps", &[2], whole(&[-2, 2]))
        .constant("pads", &[8], whole(&[0, 2, 0, 0, 0, 1, 0, 0]))
        .node(node("Slice", &["x", "starts", "ends", "axes", "steps"], "s"))
        .node(node("Pad", &["s", "pads"], "y"));
    let mut want = vec![0.0; 6 * 2 * 3];
    for c in 0..3 {
        for (r, y) in [3, 1].into_iter().enumerate() {
            (0..3).for_each(|k| want[((c + 2) * 2 + r) * 3 + k] = at(c, y, 1 + 2 * k));
        }
    }
    let model = evaluates(&file, &x, &want);
    assert_eq!(model.nodes().len(), 1, "one after the other is one");

    // Nearest neighbours at twice the size, as PyTorch writes it, joined with an edge-padded slice of itself.
    let file = File::new(&[-1, 3, 5, 6], "y")
        .constant("scales", &[4], Data::Real(vec![1.0, 1.0, 2.0, 2.0]))
        .constant("pads", &[8], whole(&[0, 0, 3, 0, 0, -2, 2, 6]))
        .node(
            node("Resize", &["x", "", "scales"], "r")
                .text("coordinate_transformation_mode", "asymmetric")
                .text("mode", "nearest")
                .text("nearest_mode", "floor"),
        )
        .node(node("Pad", &["x", "pads"], "p").text("mode", "edge"))
        .node(node("Concat", &["r", "p"], "y").int("axis", 1));
    let mut want = Vec::new();
    for c in 0..3 {
        (0..10).for_each(|y| (0..12).for_each(|col| want.push(at(c, y / 2, col / 2))));
    }
    (0..10).for_each(|y: usize| (0..12).for_each(|col: usize| want.push(at(0, y.saturating_sub(3).min(4), col.min(5)))));
    evaluates(&file, &x, &want);

    // Reflected on all sides, as far as that goes.
    let file = File::new(&[1, 3, 5, 6], "y")
        .constant("pads", &[8], whole(&[0, 0, 1, 2, 0, 0, 4, 5]))
        .node(node("Pad", &["x", "pads"], "y").text("mode", "reflect"));
    let mirrored = |i: i64, n: i64| if i < n { i.abs() } else { 2 * (n - 1) - i } as usize;
    let pixels = || (-1..9).flat_map(|y| (-2..11).map(move |col| (mirrored(y, 5), mirrored(col, 6))));
    let want: Vec<f64> =
        (0..3).flat_map(|c| pixels().map(move |(y, col)| (c, y, col))).map(|(c, y, col)| at(c, y, col)).collect();
    evaluates(&file, &x, &want);

    // Split into channels of 1 and 2, and the parts in the other order.
    let mut split = node("Split", &["x"], "a").ints("split", &[1, 2]).int("axis", 1);
    split.output.push("b".into());
    let file = File::new(&[1, 3, 5, 6], "y").node(split).node(node("Concat", &["b", "a"], "y").int("axis", 1));
    let want: Vec<f64> = [1, 2, 0].into_iter().flat_map(|c| x.channel(c).to_vec()).collect();
    evaluates(&file, &x, &want);
}

/// Convolution with `auto_pad`, pooling with `ceil_mode`, the sum over an affine in several operators, and a linear layer by
/// MatMul behind a reshape from computed extents.
#[test]
fn layers_are_computed() {
    let shape = Shape::new(2, 5, 5);
    let x = counted(shape);
    let file = File::new(&[1, 2, 5, 5], "y")
        .constant("w", &[2, 1, 2, 2], Data::Real((1..=8).map(|v| v as f32).collect()))
        .node(node("Conv", &["x", "w"], "y").int("group", 2).ints("strides", &[2, 2]).text("auto_pad", "SAME_LOWER"));
    let mut want = Vec::new();
    for c in 0..2usize {
        for y in [0usize, 2, 4] {
            for col in [0usize, 2, 4] {
                let tap = |dy: usize, dx: usize| match (y.checked_sub(1 - dy), col.checked_sub(1 - dx)) {
                    (Some(y), Some(col)) => x.at(c, y, col) * (4 * c + 2 * dy + dx + 1) as f64,
                    _ => 0.0,
                };
                want.push(tap(0, 0) + tap(0, 1) + tap(1, 0) + tap(1, 1));
            }
        }
    }
    evaluates(&file, &x, &want);

    let pool = node("AveragePool", &["x"], "y").ints("kernel_shape", &[2, 2]).ints("strides", &[2, 2]).int("ceil_mode", 1);
    let mut want = Vec::new();
    for c in 0..2 {
        for y in [0..2, 2..4, 4..5usize] {
            for col in [0..2, 2..4, 4..5usize] {
                let cells: Vec<f64> =
                    y.clone().flat_map(|y| col.clone().map(move |col| (y, col))).map(|(y, k)| x.at(c, y, k)).collect();
                want.push(cells.iter().sum::<f64>() / cells.len() as f64);
            }
        }
    }
    evaluates(&File::new(&[1, 2, 5, 5], "y").node(pool), &x, &want);

    let file = File::new(&[-1, 2, 5, 5], "y")
        .constant("factor", &[1, 2, 1, 1], Data::Real(vec![2.0, 4.0]))
        .constant("mean", &[2, 1, 1], Data::Real(vec![0.5, -0.25]))
        .constant("three", &[], Data::Real(vec![3.0]))
        .constant("zero", &[1], Data::Whole(vec![0]))
        .constant("minus", &[1], Data::Whole(vec![-1]))
        .constant("w", &[50, 3], Data::Real((0..150).map(|i| (i % 7) as f32 - 3.0).collect()))
        .constant("b", &[3], Data::Real(vec![1.0, 2.0, 3.0]))
        .node(node("Sub", &["x", "mean"], "a"))
        .node(node("Div", &["a", "factor"], "b0"))
        .node(node("Mul", &["three", "b0"], "b1"))
        .node(node("Add", &["b1", "x"], "b2"))
        .node(node("Shape", &["b2"], "shape"))
        .node(node("Gather", &["shape", "zero"], "n").int("axis", 0))
        .node(node("Concat", &["n", "minus"], "to").int("axis", 0))
        .node(node("Reshape", &["b2", "to"], "flat"))
        .node(node("MatMul", &["flat", "w"], "m"))
        .node(node("Add", &["b", "m"], "s"))
        .node(node("Softmax", &["s"], "y"));
    let y: Vec<f64> = (0..50)
        .map(|i| {
            let c = i / 25;
            3.0 * (x.values()[i] - [0.5, -0.25][c]) / [2.0, 4.0][c] + x.values()[i]
        })
        .collect();
    let want: Vec<f64> =
        (0..3).map(|o| (0..50).map(|i| y[i] * (((i * 3 + o) % 7) as f64 - 3.0)).sum::<f64>() + [1.0, 2.0, 3.0][o]).collect();
    evaluates(&file, &x, &want);
}

/// What moves elements one after the other is one node for each value that it takes from, and none where nothing moves.
#[test]
fn moves_become_one() {
    let x = counted(Shape::new(2, 4, 4));
    let kinds = |model: &Model| model.nodes().iter().map(|n| n.operator.name()).collect::<Vec<_>>();
    let whole = |v: &[i64]| Data::Whole(v.to_vec());

    // Two tensors joined, their channels shuffled, and half of them taken: channels 0 and 1 of 0, 2, 1, 3.
    let file = File::new(&[1, 2, 4, 4], "y")
        .constant("apart", &[5], whole(&[1, 2, 2, 4, 4]))
        .constant("back", &[4], whole(&[1, -1, 4, 4]))
        .node(node("Relu", &["x"], "r"))
        .node(node("Concat", &["x", "r"], "j").int("axis", 1))
        .node(node("Reshape", &["j", "apart"], "a"))
        .node(node("Transpose", &["a"], "t").ints("perm", &[0, 2, 1, 3, 4]))
        .node(node("Reshape", &["t", "back"], "s"));
    let mut split = node("Split", &["s"], "y").int("axis", 1);
    split.output.push("rest".into());
    let relu = |v: &f64| v.max(0.0);
    let want: Vec<f64> = x.channel(0).iter().copied().chain(x.channel(0).iter().map(relu)).collect();
    let model = evaluates(&file.node(split), &x, &want);
    assert_eq!(kinds(&model), ["rearrange", "activation", "rearrange", "add"]);

    // There and back is nothing.
    let file = File::new(&[1, 2, 4, 4], "y")
        .node(node("Transpose", &["x"], "t").ints("perm", &[0, 2, 3, 1]))
        .node(node("Relu", &["t"], "r"))
        .node(node("Transpose", &["r"], "y").ints("perm", &[0, 3, 1, 2]));
    let want: Vec<f64> = x.values().iter().map(relu).collect();
    assert_eq!(kinds(&evaluates(&file, &x, &want)), ["activation"]);

    // Rows and columns exchanged are written out one by one, and survive the model's own file.
    let file = File::new(&[1, 2, 4, 4], "y")
        .constant("pads", &[8], whole(&[0, 0, 1, 0, 0, 0, 0, 0]))
        .constant("value", &[], Data::Real(vec![2.5]))
        .node(node("Transpose", &["x"], "t").ints("perm", &[0, 1, 3, 2]))
        .node(node("Pad", &["t", "pads", "value"], "y"));
    let want: Vec<f64> = (0..2)
        .flat_map(|c| (0..5usize).flat_map(move |y| (0..4).map(move |col| (c, y, col))))
        .map(|(c, y, col)| y.checked_sub(1).map_or(2.5, |y| x.at(c, col, y)))
        .collect();
    let model = evaluates(&file, &x, &want);
    assert_eq!(kinds(&model), ["gather"]);
    let again = Model::from_bytes(&model.to_bytes()).expect("it is read back");
    assert_eq!(Network::<f64>::new(&again).evaluate(&x).expect("the shape fits").values(), want);
}

/// As TensorFlow writes them: pictures with their channels last, and a linear layer on the pixels one after the other.
#[test]
fn channels_may_come_last() {
    let shape = Shape::new(3, 4, 5);
    let x = counted(shape);
    let weights: Vec<f32> = (0..120).map(|i| (i % 11) as f32 - 5.0).collect();
    let file = File::new(&[1, 4, 5, 3], "y")
        .constant("flat", &[2], Data::Whole(vec![1, -1]))
        .constant("w", &[60, 2], Data::Real(weights.clone()))
        .node(node("Transpose", &["x"], "first").ints("perm", &[0, 3, 1, 2]))
        .node(node("Relu", &["first"], "r"))
        .node(node("Transpose", &["r"], "last").ints("perm", &[0, 2, 3, 1]))
        .node(node("Reshape", &["last", "flat"], "f"))
        .node(node("MatMul", &["f", "w"], "y"));
    let pixel = |i: usize| x.at(i % 3, i / 15, i / 3 % 5).max(0.0);
    let want: Vec<f64> = (0..2).map(|o| (0..60).map(|i| pixel(i) * f64::from(weights[2 * i + o])).sum::<f64>()).collect();
    let model = evaluates(&file, &x, &want);
    let kinds: Vec<_> = model.nodes().iter().map(|n| n.operator.name()).collect();
    assert_eq!(kinds, ["activation", "flatten", "linear"], "the weights are moved, not the pixels");
    assert!(model.training().text("input").is_some_and(|note| note.contains("[1, height, width, channels]")));
}

/// A network of everything that moves elements, lowered to slot matrices.
#[test]
fn moves_are_lowered() {
    let mut rng = seeded(31);
    for case in 0..60 {
        let (c, h, w) = (rng.random_range(1..=5), rng.random_range(3..=12), rng.random_range(3..=12));
        let step = rng.random_range(1..=3);
        let pads: Vec<i64> = [0, 0, 0, 0, 0].into_iter().chain((0..3).map(|_| rng.random_range(0..=2))).collect();
        let before: i64 = rng.random_range(0..=3);
        let kernel = |out: i64, inputs: i64| (out, inputs, vec![0.25f32; (out * inputs * 9) as usize]);
        let (out, inputs, weights) = kernel(3, c);
        let channels = 3 + before + pads[5];
        let file = File::new(&[1, c, h, w], "y")
            .constant("w", &[out, inputs, 3, 3], Data::Real(weights.iter().map(|v| v * rng.random_range(-1.0..1.0)).collect()))
            .constant("starts", &[2], Data::Whole(vec![rng.random_range(0..2), 0]))
            .constant("ends", &[2], Data::Whole(vec![i64::MAX, -1]))
            .constant("axes", &[2], Data::Whole(vec![2, 3]))
            .constant("steps", &[2], Data::Whole(vec![step, rng.random_range(1..=2)]))
            .constant("pads", &[8], Data::Whole([&[0, before], &pads[2..]].concat()))
            .constant("scales", &[4], Data::Real(vec![1.0, 1.0, 2.0, 1.0]))
            .node(node("Conv", &["x", "w"], "c").ints("pads", &[1, 1, 1, 1]))
            .node(node("Mul", &["c", "c"], "q"))
            .node(node("Slice", &["q", "starts", "ends", "axes", "steps"], "s"))
            .node(node("Pad", &["s", "pads"], "p"))
            .node(node("Resize", &["p", "", "scales"], "r").text("mode", "nearest"))
            .node(node("Add", &["r", "r"], "d"))
            .node(node("Concat", &["d", "r"], "j").int("axis", 1))
            .constant("ones", &[8], Data::Whole(vec![0, 1, 0, 1, 0, 0, 1, 0]))
            .constant("half", &[], Data::Real(vec![0.5]))
            .node(node("Transpose", &["j"], "t").ints("perm", &[0, 1, 3, 2]))
            .node(node("Pad", &["t", "ones", "half"], "o"))
            .node(node("Mul", &["o", "o"], "y"));
        println!("case {case}: {c}x{h}x{w}, {channels} channels, {pads:?}, step {step}");
        let model = Model::from_onnx(&file.bytes(), &plain(c as usize)).expect("the file is read");
        let x = picture(model.input().shape, &mut rng);
        let want = Network::<f64>::new(&model).evaluate(&x).expect("the shape fits");
        let lowered = lower(&model, 256, &LowerOptions::default()).expect("lowers");
        let packed = lowered.input.pack(&x).expect("packs");
        let got = lowered.output.unpack(&slots::run(&lowered.program, packed)).expect("the output has its layout");
        for (want, got) in want.values().iter().zip(got.values()) {
            assert!((want - got).abs() <= 1e-9, "{want} directly, {got} by the program");
        }
    }
}

/// `max(relu(x)) = relu(max(x))`: where nothing else reads the ReLU, it is applied to what the windows leave.
#[test]
fn a_relu_before_a_maximum_is_applied_to_what_that_leaves() {
    let pooled = |read_again: bool| {
        let mut file = File::new(&[1, 2, 8, 8], "y")
            .node(node("Relu", &["x"], "a"))
            .node(node("MaxPool", &["a"], "y").ints("kernel_shape", &[2, 2]).ints("strides", &[2, 2]));
        if read_again {
            file = file.node(node("GlobalAveragePool", &["a"], "b")).node(node("Add", &["y", "b"], "z"));
            file.graph().output[0].name = "z".into();
        }
        let model = Model::from_onnx(&file.bytes(), &plain(2)).expect("it is read");
        model.activations().map(|(_, node, _)| node.shape.len()).collect::<Vec<_>>()
    };
    // Rows, columns, the ReLU itself.
    assert_eq!(pooled(false), [64, 32, 32]);
    assert_eq!(pooled(true), [128, 64, 32]);
}

/// What is asked of a window or of the room between pixels is bounded before anything is made of it.
#[test]
fn windows_beyond_all_bounds_are_refused() {
    let refused = |op: &str, more: &[(&str, &[i64])], inputs: &[&str]| {
        let mut node = node(op, inputs, "y");
        for (name, values) in more {
            node = node.ints(name, values);
        }
        let file = File::new(&[1, 1, 8, 8], "y").constant("w", &[1, 1, 2, 2], Data::Real(vec![1.0; 4])).node(node);
        Model::from_onnx(&file.bytes(), &plain(1)).expect_err("refused").to_string()
    };
    for (kernel, pads, stride) in [(65_536, 65_535, 1), (3, 65_536, 1), (9, 0, 1), (2, 9, 1)] {
        let window: [(&str, &[i64]); 3] =
            [("kernel_shape", &[kernel, kernel]), ("pads", &[pads; 4]), ("strides", &[stride, stride])];
        let text = refused("MaxPool", &window, &["x"]);
        assert!(text.contains("a window lies in the padding"), "{text}");
    }
    assert!(refused("ConvTranspose", &[("strides", &[65_536, 65_536])], &["x", "w"]).contains("pixels"));
    assert!(refused("ConvTranspose", &[("pads", &[9; 4])], &["x", "w"]).contains("an axis of 0 elements"));
    assert!(refused("ConvTranspose", &[("output_padding", &[7, 7])], &["x", "w"]).contains("output_padding"));
}

/// A gate is repeated to the shape of what it is multiplied with, whichever of the two comes first, and a product of two is one
/// multiplication of ciphertexts.
#[test]
fn products_of_two_tensors_are_one_multiplication() {
    for swapped in [false, true] {
        let factors = if swapped { ["b", "x"] } else { ["x", "b"] };
        let file = File::new(&[1, 3, 12, 10], "y")
            .node(node("GlobalAveragePool", &["x"], "a"))
            .node(node("Mul", &["a", "a"], "b"))
            .node(node("Mul", &factors, "c"))
            .node(node("Add", &["c", "x"], "y"));
        let model = Model::from_onnx(&file.bytes(), &plain(3)).expect("it is read");
        let product = model.nodes().iter().find(|n| matches!(n.operator, Operator::Multiply)).expect("a product");
        assert_eq!((product.inputs[0].0, product.shape), (0, Shape::new(3, 12, 10)), "what is repeated comes second");
        let x = picture(model.input().shape, &mut seeded(5));
        let mean = |c: usize| x.channel(c).iter().sum::<f64>() / 120.0;
        let want: Vec<f64> = x.values().iter().enumerate().map(|(i, v)| v * mean(i / 120).powi(2) + v).collect();
        let clear = Network::<f64>::new(&model).evaluate(&x).expect("the shape fits");
        assert!(clear.values().iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-12));
        let lowered = lower(&model, 512, &LowerOptions::default()).expect("it is lowered");
        let got = slots::run(&lowered.program, lowered.input.pack(&x).expect("it is packed"));
        let got = lowered.output.unpack(&got).expect("the output has its layout");
        assert!(got.values().iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-9));
        let products = lowered.program.steps.iter().filter(|s| matches!(s.operation, Operation::Multiply { .. })).count();
        assert_eq!(products, 1);
    }
}

#[test]
fn every_unsupported_operator_is_named_at_once() {
    let file = File::new(&[1, 1, 8, 8], "y")
        .node(node("LpPool", &["x"], "a").ints("kernel_shape", &[2, 2]))
        .node(node("Relu", &["a"], "b"))
        .node(node("LayerNormalization", &["b"], "c"))
        .node(node("Fourier", &["c", "x"], "d"))
        .node(node("LpPool", &["x"], "unused"))
        .node(node("Relu", &["d"], "y"));
    let error = Model::from_onnx(&file.bytes(), &plain(1)).expect_err("not supported");
    let text = error.to_string();
    assert!(matches!(&error, ModelError::UnsupportedOperators(list) if list.len() == 3), "{text}");
    for part in ["/a/LpPool (LpPool)", "AveragePool", "/c/LayerNormalization", "BatchNorm", "/d/Fourier (Fourier)"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn bad_files_are_refused_with_the_reason() {
    let refused = |file: &File| Model::from_onnx(&file.bytes(), &plain(1)).expect_err("refused").to_string();
    let relu = || node("Relu", &["x"], "y");
    let mut old = File::new(&[1, 1, 8, 8], "y").node(relu());
    old.0.opset_import[0].version = 9;
    assert!(refused(&old).contains("opset 9"));
    assert!(refused(&File::new(&[1, 1, -1, 8], "y").node(relu())).contains("[1, 1, n, 8]"));
    assert!(refused(&File::new(&[1, 1, 1 << 40, 8], "y").node(relu())).contains("1099511627776"));
    assert!(refused(&File::new(&[1, 65536, 65536, 1], "y").node(relu())).contains("the limit is"));
    assert!(refused(&File::new(&[1, 1, 8, 8], "z").node(relu())).contains("nothing makes"));
    let cycle = File::new(&[1, 1, 8, 8], "y").node(node("Add", &["x", "b"], "a")).node(node("Relu", &["a"], "b"));
    assert!(refused(&cycle.node(node("Relu", &["b"], "y"))).contains("in a cycle: /b/Relu, /a/Add"));
    let short = File::new(&[1, 1, 8, 8], "y").constant("w", &[1, 1, 3, 3], Data::Real(vec![1.0]));
    assert!(refused(&short.node(node("Conv", &["x", "w"], "y"))).contains("takes 36"));
    let huge = File::new(&[1, 1, 8, 8], "y")
        .constant("dims", &[2], Data::Whole(vec![1 << 30, 1 << 30]))
        .node(node("ConstantOfShape", &["dims"], "c"))
        .node(node("Add", &["x", "c"], "y"));
    assert!(refused(&huge).contains("constants take more than"));
    let mut two = File::new(&[1, 1, 8, 8], "y").node(relu());
    let other = two.graph().output[0].clone();
    two.graph().output.push(other);
    assert!(refused(&two).contains("2 results"));
}

/// One byte in some changed, inserted, removed; or the end cut off. Neither a panic nor an allocation far beyond the file.
fn mutated(file: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = file.to_vec();
    if rng.random_range(0..8) == 0 {
        bytes.truncate(rng.random_range(0..=file.len()));
        return bytes;
    }
    for _ in 0..rng.random_range(1..=8) {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..6) {
            0 => bytes[at] = rng.random(),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes[at] = [0, 1, 127, 128, 255][rng.random_range(0..5)],
            3 => bytes.insert(at, rng.random()),
            4 => _ = bytes.remove(at),
            _ => {
                let from = rng.random_range(0..bytes.len());
                let len = rng.random_range(1..=16).min(bytes.len() - at.max(from));
                bytes.copy_within(from..from + len, at);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

/// The shared files with their weights cut to the structure around them: mutations then hit the graph and not only weights.
fn skeletons() -> Vec<Vec<u8>> {
    let strip = |name: &&str| {
        let mut file = ModelProto::decode(&*shared::read(&format!("models/{name}"))).expect("a shared file is ONNX");
        for tensor in &mut file.graph.as_mut().expect("it has a graph").initializer {
            // Small weights stay; of large ones only the shape does, and the bytes do not fit it.
            tensor.raw_data = tensor.raw_data.take().filter(|d| d.len() <= 256);
        }
        file.encode_to_vec()
    };
    NETWORKS.iter().map(strip).collect()
}

/// Bytes at once where elements are moved one by one: some that is written out, twice, and all else.
const MOST_MOVED: isize = 192 << 20;

/// A small network, and a graph of each operator (tests/operators.py).
fn own_graphs() -> Vec<Vec<u8>> {
    let read = |name: &str| {
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("a file of the repository")
    };
    let operators = read("tests/fixtures/operators.safetensors");
    let file = SafeTensors::deserialize(&operators).expect("a safetensors file");
    let mut graphs = file.tensors();
    graphs.retain(|(name, _)| name.ends_with(".onnx"));
    graphs.sort_by(|(a, _), (b, _)| a.cmp(b));
    // Graphs end with some zeros, which are no ONNX.
    let whole = |bytes: &[u8]| {
        let padding = bytes.iter().rev().take(3).take_while(|b| **b == 0).count();
        (0..=padding).map(|cut| &bytes[..bytes.len() - cut]).find(|bytes| ModelProto::decode(*bytes).is_ok()).map(<[u8]>::to_vec)
    };
    let mut all: Vec<Vec<u8>> = graphs.into_iter().filter_map(|(_, tensor)| whole(tensor.data())).collect();
    assert!(all.len() >= 39, "{} graphs", all.len());
    all.push(read("examples/data/stripes.onnx"));
    let unread = all.iter().filter(|bytes| Model::from_onnx(bytes, &OnnxOptions::default()).is_err()).count();
    assert_eq!(unread, 0, "graphs that are not mutated are read");
    all
}

/// `whole` files are slow to copy and mostly weights: one in ten. `most`: bytes allocated at once.
fn survive(whole: &[Vec<u8>], small: &[Vec<u8>], most: isize, (count, seed): (usize, u64)) {
    let mut rng = seeded(seed);
    let (mut read, mut refused) = (0, 0);
    for i in 0..count {
        let file = if i % 10 == 0 { &whole[i / 10 % whole.len()] } else { &small[i % small.len()] };
        let bytes = mutated(file, &mut rng);
        let before = allocations::start();
        match Model::from_onnx(&bytes, &OnnxOptions::default()) {
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
        let peak = allocations::peak_since(before);
        assert!(peak < most, "mutation {i}: {peak} bytes were allocated at once for a file of {}", bytes.len());
    }
    println!("{count} mutations: {read} read, {refused} refused");
    assert!(refused > count / 10);
}

#[test]
fn mutations_are_refused_or_read() {
    let graphs = own_graphs();
    survive(&graphs, &graphs, MOST_MOVED, (100_000, 41));
}

#[test]
#[ignore = "minutes, and needs networks of others (CIPHERLENS_DATA)"]
fn a_hundred_thousand_mutations() {
    let whole: Vec<Vec<u8>> = NETWORKS.iter().map(|name| shared::read(&format!("models/{name}"))).collect();
    survive(&whole, &skeletons(), 64 << 20, (120_000, 42));
    let graphs = own_graphs();
    survive(&graphs, &graphs, MOST_MOVED, (1_000_000, 43));
}

/// What is allocated by this thread, and the most at once.
mod allocations {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    struct Counting;

    thread_local! {
        static NOW: Cell<isize> = const { Cell::new(0) };
        static PEAK: Cell<isize> = const { Cell::new(0) };
    }

    fn count(bytes: isize) {
        // A thread that ends may free after its counters are gone.
        let _ = NOW.try_with(|now| {
            now.set(now.get() + bytes);
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
        });
    }

    // SAFETY: every call goes to the system's allocator as it is.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count(layout.size() as isize);
            // SAFETY: the caller's promise is passed on.
            unsafe { System.alloc(layout) }
        }
        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            count(-(layout.size() as isize));
            // SAFETY: the caller's promise is passed on.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    pub(crate) fn start() -> isize {
        let now = NOW.with(Cell::get);
        PEAK.with(|peak| peak.set(now));
        now
    }

    pub(crate) fn peak_since(start: isize) -> isize {
        PEAK.with(Cell::get) - start
    }
}

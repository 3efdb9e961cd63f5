//! What ONNX files say in passing and must not be passed over: number types, batches, training modes, softmaxes that normalise parts,
//! invalid attributes.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use cipherlens::nn::clear::Network;
use cipherlens::nn::model::{Model, ModelError, Operator};
use cipherlens::nn::onnx::schema::{AttributeProto, SparseTensorProto, ValueInfoProto};
use cipherlens::nn::onnx::{OnnxOptions, Results};
use cipherlens::nn::tensor::{Shape, Tensor};
use common::onnx::{Attribute, Data, File, node, tensor};

fn read(file: &File) -> Result<Model, ModelError> {
    Model::from_onnx(&file.bytes(), &OnnxOptions::default())
}

/// The result for an input of these values.
fn result(file: &File, values: Vec<f64>) -> Vec<f64> {
    let model = read(file).expect("it is read");
    let x = Tensor::new(model.input().shape, values).expect("as many values as it takes");
    Network::<f64>::new(&model).evaluate(&x).expect("the shape fits").values().to_vec()
}

/// Refused with all these words.
fn refused(file: &File, words: &[&str]) {
    let error = read(file).expect_err("it is refused").to_string();
    assert!(words.iter().all(|word| error.contains(word)), "{error}: {words:?}");
}

fn whole(file: File, name: &str, dims: &[i64], values: &[i64]) -> File {
    file.constant(name, dims, Data::Whole(values.to_vec()))
}

/// A constant of integers of a type, as ONNX counts them.
fn typed(mut file: File, name: &str, kind: i32, values: &[i32]) -> File {
    let mut constant = tensor(name, &[values.len() as i64], Data::Whole(Vec::new()));
    (constant.data_type, constant.int32_data) = (kind, values.to_vec());
    file.graph().initializer.push(constant);
    file
}

/// Pixels of an integer type.
fn pixels(kind: i32, to: &str) -> File {
    let mut file = File::new(&[1, 1, 1, 2], to);
    let tensor = file.graph().input[0].r#type.as_mut().and_then(|t| t.tensor_type.as_mut()).expect("it has a type");
    tensor.elem_type = kind;
    file
}

#[test]
fn integers_of_the_picture_are_exact_or_refused() {
    let less = |kind: i32, op: &str, by: i32| {
        let file = typed(pixels(kind, "y"), "c", kind, &[by]).node(node(op, &["x", "c"], "v"));
        file.node(node("Cast", &["v"], "f").int("to", 1)).node(node("Relu", &["f"], "y"))
    };
    assert_eq!(result(&less(6, "Sub", 128), vec![100.0, 200.0]), [0.0, 72.0]);
    assert_eq!(result(&less(2, "Div", 1), vec![100.0, 200.0]), [100.0, 200.0]);
    assert_eq!(result(&less(5, "Mul", 128), vec![100.0, 200.0]), [12800.0, 25600.0]);
    refused(&less(2, "Sub", 128), &["/v/Sub", "uint8", "-128 to 127", "wrap round", "cast them to float"]);
    refused(&less(2, "Add", 1), &["/v/Add", "1 to 256"]);
    refused(&less(5, "Mul", 129), &["/v/Mul", "int16", "0 to 32895"]);
    refused(&less(6, "Div", 64), &["/v/Div", "int32", "fractions", "cast them to float"]);
    // To a wider type first, and through what only moves.
    let wider = pixels(2, "y").node(node("Cast", &["x"], "w").int("to", 5)).node(node("Transpose", &["w"], "t"));
    let wider = typed(wider, "c", 5, &[128]).node(node("Sub", &["t", "c"], "v"));
    let wider = wider.node(node("Cast", &["v"], "f").int("to", 1)).node(node("Abs", &["f"], "y"));
    assert_eq!(result(&wider, vec![100.0, 200.0]), [28.0, 72.0]);
    let narrow = pixels(2, "y").node(node("Cast", &["x"], "w").int("to", 3)).node(node("Cast", &["w"], "y").int("to", 1));
    refused(&narrow, &["/w/Cast", "0 to 255", "int8"]);
    let mean =
        pixels(6, "y").node(node("ReduceMean", &["x"], "m").ints("axes", &[2, 3])).node(node("Cast", &["m"], "y").int("to", 1));
    refused(&mean, &["/m/ReduceMean", "int32", "cast them to float"]);
}

#[test]
fn a_softmax_is_left_out_where_it_keeps_the_order() {
    let ends = |op: &str, axis: i64, version: i64| {
        let mut file =
            File::new(&[1, 2, 4, 3], "y").node(node("Relu", &["x"], "r")).node(node(op, &["r"], "y").int("axis", axis));
        file.0.opset_import[0].version = version;
        file
    };
    for op in ["Softmax", "LogSoftmax"] {
        refused(&ends(op, 3, 17), &["/y/", op, "groups of 3 of the 24", "largest"]);
        refused(&ends(op, 0, 17), &["groups of 1 of the 24"]);
        refused(&ends(op, 2, 12), &["groups of 12 of the 24"]);
    }
    assert_eq!(result(&ends("Softmax", 1, 12), vec![1.0; 24]), [1.0; 24], "all behind the axis, before opset 13");
    let mut vector =
        File::new(&[1, 4, 1, 1], "y").node(node("Relu", &["x"], "r")).node(node("Softmax", &["r"], "s").int("axis", 1));
    vector = vector.node(node("Flatten", &["s"], "f")).node(node("Identity", &["f"], "y"));
    let model = read(&vector).expect("it is read");
    assert!(model.training().text("output").is_some_and(|note| note.contains("/s/Softmax") && note.contains("left out")));
    assert_eq!(result(&vector, vec![1.0, 4.0, 2.0, 3.0]), [1.0, 4.0, 2.0, 3.0]);
    // Something else reads it too.
    let mut twice = vector.clone();
    twice.graph().node.pop();
    refused(&twice.node(node("Add", &["f", "f"], "y")), &["Softmax", "divides by sums (of 4 here"]);
}

/// Of two, a softmax is a function of their difference, wherever it stands.
#[test]
fn a_softmax_of_two_is_computed() {
    let values: Vec<f64> = (0..24).map(|i| f64::from(i * i % 17) / 4.0 - 2.0).collect();
    // The extents as the softmax sees them, and the stride of the axis of two.
    for (dims, axis, version, stride) in [([1, 2, 4, 3], 1, 17, 12), ([1, 4, 3, 2], 3, 12, 1), ([1, 12, 2, 1], 2, 12, 1)] {
        for op in ["Softmax", "LogSoftmax"] {
            let mut file = File::new(&dims, "y").node(node(op, &["x"], "s").int("axis", axis));
            file = file.node(node("Mul", &["s", "x"], "y"));
            file.0.opset_import[0].version = version;
            let softmax = |i: usize| {
                let other = if (i / stride).is_multiple_of(2) { i + stride } else { i - stride };
                values[i].exp() / (values[i].exp() + values[other].exp())
            };
            let want = (0..24).map(|i| values[i] * if op == "Softmax" { softmax(i) } else { softmax(i).ln() });
            let error = result(&file, values.clone()).iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(error < 1e-12, "{op} along {axis} of {dims:?}: {error}");
        }
    }
}

/// Two branches weighed by what both say together, as in a selective-kernel network: stacked along a new axis, a softmax along it, and
/// their weighted sum.
#[test]
fn branches_are_weighed_by_a_softmax() {
    let real = |values: &[f32]| Data::Real(values.to_vec());
    let file = whole(File::new(&[1, 2, 2, 2], "y"), "one", &[1], &[1]);
    let file = whole(file, "apart", &[5], &[1, 2, 2, 1, 1])
        .constant("more", &[], real(&[0.5]))
        .constant("weights", &[4, 2, 1, 1], real(&[1.0, -1.0, 0.5, 0.25, -0.5, 2.0, 1.5, 0.0]))
        .node(node("Relu", &["x"], "a"))
        .node(node("Add", &["x", "more"], "b"))
        .node(node("Unsqueeze", &["a", "one"], "a5"))
        .node(node("Unsqueeze", &["b", "one"], "b5"))
        .node(node("Concat", &["a5", "b5"], "both").int("axis", 1))
        .node(node("ReduceSum", &["both", "one"], "sum").int("keepdims", 0))
        .node(node("ReduceMean", &["sum"], "mean").ints("axes", &[2, 3]))
        .node(node("Conv", &["mean", "weights"], "fc"))
        .node(node("Reshape", &["fc", "apart"], "split"))
        .node(node("Softmax", &["split"], "attention").int("axis", 1))
        .node(node("Mul", &["both", "attention"], "weighed"))
        .node(node("ReduceSum", &["weighed", "one"], "y").int("keepdims", 0));
    let x = [1.0, -2.0, 0.5, 3.0, -1.0, 0.25, -0.75, 2.0];
    let (a, b) = (x.map(|v: f64| v.max(0.0)), x.map(|v| v + 0.5));
    let mean = |c: usize| (4 * c..4 * c + 4).map(|i| a[i] + b[i]).sum::<f64>() / 4.0;
    let (m, n) = (mean(0), mean(1));
    let fc = [m - n, 0.5 * m + 0.25 * n, -0.5 * m + 2.0 * n, 1.5 * m];
    let first = |c: usize| fc[c].exp() / (fc[c].exp() + fc[2 + c].exp());
    let want = (0..8).map(|i| first(i / 4) * a[i] + (1.0 - first(i / 4)) * b[i]);
    let error = result(&file, x.to_vec()).iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(error < 1e-12, "{error}");
}

#[test]
fn what_depends_on_the_batch_is_refused() {
    let batch = |n: i64| File::new(&[n, 2, 2, 2], "y").node(node("Relu", &["x"], "r"));
    let number = |n: i64, op: &str, last: &str| {
        let mut file = whole(batch(n), "zero", &[], &[0]).node(node(op, &["x"], "shape"));
        if op == "Shape" {
            file = file.node(node("Gather", &["shape", "zero"], "count"));
        }
        let from = if op == "Shape" { "count" } else { "shape" };
        file.node(node("Cast", &[from], "f").int("to", 1)).node(node(last, &["r", "f"], "y"))
    };
    refused(&number(4, "Shape", "Div"), &["/y/Div", "batches of 4", "how many pictures", "batch of 1"]);
    refused(&number(4, "Size", "Mul"), &["/y/Mul", "how many pictures"]);
    assert_eq!(result(&number(1, "Size", "Mul"), vec![1.0; 8]), [8.0; 8]);
    // Other extents are the same for every batch, and shapes may be written for all of it.
    let channels =
        whole(batch(4), "one", &[], &[1]).node(node("Shape", &["x"], "shape")).node(node("Gather", &["shape", "one"], "c"));
    let channels = channels.node(node("Cast", &["c"], "f").int("to", 1)).node(node("Div", &["r", "f"], "y"));
    assert_eq!(result(&channels, vec![1.0; 8]), [0.5; 8]);
    let same = batch(4).node(node("Shape", &["x"], "shape")).node(node("Reshape", &["r", "shape"], "y"));
    assert_eq!(result(&same, vec![1.0; 8]), [1.0; 8]);
    let squeezed = whole(File::new(&[4, 2, 1, 3], "y"), "a", &[1], &[2]).node(node("Squeeze", &["x"], "s"));
    let squeezed = squeezed.node(node("Unsqueeze", &["s", "a"], "u")).node(node("GlobalAveragePool", &["u"], "y"));
    assert_eq!(result(&squeezed, (0..6).map(f64::from).collect()), [1.0, 4.0], "the axis of the batch stays");
    for (mixes, name) in [
        (batch(4).node(node("ReduceMean", &["r"], "y").ints("axes", &[0, 2, 3])), "ReduceMean"),
        (batch(4).node(node("ReduceMean", &["r"], "y")), "ReduceMean"),
        (batch(4).node(node("Transpose", &["r"], "y").ints("perm", &[1, 0, 2, 3])), "Transpose"),
        (batch(4).node(node("Flatten", &["r"], "y").int("axis", 0)), "Flatten"),
        (batch(4).node(node("Concat", &["r", "r"], "y").int("axis", 0)), "Concat"),
        (whole(batch(4), "i", &[1], &[1]).node(node("Gather", &["r", "i"], "y").int("axis", 0)), "Gather"),
        (whole(batch(4), "s", &[2], &[1, -1]).node(node("Reshape", &["r", "s"], "y")), "Reshape"),
        (whole(batch(4), "a", &[1], &[0]).node(node("Unsqueeze", &["r", "a"], "y")), "Unsqueeze"),
    ] {
        refused(&mixes, &[name, "batches of 4", "mix", "batch of 1"]);
    }
}

/// A convolution of one weight, computed from constants.
fn computed(file: File, nodes: Vec<cipherlens::nn::onnx::schema::NodeProto>) -> Vec<f64> {
    let file = nodes.into_iter().fold(file, File::node);
    let file = whole(file, "dims", &[4], &[-1, 1, 1, 1]).node(node("Cast", &["v"], "f").int("to", 1));
    let file = file.node(node("Reshape", &["f", "dims"], "w")).node(node("Conv", &["x", "w"], "y"));
    let model = read(&file).expect("it is read");
    let weights =
        model.nodes().iter().find_map(|n| if let Operator::Conv2d(c) = &n.operator { Some(c.weight.clone()) } else { None });
    weights.expect("it has a convolution")
}

#[test]
fn constants_obey_their_number_types() {
    let file = || File::new(&[1, 1, 1, 1], "y");
    let two = |kind: i32, a: &[i32], b: &[i32]| typed(typed(file(), "a", kind, a), "b", kind, b);
    let op = |op: &str| vec![node(op, &["a", "b"], "v")];
    assert_eq!(computed(two(2, &[200, 3], &[100]), op("Add")), [44.0, 103.0]);
    assert_eq!(computed(two(2, &[5, 130], &[128]), op("Sub")), [133.0, 2.0]);
    assert_eq!(computed(two(6, &[100_000, 3], &[50_000]), op("Mul")), [705_032_704.0, 150_000.0]);
    assert_eq!(computed(two(3, &[-128, 5], &[0]), vec![node("Neg", &["a"], "v")]), [-128.0, -5.0]);
    let sum = vec![node("ReduceSum", &["a"], "v").int("keepdims", 1)];
    assert_eq!(computed(two(6, &[i32::MAX, 1], &[0]), sum), [-2_147_483_648.0]);
    // f16 has 11 bits and bf16 8; halves go to the even neighbour.
    let narrow = |kind: i64, values: &[f32]| {
        let file = file().constant("a", &[values.len() as i64], Data::Real(values.to_vec()));
        computed(file, vec![node("Cast", &["a"], "v").int("to", kind)])
    };
    assert_eq!(
        narrow(10, &[1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 65519.0, -0.1]),
        [1.0, 1.0 + 4.0 / 2048.0, 65504.0, -0.0999755859375]
    );
    assert_eq!(narrow(10, &[1e-7, 2e-8]), [2f64.powi(-23), 0.0], "numbers below 2^-14 are 2^-24 apart");
    assert_eq!(narrow(16, &[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -0.1]), [1.0, 1.0 + 4.0 / 256.0, -0.10009765625]);
}

#[test]
fn dropout_in_training_is_refused() {
    let dropout = |on: i64, part: f32| {
        let file = File::new(&[1, 1, 1, 2], "y").constant("part", &[], Data::Real(vec![part]));
        whole(file, "on", &[], &[on]).node(node("Dropout", &["x", "part", "on"], "d")).node(node("Relu", &["d"], "y"))
    };
    refused(&dropout(1, 0.5), &["/d/Dropout", "training mode", "model.eval()"]);
    assert_eq!(result(&dropout(0, 0.5), vec![1.0, 2.0]), [1.0, 2.0]);
    assert_eq!(result(&dropout(1, 0.0), vec![1.0, 2.0]), [1.0, 2.0]);
}

#[test]
fn invalid_files_are_not_read_as_something_else() {
    let conv = || File::new(&[1, 1, 4, 4], "y").constant("w", &[1, 1, 3, 3], Data::Real(vec![1.0; 9]));
    refused(&conv().constant("w", &[1], Data::Real(vec![2.0])).node(node("Conv", &["x", "w"], "y")), &["\"w\"", "twice"]);
    refused(&conv().node(node("Conv", &["x", "w"], "y").ints("kernel_shape", &[5, 5])), &["kernel_shape", "[5, 5]", "[3, 3]"]);
    let wrong = AttributeProto { name: "strides".into(), f: 2.0, kind: 1, ..AttributeProto::default() };
    refused(&conv().node(node("Conv", &["x", "w"], "y").with(wrong)), &["\"strides\"", "list of integers"]);
    let twice = node("Conv", &["x", "w"], "y").ints("strides", &[1, 1]).ints("strides", &[2, 2]);
    refused(&conv().node(twice), &["\"strides\"", "twice"]);
    let turned = conv().node(node("Conv", &["x", "w"], "c")).node(node("Transpose", &["c"], "y").ints("perm", &[0, 1, 2, 2]));
    refused(&turned, &["no order of 4 axes"]);
    let mut new = conv().node(node("Conv", &["x", "w"], "y"));
    new.0.opset_import[0].version = 999;
    refused(&new, &["opset 999", "opset_version"]);
    let mut sparse = File::new(&[1, 1, 4, 4], "y").node(node("Conv", &["x", "w"], "y"));
    let values = Some(tensor("w", &[1], Data::Real(vec![1.0])));
    sparse.graph().sparse_initializer.push(SparseTensorProto { values });
    refused(&sparse, &["\"w\"", "sparse", "dense"]);
}

#[test]
fn channels_that_come_last_have_a_constant_each() {
    let per_channel = |file: File, name: &str| file.constant(name, &[3], Data::Real(vec![1.0, 2.0, 4.0]));
    let file = per_channel(File::new(&[1, 2, 2, 3], "y"), "mean").node(node("Sub", &["x", "mean"], "s"));
    let file = file.node(node("Transpose", &["s"], "t").ints("perm", &[0, 3, 1, 2])).node(node("Relu", &["t"], "r"));
    let file = file.node(node("Transpose", &["r"], "b").ints("perm", &[0, 2, 3, 1])).node(node("Mul", &["b", "mean"], "y"));
    assert_eq!(read(&file).expect("it is read").input().shape, Shape::new(3, 2, 2));
    // Channels first: 8 in every pixel of the first channel, and so on.
    let x = [8.0, 4.0, 5.0].into_iter().flat_map(|v| [v; 4]).collect();
    assert_eq!(result(&file, x), [7.0, 4.0, 4.0].repeat(4));
    // A single channel needs no transposing.
    let grey = whole(File::new(&[1, 4, 5, 1], "y"), "s", &[4], &[-1, 1, 4, 5]).node(node("Reshape", &["x", "s"], "r"));
    let model = read(&grey.node(node("Relu", &["r"], "y"))).expect("it is read");
    assert_eq!(model.input().shape, Shape::new(1, 4, 5));
}

#[test]
fn a_slope_for_each_channel_is_of_the_channels_that_there_are() {
    // Channels of a reshaped tensor are not those of the value beneath.
    let slopes = Data::Real((0..8).map(|i| i as f32 / 8.0).collect());
    let file = whole(File::new(&[1, 8, 2, 2], "y"), "s", &[2], &[4, 8]).constant("a", &[8], slopes);
    let file = whole(file, "t", &[2], &[1, 32]).node(node("Reshape", &["x", "s"], "r")).node(node("PRelu", &["r", "a"], "p"));
    refused(&file.node(node("Reshape", &["p", "t"], "y")), &["/p/PRelu"]);
    let slopes = Data::Real((0..8).map(|i| i as f32 / 8.0).collect());
    let file = File::new(&[1, 8, 2, 2], "y").constant("a", &[8, 1, 1], slopes).node(node("PRelu", &["x", "a"], "y"));
    assert_eq!(result(&file, vec![-8.0; 32]), (0..8).flat_map(|i| [-f64::from(i); 4]).collect::<Vec<_>>());
}

#[test]
fn a_softmax_of_weights_is_that_of_its_opset() {
    let weights = || Data::Real((0..12).map(|i| i as f32 / 4.0).collect());
    let file = |opset: i64, axis: Option<i64>| {
        let mut softmax = node("Softmax", &["w"], "s");
        if let Some(axis) = axis {
            softmax = softmax.int("axis", axis);
        }
        let mut file = File::new(&[1, 2, 1, 1], "y").constant("w", &[3, 2, 2, 1], weights()).node(softmax);
        file.0.opset_import[0].version = opset;
        file.node(node("Conv", &["x", "s"], "y").ints("pads", &[0, 0, 1, 0]))
    };
    // Before 13, of the axis and all behind it: e^0 / (e^0 + e^(1/4) + e^(1/2) + e^(3/4)) is no group of one.
    refused(&file(12, None), &["Softmax"]);
    refused(&file(12, Some(1)), &["Softmax"]);
    assert_eq!(result(&file(12, Some(3)), vec![1.0, 1.0]), [2.0; 3]);
    assert_eq!(result(&file(13, None), vec![1.0, 1.0]), [2.0; 3]);
}

#[test]
fn a_normalisation_that_gives_its_statistics_is_in_training() {
    let file = |outputs: &[&str], opset: i64| {
        let mut file = File::new(&[1, 1, 2, 2], "y");
        for (name, value) in [("scale", 1.0), ("bias", 0.0), ("mean", 0.5), ("var", 4.0)] {
            file = file.constant(name, &[1], Data::Real(vec![value]));
        }
        file.0.opset_import[0].version = opset;
        let mut normalise = node("BatchNormalization", &["x", "scale", "bias", "mean", "var"], "y").float("epsilon", 0.0);
        normalise.output.extend(outputs.iter().map(|name| (*name).to_owned()));
        file.node(normalise)
    };
    refused(&file(&["m", "v", "sm", "sv"], 11), &["training"]);
    refused(&file(&["m", "v"], 14), &["training"]);
    assert_eq!(result(&file(&["", ""], 11), vec![0.5, 2.5, 4.5, -1.5]), [0.0, 1.0, 2.0, -1.0]);
}

#[test]
fn a_pixel_that_runtimes_disagree_on_is_refused() {
    let file = |scale: f32, mode: &'static str| {
        let file = File::new(&[1, 1, 1, 7], "y").constant("scales", &[4], Data::Real(vec![1.0, 1.0, 1.0, scale]));
        let resize = node("Resize", &["x", "", "scales"], "y").text("coordinate_transformation_mode", "half_pixel_symmetric");
        file.node(resize.text("nearest_mode", mode).text("mode", "nearest"))
    };
    refused(&file(2.6, "round_prefer_ceil"), &["half_pixel_symmetric"]);
    refused(&file(3.3, "ceil"), &["half_pixel_symmetric"]);
    assert!(read(&file(2.0, "round_prefer_floor")).is_ok() && read(&file(3.0, "ceil")).is_ok());
}

#[test]
fn names_cannot_speak_to_the_terminal() {
    let mut file = File::new(&[1, 1, 2, 2], "y").node(node("Relu", &["x"], "y"));
    file.graph().node[0].name = "a\u{1b}[31m\nb".into();
    file.graph().name = "\u{1b}]0;title\u{7}".into();
    let model = read(&file).expect("it is read");
    assert_eq!((model.nodes()[0].name.as_str(), model.name()), ("a\\u{1b}[31m\\u{a}b", "\\u{1b}]0;title\\u{7}"));
    let described = model.described(&[], &[], &["\u{1b}c", "b", "c", "d"].map(String::from)).expect("four classes");
    assert_eq!(described.classes()[0], "\\u{1b}c");
    file.graph().node[0].op_type = "Odd\u{1b}".into();
    let error = read(&file).expect_err("it is not known").to_string();
    assert!(!error.contains('\u{1b}') && error.contains("Odd\\u{1b}"), "{error}");
}

#[test]
fn a_normalisation_that_is_no_number_is_refused() {
    let model = read(&File::new(&[1, 1, 2, 2], "y").node(node("Relu", &["x"], "y"))).expect("it is read");
    for (mean, std) in [(f64::NAN, 1.0), (f64::INFINITY, 1.0), (0.0, f64::NAN), (0.0, 0.0), (0.0, -1.0), (0.0, 1e-320)] {
        let refused = model.described(&[mean], &[std], &[]).map(|_| ());
        assert!(refused.is_err(), "mean {mean}, deviation {std}");
    }
    assert!(model.described(&[0.5], &[0.25], &[]).is_ok());
}

#[test]
fn a_model_is_known_by_what_it_computes() {
    let file = File::new(&[1, 1, 2, 2], "y").node(node("Relu", &["x"], "y"));
    let called = |name: &str| {
        Model::from_onnx(&file.bytes(), &OnnxOptions { name: name.into(), ..OnnxOptions::default() }).expect("it is read")
    };
    assert_eq!(called("one").digest(), called("other").digest());
    assert_ne!(called("one").to_bytes(), called("other").to_bytes());
}

/// Of a file of several results, those that are asked for; without a word, none is taken for the one that is meant.
#[test]
fn results_are_chosen_by_name() {
    let mut file = File::new(&[1, 1, 2, 2], "sum")
        .node(node("Relu", &["x"], "map"))
        .node(node("ReduceSum", &["map"], "sum").int("keepdims", 0))
        .node(node("Selu", &["map"], "unused"))
        .node(node("Unknown", &["x"], "odd"));
    let also = ["map", "unused", "odd"].map(|name| ValueInfoProto { name: name.into(), ..ValueInfoProto::default() });
    file.0.graph.as_mut().expect("it has one").output.extend(also);
    let with = |results: Results| {
        let options = OnnxOptions { results, ..OnnxOptions::default() };
        Model::from_onnx(&file.bytes(), &options)
    };
    let named = |names: &str| with(names.parse().expect("any text is"));
    let values = |model: &Model| {
        let x = Tensor::new(model.input().shape, vec![1.0, -2.0, 3.0, 0.5]).expect("as many values as it takes");
        Network::<f64>::new(model).evaluate(&x).expect("the shape fits").values().to_vec()
    };
    assert_eq!(values(&named("map").expect("it is read")), [1.0, 0.0, 3.0, 0.5]);
    let both = named("sum,map").expect("it is read");
    assert_eq!(values(&both), [4.5, 1.0, 0.0, 3.0, 0.5]);
    assert!(both.training().text("output").is_some_and(|note| note.contains("sum (1), map (4), one after the other")));
    assert_eq!(both.nodes().iter().filter(|n| matches!(n.operator, Operator::Activation(_))).count(), 1, "only what is needed");
    let told = |made: Result<Model, ModelError>, words: &[&str]| {
        let error = made.expect_err("it is refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}: {words:?}");
    };
    told(with(Results::Only), &["4 results", "sum, map, unused, odd"]);
    told(named("sum,top"), &["no result \"top\"", "sum, map, unused, odd"]);
    told(named("sum,sum"), &["asked for twice"]);
    told(with(Results::All), &["Unknown"]);

    // A softmax that is one result and read on the way to another is not left out of that one.
    let mut gate = File::new(&[1, 2, 1, 1], "gate").node(node("Softmax", &["x"], "gate").int("axis", 1));
    gate = gate.node(node("Mul", &["x", "gate"], "gated"));
    gate.0.graph.as_mut().expect("it has one").output.push(ValueInfoProto { name: "gated".into(), ..ValueInfoProto::default() });
    let options = OnnxOptions { results: Results::All, ..OnnxOptions::default() };
    let model = Model::from_onnx(&gate.bytes(), &options).expect("it is read");
    let x = Tensor::new(model.input().shape, vec![1.0, -0.5]).expect("as many values as it takes");
    let made = Network::<f64>::new(&model).evaluate(&x).expect("the shape fits");
    let first = 1.0 / (1.0 + (-1.5f64).exp());
    let want = [first, 1.0 - first, first, -0.5 * (1.0 - first)];
    let error = made.values().iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(error < 1e-12, "{:?}", made.values());
}

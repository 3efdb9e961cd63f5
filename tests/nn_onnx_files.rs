//! ONNX files as the world writes them: weights in other files or computed in the file, large ones, open and odd inputs, files
//! that are something else; and what is said of those that cannot be used.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use cipherlens::nn::clear::Network;
use cipherlens::nn::model::{Model, ModelError, Operator};
use cipherlens::nn::onnx::schema::{DimensionProto, StringStringEntryProto, TensorProto};
use cipherlens::nn::onnx::{InputSize, OnnxError, OnnxOptions};
use cipherlens::nn::tensor::{Shape, Tensor};
use common::onnx::{Attribute, Data, File, node, value};
use std::path::Path;

/// One convolution of one weight per output, in the file or elsewhere.
fn convolution(outputs: i64) -> File {
    File::new(&[1, 1, 2, 2], "y")
        .constant("conv.weight", &[outputs, 1, 1, 1], Data::Real((0..outputs).map(|v| v as f32 + 0.5).collect()))
        .node(node("Conv", &["x", "conv.weight"], "y"))
}

/// The weights of the first convolution.
fn weights(model: &Model) -> Vec<f64> {
    let weights = model.nodes().iter().find_map(|n| match &n.operator {
        Operator::Conv2d(c) => Some(c.weight.clone()),
        _ => None,
    });
    weights.expect("it has a convolution")
}

fn entry(key: &str, value: impl ToString) -> StringStringEntryProto {
    StringStringEntryProto { key: key.into(), value: value.to_string() }
}

/// The file with its weights said to be elsewhere, and these weights.
fn external(location: &str, offset: Option<u64>, length: Option<u64>) -> (File, Vec<u8>) {
    let mut file = convolution(4);
    let tensor = &mut file.graph().initializer[0];
    let bytes = tensor.raw_data.take().expect("it has weights").to_vec();
    tensor.data_location = 1;
    tensor.external_data = vec![entry("location", location)];
    tensor.external_data.extend(offset.map(|o| entry("offset", o)));
    tensor.external_data.extend(length.map(|l| entry("length", l)));
    (file, bytes)
}

fn written(folder: &Path, name: &str, file: &File) -> Result<Model, ModelError> {
    let path = folder.join(name);
    std::fs::write(&path, file.bytes()).expect("writable");
    Model::from_file(&path)
}

#[test]
fn weights_are_read_from_the_file_beside_the_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    std::fs::create_dir(place("sub")).expect("writable");
    let (_, bytes) = external("", None, None);
    // Other tensors come before and after.
    let content = [&[7; 12][..], &bytes, &[9; 3]].concat();
    std::fs::write(place("m.onnx.data"), &content).expect("writable");
    std::fs::write(place("sub/w"), &bytes).expect("writable");
    for (location, offset, length) in [
        ("m.onnx.data", Some(12), Some(16)),
        ("m.onnx.data", Some(12), None),
        ("./sub/w", None, None),
        ("sub/w", Some(0), Some(16)),
    ] {
        let model = written(folder.path(), "m.onnx", &external(location, offset, length).0).expect("the file is read");
        assert_eq!(weights(&model), [0.5, 1.5, 2.5, 3.5], "{location}");
    }
}

#[test]
fn other_files_than_those_beside_the_model_are_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("model");
    std::fs::create_dir(&model).expect("writable");
    let (_, bytes) = external("", None, None);
    let secret = folder.path().join("secret");
    std::fs::write(&secret, &bytes).expect("writable");
    std::fs::write(model.join("short"), &bytes[1..]).expect("writable");
    std::fs::create_dir(model.join("folder")).expect("writable");
    let refused = |location: &str, offset, length| {
        let error = written(&model, "m.onnx", &external(location, offset, length).0).expect_err("refused");
        assert!(matches!(error, ModelError::Onnx(OnnxError::ExternalData { .. })), "{error}");
        let text = error.to_string();
        assert!(text.contains("conv.weight"), "{text}");
        text
    };
    for location in ["../secret", "sub/../../secret", &secret.display().to_string(), "", "a\0b"] {
        assert!(refused(location, None, None).contains("only files in the model's own folder"), "{location}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&secret, model.join("link")).expect("a link");
        assert!(refused("link", None, None).contains("a link that leads out"));
    }
    let missing = refused("m.onnx.data", None, None);
    assert!(missing.contains("m.onnx.data") && missing.contains("external_data=False"), "{missing}");
    assert!(refused("folder", None, None).contains("no file"));
    assert!(refused("short", None, None).contains("the file has 15"));
    assert!(refused("short", Some(u64::MAX), None).contains("the file has 15"));
    assert!(refused("short", None, Some(12)).contains("its shape takes 16"));
    // Given as bytes, a model has no folder.
    let error = Model::from_onnx(&external("short", None, None).0.bytes(), &OnnxOptions::default()).expect_err("refused");
    assert!(error.to_string().contains("external_data=False"), "{error}");
}

/// Weights made by other operators, as onnxruntime makes them: `tests/onnx_constants.py` writes both files.
#[test]
fn computed_weights_are_those_of_onnxruntime() {
    let model = Model::from_onnx(include_bytes!("fixtures/constants.onnx"), &plain(1)).expect("the file is read");
    let want = include_bytes!("fixtures/constants.f32").as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b)));
    let want: Vec<f64> = want.collect();
    let made: Vec<(&str, Vec<f64>)> = model
        .nodes()
        .iter()
        .filter_map(|n| match &n.operator {
            Operator::Conv2d(c) => Some((n.name.as_str(), c.weight.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(made.iter().map(|(_, w)| w.len()).sum::<usize>(), want.len());
    let mut want = want.into_iter();
    for (name, got) in made {
        for got in got {
            let want = want.next().expect("as many");
            assert!((got - want).abs() <= 1e-6 * (1.0 + want.abs()), "{name}: {got}, expected {want}");
        }
    }
}

fn plain(channels: usize) -> OnnxOptions {
    OnnxOptions { mean: vec![0.0; channels], std: vec![1.0; channels], ..OnnxOptions::default() }
}

/// A file of weights past what was once the limit, with numbers written one by one: a linear layer by a matrix that is turned.
#[test]
fn large_files_are_read() {
    let (inputs, outputs) = (1 << 12, (1 << 10) + 1);
    let mut matrix = TensorProto { name: "w".into(), dims: vec![inputs, outputs], data_type: 1, ..TensorProto::default() };
    matrix.float_data = (0..inputs * outputs).map(|i| (i % 1009) as f32 * 1e-3).collect();
    let mut file = File::new(&[1, inputs, 1, 1], "y").node(node("Flatten", &["x"], "f")).node(node("MatMul", &["f", "w"], "y"));
    file.graph().initializer.push(matrix);
    let bytes = file.bytes();
    assert!(bytes.len() > 16 << 20);
    let model = Model::from_onnx(&bytes, &plain(inputs as usize)).expect("the file is read");
    assert_eq!(model.weights() as i64, inputs * outputs + outputs);
    let Some(Operator::Linear { weight, .. }) = model.nodes().last().map(|n| &n.operator) else { panic!("no linear layer") };
    let at = |o: i64, i: i64| weight[(o * inputs + i) as usize];
    for (o, i) in [(0, 0), (outputs - 1, inputs - 1), (3, 1000)] {
        assert_eq!(at(o, i), f64::from(((i * outputs + o) % 1009) as f32 * 1e-3));
    }
}

/// A small file does not become a large model by naming one tensor many times; what is said counts weights.
#[test]
fn one_tensor_taken_many_times_is_bounded() {
    let size = 1 << 10;
    let mut file =
        File::new(&[1, size, 1, 1], "v40").constant("w", &[size, size], Data::Real(vec![0.25; (size * size) as usize]));
    file = file.node(node("Flatten", &["x"], "v0"));
    for i in 0..40 {
        file = file.node(node("Gemm", &[&format!("v{i}"), "w"], &format!("v{}", i + 1)).int("transB", 1));
    }
    let text = Model::from_onnx(&file.bytes(), &plain(size as usize)).expect_err("refused").to_string();
    let limit = (1 << 24) + 8 * (1 << 20);
    assert!(text.contains("the number of weights is") && text.contains(&limit.to_string()), "{text}");
}

/// Axes without elements let the others be as long as they like; no operator may count them all.
#[test]
fn empty_tensors_with_long_axes_are_refused() {
    let long = 1 << 24;
    for op in ["Transpose", "Identity", "ReduceSum", "Neg"] {
        for dims in [&[0, 1 << 40, 1 << 40][..], &[long, 0, long], &[long, long, 0]] {
            let file = File::new(&[1, 1, 4, 4], "y")
                .constant("none", dims, Data::Real(Vec::new()))
                .constant("times", &[3], Data::Whole(vec![1 << 8, 1 << 8, 1 << 8]))
                .node(node("Tile", &["none", "times"], "more"))
                .node(node(op, &["more"], "a"))
                .node(node("Concat", &["a", "a"], "b").int("axis", 1))
                .node(node("Add", &["x", "b"], "y"));
            assert!(Model::from_onnx(&file.bytes(), &plain(1)).is_err(), "{op} {dims:?}");
        }
    }
}

#[test]
fn tensors_are_called_as_in_the_file() {
    let refused = |file: &File| Model::from_onnx(&file.bytes(), &plain(1)).expect_err("refused").to_string();
    let file = File::new(&[1, 1, 4, 4], "y").constant("features.0.weight", &[4, 5, 3, 3], Data::Real(vec![1.0; 180]));
    let text = refused(&file.node(node("Conv", &["x", "features.0.weight"], "y")));
    assert!(text.contains("\"features.0.weight\"") && !text.contains("0x"), "{text}");
    // A computed one by the value that the file names.
    let file = File::new(&[1, 1, 4, 4], "y")
        .constant("w", &[2, 1, 1, 1], Data::Real(vec![0.0, 1.0]))
        .node(node("Reciprocal", &["w"], "fc.scaled"))
        .node(node("Conv", &["x", "fc.scaled"], "y"));
    let text = refused(&file);
    assert!(text.contains("\"fc.scaled\" holds inf at index 0"), "{text}");
    // One that the file has no name for by the node that it is made for.
    let file = File::new(&[1, 1, 4, 4], "y")
        .constant("w", &[16, 2], Data::Real(vec![f32::NAN; 32]))
        .node(node("Flatten", &["x"], "f"))
        .node(node("MatMul", &["f", "w"], "y"));
    let text = refused(&file);
    assert!(text.contains("\"/y/MatMul (computed)\" holds NaN"), "{text}");
}

/// Everything that cannot run is named in one go, whatever of it comes first.
#[test]
fn what_is_behind_an_unsupported_operator_is_looked_at() {
    let mut file = File::new(&[1, 4, 16, 16], "y")
        .constant("w", &[8, 4, 3, 3], Data::Real(vec![0.1; 288]))
        .constant("square", &[8, 8, 1, 1], Data::Real(vec![0.1; 64]))
        .constant("axes", &[2], Data::Whole(vec![2, 3]))
        .constant("groups", &[5], Data::Whole(vec![1, 2, 4, 7, 7]))
        .constant("flat", &[2], Data::Whole(vec![1, -1]))
        .constant("linear", &[3, 392], Data::Real(vec![0.1; 1176]))
        .node(node("Conv", &["x", "w"], "a"))
        .node(node("LpPool", &["a"], "b").ints("kernel_shape", &[2, 2]).ints("strides", &[2, 2]));
    // Two gates, which are read, and a function that is not known behind each other.
    for (before, gate) in [("b", "c"), ("c", "d")] {
        let names = ["mean", "conv", "open"].map(|part| format!("{gate}.{part}"));
        file = file
            .node(node("ReduceMean", &[before, "axes"], &names[0]))
            .node(node("Conv", &[&names[0], "square"], &names[1]))
            .node(node("Sigmoid", &[&names[1]], &names[2]))
            .node(node("Mul", &[before, &names[2]], gate));
    }
    let file = file
        .node(node("LayerNormalization", &["d"], "e").int("axis", 1))
        .node(node("LpPool", &["e"], "f").ints("kernel_shape", &[3, 3]).ints("pads", &[1, 1, 1, 1]))
        .node(node("Fourier", &["f"], "lost"))
        .node(node("Add", &["f", "lost"], "g"))
        .node(node("InstanceNormalization", &["f"], "h"))
        .node(node("Concat", &["g", "h"], "i").int("axis", 1))
        .node(node("LSTM", &["i"], "j"))
        .node(node("Reshape", &["h", "flat"], "k"))
        .node(node("Gemm", &["k", "linear"], "l").int("transB", 1))
        .node(node("ArgMax", &["l"], "m").int("axis", 1))
        .node(node("Einsum", &["m", "j"], "y").text("equation", "ab,cd->ad"));
    let error = Model::from_onnx(&file.bytes(), &plain(4)).expect_err("not supported");
    let ModelError::UnsupportedOperators(list) = &error else { panic!("{error}") };
    let named: Vec<&str> = list.iter().map(|o| o.node.as_str()).collect();
    let want = [
        "/b/LpPool",
        "/e/LayerNormalization",
        "/f/LpPool",
        "/h/InstanceNormalization",
        "/m/ArgMax",
        "/lost/Fourier",
        "/j/LSTM",
        "/y/Einsum",
    ];
    assert!(want.iter().all(|w| named.contains(w)), "{named:?}");
    assert_eq!(named.len(), want.len(), "{named:?}");
    assert!(error.to_string().contains("/f/LpPool (LpPool): as /b/LpPool"), "{error}");
}

/// What an operator that is not supported leaves behind is a value of its own, and not one of those that are moved.
#[test]
fn what_is_behind_a_refused_operator_is_told_apart_from_views() {
    let ints = |name: &str, values: &[i64], file: File| file.constant(name, &[values.len() as i64], Data::Whole(values.to_vec()));
    let mut file = File::new(&[1, 2, 4, 3], "y");
    for (name, values) in [("0", &[0][..]), ("1", &[1]), ("2", &[2]), ("4", &[4]), ("flat", &[1, -1])] {
        file = ints(name, values, file);
    }
    let file = file
        .constant("rows", &[4, 1], Data::Real(vec![0.5, 1.0, 1.5, 2.0]))
        .constant("w", &[24, 2], Data::Real(vec![0.1; 48]))
        .node(node("Slice", &["x", "1", "4", "2"], "a"))
        .node(node("Slice", &["x", "0", "1", "2"], "b"))
        .node(node("Concat", &["a", "b"], "c").int("axis", 2))
        .node(node("Squeeze", &["c", "0"], "d"))
        .node(node("Mul", &["d", "rows"], "e"))
        .node(node("Reshape", &["e", "flat"], "f"))
        .node(node("MatMul", &["f", "w"], "y"));
    let error = Model::from_onnx(&file.bytes(), &plain(2)).expect_err("not supported");
    let ModelError::UnsupportedOperators(list) = &error else { panic!("{error}") };
    assert_eq!(list.iter().map(|o| o.node.as_str()).collect::<Vec<_>>(), ["/e/Mul"]);
}

/// The shape of the input as text that is read by people and the advice on it; with a size given, the shape of the picture.
#[test]
fn open_and_odd_inputs_are_told_apart() {
    let bytes = |dims: Option<&[Result<i64, &str>]>| {
        let mut file =
            File::new(&[], "y").constant("w", &[2, 3, 1, 1], Data::Real(vec![1.0; 6])).node(node("Conv", &["x", "w"], "y"));
        let info = &mut file.graph().input[0];
        let tensor = info.r#type.as_mut().and_then(|t| t.tensor_type.as_mut()).expect("it has a type");
        let dim = |d: &Result<i64, &str>| DimensionProto { dim_value: d.ok(), dim_param: d.err().map(str::to_owned) };
        match (dims, &mut tensor.shape) {
            (Some(dims), Some(shape)) => shape.dim = dims.iter().map(dim).collect(),
            (_, shape) => *shape = None,
        }
        file.bytes()
    };
    let read = |dims: Option<&[Result<i64, &str>]>, size: Option<&str>| {
        let input_size = size.map(|s| s.parse::<InputSize>().expect("a size"));
        Model::from_onnx(&bytes(dims), &OnnxOptions { input_size, ..plain(3) })
    };
    for (dims, part) in [
        (&[Ok(1), Ok(12)][..], "list of numbers"),
        (&[Ok(3), Ok(32), Ok(32)], "the batch is missing"),
        (&[Ok(1), Ok(3), Ok(8), Ok(32), Ok(32)], "videos and volumes"),
        (&[Err("n"), Ok(3), Err("h"), Err("w")], "shape [n, 3, h, w]: height, width are open"),
        (&[Ok(1), Ok(3), Ok(32), Err("w")], "width is open"),
        (&[Ok(1), Ok(3), Ok(-5), Ok(32)], "height -5"),
        (&[Ok(1), Ok(3), Ok(60000), Ok(60000)], "the limit is"),
    ] {
        let text = read(Some(dims), None).expect_err("refused").to_string();
        assert!(text.contains(part), "{text}");
    }
    let text = read(None, None).expect_err("refused").to_string();
    assert!(text.contains("no shape") && text.contains("--input-size 224x224"), "{text}");
    // The channels are those that the first convolution reads.
    let open: &[Result<i64, &str>] = &[Err("n"), Err("c"), Err("h"), Err("w")];
    for (dims, size) in
        [(None, "6x5"), (Some(open), "6x5"), (Some(open), "3x6x5"), (Some(&[Ok(4), Ok(3), Ok(6), Ok(5)][..]), "6x5")]
    {
        let model = read(dims, Some(size)).expect("the file is read");
        assert_eq!(model.input().shape, Shape::new(3, 6, 5));
    }
    let text = read(Some(&[Ok(1), Ok(3), Ok(6), Ok(5)]), Some("6x6")).expect_err("refused").to_string();
    assert!(text.contains("width 5, and 6 was given"), "{text}");
    for text in ["", "6", "0x5", "1x2x3x4", "6x-5", "ax5"] {
        assert!(text.parse::<InputSize>().is_err(), "{text}");
    }
}

/// A file for batches of 8 is read as one for single pictures, where each keeps to itself.
#[test]
fn one_picture_of_a_batch_is_read() {
    let file = |target: &[i64]| {
        File::new(&[8, 2, 2, 2], "y")
            .constant("target", &[target.len() as i64], Data::Whole(target.to_vec()))
            .constant("w", &[8, 1], Data::Real((0..8).map(|v| v as f32).collect()))
            .node(node("Reshape", &["x", "target"], "f"))
            .node(node("MatMul", &["f", "w"], "y"))
    };
    let x = Tensor::new(Shape::new(2, 2, 2), (1..=8).map(f64::from).collect()).expect("as many as the shape says");
    for target in [&[8, 8][..], &[8, -1], &[-1, 8], &[0, -1]] {
        let model = Model::from_onnx(&file(target).bytes(), &plain(2)).expect("the file is read");
        let y = Network::<f64>::new(&model).evaluate(&x).expect("the shape fits");
        assert_eq!(y.values(), [168.0], "{target:?}");
    }
    let text = Model::from_onnx(&file(&[2, -1]).bytes(), &plain(2)).expect_err("refused").to_string();
    assert!(text.contains("batches of 8") && text.contains("may mix"), "{text}");
}

/// What a file is, its content says: whatever it is called, and with the reason and what to do.
#[test]
fn files_are_known_by_their_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let read = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("writable");
        Model::from_file(&path)
    };
    let onnx = convolution(2).bytes();
    for name in ["noext", "model.pt", "model.safetensors", "m.onnx", "m.ONNX"] {
        let model = read(name, &onnx).expect("the file is read");
        assert_eq!(weights(&model), [0.5, 1.5]);
    }
    let ours = read("m.onnx", &onnx).expect("the file is read").to_bytes();
    assert_eq!(weights(&read("ours.onnx", &ours).expect("the file is read")), [0.5, 1.5]);
    for (bytes, part) in [
        (&b""[..], "an empty file"),
        (b"PK\x03\x04\0\0\0\0\0\0archive/data.pkl", "torch.onnx.export"),
        (b"\x89HDF\r\n\x1a\n\0\0\0\0", "Keras"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"ir_version: 8\ngraph {\n", "ONNX written as text"),
        (b"CIPHLENS\x01\0\0\0", "cipherlens inspect"),
    ] {
        let error = read("m.onnx", bytes).expect_err("refused");
        assert!(matches!(error, ModelError::OtherFile { .. }) && error.to_string().contains(part), "{error}");
    }
    let cut = read("m.onnx", &onnx[..onnx.len() - 3]).expect_err("refused");
    assert!(cut.to_string().contains("not copied to its end"), "{cut}");
    let folder = Model::from_file(folder.path()).expect_err("refused");
    assert!(folder.to_string().contains("a folder"), "{folder}");
}

/// Shapes that the file notes help where an operator is of unknown effect.
#[test]
fn noted_shapes_are_used() {
    use prost::Message;
    let mut file = File::new(&[1, 2, 4, 4], "y")
        .node(node("Fourier", &["x"], "a"))
        .node(node("GlobalLpPool", &["a"], "b"))
        .node(node("Div", &["a", "b"], "y"));
    let list = |file: &File| match Model::from_onnx(&file.bytes(), &plain(2)).expect_err("not supported") {
        ModelError::UnsupportedOperators(list) => list.into_iter().map(|o| o.operator).collect::<Vec<_>>(),
        error => panic!("{error}"),
    };
    file.graph().value_info.push(value("a", &[-1, 2, 4, 4]).encode_to_vec().into());
    assert_eq!(list(&file), ["Fourier", "GlobalLpPool", "Div"]);
    // A note that is damaged is none.
    file.graph().value_info[0] = vec![0xff; 9].into();
    assert_eq!(list(&file)[..2], ["Fourier", "GlobalLpPool"]);
}

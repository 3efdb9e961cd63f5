//! What a network is fed, through the binary: pixels or normalised values by what its graph says, pictures fitted as it was compiled,
//! arrays that are no pictures; and results that are too large for the modulus.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;
#[path = "command/run.rs"]
#[allow(dead_code, reason = "shared by tests that use parts of it")]
mod run;

use common::onnx::{Attribute, Data, File, node};
use prost::Message;
use run::run;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A folder for files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).expect("a file can be written");
        self.path(name)
    }
    fn picture(&self, name: &str, picture: &image::RgbImage) -> String {
        picture.save(Path::new(&self.path(name))).expect("a PNG can be written");
        self.path(name)
    }
    /// A folder of plain pictures of so many brightnesses.
    fn pictures(&self, name: &str, levels: impl IntoIterator<Item = u8>) -> String {
        let folder = PathBuf::from(self.path(name));
        std::fs::create_dir(&folder).expect("a folder can be made");
        for level in levels {
            let picture = image::RgbImage::from_pixel(4, 4, image::Rgb([level, level / 2, 255 - level]));
            picture.save(folder.join(format!("{level:03}.png"))).expect("a PNG can be written");
        }
        self.path(name)
    }
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

fn near(found: &[f64], expected: &[f64]) -> bool {
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6 * (1.0 + b.abs()))
}

/// The mean of each channel of a value of `channels` x 4 x 4, each times a weight.
fn means(file: File, of: &str, channels: usize, weight: f32) -> File {
    let fc = (0..channels * channels).map(|i| if i % (channels + 1) == 0 { weight } else { 0.0 }).collect();
    file.constant("fc", &[channels as i64, channels as i64], Data::Real(fc))
        .node(node("GlobalAveragePool", &[of], "p"))
        .node(node("Flatten", &["p"], "f"))
        .node(node("Gemm", &["f", "fc"], "logits").int("transB", 1))
}

fn colour() -> File {
    File::new(&[1, 3, 4, 4], "logits")
}

/// One number a channel.
fn per_channel(file: File, name: &str, values: [f32; 3]) -> File {
    file.constant(name, &[1, 3, 1, 1], Data::Real(values.into()))
}

#[test]
fn a_network_is_fed_what_its_graph_takes() {
    let folder = Folder::new();
    let picture = folder.picture("picture.png", &image::RgbImage::from_pixel(4, 4, image::Rgb([51, 102, 204])));
    let (unit, pixels) = ([0.2, 0.4, 0.8], [51.0, 102.0, 204.0]);
    let normalised = |v: [f64; 3], mean: [f64; 3], std: [f64; 3]| [0, 1, 2].map(|c| (v[c] - mean[c]) / std[c]);
    let scalar = |file: File, name: &str, value: f32| file.constant(name, &[], Data::Real(vec![value]));
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let (mean32, std32) = (mean.map(|v| v as f32), std.map(|v| v as f32));
    let imagenet = normalised(unit, mean, std);

    // Bytes, divided inside.
    let mut bytes = means(
        scalar(colour(), "c", 255.0).node(node("Cast", &["x"], "r").int("to", 1)).node(node("Div", &["r", "c"], "d")),
        "d",
        3,
        1.0,
    );
    if let Some(tensor) = bytes.graph().input[0].r#type.as_mut().and_then(|t| t.tensor_type.as_mut()) {
        tensor.elem_type = 2;
    }
    let itself = |file: File| file.node(node("Sub", &["x", "m"], "s")).node(node("Div", &["s", "d"], "n"));
    let batch_norm = |mean: f32, var: f32, scale: f32| {
        let list = |file: File, name: &str, v: f32| file.constant(name, &[3], Data::Real(vec![v; 3]));
        let file = list(list(list(list(colour(), "scale", scale), "bias", 0.0), "mean", mean), "var", var);
        means(
            file.node(node("BatchNormalization", &["x", "scale", "bias", "mean", "var"], "n").float("epsilon", 0.0)),
            "n",
            3,
            1.0,
        )
    };
    for (name, file, expected, said) in [
        ("bytes", bytes, unit, "pixels of 0 to 255"),
        ("div", means(scalar(colour(), "c", 255.0).node(node("Div", &["x", "c"], "d")), "d", 3, 1.0), unit, "pixels of 0 to 255"),
        (
            "mul",
            means(scalar(colour(), "c", 1.0 / 255.0).node(node("Mul", &["x", "c"], "d")), "d", 3, 1.0),
            unit,
            "pixels of 0 to 255",
        ),
        (
            "caffe",
            means(per_channel(colour(), "m", [123.68, 116.779, 103.939]).node(node("Sub", &["x", "m"], "d")), "d", 3, 1.0),
            normalised(pixels, [123.68, 116.779, 103.939], [1.0; 3]),
            "pixels of 0 to 255",
        ),
        (
            "keras",
            means(
                scalar(scalar(colour(), "m", 127.5), "o", 1.0).node(node("Div", &["x", "m"], "d")).node(node(
                    "Sub",
                    &["d", "o"],
                    "n",
                )),
                "n",
                3,
                1.0,
            ),
            normalised(pixels, [127.5; 3], [127.5; 3]),
            "pixels of 0 to 255",
        ),
        (
            "itself",
            means(itself(per_channel(per_channel(colour(), "m", mean32), "d", std32)), "n", 3, 1.0),
            imagenet,
            "normalises them itself",
        ),
        ("learned", batch_norm(0.45, 0.0625, 1.0), normalised(unit, [0.45; 3], [0.25; 3]), "normalises them itself"),
        // Nothing tells: this one may follow ImageNet's normalisation.
        ("unsure", batch_norm(0.3, 1.0, 4.0), imagenet.map(|v| 4.0 * (v - 0.3)), "ImageNet's, which is assumed"),
        ("plain", means(colour(), "x", 3, 1.0), imagenet, "ImageNet's, which is assumed"),
    ] {
        let net = folder.write(&format!("{name}.onnx"), file.bytes());
        let report = run(&["classify", &net, &picture, "--json", "--preset", "insecure-toy", "--seed", "1"]).json();
        let found = numbers(&report["clear_logits"]);
        assert!(near(&found, &expected), "{name}: {found:?}, expected {expected:?}");
        for shown in [run(&["inspect", &net]), run(&["plan", &net, "--preset", "insecure-toy", "--typical-costs"])] {
            assert!(shown.stdout.contains(said), "{name}: {}", shown.stdout);
        }
    }
    // Of whole numbers that are no pixels, and of what is no number, nothing is guessed.
    let mut odd = means(colour(), "x", 3, 1.0);
    if let Some(tensor) = odd.graph().input[0].r#type.as_mut().and_then(|t| t.tensor_type.as_mut()) {
        tensor.elem_type = 9;
    }
    let odd = folder.write("odd.onnx", odd.0.encode_to_vec());
    run(&["inspect", &odd]).refused(3, &["type 9", "uint8"]);
}

#[test]
fn normalisation_is_told_and_that_of_pixels_is_refused() {
    let folder = Folder::new();
    let calib = folder.pictures("calib", [0, 60, 120, 250]);
    let net = folder.write("net.onnx", means(colour(), "x", 3, 1.0).bytes());
    let lens = folder.path("net.lens");
    let compile = |net: &str, more: &[&str]| {
        run(&[&["compile", net, "--calib", &calib, "-o", &lens, "--preset", "insecure-toy"], more].concat())
    };
    let told = compile(&net, &[]);
    assert!(told.stdout.contains("mean 0.485, 0.456, 0.406") && told.stdout.contains("assumed"), "{}", told.stdout);
    let told = compile(&net, &["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]);
    assert!(told.stdout.contains("std 0.25, 0.25, 0.25") && !told.stdout.contains("assumed"), "{}", told.stdout);
    let kept = run(&["inspect", &lens]).stdout;
    assert!(kept.contains("mean 0.5, 0.5, 0.5, std 0.25, 0.25, 0.25"), "{kept}");
    let pixels = ["--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375"];
    compile(&net, &pixels).refused(2, &["123.675", "[0, 1]", "--mean 0.4850,0.4560,0.4060", "--std 0.2290,0.2240,0.2250"]);
    compile(&net, &["--std", "58.4,57.1,57.4"]).refused(2, &["58.4"]);

    let own = per_channel(colour(), "m", [0.5; 3]).node(node("Sub", &["x", "m"], "s"));
    let own = folder.write("own.onnx", means(own, "s", 3, 1.0).bytes());
    let quiet = compile(&own, &[]);
    assert!(quiet.stdout.contains("normalises them itself") && !quiet.stderr.contains("warning"), "{}", quiet.stderr);
    let doubly = compile(&own, &["--mean", "0.5,0.5,0.5"]);
    assert!(doubly.code == 0 && doubly.stderr.contains("warning: the network takes values of [0, 1]"), "{}", doubly.stderr);
}

#[test]
fn a_fit_is_kept_in_the_compiled_file() {
    let folder = Folder::new();
    let calib = folder.pictures("calib", [0, 60, 120, 250]);
    let net = folder.write("net.onnx", means(colour(), "x", 3, 1.0).bytes());
    // Black on both sides: the centre is white.
    let wide = image::RgbImage::from_fn(12, 4, |x, _| image::Rgb([if (4..8).contains(&x) { 255 } else { 0 }; 3]));
    let wide = folder.picture("wide.png", &wide);
    let compile = |out: &str, more: &[&str]| {
        let means = ["--mean", "0,0,0", "--std", "1,1,1", "--preset", "insecure-toy"];
        let done = run(&[&["compile", &net, "--calib", &calib, "-o", out], &means[..], more].concat());
        assert_eq!(done.code, 0, "{}", done.stderr);
    };
    let (stretched, cropped) = (folder.path("stretched.lens"), folder.path("cropped.lens"));
    compile(&stretched, &["--fit", "stretch"]);
    compile(&cropped, &[]);
    let brightness = |net: &str, more: &[&str]| {
        let report = run(&[&["classify", net, &wide, "--json", "--seed", "1"], more].concat()).json();
        (numbers(&report["clear_logits"])[0], report["notes"].to_string())
    };
    let (mean, notes) = brightness(&stretched, &[]);
    assert!((mean - 1.0 / 3.0).abs() < 0.05 && !notes.contains("centre"), "{mean}, {notes}");
    let (mean, notes) = brightness(&cropped, &[]);
    assert!(mean == 1.0 && notes.contains("centre"), "{mean}, {notes}");
    let (mean, notes) = brightness(&stretched, &["--fit", "crop"]);
    assert!(mean == 1.0 && notes.contains("cropped as asked, though"), "{mean}, {notes}");
    assert!(run(&["inspect", &stretched]).stdout.contains("stretched"));
    // Compiled again from the compiled file, it stays.
    let again = folder.path("again.lens");
    let done = run(&["compile", &stretched, "--calib", &calib, "-o", &again, "--preset", "insecure-toy"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(brightness(&again, &[]).0 < 0.4);
}

#[test]
fn too_few_pictures_for_the_target_are_told_before_anything_is_tried() {
    let folder = Folder::new();
    let calib = folder.pictures("calib", (0..60).map(|i| 4 * i));
    let relu = means(colour().node(node("Relu", &["x"], "a")), "a", 3, 1.0);
    let net = folder.write("net.onnx", relu.bytes());
    let compile = |more: &[&str]| run(&[&["compile", &net, "--calib", &calib, "-o", &folder.path("net.lens")], more].concat());
    let few = compile(&["--preset", "insecure-small"]);
    few.refused(2, &["60 pictures", "99.00 %", "99 are needed", "98.3 %", "--target 0.983"]);
    assert!(!few.stderr.contains("foreseen"), "a fit was tried:\n{}", few.stderr);
    compile(&["--preset", "insecure-small", "--limit", "20"]).refused(2, &["20 pictures", "99 are needed"]);
    compile(&["--preset", "insecure-small", "--target", "1"]).refused(2, &["100.0000 %", "--target"]);
    let enough = compile(&["--preset", "insecure-small", "--target", "0.98"]);
    assert!(!enough.stderr.contains("are needed"), "{}", enough.stderr);
}

/// A `.npy` file.
fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(values);
    bytes
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

#[test]
fn arrays_calibrate_and_are_classified_by_networks_of_any_channels() {
    let folder = Folder::new();
    let net = File::new(&[1, 4, 2, 2], "logits").node(node("Relu", &["x"], "a"));
    let net = folder.write("net.onnx", means(net, "a", 4, 1.0).bytes());
    // Channel c of input n is -1 everywhere but for one in four inputs, where it is 1 and a little more.
    let value = |n: usize, i: usize| if i / 4 == n % 4 { 1.0 + n as f32 / 64.0 } else { -1.0 };
    let all = (0..32).flat_map(|n| (0..16).map(move |i| value(n, i)));
    let calib = folder.write("calib.npy", npy("<f4", "(32, 4, 2, 2)", &floats(all)));
    let lens = folder.path("net.lens");
    let compile = ["compile", &net, "--calib", &calib, "-o", &lens, "--preset", "insecure-small", "--target", "0.5"];
    let compiled = run(&[&compile[..], &["--json"]].concat());
    assert_eq!(compiled.json()["pictures"], 32, "{}", compiled.stderr);
    assert!(
        compiled.json()["calibration_files"].to_string().contains("32 inputs, numbers fed as they are"),
        "{}",
        compiled.stdout
    );

    let third = folder.write(
        "third.npy",
        npy("<f8", "(4, 2, 2)", &(0..16).flat_map(|i| f64::from(value(2, i)).to_le_bytes()).collect::<Vec<_>>()),
    );
    let report = run(&["classify", &lens, &third, "--json", "--seed", "1"]).json();
    assert_eq!((report["label"].as_str(), report["clear_label"].as_str()), (Some("class 2"), Some("class 2")));
    assert!(report["notes"].to_string().contains("fed as they are"), "{}", report["notes"]);
    let several =
        folder.write("several.npy", npy("<f4", "(4, 4, 2, 2)", &floats((0..4).flat_map(|n| (0..16).map(move |i| value(n, i))))));
    let answers = run(&["classify", &lens, &several, "--json", "--seed", "1"]);
    let answers: Vec<Value> = answers.stdout.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let labels: Vec<_> = answers.iter().map(|a| a["label"].as_str().expect("a label").to_owned()).collect();
    assert_eq!(labels, ["class 0", "class 1", "class 2", "class 3"]);
    assert!(answers[1]["image"].as_str().is_some_and(|name| name.ends_with("several.npy[1]")));
    let simulated = run(&["simulate", &lens, "--images", &several, "--json"]).json();
    assert_eq!(simulated["agreement"], 1.0);
    let evaluated = run(&["eval", "--clear", "--model", &lens, "--images", &format!("{third}@2"), "--json"]).json();
    assert_eq!((&evaluated["images"], &evaluated["correct"]), (&1.into(), &1.into()));

    assert!(run(&["inspect", &several]).stdout.contains("4 inputs of 4 channels of 2 x 2"));
    let keys = folder.path("keys");
    assert_eq!(run(&["keygen", "--model", &lens, "-o", &keys, "--allow-insecure"]).code, 0);
    let encrypt = |input: &str| {
        let secret = format!("{keys}/secret.key");
        run(&["encrypt", input, "--model", &lens, "-k", &secret, "-o", &folder.path("x.ct"), "--allow-insecure"])
    };
    assert_eq!(encrypt(&third).code, 0);
    encrypt(&several).refused(2, &["4 inputs", "array[0]"]);
    encrypt(&folder.write("last.npy", npy("<f4", "(2, 2, 4)", &floats([0.0; 16]))))
        .refused(3, &["[2, 2, 4]", "[4, 2, 2]", "moveaxis"]);
    encrypt(&folder.write("cut.npy", npy("<f4", "(4, 2, 2)", &floats([0.0; 15])))).refused(3, &["cut.npy", "cut short"]);
    run(&["classify", &lens, &folder.picture("p.png", &image::RgbImage::new(4, 4))]).refused(3, &["4 channels", "1 or 3"]);
    let kept = folder.write("text.npy", "no array");
    run(&["eval", "--clear", "--model", &lens, "--images", &kept]).refused(3, &["text.npy", "does not begin"]);

    // Bytes are pixels, normalised like a picture's.
    let plain = folder.write("plain.onnx", means(colour(), "x", 3, 1.0).bytes());
    let bytes: Vec<u8> = [51u8, 102, 204].into_iter().flat_map(|v| [v; 16]).collect();
    let bytes = folder.write("bytes.npy", npy("|u1", "(3, 4, 4)", &bytes));
    let report = run(&["classify", &plain, &bytes, "--json", "--preset", "insecure-toy", "--seed", "1"]).json();
    let expected = [(0.2 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, (0.8 - 0.406) / 0.225];
    assert!(near(&numbers(&report["clear_logits"]), &expected), "{report}");
}

#[test]
fn results_beyond_the_modulus_are_scaled_or_refused() {
    let folder = Folder::new();
    let calib = folder.path("calib");
    std::fs::create_dir(&calib).expect("a folder can be made");
    for level in 1..=4 {
        folder.picture(&format!("calib/{level}.png"), &image::RgbImage::from_pixel(4, 4, image::Rgb([level; 3])));
    }
    // Results of some hundred thousands, which level 0 cannot hold.
    let huge = folder.write("huge.onnx", means(colour(), "x", 3, 5e7).bytes());
    let dark = folder.picture("dark.png", &image::RgbImage::from_pixel(4, 4, image::Rgb([1, 4, 2])));
    let run_as_it_is = run(&["classify", &huge, &dark, "--json", "--preset", "insecure-toy"]);
    run_as_it_is.refused(6, &["could not hold", "dark.png", "--calib"]);

    let lens = folder.path("huge.lens");
    let unit = ["--mean", "0,0,0", "--std", "1,1,1", "--preset", "insecure-toy"];
    let compile =
        |net: &str, more: &[&str]| run(&[&["compile", net, "--calib", &calib, "-o", &lens, "--json"], &unit[..], more].concat());
    let compiled = compile(&huge, &[]).json();
    let divisor = compiled["output_divisor"].as_f64().expect("a number");
    assert!(divisor > 1.0 && divisor.log2().fract() == 0.0, "{divisor}");
    let expected = compiled["expected_max_abs_logit_error"].as_f64().expect("a number");
    let report = run(&["classify", &lens, &dark, "--json", "--seed", "3"]).json();
    assert_eq!((report["label"].as_str(), report["clear_label"].as_str()), (Some("class 1"), Some("class 1")));
    let error = report["max_abs_logit_error"].as_f64().expect("a number");
    assert!(near(&numbers(&report["clear_logits"]), &[1.0, 4.0, 2.0].map(|v| 5e7 * v / 255.0)), "{report}");
    assert!((0.02..50.0).contains(&(error / expected)) && error < 1e4, "{error} where {expected} was foreseen");

    // Far below what noise leaves of a number: multiplied instead. What is too small inside the network is refused.
    let tiny = folder.write("tiny.onnx", means(colour(), "x", 3, 1e-9).bytes());
    let small = folder.path("tiny.lens");
    let compiled = run(&[&["compile", &tiny, "--calib", &calib, "-o", &small, "--json"], &unit[..]].concat()).json();
    let divisor = compiled["output_divisor"].as_f64().expect("a number");
    assert!(divisor < 1e-9 && divisor.log2().fract() == 0.0, "{divisor}");
    let report = run(&["classify", &small, &dark, "--json", "--seed", "3"]).json();
    assert_eq!((report["label"].as_str(), report["clear_label"].as_str()), (Some("class 1"), Some("class 1")));
    let error = report["max_abs_logit_error"].as_f64().expect("a number");
    assert!(error < 1e-13, "{report}");
    let scale = |file: File, from: &str, to: &str, by: f32| {
        let weight = (0..9).map(|i| if i % 4 == 0 { by } else { 0.0 }).collect();
        file.constant(&format!("{to}.w"), &[3, 3, 1, 1], Data::Real(weight)).node(node("Conv", &[from, &format!("{to}.w")], to))
    };
    let lost = means(scale(scale(colour(), "x", "down", 1e-14), "down", "up", 1e14), "up", 3, 1.0);
    let coloured = folder.path("coloured");
    std::fs::create_dir(&coloured).expect("a folder can be made");
    for level in 1..=4 {
        folder.picture(&format!("coloured/{level}.png"), &image::RgbImage::from_pixel(4, 4, image::Rgb([level, 50, 9])));
    }
    let lost = folder.write("lost.onnx", lost.bytes());
    let refused = run(&[&["compile", &lost, "--calib", &coloured, "-o", &small, "--target", "0.5"], &unit[..]].concat());
    refused.refused(6, &["too many answers", "differ by", "--target"]);
    // Beside what all logits have in common, encryption loses what makes them differ, and 32 bits do not even show it.
    let hidden = means(File::new(&[1, 3, 4, 4], "sums"), "x", 3, 1.0).constant("common", &[3], Data::Real(vec![5e9; 3]));
    let hidden = folder.write("hidden.onnx", hidden.node(node("Add", &["logits", "common"], "sums")).bytes());
    let refused = run(&[&["compile", &hidden, "--calib", &coloured, "-o", &small, "--target", "0.6"], &unit[..]].concat());
    refused.refused(6, &["too many answers", "differ by", "--target"]);
    // A bias that a later one takes back: what is added where the result stands must fit there too, and is divided with it.
    let identity = (0..9).map(|i| if i % 4 == 0 { 1.0 } else { 0.0 }).collect();
    let raised = File::new(&[1, 3, 4, 4], "sums").constant("w", &[3, 3, 1, 1], Data::Real(identity));
    let raised = raised.constant("b", &[3], Data::Real(vec![1e5; 3])).node(node("Conv", &["x", "w", "b"], "raised"));
    let raised = means(raised, "raised", 3, 1.0).constant("back", &[3], Data::Real(vec![-1e5; 3]));
    let raised = folder.write("raised.onnx", raised.node(node("Add", &["logits", "back"], "sums")).bytes());
    let back = folder.path("raised.lens");
    let compiled =
        run(&[&["compile", &raised, "--calib", &coloured, "-o", &back, "--target", "0.5", "--json"], &unit[..]].concat()).json();
    let divisor = compiled["output_divisor"].as_f64().expect("a number");
    assert!(divisor >= 64.0, "{divisor}");
    let report = run(&["classify", &back, &folder.path("coloured/3.png"), "--json", "--seed", "3"]).json();
    assert_eq!((report["label"].as_str(), report["clear_label"].as_str()), (Some("class 1"), Some("class 1")));

    // With client and server apart, the divisor is undone by who decrypts.
    let keys = folder.path("keys");
    assert_eq!(run(&["keygen", "--model", &lens, "-o", &keys, "--allow-insecure"]).code, 0);
    let (secret, evaluation) = (format!("{keys}/secret.key"), format!("{keys}/evaluation.keys"));
    let (sent, answer) = (folder.path("sent.ct"), folder.path("answer.ct"));
    let encrypt = |picture: &str| run(&["encrypt", picture, "--model", &lens, "-k", &secret, "-o", &sent, "--allow-insecure"]);
    assert_eq!(encrypt(&dark).code, 0);
    assert_eq!(run(&["run", &sent, "--model", &lens, "-k", &evaluation, "-o", &answer]).code, 0);
    let decrypted = run(&["decrypt", &answer, "--model", &lens, "-k", &secret, "--json", "--logits", "--allow-insecure"]).json();
    let found = numbers(&decrypted["logits"]);
    let clear = [1.0, 4.0, 2.0].map(|v| 5e7 * v / 255.0);
    assert!(found.iter().zip(&clear).all(|(a, b)| (a - b).abs() < 1e4), "{found:?}");

    // Far brighter than what was seen: foreseen by who has the picture.
    let white = folder.picture("white.png", &image::RgbImage::from_pixel(4, 4, image::Rgb([255; 3])));
    encrypt(&white).refused(6, &["could not hold", "white.png", "--calib"]);
    run(&["plan", &lens, "--picture", &white]).refused(6, &["could not hold"]);
    run(&["simulate", &lens, "--images", &folder.pictures("bright", [200])]).refused(6, &["at most"]);
    // Nothing that can be held: refused where it is compiled.
    let endless = folder.write("endless.onnx", means(colour(), "x", 3, 1e30).bytes());
    compile(&endless, &[]).refused(6, &["too large to be encrypted"]);
}

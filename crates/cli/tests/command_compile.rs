//! From an ONNX file to an encrypted answer through the binary: compile, inspect, plan, simulate, classify, and the same with
//! client and server apart.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;
#[path = "command/run.rs"]
#[allow(dead_code, reason = "shared by tests that use parts of it")]
mod run;

use cipherlens::nn::Compiled;
use common::onnx::{Attribute, Data, File, node};
use run::run;
use std::path::Path;

/// A network that tells the colour of a picture: 8x8 means of each colour less the others, a ReLU, their sum.
fn colours() -> File {
    let weight = |o: usize, i: usize| if o == i { 0.25 } else { -0.125 };
    let conv = (0..3).flat_map(|o| (0..3).flat_map(move |i| [weight(o, i); 4])).collect();
    File::new(&[1, 3, 8, 8], "logits")
        .constant("w", &[3, 3, 2, 2], Data::Real(conv))
        .constant("fc", &[3, 3], Data::Real((0..9).map(|i| if i % 4 == 0 { 2.0 } else { 0.25 }).collect()))
        .constant("half", &[], Data::Real(vec![1.0]))
        .node(node("Conv", &["x", "w"], "c").ints("strides", &[2, 2]))
        .node(node("Relu", &["c"], "a"))
        .node(node("GlobalAveragePool", &["a"], "p"))
        .node(node("Flatten", &["p"], "f"))
        .node(node("Gemm", &["f", "fc"], "logits").int("transB", 1))
}

/// Folders `red`, `green` and `blue` of pictures of every brightness, and one picture of each apart.
fn pictures(dir: &Path) {
    for (c, name) in ["red", "green", "blue"].into_iter().enumerate() {
        let folder = dir.join("pictures").join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        for k in 0..12u8 {
            let picture = image::RgbImage::from_fn(8, 8, |x, y| {
                let mut pixel = [20 + 3 * x as u8, 20 + 3 * y as u8, 20 + k];
                pixel[c] = 120 + 10 * k + x as u8;
                image::Rgb(pixel)
            });
            picture.save(folder.join(format!("{k}.png"))).expect("a PNG can be written");
            if k == 5 {
                picture.save(dir.join(format!("{name}.png"))).expect("a PNG can be written");
            }
        }
    }
}

/// Ctrl-C ends the search with the best fit so far, or says that there is none; the program is not ended by it.
#[cfg(unix)]
#[test]
fn a_search_that_is_interrupted_gives_its_best() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    std::fs::write(path("net.onnx"), colours().bytes()).expect("a file");
    pictures(dir.path());
    let (onnx, calib, lens) = (path("net.onnx"), path("pictures"), path("net.lens"));
    let args = ["compile", &onnx, "--calib", &calib, "-o", &lens, "--preset", "insecure-small", "--target", "0.5"];
    for after in ["Ctrl-C ends with the best found", ": enough"] {
        let mut child = run::command(&args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the command starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while !line.contains(after) {
            line.clear();
            assert!(lines.read_line(&mut line).expect("a line") > 0, "it ended before {after:?}");
        }
        assert!(after.starts_with("Ctrl-C") || line.contains("at most"), "{line}");
        let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
        assert!(killed.success(), "it is still there");
        let mut rest = String::new();
        lines.read_to_string(&mut rest).expect("text");
        let code = child.wait().expect("an end").code();
        match code {
            Some(0) => Compiled::read(Path::new(&lens)).map(drop).expect("what it found"),
            Some(6) => assert!(rest.contains("stopped before a fit was found"), "{rest}"),
            code => panic!("{code:?}: {rest}"),
        }
        assert!(after.starts_with("Ctrl-C") || code == Some(0), "a fit was found: {rest}");
    }
}

/// What is planned for a GPU runs on the processor too.
#[test]
fn a_network_is_planned_for_a_gpu() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    std::fs::write(path("net.onnx"), colours().bytes()).expect("a file");
    pictures(dir.path());
    let (onnx, lens, calib, green) = (path("net.onnx"), path("net.lens"), path("pictures"), path("green.png"));
    let compile = ["compile", &onnx, "--calib", &calib, "-o", &lens, "--preset", "insecure-small", "--target", "0.5", "--json"];
    let planned_for = |device: &str| run(&[&compile[..], &["--for", device]].concat()).json()["planned_for"].clone();
    assert_eq!(planned_for("cpu"), "processor");
    let planned = run(&[&compile[..], &["--for", "gpu"]].concat());
    if cfg!(feature = "gpu") {
        let rates = &planned.json()["planned_for"]["gpu"];
        assert!(["gap", "traffic", "upload"].iter().all(|rate| rates[rate].as_f64().is_some_and(|r| r > 0.0)), "{rates}");
        let done = run(&["classify", &lens, &green, "--json", "--seed", "1"]).json();
        assert_eq!(done["label"], done["clear_label"]);
    } else {
        planned.refused(2, &["GPU support"]);
    }
}

#[test]
fn from_onnx_to_an_encrypted_answer() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    std::fs::write(path("net.onnx"), colours().bytes()).expect("a file");
    pictures(dir.path());
    let (onnx, lens, calib, green) = (path("net.onnx"), path("net.lens"), path("pictures"), path("green.png"));

    run(&["plan", &onnx]).refused(3, &["activation", "cipherlens compile"]);
    // Against itself it would keep every answer.
    run(&["simulate", &onnx, "--images", &calib]).refused(3, &["cannot simulate", "activation", "cipherlens compile"]);
    let classes = ["--classes", "red,green,blue", "--preset", "insecure-small", "--target", "0.5"];
    let compile = [&["compile", &onnx, "--calib", &calib, "-o", &lens, "--json"], &classes[..]].concat();
    let compiled = run(&compile).json();
    assert_eq!(compiled["pictures"], 36);
    assert_eq!((&compiled["accuracy"], &compiled["agreement"]), (&1.0.into(), &1.0.into()));
    assert_eq!(compiled["plan"]["preset"], "insecure-small");

    let shown = run(&["inspect", &lens]);
    assert!(shown.stdout.contains("compiled network") && shown.stdout.contains("relu, degree"), "{}", shown.stdout);
    assert!(run(&["inspect", &onnx]).stdout.contains("relu, not fitted"));
    let plan = run(&["plan", &lens, "--typical-costs", "--json"]).json();
    assert_eq!(plan["preset"], "insecure-small", "the one it was compiled for");
    // What encryption will cost in precision is foreseen, and told beside what it did.
    let expected = compiled["expected_max_abs_logit_error"].as_f64().expect("a number");
    assert!((1e-9..1e-4).contains(&expected), "{expected}");
    assert_eq!(plan["expected_max_abs_logit_error"].as_f64(), Some(expected));
    let of_green = run(&["plan", &lens, "--picture", &green, "--json"]).json();
    let of_green = of_green["expected_max_abs_logit_error"].as_f64().expect("a number");
    assert!((0.1..10.0).contains(&(of_green / expected)), "{of_green} after {expected}");
    let simulated = run(&["simulate", &lens, "--images", &calib, "--json"]).json();
    assert_eq!(simulated["agreement"], 1.0);

    let answer = run(&["classify", &lens, &green, "--json", "--seed", "7"]).json();
    assert_eq!((answer["label"].as_str(), answer["clear_label"].as_str()), (Some("green"), Some("green")));
    let error = answer["max_abs_logit_error"].as_f64().expect("a number");
    assert!((0.05..20.0).contains(&(error / expected)), "{error} where {expected} was expected");
    assert_eq!(answer["expected_max_abs_logit_error"].as_f64(), Some(expected));
    for key in
        ["top", "logits", "clear_logits", "seconds", "layer_seconds", "bootstraps", "rotations", "key_switches", "key_bytes"]
    {
        assert!(!answer[key].is_null(), "{key} is missing");
    }
    assert_eq!(answer["layer_seconds"].as_array().map(Vec::len), answer["layers"].as_array().map(Vec::len));
    let demo = run(&["demo", "--model", &lens, "--image", &green, "--json", "--seed", "7"]).json();
    assert_eq!(demo["logits_ciphertext_blake3"], answer["logits_ciphertext_blake3"], "the same path");

    // Slots are left: the pictures share one run, and each has its own answer.
    let (red, blue) = (path("red.png"), path("blue.png"));
    let three = run(&["classify", &lens, &red, &green, &blue, "--json", "--seed", "7"]);
    let answers: Vec<serde_json::Value> = three.stdout.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(answers.iter().map(|a| a["label"].as_str()).collect::<Vec<_>>(), [Some("red"), Some("green"), Some("blue")]);
    for answer in &answers {
        assert_eq!((&answer["pictures_together"], &answer["label"]), (&3.into(), &answer["clear_label"]));
        assert!(answer["max_abs_logit_error"].as_f64().is_some_and(|e| e < 1e-3), "{answer}");
        assert_eq!(answer["logits_ciphertext_blake3"], answers[0]["logits_ciphertext_blake3"], "one run");
    }
    let planned = run(&["plan", &lens, "--pictures", "3", "--json"]).json();
    assert_eq!((&planned["pictures_together"], &planned["slots"]), (&4.into(), &1024.into()));
    let evaluated = run(&["eval", "--encrypted", "--model", &lens, "--images", &calib, "--limit", "9", "--json"]).json();
    assert_eq!((&evaluated["agree"], &evaluated["images"], &evaluated["pictures_together"]), (&9.into(), &9.into(), &4.into()));

    // A plan is decided once, whatever this machine's clocks say.
    let plan_of = |options: &[&str]| run(&[&["plan", &lens, "--json"], options].concat()).json();
    let (timed, typical) = (plan_of(&[]), plan_of(&["--typical-costs"]));
    for what in ["counts", "keys", "key_bytes", "input_level", "bootstraps"] {
        assert_eq!((&timed[what], &typical[what]), (&plan[what], &plan[what]), "{what}");
    }

    // A bound on the bytes of keys is kept in the file, so that client and server plan alike; this one just suffices.
    let most = plan["key_bytes"].as_u64().expect("a number");
    let (least, budget) = (path("least.lens"), most.to_string());
    let run_small =
        run(&[&["compile", &onnx, "--calib", &calib, "-o", &least, "--json", "--max-key-bytes", &budget], &classes[..]].concat());
    assert_eq!(run_small.code, 0, "{}", run_small.stderr);
    assert_eq!(run(&["plan", &least, "--typical-costs", "--json"]).json()["key_bytes"], most);
    let kept = Compiled::read(Path::new(&least)).expect("what compile wrote");
    assert_eq!(kept.max_key_bytes, Some(most));
    let tight = path("tight.lens");
    assert_eq!(kept.plans.iter().map(|plan| plan.together).collect::<Vec<_>>(), [1, 2, 4]);
    Compiled { max_key_bytes: Some(1000), plans: Vec::new(), client: None, ..kept }
        .write(Path::new(&tight))
        .expect("a folder that can be written");
    for command in [&["plan", &tight][..], &["classify", &tight, &green], &["keygen", "--model", &tight, "-o", &path("tight")]] {
        run(command).refused(5, &["keys take at least", "allow at least", "--max-key-bytes"]);
    }
    run(&["plan", &lens, "--max-key-bytes", "1kB"]).refused(5, &["keys take at least", "--max-key-bytes"]);
    let lens = least;

    let (keys, encrypted, result) = (path("keys"), path("picture.ct"), path("answer.ct"));
    assert_eq!(run(&["keygen", "--model", &lens, "-o", &keys, "--allow-insecure"]).code, 0);
    let secret = path("keys/secret.key");
    let encrypt = ["encrypt", &green, "--model", &lens, "-k", &secret, "-o", &encrypted, "--allow-insecure"];
    assert_eq!(run(&encrypt).code, 0);
    let evaluation = path("keys/evaluation.keys");
    assert_eq!(run(&["run", &encrypted, "--model", &lens, "-k", &evaluation, "-o", &result]).code, 0);
    let decrypted = run(&["decrypt", &result, "--model", &lens, "-k", &secret, "--json", "--allow-insecure"]).json();
    assert_eq!(decrypted["label"], "green");
}

/// The result as a vector: fits are chosen by whether two pictures are the same, and the client compares two answers.
#[test]
fn vectors_are_compared() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    std::fs::write(path("net.onnx"), colours().bytes()).expect("a file");
    pictures(dir.path());
    let (onnx, lens, calib) = (path("net.onnx"), path("net.lens"), path("pictures"));
    run(&["compile", &onnx, "--calib", &calib, "-o", &lens, "--metric", "cosine"]).not_understood(&["--threshold"]);
    run(&["compile", &onnx, "--calib", &calib, "-o", &lens, "--metric", "miles", "--threshold", "1"]).not_understood(&["cosine"]);
    let options = ["--metric", "cosine", "--threshold", "0.3", "--classes", "red,green,blue", "--preset", "insecure-small"];
    let compiled =
        run(&[&["compile", &onnx, "--calib", &calib, "-o", &lens, "--json", "--target", "0.5"], &options[..]].concat());
    let compiled = compiled.json();
    assert_eq!((&compiled["accuracy"], &compiled["agreement"]), (&1.0.into(), &1.0.into()));
    // How it was judged is kept, and can be asked for otherwise.
    let simulated = run(&["simulate", &lens, "--images", &calib, "--json"]).json();
    assert_eq!((&simulated["simulation"]["answers"], &simulated["simulation"]["labelled"]), (&630.into(), &630.into()));
    assert_eq!((&simulated["agreement"], &simulated["accuracy"]), (&1.0.into(), &1.0.into()));
    let far = ["--metric", "euclidean", "--threshold", "1000"];
    let far = run(&[&["simulate", &lens, "--images", &calib, "--json"], &far[..]].concat()).json();
    assert!(far["accuracy"].as_f64().is_some_and(|a| a < 0.4), "all are the same: {far}");
    assert!(run(&["simulate", &lens, "--images", &calib]).stdout.contains("630 pairs of 36 pictures"));

    let (keys, secret) = (path("keys"), path("keys/secret.key"));
    let keygen = ["keygen", "--model", &lens, "-o", &keys, "--allow-insecure"];
    assert_eq!(run(&keygen).code, 0);
    let answer = |name: &str, picture: &str| {
        let (encrypted, result, evaluation) =
            (path(&format!("{name}.in")), path(&format!("{name}.out")), path("keys/evaluation.keys"));
        let encrypt = ["encrypt", picture, "--model", &lens, "-k", &secret, "-o", &encrypted, "--allow-insecure"];
        assert_eq!(run(&encrypt).code, 0);
        assert_eq!(run(&["run", &encrypted, "--model", &lens, "-k", &evaluation, "-o", &result]).code, 0);
        result
    };
    let (green, dark, red) =
        (answer("g", &path("green.png")), answer("d", &path("pictures/green/0.png")), answer("r", &path("red.png")));
    let told = path("net.client");
    let decrypt =
        |a: &str, more: &[&str]| run(&[&["decrypt", a, "--model", &told, "-k", &secret, "--allow-insecure"], more].concat());
    let compare = |b: &str, more: &[&str]| decrypt(&green, &[&["--against", b, "--metric", "cosine"], more].concat());
    let (near, apart) = (compare(&dark, &["--json"]).json(), compare(&red, &["--json", "--threshold", "0.3"]).json());
    let distance = |of: &serde_json::Value| of["distance"].as_f64().expect("a number");
    assert!(distance(&near) < 0.05 && distance(&apart) > 0.5, "{near} {apart}");
    assert_eq!((&near["same"], &apart["same"]), (&serde_json::Value::Null, &false.into()));
    assert!(near["error"].as_f64().is_some_and(|e| (1e-9..1e-3).contains(&e)), "{near}");
    let words = compare(&dark, &["--threshold", "0.3"]).stdout;
    assert!(words.starts_with("the same: the cosine distance is 0.0"), "{words}");
    decrypt(&green, &["--against", &red]).not_understood(&["--metric"]);
    compare(&path("g.in"), &[]).refused(3, &["not the answer"]);

    let npy = path("green.npy");
    assert_eq!(decrypt(&green, &["--npy", &npy]).code, 0);
    let bytes = std::fs::read(&npy).expect("a file");
    assert!(bytes.starts_with(b"\x93NUMPY") && bytes.len() == 128 + 3 * 8, "{} bytes", bytes.len());
    let logits = decrypt(&green, &["--json", "--logits"]).json();
    let numbers: Vec<f64> = bytes[128..].chunks(8).map(|b| f64::from_le_bytes(b.try_into().expect("eight"))).collect();
    assert_eq!(logits["logits"], serde_json::json!(numbers));
    decrypt(&green, &["--npy", &npy]).refused(3, &["cannot write"]);
}

/// A result that is a map of classes comes back as a picture of them.
#[test]
fn a_map_becomes_a_picture() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let network = File::new(&[1, 3, 8, 8], "map")
        .constant("w", &[3, 3, 2, 2], Data::Real((0..36).map(|i| if i / 4 % 4 == 0 { 0.25 } else { -0.125 }).collect()))
        .node(node("Conv", &["x", "w"], "c").ints("strides", &[2, 2]))
        .node(node("Relu", &["c"], "map"));
    std::fs::write(path("net.onnx"), network.bytes()).expect("a file");
    pictures(dir.path());
    let (onnx, lens, calib, secret) = (path("net.onnx"), path("net.lens"), path("pictures"), path("keys/secret.key"));
    let options = ["--preset", "insecure-small", "--target", "0.5", "--metric", "euclidean", "--threshold", "1"];
    let compiled = run(&[&["compile", &onnx, "--calib", &calib, "-o", &lens], &options[..]].concat());
    assert_eq!(compiled.code, 0, "{}", compiled.stderr);
    assert_eq!(run(&["keygen", "--model", &lens, "-o", &path("keys"), "--allow-insecure"]).code, 0);
    let (input, output, map) = (path("in.ct"), path("out.ct"), path("map.png"));
    assert_eq!(run(&["encrypt", &path("green.png"), "--model", &lens, "-k", &secret, "-o", &input, "--allow-insecure"]).code, 0);
    assert_eq!(run(&["run", &input, "--model", &lens, "-k", &path("keys/evaluation.keys"), "-o", &output]).code, 0);
    let decrypt = ["decrypt", &output, "--model", &lens, "-k", &secret, "--allow-insecure", "--map", &map];
    assert!(run(&decrypt).text().contains("the map, 3x4x4"));
    let picture = image::open(&map).expect("a PNG").into_rgb8();
    assert_eq!(picture.dimensions(), (4, 4));
    // Class 1, the second channel, is red in maps: the picture is green everywhere.
    assert!(picture.pixels().all(|p| p.0 == [128, 0, 0]), "{picture:?}");
    run(&decrypt).refused(3, &["cannot write"]);
    run(&[&decrypt[..], &["--npy", &path("map.npy"), "--json"]].concat()).refused(3, &["cannot write"]);
}

/// A MaxPool as a convolution, from the file to an encrypted answer; and what cannot be fitted.
#[test]
fn a_max_pool_becomes_a_convolution() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let pooled = File::new(&[1, 3, 8, 8], "logits")
        .constant("w", &[3, 3, 1, 1], Data::Real((0..9).map(|i| if i % 4 == 0 { 1.0 } else { -0.5 }).collect()))
        .constant("fc", &[3, 3], Data::Real((0..9).map(|i| if i % 4 == 0 { 2.0 } else { 0.25 }).collect()))
        .node(node("Conv", &["x", "w"], "c"))
        .node(node("MaxPool", &["c"], "m").ints("kernel_shape", &[2, 2]).ints("strides", &[2, 2]))
        .node(node("Relu", &["m"], "a"))
        .node(node("GlobalAveragePool", &["a"], "p"))
        .node(node("Flatten", &["p"], "f"))
        .node(node("Gemm", &["f", "fc"], "logits").int("transB", 1));
    std::fs::write(path("net.onnx"), pooled.bytes()).expect("a file");
    std::fs::write(path("without.onnx"), colours().bytes()).expect("a file");
    pictures(dir.path());
    let (onnx, lens, calib) = (path("net.onnx"), path("net.lens"), path("pictures"));
    let options = ["--preset", "insecure-small", "--target", "0.5", "--classes", "red,green,blue", "--max-pool", "fitted"];
    let compile =
        |model: &str, more: &[&str]| run(&[&["compile", model, "--calib", &calib, "-o", &lens], &options[..], more].concat());
    let said = compile(&onnx, &[]);
    let said = said.text();
    let told = "a convolution of each channel by itself is in its place";
    assert!(said.contains(told) && said.contains("on 18 pictures that it was not fitted to"), "{said}");
    let compiled = compile(&onnx, &["--json"]).json();
    let fitted = &compiled["max_pools_fitted"];
    assert_eq!((fitted["convolutions"].as_array().map(Vec::len), &fitted["loss"]["pictures"]), (Some(1), &18.into()));
    for colour in ["red", "green", "blue"] {
        let answer = run(&["classify", &lens, &path(&format!("{colour}.png")), "--json"]).json();
        assert_eq!((&answer["label"], &answer["clear_label"]), (&colour.into(), &colour.into()));
    }
    compile(&path("without.onnx"), &[]).refused(2, &["no MaxPool", "leave --max-pool out"]);
    compile(&onnx, &["--limit", "7"]).refused(2, &["7 pictures", "--calib"]);
}

/// Class 0 and 1 of a single number: whether it is above 0.
#[test]
fn a_single_number_has_two_classes() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let network = File::new(&[1, 3, 8, 8], "score")
        .constant("w", &[2, 3, 1, 1], Data::Real(vec![1.0, -0.5, -0.5, -0.5, 1.0, -0.5]))
        .constant("fc", &[1, 2], Data::Real(vec![-1.0, 1.0]))
        .node(node("Conv", &["x", "w"], "c"))
        .node(node("Relu", &["c"], "a"))
        .node(node("GlobalAveragePool", &["a"], "p"))
        .node(node("Flatten", &["p"], "f"))
        .node(node("Gemm", &["f", "fc"], "score").int("transB", 1));
    std::fs::write(path("net.onnx"), network.bytes()).expect("a file");
    pictures(dir.path());
    std::fs::remove_dir_all(path("pictures/blue")).expect("a folder");
    let (onnx, lens, calib) = (path("net.onnx"), path("net.lens"), path("pictures"));
    let options = ["--classes", "red,green", "--preset", "insecure-small", "--target", "0.5", "--json"];
    let compiled = run(&[&["compile", &onnx, "--calib", &calib, "-o", &lens], &options[..]].concat()).json();
    assert_eq!((&compiled["accuracy"], &compiled["agreement"]), (&1.0.into(), &1.0.into()));
    for colour in ["red", "green"] {
        let answer = run(&["classify", &lens, &path(&format!("{colour}.png")), "--json"]).json();
        assert_eq!((&answer["label"], &answer["clear_label"]), (&colour.into(), &colour.into()));
        assert!(answer["precision_bits"].as_f64().is_some_and(|bits| bits > 5.0), "{answer}");
        assert_eq!(answer["logits"].as_array().map(Vec::len), Some(1));
    }
    let eval = run(&["eval", "--clear", "--model", &lens, "--images", &calib, "--json"]).json();
    assert_eq!(eval["accuracy"], 1.0);
}

#[test]
fn bad_input_is_explained() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    pictures(dir.path());
    let (onnx, lens, calib) = (path("net.onnx"), path("net.lens"), path("pictures"));
    let compile = |more: &[&str]| run(&[&["compile", &onnx, "--calib", &calib, "-o", &lens], more].concat());
    std::fs::write(&onnx, &colours().bytes()[..50]).expect("a file");
    compile(&[]).refused(3, &["not an ONNX file"]);
    let pooled = colours().node(node("LpPool", &["c"], "m").ints("kernel_shape", &[2, 2])).node(node("Relu", &["m"], "b"));
    let mut pooled = pooled;
    pooled.graph().output[0].name = "b".into();
    std::fs::write(&onnx, pooled.bytes()).expect("a file");
    compile(&[]).refused(3, &["/m/LpPool", "AveragePool"]);
    std::fs::write(&onnx, colours().bytes()).expect("a file");
    compile(&["--classes", "red,green"]).refused(2, &["2 class names where results tell 3 classes apart"]);
    compile(&["--std", "1,0,1"]).refused(2, &["standard deviation 0"]);
    compile(&["--preset", "insecure-tiny", "--target", "0.5"]).refused(3, &["another preset than insecure-tiny"]);
    let small = ["--preset", "insecure-small", "--target", "0.5"];
    compile(&[&small[..], &["--max-key-bytes", "1kB"]].concat())
        .refused(5, &["keys take at least", "allow at least", "--max-key-bytes"]);
    let coarse = ["--preset", "insecure-small", "--target", "0.9", "--degree", "15", "--noise-bits", "1"];
    compile(&coarse).refused(6, &["leave out --degree", "raise --noise-bits"]);
    compile(&["--calib", &path("nowhere")]).refused(3, &["nowhere"]);
    compile(&["--preset", "insecure-small", "--target", "1.5"]).refused(2, &["1.5"]);

    // Fitted to dark pictures, a bright one is refused before it is encrypted, with the layer that it leaves.
    let dark = dir.path().join("dark");
    std::fs::create_dir(&dark).expect("a folder");
    for k in 0..16u8 {
        let picture = image::RgbImage::from_fn(8, 8, |x, y| image::Rgb([120 + k, 118 + x as u8, 118 + y as u8]));
        picture.save(dark.join(format!("{k}.png"))).expect("a PNG can be written");
    }
    let narrow = ["compile", &onnx, "--calib", &path("dark"), "-o", &lens, "--preset", "insecure-small", "--target", "0"];
    let compiled = run(&narrow);
    assert_eq!(compiled.code, 0, "{}", compiled.stderr);
    image::RgbImage::from_pixel(8, 8, image::Rgb([0, 255, 0])).save(path("bright.png")).expect("a PNG can be written");
    run(&["classify", &lens, &path("bright.png")]).refused(3, &["bright.png", "a.Relu", "outside"]);
    std::fs::write(&lens, b"CIPHLENS and no more").expect("a file");
    run(&["classify", &lens, &path("green.png")]).refused(3, &[]);
}

/// A file that leaves height and width open is read with a size given, and another network is not changed by one.
#[test]
fn open_height_and_width_are_given() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let mut open = colours();
    open.graph().input[0] = common::onnx::value("x", &[1, 3, -1, -1]);
    std::fs::write(path("open.onnx"), open.bytes()).expect("a file");
    std::fs::write(path("fixed.onnx"), colours().bytes()).expect("a file");
    run(&["inspect", &path("open.onnx")]).refused(3, &["height, width are open", "--input-size"]);
    let read = run(&["inspect", &path("open.onnx"), "--input-size", "12x8"]);
    assert!(read.stdout.contains("input x 3x12x8"), "{}{}", read.stdout, read.stderr);
    run(&["plan", &path("open.onnx"), "--input-size", "8x8"]).refused(3, &["activation"]);
    run(&["inspect", &path("fixed.onnx"), "--input-size", "12x8"]).refused(3, &["height 8, and 12 was given"]);
    run(&["plan", "--input-size", "12x8"]).refused(2, &["--input-size 12x8 does not fit"]);
    run(&["inspect", &path("open.onnx"), "--input-size", "12"]).not_understood(&["224x224"]);
}

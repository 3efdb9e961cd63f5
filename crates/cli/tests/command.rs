//! The command line as a user meets it: what works, and that whatever does not work says what happened, why and what to do,
//! with its exit code and without a panic.

// Helpers of tests are not inside a test function, which is where clippy.toml allows it.
#![allow(clippy::expect_used, reason = "a test that cannot go on may stop")]

use cipherlens::wire::container;
use cipherlens::wire::objects::{CiphertextBody, KeyBody, Metadata};
use image::{DynamicImage, ImageFormat};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[path = "command/pictures.rs"]
mod pictures;
#[path = "command/run.rs"]
#[allow(dead_code, reason = "shared by tests that use parts of it")]
mod run;
#[path = "command/tiny_model.rs"]
mod tiny_model;

use run::{command, finish, run};
use tiny_model::TinyModel;

/// A copy of a file with another header, every hash right.
fn change_header<M: serde::Serialize + serde::de::DeserializeOwned>(from: &str, to: &str, change: impl FnOnce(&mut M)) {
    let kind = container::kind_of(Path::new(from)).expect("a file");
    let mut reader = container::Reader::<M>::open(Path::new(from), kind).expect("a file");
    let sizes: Vec<usize> = reader.chunks().iter().map(|c| c.words as usize).collect();
    let chunks: Vec<Vec<u32>> = sizes.iter().enumerate().map(|(i, &n)| reader.chunk(i, n).expect("a chunk")).collect();
    change(&mut reader.metadata);
    let chunks: Vec<&[u32]> = chunks.iter().map(Vec::as_slice).collect();
    container::write(Path::new(to), kind, &reader.metadata, &chunks, false).expect("written");
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).to_string_lossy().into_owned()
}

fn save(dir: &Path, name: &str, image: impl Into<DynamicImage>) -> PathBuf {
    let path = dir.join(name);
    image.into().save_with_format(&path, ImageFormat::Png).expect("a PNG can be written");
    path
}

#[test]
fn help_and_usage() {
    let help = finish(Command::new(env!("CARGO_BIN_EXE_cipherlens")).arg("--help"));
    assert_eq!(help.code, 0);
    for name in [
        "demo", "compile", "simulate", "classify", "keygen", "encrypt", "run", "decrypt", "eval", "plan", "inspect", "doctor",
        "params", "bench",
    ] {
        assert!(help.stdout.contains(name), "{name} is missing in:\n{}", help.stdout);
    }
    for args in [&["nonsense"][..], &["demo", "--threads", "0"], &["eval", "--clear"], &["demo", "--fit", "sideways"]] {
        let run = finish(Command::new(env!("CARGO_BIN_EXE_cipherlens")).args(args));
        assert_eq!(run.code, 2, "{args:?}: {}", run.stderr);
    }
}

#[test]
fn a_reader_that_goes_away_is_not_an_error() {
    let mut child =
        command(&["params", "show"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
}

#[test]
fn unknown_names_are_refused_with_what_there_is() {
    run(&["params", "show", "n99"]).refused(2, &["`n99`", "n15-cnn"]);
    run(&["demo", "--preset", "n99"]).refused(2, &["`n99`", "params list"]);
    run(&["plan", "--preset", ""]).refused(2, &[]);
    finish(command(&["doctor"]).env("CIPHERLENS_CPU", "sse9")).refused(5, &["sse9", "CIPHERLENS_CPU"]);
}

#[test]
fn doctor_and_params_answer_in_text_and_json() {
    assert!(run(&["doctor"]).stdout.contains("kernels"));
    assert!(run(&["doctor", "--json"]).json()["backend"].as_str().is_some_and(|b| b.starts_with("cpu-")));
    let list = run(&["params", "list", "--json"]).json();
    let presets = list["presets"].as_array().expect("a list");
    assert!(presets.len() >= 6);
    for preset in presets {
        let (qp, cap) = (preset["log_qp"].as_f64().expect("a number"), preset["log_qp_cap"].as_f64());
        assert!(preset["insecure"] == true || cap.is_some_and(|cap| qp <= cap), "{preset}");
    }
    let shown = run(&["params", "show", "insecure-toy", "--json"]).json();
    assert_eq!(shown["summary"]["security_bits"], 0);
    assert!(shown["bootstrap"].is_null());
    let boot = run(&["params", "show", "n16-boot", "--json"]).json();
    assert_eq!(boot["bootstrap"]["levels_left"], 13);
    assert!(boot["bootstrap"]["log2_failure"].as_f64().is_some_and(|p| p < -50.0));
    assert!(boot["bootstrap"]["log_sparse_modulus"].as_f64().is_some_and(|bits| bits < 120.0));
    assert!(boot["summary"]["estimated_security_bits"].as_f64().is_some_and(|bits| bits > 130.0));
    assert_eq!((&boot["summary"]["log_qp_cap_quantum"], &boot["summary"]["meets_quantum_128"]), (&1663.0.into(), &false.into()));
    assert_eq!(boot["summary"]["sparse_secret"]["weight"], 32);
    let text = run(&["params", "show", "n16-boot"]).stdout;
    for said in ["classical: 128 bits", "quantum: below 128", "one of weight 32"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(run(&["params", "show", "n16-boot"]).stdout.contains("EvalMod: levels 17 to 24"));
}

#[test]
fn params_search_finds_ladders_and_refuses_nonsense() {
    let fixed = ["--slots-to-coeffs", "3", "--coeffs-to-slots", "4"];
    let found = run(&[&["params", "search", "--left", "13", "--count", "1", "--json"], &fixed[..]].concat()).json();
    assert_eq!(found["candidates"][0]["special_primes"], 12);
    assert_eq!(found["candidates"].as_array().map(Vec::len), Some(1));
    let none = run(&[&["params", "search", "--left", "40"], &fixed[..]].concat());
    assert!(none.code == 0 && none.stdout.contains("no ladder"), "{}", none.stdout);
    for bad in [["--left", "0"], ["--left", "13.5"], ["--left", "x"]] {
        assert_eq!(run(&[&["params", "search"], &bad[..]].concat()).code, 2);
    }
    assert_eq!(run(&["params", "search", "--left", "13", "--level-bits", "38"]).code, 2);
}

#[test]
fn pictures_that_cannot_be_read_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = TinyModel::default().save(dir.path());
    let whole = std::fs::read(save(dir.path(), "whole.png", pictures::colours(40, 30))).expect("it was written");
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).expect("a file can be written");
    write("empty.png", b"");
    write("text.jpg", b"This is not a picture at all.");
    write("cut.png", &whole[..whole.len() / 2]);
    write("signature.png", &whole[..8]);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0xff;
    write("flipped.png", &flipped);
    write("huge.png", &pictures::header_only_png(2_000_000_000, 2_000_000_000));
    write("wide.png", &pictures::header_only_png(60_000, 60_000));
    for (name, words) in [
        ("missing.png", "No such file"),
        ("empty.png", "the file is empty"),
        ("text.jpg", "no picture format"),
        ("cut.png", ""),
        ("signature.png", ""),
        ("flipped.png", ""),
        ("huge.png", ""),
        ("wide.png", ""),
        (".", "directory"),
    ] {
        let run = run(&["demo", "--model", &model, "--preset", "insecure-toy", "--image", &path(dir.path(), name)]);
        run.refused(3, &["cannot read the picture", words]);
        assert!(run.stdout.is_empty(), "{name}: {}", run.stdout);
    }
    // As JSON, the failure is the last line.
    let run = run(&["demo", "--model", &model, "--json", "--image", &path(dir.path(), "empty.png")]);
    run.refused(3, &[]);
    let line: serde_json::Value = serde_json::from_str(run.stdout.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!((&line["error"]["exit_code"], &line["error"]["class"]), (&3.into(), &"bad_input".into()));
}

#[test]
fn unusual_pictures_work_and_it_is_said_what_was_done() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = TinyModel::default().save(dir.path());
    pictures::save_animated_gif(&dir.path().join("animated.gif"));
    pictures::save_gif(&dir.path().join("still.gif"));
    save(dir.path(), "exact.png", pictures::colours(8, 8));
    save(dir.path(), "odd.png", pictures::colours(37, 51));
    save(dir.path(), "strip.png", pictures::colours(1, 300));
    save(dir.path(), "one.png", pictures::colours(1, 1));
    save(dir.path(), "grey.png", pictures::grey(20, 20));
    save(dir.path(), "grey16.png", pictures::grey16(20, 20));
    save(dir.path(), "deep.png", pictures::colours16(20, 20));
    save(dir.path(), "clear.png", pictures::transparent(20, 20));
    for (name, notes) in [
        ("exact.png", &[][..]),
        ("odd.png", &["centre 37x37 of 37x51", "reduced from 37x37 to 8x8"]),
        ("strip.png", &["centre 1x1 of 1x300", "enlarged"]),
        ("one.png", &["enlarged from 1x1"]),
        ("grey.png", &["grey"]),
        ("grey16.png", &["16 bits", "grey"]),
        ("deep.png", &["16 bits"]),
        ("clear.png", &["transparent"]),
        ("animated.gif", &["animated: only the first frame"]),
        ("still.gif", &["reduced"]),
    ] {
        let image = path(dir.path(), name);
        let report =
            run(&["demo", "--json", "--model", &model, "--preset", "insecure-toy", "--image", &image, "--seed", "7"]).json();
        let said = report["notes"].to_string();
        assert!(notes.iter().all(|note| said.contains(note)), "{name}: {said}");
        // The three logits of a grey picture are equal.
        if !name.starts_with("grey") {
            assert_eq!(report["label"], report["clear_label"], "{name}");
        }
        let (error, range) = (report["max_abs_logit_error"].as_f64(), report["logit_range"].as_f64());
        assert!(error.zip(range).is_some_and(|(e, r)| e <= 0.01 * r.max(0.01)), "{name}: {report}");
    }
}

#[test]
fn models_that_cannot_be_used_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).expect("a file can be written");
    save(dir.path(), "picture.png", pictures::colours(8, 8));
    write("empty.safetensors", b"");
    write("text.safetensors", b"not a model");
    // A header length of 2^62.
    write("lying.safetensors", &[0, 0, 0, 0, 0, 0, 0, 0x40, b'{', b'}']);
    let tiny = |change: fn(&mut TinyModel)| {
        let mut model = TinyModel::default();
        change(&mut model);
        model
    };
    tiny(|m| m.format = "other".into()).save_as(dir.path(), "format.safetensors");
    tiny(|m| m.fc_weight[2] = f32::NAN).save_as(dir.path(), "nan.safetensors");
    tiny(|m| m.conv_weight[0] = f32::INFINITY).save_as(dir.path(), "infinite.safetensors");
    tiny(|m| m.graph = m.graph.replace("global_avg_pool", "softmax")).save_as(dir.path(), "operator.safetensors");
    tiny(|m| m.graph = m.graph.replace("\"fc.weight\"", "\"fc.wight\"")).save_as(dir.path(), "tensor.safetensors");
    tiny(|m| m.graph = m.graph.replace("\"act\",\"inputs\":[\"conv\"]", "\"act\",\"inputs\":[\"pool\"]"))
        .save_as(dir.path(), "cycle.safetensors");
    tiny(|m| m.graph.truncate(m.graph.len() / 2)).save_as(dir.path(), "json.safetensors");
    for (name, words) in [
        ("missing.safetensors", "No such file"),
        ("empty.safetensors", "an empty file"),
        ("text.safetensors", "it is a text"),
        ("lying.safetensors", "of another kind"),
        ("picture.png", "a picture"),
        ("format.safetensors", "cipherlens-model"),
        ("nan.safetensors", "NaN"),
        ("infinite.safetensors", "inf"),
        ("operator.safetensors", "softmax"),
        ("tensor.safetensors", "fc.wight"),
        ("cycle.safetensors", "cycle"),
        ("json.safetensors", "graph"),
    ] {
        let file = path(dir.path(), name);
        run(&["plan", &file]).refused(3, &["cannot use the model", words]);
        run(&["demo", "--model", &file]).refused(3, &[words]);
        run(&["eval", "--clear", "--model", &file, "--images", &path(dir.path(), ".")]).refused(3, &[words]);
    }
}

#[test]
fn a_network_deeper_than_its_preset_is_refused_with_the_numbers() {
    let dir = tempfile::tempdir().expect("a directory");
    let deep = TinyModel::with_activations(12).save(dir.path());
    run(&["plan", &deep, "--preset", "insecure-toy"]).refused(6, &["level"]);
    run(&["demo", "--model", &deep, "--preset", "insecure-toy"]).refused(6, &["level"]);
}

#[test]
fn a_seed_repeats_a_run_and_is_marked() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = TinyModel::default().save(dir.path());
    let demo = |seed: &str| run(&["demo", "--json", "--model", &model, "--preset", "insecure-toy", "--seed", seed]).json();
    let (a, b, c) = (demo("1"), demo("1"), demo("2"));
    assert_eq!(a["logits"], b["logits"]);
    assert_ne!(a["logits"], c["logits"]);
    assert_eq!(a["clear_logits"], c["clear_logits"]);
    assert_eq!(a["insecure"], true);
}

#[test]
fn every_kernel_set_and_thread_count_gives_the_same_answer_bit_for_bit() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = TinyModel::default().save(dir.path());
    let args = ["demo", "--json", "--model", &model, "--preset", "insecure-small", "--seed", "11"];
    let usual = run(&args).json();
    let one_thread = finish(Command::new(env!("CARGO_BIN_EXE_cipherlens")).args(args).args(["--threads", "1"])).json();
    assert_eq!(usual["logits"], one_thread["logits"]);
    let mut compared = 0;
    for isa in ["scalar", "avx2", "avx512"] {
        let other = finish(command(&args).env("CIPHERLENS_CPU", isa));
        if other.code == 5 {
            println!("{isa} is not available here");
            continue;
        }
        let other = other.json();
        assert_eq!(other["backend"], format!("cpu-{isa}"));
        assert_eq!(usual["logits"], other["logits"], "{isa}");
        compared += 1;
    }
    assert!(compared > 0);
}

#[test]
fn plans_say_what_the_run_then_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = TinyModel::default().save(dir.path());
    let plan = run(&["plan", &model, "--preset", "insecure-toy", "--typical-costs", "--json"]).json();
    let report = run(&["demo", "--json", "--model", &model, "--preset", "insecure-toy", "--seed", "3"]).json();
    assert_eq!(plan["counts"]["rotations"], report["rotations"]);
    assert_eq!(plan["counts"]["key_switches"], report["key_switches"]);
    assert_eq!(plan["key_bytes"], report["key_bytes"]);
    // More pictures than there is room for: what is planned is said.
    let many = ["plan", &model, "--preset", "insecure-toy", "--typical-costs", "--json", "--pictures", "1000"];
    let many = run(&many);
    let room = many.json()["pictures_together"].as_u64().expect("a number");
    assert!(room < 1000 && many.stderr.contains(&format!("room for {room}")), "{}", many.stderr);
    let text = run(&["plan", &model, "--preset", "insecure-toy"]);
    assert!(text.stdout.contains("conv") && text.stdout.contains("key switches"), "{}", text.stdout);
}

#[test]
fn evaluation_counts_labelled_pictures() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = TinyModel::default().save(dir.path());
    for class in ["red", "green", "blue"] {
        std::fs::create_dir_all(dir.path().join("set").join(class)).expect("a directory");
        for i in 0..3 {
            save(dir.path(), &format!("set/{class}/{i}.png"), pictures::plain(class, 9 + i));
        }
    }
    let report = run(&["eval", "--clear", "--json", "--model", &model, "--images", &path(dir.path(), "set")]).json();
    assert_eq!((&report["images"], &report["correct"]), (&9.into(), &9.into()), "{report}");
    let limited =
        run(&["eval", "--clear", "--json", "--limit", "3", "--model", &model, "--images", &path(dir.path(), "set")]).json();
    assert_eq!((&limited["images"], &limited["correct"]), (&3.into(), &3.into()), "{limited}");
    let set = path(dir.path(), "set");
    let encrypted =
        run(&["eval", "--encrypted", "--json", "--preset", "insecure-toy", "--model", &model, "--images", &set]).json();
    assert_eq!((&encrypted["agree"], &encrypted["correct"]), (&9.into(), &9.into()), "{encrypted}");
    // Without a fit nothing can be left: that is 0 %, and not less.
    let simulated = run(&["simulate", &model, "--images", &set]);
    assert!(simulated.text().contains("and 0.0000 % of the pictures leave"), "{}", simulated.stdout);
    let nothing = path(dir.path(), "nothing");
    std::fs::create_dir(&nothing).expect("a directory");
    run(&["eval", "--clear", "--model", &model, "--images", &nothing]).refused(3, &["no pictures"]);
    run(&["eval", "--clear", "--model", &model, "--images", &format!("packed:{nothing}")]).refused(3, &["cannot read"]);
    let wrong = format!("{}@dog", path(dir.path(), "set"));
    run(&["eval", "--clear", "--model", &model, "--images", &wrong]).refused(2, &["`dog`", "green"]);
}

#[test]
fn inspect_names_what_a_file_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = TinyModel::default().save(dir.path());
    assert!(run(&["inspect", &model]).stdout.contains("conv2d"));
    let picture = save(dir.path(), "picture.png", pictures::colours(9, 7));
    assert!(run(&["inspect", &picture.to_string_lossy()]).stdout.contains("9x7"));
    let text = path(dir.path(), "notes.txt");
    std::fs::write(&text, "hello").expect("a file can be written");
    run(&["inspect", &text]).refused(3, &["it is a text"]);
    run(&["inspect", &path(dir.path(), "missing")]).refused(3, &["No such file"]);
}

#[test]
fn client_and_server_work_through_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| path(dir.path(), name);
    let model = TinyModel::default().save(dir.path());
    save(dir.path(), "blue.png", pictures::plain("blue", 30));
    let keygen = |out: &str, allow: bool| {
        let mut args = vec!["keygen", "--model", &model, "--preset", "insecure-toy", "-o", out];
        args.extend(allow.then_some("--allow-insecure"));
        run(&args)
    };
    let (keys, others) = (file("keys"), file("others"));
    keygen(&keys, false).refused(4, &["insecure-toy", "--allow-insecure"]);
    for out in [&keys, &others] {
        let made = keygen(out, true);
        assert_eq!(made.code, 0, "{}", made.stderr);
    }
    keygen(&keys, true).refused(3, &["secret.key exists already", "--key"]);
    // Neither is replaced: not the server's keys of a secret that was moved away either.
    let before = |name: &str| std::fs::read(format!("{others}/{name}")).expect("a file");
    let (kept, theirs) = (before("evaluation.keys"), before("secret.key"));
    std::fs::rename(format!("{others}/secret.key"), file("moved.key")).expect("moved");
    keygen(&others, true).refused(3, &["evaluation.keys exists already", "another secret key"]);
    assert_eq!(std::fs::read_dir(&others).expect("a folder").count(), 1, "nothing was made");
    std::fs::rename(file("moved.key"), format!("{others}/secret.key")).expect("moved");
    assert!(before("evaluation.keys") == kept && before("secret.key") == theirs);
    let (secret, evaluation) = (format!("{keys}/secret.key"), format!("{keys}/evaluation.keys"));
    let (picture, sent, answer) = (file("blue.png"), file("sent.ct"), file("answer.ct"));

    let encrypt = |key: &str, allow: bool| {
        let mut args = vec!["encrypt", &picture, "--model", &model, "--key", key, "-o", &sent];
        args.extend(allow.then_some("--allow-insecure"));
        run(&args)
    };
    encrypt(&secret, false).refused(4, &["protects nothing"]);
    encrypt(&evaluation, true).refused(4, &["secret key"]);
    assert_eq!(encrypt(&secret, true).code, 0);

    let server = |keys: &str, input: &str| run(&["run", input, "--model", &model, "--keys", keys, "-o", &answer]);
    server(&secret, &sent).refused(4, &["kind `secret key`", "kind `evaluation keys`"]);
    server(&format!("{others}/evaluation.keys"), &sent).refused(4, &["key"]);
    server(&evaluation, &evaluation).refused(4, &["kind `ciphertext`"]);
    // Keys that the network does not need, and pictures of another size: refused by what the header says, before they are loaded.
    change_header(&evaluation, &file("fewer.keys"), |header: &mut Metadata<Vec<KeyBody>>| header.body.truncate(1));
    server(&file("fewer.keys"), &sent).refused(4, &["keys are missing"]);
    change_header(&sent, &file("more.ct"), |header: &mut Metadata<CiphertextBody>| header.body.shards += 1);
    server(&evaluation, &file("more.ct")).refused(3, &["shards: expected"]);
    change_header(&sent, &file("scale.ct"), |header: &mut Metadata<CiphertextBody>| header.body.scale *= 2.0);
    server(&evaluation, &file("scale.ct")).refused(3, &["scale: expected"]);
    let done = server(&evaluation, &sent);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(
        done.stderr.contains("warning: ") && done.stderr.contains("`insecure-toy`, which gives no security"),
        "{}",
        done.stderr
    );

    let decrypt = |key: &str, input: &str, more: &[&str]| {
        run(&[&["decrypt", input, "--model", &model, "--key", key, "--allow-insecure"], more].concat())
    };
    let label = decrypt(&secret, &answer, &["--quiet"]);
    assert_eq!(label.stdout, "blue\n", "{}", label.stderr);
    assert!(decrypt(&secret, &answer, &["--json"]).json()["logits"].is_null(), "logits are shown on request only");
    let shown = decrypt(&secret, &answer, &["--json", "--logits"]).json();
    assert_eq!(shown["logits"].as_array().map(Vec::len), Some(3));
    decrypt(&format!("{others}/secret.key"), &answer, &[]).refused(4, &["key"]);
    decrypt(&secret, &secret, &[]).refused(4, &["kind `ciphertext`"]);

    assert!(run(&["inspect", &sent]).stdout.contains("insecure-toy"));
    for whole in [&secret, &evaluation, &sent, &answer] {
        assert!(run(&["inspect", whole, "--verify"]).stdout.contains("every hash and every number is right"), "{whole}");
    }
    // A file cut short and one with a flipped bit.
    let bytes = std::fs::read(&sent).expect("it was written");
    std::fs::write(&sent, &bytes[..bytes.len() - 1]).expect("a file can be written");
    server(&evaluation, &sent).refused(3, &["cut short"]);
    let mut flipped = bytes;
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    std::fs::write(&sent, &flipped).expect("a file can be written");
    server(&evaluation, &sent).refused(3, &["damaged"]);
    assert_eq!(run(&["inspect", &sent]).code, 0, "its header is whole");
    run(&["inspect", &sent, "--verify"]).refused(3, &["chunk 0", "damaged"]);
}

#[test]
fn benchmarks_report_every_operation_and_size() {
    let ops = run(&["bench", "ops", "--preset", "insecure-toy", "--seconds", "0", "--json"]).json();
    let results = ops["results"].as_array().expect("a list");
    for op in ["mul + relinearize", "rotate", "rescale", "encode", "hoisted rotation: each"] {
        let found = results.iter().find(|r| r["op"] == op).unwrap_or_else(|| panic!("{op} is missing: {ops}"));
        assert!(found["median_ms"].as_f64().is_some_and(|ms| ms > 0.0) && found["floor_bytes"].as_u64() > Some(0), "{found}");
    }
    let args = ["bench", "rotations", "--preset", "insecure-toy", "--seconds", "0", "--steps", "2", "--shards", "1,3"];
    let rotations = finish(Command::new(env!("CARGO_BIN_EXE_cipherlens")).args(args).args(["--threads", "1,2", "--json"])).json();
    let rows: Vec<_> = rotations["results"].as_array().expect("a list").iter().map(|r| (&r["threads"], &r["shards"])).collect();
    assert_eq!(rows, [(1, 1), (1, 3), (2, 1), (2, 3)].map(|(t, s)| (t.into(), s.into())).each_ref().map(|(t, s)| (t, s)));
    run(&["bench", "ops", "--preset", "n99"]).refused(2, &["`n99`"]);
    assert_eq!(run(&["bench", "ops", "--seconds", "-1"]).code, 2);
}

#[cfg(feature = "gpu")]
#[test]
fn a_seeded_demo_gives_the_same_ciphertext_on_processor_and_gpu() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = TinyModel::default().save(dir.path());
    let args = ["demo", "--json", "--model", &model, "--preset", "insecure-toy", "--seed", "7"];
    let on = |backend: &str, adapter: &str| finish(command(&args).args(["--backend", backend]).env("WGPU_ADAPTER_NAME", adapter));
    on("gpu", "no such adapter").refused(5, &["no GPU can be used", "--backend cpu"]);
    let adapters = cipherlens::backend::gpu::adapters();
    let Some(adapter) = adapters.first() else {
        assert!(std::env::var_os("CIPHERLENS_REQUIRE_GPU").is_none(), "no adapter");
        println!("no adapter: not tested");
        return;
    };
    let want = on("cpu", "").json();
    let same = |got: serde_json::Value, backend: &str| {
        assert!(got["backend"].as_str().is_some_and(|b| b.starts_with(backend)), "{}", got["backend"]);
        assert_eq!(got["logits_ciphertext_blake3"], want["logits_ciphertext_blake3"]);
        assert_eq!(got["logits"], want["logits"]);
    };
    same(on("gpu", &adapter.name).json(), "gpu-");
    same(on("auto", &adapter.name).json(), "gpu-");
    same(on("auto", "no such adapter").json(), "cpu-");
    assert!(want["logits_ciphertext_blake3"].as_str().is_some_and(|hash| hash.len() == 64));
}

#[test]
fn the_bench_of_bootstrapping_tells_what_it_measures_and_refuses_what_it_cannot() {
    let args = ["bench", "bootstrap", "--preset", "insecure-boot", "--slots", "64", "--batch", "2", "--ciphertexts", "4"];
    let result = run(&[&args[..], &["--json"]].concat()).json();
    for key in ["seconds", "precision_bits_mean", "precision_bits_worst", "keys", "key_bytes", "keygen_seconds", "log_qp"] {
        assert!(result[key].as_f64().is_some_and(|x| x > 0.0), "{key}: {}", result[key]);
    }
    assert_eq!((result["levels_before"].as_u64(), result["level_after"].as_u64()), (Some(3), Some(7)));
    assert_eq!((result["levels_after"].as_u64(), result["slots"].as_u64()), (Some(4), Some(64)));
    assert!(result["precision_bits_mean"].as_f64().is_some_and(|bits| bits > 20.0));
    assert!(result["log2_failure"].as_f64().is_some_and(|log| log < -40.0));
    assert_eq!(result["stages"].as_object().map(|s| s.len()), Some(4));
    assert!(run(&args).stdout.contains("4 to spend before the next"));
    run(&["bench", "bootstrap", "--preset", "n14"]).refused(2, &["no levels for bootstrapping", "boot"]);
    run(&["bench", "bootstrap", "--preset", "insecure-boot", "--slots", "3"]).refused(2, &["2 to 1024 slots", "power of two"]);
    run(&["bench", "bootstrap", "--preset", "insecure-boot", "--max-key-bytes", "1MB"]).refused(2, &["1000000 are allowed"]);
}

//! Keys and ciphertexts belong to one network: those of another one of the same shape are refused on both sides, since their answer
//! would be a number like any other.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

#[path = "command/run.rs"]
#[allow(dead_code, reason = "shared by tests that use parts of it")]
mod run;
#[path = "command/tiny_model.rs"]
#[allow(dead_code, reason = "shared by tests that use parts of it")]
mod tiny_model;

use run::{Run, run};
use tiny_model::TinyModel;

/// The network that a file names, as `inspect` shows it.
fn network_of(file: &str) -> String {
    let shown = run(&["inspect", file]).stdout;
    let after = shown.split("network ").nth(1).unwrap_or_else(|| panic!("no network in:\n{shown}"));
    after.chars().take_while(char::is_ascii_hexdigit).collect()
}

#[test]
fn files_of_another_network_are_refused_by_run_and_decrypt() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let changed = |name: &str, change: fn(&mut TinyModel)| {
        let mut model = TinyModel::default();
        change(&mut model);
        model.save_as(dir.path(), name)
    };
    let ours = changed("ours.safetensors", |_| ());
    let others = [
        changed("weights.safetensors", |m| m.fc_weight[0] = 1.5),
        changed("mean.safetensors", |m| m.graph = m.graph.replace("\"mean\":[0,0,0]", "\"mean\":[0.5,0,0]")),
        changed("std.safetensors", |m| m.graph = m.graph.replace("\"std\":[1,1,1]", "\"std\":[1,1,2]")),
        changed("classes.safetensors", |m| m.graph = m.graph.replace("\"red\",\"green\"", "\"green\",\"red\"")),
    ];
    image::RgbImage::from_pixel(8, 8, image::Rgb([10, 10, 250])).save(file("blue.png")).expect("a PNG can be written");
    let (keys, secret) = (file("keys"), format!("{}/secret.key", file("keys")));
    let made = run(&["keygen", "--model", &ours, "--preset", "insecure-toy", "-o", &keys, "--allow-insecure"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let evaluation = format!("{keys}/evaluation.keys");
    let (sent, answer) = (file("sent.ct"), file("answer.ct"));
    let encrypt = |model: &str, out: &str| {
        let done = run(&["encrypt", &file("blue.png"), "--model", model, "--key", &secret, "-o", out, "--allow-insecure"]);
        assert_eq!(done.code, 0, "{}", done.stderr);
    };
    let serve = |model: &str, input: &str| run(&["run", input, "--model", model, "--keys", &evaluation, "-o", &answer]);
    let decrypt = |input: &str, more: &[&str]| run(&[&["decrypt", input, "--key", &secret, "--allow-insecure"], more].concat());
    encrypt(&ours, &sent);
    assert_eq!(serve(&ours, &sent).code, 0);

    let digest = network_of(&ours);
    assert!(digest.len() == 16 && [&sent, &answer, &evaluation].iter().all(|f| network_of(f) == digest), "{digest}");
    let refused = |result: Run, other: &str| {
        result.refused(4, &[&digest, &network_of(other), "--model", "inspect"]);
        assert!(result.stdout.is_empty(), "nothing that looks like an answer: {}", result.stdout);
    };
    for other in &others {
        refused(serve(other, &sent), other);
        refused(decrypt(&answer, &["--model", other]), other);
        // The secret key serves any network, the evaluation keys one.
        let foreign = file("foreign.ct");
        encrypt(other, &foreign);
        refused(serve(&ours, &foreign), other);
    }
    // One secret key, keys for a second network.
    let second = file("second");
    let keygen = ["keygen", "--model", &others[0], "--key", &secret, "-o", &second, "--allow-insecure"];
    assert_eq!(run(&keygen).code, 0);
    run(&keygen).refused(3, &["evaluation.keys exists already"]);
    assert!(!std::path::Path::new(&format!("{second}/secret.key")).exists());
    let (theirs, result) = (file("theirs.ct"), file("result.ct"));
    encrypt(&others[0], &theirs);
    let served = run(&["run", &theirs, "--model", &others[0], "--keys", &format!("{second}/evaluation.keys"), "-o", &result]);
    assert_eq!(served.code, 0, "{}", served.stderr);
    assert_eq!(decrypt(&result, &["--model", &others[0], "--quiet"]).stdout, "blue\n");
    // Without a model, it is the embedded one; none of its classes is printed.
    let result = decrypt(&answer, &[]);
    result.refused(4, &[&digest, "--model"]);
    assert!(result.stdout.is_empty(), "{}", result.stdout);
    // What was sent is of the right network, and no answer.
    decrypt(&sent, &["--model", &ours]).refused(3, &["not the answer"]);
    assert_eq!(decrypt(&answer, &["--model", &ours, "--quiet"]).stdout, "blue\n");
}

#[test]
fn files_of_an_older_version_are_said_to_be_old() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("old.lens");
    let mut bytes = b"CIPHLENS".to_vec();
    bytes.extend([1, 0]);
    bytes.resize(64, 0);
    for kind in 1..=6 {
        bytes[10] = kind;
        std::fs::write(&path, &bytes).expect("a file can be written");
        let (old, new) = (path.to_string_lossy(), dir.path().join("new.ct"));
        let new = new.to_string_lossy();
        for args in [
            &["inspect", &old][..],
            &["plan", &old],
            &["decrypt", &old, "--key", &old],
            &["run", &old, "--keys", &old, "-o", &new],
        ] {
            run(args).refused(3, &["version 1", "older", "compile, keygen, encrypt, run"]);
        }
    }
}

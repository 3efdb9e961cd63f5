//! Three parties in three folders, who share only the files they name: whoever compiles, a client without the network, a server without
//! the secret.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

#[path = "command/run.rs"]
#[allow(dead_code, reason = "shared by tests that use parts of it")]
mod run;

use run::{Run, command, finish};
use std::path::{Path, PathBuf};

struct Parties {
    folder: tempfile::TempDir,
}

impl Parties {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for who in ["compiler", "client", "server"] {
            std::fs::create_dir(folder.path().join(who)).expect("a folder");
        }
        Self { folder }
    }
    fn at(&self, who: &str, name: &str) -> PathBuf {
        self.folder.path().join(who).join(name)
    }
    fn run(&self, who: &str, args: &[&str]) -> Run {
        finish(command(args).current_dir(self.folder.path().join(who)))
    }
    fn hand_over(&self, from: &str, to: &str, name: &str) {
        std::fs::copy(self.at(from, name), self.at(to, Path::new(name).file_name().expect("a name").to_str().expect("text")))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    fn has(&self, who: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join(who)).expect("a folder");
        let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// Stripes of 16 x 16 in [0, 1]; `i` modulo 4 says which way they run.
fn stripes(i: usize) -> Vec<u8> {
    let (angle, frequency, phase) = ((i % 4) as f64 * 45.0, 0.6 + 0.8 * (i as f64 * 0.618).fract(), i as f64 * 0.37);
    let (sin, cos) = angle.to_radians().sin_cos();
    let value = |at: usize| 0.5 + 0.4 * (frequency * ((at % 16) as f64 * cos + (at / 16) as f64 * sin) + phase).sin();
    (0..256).map(|at| (255.0 * value(at)) as u8).collect()
}

fn save(path: &Path, pixels: Vec<u8>) {
    let image = image::GrayImage::from_raw(16, 16, pixels).expect("its size");
    image.save_with_format(path, image::ImageFormat::Png).expect("a PNG can be written");
}

#[test]
fn three_folders_share_only_named_files() {
    let parties = Parties::new();
    std::fs::create_dir(parties.at("compiler", "pictures")).expect("a folder");
    (0..120).for_each(|i| save(&parties.at("compiler/pictures", &format!("{i:03}.png")), stripes(i)));
    let onnx = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/stripes.onnx");
    let onnx = onnx.to_str().expect("text").to_owned();
    let told = ["--mean", "0.5", "--std", "0.25", "--classes", "vertical,falling,horizontal,rising"];
    let compile = ["compile", &onnx, "--calib", "pictures", "--target", "0.9", "-o", "net.lens", "--quiet"];
    parties.run("compiler", &[&compile[..], &told[..]].concat()).text();
    let size = std::fs::metadata(parties.at("compiler", "net.client")).expect("it is there").len();
    assert!(size <= 64 << 10, "net.client has {size} bytes");
    parties.hand_over("compiler", "client", "net.client");
    parties.hand_over("compiler", "server", "net.lens");

    save(&parties.at("client", "a.png"), stripes(202));
    save(&parties.at("client", "b.png"), stripes(303));
    parties.run("client", &["keygen", "--model", "net.client", "-o", ".", "--quiet"]).text();
    parties.run("client", &["encrypt", "a.png", "--model", "net.client", "-k", "secret.key", "-o", "a.ct", "--quiet"]).text();
    for name in ["evaluation.keys", "a.ct"] {
        parties.hand_over("client", "server", name);
    }
    let run = ["run", "a.ct", "--model", "net.lens", "-k", "evaluation.keys", "-o", "answer.ct", "--quiet"];
    parties.run("server", &run).text();
    assert_eq!(parties.has("server"), ["a.ct", "answer.ct", "evaluation.keys", "net.lens"]);
    parties.hand_over("server", "client", "answer.ct");
    let decrypt = ["decrypt", "answer.ct", "--model", "net.client", "-k", "secret.key"];
    let answer = parties.run("client", &decrypt);
    assert_eq!(answer.text().trim(), "horizontal", "one label, and nothing else that is derived from the key");
    let json = parties.run("client", &[&decrypt[..], &["--json"]].concat()).json();
    assert_eq!((&json["top"], json.get("logits")), (&serde_json::json!(["horizontal"]), None));
    // Logits have no more digits than the noise leaves, and the warning is there for programs too.
    let json = parties.run("client", &[&decrypt[..], &["--json", "--logits"]].concat()).json();
    assert!(json["warning"].as_str().is_some_and(|w| w.contains("server")), "{json}");
    for logit in json["logits"].as_array().expect("logits") {
        let text = logit.to_string();
        assert!(text.split('.').nth(1).unwrap_or("").len() <= 8, "{text} has the noise's digits");
    }
    let published = parties.run("client", &[&decrypt[..], &["--json", "--publish", "10"]].concat()).json();
    assert!(published["publish_deviation"].as_f64().is_some_and(|d| d > 0.0), "{published}");

    // What is no answer is refused: the encrypted picture itself by what all can see of it.
    let refused = parties.run("client", &["decrypt", "a.ct", "--model", "net.client", "-k", "secret.key"]);
    refused.refused(3, &["not an answer"]);
    // Nor is an answer an input.
    let again = ["run", "answer.ct", "--model", "net.lens", "-k", "evaluation.keys", "-o", "x.ct"];
    parties.run("server", &again).refused(3, &["answer.ct is not an encrypted picture", "encrypt"]);
    // A damaged description, and a damaged key, are bad input. Nothing is left of what was begun.
    let damaged = |name: &str, at: usize| {
        let mut bytes = std::fs::read(parties.at("client", name)).expect("it is there");
        let at = at.min(bytes.len() - 1);
        bytes[at] ^= 4;
        std::fs::write(parties.at("client", "damaged"), bytes).expect("a file");
    };
    for at in [0, 20, 60, usize::MAX] {
        damaged("net.client", at);
        for args in [
            &["encrypt", "a.png", "--model", "damaged", "-k", "secret.key", "-o", "x.ct"][..],
            &["decrypt", "answer.ct", "--model", "damaged", "-k", "secret.key"],
            &["keygen", "--model", "damaged", "-o", "more"],
        ] {
            parties.run("client", args).refused(3, &["damaged"]);
        }
    }
    damaged("secret.key", usize::MAX);
    parties.run("client", &["keygen", "--model", "net.client", "-o", "more", "--key", "damaged"]).refused(3, &["damaged"]);
    assert!(!parties.at("client", "more").exists() && !parties.at("client", "x.ct").exists());
    std::fs::remove_file(parties.at("client", "damaged")).expect("it is there");
    // An output takes the place of its own kind alone.
    let secret = std::fs::read(parties.at("client", "secret.key")).expect("it is there");
    for (taken, found) in [("secret.key", "secret key"), ("a.png", "another program"), ("net.client", "description")] {
        let encrypt = ["encrypt", "a.png", "--model", "net.client", "-k", "secret.key", "-o", taken];
        parties.run("client", &encrypt).refused(3, &[taken, found]);
    }
    assert!(std::fs::read(parties.at("client", "secret.key")).expect("it is there") == secret);
    let described = parties.run("client", &["inspect", "--verify", "net.client"]);
    assert!(described.text().contains("whole") && described.text().contains("runs of 1,"), "{}", described.text());
    // Names do not speak to the terminal, and a log that is full stops nothing.
    #[cfg(unix)]
    {
        std::fs::copy(parties.at("client", "a.ct"), parties.at("client", "a\u{1b}[2J.ct")).expect("a copy");
        let shown = parties.run("client", &["decrypt", "a\u{1b}[2J.ct", "--model", "net.client", "-k", "secret.key"]);
        assert!(shown.code == 3 && !shown.stderr.contains('\u{1b}') && shown.stderr.contains("not"), "{}", shown.stderr);
    }
    #[cfg(target_os = "linux")]
    {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
        let mut command = command(&["decrypt", "a.ct", "--model", "net.client", "-k", "secret.key"]);
        let status = command.current_dir(parties.folder.path().join("client")).stderr(full).status().expect("it starts");
        assert_eq!(status.code(), Some(3), "refused, and not aborted");
    }
    // A server that has the description alone cannot run it.
    parties.hand_over("compiler", "server", "net.client");
    parties
        .run("server", &["run", "a.ct", "--model", "net.client", "-k", "evaluation.keys", "-o", "x.ct"])
        .refused(2, &["no weights"]);
}

#[test]
fn several_pictures_share_a_ciphertext() {
    let parties = Parties::new();
    std::fs::create_dir(parties.at("compiler", "pictures")).expect("a folder");
    (0..120).for_each(|i| save(&parties.at("compiler/pictures", &format!("{i:03}.png")), stripes(i)));
    let onnx = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/stripes.onnx");
    let onnx = onnx.to_str().expect("text").to_owned();
    let told = ["--mean", "0.5", "--std", "0.25", "--classes", "vertical,falling,horizontal,rising"];
    let compile = ["compile", &onnx, "--calib", "pictures", "--target", "0.9", "-o", "net.lens", "--quiet"];
    parties.run("compiler", &[&compile[..], &told[..]].concat()).text();
    parties.hand_over("compiler", "client", "net.client");
    save(&parties.at("client", "a.png"), stripes(401));
    save(&parties.at("client", "b.png"), stripes(303));
    parties.run("client", &["keygen", "--model", "net.client", "--pictures", "2", "-o", ".", "--quiet"]).text();
    let encrypt = ["encrypt", "a.png", "b.png", "--model", "net.client", "-k", "secret.key", "-o", "two.ct", "--quiet"];
    parties.run("client", &encrypt).text();
    parties.run("client", &["encrypt", "a.png", "--model", "net.client", "-k", "secret.key", "-o", "one.ct", "--quiet"]).text();
    let run = |ct| ["run", ct, "--model", "../compiler/net.lens", "-k", "evaluation.keys", "-o", "answer.ct", "--quiet"];
    // Keys for two pictures do not fit a ciphertext of one.
    parties.run("client", &run("one.ct")).refused(4, &["--pictures"]);
    parties.run("client", &run("two.ct")).text();
    let decrypt = ["decrypt", "answer.ct", "--model", "net.client", "-k", "secret.key", "--quiet"];
    let labels = |pictures: &str| {
        parties
            .run("client", &[&decrypt[..], &["--pictures", pictures]].concat())
            .text()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(labels("2"), ["falling", "rising"]);
    // An answer does not say how many pictures it is of, and places without one look like answers.
    parties.run("client", &decrypt).refused(2, &["--pictures"]);

    // Fewer than there are places for: no place is left that the network may not bear.
    parties
        .run("client", &["keygen", "--model", "net.client", "--pictures", "4", "--key", "secret.key", "-o", "four", "--quiet"])
        .text();
    let encrypt =
        ["encrypt", "a.png", "b.png", "a.png", "--model", "net.client", "-k", "secret.key", "-o", "three.ct", "--quiet"];
    parties.run("client", &encrypt).text();
    let run = ["run", "three.ct", "--model", "../compiler/net.lens", "-k", "four/evaluation.keys", "-o", "answer.ct", "--quiet"];
    parties.run("client", &run).text();
    assert_eq!(labels("3"), ["falling", "rising", "falling"]);
}

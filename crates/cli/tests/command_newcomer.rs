//! What someone does who meets the program first: wrong files, wrong places, folders that are no classes; and what is said of it.
#![allow(clippy::expect_used, reason = "a test that cannot go on may stop")]

#[path = "command/pictures.rs"]
#[allow(dead_code, reason = "shared by tests that use parts of it")]
mod pictures;
#[path = "command/run.rs"]
#[allow(dead_code, reason = "shared by tests that use parts of it")]
mod run;
#[path = "command/tiny_model.rs"]
#[allow(dead_code, reason = "shared by tests that use parts of it")]
mod tiny_model;

use run::{Run, run};
use tiny_model::TinyModel;

/// A folder with a network, a picture, keys and an encrypted picture.
struct Folder {
    dir: tempfile::TempDir,
    model: String,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = Self { model: TinyModel::default().save(dir.path()), dir };
        pictures::plain("blue", 30).save(folder.path("blue.png")).expect("a PNG can be written");
        folder
    }
    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).expect("a file can be written");
        self.path(name)
    }
    fn keygen(&self, out: &str, more: &[&str]) -> Run {
        let (model, out) = (&self.model, self.path(out));
        run(&[&["keygen", "--model", model, "--preset", "insecure-toy", "-o", &out, "--allow-insecure"], more].concat())
    }
    fn encrypt(&self, out: &str, more: &[&str]) -> Run {
        let (picture, key, out) = (self.path("blue.png"), self.path("keys/secret.key"), self.path(out));
        run(&[&["encrypt", &picture, "--model", &self.model, "--key", &key, "-o", &out, "--allow-insecure"], more].concat())
    }
    fn serve(&self, input: &str, out: &str) -> Run {
        let (input, keys, out) = (self.path(input), self.path("keys/evaluation.keys"), self.path(out));
        run(&["run", &input, "--model", &self.model, "--keys", &keys, "-o", &out])
    }
}

/// How often a text has another in it.
fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn where_nothing_can_be_written_is_said_before_the_work() {
    let folder = Folder::new();
    folder.keygen("keys", &[]).text();
    folder.encrypt("in.ct", &[]).text();
    let nowhere = folder.path("nowhere/x");
    for refused in [
        folder.serve("in.ct", "nowhere/x"),
        folder.encrypt("nowhere/x", &[]),
        run(&["spec", &folder.model, "--preset", "insecure-toy", "-o", &nowhere]),
        run(&["compile", &folder.model, "--calib", &folder.path("no pictures"), "-o", &nowhere]),
    ] {
        refused.refused(5, &["cannot write", "No such file", "name a file in a folder that is there"]);
        assert_eq!(count(&refused.stderr, &nowhere), 1, "{}", refused.stderr);
    }
    folder.write("file", "a");
    folder.keygen("file/keys", &[]).refused(3, &["cannot make files in", "is no folder"]);
    assert!(!std::path::Path::new(&folder.path("nowhere")).exists());
}

#[test]
fn an_output_does_not_take_the_place_of_an_input() {
    let folder = Folder::new();
    folder.keygen("keys", &[]).text();
    folder.encrypt("in.ct", &[]).text();
    std::fs::hard_link(folder.path("in.ct"), folder.path("second.ct")).expect("another name");
    let before = std::fs::read(folder.path("in.ct")).expect("a file");
    for out in ["in.ct", "keys/../in.ct", "second.ct"] {
        folder.serve("in.ct", out).refused(2, &["cannot write", "an input of this command", "--output"]);
    }
    assert!(std::fs::read(folder.path("in.ct")).expect("a file") == before);
    // What each is for is told by its header.
    folder.serve("in.ct", "out.ct").text();
    let inspect = |name: &str, more: &[&str]| run(&[&["inspect", &folder.path(name)], more].concat());
    let (sent, answer) = (inspect("in.ct", &[]), inspect("out.ct", &[]));
    assert!(sent.text().contains("an encrypted picture") && sent.text().contains("1 ciphertext, level"), "{}", sent.stdout);
    assert!(answer.text().contains("an encrypted answer"), "{}", answer.stdout);
    assert!(inspect("keys/evaluation.keys", &[]).text().contains(" keys, for the server"));
    // Whether there was anything to verify is said of every kind.
    for (name, said) in [("in.ct", "whole"), ("blue.png", "nothing to verify"), ("tiny.safetensors", "nothing to verify")] {
        assert!(inspect(name, &["--verify"]).text().contains(said), "{name}");
    }
}

#[test]
fn files_in_the_wrong_place_are_called_by_their_names() {
    let folder = Folder::new();
    folder.keygen("keys", &[]).text();
    folder.encrypt("in.ct", &[]).text();
    let client = folder.path("net.client");
    run(&["spec", &folder.model, "--preset", "insecure-toy", "-o", &client]).text();
    let (blue, text, sent, secret) =
        (folder.path("blue.png"), folder.write("notes.txt", "hello"), folder.path("in.ct"), folder.path("keys/secret.key"));
    let encrypt = |model: &str, key: &str| run(&["encrypt", &blue, "--model", model, "--key", key, "-o", &folder.path("x.ct")]);
    let as_model = [run(&["demo", "--model", &client]), encrypt(&sent, &secret), run(&["plan", &secret])];
    for (refused, (code, words)) in
        as_model.iter().zip([(2, "has no weights"), (3, "kind `ciphertext`"), (3, "kind `secret key`")])
    {
        refused.refused(code, &[words]);
        assert!(!refused.stderr.contains("::"), "{}", refused.stderr);
    }
    for key in [&blue, &text] {
        encrypt(&client, key).refused(3, &["not a cipherlens file", "secret.key"]);
    }
    let decrypt = |input: &str| run(&["decrypt", input, "--model", &client, "--key", &secret, "--allow-insecure"]);
    let refused = decrypt(&blue);
    refused.refused(3, &["not a cipherlens file", "cipherlens run"]);
    assert!(!refused.stderr.contains("damaged"), "{}", refused.stderr);
    // A damaged description is named.
    let mut damaged = std::fs::read(&client).expect("a file");
    damaged[60] ^= 1;
    let damaged = folder.write("damaged.client", damaged);
    encrypt(&damaged, &secret).refused(3, &["cannot use", "damaged.client"]);
    // What nothing knows, and what is no file.
    let unknown = folder.write("unknown", [3, 200, 7, 1, 9, 250, 31, 8, 77]);
    let refused = run(&["inspect", &unknown]);
    refused.refused(3, &["cannot tell what", "pictures (PNG"]);
    assert!(!refused.stderr.contains("as told above"), "{}", refused.stderr);
    #[cfg(unix)]
    for args in [["inspect", "/dev/zero"], ["plan", "/dev/zero"]] {
        run(&args).refused(3, &["no regular file"]);
    }
    let lstm = TinyModel::default();
    let lstm = TinyModel { graph: lstm.graph.replace("global_avg_pool", "lstm"), ..lstm }.save_as(folder.dir.path(), "lstm");
    let refused = run(&["plan", &lstm]);
    refused.refused(3, &["(lstm)", "supported: conv2d", "what is said beside it"]);
}

#[test]
fn pictures_and_keys_of_different_numbers_are_told_at_encryption() {
    let folder = Folder::new();
    folder.keygen("keys", &["--pictures", "2"]).text();
    // The client has the keys beside the secret: it can know.
    let alone = folder.encrypt("one.ct", &[]);
    assert!(alone.code == 0 && alone.stderr.contains("encrypt with --pictures 2"), "{}", alone.stderr);
    folder.serve("one.ct", "x.ct").refused(4, &["--pictures 2"]);
    let padded = folder.encrypt("two.ct", &["--pictures", "2"]);
    assert!(padded.text().contains("places for 2 pictures") && padded.stderr.is_empty(), "{}", padded.stderr);
    folder.serve("two.ct", "answer.ct").text();
    let (answer, key) = (folder.path("answer.ct"), folder.path("keys/secret.key"));
    let decrypt = ["decrypt", &answer, "--model", &folder.model, "--key", &key, "--allow-insecure"];
    let labels = run(&[&decrypt[..], &["--pictures", "1", "--quiet"]].concat());
    assert_eq!(labels.text(), "blue\n");
    let (blue, out) = (folder.path("blue.png"), folder.path("three.ct"));
    let three = ["encrypt", &blue, &blue, &blue, "--model", &folder.model, "--key", &key, "-o", &out, "--allow-insecure"];
    run(&[&three[..], &["--pictures", "2"]].concat()).refused(2, &["--pictures 2", "3 came"]);
    let many = folder.keygen("many", &["--pictures", "64"]);
    assert!(
        many.code == 0 && many.stderr.contains("64 pictures in one run were asked for, and there is room for"),
        "{}",
        many.stderr
    );
    let client = folder.path("net.client");
    run(&["spec", &folder.model, "--preset", "insecure-toy", "-o", &client]).text();
    let many = run(&["keygen", "--model", &client, "--pictures", "17", "-o", &folder.path("more"), "--allow-insecure"]);
    many.refused(2, &["17 pictures", "a smaller number with --pictures"]);
    assert!(!many.stderr.contains("encrypt"), "{}", many.stderr);

    // Noise to publish under takes the decimals that nothing is left of.
    let published = run(&[&decrypt[..], &["--pictures", "1", "--publish", "64"]].concat());
    let logits =
        published.text().lines().filter(|line| ["red", "green", "blue"].iter().any(|c| line.trim().ends_with(&format!("  {c}"))));
    let logits: Vec<&str> = logits.collect();
    assert!(logits.len() == 3 && logits.iter().all(|line| !line.contains('.')), "{}", published.stdout);

    // A key that others can read is warned of, once made readable.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("a mode");
        let warned = folder.encrypt("two.ct", &["--pictures", "2"]);
        assert!(
            warned.code == 0 && warned.stderr.contains("warning: ") && warned.stderr.contains("chmod 600"),
            "{}",
            warned.stderr
        );
    }
}

#[test]
fn folders_that_are_no_classes_are_told() {
    let folder = Folder::new();
    for class in ["blue", "dog", "1"] {
        std::fs::create_dir_all(folder.path(&format!("set/{class}"))).expect("a directory");
        pictures::plain("blue", 9).save(folder.path(&format!("set/{class}/a.png"))).expect("a PNG can be written");
    }
    let set = folder.path("set");
    for args in [
        &["eval", "--clear", "--json", "--model", &folder.model, "--images", &set][..],
        &["simulate", &folder.model, "--json", "--images", &set],
    ] {
        let told = run(args);
        told.json();
        assert!(told.stderr.contains("the folder `dog`") && told.stderr.contains("red, green, blue"), "{}", told.stderr);
    }
    run(&["eval", "--model", &folder.model, "--images", &set]).not_understood(&["--clear", "--encrypted"]);
    let lens = folder.path("net.lens");
    let compile = ["compile", &folder.model, "--calib", &set, "-o", &lens, "--preset", "insecure-toy"];
    run(&[&compile[..], &["--classes", "a,b,a"]].concat()).refused(2, &["two classes are named \"a\"", "all different"]);
    run(&[&compile[..], &["--std", "0,0,0"]].concat()).refused(2, &["standard deviation 0", "above 0"]);
}

//! The command killed while it works, at any time and in both ways: what has a name is whole, what was there is not lost, and the work can
//! be done again.
#![cfg(unix)]
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

#[path = "command/run.rs"]
#[allow(dead_code, reason = "shared by tests that use parts of it")]
mod run;

use run::{command, finish};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const KILLS: u32 = 27;

/// Everything in a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry"));
    entries.map(|e| (e.file_name().to_string_lossy().into_owned(), std::fs::read(e.path()).expect("a file"))).collect()
}

/// A folder as it is before every run.
fn put(folder: &Path, before: &BTreeMap<String, Vec<u8>>) {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir(folder).expect("a folder");
    for (name, bytes) in before {
        std::fs::write(folder.join(name), bytes).expect("a file");
    }
}

/// Runs the command and kills it after `wait`; whether it was still at work.
fn killed(args: &[&str], folder: &Path, wait: Duration, signal: Signal) -> bool {
    let mut command = command(args);
    let command = command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the command starts");
    std::thread::sleep(wait);
    kill_process(Pid::from_child(&child), signal).expect("the process is there until it is waited for");
    !child.wait().expect("it ends").success()
}

/// Runs `args` on a folder of files, killed at [`KILLS`] times from its start to its end. After each, every file but `made` is as it was, `made` are whole where
/// they are, in that order, and nothing else is there.
fn under_fire(args: &[&str], before: &BTreeMap<String, Vec<u8>>, made: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let work = folder.path().join("work");
    put(&work, before);
    let start = Instant::now();
    finish(command(args).current_dir(&work)).text();
    let whole = start.elapsed();
    let after = files(&work);
    let (mut at_work, mut partly) = (0, 0);
    for k in 0..KILLS {
        put(&work, before);
        let signal = [Signal::KILL, Signal::INT, Signal::TERM][k as usize % 3];
        at_work += u32::from(killed(args, &work, whole * k / KILLS, signal));
        let left = files(&work);
        for (name, bytes) in before.iter().filter(|(name, _)| !made.contains(&name.as_str())) {
            assert!(left.get(name) == Some(bytes), "{name} is lost or changed");
        }
        let odd: Vec<_> = left.keys().filter(|name| !before.contains_key(*name) && !made.contains(&name.as_str())).collect();
        // A file system that names every file keeps what it has of one that has no name yet, and says so by its name. Where it need not, a
        // test of the library sees that there is none.
        assert!(odd.iter().all(|name| name.starts_with('.') && name.ends_with(".part")), "{odd:?} is left");
        for name in made.iter().filter(|name| left.contains_key(**name)) {
            finish(command(&["inspect", "--verify", name]).current_dir(&work)).text();
            assert!(left[*name].len() == after[*name].len() || left.get(*name) == before.get(*name), "{name} is partly there");
        }
        let new = |name: &&str| left.contains_key(*name) && left.get(*name) != before.get(*name);
        let there = made.iter().take_while(|name| new(name)).count();
        assert_eq!(there, made.iter().filter(|name| new(name)).count(), "{:?}: a later file without an earlier one", left.keys());
        partly += u32::from(there > 0 && there < made.len());
    }
    println!("{args:?}: {whole:?} alone; {at_work} of {KILLS} killed at work, {partly} between two files");
    assert!(at_work >= KILLS / 3, "the command was hardly ever at work: {at_work}");
    put(&work, before);
    finish(command(args).current_dir(&work)).text();
}

#[test]
fn a_killed_command_leaves_whole_files_only() {
    let (place, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let onnx = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/stripes.onnx");
    let pictures = place.path().join("pictures");
    std::fs::create_dir(&pictures).expect("a folder");
    for k in 0..40u32 {
        let image =
            image::GrayImage::from_fn(16, 16, |x, y| image::Luma([(128 + (x * (k % 5) + y * (k % 7) + k) * 13 % 120) as u8]));
        image.save_with_format(pictures.join(format!("{k}.png")), image::ImageFormat::Png).expect("a PNG");
    }
    let compile =
        ["compile", onnx.to_str().expect("text"), "--calib", "pictures", "--target", "0.5", "-o", "net.lens", "--quiet"];
    let told = ["--mean", "0.5", "--std", "0.25"];
    finish(command(&[&compile[..], &told].concat()).current_dir(place.path())).text();
    let model = place.path().join("net.lens");
    let here = |args: &[&str]| finish(command(args).current_dir(folder.path())).text().to_owned();
    let model = model.to_str().expect("text");
    let keygen = ["keygen", "--model", model, "-o", "."];
    here(&keygen);
    let keys = files(folder.path());
    let image = image::GrayImage::from_fn(16, 16, |x, _| image::Luma([100 + 9 * x as u8]));
    image.save_with_format(folder.path().join("a.png"), image::ImageFormat::Png).expect("a PNG");
    let encrypt = ["encrypt", "a.png", "--model", model, "-k", "secret.key", "-o", "a.ct"];
    here(&encrypt);
    let mut client = files(folder.path());

    // A secret key is never lost to a second attempt, and evaluation keys never stand without theirs.
    under_fire(&keygen, &BTreeMap::new(), &["secret.key", "evaluation.keys"]);
    let secret: BTreeMap<_, _> = keys.into_iter().filter(|(name, _)| name == "secret.key").collect();
    under_fire(&["keygen", "--model", model, "-o", ".", "--key", "secret.key"], &secret, &["evaluation.keys"]);
    // A ciphertext is replaced in one step, or it is the old one.
    under_fire(&encrypt, &client, &["a.ct"]);
    client.remove("a.ct");
    under_fire(&encrypt, &client, &["a.ct"]);
}

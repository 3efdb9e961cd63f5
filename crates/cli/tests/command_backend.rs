//! `--backend`, `--adapter` and `--max-vram` as a user meets them: what is refused, and that a GPU gives the processor's bits
//! wherever a command computes on ciphertexts.

// Helpers of tests are not inside a test function, which is where clippy.toml allows it.
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

use run::{Run, command, finish, run};
use tiny_model::TinyModel;

fn run_with(args: &[&str], variables: &[(&str, &str)]) -> Run {
    finish(command(args).envs(variables.iter().copied()))
}

/// Commands that take a backend, with what else they need to come as far as opening it.
fn commands(dir: &std::path::Path) -> Vec<Vec<String>> {
    let model = TinyModel::default().save(dir);
    let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
    std::fs::create_dir_all(dir.join("set/red")).expect("a directory");
    pictures::plain("red", 9).save(dir.join("set/red/0.png")).expect("a picture can be written");
    let made = run(&["keygen", "--model", &model, "--preset", "insecure-toy", "--allow-insecure", "-o", &file("keys")]);
    assert!(made.code == 0 || made.stderr.contains("exists already"), "{}", made.stderr);
    let (secret, keys, set) = (file("keys/secret.key"), file("keys/evaluation.keys"), file("set"));
    let (sent, answer) = (file("in.ct"), file("out.ct"));
    let encrypted =
        run(&["encrypt", &file("set/red/0.png"), "--model", &model, "--key", &secret, "--allow-insecure", "-o", &file("in.ct")]);
    assert_eq!(encrypted.code, 0, "{}", encrypted.stderr);
    let toy = ["--model", model.as_str(), "--preset", "insecure-toy"];
    let all: [&[&str]; 5] = [
        &[&["demo", "--json", "--seed", "7"], &toy[..]].concat(),
        &[&["eval", "--encrypted", "--json", "--images", &set], &toy[..]].concat(),
        &["run", &sent, "--model", &model, "--keys", &keys, "-o", &answer],
        &["bench", "ops", "--preset", "insecure-toy", "--seconds", "0", "--json"],
        &["bench", "rotations", "--preset", "insecure-toy", "--seconds", "0", "--steps", "1", "--shards", "2", "--json"],
    ];
    all.iter().map(|args| args.iter().map(|&a| a.to_owned()).collect()).collect()
}

fn with<'a>(args: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    args.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[test]
fn what_is_not_there_is_refused_before_anything_is_computed() {
    let dir = tempfile::tempdir().expect("a directory");
    for args in commands(dir.path()) {
        run(&with(&args, &["--backend", "cuda"])).not_understood(&["'cuda'", "auto, cpu, gpu"]);
        run(&with(&args, &["--adapter", ""])).not_understood(&["--adapter"]);
        run(&with(&args, &["--backend", "gpu", "--max-vram", "6 parsecs"])).not_understood(&["6GiB"]);
        run(&with(&args, &["--backend", "cpu", "--adapter", "x"])).not_understood(&["contradict", "--adapter"]);
        run(&with(&args, &["--max-vram", "1GiB"])).not_understood(&["contradict", "--max-vram"]);
        if cfg!(feature = "gpu") {
            // Named by option, or by variable and wanted by option.
            let none = ["no GPU can be used: no adapter has `no such adapter` in its name", "--backend cpu"];
            run(&with(&args, &["--adapter", "no such adapter"])).refused(5, &none);
            run_with(&with(&args, &["--backend", "gpu"]), &[("WGPU_ADAPTER_NAME", "no such adapter")]).refused(5, &none);
            let elsewhere = if cfg!(target_os = "macos") { "vulkan" } else { "metal" };
            run_with(&with(&args, &["--backend", "gpu"]), &[("WGPU_BACKEND", elsewhere)]).refused(5, &["no GPU can be used"]);
        } else {
            run(&with(&args, &["--backend", "gpu"])).not_understood(&["built without GPU support"]);
        }
        // What is not demanded is not missed, but it is said.
        let auto = run(&with(&args, &["--backend", "auto", "--adapter", "no such adapter"]));
        assert_eq!(auto.code, 0, "{}", auto.stderr);
        assert!(auto.stderr.contains("note: computing on the processor: no GPU can be used"), "{}", auto.stderr);
    }
}

#[test]
fn calls_to_compare_that_there_are_not_are_refused_with_those_there_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let demo = &commands(dir.path())[0];
    for calls in ["mul_plian", "add,mul_plian", "download"] {
        let wrong = calls.rsplit(',').next().unwrap_or_default();
        let refused = run_with(&with(demo, &["--backend", "cpu"]), &[("CIPHERLENS_COMPARE", calls)]);
        refused.refused(2, &[&format!("no call `{wrong}`"), "mul_plain", "CIPHERLENS_COMPARE"]);
    }
}

#[cfg(feature = "gpu")]
#[test]
fn every_command_computes_on_a_gpu_what_the_processor_computes() {
    let Some(adapter) = cipherlens::backend::gpu::adapters().into_iter().next() else {
        assert!(std::env::var_os("CIPHERLENS_REQUIRE_GPU").is_none(), "no adapter");
        println!("no adapter: not tested");
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("out.ct");
    for args in commands(dir.path()) {
        let cpu = run(&with(&args, &["--backend", "cpu"]));
        let answer = std::fs::read(&out).ok();
        let gpu = run(&with(&args, &["--adapter", &adapter.name, "--max-vram", "2GiB"]));
        if args[0] == "run" {
            assert_eq!((cpu.code, gpu.code), (0, 0), "{}{}", cpu.stderr, gpu.stderr);
            assert!(answer.is_some() && answer == std::fs::read(&out).ok(), "the answers differ");
            continue;
        }
        let (cpu, gpu) = (cpu.json(), gpu.json());
        assert!(cpu["backend"].as_str().is_some_and(|b| b.starts_with("cpu-")), "{cpu}");
        assert!(gpu["backend"].as_str().is_some_and(|b| b.starts_with("gpu-")), "{gpu}");
        for same in ["logits_ciphertext_blake3", "agree", "images", "key_bytes"] {
            assert_eq!(cpu[same], gpu[same], "{} {same}", args[0]);
        }
    }
    let demo = &commands(dir.path())[0];
    let done = run(&with(demo, &["--adapter", &adapter.name])).json();
    let device = &done["device"];
    for number in ["dispatches", "uploaded_bytes", "key_bytes", "downloaded_bytes", "peak_bytes"] {
        assert!(device["done"][number].as_u64() > Some(0) && device["done"][number] == device["planned"][number], "{device}");
    }
    assert_eq!(device["faults"].as_array().map(Vec::len), Some(0), "{device}");
    // Call by call beside the processor.
    let compared = run_with(&with(demo, &["--adapter", &adapter.name]), &[("CIPHERLENS_COMPARE", "all")]).json();
    assert_eq!(compared["logits_ciphertext_blake3"], done["logits_ciphertext_blake3"]);
    run(&with(demo, &["--adapter", &adapter.name, "--max-vram", "1KiB"])).refused(5, &["layer `", "allow more with --max-vram"]);
    let little = run(&with(&commands(dir.path())[3], &["--adapter", &adapter.name, "--max-vram", "1KiB"]));
    little.refused(5, &["cannot allocate"]);
}

/// Lines of a report of `bench backends`, each with these devices.
fn lines(report: &serde_json::Value, devices: &[&str]) -> Vec<String> {
    let lines = report["lines"].as_array().expect("a list");
    for line in lines {
        let measured = line["devices"].as_array().expect("a list");
        let names: Vec<_> = measured.iter().map(|d| d["device"].as_str().unwrap_or_default()).collect();
        assert_eq!(names, devices, "{line}");
        assert!(measured.iter().all(|d| d["wall_ms"].as_f64() > Some(0.0)), "{line}");
        assert!(measured.iter().all(|d| line["floor_bytes"].is_null() || d["copy_fraction"].as_f64() > Some(0.0)), "{line}");
        assert_eq!(line["same_bits"], if devices.len() > 1 { true.into() } else { serde_json::Value::Null }, "{line}");
    }
    lines.iter().map(|l| format!("{} {}", l["case"].as_str().unwrap_or_default(), l["shards"])).collect()
}

const QUICK: [&str; 7] = ["bench", "backends", "--quick", "--json", "--seconds", "0", "--shards"];

#[test]
fn bench_backends_measures_everything_and_says_what_it_left_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("record.md").to_string_lossy().into_owned();
    let report = run(&[&QUICK[..], &["1,3", "--backend", "cpu", "--markdown", &file]].concat()).json();
    let found = lines(&report, &["cpu"]);
    for name in ["ntt_forward 1", "tensor 1", "plain_inner_product 2", "key_switch 1", "rotate 3", "rotate_hoisted 3"] {
        assert!(found.iter().any(|f| f == name), "{name} is missing: {found:?}");
    }
    assert!(found.iter().any(|f| f.starts_with("convolution")), "{found:?}");
    assert!(report["no_gpu"].as_str().is_some_and(|why| why.contains("--backend cpu")), "{}", report["no_gpu"]);
    let text = std::fs::read_to_string(file).expect("the tables were written");
    assert!(text.contains("| key_switch | 1 |") && text.contains("none measured"), "{text}");

    run(&["bench", "backends", "--sizes", "n99"]).not_understood(&["'n99'", "n16-47"]);
    run(&["bench", "backends", "--shards", "0"]).not_understood(&["--shards"]);
    let nowhere = dir.path().join("no/such/folder/x.md").to_string_lossy().into_owned();
    let unwritable = ["1", "--only", "add", "--backend", "cpu", "--markdown", &nowhere];
    run(&[&QUICK[..], &unwritable].concat()).refused(5, &["cannot write"]);
    if cfg!(feature = "gpu") {
        run(&[&QUICK[..], &["1", "--adapter", "no such adapter"]].concat()).refused(5, &["no GPU can be used"]);
    }
}

#[cfg(feature = "gpu")]
#[test]
fn bench_backends_compares_the_bits_of_processor_and_gpu() {
    let Some(adapter) = cipherlens::backend::gpu::adapters().into_iter().next() else {
        assert!(std::env::var_os("CIPHERLENS_REQUIRE_GPU").is_none(), "no adapter");
        println!("no adapter: not tested");
        return;
    };
    let kernels = ["1", "--only", "add,tensor,base_convert", "--adapter", &adapter.name];
    let report = run(&[&QUICK[..], &kernels].concat()).json();
    assert_eq!(lines(&report, &["cpu", "gpu"]), ["add 1", "tensor 1", "base_convert 1"]);
    assert_eq!(report["devices"].as_array().map(Vec::len), Some(2));
    if adapter.timestamps {
        let on_gpu = &report["lines"][2]["devices"][1];
        assert!(on_gpu["kernels_ms"].as_f64() > Some(0.0) && on_gpu["kernels"][0]["kernel"].is_string(), "{on_gpu}");
    }
}

#[cfg(feature = "gpu")]
#[test]
fn doctor_tests_the_adapter_that_is_asked_for() {
    let elsewhere = run(&["doctor", "--json", "--adapter", "no such adapter"]).json();
    assert!(elsewhere["gpu"]["ready"].is_null(), "{elsewhere}");
    assert!(elsewhere["gpu"]["reason"].as_str().is_some_and(|r| r.contains("no such adapter")), "{elsewhere}");
    let presets = elsewhere["gpu"]["presets"].as_array().expect("a list");
    assert!(presets.iter().all(|p| p["key_bytes"].as_u64() > Some(0)) && presets.len() >= 5, "{presets:?}");
    let Some(adapter) = cipherlens::backend::gpu::adapters().into_iter().next() else {
        assert!(std::env::var_os("CIPHERLENS_REQUIRE_GPU").is_none(), "no adapter");
        println!("no adapter: not tested");
        return;
    };
    let first = |report: &serde_json::Value| report["gpu"]["adapters"][0].clone();
    let tested = run(&["doctor", "--json", "--adapter", &adapter.name]).json();
    assert_eq!(tested["gpu"]["ready"], adapter.name.as_str(), "{tested}");
    let tests = first(&tested)["self_tests"].as_array().cloned().unwrap_or_default();
    for form in if adapter.int64 { &[64, 32][..] } else { &[32] } {
        let passed: Vec<_> =
            tests.iter().filter(|t| t["form"] == *form && t["passed"] == true).map(|t| t["test"].clone()).collect();
        assert_eq!(passed, ["products", "the forward transform", "the inverse transform", "a key switch"], "{tests:?}");
    }
    let speed = first(&tested)["speed"].clone();
    let parts: Vec<f64> = speed["demo_parts"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_f64).collect();
    assert!(parts.len() == 3 && parts.iter().all(|seconds| *seconds > 0.0), "{speed}");
    assert!(speed["traffic_bytes_per_second"].as_f64() > Some(1e6) && speed["gap_seconds"].as_f64() < Some(1.0), "{speed}");
    let text = run(&["doctor", "--adapter", &adapter.name]);
    assert!(text.stdout.contains("than this processor") && text.stdout.contains("what limits it is"), "{}", text.stdout);
    assert!(text.stdout.contains("self-test of products, 32-bit products: the processor's bits"), "{}", text.stdout);
    if adapter.kind == "software" {
        let unnamed = run(&["doctor", "--json"]).json();
        assert!(first(&unnamed)["speed"].is_null(), "{unnamed}");
        let why = first(&unnamed)["untested"].clone();
        assert!(why.as_str().is_some_and(|w| w.contains("by name only")) && unnamed["gpu"]["ready"].is_null(), "{unnamed}");
    }
}

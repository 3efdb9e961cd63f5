//! Random networks from pictures to decrypted answers, on small rings that have every mechanism of the large ones: what the plan says the
//! run does, and what comes out is what the clear network gives, within the noise foreseen.
//!
//! CI runs forty; `CIPHERLENS_NETWORKS=2000 cargo test --release --test random_networks -- --ignored --nocapture as_many_networks` runs as
//! many, from `CIPHERLENS_SEED` on; `CIPHERLENS_PRESET=n16-boot` at full size. `as_many_compiled` in its place has the engine compile them,
//! as a user's are, with layers that grow or shrink from one to the next; CI runs six.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use chacha20::ChaCha8Rng;
use cipherlens::{
    backend::{Backend, cpu::CpuBackend},
    circuits::{EncryptedEngine, NoisyEngine},
    ckks::{Decryptor, Encoder, Encryptor, Evaluator, KeyGenerator, KeyRequest, Params, PlainForm, RandomSource, presets},
    engine::{self, Client, CompileOptions, EngineError, Server},
    nn::{
        LowerOptions, Lowered, Model,
        calibration::magnitudes,
        clear::Network,
        fit::ChooseOptions,
        fitting_slots, lower,
        simulate::{Labelled, check_picture},
        tensor::Tensor,
    },
    plan::{Decisions, MemoryLimits, Plan, PlanError, PlanOptions, execute},
};
use common::{
    cnn::{Size, fitted, pictures, random},
    models::seeded,
};
use rand::{RngExt, SeedableRng};
use std::sync::Arc;

/// What became of a network.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    ran: usize,
    /// Refused before a key was made: too deep, or values that nothing bounds.
    refused: usize,
    bootstraps: usize,
    several_pictures: usize,
    several_shards: usize,
    /// Where a value that no activation bounds is bootstrapped.
    by_magnitude: usize,
    bounded_keys: usize,
    /// Largest error over the one foreseen.
    worst: f64,
}

impl std::ops::AddAssign for Outcome {
    fn add_assign(&mut self, o: Self) {
        self.ran += o.ran;
        self.refused += o.refused;
        self.bootstraps += o.bootstraps;
        self.several_pictures += o.several_pictures;
        self.several_shards += o.several_shards;
        self.bounded_keys += o.bounded_keys;
        self.by_magnitude += o.by_magnitude;
        self.worst = self.worst.max(o.worst);
    }
}

/// Small sets that have every mechanism of the large ones.
const SMALL: [&str; 6] =
    ["insecure-deep", "insecure-boot", "insecure-boot-deep", "insecure-boot-deep", "insecure-boot-lean", "insecure-boot-sparse"];

/// Errors are sums of many small ones: this many times the largest one of [`DRAWS`] is some 10 deviations, or a mistake.
const TAIL: f64 = 5.0;
/// Logits that noisy runs give at least, over all runs: the largest error of fewer is often a small one.
const DRAWS: usize = 32;

fn one(seed: u64, preset: Option<&str>) -> Outcome {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let preset = preset.unwrap_or(SMALL[rng.random_range(0..SMALL.len())]);
    let params = presets::by_name(preset).unwrap();
    let size = match params.log_n() {
        0..=13 if rng.random_range(0..2) == 0 => Size { side: 9, elements: params.slots() / 4, layers: 6, gain: 1.0 },
        0..=13 => Size { side: 16, elements: 2 * params.slots(), layers: 8, gain: 1.0 },
        _ => Size { side: 40, elements: params.slots(), layers: 14, gain: 1.0 },
    };
    let exact = random(size, &mut rng);
    let seen = pictures(&exact, 12, &mut rng);
    let usable = params.bootstrap().map_or(5, |_| params.output_level().unwrap().0 - params.input_level().unwrap().0);
    let Some(mut model) = fitted(&exact, &seen, usable.clamp(2, 5), &mut rng) else {
        return Outcome { refused: 1, ..Outcome::default() };
    };
    let inside: Vec<Tensor<f64>> = seen.into_iter().filter(|x| check_picture(&model, &x.cast()).is_ok()).collect();
    if inside.is_empty() {
        return Outcome { refused: 1, ..Outcome::default() };
    }

    // As commands do: the fewest slots where there is room for several pictures or something to bootstrap, else all.
    let most = params.bootstrap().map_or(params.slots(), |spec| params.slots().min(1 << spec.log_slots));
    let fitting = fitting_slots(&model, most);
    let room = most / fitting;
    let together = if room > 1 && rng.random_range(0..3) == 0 { 1 << rng.random_range(1..=room.ilog2().min(2)) } else { 1 };
    let slots = if together > 1 || params.bootstrap().is_some() { fitting } else { params.slots() };
    let lowered = |model: &Model| {
        let lowered = lower(model, slots, &LowerOptions::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        lowered.interleaved(together)
    };
    let plan = |lowered: &Lowered, max_key_bytes| {
        Plan::new(
            &lowered.program,
            &params,
            &PlanOptions { limits: MemoryLimits::of_keys(max_key_bytes), ..PlanOptions::default() },
        )
    };
    let mut outcome = Outcome { ran: 1, ..Outcome::default() };
    let mut lowered_to = lowered(&model);
    let mut planned = plan(&lowered_to, None);
    if let Err(PlanError::NoPlacement { .. }) = planned {
        // Values that no activation bounds are bootstrapped by what calibration saw.
        let seen: Vec<Tensor<f32>> = inside.iter().map(|x| x.cast()).collect();
        model = model.with_magnitudes(&magnitudes(&model, &seen).unwrap());
        (lowered_to, outcome.by_magnitude) = (lowered(&model), 1);
        planned = plan(&lowered_to, None);
    }
    let lowered = lowered_to;
    let mut planned = match planned {
        Ok(planned) => planned,
        Err(e @ (PlanError::LevelsExhausted { .. } | PlanError::NoPlacement { .. })) => {
            println!("seed {seed} on {preset}: {e}");
            return Outcome { refused: 1, ..Outcome::default() };
        }
        Err(e) => panic!("seed {seed} on {preset}: {e}"),
    };
    if rng.random_range(0..4) == 0 {
        let most = planned.key_bytes() * 3 / 4;
        if let Ok(thrifty) = plan(&lowered, Some(most)) {
            assert!(thrifty.key_bytes() <= most, "seed {seed}");
            (planned, outcome.bounded_keys) = (thrifty, 1);
        }
    }
    planned = kept(&planned, &lowered.program, &params, seed);
    outcome.bootstraps = planned.bootstraps();
    outcome.several_pictures = usize::from(together > 1);
    outcome.several_shards = usize::from(planned.max_shards() > 1);

    let inputs: Vec<Tensor<f64>> = (0..together).map(|i| inside[i % inside.len()].clone()).collect();
    let shards = lowered.pack(&inputs).unwrap();
    let got = encrypted(&planned, &params, &shards, seed);
    let got = lowered.unpack(&got).unwrap();
    let clear = Network::<f64>::new(&model);
    let want: Vec<Tensor<f64>> = inputs.iter().map(|x| clear.evaluate(x).unwrap()).collect();
    let error = |got: &[Tensor<f64>]| {
        let pairs = got.iter().zip(&want).flat_map(|(g, w)| g.values().iter().zip(w.values()));
        pairs.map(|(g, w)| (g - w).abs()).fold(0.0, f64::max)
    };
    let runs = DRAWS.div_ceil(want.iter().map(|w| w.values().len()).sum::<usize>().max(1)).max(2);
    let foreseen = (0..runs as u64).map(|noise| {
        let noisy = NoisyEngine::new(&params, noise);
        let input = noisy.encrypted(shards.clone(), planned.input_level());
        error(&lowered.unpack(&execute(&planned, &noisy, input, &()).unwrap().shards).unwrap())
    });
    let (error, foreseen) = (error(&got), foreseen.fold(1e-9, f64::max));
    outcome.worst = error / foreseen;
    assert!(
        error.is_finite() && error <= TAIL * foreseen,
        "seed {seed} on {preset}: logits off by {error:e}, {foreseen:e} foreseen; {} bootstraps",
        outcome.bootstraps
    );
    outcome
}

/// The same plan from its decisions alone, written and read.
fn kept(plan: &Plan, program: &cipherlens::plan::Program, params: &Arc<Params>, seed: u64) -> Plan {
    let written = serde_json::to_string(plan.decisions()).unwrap();
    let decisions: Decisions = serde_json::from_str(&written).unwrap();
    let again =
        Plan::decided(program, params, &PlanOptions::default(), &decisions).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    assert_eq!(again.keys(), plan.keys(), "seed {seed}");
    assert_eq!(again.decisions(), plan.decisions(), "seed {seed}");
    assert_eq!((again.counts(), again.seconds()), (plan.counts(), plan.seconds()), "seed {seed}");
    // Of another network, or changed: said to be so, whatever it fails at.
    let (mut short, mut low) = (decisions.clone(), decisions);
    short.steps.pop();
    low.input_level = 0;
    for other in [short, low] {
        let error = Plan::decided(program, params, &PlanOptions::default(), &other);
        assert!(matches!(error, Err(PlanError::Kept(_))), "seed {seed}: {other:?}");
    }
    again
}

/// The real thing: keys, exactly those of the plan and some that would also do; encryption; the run; decryption.
fn encrypted(plan: &Plan, params: &Arc<Params>, shards: &[Vec<f64>], seed: u64) -> Vec<Vec<f64>> {
    let backend: Arc<dyn Backend> = Arc::new(CpuBackend::new(params.tables().clone()).unwrap());
    let generator = KeyGenerator::new(params, backend.clone(), RandomSource::insecure_seeded(seed)).unwrap();
    let secret = generator.secret_key().unwrap();
    let mut requests = plan.keys().to_vec();
    if params.log_n() < 13 {
        // A key of another gadget that covers the same levels, and is smaller or larger, must change nothing.
        let other = |r: &KeyRequest| {
            let top = params.max_level();
            let wide = params.best_gadget(cipherlens::ckks::Level(0)..=top).ok()?;
            let galois = matches!(r.kind, cipherlens::ckks::KeyKind::Galois(_));
            (galois && wide != r.gadget).then_some(KeyRequest { gadget: wide, ..*r })
        };
        requests.extend(plan.keys().iter().step_by(3).filter_map(other));
    }
    let keys = Arc::new(generator.generate(&secret, &requests).unwrap());
    let level = plan.input_level();
    let (scale, basis) = (params.scale(level), params.window(level));
    let encoder = Encoder::new(params.clone(), backend.clone());
    let plain = encoder.encode_repeated(shards, plan.program().slots, scale, basis, PlainForm::Plain).unwrap();
    let encryptor = Encryptor::new(params, backend.clone(), RandomSource::insecure_seeded(seed + 1)).unwrap();
    let input = Arc::new(encryptor.encrypt(&secret, &plain).unwrap());
    let evaluator = Evaluator::new(params.clone(), backend.clone(), keys).unwrap();
    let engine = EncryptedEngine::with_slots(evaluator, plan.program().slots).unwrap();
    let answer = execute(plan, &engine, input, &()).unwrap_or_else(|e| panic!("seed {seed} on {}: {e}", params.name()));
    let mut slots = Decryptor::new(params, backend).unwrap().decrypt_real(&secret, &answer).unwrap();
    slots.iter_mut().for_each(|shard| shard.truncate(plan.program().slots));
    slots
}

fn many(first: u64, count: u64, preset: Option<&str>) -> Outcome {
    let mut all = Outcome::default();
    for seed in first..first + count {
        let found = one(seed, preset);
        println!("seed {seed}: {found:?}");
        all += found;
    }
    println!("{all:?}");
    all
}

/// What became of a network that the engine compiled.
#[derive(Debug, Clone, Copy, Default)]
struct Promise {
    ran: usize,
    refused: usize,
    bootstraps: usize,
    /// Answers that are those of the exact network, of those that ran.
    kept: usize,
    /// Largest error over the one promised.
    worst: f64,
}

/// As a user does: compiled for a target, keys and a picture by the client, run by the server, decrypted by the client.
fn by_the_engine(seed: u64) -> Promise {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let preset = SMALL[rng.random_range(0..SMALL.len())];
    let gain = [0.05, 0.3, 1.0, 1.0, 4.0, 30.0, 300.0][rng.random_range(0..7)];
    let exact = random(Size { side: 12, elements: 1024, layers: 6, gain }, &mut rng);
    let seen: Vec<Labelled> = pictures(&exact, 60, &mut rng).iter().map(|x| Labelled { x: x.cast(), label: None }).collect();
    let choose = ChooseOptions { target: 0.8, per_layer: false, ..ChooseOptions::default() };
    let options = CompileOptions { preset: Some(preset.into()), choose, ..CompileOptions::default() };
    let compiled = match engine::compile(&exact, &seen, &options, &()) {
        Ok(compiled) => compiled,
        // Said before a key is made.
        Err(
            e @ (EngineError::Fits(_)
            | EngineError::NoPreset { .. }
            | EngineError::Calibration(_)
            | EngineError::Noise { .. }
            | EngineError::Overflow(_)),
        ) => {
            let why = std::error::Error::source(&e).map(|e| format!(": {e}")).unwrap_or_default();
            println!("seed {seed} on {preset}, gain {gain}: {e}{why}");
            return Promise { refused: 1, ..Promise::default() };
        }
        Err(e) => panic!("seed {seed} on {preset}, gain {gain}: {e}: {e:?}"),
    };
    let (spec, prepared) = (&compiled.client, &compiled.prepared);
    let client = Client::insecure_seeded(spec, &prepared.params, seed).unwrap();
    let run = spec.run(1).unwrap();
    let Some(picture) = seen.iter().map(|p| p.x.cast::<f64>()).find(|x| client.check_input(x).is_ok()) else {
        panic!("seed {seed}: the client refuses each picture that it was compiled with");
    };
    let keys = Arc::new(client.evaluation_keys(run, &|| ()).unwrap());
    let session = Server::new(prepared).session(keys, 1).unwrap();
    let encrypted = client.encrypt(run, std::slice::from_ref(&picture)).unwrap();
    let answer = session.run(session.expand(&encrypted).unwrap(), &()).unwrap_or_else(|e| panic!("seed {seed} on {preset}: {e}"));
    let got =
        client.decrypt_unrounded(run, &answer.ciphertext).unwrap_or_else(|e| panic!("seed {seed} on {preset}: {e}")).remove(0);
    let want = Network::<f64>::new(&compiled.compiled.model).evaluate(&picture).unwrap();
    let error = got.iter().zip(want.values()).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max);
    let worst = error / compiled.foreseen.error;
    assert!(
        error.is_finite() && worst <= 2.0 * TAIL,
        "seed {seed} on {preset}, gain {gain}: logits off by {error:e}, {:e} promised",
        compiled.foreseen.error
    );
    let largest = |v: &[f64]| (0..v.len()).max_by(|&a, &b| v[a].total_cmp(&v[b]));
    let label = largest(Network::<f64>::new(&exact).evaluate(&picture).unwrap().values());
    Promise { ran: 1, refused: 0, bootstraps: prepared.plan.bootstraps(), kept: usize::from(largest(&got) == label), worst }
}

fn many_by_the_engine(first: u64, count: u64) -> Promise {
    let mut all = Promise::default();
    for seed in first..first + count {
        let found = by_the_engine(seed);
        println!("seed {seed}: {found:?}");
        all.ran += found.ran;
        all.refused += found.refused;
        all.bootstraps += found.bootstraps;
        all.kept += found.kept;
        all.worst = all.worst.max(found.worst);
    }
    println!("{all:?}");
    // Small sets have levels for few of the fits.
    assert!(3 * all.ran as u64 >= count && 10 * all.kept >= 8 * all.ran, "{all:?}");
    all
}

#[test]
fn networks_of_any_size_answer_as_promised() {
    many_by_the_engine(1, 6);
}

#[test]
#[ignore = "as many as are asked for"]
fn as_many_compiled_networks_as_asked_for() {
    many_by_the_engine(number("CIPHERLENS_SEED", 1_000), number("CIPHERLENS_NETWORKS", 100));
}

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().map_or(usual, |v| v.parse().expect("a number"))
}

#[test]
fn random_networks_run_as_planned() {
    let first = 1;
    let _ = seeded(first);
    let all = many(first, 40, None);
    // Of everything there is some.
    assert!(all.ran >= 28 && all.bootstraps >= 20, "{all:?}");
    assert!(all.several_pictures >= 3 && all.several_shards >= 3 && all.bounded_keys >= 3, "{all:?}");
}

#[test]
#[ignore = "as many as are asked for"]
fn as_many_networks_as_asked_for() {
    let preset = std::env::var("CIPHERLENS_PRESET").ok();
    let count = number("CIPHERLENS_NETWORKS", 200);
    let all = many(number("CIPHERLENS_SEED", 1_000), count, preset.as_deref());
    assert!(all.ran as u64 >= count / 2, "{all:?}");
}

//! Programs deeper than their parameter set: planned with bootstraps, run on clear numbers and on ciphertexts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use cipherlens::{
    backend::{Backend, cpu::CpuBackend},
    circuits::{ClearEngine, EncryptedEngine, clear::ClearValue, polynomial::Chebyshev},
    ckks::{Decryptor, Encryptor, Evaluator, KeyGenerator, Level, PlainForm, PrecisionStats, RandomSource, presets},
    plan::{MemoryLimits, Operation, Plan, PlanError, PlanOptions, PlannedOperation, Program, Step, ValueId, execute},
};
use common::diagonals::{random_shards, seeded};
use std::sync::Arc;

/// `0.4 x^3 - 0.5 x^2 + 0.7 x + 0.1`: from [-1, 1] into [-1.5, 0.7], so a half of it stays within [-1, 1].
fn cubic() -> Chebyshev {
    Chebyshev::from_monomial(&[0.05, 0.35, -0.25, 0.2], [-1.0, 1.0]).unwrap()
}

/// Blocks of two activations with a residual branch around them: `x <- (p(p(x)) + x) / 2`.
fn residual_program(slots: usize, shards: usize, blocks: usize, bound: Option<f64>) -> Program {
    let half = Arc::new(vec![vec![0.5; slots]; shards]);
    let mut program = Program { slots, input_shards: shards, steps: Vec::new(), output: ValueId(0) };
    let mut push = |layer: String, operation: Operation, bound: Option<f64>| {
        program.steps.push(Step { layer, operation, bound });
        ValueId(program.steps.len())
    };
    let mut x = ValueId(0);
    for block in 0..blocks {
        let polynomial = |input| Operation::Polynomial { input, polynomial: cubic() };
        let a = push(format!("block{block}.act1"), polynomial(x), bound);
        let b = push(format!("block{block}.act2"), polynomial(a), bound);
        let sum = push(format!("block{block}.add"), Operation::Add { a: b, b: x }, None);
        let scale = Operation::Affine { input: sum, factor: Some(half.clone()), offset: None };
        x = push(format!("block{block}.scale"), scale, bound);
    }
    program.output = x;
    program
}

fn expected(x: &[Vec<f64>], blocks: usize) -> Vec<Vec<f64>> {
    let p = cubic();
    let block = |v: f64| (0..blocks).fold(v, |v, _| 0.5 * (p.value(p.value(v)) + v));
    x.iter().map(|shard| shard.iter().map(|&v| block(v)).collect()).collect()
}

#[test]
fn a_program_deeper_than_its_ladder_is_bootstrapped_and_right() {
    let seed = 51;
    let mut rng = seeded("deep programs", seed);
    let params = presets::by_name("insecure-boot").unwrap();
    let backend: Arc<dyn Backend> = Arc::new(CpuBackend::new(params.tables().clone()).unwrap());
    let keygen = KeyGenerator::new(&params, backend.clone(), RandomSource::insecure_seeded(seed)).unwrap();
    let secret = keygen.secret_key().unwrap();
    for (slots, shards) in [(params.slots(), 3), (params.slots() / 4, 1)] {
        let blocks = 4;
        let program = residual_program(slots, shards, blocks, Some(1.0));
        let plan = Plan::new(&program, &params, &PlanOptions::default()).unwrap();
        // 20 levels on a ladder of 7, of which a bootstrap needs 3.
        assert!(plan.bootstraps() >= 4, "{} bootstraps", plan.bootstraps());
        assert!(plan.steps().iter().all(|s| s.level_in <= params.working_level()));
        println!("{slots} slots, {shards} shards: {} bootstraps, {} keys", plan.bootstraps(), plan.keys().len());

        let x = random_shards(&mut rng, shards, slots);
        let want = expected(&x, blocks);
        let clear = execute(&plan, &ClearEngine, ClearValue::new(x.clone(), plan.input_level()), &()).unwrap();
        let bits = PrecisionStats::compare_shards(&want, &clear.shards).unwrap().worst_bits;
        assert!(bits > 16.0, "clear: {bits} bits");

        let keys = Arc::new(keygen.generate(&secret, plan.keys()).unwrap());
        let evaluator = Evaluator::new(params.clone(), backend.clone(), keys).unwrap();
        let (scale, basis) = (params.scale(plan.input_level()), params.window(plan.input_level()));
        let plain = evaluator.encoder().encode_repeated(&x, slots, scale, basis, PlainForm::Plain).unwrap();
        let encryptor = Encryptor::new(&params, backend.clone(), RandomSource::insecure_seeded(seed + 1)).unwrap();
        let input = Arc::new(encryptor.encrypt(&secret, &plain).unwrap());
        let engine = EncryptedEngine::with_slots(evaluator, slots).unwrap();
        let y = execute(&plan, &engine, input.clone(), &()).unwrap();
        assert_eq!(y.level(), Level(0));
        // One shard at a time: the same words, and less held.
        let little = PlanOptions { held_bytes: 1, ..PlanOptions::default() };
        let one_by_one = Plan::decided(&program, &params, &little, plan.decisions()).unwrap();
        let again = execute(&one_by_one, &engine, input, &()).unwrap();
        let [again, once] = [&again, &y].map(|ct| backend.download(ct.buffer()).unwrap());
        assert!(again == once, "{shards} shards");
        let most = |plan: &Plan| {
            plan.layers().iter().filter(|l| !l.layer.contains("(bootstrap)") && l.layer.contains(".act")).map(|l| l.bytes).max()
        };
        assert_eq!(most(&one_by_one) < most(&plan), shards > 1, "{shards} shards");
        let mut got = Decryptor::new(&params, backend.clone()).unwrap().decrypt_real(&secret, &y).unwrap();
        got.iter_mut().for_each(|shard| shard.truncate(slots));
        let stats = PrecisionStats::compare_shards(&want, &got).unwrap();
        println!("{slots} slots, {shards} shards: {stats}");
        // On this ring a bootstrap keeps some 26 bits at worst (small sums in its transforms).
        assert!(stats.worst_bits > 20.0, "{stats}");
    }
}

#[test]
fn keys_fit_the_bytes_allowed_and_the_answer_stays() {
    let params = presets::by_name("insecure-boot").unwrap();
    let program = residual_program(params.slots(), 2, 4, Some(1.0));
    let plan_with = |max_key_bytes| {
        Plan::new(&program, &params, &PlanOptions { limits: MemoryLimits::of_keys(max_key_bytes), ..PlanOptions::default() })
    };
    let free = plan_with(None).unwrap();
    assert_eq!(plan_with(Some(free.key_bytes())).unwrap().seconds(), free.seconds(), "nothing to save");
    let error = plan_with(Some(1 << 16)).unwrap_err();
    let PlanError::KeyBytes { least, most: 65536 } = error else { panic!("{error}") };
    assert!(least < free.key_bytes());

    let x = random_shards(&mut seeded("fewer keys", 53), 2, params.slots());
    let want = expected(&x, 4);
    let mut before = free.seconds();
    for most in [free.key_bytes() * 4 / 5, (free.key_bytes() + least) / 2, least] {
        let plan = plan_with(Some(most)).unwrap();
        println!("{} of {} bytes: {:.3} of {:.3} s", plan.key_bytes(), free.key_bytes(), plan.seconds(), free.seconds());
        assert!(plan.key_bytes() <= most && plan.seconds() >= before, "{} s after {before}", plan.seconds());
        before = plan.seconds();
        let clear = execute(&plan, &ClearEngine, ClearValue::new(x.clone(), plan.input_level()), &()).unwrap();
        let bits = PrecisionStats::compare_shards(&want, &clear.shards).unwrap().worst_bits;
        assert!(bits > 16.0, "clear: {bits} bits");
    }

    // Of all that is held: as few keys as that needs, and as little as can be where nothing is little enough.
    let within = |all_bytes| {
        let limits = MemoryLimits { all_bytes: Some(all_bytes), ..MemoryLimits::default() };
        Plan::new(&program, &params, &PlanOptions { limits, ..PlanOptions::default() }).unwrap()
    };
    assert_eq!(within(free.peak_bytes()).decisions(), free.decisions(), "nothing to save");
    let least = within(0);
    assert!(least.peak_bytes() < free.peak_bytes() && least.key_bytes() < free.key_bytes());
    let between = within((free.peak_bytes() + least.peak_bytes()) / 2);
    assert!(between.peak_bytes() <= (free.peak_bytes() + least.peak_bytes()) / 2 && between.seconds() <= least.seconds());
    assert!(between.seconds() > free.seconds());
}

#[test]
fn a_shallow_program_is_not_bootstrapped_and_an_unbounded_one_is_refused() {
    let params = presets::by_name("insecure-boot").unwrap();
    let shallow = Plan::new(&residual_program(params.slots(), 1, 1, None), &params, &PlanOptions::default()).unwrap();
    assert_eq!(shallow.bootstraps(), 0);
    assert!(shallow.steps().iter().all(|s| !matches!(s.operation, PlannedOperation::Bootstrap(_))));
    let error = Plan::new(&residual_program(params.slots(), 1, 4, None), &params, &PlanOptions::default()).unwrap_err();
    assert!(matches!(error, PlanError::NoPlacement { .. }), "{error}");
    assert!(error.to_string().contains("unknown range"), "{error}");
}

//! The same circuits on ciphertexts: linear transforms, polynomials and random convolutions against clear definitions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use cipherlens_testkit as common;

use cipherlens::{
    backend::{Backend, cpu::CpuBackend},
    circuits::{
        ClearEngine, EncryptedEngine, Engine, Gadgets, LinearTransform, NoisyEngine, Packing, Split, TraceEngine,
        clear::ClearValue, polynomial::Chebyshev, trace::TraceValue,
    },
    ckks::{
        Ciphertext, Decryptor, Encoder, Encryptor, Evaluator, KeyGenerator, KeyRequest, Level, Params, PlainForm, RandomSource,
        SecretKey, presets,
    },
    nn::{LowerOptions, Shape, clear::Network, lower},
    plan::{Plan, PlanOptions, PlannedStep, Progress, execute},
};
use common::{
    diagonals::{Diagonals, random_shards, seeded, worst},
    models::{Builder, ConvShape, picture},
};
use std::{collections::BTreeSet, sync::Arc};

struct Silent;
impl Progress for Silent {
    fn step_started(&self, _: usize, _: &PlannedStep) {}
    fn step_finished(&self, _: usize, _: &PlannedStep) {}
}

/// A client and a server in one, on a small insecure ring.
struct World {
    params: Arc<Params>,
    backend: Arc<dyn Backend>,
    keygen: KeyGenerator,
    secret: SecretKey,
}

impl World {
    fn new(preset: &str, seed: u64) -> Self {
        println!("world on {preset}: seed {seed}");
        let params = presets::by_name(preset).unwrap();
        let backend: Arc<dyn Backend> = Arc::new(CpuBackend::new(params.tables().clone()).unwrap());
        let keygen = KeyGenerator::new(&params, backend.clone(), RandomSource::insecure_seeded(seed)).unwrap();
        let secret = keygen.secret_key().unwrap();
        Self { params, backend, keygen, secret }
    }
    fn engine(&self, requests: &[KeyRequest]) -> EncryptedEngine {
        let keys = Arc::new(self.keygen.generate(&self.secret, requests).unwrap());
        EncryptedEngine::new(Evaluator::new(self.params.clone(), self.backend.clone(), keys).unwrap())
    }
    /// Keys for what a traced run did.
    fn keys_for(&self, trace: &TraceEngine) -> Vec<KeyRequest> {
        trace.trace().keys(&self.params).unwrap()
    }
    fn gadgets(&self) -> Gadgets {
        Gadgets::best(&self.params).unwrap()
    }
    fn encrypt(&self, shards: &[Vec<f64>], level: Level) -> Arc<Ciphertext> {
        let encoder = Encoder::new(self.params.clone(), self.backend.clone());
        let plain = encoder.encode_shards(shards, self.params.scale(level), self.params.window(level), PlainForm::Plain).unwrap();
        let encryptor = Encryptor::new(&self.params, self.backend.clone(), RandomSource::insecure_seeded(77)).unwrap();
        Arc::new(encryptor.encrypt(&self.secret, &plain).unwrap())
    }
    fn decrypt(&self, ct: &Ciphertext) -> Vec<Vec<f64>> {
        Decryptor::new(&self.params, self.backend.clone()).unwrap().decrypt_real(&self.secret, ct).unwrap()
    }
}

#[test]
fn linear_transforms_in_every_split_and_packing() {
    let world = World::new("insecure-toy", 1);
    let slots = world.params.slots();
    let mut rng = seeded("matrices", 21);
    let pool: Vec<u32> =
        (0..12).chain((0..12).map(|i| (slots - 1 - 3 * i) as u32)).chain((1..6).map(|i| 32 * i as u32)).collect();
    for (inputs, outputs, level) in [(1, 1, 1), (2, 3, 3), (3, 2, 6), (4, 4, 8)] {
        let matrix = Arc::new(Diagonals::random(&mut rng, inputs, outputs, slots, 7, &pool));
        let x = random_shards(&mut rng, inputs, slots);
        let want = matrix.times(&x);
        for packing in Packing::ALL.into_iter().filter(|p| *p != Packing::Halves || inputs == 1) {
            for modulus in [1, 16, 128, slots] {
                let transform = LinearTransform::new(matrix.clone(), Split { modulus }, packing);
                let trace = TraceEngine::default();
                transform.apply(&trace, &TraceValue { shards: inputs, level: Level(level) }, &world.gadgets()).unwrap();
                let engine = world.engine(&world.keys_for(&trace));
                // Every other case in batches of one input.
                let transform = if modulus % 3 == 1 { transform.with_room_for(0) } else { transform };
                let y = transform.apply(&engine, &world.encrypt(&x, Level(level)), &world.gadgets()).unwrap();
                assert_eq!(y.level(), Level(level - 1));
                assert_eq!(y.scale(), world.params.scale(Level(level - 1)), "canonical scale");
                let error = worst(&world.decrypt(&y), &want);
                // Sums of some 28 products of numbers below 1 at a 36-bit scale on N = 2^10: noise near 2^-22.
                assert!(error < 2e-6, "{inputs}x{outputs} {packing:?} {modulus}: {error:e}");
            }
        }
    }
}

/// A shard of large numbers, and large noise, joined with one of small numbers that large weights wait for: the noise in the imaginary parts
/// of the first is most of what the sum has.
#[test]
fn noise_in_imaginary_parts_is_foreseen() {
    let world = World::new("insecure-toy", 3);
    let slots = world.params.slots();
    let mut rng = seeded("matrix", 23);
    let matrix = Diagonals::random(&mut rng, 2, 1, slots, 4, &[0, 1, 5, 17, 40, 66]).scaled(&[50.0, 1e-3]);
    let transform = LinearTransform::new(Arc::new(matrix), Split { modulus: 16 }, Packing::Inputs);
    let x = random_shards(&mut rng, 2, slots);
    let factor = vec![vec![1.0; slots], vec![1e3; slots]];
    fn run<E: Engine>(engine: &E, x: &E::Value, factor: &[Vec<f64>], transform: &LinearTransform, gadgets: &Gadgets) -> E::Value {
        transform.apply(engine, &engine.multiply_plain(x, factor).unwrap(), gadgets).unwrap()
    }
    let (gadgets, level) = (world.gadgets(), Level(4));
    let trace = TraceEngine::default();
    run(&trace, &TraceValue { shards: 2, level }, &factor, &transform, &gadgets);
    let want = run(&ClearEngine, &ClearValue::new(x.clone(), level), &factor, &transform, &gadgets);
    let rms = |y: &[Vec<f64>]| {
        let squares = y[0].iter().zip(&want.shards[0]).map(|(y, want)| (y - want) * (y - want));
        (squares.sum::<f64>() / slots as f64).sqrt()
    };
    let y = run(&world.engine(&world.keys_for(&trace)), &world.encrypt(&x, level), &factor, &transform, &gadgets);
    let foreseen =
        |engine: NoisyEngine| rms(&run(&engine, &engine.encrypted(x.clone(), level), &factor, &transform, &gadgets).shards);
    let found = rms(&world.decrypt(&y));
    let (whole, of_real_parts) =
        (foreseen(NoisyEngine::new(&world.params, 4)), foreseen(NoisyEngine::of_real_parts(&world.params, 4)));
    println!("noise {found:e}, foreseen {whole:e}, of real parts alone {of_real_parts:e}");
    assert!((0.8..1.25).contains(&(found / whole)), "{found:e}, foreseen {whole:e}");
    assert!(of_real_parts < 0.2 * found, "{found:e}, of real parts alone {of_real_parts:e}");
}

#[test]
fn polynomials_on_ciphertexts() {
    let world = World::new("insecure-toy", 2);
    let mut rng = seeded("polynomials", 22);
    let x = random_shards(&mut rng, 2, world.params.slots());
    for (degree, range) in [(2, 1.0), (3, 1.0), (7, 1.0), (15, 1.0), (31, 1.0), (59, 1.0), (127, 1.0), (63, 4.0)] {
        let p = Chebyshev::interpolate(|v| v.max(0.0) * 0.5 + 0.1, degree, [-range, range]).unwrap();
        let level = Level(p.depth() + 1);
        let scaled: Vec<Vec<f64>> = x.iter().map(|s| s.iter().map(|v| v * range).collect()).collect();
        let want: Vec<Vec<f64>> = scaled.iter().map(|s| s.iter().map(|&v| p.value(v)).collect()).collect();
        let trace = TraceEngine::default();
        let traced = p.apply(&trace, &TraceValue { shards: 2, level }, &world.gadgets()).unwrap();
        assert_eq!(traced.level, Level(1), "degree {degree}");
        let engine = world.engine(&world.keys_for(&trace));
        let y = p.apply(&engine, &world.encrypt(&scaled, level), &world.gadgets()).unwrap();
        assert_eq!(y.level(), Level(1));
        let error = worst(&world.decrypt(&y), &want);
        // Doublings amplify the noise of a product (2^-23 here) by at most the square of the degree.
        assert!(error < 1e-6 * (degree * degree) as f64, "degree {degree}: {error:e}");
    }
}

/// Random convolutions (odd sizes, strides 1 to 3, paddings, dilations, groups, up to 12 shards), lowered, planned, run on
/// ciphertexts and compared with the direct convolution.
#[test]
fn two_hundred_random_convolutions_encrypted() {
    let world = World::new("insecure-toy", 3);
    let slots = world.params.slots();
    let (mut shards_seen, mut strides_seen) = (BTreeSet::new(), BTreeSet::new());
    for case in 0..200u64 {
        let mut rng = common::models::seeded(1000 + case);
        // Every fourth case is drawn from the large ones, so that many-shard images are among them.
        let c = loop {
            let c = ConvShape::random(&mut rng, slots, 12);
            if case % 4 != 0 || c.input.len() > 4 * slots {
                break c;
            }
        };
        let mut builder = Builder::new(c.input);
        let model = builder.conv("conv", "x", &c, &mut rng).build("conv");
        let lowered = lower(&model, slots, &LowerOptions::default()).unwrap();
        let options = PlanOptions { output_level: Level(1), ..PlanOptions::default() };
        let plan = Plan::new(&lowered.program, &world.params, &options).unwrap();
        shards_seen.insert(lowered.program.input_shards);
        strides_seen.extend(c.stride);

        let image = picture(c.input, &mut rng);
        let packed = lowered.input.pack(&image).unwrap();
        let want = Network::<f64>::new(&model).evaluate(&image).unwrap();
        let clear = execute(&plan, &ClearEngine, ClearValue::new(packed.clone(), plan.input_level()), &Silent).unwrap();
        let engine = world.engine(plan.keys());
        let y = execute(&plan, &engine, world.encrypt(&packed, plan.input_level()), &Silent).unwrap();
        let bound = 1e-5 * (1.0 + want.values().iter().fold(0.0f64, |m, v| m.max(v.abs())));
        for (name, shards) in [("clear", clear.shards.to_vec()), ("encrypted", world.decrypt(&y))] {
            let got = lowered.output.unpack(&shards).unwrap();
            assert_eq!(got.shape(), want.shape());
            for (g, w) in got.values().iter().zip(want.values()) {
                assert!((g - w).abs() < bound, "case {case} {name}: {g} is not {w}: {c:?}");
            }
        }
    }
    assert!(shards_seen.iter().any(|&s| s == 1) && shards_seen.iter().any(|&s| s >= 8), "shards {shards_seen:?}");
    assert_eq!(strides_seen.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
}

/// Programs for fewer slots than the ring has: every vector repeats, and so do all results.
#[test]
fn convolutions_on_a_part_of_the_slots() {
    let world = World::new("insecure-toy", 5);
    for (case, slots) in [(0u64, 256), (1, 64), (2, 32)] {
        let mut rng = common::models::seeded(2000 + case);
        let c = ConvShape::random(&mut rng, slots, 4);
        let mut builder = Builder::new(c.input);
        let model = builder.conv("conv", "x", &c, &mut rng).build("conv");
        let lowered = lower(&model, slots, &LowerOptions::default()).unwrap();
        let plan = Plan::new(&lowered.program, &world.params, &PlanOptions::default()).unwrap();
        let image = picture(c.input, &mut rng);
        let want = Network::<f64>::new(&model).evaluate(&image).unwrap();
        let keys = Arc::new(world.keygen.generate(&world.secret, plan.keys()).unwrap());
        let evaluator = Evaluator::new(world.params.clone(), world.backend.clone(), keys).unwrap();
        let (level, encoder) = (plan.input_level(), evaluator.encoder());
        let packed = lowered.input.pack(&image).unwrap();
        let (scale, basis) = (world.params.scale(level), world.params.window(level));
        let plain = encoder.encode_repeated(&packed, slots, scale, basis, PlainForm::Plain).unwrap();
        let encryptor = Encryptor::new(&world.params, world.backend.clone(), RandomSource::insecure_seeded(78)).unwrap();
        let x = Arc::new(encryptor.encrypt(&world.secret, &plain).unwrap());
        let engine = EncryptedEngine::with_slots(evaluator, slots).unwrap();
        let mut y = world.decrypt(&execute(&plan, &engine, x, &Silent).unwrap());
        for shard in &y {
            let repeats = shard.iter().enumerate().all(|(i, v)| (v - shard[i % slots]).abs() < 1e-5);
            assert!(repeats, "case {case}: the result does not repeat every {slots} slots");
        }
        y.iter_mut().for_each(|s| s.truncate(slots));
        let got = lowered.output.unpack(&y).unwrap();
        for (g, w) in got.values().iter().zip(want.values()) {
            assert!((g - w).abs() < 1e-5 * (1.0 + w.abs()), "case {case}: {g} is not {w}: {c:?}");
        }
    }
    let keys = Arc::new(world.keygen.generate(&world.secret, &[]).unwrap());
    let evaluator = Evaluator::new(world.params.clone(), world.backend.clone(), keys).unwrap();
    let error = EncryptedEngine::with_slots(evaluator, 48).unwrap_err();
    assert!(error.to_string().contains("48 slots"), "{error}");
}

#[test]
fn missing_keys_and_exhausted_levels_are_typed_errors() {
    let world = World::new("insecure-toy", 4);
    let slots = world.params.slots();
    let mut rng = seeded("errors", 24);
    let x = random_shards(&mut rng, 1, slots);
    let bare = world.engine(&[]);
    let at_zero = world.encrypt(&x, Level(0));
    let text = bare.square(&at_zero, &world.gadgets()).unwrap_err().to_string();
    assert!(text.contains("level"), "{text}");
    let at_two = world.encrypt(&x, Level(2));
    let text = bare.rotate(&at_two, 3, &world.gadgets()).unwrap_err().to_string();
    assert!(text.contains("key"), "{text}");
    let shape = Shape::new(1, 8, 8);
    let mut builder = Builder::new(shape);
    let c = ConvShape { input: shape, outputs: 1, kernel: [1, 1], stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 };
    let mut rng = common::models::seeded(9);
    let mut last = "x".to_string();
    for i in 0..12 {
        builder.conv(&format!("c{i}"), &last, &c, &mut rng);
        last = format!("c{i}");
    }
    let lowered = lower(&builder.build(&last), slots, &LowerOptions::default()).unwrap();
    let error = Plan::new(&lowered.program, &world.params, &PlanOptions::default()).unwrap_err();
    assert!(error.to_string().contains("needs 12 levels and preset `insecure-toy` has 8"), "{error}");
}

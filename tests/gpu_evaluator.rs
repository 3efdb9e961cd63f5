//! The scheme and whole circuits on the GPU backend: the words of every ciphertext are those of the CPU backend.
//!
//! As in `tests/gpu.rs`, without an adapter the tests say so and pass, unless `CIPHERLENS_REQUIRE_GPU` is set.
#![cfg(feature = "gpu")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

use cipherlens::backend::PlainTerm;
use cipherlens::backend::gpu::registry::Wide;
use cipherlens::backend::gpu::{GpuBackend, GpuOptions, adapters};
use cipherlens::circuits::{BootstrapOptions, Bootstrapper, EncryptedEngine};
use cipherlens::ckks::*;
use cipherlens::nn::{LowerOptions, lower};
use cipherlens::plan::{Plan, PlanOptions, PlannedStep, Progress, execute};
use common::models::{Builder, ConvShape, picture};
use std::sync::Arc;
use support::*;

use cipherlens_testkit as common;
use cipherlens_testkit::ckks as support;

/// A client and a server on the CPU, then one for each form of wide products that the adapter has.
fn benches(preset: &str) -> Vec<(&'static str, Bench)> {
    let found = adapters();
    if found.is_empty() {
        assert!(std::env::var_os("CIPHERLENS_REQUIRE_GPU").is_none(), "no adapter");
        println!("no adapter: not tested");
        return Vec::new();
    }
    let gpu = |wide| {
        let options = GpuOptions { software: true, wide: Some(wide), ..GpuOptions::from_env() };
        Bench::with(preset, |params| Arc::new(GpuBackend::new(params.tables().clone(), &options).unwrap()))
    };
    let forms = Wide::ALL.into_iter().filter(|&wide| wide == Wide::U32 || found[0].int64);
    std::iter::once(Bench::new(preset)).chain(forms.map(gpu)).map(|b| (b.backend.name(), b)).collect()
}

/// What was done, and the words of the ciphertext it gave.
type Steps = Vec<(&'static str, Vec<u32>)>;

/// All runs must have given the same ciphertexts, one after the other.
fn agree(runs: &[(&'static str, Steps)]) {
    let Some(((_, want), others)) = runs.split_first() else { return };
    for (name, got) in others {
        assert_eq!(got.len(), want.len());
        for ((what, got), (_, want)) in got.iter().zip(want) {
            assert!(got == want, "{name}: {what}");
        }
    }
}

#[test]
fn every_operation_gives_the_same_words() {
    for preset in ["insecure-tiny", "insecure-small"] {
        let run = |b: &Bench| {
            let top = b.params.max_level();
            let alpha = b.params.best_alpha(Level(0)..=top).unwrap();
            let mut requests: Vec<_> = [1, 5, -3].iter().map(|&k| b.galois(k, Level(0)..=top, alpha)).collect();
            requests.push(KeyRequest { kind: KeyKind::Galois(b.params.conjugation_element()), gadget: requests[0].gadget });
            requests.push(b.relin());
            let e = b.evaluator(&requests);
            let (x, y) = (b.encrypt(&b.values(3, 1), top), b.encrypt(&b.values(3, 2), top));
            let plain = b.plain(&b.values(3, 3), top, PlainForm::Plain);
            let factor = b.plain(&b.values(3, 4), top, PlainForm::Montgomery);
            let mut out = vec![("encrypt", b.words(&x)), ("encrypt", b.words(&y))];
            let mut keep = |what, ct: &Ciphertext| out.push((what, b.words(ct)));
            keep("add", &e.add(&x, &y).unwrap());
            keep("sub", &e.sub(&x, &y).unwrap());
            keep("negate", &e.negate(&x).unwrap());
            keep("add_plain", &e.add_plain(&x, &plain).unwrap());
            keep("add_scalar", &e.add_scalar(&x, -0.75).unwrap());
            keep("mul_scalar", &e.mul_scalar(&x, 1.25, b.params.scale(top)).unwrap());
            keep("mul_plain", &e.mul_plain(&x, &factor).unwrap());
            let terms = [vec![PlainTerm { plain: 0, source: 2 }, PlainTerm { plain: 2, source: 1 }], vec![]];
            keep("plain_inner_product", &e.plain_inner_product(&x, &factor, &terms).unwrap());
            let mut product = e.mul(&x, &y).unwrap();
            keep("mul", &product);
            keep("mul_rescale", &e.mul_rescale(&x, &y).unwrap());
            product = e.rescale(&product).unwrap();
            keep("rescale", &product);
            for _ in 1..top.0 {
                product = e.mul_rescale(&product, &product).unwrap();
                keep("down the ladder", &product);
            }
            keep("drop_to", &e.drop_to(&x, Level(0)).unwrap());
            keep("rotate", &e.rotate(&x, 5).unwrap());
            keep("conjugate", &e.conjugate(&x).unwrap());
            for ct in e.rotate_many(&x, &[1, 0, -3, 5]).unwrap() {
                keep("rotate_many", &ct);
            }
            let gadget = b.params.gadget(Level(0)..=top, alpha).unwrap();
            let digits = e.mod_up(&x, gadget).unwrap();
            let extended = e.rotate_digits_extended(&digits, &e.lift_first(&x, gadget).unwrap(), 5).unwrap();
            keep("mod_down", &e.mod_down(&extended).unwrap());
            keep("mod_down_rescale", &e.mod_down_rescale(&extended).unwrap());
            out
        };
        agree(&benches(preset).iter().map(|(name, b)| (*name, run(b))).collect::<Vec<_>>());
    }
}

struct Silent;
impl Progress for Silent {
    fn step_started(&self, _: usize, _: &PlannedStep) {}
    fn step_finished(&self, _: usize, _: &PlannedStep) {}
}

#[test]
fn convolutions_over_shards_give_the_same_words() {
    let benches = benches("insecure-toy");
    for case in 0..6 {
        let run = |b: &Bench| {
            let slots = b.params.slots();
            let mut rng = common::models::seeded(1000 + case);
            let c = loop {
                let c = ConvShape::random(&mut rng, slots, 12);
                if case % 2 != 0 || c.input.len() > 2 * slots {
                    break c;
                }
            };
            let model = Builder::new(c.input).conv("conv", "x", &c, &mut rng).build("conv");
            let lowered = lower(&model, slots, &LowerOptions::default()).unwrap();
            let options = PlanOptions { output_level: Level(1), ..PlanOptions::default() };
            let plan = Plan::new(&lowered.program, &b.params, &options).unwrap();
            let packed = lowered.input.pack(&picture(c.input, &mut rng)).unwrap();
            let engine = EncryptedEngine::new(b.evaluator(plan.keys()));
            let input = Arc::new(b.encrypt(&packed, plan.input_level()));
            let y = execute(&plan, &engine, input, &Silent).unwrap();
            vec![("convolution", b.words(&y))]
        };
        agree(&benches.iter().map(|(name, b)| (*name, run(b))).collect::<Vec<_>>());
    }
}

#[test]
fn a_bootstrap_gives_the_same_words() {
    let benches = benches("insecure-boot");
    let run = |b: &Bench| {
        let bootstrapper = Bootstrapper::new(&b.params, &BootstrapOptions::new(&b.params)).unwrap();
        let engine = EncryptedEngine::new(b.evaluator(bootstrapper.keys()));
        let x = Arc::new(b.encrypt(&b.values(2, 5), bootstrapper.input_level()));
        vec![("bootstrap", b.words(&bootstrapper.apply(&engine, &x).unwrap()))]
    };
    agree(&benches.iter().map(|(name, b)| (*name, run(b))).collect::<Vec<_>>());
}

//! A run whose GPU fails on the way ends with the processor's words, or with a typed error.
//!
//! As in `tests/gpu.rs`, without an adapter the tests say so and pass, unless `CIPHERLENS_REQUIRE_GPU` is set.
#![cfg(feature = "gpu")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

use cipherlens::backend::gpu::{GpuBackend, GpuOptions, Limits, adapters};
use cipherlens::backend::{Backend, BackendError, Kernels, Statistics};
use cipherlens::circuits::EncryptedEngine;
use cipherlens::ckks::*;
use cipherlens::nn::tensor::Shape;
use cipherlens::nn::{LowerOptions, Tensor, lower};
use cipherlens::plan::*;
use common::models::{Builder, ConvShape, picture, seeded};
use serde_json::json;
use std::sync::Arc;
use support::*;

use cipherlens_testkit as common;
use cipherlens_testkit::ckks as support;

/// A small residual network with its keys, its encrypted picture and the processor's answer.
struct World {
    bench: Bench,
    plan: Plan,
    keys: Arc<KeySet>,
    slots: usize,
    picture: Vec<Vec<f64>>,
    answer: Vec<u32>,
}

impl World {
    fn new() -> Self {
        let bench = Bench::new("insecure-toy");
        let slots = bench.params.slots();
        let mut rng = seeded(41);
        let input = Shape { channels: 4, height: 16, width: 16 };
        let conv =
            ConvShape { input, outputs: 4, kernel: [3, 3], stride: [1, 1], padding: [1, 1, 1, 1], dilation: [1, 1], groups: 1 };
        let model = Builder::new(input)
            .tensor("k", &[3], [0.0, 0.0, 1.0])
            .conv("conv1", "x", &conv, &mut rng)
            .node("square1", &["conv1"], json!({"op": "polynomial", "coefficients": "k"}))
            .conv("conv2", "square1", &conv, &mut rng)
            .node("sum", &["conv2", "square1"], json!({"op": "add"}))
            .node("square2", &["sum"], json!({"op": "polynomial", "coefficients": "k"}))
            .build("square2");
        let lowered = lower(&model, slots, &LowerOptions::default()).unwrap();
        let options = PlanOptions { output_level: Level(1), ..PlanOptions::default() };
        let plan = Plan::new(&lowered.program, &bench.params, &options).unwrap();
        let keys = Arc::new(bench.generator.generate(&bench.secret, plan.keys()).unwrap());
        let tensor: Tensor<f64> = picture(input, &mut rng);
        let picture = lowered.input.pack(&tensor).unwrap();
        let mut world = Self { bench, plan, keys, slots, picture, answer: Vec::new() };
        let answer = execute(&world.plan, &world.engine(world.bench.backend.clone()), Arc::new(world.input()), &()).unwrap();
        world.answer = world.bench.words(&answer);
        world
    }

    /// The same whenever it is asked for: seeds are counted from where the world began.
    fn input(&self) -> Ciphertext {
        let encryptor =
            Encryptor::new(&self.bench.params, self.bench.backend.clone(), RandomSource::insecure_seeded(SEED + 9)).unwrap();
        let plain = self.bench.plain(&self.picture, self.plan.input_level(), PlainForm::Plain);
        encryptor.encrypt(&self.bench.secret, &plain).unwrap()
    }

    fn engine(&self, backend: Arc<dyn Backend>) -> EncryptedEngine {
        let evaluator = Evaluator::new(self.bench.params.clone(), backend, self.keys.clone()).unwrap();
        EncryptedEngine::with_slots(evaluator, self.slots).unwrap()
    }

    /// Runs with a GPU and looks at the words.
    fn run(
        &self,
        gpu: Arc<GpuBackend>,
        checkpoints: Checkpoints,
        progress: &dyn Progress,
    ) -> std::result::Result<Vec<Fault>, PlanError> {
        let (device, host) = (self.engine(gpu), self.engine(self.bench.backend.clone()));
        let with = Fallback { device: &device, host: &host, checkpoints };
        let Completed { answer, faults } = with.execute(&self.plan, self.input(), progress)?;
        assert!(self.bench.words(&answer) == self.answer, "after {faults:?}");
        Ok(faults)
    }

    fn gpu(&self) -> Option<Arc<GpuBackend>> {
        if adapters().is_empty() {
            assert!(std::env::var_os("CIPHERLENS_REQUIRE_GPU").is_none(), "no adapter");
            println!("no adapter: not tested");
            return None;
        }
        let options = GpuOptions { software: true, ..GpuOptions::from_env() };
        Some(Arc::new(GpuBackend::new(self.bench.params.tables().clone(), &options).unwrap()))
    }
}

/// Does something to the device when a step begins.
struct At<F: Fn() + Sync>(usize, F);

impl<F: Fn() + Sync> Progress for At<F> {
    fn step_started(&self, index: usize, _: &PlannedStep) {
        if index == self.0 {
            self.1();
        }
    }
    fn step_finished(&self, _: usize, _: &PlannedStep) {}
}

#[test]
fn any_allocation_may_fail() {
    let world = World::new();
    let Some(gpu) = world.gpu() else { return };
    let with = |fail_allocations| gpu.with_options(&GpuOptions { fail_allocations, ..gpu.options().clone() });
    let all = Arc::new(with(Some(0..0)).unwrap());
    let before = all.statistics().allocations;
    assert_eq!(world.run(all.clone(), Checkpoints::Input, &()).unwrap(), []);
    let allocations = all.statistics().allocations - before;
    assert!(allocations > 30, "{allocations}");
    let mut redone = 0;
    // The first are the tables of the backend itself; a single refusal may do no harm, where other buffers can be given back.
    for k in (0..4).chain((4..allocations).step_by(allocations as usize / 16)) {
        for last in [k + 1, k + 20, u64::MAX] {
            let checkpoints = if k % 2 == 0 { Checkpoints::Input } else { Checkpoints::EveryStep };
            match with(Some(k..last)) {
                Err(e) => assert!(matches!(e, BackendError::OutOfMemory { .. }), "{e}"),
                Ok(gpu) => {
                    let faults = world.run(Arc::new(gpu), checkpoints, &()).unwrap();
                    assert!(faults.iter().all(|f| matches!(f.reason, BackendError::OutOfMemory { .. })), "{faults:?}");
                    redone += faults.len();
                }
            }
        }
    }
    assert!(redone > 30, "{redone}");
}

#[test]
fn a_second_run_finds_its_weights_and_buffers() {
    let world = World::new();
    // With room for encoded weights; and for some, and the integers of the others.
    let twice = |backend: Arc<GpuBackend>, room: u64, check: &dyn Fn(&Ciphertext)| {
        let device = world.engine(backend.clone()).with_prepared_bytes(0).keeping_products(room, room / 2);
        let host = world.engine(world.bench.backend.clone());
        let run = || {
            let before = backend.statistics();
            let with = Fallback { device: &device, host: &host, checkpoints: Checkpoints::Input };
            let Completed { answer, faults } = with.execute(&world.plan, world.input(), &()).unwrap();
            assert_eq!(faults, []);
            check(&answer);
            backend.statistics() - before
        };
        let first = run();
        // Blocks of a size may be handed out in another order once.
        let _ = run();
        let again = run();
        assert!(first.allocations > 30 && again.allocations <= 1, "{first:?} {again:?}");
        assert!(again.uploaded_bytes * 3 < first.uploaded_bytes && again.key_bytes == 0, "{first:?} {again:?}");
        assert!(again.dispatches < first.dispatches || room < 1 << 20, "{first:?} {again:?}");
        println!("{room}: {first:?} {again:?}");
    };
    let tables = world.bench.params.tables().clone();
    for room in [1 << 30, 1000 << 10] {
        twice(Arc::new(GpuBackend::dry(tables.clone(), Limits::USUAL, &GpuOptions::default()).unwrap()), room, &|_| ());
        if let Some(gpu) = world.gpu() {
            twice(gpu, room, &|answer| assert!(world.bench.words(answer) == world.answer));
        }
    }
}

#[test]
fn too_little_memory_for_anything() {
    let world = World::new();
    let Some(gpu) = world.gpu() else { return };
    for limit in [0, 100 << 10, 1 << 20, 2 << 20, 4 << 20] {
        let gpu = gpu.with_options(&GpuOptions { memory_limit: Some(limit), ..gpu.options().clone() }).unwrap();
        let faults = world.run(Arc::new(gpu), Checkpoints::Input, &()).unwrap();
        assert!(limit > 1 << 20 || !faults.is_empty(), "{limit}: {faults:?}");
    }
}

#[test]
fn the_device_may_be_lost_at_any_step() {
    let world = World::new();
    for checkpoints in [Checkpoints::Input, Checkpoints::EveryStep] {
        for step in 0..world.plan.steps().len() {
            let Some(gpu) = world.gpu() else { return };
            let faults = world.run(gpu.clone(), checkpoints, &At(step, || gpu.destroy())).unwrap();
            assert!(
                matches!(&faults[..], [Fault { reason: BackendError::Device { .. }, step: s, .. }] if *s == step),
                "{faults:?}"
            );
        }
    }
}

#[test]
fn the_device_may_be_lost_in_the_middle_of_a_step() {
    let world = World::new();
    for milliseconds in [1, 4, 9, 16, 25] {
        let Some(gpu) = world.gpu() else { return };
        std::thread::scope(|scope| {
            let doomed = gpu.clone();
            scope.spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(milliseconds));
                doomed.destroy();
            });
            let faults = world.run(gpu, Checkpoints::Input, &()).unwrap();
            println!("after {milliseconds} ms: {faults:?}");
        });
    }
}

#[test]
fn what_the_driver_refuses_ends_the_device() {
    let world = World::new();
    let Some(gpu) = world.gpu() else { return };
    let faults = world.run(gpu.clone(), Checkpoints::Input, &At(2, || gpu.provoke_validation_error())).unwrap();
    assert!(matches!(&faults[..], [Fault { reason: BackendError::Device { .. }, .. }]), "{faults:?}");
    let x = gpu.alloc(cipherlens::backend::Shape::new(1, 1, world.bench.params.degree()));
    assert!(matches!(x, Err(BackendError::Device { .. })), "{x:?}");
}

#[test]
fn a_plan_says_what_the_device_will_do() {
    let world = World::new();
    let Some(gpu) = world.gpu() else { return };
    let known = |s: Statistics| Statistics { allocations: 0, ..s };
    let mut limits = vec![None];
    // The least memory that the plan says is enough: keys come and go.
    let demand_with = |memory_limit, checkpoints| {
        DeviceDemand::of(&world.plan, gpu.limits(), &GpuOptions { memory_limit, ..gpu.options().clone() }, checkpoints)
    };
    let demand = |memory_limit| demand_with(memory_limit, Checkpoints::Input);
    limits.push((1..64).map(|mib| Some(mib << 18)).find(|&limit| demand(limit).is_ok()).unwrap());
    let cases = limits.into_iter().flat_map(|limit| [(limit, Checkpoints::Input), (limit, Checkpoints::EveryStep)]);
    for (memory_limit, checkpoints) in cases {
        let planned = demand_with(memory_limit, checkpoints).unwrap();
        let gpu = gpu.with_options(&GpuOptions { memory_limit, ..gpu.options().clone() }).unwrap();
        let gpu = Arc::new(gpu);
        let before = gpu.statistics();
        assert_eq!(world.run(gpu.clone(), checkpoints, &()).unwrap(), []);
        assert_eq!(known(gpu.statistics() - before), known(planned.total));
        let of_layers: u64 = planned.layers.iter().map(|l| l.statistics.dispatches).sum();
        assert_eq!(of_layers, planned.total.dispatches);
        assert!(memory_limit.is_none_or(|limit| planned.total.peak_bytes <= limit && planned.total.key_evictions > 0));
        println!("{:?}", planned.total);
    }
    match demand(Some(200 << 10)) {
        Err(PlanError::DeviceMemory { layer, source: BackendError::OutOfMemory { .. } }) => assert_eq!(layer, "conv1"),
        other => panic!("{other:?}"),
    }
}

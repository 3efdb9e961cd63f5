//! The server's side: a network, evaluation keys, ciphertexts. Nothing here can decrypt.

use super::failure::{Outcome, explain};
use super::plan::Prepared;
use super::progress::{Mode, Progress};
use cipherlens::backend::{Backend, Place, Statistics};
use cipherlens::circuits::EncryptedEngine;
use cipherlens::ckks::{Ciphertext, Evaluator, KeySet, SeededCiphertext};
use cipherlens::plan::{self, Checkpoints, Completed, Fallback, Plan, PlanError, PlannedOperation, PlannedStep};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What runs the network.
pub struct Server<'a> {
    plan: &'a Plan,
    /// On the processor.
    host: EncryptedEngine,
    /// On a device, where one computes.
    device: Option<EncryptedEngine>,
    /// What a run will ask of the device, where that can be told.
    demand: Option<Statistics>,
}

/// What a run gave.
pub struct Answer {
    /// The encrypted answer, in host memory.
    pub ciphertext: Ciphertext,
    /// What the device did, where one computed.
    pub device: Option<DeviceRun>,
    /// Seconds of each layer of the plan.
    pub layer_seconds: Vec<f64>,
}

/// What a device was expected to do and did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct DeviceRun {
    /// By the plan.
    pub planned: Option<Statistics>,
    /// In fact.
    pub done: Statistics,
    /// What was redone on the processor, and why.
    pub faults: Vec<String>,
}

impl<'a> Server<'a> {
    /// A server with a client's evaluation keys, for so many runs.
    pub fn new(prepared: &'a Prepared, keys: KeySet, runs: usize) -> Outcome<Self> {
        let keys = Arc::new(keys);
        let engine = |backend: &Arc<dyn Backend>| {
            let evaluator = Evaluator::new(prepared.params.clone(), backend.clone(), keys.clone())
                .map_err(|e| explain("the evaluation keys do not fit", &e))?;
            EncryptedEngine::with_slots(evaluator, prepared.plan.program().slots)
                .map_err(|e| explain("the network does not fit the parameter set", &e))
        };
        let on_device = prepared.backend.place() != Place::Host;
        let keep = |engine: EncryptedEngine| match prepared.backend.device_bytes().zip(prepared.demand) {
            // Beside what one run takes.
            Some((bytes, demand)) if runs > 1 => engine.keeping_products(bytes.saturating_sub(demand.peak_bytes) / 2),
            _ => engine,
        };
        Ok(Self {
            plan: &prepared.plan,
            host: engine(&prepared.host)?,
            device: if on_device { Some(keep(engine(&prepared.backend)?)) } else { None },
            demand: prepared.demand,
        })
    }

    /// The whole ciphertext of which a client sent one half and a seed.
    pub fn expand(&self, input: &SeededCiphertext) -> Outcome<Ciphertext> {
        let evaluator = self.host.evaluator();
        let input = input.expand(evaluator.params(), evaluator.backend().as_ref());
        input.map_err(|e| explain("the encrypted picture cannot be used", &e))
    }

    /// Runs the network on an encrypted picture in host memory.
    pub fn run(&self, input: Ciphertext, mode: Mode) -> Outcome<Answer> {
        let watcher = Watcher::new(self.plan, mode);
        let failed = |e: PlanError| explain("the encrypted run failed", &e);
        let Some(device) = &self.device else {
            let answer = plan::execute(self.plan, &self.host, Arc::new(input), &watcher);
            let layer_seconds = watcher.finish();
            let answer = answer.map_err(failed)?;
            let ciphertext = Arc::try_unwrap(answer).or_else(|a| a.duplicate(self.host.evaluator().backend().as_ref()));
            let ciphertext = ciphertext.map_err(|e| explain("the encrypted run failed", &e))?;
            return Ok(Answer { ciphertext, device: None, layer_seconds });
        };
        let before = device.evaluator().backend().statistics();
        let with = Fallback { device, host: &self.host, checkpoints: Checkpoints::for_plan(self.plan) };
        let completed = with.execute(self.plan, input, &watcher);
        let layer_seconds = watcher.finish();
        let Completed { answer, faults } = completed.map_err(failed)?;
        let faults: Vec<_> = faults.iter().map(|f| format!("{}: {}", f.layer, f.reason)).collect();
        for fault in &faults {
            eprintln!("note: redone on the processor: {fault}");
        }
        let done = device.evaluator().backend().statistics() - before;
        let device = DeviceRun { planned: self.demand, done, faults };
        Ok(Answer { ciphertext: answer, device: Some(device), layer_seconds })
    }
}

/// Tells the user which layer runs.
struct Watcher {
    /// For each step, its layer.
    layer_of: Vec<usize>,
    state: Mutex<State>,
}

struct State {
    progress: Progress,
    layer: Option<(usize, String, Instant)>,
    /// By layer.
    seconds: Vec<f64>,
}

impl Watcher {
    fn new(plan: &Plan, mode: Mode) -> Self {
        let mut layer_of = Vec::with_capacity(plan.steps().len());
        let mut previous: Option<&str> = None;
        let mut layer = 0;
        for step in plan.steps() {
            if previous.is_some_and(|p| p != step.layer) {
                layer += 1;
            }
            previous = Some(&step.layer);
            layer_of.push(layer);
        }
        let mut bootstraps = vec![0; plan.layers().len()];
        for (step, &layer) in plan.steps().iter().zip(&layer_of) {
            if let (PlannedOperation::Bootstrap(_), Some(count)) = (&step.operation, bootstraps.get_mut(layer)) {
                *count += 1;
            }
        }
        let estimates = plan.layers().iter().map(|l| l.seconds).collect();
        let progress = Progress::new(mode, estimates).counting(bootstraps, "bootstrap");
        let seconds = vec![0.0; plan.layers().len()];
        Self { layer_of, state: Mutex::new(State { progress, layer: None, seconds }) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Seconds of each layer.
    fn finish(&self) -> Vec<f64> {
        self.with(|state| {
            state.end();
            state.progress.finish();
            std::mem::take(&mut state.seconds)
        })
    }
}

impl State {
    fn end(&mut self) {
        if let Some((layer, name, begun)) = self.layer.take() {
            if let Some(seconds) = self.seconds.get_mut(layer) {
                *seconds += begun.elapsed().as_secs_f64();
            }
            self.progress.end(&name, begun.elapsed());
        }
    }
}

impl plan::Progress for Watcher {
    fn step_started(&self, index: usize, step: &PlannedStep) {
        let layer = self.layer_of.get(index).copied().unwrap_or(0);
        self.with(|state| {
            if state.layer.as_ref().is_none_or(|(current, ..)| *current != layer) {
                state.end();
                state.progress.begin(&step.layer);
                state.layer = Some((layer, step.layer.clone(), Instant::now()));
            }
        });
    }
    fn step_finished(&self, _: usize, _: &PlannedStep) {}
}

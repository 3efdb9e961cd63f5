//! The server's side: a network, evaluation keys, ciphertexts. Nothing here can decrypt.

use super::failure::{Outcome, explain};
use super::plan::Prepared;
use super::progress::{Mode, Progress};
use cipherlens::circuits::EncryptedEngine;
use cipherlens::ckks::{Ciphertext, Evaluator, KeySet, SeededCiphertext};
use cipherlens::plan::{self, Plan, PlannedStep};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What runs the network.
pub struct Server<'a> {
    plan: &'a Plan,
    engine: EncryptedEngine,
}

impl<'a> Server<'a> {
    /// A server with a client's evaluation keys.
    pub fn new(prepared: &'a Prepared, keys: KeySet) -> Outcome<Self> {
        let evaluator = Evaluator::new(prepared.params.clone(), prepared.backend.clone(), Arc::new(keys))
            .map_err(|e| explain("the evaluation keys do not fit", &e))?;
        let engine = EncryptedEngine::with_slots(evaluator, prepared.plan.program().slots)
            .map_err(|e| explain("the network does not fit the parameter set", &e))?;
        Ok(Self { plan: &prepared.plan, engine })
    }

    /// The whole ciphertext of which a client sent one half and a seed.
    pub fn expand(&self, input: &SeededCiphertext) -> Outcome<Ciphertext> {
        let evaluator = self.engine.evaluator();
        let input = input.expand(evaluator.params(), evaluator.backend().as_ref());
        input.map_err(|e| explain("the encrypted picture cannot be used", &e))
    }

    /// Runs the network on an encrypted picture.
    pub fn run(&self, input: Ciphertext, mode: Mode) -> Outcome<Arc<Ciphertext>> {
        let watcher = Watcher::new(self.plan, mode);
        let answer = plan::execute(self.plan, &self.engine, Arc::new(input), &watcher);
        watcher.finish();
        answer.map_err(|e| explain("the encrypted run failed", &e))
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
        let progress = Progress::new(mode, plan.layers().iter().map(|l| l.seconds).collect());
        Self { layer_of, state: Mutex::new(State { progress, layer: None }) }
    }

    fn with(&self, act: impl FnOnce(&mut State)) {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn finish(&self) {
        self.with(|state| {
            state.end();
            state.progress.finish();
        });
    }
}

impl State {
    fn end(&mut self) {
        if let Some((_, name, begun)) = self.layer.take() {
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

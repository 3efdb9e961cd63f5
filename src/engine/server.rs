//! The server's side: a network, evaluation keys, ciphertexts. Nothing here can decrypt.

use super::{EngineError, Prepared, Result};
use crate::backend::{Backend, Place, Statistics};
use crate::circuits::EncryptedEngine;
use crate::ckks::{Ciphertext, CkksError, Evaluator, KeySet, Params, SeededCiphertext};
use crate::plan::{self, Checkpoints, Completed, Fallback, Plan, PlanError, PlannedStep, Progress};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A network that runs for any number of clients: what does not depend on their keys. Threads may share it.
#[derive(Debug, Clone)]
pub struct Server {
    params: Arc<Params>,
    plan: Arc<Plan>,
    host: Arc<dyn Backend>,
    /// Where a device computes.
    device: Option<Arc<dyn Backend>>,
    /// What a run will ask of the device, where that can be told.
    demand: Option<Statistics>,
}

/// A network and one client's evaluation keys.
#[derive(Debug)]
pub struct Session {
    plan: Arc<Plan>,
    /// On the processor.
    host: EncryptedEngine,
    /// On a device, where one computes.
    device: Option<EncryptedEngine>,
    demand: Option<Statistics>,
}

/// What a run gave.
#[derive(Debug)]
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

impl Server {
    /// A server of a network that was prepared.
    pub fn new(prepared: &Prepared) -> Self {
        let on_device = prepared.backend.place() != Place::Host;
        Self {
            params: prepared.params.clone(),
            plan: prepared.plan.clone(),
            host: prepared.host.clone(),
            device: on_device.then(|| prepared.backend.clone()),
            demand: prepared.demand,
        }
    }

    /// The plan that is run.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// For a client with these evaluation keys, who will have about so many runs.
    ///
    /// # Errors
    /// [`EngineError::Scheme`] for keys of another parameter set, or without all that the plan needs.
    pub fn session(&self, keys: Arc<KeySet>, runs: usize) -> Result<Session> {
        let engine = |backend: &Arc<dyn Backend>| -> Result<EncryptedEngine> {
            let evaluator = Evaluator::new(self.params.clone(), backend.clone(), keys.clone())?;
            EncryptedEngine::with_slots(evaluator, self.plan.program().slots)
                .map_err(|source| EngineError::Run(PlanError::Layer { layer: "all".into(), source }))
        };
        let keep = |backend: &Arc<dyn Backend>, engine: EncryptedEngine| match backend.device_bytes().zip(self.demand) {
            // Beside what one run takes.
            Some((bytes, demand)) if runs > 1 => {
                engine.keeping_products(bytes.saturating_sub(demand.peak_bytes) / 4 * 3, self.plan.integer_bytes())
            }
            _ => engine,
        };
        let host = engine(&self.host)?;
        // Here rather than in the first run, so that a client hears of it before it has sent a picture.
        keys.check(self.plan.keys())?;
        let device = self.device.as_ref().map(|backend| Ok::<_, EngineError>(keep(backend, engine(backend)?))).transpose()?;
        Ok(Session { plan: self.plan.clone(), host, device, demand: self.demand })
    }
}

impl Session {
    /// The whole ciphertext of which a client sent one half and a seed.
    ///
    /// # Errors
    /// [`EngineError::Scheme`] for a ciphertext of another parameter set.
    pub fn expand(&self, input: &SeededCiphertext) -> Result<Ciphertext> {
        let evaluator = self.host.evaluator();
        Ok(input.expand(evaluator.params(), evaluator.backend().as_ref())?)
    }

    /// Runs the network on encrypted pictures in host memory. `progress` is told of every step, and may end the run
    /// before one.
    ///
    /// # Errors
    /// [`EngineError::Run`]: for a ciphertext of other shards or a lower level, memory that there is not, or
    /// [`PlanError::Stopped`] where `progress` ended it.
    pub fn run(&self, input: Ciphertext, progress: &dyn Progress) -> Result<Answer> {
        let clock = Clock::new(&self.plan, progress);
        let Some(device) = &self.device else {
            let answer = plan::execute(&self.plan, &self.host, Arc::new(input), &clock).map_err(EngineError::Run)?;
            let ciphertext = Arc::try_unwrap(answer).or_else(|a| a.duplicate(self.host.evaluator().backend().as_ref()));
            let ciphertext = ciphertext.map_err(|e: CkksError| EngineError::Run(e.into()))?;
            return Ok(Answer { ciphertext, device: None, layer_seconds: clock.seconds() });
        };
        let before = device.evaluator().backend().statistics();
        let with = Fallback { device, host: &self.host, checkpoints: Checkpoints::for_plan(&self.plan) };
        let Completed { answer, faults } = with.execute(&self.plan, input, &clock).map_err(EngineError::Run)?;
        let faults: Vec<_> = faults.iter().map(|f| format!("{}: {}", f.layer, f.reason)).collect();
        let done = device.evaluator().backend().statistics() - before;
        let device = DeviceRun { planned: self.demand, done, faults };
        Ok(Answer { ciphertext: answer, device: Some(device), layer_seconds: clock.seconds() })
    }
}

/// Seconds of each layer, beside what else is told.
struct Clock<'a> {
    /// For each step, its layer.
    layer_of: Vec<usize>,
    state: Mutex<(Instant, Option<usize>, Vec<f64>)>,
    next: &'a dyn Progress,
}

impl<'a> Clock<'a> {
    fn new(plan: &Plan, next: &'a dyn Progress) -> Self {
        let state = Mutex::new((Instant::now(), None, vec![0.0; plan.layers().len()]));
        Self { layer_of: plan.layer_of_steps(), state, next }
    }

    fn lap(&self, layer: Option<usize>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, current, seconds) = &mut *state;
        if *current == layer {
            return;
        }
        if let Some(spent) = current.and_then(|current| seconds.get_mut(current)) {
            *spent += begun.elapsed().as_secs_f64();
        }
        (*begun, *current) = (Instant::now(), layer);
    }

    fn seconds(self) -> Vec<f64> {
        self.lap(None);
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).2
    }
}

impl Progress for Clock<'_> {
    fn step_started(&self, index: usize, step: &PlannedStep) {
        self.lap(self.layer_of.get(index).copied());
        self.next.step_started(index, step);
    }
    fn step_finished(&self, index: usize, step: &PlannedStep) {
        self.next.step_finished(index, step);
    }
    fn goes_on(&self) -> bool {
        self.next.goes_on()
    }
}

//! Whole layers and networks on any backend, seeded, so that every backend has the same keys and gives the same words.
//! Compiled into the command and into `benches/`.

use cipherlens::backend::Backend;
use cipherlens::circuits::EncryptedEngine;
use cipherlens::ckks::{Ciphertext, Evaluator, Level, Owner, Params};
use cipherlens::nn::model::{NumberType, TensorData};
use cipherlens::nn::{LowerOptions, Model, Tensor, lower};
use cipherlens::plan::{self, Plan, PlanOptions, PlannedStep};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A network on a parameter set, ready to be run on backends.
pub struct Workload {
    /// What it is called in reports.
    pub name: String,
    /// The parameter set.
    pub params: Arc<Params>,
    /// Levels, keys, counts.
    pub plan: Plan,
    input: Vec<Vec<f64>>,
}

/// A network with its keys and its input on a backend.
pub struct Loaded<'a> {
    workload: &'a Workload,
    backend: Arc<dyn Backend>,
    engine: EncryptedEngine,
    input: Arc<Ciphertext>,
}

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

impl Workload {
    /// Plans a network for an input of made-up numbers, its output at some level.
    ///
    /// # Errors
    /// The [`LowerError`](cipherlens::nn::lower::LowerError) or [`PlanError`](plan::PlanError) of a network that does not run on the
    /// parameter set.
    pub fn new(name: &str, model: &Model, params: Arc<Params>, output_level: Level) -> Fallible<Self> {
        let lowered = lower(model, params.slots(), &LowerOptions::default())?;
        let plan = Plan::new(&lowered.program, &params, &PlanOptions { output_level, ..PlanOptions::default() })?;
        let shape = model.input().shape;
        let values = (0..shape.len()).map(|i| (i as f64 * 0.37).sin()).collect();
        let input = lowered.input.pack(&Tensor::<f64>::new(shape, values)?)?;
        Ok(Self { name: name.into(), params, plan, input })
    }

    /// One 3 x 3 convolution of `channels` channels of `side` x `side` pixels, to as many.
    ///
    /// # Errors
    /// The [`ModelError`](cipherlens::nn::model::ModelError) of sizes beyond the limits of a model, and those of [`Self::new`].
    pub fn convolution(channels: usize, side: usize, params: Arc<Params>, output_level: Level) -> Fallible<Self> {
        let graph = serde_json::json!({
            "name": "convolution", "output": "out", "classes": [],
            "input": { "name": "in", "channels": channels, "height": side, "width": side,
                       "mean": vec![0; channels], "std": vec![1; channels] },
            "nodes": [{ "op": "conv2d", "name": "conv", "inputs": ["in"], "output": "out", "weight": "weight", "bias": "bias",
                        "padding": [1, 1, 1, 1] }],
        });
        let numbers =
            |count: usize| -> Vec<u8> { (0..count).flat_map(|i| ((i as f32 * 0.7).sin() / 8.0).to_le_bytes()).collect() };
        let (weight, bias) = (numbers(channels * channels * 9), numbers(channels));
        let model = Model::from_graph(&graph.to_string(), |name| {
            let (shape, bytes) =
                if name == "weight" { (vec![channels, channels, 3, 3], &weight) } else { (vec![channels], &bias) };
            Some(TensorData { shape, dtype: NumberType::F32, bytes })
        })?;
        Self::new(&format!("convolution {channels} x {side} x {side}"), &model, params, output_level)
    }

    /// Makes keys and encrypts, for a backend.
    ///
    /// # Errors
    /// The [`CkksError`](cipherlens::ckks::CkksError) of keys or an input that the backend has no room for.
    pub fn load(&self, backend: Arc<dyn Backend>) -> Fallible<Loaded<'_>> {
        let owner = Owner::insecure_seeded(&self.params, backend.clone(), 1)?;
        let keys = owner.evaluation_keys(self.plan.keys())?;
        let input = Arc::new(owner.encrypt(self.plan.input_level(), &self.input)?);
        let engine = EncryptedEngine::new(Evaluator::new(self.params.clone(), backend.clone(), keys)?);
        // It runs several times: what is measured is a run that finds the weights where it needs them.
        let engine = match backend.device_bytes() {
            Some(bytes) => engine.keeping_products(bytes / 4, self.plan.integer_bytes()),
            None => engine,
        };
        Ok(Loaded { workload: self, backend, engine, input })
    }
}

impl Loaded<'_> {
    /// Runs it and waits for the device.
    ///
    /// # Errors
    /// The [`PlanError`](plan::PlanError) of the run, the [`BackendError`](cipherlens::backend::BackendError) of a device that is lost.
    pub fn run(&self) -> Fallible<Arc<Ciphertext>> {
        let answer = plan::execute(&self.workload.plan, &self.engine, self.input.clone(), &())?;
        self.backend.synchronize()?;
        Ok(answer)
    }

    /// Runs it and tells the seconds of each layer, the device waited for after each step.
    ///
    /// # Errors
    /// The [`PlanError`](plan::PlanError) of the run.
    pub fn layers(&self) -> Fallible<Vec<(String, f64)>> {
        let clock = Clock { backend: self.backend.clone(), state: Mutex::new((Instant::now(), Vec::new())) };
        plan::execute(&self.workload.plan, &self.engine, self.input.clone(), &clock)?;
        Ok(clock.state.into_inner().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// The words of an answer.
    ///
    /// # Errors
    /// The [`BackendError`](cipherlens::backend::BackendError) of a ciphertext of another backend, or of a device that is lost.
    pub fn words(&self, answer: &Ciphertext) -> Fallible<Vec<u32>> {
        Ok(self.backend.download(answer.buffer())?)
    }
}

/// Adds up the seconds of layers.
struct Clock {
    backend: Arc<dyn Backend>,
    state: Mutex<(Instant, Vec<(String, f64)>)>,
}

impl plan::Progress for Clock {
    fn step_started(&self, _: usize, _: &PlannedStep) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = Instant::now();
    }
    fn step_finished(&self, _: usize, step: &PlannedStep) {
        // A device that fails here fails the next call too.
        let _ = self.backend.synchronize();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = state.0.elapsed().as_secs_f64();
        match state.1.last_mut() {
            Some((layer, sum)) if *layer == step.layer => *sum += seconds,
            _ => state.1.push((step.layer.clone(), seconds)),
        }
    }
}

//! Running a plan on a device that may fail, with the processor to fall back on.
//!
//! A device refuses memory or is lost; a processor is not. What the device could not do is redone on the processor: a step that
//! found no memory from its own operands, read back; everything since the last values on the host where the device, and
//! all that was on it, is lost. Results are read back only from a device without a fault, so that a wrong word never gets
//! further than an error does.

use super::execute::run_step;
use super::{Plan, PlanError, PlannedStep, Progress, ValueId};
use crate::backend::{BackendError, Place};
use crate::circuits::{CircuitError, EncryptedEngine, Engine};
use crate::ckks::{Ciphertext, CkksError};
use std::sync::Arc;

/// What is kept in host memory while a plan runs on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checkpoints {
    /// The input: a lost device costs the whole run so far, and nothing is read back before the end.
    #[default]
    Input,
    /// The result of every step, as long as it is needed: a lost device costs one step.
    EveryStep,
}

impl Checkpoints {
    /// Seconds of work, as a plan estimates them, that may be lost.
    const WORTH: f64 = 60.0;

    /// Where a lost device would cost more than a minute of the processor's work, every step; else the input.
    pub fn for_plan(plan: &Plan) -> Self {
        if plan.seconds() > Self::WORTH { Self::EveryStep } else { Self::Input }
    }
}

/// A step that a device did not do.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Which step; the number of steps where the result could not be read back.
    pub step: usize,
    /// Its layer.
    pub layer: String,
    /// What happened.
    pub reason: BackendError,
}

/// A finished run.
#[derive(Debug)]
pub struct Completed {
    /// The result, on the host's backend.
    pub answer: Ciphertext,
    /// What had to be redone, in order.
    pub faults: Vec<Fault>,
}

/// Two engines with the same keys.
#[derive(Debug, Clone, Copy)]
pub struct Fallback<'a> {
    /// On a device.
    pub device: &'a EncryptedEngine,
    /// On the processor.
    pub host: &'a EncryptedEngine,
    /// What is kept.
    pub checkpoints: Checkpoints,
}

impl Fallback<'_> {
    /// Runs a plan on the device as far as that works, the rest on the processor; the words are those of either. `input` is on
    /// the host's backend. Steps that are redone are told of again.
    ///
    /// # Errors
    /// Those of [`super::execute()`] that no other device would change; [`PlanError::DeviceMemory`] on a device that only counts
    /// ([`Place::Nowhere`]), where a step would not find the memory it asks for.
    pub fn execute(&self, plan: &Plan, input: Ciphertext, progress: &dyn Progress) -> Result<Completed, PlanError> {
        if input.shards() != plan.program().input_shards || input.level() < plan.input_level() {
            return Err(PlanError::Input {
                expected: plan.program().input_shards,
                level: plan.input_level().0,
                found: input.shards(),
                found_level: input.level().0,
            });
        }
        for engine in [self.host, self.device] {
            engine.check_keys(plan.keys()).map_err(PlanError::Keys)?;
        }
        let mut run = Run::new(*self, plan, progress);
        run.values[0].host = Some(Arc::new(input));
        for (step, planned) in plan.steps().iter().enumerate() {
            if !progress.goes_on() {
                return Err(PlanError::Stopped { layer: planned.layer.clone() });
            }
            run.step(step)?;
            run.forget(step);
        }
        let output = plan.output();
        let answer = run.on_host(output, plan.steps().len())?;
        run.values.clear();
        // The run's own hold on the answer was the last but this.
        let answer = Arc::try_unwrap(answer).or_else(|shared| shared.duplicate(self.host.evaluator().backend().as_ref()))?;
        Ok(Completed { answer, faults: run.faults })
    }
}

/// A value wherever it is.
#[derive(Debug, Clone, Default)]
struct Held {
    device: Option<Arc<Ciphertext>>,
    host: Option<Arc<Ciphertext>>,
}

struct Run<'a> {
    with: Fallback<'a>,
    plan: &'a Plan,
    progress: &'a dyn Progress,
    values: Vec<Held>,
    /// For each value, the last step that reads it.
    last_use: Vec<usize>,
    /// Whether the device is lost.
    lost: bool,
    faults: Vec<Fault>,
}

/// The fault of a device in an error, if it is one.
fn fault_of(error: &CkksError) -> Option<&BackendError> {
    match error {
        CkksError::Backend(e @ (BackendError::OutOfMemory { .. } | BackendError::Device { .. })) => Some(e),
        _ => None,
    }
}

/// A ciphertext on another backend.
fn moved(ct: &Ciphertext, from: &EncryptedEngine, to: &EncryptedEngine) -> Result<Ciphertext, CkksError> {
    let words = from.evaluator().backend().download(ct.buffer())?;
    let buffer = to.evaluator().backend().upload(ct.buffer().shape(), &words)?;
    Ciphertext::from_parts(to.evaluator().params(), buffer, ct.level(), ct.scale(), ct.tag())
}

impl<'a> Run<'a> {
    fn new(with: Fallback<'a>, plan: &'a Plan, progress: &'a dyn Progress) -> Self {
        let steps = plan.steps();
        let mut last_use = vec![0; steps.len() + 1];
        for (i, step) in steps.iter().enumerate() {
            for &ValueId(v) in &step.operands {
                last_use[v] = i;
            }
        }
        last_use[plan.output().0] = steps.len();
        let values = vec![Held::default(); steps.len() + 1];
        Self { with, plan, progress, values, last_use, lost: false, faults: Vec::new() }
    }

    fn layer(&self, step: usize) -> String {
        self.plan.steps().get(step).map_or_else(|| "output".to_owned(), |s| s.layer.clone())
    }

    fn in_layer(&self, step: usize, source: CircuitError) -> PlanError {
        PlanError::Layer { layer: self.layer(step), source }
    }

    /// Notes a device's fault; any other error ends the run.
    fn note(&mut self, step: usize, error: CircuitError) -> Result<(), PlanError> {
        let reason = match &error {
            CircuitError::Ckks(e) => fault_of(e).cloned(),
            _ => None,
        };
        let Some(reason) = reason else { return Err(self.in_layer(step, error)) };
        if self.with.device.evaluator().backend().place() == Place::Nowhere {
            return Err(PlanError::DeviceMemory { layer: self.layer(step), source: reason });
        }
        if let BackendError::Device { .. } = reason {
            self.lost = true;
            self.values.iter_mut().for_each(|v| v.device = None);
        }
        self.faults.push(Fault { step, layer: self.layer(step), reason });
        Ok(())
    }

    /// One step, on the device if that works.
    fn step(&mut self, index: usize) -> Result<(), PlanError> {
        if !self.lost {
            let step = &self.plan.steps()[index];
            self.progress.step_started(index, step);
            match self.on_device(step) {
                Ok(held) => {
                    self.values[index + 1] = held;
                    self.progress.step_finished(index, step);
                    return Ok(());
                }
                Err(e) => self.note(index, e)?,
            }
        }
        self.on_host(ValueId(index + 1), index).map(drop)
    }

    fn on_device(&mut self, step: &PlannedStep) -> Result<Held, CircuitError> {
        let Fallback { device, host, checkpoints } = self.with;
        let mut operands = Vec::with_capacity(2);
        for &ValueId(v) in &step.operands {
            let held = &mut self.values[v];
            if let (None, Some(ct)) = (&held.device, &held.host) {
                held.device = Some(Arc::new(moved(ct, host, device)?));
            }
            operands.extend(held.device.clone());
        }
        let result = run_step(device, step, &operands)?;
        let copy = match checkpoints {
            Checkpoints::Input => None,
            Checkpoints::EveryStep => Some(Arc::new(moved(&result, device, host)?)),
        };
        Ok(Held { device: Some(result), host: copy })
    }

    /// A value on the host at the time of a step: what there is, what the device still has, or made again from what its step
    /// read.
    fn on_host(&mut self, wanted: ValueId, now: usize) -> Result<Arc<Ciphertext>, PlanError> {
        let Fallback { device, host, .. } = self.with;
        // What is missing, found backwards: a value's operands come before it.
        let mut missing = vec![false; self.values.len()];
        missing[wanted.0] = true;
        for v in (0..=wanted.0).rev().filter(|&v| v > 0) {
            if !missing[v] || self.values[v].host.is_some() {
                missing[v] = false;
                continue;
            }
            if let Some(ct) = &self.values[v].device {
                match moved(ct, device, host) {
                    Ok(ct) => {
                        self.values[v].host = Some(Arc::new(ct));
                        missing[v] = false;
                        continue;
                    }
                    Err(e) => {
                        self.note(now, e.into())?;
                        // What the device has can only be made again.
                        self.values[v].device = None;
                    }
                }
            }
            for &ValueId(operand) in &self.plan.steps()[v - 1].operands {
                missing[operand] = true;
            }
        }
        for v in (1..=wanted.0).filter(|&v| missing[v]) {
            let step = &self.plan.steps()[v - 1];
            self.progress.step_started(v - 1, step);
            let operands: Vec<_> = step.operands.iter().filter_map(|&ValueId(o)| self.values[o].host.clone()).collect();
            if operands.len() != step.operands.len() {
                return Err(PlanError::UndefinedValue { step: v - 1, layer: step.layer.clone(), value: step.operands[0].0 });
            }
            let result = run_step(host, step, &operands).map_err(|e| self.in_layer(v - 1, e))?;
            self.values[v].host = Some(result);
            self.progress.step_finished(v - 1, step);
        }
        self.values[wanted.0].host.clone().ok_or_else(|| PlanError::UndefinedValue {
            step: now,
            layer: self.layer(now),
            value: wanted.0,
        })
    }

    /// Drops what no later step reads. What a lost device would be started again from stays.
    fn forget(&mut self, done: usize) {
        for (v, held) in self.values.iter_mut().enumerate().filter(|&(v, _)| self.last_use[v] <= done && v <= done) {
            held.device = None;
            if v > 0 || self.lost || self.with.checkpoints == Checkpoints::EveryStep {
                held.host = None;
            }
        }
    }
}

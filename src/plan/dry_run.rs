//! What a plan will ask of a device, found by running it on one that only counts.

use super::{Checkpoints, CostModel, DeviceDemand, Fallback, LayerDemand, Plan, PlanError, PlannedStep, Progress};
use crate::backend::cpu::{CpuBackend, Isa};
use crate::backend::gpu::{GpuBackend, GpuOptions, Limits, Rates};
use crate::backend::{Backend, BackendError, Kernels, Shape, Statistics};
use crate::circuits::EncryptedEngine;
use crate::ckks::{Ciphertext, CkksError, Evaluator, KeyId, KeySet, KeySwitchKey, Params, Tag};
use std::sync::{Arc, Mutex, PoisonError};

struct Watch<'a> {
    gpu: &'a GpuBackend,
    state: Mutex<(Statistics, Vec<LayerDemand>)>,
}

impl Progress for Watch<'_> {
    fn step_started(&self, _: usize, _: &PlannedStep) {}
    fn step_finished(&self, _: usize, step: &PlannedStep) {
        let now = self.gpu.statistics();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now - state.0;
        state.0 = now;
        match state.1.last_mut().filter(|l| l.layer == step.layer) {
            Some(l) => {
                let s = &mut l.statistics;
                s.dispatches += since.dispatches;
                s.copies += since.copies;
                s.traffic_bytes += since.traffic_bytes;
                s.uploaded_bytes += since.uploaded_bytes;
                s.key_bytes += since.key_bytes;
                s.key_evictions += since.key_evictions;
                s.downloaded_bytes += since.downloaded_bytes;
                s.allocations += since.allocations;
                (s.bytes, s.peak_bytes) = (since.bytes, since.peak_bytes);
            }
            None => state.1.push(LayerDemand { layer: step.layer.clone(), statistics: since }),
        }
    }
}

impl DeviceDemand {
    /// Runs a plan without words on a device of these limits. What is dispatched, moved and held is what
    /// [`Fallback::execute`] on such a device does, as long as nothing fails; coefficients of plaintexts are taken to be about as
    /// large as their scale. Cost: the calls alone, milliseconds.
    ///
    /// # Errors
    /// [`PlanError::DeviceMemory`] where a layer needs more than the options' memory limit or the device's largest buffer.
    pub fn of(plan: &Plan, limits: Limits, options: &GpuOptions, checkpoints: Checkpoints) -> Result<Self, PlanError> {
        Self::of_run(plan, limits, options, checkpoints, 0)
    }

    /// The same of a run after some like it in a session of many: keys, constants and encoded weights are on the device by then.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn repeated(plan: &Plan, limits: Limits, options: &GpuOptions, checkpoints: Checkpoints) -> Result<Self, PlanError> {
        Self::of_run(plan, limits, options, checkpoints, 2)
    }

    fn of_run(
        plan: &Plan,
        limits: Limits,
        options: &GpuOptions,
        checkpoints: Checkpoints,
        earlier: usize,
    ) -> Result<Self, PlanError> {
        let params = plan.params();
        let fault = |e: BackendError| PlanError::Ckks(CkksError::Backend(e));
        let gpu = Arc::new(GpuBackend::dry(params.tables().clone(), limits, options).map_err(fault)?);
        let cpu = Arc::new(CpuBackend::with_isa(params.tables().clone(), Isa::SCALAR));
        let tag = Tag { fingerprint: params.fingerprint(), key_id: KeyId([0; 16]), insecure: params.is_insecure() };
        let mut keys = KeySet::new(tag);
        for &request in plan.keys() {
            keys.insert(KeySwitchKey::blank(params, gpu.as_ref(), tag, request)?)?;
        }
        let keys = Arc::new(keys);
        let slots = plan.program().slots;
        let engine = |backend: Arc<dyn Backend>| -> Result<EncryptedEngine, PlanError> {
            let evaluator = Evaluator::new(params.clone(), backend, keys.clone())?;
            EncryptedEngine::with_slots(evaluator, slots).map_err(|source| PlanError::Layer { layer: "input".into(), source })
        };
        let (mut device, host) = (engine(gpu.clone())?, engine(cpu.clone())?);
        if earlier > 0 {
            // As a session does it.
            let peak = Self::of(plan, limits, options, checkpoints)?.total.peak_bytes;
            let room = gpu.device_bytes().unwrap_or(u64::MAX).saturating_sub(peak) / 4 * 3;
            device = device.keeping_products(room, plan.integer_bytes());
        }
        let level = plan.input_level();
        let shape = Shape::new(2 * plan.program().input_shards, params.window(level).len(), params.degree());
        let input = || -> Result<Ciphertext, PlanError> {
            let input = cpu.alloc(shape).map_err(fault)?;
            Ok(Ciphertext::from_parts(params, input, level, params.scale(level), tag)?)
        };
        let with = Fallback { device: &device, host: &host, checkpoints };
        for _ in 0..earlier {
            with.execute(plan, input()?, &())?;
        }
        let before = gpu.statistics();
        let watch = Watch { gpu: &gpu, state: Mutex::new((before, Vec::new())) };
        with.execute(plan, input()?, &watch)?;
        let layers = watch.state.into_inner().unwrap_or_else(PoisonError::into_inner).1;
        Ok(Self { total: gpu.statistics() - before, layers })
    }
}

impl CostModel {
    /// What operations cost on a GPU of these rates: what each asks of one is counted, not timed, so that no GPU is needed. Words sent to it
    /// are not counted: what repeats is there, and weights are encoded there from integers. From a tenth of a second to two at N = 2^16.
    ///
    /// # Errors
    /// As [`Self::measure`].
    pub fn of_gpu(params: &Arc<Params>, rates: &Rates) -> Result<Self, CkksError> {
        let limits = Limits { memory: Some(80 << 30), ..Limits::USUAL };
        let gpu = Arc::new(GpuBackend::dry(params.tables().clone(), limits, &GpuOptions::default())?);
        let backend: Arc<dyn Backend> = gpu.clone();
        let clock = || {
            let [waits, kernels, _] = rates.parts(&gpu.statistics());
            Ok(waits + kernels)
        };
        Self::measure_by(params, &backend, &clock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ckks::presets;

    #[test]
    fn a_gpu_half_as_fast_costs_twice_as_much() {
        let params = presets::by_name("insecure-small").expect("a preset");
        let cost = |slower: f64| {
            let Rates { gap, traffic, upload } = Rates::TYPICAL;
            let rates = Rates { gap: gap * slower, traffic: traffic / slower, upload };
            let m = CostModel::of_gpu(&params, &rates).expect("costs");
            [m.decompose, m.divide, m.product, m.tensor, m.plain, m.prepared, m.sweep, m.call, m.key]
        };
        let (one, two) = (cost(1.0), cost(2.0));
        assert!(one[..7].iter().all(|c| *c > 0.0), "{one:?}");
        for (a, b) in one.iter().zip(two) {
            assert!((b - 2.0 * a).abs() <= 1e-9 * b, "{one:?} {two:?}");
        }
        assert_eq!(one, cost(1.0), "nothing is timed");
    }
}

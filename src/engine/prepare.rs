//! A network, a parameter set and a machine: the program, its plan, and what a run of it will take.

use super::{EngineError, Result, answer};
use crate::backend::choice::{Choice, Devices, Opened};
#[cfg(feature = "gpu")]
use crate::backend::gpu::{GpuBackend, GpuOptions, Limits};
use crate::backend::{Backend, BackendError, Calls, Mirror, Place, Statistics};
use crate::circuits::{NoisyEngine, NoisyRuns};
use crate::ckks::{Params, presets};
use crate::nn::clear::Network;
use crate::nn::compiled::KeptPlan;
use crate::nn::lower::Layouts;
use crate::nn::simulate::check_picture;
use crate::nn::tensor::Element;
use crate::nn::{self, Compiled, Counted, LowerOptions, Lowered, Model, Tensor};
#[cfg(feature = "gpu")]
use crate::plan::Checkpoints;
use crate::plan::DeviceDemand;
use crate::plan::{CostModel, CutCounts, MemoryLimits, Plan, PlanError, PlanOptions, Target, execute};
use chacha20::ChaCha8Rng;
use cipherlens_core::client::{Rest, interleave};
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use std::sync::Arc;

/// The parameter set where none is named.
pub const DEFAULT_PRESET: &str = "n15-cnn";
/// The parameter set for networks that need bootstrapping.
pub const BOOTSTRAPPING_PRESET: &str = "n16-boot";
/// Most pictures in a run that a plan is kept for.
const MOST_TOGETHER: usize = 64;
/// How many times the error foreseen the rest of an answer may be off what is said of it.
const REST_SLACK: f64 = 16.0;
/// How far each pixel of 0 to 1 is moved to see what lies beside any result: enough to be far from the noise.
const SPECKLE: f64 = 0.02;

/// A network ready to run on a parameter set and a backend.
#[derive(Debug)]
pub struct Prepared {
    /// The parameter set.
    pub params: Arc<Params>,
    /// Where it will run.
    pub backend: Arc<dyn Backend>,
    /// The processor's kernels, the same as `backend` if it runs there: for files, and for what a device cannot do.
    pub host: Arc<dyn Backend>,
    /// Where [`Choice::Auto`] took the processor: why no GPU.
    pub no_gpu: Option<BackendError>,
    /// The network as a program, with the layouts of its input and output.
    pub lowered: Lowered,
    /// Levels, splits, keys, cost.
    pub plan: Arc<Plan>,
    /// What a run will ask of a device, where one computes and that can be told.
    pub demand: Option<Statistics>,
    /// The device that the plan was decided for, if it was decided now.
    pub target: Target,
}

/// Which unit costs a plan's seconds are estimated from. Plans are decided by those of [`PrepareOptions::target`]: what
/// is made once is what all others get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Costs {
    /// Timed on this machine.
    Measured,
    /// Those that it was decided by.
    #[default]
    Typical,
}

impl Costs {
    /// Timed where the processor computes. A GPU returns from a call before its work is done, so that a clock says
    /// nothing.
    pub fn on(devices: &Devices) -> Self {
        if devices.choice == Choice::Cpu { Self::Measured } else { Self::Typical }
    }
}

/// What is asked of a plan.
#[derive(Debug, Clone, Default)]
pub struct PrepareOptions {
    /// Pictures there are: as many of them go into one run as the slots have room for. 0 is 1.
    pub pictures: usize,
    /// What a run may hold.
    pub limits: MemoryLimits,
    /// Plans that were decided before: taken as they are where they are for as many pictures.
    pub kept: Vec<KeptPlan>,
    /// Whether its layouts and decisions will be kept: the layouts may then be such as the next version does not find, and are those that
    /// are cheapest where values are bootstrapped.
    pub for_keeping: bool,
    /// Which unit costs its seconds are estimated from.
    pub costs: Costs,
    /// The device that it is decided for.
    pub target: Target,
    /// What was counted before of layouts and of matrices.
    pub counted: (Counted, CutCounts),
    /// Calls of a device that are compared with the processor's, word by word: `all`, or names of [`Backend`]'s methods
    /// with commas between them.
    pub compare: Option<String>,
}

/// As [`prepare`], with a parameter set chosen if none is named: the one with bootstrapping where the usual one has too
/// few levels.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_any(network: &Model, preset: Option<&str>, options: PrepareOptions, devices: &Devices) -> Result<Prepared> {
    if let Some(preset) = preset {
        return prepare(network, preset, options, devices);
    }
    let params = presets::by_name(DEFAULT_PRESET)?;
    let deep = || {
        // How deep a network is does not depend on its layouts but for a level or two of moves: those of the usual
        // slots do.
        let lowered = nn::lower(network, params.slots(), &LowerOptions::default()).ok()?;
        let plan = Plan::new(&lowered.program, &params, &PlanOptions::default());
        matches!(plan, Err(PlanError::LevelsExhausted { .. })).then_some(BOOTSTRAPPING_PRESET)
    };
    prepare(network, deep().unwrap_or(DEFAULT_PRESET), options, devices)
}

/// Slots to lower for. Bootstrapping costs by the slots that a ciphertext uses.
pub fn slots_for(network: &Model, params: &Params) -> usize {
    match params.bootstrap() {
        // Some sets bootstrap vectors of fewer slots than they have; a network too wide for one takes several shards.
        Some(spec) => nn::fitting_slots(network, params.slots().min(1 << spec.log_slots)),
        None => params.slots(),
    }
}

/// Which layouts a network that keeps them is lowered to.
pub(super) fn layouts_for(params: &Params) -> Layouts {
    match params.bootstrap() {
        Some(_) => Layouts::Bootstrapped { levels: params.working_level().0 },
        None => Layouts::Cheapest,
    }
}

/// The plans that are kept with a compiled network, beside the one of a single picture: of as many pictures as the
/// slots have room for, by powers of two, 64 at most. With each, the run prepared.
///
/// # Errors
/// None where the network was prepared for one picture; those of [`presets::by_name`].
pub fn keep(network: &Model, preset: &str, options: &PrepareOptions) -> Result<Vec<Prepared>> {
    let params = presets::by_name(preset)?;
    let most = pictures_in_a_run(network, &params, MOST_TOGETHER);
    let mut kept = Vec::new();
    for pictures in (1..).map(|log| 1usize << log).take_while(|&k| k <= most) {
        // More pictures may need more keys than are allowed.
        let options = PrepareOptions { pictures, ..options.clone() };
        let Ok(prepared) = prepare(network, preset, options, &Devices::default()) else { break };
        kept.push(prepared);
    }
    Ok(kept)
}

/// How many pictures one run may take, of so many that there are: a power of two that the slots have room for.
fn pictures_in_a_run(network: &Model, params: &Params, pictures: usize) -> usize {
    let most = params.bootstrap().map_or(params.slots(), |spec| params.slots().min(1 << spec.log_slots));
    let room = most / nn::fitting_slots(network, most);
    pictures.clamp(1, room.clamp(1, MOST_TOGETHER)).next_power_of_two()
}

/// Lowers a network for a parameter set and plans it, for a machine.
///
/// # Errors
/// [`EngineError::Params`] for an unknown parameter set, [`EngineError::Backend`] where there is no such machine or no
/// such call to compare, [`EngineError::Lower`] and [`EngineError::Plan`] for a network that does not run,
/// [`EngineError::Overflow`] for one that adds numbers which no ciphertext can hold, [`EngineError::DeviceMemory`].
pub fn prepare(network: &Model, preset: &str, options: PrepareOptions, devices: &Devices) -> Result<Prepared> {
    let params = presets::by_name(preset)?;
    let again = options.clone();
    let compared = options.compare.as_deref().map(str::parse::<Calls>).transpose().map_err(EngineError::Backend)?;
    let Opened { mut backend, no_gpu, .. } = devices.open(params.tables().clone())?;
    let host = match backend.place() {
        Place::Host => backend.clone(),
        Place::Device | Place::Nowhere => Devices::default().open(params.tables().clone())?.backend,
    };
    let together = pictures_in_a_run(network, &params, options.pictures);
    let slots = if together > 1 { nn::fitting_slots(network, params.slots()) } else { slots_for(network, &params) };
    let (counted, cuts) = options.counted;
    let kept = options.kept.iter().find(|kept| kept.together == together);
    let layouts = if options.for_keeping { layouts_for(&params) } else { Layouts::default() };
    let lowering = LowerOptions { counted, layouts, kept: kept.and_then(|k| k.layouts.clone()), ..LowerOptions::default() };
    let refused = |source| EngineError::Lower { network: network.name().into(), preset: preset.into(), source };
    let lowered = nn::lower(network, slots, &lowering).map_err(refused)?.interleaved(together);
    let cost = match options.costs {
        Costs::Measured => Some(CostModel::measure(&params, &backend)?),
        Costs::Typical => None,
    };
    let held_bytes = PlanOptions::default().held_bytes.min(rotation_room(backend.as_ref()));
    let decided_by = Some(options.target.cost(&params)?);
    let planning = PlanOptions { held_bytes, limits: options.limits, counted: cuts, cost: decided_by, ..PlanOptions::default() };
    let plan = match kept {
        Some(kept) => Plan::decided(&lowered.program, &params, &planning, &kept.decisions),
        None => Plan::new(&lowered.program, &params, &planning),
    };
    let plan = plan.and_then(|plan| match &cost {
        Some(cost) => plan.estimated(cost),
        None => Ok(plan),
    });
    let refused = |source| EngineError::Plan { network: network.name().into(), preset: preset.into(), source };
    let plan = plan.map_err(refused)?;
    answer::check_constants(&plan)?;
    let demand = demand(&plan, backend.as_ref())?;
    if devices.choice == Choice::Auto
        && compared.is_none()
        && let Some(slower) = slower(&plan, backend.as_ref(), demand.as_ref())?
    {
        let prepared = prepare(network, preset, again, &Devices::default())?;
        return Ok(Prepared { no_gpu: Some(slower), ..prepared });
    }
    if let (Some(calls), Place::Device) = (compared, backend.place()) {
        backend = Arc::new(Mirror::new(host.clone(), backend).only(calls));
    }
    Ok(Prepared { params, backend, host, no_gpu, lowered, plan: Arc::new(plan), demand, target: options.target })
}

/// A compiled network, for a run of so many pictures on a machine: by the plan it was compiled with.
///
/// # Errors
/// As [`prepare`].
pub fn open(compiled: &Compiled, pictures: usize, devices: &Devices) -> Result<Prepared> {
    let (limits, kept) = (MemoryLimits::of_keys(compiled.max_key_bytes), compiled.plans.clone());
    prepare(&compiled.model, &compiled.preset, PrepareOptions { pictures, limits, kept, ..PrepareOptions::default() }, devices)
}

/// What a device lets rotated values take: they are one buffer, and other things need room beside it.
#[cfg(feature = "gpu")]
fn rotation_room(backend: &dyn Backend) -> u64 {
    GpuBackend::of(backend).map_or(u64::MAX, |gpu| gpu.limits().buffer.min(gpu.options().memory_limit.unwrap_or(u64::MAX) / 3))
}

#[cfg(not(feature = "gpu"))]
fn rotation_room(_backend: &dyn Backend) -> u64 {
    u64::MAX
}

/// What a run will ask of the device. Where that is more than the user allows, a failure; where it is more than the
/// device has, nothing is said: what it cannot do is redone on the processor.
#[cfg(feature = "gpu")]
fn demand(plan: &Plan, backend: &dyn Backend) -> Result<Option<Statistics>> {
    let Some(gpu) = GpuBackend::of(backend) else { return Ok(None) };
    match DeviceDemand::of(plan, gpu.limits(), gpu.options(), Checkpoints::for_plan(plan)) {
        Ok(demand) => Ok(Some(demand.total)),
        Err(e @ PlanError::DeviceMemory { .. }) if gpu.options().memory_limit.is_some() => Err(EngineError::DeviceMemory(e)),
        Err(PlanError::DeviceMemory { .. }) => Ok(None),
        Err(e) => Err(EngineError::Run(e)),
    }
}

/// Why the processor had better run a plan, where a GPU's rates say so. One that is asked for by name is taken.
#[cfg(feature = "gpu")]
fn slower(plan: &Plan, backend: &dyn Backend, demand: Option<&Statistics>) -> Result<Option<BackendError>> {
    let (Some(gpu), Some(demand)) = (GpuBackend::of(backend), demand) else { return Ok(None) };
    if gpu.options().adapter.is_some() {
        return Ok(None);
    }
    let (seconds, cpu) = (gpu.rates()?.seconds(demand), plan.seconds());
    let adapter = || gpu.adapter().name.clone();
    Ok((seconds > cpu).then(|| BackendError::SlowerGpu { adapter: adapter(), gpu: seconds, cpu }))
}

#[cfg(not(feature = "gpu"))]
fn slower(_plan: &Plan, _backend: &dyn Backend, _demand: Option<&Statistics>) -> Result<Option<BackendError>> {
    Ok(None)
}

#[cfg(not(feature = "gpu"))]
fn demand(_plan: &Plan, _backend: &dyn Backend) -> Result<Option<Statistics>> {
    Ok(None)
}

/// What the noise of encryption is expected to do to a run's results.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreseen {
    /// The largest error of a result.
    pub error: f64,
    /// The errors of the results of each run, `[run][result]`.
    pub errors: Vec<Vec<f64>>,
    /// What the answer holds beside the result.
    pub rest: Rest,
    /// Least and most of each channel of the inputs seen, once normalised.
    pub interval: Vec<[f64; 2]>,
    /// The largest result seen, where enough pictures were to tell; else infinite.
    pub largest: f64,
}

impl Prepared {
    /// What a run on a GPU would ask of it that there need not be, where it would fit; none without GPU support.
    #[cfg(feature = "gpu")]
    pub fn usual_demand(&self) -> Option<DeviceDemand> {
        let plan = &self.plan;
        DeviceDemand::of(plan, Limits::USUAL, &GpuOptions::default(), Checkpoints::for_plan(plan)).ok()
    }

    /// [`Self::usual_demand`] of a later run, with all that repeats on a device of 80 GiB.
    #[cfg(feature = "gpu")]
    pub fn repeated_demand(&self) -> Option<DeviceDemand> {
        let (plan, limits) = (&self.plan, Limits { memory: Some(80 << 30), ..Limits::USUAL });
        DeviceDemand::repeated(plan, limits, &GpuOptions::default(), Checkpoints::for_plan(plan)).ok()
    }

    /// What a run on a GPU would ask of it that there need not be, where it would fit; none without GPU support.
    #[cfg(not(feature = "gpu"))]
    pub fn usual_demand(&self) -> Option<DeviceDemand> {
        None
    }

    /// [`Self::usual_demand`] of a later run, with all that repeats on a device of 80 GiB.
    #[cfg(not(feature = "gpu"))]
    pub fn repeated_demand(&self) -> Option<DeviceDemand> {
        None
    }

    /// What encryption is expected to do to the results of some pictures: the plan run on clear numbers with the noise
    /// that every operation adds, on its parameter set; the worst of all. Some seconds of all threads for a network
    /// that is bootstrapped.
    ///
    /// # Errors
    /// [`EngineError::Overflow`] for a result that the answer cannot hold, [`EngineError::NoPictures`] without a
    /// picture.
    pub fn foresee(&self, network: &Model, pictures: &[Tensor<f64>]) -> Result<Foreseen> {
        if pictures.is_empty() {
            return Err(EngineError::NoPictures);
        }
        pictures.iter().try_for_each(|picture| answer::check_input(self, network, picture))?;
        // The others are made no special pictures (a black one makes zeros that others do not), for what lies beside
        // the results.
        let others = pictures.iter().skip(usize::from(pictures.len() > 1)).map(|p| speckled(network, p));
        let runs: Vec<Tensor<f64>> = std::iter::once(pictures[0].clone()).chain(others).collect();
        let clear = Network::<f64>::new(network);
        let exact = runs.par_iter().map(|p| clear.evaluate(p)).collect::<std::result::Result<Vec<_>, _>>()?;
        let packed = |p: &Tensor<f64>| self.lowered.pack(std::slice::from_ref(p));
        let slots = runs.iter().map(packed).collect::<std::result::Result<Vec<_>, _>>()?;
        // All of the noise costs twice as much as that of real parts.
        let of_others = (2..).take(slots.len() - 1).map(|seed| NoisyEngine::of_real_parts(&self.params, seed));
        let noisy = NoisyRuns::new(std::iter::once(NoisyEngine::new(&self.params, 1)).chain(of_others).collect());
        let failed = |source| EngineError::Run(PlanError::Layer { layer: "input".into(), source });
        let input = noisy.encrypted(slots, self.plan.input_level()).map_err(failed)?;
        let outputs = execute(&self.plan, &noisy, input, &()).map_err(EngineError::Run)?;
        let mut errors = Vec::with_capacity(runs.len());
        for (exact, output) in exact.iter().zip(&outputs) {
            let logits = self.lowered.unpack(&output.shards)?;
            let of_first = logits.iter().take(1).flat_map(|l| l.values());
            errors.push(exact.values().iter().zip(of_first).map(|(a, b)| b - a).collect::<Vec<f64>>());
        }
        let error = errors.iter().flatten().fold(0.0, |worst: f64, e| worst.max(e.abs()));
        let noise = REST_SLACK * error / self.lowered.output_divisor;
        let slots = |shards: &[Vec<f64>]| interleave::part(shards, 0, self.lowered.together);
        let rest = outputs.last().map_or(Rest::Other, |usual| Rest::of(&self.lowered.output, &slots(&usual.shards), noise));
        let holds = |shards: &[Vec<f64>]| rest.error(&self.lowered.output, &slots(shards)) <= noise;
        let rest = if outputs.iter().all(|output| holds(&output.shards)) { rest } else { Rest::Other };
        Ok(Foreseen { error, errors, rest, interval: extents(pictures.iter()), largest: f64::INFINITY })
    }
}

/// A picture with other numbers in every place, a little off: what is the same for it is the same for all. Less off
/// where it would leave an interval, and else the picture as it is.
fn speckled(network: &Model, picture: &Tensor<f64>) -> Tensor<f64> {
    let (std, plane) = (&network.input().std, picture.shape().plane().max(1));
    let by = |size: f64| {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let off = |(at, v): (usize, &f64)| {
            v + size / std.get(at / plane).copied().unwrap_or(1.0) * (2.0 * random.random::<f64>() - 1.0)
        };
        let values = picture.values().iter().enumerate().map(off).collect();
        Tensor::new(picture.shape(), values).ok().filter(|p| check_picture(network, &p.cast()).is_ok())
    };
    [1.0, 8.0, 64.0].into_iter().find_map(|less| by(SPECKLE / less)).unwrap_or_else(|| picture.clone())
}

/// Least and most of each channel.
pub(super) fn extents<'a, T: Element + 'a>(pictures: impl Iterator<Item = &'a Tensor<T>>) -> Vec<[f64; 2]> {
    let mut all: Vec<[f64; 2]> = Vec::new();
    for picture in pictures {
        all.resize(picture.shape().channels, [f64::INFINITY, f64::NEG_INFINITY]);
        for (c, extent) in all.iter_mut().enumerate() {
            let values = picture.channel(c).iter().map(|v| v.to_f64());
            *extent = values.fold(*extent, |[least, most], v| [least.min(v), most.max(v)]);
        }
    }
    all
}

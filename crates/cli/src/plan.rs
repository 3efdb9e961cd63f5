//! `cipherlens plan`: what a network will cost encrypted, before any key exists.

use super::device::{Compute, size};
use super::failure::{Class, Failure, Outcome, explain};
use super::output::{Align, Table, bytes, grouped, say, seconds};
use super::picture::fits;
use super::sample::Sample;
use super::{Global, answer, model, params, system};
#[cfg(feature = "gpu")]
use cipherlens::backend::gpu::{GpuBackend, GpuOptions, Limits};
use cipherlens::backend::{Backend, Mirror, Place, Statistics};
use cipherlens::circuits::NoisyEngine;
use cipherlens::ckks::Params;
use cipherlens::nn::clear::Network;
use cipherlens::nn::compiled::KeptPlan;
use cipherlens::nn::lower::LowerError;
use cipherlens::nn::model::Fit;
use cipherlens::nn::{self, Counted, LowerOptions, Lowered, Model, Tensor};
#[cfg(feature = "gpu")]
use cipherlens::plan::{Checkpoints, DeviceDemand};
use cipherlens::plan::{CostModel, CutCounts, Plan, PlanError, PlanOptions, execute};
use std::path::PathBuf;
use std::sync::Arc;

/// What a network costs encrypted, before any key exists
#[derive(Debug, clap::Args)]
pub struct PlanCommand {
    /// Model file: safetensors, ONNX, or what `compile` wrote [default: the embedded network]
    model: Option<PathBuf>,
    /// Parameter set [default: the compiled network's; else n15-cnn, or n16-boot where that has too few levels]
    #[arg(long, short, value_name = "PRESET")]
    preset: Option<String>,
    /// Pictures to classify in one run, as far as the slots that one leaves free have room
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pictures: u32,
    /// The most bytes that keys may take in memory, as in 4GiB: fewer keys, more time
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_key_bytes: Option<u64>,
    /// Foresee the error of the logits on this picture, by a clear run with the noise of encryption
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// How the picture is brought to the network's size [default: as the network was compiled for; else crop]
    #[arg(long, value_parser = fits())]
    fit: Option<Fit>,
    /// Do not time this machine: plan with the same unit costs everywhere, as `keygen` and `run` do
    #[arg(long)]
    typical_costs: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl PlanCommand {
    /// Plans and prints.
    pub fn run(&self, global: &Global) -> Outcome {
        let (network, file) = model::open(self.model.as_deref(), global.input_size)?;
        let costs = if self.typical_costs { Costs::Typical } else { Costs::Measured };
        let terms = model::terms(self.model.as_deref(), self.preset.as_deref(), self.max_key_bytes)?;
        let wishes = Wishes { pictures: self.pictures as usize, ..Wishes::on_terms(&terms, costs) };
        let mut prepared = prepare_any(&network, terms.preset.as_deref(), wishes, &Compute::default())?;
        let expected = match &self.picture {
            Some(path) => {
                let (picture, name) = Sample::open(path)?;
                let (picture, _) = model::encryptable(&network, &picture, self.fit, &name)?;
                Some(expected_error(&prepared, &network, &picture)?)
            }
            None => terms.expected_error,
        };
        prepared.demand = usual_demand(&prepared.plan);
        if self.json {
            let mut object = json(&prepared);
            object["model"] = network.name().into();
            object["model_file"] = file.into();
            object["expected_max_abs_logit_error"] = expected.into();
            say!("{object}");
        } else {
            say!("{} ({file}): {} weights, input {}", network.name(), grouped(network.weights()), network.input().shape);
            say!("{}", network.input().normalisation_note());
            print(&prepared, costs);
            if let Some(error) = expected {
                say!("expected: logits off by about {error:.1e} for encryption");
            }
        }
        Ok(())
    }
}

/// A network ready to run on a parameter set and a backend.
pub struct Prepared {
    /// The parameter set.
    pub params: Arc<Params>,
    /// Where it will run.
    pub backend: Arc<dyn Backend>,
    /// The processor's kernels, the same as `backend` if it runs there: for all that a client does, for files, and for what a
    /// device cannot do.
    pub host: Arc<dyn Backend>,
    /// The network as a program, with the layouts of its input and output.
    pub lowered: Lowered,
    /// Levels, splits, keys, cost.
    pub plan: Plan,
    /// What a run will ask of a device, where one computes and that can be told.
    pub demand: Option<Statistics>,
}

/// Which unit costs a plan's seconds are estimated from. Plans are decided by those that are the same everywhere: what is made once is
/// what all others get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Costs {
    /// Timed on this machine.
    Measured,
    /// The same everywhere.
    Typical,
}

/// What is asked of a plan.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// Pictures there are: as many of them go into one run as the slots have room for.
    pub pictures: usize,
    /// Most bytes that keys may take in memory.
    pub max_key_bytes: Option<u64>,
    /// Plans that were decided before: taken as they are where they are for as many pictures.
    pub kept: Vec<KeptPlan>,
    /// Which unit costs its seconds are estimated from.
    pub costs: Costs,
    /// What was counted before of layouts and of matrices.
    pub counted: (Counted, CutCounts),
}

impl Wishes {
    /// One picture, and keys as fast as can be.
    pub fn new(costs: Costs) -> Self {
        Self { pictures: 1, max_key_bytes: None, kept: Vec::new(), costs, counted: Default::default() }
    }

    /// One picture, on the terms that a network was compiled for or that were asked for.
    pub fn on_terms(terms: &model::Terms, costs: Costs) -> Self {
        Self { max_key_bytes: terms.max_key_bytes, kept: terms.plans.clone(), ..Self::new(costs) }
    }
}

impl Costs {
    /// Timed where the processor computes. A GPU returns from a call before its work is done, so that a clock says nothing.
    pub fn on(compute: &Compute) -> Self {
        if compute.is_cpu() { Self::Measured } else { Self::Typical }
    }
}

/// Where it is set, calls on a device are compared with the processor's, word by word: `all`, or names of [`Backend`]'s methods
/// with commas between them.
const COMPARE: &str = "CIPHERLENS_COMPARE";

/// The parameter set for networks that need bootstrapping.
pub const BOOTSTRAPPING_PRESET: &str = "n16-boot";

/// As [`prepare`], with a parameter set chosen if none is named: the one with bootstrapping where the usual one has too few
/// levels.
pub fn prepare_any(network: &Model, preset: Option<&str>, wishes: Wishes, compute: &Compute) -> Outcome<Prepared> {
    if let Some(preset) = preset {
        return prepare(network, preset, wishes, compute);
    }
    let params = params::open(params::DEFAULT_PRESET)?;
    let deep = || {
        // How deep a network is does not depend on its layouts but for a level or two of moves: those of the usual slots do.
        let lowered = nn::lower(network, params.slots(), &LowerOptions::default()).ok()?;
        let plan = Plan::new(&lowered.program, &params, &PlanOptions::default());
        matches!(plan, Err(PlanError::LevelsExhausted { .. })).then_some(BOOTSTRAPPING_PRESET)
    };
    prepare(network, deep().unwrap_or(params::DEFAULT_PRESET), wishes, compute)
}

/// Slots to lower for. Bootstrapping costs by the slots that a ciphertext uses.
pub fn slots_for(network: &Model, params: &Params) -> usize {
    match params.bootstrap() {
        // Some sets bootstrap vectors of fewer slots than they have; a network too wide for one takes several shards.
        Some(spec) => nn::fitting_slots(network, params.slots().min(1 << spec.log_slots)),
        None => params.slots(),
    }
}

/// The plans that are kept with a compiled network, beside the one of a single picture: of as many pictures as the slots have room for,
/// by powers of two, [`MOST_TOGETHER`] at most.
pub fn keep(network: &Model, preset: &str, wishes: &Wishes, single: &Plan) -> Outcome<Vec<KeptPlan>> {
    let params = params::open(preset)?;
    let mut kept = vec![KeptPlan { together: 1, decisions: single.decisions().clone() }];
    let most = together(network, &params, MOST_TOGETHER);
    for pictures in (1..).map(|log| 1usize << log).take_while(|&k| k <= most) {
        // More pictures may need more keys than are allowed.
        let Ok(prepared) = prepare(network, preset, Wishes { pictures, ..wishes.clone() }, &Compute::default()) else { break };
        kept.push(KeptPlan { together: pictures, decisions: prepared.plan.decisions().clone() });
    }
    Ok(kept)
}

/// Most pictures in a run that a plan is kept for.
const MOST_TOGETHER: usize = 64;

/// How many pictures one run may take, of so many that there are: a power of two that the slots have room for.
fn together(network: &Model, params: &Params, pictures: usize) -> usize {
    let most = params.bootstrap().map_or(params.slots(), |spec| params.slots().min(1 << spec.log_slots));
    let room = most / nn::fitting_slots(network, most);
    pictures.clamp(1, room.clamp(1, MOST_TOGETHER)).next_power_of_two()
}

/// Lowers a network for a parameter set and plans it.
pub fn prepare(network: &Model, preset: &str, wishes: Wishes, compute: &Compute) -> Outcome<Prepared> {
    let params = params::open(preset)?;
    let mut backend = compute.open(&params)?;
    let mut host = match backend.place() {
        Place::Host => backend.clone(),
        Place::Device | Place::Nowhere => Compute::default().open(&params)?,
    };
    if let (Ok(calls), Place::Device) = (std::env::var(COMPARE), backend.place()) {
        let mirror = Mirror::new(host.clone(), backend.clone());
        let mirror = if calls == "all" { mirror } else { mirror.only(calls.split(',').map(str::to_owned)) };
        backend = Arc::new(mirror);
        host = backend.clone();
    }
    let what = || format!("cannot run `{}` with preset `{preset}`", network.name());
    let together = together(network, &params, wishes.pictures);
    let slots = if together > 1 { nn::fitting_slots(network, params.slots()) } else { slots_for(network, &params) };
    let (layouts, cuts) = wishes.counted;
    let lowering = LowerOptions { counted: layouts, ..LowerOptions::default() };
    let lowered = nn::lower(network, slots, &lowering).map_err(|e| {
        let advice = match e {
            LowerError::NotFitted { .. } => "cipherlens compile MODEL --calib PICTURES -o net.lens, and use net.lens",
            _ => "change the network; README.md, \"Your own model\", lists what runs",
        };
        Failure::from_error(Class::BadInput, what(), &e, advice)
    })?;
    let lowered = lowered.interleaved(together);
    let cost = match wishes.costs {
        Costs::Measured => Some(CostModel::measure(&params, &backend).map_err(|e| explain("cannot measure this machine", &e))?),
        Costs::Typical => None,
    };
    let rotation_bytes = PlanOptions::default().rotation_bytes.min(rotation_room(backend.as_ref()));
    let options = PlanOptions { rotation_bytes, max_key_bytes: wishes.max_key_bytes, counted: cuts, ..PlanOptions::default() };
    let plan = match wishes.kept.iter().find(|kept| kept.together == together) {
        Some(kept) => Plan::decided(&lowered.program, &params, &options, &kept.decisions),
        None => Plan::new(&lowered.program, &params, &options),
    };
    let plan = plan.and_then(|plan| match &cost {
        Some(cost) => plan.estimated(cost),
        None => Ok(plan),
    });
    let plan = plan.map_err(|e| explain(what(), &e))?;
    let demand = demand(&plan, backend.as_ref())?;
    Ok(Prepared { params, backend, host, lowered, plan, demand })
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

/// What a run will ask of the device. Where that is more than the user allows, a failure; where it is more than the device has,
/// nothing is said: what it cannot do is redone on the processor.
#[cfg(feature = "gpu")]
fn demand(plan: &Plan, backend: &dyn Backend) -> Outcome<Option<Statistics>> {
    let Some(gpu) = GpuBackend::of(backend) else { return Ok(None) };
    match DeviceDemand::of(plan, gpu.limits(), gpu.options(), Checkpoints::for_plan(plan)) {
        Ok(demand) => Ok(Some(demand.total)),
        Err(e @ PlanError::DeviceMemory { .. }) if gpu.options().memory_limit.is_some() => {
            let what = "the network does not fit the GPU memory that may be taken";
            let advice = "allow more with --max-vram, use a smaller preset, or --backend cpu";
            Err(Failure::from_error(Class::Resources, what, &e, advice))
        }
        Err(PlanError::DeviceMemory { .. }) => Ok(None),
        Err(e) => Err(explain("cannot tell what the network needs of the GPU", &e)),
    }
}

/// What a run would ask of a GPU that there need not be, where it would fit.
#[cfg(feature = "gpu")]
fn usual_demand(plan: &Plan) -> Option<Statistics> {
    let demand = DeviceDemand::of(plan, Limits::USUAL, &GpuOptions::default(), Checkpoints::for_plan(plan));
    demand.ok().map(|d| d.total)
}

#[cfg(not(feature = "gpu"))]
fn demand(_plan: &Plan, _backend: &dyn Backend) -> Outcome<Option<Statistics>> {
    Ok(None)
}

#[cfg(not(feature = "gpu"))]
fn usual_demand(_plan: &Plan) -> Option<Statistics> {
    None
}

/// The largest error of a logit that encryption is expected to make on a picture: the plan run on clear numbers with the noise that
/// every operation adds, on its parameter set. A result that the answer cannot hold is a failure. Some seconds of all threads for a network that is bootstrapped.
pub fn expected_error(prepared: &Prepared, network: &Model, picture: &Tensor<f64>) -> Outcome<f64> {
    answer::check_input(prepared, network, picture, "this picture")?;
    let failed = |e: &(dyn std::error::Error + 'static)| explain("cannot foresee the error of an encrypted run", e);
    let clear = Network::<f64>::new(network).evaluate(picture).map_err(|e| failed(&e))?;
    let noisy = NoisyEngine::new(&prepared.params, 1);
    let shards = prepared.lowered.pack(std::slice::from_ref(picture)).map_err(|e| failed(&e))?;
    let input = noisy.encrypted(shards, prepared.plan.input_level());
    let output = execute(&prepared.plan, &noisy, input, &()).map_err(|e| failed(&e))?;
    let logits = prepared.lowered.unpack(&output.shards).map_err(|e| failed(&e))?;
    let of_first = logits.iter().take(1).flat_map(|l| l.values());
    Ok(clear.values().iter().zip(of_first).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max))
}

/// Refuses a run that would take more memory than there is.
pub fn check_memory(plan: &Plan) -> Outcome {
    let available = system::memory_bytes().1.into_iter().chain(system::memory_limit_bytes()).min();
    match available {
        Some(available) if plan.peak_bytes() > available => Err(Failure::new(
            Class::Resources,
            "this machine has too little memory for the run",
            format!("it would hold about {} and {} is available", bytes(plan.peak_bytes()), bytes(available)),
            "allow fewer keys with --max-key-bytes (compile, plan, classify, demo, eval), close other programs, or use a machine with more memory",
        )),
        _ => Ok(()),
    }
}

/// The plan as a table.
pub fn print(prepared: &Prepared, costs: Costs) {
    let Prepared { params, plan, lowered, .. } = prepared;
    let counts = plan.counts();
    say!(
        "preset {}: N = 2^{}, log2(QP) = {:.0}, {} bits of security, {} levels of which {} are used",
        params.name(),
        params.log_n(),
        params.log_qp(),
        params.security_bits_claim(),
        params.max_level().0,
        plan.input_level().0
    );
    if lowered.together > 1 {
        say!("{} pictures in one run", lowered.together);
    }
    say!();
    let mut table = Table::new([
        ("layer", Align::Left),
        ("levels", Align::Right),
        ("shards", Align::Right),
        ("rotations", Align::Right),
        ("key switches", Align::Right),
        ("plaintext products", Align::Right),
        ("estimated", Align::Right),
    ]);
    for l in plan.layers() {
        table.row([
            l.layer.clone(),
            format!("{} -> {}", l.level_in, l.level_out),
            format!("{} -> {}", l.shards_in, l.shards_out),
            grouped(l.counts.rotations),
            grouped(l.counts.key_switches),
            grouped(l.counts.plaintext_products),
            seconds(l.seconds),
        ]);
    }
    table.rule();
    table.row([
        "all".into(),
        format!("{} -> {}", plan.input_level().0, plan.layers().last().map_or(0, |l| l.level_out)),
        format!("max {}", plan.max_shards()),
        grouped(counts.rotations),
        grouped(counts.key_switches),
        grouped(counts.plaintext_products),
        seconds(plan.seconds()),
    ]);
    table.print("  ");
    say!();
    let source = match costs {
        Costs::Measured => "kernels timed on this machine",
        Costs::Typical => "typical kernels, not this machine's",
    };
    say!(
        "{} evaluation keys, {}; about {} of memory at most; seconds are estimated from {source}",
        plan.keys().len(),
        bytes(plan.key_bytes()),
        bytes(plan.peak_bytes())
    );
    if let Some(demand) = &prepared.demand {
        say!("on a GPU: {}", device_work(demand));
    }
}

/// What a device does, for a person.
pub fn device_work(s: &Statistics) -> String {
    let moved = s.uploaded_bytes + s.key_bytes + s.downloaded_bytes;
    let dispatches = grouped(s.dispatches as usize);
    format!("{dispatches} dispatches, {} moved, {} of its memory at most", bytes(moved), bytes(s.peak_bytes))
}

/// The plan as JSON.
pub fn json(prepared: &Prepared) -> serde_json::Value {
    let Prepared { params, plan, backend, lowered, .. } = prepared;
    serde_json::json!({
        "preset": params.name(), "backend": backend.name(), "log_n": params.log_n(), "log_qp": params.log_qp(),
        "security_bits": params.security_bits_claim(), "input_level": plan.input_level().0,
        "input_shards": lowered.program.input_shards, "max_shards": plan.max_shards(), "counts": plan.counts(),
        "keys": plan.keys().len(), "key_bytes": plan.key_bytes(), "peak_bytes": plan.peak_bytes(), "estimated_seconds": plan.seconds(),
        "device": prepared.demand, "layers": plan.layers(), "bootstraps": plan.bootstraps(),
        "slots": lowered.program.slots, "pictures_together": lowered.together,
    })
}

//! `cipherlens plan`: what a network will cost encrypted, before any key exists.

use super::compute::{Compute, size};
use super::failure::{Class, Failure, Outcome, about};
use super::output::{Align, Table, bytes, counted, grouped, say, seconds};
use super::picture::fits;
use super::sample::Sample;
use super::{Global, model, system};
use cipherlens::backend::Statistics;
use cipherlens::engine::{self, Costs, PrepareOptions, Prepared};
use cipherlens::nn::Model;
use cipherlens::nn::model::Fit;
use cipherlens::plan::{DeviceDemand, Plan, Target};
use std::path::PathBuf;

/// What a network costs encrypted, before any key exists
#[derive(Debug, clap::Args)]
pub(crate) struct PlanCommand {
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
    /// Count what each layer asks of a GPU, and what a later run does: kernels, copies, bytes sent, buffers made
    #[arg(long)]
    count_gpu: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl PlanCommand {
    /// Plans and prints.
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        let source = model::open(self.model.as_deref(), &global.onnx())?;
        let terms = source.terms(self.preset.as_deref(), self.max_key_bytes);
        let model::Source { network, name: file, .. } = source;
        let costs = if self.typical_costs { Costs::Typical } else { Costs::Measured };
        let options = PrepareOptions { pictures: self.pictures as usize, ..terms.options(costs) };
        let mut prepared = prepare(&network, terms.preset.as_deref(), options, &Compute::default())?;
        if prepared.lowered.together < self.pictures as usize {
            let (asked, room) = (self.pictures, prepared.lowered.together);
            crate::output::tell!(
                "note: {asked} pictures in one run were asked for, and there is room for {room}: the plan is for {room}"
            );
        }
        let expected = match &self.picture {
            Some(path) => {
                let (picture, name) = Sample::open(path)?;
                let (picture, _) = model::encryptable(&network, &picture, self.fit, &name)?;
                Some(prepared.foresee(&network, std::slice::from_ref(&picture)).map_err(about(&name))?.error)
            }
            None => terms.expected_error,
        };
        let demand = prepared.usual_demand();
        prepared.demand = demand.as_ref().map(|d| d.total);
        let again = if self.count_gpu { prepared.repeated_demand() } else { None };
        if self.json {
            let mut object = json(&prepared);
            if self.count_gpu {
                object["device_layers"] = serde_json::json!(demand.map(|d| d.layers));
                object["device_again"] = serde_json::json!(again);
            }
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
            if let Some(again) = again {
                print_demand(&again);
            }
        }
        Ok(())
    }
}

/// Where it is set, calls on a device are compared with the processor's, word by word: `all`, or names of the backend's methods
/// with commas between them.
const COMPARE: &str = "CIPHERLENS_COMPARE";

/// A network prepared for a parameter set, or for the one that suits it, and a machine. Says on standard error why `auto` took no GPU.
pub(crate) fn prepare(network: &Model, preset: Option<&str>, options: PrepareOptions, compute: &Compute) -> Outcome<Prepared> {
    let options = PrepareOptions { compare: std::env::var(COMPARE).ok(), ..options };
    let prepared = engine::prepare_any(network, preset, options, &compute.devices()?)?;
    if let Some(why) = &prepared.no_gpu {
        crate::output::tell!("note: computing on the processor: {why}");
    }
    Ok(prepared)
}

/// Refuses a run that would take more memory than there is.
pub(crate) fn check_memory(plan: &Plan) -> Outcome {
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

/// Says on standard error what was redone on the processor.
pub(crate) fn note_faults(answer: &engine::Answer) {
    for fault in answer.device.iter().flat_map(|device| &device.faults) {
        crate::output::tell!("note: redone on the processor: {fault}");
    }
}

/// The plan as a table.
pub(crate) fn print(prepared: &Prepared, costs: Costs) {
    let Prepared { params, plan, lowered, .. } = prepared;
    let counts = plan.counts();
    say!(
        "preset {}: N = 2^{}, log2(QP) = {:.0}, {} bits of classical security, {} levels of which {} are used",
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
        Costs::Typical if prepared.target == Target::Processor => "typical kernels, not this machine's",
        Costs::Typical => "the rates of the GPU that it is planned for",
    };
    say!(
        "{}, {}; about {} of memory at most; seconds are estimated from {source}",
        counted(plan.keys().len(), "evaluation key"),
        bytes(plan.key_bytes()),
        bytes(plan.peak_bytes())
    );
    if let Some(demand) = &prepared.demand {
        say!("on a GPU: {}", device_work(demand));
    }
}

/// What a later run asks of a device, layer by layer.
fn print_demand(demand: &DeviceDemand) {
    say!();
    say!("a later run on a GPU, with keys and weights on it:");
    let columns = ["layer", "kernels", "copies", "sent", "buffers made"];
    let align = |i: usize| if i == 0 { Align::Left } else { Align::Right };
    let mut table = Table::new([0, 1, 2, 3, 4].map(|i| (columns[i], align(i))));
    let row = |name: &str, s: &Statistics| {
        let [kernels, copies, made] = [s.dispatches, s.copies, s.allocations].map(|n| grouped(n as usize));
        [name.to_owned(), kernels, copies, bytes(s.uploaded_bytes + s.key_bytes), made]
    };
    demand.layers.iter().for_each(|l| table.row(row(&l.layer, &l.statistics)));
    table.rule();
    table.row(row("all", &demand.total));
    table.print("  ");
}

/// What a device does, for a person.
pub(crate) fn device_work(s: &Statistics) -> String {
    let moved = s.uploaded_bytes + s.key_bytes + s.downloaded_bytes;
    let dispatches = grouped(s.dispatches as usize);
    format!("{dispatches} dispatches, {} moved, {} of its memory at most", bytes(moved), bytes(s.peak_bytes))
}

/// The plan as JSON.
pub(crate) fn json(prepared: &Prepared) -> serde_json::Value {
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

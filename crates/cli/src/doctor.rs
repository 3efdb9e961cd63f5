//! `cipherlens doctor`: what this machine offers.

mod adapters;

use super::compute::Compute;
use super::failure::Outcome;
use super::output::{bytes, say, seconds};
use super::{Global, model, plan, system};
use adapters::Adapters;
use cipherlens::backend::choice::Choice;
use cipherlens::engine::{Costs, DEFAULT_PRESET, PrepareOptions};
use cipherlens::nn::onnx::OnnxOptions;

/// What this machine offers: processor, memory, graphics cards with their self-tests, and what fits
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    compute: Compute,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl Doctor {
    /// Prints it.
    pub(crate) fn run(&self, _global: &Global) -> Outcome {
        let (total, available) = system::memory_bytes();
        let limit = system::memory_limit_bytes();
        let features = system::cpu_features();
        let threads = rayon::current_num_threads();
        // The demo's plan, priced with kernels timed here: what a first run will take.
        let network = model::open(None, &OnnxOptions::default())?.network;
        let options = PrepareOptions { costs: Costs::Measured, ..PrepareOptions::default() };
        let prepared = plan::prepare(&network, Some(DEFAULT_PRESET), options, &Compute::default())?;
        let gpus = Adapters::find(&self.compute.devices_or(Choice::Auto)?, &prepared.plan);
        let (kernels, needed) = (prepared.backend.name(), prepared.plan.peak_bytes());
        let fits = plan::check_memory(&prepared.plan).is_ok();
        if self.json {
            let features: serde_json::Map<_, _> = features.iter().map(|(n, has)| (n.to_string(), (*has).into())).collect();
            let object = serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"), "os": std::env::consts::OS, "arch": std::env::consts::ARCH,
                "cpu": system::cpu_name(), "cores": system::cores(), "threads": threads, "features": features, "backend": kernels,
                "memory_bytes": total, "memory_available_bytes": available, "memory_limit_bytes": limit, "gpu": gpus,
                "demo": { "peak_bytes": needed, "fits": fits, "estimated_seconds": prepared.plan.seconds() },
            });
            say!("{object}");
            return Ok(());
        }
        let unknown = || "unknown".to_string();
        say!("cipherlens {} on {} {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
        say!("processor   {}", system::cpu_name().unwrap_or_else(unknown));
        say!("threads     {threads} in use, {} processors available", system::cores());
        let list = |wanted: bool| {
            let names: Vec<&str> = features.iter().filter(|(_, has)| *has == wanted).map(|(n, _)| *n).collect();
            if names.is_empty() { "none".to_string() } else { names.join(", ") }
        };
        say!("features    present: {}; missing: {}", list(true), list(false));
        say!("kernels     {kernels}");
        let (total, available) = (total.map_or_else(unknown, bytes), available.map_or_else(unknown, bytes));
        say!("memory      {total}, of which {available} available");
        if let Some(limit) = limit {
            say!("            limited to {} for this process group", bytes(limit));
        }
        let verdict = if fits { "fits" } else { "does NOT fit" };
        say!("demo        about {} of memory, which {verdict}; about {}", bytes(needed), seconds(prepared.plan.seconds()));
        gpus.print();
        Ok(())
    }
}

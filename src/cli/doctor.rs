//! `cipherlens doctor`: what this machine offers.

use super::failure::{Outcome, explain};
use super::output::{bytes, say};
use super::{Global, system};
use cipherlens::backend::{Backend, cpu::CpuBackend};

/// What this machine offers: processor, memory, kernels
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl Doctor {
    /// Prints it.
    pub fn run(&self, _global: &Global) -> Outcome {
        let (total, available) = system::memory_bytes();
        let limit = system::memory_limit_bytes();
        let features = system::cpu_features();
        let threads = rayon::current_num_threads();
        let kernels = kernels()?;
        if self.json {
            let features: serde_json::Map<_, _> = features.iter().map(|(n, has)| (n.to_string(), (*has).into())).collect();
            let object = serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"), "os": std::env::consts::OS, "arch": std::env::consts::ARCH,
                "cpu": system::cpu_name(), "cores": system::cores(), "threads": threads, "features": features, "backend": kernels,
                "memory_bytes": total, "memory_available_bytes": available, "memory_limit_bytes": limit, "gpu": null,
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
        say!("GPU         not used: this build computes on the processor only");
        Ok(())
    }
}

/// The kernels that would run.
fn kernels() -> Outcome<&'static str> {
    let params = super::params::open("insecure-tiny")?;
    let backend = CpuBackend::new(params.tables().clone()).map_err(|e| explain("cannot start the CPU kernels", &e))?;
    Ok(backend.name())
}

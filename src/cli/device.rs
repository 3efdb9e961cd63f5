//! Where to compute: `--backend`, and what `doctor` says about GPUs.

use super::failure::{Outcome, explain};
use super::output::{bytes, say};
#[cfg(feature = "gpu")]
use cipherlens::backend::gpu::{self, GpuBackend, GpuOptions};
use cipherlens::backend::{Backend, cpu::CpuBackend};
use cipherlens::ckks::Params;
use std::sync::Arc;

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Choice {
    /// A GPU that passes its self-test, else the processor
    Auto,
    /// The processor
    #[default]
    Cpu,
    /// A GPU: the best adapter, or the one that WGPU_ADAPTER_NAME names (software adapters only by name)
    Gpu,
}

fn cpu(params: &Params) -> Outcome<Arc<dyn Backend>> {
    let backend = CpuBackend::new(params.tables().clone()).map_err(|e| explain("cannot start the CPU kernels", &e))?;
    Ok(Arc::new(backend))
}

/// Opens a backend.
#[cfg(feature = "gpu")]
pub fn open(choice: Choice, params: &Params) -> Outcome<Arc<dyn Backend>> {
    if choice == Choice::Cpu {
        return cpu(params);
    }
    match GpuBackend::new(params.tables().clone(), &GpuOptions::from_env()) {
        Ok(backend) => Ok(Arc::new(backend)),
        Err(_) if choice == Choice::Auto => cpu(params),
        Err(e) => Err(explain("cannot compute on a GPU", &e)),
    }
}

/// Opens a backend.
#[cfg(not(feature = "gpu"))]
pub fn open(choice: Choice, params: &Params) -> Outcome<Arc<dyn Backend>> {
    use super::failure::{Class, Failure};
    if choice == Choice::Gpu {
        let advice = "use --backend cpu, or build with `--features gpu`";
        return Err(Failure::new(Class::Usage, "cannot compute on a GPU", "this program was built without GPU support", advice));
    }
    cpu(params)
}

/// The adapters of this machine, and whether one of them is ready for work.
#[derive(Debug, serde::Serialize)]
pub struct Gpus {
    /// All that the drivers offer, best first.
    pub adapters: Vec<Adapter>,
    /// The backend that `--backend gpu` would take, self-test passed.
    pub ready: Option<String>,
    /// Why there is none.
    pub reason: Option<String>,
}

/// One adapter.
#[derive(Debug, serde::Serialize)]
pub struct Adapter {
    name: String,
    api: String,
    kind: &'static str,
    driver: String,
    largest_binding_bytes: u64,
    int64: bool,
}

impl Gpus {
    /// Looks for adapters, and tests the best one.
    #[cfg(feature = "gpu")]
    pub fn find(params: &Params) -> Self {
        let adapters = gpu::adapters().into_iter().map(|a| Adapter {
            name: a.name,
            api: a.api,
            kind: a.kind,
            driver: a.driver,
            largest_binding_bytes: a.largest_binding,
            int64: a.int64,
        });
        let (ready, reason) = match GpuBackend::new(params.tables().clone(), &GpuOptions::from_env()) {
            Ok(backend) => (Some(format!("{} on {}", backend.name(), backend.adapter().name)), None),
            Err(e) => (None, Some(e.to_string())),
        };
        Self { adapters: adapters.collect(), ready, reason }
    }

    /// None: this program was built without.
    #[cfg(not(feature = "gpu"))]
    pub fn find(_params: &Params) -> Self {
        Self { adapters: Vec::new(), ready: None, reason: Some("this program was built without GPU support".into()) }
    }

    /// For a person.
    pub fn print(&self) {
        let mut head = "GPU       ";
        for a in &self.adapters {
            let int64 = if a.int64 { "" } else { "no " };
            let largest = bytes(a.largest_binding_bytes);
            say!("{head}  {} ({}, {}, {}): buffers to {largest}, {int64}64-bit integers", a.name, a.kind, a.api, a.driver);
            head = "          ";
        }
        match (&self.ready, &self.reason) {
            (Some(ready), _) => say!("{head}  {ready}: products, transforms and a key switch give the processor's bits"),
            (_, Some(reason)) => say!("{head}  not used: {reason}"),
            _ => {}
        }
    }
}

//! What benchmarks run on: the processor, and a GPU where there is one.

use cipherlens::backend::choice::{Choice, Devices};
use cipherlens::backend::{Backend, cpu::CpuBackend};
use cipherlens::math::RnsTables;
use std::sync::Arc;
#[cfg(feature = "gpu")]
use {
    cipherlens::backend::gpu::{GpuBackend, GpuOptions},
    cipherlens::math::primes::closest_primes,
    std::time::Duration,
};

/// Whether little of everything is to be measured.
pub(crate) fn quick() -> bool {
    std::env::args().any(|a| a == "--quick")
}

/// Something to measure on.
pub(crate) enum Machine {
    /// The processor.
    Processor,
    /// A GPU that passed its self-test.
    #[cfg(feature = "gpu")]
    Gpu { plain: Box<GpuBackend>, profiled: Option<Box<GpuBackend>> },
}

/// The processor, then a GPU; why there is none is said.
pub(crate) fn all() -> Vec<Machine> {
    let mut machines = vec![Machine::Processor];
    match gpu() {
        Ok(gpu) => machines.push(gpu),
        Err(e) => println!("only the processor is measured: {e}"),
    }
    machines
}

#[cfg(feature = "gpu")]
fn gpu() -> cipherlens::backend::Result<Machine> {
    let tables = Arc::new(RnsTables::new(12, &closest_primes(29.9, 2, 13, &[]).unwrap()).unwrap());
    let options = Devices::from(Choice::Gpu).gpu_options();
    let plain = Box::new(GpuBackend::new(tables.clone(), &options)?);
    let profiled = match plain.adapter().timestamps {
        true => Some(Box::new(GpuBackend::new(tables, &GpuOptions { profile: true, ..options })?)),
        false => None,
    };
    Ok(Machine::Gpu { plain, profiled })
}

#[cfg(not(feature = "gpu"))]
fn gpu() -> cipherlens::backend::Result<Machine> {
    let _ = Devices::from(Choice::Gpu);
    Err(cipherlens::backend::BackendError::NoGpuSupport)
}

impl Machine {
    /// A backend for these primes.
    pub(crate) fn open(&self, tables: &Arc<RnsTables>) -> Arc<dyn Backend> {
        match self {
            Self::Processor => Arc::new(CpuBackend::new(tables.clone()).unwrap()),
            #[cfg(feature = "gpu")]
            Self::Gpu { plain, .. } => Arc::new(plain.for_tables(tables.clone()).unwrap()),
        }
    }

    /// One that times its kernels by the device's clock, where there is such a clock.
    pub(crate) fn open_profiled(&self, tables: &Arc<RnsTables>) -> Option<Profiled> {
        match self {
            Self::Processor => {
                let _ = tables;
                None
            }
            #[cfg(feature = "gpu")]
            Self::Gpu { profiled, .. } => profiled.as_ref().map(|gpu| Profiled(gpu.for_tables(tables.clone()).unwrap())),
        }
    }
}

/// A backend that times its kernels.
#[cfg(feature = "gpu")]
pub(crate) struct Profiled(GpuBackend);

#[cfg(feature = "gpu")]
impl Profiled {
    /// The backend.
    pub(crate) fn backend(&self) -> &dyn Backend {
        &self.0
    }
    /// All kernels so far.
    pub(crate) fn kernel_time(&self) -> Duration {
        Duration::from_nanos(self.0.timings().unwrap().iter().map(|t| t.nanoseconds).sum())
    }
}

/// There is none without a GPU.
#[cfg(not(feature = "gpu"))]
pub(crate) enum Profiled {}

#[cfg(not(feature = "gpu"))]
impl Profiled {
    /// The backend.
    pub(crate) fn backend(&self) -> &dyn Backend {
        match *self {}
    }
    /// All kernels so far.
    pub(crate) fn kernel_time(&self) -> std::time::Duration {
        match *self {}
    }
}

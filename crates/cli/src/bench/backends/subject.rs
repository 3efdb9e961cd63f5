//! The devices that are compared.

use super::super::cases::{Case, Material};
#[cfg(feature = "gpu")]
use super::report::Overheads;
use super::report::{DeviceReport, KernelTime};
use crate::failure::{Outcome, explain};
use crate::system;
#[cfg(feature = "gpu")]
use cipherlens::backend::gpu::{GpuBackend, GpuOptions};
use cipherlens::backend::{Backend, BackendError, choice::Devices, cpu::CpuBackend};
use cipherlens::math::RnsTables;
use cipherlens::math::primes::closest_primes;
use rayon::prelude::*;
use std::sync::Arc;
use std::time::Instant;

/// What a call does on a device.
#[derive(Debug, Clone)]
pub(super) struct Kernels {
    /// In kernels, by the device's own clock, where it has one.
    pub milliseconds: Option<f64>,
    /// Kernels dispatched.
    pub dispatches: f64,
    /// Kernel by kernel, slowest first, where it has a clock.
    pub each: Vec<KernelTime>,
}

/// Something that computes.
pub(super) enum Subject {
    /// The processor.
    Processor,
    /// A GPU: one device to time from outside, one that times every kernel itself.
    #[cfg(feature = "gpu")]
    Gpu {
        /// For wall times.
        plain: Box<GpuBackend>,
        /// For the times of kernels, where the adapter has timestamps.
        profiled: Option<Box<GpuBackend>>,
    },
}

/// Tables of a small ring, to open a device with.
fn any_tables() -> Result<Arc<RnsTables>, BackendError> {
    let failed = |e: cipherlens::math::MathError| BackendError::Device { op: "open", reason: e.to_string() };
    let primes = closest_primes(29.9, 2, 13, &[]).map_err(failed)?;
    Ok(Arc::new(RnsTables::new(12, &primes).map_err(failed)?))
}

impl Subject {
    /// The processor.
    pub(super) fn processor() -> Self {
        Self::Processor
    }

    /// The GPU that is asked for, tested.
    #[cfg(feature = "gpu")]
    pub(super) fn gpu(devices: &Devices) -> Result<Self, BackendError> {
        let (tables, options) = (any_tables()?, devices.gpu_options());
        let plain = Box::new(GpuBackend::new(tables.clone(), &options)?);
        let profiled = match plain.adapter().timestamps {
            true => Some(Box::new(GpuBackend::new(tables, &GpuOptions { profile: true, ..options })?)),
            false => None,
        };
        Ok(Self::Gpu { plain, profiled })
    }

    /// None: this program was built without.
    #[cfg(not(feature = "gpu"))]
    pub(super) fn gpu(_: &Devices) -> Result<Self, BackendError> {
        any_tables().and(Err(BackendError::NoGpuSupport))
    }

    /// Whether calls return before their work is done.
    pub(super) fn is_gpu(&self) -> bool {
        !matches!(self, Self::Processor)
    }

    /// What it is called in reports.
    pub(super) fn name(&self) -> &'static str {
        if self.is_gpu() { "gpu" } else { "cpu" }
    }

    /// A backend on it for other primes.
    pub(super) fn open(&self, tables: &Arc<RnsTables>) -> Outcome<Arc<dyn Backend>> {
        match self {
            Self::Processor => {
                let cpu = CpuBackend::new(tables.clone()).map_err(|e| explain("cannot start the CPU kernels", &e))?;
                Ok(Arc::new(cpu))
            }
            #[cfg(feature = "gpu")]
            Self::Gpu { plain, .. } => {
                let gpu = plain.for_tables(tables.clone()).map_err(|e| explain("cannot compute on a GPU", &e))?;
                Ok(Arc::new(gpu))
            }
        }
    }

    /// What one of some calls does on the device; nothing on a processor.
    #[cfg_attr(not(feature = "gpu"), allow(unused_variables, reason = "without GPU support there is only the processor"))]
    pub(super) fn kernels(&self, material: &Material, case: Case, calls: usize) -> Result<Option<Kernels>, BackendError> {
        match self {
            Self::Processor => Ok(None),
            #[cfg(feature = "gpu")]
            Self::Gpu { plain, profiled } => {
                let gpu = profiled.as_ref().unwrap_or(plain).for_tables(material.tables.clone())?;
                let mut job = case.job(material, &gpu)?;
                let mut result = Some(job(None)?);
                let (before, dispatched) = (gpu.timings()?, gpu.dispatches());
                for _ in 0..calls {
                    result = Some(job(result.take())?);
                }
                let (after, dispatches) = (gpu.timings()?, gpu.dispatches() - dispatched);
                let one = |sum: u64| sum as f64 / calls as f64;
                let mut each: Vec<KernelTime> = after
                    .iter()
                    .map(|now| {
                        let then = before.iter().find(|t| t.kernel == now.kernel);
                        let (count, time) = then.map_or((0, 0), |t| (t.dispatches, t.nanoseconds));
                        let ms = one(now.nanoseconds - time) / 1e6;
                        KernelTime { kernel: now.kernel, dispatches: one(now.dispatches - count), ms }
                    })
                    .filter(|t| t.dispatches > 0.0)
                    .collect();
                each.sort_by(|a, b| b.ms.total_cmp(&a.ms));
                let milliseconds = profiled.as_ref().map(|_| each.iter().map(|t| t.ms).sum());
                Ok(Some(Kernels { milliseconds, dispatches: one(dispatches), each }))
            }
        }
    }

    /// What it is, and how fast it copies.
    pub(super) fn describe(&self, copy_bytes: usize) -> Outcome<DeviceReport> {
        let tables = any_tables().map_err(|e| explain("cannot prepare the benchmark", &e))?;
        let backend = self.open(&tables)?;
        let copy_gbs = match self {
            Self::Processor => copy_on_processor(copy_bytes),
            #[cfg(feature = "gpu")]
            Self::Gpu { plain, .. } => copy_on_gpu(plain, copy_bytes).map_err(|e| explain("cannot copy on the GPU", &e))?,
        };
        let (adapter, timestamps) = match self {
            Self::Processor => (system::cpu_name().unwrap_or_else(|| "an unknown processor".into()), false),
            #[cfg(feature = "gpu")]
            Self::Gpu { plain, profiled } => {
                let a = plain.adapter();
                (format!("{} ({}, {}, {})", a.name, a.kind, a.api, a.driver), profiled.is_some())
            }
        };
        let overheads = match self {
            Self::Processor => None,
            #[cfg(feature = "gpu")]
            Self::Gpu { plain, .. } => {
                Some(overheads(plain, copy_bytes / 8).map_err(|e| explain("cannot measure the GPU's calls", &e))?)
            }
        };
        Ok(DeviceReport { device: self.name(), backend: backend.name(), adapter, copy_gbs, timestamps, overheads })
    }
}

/// Bytes read and written a second, of a copy by all threads between buffers that are there already.
fn copy_on_processor(bytes: usize) -> f64 {
    let from = vec![1u8; bytes];
    let mut to = vec![0u8; bytes];
    let mut best = f64::INFINITY;
    for _ in 0..6 {
        let clock = Instant::now();
        to.par_chunks_mut(1 << 20).zip(from.par_chunks(1 << 20)).for_each(|(to, from)| to.copy_from_slice(from));
        best = best.min(clock.elapsed().as_secs_f64());
        std::hint::black_box(&mut to);
    }
    2.0 * bytes as f64 / best / 1e9
}

/// The same on a GPU: by its own copy command or by a kernel, whichever is faster.
#[cfg(feature = "gpu")]
fn copy_on_gpu(gpu: &GpuBackend, bytes: usize) -> Result<f64, BackendError> {
    use cipherlens::backend::{Buffer, Kernels, Shape};
    use cipherlens::math::Basis;
    const COPIES: usize = 8;
    let degree = gpu.tables().degree();
    let from = gpu.alloc(Shape::new(bytes / 4 / degree, 1, degree))?;
    let basis = Basis::range(0..1);
    let ways: [&dyn Fn() -> Result<Buffer, BackendError>; 2] = [&|| gpu.concat(&[&from]), &|| gpu.automorphism(&from, 1, &basis)];
    let mut best = f64::INFINITY;
    for way in ways {
        for _ in 0..4 {
            gpu.synchronize()?;
            let clock = Instant::now();
            for _ in 0..COPIES {
                drop(way()?);
            }
            gpu.synchronize()?;
            best = best.min(clock.elapsed().as_secs_f64() / COPIES as f64);
        }
    }
    Ok(2.0 * from.shape().bytes() as f64 / best / 1e9)
}

/// Calls beside their kernels; buffers of `bytes`.
#[cfg(feature = "gpu")]
fn overheads(gpu: &GpuBackend, bytes: usize) -> Result<Overheads, BackendError> {
    use cipherlens::backend::{Kernels, PolySelect, Shape};
    use cipherlens::math::Basis;
    const CHAIN: usize = 2000;
    const BUFFERS: usize = 4;
    let (degree, basis) = (gpu.tables().degree(), Basis::range(0..1));
    let small = Shape::new(1, 1, degree);
    let (mut sum, one) = (gpu.upload(small, &vec![0; degree])?, gpu.upload(small, &vec![1; degree])?);
    let (mut chained, mut recorded) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..3 {
        gpu.synchronize()?;
        let clock = Instant::now();
        for _ in 0..CHAIN {
            gpu.add_assign(&mut sum, &one, &basis)?;
        }
        recorded = recorded.min(clock.elapsed().as_secs_f64() / CHAIN as f64);
        gpu.synchronize()?;
        chained = chained.min(clock.elapsed().as_secs_f64() / CHAIN as f64);
    }
    // A backend of its own: nothing is there to be used again.
    let fresh = gpu.for_tables(gpu.tables().clone())?;
    let large = Shape::new(bytes / 4 / degree, 1, degree);
    let clock = Instant::now();
    let mut all = Vec::new();
    for _ in 0..BUFFERS {
        // Its first use by a kernel is what has it cleared.
        let mut buffer = fresh.alloc(large)?;
        fresh.add_constant_assign(&mut buffer, PolySelect::all(large), &[1], &basis)?;
        all.push(buffer);
    }
    fresh.synchronize()?;
    let buffer = clock.elapsed().as_secs_f64() / BUFFERS as f64;
    drop(all);
    let words = vec![7u32; large.words()];
    let (mut up, mut down) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..3 {
        let clock = Instant::now();
        let sent = fresh.upload(large, &words)?;
        fresh.synchronize()?;
        up = up.min(clock.elapsed().as_secs_f64());
        let clock = Instant::now();
        std::hint::black_box(fresh.download(&sent)?);
        down = down.min(clock.elapsed().as_secs_f64());
    }
    let gbs = |seconds: f64| large.bytes() as f64 / seconds / 1e9;
    Ok(Overheads {
        chained_us: 1e6 * chained,
        recorded_us: 1e6 * recorded,
        buffer_ms: 1e3 * buffer,
        upload_gbs: gbs(up),
        download_gbs: gbs(down),
    })
}

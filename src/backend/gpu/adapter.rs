//! Which adapter to take.

use super::registry::Wide;
use crate::backend::{BackendError, Result};

/// Which adapter to take, and how.
#[derive(Debug, Clone, Default)]
pub struct GpuOptions {
    /// Part of the adapter's name, in any case. [`GpuOptions::from_env`] reads it from `WGPU_ADAPTER_NAME`.
    pub adapter: Option<String>,
    /// Take software adapters too (lavapipe, WARP). They compute on the processor, slower than the CPU backend: for tests.
    pub software: bool,
    /// The form of wide products; by default 64-bit integers where they work.
    pub wide: Option<Wide>,
    /// The most bytes of device memory to take for residues, keys among them.
    pub memory_limit: Option<u64>,
    /// The largest range of a buffer to bind, in bytes, where that is less than the adapter's: to work as a smaller one would.
    pub largest_binding: Option<u64>,
    /// Measure every kernel with timestamps, where the adapter has them ([`super::GpuBackend::timings`]). Slower: one pass a
    /// dispatch, and a wait for each submission.
    pub profile: bool,
    /// Refuse the allocations of these numbers, counted from 0 once the device is tested, as one without memory would: for
    /// tests.
    pub fail_allocations: Option<std::ops::Range<u64>>,
}

impl GpuOptions {
    /// With what `WGPU_ADAPTER_NAME` asks for. An adapter asked for by name may be a software one.
    pub fn from_env() -> Self {
        let adapter = std::env::var("WGPU_ADAPTER_NAME").ok().filter(|name| !name.is_empty());
        Self { software: adapter.is_some(), adapter, ..Self::default() }
    }
}

/// An adapter found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterReport {
    /// Its name.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub api: String,
    /// Driver and version.
    pub driver: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// The largest range of a buffer that a kernel can bind, in bytes.
    pub largest_binding: u64,
    /// The largest buffer, in bytes.
    pub largest_buffer: u64,
    /// Whether it has 64-bit integers.
    pub int64: bool,
    /// Whether it has timestamps.
    pub timestamps: bool,
    /// Its own memory, in bytes, where the driver tells.
    pub memory: Option<u64>,
    /// Memory that the threads of a workgroup may share, in bytes.
    pub workgroup_memory: u32,
    /// The most threads of a workgroup.
    pub workgroup_threads: u32,
    /// The most buffers that a kernel can bind.
    pub storage_buffers: u32,
}

/// What a device can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest range of a buffer to bind, in bytes.
    pub binding: u64,
    /// The largest buffer, in bytes.
    pub buffer: u64,
    /// The most workgroups along one axis of a dispatch.
    pub groups: usize,
    /// The most buffers that a kernel can bind.
    pub storage_buffers: u32,
    /// Memory of its own, in bytes, where the driver tells.
    pub memory: Option<u64>,
}

impl Limits {
    /// What every adapter has by WebGPU's rules: 128 MiB bindings, 256 MiB buffers.
    pub const PORTABLE: Self = Self { binding: 128 << 20, buffer: 256 << 20, groups: 65535, storage_buffers: 8, memory: None };
    /// What discrete GPUs have at least, with 8 GiB of memory.
    pub const USUAL: Self =
        Self { binding: (2 << 30) - 4, buffer: (4 << 30) - 4, groups: 65535, storage_buffers: 64, memory: Some(8 << 30) };
    /// Indices in kernels are numbers of words, in 32 bits.
    const INDEXED: u64 = 4 << 32;

    pub(super) fn of(limits: &wgpu::Limits, memory: Option<u64>, options: &GpuOptions) -> Self {
        let binding = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(Self::INDEXED);
        Self {
            binding: binding.min(options.largest_binding.unwrap_or(u64::MAX)),
            buffer: limits.max_buffer_size,
            groups: limits.max_compute_workgroups_per_dimension as usize,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            memory,
        }
    }
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::from_env().unwrap_or(wgpu::Backends::PRIMARY);
    wgpu::Instance::new(descriptor)
}

/// Preference: lower is better.
fn rank(kind: wgpu::DeviceType) -> (u8, &'static str) {
    match kind {
        wgpu::DeviceType::DiscreteGpu => (0, "discrete"),
        wgpu::DeviceType::IntegratedGpu => (1, "integrated"),
        wgpu::DeviceType::VirtualGpu => (2, "virtual"),
        wgpu::DeviceType::Other => (3, "other"),
        wgpu::DeviceType::Cpu => (4, "software"),
    }
}

fn report(adapter: &wgpu::Adapter, options: &GpuOptions) -> AdapterReport {
    let info = adapter.get_info();
    let memory = super::heap::device_memory(adapter);
    let limits = Limits::of(&adapter.limits(), memory, options);
    AdapterReport {
        driver: [info.driver, info.driver_info].join(" ").trim().to_owned(),
        api: info.backend.to_string(),
        kind: rank(info.device_type).1,
        largest_binding: limits.binding,
        largest_buffer: limits.buffer,
        int64: adapter.features().contains(wgpu::Features::SHADER_INT64),
        timestamps: adapter.features().contains(wgpu::Features::TIMESTAMP_QUERY),
        memory,
        workgroup_memory: adapter.limits().max_compute_workgroup_storage_size,
        workgroup_threads: adapter.limits().max_compute_invocations_per_workgroup,
        storage_buffers: adapter.limits().max_storage_buffers_per_shader_stage,
        name: info.name,
    }
}

/// All adapters of the APIs allowed by `WGPU_BACKEND`, best first.
pub fn adapters() -> Vec<AdapterReport> {
    sorted(&instance()).iter().map(|a| report(a, &GpuOptions::default())).collect()
}

fn sorted(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let mut all = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    all.sort_by_key(|a| rank(a.get_info().device_type).0);
    all
}

/// The best adapter that the options allow: discrete before integrated before virtual; software ones on request only.
pub(super) fn best(options: &GpuOptions) -> Result<(wgpu::Adapter, AdapterReport)> {
    let all = sorted(&instance());
    let found = all.iter().map(|a| format!("{} ({})", a.get_info().name, rank(a.get_info().device_type).1));
    let mut found = found.collect::<Vec<_>>().join(", ");
    if found.is_empty() {
        found = "none".to_owned();
    }
    if let Some(apis) = std::env::var_os("WGPU_BACKEND") {
        found = format!("{found}; of those that WGPU_BACKEND={} allows", apis.to_string_lossy());
    }
    let wanted = |a: &wgpu::Adapter| {
        let info = a.get_info();
        let named = options.adapter.as_ref().is_none_or(|n| info.name.to_lowercase().contains(&n.to_lowercase()));
        named && (options.software || info.device_type != wgpu::DeviceType::Cpu)
    };
    match all.into_iter().find(wanted) {
        Some(adapter) => {
            let report = report(&adapter, options);
            Ok((adapter, report))
        }
        None => Err(BackendError::NoAdapter { asked: options.adapter.clone(), found }),
    }
}

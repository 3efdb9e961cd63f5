//! One device: its faults, buffers, pipelines and counters. Commands are in `commands.rs`.
//!
//! A dry device has no adapter behind it: buffers have sizes and no words, commands are counted and forgotten. What a
//! run will ask of a real one is found by the same code that will ask it.

use super::adapter::{AdapterReport, GpuOptions, Limits, best};
use super::commands::Queued;
use super::profile::Profile;
use super::registry::{Access, Kernel, Wide};
use crate::backend::{BackendError, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Argument buffers kept.
const ARGUMENTS: usize = 4096;

/// Counters of a device.
#[derive(Debug)]
pub(super) struct Counters {
    /// By kernel, in the order of [`Kernel::ALL`].
    pub dispatches: Vec<AtomicU64>,
    /// Words that kernels read and write, by kernel, and that copies do.
    pub words: Vec<AtomicU64>,
    pub copied: AtomicU64,
    pub copies: AtomicU64,
    pub downloaded: AtomicU64,
    allocations: AtomicU64,
    blocks: AtomicU64,
}

/// What went wrong on the device outside a call; kept, since results after it cannot be trusted.
#[derive(Debug, Default)]
pub(super) struct Fault(Mutex<Option<String>>);

impl Fault {
    /// The first fault stays.
    pub(super) fn set(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }
    /// The fault as a call's error.
    pub(super) fn check(&self, op: &'static str) -> Result<()> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(reason) => Err(BackendError::Device { op, reason: reason.clone() }),
        }
    }
}

/// A buffer of the device; none where the device is dry.
#[derive(Debug, Clone)]
pub(super) struct Block {
    raw: Option<wgpu::Buffer>,
    id: u64,
    size: u64,
}

impl Block {
    /// The buffer.
    pub(super) fn raw(&self) -> Option<&wgpu::Buffer> {
        self.raw.as_ref()
    }
    /// Never that of another block.
    pub(super) fn id(&self) -> u64 {
        self.id
    }
    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

/// Numbers that a pipeline is made for, by the names of the shader's `override`s.
pub(super) type Constants = Vec<(&'static str, u32)>;

/// What all pipelines of a kernel share.
#[derive(Debug)]
pub(super) struct Compiled {
    module: wgpu::ShaderModule,
    pub layout: wgpu::BindGroupLayout,
    pipelines: Mutex<HashMap<Constants, Arc<OnceLock<wgpu::ComputePipeline>>>>,
}

/// What is behind a device that is not dry.
#[derive(Debug)]
pub(super) struct Live {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub profile: Option<Profile>,
    kernels: Vec<OnceLock<Compiled>>,
}

/// An open device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) live: Option<Live>,
    pub(super) fault: Arc<Fault>,
    pub(super) counters: Counters,
    pub(super) queued: Mutex<Queued>,
    limits: Limits,
    report: AdapterReport,
    wide: Wide,
    /// First and end of the allocations to refuse.
    refused: [AtomicU64; 2],
    /// Argument buffers by content: the same call on the same shapes finds its arguments on the device.
    arguments: Mutex<HashMap<Vec<u32>, Block>>,
}

impl Device {
    /// Opens the best adapter that the options allow, with these forms of wide products if it has them.
    pub(super) fn open(options: &GpuOptions) -> Result<Self> {
        let (adapter, report) = best(options)?;
        let wide = options.wide.unwrap_or(if report.int64 { Wide::U64 } else { Wide::U32 });
        let mut features = if wide == Wide::U64 { wgpu::Features::SHADER_INT64 } else { wgpu::Features::empty() };
        let profiled = options.profile && report.timestamps;
        if profiled {
            features |= wgpu::Features::TIMESTAMP_QUERY;
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("cipherlens"),
            required_features: features,
            required_limits: adapter.limits(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|e| BackendError::Device { op: "open", reason: e.to_string() })?;
        let fault = Arc::new(Fault::default());
        let sink = fault.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| sink.set(error.to_string())));
        let sink = fault.clone();
        device.set_device_lost_callback(move |reason, message| sink.set(format!("device lost ({reason:?}): {message}")));
        let limits = Limits::of(&device.limits(), report.memory, options);
        let profile = profiled.then(|| Profile::new(&device, &queue));
        let kernels = Kernel::ALL.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { fault, ..Self::new(Some(Live { device, queue, profile, kernels }), limits, report, wide) })
    }

    /// A device that only counts.
    pub(super) fn dry(limits: Limits) -> Self {
        let report = AdapterReport {
            name: "none".into(),
            api: "none".into(),
            driver: String::new(),
            kind: "other",
            largest_binding: limits.binding,
            largest_buffer: limits.buffer,
            int64: true,
            timestamps: false,
            memory: None,
            workgroup_memory: super::registry::WORKGROUP_BYTES,
            workgroup_threads: super::registry::THREADS,
            storage_buffers: limits.storage_buffers,
        };
        Self::new(None, limits, report, Wide::U64)
    }

    fn new(live: Option<Live>, limits: Limits, report: AdapterReport, wide: Wide) -> Self {
        Self {
            live,
            limits,
            report,
            wide,
            fault: Arc::default(),
            counters: Counters {
                dispatches: Kernel::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
                words: Kernel::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
                copied: AtomicU64::new(0),
                copies: AtomicU64::new(0),
                downloaded: AtomicU64::new(0),
                allocations: AtomicU64::new(0),
                blocks: AtomicU64::new(0),
            },
            queued: Mutex::default(),
            refused: [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)],
            arguments: Mutex::default(),
        }
    }

    /// The adapter.
    pub(super) fn report(&self) -> &AdapterReport {
        &self.report
    }
    /// The form of wide products.
    pub(super) fn wide(&self) -> Wide {
        self.wide
    }
    /// What it can take.
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }
    /// Buffers made so far.
    pub(super) fn allocations(&self) -> u64 {
        self.counters.allocations.load(Relaxed)
    }
    /// Refuses some of the allocations to come.
    pub(super) fn refuse(&self, allocations: &std::ops::Range<u64>) {
        let now = self.allocations();
        self.refused[0].store(now.saturating_add(allocations.start), Relaxed);
        self.refused[1].store(now.saturating_add(allocations.end), Relaxed);
    }
    /// Ends the device, as a driver's reset would.
    pub(super) fn destroy(&self) {
        if let Some(live) = &self.live {
            live.device.destroy();
        }
        self.fault.set("the device was destroyed".to_owned());
    }

    /// Has the driver refuse something outside of any call.
    pub(super) fn provoke_validation_error(&self) {
        if let Some(live) = &self.live {
            let usage = wgpu::BufferUsages::STORAGE;
            let size = self.limits.buffer.saturating_add(4);
            drop(live.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false }));
        }
    }

    fn block(&self, raw: Option<wgpu::Buffer>, size: u64) -> Block {
        Block { raw, id: self.counters.blocks.fetch_add(1, Relaxed), size }
    }

    /// A buffer for residues.
    pub(super) fn create_block(&self, size: u64, op: &'static str) -> Result<Block> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        self.create(size, usage, op)
    }

    /// A buffer.
    pub(super) fn create(&self, size: u64, usage: wgpu::BufferUsages, op: &'static str) -> Result<Block> {
        self.fault.check(op)?;
        let refused = || BackendError::OutOfMemory { op, bytes: usize::try_from(size).unwrap_or(usize::MAX) };
        let number = self.counters.allocations.fetch_add(1, Relaxed);
        let [first, end] = self.refused.each_ref().map(|n| n.load(Relaxed));
        if (first..end).contains(&number) || size > self.limits.buffer {
            return Err(refused());
        }
        let Some(live) = &self.live else { return Ok(self.block(None, size)) };
        let scope = live.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = live.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        match pollster::block_on(scope.pop()) {
            None => self.fault.check(op).map(|()| self.block(Some(buffer), size)),
            Some(_) => Err(refused()),
        }
    }

    /// A buffer with these words, for tables and arguments.
    pub(super) fn resident(&self, words: &[u32], op: &'static str) -> Result<Block> {
        let bytes: &[u8] = bytemuck::cast_slice(words);
        let size = (bytes.len() as u64).max(4).next_multiple_of(16);
        if size > self.limits.binding {
            return Err(BackendError::OutOfMemory { op, bytes: bytes.len() });
        }
        let block = self.create_block(size, op)?;
        if let (Some(live), Some(raw)) = (&self.live, block.raw()) {
            // Never used before, so that writing ahead of recorded commands changes nothing for them.
            live.queue.write_buffer(raw, 0, bytes);
        }
        Ok(block)
    }

    /// The block that holds a call's arguments.
    pub(super) fn arguments(&self, words: &[u32], op: &'static str) -> Result<Block> {
        let mut known = self.arguments.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = known.get(words) {
            return Ok(block.clone());
        }
        if known.len() >= ARGUMENTS {
            known.clear();
        }
        let block = self.resident(words, op)?;
        known.insert(words.to_vec(), block.clone());
        Ok(block)
    }

    /// Commands on their way.
    pub(super) fn queued(&self) -> MutexGuard<'_, Queued> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// A kernel, translated when it is first used.
    pub(super) fn kernel(&self, kernel: Kernel, wide: Wide) -> &Compiled {
        self.kernels[kernel as usize].get_or_init(|| {
            let row = kernel.row();
            let source = wgpu::ShaderSource::Wgsl(row.shader.source(wide).into());
            let descriptor = wgpu::ShaderModuleDescriptor { label: Some(row.name), source };
            let checks = wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
            // SAFETY: accesses are still checked; what is left out is a bound on loops, and every loop of the shaders
            // counts to a number fixed before it.
            let module = unsafe { self.device.create_shader_module_trusted(descriptor, checks) };
            let entries: Vec<_> = row
                .bindings
                .iter()
                .map(|&(binding, access)| wgpu::BindGroupLayoutEntry {
                    binding,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: wgpu::BindingType::Buffer {
                        ty: wgpu::BufferBindingType::Storage { read_only: access == Access::Read },
                        has_dynamic_offset: false,
                        min_binding_size: None,
                    },
                    count: None,
                })
                .collect();
            let layout = self
                .device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(row.name), entries: &entries });
            Compiled { module, layout, pipelines: Mutex::default() }
        })
    }

    /// A kernel's pipeline for some constants, compiled when it is first used.
    pub(super) fn pipeline(&self, kernel: Kernel, compiled: &Compiled, constants: Constants) -> wgpu::ComputePipeline {
        let numbers: Vec<_> = constants.iter().map(|&(name, number)| (name, f64::from(number))).collect();
        let mut pipelines = compiled.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let place = pipelines.entry(constants).or_default().clone();
        // Others may be made at the same time.
        drop(pipelines);
        place.get_or_init(|| self.compile(kernel, compiled, &numbers)).clone()
    }

    fn compile(&self, kernel: Kernel, compiled: &Compiled, numbers: &[(&str, f64)]) -> wgpu::ComputePipeline {
        let row = kernel.row();
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(row.name),
            bind_group_layouts: &[Some(&compiled.layout)],
            immediate_size: 0,
        });
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(row.name),
            layout: Some(&pipeline_layout),
            module: &compiled.module,
            entry_point: Some(row.name),
            compilation_options: wgpu::PipelineCompilationOptions { constants: numbers, zero_initialize_workgroup_memory: false },
            cache: None,
        })
    }
}

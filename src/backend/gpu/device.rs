//! One adapter: selection, limits, faults, pipelines, and the commands on their way to it.

use super::registry::{Access, Kernel, Wide};
use crate::backend::{BackendError, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Dispatches after which commands are handed to the device, so that it works while more are recorded and no submission
/// runs into a driver's watchdog.
const BATCH: usize = 48;
/// Argument buffers kept.
const ARGUMENTS: usize = 4096;

/// Which adapter to take, and how.
#[derive(Debug, Clone, Default)]
pub struct GpuOptions {
    /// Part of the adapter's name, in any case. [`GpuOptions::from_env`] reads it from `WGPU_ADAPTER_NAME`.
    pub adapter: Option<String>,
    /// Take software adapters too (lavapipe, WARP). They compute on the processor, slower than the CPU backend: for tests.
    pub software: bool,
    /// The form of wide products; by default 64-bit integers where they work.
    pub wide: Option<Wide>,
    /// The most bytes of device memory to take for residues.
    pub memory_limit: Option<u64>,
    /// The largest buffer to bind, in bytes, where that is less than the adapter's: to work as a smaller one would.
    pub largest_binding: Option<u64>,
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
    /// The largest buffer that a kernel can bind, in bytes.
    pub largest_binding: u64,
    /// Whether it has 64-bit integers.
    pub int64: bool,
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

fn report(adapter: &wgpu::Adapter) -> AdapterReport {
    let info = adapter.get_info();
    AdapterReport {
        driver: [info.driver, info.driver_info].join(" ").trim().to_owned(),
        api: info.backend.to_string(),
        kind: rank(info.device_type).1,
        largest_binding: largest_binding(&adapter.limits()),
        int64: adapter.features().contains(wgpu::Features::SHADER_INT64),
        name: info.name,
    }
}

fn largest_binding(limits: &wgpu::Limits) -> u64 {
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size)
}

/// All adapters of the APIs allowed by `WGPU_BACKEND`, best first.
pub fn adapters() -> Vec<AdapterReport> {
    sorted(&instance()).iter().map(report).collect()
}

fn sorted(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let mut all = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    all.sort_by_key(|a| rank(a.get_info().device_type).0);
    all
}

/// What went wrong on the device outside a call; kept, since results after it cannot be trusted.
#[derive(Debug, Default)]
struct Fault(Mutex<Option<String>>);

impl Fault {
    fn set(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }
    fn check(&self, op: &'static str) -> Result<()> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(reason) => Err(BackendError::Device { op, reason: reason.clone() }),
        }
    }
}

#[derive(Debug)]
struct Pipeline {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// Commands recorded and not yet handed over.
#[derive(Debug, Default)]
struct Pending {
    encoder: Option<wgpu::CommandEncoder>,
    commands: usize,
    dispatched: u64,
}

/// An open device.
#[derive(Debug)]
pub struct Device {
    device: wgpu::Device,
    queue: wgpu::Queue,
    report: AdapterReport,
    wide: Wide,
    fault: Arc<Fault>,
    pipelines: Vec<OnceLock<Pipeline>>,
    pending: Mutex<Pending>,
    /// Argument buffers by content: the same call on the same shapes finds its arguments on the device.
    arguments: Mutex<HashMap<Vec<u32>, wgpu::Buffer>>,
}

impl Device {
    /// Opens the best adapter that the options allow, with these forms of wide products if it has them.
    pub fn open(options: &GpuOptions) -> Result<Self> {
        let instance = instance();
        let all = sorted(&instance);
        let wanted = |a: &&wgpu::Adapter| {
            let info = a.get_info();
            let named = options.adapter.as_ref().is_none_or(|n| info.name.to_lowercase().contains(&n.to_lowercase()));
            named && (options.software || info.device_type != wgpu::DeviceType::Cpu)
        };
        let Some(adapter) = all.iter().find(wanted) else {
            let found = all.iter().map(|a| format!("{} ({})", a.get_info().name, rank(a.get_info().device_type).1));
            let mut found = found.collect::<Vec<_>>().join(", ");
            if found.is_empty() {
                found = "none".to_owned();
            }
            if let Some(apis) = std::env::var_os("WGPU_BACKEND") {
                found = format!("{found}; of those that WGPU_BACKEND={} allows", apis.to_string_lossy());
            }
            return Err(BackendError::NoAdapter { asked: options.adapter.clone(), found });
        };
        let mut report = report(adapter);
        report.largest_binding = report.largest_binding.min(options.largest_binding.unwrap_or(u64::MAX));
        let wide = options.wide.unwrap_or(if report.int64 { Wide::U64 } else { Wide::U32 });
        let features = if wide == Wide::U64 { wgpu::Features::SHADER_INT64 } else { wgpu::Features::empty() };
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
        Ok(Self {
            device,
            queue,
            report,
            wide,
            fault,
            pipelines: Kernel::ALL.iter().map(|_| OnceLock::new()).collect(),
            pending: Mutex::default(),
            arguments: Mutex::default(),
        })
    }

    /// The adapter.
    pub fn report(&self) -> &AdapterReport {
        &self.report
    }
    /// The form of wide products.
    pub fn wide(&self) -> Wide {
        self.wide
    }
    /// The largest buffer a kernel can bind, in bytes.
    pub fn largest_binding(&self) -> u64 {
        // Indices in kernels are words in 32 bits.
        self.report.largest_binding.min(4 << 32)
    }
    /// Dispatches so far.
    pub fn dispatches(&self) -> u64 {
        self.pending().dispatched
    }
    /// Ends the device, as a driver's reset would.
    pub fn destroy(&self) {
        self.device.destroy();
        self.fault.set("the device was destroyed".to_owned());
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer for residues.
    pub fn create_buffer(&self, size: u64, op: &'static str) -> Result<wgpu::Buffer> {
        self.fault.check(op)?;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        match pollster::block_on(scope.pop()) {
            None => self.fault.check(op).map(|()| buffer),
            Some(_) => Err(BackendError::OutOfMemory { op, bytes: usize::try_from(size).unwrap_or(usize::MAX) }),
        }
    }

    /// A buffer with these words, for tables and arguments.
    pub fn resident(&self, words: &[u32], op: &'static str) -> Result<wgpu::Buffer> {
        let bytes: &[u8] = bytemuck::cast_slice(words);
        let size = (bytes.len() as u64).max(4).next_multiple_of(16);
        if size > self.largest_binding() {
            return Err(BackendError::OutOfMemory { op, bytes: bytes.len() });
        }
        let buffer = self.create_buffer(size, op)?;
        // Never used before, so that writing ahead of recorded commands changes nothing for them.
        self.queue.write_buffer(&buffer, 0, bytes);
        Ok(buffer)
    }

    fn arguments(&self, words: &[u32], op: &'static str) -> Result<wgpu::Buffer> {
        let mut known = self.arguments.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = known.get(words) {
            return Ok(buffer.clone());
        }
        if known.len() >= ARGUMENTS {
            known.clear();
        }
        let buffer = self.resident(words, op)?;
        known.insert(words.to_vec(), buffer.clone());
        Ok(buffer)
    }

    fn pipeline(&self, kernel: Kernel) -> &Pipeline {
        self.pipelines[kernel as usize].get_or_init(|| {
            let row = kernel.row();
            let source = wgpu::ShaderSource::Wgsl(row.shader.source(self.wide).into());
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
            let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(row.name),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(row.name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(row.name),
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: false,
                    ..wgpu::PipelineCompilationOptions::default()
                },
                cache: None,
            });
            Pipeline { pipeline, layout }
        })
    }

    /// Records a kernel: arguments, then the buffers of its bindings after the arguments, in order.
    pub fn dispatch(&self, kernel: Kernel, arguments: &[u32], buffers: &[&wgpu::Buffer], grid: [usize; 3]) -> Result<()> {
        let row = kernel.row();
        self.fault.check(row.name)?;
        if grid.contains(&0) {
            return Ok(());
        }
        let most = self.device.limits().max_compute_workgroups_per_dimension as usize;
        if grid.iter().any(|&g| g > most) {
            return Err(BackendError::Shape {
                op: row.name,
                expected: format!("at most {most} polynomials, limbs or tiles in one call"),
                found: format!("{grid:?}"),
            });
        }
        let pipeline = self.pipeline(kernel);
        let arguments = self.arguments(arguments, row.name)?;
        let buffers = std::iter::once(&arguments).chain(buffers.iter().copied());
        let entries: Vec<_> = row
            .bindings
            .iter()
            .zip(buffers)
            .map(|(&(binding, _), buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bind_group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(row.name),
            layout: &pipeline.layout,
            entries: &entries,
        });
        let [x, y, z] = grid.map(|g| g as u32);
        self.record(|encoder| {
            let mut pass =
                encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(row.name), timestamp_writes: None });
            pass.set_pipeline(&pipeline.pipeline);
            pass.set_bind_group(0, &bind_group, &[]);
            pass.dispatch_workgroups(x, y, z);
        });
        self.pending().dispatched += 1;
        self.fault.check(row.name)
    }

    /// Records commands.
    pub fn record(&self, f: impl FnOnce(&mut wgpu::CommandEncoder)) {
        let mut pending = self.pending();
        let device = &self.device;
        f(pending.encoder.get_or_insert_with(|| device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())));
        pending.commands += 1;
        if pending.commands >= BATCH {
            self.submit(&mut pending);
        }
    }

    fn submit(&self, pending: &mut Pending) {
        pending.commands = 0;
        self.queue.submit(pending.encoder.take().map(wgpu::CommandEncoder::finish));
        // A device that is lost says so through its callback.
        let _ = self.device.poll(wgpu::PollType::Poll);
    }

    /// Waits until all commands recorded so far are done.
    pub fn wait(&self, op: &'static str) -> Result<()> {
        self.submit(&mut self.pending());
        let failed = |reason: String| BackendError::Device { op, reason };
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| failed(e.to_string()))?;
        self.fault.check(op)
    }

    /// Writes words to a buffer, after all commands recorded so far.
    pub fn write(&self, buffer: &wgpu::Buffer, words: &[u32], op: &'static str) -> Result<()> {
        let mut pending = self.pending();
        self.submit(&mut pending);
        self.queue.write_buffer(buffer, 0, bytemuck::cast_slice(words));
        self.fault.check(op)
    }

    /// Reads the first `words` words of a buffer when all commands recorded so far are done.
    pub fn read(&self, buffer: &wgpu::Buffer, words: usize, op: &'static str) -> Result<Vec<u32>> {
        self.fault.check(op)?;
        if words == 0 {
            return Ok(Vec::new());
        }
        let size = words as u64 * 4;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        self.record(|encoder| encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, size));
        self.submit(&mut self.pending());
        let failed = |reason: String| BackendError::Device { op, reason };
        let (sender, receiver) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            // The receiver is gone only where this call has already failed.
            let _ = sender.send(result);
        });
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| failed(e.to_string()))?;
        self.fault.check(op)?;
        receiver.recv().map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
        let words = {
            let range = staging.get_mapped_range(..).map_err(|e| failed(e.to_string()))?;
            bytemuck::cast_slice(&range).to_vec()
        };
        staging.unmap();
        self.fault.check(op)?;
        Ok(words)
    }
}

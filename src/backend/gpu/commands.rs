//! Commands on their way to the device: recorded in order, handed over in batches, waited for only when words are read.

use super::device::{Block, Constants, Device, Live};
use super::profile;
use super::registry::Kernel;
use crate::backend::{BackendError, Result};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering::Relaxed;

/// Commands after which they are handed to the device, so that it works while more are recorded and no submission runs
/// into a driver's watchdog.
const BATCH: usize = 48;
/// Bind groups kept.
const BIND_GROUPS: usize = 1 << 15;
/// Bytes written and not yet taken by the device, at most: they are in host memory until then.
const IN_FLIGHT: u64 = 256 << 20;
/// Bytes of one write or read.
const PIECE: usize = 64 << 20;
/// Where bindings may start, in words: 256 bytes.
pub(super) const ALIGN: usize = 64;

/// Some words of a block, as a kernel sees them. They start on a multiple of [`ALIGN`] words.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub block: &'a Block,
    pub first: usize,
    pub words: usize,
}

impl<'a> View<'a> {
    /// All of a block.
    pub(super) fn all(block: &'a Block) -> Self {
        Self { block, first: 0, words: (block.size() / 4) as usize }
    }
}

/// A word of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start<'a> {
    pub block: &'a Block,
    pub word: usize,
}

/// What identifies a bind group: kernel, then block, first word and words of each binding.
type Bound = (Kernel, Vec<(u64, usize, usize)>);

/// Commands recorded and not yet handed over, and what is known of those that were.
#[derive(Debug, Default)]
pub(super) struct Queued {
    encoder: Option<wgpu::CommandEncoder>,
    pass: Option<wgpu::ComputePass<'static>>,
    commands: usize,
    /// Kernels since the last submission, where they are timed.
    timed: Vec<Kernel>,
    bind_groups: HashMap<Bound, wgpu::BindGroup>,
    /// Bytes written since the last submission, and with each submission not known to be done.
    written: u64,
    in_flight: VecDeque<(wgpu::SubmissionIndex, u64)>,
}

impl Queued {
    /// Commands that are no kernels.
    fn encoder(&mut self, live: &Live) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        let new = || live.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.encoder.get_or_insert_with(new)
    }

    fn pass(&mut self, live: &Live, kernel: Kernel) -> &mut wgpu::ComputePass<'static> {
        let open = self.pass.take().filter(|_| live.profile.is_none());
        let pass = match open {
            Some(pass) => pass,
            None => {
                let timestamp_writes = live.profile.as_ref().map(|p| p.writes(self.timed.len()));
                if live.profile.is_some() {
                    self.timed.push(kernel);
                }
                let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
                self.encoder(live).begin_compute_pass(&descriptor).forget_lifetime()
            }
        };
        self.pass.insert(pass)
    }

    fn submit(&mut self, live: &Live) {
        self.commands = 0;
        self.pass = None;
        let timed = std::mem::take(&mut self.timed);
        if let (Some(profile), Some(encoder), false) = (&live.profile, &mut self.encoder, timed.is_empty()) {
            profile.resolve(encoder, timed.len());
        }
        let index = live.queue.submit(self.encoder.take().map(wgpu::CommandEncoder::finish));
        self.in_flight.push_back((index, std::mem::take(&mut self.written)));
        if let (Some(profile), false) = (&live.profile, timed.is_empty()) {
            profile.collect(&live.device, &timed);
        }
        // A device that is lost says so through its callback.
        let _ = live.device.poll(wgpu::PollType::Poll);
        while self.in_flight.iter().map(|(_, bytes)| bytes).sum::<u64>() > IN_FLIGHT || self.in_flight.len() > BATCH {
            if let Some((index, _)) = self.in_flight.pop_front() {
                let _ = live.device.poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None });
            }
        }
    }
}

impl Device {
    /// Records a kernel: arguments, then the views of its bindings after the arguments, in order. `moved` is the words that it reads and
    /// writes, each once.
    pub(super) fn dispatch(
        &self,
        kernel: Kernel,
        arguments: &[u32],
        views: &[View<'_>],
        grid: [usize; 3],
        moved: usize,
    ) -> Result<()> {
        self.dispatch_specialised((kernel, Vec::new()), arguments, views, grid, moved)
    }

    /// The same with a pipeline that is made for some numbers.
    pub(super) fn dispatch_specialised(
        &self,
        (kernel, constants): (Kernel, Constants),
        arguments: &[u32],
        views: &[View<'_>],
        grid: [usize; 3],
        moved: usize,
    ) -> Result<()> {
        let row = kernel.row();
        self.fault.check(row.name)?;
        if grid.contains(&0) {
            return Ok(());
        }
        let limits = self.limits();
        if grid.iter().any(|&g| g > limits.groups) {
            return Err(BackendError::Shape {
                op: row.name,
                expected: format!("at most {} polynomials, limbs or tiles in one call", limits.groups),
                found: format!("{grid:?}"),
            });
        }
        debug_assert!(views.iter().all(|v| v.first.is_multiple_of(ALIGN)), "{}: {views:?}", row.name);
        if let Some(view) = views.iter().find(|v| v.words as u64 * 4 > limits.binding) {
            return Err(BackendError::OutOfMemory { op: row.name, bytes: view.words * 4 });
        }
        let arguments = self.arguments(arguments, row.name)?;
        self.counters.dispatches[kernel as usize].fetch_add(1, Relaxed);
        self.counters.words[kernel as usize].fetch_add(moved as u64, Relaxed);
        let Some(live) = &self.live else { return Ok(()) };
        let compiled = live.kernel(kernel, self.wide());
        let pipeline = live.pipeline(kernel, compiled, constants);
        let views: Vec<_> = std::iter::once(View::all(&arguments)).chain(views.iter().copied()).collect();
        let bound = (kernel, views.iter().map(|v| (v.block.id(), v.first, v.words)).collect());
        let mut queued = self.queued();
        if queued.bind_groups.len() >= BIND_GROUPS {
            queued.bind_groups.clear();
        }
        let group = match queued.bind_groups.get(&bound) {
            Some(group) => group.clone(),
            None => {
                let group = self.bind(live, kernel, &views, &compiled.layout);
                queued.bind_groups.insert(bound, group.clone());
                group
            }
        };
        let [x, y, z] = grid.map(|g| g as u32);
        let pass = queued.pass(live, kernel);
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(x, y, z);
        self.recorded(&mut queued, live);
        drop(queued);
        self.fault.check(row.name)
    }

    fn bind(&self, live: &Live, kernel: Kernel, views: &[View<'_>], layout: &wgpu::BindGroupLayout) -> wgpu::BindGroup {
        let row = kernel.row();
        let entries: Vec<_> = row
            .bindings
            .iter()
            .zip(views)
            .filter_map(|(&(binding, _), view)| {
                let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: view.block.raw()?,
                    offset: view.first as u64 * 4,
                    size: std::num::NonZeroU64::new(view.words as u64 * 4),
                });
                Some(wgpu::BindGroupEntry { binding, resource })
            })
            .collect();
        live.device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(row.name), layout, entries: &entries })
    }

    /// Forgets what was bound together with blocks that are to go.
    pub(super) fn forget_bind_groups(&self, gone: &HashSet<u64>) {
        if !gone.is_empty() {
            self.queued().bind_groups.retain(|(_, views), _| !views.iter().any(|(block, ..)| gone.contains(block)));
        }
    }

    fn recorded(&self, queued: &mut Queued, live: &Live) {
        queued.commands += 1;
        if queued.commands >= BATCH.min(profile::MOST as usize) {
            queued.submit(live);
        }
    }

    fn record(&self, f: impl FnOnce(&mut wgpu::CommandEncoder)) {
        if let Some(live) = &self.live {
            let mut queued = self.queued();
            f(queued.encoder(live));
            self.recorded(&mut queued, live);
        }
    }

    /// Copies words between blocks.
    pub(super) fn copy(&self, from: Start<'_>, to: Start<'_>, words: usize) {
        let [from_at, to_at, size] = [from.word, to.word, words].map(|w| w as u64 * 4);
        self.counters.copies.fetch_add(1, Relaxed);
        self.counters.copied.fetch_add(2 * words as u64, Relaxed);
        if let (Some(from), Some(to), true) = (from.block.raw(), to.block.raw(), size > 0) {
            self.record(|encoder| encoder.copy_buffer_to_buffer(from, from_at, to, to_at, size));
        }
    }

    /// Zeros.
    pub(super) fn clear(&self, block: &Block) {
        if let Some(raw) = block.raw() {
            self.record(|encoder| encoder.clear_buffer(raw, 0, None));
        }
    }

    /// Writes words to a block, after all commands recorded so far.
    pub(super) fn write<T: bytemuck::Pod>(&self, block: &Block, words: &[T], op: &'static str) -> Result<()> {
        let (Some(live), Some(raw)) = (&self.live, block.raw()) else { return self.fault.check(op) };
        let bytes: &[u8] = bytemuck::cast_slice(words);
        let mut queued = self.queued();
        for (i, piece) in bytes.chunks(PIECE).enumerate() {
            queued.submit(live);
            live.queue.write_buffer(raw, (i * PIECE) as u64, piece);
            queued.written += piece.len() as u64;
        }
        drop(queued);
        self.fault.check(op)
    }

    /// Waits until all commands recorded so far are done.
    pub(super) fn synchronize(&self, op: &'static str) -> Result<()> {
        if let Some(live) = &self.live {
            let mut queued = self.queued();
            queued.submit(live);
            queued.in_flight.clear();
            drop(queued);
            let waited = live.device.poll(wgpu::PollType::wait_indefinitely());
            waited.map_err(|e| BackendError::Device { op, reason: e.to_string() })?;
        }
        self.fault.check(op)
    }

    /// Reads `words` words of a block from `start` on when all commands recorded so far are done. Zeros from a dry device.
    pub(super) fn read(&self, start: Start<'_>, words: usize, op: &'static str) -> Result<Vec<u32>> {
        self.fault.check(op)?;
        let mut out = vec![0u32; words];
        self.counters.downloaded.fetch_add(words as u64 * 4, Relaxed);
        let (Some(live), Some(from)) = (&self.live, start.block.raw()) else { return Ok(out) };
        if words == 0 {
            return Ok(out);
        }
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.create((words * 4).min(PIECE) as u64, usage, op)?;
        let Some(to) = staging.raw() else { return Ok(out) };
        let failed = |reason: String| BackendError::Device { op, reason };
        for (i, piece) in out.chunks_mut(PIECE / 4).enumerate() {
            let size = piece.len() as u64 * 4;
            let at = 4 * start.word as u64 + (i * PIECE) as u64;
            self.record(|encoder| encoder.copy_buffer_to_buffer(from, at, to, 0, size));
            self.queued().submit(live);
            let (sender, receiver) = std::sync::mpsc::channel();
            to.map_async(wgpu::MapMode::Read, ..size, move |result| {
                // The receiver is gone only where this call has already failed.
                let _ = sender.send(result);
            });
            live.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| failed(e.to_string()))?;
            self.fault.check(op)?;
            receiver.recv().map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
            let range = to.get_mapped_range(..size).map_err(|e| failed(e.to_string()))?;
            piece.copy_from_slice(bytemuck::cast_slice(&range));
            drop(range);
            to.unmap();
        }
        self.fault.check(op)?;
        Ok(out)
    }
}

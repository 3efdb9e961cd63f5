//! Device memory for residues, recycled by size, within a budget.

use super::device::Device;
use crate::backend::{BackendError, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Sizes are rounded up to this many bytes.
const GRAIN: u64 = 4096;

/// Words in a device buffer. Dropped, the buffer goes back to its pool: commands run in the order they were recorded,
/// so whoever gets it next writes after the last one has read.
#[derive(Debug)]
pub struct DeviceWords {
    buffer: wgpu::Buffer,
    memory: Arc<Memory>,
}

impl DeviceWords {
    /// The buffer.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }
    /// The memory it came from.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

impl Drop for DeviceWords {
    fn drop(&mut self) {
        self.memory.state().free.entry(self.buffer.size()).or_default().push(self.buffer.clone());
    }
}

#[derive(Debug, Default)]
struct State {
    free: HashMap<u64, Vec<wgpu::Buffer>>,
    /// Bytes of all buffers there are, free or not.
    bytes: u64,
    peak: u64,
}

/// All residues on one device.
#[derive(Debug)]
pub struct Memory {
    device: Arc<Device>,
    limit: Option<u64>,
    state: Mutex<State>,
}

impl Memory {
    /// Memory of a device; at most `limit` bytes of it.
    pub fn new(device: Arc<Device>, limit: Option<u64>) -> Self {
        Self { device, limit, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most bytes there ever were.
    pub fn peak_bytes(&self) -> u64 {
        self.state().peak
    }

    /// `words` words of any content.
    pub fn take(self: &Arc<Self>, words: usize, op: &'static str) -> Result<DeviceWords> {
        let refuse = || BackendError::OutOfMemory { op, bytes: words.saturating_mul(4) };
        let bytes = u64::try_from(words).ok().and_then(|w| w.checked_mul(4)).ok_or_else(refuse)?;
        let size = bytes.max(1).next_multiple_of(GRAIN);
        if size > self.device.largest_binding() {
            return Err(refuse());
        }
        let mut state = self.state();
        if let Some(buffer) = state.free.get_mut(&size).and_then(Vec::pop) {
            return Ok(DeviceWords { buffer, memory: self.clone() });
        }
        if self.limit.is_some_and(|limit| state.bytes + size > limit) {
            state.release();
        }
        if self.limit.is_some_and(|limit| state.bytes + size > limit) {
            return Err(refuse());
        }
        let buffer = match self.device.create_buffer(size, op) {
            Err(BackendError::OutOfMemory { .. }) => {
                state.release();
                self.device.create_buffer(size, op)?
            }
            other => other?,
        };
        state.bytes += size;
        state.peak = state.peak.max(state.bytes);
        Ok(DeviceWords { buffer, memory: self.clone() })
    }
}

impl State {
    /// Gives all free buffers back to the driver (which keeps them until the commands that use them are done).
    fn release(&mut self) {
        for (size, buffers) in self.free.drain() {
            self.bytes -= size * buffers.len() as u64;
        }
    }
}

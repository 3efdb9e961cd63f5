//! Device memory for residues and keys: recycled by size, within a budget, keys leaving it for what is needed now.
//!
//! What is free stays, so that a run which has been made once makes no buffer again; it is given back to the driver where
//! the budget or the driver has no room for another.

use super::commands::{ALIGN, Start, View};
use super::device::{Block, Device};
use crate::backend::{BackendError, Buffer, DeviceStorage, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Sizes are rounded up to this many bytes.
const GRAIN: u64 = 4096;

/// Words in a device buffer, all of it or some: parts of a value share its block.
#[derive(Debug)]
pub struct DeviceWords {
    held: Arc<Held>,
    /// Stands for these very words: who else holds it sees them change.
    region: Arc<()>,
    /// The first of them in the block, a multiple of [`ALIGN`], and how many.
    first: usize,
    words: usize,
}

/// A block in use. Dropped, it goes back to its pool: commands run in the order they were recorded, so whoever gets it next writes after
/// the last one has read.
#[derive(Debug)]
struct Held {
    block: Block,
    /// Whether a key is in it.
    key: bool,
    memory: Arc<Memory>,
}

impl DeviceWords {
    /// The block.
    pub(super) fn block(&self) -> &Block {
        &self.held.block
    }
    /// Their first word in the block.
    pub(super) fn first(&self) -> usize {
        self.first
    }
    /// The first of them.
    pub(super) fn start(&self) -> Start<'_> {
        Start { block: self.block(), word: self.first }
    }
    /// The words, as a kernel sees them.
    pub(super) fn view(&self) -> View<'_> {
        View { block: &self.held.block, first: self.first, words: self.words }
    }
    /// The memory it came from.
    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.held.memory
    }
    /// The same words from `first` on, which change where these do; none where kernels could not bind them.
    pub(super) fn part(&self, first: usize, words: usize) -> Option<Self> {
        let first = self.first + first;
        let part = || Self { held: self.held.clone(), region: self.region.clone(), first, words };
        first.is_multiple_of(ALIGN).then(part)
    }
    /// Says that these words are nobody else's from now on, though the block is: of parts that do not overlap, when the whole goes.
    pub(super) fn apart(self) -> Self {
        Self { region: Arc::default(), ..self }
    }
    /// Whether nobody else sees these words.
    pub(super) fn alone(&self) -> bool {
        Arc::strong_count(&self.region) == 1
    }
}

impl DeviceStorage for DeviceWords {}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.memory.state();
        if self.key {
            state.key_bytes -= self.block.size();
        }
        state.put(self.block.clone());
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // What was bound together would hold the buffers.
        let gone = self.state().trim();
        self.device.forget_bind_groups(&gone);
    }
}

/// A key on the device.
#[derive(Debug)]
struct Resident {
    /// Gone when the key itself is.
    owner: Weak<()>,
    words: Arc<DeviceWords>,
    last_use: u64,
}

#[derive(Debug, Default)]
struct State {
    /// By size.
    free: BTreeMap<u64, Vec<Block>>,
    free_bytes: u64,
    /// Bytes of all buffers there are, free or not.
    bytes: u64,
    /// Those of them that are keys.
    key_bytes: u64,
    peak: u64,
    uploaded: u64,
    keys_uploaded: u64,
    evictions: u64,
}

#[derive(Debug, Default)]
struct Keys {
    /// By the address of the key's identity, which stays taken as long as the entry is here.
    resident: HashMap<usize, Resident>,
    clock: u64,
}

/// All residues on one device.
#[derive(Debug)]
pub(super) struct Memory {
    device: Arc<Device>,
    limit: Option<u64>,
    /// The most bytes there may be: the limit; else most of the device's memory, where that is known.
    budget: u64,
    state: Mutex<State>,
    keys: Mutex<Keys>,
}

impl Memory {
    /// Memory of a device; at most `limit` bytes of it.
    pub(super) fn new(device: Arc<Device>, limit: Option<u64>) -> Self {
        // An eighth is left to the driver and to whoever draws the screen.
        let budget = limit.or(device.limits().memory.map(|m| m / 8 * 7)).unwrap_or(u64::MAX);
        Self { device, limit, budget, state: Mutex::default(), keys: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most bytes that were asked to be taken.
    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }
    /// The most bytes there may be, where that is known.
    pub(super) fn budget(&self) -> Option<u64> {
        (self.budget < u64::MAX).then_some(self.budget)
    }
    /// Bytes of residues and keys held, and the most there ever were.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let state = self.state();
        (state.bytes, state.peak)
    }
    /// Bytes uploaded: residues, keys; and keys evicted.
    pub(super) fn moved(&self) -> [u64; 3] {
        let state = self.state();
        [state.uploaded, state.keys_uploaded, state.evictions]
    }

    /// Gives back all keys and all that is free, when nobody will ask for them any more.
    pub(super) fn close(&self) {
        // Keys hold this memory, which holds them.
        drop(std::mem::take(&mut self.keys().resident));
        let gone = self.state().trim();
        self.device.forget_bind_groups(&gone);
    }

    /// `words` words of any content.
    pub(super) fn take(self: &Arc<Self>, words: usize, op: &'static str) -> Result<DeviceWords> {
        let refuse = || BackendError::OutOfMemory { op, bytes: words.saturating_mul(4) };
        let bytes = u64::try_from(words).ok().and_then(|w| w.checked_mul(4)).ok_or_else(refuse)?;
        let size = bytes.max(1).checked_next_multiple_of(GRAIN).ok_or_else(refuse)?;
        let block = self.block(size, op).map_err(|e| match e {
            BackendError::OutOfMemory { .. } => refuse(),
            e => e,
        })?;
        let held = Arc::new(Held { block, key: false, memory: self.clone() });
        Ok(DeviceWords { held, region: Arc::default(), first: 0, words })
    }

    fn block(&self, size: u64, op: &'static str) -> Result<Block> {
        let refused = || BackendError::OutOfMemory { op, bytes: size as usize };
        if size > self.device.limits().buffer || size > self.budget {
            return Err(refused());
        }
        loop {
            {
                let mut state = self.state();
                if let Some(block) = state.reuse(size) {
                    return Ok(block);
                }
                let over = |state: &State| state.bytes + size > self.budget;
                if over(&state) {
                    self.device.forget_bind_groups(&state.trim());
                }
                if !over(&state) {
                    match self.device.create_block(size, op) {
                        Err(BackendError::OutOfMemory { .. }) => {
                            let released = state.trim();
                            if !released.is_empty() {
                                // What was free is given back once the commands that use it are done.
                                drop(state);
                                self.device.forget_bind_groups(&released);
                                self.device.synchronize(op)?;
                                continue;
                            }
                        }
                        other => {
                            state.bytes += size;
                            state.peak = state.peak.max(state.bytes);
                            return other.inspect_err(|_| state.bytes -= size);
                        }
                    }
                }
            }
            if !self.evict() {
                return Err(refused());
            }
        }
    }

    /// Words that have just been uploaded.
    pub(super) fn uploaded(&self, bytes: u64) {
        self.state().uploaded += bytes;
    }

    /// The words of a key on the device: uploaded if they are not there. `words` are those of the key's buffer.
    pub(super) fn key(self: &Arc<Self>, key: &Buffer, words: &[u32], op: &'static str) -> Result<Arc<DeviceWords>> {
        let owner = key.identity();
        let address = Arc::as_ptr(owner) as usize;
        {
            let mut keys = self.keys();
            keys.clock += 1;
            let now = keys.clock;
            if let Some(resident) = keys.resident.get_mut(&address) {
                resident.last_use = now;
                return Ok(resident.words.clone());
            }
            keys.resident.retain(|_, r| r.owner.strong_count() > 0);
        }
        let mut copy = self.take(words.len(), op)?;
        self.device.write(copy.block(), words, op)?;
        {
            let mut state = self.state();
            state.keys_uploaded += words.len() as u64 * 4;
            if let Some(held) = Arc::get_mut(&mut copy.held) {
                held.key = true;
                state.key_bytes += held.block.size();
            }
        }
        let copy = Arc::new(copy);
        let mut keys = self.keys();
        let last_use = keys.clock;
        keys.resident.insert(address, Resident { owner: Arc::downgrade(owner), words: copy.clone(), last_use });
        Ok(copy)
    }

    /// Takes the key that was used least recently off the device; false if there is none that can go.
    fn evict(&self) -> bool {
        let mut keys = self.keys();
        let idle = keys.resident.iter().filter(|(_, r)| Arc::strong_count(&r.words) == 1);
        let Some(address) = idle.min_by_key(|(_, r)| r.last_use).map(|(&address, _)| address) else { return false };
        let gone = keys.resident.remove(&address);
        drop(keys);
        // The block goes to the pool, whose lock must be free.
        drop(gone);
        self.state().evictions += 1;
        true
    }
}

impl State {
    fn put(&mut self, block: Block) {
        self.free_bytes += block.size();
        self.free.entry(block.size()).or_default().push(block);
    }

    /// A free block of this size or a little more.
    fn reuse(&mut self, size: u64) -> Option<Block> {
        let (&found, _) = self.free.range(size..=size + size / 4).next()?;
        self.remove(found)
    }

    fn remove(&mut self, size: u64) -> Option<Block> {
        let blocks = self.free.get_mut(&size)?;
        let block = blocks.pop();
        if blocks.is_empty() {
            self.free.remove(&size);
        }
        self.free_bytes -= block.as_ref().map_or(0, Block::size);
        block
    }

    /// Gives the free buffers back to the driver: which they were.
    fn trim(&mut self) -> HashSet<u64> {
        self.bytes -= std::mem::take(&mut self.free_bytes);
        std::mem::take(&mut self.free).into_values().flatten().map(|block| block.id()).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::backend::cpu::{CpuBackend, Isa};
    use crate::backend::gpu::{GpuBackend, GpuOptions, Limits};
    use crate::backend::{Kernels, Shape};
    use crate::math::RnsTables;
    use crate::math::primes::closest_primes;
    use std::sync::Arc;

    fn dry(memory_limit: Option<u64>) -> GpuBackend {
        let tables = Arc::new(RnsTables::new(10, &closest_primes(29.9, 2, 11, &[]).unwrap()).unwrap());
        GpuBackend::dry(tables, Limits::USUAL, &GpuOptions { memory_limit, ..GpuOptions::default() }).unwrap()
    }

    #[test]
    fn a_backend_that_goes_gives_its_memory_back() {
        let gpu = dry(None);
        let shape = Shape::new(2, 2, 1024);
        let key = CpuBackend::with_isa(gpu.tables().clone(), Isa::SCALAR).alloc(shape).unwrap();
        let held = gpu.memory.key(&key, &vec![0; shape.words()], "test").unwrap();
        drop(held);
        let memory = Arc::downgrade(&gpu.memory);
        drop(gpu);
        assert!(memory.upgrade().is_none(), "its keys hold it");
    }

    #[test]
    fn what_is_free_is_used_again_and_goes_only_for_room() {
        let shape = |polys| Shape::new(polys, 2, 1024);
        let gpu = dry(Some(200 << 10));
        let before = gpu.statistics().allocations;
        for _ in 0..3 {
            // 64 KiB and 32 KiB.
            let both = (gpu.alloc(shape(8)).unwrap(), gpu.alloc(shape(4)).unwrap());
            drop(both);
        }
        assert_eq!(gpu.statistics().allocations - before, 2);
        assert_eq!(gpu.statistics().bytes, 96 << 10);
        // 160 KiB do not fit beside what is free.
        let large = gpu.alloc(shape(20)).unwrap();
        assert_eq!(gpu.statistics().bytes, 160 << 10);
        assert!(gpu.alloc(shape(8)).is_err());
        drop(large);
    }
}

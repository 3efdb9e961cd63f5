//! The GPU backend: kernels in WGSL through wgpu, on Vulkan, Metal and DX12.
//!
//! Residues stay on the device from upload to download. A call records commands and returns; the device runs them in the
//! order they were recorded, and only [`Kernels::download`] waits. Every kernel takes all limbs, polynomials and shards in
//! one dispatch; its numbers (degree, limb ids, constants) are one small buffer, found again by content, so that a call
//! repeated on the same shapes sends nothing but the command itself. A buffer may be larger than what a kernel can bind:
//! kernels then run on ranges of its polynomials. Neighbouring polynomials of a buffer are a view of it, copied when one of both is to
//! change (decision 031).
//!
//! Keys are taken from host memory: a key is uploaded when it is first used, and leaves the device when something else
//! needs its place and it has not been used for longest.
//!
//! A fault of the device (an error that no call caused, a lost device) ends every later call with
//! [`BackendError::Device`]: results after it cannot be trusted.

use super::check::{self, Checks, DigitLayout};
use super::cpu::{CpuBackend, Isa};
use super::{
    Backend, BackendError, Buffer, Combination, HoistedRotations, HornerStep, Kernels, KeyRotation, KeySwitchTables, Place,
    PlainSource, PlainTerm, PolySelect, Result, Rotation, Shape, Statistics, Storage,
};
use crate::math::{BaseConversion, Basis, BasisChange, RnsTables};
use commands::{Start, View};
use device::{Block, Device};
use memory::Memory;
use polys::{Polys, Strip};
use registry::{Kernel, Wide};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

mod adapter;
pub mod arguments;
mod commands;
mod composites;
mod convert;
mod device;
mod elementwise;
mod heap;
mod kernels;
mod key_product;
mod memory;
mod polys;
mod products;
mod profile;
mod rates;
pub mod registry;
mod rotate;
mod self_test;
mod sums;
mod transform;

pub use adapter::{AdapterReport, GpuOptions, Limits, adapters};
pub use memory::DeviceWords;
pub use profile::Timing;
pub use rates::Rates;
pub use self_test::{SelfTest, self_tests};

/// Kernels on a GPU.
#[derive(Debug)]
pub struct GpuBackend {
    tables: Arc<RnsTables>,
    device: Arc<Device>,
    memory: Arc<Memory>,
    /// Keeps the keys.
    host: CpuBackend,
    options: GpuOptions,
    moduli: Block,
    /// By direction: `[limb id][N]` pairs of a twiddle and its Shoup companion.
    twiddles: [Block; 2],
    /// Makes pipelines while other things are done.
    ahead: Option<std::thread::JoinHandle<()>>,
}

impl Drop for GpuBackend {
    fn drop(&mut self) {
        if let Some(ahead) = self.ahead.take() {
            // A panic there would be one here when the same pipeline is asked for.
            let _ = ahead.join();
        }
        self.memory.close();
    }
}

fn word(x: usize) -> u32 {
    // Sizes fit: what a kernel can bind has fewer than 2^32 words.
    x as u32
}

impl GpuBackend {
    /// A backend on the best adapter that the options allow. It is tested before it is given out: products, a transform and
    /// a key switch against the CPU; where the 64-bit form of products fails and was not asked for, the 32-bit one is taken.
    ///
    /// # Errors
    /// [`BackendError::NoAdapter`], [`BackendError::SelfTest`], [`BackendError::Device`], [`BackendError::OutOfMemory`].
    pub fn new(tables: Arc<RnsTables>, options: &GpuOptions) -> Result<Self> {
        let tested = |options: &GpuOptions| self_test::run(Arc::new(Device::open(options)?));
        match tested(options) {
            Ok(device) => Self::on(device, tables, options),
            Err(BackendError::SelfTest { .. }) if options.wide.is_none() => {
                let options = GpuOptions { wide: Some(Wide::U32), ..options.clone() };
                Self::on(tested(&options)?, tables, &options)
            }
            Err(e) => Err(e),
        }
    }

    /// The GPU that a backend is, where it is one.
    pub fn of(backend: &dyn Backend) -> Option<&Self> {
        (backend as &dyn Any).downcast_ref()
    }

    /// A backend without a device: every call has its shape of result and no words, and is counted. What a run on a device
    /// of these limits will dispatch, move and hold is what it counts here.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] where the tables do not fit the limits.
    pub fn dry(tables: Arc<RnsTables>, limits: Limits, options: &GpuOptions) -> Result<Self> {
        Self::on(Arc::new(Device::dry(limits)), tables, options)
    }

    /// On an open device, untested.
    fn on(device: Arc<Device>, tables: Arc<RnsTables>, options: &GpuOptions) -> Result<Self> {
        if let Some(allocations) = &options.fail_allocations {
            device.refuse(allocations);
        }
        let limbs = || Basis::range(0..tables.len());
        let mut moduli = Vec::with_capacity(4 * tables.len());
        for &l in limbs().limbs() {
            let m = tables.modulus(l);
            moduli.extend([m.value(), m.q_inv(), m.r(), m.shoup(m.r())]);
        }
        let moduli = device.resident(&moduli, "moduli")?;
        let twiddles = |inverse: bool| {
            let mut pairs = Vec::with_capacity(2 * tables.len() * tables.degree());
            for &l in limbs().limbs() {
                let (w, ws) = if inverse { tables.ntt(l).inverse() } else { tables.ntt(l).forward() };
                pairs.extend(w.iter().zip(ws).flat_map(|(&w, &ws)| [w, ws]));
            }
            device.resident(&pairs, "twiddles")
        };
        let twiddles = [twiddles(false)?, twiddles(true)?];
        let memory = Arc::new(Memory::new(device.clone(), options.memory_limit));
        let host = CpuBackend::with_isa(tables.clone(), Isa::SCALAR);
        Ok(Self { tables, device, memory, host, options: options.clone(), moduli, twiddles, ahead: None })
    }

    /// Begins to make all pipelines of these primes' degree, on all threads, so that the first run need not wait for one after
    /// the other: a second or more with some drivers.
    pub fn compile_ahead(mut self) -> Self {
        use rayon::prelude::*;
        let (device, log_n) = (self.device.clone(), self.tables.log_n());
        self.ahead = Some(std::thread::spawn(move || {
            let most = device.limits().storage_buffers;
            let others = Kernel::ALL.iter().filter(|k| !transform::KERNELS.contains(k) && k.storage_buffers() <= most);
            let others = others.map(|&k| (k, Vec::new()));
            let all: Vec<_> = transform::variants(log_n).into_iter().chain(others).collect();
            if let Some(live) = &device.live {
                all.into_par_iter().for_each(|(kernel, constants)| {
                    live.pipeline(kernel, live.kernel(kernel, device.wide()), constants);
                });
            }
        }));
        self
    }

    /// A backend for other primes on the same device, with what has been compiled for it. Buffers are not shared, keys are.
    ///
    /// # Errors
    /// [`BackendError::Device`], [`BackendError::OutOfMemory`].
    pub fn for_tables(&self, tables: Arc<RnsTables>) -> Result<Self> {
        Self::on(self.device.clone(), tables, &self.options)
    }

    /// A backend with other options on the same device; those that choose and limit the device stay as they are.
    ///
    /// # Errors
    /// [`BackendError::Device`], [`BackendError::OutOfMemory`].
    pub fn with_options(&self, options: &GpuOptions) -> Result<Self> {
        Self::on(self.device.clone(), self.tables.clone(), options)
    }

    /// The adapter.
    pub fn adapter(&self) -> &AdapterReport {
        self.device.report()
    }
    /// What the device can take.
    pub fn limits(&self) -> Limits {
        self.device.limits()
    }
    /// What it was opened with.
    pub fn options(&self) -> &GpuOptions {
        &self.options
    }
    /// The form of wide products.
    pub fn wide(&self) -> Wide {
        self.device.wide()
    }
    /// Dispatches since the device was opened.
    pub fn dispatches(&self) -> u64 {
        self.device.counters.dispatches.iter().map(|n| n.load(Relaxed)).sum()
    }
    /// The same by kernel, for those that ran.
    pub fn dispatches_by_kernel(&self) -> Vec<(&'static str, u64)> {
        let counts = Kernel::ALL.iter().zip(&self.device.counters.dispatches);
        counts.map(|(kernel, n)| (kernel.row().name, n.load(Relaxed))).filter(|&(_, n)| n > 0).collect()
    }
    /// Bytes that each kernel has read and written ([`Statistics::traffic_bytes`]), for those that ran.
    pub fn traffic_by_kernel(&self) -> Vec<(&'static str, u64)> {
        let words = Kernel::ALL.iter().zip(&self.device.counters.words);
        words.map(|(kernel, n)| (kernel.row().name, 4 * n.load(Relaxed))).filter(|&(_, n)| n > 0).collect()
    }
    /// The most bytes that residues and keys have taken.
    pub fn peak_bytes(&self) -> u64 {
        self.memory.bytes().1
    }
    /// Time by kernel, slowest first; nothing unless [`GpuOptions::profile`] was asked for and the adapter has timestamps.
    ///
    /// # Errors
    /// [`BackendError::Device`].
    pub fn timings(&self) -> Result<Vec<Timing>> {
        self.synchronize()?;
        Ok(self.device.live.as_ref().and_then(|l| l.profile.as_ref()).map_or_else(Vec::new, profile::Profile::timings))
    }
    /// Ends the device, as a driver's reset would; every later call is an error. For tests.
    pub fn destroy(&self) {
        self.device.destroy();
    }

    /// Asks the driver for what it must refuse, as a call with a bug would; every later call is an error. For tests.
    pub fn provoke_validation_error(&self) {
        self.device.provoke_validation_error();
    }

    fn read<'a>(&self, buffer: &'a Buffer, op: &'static str) -> Result<&'a DeviceWords> {
        let words = match buffer.storage() {
            Storage::Device(words) => (&**words as &dyn Any).downcast_ref::<DeviceWords>(),
            Storage::Host(_) => None,
        };
        match words {
            Some(words) if Arc::ptr_eq(words.memory(), &self.memory) => Ok(words),
            _ => Err(BackendError::ForeignBuffer { op, backend: self.name() }),
        }
    }

    /// Whether a buffer's words may change where they are: nobody else sees them, and what is read beside them is in another block, as a
    /// dispatch must have it.
    fn may_change(&self, buffer: &Buffer, beside: Option<&Buffer>, op: &'static str) -> Result<bool> {
        let words = self.read(buffer, op)?;
        let other = beside.map(|b| self.read(b, op)).transpose()?;
        Ok(words.alone() && other.is_none_or(|other| other.block().id() != words.block().id()))
    }

    /// Copies a buffer's words to a block of their own, where they may not change where they are.
    fn own(&self, buffer: &mut Buffer, beside: Option<&Buffer>, op: &'static str) -> Result<()> {
        if self.may_change(buffer, beside, op)? {
            return Ok(());
        }
        let shape = buffer.shape();
        let copy = self.take(shape, op)?;
        let from = self.read(buffer, op)?;
        self.device.copy(from.start(), Start { block: copy.block(), word: 0 }, shape.words());
        *buffer = self.made(shape, copy);
        Ok(())
    }

    fn polys<'a>(&self, buffer: &'a Buffer, op: &'static str) -> Result<Polys<'a>> {
        Ok(Polys::new(self.read(buffer, op)?, buffer.shape()))
    }

    /// A key's words on the device: its own, or a copy of those on the host.
    fn key<'a>(&self, key: &'a Buffer, op: &'static str) -> Result<KeyWords<'a>> {
        match key.storage() {
            Storage::Device(_) => Ok(KeyWords::Here(self.read(key, op)?)),
            Storage::Host(words) => Ok(KeyWords::Copy(self.memory.key(key, words.as_slice(), op)?)),
        }
    }

    fn checks(&self) -> Checks<'_> {
        Checks(&self.tables)
    }

    fn moduli(&self) -> View<'_> {
        View::all(&self.moduli)
    }

    fn take(&self, shape: Shape, op: &'static str) -> Result<DeviceWords> {
        let words = shape.polys.checked_mul(shape.limbs).and_then(|w| w.checked_mul(shape.degree)).unwrap_or(usize::MAX);
        self.memory.take(words, op)
    }

    /// What has been done: memory and uploads by this backend, the rest by all backends on its device.
    fn counted(&self) -> Statistics {
        let (bytes, peak_bytes) = self.memory.bytes();
        let [uploaded_bytes, key_bytes, key_evictions] = self.memory.moved();
        Statistics {
            dispatches: self.dispatches(),
            copies: self.device.counters.copies.load(Relaxed),
            traffic_bytes: 4
                * (self.device.counters.copied.load(Relaxed)
                    + self.device.counters.words.iter().map(|n| n.load(Relaxed)).sum::<u64>()),
            uploaded_bytes,
            key_bytes,
            key_evictions,
            downloaded_bytes: self.device.counters.downloaded.load(Relaxed),
            allocations: self.device.allocations(),
            bytes,
            peak_bytes,
        }
    }

    fn made(&self, shape: Shape, words: DeviceWords) -> Buffer {
        Buffer::from_device(shape, words)
    }
}

/// Where a key is.
enum KeyWords<'a> {
    /// A buffer of this backend.
    Here(&'a DeviceWords),
    /// A copy, held as long as this is.
    Copy(Arc<DeviceWords>),
}

impl KeyWords<'_> {
    fn view(&self) -> View<'_> {
        match self {
            Self::Here(words) => words.view(),
            Self::Copy(words) => words.view(),
        }
    }
}

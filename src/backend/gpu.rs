//! The GPU backend: kernels in WGSL through wgpu, on Vulkan, Metal and DX12.
//!
//! Residues stay on the device from upload to download. A call records commands and returns; the device runs them in the
//! order they were recorded, and only [`Backend::download`] waits. Every kernel takes all limbs, polynomials and shards in
//! one dispatch; its numbers (degree, limb ids, constants) are one small buffer, found again by content, so that a call
//! repeated on the same shapes sends nothing but the command itself.
//!
//! Kernels write other buffers than they read. Where the contract says `_assign`, the new buffer takes the old one's place.
//!
//! A fault of the device (an error that no call caused, a lost device) ends every later call with
//! [`BackendError::Device`]: results after it cannot be trusted.

use super::check::{self, DigitLayout};
use super::cpu::CpuBackend;
use super::{Backend, BackendError, Buffer, GadgetPlan, PlainTerm, PolySelect, Result, Shape, Storage};
use crate::math::{BaseConversion, Basis, BasisChange, RnsTables};
use device::Device;
use memory::Memory;
use registry::{Kernel, Wide};
use std::sync::Arc;

mod convert;
mod device;
mod memory;
pub mod registry;
mod self_test;
mod transform;

pub use device::{AdapterReport, GpuOptions, adapters};
pub use memory::DeviceWords;

/// Where the rows of a kernel's arguments start.
const ROWS: usize = 8;

/// Kernels on a GPU.
#[derive(Debug)]
pub struct GpuBackend {
    tables: Arc<RnsTables>,
    device: Arc<Device>,
    memory: Arc<Memory>,
    /// Checks of arguments are the CPU backend's.
    host: CpuBackend,
    options: GpuOptions,
    moduli: wgpu::Buffer,
    /// By direction: `[limb id][N]` pairs of a twiddle and its Shoup companion.
    twiddles: [wgpu::Buffer; 2],
}

fn word(x: usize) -> u32 {
    // Sizes fit: a buffer that a kernel can bind has fewer than 2^32 bytes.
    x as u32
}

impl GpuBackend {
    /// A backend on the best adapter that the options allow. It is tested before it is given out: products, a transform and
    /// a key switch against the CPU; where the 64-bit form of products fails and was not asked for, the 32-bit one is taken.
    ///
    /// # Errors
    /// [`BackendError::NoAdapter`], [`BackendError::SelfTest`], [`BackendError::Device`], [`BackendError::OutOfMemory`].
    pub fn new(tables: Arc<RnsTables>, options: &GpuOptions) -> Result<Self> {
        let device = Device::open(options)?;
        let wide = device.wide();
        match self_test::run(Arc::new(device)) {
            Ok(device) => Self::on(device, tables, options),
            Err(BackendError::SelfTest { .. }) if wide == Wide::U64 && options.wide.is_none() => {
                let options = GpuOptions { wide: Some(Wide::U32), ..options.clone() };
                Self::on(self_test::run(Arc::new(Device::open(&options)?))?, tables, &options)
            }
            Err(e) => Err(e),
        }
    }

    /// On an open device, untested.
    fn on(device: Arc<Device>, tables: Arc<RnsTables>, options: &GpuOptions) -> Result<Self> {
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
        let host = CpuBackend::with_isa(tables.clone(), super::cpu::Isa::SCALAR);
        Ok(Self { tables, device, memory, host, options: options.clone(), moduli, twiddles })
    }

    /// A backend for other primes on the same device, with what has been compiled for it. Buffers are not shared.
    ///
    /// # Errors
    /// [`BackendError::Device`], [`BackendError::OutOfMemory`].
    pub fn for_tables(&self, tables: Arc<RnsTables>) -> Result<Self> {
        Self::on(self.device.clone(), tables, &self.options)
    }

    /// The adapter.
    pub fn adapter(&self) -> &AdapterReport {
        self.device.report()
    }
    /// The form of wide products.
    pub fn wide(&self) -> Wide {
        self.device.wide()
    }
    /// Dispatches since the backend was made.
    pub fn dispatches(&self) -> u64 {
        self.device.dispatches()
    }
    /// The most bytes that residues have taken.
    pub fn peak_bytes(&self) -> u64 {
        self.memory.peak_bytes()
    }
    /// Ends the device, as a driver's reset would; every later call is an error. For tests.
    pub fn destroy(&self) {
        self.device.destroy();
    }

    fn read<'a>(&self, buffer: &'a Buffer, op: &'static str) -> Result<&'a wgpu::Buffer> {
        match buffer.storage() {
            Storage::Device(words) if Arc::ptr_eq(words.memory(), &self.memory) => Ok(words.buffer()),
            _ => Err(BackendError::ForeignBuffer { op, backend: self.name() }),
        }
    }

    /// Puts new words into a buffer of this backend.
    fn replace(&self, buffer: &mut Buffer, words: DeviceWords) {
        *buffer.storage_mut() = Storage::Device(words);
    }

    fn take(&self, shape: Shape, op: &'static str) -> Result<DeviceWords> {
        let words = shape.polys.checked_mul(shape.limbs).and_then(|w| w.checked_mul(shape.degree)).unwrap_or(usize::MAX);
        self.memory.take(words, op)
    }

    /// Arguments of the element-wise kernels: one constant a limb, a selection.
    fn elementwise_arguments(&self, basis: &Basis, constants: &[u32], select: PolySelect, plains: usize) -> Vec<u32> {
        let mut args = vec![word(self.tables.degree()), word(basis.len())];
        args.extend([select.first, select.stride, select.count, plains].map(word));
        args.resize(ROWS, 0);
        for (i, &l) in basis.limbs().iter().enumerate() {
            let c = constants.get(i).copied().unwrap_or(0);
            args.extend([u32::from(l.0), c, self.tables.modulus(l).shoup(c), 0]);
        }
        args
    }

    /// Runs an element-wise kernel from some inputs to a new buffer; `z` polynomials or shards.
    fn elementwise(&self, kernel: Kernel, args: &[u32], inputs: &[&wgpu::Buffer], shape: Shape, z: usize) -> Result<DeviceWords> {
        let out = self.take(shape, kernel.row().name)?;
        let mut buffers = vec![&self.moduli];
        buffers.extend(inputs);
        buffers.push(out.buffer());
        let tiles = shape.degree.div_ceil(registry::THREADS as usize);
        self.device.dispatch(kernel, args, &buffers, [tiles, shape.limbs, z])?;
        Ok(out)
    }

    fn copy(&self, from: &wgpu::Buffer, from_word: usize, to: &DeviceWords, to_word: usize, words: usize) {
        let [from_at, to_at, size] = [from_word, to_word, words].map(|w| w as u64 * 4);
        if size > 0 {
            self.device.record(|encoder| encoder.copy_buffer_to_buffer(from, from_at, to.buffer(), to_at, size));
        }
    }
}

impl Backend for GpuBackend {
    fn name(&self) -> &'static str {
        match self.device.wide() {
            Wide::U64 => "gpu-u64",
            Wide::U32 => "gpu-u32",
        }
    }
    fn tables(&self) -> &Arc<RnsTables> {
        &self.tables
    }

    fn alloc(&self, shape: Shape) -> Result<Buffer> {
        let words = self.take(shape, "alloc")?;
        self.device.record(|encoder| encoder.clear_buffer(words.buffer(), 0, None));
        Ok(Buffer::from_device(shape, words))
    }

    fn upload(&self, shape: Shape, words: &[u32]) -> Result<Buffer> {
        check::words(shape, words.len(), "upload")?;
        let out = self.take(shape, "upload")?;
        self.device.write(out.buffer(), words, "upload")?;
        Ok(Buffer::from_device(shape, out))
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<u32>> {
        self.device.read(self.read(buffer, "download")?, buffer.shape().words(), "download")
    }

    fn synchronize(&self) -> Result<()> {
        self.device.wait("synchronize")
    }

    fn duplicate(&self, buffer: &Buffer) -> Result<Buffer> {
        self.select(buffer, PolySelect::all(buffer.shape()))
    }

    fn select(&self, src: &Buffer, select: PolySelect) -> Result<Buffer> {
        let words = self.read(src, "select")?;
        check::select(src.shape(), select, "select")?;
        let shape = Shape { polys: select.count, ..src.shape() };
        let out = self.take(shape, "select")?;
        let size = shape.poly_words();
        if select.stride == 1 {
            self.copy(words, select.first * size, &out, 0, shape.words());
        } else {
            (0..select.count).for_each(|i| self.copy(words, (select.first + i * select.stride) * size, &out, i * size, size));
        }
        Ok(Buffer::from_device(shape, out))
    }

    fn concat(&self, parts: &[&Buffer]) -> Result<Buffer> {
        let first = parts.first().map_or(Shape::new(0, 0, self.tables.degree()), |b| b.shape());
        let mut polys = 0;
        for part in parts {
            check::same(Shape { polys: part.shape().polys, ..first }, part.shape(), "concat")?;
            polys += part.shape().polys;
        }
        let shape = Shape { polys, ..first };
        let out = self.take(shape, "concat")?;
        let mut at = 0;
        for part in parts {
            let words = part.shape().words();
            self.copy(self.read(part, "concat")?, 0, &out, at, words);
            at += words;
        }
        Ok(Buffer::from_device(shape, out))
    }

    fn ntt_forward(&self, data: &mut Buffer, basis: &Basis) -> Result<()> {
        self.transform_in_place(data, basis, false, "ntt_forward")
    }
    fn ntt_inverse(&self, data: &mut Buffer, basis: &Basis) -> Result<()> {
        self.transform_in_place(data, basis, true, "ntt_inverse")
    }

    fn add(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.host.check_basis(a.shape(), basis, "add")?;
        check::same(a.shape(), b.shape(), "add")?;
        let args = self.elementwise_arguments(basis, &[], PolySelect::all(a.shape()), b.shape().polys);
        let inputs = [self.read(a, "add")?, self.read(b, "add")?];
        Ok(Buffer::from_device(a.shape(), self.elementwise(Kernel::Add, &args, &inputs, a.shape(), a.shape().polys)?))
    }

    fn add_assign(&self, a: &mut Buffer, b: &Buffer, basis: &Basis) -> Result<()> {
        *a = self.add(a, b, basis)?;
        Ok(())
    }

    fn sub(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.host.check_basis(a.shape(), basis, "sub")?;
        check::same(a.shape(), b.shape(), "sub")?;
        let args = self.elementwise_arguments(basis, &[], PolySelect::all(a.shape()), b.shape().polys);
        let inputs = [self.read(a, "sub")?, self.read(b, "sub")?];
        Ok(Buffer::from_device(a.shape(), self.elementwise(Kernel::Sub, &args, &inputs, a.shape(), a.shape().polys)?))
    }

    fn negate(&self, a: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.host.check_basis(a.shape(), basis, "negate")?;
        let args = self.elementwise_arguments(basis, &[], PolySelect::all(a.shape()), 0);
        let inputs = [self.read(a, "negate")?];
        Ok(Buffer::from_device(a.shape(), self.elementwise(Kernel::Negate, &args, &inputs, a.shape(), a.shape().polys)?))
    }

    fn mul_constant(&self, a: &Buffer, constants: &[u32], basis: &Basis) -> Result<Buffer> {
        let op = "mul_constant";
        self.host.check_basis(a.shape(), basis, op)?;
        self.host.check_constants(constants, basis, op)?;
        let args = self.elementwise_arguments(basis, constants, PolySelect::all(a.shape()), 0);
        let inputs = [self.read(a, op)?];
        Ok(Buffer::from_device(a.shape(), self.elementwise(Kernel::MulConstant, &args, &inputs, a.shape(), a.shape().polys)?))
    }

    fn add_constant_assign(&self, a: &mut Buffer, select: PolySelect, constants: &[u32], basis: &Basis) -> Result<()> {
        let op = "add_constant_assign";
        self.host.check_basis(a.shape(), basis, op)?;
        self.host.check_constants(constants, basis, op)?;
        check::select(a.shape(), select, op)?;
        let args = self.elementwise_arguments(basis, constants, select, 0);
        let out = self.elementwise(Kernel::AddConstant, &args, &[self.read(a, op)?], a.shape(), a.shape().polys)?;
        self.replace(a, out);
        Ok(())
    }

    fn add_plain_assign(&self, a: &mut Buffer, select: PolySelect, plain: &Buffer, basis: &Basis) -> Result<()> {
        let op = "add_plain_assign";
        self.host.check_basis(a.shape(), basis, op)?;
        self.host.check_plain(plain.shape(), basis, select.count, op)?;
        check::select(a.shape(), select, op)?;
        // No plaintext is needed where nothing is selected; the kernel never divides by their number then.
        let args = self.elementwise_arguments(basis, &[], select, plain.shape().polys.max(1));
        let inputs = [self.read(a, op)?, self.read(plain, op)?];
        let out = self.elementwise(Kernel::Add, &args, &inputs, a.shape(), a.shape().polys)?;
        self.replace(a, out);
        Ok(())
    }

    fn mul_plain(&self, a: &Buffer, plain: &Buffer, basis: &Basis) -> Result<Buffer> {
        let op = "mul_plain";
        self.host.check_basis(a.shape(), basis, op)?;
        check::even(a.shape(), op)?;
        self.host.check_plain(plain.shape(), basis, a.shape().polys, op)?;
        let args = self.elementwise_arguments(basis, &[], PolySelect::all(a.shape()), plain.shape().polys);
        let inputs = [self.read(a, op)?, self.read(plain, op)?];
        Ok(Buffer::from_device(a.shape(), self.elementwise(Kernel::MulPlain, &args, &inputs, a.shape(), a.shape().polys)?))
    }

    fn tensor(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer> {
        let op = "tensor";
        self.host.check_basis(a.shape(), basis, op)?;
        check::same(a.shape(), b.shape(), op)?;
        check::even(a.shape(), op)?;
        let shards = a.shape().polys / 2;
        let shape = Shape { polys: shards * 3, ..a.shape() };
        let args = self.elementwise_arguments(basis, &[], PolySelect::all(a.shape()), 0);
        let inputs = [self.read(a, op)?, self.read(b, op)?];
        Ok(Buffer::from_device(shape, self.elementwise(Kernel::Tensor, &args, &inputs, shape, shards)?))
    }

    fn plain_inner_product(&self, ct: &Buffer, plain: &Buffer, terms: &[Vec<PlainTerm>], basis: &Basis) -> Result<Buffer> {
        let op = "plain_inner_product";
        self.host.check_basis(ct.shape(), basis, op)?;
        check::even(ct.shape(), op)?;
        self.host.check_basis(plain.shape(), basis, op)?;
        check::terms(terms, ct.shape().polys / 2, plain.shape().polys, op)?;
        let (n, shape) = (self.tables.degree(), Shape { polys: terms.len() * 2, ..ct.shape() });
        let mut args = vec![word(n), word(basis.len()), word(terms.len())];
        args.resize(ROWS, 0);
        args.extend(basis.limbs().iter().map(|l| u32::from(l.0)));
        let mut first = 0;
        for terms in terms {
            args.extend([word(first), word(terms.len())]);
            first += terms.len();
        }
        args.extend(terms.iter().flatten().flat_map(|t| [word(t.plain), word(t.source)]));
        let (x, y) = (self.read(ct, op)?, self.read(plain, op)?);
        let out = self.take(shape, op)?;
        let grid = [terms.len(), n.div_ceil(registry::THREADS as usize), basis.len()];
        self.device.dispatch(Kernel::PlainInnerProduct, &args, &[&self.moduli, x, y, out.buffer()], grid)?;
        Ok(Buffer::from_device(shape, out))
    }

    fn automorphism(&self, src: &Buffer, galois: u32, basis: &Basis) -> Result<Buffer> {
        let op = "automorphism";
        self.host.check_basis(src.shape(), basis, op)?;
        let (n, shape) = (self.tables.degree(), src.shape());
        if galois.is_multiple_of(2) || galois as usize >= 2 * n {
            return Err(BackendError::Galois { galois, degree: n });
        }
        let limbs: Vec<_> = (0..shape.limbs).map(|l| [l, l]).collect();
        let from = self.read(src, op)?;
        let out = self.take(shape, op)?;
        let place = (PolySelect::all(shape), shape.poly_words());
        self.permute((from, place), (&out, shape.poly_words()), galois, &limbs)?;
        Ok(Buffer::from_device(shape, out))
    }

    fn base_convert(&self, src: &Buffer, conversion: &BaseConversion) -> Result<Buffer> {
        let op = "base_convert";
        self.host.check_basis(src.shape(), &conversion.from, op)?;
        self.host.check_conversion(conversion, op)?;
        let shape = src.shape();
        let args = self.elementwise_arguments(&conversion.from, &conversion.inv_hat, PolySelect::all(shape), 0);
        let scaled = self.elementwise(Kernel::MulConstant, &args, &[self.read(src, op)?], shape, shape.polys)?;
        let out_shape = Shape { limbs: conversion.to.len(), ..shape };
        let out = self.take(out_shape, op)?;
        let targets: Vec<_> = (0..conversion.to.len()).collect();
        let job = convert::Job { conversion, first: 0, targets: &targets };
        self.convert(&[job], (scaled.buffer(), shape.poly_words()), (&out, out_shape.poly_words()), shape.polys)?;
        Ok(Buffer::from_device(out_shape, out))
    }

    fn mod_up(&self, src: &Buffer, select: PolySelect, plan: &GadgetPlan) -> Result<Buffer> {
        let op = "mod_up";
        self.host.check_basis(src.shape(), &plan.window, op)?;
        check::select(src.shape(), select, op)?;
        let layout: DigitLayout = self.host.check_plan(plan, op)?;
        self.mod_up_words(self.read(src, op)?, select, plan, &layout)
    }

    fn key_inner_product(&self, digits: &Buffer, key: &Buffer, plan: &GadgetPlan) -> Result<Buffer> {
        let op = "key_inner_product";
        self.host.check_basis(digits.shape(), &plan.extended, op)?;
        let shards = self.host.check_key(digits.shape(), key.shape(), plan, op)?;
        let n = self.tables.degree();
        let shape = Shape { polys: 2 * shards, ..digits.shape() };
        let mut args = vec![word(n), word(plan.extended.len()), word(key.shape().limbs), word(plan.digits.len())];
        args.resize(ROWS, 0);
        args.extend(plan.extended.limbs().iter().zip(&plan.key_limbs).flat_map(|(l, &k)| [u32::from(l.0), word(k)]));
        args.extend(plan.key_digits.iter().map(|&k| word(k)));
        let (x, y) = (self.read(digits, op)?, self.read(key, op)?);
        let out = self.take(shape, op)?;
        let grid = [shards, n.div_ceil(registry::THREADS as usize), plan.extended.len()];
        self.device.dispatch(Kernel::KeyInnerProduct, &args, &[&self.moduli, x, y, out.buffer()], grid)?;
        Ok(Buffer::from_device(shape, out))
    }

    fn change_basis(&self, src: &Buffer, change: &BasisChange) -> Result<Buffer> {
        let op = "change_basis";
        self.host.check_basis(src.shape(), &change.source, op)?;
        let positions = self.host.check_change(change, op)?;
        self.change_basis_words(self.read(src, op)?, src.shape(), change, &positions)
    }

    fn key_switch(&self, src: &Buffer, select: PolySelect, key: &Buffer, plan: &GadgetPlan) -> Result<Buffer> {
        check::select(src.shape(), select, "key_switch")?;
        let switch = |select| {
            let digits = self.mod_up(src, select, plan)?;
            let extended = self.key_inner_product(&digits, key, plan)?;
            self.change_basis(&extended, &plan.mod_down)
        };
        // As many polynomials at once as have digits that a kernel can bind.
        let size = Shape::new(plan.digits.len(), plan.extended.len(), self.tables.degree()).bytes();
        let batch = usize::try_from(self.device.largest_binding()).unwrap_or(usize::MAX) / size.max(1);
        let batch = batch.max(1);
        if select.count <= batch {
            return switch(select);
        }
        let part = |at: usize| {
            let first = select.first + at * select.stride;
            switch(PolySelect { first, stride: select.stride, count: batch.min(select.count - at) })
        };
        let parts = (0..select.count).step_by(batch).map(part).collect::<Result<Vec<_>>>()?;
        self.concat(&parts.iter().collect::<Vec<_>>())
    }
}

//! The kernels of the contract, call by call: checks, then the code of the other files.

use super::elementwise::Addend;
use super::*;

impl Kernels for GpuBackend {
    fn name(&self) -> &'static str {
        match self.device.wide() {
            Wide::U64 => "gpu-u64",
            Wide::U32 => "gpu-u32",
        }
    }
    fn tables(&self) -> &Arc<RnsTables> {
        &self.tables
    }

    fn place(&self) -> Place {
        if self.device.live.is_some() { Place::Device } else { Place::Nowhere }
    }
    fn memory_limit(&self) -> Option<u64> {
        self.memory.limit()
    }
    fn device_bytes(&self) -> Option<u64> {
        self.memory.budget()
    }
    fn statistics(&self) -> Statistics {
        self.counted()
    }

    fn alloc(&self, shape: Shape) -> Result<Buffer> {
        let words = self.take(shape, "alloc")?;
        self.device.clear(words.block());
        Ok(self.made(shape, words))
    }

    /// In host memory, whence it is uploaded when it is used.
    fn alloc_key(&self, shape: Shape) -> Result<Buffer> {
        self.host.alloc(shape)
    }

    fn upload(&self, shape: Shape, words: &[u32]) -> Result<Buffer> {
        check::words(shape, words.len(), "upload")?;
        let out = self.take(shape, "upload")?;
        self.device.write(out.block(), words, "upload")?;
        self.memory.uploaded(4 * words.len() as u64);
        Ok(self.made(shape, out))
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<u32>> {
        if let Storage::Host(_) = buffer.storage() {
            return self.host.download(buffer);
        }
        let words = self.read(buffer, "download")?;
        self.device.read(words.start(), buffer.shape().words(), "download")
    }

    fn synchronize(&self) -> Result<()> {
        self.device.synchronize("synchronize")
    }

    /// The same words, which are copied when one of both is to change.
    fn duplicate(&self, buffer: &Buffer) -> Result<Buffer> {
        self.select(buffer, PolySelect::all(buffer.shape()))
    }

    /// Neighbouring polynomials are the source's words, which are copied when one of both is to change.
    fn select(&self, src: &Buffer, select: PolySelect) -> Result<Buffer> {
        let op = "select";
        if let Storage::Host(_) = src.storage() {
            return self.host.select(src, select);
        }
        check::select(src.shape(), select, op)?;
        let from = self.polys(src, op)?;
        let shape = Shape { polys: select.count, ..src.shape() };
        let neighbours = select.stride == 1 || select.count == 1;
        if neighbours && let Some(part) = self.read(src, op)?.part(select.first * from.size, shape.words()) {
            return Ok(self.made(shape, part));
        }
        let out = self.take(shape, op)?;
        if neighbours {
            self.device.copy(from.start(select.first), Start { block: out.block(), word: 0 }, shape.words());
            return Ok(self.made(shape, out));
        }
        let to = Polys::new(&out, shape);
        let limbs: Vec<_> = (0..shape.limbs).map(|l| [l, l]).collect();
        for range in self.batches(select.count, &[from.size * select.stride.max(1), to.size], 1, op)? {
            let window = to.window(range.start, range.len());
            self.permute(
                from.select(polys::part(select, &range)),
                Strip { view: window.view, size: to.size },
                1,
                &limbs,
                range.len(),
            )?;
        }
        Ok(self.made(shape, out))
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
            let from = self.read(part, "concat")?;
            self.device.copy(from.start(), Start { block: out.block(), word: at }, words);
            at += words;
        }
        Ok(self.made(shape, out))
    }

    fn ntt_forward(&self, data: &mut Buffer, basis: &Basis) -> Result<()> {
        self.checks().basis(data.shape(), basis, "ntt_forward")?;
        self.own(data, None, "ntt_forward")?;
        self.transform_in_place(data, basis, false, "ntt_forward")
    }
    fn ntt_inverse(&self, data: &mut Buffer, basis: &Basis) -> Result<()> {
        self.checks().basis(data.shape(), basis, "ntt_inverse")?;
        self.own(data, None, "ntt_inverse")?;
        self.transform_in_place(data, basis, true, "ntt_inverse")
    }

    fn add(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.checks().basis(a.shape(), basis, "add")?;
        check::same(a.shape(), b.shape(), "add")?;
        self.map(Kernel::Add, &[a, b], &[], basis)
    }
    fn add_assign(&self, a: &mut Buffer, b: &Buffer, basis: &Basis) -> Result<()> {
        let op = "add_assign";
        self.checks().basis(a.shape(), basis, op)?;
        check::same(a.shape(), b.shape(), op)?;
        self.read(b, op)?;
        if !self.may_change(a, Some(b), op)? {
            *a = self.map(Kernel::Add, &[a, b], &[], basis)?;
            return Ok(());
        }
        self.add_in_place(a, PolySelect::all(a.shape()), Addend::Plain(b), basis, op)
    }
    fn sub(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.checks().basis(a.shape(), basis, "sub")?;
        check::same(a.shape(), b.shape(), "sub")?;
        self.map(Kernel::Sub, &[a, b], &[], basis)
    }
    fn negate(&self, a: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.checks().basis(a.shape(), basis, "negate")?;
        self.map(Kernel::Negate, &[a], &[], basis)
    }
    fn mul_constant(&self, a: &Buffer, constants: &[u32], basis: &Basis) -> Result<Buffer> {
        self.checks().basis(a.shape(), basis, "mul_constant")?;
        self.checks().constants(constants, basis, "mul_constant")?;
        self.map(Kernel::MulConstant, &[a], constants, basis)
    }
    fn add_constant_assign(&self, a: &mut Buffer, select: PolySelect, constants: &[u32], basis: &Basis) -> Result<()> {
        let op = "add_constant_assign";
        self.checks().basis(a.shape(), basis, op)?;
        self.checks().constants(constants, basis, op)?;
        check::select(a.shape(), select, op)?;
        self.own(a, None, op)?;
        self.add_in_place(a, select, Addend::Constants(constants), basis, op)
    }
    fn add_plain_assign(&self, a: &mut Buffer, select: PolySelect, plain: &Buffer, basis: &Basis) -> Result<()> {
        let op = "add_plain_assign";
        self.checks().basis(a.shape(), basis, op)?;
        self.checks().plain(plain.shape(), basis, select.count, op)?;
        check::select(a.shape(), select, op)?;
        self.own(a, Some(plain), op)?;
        self.add_in_place(a, select, Addend::Plain(plain), basis, op)
    }
    fn mul_plain(&self, a: &Buffer, plain: &Buffer, basis: &Basis) -> Result<Buffer> {
        let op = "mul_plain";
        self.checks().basis(a.shape(), basis, op)?;
        check::even(a.shape(), op)?;
        self.checks().plain(plain.shape(), basis, a.shape().polys, op)?;
        self.multiply_plain(a, plain, basis, op)
    }
    fn tensor(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer> {
        let op = "tensor";
        self.checks().basis(a.shape(), basis, op)?;
        check::same(a.shape(), b.shape(), op)?;
        check::even(a.shape(), op)?;
        self.tensor_sum(&[(a, b)], basis)
    }

    fn plain_inner_product(&self, ct: &Buffer, plain: &Buffer, terms: &[Vec<PlainTerm>], basis: &Basis) -> Result<Buffer> {
        let op = "plain_inner_product";
        self.checks().basis(ct.shape(), basis, op)?;
        check::even(ct.shape(), op)?;
        self.checks().factors(plain.shape(), basis, op)?;
        check::terms(terms, ct.shape().polys / 2, plain.shape().polys, op)?;
        let shape = Shape { polys: terms.len() * 2, ..ct.shape() };
        let (x, y) = (self.polys(ct, op)?, self.polys(plain, op)?);
        let out = self.take(shape, op)?;
        self.plain_product(x, y, terms, basis, (&out, false))?;
        Ok(self.made(shape, out))
    }

    fn automorphism(&self, src: &Buffer, galois: u32, basis: &Basis) -> Result<Buffer> {
        let op = "automorphism";
        let shape = src.shape();
        self.checks().basis(shape, basis, op)?;
        self.checks().galois(galois)?;
        let limbs: Vec<_> = (0..shape.limbs).map(|l| [l, l]).collect();
        let from = self.polys(src, op)?;
        let out = self.take(shape, op)?;
        let to = Polys::new(&out, shape);
        for range in self.batches(shape.polys, &[to.size], 1, op)? {
            let window = to.window(range.start, range.len());
            self.permute(
                from.window(range.start, range.len()),
                Strip { view: window.view, size: to.size },
                galois,
                &limbs,
                range.len(),
            )?;
        }
        Ok(self.made(shape, out))
    }

    fn base_convert(&self, src: &Buffer, conversion: &BaseConversion) -> Result<Buffer> {
        let op = "base_convert";
        let shape = src.shape();
        self.checks().basis(shape, &conversion.from, op)?;
        self.checks().conversion(conversion, op)?;
        let scaled = self.map(Kernel::MulConstant, &[src], &conversion.inv_hat, &conversion.from)?;
        let scaled = self.polys(&scaled, op)?;
        let out_shape = Shape { limbs: conversion.to.len(), ..shape };
        let out = self.take(out_shape, op)?;
        let to = Polys::new(&out, out_shape);
        let targets: Vec<_> = (0..conversion.to.len()).collect();
        let job = convert::Job { conversion, first: 0, targets: &targets, differences: &[] };
        for range in self.batches(shape.polys, &[scaled.size, to.size], 1, op)? {
            let [from, to] = [scaled, to].map(|p| Strip { view: p.window(range.start, range.len()).view, size: p.size });
            self.convert(&[job], from, to, range.len())?;
        }
        Ok(self.made(out_shape, out))
    }

    fn mod_up(&self, src: &Buffer, select: PolySelect, plan: &KeySwitchTables) -> Result<Buffer> {
        let op = "mod_up";
        self.checks().basis(src.shape(), &plan.window, op)?;
        check::select(src.shape(), select, op)?;
        let layout: DigitLayout = self.checks().plan(plan, op)?;
        self.mod_up_words(self.polys(src, op)?, select, plan, &layout)
    }

    fn key_inner_product(&self, digits: &Buffer, key: &Buffer, plan: &KeySwitchTables) -> Result<Buffer> {
        let op = "key_inner_product";
        self.checks().basis(digits.shape(), &plan.extended, op)?;
        let shards = self.checks().key(digits.shape(), key.shape(), plan, op)?;
        let shape = Shape { polys: 2 * shards, ..digits.shape() };
        self.products(self.polys(digits, op)?, KeyRotation { galois: 1, key }, None, plan, shape, op)
    }

    fn change_basis(&self, src: &Buffer, change: &BasisChange) -> Result<Buffer> {
        let op = "change_basis";
        self.checks().basis(src.shape(), &change.source, op)?;
        let positions = self.checks().change(change, op)?;
        self.change_basis_words(self.polys(src, op)?, src.shape().limbs, change, &positions, &[])
    }
}

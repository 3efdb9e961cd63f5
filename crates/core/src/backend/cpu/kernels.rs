//! The kernels of the contract, call by call: checks, then the code of the other files.

use super::*;

impl Kernels for CpuBackend {
    fn name(&self) -> &'static str {
        self.isa.backend_name()
    }
    fn tables(&self) -> &Arc<RnsTables> {
        &self.tables
    }

    fn alloc(&self, shape: Shape) -> Result<Buffer> {
        Ok(Buffer::from_host(shape, self.pool.take_zeroed(check::room(shape, "alloc")?)))
    }

    fn upload(&self, shape: Shape, words: &[u32]) -> Result<Buffer> {
        check::words(shape, words.len(), "upload")?;
        let mut out = self.pool.take(shape.words());
        parallel::copy(out.as_mut_slice(), words);
        Ok(Buffer::from_host(shape, out))
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<u32>> {
        Ok(self.read(buffer, "download")?.to_vec())
    }

    fn duplicate(&self, buffer: &Buffer) -> Result<Buffer> {
        let words = self.read(buffer, "duplicate")?;
        self.upload(buffer.shape(), words)
    }

    fn select(&self, src: &Buffer, select: PolySelect) -> Result<Buffer> {
        let words = self.read(src, "select")?;
        check::select(src.shape(), select, "select")?;
        let shape = Shape { polys: select.count, ..src.shape() };
        let mut out = self.pool.take(shape.words());
        let size = shape.poly_words();
        for (i, poly) in out.as_mut_slice().chunks_exact_mut(size.max(1)).enumerate() {
            parallel::copy(poly, &words[(select.first + i * select.stride) * size..][..size]);
        }
        Ok(Buffer::from_host(shape, out))
    }

    fn concat(&self, parts: &[&Buffer]) -> Result<Buffer> {
        let first = parts.first().map_or(Shape::new(0, 0, self.tables.degree()), |b| b.shape());
        let mut polys = 0;
        for part in parts {
            check::same(Shape { polys: part.shape().polys, ..first }, part.shape(), "concat")?;
            polys += part.shape().polys;
        }
        let shape = Shape { polys, ..first };
        let mut out = self.pool.take(shape.words());
        let mut rest = out.as_mut_slice();
        for part in parts {
            let words = self.read(part, "concat")?;
            let (head, tail) = rest.split_at_mut(words.len());
            parallel::copy(head, words);
            rest = tail;
        }
        Ok(Buffer::from_host(shape, out))
    }

    fn ntt_forward(&self, data: &mut Buffer, basis: &Basis) -> Result<()> {
        self.checks().basis(data.shape(), basis, "ntt_forward")?;
        let words = self.write(data, "ntt_forward")?;
        self.each_limb(words, basis, 8, |_, limb, _, l| {
            // SAFETY: a whole limb, its task's own; `ntt_isa` suits the degree.
            unsafe { ntt::forward(self.ntt_isa, limb, limb, self.tables.ntt(basis.limbs()[l])) }
        });
        Ok(())
    }

    fn ntt_inverse(&self, data: &mut Buffer, basis: &Basis) -> Result<()> {
        self.checks().basis(data.shape(), basis, "ntt_inverse")?;
        let words = self.write(data, "ntt_inverse")?;
        self.each_limb(words, basis, 8, |_, limb, _, l| {
            // SAFETY: a whole limb, its task's own; `ntt_isa` suits the degree.
            unsafe { ntt::inverse(self.ntt_isa, limb, limb, self.tables.ntt(basis.limbs()[l]), 1) }
        });
        Ok(())
    }

    fn add(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer> {
        let (x, y) = self.two(a, b, basis, "add")?;
        let n = self.tables.degree();
        Ok(self.build(a.shape(), basis, |m, out, p, l| {
            // SAFETY: whole limbs.
            unsafe { elementwise::add(self.isa, out, x(p, l).as_ptr(), y(p, l).as_ptr(), n, m) }
        }))
    }

    fn add_assign(&self, a: &mut Buffer, b: &Buffer, basis: &Basis) -> Result<()> {
        check::same(a.shape(), b.shape(), "add_assign")?;
        self.add_plain_assign(a, PolySelect::all(b.shape()), b, basis)
    }

    fn sub(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer> {
        let (x, y) = self.two(a, b, basis, "sub")?;
        let n = self.tables.degree();
        Ok(self.build(a.shape(), basis, |m, out, p, l| {
            // SAFETY: whole limbs.
            unsafe { elementwise::sub(self.isa, out, x(p, l).as_ptr(), y(p, l).as_ptr(), n, m) }
        }))
    }

    fn negate(&self, a: &Buffer, basis: &Basis) -> Result<Buffer> {
        let (x, _) = self.two(a, a, basis, "negate")?;
        let n = self.tables.degree();
        Ok(self.build(a.shape(), basis, |m, out, p, l| {
            // SAFETY: whole limbs.
            unsafe { elementwise::negate(self.isa, out, x(p, l).as_ptr(), n, m) }
        }))
    }

    fn mul_constant(&self, a: &Buffer, constants: &[u32], basis: &Basis) -> Result<Buffer> {
        let (x, _) = self.two(a, a, basis, "mul_constant")?;
        self.checks().constants(constants, basis, "mul_constant")?;
        let n = self.tables.degree();
        Ok(self.build(a.shape(), basis, |m, out, p, l| {
            // SAFETY: whole limbs.
            unsafe { elementwise::mul_constant(self.isa, out, x(p, l).as_ptr(), constants[l], n, m) }
        }))
    }

    fn add_constant_assign(&self, a: &mut Buffer, select: PolySelect, constants: &[u32], basis: &Basis) -> Result<()> {
        let op = "add_constant_assign";
        self.checks().basis(a.shape(), basis, op)?;
        self.checks().constants(constants, basis, op)?;
        check::select(a.shape(), select, op)?;
        let words = self.write(a, op)?;
        let n = self.tables.degree();
        self.each_limb(words, basis, 1, |m, limb, p, l| {
            if check::selected(select, p).is_some() {
                // SAFETY: a whole limb, in place.
                unsafe { elementwise::add_constant(self.isa, limb, limb, constants[l], n, m) }
            }
        });
        Ok(())
    }

    fn add_plain_assign(&self, a: &mut Buffer, select: PolySelect, plain: &Buffer, basis: &Basis) -> Result<()> {
        let op = "add_plain_assign";
        self.checks().basis(a.shape(), basis, op)?;
        self.checks().plain(plain.shape(), basis, select.count, op)?;
        check::select(a.shape(), select, op)?;
        let y = self.limbs(self.read(plain, op)?, basis.len());
        let words = self.write(a, op)?;
        let n = self.tables.degree();
        let polys = plain.shape().polys;
        self.each_limb(words, basis, 1, |m, limb, p, l| {
            if let Some(i) = check::selected(select, p) {
                // SAFETY: whole limbs, the first in place.
                unsafe { elementwise::add(self.isa, limb, limb, y(i % polys, l).as_ptr(), n, m) }
            }
        });
        Ok(())
    }

    fn mul_plain(&self, a: &Buffer, plain: &Buffer, basis: &Basis) -> Result<Buffer> {
        let op = "mul_plain";
        self.checks().basis(a.shape(), basis, op)?;
        check::even(a.shape(), op)?;
        self.checks().plain(plain.shape(), basis, a.shape().polys, op)?;
        let (x, y) = (self.limbs(self.read(a, op)?, basis.len()), self.limbs(self.read(plain, op)?, basis.len()));
        let n = self.tables.degree();
        let polys = plain.shape().polys;
        Ok(self.build(a.shape(), basis, |m, out, p, l| {
            // SAFETY: whole limbs.
            unsafe { elementwise::mul_plain(self.isa, out, x(p, l).as_ptr(), y(p / 2 % polys, l).as_ptr(), n, m) }
        }))
    }

    fn tensor(&self, a: &Buffer, b: &Buffer, basis: &Basis) -> Result<Buffer> {
        self.tensors(&[(a, b)], basis, "tensor")
    }

    fn plain_inner_product(&self, ct: &Buffer, plain: &Buffer, terms: &[Vec<PlainTerm>], basis: &Basis) -> Result<Buffer> {
        let op = "plain_inner_product";
        let shape = self.checks().inner_product(ct.shape(), plain.shape().polys, terms, basis, op)?;
        self.checks().factors(plain.shape(), basis, op)?;
        let (x, y) = (self.limbs(self.read(ct, op)?, basis.len()), self.read(plain, op)?);
        let words = self.plain_inner_product_words(x, ct.shape().polys, (y, plain.shape().degree), terms, basis);
        Ok(Buffer::from_host(shape, words))
    }

    fn automorphism(&self, src: &Buffer, galois: u32, basis: &Basis) -> Result<Buffer> {
        self.checks().basis(src.shape(), basis, "automorphism")?;
        self.checks().galois(galois)?;
        let x = self.limbs(self.read(src, "automorphism")?, basis.len());
        let permutation = automorphism::Permutation::new(galois, self.tables.log_n(), self.isa.log_width());
        Ok(self.build(src.shape(), basis, |_, out, p, l| {
            // SAFETY: whole limbs, apart; the permutation is for this width.
            unsafe { automorphism::permute(self.isa, out, x(p, l).as_ptr(), &permutation) }
        }))
    }

    fn base_convert(&self, src: &Buffer, conversion: &BaseConversion) -> Result<Buffer> {
        self.checks().basis(src.shape(), &conversion.from, "base_convert")?;
        self.checks().conversion(conversion, "base_convert")?;
        let (from, to) = (conversion.from.len(), conversion.to.len());
        let x = self.limbs(self.read(src, "base_convert")?, from);
        let (n, polys) = (self.tables.degree(), src.shape().polys);
        let stride = padded(n);
        let mut y = self.pool.take(polys * from * stride);
        let mut u = self.pool.take(polys * n);
        let (y, u) = (Shared::new(y.as_mut_slice()), Shared::new(u.as_mut_slice()));
        parallel::each(polys * from, polys * from * n, |i| {
            let (p, l) = (i / from, i % from);
            let (c, m) = (conversion.inv_hat[l], self.modulus(&conversion.from, l));
            // SAFETY: whole limbs, the output this task's own.
            unsafe { elementwise::mul_constant(self.isa, y.piece(i * stride, n), x(p, l).as_ptr(), c, n, m) };
        });
        let sources: Vec<_> =
            (0..polys).map(|p| Source { conversion, y: (y, p * from * stride), stride, u: (u, p * n) }).collect();
        self.quotients(&sources);
        let shape = Shape { limbs: to, ..src.shape() };
        let mut words = self.pool.take(shape.words());
        let out = Shared::new(words.as_mut_slice());
        let jobs: Vec<_> = sources
            .iter()
            .enumerate()
            .map(|(p, source)| Job {
                source,
                packed: Packed::new(&self.tables, conversion, 0..to),
                out: (0..to).map(|j| (out, (p * to + j) * n)).collect(),
            })
            .collect();
        self.convert(&jobs);
        self.each_limb(words.as_mut_slice(), &conversion.to, 1, |m, limb, _, _| {
            // SAFETY: a whole limb, in place.
            unsafe { elementwise::reduce(self.isa, limb, limb, n, m) }
        });
        Ok(Buffer::from_host(shape, words))
    }

    fn mod_up(&self, src: &Buffer, select: PolySelect, plan: &KeySwitchTables) -> Result<Buffer> {
        let op = "mod_up";
        let x = self.read(src, op)?;
        self.checks().basis(src.shape(), &plan.window, op)?;
        check::select(src.shape(), select, op)?;
        let layout = self.checks().plan(plan, op)?;
        let work = select.count * plan.window.len() * self.tables.degree() * 16;
        let (shape, words) = parallel::region(work, || self.mod_up_words(Selected { words: x, select }, plan, &layout));
        Ok(Buffer::from_host(shape, words))
    }

    fn key_inner_product(&self, digits: &Buffer, key: &Buffer, plan: &KeySwitchTables) -> Result<Buffer> {
        let op = "key_inner_product";
        self.checks().basis(digits.shape(), &plan.extended, op)?;
        let count = plan.digits.len();
        let shards = self.checks().key(digits.shape(), key.shape(), plan, op)?;
        let (n, limbs) = (self.tables.degree(), plan.extended.len());
        let (x, y) = (self.limbs(self.read(digits, op)?, limbs), self.limbs(self.read(key, op)?, key.shape().limbs));
        let shape = Shape { polys: 2 * shards, ..digits.shape() };
        let mut words = self.pool.take(shape.words());
        let out = Shared::new(words.as_mut_slice());
        let tile = n.min(inner_product::TILE);
        let tiles = n / tile;
        parallel::each(limbs * tiles, shape.words() * count, |i| {
            let (l, at) = (i / tiles, i % tiles * tile);
            let mut list = Vec::with_capacity(count);
            for s in 0..shards {
                list.clear();
                list.extend((0..count).map(|k| {
                    let key = |half| y(plan.key_digits[k] * 2 + half, plan.key_limbs[l])[at..].as_ptr();
                    Term { x: x(s * count + k, l)[at..].as_ptr(), pair: [key(0), key(1)] }
                }));
                let to = [0, 1].map(|h| out.piece(((2 * s + h) * limbs + l) * n + at, tile));
                // SAFETY: a tile of each limb, the outputs this task's own.
                unsafe { inner_product::key_inner_product(self.isa, to, &list, tile, self.modulus(&plan.extended, l)) };
            }
        });
        Ok(Buffer::from_host(shape, words))
    }

    fn change_basis(&self, src: &Buffer, change: &BasisChange) -> Result<Buffer> {
        let op = "change_basis";
        let x = self.read(src, op)?;
        self.checks().basis(src.shape(), &change.source, op)?;
        let positions = self.checks().change(change, op)?;
        let (shape, words) = parallel::region(src.shape().words() * 8, || {
            self.change_basis_words(Selected { words: x, select: PolySelect::all(src.shape()) }, change, &positions)
        });
        Ok(Buffer::from_host(shape, words))
    }
}

impl CpuBackend {
    pub(super) fn tensors(&self, pairs: &[(&Buffer, &Buffer)], basis: &Basis, op: &'static str) -> Result<Buffer> {
        let from = check::pairs(pairs, op)?;
        let operands = pairs.iter().map(|(a, b)| self.two(a, b, basis, op)).collect::<Result<Vec<_>>>()?;
        let (n, limbs, shards) = (self.tables.degree(), basis.len(), from.polys / 2);
        let shape = Shape { polys: shards * 3, ..from };
        let mut words = self.pool.take(shape.words());
        let out = Shared::new(words.as_mut_slice());
        parallel::each(shards * limbs, shape.words() * pairs.len(), |i| {
            let (s, l) = (i / limbs, i % limbs);
            let to = [0, 1, 2].map(|part| out.piece(((3 * s + part) * limbs + l) * n, n));
            let halves = [2 * s, 2 * s + 1];
            let pairs: Vec<elementwise::Pair> =
                operands.iter().map(|(x, y)| [halves.map(|p| x(p, l).as_ptr()), halves.map(|p| y(p, l).as_ptr())]).collect();
            // SAFETY: whole limbs, the outputs this task's own.
            unsafe { elementwise::tensor(self.isa, to, &pairs, n, self.modulus(basis, l)) };
        });
        Ok(Buffer::from_host(shape, words))
    }

    /// The limbs of two equal shapes over a basis.
    #[allow(clippy::type_complexity, reason = "closures have no shorter name")]
    fn two<'a>(
        &self,
        a: &'a Buffer,
        b: &'a Buffer,
        basis: &Basis,
        op: &'static str,
    ) -> Result<(impl Fn(usize, usize) -> &'a [u32] + Copy + use<'a>, impl Fn(usize, usize) -> &'a [u32] + Copy + use<'a>)> {
        self.checks().basis(a.shape(), basis, op)?;
        check::same(a.shape(), b.shape(), op)?;
        Ok((self.limbs(self.read(a, op)?, basis.len()), self.limbs(self.read(b, op)?, basis.len())))
    }
}

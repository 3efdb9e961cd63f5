//! The composed calls that are faster here than their steps: checks, then the code of the other files.

use super::*;

impl Backend for CpuBackend {
    fn upload_ntt(&self, polys: usize, basis: &Basis, fill: &(dyn Fn(usize, usize, &mut [u32]) + Sync)) -> Result<Buffer> {
        let shape = Shape::new(polys, basis.len(), self.tables.degree());
        self.checks().basis(shape, basis, "upload_ntt")?;
        let n = self.tables.degree();
        let mut out = self.pool.take(check::room(shape, "upload_ntt")?);
        self.each_limb(out.as_mut_slice(), basis, 8, |_, limb, p, l| {
            // SAFETY: a whole limb, its task's own; it holds initialised words (the pool's are).
            let words = unsafe { std::slice::from_raw_parts_mut(limb, n) };
            fill(p, l, words);
            // SAFETY: a whole limb, its task's own; `ntt_isa` suits the degree.
            unsafe { ntt::forward(self.ntt_isa, limb, limb, self.tables.ntt(basis.limbs()[l])) }
        });
        Ok(Buffer::from_host(shape, out))
    }

    fn sub_assign(&self, a: &mut Buffer, b: &Buffer, basis: &Basis) -> Result<()> {
        let op = "sub_assign";
        self.checks().basis(a.shape(), basis, op)?;
        check::same(a.shape(), b.shape(), op)?;
        let y = self.limbs(self.read(b, op)?, basis.len());
        let words = self.write(a, op)?;
        let n = self.tables.degree();
        self.each_limb(words, basis, 1, |m, limb, p, l| {
            // SAFETY: whole limbs, the first in place.
            unsafe { elementwise::sub(self.isa, limb, limb, y(p, l).as_ptr(), n, m) }
        });
        Ok(())
    }

    fn tensor_sum(&self, pairs: &[(&Buffer, &Buffer)], basis: &Basis) -> Result<Buffer> {
        self.tensors(pairs, basis, "tensor_sum")
    }

    fn encoded_inner_product(
        &self,
        ct: &Buffer,
        plains: usize,
        source: &dyn PlainSource,
        terms: &[Vec<PlainTerm>],
        basis: &Basis,
    ) -> Result<Buffer> {
        let op = "encoded_inner_product";
        let shape = self.checks().inner_product(ct.shape(), plains, terms, basis, op)?;
        let x = self.limbs(self.read(ct, op)?, basis.len());
        Ok(Buffer::from_host(shape, self.encoded_inner_product_words(x, source, terms, basis)))
    }

    fn rotate_digits(&self, ct: &Buffer, digits: &Buffer, rotations: &[Rotation<'_>], plan: &KeySwitchTables) -> Result<Buffer> {
        let op = "rotate_digits";
        if !key_switch::fusible(plan) {
            return rotate_digits_by_steps(self, ct, digits, rotations, plan);
        }
        self.checks().basis(ct.shape(), &plan.window, op)?;
        check::even(ct.shape(), op)?;
        self.checks().basis(digits.shape(), &plan.extended, op)?;
        self.checks().plan(plan, op)?;
        self.checks().change(&plan.mod_down, op)?;
        let (n, shards) = (self.tables.degree(), ct.shape().polys / 2);
        check::same(Shape { polys: shards * plan.digits.len(), ..digits.shape() }, digits.shape(), op)?;
        let x = Hoisted { ct: self.read(ct, op)?, digits: self.read(digits, op)?, shards };
        let (size, shape) = (ct.shape().words(), Shape { polys: rotations.len() * ct.shape().polys, ..ct.shape() });
        let mut words = self.pool.take(shape.words());
        for (i, rotation) in rotations.iter().enumerate() {
            let Some(key) = rotation.key else {
                words.as_mut_slice()[i * size..][..size].copy_from_slice(x.ct);
                continue;
            };
            self.checks().galois(rotation.galois)?;
            self.checks().key(digits.shape(), key.shape(), plan, op)?;
            let key = Key { words: self.read(key, op)?, limbs: key.shape().limbs };
            let permutation = automorphism::Permutation::new(rotation.galois, self.tables.log_n(), self.isa.log_width());
            let out = (Shared::new(words.as_mut_slice()), i * size);
            let work = shards * plan.extended.len() * n * 16;
            parallel::region(work, || self.rotate_digits_words(x, key, plan, &permutation, out));
        }
        Ok(Buffer::from_host(shape, words))
    }

    fn rotate_extended(
        &self,
        digits: &Buffer,
        lifted: &Buffer,
        rotation: KeyRotation<'_>,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        let op = "rotate_extended";
        self.checks().plan(plan, op)?;
        self.checks().basis(digits.shape(), &plan.extended, op)?;
        self.checks().galois(rotation.galois)?;
        let shards = self.checks().key(digits.shape(), rotation.key.shape(), plan, op)?;
        check::same(Shape { polys: shards, ..digits.shape() }, lifted.shape(), op)?;
        let permutation = automorphism::Permutation::new(rotation.galois, self.tables.log_n(), self.isa.log_width());
        let key = Key { words: self.read(rotation.key, op)?, limbs: rotation.key.shape().limbs };
        let x = (self.read(digits, op)?, self.read(lifted, op)?);
        let shape = Shape { polys: 2 * shards, ..digits.shape() };
        Ok(Buffer::from_host(shape, self.rotate_extended_words(x, shards, key, &permutation, plan)))
    }

    fn linear_combination(&self, parts: &[&Buffer], constants: &[Vec<u32>], basis: &Basis) -> Result<Buffer> {
        let op = "linear_combination";
        let shape = check::combination(parts, constants, op)?;
        self.checks().basis(shape, basis, op)?;
        constants.iter().try_for_each(|c| self.checks().constants(c, basis, op))?;
        let parts = parts.iter().map(|p| self.read(p, op)).collect::<Result<Vec<_>>>()?;
        let (n, limbs) = (self.tables.degree(), shape.limbs);
        let tile = n.min(inner_product::TILE);
        let mut words = self.pool.take(shape.words());
        let out = Shared::new(words.as_mut_slice());
        let pairs = shape.polys.div_ceil(2);
        parallel::each(pairs * limbs, shape.words() * parts.len(), |i| {
            let (l, p) = (i / pairs, i % pairs * 2);
            let m = self.modulus(basis, l);
            // Each part's constant, in Montgomery form, as a plaintext that repeats; two polynomials at a time, an odd last one twice.
            let factors: Vec<Vec<u32>> = constants.iter().map(|c| vec![m.to_mont(c[l]); tile]).collect();
            let places = [p, (p + 1).min(shape.polys - 1)].map(|p| (p * limbs + l) * n);
            let mut unused = vec![0u32; if p + 1 < shape.polys { 0 } else { tile }];
            for at in (0..n).step_by(tile) {
                let pair = |part: &&[u32]| places.map(|place| part[place + at..][..tile].as_ptr());
                let terms: Vec<Term> =
                    parts.iter().zip(&factors).map(|(part, f)| Term { x: f.as_ptr(), pair: pair(part) }).collect();
                let second = if unused.is_empty() { out.piece(places[1] + at, tile) } else { unused.as_mut_ptr() };
                // SAFETY: a tile of each limb, the outputs this task's own.
                unsafe {
                    inner_product::plain_inner_product(self.isa, [out.piece(places[0] + at, tile), second], &terms, tile, m)
                };
            }
        });
        Ok(Buffer::from_host(shape, words))
    }

    fn rotated_inner_product(
        &self,
        hoisted: HoistedRotations<'_>,
        plan: &KeySwitchTables,
        plain: &Buffer,
        terms: &[Vec<PlainTerm>],
    ) -> Result<Buffer> {
        let HoistedRotations { ct, digits, rotations, lift } = hoisted;
        let op = "rotated_inner_product";
        if !key_switch::fusible(plan) {
            return rotated_inner_product_by_steps(self, hoisted, plan, plain, terms);
        }
        self.checks().basis(ct.shape(), &plan.window, op)?;
        check::even(ct.shape(), op)?;
        self.checks().basis(digits.shape(), &plan.extended, op)?;
        self.checks().plan(plan, op)?;
        let shards = ct.shape().polys / 2;
        check::same(Shape { polys: shards * plan.digits.len(), ..digits.shape() }, digits.shape(), op)?;
        let lifted = self.change_basis(ct, lift)?;
        check::same(Shape { limbs: plan.extended.len(), ..ct.shape() }, lifted.shape(), op)?;
        let x = Hoisted { ct: self.read(&lifted, op)?, digits: self.read(digits, op)?, shards };
        let mut turns = Vec::with_capacity(rotations.len());
        for rotation in rotations {
            turns.push(match rotation.key {
                None => None,
                Some(key) => {
                    self.checks().galois(rotation.galois)?;
                    self.checks().key(digits.shape(), key.shape(), plan, op)?;
                    let permutation = automorphism::Permutation::new(rotation.galois, self.tables.log_n(), self.isa.log_width());
                    Some((Key { words: self.read(key, op)?, limbs: key.shape().limbs }, permutation))
                }
            });
        }
        self.checks().factors(plain.shape(), &plan.extended, op)?;
        check::terms(terms, rotations.len() * shards, plain.shape().polys, op)?;
        let shape = Shape { polys: 2 * terms.len(), ..lifted.shape() };
        let y = (self.read(plain, op)?, plain.shape().degree);
        Ok(Buffer::from_host(shape, self.rotated_inner_product_words(x, &turns, plan, y, terms)))
    }

    fn rotate(&self, ct: &Buffer, rotation: KeyRotation<'_>, plan: &KeySwitchTables) -> Result<Buffer> {
        let op = "rotate";
        self.checks().galois(rotation.galois)?;
        check::even(ct.shape(), op)?;
        let mut switched = self.key_switch(ct, PolySelect::second_halves(ct.shape()), rotation.key, plan)?;
        check::same(ct.shape(), switched.shape(), op)?;
        let (n, limbs) = (self.tables.degree(), plan.window.len());
        let first = self.limbs(self.read(ct, op)?, limbs);
        let sums = Shared::new(self.write(&mut switched, op)?);
        let permutation = automorphism::Permutation::new(rotation.galois, self.tables.log_n(), self.isa.log_width());
        Ok(self.build(ct.shape(), &plan.window, |m, out, p, l| {
            let sum = sums.piece((p * limbs + l) * n, n);
            // SAFETY: whole limbs, this task's own but for the input; the permutation is for this width.
            unsafe {
                if p.is_multiple_of(2) {
                    elementwise::add(self.isa, sum, sum, first(p, l).as_ptr(), n, m);
                }
                automorphism::permute(self.isa, out, sum, &permutation);
            }
        }))
    }

    fn relinearize_extended(&self, product: &Buffer, key: &Buffer, lift: &BasisChange, plan: &KeySwitchTables) -> Result<Buffer> {
        let op = "relinearize_extended";
        let x = self.read(product, op)?;
        self.checks().basis(product.shape(), &plan.window, op)?;
        let shards = product.shape().polys / 3;
        check::same(Shape { polys: 3 * shards, ..product.shape() }, product.shape(), op)?;
        let layout = self.checks().plan(plan, op)?;
        if !self.checks().change(lift, op)?.is_empty() || lift.source != plan.window || lift.target != plan.extended {
            let expected = "a change from the window to the extended basis".into();
            return Err(BackendError::Shape { op, expected, found: format!("{:?} to {:?}", lift.source, lift.target) });
        }
        let digits = Shape::new(shards * plan.digits.len(), plan.extended.len(), self.tables.degree());
        self.checks().key(digits, key.shape(), plan, op)?;
        let key = Key { words: self.read(key, op)?, limbs: key.shape().limbs };
        let x = Selected { words: x, select: PolySelect { first: 2, stride: 3, count: shards } };
        let switch = Switch { x, key, plan, layout: &layout };
        let work = digits.words() * 16;
        let words = parallel::region(work, || self.relinearize_extended_words(switch, lift));
        Ok(Buffer::from_host(Shape { polys: 2 * shards, ..digits }, words))
    }

    fn rotate_sum(&self, step: &HornerStep<'_>, rotation: KeyRotation<'_>, plan: &KeySwitchTables) -> Result<Buffer> {
        let op = "rotate_sum";
        let layout = self.checks().plan(plan, op)?;
        let positions = self.checks().change(&plan.mod_down, op)?;
        if plan.mod_down.source != plan.extended || plan.mod_down.target != plan.window {
            return rotate_sum_by_steps(self, step, rotation, plan);
        }
        self.checks().galois(rotation.galois)?;
        let &HornerStep { x, first, plus, first_plus, shards } = step;
        let from = |buffer, first| {
            self.checks().basis(Buffer::shape(buffer), &plan.extended, op)?;
            check::shards(buffer.shape(), first, shards, op)?;
            Ok(Shards { words: self.read(buffer, op)?, first })
        };
        let (x, plus) = (from(x, first)?, from(plus, first_plus)?);
        let digits = Shape::new(shards * plan.digits.len(), plan.extended.len(), self.tables.degree());
        self.checks().key(digits, rotation.key.shape(), plan, op)?;
        let key = Key { words: self.read(rotation.key, op)?, limbs: rotation.key.shape().limbs };
        let permutation = automorphism::Permutation::new(rotation.galois, self.tables.log_n(), self.isa.log_width());
        let sum = RotateSum { x, plus, shards, key, permutation };
        let work = digits.words() * 16;
        let words = parallel::region(work, || self.rotate_sum_words(&sum, &positions, plan, &layout));
        Ok(Buffer::from_host(Shape { polys: 2 * shards, ..digits }, words))
    }

    fn key_switch(&self, src: &Buffer, select: PolySelect, key: &Buffer, plan: &KeySwitchTables) -> Result<Buffer> {
        let op = "key_switch";
        if !key_switch::fusible(plan) {
            let digits = self.mod_up(src, select, plan)?;
            let extended = self.key_inner_product(&digits, key, plan)?;
            return self.change_basis(&extended, &plan.mod_down);
        }
        let x = self.read(src, op)?;
        self.checks().basis(src.shape(), &plan.window, op)?;
        check::select(src.shape(), select, op)?;
        let layout = self.checks().plan(plan, op)?;
        self.checks().change(&plan.mod_down, op)?;
        let digits = Shape::new(select.count * plan.digits.len(), plan.extended.len(), self.tables.degree());
        self.checks().key(digits, key.shape(), plan, op)?;
        let key = Key { words: self.read(key, op)?, limbs: key.shape().limbs };
        let work = select.count * plan.extended.len() * self.tables.degree() * 16;
        let switch = Switch { x: Selected { words: x, select }, key, plan, layout: &layout };
        let (shape, words) = parallel::region(work, || self.key_switch_words(switch));
        Ok(Buffer::from_host(shape, words))
    }
}

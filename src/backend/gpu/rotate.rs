//! Key switches and rotations: digits, products, divisions, and nothing written in between that need not be.

use super::GpuBackend;
use super::convert::Rotations;
use super::polys::{Polys, Window, part};
use super::products::{Added, KeyProduct};
use crate::backend::check::{self, DigitLayout};
use crate::backend::{Backend, BackendError, Buffer, GadgetPlan, KeyRotation, PolySelect, Result, Rotation, Shape};
use crate::math::{BasisChange, galois};
use std::ops::Range;

impl GpuBackend {
    /// Switches the selected polynomials of `src`, or rotates a ciphertext whose second halves they are. Nine dispatches, eleven
    /// where transforms take two, whatever the number of polynomials as long as their digits can be bound.
    pub(super) fn switch(
        &self,
        src: &Buffer,
        select: PolySelect,
        (key, galois): (&Buffer, Option<u32>),
        plan: &GadgetPlan,
        op: &'static str,
    ) -> Result<Buffer> {
        self.checks().basis(src.shape(), &plan.window, op)?;
        check::select(src.shape(), select, op)?;
        let layout: DigitLayout = self.checks().plan(plan, op)?;
        let positions = self.checks().change(&plan.mod_down, op)?;
        let n = self.tables.degree();
        let (digits, extended) = (plan.digits.len(), plan.extended.len() * n);
        self.checks().key(Shape::new(digits, plan.extended.len(), n), key.shape(), plan, op)?;
        let from = self.polys(src, op)?;
        let shape = Shape::new(2 * select.count, plan.mod_down.target.len(), n);
        let out = self.take(shape, op)?;
        let to = Polys::new(&out, shape);
        let sizes = [digits * extended, 2 * extended, from.size * select.stride.max(1), from.size, 2 * to.size];
        let inverses: Vec<u32> = galois.into_iter().map(|g| galois::inverse(g, n)).collect();
        for range in self.batches(select.count, &sizes, 2, op)? {
            let shards = range.len();
            let own = from.select(part(select, &range));
            let sums = self.memory.take(shards * 2 * extended, op)?;
            let products = Polys { block: sums.block(), size: extended, count: 2 * shards };
            {
                let words = self.memory.take(shards * digits * extended, op)?;
                self.mod_up_into(own, plan, &layout, words.view(), shards)?;
                let own = Some((own, &layout));
                let product = KeyProduct { plan, digits: words.view(), own, inverse: 1, added: None, shards };
                self.key_product(&product, key, products.window(0, 2 * shards))?;
            }
            let rotations = Rotations { inverses: &inverses, ct: from, first: range.start, shards };
            let rotations = galois.map(|_| &rotations);
            self.change_basis_into(products, &plan.mod_down, &positions, rotations, (to, 2 * range.start))?;
        }
        Ok(self.made(shape, out))
    }

    /// [`crate::backend::Backend::rotate`].
    pub(super) fn rotate_shards(&self, ct: &Buffer, rotation: KeyRotation<'_>, plan: &GadgetPlan) -> Result<Buffer> {
        let op = "rotate";
        self.checks().galois(rotation.galois)?;
        check::even(ct.shape(), op)?;
        self.check_same_window(plan, op)?;
        self.switch(ct, PolySelect::second_halves(ct.shape()), (rotation.key, Some(rotation.galois)), plan, op)
    }

    /// The division ends where the ciphertexts are.
    fn check_same_window(&self, plan: &GadgetPlan, op: &'static str) -> Result<()> {
        if plan.mod_down.target == plan.window {
            return Ok(());
        }
        Err(BackendError::Shape { op, expected: "a division to the window".into(), found: format!("{:?}", plan.mod_down.target) })
    }

    /// [`crate::backend::Backend::rotate_digits`]: for each run of rotations one product with each key, then one division, sum and
    /// permutation of them all, whatever the number of shards.
    pub(super) fn rotate_all(
        &self,
        ct: &Buffer,
        digits: &Buffer,
        rotations: &[Rotation<'_>],
        plan: &GadgetPlan,
    ) -> Result<Buffer> {
        let op = "rotate_digits";
        self.checks().basis(ct.shape(), &plan.window, op)?;
        self.checks().basis(digits.shape(), &plan.extended, op)?;
        check::even(ct.shape(), op)?;
        self.check_same_window(plan, op)?;
        let positions = self.checks().change(&plan.mod_down, op)?;
        let shards = ct.shape().polys / 2;
        for rotation in rotations {
            self.checks().galois(rotation.galois)?;
            if let Some(key) = rotation.key {
                let found = self.checks().key(digits.shape(), key.shape(), plan, op)?;
                check::same(Shape { polys: 2 * found, ..ct.shape() }, ct.shape(), op)?;
            }
        }
        let n = self.tables.degree();
        let extended = plan.extended.len() * n;
        let shape = Shape { polys: rotations.len() * ct.shape().polys, ..ct.shape() };
        let out = self.take(shape, op)?;
        let (from, to) = (self.polys(ct, op)?, Polys::new(&out, shape));
        let digits = self.polys(digits, op)?;
        let digits = Polys { size: plan.digits.len() * extended, count: shards, ..digits };
        let batches = self.batches(shards, &[digits.size, 2 * extended, 2 * from.size], 2, op)?;
        // Only where all shards are taken together are those of neighbouring rotations neighbours in the result.
        let together = if let [_] = batches[..] { self.rotations_at_once(shards * 2 * extended) } else { 1 };
        let mut next = 0;
        while next < rotations.len() {
            let keyed = rotations[next..].iter().take(together).take_while(|r| r.key.is_some()).count();
            if keyed == 0 {
                self.device.copy((from.block, 0), (to.block, next * 2 * shards * to.size), 2 * shards * to.size);
                next += 1;
                continue;
            }
            let run = &rotations[next..next + keyed];
            let inverses: Vec<u32> = run.iter().map(|r| galois::inverse(r.galois, n)).collect();
            for range in &batches {
                self.rotate_run((from, digits), run, (&inverses, range), (plan, &positions), (to, next * shards))?;
            }
            next += keyed;
        }
        Ok(self.made(shape, out))
    }

    /// How many rotations are divided together, `words` words each.
    fn rotations_at_once(&self, words: usize) -> usize {
        let room = self.memory.limit().map_or(usize::MAX, |limit| usize::try_from(limit / 32).unwrap_or(usize::MAX));
        (self.bound_words().min(room) / words.max(1)).max(1)
    }

    /// Some rotations of some shards, to the output from shard `first` on.
    fn rotate_run(
        &self,
        (ct, digits): (Polys<'_>, Polys<'_>),
        run: &[Rotation<'_>],
        (inverses, range): (&[u32], &Range<usize>),
        (plan, positions): (&GadgetPlan, &[usize]),
        (out, first): (Polys<'_>, usize),
    ) -> Result<()> {
        let op = "rotate_digits";
        let (shards, extended) = (range.len(), plan.extended.len() * self.tables.degree());
        let words = self.memory.take(run.len() * shards * 2 * extended, op)?;
        let products = Polys { block: words.block(), size: extended, count: run.len() * shards * 2 };
        let digits = digits.window(range.start, shards).view;
        for (r, rotation) in run.iter().enumerate() {
            if let Some(key) = rotation.key {
                let product = KeyProduct { plan, digits, own: None, inverse: 1, added: None, shards };
                self.key_product(&product, key, products.window(r * 2 * shards, 2 * shards))?;
            }
        }
        let rotations = Rotations { inverses, ct, first: range.start, shards };
        let to = (out, 2 * (first + range.start));
        self.change_basis_into(products, &plan.mod_down, positions, Some(&rotations), to)
    }

    /// [`crate::backend::Backend::relinearize_extended`]: digits of the last third, P times the product, one product with the key.
    pub(super) fn relinearize_lifted(
        &self,
        product: &Buffer,
        key: &Buffer,
        lift: &BasisChange,
        plan: &GadgetPlan,
    ) -> Result<Buffer> {
        let op = "relinearize_extended";
        let found = product.shape();
        self.checks().basis(found, &plan.window, op)?;
        self.checks().basis(found, &lift.source, op)?;
        let shards = found.polys / 3;
        check::same(Shape { polys: 3 * shards, ..found }, found, op)?;
        let layout: DigitLayout = self.checks().plan(plan, op)?;
        let positions = self.checks().change(lift, op)?;
        if !positions.is_empty() || lift.target != plan.extended {
            let expected = "a change to the extended basis that drops nothing".into();
            return Err(BackendError::Shape { op, expected, found: format!("{:?}", lift.target) });
        }
        let n = self.tables.degree();
        let (digits, extended) = (plan.digits.len(), plan.extended.len() * n);
        self.checks().key(Shape::new(digits, plan.extended.len(), n), key.shape(), plan, op)?;
        let from = self.polys(product, op)?;
        let shape = Shape::new(2 * shards, plan.extended.len(), n);
        let out = self.take(shape, op)?;
        let to = Polys::new(&out, shape);
        for range in self.batches(shards, &[digits * extended, 3 * extended, 2 * extended, 3 * from.size], 3, op)? {
            let (first, shards) = (3 * range.start, range.len());
            let words = self.memory.take(shards * digits * extended, op)?;
            let own = from.select(PolySelect { first: first + 2, stride: 3, count: shards });
            self.mod_up_into(own, plan, &layout, words.view(), shards)?;
            let words_lifted = self.memory.take(3 * shards * extended, op)?;
            let lifted = Polys { block: words_lifted.block(), size: extended, count: 3 * shards };
            self.multiply_kept((from, first..first + 3 * shards), plan.window.len(), lift, (lifted, 0))?;
            // What is added to the second halves stands beyond the last first half.
            let pairs = lifted.select(PolySelect { first: 0, stride: 1, count: 3 * shards });
            let added = Added { first: Window { stride: 3 * extended, ..pairs }, second: extended };
            let product =
                KeyProduct { plan, digits: words.view(), own: Some((own, &layout)), inverse: 1, added: Some(added), shards };
            self.key_product(&product, key, to.window(2 * range.start, 2 * shards))?;
        }
        Ok(self.made(shape, out))
    }

    /// [`crate::backend::Backend::rotate_digits_extended`]: one dispatch a rotation, and two for the first halves times P.
    pub(super) fn rotate_all_lifted(
        &self,
        ct: &Buffer,
        digits: &Buffer,
        rotations: &[Rotation<'_>],
        lift: &BasisChange,
        plan: &GadgetPlan,
    ) -> Result<Buffer> {
        let op = "rotate_digits_extended";
        self.checks().basis(ct.shape(), &plan.window, op)?;
        self.checks().basis(ct.shape(), &lift.source, op)?;
        self.checks().basis(digits.shape(), &plan.extended, op)?;
        self.checks().basis(digits.shape(), &lift.target, op)?;
        check::even(ct.shape(), op)?;
        let positions = self.checks().change(lift, op)?;
        if !positions.is_empty() {
            return Err(BackendError::Shape {
                op,
                expected: "a change that drops nothing".into(),
                found: format!("{positions:?}"),
            });
        }
        let (limbs, shards) = (plan.window.len(), ct.shape().polys / 2);
        for rotation in rotations {
            self.checks().galois(rotation.galois)?;
            if let Some(key) = rotation.key {
                let found = self.checks().key(digits.shape(), key.shape(), plan, op)?;
                check::same(Shape { polys: 2 * found, ..ct.shape() }, ct.shape(), op)?;
            }
        }
        let first = self.select(ct, PolySelect { first: 0, stride: 2, count: shards })?;
        let first = self.change_basis_words(self.polys(&first, op)?, limbs, lift, &positions)?;
        let first = self.polys(&first, op)?;
        let shape = Shape::new(2 * shards * rotations.len(), plan.extended.len(), self.tables.degree());
        let out = self.take(shape, op)?;
        let to = Polys::new(&out, shape);
        let (ct, digits) = (self.polys(ct, op)?, self.polys(digits, op)?);
        for (r, rotation) in rotations.iter().enumerate() {
            let at = 2 * shards * r;
            match rotation.key {
                None => self.multiply_kept((ct, 0..ct.count), limbs, lift, (to, at))?,
                Some(key) => {
                    let added = Some((galois::inverse(rotation.galois, self.tables.degree()), first));
                    self.products_into(digits, key, (added, shards), plan, (to, at))?;
                }
            }
        }
        Ok(self.made(shape, out))
    }

    /// [`crate::backend::Backend::rotate_extended`]: one dispatch.
    pub(super) fn rotate_lifted(
        &self,
        digits: &Buffer,
        lifted: &Buffer,
        rotation: KeyRotation<'_>,
        plan: &GadgetPlan,
    ) -> Result<Buffer> {
        let op = "rotate_extended";
        self.checks().galois(rotation.galois)?;
        self.checks().basis(digits.shape(), &plan.extended, op)?;
        let shards = self.checks().key(digits.shape(), rotation.key.shape(), plan, op)?;
        check::same(Shape { polys: shards, ..digits.shape() }, lifted.shape(), op)?;
        let shape = Shape { polys: 2 * shards, ..digits.shape() };
        let (added, digits) = (self.polys(lifted, op)?, self.polys(digits, op)?);
        let added = (galois::inverse(rotation.galois, self.tables.degree()), added);
        self.products(digits, rotation.key, Some(added), plan, shape, op)
    }

    /// Digits times a key, `[shard][2]`.
    pub(super) fn products(
        &self,
        digits: Polys<'_>,
        key: &Buffer,
        rotation: Option<(u32, Polys<'_>)>,
        plan: &GadgetPlan,
        shape: Shape,
        op: &'static str,
    ) -> Result<Buffer> {
        let out = self.take(shape, op)?;
        self.products_into(digits, key, (rotation, shape.polys / 2), plan, (Polys::new(&out, shape), 0))?;
        Ok(self.made(shape, out))
    }

    /// The same into the polynomials of `to` from `at` on.
    fn products_into(
        &self,
        digits: Polys<'_>,
        key: &Buffer,
        (rotation, shards): (Option<(u32, Polys<'_>)>, usize),
        plan: &GadgetPlan,
        (to, at): (Polys<'_>, usize),
    ) -> Result<()> {
        let of_shard = Polys { size: digits.size * plan.digits.len(), count: shards, ..digits };
        for range in self.batches(shards, &[of_shard.size, 2 * to.size, to.size], 1, "key_inner_product")? {
            let added = rotation.map(|(_, added)| Added { first: added.window(range.start, range.len()), second: 0 });
            let digits = of_shard.window(range.start, range.len()).view;
            let inverse = rotation.map_or(1, |(inverse, _)| inverse);
            let product = KeyProduct { plan, digits, own: None, inverse, added, shards: range.len() };
            self.key_product(&product, key, to.window(at + 2 * range.start, 2 * range.len()))?;
        }
        Ok(())
    }
}

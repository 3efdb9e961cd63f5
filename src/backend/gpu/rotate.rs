//! Key switches and rotations: digits, products, divisions, and nothing written in between that need not be.

use super::GpuBackend;
use super::convert::{Division, Rotations};
use super::key_product::{Added, KeyProduct, PlainSums, Strides};
use super::polys::{Polys, Window, part};
use crate::backend::check::{self, DigitLayout};
use crate::backend::{
    BackendError, Buffer, HoistedRotations, HornerStep, KeyRotation, KeySwitchTables, PlainTerm, PolySelect, Result, Rotation,
    Shape, rotated_inner_product_by_steps, rotated_sum_by_steps,
};
use crate::math::{BasisChange, galois};
use std::ops::Range;

/// What rotations of the same ciphertexts share.
#[derive(Debug, Clone, Copy)]
struct SharedDigits<'a> {
    /// `[shard][2]`.
    ct: Polys<'a>,
    /// `[shard]`, all digits of a shard being one polynomial.
    digits: Polys<'a>,
    plan: &'a KeySwitchTables,
    /// Of the special limbs in the extended basis.
    positions: &'a [usize],
}

impl GpuBackend {
    /// Switches the selected polynomials of `src`, or rotates a ciphertext whose second halves they are. Nine dispatches, eleven
    /// where transforms take two, whatever the number of polynomials as long as their digits can be bound.
    pub(super) fn switch(
        &self,
        src: &Buffer,
        select: PolySelect,
        (key, galois): (&Buffer, Option<u32>),
        plan: &KeySwitchTables,
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
            let products = Polys::of(&sums, extended, 2 * shards);
            {
                let words = self.memory.take(shards * digits * extended, op)?;
                self.mod_up_into(own, plan, &layout, words.view(), shards)?;
                let own = Some((own, &layout));
                let product = KeyProduct { plan, digits: words.view(), own, added: None, plus: None, shards };
                let out = products.window(0, 2 * shards);
                self.key_products(&product, &[KeyRotation { galois: 1, key }], Strides::default(), out)?;
            }
            let rotations = Rotations { inverses: &inverses, ct: from, first: range.start, shards };
            let rotations = galois.map(|_| &rotations);
            let division = Division { change: &plan.mod_down, positions: &positions, rotations, constants: &[] };
            self.change_basis_into(products, products.all(), &division, to.after(2 * range.start))?;
        }
        Ok(self.made(shape, out))
    }

    /// [`crate::backend::Backend::rotate`].
    pub(super) fn rotate_shards(&self, ct: &Buffer, rotation: KeyRotation<'_>, plan: &KeySwitchTables) -> Result<Buffer> {
        let op = "rotate";
        self.checks().galois(rotation.galois)?;
        check::even(ct.shape(), op)?;
        self.check_same_window(plan, op)?;
        self.switch(ct, PolySelect::second_halves(ct.shape()), (rotation.key, Some(rotation.galois)), plan, op)
    }

    /// The division ends where the ciphertexts are.
    fn check_same_window(&self, plan: &KeySwitchTables, op: &'static str) -> Result<()> {
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
        plan: &KeySwitchTables,
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
                self.device.copy(from.start(0), to.start(next * 2 * shards), 2 * shards * to.size);
                next += 1;
                continue;
            }
            let run = &rotations[next..next + keyed];
            let shared = SharedDigits { ct: from, digits, plan, positions: &positions };
            for range in &batches {
                self.rotate_run(&shared, run, range, to.after(2 * (next * shards + range.start)))?;
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

    /// Some rotations of some shards, to the first polynomials of `out`.
    fn rotate_run(&self, shared: &SharedDigits<'_>, run: &[Rotation<'_>], range: &Range<usize>, out: Polys<'_>) -> Result<()> {
        let op = "rotate_digits";
        let &SharedDigits { ct, digits, plan, positions } = shared;
        let inverses: Vec<u32> = run.iter().map(|r| galois::inverse(r.galois, self.tables.degree())).collect();
        let (shards, extended) = (range.len(), plan.extended.len() * self.tables.degree());
        let words = self.memory.take(run.len() * shards * 2 * extended, op)?;
        let products = Polys::of(&words, extended, run.len() * shards * 2);
        let digits = digits.window(range.start, shards).view;
        // Their permutations come last.
        let keys: Vec<_> = run.iter().filter_map(|r| r.key).map(|key| KeyRotation { galois: 1, key }).collect();
        let product = KeyProduct { plan, digits, own: None, added: None, plus: None, shards };
        let strides = Strides { output: 2 * shards * extended, ..Strides::default() };
        self.key_products(&product, &keys, strides, products.window(0, products.count))?;
        let rotations = Rotations { inverses: &inverses, ct, first: range.start, shards };
        let division = Division { change: &plan.mod_down, positions, rotations: Some(&rotations), constants: &[] };
        self.change_basis_into(products, products.all(), &division, out)
    }

    /// [`crate::backend::Backend::relinearize_extended`]: digits of the last third, P times the product, one product with the key.
    pub(super) fn relinearize_lifted(
        &self,
        product: &Buffer,
        key: &Buffer,
        lift: &BasisChange,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        let op = "relinearize_extended";
        let found = product.shape();
        self.checks().basis(found, &plan.window, op)?;
        self.checks().basis(found, &lift.source, op)?;
        let shards = found.polys / 3;
        check::same(Shape { polys: 3 * shards, ..found }, found, op)?;
        let layout: DigitLayout = self.checks().plan(plan, op)?;
        self.check_lift(lift, plan, op)?;
        let n = self.tables.degree();
        let (digits, extended) = (plan.digits.len(), plan.extended.len() * n);
        self.checks().key(Shape::new(digits, plan.extended.len(), n), key.shape(), plan, op)?;
        let from = self.polys(product, op)?;
        let shape = Shape::new(2 * shards, plan.extended.len(), n);
        let out = self.take(shape, op)?;
        let to = Polys::new(&out, shape);
        for range in self.batches(shards, &[digits * extended, 2 * extended, 3 * from.size], 3, op)? {
            let (first, shards) = (3 * range.start, range.len());
            let words = self.memory.take(shards * digits * extended, op)?;
            let own = from.select(PolySelect { first: first + 2, stride: 3, count: shards });
            self.mod_up_into(own, plan, &layout, words.view(), shards)?;
            // What is added to the second halves stands beyond the last first half.
            let products = Window { stride: 3 * from.size, ..from.window(first, 3 * shards) };
            let added = Some(Added { first: products, second: from.size, lift: Some(lift) });
            let product = KeyProduct { plan, digits: words.view(), own: Some((own, &layout)), added, plus: None, shards };
            let out = to.window(2 * range.start, 2 * shards);
            self.key_products(&product, &[KeyRotation { galois: 1, key }], Strides::default(), out)?;
        }
        Ok(self.made(shape, out))
    }

    /// [`crate::backend::Backend::rotate_digits_extended`]: a product for each run of rotations.
    pub(super) fn rotate_all_lifted(
        &self,
        ct: &Buffer,
        digits: &Buffer,
        rotations: &[Rotation<'_>],
        lift: &BasisChange,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        let op = "rotate_digits_extended";
        self.checks().basis(ct.shape(), &plan.window, op)?;
        self.checks().basis(ct.shape(), &lift.source, op)?;
        self.checks().basis(digits.shape(), &plan.extended, op)?;
        self.checks().basis(digits.shape(), &lift.target, op)?;
        check::even(ct.shape(), op)?;
        self.check_lift(lift, plan, op)?;
        let (limbs, shards) = (plan.window.len(), ct.shape().polys / 2);
        for rotation in rotations {
            self.checks().galois(rotation.galois)?;
            if let Some(key) = rotation.key {
                let found = self.checks().key(digits.shape(), key.shape(), plan, op)?;
                check::same(Shape { polys: 2 * found, ..ct.shape() }, ct.shape(), op)?;
            }
        }
        let shape = Shape::new(2 * shards * rotations.len(), plan.extended.len(), self.tables.degree());
        let out = self.take(shape, op)?;
        let to = Polys::new(&out, shape);
        let (ct, digits) = (self.polys(ct, op)?, self.polys(digits, op)?);
        let digits = Polys { size: plan.digits.len() * digits.size, count: shards, ..digits };
        let batches = self.batches(shards, &[digits.size, 2 * to.size, 2 * ct.size], 1, op)?;
        let together = if batches.len() == 1 { self.rotations_at_once(2 * shards * to.size) } else { 1 };
        let mut next = 0;
        while next < rotations.len() {
            let run = rotations[next..].iter().take(together);
            let run: Vec<_> = run.map_while(|r| Some(KeyRotation { galois: r.galois, key: r.key? })).collect();
            if run.is_empty() {
                self.multiply_kept(ct, limbs, lift, to.after(2 * shards * next))?;
                next += 1;
                continue;
            }
            for range in &batches {
                let (start, count) = (range.start, range.len());
                let first = ct.select(PolySelect { first: 2 * start, stride: 2, count });
                let added = Some(Added { first, second: 0, lift: Some(lift) });
                let digits = digits.window(start, count).view;
                let product = KeyProduct { plan, digits, own: None, added, plus: None, shards: count };
                let strides = Strides { output: 2 * shards * to.size, ..Strides::default() };
                let polys = 2 * ((run.len() - 1) * shards + count);
                self.key_products(&product, &run, strides, to.window(2 * (shards * next + start), polys))?;
            }
            next += run.len();
        }
        Ok(self.made(shape, out))
    }

    /// [`crate::backend::Backend::rotated_inner_product`]: a dispatch for as many rotations as there are keys bound, where the terms are
    /// the same for every shard, by its steps else.
    pub(super) fn rotated_products_of(
        &self,
        hoisted: HoistedRotations<'_>,
        plan: &KeySwitchTables,
        plain: &Buffer,
        terms: &[Vec<PlainTerm>],
    ) -> Result<Buffer> {
        let op = "rotated_inner_product";
        let HoistedRotations { ct, digits, rotations, lift } = hoisted;
        let by_steps = || rotated_inner_product_by_steps(self, hoisted, plan, plain, terms);
        let shards = ct.shape().polys / 2;
        let Some(table) = term_table(terms, rotations.len(), shards) else { return by_steps() };
        self.checks().basis(ct.shape(), &plan.window, op)?;
        self.checks().basis(ct.shape(), &lift.source, op)?;
        self.checks().basis(digits.shape(), &plan.extended, op)?;
        check::even(ct.shape(), op)?;
        self.check_lift(lift, plan, op)?;
        self.checks().factors(plain.shape(), &plan.extended, op)?;
        check::terms(terms, rotations.len() * shards, plain.shape().polys, op)?;
        for rotation in rotations {
            self.checks().galois(rotation.galois)?;
            if let Some(key) = rotation.key {
                let found = self.checks().key(digits.shape(), key.shape(), plan, op)?;
                check::same(Shape { polys: 2 * found, ..ct.shape() }, ct.shape(), op)?;
            }
        }
        let shape = Shape::new(2 * terms.len(), plan.extended.len(), self.tables.degree());
        let bound = self.bound_words();
        let sums = terms.len() / shards;
        let whole = [shape, digits.shape(), plain.shape(), ct.shape()].iter().all(|s| s.words() <= bound);
        if !whole || !self.takes_rotations(rotations, sums) {
            return by_steps();
        }
        let log_repeat = (shape.degree / plain.shape().degree.max(1)).max(1).ilog2() as usize;
        let (from, cut, plain) = (self.polys(ct, op)?, self.polys(digits, op)?, self.polys(plain, op)?);
        let first = Window { stride: 2 * from.size, ..from.window(0, from.count) };
        let added = Some(Added { first, second: from.size, lift: Some(lift) });
        let digits = cut.window(0, cut.count).view;
        let product = KeyProduct { plan, digits, own: None, added, plus: None, shards };
        let out = self.take(shape, op)?;
        let to = Polys::new(&out, shape).window(0, shape.polys);
        let sums = PlainSums { plain: plain.window(0, plain.count).view, log_repeat, table: &table, sums };
        self.rotated_products(&product, rotations, &sums, to)?;
        Ok(self.made(shape, out))
    }

    /// [`crate::backend::Backend::rotate_extended`]: one dispatch.
    pub(super) fn rotate_lifted(
        &self,
        digits: &Buffer,
        lifted: &Buffer,
        rotation: KeyRotation<'_>,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        let op = "rotate_extended";
        self.checks().galois(rotation.galois)?;
        self.checks().basis(digits.shape(), &plan.extended, op)?;
        let shards = self.checks().key(digits.shape(), rotation.key.shape(), plan, op)?;
        check::same(Shape { polys: shards, ..digits.shape() }, lifted.shape(), op)?;
        let shape = Shape { polys: 2 * shards, ..digits.shape() };
        let (added, digits) = (self.polys(lifted, op)?, self.polys(digits, op)?);
        self.products(digits, rotation, Some(added), plan, shape, op)
    }

    /// [`crate::backend::Backend::rotate_sum`]: the second halves are divided and cut into digits where they are, and the product adds
    /// the rest. Five dispatches, seven where transforms take two.
    pub(super) fn rotate_sum_shards(
        &self,
        step: &HornerStep<'_>,
        rotation: KeyRotation<'_>,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        let op = "rotate_sum";
        let &HornerStep { x, first, plus, first_plus, shards } = step;
        self.checks().basis(x.shape(), &plan.extended, op)?;
        self.checks().basis(plus.shape(), &plan.extended, op)?;
        let from = check::shards(x.shape(), first, shards, op)?;
        let more = check::shards(plus.shape(), first_plus, shards, op)?;
        self.checks().galois(rotation.galois)?;
        self.check_same_window(plan, op)?;
        let layout: DigitLayout = self.checks().plan(plan, op)?;
        let positions = self.checks().change(&plan.mod_down, op)?;
        let (n, digits) = (self.tables.degree(), plan.digits.len());
        self.checks().key(Shape::new(digits, plan.extended.len(), n), rotation.key.shape(), plan, op)?;
        let shape = Shape::new(2 * shards, plan.extended.len(), n);
        let out = self.take(shape, op)?;
        let to = Polys::new(&out, shape);
        let (x, plus) = (self.polys(x, op)?, self.polys(plus, op)?);
        let window = plan.window.len() * n;
        for range in self.batches(shards, &[digits * to.size, 2 * to.size, window], 2, op)? {
            let (first, count) = (from.first + 2 * range.start, range.len());
            let halves = |half: usize| PolySelect { first: first + half, stride: 2, count };
            let words = self.memory.take(count * digits * to.size, op)?;
            self.divided_digits_into(x.select(halves(1)), plan, &layout, &positions, words.view(), count)?;
            let added = Some(Added { first: x.select(halves(0)), second: 0, lift: None });
            let more = plus.window(more.first + 2 * range.start, 2 * count);
            let plus = Some(Window { stride: 2 * plus.size, ..more });
            let product = KeyProduct { plan, digits: words.view(), own: None, added, plus, shards: count };
            let out = to.window(2 * range.start, 2 * count);
            self.key_products(&product, &[rotation], Strides::default(), out)?;
        }
        Ok(self.made(shape, out))
    }

    /// [`crate::backend::Backend::rotated_sum`]: one mod_up of all second halves, and one product, which adds to what is there.
    pub(super) fn rotated_sum_shards(
        &self,
        ct: &Buffer,
        plus: Option<&Buffer>,
        rotations: &[KeyRotation<'_>],
        lift: &BasisChange,
        plan: &KeySwitchTables,
    ) -> Result<Buffer> {
        let op = "rotated_sum";
        self.checks().basis(ct.shape(), &plan.window, op)?;
        self.checks().basis(ct.shape(), &lift.source, op)?;
        let shards = check::shards_each(ct.shape(), rotations.len(), op)?;
        let layout: DigitLayout = self.checks().plan(plan, op)?;
        self.check_lift(lift, plan, op)?;
        let (n, digits) = (self.tables.degree(), plan.digits.len());
        for rotation in rotations {
            self.checks().galois(rotation.galois)?;
            self.checks().key(Shape::new(digits, plan.extended.len(), n), rotation.key.shape(), plan, op)?;
        }
        let shape = Shape::new(2 * shards, plan.extended.len(), n);
        let size = digits * shape.poly_words();
        let together = self.rotations_at_once(shards * size);
        if self.batches(shards, &[size, 2 * shape.poly_words()], 2, op)?.len() > 1 {
            // Not even one rotation's digits can be bound.
            return rotated_sum_by_steps(self, ct, plus, rotations, lift, plan);
        }
        let out = self.take(shape, op)?;
        let to = Polys::new(&out, shape);
        if let Some(plus) = plus {
            check::same(Shape { polys: 2 * shards, ..ct.shape() }, plus.shape(), op)?;
            self.multiply_kept(self.polys(plus, op)?, plan.window.len(), lift, to)?;
        }
        let from = self.polys(ct, op)?;
        let mut next = 0;
        for run in rotations.chunks(together) {
            let (first, count) = (2 * shards * next, shards * run.len());
            let halves = |half: usize| from.select(PolySelect { first: first + half, stride: 2, count });
            let words = self.memory.take(count * size, op)?;
            let own = halves(1);
            self.mod_up_into(own, plan, &layout, words.view(), count)?;
            let added = Some(Added { first: halves(0), second: 0, lift: Some(lift) });
            let product = KeyProduct { plan, digits: words.view(), own: Some((own, &layout)), added, plus: None, shards };
            let step = 2 * shards * from.size;
            let strides = Strides {
                sums: true,
                adds: next > 0 || plus.is_some(),
                digits: shards * size,
                own: step,
                added: step,
                output: 0,
            };
            self.key_products(&product, run, strides, to.window(0, 2 * shards))?;
            next += run.len();
        }
        Ok(self.made(shape, out))
    }

    /// A change to the extended basis that drops nothing.
    fn check_lift(&self, lift: &BasisChange, plan: &KeySwitchTables, op: &'static str) -> Result<()> {
        let positions = self.checks().change(lift, op)?;
        if positions.is_empty() && lift.target == plan.extended {
            return Ok(());
        }
        let expected = "a change to the extended basis that drops nothing".into();
        Err(BackendError::Shape { op, expected, found: format!("{:?}", lift.target) })
    }

    /// Digits times a key, `[shard][2]`, with what is added before the permutation.
    pub(super) fn products(
        &self,
        digits: Polys<'_>,
        rotation: KeyRotation<'_>,
        added: Option<Polys<'_>>,
        plan: &KeySwitchTables,
        shape: Shape,
        op: &'static str,
    ) -> Result<Buffer> {
        let out = self.take(shape, op)?;
        let to = Polys::new(&out, shape);
        let of_shard = Polys { size: digits.size * plan.digits.len(), count: shape.polys / 2, ..digits };
        for range in self.batches(of_shard.count, &[of_shard.size, 2 * to.size, to.size], 1, op)? {
            let (start, shards) = (range.start, range.len());
            let added = added.map(|added| Added { first: added.window(start, shards), second: 0, lift: None });
            let digits = of_shard.window(start, shards).view;
            let product = KeyProduct { plan, digits, own: None, added, plus: None, shards };
            self.key_products(&product, &[rotation], Strides::default(), to.window(2 * start, 2 * shards))?;
        }
        Ok(self.made(shape, out))
    }
}

/// For each rotation and sum the plaintext plus one, or 0: where there are as many outputs for every shard, `[sum][shard]`, and those of a
/// sum have the same terms, at most one of each rotation.
fn term_table(terms: &[Vec<PlainTerm>], rotations: usize, shards: usize) -> Option<Vec<Vec<usize>>> {
    let sums = terms.len().checked_div(shards).filter(|sums| sums * shards == terms.len() && *sums > 0)?;
    let mut table = vec![vec![0; sums]; rotations];
    for (output, terms_of) in terms.iter().enumerate() {
        let (sum, shard) = (output / shards, output % shards);
        for (i, term) in terms_of.iter().enumerate() {
            let (rotation, of) = (term.source / shards, term.source % shards);
            let first = terms[sum * shards].get(i)?;
            let entry = table.get_mut(rotation)?.get_mut(sum)?;
            if of != shard || first.plain != term.plain || first.source != rotation * shards || (shard == 0 && *entry != 0) {
                return None;
            }
            *entry = term.plain + 1;
        }
        if terms_of.len() != terms[sum * shards].len() {
            return None;
        }
    }
    Some(table)
}

//! Digits times keys: of one rotation, or of several at once.

use super::arguments::{KeyProduct as Call, KeyProductRow, row, words};
use super::commands::View;
use super::polys::{Polys, Window};
use super::registry::{KEYS, Kernel, PRODUCTS};
use super::{GpuBackend, word};
use crate::backend::check::DigitLayout;
use crate::backend::{BackendError, KeyRotation, KeySwitchTables, Result, Rotation, Shape};
use crate::math::BasisChange;
use std::collections::HashSet;
use std::ops::Range;

/// What is added to a product before it is permuted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Added<'a> {
    /// To the first halves, one for each shard.
    pub first: Window<'a>,
    /// Words from there to what is added to the second halves; 0 if nothing is.
    pub second: usize,
    /// What multiplies it by P, where it is not over the extended basis yet.
    pub lift: Option<&'a BasisChange>,
}

/// What a product with keys is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyProduct<'a> {
    pub plan: &'a KeySwitchTables,
    /// `[shard][digit][extended limb]`.
    pub digits: View<'a>,
    /// Where a digit's own limbs are instead: `[shard]` polynomials over the window, and where the digits stand.
    pub own: Option<(Window<'a>, &'a DigitLayout)>,
    pub added: Option<Added<'a>>,
    /// What is added after the permutation, of one rotation alone: `[shard][2]`.
    pub plus: Option<Window<'a>>,
    pub shards: usize,
}

/// How several rotations lie: words from one to the next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Strides {
    /// Whether they are added up, to one output, and to what is there.
    pub sums: bool,
    pub adds: bool,
    pub digits: usize,
    pub own: usize,
    pub added: usize,
    pub output: usize,
}

/// Sums of products of plaintexts with rotations.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlainSums<'a> {
    /// The plaintexts.
    pub plain: View<'a>,
    /// log2 of how many words each of theirs stands for.
    pub log_repeat: usize,
    /// For each rotation and sum, the plaintext plus one, or 0.
    pub table: &'a [Vec<usize>],
    pub sums: usize,
}

impl GpuBackend {
    /// The product of every rotation's digits with its key, added to, permuted: one dispatch for as many rotations as can be taken at
    /// once, else one for each, or for each part of a key that cannot be bound whole.
    pub(super) fn key_products(
        &self,
        product: &KeyProduct<'_>,
        rotations: &[KeyRotation<'_>],
        strides: Strides,
        out: Window<'_>,
    ) -> Result<()> {
        let most = self.keys_at_once(rotations);
        for (i, rotations) in rotations.chunks(most).enumerate() {
            let first = i * most;
            let (call, rows, views) = self.key_call(product, rotations, strides, first, out);
            match rotations {
                [one] => self.key_by_parts(product, *one, call, rows, &views)?,
                _ => self.several_keys(product, rotations, strides.sums, (&call, &rows), &views)?,
            }
        }
        Ok(())
    }

    /// How many keys a dispatch reads: they must be alike, bound whole, and held at the same time.
    fn keys_at_once(&self, rotations: &[KeyRotation<'_>]) -> usize {
        let limits = self.device.limits();
        let Some(shape) = rotations.first().map(|r| r.key.shape()) else { return 1 };
        let bytes = shape.bytes() as u64;
        let room = self.memory.budget().is_none_or(|budget| u64::from(KEYS) * bytes <= budget / 2);
        let alike = rotations.iter().all(|r| r.key.shape() == shape);
        let bound = limits.storage_buffers >= Kernel::KeyInnerProducts.storage_buffers() && bytes <= limits.binding;
        if alike && bound && room { KEYS as usize } else { 1 }
    }

    /// Arguments of some rotations from a first one on, and what is bound but for keys: operands, output, own, added, plus.
    fn key_call<'a>(
        &'a self,
        product: &KeyProduct<'a>,
        rotations: &[KeyRotation<'_>],
        strides: Strides,
        first: usize,
        out: Window<'a>,
    ) -> (Call, Vec<KeyProductRow>, [View<'a>; 5]) {
        let KeyProduct { plan, digits, own, added, plus, .. } = *product;
        let count = plan.digits.len();
        let mut call = Call {
            log_degree: self.tables.log_n(),
            limb_count: word(plan.extended.len()),
            key_limbs: word(rotations.first().map_or(0, |r| r.key.shape().limbs)),
            end_digit: word(count),
            digits: word(count),
            adds: u32::from(strides.adds || (strides.sums && first > 0)),
            operand: word(first * strides.digits),
            output: word(out.first + if strides.sums { 0 } else { first * strides.output }),
            rotations: word(rotations.len()),
            sums: u32::from(strides.sums),
            operand_rotation: word(strides.digits),
            own_rotation: word(strides.own),
            added_rotation: word(strides.added),
            output_rotation: word(strides.output),
            ..Default::default()
        };
        let mut views = [digits, out.view, self.moduli(), self.moduli(), self.moduli()];
        if let Some((window, _)) = own {
            (call.reads_own, call.own, call.own_stride) = (1, word(window.first + first * strides.own), word(window.stride));
            views[2] = window.view;
        }
        if let Some(added) = added {
            let at = added.first;
            [call.added, call.added_stride, call.added_second] =
                [at.first + first * strides.added, at.stride, added.second].map(word);
            views[3] = at.view;
        }
        if let Some(plus) = plus {
            [call.plus, call.plus_stride, call.plus_second] = [plus.first, plus.stride, plus.stride / 2].map(word);
            views[4] = plus.view;
        }
        let mut rows = Vec::with_capacity(plan.extended.len());
        for (l, (&id, &key_limb)) in plan.extended.limbs().iter().zip(&plan.key_limbs).enumerate() {
            let owner = own.and_then(|(_, layout)| (0..count).find_map(|k| layout.own_at(k, l).map(|from| [k + 1, from])));
            let [owner, own_limb] = owner.unwrap_or([0, 0]).map(word);
            let m = self.tables.modulus(id);
            let (added_limb, added_factor) = match added.and_then(|a| a.lift) {
                None => (l + 1, m.r()),
                Some(lift) => (lift.source_position[l].map_or(0, |p| p + 1), m.to_mont(lift.keep[l])),
            };
            let (prime, key_limb, added_limb) = (u32::from(id.0), word(key_limb), word(added_limb));
            rows.push(KeyProductRow { prime, key_limb, owner, own_limb, added_limb, added_factor, ..Default::default() });
        }
        plan.key_digits.iter().enumerate().for_each(|(k, &digit)| row(&mut rows, k).key_digit = word(digit));
        rotations.iter().enumerate().for_each(|(r, rotation)| row(&mut rows, r).galois = rotation.galois);
        (call, rows, views)
    }

    /// Whether [`Self::rotated_products`] takes so many sums of these rotations: keys at the same time, and one rotation without.
    pub(super) fn takes_rotations(&self, rotations: &[Rotation<'_>], sums: usize) -> bool {
        let keyed: Vec<_> = rotations.iter().filter_map(|r| Some(KeyRotation { galois: r.galois, key: r.key? })).collect();
        sums <= PRODUCTS as usize && keyed.len() + 1 >= rotations.len() && self.keys_at_once(&keyed) > 1
    }

    /// Sums of products of plaintexts with rotations of the same digits, which are not written.
    pub(super) fn rotated_products(
        &self,
        product: &KeyProduct<'_>,
        rotations: &[Rotation<'_>],
        of: &PlainSums<'_>,
        out: Window<'_>,
    ) -> Result<()> {
        let &PlainSums { plain, log_repeat, table, sums } = of;
        let kernel = Kernel::RotatedInnerProduct;
        let keyed: Vec<(usize, KeyRotation<'_>)> = (rotations.iter().enumerate())
            .filter_map(|(r, rotation)| Some((r, KeyRotation { galois: rotation.galois, key: rotation.key? })))
            .collect();
        let unkeyed: Vec<usize> = (0..rotations.len()).filter(|&r| rotations[r].key.is_none()).collect();
        for (i, run) in keyed.chunks(KEYS as usize).enumerate() {
            let here: Vec<_> = run.iter().map(|&(_, rotation)| rotation).collect();
            let (mut call, mut rows, [operands, out, _, added, _]) = self.key_call(product, &here, Strides::default(), 0, out);
            let mut numbers: Vec<usize> = run.iter().map(|&(r, _)| r).collect();
            if i == 0
                && let [r] = unkeyed[..]
            {
                row(&mut rows, numbers.len()).galois = 0;
                numbers.push(r);
            }
            for (r, &number) in numbers.iter().enumerate() {
                for (s, &plaintext) in table[number].iter().enumerate() {
                    row(&mut rows, r * PRODUCTS as usize + s).plaintext = word(plaintext);
                }
                // Rows that no sum asks for are read too.
                row(&mut rows, (r + 1) * PRODUCTS as usize - 1);
            }
            call.adds = u32::from(i > 0);
            [call.rotations, call.shards, call.products, call.log_repeat] =
                [numbers.len(), product.shards, sums, log_repeat].map(word);
            let held = here.iter().map(|r| self.key(r.key, kernel.row().name)).collect::<Result<Vec<_>>>()?;
            let words_of_key = here[0].key.shape().words();
            let key = |k: usize| View { words: words_of_key, ..held[k.min(held.len() - 1)].view() };
            let mut views = vec![self.moduli(), operands, key(0), out, added, plain];
            views.extend((1..KEYS as usize).map(key));
            let grid = [product.shards, self.tiles(), product.plan.extended.len()];
            let factors = table.iter().flatten().filter(|&&p| p > 0).collect::<HashSet<_>>().len();
            let (shards, digits) = (product.shards, product.plan.digits.len());
            let polys = (digits + 2 + 2 * sums * (1 + usize::from(i > 0))) * shards + 2 * digits * here.len();
            let moved = self.extended_words(product.plan) * polys + (self.extended_words(product.plan) >> log_repeat) * factors;
            self.device.dispatch(kernel, &words(&call, &rows), &views, grid, moved)?;
        }
        Ok(())
    }

    fn extended_words(&self, plan: &KeySwitchTables) -> usize {
        plan.extended.len() * self.tables.degree()
    }

    /// Words that a product with some keys moves, of which `digits` are of this call.
    fn product_words(&self, product: &KeyProduct<'_>, call: &Call, digits: usize, summed: bool) -> usize {
        let rotations = call.rotations as usize;
        let apart = if call.operand_rotation > 0 { rotations } else { 1 };
        let written = if summed { 1 } else { rotations };
        let lifted =
            product.added.map_or(0, |a| (1 + usize::from(a.second > 0)) * if call.added_rotation > 0 { rotations } else { 1 });
        let more = lifted + 2 * usize::from(product.plus.is_some());
        let polys = product.shards * (digits * apart + 2 * written * (1 + call.adds as usize) + more) + 2 * digits * rotations;
        polys * self.extended_words(product.plan)
    }

    fn several_keys(
        &self,
        product: &KeyProduct<'_>,
        rotations: &[KeyRotation<'_>],
        summed: bool,
        (call, rows): (&Call, &[KeyProductRow]),
        &[operands, out, own, added, plus]: &[View<'_>; 5],
    ) -> Result<()> {
        let kernel = Kernel::KeyInnerProducts;
        let held = rotations.iter().map(|r| self.key(r.key, kernel.row().name)).collect::<Result<Vec<_>>>()?;
        let bound = rotations[0].key.shape().words();
        let key = |k: usize| View { words: bound, ..held[k.min(held.len() - 1)].view() };
        let mut views = vec![self.moduli(), operands, key(0), out, own, added, plus];
        // The last is bound again and not read, where there are fewer.
        views.extend((1..KEYS as usize).map(key));
        let limbs = product.plan.extended.len() * if summed { 1 } else { rotations.len() };
        let moved = self.product_words(product, call, product.plan.digits.len(), summed);
        self.device.dispatch(kernel, &words(call, rows), &views, [product.shards, self.tiles(), limbs], moved)
    }

    fn key_by_parts(
        &self,
        product: &KeyProduct<'_>,
        rotation: KeyRotation<'_>,
        mut call: Call,
        rows: Vec<KeyProductRow>,
        &[operands, out, own, added, plus]: &[View<'_>; 5],
    ) -> Result<()> {
        let op = Kernel::KeyInnerProduct.row().name;
        let held = self.key(rotation.key, op)?;
        let shape = rotation.key.shape();
        let at = held.view();
        let pairs = Polys { block: at.block, first: at.first, size: 2 * shape.poly_words(), count: shape.polys / 2 };
        for (i, (digits, bound)) in self.key_parts(product.plan, shape)?.iter().enumerate() {
            let key = pairs.window(bound.start, bound.len());
            [call.first_digit, call.end_digit, call.bound_digit] = [digits.start, digits.end, bound.start].map(word);
            if i > 0 {
                // What is added has been added by the first part.
                (call.adds, call.added_stride, call.plus_stride) = (1, 0, 0);
            }
            let views = [self.moduli(), operands, key.view, out, own, added, plus];
            let grid = [product.shards, self.tiles(), product.plan.extended.len()];
            let moved = self.product_words(product, &call, digits.len(), false);
            self.device.dispatch(Kernel::KeyInnerProduct, &words(&call, &rows), &views, grid, moved)?;
        }
        Ok(())
    }

    /// Ranges of the digits, and with each the digits of the key that are bound for it.
    fn key_parts(&self, plan: &KeySwitchTables, key: Shape) -> Result<Vec<(Range<usize>, Range<usize>)>> {
        let size = 2 * key.poly_words();
        let most = self.bound_words() / size.max(1);
        if key.polys / 2 <= most {
            return Ok(vec![(0..plan.digits.len(), 0..key.polys / 2)]);
        }
        if most == 0 {
            return Err(BackendError::OutOfMemory { op: Kernel::KeyInnerProduct.row().name, bytes: 4 * size });
        }
        let mut parts: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        for (k, &number) in plan.key_digits.iter().enumerate() {
            if let Some((digits, bound)) = parts.last_mut() {
                let joined = bound.start.min(number)..bound.end.max(number + 1);
                if joined.len() <= most {
                    *bound = joined;
                    digits.end = k + 1;
                    continue;
                }
            }
            parts.push((k..k + 1, number..number + 1));
        }
        Ok(parts)
    }
}

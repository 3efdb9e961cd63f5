//! Circuits on levels alone: what a run will do, counted by the code that does it.

use super::{CircuitError, DiagonalTransform, Engine, Gadgets, LinearTransform, Switch, check, linear_transform::Product};
use crate::ckks::{CkksError, Gadget, KeyRequest, Level, Params};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

type Result<T> = std::result::Result<T, CircuitError>;

/// How often each operation happens, shard by shard (a rotation of S shards counts S times).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Rotations by a nonzero amount, hoisted or not.
    pub rotations: usize,
    /// Those of them that shared a mod_up.
    pub hoisted_rotations: usize,
    /// Complex conjugations.
    pub conjugations: usize,
    /// Products with a key (rotations, conjugations and relinearizations).
    pub key_switches: usize,
    /// Decompositions into digits.
    pub mod_ups: usize,
    /// Divisions by P.
    pub mod_downs: usize,
    /// Plaintext-ciphertext products.
    pub plaintext_products: usize,
    /// Products with plaintexts encoded beforehand, in the extended basis.
    pub prepared_products: usize,
    /// Ciphertext-ciphertext products before relinearization; one that is doubled counts twice.
    pub ciphertext_products: usize,
    /// Rescalings, those merged with a mod_down included.
    pub rescales: usize,
    /// Rescalings merged with a mod_down: one division for both.
    pub merged: usize,
    /// Keys read from memory: one read serves all shards.
    pub key_reads: usize,
    /// Ciphertexts read or written word by word, beside what the above do: a sum reads two and writes one.
    pub sweeps: usize,
    /// Decompositions, products with a key and divisions, counted once whatever the shards: each is shared out to threads anew.
    pub calls: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, o: Self) {
        self.rotations += o.rotations;
        self.hoisted_rotations += o.hoisted_rotations;
        self.conjugations += o.conjugations;
        self.key_switches += o.key_switches;
        self.mod_ups += o.mod_ups;
        self.mod_downs += o.mod_downs;
        self.plaintext_products += o.plaintext_products;
        self.prepared_products += o.prepared_products;
        self.ciphertext_products += o.ciphertext_products;
        self.rescales += o.rescales;
        self.merged += o.merged;
        self.key_reads += o.key_reads;
        self.sweeps += o.sweeps;
        self.calls += o.calls;
    }
}

impl Counts {
    /// One key switch of each of `shards`: the sum with the first halves and a permutation are three sweeps.
    fn switches(shards: usize) -> Self {
        Self {
            key_switches: shards,
            key_reads: 1,
            mod_ups: shards,
            mod_downs: shards,
            sweeps: 3 * shards,
            calls: 2,
            ..Self::default()
        }
    }
}

impl std::ops::Sub for Counts {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        Self {
            rotations: self.rotations - o.rotations,
            hoisted_rotations: self.hoisted_rotations - o.hoisted_rotations,
            conjugations: self.conjugations - o.conjugations,
            key_switches: self.key_switches - o.key_switches,
            mod_ups: self.mod_ups - o.mod_ups,
            mod_downs: self.mod_downs - o.mod_downs,
            plaintext_products: self.plaintext_products - o.plaintext_products,
            prepared_products: self.prepared_products - o.prepared_products,
            ciphertext_products: self.ciphertext_products - o.ciphertext_products,
            rescales: self.rescales - o.rescales,
            merged: self.merged - o.merged,
            key_reads: self.key_reads - o.key_reads,
            sweeps: self.sweeps - o.sweeps,
            calls: self.calls - o.calls,
        }
    }
}

/// What a traced circuit did.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// Totals.
    pub counts: Counts,
    /// The same by the level at which it happened.
    pub by_level: BTreeMap<Level, Counts>,
    /// Every key switch, at its level and with its gadget.
    pub switches: BTreeSet<(Level, Switch, Gadget)>,
    /// Whether a modulus was raised.
    pub raised: bool,
}

impl Trace {
    /// Adds what another trace counted.
    pub fn add_counts(&mut self, other: &Self) {
        self.counts += other.counts;
        for (&level, &counts) in &other.by_level {
            *self.by_level.entry(level).or_default() += counts;
        }
    }
    /// Adds everything of another trace.
    pub fn add(&mut self, other: &Self) {
        self.add_counts(other);
        self.switches.extend(&other.switches);
        self.raised |= other.raised;
    }
    /// The keys of all that was switched, each once.
    ///
    /// # Errors
    /// [`CircuitError::Ckks`] where a modulus was raised and the parameter set does not bootstrap.
    pub fn keys(&self, params: &Params) -> Result<Vec<KeyRequest>> {
        let mut keys: BTreeSet<KeyRequest> =
            self.switches.iter().map(|&(_, switch, gadget)| switch.key(params, gadget)).collect();
        if self.raised {
            keys.extend(params.encapsulation_requests().map_err(CkksError::from)?);
        }
        Ok(keys.into_iter().collect())
    }
    /// The levels of a kind of switch, ascending.
    pub fn levels_of(&self, kind: impl Fn(Switch) -> bool) -> BTreeSet<Level> {
        self.switches.iter().filter(|(_, switch, _)| kind(*switch)).map(|(level, ..)| *level).collect()
    }
}

/// Tracks shards and levels, counts operations and notes which keys they need.
#[derive(Debug, Default)]
pub struct TraceEngine {
    trace: Mutex<Trace>,
}

/// A value without numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceValue {
    /// Shards.
    pub shards: usize,
    /// Level.
    pub level: Level,
}

impl TraceEngine {
    /// What happened so far.
    pub fn trace(&self) -> Trace {
        self.lock().clone()
    }
    /// What happened since the last call, or the beginning.
    pub fn take(&self) -> Trace {
        std::mem::take(&mut *self.lock())
    }
    /// Totals so far.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, Trace> {
        self.trace.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
    fn note(&self, level: Level, counts: Counts) {
        let mut trace = self.lock();
        trace.counts += counts;
        *trace.by_level.entry(level).or_default() += counts;
    }
    fn note_switch(&self, level: Level, switch: Switch, gadget: Gadget) {
        self.lock().switches.insert((level, switch, gadget));
    }
    fn note_rotation(&self, x: &TraceValue, k: usize, gadgets: &Gadgets, counts: Counts) -> Result<()> {
        if k != 0 {
            self.note(x.level, counts);
            self.note_switch(x.level, Switch::Rotation(k), gadgets.rotation(x.level)?);
        }
        Ok(())
    }
    fn conjugate(&self, x: &TraceValue, gadgets: &Gadgets) -> Result<()> {
        let s = x.shards;
        // The sum with the first halves, and the permutation.
        let switch = Counts { conjugations: s, ..Counts::switches(s) };
        self.note(x.level, switch);
        self.note_switch(x.level, Switch::Conjugation, gadgets.rotation(x.level)?);
        Ok(())
    }
    /// Everything of a transform but the division at the end.
    fn double_hoisted(&self, x: &TraceValue, t: &DiagonalTransform, gadgets: &Gadgets) -> Result<()> {
        let s = x.shards;
        let babies = t.babies().iter().filter(|&&b| b != 0).count();
        let giants = t.sums().len() - 1;
        self.note(
            x.level,
            Counts {
                rotations: s * (babies + giants),
                hoisted_rotations: s * babies,
                key_switches: s * (babies + giants),
                key_reads: babies + giants,
                calls: 2 + 2 * giants,
                mod_ups: s * (usize::from(babies > 0) + giants),
                // Only one half of what a giant turns is divided.
                mod_downs: (s * giants).div_ceil(2),
                prepared_products: s * t.products(),
                ..Counts::default()
            },
        );
        for k in t.rotations() {
            self.note_switch(x.level, Switch::Rotation(k), gadgets.rotation(x.level)?);
        }
        Ok(())
    }
    fn unpack(&self, x: &TraceValue, count: usize, gadgets: &Gadgets) -> Result<()> {
        self.conjugate(x, gadgets)?;
        // A sum, a difference and a product of every pair, and the parts copied one by one, then together.
        self.note(x.level, Counts { sweeps: 8 * x.shards + 4 * count, ..Counts::default() });
        Ok(())
    }
    fn sweep(&self, x: &TraceValue, sweeps: usize) {
        self.note(x.level, Counts { sweeps: sweeps * x.shards, ..Counts::default() });
    }
}

impl Engine for TraceEngine {
    type Value = TraceValue;
    type Sum = (TraceValue, bool);

    fn level(&self, x: &TraceValue) -> Level {
        x.level
    }
    fn shards(&self, x: &TraceValue) -> usize {
        x.shards
    }
    fn add(&self, a: TraceValue, b: &TraceValue) -> Result<TraceValue> {
        check::same("add", self, &a, b)?;
        self.sweep(&a, 3);
        Ok(a)
    }
    fn sub(&self, a: TraceValue, b: &TraceValue) -> Result<TraceValue> {
        check::same("sub", self, &a, b)?;
        self.sweep(&a, 3);
        Ok(a)
    }
    fn add_scalar(&self, x: TraceValue, _: f64) -> Result<TraceValue> {
        self.sweep(&x, 1);
        Ok(x)
    }
    fn multiply_sum(&self, pairs: &[(&TraceValue, &TraceValue)], gadgets: &Gadgets) -> Result<TraceValue> {
        let level = check::product(self, pairs)?;
        let x = pairs[0].0;
        let s = x.shards;
        self.note(
            x.level,
            Counts {
                ciphertext_products: s * pairs.len(),
                key_switches: s,
                key_reads: 1,
                mod_ups: s,
                mod_downs: s,
                rescales: s,
                merged: s,
                calls: 3,
                ..Counts::default()
            },
        );
        self.note_switch(x.level, Switch::Relinearization, gadgets.product(x.level)?);
        Ok(TraceValue { shards: s, level })
    }
    fn weighted_sum(&self, values: &[&TraceValue], coefficients: &[f64], _: f64, to: Level) -> Result<TraceValue> {
        let first = check::weighted_sum(self, values, coefficients, to)?;
        let s = first.shards;
        // One value is weighted by the rescale itself.
        let sweeps = if values.len() > 1 { s * (values.len() + 1) } else { 0 };
        self.note(first.level, Counts { rescales: s, sweeps, calls: 1, ..Counts::default() });
        Ok(TraceValue { shards: s, level: to })
    }
    fn multiply_plain(&self, x: &TraceValue, factor: &[Vec<f64>]) -> Result<TraceValue> {
        let level = check::multiply_plain(self, x, factor)?;
        self.note(x.level, Counts { plaintext_products: x.shards, rescales: x.shards, calls: 1, ..Counts::default() });
        Ok(TraceValue { shards: x.shards, level })
    }
    fn add_plain(&self, x: &TraceValue, offset: &[Vec<f64>]) -> Result<TraceValue> {
        check::add_plain(self, x, offset)?;
        Ok(*x)
    }
    fn drop_to(&self, x: &TraceValue, level: Level) -> Result<TraceValue> {
        check::drop_to(self, x, level)?;
        if level < x.level {
            self.note(x.level, Counts { rescales: x.shards, calls: 1, ..Counts::default() });
        }
        Ok(TraceValue { shards: x.shards, level })
    }
    fn rotate(&self, x: &TraceValue, k: usize, gadgets: &Gadgets) -> Result<TraceValue> {
        let s = x.shards;
        let switch = Counts { rotations: s, ..Counts::switches(s) };
        self.note_rotation(x, k, gadgets, switch)?;
        Ok(*x)
    }
    fn rotate_all(&self, x: &TraceValue, ks: &[usize], gadgets: &Gadgets) -> Result<TraceValue> {
        let s = x.shards;
        if ks.iter().any(|&k| k != 0) {
            self.note(x.level, Counts { mod_ups: s, calls: 1, ..Counts::default() });
        }
        for &k in ks {
            self.note_rotation(
                x,
                k,
                gadgets,
                Counts {
                    rotations: s,
                    hoisted_rotations: s,
                    key_switches: s,
                    key_reads: 1,
                    mod_downs: s,
                    // The first halves are added, and all is permuted on its way out.
                    sweeps: 4 * s,
                    calls: 1,
                    ..Counts::default()
                },
            )?;
        }
        Ok(TraceValue { shards: s * ks.len(), level: x.level })
    }
    fn select(&self, x: &TraceValue, shards: std::ops::Range<usize>) -> Result<TraceValue> {
        check::select(self, x, &shards)?;
        let part = TraceValue { shards: shards.len(), level: x.level };
        self.sweep(&part, 2);
        Ok(part)
    }
    fn join(&self, values: &[TraceValue]) -> Result<TraceValue> {
        check::join(self, values)?;
        let all = TraceValue { shards: values.iter().map(|v| v.shards).sum(), level: values[0].level };
        if values.len() > 1 {
            self.sweep(&all, 2);
        }
        Ok(all)
    }
    fn pack_pairs(&self, x: &TraceValue) -> Result<TraceValue> {
        // Each pair: two copies, a product, a sum; and all once more when they are put together.
        self.sweep(x, 6);
        Ok(TraceValue { shards: x.shards.div_ceil(2), level: x.level })
    }
    fn real_parts(&self, x: &TraceValue, gadgets: &Gadgets) -> Result<TraceValue> {
        self.conjugate(x, gadgets)?;
        self.sweep(x, 3);
        Ok(*x)
    }
    fn unpack_pairs(&self, x: &TraceValue, count: usize, gadgets: &Gadgets) -> Result<TraceValue> {
        check::unpack_pairs(self, x, count)?;
        self.unpack(x, count, gadgets)?;
        Ok(TraceValue { shards: count, level: x.level })
    }
    fn inner_product(&self, rotated: &TraceValue, _: &LinearTransform, sums: &[Vec<Product>]) -> Result<TraceValue> {
        check::inner_product(self, rotated, sums)?;
        self.note(rotated.level, Counts { plaintext_products: sums.iter().map(Vec::len).sum(), ..Counts::default() });
        Ok(TraceValue { shards: sums.len(), level: rotated.level })
    }
    fn accumulate_rotated(&self, sum: &mut Option<(TraceValue, bool)>, x: TraceValue, k: usize, gadgets: &Gadgets) -> Result<()> {
        check::accumulate(self, sum.map(|(s, _)| (s.level, s.shards)), &x)?;
        let s = x.shards;
        // P times the first halves, and the sum, in the extended basis.
        let switch =
            Counts { rotations: s, key_switches: s, key_reads: 1, mod_ups: s, sweeps: 6 * s, calls: 2, ..Counts::default() };
        self.note_rotation(&x, k, gadgets, switch)?;
        let extended = sum.is_some_and(|(_, e)| e) || k != 0;
        *sum = Some((x, extended));
        Ok(())
    }
    fn finish(&self, (x, extended): (TraceValue, bool)) -> Result<TraceValue> {
        let level = check::finish(x.level)?;
        let mod_downs = if extended { x.shards } else { 0 };
        self.note(x.level, Counts { mod_downs, rescales: x.shards, merged: mod_downs, calls: 1, ..Counts::default() });
        Ok(TraceValue { shards: x.shards, level })
    }
    fn transform(&self, x: &TraceValue, t: &DiagonalTransform, gadgets: &Gadgets) -> Result<TraceValue> {
        let level = check::transform(self, x)?;
        self.double_hoisted(x, t, gadgets)?;
        let mod_downs = if t.rotations().is_empty() { 0 } else { x.shards };
        self.note(x.level, Counts { mod_downs, rescales: x.shards, merged: mod_downs, calls: 1, ..Counts::default() });
        Ok(TraceValue { shards: x.shards, level })
    }
    fn transform_parts(&self, x: &TraceValue, t: &DiagonalTransform, count: usize, gadgets: &Gadgets) -> Result<TraceValue> {
        let level = check::transform_parts(self, x, count)?;
        self.double_hoisted(x, t, gadgets)?;
        let mod_downs = if t.rotations().is_empty() { 0 } else { x.shards };
        self.note(x.level, Counts { mod_downs, rescales: count, calls: 2, ..Counts::default() });
        self.unpack(x, count, gadgets)?;
        Ok(TraceValue { shards: count, level })
    }
    fn mod_raise(&self, x: &TraceValue, params: &Params) -> Result<TraceValue> {
        check::mod_raise(self, x, params)?;
        let s = x.shards;
        let level = params.max_level();
        let switch =
            Counts { key_switches: s, key_reads: 1, mod_ups: s, mod_downs: s, sweeps: 2 * s, calls: 2, ..Counts::default() };
        self.note(x.level, switch);
        self.note(level, switch);
        self.lock().raised = true;
        Ok(TraceValue { shards: s, level })
    }
    fn scaled_by(&self, x: &TraceValue, _: f64) -> Result<TraceValue> {
        Ok(*x)
    }
}

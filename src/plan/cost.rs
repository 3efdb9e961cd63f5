//! What operations cost, in seconds: how often each happens times what it was measured to take.
//!
//! A run is made of a few kinds of operations (decompositions, products with keys, divisions, ...). Each kind is timed as runs do it, on
//! operands that come from memory, not from a cache that the last repetition filled, and its time is divided by its work: limbs
//! transformed, multiplied, read. At another level there is other work at the same rate.

use super::planner::switch_shape;
use crate::{
    backend::{Backend, BackendError, Buffer, HoistedRotations, KeySwitchTables, PlainTerm, PolySelect, Rotation, Shape},
    circuits::{Counts, trace::Trace},
    ckks::{CkksError, Encoder, Integers, Level, Params, ParamsError, PlainForm},
    math::{Basis, BasisChange},
};
use std::{sync::Arc, time::Instant};

/// Seconds for a limb of N words, on all threads together.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CostModel {
    /// One transform in a decomposition into digits.
    pub decompose: f64,
    /// One transform in a division by special primes, or by primes that leave, or by both.
    pub divide: f64,
    /// One multiply-accumulate of a digit with a limb of a key at hand, what follows included.
    pub product: f64,
    /// One limb of a key brought from memory.
    pub key: f64,
    /// One limb of the four products of two halves each, before relinearization.
    pub tensor: f64,
    /// Transform and rounding of one plaintext (before its residues).
    pub encode: f64,
    /// One limb of a plaintext product: residues, transform, and the products with both halves.
    pub plain: f64,
    /// One limb of the product of a half with a plaintext at hand.
    pub prepared: f64,
    /// One limb read or written word by word.
    pub sweep: f64,
    /// What a decomposition, a product with a key or a division takes beside its limbs: its loops are shared out to threads. In
    /// seconds, whatever N.
    pub call: f64,
}

/// The device that plans are decided for: what is cheap there is used more.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A processor: costs in the proportions of [`CostModel::typical`], the same everywhere.
    #[default]
    Processor,
    /// A GPU of these rates.
    #[cfg(feature = "gpu")]
    Gpu(crate::backend::gpu::Rates),
}

impl Target {
    /// What operations cost there.
    ///
    /// # Errors
    /// As [`CostModel::measure`], for a GPU.
    pub fn cost(&self, params: &Arc<Params>) -> Result<CostModel, CkksError> {
        match self {
            Self::Processor => Ok(CostModel::typical(params.degree())),
            #[cfg(feature = "gpu")]
            Self::Gpu(rates) => CostModel::of_gpu(params, rates),
        }
    }
}

/// A multiply-accumulate of base conversion in transforms of a limb (docs/kernels.md).
const CONVERSION: f64 = 1.0 / 16.0;

/// The shape of key switching at a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SwitchShape {
    /// Limbs of the ciphertext, L.
    pub limbs: usize,
    /// Limbs after the rescale that follows.
    pub limbs_below: usize,
    /// Limbs that the rescale divides by.
    pub dropped: usize,
    /// Special primes, alpha.
    pub special: usize,
    /// Digits, beta.
    pub digits: usize,
}

impl SwitchShape {
    /// Limbs of the extended basis.
    fn extended(&self) -> f64 {
        (self.limbs + self.special) as f64
    }
    /// Transforms of a decomposition of one polynomial, conversions among them.
    fn decomposition(&self) -> f64 {
        let converted = self.limbs as f64 * (self.extended() - self.special as f64).max(0.0);
        self.digits as f64 * self.extended() + CONVERSION * converted
    }
}

/// Transforms of a division of one polynomial that ends with `target` limbs.
fn division(dropped: usize, target: usize) -> f64 {
    (dropped + target) as f64 + CONVERSION * (dropped * target) as f64
}

impl CostModel {
    /// A stand-in for planning without a device: what [`Self::measure`] finds on four cores with AVX-512 (benches/record), in proportion to
    /// the degree.
    pub fn typical(degree: usize) -> Self {
        let scale = degree as f64 / 65536.0;
        let micro = |x: f64| x * 1e-6 * scale;
        Self {
            decompose: micro(32.0),
            divide: micro(34.0),
            product: micro(6.5),
            key: micro(3.0),
            tensor: micro(6.5),
            encode: micro(130.0),
            plain: micro(38.0),
            prepared: micro(7.0),
            sweep: micro(4.0),
            call: 230e-6,
        }
    }

    /// Measures every kind of operation at the highest level that values have, and what a call takes at the lowest. About a second at
    /// N = 2^16.
    ///
    /// # Errors
    /// [`CkksError::Params`] for a parameter set with a single level, [`CkksError::Backend`] for what the backend fails at.
    pub fn measure(params: &Arc<Params>, backend: &Arc<dyn Backend>) -> Result<Self, CkksError> {
        let start = Instant::now();
        Self::measure_by(params, backend, &|| {
            backend.synchronize()?;
            Ok(start.elapsed().as_secs_f64())
        })
    }

    /// The same by a clock that tells how many seconds all that was asked of the backend has taken.
    pub(super) fn measure_by(params: &Arc<Params>, backend: &Arc<dyn Backend>, clock: Clock<'_>) -> Result<Self, CkksError> {
        let bench = Bench::new(params, backend, params.working_level(), clock)?;
        let low = Bench::new(params, backend, Level(1), clock)?;
        // Seconds of a decomposition are work times a rate, plus a call.
        let (high_time, low_time) = (bench.mod_up()?, low.mod_up()?);
        let (high_work, low_work) = (bench.shape.decomposition(), low.shape.decomposition());
        let rate = positive((high_time - low_time) / (high_work - low_work).max(1.0), high_time / high_work);
        let call = (high_time - rate * high_work).max(0.0);
        let known = Self { decompose: rate, call, sweep: bench.sweep()?, ..Self::typical(params.degree()) };
        let known = Self { divide: bench.divide(&known)?, ..known };
        let (product, key, prepared) = bench.products(&known)?;
        let (encode, plain) = bench.plaintexts(params, backend)?;
        Ok(Self { product, key, prepared, tensor: bench.tensor()?, encode, plain, ..known })
    }

    /// Seconds of the decomposition of one polynomial into digits.
    pub fn mod_up(&self, s: &SwitchShape) -> f64 {
        self.decompose * s.decomposition()
    }
    /// Seconds of the product of the digits of one polynomial with a key at hand.
    pub fn key_product(&self, s: &SwitchShape) -> f64 {
        self.product * 2.0 * s.digits as f64 * s.extended()
    }
    /// Seconds to bring a key from memory, for any number of polynomials.
    pub fn key_read(&self, s: &SwitchShape) -> f64 {
        self.key * 2.0 * s.digits as f64 * s.extended()
    }
    /// Seconds of the division of two halves by P.
    pub fn mod_down(&self, s: &SwitchShape) -> f64 {
        self.divide * 2.0 * division(s.special, s.limbs)
    }
    /// Seconds of the rescale of two halves.
    pub fn rescale(&self, s: &SwitchShape) -> f64 {
        self.divide * 2.0 * division(s.dropped, s.limbs_below)
    }
    /// Seconds of the division of two halves by P and the rescale in one.
    pub fn mod_down_rescale(&self, s: &SwitchShape) -> f64 {
        self.divide * 2.0 * division(s.special + s.dropped, s.limbs_below)
    }
    /// Seconds of one plaintext product, encoding included.
    pub fn plaintext_product(&self, s: &SwitchShape) -> f64 {
        self.encode + self.plain * s.limbs as f64
    }
    /// Seconds of one product in the extended basis with a plaintext at hand.
    pub fn prepared_product(&self, s: &SwitchShape) -> f64 {
        self.prepared * 2.0 * s.extended()
    }
    /// Seconds of one product of ciphertexts before relinearization.
    pub fn ciphertext_product(&self, s: &SwitchShape) -> f64 {
        self.tensor * (4 * s.limbs) as f64
    }
    /// Seconds to read or write one ciphertext word by word.
    pub fn ciphertext_sweep(&self, s: &SwitchShape) -> f64 {
        self.sweep * (2 * s.limbs) as f64
    }

    /// Seconds of everything that a trace counted, each operation at its level.
    ///
    /// # Errors
    /// [`ParamsError::NoSuchLevel`] for a trace of a parameter set with more levels.
    pub fn price(&self, params: &Arc<Params>, trace: &Trace) -> Result<f64, ParamsError> {
        trace.by_level.iter().map(|(&level, counts)| Ok(self.seconds(counts, &switch_shape(params, level)?))).sum()
    }

    /// Seconds of everything counted at one level.
    pub fn seconds(&self, c: &Counts, s: &SwitchShape) -> f64 {
        c.mod_ups as f64 * self.mod_up(s)
            + c.key_switches as f64 * self.key_product(s)
            + c.key_reads as f64 * self.key_read(s)
            + c.mod_downs.saturating_sub(c.merged) as f64 * self.mod_down(s)
            + c.rescales.saturating_sub(c.merged) as f64 * self.rescale(s)
            + c.merged as f64 * self.mod_down_rescale(s)
            + c.plaintext_products as f64 * self.plaintext_product(s)
            + c.prepared_products as f64 * self.prepared_product(s)
            + c.ciphertext_products as f64 * self.ciphertext_product(s)
            + c.sweeps as f64 * self.ciphertext_sweep(s)
            + c.calls as f64 * self.call
    }
}

/// Bytes of operands that repetitions go through in turn: more than the caches of a processor hold.
const ROTATED: usize = 96 << 20;
/// Most of them.
const MOST: usize = 8;
/// Rotations that share digits.
const ROTATIONS: usize = 4;
/// Shards whose rotations share a key in one of the measurements; the other one has a single shard.
const SHARDS: usize = 3;

/// Seconds that all calls until now have taken.
type Clock<'a> = &'a dyn Fn() -> Result<f64, BackendError>;

/// Operands at a level, and what there is to do with them.
struct Bench<'a> {
    backend: &'a dyn Backend,
    clock: Clock<'a>,
    shape: SwitchShape,
    plan: Arc<KeySwitchTables>,
    rescale: Arc<BasisChange>,
    merged: Arc<BasisChange>,
    lift: Arc<BasisChange>,
    /// Ciphertexts of [`SHARDS`] shards, used in turn.
    cts: Vec<Buffer>,
    keys: Vec<Buffer>,
}

impl<'a> Bench<'a> {
    fn new(params: &Arc<Params>, backend: &'a Arc<dyn Backend>, level: Level, clock: Clock<'a>) -> Result<Self, CkksError> {
        let below = Level(level.0.saturating_sub(1));
        let gadget = params.best_gadget(level..=level)?;
        let plan = params.key_switch_tables(&gadget, level)?;
        let many = |shape: Shape| (0..(ROTATED / shape.bytes().max(1)).clamp(2, MOST)).map(move |i| (i, shape));
        let filled = |(i, shape)| filled(backend.as_ref(), shape, i);
        let ct = Shape::new(2 * SHARDS, plan.window.len(), params.degree());
        let key = Shape::new(2 * gadget.digits(), gadget.key_limbs(), params.degree());
        Ok(Self {
            backend: backend.as_ref(),
            clock,
            shape: switch_shape(params, level)?,
            rescale: params.rescale_change(level, below)?,
            merged: params.mod_down_rescale_change(&gadget, level, below)?,
            lift: params.lift_change(&gadget, level)?,
            cts: many(ct).map(filled).collect::<Result<_, _>>()?,
            keys: many(key).map(filled).collect::<Result<_, _>>()?,
            plan,
        })
    }

    /// Seconds of `f(i)`, the middle one of a few rounds over all operands.
    fn time<T>(&self, f: impl Fn(usize) -> Result<T, BackendError>) -> Result<f64, CkksError> {
        let count = self.cts.len().max(self.keys.len());
        let round = || {
            for i in 0..count {
                f(i)?;
            }
            Ok(())
        };
        middle(self.clock, round).map(|seconds| seconds / count as f64)
    }

    fn ct(&self, i: usize) -> &Buffer {
        &self.cts[i % self.cts.len()]
    }
    fn key(&self, i: usize) -> &Buffer {
        &self.keys[i % self.keys.len()]
    }
    /// The first shards of every operand.
    fn first(&self, shards: usize) -> Result<Vec<Buffer>, CkksError> {
        let polys = PolySelect { first: 0, stride: 1, count: 2 * shards };
        Ok(self.cts.iter().map(|ct| self.backend.select(ct, polys)).collect::<Result<_, _>>()?)
    }

    /// A decomposition of one polynomial.
    fn mod_up(&self) -> Result<f64, CkksError> {
        let one = PolySelect { first: 1, stride: 1, count: 1 };
        self.time(|i| self.backend.mod_up(self.ct(i), one, &self.plan))
    }

    fn divide(&self, known: &CostModel) -> Result<f64, CkksError> {
        let cts = self.first(1)?;
        let degree = cts[0].shape().degree;
        let extended = (0..cts.len()).map(|i| filled(self.backend, Shape::new(2, self.plan.extended.len(), degree), i));
        let extended = extended.collect::<Result<Vec<_>, _>>()?;
        let at = |all: &[Buffer], i: usize, change: &BasisChange| self.backend.change_basis(&all[i % all.len()], change);
        let (down, rescale) = (self.time(|i| at(&extended, i, &self.merged))?, self.time(|i| at(&cts, i, &self.rescale))?);
        let s = &self.shape;
        let work = division(s.special + s.dropped, s.limbs_below) + division(s.dropped, s.limbs_below);
        Ok(positive((down + rescale - 2.0 * known.call) / (2.0 * work), known.decompose))
    }

    fn sweep(&self) -> Result<f64, CkksError> {
        let limbs = 3 * self.ct(0).shape().polys * self.shape.limbs;
        Ok(self.time(|i| self.backend.add(self.ct(i), self.ct(i + 1), &self.plan.window))? / limbs as f64)
    }

    /// Some rotations of some shards that stay in the extended basis, and products of theirs with plaintexts a quarter as long as a
    /// polynomial.
    fn hoisted(&self, shards: usize, products: usize) -> Result<f64, CkksError> {
        let cts = self.first(shards)?;
        let degree = cts[0].shape().degree;
        let digits = self.backend.mod_up(&cts[0], PolySelect::second_halves(cts[0].shape()), &self.plan)?;
        let plain = filled(self.backend, Shape::new(8, self.plan.extended.len(), degree / 4), 0)?;
        let terms = [(0..products).map(|i| PlainTerm { plain: i % 8, source: i % (ROTATIONS * shards) }).collect::<Vec<_>>()];
        self.time(|i| {
            let rotation = |r: usize| Rotation { galois: 4 * r as u32 + 5, key: Some(self.key(i + r)) };
            let rotations: Vec<_> = (0..ROTATIONS).map(rotation).collect();
            let hoisted = HoistedRotations { ct: &cts[0], digits: &digits, rotations: &rotations, lift: &self.lift };
            self.backend.rotated_inner_product(hoisted, &self.plan, &plain, &terms)
        })
    }

    /// Products with a key, with that key brought from memory, and with a plaintext: from few and from many.
    fn products(&self, known: &CostModel) -> Result<(f64, f64, f64), CkksError> {
        const PRODUCTS: usize = 16;
        let extended = self.shape.extended();
        let limbs = 2.0 * self.shape.digits as f64 * extended;
        let one = self.hoisted(1, 1)?;
        let prepared = (self.hoisted(1, 1 + PRODUCTS)? - one) / (PRODUCTS as f64 * 2.0 * extended);
        let prepared = positive(prepared, known.sweep);
        // All of it for a single shard, and how much of that the next ones take: no more.
        let first = positive((one - known.call) / ROTATIONS as f64 / limbs, known.sweep);
        let next = (self.hoisted(SHARDS, 1)? - one) / (ROTATIONS * (SHARDS - 1)) as f64 / limbs;
        let product = next.clamp(0.1 * first, first);
        Ok((product, first - product, prepared))
    }

    fn tensor(&self) -> Result<f64, CkksError> {
        let cts = self.first(1)?;
        let one = self.time(|i| self.backend.tensor(&cts[i % cts.len()], &cts[(i + 1) % cts.len()], &self.plan.window))?;
        Ok(one / (4 * self.shape.limbs) as f64)
    }

    /// Encoding a plaintext, and one limb of its product.
    fn plaintexts(&self, params: &Arc<Params>, backend: &Arc<dyn Backend>) -> Result<(f64, f64), CkksError> {
        let encoder = Encoder::new(params.clone(), backend.clone());
        let window: &Basis = &self.plan.window;
        let (plains, scale) = (4 * rayon::current_num_threads().max(2), params.scale(Level(0)));
        let fill = |i: usize, re: &mut [f64], im: &mut [f64]| {
            re.iter_mut().enumerate().for_each(|(s, x)| *x = ((s * (i + 3)) % 17) as f64 - 8.0);
            im.copy_from_slice(re);
        };
        let mut integers = Integers::default();
        let encode = middle(self.clock, || encoder.integers_into(&mut integers, plains, fill, scale, window))? / plains as f64;
        let residues = encoder.residues(&integers, window, PlainForm::Montgomery)?;
        // Sums of a few products with ciphertexts of their own, as after the babies of a layer.
        let cts = self.backend.concat(&self.cts.iter().collect::<Vec<_>>())?;
        let term = |plain: usize| PlainTerm { plain, source: plain % (SHARDS * self.cts.len()) };
        let terms: Vec<Vec<PlainTerm>> = (0..plains).step_by(8).map(|first| (first..first + 8).map(term).collect()).collect();
        let product = self.time(|_| self.backend.encoded_inner_product(&cts, plains, &residues, &terms, window))?;
        Ok((encode, product / (plains * self.shape.limbs) as f64))
    }
}

/// Seconds of `f`: it is run once for nothing, then a few times, of which the middle one counts, as a run is disturbed now and then.
fn middle(clock: Clock<'_>, mut f: impl FnMut() -> Result<(), CkksError>) -> Result<f64, CkksError> {
    f()?;
    let mut times = [0.0; 3];
    for time in &mut times {
        let start = clock()?;
        f()?;
        *time = clock()? - start;
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// What is left of a time when others have been taken from it, which chance may make nothing or less: a tenth of something like it then.
fn positive(seconds: f64, like: f64) -> f64 {
    seconds.max(0.1 * like)
}

/// A buffer of some canonical words, each page with memory of its own.
fn filled(backend: &dyn Backend, shape: Shape, seed: usize) -> Result<Buffer, BackendError> {
    // Below 2^24, and so below every prime.
    let words: Vec<u32> = (0..shape.words()).map(|i| ((i + seed) as u32).wrapping_mul(2_654_435_761) >> 8).collect();
    backend.upload(shape, &words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backend::cpu::CpuBackend, ckks::presets};

    #[test]
    fn measured_rates_are_times_and_price_what_is_counted() {
        let params = presets::by_name("insecure-tiny").unwrap();
        let backend: Arc<dyn Backend> = Arc::new(CpuBackend::new(params.tables().clone()).unwrap());
        let m = CostModel::measure(&params, &backend).unwrap();
        let rates = [m.decompose, m.divide, m.product, m.tensor, m.encode, m.plain, m.prepared, m.sweep];
        assert!(rates.iter().all(|r| r.is_finite() && *r > 0.0), "{m:?}");
        assert!([m.key, m.call].iter().all(|r| r.is_finite() && *r >= 0.0), "{m:?}");

        let level = params.max_level();
        let s = switch_shape(&params, level).unwrap();
        let one = |counts: Counts| m.seconds(&counts, &s);
        let product = Counts {
            ciphertext_products: 1,
            key_switches: 1,
            key_reads: 1,
            mod_ups: 1,
            mod_downs: 1,
            rescales: 1,
            calls: 3,
            ..Counts::default()
        };
        let merged = one(Counts { merged: 1, ..product });
        let parts = m.ciphertext_product(&s) + m.key_product(&s) + m.key_read(&s) + m.mod_up(&s) + 3.0 * m.call;
        assert!((merged - parts - m.mod_down_rescale(&s)).abs() < 1e-12);
        assert!((one(product) - parts - m.mod_down(&s) - m.rescale(&s)).abs() < 1e-12);
        // One division for both is cheaper than one for each.
        assert!(merged < one(product));

        let mut trace = Trace::default();
        trace.by_level.insert(level, product);
        trace.by_level.insert(Level(1), product);
        let low = m.seconds(&product, &switch_shape(&params, Level(1)).unwrap());
        assert!((m.price(&params, &trace).unwrap() - one(product) - low).abs() < 1e-12);
        assert!(low < one(product));
    }
}

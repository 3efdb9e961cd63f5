//! Circuits on clear slot vectors: what the encrypted run would give without noise.

use super::{CircuitError, DiagonalTransform, Engine, Gadgets, LinearTransform, check, linear_transform::Product};
use crate::ckks::{
    Level, Params,
    encoder::fft::{Scratch, SlotTransform},
};
use chacha20::ChaCha20Rng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use std::{ops::Range, sync::Arc};

type Result<T> = std::result::Result<T, CircuitError>;

/// Evaluates on `f64` slot vectors, keeping count of levels.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClearEngine;

/// Shards of clear slots at a level.
#[derive(Debug, Clone)]
pub struct ClearValue {
    /// Real parts, `[shard][slot]`.
    pub shards: Arc<Vec<Vec<f64>>>,
    /// Imaginary parts: inside a linear transform with packed shards, and where bootstrapping has complex slots.
    imaginary: Option<Arc<Vec<Vec<f64>>>>,
    /// The level an encrypted value would be at.
    pub level: Level,
}

impl ClearValue {
    /// A value from its slots, `[shard][slot]`, as many in every shard.
    pub fn new(shards: Vec<Vec<f64>>, level: Level) -> Self {
        Self { shards: Arc::new(shards), imaginary: None, level }
    }
    /// A value from the real and the imaginary parts of its slots, each `[shard][slot]`.
    pub fn complex(re: Vec<Vec<f64>>, im: Vec<Vec<f64>>, level: Level) -> Self {
        Self { shards: Arc::new(re), imaginary: Some(Arc::new(im)), level }
    }
    /// Imaginary parts, `[shard][slot]`, if there are any.
    pub fn imaginary(&self) -> Option<&[Vec<f64>]> {
        self.imaginary.as_deref().map(Vec::as_slice)
    }
    fn map(&self, level: Level, f: impl Fn(f64) -> f64 + Sync) -> Self {
        Self::new(self.shards.par_iter().map(|s| s.iter().map(|&v| f(v)).collect()).collect(), level)
    }
    /// Refuses vectors of another number of slots; several times as many are the same ones, repeated.
    fn check_slots(&self, operation: &'static str, expected: usize) -> Result<()> {
        let all = self.shards.iter().chain(self.imaginary.iter().flat_map(|all| all.iter()));
        all.map(Vec::len)
            .find(|&found| found == 0 || !found.is_multiple_of(expected))
            .map_or(Ok(()), |found| Err(CircuitError::Slots { operation, expected, found }))
    }
    fn zip(&self, operation: &'static str, other: &[Vec<f64>], level: Level, f: impl Fn(f64, f64) -> f64 + Sync) -> Result<Self> {
        Ok(Self::new(zipped(operation, &self.shards, other, f)?, level))
    }
}

impl Engine for ClearEngine {
    type Value = ClearValue;
    type Sum = ClearValue;

    fn level(&self, x: &ClearValue) -> Level {
        x.level
    }
    fn shards(&self, x: &ClearValue) -> usize {
        x.shards.len()
    }
    fn add(&self, a: ClearValue, b: &ClearValue) -> Result<ClearValue> {
        check::same("add", self, &a, b)?;
        let imaginary = match (&a.imaginary, &b.imaginary) {
            (Some(a), Some(b)) => Some(Arc::new(zipped("add", a, b, |a, b| a + b)?)),
            (one, other) => one.clone().or(other.clone()),
        };
        Ok(ClearValue { imaginary, ..a.zip("add", &b.shards, a.level, |a, b| a + b)? })
    }
    fn sub(&self, a: ClearValue, b: &ClearValue) -> Result<ClearValue> {
        check::same("sub", self, &a, b)?;
        self.add(a, &self.scaled_by(b, -1.0)?)
    }
    fn add_scalar(&self, x: ClearValue, c: f64) -> Result<ClearValue> {
        Ok(x.map(x.level, |v| v + c))
    }
    fn multiply_sum(&self, pairs: &[(&ClearValue, &ClearValue)], _: &Gadgets) -> Result<ClearValue> {
        let level = check::product(self, pairs)?;
        let mut sum: Option<ClearValue> = None;
        for (a, b) in pairs {
            let product = a.zip("multiply", &b.shards, level, |a, b| a * b)?;
            sum = Some(match sum {
                Some(sum) => sum.zip("multiply", &product.shards, level, |s, p| s + p)?,
                None => product,
            });
        }
        sum.ok_or(CircuitError::Nothing { operation: "multiply" })
    }
    fn weighted_sum(&self, values: &[&ClearValue], coefficients: &[f64], constant: f64, to: Level) -> Result<ClearValue> {
        let first = check::weighted_sum(self, values, coefficients, to)?;
        let mut sum = first.map(to, |_| constant);
        for (v, &c) in values.iter().zip(coefficients) {
            sum = sum.zip("weighted sum", &v.shards, to, |s, v| s + c * v)?;
        }
        Ok(sum)
    }
    fn multiply_plain(&self, x: &ClearValue, factor: &[Vec<f64>]) -> Result<ClearValue> {
        let level = check::multiply_plain(self, x, factor)?;
        x.zip("multiply plain", factor, level, |a, b| a * b)
    }
    fn add_plain(&self, x: &ClearValue, offset: &[Vec<f64>]) -> Result<ClearValue> {
        check::add_plain(self, x, offset)?;
        x.zip("add plain", offset, x.level, |a, b| a + b)
    }
    fn drop_to(&self, x: &ClearValue, level: Level) -> Result<ClearValue> {
        check::drop_to(self, x, level)?;
        Ok(ClearValue { level, ..x.clone() })
    }
    fn rotate(&self, x: &ClearValue, k: usize, _: &Gadgets) -> Result<ClearValue> {
        let turn = |shards: &Arc<Vec<Vec<f64>>>| Arc::new(shards.par_iter().map(|s| turned(s, k)).collect::<Vec<_>>());
        Ok(ClearValue { shards: turn(&x.shards), imaginary: x.imaginary.as_ref().map(turn), level: x.level })
    }
    fn rotate_all(&self, x: &ClearValue, ks: &[usize], _: &Gadgets) -> Result<ClearValue> {
        let turn = |shards: &Arc<Vec<Vec<f64>>>| {
            Arc::new(ks.iter().flat_map(|&k| shards.iter().map(move |s| turned(s, k))).collect::<Vec<_>>())
        };
        Ok(ClearValue { shards: turn(&x.shards), imaginary: x.imaginary.as_ref().map(turn), level: x.level })
    }
    fn select(&self, x: &ClearValue, shards: Range<usize>) -> Result<ClearValue> {
        check::select(self, x, &shards)?;
        let part = |all: &Arc<Vec<Vec<f64>>>| Arc::new(all[shards.clone()].to_vec());
        Ok(ClearValue { shards: part(&x.shards), imaginary: x.imaginary.as_ref().map(part), level: x.level })
    }
    fn join(&self, values: &[ClearValue]) -> Result<ClearValue> {
        check::join(self, values)?;
        let all = |part: fn(&ClearValue) -> &Arc<Vec<Vec<f64>>>| Arc::new(values.iter().flat_map(|v| part(v).to_vec()).collect());
        let imaginary = values.iter().any(|v| v.imaginary.is_some()).then(|| {
            let zeros = |v: &ClearValue| v.shards.iter().map(|s| vec![0.0; s.len()]).collect::<Vec<_>>();
            Arc::new(values.iter().flat_map(|v| v.imaginary.as_ref().map_or_else(|| zeros(v), |im| im.to_vec())).collect())
        });
        Ok(ClearValue { shards: all(|v| &v.shards), imaginary, level: values[0].level })
    }
    fn pack_pairs(&self, x: &ClearValue) -> Result<ClearValue> {
        let zero = || vec![0.0; x.shards.first().map_or(0, Vec::len)];
        let (re, im) = x.shards.chunks(2).map(|pair| (pair[0].clone(), pair.get(1).cloned().unwrap_or_else(zero))).unzip();
        Ok(ClearValue::complex(re, im, x.level))
    }
    fn real_parts(&self, x: &ClearValue, _: &Gadgets) -> Result<ClearValue> {
        Ok(x.map(x.level, |v| 2.0 * v))
    }
    fn unpack_pairs(&self, x: &ClearValue, count: usize, _: &Gadgets) -> Result<ClearValue> {
        check::unpack_pairs(self, x, count)?;
        let twice = |s: &Vec<f64>| s.iter().map(|v| 2.0 * v).collect::<Vec<_>>();
        let zero = |s: &Vec<f64>| vec![0.0; s.len()];
        let shard = |k: usize| match &x.imaginary {
            _ if k.is_multiple_of(2) => twice(&x.shards[k / 2]),
            Some(im) => twice(&im[k / 2]),
            None => zero(&x.shards[k / 2]),
        };
        Ok(ClearValue::new((0..count).map(shard).collect(), x.level))
    }
    fn inner_product(&self, rotated: &ClearValue, transform: &LinearTransform, sums: &[Vec<Product>]) -> Result<ClearValue> {
        check::inner_product(self, rotated, sums)?;
        inner_products(&[rotated], transform, sums)?.pop().ok_or(CircuitError::EmptyMatrix)
    }
    fn accumulate_rotated(&self, sum: &mut Option<ClearValue>, x: ClearValue, k: usize, gadgets: &Gadgets) -> Result<()> {
        check::accumulate(self, sum.as_ref().map(|s| (s.level, s.shards.len())), &x)?;
        let turned = self.rotate(&x, k, gadgets)?;
        *sum = Some(match sum.take() {
            Some(s) => self.add(s, &turned)?,
            None => turned,
        });
        Ok(())
    }
    fn finish(&self, sum: ClearValue) -> Result<ClearValue> {
        Ok(ClearValue { level: check::finish(sum.level)?, ..sum })
    }
    fn transform(&self, x: &ClearValue, t: &DiagonalTransform, _: &Gadgets) -> Result<ClearValue> {
        let level = check::transform(self, x)?;
        x.check_slots("transform", t.slots())?;
        let shard = |(s, re): (usize, &Vec<f64>)| apply_to_shard(t, re, x.imaginary.as_ref().map(|im| im[s].as_slice()));
        let (re, im) = x.shards.par_iter().enumerate().map(shard).unzip();
        Ok(ClearValue::complex(re, im, level))
    }
    fn transform_parts(&self, x: &ClearValue, t: &DiagonalTransform, count: usize, gadgets: &Gadgets) -> Result<ClearValue> {
        check::transform_parts(self, x, count)?;
        self.unpack_pairs(&self.transform(x, t, gadgets)?, count, gadgets)
    }
    fn mod_raise(&self, x: &ClearValue, params: &Params) -> Result<ClearValue> {
        check::mod_raise(self, x, params)?;
        let bootstrap = params.need_bootstrap().map_err(crate::ckks::CkksError::from)?;
        let slots = params.slots();
        let fft = SlotTransform::new(params.log_n());
        let mut random = ChaCha20Rng::seed_from_u64(slots as u64);
        let repeated = |v: &[f64]| v.iter().cycle().take(slots).map(|v| v / params.message_ratio()).collect::<Vec<_>>();
        let (mut re, mut im) = (Vec::new(), Vec::new());
        for (s, shard) in x.shards.iter().enumerate() {
            let mut scratch = Scratch::new(slots);
            for integer in scratch.re.iter_mut().chain(&mut scratch.im) {
                // c1 times the sparse secret, over q0: a sum of as many uniform numbers, of which whole multiples stay.
                *integer = (0..bootstrap.weight).map(|_| random.random::<f64>() - 0.5).sum::<f64>().round();
            }
            let (mut shard_re, mut shard_im) = (vec![0.0; slots], vec![0.0; slots]);
            fft.to_slots(&mut scratch, 1.0, &mut shard_re, Some(&mut shard_im));
            shard_re.iter_mut().zip(repeated(shard)).for_each(|(r, v)| *r += v);
            if let Some(imaginary) = &x.imaginary {
                shard_im.iter_mut().zip(repeated(&imaginary[s])).for_each(|(i, v)| *i += v);
            }
            re.push(shard_re);
            im.push(shard_im);
        }
        Ok(ClearValue::complex(re, im, params.max_level()))
    }
    fn scaled_by(&self, x: &ClearValue, factor: f64) -> Result<ClearValue> {
        let scaled = |all: &Arc<Vec<Vec<f64>>>| Arc::new(all.iter().map(|s| s.iter().map(|v| v * factor).collect()).collect());
        Ok(ClearValue { shards: scaled(&x.shards), imaginary: x.imaginary.as_ref().map(scaled), level: x.level })
    }
}

/// [`Engine::inner_product`] of several values alike: a diagonal is made once for all of them, which costs as much as many products.
pub(super) fn inner_products(all: &[&ClearValue], transform: &LinearTransform, sums: &[Vec<Product>]) -> Result<Vec<ClearValue>> {
    let slots = transform.matrix().slots();
    all.iter().try_for_each(|x| x.check_slots("inner product", slots))?;
    let shards = |terms: &Vec<Product>| {
        let mut found = vec![(vec![0.0; slots], vec![0.0; slots]); all.len()];
        let (mut d_re, mut d_im) = (vec![0.0; slots], vec![0.0; slots]);
        for &Product { output, giant, term, source } in terms {
            transform.diagonal(output, term, &mut d_re, &mut d_im);
            // Turned back by its giant, the diagonal starts at this slot.
            let first = giant % slots.max(1);
            let stretches = [(first..slots, 0..slots - first), (0..first, slots - first..slots)];
            for (x, (re, im)) in all.iter().zip(&mut found) {
                let (x_re, x_im) = (&x.shards[source], x.imaginary.as_ref().map(|all| &all[source]));
                for (to, from) in &stretches {
                    let sum = (&mut re[to.clone()], &mut im[to.clone()]);
                    let x = (&x_re[to.clone()], x_im.map(|im| &im[to.clone()]));
                    add_products(sum, (&d_re[from.clone()], &d_im[from.clone()]), x);
                }
            }
        }
        found
    };
    let mut parts: Vec<(Vec<_>, Vec<_>)> = vec![(Vec::with_capacity(sums.len()), Vec::with_capacity(sums.len())); all.len()];
    for shard in sums.par_iter().map(shards).collect::<Vec<_>>() {
        for ((re, im), (shard_re, shard_im)) in parts.iter_mut().zip(shard) {
            re.push(shard_re);
            im.push(shard_im);
        }
    }
    Ok(all.iter().zip(parts).map(|(x, (re, im))| ClearValue::complex(re, im, x.level)).collect())
}

/// The definition, by baby and giant steps only in the order of the sum.
fn apply_to_shard(t: &DiagonalTransform, re: &[f64], im: Option<&[f64]>) -> (Vec<f64>, Vec<f64>) {
    let (slots, period) = (t.slots(), t.period());
    let (mut out_re, mut out_im) = (vec![0.0; slots], vec![0.0; slots]);
    for (g, sum) in t.sums().iter().enumerate() {
        for term in sum {
            let (d_re, d_im) = t.diagonal(term.diagonal);
            // rot_giant(D' rot_baby(x))[s] = D'[s + giant] x[s + giant + baby].
            let by = g * t.giant() % slots;
            let shift = by + t.babies()[term.baby];
            // In stretches within which neither the diagonal nor the operand starts again.
            let mut s = 0;
            while s < slots {
                let (d, x) = ((s + by) % period, (s + shift) % slots);
                let len = (period - d).min(slots - x).min(slots - s);
                let (d, x, to) = (d..d + len, x..x + len, s..s + len);
                let imaginary = im.map(|im| &im[x.clone()]);
                let sum = (&mut out_re[to.clone()], &mut out_im[to]);
                add_products(sum, (&d_re[d.clone()], &d_im[d]), (&re[x], imaginary));
                s += len;
            }
        }
    }
    (out_re, out_im)
}

/// `sum += d x`, complex; an imaginary part of x that is absent is 0.
fn add_products((re, im): (&mut [f64], &mut [f64]), (d_re, d_im): (&[f64], &[f64]), (x_re, x_im): (&[f64], Option<&[f64]>)) {
    let sums = re.iter_mut().zip(im).zip(d_re.iter().zip(d_im));
    match x_im {
        Some(x_im) => {
            for (((re, im), (a, b)), (x, y)) in sums.zip(x_re.iter().zip(x_im)) {
                *re += a * x - b * y;
                *im += a * y + b * x;
            }
        }
        None => {
            for (((re, im), (a, b)), x) in sums.zip(x_re) {
                *re += a * x;
                *im += b * x;
            }
        }
    }
}

fn turned(slots: &[f64], k: usize) -> Vec<f64> {
    let (wrapped, straight) = slots.split_at(k % slots.len().max(1));
    [straight, wrapped].concat()
}

/// Slot with slot, of as many shards; vectors of different lengths are refused, not cut.
fn zipped(operation: &'static str, a: &[Vec<f64>], b: &[Vec<f64>], f: impl Fn(f64, f64) -> f64 + Sync) -> Result<Vec<Vec<f64>>> {
    let one = |(a, b): (&Vec<f64>, &Vec<f64>)| match a.len() == b.len() {
        true => Ok(a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()),
        false => Err(CircuitError::Slots { operation, expected: a.len(), found: b.len() }),
    };
    a.par_iter().zip(b).map(one).collect()
}

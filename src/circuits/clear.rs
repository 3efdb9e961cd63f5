//! Circuits on clear slot vectors: what the encrypted run would give without noise.

use super::{CircuitError, DiagonalTransform, Engine, Gadgets, LinearTransform, Packing, check, linear_transform::Product};
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
    /// Imaginary parts: inside a linear transform with packed shards, where bootstrapping has complex slots, and where noise has.
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
    /// The same at a level, its real parts changed.
    fn map(&self, level: Level, f: impl Fn(f64) -> f64 + Sync) -> Self {
        Self { shards: Arc::new(mapped(&self.shards, f)), imaginary: self.imaginary.clone(), level }
    }
    /// The same with imaginary parts, zeros if it had none.
    pub(super) fn made_complex(mut self) -> Self {
        let zeros = |shards: &[Vec<f64>]| Arc::new(shards.iter().map(|s| vec![0.0; s.len()]).collect());
        self.imaginary = Some(self.imaginary.take().unwrap_or_else(|| zeros(&self.shards)));
        self
    }
    /// Refuses vectors of another number of slots; several times as many are the same ones, repeated.
    fn check_slots(&self, operation: &'static str, expected: usize) -> Result<()> {
        let all = self.shards.iter().chain(self.imaginary.iter().flat_map(|all| all.iter()));
        all.map(Vec::len)
            .find(|&found| found == 0 || !found.is_multiple_of(expected))
            .map_or(Ok(()), |found| Err(CircuitError::Slots { operation, expected, found }))
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
        let shards = Arc::new(zipped("add", &a.shards, &b.shards, |a, b| a + b)?);
        Ok(ClearValue { shards, imaginary: sum_of("add", &a.imaginary, &b.imaginary)?, level: a.level })
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
            let product = product(a, b, level)?;
            sum = Some(match sum {
                Some(sum) => self.add(sum, &product)?,
                None => product,
            });
        }
        sum.ok_or(CircuitError::Nothing { operation: "multiply" })
    }
    fn weighted_sum(&self, values: &[&ClearValue], coefficients: &[f64], constant: f64, to: Level) -> Result<ClearValue> {
        let first = check::weighted_sum(self, values, coefficients, to)?;
        let mut sum = ClearValue::new(mapped(&first.shards, |_| constant), to);
        for (v, &c) in values.iter().zip(coefficients) {
            let weighted = |s: &[Vec<f64>], v: &[Vec<f64>]| zipped("weighted sum", s, v, |s, v| s + c * v);
            sum.shards = Arc::new(weighted(&sum.shards, &v.shards)?);
            sum.imaginary = match (&sum.imaginary, &v.imaginary) {
                (before, None) => before.clone(),
                (None, Some(im)) => Some(Arc::new(mapped(im, |v| c * v))),
                (Some(before), Some(im)) => Some(Arc::new(weighted(before, im)?)),
            };
        }
        Ok(sum)
    }
    fn multiply_plain(&self, x: &ClearValue, factor: &[Vec<f64>]) -> Result<ClearValue> {
        let level = check::multiply_plain(self, x, factor)?;
        let times = |part: &[Vec<f64>]| zipped("multiply plain", part, factor, |a, b| a * b).map(Arc::new);
        Ok(ClearValue { shards: times(&x.shards)?, imaginary: x.imaginary().map(times).transpose()?, level })
    }
    fn add_plain(&self, x: &ClearValue, offset: &[Vec<f64>]) -> Result<ClearValue> {
        check::add_plain(self, x, offset)?;
        Ok(ClearValue { shards: Arc::new(zipped("add plain", &x.shards, offset, |a, b| a + b)?), ..x.clone() })
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
        let zeros = || vec![0.0; x.shards.first().map_or(0, Vec::len)];
        let pairs = |part: &[Vec<f64>]| -> (Vec<_>, Vec<_>) {
            part.chunks(2).map(|pair| (pair[0].clone(), pair.get(1).cloned().unwrap_or_else(zeros))).unzip()
        };
        let (first, second) = pairs(&x.shards);
        let Some(im) = x.imaginary() else { return Ok(ClearValue::complex(first, second, x.level)) };
        // (a + i b) + i (c + i d).
        let (b, d) = pairs(im);
        let (re, im) = (zipped("pack", &first, &d, |a, d| a - d)?, zipped("pack", &b, &second, |b, c| b + c)?);
        Ok(ClearValue::complex(re, im, x.level))
    }
    fn real_parts(&self, x: &ClearValue, _: &Gadgets) -> Result<ClearValue> {
        Ok(ClearValue::new(mapped(&x.shards, |v| 2.0 * v), x.level))
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
    let real = transform.packing() == Packing::Real;
    let shards = |terms: &Vec<Product>| {
        let empty = |x: &&ClearValue| (vec![0.0; slots], (!real || x.imaginary.is_some()).then(|| vec![0.0; slots]));
        let mut found: Vec<_> = all.iter().map(empty).collect();
        let (mut d_re, mut d_im) = (vec![0.0; slots], vec![0.0; slots]);
        for &Product { output, giant, term, source } in terms {
            transform.diagonal(output, term, &mut d_re, &mut d_im);
            // Turned back by its giant, the diagonal starts at this slot.
            let first = giant % slots.max(1);
            let stretches = [(first..slots, 0..slots - first), (0..first, slots - first..slots)];
            for (x, (re, im)) in all.iter().zip(&mut found) {
                let (x_re, x_im) = (&x.shards[source], x.imaginary.as_ref().map(|all| &all[source]));
                for (to, from) in &stretches {
                    let x = (&x_re[to.clone()], x_im.map(|im| &im[to.clone()]));
                    let d = (&d_re[from.clone()], (!real).then(|| &d_im[from.clone()]));
                    add_products((&mut re[to.clone()], im.as_mut().map(|im| &mut im[to.clone()])), d, x);
                }
            }
        }
        found
    };
    let mut values: Vec<ClearValue> = Vec::with_capacity(all.len());
    let mut sums: Vec<_> = sums.par_iter().map(shards).collect();
    for (i, x) in all.iter().enumerate() {
        let parts = sums.iter_mut().map(|of_all| std::mem::take(&mut of_all[i]));
        let (re, im): (Vec<_>, Vec<_>) = parts.unzip();
        let im: Option<Vec<Vec<f64>>> = im.into_iter().collect();
        values.push(ClearValue { shards: Arc::new(re), imaginary: im.map(Arc::new), level: x.level });
    }
    Ok(values)
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
                let sum = (&mut out_re[to.clone()], Some(&mut out_im[to]));
                add_products(sum, (&d_re[d.clone()], Some(&d_im[d])), (&re[x], imaginary));
                s += len;
            }
        }
    }
    (out_re, out_im)
}

/// Real and imaginary parts, if there are any.
type Parts<'a> = (&'a [f64], Option<&'a [f64]>);

/// `sum += d x`, complex; an imaginary part that is absent is 0, and so is what would have been added to one.
fn add_products((re, im): (&mut [f64], Option<&mut [f64]>), (d_re, d_im): Parts<'_>, (x_re, x_im): Parts<'_>) {
    let plain = |sum: &mut [f64], d: &[f64], x: &[f64]| {
        for ((sum, d), x) in sum.iter_mut().zip(d).zip(x) {
            *sum += d * x;
        }
    };
    match (im, d_im, x_im) {
        (Some(im), Some(d_im), Some(x_im)) => {
            let sums = re.iter_mut().zip(im).zip(d_re.iter().zip(d_im));
            for (((re, im), (a, b)), (x, y)) in sums.zip(x_re.iter().zip(x_im)) {
                *re += a * x - b * y;
                *im += a * y + b * x;
            }
        }
        (Some(im), Some(d_im), None) => {
            let sums = re.iter_mut().zip(im).zip(d_re.iter().zip(d_im));
            for (((re, im), (a, b)), x) in sums.zip(x_re) {
                *re += a * x;
                *im += b * x;
            }
        }
        (Some(im), None, Some(x_im)) => {
            plain(re, d_re, x_re);
            plain(im, d_re, x_im);
        }
        _ => plain(re, d_re, x_re),
    }
}

/// Slot by slot, complex.
fn product(a: &ClearValue, b: &ClearValue, level: Level) -> Result<ClearValue> {
    let times = |a: &[Vec<f64>], b: &[Vec<f64>]| zipped("multiply", a, b, |a, b| a * b);
    let re = times(&a.shards, &b.shards)?;
    let (re, im) = match (a.imaginary(), b.imaginary()) {
        (None, None) => return Ok(ClearValue::new(re, level)),
        (None, Some(im)) => (re, times(&a.shards, im)?),
        (Some(im), None) => (re, times(im, &b.shards)?),
        (Some(a_im), Some(b_im)) => {
            let re = zipped("multiply", &re, &times(a_im, b_im)?, |x, y| x - y)?;
            (re, zipped("multiply", &times(&a.shards, b_im)?, &times(a_im, &b.shards)?, |x, y| x + y)?)
        }
    };
    Ok(ClearValue::complex(re, im, level))
}

type Imaginary = Option<Arc<Vec<Vec<f64>>>>;

/// Of imaginary parts, where there are any.
fn sum_of(operation: &'static str, a: &Imaginary, b: &Imaginary) -> Result<Imaginary> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(Arc::new(zipped(operation, a, b, |a, b| a + b)?)),
        (one, other) => one.clone().or(other.clone()),
    })
}

fn mapped(shards: &[Vec<f64>], f: impl Fn(f64) -> f64 + Sync) -> Vec<Vec<f64>> {
    shards.par_iter().map(|s| s.iter().map(|&v| f(v)).collect()).collect()
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

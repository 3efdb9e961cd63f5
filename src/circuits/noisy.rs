//! Circuits on clear slot vectors with the noise that ciphertexts would have: precision predicted before any key exists.
//!
//! Every operation computes like [`ClearEngine`] and adds Gaussian noise to each slot, of the deviation that
//! [`NoiseModel`] gives for the rounding and the key switches of that operation at that level. Slots are complex, and those of real numbers
//! have as much noise in their imaginary parts: it comes to light where two of them are joined as the halves of a pair, and is most of the
//! noise of the one whose numbers are much smaller.

mod runs;

use super::clear::ClearValue;
use super::{CircuitError, ClearEngine, DiagonalTransform, Engine, Gadgets, LinearTransform, check, linear_transform::Product};
use crate::ckks::{Level, NoiseModel, Noisy, Params, Scale};
use chacha20::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

pub use runs::NoisyRuns;

type Result<T> = std::result::Result<T, CircuitError>;

/// Evaluates on clear numbers with noise, on a parameter set.
#[derive(Debug)]
pub struct NoisyEngine {
    params: Arc<Params>,
    random: Mutex<ChaCha8Rng>,
    /// Whether the imaginary parts of real numbers have noise.
    imaginary: bool,
}

impl NoisyEngine {
    /// An engine; the same seed gives the same noise.
    pub fn new(params: &Arc<Params>, seed: u64) -> Self {
        Self { params: params.clone(), random: Mutex::new(ChaCha8Rng::seed_from_u64(seed)), imaginary: true }
    }

    /// The same without noise in the imaginary parts of real numbers: at half the cost, and less than all of the noise.
    pub fn of_real_parts(params: &Arc<Params>, seed: u64) -> Self {
        Self { imaginary: false, ..Self::new(params, seed) }
    }

    /// Slots, `[shard][slot]`, as they would be encrypted under the secret key at a level.
    pub fn encrypted(&self, shards: Vec<Vec<f64>>, level: Level) -> ClearValue {
        let fresh = self.model().fresh(self.params.scale(level), 1.0);
        self.noised(ClearValue::new(shards, level), self.model().slot_deviation(fresh))
    }

    fn model(&self) -> NoiseModel<'_> {
        NoiseModel::new(&self.params)
    }

    fn nothing(&self, scale: Scale) -> Noisy {
        Noisy { deviation: 0.0, scale, rms: 0.0 }
    }

    /// Adds noise of a deviation to the real part of every slot, and to imaginary parts, or only where there are any. Every shard has a
    /// stream of its own, so that threads do not change what comes out.
    fn noised(&self, x: ClearValue, deviation: f64) -> ClearValue {
        let x = if self.imaginary { x.made_complex() } else { x };
        let seed = self.random.lock().unwrap_or_else(PoisonError::into_inner).random::<u64>();
        let noise = |all: &[Vec<f64>], part: u64| -> Vec<Vec<f64>> {
            let shard = |(index, shard): (usize, &Vec<f64>)| {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                random.set_stream(2 * index as u64 + part);
                with_noise(shard, deviation, &mut random)
            };
            all.par_iter().enumerate().map(shard).collect()
        };
        let re = noise(&x.shards, 0);
        match x.imaginary() {
            Some(im) => ClearValue::complex(re, noise(im, 1), x.level),
            None => ClearValue::new(re, x.level),
        }
    }

    /// The rounding of one division that ends at x's level, at a scale.
    fn rounded(&self, x: ClearValue, scale: Scale) -> ClearValue {
        // The deviation of a division does not depend on the levels it goes between.
        let Some(below) = x.level.below(1) else { return self.rounded_at(x, scale, Level(1), Level(0)) };
        let level = x.level;
        self.rounded_at(x, scale, level, below)
    }

    fn rounded_at(&self, x: ClearValue, scale: Scale, from: Level, to: Level) -> ClearValue {
        let rounding = Noisy { scale, ..self.model().rescale(self.nothing(scale), from, to) };
        let deviation = self.model().slot_deviation(rounding);
        self.noised(x, deviation)
    }

    /// The canonical scale of a value's level.
    fn scale(&self, x: &ClearValue) -> Scale {
        self.params.scale(x.level)
    }

    /// What a key switch adds at x's level, its division included or left for later.
    fn switched(&self, x: ClearValue, divided: bool, gadgets: &Gadgets) -> Result<ClearValue> {
        let gadget = gadgets.rotation(x.level)?;
        let nothing = self.nothing(self.scale(&x));
        let noise = match divided {
            true => self.model().key_switch(nothing, &gadget, x.level)?,
            false => Noisy { deviation: self.model().key_inner_product(&gadget, x.level)?, ..nothing },
        };
        let deviation = self.model().slot_deviation(noise);
        Ok(self.noised(x, deviation))
    }

    /// The inner products y of rotated shards, with what the rounding of the diagonals adds.
    fn with_encoding_noise(&self, rotated: &ClearValue, y: ClearValue, sums: &[Vec<Product>]) -> ClearValue {
        let terms = sums.iter().map(Vec::len).max().unwrap_or(0);
        self.encoded(rotated, y, rotated.level, terms, self.params.degree())
    }

    /// What the rounding of plaintexts of degree `degree` adds to a sum of products with `terms` slots like x's.
    fn encoded(&self, x: &ClearValue, y: ClearValue, level: Level, terms: usize, degree: usize) -> ClearValue {
        let squares = |all: &[Vec<f64>]| all.iter().flatten().map(|v| v * v).sum::<f64>();
        let count = x.shards.iter().map(Vec::len).sum::<usize>().max(1) as f64;
        let rms = ((squares(&x.shards) + x.imaginary().map_or(0.0, squares)) / count).sqrt();
        let each = (degree as f64 / 24.0).sqrt() / self.params.plain_scale(level).0;
        self.noised(y, each * rms * (terms as f64).sqrt())
    }
}

/// Values with noise of a deviation.
fn with_noise(values: &[f64], deviation: f64, random: &mut ChaCha8Rng) -> Vec<f64> {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor has what the function needs.
        return unsafe { with_noise_popcnt(values, deviation, random) };
    }
    with_any_noise(values, deviation, random)
}

/// [`with_any_noise`] where the processor counts ones.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt")]
fn with_noise_popcnt(values: &[f64], deviation: f64, random: &mut ChaCha8Rng) -> Vec<f64> {
    with_any_noise(values, deviation, random)
}

#[inline(always)]
fn with_any_noise(values: &[f64], deviation: f64, random: &mut ChaCha8Rng) -> Vec<f64> {
    let mut noisy = values.to_vec();
    noisy.iter_mut().for_each(|v| *v += deviation * gaussian(random));
    noisy
}

/// Nearly a standard Gaussian: the number of ones among 96 random bits, less 48, and a uniform number to fill the steps; variance
/// 24 + 1/12. A logarithm and a cosine for each number took a seventh of a whole compile.
#[inline(always)]
fn gaussian(random: &mut ChaCha8Rng) -> f64 {
    let (a, b) = (random.next_u64(), random.next_u64());
    let ones = f64::from(a.count_ones() + (b >> 32).count_ones()) - 48.0;
    let between = f64::from(b as u32) / f64::from(u32::MAX) - 0.5;
    (ones + between) * 0.203_770_9
}

impl Engine for NoisyEngine {
    type Value = ClearValue;
    type Sum = ClearValue;

    fn level(&self, x: &ClearValue) -> Level {
        x.level
    }
    fn shards(&self, x: &ClearValue) -> usize {
        x.shards.len()
    }
    fn add(&self, a: ClearValue, b: &ClearValue) -> Result<ClearValue> {
        ClearEngine.add(a, b)
    }
    fn sub(&self, a: ClearValue, b: &ClearValue) -> Result<ClearValue> {
        ClearEngine.sub(a, b)
    }
    fn add_scalar(&self, x: ClearValue, c: f64) -> Result<ClearValue> {
        ClearEngine.add_scalar(x, c)
    }
    fn multiply_sum(&self, pairs: &[(&ClearValue, &ClearValue)], gadgets: &Gadgets) -> Result<ClearValue> {
        let y = ClearEngine.multiply_sum(pairs, gadgets)?;
        gadgets.product(Level(y.level.0 + 1))?;
        let scale = self.params.landing(Level(y.level.0 + 1));
        Ok(self.rounded(y, scale))
    }
    fn weighted_sum(&self, values: &[&ClearValue], coefficients: &[f64], constant: f64, to: Level) -> Result<ClearValue> {
        let y = ClearEngine.weighted_sum(values, coefficients, constant, to)?;
        let scale = self.scale(&y);
        Ok(self.rounded(y, scale))
    }
    fn multiply_plain(&self, x: &ClearValue, factor: &[Vec<f64>]) -> Result<ClearValue> {
        let y = self.encoded(x, ClearEngine.multiply_plain(x, factor)?, x.level, 1, self.params.degree());
        let scale = self.scale(&y);
        Ok(self.rounded(y, scale))
    }
    fn add_plain(&self, x: &ClearValue, offset: &[Vec<f64>]) -> Result<ClearValue> {
        ClearEngine.add_plain(x, offset)
    }
    fn drop_to(&self, x: &ClearValue, level: Level) -> Result<ClearValue> {
        let y = ClearEngine.drop_to(x, level)?;
        if level == x.level {
            return Ok(y);
        }
        let scale = self.scale(&y);
        Ok(self.rounded(y, scale))
    }
    fn rotate(&self, x: &ClearValue, k: usize, gadgets: &Gadgets) -> Result<ClearValue> {
        let y = ClearEngine.rotate(x, k, gadgets)?;
        if k == 0 { Ok(y) } else { self.switched(y, true, gadgets) }
    }
    fn rotate_all(&self, x: &ClearValue, ks: &[usize], gadgets: &Gadgets) -> Result<ClearValue> {
        let turned = ks.iter().map(|&k| self.rotate(x, k, gadgets)).collect::<Result<Vec<_>>>()?;
        ClearEngine.join(&turned)
    }
    fn pack_pairs(&self, x: &ClearValue) -> Result<ClearValue> {
        ClearEngine.pack_pairs(x)
    }
    fn real_parts(&self, x: &ClearValue, gadgets: &Gadgets) -> Result<ClearValue> {
        self.switched(ClearEngine.real_parts(x, gadgets)?, true, gadgets)
    }
    fn unpack_pairs(&self, x: &ClearValue, count: usize, gadgets: &Gadgets) -> Result<ClearValue> {
        self.switched(ClearEngine.unpack_pairs(x, count, gadgets)?, true, gadgets)
    }
    fn select(&self, x: &ClearValue, shards: Range<usize>) -> Result<ClearValue> {
        ClearEngine.select(x, shards)
    }
    fn join(&self, values: &[ClearValue]) -> Result<ClearValue> {
        ClearEngine.join(values)
    }
    fn inner_product(&self, rotated: &ClearValue, transform: &LinearTransform, sums: &[Vec<Product>]) -> Result<ClearValue> {
        let y = ClearEngine.inner_product(rotated, transform, sums)?;
        Ok(self.with_encoding_noise(rotated, y, sums))
    }
    fn accumulate_rotated(&self, sum: &mut Option<ClearValue>, x: ClearValue, k: usize, gadgets: &Gadgets) -> Result<()> {
        let x = if k == 0 { x } else { self.switched(x, false, gadgets)? };
        ClearEngine.accumulate_rotated(sum, x, k, gadgets)
    }
    fn finish(&self, sum: ClearValue) -> Result<ClearValue> {
        let y = ClearEngine.finish(sum)?;
        let scale = self.scale(&y);
        Ok(self.rounded(y, scale))
    }
    fn transform(&self, x: &ClearValue, t: &DiagonalTransform, gadgets: &Gadgets) -> Result<ClearValue> {
        check::transform(self, x)?;
        let y = ClearEngine.transform(&self.switched(x.clone(), false, gadgets)?, t, gadgets)?;
        let y = self.encoded(x, y, x.level, t.products(), 2 * t.period());
        let scale = self.scale(&y);
        Ok(self.rounded(y, scale))
    }
    fn transform_parts(&self, x: &ClearValue, t: &DiagonalTransform, count: usize, gadgets: &Gadgets) -> Result<ClearValue> {
        check::transform_parts(self, x, count)?;
        let y = ClearEngine.transform(&self.switched(x.clone(), false, gadgets)?, t, gadgets)?;
        let y = ClearEngine.unpack_pairs(&self.encoded(x, y, x.level, t.products(), 2 * t.period()), count, gadgets)?;
        let scale = self.scale(&y);
        Ok(self.rounded(y, scale))
    }
    fn mod_raise(&self, x: &ClearValue, params: &Params) -> Result<ClearValue> {
        let y = ClearEngine.mod_raise(x, params)?;
        let raised = self.model().mod_raise(self.nothing(self.scale(x)))?;
        let deviation = self.model().slot_deviation(raised);
        Ok(self.noised(y, deviation))
    }
    fn scaled_by(&self, x: &ClearValue, factor: f64) -> Result<ClearValue> {
        ClearEngine.scaled_by(x, factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_normal_as_far_as_it_matters() {
        let seed = 7;
        println!("seed {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let all: Vec<f64> = (0..1_000_000).map(|_| gaussian(&mut random)).collect();
        let moment = |k: i32| all.iter().map(|v| v.powi(k)).sum::<f64>() / all.len() as f64;
        let beyond = |sigma: f64| all.iter().filter(|v| v.abs() > sigma).count();
        assert!(moment(1).abs() < 0.005 && (moment(2) - 1.0).abs() < 0.01, "{} {}", moment(1), moment(2));
        assert!(moment(3).abs() < 0.02 && (moment(4) - 3.0).abs() < 0.06, "{} {}", moment(3), moment(4));
        // 2,700 and 63 of a million are expected beyond 3 and 4 deviations.
        assert!((2_300..3_000).contains(&beyond(3.0)) && (30..90).contains(&beyond(4.0)), "{} {}", beyond(3.0), beyond(4.0));
    }
}

//! Removal of the multiples of q0: `t -> t mod 1` near the integers, by a sine.
//!
//! `t = m / ratio + I` with a small m / ratio and an integer `|I| < k`. Then `sin(2 pi t) = 2 pi m / ratio` up to a cubic term, and
//! `sin(2 pi t) = cos(2 pi (t - 1/4))` is made from `cos(2 pi (t - 1/4) / 2^r)` by r doublings of the angle (Han and Ki 2020,
//! Bossuat et al. 2021). As a function of `y = (t - 1/4) / range` that cosine is even: its Chebyshev series of degree d is one of degree
//! d/2 in `T_2(y) = 2 y^2 - 1`, at the same depth and with half the products.

use crate::circuits::{CircuitError, Engine, Gadgets, PairSum, polynomial::Chebyshev};
use crate::ckks::params::Bootstrap;
use std::f64::consts::{PI, TAU};

/// Where the sine is a cosine.
const SHIFT: f64 = 0.25;

/// The approximate reduction modulo 1, times `ratio`.
#[derive(Debug, Clone)]
pub struct EvalMod {
    range: f64,
    series: Chebyshev,
    doublings: usize,
    gain: f64,
}

impl EvalMod {
    /// For the sizes of a parameter set and the ratio of q0 to the message's scale.
    ///
    /// # Errors
    /// [`CircuitError::Polynomial`] for a degree below 2, or for sizes with which the series has coefficients that are no numbers.
    pub fn new(spec: &Bootstrap, ratio: f64) -> Result<Self, CircuitError> {
        // |t| <= k - 1 + |m| / ratio, and a quarter for the shift: another quarter is left for large messages.
        let range = f64::from(spec.k) - 0.5;
        let factor = TAU * range / (spec.double_angles as f64).exp2();
        let degree = spec.degree / 2;
        if degree == 0 {
            return Err(CircuitError::Polynomial(format!(
                "the series of a cosine needs degree 2 at least, found {}",
                spec.degree
            )));
        }
        let all = cosine_series(factor, 2 * degree);
        let series = Chebyshev::new(all.into_iter().step_by(2).collect(), [-1.0, 1.0])?;
        Ok(Self { range, series, doublings: spec.double_angles, gain: ratio / TAU })
    }

    /// The input is divided by this: EvalMod takes `t / range`.
    pub fn range(&self) -> f64 {
        self.range
    }

    /// Levels: as many as a series of the full degree has, and one a doubling.
    pub fn depth(&self) -> usize {
        1 + self.series.depth() + self.doublings
    }

    /// The result for a clear `t`: nearly m, and not exactly, for `t = m / ratio + I`.
    pub fn value(&self, t: f64) -> f64 {
        let y = (t - SHIFT) / self.range;
        let mut c = self.series.value(2.0 * y * y - 1.0);
        for _ in 0..self.doublings {
            c = 2.0 * c * c - 1.0;
        }
        c * self.gain
    }

    /// `t / range -> ratio (t mod 1)` on every slot of every shard. Must end at [`crate::ckks::Params::output_level`], where the
    /// last product's scale is such that the gain costs nothing.
    ///
    /// # Errors
    /// [`CircuitError::LevelsExhausted`] with fewer than [`Self::depth`] levels, and those of the engine's operations ([`Engine`]).
    pub fn apply<E: Engine>(&self, engine: &E, x: &E::Value, gadgets: &Gadgets) -> Result<E::Value, CircuitError> {
        let y = engine.add_scalar(x.clone(), -SHIFT / self.range)?;
        let mut c = self.series.apply(engine, &twice_square_less_one(engine, &y, gadgets)?, gadgets)?;
        for _ in 0..self.doublings {
            c = twice_square_less_one(engine, &c, gadgets)?;
        }
        engine.scaled_by(&c, self.gain)
    }
}

/// `2 x^2 - 1`, doubled before it is rescaled: doubled afterwards, the rounding of the product would be twice as large, and the last one
/// is most of the noise of a bootstrapped value.
fn twice_square_less_one<E: Engine>(engine: &E, x: &E::Value, gadgets: &Gadgets) -> Result<E::Value, CircuitError> {
    let twice = [PairSum { pairs: vec![(x, x), (x, x)], constant: -1.0 }];
    engine.multiply_sums(&twice, gadgets)?.pop().ok_or(CircuitError::Nothing { operation: "multiply" })
}

/// Chebyshev coefficients of `cos(factor y)` on [-1, 1] up to a degree: `J_0 + 2 sum_k (-1)^k J_2k T_2k`, the Bessel functions from
/// the interpolant at so many nodes that nothing is left to alias.
fn cosine_series(factor: f64, degree: usize) -> Vec<f64> {
    let nodes = 4 * (degree + factor.ceil() as usize + 16);
    let angle = |j: usize| PI * (j as f64 + 0.5) / nodes as f64;
    let coefficient = |k: usize| {
        if k % 2 == 1 {
            return 0.0;
        }
        let sum: f64 = (0..nodes).map(|j| (factor * angle(j).cos()).cos() * (k as f64 * angle(j)).cos()).sum();
        sum * if k == 0 { 1.0 } else { 2.0 } / nodes as f64
    };
    (0..=degree).map(coefficient).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuits::{ClearEngine, clear::ClearValue};
    use crate::ckks::{Level, PrecisionStats};

    fn spec(k: u32, degree: usize) -> Bootstrap {
        let eval_mod = degree.ilog2() as usize + 1 + 3;
        Bootstrap { slots_to_coeffs: 3, eval_mod, coeffs_to_slots: 4, k, degree, double_angles: 3, weight: 32, log_slots: 15 }
    }

    /// Messages over [-1, 1] and every integer below k.
    fn points(k: u32, ratio: f64) -> (Vec<f64>, Vec<f64>) {
        let k = i64::from(k) - 1;
        (-k..=k)
            .flat_map(|i| (0..=100).map(move |m| (i, -1.0 + f64::from(m) / 50.0)))
            .map(|(i, m)| (m, m / ratio + i as f64))
            .unzip()
    }

    #[test]
    fn errors_are_those_of_the_table() {
        // (k, degree, log2 ratio, bits on average, bits at worst), with half a bit of room for other sample points.
        for (k, degree, log_ratio, mean, worst) in [
            (14, 31, 10, 19.3, 17.3),
            (14, 31, 11, 21.3, 19.3),
            (14, 31, 12, 23.2, 21.1),
            (13, 31, 12, 23.3, 21.3),
            (16, 31, 10, 19.3, 17.2),
            (16, 31, 12, 20.9, 18.5),
        ] {
            let ratio = f64::exp2(log_ratio.into());
            let eval_mod = EvalMod::new(&spec(k, degree), ratio).unwrap();
            let (m, t) = points(k, ratio);
            let got: Vec<f64> = t.iter().map(|&t| eval_mod.value(t)).collect();
            let stats = PrecisionStats::compare(&m, &got).unwrap();
            println!("k {k} degree {degree} ratio 2^{log_ratio}: {stats}");
            assert!(stats.mean_bits > mean - 0.5 && stats.worst_bits > worst - 0.5, "{stats}");
        }
    }

    #[test]
    fn the_circuit_computes_the_formula_at_its_depth() {
        for (k, degree) in [(14, 31), (14, 30), (16, 63), (6, 15)] {
            let eval_mod = EvalMod::new(&spec(k, degree), 4096.0).unwrap();
            assert_eq!(eval_mod.depth(), spec(k, degree).eval_mod);
            let (_, t) = points(k, 4096.0);
            let x = ClearValue::new(vec![t.iter().map(|t| t / eval_mod.range()).collect()], Level(eval_mod.depth()));
            let y = eval_mod.apply(&ClearEngine, &x, &Gadgets::default()).unwrap();
            assert_eq!(y.level, Level(0));
            for (t, y) in t.iter().zip(&y.shards[0]) {
                assert!((eval_mod.value(*t) - y).abs() < 1e-6, "t = {t}: {y}");
            }
        }
    }
}

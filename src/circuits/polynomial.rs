//! Polynomials in Chebyshev basis at the least depth, `ceil(log2(degree + 1))`.
//!
//! `p = q T_h + r` with h half the padded degree (a power of two): the quotient has one level less to spend than p, the
//! remainder, added after the product, has as many as p. So only the path of quotients must be split down to single
//! terms; every remainder is summed from the `T_i` at hand as soon as it fits one level above the deepest of them
//! (Paterson-Stockmeyer; depth argument as in Bossuat et al. 2021, section 3, with the scales here always canonical).

use super::{CircuitError, Engine, below};
use crate::ckks::Level;
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, CircuitError>;

/// A polynomial `sum_i coefficients[i] T_i(x / range)` for x in `[-range, range]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Chebyshev {
    coefficients: Vec<f64>,
    range: f64,
}

impl Chebyshev {
    /// From Chebyshev coefficients; trailing zeros are dropped.
    pub fn new(mut coefficients: Vec<f64>, range: f64) -> Result<Self> {
        if coefficients.iter().any(|c| !c.is_finite()) {
            return Err(CircuitError::Polynomial("a coefficient is not a finite number".into()));
        }
        if !(range.is_finite() && range > 0.0) {
            return Err(CircuitError::Polynomial(format!("the range {range} is not a positive number")));
        }
        while coefficients.len() > 1 && coefficients.last() == Some(&0.0) {
            coefficients.pop();
        }
        if coefficients.len() < 2 {
            return Err(CircuitError::Polynomial("a constant needs no evaluation".into()));
        }
        Ok(Self { coefficients, range })
    }

    /// From monomial coefficients, constant first, to be used on `[-range, range]`.
    pub fn from_monomial(coefficients: &[f64], range: f64) -> Result<Self> {
        // Horner in Chebyshev basis: y T_i = (T_{i+1} + T_{|i-1|}) / 2, with y = x / range.
        let mut sum: Vec<f64> = vec![0.0];
        for &c in coefficients.iter().rev() {
            let mut next = vec![0.0; sum.len() + 1];
            for (i, &s) in sum.iter().enumerate() {
                if i == 0 {
                    next[1] += s * range;
                } else {
                    next[i + 1] += s * range / 2.0;
                    next[i - 1] += s * range / 2.0;
                }
            }
            next[0] += c;
            sum = next;
        }
        Self::new(sum, range)
    }

    /// The interpolant of `f` at the Chebyshev nodes of `[-range, range]`, of a degree.
    pub fn interpolate(f: impl Fn(f64) -> f64, degree: usize, range: f64) -> Result<Self> {
        let m = degree + 1;
        let angle = |j: usize| std::f64::consts::PI * (j as f64 + 0.5) / m as f64;
        let samples: Vec<f64> = (0..m).map(|j| f(range * angle(j).cos())).collect();
        let coefficient = |k: usize| {
            let sum: f64 = samples.iter().enumerate().map(|(j, s)| s * (k as f64 * angle(j)).cos()).sum();
            sum * if k == 0 { 1.0 } else { 2.0 } / m as f64
        };
        Self::new((0..m).map(coefficient).collect(), range)
    }

    /// Degree.
    pub fn degree(&self) -> usize {
        self.coefficients.len() - 1
    }

    /// Levels consumed: `ceil(log2(degree + 1))`, and one more to bring x into `[-1, 1]` unless `range` is 1.
    pub fn depth(&self) -> usize {
        log2_ceil(self.coefficients.len()) + usize::from(self.range != 1.0)
    }

    /// The value at a clear number (Clenshaw).
    pub fn value(&self, x: f64) -> f64 {
        let y = x / self.range;
        let (mut b1, mut b2) = (0.0, 0.0);
        for &c in self.coefficients.iter().skip(1).rev() {
            (b1, b2) = (2.0 * y * b1 - b2 + c, b1);
        }
        y * b1 - b2 + self.coefficients[0]
    }

    /// Evaluates on every slot of x; [`Self::depth`] levels. Cost: about `2 sqrt(degree) + log2 degree` products.
    pub fn apply<E: Engine>(&self, engine: &E, x: &E::Value) -> Result<E::Value> {
        let have = engine.level(x).0;
        if have < self.depth() {
            return Err(CircuitError::LevelsExhausted { operation: "polynomial", needed: self.depth(), have });
        }
        let target = below(engine.level(x), self.depth(), "polynomial")?;
        let y = if self.range == 1.0 { x.clone() } else { engine.weighted_sum(&[x], &[1.0 / self.range])? };
        let log = log2_ceil(self.coefficients.len());
        let mut basis = Basis { engine, powers: BTreeMap::from([(1, y)]), leaf: 1 << (log / 2).max(1) };
        let sum = basis.evaluate(&self.coefficients, log, log)?;
        engine.drop_to(&sum, target)
    }
}

/// The Chebyshev polynomials of y at hand. `T_i` stands `ceil(log2 i)` levels below y.
struct Basis<'e, E: Engine> {
    engine: &'e E,
    powers: BTreeMap<usize, E::Value>,
    /// Remainders of at most this many coefficients are summed from single terms.
    leaf: usize,
}

impl<E: Engine> Basis<'_, E> {
    /// `T_i`, made from `T_a T_b = (T_{a+b} + T_{|a-b|}) / 2` with a, b as equal as powers of two allow.
    fn power(&mut self, i: usize) -> Result<E::Value> {
        if let Some(v) = self.powers.get(&i) {
            return Ok(v.clone());
        }
        let a = 1 << (log2_ceil(i) - 1); // the largest power of two below i
        let b = i - a;
        let (ta, tb) = (self.power(a)?, self.power(b)?);
        let product = if a == b { self.engine.square(&ta)? } else { self.multiply(&ta, &tb)? };
        let twice = self.engine.add(&product, &product)?;
        let value = if a == b {
            self.engine.add_scalar(&twice, -1.0)?
        } else {
            let difference = self.power(a - b)?;
            let difference = self.engine.drop_to(&difference, self.engine.level(&twice))?;
            self.engine.sub(&twice, &difference)?
        };
        self.powers.insert(i, value.clone());
        Ok(value)
    }

    fn multiply(&self, a: &E::Value, b: &E::Value) -> Result<E::Value> {
        let level = self.engine.level(a).min(self.engine.level(b));
        self.engine.multiply(&self.engine.drop_to(a, level)?, &self.engine.drop_to(b, level)?)
    }

    fn top(&self) -> Level {
        self.engine.level(&self.powers[&1])
    }

    /// `sum_i c_i T_i`, of fewer than `2^log` terms, at most `spend >= log` levels below y.
    fn evaluate(&mut self, c: &[f64], log: usize, spend: usize) -> Result<E::Value> {
        debug_assert!(c.len() <= 1 << log && log <= spend && c.len() >= 2);
        let terms: Vec<usize> = (1..c.len()).filter(|&i| c[i] != 0.0).collect();
        let deepest = terms.iter().map(|&i| log2_ceil(i)).max().unwrap_or(0);
        if c.len() <= 2 || (c.len() <= self.leaf && deepest < spend) {
            return self.leaf_sum(c, &terms, deepest);
        }
        let log = log2_ceil(c.len());
        let half = 1 << (log - 1);
        // c = q T_half + r with T_{half+j} = 2 T_half T_j - T_{half-j}.
        let mut quotient = c[half..].to_vec();
        let mut remainder = c[..half].to_vec();
        for (j, q) in quotient.iter_mut().enumerate().skip(1) {
            remainder[half - j] -= *q;
            *q *= 2.0;
        }
        let giant = self.power(half)?;
        let product = match quotient[..] {
            [constant] => self.engine.weighted_sum(&[&giant], &[constant])?,
            _ => {
                let q = self.evaluate(&quotient, log - 1, spend - 1)?;
                self.multiply(&q, &giant)?
            }
        };
        while remainder.len() > 1 && remainder.last() == Some(&0.0) {
            remainder.pop();
        }
        if remainder.len() < 2 {
            return if remainder[0] == 0.0 { Ok(product) } else { self.engine.add_scalar(&product, remainder[0]) };
        }
        let r = self.evaluate(&remainder, log - 1, spend)?;
        let level = self.engine.level(&product).min(self.engine.level(&r));
        self.engine.add(&self.engine.drop_to(&product, level)?, &self.engine.drop_to(&r, level)?)
    }

    fn leaf_sum(&mut self, c: &[f64], terms: &[usize], deepest: usize) -> Result<E::Value> {
        let level = below(self.top(), deepest, "polynomial")?;
        let mut values = Vec::with_capacity(terms.len());
        for &i in terms {
            let power = self.power(i)?;
            values.push(self.engine.drop_to(&power, level)?);
        }
        let weights: Vec<f64> = terms.iter().map(|&i| c[i]).collect();
        let sum = if values.is_empty() {
            let y = self.powers[&1].clone();
            self.engine.weighted_sum(&[&y], &[0.0])?
        } else {
            self.engine.weighted_sum(&values.iter().collect::<Vec<_>>(), &weights)?
        };
        if c[0] == 0.0 { Ok(sum) } else { self.engine.add_scalar(&sum, c[0]) }
    }
}

fn log2_ceil(n: usize) -> usize {
    n.next_power_of_two().trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::super::{ClearEngine, TraceEngine, clear::ClearValue, trace::TraceValue};
    use super::*;

    fn points() -> Vec<f64> {
        (0..64).map(|i| -1.0 + 2.0 * f64::from(i) / 63.0).collect()
    }

    #[test]
    fn every_degree_gives_the_right_values_at_the_least_depth() {
        for degree in (1..=40).chain([59, 63, 64, 100, 127]) {
            for range in [1.0, 3.0] {
                let c: Vec<f64> =
                    (0..=degree).map(|i| ((i * 7 + 3) % 11) as f64 / 11.0 - 0.4 + if i == degree { 1.0 } else { 0.0 }).collect();
                let p = Chebyshev::new(c, range).unwrap();
                assert_eq!(p.depth(), log2_ceil(degree + 1) + usize::from(range != 1.0));
                let xs: Vec<f64> = points().iter().map(|x| x * range).collect();
                let x = ClearValue::new(vec![xs.clone()], Level(p.depth()));
                let y = p.apply(&ClearEngine, &x).unwrap();
                assert_eq!(y.level, Level(0), "degree {degree}");
                for (x, y) in xs.iter().zip(&y.shards[0]) {
                    assert!((p.value(*x) - y).abs() < 1e-9, "degree {degree} at {x}: {} {y}", p.value(*x));
                }
            }
        }
    }

    #[test]
    fn sparse_polynomials_and_constants_among_the_parts() {
        for (c, n) in
            [(vec![0.0, 0.0, 1.0], 3), (vec![0.5, 0.0, 0.0, 0.0, 2.0], 5), (vec![0.0, 1.0, 0.0, -0.3, 0.0, 0.1, 0.0, 0.7], 8)]
        {
            let p = Chebyshev::new(c, 1.0).unwrap();
            assert_eq!(p.degree(), n - 1);
            let y = p.apply(&ClearEngine, &ClearValue::new(vec![points()], Level(p.depth()))).unwrap();
            for (x, y) in points().iter().zip(&y.shards[0]) {
                assert!((p.value(*x) - y).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn monomials_and_interpolants_agree_with_their_definitions() {
        let p = Chebyshev::from_monomial(&[1.0, -2.0, 0.5, 3.0], 2.0).unwrap();
        for x in points() {
            let x = 2.0 * x;
            assert!((p.value(x) - (1.0 - 2.0 * x + 0.5 * x * x + 3.0 * x * x * x)).abs() < 1e-12);
        }
        let p = Chebyshev::interpolate(f64::exp, 15, 1.5).unwrap();
        assert!(points().iter().all(|x| (p.value(1.5 * x) - (1.5 * x).exp()).abs() < 1e-11));
    }

    #[test]
    fn products_grow_like_the_square_root_of_the_degree() {
        let products = |degree: usize| {
            let engine = TraceEngine::default();
            let p = Chebyshev::new(vec![1.0; degree + 1], 1.0).unwrap();
            p.apply(&engine, &TraceValue { shards: 1, level: Level(p.depth()) }).unwrap();
            engine.counts().ciphertext_products
        };
        // Chosen at 2^(ceil(log/2)) single terms: leaves, giants, quotient path.
        assert!(products(15) <= 9, "{}", products(15));
        assert!(products(31) <= 14, "{}", products(31));
        assert!(products(63) <= 20, "{}", products(63));
        assert!(products(127) <= 30, "{}", products(127));
    }

    #[test]
    fn refuses_what_it_cannot_evaluate() {
        assert!(Chebyshev::new(vec![1.0], 1.0).is_err());
        assert!(Chebyshev::new(vec![1.0, f64::NAN], 1.0).is_err());
        assert!(Chebyshev::new(vec![1.0, 1.0], 0.0).is_err());
        let p = Chebyshev::new(vec![1.0; 8], 1.0).unwrap();
        let shallow = ClearValue::new(vec![points()], Level(2));
        assert!(matches!(p.apply(&ClearEngine, &shallow), Err(CircuitError::LevelsExhausted { needed: 3, have: 2, .. })));
    }
}

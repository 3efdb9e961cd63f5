//! Composites of which the last polynomial is fitted to what those before it make of the samples.
//!
//! The polynomials before the last are those of a composite sign: they spread `[-epsilon, epsilon]` over most of `[-1, 1]` and press what lies outside to its
//! ends, so that a bend at 0 or a short ramp there is wide for the last one. A composite sign asks of its last polynomial to be near -1 and 1 and nothing in between;
//! here it is the best in mean square under given weights, for any function.

use super::least_squares::{Sample, least_squares, odd_least_squares};
use super::sign::composite_sign;
use super::{ApproximationError, check_interval, lanes};
use crate::circuits::polynomial::Chebyshev;

/// Epsilons that are tried: 2 to the minus half of these.
const HALVES: std::ops::RangeInclusive<i32> = 2..=20;

/// Polynomials on `[-1, 1]`, the first one applied first, that spread what is near 0: odd, and of magnitudes up to 1 there.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread(Vec<Chebyshev>);

impl Spread {
    /// Those of odd degrees for one epsilon. No degrees are the identity.
    ///
    /// # Errors
    /// [`ApproximationError::Interval`] unless `0 < epsilon < 1`; those of [`composite_sign`].
    pub fn new(degrees: &[usize], epsilon: f64) -> Result<Self, ApproximationError> {
        check_interval([epsilon, 1.0])?;
        if degrees.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let sign = composite_sign(degrees, epsilon)?;
        let mut stages = sign.stages;
        if let Some(last) = stages.pop() {
            let degree = last.degree();
            let unit = last.scaled(1.0 / (1.0 + sign.error), 0.0);
            stages.push(unit.map_err(|_| ApproximationError::Singular { degree })?);
        }
        Ok(Self(stages))
    }

    /// Those of the degrees for all epsilons that are worth trying, from the largest downwards; fewer where an epsilon is too small for
    /// them.
    ///
    /// # Errors
    /// [`ApproximationError::Degree`] for a degree that is even or above 127, and what else [`Self::new`] says if it says so of all.
    pub fn all(degrees: &[usize]) -> Result<Vec<Self>, ApproximationError> {
        let (mut spreads, mut refused) = (Vec::new(), None);
        for half in HALVES {
            match Self::new(degrees, (-f64::from(half) / 2.0).exp2()) {
                Ok(spread) => spreads.push(spread),
                Err(e @ ApproximationError::Degree { .. }) => return Err(e),
                Err(e) => refused = refused.or(Some(e)),
            }
        }
        match refused {
            Some(e) if spreads.is_empty() => Err(e),
            _ => Ok(spreads),
        }
    }

    /// At t in `[-1, 1]`.
    pub fn value(&self, t: f64) -> f64 {
        self.0.iter().fold(t, |t, p| p.value(t))
    }

    /// The polynomial of a degree behind these that is nearest to the samples in mean square, positions in `[-1, 1]`, and the mean square that
    /// is left, by the weights. With `odd` it is odd, and samples count at their mirror images too: `(-x, -y)`.
    ///
    /// # Errors
    /// Those of [`least_squares`].
    pub fn fit(&self, samples: &[Sample], degree: usize, odd: bool) -> Result<WeightedComposite, ApproximationError> {
        // Where these end, rounding may pass 1.
        let positions: Vec<f64> = samples.iter().map(|s| s.x).collect();
        let spread = self.0.iter().fold(positions, |t, p| lanes::values(p.coefficients(), &t));
        let behind: Vec<Sample> = samples.iter().zip(spread).map(|(s, x)| Sample { x: x.clamp(-1.0, 1.0), ..*s }).collect();
        let last = if odd { odd_least_squares(&behind, degree)? } else { least_squares(&behind, degree, [-1.0, 1.0])? };
        let found = lanes::values(last.coefficients(), &behind.iter().map(|s| s.x).collect::<Vec<_>>());
        let left = behind.iter().zip(found).map(|(s, found)| s.weight * (found - s.y).powi(2)).sum::<f64>();
        let whole = samples.iter().map(|s| s.weight).sum::<f64>();
        let stages = self.0.iter().cloned().chain([last]).collect();
        Ok(WeightedComposite { stages, mean_square: left / whole })
    }
}

/// A composite fitted to samples.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedComposite {
    /// The polynomials, all on `[-1, 1]`, the first one applied first.
    pub stages: Vec<Chebyshev>,
    /// Mean square of its error at the samples, by their weights.
    pub mean_square: f64,
}

/// The best of [`Spread::fit`] over some spreads in the order of their epsilons; none if none can be fitted. The error has one valley:
/// every second one is tried, then the neighbours of the best.
pub fn best_spread(spreads: &[Spread], samples: &[Sample], degree: usize, odd: bool) -> Option<WeightedComposite> {
    let fit = |i: usize| spreads.get(i).and_then(|s| s.fit(samples, degree, odd).ok()).map(|found| (found, i));
    let less =
        |a: (WeightedComposite, usize), b: (WeightedComposite, usize)| if b.0.mean_square < a.0.mean_square { b } else { a };
    let (best, at) = (0..spreads.len()).step_by(2).filter_map(fit).reduce(less)?;
    let beside = [at.checked_sub(1), Some(at + 1)].into_iter().flatten().filter_map(fit);
    Some(beside.fold((best, at), less).0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuits::approximation::sign::relu_sign;

    /// Points as dense at 0 as a composite needs them.
    fn points(count: u32) -> impl Iterator<Item = f64> {
        (0..count).map(move |i| -(std::f64::consts::PI * (f64::from(i) + 0.5) / f64::from(count)).cos())
    }

    fn value(stages: &[Chebyshev], t: f64) -> f64 {
        stages.iter().fold(t, |t, p| p.value(t))
    }

    #[test]
    fn a_relu_of_measured_values_is_nearer_than_with_a_composite_sign_of_more_levels() {
        // Values a tenth as wide as the interval, and a floor.
        let density = |t: f64| (-t * t / 0.02).exp() / 0.25 + 0.01;
        let weight = |t: f64| density(t) * (1.0 - t * t).sqrt();
        let samples: Vec<Sample> =
            points(24 * 31 * 63).map(|t| Sample { x: t, y: t.signum(), weight: weight(t) * t * t }).collect();
        let spreads = Spread::all(&[31]).unwrap();
        let found = best_spread(&spreads, &samples, 63, true).unwrap();
        assert_eq!(found.stages.iter().map(Chebyshev::degree).collect::<Vec<_>>(), [31, 63]);
        let error = |stages: &[Chebyshev]| {
            let whole: f64 = points(20_000).map(weight).sum();
            let square = |t: f64| weight(t) * (t * (value(stages, t) - t.signum()) / 2.0).powi(2);
            (points(20_000).map(square).sum::<f64>() / whole).sqrt()
        };
        // Twelve levels with the product, and thirteen.
        let (weighted, sign) = (error(&found.stages), error(&relu_sign(&[7, 15, 27]).unwrap().stages));
        assert!(weighted < 1.05 * sign, "{weighted:e} {sign:e}");
        // Eleven levels, against one polynomial of eight.
        let eleven = error(&best_spread(&Spread::all(&[15]).unwrap(), &samples, 63, true).unwrap().stages);
        let relu: Vec<Sample> = points(20_000).map(|t| Sample { x: t, y: t.max(0.0), weight: weight(t) }).collect();
        let series = least_squares(&relu, 255, [-1.0, 1.0]).unwrap();
        let left: f64 = relu.iter().map(|s| s.weight * (series.value(s.x) - s.y).powi(2)).sum();
        let eight = (left / relu.iter().map(|s| s.weight).sum::<f64>()).sqrt();
        assert!(eleven < 0.5 * eight, "{eleven:e} {eight:e}");
        for t in points(999) {
            assert!((value(&found.stages, t) + value(&found.stages, -t)).abs() < 1e-9, "odd");
            assert!(found.stages[0].value(t).abs() <= 1.0 + 1e-9, "spread over [-1, 1]");
        }
    }

    #[test]
    fn a_short_ramp_is_nearer_than_with_one_polynomial() {
        let ramp = |t: f64| t.clamp(-0.05, 0.05);
        let samples: Vec<Sample> = points(24 * 15 * 63).map(|t| Sample { x: t, y: ramp(t), weight: 1.0 }).collect();
        let found = best_spread(&Spread::all(&[15]).unwrap(), &samples, 63, false).unwrap();
        let series = least_squares(&samples, 255, [-1.0, 1.0]).unwrap();
        let left = samples.iter().map(|s| (series.value(s.x) - s.y).powi(2)).sum::<f64>() / samples.len() as f64;
        assert!(found.mean_square < left / 9.0, "{:e} {left:e}", found.mean_square);
        let again = samples.iter().map(|s| (value(&found.stages, s.x) - s.y).powi(2)).sum::<f64>() / samples.len() as f64;
        assert!((found.mean_square / again - 1.0).abs() < 1e-6, "its error is what it says");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(matches!(Spread::all(&[4]), Err(ApproximationError::Degree { .. })));
        assert!(matches!(Spread::new(&[3], 1.0), Err(ApproximationError::Interval { .. })));
        let identity = Spread::new(&[], 0.5).unwrap();
        assert_eq!(identity.value(0.3), 0.3);
        assert!(best_spread(&[identity], &[], 3, false).is_none(), "no samples");
    }
}

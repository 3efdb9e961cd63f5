//! Weighted least squares in Chebyshev basis.

use super::{ApproximationError, chebyshev_row, check_interval, dense, lanes, to_unit};
use crate::circuits::polynomial::Chebyshev;

/// A point that a polynomial should pass near.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Position.
    pub x: f64,
    /// Value wanted.
    pub y: f64,
    /// How much it counts, 0 or more.
    pub weight: f64,
}

/// The polynomial of a degree that minimises `sum_i weight_i (p(x_i) - y_i)^2`; samples outside the interval are refused by
/// giving them no weight. Cost: `samples x degree + degree^3` where the weights are spread over the interval, `samples x degree^2` else.
///
/// Its error is orthogonal to every polynomial of the degree under the weights: with the weights of a measured
/// distribution, its mean over that distribution is 0 and it is uncorrelated with x, so it does not add up in the sums of
/// the next layer (`docs/fitting.md`).
///
/// # Errors
/// [`ApproximationError::Interval`], [`ApproximationError::NotFinite`] for a sample, [`ApproximationError::Degree`] for degree 0,
/// [`ApproximationError::TooFewPoints`] where no more samples than the degree carry weight, [`ApproximationError::Singular`] where they do
/// not tell coefficients apart, [`ApproximationError::Constant`] where the best polynomial is one.
pub fn least_squares(samples: &[Sample], degree: usize, interval: [f64; 2]) -> Result<Chebyshev, ApproximationError> {
    let basis = (0..=degree).collect();
    among(samples, basis, degree, interval)
}

/// As [`least_squares`] on `[-1, 1]`, of odd polynomials alone; samples at their mirror images too, `(-x, -y)`, would give the same.
///
/// # Errors
/// Those of [`least_squares`].
pub fn odd_least_squares(samples: &[Sample], degree: usize) -> Result<Chebyshev, ApproximationError> {
    let basis = (1..=degree).step_by(2).collect();
    among(samples, basis, degree, [-1.0, 1.0])
}

/// The nearest sum of some Chebyshev polynomials, those of `basis`.
fn among(samples: &[Sample], basis: Vec<usize>, degree: usize, interval: [f64; 2]) -> Result<Chebyshev, ApproximationError> {
    let used = Used::of(samples, basis, degree, interval)?;
    let c = used.by_moments().or_else(|| used.by_reflections()).ok_or(ApproximationError::Singular { degree })?;
    if let [value, rest @ ..] = &c[..]
        && rest.iter().all(|c| *c == 0.0)
    {
        return Err(ApproximationError::Constant { value: *value });
    }
    // What is left to refuse are coefficients that are no numbers.
    Chebyshev::new(c, interval).map_err(|_| ApproximationError::Singular { degree })
}

/// Most rounds of refinement.
const ROUNDS: usize = 8;
/// A correction below this part of the coefficients ends the refinement.
const SETTLED: f64 = 1e-14;

/// The samples that carry weight, and what is to be found of them.
struct Used {
    /// Indices of the polynomials that are summed, in order.
    basis: Vec<usize>,
    degree: usize,
    /// Positions in `[-1, 1]`.
    t: Vec<f64>,
    y: Vec<f64>,
    weight: Vec<f64>,
}

impl Used {
    fn of(samples: &[Sample], basis: Vec<usize>, degree: usize, interval: [f64; 2]) -> Result<Self, ApproximationError> {
        check_interval(interval)?;
        let mut used = Self { basis, degree, t: Vec::with_capacity(samples.len()), y: Vec::new(), weight: Vec::new() };
        for s in samples {
            for (what, value) in [("a position", s.x), ("a value", s.y), ("a weight", s.weight)] {
                if !value.is_finite() {
                    return Err(ApproximationError::NotFinite { what, at: s.x, value });
                }
            }
            if s.weight > 0.0 && (interval[0]..=interval[1]).contains(&s.x) {
                used.t.push(to_unit(interval, s.x));
                used.y.push(s.y);
                used.weight.push(s.weight);
            }
        }
        if degree == 0 {
            return Err(ApproximationError::Degree { found: degree, expected: "1 or more" });
        }
        if used.t.len() < used.basis.len() {
            return Err(ApproximationError::TooFewPoints { degree, found: used.t.len() });
        }
        Ok(used)
    }

    /// Householder reflections: the definition. None if the columns are dependent.
    fn by_reflections(&self) -> Option<Vec<f64>> {
        let mut columns = vec![vec![0.0; self.t.len()]; self.basis.len()];
        let mut row = vec![0.0; self.degree + 1];
        for (i, (t, weight)) in self.t.iter().zip(&self.weight).enumerate() {
            chebyshev_row(*t, &mut row);
            let root = weight.sqrt();
            columns.iter_mut().zip(&self.basis).for_each(|(c, k)| c[i] = root * row[*k]);
        }
        let y = self.weight.iter().zip(&self.y).map(|(weight, y)| weight.sqrt() * y).collect();
        Some(self.coefficients(&dense::solve_least_squares(columns, y)?))
    }

    /// The normal equations, refined with the residuals at the samples until they settle; none where they are too ill-conditioned
    /// for that. Since `2 T_j T_k = T_(j+k) + T_|j-k|`, their matrix takes the 2 degree + 1 moments of the weights.
    fn by_moments(&self) -> Option<Vec<f64>> {
        let m = lanes::moments(&self.t, &self.weight, 2 * self.degree + 1);
        let row = |(i, j): (usize, &usize)| self.basis[..=i].iter().map(|k| (m[j + k] + m[j - k]) / 2.0).collect();
        let factor = dense::cholesky(self.basis.iter().enumerate().map(row).collect())?;
        let mut c = vec![0.0; self.degree + 1];
        let largest = |v: &[f64]| v.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        for _ in 0..ROUNDS {
            let found = lanes::values(&c, &self.t);
            let left: Vec<f64> = self.weight.iter().zip(&self.y).zip(found).map(|((w, y), found)| w * (y - found)).collect();
            let sums = lanes::moments(&self.t, &left, self.degree + 1);
            let of_basis = self.basis.iter().map(|k| sums[*k]).collect();
            let correction = self.coefficients(&dense::solve_cholesky(&factor, of_basis));
            c.iter_mut().zip(&correction).for_each(|(c, d)| *c += d);
            if largest(&correction) <= SETTLED * largest(&c) {
                return Some(c);
            }
        }
        None
    }

    /// Of all Chebyshev polynomials up to the degree.
    fn coefficients(&self, of_basis: &[f64]) -> Vec<f64> {
        let mut all = vec![0.0; self.degree + 1];
        self.basis.iter().zip(of_basis).for_each(|(k, c)| all[*k] = *c);
        all
    }
}

/// `count` positions in an interval, dense at its ends as Chebyshev nodes are, each weighing the same: least squares over
/// them is, but for the sampling, the truncated Chebyshev series.
pub fn chebyshev_samples(interval: [f64; 2], count: usize, f: impl Fn(f64) -> f64) -> Vec<Sample> {
    let [a, b] = interval;
    let at = |i: usize| {
        let x = (a + b) / 2.0 - (b - a) / 2.0 * (std::f64::consts::PI * (i as f64 + 0.5) / count as f64).cos();
        Sample { x, y: f(x), weight: 1.0 / count as f64 }
    };
    (0..count).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_are_reproduced_whatever_the_weights() {
        let f = |x: f64| 0.5 - 2.0 * x + 0.25 * x * x * x;
        let samples: Vec<Sample> = (0..200)
            .map(|i| {
                let x = -3.0 + 8.0 * f64::from(i) / 199.0;
                Sample { x, y: f(x), weight: 1e-6 + f64::from(i * i % 7) }
            })
            .collect();
        let p = least_squares(&samples, 5, [-3.0, 5.0]).unwrap();
        for i in 0..=80 {
            let x = -3.0 + 0.1 * f64::from(i);
            assert!((p.value(x) - f(x)).abs() < 1e-11, "{x}");
        }
    }

    #[test]
    fn over_chebyshev_nodes_it_is_the_truncated_series() {
        // |t| = 2/pi - 4/pi sum_{k>=1} (-1)^k T_2k / (4 k^2 - 1).
        let p = least_squares(&chebyshev_samples([-1.0, 1.0], 20_000, f64::abs), 8, [-1.0, 1.0]).unwrap();
        let pi = std::f64::consts::PI;
        for (k, c) in p.coefficients().iter().enumerate() {
            let half = (k / 2) as f64;
            let sign = if (k / 2) % 2 == 0 { -1.0 } else { 1.0 };
            let expected = match k {
                0 => 2.0 / pi,
                _ if k % 2 == 1 => 0.0,
                _ => sign * 4.0 / pi / (4.0 * half * half - 1.0),
            };
            assert!((c - expected).abs() < 1e-7, "{k}: {c} {expected}");
        }
    }

    #[test]
    fn the_error_is_orthogonal_to_polynomials_under_the_weights() {
        let samples: Vec<Sample> = (0..1000)
            .map(|i| {
                let x = -4.0 + 10.0 * (f64::from(i) + 0.5) / 1000.0;
                Sample { x, y: x.max(0.0), weight: (-x * x / 2.0).exp() + 1e-3 }
            })
            .collect();
        let p = least_squares(&samples, 15, [-4.0, 6.0]).unwrap();
        for power in 0..=15 {
            let moment: f64 = samples.iter().map(|s| s.weight * (p.value(s.x) - s.y) * (s.x / 6.0).powi(power)).sum();
            assert!(moment.abs() < 1e-10, "power {power}: {moment}");
        }
        // Where the weight lies it is closer than the unweighted fit.
        let unweighted = least_squares(&chebyshev_samples([-4.0, 6.0], 1000, |x| x.max(0.0)), 15, [-4.0, 6.0]).unwrap();
        let square = |p: &Chebyshev| samples.iter().map(|s| s.weight * (p.value(s.x) - s.y).powi(2)).sum::<f64>();
        assert!(square(&p) < 0.7 * square(&unweighted));
    }

    #[test]
    fn moments_give_what_reflections_give() {
        // A ReLU under weights that are crowded around 0 and have a floor: what activations are fitted with.
        for (degree, floor, settles) in [(15, 1e-1, true), (63, 1e-3, true), (127, 1e-6, true), (31, 1e-30, false)] {
            let samples: Vec<Sample> = chebyshev_samples([-9.0, 12.0], 32 * (degree + 1), |x| x.max(0.0))
                .into_iter()
                .map(|s| Sample { weight: s.weight * (floor + (-x_squared(s.x)).exp()), ..s })
                .collect();
            let used = Used::of(&samples, (0..=degree).collect(), degree, [-9.0, 12.0]).unwrap();
            let fast = used.by_moments();
            assert_eq!(fast.is_some(), settles, "degree {degree}, floor {floor}");
            let slow = used.by_reflections().unwrap();
            for (a, b) in fast.iter().flatten().zip(&slow) {
                assert!((a - b).abs() < 1e-10, "degree {degree}: {a} {b}");
            }
        }
    }

    #[test]
    fn odd_polynomials_are_those_of_samples_and_their_mirror_images() {
        let samples: Vec<Sample> = chebyshev_samples([-1.0, 1.0], 900, f64::signum)
            .into_iter()
            .map(|s| Sample { weight: s.weight * (0.01 + (s.x - 0.3).powi(2)), ..s })
            .collect();
        let mirrored: Vec<Sample> = samples.iter().flat_map(|s| [*s, Sample { x: -s.x, y: -s.y, ..*s }]).collect();
        let (odd, whole) = (odd_least_squares(&samples, 31).unwrap(), least_squares(&mirrored, 31, [-1.0, 1.0]).unwrap());
        for (k, (a, b)) in odd.coefficients().iter().zip(whole.coefficients()).enumerate() {
            assert!((a - b).abs() < 1e-12 && (k % 2 == 1 || *a == 0.0), "{k}: {a}, not {b}");
        }
        assert_eq!(odd_least_squares(&samples[..3], 7), Err(ApproximationError::TooFewPoints { degree: 7, found: 3 }));
    }

    fn x_squared(x: f64) -> f64 {
        x * x / 2.0
    }

    #[test]
    fn refuses_what_cannot_be_fitted() {
        let s = |x: f64, weight: f64| Sample { x, y: 1.0, weight };
        let few = [s(0.0, 1.0), s(0.5, 1.0), s(0.7, 0.0)];
        assert_eq!(least_squares(&few, 2, [-1.0, 1.0]), Err(ApproximationError::TooFewPoints { degree: 2, found: 2 }));
        let same = [s(0.5, 1.0); 5];
        assert_eq!(least_squares(&same, 2, [-1.0, 1.0]), Err(ApproximationError::Singular { degree: 2 }));
        let zero = [-0.5, 0.0, 0.5].map(|x| Sample { x, y: 0.0, weight: 1.0 });
        assert_eq!(least_squares(&zero, 1, [-1.0, 1.0]), Err(ApproximationError::Constant { value: 0.0 }));
        assert!(matches!(least_squares(&few, 1, [1.0, 1.0]), Err(ApproximationError::Interval { .. })));
        assert!(matches!(least_squares(&[s(f64::NAN, 1.0)], 1, [0.0, 1.0]), Err(ApproximationError::NotFinite { .. })));
    }
}

//! Weighted least squares in Chebyshev basis.

use super::{ApproximationError, chebyshev_row, check_interval, clenshaw, dense, to_unit};
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
    check_interval(interval)?;
    let mut used = Vec::with_capacity(samples.len());
    for s in samples {
        for (what, value) in [("a position", s.x), ("a value", s.y), ("a weight", s.weight)] {
            if !value.is_finite() {
                return Err(ApproximationError::NotFinite { what, at: s.x, value });
            }
        }
        if s.weight > 0.0 && (interval[0]..=interval[1]).contains(&s.x) {
            used.push(*s);
        }
    }
    if degree == 0 {
        return Err(ApproximationError::Degree { found: degree, expected: "1 or more" });
    }
    if used.len() <= degree {
        return Err(ApproximationError::TooFewPoints { degree, found: used.len() });
    }
    let c = by_moments(&used, degree, interval).or_else(|| by_reflections(&used, degree, interval));
    let c = c.ok_or(ApproximationError::Singular { degree })?;
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

/// Householder reflections: the definition. None if the columns are dependent.
fn by_reflections(used: &[Sample], degree: usize, interval: [f64; 2]) -> Option<Vec<f64>> {
    let mut columns = vec![vec![0.0; used.len()]; degree + 1];
    let mut row = vec![0.0; degree + 1];
    for (i, s) in used.iter().enumerate() {
        chebyshev_row(to_unit(interval, s.x), &mut row);
        let root = s.weight.sqrt();
        columns.iter_mut().zip(&row).for_each(|(c, v)| c[i] = root * v);
    }
    let y = used.iter().map(|s| s.weight.sqrt() * s.y).collect();
    dense::solve_least_squares(columns, y)
}

/// The normal equations, refined with the residuals at the samples until they settle; none where they are too ill-conditioned
/// for that. Since `2 T_j T_k = T_(j+k) + T_|j-k|`, their matrix takes the 2 degree + 1 moments of the weights.
fn by_moments(used: &[Sample], degree: usize, interval: [f64; 2]) -> Option<Vec<f64>> {
    let moments = |of: &dyn Fn(&Sample, f64) -> f64, count: usize| {
        let (mut sums, mut row) = (vec![0.0; count], vec![0.0; count]);
        for s in used {
            let t = to_unit(interval, s.x);
            chebyshev_row(t, &mut row);
            let value = s.weight * of(s, t);
            sums.iter_mut().zip(&row).for_each(|(sum, v)| *sum += value * v);
        }
        sums
    };
    let m = moments(&|_, _| 1.0, 2 * degree + 1);
    let rows: Vec<Vec<f64>> = (0..=degree).map(|j| (0..=j).map(|k| (m[j + k] + m[j - k]) / 2.0).collect()).collect();
    let factor = dense::cholesky(rows)?;
    let mut c = vec![0.0; degree + 1];
    let largest = |v: &[f64]| v.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    for _ in 0..ROUNDS {
        let correction = dense::solve_cholesky(&factor, moments(&|s, t| s.y - clenshaw(&c, t), degree + 1));
        c.iter_mut().zip(&correction).for_each(|(c, d)| *c += d);
        if largest(&correction) <= SETTLED * largest(&c) {
            return Some(c);
        }
    }
    None
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
            let fast = by_moments(&samples, degree, [-9.0, 12.0]);
            assert_eq!(fast.is_some(), settles, "degree {degree}, floor {floor}");
            let slow = by_reflections(&samples, degree, [-9.0, 12.0]).unwrap();
            for (a, b) in fast.iter().flatten().zip(&slow) {
                assert!((a - b).abs() < 1e-10, "degree {degree}: {a} {b}");
            }
        }
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

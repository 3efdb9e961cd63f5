//! The sign function as a composite of odd minimax polynomials, and the ReLU made of it.
//!
//! `sign(x)` for `epsilon <= |x| <= 1` is `p_k(... p_1(x))`: each p_i is the best odd approximation of the sign on the
//! range that the ones before leave, `[1 - e, 1 + e]` and its mirror image. Among composites of given degrees this is the
//! best (Lee, Lee, No and Kim, IEEE TDSC 2021, theorem 4). Then `relu(x) = x (1 + sign(x)) / 2`.

use super::minimax::{Parity, minimax};
use super::{ApproximationError, check_interval};
use crate::circuits::polynomial::Chebyshev;

/// Halvings in the search for epsilon.
const SEARCH: usize = 50;

/// A composite sign.
#[derive(Debug, Clone, PartialEq)]
pub struct CompositeSign {
    /// The polynomials, the first one applied first, each on `[-1, 1]`: those after the first take `t / scale`, and every one
    /// but the last gives its result divided by the next one's scale.
    pub stages: Vec<Chebyshev>,
    /// From here on the sign is good.
    pub epsilon: f64,
    /// Largest `|sign - s|` for `epsilon <= |x| <= 1`.
    pub error: f64,
}

impl CompositeSign {
    /// The composite at x in `[-1, 1]`.
    pub fn value(&self, x: f64) -> f64 {
        self.stages.iter().fold(x, |t, p| p.value(t))
    }

    /// Largest `|relu(x) - x (1 + s(x)) / 2|` over `[-1, 1]`, by looking at many points, dense near 0.
    pub fn relu_error(&self) -> f64 {
        let at = |i: u32| (f64::from(i) / 20_000.0).powi(3);
        // The composite is odd, so both signs of x err alike.
        (0..=20_000).map(at).map(|x| x * (1.0 - self.value(x)).abs() / 2.0).fold(0.0, f64::max)
    }
}

/// The best composite of the given odd degrees for `epsilon <= |x| <= 1`.
///
/// # Errors
/// [`ApproximationError::Interval`] or [`ApproximationError::Intervals`] unless `0 < epsilon < 1`, [`ApproximationError::Degree`] without a
/// degree; of each stage those of [`minimax`].
pub fn composite_sign(degrees: &[usize], epsilon: f64) -> Result<CompositeSign, ApproximationError> {
    check_interval([epsilon, 1.0])?;
    let mut interval = [epsilon, 1.0];
    let mut parts: Vec<(Chebyshev, f64)> = Vec::with_capacity(degrees.len());
    let mut error = 1.0 - epsilon;
    for &degree in degrees {
        let best = minimax(|_| 1.0, degree, &[interval], Parity::Odd)?;
        parts.push((best.polynomial, interval[1]));
        error = best.error;
        interval = [1.0 - error, 1.0 + error];
    }
    if parts.is_empty() {
        return Err(ApproximationError::Degree { found: 0, expected: "one odd degree or more" });
    }
    // Coefficients are those on [-hull, hull]; in units of the hull the interval is [-1, 1], and the part before gives its
    // result in those units.
    let mut stages = Vec::with_capacity(parts.len());
    for (i, (part, _)) in parts.iter().enumerate() {
        let scale = parts.get(i + 1).map_or(1.0, |(_, hull)| *hull);
        let coefficients = part.coefficients().iter().map(|c| c / scale).collect();
        stages
            .push(Chebyshev::new(coefficients, [-1.0, 1.0]).map_err(|_| ApproximationError::Singular { degree: part.degree() })?);
    }
    Ok(CompositeSign { stages, epsilon, error })
}

/// The composite of the given odd degrees with which `x (1 + s(x)) / 2` is nearest to ReLU on `[-1, 1]`: below epsilon the
/// error is about `epsilon / 2` at most, above it `error / 2`, and one falls as the other rises.
///
/// # Errors
/// Those of [`composite_sign`] where no epsilon gives a composite: [`ApproximationError::Degree`] without a degree, or for one that is even
/// or above 127.
pub fn relu_sign(degrees: &[usize]) -> Result<CompositeSign, ApproximationError> {
    let (mut low, mut high) = (1e-9f64.ln(), 0.9f64.ln());
    let mut best: Option<(f64, CompositeSign)> = None;
    let mut refused = None;
    for _ in 0..SEARCH {
        let epsilon = ((low + high) / 2.0).exp();
        let sign = match composite_sign(degrees, epsilon) {
            Ok(sign) => sign,
            Err(e @ ApproximationError::Degree { .. }) => return Err(e),
            Err(e) => {
                // So far from 0 that the error is below what f64 can tell.
                refused = refused.or(Some(e));
                high = epsilon.ln();
                continue;
            }
        };
        let below = (0..=400).map(|i| epsilon * f64::from(i) / 400.0).map(|x| x * (1.0 - sign.value(x)).abs() / 2.0);
        let below = below.fold(0.0, f64::max);
        if below < sign.error / 2.0 {
            low = epsilon.ln();
        } else {
            high = epsilon.ln();
        }
        let whole = below.max(sign.error / 2.0);
        if best.as_ref().is_none_or(|(e, _)| whole < *e) {
            best = Some((whole, sign));
        }
        if high - low < 1e-6 {
            break;
        }
    }
    let refused = refused.unwrap_or(ApproximationError::Degree { found: degrees.len(), expected: "one odd degree or more" });
    best.map(|(_, sign)| sign).ok_or(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_has_a_closed_form() {
        // 2x / (1 + a), error (1 - a) / (1 + a).
        for a in [0.1, 0.5, 0.9] {
            let s = composite_sign(&[1], a).unwrap();
            assert!((s.error - (1.0 - a) / (1.0 + a)).abs() < 1e-12);
            assert!((s.value(a) - 2.0 * a / (1.0 + a)).abs() < 1e-12);
        }
        // Two lines compose to one: nothing is gained.
        assert!((composite_sign(&[1, 1], 0.25).unwrap().error - 0.6).abs() < 1e-9);
    }

    #[test]
    fn the_composite_is_as_good_as_it_says_and_odd() {
        for degrees in [&[3, 5][..], &[7, 7], &[15, 15, 27]] {
            let epsilon = if degrees.len() == 3 { 2f64.powi(-12) } else { 0.02 };
            let s = composite_sign(degrees, epsilon).unwrap();
            assert_eq!(s.stages.iter().map(Chebyshev::degree).collect::<Vec<_>>(), degrees);
            let mut worst: f64 = 0.0;
            for i in 0..=20_000 {
                let x = epsilon * (1.0 / epsilon).powf(f64::from(i) / 20_000.0);
                worst = worst.max((s.value(x) - 1.0).abs());
                assert!((s.value(x) + s.value(-x)).abs() < 1e-9);
            }
            assert!(worst <= s.error * (1.0 + 1e-4) + 1e-12 && worst > 0.999 * s.error, "{degrees:?}: {worst} {}", s.error);
            // No stage is fed anything outside its interval.
            for x in [epsilon, 0.1, 0.5, 1.0] {
                let mut t = x;
                for p in &s.stages {
                    assert!(t.abs() <= 1.0 + 1e-9, "{t}");
                    t = p.value(t);
                }
            }
        }
    }

    /// ReLU to `2^-alpha` on [-1, 1] with the degrees published for it: Lee et al., "Precise approximation of convolutional
    /// neural networks for homomorphically encrypted data" (IEEE Access 2023; ePrint 2021/637), table of optimal degrees.
    #[test]
    fn published_degrees_reach_their_published_precision() {
        let published: [(i32, &[usize]); 7] = [
            (7, &[7, 7]),
            (8, &[7, 15]),
            (9, &[15, 15]),
            (10, &[7, 7, 13]),
            (11, &[7, 7, 27]),
            (12, &[7, 15, 27]),
            (13, &[15, 15, 27]),
        ];
        for (alpha, degrees) in published {
            let s = relu_sign(degrees).unwrap();
            let error = s.relu_error();
            assert!(error <= 2f64.powi(-alpha), "alpha {alpha} {degrees:?}: {} bits", -error.log2());
            assert!(error > 2f64.powi(-alpha - 1), "alpha {alpha} {degrees:?}: {} bits, too good to be true", -error.log2());
        }
    }

    #[test]
    fn refuses_what_is_no_composite() {
        assert!(matches!(composite_sign(&[], 0.1), Err(ApproximationError::Degree { .. })));
        assert!(matches!(composite_sign(&[4], 0.1), Err(ApproximationError::Degree { found: 4, .. })));
        assert!(matches!(composite_sign(&[3], 1.0), Err(ApproximationError::Interval { .. })));
        // The degree that is wrong is named, not the first one.
        assert!(matches!(relu_sign(&[3, 4]), Err(ApproximationError::Degree { found: 4, .. })));
        assert!(matches!(relu_sign(&[]), Err(ApproximationError::Degree { .. })));
    }
}

//! Minimax polynomials by the Remez exchange, on one or several intervals.
//!
//! The best approximation is the one whose error reaches its largest magnitude at as many points as there are
//! coefficients and one more, with alternating signs. The exchange solves for a polynomial with error `(-1)^i E` on a set
//! of such points, moves the points to the extrema of its error, and repeats; `|E|` rises, the largest error falls, and the
//! best possible error lies between them (de la Vallée Poussin), so the result carries its own proof.

use super::{ApproximationError, chebyshev_row, check_interval, clenshaw, dense, exchange, to_unit};
use crate::circuits::polynomial::Chebyshev;
use exchange::{Extremum, alternating, extrema};

/// Most rounds of exchange.
const ROUNDS: usize = 60;
/// The largest error may exceed the levelled one by this part.
const SETTLED: f64 = 1e-7;
/// Differences below this part of the function's size are rounding.
const ROUNDING: f64 = 1e-13;
/// Largest degree computed.
pub const MAX_DEGREE: usize = 127;

/// Which powers a polynomial has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// All.
    Any,
    /// Odd powers: the intervals are taken positive and stand for their mirror images too.
    Odd,
    /// Even powers: the same.
    Even,
}

/// A best approximation.
#[derive(Debug, Clone, PartialEq)]
pub struct Minimax {
    /// The polynomial, on the hull of the intervals (for a parity, of the intervals and their mirror images).
    pub polynomial: Chebyshev,
    /// Its largest error on the intervals.
    pub error: f64,
    /// A lower bound of the largest error of every polynomial of the degree and parity.
    pub least: f64,
    /// Where the largest error is reached, with its sign: in order, signs alternating.
    pub reference: Vec<(f64, f64)>,
}

/// The polynomial p of a degree that minimises the largest `|p - f|` over disjoint increasing intervals. f is called within
/// them only. `Parity::Odd` needs positive intervals, `Parity::Even` ones that are not negative.
///
/// Degrees up to 127 on one interval; the accuracy of f64 ends at errors of about 1e-13 of the size of f. Cost: some ten
/// rounds of `degree^3`.
///
/// # Errors
/// [`ApproximationError::Interval`] and [`ApproximationError::Intervals`] for intervals other than these, [`ApproximationError::Degree`]
/// for one that is 0, above [`MAX_DEGREE`] or not of the parity, [`ApproximationError::NotFinite`] for a value of f,
/// [`ApproximationError::Constant`] where the best is one, [`ApproximationError::Singular`] and [`ApproximationError::NoConvergence`] where
/// f64 does not suffice.
pub fn minimax(
    f: impl Fn(f64) -> f64,
    degree: usize,
    intervals: &[[f64; 2]],
    parity: Parity,
) -> Result<Minimax, ApproximationError> {
    for &interval in intervals {
        check_interval(interval)?;
    }
    let outside = match (parity, intervals.first()) {
        (Parity::Odd, Some(first)) => first[0] <= 0.0,
        (Parity::Even, Some(first)) => first[0] < 0.0,
        _ => false,
    };
    if intervals.is_empty() || outside || intervals.windows(2).any(|w| w[0][1] >= w[1][0]) {
        return Err(ApproximationError::Intervals { found: intervals.len() });
    }
    let powers: Vec<usize> = match parity {
        Parity::Any => (0..=degree).collect(),
        Parity::Odd => (1..=degree).step_by(2).collect(),
        Parity::Even => (0..=degree).step_by(2).collect(),
    };
    if powers.last() != Some(&degree) || degree == 0 || degree > MAX_DEGREE {
        return Err(ApproximationError::Degree { found: degree, expected: "1 to 127, odd or even as the parity" });
    }
    let end = intervals[intervals.len() - 1][1];
    let hull = if parity == Parity::Any { [intervals[0][0], end] } else { [-end, end] };
    let value = |x: f64| {
        let y = f(x);
        if y.is_finite() { Ok(y) } else { Err(ApproximationError::NotFinite { what: "the function", at: x, value: y }) }
    };
    let mut reference = first_reference(intervals, powers.len() + 1);
    let (mut least, mut largest) = (0.0f64, f64::INFINITY);
    for _ in 0..ROUNDS {
        let values = reference.iter().map(|x| value(*x)).collect::<Result<Vec<_>, _>>()?;
        let (coefficients, level) =
            levelled(&reference, &values, &powers, degree, hull).ok_or(ApproximationError::Singular { degree })?;
        let error = |x: f64| clenshaw(&coefficients, to_unit(hull, x)) - f(x);
        let all = extrema(intervals, &reference, error);
        let top = all.iter().fold(0.0, |m: f64, p| m.max(p.error.abs()));
        let size = values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        (least, largest) = (least.max(level), top);
        if top <= level * (1.0 + SETTLED) + ROUNDING * size {
            let reference = reference.iter().map(|x| (*x, error(*x))).collect();
            let value = coefficients[0];
            let polynomial = Chebyshev::new(coefficients, hull).map_err(|_| ApproximationError::Constant { value })?;
            return Ok(Minimax { polynomial, error: top, least: level.min(top), reference });
        }
        let next = alternating(&all, powers.len() + 1).ok_or(ApproximationError::NoConvergence {
            degree,
            rounds: ROUNDS,
            least,
            largest,
        })?;
        reference = next.iter().map(|p: &Extremum| p.x).collect();
    }
    Err(ApproximationError::NoConvergence { degree, rounds: ROUNDS, least, largest })
}

/// Points spread over the intervals by length, in each as Chebyshev extrema are, ends included.
fn first_reference(intervals: &[[f64; 2]], count: usize) -> Vec<f64> {
    let total: f64 = intervals.iter().map(|[a, b]| b - a).sum();
    let mut points = Vec::with_capacity(count);
    let (mut length, mut placed) = (0.0, 0);
    for (i, [a, b]) in intervals.iter().enumerate() {
        length += b - a;
        let upto = if i + 1 == intervals.len() { count } else { (count as f64 * length / total).round() as usize };
        let here = upto.saturating_sub(placed);
        let at = |k: usize| match here {
            1 => (a + b) / 2.0,
            _ => (a + b) / 2.0 - (b - a) / 2.0 * (std::f64::consts::PI * k as f64 / (here - 1) as f64).cos(),
        };
        points.extend((0..here).map(at));
        placed = upto.max(placed);
    }
    points
}

/// The polynomial with `p(x_i) - f(x_i) = (-1)^i E` on the reference: coefficients `0..=degree` and |E|.
fn levelled(reference: &[f64], values: &[f64], powers: &[usize], degree: usize, hull: [f64; 2]) -> Option<(Vec<f64>, f64)> {
    let mut row = vec![0.0; degree + 1];
    let rows: Vec<Vec<f64>> = reference
        .iter()
        .enumerate()
        .map(|(i, x)| {
            chebyshev_row(to_unit(hull, *x), &mut row);
            let sign = if i % 2 == 0 { -1.0 } else { 1.0 };
            powers.iter().map(|&k| row[k]).chain([sign]).collect()
        })
        .collect();
    let solution = dense::solve_square(&rows, values)?;
    let mut coefficients = vec![0.0; degree + 1];
    for (&k, c) in powers.iter().zip(&solution) {
        coefficients[k] = *c;
    }
    Some((coefficients, solution[powers.len()].abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: the error reaches its largest magnitude `count` times with alternating signs, and nowhere exceeds it.
    fn assert_equioscillates(m: &Minimax, f: impl Fn(f64) -> f64, intervals: &[[f64; 2]], count: usize) {
        assert_eq!(m.reference.len(), count);
        for (i, &(x, e)) in m.reference.iter().enumerate() {
            assert!((m.polynomial.value(x) - f(x) - e).abs() < 1e-12);
            assert!((e.abs() / m.error - 1.0).abs() < 1e-5, "error {e} of {} at {x}", m.error);
            assert!(i == 0 || e.signum() != m.reference[i - 1].1.signum());
        }
        for &[a, b] in intervals {
            for i in 0..=5000 {
                let x = a + (b - a) * f64::from(i) / 5000.0;
                assert!((m.polynomial.value(x) - f(x)).abs() <= m.error * (1.0 + 1e-9) + 1e-15, "at {x}");
            }
        }
        assert!(m.least <= m.error && m.error <= m.least * (1.0 + 2.0 * SETTLED) + 1e-12);
    }

    #[test]
    fn powers_less_one_degree_are_chebyshev_polynomials() {
        // x^n - p has the least maximum if it is T_n / 2^(n-1).
        for n in [3, 5, 10, 17] {
            let f = |x: f64| x.powi(n);
            let m = minimax(f, n as usize - 1, &[[-1.0, 1.0]], Parity::Any).unwrap();
            assert!((m.error / 2f64.powi(1 - n) - 1.0).abs() < 1e-6, "{n}: {}", m.error);
            assert_equioscillates(&m, f, &[[-1.0, 1.0]], n as usize + 1);
        }
    }

    #[test]
    fn the_best_line_to_the_exponential() {
        // Slope sinh 1 (the chord); the error at the ends and where e^x has that slope is the same.
        let slope = 1f64.sinh();
        let constant = (1f64.exp() - slope * slope.ln()) / 2.0;
        let m = minimax(f64::exp, 1, &[[-1.0, 1.0]], Parity::Any).unwrap();
        assert!((m.polynomial.value(0.0) - constant).abs() < 1e-7);
        assert!((m.error - (1f64.exp() - slope - constant)).abs() < 1e-7);
        // Best approximations to e^x on [-1, 1] fall like 1 / (2^n (n + 1)!) (Meinardus).
        for n in [4, 8] {
            let m = minimax(f64::exp, n, &[[-1.0, 1.0]], Parity::Any).unwrap();
            let factorial: f64 = (1..=n + 1).map(|k| k as f64).product();
            let asymptotic = 1.0 / (2f64.powi(n as i32) * factorial);
            assert!((m.error / asymptotic - 1.0).abs() < 0.06, "{n}: {} {asymptotic}", m.error);
            assert_equioscillates(&m, f64::exp, &[[-1.0, 1.0]], n + 2);
        }
    }

    #[test]
    fn the_absolute_value_as_published() {
        // 2n E_2n(|x|) for n = 1, 2 (exact: 1/4; Varga and Carpenter, Constr. Approx. 1 (1985), table 1), falling towards the
        // Bernstein constant 0.2801694990...
        let scaled = |n: usize| {
            let m = minimax(f64::abs, 2 * n, &[[0.0, 1.0]], Parity::Even).unwrap();
            assert_equioscillates(&m, f64::abs, &[[0.0, 1.0]], n + 2);
            2.0 * n as f64 * m.error
        };
        assert!((scaled(1) - 0.25).abs() < 1e-7);
        assert!((scaled(2) - 0.270_483_597_1).abs() < 1e-7, "{}", scaled(2));
        let (s8, s31) = (scaled(8), scaled(31));
        assert!(s8 < s31 && s31 < 0.280_169_499_0 && 0.280_169_499_0 - s31 < 1e-4, "{s8} {s31}");
        // The same polynomial without using its symmetry.
        let whole = minimax(f64::abs, 17, &[[-1.0, 1.0]], Parity::Any);
        let even = minimax(f64::abs, 16, &[[0.0, 1.0]], Parity::Even).unwrap();
        if let Ok(whole) = whole {
            assert!((whole.error - even.error).abs() < 1e-6 * even.error);
        }
    }

    #[test]
    fn relu_is_half_the_absolute_value_and_half_the_identity() {
        let m = minimax(|x| x.max(0.0), 8, &[[-1.0, 1.0]], Parity::Any).unwrap();
        let half = minimax(f64::abs, 8, &[[0.0, 1.0]], Parity::Even).unwrap();
        assert!((2.0 * m.error / half.error - 1.0).abs() < 1e-6);
    }

    #[test]
    fn several_intervals_are_better_than_their_hull() {
        let intervals = [[-2.0, -0.5], [0.25, 1.0], [1.5, 3.0]];
        let step = |x: f64| if x < 0.0 { -1.0 } else { x.sqrt() };
        let m = minimax(step, 9, &intervals, Parity::Any).unwrap();
        assert_equioscillates(&m, step, &intervals, 11);
        assert!(m.error < 0.2, "{}", m.error);
    }

    #[test]
    fn least_squares_is_never_better() {
        use super::super::least_squares::{chebyshev_samples, least_squares};
        for (name, f) in [("exp", f64::exp as fn(f64) -> f64), ("tanh", f64::tanh), ("cos", f64::cos)] {
            for degree in [3, 6, 9] {
                let interval = [-2.0, 3.0];
                let best = minimax(f, degree, &[interval], Parity::Any).unwrap();
                let fit = least_squares(&chebyshev_samples(interval, 4000, f), degree, interval).unwrap();
                let worst = (0..=2000).map(|i| -2.0 + 5.0 * f64::from(i) / 2000.0).map(|x| (fit.value(x) - f(x)).abs());
                let worst = worst.fold(0.0, f64::max);
                assert!(best.error < worst && worst < 4.0 * best.error, "{name} {degree}: {} {worst}", best.error);
            }
        }
    }

    #[test]
    fn refuses_what_it_cannot_approximate() {
        use ApproximationError::*;
        assert!(matches!(minimax(f64::exp, 3, &[], Parity::Any), Err(Intervals { found: 0 })));
        assert!(matches!(minimax(f64::exp, 3, &[[0.0, 2.0], [1.0, 3.0]], Parity::Any), Err(Intervals { found: 2 })));
        assert!(matches!(minimax(f64::exp, 3, &[[-1.0, 2.0]], Parity::Odd), Err(Intervals { .. })));
        assert!(matches!(minimax(f64::exp, 4, &[[1.0, 2.0]], Parity::Odd), Err(Degree { found: 4, .. })));
        assert!(matches!(minimax(f64::exp, 3, &[[1.0, f64::NAN]], Parity::Any), Err(Interval { .. })));
        assert!(matches!(minimax(|_| 2.5, 3, &[[0.0, 1.0]], Parity::Any), Err(Constant { value: 2.5 })));
        assert!(matches!(minimax(f64::ln, 3, &[[-1.0, 1.0]], Parity::Any), Err(NotFinite { .. })));
    }
}

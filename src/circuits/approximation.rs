//! Polynomial approximation of functions of one number: weighted least squares, minimax (Remez) on one or several
//! intervals, the composite sign function, and composites fitted to samples.
//!
//! Everything is computed in f64 and in Chebyshev basis on the hull of the intervals, which is well conditioned for the
//! degrees that fit in a few levels. Formulas and sources: `docs/fitting.md`.

pub mod composite;
mod dense;
mod exchange;
mod lanes;
pub mod least_squares;
pub mod minimax;
pub mod sign;

pub use composite::{Spread, WeightedComposite, best_spread};
pub(crate) use dense::{cholesky, solve_cholesky};
pub use least_squares::{Sample, least_squares, odd_least_squares};
pub use minimax::{Minimax, Parity, minimax};
pub use sign::{CompositeSign, composite_sign};

/// Why an approximation cannot be computed.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum ApproximationError {
    /// An interval without an inside, or with an end that is no number.
    #[error("[{}, {}] is no interval to approximate on: two finite ends are needed, the smaller one first", .interval[0], .interval[1])]
    Interval {
        /// The interval.
        interval: [f64; 2],
    },
    /// Intervals that overlap, are out of order, or none at all.
    #[error("{found} intervals that overlap or are out of order: at least one is needed, disjoint and increasing")]
    Intervals {
        /// How many came.
        found: usize,
    },
    /// A degree that is not computed.
    #[error("degree {found} is not computed: {expected}")]
    Degree {
        /// What was asked for.
        found: usize,
        /// What can be.
        expected: &'static str,
    },
    /// A function value, weight or position that is no number.
    #[error("{what} is {value} at {at}; a finite number is needed")]
    NotFinite {
        /// What is.
        what: &'static str,
        /// Where.
        at: f64,
        /// What it is.
        value: f64,
    },
    /// Not enough different points with a weight.
    #[error("{found} points carry weight, a polynomial of degree {degree} needs {}", degree + 1)]
    TooFewPoints {
        /// Degree.
        degree: usize,
        /// Points with a positive weight.
        found: usize,
    },
    /// A linear system without a unique solution in f64.
    #[error("the system of degree {degree} is singular in double precision; take a smaller degree or a wider interval")]
    Singular {
        /// Degree.
        degree: usize,
    },
    /// The best polynomial is a constant.
    #[error("the best polynomial is the constant {value}: there is nothing to evaluate")]
    Constant {
        /// The constant.
        value: f64,
    },
    /// The exchange did not settle.
    #[error(
        "the Remez exchange of degree {degree} did not settle in {rounds} rounds: errors between {least} and {largest} remain"
    )]
    NoConvergence {
        /// Degree.
        degree: usize,
        /// Rounds made.
        rounds: usize,
        /// The levelled error: a lower bound of what is possible.
        least: f64,
        /// The largest error of the last polynomial.
        largest: f64,
    },
}

/// `t` in `[-1, 1]` for `x` in the interval.
fn to_unit(interval: [f64; 2], x: f64) -> f64 {
    (2.0 * x - interval[0] - interval[1]) / (interval[1] - interval[0])
}

/// `T_0(t) .. T_degree(t)` into `row`.
fn chebyshev_row(t: f64, row: &mut [f64]) {
    for k in 0..row.len() {
        row[k] = match k {
            0 => 1.0,
            1 => t,
            _ => 2.0 * t * row[k - 1] - row[k - 2],
        };
    }
}

/// `sum_k c[k] T_k(t)` (Clenshaw).
fn clenshaw(c: &[f64], t: f64) -> f64 {
    let (mut b1, mut b2) = (0.0, 0.0);
    for &c in c.iter().skip(1).rev() {
        (b1, b2) = (2.0 * t * b1 - b2 + c, b1);
    }
    t * b1 - b2 + c.first().copied().unwrap_or(0.0)
}

fn check_interval(interval: [f64; 2]) -> Result<(), ApproximationError> {
    let [a, b] = interval;
    if a.is_finite() && b.is_finite() && a < b { Ok(()) } else { Err(ApproximationError::Interval { interval }) }
}

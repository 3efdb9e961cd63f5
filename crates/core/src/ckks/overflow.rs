//! How large the multiples of q0 get when the modulus is raised, and how often too large.
//!
//! Raised, a ciphertext (c0, c1) decrypts to `c0 + c1 s` over the integers, which is `q0 I` plus the message, and that is small beside
//! q0. c1 is uniform modulo q0, centred, so with a secret of weight h a coefficient of `c1 s / q0` is a sum Y of h independent
//! uniform variables on [-1/2, 1/2): the centred Irwin-Hall distribution. c0 adds what is missing to the next multiple of q0, so
//! `I = round(Y)`. (To treat c0 as one more independent variable, as is often done, gives the same variance, (h + 1) / 12, and a
//! tail that is too heavy: for h = 32 and k = 14, 2^-53 instead of 2^-58 for 2^16 coefficients.)

/// log2 of the probability that `|I| >= k` for any of `coefficients` coefficients, by the union bound: `2 P(Y >= k - 1/2)` each.
///
/// Exact but for the rounding of f64 (relatively 1e-13): a sum of values of the B-spline of degree h, found by the recurrence of
/// Cox and de Boor, whose terms are all positive. Minus infinity where it cannot happen.
pub fn log2_failure(weight: usize, k: u32, coefficients: usize) -> f64 {
    // P(Y >= y) = P(S <= h / 2 - y) for S a sum of uniform variables on [0, 1].
    let reach = weight as f64 / 2.0 - (f64::from(k) - 0.5);
    let tail = irwin_hall(weight, reach);
    (2.0 * tail).log2().min(0.0) + (coefficients as f64).log2()
}

/// `P(S <= x)` for S the sum of `n` independent uniform variables on [0, 1].
fn irwin_hall(n: usize, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= n as f64 {
        return 1.0;
    }
    // The density f of n + 1 variables is the difference of the distribution of n at x and x - 1, so the distribution at x is the sum
    // of f(x), f(x - 1), ...: one row of the recurrence f_m(y) = (y f_(m-1)(y) + (m - y) f_(m-1)(y - 1)) / (m - 1).
    let places = x.floor() as usize + 1;
    let mut row: Vec<f64> = (0..places).map(|j| f64::from(j == places - 1)).collect();
    for m in 2..=n + 1 {
        for j in 0..places {
            let y = x - j as f64;
            let below = if j + 1 < places { row[j + 1] } else { 0.0 };
            row[j] = (y * row[j] + (m as f64 - y).max(0.0) * below) / (m - 1) as f64;
        }
    }
    row.iter().rev().sum::<f64>().min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_bigint::BigInt;

    /// `P(S <= a / 2)` by inclusion and exclusion in integers: `sum_j (-1)^j C(n, j) (a - 2 j)^n / (2^n n!)`.
    fn by_integers(n: u32, a: u32) -> f64 {
        let (mut sum, mut binomial) = (BigInt::from(0), BigInt::from(1));
        for j in 0..=a / 2 {
            let term = &binomial * BigInt::from(a - 2 * j).pow(n);
            sum = if j % 2 == 0 { sum + term } else { sum - term };
            binomial = binomial * (n - j) / (j + 1);
        }
        let factorial: BigInt = (1..=n).map(BigInt::from).product();
        let denominator = factorial << n;
        // More bits than the ratio has zeros by 300, then to f64 through its decimal digits.
        let scaled: BigInt = (sum << 700u32) / denominator;
        scaled.to_string().parse::<f64>().unwrap() * 0.5f64.powi(700)
    }

    #[test]
    fn equals_inclusion_and_exclusion_in_big_integers() {
        for n in [1u32, 2, 5, 33, 65] {
            for a in 1..2 * n {
                let (want, got) = (by_integers(n, a), irwin_hall(n as usize, f64::from(a) / 2.0));
                assert!((got / want - 1.0).abs() < 1e-12, "n = {n}, x = {a}/2: {got:e} {want:e}");
            }
        }
    }

    #[test]
    fn published_figures() {
        // Computed apart from this code for 33 variables, the bound that counts c0, and 2^16 coefficients.
        for (k, bits) in [(13, -40.0), (14, -53.0), (16, -106.0)] {
            let (bound, got) = (log2_failure(33, k, 1 << 16), log2_failure(32, k, 1 << 16));
            assert!((bound - bits).abs() < 1.0 && got < bound, "k = {k}: {bound}, {got}");
        }
        assert!((log2_failure(32, 14, 1 << 16) + 58.0).abs() < 1.0);
        assert_eq!(log2_failure(32, 17, 1 << 16), f64::NEG_INFINITY);
        assert_eq!(log2_failure(32, 0, 1), 0.0);
    }
}

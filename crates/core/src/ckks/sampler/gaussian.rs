//! The table of the discrete Gaussian, in integers: floating point rounds away the tail that security is about.
//!
//! With `rho(k) = exp(-k^2 / (2 sigma^2))`, `P(|X| > k) = 2 sum_(j > k) rho(j) / sum_j rho(j)`. Numbers are fixed point with 120 bits
//! after the point. A term has an error below `2^-110`, the tails are summed from the small end and divided exactly, so every entry is
//! the nearest integer to `2^63 P`, but where that is a tie to within `2^-40`; tests hold it against big integers.

/// Bits after the point.
const POINT: u32 = 120;
const ONE: u128 = 1 << POINT;

/// `2^63 P(|X| <= k)` for k = 0, 1, ..., to the nearest integer, as long as that is below `2^63`.
pub(super) fn thresholds(sigma: f64) -> Vec<u64> {
    let density = densities(sigma);
    // tails[k] is the sum over magnitudes above k, both signs.
    let mut tails = vec![0u128; density.len()];
    for k in (0..density.len() - 1).rev() {
        tails[k] = tails[k + 1] + 2 * density[k + 1];
    }
    let total = tails[0] + density[0];
    tails.iter().map(|&tail| fraction(tail, total)).take_while(|&tail| tail > 0).map(|tail| (1 << 63) - tail).collect()
}

/// `rho(0), rho(1), ...`, until they are nothing.
fn densities(sigma: f64) -> Vec<u128> {
    let ratio = ratio(sigma);
    // rho(k + 1) = rho(k) a^(2k + 1).
    let (square, mut step, mut rho) = (mul(ratio, ratio), ratio, ONE);
    let mut out = Vec::new();
    while rho > 0 {
        out.push(rho);
        rho = mul(rho, step);
        step = mul(step, square);
    }
    out
}

/// `a = exp(-1 / (2 sigma^2))`, for sigma from 0.5 to 2^10.
fn ratio(sigma: f64) -> u128 {
    // sigma = m 2^e, so x / 4 = 1 / (8 sigma^2) = 2^(-3 - 2e) / m^2, at most 1/2.
    let bits = sigma.to_bits();
    let (m, e) = (u128::from(bits & ((1 << 52) - 1) | 1 << 52), (bits >> 52 & 0x7ff) as i32 - 1075);
    let quarter = divide(1 << (-3 - 2 * e), m * m);
    // exp(-x/4) by its series, least term first: 1 - y (1 - y/2 (1 - y/3 (...))).
    let root = (1..=40).rev().fold(ONE, |sum, n| ONE - mul(quarter, sum) / n);
    let half = mul(root, root);
    mul(half, half)
}

/// `floor(a b)`.
fn mul(a: u128, b: u128) -> u128 {
    const LOW: u128 = (1 << 64) - 1;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    // Both are at most 2^120, so sums of two products of halves fit.
    let (low, middle, high) = (a0 * b0, a1 * b0 + a0 * b1, a1 * b1);
    let carry = (middle & LOW) + (low >> 64);
    let top = high + (middle >> 64) + (carry >> 64);
    let bottom = carry << 64 | low & LOW;
    top << (128 - POINT) | bottom >> POINT
}

/// `floor(2^120 a / b)` for a < b < 2^127.
fn divide(a: u128, b: u128) -> u128 {
    bits_of_quotient(a, b, POINT).0
}

/// The nearest integer to `2^63 a / b`, for a < b < 2^127.
fn fraction(a: u128, b: u128) -> u64 {
    let (quotient, rest) = bits_of_quotient(a, b, 63);
    (quotient + u128::from(2 * rest >= b)) as u64
}

/// So many bits after the point of `a / b`, and what is left.
fn bits_of_quotient(a: u128, b: u128, bits: u32) -> (u128, u128) {
    (0..bits).fold((0, a), |(quotient, rest), _| {
        let rest = rest << 1;
        if rest >= b { (quotient << 1 | 1, rest - b) } else { (quotient << 1, rest) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_bigint::BigUint;

    /// The table with 400 bits, each term by itself: x halved until it is small, a Taylor series, then squared as often.
    fn by_big_integers(sigma: f64) -> Vec<u64> {
        const BITS: u32 = 400;
        let one = BigUint::from(1u8) << BITS;
        let scaled = BigUint::from((sigma * 52f64.exp2()) as u64);
        assert_eq!((sigma * 52f64.exp2()).fract(), 0.0, "sigma is exact");
        let density = |k: u32| {
            // k^2 / (2 sigma^2) = k^2 2^103 / scaled^2.
            let x = (BigUint::from(k * k) << (103 + BITS)) / (&scaled * &scaled);
            let halvings = 16;
            let small = x >> halvings;
            let (mut term, mut sum, mut n) = (one.clone(), one.clone(), 1u32);
            let (mut positive, mut negative) = (BigUint::ZERO, BigUint::ZERO);
            while term != BigUint::ZERO {
                term = ((term * &small) >> BITS) / n;
                if n % 2 == 0 {
                    positive += &term
                } else {
                    negative += &term
                }
                n += 1;
            }
            sum += positive;
            sum -= negative;
            (0..halvings).fold(sum, |y, _| (&y * &y) >> BITS)
        };
        let last = (12.0 * sigma).ceil() as u32;
        let density: Vec<BigUint> = (0..=last).map(density).collect();
        let tail = |k: usize| density[k + 1..].iter().rev().sum::<BigUint>() * 2u8;
        let total = tail(0) + &density[0];
        let rounded = |k: usize| u64::try_from(((tail(k) << 64) / &total + 1u8) >> 1).unwrap();
        (0..density.len() - 1).map(rounded).take_while(|&t| t > 0).map(|t| (1u64 << 63) - t).collect()
    }

    #[test]
    fn the_table_is_that_of_big_integers() {
        for sigma in [0.5625, 1.0, 3.19, 3.2, 4.7, 8.0, 15.99, 16.0] {
            assert_eq!(thresholds(sigma), by_big_integers(sigma), "sigma {sigma}");
        }
    }

    #[test]
    fn thresholds_rise_and_stay_below_2_63() {
        for sigma in [0.51, 3.19, 16.0] {
            let table = thresholds(sigma);
            assert!(table.windows(2).all(|pair| pair[0] < pair[1]), "sigma {sigma}");
            assert!(table.last().is_some_and(|&t| t < 1 << 63), "sigma {sigma}");
            // What lies beyond has less than half a unit: 2^-64 is at 9.1 standard deviations.
            assert!((8.9..9.6).contains(&(table.len() as f64 / sigma)) || sigma < 1.0, "sigma {sigma}: {}", table.len());
        }
    }
}

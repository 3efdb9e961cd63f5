//! Search for NTT-friendly primes.

use super::{MathError, Modulus};

/// Whether `n` is prime: Miller-Rabin with bases 2, 3, 5, 7, which is exact below 3,215,031,751 (Jaeschke 1993).
pub fn is_prime(n: u32) -> bool {
    if n < 2 {
        return false;
    }
    for p in [2u32, 3, 5, 7, 11, 13] {
        if n.is_multiple_of(p) {
            return n == p;
        }
    }
    let pow = |a: u32, mut e: u32| {
        let (mut base, mut acc) = (u64::from(a), 1u64);
        while e > 0 {
            if e & 1 == 1 {
                acc = acc * base % u64::from(n);
            }
            base = base * base % u64::from(n);
            e >>= 1;
        }
        acc as u32
    };
    let s = (n - 1).trailing_zeros();
    [2u32, 3, 5, 7].iter().all(|&a| {
        let mut x = pow(a, (n - 1) >> s);
        if x == 1 || x == n - 1 {
            return true;
        }
        for _ in 1..s {
            x = (u64::from(x) * u64::from(x) % u64::from(n)) as u32;
            if x == n - 1 {
                return true;
            }
        }
        false
    })
}

/// The `count` primes `q = 1 mod 2^log_two_n`, `q < 2^30`, closest to `2^bits` in absolute distance, closest first,
/// leaving out those in `taken`.
///
/// # Errors
/// [`MathError::PrimeSupply`] where there are not as many.
pub fn closest_primes(bits: f64, count: usize, log_two_n: u32, taken: &[u32]) -> Result<Vec<u32>, MathError> {
    let target = bits.exp2();
    let short = |found| MathError::PrimeSupply { wanted: count, found, log_two_n, bits: (bits * 100.0).round() as u32 };
    // Beyond, 1 alone is below the bound: more cannot be found, and need not be counted.
    let step = 1i64 << log_two_n.min(Modulus::BOUND.ilog2());
    let largest = (i64::from(Modulus::BOUND) - 2) / step;
    let centre = (((target - 1.0) / step as f64).round() as i64).min(largest);
    let mut found = Vec::new();
    let (mut below, mut above) = (centre, centre + 1);
    let candidate =
        |k: i64| k.checked_mul(step).and_then(|v| u32::try_from(v + 1).ok()).filter(|&q| (3..Modulus::BOUND).contains(&q));
    while found.len() < count {
        let (lo, hi) = (candidate(below).filter(|_| below >= 1), candidate(above));
        let next = match (lo, hi) {
            (None, None) => break,
            (Some(l), None) => {
                below -= 1;
                l
            }
            (None, Some(h)) => {
                above += 1;
                h
            }
            (Some(l), Some(h)) if target - f64::from(l) <= f64::from(h) - target => {
                below -= 1;
                l
            }
            (Some(_), Some(h)) => {
                above += 1;
                h
            }
        };
        if is_prime(next) && !taken.contains(&next) {
            found.push(next);
        }
    }
    if found.len() < count {
        return Err(short(found.len()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn miller_rabin_equals_trial_division() {
        let trial = |n: u32| n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
        for n in (0..20_000).chain([2047, 25_326_001, 1_073_741_789, 1_073_676_289]) {
            assert_eq!(is_prime(n), trial(n), "{n}");
        }
    }

    #[test]
    fn primes_are_close_distinct_and_friendly() {
        let primes = closest_primes(30.0, 60, 17, &[]).unwrap();
        assert!(primes.iter().all(|&q| is_prime(q) && q % (1 << 17) == 1 && q < 1 << 30));
        assert!(primes.windows(2).all(|w| w[0] > w[1]));
        let more = closest_primes(30.0, 5, 17, &primes).unwrap();
        assert!(more.iter().all(|q| !primes.contains(q)));
        assert!(matches!(closest_primes(20.0, 100_000, 17, &[]), Err(MathError::PrimeSupply { .. })));
    }

    #[test]
    fn no_primes_beyond_the_bound_are_promised() {
        assert_eq!(closest_primes(30.0, 1, 26, &[]).map(|q| q[0] % (1 << 26)), Ok(1));
        for log_two_n in [30, 31, 32, 62, 63, 64, 65, u32::MAX] {
            let error = closest_primes(29.5, 2, log_two_n, &[]).unwrap_err();
            assert_eq!(error, MathError::PrimeSupply { wanted: 2, found: 0, log_two_n, bits: 2950 });
            assert!(error.to_string().contains("near 2^29.50"), "{error}");
            assert_eq!(closest_primes(29.5, 0, log_two_n, &[]), Ok(vec![]));
        }
        let error = closest_primes(30.0, usize::MAX, 24, &[]).unwrap_err();
        assert!(matches!(error, MathError::PrimeSupply { wanted: usize::MAX, found: 1.., .. }), "{error}");
    }
}

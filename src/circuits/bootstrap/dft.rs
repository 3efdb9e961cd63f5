//! The special Fourier transform between coefficients and slots, in factors with few diagonals.
//!
//! With n slots, `w_k = m_k + i m_(k+n)` and `zeta = exp(i pi / 2n)`, slot j is `z_j = sum_k w_k zeta^(5^j k)`. Splitting k into even
//! and odd gives `z_j = E_j + zeta^(5^j) O_j`, where E and O have period n/2 in j and `zeta^(5^(j + n/2)) = -zeta^(5^j)`: a butterfly
//! of the slots j and j + n/2. So `z = S_n ... S_4 S_2 B w`, B reversing bits and S_len joining slots a distance len/2 apart in blocks
//! of len:
//!
//! `S_len: (a_j, a_(j + len/2)) -> (a_j + w_j a_(j + len/2), a_j - w_j a_(j + len/2))`, `w_j = exp(2 pi i (5^j mod 4 len) / (4 len))`.
//!
//! Consecutive stages multiplied out, r of them from distance d on, have diagonals at the multiples of d below `2^r d` on both
//! sides, and period `2^r d` (Chen, Chillotti, Song 2018; Han, Hhan, Cheon 2019). B is left out both ways: between the transforms
//! only slot-wise operations stand, which do not mind the order.

use crate::circuits::diagonal_transform::Diagonal;
use std::collections::BTreeMap;
use std::f64::consts::TAU;

/// A sparse matrix by diagonals: `out[s] = sum_r D_r[s] x[s + r]`.
pub type Diagonals = BTreeMap<i64, Diagonal>;

/// The factors of `S_n ... S_2`, in the order of application: slots from coefficients in bit-reversed order. Their product is
/// `gain` times the transform.
pub fn slots_from_coefficients(log_slots: u32, factors: usize, gain: f64) -> Vec<Diagonals> {
    let mut from = 0;
    let radices = radices(log_slots, factors);
    let gain = gain.powf(1.0 / radices.len() as f64);
    let groups = radices.into_iter().rev().map(|r| {
        from += r;
        from - r..from
    });
    groups.map(|stages| scaled(merged(log_slots, stages.map(|s| stage(s, false))), gain)).collect()
}

/// The factors of the inverse, in the order of application: coefficients in bit-reversed order from slots. Their product is `gain`
/// times the inverse.
pub fn coefficients_from_slots(log_slots: u32, factors: usize, gain: f64) -> Vec<Diagonals> {
    let mut to = log_slots;
    let radices = radices(log_slots, factors);
    let gain = gain.powf(1.0 / radices.len() as f64);
    let groups = radices.into_iter().map(|r| {
        to -= r;
        to..to + r
    });
    groups.map(|stages| scaled(merged(log_slots, stages.rev().map(|s| stage(s, true))), gain)).collect()
}

/// Stages a factor, the one with whole-vector diagonals first: as equal as can be, larger ones first. That one wraps around, which
/// halves its diagonals, and they are the ones that fill memory. There are no more factors than stages.
fn radices(log_slots: u32, factors: usize) -> Vec<u32> {
    let factors = (factors as u32).clamp(1, log_slots.max(1));
    (0..factors).map(|i| log_slots / factors + u32::from(i < log_slots % factors)).collect()
}

/// `S_len` of `len = 2^(log + 1)`, or its inverse.
fn stage(log: u32, inverse: bool) -> Diagonals {
    let half = 1usize << log;
    let len = 2 * half;
    let mut power = 1usize;
    let mut w = Vec::with_capacity(half);
    for _ in 0..half {
        let (sin, cos) = (TAU * power as f64 / (4 * len) as f64).sin_cos();
        w.push((cos, sin));
        power = power * 5 % (4 * len);
    }
    let (low, high) = (vec![0.0; half], vec![0.0; half]);
    let join = |a: Vec<f64>, b: Vec<f64>| [a, b].concat();
    let of = |f: fn((f64, f64)) -> f64| w.iter().map(|&w| f(w)).collect::<Vec<_>>();
    let constant = |c: f64| vec![c; half];
    let d = half as i64;
    let zeros = || join(low.clone(), high.clone());
    let mut diagonals = Diagonals::new();
    let mut add = |r: i64, (re, im): Diagonal| {
        let (to_re, to_im) = diagonals.entry(r).or_insert_with(|| (zeros(), zeros()));
        to_re.iter_mut().zip(re).for_each(|(t, v)| *t += v);
        to_im.iter_mut().zip(im).for_each(|(t, v)| *t += v);
    };
    if inverse {
        // (u, v) = ((a + b) / 2, conj(w) (a - b) / 2).
        add(0, (join(constant(0.5), of(|w| -0.5 * w.0)), join(low.clone(), of(|w| 0.5 * w.1))));
        add(d, (join(constant(0.5), high.clone()), zeros()));
        add(-d, (join(low.clone(), of(|w| 0.5 * w.0)), join(low.clone(), of(|w| -0.5 * w.1))));
    } else {
        add(0, (join(constant(1.0), of(|w| -w.0)), join(low.clone(), of(|w| -w.1))));
        add(d, (join(of(|w| w.0), high.clone()), join(of(|w| w.1), high.clone())));
        add(-d, (join(low.clone(), constant(1.0)), zeros()));
    }
    diagonals
}

/// The product of stages, the first applied first. Rotations of whole vectors are taken in `[0, n)`.
fn merged(log_slots: u32, stages: impl Iterator<Item = Diagonals>) -> Diagonals {
    let slots = 1i64 << log_slots;
    let product = stages.reduce(|first, then| compose(&then, &first)).unwrap_or_default();
    let period = product.values().next().map_or(0, |d| d.0.len() as i64);
    if period < slots {
        return product;
    }
    let mut wrapped = Diagonals::new();
    for (r, (re, im)) in product {
        let sum = wrapped.entry(r.rem_euclid(slots)).or_insert_with(|| (vec![0.0; re.len()], vec![0.0; im.len()]));
        sum.0.iter_mut().zip(re).for_each(|(t, v)| *t += v);
        sum.1.iter_mut().zip(im).for_each(|(t, v)| *t += v);
    }
    wrapped
}

/// `a b`: b first.
fn compose(a: &Diagonals, b: &Diagonals) -> Diagonals {
    let length = |m: &Diagonals| m.values().next().map_or(1, |d| d.0.len());
    let period = length(a).max(length(b));
    let mut product = Diagonals::new();
    for (&ra, (a_re, a_im)) in a {
        for (&rb, (b_re, b_im)) in b {
            let (re, im) = product.entry(ra + rb).or_insert_with(|| (vec![0.0; period], vec![0.0; period]));
            for s in 0..period {
                let at = (s as i64 + ra).rem_euclid(b_re.len() as i64) as usize;
                let (x, y) = (a_re[s % a_re.len()], a_im[s % a_im.len()]);
                re[s] += x * b_re[at] - y * b_im[at];
                im[s] += x * b_im[at] + y * b_re[at];
            }
        }
    }
    product
}

fn scaled(mut diagonals: Diagonals, factor: f64) -> Diagonals {
    for (re, im) in diagonals.values_mut() {
        re.iter_mut().chain(im).for_each(|v| *v *= factor);
    }
    diagonals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ckks::encoder::fft::{Scratch, SlotTransform};

    fn apply(m: &Diagonals, (re, im): &Diagonal) -> Diagonal {
        let n = re.len();
        let mut out = (vec![0.0; n], vec![0.0; n]);
        for (&r, (a, b)) in m {
            for s in 0..n {
                let at = (s as i64 + r).rem_euclid(n as i64) as usize;
                let (x, y) = (a[s % a.len()], b[s % b.len()]);
                out.0[s] += x * re[at] - y * im[at];
                out.1[s] += x * im[at] + y * re[at];
            }
        }
        out
    }

    fn noise(n: usize, seed: u64) -> Vec<f64> {
        let mut x = seed;
        (0..n)
            .map(|_| {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (x >> 11) as f64 / 2f64.powi(52) - 1.0
            })
            .collect()
    }

    #[test]
    fn factors_multiply_to_the_encoders_transform_and_its_inverse() {
        for (log_slots, factors) in [(3u32, 1), (3, 3), (5, 2), (9, 3), (10, 4), (2, 3)] {
            let n = 1usize << log_slots;
            let w = (noise(n, 1), noise(n, 2));
            let mut scratch = Scratch::new(n);
            scratch.re.copy_from_slice(&w.0);
            scratch.im.copy_from_slice(&w.1);
            let mut want = (vec![0.0; n], vec![0.0; n]);
            SlotTransform::new(log_slots + 1).to_slots(&mut scratch, 1.0, &mut want.0, Some(&mut want.1));
            let reverse = |k: usize| k.reverse_bits() >> (usize::BITS - log_slots);
            let reversed: Diagonal = ((0..n).map(|k| w.0[reverse(k)]).collect(), (0..n).map(|k| w.1[reverse(k)]).collect());
            let forward = slots_from_coefficients(log_slots, factors, 3.0);
            let got = forward.iter().fold(reversed.clone(), |x, m| apply(m, &x));
            let back = coefficients_from_slots(log_slots, factors, 0.25).iter().fold(want.clone(), |x, m| apply(m, &x));
            for s in 0..n {
                assert!(
                    (got.0[s] - 3.0 * want.0[s]).abs() + (got.1[s] - 3.0 * want.1[s]).abs() < 1e-10,
                    "2^{log_slots} slot {s}"
                );
                assert!((4.0 * back.0[s] - reversed.0[s]).abs() + (4.0 * back.1[s] - reversed.1[s]).abs() < 1e-12, "slot {s}");
            }
        }
    }

    #[test]
    fn factors_have_as_few_diagonals_as_their_radix_allows() {
        let counts = |factors: Vec<Diagonals>| factors.iter().map(BTreeMap::len).collect::<Vec<_>>();
        let periods = |factors: Vec<Diagonals>| factors.iter().map(|m| m[&0].0.len()).collect::<Vec<_>>();
        assert_eq!(counts(coefficients_from_slots(11, 3, 1.0)), [16, 31, 15]);
        assert_eq!(counts(slots_from_coefficients(11, 3, 1.0)), [15, 31, 16]);
        assert_eq!(periods(coefficients_from_slots(11, 3, 1.0)), [2048, 128, 8]);
    }
}

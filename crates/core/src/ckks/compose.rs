//! From residues to numbers: mixed-radix composition (Garner), centred, into f64.

use crate::math::{Basis, Modulus, RnsTables};
use zeroize::Zeroizing;

/// Composes over a basis. Reads as few limbs as the expected size needs, checks the result against one more, and reads
/// all of them where the check fails, so the result is the centred representative modulo the whole basis, rounded to f64.
#[derive(Debug)]
pub(super) struct Composer {
    moduli: Vec<Modulus>,
    /// Limbs read first.
    few: usize,
    /// For limb i and j < i: `q_j^-1 mod q_i` and its Shoup companion.
    inverses: Vec<Vec<(u32, u32)>>,
}

impl Composer {
    /// For values expected below `2^log_size`.
    pub(super) fn new(tables: &RnsTables, basis: &Basis, log_size: f64) -> Self {
        let moduli: Vec<Modulus> = basis.limbs().iter().map(|&l| *tables.modulus(l)).collect();
        let mut bits = 0.0;
        let few = moduli.iter().take_while(|m| {
            let enough = bits > log_size + 1.0;
            bits += m.log2();
            !enough
        });
        let few = few.count();
        let inverses = moduli
            .iter()
            .enumerate()
            .map(|(i, m)| {
                let pair = |q: &Modulus| {
                    let w = m.inv(q.value() % m.value());
                    (w, m.shoup(w))
                };
                moduli[..i].iter().map(pair).collect()
            })
            .collect();
        Self { moduli, few, inverses }
    }

    /// `[limb][N]` residues to N numbers.
    pub(super) fn compose(&self, residues: &[u32]) -> Vec<f64> {
        let limbs = self.moduli.len();
        let n = residues.len() / limbs;
        let (half_few, half_all) = (self.half(self.few), self.half(limbs));
        let mut digits = Zeroizing::new(vec![0u32; limbs]);
        (0..n)
            .map(|c| {
                let at = |i: usize| residues[i * n + c];
                let value = self.signed(at, self.few, &half_few, &mut digits);
                if self.few == limbs || self.residue(&digits[..self.few], value < 0.0, self.few) == at(self.few) {
                    value
                } else {
                    self.signed(at, limbs, &half_all, &mut digits)
                }
            })
            .collect()
    }

    /// Mixed-radix digits: `x = v_0 + q_0 (v_1 + q_1 (v_2 + ...))`.
    fn digits(&self, at: impl Fn(usize) -> u32, count: usize, digits: &mut [u32]) {
        for i in 0..count {
            let m = &self.moduli[i];
            let below = digits[..i].iter().zip(&self.inverses[i]);
            digits[i] = below.fold(at(i), |acc, (&d, &(w, ws))| m.sub(m.mul_shoup(acc, w, ws), m.mul_shoup(d, w, ws)));
        }
    }

    /// Digits of (Q - 1) / 2 over the first `count` limbs; it is `-1/2` modulo each of them.
    fn half(&self, count: usize) -> Vec<u32> {
        let mut digits = vec![0u32; count];
        self.digits(|i| self.moduli[i].mul(self.moduli[i].value() - 1, self.moduli[i].inv(2)), count, &mut digits);
        digits
    }

    /// The centred value over the first `count` limbs; leaves the digits of the magnitude (less one if negative).
    fn signed(&self, at: impl Fn(usize) -> u32, count: usize, half: &[u32], digits: &mut [u32]) -> f64 {
        self.digits(at, count, digits);
        let negative = digits[..count].iter().rev().gt(half.iter().rev());
        if negative {
            // Q - 1 - x has the complements as digits.
            for (d, m) in digits[..count].iter_mut().zip(&self.moduli) {
                *d = m.value() - 1 - *d;
            }
        }
        let horner = |acc: f64, (&d, m): (&u32, &Modulus)| acc * f64::from(m.value()) + f64::from(d);
        let magnitude = digits[..count].iter().zip(&self.moduli).rev().fold(0.0, horner);
        if negative { -magnitude - 1.0 } else { magnitude }
    }

    /// The value modulo limb `i`, from its digits as [`Self::signed`] leaves them.
    fn residue(&self, digits: &[u32], negative: bool, i: usize) -> u32 {
        let m = &self.moduli[i];
        let horner = |acc: u32, (&d, q): (&u32, &Modulus)| m.add(m.mul(acc, q.value() % m.value()), d % m.value());
        let magnitude = digits.iter().zip(&self.moduli).rev().fold(0, horner);
        if negative { m.neg(m.add(magnitude, 1 % m.value())) } else { magnitude }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::primes::closest_primes;
    use num_bigint::BigInt;

    #[test]
    fn equals_big_integers_at_every_size() {
        let mut primes = closest_primes(24.5, 2, 6, &[]).unwrap();
        primes.extend(closest_primes(30.0, 4, 6, &[]).unwrap());
        let tables = RnsTables::new(5, &primes).unwrap();
        let basis = Basis::range(0..6);
        let q: BigInt = primes.iter().map(|&q| BigInt::from(q)).product();
        let half: BigInt = (&q - 1) / 2;
        let mut values: Vec<BigInt> = vec![0.into(), 1.into(), (-1).into(), half.clone(), -half.clone(), &half - 1];
        let mut state = 9u64;
        for bits in (1..168).step_by(7) {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let v: BigInt = (BigInt::from(state) << bits) >> 64u32;
            values.push(v.clone());
            values.push(-v);
        }
        let n = values.len();
        let mut residues = vec![0u32; 6 * n];
        for (i, &p) in primes.iter().enumerate() {
            for (c, v) in values.iter().enumerate() {
                let r: BigInt = ((v % p) + p) % p;
                residues[i * n + c] = u32::try_from(r).unwrap();
            }
        }
        for log_size in [10.0, 60.0, 100.0, 1000.0] {
            let got = Composer::new(&tables, &basis, log_size).compose(&residues);
            for (got, want) in got.iter().zip(&values) {
                let want: f64 = want.to_string().parse().unwrap();
                assert!((got - want).abs() <= want.abs() * 1e-15, "{got} {want} at 2^{log_size}");
            }
        }
    }
}

//! What kernels are tested on, whichever machine runs them: tables, words at the edges, a gadget.

use cipherlens::backend::KeySwitchTables;
use cipherlens::math::primes::closest_primes;
use cipherlens::math::{BaseConversion, Basis, BasisChange, RnsTables};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Arc;

pub fn rng(seed: u64) -> StdRng {
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

/// Terminal-like primes of 25 bits, main ones of 30, special ones of 29 to 30.
pub fn tables(log_n: u32, small: usize, main: usize, special: usize) -> Arc<RnsTables> {
    let mut primes = closest_primes(25.2, small, log_n + 1, &[]).unwrap();
    primes.extend(closest_primes(30.0, main, log_n + 1, &primes).unwrap());
    primes.extend(closest_primes(29.9, special, log_n + 1, &primes).unwrap());
    Arc::new(RnsTables::new(log_n, &primes).unwrap())
}

#[derive(Debug, Clone, Copy)]
pub enum Fill {
    Random,
    Largest,
    Zero,
}
pub const FILLS: [Fill; 3] = [Fill::Random, Fill::Largest, Fill::Zero];

pub fn words(tables: &RnsTables, basis: &Basis, polys: usize, fill: Fill, rng: &mut StdRng) -> Vec<u32> {
    let n = tables.degree();
    let mut out = Vec::with_capacity(polys * basis.len() * n);
    for _ in 0..polys {
        for &l in basis.limbs() {
            let q = tables.modulus(l).value();
            out.extend((0..n).map(|_| match fill {
                Fill::Random => rng.random_range(0..q),
                Fill::Largest => q - 1,
                Fill::Zero => 0,
            }));
        }
    }
    out
}

/// A gadget over the first `window` limbs with digits of `alpha`, the last `alpha` limbs as special primes, and a key
/// made for more than is used.
pub fn gadget(tables: &RnsTables, window: std::ops::Range<usize>, alpha: usize, skipped: usize) -> KeySwitchTables {
    let (all, special) = (Basis::range(window), Basis::range(tables.len() - alpha..tables.len()));
    let extended = all.then(&special);
    let digits: Vec<_> = all.limbs().chunks(alpha).map(|c| Basis::new(c.iter().copied())).collect();
    KeySwitchTables {
        mod_up: digits.iter().map(|d| BaseConversion::new(tables, d, &extended.minus(d), |_| 1)).collect(),
        mod_down: BasisChange::new(tables, &extended, &all),
        key_digits: (0..digits.len()).map(|k| k + skipped).collect(),
        key_limbs: (0..extended.len()).map(|l| l + skipped * alpha).collect(),
        window: all,
        special,
        extended,
        digits,
    }
}

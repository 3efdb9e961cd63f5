//! The least an operation could cost: bytes that must move if nothing fits the caches but one operation's intermediate
//! values, and multiplications of residues.

use cipherlens::circuits::Counts;
use cipherlens::ckks::{Gadget, Level, Params};

/// A lower bound for one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Floor {
    /// Operands read, keys read, results written, bytes.
    pub bytes: u64,
    /// Products of residues: butterflies, base conversion, inner products.
    pub multiplies: u64,
}

impl std::ops::Add for Floor {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        Self { bytes: self.bytes + o.bytes, multiplies: self.multiplies + o.multiplies }
    }
}

/// Sizes that floors are made of, for one shard at one level.
#[derive(Debug, Clone, Copy)]
pub struct Floors {
    n: u64,
    log_n: u64,
    limbs: u64,
    below: u64,
    dropped: u64,
    special: u64,
    digits: u64,
    converted: u64,
    conversions: u64,
}

impl Floors {
    /// Sizes at a level with a gadget.
    pub fn new(params: &Params, gadget: &Gadget, level: Level) -> Self {
        let window = params.window(level);
        let below = level.below(1).map(|l| params.window(l).clone());
        let sizes = (0..gadget.digits()).map(|k| {
            let range = gadget.digit(k);
            window.limbs().iter().filter(|l| range.contains(&l.index())).count()
        });
        let sizes: Vec<usize> = sizes.filter(|&s| s > 0).collect();
        let dropped = below.as_ref().map_or(0, |b| window.minus(b).len());
        Self::of(params.log_n(), &sizes, gadget.special(), below.map_or(0, |b| b.len()), dropped)
    }

    /// Sizes of a ring, of the digits that together are a ciphertext's limbs, of the special primes; the limbs after a
    /// rescale and those it drops.
    pub fn of(log_n: u32, digits: &[usize], special: usize, below: usize, dropped: usize) -> Self {
        let sizes: Vec<u64> = digits.iter().map(|&s| s as u64).collect();
        let limbs: u64 = sizes.iter().sum();
        let extended = limbs + special as u64;
        Self {
            n: 1 << log_n,
            log_n: log_n.into(),
            limbs,
            below: below as u64,
            dropped: dropped as u64,
            special: special as u64,
            digits: sizes.len() as u64,
            converted: sizes.iter().map(|s| extended - s).sum(),
            conversions: sizes.iter().map(|s| s * (extended - s)).sum(),
        }
    }

    fn extended(&self) -> u64 {
        self.limbs + self.special
    }
    fn ntt(&self, limbs: u64) -> u64 {
        limbs * self.n / 2 * self.log_n
    }
    fn words(&self, limbs: u64) -> u64 {
        4 * limbs * self.n
    }
    /// Products of a polynomial's decomposition into digits.
    fn mod_up_multiplies(&self) -> u64 {
        self.ntt(self.limbs + self.converted) + self.n * (self.limbs + self.conversions)
    }
    fn key_multiplies(&self) -> u64 {
        2 * self.digits * self.extended() * self.n
    }
    fn key_bytes(&self) -> u64 {
        self.words(2 * self.digits * self.extended())
    }
    /// Products of dividing two polynomials by `from` primes, leaving `to`.
    fn divide_multiplies(&self, from: u64, to: u64) -> u64 {
        2 * (self.ntt(from + to) + self.n * (from + from * to + 2 * to))
    }

    /// A forward and an inverse transform of one polynomial.
    pub fn transform(&self) -> Floor {
        Floor { bytes: 4 * self.words(self.limbs), multiplies: 2 * self.ntt(self.limbs) }
    }
    /// A sum of ciphertexts.
    pub fn add(&self) -> Floor {
        Floor { bytes: self.words(6 * self.limbs), multiplies: 0 }
    }
    /// A product with a plaintext that is encoded already.
    pub fn multiply_plain(&self) -> Floor {
        Floor { bytes: self.words(5 * self.limbs), multiplies: 2 * self.limbs * self.n }
    }
    /// Digits of one ciphertext; they are the result.
    pub fn mod_up(&self) -> Floor {
        let bytes = self.words(self.limbs + self.digits * self.extended());
        Floor { bytes, multiplies: self.mod_up_multiplies() }
    }
    /// A rotation from digits.
    pub fn hoisted_rotation(&self) -> Floor {
        let bytes = self.words(self.digits * self.extended() + 3 * self.limbs) + self.key_bytes();
        Floor { bytes, multiplies: self.key_multiplies() + self.divide_multiplies(self.special, self.limbs) }
    }
    /// A rotation.
    pub fn rotate(&self) -> Floor {
        let multiplies = self.mod_up_multiplies() + self.key_multiplies() + self.divide_multiplies(self.special, self.limbs);
        Floor { bytes: self.words(4 * self.limbs) + self.key_bytes(), multiplies }
    }
    /// A product of ciphertexts with relinearization.
    pub fn multiply(&self) -> Floor {
        let tensor = Floor { bytes: self.words(2 * self.limbs), multiplies: 4 * self.limbs * self.n };
        self.rotate() + tensor
    }
    /// A product of ciphertexts with relinearization and rescale, in one division.
    pub fn multiply_rescale(&self) -> Floor {
        let dropped = self.special + self.dropped;
        let multiplies = 4 * self.limbs * self.n
            + self.mod_up_multiplies()
            + self.key_multiplies()
            + self.divide_multiplies(dropped, self.below);
        Floor { bytes: self.words(4 * self.limbs + 2 * self.below) + self.key_bytes(), multiplies }
    }
    /// A division of both halves by the special primes.
    pub fn mod_down(&self) -> Floor {
        let bytes = self.words(2 * (self.extended() + self.limbs));
        Floor { bytes, multiplies: self.divide_multiplies(self.special, self.limbs) }
    }
    /// A rescale.
    pub fn rescale(&self) -> Floor {
        let bytes = self.words(2 * (self.limbs + self.below));
        Floor { bytes, multiplies: self.divide_multiplies(self.dropped, self.below) }
    }
    /// The multiplications of everything counted at this level. Where a rescale is merged with a division by the special
    /// primes, it is not counted; nor are the transforms of plaintexts' slots.
    pub fn multiplies(&self, c: &Counts) -> u64 {
        let times = |count: usize, each: u64| count as u64 * each;
        times(c.mod_ups, self.mod_up_multiplies())
            + times(c.key_switches, self.key_multiplies())
            + times(c.mod_downs, self.divide_multiplies(self.special, self.limbs))
            + times(c.rescales.saturating_sub(c.mod_downs), self.rescale().multiplies)
            + times(c.plaintext_products, self.multiply_plain().multiplies + self.ntt(self.limbs))
            + times(c.prepared_products, 2 * self.extended() * self.n)
            + times(c.ciphertext_products, 4 * self.limbs * self.n)
    }
    /// A ciphertext of some shards.
    pub fn ciphertext_bytes(&self, shards: usize) -> u64 {
        self.words(2 * self.limbs) * shards as u64
    }
    /// An encoded vector: transforms of residues only, the transform of the slots is not counted.
    pub fn encode(&self) -> Floor {
        Floor { bytes: self.words(self.limbs) + 4 * self.n, multiplies: self.ntt(self.limbs) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cipherlens::ckks::presets;

    #[test]
    fn a_rotation_counts_every_transform() {
        let params = presets::by_name("insecure-toy").unwrap();
        let top = params.max_level();
        let gadget = params.gadget(top..=top, 4).unwrap();
        let f = Floors::new(&params, &gadget, top);
        // 12 limbs in digits of 4 with 4 special primes: 3 digits, each converted to the 12 other limbs.
        assert_eq!((f.limbs, f.special, f.digits, f.converted, f.conversions), (12, 4, 3, 36, 144));
        let transforms = 12 + 36 + 2 * (4 + 12);
        let pointwise = (12 + 144) + 2 * 3 * 16 + 2 * (4 + 48 + 24);
        assert_eq!(f.rotate().multiplies, transforms * 512 * 10 + pointwise * 1024);
        assert_eq!(f.rotate().bytes, 4 * 1024 * (4 * 12 + 2 * 3 * 16));
        // A rotation is counted as what it is made of.
        let rotation = Counts { rotations: 1, key_switches: 1, mod_ups: 1, mod_downs: 1, ..Counts::default() };
        assert_eq!(f.multiplies(&rotation), f.rotate().multiplies);
        assert_eq!(f.multiplies(&Counts { rescales: 2, mod_downs: 0, ..Counts::default() }), 2 * f.rescale().multiplies);
        assert_eq!(f.ciphertext_bytes(3), 3 * 2 * 12 * 1024 * 4);
    }
}

//! Randomness: ChaCha20 streams from the operating system's entropy, and the three distributions of the scheme.
//!
//! Every object has its own stream: a 32-byte seed drawn for it, hashed with a domain string and two indices. A seed
//! is either secret (secret keys, errors) or public (the uniform half of keys and ciphertexts), never both.
//!
//! Secret-dependent timing: the ternary and Gaussian samplers have no branch and no memory access that depends on
//! what they draw. The uniform sampler rejects, but its output is public.

mod gaussian;

use super::error::{CkksError, Result};
use crate::math::Modulus;
use chacha20::ChaCha20Rng;
use rand::rngs::SysRng;
use rand::{Rng, SeedableRng, TryRng};
use std::sync::atomic::{AtomicU64, Ordering};
use zeroize::{Zeroize, Zeroizing};

/// Seed of a stream.
pub type Seed = [u8; 32];

/// A root of randomness that hands out fresh seeds. The root is wiped when dropped and never printed.
pub struct RandomSource {
    root: Zeroizing<Seed>,
    drawn: AtomicU64,
    /// Whether the operating system adds to every seed.
    system: bool,
}

impl std::fmt::Debug for RandomSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RandomSource").field("root", &"[redacted]").finish_non_exhaustive()
    }
}

impl RandomSource {
    /// From the operating system, which also adds fresh bytes to every seed: a process that was forked, or a machine brought back from a
    /// snapshot, has this root and count too, and must not draw what the other draws.
    ///
    /// # Errors
    /// [`CkksError::Randomness`] where the operating system gives none.
    pub fn from_os() -> Result<Self> {
        Ok(Self { root: system_bytes()?, drawn: AtomicU64::new(0), system: true })
    }

    /// The same objects for the same seed: for tests and benchmarks only. Whoever knows the seed knows the secret key, and of two vectors
    /// encrypted with one seed, in different programs or by different encryptors, anyone sees the difference.
    pub fn insecure_seeded(seed: u64) -> Self {
        Self::insecure_root(seed.into())
    }

    /// As [`Self::insecure_seeded`], for one of several purposes (below 4) of a seed: no two of (seed, purpose) have a root in common.
    pub fn insecure_seeded_for(seed: u64, purpose: u8) -> Self {
        Self::insecure_root(u128::from(seed) << 2 | u128::from(purpose & 3))
    }

    fn insecure_root(number: u128) -> Self {
        let mut root = Zeroizing::new([0u8; 32]);
        root[..16].copy_from_slice(&number.to_le_bytes());
        Self { root, drawn: AtomicU64::new(0), system: false }
    }

    /// A fresh seed; no two calls on one source give the same.
    ///
    /// # Errors
    /// [`CkksError::Randomness`], where the operating system gives none.
    pub fn fresh(&self, domain: &str) -> Result<Zeroizing<Seed>> {
        let count = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut seed = derive(&self.root, domain, count, 0);
        if self.system {
            // As good as the better of the two.
            seed.iter_mut().zip(system_bytes()?.iter()).for_each(|(s, b)| *s ^= b);
        }
        Ok(seed)
    }
}

fn system_bytes() -> Result<Zeroizing<Seed>> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    SysRng.try_fill_bytes(bytes.as_mut()).map_err(|e| CkksError::Randomness { reason: e.to_string() })?;
    Ok(bytes)
}

fn derive(seed: &Seed, domain: &str, i: u64, j: u64) -> Zeroizing<Seed> {
    let mut hasher = Zeroizing::new(blake3::Hasher::new_keyed(seed));
    hasher.update(b"cipherlens stream v1");
    hasher.update(&(domain.len() as u64).to_le_bytes());
    hasher.update(domain.as_bytes());
    hasher.update(&i.to_le_bytes());
    hasher.update(&j.to_le_bytes());
    finish(&hasher)
}

/// The hash as a seed, no copy of which is left.
pub(super) fn finish(hasher: &blake3::Hasher) -> Zeroizing<Seed> {
    let hash = Zeroizing::new(hasher.finalize());
    Zeroizing::new(*hash.as_bytes())
}

/// One stream of a seed: the same (seed, domain, i, j) gives the same words everywhere. Its state, which holds a seed, and the words drawn
/// ahead are wiped when it is dropped.
pub fn stream(seed: &Seed, domain: &str, i: usize, j: usize) -> ChaCha20Rng {
    ChaCha20Rng::from_seed(*derive(seed, domain, i as u64, j as u64))
}

/// Fills `out` with uniform residues: the low `ceil(log2 q)` bits of each 32-bit word, rejected when not below q. Words
/// are drawn 1024 at a time; this is the definition that seeded keys and ciphertexts rely on.
pub fn uniform(rng: &mut ChaCha20Rng, modulus: &Modulus, out: &mut [u32]) {
    let q = modulus.value();
    let mask = q.next_power_of_two() - 1;
    let mut bytes = [0u8; 4096];
    let mut filled = 0;
    while filled < out.len() {
        rng.fill_bytes(&mut bytes);
        for word in bytes.chunks_exact(4) {
            if filled == out.len() {
                break;
            }
            let v = u32::from_le_bytes([word[0], word[1], word[2], word[3]]) & mask;
            // Written always, kept if in range: no branch to mispredict.
            out[filled] = v;
            filled += usize::from(v < q);
        }
    }
}

/// Uniform in {-1, 0, 1}: `floor(3 u / 2^32) - 1` of a 32-bit word, off uniform by less than 2^-31.
pub fn ternary(rng: &mut ChaCha20Rng, out: &mut [i8]) {
    let mut words = Zeroizing::new([0u8; 4096]);
    for chunk in out.chunks_mut(1024) {
        rng.fill_bytes(words.as_mut());
        for (o, w) in chunk.iter_mut().zip(words.chunks_exact(4)) {
            let u = u32::from_le_bytes([w[0], w[1], w[2], w[3]]);
            *o = ((u64::from(u) * 3) >> 32) as i8 - 1;
        }
    }
}

/// Uniform among vectors with exactly `weight` coefficients of -1 or 1 and zeros elsewhere (at most all of them): position i is
/// chosen with probability (chosen ones still to come) / (positions still to come), from 63 bits of a word, the sign from its
/// lowest. No branch and no memory access depends on what is drawn.
pub fn sparse_ternary(rng: &mut ChaCha20Rng, weight: usize, out: &mut [i8]) {
    let mut left = weight as u128;
    let mut positions = out.len() as u128;
    let mut word = Zeroizing::new([0u8; 8]);
    for o in out.iter_mut() {
        rng.fill_bytes(word.as_mut());
        let u = u64::from_le_bytes(*word);
        // floor(positions u / 2^63) is uniform below `positions`, up to 2^-40; the top bit of a difference is the comparison.
        let chosen = ((u128::from(u >> 1) * positions) >> 63).wrapping_sub(left) >> 127;
        *o = (chosen as i8) * (1 - 2 * (u & 1) as i8);
        left = left.wrapping_sub(chosen);
        positions -= 1;
    }
}

/// Discrete Gaussian by inversion of the cumulative distribution of its magnitude.
///
/// `thresholds[k] = 2^63 P(|X| <= k)`, to the nearest integer, as long as that is below `2^63`. A sample is the number of thresholds that a
/// 63-bit uniform reaches, with the sign of the remaining bit. All thresholds are compared for each sample, by subtraction and shift.
///
/// Every `P(|X| <= k)` is met to within `2^-64`, so every `P(|X| = k)` to within `2^-63`; magnitudes that never come out have less
/// than `2^-64` in all. At sigma 3.19 there are 29 thresholds, and the statistical distance from the Gaussian is below `30 * 2^-64`, or `2^-59`.
#[derive(Debug, Clone)]
pub struct Gaussian {
    thresholds: Vec<u64>,
}

impl Gaussian {
    /// The table for a standard deviation (0.5 to 16).
    pub fn new(sigma: f64) -> Self {
        Self { thresholds: gaussian::thresholds(sigma.clamp(0.5, 16.0)) }
    }

    /// The largest magnitude that can come out.
    pub fn bound(&self) -> usize {
        self.thresholds.len()
    }

    /// Fills `out`.
    pub fn sample(&self, rng: &mut ChaCha20Rng, out: &mut [i16]) {
        let mut bytes = Zeroizing::new([0u8; 1024]);
        let mut magnitude = Zeroizing::new([0u64; 128]);
        let mut words = Zeroizing::new([0u64; 128]);
        for chunk in out.chunks_mut(128) {
            rng.fill_bytes(bytes.as_mut());
            for (w, b) in words.iter_mut().zip(bytes.chunks_exact(8)) {
                *w = u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
            }
            magnitude.fill(0);
            for &t in &self.thresholds {
                for (m, &w) in magnitude.iter_mut().zip(words.iter()) {
                    // Both are below 2^63: the top bit of u - t is set exactly when u < t.
                    *m += 1 - ((w >> 1).wrapping_sub(t) >> 63);
                }
            }
            for ((o, &m), &w) in chunk.iter_mut().zip(magnitude.iter()).zip(words.iter()) {
                let sign = -((w & 1) as i16);
                *o = (m as i16 ^ sign) - sign;
            }
        }
    }
}

/// Small signed values as residues: `v` if not negative, `q + v` otherwise, without a branch.
pub fn small_residues<T: Copy + Into<i32>>(values: &[T], modulus: &Modulus, out: &mut [u32]) {
    let q = modulus.value();
    for (o, &v) in out.iter_mut().zip(values) {
        let v: i32 = v.into();
        *o = (v as u32).wrapping_add(q & ((v >> 31) as u32));
    }
}

/// Small secret values that are wiped when dropped.
pub struct SecretVec<T: Zeroize>(pub(super) Vec<T>);

impl<T: Zeroize> std::ops::Deref for SecretVec<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Zeroize> Drop for SecretVec<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> std::fmt::Debug for SecretVec<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[redacted; {}]", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_separate_and_repeatable() {
        let seed = [7u8; 32];
        let draw = |domain, i, j| stream(&seed, domain, i, j).next_u64();
        assert_eq!(draw("a", 1, 2), draw("a", 1, 2));
        let all = [draw("a", 1, 2), draw("a", 2, 1), draw("b", 1, 2), draw("a", 1, 3)];
        for i in 0..all.len() {
            for j in 0..i {
                assert_ne!(all[i], all[j]);
            }
        }
        let source = RandomSource::insecure_seeded(1);
        assert_ne!(*source.fresh("x").unwrap(), *source.fresh("x").unwrap());
        assert!(!format!("{source:?}").contains('1'));
        let system = || RandomSource::from_os().unwrap();
        assert_ne!(*system().fresh("x").unwrap(), *system().fresh("x").unwrap());
    }

    #[test]
    fn seeds_and_purposes_have_roots_of_their_own() {
        let mut roots = std::collections::BTreeSet::new();
        let seeds = [0, 1, 7, 1 << 62, (1 << 62) + 7, 1 << 63, u64::MAX];
        for seed in seeds {
            for purpose in 0..4 {
                roots.insert(*RandomSource::insecure_seeded_for(seed, purpose).root);
            }
        }
        assert_eq!(roots.len(), 4 * seeds.len());
    }

    /// A fork copies the root and the count.
    #[test]
    fn a_copied_source_draws_other_seeds() {
        let source = RandomSource::from_os().unwrap();
        let copy = RandomSource { root: source.root.clone(), drawn: AtomicU64::new(0), system: true };
        assert_ne!(*source.fresh("x").unwrap(), *copy.fresh("x").unwrap());
    }

    /// What a seed gives is part of the format: seeds travel in files.
    #[test]
    fn known_answers() {
        let rng = || stream(&[3; 32], "test", 1, 2);
        assert_eq!(rng().next_u64(), 0x4d3a_ebfa_cea9_249f);
        let m = Modulus::new(16_777_259).unwrap();
        let mut u = [0u32; 6];
        uniform(&mut rng(), &m, &mut u);
        assert_eq!(u, [11_084_959, 14_460_487, 11_007_949, 13_019_411, 15_789_764, 8_936_469]);
        let mut t = [0i8; 16];
        ternary(&mut rng(), &mut t);
        assert_eq!(t, [1, -1, 1, 0, 1, -1, -1, 1, -1, -1, 0, 1, 1, -1, -1, 0]);
        let mut s = [0i8; 16];
        sparse_ternary(&mut rng(), 4, &mut s);
        assert_eq!(s, [0, 0, -1, 0, -1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0]);
        let mut e = [0i16; 16];
        Gaussian::new(3.19).sample(&mut rng(), &mut e);
        assert_eq!(e, [-1, -2, 0, 4, 0, 5, -1, 2, 0, 0, -2, -7, -4, 1, -3, 1]);
        // Worked out with 120 decimal digits.
        let table = Gaussian::new(3.19).thresholds;
        assert_eq!((table.len(), table[0], table[13]), (29, 1_153_477_452_468_229_244, 9_223_174_159_202_072_686));
        assert_eq!(table[26..].iter().map(|t| (1 << 63) - t).collect::<Vec<u64>>(), [687, 46, 3]);
    }

    #[test]
    fn gaussian_matches_its_density() {
        let sigma = 3.19;
        let gaussian = Gaussian::new(sigma);
        let count = 1 << 18;
        let mut draws = vec![0i16; count];
        gaussian.sample(&mut stream(&[3; 32], "test", 0, 0), &mut draws);
        let total: f64 = (-40i32..=40).map(|k| (-f64::from(k * k) / (2.0 * sigma * sigma)).exp()).sum();
        // chi-square over magnitudes -8..=8; 17 cells, so beyond 60 has probability below 1e-6.
        let mut chi = 0.0;
        for k in -8i32..=8 {
            let want = (-f64::from(k * k) / (2.0 * sigma * sigma)).exp() / total * count as f64;
            let got = draws.iter().filter(|&&d| i32::from(d) == k).count() as f64;
            chi += (got - want) * (got - want) / want;
        }
        assert!(chi < 60.0, "chi-square {chi}");
        let variance = draws.iter().map(|&d| f64::from(d) * f64::from(d)).sum::<f64>() / count as f64;
        assert!((variance.sqrt() / sigma - 1.0).abs() < 0.01);
        assert!(draws.iter().all(|d| usize::from(d.unsigned_abs()) <= gaussian.bound()));
    }

    #[test]
    fn sparse_ternary_is_flat_over_positions_and_signs() {
        let (n, weight, runs) = (64, 8, 4000);
        let mut counts = vec![[0f64; 2]; n];
        for run in 0..runs {
            let mut out = vec![7i8; n];
            sparse_ternary(&mut stream(&[6; 32], "test", run, 0), weight, &mut out);
            assert_eq!(out.iter().filter(|&&c| c == 1 || c == -1).count(), weight);
            assert_eq!(out.iter().filter(|&&c| c == 0).count(), n - weight);
            out.iter().zip(&mut counts).filter(|(c, _)| **c != 0).for_each(|(&c, count)| count[usize::from(c > 0)] += 1.0);
        }
        // Chi-square of 128 cells; beyond 220 has probability below 1e-6.
        let want = (runs * weight) as f64 / (2 * n) as f64;
        let chi: f64 = counts.iter().flatten().map(|c| (c - want) * (c - want) / want).sum();
        assert!(chi < 220.0, "chi-square {chi}");
    }

    #[test]
    fn ternary_and_uniform_are_flat() {
        let mut t = vec![0i8; 30_000];
        ternary(&mut stream(&[4; 32], "test", 0, 0), &mut t);
        for v in [-1i8, 0, 1] {
            let n = t.iter().filter(|&&x| x == v).count();
            assert!((9_500..10_500).contains(&n), "{v}: {n}");
        }
        let m = Modulus::new(16_777_259).unwrap_or_else(|_| unreachable!());
        let mut u = vec![u32::MAX; 40_001];
        uniform(&mut stream(&[5; 32], "test", 0, 0), &m, &mut u);
        assert!(u.iter().all(|&x| x < m.value()));
        let mean = u.iter().map(|&x| f64::from(x)).sum::<f64>() / u.len() as f64;
        assert!((mean / f64::from(m.value()) - 0.5).abs() < 0.01);
        let mut r = [0u32; 3];
        small_residues(&[-1i8, 0, 1], &m, &mut r);
        assert_eq!(r, [m.value() - 1, 0, 1]);
    }
}

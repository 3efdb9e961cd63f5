//! What operations cost, in seconds, from a few measured unit costs.

use crate::{
    backend::{Backend, BackendError, PlainTerm, Shape},
    circuits::Counts,
    math::{BaseConversion, Basis},
};
use std::{sync::Arc, time::Instant};

/// Unit costs, in seconds for one limb of N words, on all threads together.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CostModel {
    /// One NTT of one limb.
    pub ntt: f64,
    /// One multiply-accumulate of a limb with a limb, operands streamed from memory.
    pub product: f64,
    /// One multiply-accumulate of base conversion.
    pub convert: f64,
    /// Transform and rounding of one plaintext (before its NTTs).
    pub encode: f64,
}

/// The shape of key switching at a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SwitchShape {
    /// Limbs of the ciphertext, L.
    pub limbs: usize,
    /// Limbs after the rescale that follows.
    pub limbs_below: usize,
    /// Special primes, alpha.
    pub special: usize,
    /// Digits, beta.
    pub digits: usize,
}

impl CostModel {
    /// A stand-in for planning without a device: four cores with AVX-512, per limb of `degree` words.
    pub fn typical(degree: usize) -> Self {
        let scale = degree as f64 / 65536.0;
        Self { ntt: 25e-6 * scale, product: 12e-6 * scale, convert: 4e-6 * scale, encode: 400e-6 * scale }
    }

    /// Measures the unit costs on a backend: about a tenth of a second.
    pub fn measure(backend: &Arc<dyn Backend>) -> Result<Self, BackendError> {
        let tables = backend.tables();
        let (degree, limbs) = (tables.degree(), tables.len().min(8));
        let polys = (1 << 21) / (limbs * degree).max(1) + 2;
        let basis = Basis::range(0..limbs);
        let mut data = backend.alloc(Shape::new(polys, limbs, degree))?;
        let per_limb = |seconds: f64| seconds / (polys * limbs) as f64;
        let ntt = best_of_three(|| backend.ntt_forward(&mut data, &basis))?;
        let pairs = polys / 2;
        let ct = backend.alloc(Shape::new(2 * pairs, limbs, degree))?;
        let plain = backend.alloc(Shape::new(pairs, limbs, degree))?;
        let terms = vec![(0..pairs).map(|i| PlainTerm { plain: i, source: i }).collect::<Vec<_>>()];
        let product = best_of_three(|| backend.plain_inner_product(&ct, &plain, &terms, &basis).map(drop))?;
        let half = (limbs / 2).max(1);
        let (from, to) = (Basis::range(0..half), Basis::range(half..limbs.max(half + 1).min(tables.len())));
        let conversion = BaseConversion::new(tables, &from, &to, |_| 1);
        let source = backend.alloc(Shape::new(polys, half, degree))?;
        let convert = best_of_three(|| backend.base_convert(&source, &conversion).map(drop))?;
        Ok(Self {
            ntt: per_limb(ntt),
            product: product / (2 * pairs * limbs) as f64,
            convert: convert / (polys * half * to.len().max(1)) as f64,
            encode: 8.0 * per_limb(ntt),
        })
    }

    /// Decomposition of one polynomial into digits.
    pub fn mod_up(&self, s: &SwitchShape) -> f64 {
        let extended = s.limbs + s.special;
        self.ntt * (s.digits * extended) as f64 + self.convert * (s.limbs * extended.saturating_sub(s.special)) as f64
    }
    /// Product of the digits of one polynomial with a key.
    pub fn key_product(&self, s: &SwitchShape) -> f64 {
        self.product * (2 * s.digits * (s.limbs + s.special)) as f64
    }
    /// Division of two halves by P.
    pub fn mod_down(&self, s: &SwitchShape) -> f64 {
        self.ntt * (2 * (s.limbs + s.special)) as f64 + self.convert * (2 * s.limbs * s.special) as f64
    }
    /// Rescale of two halves.
    pub fn rescale(&self, s: &SwitchShape) -> f64 {
        self.ntt * (2 * s.limbs) as f64 + self.product * (2 * s.limbs_below) as f64
    }
    /// One plaintext product, encoding included.
    pub fn plaintext_product(&self, s: &SwitchShape) -> f64 {
        self.encode + self.ntt * s.limbs as f64 + self.product * (2 * s.limbs) as f64
    }
    /// One product of ciphertexts before relinearization.
    pub fn ciphertext_product(&self, s: &SwitchShape) -> f64 {
        self.product * (4 * s.limbs) as f64
    }

    /// Everything counted at one level.
    pub fn seconds(&self, c: &Counts, s: &SwitchShape) -> f64 {
        c.mod_ups as f64 * self.mod_up(s)
            + c.key_switches as f64 * self.key_product(s)
            + c.mod_downs as f64 * self.mod_down(s)
            + c.rescales as f64 * self.rescale(s)
            + c.plaintext_products as f64 * self.plaintext_product(s)
            + c.ciphertext_products as f64 * self.ciphertext_product(s)
    }
}

fn best_of_three(mut f: impl FnMut() -> Result<(), BackendError>) -> Result<f64, BackendError> {
    f()?;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        f()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

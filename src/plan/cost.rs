//! What operations cost, in seconds, from a few measured unit costs.

use super::planner::{gadget, switch_shape};
use crate::{
    backend::{Backend, PlainTerm, PolySelect, Rotation, Shape},
    circuits::Counts,
    ckks::{CkksError, Encoder, Integers, Params},
};
use std::{sync::Arc, time::Instant};

/// Unit costs, in seconds for one limb of N words, on all threads together.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CostModel {
    /// One NTT of one limb.
    pub ntt: f64,
    /// One multiply-accumulate of a limb with a limb of a key or a ciphertext.
    pub product: f64,
    /// One multiply-accumulate of base conversion.
    pub convert: f64,
    /// Transform and rounding of one plaintext (before its residues).
    pub encode: f64,
    /// One limb of a plaintext product: residues, NTT, and the products with both halves.
    pub plain: f64,
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
        Self { ntt: 40e-6 * scale, product: 12e-6 * scale, convert: 4e-6 * scale, encode: 700e-6 * scale, plain: 75e-6 * scale }
    }

    /// Measures the unit costs inside the operations that runs are made of, at the highest level that values have: digits,
    /// products with a key, divisions, encoded products. About half a second at N = 2^16; what is measured holds zeros.
    pub fn measure(params: &Arc<Params>, backend: &Arc<dyn Backend>) -> Result<Self, CkksError> {
        let level = params.working_level();
        let window = params.window(level);
        let (degree, limbs) = (params.degree(), window.len());
        let gadget = gadget(params, level)?;
        let plan = params.gadget_plan(&gadget, level)?;
        let shape = switch_shape(params, level)?;
        let shards = 2;
        let ct = backend.alloc(Shape::new(2 * shards, limbs, degree))?;

        let mut transformed = backend.alloc(ct.shape())?;
        let ntt = best_of_three(|| backend.ntt_forward(&mut transformed, window))? / (2 * shards * limbs) as f64;

        let second = PolySelect::second_halves(ct.shape());
        let mod_up = best_of_three(|| backend.mod_up(&ct, second, &plan))? / shards as f64;
        let (transforms, conversions) = Self::mod_up_counts(&shape);
        let convert = ((mod_up - ntt * transforms) / conversions).max(0.05 * ntt);

        let digits = backend.mod_up(&ct, second, &plan)?;
        let keys: Vec<_> = (0..4)
            .map(|_| backend.alloc(Shape::new(2 * gadget.digits(), gadget.key_limbs(), degree)))
            .collect::<Result<_, _>>()?;
        let rotations: Vec<Rotation<'_>> =
            keys.iter().zip([5, 25, 125, 625]).map(|(key, galois)| Rotation { galois, key: Some(key) }).collect();
        let rotated = best_of_three(|| backend.rotate_digits(&ct, &digits, &rotations, &plan))?;
        let rotated = rotated / (shards * rotations.len()) as f64;
        let (transforms, conversions) = Self::mod_down_counts(&shape);
        let products = (2 * shape.digits * (shape.limbs + shape.special)) as f64;
        let product = ((rotated - ntt * transforms - convert * conversions) / products).max(0.05 * ntt);

        let encoder = Encoder::new(params.clone(), backend.clone());
        let (plains, scale) = (8, params.scale(level));
        let mut integers = Integers::default();
        let fill = |i: usize, re: &mut [f64], im: &mut [f64]| {
            re.iter_mut().enumerate().for_each(|(s, x)| *x = ((s * (i + 3)) % 17) as f64 - 8.0);
            im.copy_from_slice(re);
        };
        let encode = best_of_three(|| encoder.integers_into(&mut integers, plains, fill, scale, window))? / plains as f64;
        let residues = encoder.residues(&integers, window, crate::ckks::PlainForm::Montgomery);
        let terms = vec![(0..plains).map(|plain| PlainTerm { plain, source: plain % shards }).collect::<Vec<_>>()];
        let plain = best_of_three(|| backend.encoded_inner_product(&ct, plains, &residues, &terms, window))?;
        Ok(Self { ntt, product, convert, encode, plain: plain / (plains * limbs) as f64 })
    }

    /// Transforms and conversion steps of one decomposition.
    fn mod_up_counts(s: &SwitchShape) -> (f64, f64) {
        let extended = s.limbs + s.special;
        ((s.digits * extended) as f64, (s.limbs * extended.saturating_sub(s.special)) as f64)
    }

    /// Transforms and conversion steps of one division of two halves by P.
    fn mod_down_counts(s: &SwitchShape) -> (f64, f64) {
        ((2 * (s.limbs + s.special)) as f64, (2 * s.limbs * s.special) as f64)
    }

    /// Decomposition of one polynomial into digits.
    pub fn mod_up(&self, s: &SwitchShape) -> f64 {
        let (transforms, conversions) = Self::mod_up_counts(s);
        self.ntt * transforms + self.convert * conversions
    }
    /// Product of the digits of one polynomial with a key.
    pub fn key_product(&self, s: &SwitchShape) -> f64 {
        self.product * (2 * s.digits * (s.limbs + s.special)) as f64
    }
    /// Division of two halves by P.
    pub fn mod_down(&self, s: &SwitchShape) -> f64 {
        let (transforms, conversions) = Self::mod_down_counts(s);
        self.ntt * transforms + self.convert * conversions
    }
    /// Rescale of two halves.
    pub fn rescale(&self, s: &SwitchShape) -> f64 {
        self.ntt * (2 * s.limbs) as f64 + self.product * (2 * s.limbs_below) as f64
    }
    /// One plaintext product, encoding included.
    pub fn plaintext_product(&self, s: &SwitchShape) -> f64 {
        self.encode + self.plain * s.limbs as f64
    }
    /// One product in the extended basis with a plaintext at hand.
    pub fn prepared_product(&self, s: &SwitchShape) -> f64 {
        self.product * (2 * (s.limbs + s.special)) as f64
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
            + c.prepared_products as f64 * self.prepared_product(s)
            + c.ciphertext_products as f64 * self.ciphertext_product(s)
    }
}

fn best_of_three<T, E: Into<CkksError>>(mut f: impl FnMut() -> Result<T, E>) -> Result<f64, CkksError> {
    f().map_err(Into::into)?;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        f().map_err(Into::into)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

//! A client and a server in one, for tests of the scheme.
#![allow(dead_code, missing_docs, clippy::unwrap_used, reason = "for tests alone, which may stop")]

use cipherlens::backend::{Backend, cpu::CpuBackend};
use cipherlens::ckks::*;
use std::sync::Arc;

/// Seed of everything random in a test; printed when a test fails, since assertions show it.
pub const SEED: u64 = 0x5eed_0001;

pub struct Bench {
    pub params: Arc<Params>,
    pub backend: Arc<dyn Backend>,
    pub secret: SecretKey,
    pub generator: KeyGenerator,
    pub encryptor: Encryptor,
    pub decryptor: Decryptor,
    pub encoder: Encoder,
}

impl Bench {
    pub fn new(preset: &str) -> Self {
        Self::with(preset, |params| Arc::new(CpuBackend::new(params.tables().clone()).unwrap()))
    }

    /// On another backend; the same seeds give the same keys and ciphertexts.
    pub fn with(preset: &str, backend: impl FnOnce(&Params) -> Arc<dyn Backend>) -> Self {
        println!("preset {preset}, seed {SEED:#x}");
        let params = presets::by_name(preset).unwrap();
        let backend = backend(&params);
        let generator = KeyGenerator::new(&params, backend.clone(), RandomSource::insecure_seeded(SEED)).unwrap();
        let secret = generator.secret_key().unwrap();
        let encryptor = Encryptor::new(&params, backend.clone(), RandomSource::insecure_seeded(SEED + 1)).unwrap();
        let decryptor = Decryptor::new(&params, backend.clone()).unwrap();
        let encoder = Encoder::new(params.clone(), backend.clone());
        Self { params, backend, secret, generator, encryptor, decryptor, encoder }
    }

    pub fn evaluator(&self, requests: &[KeyRequest]) -> Evaluator {
        let keys = Arc::new(self.generator.generate(&self.secret, requests).unwrap());
        Evaluator::new(self.params.clone(), self.backend.clone(), keys).unwrap()
    }

    pub fn values(&self, shards: usize, seed: u64) -> Vec<Vec<f64>> {
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 11) as f64 / 2f64.powi(52) - 1.0
        };
        (0..shards).map(|_| (0..self.params.slots()).map(|_| next()).collect()).collect()
    }

    pub fn plain(&self, values: &[Vec<f64>], level: Level, form: PlainForm) -> Plaintext {
        self.encoder.encode_shards(values, self.params.scale(level), self.params.window(level), form).unwrap()
    }

    pub fn encrypt(&self, values: &[Vec<f64>], level: Level) -> Ciphertext {
        self.encryptor.encrypt(&self.secret, &self.plain(values, level, PlainForm::Plain)).unwrap()
    }

    pub fn decrypt(&self, ct: &Ciphertext) -> Vec<Vec<f64>> {
        self.decryptor.decrypt_real(&self.secret, ct).unwrap()
    }

    pub fn words(&self, ct: &Ciphertext) -> Vec<u32> {
        self.backend.download(ct.buffer()).unwrap()
    }

    pub fn galois(&self, k: i64, levels: std::ops::RangeInclusive<Level>, alpha: usize) -> KeyRequest {
        KeyRequest { kind: KeyKind::Galois(self.params.galois_element(k)), gadget: self.params.gadget(levels, alpha).unwrap() }
    }

    pub fn relin(&self) -> KeyRequest {
        KeyRequest { kind: KeyKind::Relin, gadget: self.params.best_gadget(Level(0)..=self.params.max_level()).unwrap() }
    }
}

pub fn worst(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().flatten().zip(b.iter().flatten()).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

pub fn map2(a: &[Vec<f64>], b: &[Vec<f64>], f: impl Fn(f64, f64) -> f64) -> Vec<Vec<f64>> {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()).collect()
}

pub fn rotated(a: &[Vec<f64>], k: i64) -> Vec<Vec<f64>> {
    let turn = |v: &Vec<f64>| {
        let n = v.len() as i64;
        (0..n).map(|i| v[(i + k).rem_euclid(n) as usize]).collect()
    };
    a.iter().map(turn).collect()
}

//! Random sparse block matrices given by their diagonals.

use chacha20::ChaCha20Rng;
use cipherlens::circuits::SlotMatrix;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;

/// A seeded generator; prints its seed so that a failure can be replayed.
pub fn seeded(name: &str, seed: u64) -> ChaCha20Rng {
    println!("{name}: seed {seed}");
    ChaCha20Rng::seed_from_u64(seed)
}

/// A sparse block matrix with explicit diagonals.
#[derive(Debug)]
pub struct Diagonals {
    inputs: usize,
    outputs: usize,
    slots: usize,
    rotations: BTreeMap<(usize, usize), Vec<u32>>,
    values: BTreeMap<(usize, usize, u32), Vec<f64>>,
}

impl Diagonals {
    /// Random diagonals: `per_block` rotations in each block, drawn from `pool`.
    pub fn random(rng: &mut ChaCha20Rng, inputs: usize, outputs: usize, slots: usize, per_block: usize, pool: &[u32]) -> Self {
        let (mut rotations, mut values) = (BTreeMap::new(), BTreeMap::new());
        for o in 0..outputs {
            for i in 0..inputs {
                let mut rs: Vec<u32> = (0..per_block).map(|_| pool[rng.random_range(0..pool.len())]).collect();
                rs.sort_unstable();
                rs.dedup();
                for &r in &rs {
                    values.insert((o, i, r), (0..slots).map(|_| rng.random_range(-1.0..1.0)).collect());
                }
                rotations.insert((o, i), rs);
            }
        }
        Self { inputs, outputs, slots, rotations, values }
    }

    /// The same with the blocks of each input shard multiplied by a number.
    pub fn scaled(mut self, factors: &[f64]) -> Self {
        for (&(_, i, _), d) in &mut self.values {
            d.iter_mut().for_each(|v| *v *= factors[i]);
        }
        self
    }

    /// The product with input shards, by the definition.
    pub fn times(&self, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut out = vec![vec![0.0; self.slots]; self.outputs];
        for (&(o, i, r), d) in &self.values {
            for s in 0..self.slots {
                out[o][s] += d[s] * x[i][(s + r as usize) % self.slots];
            }
        }
        out
    }
}

impl SlotMatrix for Diagonals {
    fn inputs(&self) -> usize {
        self.inputs
    }
    fn outputs(&self) -> usize {
        self.outputs
    }
    fn slots(&self) -> usize {
        self.slots
    }
    fn rotations(&self, output: usize, input: usize) -> &[u32] {
        &self.rotations[&(output, input)]
    }
    fn diagonal(&self, output: usize, input: usize, rotation: u32, values: &mut [f64]) {
        values.copy_from_slice(&self.values[&(output, input, rotation)]);
    }
}

/// Random shards in [-1, 1].
pub fn random_shards(rng: &mut ChaCha20Rng, shards: usize, slots: usize) -> Vec<Vec<f64>> {
    (0..shards).map(|_| (0..slots).map(|_| rng.random_range(-1.0..1.0)).collect()).collect()
}

/// Largest absolute difference.
pub fn worst(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    assert_eq!(a.len(), b.len(), "shards");
    a.iter().zip(b).flat_map(|(a, b)| a.iter().zip(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

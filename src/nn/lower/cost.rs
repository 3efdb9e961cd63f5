//! What a layer would cost between two layouts, estimated for comparing layouts with each other. The planner counts with
//! measured units once layouts are fixed.
//!
//! The unit is one number-theoretic transform of one limb. With L limbs, a third as many special primes and three digits,
//! key switching takes about `8 L` for a hoisted rotation, `10 L` for one that is not and `14 L` for a product; a plaintext
//! product is an encoding (about 16), L transforms and 2 L products of limbs (half a unit each).

use super::rotations::{ConvRotations, RotationSet};
use crate::circuits::linear_transform::{Packing, Split};

/// Limbs of a value on which nothing remains to be done.
const LAST_LIMBS: usize = 3;

/// Costs for a given number of limbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Units {
    limbs: usize,
}

impl Units {
    /// For a value with so many levels still to be used: a level is somewhat more than a limb.
    pub fn with_levels(levels: usize) -> Self {
        Self { limbs: LAST_LIMBS + levels * 5 / 4 }
    }

    fn product(self) -> usize {
        16 + 2 * self.limbs
    }

    fn hoisted(self) -> usize {
        8 * self.limbs
    }

    fn rotation(self) -> usize {
        10 * self.limbs
    }

    /// One shard of a value: what is done to it slot by slot, mostly its squaring.
    pub fn shard(self) -> usize {
        16 * self.limbs
    }

    /// A matrix of which only the number of products is known.
    pub fn matrix(self, products: usize) -> usize {
        products * self.product() + (products as f64).sqrt() as usize * 2 * self.rotation()
    }

    /// A convolution, at its best packing and split into baby and giant steps.
    pub fn conv(self, rotations: &ConvRotations, inputs: usize) -> usize {
        let outputs = rotations.sets.len() / inputs.max(1);
        let best = [Packing::Real, Packing::Inputs, Packing::Outputs].into_iter().filter_map(|packing| {
            let (down, across) = match packing {
                Packing::Real => (1, 1),
                Packing::Inputs => (1, 2),
                Packing::Outputs => (2, 1),
            };
            if down > outputs || across > inputs {
                return None;
            }
            let (packed_out, packed_in) = (outputs.div_ceil(down), inputs.div_ceil(across));
            let mut products = 0;
            let mut all: Option<RotationSet> = None;
            for o in 0..packed_out {
                for i in 0..packed_in {
                    let mut union: Option<RotationSet> = None;
                    for row in o * down..((o + 1) * down).min(outputs) {
                        for column in i * across..((i + 1) * across).min(inputs) {
                            join(&mut union, &rotations.sets[row * inputs + column]);
                        }
                    }
                    if let Some(union) = union {
                        products += union.len();
                        join(&mut all, &union);
                    }
                }
            }
            let conjugations = if packing == Packing::Real { 0 } else { packed_out };
            let steps = all.map_or(0, |all| self.steps(&all, packed_in, packed_out));
            Some(products * self.product() + conjugations * self.rotation() + steps)
        });
        best.min().unwrap_or(0)
    }

    /// Baby and giant steps at the best split.
    fn steps(self, all: &RotationSet, inputs: usize, outputs: usize) -> usize {
        let slots = all.slots();
        let all: Vec<usize> = all.iter().collect();
        let cost = |log: u32| {
            let split = Split { modulus: 1 << log };
            let (mut giants, mut babies) = (RotationSet::new(slots), RotationSet::new(slots));
            for r in &all {
                let (g, b) = split.parts(*r, slots);
                giants.insert(g);
                babies.insert(b);
            }
            babies.len() * inputs * self.hoisted() + giants.len() * outputs * self.rotation()
        };
        (0..=slots.ilog2()).map(cost).min().unwrap_or(0)
    }
}

fn join(union: &mut Option<RotationSet>, set: &RotationSet) {
    match union {
        Some(union) => union.union(set),
        None => *union = Some(set.clone()),
    }
}

//! What a layer would cost between two layouts, estimated for comparing layouts with each other. The planner counts with
//! measured units once layouts are fixed.
//!
//! The unit is one number-theoretic transform of one limb. With L limbs, a third as many special primes and three digits,
//! key switching takes about `8 L` for a hoisted rotation, `10 L` for one that is not and `14 L` for a product; a plaintext
//! product is an encoding (about 16), L transforms and 2 L products of limbs (half a unit each).
//!
//! Where values are bootstrapped, levels still to come say nothing of limbs: nearly all matrices are applied just above the level
//! at which that happens, and what counts beside them is that every level of every shard has to be bootstrapped for ([`Units::REFRESHED`]).

use super::rotations::{ConvRotations, RotationSet};
use crate::circuits::linear_transform::{Packing, Split};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Limbs of a value on which nothing remains to be done.
const LAST_LIMBS: usize = 3;

/// What operations cost at the place of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Units {
    product: usize,
    hoisted: usize,
    rotation: usize,
    shard: usize,
    level: usize,
}

impl Units {
    /// Where values are bootstrapped: a plaintext product is 10. By the planner's typical kernels, in the plan of a ResNet-18 at N = 2^16: a
    /// product takes 0.39 ms, a rotation among such products 1.9 ms; bootstrapping a shard 0.43 s and a polynomial on it 0.22, for some
    /// 12 levels.
    pub(super) const REFRESHED: Self = Self { product: 10, hoisted: 40, rotation: 60, shard: 10, level: 1000 };

    /// There, before the first activation, some eight levels higher: a product took 2.3 ms in a run where others took 0.9
    /// (benches/record/2026-11-28-networks.md), and rotations are assumed to grow a little more.
    pub(super) const FRESH: Self = Self { product: 25, hoisted: 120, rotation: 180, shard: 30, level: 1000 };

    /// For a value with so many levels still to be used, none of them by bootstrapping: a level is somewhat more than a limb.
    pub(super) fn with_levels(levels: usize) -> Self {
        let limbs = LAST_LIMBS + levels * 5 / 4;
        Self { product: 16 + 2 * limbs, hoisted: 8 * limbs, rotation: 10 * limbs, shard: 16 * limbs, level: 0 }
    }

    /// One shard of a value that a step of so many levels made: what is done to it slot by slot, mostly its squaring.
    pub(super) fn shard(self, levels: usize) -> usize {
        self.shard + self.level * levels
    }

    /// A matrix of which only the number of products is known.
    pub(super) fn matrix(self, products: usize) -> usize {
        products * self.product + (products as f64).sqrt() as usize * 2 * self.rotation
    }

    /// A convolution, at its best packing and split into baby and giant steps.
    pub(super) fn conv(self, counts: &ConvCounts) -> usize {
        let steps = |&(babies, giants): &(usize, usize)| babies * self.hoisted + giants * self.rotation;
        let packed = |p: &PackedCounts| {
            let steps = p.splits.iter().map(steps).min().unwrap_or(0);
            p.products * self.product + p.conjugations * self.rotation + steps
        };
        counts.0.iter().map(packed).min().unwrap_or(0)
    }
}

/// What a convolution between two layouts counts, whatever the number of limbs: by packing.
#[derive(Debug, Clone)]
pub(super) struct ConvCounts(Vec<PackedCounts>);

#[derive(Debug, Clone)]
struct PackedCounts {
    products: usize,
    conjugations: usize,
    /// For each split, babies times input ciphertexts and giants times output ciphertexts.
    splits: Vec<(usize, usize)>,
}

impl ConvCounts {
    /// Counts them.
    pub(super) fn of(rotations: &ConvRotations) -> Self {
        Self(Packing::ALL.into_iter().filter_map(|packing| PackedCounts::of(rotations, packing)).collect())
    }
}

impl PackedCounts {
    fn of(rotations: &ConvRotations, packing: Packing) -> Option<Self> {
        let (down, across) = match packing {
            Packing::Real | Packing::Halves => (1, 1),
            Packing::Inputs => (1, 2),
            Packing::Outputs => (2, 1),
        };
        let slots = rotations.sets.values().next()?.slots();
        if !packing.suits(rotations.inputs, rotations.outputs, slots) {
            return None;
        }
        let mut blocks: BTreeMap<(usize, usize), RotationSet> = BTreeMap::new();
        for ((o, i), set) in &rotations.sets {
            let set = if packing == Packing::Halves { set.halved() } else { set.clone() };
            match blocks.entry((o / down, i / across)) {
                Entry::Vacant(entry) => _ = entry.insert(set),
                Entry::Occupied(mut entry) => entry.get_mut().union(&set),
            }
        }
        let (inputs, outputs) = (rotations.inputs.div_ceil(across), rotations.outputs.div_ceil(down));
        let products = blocks.values().map(RotationSet::len).sum();
        let all = blocks.into_values().reduce(|mut all, set| {
            all.union(&set);
            all
        })?;
        let splits = splits(&all).into_iter().map(|(babies, giants)| (babies * inputs, giants * outputs)).collect();
        Some(Self { products, conjugations: packing.conjugations(outputs), splits })
    }
}

/// Babies and giants at every split.
fn splits(all: &RotationSet) -> Vec<(usize, usize)> {
    let slots = all.slots();
    let all: Vec<usize> = all.iter().collect();
    let count = |log: u32| {
        let split = Split { modulus: 1 << log };
        let (mut giants, mut babies) = (RotationSet::new(slots), RotationSet::new(slots));
        for r in &all {
            let (g, b) = split.parts(*r, slots);
            giants.insert(g);
            babies.insert(b);
        }
        (babies.len(), giants.len())
    };
    (0..=slots.ilog2()).map(count).collect()
}

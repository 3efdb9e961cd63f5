//! A layer as a sparse block matrix over shards, cut into diagonals and evaluated with baby and giant steps.
//!
//! With a rotation written `r = g + b`, `out[o] = sum_g rot_g( sum_{i,b} D'(o,i,g+b) * rot_b(in[i]) )` where
//! `D'(..)[s] = D(..)[s - g]` (Halevi-Shoup 2018, section 4). The baby rotations of one input shard share one mod_up
//! (hoisting) and serve every output shard; the sum over input shards stands before the giant rotation; the key-switched
//! giants of one output add up in the extended basis, so that one mod_down, merged with the rescale, ends each output
//! (double hoisting; Bossuat et al. 2021, section 4). Every step acts on all shards at once, so that a rotation key is
//! read once for the whole image.

use super::{CircuitError, Engine, Gadgets};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A linear map from `inputs` shards of `slots` values to `outputs` shards, given by its generalised diagonals:
///
/// `out[o][s] = sum over (i, r) of diagonal(o, i, r)[s] * in[i][(s + r) mod slots]`
///
/// which is what rotation by `r` (slot s receives slot s + r) and a slot-wise product compute. Diagonals are generated
/// on demand, never stored all at once.
pub trait SlotMatrix: Send + Sync + std::fmt::Debug {
    /// Input shards.
    fn inputs(&self) -> usize;
    /// Output shards.
    fn outputs(&self) -> usize;
    /// Slots of a shard.
    fn slots(&self) -> usize;
    /// The rotations, in `[0, slots)`, ascending, whose diagonal from input shard `input` to output shard `output` is
    /// not all zero.
    fn rotations(&self, output: usize, input: usize) -> &[u32];
    /// Writes the diagonal (`slots` values, every one of them) of a rotation listed by [`Self::rotations`].
    fn diagonal(&self, output: usize, input: usize, rotation: u32, values: &mut [f64]);
}

/// How rotations are split: `b` is the centred remainder of `r` modulo `modulus`, in `[-modulus/2, modulus/2)`, and
/// `g = r - b`. `modulus = slots` means babies only, `modulus = 1` giants only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Split {
    /// A power of two up to the slot count.
    pub modulus: usize,
}

impl Split {
    /// `(giant, baby)` of a rotation, both in `[0, slots)`.
    pub fn parts(self, rotation: usize, slots: usize) -> (usize, usize) {
        let remainder = rotation % self.modulus;
        let centred =
            if remainder >= self.modulus.div_ceil(2) && self.modulus > 1 { remainder + slots - self.modulus } else { remainder };
        let baby = centred % slots;
        ((rotation + slots - baby) % slots, baby)
    }
}

/// How real shards share complex slots, which halves the plaintext products.
///
/// Slots are complex, images are real. With two outputs in one, `out_0 + i out_1 = sum (D_0 + i D_1) rot(x)`; with two
/// inputs in one, `Re sum (D_0 - i D_1) rot(x_0 + i x_1) = sum D_0 rot(x_0) + D_1 rot(x_1)`. Either way one conjugation
/// an output ciphertext takes the parts apart: `2 Re y = y + conj(y)`, `2 Im y = -i (y - conj(y))`; the halves are
/// folded into the diagonals. A single shard can be its own partner, half a turn away: `x + i rot_{n/2}(x)` joins the
/// products by r and by r + n/2, for one more rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Packing {
    /// One shard a ciphertext throughout.
    Real,
    /// Input shards 2k and 2k + 1 become one: half the baby rotations as well.
    Inputs,
    /// Output shards 2k and 2k + 1 are computed as one: half the giant rotations as well.
    Outputs,
    /// The one input shard and itself turned by half its slots become one: rotations below half a turn are left.
    Halves,
}

impl Packing {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Real, Self::Inputs, Self::Outputs, Self::Halves];

    /// Whether it joins anything in a matrix of so many shards.
    pub fn suits(self, inputs: usize, outputs: usize, slots: usize) -> bool {
        match self {
            Self::Real => true,
            Self::Inputs => inputs > 1,
            Self::Outputs => outputs > 1,
            Self::Halves => inputs == 1 && slots.is_multiple_of(2),
        }
    }

    /// Conjugations of a matrix with so many output ciphertexts, and the half turn, which costs as much.
    pub fn conjugations(self, outputs: usize) -> usize {
        match self {
            Self::Real => 0,
            Self::Inputs | Self::Outputs => outputs,
            Self::Halves => outputs + 1,
        }
    }
}

/// One product of the inner sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Term {
    /// Input shard, packed.
    pub input: usize,
    /// Index into [`LinearTransform::babies`].
    pub baby: usize,
    /// The whole rotation r = g + b.
    pub rotation: u32,
}

/// What an evaluation costs in key switches, for choosing a split and a packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransformCounts {
    /// Input ciphertexts, packed.
    pub inputs: usize,
    /// Output ciphertexts, packed.
    pub outputs: usize,
    /// Baby rotations by a nonzero amount.
    pub babies: usize,
    /// Giant rotations by a nonzero amount.
    pub giants: usize,
    /// Plaintext products.
    pub products: usize,
    /// Conjugations, and the half turn of [`Packing::Halves`].
    pub conjugations: usize,
}

/// A way to cut a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedCut {
    /// The split.
    pub split: Split,
    /// The packing.
    pub packing: Packing,
    /// What it counts.
    pub counts: TransformCounts,
}

/// Products of inner sums that are made by one call: enough to share out, and their coefficients still fit a cache.
const TOGETHER: usize = 32;

/// A matrix with its split and packing: everything the evaluation needs but the numbers.
#[derive(Debug, Clone)]
pub struct LinearTransform {
    id: u64,
    matrix: Arc<dyn SlotMatrix>,
    split: Split,
    packing: Packing,
    babies: Vec<usize>,
    /// Giant -> for each packed output its terms.
    giants: BTreeMap<usize, Vec<Vec<Term>>>,
    products: usize,
    /// Packed inputs whose rotations are held at once.
    batch: usize,
}

impl LinearTransform {
    /// Cuts a matrix by a split and a packing.
    pub fn new(matrix: Arc<dyn SlotMatrix>, split: Split, packing: Packing) -> Self {
        let slots = matrix.slots();
        let blocks = packed_rotations(&*matrix, packing);
        let babies: BTreeSet<usize> =
            blocks.iter().flat_map(|(_, _, rs)| rs.iter().map(|&r| split.parts(r as usize, slots).1)).collect();
        let babies: Vec<usize> = babies.into_iter().collect();
        let (_, outputs) = packed_shards(&*matrix, packing);
        let mut giants: BTreeMap<usize, Vec<Vec<Term>>> = BTreeMap::new();
        let mut products = 0;
        for (output, input, rotations) in blocks {
            for rotation in rotations {
                let (g, b) = split.parts(rotation as usize, slots);
                let baby = babies.binary_search(&b).unwrap_or(0);
                giants.entry(g).or_insert_with(|| vec![Vec::new(); outputs])[output].push(Term { input, baby, rotation });
                products += 1;
            }
        }
        let batch = packed_shards(&*matrix, packing).0.max(1);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, matrix, split, packing, babies, giants, products, batch }
    }

    /// Holds the rotations of at most as many inputs at once as fit `ciphertexts` ciphertexts, one input at least. With
    /// more than one batch the sums of all giants are held beside them until the last batch; a key is read once a batch.
    pub fn with_room_for(mut self, ciphertexts: usize) -> Self {
        let inputs = self.packed_shards().0.max(1);
        let fits = |batch: usize| self.ciphertexts_held(batch) <= ciphertexts;
        self.batch = (1..=inputs).rev().find(|&b| fits(b)).unwrap_or(1);
        self
    }

    /// Most ciphertexts held at once: rotations of a batch, and the giants' sums if there are several batches.
    pub fn peak_ciphertexts(&self) -> usize {
        self.ciphertexts_held(self.batch)
    }

    fn ciphertexts_held(&self, batch: usize) -> usize {
        let (inputs, outputs) = self.packed_shards();
        let together = self.giants_together(TOGETHER).iter().map(Vec::len).max().unwrap_or(1);
        // Those made together, and one of them apart.
        let sums = if batch < inputs { self.giants.len() } else { 1 + together };
        batch * self.babies.len() + sums * outputs
    }

    /// Packed inputs whose rotations are held at once.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The cheapest split and packing by a cost function.
    pub fn cheapest(matrix: Arc<dyn SlotMatrix>, cost: impl Fn(&TransformCounts) -> f64) -> Self {
        let candidates = Self::candidates(&*matrix);
        let best = candidates.iter().min_by(|a, b| cost(&a.counts).total_cmp(&cost(&b.counts)));
        let (split, packing) = best.map_or((Split { modulus: matrix.slots() }, Packing::Real), |c| (c.split, c.packing));
        Self::new(matrix, split, packing)
    }

    /// Every split and packing worth a look, with what it counts. Cost: a pass over all rotations for each.
    pub fn candidates(matrix: &dyn SlotMatrix) -> Vec<CountedCut> {
        let slots = matrix.slots();
        let mut candidates = Vec::new();
        for packing in Packing::ALL.into_iter().filter(|p| p.suits(matrix.inputs(), matrix.outputs(), slots)) {
            let blocks = packed_rotations(matrix, packing);
            let all: BTreeSet<usize> = blocks.iter().flat_map(|(_, _, rs)| rs.iter().map(|&r| r as usize)).collect();
            let products = blocks.iter().map(|(_, _, rs)| rs.len()).sum();
            let (inputs, outputs) = packed_shards(matrix, packing);
            let conjugations = packing.conjugations(outputs);
            for log in 0..=slots.trailing_zeros() {
                let split = Split { modulus: 1 << log };
                let (giants, babies): (BTreeSet<usize>, BTreeSet<usize>) = all.iter().map(|&r| split.parts(r, slots)).unzip();
                let nonzero = |set: &BTreeSet<usize>| set.iter().filter(|&&r| r != 0).count();
                let (babies, giants) = (nonzero(&babies), nonzero(&giants));
                let counts = TransformCounts { inputs, outputs, babies, giants, products, conjugations };
                candidates.push(CountedCut { split, packing, counts });
            }
        }
        candidates
    }

    /// Never that of a transform of other numbers, in this process: what is kept of it is found again by this.
    pub fn id(&self) -> u64 {
        self.id
    }
    /// The matrix.
    pub fn matrix(&self) -> &Arc<dyn SlotMatrix> {
        &self.matrix
    }
    /// The split.
    pub fn split(&self) -> Split {
        self.split
    }
    /// The packing.
    pub fn packing(&self) -> Packing {
        self.packing
    }
    /// Input and output ciphertexts after packing.
    pub fn packed_shards(&self) -> (usize, usize) {
        packed_shards(&*self.matrix, self.packing)
    }
    /// The baby rotations, ascending; 0 may be among them.
    pub fn babies(&self) -> &[usize] {
        &self.babies
    }
    /// The giant rotations; 0 may be among them.
    pub fn giants(&self) -> impl Iterator<Item = usize> + '_ {
        self.giants.keys().copied()
    }
    /// Plaintext products.
    pub fn products(&self) -> usize {
        self.products
    }

    /// Writes the diagonal of a term turned back by its giant, real and imaginary parts, each as long as a shard has slots:
    /// `values[s] = D[s - g]`.
    pub fn turned_diagonal(&self, output: usize, giant: usize, term: Term, re: &mut [f64], im: &mut [f64]) {
        self.diagonal(output, term, re, im);
        re.rotate_right(giant % re.len().max(1));
        im.rotate_right(giant % im.len().max(1));
    }

    /// Writes the diagonal of a term as it is, real and imaginary parts, each as long as a shard has slots.
    pub fn diagonal(&self, output: usize, term: Term, re: &mut [f64], im: &mut [f64]) {
        let (o, i, r) = (output, term.input, term.rotation);
        match self.packing {
            Packing::Real => {
                self.matrix.diagonal(o, i, r, re);
                im.fill(0.0);
            }
            Packing::Inputs => {
                self.diagonal_or_zero(o, 2 * i, r, 0.5, re);
                self.diagonal_or_zero(o, 2 * i + 1, r, -0.5, im);
            }
            Packing::Outputs => {
                self.diagonal_or_zero(2 * o, i, r, 0.5, re);
                self.diagonal_or_zero(2 * o + 1, i, r, 0.5, im);
            }
            Packing::Halves => {
                self.diagonal_or_zero(o, i, r, 0.5, re);
                self.diagonal_or_zero(o, i, r + (self.matrix.slots() / 2) as u32, -0.5, im);
            }
        }
    }

    /// The products of a giant and a batch of inputs, output by output.
    fn products_of(&self, giant: usize, batch: Range<usize>) -> impl Iterator<Item = Vec<Product>> {
        let outputs = self.giants.get(&giant).map(Vec::as_slice).unwrap_or_default();
        outputs.iter().enumerate().map(move |(output, terms)| {
            let product = |&term: &Term| {
                let source = term.baby * batch.len() + term.input.checked_sub(batch.start)?;
                batch.contains(&term.input).then_some(Product { output, giant, term, source })
            };
            terms.iter().filter_map(product).collect()
        })
    }

    /// Giants whose inner sums are made by one call: neighbours with no more than `most` products in all, or one alone.
    fn giants_together(&self, most: usize) -> Vec<Vec<usize>> {
        let mut runs: Vec<Vec<usize>> = Vec::new();
        let mut products = 0;
        for (&giant, outputs) in &self.giants {
            let more: usize = outputs.iter().map(Vec::len).sum();
            match runs.last_mut() {
                Some(run) if products + more <= most => run.push(giant),
                _ => {
                    runs.push(vec![giant]);
                    products = 0;
                }
            }
            products += more;
        }
        runs
    }

    fn diagonal_or_zero(&self, output: usize, input: usize, rotation: u32, factor: f64, values: &mut [f64]) {
        let m = &self.matrix;
        let there = output < m.outputs() && input < m.inputs() && m.rotations(output, input).binary_search(&rotation).is_ok();
        if there {
            m.diagonal(output, input, rotation, values);
            values.iter_mut().for_each(|v| *v *= factor);
        } else {
            values.fill(0.0);
        }
    }

    /// Applies the transform: one level, result at the canonical scale one level below.
    ///
    /// Cost, S_in and S_out packed ciphertexts: one mod_up an input, one key product and mod_down a baby rotation and
    /// input, one mod_up and key product a giant rotation and output, one mod_down-rescale an output,
    /// [`Self::products`] plaintext products, one conjugation an output if packed. Memory: [`Self::peak_ciphertexts`].
    ///
    /// # Errors
    /// [`CircuitError::Shards`] unless x has as many shards as the matrix has inputs, [`CircuitError::EmptyMatrix`] where it has no
    /// diagonal, [`CircuitError::LevelsExhausted`] at level 0, and those of the engine's operations ([`Engine`]).
    pub fn apply<E: Engine>(&self, engine: &E, x: &E::Value, gadgets: &Gadgets) -> Result<E::Value, CircuitError> {
        if engine.shards(x) != self.matrix.inputs() {
            return Err(CircuitError::Shards {
                operation: "linear transform",
                expected: self.matrix.inputs(),
                found: engine.shards(x),
            });
        }
        let packed = match self.packing {
            Packing::Inputs => engine.pack_pairs(x)?,
            Packing::Halves => engine.pack_pairs(&engine.rotate_all(x, &[0, self.matrix.slots() / 2], gadgets)?)?,
            Packing::Real | Packing::Outputs => x.clone(),
        };
        let inputs = self.packed_shards().0;
        let mut sum = None;
        if self.batch >= inputs {
            let rotated = engine.rotate_all(&packed, &self.babies, gadgets)?;
            for giants in self.giants_together(engine.products_together()) {
                let products: Vec<_> = giants.iter().flat_map(|&giant| self.products_of(giant, 0..inputs)).collect();
                let inner = engine.inner_product(&rotated, self, &products)?;
                match giants[..] {
                    [giant] => engine.accumulate_rotated(&mut sum, inner, giant, gadgets)?,
                    _ => engine.accumulate_all_rotated(&mut sum, &inner, &giants, gadgets)?,
                }
            }
        } else {
            let mut inner: BTreeMap<usize, E::Value> = BTreeMap::new();
            for first in (0..inputs).step_by(self.batch) {
                let batch = first..inputs.min(first + self.batch);
                let rotated = engine.rotate_all(&engine.select(&packed, batch.clone())?, &self.babies, gadgets)?;
                for &giant in self.giants.keys() {
                    let products: Vec<_> = self.products_of(giant, batch.clone()).collect();
                    let part = engine.inner_product(&rotated, self, &products)?;
                    let total = match inner.remove(&giant) {
                        Some(before) => engine.add(before, &part)?,
                        None => part,
                    };
                    inner.insert(giant, total);
                }
            }
            for (giant, inner) in inner {
                engine.accumulate_rotated(&mut sum, inner, giant, gadgets)?;
            }
        }
        let y = engine.finish(sum.ok_or(CircuitError::EmptyMatrix)?)?;
        match self.packing {
            Packing::Real => Ok(y),
            Packing::Inputs | Packing::Halves => engine.real_parts(&y, gadgets),
            Packing::Outputs => engine.unpack_pairs(&y, self.matrix.outputs(), gadgets),
        }
    }
}

/// A term and where its operand stands among the rotations of a batch of inputs ([`Engine::rotate_all`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Product {
    /// The output shard, packed.
    pub output: usize,
    /// The giant rotation that its diagonal is turned back by.
    pub giant: usize,
    /// The term.
    pub term: Term,
    /// Index of the rotated ciphertext.
    pub source: usize,
}

fn packed_shards(matrix: &dyn SlotMatrix, packing: Packing) -> (usize, usize) {
    match packing {
        Packing::Real | Packing::Halves => (matrix.inputs(), matrix.outputs()),
        Packing::Inputs => (matrix.inputs().div_ceil(2), matrix.outputs()),
        Packing::Outputs => (matrix.inputs(), matrix.outputs().div_ceil(2)),
    }
}

/// `(packed output, packed input, rotations)` of every block; the rotations of a pair are the union of its two.
fn packed_rotations(matrix: &dyn SlotMatrix, packing: Packing) -> Vec<(usize, usize, Vec<u32>)> {
    let (inputs, outputs) = packed_shards(matrix, packing);
    let of = |o: usize, i: usize| if o < matrix.outputs() && i < matrix.inputs() { matrix.rotations(o, i) } else { &[] };
    let mut blocks = Vec::with_capacity(inputs * outputs);
    for output in 0..outputs {
        for input in 0..inputs {
            let parts = match packing {
                Packing::Real | Packing::Halves => [of(output, input), &[]],
                Packing::Inputs => [of(output, 2 * input), of(output, 2 * input + 1)],
                Packing::Outputs => [of(2 * output, input), of(2 * output + 1, input)],
            };
            let turn = if packing == Packing::Halves { (matrix.slots() / 2) as u32 } else { u32::MAX };
            let union: BTreeSet<u32> = parts.into_iter().flatten().map(|r| r % turn).collect();
            blocks.push((output, input, union.into_iter().collect()));
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_parts_add_up_and_babies_are_centred() {
        for log_slots in [4usize, 9] {
            let slots = 1 << log_slots;
            for log in 0..=log_slots {
                let split = Split { modulus: 1 << log };
                for r in 0..slots {
                    let (g, b) = split.parts(r, slots);
                    assert_eq!((g + b) % slots, r);
                    assert_eq!(g % split.modulus, 0);
                    let centred = if b >= slots / 2 { b as isize - slots as isize } else { b as isize };
                    assert!(2 * centred.unsigned_abs() <= split.modulus, "modulus {} baby {centred}", split.modulus);
                }
            }
        }
    }
}

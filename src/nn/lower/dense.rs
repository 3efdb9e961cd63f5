//! Linear layers by hybrid diagonals, and moving a tensor from one layout to another.

use crate::circuits::SlotMatrix;
use crate::nn::layout::{Layout, Place};
use rayon::prelude::*;
use std::sync::Arc;

/// `weight x` for a weight of few rows: `m` diagonals, then a sum over slots by doubling.
///
/// With m the power of two at or above the number of outputs, `D_d[j] = W[j mod m][element at slot j + d]` for d < m;
/// the sum over d leaves partial results of output k at all slots k mod m, and adding the rotations by m, 2m, ..., n/2
/// completes them: result k stands at slot k of every block of m (Juvekar et al., USENIX Security 2018, section 4.2, the
/// hybrid method). More than n outputs take several output shards with m = n.
pub(super) struct DenseMatrix {
    weights: Arc<DenseWeights>,
    slots: usize,
    block: usize,
    outputs: usize,
    /// `[shard][slot]` -> flat input element.
    elements: Vec<Vec<Option<u32>>>,
    rotations: Vec<Vec<u32>>,
}

/// The weights of a linear layer.
pub(super) struct DenseWeights {
    /// `[out][column]`.
    pub weight: Vec<f64>,
    pub columns: usize,
    /// Consecutive flat elements that share a column (an average over a channel).
    pub repeat: usize,
}

impl DenseWeights {
    fn rows(&self) -> usize {
        self.weight.len() / self.columns
    }
}

impl std::fmt::Debug for DenseMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rows = self.weights.rows();
        write!(f, "DenseMatrix({} shards -> {rows} values, blocks of {})", self.elements.len(), self.block)
    }
}

impl DenseMatrix {
    /// For an input in the given layout.
    pub fn new(weights: Arc<DenseWeights>, input: &Layout) -> Self {
        let slots = input.slots();
        let (rows, elements) = (weights.rows(), input.elements());
        let power = rows.next_power_of_two();
        // Doubling needs blocks that divide the shard.
        let block = if slots.is_multiple_of(power) && (slots / power).is_power_of_two() { power } else { slots };
        let outputs = rows.div_ceil(block);
        let mut rotations = Vec::new();
        for o in 0..outputs {
            let valid = (rows - o * block).min(block);
            for shard in &elements {
                // Rotation d is empty if no slot j with j mod block < valid has an element at j + d.
                let used = (0..block).filter(|d| {
                    valid == block
                        || shard.iter().enumerate().any(|(s, e)| e.is_some() && (s + slots - d) % slots % block < valid)
                });
                rotations.push(used.map(|d| d as u32).collect());
            }
        }
        let mut matrix = Self { weights, slots, block, outputs, elements, rotations };
        if matrix.weights.weight.contains(&0.0) {
            matrix.rotations = nonzero_rotations(&matrix);
            keep_one(&mut matrix.rotations);
        }
        matrix
    }

    /// A value for each output wherever the output stands: slot vectors `[shard][slot]`.
    pub fn copies(&self, values: &[f64]) -> Vec<Vec<f64>> {
        let shard =
            |o: usize| (0..self.slots).map(|s| values.get(o * self.block + s % self.block).copied().unwrap_or(0.0)).collect();
        (0..self.outputs).map(shard).collect()
    }

    /// The rotations to be added up afterwards.
    pub fn rotate_sums(&self) -> Vec<usize> {
        std::iter::successors(Some(self.block), |r| Some(r * 2)).take_while(|r| *r < self.slots).collect()
    }
}

impl SlotMatrix for DenseMatrix {
    fn inputs(&self) -> usize {
        self.elements.len()
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn slots(&self) -> usize {
        self.slots
    }

    fn rotations(&self, output: usize, input: usize) -> &[u32] {
        &self.rotations[output * self.elements.len() + input]
    }

    fn diagonal(&self, output: usize, input: usize, rotation: u32, values: &mut [f64]) {
        let DenseWeights { weight, columns, repeat } = &*self.weights;
        let elements = &self.elements[input];
        for (j, value) in values.iter_mut().enumerate() {
            let row = output * self.block + j % self.block;
            *value = match elements[(j + rotation as usize) % self.slots] {
                Some(e) if row < self.weights.rows() => weight[row * columns + e as usize / repeat],
                _ => 0.0,
            };
        }
    }
}

/// A matrix of zeros keeps one diagonal: circuits take no empty matrix, and the bias still has to be added to something.
pub(super) fn keep_one(rotations: &mut [Vec<u32>]) {
    if rotations.iter().all(Vec::is_empty) {
        rotations[0].push(0);
    }
}

/// The rotations of each block `[output * inputs + input]` whose diagonal is not all zero: weights that are zero may leave
/// some empty.
fn nonzero_rotations(matrix: &dyn SlotMatrix) -> Vec<Vec<u32>> {
    let blocks = (0..matrix.outputs() * matrix.inputs()).into_par_iter().map(|block| {
        let (o, i) = (block / matrix.inputs(), block % matrix.inputs());
        let mut values = vec![0.0; matrix.slots()];
        let mut kept = matrix.rotations(o, i).to_vec();
        kept.retain(|r| {
            matrix.diagonal(o, i, *r, &mut values);
            values.iter().any(|v| *v != 0.0)
        });
        kept
    });
    blocks.collect()
}

/// Where the elements of a tensor come from.
pub(super) struct Moves {
    /// For each element, the operand's, both `[channel][row][column]`, and what it is multiplied by; none for zero.
    pub sources: Vec<Option<(u32, f64)>>,
    /// How far apart the rows and columns are that are taken.
    pub stride: [usize; 2],
}

/// Moves elements from their places in one layout to places in another.
pub(super) struct MoveMatrix {
    slots: usize,
    /// Flat element per slot, `[shard][slot]`.
    inputs: Vec<Vec<Option<u32>>>,
    /// The operand's element that each slot of the result takes, and its factor, `[shard][slot]`.
    outputs: Vec<Vec<Option<(u32, f64)>>>,
    rotations: Vec<Vec<u32>>,
}

impl std::fmt::Debug for MoveMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MoveMatrix({} -> {} shards, {} diagonals)", self.inputs.len(), self.outputs.len(), self.products())
    }
}

impl MoveMatrix {
    /// The same tensor from layout `input` to layout `output`. The tensors may differ in shape, not in the order of their
    /// elements.
    pub fn new(input: &Layout, output: &Layout) -> Self {
        Self::of(input, output, |e| Some((e, 1.0)))
    }

    /// A tensor in layout `output` from one in layout `input`.
    pub fn rearranged(moves: &Moves, input: &Layout, output: &Layout) -> Self {
        Self::of(input, output, |e| moves.sources[e as usize])
    }

    fn of(input: &Layout, output: &Layout, source: impl Fn(u32) -> Option<(u32, f64)>) -> Self {
        let slots = input.slots();
        let mut places = vec![Place::default(); input.shape().len()];
        input.for_each(|i, place| places[i] = place);
        let mut outputs = vec![vec![None; slots]; output.shards()];
        // Moves are sparse, and neighbours mostly move alike: lists, not a flag for every rotation of every pair of shards.
        let mut rotations: Vec<Vec<u32>> = vec![Vec::new(); output.shards() * input.shards()];
        output.for_each(|i, to| {
            let Some((from, factor)) = source(i as u32).filter(|(_, factor)| *factor != 0.0) else { return };
            outputs[to.shard][to.slot] = Some((from, factor));
            let from = places[from as usize];
            let (list, rotation) =
                (&mut rotations[to.shard * input.shards() + from.shard], (from.slot + slots - to.slot) % slots);
            if list.last() != Some(&(rotation as u32)) {
                list.push(rotation as u32);
            }
        });
        for list in &mut rotations {
            list.sort_unstable();
            list.dedup();
        }
        keep_one(&mut rotations);
        Self { slots, inputs: input.elements(), outputs, rotations }
    }

    /// Number of diagonals.
    pub fn products(&self) -> usize {
        self.rotations.iter().map(Vec::len).sum()
    }
}

impl SlotMatrix for MoveMatrix {
    fn inputs(&self) -> usize {
        self.inputs.len()
    }

    fn outputs(&self) -> usize {
        self.outputs.len()
    }

    fn slots(&self) -> usize {
        self.slots
    }

    fn rotations(&self, output: usize, input: usize) -> &[u32] {
        &self.rotations[output * self.inputs.len() + input]
    }

    fn diagonal(&self, output: usize, input: usize, rotation: u32, values: &mut [f64]) {
        let (wrapped, straight) = self.inputs[input].split_at(rotation as usize % self.slots);
        let sources = straight.iter().chain(wrapped);
        for ((value, to), from) in values.iter_mut().zip(&self.outputs[output]).zip(sources) {
            *value = match to {
                Some((source, factor)) if *from == Some(*source) => *factor,
                _ => 0.0,
            };
        }
    }
}

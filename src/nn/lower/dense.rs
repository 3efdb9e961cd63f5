//! Linear layers by hybrid diagonals, and moving a tensor from one layout to another.

use super::rotations::ConvRotations;
use crate::circuits::SlotMatrix;
use crate::nn::layout::{Layout, Place};
use crate::nn::model::Window;
use rayon::prelude::*;
use std::sync::{Arc, OnceLock};

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
    pub(super) fn new(weights: Arc<DenseWeights>, input: &Layout) -> Self {
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
                // Rotation d is empty if no slot j with j mod block < valid has an element at j + d. After a pooling whole shards may be.
                let any = shard.iter().any(Option::is_some);
                let used = (0..block).filter(|d| {
                    (valid == block && any)
                        || shard.iter().enumerate().any(|(s, e)| e.is_some() && (s + slots - d) % slots % block < valid)
                });
                rotations.push(used.map(|d| d as u32).collect());
            }
        }
        let mut matrix = Self { weights, slots, block, outputs, elements, rotations };
        if matrix.weights.weight.contains(&0.0) {
            matrix.rotations = matrix.nonzero_rotations();
            keep_one(&mut matrix.rotations);
        }
        matrix
    }

    /// A value for each output wherever the output stands: slot vectors `[shard][slot]`.
    pub(super) fn copies(&self, values: &[f64]) -> Vec<Vec<f64>> {
        let shard =
            |o: usize| (0..self.slots).map(|s| values.get(o * self.block + s % self.block).copied().unwrap_or(0.0)).collect();
        (0..self.outputs).map(shard).collect()
    }

    /// The rotations of each block whose diagonal is not all zero: weights that are zero may leave some empty. Looks no further than the
    /// first that is not.
    fn nonzero_rotations(&self) -> Vec<Vec<u32>> {
        let inputs = self.elements.len();
        let kept = self.rotations.par_iter().enumerate().map(|(block, rotations)| {
            let (output, elements) = (block / inputs, &self.elements[block % inputs]);
            let any = |r: &u32| (0..self.slots).any(|slot| self.value(output, elements, *r as usize, slot) != 0.0);
            rotations.iter().copied().filter(any).collect()
        });
        kept.collect()
    }

    /// What stands in a slot of a diagonal.
    fn value(&self, output: usize, elements: &[Option<u32>], rotation: usize, slot: usize) -> f64 {
        let DenseWeights { weight, columns, repeat } = &*self.weights;
        let row = output * self.block + slot % self.block;
        match elements[(slot + rotation) % self.slots] {
            Some(e) if row < self.weights.rows() => weight[row * columns + e as usize / repeat],
            _ => 0.0,
        }
    }

    /// The rotations to be added up afterwards.
    pub(super) fn rotate_sums(&self) -> Vec<usize> {
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
        let elements = &self.elements[input];
        values.iter_mut().enumerate().for_each(|(slot, value)| *value = self.value(output, elements, rotation as usize, slot));
    }
}

/// A matrix of zeros keeps one diagonal: circuits take no empty matrix, and the bias still has to be added to something.
pub(super) fn keep_one(rotations: &mut [Vec<u32>]) {
    if rotations.iter().all(Vec::is_empty) {
        rotations[0].push(0);
    }
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
    input: Layout,
    output: Layout,
    /// None where the tensor stays the same.
    moves: Option<Arc<Moves>>,
    /// Made for the first diagonal: planning asks for none.
    places: OnceLock<Places>,
    rotations: Vec<Vec<u32>>,
}

/// What stands in the slots.
struct Places {
    /// Flat element per slot, `[shard][slot]`.
    inputs: Vec<Vec<Option<u32>>>,
    /// The operand's element that each slot of the result takes, and its factor, `[shard][slot]`.
    outputs: Vec<Vec<Option<(u32, f64)>>>,
}

impl std::fmt::Debug for MoveMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let products: usize = self.rotations.iter().map(Vec::len).sum();
        write!(f, "MoveMatrix({} -> {} shards, {products} diagonals)", self.input.shards(), self.output.shards())
    }
}

impl Moves {
    /// The operand's element that an element takes, and its factor.
    fn source(moves: Option<&Self>, element: usize) -> Option<(u32, f64)> {
        let taken = moves.map_or(Some((element as u32, 1.0)), |moves| moves.sources[element]);
        taken.filter(|(_, factor)| *factor != 0.0)
    }

    /// What they are known by: each element's source.
    pub(super) fn digest(&self) -> [u8; 32] {
        let source = |element| Self::source(Some(self), element).map_or(u32::MAX, |(from, _)| from);
        let sources: Vec<u32> = (0..self.sources.len()).map(source).collect();
        *blake3::hash(bytemuck::cast_slice(&sources)).as_bytes()
    }
}

impl MoveMatrix {
    /// The same tensor from layout `input` to layout `output`. The tensors may differ in shape, not in the order of their
    /// elements.
    pub(super) fn new(input: &Layout, output: &Layout) -> Self {
        Self::of(None, input, output)
    }

    /// A tensor in layout `output` from one in layout `input`.
    pub(super) fn rearranged(moves: Arc<Moves>, input: &Layout, output: &Layout) -> Self {
        Self::of(Some(moves), input, output)
    }

    fn of(moves: Option<Arc<Moves>>, input: &Layout, output: &Layout) -> Self {
        let rotations = rotations(moves.as_deref(), input, output);
        Self { input: input.clone(), output: output.clone(), moves, places: OnceLock::new(), rotations }
    }

    /// The number of diagonals of a move.
    pub(super) fn products(moves: Option<&Moves>, input: &Layout, output: &Layout) -> usize {
        rotations(moves, input, output).iter().map(Vec::len).sum()
    }

    fn places(&self) -> &Places {
        self.places.get_or_init(|| {
            let mut outputs = vec![vec![None; self.output.slots()]; self.output.shards()];
            self.output.for_each(|i, to| outputs[to.shard][to.slot] = Moves::source(self.moves.as_deref(), i));
            Places { inputs: self.input.elements(), outputs }
        })
    }
}

/// The rotations of a move, `[output shard * input shards + input shard]`, each ascending.
fn rotations(moves: Option<&Moves>, input: &Layout, output: &Layout) -> Vec<Vec<u32>> {
    let slots = input.slots();
    let mut rotations: Vec<Vec<u32>> = if moves.is_none() && input.shape() == output.shape() {
        // Each coordinate moves whatever the others are: as in a convolution of single pixels and channels.
        let pixel = Window { kernel: [1, 1], stride: [1, 1], padding: [0; 4], dilation: [1, 1] };
        ConvRotations::new(input, output, &pixel, input.shape().channels).into_lists()
    } else {
        let mut places = vec![Place::default(); input.shape().len()];
        input.for_each(|i, place| places[i] = place);
        // Moves are sparse, and neighbours mostly move alike: lists, not a flag for every rotation of every pair of shards.
        let mut rotations = vec![Vec::new(); output.shards() * input.shards()];
        output.for_each(|i, to| {
            let Some((from, _)) = Moves::source(moves, i) else { return };
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
        rotations
    };
    keep_one(&mut rotations);
    rotations
}

impl SlotMatrix for MoveMatrix {
    fn inputs(&self) -> usize {
        self.input.shards()
    }

    fn outputs(&self) -> usize {
        self.output.shards()
    }

    fn slots(&self) -> usize {
        self.input.slots()
    }

    fn rotations(&self, output: usize, input: usize) -> &[u32] {
        &self.rotations[output * self.input.shards() + input]
    }

    fn diagonal(&self, output: usize, input: usize, rotation: u32, values: &mut [f64]) {
        let Places { inputs, outputs } = self.places();
        let (wrapped, straight) = inputs[input].split_at(rotation as usize % self.slots());
        let sources = straight.iter().chain(wrapped);
        for ((value, to), from) in values.iter_mut().zip(&outputs[output]).zip(sources) {
            *value = match to {
                Some((source, factor)) if *from == Some(*source) => *factor,
                _ => 0.0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::tensor::Shape;

    /// Coordinate by coordinate and element by element.
    #[test]
    fn the_rotations_of_a_move_are_those_of_its_elements() {
        let shape = Shape::new(6, 8, 8);
        let all = |e: usize| Some((e as u32, 1.0));
        let moves = Moves { sources: (0..shape.len()).map(all).collect(), stride: [1, 1] };
        let layouts: Vec<Layout> =
            [64, 256, 1024].iter().flat_map(|slots| crate::nn::lower::placement::more_inputs(shape, *slots, [2, 2])).collect();
        assert!(layouts.len() > 6, "{} layouts", layouts.len());
        for from in &layouts {
            for to in layouts.iter().filter(|to| to.slots() == from.slots()) {
                assert_eq!(rotations(None, from, to), rotations(Some(&moves), from, to), "{from} to {to}");
            }
        }
    }
}

//! The choice of layouts: the cheapest assignment found by a beam search over the steps.

use super::algebra::{Logical, LogicalStep};
use super::conv_matrix::{ConvMatrix, ConvWeights};
use super::cost::{ConvCounts, Units};
use super::dense::{MoveMatrix, Moves};
use super::rotations::ConvRotations;
use super::{Layouts, LowerError, placement};
use crate::nn::layout::Layout;
use crate::nn::model::Window;
use crate::nn::tensor::Shape;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Most shards of one value. A shard is megabytes of ciphertext, and a layer may have a block for any two.
const MAX_SHARDS: usize = 1024;
/// Times dearer a move is that makes the whole program deeper by a level.
const CRITICAL_MOVE: usize = 50;
/// States kept after each step.
const BEAM: usize = 48;
/// The layout of every value, and what moves between layouts where two operands differ.
#[derive(Clone)]
pub(super) struct Assignment {
    /// Layout of each value; 0 is the input.
    pub layouts: Vec<Arc<Layout>>,
    /// Steps with one operand (of [`Logical::operands`]) that must first be moved to the layout of the other.
    pub moved: Vec<(usize, usize)>,
    /// Sum of estimates.
    cost: usize,
}

/// What an estimate depends on: both layouts, the window, the groups and the limbs.
type Key = (Arc<Layout>, Arc<Layout>, Window, usize, Units);
/// What the counts behind it depend on.
type Pair = (Arc<Layout>, Arc<Layout>, Window, usize);

/// What lowering has counted of pairs of layouts. Networks that differ in their activations alone have the same pairs, and counting them
/// is most of the search: shared by all that are lowered with clones of the same options.
#[derive(Debug, Clone, Default)]
pub struct Counted(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    convolutions: Mutex<HashMap<Pair, Arc<ConvCounts>>>,
    /// Diagonals of moves between two layouts.
    moves: Mutex<HashMap<FromTo, usize>>,
    /// Rotations of convolutions whose weights are zero at certain places.
    rotations: Mutex<HashMap<(Pair, Zeros), Rotations>>,
}

/// Two layouts of one tensor.
type FromTo = (Arc<Layout>, Arc<Layout>);
/// Digest of where weights are zero, none if none is.
type Zeros = Option<[u8; 32]>;
/// `[output shard * input shards + input shard]`.
type Rotations = Arc<Vec<Vec<u32>>>;

/// What is known by a key, found out where it is not.
fn known<K: Eq + Hash + Clone, V: Clone>(all: &Mutex<HashMap<K, V>>, key: &K, find: impl FnOnce() -> V) -> V {
    let lock = || all.lock().unwrap_or_else(PoisonError::into_inner);
    let found = lock().get(key).cloned();
    found.unwrap_or_else(|| {
        let found = find();
        lock().entry(key.clone()).or_insert(found).clone()
    })
}

impl Counted {
    fn of(&self, pair: &Pair) -> Arc<ConvCounts> {
        known(&self.0.convolutions, pair, || Arc::new(ConvCounts::of(&ConvRotations::new(&pair.0, &pair.1, &pair.2, pair.3))))
    }

    fn move_products(&self, from: &Arc<Layout>, to: &Arc<Layout>) -> usize {
        known(&self.0.moves, &(from.clone(), to.clone()), || MoveMatrix::products(None, from, to))
    }

    /// [`ConvMatrix::rotations_of`].
    pub(super) fn rotations(&self, weights: &Arc<ConvWeights>, from: &Arc<Layout>, to: &Arc<Layout>) -> Rotations {
        let zeros = weights.weight.contains(&0.0).then(|| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&(weights.weight.len() as u64).to_le_bytes());
            for part in weights.weight.chunks(64) {
                let bits = part.iter().fold(0u64, |bits, w| bits << 1 | u64::from(*w == 0.0));
                hasher.update(&bits.to_le_bytes());
            }
            *hasher.finalize().as_bytes()
        });
        let key = ((from.clone(), to.clone(), weights.window, weights.groups), zeros);
        known(&self.0.rotations, &key, || ConvMatrix::rotations_of(weights, from, to))
    }
}

/// Finds layouts for all values: `choice` says which may be tried.
pub(super) fn assign(
    shape: Shape,
    steps: &[LogicalStep],
    slots: usize,
    (choice, known): (Layouts, &Counted),
) -> Result<Assignment, LowerError> {
    let mut counted: HashMap<Key, usize> = HashMap::new();
    let units: Vec<Units> = levels_to_come(steps).into_iter().map(Units::with_levels).collect();
    let (last_reads, depths) = (last_reads(steps), depths(steps));
    let too_many = |shape: Shape| {
        let shards = shape.len().div_ceil(slots.max(1));
        Err(LowerError::TooManyShards { shape, slots, shards, limit: MAX_SHARDS })
    };
    // The number of shards is known to be bounded before any layout is built.
    let widest = steps.iter().map(|s| s.shape).chain([shape]).max_by_key(|s| s.len()).unwrap_or(shape);
    if widest.len().div_ceil(slots.max(1)) > MAX_SHARDS {
        return too_many(widest);
    }
    let mut inputs = placement::inputs(shape, slots, total_stride(steps));
    inputs.retain(|l| l.shards() <= MAX_SHARDS);
    if inputs.is_empty() {
        Layout::row_major(shape, slots)?;
        return too_many(shape);
    }
    if choice == Layouts::Multiplexed {
        inputs.truncate(1);
    }
    let start = |layout: Layout| Assignment {
        cost: units[0].shard() * layout.shards(),
        layouts: vec![Arc::new(layout)],
        moved: Vec::new(),
    };
    let mut beam: Vec<Assignment> = inputs.into_iter().map(start).collect();
    for (i, step) in steps.iter().enumerate() {
        let mut next: Vec<(Assignment, Arc<Layout>)> = Vec::new();
        match &step.operation {
            Logical::Conv { input, weights, .. } => {
                for state in beam {
                    for layout in candidates(&state, *input, step, weights, choice) {
                        next.push((state.clone(), layout));
                    }
                }
                next.retain(|(_, layout)| layout.shards() <= MAX_SHARDS);
                count((&mut counted, known), &next, *input, weights, units[*input]);
                for (state, layout) in &mut next {
                    let key = (state.layouts[*input].clone(), layout.clone(), weights.window, weights.groups, units[*input]);
                    state.cost += counted.get(&key).copied().unwrap_or(0);
                }
            }
            Logical::Move { input, moves, .. } => {
                let mut products: HashMap<(Arc<Layout>, Arc<Layout>), usize> = HashMap::new();
                for state in beam {
                    let from = &state.layouts[*input];
                    for layout in moved_to(&state, *input, step, moves, choice) {
                        let count = products
                            .entry((from.clone(), layout.clone()))
                            .or_insert_with(|| MoveMatrix::products(Some(moves), from, &layout));
                        let cost = state.cost + units[*input].matrix(*count);
                        next.push((Assignment { cost, ..state.clone() }, layout));
                    }
                }
            }
            Logical::Dense { weights, .. } => {
                let layout = Arc::new(Layout::vector(weights.weight.len() / weights.columns, slots)?);
                next.extend(beam.into_iter().map(|state| (state, layout.clone())));
            }
            Logical::Square { input } | Logical::Polynomial { input, .. } | Logical::Affine { input, .. } => {
                next.extend(beam.into_iter().map(|state| {
                    let layout = state.layouts[*input].clone();
                    (state, layout)
                }));
            }
            Logical::Add { a, b } | Logical::Multiply { a, b } => {
                // A move takes a level: the operand that has one to spare is moved, if there is such a one.
                let moved = usize::from(depths[*a] >= depths[*b]);
                let price = if depths[*a] == depths[*b] { CRITICAL_MOVE } else { 1 };
                for mut state in beam {
                    let operands = [*a, *b].map(|v| state.layouts[v].clone());
                    let (from, to) = (&operands[moved], &operands[1 - moved]);
                    if to != from {
                        let products = known.move_products(from, to);
                        state.cost += price * units[[*a, *b][moved]].matrix(products);
                        state.moved.push((i, moved));
                    }
                    next.push((state, to.clone()));
                }
            }
        }
        next.retain(|(_, layout)| layout.shards() <= MAX_SHARDS);
        if next.is_empty() {
            return too_many(step.shape);
        }
        beam = next
            .into_iter()
            .map(|(mut state, layout)| {
                state.cost += units[i + 1].shard() * layout.shards();
                state.layouts.push(layout);
                state
            })
            .collect();
        beam.sort_by_key(|s| s.cost);
        // What is still to be read decides what comes: of states that agree there, the cheapest is enough.
        let mut seen = HashSet::new();
        beam.retain(|s| {
            let live: Vec<Arc<Layout>> = (0..=i + 1).filter(|v| last_reads[*v] > i).map(|v| s.layouts[v].clone()).collect();
            seen.insert(live)
        });
        beam.truncate(BEAM);
    }
    beam.into_iter().next().map_or_else(|| too_many(shape), Ok)
}

/// Layouts to try for a convolution: those placed by its operand, and those of earlier values of the same shape, which a
/// residual sum may need.
fn candidates(state: &Assignment, input: usize, step: &LogicalStep, weights: &ConvWeights, choice: Layouts) -> Vec<Arc<Layout>> {
    let from = &state.layouts[input];
    let mut layouts: Vec<Arc<Layout>> =
        placement::outputs(from, step.shape, &weights.window, weights.groups).into_iter().map(Arc::new).collect();
    if choice == Layouts::Multiplexed {
        layouts.truncate(1);
    } else if !layouts.contains(from) && from.shape() == step.shape {
        layouts.push(from.clone());
    }
    layouts
}

/// Layouts to try where elements are moved: those placed by the operand, and those of other values of the same shape, to which
/// the result may be added.
fn moved_to(state: &Assignment, input: usize, step: &LogicalStep, moves: &Moves, choice: Layouts) -> Vec<Arc<Layout>> {
    let window = Window { kernel: [1, 1], stride: moves.stride, padding: [0; 4], dilation: [1, 1] };
    let mut layouts: Vec<Arc<Layout>> =
        placement::outputs(&state.layouts[input], step.shape, &window, 1).into_iter().map(Arc::new).collect();
    if choice == Layouts::Multiplexed {
        layouts.truncate(1);
    }
    for layout in state.layouts.iter().filter(|l| l.shape() == step.shape) {
        if !layouts.contains(layout) {
            layouts.push(layout.clone());
        }
    }
    layouts.retain(|l| l.shards() <= MAX_SHARDS);
    layouts
}

/// Estimates all new pairs of layouts, in parallel.
fn count(
    (counted, known): (&mut HashMap<Key, usize>, &Counted),
    states: &[(Assignment, Arc<Layout>)],
    input: usize,
    weights: &ConvWeights,
    units: Units,
) {
    let mut fresh: Vec<Key> = Vec::new();
    for (state, layout) in states {
        let key = (state.layouts[input].clone(), layout.clone(), weights.window, weights.groups, units);
        if !counted.contains_key(&key) && !fresh.contains(&key) {
            fresh.push(key);
        }
    }
    let products = fresh.into_par_iter().map(|key| {
        let (from, to, window, groups, units) = key;
        let pair = (from, to, window, groups);
        let cost = units.conv(&known.of(&pair));
        ((pair.0, pair.1, window, groups, units), cost)
    });
    counted.extend(products.collect::<Vec<_>>());
}

/// By how much the pixels thin out on the way through the network, at most: what the input's room is rounded up to.
fn total_stride(steps: &[LogicalStep]) -> [usize; 2] {
    let mut strides = vec![[1usize; 2]];
    for step in steps {
        let [y, x] = strides[step.operation.operands()[0]];
        strides.push(match &step.operation {
            Logical::Conv { weights, .. } => {
                let [down, right] = weights.window.stride;
                [y.saturating_mul(down), x.saturating_mul(right)]
            }
            Logical::Move { moves, .. } => [y.saturating_mul(moves.stride[0]), x.saturating_mul(moves.stride[1])],
            _ => [y, x],
        });
    }
    // Beyond this, rounding up costs more than it saves.
    [0, 1].map(|axis| strides.iter().map(|s| s[axis]).filter(|s| *s <= 64).max().unwrap_or(1))
}

impl Logical {
    /// The operands; of a single one, twice.
    fn operands(&self) -> [usize; 2] {
        match self {
            Self::Conv { input, .. } | Self::Move { input, .. } | Self::Dense { input, .. } | Self::Square { input } => {
                [*input; 2]
            }
            Self::Polynomial { input, .. } | Self::Affine { input, .. } => [*input; 2],
            Self::Add { a, b } | Self::Multiply { a, b } => [*a, *b],
        }
    }

    /// Levels used.
    fn levels(&self) -> usize {
        match self {
            Self::Conv { .. } | Self::Move { .. } | Self::Dense { .. } | Self::Square { .. } | Self::Multiply { .. } => 1,
            Self::Polynomial { polynomial, .. } => polynomial.depth(),
            Self::Affine { factor, .. } => usize::from(factor.is_some()),
            Self::Add { .. } => 0,
        }
    }
}

/// The last step that reads each value; the last value counts as read at the end.
fn last_reads(steps: &[LogicalStep]) -> Vec<usize> {
    let mut reads = vec![0; steps.len() + 1];
    for (i, step) in steps.iter().enumerate() {
        step.operation.operands().iter().for_each(|v| reads[*v] = i);
    }
    reads[steps.len()] = steps.len();
    reads
}

/// Levels used up to each value.
pub(super) fn depths(steps: &[LogicalStep]) -> Vec<usize> {
    let mut depths = vec![0];
    for step in steps {
        let [a, b] = step.operation.operands();
        depths.push(depths[a].max(depths[b]) + step.operation.levels());
    }
    depths
}

/// Levels used after each value, at most.
fn levels_to_come(steps: &[LogicalStep]) -> Vec<usize> {
    let mut to_come = vec![0; steps.len() + 1];
    for (i, step) in steps.iter().enumerate().rev() {
        let levels = to_come[i + 1] + step.operation.levels();
        step.operation.operands().iter().for_each(|v| to_come[*v] = to_come[*v].max(levels));
    }
    to_come
}

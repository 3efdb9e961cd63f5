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
/// States kept beyond those, of each layout of the input: what makes the first layers dearer may make all others cheaper.
const OF_EACH_INPUT: usize = 2;
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

impl Assignment {
    /// Layouts that were found before, or came in a file.
    pub(super) fn of_kept(
        shape: Shape,
        steps: &[LogicalStep],
        slots: usize,
        layouts: Vec<Arc<Layout>>,
    ) -> Result<Self, LowerError> {
        let refused = |step: usize, reason| {
            let layer = step.checked_sub(1).and_then(|i| steps.get(i)).map_or("input", |s| &s.layer).to_owned();
            Err(LowerError::KeptLayouts { layer, reason })
        };
        if layouts.len() != steps.len() + 1 {
            return refused(layouts.len().min(steps.len()), "there is not one layout for each value");
        }
        let shapes = std::iter::once(shape).chain(steps.iter().map(|s| s.shape));
        for (i, (layout, shape)) in layouts.iter().zip(shapes).enumerate() {
            if layout.shape() != shape || layout.slots() != slots || layout.shards() > MAX_SHARDS {
                return refused(i, "its layout is for another shape, for other slots, or has too many shards");
            }
        }
        let depths = depths(steps);
        let mut moved = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            let (made, [a, b]) = (&layouts[i + 1], step.operation.operands());
            let fits = match &step.operation {
                Logical::Conv { .. } | Logical::Move { .. } => true,
                Logical::Dense { weights, .. } => {
                    *made.as_ref() == Layout::vector(weights.weight.len() / weights.columns, slots)?
                }
                Logical::Square { .. } | Logical::Polynomial { .. } | Logical::Affine { .. } => *made == layouts[a],
                Logical::Add { .. } | Logical::Multiply { .. } => {
                    let which = moved_operand(&depths, [a, b]);
                    if layouts[a] != layouts[b] {
                        moved.push((i, which));
                    }
                    *made == layouts[[a, b][1 - which]]
                }
            };
            if !fits {
                return refused(i + 1, "its layout is not the one that it comes with");
            }
        }
        Ok(Self { layouts, moved, cost: 0 })
    }
}

/// Which operand of a sum or a product is moved where they lie differently. A move takes a level: the one that has one to spare, if there
/// is such a one.
fn moved_operand(depths: &[usize], [a, b]: [usize; 2]) -> usize {
    usize::from(depths[a] >= depths[b])
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
    /// Diagonals of moves between two layouts; of a tensor that stays the same, or by the digest of what moves.
    moves: Mutex<HashMap<(FromTo, Moved), usize>>,
    /// Rotations of convolutions whose weights are zero at certain places.
    rotations: Mutex<HashMap<(Pair, Zeros), Rotations>>,
}

/// Two layouts of one tensor.
type FromTo = (Arc<Layout>, Arc<Layout>);
/// Digest of what moves, none where the tensor stays the same.
type Moved = Option<[u8; 32]>;
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

    /// `moves`: with their digest; none where the tensor stays the same.
    fn move_products(&self, moves: Option<(&Moves, [u8; 32])>, from: &Arc<Layout>, to: &Arc<Layout>) -> usize {
        let key = ((from.clone(), to.clone()), moves.map(|(_, digest)| digest));
        known(&self.0.moves, &key, || MoveMatrix::products(moves.map(|(moves, _)| moves), from, to))
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
    let (last_reads, depths) = (last_reads(steps), depths(steps));
    let refreshed = matches!(choice, Layouts::Bootstrapped { levels } if depths.iter().any(|depth| *depth > levels));
    let units: Vec<Units> = match refreshed {
        true => fresh(steps).into_iter().map(|fresh| if fresh { Units::FRESH } else { Units::REFRESHED }).collect(),
        false => levels_to_come(steps).into_iter().map(Units::with_levels).collect(),
    };
    let too_many = |shape: Shape| {
        let shards = shape.len().div_ceil(slots.max(1));
        Err(LowerError::TooManyShards { shape, slots, shards, limit: MAX_SHARDS })
    };
    // The number of shards is known to be bounded before any layout is built.
    let widest = steps.iter().map(|s| s.shape).chain([shape]).max_by_key(|s| s.len()).unwrap_or(shape);
    if widest.len().div_ceil(slots.max(1)) > MAX_SHARDS {
        return too_many(widest);
    }
    let inputs = if refreshed { placement::more_inputs } else { placement::inputs };
    let mut inputs = inputs(shape, slots, total_stride(steps));
    inputs.retain(|l| l.shards() <= MAX_SHARDS);
    if inputs.is_empty() {
        Layout::row_major(shape, slots)?;
        return too_many(shape);
    }
    if choice == Layouts::Multiplexed {
        inputs.truncate(1);
    }
    let start = |layout: Layout| Assignment {
        cost: units[0].shard(0) * layout.shards(),
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
                let digest = moves.digest();
                for state in beam {
                    let from = &state.layouts[*input];
                    for layout in moved_to(&state, *input, step, moves, choice) {
                        let count = known.move_products(Some((moves, digest)), from, &layout);
                        let cost = state.cost + units[*input].matrix(count);
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
                let moved = moved_operand(&depths, [*a, *b]);
                let price = if depths[*a] == depths[*b] { CRITICAL_MOVE } else { 1 };
                for mut state in beam {
                    let operands = [*a, *b].map(|v| state.layouts[v].clone());
                    let (from, to) = (&operands[moved], &operands[1 - moved]);
                    if to != from {
                        let products = known.move_products(None, from, to);
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
                state.cost += units[i + 1].shard(step.operation.levels()) * layout.shards();
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
        let mut of_input: HashMap<Arc<Layout>, usize> = HashMap::new();
        let mut rank = 0;
        beam.retain(|s| {
            let own = of_input.entry(s.layouts[0].clone()).or_default();
            (rank, *own) = (rank + 1, *own + 1);
            rank <= BEAM || (refreshed && *own <= OF_EACH_INPUT)
        });
    }
    beam.into_iter().next().map_or_else(|| too_many(shape), Ok)
}

/// Layouts to try for a convolution: those placed by its operand, and those of earlier values of the same shape, which a
/// residual sum may need.
fn candidates(state: &Assignment, input: usize, step: &LogicalStep, weights: &ConvWeights, choice: Layouts) -> Vec<Arc<Layout>> {
    let from = &state.layouts[input];
    let mut layouts = placed(from, step.shape, &weights.window, weights.groups, choice);
    if choice == Layouts::Multiplexed {
        layouts.truncate(1);
    } else if !layouts.contains(from) && from.shape() == step.shape {
        layouts.push(from.clone());
    }
    layouts
}

/// Those that [`placement::outputs`] proposes.
fn placed(from: &Layout, shape: Shape, window: &Window, groups: usize, choice: Layouts) -> Vec<Arc<Layout>> {
    let layouts = placement::outputs(from, shape, window, groups).into_iter();
    match choice {
        Layouts::Bootstrapped { .. } => layouts.map(|layout| Arc::new(placement::trimmed(&layout))).collect(),
        _ => layouts.map(Arc::new).collect(),
    }
}

/// Layouts to try where elements are moved: those placed by the operand, and those of other values of the same shape, to which
/// the result may be added.
fn moved_to(state: &Assignment, input: usize, step: &LogicalStep, moves: &Moves, choice: Layouts) -> Vec<Arc<Layout>> {
    let window = Window { kernel: [1, 1], stride: moves.stride, padding: [0; 4], dilation: [1, 1] };
    let mut layouts = placed(&state.layouts[input], step.shape, &window, 1, choice);
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

/// Whether each value is made of the input by matrices and sums alone. What comes after them has all the levels that an activation takes:
/// so have they.
fn fresh(steps: &[LogicalStep]) -> Vec<bool> {
    let mut fresh = vec![true];
    for step in steps {
        let [a, b] = step.operation.operands();
        let linear = !matches!(step.operation, Logical::Polynomial { .. } | Logical::Square { .. } | Logical::Multiply { .. });
        fresh.push(linear && fresh[a] && fresh[b]);
    }
    fresh
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

//! The choice of layouts: the cheapest assignment found by a beam search over the steps.

use super::algebra::{Logical, LogicalStep};
use super::conv_matrix::ConvWeights;
use super::dense::MoveMatrix;
use super::rotations::ConvRotations;
use super::{LowerError, placement};
use crate::nn::layout::Layout;
use crate::nn::model::Window;
use crate::nn::tensor::Shape;
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// States kept after each step.
const BEAM: usize = 12;
/// Cost of one shard of one value, in products: its squaring, relinearization and giant rotations.
const SHARD_COST: usize = 24;
/// Cost of a level spent on moving a tensor between layouts, in products.
const MOVE_COST: usize = 2000;

/// The layout of every value, and what moves between layouts where two operands differ.
#[derive(Clone)]
pub(super) struct Assignment {
    /// Layout of each value; 0 is the input.
    pub layouts: Vec<Arc<Layout>>,
    /// Steps whose second operand must first be moved to the layout of the first.
    pub moved: Vec<usize>,
    cost: usize,
}

type Key = (Arc<Layout>, Arc<Layout>, Window, usize);

/// Finds layouts for all values.
pub(super) fn assign(shape: Shape, steps: &[LogicalStep], slots: usize) -> Result<Assignment, LowerError> {
    let mut counted: HashMap<Key, usize> = HashMap::new();
    let inputs = placement::inputs(shape, slots, total_stride(steps));
    if inputs.is_empty() {
        Layout::row_major(shape, slots)?;
    }
    let start =
        |layout: Layout| Assignment { cost: SHARD_COST * layout.shards(), layouts: vec![Arc::new(layout)], moved: Vec::new() };
    let mut beam: Vec<Assignment> = inputs.into_iter().map(start).collect();
    for (i, step) in steps.iter().enumerate() {
        let mut next: Vec<(Assignment, Arc<Layout>)> = Vec::new();
        match &step.operation {
            Logical::Conv { input, weights, .. } => {
                for state in beam {
                    for layout in candidates(&state, *input, step, weights) {
                        next.push((state.clone(), layout));
                    }
                }
                count(&mut counted, &next, *input, weights);
                for (state, layout) in &mut next {
                    let key = (state.layouts[*input].clone(), layout.clone(), weights.window, weights.groups);
                    state.cost += counted.get(&key).copied().unwrap_or(0);
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
                for mut state in beam {
                    let (to, from) = (state.layouts[*a].clone(), state.layouts[*b].clone());
                    if to != from {
                        state.cost += MOVE_COST + MoveMatrix::new(&from, &to).products();
                        state.moved.push(i);
                    }
                    next.push((state, to));
                }
            }
        }
        beam = next
            .into_iter()
            .map(|(mut state, layout)| {
                state.cost += SHARD_COST * layout.shards();
                state.layouts.push(layout);
                state
            })
            .collect();
        beam.sort_by_key(|s| s.cost);
        beam.truncate(BEAM);
    }
    beam.into_iter().next().ok_or(LowerError::NoLayout { shape, slots })
}

/// Layouts to try for a convolution: those placed by its operand, and those of earlier values of the same shape, which a
/// residual sum may need.
fn candidates(state: &Assignment, input: usize, step: &LogicalStep, weights: &ConvWeights) -> Vec<Arc<Layout>> {
    let from = &state.layouts[input];
    let mut layouts: Vec<Arc<Layout>> =
        placement::outputs(from, step.shape, &weights.window, weights.groups).into_iter().map(Arc::new).collect();
    if !layouts.contains(from) && from.shape() == step.shape {
        layouts.push(from.clone());
    }
    layouts
}

/// Counts the products of all new pairs of layouts, in parallel.
fn count(counted: &mut HashMap<Key, usize>, states: &[(Assignment, Arc<Layout>)], input: usize, weights: &ConvWeights) {
    let mut fresh: Vec<Key> = Vec::new();
    for (state, layout) in states {
        let key = (state.layouts[input].clone(), layout.clone(), weights.window, weights.groups);
        if !counted.contains_key(&key) && !fresh.contains(&key) {
            fresh.push(key);
        }
    }
    let products = fresh.into_par_iter().map(|key| {
        let rotations = ConvRotations::new(&key.0, &key.1, &key.2, key.3);
        (key, rotations.products())
    });
    counted.extend(products.collect::<Vec<_>>());
}

/// By how much the pixels thin out on the way through the network, at most: what the input's room is rounded up to.
fn total_stride(steps: &[LogicalStep]) -> [usize; 2] {
    let mut strides = vec![[1usize; 2]];
    for step in steps {
        let of = |v: &usize| strides[*v];
        let next = match &step.operation {
            Logical::Conv { input, weights, .. } => {
                let [y, x] = of(input);
                [y.saturating_mul(weights.window.stride[0]), x.saturating_mul(weights.window.stride[1])]
            }
            Logical::Dense { input, .. } | Logical::Square { input } => of(input),
            Logical::Polynomial { input, .. } | Logical::Affine { input, .. } => of(input),
            Logical::Add { a, .. } | Logical::Multiply { a, .. } => of(a),
        };
        strides.push(next);
    }
    // Beyond this, rounding up costs more than it saves.
    [0, 1].map(|axis| strides.iter().map(|s| s[axis]).filter(|s| *s <= 64).max().unwrap_or(1))
}

//! Lowering: a model becomes a [`Program`] of slot matrices, squares and sums for shards of a given number of slots.
//!
//! 1. `algebra` turns the model into steps on tensors, with batch normalisation, scales and constants folded away;
//! 2. `search` chooses a layout for each value (`placement` proposes them, `rotations` and `cost` estimate what they cost);
//! 3. here the steps become matrices between those layouts.
//!
//! An unused slot may hold anything: no diagonal reads one, because a diagonal is zero wherever its slot, or the slot it
//! reads, has no element.

mod algebra;
mod conv_matrix;
mod cost;
mod dense;
mod placement;
mod rotations;
mod search;

use super::layout::{Layout, LayoutError};
use super::model::Model;
use super::tensor::{Element, Shape, Tensor};
use crate::plan::interleave;
use crate::plan::program::{Operation, Program, SlotVectors, Step, ValueId};
use algebra::Logical;
use conv_matrix::ConvMatrix;
use dense::{DenseMatrix, MoveMatrix};
pub use search::Counted;
use std::collections::HashMap;
use std::sync::Arc;

/// Why a model cannot become a program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LowerError {
    /// A polynomial of degree 3 or more whose input range is not known.
    #[error("node {node:?}: the range of its input is not known; measure it on some pictures and pass it in the options")]
    RangeUnknown {
        /// Which node.
        node: String,
    },
    /// Activations that are not polynomials: all of them.
    #[error(
        "{} activation{} no polynomial stands for yet: {}; fit {} first (cipherlens compile)",
        .nodes.len(), if .nodes.len() == 1 { "" } else { "s" }, .nodes.join(", "), if .nodes.len() == 1 { "it" } else { "them" }
    )]
    NotFitted {
        /// Their nodes and functions.
        nodes: Vec<String>,
    },
    /// A polynomial that cannot be brought to its range.
    #[error("node {node:?}: {source}")]
    Polynomial {
        /// Which node.
        node: String,
        /// Why.
        source: crate::circuits::CircuitError,
    },
    /// A tensor that takes more shards than one value may have.
    #[error("{shape} takes {shards} shards of {slots} slots or more, the limit is {limit}: take a preset with more slots")]
    TooManyShards {
        /// The tensor.
        shape: Shape,
        /// Slots of a shard.
        slots: usize,
        /// Shards it takes at least.
        shards: usize,
        /// The limit.
        limit: usize,
    },
    /// A layout that cannot be.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Layouts that are kept with a network and are not for it.
    #[error("layer {layer:?}: the layouts that are kept with the network are not for it: {reason}")]
    KeptLayouts {
        /// Which value: by the layer that makes it.
        layer: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// What lowering may be told.
#[derive(Debug, Clone, Default)]
pub struct LowerOptions {
    /// Largest magnitude that each polynomial of degree 3 or more is fed, by node name. Absent ones come from what the
    /// training noted, with a quarter added.
    pub ranges: HashMap<String, f64>,
    /// Which layouts may be chosen.
    pub layouts: Layouts,
    /// Layouts that were chosen before ([`Lowered::chosen`]): taken as they are.
    pub kept: Option<Vec<Arc<Layout>>>,
    /// What was counted before, with these options or those they were cloned from.
    pub counted: Counted,
}

/// Which layouts lowering may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Layouts {
    /// Whatever takes the least work, by estimate.
    #[default]
    Cheapest,
    /// A row-major input, and channels in the gaps that strides leave.
    Multiplexed,
    /// As [`Self::Cheapest`], but of a network that takes more than so many levels, whatever takes the least work where values are
    /// bootstrapped. Who encrypts for it must be told the layout: it may change from version to version.
    Bootstrapped {
        /// Levels that there are without a bootstrap.
        levels: usize,
    },
}

/// A program, and how to pack its input and read its output.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// The program.
    pub program: Program,
    /// Layout of the input.
    pub input: Layout,
    /// Layout of the output.
    pub output: Layout,
    /// Layout of every value of the program.
    pub layouts: Vec<Arc<Layout>>,
    /// What was chosen, or [kept](LowerOptions::kept): the layouts of the input and of every step that the network has before any
    /// operand is moved.
    pub chosen: Vec<Arc<Layout>>,
    /// Inputs that one run takes; the layouts are those of one of them.
    pub together: usize,
    /// What the result is divided by in the program: [`Model::output_divisor`].
    pub output_divisor: f64,
}

/// What one matrix of a program costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerCost {
    /// Layer name.
    pub layer: String,
    /// Shards read.
    pub inputs: usize,
    /// Shards made.
    pub outputs: usize,
    /// Diagonals: products with a plaintext.
    pub products: usize,
    /// Different rotations among them.
    pub rotations: usize,
    /// Products that would do if no diagonal had an empty slot: multiplications of the layer over slots, rounded up.
    pub floor: usize,
}

impl Lowered {
    /// For `count` inputs in one run, a power of two, on as many times the slots; see [`interleave`].
    pub fn interleaved(self, count: usize) -> Self {
        Self {
            program: if count == 1 { self.program } else { self.program.interleaved(count) },
            together: self.together * count,
            ..self
        }
    }

    /// Up to [`Self::together`] inputs as slot vectors `[shard][slot]`; slots without an element are 0.
    ///
    /// # Errors
    /// [`LayoutError::Inputs`] for none or too many, [`LayoutError::Shape`] for an input of another shape.
    pub fn pack<T: Element>(&self, inputs: &[Tensor<T>]) -> Result<Vec<Vec<f64>>, LayoutError> {
        if inputs.is_empty() || inputs.len() > self.together {
            return Err(LayoutError::Inputs { most: self.together, found: inputs.len() });
        }
        let packed = inputs.iter().map(|x| self.input.pack(x)).collect::<Result<Vec<_>, _>>()?;
        Ok(interleave::interleave(&packed, self.together))
    }

    /// The results of all [`Self::together`] inputs, from the slot vectors of the output, `[shard][slot]`; no longer divided.
    ///
    /// # Errors
    /// [`LayoutError::SlotVectors`] for other shards or slots than the output has.
    pub fn unpack(&self, shards: &[Vec<f64>]) -> Result<Vec<Tensor<f64>>, LayoutError> {
        let one = |i: usize| -> Result<Tensor<f64>, LayoutError> {
            let mut result = self.output.unpack(&interleave::part(shards, i, self.together))?;
            result.values_mut().iter_mut().for_each(|v| *v *= self.output_divisor);
            Ok(result)
        };
        (0..self.together).map(one).collect()
    }

    /// The cost of every matrix, in order; `model` is the one lowered.
    pub fn costs(&self, model: &Model) -> Vec<LayerCost> {
        let work: HashMap<&str, u128> = model.nodes().iter().map(|n| (n.name.as_str(), model.node_multiplications(n))).collect();
        let cost = |step: &Step| {
            let Operation::Linear { matrix, .. } = &step.operation else { return None };
            let (inputs, outputs) = (matrix.inputs(), matrix.outputs());
            let blocks: Vec<&[u32]> = (0..outputs * inputs).map(|b| matrix.rotations(b / inputs, b % inputs)).collect();
            let rotations: std::collections::BTreeSet<u32> = blocks.iter().flat_map(|r| r.iter().copied()).collect();
            Some(LayerCost {
                layer: step.layer.clone(),
                inputs,
                outputs,
                products: blocks.iter().map(|r| r.len()).sum(),
                rotations: rotations.len(),
                floor: work
                    .get(step.layer.as_str())
                    .map_or(0, |w| (w * self.together as u128).div_ceil(self.program.slots as u128) as usize),
            })
        };
        self.program.steps.iter().filter_map(cost).collect()
    }
}

/// The slots to lower a model for on a ring with `most`: the least power of two with which its widest tensor is one shard,
/// `most` if it takes several. Fewer slots make bootstrapping and moving cheaper.
pub fn fitting_slots(model: &Model, most: usize) -> usize {
    let widest = model.nodes().iter().map(|n| n.shape.len()).chain([model.input().shape.len()]).max().unwrap_or(1);
    widest.checked_next_power_of_two().map_or(most, |n| n.min(most))
}

/// The levels that a model takes at least: moves between layouts may take a few more. Cheap: no layout is searched.
///
/// # Errors
/// [`LowerError::NotFitted`], [`LowerError::RangeUnknown`], [`LowerError::Polynomial`] for a polynomial that cannot be brought to its
/// range.
pub fn least_depth(model: &Model, options: &LowerOptions) -> Result<usize, LowerError> {
    let (steps, output) = algebra::steps(model, &ranges(model, options))?;
    Ok(search::depths(&steps)[output])
}

fn ranges(model: &Model, options: &LowerOptions) -> HashMap<String, f64> {
    let mut ranges = options.ranges.clone();
    for (node, range) in model.training().numbers("max_abs_activation_input") {
        ranges.entry(node).or_insert(range * 1.25);
    }
    ranges
}

/// Lowers a model for shards of `slots` slots.
///
/// # Errors
/// As [`least_depth`]; [`LowerError::TooManyShards`], [`LowerError::Layout`] without slots or elements, and
/// [`LowerError::KeptLayouts`].
pub fn lower(model: &Model, slots: usize, options: &LowerOptions) -> Result<Lowered, LowerError> {
    let (steps, output) = algebra::steps(model, &ranges(model, options))?;
    let shape = model.input().shape;
    let assignment = match &options.kept {
        Some(kept) => search::Assignment::of_kept(shape, &steps, slots, kept.clone())?,
        None => search::assign(shape, &steps, slots, (options.layouts, &options.counted))?,
    };
    let bounds = algebra::bounds(&steps);
    let mut emitter = Emitter { steps: Vec::new(), layouts: vec![assignment.layouts[0].clone()] };
    // Value of the program that holds each value of the logical steps.
    let mut held = vec![ValueId(0)];
    for (i, step) in steps.iter().enumerate() {
        let from = |v: usize| (held[v], &*assignment.layouts[v]);
        let layout = &assignment.layouts[i + 1];
        let operation = match &step.operation {
            Logical::Conv { input, weights, bias } => {
                let rotations = options.counted.rotations(weights, &assignment.layouts[*input], layout);
                let (input, from) = from(*input);
                let matrix = Arc::new(ConvMatrix::new(weights.clone(), from, layout, rotations));
                Operation::Linear { input, matrix, rotate_sums: Vec::new(), bias: vectors(layout, bias) }
            }
            Logical::Move { input, moves, bias } => {
                let (input, from) = from(*input);
                let matrix = Arc::new(MoveMatrix::rearranged(moves.clone(), from, layout));
                Operation::Linear { input, matrix, rotate_sums: Vec::new(), bias: vectors(layout, bias) }
            }
            Logical::Dense { input, weights, bias } => {
                let (input, from) = from(*input);
                let matrix = DenseMatrix::new(weights.clone(), from);
                let rotate_sums = matrix.rotate_sums();
                // Every block holds a copy of the result; the bias goes to all, so that the copies stay equal.
                let bias = bias.iter().any(|b| *b != 0.0).then(|| Arc::new(matrix.copies(bias)));
                Operation::Linear { input, matrix: Arc::new(matrix), rotate_sums, bias }
            }
            Logical::Square { input } => Operation::Square { input: from(*input).0 },
            Logical::Polynomial { input, polynomial } => {
                Operation::Polynomial { input: from(*input).0, polynomial: polynomial.clone() }
            }
            Logical::Affine { input, factor, offset } => Operation::Affine {
                input: from(*input).0,
                factor: factor.as_ref().map(|f| filled(layout, f)),
                offset: offset.as_ref().and_then(|o| vectors(layout, o)),
            },
            Logical::Add { a, b } | Logical::Multiply { a, b } => {
                let mut operands = [*a, *b].map(|v| held[v]);
                if let Some((_, moved)) = assignment.moved.iter().find(|(step, _)| *step == i) {
                    let matrix = Arc::new(MoveMatrix::new(from([*a, *b][*moved]).1, layout));
                    let operation = Operation::Linear { input: operands[*moved], matrix, rotate_sums: Vec::new(), bias: None };
                    let bound = bounds[[*a, *b][*moved]];
                    operands[*moved] = emitter.push(&step.layer, operation, layout, bound);
                }
                let [a, b] = operands;
                match step.operation {
                    Logical::Multiply { .. } => Operation::Multiply { a, b },
                    _ => Operation::Add { a, b },
                }
            }
        };
        held.push(emitter.push(&step.layer, operation, layout, bounds[i + 1]));
    }
    let output = held[output];
    let Emitter { steps, layouts } = emitter;
    let program = Program { slots, input_shards: layouts[0].shards(), steps, output };
    let (input, result) = ((*layouts[0]).clone(), (*layouts[output.0]).clone());
    let chosen = assignment.layouts;
    Ok(Lowered { input, output: result, program, layouts, chosen, together: 1, output_divisor: model.output_divisor() })
}

struct Emitter {
    steps: Vec<Step>,
    layouts: Vec<Arc<Layout>>,
}

impl Emitter {
    fn push(&mut self, layer: &str, operation: Operation, layout: &Arc<Layout>, bound: Option<f64>) -> ValueId {
        self.steps.push(Step { layer: layer.to_owned(), operation, bound });
        self.layouts.push(layout.clone());
        ValueId(self.steps.len())
    }
}

/// One value per element as slot vectors.
fn filled(layout: &Layout, values: &[f64]) -> SlotVectors {
    Arc::new(layout.fill(|i| values[i]))
}

/// As [`filled`]; none if all are zero.
fn vectors(layout: &Layout, values: &[f64]) -> Option<SlotVectors> {
    values.iter().any(|v| *v != 0.0).then(|| filled(layout, values))
}

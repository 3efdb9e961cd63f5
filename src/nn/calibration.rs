//! What the activations of a network are fed, measured on pictures: ranges per channel and the distribution of the values.

use super::clear::{Network, Range};
use super::model::{ActivationFunction, Model};
use super::tensor::{ShapeMismatch, Tensor};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Bins of a histogram.
pub const BINS: usize = 2048;
/// How far to either side of the one value that an activation is fed its range is taken to reach, in parts of that value or of 1.
pub const AROUND_DEAD: f64 = 0.5;

/// Why pictures cannot calibrate a network.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum CalibrationError {
    /// No picture at all.
    #[error("no pictures to calibrate on; at least one is needed, some hundreds are better")]
    NoPictures,
    /// No activation that needs a range.
    #[error("the network has no activation to fit")]
    NoActivations,
    /// A picture of another shape.
    #[error("picture {picture} of {pictures} is of the wrong kind: {source}")]
    WrongKind {
        /// Its index, from 0.
        picture: usize,
        /// How many there are.
        pictures: usize,
        /// What was expected and what came.
        source: ShapeMismatch,
    },
    /// NaN or infinity.
    #[error("picture {picture} makes {value} at the input of {layer:?}; pictures and weights must stay finite")]
    NotFinite {
        /// Its index, from 0.
        picture: usize,
        /// Where.
        layer: String,
        /// What.
        value: f32,
    },
    /// A function that has no value where it was asked for one.
    #[error(
        "picture {picture} feeds {value} to {layer:?}, where {function} has no finite value; put a bound before it that keeps what comes to \
         it where it is defined (a clip, or adding a constant)"
    )]
    Undefined {
        /// Its index, from 0.
        picture: usize,
        /// Where.
        layer: String,
        /// The function.
        function: Box<ActivationFunction>,
        /// What came to it.
        value: f32,
    },
    /// All activations see one value only.
    #[error(
        "all {pictures} pictures feed {layer:?} the same value {value}, and all other activations one value each: they are all alike"
    )]
    NoSpread {
        /// Where.
        layer: String,
        /// The value.
        value: f64,
        /// How many pictures there were.
        pictures: usize,
    },
}

/// How often values fell where.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// From the lower end of the first bin to the upper end of the last one.
    pub range: Range,
    /// Values in each of [`BINS`] bins of equal width.
    pub counts: Vec<u64>,
}

impl Histogram {
    fn new(range: Range) -> Self {
        Self { range, counts: vec![0; BINS] }
    }

    fn add(&mut self, values: &[f32]) {
        let per_unit = BINS as f64 / (self.range.max - self.range.min);
        for x in values {
            let bin = ((f64::from(*x) - self.range.min) * per_unit) as usize;
            self.counts[bin.min(BINS - 1)] += 1;
        }
    }

    /// Number of values.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Probability density at x, per unit of x; 0 outside the range.
    pub fn density(&self, x: f64) -> f64 {
        let width = (self.range.max - self.range.min) / BINS as f64;
        let bin = (x - self.range.min) / width;
        if !(0.0..=BINS as f64).contains(&bin) {
            return 0.0;
        }
        let count = self.counts[(bin as usize).min(BINS - 1)];
        count as f64 / (self.total().max(1) as f64 * width)
    }

    /// Smallest x that at least a part of the values, 0 to 1, lie below, to the width of a bin.
    pub fn quantile(&self, part: f64) -> f64 {
        let wanted = (part * self.total() as f64).ceil() as u64;
        let mut below = 0;
        let bin = self.counts.iter().position(|c| {
            below += c;
            below >= wanted.max(1)
        });
        let bin = bin.map_or(BINS, |b| b + 1);
        self.range.min + (self.range.max - self.range.min) * bin as f64 / BINS as f64
    }
}

/// What one activation was fed.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerInputs {
    /// Index among [`Model::nodes`] of the model that was calibrated.
    pub node: usize,
    /// Name of the node.
    pub name: String,
    /// The exact function.
    pub function: ActivationFunction,
    /// Smallest and largest value of each channel.
    pub channels: Vec<Range>,
    /// The values of all channels.
    pub histogram: Histogram,
}

impl LayerInputs {
    /// Smallest and largest value.
    pub fn range(&self) -> Range {
        self.channels.iter().fold(Range::EMPTY, |a, b| a.union(*b))
    }
}

/// What the activations of a model were fed over a set of pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// How many pictures.
    pub pictures: usize,
    /// One entry an activation, in the order of the graph.
    pub layers: Vec<LayerInputs>,
    /// The largest magnitude of each node's result, by name; of the model with its norms folded.
    pub magnitudes: BTreeMap<String, f64>,
    /// Activations that every picture feeds the same value, as behind weights that are all zero. Their ranges reach as far around it as
    /// [`AROUND_DEAD`] says.
    pub dead: Vec<String>,
}

/// Ranges per channel, one row an activation in the order of the graph: `[activation][channel]`.
pub type ChannelRanges = Vec<Vec<Range>>;

impl Calibration {
    /// Evaluates the exact model on every picture (normalised: [`super::model::Input::normalise`]), twice: once for the
    /// ranges, once for the histograms. Activations that are fitted already count as what they stand for. All threads.
    ///
    /// # Errors
    /// As [`channel_ranges`]; [`CalibrationError::NoSpread`] where each activation is fed one value only.
    pub fn measure(model: &Model, pictures: &[Tensor<f32>]) -> Result<Self, CalibrationError> {
        Ok(Self::within(model, channel_ranges(model, pictures)?, pictures)?.0)
    }

    /// [`Self::measure`] where the ranges are known: once. With the logits of the pictures.
    pub(in crate::nn) fn within(
        model: &Model,
        mut ranges: ChannelRanges,
        pictures: &[Tensor<f32>],
    ) -> Result<(Self, Vec<Vec<f32>>), CalibrationError> {
        let exact = Exact::new(model)?;
        let whole_of = |channels: &Vec<Range>| channels.iter().fold(Range::EMPTY, |a, b| a.union(*b));
        let is_dead = |channels: &Vec<Range>| whole_of(channels).min >= whole_of(channels).max;
        if let (Some(first), true) = (ranges.first(), ranges.iter().all(is_dead)) {
            let (layer, value) = (exact.names[0].clone(), whole_of(first).min);
            return Err(CalibrationError::NoSpread { layer, value, pictures: pictures.len() });
        }
        let mut dead = Vec::new();
        for (channels, name) in ranges.iter_mut().zip(&exact.names).filter(|(channels, _)| is_dead(channels)) {
            let value = whole_of(channels).min;
            let around = AROUND_DEAD * value.abs().max(1.0);
            channels.fill(Range { min: value - around, max: value + around });
            dead.push(name.clone());
        }
        let whole: Vec<Range> = ranges.iter().map(whole_of).collect();
        let empty = || whole.iter().map(|r| Histogram::new(*r)).collect::<Vec<_>>();
        let nothing = || (empty(), vec![0.0; exact.nodes.len()], Vec::new());
        let count = |(mut histograms, mut largest, mut logits): Seen, (picture, x): (usize, &Tensor<f32>)| {
            let largest_of = |node: usize, result: &Tensor<f32>| largest[node] = f64::max(largest[node], magnitude(result));
            let wrong = |source| CalibrationError::WrongKind { picture, pictures: pictures.len(), source };
            let result = exact.watch_all(x, |k, operand, _| histograms[k].add(operand.values()), largest_of).map_err(wrong)?;
            logits.push(result.values().to_vec());
            Ok((histograms, largest, logits))
        };
        // Neighbours are merged, so the pictures keep their order.
        let merge = |mut a: Seen, b: Seen| {
            for (a, b) in a.0.iter_mut().zip(b.0) {
                a.counts.iter_mut().zip(b.counts).for_each(|(a, b)| *a += b);
            }
            a.1.iter_mut().zip(b.1).for_each(|(a, b)| *a = a.max(b));
            a.2.extend(b.2);
            Ok(a)
        };
        let seen: Result<Seen, CalibrationError> =
            pictures.par_iter().enumerate().try_fold(nothing, count).try_reduce(nothing, merge);
        let (histograms, largest, logits) = seen?;
        let magnitudes = exact.nodes.iter().cloned().zip(largest).collect();
        let layer = |(((node, found, function), channels), histogram): (((usize, _, _), _), _)| {
            let _: &super::model::Node = found;
            LayerInputs { node, name: found.name.clone(), function, channels, histogram }
        };
        let layers = model.activations().zip(ranges).zip(histograms).map(layer).collect();
        Ok((Self { pictures: pictures.len(), layers, magnitudes, dead }, logits))
    }
}

/// Of each activation the histogram, of each node the largest magnitude, of each picture the logits.
type Seen = (Vec<Histogram>, Vec<f64>, Vec<Vec<f32>>);

/// The largest magnitude in a tensor.
fn magnitude(x: &Tensor<f32>) -> f64 {
    x.values().iter().fold(0.0f32, |m, v| m.max(v.abs())).into()
}

/// The largest magnitude of each node's result over some pictures, by name: [`Calibration::magnitudes`] of a model that may have no
/// activation.
///
/// # Errors
/// [`CalibrationError::WrongKind`] for a picture of another shape.
pub fn magnitudes(model: &Model, pictures: &[Tensor<f32>]) -> Result<BTreeMap<String, f64>, CalibrationError> {
    let exact = Exact::of(model);
    let largest = |(picture, x): (usize, &Tensor<f32>)| {
        let mut largest = vec![0.0; exact.nodes.len()];
        let see = |node: usize, result: &Tensor<f32>| largest[node] = magnitude(result);
        let wrong = |source| CalibrationError::WrongKind { picture, pictures: pictures.len(), source };
        exact.watch_all(x, |_, _, _| (), see).map_err(wrong)?;
        Ok(largest)
    };
    let all = pictures.par_iter().enumerate().map(largest).collect::<Result<Vec<_>, _>>()?;
    let most = |node: usize| all.iter().map(|of| of[node]).fold(0.0, f64::max);
    Ok(exact.nodes.iter().cloned().enumerate().map(|(node, name)| (name, most(node))).collect())
}

/// Ranges per channel of every activation's input, evaluated exactly: the cheap half of [`Calibration::measure`].
///
/// # Errors
/// [`CalibrationError::NoActivations`], [`CalibrationError::NoPictures`], [`CalibrationError::WrongKind`] for a picture of another shape,
/// [`CalibrationError::NotFinite`] and [`CalibrationError::Undefined`] for one that makes values that are no numbers.
pub fn channel_ranges(model: &Model, pictures: &[Tensor<f32>]) -> Result<ChannelRanges, CalibrationError> {
    Exact::new(model)?.ranges(pictures)
}

/// The exact network, watched at the inputs of its activations.
struct Exact {
    network: Network<f32>,
    /// For each node of the network, which activation it is.
    activation: Vec<Option<usize>>,
    names: Vec<String>,
    functions: Vec<ActivationFunction>,
    channels: Vec<usize>,
    /// Names of all nodes.
    nodes: Vec<String>,
}

impl Exact {
    fn new(model: &Model) -> Result<Self, CalibrationError> {
        let exact = Self::of(model);
        if exact.names.is_empty() { Err(CalibrationError::NoActivations) } else { Ok(exact) }
    }

    fn of(model: &Model) -> Self {
        let model = model.exact();
        // The network counts nodes after folding; folding keeps the order of the activations.
        let folded = model.fold_batch_norms();
        let mut activation = vec![None; folded.nodes().len()];
        let (mut names, mut functions, mut channels) = (Vec::new(), Vec::new(), Vec::new());
        for (k, (node, found, function)) in folded.activations().enumerate() {
            activation[node] = Some(k);
            names.push(found.name.clone());
            functions.push(function);
            channels.push(found.shape.channels);
        }
        let nodes = folded.nodes().iter().map(|node| node.name.clone()).collect();
        Self { network: Network::new(&model), activation, names, functions, channels, nodes }
    }

    fn watch(&self, x: &Tensor<f32>, see: impl FnMut(usize, &Tensor<f32>, &Tensor<f32>)) -> Result<(), ShapeMismatch> {
        self.watch_all(x, see, |_, _| ()).map(drop)
    }

    /// Sees what each activation is fed, and what each node makes; gives the result.
    fn watch_all(
        &self,
        x: &Tensor<f32>,
        mut fed: impl FnMut(usize, &Tensor<f32>, &Tensor<f32>),
        mut made: impl FnMut(usize, &Tensor<f32>),
    ) -> Result<Tensor<f32>, ShapeMismatch> {
        let watch = |node: usize, operand: &Tensor<f32>, result: &Tensor<f32>| {
            if let Some(k) = self.activation[node] {
                fed(k, operand, result);
            }
            made(node, result);
        };
        self.network.evaluate_with(x, watch)
    }

    fn ranges(&self, pictures: &[Tensor<f32>]) -> Result<ChannelRanges, CalibrationError> {
        if pictures.is_empty() {
            return Err(CalibrationError::NoPictures);
        }
        let empty = || self.channels.iter().map(|n| vec![Range::EMPTY; *n]).collect::<ChannelRanges>();
        let widen = |mut ranges: ChannelRanges, (picture, x): (usize, &Tensor<f32>)| {
            let mut bad = None;
            let see = |k: usize, operand: &Tensor<f32>, result: &Tensor<f32>| {
                for (range, values) in ranges[k].iter_mut().zip(operand.values().chunks_exact(operand.shape().plane())) {
                    let (mut min, mut max, mut sum) = (f32::INFINITY, f32::NEG_INFINITY, 0.0f32);
                    for v in values {
                        (min, max) = (min.min(*v), max.max(*v));
                        sum += *v;
                    }
                    if !sum.is_finite() && bad.is_none() {
                        let value = values.iter().copied().find(|v| !v.is_finite()).unwrap_or(sum);
                        bad = Some(CalibrationError::NotFinite { picture, layer: self.names[k].clone(), value });
                    }
                    *range = range.union(Range { min: min.into(), max: max.into() });
                }
                // Only a formula may have no value, and it is better named than the layers behind it that see what it made.
                if let function @ ActivationFunction::Formula { .. } = &self.functions[k]
                    && bad.is_none()
                    && let Some(at) = result.values().iter().position(|v| !v.is_finite())
                {
                    let (layer, value) = (self.names[k].clone(), operand.values()[at]);
                    bad = Some(CalibrationError::Undefined { picture, layer, function: Box::new(function.clone()), value });
                }
            };
            let wrong = |source| CalibrationError::WrongKind { picture, pictures: pictures.len(), source };
            self.watch(x, see).map_err(wrong)?;
            bad.map_or(Ok(ranges), Err)
        };
        let merge = |mut a: ChannelRanges, b: ChannelRanges| {
            for (a, b) in a.iter_mut().flatten().zip(b.iter().flatten()) {
                *a = a.union(*b);
            }
            Ok(a)
        };
        pictures.par_iter().enumerate().try_fold(empty, widen).try_reduce(empty, merge)
    }
}

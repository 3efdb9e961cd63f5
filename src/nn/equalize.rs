//! Scaling channels so that each uses its layer's whole range, without changing what the network computes.
//!
//! A fitted polynomial is the same for all channels of a layer, so its interval must hold the widest channel, and its error
//! near 0, which grows with the interval, hits the narrow ones as hard as the wide ones. But `relu(s x) = s relu(x)` for
//! `s > 0`: the weights before can make every channel equally wide, and the weights behind can undo it. Nothing is left to
//! do at run time. Values that meet in a sum must agree on their scale, so the channels of a residual stream are scaled
//! alike at all its activations.
//!
//! A layer whose values are all far from 1 is brought near it in the same way: else the weights behind it are as far from 1, and
//! few of their bits are left where they are encoded.

use super::calibration::ChannelRanges;
use super::clear::Range;
use super::model::{ActivationFunction, Model, Operator, Value};

/// A channel is scaled up by this at most.
const MOST: f64 = 16.0;
/// Layers whose values reach no further than this, nor less far than its inverse, keep their size.
const USUAL: f64 = 16.0;

/// The same function with the channels before its ReLUs scaled to be about equally wide; `ranges` are what its activations
/// are fed, as [`super::calibration::channel_ranges`] measures them. Exact up to the rounding of f64. Channels around
/// functions that are not homogeneous are left as they are.
pub fn equalize(model: &Model, ranges: &ChannelRanges) -> Model {
    equalize_with_ranges(model, ranges).0
}

/// As [`equalize`], and what the activations of the scaled model are fed where those of the model are fed `ranges`.
pub fn equalize_with_ranges(model: &Model, ranges: &ChannelRanges) -> (Model, ChannelRanges) {
    let scales = Scales::choose(model, ranges);
    let scaled = |(node, channels): (usize, &Vec<Range>)| {
        let scale = scales.of(model.nodes()[node].inputs[0]);
        channels.iter().zip(scale).map(|(r, s)| Range { min: r.min / s, max: r.max / s }).collect()
    };
    let ranges = model.activations().map(|(node, ..)| node).zip(ranges).map(scaled).collect();
    (scaled_by(model, &scales), ranges)
}

/// The model with its values divided by their scales.
fn scaled_by(model: &Model, scales: &Scales) -> Model {
    let mut scaled = model.clone();
    for (i, node) in scaled.nodes.iter_mut().enumerate() {
        let (input, output) = (scales.of(node.inputs[0]), scales.of(Value(i + 1)));
        match &mut node.operator {
            Operator::Conv2d(conv) => {
                let (outputs, groups) = (conv.bias.len(), conv.groups);
                let per_output = conv.weight.len() / outputs;
                let taps = conv.window.kernel[0] * conv.window.kernel[1];
                let inputs = per_output / taps;
                let rows = conv.weight.chunks_exact_mut(per_output).zip(&mut conv.bias).zip(output);
                for (o, ((row, bias), scale)) in rows.enumerate() {
                    let first = o / (outputs / groups) * inputs;
                    row.iter_mut().enumerate().for_each(|(k, w)| *w *= input[first + k / taps] / scale);
                    *bias /= scale;
                }
            }
            Operator::Linear { weight, bias } => {
                let columns = weight.len() / bias.len();
                for ((row, bias), scale) in weight.chunks_exact_mut(columns).zip(bias).zip(output) {
                    row.iter_mut().zip(input).for_each(|(w, from)| *w *= from / scale);
                    *bias /= scale;
                }
            }
            Operator::BatchNorm { factor, offset } => {
                for (c, (f, o)) in factor.iter_mut().zip(offset).enumerate() {
                    *f *= input[c] / output[c];
                    *o /= output[c];
                }
            }
            Operator::Gather(map) => {
                let plane = map.shape.plane();
                map.constants.iter_mut().enumerate().for_each(|(e, constant)| *constant /= output[e / plane]);
            }
            _ => {}
        }
    }
    scaled
}

/// A scale for each channel of each value: what the scaled model holds is the value divided by it.
struct Scales {
    of_value: Vec<Vec<f64>>,
}

impl Scales {
    fn of(&self, value: Value) -> &[f64] {
        &self.of_value[value.0]
    }

    fn choose(model: &Model, ranges: &ChannelRanges) -> Self {
        let mut classes = Classes::of(model);
        let mut scale: Vec<f64> = vec![0.0; classes.parent.len()];
        for ((node, ..), channels) in model.activations().zip(ranges) {
            let input = model.nodes()[node].inputs[0];
            for (c, wanted) in relative_widths(channels).into_iter().enumerate() {
                let class = classes.class(input, c);
                scale[class] = scale[class].max(wanted);
            }
        }
        let sizes = classes.sizes(model, ranges);
        let of_value = (0..=model.nodes().len()).map(|v| {
            let channels = 0..model.shape(Value(v)).channels;
            let of_channel = |c: usize| {
                let class = classes.class(Value(v), c);
                // A class without an activation has no reason to be scaled.
                if classes.pinned[class] || scale[class] == 0.0 { 1.0 } else { scale[class] * sizes[v] }
            };
            channels.map(of_channel).collect()
        });
        Self { of_value: of_value.collect() }
    }
}

/// The part of the layer's range that each channel fills, on the side where it fills more; not below `1 / MOST`.
fn relative_widths(channels: &[Range]) -> Vec<f64> {
    let whole = channels.iter().fold(Range::EMPTY, |a, b| a.union(*b));
    let part = |value: f64, of: f64| if of > 0.0 { value / of } else { 0.0 };
    channels.iter().map(|r| part(-r.min, -whole.min).max(part(r.max, whole.max)).clamp(1.0 / MOST, 1.0)).collect()
}

/// Which channels of which values must share one scale, and which must keep theirs: a forest over all of them.
struct Classes {
    /// Index of the first channel of each value.
    first: Vec<usize>,
    parent: Vec<usize>,
    /// Of a root: its channels keep their scale.
    pinned: Vec<bool>,
}

impl Classes {
    fn of(model: &Model) -> Self {
        let channels = (0..=model.nodes().len()).map(|v| model.shape(Value(v)).channels);
        let mut first = vec![0];
        first.extend(channels.scan(0, |sum, n| {
            *sum += n;
            Some(*sum)
        }));
        let count = first[first.len() - 1];
        let mut classes = Self { first, parent: (0..count).collect(), pinned: vec![false; count] };
        classes.pin(model, Value(0));
        classes.pin(model, model.output());
        for (i, node) in model.nodes().iter().enumerate() {
            let (input, result) = (node.inputs[0], Value(i + 1));
            let channels = node.shape.channels;
            match &node.operator {
                Operator::Conv2d(_) | Operator::Linear { .. } | Operator::BatchNorm { .. } => {}
                Operator::Activation(ActivationFunction::Relu | ActivationFunction::LeakyRelu { .. })
                | Operator::AvgPool2d { .. }
                | Operator::GlobalAvgPool => classes.join(input, result, (0..channels).map(|c| (c, c))),
                Operator::Add if node.inputs.iter().all(|v| model.shape(*v) == node.shape) => {
                    for v in &node.inputs {
                        classes.join(*v, result, (0..channels).map(|c| (c, c)));
                    }
                }
                // One factor keeps its scale, and the other one's is the product's.
                Operator::Multiply if node.inputs[0] != node.inputs[1] => {
                    classes.pin(model, node.inputs[1]);
                    classes.join(input, result, (0..channels).map(|c| (c, c)));
                }
                Operator::Rearrange(moved) => {
                    let from = moved.channels.iter().enumerate().filter_map(|(c, from)| Some(((*from)?, c)));
                    classes.join(input, result, from);
                }
                Operator::Gather(map) => {
                    let (plane, own) = (model.shape(input).plane(), map.shape.plane());
                    let mut pairs = Vec::new();
                    map.for_each(|to, from| {
                        let pair = (from / plane, to / own);
                        if pairs.last() != Some(&pair) {
                            pairs.push(pair);
                        }
                    });
                    classes.join(input, result, pairs);
                }
                Operator::Flatten => {
                    let plane = model.shape(input).plane();
                    classes.join(input, result, (0..channels).map(|c| (c / plane, c)));
                }
                _ => {
                    node.inputs.iter().for_each(|v| classes.pin(model, *v));
                    classes.pin(model, result);
                }
            }
        }
        classes
    }

    fn class(&mut self, value: Value, channel: usize) -> usize {
        let mut at = self.first[value.0] + channel;
        while self.parent[at] != at {
            self.parent[at] = self.parent[self.parent[at]];
            at = self.parent[at];
        }
        at
    }

    /// For each value the power of two near its size, the same for all that share a scale with it; 1 where one of them must keep it.
    fn sizes(&mut self, model: &Model, ranges: &ChannelRanges) -> Vec<f64> {
        let count = model.nodes().len() + 1;
        // Values that share a class with an earlier one are of its set; each names its set's first value, found again until none changes.
        let mut set: Vec<usize> = (0..count).collect();
        let mut of_class: Vec<Option<usize>> = vec![None; self.parent.len()];
        let root = |set: &[usize], mut v: usize| {
            while set[v] != v {
                v = set[v];
            }
            v
        };
        for v in 0..count {
            for c in 0..model.shape(Value(v)).channels {
                let class = self.class(Value(v), c);
                let (a, b) = (root(&set, v), root(&set, *of_class[class].get_or_insert(v)));
                set[a.max(b)] = a.min(b);
            }
        }
        let mut size = vec![0.0f64; count];
        for ((node, ..), channels) in model.activations().zip(ranges) {
            let of = root(&set, model.nodes()[node].inputs[0].0);
            size[of] = channels.iter().fold(size[of], |most, r| most.max(r.magnitude()));
        }
        for v in 0..count {
            let pinned = (0..model.shape(Value(v)).channels).any(|c| {
                let class = self.class(Value(v), c);
                self.pinned[class]
            });
            if pinned {
                size[root(&set, v)] = f64::NAN;
            }
        }
        let near = |size: f64| {
            let far = size.is_finite() && size > 0.0 && !(1.0 / USUAL..=USUAL).contains(&size);
            if far { size.log2().round().exp2() } else { 1.0 }
        };
        (0..count).map(|v| near(size[root(&set, v)])).collect()
    }

    /// Pairs of a channel of `from` and one of `to` that share a scale.
    fn join(&mut self, from: Value, to: Value, pairs: impl IntoIterator<Item = (usize, usize)>) {
        for (a, b) in pairs {
            let (a, b) = (self.class(from, a), self.class(to, b));
            self.pinned[a] |= self.pinned[b];
            self.parent[b] = a;
        }
    }

    fn pin(&mut self, model: &Model, value: Value) {
        for c in 0..model.shape(value).channels {
            let class = self.class(value, c);
            self.pinned[class] = true;
        }
    }
}

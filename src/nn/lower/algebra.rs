//! From a model to steps on tensors, before any layout: everything affine is moved to where it costs no level.
//!
//! A tensor of the model is represented by a stored tensor v with `x = scale v + shift` per channel. Convolutions, pools
//! and linear layers take scale and shift into their weights and bias for nothing (the bias then depends on the position,
//! since the padding is zero in x and not in v). A quadratic `a2 x^2 + a1 x + a0` is completed to a square:
//!
//! ```text
//! u = sqrt|a2| x + s a1 / (2 sqrt|a2|),   y = s u^2 + a0 - a1^2 / (4 a2),   s = sign(a2)
//! ```
//!
//! The layer before it makes u in place of x, the step is u^2, and s and the constant stay pending for the readers. A
//! polynomial on an interval is given its own variable in [-1, 1] in the same way, and takes a scale wanted of its result
//! into its coefficients.

mod activation;

use super::LowerError;
use super::conv_matrix::ConvWeights;
use super::dense::{DenseWeights, Moves};
use super::rotations::Along;
use crate::circuits::polynomial::Chebyshev;
use crate::nn::model::{Conv2d, MAGNITUDE_MARGIN, Model, Operator, Rearrange, Value, Window};
use crate::nn::tensor::Shape;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

/// A side of a sum is not stored in a scale in which it is larger by more than this: precision and room for magnitude are bounded.
const MOST_GROWTH: f64 = 64.0;
/// A single number of each channel is repeated along both axes at once for up to so many elements: that takes a diagonal for each.
const MOST_AT_ONCE: usize = 64;

/// One step on tensors. Values are numbered as in a program: 0 is the input, i + 1 the result of step i.
pub(super) struct LogicalStep {
    pub layer: String,
    pub operation: Logical,
    pub shape: Shape,
    /// The largest magnitude that calibration lets expect, where it noted one.
    pub noted: Option<f64>,
}

/// The largest magnitude of each step's result, where that is known: around polynomials, since a calibration has seen what
/// comes to them, and where a calibration noted it.
pub(super) fn bounds(steps: &[LogicalStep]) -> Vec<Option<f64>> {
    // By value; 0 is the input.
    let mut bounds: Vec<Option<f64>> = vec![None; steps.len() + 1];
    let mut tighten = |value: usize, bound: f64| bounds[value] = Some(bounds[value].map_or(bound, |b| b.min(bound)));
    for (i, step) in steps.iter().enumerate() {
        if let Logical::Polynomial { input, polynomial } = &step.operation {
            let [a, b] = polynomial.interval();
            tighten(*input, a.abs().max(b.abs()));
            tighten(i + 1, polynomial.magnitude());
        }
    }
    for (i, step) in steps.iter().enumerate() {
        bounds[i + 1] = bounds[i + 1].or(step.noted);
    }
    for (i, step) in steps.iter().enumerate() {
        if let Logical::Multiply { a, b } = step.operation {
            bounds[i + 1] = bounds[a].zip(bounds[b]).map(|(a, b)| a * b).into_iter().chain(bounds[i + 1]).reduce(f64::min);
        }
    }
    bounds
}

/// What a step does. Vectors hold one value for each element, `[channel][row][column]`.
pub(super) enum Logical {
    Conv { input: usize, weights: Arc<ConvWeights>, bias: Vec<f64> },
    Move { input: usize, moves: Arc<Moves>, bias: Vec<f64> },
    Dense { input: usize, weights: Arc<DenseWeights>, bias: Vec<f64> },
    Square { input: usize },
    Polynomial { input: usize, polynomial: Chebyshev },
    Affine { input: usize, factor: Option<Vec<f64>>, offset: Option<Vec<f64>> },
    Add { a: usize, b: usize },
    Multiply { a: usize, b: usize },
}

/// How a tensor of the model is stored: `x = scale v + shift`.
#[derive(Clone)]
struct Stored {
    /// The step's value that holds v.
    value: usize,
    /// Shape of v.
    shape: Shape,
    /// x is the vector of all elements: scale and shift are per element, not per channel.
    flat: bool,
    /// x is the average of each channel of v, not yet computed.
    pooled: bool,
    scale: Vec<f64>,
    shift: Vec<f64>,
    /// Levels used so far.
    depth: usize,
}

impl Stored {
    /// Index into scale and shift of a flat element of v.
    fn index(&self, element: usize) -> usize {
        if self.flat { element } else { element / self.shape.plane() }
    }

    /// One value for each element of v, from a function of the index into scale and shift.
    fn elements(&self, of: impl Fn(usize) -> f64) -> Vec<f64> {
        (0..self.shape.len()).map(|e| of(self.index(e))).collect()
    }

    fn is_plain(&self) -> bool {
        self.scale.iter().all(|s| *s == 1.0) && self.shift.iter().all(|s| *s == 0.0)
    }
}

/// The form `alpha x + beta` in which the reader of a value wants it stored.
struct Gauge {
    alpha: Vec<f64>,
    beta: Vec<f64>,
}

/// The steps of a model and the value that is the result.
pub(super) fn steps(model: &Model, ranges: &HashMap<String, f64>) -> Result<(Vec<LogicalStep>, usize), LowerError> {
    let model = model.fold_batch_norms();
    let mut readers = vec![Vec::new(); model.nodes().len() + 1];
    for (i, node) in model.nodes().iter().enumerate() {
        node.inputs.iter().for_each(|v| readers[v.0].push(i));
    }
    let input = model.input().shape;
    let first = Stored {
        value: 0,
        shape: input,
        flat: false,
        pooled: false,
        scale: vec![1.0; input.channels],
        shift: vec![0.0; input.channels],
        depth: 0,
    };
    let magnitudes = model.magnitudes();
    let (wanted, bringers, steps, stored) = (Vec::new(), Vec::new(), Vec::new(), vec![first]);
    let mut algebra = Algebra { model: &model, readers, ranges, magnitudes, wanted, bringers, steps, stored };
    algebra.refuse_unfitted()?;
    algebra.bringers = algebra.bringers();
    algebra.wanted = algebra.wanted_forms();
    for i in 0..model.nodes().len() {
        let stored = algebra.node(i)?;
        algebra.note(i, &stored);
        algebra.stored.push(stored);
    }
    let last = algebra.stored[model.output().0].clone();
    let name = model.value_name(model.output()).to_owned();
    let n = last.scale.len();
    let last = match model.output_divisor() {
        1.0 => algebra.plain(&name, last),
        divisor => algebra.transform(&name, last, &vec![1.0 / divisor; n], &vec![0.0; n]),
    };
    Ok((algebra.steps, last.value))
}

struct Algebra<'m> {
    model: &'m Model,
    /// Nodes that read each value.
    readers: Vec<Vec<usize>>,
    ranges: &'m HashMap<String, f64>,
    /// Largest magnitudes seen, by node.
    magnitudes: BTreeMap<String, f64>,
    /// The form in which an activation that reads a value, directly or behind sums and scales, wants it.
    wanted: Vec<Option<Rc<Gauge>>>,
    /// For each node that is a sum, the operand that brings a constant at no cost.
    bringers: Vec<Option<Value>>,
    steps: Vec<LogicalStep>,
    /// How each value of the model is stored.
    stored: Vec<Stored>,
}

impl Algebra<'_> {
    fn emit(&mut self, layer: &str, operation: Logical, shape: Shape) -> usize {
        self.steps.push(LogicalStep { layer: layer.to_owned(), operation, shape, noted: None });
        self.steps.len()
    }

    /// Notes the bound of a node's result, as it is stored.
    fn note(&mut self, i: usize, x: &Stored) {
        let seen = self.magnitudes.get(&self.model.nodes()[i].name);
        let (Some(seen), false, Some(step)) = (seen, x.pooled, x.value.checked_sub(1)) else { return };
        let least = x.scale.iter().fold(f64::INFINITY, |m, s| m.min(s.abs()));
        let shift = x.shift.iter().fold(0.0, |m: f64, s| m.max(s.abs()));
        let bound = (MAGNITUDE_MARGIN * seen + shift) / least;
        let noted = &mut self.steps[step].noted;
        *noted = Some(noted.map_or(bound, |known| known.min(bound))).filter(|bound| bound.is_finite());
    }

    fn node(&mut self, i: usize) -> Result<Stored, LowerError> {
        let node = &self.model.nodes()[i];
        let name = node.name.as_str();
        let x = self.stored[node.inputs[0].0].clone();
        match &node.operator {
            Operator::Conv2d(conv) if x.flat && node.shape.plane() == 1 => {
                let (weight, bias) = self.conv_of_vector(conv, x.scale.len(), node.shape);
                Ok(self.linear(i, x, &weight, &bias))
            }
            Operator::Conv2d(conv) => {
                let x = self.unflattened(name, x);
                let weights = ConvWeights {
                    weight: conv.weight.clone(),
                    per_group: x.shape.channels / conv.groups,
                    groups: conv.groups,
                    window: conv.window,
                    factors: None,
                };
                Ok(self.conv(i, x, weights, &conv.bias))
            }
            Operator::AvgPool2d { window, count_include_pad } => {
                let x = self.unflattened(name, x);
                Ok(self.pool(i, x, *window, *count_include_pad))
            }
            Operator::GlobalAvgPool => {
                if x.flat || x.shape.plane() == 1 {
                    return Ok(x);
                }
                if self.only_linear_reads(Value(i + 1)) {
                    return Ok(Stored { pooled: true, ..x });
                }
                let Shape { height, width, .. } = x.shape;
                let window = Window { kernel: [height, width], stride: [1, 1], padding: [0; 4], dilation: [1, 1] };
                Ok(self.pool(i, x, window, true))
            }
            Operator::Flatten => {
                if x.pooled || x.flat || x.shape.plane() == 1 {
                    return Ok(x);
                }
                let (scale, shift) = (x.elements(|c| x.scale[c]), x.elements(|c| x.shift[c]));
                Ok(Stored { flat: true, scale, shift, ..x })
            }
            Operator::Rearrange(map) => {
                let mut sources = vec![None; node.shape.len()];
                map.for_each(self.model.shape(node.inputs[0]), |to, from| sources[to] = Some(from));
                let stride = [stride(&map.rows), stride(&map.columns)];
                if self.model.shape(node.inputs[0]).plane() == 1
                    && node.shape.height.min(node.shape.width) > 1
                    && node.shape.plane() > MOST_AT_ONCE
                {
                    return Ok(self.repeated(i, x, map));
                }
                Ok(self.moved(i, x, &sources, stride, |_| 0.0))
            }
            Operator::Gather(map) => {
                let mut sources = vec![None; node.shape.len()];
                map.for_each(|to, from| sources[to] = Some(from));
                Ok(self.moved(i, x, &sources, [1, 1], |e| map.constant(e)))
            }
            Operator::Linear { weight, bias } => Ok(self.linear(i, x, weight, bias)),
            Operator::BatchNorm { factor, offset } => {
                let scale = x.scale.iter().zip(factor).map(|(s, f)| s * f).collect();
                let shift = x.shift.iter().zip(factor).zip(offset).map(|((s, f), o)| s * f + o).collect();
                Ok(Stored { scale, shift, ..x })
            }
            Operator::Add => {
                let b = self.stored[node.inputs[1].0].clone();
                Ok(self.add(name, x, b))
            }
            Operator::Multiply => {
                let b = self.stored[node.inputs[1].0].clone();
                Ok(self.multiply(name, x, b))
            }
            Operator::Polynomial(p) => self.polynomial(i, x, p),
            Operator::Fitted(fitted) => self.fitted(i, x, fitted),
            Operator::Activation(function) => Err(LowerError::NotFitted { nodes: vec![format!("{name} ({function})")] }),
        }
    }

    /// Whether only linear layers read a value, directly or through flatten.
    fn only_linear_reads(&self, value: Value) -> bool {
        value != self.model.output()
            && self.readers[value.0].iter().all(|r| match self.model.nodes()[*r].operator {
                Operator::Linear { .. } => true,
                Operator::Flatten => self.only_linear_reads(Value(r + 1)),
                _ => false,
            })
    }

    /// How the readers of node `i` want its result stored.
    fn gauge(&self, i: usize) -> Option<Rc<Gauge>> {
        if let Some(wanted) = &self.wanted[i + 1] {
            return Some(wanted.clone());
        }
        // Both sides of a sum in one scale, where nothing behind the sum cares which.
        let [reader] = self.readers[i + 1][..] else { return None };
        let node = &self.model.nodes()[reader];
        if self.model.output() == Value(i + 1) || !matches!(node.operator, Operator::Add) {
            return None;
        }
        let channels = self.model.nodes()[i].shape.channels;
        let other = node.inputs.iter().find(|v| v.0 != i + 1)?;
        let other = self.stored.get(other.0).filter(|s| s.scale.len() == channels)?;
        let alpha: Vec<f64> = other.scale.iter().map(|s| 1.0 / s).collect();
        let usable = alpha.iter().all(|a| a.is_finite());
        usable.then(|| Rc::new(Gauge { beta: vec![0.0; channels], alpha }))
    }

    fn conv(&mut self, i: usize, x: Stored, mut weights: ConvWeights, bias: &[f64]) -> Stored {
        let node = &self.model.nodes()[i];
        let shape = node.shape;
        let gauge = self.gauge(i);
        let alpha = |o: usize| gauge.as_ref().map_or(1.0, |g| g.alpha[o]);
        let beta = |o: usize| gauge.as_ref().map_or(0.0, |g| g.beta[o]);
        let (inputs, taps) = (weights.per_group, weights.window.kernel[0] * weights.window.kernel[1]);
        let outputs_per_group = shape.channels / weights.groups;

        // What the shift of the inputs adds to output o through each tap that lies inside the picture.
        let mut shifted = vec![0.0; shape.channels * taps];
        for (o, plane) in weights.weight.chunks_exact_mut(inputs * taps).enumerate() {
            let first = o / outputs_per_group * inputs;
            for (c, kernel) in plane.chunks_exact_mut(taps).enumerate() {
                for (tap, w) in kernel.iter_mut().enumerate() {
                    shifted[o * taps + tap] += *w * x.shift[first + c] * alpha(o);
                    *w *= x.scale[first + c] * alpha(o);
                }
            }
        }
        let inside = |along: Along, size: usize, outputs: usize| -> Vec<Vec<usize>> {
            (0..outputs).map(|o| (0..along.kernel).filter(|k| along.source(o, *k, size).is_some()).collect()).collect()
        };
        let rows = inside(Along::rows(&weights.window), x.shape.height, shape.height);
        let columns = inside(Along::columns(&weights.window), x.shape.width, shape.width);
        let width = weights.window.kernel[1];
        let any_shift = shifted.iter().any(|s| *s != 0.0);
        let bias = (0..shape.len()).map(|e| {
            let (o, y, x) = (e / shape.plane(), e % shape.plane() / shape.width, e % shape.width);
            let mut sum = 0.0;
            if any_shift {
                for ky in &rows[y] {
                    sum += columns[x].iter().map(|kx| shifted[o * taps + ky * width + kx]).sum::<f64>();
                }
                sum *= weights.factors.as_ref().map_or(1.0, |(r, c)| r[y] * c[x]);
            }
            sum + alpha(o) * bias[o] + beta(o)
        });
        let bias = bias.collect();
        let operation = Logical::Conv { input: x.value, weights: Arc::new(weights), bias };
        let value = self.emit(&node.name, operation, shape);
        made(value, shape, gauge.as_deref(), x.depth + 1)
    }

    /// Every element is one of x's or none, and a constant.
    fn moved(
        &mut self,
        i: usize,
        x: Stored,
        sources: &[Option<usize>],
        stride: [usize; 2],
        constant: impl Fn(usize) -> f64,
    ) -> Stored {
        let node = &self.model.nodes()[i];
        let (shape, gauge) = (node.shape, self.gauge(i));
        let (alpha, beta) = match &gauge {
            Some(gauge) => (&gauge.alpha[..], &gauge.beta[..]),
            None => (&vec![1.0; shape.channels][..], &vec![0.0; shape.channels][..]),
        };
        let taken = |e: usize| sources[e].map(|from| (from, x.index(from)));
        let bias = (0..shape.len()).map(|e| {
            let c = e / shape.plane();
            alpha[c] * (constant(e) + taken(e).map_or(0.0, |(_, at)| x.shift[at])) + beta[c]
        });
        let bias = bias.collect();
        let source = |e: usize| taken(e).map(|(from, at)| (from as u32, alpha[e / shape.plane()] * x.scale[at]));
        let moves = Arc::new(Moves { sources: (0..shape.len()).map(source).collect(), stride });
        let value = self.emit(&node.name, Logical::Move { input: x.value, moves, bias }, shape);
        made(value, shape, gauge.as_deref(), x.depth + 1)
    }

    /// One number of each channel at every place of a picture, or 0: along a row first and then down, which takes a level more and
    /// as many diagonals as there are rows and columns, not places.
    fn repeated(&mut self, i: usize, x: Stored, map: &Rearrange) -> Stored {
        let node = &self.model.nodes()[i];
        let row = Shape::new(node.shape.channels, 1, node.shape.width);
        let across = Rearrange { rows: vec![Some(0)], ..map.clone() };
        let mut sources = vec![None; row.len()];
        across.for_each(self.model.shape(node.inputs[0]), |to, from| sources[to] = Some((from as u32, x.scale[x.index(from)])));
        let bias = sources.iter().map(|s| s.map_or(0.0, |(from, _)| x.shift[x.index(from as usize)])).collect();
        let moves = Arc::new(Moves { sources, stride: [1, 1] });
        let value = self.emit(&node.name, Logical::Move { input: x.value, moves, bias }, row);
        let down = Rearrange { columns: (0..row.width).map(Some).collect(), ..Rearrange::identity(row) };
        let down = Rearrange { rows: map.rows.clone(), ..down };
        let mut sources = vec![None; node.shape.len()];
        down.for_each(row, |to, from| sources[to] = Some(from));
        self.moved(i, made(value, row, None, x.depth + 1), &sources, [1, 1], |_| 0.0)
    }

    fn pool(&mut self, i: usize, x: Stored, window: Window, count_include_pad: bool) -> Stored {
        let shape = self.model.nodes()[i].shape;
        let [kh, kw] = window.kernel;
        let counts = |along: Along, size: usize, outputs: usize| -> Vec<f64> {
            let count = |o| (0..along.kernel).filter(|k| along.source(o, *k, size).is_some()).count();
            (0..outputs).map(|o| along.kernel as f64 / count(o).max(1) as f64).collect()
        };
        let factors = (!count_include_pad).then(|| {
            (
                counts(Along::rows(&window), x.shape.height, shape.height),
                counts(Along::columns(&window), x.shape.width, shape.width),
            )
        });
        let channels = x.shape.channels;
        let weight = vec![1.0 / (kh * kw) as f64; channels * kh * kw];
        let weights = ConvWeights { weight, per_group: 1, groups: channels, window, factors };
        self.conv(i, x, weights, &vec![0.0; channels])
    }

    /// A convolution whose input is a vector is a linear layer, if its result is one too.
    fn conv_of_vector(&self, conv: &Conv2d, inputs: usize, out: Shape) -> (Vec<f64>, Vec<f64>) {
        let w = &conv.window;
        let centre = [0, 1].map(|i| (w.padding[i] / w.dilation[i], w.padding[i] % w.dilation[i]));
        let taps = w.kernel[0] * w.kernel[1];
        let mut weight = vec![0.0; out.channels * inputs];
        let (ci, co) = (inputs / conv.groups, out.channels / conv.groups);
        // Only the tap over the single pixel counts; there is none if the dilation steps over it.
        if centre[0].1 == 0 && centre[1].1 == 0 && centre[0].0 < w.kernel[0] && centre[1].0 < w.kernel[1] {
            let tap = centre[0].0 * w.kernel[1] + centre[1].0;
            for o in 0..out.channels {
                for c in 0..ci {
                    weight[o * inputs + o / co * ci + c] = conv.weight[(o * ci + c) * taps + tap];
                }
            }
        }
        (weight, conv.bias.clone())
    }

    /// A flattened tensor with one channel for each element. One level, if it is one.
    fn unflattened(&mut self, layer: &str, x: Stored) -> Stored {
        if !x.flat {
            return x;
        }
        let shape = Shape::new(x.shape.len(), 1, 1);
        let sources = x.scale.iter().enumerate().map(|(e, scale)| Some((e as u32, *scale))).collect();
        let operation =
            Logical::Move { input: x.value, moves: Arc::new(Moves { sources, stride: [1, 1] }), bias: x.shift.clone() };
        let value = self.emit(layer, operation, shape);
        made(value, shape, None, x.depth + 1)
    }

    fn linear(&mut self, i: usize, x: Stored, weight: &[f64], bias: &[f64]) -> Stored {
        let node = &self.model.nodes()[i];
        let gauge = self.gauge(i);
        let columns = x.scale.len();
        let repeat = if x.pooled { x.shape.plane() } else { 1 };
        let mut scaled = Vec::with_capacity(weight.len());
        let mut moved = Vec::with_capacity(bias.len());
        for (o, (row, b)) in weight.chunks_exact(columns).zip(bias).enumerate() {
            let (alpha, beta) = gauge.as_ref().map_or((1.0, 0.0), |g| (g.alpha[o], g.beta[o]));
            scaled.extend(row.iter().zip(&x.scale).map(|(w, s)| alpha * w * s / repeat as f64));
            let shift: f64 = row.iter().zip(&x.shift).map(|(w, s)| w * s).sum();
            moved.push(alpha * (b + shift) + beta);
        }
        let weights = Arc::new(DenseWeights { weight: scaled, columns, repeat });
        let value = self.emit(&node.name, Logical::Dense { input: x.value, weights, bias: moved }, node.shape);
        made(value, node.shape, gauge.as_deref(), x.depth + 1)
    }

    /// Different views of one vector: per element on both sides.
    fn alike(a: &mut Stored, b: &mut Stored) {
        if a.flat != b.flat {
            for side in [a, b] {
                if !side.flat {
                    (side.scale, side.shift) = (side.elements(|c| side.scale[c]), side.elements(|c| side.shift[c]));
                    side.flat = true;
                }
            }
        }
    }

    /// `(s u) (t v) = (s t) (u v)`: scales stay pending, shifts are added before. One level.
    fn multiply(&mut self, layer: &str, mut a: Stored, mut b: Stored) -> Stored {
        Self::alike(&mut a, &mut b);
        let [a, b] = [a, b].map(|x| {
            let n = x.scale.len();
            let usable = x.scale.iter().all(|s| *s != 0.0 && (1.0 / s).is_finite());
            match x.shift.iter().all(|t| *t == 0.0) {
                true => x,
                false if usable => {
                    let alpha: Vec<f64> = x.scale.iter().map(|s| 1.0 / s).collect();
                    self.transform(layer, x, &alpha, &vec![0.0; n])
                }
                false => self.plain(layer, x),
            }
        });
        let scale = a.scale.iter().zip(&b.scale).map(|(s, t)| s * t).collect();
        let operation =
            if a.value == b.value { Logical::Square { input: a.value } } else { Logical::Multiply { a: a.value, b: b.value } };
        let value = self.emit(layer, operation, a.shape);
        Stored { value, scale, depth: a.depth.max(b.depth) + 1, ..a }
    }

    fn add(&mut self, layer: &str, mut a: Stored, mut b: Stored) -> Stored {
        Self::alike(&mut a, &mut b);
        let same = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-13 * a.abs());
        if !same(&a.scale, &b.scale) {
            // The side that has levels to spare is rescaled.
            if a.depth > b.depth {
                std::mem::swap(&mut a, &mut b);
            }
            let takes = |to: &Stored, from: &Stored| {
                to.scale.iter().zip(&from.scale).all(|(to, from)| *to != 0.0 && from.abs() <= MOST_GROWTH * to.abs())
            };
            if takes(&b, &a) {
                a = self.rescale(layer, a, &b.scale);
            } else if takes(&a, &b) {
                b = self.rescale(layer, b, &a.scale);
            } else {
                let larger = |(a, b): (&f64, &f64)| if *a == 0.0 && *b == 0.0 { 1.0 } else { a.abs().max(b.abs()) };
                let both: Vec<f64> = a.scale.iter().zip(&b.scale).map(larger).collect();
                (a, b) = (self.rescale(layer, a, &both), self.rescale(layer, b, &both));
            }
        }
        let shift = a.shift.iter().zip(&b.shift).map(|(a, b)| a + b).collect();
        let value = self.emit(layer, Logical::Add { a: a.value, b: b.value }, a.shape);
        Stored { value, shift, depth: a.depth.max(b.depth), ..a }
    }

    /// Stores the same tensor with another scale. One level.
    fn rescale(&mut self, layer: &str, x: Stored, scale: &[f64]) -> Stored {
        let factor = x.elements(|i| x.scale[i] / scale[i]);
        let operation = Logical::Affine { input: x.value, factor: Some(factor), offset: None };
        let value = self.emit(layer, operation, x.shape);
        Stored { value, scale: scale.to_vec(), depth: x.depth + 1, ..x }
    }

    /// Stores `alpha x + beta` itself; free if only the offset differs.
    fn transform(&mut self, layer: &str, x: Stored, alpha: &[f64], beta: &[f64]) -> Stored {
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-12 * (1.0 + a.abs());
        let factor: Vec<f64> = alpha.iter().zip(&x.scale).map(|(a, s)| a * s).collect();
        let offset: Vec<f64> = alpha.iter().zip(&x.shift).zip(beta).map(|((a, s), b)| a * s + b).collect();
        let scaled = !factor.iter().all(|f| near(*f, 1.0));
        let moved = !offset.iter().zip(beta).all(|(o, b)| o.abs() <= 1e-12 * (1.0 + b.abs()));
        if !scaled && !moved {
            return x;
        }
        let operation = Logical::Affine {
            input: x.value,
            factor: scaled.then(|| x.elements(|i| factor[i])),
            offset: moved.then(|| x.elements(|i| offset[i])),
        };
        let value = self.emit(layer, operation, x.shape);
        let scale = alpha.iter().map(|a| 1.0 / a).collect();
        let shift = alpha.iter().zip(beta).map(|(a, b)| -b / a).collect();
        Stored { value, scale, shift, depth: x.depth + usize::from(scaled), ..x }
    }

    /// Stores x itself.
    fn plain(&mut self, layer: &str, x: Stored) -> Stored {
        if x.is_plain() {
            return x;
        }
        let n = x.scale.len();
        self.transform(layer, x, &vec![1.0; n], &vec![0.0; n])
    }
}

/// How far apart the coordinates are that an axis takes, most of them: at its ends, one may stand for what is outside. 1 if not regularly.
fn stride(axis: &[Option<usize>]) -> usize {
    let taken: Vec<usize> = axis.iter().flatten().copied().collect();
    let steps: Vec<usize> = taken.windows(2).map(|w| w[1].saturating_sub(w[0])).collect();
    let Some(step) = steps.get(steps.len() / 2).copied().filter(|step| *step > 1) else { return 1 };
    let others = steps.iter().filter(|s| **s != step).count();
    if others <= 2 && 4 * others <= steps.len() { step } else { 1 }
}

/// A fresh result, stored in the given form.
fn made(value: usize, shape: Shape, gauge: Option<&Gauge>, depth: usize) -> Stored {
    let plain = Gauge { alpha: vec![1.0; shape.channels], beta: vec![0.0; shape.channels] };
    let Gauge { alpha, beta } = gauge.unwrap_or(&plain);
    let scale = alpha.iter().map(|a| 1.0 / a).collect();
    let shift = alpha.iter().zip(beta).map(|(a, b)| if *b == 0.0 { 0.0 } else { -b / a }).collect();
    Stored { value, shape, flat: false, pooled: false, scale, shift, depth }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stride_of_an_axis_is_that_of_most_of_it() {
        let of = |picks: &[usize]| stride(&picks.iter().map(|p| Some(*p)).collect::<Vec<_>>());
        assert_eq!(of(&[0, 2, 4, 6, 8]), 2);
        // The first window of a maximum with padding has no first tap; its second one stands in.
        assert_eq!(of(&[0, 1, 3, 5, 7, 9]), 2);
        assert_eq!(of(&[1, 3, 5, 7, 8]), 2);
        assert_eq!(of(&[0, 1, 2, 3]), 1);
        assert_eq!(of(&[4, 0, 2, 9, 9, 1]), 1);
        assert_eq!((of(&[]), of(&[3]), of(&[0, 3])), (1, 1, 3));
    }
}

//! From a parsed graph to a checked model: order, shapes, weights, limits.

use super::file::{GraphSpec, InputSpec, NodeSpec, OperatorSpec};
use super::*;
use crate::circuits::polynomial::Chebyshev;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

/// Weights that the nodes of any file may take, and how many more for each that is in the file.
const MAX_REPEATED: (usize, usize) = (1 << 24, 8);

type Tensors<'a, 'f> = &'f dyn Fn(&str) -> Option<TensorData<'a>>;

/// Checks a graph and collects its weights.
pub(super) fn build(spec: GraphSpec, tensors: Tensors<'_, '_>) -> Result<Model, ModelError> {
    let input = input(spec.input)?;
    if !spec.classes.is_empty() && spec.classes.len() > MAX_EXTENT {
        return Err(too_large("the number of classes", spec.classes.len() as u128, MAX_EXTENT as u128));
    }
    let order = order(&input.name, &spec.nodes, &spec.output)?;
    let mut values = HashMap::from([(input.name.clone(), Value(0))]);
    let mut nodes: Vec<Node> = Vec::new();
    let (mut work, mut elements) = (0u128, input.shape.len());
    let weights = Weights::default();
    for node in order.into_iter().map(|i| &spec.nodes[i]) {
        let inputs: Vec<Value> = node.inputs.iter().filter_map(|name| values.get(name).copied()).collect();
        let shapes: Vec<Shape> = inputs.iter().map(|v| v.0.checked_sub(1).map_or(input.shape, |i| nodes[i].shape)).collect();
        let (operator, shape) = NodeCheck { node, shapes: &shapes, tensors, weights: &weights }.check()?;
        let checked = Node { name: printable(&node.name).into_owned(), operator, inputs, shape };
        work = work.saturating_add(multiplications(&checked, shapes[0]));
        if work > MAX_MULTIPLICATIONS {
            return Err(too_large("the number of multiplications", work, MAX_MULTIPLICATIONS));
        }
        elements += shape.len();
        if elements > MAX_TOTAL_ELEMENTS {
            return Err(too_large("the size of all activations", elements as u128, MAX_TOTAL_ELEMENTS as u128));
        }
        nodes.push(checked);
        values.insert(node.output.clone(), Value(nodes.len()));
    }
    let output = values[&spec.output];
    let output_divisor = spec.output_divisor.unwrap_or(1.0);
    self::output_divisor(output_divisor)?;
    let classes = spec.classes.iter().map(|name| printable(name).into_owned()).collect();
    let input = Input { name: printable(&input.name).into_owned(), ..input };
    let name = printable(&spec.name).into_owned();
    let model = Model { name, input, classes, nodes, output, output_divisor, training: spec.training };
    let outputs = model.shape(output).len();
    // A single number tells two classes apart, and may be called something itself.
    if !model.classes.is_empty() && ![outputs, model.answers()].contains(&model.classes.len()) {
        return Err(ModelError::Shapes {
            node: spec.output,
            reason: format!("it has {outputs} values, but there are {} class names", model.classes.len()),
        });
    }
    Ok(model)
}

/// Multiplications that a node costs.
pub(super) fn multiplications(node: &Node, input: Shape) -> u128 {
    let out = node.shape.len() as u128;
    match &node.operator {
        Operator::Conv2d(c) => out * (c.weight.len() / node.shape.channels.max(1)) as u128,
        Operator::AvgPool2d { window, .. } => out * (window.kernel[0] * window.kernel[1]) as u128,
        Operator::Linear { weight, .. } => weight.len() as u128,
        Operator::Polynomial(p) => out * p.degree as u128,
        Operator::Fitted(f) => out * f.degrees().into_iter().map(|d| 2 * d).sum::<usize>() as u128,
        _ => input.len() as u128,
    }
}

fn too_large(what: impl Into<String>, found: u128, limit: u128) -> ModelError {
    ModelError::TooLarge { what: what.into(), found, limit }
}

fn bounded_shape(name: &str, shape: Shape) -> Result<Shape, ModelError> {
    let Shape { channels, height, width } = shape;
    for extent in [height, width] {
        if extent == 0 || extent > MAX_EXTENT {
            return Err(too_large(format!("an extent of {name:?} ({shape})"), extent as u128, MAX_EXTENT as u128));
        }
    }
    let elements = channels as u128 * height as u128 * width as u128;
    if elements == 0 || elements > MAX_ELEMENTS as u128 {
        return Err(too_large(format!("the size of {name:?} ({shape})"), elements, MAX_ELEMENTS as u128));
    }
    Ok(shape)
}

fn input(spec: InputSpec) -> Result<Input, ModelError> {
    let bad = |reason: String| Err(ModelError::BadNode { node: spec.name.clone(), reason });
    let shape = bounded_shape(&spec.name, Shape::new(spec.channels, spec.height, spec.width))?;
    if spec.mean.len() != shape.channels || spec.std.len() != shape.channels {
        return bad(format!("{} means and {} deviations for {} channels", spec.mean.len(), spec.std.len(), shape.channels));
    }
    if let Some(m) = spec.mean.iter().find(|m| !m.is_finite()) {
        return bad(format!("mean {m} is not finite"));
    }
    if let Some(s) = spec.std.iter().find(|s| !(s.is_finite() && **s > 0.0 && (1.0 / **s).is_finite())) {
        return bad(format!("standard deviation {s} is not positive and finite"));
    }
    let InputSpec { name, mean, std, normalisation, fit, .. } = spec;
    Ok(Input { name, shape, mean, std, normalisation, fit })
}

/// Errors unless it is a power of two within bounds.
pub(super) fn output_divisor(divisor: f64) -> Result<(), ModelError> {
    if (MAX_OUTPUT_DIVISOR.recip()..=MAX_OUTPUT_DIVISOR).contains(&divisor) && divisor.log2().fract() == 0.0 {
        return Ok(());
    }
    let reason = format!(
        "the divisor {divisor} of the result is not a power of two from 1 / {MAX_OUTPUT_DIVISOR} to {MAX_OUTPUT_DIVISOR}"
    );
    Err(ModelError::BadNode { node: "the graph's output".into(), reason })
}

/// Indices of the nodes that the output depends on, each after its operands.
fn order(input: &str, nodes: &[NodeSpec], output: &str) -> Result<Vec<usize>, ModelError> {
    let mut makers: HashMap<&str, Option<usize>> = HashMap::from([(input, None)]);
    for (i, node) in nodes.iter().enumerate() {
        if makers.insert(&node.output, Some(i)).is_some() {
            return Err(ModelError::DuplicateValue { node: node.name.clone(), value: node.output.clone() });
        }
    }
    let maker = |by: &str, value: &str| match makers.get(value) {
        Some(made) => Ok(made.map_or(Operand::Given, Operand::Node)),
        None => Err(ModelError::UndefinedValue { node: by.to_owned(), value: value.to_owned() }),
    };
    for node in nodes {
        for value in &node.inputs {
            maker(&node.name, value)?;
        }
    }
    let operand = |i: usize, k: usize| nodes[i].inputs.get(k).map(|value| maker(&nodes[i].name, value)).transpose();
    operands_first(nodes.len(), maker("the graph's output", output)?, operand, |i| nodes[i].name.clone())
}

/// One node under check.
struct NodeCheck<'s, 'a, 'f> {
    node: &'s NodeSpec,
    shapes: &'s [Shape],
    tensors: Tensors<'a, 'f>,
    /// What all nodes have taken so far.
    weights: &'s Weights,
}

/// Weights taken from a file.
#[derive(Default)]
struct Weights {
    /// How many, as often as they were taken.
    taken: Cell<usize>,
    /// How many are in the file, and the tensors counted.
    held: Cell<usize>,
    names: RefCell<HashSet<String>>,
}

impl Weights {
    /// Counts what a node takes. Many nodes may name one tensor, so that a small file would become a large model: of it, some
    /// times as many may be taken as there are.
    fn take(&self, name: &str, count: usize) -> Result<(), ModelError> {
        if self.names.borrow_mut().insert(name.to_owned()) {
            self.held.set(self.held.get().saturating_add(count));
        }
        self.taken.set(self.taken.get().saturating_add(count));
        let limit = MAX_REPEATED.0.saturating_add(self.held.get().saturating_mul(MAX_REPEATED.1)).min(MAX_WEIGHTS);
        if self.taken.get() > limit {
            return Err(too_large("the number of weights", self.taken.get() as u128, limit as u128));
        }
        Ok(())
    }
}

impl NodeCheck<'_, '_, '_> {
    fn check(&self) -> Result<(Operator, Shape), ModelError> {
        let expected = if matches!(self.node.operator, OperatorSpec::Add | OperatorSpec::Multiply) { 2 } else { 1 };
        if self.shapes.len() != expected {
            return Err(self.shapes_error(format!("it has {} operands, expected {expected}", self.shapes.len())));
        }
        let x = self.shapes[0];
        let (operator, shape) = match &self.node.operator {
            OperatorSpec::Conv2d { weight, bias, stride, padding, dilation, groups } => {
                self.conv2d(x, weight, bias.as_deref(), (*stride, *padding, *dilation), *groups)?
            }
            OperatorSpec::Polynomial { coefficients } => (self.polynomial(x, coefficients)?, x),
            OperatorSpec::Activation { function } => {
                if let Some(problem) = function.problem() {
                    return Err(self.bad(problem));
                }
                (Operator::Activation(function.clone()), x)
            }
            OperatorSpec::Fitted { function, coefficients, interval, composite } => {
                (self.fitted(function.clone(), coefficients, *interval, *composite)?, x)
            }
            OperatorSpec::BatchNorm { scale, bias, mean, var, epsilon } => {
                (self.batch_norm(x, [scale, bias, mean, var], *epsilon)?, x)
            }
            OperatorSpec::AvgPool2d { kernel, stride, padding, count_include_pad } => {
                let window = Window { kernel: *kernel, stride: stride.unwrap_or(*kernel), padding: *padding, dilation: [1, 1] };
                let (height, width) = self.window(x, &window)?;
                let [top, left, bottom, right] = window.padding;
                if top.max(bottom) >= kernel[0] || left.max(right) >= kernel[1] {
                    return Err(self.bad(format!("padding {padding:?} is not smaller than the kernel {kernel:?}")));
                }
                let operator = Operator::AvgPool2d { window, count_include_pad: *count_include_pad };
                (operator, Shape::new(x.channels, height, width))
            }
            OperatorSpec::GlobalAvgPool => (Operator::GlobalAvgPool, Shape::new(x.channels, 1, 1)),
            OperatorSpec::Flatten => (Operator::Flatten, Shape::new(x.len(), 1, 1)),
            OperatorSpec::Rearrange { channels, rows, columns } => {
                let [channels, rows, columns] = [channels, rows, columns].map(Clone::clone);
                self.rearrange(x, Rearrange { channels, rows, columns })?
            }
            OperatorSpec::Gather { sources, constants } => self.gather(x, sources, constants.as_deref())?,
            OperatorSpec::Add => {
                if self.shapes[1] != x {
                    return Err(self.shapes_error(format!("cannot add {x} and {}", self.shapes[1])));
                }
                (Operator::Add, x)
            }
            OperatorSpec::Multiply => {
                if self.shapes[1] != x {
                    return Err(self.shapes_error(format!("cannot multiply {x} and {}", self.shapes[1])));
                }
                (Operator::Multiply, x)
            }
            OperatorSpec::Linear { weight, bias } => self.linear(x, weight, bias.as_deref())?,
        };
        Ok((operator, bounded_shape(&self.node.name, shape)?))
    }

    fn bad(&self, reason: String) -> ModelError {
        ModelError::BadNode { node: self.node.name.clone(), reason }
    }

    fn shapes_error(&self, reason: String) -> ModelError {
        ModelError::Shapes { node: self.node.name.clone(), reason }
    }

    fn wrong_shape(&self, tensor: &str, found: &[usize], expected: String) -> ModelError {
        ModelError::TensorShape { node: self.node.name.clone(), tensor: tensor.to_owned(), found: found.to_vec(), expected }
    }

    fn window(&self, x: Shape, window: &Window) -> Result<(usize, usize), ModelError> {
        let extents = [&window.kernel[..], &window.stride, &window.dilation].concat();
        if extents.contains(&0) {
            return Err(self.bad("kernel, stride and dilation must be at least 1".into()));
        }
        if let Some(v) = extents.iter().chain(&window.padding).find(|v| **v > MAX_EXTENT) {
            return Err(self.bad(format!("{v} is beyond the limit {MAX_EXTENT}")));
        }
        let [top, left, bottom, right] = window.padding;
        let padded = (x.height + top + bottom) as u128 * (x.width + left + right) as u128 * x.channels as u128;
        if padded > MAX_ELEMENTS as u128 {
            return Err(too_large(format!("the padded input of {:?}", self.node.name), padded, MAX_ELEMENTS as u128));
        }
        window.output(x.height, x.width).ok_or_else(|| {
            let reason =
                format!("the kernel {:?} (dilation {:?}) is larger than the padded input {x}", window.kernel, window.dilation);
            self.shapes_error(reason)
        })
    }

    fn conv2d(
        &self,
        x: Shape,
        weight: &str,
        bias: Option<&str>,
        (stride, padding, dilation): ([usize; 2], [usize; 4], [usize; 2]),
        groups: usize,
    ) -> Result<(Operator, Shape), ModelError> {
        let data = self.find(weight)?;
        let [out, per_group, kh, kw] = data.shape[..] else {
            return Err(self.wrong_shape(weight, &data.shape, "[out, in / groups, rows, columns]".into()));
        };
        if groups == 0 || !x.channels.is_multiple_of(groups) || !out.is_multiple_of(groups) || out == 0 {
            return Err(self.bad(format!("{groups} groups do not divide {} channels into {out}", x.channels)));
        }
        if per_group != x.channels / groups {
            return Err(self.wrong_shape(weight, &data.shape, format!("[{out}, {}, {kh}, {kw}]", x.channels / groups)));
        }
        let window = Window { kernel: [kh, kw], stride, padding, dilation };
        let (height, width) = self.window(x, &window)?;
        let conv = Conv2d { weight: self.finite(weight, &data)?, bias: self.bias(bias, out)?, window, groups };
        Ok((Operator::Conv2d(conv), Shape::new(out, height, width)))
    }

    fn rearrange(&self, x: Shape, map: Rearrange) -> Result<(Operator, Shape), ModelError> {
        for (axis, extent) in [(&map.channels, x.channels), (&map.rows, x.height), (&map.columns, x.width)] {
            if axis.is_empty() || axis.len() > MAX_EXTENT {
                return Err(too_large(format!("an extent of {:?}", self.node.output), axis.len() as u128, MAX_EXTENT as u128));
            }
            if let Some(at) = axis.iter().flatten().find(|at| **at >= extent) {
                return Err(self.bad(format!("it reads coordinate {at} of an axis of {extent}")));
            }
        }
        let shape = map.shape();
        Ok((Operator::Rearrange(map), shape))
    }

    fn gather(&self, x: Shape, sources: &str, constants: Option<&str>) -> Result<(Operator, Shape), ModelError> {
        let data = self.find(sources)?;
        let [channels, height, width] = data.shape[..] else {
            return Err(self.wrong_shape(sources, &data.shape, "[channels, rows, columns] of the result".into()));
        };
        let shape = bounded_shape(&self.node.output, Shape::new(channels, height, width))?;
        let index = |at: f64| match at {
            -1.0 => Ok(Gather::NONE),
            at if at.fract() == 0.0 && (0.0..x.len() as f64).contains(&at) => Ok(at as u32),
            at => Err(self.bad(format!("it reads element {at} of a tensor of {}", x.len()))),
        };
        let sources = self.finite(sources, &data)?.into_iter().map(index).collect::<Result<_, _>>()?;
        let constants = match constants {
            Some(name) => {
                let data = self.find(name)?;
                if data.shape != [channels, height, width] {
                    return Err(self.wrong_shape(name, &data.shape, format!("[{channels}, {height}, {width}]")));
                }
                self.finite(name, &data)?
            }
            None => Vec::new(),
        };
        Ok((Operator::Gather(Gather { shape, sources, constants }), shape))
    }

    fn linear(&self, x: Shape, weight: &str, bias: Option<&str>) -> Result<(Operator, Shape), ModelError> {
        if x.plane() != 1 {
            return Err(self.shapes_error(format!("a linear layer takes a vector, {x} came; put flatten before it")));
        }
        let data = self.find(weight)?;
        let [out, inputs] = data.shape[..] else {
            return Err(self.wrong_shape(weight, &data.shape, format!("[out, {}]", x.channels)));
        };
        if inputs != x.channels || out == 0 {
            return Err(self.wrong_shape(weight, &data.shape, format!("[out, {}]", x.channels)));
        }
        let operator = Operator::Linear { weight: self.finite(weight, &data)?, bias: self.bias(bias, out)? };
        Ok((operator, Shape::new(out, 1, 1)))
    }

    fn polynomial(&self, x: Shape, name: &str) -> Result<Operator, ModelError> {
        let data = self.find(name)?;
        let (rows, size) = match data.shape[..] {
            [size] => (None, size),
            [rows, size] => (Some(rows), size),
            _ => (None, 0),
        };
        if size == 0 || rows.is_some_and(|r| r != x.channels) {
            return Err(self.wrong_shape(name, &data.shape, format!("[degree + 1] or [{}, degree + 1]", x.channels)));
        }
        if size - 1 > MAX_POLYNOMIAL_DEGREE {
            let what = format!("the degree of {:?}", self.node.name);
            return Err(too_large(what, size as u128 - 1, MAX_POLYNOMIAL_DEGREE as u128));
        }
        let coefficients = self.finite(name, &data)?;
        Ok(Operator::Polynomial(Polynomial { coefficients, per_channel: rows.is_some(), degree: size - 1 }))
    }

    fn fitted(
        &self,
        function: ActivationFunction,
        coefficients: &[String],
        interval: [f64; 2],
        composite: bool,
    ) -> Result<Operator, ModelError> {
        let series = |name: &String, interval: [f64; 2]| {
            let data = self.find(name)?;
            let [size] = data.shape[..] else {
                return Err(self.wrong_shape(name, &data.shape, "[degree + 1]".into()));
            };
            if size > MAX_POLYNOMIAL_DEGREE + 1 {
                let what = format!("the degree of {:?}", self.node.name);
                return Err(too_large(what, size as u128 - 1, MAX_POLYNOMIAL_DEGREE as u128));
            }
            Chebyshev::new(self.finite(name, &data)?, interval).map_err(|e| self.bad(e.to_string()))
        };
        let form = match coefficients {
            [one] if !composite => ActivationForm::Chebyshev(series(one, interval)?),
            [first, behind @ ..] if !composite && coefficients.len() <= MAX_NODES => {
                let behind = behind.iter().map(|name| series(name, [-1.0, 1.0]));
                ActivationForm::Composite(std::iter::once(series(first, interval)).chain(behind).collect::<Result<_, _>>()?)
            }
            _ if composite && interval[0] == -interval[1] && coefficients.len() <= MAX_NODES => ActivationForm::Sign {
                stages: coefficients.iter().map(|name| series(name, [-1.0, 1.0])).collect::<Result<_, _>>()?,
                bound: interval[1],
            },
            _ => {
                let reason =
                    format!("{} polynomials on {interval:?} (composite: {composite}) are no form of it", coefficients.len());
                return Err(self.bad(reason));
            }
        };
        let fitted = FittedActivation { function, form };
        match fitted.problem() {
            Some(problem) => Err(self.bad(problem)),
            None => Ok(Operator::Fitted(fitted)),
        }
    }

    fn batch_norm(&self, x: Shape, names: [&String; 4], epsilon: f64) -> Result<Operator, ModelError> {
        let [scale, bias, mean, var] = names;
        let of = |name: &str| self.vector(name, x.channels);
        let (scale, bias, mean, variance) = (of(scale)?, of(bias)?, of(mean)?, of(var)?);
        if !epsilon.is_finite() {
            return Err(self.bad(format!("epsilon {epsilon} is not finite")));
        }
        if let Some((i, v)) = variance.iter().enumerate().find(|(_, v)| **v + epsilon <= 0.0) {
            return Err(self.bad(format!("variance {v} of channel {i} plus epsilon {epsilon} is not positive")));
        }
        let factor: Vec<f64> = scale.iter().zip(&variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
        let offset: Vec<f64> = bias.iter().zip(&mean).zip(&factor).map(|((b, m), f)| b - m * f).collect();
        if let Some(i) = factor.iter().zip(&offset).position(|(f, o)| !f.is_finite() || !o.is_finite()) {
            return Err(self.bad(format!("channel {i} scales by {} and shifts by {}: not finite", factor[i], offset[i])));
        }
        Ok(Operator::BatchNorm { factor, offset })
    }

    fn bias(&self, name: Option<&str>, len: usize) -> Result<Vec<f64>, ModelError> {
        name.map_or_else(|| Ok(vec![0.0; len]), |name| self.vector(name, len))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f64>, ModelError> {
        let data = self.find(name)?;
        if data.shape != [len] {
            return Err(self.wrong_shape(name, &data.shape, format!("[{len}]")));
        }
        self.finite(name, &data)
    }

    fn find(&self, name: &str) -> Result<TensorData<'_>, ModelError> {
        let missing = || ModelError::MissingTensor { node: self.node.name.clone(), tensor: name.to_owned() };
        (self.tensors)(name).ok_or_else(missing)
    }

    fn finite(&self, name: &str, data: &TensorData<'_>) -> Result<Vec<f64>, ModelError> {
        self.weights.take(name, data.shape.iter().fold(1usize, |n, d| n.saturating_mul(*d)))?;
        let values = decode(name, data)?;
        match values.iter().position(|v| !v.is_finite()) {
            Some(index) => Err(ModelError::NotFinite { tensor: name.to_owned(), index, value: values[index] }),
            None => Ok(values),
        }
    }
}

/// Little-endian values as f64.
fn decode(name: &str, data: &TensorData<'_>) -> Result<Vec<f64>, ModelError> {
    fn each<const N: usize>(bytes: &[u8], to: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<N>().0.iter().map(|b| to(*b)).collect()
    }
    let values = match &data.dtype {
        NumberType::F64 => each(data.bytes, f64::from_le_bytes),
        NumberType::F32 => each(data.bytes, |b| f32::from_le_bytes(b).into()),
        NumberType::F16 => each(data.bytes, |b| half_to_f64(u16::from_le_bytes(b))),
        NumberType::BF16 => each(data.bytes, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16).into()),
        NumberType::Other(dtype) => return Err(ModelError::TensorType { tensor: name.to_owned(), dtype: dtype.clone() }),
    };
    let expected = data.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    if expected != Some(values.len()) {
        let what = format!("the number of values of {name:?}, shape {:?},", data.shape);
        return Err(too_large(what, values.len() as u128, expected.unwrap_or(0) as u128));
    }
    Ok(values)
}

/// IEEE 754 binary16.
pub(in crate::nn) fn half_to_f64(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        e => (1.0 + fraction / 1024.0) * 2f64.powi(e - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::half_to_f64;

    #[test]
    fn half_precision_values() {
        for (bits, want) in [(0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333251953125), (0x0001, 2f64.powi(-24)), (0x7bff, 65504.0)]
        {
            assert_eq!(half_to_f64(bits), want);
        }
        assert!(half_to_f64(0x7c00).is_infinite() && half_to_f64(0x7e00).is_nan());
    }
}

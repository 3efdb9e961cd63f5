//! Direct evaluation of a model on clear numbers: the definition that encrypted results are compared with, and what
//! `eval` measures accuracy with.

mod conv;
mod pointwise;

use super::model::{Gather, Model, Operator, Polynomial, Rearrange, Value, Window};
use super::tensor::{Element, Shape, ShapeMismatch, Tensor};
use conv::PackedConv;
use pointwise::Pointwise;
use rayon::prelude::*;

/// A model with its weights arranged for speed, in f32 (fast) or f64 (an oracle).
#[derive(Debug, Clone)]
pub struct Network<T: Element = f32> {
    input: Shape,
    nodes: Vec<PreparedNode<T>>,
    output: Value,
}

#[derive(Debug, Clone)]
struct PreparedNode<T> {
    operator: Prepared<T>,
    inputs: Vec<Value>,
    shape: Shape,
    /// Values no later node reads.
    dead: Vec<Value>,
}

#[derive(Debug, Clone)]
enum Prepared<T> {
    Conv(PackedConv<T>),
    Pointwise(Pointwise<T>),
    AvgPool { window: Window, count_include_pad: bool },
    GlobalAvgPool,
    Flatten,
    Rearrange(Rearrange),
    Gather(Gather),
    Add,
    Multiply,
    Linear { weight: Vec<T>, bias: Vec<T> },
}

fn cast<T: Element>(values: &[f64]) -> Vec<T> {
    values.iter().map(|v| T::from_f64(*v)).collect()
}

impl<T: Element> Network<T> {
    /// Arranges a model's weights. Batch normalisation behind a convolution is folded into it.
    pub fn new(model: &Model) -> Self {
        let model = model.fold_batch_norms();
        let mut last_use = vec![0; model.nodes().len() + 1];
        for (i, node) in model.nodes().iter().enumerate() {
            node.inputs.iter().for_each(|v| last_use[v.0] = i);
        }
        let nodes = model.nodes().iter().enumerate().map(|(i, node)| {
            let mut dead: Vec<Value> =
                node.inputs.iter().copied().filter(|v| last_use[v.0] == i && *v != model.output()).collect();
            dead.dedup();
            PreparedNode {
                operator: prepare(&node.operator, model.shape(node.inputs[0])),
                inputs: node.inputs.clone(),
                shape: node.shape,
                dead,
            }
        });
        Self { input: model.input().shape, nodes: nodes.collect(), output: model.output() }
    }

    /// The result for one picture, already normalised.
    ///
    /// # Errors
    /// [`ShapeMismatch`] for a tensor of another shape than the network takes.
    pub fn evaluate(&self, x: &Tensor<T>) -> Result<Tensor<T>, ShapeMismatch> {
        self.evaluate_with(x, |_, _, _| {})
    }

    /// As [`Self::evaluate`]; `watch(node, operand, result)` sees each node's first operand and result. Nodes are counted
    /// after [`Model::fold_batch_norms`].
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn evaluate_with(
        &self,
        x: &Tensor<T>,
        mut watch: impl FnMut(usize, &Tensor<T>, &Tensor<T>),
    ) -> Result<Tensor<T>, ShapeMismatch> {
        self.evaluate_altering(x, |node, operand, result| watch(node, operand, result))
    }

    /// As [`Self::evaluate_altering`], of several pictures node by node: `alter(node, operands, results)` sees and may change those of all
    /// pictures. All threads; all pictures' values are held at once.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn evaluate_together(
        &self,
        pictures: &[&Tensor<T>],
        mut alter: impl FnMut(usize, &[&Tensor<T>], &mut [Tensor<T>]),
    ) -> Result<Vec<Tensor<T>>, ShapeMismatch> {
        if let Some(x) = pictures.iter().find(|x| x.shape() != self.input) {
            return Err(ShapeMismatch { expected: self.input, found: x.shape() });
        }
        let empty = Tensor::zeros(Shape::new(0, 0, 0));
        let mut values: Vec<Vec<Tensor<T>>> = pictures.iter().map(|x| vec![(*x).clone()]).collect();
        for (i, node) in self.nodes.iter().enumerate() {
            let of_one = |values: &Vec<Tensor<T>>| node.run(&values[node.inputs[0].0], node.inputs.get(1).map(|v| &values[v.0]));
            let mut results: Vec<Tensor<T>> = values.par_iter().map(of_one).collect();
            let operands: Vec<&Tensor<T>> = values.iter().map(|values| &values[node.inputs[0].0]).collect();
            alter(i, &operands, &mut results);
            for (values, result) in values.iter_mut().zip(results) {
                node.dead.iter().for_each(|v| values[v.0] = empty.clone());
                values.push(result);
            }
        }
        Ok(values.into_iter().map(|mut values| values.swap_remove(self.output.0)).collect())
    }

    /// As [`Self::evaluate_with`]; `alter(node, operand, result)` may change the result before anything reads it.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn evaluate_altering(
        &self,
        x: &Tensor<T>,
        mut alter: impl FnMut(usize, &Tensor<T>, &mut Tensor<T>),
    ) -> Result<Tensor<T>, ShapeMismatch> {
        if x.shape() != self.input {
            return Err(ShapeMismatch { expected: self.input, found: x.shape() });
        }
        let empty = Tensor::zeros(Shape::new(0, 0, 0));
        let mut values = vec![x.clone()];
        for (i, node) in self.nodes.iter().enumerate() {
            let first = &values[node.inputs[0].0];
            let mut result = node.run(first, node.inputs.get(1).map(|v| &values[v.0]));
            alter(i, first, &mut result);
            for v in &node.dead {
                values[v.0] = empty.clone();
            }
            values.push(result);
        }
        Ok(values.swap_remove(self.output.0))
    }
}

fn prepare<T: Element>(operator: &Operator, input: Shape) -> Prepared<T> {
    match operator {
        Operator::Conv2d(c) => Prepared::Conv(PackedConv::new(c, input)),
        Operator::Polynomial(p) => {
            let rows = if p.per_channel { input.channels } else { 1 };
            let rows = (0..rows).map(|c| cast(Polynomial::of_channel(p, c))).collect();
            Prepared::Pointwise(Pointwise::Polynomial { rows })
        }
        Operator::Activation(function) => Prepared::Pointwise(Pointwise::Exact(function.clone())),
        Operator::Fitted(fitted) => Prepared::Pointwise(Pointwise::fitted(fitted)),
        Operator::BatchNorm { factor, offset } => {
            Prepared::Pointwise(Pointwise::Affine { factor: cast(factor), offset: cast(offset) })
        }
        Operator::AvgPool2d { window, count_include_pad } => {
            Prepared::AvgPool { window: *window, count_include_pad: *count_include_pad }
        }
        Operator::GlobalAvgPool => Prepared::GlobalAvgPool,
        Operator::Flatten => Prepared::Flatten,
        Operator::Rearrange(map) => Prepared::Rearrange(map.clone()),
        Operator::Gather(map) => Prepared::Gather(map.clone()),
        Operator::Add => Prepared::Add,
        Operator::Multiply => Prepared::Multiply,
        Operator::Linear { weight, bias } => Prepared::Linear { weight: cast(weight), bias: cast(bias) },
    }
}

impl<T: Element> PreparedNode<T> {
    fn run(&self, x: &Tensor<T>, second: Option<&Tensor<T>>) -> Tensor<T> {
        match &self.operator {
            Prepared::Conv(conv) => conv.run(x, self.shape),
            Prepared::Pointwise(function) => function.run(x),
            Prepared::AvgPool { window, count_include_pad } => avg_pool(x, window, *count_include_pad, self.shape),
            Prepared::GlobalAvgPool => {
                let mut out = Tensor::zeros(self.shape);
                let plane = x.shape().plane();
                for (value, channel) in out.values_mut().iter_mut().zip(x.values().chunks_exact(plane)) {
                    *value = T::from_f64(channel.iter().map(|v| v.to_f64()).sum::<f64>() / plane as f64);
                }
                out
            }
            Prepared::Flatten => x.clone().flatten(),
            Prepared::Rearrange(map) => {
                let mut out = Tensor::zeros(self.shape);
                map.for_each(x.shape(), |to, from| out.values_mut()[to] = x.values()[from]);
                out
            }
            Prepared::Gather(map) => {
                let mut out = Tensor::zeros(self.shape);
                out.values_mut().iter_mut().zip(&map.constants).for_each(|(to, c)| *to = T::from_f64(*c));
                map.for_each(|to, from| out.values_mut()[to] += x.values()[from]);
                out
            }
            Prepared::Add => {
                let mut out = x.clone();
                if let Some(second) = second {
                    out.values_mut().iter_mut().zip(second.values()).for_each(|(a, b)| *a += *b);
                }
                out
            }
            Prepared::Multiply => {
                let mut out = x.clone();
                if let Some(second) = second {
                    out.values_mut().iter_mut().zip(second.values()).for_each(|(a, b)| *a = *a * *b);
                }
                out
            }
            Prepared::Linear { weight, bias } => {
                let mut out = Tensor::zeros(self.shape);
                let rows = weight.chunks_exact(x.shape().len());
                for ((value, row), b) in out.values_mut().iter_mut().zip(rows).zip(bias) {
                    let sum: f64 = row.iter().zip(x.values()).map(|(w, v)| w.to_f64() * v.to_f64()).sum();
                    *value = T::from_f64(sum + b.to_f64());
                }
                out
            }
        }
    }
}

fn avg_pool<T: Element>(x: &Tensor<T>, window: &Window, count_include_pad: bool, shape: Shape) -> Tensor<T> {
    let mut out = Tensor::zeros(shape);
    let input = x.shape();
    // The part of the window that starts at `first` (padding included) and lies within `size`.
    let inside = |first: usize, before: usize, kernel: usize, size: usize| {
        let start = first.max(before) - before;
        start..(first + kernel).saturating_sub(before).min(size).max(start)
    };
    let [kh, kw] = window.kernel;
    for c in 0..shape.channels {
        let channel = x.channel(c);
        for y in 0..shape.height {
            let rows = inside(y * window.stride[0], window.padding[0], kh, input.height);
            for x in 0..shape.width {
                let columns = inside(x * window.stride[1], window.padding[1], kw, input.width);
                let mut sum = T::default();
                for row in rows.clone() {
                    channel[row * input.width..][columns.clone()].iter().for_each(|v| sum += *v);
                }
                let count = if count_include_pad { kh * kw } else { rows.len() * columns.len() };
                out.values_mut()[(c * shape.height + y) * shape.width + x] = sum / T::from_f64(count.max(1) as f64);
            }
        }
    }
    out
}

/// Smallest and largest value seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Range {
    /// Nothing seen yet.
    pub const EMPTY: Self = Self { min: f64::INFINITY, max: f64::NEG_INFINITY };

    /// The larger magnitude of the two ends, 0 if nothing was seen.
    pub fn magnitude(&self) -> f64 {
        self.max.max(-self.min).max(0.0)
    }

    /// The range of both.
    pub fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// What each node of a model is fed, over the pictures observed so far.
#[derive(Debug, Clone)]
pub struct Ranges {
    names: Vec<String>,
    inputs: Vec<Range>,
}

impl Ranges {
    /// Of a model, nothing observed.
    pub fn new(model: &Model) -> Self {
        let names: Vec<_> = model.fold_batch_norms().nodes().iter().map(|n| n.name.clone()).collect();
        Self { inputs: vec![Range::EMPTY; names.len()], names }
    }

    /// Evaluates one picture and widens the ranges by what the nodes were fed; returns the result.
    ///
    /// # Errors
    /// [`ShapeMismatch`] for a picture of another shape than the network takes.
    pub fn observe<T: Element>(&mut self, network: &Network<T>, x: &Tensor<T>) -> Result<Tensor<T>, ShapeMismatch> {
        network.evaluate_with(x, |node, operand, _| {
            let seen = operand.values().iter().fold(Range::EMPTY, |r, v| {
                let v = v.to_f64();
                Range { min: r.min.min(v), max: r.max.max(v) }
            });
            self.inputs[node] = self.inputs[node].union(seen);
        })
    }

    /// The ranges of two sets of pictures together.
    pub fn merge(mut self, other: &Self) -> Self {
        self.inputs.iter_mut().zip(&other.inputs).for_each(|(a, b)| *a = a.union(*b));
        self
    }

    /// Node names with the range of their first operand.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Range)> {
        self.names.iter().map(String::as_str).zip(self.inputs.iter().copied())
    }
}

//! Sums and means over axes, and tensors stacked along a new axis, whose sums and products are those of what is stacked.

use super::attributes::Attributes;
use super::constant::{Constant, Data};
use super::graph::{Importer, Known, Refusal, Traced};
use super::layers::reduced_axes;
use super::op::Op;
use crate::nn::model::formula::{Binary, Unary};
use crate::nn::model::{Formula, OperatorSpec, Window};
use crate::nn::tensor::Shape;
use std::rc::Rc;

/// Rank of a picture with its batch.
const PICTURE: usize = 4;

/// Tensors joined along an axis on which each has one element; they have that axis too.
pub(super) struct Stack {
    pub axis: usize,
    pub parts: Vec<Traced>,
}

/// What is left of the extents when some axes are reduced.
fn left_of(dims: &[usize], axes: &[usize], keep: bool) -> Vec<usize> {
    dims.iter().enumerate().filter_map(|(at, d)| if axes.contains(&at) { keep.then_some(1) } else { Some(*d) }).collect()
}

impl Importer<'_> {
    /// ReduceMean, ReduceSum, ReduceL1 (the sum of magnitudes) and ReduceSumSquare.
    pub(super) fn reduce_sum(
        &mut self,
        x: &Traced,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
        name: &str,
    ) -> Result<Traced, Refusal> {
        let Some(axes) = reduced_axes(x.dims.len(), operands, a)? else { return Ok(x.clone()) };
        let x = match a.0.op() {
            Op::ReduceL1 => self.unary(x, Unary::Absolute, name)?,
            Op::ReduceSumSquare => self.binary(Binary::Multiply, &Known::Traced(x.clone()), &Known::Traced(x.clone()), name)?,
            _ => x.clone(),
        };
        let mean = a.0.op() == Op::ReduceMean;
        self.summed(&x, &axes, mean, a.int("keepdims", 1) != 0, name)
    }

    fn summed(&mut self, x: &Traced, axes: &[usize], mean: bool, keep: bool, name: &str) -> Result<Traced, Refusal> {
        let count: usize = axes.iter().map(|at| x.dims[*at]).product();
        let dims = left_of(&x.dims, axes, keep);
        if let Some(stack) = self.stack_of(x).filter(|stack| axes == [stack.axis]) {
            let mut parts = stack.parts.iter();
            let mut sum = parts.next().cloned().ok_or("it sums nothing")?;
            for part in parts {
                sum = self.binary(Binary::Add, &Known::Traced(sum), &Known::Traced(part.clone()), name)?;
            }
            let sum = if mean { self.scaled(sum, 1.0 / count as f64, name)? } else { sum };
            return Ok(Traced { dims, ..sum });
        }
        let planes = axes.iter().all(|at| *at >= 2);
        let made = match x.dims[..] {
            [1, _, _, ..] if axes.iter().copied().eq(2..x.dims.len()) => {
                let average = self.global_average(x, true, name)?;
                if mean { average } else { self.scaled(average, count as f64, name)? }
            }
            // Of rows or of columns.
            [1, _, height, width] if planes => {
                let (value, shape) = self.picture(x, name)?;
                let kernel = [2, 3].map(|at| if axes.contains(&at) { [height, width][at - 2] } else { 1 });
                let window = Window { kernel, stride: kernel, padding: [0; 4], dilation: [1, 1] };
                let average = self.pool(value, shape, window, true, name)?;
                if mean { average } else { self.scaled(average, count as f64, name)? }
            }
            // Of channels, after the plane if that goes too.
            [1, channels, ..] if x.dims.len() <= PICTURE && axes == [1] => {
                let factor = if mean { 1.0 / count as f64 } else { 1.0 };
                self.sum_of_channels(x, channels, factor, name)?
            }
            [1, _, _, ..] if x.dims.len() <= PICTURE && axes.contains(&1) && axes.len() > 1 && axes[0] > 0 => {
                let plane = self.summed(x, &axes[1..], mean, true, name)?;
                self.summed(&plane, &[1], mean, true, name)?
            }
            _ => {
                // What is kept becomes the channels of a picture, and what is averaged its plane.
                let kept: Vec<usize> = (0..x.dims.len()).filter(|at| !axes.contains(at)).collect();
                let turned = self.transposed(x, &[&kept[..], axes].concat(), name)?;
                let size: usize = kept.iter().map(|at| x.dims[*at]).product();
                let picture = Traced { dims: vec![1, size, count, 1], ..turned };
                let average = self.global_average(&picture, false, name)?;
                if mean { average } else { self.scaled(average, count as f64, name)? }
            }
        };
        Ok(Traced { dims, ..made })
    }

    fn scaled(&mut self, x: Traced, factor: f64, name: &str) -> Result<Traced, Refusal> {
        let factor = Constant { dims: Vec::new(), data: Data::Real(vec![factor]) };
        self.binary(Binary::Multiply, &Known::Traced(x), &Known::Constant(Rc::new(factor)), name)
    }

    /// A convolution with one weight for all channels.
    fn sum_of_channels(&mut self, x: &Traced, channels: usize, factor: f64, name: &str) -> Result<Traced, Refusal> {
        let value = self.channelled(x, name)?;
        let shape = self.shape(value);
        if shape.channels != channels {
            return Err(Refusal::Unsupported("channels that were reshaped are summed".into()));
        }
        let weight = self.keep_values(vec![1, channels, 1, 1], vec![factor; channels])?;
        let operator = OperatorSpec::Conv2d { weight, bias: None, stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 };
        let base = self.emit(name, &[value], operator, Shape::new(1, shape.height, shape.width))?;
        Ok(Traced::of(base, x.dims.clone()))
    }

    /// What x is a stack of.
    pub(super) fn stack_of(&self, x: &Traced) -> Option<Rc<Stack>> {
        let (dims, stack) = self.stacks.get(&x.base)?;
        (*dims == x.dims && x.expression == Formula::x()).then(|| stack.clone())
    }

    /// Notes that a tensor is one of several along an axis of more than a picture has.
    pub(super) fn note_stack(&mut self, made: &Traced, axis: usize, parts: Vec<Traced>) {
        let apart = parts.len() == made.dims[axis] && parts.iter().all(|part| part.dims[axis] == 1);
        if made.dims.len() > PICTURE && parts.len() > 1 && apart {
            self.stacks.insert(made.base, (made.dims.clone(), Rc::new(Stack { axis, parts })));
        }
    }

    /// A sum or product of a stack and another tensor, part by part, and stacked again: the parts are pictures as they are, a stack of
    /// them is none. None if neither is a stack.
    pub(super) fn part_by_part(&mut self, op: Binary, a: &Traced, b: &Traced, name: &str) -> Result<Option<Traced>, Refusal> {
        let Some(stack) = self.stack_of(a).or_else(|| self.stack_of(b)) else { return Ok(None) };
        let fits = a.dims.len() == b.dims.len() && matches!(op, Binary::Add | Binary::Subtract | Binary::Multiply);
        if !fits || a.dims[stack.axis].max(b.dims[stack.axis]) != stack.parts.len() {
            return Ok(None);
        }
        let (at, count) = (stack.axis, stack.parts.len());
        let without = |dims: &[usize]| [&dims[..at], &dims[at + 1..]].concat();
        let mut parts = Vec::with_capacity(count);
        for i in 0..count {
            let [a, b] = [self.part(a, at, i, name)?, self.part(b, at, i, name)?];
            let [a, b] = [a, b].map(|x| Known::Traced(Traced { dims: without(&x.dims), ..x }));
            let made = self.binary(op, &a, &b, &format!("{name}.{i}"))?;
            let mut dims = made.dims.clone();
            dims.insert(at, 1);
            parts.push(Known::Traced(Traced { dims, ..made }));
        }
        let parts: Vec<Option<Known>> = parts.into_iter().map(Some).collect();
        self.joined(&parts, at, name).map(Some)
    }

    /// The part of a tensor at an index of an axis; all of it where that has one element.
    fn part(&mut self, x: &Traced, at: usize, i: usize, name: &str) -> Result<Traced, Refusal> {
        match self.stack_of(x).filter(|stack| stack.axis == at) {
            Some(stack) => Ok(stack.parts[i].clone()),
            None if x.dims[at] == 1 => Ok(x.clone()),
            None => self.along(x, at, vec![Some(i)], 0.0, name),
        }
    }
}

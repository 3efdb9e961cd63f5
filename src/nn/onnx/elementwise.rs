//! Elementwise operators: gathered into expressions, and made nodes of when something else reads them.

use super::constant::Constant;
use super::expression::{Binary, Expression, Recognised, Unary};
use super::graph::{Importer, Known, Refusal, Traced};
use super::view::natural;
use crate::nn::model::{ActivationFunction, OperatorSpec};
use std::rc::Rc;

const PRODUCT: &str =
    "products of two tensors (gates, attention, squeeze-and-excitation) are not supported: use a network without them";

impl<'f> Importer<'f> {
    /// A function of every element.
    pub fn unary(&mut self, x: &Traced, op: Unary, name: &str) -> Result<Traced, Refusal> {
        let x = self.growing(x, name)?;
        Ok(Traced { expression: Expression::unary(op, &x.expression), name: name.into(), ..x })
    }

    /// A function of two operands of which one at least depends on the picture.
    pub fn binary(&mut self, op: Binary, a: &Known, b: &Known, name: &str) -> Result<Traced, Refusal> {
        match (a, b) {
            (Known::Traced(a), Known::Traced(b)) => self.both(op, a, b, name),
            (Known::Traced(x), Known::Constant(c)) => self.with_constant(op, x, c, false, name),
            (Known::Constant(c), Known::Traced(x)) => self.with_constant(op, x, c, true, name),
            _ => Err(Refusal::Lost),
        }
    }

    fn both(&mut self, op: Binary, a: &Traced, b: &Traced, name: &str) -> Result<Traced, Refusal> {
        if a.dims != b.dims {
            return Err(match op {
                Binary::Multiply | Binary::Divide => Refusal::Unsupported(PRODUCT.into()),
                _ => Refusal::Unsupported(
                    format!("tensors of shapes {:?} and {:?} are combined; only equal ones can be", a.dims, b.dims).into(),
                ),
            });
        }
        let (mut a, mut b) = (a.clone(), b.clone());
        if a.base == b.base {
            (a, b) = (self.growing(&a, name)?, self.growing(&b, name)?);
        }
        if a.base == b.base {
            return Ok(Traced { expression: Expression::binary(op, &a.expression, &b.expression), name: name.into(), ..a });
        }
        if !matches!(op, Binary::Add | Binary::Subtract) {
            return Err(Refusal::Unsupported(PRODUCT.into()));
        }
        if op == Binary::Subtract {
            b = self.unary(&b, Unary::Negative, name)?;
        }
        let mut operands = [self.settle(&a, name)?, self.settle(&b, name)?];
        if self.shape(operands[0]) != self.shape(operands[1]) {
            // Reshaped in different ways.
            operands = [self.channelled(&a, name)?, self.channelled(&b, name)?];
        }
        if self.shape(operands[0]) != self.shape(operands[1]) {
            let shape = natural(&a.dims)?;
            operands = [self.placed(&a, shape, name)?, self.placed(&b, shape, name)?];
        }
        let shape = self.shape(operands[0]);
        let base = self.emit(name, &operands, OperatorSpec::Add, shape)?;
        Ok(Traced::of(base, a.dims))
    }

    /// `swapped`: the constant is the first operand.
    fn with_constant(&mut self, op: Binary, x: &Traced, c: &Constant, swapped: bool, name: &str) -> Result<Traced, Refusal> {
        if let Some(value) = c.uniform().filter(|_| c.dims.len() <= x.dims.len()) {
            let x = self.growing(x, name)?;
            let c = Rc::new(Expression::Constant(value));
            let expression =
                if swapped { Expression::binary(op, &c, &x.expression) } else { Expression::binary(op, &x.expression, &c) };
            return Ok(Traced { expression, name: name.into(), ..x });
        }
        // One number a channel: the second axis, with everything else 1.
        let from_right = x.dims.len().saturating_sub(2);
        let per_channel = c.dims.len() <= x.dims.len()
            && x.dims.len() >= 2
            && c.dims.iter().rev().enumerate().all(|(i, d)| if i == from_right { *d == x.dims[1] } else { *d == 1 });
        let values = c.real();
        let (factor, offset): (Vec<f64>, Vec<f64>) = match (op, swapped) {
            _ if !per_channel => {
                return Err(Refusal::Unsupported("a constant for each pixel is combined; one for each channel can be".into()));
            }
            (Binary::Add, _) => (vec![1.0; values.len()], values),
            (Binary::Subtract, false) => (vec![1.0; values.len()], values.into_iter().map(|v| -v).collect()),
            (Binary::Subtract, true) => (vec![-1.0; values.len()], values),
            (Binary::Multiply, _) => (values.clone(), vec![0.0; values.len()]),
            (Binary::Divide, false) => (values.iter().map(|v| 1.0 / v).collect(), vec![0.0; values.len()]),
            _ => {
                return Err(Refusal::Unsupported(
                    "with a constant for each channel, only sums and products are supported".into(),
                ));
            }
        };
        let value = self.channelled(x, name)?;
        if self.shape(value).channels != factor.len() {
            return Err(Refusal::Unsupported("channels that were reshaped are scaled".into()));
        }
        let base = self.affine(value, factor, offset, name)?;
        Ok(Traced::of(base, x.dims.clone()))
    }

    /// x, made a value first if its expression has grown enough.
    fn growing(&mut self, x: &Traced, name: &str) -> Result<Traced, Refusal> {
        if x.expression.is_small() {
            return Ok(x.clone());
        }
        Ok(Traced::of(self.settle(x, name)?, x.dims.clone()))
    }

    /// `factor x + offset`, one of each for a channel.
    pub fn affine(&mut self, value: usize, factor: Vec<f64>, offset: Vec<f64>, name: &str) -> Result<usize, Refusal> {
        let n = factor.len();
        let operator = OperatorSpec::BatchNorm {
            scale: self.keep_values(vec![n], factor)?,
            bias: self.keep_values(vec![n], offset)?,
            mean: self.keep_values(vec![n], vec![0.0; n])?,
            var: self.keep_values(vec![n], vec![1.0; n])?,
            epsilon: 0.0,
        };
        let shape = self.shape(value);
        self.emit(name, &[value], operator, shape)
    }

    /// A value of the model that holds x, for the node `reader`. What must be made is called as in the file.
    pub fn settle(&mut self, x: &Traced, reader: &str) -> Result<usize, Refusal> {
        let name = if x.name.is_empty() { reader } else { &*x.name };
        self.settle_expression(x.base, &x.expression, name)
    }

    fn settle_expression(&mut self, base: usize, expression: &Rc<Expression>, name: &str) -> Result<usize, Refusal> {
        let key = (base, Rc::as_ptr(expression));
        if let Some((_, value)) = self.settled.get(&key) {
            return Ok(*value);
        }
        let shape = self.shape(base);
        let uniform = |value: f64| vec![value; shape.channels];
        let value = match expression.recognise() {
            Some(Recognised::Identity) => base,
            Some(Recognised::Polynomial(p)) if p.len() <= 2 => {
                let factor = p.get(1).copied().unwrap_or(0.0);
                self.affine(base, uniform(factor), uniform(p[0]), name)?
            }
            Some(Recognised::Polynomial(p)) => {
                let coefficients = self.keep_values(vec![p.len()], p)?;
                self.emit(name, &[base], OperatorSpec::Polynomial { coefficients }, shape)?
            }
            Some(Recognised::Activation(function)) => self.emit(name, &[base], OperatorSpec::Activation { function }, shape)?,
            None => self.taken_apart(base, expression, name)?,
        };
        self.settled.insert(key, (expression.clone(), value));
        Ok(value)
    }

    /// An expression that is no known function: its parts, one by one.
    fn taken_apart(&mut self, base: usize, expression: &Rc<Expression>, name: &str) -> Result<usize, Refusal> {
        let shape = self.shape(base);
        let uniform = |value: f64| vec![value; shape.channels];
        match &**expression {
            Expression::Unary(Unary::Activation(function), x) => {
                let x = self.settle_expression(base, x, name)?;
                self.emit(name, &[x], OperatorSpec::Activation { function: *function }, shape)
            }
            Expression::Unary(Unary::Negative, x) => {
                let x = self.settle_expression(base, x, name)?;
                self.affine(x, uniform(-1.0), uniform(0.0), name)
            }
            Expression::Binary(op, a, b) => match (op, &**a, &**b) {
                (Binary::Greatest, _, Expression::Constant(0.0)) => {
                    let x = self.settle_expression(base, a, name)?;
                    self.emit(name, &[x], OperatorSpec::Activation { function: ActivationFunction::Relu }, shape)
                }
                (Binary::Multiply, _, Expression::Constant(c)) | (Binary::Multiply, Expression::Constant(c), _) => {
                    let x = if matches!(**a, Expression::Constant(_)) { b } else { a };
                    let x = self.settle_expression(base, x, name)?;
                    self.affine(x, uniform(*c), uniform(0.0), name)
                }
                (Binary::Divide, _, Expression::Constant(c)) => {
                    let x = self.settle_expression(base, a, name)?;
                    self.affine(x, uniform(1.0 / c), uniform(0.0), name)
                }
                (Binary::Add, _, Expression::Constant(c)) | (Binary::Add, Expression::Constant(c), _) => {
                    let x = if matches!(**a, Expression::Constant(_)) { b } else { a };
                    let x = self.settle_expression(base, x, name)?;
                    self.affine(x, uniform(1.0), uniform(*c), name)
                }
                (Binary::Subtract, _, Expression::Constant(c)) => {
                    let x = self.settle_expression(base, a, name)?;
                    self.affine(x, uniform(1.0), uniform(-c), name)
                }
                (Binary::Subtract, Expression::Constant(c), _) => {
                    let x = self.settle_expression(base, b, name)?;
                    self.affine(x, uniform(-1.0), uniform(*c), name)
                }
                (Binary::Add, ..) => {
                    let operands = [self.settle_expression(base, a, name)?, self.settle_expression(base, b, name)?];
                    self.emit(name, &operands, OperatorSpec::Add, shape)
                }
                (Binary::Subtract, ..) => {
                    let (a, b) = (self.settle_expression(base, a, name)?, self.settle_expression(base, b, name)?);
                    let b = self.affine(b, uniform(-1.0), uniform(0.0), name)?;
                    self.emit(name, &[a, b], OperatorSpec::Add, shape)
                }
                _ => Err(unknown()),
            },
            _ => Err(unknown()),
        }
    }
}

fn unknown() -> Refusal {
    let known = "relu, leaky relu, elu, selu, celu, gelu, sigmoid, silu, hard swish, hard sigmoid, tanh, softplus, mish, clip";
    Refusal::Unsupported(format!("with the elementwise operators before it, it is no known activation; known are {known}").into())
}

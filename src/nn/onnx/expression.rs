//! Functions of one tensor that a file spells out in several operators, recognised by their values.
//!
//! Exporters write GELU as `x * 0.5 * (1 + erf(x / sqrt 2))` in any order, SiLU as `x * sigmoid(x)`, hard swish with a clip
//! and a division. Instead of a pattern for each spelling, elementwise operators on one tensor are gathered into an
//! expression, and the expression is compared with the known functions at a set of points.

use super::super::model::ActivationFunction;
use std::rc::Rc;

/// Operators that an expression may hold: a file may use a value twice in each of many operators.
const MAX_SIZE: usize = 64;
/// Highest power of a polynomial that is recognised.
const MAX_DEGREE: usize = 8;
/// Where functions are compared: both sides of every kink, and near enough to zero and far enough out.
const POINTS: [f64; 20] =
    [-9.7, -6.3, -5.2, -3.4, -2.9, -2.2, -1.3, -0.9, -0.4, -0.05, 0.03, 0.2, 0.7, 1.2, 1.9, 2.6, 3.3, 4.7, 6.2, 8.9];
/// Two functions are one if they differ by no more than this, relatively: constants of a file are f32.
const TOLERANCE: f64 = 1e-5;

/// A function of x, as a file spells it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    X,
    Constant(f64),
    Unary(Unary, Rc<Expression>),
    Binary(Binary, Rc<Expression>, Rc<Expression>),
}

/// A function of one operand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Unary {
    Activation(ActivationFunction),
    Negative,
    Absolute,
    Root,
    Exponential,
    Reciprocal,
}

/// A function of two operands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
    Least,
    Greatest,
}

/// What an expression is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Recognised {
    /// x itself.
    Identity,
    /// Monomial coefficients, constant first; two of them for `a x + b`.
    Polynomial(Vec<f64>),
    Activation(ActivationFunction),
}

impl Expression {
    pub fn unary(op: Unary, x: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self::Unary(op, x.clone()))
    }

    pub fn binary(op: Binary, a: &Rc<Self>, b: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self::Binary(op, a.clone(), b.clone()))
    }

    /// Operators, each counted as often as it is used; no more than somewhat above `limit` are visited.
    fn size(&self, limit: usize) -> usize {
        match self {
            Self::X | Self::Constant(_) => 1,
            Self::Unary(_, x) => 1 + x.size(limit),
            Self::Binary(_, a, b) => {
                let a = a.size(limit);
                if a > limit { a } else { 1 + a + b.size(limit - a) }
            }
        }
    }

    /// Whether it may grow further.
    pub fn is_small(&self) -> bool {
        self.size(MAX_SIZE) <= MAX_SIZE
    }

    fn value(&self, x: f64) -> f64 {
        match self {
            Self::X => x,
            Self::Constant(c) => *c,
            Self::Unary(op, operand) => {
                let v = operand.value(x);
                match op {
                    Unary::Activation(function) => function.value(v),
                    Unary::Negative => -v,
                    Unary::Absolute => v.abs(),
                    Unary::Root => v.sqrt(),
                    Unary::Exponential => v.exp(),
                    Unary::Reciprocal => 1.0 / v,
                }
            }
            Self::Binary(op, a, b) => {
                let (a, b) = (a.value(x), b.value(x));
                match op {
                    Binary::Add => a + b,
                    Binary::Subtract => a - b,
                    Binary::Multiply => a * b,
                    Binary::Divide => a / b,
                    Binary::Power => a.powf(b),
                    Binary::Least => a.min(b),
                    Binary::Greatest => a.max(b),
                }
            }
        }
    }

    /// Its coefficients, if it is a polynomial by the way it is written.
    fn polynomial(&self) -> Option<Vec<f64>> {
        let scaled = |p: Vec<f64>, by: f64| p.into_iter().map(|c| c * by).collect::<Vec<f64>>();
        let p = match self {
            Self::X => vec![0.0, 1.0],
            Self::Constant(c) => vec![*c],
            Self::Unary(Unary::Negative, x) => scaled(x.polynomial()?, -1.0),
            Self::Unary(..) => return None,
            Self::Binary(op, a, b) => {
                let (a, b) = (a.polynomial()?, b.polynomial()?);
                match (op, &b[..]) {
                    (Binary::Add, _) => sum(&a, &b),
                    (Binary::Subtract, _) => sum(&a, &scaled(b, -1.0)),
                    (Binary::Multiply, _) => product(&a, &b)?,
                    (Binary::Divide, [by]) => a.into_iter().map(|c| c / by).collect(),
                    (Binary::Power, [n]) if n.fract() == 0.0 && (0.0..=MAX_DEGREE as f64).contains(n) => {
                        (0..*n as usize).try_fold(vec![1.0], |power, _| product(&power, &a))?
                    }
                    _ => return None,
                }
            }
        };
        p.iter().all(|c| c.is_finite()).then_some(p)
    }

    /// What it is, if that is known.
    pub fn recognise(&self) -> Option<Recognised> {
        if let Some(mut p) = self.polynomial() {
            while p.last() == Some(&0.0) && p.len() > 1 {
                p.pop();
            }
            return Some(if p == [0.0, 1.0] { Recognised::Identity } else { Recognised::Polynomial(p) });
        }
        if let Self::Unary(Unary::Activation(function), x) = self
            && **x == Self::X
        {
            return Some(Recognised::Activation(*function));
        }
        use ActivationFunction::*;
        let known = [
            Relu,
            Gelu,
            GeluTanh,
            Sigmoid,
            Silu,
            HardSwish,
            HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 },
            Clip { min: 0.0, max: 6.0 },
            Tanh,
            Softplus,
            Softsign,
            Mish,
        ];
        let values = POINTS.map(|x| self.value(x));
        let same = |f: &ActivationFunction| {
            POINTS.iter().zip(values).all(|(x, v)| (f.value(*x) - v).abs() <= TOLERANCE * (1.0 + v.abs()))
        };
        known.into_iter().find(same).map(Recognised::Activation)
    }
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    let at = |p: &[f64], k: usize| p.get(k).copied().unwrap_or(0.0);
    (0..a.len().max(b.len())).map(|k| at(a, k) + at(b, k)).collect()
}

fn product(a: &[f64], b: &[f64]) -> Option<Vec<f64>> {
    let mut p = vec![0.0; a.len() + b.len() - 1];
    for (i, x) in a.iter().enumerate() {
        b.iter().enumerate().for_each(|(j, y)| p[i + j] += x * y);
    }
    (p.len() <= MAX_DEGREE + 1).then_some(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x() -> Rc<Expression> {
        Rc::new(Expression::X)
    }

    fn c(value: f32) -> Rc<Expression> {
        Rc::new(Expression::Constant(value.into()))
    }

    fn apply(f: ActivationFunction, x: &Rc<Expression>) -> Rc<Expression> {
        Expression::unary(Unary::Activation(f), x)
    }

    #[test]
    fn spellings_of_activations() {
        use ActivationFunction::*;
        use Binary::*;
        let erf = apply(Erf, &Expression::binary(Divide, &x(), &c(std::f32::consts::SQRT_2)));
        let one_plus = Expression::binary(Add, &erf, &c(1.0));
        let half_x = Expression::binary(Multiply, &x(), &c(0.5));
        let inner = Expression::binary(Multiply, &x(), &one_plus);
        let cube = Expression::binary(Power, &x(), &c(3.0));
        let inner_tanh = Expression::binary(Add, &x(), &Expression::binary(Multiply, &cube, &c(0.044715)));
        let tanh = apply(Tanh, &Expression::binary(Multiply, &inner_tanh, &c(0.797_884_6)));
        let clip = apply(Clip { min: 0.0, max: 6.0 }, &Expression::binary(Add, &x(), &c(3.0)));
        let negative = Expression::unary(Unary::Exponential, &Expression::unary(Unary::Negative, &x()));
        for (expression, want) in [
            (Expression::binary(Multiply, &half_x, &one_plus), Gelu),
            (Expression::binary(Multiply, &inner, &c(0.5)), Gelu),
            (Expression::binary(Multiply, &half_x, &Expression::binary(Add, &c(1.0), &tanh)), GeluTanh),
            (Expression::binary(Multiply, &x(), &apply(Sigmoid, &x())), Silu),
            (Expression::binary(Divide, &x(), &Expression::binary(Add, &c(1.0), &negative)), Silu),
            (Expression::binary(Divide, &Expression::binary(Multiply, &x(), &clip), &c(6.0)), HardSwish),
            (Expression::binary(Multiply, &x(), &apply(Tanh, &apply(Softplus, &x()))), Mish),
            (Expression::binary(Least, &apply(Relu, &x()), &c(6.0)), Clip { min: 0.0, max: 6.0 }),
            (Expression::binary(Greatest, &x(), &c(0.0)), Relu),
            (apply(LeakyRelu { alpha: 0.2 }, &x()), LeakyRelu { alpha: 0.2 }),
        ] {
            assert_eq!(expression.recognise(), Some(Recognised::Activation(want)), "{expression:?}");
        }
        // Near misses are not taken for what they are not.
        let almost = Expression::binary(Multiply, &x(), &apply(Sigmoid, &Expression::binary(Multiply, &x(), &c(1.001))));
        assert_eq!(almost.recognise(), None);
    }

    #[test]
    fn polynomials_and_growth() {
        use Binary::*;
        let line = Expression::binary(Subtract, &Expression::binary(Multiply, &x(), &c(2.0)), &c(1.0));
        assert_eq!(line.recognise(), Some(Recognised::Polynomial(vec![-1.0, 2.0])));
        let square = Expression::binary(Multiply, &line, &line);
        assert_eq!(square.recognise(), Some(Recognised::Polynomial(vec![1.0, -4.0, 4.0])));
        let same = Expression::binary(Divide, &Expression::binary(Add, &x(), &x()), &c(2.0));
        assert_eq!(same.recognise(), Some(Recognised::Identity));
        let mut doubled = x();
        for _ in 0..200 {
            doubled = Expression::binary(Multiply, &doubled, &doubled);
        }
        assert!(!doubled.is_small());
    }
}

//! Elementwise operators: gathered into expressions, and made nodes of when something else reads them.

use super::constant::{Constant, common, positions, repeating};
use super::expression::{Recognised, is_small, recognise};
use super::graph::{Importer, Known, Refusal, Traced};
use super::view::{Part, View, natural};
use crate::nn::model::formula::{Binary, Step, Unary};
use crate::nn::model::{ActivationFunction, Formula, OperatorSpec};

const QUOTIENT: &str = "a quotient or a power of two tensors of the picture is no polynomial: use a network without it";

const COMPARED: &str = "two tensors are compared, which has no result in between to fit a polynomial to: take the greater one (Max), or leave it out";
const CHOICE: &str =
    "it chooses between tensors by comparing, which takes both to be functions of the one that is compared with a number";

/// A constant that is the same number for all elements of a tensor.
fn scalar(c: &Constant, dims: &[usize]) -> Option<Formula> {
    let fits = common(&c.dims, dims).is_ok_and(|both| both == dims);
    c.uniform().filter(|_| fits).map(Formula::constant)
}

impl<'f> Importer<'f> {
    /// A function of every element.
    pub(super) fn unary(&mut self, x: &Traced, op: Unary, name: &str) -> Result<Traced, Refusal> {
        let x = self.growing(x, name)?;
        Ok(Traced { expression: Formula::unary(op, &x.expression), name: name.into(), ..x })
    }

    /// A function with a name, of every element.
    pub(super) fn apply(&mut self, x: &Traced, function: &ActivationFunction, name: &str) -> Result<Traced, Refusal> {
        let x = self.growing(x, name)?;
        Ok(Traced { expression: Formula::apply(function, &x.expression), name: name.into(), ..x })
    }

    /// One of two operands, element by element, as a third says. All of them are functions of one tensor, or numbers.
    pub(super) fn select(&mut self, operands: [&Known; 3], name: &str) -> Result<Traced, Refusal> {
        if let Some(made) = self.prelu_by_choice(operands, name)? {
            return Ok(made);
        }
        let mut x: Option<Traced> = None;
        for operand in operands {
            match (operand, &x) {
                (Known::Traced(t), None) => x = Some(t.clone()),
                (Known::Traced(t), Some(x)) if t.dims == x.dims && t.base == x.base => {}
                (Known::Traced(_), Some(_)) => return Err(Refusal::Unsupported(CHOICE.into())),
                (Known::Constant(_), _) => {}
                (Known::Lost, _) => return Err(Refusal::Lost),
            }
        }
        let x = x.ok_or(Refusal::Lost)?;
        let formula = |operand: &Known| match operand {
            Known::Traced(t) if is_small(&t.expression) => Ok(t.expression.clone()),
            Known::Constant(c) => scalar(c, &x.dims).ok_or(Refusal::Unsupported(CHOICE.into())),
            _ => Err(Refusal::Unsupported("the function that it is part of has too many operators".into())),
        };
        let [which, a, b] = operands.map(formula);
        Ok(Traced { expression: Formula::select(&which?, &a?, &b?), name: name.into(), ..x })
    }

    /// The choice between x and x times a number for each channel that is a PRelu, as it is written where that operator is not known.
    fn prelu_by_choice(&mut self, [which, a, b]: [&Known; 3], name: &str) -> Result<Option<Traced>, Refusal> {
        let (Known::Traced(which), Known::Traced(a), Known::Traced(b)) = (which, a, b) else { return Ok(None) };
        let (x, scaled) = if a.base == which.base { (a, b) } else { (b, a) };
        if x.base != which.base || scaled.base == which.base || scaled.expression != Formula::x() {
            return Ok(None);
        }
        let Some((slopes, of)) = self.channel_factors(scaled.base) else { return Ok(None) };
        let alike = [x, scaled].iter().all(|t| t.dims == which.dims) && of == which.base && is_small(&which.expression);
        // With one slope it would be a leaky ReLU, whatever the slope.
        let is_leaky = |alpha: f64| {
            let line = Formula::line(alpha, 0.0);
            let [first, second] = [a, b].map(|t| if t.base == which.base { &t.expression } else { &line });
            let whole = Formula::select(&which.expression, first, second);
            recognise(&whole) == Recognised::Activation(ActivationFunction::LeakyRelu { alpha })
        };
        if !alike || !is_small(&x.expression) || ![0.5, -0.25].into_iter().all(is_leaky) {
            return Ok(None);
        }
        let slopes =
            Constant { dims: [vec![slopes.len()], vec![1; x.dims.len().saturating_sub(2)]].concat(), data: slopes.data.clone() };
        self.prelu(&Traced::of(which.base, which.dims.clone()), &slopes, name).map(Some)
    }

    /// `max(x, 0) + slope min(x, 0)`, with one slope for all or one a channel: then as `slope x + (1 - slope) relu(x)`, so that all
    /// channels share one ReLU.
    pub(super) fn prelu(&mut self, x: &Traced, slope: &Constant, name: &str) -> Result<Traced, Refusal> {
        if let Some(alpha) = scalar(slope, &x.dims).and_then(|c| c.as_constant()) {
            return self.apply(x, &ActivationFunction::LeakyRelu { alpha }, name);
        }
        if !is_per_channel(&slope.dims, &x.dims) {
            let why = format!(
                "its slopes have shape {:?} for a tensor of shape {:?}; one slope for all, or one for each channel, is supported",
                slope.dims, x.dims
            );
            return Err(Refusal::Unsupported(why.into()));
        }
        let slopes = slope.real();
        let value = self.channelled(x, name)?;
        let shape = self.shape(value);
        if shape.channels != slopes.len() {
            return Err(Refusal::Unsupported("channels that were reshaped have a slope each".into()));
        }
        let relu = self.settle_expression(value, &Formula::apply(&ActivationFunction::Relu, &Formula::x()), name)?;
        let none = vec![0.0; slopes.len()];
        let rest: Vec<f64> = slopes.iter().map(|a| 1.0 - a).collect();
        let relu = self.affine(relu, rest, none.clone(), name)?;
        let line = self.affine(value, slopes, none, name)?;
        let base = self.emit(name, &[relu, line], OperatorSpec::Add, shape)?;
        Ok(Traced::of(base, x.dims.clone()))
    }

    /// A function of two operands of which one at least depends on the picture.
    pub(super) fn binary(&mut self, op: Binary, a: &Known, b: &Known, name: &str) -> Result<Traced, Refusal> {
        match (a, b) {
            (Known::Traced(a), Known::Traced(b)) => self.both(op, a, b, name),
            (Known::Traced(x), Known::Constant(c)) => self.with_constant(op, x, c, false, name),
            (Known::Constant(c), Known::Traced(x)) => self.with_constant(op, x, c, true, name),
            _ => Err(Refusal::Lost),
        }
    }

    fn both(&mut self, op: Binary, a: &Traced, b: &Traced, name: &str) -> Result<Traced, Refusal> {
        if let Some(made) = self.part_by_part(op, a, b, name)? {
            return Ok(made);
        }
        if a.dims != b.dims {
            return self.both_repeated(op, a, b, name);
        }
        let (mut a, mut b) = (a.clone(), b.clone());
        if a.base == b.base {
            (a, b) = (self.growing(&a, name)?, self.growing(&b, name)?);
        }
        if a.base == b.base {
            return Ok(Traced { expression: Formula::binary(op, &a.expression, &b.expression), name: name.into(), ..a });
        }
        match op {
            Binary::Add | Binary::Subtract | Binary::Multiply => {}
            Binary::Greatest => return self.greater(&a, &b, name),
            Binary::Least => {
                let [a, b] = [self.unary(&a, Unary::Negative, name)?, self.unary(&b, Unary::Negative, name)?];
                let greatest = self.greater(&a, &b, name)?;
                return self.unary(&greatest, Unary::Negative, name);
            }
            Binary::Divide | Binary::Power => return Err(Refusal::Unsupported(QUOTIENT.into())),
            _ => return Err(Refusal::Unsupported(COMPARED.into())),
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
        let operator = if op == Binary::Multiply { OperatorSpec::Multiply } else { OperatorSpec::Add };
        let base = self.emit(name, &operands, operator, shape)?;
        Ok(Traced::of(base, a.dims))
    }

    /// Of tensors that are repeated to each other's shape. What is repeated is the second factor of a product: the first one brings
    /// what its readers want.
    fn both_repeated(&mut self, op: Binary, a: &Traced, b: &Traced, name: &str) -> Result<Traced, Refusal> {
        let dims = common(&a.dims, &b.dims)?;
        let swapped = op == Binary::Multiply && a.dims != dims;
        let (a, b) = if swapped { (b, a) } else { (a, b) };
        let (a, b) = (self.repeated(a, &dims, name)?, self.repeated(b, &dims, name)?);
        self.both(op, &a, &b, name)
    }

    /// `swapped`: the constant is the first operand.
    fn with_constant(&mut self, op: Binary, x: &Traced, c: &Constant, swapped: bool, name: &str) -> Result<Traced, Refusal> {
        if let Some(c) = scalar(c, &x.dims) {
            let x = self.growing(x, name)?;
            let expression =
                if swapped { Formula::binary(op, &c, &x.expression) } else { Formula::binary(op, &x.expression, &c) };
            return Ok(Traced { expression, name: name.into(), ..x });
        }
        let per_channel = is_per_channel(&c.dims, &x.dims);
        if !per_channel && let Some(made) = self.with_channels_elsewhere(op, x, c, swapped, name)? {
            return Ok(made);
        }
        if !per_channel && matches!(op, Binary::Add | Binary::Subtract) {
            let x = if op == Binary::Subtract && swapped { self.unary(x, Unary::Negative, name)? } else { x.clone() };
            let sign = if op == Binary::Subtract && !swapped { -1.0 } else { 1.0 };
            return self.plus_elements(&x, c, sign, name);
        }
        if !per_channel {
            let why = "each pixel is combined with a constant of its own: it can be added or subtracted; others must be one for each channel";
            return Err(Refusal::Unsupported(why.into()));
        }
        let (factor, offset) = channel_line(op, swapped, c.real())?;
        let value = self.channelled(x, name)?;
        if self.shape(value).channels != factor.len() {
            return Err(Refusal::Unsupported("channels that were reshaped are scaled".into()));
        }
        let base = self.affine(value, factor, offset, name)?;
        Ok(Traced::of(base, x.dims.clone()))
    }

    /// x and a constant for each of its elements, `sign` times: mean pictures, positions.
    fn plus_elements(&mut self, x: &Traced, c: &Constant, sign: f64, name: &str) -> Result<Traced, Refusal> {
        let dims = common(&c.dims, &x.dims)?;
        let x = self.repeated(x, &dims, name)?;
        let shape = natural(&dims)?;
        let value = self.placed(&x, shape, name)?;
        let constants = positions(&dims, repeating(&c.dims, &dims)?).map(|at| sign * c.at(at)).collect();
        let sources = (0..shape.len() as u32).collect::<Vec<_>>();
        let operator = self.one_by_one(&[shape.channels, shape.height, shape.width], &sources, Some(constants))?;
        let base = self.emit(name, &[value], operator, shape)?;
        Ok(Traced::of(base, dims))
    }

    /// As [`Self::with_constant`] where the channels of x are at another axis than the second: where each element of x is one of a single
    /// value and the constant is the same for all that come from one of its channels, it is applied before they are moved.
    fn with_channels_elsewhere(
        &mut self,
        op: Binary,
        x: &Traced,
        c: &Constant,
        swapped: bool,
        name: &str,
    ) -> Result<Option<Traced>, Refusal> {
        if !common(&c.dims, &x.dims).is_ok_and(|both| both == x.dims) {
            return Ok(None);
        }
        let view = self.view(x, name)?;
        let Some(part) = view.single().cloned() else { return Ok(None) };
        let sources = part.elements(view.shape.len(), &mut self.room)?;
        let mut values = vec![None; part.from.channels];
        for (source, at) in sources.iter().zip(positions(&x.dims, repeating(&c.dims, &x.dims)?)) {
            let value = values.get_mut(*source as usize / part.from.plane()).ok_or("an element comes from nowhere")?;
            if *value.get_or_insert(c.at(at)) != c.at(at) {
                return Ok(None);
            }
        }
        // What nothing is taken of may be anything.
        let (factor, offset) = channel_line(op, swapped, values.into_iter().map(|v| v.unwrap_or(1.0)).collect())?;
        let source = self.affine(part.source, factor, offset, name)?;
        let view = View { parts: vec![Part { source, ..part }], ..view };
        Ok(Some(self.viewed(view, x.dims.clone(), name)))
    }

    /// x, made a value first if its expression has grown enough.
    fn growing(&mut self, x: &Traced, name: &str) -> Result<Traced, Refusal> {
        if is_small(&x.expression) {
            return Ok(x.clone());
        }
        Ok(Traced::of(self.settle(x, name)?, x.dims.clone()))
    }

    /// `factor x + offset`, one of each for a channel.
    pub(super) fn affine(&mut self, value: usize, factor: Vec<f64>, offset: Vec<f64>, name: &str) -> Result<usize, Refusal> {
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
    pub(super) fn settle(&mut self, x: &Traced, reader: &str) -> Result<usize, Refusal> {
        let name = if x.name.is_empty() { reader } else { &*x.name };
        self.settle_expression(x.base, &x.expression, name)
    }

    fn settle_expression(&mut self, base: usize, expression: &Formula, name: &str) -> Result<usize, Refusal> {
        let key = (base, expression.clone());
        if let Some(value) = self.settled.get(&key) {
            return Ok(*value);
        }
        let shape = self.shape(base);
        let uniform = |value: f64| vec![value; shape.channels];
        if expression.steps().iter().any(|s| matches!(s, Step::Constant(c) if !c.is_finite())) {
            return Err(Refusal::Unsupported(
                "with the elementwise operators before it, it computes with a number that is not finite".into(),
            ));
        }
        let value = match recognise(expression) {
            Recognised::Identity => base,
            Recognised::Polynomial(p) if p.len() <= 2 => {
                let factor = p.get(1).copied().unwrap_or(0.0);
                self.affine(base, uniform(factor), uniform(p[0]), name)?
            }
            Recognised::Polynomial(p) => {
                let coefficients = self.keep_values(vec![p.len()], p)?;
                self.emit(name, &[base], OperatorSpec::Polynomial { coefficients }, shape)?
            }
            Recognised::Activation(function) => self.emit(name, &[base], OperatorSpec::Activation { function }, shape)?,
            Recognised::OfLine(function, line) => {
                let line = self.settle_expression(base, &line, name)?;
                self.settle_expression(line, &Formula::apply(&function, &Formula::x()), name)?
            }
            Recognised::Scaled { core, factor, offset } => {
                let core = self.settle_expression(base, &core, name)?;
                self.affine(core, uniform(factor), uniform(offset), name)?
            }
        };
        self.settled.insert(key, value);
        Ok(value)
    }
}

/// `factor x + offset` of each channel, for a function of x and a constant for each; `swapped`: the constant is the first operand.
fn channel_line(op: Binary, swapped: bool, values: Vec<f64>) -> Result<(Vec<f64>, Vec<f64>), Refusal> {
    let all = |value: f64| vec![value; values.len()];
    Ok(match (op, swapped) {
        (Binary::Add, _) => (all(1.0), values),
        (Binary::Subtract, false) => (all(1.0), values.into_iter().map(|v| -v).collect()),
        (Binary::Subtract, true) => (all(-1.0), values),
        (Binary::Multiply, _) => (values.clone(), all(0.0)),
        (Binary::Divide, false) => (values.iter().map(|v| 1.0 / v).collect(), all(0.0)),
        _ => {
            let why = "with a constant for each channel, only sums and products are supported";
            return Err(Refusal::Unsupported(why.into()));
        }
    })
}

/// Whether a tensor has one number for each channel, the second axis of another.
fn is_per_channel(c: &[usize], x: &[usize]) -> bool {
    let from_right = x.len().saturating_sub(2);
    let one_each = c.iter().rev().enumerate().all(|(i, d)| if i == from_right { x.get(1) == Some(d) } else { *d == 1 });
    x.len() >= 2 && c.len() <= x.len() && c.len() > from_right && one_each
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_for_each_channel_are_told_by_shapes_of_any_rank() {
        for (c, x, per_channel) in [
            (&[3, 1, 1][..], &[1, 3, 4, 5][..], true),
            (&[1, 3, 1, 1], &[1, 3, 4, 5], true),
            (&[3], &[1, 3], true),
            (&[1, 1, 3, 1, 1], &[1, 3, 4, 5], false),
            (&[5], &[1, 3, 4, 5], false),
            (&[3], &[3], false),
            (&[1, 3], &[3], false),
            (&[2], &[], false),
            (&[], &[], false),
        ] {
            assert_eq!(is_per_channel(c, x), per_channel, "{c:?} for {x:?}");
        }
    }
}

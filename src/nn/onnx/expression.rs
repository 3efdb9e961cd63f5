//! What a formula is that a file spells out in several operators: a polynomial, a known activation, or a function of its own.
//!
//! Exporters write GELU as `x * 0.5 * (1 + erf(x / sqrt 2))` in any order, SiLU as `x * sigmoid(x)`, ReLU6 as a clip or as the least
//! of a ReLU and 6. A formula is recognised by its structure, for the whole line: as a polynomial by multiplying out, as a
//! function made of lines by its pieces (`piecewise`), as any other by a normal form (`normal`). What has no name is a function
//! too, and stays a formula.

use super::normal::Sum;
use super::piecewise::{Line, Piecewise};
use crate::nn::model::formula::{Binary, Step, Unary};
use crate::nn::model::{ActivationFunction, Formula};
use std::cell::OnceCell;

/// Steps that a formula may have and still grow.
const MAX_STEPS: usize = 64;
/// Highest power of a polynomial that is recognised.
const MAX_DEGREE: usize = 8;

/// What a formula is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Recognised {
    /// x itself.
    Identity,
    /// Monomial coefficients, constant first; two of them for `a x + b`.
    Polynomial(Vec<f64>),
    /// A function of x.
    Activation(ActivationFunction),
    /// A function of a line.
    OfLine(ActivationFunction, Formula),
    /// `factor core + offset`.
    Scaled { core: Formula, factor: f64, offset: f64 },
}

/// Whether a formula may grow further.
pub(super) fn is_small(formula: &Formula) -> bool {
    formula.steps().len() <= MAX_STEPS
}

/// Coefficients of a formula that is a polynomial by the way it is written.
fn polynomial(formula: &Formula) -> Option<Vec<f64>> {
    let scaled = |p: &[f64], by: f64| p.iter().map(|c| c * by).collect::<Vec<f64>>();
    let mut found: Vec<Option<Vec<f64>>> = Vec::with_capacity(formula.steps().len());
    for step in formula.steps() {
        let at = |i: u16| found[usize::from(i)].as_deref();
        let p = match step {
            Step::X => Some(vec![0.0, 1.0]),
            Step::Constant(c) => Some(vec![*c]),
            Step::Unary(Unary::Negative, a) => at(*a).map(|a| scaled(a, -1.0)),
            Step::Binary(op, a, b) => at(*a).zip(at(*b)).and_then(|(a, b)| match (op, b) {
                (Binary::Add, _) => Some(sum(a, b)),
                (Binary::Subtract, _) => Some(sum(a, &scaled(b, -1.0))),
                (Binary::Multiply, _) => product(a, b),
                (Binary::Divide, [by]) => Some(a.iter().map(|c| c / by).collect()),
                (Binary::Power, [n]) if n.fract() == 0.0 && (0.0..=MAX_DEGREE as f64).contains(n) => {
                    (0..*n as usize).try_fold(vec![1.0], |power, _| product(&power, a))
                }
                _ => None,
            }),
            _ => None,
        };
        found.push(p.filter(|p| p.iter().all(|c| c.is_finite())));
    }
    let mut p = found.pop()??;
    while p.last() == Some(&0.0) && p.len() > 1 {
        p.pop();
    }
    Some(p)
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

/// What a formula is.
pub(super) fn recognise(formula: &Formula) -> Recognised {
    if let Some(p) = polynomial(formula) {
        return if p == [0.0, 1.0] { Recognised::Identity } else { Recognised::Polynomial(p) };
    }
    let whole = || ActivationFunction::Formula { steps: formula.clone() };
    let pieces = Piecewise::of(formula).pop().flatten();
    if let Some(Line { slope, offset }) = pieces.as_ref().and_then(Piecewise::as_line) {
        return match (slope, offset) {
            (1.0, 0.0) => Recognised::Identity,
            (0.0, c) => Recognised::Polynomial(vec![c]),
            _ => Recognised::Polynomial(vec![offset, slope]),
        };
    }
    if let Some(function) = pieces.as_ref().and_then(of_lines) {
        return Recognised::Activation(function);
    }
    let last = &formula.steps()[formula.steps().len() - 1];
    if let Step::Apply(function, operand) = last {
        let operand = formula.part(usize::from(*operand));
        match polynomial(&operand).as_deref() {
            Some([0.0, 1.0]) => return Recognised::Activation(function.clone()),
            Some([_, _]) => return Recognised::OfLine(function.clone(), operand),
            _ => {}
        }
    }
    if let Some(function) = known(formula) {
        return Recognised::Activation(function);
    }
    if let Some((core, factor, offset)) = scaled(formula) {
        return Recognised::Scaled { core, factor, offset };
    }
    if let Some(recognised) = pieces.as_ref().and_then(of_one_kink) {
        return recognised;
    }
    if let Some((of_line, line)) = on_a_line(formula)
        && let Some(function) = known(&of_line)
    {
        return Recognised::OfLine(function, line);
    }
    Recognised::Activation(whole())
}

/// ReLU, a leaky one, a clip: the functions made of lines that have a name, without scales.
fn of_lines(pieces: &Piecewise) -> Option<ActivationFunction> {
    if !pieces.is_continuous() {
        return None;
    }
    match (&pieces.knots[..], &pieces.lines[..]) {
        ([knot], [left, right]) if knot.at == 0.0 && knot.value == 0.0 && right.slope == 1.0 => Some(match left.slope {
            0.0 => ActivationFunction::Relu,
            alpha => ActivationFunction::LeakyRelu { alpha },
        }),
        ([low, high], [left, middle, right]) if left.slope == 0.0 && right.slope == 0.0 => {
            let (slope, offset) = (middle.slope, middle.offset);
            match (low.value, high.value) {
                (min, max) if slope == 1.0 && offset == 0.0 => Some(ActivationFunction::Clip { min, max }),
                (min, max) if min == 0.0 && max == 1.0 => Some(ActivationFunction::HardSigmoid { alpha: slope, beta: offset }),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Two lines that meet, as a ReLU or a leaky one of a line; a piece of a line between two constants, as a clip of a line.
fn of_one_kink(pieces: &Piecewise) -> Option<Recognised> {
    if !pieces.is_continuous() {
        return None;
    }
    let shifted = |slope: f64, at: f64| Formula::line(slope, -slope * at);
    match (&pieces.knots[..], &pieces.lines[..]) {
        ([knot], [left, right]) => {
            let (function, slope, factor) = match (left.slope, right.slope) {
                (0.0, s) => (ActivationFunction::Relu, s.abs(), s.signum()),
                // Not 0 on the left of the knot.
                (s, 0.0) => (ActivationFunction::Relu, -s.abs(), -s.signum()),
                (l, r) => (ActivationFunction::LeakyRelu { alpha: l / r }, 1.0, r),
            };
            let line = shifted(slope, knot.at);
            Some(if factor == 1.0 && knot.value == 0.0 {
                Recognised::OfLine(function, line)
            } else {
                Recognised::Scaled { core: Formula::apply(&function, &line), factor, offset: knot.value }
            })
        }
        ([low, high], [left, middle, right]) if left.slope == 0.0 && right.slope == 0.0 && middle.slope != 0.0 => {
            let (min, max) = (low.value.min(high.value), low.value.max(high.value));
            Some(Recognised::OfLine(ActivationFunction::Clip { min, max }, Formula::line(middle.slope, middle.offset)))
        }
        _ => None,
    }
}

/// `factor core + offset`, by the last steps.
fn scaled(formula: &Formula) -> Option<(Formula, f64, f64)> {
    let (mut factor, mut offset) = (1.0, 0.0);
    let mut at = formula.steps().len() - 1;
    loop {
        let number = |i: u16| match formula.steps()[usize::from(i)] {
            Step::Constant(c) => Some(c),
            _ => None,
        };
        // What stands for `f core + o` here.
        let (core, f, o) = match formula.steps()[at] {
            Step::Unary(Unary::Negative, a) => (a, -1.0, 0.0),
            Step::Binary(op, a, b) => match (op, number(a), number(b)) {
                (Binary::Add, _, Some(c)) => (a, 1.0, c),
                (Binary::Add, Some(c), _) => (b, 1.0, c),
                (Binary::Subtract, _, Some(c)) => (a, 1.0, -c),
                (Binary::Subtract, Some(c), _) => (b, -1.0, c),
                (Binary::Multiply, _, Some(c)) => (a, c, 0.0),
                (Binary::Multiply, Some(c), _) => (b, c, 0.0),
                (Binary::Divide, _, Some(c)) => (a, 1.0 / c, 0.0),
                _ => break,
            },
            _ => break,
        };
        (factor, offset) = (factor * f, factor * o + offset);
        at = usize::from(core);
    }
    let usable = at + 1 < formula.steps().len() && f64::is_finite(factor) && f64::is_finite(offset);
    usable.then(|| (formula.part(at), factor, offset))
}

/// A formula all of whose x are in one line `a x + b`, as one of that line; and the line.
fn on_a_line(formula: &Formula) -> Option<(Formula, Formula)> {
    let steps = formula.steps();
    let lines: Vec<bool> = (0..steps.len()).map(|i| polynomial(&formula.part(i)).is_some_and(|p| p.len() == 2)).collect();
    // The lines that are read by other than lines.
    let mut read: Vec<usize> = Vec::new();
    for (_, step) in steps.iter().enumerate().filter(|(i, _)| !lines[*i]) {
        read.extend(step.operands().filter(|o| lines[*o]));
    }
    read.sort_unstable();
    read.dedup();
    let [only] = read[..] else { return None };
    if only == 0 {
        return None;
    }
    let mut made: Vec<Formula> = Vec::with_capacity(steps.len());
    for (i, step) in steps.iter().enumerate() {
        let at = |o: u16| &made[usize::from(o)];
        made.push(match step {
            _ if i == only => Formula::x(),
            Step::X => Formula::x(),
            Step::Constant(c) => Formula::constant(*c),
            Step::Unary(op, a) => Formula::unary(*op, at(*a)),
            Step::Binary(op, a, b) => Formula::binary(*op, at(*a), at(*b)),
            Step::Select(which, a, b) => Formula::select(at(*which), at(*a), at(*b)),
            Step::Apply(function, a) => Formula::apply(function, at(*a)),
        });
    }
    Some((made.pop()?, formula.part(only)))
}

thread_local! {
    /// Forms of the activations that have a name.
    static KNOWN: OnceCell<Vec<(ActivationFunction, Sum)>> = const { OnceCell::new() };
}

/// The activation with a name that has the same normal form.
fn known(formula: &Formula) -> Option<ActivationFunction> {
    let form = Sum::of(formula)?;
    KNOWN.with(|known| {
        let known = known.get_or_init(|| {
            use ActivationFunction::{Erf, Gelu, GeluTanh, HardSwish, Mish, Sigmoid, Silu, Softplus, Softsign, Tanh};
            let forms = [Gelu, GeluTanh, Sigmoid, Silu, HardSwish, Tanh, Softplus, Softsign, Mish, Erf].into_iter();
            forms.filter_map(|f| Sum::of(&Formula::apply(&f, &Formula::x())).map(|form| (f, form))).collect()
        });
        let found = known.iter().find(|(_, f)| f.is(&form)).map(|(function, _)| function.clone())?;
        // The algebra is checked by values, here and far out; where they differ, the formula is taken as it is written.
        let agrees = |x: f64| {
            let (a, b) = (found.value(x), formula.value(x));
            !b.is_finite() || (a - b).abs() <= 1e-4 * (1.0 + b.abs())
        };
        (-80..=80).all(|i| agrees(f64::from(i) / 2.0 + 0.1)).then_some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x() -> Formula {
        Formula::x()
    }

    /// A constant as a file holds it.
    fn c(value: f32) -> Formula {
        Formula::constant(value.into())
    }

    fn apply(f: ActivationFunction, x: &Formula) -> Formula {
        Formula::apply(&f, x)
    }

    fn op(op: Binary, a: &Formula, b: &Formula) -> Formula {
        Formula::binary(op, a, b)
    }

    fn clip(min: f64, max: f64) -> ActivationFunction {
        ActivationFunction::Clip { min, max }
    }

    #[test]
    fn spellings_of_activations() {
        use ActivationFunction::{
            Erf, Gelu, GeluTanh, HardSigmoid, HardSwish, LeakyRelu, Mish, Relu, Sigmoid, Silu, Softplus, Softsign, Tanh,
        };
        use Binary::*;
        let erf = apply(Erf, &op(Divide, &x(), &c(std::f32::consts::SQRT_2)));
        let erf_by_product = apply(Erf, &op(Multiply, &c(std::f32::consts::FRAC_1_SQRT_2), &x()));
        let one_plus = op(Add, &erf, &c(1.0));
        let half_x = op(Multiply, &x(), &c(0.5));
        let inner = op(Multiply, &x(), &one_plus);
        let cube = op(Power, &x(), &c(3.0));
        let inner_tanh = op(Add, &x(), &op(Multiply, &cube, &c(0.044715)));
        let tanh = apply(Tanh, &op(Multiply, &inner_tanh, &c(0.797_884_6)));
        let six = apply(clip(0.0, 6.0), &op(Add, &x(), &c(3.0)));
        let exp = |x: &Formula| Formula::unary(Unary::Exp, x);
        let minus = |x: &Formula| Formula::unary(Unary::Negative, x);
        let one_plus_exp = op(Add, &c(1.0), &exp(&minus(&x())));
        let hard = apply(HardSigmoid { alpha: f64::from(1.0f32 / 6.0), beta: 0.5 }, &x());
        let log_one_exp = Formula::unary(Unary::Log, &op(Add, &exp(&x()), &c(1.0)));
        let positive = op(Above, &x(), &c(0.0));
        let zero = c(0.0);
        for (formula, want) in [
            (op(Multiply, &half_x, &one_plus), Gelu),
            (op(Multiply, &inner, &c(0.5)), Gelu),
            (op(Multiply, &op(Add, &c(0.5), &op(Multiply, &erf_by_product, &c(0.5))), &x()), Gelu),
            (op(Multiply, &half_x, &op(Add, &c(1.0), &tanh)), GeluTanh),
            (op(Multiply, &x(), &apply(Sigmoid, &x())), Silu),
            (op(Multiply, &apply(Sigmoid, &x()), &x()), Silu),
            (op(Divide, &x(), &one_plus_exp), Silu),
            (op(Multiply, &x(), &op(Divide, &c(1.0), &one_plus_exp)), Silu),
            (op(Power, &one_plus_exp, &c(-1.0)), Sigmoid),
            (op(Subtract, &op(Multiply, &apply(Sigmoid, &op(Add, &x(), &x())), &c(2.0)), &c(1.0)), Tanh),
            (op(Divide, &op(Multiply, &x(), &six), &c(6.0)), HardSwish),
            (op(Multiply, &op(Multiply, &six, &c(1.0 / 6.0)), &x()), HardSwish),
            (op(Multiply, &x(), &hard), HardSwish),
            (op(Multiply, &x(), &apply(Tanh, &apply(Softplus, &x()))), Mish),
            (op(Multiply, &x(), &apply(Tanh, &log_one_exp)), Mish),
            (log_one_exp.clone(), Softplus),
            (Formula::select(&op(Above, &x(), &c(20.0)), &x(), &apply(Softplus, &x())), Softplus),
            (op(Divide, &x(), &op(Add, &Formula::unary(Unary::Absolute, &x()), &c(1.0))), Softsign),
            (op(Least, &apply(Relu, &x()), &c(6.0)), clip(0.0, 6.0)),
            (op(Least, &apply(Relu, &x()), &c(12.0)), clip(0.0, 12.0)),
            (apply(clip(-10.0, 10.0), &apply(Relu, &x())), clip(0.0, 10.0)),
            (apply(Relu, &apply(clip(-1.0, 1.0), &x())), clip(0.0, 1.0)),
            (op(Greatest, &x(), &c(0.0)), Relu),
            (op(Multiply, &op(Add, &x(), &Formula::unary(Unary::Absolute, &x())), &c(0.5)), Relu),
            (op(Multiply, &x(), &positive), Relu),
            (Formula::select(&positive, &x(), &zero), Relu),
            (Formula::select(&op(AtLeast, &zero, &x()), &zero, &x()), Relu),
            (apply(Relu, &apply(Relu, &x())), Relu),
            (apply(Relu, &apply(LeakyRelu { alpha: 0.1 }, &x())), Relu),
            (apply(LeakyRelu { alpha: 0.2 }, &x()), LeakyRelu { alpha: 0.2 }),
            (Formula::select(&positive, &x(), &op(Multiply, &x(), &c(0.25))), LeakyRelu { alpha: 0.25 }),
            (op(Greatest, &x(), &op(Multiply, &x(), &c(0.25))), LeakyRelu { alpha: 0.25 }),
            (op(Subtract, &apply(Relu, &x()), &op(Multiply, &apply(Relu, &minus(&x())), &c(0.25))), LeakyRelu { alpha: 0.25 }),
            (hard.clone(), HardSigmoid { alpha: f64::from(1.0f32 / 6.0), beta: 0.5 }),
            (apply(Sigmoid, &x()), Sigmoid),
        ] {
            assert_eq!(recognise(&formula), Recognised::Activation(want), "{formula}");
        }
    }

    /// What agrees with a known function between -9 and 9, or nearly everywhere, is not taken for it.
    #[test]
    fn near_misses_stay_what_they_are() {
        use ActivationFunction::{Gelu, Relu, Sigmoid, Softplus};
        use Binary::*;
        let sigmoid_of = |k: f32| apply(Sigmoid, &op(Multiply, &x(), &c(k)));
        let relu = apply(Relu, &x());
        let far = |t: f32, beyond: f32, f: &Formula| Formula::select(&op(Above, &x(), &c(t)), &c(beyond), f);
        for formula in [
            op(Multiply, &x(), &sigmoid_of(1.001)),
            op(Multiply, &x(), &sigmoid_of(1.702)),
            op(Multiply, &x(), &sigmoid_of(1.00001)),
            far(12.0, 7.0, &relu),
            op(Subtract, &relu, &apply(Relu, &op(Subtract, &op(Multiply, &x(), &c(3.0)), &c(40.0)))),
            op(Greatest, &relu, &op(Subtract, &op(Multiply, &x(), &c(-1.0)), &c(20.0))),
            Formula::select(&op(Above, &c(-15.0), &x()), &c(-1.0), &apply(Gelu, &x())),
            Formula::select(&op(Above, &x(), &c(9.0)), &x(), &apply(Softplus, &x())),
            Formula::select(&op(Above, &x(), &c(20.0)), &op(Multiply, &x(), &c(1.01)), &apply(Softplus, &x())),
            Formula::select(&op(Above, &x(), &c(20.0)), &apply(Softplus, &x()), &x()),
            op(Multiply, &relu, &relu),
            Formula::select(&op(Above, &x(), &c(1.0)), &x(), &c(0.0)),
            Formula::select(&op(Equal, &x(), &c(0.0)), &c(1.0), &relu),
            op(Power, &relu, &c(0.5)),
        ] {
            let own = ActivationFunction::Formula { steps: formula.clone() };
            assert_eq!(recognise(&formula), Recognised::Activation(own), "{formula}");
        }
    }

    #[test]
    fn scales_and_lines_are_left_to_the_layers_around() {
        use Binary::*;
        let relu = |x: &Formula| apply(ActivationFunction::Relu, x);
        let line = |slope: f64, offset: f64| Formula::line(slope, offset);
        let two_x_one = op(Add, &op(Multiply, &x(), &c(2.0)), &c(1.0));
        assert_eq!(recognise(&relu(&two_x_one)), Recognised::OfLine(ActivationFunction::Relu, two_x_one.clone()));
        let scaled = |core: Formula, factor: f64, offset: f64| Recognised::Scaled { core, factor, offset };
        let three = op(Subtract, &c(1.0), &op(Multiply, &c(3.0), &relu(&x())));
        assert_eq!(recognise(&three), scaled(relu(&x()), -3.0, 1.0));
        // min(x, 6) = 6 - relu(6 - x); max(x, -1) = relu(x + 1) - 1.
        assert_eq!(recognise(&op(Least, &x(), &c(6.0))), scaled(relu(&line(-1.0, 6.0)), -1.0, 6.0));
        assert_eq!(recognise(&op(Greatest, &x(), &c(-1.0))), scaled(relu(&line(1.0, 1.0)), 1.0, -1.0));
        let silu = op(Multiply, &two_x_one, &apply(ActivationFunction::Sigmoid, &two_x_one));
        assert_eq!(recognise(&silu), Recognised::OfLine(ActivationFunction::Silu, two_x_one));
        let falling = Formula::select(&op(Above, &x(), &c(2.0)), &c(-1.0), &op(Greatest, &op(Subtract, &c(1.0), &x()), &c(-1.0)));
        let falling = op(Least, &falling, &c(3.0));
        assert_eq!(recognise(&falling), Recognised::OfLine(ActivationFunction::Clip { min: -1.0, max: 3.0 }, line(-1.0, 1.0)));
    }

    #[test]
    fn polynomials_and_growth() {
        use Binary::*;
        let line = op(Subtract, &op(Multiply, &x(), &c(2.0)), &c(1.0));
        assert_eq!(recognise(&line), Recognised::Polynomial(vec![-1.0, 2.0]));
        let square = op(Multiply, &line, &line);
        assert_eq!(recognise(&square), Recognised::Polynomial(vec![1.0, -4.0, 4.0]));
        let same = op(Divide, &op(Add, &x(), &x()), &c(2.0));
        assert_eq!(recognise(&same), Recognised::Identity);
        let relu = apply(ActivationFunction::Relu, &x());
        let nothing = apply(ActivationFunction::Relu, &op(Subtract, &c(-1.0), &relu));
        assert_eq!(recognise(&nothing), Recognised::Polynomial(vec![0.0]));
        let mut grown = x();
        for k in 1..=MAX_STEPS {
            grown = op(Multiply, &grown, &op(Add, &grown, &c(k as f32)));
        }
        assert!(!is_small(&grown));
        // What is long or deep takes no longer to look at.
        let mut nested = x();
        for _ in 0..30 {
            nested = op(Add, &apply(ActivationFunction::Mish, &nested), &op(Multiply, &nested, &nested));
        }
        assert!(matches!(recognise(&nested), Recognised::Activation(ActivationFunction::Formula { .. })));
    }
}

//! Where a formula is defined: interval arithmetic, on parts of an interval as small as it takes.

use super::{ActivationFunction, Binary, Formula, Step, Unary};

/// Parts are halved no further than this part of the interval.
const SMALLEST: f64 = 1.0 / (1 << 20) as f64;
/// Most parts that are looked at.
const MOST_PARTS: usize = 1 << 14;

/// Smallest and largest value, or more; none if it is not known to be defined everywhere.
type Extent = Option<[f64; 2]>;

impl Formula {
    /// A point of `[a, b]` at or near which its value is no finite number, or is not known to be one; none if it is defined in the
    /// whole interval. Not a question of samples: interval arithmetic bounds every step on parts of the interval.
    pub fn undefined_in(&self, [a, b]: [f64; 2]) -> Option<f64> {
        let mut parts = vec![[a, b]];
        let mut seen = 0;
        while let Some([low, high]) = parts.pop() {
            seen += 1;
            let middle = low + (high - low) / 2.0;
            if let Some(bad) = [low, middle, high].into_iter().find(|x| !self.value(*x).is_finite()) {
                return Some(bad);
            }
            let last = high - low <= SMALLEST * (b - a) || seen > MOST_PARTS;
            match self.extent([low, high], last) {
                Some([least, most]) if least.is_finite() && most.is_finite() => {}
                _ if last => return Some(middle),
                _ => parts.extend([[low, middle], [middle, high]]),
            }
        }
        None
    }

    /// What its values lie between for x in an interval. `last`: it will not be divided further.
    fn extent(&self, x: [f64; 2], last: bool) -> Extent {
        let mut extents: Vec<Extent> = Vec::with_capacity(self.steps().len());
        for (i, step) in self.steps().iter().enumerate() {
            let at = |i: u16| extents[usize::from(i)];
            let extent = match step {
                Step::X => Some(x),
                Step::Constant(c) => Some([*c, *c]),
                Step::Unary(op, a) => at(*a).and_then(|a| unary(*op, a)),
                // A square is not negative, which the product of an interval with itself does not know.
                Step::Binary(Binary::Multiply, a, b) if a == b => at(*a).and_then(|a| power(a, 2.0)),
                Step::Binary(op, a, b) => at(*a).zip(at(*b)).and_then(|(a, b)| binary(*op, a, b)),
                Step::Select(which, a, b) => match (at(*which), at(*a), at(*b)) {
                    (Some([0.0, 0.0]), _, b) => b,
                    (Some([low, high]), a, _) if low > 0.0 || high < 0.0 => a,
                    (Some(_), Some(a), Some(b)) => Some(hull(&[a[0], a[1], b[0], b[1]])),
                    // At the border of a condition, the side that is not taken need not be defined.
                    (Some(_), ..) if last => Some(hull(&[x[0], (x[0] + x[1]) / 2.0, x[1]].map(|x| self.part(i).value(x)))),
                    _ => None,
                },
                Step::Apply(function, a) => at(*a).map(|a| named(function, a)),
            };
            extents.push(extent.filter(|[low, high]| low <= high));
        }
        extents.pop().flatten()
    }
}

/// The smallest and the largest of some values; everything if one of them is none.
fn hull(values: &[f64]) -> [f64; 2] {
    if values.iter().any(|v| v.is_nan()) {
        return [f64::NEG_INFINITY, f64::INFINITY];
    }
    values.iter().fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(*v), high.max(*v)])
}

/// A function that changes by no more than `slope` for each unit of its operand.
fn sloped(f: impl Fn(f64) -> f64, slope: f64, [a, b]: [f64; 2]) -> [f64; 2] {
    let (middle, reach) = (f(a + (b - a) / 2.0), slope * (b - a) / 2.0);
    hull(&[middle - reach, middle + reach])
}

fn unary(op: Unary, [a, b]: [f64; 2]) -> Extent {
    let ends = hull(&[op.value(a), op.value(b)]);
    match op {
        Unary::Sqrt if a < 0.0 => None,
        Unary::Log if a <= 0.0 => None,
        Unary::Absolute if a < 0.0 && b > 0.0 => Some([0.0, ends[1]]),
        Unary::Cosh if a < 0.0 && b > 0.0 => Some([1.0, ends[1]]),
        Unary::Sin | Unary::Cos => {
            let [low, high] = sloped(|x| op.value(x), 1.0, [a, b]);
            Some([low.max(-1.0), high.min(1.0)])
        }
        _ => Some(ends),
    }
}

fn binary(op: Binary, [a, b]: [f64; 2], [c, d]: [f64; 2]) -> Extent {
    // 1 if it holds for all, 0 if for none.
    let truth = |all: bool, none: bool| match (all, none) {
        (true, _) => Some([1.0, 1.0]),
        (_, true) => Some([0.0, 0.0]),
        _ => Some([0.0, 1.0]),
    };
    match op {
        Binary::Add => Some(hull(&[a + c, b + d])),
        Binary::Subtract => Some(hull(&[a - d, b - c])),
        Binary::Multiply => Some(hull(&[a * c, a * d, b * c, b * d])),
        Binary::Divide if c <= 0.0 && d >= 0.0 => None,
        Binary::Divide => Some(hull(&[a / c, a / d, b / c, b / d])),
        Binary::Power if c == d => power([a, b], c),
        Binary::Power if a > 0.0 => Some(hull(&[a.powf(c), a.powf(d), b.powf(c), b.powf(d)])),
        Binary::Power => None,
        Binary::Least => Some([a.min(c), b.min(d)]),
        Binary::Greatest => Some([a.max(c), b.max(d)]),
        Binary::Above => truth(a > d, b <= c),
        Binary::AtLeast => truth(a >= d, b < c),
        Binary::Equal => truth(a == b && c == d && a == c, b < c || a > d),
    }
}

fn power([a, b]: [f64; 2], n: f64) -> Extent {
    let ends = hull(&[a.powf(n), b.powf(n)]);
    let whole = n.fract() == 0.0;
    if a < 0.0 && !whole || n < 0.0 && a <= 0.0 && b >= 0.0 {
        return None;
    }
    // Even powers fall, then rise.
    if whole && n % 2.0 == 0.0 && a < 0.0 && b > 0.0 { Some([if n == 0.0 { 1.0 } else { 0.0 }, ends[1]]) } else { Some(ends) }
}

/// All of them are defined everywhere.
fn named(function: &ActivationFunction, x: [f64; 2]) -> [f64; 2] {
    use ActivationFunction::*;
    let ends = hull(&x.map(|x| function.value(x)));
    match function {
        Relu | Sigmoid | HardSigmoid { .. } | Tanh | Softplus | Softsign | Erf | Clip { .. } | Celu { .. } => ends,
        LeakyRelu { alpha } | Elu { alpha } if *alpha >= 0.0 => ends,
        Selu { alpha, .. } if *alpha >= 0.0 => ends,
        LeakyRelu { alpha } | Elu { alpha } => sloped(|x| function.value(x), alpha.abs().max(1.0), x),
        Selu { alpha, gamma } => sloped(|x| function.value(x), gamma.abs() * alpha.abs().max(1.0), x),
        // Silu, Mish, both Gelus: their slopes stay below 1.13.
        _ => sloped(|x| function.value(x), 1.5, x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_defined_is_found_between_samples() {
        let (x, c) = (Formula::x(), Formula::constant);
        let op = Formula::binary;
        let relu = Formula::apply(&ActivationFunction::Relu, &x);
        let shifted = op(Binary::Subtract, &x, &c(0.123_456_789));
        let square = op(Binary::Multiply, &x, &x);
        let log = |f: &Formula| Formula::unary(Unary::Log, f);
        let sqrt = |f: &Formula| Formula::unary(Unary::Sqrt, f);
        let positive = op(Binary::Above, &x, &c(0.0));
        for (name, f, interval, bad) in [
            ("1 / (x - 0.123)", op(Binary::Divide, &c(1.0), &shifted), [-5.0, 8.0], true),
            ("1 / (x - 0.123)", op(Binary::Divide, &c(1.0), &shifted), [0.5, 8.0], false),
            ("log x", log(&x), [-1.0, 1.0], true),
            ("log x", log(&x), [0.0, 1.0], true),
            ("log x", log(&x), [1e-9, 1.0], false),
            ("log (1 + relu)", log(&op(Binary::Add, &relu, &c(1.0))), [-50.0, 50.0], false),
            ("log sigmoid", log(&Formula::apply(&ActivationFunction::Sigmoid, &x)), [-50.0, 50.0], false),
            ("sqrt relu", sqrt(&relu), [-50.0, 50.0], false),
            ("sqrt x", sqrt(&x), [-0.001, 50.0], true),
            ("sqrt (x^2 + 1)", sqrt(&op(Binary::Add, &square, &c(1.0))), [-9.0, 9.0], false),
            (
                "1 / (x^2 - x + 0.26)",
                {
                    let d = op(Binary::Add, &op(Binary::Subtract, &square, &x), &c(0.26));
                    op(Binary::Divide, &c(1.0), &d)
                },
                [-9.0, 9.0],
                false,
            ),
            ("where(x > 0, sqrt x, 0)", Formula::select(&positive, &sqrt(&x), &c(0.0)), [-3.0, 7.1], false),
            ("where(x > 0, 0, sqrt x)", Formula::select(&positive, &c(0.0), &sqrt(&x)), [-3.0, 7.1], true),
            ("x^0.5", op(Binary::Power, &x, &c(0.5)), [-1.0, 2.0], true),
            ("x^-2", op(Binary::Power, &x, &c(-2.0)), [-1.0, 1.7], true),
            ("x^3", op(Binary::Power, &x, &c(3.0)), [-1.0, 2.0], false),
            ("exp x", Formula::unary(Unary::Exp, &x), [-900.0, 900.0], true),
            ("silu", Formula::apply(&ActivationFunction::Silu, &x), [-40.0, 40.0], false),
        ] {
            assert_eq!(f.undefined_in(interval).is_some(), bad, "{name} in {interval:?}");
        }
    }
}

//! Functions that are made of straight lines, exactly: where the lines meet or jump, and the line on each side.

use crate::nn::model::ActivationFunction;
use crate::nn::model::formula::{Binary, Formula, Step, Unary};

/// Most knots; what has more is fitted as it is written.
const MAX_KNOTS: usize = 64;

/// `slope x + offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    pub slope: f64,
    pub offset: f64,
}

impl Line {
    fn value(self, x: f64) -> f64 {
        // A constant piece is one also at infinity.
        if self.slope == 0.0 { self.offset } else { self.slope * x + self.offset }
    }
}

/// Where one line ends and the next begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Knot {
    pub at: f64,
    /// The value there: of either side, or another.
    pub value: f64,
}

/// A function of x: one line more than there are knots, which are in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piecewise {
    pub knots: Vec<Knot>,
    pub lines: Vec<Line>,
}

impl Piecewise {
    /// What each step of a formula is, where it is made of lines.
    pub(super) fn of(formula: &Formula) -> Vec<Option<Self>> {
        let mut found: Vec<Option<Self>> = Vec::with_capacity(formula.steps().len());
        for step in formula.steps() {
            let at = |i: u16| found[usize::from(i)].as_ref();
            let made = match step {
                Step::X => Some(Self::line(1.0, 0.0)),
                Step::Constant(c) => Some(Self::line(0.0, *c)),
                Step::Unary(op, a) => at(*a).and_then(|a| a.unary(*op)),
                Step::Binary(op, a, b) => at(*a).zip(at(*b)).and_then(|(a, b)| a.binary(*op, b)),
                Step::Select(which, a, b) => {
                    at(*which).zip(at(*a).zip(at(*b))).and_then(|(which, (a, b))| Self::select(which, a, b))
                }
                Step::Apply(function, a) => at(*a).and_then(|a| a.applied(function)),
            };
            found.push(made.map(Self::simplified).filter(Self::is_usable));
        }
        found
    }

    fn line(slope: f64, offset: f64) -> Self {
        Self { knots: Vec::new(), lines: vec![Line { slope, offset }] }
    }

    fn is_usable(&self) -> bool {
        let numbers = self.knots.iter().flat_map(|k| [k.at, k.value]).chain(self.lines.iter().flat_map(|l| [l.slope, l.offset]));
        self.knots.len() <= MAX_KNOTS && numbers.into_iter().all(f64::is_finite)
    }

    /// The line, if it is one.
    pub(super) fn as_line(&self) -> Option<Line> {
        if self.knots.is_empty() { Some(self.lines[0]) } else { None }
    }

    pub(super) fn value(&self, x: f64) -> f64 {
        let piece = self.knots.partition_point(|k| k.at < x);
        match self.knots.get(piece) {
            Some(knot) if knot.at == x => knot.value,
            _ => self.lines[piece].value(x),
        }
    }

    /// Whether it has no jumps.
    pub(super) fn is_continuous(&self) -> bool {
        let near = |a: f64, b: f64, size: f64| (a - b).abs() <= 1e-12 * (1.0 + size);
        self.knots.iter().zip(self.lines.windows(2)).all(|(k, sides)| {
            // What is rounded where two lines meet is as large as their parts.
            sides.iter().all(|line| near(line.value(k.at), k.value, (line.slope * k.at).abs() + line.offset.abs()))
        })
    }

    /// The same function times a number.
    pub(super) fn scaled(&self, by: f64) -> Self {
        let line = |l: &Line| Line { slope: l.slope * by, offset: l.offset * by };
        let knot = |k: &Knot| Knot { value: k.value * by, ..*k };
        Self { knots: self.knots.iter().map(knot).collect(), lines: self.lines.iter().map(line).collect() }
    }

    /// Without the knots at which nothing changes.
    fn simplified(self) -> Self {
        let mut simple = Self { knots: Vec::new(), lines: vec![self.lines[0]] };
        for (knot, line) in self.knots.iter().zip(&self.lines[1..]) {
            let before = simple.lines[simple.lines.len() - 1];
            if before != *line || before.value(knot.at) != knot.value {
                simple.knots.push(*knot);
                simple.lines.push(*line);
            }
        }
        simple
    }

    /// The line over all of a stretch that no knot divides.
    fn over(&self, inside: f64) -> Line {
        self.lines[self.knots.partition_point(|k| k.at < inside)]
    }

    /// Two functions on pieces on which both are lines, and, if `crossings`, do not cross. `line` makes the line of a piece of
    /// those of both and a point inside; `value` the value at a knot.
    fn piece_by_piece(
        &self,
        other: &Self,
        crossings: bool,
        line: impl Fn(Line, Line, f64) -> Option<Line>,
        value: impl Fn(f64, f64) -> f64,
    ) -> Option<Self> {
        let mut at: Vec<f64> = self.knots.iter().chain(&other.knots).map(|k| k.at).collect();
        at.sort_by(f64::total_cmp);
        at.dedup();
        if crossings {
            let mut met = Vec::new();
            for i in 0..=at.len() {
                let (low, high) =
                    (i.checked_sub(1).map_or(f64::NEG_INFINITY, |i| at[i]), at.get(i).copied().unwrap_or(f64::INFINITY));
                let inside = between(low, high);
                let (a, b) = (self.over(inside), other.over(inside));
                let x = (b.offset - a.offset) / (a.slope - b.slope);
                if x > low && x < high {
                    met.push(x);
                }
            }
            at.extend(met);
            at.sort_by(f64::total_cmp);
        }
        if at.len() > 2 * MAX_KNOTS {
            return None;
        }
        let mut made = Self { knots: Vec::with_capacity(at.len()), lines: Vec::with_capacity(at.len() + 1) };
        for i in 0..=at.len() {
            let (low, high) =
                (i.checked_sub(1).map_or(f64::NEG_INFINITY, |i| at[i]), at.get(i).copied().unwrap_or(f64::INFINITY));
            let inside = between(low, high);
            made.lines.push(line(self.over(inside), other.over(inside), inside)?);
            if high.is_finite() {
                made.knots.push(Knot { at: high, value: value(self.value(high), other.value(high)) });
            }
        }
        Some(made)
    }

    fn unary(&self, op: Unary) -> Option<Self> {
        match op {
            Unary::Negative => Some(self.scaled(-1.0)),
            Unary::Absolute => self.binary(Binary::Greatest, &self.scaled(-1.0)),
            // Of a constant, anything is one.
            _ => self.each(|v| op.value(v)),
        }
    }

    /// A function of a function that only takes a few values.
    fn each(&self, f: impl Fn(f64) -> f64) -> Option<Self> {
        let line = |l: &Line| (l.slope == 0.0).then(|| Line { slope: 0.0, offset: f(l.offset) });
        let lines = self.lines.iter().map(line).collect::<Option<Vec<_>>>()?;
        Some(Self { knots: self.knots.iter().map(|k| Knot { value: f(k.value), ..*k }).collect(), lines })
    }

    fn binary(&self, op: Binary, other: &Self) -> Option<Self> {
        let value = |a: f64, b: f64| op.value(a, b);
        let sum = |sign: f64| {
            move |a: Line, b: Line, _: f64| Some(Line { slope: a.slope + sign * b.slope, offset: a.offset + sign * b.offset })
        };
        match op {
            Binary::Add => self.piece_by_piece(other, false, sum(1.0), value),
            Binary::Subtract => self.piece_by_piece(other, false, sum(-1.0), value),
            Binary::Multiply => {
                let product = |a: Line, b: Line, _: f64| match (a.slope == 0.0, b.slope == 0.0) {
                    (true, _) => Some(Line { slope: b.slope * a.offset, offset: b.offset * a.offset }),
                    (_, true) => Some(Line { slope: a.slope * b.offset, offset: a.offset * b.offset }),
                    _ => None,
                };
                self.piece_by_piece(other, false, product, value)
            }
            Binary::Divide => {
                let quotient = |a: Line, b: Line, _: f64| {
                    (b.slope == 0.0).then(|| Line { slope: a.slope / b.offset, offset: a.offset / b.offset })
                };
                self.piece_by_piece(other, false, quotient, value)
            }
            Binary::Power => match other.as_line()? {
                Line { slope: 0.0, offset: 1.0 } => Some(self.clone()),
                Line { slope: 0.0, offset } => self.each(|v| v.powf(offset)),
                _ => None,
            },
            Binary::Least | Binary::Greatest => {
                let one = |a: Line, b: Line, x: f64| {
                    let first = if op == Binary::Least { a.value(x) <= b.value(x) } else { a.value(x) >= b.value(x) };
                    Some(if first { a } else { b })
                };
                self.piece_by_piece(other, true, one, value)
            }
            Binary::Above | Binary::AtLeast | Binary::Equal => {
                let truth = |a: Line, b: Line, x: f64| {
                    // Lines that are one are equal everywhere, whatever rounding says.
                    let (a, b) = if a == b { (0.0, 0.0) } else { (a.value(x), b.value(x)) };
                    Some(Line { slope: 0.0, offset: op.value(a, b) })
                };
                // Where two lines cross they are equal.
                let mut made = self.piece_by_piece(other, true, truth, value)?;
                let knots = |f: &Self, at: f64| f.knots.iter().any(|k| k.at == at);
                for knot in &mut made.knots {
                    if !knots(self, knot.at) && !knots(other, knot.at) {
                        knot.value = op.value(0.0, 0.0);
                    }
                }
                Some(made)
            }
        }
    }

    fn select(which: &Self, a: &Self, b: &Self) -> Option<Self> {
        if which.lines.iter().any(|l| l.slope != 0.0) {
            return None;
        }
        // The side taken where `which` holds, 0 elsewhere; and the other way round.
        let truth = |f: fn(f64) -> bool| which.each(|v| f64::from(u8::from(f(v))));
        let (yes, no) = (truth(|v| v != 0.0)?, truth(|v| v == 0.0)?);
        let taken = |side: &Self, by: &Self| side.binary(Binary::Multiply, by);
        taken(a, &yes)?.binary(Binary::Add, &taken(b, &no)?)
    }

    fn applied(&self, function: &ActivationFunction) -> Option<Self> {
        let least = |f: &Self, c: f64| f.binary(Binary::Least, &Self::line(0.0, c));
        let greatest = |f: &Self, c: f64| f.binary(Binary::Greatest, &Self::line(0.0, c));
        match *function {
            ActivationFunction::Relu => greatest(self, 0.0),
            ActivationFunction::LeakyRelu { alpha } => greatest(self, 0.0)?.binary(Binary::Add, &least(self, 0.0)?.scaled(alpha)),
            ActivationFunction::Clip { min, max } => least(&greatest(self, min)?, max),
            ActivationFunction::HardSigmoid { alpha, beta } => {
                let line = self.scaled(alpha).binary(Binary::Add, &Self::line(0.0, beta))?;
                least(&greatest(&line, 0.0)?, 1.0)
            }
            _ => self.each(|v| function.value(v)),
        }
    }
}

/// A point between two, which may be infinite.
fn between(low: f64, high: f64) -> f64 {
    match (low.is_finite(), high.is_finite()) {
        (true, true) => low + (high - low) / 2.0,
        (true, false) => low + 1.0 + low.abs(),
        (false, true) => high - 1.0 - high.abs(),
        (false, false) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    fn last(f: &Formula) -> Option<Piecewise> {
        Piecewise::of(f).pop().flatten()
    }

    /// Random formulas of lines: what their pieces say against the formula itself, far out, and at and around every knot.
    #[test]
    fn pieces_agree_with_the_formula_everywhere() {
        let mut rng = chacha20::ChaCha8Rng::seed_from_u64(61);
        let mut knots = 0;
        for _ in 0..500 {
            let mut known = vec![Formula::x(), Formula::constant(0.0)];
            for _ in 0..rng.random_range(1..8) {
                let a = known[rng.random_range(0..known.len())].clone();
                let b = known[rng.random_range(0..known.len())].clone();
                let c = Formula::constant(f64::from(rng.random_range(-12..=12)) / 4.0);
                known.push(match rng.random_range(0..9) {
                    0 => Formula::binary(Binary::Add, &a, &b),
                    1 => Formula::binary(Binary::Subtract, &a, &c),
                    2 => Formula::binary(Binary::Multiply, &a, &c),
                    3 => Formula::binary(Binary::Least, &a, &b),
                    4 => Formula::binary(Binary::Greatest, &a, &c),
                    5 => Formula::unary(Unary::Absolute, &a),
                    6 => Formula::apply(&ActivationFunction::LeakyRelu { alpha: 0.25 }, &a),
                    7 => Formula::select(&Formula::binary(Binary::Above, &a, &c), &b, &a),
                    _ => Formula::select(&Formula::binary(Binary::AtLeast, &c, &b), &c, &a),
                });
            }
            let Some(f) = known.pop() else { continue };
            let Some(pieces) = last(&f) else { continue };
            knots += pieces.knots.len();
            let around = pieces.knots.iter().flat_map(|k| [k.at, k.at - 1e-3, k.at + 1e-3]);
            for x in around.chain((-80..=80).map(|i| f64::from(i) / 2.0)).chain([-1e6, 1e6]) {
                let (found, want) = (pieces.value(x), f.value(x));
                assert!((found - want).abs() <= 1e-9 * (1.0 + want.abs()), "{f} at {x}: {found}, expected {want}");
            }
        }
        assert!(knots > 200, "{knots}");
    }

    #[test]
    fn what_is_one_function_has_one_form() {
        let x = Formula::x();
        let c = Formula::constant;
        let relu = Formula::apply(&ActivationFunction::Relu, &x);
        let six = Formula::apply(&ActivationFunction::Clip { min: 0.0, max: 6.0 }, &x);
        assert_eq!(last(&Formula::binary(Binary::Least, &relu, &c(6.0))), last(&six));
        let negative = Formula::apply(&ActivationFunction::Relu, &Formula::unary(Unary::Negative, &x));
        let difference = Formula::binary(Binary::Subtract, &relu, &negative);
        assert_eq!(last(&difference).and_then(|p| p.as_line()), Some(Line { slope: 1.0, offset: 0.0 }));
        let positive = Formula::binary(Binary::Above, &x, &c(0.0));
        assert_eq!(last(&Formula::binary(Binary::Multiply, &x, &positive)), last(&relu));
        assert!(!last(&positive).is_some_and(|p| p.is_continuous()));
        assert_eq!(last(&Formula::binary(Binary::Multiply, &x, &relu)), None, "half a parabola");
    }
}

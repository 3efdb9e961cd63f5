//! Functions of one number that have no name of their own, as lists of steps.
//!
//! A step reads x, a constant, or steps before it, so that a formula is evaluated from the first step to the last, without
//! recursion, and a part that is used twice is computed once. What a file may hold is bounded when it is read.

mod extent;

use super::ActivationFunction;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Most steps of a formula.
pub const MAX_STEPS: usize = 256;
/// Formulas of no more steps are evaluated in less room.
const FEW_STEPS: usize = 16;
/// A longer text of a part is left out of the whole.
const MAX_TEXT: usize = 80;
/// No number of a network comes near: a bound beyond it bounds nothing.
const UNREACHED: f64 = 1e30;

/// A function of x. The last step is its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Step>", into = "Vec<Step>")]
pub struct Formula {
    steps: Arc<[Step]>,
}

/// One step; numbers of steps count from 0 and are smaller than its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// What the function is of.
    X,
    /// A number.
    Constant(f64),
    /// A function of one step.
    Unary(Unary, u16),
    /// A function of two steps.
    Binary(Binary, u16, u16),
    /// The second step where the first is not 0, else the third.
    Select(u16, u16, u16),
    /// A function with a name, of one step.
    Apply(ActivationFunction, u16),
}

/// A function of one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum Unary {
    Negative,
    Absolute,
    Sqrt,
    Exp,
    Log,
    Sin,
    Cos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
}

/// A function of two operands; comparisons are 1 or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
    Least,
    Greatest,
    /// `a > b`.
    Above,
    /// `a >= b`.
    AtLeast,
    Equal,
}

impl Unary {
    /// The value.
    pub fn value(self, v: f64) -> f64 {
        match self {
            Self::Negative => -v,
            Self::Absolute => v.abs(),
            Self::Sqrt => v.sqrt(),
            Self::Exp => v.exp(),
            Self::Log => v.ln(),
            Self::Sin => v.sin(),
            Self::Cos => v.cos(),
            Self::Atan => v.atan(),
            Self::Sinh => v.sinh(),
            Self::Cosh => v.cosh(),
            Self::Asinh => v.asinh(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Negative => "-",
            Self::Absolute => "abs",
            Self::Sqrt => "sqrt",
            Self::Exp => "exp",
            Self::Log => "log",
            Self::Sin => "sin",
            Self::Cos => "cos",
            Self::Atan => "atan",
            Self::Sinh => "sinh",
            Self::Cosh => "cosh",
            Self::Asinh => "asinh",
        }
    }
}

impl Binary {
    /// The value.
    pub fn value(self, a: f64, b: f64) -> f64 {
        let truth = |t: bool| f64::from(u8::from(t));
        match self {
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::Multiply => a * b,
            Self::Divide => a / b,
            Self::Power => a.powf(b),
            Self::Least => a.min(b),
            Self::Greatest => a.max(b),
            Self::Above => truth(a > b),
            Self::AtLeast => truth(a >= b),
            Self::Equal => truth(a == b),
        }
    }
}

impl Step {
    /// The steps it reads.
    pub fn operands(&self) -> impl Iterator<Item = usize> {
        let (a, b, c) = match *self {
            Self::X | Self::Constant(_) => (None, None, None),
            Self::Unary(_, a) | Self::Apply(_, a) => (Some(a), None, None),
            Self::Binary(_, a, b) => (Some(a), Some(b), None),
            Self::Select(a, b, c) => (Some(a), Some(b), Some(c)),
        };
        [a, b, c].into_iter().flatten().map(usize::from)
    }

    /// The same step where the steps it reads have other numbers.
    fn renumbered(&self, to: impl Fn(u16) -> u16) -> Self {
        match self {
            Self::X | Self::Constant(_) => self.clone(),
            Self::Unary(op, a) => Self::Unary(*op, to(*a)),
            Self::Apply(function, a) => Self::Apply(function.clone(), to(*a)),
            Self::Binary(op, a, b) => Self::Binary(*op, to(*a), to(*b)),
            Self::Select(a, b, c) => Self::Select(to(*a), to(*b), to(*c)),
        }
    }

    /// Its value for x, with those of the steps before it.
    fn value(&self, x: f64, before: &[f64]) -> f64 {
        let at = |i: u16| before[usize::from(i)];
        match self {
            Self::X => x,
            Self::Constant(c) => *c,
            Self::Unary(op, a) => op.value(at(*a)),
            Self::Binary(op, a, b) => op.value(at(*a), at(*b)),
            Self::Select(which, a, b) => at(if at(*which) != 0.0 { *a } else { *b }),
            Self::Apply(function, a) => function.value(at(*a)),
        }
    }
}

impl Formula {
    /// x itself.
    pub fn x() -> Self {
        Self { steps: [Step::X].into() }
    }

    /// A number.
    pub fn constant(c: f64) -> Self {
        // -0 and 0 are one number.
        Self { steps: [Step::Constant(c + 0.0)].into() }
    }

    /// A function of a formula.
    pub fn unary(op: Unary, a: &Self) -> Self {
        Self::joined(&[a], |at| Step::Unary(op, at[0]))
    }

    /// A function of two formulas.
    pub fn binary(op: Binary, a: &Self, b: &Self) -> Self {
        let beyond = |f: &Self, sign: f64| f.as_constant().is_some_and(|c| c * sign >= UNREACHED);
        match op {
            Binary::Least if beyond(b, 1.0) => a.clone(),
            Binary::Least if beyond(a, 1.0) => b.clone(),
            Binary::Greatest if beyond(b, -1.0) => a.clone(),
            Binary::Greatest if beyond(a, -1.0) => b.clone(),
            _ => Self::joined(&[a, b], |at| Step::Binary(op, at[0], at[1])),
        }
    }

    /// `a` where `which` is not 0, else `b`.
    pub fn select(which: &Self, a: &Self, b: &Self) -> Self {
        match which.as_constant() {
            Some(0.0) => b.clone(),
            Some(_) => a.clone(),
            None => Self::joined(&[which, a, b], |at| Step::Select(at[0], at[1], at[2])),
        }
    }

    /// A function with a name, of a formula.
    pub fn apply(function: &ActivationFunction, a: &Self) -> Self {
        Self::joined(&[a], |at| Step::Apply(function.clone(), at[0]))
    }

    /// `slope x + offset`.
    pub fn line(slope: f64, offset: f64) -> Self {
        let scaled = if slope == 1.0 { Self::x() } else { Self::binary(Binary::Multiply, &Self::x(), &Self::constant(slope)) };
        if offset == 0.0 { scaled } else { Self::binary(Binary::Add, &scaled, &Self::constant(offset)) }
    }

    /// One step more, which reads the results of formulas.
    fn joined(parts: &[&Self], last: impl FnOnce(&[u16]) -> Step) -> Self {
        let mut steps: Vec<Step> = parts[0].steps.to_vec();
        let mut ends = vec![steps.len() as u16 - 1];
        let number = |steps: &mut Vec<Step>, step: Step| match steps.iter().position(|s| *s == step) {
            Some(at) => at as u16,
            None => {
                steps.push(step);
                steps.len() as u16 - 1
            }
        };
        for part in &parts[1..] {
            let mut numbers: Vec<u16> = Vec::with_capacity(part.steps.len());
            for step in part.steps.iter() {
                let step = step.renumbered(|i| numbers[usize::from(i)]);
                numbers.push(number(&mut steps, step));
            }
            ends.extend(numbers.last());
        }
        let last = last(&ends);
        if parts.iter().all(|p| p.as_constant().is_some()) {
            let values: Vec<f64> = steps.iter().map(|s| s.value(0.0, &[])).collect();
            return Self::constant(last.value(0.0, &values));
        }
        let at = number(&mut steps, last);
        Self::ending_at(&steps, usize::from(at))
    }

    /// The steps that one of them depends on.
    fn ending_at(steps: &[Step], at: usize) -> Self {
        let mut needed = vec![false; at + 1];
        needed[at] = true;
        for i in (0..=at).rev() {
            if needed[i] {
                steps[i].operands().for_each(|o| needed[o] = true);
            }
        }
        let mut numbers = vec![0u16; at + 1];
        let mut kept = Vec::with_capacity(at + 1);
        for (i, step) in steps[..=at].iter().enumerate().filter(|(i, _)| needed[*i]) {
            numbers[i] = kept.len() as u16;
            kept.push(step.renumbered(|o| numbers[usize::from(o)]));
        }
        Self { steps: kept.into() }
    }

    /// What one of its steps is.
    pub fn part(&self, step: usize) -> Self {
        Self::ending_at(&self.steps, step)
    }

    /// The steps, each after those it reads.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Its number, if it does not depend on x.
    pub fn as_constant(&self) -> Option<f64> {
        match self.steps[..] {
            [Step::Constant(c)] => Some(c),
            _ => None,
        }
    }

    /// The value at x; not finite where it is not defined.
    pub fn value(&self, x: f64) -> f64 {
        fn run<const N: usize>(steps: &[Step], x: f64) -> f64 {
            let mut values = [0.0; N];
            for (i, step) in steps.iter().enumerate() {
                values[i] = step.value(x, &values);
            }
            values[steps.len() - 1]
        }
        if self.steps.len() <= FEW_STEPS { run::<FEW_STEPS>(&self.steps, x) } else { run::<MAX_STEPS>(&self.steps, x) }
    }

    /// What makes it unusable, if anything does.
    pub(in crate::nn) fn problem(&self) -> Option<String> {
        problem(&self.steps)
    }
}

fn problem(steps: &[Step]) -> Option<String> {
    if steps.is_empty() || steps.len() > MAX_STEPS {
        return Some(format!("a formula has {} steps; 1 to {MAX_STEPS} are usable", steps.len()));
    }
    steps.iter().enumerate().find_map(|(i, step)| match step {
        Step::Constant(c) if !c.is_finite() => Some(format!("step {i} of a formula is {c}; constants must be finite")),
        Step::Apply(ActivationFunction::Formula { .. }, _) => Some(format!("step {i} of a formula is a formula itself")),
        Step::Apply(function, _) if function.problem().is_some() => function.problem(),
        _ => {
            let later = step.operands().find(|o| *o >= i)?;
            Some(format!("step {i} of a formula reads step {later}, which is not before it"))
        }
    })
}

impl TryFrom<Vec<Step>> for Formula {
    type Error = String;

    fn try_from(steps: Vec<Step>) -> Result<Self, String> {
        // Numbers of steps first: what follows goes by them.
        for (i, step) in steps.iter().enumerate() {
            if let Some(later) = step.operands().find(|o| *o >= i) {
                return Err(format!("step {i} of a formula reads step {later}, which is not before it"));
            }
        }
        problem(&steps).map_or_else(|| Ok(Self { steps: steps.into() }), Err)
    }
}

impl From<Formula> for Vec<Step> {
    fn from(formula: Formula) -> Self {
        formula.steps.to_vec()
    }
}

// Constants are numbers, so that every formula equals itself.
impl Eq for Formula {}

impl Hash for Formula {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for step in self.steps.iter() {
            std::mem::discriminant(step).hash(state);
            step.operands().for_each(|o| o.hash(state));
            match step {
                Step::Constant(c) => c.to_bits().hash(state),
                Step::Unary(op, _) => op.hash(state),
                Step::Binary(op, ..) => op.hash(state),
                Step::Apply(function, _) => std::mem::discriminant(function).hash(state),
                Step::X | Step::Select(..) => {}
            }
        }
    }
}

/// A number in the fewest digits that are it: of f32, in which most are written, where it is one.
pub(super) fn number(c: f64) -> String {
    if f64::from(c as f32) == c { (c as f32).to_string() } else { c.to_string() }
}

/// In one line, as one would write it.
impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Text, and how strongly it holds together: 0 comparison, 1 sum, 2 product, 3 power or less than one thing, 4 one thing.
        let mut texts: Vec<(String, u8)> = Vec::with_capacity(self.steps.len());
        for step in self.steps.iter() {
            let plain = |i: u16| texts[usize::from(i)].0.as_str();
            let within = |i: u16, least: u8| match &texts[usize::from(i)] {
                (text, strength) if *strength >= least => text.clone(),
                (text, _) => format!("({text})"),
            };
            let between = |a: u16, sign: &str, b: u16, strength: u8| {
                (
                    format!("{} {sign} {}", within(a, strength), within(b, strength + u8::from(sign == "-" || sign == "/"))),
                    strength,
                )
            };
            let call = |name: &str, a: u16, b: u16| (format!("{name}({}, {})", plain(a), plain(b)), 4);
            let (text, strength) = match step {
                Step::X => ("x".to_owned(), 4),
                Step::Constant(c) => (number(*c), if *c < 0.0 { 1 } else { 4 }),
                Step::Unary(Unary::Negative, a) => (format!("-{}", within(*a, 3)), 2),
                Step::Unary(op, a) => (format!("{}({})", op.name(), plain(*a)), 4),
                Step::Apply(function, a) => match function.to_string().strip_suffix(')') {
                    Some(open) => (format!("{open}; {})", plain(*a)), 4),
                    None => (format!("{function}({})", plain(*a)), 4),
                },
                Step::Select(which, a, b) => (format!("where({}, {}, {})", plain(*which), plain(*a), plain(*b)), 4),
                Step::Binary(op, a, b) => match op {
                    Binary::Add => between(*a, "+", *b, 1),
                    Binary::Subtract => between(*a, "-", *b, 1),
                    Binary::Multiply => between(*a, "*", *b, 2),
                    Binary::Divide => between(*a, "/", *b, 2),
                    Binary::Power => (format!("{}^{}", within(*a, 4), within(*b, 4)), 3),
                    Binary::Least => call("min", *a, *b),
                    Binary::Greatest => call("max", *a, *b),
                    Binary::Above => between(*a, ">", *b, 0),
                    Binary::AtLeast => between(*a, ">=", *b, 0),
                    Binary::Equal => between(*a, "==", *b, 0),
                },
            };
            texts.push(if text.len() > MAX_TEXT { ("...".to_owned(), 4) } else { (text, strength) });
        }
        match texts.last() {
            Some((text, _)) if text != "..." => f.write_str(text),
            _ => write!(f, "formula of {} steps", self.steps.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick_gelu(k: f64) -> Formula {
        let x = Formula::x();
        let inner = Formula::binary(Binary::Multiply, &x, &Formula::constant(k));
        Formula::binary(Binary::Multiply, &x, &Formula::apply(&ActivationFunction::Sigmoid, &inner))
    }

    #[test]
    fn values_parts_and_names() {
        let f = quick_gelu(f64::from(1.702f32));
        assert_eq!(f.to_string(), "x * sigmoid(x * 1.702)");
        assert_eq!(f.steps().len(), 5);
        for x in [-40.0, -1.0, 0.0, 2.5, 40.0f64] {
            let want = x / (1.0 + (-f64::from(1.702f32) * x).exp());
            assert!((f.value(x) - want).abs() <= 1e-15 * (1.0 + want.abs()));
        }
        // What is there already is not there twice, and what is not needed is left out.
        assert_eq!(Formula::binary(Binary::Multiply, &f, &f).steps().len(), 6);
        assert_eq!(f.part(2).to_string(), "x * 1.702");
        let shrink = Formula::select(
            &Formula::binary(Binary::Above, &Formula::constant(-0.5), &Formula::x()),
            &Formula::binary(Binary::Add, &Formula::x(), &Formula::constant(0.5)),
            &Formula::constant(0.0),
        );
        assert_eq!(shrink.to_string(), "where(-0.5 > x, x + 0.5, 0)");
        assert_eq!([-2.0, -0.5, 0.0].map(|x| shrink.value(x)), [-1.5, 0.0, 0.0]);
        let two = Formula::constant(2.0);
        assert_eq!(Formula::binary(Binary::Power, &two, &two).as_constant(), Some(4.0));
        let x = Formula::x();
        let nested = Formula::binary(Binary::Subtract, &x, &Formula::binary(Binary::Subtract, &x, &two));
        assert_eq!(nested.to_string(), "x - (x - 2)");
        assert_eq!(Formula::binary(Binary::Least, &x, &Formula::constant(f64::INFINITY)), x);
    }

    #[test]
    fn files_hold_formulas_within_bounds() {
        let f = quick_gelu(1.5);
        let json = serde_json::to_string(&f).expect("it is written");
        assert_eq!(
            json,
            r#"["x",{"constant":1.5},{"binary":["multiply",0,1]},{"apply":[{"name":"sigmoid"},2]},{"binary":["multiply",0,3]}]"#
        );
        assert_eq!(serde_json::from_str::<Formula>(&json).expect("it is read"), f);
        let nested = format!("{{\"apply\":[{{\"name\":\"formula\",\"steps\":{json}}},0]}}");
        let deep = r#"["x",{"apply":[{"name":"formula","steps":"#.repeat(10_000);
        let long = format!("[{}\"x\"]", "\"x\",".repeat(MAX_STEPS));
        for (bad, why) in [
            ("[]", "0 steps"),
            (r#"["x",{"unary":["exp",1]}]"#, "not before it"),
            (r#"["x",{"binary":["add",0,65535]}]"#, "not before it"),
            (r#"["x",{"unary":["exp",-1]}]"#, "invalid value"),
            (r#"["x",{"apply":[{"name":"leaky_relu","alpha":1e999},0]}]"#, "out of range"),
            (r#"["x",{"apply":[{"name":"celu","alpha":0.0},0]}]"#, "celu"),
            (&format!("[\"x\",{nested}]"), "a formula itself"),
            (&long, "257 steps"),
            (&deep, "recursion limit"),
        ] {
            let error = serde_json::from_str::<Formula>(bad).expect_err(bad).to_string();
            assert!(error.contains(why), "{error}");
        }
        let mut long = Formula::x();
        for _ in 0..30 {
            long = Formula::unary(Unary::Exp, &Formula::binary(Binary::Multiply, &long, &long));
        }
        // 2^30 times x, in one line.
        assert_eq!(long.to_string(), "exp(exp(exp(...) * exp(...)) * exp(exp(...) * exp(...)))");
    }
}

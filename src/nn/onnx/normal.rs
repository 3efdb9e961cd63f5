//! One form for all the ways in which a function can be written: a sum of products.
//!
//! Sums are multiplied out, constants gathered, and what is the same function by another name is given one name: `1 / (1 + e^u)` is
//! `sigmoid(-u)`, `log(1 + e^u)` is `softplus(u)`, `tanh(u)` is `2 sigmoid(2 u) - 1`, and the argument of sigmoid, softplus and erf
//! begins with a positive factor. Two formulas whose forms are equal, but for the rounding of constants to f32, are one function,
//! on the whole line. Formulas for which no form is found may still be equal; nothing is lost but their name.

use super::piecewise::Piecewise;
use crate::nn::model::ActivationFunction;
use crate::nn::model::formula::{Binary, Formula, Step, Unary};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Constants of a file are f32, and perhaps computed from such: two of them are one if they differ by no more, relatively.
const TOLERANCE: f64 = 1e-6;
/// Most atoms of a form, those within others included.
const MAX_ATOMS: usize = 128;
/// A power of a sum is multiplied out up to this.
const MAX_POWER: f64 = 8.0;
/// `log(1 + e^t)` and t are one f32 from here.
const LARGE: f64 = 16.0;

/// A sum of products.
#[derive(Debug, Clone, Default)]
pub(super) struct Sum(Vec<Term>);

/// A constant times powers of atoms.
#[derive(Debug, Clone)]
struct Term {
    factor: f64,
    /// In the order of their shapes.
    atoms: Vec<(Atom, i32)>,
}

#[derive(Debug, Clone)]
enum Atom {
    X,
    /// Made of lines; its steepest line has slope 1, or its largest value is 1.
    Lines(Piecewise),
    Function(Named, Sum),
}

#[derive(Debug, Clone, PartialEq)]
enum Named {
    Sigmoid,
    Softplus,
    Erf,
    Unary(Unary),
    Other(ActivationFunction),
    /// A sum, under a power that is not multiplied out.
    Group,
}

impl Sum {
    /// The form of a formula, if one is found.
    pub(super) fn of(formula: &Formula) -> Option<Self> {
        let pieces = Piecewise::of(formula);
        let mut found: Vec<Option<Self>> = Vec::with_capacity(formula.steps().len());
        for (step, pieces) in formula.steps().iter().zip(&pieces) {
            let at = |i: u16| found[usize::from(i)].as_ref();
            let made = match (pieces, step) {
                (Some(pieces), _) => Some(Self::lines(pieces)),
                (None, Step::Unary(op, a)) => at(*a).and_then(|a| Self::unary(*op, a)),
                (None, Step::Binary(op, a, b)) => match op {
                    Binary::Add => at(*a).zip(at(*b)).map(|(a, b)| a.plus(b)),
                    Binary::Subtract => at(*a).zip(at(*b)).map(|(a, b)| a.plus(&b.times_constant(-1.0))),
                    Binary::Multiply => at(*a).zip(at(*b)).and_then(|(a, b)| a.times(b)),
                    Binary::Divide => at(*a).zip(at(*b)).and_then(|(a, b)| a.times(&b.inverse()?)),
                    Binary::Power => at(*a).zip(at(*b)).and_then(|(a, n)| a.power(n.constant()?)),
                    _ => None,
                },
                (None, Step::Select(which, a, b)) => {
                    let lines = (&pieces_of(formula, *which), at(*a), at(*b));
                    match lines {
                        (Some(which), Some(a), Some(b)) => Self::softplus_by_parts(which, a, b),
                        _ => None,
                    }
                }
                (None, Step::Apply(function, a)) => at(*a).and_then(|a| Self::applied(function, a)),
                (None, Step::X | Step::Constant(_)) => None,
            };
            found.push(made.filter(|sum| sum.atoms() <= MAX_ATOMS && sum.is_finite()));
        }
        found.pop().flatten()
    }

    fn is_finite(&self) -> bool {
        self.0.iter().all(|t| t.factor.is_finite())
    }

    /// Atoms, those within functions included.
    fn atoms(&self) -> usize {
        let of = |atom: &Atom| match atom {
            Atom::Function(_, inner) => 1 + inner.atoms(),
            _ => 1,
        };
        self.0.iter().map(|t| 1 + t.atoms.iter().map(|(a, _)| of(a)).sum::<usize>()).sum()
    }

    fn number(c: f64) -> Self {
        Self(Vec::new()).with(Term { factor: c, atoms: Vec::new() })
    }

    fn atom(factor: f64, atom: Atom) -> Self {
        Self(Vec::new()).with(Term { factor, atoms: vec![(atom, 1)] })
    }

    fn function(named: Named, inner: Self) -> Self {
        Self::atom(1.0, Atom::Function(named, inner))
    }

    fn lines(pieces: &Piecewise) -> Self {
        if let Some(line) = pieces.as_line() {
            return Self::atom(line.slope, Atom::X).plus(&Self::number(line.offset));
        }
        let steepest = pieces.lines.iter().fold(0.0, |m: f64, l| if l.slope.abs() > m.abs() { l.slope } else { m });
        let largest = pieces.lines.iter().fold(0.0, |m: f64, l| if l.offset.abs() > m.abs() { l.offset } else { m });
        let size = if steepest != 0.0 { steepest } else { largest };
        if size == 0.0 {
            return Self::atom(1.0, Atom::Lines(pieces.clone()));
        }
        Self::atom(size, Atom::Lines(pieces.scaled(1.0 / size)))
    }

    /// With one term more; terms of the same atoms are added.
    fn with(mut self, term: Term) -> Self {
        if term.factor == 0.0 {
            return self;
        }
        if let Some(i) = self.0.iter().position(|t| same_atoms(&t.atoms, &term.atoms)) {
            let (a, b) = (self.0[i].factor, term.factor);
            self.0[i].factor = a + b;
            // What is left of two constants that differ by rounding is nothing.
            if (a + b).abs() <= TOLERANCE * a.abs() {
                self.0.remove(i);
            }
            return self;
        }
        let shape = term.shape();
        let at = self.0.partition_point(|t| t.shape() <= shape);
        self.0.insert(at, term);
        self
    }

    fn plus(&self, other: &Self) -> Self {
        other.0.iter().fold(self.clone(), |sum, term| sum.with(term.clone()))
    }

    fn times_constant(&self, c: f64) -> Self {
        Self(self.0.iter().map(|t| Term { factor: t.factor * c, atoms: t.atoms.clone() }).filter(|t| t.factor != 0.0).collect())
    }

    fn times(&self, other: &Self) -> Option<Self> {
        let mut product = Self::default();
        for a in &self.0 {
            for b in &other.0 {
                product = product.with(a.times(b));
                if product.atoms() > MAX_ATOMS {
                    return None;
                }
            }
        }
        Some(product)
    }

    fn power(&self, n: f64) -> Option<Self> {
        if n == 0.5 {
            return Self::unary(Unary::Sqrt, self);
        }
        if n.fract() != 0.0 || n.abs() > MAX_POWER {
            return None;
        }
        let whole = (0..n.abs() as usize).try_fold(Self::number(1.0), |power, _| power.times(self))?;
        if n < 0.0 { whole.inverse() } else { Some(whole) }
    }

    /// The constant, if it is nothing else.
    fn constant(&self) -> Option<f64> {
        match &self.0[..] {
            [] => Some(0.0),
            [Term { factor, atoms }] if atoms.is_empty() => Some(*factor),
            _ => None,
        }
    }

    /// c and k e^M of `c + k e^M`, as c, k and M.
    fn exponential(&self) -> Option<(f64, f64, &Self)> {
        let [a, b] = &self.0[..] else { return None };
        let (c, e) = if a.atoms.is_empty() { (a, b) } else { (b, a) };
        match &e.atoms[..] {
            [(Atom::Function(Named::Unary(Unary::Exp), inner), 1)] if c.atoms.is_empty() => Some((c.factor, e.factor, inner)),
            _ => None,
        }
    }

    /// `1 / self`.
    fn inverse(&self) -> Option<Self> {
        match &self.0[..] {
            [] => None,
            [term] => {
                let atoms = term.atoms.iter().map(|(a, n)| (a.clone(), -n)).collect();
                Some(Self(vec![Term { factor: 1.0 / term.factor, atoms }]))
            }
            _ => {
                if let Some((c, k, inner)) = self.exponential()
                    && k / c > 0.0
                {
                    let argument = inner.plus(&Self::number((k / c).ln()));
                    return Some(Self::sigmoid(&argument.times_constant(-1.0)).times_constant(1.0 / c));
                }
                let first = self.0[0].factor;
                let group = Atom::Function(Named::Group, self.times_constant(1.0 / first));
                Some(Self(vec![Term { factor: 1.0 / first, atoms: vec![(group, -1)] }]))
            }
        }
    }

    /// Whether its first factor is negative.
    fn is_negative(&self) -> bool {
        self.0.first().is_some_and(|t| t.factor < 0.0)
    }

    fn sigmoid(u: &Self) -> Self {
        if u.is_negative() {
            let mirrored = Self::function(Named::Sigmoid, u.times_constant(-1.0));
            return Self::number(1.0).plus(&mirrored.times_constant(-1.0));
        }
        Self::function(Named::Sigmoid, u.clone())
    }

    fn tanh(u: &Self) -> Self {
        Self::sigmoid(&u.times_constant(2.0)).times_constant(2.0).plus(&Self::number(-1.0))
    }

    fn softplus(u: &Self) -> Self {
        if u.is_negative() {
            return Self::function(Named::Softplus, u.times_constant(-1.0)).plus(u);
        }
        Self::function(Named::Softplus, u.clone())
    }

    fn erf(u: &Self) -> Self {
        let sign = if u.is_negative() { -1.0 } else { 1.0 };
        Self::function(Named::Erf, u.times_constant(sign)).times_constant(sign)
    }

    fn unary(op: Unary, u: &Self) -> Option<Self> {
        match op {
            Unary::Negative => Some(u.times_constant(-1.0)),
            Unary::Exp => {
                let c = u.0.iter().find(|t| t.atoms.is_empty()).map_or(0.0, |t| t.factor);
                let rest = Self(u.0.iter().filter(|t| !t.atoms.is_empty()).cloned().collect());
                Some(Self::function(Named::Unary(Unary::Exp), rest).times_constant(c.exp()))
            }
            Unary::Log => {
                if let Some((c, k, inner)) = u.exponential()
                    && c > 0.0
                    && k > 0.0
                {
                    return Some(Self::softplus(&inner.plus(&Self::number((k / c).ln()))).plus(&Self::number(c.ln())));
                }
                match &u.0[..] {
                    [Term { factor, atoms }] if *factor > 0.0 => match &atoms[..] {
                        [(Atom::Function(Named::Sigmoid, v), 1)] => {
                            let log = Self::softplus(&v.times_constant(-1.0)).times_constant(-1.0);
                            Some(log.plus(&Self::number(factor.ln())))
                        }
                        _ => Some(Self::function(Named::Unary(op), u.clone())),
                    },
                    _ => Some(Self::function(Named::Unary(op), u.clone())),
                }
            }
            _ => Some(Self::function(Named::Unary(op), u.clone())),
        }
    }

    fn applied(function: &ActivationFunction, u: &Self) -> Option<Self> {
        let half = |inner: Self| u.times(&Self::number(1.0).plus(&inner)).map(|p| p.times_constant(0.5));
        match function {
            ActivationFunction::Sigmoid => Some(Self::sigmoid(u)),
            ActivationFunction::Tanh => Some(Self::tanh(u)),
            ActivationFunction::Softplus => Some(Self::softplus(u)),
            ActivationFunction::Erf => Some(Self::erf(u)),
            ActivationFunction::Silu => u.times(&Self::sigmoid(u)),
            ActivationFunction::Gelu => half(Self::erf(&u.times_constant(FRAC_1_SQRT_2))),
            ActivationFunction::GeluTanh => {
                let inner = u.plus(&u.power(3.0)?.times_constant(0.044715));
                half(Self::tanh(&inner.times_constant((2.0 / PI).sqrt())))
            }
            ActivationFunction::Mish => u.times(&Self::tanh(&Self::softplus(u))),
            // Of x itself; elsewhere it keeps its name.
            ActivationFunction::HardSwish if u.is_x() => {
                let hard = Formula::apply(&ActivationFunction::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }, &Formula::x());
                u.times(&Self::lines(&Piecewise::of(&hard).pop()??))
            }
            ActivationFunction::Softsign if u.is_x() => {
                let one = Formula::binary(Binary::Add, &Formula::unary(Unary::Absolute, &Formula::x()), &Formula::constant(1.0));
                u.times(&Self::lines(&Piecewise::of(&one).pop()??).inverse()?)
            }
            other => Some(Self::function(Named::Other(other.clone()), u.clone())),
        }
    }

    fn is_x(&self) -> bool {
        matches!(&self.0[..], [Term { factor: 1.0, atoms }] if matches!(atoms[..], [(Atom::X, 1)]))
    }

    /// `k u` where u is large and `k softplus(u)` elsewhere: the latter, as some exporters write it.
    fn softplus_by_parts(which: &Piecewise, large: &Self, other: &Self) -> Option<Self> {
        let [term] = &other.0[..] else { return None };
        let [(Atom::Function(Named::Softplus, u), 1)] = &term.atoms[..] else { return None };
        let line = |sum: &Self| match &sum.0[..] {
            [Term { factor, atoms }] if matches!(atoms[..], [(Atom::X, 1)]) => Some(*factor),
            _ => None,
        };
        let slope = line(u)?;
        let holds = which.knots.len() == 1 && which.lines[0].offset == 0.0 && which.lines[1].offset != 0.0;
        let far = which.knots.first().is_some_and(|k| k.at * slope >= LARGE);
        (holds && far && close(line(large)?, term.factor * slope)).then(|| other.clone())
    }

    /// Whether two forms are equal, but for the rounding of constants.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(a, b)| close(a.factor, b.factor) && same_atoms(&a.atoms, &b.atoms))
    }
}

fn pieces_of(formula: &Formula, step: u16) -> Option<Piecewise> {
    Piecewise::of(&formula.part(usize::from(step))).pop().flatten()
}

impl Term {
    fn times(&self, other: &Self) -> Self {
        let mut atoms = self.atoms.clone();
        for (atom, n) in &other.atoms {
            match atoms.iter_mut().find(|(a, _)| a.is(atom)) {
                Some((_, m)) => *m += n,
                None => {
                    let shape = atom.shape();
                    let at = atoms.partition_point(|(a, _)| a.shape() <= shape);
                    atoms.insert(at, (atom.clone(), *n));
                }
            }
        }
        atoms.retain(|(_, n)| *n != 0);
        Self { factor: self.factor * other.factor, atoms }
    }

    /// What it is but for its constants: terms are in the order of it.
    fn shape(&self) -> String {
        self.atoms.iter().map(|(a, n)| format!("{}^{n} ", a.shape())).collect()
    }
}

impl Atom {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::X, Self::X) => true,
            (Self::Lines(a), Self::Lines(b)) => {
                let lines = a.lines.iter().zip(&b.lines).all(|(a, b)| close(a.slope, b.slope) && close(a.offset, b.offset));
                let knots = a.knots.iter().zip(&b.knots).all(|(a, b)| close(a.at, b.at) && close(a.value, b.value));
                a.knots.len() == b.knots.len() && lines && knots
            }
            (Self::Function(f, a), Self::Function(g, b)) => f == g && a.is(b),
            _ => false,
        }
    }

    fn shape(&self) -> String {
        match self {
            Self::X => "x".into(),
            Self::Lines(pieces) => format!("lines{}", pieces.knots.len()),
            Self::Function(named, inner) => {
                let inner: Vec<String> = inner.0.iter().map(Term::shape).collect();
                let name = match named {
                    Named::Other(function) => function.name().to_owned(),
                    named => format!("{named:?}"),
                };
                format!("{name}({})", inner.join("+"))
            }
        }
    }
}

fn same_atoms(a: &[(Atom, i32)], b: &[(Atom, i32)]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((a, n), (b, m))| n == m && a.is(b))
}

/// Whether two constants are one.
pub(super) fn close(a: f64, b: f64) -> bool {
    // Sums of constants near 1 are rounded by as much, however near to 0 they come.
    (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()) || (a - b).abs() <= 1e-12
}

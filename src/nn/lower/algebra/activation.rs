//! Activations: quadratics as squares, polynomials in their own variable, composites, and slot by slot where the channels
//! differ.

use super::{Algebra, Gauge, Logical, Stored};
use crate::circuits::{CircuitError, polynomial::Chebyshev};
use crate::nn::lower::LowerError;
use crate::nn::model::{ActivationForm, FittedActivation, MAGNITUDE_MARGIN, Node, Operator, Polynomial, Value};
use std::rc::Rc;

/// Beyond this `a1^2 / (4 |a2|)`, completing the square would add and subtract large numbers and lose precision.
const MAX_COMPLETION: f64 = 256.0;
/// What the magnitude of a result is brought to: it is not to pass 1 by rounding.
const NEARLY_ONE: f64 = 1.0 - 1e-6;
/// What the magnitude of a value held for several readers is brought to: a maximum is stored as its taps are, and may be larger.
const HELD: f64 = 0.8;
/// The interval of a polynomial whose operand is its own variable.
const UNIT: [f64; 2] = [-1.0, 1.0];

impl Algebra<'_> {
    /// Names every activation that is no polynomial yet.
    pub(super) fn refuse_unfitted(&self) -> Result<(), LowerError> {
        let exact = |node: &Node| match &node.operator {
            Operator::Activation(function) => Some(format!("{} ({function})", node.name)),
            _ => None,
        };
        let nodes: Vec<String> = self.model.nodes().iter().filter_map(exact).collect();
        if nodes.is_empty() { Ok(()) } else { Err(LowerError::NotFitted { nodes }) }
    }

    /// For each value, the form in which an activation behind it wants it. From the last node to the first.
    pub(super) fn wanted_forms(&self) -> Vec<Option<Rc<Gauge>>> {
        let nodes = self.model.nodes();
        let mut wanted: Vec<Option<Rc<Gauge>>> = vec![None; nodes.len() + 1];
        self.want_divided(&mut wanted);
        for value in (0..=nodes.len()).rev().filter(|v| self.model.output() != Value(*v)) {
            if wanted[value].is_some() {
                continue;
            }
            let channels = self.model.shape(Value(value)).channels;
            wanted[value] = self.readers[value].iter().find_map(|&reader| {
                let behind = &wanted[reader + 1];
                match &nodes[reader].operator {
                    Operator::Polynomial(p) => completed(p, channels)
                        .or_else(|| Some(self.variable(value, self.series(&nodes[reader], p).ok()??.interval(), channels)))
                        .map(Rc::new),
                    Operator::Fitted(fitted) => Some(Rc::new(self.variable(value, fitted.interval(), channels))),
                    // One side brings the constant, one that can at no cost; if none can, it is added to the sum itself.
                    Operator::Add => behind.as_ref().map(|g| match self.bringers[reader] == Some(Value(value)) {
                        true => g.clone(),
                        false => Rc::new(Gauge { alpha: g.alpha.clone(), beta: vec![0.0; channels] }),
                    }),
                    // The first factor brings the scale.
                    Operator::Multiply if nodes[reader].inputs[0] == Value(value) && nodes[reader].inputs[1] != Value(value) => {
                        behind.as_ref().map(|g| Rc::new(Gauge { alpha: g.alpha.clone(), beta: vec![0.0; channels] }))
                    }
                    Operator::BatchNorm { factor, offset } => behind.as_ref().map(|g| {
                        let alpha = g.alpha.iter().zip(factor).map(|(a, f)| a * f).collect();
                        let beta = g.beta.iter().zip(&g.alpha).zip(offset).map(|((b, a), o)| a * o + b).collect();
                        Rc::new(Gauge { alpha, beta })
                    }),
                    _ => None,
                }
            });
            wanted[value] = wanted[value].take().or_else(|| self.within_one(value, channels));
            wanted[value] = wanted[value].take().map(|gauge| self.held_within_one(value, gauge));
            // A scale of zero could not be undone by the other readers.
            if wanted[value].as_ref().is_some_and(|g| g.alpha.iter().any(|a| *a == 0.0 || !(1.0 / a).is_finite())) {
                wanted[value] = None;
            }
        }
        wanted
    }

    /// As wanted, or smaller where calibration noted how large a value is that is held for several readers and that no activation makes or
    /// is fed: the taps of a maximum are larger than their difference, in whose scale they are wanted. They can be bootstrapped then; where
    /// the scales of a sum differ, one side is rescaled.
    fn held_within_one(&self, value: usize, gauge: Rc<Gauge>) -> Rc<Gauge> {
        let nodes = self.model.nodes();
        let polynomial = |o: &Operator| matches!(o, Operator::Polynomial(_) | Operator::Fitted(_) | Operator::Activation(_));
        let Some(node) = value.checked_sub(1).map(|i| &nodes[i]) else { return gauge };
        let fed = self.readers[value].iter().any(|r| polynomial(&nodes[*r].operator));
        let seen = self.magnitudes.get(&node.name).copied().filter(|seen| *seen > 0.0 && seen.is_finite());
        let (Some(seen), Some((alpha, _))) = (seen, gauge.uniform()) else { return gauge };
        let most = HELD / (MAGNITUDE_MARGIN * seen);
        if self.readers[value].len() < 2 || fed || polynomial(&node.operator) || alpha.abs() <= most {
            return gauge;
        }
        Rc::new(gauge.times(most / alpha.abs()))
    }

    /// Where calibration noted how large a value is, that no activation makes and whose readers take any scale: the form in which it stays
    /// within [-1, 1] and can be bootstrapped.
    fn within_one(&self, value: usize, channels: usize) -> Option<Rc<Gauge>> {
        let node = &self.model.nodes()[value.checked_sub(1)?];
        let seen = self.magnitudes.get(&node.name).copied().filter(|seen| *seen > 0.0 && seen.is_finite())?;
        let activation = matches!(node.operator, Operator::Polynomial(_) | Operator::Fitted(_) | Operator::Activation(_));
        let fits = !activation && self.scale_is_free(value - 1);
        let alpha = NEARLY_ONE / (MAGNITUDE_MARGIN * seen);
        fits.then(|| Rc::new(Gauge { alpha: vec![alpha; channels], beta: vec![0.0; channels] }))
    }

    /// The result is wanted divided, where it is, and so is what brings the divisor to a layer with weights.
    fn want_divided(&self, wanted: &mut [Option<Rc<Gauge>>]) {
        let divisor = self.model.output_divisor();
        for (value, _) in self.model.divided().into_iter().enumerate().filter(|(_, divided)| *divided) {
            let channels = self.model.shape(Value(value)).channels;
            wanted[value] = Some(Rc::new(Gauge { alpha: vec![1.0 / divisor; channels], beta: vec![0.0; channels] }));
        }
    }

    /// The form in which a polynomial on an interval wants a value: its own variable, or the middle of the interval left where it is if
    /// nothing can bring the constant. Either way the value stays within [-1, 1] and can be bootstrapped.
    fn variable(&self, value: usize, [a, b]: [f64; 2], channels: usize) -> Gauge {
        let bound = a.abs().max(b.abs());
        if self.takes_constant(value) || bound == 0.0 {
            Gauge::of([a, b], channels)
        } else {
            Gauge::of([-bound, bound], channels)
        }
    }

    /// Whether a value can be stored with any constant added, at no cost.
    fn takes_constant(&self, value: usize) -> bool {
        let Some(maker) = value.checked_sub(1) else { return false };
        match self.model.nodes()[maker].operator {
            Operator::Add => self.bringers[maker].is_some(),
            Operator::Multiply => false,
            _ => true,
        }
    }

    /// For each node that is a sum, the operand that can be stored with any constant added: what a layer with weights makes for it alone, or
    /// a sum of such.
    pub(super) fn bringers(&self) -> Vec<Option<Value>> {
        let nodes = self.model.nodes();
        let mut bringers: Vec<Option<Value>> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let free = |v: &&Value| {
                let Some(maker) = v.0.checked_sub(1).filter(|_| self.readers[v.0].len() == 1) else { return false };
                match nodes[maker].operator {
                    Operator::Conv2d(_) | Operator::Linear { .. } | Operator::AvgPool2d { .. } => true,
                    Operator::Add => bringers[maker].is_some(),
                    _ => false,
                }
            };
            let found = if matches!(node.operator, Operator::Add) { node.inputs.iter().find(free).copied() } else { None };
            bringers.push(found);
        }
        bringers
    }

    /// Whether all readers of node `i`'s result take any scale at no cost.
    fn scale_is_free(&self, i: usize) -> bool {
        let absorbs = |reader: &usize| {
            let operator = &self.model.nodes()[*reader].operator;
            use Operator::{AvgPool2d, Conv2d, GlobalAvgPool, Linear, Rearrange};
            matches!(operator, Conv2d(_) | AvgPool2d { .. } | GlobalAvgPool | Linear { .. } | Rearrange(_))
                || (matches!(operator, Operator::Flatten) && self.scale_is_free(*reader))
        };
        self.model.output() != Value(i + 1) && self.readers[i + 1].iter().all(absorbs)
    }

    /// The polynomial of a node in Chebyshev basis, if it is the same in all channels.
    fn series(&self, node: &Node, p: &Polynomial) -> Result<Option<Chebyshev>, LowerError> {
        let first = p.of_channel(0);
        let degree = first.iter().rposition(|a| *a != 0.0).unwrap_or(0);
        if degree < 2 || (p.per_channel && (1..node.shape.channels).any(|c| p.of_channel(c) != first)) {
            return Ok(None);
        }
        let range = self.ranges.get(&node.name).copied().filter(|r| r.is_finite() && *r > 0.0);
        let range = range.ok_or_else(|| LowerError::RangeUnknown { node: node.name.clone() })?;
        Chebyshev::from_monomial(&first[..degree + 1], [-range, range]).map(Some).map_err(unusable(&node.name))
    }

    pub(super) fn polynomial(&mut self, i: usize, x: Stored, p: &Polynomial) -> Result<Stored, LowerError> {
        let node = &self.model.nodes()[i];
        let layer = node.name.as_str();
        // A view as a vector has the channels of the view.
        let rows: Vec<&[f64]> = (0..x.scale.len()).map(|c| p.of_channel(c)).collect();
        let degree = rows.iter().map(|r| r.iter().rposition(|a| *a != 0.0).unwrap_or(0)).max().unwrap_or(0);
        if degree < 2 {
            let at = |row: &[f64], k: usize| row.get(k).copied().unwrap_or(0.0);
            let scale = x.scale.iter().zip(&rows).map(|(s, row)| at(row, 1) * s).collect();
            let shift = x.shift.iter().zip(&rows).map(|(s, row)| at(row, 1) * s + at(row, 0)).collect();
            return Ok(Stored { scale, shift, ..x });
        }
        if let Some(squares) = rows.iter().map(|row| Completed::of(row)).collect::<Option<Vec<_>>>() {
            let (alpha, beta): (Vec<f64>, Vec<f64>) = squares.iter().map(|s| (s.alpha, s.beta)).unzip();
            let u = self.transform(layer, x, &alpha, &beta);
            let value = self.emit(layer, Logical::Square { input: u.value }, u.shape);
            let scale = squares.iter().map(|s| s.sign).collect();
            let shift = squares.iter().map(|s| s.constant).collect();
            return Ok(Stored { value, scale, shift, depth: u.depth + 1, ..u });
        }
        if let Some(series) = self.series(node, p)? {
            return self.evaluate(i, x, &[series]);
        }
        // Horner, slot by slot, in v = (x - shift) / scale: (a_d v + a_{d-1}) v + ..., with the constant left pending.
        let rows: Vec<Vec<f64>> =
            rows.iter().zip(x.scale.iter().zip(&x.shift)).map(|(row, (s, t))| compose(&row[..degree + 1], *s, *t)).collect();
        let coefficient = |k: usize| x.elements(|c| rows[c][k]);
        let first = Logical::Affine { input: x.value, factor: Some(coefficient(degree)), offset: Some(coefficient(degree - 1)) };
        let mut sum = self.emit(layer, first, x.shape);
        for k in (0..degree - 1).rev() {
            sum = self.emit(layer, Logical::Multiply { a: sum, b: x.value }, x.shape);
            if k > 0 {
                let next = Logical::Affine { input: sum, factor: None, offset: Some(coefficient(k)) };
                sum = self.emit(layer, next, x.shape);
            }
        }
        let shift = rows.iter().map(|row| row[0]).collect();
        Ok(Stored { value: sum, shift, depth: x.depth + degree, scale: vec![1.0; x.scale.len()], ..x })
    }

    pub(super) fn fitted(&mut self, i: usize, x: Stored, fitted: &FittedActivation) -> Result<Stored, LowerError> {
        match &fitted.form {
            ActivationForm::Chebyshev(p) => self.evaluate(i, x, std::slice::from_ref(p)),
            ActivationForm::Composite(stages) => self.evaluate(i, x, stages),
            ActivationForm::Sign { stages, bound } => self.composite(i, x, stages, *bound),
        }
    }

    /// Polynomials one after the other, with what their readers want in the coefficients of the last.
    fn evaluate(&mut self, i: usize, x: Stored, stages: &[Chebyshev]) -> Result<Stored, LowerError> {
        let node = &self.model.nodes()[i];
        let (Some(first), Some(last)) = (stages.first(), stages.last()) else { return Ok(x) };
        let (u, interval) = self.own_variable(&node.name, x, first.interval());
        // Where nobody minds, the result is brought to [-1, 1], so that it can be bootstrapped.
        let free = || if self.scale_is_free(i) { (NEARLY_ONE / last.magnitude(), 0.0) } else { (1.0, 0.0) };
        let (alpha, beta) = self.gauge(i).and_then(|g| g.uniform()).unwrap_or_else(free);
        let (value, depth) = self.stages(&node.name, &u, stages, interval, (alpha, beta))?;
        let n = u.scale.len();
        Ok(Stored { value, scale: vec![1.0 / alpha; n], shift: vec![-beta / alpha + 0.0; n], depth, ..u })
    }

    /// `x (1 + s(x / bound)) / 2`: the stages of s, then a product with v = x / scale.
    fn composite(&mut self, i: usize, x: Stored, stages: &[Chebyshev], bound: f64) -> Result<Stored, LowerError> {
        let node = &self.model.nodes()[i];
        let layer = node.name.as_str();
        let (u, first) = match self.own_variable(layer, x, [-bound, bound]) {
            // The product is with x and not with a shifted one.
            (u, interval) if u.shift.iter().all(|s| *s == 0.0) => (u, interval),
            (u, _) => {
                let n = u.scale.len();
                (self.transform(layer, u, &vec![1.0 / bound; n], &vec![0.0; n]), UNIT)
            }
        };
        let scale = u.scale[0];
        let wanted = self.gauge(i).and_then(|g| g.uniform()).filter(|(_, beta)| *beta == 0.0);
        let most = |last: &Chebyshev| last.clone().scaled(0.5, 0.5).map_or(1.0, |half| half.magnitude());
        let free = || if self.scale_is_free(i) { NEARLY_ONE * scale / (bound * stages.last().map_or(1.0, most)) } else { 1.0 };
        let factor = wanted.map_or_else(free, |(alpha, _)| alpha * scale);
        let (value, depth) = self.stages(layer, &u, stages, first, (factor / 2.0, factor / 2.0))?;
        let value = self.emit(layer, Logical::Multiply { a: value, b: u.value }, u.shape);
        let n = u.scale.len();
        Ok(Stored { value, scale: vec![scale / factor; n], depth: depth + 1, ..u })
    }

    /// Polynomials one after the other, the first on `interval`, the result of the last `alpha` times what it is and `beta` more: the value and its depth.
    fn stages(
        &mut self,
        layer: &str,
        u: &Stored,
        stages: &[Chebyshev],
        interval: [f64; 2],
        (alpha, beta): (f64, f64),
    ) -> Result<(usize, usize), LowerError> {
        let (mut value, mut depth) = (u.value, u.depth);
        for (k, stage) in stages.iter().enumerate() {
            let mut polynomial = stage.clone();
            if k == 0 {
                polynomial = polynomial.on(interval).map_err(unusable(layer))?;
            }
            if k + 1 == stages.len() {
                polynomial = polynomial.scaled(alpha, beta).map_err(unusable(layer))?;
            }
            depth += polynomial.depth();
            value = self.emit(layer, Logical::Polynomial { input: value, polynomial }, u.shape);
        }
        Ok((value, depth))
    }

    /// x as a polynomial on `[a, b]` can take it, and the interval of the stored values: `[-1, 1]` if the layer before made
    /// it so. Where all channels are stored alike, the polynomial takes the change of variable; else it is made here.
    fn own_variable(&mut self, layer: &str, x: Stored, [a, b]: [f64; 2]) -> (Stored, [f64; 2]) {
        let same = |v: &[f64]| v.iter().all(|w| (w - v[0]).abs() <= 1e-13 * v[0].abs());
        let (s, t) = (x.scale[0], x.shift[0]);
        let interval = [(a - t) / s, (b - t) / s];
        // Slots without an element hold 0, and a polynomial grows without bound outside its interval.
        if same(&x.scale) && same(&x.shift) && s > 0.0 && interval[0] <= 0.0 && interval[1] >= 0.0 {
            let unit = interval.iter().zip(UNIT).all(|(i, u)| (i - u).abs() <= 1e-12);
            return (x, if unit { UNIT } else { interval });
        }
        let n = x.scale.len();
        let Gauge { alpha, beta } = Gauge::of([a, b], n);
        (self.transform(layer, x, &alpha, &beta), UNIT)
    }
}

impl Gauge {
    /// The own variable of a polynomial on `[a, b]`.
    fn of([a, b]: [f64; 2], channels: usize) -> Self {
        Self { alpha: vec![2.0 / (b - a); channels], beta: vec![-(a + b) / (b - a); channels] }
    }

    fn times(&self, factor: f64) -> Self {
        let [alpha, beta] = [&self.alpha, &self.beta].map(|v| v.iter().map(|x| x * factor).collect());
        Self { alpha, beta }
    }

    /// Scale and shift, if they are the same for all channels.
    fn uniform(&self) -> Option<(f64, f64)> {
        let same = |v: &[f64]| v.iter().all(|x| *x == v[0]);
        (same(&self.alpha) && same(&self.beta)).then(|| (self.alpha[0], self.beta[0]))
    }
}

fn unusable(node: &str) -> impl Fn(CircuitError) -> LowerError + '_ {
    move |source| LowerError::Polynomial { node: node.to_owned(), source }
}

/// The form in which a quadratic is a square, if it is one in every channel.
fn completed(p: &Polynomial, channels: usize) -> Option<Gauge> {
    let squares = (0..channels).map(|c| Completed::of(p.of_channel(c)));
    let (alpha, beta) = squares.map(|s| s.map(|s| (s.alpha, s.beta))).collect::<Option<Vec<_>>>()?.into_iter().unzip();
    Some(Gauge { alpha, beta })
}

/// A quadratic as `sign (alpha x + beta)^2 + constant`.
struct Completed {
    alpha: f64,
    beta: f64,
    sign: f64,
    constant: f64,
}

impl Completed {
    /// None if it is no quadratic, or one for which the form loses precision.
    fn of(coefficients: &[f64]) -> Option<Self> {
        let [a0, a1, a2, ref rest @ ..] = *coefficients else { return None };
        if rest.iter().any(|a| *a != 0.0) || a2 == 0.0 || (a1 * a1 / (4.0 * a2)).abs() > MAX_COMPLETION {
            return None;
        }
        let alpha = a2.abs().sqrt();
        let sign = a2.signum();
        Some(Self { alpha, beta: sign * a1 / (2.0 * alpha), sign, constant: a0 - a1 * a1 / (4.0 * a2) })
    }
}

/// The coefficients of `p(scale v + shift)` in v, by Horner's rule on polynomials.
fn compose(p: &[f64], scale: f64, shift: f64) -> Vec<f64> {
    if scale == 1.0 && shift == 0.0 {
        return p.to_vec();
    }
    let mut sum = vec![0.0; p.len()];
    for a in p.iter().rev() {
        for k in (0..sum.len()).rev() {
            let below = if k > 0 { sum[k - 1] } else { 0.0 };
            sum[k] = sum[k] * shift + below * scale;
        }
        sum[0] += a;
    }
    sum
}

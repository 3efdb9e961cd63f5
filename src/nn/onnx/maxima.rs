//! Maxima: of windows, of axes, of two tensors. `max(a, b) = a + relu(b - a)`, so a maximum is sums and ReLUs, which are fitted to what
//! calibration sees of the differences as any activation is.
//!
//! A window is taken along one axis and then along the other, at the places that are read alone: a MaxPool of 3 x 3 and stride 2 takes
//! four ReLUs of the result's size or twice that, not eight. Beside a window of many taps its parts are shared: the greatest of n
//! numbers is that of two overlapping windows of n / 2 ([`steps`]).

use super::MaxPools;
use super::attributes::Attributes;
use super::expression::{Recognised, recognise};
use super::graph::{Importer, Known, Refusal, Traced, extent};
use super::layers::{padding, pair, reduced_axes};
use super::schema::NodeProto;
use crate::nn::model::formula::{Binary, Unary};
use crate::nn::model::{ActivationFunction, Formula, OperatorSpec, Window};
use crate::nn::tensor::Shape;
use std::collections::BTreeSet;

/// The greater of two elements of an axis for each element of the next one: indices.
#[derive(Debug, PartialEq)]
struct Step {
    /// In what the last step made.
    left: Vec<usize>,
    /// In the same, or in what the first step is given; none where each is the greatest by itself.
    right: Option<Vec<usize>>,
    /// Whether the right ones are of the first step's operand.
    of_first: bool,
}

/// Longest windows whose taps may join one after the other: of longer ones, halves are never more work.
const MOST_TAPS: usize = 8;

/// A window that moves along an axis of `size` elements.
#[derive(Debug, Clone, Copy)]
struct Along {
    size: usize,
    /// Elements of the result.
    out: usize,
    kernel: usize,
    stride: usize,
    /// Elements before the first one.
    before: usize,
    dilation: usize,
}

impl Along {
    /// None where a window has no tap within the axis, or the axis is too long with what is around it.
    fn new(size: usize, [kernel, stride, dilation]: [usize; 3], [before, after]: [usize; 2], ceil: bool) -> Option<Self> {
        extent((size + before + after) as i64)?;
        let span = (size + before + after).checked_sub((kernel - 1) * dilation + 1)?;
        let mut out = span / stride + 1;
        // A window that reaches over the end, if it begins before it.
        if ceil && !span.is_multiple_of(stride) && out * stride < size + before {
            out += 1;
        }
        let along = Self { size, out, kernel, stride, before, dilation };
        (0..out).all(|o| along.touches(along.start(o), kernel)).then_some(along)
    }

    fn start(&self, o: usize) -> i64 {
        (o * self.stride) as i64 - self.before as i64
    }

    /// The tap of a window that begins at `p`.
    fn tap(&self, p: i64, t: usize) -> i64 {
        p + (t * self.dilation) as i64
    }

    fn holds(&self, p: i64) -> bool {
        (0..self.size as i64).contains(&p)
    }

    /// The first tap within the axis of a window that begins at `p`, if it is one of the first `taps`.
    fn first(&self, p: i64, taps: usize) -> Option<usize> {
        let t = if p < 0 { p.unsigned_abs().div_ceil(self.dilation as u64) as usize } else { 0 };
        (t < taps && self.holds(self.tap(p, t))).then(|| self.tap(p, t) as usize)
    }

    /// Whether one of the first `taps` taps is within the axis.
    fn touches(&self, p: i64, taps: usize) -> bool {
        self.first(p, taps).is_some()
    }

    /// The steps that take the fewest elements, where steps count as well: each may have to be bootstrapped for.
    fn steps(&self) -> Vec<Step> {
        let halves = self.by_halves();
        if self.kernel > MOST_TAPS {
            return halves;
        }
        let one_by_one = self.one_by_one();
        let cost = |steps: &[Step]| steps.iter().map(|s| 2 * s.left.len() + self.out).sum::<usize>();
        if cost(&halves) <= cost(&one_by_one) { halves } else { one_by_one }
    }

    /// One tap after the other joins, for the places of the result alone.
    fn one_by_one(&self) -> Vec<Step> {
        let first: Vec<usize> = (0..self.out).filter_map(|o| self.first(self.start(o), self.kernel)).collect();
        let mut steps: Vec<Step> = Vec::new();
        for t in 0..self.kernel {
            // What is outside is none: in its place one that is in the window already.
            let tap = |o: usize| Some(self.tap(self.start(o), t)).filter(|p| self.holds(*p)).map_or(first[o], |p| p as usize);
            let right: Vec<usize> = (0..self.out).map(tap).collect();
            if right == first {
                continue;
            }
            let left = if steps.is_empty() { first.clone() } else { (0..self.out).collect() };
            steps.push(Step { left, right: Some(right), of_first: true });
        }
        if steps.is_empty() && first != (0..self.size).collect::<Vec<_>>() {
            steps.push(Step { left: first, right: None, of_first: true });
        }
        steps
    }

    /// Windows of two halves, the halves of two halves each, down to single elements.
    fn by_halves(&self) -> Vec<Step> {
        if self.kernel == 1 {
            return self.one_by_one();
        }
        // Lengths of windows from the last step to the first, with the places that are needed of each.
        let mut needed: Vec<(usize, Vec<i64>)> = vec![(self.kernel, (0..self.out).map(|o| self.start(o)).collect())];
        while let Some((length, places)) = needed.last().filter(|(length, _)| *length > 1) {
            let half = length.div_ceil(2);
            let both = places.iter().flat_map(|p| [*p, self.tap(*p, length - half)]);
            let places: BTreeSet<i64> = both.filter(|p| self.touches(*p, half)).collect();
            needed.push((half, places.into_iter().collect()));
        }
        needed.reverse();
        let mut steps = Vec::new();
        let mut held: (usize, Vec<i64>) = (1, (0..self.size as i64).collect());
        for (length, places) in needed.into_iter().skip(1) {
            let index = |p: i64| held.1.binary_search(&p).ok();
            let pairs = places.iter().map(|p| (index(*p), index(self.tap(*p, length - held.0))));
            // Where one is outside, the other one twice.
            let pairs: Vec<(usize, usize)> = pairs.filter_map(|(a, b)| Some((a.or(b)?, b.or(a)?))).collect();
            let (left, right): (Vec<usize>, Vec<usize>) = pairs.into_iter().unzip();
            let right = Some(right).filter(|right| *right != left);
            steps.push(Step { left, right, of_first: false });
            held = (length, places);
        }
        steps
    }
}

impl Importer<'_> {
    pub(super) fn max_pool(&mut self, x: &Traced, node: &NodeProto, a: &Attributes<'_>, name: &str) -> Result<Traced, Refusal> {
        if let Some(places) = node.output.get(1).filter(|places| self.is_read(places)) {
            let why = format!("its second output {places:?}, where the maxima are, is read: only their values are computed");
            return Err(Refusal::Unsupported(why.into()));
        }
        let [1, _, height, width] = x.dims[..] else {
            return Err(Refusal::Unsupported("a maximum over windows of other tensors than pictures".into()));
        };
        let kernel = a.ints("kernel_shape").ok_or("it has no kernel_shape")?;
        let kernel: Option<Vec<usize>> = kernel.iter().map(|k| extent(*k)).collect();
        let Some(&[kh, kw]) = kernel.as_deref() else {
            return Err(Refusal::Bad("its kernel is not two positive numbers".into()));
        };
        let shape = Shape::new(1, height, width);
        let mut window =
            Window { kernel: [kh, kw], stride: pair(a, "strides")?, padding: [0; 4], dilation: pair(a, "dilations")? };
        window.padding = padding(a, &window, shape)?;
        let ceil = a.int("ceil_mode", 0) != 0;
        let along = |[height, width]: [usize; 2], [top, left, bottom, right]: [usize; 4]| {
            let of = |axis: usize, size: usize, around: [usize; 2]| {
                let how = [window.kernel[axis], window.stride[axis], window.dilation[axis]];
                Along::new(size, how, around, ceil)
            };
            Some([(2, of(0, height, [top, bottom])?), (3, of(1, width, [left, right])?)])
        };
        let whole = along([height, width], window.padding);
        if let (MaxPools::Convolved, Some(axes)) = (self.max_pools.0, &whole) {
            let made = self.averaged(x, window, axes.map(|(_, along)| along), name)?;
            self.max_pools.1.extend(self.node_of(made.base));
            return Ok(made);
        }
        self.max_pools.1.push(name.to_owned());
        let within = self.positive_within(x).filter(|_| !ceil).and_then(|(within, shape, zeros)| {
            let padding = std::array::from_fn(|side| window.padding[side] + zeros[side]);
            let dims = vec![1, shape.channels, shape.height, shape.width];
            Some((Traced::of(within, dims), along([shape.height, shape.width], padding)?))
        });
        let (x, mut axes) = match (within, whole) {
            (Some(within), Some(_)) => within,
            (None, Some(whole)) => (x.clone(), whole),
            (_, None) => {
                return Err(Refusal::Bad(
                    "its kernel is larger than its padded input, a window lies in the padding, or there is too much of that"
                        .into(),
                ));
            }
        };
        // The axis that gets shorter comes first.
        axes.sort_by_key(|(_, along)| std::cmp::Reverse(along.size / along.out));
        self.greatest_behind(&x, &node.input[0], &axes, name)
    }

    /// The average over each window, by a convolution: zeros around the picture count.
    fn averaged(&mut self, x: &Traced, window: Window, axes: [Along; 2], name: &str) -> Result<Traced, Refusal> {
        let (value, shape) = self.picture(x, name)?;
        let [rows, columns] = axes;
        // As far as the last windows reach.
        let after = |a: Along| ((a.out - 1) * a.stride + (a.kernel - 1) * a.dilation + 1).saturating_sub(a.size + a.before);
        let padding = [rows.before, columns.before, after(rows), after(columns)];
        let [kh, kw] = window.kernel;
        let taps = vec![1.0 / (kh * kw) as f64; shape.channels * kh * kw];
        let operator = OperatorSpec::Conv2d {
            weight: self.keep_values(vec![shape.channels, 1, kh, kw], taps)?,
            bias: None,
            stride: window.stride,
            padding,
            dilation: window.dilation,
            groups: shape.channels,
        };
        self.emit_picture(name, &[value], operator, Shape::new(shape.channels, rows.out, columns.out))
    }

    /// What a picture is where it is one without negative numbers and zeros around it: that one, its shape, and the zeros. Among such
    /// numbers a zero is never the greatest alone.
    fn positive_within(&self, x: &Traced) -> Option<(usize, Shape, [usize; 4])> {
        let (within, zeros) = self.zeros_around(x.base).filter(|_| x.expression == Formula::x())?;
        let (OperatorSpec::Activation { function }, _) = self.maker(within)? else { return None };
        let own = self.shape(x.base);
        let picture = x.dims == [1, own.channels, own.height, own.width];
        (picture && function.never_negative()).then(|| (within, self.shape(within), zeros))
    }

    /// Over all of some axes.
    pub(super) fn greatest_of_axes(
        &mut self,
        x: &Traced,
        node: &NodeProto,
        axes: &[usize],
        keep: bool,
        name: &str,
    ) -> Result<Traced, Refusal> {
        let whole = |at: usize| {
            let size = x.dims[at];
            (at, Along { size, out: 1, kernel: size, stride: 1, before: 0, dilation: 1 })
        };
        let along: Vec<(usize, Along)> = axes.iter().map(|at| whole(*at)).collect();
        let made = self.greatest_behind(x, &node.input[0], &along, name)?;
        let dims = made.dims.iter().enumerate().filter(|(at, _)| keep || !axes.contains(at)).map(|(_, d)| *d).collect();
        Ok(Traced { dims, ..made })
    }

    /// The greatest (`least`: the least) over the axes that an operator names.
    pub(super) fn reduce_max(
        &mut self,
        x: &Traced,
        node: &NodeProto,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
        (least, name): (bool, &str),
    ) -> Result<Traced, Refusal> {
        let Some(axes) = reduced_axes(x.dims.len(), operands, a)? else { return Ok(x.clone()) };
        let keep = a.int("keepdims", 1) != 0;
        if !least {
            return self.greatest_of_axes(x, node, &axes, keep, name);
        }
        let negative = self.unary(x, Unary::Negative, name)?;
        let greatest = self.greatest_of_axes(&negative, node, &axes, keep, name)?;
        self.unary(&greatest, Unary::Negative, name)
    }

    /// The greatest along axes. A function that never falls is applied to it, where that leaves fewer elements to apply it to.
    fn greatest_behind(&mut self, x: &Traced, called: &str, axes: &[(usize, Along)], name: &str) -> Result<Traced, Refusal> {
        let fewer = axes.iter().any(|(_, along)| along.out < along.size);
        let rises = matches!(recognise(&x.expression), Recognised::Activation(function) if function.never_falls());
        if fewer && rises && self.readers(called) == 1 {
            let before = Traced { expression: Formula::x(), ..x.clone() };
            let greatest = self.greatest(&before, axes, name)?;
            return Ok(Traced { expression: x.expression.clone(), name: x.name.clone(), ..greatest });
        }
        self.greatest(x, axes, name)
    }

    fn greatest(&mut self, x: &Traced, axes: &[(usize, Along)], name: &str) -> Result<Traced, Refusal> {
        let mut x = x.clone();
        for (at, along) in axes {
            let first = x.clone();
            let name = &match at {
                2 => format!("{name}.rows"),
                3 => format!("{name}.columns"),
                at => format!("{name}.axis{at}"),
            };
            let steps = along.steps();
            self.budget.take(steps.iter().map(|s| 2 * s.left.len()).sum())?;
            for Step { left, right, of_first } in steps {
                let some = |picks: Vec<usize>| picks.into_iter().map(Some).collect::<Vec<_>>();
                let a = self.along(&x, *at, some(left), 0.0, name)?;
                x = match right {
                    Some(right) => {
                        let b = self.along(if of_first { &first } else { &x }, *at, some(right), 0.0, name)?;
                        self.greater(&a, &b, name)?
                    }
                    None => a,
                };
            }
        }
        Ok(x)
    }

    /// The greater of two tensors of one shape, element by element.
    pub(super) fn greater(&mut self, a: &Traced, b: &Traced, name: &str) -> Result<Traced, Refusal> {
        let difference =
            self.binary(Binary::Subtract, &Known::Traced(b.clone()), &Known::Traced(a.clone()), &format!("{name}.difference"))?;
        let above = self.apply(&difference, &ActivationFunction::Relu, &format!("{name}.relu"))?;
        self.binary(Binary::Add, &Known::Traced(a.clone()), &Known::Traced(above), name)
    }

    /// Whether a value of the file is read, or the result.
    fn is_read(&self, value: &str) -> bool {
        !value.is_empty() && self.readers(value) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    fn run(steps: &[Step], x: &[f64]) -> Vec<f64> {
        steps.iter().fold(x.to_vec(), |held, step| {
            let right = if step.of_first { x } else { &held };
            match &step.right {
                Some(places) => step.left.iter().zip(places).map(|(a, b)| held[*a].max(right[*b])).collect(),
                None => step.left.iter().map(|a| held[*a]).collect(),
            }
        })
    }

    /// By the definition: the greatest of the taps within the axis.
    fn expected(along: &Along, x: &[f64]) -> Vec<f64> {
        let window = |o: usize| (0..along.kernel).map(move |t| along.tap(along.start(o), t)).filter(|p| along.holds(*p));
        (0..along.out).map(|o| window(o).map(|p| x[p as usize]).fold(f64::NEG_INFINITY, f64::max)).collect()
    }

    #[test]
    fn steps_take_the_greatest_of_every_window() {
        let mut rng = chacha20::ChaCha8Rng::seed_from_u64(3);
        let mut tried = 0;
        while tried < 2000 {
            let size = rng.random_range(1..20);
            let (kernel, stride, dilation) = (rng.random_range(1..12), rng.random_range(1..5), rng.random_range(1..4));
            let around = [rng.random_range(0..kernel), rng.random_range(0..kernel)];
            let Some(along) = Along::new(size, [kernel, stride, dilation], around, rng.random()) else { continue };
            tried += 1;
            let x: Vec<f64> = (0..size).map(|_| rng.random_range(-1.0..1.0)).collect();
            for steps in [along.one_by_one(), along.by_halves(), along.steps()] {
                let found = if steps.is_empty() { x.clone() } else { run(&steps, &x) };
                let expected = expected(&along, &x);
                assert_eq!(found, expected, "{along:?} by {steps:?}");
            }
        }
    }

    #[test]
    fn no_more_elements_are_compared_than_must_be() {
        let sizes = |size, how, around| {
            let along = Along::new(size, how, around, false).unwrap();
            along.steps().iter().map(|s| s.left.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(112, [3, 2, 1], [1, 1]), [56, 56], "one tap after the other");
        assert_eq!(sizes(8, [2, 2, 1], [0, 0]), [4]);
        assert_eq!(sizes(16, [4, 4, 1], [0, 0]), [8, 4], "pairs first");
        assert_eq!(sizes(7, [7, 1, 1], [0, 0]), [4, 2, 1], "all of an axis");
        assert_eq!(sizes(13, [5, 1, 1], [2, 2]).len(), 3, "overlapping windows share their parts");
    }

    /// What a file may ask for takes no longer than what it can be used for.
    #[test]
    fn long_windows_are_cut_into_few_steps() {
        let along = Along::new(40_000, [20_000, 1, 2], [0, 0], false).unwrap();
        assert!(along.steps().len() <= 15);
        assert!(Along::new(60_000, [2, 1, 1], [60_000, 0], false).is_none(), "no tensor has such an axis");
        let whole = Along::new(65_536, [65_536, 1, 1], [0, 0], false).unwrap();
        assert_eq!(whole.steps().len(), 16);
    }

    #[test]
    fn rounding_up_leaves_out_windows_that_begin_behind_the_end() {
        let out = |size, how, around| Along::new(size, how, around, true).map(|a| a.out);
        assert_eq!(out(6, [3, 2, 1], [0, 0]), Some(3));
        assert_eq!(out(5, [1, 4, 1], [0, 1]), Some(2));
        assert_eq!(out(4, [2, 3, 1], [0, 1]), Some(2));
        assert_eq!(out(3, [2, 3, 1], [0, 1]), Some(1), "it would begin in the padding");
        assert_eq!(out(2, [4, 1, 1], [0, 0]), None);
    }
}

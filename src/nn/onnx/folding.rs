//! The operators that are computed when a file is read, since all their operands are known: what exporters leave of shapes,
//! paddings and indices, and weights that are made of others (normalised, standardised, quantised).

use super::attributes::Attributes;
use super::constant::{
    Budget, Constant, Data, MAX_RANK, Reason, axes_or_all, axis, common, order, product, reshape, slice, squeeze, unsqueeze,
};
use super::external::Folder;
use super::op::Op;
use super::{arithmetic, products, quantised, reduce};

/// The first result of an operator all of whose operands are known; none if it is not one of those folded. `quantised_to`: the
/// number type that QuantizeLinear is to make, as ONNX counts them.
pub(super) fn fold(
    attributes: &Attributes<'_>,
    operands: &[Option<&Constant>],
    quantised_to: Option<i32>,
    budget: &mut Budget,
) -> Result<Option<Constant>, Reason> {
    let op = attributes.0.op();
    let node = Node { op, attributes, operands };
    let (given, operand, integers) = (|i| node.given(i), |i| node.operand(i), |i| node.integers(i));
    Ok(Some(match op {
        Op::Dropout
            if given(2).is_some_and(|on| on.uniform() != Some(0.0)) && given(1).and_then(Constant::uniform) != Some(0.0) =>
        {
            return Err("it is in training mode: call model.eval() before the export".into());
        }
        Op::Identity | Op::Dropout => operand(0)?.clone(),
        Op::Cast => return arithmetic::cast(operand(0)?, attributes.int("to", 1), budget),
        Op::CastLike => {
            let to = match operand(1)?.data {
                Data::Single(_) => 1,
                Data::Real(_) => 11,
                Data::Whole(_) => 7,
            };
            return arithmetic::cast(operand(0)?, to, budget);
        }
        Op::Sum | Op::Mean | Op::Min | Op::Max => return node.of_any_number(budget),
        Op::Clip => arithmetic::clip(operand(0)?, given(1), given(2), budget)?,
        Op::Where => arithmetic::choose(operand(0)?, operand(1)?, operand(2)?, budget)?,
        Op::DequantizeLinear => quantised::dequantise(operands, attributes, budget)?,
        Op::QuantizeLinear => return quantised::quantise(operands, quantised_to, attributes, budget),
        Op::MatMul => products::matmul(operand(0)?, operand(1)?, budget)?,
        Op::Gemm => products::gemm(operand(0)?, operand(1)?, given(2), attributes, budget)?,
        Op::Einsum => {
            let all = (0..operands.len()).map(operand).collect::<Result<Vec<_>, _>>()?;
            return products::einsum(attributes.text("equation"), &all, budget);
        }
        Op::Shape => node.shape()?,
        Op::Size => Constant { dims: Vec::new(), data: Data::Whole(vec![operand(0)?.len() as i64]) },
        Op::Concat => {
            let first = operand(0)?;
            let axis = axis(attributes.int("axis", 0), first.dims.len())?;
            let parts: Vec<&Constant> = (0..operands.len()).map(operand).collect::<Result<_, _>>()?;
            budget.take(parts.iter().map(|p| p.len()).sum())?;
            concatenate(&parts, axis)?
        }
        Op::Gather => node.gather(budget)?,
        Op::Slice => node.slice(budget)?,
        Op::Reshape => {
            let x = operand(0)?;
            x.reshaped(reshape(&x.dims, integers(1)?, attributes.int("allowzero", 0) != 0)?)?
        }
        Op::Squeeze => operand(0)?.reshaped(squeeze(&operand(0)?.dims, node.axes().as_deref())?)?,
        Op::Unsqueeze => operand(0)?.reshaped(unsqueeze(&operand(0)?.dims, &node.axes().ok_or("it has no axes")?)?)?,
        Op::Flatten => node.flatten()?,
        Op::Tile => node.tile(budget)?,
        Op::Pad => match pad(operand(0)?, given(1), given(2), given(3), attributes, budget)? {
            Some(padded) => padded,
            None => return Ok(None),
        },
        Op::Transpose => {
            let x = operand(0)?;
            x.transposed(&order(attributes.ints("perm"), x.dims.len())?, budget)?
        }
        Op::Expand => {
            let wanted: Option<Vec<usize>> = integers(1)?.iter().map(|d| usize::try_from(*d).ok()).collect();
            let x = operand(0)?;
            x.broadcast(&common(&x.dims, &wanted.ok_or("a negative extent")?)?, budget)?
        }
        Op::ConstantOfShape => node.constant_of_shape(budget)?,
        Op::Range => node.range(budget)?,
        Op::BatchNormalization | Op::InstanceNormalization | Op::LayerNormalization | Op::LpNormalization | Op::Softmax => {
            return reduce::normalise(op, operands, attributes, budget);
        }
        op if op.is_reduction() => {
            return reduce::reduce(op, operand(0)?, node.axes().as_deref(), attributes, budget);
        }
        op if operands.len() == 1 => return arithmetic::unary(op, operand(0)?, attributes, budget),
        op if operands.len() == 2 => return arithmetic::binary(op, operand(0)?, operand(1)?, attributes, budget),
        _ => return Ok(None),
    }))
}

/// A node and its operands.
struct Node<'n> {
    op: Op,
    attributes: &'n Attributes<'n>,
    operands: &'n [Option<&'n Constant>],
}

impl<'n> Node<'n> {
    fn given(&self, i: usize) -> Option<&'n Constant> {
        self.operands.get(i).copied().flatten()
    }

    fn operand(&self, i: usize) -> Result<&'n Constant, Reason> {
        self.given(i).ok_or_else(|| format!("operand {i} is missing"))
    }

    fn integers(&self, i: usize) -> Result<&'n [i64], Reason> {
        self.operand(i)?.integers().ok_or_else(|| format!("operand {i} is not made of integers"))
    }

    /// The axes: since opset 13 (18 for most reductions) they are an operand.
    fn axes(&self) -> Option<Vec<i64>> {
        match self.given(1) {
            Some(axes) => axes.integers().map(<[i64]>::to_vec),
            None => self.attributes.ints("axes").map(<[i64]>::to_vec),
        }
    }

    /// The extents of a tensor, or some of them.
    fn shape(&self) -> Result<Constant, Reason> {
        let dims: Vec<i64> = self.operand(0)?.dims.iter().map(|d| *d as i64).collect();
        let n = dims.len() as i64;
        let bound = |at: i64| (if at < 0 { at.saturating_add(n) } else { at }).clamp(0, n) as usize;
        let (start, end) = (bound(self.attributes.int("start", 0)), bound(self.attributes.int("end", n)));
        Ok(Constant::whole(dims.get(start..end).unwrap_or(&[]).to_vec()))
    }

    /// Slices along an axis, in any order.
    fn gather(&self, budget: &mut Budget) -> Result<Constant, Reason> {
        let (x, indices) = (self.operand(0)?, self.integers(1)?);
        let axis = axis(self.attributes.int("axis", 0), x.dims.len())?;
        let extent = x.dims[axis];
        let picks = indices.iter().map(|i| {
            let at = if *i < 0 { i.checked_add(extent as i64) } else { Some(*i) };
            let at = at.and_then(|i| usize::try_from(i).ok()).filter(|i| *i < extent);
            at.map(Some).ok_or_else(|| format!("there is no index {i} of {extent}"))
        });
        let picked = x.along(axis, &picks.collect::<Result<Vec<_>, _>>()?, budget)?;
        let dims = [&x.dims[..axis], &self.operand(1)?.dims, &x.dims[axis + 1..]].concat();
        picked.reshaped(dims)
    }

    /// Parts along axes, in steps.
    fn slice(&self, budget: &mut Budget) -> Result<Constant, Reason> {
        let mut x = self.operand(0)?.clone();
        let (starts, ends) = (self.integers(1)?, self.integers(2)?);
        let whole = |i: usize| self.given(i).and_then(Constant::integers);
        for (k, (start, end)) in starts.iter().zip(ends).enumerate() {
            let at = whole(3).map_or(Some(k as i64), |axes| axes.get(k).copied()).ok_or("an axis is missing")?;
            let step = whole(4).map_or(Some(1), |steps| steps.get(k).copied()).ok_or("a step is missing")?;
            let at = axis(at, x.dims.len())?;
            x = x.along(at, &slice(x.dims[at], *start, *end, step)?, budget)?;
        }
        Ok(x)
    }

    /// As a matrix.
    fn flatten(&self) -> Result<Constant, Reason> {
        let x = self.operand(0)?;
        let at = self.attributes.int("axis", 1);
        let at = if at == x.dims.len() as i64 { x.dims.len() } else { axis(at, x.dims.len())? };
        let whole = |dims: &[usize]| product(dims).ok_or("its shape overflows");
        x.reshaped(vec![whole(&x.dims[..at])?, whole(&x.dims[at..])?])
    }

    /// Repeats along axes.
    fn tile(&self, budget: &mut Budget) -> Result<Constant, Reason> {
        let mut x = self.operand(0)?.clone();
        let times = self.integers(1)?;
        if times.len() != x.dims.len() {
            return Err(format!("{} repeats for {} axes", times.len(), x.dims.len()));
        }
        for (at, times) in times.iter().enumerate().filter(|(_, times)| **times != 1) {
            let n = x.dims[at];
            let times = usize::try_from(*times).map_err(|_| format!("{times} repeats"))?;
            let long = n.checked_mul(times).ok_or("a shape overflows")?;
            budget.take(long)?;
            x = x.along(at, &(0..long).map(|i| Some(i % n)).collect::<Vec<_>>(), budget)?;
        }
        Ok(x)
    }

    /// One value in a shape that is computed.
    fn constant_of_shape(&self, budget: &mut Budget) -> Result<Constant, Reason> {
        let dims: Option<Vec<usize>> = self.integers(0)?.iter().map(|d| usize::try_from(*d).ok()).collect();
        let dims = dims.filter(|d| d.len() <= MAX_RANK).ok_or("it asks for an impossible shape")?;
        let size = product(&dims).ok_or("it asks for an impossible shape")?;
        budget.take(size)?;
        let decode = |t| Constant::decode(t, "value", &Folder::new(None)).map_err(|e| e.to_string());
        let data = match self.attributes.tensor("value").map(decode).transpose()?.map(|v| v.data) {
            Some(Data::Whole(v)) => Data::Whole(vec![v.first().copied().unwrap_or(0); size]),
            Some(Data::Real(v)) => Data::Real(vec![v.first().copied().unwrap_or(0.0); size]),
            Some(Data::Single(v)) => Data::Single(vec![v.first().copied().unwrap_or(0.0); size]),
            None => Data::Single(vec![0.0; size]),
        };
        Ok(Constant { dims, data })
    }

    /// Numbers in equal steps.
    fn range(&self, budget: &mut Budget) -> Result<Constant, Reason> {
        if self.operand(0)?.integers().is_none() {
            let [start, end, step] = [self.operand(0)?, self.operand(1)?, self.operand(2)?].map(|c| c.at(0));
            let count = ((end - start) / step).ceil();
            if !count.is_finite() {
                return Err(format!("from {start} to {end} in steps of {step} is no range"));
            }
            let count = count.max(0.0) as usize;
            budget.take(count)?;
            return Ok(Constant::floating(
                vec![count],
                (0..count).map(|i| start + i as f64 * step),
                self.operand(0)?.is_single(),
            ));
        }
        let one = |i: usize| self.integers(i)?.first().copied().ok_or_else(|| format!("operand {i} is empty"));
        let (start, end, step) = (one(0)?, one(1)?, one(2)?);
        let count = if step == 0 { 0 } else { (i128::from(end) - i128::from(start)).div_euclid(i128::from(step)).max(0) + 1 };
        budget.take(usize::try_from(count).unwrap_or(usize::MAX))?;
        let before = |v: &i64| if step > 0 { *v < end } else { *v > end };
        let values = std::iter::successors(Some(start), |v| v.checked_add(step)).take(count as usize).take_while(before);
        Ok(Constant::whole(values.collect()))
    }

    /// A function of as many operands as there are.
    fn of_any_number(&self, budget: &mut Budget) -> Result<Option<Constant>, Reason> {
        let step = if matches!(self.op, Op::Sum | Op::Mean) { Op::Add } else { self.op };
        let mut result = self.operand(0)?.clone();
        for i in 1..self.operands.len() {
            let Some(next) = arithmetic::binary(step, &result, self.operand(i)?, self.attributes, budget)? else {
                return Ok(None);
            };
            result = next;
        }
        if self.op == Op::Mean {
            let count = Constant::floating(Vec::new(), std::iter::once(self.operands.len() as f64), result.is_single());
            return arithmetic::binary(Op::Div, &result, &count, self.attributes, budget);
        }
        Ok(Some(result))
    }
}

/// The parts that Split makes.
pub(super) fn split(
    operands: &[Option<&Constant>],
    outputs: usize,
    a: &Attributes<'_>,
    budget: &mut Budget,
) -> Result<Vec<Constant>, Reason> {
    let x = operands.first().copied().flatten().ok_or("operand 0 is missing")?;
    let at = axis(a.int("axis", 0), x.dims.len())?;
    let n = x.dims[at];
    let sizes: Vec<usize> = match operands.get(1).copied().flatten().and_then(Constant::integers).or(a.ints("split")) {
        Some(sizes) => sizes.iter().map(|s| usize::try_from(*s).unwrap_or(usize::MAX)).collect(),
        None => {
            let one = n.div_ceil(outputs.max(1));
            (0..outputs).map(|i| one.min(n.saturating_sub(i * one))).collect()
        }
    };
    if sizes.iter().try_fold(0usize, |sum, s| sum.checked_add(*s)) != Some(n) || sizes.len() != outputs {
        return Err(format!("{n} elements are split into {outputs} parts of {sizes:?}"));
    }
    let mut first = 0;
    sizes
        .into_iter()
        .map(|size| {
            let picks: Vec<Option<usize>> = (first..first + size).map(Some).collect();
            first += size;
            x.along(at, &picks, budget)
        })
        .collect()
}

/// Zeros around a tensor, or pieces of it cut off; none for other modes and values.
fn pad(
    x: &Constant,
    pads: Option<&Constant>,
    value: Option<&Constant>,
    axes: Option<&Constant>,
    a: &Attributes<'_>,
    budget: &mut Budget,
) -> Result<Option<Constant>, Reason> {
    if !matches!(a.text("mode"), "" | "constant") || value.is_some_and(|v| v.uniform() != Some(0.0)) {
        return Ok(None);
    }
    let pads = pads.and_then(Constant::integers).ok_or("its pads are no integers")?;
    let axes = axes.map(|axes| axes.integers().ok_or("its axes are no integers")).transpose()?;
    let axes = axes_or_all(axes, x.dims.len())?;
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} axes", pads.len(), axes.len()));
    }
    let mut x = x.clone();
    for (k, &at) in axes.iter().enumerate() {
        let (before, after, n) = (pads[k], pads[k + axes.len()], x.dims[at] as i64);
        let wrong = || format!("axis {at} of {n} is padded by {before} and {after}");
        let long = n.checked_add(before).and_then(|n| n.checked_add(after)).and_then(|n| usize::try_from(n).ok());
        budget.take(long.ok_or_else(wrong)?)?;
        let first = before.checked_neg().ok_or_else(wrong)?;
        let picks: Vec<_> =
            (first..n.saturating_add(after)).map(|i| usize::try_from(i).ok().filter(|i| *i < x.dims[at])).collect();
        x = x.along(at, &picks, budget)?;
    }
    Ok(Some(x))
}

/// Tensors one after the other along an axis.
fn concatenate(parts: &[&Constant], axis: usize) -> Result<Constant, Reason> {
    let mut dims = parts[0].dims.clone();
    dims[axis] = 0;
    for part in parts {
        let fits = part.dims.len() == dims.len() && (0..dims.len()).all(|a| a == axis || part.dims[a] == dims[a]);
        if !fits {
            return Err(format!("{:?} and {:?} cannot be joined along axis {axis}", parts[0].dims, part.dims));
        }
        dims[axis] += part.dims[axis];
    }
    let outer: usize = dims[..axis].iter().product();
    let chunk = |part: &Constant, o: usize| {
        let n = part.len() / outer.max(1);
        o * n..(o + 1) * n
    };
    let order = (0..outer).flat_map(|o| parts.iter().flat_map(move |p| chunk(p, o).map(move |i| (*p, i))));
    if parts.iter().all(|p| p.integers().is_some()) {
        let data = Data::Whole(order.map(|(p, i)| p.integers().map_or(0, |v| v[i])).collect());
        return Ok(Constant { dims, data });
    }
    let single = !parts.iter().any(|p| matches!(p.data, Data::Real(_)));
    Ok(Constant::floating(dims, order.map(|(p, i)| p.at(i)), single))
}

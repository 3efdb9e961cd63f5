//! Sums, norms and moments of constants along axes: weights that are normalised or standardised in the file.

use super::attributes::Attributes;
use super::constant::{Budget, Constant, Data, Reason, axis, positions, product, strides};
use super::op::Op;

/// Which axes an operator reduces; all if it names none.
pub(super) fn reduced(axes: &[i64], rank: usize) -> Result<Vec<bool>, Reason> {
    let mut gone = vec![axes.is_empty(); rank];
    for at in axes {
        gone[axis(*at, rank)?] = true;
    }
    Ok(gone)
}

/// For each element, the flat index of the group that it is reduced into; and how many groups there are.
fn groups(dims: &[usize], gone: &[bool]) -> (impl Iterator<Item = usize> + use<>, usize) {
    let kept: Vec<usize> = dims.iter().zip(gone).map(|(d, gone)| if *gone { 1 } else { *d }).collect();
    let steps = strides(&kept).into_iter().zip(gone).map(|(step, gone)| if *gone { 0 } else { step }).collect();
    (positions(dims, steps), kept.iter().product())
}

/// The operators Reduce...; none if it is not one of those known.
pub(super) fn reduce(
    op: Op,
    x: &Constant,
    axes: Option<&[i64]>,
    a: &Attributes<'_>,
    budget: &mut Budget,
) -> Result<Option<Constant>, Reason> {
    budget.take(x.len())?;
    let axes = axes.unwrap_or(&[]);
    if axes.is_empty() && a.int("noop_with_empty_axes", 0) != 0 {
        return Ok(Some(x.clone()));
    }
    let gone = reduced(axes, x.dims.len())?;
    let keep = a.int("keepdims", 1) != 0;
    let dims: Vec<usize> =
        x.dims.iter().zip(&gone).filter(|(_, gone)| keep || !**gone).map(|(d, gone)| if *gone { 1 } else { *d }).collect();
    let (of, count) = groups(&x.dims, &gone);
    if count > 0 && x.len() == 0 {
        return Err("nothing is reduced to one number".into());
    }
    let each = x.len() / count.max(1);
    if let Data::Whole(v) = &x.data
        && let Some((start, f)) = whole(op)
    {
        let mut result = vec![start; count];
        for (v, group) in v.iter().zip(of) {
            result[group] = f(result[group], *v).ok_or_else(|| format!("{op} of integers overflows"))?;
        }
        if op == Op::ReduceMean {
            result.iter_mut().for_each(|v| *v /= each as i64);
        }
        return Ok(Some(Constant { dims, data: Data::Whole(result) }));
    }
    let (start, f): (f64, fn(f64, f64) -> f64) = match op {
        Op::ReduceSum | Op::ReduceMean | Op::ReduceLogSum => (0.0, |sum, v| sum + v),
        Op::ReduceL1 => (0.0, |sum, v| sum + v.abs()),
        Op::ReduceL2 | Op::ReduceSumSquare => (0.0, |sum, v| sum + v * v),
        Op::ReduceLogSumExp => (0.0, |sum, v| sum + v.exp()),
        Op::ReduceProd => (1.0, |product, v| product * v),
        Op::ReduceMax => (f64::NEG_INFINITY, f64::max),
        Op::ReduceMin => (f64::INFINITY, f64::min),
        _ => return Ok(None),
    };
    let mut result = vec![start; count];
    (0..x.len()).zip(of).for_each(|(i, group)| result[group] = f(result[group], x.at(i)));
    let end = |v: f64| match op {
        Op::ReduceMean => v / each as f64,
        Op::ReduceL2 => v.sqrt(),
        Op::ReduceLogSum | Op::ReduceLogSumExp => v.ln(),
        _ => v,
    };
    Ok(Some(Constant::floating(dims, result.into_iter().map(end), x.is_single())))
}

/// The reductions of integers that are integers: where to begin, and a step.
#[expect(clippy::type_complexity, reason = "it is named once")]
fn whole(op: Op) -> Option<(i64, fn(i64, i64) -> Option<i64>)> {
    Some(match op {
        Op::ReduceSum | Op::ReduceMean => (0, |sum, v| Some(sum.wrapping_add(v))),
        Op::ReduceL1 => (0, |sum, v| sum.checked_add(v.checked_abs()?)),
        Op::ReduceSumSquare => (0, |sum, v| sum.checked_add(v.checked_mul(v)?)),
        Op::ReduceProd => (1, |product, v| Some(product.wrapping_mul(v))),
        Op::ReduceMax => (i64::MIN, |a, b| Some(a.max(b))),
        Op::ReduceMin => (i64::MAX, |a, b| Some(a.min(b))),
        _ => return None,
    })
}

/// Mean and variance of each group of elements, and the group of each element.
struct Moments {
    group: Vec<usize>,
    mean: Vec<f64>,
    variance: Vec<f64>,
}

fn moments(x: &Constant, gone: &[bool], budget: &mut Budget) -> Result<Moments, Reason> {
    budget.take(3 * x.len())?;
    let (of, count) = groups(&x.dims, gone);
    let group: Vec<usize> = of.collect();
    let each = (x.len() / count.max(1)) as f64;
    let (mut mean, mut variance) = (vec![0.0; count], vec![0.0; count]);
    group.iter().enumerate().for_each(|(i, g)| mean[*g] += x.at(i) / each);
    group.iter().enumerate().for_each(|(i, g)| variance[*g] += (x.at(i) - mean[*g]).powi(2) / each);
    Ok(Moments { group, mean, variance })
}

/// The normalisations; none if it is not one of those known. Weights are standardised by one in training mode.
pub(super) fn normalise(
    op: Op,
    operands: &[Option<&Constant>],
    a: &Attributes<'_>,
    budget: &mut Budget,
) -> Result<Option<Constant>, Reason> {
    let operand = |i: usize| operands.get(i).copied().flatten();
    let x = operand(0).ok_or("operand 0 is missing")?;
    let rank = x.dims.len();
    let epsilon = a.float("epsilon", 1e-5);
    let channels = *x.dims.get(1).unwrap_or(&1);
    let inner: usize = x.dims.iter().skip(2).product();
    let channel = |i: usize| i / inner.max(1) % channels.max(1);
    // A parameter for each channel, and what it is if there is none.
    let per_channel = |k: usize, otherwise: f64| match operand(k) {
        None => Ok(vec![otherwise; channels]),
        Some(c) if c.len() == channels => Ok(c.real()),
        Some(c) => Err(format!("operand {k} has shape {:?} for {channels} channels", c.dims)),
    };
    let make = |f: &dyn Fn(usize) -> f64| {
        let data = Constant::floating(x.dims.clone(), (0..x.len()).map(f), x.is_single());
        Ok(Some(data))
    };
    match op {
        Op::BatchNormalization | Op::InstanceNormalization => {
            let (scale, bias) = (per_channel(1, 1.0)?, per_channel(2, 0.0)?);
            let of_itself = op == Op::InstanceNormalization || a.trains();
            let m = if of_itself {
                let gone: Vec<bool> = (0..rank).map(|at| at > 1 || at == 0 && op == Op::BatchNormalization).collect();
                moments(x, &gone, budget)?
            } else {
                budget.take(2 * x.len())?;
                let group = (0..x.len()).map(channel).collect();
                Moments { group, mean: per_channel(3, 0.0)?, variance: per_channel(4, 1.0)? }
            };
            make(&|i| {
                let (g, c) = (m.group[i], channel(i));
                (x.at(i) - m.mean[g]) / (m.variance[g] + epsilon).sqrt() * scale[c] + bias[c]
            })
        }
        Op::LayerNormalization => {
            let first = axis(a.int("axis", -1), rank)?;
            let m = moments(x, &(0..rank).map(|at| at >= first).collect::<Vec<_>>(), budget)?;
            let size = product(&x.dims[first..]).ok_or("a shape overflows")?;
            if [1, 2].into_iter().filter_map(operand).any(|c| c.len() != size) {
                return Err(format!("its parameters do not have {size} elements"));
            }
            let at = |k: usize, i: usize, otherwise: f64| operand(k).map_or(otherwise, |c| c.at(i % size));
            make(&|i| {
                let g = m.group[i];
                (x.at(i) - m.mean[g]) / (m.variance[g] + epsilon).sqrt() * at(1, i, 1.0) + at(2, i, 0.0)
            })
        }
        Op::LpNormalization => {
            let mut gone = vec![false; rank];
            gone[axis(a.int("axis", -1), rank)?] = true;
            let (of, count) = groups(&x.dims, &gone);
            budget.take(2 * x.len())?;
            let group: Vec<usize> = of.collect();
            let first = a.int("p", 2) == 1;
            let mut norm = vec![0.0; count];
            group.iter().enumerate().for_each(|(i, g)| norm[*g] += if first { x.at(i).abs() } else { x.at(i).powi(2) });
            if !first {
                norm.iter_mut().for_each(|n| *n = n.sqrt());
            }
            make(&|i| if norm[group[i]] == 0.0 { 0.0 } else { x.at(i) / norm[group[i]] })
        }
        // Weights of a mean that were learned; not those of an old opset, which is seen to before.
        Op::Softmax if rank > 0 && axis(a.int("axis", -1), rank)? == rank - 1 => {
            let gone: Vec<bool> = (0..rank).map(|at| at == rank - 1).collect();
            let (of, count) = groups(&x.dims, &gone);
            budget.take(2 * x.len())?;
            let group: Vec<usize> = of.collect();
            let (mut most, mut sum) = (vec![f64::NEG_INFINITY; count], vec![0.0; count]);
            group.iter().enumerate().for_each(|(i, g)| most[*g] = most[*g].max(x.at(i)));
            group.iter().enumerate().for_each(|(i, g)| sum[*g] += (x.at(i) - most[*g]).exp());
            make(&|i| (x.at(i) - most[group[i]]).exp() / sum[group[i]])
        }
        _ => Ok(None),
    }
}

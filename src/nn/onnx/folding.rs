//! The operators that torch.onnx.export leaves to be computed on constants: shapes, paddings, indices.

use super::attributes::Attributes;
use super::constant::{Budget, Constant, Data, MAX_RANK, Reason, axis, common, product, reshape, slice, squeeze, unsqueeze};

fn elementwise(op: &str, a: &Constant, b: &Constant, budget: &mut Budget) -> Result<Constant, Reason> {
    let dims = common(&a.dims, &b.dims)?;
    let (a, b) = (a.broadcast(&dims, budget)?, b.broadcast(&dims, budget)?);
    budget.take(a.len())?;
    let data = match (&a.data, &b.data) {
        (Data::Whole(x), Data::Whole(y)) => {
            let f = |x: i64, y: i64| match op {
                "Add" => x.checked_add(y),
                "Sub" => x.checked_sub(y),
                "Mul" => x.checked_mul(y),
                "Div" => x.checked_div(y),
                "Mod" => x.checked_rem_euclid(y),
                "Min" => Some(x.min(y)),
                "Max" => Some(x.max(y)),
                "Pow" => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
                "Equal" => Some((x == y).into()),
                "Less" => Some((x < y).into()),
                _ => Some((x > y).into()),
            };
            let values = x.iter().zip(y).map(|(x, y)| f(*x, *y).ok_or_else(|| format!("{op} of {x} and {y} is no integer")));
            Data::Whole(values.collect::<Result<_, _>>()?)
        }
        _ => {
            let (x, y) = (a.real(), b.real());
            let pairs = x.iter().zip(&y);
            match op {
                "Add" => Data::Real(pairs.map(|(x, y)| x + y).collect()),
                "Sub" => Data::Real(pairs.map(|(x, y)| x - y).collect()),
                "Mul" => Data::Real(pairs.map(|(x, y)| x * y).collect()),
                "Div" => Data::Real(pairs.map(|(x, y)| x / y).collect()),
                "Mod" => Data::Real(pairs.map(|(x, y)| x % y).collect()),
                "Min" => Data::Real(pairs.map(|(x, y)| x.min(*y)).collect()),
                "Max" => Data::Real(pairs.map(|(x, y)| x.max(*y)).collect()),
                "Pow" => Data::Real(pairs.map(|(x, y)| x.powf(*y)).collect()),
                "Equal" => Data::Whole(pairs.map(|(x, y)| (x == y).into()).collect()),
                "Less" => Data::Whole(pairs.map(|(x, y)| (x < y).into()).collect()),
                _ => Data::Whole(pairs.map(|(x, y)| (x > y).into()).collect()),
            }
        }
    };
    Ok(Constant { dims, data })
}

fn unary(x: &Constant, f: impl Fn(f64) -> f64) -> Constant {
    Constant { dims: x.dims.clone(), data: Data::Real(x.real().into_iter().map(f).collect()) }
}

/// The result of an operator all of whose operands are known; none if it is not one of those folded.
pub(super) fn fold(
    op: &str,
    attributes: &Attributes<'_>,
    operands: &[Option<&Constant>],
    budget: &mut Budget,
) -> Result<Option<Constant>, Reason> {
    let operand = |i: usize| operands.get(i).copied().flatten().ok_or_else(|| format!("operand {i} is missing"));
    let integers = |i: usize| operand(i)?.integers().ok_or_else(|| format!("operand {i} is not made of integers"));
    // Since opset 13 the axes are an operand.
    let axes = || match operands.get(1).copied().flatten() {
        Some(axes) => axes.integers().map(<[i64]>::to_vec),
        None => attributes.ints("axes").map(<[i64]>::to_vec),
    };
    Ok(Some(match op {
        "Identity" | "Dropout" => operand(0)?.clone(),
        "Cast" => {
            let x = operand(0)?;
            budget.take(x.len())?;
            let data = match attributes.int("to", 1) {
                1 | 10 | 11 | 16 => Data::Real(x.real()),
                9 => Data::Whole(x.real().into_iter().map(|v| i64::from(v != 0.0)).collect()),
                _ => Data::Whole(match &x.data {
                    Data::Whole(v) => v.clone(),
                    Data::Real(v) => v.iter().map(|v| *v as i64).collect(),
                }),
            };
            Constant { dims: x.dims.clone(), data }
        }
        "Shape" => Constant::whole(operand(0)?.dims.iter().map(|d| *d as i64).collect()),
        "Size" => Constant { dims: Vec::new(), data: Data::Whole(vec![operand(0)?.len() as i64]) },
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Min" | "Max" | "Pow" | "Equal" | "Less" | "Greater" => {
            elementwise(op, operand(0)?, operand(1)?, budget)?
        }
        "Neg" | "Abs" | "Sqrt" | "Exp" | "Floor" | "Ceil" | "Reciprocal" => {
            let x = operand(0)?;
            budget.take(x.len())?;
            match (op, &x.data) {
                ("Neg" | "Abs", Data::Whole(v)) => {
                    let f = |v: &i64| if op == "Neg" { v.wrapping_neg() } else { v.wrapping_abs() };
                    Constant { dims: x.dims.clone(), data: Data::Whole(v.iter().map(f).collect()) }
                }
                ("Neg", _) => unary(x, |v| -v),
                ("Abs", _) => unary(x, f64::abs),
                ("Sqrt", _) => unary(x, f64::sqrt),
                ("Exp", _) => unary(x, f64::exp),
                ("Floor", _) => unary(x, f64::floor),
                ("Ceil", _) => unary(x, f64::ceil),
                _ => unary(x, |v| 1.0 / v),
            }
        }
        "Where" => {
            let dims = common(&common(&operand(0)?.dims, &operand(1)?.dims)?, &operand(2)?.dims)?;
            let [which, a, b] = [operand(0)?, operand(1)?, operand(2)?];
            let (which, a, b) = (which.broadcast(&dims, budget)?, a.broadcast(&dims, budget)?, b.broadcast(&dims, budget)?);
            let which = which.real();
            let data = match (&a.data, &b.data) {
                (Data::Whole(a), Data::Whole(b)) => {
                    Data::Whole(which.iter().zip(a.iter().zip(b)).map(|(w, (a, b))| if *w != 0.0 { *a } else { *b }).collect())
                }
                _ => {
                    let (a, b) = (a.real(), b.real());
                    Data::Real(which.iter().zip(a.iter().zip(&b)).map(|(w, (a, b))| if *w != 0.0 { *a } else { *b }).collect())
                }
            };
            Constant { dims, data }
        }
        "Concat" => {
            let first = operand(0)?;
            let axis = axis(attributes.int("axis", 0), first.dims.len())?;
            let parts: Vec<&Constant> = (0..operands.len()).map(operand).collect::<Result<_, _>>()?;
            budget.take(parts.iter().map(|p| p.len()).sum())?;
            concatenate(&parts, axis)?
        }
        "Gather" => {
            let (x, indices) = (operand(0)?, integers(1)?);
            let axis = axis(attributes.int("axis", 0), x.dims.len())?;
            let extent = x.dims[axis];
            let picks = indices.iter().map(|i| {
                let at = if *i < 0 { i.checked_add(extent as i64) } else { Some(*i) };
                let at = at.and_then(|i| usize::try_from(i).ok()).filter(|i| *i < extent);
                at.map(Some).ok_or_else(|| format!("there is no index {i} of {extent}"))
            });
            let picked = x.along(axis, &picks.collect::<Result<Vec<_>, _>>()?, budget)?;
            let dims = [&x.dims[..axis], &operand(1)?.dims, &x.dims[axis + 1..]].concat();
            picked.reshaped(dims)?
        }
        "Slice" => {
            let mut x = operand(0)?.clone();
            let (starts, ends) = (integers(1)?, integers(2)?);
            let given = |i: usize| operands.get(i).copied().flatten().and_then(Constant::integers);
            for (k, (start, end)) in starts.iter().zip(ends).enumerate() {
                let at = given(3).map_or(Some(k as i64), |axes| axes.get(k).copied()).ok_or("an axis is missing")?;
                let step = given(4).map_or(Some(1), |steps| steps.get(k).copied()).ok_or("a step is missing")?;
                let at = axis(at, x.dims.len())?;
                x = x.along(at, &slice(x.dims[at], *start, *end, step)?, budget)?;
            }
            x
        }
        "Reshape" => {
            let x = operand(0)?;
            x.reshaped(reshape(&x.dims, integers(1)?, attributes.int("allowzero", 0) != 0)?)?
        }
        "Squeeze" => operand(0)?.reshaped(squeeze(&operand(0)?.dims, axes().as_deref())?)?,
        "Unsqueeze" => operand(0)?.reshaped(unsqueeze(&operand(0)?.dims, &axes().ok_or("it has no axes")?)?)?,
        "Transpose" => {
            let x = operand(0)?;
            let permutation = match attributes.ints("perm") {
                Some(p) => p.iter().map(|a| axis(*a, x.dims.len())).collect::<Result<Vec<_>, _>>()?,
                None => (0..x.dims.len()).rev().collect(),
            };
            x.transposed(&permutation, budget)?
        }
        "Expand" => {
            let wanted: Option<Vec<usize>> = integers(1)?.iter().map(|d| usize::try_from(*d).ok()).collect();
            let x = operand(0)?;
            x.broadcast(&common(&x.dims, &wanted.ok_or("a negative extent")?)?, budget)?
        }
        "ConstantOfShape" => {
            let dims: Option<Vec<usize>> = integers(0)?.iter().map(|d| usize::try_from(*d).ok()).collect();
            let dims = dims.filter(|d| d.len() <= MAX_RANK).ok_or("it asks for an impossible shape")?;
            let size = product(&dims).ok_or("it asks for an impossible shape")?;
            budget.take(size)?;
            let value = attributes.tensor("value").map(Constant::decode).transpose().map_err(|e| e.to_string())?;
            let data = match value.map(|v| v.data) {
                Some(Data::Whole(v)) => Data::Whole(vec![v.first().copied().unwrap_or(0); size]),
                Some(Data::Real(v)) => Data::Real(vec![v.first().copied().unwrap_or(0.0); size]),
                None => Data::Real(vec![0.0; size]),
            };
            Constant { dims, data }
        }
        "Range" => {
            let one = |i: usize| integers(i)?.first().copied().ok_or_else(|| format!("operand {i} is empty"));
            let (start, end, step) = (one(0)?, one(1)?, one(2)?);
            let count = if step == 0 { 0 } else { (i128::from(end) - i128::from(start)).div_euclid(i128::from(step)).max(0) + 1 };
            budget.take(usize::try_from(count).unwrap_or(usize::MAX))?;
            let before = |v: &i64| if step > 0 { *v < end } else { *v > end };
            Constant::whole(
                std::iter::successors(Some(start), |v| v.checked_add(step)).take(count as usize).take_while(before).collect(),
            )
        }
        "ReduceProd" => {
            let product = integers(0)?.iter().try_fold(1i64, |n, v| n.checked_mul(*v)).ok_or("the product overflows")?;
            let dims = if attributes.int("keepdims", 1) != 0 { vec![1; operand(0)?.dims.len()] } else { Vec::new() };
            if axes().is_some_and(|a| a.len() != operand(0).map_or(0, |x| x.dims.len())) {
                return Ok(None);
            }
            Constant { dims, data: Data::Whole(vec![product]) }
        }
        _ => return Ok(None),
    }))
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
    let whole = parts.iter().all(|p| p.integers().is_some());
    let chunk = |part: &Constant, o: usize| {
        let n = part.len() / outer.max(1);
        o * n..(o + 1) * n
    };
    let data = if whole {
        let values = (0..outer).flat_map(|o| parts.iter().flat_map(move |p| p.integers().unwrap_or(&[])[chunk(p, o)].to_vec()));
        Data::Whole(values.collect())
    } else {
        let parts: Vec<(&Constant, Vec<f64>)> = parts.iter().map(|p| (*p, p.real())).collect();
        Data::Real((0..outer).flat_map(|o| parts.iter().flat_map(move |(p, v)| v[chunk(p, o)].to_vec())).collect())
    };
    Ok(Constant { dims, data })
}

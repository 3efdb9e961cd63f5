//! Functions of the elements of constants, with operands repeated to each other's shape. Floating-point results are computed in
//! f64 and rounded to f32 where the operands are: for sums, products, quotients and roots that is what f32 arithmetic gives.

use super::attributes::Attributes;
use super::constant::{Budget, Constant, Data, Reason, common, narrowed, positions, product, repeating};
use super::op::Op;
use crate::nn::model::ActivationFunction;

/// The flat indices of a tensor of shape `from` that is repeated to the shape `to`.
fn indices(from: &[usize], to: &[usize]) -> Result<impl Iterator<Item = usize> + use<>, Reason> {
    Ok(positions(to, repeating(from, to)?))
}

/// Whether a floating-point result of these operands is f32.
fn single(operands: &[&Constant]) -> bool {
    !operands.iter().any(|c| matches!(c.data, Data::Real(_)))
}

/// A function of two operands; none if it is not one of those known.
pub(super) fn binary(
    op: Op,
    a: &Constant,
    b: &Constant,
    attributes: &Attributes<'_>,
    budget: &mut Budget,
) -> Result<Option<Constant>, Reason> {
    let dims = common(&a.dims, &b.dims)?;
    budget.take(product(&dims).ok_or("a shape overflows")?)?;
    let pairs = indices(&a.dims, &dims)?.zip(indices(&b.dims, &dims)?);
    let truth = |f: fn(f64, f64) -> bool| {
        let pairs = indices(&a.dims, &dims)?.zip(indices(&b.dims, &dims)?);
        let data = match (&a.data, &b.data) {
            // 64 bits of an integer do not fit a floating-point number.
            (Data::Whole(x), Data::Whole(y)) => pairs.map(|(i, j)| f((x[i].cmp(&y[j]) as i8).into(), 0.0).into()).collect(),
            _ => pairs.map(|(i, j)| f(a.at(i), b.at(j)).into()).collect(),
        };
        Ok(Some(Constant { dims: dims.clone(), data: Data::Whole(data) }))
    };
    let bit = |f: fn(bool, bool) -> bool| {
        let pairs = indices(&a.dims, &dims)?.zip(indices(&b.dims, &dims)?);
        let data = pairs.map(|(i, j)| f(a.at(i) != 0.0, b.at(j) != 0.0).into()).collect();
        Ok(Some(Constant { dims: dims.clone(), data: Data::Whole(data) }))
    };
    match op {
        Op::Equal => return truth(|x, y| x == y),
        Op::Less => return truth(|x, y| x < y),
        Op::LessOrEqual => return truth(|x, y| x <= y),
        Op::Greater => return truth(|x, y| x > y),
        Op::GreaterOrEqual => return truth(|x, y| x >= y),
        Op::And => return bit(|x, y| x & y),
        Op::Or => return bit(|x, y| x | y),
        Op::Xor => return bit(|x, y| x ^ y),
        _ => {}
    }
    // The remainder has the sign of the divisor, or of the dividend with this attribute.
    let truncated = attributes.int("fmod", 0) != 0;
    if let (Data::Whole(x), Data::Whole(y)) = (&a.data, &b.data) {
        // None where the result is no integer.
        let f: fn(i64, i64) -> Option<i64> = match op {
            Op::Add => |x, y| Some(x.wrapping_add(y)),
            Op::Sub => |x, y| Some(x.wrapping_sub(y)),
            Op::Mul => |x, y| Some(x.wrapping_mul(y)),
            Op::Div => |x, y| (y != 0).then(|| x.wrapping_div(y)),
            Op::Mod if truncated => |x, y| (y != 0).then(|| x.wrapping_rem(y)),
            Op::Mod => |x, y| (y != 0).then(|| x.wrapping_rem(y)).map(|r| if r != 0 && (r < 0) != (y < 0) { r + y } else { r }),
            Op::Min => |x, y| Some(x.min(y)),
            Op::Max => |x, y| Some(x.max(y)),
            Op::Pow => |x, y| u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
            _ => return Ok(None),
        };
        let value = |(i, j): (usize, usize)| f(x[i], y[j]).ok_or_else(|| format!("{op} of {} and {} is no integer", x[i], y[j]));
        let data = Data::Whole(pairs.map(value).collect::<Result<_, _>>()?);
        return Ok(Some(Constant { dims, data }));
    }
    let f: fn(f64, f64) -> f64 = match op {
        Op::Add => |x, y| x + y,
        Op::Sub => |x, y| x - y,
        Op::Mul => |x, y| x * y,
        Op::Div => |x, y| x / y,
        Op::Mod => |x, y| x % y,
        Op::Min => f64::min,
        Op::Max => f64::max,
        Op::Pow => f64::powf,
        Op::PRelu => |x, y| if x < 0.0 { x * y } else { x },
        _ => return Ok(None),
    };
    let values = pairs.map(|(i, j)| f(a.at(i), b.at(j)));
    // A power has the type of its base.
    Ok(Some(match &a.data {
        Data::Whole(_) if op == Op::Pow => Constant { data: Data::Whole(values.map(|v| v as i64).collect()), dims },
        _ => Constant::floating(dims.clone(), values, single(&[a, b])),
    }))
}

/// A function of one operand; none if it is not one of those known.
pub(super) fn unary(op: Op, x: &Constant, a: &Attributes<'_>, budget: &mut Budget) -> Result<Option<Constant>, Reason> {
    use ActivationFunction::*;
    budget.take(x.len())?;
    if let Data::Whole(v) = &x.data {
        let f: fn(i64) -> i64 = match op {
            Op::Neg => i64::wrapping_neg,
            Op::Abs => i64::wrapping_abs,
            Op::Sign => i64::signum,
            Op::Relu => |v| v.max(0),
            Op::Not => |v| i64::from(v == 0),
            _ => return Ok(None),
        };
        let data = Data::Whole(v.iter().map(|v| f(*v)).collect());
        return Ok(Some(Constant { dims: x.dims.clone(), data }));
    }
    let of =
        |f: &dyn Fn(f64) -> f64| Ok(Some(Constant::floating(x.dims.clone(), (0..x.len()).map(|i| f(x.at(i))), x.is_single())));
    let function = match op {
        Op::Neg => return of(&|v| -v),
        Op::Abs => return of(&f64::abs),
        Op::Sign => return of(&|v| if v == 0.0 { 0.0 } else { v.signum() }),
        Op::Sqrt => return of(&f64::sqrt),
        Op::Exp => return of(&f64::exp),
        Op::Log => return of(&f64::ln),
        Op::Sin => return of(&f64::sin),
        Op::Cos => return of(&f64::cos),
        Op::Floor => return of(&f64::floor),
        Op::Ceil => return of(&f64::ceil),
        Op::Round => return of(&f64::round_ties_even),
        Op::Reciprocal => return of(&|v| 1.0 / v),
        Op::IsNaN => {
            let data = Data::Whole((0..x.len()).map(|i| x.at(i).is_nan().into()).collect());
            return Ok(Some(Constant { dims: x.dims.clone(), data }));
        }
        Op::Relu => Relu,
        Op::LeakyRelu => LeakyRelu { alpha: a.float("alpha", 0.01) },
        Op::Elu => Elu { alpha: a.float("alpha", 1.0) },
        Op::Sigmoid => Sigmoid,
        Op::HardSigmoid => HardSigmoid { alpha: a.float("alpha", 0.2), beta: a.float("beta", 0.5) },
        Op::HardSwish => HardSwish,
        Op::Tanh => Tanh,
        Op::Softplus => Softplus,
        Op::Softsign => Softsign,
        Op::Erf => Erf,
        _ => return Ok(None),
    };
    of(&|v| function.value(v))
}

/// x between the bounds that are given.
pub(super) fn clip(
    x: &Constant,
    least: Option<&Constant>,
    most: Option<&Constant>,
    budget: &mut Budget,
) -> Result<Constant, Reason> {
    budget.take(x.len())?;
    if [least, most].into_iter().flatten().any(|bound| bound.len() != 1) {
        return Err("its bounds are not one number each".into());
    }
    if let Data::Whole(v) = &x.data {
        let bound = |c: Option<&Constant>, otherwise| c.and_then(|c| c.integers()?.first().copied()).unwrap_or(otherwise);
        let (least, most) = (bound(least, i64::MIN), bound(most, i64::MAX));
        return Ok(Constant { dims: x.dims.clone(), data: Data::Whole(v.iter().map(|v| most.min(least.max(*v))).collect()) });
    }
    let (least, most) = (least.map_or(f64::NEG_INFINITY, |c| c.at(0)), most.map_or(f64::INFINITY, |c| c.at(0)));
    let value = |i: usize| match x.at(i) {
        v if v.is_nan() => v,
        v => most.min(least.max(v)),
    };
    Ok(Constant::floating(x.dims.clone(), (0..x.len()).map(value), x.is_single()))
}

/// Elements of `a` where `which` is true, else of `b`.
pub(super) fn choose(which: &Constant, a: &Constant, b: &Constant, budget: &mut Budget) -> Result<Constant, Reason> {
    let dims = common(&common(&which.dims, &a.dims)?, &b.dims)?;
    budget.take(product(&dims).ok_or("a shape overflows")?)?;
    let three = indices(&which.dims, &dims)?.zip(indices(&a.dims, &dims)?.zip(indices(&b.dims, &dims)?));
    Ok(match (&a.data, &b.data) {
        (Data::Whole(x), Data::Whole(y)) => {
            let data = Data::Whole(three.map(|(w, (i, j))| if which.at(w) != 0.0 { x[i] } else { y[j] }).collect());
            Constant { dims, data }
        }
        _ => {
            let values = three.map(|(w, (i, j))| if which.at(w) != 0.0 { a.at(i) } else { b.at(j) });
            Constant::floating(dims.clone(), values, single(&[a, b]))
        }
    })
}

/// The same values as another number type, by its number in ONNX; none if it is not read.
pub(super) fn cast(x: &Constant, to: i64, budget: &mut Budget) -> Result<Option<Constant>, Reason> {
    budget.take(x.len())?;
    let values = (0..x.len()).map(|i| x.at(i));
    let kind = match to {
        1 | 10 | 16 => return Ok(Some(Constant::floating(x.dims.clone(), values, true))),
        11 => return Ok(Some(Constant::floating(x.dims.clone(), values, false))),
        9 => {
            let data = Data::Whole(values.map(|v| i64::from(v != 0.0)).collect());
            return Ok(Some(Constant { dims: x.dims.clone(), data }));
        }
        2..=7 | 12 | 13 => to as i32,
        _ => return Ok(None),
    };
    let data = match &x.data {
        Data::Whole(v) => v.iter().map(|v| narrowed(*v, kind)).collect(),
        _ => values.map(|v| narrowed(v as i64, kind)).collect(),
    };
    Ok(Some(Constant { dims: x.dims.clone(), data: Data::Whole(data) }))
}

//! Constants between integers and real numbers: `real = (integer - zero) scale`, for a whole tensor, along an axis, or in blocks
//! along it.

use super::attributes::Attributes;
use super::constant::{Budget, Constant, Data, Reason, axis};

/// For each element, which scale it has.
struct Scales {
    /// Elements behind the axis, and in a block along it.
    inner: usize,
    block: usize,
    extent: usize,
    /// Scales along the axis, and whether they are repeated for every other coordinate.
    along: usize,
    blocked: bool,
}

impl Scales {
    fn new(x: &Constant, scale: &Constant, a: &Attributes<'_>) -> Result<Self, Reason> {
        if scale.len() == 1 && scale.dims.len() <= 1 {
            return Ok(Self { inner: 1, block: 1, extent: 1, along: 1, blocked: false });
        }
        let at = axis(a.int("axis", 1), x.dims.len())?;
        let (inner, extent) = (x.dims[at + 1..].iter().product(), x.dims[at]);
        if scale.dims == [extent] {
            return Ok(Self { inner, block: 1, extent, along: extent, blocked: false });
        }
        let wrong = || format!("scales of shape {:?} do not fit a tensor of shape {:?} along axis {at}", scale.dims, x.dims);
        let along = *scale.dims.get(at).ok_or_else(wrong)?;
        let block = usize::try_from(a.int("block_size", 0)).ok().filter(|b| *b > 0).unwrap_or(extent.div_ceil(along.max(1)));
        let mut dims = x.dims.clone();
        dims[at] = extent.div_ceil(block.max(1));
        if dims != scale.dims {
            return Err(wrong());
        }
        Ok(Self { inner, block, extent, along, blocked: true })
    }

    fn of(&self, i: usize) -> usize {
        let (outer, at, inner) = (i / self.inner / self.extent, i / self.inner % self.extent, i % self.inner);
        if self.blocked { (outer * self.along + at / self.block) * self.inner + inner } else { at }
    }
}

fn operand<'c>(operands: &[Option<&'c Constant>], i: usize) -> Result<&'c Constant, Reason> {
    operands.get(i).copied().flatten().ok_or_else(|| format!("operand {i} is missing"))
}

/// The zero of each scale; 0 if none is given.
fn zeros(operands: &[Option<&Constant>], scale: &Constant) -> Result<Vec<i64>, Reason> {
    match operands.get(2).copied().flatten() {
        None => Ok(vec![0; scale.len()]),
        Some(zero) if zero.len() == scale.len() => Ok(zero.integers().ok_or("its zero points are no integers")?.to_vec()),
        Some(zero) => Err(format!("{} zero points for {} scales", zero.len(), scale.len())),
    }
}

pub(super) fn dequantise(operands: &[Option<&Constant>], a: &Attributes<'_>, budget: &mut Budget) -> Result<Constant, Reason> {
    let (x, scale) = (operand(operands, 0)?, operand(operands, 1)?);
    let integers = x.integers().ok_or("it is not made of integers")?;
    budget.take(x.len())?;
    let (scales, zeros) = (Scales::new(x, scale, a)?, zeros(operands, scale)?);
    let value = |(i, v): (usize, &i64)| {
        let at = scales.of(i);
        // The difference is rounded too, which matters for integers of 32 bits.
        f64::from(v.saturating_sub(zeros[at]) as f32) * scale.at(at)
    };
    Ok(Constant::floating(x.dims.clone(), integers.iter().enumerate().map(value), !matches!(scale.data, Data::Real(_))))
}

/// `kind`: the number type of the result, as ONNX counts them; 8 bits without sign if it is not said.
pub(super) fn quantise(
    operands: &[Option<&Constant>],
    kind: Option<i32>,
    a: &Attributes<'_>,
    budget: &mut Budget,
) -> Result<Option<Constant>, Reason> {
    let (x, scale) = (operand(operands, 0)?, operand(operands, 1)?);
    budget.take(x.len())?;
    let (least, most): (f64, f64) = match kind.unwrap_or(2) {
        2 => (0.0, 255.0),
        3 => (-128.0, 127.0),
        4 => (0.0, 65535.0),
        5 => (-32768.0, 32767.0),
        21 => (0.0, 15.0),
        22 => (-8.0, 7.0),
        _ => return Ok(None),
    };
    let (scales, zeros) = (Scales::new(x, scale, a)?, zeros(operands, scale)?);
    let value = |i: usize| {
        let at = scales.of(i);
        let quotient = (x.at(i) / scale.at(at)) as f32;
        (f64::from(quotient.round_ties_even()) + zeros[at] as f64).clamp(least, most) as i64
    };
    Ok(Some(Constant { dims: x.dims.clone(), data: Data::Whole((0..x.len()).map(value).collect()) }))
}

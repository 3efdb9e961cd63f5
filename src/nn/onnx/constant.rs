//! Tensors that are known when a file is read.

use super::OnnxError;
use super::schema::TensorProto;
use crate::nn::model::{MAX_ELEMENTS, half_to_f64};

/// Most elements of all tensors that folding makes.
const MAX_FOLDED: usize = 1 << 24;
/// Most dimensions of a tensor.
pub(super) const MAX_RANK: usize = 8;

/// A tensor of numbers, row-major.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constant {
    pub dims: Vec<usize>,
    pub data: Data,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    /// Any floating-point type.
    Real(Vec<f64>),
    /// Any integer type, and truth values.
    Whole(Vec<i64>),
}

/// Why an operator was not folded: what the file has wrong.
pub(super) type Reason = String;

impl Constant {
    pub fn whole(values: Vec<i64>) -> Self {
        Self { dims: vec![values.len()], data: Data::Whole(values) }
    }

    pub fn len(&self) -> usize {
        match &self.data {
            Data::Real(v) => v.len(),
            Data::Whole(v) => v.len(),
        }
    }

    pub fn real(&self) -> Vec<f64> {
        match &self.data {
            Data::Real(v) => v.clone(),
            Data::Whole(v) => v.iter().map(|v| *v as f64).collect(),
        }
    }

    /// The values as integers, if they are.
    pub fn integers(&self) -> Option<&[i64]> {
        match &self.data {
            Data::Whole(v) => Some(v),
            Data::Real(_) => None,
        }
    }

    /// The one value, if all are equal.
    pub fn uniform(&self) -> Option<f64> {
        let same = |v: &[f64]| v.first().copied().filter(|first| v.iter().all(|x| x == first));
        match &self.data {
            Data::Real(v) => same(v),
            Data::Whole(v) => v.first().filter(|first| v.iter().all(|x| x == *first)).map(|v| *v as f64),
        }
    }

    /// A tensor of a file.
    pub fn decode(tensor: &TensorProto) -> Result<Self, OnnxError> {
        let bad = |reason: String| OnnxError::Tensor { tensor: tensor.name.clone(), reason };
        if tensor.data_location == 1 {
            return Err(OnnxError::ExternalData { tensor: tensor.name.clone() });
        }
        let dims: Option<Vec<usize>> = tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
        let dims = dims.filter(|d| d.len() <= MAX_RANK).ok_or_else(|| bad(format!("its shape is {:?}", tensor.dims)))?;
        let size = product(&dims).filter(|n| *n <= MAX_ELEMENTS);
        let size = size.ok_or_else(|| bad(format!("its shape {dims:?} has more than {MAX_ELEMENTS} elements")))?;
        let raw = tensor.raw_data.as_deref();
        let width = match tensor.data_type {
            7 | 11 => 8,
            1 | 6 => 4,
            10 | 16 | 4 | 5 => 2,
            2 | 3 | 9 => 1,
            other => return Err(bad(format!("its number type {other} is not read; F64, F32, F16, BF16 and integers are"))),
        };
        if let Some(raw) = raw
            && raw.len() != size * width
        {
            return Err(bad(format!("it has {} bytes, its shape {dims:?} takes {}", raw.len(), size * width)));
        }
        let data = match (tensor.data_type, raw) {
            (1, Some(raw)) => Data::Real(each(raw, |b| f32::from_le_bytes(b).into())),
            (1, None) => Data::Real(tensor.float_data.iter().map(|v| f64::from(*v)).collect()),
            (11, Some(raw)) => Data::Real(each(raw, f64::from_le_bytes)),
            (11, None) => Data::Real(tensor.double_data.clone()),
            (10, Some(raw)) => Data::Real(each(raw, |b| half_to_f64(u16::from_le_bytes(b)))),
            (10, None) => Data::Real(tensor.int32_data.iter().map(|v| half_to_f64(*v as u16)).collect()),
            (16, Some(raw)) => Data::Real(each(raw, |b| bfloat(u16::from_le_bytes(b)))),
            (16, None) => Data::Real(tensor.int32_data.iter().map(|v| bfloat(*v as u16)).collect()),
            (7, Some(raw)) => Data::Whole(each(raw, i64::from_le_bytes)),
            (7, None) => Data::Whole(tensor.int64_data.clone()),
            (6, Some(raw)) => Data::Whole(each(raw, |b| i32::from_le_bytes(b).into())),
            (4, Some(raw)) => Data::Whole(each(raw, |b| u16::from_le_bytes(b).into())),
            (5, Some(raw)) => Data::Whole(each(raw, |b| i16::from_le_bytes(b).into())),
            (3, Some(raw)) => Data::Whole(each(raw, |b| i8::from_le_bytes(b).into())),
            (_, Some(raw)) => Data::Whole(raw.iter().map(|b| i64::from(*b)).collect()),
            (_, None) => Data::Whole(tensor.int32_data.iter().map(|v| i64::from(*v)).collect()),
        };
        let constant = Self { dims, data };
        if constant.len() != size {
            return Err(bad(format!("it has {} values, its shape {:?} takes {size}", constant.len(), constant.dims)));
        }
        Ok(constant)
    }

    /// The same values in another shape.
    pub fn reshaped(&self, dims: Vec<usize>) -> Result<Self, Reason> {
        if product(&dims) != Some(self.len()) || dims.len() > MAX_RANK {
            return Err(format!("{:?} cannot be given the shape {dims:?}", self.dims));
        }
        Ok(Self { dims, data: self.data.clone() })
    }

    /// Elements by flat index, 0 where there is none.
    fn gathered(&self, dims: Vec<usize>, indices: impl Iterator<Item = Option<usize>>) -> Self {
        let data = match &self.data {
            Data::Real(v) => Data::Real(indices.map(|i| i.and_then(|i| v.get(i).copied()).unwrap_or(0.0)).collect()),
            Data::Whole(v) => Data::Whole(indices.map(|i| i.and_then(|i| v.get(i).copied()).unwrap_or(0)).collect()),
        };
        Self { dims, data }
    }

    /// Along one axis, the slices with the given indices.
    pub fn along(&self, axis: usize, picks: &[Option<usize>], budget: &mut Budget) -> Result<Self, Reason> {
        let mut dims = self.dims.clone();
        let extent = std::mem::replace(dims.get_mut(axis).ok_or("there is no such axis")?, picks.len());
        let inner: usize = self.dims[axis + 1..].iter().product();
        let outer: usize = self.dims[..axis].iter().product();
        budget.take(outer.saturating_mul(inner).saturating_mul(picks.len()))?;
        let indices = (0..outer)
            .flat_map(|o| picks.iter().flat_map(move |p| (0..inner).map(move |i| p.map(|p| (o * extent + p) * inner + i))));
        Ok(self.gathered(dims, indices))
    }

    pub fn transposed(&self, permutation: &[usize], budget: &mut Budget) -> Result<Self, Reason> {
        budget.take(self.len())?;
        let rank = self.dims.len();
        let mut seen = vec![false; rank];
        for p in permutation {
            *seen.get_mut(*p).ok_or("there is no such axis")? = true;
        }
        if permutation.len() != rank || seen.contains(&false) {
            return Err(format!("{permutation:?} is no order of {rank} axes"));
        }
        let dims: Vec<usize> = permutation.iter().map(|p| self.dims[*p]).collect();
        let from = strides(&self.dims);
        let steps: Vec<usize> = permutation.iter().map(|p| from[*p]).collect();
        Ok(self.gathered(dims.clone(), positions(&dims, &steps).map(Some)))
    }

    /// Repeated along extents of 1 and new leading axes.
    pub fn broadcast(&self, dims: &[usize], budget: &mut Budget) -> Result<Self, Reason> {
        if self.dims == dims {
            return Ok(self.clone());
        }
        let wrong = || format!("{:?} cannot be repeated to {dims:?}", self.dims);
        let lead = dims.len().checked_sub(self.dims.len()).ok_or_else(wrong)?;
        budget.take(product(dims).ok_or_else(wrong)?)?;
        let own = strides(&self.dims);
        let mut steps = vec![0; lead];
        for ((have, want), step) in self.dims.iter().zip(&dims[lead..]).zip(own) {
            steps.push(match (have, want) {
                (have, want) if have == want => step,
                (1, _) => 0,
                _ => return Err(wrong()),
            });
        }
        Ok(self.gathered(dims.to_vec(), positions(dims, &steps).map(Some)))
    }
}

/// How much folding may still make.
pub(super) struct Budget(usize);

impl Budget {
    pub fn new() -> Self {
        Self(MAX_FOLDED)
    }

    pub fn take(&mut self, elements: usize) -> Result<(), Reason> {
        self.0 = self.0.checked_sub(elements).ok_or_else(|| format!("constants take more than {MAX_FOLDED} elements"))?;
        Ok(())
    }
}

fn each<T, const N: usize>(bytes: &[u8], to: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|b| to(*b)).collect()
}

fn bfloat(bits: u16) -> f64 {
    f32::from_bits(u32::from(bits) << 16).into()
}

/// The number of elements of a shape, none if it overflows.
pub(super) fn product(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
}

fn strides(dims: &[usize]) -> Vec<usize> {
    (0..dims.len()).map(|i| dims[i + 1..].iter().product()).collect()
}

/// The flat positions of all coordinates of `dims`, in order, with a distance for each axis.
fn positions<'d>(dims: &'d [usize], steps: &'d [usize]) -> impl Iterator<Item = usize> + 'd {
    let own = strides(dims);
    (0..dims.iter().product())
        .map(move |flat: usize| own.iter().zip(dims).zip(steps).map(|((own, extent), step)| flat / own % extent * step).sum())
}

/// The shape that two are repeated to.
pub(super) fn common(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Reason> {
    let rank = a.len().max(b.len());
    let extent = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    let join = |i| match (extent(a, i), extent(b, i)) {
        (x, y) if x == y => Ok(x),
        (1, x) | (x, 1) => Ok(x),
        _ => Err(format!("{a:?} and {b:?} do not fit each other")),
    };
    (0..rank).map(join).collect()
}

/// An axis counted from the end if negative.
pub(super) fn axis(at: i64, rank: usize) -> Result<usize, Reason> {
    let counted = if at < 0 { at.checked_add(rank as i64) } else { Some(at) };
    let counted = counted.and_then(|a| usize::try_from(a).ok()).filter(|a| *a < rank);
    counted.ok_or_else(|| format!("there is no axis {at} of {rank}"))
}

/// The indices of a slice along an extent.
pub(super) fn slice(extent: usize, start: i64, end: i64, step: i64) -> Result<Vec<Option<usize>>, Reason> {
    let n = extent as i64;
    let from_end = |at: i64| if at < 0 { at.saturating_add(n) } else { at };
    let mut picks = Vec::new();
    if step > 0 {
        let (mut at, end) = (from_end(start).clamp(0, n), from_end(end).clamp(0, n));
        while at < end {
            picks.push(Some(at as usize));
            at = at.saturating_add(step);
        }
    } else if step < 0 {
        let (mut at, end) = (from_end(start).clamp(-1, n - 1), from_end(end).clamp(-1, n - 1));
        while at > end {
            picks.push(Some(at as usize));
            at = at.saturating_add(step);
        }
    } else {
        return Err("a slice has step 0".into());
    }
    Ok(picks)
}

/// The shape that Reshape asks for.
pub(super) fn reshape(from: &[usize], wanted: &[i64], allow_zero: bool) -> Result<Vec<usize>, Reason> {
    let impossible = || format!("{from:?} cannot be given the shape {wanted:?}");
    if wanted.len() > MAX_RANK {
        return Err(impossible());
    }
    let mut dims = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (i, &w) in wanted.iter().enumerate() {
        dims.push(match w {
            0 if !allow_zero => *from.get(i).ok_or_else(impossible)?,
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            w => usize::try_from(w).map_err(|_| impossible())?,
        });
    }
    let (have, known) = (product(from).ok_or_else(impossible)?, product(&dims).ok_or_else(impossible)?);
    if let Some(open) = open {
        if known == 0 || have % known != 0 {
            return Err(impossible());
        }
        dims[open] = have / known;
    }
    if product(&dims) != Some(have) { Err(impossible()) } else { Ok(dims) }
}

/// The shape after Squeeze: without the given axes, or without all of extent 1.
pub(super) fn squeeze(from: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>, Reason> {
    let gone: Vec<usize> = match axes {
        Some(axes) => axes.iter().map(|a| axis(*a, from.len())).collect::<Result<_, _>>()?,
        None => (0..from.len()).filter(|a| from[*a] == 1).collect(),
    };
    if let Some(a) = gone.iter().find(|a| from[**a] != 1) {
        return Err(format!("axis {a} of {from:?} is not 1 and cannot go"));
    }
    Ok((0..from.len()).filter(|a| !gone.contains(a)).map(|a| from[a]).collect())
}

/// The shape after Unsqueeze: with 1 at the given axes of the result.
pub(super) fn unsqueeze(from: &[usize], axes: &[i64]) -> Result<Vec<usize>, Reason> {
    let rank = from.len() + axes.len();
    if rank > MAX_RANK {
        return Err(format!("{rank} axes are too many"));
    }
    let new: Vec<usize> = axes.iter().map(|a| axis(*a, rank)).collect::<Result<_, _>>()?;
    let mut old = from.iter();
    (0..rank).map(|a| if new.contains(&a) { Ok(1) } else { old.next().copied().ok_or_else(|| "an axis twice".into()) }).collect()
}

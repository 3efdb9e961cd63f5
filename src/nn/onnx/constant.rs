//! Tensors that are known when a file is read.

use super::OnnxError;
use super::external::Folder;
use super::schema::TensorProto;
use crate::nn::model::{MAX_WEIGHTS, NumberType, half_to_f64};
use std::borrow::Cow;

/// Elements that folding may make in any file, and how many more for each element of a tensor of the file: a small file
/// makes little, and the weights of a large one may be computed in several steps.
const MAX_FOLDED: (usize, usize) = (1 << 24, 8);
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
    /// f32 and the narrower floating-point types. What is computed from it is rounded to f32, as by other programs.
    Single(Vec<f32>),
    /// f64.
    Real(Vec<f64>),
    /// Any integer type, and truth values.
    Whole(Vec<i64>),
}

/// Why an operator was not folded: what the file has wrong.
pub(super) type Reason = String;

impl Constant {
    pub(super) fn whole(values: Vec<i64>) -> Self {
        Self { dims: vec![values.len()], data: Data::Whole(values) }
    }

    /// Floating-point values, rounded to f32 if `single`.
    pub(super) fn floating(dims: Vec<usize>, values: impl Iterator<Item = f64>, single: bool) -> Self {
        let data = if single { Data::Single(values.map(|v| v as f32).collect()) } else { Data::Real(values.collect()) };
        Self { dims, data }
    }

    pub(super) fn len(&self) -> usize {
        match &self.data {
            Data::Single(v) => v.len(),
            Data::Real(v) => v.len(),
            Data::Whole(v) => v.len(),
        }
    }

    pub(super) fn is_single(&self) -> bool {
        matches!(self.data, Data::Single(_))
    }

    /// One element; 0 where there is none.
    pub(super) fn at(&self, i: usize) -> f64 {
        match &self.data {
            Data::Single(v) => v.get(i).map_or(0.0, |v| f64::from(*v)),
            Data::Real(v) => v.get(i).copied().unwrap_or(0.0),
            Data::Whole(v) => v.get(i).map_or(0.0, |v| *v as f64),
        }
    }

    pub(super) fn real(&self) -> Vec<f64> {
        match &self.data {
            Data::Single(v) => v.iter().map(|v| f64::from(*v)).collect(),
            Data::Real(v) => v.clone(),
            Data::Whole(v) => v.iter().map(|v| *v as f64).collect(),
        }
    }

    /// The values as files have them, and their number type. In the machine's own memory they are so only on little-endian
    /// machines.
    pub(super) fn little_endian(&self) -> (NumberType, Cow<'_, [u8]>) {
        match &self.data {
            Data::Single(v) if cfg!(target_endian = "little") => (NumberType::F32, Cow::Borrowed(bytemuck::cast_slice(v))),
            Data::Single(v) => (NumberType::F32, Cow::Owned(v.iter().flat_map(|v| v.to_le_bytes()).collect())),
            Data::Real(v) if cfg!(target_endian = "little") => (NumberType::F64, Cow::Borrowed(bytemuck::cast_slice(v))),
            _ => (NumberType::F64, Cow::Owned(self.real().iter().flat_map(|v| v.to_le_bytes()).collect())),
        }
    }

    /// The values as integers, if they are.
    pub(super) fn integers(&self) -> Option<&[i64]> {
        match &self.data {
            Data::Whole(v) => Some(v),
            Data::Single(_) | Data::Real(_) => None,
        }
    }

    /// The one value, if all are equal.
    pub(super) fn uniform(&self) -> Option<f64> {
        fn same<T: Copy + PartialEq>(v: &[T]) -> Option<T> {
            v.first().copied().filter(|first| v.iter().all(|x| x == first))
        }
        match &self.data {
            Data::Single(v) => same(v).map(f64::from),
            Data::Real(v) => same(v),
            Data::Whole(v) => same(v).map(|v| v as f64),
        }
    }

    /// A tensor of a file, called `name` there. Values that are in another file are read from the folder.
    pub(super) fn decode(tensor: &TensorProto, name: &str, folder: &Folder<'_>) -> Result<Self, OnnxError> {
        let bad = |reason: String| OnnxError::Tensor { tensor: name.to_owned(), reason };
        let dims: Option<Vec<usize>> = tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
        let dims = dims.filter(|d| d.len() <= MAX_RANK).ok_or_else(|| bad(format!("its shape is {:?}", tensor.dims)))?;
        let size = product(&dims).filter(|n| *n <= MAX_WEIGHTS);
        let size = size.ok_or_else(|| bad(format!("its shape {dims:?} has more than {MAX_WEIGHTS} elements")))?;
        let bits = match tensor.data_type {
            7 | 11 | 13 => 64,
            1 | 6 | 12 => 32,
            10 | 16 | 4 | 5 => 16,
            2 | 3 | 9 => 8,
            21 | 22 => 4,
            other => return Err(bad(format!("its number type {other} is not read; F64, F32, F16, BF16 and integers are"))),
        };
        let bytes = (size * bits).div_ceil(8);
        let raw = match tensor.data_location {
            1 => Some(Cow::Owned(folder.read(name, &tensor.external_data, bytes)?)),
            _ => tensor.raw_data.as_deref().map(Cow::Borrowed),
        };
        if let Some(raw) = &raw
            && raw.len() != bytes
        {
            return Err(bad(format!("it has {} bytes, its shape {dims:?} takes {bytes}", raw.len())));
        }
        let (floats, ints) = (&tensor.float_data, &tensor.int32_data);
        let data = match (tensor.data_type, raw.as_deref()) {
            (1, Some(raw)) => Data::Single(each(raw, f32::from_le_bytes)),
            (1, None) => Data::Single(floats.clone()),
            (11, Some(raw)) => Data::Real(each(raw, f64::from_le_bytes)),
            (11, None) => Data::Real(tensor.double_data.clone()),
            // Every half is an f32.
            (10, Some(raw)) => Data::Single(each(raw, |b| half_to_f64(u16::from_le_bytes(b)) as f32)),
            (10, None) => Data::Single(ints.iter().map(|v| half_to_f64(*v as u16) as f32).collect()),
            (16, Some(raw)) => Data::Single(each(raw, |b| bfloat(u16::from_le_bytes(b)))),
            (16, None) => Data::Single(ints.iter().map(|v| bfloat(*v as u16)).collect()),
            (7, Some(raw)) => Data::Whole(each(raw, i64::from_le_bytes)),
            (7, None) => Data::Whole(tensor.int64_data.clone()),
            (13, Some(raw)) => Data::Whole(each(raw, |b| i64::try_from(u64::from_le_bytes(b)).unwrap_or(i64::MAX))),
            (12, Some(raw)) => Data::Whole(each(raw, |b| u32::from_le_bytes(b).into())),
            (12 | 13, None) => Data::Whole(tensor.uint64_data.iter().map(|v| i64::try_from(*v).unwrap_or(i64::MAX)).collect()),
            (6, Some(raw)) => Data::Whole(each(raw, |b| i32::from_le_bytes(b).into())),
            (4, Some(raw)) => Data::Whole(each(raw, |b| u16::from_le_bytes(b).into())),
            (5, Some(raw)) => Data::Whole(each(raw, |b| i16::from_le_bytes(b).into())),
            (3, Some(raw)) => Data::Whole(each(raw, |b| i8::from_le_bytes(b).into())),
            (kind @ (21 | 22), Some(raw)) => Data::Whole(nibbles(raw.iter().copied(), size, kind == 22)),
            (kind @ (21 | 22), None) => Data::Whole(nibbles(ints.iter().map(|v| *v as u8), size, kind == 22)),
            (_, Some(raw)) => Data::Whole(raw.iter().map(|b| i64::from(*b)).collect()),
            (_, None) => Data::Whole(ints.iter().map(|v| i64::from(*v)).collect()),
        };
        let constant = Self { dims, data };
        if constant.len() != size {
            return Err(bad(format!("it has {} values, its shape {:?} takes {size}", constant.len(), constant.dims)));
        }
        Ok(constant)
    }

    /// The values as a number type holds them, as ONNX counts the types: integers that do not fit keep their lowest bits, and f16 and
    /// bf16 are rounded to.
    pub(super) fn typed(mut self, kind: i32) -> Self {
        match (&mut self.data, kind) {
            (Data::Whole(values), kind) => values.iter_mut().for_each(|v| *v = narrowed(*v, kind)),
            (Data::Single(values), 10) => values.iter_mut().for_each(|v| *v = to_half(*v)),
            (Data::Single(values), 16) => values.iter_mut().for_each(|v| *v = to_bfloat(*v)),
            _ => {}
        }
        self
    }

    /// The same values in another shape.
    pub(super) fn reshaped(&self, dims: Vec<usize>) -> Result<Self, Reason> {
        if product(&dims) != Some(self.len()) || dims.len() > MAX_RANK {
            return Err(format!("{:?} cannot be given the shape {dims:?}", self.dims));
        }
        Ok(Self { dims, data: self.data.clone() })
    }

    /// Elements by flat index, 0 where there is none.
    fn gathered(&self, dims: Vec<usize>, indices: impl Iterator<Item = Option<usize>>) -> Self {
        fn pick<T: Copy + Default>(v: &[T], indices: impl Iterator<Item = Option<usize>>) -> Vec<T> {
            indices.map(|i| i.and_then(|i| v.get(i).copied()).unwrap_or_default()).collect()
        }
        let data = match &self.data {
            Data::Single(v) => Data::Single(pick(v, indices)),
            Data::Real(v) => Data::Real(pick(v, indices)),
            Data::Whole(v) => Data::Whole(pick(v, indices)),
        };
        Self { dims, data }
    }

    /// Along one axis, the slices with the given indices.
    pub(super) fn along(&self, axis: usize, picks: &[Option<usize>], budget: &mut Budget) -> Result<Self, Reason> {
        let mut dims = self.dims.clone();
        let extent = std::mem::replace(dims.get_mut(axis).ok_or("there is no such axis")?, picks.len());
        let inner: usize = self.dims[axis + 1..].iter().product();
        let outer: usize = self.dims[..axis].iter().product();
        product(&dims).ok_or("a shape overflows")?;
        budget.take(outer.saturating_mul(inner).saturating_mul(picks.len()))?;
        let indices = (0..outer)
            .flat_map(|o| picks.iter().flat_map(move |p| (0..inner).map(move |i| p.map(|p| (o * extent + p) * inner + i))));
        Ok(self.gathered(dims, indices))
    }

    pub(super) fn transposed(&self, permutation: &[usize], budget: &mut Budget) -> Result<Self, Reason> {
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
        Ok(self.gathered(dims.clone(), positions(&dims, steps).map(Some)))
    }

    /// Repeated along extents of 1 and new leading axes.
    pub(super) fn broadcast(&self, dims: &[usize], budget: &mut Budget) -> Result<Self, Reason> {
        budget.take(product(dims).ok_or("a shape overflows")?)?;
        if self.dims == dims {
            return Ok(self.clone());
        }
        let steps = repeating(&self.dims, dims)?;
        Ok(self.gathered(dims.to_vec(), positions(dims, steps).map(Some)))
    }
}

/// How much folding may still make, and of how much in all.
pub(super) struct Budget {
    left: usize,
    all: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: MAX_FOLDED.0, all: MAX_FOLDED.0 }
    }

    /// Allows for what is computed from a tensor of the file.
    pub(super) fn grant(&mut self, elements: usize) {
        let more = elements.saturating_mul(MAX_FOLDED.1);
        self.left = self.left.saturating_add(more);
        self.all = self.all.saturating_add(more);
    }

    pub(super) fn take(&mut self, elements: usize) -> Result<(), Reason> {
        let wrong = || format!("constants take more than {} elements: compute them before the export", self.all);
        self.left = self.left.checked_sub(elements).ok_or_else(wrong)?;
        Ok(())
    }
}

fn each<T, const N: usize>(bytes: &[u8], to: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|b| to(*b)).collect()
}

/// An integer with the lowest bits that its type has.
pub(super) fn narrowed(v: i64, kind: i32) -> i64 {
    match kind {
        2 => i64::from(v as u8),
        3 => i64::from(v as i8),
        4 => i64::from(v as u16),
        5 => i64::from(v as i16),
        6 => i64::from(v as i32),
        12 => i64::from(v as u32),
        _ => v,
    }
}

/// The nearest number of f16, the even one of two.
fn to_half(v: f32) -> f32 {
    if !v.is_finite() {
        return v;
    }
    // Numbers of f16 have ten bits behind the first, and the smallest are 2^-24 apart.
    let exponent = ((v.to_bits() >> 23 & 0xff) as i32 - 127).max(-14);
    let step = f64::from(exponent - 10).exp2();
    let rounded = (f64::from(v) / step).round_ties_even() * step;
    if rounded.abs() > 65504.0 { f32::INFINITY.copysign(v) } else { rounded as f32 }
}

/// The nearest number of bf16, the even one of two.
fn to_bfloat(v: f32) -> f32 {
    if v.is_nan() {
        return v;
    }
    let bits = v.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

fn bfloat(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Integers of four bits, two in a byte, the lower first.
fn nibbles(bytes: impl Iterator<Item = u8>, count: usize, signed: bool) -> Vec<i64> {
    let value = |nibble: u8| if signed && nibble > 7 { i64::from(nibble) - 16 } else { i64::from(nibble) };
    bytes.flat_map(|b| [value(b & 15), value(b >> 4)]).take(count).collect()
}

/// The number of elements of a shape, none if it overflows, or would without the axes of no elements: a part of a shape must
/// have a product too.
pub(super) fn product(dims: &[usize]) -> Option<usize> {
    let most = dims.iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1)))?;
    Some(if dims.contains(&0) { 0 } else { most })
}

pub(super) fn strides(dims: &[usize]) -> Vec<usize> {
    (0..dims.len()).map(|i| dims[i + 1..].iter().product()).collect()
}

/// The flat positions of all coordinates of `dims`, in order, with a distance for each axis.
pub(super) fn positions(dims: &[usize], steps: Vec<usize>) -> impl Iterator<Item = usize> + use<> {
    let (dims, mut at) = (dims.to_vec(), vec![0; dims.len()]);
    let mut next = 0;
    (0..dims.iter().product::<usize>()).map(move |_| {
        let here = next;
        for axis in (0..dims.len()).rev() {
            at[axis] += 1;
            next += steps[axis];
            if at[axis] < dims[axis] {
                break;
            }
            next -= at[axis] * steps[axis];
            at[axis] = 0;
        }
        here
    })
}

/// The distance along each axis of `to` in a tensor of shape `from` that is repeated along extents of 1 and new leading axes.
pub(super) fn repeating(from: &[usize], to: &[usize]) -> Result<Vec<usize>, Reason> {
    let wrong = || format!("{from:?} cannot be repeated to {to:?}");
    let lead = to.len().checked_sub(from.len()).ok_or_else(wrong)?;
    let mut steps = vec![0; lead];
    for ((have, want), step) in from.iter().zip(&to[lead..]).zip(strides(from)) {
        steps.push(match (have, want) {
            (have, want) if have == want => step,
            (1, _) => 0,
            _ => return Err(wrong()),
        });
    }
    Ok(steps)
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

/// Axes of a list, each counted as [`axis`] does.
pub(super) fn each_axis(given: &[i64], rank: usize) -> Result<Vec<usize>, Reason> {
    given.iter().map(|at| axis(*at, rank)).collect()
}

/// The axes that an operator names; all if it names none.
pub(super) fn axes_or_all(given: Option<&[i64]>, rank: usize) -> Result<Vec<usize>, Reason> {
    given.map_or_else(|| Ok((0..rank).collect()), |given| each_axis(given, rank))
}

/// The order that a Transpose brings axes into: reversed if it names none.
pub(super) fn order(perm: Option<&[i64]>, rank: usize) -> Result<Vec<usize>, Reason> {
    perm.map_or_else(|| Ok((0..rank).rev().collect()), |perm| each_axis(perm, rank))
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
pub(super) fn squeeze(from: &[usize], given: Option<&[i64]>) -> Result<Vec<usize>, Reason> {
    let gone = match given {
        Some(given) => each_axis(given, from.len())?,
        None => (0..from.len()).filter(|a| from[*a] == 1).collect(),
    };
    if let Some(a) = gone.iter().find(|a| from[**a] != 1) {
        return Err(format!("axis {a} of {from:?} is not 1 and cannot go"));
    }
    Ok((0..from.len()).filter(|a| !gone.contains(a)).map(|a| from[a]).collect())
}

/// The shape after Unsqueeze: with 1 at the given axes of the result.
pub(super) fn unsqueeze(from: &[usize], given: &[i64]) -> Result<Vec<usize>, Reason> {
    let rank = from.len() + given.len();
    if rank > MAX_RANK {
        return Err(format!("{rank} axes are too many"));
    }
    let new = each_axis(given, rank)?;
    let mut old = from.iter();
    (0..rank).map(|a| if new.contains(&a) { Ok(1) } else { old.next().copied().ok_or_else(|| "an axis twice".into()) }).collect()
}

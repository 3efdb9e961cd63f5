//! Shapes of what operators make that are not supported, so that the operators behind them are looked at too.

use super::attributes::Attributes;
use super::constant::{Constant, MAX_RANK, axes_or_all, common, product, reshape, slice, squeeze, unsqueeze};
use super::op::Op;
use super::reduce::reduced;
use std::rc::Rc;

/// What is known of an operand.
pub(super) struct Operand {
    pub dims: Vec<usize>,
    /// Its values, if it does not depend on the picture.
    pub constant: Option<Rc<Constant>>,
}

/// The shape of each result of an operator; none where it is not known.
pub(super) fn shapes(a: &Attributes<'_>, operands: &[Option<Operand>]) -> Vec<Option<Vec<usize>>> {
    let outputs = a.0.output.len();
    if a.0.op() == Op::Split {
        return split(a, operands).unwrap_or_else(|| vec![None; outputs]);
    }
    let first = Node { a, operands }.shape();
    // Values and indices have one shape; other further results are not read by networks for pictures.
    let further = if a.0.op() == Op::TopK { first.clone() } else { None };
    std::iter::once(first).chain(std::iter::repeat_n(further, outputs.saturating_sub(1))).collect()
}

/// An axis counted from the end if negative.
fn axis(at: i64, rank: usize) -> Option<usize> {
    super::constant::axis(at, rank).ok()
}

/// A node and what is known of its operands.
struct Node<'n> {
    a: &'n Attributes<'n>,
    operands: &'n [Option<Operand>],
}

impl<'n> Node<'n> {
    fn dims(&self, i: usize) -> Option<&'n Vec<usize>> {
        self.operands.get(i)?.as_ref().map(|o| &o.dims)
    }

    fn integers(&self, i: usize) -> Option<Vec<i64>> {
        self.operands.get(i)?.as_ref()?.constant.as_ref()?.integers().map(<[i64]>::to_vec)
    }

    /// Integers that are an operand since some opset, and were an attribute before.
    fn list(&self, name: &str, i: usize) -> Option<Vec<i64>> {
        self.integers(i).or_else(|| self.a.ints(name).map(<[i64]>::to_vec))
    }

    /// The axis that an attribute names.
    fn axis(&self, otherwise: i64, rank: usize) -> Option<usize> {
        axis(self.a.int("axis", otherwise), rank)
    }

    fn shape(&self) -> Option<Vec<usize>> {
        let (a, op) = (self.a, self.a.0.op());
        let x = || self.dims(0);
        let dims = match op {
            Op::Conv | Op::ConvInteger => self.conv(1)?,
            Op::QLinearConv => self.conv(3)?,
            Op::ConvTranspose => self.conv_transpose()?,
            Op::MaxPool | Op::AveragePool | Op::LpPool => self.pool()?,
            Op::GlobalAveragePool | Op::GlobalMaxPool | Op::GlobalLpPool => {
                x()?.iter().enumerate().map(|(i, d)| if i < 2 { *d } else { 1 }).collect()
            }
            Op::ArgMax | Op::ArgMin => {
                let at = self.axis(0, x()?.len())?;
                remove(x()?, |i| i == at, a.int("keepdims", 1) != 0)
            }
            Op::Reshape => reshape(x()?, &self.integers(1)?, a.int("allowzero", 0) != 0).ok()?,
            Op::Flatten => self.flatten()?,
            Op::Squeeze => squeeze(x()?, self.list("axes", 1).as_deref()).ok()?,
            Op::Unsqueeze => unsqueeze(x()?, &self.list("axes", 1)?).ok()?,
            Op::Transpose => match a.ints("perm") {
                Some(perm) => perm.iter().map(|p| Some(x()?[axis(*p, x()?.len())?])).collect::<Option<Vec<_>>>()?,
                None => x()?.iter().rev().copied().collect(),
            },
            Op::Slice => self.slice()?,
            Op::Gather => {
                let at = self.axis(0, x()?.len())?;
                [&x()?[..at], self.dims(1)?, &x()?[at + 1..]].concat()
            }
            Op::GatherElements => self.dims(1)?.clone(),
            Op::Pad => self.pad()?,
            Op::Resize | Op::Upsample => resized(a, self.operands)?,
            Op::Concat => self.concat()?,
            Op::Tile => {
                let times = self.integers(1)?;
                x()?.iter().zip(times).map(|(d, t)| d.checked_mul(usize::try_from(t).ok()?)).collect::<Option<Vec<_>>>()?
            }
            Op::Expand => {
                let to = self.integers(1)?.into_iter().map(|d| usize::try_from(d).ok()).collect::<Option<Vec<_>>>()?;
                common(x()?, &to).ok()?
            }
            Op::DepthToSpace | Op::SpaceToDepth => self.blocks(op == Op::DepthToSpace)?,
            Op::GridSample => {
                let ([n, c, ..], [_, size @ .., _]) = (&x()?[..], &self.dims(1)?[..]) else { return None };
                [&[*n, *c], size].concat()
            }
            Op::MatMul | Op::MatMulInteger => {
                let ([la @ .., rows, _], [lb @ .., _, columns]) = (&x()?[..], &self.dims(1)?[..]) else { return None };
                [common(la, lb).ok()?, vec![*rows, *columns]].concat()
            }
            Op::Gemm => {
                let turned = |name: &str| usize::from(a.int(name, 0) != 0);
                vec![*x()?.get(turned("transA"))?, *self.dims(1)?.get(1 - turned("transB"))?]
            }
            Op::Einsum => einsum(a.text("equation"), self.operands)?,
            Op::TopK => {
                let mut shape = x()?.clone();
                let at = self.axis(-1, shape.len())?;
                shape[at] = usize::try_from(*self.integers(1)?.first()?).ok()?;
                shape
            }
            op if op.is_reduction() => self.reduced()?,
            op if op.repeats_operands() => self.broadcast()?,
            op if op.keeps_shape() => x()?.clone(),
            _ => return None,
        };
        Some(dims).filter(|dims| dims.len() <= MAX_RANK)
    }

    /// Of all operands, repeated to each other's shape.
    fn broadcast(&self) -> Option<Vec<usize>> {
        let all: Option<Vec<&Vec<usize>>> = (0..self.operands.len()).map(|i| self.dims(i)).collect();
        all?.into_iter().try_fold(Vec::new(), |shape, dims| common(&shape, dims).ok())
    }

    /// A convolution whose weight is that operand.
    fn conv(&self, weight: usize) -> Option<Vec<usize>> {
        let [outputs, _, kernel @ ..] = &self.dims(weight)?[..] else { return None };
        let x = self.dims(0)?;
        Some([vec![*x.first()?, *outputs], window(self.a, x.get(2..)?, kernel)?].concat())
    }

    fn conv_transpose(&self) -> Option<Vec<usize>> {
        let [_, outputs, kernel @ ..] = &self.dims(1)?[..] else { return None };
        let (x, groups) = (self.dims(0)?, usize::try_from(self.a.int("group", 1)).ok()?);
        Some([vec![*x.first()?, outputs.checked_mul(groups)?], transposed_window(self.a, x.get(2..)?, kernel)?].concat())
    }

    fn pool(&self) -> Option<Vec<usize>> {
        let kernel = self.a.ints("kernel_shape")?.iter().map(|k| usize::try_from(*k).ok()).collect::<Option<Vec<_>>>()?;
        let x = self.dims(0)?;
        Some([x.get(..2)?.to_vec(), window(self.a, x.get(2..)?, &kernel)?].concat())
    }

    fn reduced(&self) -> Option<Vec<usize>> {
        let x = self.dims(0);
        let axes = self.list("axes", 1).unwrap_or_default();
        if axes.is_empty() && self.a.int("noop_with_empty_axes", 0) != 0 {
            return x.cloned();
        }
        let gone = reduced(&axes, x?.len()).ok()?;
        Some(remove(x?, |i| gone[i], self.a.int("keepdims", 1) != 0))
    }

    fn flatten(&self) -> Option<Vec<usize>> {
        let (x, at) = (self.dims(0)?, self.a.int("axis", 1));
        let at = if at == x.len() as i64 { x.len() } else { axis(at, x.len())? };
        Some(vec![product(&x[..at])?, product(&x[at..])?])
    }

    fn slice(&self) -> Option<Vec<usize>> {
        let mut dims = self.dims(0)?.clone();
        let (starts, ends) = (self.integers(1)?, self.integers(2)?);
        for (k, (start, end)) in starts.iter().zip(&ends).enumerate() {
            let at = axis(self.integers(3).map_or(Some(k as i64), |axes| axes.get(k).copied())?, dims.len())?;
            let step = self.integers(4).map_or(Some(1), |steps| steps.get(k).copied())?;
            dims[at] = slice(dims[at], *start, *end, step).ok()?.len();
        }
        Some(dims)
    }

    fn pad(&self) -> Option<Vec<usize>> {
        let pads = self.list("pads", 1)?;
        let mut dims = self.dims(0)?.clone();
        let axes = self.integers(3).unwrap_or_else(|| (0..dims.len() as i64).collect());
        for (k, at) in axes.iter().enumerate() {
            let at = axis(*at, dims.len())?;
            let more = pads.get(k)?.checked_add(*pads.get(k + axes.len())?)?;
            dims[at] = usize::try_from((dims[at] as i64).checked_add(more)?).ok()?;
        }
        Some(dims)
    }

    fn concat(&self) -> Option<Vec<usize>> {
        let mut shape = self.dims(0)?.clone();
        let at = self.axis(1, shape.len())?;
        shape[at] = 0;
        for i in 0..self.operands.len() {
            shape[at] += self.dims(i)?.get(at)?;
        }
        Some(shape)
    }

    /// Channels made blocks of pixels, or the other way round.
    fn blocks(&self, to_space: bool) -> Option<Vec<usize>> {
        let block = usize::try_from(self.a.int("blocksize", 0)).ok().filter(|b| *b > 0)?;
        let [n, c, h, w] = self.dims(0)?[..] else { return None };
        Some(if to_space {
            vec![n, c / block.checked_mul(block)?, h.checked_mul(block)?, w.checked_mul(block)?]
        } else {
            vec![n, c.checked_mul(block)?.checked_mul(block)?, h / block, w / block]
        })
    }
}

/// The extents without some axes, or with 1 in their places.
fn remove(dims: &[usize], gone: impl Fn(usize) -> bool, keep: bool) -> Vec<usize> {
    dims.iter().enumerate().filter(|(i, _)| keep || !gone(*i)).map(|(i, d)| if gone(i) { 1 } else { *d }).collect()
}

/// A number for each axis of a window; `otherwise` where the file says nothing.
fn each(a: &Attributes<'_>, name: &str, count: usize, otherwise: usize) -> Option<Vec<usize>> {
    match a.ints(name) {
        None | Some([]) => Some(vec![otherwise; count]),
        Some(values) if values.len() == count => values.iter().map(|v| usize::try_from(*v).ok()).collect(),
        Some(_) => None,
    }
}

/// Extents after a window moved over them.
fn window(a: &Attributes<'_>, size: &[usize], kernel: &[usize]) -> Option<Vec<usize>> {
    let n = size.len();
    let (strides, dilations, pads) = (each(a, "strides", n, 1)?, each(a, "dilations", n, 1)?, each(a, "pads", 2 * n, 0)?);
    if kernel.len() != n {
        return None;
    }
    let along = |i: usize| {
        let stride = strides[i].max(1);
        let reach = kernel[i].checked_sub(1)?.checked_mul(dilations[i])?.checked_add(1)?;
        match a.text("auto_pad") {
            "SAME_UPPER" | "SAME_LOWER" => return Some(size[i].div_ceil(stride)),
            "VALID" => return Some(size[i].checked_sub(reach)? / stride + 1),
            _ => {}
        }
        let padded = size[i].checked_add(pads[i])?.checked_add(pads[i + n])?;
        let rest = padded.checked_sub(reach)?;
        if a.int("ceil_mode", 0) == 0 {
            return Some(rest / stride + 1);
        }
        // A window that would begin in the padding at the end is left out.
        let count = rest.div_ceil(stride) + 1;
        Some(if (count - 1) * stride >= size[i] + pads[i] { count - 1 } else { count })
    };
    (0..n).map(along).collect()
}

/// Extents after a transposed convolution.
fn transposed_window(a: &Attributes<'_>, size: &[usize], kernel: &[usize]) -> Option<Vec<usize>> {
    let n = size.len();
    if let Some(shape) = a.ints("output_shape") {
        return shape.iter().skip(shape.len().saturating_sub(n)).map(|d| usize::try_from(*d).ok()).collect();
    }
    let (strides, dilations, pads) = (each(a, "strides", n, 1)?, each(a, "dilations", n, 1)?, each(a, "pads", 2 * n, 0)?);
    let more = each(a, "output_padding", n, 0)?;
    if kernel.len() != n {
        return None;
    }
    let along = |i: usize| {
        if a.text("auto_pad").starts_with("SAME") {
            return size[i].checked_mul(strides[i]);
        }
        let reach = kernel[i].checked_sub(1)?.checked_mul(dilations[i])?.checked_add(1)?;
        let whole = size[i].checked_sub(1)?.checked_mul(strides[i])?.checked_add(reach)?.checked_add(more[i])?;
        whole.checked_sub(pads[i].checked_add(pads[i + n])?)
    };
    (0..n).map(along).collect()
}

/// Extents after Resize (scales third, sizes fourth) or Upsample (scales second).
fn resized(a: &Attributes<'_>, operands: &[Option<Operand>]) -> Option<Vec<usize>> {
    let mut dims = operands.first()?.as_ref()?.dims.clone();
    let constant = |i: usize| operands.get(i)?.as_ref()?.constant.clone().filter(|c| c.len() > 0);
    let axes = axes_or_all(a.ints("axes"), dims.len()).ok()?;
    let scales = constant(if a.0.op() == Op::Upsample { 1 } else { 2 });
    let sizes = constant(3);
    for (k, at) in axes.into_iter().enumerate() {
        dims[at] = match (&scales, &sizes) {
            (Some(scales), _) => (dims[at] as f64 * scales.at(k)).floor() as usize,
            (_, Some(sizes)) => usize::try_from(*sizes.integers()?.get(k)?).ok()?,
            _ => return None,
        };
    }
    Some(dims)
}

fn einsum(equation: &str, operands: &[Option<Operand>]) -> Option<Vec<usize>> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, output) = equation.split_once("->")?;
    if equation.contains('.') {
        return None;
    }
    let mut extents = Vec::new();
    for (names, operand) in inputs.split(',').zip(operands) {
        extents.extend(names.chars().zip(operand.as_ref()?.dims.iter().copied()));
    }
    output.chars().map(|name| extents.iter().filter(|(n, _)| *n == name).map(|(_, d)| *d).max()).collect()
}

fn split(a: &Attributes<'_>, operands: &[Option<Operand>]) -> Option<Vec<Option<Vec<usize>>>> {
    let x = operands.first()?.as_ref()?;
    let at = axis(a.int("axis", 0), x.dims.len())?;
    let outputs = a.0.output.len();
    let given = operands.get(1).and_then(|o| o.as_ref()?.constant.as_ref()?.integers().map(<[i64]>::to_vec));
    let sizes = match given.or_else(|| a.ints("split").map(<[i64]>::to_vec)) {
        Some(sizes) => sizes.into_iter().map(|s| usize::try_from(s).ok()).collect::<Option<Vec<_>>>()?,
        None => {
            let (n, one) = (x.dims[at], x.dims[at].div_ceil(outputs.max(1)));
            (0..outputs).map(|i| one.min(n.saturating_sub(i * one))).collect()
        }
    };
    let part = |i: usize| {
        let mut dims = x.dims.clone();
        dims[at] = *sizes.get(i)?;
        Some(dims)
    };
    Some((0..outputs).map(part).collect())
}

//! Shapes of what operators make that are not supported, so that the operators behind them are looked at too.

use super::attributes::Attributes;
use super::constant::{Constant, MAX_RANK, axes_or_all, common, product, reshape, slice, squeeze, unsqueeze};
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
    if a.0.op_type == "Split" {
        return split(a, operands).unwrap_or_else(|| vec![None; outputs]);
    }
    let first = shape(a, operands);
    // Values and indices have one shape; other further results are not read by networks for pictures.
    let further = if a.0.op_type == "TopK" { first.clone() } else { None };
    std::iter::once(first).chain(std::iter::repeat_n(further, outputs.saturating_sub(1))).collect()
}

/// An axis counted from the end if negative.
fn axis(at: i64, rank: usize) -> Option<usize> {
    super::constant::axis(at, rank).ok()
}

fn shape(a: &Attributes<'_>, operands: &[Option<Operand>]) -> Option<Vec<usize>> {
    let dims = |i: usize| operands.get(i)?.as_ref().map(|o| &o.dims);
    let integers = |i: usize| operands.get(i)?.as_ref()?.constant.as_ref()?.integers().map(<[i64]>::to_vec);
    let list = |name: &str, i: usize| integers(i).or_else(|| a.ints(name).map(<[i64]>::to_vec));
    let x = dims(0);
    let broadcast = || {
        let all: Option<Vec<&Vec<usize>>> = (0..operands.len()).map(dims).collect();
        all?.into_iter().try_fold(Vec::new(), |shape, dims| common(&shape, dims).ok())
    };
    Some(match a.0.op_type.as_str() {
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Min" | "Max" | "Sum" | "Mean" | "And" | "Or" | "Xor" | "Equal"
        | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "Where" | "PRelu" => broadcast()?,
        "Conv" | "ConvInteger" => {
            let weight = dims(1)?;
            let [outputs, _, kernel @ ..] = &weight[..] else { return None };
            [vec![*x?.first()?, *outputs], window(a, x?.get(2..)?, kernel)?].concat()
        }
        "QLinearConv" => {
            let weight = dims(3)?;
            let [outputs, _, kernel @ ..] = &weight[..] else { return None };
            [vec![*x?.first()?, *outputs], window(a, x?.get(2..)?, kernel)?].concat()
        }
        "ConvTranspose" => {
            let weight = dims(1)?;
            let [_, outputs, kernel @ ..] = &weight[..] else { return None };
            let groups = usize::try_from(a.int("group", 1)).ok()?;
            [vec![*x?.first()?, outputs.checked_mul(groups)?], transposed_window(a, x?.get(2..)?, kernel)?].concat()
        }
        "MaxPool" | "AveragePool" | "LpPool" => {
            let kernel = a.ints("kernel_shape")?.iter().map(|k| usize::try_from(*k).ok()).collect::<Option<Vec<_>>>()?;
            [x?.get(..2)?.to_vec(), window(a, x?.get(2..)?, &kernel)?].concat()
        }
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => {
            x?.iter().enumerate().map(|(i, d)| if i < 2 { *d } else { 1 }).collect()
        }
        "ArgMax" | "ArgMin" => {
            let at = axis(a.int("axis", 0), x?.len())?;
            remove(x?, |i| i == at, a.int("keepdims", 1) != 0)
        }
        op if op.starts_with("Reduce") => {
            let axes = list("axes", 1).unwrap_or_default();
            if axes.is_empty() && a.int("noop_with_empty_axes", 0) != 0 {
                return x.cloned();
            }
            let gone = reduced(&axes, x?.len()).ok()?;
            remove(x?, |i| gone[i], a.int("keepdims", 1) != 0)
        }
        "Reshape" => reshape(x?, &integers(1)?, a.int("allowzero", 0) != 0).ok()?,
        "Flatten" => {
            let at = a.int("axis", 1);
            let at = if at == x?.len() as i64 { x?.len() } else { axis(at, x?.len())? };
            vec![product(&x?[..at])?, product(&x?[at..])?]
        }
        "Squeeze" => squeeze(x?, list("axes", 1).as_deref()).ok()?,
        "Unsqueeze" => unsqueeze(x?, &list("axes", 1)?).ok()?,
        "Transpose" => match a.ints("perm") {
            Some(perm) => perm.iter().map(|p| Some(x?[axis(*p, x?.len())?])).collect::<Option<Vec<_>>>()?,
            None => x?.iter().rev().copied().collect(),
        },
        "Slice" => {
            let mut dims = x?.clone();
            let (starts, ends) = (integers(1)?, integers(2)?);
            for (k, (start, end)) in starts.iter().zip(&ends).enumerate() {
                let at = axis(integers(3).map_or(Some(k as i64), |axes| axes.get(k).copied())?, dims.len())?;
                let step = integers(4).map_or(Some(1), |steps| steps.get(k).copied())?;
                dims[at] = slice(dims[at], *start, *end, step).ok()?.len();
            }
            dims
        }
        "Gather" => {
            let at = axis(a.int("axis", 0), x?.len())?;
            [&x?[..at], dims(1)?, &x?[at + 1..]].concat()
        }
        "GatherElements" => dims(1)?.clone(),
        "Pad" => {
            let pads = list("pads", 1)?;
            let axes = integers(3).unwrap_or_else(|| (0..x.map_or(0, Vec::len) as i64).collect());
            let mut dims = x?.clone();
            for (k, at) in axes.iter().enumerate() {
                let at = axis(*at, dims.len())?;
                let more = pads.get(k)?.checked_add(*pads.get(k + axes.len())?)?;
                dims[at] = usize::try_from((dims[at] as i64).checked_add(more)?).ok()?;
            }
            dims
        }
        "Resize" | "Upsample" => resized(a, operands)?,
        "Concat" => {
            let at = axis(a.int("axis", 1), x?.len())?;
            let mut shape = x?.clone();
            shape[at] = 0;
            for i in 0..operands.len() {
                shape[at] += dims(i)?.get(at)?;
            }
            shape
        }
        "Tile" => {
            let times = integers(1)?;
            x?.iter().zip(times).map(|(d, t)| d.checked_mul(usize::try_from(t).ok()?)).collect::<Option<Vec<_>>>()?
        }
        "Expand" => {
            let to = integers(1)?.into_iter().map(|d| usize::try_from(d).ok()).collect::<Option<Vec<_>>>()?;
            common(x?, &to).ok()?
        }
        "DepthToSpace" | "SpaceToDepth" => {
            let block = usize::try_from(a.int("blocksize", 0)).ok().filter(|b| *b > 0)?;
            let [n, c, h, w] = x?[..] else { return None };
            match a.0.op_type.as_str() {
                "DepthToSpace" => vec![n, c / block.checked_mul(block)?, h.checked_mul(block)?, w.checked_mul(block)?],
                _ => vec![n, c.checked_mul(block)?.checked_mul(block)?, h / block, w / block],
            }
        }
        "GridSample" => {
            let ([n, c, ..], [_, size @ .., _]) = (&x?[..], &dims(1)?[..]) else { return None };
            [&[*n, *c], size].concat()
        }
        "MatMul" | "MatMulInteger" => {
            let y = dims(1)?;
            let ([la @ .., rows, _], [lb @ .., _, columns]) = (&x?[..], &y[..]) else { return None };
            [common(la, lb).ok()?, vec![*rows, *columns]].concat()
        }
        "Gemm" => {
            let (x, y) = (x?, dims(1)?);
            let turned = |name: &str| usize::from(a.int(name, 0) != 0);
            vec![*x.get(turned("transA"))?, *y.get(1 - turned("transB"))?]
        }
        "Einsum" => einsum(a.text("equation"), operands)?,
        "TopK" => {
            let mut shape = x?.clone();
            let at = axis(a.int("axis", -1), shape.len())?;
            shape[at] = usize::try_from(*integers(1)?.first()?).ok()?;
            shape
        }
        // Of each element, or of all elements on each.
        "Abs"
        | "Acos"
        | "Asin"
        | "Atan"
        | "BatchNormalization"
        | "Cast"
        | "CastLike"
        | "Ceil"
        | "Celu"
        | "Clip"
        | "Cos"
        | "Cosh"
        | "CumSum"
        | "DequantizeLinear"
        | "Dropout"
        | "Elu"
        | "Erf"
        | "Exp"
        | "Floor"
        | "Gelu"
        | "GroupNormalization"
        | "HardSigmoid"
        | "HardSwish"
        | "Hardmax"
        | "Identity"
        | "InstanceNormalization"
        | "IsInf"
        | "IsNaN"
        | "LRN"
        | "LayerNormalization"
        | "LeakyRelu"
        | "Log"
        | "LogSoftmax"
        | "LpNormalization"
        | "MeanVarianceNormalization"
        | "Mish"
        | "Neg"
        | "Not"
        | "QuantizeLinear"
        | "RMSNormalization"
        | "Reciprocal"
        | "Relu"
        | "Round"
        | "ScatterElements"
        | "ScatterND"
        | "Selu"
        | "Shrink"
        | "Sigmoid"
        | "Sign"
        | "Sin"
        | "Sinh"
        | "Softmax"
        | "Softplus"
        | "Softsign"
        | "Sqrt"
        | "Swish"
        | "Tan"
        | "Tanh"
        | "ThresholdedRelu"
        | "Trilu" => x?.clone(),
        _ => return None,
    })
    .filter(|dims: &Vec<usize>| dims.len() <= MAX_RANK)
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
    let scales = constant(if a.0.op_type == "Upsample" { 1 } else { 2 });
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

//! Transposed convolutions: a convolution of the picture with zeros between its pixels, by the kernel turned round.

use super::attributes::Attributes;
use super::graph::{Importer, Known, Refusal, Traced, extent};
use super::layers::pair;
use super::operators::constant;
use crate::nn::model::{OperatorSpec, Window};
use crate::nn::tensor::Shape;

/// What is cut off at the beginning and the end of an axis.
struct Cut {
    before: i64,
    after: i64,
}

impl Importer<'_> {
    pub(super) fn conv_transpose(
        &mut self,
        x: &Traced,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
        name: &str,
    ) -> Result<Traced, Refusal> {
        let weight = constant(operands, 1)?.ok_or("it has no weights")?;
        let ([inputs, per_group, kh, kw], [1, channels, height, width]) = (&weight.dims[..], &x.dims[..]) else {
            return Err(Refusal::Unsupported("a transposed convolution of other tensors than pictures".into()));
        };
        let (inputs, per_group, kernel, size) = (*inputs, *per_group, [*kh, *kw], [*height, *width]);
        if [inputs, per_group, kernel[0], kernel[1]].into_iter().any(|n| extent(n as i64).is_none()) {
            return Err(Refusal::Bad(format!("its weights have shape {:?}", weight.dims)));
        }
        if inputs != *channels {
            return Err(Refusal::Bad(format!("its weights are for {inputs} channels, and it is used on {channels}")));
        }
        if let Some(said) = a.ints("kernel_shape").filter(|k| !k.is_empty() && *k != kernel.map(|k| k as i64)) {
            return Err(Refusal::Bad(format!("its kernel_shape is {said:?}, and its weights are for {kernel:?}")));
        }
        let groups = a.int("group", 1);
        let groups = usize::try_from(groups)
            .ok()
            .filter(|g| *g > 0 && inputs.is_multiple_of(*g))
            .ok_or_else(|| format!("it has {groups} groups"))?;
        let (stride, dilation) = (pair(a, "strides")?, pair(a, "dilations")?);
        let mut padding = [0; 4];
        let mut spread = x.clone();
        for axis in 0..2 {
            let reach = ((kernel[axis] - 1) * dilation[axis]) as i64;
            let Cut { before, after } = cut(a, axis, size[axis], stride[axis], reach)?;
            // The pixels apart; what is cut off beyond the reach of the kernel is not made.
            let apart = ((size[axis] - 1) * stride[axis] + 1) as i64;
            extent(apart).ok_or_else(|| format!("its {} pixels are {} apart, which makes {apart}", size[axis], stride[axis]))?;
            let [before, after] = [reach - before, reach - after];
            let kept = before.min(0).abs()..apart + after.min(0);
            let pick = |at: i64| Some(at as usize / stride[axis]).filter(|_| (at as usize).is_multiple_of(stride[axis]));
            spread = self.along(&spread, 2 + axis, kept.map(pick).collect(), 0.0, name)?;
            let padded = |zeros: i64| {
                usize::try_from(zeros.max(0))
                    .ok()
                    .filter(|z| *z == 0 || extent(*z as i64).is_some())
                    .ok_or("its padding is too large")
            };
            (padding[axis], padding[2 + axis]) = (padded(before)?, padded(after)?);
        }
        let window = Window { kernel, stride: [1, 1], padding, dilation };
        let (value, shape) = self.picture(&spread, name)?;
        let (height, width) = window.output(shape.height, shape.width).ok_or("nothing is left of its result")?;
        // [in][out / groups][row][column] to [out][in / groups][row][column], both axes reversed.
        let (values, taps, of_group) = (weight.real(), kernel[0] * kernel[1], inputs / groups);
        let outputs = per_group * groups;
        let at = |o: usize, i: usize, tap: usize| {
            values[((o / per_group * of_group + i) * per_group + o % per_group) * taps + taps - 1 - tap]
        };
        let turned = (0..outputs * of_group * taps).map(|e| at(e / (of_group * taps), e / taps % of_group, e % taps)).collect();
        let bias = constant(operands, 2)?;
        let operator = OperatorSpec::Conv2d {
            weight: self.keep_values(vec![outputs, of_group, kernel[0], kernel[1]], turned)?,
            bias: bias.map(|b| self.keep(&b)),
            stride: window.stride,
            padding: window.padding,
            dilation: window.dilation,
            groups,
        };
        self.emit_picture(name, &[value], operator, Shape::new(outputs, height, width))
    }
}

/// From pads, or from the size that the result is to have.
fn cut(a: &Attributes<'_>, axis: usize, size: usize, stride: usize, reach: i64) -> Result<Cut, Refusal> {
    let number = |name: &str, at: usize| {
        a.ints(name)
            .filter(|v| !v.is_empty())
            .map(|v| v.get(at).copied().ok_or_else(|| format!("its {name} are {v:?}")))
            .transpose()
    };
    let more = number("output_padding", axis)?.unwrap_or(0);
    if !(0..stride.max(2) as i64).contains(&more) {
        return Err(Refusal::Bad(format!("its output_padding is {more} with a stride of {stride}")));
    }
    let auto = a.text("auto_pad");
    let same = matches!(auto, "SAME_UPPER" | "SAME_LOWER");
    let wanted = match number("output_shape", axis)? {
        Some(wanted) => Some(wanted),
        None if same => Some((size * stride) as i64),
        None => None,
    };
    let whole = ((size - 1) * stride) as i64 + reach + 1 + more;
    let (before, after) = match wanted {
        Some(wanted) => {
            let over = whole
                .checked_sub(wanted)
                .filter(|over| *over >= 0)
                .ok_or_else(|| format!("its output_shape is {wanted}, larger than it makes"))?;
            let half = over / 2;
            if auto == "SAME_UPPER" { (half, over - half) } else { (over - half, half) }
        }
        None if auto == "VALID" => (0, 0),
        None => (number("pads", axis)?.unwrap_or(0), number("pads", axis + 2)?.unwrap_or(0)),
    };
    if before < 0 || after < 0 || before.max(after) > crate::nn::model::MAX_EXTENT as i64 {
        return Err(Refusal::Bad(format!("its pads are {before} and {after}")));
    }
    // A further row at the end is one that is not cut off.
    Ok(Cut { before, after: after - more })
}

//! Operators with weights and windows: convolutions, normalisation, averages, linear layers.

use super::attributes::Attributes;
use super::constant::each_axis;
use super::graph::{Importer, Known, Refusal, Traced, extent, holds};
use super::operators::constant;
use crate::nn::model::{OperatorSpec, Window};
use crate::nn::tensor::Shape;

impl Importer<'_> {
    pub(super) fn conv(
        &mut self,
        x: &Traced,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
        name: &str,
    ) -> Result<Traced, Refusal> {
        let weight = constant(operands, 1)?.ok_or("it has no weights")?;
        let (value, shape) = self.picture(x, name)?;
        let [outputs, _, kh, kw] = weight.dims[..] else {
            let why =
                format!("its weights have {} axes; only convolutions of pictures (4 axes) are supported", weight.dims.len());
            return Err(Refusal::Unsupported(why.into()));
        };
        if let Some(kernel) = a.ints("kernel_shape").filter(|k| !k.is_empty() && *k != [kh as i64, kw as i64]) {
            return Err(Refusal::Bad(format!("its kernel_shape is {kernel:?}, and its weights are for [{kh}, {kw}]")));
        }
        if x.dims.len() != 4 {
            return Err(Refusal::Unsupported("it is used on a vector; convolutions of pictures are supported".into()));
        }
        let mut window = Window {
            kernel: [bounded(kh)?, bounded(kw)?],
            stride: pair(a, "strides")?,
            padding: [0; 4],
            dilation: pair(a, "dilations")?,
        };
        window.padding = padding(a, &window, shape)?;
        let (height, width) = window.output(shape.height, shape.width).ok_or("its kernel is larger than its padded input")?;
        let (value, window) = self.without_zeros(value, window);
        let groups = a.int("group", 1);
        let groups = usize::try_from(groups).map_err(|_| format!("it has {groups} groups"))?;
        let bias = constant(operands, 2)?;
        let operator = OperatorSpec::Conv2d {
            weight: self.keep(&weight),
            bias: bias.map(|b| self.keep(&b)),
            stride: window.stride,
            padding: window.padding,
            dilation: window.dilation,
            groups,
        };
        self.emit_picture(name, &[value], operator, Shape::new(bounded(outputs)?, height, width))
    }

    /// A window that moves over a value, moved over the picture within where that is one with zeros around it: these become padding of
    /// the window, which computes the same and is no step of its own. Left as it is where a window would lie in the padding.
    fn without_zeros(&self, value: usize, window: Window) -> (usize, Window) {
        let Some((within, zeros)) = self.zeros_around(value) else { return (value, window) };
        let padding: [usize; 4] = std::array::from_fn(|side| window.padding[side] + zeros[side]);
        let reaches = |side: usize| padding[side] <= (window.kernel[side % 2] - 1) * window.dilation[side % 2];
        if (0..4).all(reaches) { (within, Window { padding, ..window }) } else { (value, window) }
    }

    pub(super) fn batch_norm(
        &mut self,
        x: &Traced,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
        name: &str,
    ) -> Result<Traced, Refusal> {
        if a.trains() {
            return Err(Refusal::Unsupported("it is in training mode: call model.eval() before the export".into()));
        }
        let value = self.channelled(x, name)?;
        let shape = self.shape(value);
        if x.dims.get(1) != Some(&shape.channels) {
            return Err(Refusal::Unsupported("channels that were reshaped are normalised".into()));
        }
        let mut tensor = |i: usize| -> Result<String, Refusal> {
            let constant = constant(operands, i)?.ok_or_else(|| format!("operand {i} is missing"))?;
            Ok(self.keep(&constant))
        };
        let operator = OperatorSpec::BatchNorm {
            scale: tensor(1)?,
            bias: tensor(2)?,
            mean: tensor(3)?,
            var: tensor(4)?,
            epsilon: a.float("epsilon", 1e-5),
        };
        let base = self.emit(name, &[value], operator, shape)?;
        Ok(Traced::of(base, x.dims.clone()))
    }

    pub(super) fn average_pool(&mut self, x: &Traced, a: &Attributes<'_>, name: &str) -> Result<Traced, Refusal> {
        let (value, shape) = self.picture(x, name)?;
        if pair(a, "dilations")? != [1, 1] {
            return Err(Refusal::Unsupported("a dilated average: use one without dilation".into()));
        }
        let kernel = a.ints("kernel_shape").ok_or("it has no kernel_shape")?;
        let kernel: Option<Vec<usize>> = kernel.iter().map(|k| extent(*k)).collect();
        let Some(&[kh, kw]) = kernel.as_deref() else {
            return Err(Refusal::Bad("its kernel is not two positive numbers".into()));
        };
        let mut window = Window { kernel: [kh, kw], stride: pair(a, "strides")?, padding: [0; 4], dilation: [1, 1] };
        window.padding = padding(a, &window, shape)?;
        let counted = a.int("count_include_pad", 0) != 0;
        if a.int("ceil_mode", 0) != 0 {
            // Rounding up is a further padding, whose zeros never count.
            let more = |size: usize, k: usize, s: usize, before: usize, after: usize| {
                // A single window may reach over the end.
                if let Some(missing) = k.checked_sub(size + before + after).filter(|missing| (1..s).contains(missing)) {
                    return missing;
                }
                let rest = (size + before + after).saturating_sub(k) % s;
                // A window that would begin in the padding is left out.
                let last = (size + before + after).saturating_sub(k).div_ceil(s) * s;
                if rest == 0 || last >= size + before { 0 } else { s - rest }
            };
            let [top, left, bottom, right] = window.padding;
            let (down, across) =
                (more(shape.height, kh, window.stride[0], top, bottom), more(shape.width, kw, window.stride[1], left, right));
            if down + across > 0 && counted && window.padding != [0; 4] {
                return Err(Refusal::Unsupported("ceil_mode with counted padding: use count_include_pad = 0".into()));
            }
            if down + across > 0 {
                window.padding = [top, left, bottom + down, right + across];
                return self.pool(value, shape, window, false, name);
            }
        }
        self.pool(value, shape, window, counted, name)
    }

    pub(super) fn pool(
        &mut self,
        value: usize,
        shape: Shape,
        window: Window,
        counted: bool,
        name: &str,
    ) -> Result<Traced, Refusal> {
        if window.kernel == [shape.height, shape.width] && window.padding == [0; 4] {
            return self.emit_picture(name, &[value], OperatorSpec::GlobalAvgPool, Shape::new(shape.channels, 1, 1));
        }
        let (height, width) = window.output(shape.height, shape.width).ok_or("its kernel is larger than its padded input")?;
        let counted = counted || window.padding == [0; 4];
        let (value, window) = if counted { self.without_zeros(value, window) } else { (value, window) };
        let operator = OperatorSpec::AvgPool2d {
            kernel: window.kernel,
            stride: Some(window.stride),
            padding: window.padding,
            count_include_pad: counted,
        };
        self.emit_picture(name, &[value], operator, Shape::new(shape.channels, height, width))
    }

    pub(super) fn global_average(&mut self, x: &Traced, keep: bool, name: &str) -> Result<Traced, Refusal> {
        let value = self.channelled(x, name)?;
        let shape = self.shape(value);
        // A picture, or one whose rows and columns were joined.
        let [1, channels, ref rest @ ..] = x.dims[..] else {
            return Err(Refusal::Unsupported("an average over other axes than rows and columns".into()));
        };
        if channels != shape.channels || rest.is_empty() || !holds(rest, Shape::new(1, shape.height, shape.width)) {
            return Err(Refusal::Unsupported("an average over other axes than rows and columns".into()));
        }
        let base = self.emit(name, &[value], OperatorSpec::GlobalAvgPool, Shape::new(channels, 1, 1))?;
        let dims = if keep { [vec![1, channels], vec![1; rest.len()]].concat() } else { vec![1, channels] };
        Ok(Traced::of(base, dims))
    }

    pub(super) fn gemm(
        &mut self,
        x: &Traced,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
        name: &str,
    ) -> Result<Traced, Refusal> {
        let weight = constant(operands, 1)?.ok_or("it has no weights")?;
        let [rows, columns] = weight.dims[..] else { return Err("its weights are no matrix".into()) };
        if a.int("transA", 0) != 0 {
            return Err(Refusal::Unsupported("its first operand is transposed".into()));
        }
        let transposed = a.int("transB", 0) != 0;
        let (alpha, beta) = (a.float("alpha", 1.0), a.float("beta", 1.0));
        let (outputs, inputs) = if transposed { (rows, columns) } else { (columns, rows) };
        let weight = match (transposed, alpha == 1.0) {
            (true, true) => self.keep(&weight),
            (false, true) => self.keep_turned(&weight)?,
            _ => {
                let values = weight.real();
                let at = |o: usize, i: usize| if transposed { values[o * inputs + i] } else { values[i * outputs + o] };
                let scaled = (0..outputs).flat_map(|o| (0..inputs).map(move |i| (o, i))).map(|(o, i)| alpha * at(o, i)).collect();
                self.keep_values(vec![outputs, inputs], scaled)?
            }
        };
        let bias = match constant(operands, 2)? {
            None => None,
            Some(bias) if bias.len() == 1 || bias.len() == outputs => {
                let values = bias.real();
                let values = (0..outputs).map(|o| beta * values[o % values.len()]).collect();
                Some(self.keep_values(vec![outputs], values)?)
            }
            Some(bias) => return Err(Refusal::Bad(format!("its bias has shape {:?} for {outputs} outputs", bias.dims))),
        };
        self.linear(x, inputs, outputs, weight, bias, name)
    }

    pub(super) fn matmul(&mut self, x: &Traced, operands: &[Option<Known>], name: &str) -> Result<Traced, Refusal> {
        let Some(weight) = constant(operands, 1)? else {
            return Err(Refusal::Unsupported("the product of two tensors that depend on the picture is not supported".into()));
        };
        let [inputs, outputs] = weight.dims[..] else {
            return Err(Refusal::Unsupported("a product with other than a matrix is not supported".into()));
        };
        let weight = self.keep_turned(&weight)?;
        self.linear(x, inputs, outputs, weight, None, name)
    }

    fn linear(
        &mut self,
        x: &Traced,
        inputs: usize,
        outputs: usize,
        weight: String,
        bias: Option<String>,
        name: &str,
    ) -> Result<Traced, Refusal> {
        if x.dims.last() != Some(&inputs) {
            let why = format!(
                "a linear layer of {inputs} inputs is used on a tensor of shape {:?}: its last axis must be these",
                x.dims
            );
            return Err(Refusal::Bad(why));
        }
        if x.dims.iter().product::<usize>() != inputs {
            return self.linear_of_each(x, outputs, &weight, bias, name);
        }
        let (value, weight) = self.behind_moves(x, inputs, outputs, weight, name)?;
        let shape = Shape::new(bounded(outputs)?, 1, 1);
        let base = self.emit(name, &[value], OperatorSpec::Linear { weight, bias }, shape)?;
        Ok(Traced::of(base, [&x.dims[..x.dims.len() - 1], &[outputs]].concat()))
    }

    /// A linear layer of the last axis alone, the same for all that stands before it: a 1x1 convolution of the tensor with that axis as
    /// its channels, as exporters write one of pictures with their channels last.
    fn linear_of_each(
        &mut self,
        x: &Traced,
        outputs: usize,
        weight: &str,
        bias: Option<String>,
        name: &str,
    ) -> Result<Traced, Refusal> {
        let weight = self.kept(weight).ok_or("its weights are not known")?;
        let weight = self.keep_values(vec![bounded(outputs)?, weight.dims[1], 1, 1], weight.real())?;
        let batched = if x.dims[0] == 1 { x.dims.clone() } else { [&[1], &x.dims[..]].concat() };
        let last = batched.len() - 1;
        let order: Vec<usize> = [0, last].into_iter().chain(1..last).collect();
        let turned = self.transposed(&Traced { dims: batched.clone(), ..x.clone() }, &order, name)?;
        let value = self.channelled(&turned, name)?;
        let Shape { channels, height, width } = self.shape(value);
        if channels != turned.dims[1] {
            let why =
                format!("a linear layer of the last axis is used on a tensor of shape {:?}, whose axes are too long", x.dims);
            return Err(Refusal::Unsupported(why.into()));
        }
        let operator = OperatorSpec::Conv2d { weight, bias, stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 };
        let base = self.emit(name, &[value], operator, Shape::new(outputs, height, width))?;
        let mut dims = turned.dims;
        dims[1] = outputs;
        let back: Vec<usize> = std::iter::once(0).chain(2..=last).chain([1]).collect();
        let made = self.transposed(&Traced::of(base, dims), &back, name)?;
        Ok(Traced { dims: [&x.dims[..x.dims.len() - 1], &[outputs]].concat(), ..made })
    }

    /// x as a vector, with the weights that read it. Where elements were moved before it, as Keras does to flatten a picture,
    /// the weights are moved instead.
    fn behind_moves(
        &mut self,
        x: &Traced,
        inputs: usize,
        outputs: usize,
        weight: String,
        name: &str,
    ) -> Result<(usize, String), Refusal> {
        let view = self.view(x, name)?;
        let vector = |n: usize| Shape::new(n, 1, 1);
        if let Some(source) = view.is_of() {
            return Ok((self.placed(&Traced::of(source, Vec::new()), vector(inputs), name)?, weight));
        }
        // A larger source would make larger weights.
        if let Some(part) = view.single().filter(|part| part.from.len() <= 2 * inputs)
            && let Some(values) = self.kept(&weight).map(|w| w.real())
        {
            let n = part.from.len();
            let sources = part.elements(inputs, &mut self.room)?;
            let mut moved = vec![0.0; outputs * n];
            for (row, own) in values.chunks_exact(inputs).zip(moved.chunks_exact_mut(n)) {
                row.iter().zip(&sources).for_each(|(w, from)| own[*from as usize] += w);
            }
            // Weights too large to be written anew are left as they are.
            if let Ok(weight) = self.keep_values(vec![outputs, n], moved) {
                return Ok((self.placed(&Traced::of(part.source, Vec::new()), vector(n), name)?, weight));
            }
        }
        Ok((self.placed(x, vector(inputs), name)?, weight))
    }
}

fn bounded(value: usize) -> Result<usize, Refusal> {
    i64::try_from(value).ok().and_then(extent).ok_or_else(|| Refusal::Bad(format!("an extent of {value}")))
}

/// The axes of a tensor that an operator reduces, in order, all where it names none; none if it then does nothing.
pub(super) fn reduced_axes(rank: usize, operands: &[Option<Known>], a: &Attributes<'_>) -> Result<Option<Vec<usize>>, Refusal> {
    let given = constant(operands, 1)?;
    let axes = match &given {
        Some(axes) => axes.integers().ok_or("its axes are no integers")?,
        None => a.ints("axes").unwrap_or(&[]),
    };
    let mut axes = each_axis(axes, rank)?;
    axes.sort_unstable();
    axes.dedup();
    if axes.is_empty() && a.int("noop_with_empty_axes", 0) != 0 {
        return Ok(None);
    }
    Ok(Some(if axes.is_empty() { (0..rank).collect() } else { axes }))
}

/// Two numbers, one for rows and one for columns; 1 where the file says nothing.
pub(super) fn pair(a: &Attributes<'_>, name: &str) -> Result<[usize; 2], Refusal> {
    match a.ints(name) {
        None | Some([]) => Ok([1, 1]),
        Some(&[down, right]) => match (extent(down), extent(right)) {
            (Some(down), Some(right)) => Ok([down, right]),
            _ => Err(Refusal::Bad(format!("{name} are {down} and {right}"))),
        },
        Some(other) => Err(Refusal::Bad(format!("{name} has {} numbers, a picture has two axes", other.len()))),
    }
}

/// What is added at the top, left, bottom and right.
pub(super) fn padding(a: &Attributes<'_>, window: &Window, shape: Shape) -> Result<[usize; 4], Refusal> {
    let same = |at_end: bool| {
        let along = |size: usize, axis: usize| {
            let reach = (window.kernel[axis] - 1) * window.dilation[axis] + 1;
            let reached = (size.div_ceil(window.stride[axis]) - 1) * window.stride[axis] + reach;
            let whole = reached.saturating_sub(size);
            // Pixels that no window reaches would be cut off on both sides, and runtimes do not agree on how many on which.
            if reached + 1 < size {
                let why =
                    format!("auto_pad={} with steps beyond the kernel leaves {} pixels out", a.text("auto_pad"), size - reached);
                return Err(Refusal::Unsupported(format!("{why}: give its pads as numbers").into()));
            }
            Ok(if at_end { (whole / 2, whole.div_ceil(2)) } else { (whole.div_ceil(2), whole / 2) })
        };
        let ((top, bottom), (left, right)) = (along(shape.height, 0)?, along(shape.width, 1)?);
        Ok([top, left, bottom, right])
    };
    match a.text("auto_pad") {
        "SAME_UPPER" => return same(true),
        "SAME_LOWER" => return same(false),
        "VALID" => return Ok([0; 4]),
        _ => {}
    }
    match a.ints("pads") {
        None | Some([]) => Ok([0; 4]),
        Some(pads) => {
            let zeros: Option<Vec<usize>> = pads.iter().map(|p| if *p == 0 { Some(0) } else { extent(*p) }).collect();
            match zeros.as_deref() {
                Some(&[top, left, bottom, right]) => Ok([top, left, bottom, right]),
                _ => Err(Refusal::Bad(format!("its pads are {:?}", &pads[..pads.len().min(8)]))),
            }
        }
    }
}

//! Operators that move elements and compute nothing: reshaping, slices, padding, resizing, joining and splitting channels.

use super::attributes::Attributes;
use super::constant::{axis, product, reshape, slice, squeeze, unsqueeze};
use super::graph::{Importer, Known, Refusal, Traced, extent};
use super::operators::constant;
use super::schema::NodeProto;
use crate::nn::model::{MAX_EXTENT, OperatorSpec, Rearrange};
use std::rc::Rc;

impl<'f> Importer<'f> {
    /// Other extents for the same elements in the same order.
    pub fn reshape(
        &mut self,
        x: &Traced,
        node: &NodeProto,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
    ) -> Result<Traced, Refusal> {
        let given = constant(operands, 1)?;
        let integers = given.as_ref().and_then(|c| c.integers());
        let dims = match node.op_type.as_str() {
            "Reshape" => reshape(&x.dims, integers.ok_or("its shape is not made of integers")?, a.int("allowzero", 0) != 0)?,
            "Flatten" => {
                let at = a.int("axis", 1);
                let at = if at == x.dims.len() as i64 { x.dims.len() } else { axis(at, x.dims.len())? };
                let whole = |dims: &[usize]| product(dims).ok_or_else(|| "its shape overflows".to_owned());
                vec![whole(&x.dims[..at])?, whole(&x.dims[at..])?]
            }
            "Squeeze" => squeeze(&x.dims, integers.or(a.ints("axes")))?,
            "Unsqueeze" => unsqueeze(&x.dims, integers.or(a.ints("axes")).ok_or("it has no axes")?)?,
            _ => {
                let order = match a.ints("perm") {
                    Some(p) => p.iter().map(|at| axis(*at, x.dims.len())).collect::<Result<Vec<_>, _>>()?,
                    None => (0..x.dims.len()).rev().collect(),
                };
                // Axes of 1 may go anywhere; the others must keep their order.
                let kept: Vec<usize> = order.iter().copied().filter(|at| x.dims[*at] > 1).collect();
                if !kept.is_sorted() {
                    let why = format!("a tensor of shape {:?} is transposed by {order:?}, which moves its elements", x.dims);
                    return Err(Refusal::Unsupported(why.into()));
                }
                let dims: Vec<usize> = order.iter().map(|at| x.dims[*at]).collect();
                if product(&dims) != product(&x.dims) {
                    return Err("its axes are given twice".into());
                }
                dims
            }
        };
        Ok(Traced { dims, ..x.clone() })
    }

    /// A map of one axis of the file (1: channels, 2: rows, 3: columns) applied to x.
    fn along(&mut self, x: &Traced, at: usize, picks: Vec<Option<usize>>, name: &str) -> Result<Traced, Refusal> {
        if picks.is_empty() || picks.len() > MAX_EXTENT {
            return Err(Refusal::Bad(format!("it makes an axis of {} elements", picks.len())));
        }
        if picks.iter().copied().eq((0..x.dims[at]).map(Some)) {
            return Ok(x.clone());
        }
        let (value, shape) = self.picture(x, name)?;
        self.budget.take(2 * (shape.channels + shape.height + shape.width + picks.len()))?;
        let mut map = Rearrange::identity(shape);
        let mut dims = x.dims.clone();
        dims[at] = picks.len();
        match at {
            1 => map.channels = picks,
            2 => map.rows = picks,
            3 => map.columns = picks,
            _ => return Err(Refusal::Unsupported("the batch axis is changed".into())),
        }
        // One after the other is one.
        let (value, map) = match self.maker(value) {
            Some((OperatorSpec::Rearrange { channels, rows, columns }, operand)) => {
                let before = Rearrange { channels: channels.clone(), rows: rows.clone(), columns: columns.clone() };
                (operand, before.then(&map))
            }
            _ => (value, map),
        };
        let shape = map.shape();
        let Rearrange { channels, rows, columns } = map;
        let base = self.emit(name, &[value], OperatorSpec::Rearrange { channels, rows, columns }, shape)?;
        Ok(Traced::of(base, dims))
    }

    pub fn slice(&mut self, x: &Traced, operands: &[Option<Known>], name: &str) -> Result<Traced, Refusal> {
        let [starts, ends, axes, steps] = [1, 2, 3, 4].map(|i| constant(operands, i));
        let (starts, ends, axes, steps) = (starts?, ends?, axes?, steps?);
        let integers = |c: &Option<Rc<super::constant::Constant>>| c.as_ref().and_then(|c| c.integers().map(<[i64]>::to_vec));
        let (starts, ends) = (integers(&starts).ok_or("it has no starts")?, integers(&ends).ok_or("it has no ends")?);
        let (axes, steps) = (integers(&axes), integers(&steps));
        if starts.len() > x.dims.len() || starts.len() != ends.len() {
            return Err(Refusal::Bad(format!("{} starts and {} ends for {} axes", starts.len(), ends.len(), x.dims.len())));
        }
        let mut x = x.clone();
        for (k, (start, end)) in starts.iter().zip(&ends).enumerate() {
            let at = axes.as_ref().map_or(Some(k as i64), |axes| axes.get(k).copied()).ok_or("an axis is missing")?;
            let step = steps.as_ref().map_or(Some(1), |steps| steps.get(k).copied()).ok_or("a step is missing")?;
            let at = axis(at, x.dims.len())?;
            let picks = slice(x.dims[at], *start, *end, step)?;
            x = self.along(&x, at, picks, name)?;
        }
        Ok(x)
    }

    pub fn gather(&mut self, x: &Traced, operands: &[Option<Known>], a: &Attributes<'_>, name: &str) -> Result<Traced, Refusal> {
        let indices = constant(operands, 1)?.ok_or("it has no indices")?;
        let at = axis(a.int("axis", 0), x.dims.len())?;
        if indices.dims.len() != 1 {
            return Err(Refusal::Unsupported("a list of indices is supported, not one index or a table of them".into()));
        }
        let extent = x.dims[at];
        let picks = indices.integers().ok_or("its indices are no integers")?.iter().map(|i| {
            let i = if *i < 0 { i.saturating_add(extent as i64) } else { *i };
            usize::try_from(i).ok().filter(|i| *i < extent).map(Some).ok_or_else(|| format!("there is no index {i} of {extent}"))
        });
        let picks = picks.collect::<Result<Vec<_>, _>>()?;
        self.along(x, at, picks, name)
    }

    pub fn pad(&mut self, x: &Traced, operands: &[Option<Known>], a: &Attributes<'_>, name: &str) -> Result<Traced, Refusal> {
        let (pads, value, axes) = (constant(operands, 1)?, constant(operands, 2)?, constant(operands, 3)?);
        let pads = pads.ok_or("it has no pads")?;
        let pads = pads.integers().ok_or("its pads are no integers")?;
        let mode = match a.text("mode") {
            "" => "constant",
            mode => mode,
        };
        if mode == "constant" && value.and_then(|v| v.uniform()).unwrap_or(0.0) != 0.0 {
            return Err(Refusal::Unsupported("padding with another value than 0".into()));
        }
        let axes: Vec<usize> = match &axes {
            Some(axes) => {
                let axes = axes.integers().ok_or("its axes are no integers")?;
                axes.iter().map(|at| axis(*at, x.dims.len())).collect::<Result<_, _>>()?
            }
            None => (0..x.dims.len()).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(Refusal::Bad(format!("{} pads for {} axes", pads.len(), axes.len())));
        }
        let mut x = x.clone();
        for (k, &at) in axes.iter().enumerate() {
            let (before, after, n) = (pads[k], pads[k + axes.len()], x.dims[at] as i64);
            let limit = MAX_EXTENT as i64;
            if before.abs().max(after.abs()) > limit || n + before + after < 1 {
                return Err(Refusal::Bad(format!("axis {at} of {n} is padded by {before} and {after}")));
            }
            let pick = |i: i64| match mode {
                _ if (0..n).contains(&i) => Ok(Some(i as usize)),
                "constant" => Ok(None),
                "edge" => Ok(Some(i.clamp(0, n - 1) as usize)),
                "reflect" if i.abs() < n && 2 * (n - 1) - i >= 0 => Ok(Some(if i < 0 { -i } else { 2 * (n - 1) - i } as usize)),
                mode => Err(Refusal::Unsupported(format!("padding in mode {mode:?} by {before} and {after}").into())),
            };
            let picks = (-before..n + after).map(pick).collect::<Result<Vec<_>, _>>()?;
            x = self.along(&x, at, picks, name)?;
        }
        Ok(x)
    }

    pub fn resize(&mut self, x: &Traced, operands: &[Option<Known>], a: &Attributes<'_>, name: &str) -> Result<Traced, Refusal> {
        if !matches!(a.text("mode"), "" | "nearest") {
            let why = format!("{} interpolation is not supported: use mode=\"nearest\"", a.text("mode"));
            return Err(Refusal::Unsupported(why.into()));
        }
        // Upsample has its scales second, Resize third and sizes fourth.
        let upsample = a.0.op_type == "Upsample";
        let scales = constant(operands, if upsample { 1 } else { 2 })?.filter(|s| s.len() > 0);
        let sizes = if upsample { None } else { constant(operands, 3)?.filter(|s| s.len() > 0) };
        let axes: Vec<usize> = match a.ints("axes") {
            Some(axes) => axes.iter().map(|at| axis(*at, x.dims.len())).collect::<Result<_, _>>()?,
            None => (0..x.dims.len()).collect(),
        };
        let count = scales.as_ref().or(sizes.as_ref()).map_or(0, |c| c.len());
        if count != axes.len() {
            return Err(Refusal::Bad(format!("{count} sizes for {} axes", axes.len())));
        }
        let placement = match (upsample, a.text("coordinate_transformation_mode")) {
            (true, _) => "asymmetric",
            (_, "") => "half_pixel",
            (_, mode) => mode,
        };
        let rounding = match (upsample, a.text("nearest_mode")) {
            (true, _) => "floor",
            (_, "") => "round_prefer_floor",
            (_, mode) => mode,
        };
        let mut x = x.clone();
        for (k, &at) in axes.iter().enumerate() {
            let n = x.dims[at];
            let (scale, size) = match (&scales, &sizes) {
                (Some(scales), _) => {
                    let scale = scales.real()[k];
                    (scale, (n as f64 * scale).floor())
                }
                (_, Some(sizes)) => {
                    let size = sizes.real()[k];
                    (size / n as f64, size)
                }
                _ => return Err("it has neither scales nor sizes".into()),
            };
            let size = Some(size).filter(|s| s.is_finite()).and_then(|s| extent(s as i64));
            let size = size.ok_or_else(|| format!("axis {at} of {n} is resized by {scale}"))?;
            let pick = |i: usize| {
                let i = i as f64;
                let at = match placement {
                    "asymmetric" => i / scale,
                    "half_pixel" => (i + 0.5) / scale - 0.5,
                    "pytorch_half_pixel" => {
                        if size > 1 {
                            (i + 0.5) / scale - 0.5
                        } else {
                            0.0
                        }
                    }
                    "align_corners" => {
                        if size > 1 {
                            i * (n as f64 - 1.0) / (size as f64 - 1.0)
                        } else {
                            0.0
                        }
                    }
                    mode => return Err(Refusal::Unsupported(format!("placement {mode:?} of a resized picture").into())),
                };
                let at = match rounding {
                    "round_prefer_floor" => (at - 0.5).ceil(),
                    "round_prefer_ceil" => (at + 0.5).floor(),
                    "floor" => at.floor(),
                    "ceil" => at.ceil(),
                    mode => return Err(Refusal::Unsupported(format!("rounding {mode:?} of a resized picture").into())),
                };
                Ok(Some(at.clamp(0.0, n as f64 - 1.0) as usize))
            };
            let picks = (0..size).map(pick).collect::<Result<Vec<_>, _>>()?;
            x = self.along(&x, at, picks, name)?;
        }
        Ok(x)
    }

    /// Channels of several tensors one after the other: each with zeros in place of the others, and their sum.
    pub fn concat(&mut self, operands: &[Option<Known>], a: &Attributes<'_>, name: &str) -> Result<Traced, Refusal> {
        let mut parts = Vec::with_capacity(operands.len());
        for operand in operands.iter().flatten() {
            match operand {
                Known::Traced(x) => parts.push(x.clone()),
                Known::Lost => return Err(Refusal::Lost),
                Known::Constant(_) => return Err(Refusal::Unsupported("constants are joined to a tensor".into())),
            }
        }
        let first = parts.first().ok_or("it has no operands")?.clone();
        let at = axis(a.int("axis", 1), first.dims.len())?;
        let fits =
            |x: &Traced| x.dims.len() == first.dims.len() && (0..x.dims.len()).all(|i| i == at || x.dims[i] == first.dims[i]);
        if !parts.iter().all(fits) {
            return Err(Refusal::Bad("its operands have different shapes".into()));
        }
        let total: usize = parts.iter().map(|x| x.dims[at]).sum();
        if at != 1 || total > MAX_EXTENT {
            let why = format!("tensors are joined along axis {at} to {total}; channels (axis 1) up to {MAX_EXTENT} can be");
            return Err(Refusal::Unsupported(why.into()));
        }
        let mut sum: Option<Traced> = None;
        let mut before = 0;
        for x in parts {
            let own = x.dims[at];
            let picks = (0..total).map(|i| i.checked_sub(before).filter(|i| *i < own)).collect();
            before += own;
            let part = self.along(&x, at, picks, name)?;
            sum = Some(match sum {
                None => part,
                Some(sum) => {
                    let shape = self.shape(part.base);
                    if shape != self.shape(sum.base) {
                        return Err(Refusal::Unsupported("tensors that were reshaped in different ways are joined".into()));
                    }
                    let base = self.emit(name, &[sum.base, part.base], OperatorSpec::Add, shape)?;
                    Traced { base, ..part }
                }
            });
        }
        sum.ok_or_else(|| "it has no operands".into())
    }

    pub fn split(
        &mut self,
        x: &Traced,
        node: &'f NodeProto,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
        name: &str,
    ) -> Result<(), Refusal> {
        let at = axis(a.int("axis", 0), x.dims.len())?;
        let n = x.dims[at];
        let given = constant(operands, 1)?;
        let outputs = node.output.len();
        let sizes: Vec<usize> = match given.as_ref().and_then(|c| c.integers()).or(a.ints("split")) {
            Some(sizes) => sizes.iter().map(|s| extent(*s).ok_or_else(|| format!("a part of {s}"))).collect::<Result<_, _>>()?,
            None => {
                let one = n.div_ceil(outputs.max(1));
                (0..outputs).map(|i| one.min(n.saturating_sub(i * one))).collect()
            }
        };
        if sizes.iter().sum::<usize>() != n || sizes.len() != outputs {
            return Err(Refusal::Bad(format!("{n} elements are split into {outputs} parts of {sizes:?}")));
        }
        let mut first = 0;
        for (i, size) in sizes.into_iter().enumerate() {
            let part = self.along(x, at, (first..first + size).map(Some).collect(), name)?;
            self.make(node, i, Known::Traced(part));
            first += size;
        }
        Ok(())
    }
}

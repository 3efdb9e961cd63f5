//! Operators that move elements and compute nothing: reshaping, transposing, slices, padding, repeating, joining, splitting.

use super::attributes::Attributes;
use super::constant::{MAX_RANK, axes_or_all, axis, common, order, product, reshape, slice, squeeze, unsqueeze};
use super::graph::{Importer, Known, Refusal, Traced, extent};
use super::op::Op;
use super::operators::constant;
use super::schema::NodeProto;
use super::view::{View, bounded, natural};
use crate::nn::model::MAX_EXTENT;
use std::rc::Rc;

impl<'f> Importer<'f> {
    /// Other extents for the same elements in the same order.
    pub(super) fn reshape(
        &mut self,
        x: &Traced,
        node: &NodeProto,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
        name: &str,
    ) -> Result<Traced, Refusal> {
        let given = constant(operands, 1)?;
        let integers = given.as_ref().and_then(|c| c.integers());
        let dims = match node.op() {
            Op::Reshape => reshape(&x.dims, integers.ok_or("its shape is not made of integers")?, a.int("allowzero", 0) != 0)?,
            Op::Flatten => {
                let at = a.int("axis", 1);
                let at = if at == x.dims.len() as i64 { x.dims.len() } else { axis(at, x.dims.len())? };
                let whole = |dims: &[usize]| product(dims).ok_or_else(|| "its shape overflows".to_owned());
                vec![whole(&x.dims[..at])?, whole(&x.dims[at..])?]
            }
            Op::Squeeze => squeeze(&x.dims, integers.or(a.ints("axes")))?,
            Op::Unsqueeze => unsqueeze(&x.dims, integers.or(a.ints("axes")).ok_or("it has no axes")?)?,
            _ => {
                return self.transposed(x, &order(a.ints("perm"), x.dims.len())?, name);
            }
        };
        Ok(Traced { dims, ..x.clone() })
    }

    /// The slices of x along one axis that `picks` say, with `fill` where it says none.
    pub(super) fn along(
        &mut self,
        x: &Traced,
        at: usize,
        picks: Vec<Option<usize>>,
        fill: f64,
        name: &str,
    ) -> Result<Traced, Refusal> {
        if picks.is_empty() || picks.len() > MAX_EXTENT {
            return Err(Refusal::Bad(format!("it makes an axis of {} elements, 1 to {MAX_EXTENT} can be", picks.len())));
        }
        if picks.iter().copied().eq((0..x.dims[at]).map(Some)) {
            return Ok(x.clone());
        }
        let view = self.view(x, name)?;
        self.budget.take(2 * view.parts.len() * (view.shape.channels + view.shape.height + view.shape.width + picks.len()))?;
        let moved = view.along(&x.dims, at, &picks, fill, &mut self.room)?;
        let mut dims = x.dims.clone();
        dims[at] = picks.len();
        Ok(self.viewed(moved, dims, name))
    }

    /// The axes of x in another order.
    pub(super) fn transposed(&mut self, x: &Traced, order: &[usize], name: &str) -> Result<Traced, Refusal> {
        let dims: Vec<usize> = order.iter().map(|at| x.dims[*at]).collect();
        let mut given = order.to_vec();
        given.sort_unstable();
        if !given.iter().copied().eq(0..x.dims.len()) {
            return Err(Refusal::Bad(format!("{order:?} is no order of {} axes", x.dims.len())));
        }
        // Axes of 1 may go anywhere; where the others keep their order, nothing moves.
        let kept: Vec<usize> = order.iter().copied().filter(|at| x.dims[*at] > 1).collect();
        if kept.is_sorted() {
            return Ok(Traced { dims, ..x.clone() });
        }
        let view = self.view(x, name)?.transposed(&x.dims, order, &mut self.room)?;
        Ok(self.viewed(view, dims, name))
    }

    pub(super) fn slice(&mut self, x: &Traced, operands: &[Option<Known>], name: &str) -> Result<Traced, Refusal> {
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
            listed(x.dims[at])?;
            let picks = slice(x.dims[at], *start, *end, step)?;
            x = self.along(&x, at, picks, 0.0, name)?;
        }
        Ok(x)
    }

    pub(super) fn gather(
        &mut self,
        x: &Traced,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
        name: &str,
    ) -> Result<Traced, Refusal> {
        let indices = constant(operands, 1)?.ok_or("it has no indices")?;
        let at = axis(a.int("axis", 0), x.dims.len())?;
        let extent = x.dims[at];
        let picks = indices.integers().ok_or("its indices are no integers")?.iter().map(|i| counted(*i, extent).map(Some));
        let picks = picks.collect::<Result<Vec<_>, _>>()?;
        let taken = self.along(x, at, picks, 0.0, name)?;
        let dims = [&x.dims[..at], &indices.dims, &x.dims[at + 1..]].concat();
        ranked(&dims)?;
        Ok(Traced { dims, ..taken })
    }

    /// Slices by their leading coordinates, as torch's dynamo exporter writes `x[:, [2, 1, 0]]`.
    pub(super) fn gather_nd(
        &mut self,
        x: &Traced,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
        name: &str,
    ) -> Result<Traced, Refusal> {
        let indices = constant(operands, 1)?.ok_or("it has no indices")?;
        let values = indices.integers().ok_or("its indices are no integers")?;
        let batch = usize::try_from(a.int("batch_dims", 0)).map_err(|_| "its batch_dims are negative")?;
        let (Some(&depth), count) = (indices.dims.last(), indices.dims.len().saturating_sub(1)) else {
            return Err("its indices are a single number".into());
        };
        if batch > count || depth == 0 || batch + depth > x.dims.len() || indices.dims[..batch] != x.dims[..batch] {
            let why = format!("indices of shape {:?} do not fit a tensor of {:?}, batch_dims {batch}", indices.dims, x.dims);
            return Err(Refusal::Bad(why));
        }
        let inner = &x.dims[batch + depth..];
        let dims = [&indices.dims[..count], inner].concat();
        ranked(&dims)?;
        let coordinates = |at: &[i64]| {
            let mut steps = at.iter().zip(&x.dims[batch..]);
            steps.try_fold(0, |flat, (i, extent)| Ok::<_, String>(flat * extent + counted(*i, *extent)?))
        };
        let starts = values.chunks_exact(depth).map(coordinates).collect::<Result<Vec<usize>, _>>()?;
        let (inner, own): (usize, usize) = (inner.iter().product(), x.dims[batch..].iter().product());
        let per_batch = indices.dims[batch..count].iter().product::<usize>();
        let shape = natural(&dims)?;
        let pick = |e: usize| {
            let (k, i) = (e / inner, e % inner);
            Some(k / per_batch * own + starts[k] * inner + i)
        };
        let view = self.view(x, name)?.gathered(shape, 0.0, &mut self.room, pick)?;
        Ok(self.viewed(view, dims, name))
    }

    pub(super) fn pad(
        &mut self,
        x: &Traced,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
        name: &str,
    ) -> Result<Traced, Refusal> {
        let (pads, value, axes) = (constant(operands, 1)?, constant(operands, 2)?, constant(operands, 3)?);
        let pads = pads.ok_or("it has no pads")?;
        let pads = pads.integers().ok_or("its pads are no integers")?;
        let mode = match a.text("mode") {
            "" => "constant",
            mode => mode,
        };
        let value = value.filter(|v| v.len() > 0).map_or(Some(0.0), |v| v.uniform()).ok_or("it pads with several values")?;
        let axes = axes.as_ref().map(|axes| axes.integers().ok_or("its axes are no integers")).transpose()?;
        let axes = axes_or_all(axes, x.dims.len())?;
        if pads.len() != 2 * axes.len() {
            return Err(Refusal::Bad(format!("{} pads for {} axes", pads.len(), axes.len())));
        }
        let mut x = x.clone();
        for (k, &at) in axes.iter().enumerate() {
            let (before, after, n) = (pads[k], pads[k + axes.len()], x.dims[at] as i64);
            let limit = MAX_EXTENT as i64;
            if before.saturating_abs().max(after.saturating_abs()) > limit || n + before + after < 1 {
                return Err(Refusal::Bad(format!("axis {at} of {n} is padded by {before} and {after}")));
            }
            // What is cut off is cut first: it is not there to be reflected.
            let (start, end) = ((-before).max(0), n - (-after).max(0));
            let kept = end - start;
            let pick = |i: i64| match mode {
                _ if (0..kept).contains(&i) => Ok(Some((start + i) as usize)),
                "constant" => Ok(None),
                _ if kept < 1 => Err(Refusal::Bad(format!("nothing of axis {at} of {n} is left to be repeated"))),
                "edge" => Ok(Some((start + i.clamp(0, kept - 1)) as usize)),
                "wrap" => Ok(Some((start + i.rem_euclid(kept)) as usize)),
                "reflect" if -kept < i && i <= 2 * (kept - 1) => {
                    Ok(Some((start + if i < 0 { -i } else { 2 * (kept - 1) - i }) as usize))
                }
                "reflect" => Err(Refusal::Unsupported(
                    format!("axis {at} of {kept} is reflected by {before} and {after}; at most {} can be", kept - 1).into(),
                )),
                mode => Err(Refusal::Unsupported(format!("padding in mode {mode:?} is not known").into())),
            };
            let picks = (-before.max(0)..kept + after.max(0)).map(pick).collect::<Result<Vec<_>, _>>()?;
            x = self.along(&x, at, picks, value, name)?;
        }
        Ok(x)
    }

    /// Repeated along axes of 1 and new leading ones.
    pub(super) fn expand(&mut self, x: &Traced, operands: &[Option<Known>], name: &str) -> Result<Traced, Refusal> {
        let wanted = constant(operands, 1)?.ok_or("it has no shape")?;
        let wanted = wanted.integers().ok_or("its shape is not made of integers")?;
        let wanted: Option<Vec<usize>> = wanted.iter().map(|d| usize::try_from(*d).ok()).collect();
        let dims = common(&x.dims, &wanted.ok_or("a negative extent")?)?;
        self.repeated(x, &dims, name)
    }

    /// Repeated along axes of one element, to a shape that has those of x as its last ones.
    pub(super) fn repeated(&mut self, x: &Traced, dims: &[usize], name: &str) -> Result<Traced, Refusal> {
        ranked(dims)?;
        bounded(dims)?;
        let own = [vec![1; dims.len() - x.dims.len()], x.dims.clone()].concat();
        let mut x = Traced { dims: own, ..x.clone() };
        for (at, extent) in dims.iter().copied().enumerate().filter(|(_, extent)| *extent > 1) {
            if x.dims[at] == 1 {
                listed(extent)?;
                x = self.along(&x, at, vec![Some(0); extent], 0.0, name)?;
            }
        }
        Ok(x)
    }

    /// Repeated whole along each axis.
    pub(super) fn tile(&mut self, x: &Traced, operands: &[Option<Known>], name: &str) -> Result<Traced, Refusal> {
        let repeats = constant(operands, 1)?.ok_or("it has no repeats")?;
        let repeats = repeats.integers().ok_or("its repeats are no integers")?;
        if repeats.len() != x.dims.len() {
            return Err(Refusal::Bad(format!("{} repeats for {} axes", repeats.len(), x.dims.len())));
        }
        let mut x = x.clone();
        for (at, times) in repeats.iter().enumerate() {
            let n = x.dims[at];
            let times = extent(*times).filter(|t| t * n <= MAX_EXTENT).ok_or_else(|| format!("an axis of {n} {times} times"))?;
            x = self.along(&x, at, (0..times * n).map(|i| Some(i % n)).collect(), 0.0, name)?;
        }
        Ok(x)
    }

    /// Channels to pixels, or (`back`) pixels to channels: a reshape, a transposition and a reshape.
    pub(super) fn depth_to_space(&mut self, x: &Traced, back: bool, a: &Attributes<'_>, name: &str) -> Result<Traced, Refusal> {
        let block = extent(a.int("blocksize", 0)).ok_or("it has no blocksize")?;
        let [n, c, h, w] = x.dims[..] else { return Err(Refusal::Bad(format!("it is used on a tensor of {:?}", x.dims))) };
        let (apart, order, dims) = if back {
            if !h.is_multiple_of(block) || !w.is_multiple_of(block) {
                return Err(Refusal::Bad(format!("{h}x{w} is not made of blocks of {block}")));
            }
            let apart = vec![n, c, h / block, block, w / block, block];
            (apart, [0, 3, 5, 1, 2, 4], vec![n, c * block * block, h / block, w / block])
        } else {
            if !c.is_multiple_of(block * block) {
                return Err(Refusal::Bad(format!("{c} channels are not made of blocks of {block}x{block}")));
            }
            let each = c / (block * block);
            let (apart, order) = match a.text("mode") {
                "" | "DCR" => (vec![n, block, block, each, h, w], [0, 3, 4, 1, 5, 2]),
                "CRD" => (vec![n, each, block, block, h, w], [0, 1, 4, 2, 5, 3]),
                mode => return Err(Refusal::Unsupported(format!("mode={mode:?} is not known").into())),
            };
            (apart, order, vec![n, each, h * block, w * block])
        };
        let x = self.transposed(&Traced { dims: apart, ..x.clone() }, &order, name)?;
        Ok(Traced { dims, ..x })
    }

    /// Tensors one after the other along an axis.
    pub(super) fn concat(&mut self, operands: &[Option<Known>], a: &Attributes<'_>, name: &str) -> Result<Traced, Refusal> {
        // What has no elements adds none, and its rank says nothing.
        let rank = operands.iter().flatten().find_map(|operand| match operand {
            Known::Traced(x) => Some(Ok(x.dims.len())),
            Known::Constant(c) => (c.len() > 0).then_some(Ok(c.dims.len())),
            Known::Lost => Some(Err(Refusal::Lost)),
        });
        let rank = rank.ok_or("it has no operands")??;
        self.joined(operands, axis(a.int("axis", 1), rank)?, name)
    }

    /// Tensors one after the other along an axis.
    pub(super) fn joined(&mut self, operands: &[Option<Known>], at: usize, name: &str) -> Result<Traced, Refusal> {
        let mut parts = Vec::with_capacity(operands.len());
        for operand in operands.iter().flatten() {
            parts.push(match operand {
                Known::Traced(x) => (self.view(x, name)?, x.dims.clone()),
                Known::Constant(c) if c.len() == 0 => continue,
                Known::Constant(c) => (View::of_constants(&c.dims, c.real(), &mut self.room)?, c.dims.clone()),
                Known::Lost => return Err(Refusal::Lost),
            });
        }
        let mut dims = parts.first().ok_or("it has no operands")?.1.clone();
        let fits = |own: &[usize]| own.len() == dims.len() && (0..dims.len()).all(|i| i == at || own[i] == dims[i]);
        if let Some((_, own)) = parts.iter().find(|(_, own)| !fits(own)) {
            return Err(Refusal::Bad(format!("{dims:?} and {own:?} cannot be joined along axis {at}")));
        }
        dims[at] = parts.iter().map(|(_, own)| own[at]).sum();
        bounded(&dims)?;
        if dims[at] > MAX_EXTENT {
            return Err(Refusal::Bad(format!("it makes an axis of {} elements, the limit is {MAX_EXTENT}", dims[at])));
        }
        let mut before = 0;
        let mut views = Vec::with_capacity(parts.len());
        for (view, own) in parts {
            self.budget.take((view.parts.len() + 1) * (view.shape.channels + view.shape.height + view.shape.width + dims[at]))?;
            let picks: Vec<Option<usize>> = (0..dims[at]).map(|i| i.checked_sub(before).filter(|i| *i < own[at])).collect();
            views.push(view.along(&own, at, &picks, 0.0, &mut self.room)?);
            before += own[at];
        }
        let view = View::merged(views, natural(&dims)?, &mut self.room)?;
        let made = self.viewed(view, dims, name);
        let traced = |operand: &Option<Known>| match operand {
            Some(Known::Traced(x)) => Some(x.clone()),
            _ => None,
        };
        if let Some(parts) = operands.iter().map(traced).collect() {
            self.note_stack(&made, at, parts);
        }
        Ok(made)
    }

    pub(super) fn split(
        &mut self,
        x: &Traced,
        node: &'f NodeProto,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
        name: &str,
    ) -> Result<(), Refusal> {
        let at = axis(a.int("axis", 0), x.dims.len())?;
        let n = x.dims[at];
        listed(n)?;
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
            let part = self.along(x, at, (first..first + size).map(Some).collect(), 0.0, name)?;
            self.make(node, i, Known::Traced(part));
            first += size;
        }
        Ok(())
    }
}

/// An index counted from the end if negative.
fn counted(i: i64, extent: usize) -> Result<usize, String> {
    let at = if i < 0 { i.saturating_add(extent as i64) } else { i };
    usize::try_from(at).ok().filter(|at| *at < extent).ok_or_else(|| format!("there is no index {i} of {extent}"))
}

/// An axis that is moved is written out as a list.
fn listed(extent: usize) -> Result<(), Refusal> {
    if extent > MAX_EXTENT {
        return Err(Refusal::Unsupported(format!("an axis of {extent} elements is moved, the limit is {MAX_EXTENT}").into()));
    }
    Ok(())
}

fn ranked(dims: &[usize]) -> Result<(), Refusal> {
    if dims.len() > MAX_RANK {
        return Err(Refusal::Bad(format!("it makes a tensor of {} axes, the limit is {MAX_RANK}", dims.len())));
    }
    Ok(())
}

//! Files that are written for a batch of several pictures, of which one is read. Pictures come one after the other along the first axis
//! of every tensor that depends on them, so that the first elements of each are those of the first picture; what would mix pictures,
//! and numbers that depend on how many there are, are refused.

use super::attributes::Attributes;
use super::constant::{Constant, Data, axis, slice};
use super::graph::{Importer, Known, Refusal};
use super::op::Op;
use super::schema::NodeProto;
use std::rc::Rc;

impl<'f> Importer<'f> {
    fn mixed(&self, what: &str) -> Refusal {
        let advice = format!("the file is for batches of {} pictures, and here {what}: export with a batch of 1", self.batch);
        Refusal::Unsupported(advice.into())
    }

    /// Makes the operands of a node those of one picture.
    pub(super) fn of_one(&self, node: &'f NodeProto, operands: &mut Vec<Option<Known>>) -> Result<(), Refusal> {
        let traced = operands.iter().flatten().find_map(|o| if let Known::Traced(x) = o { Some(x.dims.clone()) } else { None });
        let Some(dims) = traced.filter(|_| self.batch > 1) else { return Ok(()) };
        let (a, rank, op) = (Attributes(node), dims.len(), node.op());
        // Shapes say how many pictures there are, and are made those of one.
        let shape = match op {
            Op::Reshape | Op::Expand => Some(1),
            Op::Resize => Some(3),
            _ => None,
        };
        for (i, name) in node.input.iter().enumerate() {
            let Some(written) = self.as_written.get(name.as_str()) else { continue };
            if shape != Some(i) {
                return Err(self.mixed(&format!("a number is used, {name:?}, that depends on how many pictures there are")));
            }
            operands[i] = Some(Known::Constant(written.clone()));
        }
        if let Some(Some(Known::Constant(target))) = shape.and_then(|i| operands.get(i)) {
            let one = self.shape_of_one(op, target, &dims, &a)?;
            operands[shape.unwrap_or(0)] = Some(Known::Constant(one));
        }
        let integers = |i: usize| match operands.get(i) {
            Some(Some(Known::Constant(c))) => c.integers().map(<[i64]>::to_vec),
            _ => None,
        };
        let list = |name: &str, i: usize| integers(i).or_else(|| a.ints(name).map(<[i64]>::to_vec));
        let is_first = |at: &i64| axis(*at, rank) == Ok(0);
        let mixes = match op {
            Op::Transpose => a.ints("perm").map_or(rank > 1, |perm| !perm.first().is_some_and(is_first)),
            Op::Flatten => rank > 0 && is_first(&a.int("axis", 1)),
            Op::Gather => is_first(&a.int("axis", 0)),
            Op::GatherND => a.int("batch_dims", 0) == 0,
            Op::Split => is_first(&a.int("axis", 0)),
            Op::Concat => is_first(&a.int("axis", 1)),
            Op::Squeeze => match list("axes", 1) {
                Some(axes) => axes.iter().any(is_first),
                None => {
                    // The first axis is of several pictures, and stays.
                    let axes = (1..rank).filter(|at| dims[*at] == 1).map(|at| at as i64).collect();
                    operands.resize(2, None);
                    operands[1] = Some(Known::Constant(Rc::new(Constant::whole(axes))));
                    false
                }
            },
            Op::Unsqueeze => list("axes", 1).is_some_and(|axes| axes.iter().any(|at| axis(*at, rank + axes.len()) == Ok(0))),
            Op::Slice => {
                let (starts, ends) = (integers(1).unwrap_or_default(), integers(2).unwrap_or_default());
                let all = self.batch.saturating_mul(dims.first().copied().unwrap_or(1));
                starts.iter().zip(&ends).enumerate().any(|(k, (start, end))| {
                    let at = integers(3).map_or(Some(k as i64), |axes| axes.get(k).copied()).unwrap_or(0);
                    let step = integers(4).map_or(Some(1), |steps| steps.get(k).copied()).unwrap_or(1);
                    is_first(&at) && slice(all, *start, *end, step).is_ok_and(|picks| !picks.into_iter().eq((0..all).map(Some)))
                })
            }
            Op::Pad => {
                let pads = list("pads", 1).unwrap_or_default();
                let axes = integers(3).unwrap_or_else(|| (0..rank as i64).collect());
                let of = |i: usize| pads.get(i).copied().unwrap_or(0);
                axes.iter().enumerate().any(|(k, at)| is_first(at) && (of(k) != 0 || of(k + axes.len()) != 0))
            }
            Op::Tile => integers(1).is_some_and(|times| times.first().is_some_and(|t| *t != 1)),
            Op::Resize | Op::Upsample => match operands.get(if op == Op::Resize { 2 } else { 1 }) {
                Some(Some(Known::Constant(scales))) => {
                    scales.len() > 0
                        && a.ints("axes").is_none_or(|axes| axes.first().is_some_and(is_first))
                        && scales.at(0) != 1.0
                }
                _ => false,
            },
            op if op.is_reduction() => {
                let axes = list("axes", 1).unwrap_or_default();
                let none = axes.is_empty() && a.int("noop_with_empty_axes", 0) == 0;
                none || axes.iter().any(is_first)
            }
            _ => false,
        };
        if mixes { Err(self.mixed("pictures are mixed")) } else { Ok(()) }
    }

    /// The shape that an operator is to make, of one picture.
    fn shape_of_one(&self, op: Op, target: &Rc<Constant>, dims: &[usize], a: &Attributes<'_>) -> Result<Rc<Constant>, Refusal> {
        let Some([first, rest @ ..]) = target.integers() else { return Ok(target.clone()) };
        // Fewer extents than axes leave the first axis alone.
        let of_first = match op {
            Op::Reshape => true,
            Op::Expand => rest.len() + 1 >= dims.len(),
            _ => a.ints("axes").is_none_or(|axes| axes.first().is_some_and(|at| axis(*at, dims.len()) == Ok(0))),
        };
        let same_rank = op != Op::Expand || rest.len() + 1 == dims.len();
        if !of_first || matches!((op, first), (Op::Reshape, -1 | 0)) || (op == Op::Expand && *first == 1 && same_rank) {
            return Ok(target.clone());
        }
        let batch = self.batch as i64;
        if first % batch == 0 && *first > 0 && same_rank {
            return Ok(Rc::new(Constant::whole([&[first / batch], rest].concat())));
        }
        Err(self.mixed(&format!("a {} to {:?} may mix them", op.to_string().to_lowercase(), target.integers().unwrap_or(&[]))))
    }

    /// Notes what a shape or size is in the file, where that is not what it is for one picture. `dims`: those of one.
    pub(super) fn note_written(&mut self, node: &'f NodeProto, of_one: &Constant, first: bool, size: bool) {
        let (Some(values), true) = (of_one.integers(), self.batch > 1 && first) else { return };
        let mut values = values.to_vec();
        if let (Some(value), Some(name)) = (values.first_mut(), node.output.first()) {
            *value = value.saturating_mul(self.batch as i64);
            let dims = if size { Vec::new() } else { of_one.dims.clone() };
            self.as_written.insert(name, Rc::new(Constant { dims, data: Data::Whole(values) }));
        }
    }
}

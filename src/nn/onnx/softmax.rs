//! Softmax and its logarithm. At the end of a network it keeps the order of what it is fed, so the largest result stays the largest
//! and it is left out. Inside one it divides by a sum, which encrypted numbers cannot; but of two it is a function of their difference,
//! `e^a / (e^a + e^b) = sigmoid(a - b)`, as selective-kernel and split attention have it.

use super::attributes::Attributes;
use super::constant::{Constant, axis, product};
use super::graph::{Importer, Known, Refusal, Traced};
use super::op::Op;
use super::schema::NodeProto;
use crate::nn::model::formula::{Binary, Unary};
use crate::nn::model::{ActivationFunction, printable};

/// Since which opset a softmax is of one axis; before, of an axis and all behind it.
const OF_ONE_AXIS: i64 = 13;

/// The elements that are normalised together: those along an axis of a tensor of extents `dims`, the softmax's own with what its opset
/// puts into one.
struct Groups {
    dims: Vec<usize>,
    axis: usize,
}

impl Groups {
    fn size(&self) -> usize {
        self.dims.get(self.axis).copied().unwrap_or(0)
    }
}

impl Importer<'_> {
    /// Whether a softmax of constants is of an opset where it is of its axis and all behind it, and those are several.
    pub(super) fn old_softmax(&self, attributes: &Attributes<'_>, operands: &[Option<&Constant>]) -> Result<bool, Refusal> {
        let rank = operands.first().copied().flatten().map_or(0, |x| x.dims.len());
        Ok(self.opset < OF_ONE_AXIS && rank > 0 && axis(attributes.int("axis", 1), rank)? != rank - 1)
    }

    fn groups(&self, x: &Traced, node: &NodeProto) -> Result<Groups, Refusal> {
        let of_one_axis = self.opset >= OF_ONE_AXIS;
        let at = axis(Attributes(node).int("axis", if of_one_axis { -1 } else { 1 }), x.dims.len())?;
        let mut dims = x.dims.clone();
        if !of_one_axis {
            let all_behind = product(&dims[at..]).ok_or("a shape overflows")?;
            dims.truncate(at);
            dims.push(all_behind);
        }
        Ok(Groups { dims, axis: at })
    }

    /// A softmax or its logarithm; `last` if all that follows only moves elements.
    pub(super) fn softmax(&mut self, x: &Traced, node: &NodeProto, last: bool, name: &str) -> Result<Traced, Refusal> {
        let groups = self.groups(x, node)?;
        let (group, all) = (groups.size(), product(&x.dims).unwrap_or(0));
        let over_pictures = groups.axis == 0 && self.batch > 1;
        if last && group == all && !over_pictures {
            self.about_result = Some(format!(
                "{} {:?} at the end is left out: the result is what it is fed",
                node.op_type,
                printable(&node.name)
            ));
            return Ok(x.clone());
        }
        if group == 2 && !over_pictures {
            let apart = Traced { dims: groups.dims, ..x.clone() };
            let made = self.softmax_of_two(&apart, groups.axis, node.op() == Op::LogSoftmax, name)?;
            return Ok(Traced { dims: x.dims.clone(), ..made });
        }
        let why = if last {
            // Within groups the largest of a group would stay, but not the largest of all.
            format!(
                "along axis {} of {:?} it normalises groups of {group} of the {all} results apart; one over all of them is left out, since \
                 the largest stays the largest, and groups of 2 are computed: leave this one out yourself, or let it be over all",
                groups.axis, x.dims
            )
        } else {
            format!(
                "inside a network it divides by sums (of {group} here; of 2 it is the sigmoid of their difference and is computed): leave it out \
                 (at the end of one it is dropped)"
            )
        };
        Err(Refusal::Unsupported(why.into()))
    }

    /// `sigmoid(a - b)` and `sigmoid(b - a)` along an axis of two, or `-softplus(b - a)` and `-softplus(a - b)`.
    fn softmax_of_two(&mut self, x: &Traced, at: usize, logarithm: bool, name: &str) -> Result<Traced, Refusal> {
        let value = self.settle(x, name)?;
        let own = Traced::of(value, x.dims.clone());
        let other = self.along(&own, at, vec![Some(1), Some(0)], 0.0, name)?;
        let (first, second) = if logarithm { (other, own) } else { (own, other) };
        let ahead = self.binary(Binary::Subtract, &Known::Traced(first), &Known::Traced(second), name)?;
        if logarithm {
            let softplus = self.apply(&ahead, &ActivationFunction::Softplus, name)?;
            return self.unary(&softplus, Unary::Negative, name);
        }
        self.apply(&ahead, &ActivationFunction::Sigmoid, name)
    }
}

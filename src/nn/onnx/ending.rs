//! A softmax at the end of a network: it keeps the order of what it is fed, so the largest result stays the largest and it is left out.

use super::attributes::Attributes;
use super::constant::{Constant, axis, product};
use super::graph::{Importer, Refusal, Traced};
use super::op::Op;
use super::schema::{GraphProto, NodeProto};
use crate::nn::model::printable;
use std::collections::{HashMap, HashSet};

/// Operators that pass every element on, in whatever shape and order.
const VIEWS: [Op; 7] = [Op::Dropout, Op::Flatten, Op::Identity, Op::Reshape, Op::Squeeze, Op::Transpose, Op::Unsqueeze];
/// Since which opset a softmax is of one axis; before, of an axis and all behind it.
const OF_ONE_AXIS: i64 = 13;

/// The values that are the result or are passed on to it and to nothing else. `order`: the nodes that the result depends on.
pub(super) fn values<'f>(graph: &'f GraphProto, order: &[usize], output: &'f str) -> HashSet<&'f str> {
    let mut readers: HashMap<&str, usize> = HashMap::new();
    let nodes = || order.iter().map(|i| &graph.node[*i]);
    nodes().flat_map(|node| &node.input).for_each(|name| *readers.entry(name).or_default() += 1);
    let makers: HashMap<&str, &NodeProto> =
        nodes().flat_map(|node| node.output.iter().map(move |name| (name.as_str(), node))).collect();
    let mut ends = HashSet::new();
    let mut next = Some(output);
    while let Some(name) = next.filter(|name| ends.insert(*name)) {
        let of = makers.get(name).copied().filter(|node| {
            let cast = || node.op() == Op::Cast && matches!(Attributes(node).int("to", 1), 1 | 10 | 11 | 16);
            VIEWS.contains(&node.op()) || cast()
        });
        next = of.and_then(|node| node.input.first()).map(String::as_str).filter(|name| readers.get(name) == Some(&1));
    }
    ends
}

impl Importer<'_> {
    /// Whether a softmax of constants is of an opset where it is of its axis and all behind it, and those are several.
    pub(super) fn old_softmax(&self, attributes: &Attributes<'_>, operands: &[Option<&Constant>]) -> Result<bool, Refusal> {
        let rank = operands.first().copied().flatten().map_or(0, |x| x.dims.len());
        Ok(self.opset < OF_ONE_AXIS && rank > 0 && axis(attributes.int("axis", 1), rank)? != rank - 1)
    }

    /// Leaves out a softmax or its logarithm at the end, if all results of a picture are normalised together: within groups the largest
    /// of a group would stay, but not the largest of all.
    pub(super) fn last_softmax(&mut self, x: Traced, node: &NodeProto) -> Result<Traced, Refusal> {
        let rank = x.dims.len();
        let at = axis(Attributes(node).int("axis", if self.opset < OF_ONE_AXIS { 1 } else { -1 }), rank)?;
        let group = if self.opset < OF_ONE_AXIS { product(&x.dims[at..]) } else { x.dims.get(at).copied() };
        let all = product(&x.dims).unwrap_or(0);
        if group != Some(all) || (at == 0 && self.batch > 1) {
            let group = group.unwrap_or(0);
            let why = format!(
                "along axis {at} of {:?} it normalises groups of {group} of the {all} results apart; one over all of them is left out, since \
                 the largest stays the largest: leave this one out yourself, or let it be over all",
                x.dims
            );
            return Err(Refusal::Unsupported(why.into()));
        }
        self.left_out =
            Some(format!("{} {:?} at the end is left out: the result is what it is fed", node.op_type, printable(&node.name)));
        Ok(x)
    }
}

//! The end of a graph: which values are the result, passed on by what only moves elements.

use super::attributes::Attributes;
use super::op::Op;
use super::schema::{GraphProto, NodeProto};
use std::collections::{HashMap, HashSet};

/// Operators that pass every element on, in whatever shape and order.
const VIEWS: [Op; 7] = [Op::Dropout, Op::Flatten, Op::Identity, Op::Reshape, Op::Squeeze, Op::Transpose, Op::Unsqueeze];

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

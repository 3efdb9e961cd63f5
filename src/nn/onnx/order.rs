//! A graph before it is walked: its constants, whether its pictures have their channels last, and the order of its nodes.

use super::OnnxError;
use super::attributes::Attributes;
use super::constant::Constant;
use super::external::Folder;
use super::op::Op;
use super::schema::{GraphProto, NodeProto};
use crate::nn::model::{ModelError, Operand, operands_first, printable};
use crate::nn::tensor::Shape;
use std::collections::{HashMap, HashSet};

/// The constants of a graph by name.
pub(super) fn initializers(graph: &GraphProto) -> Result<HashMap<&str, usize>, OnnxError> {
    if let Some(sparse) = graph.sparse_initializer.first() {
        let tensor = sparse.values.as_ref().map_or_else(String::new, |values| values.name.clone());
        return Err(OnnxError::Tensor { tensor, reason: "it is sparse: write it as a dense one".into() });
    }
    let mut found = HashMap::with_capacity(graph.initializer.len());
    for (i, tensor) in graph.initializer.iter().enumerate() {
        if found.insert(tensor.name.as_str(), i).is_some() {
            let reason = "the file gives it twice, and only one can be meant: name each constant once".into();
            return Err(OnnxError::Tensor { tensor: tensor.name.clone(), reason });
        }
    }
    Ok(found)
}

/// Whether a file takes pictures with their channels last, as TensorFlow does: all that it does to them is to bring the channels
/// to the front, but for sums and products before.
pub(super) fn channels_last(graph: &GraphProto, input: &str, shape: Shape, initializers: &HashMap<&str, usize>) -> bool {
    // The extents as they are read before it is known: the last is called the width.
    let (height, width, channels) = (shape.channels, shape.height, shape.width);
    if channels > 4 {
        return false;
    }
    // Of a single channel, a reshape does it too.
    let target = |name: &str| {
        let tensor = match initializers.get(name) {
            Some(at) => Some(&graph.initializer[*at]),
            None => {
                let maker = graph.node.iter().find(|n| n.op() == Op::Constant && n.output.first().is_some_and(|o| o == name));
                maker.and_then(|n| Attributes(n).tensor("value"))
            }
        };
        let constant = Constant::decode(tensor?, name, &Folder::new(None)).ok()?;
        constant.integers().map(<[i64]>::to_vec)
    };
    let to_front = |node: &NodeProto| {
        let target = node.input.get(1).and_then(|name| target(name));
        channels == 1 && target.is_some_and(|t| t.get(1..) == Some(&[1, height as i64, width as i64]))
    };
    let mut names = HashSet::from([input]);
    let mut found = false;
    for node in graph.node.iter().filter(|node| node.op() != Op::Shape) {
        if !node.input.iter().any(|name| names.contains(name.as_str())) {
            continue;
        }
        match node.op() {
            Op::Identity | Op::Cast | Op::Add | Op::Sub | Op::Mul | Op::Div => {
                names.extend(node.output.iter().map(String::as_str))
            }
            Op::Transpose if Attributes(node).ints("perm") == Some(&[0, 3, 1, 2]) => found = true,
            Op::Reshape if to_front(node) => found = true,
            _ => return false,
        }
    }
    found
}

/// What messages call a node.
pub(super) fn called(node: &NodeProto, index: usize) -> String {
    if node.name.is_empty() { format!("number {index}") } else { printable(&node.name).into_owned() }
}

/// Indices of the nodes that the outputs depend on, each after its operands.
pub(super) fn order(
    graph: &GraphProto,
    input: &str,
    initializers: &HashMap<&str, usize>,
    outputs: &[&str],
) -> Result<Vec<usize>, ModelError> {
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        for value in node.output.iter().filter(|o| !o.is_empty()) {
            if value == input || makers.insert(value, i).is_some() {
                return Err(ModelError::DuplicateValue { node: called(node, i), value: value.clone() });
            }
        }
    }
    let maker = |by: &str, value: &str| match makers.get(value) {
        Some(i) => Ok(Operand::Node(*i)),
        None if value.is_empty() || value == input || initializers.contains_key(value) => Ok(Operand::Given),
        None => Err(ModelError::UndefinedValue { node: by.to_owned(), value: value.to_owned() }),
    };
    let operand = |i: usize, k: usize| {
        let node = &graph.node[i];
        node.input.get(k).map(|value| maker(&called(node, i), value)).transpose()
    };
    let mut order = Vec::new();
    let mut placed = vec![false; graph.node.len()];
    for output in outputs {
        let root = maker("the graph's output", output)?;
        let needed = operands_first(graph.node.len(), root, operand, |i| called(&graph.node[i], i))?;
        order.extend(needed.into_iter().filter(|i| !std::mem::replace(&mut placed[*i], true)));
    }
    Ok(order)
}

//! The nodes that an output depends on, in an order in which they can be computed.

use super::ModelError;

/// How far the walk has come with a node.
#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Open,
    Done,
}

/// What a node reads as one of its operands.
pub(in crate::nn) enum Operand {
    /// What another node makes.
    Node(usize),
    /// What is there without one: the input, a constant.
    Given,
}

/// Indices of the nodes that node `last` of `count` depends on, each after its operands, and itself at the end. `operand(i, k)` is operand k
/// of node i, or none behind its last.
///
/// # Errors
/// [`ModelError::Cycle`] with the nodes of it, by `name`; those of `operand`.
pub(in crate::nn) fn operands_first(
    count: usize,
    last: Operand,
    operand: impl Fn(usize, usize) -> Result<Option<Operand>, ModelError>,
    name: impl Fn(usize) -> String,
) -> Result<Vec<usize>, ModelError> {
    let mut state = vec![State::New; count];
    let mut order = Vec::new();
    // Depth-first with an explicit stack: (node, next operand to visit).
    let mut stack = match last {
        Operand::Node(i) => vec![(i, 0)],
        Operand::Given => Vec::new(),
    };
    while let Some((i, next)) = stack.pop() {
        state[i] = State::Open;
        let Some(read) = operand(i, next)? else {
            state[i] = State::Done;
            order.push(i);
            continue;
        };
        stack.push((i, next + 1));
        let Operand::Node(j) = read else { continue };
        match state[j] {
            State::New => stack.push((j, 0)),
            State::Done => {}
            State::Open => {
                let from = stack.iter().position(|(k, _)| *k == j).unwrap_or(0);
                return Err(ModelError::Cycle { nodes: stack[from..].iter().map(|(k, _)| name(*k)).collect() });
            }
        }
    }
    Ok(order)
}

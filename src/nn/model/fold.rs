//! Folding batch normalisation into what comes before it.

use super::{Model, Node, Operator, Value};

impl Model {
    /// The same function with every batch normalisation that follows a convolution or linear layer, and is its only
    /// reader, folded into it. Exact up to the rounding of f64.
    pub fn fold_batch_norms(&self) -> Self {
        self.clone().into_folded()
    }

    /// As [`Self::fold_batch_norms`], without a copy of the weights.
    pub(in crate::nn) fn into_folded(mut self) -> Self {
        let mut readers = vec![0usize; self.nodes.len() + 1];
        readers[self.output.0] += 1;
        self.nodes.iter().flat_map(|n| &n.inputs).for_each(|v| readers[v.0] += 1);

        let mut nodes: Vec<Node> = Vec::new();
        let mut renamed = vec![Value(0)];
        for node in std::mem::take(&mut self.nodes) {
            let operand = node.inputs[0];
            let inputs: Vec<Value> = node.inputs.iter().map(|v| renamed[v.0]).collect();
            if let Operator::BatchNorm { factor, offset } = &node.operator
                && readers[operand.0] == 1
                && let Some(at) = inputs[0].0.checked_sub(1)
                && scale_outputs(&mut nodes[at].operator, factor, offset)
            {
                renamed.push(inputs[0]);
                continue;
            }
            nodes.push(Node { inputs, ..node });
            renamed.push(Value(nodes.len()));
        }
        Self { nodes, output: renamed[self.output.0], ..self }
    }
}

/// `y -> factor y + offset` per output channel, if the operator has weights that take it.
fn scale_outputs(operator: &mut Operator, factor: &[f64], offset: &[f64]) -> bool {
    let (weight, bias) = match operator {
        Operator::Conv2d(c) => (&mut c.weight, &mut c.bias),
        Operator::Linear { weight, bias } => (weight, bias),
        _ => return false,
    };
    let row = weight.len() / bias.len();
    for (c, (f, o)) in factor.iter().zip(offset).enumerate() {
        weight[c * row..(c + 1) * row].iter_mut().for_each(|w| *w *= f);
        bias[c] = bias[c] * f + o;
    }
    true
}

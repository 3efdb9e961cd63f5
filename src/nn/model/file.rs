//! From bytes to a parsed, unchecked graph.

use super::{
    ActivationFunction, Content, Fit, MAX_FILE_BYTES, MAX_NODES, Model, ModelError, Normalisation, NumberType, TensorData,
    UnsupportedOperator, check,
};
use crate::nn::Notes;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::collections::HashMap;

/// The metadata entry that names the format, and its value.
pub(super) const FORMAT: (&str, &str) = ("format", "cipherlens-model");
/// The metadata entry with the version, and its value.
pub(super) const VERSION: (&str, &str) = ("version", "1");

#[derive(Deserialize)]
pub(in crate::nn) struct GraphSpec<N = NodeSpec> {
    pub name: String,
    pub input: InputSpec,
    #[serde(default)]
    pub classes: Vec<String>,
    pub nodes: Vec<N>,
    pub output: String,
    /// A power of two; without one, 1.
    #[serde(default)]
    pub output_divisor: Option<f64>,
    #[serde(default)]
    pub training: Notes,
}

#[derive(Deserialize)]
pub(in crate::nn) struct InputSpec {
    pub name: String,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub mean: Vec<f64>,
    pub std: Vec<f64>,
    #[serde(default)]
    pub normalisation: Normalisation,
    #[serde(default)]
    pub fit: Fit,
}

#[derive(Deserialize)]
pub(in crate::nn) struct NodeSpec {
    pub name: String,
    pub inputs: Vec<String>,
    pub output: String,
    #[serde(flatten)]
    pub operator: OperatorSpec,
}

fn ones() -> [usize; 2] {
    [1, 1]
}

fn one() -> usize {
    1
}

fn epsilon() -> f64 {
    1e-5
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(in crate::nn) enum OperatorSpec {
    Conv2d {
        weight: String,
        bias: Option<String>,
        #[serde(default = "ones")]
        stride: [usize; 2],
        #[serde(default)]
        padding: [usize; 4],
        #[serde(default = "ones")]
        dilation: [usize; 2],
        #[serde(default = "one")]
        groups: usize,
    },
    Polynomial {
        coefficients: String,
    },
    Activation {
        function: ActivationFunction,
    },
    Fitted {
        function: ActivationFunction,
        /// The polynomial, or several that are applied one after the other: tensors of Chebyshev coefficients.
        coefficients: Vec<String>,
        interval: [f64; 2],
        /// Whether they are the s of `x (1 + s(x)) / 2`.
        #[serde(default)]
        composite: bool,
    },
    BatchNorm {
        scale: String,
        bias: String,
        mean: String,
        var: String,
        #[serde(default = "epsilon")]
        epsilon: f64,
    },
    AvgPool2d {
        kernel: [usize; 2],
        stride: Option<[usize; 2]>,
        #[serde(default)]
        padding: [usize; 4],
        #[serde(default)]
        count_include_pad: bool,
    },
    GlobalAvgPool,
    Flatten,
    Rearrange {
        channels: Vec<Option<usize>>,
        rows: Vec<Option<usize>>,
        columns: Vec<Option<usize>>,
    },
    Gather {
        /// In the shape of the result: the index of the operand's element, -1 for none.
        sources: String,
        /// In the same shape.
        constants: Option<String>,
    },
    Add,
    Multiply,
    Linear {
        weight: String,
        bias: Option<String>,
    },
}

/// The operators that are read, as the file names them.
const SUPPORTED: [&str; 13] = [
    "conv2d",
    "polynomial",
    "activation",
    "fitted",
    "batch_norm",
    "avg_pool2d",
    "global_avg_pool",
    "flatten",
    "rearrange",
    "gather",
    "add",
    "multiply",
    "linear",
];

/// What to use in place of an operator that is not supported.
fn advice(operator: &str) -> &'static str {
    match operator.to_ascii_lowercase().as_str() {
        "relu" | "relu6" | "leaky_relu" | "gelu" | "silu" | "swish" | "elu" | "hardswish" | "tanh" | "mish" | "softplus" => {
            "write it as {\"op\": \"activation\", \"function\": {\"name\": \"relu\"}}, with its name, and fit it (cipherlens compile), \
             or train with a polynomial node in its place (training/model.py has a quadratic one)"
        }
        "sigmoid" | "softmax" | "log_softmax" => {
            "drop it where it ends the network (the largest logit stays the largest), else use a polynomial node"
        }
        "max_pool2d" | "max_pool" | "maxpool" | "adaptive_max_pool2d" => {
            "write it with rearrange, add and a ReLU, max(a, b) = a + relu(b - a), or use avg_pool2d; ONNX files may hold it as it is"
        }
        "dropout" | "identity" => "it does nothing after training: leave it out of the exported graph",
        "layer_norm" | "group_norm" | "instance_norm" => "it divides by a value of the picture: use batch_norm, which folds",
        _ => {
            "supported: conv2d, polynomial, activation, batch_norm, avg_pool2d, global_avg_pool, flatten, rearrange, gather, \
             add, multiply, linear; rewrite it with these"
        }
    }
}

/// Parses a graph and lists every operator that is not known.
pub(super) fn parse_graph(json: &str) -> Result<GraphSpec, ModelError> {
    let spec: GraphSpec<serde_json::Value> = serde_json::from_str(json).map_err(|e| ModelError::Graph(e.to_string()))?;
    if spec.nodes.len() > MAX_NODES {
        return Err(ModelError::TooManyNodes { found: spec.nodes.len(), limit: MAX_NODES });
    }
    let text = |node: &serde_json::Value, key: &str| node.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    let label = |i: usize, node: &serde_json::Value| text(node, "name").unwrap_or_else(|| format!("number {i}"));
    let mut unsupported = Vec::new();
    for (i, node) in spec.nodes.iter().enumerate() {
        if let Some(operator) = text(node, "op").filter(|op| !SUPPORTED.contains(&op.as_str())) {
            let advice = advice(&operator).into();
            unsupported.push(UnsupportedOperator { node: label(i, node), operator, advice });
        }
    }
    if !unsupported.is_empty() {
        return Err(ModelError::UnsupportedOperators(unsupported));
    }
    let parse = |(i, node): (usize, serde_json::Value)| {
        let name = label(i, &node);
        serde_json::from_value::<NodeSpec>(node).map_err(|e| ModelError::BadNode { node: name, reason: e.to_string() })
    };
    Ok(GraphSpec {
        name: spec.name,
        input: spec.input,
        classes: spec.classes,
        nodes: spec.nodes.into_iter().enumerate().map(parse).collect::<Result<_, _>>()?,
        output: spec.output,
        output_divisor: spec.output_divisor,
        training: spec.training,
    })
}

/// What a file says that numbers are.
fn number_type(dtype: Dtype) -> NumberType {
    match dtype {
        Dtype::F64 => NumberType::F64,
        Dtype::F32 => NumberType::F32,
        Dtype::F16 => NumberType::F16,
        Dtype::BF16 => NumberType::BF16,
        other => NumberType::Other(format!("{other:?}")),
    }
}

/// Reads a whole file.
pub(super) fn read(bytes: &[u8]) -> Result<Model, ModelError> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ModelError::FileTooLarge { bytes: bytes.len() as u64, limit: MAX_FILE_BYTES });
    }
    if let Content::Other { what, advice } = Content::of(bytes) {
        return Err(ModelError::OtherFile { what, advice });
    }
    let not_safetensors = |e: safetensors::SafeTensorError| ModelError::NotSafetensors(e.to_string());
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(not_safetensors)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(not_safetensors)?;
    let empty = HashMap::new();
    let metadata = header.metadata().as_ref().unwrap_or(&empty);
    for (key, expected) in [FORMAT, VERSION] {
        let found = metadata.get(key);
        if found.map(String::as_str) != Some(expected) {
            return Err(ModelError::NotAModel { key, found: found.cloned(), expected });
        }
    }
    let graph =
        metadata.get("graph").ok_or(ModelError::NotAModel { key: "graph", found: None, expected: "the graph, as JSON" })?;
    check::build(parse_graph(graph)?, &|name: &str| {
        let view = tensors.tensor(name).ok()?;
        Some(TensorData { shape: view.shape().to_vec(), dtype: number_type(view.dtype()), bytes: view.data() })
    })
}

//! What can be wrong with a model.

use std::borrow::Cow;
use std::path::PathBuf;

/// Why an ONNX file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// Not ONNX, or damaged.
    #[error("not an ONNX file: {0}")]
    NotOnnx(String),
    /// Operators older than those known.
    #[error("the file uses opset {found}, {least} or later is read; export it again with opset_version={least} or more")]
    Opset {
        /// Its version; 0 if it names none.
        found: i64,
        /// The oldest version read.
        least: i64,
    },
    /// Operators newer than those known.
    #[error("the file uses opset {found}, and up to {most} is known; export it again with an older one, as in opset_version=17")]
    NewerOpset {
        /// Its version.
        found: i64,
        /// The newest version read.
        most: i64,
    },
    /// More or fewer inputs than one.
    #[error("the graph has {found} inputs, this program runs networks of one picture")]
    Inputs {
        /// How many.
        found: usize,
    },
    /// Several results, or none, or none of a name that was asked for.
    #[error("{reason}{}", if .found.is_empty() { String::new() } else { format!("; it gives {}", .found.join(", ")) })]
    Results {
        /// What is wrong.
        reason: String,
        /// The results that the file gives, each as it may be asked for.
        found: Vec<String>,
    },
    /// A shape that is not that of a picture, or open.
    #[error("the input {input:?} has {}: {reason}", if .shape.is_empty() { "no shape".into() } else { format!("shape [{shape}]") })]
    InputShape {
        /// Which input.
        input: String,
        /// Its shape.
        shape: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Weights in another file, which cannot be used.
    #[error("the values of {tensor:?} are in another file, {file:?}: {reason}")]
    ExternalData {
        /// Which tensor.
        tensor: String,
        /// Which file, as the model calls it.
        file: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A constant that cannot be used.
    #[error("tensor {tensor:?}: {reason}")]
    Tensor {
        /// Which.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// The result does not depend on the picture.
    #[error("the output {0:?} does not depend on the picture")]
    ConstantOutput(String),
    /// Beyond a limit.
    #[error("{what} is {found} or more, the limit is {limit}")]
    TooLarge {
        /// What is.
        what: &'static str,
        /// How large.
        found: usize,
        /// The limit.
        limit: usize,
    },
}

/// Why a model file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file cannot be read.
    #[error("cannot read the model {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Larger than this program reads.
    #[error("the model file has {bytes} bytes, the limit is {limit}")]
    FileTooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A file of another kind.
    #[error("it is {what}: {advice}")]
    OtherFile {
        /// With an article.
        what: &'static str,
        /// What to do.
        advice: Cow<'static, str>,
    },
    /// Not safetensors.
    #[error("not a safetensors file: {0}")]
    NotSafetensors(String),
    /// Of an ONNX file.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// Safetensors, but no model of ours.
    #[error("the file's metadata has {key} = {found:?}, expected {expected:?}; training/graph.py shows how to write a model")]
    NotAModel {
        /// Which entry.
        key: &'static str,
        /// What it holds.
        found: Option<String>,
        /// What it must hold.
        expected: &'static str,
    },
    /// The graph's JSON does not parse.
    #[error("the graph is not valid: {0}")]
    Graph(String),
    /// More nodes than allowed.
    #[error("the graph has {found} nodes, the limit is {limit}")]
    TooManyNodes {
        /// Nodes.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Operators this program does not know: all of them.
    #[error("{} unsupported operator{}:{}", .0.len(), if .0.len() == 1 { "" } else { "s" }, list(.0))]
    UnsupportedOperators(Vec<UnsupportedOperator>),
    /// A node's attributes are wrong.
    #[error("node {node:?}: {reason}")]
    BadNode {
        /// Which node.
        node: String,
        /// What is wrong.
        reason: String,
    },
    /// Two nodes make the same value, or one makes the input.
    #[error("node {node:?} makes the value {value:?}, which exists already")]
    DuplicateValue {
        /// The second node.
        node: String,
        /// The value.
        value: String,
    },
    /// A value that nothing makes.
    #[error("{node:?} needs the value {value:?}, which nothing makes")]
    UndefinedValue {
        /// Who needs it.
        node: String,
        /// Which.
        value: String,
    },
    /// Nodes that need each other.
    #[error("these nodes need each other's results, in a cycle: {}", .nodes.join(", "))]
    Cycle {
        /// The nodes.
        nodes: Vec<String>,
    },
    /// A weight that is not in the file.
    #[error("node {node:?} needs the tensor {tensor:?}, which the file does not have")]
    MissingTensor {
        /// Who needs it.
        node: String,
        /// Which.
        tensor: String,
    },
    /// A weight of another shape.
    #[error("node {node:?}: tensor {tensor:?} has shape {found:?}, expected {expected}")]
    TensorShape {
        /// Who uses it.
        node: String,
        /// Which.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// What fits.
        expected: String,
    },
    /// A weight of a number type that is not read.
    #[error("tensor {tensor:?} has type {dtype}; F64, F32, F16 and BF16 are read")]
    TensorType {
        /// Which.
        tensor: String,
        /// Its type.
        dtype: String,
    },
    /// NaN or infinity among the weights.
    #[error("tensor {tensor:?} holds {value} at index {index}; weights must be finite")]
    NotFinite {
        /// Which.
        tensor: String,
        /// Flat index.
        index: usize,
        /// What is there.
        value: f64,
    },
    /// Operands that do not fit.
    #[error("node {node:?}: {reason}")]
    Shapes {
        /// Which node.
        node: String,
        /// What does not fit.
        reason: String,
    },
    /// Beyond a limit of size or work.
    #[error("{what} is {found}, the limit is {limit}")]
    TooLarge {
        /// What is.
        what: String,
        /// How large.
        found: u128,
        /// The limit.
        limit: u128,
    },
}

/// An operator that is not known, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedOperator {
    /// The node.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// What to use in its place.
    pub advice: Cow<'static, str>,
}

fn list(operators: &[UnsupportedOperator]) -> String {
    // What was said once is not said again: a network may have many operators of one kind.
    let mut said: Vec<&UnsupportedOperator> = Vec::new();
    let line = |o: &'_ UnsupportedOperator, advice: &dyn std::fmt::Display| format!("\n  {} ({}): {advice}", o.node, o.operator);
    let mut text = String::new();
    for o in operators {
        match said.iter().find(|s| s.operator == o.operator && s.advice == o.advice) {
            Some(first) => text += &line(o, &format_args!("as {}", first.node)),
            None => {
                text += &line(o, &o.advice);
                said.push(o);
            }
        }
    }
    text
}

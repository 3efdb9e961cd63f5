//! A trained model, checked: every value has a shape, every weight is finite and of the right size, and nodes come in an
//! order in which they can be computed.
//!
//! The file is safetensors with the graph as JSON in its metadata; `training/graph.py` writes it and
//! [`Model::from_bytes`] reads it. Nothing in a file makes the reader panic or allocate beyond the limits below.

pub mod activation;
mod check;
mod content;
mod error;
mod file;
mod fold;
pub mod formula;
mod gather;
mod name;
mod order;
mod rearrange;
mod write;

pub(in crate::nn) use check::half_to_f64;
pub use cipherlens_core::client::input::{Fit, Input, Normalisation, NormaliseError};
pub(in crate::nn) use content::Content;
pub use error::{ModelError, OnnxError, UnsupportedOperator};
pub(in crate::nn) use file::{GraphSpec, InputSpec, NodeSpec, OperatorSpec};
pub use gather::Gather;
pub(in crate::nn) use name::printable;
pub(in crate::nn) use order::{Operand, operands_first};
pub use rearrange::Rearrange;

pub use activation::{ActivationForm, ActivationFunction, FittedActivation};
pub use formula::Formula;

use super::notes::Notes;
use super::tensor::Shape;
use std::collections::BTreeMap;
use std::path::Path;

/// Most weights of a model; in memory each is an f64.
pub const MAX_WEIGHTS: usize = 1 << 28;
/// Largest model file, bytes: that many weights in f64, and what else there is.
pub const MAX_FILE_BYTES: u64 = 8 * MAX_WEIGHTS as u64 + (64 << 20);
/// Most nodes in a graph.
pub const MAX_NODES: usize = 4096;
/// Largest channel count, height, width, kernel, stride, dilation or padding.
pub const MAX_EXTENT: usize = 1 << 16;
/// Most elements of one activation tensor.
pub const MAX_ELEMENTS: usize = 1 << 26;
/// Most elements of all activation tensors together.
pub const MAX_TOTAL_ELEMENTS: usize = 1 << 28;
/// Most multiplications of one evaluation.
pub const MAX_MULTIPLICATIONS: u128 = 1 << 42;
/// Largest divisor of an encrypted result, and largest factor of one that is too small for the noise.
pub const MAX_OUTPUT_DIVISOR: f64 = (1u64 << 40) as f64;
/// Largest polynomial degree.
pub const MAX_POLYNOMIAL_DEGREE: usize = 255;

/// What [`Model::magnitudes`] are called among the notes of a file.
const MAGNITUDES: &str = "max_abs_value";
/// How many times the largest magnitude seen a value may have that is bootstrapped by it.
pub const MAGNITUDE_MARGIN: f64 = 2.0;

/// A value of the graph: 0 is the input, i + 1 the result of node i.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub usize);

/// A checked model. Only nodes that the output depends on are kept.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) name: String,
    pub(crate) input: Input,
    pub(crate) classes: Vec<String>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) output: Value,
    pub(crate) output_divisor: f64,
    pub(crate) training: Notes,
}

/// One node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it computes.
    pub operator: Operator,
    /// Its operands, each computed before it.
    pub inputs: Vec<Value>,
    /// Shape of the result.
    pub shape: Shape,
}

/// What a node computes. Weights are held as f64, exact for the f16, f32 and f64 of a file.
#[derive(Debug, Clone)]
pub enum Operator {
    /// Convolution.
    Conv2d(Conv2d),
    /// `sum_k coefficients[k] x^k`.
    Polynomial(Polynomial),
    /// A function that is not a polynomial: must be fitted before it can run encrypted.
    Activation(ActivationFunction),
    /// What was fitted to one.
    Fitted(FittedActivation),
    /// `(x - mean) / sqrt(var + epsilon) * scale + bias`, held as `factor x + offset` per channel.
    BatchNorm {
        /// `scale / sqrt(var + epsilon)`.
        factor: Vec<f64>,
        /// `bias - mean * factor`.
        offset: Vec<f64>,
    },
    /// Average over a window.
    AvgPool2d {
        /// How the window moves; kernel included.
        window: Window,
        /// Whether zeros of the padding count in the divisor.
        count_include_pad: bool,
    },
    /// Average over each channel.
    GlobalAvgPool,
    /// `[channel][row][column]` as one vector.
    Flatten,
    /// Elements moved, repeated, left out, and zeros between them.
    Rearrange(Rearrange),
    /// Elements moved one by one, and constants between them.
    Gather(Gather),
    /// Sum of two operands.
    Add,
    /// Product of two operands, element by element.
    Multiply,
    /// `weight x + bias`.
    Linear {
        /// `[outputs][inputs]`.
        weight: Vec<f64>,
        /// `[outputs]`.
        bias: Vec<f64>,
    },
}

impl Operator {
    /// The name in the file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conv2d(_) => "conv2d",
            Self::Polynomial(_) => "polynomial",
            Self::Activation(_) => "activation",
            Self::Fitted(_) => "fitted",
            Self::BatchNorm { .. } => "batch_norm",
            Self::AvgPool2d { .. } => "avg_pool2d",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::Flatten => "flatten",
            Self::Rearrange(_) => "rearrange",
            Self::Gather(_) => "gather",
            Self::Add => "add",
            Self::Multiply => "multiply",
            Self::Linear { .. } => "linear",
        }
    }
}

/// How a window moves over a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Step, down and right.
    pub stride: [usize; 2],
    /// Zeros at the top, left, bottom and right.
    pub padding: [usize; 4],
    /// Distance of neighbouring taps, down and right.
    pub dilation: [usize; 2],
}

impl Window {
    /// Rows and columns of the result, none if the window does not fit.
    pub fn output(&self, height: usize, width: usize) -> Option<(usize, usize)> {
        let along = |size: usize, before: usize, after: usize, k: usize, s: usize, d: usize| {
            let reach = (k - 1) * d + 1;
            (size + before + after).checked_sub(reach).map(|rest| rest / s + 1)
        };
        let [top, left, bottom, right] = self.padding;
        let h = along(height, top, bottom, self.kernel[0], self.stride[0], self.dilation[0])?;
        let w = along(width, left, right, self.kernel[1], self.stride[1], self.dilation[1])?;
        Some((h, w))
    }
}

/// A convolution.
#[derive(Debug, Clone)]
pub struct Conv2d {
    /// `[out][in / groups][kernel row][kernel column]`.
    pub weight: Vec<f64>,
    /// `[out]`.
    pub bias: Vec<f64>,
    /// How the kernel moves.
    pub window: Window,
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

/// A polynomial activation.
#[derive(Debug, Clone)]
pub struct Polynomial {
    /// Monomial coefficients, constant first: `[degree + 1]` for all channels or `[channel][degree + 1]`.
    pub coefficients: Vec<f64>,
    /// Whether each channel has its own.
    pub per_channel: bool,
    /// Highest power, by size of the coefficient table.
    pub degree: usize,
}

impl Polynomial {
    /// The coefficients of one channel, constant first.
    pub fn of_channel(&self, c: usize) -> &[f64] {
        let first = if self.per_channel { c * (self.degree + 1) } else { 0 };
        &self.coefficients[first..first + self.degree + 1]
    }
}

impl Model {
    /// Reads a model file held in memory.
    ///
    /// # Errors
    /// [`ModelError::FileTooLarge`], [`ModelError::OtherFile`], [`ModelError::NotSafetensors`], [`ModelError::NotAModel`], and those of
    /// [`Self::from_graph`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ModelError> {
        file::read(bytes)
    }

    /// Checks a graph whose nodes are given one by one, with its tensors found by name.
    pub(in crate::nn) fn from_spec<'a>(
        graph: GraphSpec,
        tensors: impl Fn(&str) -> Option<TensorData<'a>>,
    ) -> Result<Self, ModelError> {
        check::build(graph, &tensors)
    }

    /// Checks a graph, written as in the file's metadata, with its tensors found by name.
    ///
    /// # Errors
    /// Of the graph: [`ModelError::Graph`] where it does not parse, [`ModelError::TooManyNodes`], [`ModelError::UnsupportedOperators`],
    /// [`ModelError::BadNode`], [`ModelError::Shapes`], [`ModelError::DuplicateValue`], [`ModelError::UndefinedValue`],
    /// [`ModelError::Cycle`]. Of its tensors: [`ModelError::MissingTensor`], [`ModelError::TensorShape`], [`ModelError::TensorType`],
    /// [`ModelError::NotFinite`]. Beyond a limit of size or work: [`ModelError::TooLarge`].
    pub fn from_graph<'a>(graph: &str, tensors: impl Fn(&str) -> Option<TensorData<'a>>) -> Result<Self, ModelError> {
        check::build(file::parse_graph(graph)?, &tensors)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The picture it takes.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// Class names, in the order of the logits; may be empty.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The nodes, each after its operands.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The result.
    pub fn output(&self) -> Value {
        self.output
    }

    /// What the result is divided by while it is encrypted, so that it stays below the modulus and, below 1, above the noise: a power
    /// of two, 1 for most networks. Whoever decrypts multiplies by it ([`Lowered::unpack`](super::lower::Lowered::unpack) does).
    pub fn output_divisor(&self) -> f64 {
        self.output_divisor
    }

    /// For each value, whether it is held divided by [`Self::output_divisor`] while it is encrypted: the result, and what it is an
    /// average, a view or a sum of and nothing else reads. The divisor then comes to the weights of the layer before: those of an
    /// average are small already, and divided once more a plaintext could not resolve them.
    pub fn divided(&self) -> Vec<bool> {
        let mut readers = vec![0; self.nodes.len() + 1];
        self.nodes.iter().flat_map(|n| &n.inputs).for_each(|v| readers[v.0] += 1);
        let mut divided = vec![false; self.nodes.len() + 1];
        divided[self.output.0] = self.output_divisor != 1.0;
        for (i, node) in self.nodes.iter().enumerate().rev().filter(|(i, _)| self.output.0 > *i) {
            use Operator::{Add, AvgPool2d, Flatten, Gather, GlobalAvgPool, Rearrange};
            let passes = matches!(node.operator, Add | AvgPool2d { .. } | Flatten | Gather(_) | GlobalAvgPool | Rearrange(_));
            if divided[i + 1] && passes && node.inputs.iter().all(|v| v.0 > 0 && readers[v.0] == 1) {
                node.inputs.iter().for_each(|v| divided[v.0] = true);
            }
        }
        divided
    }

    /// The same network with its encrypted result divided by `divisor`, a power of two from 1 / [`MAX_OUTPUT_DIVISOR`] to
    /// [`MAX_OUTPUT_DIVISOR`].
    ///
    /// # Errors
    /// [`ModelError::BadNode`] for another divisor.
    pub fn with_output_divisor(&self, divisor: f64) -> Result<Self, ModelError> {
        check::output_divisor(divisor)?;
        Ok(Self { output_divisor: divisor, ..self.clone() })
    }

    /// The same network with its pictures brought to its shape in another way.
    pub fn with_fit(&self, fit: Fit) -> Self {
        let mut model = self.clone();
        model.input.fit = fit;
        model
    }

    /// What the training script noted (accuracy, ranges, date); free form.
    pub fn training(&self) -> &Notes {
        &self.training
    }

    /// The largest magnitude of each node's result that calibration saw, by name, where values are to be bootstrapped that no activation
    /// bounds; noted with the training.
    pub fn magnitudes(&self) -> BTreeMap<String, f64> {
        self.training.numbers(MAGNITUDES)
    }

    /// The same model with [`Self::magnitudes`] noted.
    pub fn with_magnitudes(&self, magnitudes: &BTreeMap<String, f64>) -> Self {
        let mut model = self.clone();
        model.training.insert(MAGNITUDES, magnitudes);
        model
    }

    /// Shape of a value.
    pub fn shape(&self, value: Value) -> Shape {
        value.0.checked_sub(1).map_or(self.input.shape, |i| self.nodes[i].shape)
    }

    /// Name of the node that makes a value, or of the input.
    pub fn value_name(&self, value: Value) -> &str {
        value.0.checked_sub(1).map_or(&self.input.name, |i| &self.nodes[i].name)
    }

    /// Multiplications of one direct evaluation.
    pub fn multiplications(&self) -> u128 {
        self.nodes.iter().map(|n| self.node_multiplications(n)).sum()
    }

    /// Multiplications of one node, evaluated directly.
    pub fn node_multiplications(&self, node: &Node) -> u128 {
        check::multiplications(node, self.shape(node.inputs[0]))
    }

    /// The activations that are no polynomials by themselves, fitted or not: index among [`Self::nodes`], and what is exact.
    pub fn activations(&self) -> impl Iterator<Item = (usize, &Node, ActivationFunction)> {
        self.nodes.iter().enumerate().filter_map(|(i, node)| match &node.operator {
            Operator::Activation(function) => Some((i, node, function.clone())),
            Operator::Fitted(fitted) => Some((i, node, fitted.function.clone())),
            _ => None,
        })
    }

    /// The same model with some activations, by index among [`Self::nodes`], replaced by what was fitted to them.
    ///
    /// # Errors
    /// [`ModelError::BadNode`] for an index that is no activation's, a fit of another function, or one that cannot be evaluated.
    pub fn with_activations(&self, fitted: &BTreeMap<usize, FittedActivation>) -> Result<Self, ModelError> {
        let mut model = self.clone();
        for (&i, fitted) in fitted {
            let node = self.nodes.get(i).map_or_else(|| format!("number {i}"), |n| n.name.clone());
            let reason = match self.activations().find(|(at, ..)| *at == i) {
                None => Some("it is not an activation".to_owned()),
                Some((.., exact)) if exact != fitted.function => {
                    Some(format!("it is {exact}, the fit is of {}", fitted.function))
                }
                Some(_) => fitted.problem(),
            };
            if let Some(reason) = reason {
                return Err(ModelError::BadNode { node, reason });
            }
            model.nodes[i].operator = Operator::Fitted(fitted.clone());
        }
        Ok(model)
    }

    /// The same model with every fitted activation replaced by what it stands for.
    pub fn exact(&self) -> Self {
        let mut model = self.clone();
        for node in &mut model.nodes {
            if let Operator::Fitted(fitted) = &node.operator {
                node.operator = Operator::Activation(fitted.function.clone());
            }
        }
        model
    }

    /// The same network for pictures of another mean and standard deviation per channel, and with other class names; what is
    /// empty stays as it is.
    ///
    /// # Errors
    /// [`ModelError::BadNode`] unless means and deviations are finite, the latter positive, and one a channel, and class names as many as
    /// logits, all different.
    pub fn described(&self, mean: &[f64], std: &[f64], classes: &[String]) -> Result<Self, ModelError> {
        let mut model = self.clone();
        let channels = self.input.shape.channels;
        let bad = |reason: String| ModelError::BadNode { node: self.input.name.clone(), reason };
        for (given, own) in [(mean, &mut model.input.mean), (std, &mut model.input.std)] {
            if !given.is_empty() {
                *own = given.to_vec();
            }
        }
        if !mean.is_empty() || !std.is_empty() {
            model.input.normalisation = Normalisation::Given;
        }
        let usable = |s: &f64| s.is_finite() && *s > 0.0 && (1.0 / s).is_finite();
        let input = &model.input;
        if let Some(m) = input.mean.iter().find(|m| !m.is_finite()) {
            return Err(bad(format!("mean {m} is not a finite number")));
        }
        if input.mean.len() != channels || input.std.len() != channels {
            return Err(bad(format!("{} means and {} deviations for {channels} channels", input.mean.len(), input.std.len())));
        }
        if let Some(s) = input.std.iter().find(|s| !usable(s)) {
            return Err(bad(format!("standard deviation {s} is not positive and finite")));
        }
        if !classes.is_empty() {
            if classes.len() != self.answers() {
                return Err(bad(format!("{} class names where results tell {} classes apart", classes.len(), self.answers())));
            }
            let twice = classes.iter().enumerate().find(|(i, name)| classes[..*i].contains(name));
            if let Some((_, name)) = twice {
                return Err(bad(format!("two classes are named {name:?}")));
            }
            model.classes = classes.iter().map(|name| printable(name).into_owned()).collect();
        }
        Ok(model)
    }

    /// Classes that its result tells apart: one an element, and two for a single number.
    pub fn answers(&self) -> usize {
        self.shape(self.output).len().max(2)
    }

    /// Number of weights.
    pub fn weights(&self) -> usize {
        let of = |n: &Node| match &n.operator {
            Operator::Conv2d(c) => c.weight.len() + c.bias.len(),
            Operator::Polynomial(p) => p.coefficients.len(),
            Operator::Fitted(f) => f.degrees().into_iter().map(|d| d + 1).sum(),
            Operator::BatchNorm { factor, .. } => 2 * factor.len(),
            Operator::Linear { weight, bias } => weight.len() + bias.len(),
            _ => 0,
        };
        self.nodes.iter().map(of).sum()
    }
}

/// The content of a file of at most [`MAX_FILE_BYTES`].
pub(in crate::nn) fn read_file(path: &Path) -> Result<Vec<u8>, ModelError> {
    let read = |source| ModelError::Read { path: path.to_path_buf(), source };
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ModelError::FileTooLarge { bytes, limit: MAX_FILE_BYTES });
    }
    std::fs::read(path).map_err(read)
}

/// What the numbers of a tensor are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NumberType {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of binary32.
    BF16,
    /// One that weights cannot have, by its name.
    Other(String),
}

/// A tensor of a file: shape and values. The values are converted and checked when a node uses them.
#[derive(Debug, Clone)]
pub struct TensorData<'a> {
    /// Extents, slowest first.
    pub shape: Vec<usize>,
    /// Number type.
    pub dtype: NumberType,
    /// Little-endian values.
    pub bytes: &'a [u8],
}

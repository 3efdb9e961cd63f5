//! Networks from ONNX files, as `torch.onnx.export` writes them: opset 11 and later, weights within the file.
//!
//! 1. `scan` bounds what decoding may take, `schema` is decoded;
//! 2. `graph` walks the nodes the output depends on, each after its operands. What is known in the file is computed
//!    (`constant`, `folding`): shapes, paddings, weights. Elementwise functions gather in expressions (`expression`) until something
//!    else reads them. Everything else becomes a node of a [`Model`] (`operators`, `layers`, `shapes`);
//! 3. the model is checked as one from any other file, and batch normalisation is folded into convolutions.
//!
//! Every operator that is not supported is named at once. Nothing in a file makes the reader panic, and it takes no more
//! memory than a small multiple of the file.

mod attributes;
mod constant;
mod elementwise;
mod expression;
mod folding;
mod graph;
mod layers;
mod operators;
mod resize;
mod scan;
pub mod schema;
mod shapes;
mod values;
mod view;

use super::model::{MAX_FILE_BYTES, Model, ModelError};
use prost::Message;

/// Mean of each channel of the pictures of ImageNet, whose networks are normalised with it by convention.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Their standard deviations.
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];
/// The oldest set of operators that is read.
const LEAST_OPSET: i64 = 11;

/// What an ONNX file does not say.
#[derive(Debug, Clone, Default)]
pub struct OnnxOptions {
    /// What to call the model; the graph's own name if empty.
    pub name: String,
    /// Mean per channel of pictures in [0, 1]; ImageNet's for three channels, else 0, if empty.
    pub mean: Vec<f64>,
    /// Standard deviation per channel; ImageNet's for three channels, else 1, if empty.
    pub std: Vec<f64>,
    /// Names of the classes, in the order of the logits; may be empty.
    pub classes: Vec<String>,
}

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
    /// More inputs or outputs than one.
    #[error("the graph has {found} {what}, this program runs networks of one picture and one result")]
    Ends {
        /// Inputs or outputs.
        what: &'static str,
        /// How many.
        found: usize,
    },
    /// A shape that is not fixed, or not that of a picture.
    #[error(
        "the input {input:?} has shape [{shape}]; a fixed [1, channels, height, width] is needed: export without dynamic_axes for them"
    )]
    InputShape {
        /// Which input.
        input: String,
        /// Its shape.
        shape: String,
    },
    /// Weights in another file.
    #[error("the values of {tensor:?} are in another file, which is not read: save the model with its weights inside")]
    ExternalData {
        /// Which tensor.
        tensor: String,
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

impl Model {
    /// Reads an ONNX file held in memory. Cost: one evaluation of what is constant, and a copy of the weights in f64.
    pub fn from_onnx(bytes: &[u8], options: &OnnxOptions) -> Result<Self, ModelError> {
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(ModelError::FileTooLarge { bytes: bytes.len() as u64, limit: MAX_FILE_BYTES });
        }
        scan::check(bytes)?;
        let file = schema::ModelProto::decode(bytes).map_err(|e| OnnxError::NotOnnx(e.to_string()))?;
        Ok(graph::import(&file, options)?.fold_batch_norms())
    }
}

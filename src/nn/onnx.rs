//! Networks from ONNX files, as `torch.onnx.export` writes them: opset 11 and later, weights within the file or beside it.
//!
//! 1. `scan` bounds what decoding may take, `schema` is decoded; `external` reads what is in files beside it;
//! 2. `graph` walks the nodes the output depends on, each after its operands. What is known in the file is computed
//!    (`constant`, `folding` and what it calls): shapes, paddings, weights. Elementwise functions gather in formulas, which are recognised
//!    (`expression`) when something
//!    else reads them. Everything else becomes a node of a [`Model`] (`operators`, `layers`, `shapes`);
//! 3. the model is checked as one from any other file, and batch normalisation is folded into convolutions.
//!
//! Constants obey their number types: narrow integers wrap round, and what is cast to f16 or bf16 is rounded. What depends on the picture
//! is computed with real numbers: where a file casts it to f16 or bf16, the rounding is left out, and the result nearer to the function
//! meant. Integers that depend on the picture (pixels, before they are cast) are exact or refused.
//!
//! Every operator that is not supported is named at once. Nothing in a file makes the reader panic, and it takes no more
//! memory than a small multiple of the file, and some 130 MiB for what is moved element by element.

mod arithmetic;
mod attributes;
mod batch;
mod constant;
mod elementwise;
mod ending;
mod expression;
mod external;
mod folding;
mod graph;
mod infer;
mod input;
mod layers;
mod maxima;
mod normal;
mod normalisation;
mod op;
mod operators;
mod order;
mod piecewise;
mod products;
mod quantised;
mod reduce;
mod resize;
mod scan;
pub mod schema;
mod shapes;
mod softmax;
mod sums;
mod transposed;
mod values;
mod view;
mod whole;

pub use super::model::OnnxError;
use super::model::{Content, MAX_FILE_BYTES, Model, ModelError};
use bytes::Bytes;
use external::Folder;
pub use input::{InputSize, InputSizeError};
use prost::Message;
use std::path::Path;

/// Mean of each channel of the pictures of ImageNet, whose networks are normalised with it by convention.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Their standard deviations.
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];
/// The oldest set of operators that is read.
const LEAST_OPSET: i64 = 11;
/// The newest: what a later one means is not known.
const MOST_OPSET: i64 = 28;

/// Which of the results that an ONNX file gives are computed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Results {
    /// The one that there is; a file of several is refused.
    #[default]
    Only,
    /// All of them, one after the other in the file's order.
    All,
    /// Those of these names, one after the other in this order. What only the others need is left out.
    Named(Vec<String>),
}

impl std::str::FromStr for Results {
    type Err = std::convert::Infallible;

    /// `all`, or names with commas between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "all" { Self::All } else { Self::Named(text.split(',').map(str::to_owned).collect()) })
    }
}

/// What a MaxPool becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MaxPools {
    /// Maxima of pairs: exact, and as dear as an activation for each.
    #[default]
    Exact,
    /// A convolution of each channel by itself, which stands for it once it is fitted ([`crate::nn::pooling::fit`]); an average until then.
    Convolved,
}

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
    /// The size of the pictures, where the file leaves it open.
    pub input_size: Option<InputSize>,
    /// Which results are computed, where the file gives several (heads, auxiliary classifiers). Several are one vector: each in the
    /// order of its elements, one after the other.
    pub results: Results,
    /// What a MaxPool becomes.
    pub max_pools: MaxPools,
}

impl Model {
    /// Reads an ONNX file held in memory, with its weights inside ([`Self::from_onnx_file`] reads those beside it too). Cost:
    /// one evaluation of what is constant, a copy of the file, and the weights in f64.
    ///
    /// # Errors
    /// [`ModelError::FileTooLarge`], [`ModelError::OtherFile`], [`ModelError::Onnx`] for what is wrong with the file, and those of
    /// [`Self::from_graph`] for what is wrong with the network in it.
    pub fn from_onnx(bytes: &[u8], options: &OnnxOptions) -> Result<Self, ModelError> {
        read(Bytes::copy_from_slice(bytes), &Folder::new(None), options)
    }

    /// Reads an ONNX file, whatever it is called, and what it refers to in its folder.
    ///
    /// # Errors
    /// [`ModelError::Read`], and those of [`Self::from_onnx`].
    pub fn from_onnx_file(path: &Path, options: &OnnxOptions) -> Result<Self, ModelError> {
        let bytes = super::model::read_file(path)?.into();
        read(bytes, &Folder::new(Some(path.parent().unwrap_or(Path::new("")))), options)
    }
}

/// The tensors of a decoded file are slices of its bytes, not copies.
fn read(bytes: Bytes, folder: &Folder<'_>, options: &OnnxOptions) -> Result<Model, ModelError> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ModelError::FileTooLarge { bytes: bytes.len() as u64, limit: MAX_FILE_BYTES });
    }
    match Content::of(&bytes) {
        Content::Other { what, advice } => return Err(ModelError::OtherFile { what, advice }),
        Content::Safetensors => {
            let advice = "read it as one: Model::from_bytes, or from_file, which looks at the content".into();
            return Err(ModelError::OtherFile { what: "a safetensors file", advice });
        }
        Content::Binary => {}
    }
    scan::check(&bytes)?;
    let file = schema::ModelProto::decode(bytes).map_err(|e| OnnxError::NotOnnx(e.to_string()))?;
    Ok(graph::import(&file, folder, options)?.into_folded())
}

//! The picture that a file takes: its extents, or what to do where it does not say them.

use super::OnnxError;
use super::graph::extent;
use super::op::Op;
use super::schema::{DimensionProto, GraphProto, ValueInfoProto};
use crate::nn::model::{MAX_ELEMENTS, MAX_EXTENT, printable};
use crate::nn::tensor::Shape;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// The size of pictures, for a file that leaves it open: `224x224` is height and width, `3x224x224` has channels before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InputSize {
    /// Channels, for a file that leaves them open too.
    pub channels: Option<usize>,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Why a text is no [`InputSize`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no size of pictures: write height and width, as in 224x224, or channels before them, as in 3x224x224")]
pub struct InputSizeError(String);

impl FromStr for InputSize {
    type Err = InputSizeError;

    fn from_str(text: &str) -> Result<Self, InputSizeError> {
        let number = |part: &str| part.trim().parse::<usize>().ok().filter(|n| (1..=MAX_EXTENT).contains(n));
        let numbers: Option<Vec<usize>> = text.split(['x', 'X']).map(number).collect();
        match numbers.as_deref() {
            Some(&[height, width]) => Ok(Self { channels: None, height, width }),
            Some(&[channels, height, width]) => Ok(Self { channels: Some(channels), height, width }),
            _ => Err(InputSizeError(text.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for InputSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(channels) = self.channels {
            write!(f, "{channels}x")?;
        }
        write!(f, "{}x{}", self.height, self.width)
    }
}

/// The shape of one picture, and how many there are in the batch that the file is written for.
pub(super) fn shape(
    graph: &GraphProto,
    input: &ValueInfoProto,
    initializers: &HashMap<&str, usize>,
    size: Option<InputSize>,
) -> Result<(Shape, usize), OnnxError> {
    let shape = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).and_then(|t| t.shape.as_ref());
    let dims = shape.map_or(&[][..], |s| &s.dim);
    let refuse = |reason: String| {
        let dim = |d: &DimensionProto| match (d.dim_value, d.dim_param.as_deref()) {
            (Some(v), _) => v.to_string(),
            (None, None | Some("")) => "?".to_owned(),
            (None, Some(name)) => printable(name).chars().take(40).collect(),
        };
        let shape = dims.iter().take(9).map(dim).collect::<Vec<_>>().join(", ");
        OnnxError::InputShape { input: input.name.clone(), shape, reason }
    };
    let open = DimensionProto::default();
    let [batch, channels, height, width] = match dims {
        // A file may say nothing: then everything is open.
        [] => [&open; 4],
        [batch, channels, height, width] => [batch, channels, height, width],
        other => return Err(refuse(other_rank(other))),
    };
    // An open batch may be one.
    let batch = match batch.dim_value {
        None | Some(0) => 1,
        Some(n) => extent(n).ok_or_else(|| refuse(format!("a batch of {n} pictures is none: export with a batch of 1")))?,
    };
    // Some writers have 0 or -1 where nothing is known.
    let fixed = |d: &DimensionProto, what: &str| match d.dim_value {
        None | Some(-1 | 0) => Ok(None),
        Some(v) => match extent(v) {
            Some(v) => Ok(Some(v)),
            None => Err(refuse(format!("{what} {v} is not from 1 to {MAX_EXTENT}"))),
        },
    };
    let (channels, height, width) = (fixed(channels, "channels")?, fixed(height, "height")?, fixed(width, "width")?);
    let one = |fixed: Option<usize>, given: Option<usize>, what: &str| match (fixed, given) {
        (Some(fixed), Some(given)) if fixed != given => Err(refuse(format!(
            "it is for pictures of {what} {fixed}, and {given} was given (--input-size): that is for what a file leaves open; export \
             it again for another size"
        ))),
        (fixed, given) => Ok(fixed.or(given)),
    };
    let height = one(height, size.map(|s| s.height), "height")?;
    let width = one(width, size.map(|s| s.width), "width")?;
    let channels =
        one(channels, size.and_then(|s| s.channels), "channels")?.or_else(|| read_by(graph, &input.name, initializers));
    let (Some(channels), Some(height), Some(width)) = (channels, height, width) else {
        let missing: Vec<&str> = [("channels", channels), ("height", height), ("width", width)]
            .into_iter()
            .filter_map(|(what, v)| v.is_none().then_some(what))
            .collect();
        let form = if channels.is_none() { "3x224x224" } else { "224x224" };
        let be = if missing.len() == 1 { "is" } else { "are" };
        return Err(refuse(format!(
            "{} {be} open, and this program runs networks of one size: give it, as in --input-size {form}, or export with fixed \
             sizes, torch.onnx.export(model, torch.randn(1, 3, 224, 224), ...) without dynamic axes for height and width",
            missing.join(", "),
        )));
    };
    let shape = Shape::new(channels, height, width);
    let elements = [channels, height, width].into_iter().try_fold(1usize, |n, d| n.checked_mul(d));
    if elements.is_none_or(|n| n > MAX_ELEMENTS) {
        return Err(refuse(format!("a picture of {shape} has more numbers than the limit is, {MAX_ELEMENTS}")));
    }
    Ok((shape, batch))
}

/// What to do about inputs that are no pictures.
fn other_rank(dims: &[DimensionProto]) -> String {
    let needed = "a picture is [1, channels, height, width]";
    match dims.len() {
        1 | 2 => format!(
            "{needed}, this is a list of numbers; if it stands for pictures, put the reshape into the network: take them as \
             [1, channels, height, width] and flatten first, then export again"
        ),
        3 => format!("{needed}, the batch is missing: export with torch.randn(1, channels, height, width) as the example input"),
        5 => format!("{needed}, this one has five axes, as videos and volumes have: networks for single pictures are run"),
        n => format!("{needed}, this one has {n} axes: networks for single pictures are run"),
    }
}

/// The channels that the first convolution on the input reads.
fn read_by(graph: &GraphProto, input: &str, initializers: &HashMap<&str, usize>) -> Option<usize> {
    let reads = |op: Op, value: &str| op == Op::Conv && value == input;
    let node = graph.node.iter().find(|n| n.input.first().is_some_and(|v| reads(n.op(), v)))?;
    let weight = &graph.initializer[*initializers.get(node.input.get(1)?.as_str())?];
    let groups = node.attribute.iter().find(|a| a.name == "group").map_or(1, |a| a.i);
    extent(weight.dims.get(1)?.checked_mul(groups)?)
}

//! Integers that depend on the picture: pixels as bytes, before they are cast. What is computed with them is exact as long as no number
//! leaves its type, and no quotient its fraction; other programs let them wrap round, or cut the fraction off.

use super::attributes::Attributes;
use super::graph::{Importer, Known, Refusal};
use super::op::Op;
use super::schema::NodeProto;

/// The largest value of a pixel.
const PIXEL: i64 = 255;

/// What is known of an integer value: its number type, as ONNX counts them, and its bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Whole {
    kind: i32,
    least: i64,
    most: i64,
}

impl Whole {
    /// Pixels of 0 to 255; none for numbers that are no integers.
    pub(super) fn pixels(kind: i32) -> Option<Self> {
        limits(kind).map(|_| Self { kind, least: 0, most: PIXEL })
    }
}

/// Name and bounds of an integer type.
fn limits(kind: i32) -> Option<(&'static str, i64, i64)> {
    Some(match kind {
        2 => ("uint8", 0, u8::MAX.into()),
        3 => ("int8", i8::MIN.into(), i8::MAX.into()),
        4 => ("uint16", 0, u16::MAX.into()),
        5 => ("int16", i16::MIN.into(), i16::MAX.into()),
        6 => ("int32", i32::MIN.into(), i32::MAX.into()),
        7 => ("int64", i64::MIN, i64::MAX),
        12 => ("uint32", 0, u32::MAX.into()),
        13 => ("uint64", 0, i64::MAX),
        _ => return None,
    })
}

impl<'f> Importer<'f> {
    /// The integers that a node makes; none if it makes others, or is given none. An error if they would wrap round or be cut off.
    pub(super) fn integers_of(&self, node: &'f NodeProto, operands: &[Option<Known>]) -> Result<Option<Whole>, Refusal> {
        let of = |i: usize| node.input.get(i).and_then(|name| self.whole.get(name.as_str()).copied());
        let Some(x) = (0..node.input.len()).find_map(of) else { return Ok(None) };
        let range = |i: usize| match (of(i), operands.get(i)) {
            (Some(x), _) => Some((i128::from(x.least), i128::from(x.most))),
            (None, Some(Some(Known::Constant(c)))) => {
                let values = c.integers()?;
                Some(((*values.iter().min()?).into(), (*values.iter().max()?).into()))
            }
            _ => None,
        };
        let (name, ..) = limits(x.kind).unwrap_or(("integer", 0, 0));
        let refuse = |why: String| Refusal::Unsupported(format!("it computes with whole numbers ({name}), {why}").into());
        let other = || refuse("which is not supported: cast them to float before it".into());
        let both = || range(0).zip(range(1)).ok_or_else(other);
        let hull = |all: &[i128]| (all.iter().copied().min().unwrap_or(0), all.iter().copied().max().unwrap_or(0));
        let joined = |operands: &mut dyn Iterator<Item = usize>| {
            let all: Option<Vec<(i128, i128)>> = operands.map(range).collect();
            let all = all.ok_or_else(other)?;
            Ok::<_, Refusal>(hull(&all.into_iter().flat_map(|(a, b)| [a, b]).collect::<Vec<_>>()))
        };
        let a = Attributes(node);
        let mut kind = x.kind;
        let (least, most) = match node.op() {
            Op::Shape
            | Op::Size
            | Op::Equal
            | Op::Less
            | Op::LessOrEqual
            | Op::Greater
            | Op::GreaterOrEqual
            | Op::And
            | Op::Or
            | Op::Not => {
                return Ok(None);
            }
            Op::Cast => match i32::try_from(a.int("to", 1)) {
                Ok(to) if limits(to).is_some() => {
                    kind = to;
                    (x.least.into(), x.most.into())
                }
                _ => return Ok(None),
            },
            Op::DepthToSpace
            | Op::Dropout
            | Op::Expand
            | Op::Flatten
            | Op::Gather
            | Op::GatherND
            | Op::Identity
            | Op::Reshape
            | Op::Resize
            | Op::Slice
            | Op::SpaceToDepth
            | Op::Split
            | Op::Squeeze
            | Op::Tile
            | Op::Transpose
            | Op::Unsqueeze
            | Op::Upsample => (x.least.into(), x.most.into()),
            Op::Pad => match range(2) {
                Some(value) => hull(&[x.least.into(), x.most.into(), value.0, value.1]),
                None => hull(&[x.least.into(), x.most.into(), 0]),
            },
            Op::Concat => joined(&mut (0..node.input.len()))?,
            Op::Add => both().map(|(a, b)| (a.0 + b.0, a.1 + b.1))?,
            Op::Sub => both().map(|(a, b)| (a.0 - b.1, a.1 - b.0))?,
            Op::Mul => both().map(|(a, b)| hull(&[a.0 * b.0, a.0 * b.1, a.1 * b.0, a.1 * b.1]))?,
            Op::Neg => (-i128::from(x.most), -i128::from(x.least)),
            Op::Abs => {
                let (a, b) = (i128::from(x.least), i128::from(x.most));
                (if a <= 0 && b >= 0 { 0 } else { a.abs().min(b.abs()) }, a.abs().max(b.abs()))
            }
            Op::Relu => (x.least.max(0).into(), x.most.max(0).into()),
            Op::Min | Op::Max | Op::Clip => joined(&mut (0..node.input.len()).filter(|i| !node.input[*i].is_empty()))?,
            Op::Div if of(1).is_none() && range(1) == Some((1, 1)) => (x.least.into(), x.most.into()),
            Op::Div => return Err(refuse("whose quotients lose their fractions: cast them to float before it".into())),
            _ => return Err(other()),
        };
        let (name, low, high) = limits(kind).ok_or_else(other)?;
        match (i64::try_from(least), i64::try_from(most)) {
            (Ok(least), Ok(most)) if least >= low && most <= high => Ok(Some(Whole { kind, least, most })),
            _ => Err(refuse(format!(
                "and {least} to {most} do not fit {name}, where they wrap round: cast them to float before it"
            ))),
        }
    }
}

//! A look over a file's fields before anything is decoded, so that decoding cannot take much more memory than the file:
//! a message of two bytes in a file becomes a struct of hundreds, and a number of one byte one of eight.

use super::OnnxError;

/// Most fields in the messages of a file that are read (nodes, names, attributes, dimensions, ...).
const MAX_FIELDS: usize = 1 << 18;
/// Most bytes of extents, axes and the like, each of which takes eight bytes in memory and may be one in the file.
const MAX_NUMBER_BYTES: usize = 1 << 24;
/// Most bytes of integer weights written one by one. Weights that come as one block of bytes, and floating-point numbers, take
/// as much memory as in the file and do not count.
const MAX_INTEGER_BYTES: usize = 1 << 27;

/// The messages of [`super::schema`].
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    /// A value's description, and everything in it.
    ValueInfo,
    /// Opset or note: no message inside.
    Flat,
}

impl Kind {
    /// The message in a field, if there is one that is read.
    fn inside(self, field: u64) -> Option<Self> {
        match (self, field) {
            (Self::Model, 7) => Some(Self::Graph),
            (Self::Model, 8 | 14) => Some(Self::Flat),
            (Self::Graph, 1) => Some(Self::Node),
            (Self::Graph, 5) | (Self::Attribute, 5) | (Self::SparseTensor, 1) => Some(Self::Tensor),
            (Self::Graph, 15) => Some(Self::SparseTensor),
            (Self::Graph, 11 | 12) => Some(Self::ValueInfo),
            (Self::Node, 5) => Some(Self::Attribute),
            (Self::Tensor, 13) => Some(Self::Flat),
            _ => None,
        }
    }

    /// Whether a field holds the extents of a tensor or a list of an attribute.
    fn numbers(self, field: u64) -> bool {
        matches!((self, field), (Self::Tensor, 1) | (Self::Attribute, 7 | 8))
    }

    /// Whether a field holds integer weights one after the other.
    fn integers(self, field: u64) -> bool {
        matches!((self, field), (Self::Tensor, 5 | 7 | 11))
    }
}

/// What has been seen.
#[derive(Default)]
struct Tally {
    fields: usize,
    number_bytes: usize,
    integer_bytes: usize,
}

/// Refuses a file that is damaged at this level, or whose decoding would take too much memory.
pub(super) fn check(bytes: &[u8]) -> Result<(), OnnxError> {
    walk(bytes, Kind::Model, &mut Tally::default())
}

fn walk(mut rest: &[u8], kind: Kind, tally: &mut Tally) -> Result<(), OnnxError> {
    let damaged = || {
        OnnxError::NotOnnx(
            "a field is cut off or has no valid type; the file is of another kind, or was not copied to its end".into(),
        )
    };
    while !rest.is_empty() {
        let key = varint(&mut rest).ok_or_else(damaged)?;
        let field = key >> 3;
        tally.fields += 1;
        let (length, content) = match key & 7 {
            0 => {
                let before = rest.len();
                varint(&mut rest).ok_or_else(damaged)?;
                (before - rest.len(), None)
            }
            1 => (8, Some(take(&mut rest, 8).ok_or_else(damaged)?)),
            5 => (4, Some(take(&mut rest, 4).ok_or_else(damaged)?)),
            2 => {
                let length = varint(&mut rest).and_then(|l| usize::try_from(l).ok()).ok_or_else(damaged)?;
                (length, Some(take(&mut rest, length).ok_or_else(damaged)?))
            }
            // Groups are long gone, and no writer of ONNX uses them.
            _ => return Err(damaged()),
        };
        if kind.numbers(field) {
            tally.number_bytes += length;
        }
        if kind.integers(field) {
            tally.integer_bytes += length;
        }
        if tally.fields > MAX_FIELDS {
            return Err(OnnxError::TooLarge { what: "the number of fields", found: tally.fields, limit: MAX_FIELDS });
        }
        if tally.number_bytes > MAX_NUMBER_BYTES {
            let (found, limit) = (tally.number_bytes, MAX_NUMBER_BYTES);
            return Err(OnnxError::TooLarge { what: "the size of all extents and lists in bytes", found, limit });
        }
        if tally.integer_bytes > MAX_INTEGER_BYTES {
            let (found, limit) = (tally.integer_bytes, MAX_INTEGER_BYTES);
            let what = "the size in bytes of integers written one by one, not as raw data,";
            return Err(OnnxError::TooLarge { what, found, limit });
        }
        if key & 7 == 2
            && let Some(content) = content
        {
            match kind.inside(field) {
                Some(Kind::ValueInfo) => values(content, tally),
                Some(inside) => walk(content, inside, tally)?,
                None => {}
            }
        }
    }
    Ok(())
}

/// The description of a value nests four deep and is small: every two bytes of it count as a field.
fn values(content: &[u8], tally: &mut Tally) {
    tally.fields += content.len() / 2;
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for i in 0..10 {
        let (&byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 127) << (7 * i);
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::onnx::schema::{GraphProto, ModelProto, NodeProto, TensorProto};
    use prost::Message;

    #[test]
    fn empty_messages_and_packed_numbers_are_counted() {
        let file = |graph| ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec();
        let nodes = |n| file(GraphProto { node: vec![NodeProto::default(); n], ..GraphProto::default() });
        assert!(check(&nodes(1000)).is_ok());
        assert!(matches!(check(&nodes(MAX_FIELDS)), Err(OnnxError::TooLarge { .. })));
        let dims = |n| {
            let tensor = TensorProto { dims: vec![1; n], ..TensorProto::default() };
            file(GraphProto { initializer: vec![tensor], ..GraphProto::default() })
        };
        assert!(check(&dims(1000)).is_ok());
        assert!(matches!(check(&dims(MAX_NUMBER_BYTES + 1)), Err(OnnxError::TooLarge { .. })));
    }

    #[test]
    fn damage_is_refused() {
        for bytes in [&[0x3a][..], &[0x3a, 5, 1], &[0x08], &[0x08, 0xff], &[0x0b], &[255; 12]] {
            assert!(matches!(check(bytes), Err(OnnxError::NotOnnx(_))), "{bytes:?}");
        }
    }
}

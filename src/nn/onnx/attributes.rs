//! The parameters of a node by name.

use super::schema::{AttributeProto, NodeProto, TensorProto};

/// Of one node.
pub(super) struct Attributes<'n>(pub &'n NodeProto);

impl<'n> Attributes<'n> {
    fn find(&self, name: &str) -> Option<&'n AttributeProto> {
        self.0.attribute.iter().find(|a| a.name == name)
    }

    pub fn int(&self, name: &str, otherwise: i64) -> i64 {
        self.find(name).map_or(otherwise, |a| a.i)
    }

    pub fn float(&self, name: &str, otherwise: f64) -> f64 {
        self.find(name).map_or(otherwise, |a| shortest(a.f))
    }

    pub fn ints(&self, name: &str) -> Option<&'n [i64]> {
        self.find(name).map(|a| a.ints.as_slice())
    }

    /// A text; empty if it is not there or not UTF-8.
    pub fn text(&self, name: &str) -> &'n str {
        self.find(name).and_then(|a| std::str::from_utf8(&a.s).ok()).unwrap_or("")
    }

    pub fn tensor(&self, name: &str) -> Option<&'n TensorProto> {
        self.find(name).and_then(|a| a.t.as_ref())
    }
}

/// The number that was meant by an f32: `1e-5` and not `9.99999974737875e-6`.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

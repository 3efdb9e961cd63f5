//! The parameters of a node by name.

use super::schema::{AttributeProto, NodeProto, TensorProto};

/// Of one node.
pub(super) struct Attributes<'n>(pub &'n NodeProto);

impl<'n> Attributes<'n> {
    fn find(&self, name: &str) -> Option<&'n AttributeProto> {
        self.0.attribute.iter().find(|a| a.name == name)
    }

    pub(super) fn int(&self, name: &str, otherwise: i64) -> i64 {
        self.find(name).map_or(otherwise, |a| a.i)
    }

    pub(super) fn float(&self, name: &str, otherwise: f64) -> f64 {
        self.find(name).map_or(otherwise, |a| shortest(a.f))
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'n [i64]> {
        self.find(name).map(|a| a.ints.as_slice())
    }

    /// A text; empty if it is not there or not UTF-8.
    pub(super) fn text(&self, name: &str) -> &'n str {
        self.find(name).and_then(|a| std::str::from_utf8(&a.s).ok()).unwrap_or("")
    }

    /// Whether a BatchNormalization is in training mode: it says so, or (before opset 14) gives the statistics of what it is fed.
    pub(super) fn trains(&self) -> bool {
        self.int("training_mode", 0) != 0 || self.0.output.iter().skip(1).any(|name| !name.is_empty())
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&'n TensorProto> {
        self.find(name).and_then(|a| a.t.as_ref())
    }
}

/// Numbers of AttributeProto.AttributeType, with a name for people.
const FLOAT: (i32, &str) = (1, "one number");
const INT: (i32, &str) = (2, "one integer");
const TEXT: (i32, &str) = (3, "a text");
const TENSOR: (i32, &str) = (4, "a tensor");
const INTS: (i32, &str) = (7, "a list of integers");

/// What an attribute of a standard operator is, whatever the operator.
fn meant(name: &str) -> Option<(i32, &'static str)> {
    Some(match name {
        "alpha" | "beta" | "bias" | "cubic_coeff_a" | "epsilon" | "extrapolation_value" | "gamma" | "lambd" => FLOAT,
        "allowzero"
        | "antialias"
        | "axis"
        | "batch_dims"
        | "block_size"
        | "blocksize"
        | "ceil_mode"
        | "count_include_pad"
        | "end"
        | "exclude_outside"
        | "fmod"
        | "group"
        | "keepdims"
        | "noop_with_empty_axes"
        | "num_outputs"
        | "p"
        | "start"
        | "to"
        | "training_mode"
        | "transA"
        | "transB" => INT,
        "approximate"
        | "auto_pad"
        | "coordinate_transformation_mode"
        | "equation"
        | "keep_aspect_ratio_policy"
        | "mode"
        | "nearest_mode" => TEXT,
        "value" => TENSOR,
        "axes" | "dilations" | "kernel_shape" | "output_padding" | "output_shape" | "pads" | "perm" | "split" | "strides" => INTS,
        _ => return None,
    })
}

impl Attributes<'_> {
    /// Errors if one is given twice, or as something else than it is: what is read of it would be nothing.
    pub(super) fn check(&self) -> Result<(), String> {
        for (i, attribute) in self.0.attribute.iter().enumerate() {
            let name = attribute.name.as_str();
            if self.0.attribute[..i].iter().any(|other| other.name == name) {
                return Err(format!("its attribute {name:?} is given twice"));
            }
            let Some((kind, what)) = meant(name) else { continue };
            if given(attribute).is_some_and(|given| given != kind) {
                return Err(format!("its attribute {name:?} is not {what}"));
            }
        }
        Ok(())
    }
}

/// The type of an attribute; where an old file does not say, what has a value. None if nothing has: then it is 0 or empty.
fn given(a: &AttributeProto) -> Option<i32> {
    let held = [
        (FLOAT.0, a.f != 0.0),
        (INT.0, a.i != 0),
        (TEXT.0, !a.s.is_empty()),
        (TENSOR.0, a.t.is_some()),
        (6, !a.floats.is_empty()),
        (INTS.0, !a.ints.is_empty()),
    ];
    if a.kind != 0 { Some(a.kind) } else { held.into_iter().find(|(_, held)| *held).map(|(kind, _)| kind) }
}

/// The number that was meant by an f32: `1e-5` and not `9.99999974737875e-6`.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

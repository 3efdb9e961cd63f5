//! Which calls are compared.

#[cfg(doc)]
use super::Mirror;
use crate::backend::BackendError;
use std::str::FromStr;

/// Which calls a [`Mirror`] compares: all, or some. From text: `all`, or names with commas between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls(Option<Vec<&'static str>>);

impl Calls {
    /// Every one.
    pub const ALL: Self = Self(None);
    /// The names there are: the methods of [`crate::backend::Backend`] that make or change words.
    pub const NAMES: &'static [&'static str] = &[
        "alloc",
        "alloc_key",
        "upload",
        "upload_ntt",
        "duplicate",
        "select",
        "split",
        "concat",
        "ntt_forward",
        "ntt_inverse",
        "add",
        "add_assign",
        "sub",
        "negate",
        "sub_assign",
        "mul_constant",
        "add_constant_assign",
        "add_constants_assign",
        "add_plain_assign",
        "mul_plain",
        "tensor",
        "tensor_sum",
        "tensor_sums",
        "linear_combination",
        "linear_combinations",
        "plain_inner_product",
        "encoded_inner_product",
        "kept_inner_product",
        "encode_plain",
        "automorphism",
        "base_convert",
        "mod_up",
        "key_inner_product",
        "change_basis",
        "change_basis_adding",
        "rotate_digits",
        "relinearize_extended",
        "rotate_digits_extended",
        "rotated_inner_product",
        "rotate_extended",
        "rotate_sum",
        "rotated_sum",
        "rotate",
        "key_switch",
    ];

    /// Whether it is one of them.
    pub(super) fn has(&self, op: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(&op))
    }
}

impl FromStr for Calls {
    type Err = BackendError;

    /// # Errors
    /// [`BackendError::NoSuchCall`] for a name that no call has.
    fn from_str(text: &str) -> Result<Self, BackendError> {
        if text == "all" {
            return Ok(Self::ALL);
        }
        let name = |asked: &str| {
            let known = Self::NAMES.iter().find(|name| **name == asked.trim());
            known.copied().ok_or_else(|| BackendError::NoSuchCall { asked: asked.trim().into(), have: Self::NAMES })
        };
        text.split(',').map(name).collect::<Result<_, _>>().map(|names| Self(Some(names)))
    }
}

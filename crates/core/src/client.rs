//! A client's side of inference: pictures as tensors, and how they lie in the slots of ciphertexts.

pub mod layout;
pub mod tensor;

pub use layout::Layout;
pub use tensor::{Shape, Tensor};

//! A client's side of inference: what it has to know of a network, pictures as tensors, and the holder of the secret
//! key.
//!
//! ```text
//! net.client -> ClientSpec -> Client: secret key, evaluation keys (for the server)
//! picture -> Input::normalise -> Tensor -> Client::encrypt -> to the server
//! from the server -> Client::decrypt -> results
//! ```

pub mod error;
pub mod input;
pub mod interleave;
pub mod layout;
pub mod metric;
pub mod session;
pub mod spec;
pub mod tensor;

pub use error::ClientError;
pub use input::{Fit, Input, Normalisation, NormaliseError};
pub use layout::Layout;
pub use metric::Metric;
pub use session::Client;
pub use spec::{ClientSpec, Rest, RunSpec, class_logits, class_name};
pub use tensor::{Shape, Tensor};

//! Files of what clients are told of a network.

use super::failure::{Class, Failure, Outcome};
use cipherlens::ckks::Params;
use cipherlens::engine::ClientSpec;
use cipherlens::nn::{Model, Tensor};
use cipherlens::wire::{Kind, container};
use std::path::Path;
use std::sync::Arc;

/// What is in one, and its parameter set; a failure names the file.
pub(crate) fn read(path: &Path) -> Outcome<(ClientSpec, Arc<Params>)> {
    ClientSpec::read(path).map_err(|e| Failure { what: format!("cannot use {}", path.display()), ..Failure::from(e) })
}

/// Whether a file is a client's description of a network.
pub(crate) fn is_one(path: &Path) -> bool {
    matches!(container::kind_of(path), Ok(Kind::ClientSpec))
}

/// A grey picture, as a network's input.
pub(crate) fn grey(network: &Model) -> Outcome<Tensor<f64>> {
    let input = network.input();
    input.normalise(&vec![0.5; input.shape.len()]).map_err(|e| super::failure::explain("cannot make a picture", &e))
}

/// A failure that says what a description of a network cannot do.
pub(crate) fn no_weights(path: &Path, what: &str) -> Failure {
    Failure::new(
        Class::Usage,
        format!("{} has no weights", path.display()),
        format!("it is a client's description of a network, and {what} needs the network"),
        "name the network itself: what `cipherlens compile` wrote, safetensors or ONNX",
    )
}

//! What a client is told of a network: read from a file, kept in the compiled network, or worked out from the network.

use super::failure::{Class, Failure, Outcome};
use super::model::Terms;
use cipherlens::engine::{ClientSpec, Foreseen, Prepared, Rest, run_spec};
use cipherlens::nn::{Model, Tensor};
use cipherlens::wire::network::NetworkDigest;
use cipherlens::wire::{Kind, container};
use std::path::Path;
use std::sync::Arc;

/// Whether a file is a client's description of a network.
pub(crate) fn is_one(path: &Path) -> bool {
    matches!(container::kind_of(path), Ok(Kind::ClientSpec))
}

/// What noise does to the results of a network that was not compiled is found out for those who decrypt.
pub(crate) enum For<'a> {
    /// Keys and pictures.
    Encrypting,
    /// Answers, of this picture or one like it.
    Decrypting(&'a Tensor<f64>),
}

/// What clients of a prepared network are told: what was said when it was compiled, or else what can be said now.
pub(crate) fn of(
    network: &Model,
    digest: NetworkDigest,
    terms: &Terms,
    prepared: &Prepared,
    purpose: For<'_>,
) -> Outcome<Arc<ClientSpec>> {
    if let Some(kept) = &terms.client {
        let mut spec = kept.clone();
        let rest = spec.runs.first().map_or(Rest::Other, |run| run.rest);
        if spec.runs.iter().all(|run| run.pictures != prepared.lowered.together) {
            spec.runs.push(run_spec(prepared, digest, rest));
        }
        return Ok(Arc::new(spec));
    }
    // Nothing was seen of its inputs: all numbers are taken.
    let interval = vec![[-f64::MAX, f64::MAX]; network.input().shape.channels];
    let foreseen = match purpose {
        For::Encrypting => Foreseen {
            error: terms.expected_error.unwrap_or(0.0),
            errors: Vec::new(),
            rest: Rest::Other,
            interval,
            largest: f64::INFINITY,
        },
        For::Decrypting(picture) => Foreseen { interval, ..prepared.foresee(network, std::slice::from_ref(picture))? },
    };
    let spec = prepared.client_spec(network, digest, &foreseen);
    Ok(Arc::new(spec))
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

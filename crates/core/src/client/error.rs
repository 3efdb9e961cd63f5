//! What can go wrong on a client's side.

use super::layout::LayoutError;
use crate::ckks::{CkksError, ParamsError};
use crate::wire::WireError;
use crate::wire::network::NetworkDigest;

/// Why a client's step fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A description of a network that contradicts itself.
    #[error("the {what} in the client's description of the network: expected {expected}, found {found}")]
    Spec {
        /// Which part.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// More pictures than any run of the network takes.
    #[error("{found} pictures came for a network that takes 1 to {most} in one run")]
    Pictures {
        /// The most.
        most: usize,
        /// How many came.
        found: usize,
    },
    /// An input that the network was not made for.
    #[error("channel {channel} of the input reaches {found}, and the network takes {least} to {most}, once normalised")]
    Input {
        /// Which channel.
        channel: usize,
        /// The value.
        found: f64,
        /// The least.
        least: f64,
        /// The most.
        most: f64,
    },
    /// A key or a ciphertext of another network, or of another plan for it.
    #[error(
        "the {what} made for {}, and the network here is {expected}",
        .found.map_or_else(|| "no network".to_owned(), |n| format!("network {n}"))
    )]
    Network {
        /// The object.
        what: &'static str,
        /// The network of the description.
        expected: NetworkDigest,
        /// What the object carries.
        found: Option<NetworkDigest>,
    },
    /// A ciphertext that has not the form of an answer: all this is public.
    #[error("this is not an answer of the network: the {what} is {found}, and answers have {expected}")]
    NotAnAnswer {
        /// Level, scale or shards.
        what: &'static str,
        /// What answers have.
        expected: String,
        /// What this has.
        found: String,
    },
    /// What was decrypted is not what a run of the network gives. Why is not told: the reason would tell a server that
    /// tries out ciphertexts about the key.
    #[error(
        "what was decrypted is no answer of the network: the run went wrong, the picture is unlike all others, or the server did not run it"
    )]
    Implausible,
    /// A number of bits of publishing noise that cannot be used.
    #[error("{found} bits of noise for publishing: {least} to {most} can be had")]
    PublishBits {
        /// What was asked for.
        found: u32,
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// A tensor that does not fit a layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The scheme.
    #[error(transparent)]
    Scheme(#[from] CkksError),
    /// The parameter set.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The file.
    #[error(transparent)]
    File(#[from] WireError),
}

//! Files: parameters, keys and ciphertexts on disk, streamed, bounded and checked.
//!
//! Every file is a [`container`]: a prelude, a small header, and chunks of raw little-endian words that are hashed one by
//! one, so that a large key set can be loaded key by key. Hashes detect accidents (a cut download, a bad disk), not an
//! attacker, who can compute them too; what an attacker could do with a file is bounded by the checks on load: what is
//! [expected](Expect) before anything is read, sizes before allocation, every length against the parameters, every residue against its
//! modulus. All is read from and written to any [`Read`](std::io::Read) and [`Write`](std::io::Write); paths are a convenience.

pub mod container;
pub mod expect;
pub mod network;
pub mod objects;
pub mod verify;

pub use expect::Expect;
pub use verify::{Verified, verify, verify_from};

use std::path::PathBuf;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    /// A parameter set.
    Params = 1,
    /// A secret key. Never give it away.
    SecretKey = 2,
    /// A public (encryption) key.
    PublicKey = 3,
    /// Evaluation keys: what a server needs to compute.
    EvaluationKeys = 4,
    /// A ciphertext of any number of shards.
    Ciphertext = 5,
    /// A network ready to run encrypted.
    CompiledNetwork = 6,
    /// What a client has to know of a network.
    ClientSpec = 7,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 7] = [
        Kind::Params,
        Kind::SecretKey,
        Kind::PublicKey,
        Kind::EvaluationKeys,
        Kind::Ciphertext,
        Kind::CompiledNetwork,
        Kind::ClientSpec,
    ];

    /// The kind with a number.
    pub fn from_u16(value: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|&k| k as u16 == value)
    }
    /// The format version that it is written with.
    pub fn version(self) -> u16 {
        match self {
            Kind::CompiledNetwork => 3,
            _ => 2,
        }
    }
    /// What a person calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Params => "parameter set",
            Kind::SecretKey => "secret key",
            Kind::PublicKey => "public key",
            Kind::EvaluationKeys => "evaluation keys",
            Kind::Ciphertext => "ciphertext",
            Kind::CompiledNetwork => "compiled network",
            Kind::ClientSpec => "client's description of a network",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What can be wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The system refuses to read or write.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// What is read from or written to, which is no file with a name, fails.
    #[error("cannot {action} the data: {source}")]
    Stream {
        /// `read` or `write`.
        action: &'static str,
        /// What it says.
        source: std::io::Error,
    },
    /// A file that is there already and must not be replaced.
    #[error("{} exists already and is not replaced", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Something else than what may be replaced has the name.
    #[error("{} is {found}, whose place no {kind} takes", path.display())]
    Occupied {
        /// Where.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What was to be written.
        kind: Kind,
    },
    /// More bytes than the reader takes.
    #[error("the file has {found} bytes, and {most} are the most that can be expected here")]
    TooLarge {
        /// The most.
        most: u64,
        /// What the header says.
        found: u64,
    },
    /// A byte between chunks that is not 0.
    #[error("byte {at} lies between two parts and must be 0; the file was damaged")]
    Padding {
        /// Which.
        at: u64,
    },
    /// Not a file of this program.
    #[error("this is not a cipherlens file: it does not begin with the cipherlens magic")]
    Magic,
    /// A file of another format version.
    #[error(
        "the file has format version {found}, {} than version {supported}, which this program reads and writes",
        if .found < .supported { "older" } else { "newer" }
    )]
    Version {
        /// In the file.
        found: u16,
        /// Readable.
        supported: u16,
    },
    /// A file of another kind.
    #[error("this is a file of kind `{found}`, and one of kind `{expected}` is needed")]
    Kind {
        /// In the file.
        found: String,
        /// Asked for.
        expected: Kind,
    },
    /// A file that ends too early or too late.
    #[error("{what}: the file has {found} bytes, expected {expected}; it is cut short or has something appended")]
    Length {
        /// Which part.
        what: &'static str,
        /// Bytes there must be.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A part whose hash differs from the one recorded.
    #[error("{what}: the contents do not have the recorded BLAKE3 hash; the file was damaged")]
    Hash {
        /// Which part.
        what: String,
    },
    /// A header that cannot be decoded.
    #[error("the header cannot be decoded: {reason}")]
    Header {
        /// Why.
        reason: String,
    },
    /// A size beyond a limit or that does not fit the parameters.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// What.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// An object of another parameter set.
    #[error("the {what} in the file: expected {expected}, found {found}")]
    Origin {
        /// The object.
        what: &'static str,
        /// The parameter set asked for.
        expected: String,
        /// That of the file.
        found: String,
    },
    /// An object of another network. The digests are short.
    #[error(
        "the {what} made for {}, and the network here is {expected}",
        .found.map_or_else(|| "no network".to_owned(), |n| format!("network {n}"))
    )]
    Network {
        /// The object.
        what: &'static str,
        /// The network it is used with.
        expected: network::NetworkDigest,
        /// That of the file.
        found: Option<network::NetworkDigest>,
    },
    /// The scheme refuses what the file holds.
    #[error(transparent)]
    Scheme(#[from] crate::ckks::CkksError),
    /// A coefficient of a secret key that is none. It is not shown.
    #[error("coefficient {index} of the secret key is not -1, 0 or 1; restore the file from a copy")]
    SecretWord {
        /// Which.
        index: usize,
    },
}

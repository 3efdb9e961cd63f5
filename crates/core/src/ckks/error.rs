//! Everything that can go wrong in the scheme.

use super::params::{Level, ParamsError, Scale};
use super::request::KeyKind;
use crate::backend::BackendError;

/// Result of a scheme operation.
pub type Result<T> = std::result::Result<T, CkksError>;

/// Everything that can go wrong in the scheme.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CkksError {
    /// Parameters.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The machine below.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// An operation that needs more levels than are left.
    #[error("{op}: needs {needed} level(s), the ciphertext is at {level}; use a deeper preset or refresh it")]
    LevelsExhausted {
        /// The operation.
        op: &'static str,
        /// The ciphertext's level.
        level: Level,
        /// Levels needed.
        needed: usize,
    },
    /// Operands at different levels, or a target above the source.
    #[error("{op}: expected {expected}, found {found}; drop the higher operand first")]
    LevelMismatch {
        /// The operation.
        op: &'static str,
        /// The level needed.
        expected: Level,
        /// The level found.
        found: Level,
    },
    /// Operands whose scales differ by more than 2^-20.
    #[error("{op}: scales {expected} and {found} differ by more than 2^-20; rescale or drop to a canonical scale first")]
    ScaleMismatch {
        /// The operation.
        op: &'static str,
        /// The left scale.
        expected: Scale,
        /// The right scale.
        found: Scale,
    },
    /// A scale that is not a positive number, or leaves no room below the modulus.
    #[error("{op}: scale {scale} is outside 1..2^{log_q:.1}, the modulus of {level}")]
    ScaleRange {
        /// The operation.
        op: &'static str,
        /// The scale.
        scale: Scale,
        /// The level.
        level: Level,
        /// log2 of its modulus.
        log_q: f64,
    },
    /// A key that was not generated.
    #[error("no {kind} key covers {level}; the key set has {have}")]
    MissingKey {
        /// What the key should do.
        kind: KeyKind,
        /// The level it should cover.
        level: Level,
        /// The keys there are.
        have: String,
    },
    /// Keys of a list that were not generated.
    #[error("{missing} of {needed} keys are missing, the first for {kind} over {gadget}")]
    MissingKeys {
        /// How many.
        missing: usize,
        /// Of how many.
        needed: usize,
        /// What the first should do.
        kind: KeyKind,
        /// Its gadget.
        gadget: String,
    },
    /// Values of different parameter sets.
    #[error("{op}: made for parameter set {found}, not {expected}")]
    ParamsMismatch {
        /// The operation.
        op: &'static str,
        /// Start of the fingerprint expected, in hexadecimal.
        expected: String,
        /// Start of the fingerprint found.
        found: String,
    },
    /// Values under different secret keys.
    #[error("{op}: encrypted under key {found}, not {expected}")]
    KeyMismatch {
        /// The operation.
        op: &'static str,
        /// The key id expected.
        expected: String,
        /// The key id found.
        found: String,
    },
    /// Operands with different numbers of shards.
    #[error("{op}: expected {expected} shard(s), found {found}")]
    ShardMismatch {
        /// The operation.
        op: &'static str,
        /// Shards needed.
        expected: usize,
        /// Shards found.
        found: usize,
    },
    /// A plaintext in the form for additions where that for products is needed, or the reverse.
    #[error("{op}: needs a plaintext in {expected} form")]
    FormMismatch {
        /// The operation.
        op: &'static str,
        /// The form needed.
        expected: &'static str,
    },
    /// A plaintext over other primes than the ciphertext.
    #[error("{op}: the plaintext has {found} limbs and does not match the {expected} of the ciphertext at {level}")]
    BasisMismatch {
        /// The operation.
        op: &'static str,
        /// The ciphertext's level.
        level: Level,
        /// Limbs needed.
        expected: usize,
        /// Limbs found.
        found: usize,
    },
    /// Extended values over different gadgets.
    #[error("{op}: gadgets differ: {expected} against {found}")]
    GadgetMismatch {
        /// The operation.
        op: &'static str,
        /// The gadget needed.
        expected: String,
        /// The gadget found.
        found: String,
    },
    /// NaN or infinity in what should be encoded.
    #[error("value {index} of vector {vector} is {value}; only finite numbers can be encoded")]
    NotFinite {
        /// The vector.
        vector: usize,
        /// The slot.
        index: usize,
        /// The value.
        value: f64,
    },
    /// Values too large for the modulus at the scale asked for.
    #[error(
        "coefficients of vector {vector} reach 2^{log_coefficient:.1} but the modulus allows 2^{log_limit:.1}; lower the scale or the values"
    )]
    EncodingOverflow {
        /// The vector.
        vector: usize,
        /// log2 of the largest coefficient.
        log_coefficient: f64,
        /// log2 of half the modulus.
        log_limit: f64,
    },
    /// A period that does not divide the slots.
    #[error("vectors of {period} slots cannot fill {slots} by repetition; take a power of two from {least} to {slots}")]
    Period {
        /// The period asked for.
        period: usize,
        /// The least there is.
        least: usize,
        /// Slots there are.
        slots: usize,
    },
    /// A vector that does not fit the slots.
    #[error("expected {expected} values, found {found}")]
    SlotCount {
        /// Slots.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// The operating system gave no randomness.
    #[error("the operating system's random generator failed: {reason}")]
    Randomness {
        /// What it said.
        reason: String,
    },
    /// A stored residue that is not below its modulus.
    #[error("{what}: word {index} is {found}, not below its modulus {modulus}")]
    Residue {
        /// The object.
        what: &'static str,
        /// Which word of it, `[poly][limb][N]`.
        index: usize,
        /// The word.
        found: u32,
        /// The modulus.
        modulus: u32,
    },
    /// Stored data that is not what it claims to be.
    #[error("{what}: expected {expected}, found {found}")]
    Malformed {
        /// The object.
        what: &'static str,
        /// What it needs.
        expected: String,
        /// What it has.
        found: String,
    },
}

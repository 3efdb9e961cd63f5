//! The scheme: RNS-CKKS on a ladder of prime windows (docs/arithmetic.md).

pub mod ciphertext;
mod compose;
pub mod encapsulation;
pub mod encoder;
pub mod encrypt;
pub mod error;
pub mod evaluator;
pub mod gadget;
mod host;
mod key_set;
mod key_switch;
pub mod keys;
pub mod ladder;
pub mod noise;
pub mod overflow;
pub mod params;
pub mod plaintext;
pub mod precision;
pub mod presets;
pub mod sampler;
mod widest;

pub use ciphertext::{Ciphertext, Digits, ExtendedCiphertext};
pub use encoder::{Encoder, Integers};
pub use encrypt::{Decryptor, Encryptor, SeededCiphertext};
pub use error::{CkksError, Result};
pub use evaluator::{Degree2, Evaluator};
pub use gadget::Gadget;
pub use key_set::KeySet;
pub use key_switch::Lifted;
pub use keys::{KeyGenerator, KeyId, KeyKind, KeyRequest, KeySwitchKey, PublicKey, SecretKey, Tag};
pub use noise::{NoiseModel, Noisy};
pub use params::{Bootstrap, Level, Params, ParamsError, ParamsLiteral, Scale};
pub use plaintext::{PlainForm, Plaintext};
pub use precision::PrecisionStats;
pub use sampler::RandomSource;

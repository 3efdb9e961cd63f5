//! Which network a file belongs to.

use serde::{Deserialize, Serialize};
use std::fmt;

/// BLAKE3 of everything that makes a network what it is: weights, normalisation, classes, fits, and the terms it is planned on.
/// Keys and ciphertexts carry it, since those of another network of the same shape would be taken and give another's answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetworkDigest(pub [u8; 32]);

impl NetworkDigest {
    /// Of the parts of a description, in order; where one ends and the next begins counts too.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("cipherlens network digest, version 1");
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// Of the network's plan for so many pictures in a run; for one, that of the network itself.
    pub fn together(self, pictures: usize) -> Self {
        if pictures == 1 { self } else { Self::of(&[b"pictures in a run", &self.0, &(pictures as u64).to_le_bytes()]) }
    }
}

/// The first eight bytes in hexadecimal: enough for a person to compare.
impl fmt::Display for NetworkDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::objects::short(&self.0))
    }
}

impl fmt::Debug for NetworkDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkDigest({self})")
    }
}

//! What a reader is willing to take.

use super::WireError;
use super::network::NetworkDigest;
use super::objects::{CiphertextBody, KeyBody, Origin};
use crate::ckks::{CkksError, KeyId, KeyRequest, Level, Params, Scale};
use std::collections::BTreeSet;

/// What keys or a ciphertext from somebody else must be. Whatever is not, is refused by its header, before memory is taken for it. What
/// is left out (`None`, the default) may be anything that the parameter set allows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expect<'a> {
    /// The network they were made for.
    pub network: Option<NetworkDigest>,
    /// The secret key they were made with.
    pub key_id: Option<KeyId>,
    /// The evaluation keys: these, and no others.
    pub keys: Option<&'a [KeyRequest]>,
    /// The level of a ciphertext.
    pub level: Option<Level>,
    /// Shards of a ciphertext.
    pub shards: Option<usize>,
    /// Whether a ciphertext must have the canonical scale of its level, as fresh ones and those between the steps of a plan do.
    pub canonical_scale: bool,
    /// The most bytes of the whole file.
    pub max_bytes: Option<u64>,
}

impl<'a> Expect<'a> {
    /// The evaluation keys that a plan needs.
    pub fn keys(network: NetworkDigest, keys: &'a [KeyRequest]) -> Self {
        Self { network: Some(network), keys: Some(keys), ..Self::default() }
    }

    /// A fresh ciphertext of so many shards at a level, as a plan begins with.
    pub fn ciphertext(network: NetworkDigest, level: Level, shards: usize) -> Self {
        let (network, level, shards) = (Some(network), Some(level), Some(shards));
        Self { network, level, shards, canonical_scale: true, ..Self::default() }
    }

    /// Bytes in memory of what is expected, once read; none where nothing says.
    pub fn memory_bytes(&self, params: &Params) -> Option<u64> {
        let keys = self.keys.map(|keys| keys.iter().map(|k| k.gadget.key_bytes(params.degree())).sum::<u64>());
        let ciphertext = self
            .level
            .zip(self.shards)
            .map(|(level, shards)| (8 * params.degree() * params.window(level).len()) as u64 * shards as u64);
        keys.or(ciphertext)
    }

    /// With the most bytes that what is expected may have in a file: those in memory, a header and what lies between chunks.
    pub fn bounded(self, params: &Params) -> Self {
        const BESIDE: u64 = 2 << 20;
        Self { max_bytes: self.memory_bytes(params).map(|bytes| bytes + BESIDE), ..self }
    }

    pub(super) fn check_bytes(&self, found: u64) -> Result<(), WireError> {
        match self.max_bytes {
            Some(most) if found > most => Err(WireError::TooLarge { most, found }),
            _ => Ok(()),
        }
    }

    /// `what` begins the sentence, as in `ciphertext was`.
    pub(super) fn check_origin(&self, origin: &Origin, what: &'static str) -> Result<(), WireError> {
        self.network.map_or(Ok(()), |network| origin.check_network(what, network))?;
        match self.key_id {
            Some(expected) if expected != origin.key_id => {
                let (expected, found) = (expected.to_string(), origin.key_id.to_string());
                Err(WireError::Scheme(CkksError::KeyMismatch { op: "read", expected, found }))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check_keys(&self, found: &[KeyBody]) -> Result<(), WireError> {
        let Some(needed) = self.keys else { return Ok(()) };
        let (needed, found): (BTreeSet<_>, BTreeSet<_>) = (needed.iter().collect(), found.iter().map(|k| &k.request).collect());
        let mut missing = needed.difference(&found);
        if let Some(&&KeyRequest { kind, gadget }) = missing.next() {
            let (missing, needed, gadget) = (1 + missing.count(), needed.len(), gadget.to_string());
            return Err(WireError::Scheme(CkksError::MissingKeys { missing, needed, kind, gadget }));
        }
        let mut more = found.difference(&needed);
        match more.next() {
            None => Ok(()),
            Some(KeyRequest { kind, gadget }) => {
                let (expected, more) = (format!("the {} keys that are needed", needed.len()), more.count() + 1);
                let found = format!("{more} more, the first for {kind} over {gadget}");
                Err(WireError::Shape { what: "evaluation keys", expected, found })
            }
        }
    }

    pub(super) fn check_ciphertext(&self, params: &Params, found: &CiphertextBody) -> Result<(), WireError> {
        if let Some(level) = self.level.filter(|level| level.0 != found.level as usize) {
            return Err(WireError::Shape { what: "level", expected: level.0.to_string(), found: found.level.to_string() });
        }
        if let Some(shards) = self.shards.filter(|&shards| shards != found.shards as usize) {
            return Err(WireError::Shape { what: "shards", expected: shards.to_string(), found: found.shards.to_string() });
        }
        let canonical = params.scale(Level(found.level as usize));
        if self.canonical_scale && found.scale != canonical.0 {
            let (expected, found) = (canonical.to_string(), Scale(found.scale).to_string());
            return Err(WireError::Shape { what: "scale", expected, found });
        }
        Ok(())
    }
}

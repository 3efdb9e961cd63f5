//! Finished keys, and which of them serves an operation.

use super::KeySwitchKey;
use crate::ckks::error::{CkksError, Result};
use crate::ckks::gadget::Gadget;
use crate::ckks::origin::Tag;
use crate::ckks::params::{Level, Params};
use crate::ckks::request::{KeyKind, KeyRequest};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The keys an evaluation may use, on a backend.
#[derive(Debug)]
pub struct KeySet {
    tag: Tag,
    keys: BTreeMap<KeyKind, Vec<Arc<KeySwitchKey>>>,
}

impl KeySet {
    /// No key yet.
    pub fn new(tag: Tag) -> Self {
        Self { tag, keys: BTreeMap::new() }
    }
    /// Adds a key of the same origin; one with the same kind and gadget is replaced.
    ///
    /// # Errors
    /// [`CkksError::ParamsMismatch`] for a key of another parameter set, [`CkksError::KeyMismatch`] for one of another secret key.
    pub fn insert(&mut self, key: KeySwitchKey) -> Result<()> {
        self.tag.check_same(&key.tag, "insert key")?;
        let keys = self.keys.entry(key.request.kind).or_default();
        keys.retain(|k| k.request.gadget != key.request.gadget);
        keys.push(Arc::new(key));
        keys.sort_by_key(|k| (k.request.gadget.key_limbs(), k.request.gadget.digits(), k.request.gadget));
        Ok(())
    }
    /// Origin.
    pub fn tag(&self) -> Tag {
        self.tag
    }
    /// All keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<KeySwitchKey>> {
        self.keys.values().flatten()
    }
    /// How many keys.
    pub fn len(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
    /// Bytes of all keys.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|k| k.bytes() as u64).sum()
    }
    /// The key with the fewest limbs that covers a level.
    ///
    /// # Errors
    /// [`CkksError::Params`] for a level above the top, [`CkksError::MissingKey`] where there is none.
    pub fn covering(&self, params: &Params, kind: KeyKind, level: Level) -> Result<&Arc<KeySwitchKey>> {
        params.check_level(level)?;
        let window = params.window(level);
        let found = self.keys.get(&kind).and_then(|keys| keys.iter().find(|k| k.request.gadget.covers(window)));
        found.ok_or_else(|| self.missing(kind, level))
    }
    /// The key with exactly this gadget.
    ///
    /// # Errors
    /// [`CkksError::MissingKey`] where there is none; the level only says what it was needed for.
    pub fn exact(&self, kind: KeyKind, gadget: &Gadget, level: Level) -> Result<&Arc<KeySwitchKey>> {
        let found = self.keys.get(&kind).and_then(|keys| keys.iter().find(|k| k.request.gadget == *gadget));
        found.ok_or_else(|| self.missing(kind, level))
    }

    /// Whether all of these keys are here.
    ///
    /// # Errors
    /// [`CkksError::MissingKeys`], with the first that is not.
    pub fn check(&self, needed: &[KeyRequest]) -> Result<()> {
        let has = |r: &KeyRequest| self.keys.get(&r.kind).is_some_and(|keys| keys.iter().any(|k| k.request.gadget == r.gadget));
        let mut missing = needed.iter().filter(|request| !has(request));
        let Some(&KeyRequest { kind, gadget }) = missing.next() else { return Ok(()) };
        Err(CkksError::MissingKeys { missing: 1 + missing.count(), needed: needed.len(), kind, gadget: gadget.to_string() })
    }

    fn missing(&self, kind: KeyKind, level: Level) -> CkksError {
        let gadgets =
            |keys: &[Arc<KeySwitchKey>]| keys.iter().map(|k| k.request.gadget.to_string()).collect::<Vec<_>>().join("; ");
        let have = match (self.keys.get(&kind), self.len()) {
            (_, 0) => "no keys".to_string(),
            (Some(keys), _) => format!("this kind only for {}", gadgets(keys)),
            (None, count) => {
                let kinds: Vec<String> = self.keys.keys().take(16).map(KeyKind::to_string).collect();
                let more = if self.keys.len() > kinds.len() { ", ..." } else { "" };
                format!("{count} keys: {}{more}", kinds.join(", "))
            }
        };
        CkksError::MissingKey { kind, level, have }
    }
}

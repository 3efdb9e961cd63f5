//! Parameters, keys and ciphertexts as files.
//!
//! Every file but a parameter set names, in its [`Origin`], the parameter set (by fingerprint, and by preset name for people) and the
//! secret key (by a random id that says nothing about it). Readers are given the parameter set and refuse anything else. Evaluation
//! keys and ciphertexts also name their network, which [`Origin::check_network`] compares; a secret key serves any number of networks.

use super::container::{MAX_CHUNK_WORDS, Reader, Writer};
use super::network::NetworkDigest;
use super::{Kind, WireError};
use crate::backend::{Backend, Shape};
use crate::ckks::{
    Ciphertext, CkksError, KeyId, KeyRequest, KeySet, KeySwitchKey, Level, Params, ParamsLiteral, PublicKey, Scale, SecretKey,
    SeededCiphertext, Tag,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Most primes of a parameter set read from a file.
pub const MAX_PRIMES: usize = 256;
/// Most shards of a ciphertext read from a file.
pub const MAX_SHARDS: usize = 1 << 16;

/// Where an object comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the parameter set.
    pub preset: String,
    /// Its fingerprint.
    pub fingerprint: [u8; 32],
    /// The secret key.
    pub key_id: KeyId,
    /// Whether the parameter set makes no security claim.
    pub insecure: bool,
    /// The network that evaluation keys or a ciphertext were made for; none for what serves any.
    pub network: Option<NetworkDigest>,
}

impl Origin {
    fn new(params: &Params, tag: &Tag, network: Option<NetworkDigest>) -> Self {
        let preset = params.name().into();
        Self { preset, fingerprint: tag.fingerprint, key_id: tag.key_id, insecure: tag.insecure, network }
    }

    /// Errors unless the object was made for this network; `what` begins the sentence, as in `answer was`.
    pub fn check_network(&self, what: &'static str, network: NetworkDigest) -> Result<(), WireError> {
        if self.network == Some(network) {
            return Ok(());
        }
        Err(WireError::Network { what, expected: network, found: self.network })
    }

    /// As the scheme knows it; errors unless the parameter set is this one.
    fn tag(&self, params: &Params, what: &'static str) -> Result<Tag, WireError> {
        if self.fingerprint != params.fingerprint() {
            let expected = format!("parameter set `{}` ({})", params.name(), short(&params.fingerprint()));
            let found = format!("`{}` ({})", self.preset, short(&self.fingerprint));
            return Err(WireError::Origin { what, expected, found });
        }
        Ok(Tag { fingerprint: self.fingerprint, key_id: self.key_id, insecure: params.is_insecure() })
    }
}

pub(super) fn short(fingerprint: &[u8; 32]) -> String {
    fingerprint[..8].iter().map(|b| format!("{b:02x}")).collect()
}

/// What every kind but a parameter set begins with: enough to tell what a file is without reading the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata<T> {
    /// Where it comes from.
    pub origin: Origin,
    /// What this kind needs.
    pub body: T,
}

/// A ciphertext's header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CiphertextBody {
    /// Level.
    pub level: u32,
    /// Scale.
    pub scale: f64,
    /// Shards.
    pub shards: u32,
    /// Seed of the second halves; without one, they are in the file.
    pub seed: Option<[u8; 32]>,
}

/// One evaluation key's header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyBody {
    /// What it does, over which primes.
    pub request: KeyRequest,
    /// Seed of the uniform half.
    pub seed: [u8; 32],
}

/// Lengths of chunks of whole limbs for so many limbs of `degree` words.
fn chunk_sizes(limbs: usize, degree: usize) -> Vec<usize> {
    let most = (MAX_CHUNK_WORDS / degree.max(1)).max(1);
    (0..limbs.div_ceil(most)).map(|i| most.min(limbs - i * most) * degree).collect()
}

fn write_words<M: Serialize>(writer: &mut Writer<M>, words: &[u32], degree: usize) -> Result<(), WireError> {
    let mut rest = words;
    for size in chunk_sizes(words.len() / degree.max(1), degree) {
        let (chunk, tail) = rest.split_at(size);
        writer.chunk(chunk)?;
        rest = tail;
    }
    Ok(())
}

/// Reads the chunks of so many limbs, `next` being the first; they are checked to be there before anything is allocated.
fn read_words<M: serde::de::DeserializeOwned>(
    reader: &mut Reader<M>,
    next: &mut usize,
    limbs: usize,
    degree: usize,
) -> Result<Vec<u32>, WireError> {
    let sizes = chunk_sizes(limbs, degree);
    for (i, &size) in sizes.iter().enumerate() {
        let found = reader.chunks().get(*next + i).map(|c| c.words as usize);
        if found != Some(size) {
            let found = found.map_or("no such chunk".into(), |n| n.to_string());
            return Err(WireError::Shape { what: "words of a chunk", expected: size.to_string(), found });
        }
    }
    let mut words = Vec::with_capacity(limbs * degree);
    for size in sizes {
        words.extend(reader.chunk(*next, size)?);
        *next += 1;
    }
    Ok(words)
}

fn all_read<M: serde::de::DeserializeOwned>(reader: &Reader<M>, next: usize) -> Result<(), WireError> {
    let found = reader.chunks().len();
    if found == next {
        return Ok(());
    }
    Err(WireError::Shape { what: "chunks", expected: next.to_string(), found: found.to_string() })
}

/// Writes a parameter set.
pub fn write_params(path: &Path, params: &Params) -> Result<(), WireError> {
    super::container::write(path, Kind::Params, params.literal(), &[], false)
}

/// Reads a parameter set and checks it like any other ([`Params::new`]).
pub fn read_params(path: &Path) -> Result<Arc<Params>, WireError> {
    let reader = Reader::<ParamsLiteral>::open(path, Kind::Params)?;
    all_read(&reader, 0)?;
    let literal = reader.metadata;
    let primes = literal.terminal.len() + literal.main.len() + literal.special.len();
    if primes > MAX_PRIMES {
        return Err(WireError::Shape { what: "primes", expected: format!("at most {MAX_PRIMES}"), found: primes.to_string() });
    }
    Params::new(literal).map_err(|e| WireError::Scheme(e.into()))
}

/// Writes a secret key, readable by this user alone.
pub fn write_secret_key(path: &Path, params: &Params, key: &SecretKey) -> Result<(), WireError> {
    let metadata = Metadata { origin: Origin::new(params, &key.tag(), None), body: () };
    let words: Zeroizing<Vec<u32>> = Zeroizing::new(key.expose_coefficients().iter().map(|&c| i32::from(c) as u32).collect());
    super::container::write(path, Kind::SecretKey, &metadata, &[words.as_slice()], true)
}

/// Reads a secret key.
pub fn read_secret_key(path: &Path, params: &Arc<Params>) -> Result<SecretKey, WireError> {
    let mut reader = Reader::<Metadata<()>>::open(path, Kind::SecretKey)?;
    let tag = reader.metadata.origin.tag(params, "secret key")?;
    all_read(&reader, 1)?;
    let mut words = Zeroizing::new(vec![0u32; params.degree()]);
    reader.chunk_into(0, &mut words)?;
    let mut coefficients = Zeroizing::new(Vec::with_capacity(words.len()));
    for (index, &word) in words.iter().enumerate() {
        match word as i32 {
            c @ -1..=1 => coefficients.push(c as i8),
            // Not the word: it may be part of a key.
            _ => return Err(WireError::SecretWord { index }),
        }
    }
    Ok(SecretKey::from_coefficients(params, tag.key_id, std::mem::take(&mut *coefficients))?)
}

/// Writes a public (encryption) key; its uniform half as a seed.
pub fn write_public_key(path: &Path, params: &Params, key: &PublicKey) -> Result<(), WireError> {
    let (seed, words) = key.parts();
    let metadata = Metadata { origin: Origin::new(params, &key.tag(), None), body: *seed };
    let sizes = chunk_sizes(words.len() / params.degree(), params.degree());
    let mut writer = Writer::create(path, Kind::PublicKey, metadata, &sizes, false)?;
    write_words(&mut writer, words, params.degree())?;
    writer.finish()
}

/// Reads a public key; every residue is checked.
pub fn read_public_key(path: &Path, params: &Params) -> Result<PublicKey, WireError> {
    let mut reader = Reader::<Metadata<[u8; 32]>>::open(path, Kind::PublicKey)?;
    let tag = reader.metadata.origin.tag(params, "public key")?;
    let limbs = params.tables().len() - params.special().len();
    let mut next = 0;
    let words = read_words(&mut reader, &mut next, limbs, params.degree())?;
    all_read(&reader, next)?;
    Ok(PublicKey::from_parts(params, tag, reader.metadata.body, words)?)
}

/// Writes evaluation keys, made for a network: of each the half that is not uniform, and a seed for the other.
pub fn write_evaluation_keys(
    path: &Path,
    params: &Params,
    backend: &dyn Backend,
    keys: &KeySet,
    network: Option<NetworkDigest>,
) -> Result<(), WireError> {
    let body: Vec<KeyBody> =
        keys.iter().map(|k| KeyBody { request: KeyRequest { kind: k.kind(), gadget: k.gadget() }, seed: *k.seed() }).collect();
    let degree = params.degree();
    let sizes: Vec<usize> = keys.iter().flat_map(|k| chunk_sizes(k.gadget().digits() * k.gadget().key_limbs(), degree)).collect();
    let metadata = Metadata { origin: Origin::new(params, &keys.tag(), network), body };
    let mut writer = Writer::create(path, Kind::EvaluationKeys, metadata, &sizes, false)?;
    for key in keys.iter() {
        write_words(&mut writer, &key.masked_half(backend)?, degree)?;
    }
    writer.finish()
}

/// Reads evaluation keys onto a backend, one by one; every residue is checked.
pub fn read_evaluation_keys(path: &Path, params: &Params, backend: &dyn Backend) -> Result<KeySet, WireError> {
    let mut reader = Reader::<Metadata<Vec<KeyBody>>>::open(path, Kind::EvaluationKeys)?;
    let tag = reader.metadata.origin.tag(params, "evaluation keys")?;
    // All of them before the sizes of any are used.
    let mut seen = BTreeSet::new();
    for KeyBody { request, .. } in &reader.metadata.body {
        request.check(params).map_err(CkksError::from)?;
        if !seen.insert(request) {
            let found = format!("a second {} key over {}", request.kind, request.gadget);
            return Err(WireError::Shape { what: "evaluation keys", expected: "each key once".into(), found });
        }
    }
    let mut keys = KeySet::new(tag);
    let mut next = 0;
    for KeyBody { request, seed } in reader.metadata.body.clone() {
        let limbs = params.key_basis(&request.gadget).map_err(CkksError::from)?.len();
        let words = read_words(&mut reader, &mut next, request.gadget.digits() * limbs, params.degree())?;
        keys.insert(KeySwitchKey::from_parts(params, backend, tag, request, seed, &words)?)?;
    }
    all_read(&reader, next)?;
    Ok(keys)
}

/// Writes a fresh ciphertext, made for a network; the uniform halves travel as a seed.
pub fn write_seeded_ciphertext(
    path: &Path,
    params: &Params,
    ciphertext: &SeededCiphertext,
    network: Option<NetworkDigest>,
) -> Result<(), WireError> {
    let body = CiphertextBody {
        level: ciphertext.level.0 as u32,
        scale: ciphertext.scale.0,
        shards: ciphertext.shards(params) as u32,
        seed: Some(ciphertext.seed),
    };
    write_ciphertext_words(path, Origin::new(params, &ciphertext.tag, network), params.degree(), body, &ciphertext.words)
}

/// Writes a ciphertext, made for or by a network.
pub fn write_ciphertext(
    path: &Path,
    params: &Params,
    backend: &dyn Backend,
    ciphertext: &Ciphertext,
    network: Option<NetworkDigest>,
) -> Result<(), WireError> {
    let (level, scale, shards) = (ciphertext.level().0 as u32, ciphertext.scale().0, ciphertext.shards() as u32);
    let words = backend.download(ciphertext.buffer()).map_err(CkksError::from)?;
    let body = CiphertextBody { level, scale, shards, seed: None };
    write_ciphertext_words(path, Origin::new(params, &ciphertext.tag(), network), params.degree(), body, &words)
}

fn write_ciphertext_words(
    path: &Path,
    origin: Origin,
    degree: usize,
    body: CiphertextBody,
    words: &[u32],
) -> Result<(), WireError> {
    let metadata = Metadata { origin, body };
    let sizes = chunk_sizes(words.len() / degree, degree);
    let mut writer = Writer::create(path, Kind::Ciphertext, metadata, &sizes, false)?;
    write_words(&mut writer, words, degree)?;
    writer.finish()
}

/// Reads a ciphertext of either form onto a backend; every residue is checked.
pub fn read_ciphertext(path: &Path, params: &Params, backend: &dyn Backend) -> Result<Ciphertext, WireError> {
    let mut reader = Reader::<Metadata<CiphertextBody>>::open(path, Kind::Ciphertext)?;
    let tag = reader.metadata.origin.tag(params, "ciphertext")?;
    let CiphertextBody { level, scale, shards, seed } = reader.metadata.body;
    let (level, scale, shards) = (Level(level as usize), Scale(scale), shards as usize);
    params.check_level(level).map_err(CkksError::from)?;
    if shards == 0 || shards > MAX_SHARDS {
        return Err(WireError::Shape { what: "shards", expected: format!("1 to {MAX_SHARDS}"), found: shards.to_string() });
    }
    let (basis, degree) = (params.window(level), params.degree());
    let polys = if seed.is_some() { shards } else { 2 * shards };
    let mut next = 0;
    let words = read_words(&mut reader, &mut next, polys * basis.len(), degree)?;
    all_read(&reader, next)?;
    if let Some(seed) = seed {
        return Ok(SeededCiphertext { words, seed, level, scale, tag }.expand(params, backend)?);
    }
    crate::ckks::keys::check_residues("ciphertext", params, basis, &words, polys)?;
    let buffer = backend.upload(Shape::new(polys, basis.len(), degree), &words).map_err(CkksError::from)?;
    Ok(Ciphertext::from_parts(params, buffer, level, scale, tag)?)
}

/// Where the object in a file comes from; none for a parameter set or a network.
pub fn read_origin(path: &Path) -> Result<Option<Origin>, WireError> {
    let kind = super::container::kind_of(path)?;
    Ok(match kind {
        Kind::Params | Kind::CompiledNetwork | Kind::ClientSpec => None,
        Kind::SecretKey => Some(Reader::<Metadata<()>>::open(path, kind)?.metadata.origin),
        Kind::PublicKey => Some(Reader::<Metadata<[u8; 32]>>::open(path, kind)?.metadata.origin),
        Kind::EvaluationKeys => Some(Reader::<Metadata<Vec<KeyBody>>>::open(path, kind)?.metadata.origin),
        Kind::Ciphertext => Some(Reader::<Metadata<CiphertextBody>>::open(path, kind)?.metadata.origin),
    })
}

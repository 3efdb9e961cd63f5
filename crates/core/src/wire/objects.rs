//! Parameters, keys and ciphertexts as files, or on anything that can be read and written.
//!
//! Functions named `..._to` and `..._from` write to any [`Write`] and read from any [`Read`]; those with a path are helpers. What comes
//! from somebody else is read with an [`Expect`], which says what is wanted, and refuses anything else by its header.
//!
//! Every file but a parameter set names, in its [`Origin`], the parameter set (by fingerprint, and by preset name for people) and the
//! secret key (by a random id that says nothing about it). Readers are given the parameter set and refuse anything else. Evaluation
//! keys and ciphertexts also name their network, which [`Origin::check_network`] compares; a secret key serves any number of networks.
//!
//! # Errors
//! Of writing, where a function says no more: those of [`container::create`] with a path, of [`container::write_to`] without.
//!
//! Of reading, where a function says no more:
//! - those of [`Opened::path`] or [`Opened::input`], [`Opened::header`], [`Reader::chunk`] and [`Reader::finish`];
//! - [`WireError::Origin`] for an object of another parameter set;
//! - [`WireError::Shape`] where the chunks have not the lengths that the parameter set and the header ask for;
//! - [`WireError::Scheme`] with [`CkksError::Residue`] for a residue that is not below its modulus.

use super::container::{self, Contents, Existing, MAX_CHUNK_WORDS, Opened, Reader};
use super::expect::Expect;
use super::network::NetworkDigest;
use super::{Kind, WireError};
use crate::backend::{Backend, Shape};
use crate::ckks::{
    Ciphertext, CkksError, KeyId, KeyRequest, KeySet, KeySwitchKey, Level, Params, ParamsLiteral, PublicKey, Scale, SecretKey,
    SeededCiphertext, Tag,
};
use crate::math::Basis;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

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
    ///
    /// # Errors
    /// [`WireError::Network`] for another network, or none.
    pub fn check_network(&self, what: &'static str, network: NetworkDigest) -> Result<(), WireError> {
        if self.network == Some(network) {
            return Ok(());
        }
        Err(WireError::Network { what, expected: network, found: self.network })
    }

    /// As the scheme knows it; errors unless the parameter set is this one.
    pub(super) fn tag(&self, params: &Params, what: &'static str) -> Result<Tag, WireError> {
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
pub(super) fn chunk_sizes(limbs: usize, degree: usize) -> impl Iterator<Item = usize> {
    let most = (MAX_CHUNK_WORDS / degree.max(1)).max(1);
    (0..limbs.div_ceil(most)).map(move |i| most.min(limbs - i * most) * degree)
}

/// Where a file goes: to a path, or to anything that can be written.
enum Target<'a> {
    Path { path: &'a Path, private: bool, existing: Existing },
    Output(&'a mut dyn Write),
}

impl<'a> Target<'a> {
    fn replaced(path: &'a Path) -> Self {
        Self::Path { path, private: false, existing: Existing::Replaced }
    }

    fn write<M: Serialize>(self, contents: &Contents<'_, M>) -> Result<(), WireError> {
        match self {
            Self::Path { path, private, existing } => container::create(path, private, existing, contents),
            Self::Output(output) => container::write_to(output, contents),
        }
    }

    /// Writes words, whole limbs a chunk.
    fn write_words<M: Serialize>(self, kind: Kind, metadata: &M, words: &[u32], degree: usize) -> Result<(), WireError> {
        let sizes: Vec<usize> = chunk_sizes(words.len() / degree.max(1), degree).collect();
        // All chunks but the last are of one length.
        let most = sizes.first().copied().unwrap_or(0);
        let chunk = |i: usize| Ok(Cow::from(&words[i * most..][..sizes[i]]));
        self.write(&Contents { kind, metadata, sizes: &sizes, chunk: &chunk })
    }
}

/// Reads the chunks of so many limbs, `next` being the first.
fn read_words<M, R: Read>(
    reader: &mut Reader<M, R>,
    next: &mut usize,
    limbs: usize,
    degree: usize,
) -> Result<Vec<u32>, WireError> {
    let mut words = Vec::new();
    for size in chunk_sizes(limbs, degree) {
        reader.append_chunk(*next, size, &mut words)?;
        *next += 1;
    }
    Ok(words)
}

/// Writes a parameter set.
///
/// # Errors
/// Those of writing ([module](self)).
pub fn write_params(path: &Path, params: &Params) -> Result<(), WireError> {
    Target::replaced(path).write_words(Kind::Params, params.literal(), &[], 1)
}

/// As [`write_params`].
///
/// # Errors
/// Those of writing ([module](self)).
pub fn write_params_to(mut output: impl Write, params: &Params) -> Result<(), WireError> {
    Target::Output(&mut output).write_words(Kind::Params, params.literal(), &[], 1)
}

/// Reads a parameter set and checks it like any other ([`Params::new`]).
///
/// # Errors
/// [`WireError::Scheme`] for a set that must not be used, as [`Params::new`]; else those of reading ([module](self)).
pub fn read_params(path: &Path) -> Result<Arc<Params>, WireError> {
    params_of(Opened::path(path)?.header(Kind::Params)?)
}

/// As [`read_params`].
///
/// # Errors
/// As [`read_params`].
pub fn read_params_from(input: impl Read) -> Result<Arc<Params>, WireError> {
    params_of(Opened::input(input)?.header(Kind::Params)?)
}

pub(super) fn params_of<R: Read>(reader: Reader<ParamsLiteral, R>) -> Result<Arc<Params>, WireError> {
    reader.check_sizes([])?;
    let literal = reader.metadata.clone();
    reader.finish()?;
    Params::new(literal).map_err(|e| WireError::Scheme(e.into()))
}

/// Writes a secret key, readable by this user alone. A file of that name stays, and is an error: a key cannot be made again.
///
/// # Errors
/// [`WireError::Exists`] where there is a file of that name; else those of writing ([module](self)).
pub fn write_secret_key(path: &Path, params: &Params, key: &SecretKey) -> Result<(), WireError> {
    secret_key_to(Target::Path { path, private: true, existing: Existing::Kept }, params, key)
}

/// Writes a secret key to anything; who else can read that, the caller knows.
///
/// # Errors
/// Those of writing ([module](self)).
pub fn write_secret_key_to(mut output: impl Write, params: &Params, key: &SecretKey) -> Result<(), WireError> {
    secret_key_to(Target::Output(&mut output), params, key)
}

fn secret_key_to(target: Target<'_>, params: &Params, key: &SecretKey) -> Result<(), WireError> {
    let metadata = Metadata { origin: Origin::new(params, &key.tag(), None), body: () };
    let words: Zeroizing<Vec<u32>> = Zeroizing::new(key.expose_coefficients().iter().map(|&c| i32::from(c) as u32).collect());
    let chunk = |_: usize| Ok(Cow::from(words.as_slice()));
    target.write(&Contents { kind: Kind::SecretKey, metadata: &metadata, sizes: &[words.len()], chunk: &chunk })
}

/// Reads a secret key. What was read is wiped, also where it is refused.
///
/// # Errors
/// [`WireError::SecretWord`] for a coefficient that is none; else those of reading ([module](self)).
pub fn read_secret_key(path: &Path, params: &Arc<Params>) -> Result<SecretKey, WireError> {
    secret_key_from(Opened::path(path)?, params)
}

/// As [`read_secret_key`]; what a buffered input keeps is the caller's to wipe.
///
/// # Errors
/// As [`read_secret_key`].
pub fn read_secret_key_from(input: impl Read, params: &Arc<Params>) -> Result<SecretKey, WireError> {
    secret_key_from(Opened::input(input)?, params)
}

fn secret_key_from<R: Read>(opened: Opened<R>, params: &Arc<Params>) -> Result<SecretKey, WireError> {
    let mut reader = opened.header::<Metadata<()>>(Kind::SecretKey)?;
    let tag = reader.metadata.origin.tag(params, "secret key")?;
    reader.check_sizes([params.degree()])?;
    let mut words = Zeroizing::new(vec![0u32; params.degree()]);
    reader.chunk_into(0, &mut words)?;
    reader.finish()?;
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
///
/// # Errors
/// Those of writing ([module](self)).
pub fn write_public_key(path: &Path, params: &Params, key: &PublicKey) -> Result<(), WireError> {
    public_key_to(Target::replaced(path), params, key)
}

/// As [`write_public_key`].
///
/// # Errors
/// Those of writing ([module](self)).
pub fn write_public_key_to(mut output: impl Write, params: &Params, key: &PublicKey) -> Result<(), WireError> {
    public_key_to(Target::Output(&mut output), params, key)
}

fn public_key_to(target: Target<'_>, params: &Params, key: &PublicKey) -> Result<(), WireError> {
    let (seed, words) = key.parts();
    let metadata = Metadata { origin: Origin::new(params, &key.tag(), None), body: *seed };
    target.write_words(Kind::PublicKey, &metadata, words, params.degree())
}

/// Reads a public key; every residue is checked.
///
/// # Errors
/// Those of reading ([module](self)).
pub fn read_public_key(path: &Path, params: &Params) -> Result<PublicKey, WireError> {
    public_key_from(Opened::path(path)?, params)
}

/// As [`read_public_key`].
///
/// # Errors
/// As [`read_public_key`].
pub fn read_public_key_from(input: impl Read, params: &Params) -> Result<PublicKey, WireError> {
    public_key_from(Opened::input(input)?, params)
}

fn public_key_from<R: Read>(opened: Opened<R>, params: &Params) -> Result<PublicKey, WireError> {
    let mut reader = opened.header::<Metadata<[u8; 32]>>(Kind::PublicKey)?;
    let tag = reader.metadata.origin.tag(params, "public key")?;
    let limbs = params.tables().len() - params.special().len();
    reader.check_sizes(chunk_sizes(limbs, params.degree()))?;
    let (words, seed) = (read_words(&mut reader, &mut 0, limbs, params.degree())?, reader.metadata.body);
    reader.finish()?;
    Ok(PublicKey::from_parts(params, tag, seed, words)?)
}

/// Writes evaluation keys, made for a network: of each the half that is not uniform, and a seed for the other. A file of that
/// name is replaced.
///
/// # Errors
/// [`WireError::Scheme`] where a key cannot be read from the backend; else those of writing ([module](self)).
pub fn write_evaluation_keys(
    path: &Path,
    params: &Params,
    backend: &dyn Backend,
    keys: &KeySet,
    network: Option<NetworkDigest>,
) -> Result<(), WireError> {
    evaluation_keys_to(Target::replaced(path), params, backend, keys, network)
}

/// As [`write_evaluation_keys`]; a file of that name stays, and is an error.
///
/// # Errors
/// [`WireError::Exists`] where there is a file of that name; else as [`write_evaluation_keys`].
pub fn write_new_evaluation_keys(
    path: &Path,
    params: &Params,
    backend: &dyn Backend,
    keys: &KeySet,
    network: Option<NetworkDigest>,
) -> Result<(), WireError> {
    let target = Target::Path { path, private: false, existing: Existing::Kept };
    evaluation_keys_to(target, params, backend, keys, network)
}

/// As [`write_evaluation_keys`]. Takes each key from the backend twice.
///
/// # Errors
/// As [`write_evaluation_keys`].
pub fn write_evaluation_keys_to(
    mut output: impl Write,
    params: &Params,
    backend: &dyn Backend,
    keys: &KeySet,
    network: Option<NetworkDigest>,
) -> Result<(), WireError> {
    evaluation_keys_to(Target::Output(&mut output), params, backend, keys, network)
}

fn evaluation_keys_to(
    target: Target<'_>,
    params: &Params,
    backend: &dyn Backend,
    keys: &KeySet,
    network: Option<NetworkDigest>,
) -> Result<(), WireError> {
    let body: Vec<KeyBody> =
        keys.iter().map(|k| KeyBody { request: KeyRequest { kind: k.kind(), gadget: k.gadget() }, seed: *k.seed() }).collect();
    // Of each chunk, its key, and where in the key it begins and ends.
    let mut places = Vec::new();
    for key in keys.iter() {
        let mut at = 0;
        for size in chunk_sizes(key.gadget().digits() * key.gadget().key_limbs(), params.degree()) {
            places.push((key, at..at + size));
            at += size;
        }
    }
    let sizes: Vec<usize> = places.iter().map(|(_, range)| range.len()).collect();
    let metadata = Metadata { origin: Origin::new(params, &keys.tag(), network), body };
    // The words of the key that the last chunk was of.
    let current: RefCell<Option<(*const KeySwitchKey, Vec<u32>)>> = RefCell::default();
    let chunk = |i: usize| {
        let (key, range) = &places[i];
        let mut current = current.borrow_mut();
        let words = match current.take() {
            Some((of, words)) if of == Arc::as_ptr(key) => words,
            _ => key.masked_half(backend)?,
        };
        let chunk = words[range.clone()].to_vec();
        *current = Some((Arc::as_ptr(key), words));
        Ok(Cow::from(chunk))
    };
    target.write(&Contents { kind: Kind::EvaluationKeys, metadata: &metadata, sizes: &sizes, chunk: &chunk })
}

/// Reads evaluation keys onto a backend, one by one; every residue is checked. Those of somebody else are read with
/// [`read_evaluation_keys_expecting`].
///
/// # Errors
/// [`WireError::Scheme`] for a key that may not exist ([`KeyRequest::check`]), or that the backend has no room for, [`WireError::Shape`]
/// for one that is there twice; else those of reading ([module](self)).
pub fn read_evaluation_keys(path: &Path, params: &Params, backend: &dyn Backend) -> Result<KeySet, WireError> {
    read_evaluation_keys_expecting(path, params, backend, &Expect::default())
}

/// As [`read_evaluation_keys`], refused by the header unless they are what is expected.
///
/// # Errors
/// [`WireError::TooLarge`] for more bytes than expected, [`WireError::Network`] for keys of another network, [`WireError::Scheme`] for
/// those of another secret key, and where one is missing, [`WireError::Shape`] where one is not asked for; else as
/// [`read_evaluation_keys`].
pub fn read_evaluation_keys_expecting(
    path: &Path,
    params: &Params,
    backend: &dyn Backend,
    expect: &Expect<'_>,
) -> Result<KeySet, WireError> {
    evaluation_keys_from(Opened::path(path)?, params, backend, expect)
}

/// As [`read_evaluation_keys_expecting`].
///
/// # Errors
/// As [`read_evaluation_keys_expecting`].
pub fn read_evaluation_keys_from(
    input: impl Read,
    params: &Params,
    backend: &dyn Backend,
    expect: &Expect<'_>,
) -> Result<KeySet, WireError> {
    evaluation_keys_from(Opened::input(input)?, params, backend, expect)
}

fn evaluation_keys_from<R: Read>(
    opened: Opened<R>,
    params: &Params,
    backend: &dyn Backend,
    expect: &Expect<'_>,
) -> Result<KeySet, WireError> {
    let mut reader = opened.header::<Metadata<Vec<KeyBody>>>(Kind::EvaluationKeys)?;
    let Metadata { origin, body } = reader.metadata.clone();
    let tag = origin.tag(params, "evaluation keys")?;
    expect.check_bytes(reader.bytes())?;
    expect.check_origin(&origin, "evaluation keys were")?;
    check_keys(params, &body)?;
    expect.check_keys(&body)?;
    let (mut limbs, degree) = (Vec::with_capacity(body.len()), params.degree());
    for KeyBody { request: KeyRequest { gadget, .. }, .. } in &body {
        limbs.push(gadget.digits() * params.key_basis(gadget).map_err(CkksError::from)?.len());
    }
    reader.check_sizes(limbs.iter().flat_map(|&limbs| chunk_sizes(limbs, degree)))?;
    let mut keys = KeySet::new(tag);
    let mut next = 0;
    for (KeyBody { request, seed }, limbs) in body.into_iter().zip(limbs) {
        let words = read_words(&mut reader, &mut next, limbs, degree)?;
        keys.insert(KeySwitchKey::from_parts(params, backend, tag, request, seed, &words)?)?;
    }
    reader.finish()?;
    Ok(keys)
}

/// Errors unless keys may exist, all of them, and none is there twice: before the sizes of any are used.
pub(super) fn check_keys(params: &Params, body: &[KeyBody]) -> Result<(), WireError> {
    let mut seen = BTreeSet::new();
    for KeyBody { request, .. } in body {
        request.check(params).map_err(CkksError::from)?;
        if !seen.insert(request) {
            let found = format!("a second {} key over {}", request.kind, request.gadget);
            return Err(WireError::Shape { what: "evaluation keys", expected: "each key once".into(), found });
        }
    }
    Ok(())
}

/// Writes a fresh ciphertext, made for a network; the uniform halves travel as a seed.
///
/// # Errors
/// Those of writing ([module](self)).
pub fn write_seeded_ciphertext(
    path: &Path,
    params: &Params,
    ciphertext: &SeededCiphertext,
    network: Option<NetworkDigest>,
) -> Result<(), WireError> {
    seeded_ciphertext_to(Target::replaced(path), params, ciphertext, network)
}

/// As [`write_seeded_ciphertext`].
///
/// # Errors
/// Those of writing ([module](self)).
pub fn write_seeded_ciphertext_to(
    mut output: impl Write,
    params: &Params,
    ciphertext: &SeededCiphertext,
    network: Option<NetworkDigest>,
) -> Result<(), WireError> {
    seeded_ciphertext_to(Target::Output(&mut output), params, ciphertext, network)
}

fn seeded_ciphertext_to(
    target: Target<'_>,
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
    let metadata = Metadata { origin: Origin::new(params, &ciphertext.tag, network), body };
    target.write_words(Kind::Ciphertext, &metadata, &ciphertext.words, params.degree())
}

/// Writes a ciphertext, made for or by a network.
///
/// # Errors
/// [`WireError::Scheme`] where the ciphertext cannot be read from the backend; else those of writing ([module](self)).
pub fn write_ciphertext(
    path: &Path,
    params: &Params,
    backend: &dyn Backend,
    ciphertext: &Ciphertext,
    network: Option<NetworkDigest>,
) -> Result<(), WireError> {
    ciphertext_to(Target::replaced(path), params, backend, ciphertext, network)
}

/// As [`write_ciphertext`].
///
/// # Errors
/// As [`write_ciphertext`].
pub fn write_ciphertext_to(
    mut output: impl Write,
    params: &Params,
    backend: &dyn Backend,
    ciphertext: &Ciphertext,
    network: Option<NetworkDigest>,
) -> Result<(), WireError> {
    ciphertext_to(Target::Output(&mut output), params, backend, ciphertext, network)
}

fn ciphertext_to(
    target: Target<'_>,
    params: &Params,
    backend: &dyn Backend,
    ciphertext: &Ciphertext,
    network: Option<NetworkDigest>,
) -> Result<(), WireError> {
    let (level, scale, shards) = (ciphertext.level().0 as u32, ciphertext.scale().0, ciphertext.shards() as u32);
    let words = backend.download(ciphertext.buffer()).map_err(CkksError::from)?;
    let body = CiphertextBody { level, scale, shards, seed: None };
    let metadata = Metadata { origin: Origin::new(params, &ciphertext.tag(), network), body };
    target.write_words(Kind::Ciphertext, &metadata, &words, params.degree())
}

/// Reads a ciphertext of either form onto a backend; every residue is checked. One of somebody else is read with
/// [`read_ciphertext_expecting`].
///
/// # Errors
/// [`WireError::Shape`] for no shards or more than [`MAX_SHARDS`], [`WireError::Scheme`] for a level above the top, a scale that none at
/// its level has, or words that the backend has no room for; else those of reading ([module](self)).
pub fn read_ciphertext(path: &Path, params: &Params, backend: &dyn Backend) -> Result<Ciphertext, WireError> {
    read_ciphertext_expecting(path, params, backend, &Expect::default())
}

/// As [`read_ciphertext`], refused by the header unless it is what is expected.
///
/// # Errors
/// [`WireError::TooLarge`] for more bytes than expected, [`WireError::Network`] for one of another network, [`WireError::Scheme`] for one
/// of another secret key, [`WireError::Shape`] for another level, scale or number of shards; else as [`read_ciphertext`].
pub fn read_ciphertext_expecting(
    path: &Path,
    params: &Params,
    backend: &dyn Backend,
    expect: &Expect<'_>,
) -> Result<Ciphertext, WireError> {
    ciphertext_from(Opened::path(path)?, params, backend, expect)
}

/// As [`read_ciphertext_expecting`].
///
/// # Errors
/// As [`read_ciphertext_expecting`].
pub fn read_ciphertext_from(
    input: impl Read,
    params: &Params,
    backend: &dyn Backend,
    expect: &Expect<'_>,
) -> Result<Ciphertext, WireError> {
    ciphertext_from(Opened::input(input)?, params, backend, expect)
}

fn ciphertext_from<R: Read>(
    opened: Opened<R>,
    params: &Params,
    backend: &dyn Backend,
    expect: &Expect<'_>,
) -> Result<Ciphertext, WireError> {
    let mut reader = opened.header::<Metadata<CiphertextBody>>(Kind::Ciphertext)?;
    let Metadata { origin, body } = reader.metadata.clone();
    let tag = origin.tag(params, "ciphertext")?;
    expect.check_bytes(reader.bytes())?;
    expect.check_origin(&origin, "ciphertext was")?;
    let (polys, basis) = polys(params, &body)?;
    expect.check_ciphertext(params, &body)?;
    let (level, scale) = (Level(body.level as usize), check_scale(params, &body)?);
    let (limbs, degree) = (polys * basis.len(), params.degree());
    reader.check_sizes(chunk_sizes(limbs, degree))?;
    let words = read_words(&mut reader, &mut 0, limbs, degree)?;
    reader.finish()?;
    if let Some(seed) = body.seed {
        return Ok(SeededCiphertext { words, seed, level, scale, tag }.expand(params, backend)?);
    }
    crate::ckks::keys::check_residues("ciphertext", params, basis, &words, polys)?;
    let buffer = backend.upload(Shape::new(polys, basis.len(), degree), &words).map_err(CkksError::from)?;
    Ok(Ciphertext::from_parts(params, buffer, level, scale, tag)?)
}

/// How many polynomials of a ciphertext are in its file, and over which primes.
pub(super) fn polys<'a>(params: &'a Params, body: &CiphertextBody) -> Result<(usize, &'a Basis), WireError> {
    let (level, shards) = (Level(body.level as usize), body.shards as usize);
    params.check_level(level).map_err(CkksError::from)?;
    if shards == 0 || shards > MAX_SHARDS {
        return Err(WireError::Shape { what: "shards", expected: format!("1 to {MAX_SHARDS}"), found: shards.to_string() });
    }
    Ok((if body.seed.is_some() { shards } else { 2 * shards }, params.window(level)))
}

/// The scale of a ciphertext, which must be one that values at its level can have.
pub(super) fn check_scale(params: &Params, body: &CiphertextBody) -> Result<Scale, WireError> {
    let (scale, level) = (Scale(body.scale), Level(body.level as usize));
    let log_q = params.log_q(level);
    if scale.0.is_finite() && scale.0 >= 1.0 && scale.log2() < log_q {
        return Ok(scale);
    }
    Err(CkksError::ScaleRange { op: "load ciphertext", scale, level, log_q }.into())
}

/// Where the object in a file comes from; none for a parameter set or a network.
///
/// # Errors
/// As [`Opened::path`] and [`Opened::header`].
pub fn read_origin(path: &Path) -> Result<Option<Origin>, WireError> {
    let opened = Opened::path(path)?;
    let kind = opened.kind();
    Ok(match kind {
        Kind::Params | Kind::CompiledNetwork | Kind::ClientSpec => None,
        Kind::SecretKey => Some(opened.header::<Metadata<()>>(kind)?.metadata.origin),
        Kind::PublicKey => Some(opened.header::<Metadata<[u8; 32]>>(kind)?.metadata.origin),
        Kind::EvaluationKeys => Some(opened.header::<Metadata<Vec<KeyBody>>>(kind)?.metadata.origin),
        Kind::Ciphertext => Some(opened.header::<Metadata<CiphertextBody>>(kind)?.metadata.origin),
    })
}

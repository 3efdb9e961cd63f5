//! Secret, public and key switching keys.
//!
//! A key switching key from `s_in` to `s_out` holds, for each digit k of its gadget, a pair over the gadget's primes
//!
//! `b_k = e_k - a_k s_out + P g_k s_in`,  `a_k` uniform,
//!
//! where `P` is the product of the special primes and `g_k` is 1 modulo the primes of digit k and 0 modulo the others, so
//! that `sum_k d_k (b_k, a_k)` over the digits `d_k` of x, divided by P, decrypts to `x s_in` under `s_out` (hybrid key
//! switching, Han and Ki 2020). The relinearization key goes from `s^2` to `s`. The key of a Galois element g goes from
//! `s` to `sigma_g^-1(s)`, so that the automorphism is applied to the result, after the inner product. Two more lead to the sparse secret of bootstrapping and back
//! ([`encapsulation`](super::encapsulation)).

use super::encapsulation::{SparseSecret, check_request};
use super::error::{CkksError, Result};
use super::gadget::Gadget;
use super::host::{self, Host, SecretBuffer, build, build_key};
use super::key_set::KeySet;
use super::params::Params;
use super::sampler::{RandomSource, SecretVec, Seed, stream, uniform};
use crate::backend::cpu::AlignedWords;
use crate::backend::{Backend, Buffer, Shape};
use crate::math::{Basis, galois};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Names a secret key in everything made with it. Random; says nothing about the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 16]);

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl std::fmt::Debug for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// Where a value comes from: its parameter set and its secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// Fingerprint of the parameter set.
    pub fingerprint: [u8; 32],
    /// The secret key's name.
    pub key_id: KeyId,
    /// Whether the parameter set makes no security claim.
    pub insecure: bool,
}

impl Tag {
    /// Errors unless the parameter set is this one.
    pub(crate) fn check_params(&self, params: &Params, op: &'static str) -> Result<()> {
        check_fingerprint(params, &self.fingerprint, op)
    }
    /// Errors unless the parameter set and the key are these.
    pub(super) fn check_same(&self, found: &Tag, op: &'static str) -> Result<()> {
        if self.fingerprint != found.fingerprint {
            return Err(params_mismatch(&self.fingerprint, &found.fingerprint, op));
        }
        if self.key_id == found.key_id {
            return Ok(());
        }
        Err(CkksError::KeyMismatch { op, expected: self.key_id.to_string(), found: found.key_id.to_string() })
    }
}

pub(super) fn check_fingerprint(params: &Params, found: &[u8; 32], op: &'static str) -> Result<()> {
    if params.fingerprint() == *found {
        return Ok(());
    }
    Err(params_mismatch(&params.fingerprint(), found, op))
}

fn params_mismatch(expected: &[u8; 32], found: &[u8; 32], op: &'static str) -> CkksError {
    let hex = |f: &[u8; 32]| f[..8].iter().map(|b| format!("{b:02x}")).collect();
    CkksError::ParamsMismatch { op, expected: hex(expected), found: hex(found) }
}

/// What a key switching key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeyKind {
    /// From `s^2` to `s`.
    Relin,
    /// From `s` to `sigma_g^-1(s)` for this g.
    Galois(u32),
    /// From `s` to the sparse secret, at level 0 ([`encapsulation`](super::encapsulation)).
    ToSparse,
    /// From the sparse secret to `s`, at the top.
    ToDense,
}

impl std::fmt::Display for KeyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyKind::Relin => write!(f, "relinearization"),
            KeyKind::Galois(g) => write!(f, "Galois {g}"),
            KeyKind::ToSparse => write!(f, "to-sparse"),
            KeyKind::ToDense => write!(f, "to-dense"),
        }
    }
}

/// A key to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyRequest {
    /// What it does.
    pub kind: KeyKind,
    /// Its primes and digits.
    pub gadget: Gadget,
}

/// The secret: ternary, dense. Wiped when dropped, redacted in Debug; it never leaves the host. Its memory is kept out of swap and of core
/// dumps where the system lets it (of swap, as far as the user's limit of locked memory goes).
pub struct SecretKey {
    pub(super) tag: Tag,
    /// N coefficients, four a word.
    coefficients: AlignedWords,
    /// Over all primes of the set, `[limb][N]`, NTT domain, plain form.
    ntt: SecretBuffer,
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretKey").field("key_id", &self.tag.key_id).field("secret", &"[redacted]").finish()
    }
}

impl SecretKey {
    /// From stored coefficients in {-1, 0, 1}.
    ///
    /// # Errors
    /// [`CkksError::Malformed`] where there are not N coefficients, or one is another number; [`CkksError::Backend`] as
    /// [`KeyGenerator::new`].
    pub fn from_coefficients(params: &Arc<Params>, key_id: KeyId, coefficients: Vec<i8>) -> Result<Self> {
        let coefficients = SecretVec(coefficients);
        let found = coefficients.len();
        if found != params.degree() || coefficients.iter().any(|c| !(-1..=1).contains(c)) {
            let expected = format!("{} coefficients in -1..=1", params.degree());
            return Err(CkksError::Malformed { what: "secret key", expected, found: format!("{found} values") });
        }
        let host = Host::new(params)?;
        // The coefficients first: locked memory may suffice for them alone.
        let mut own = AlignedWords::secret(found.div_ceil(4));
        bytemuck::cast_slice_mut(own.as_mut_slice())[..found].copy_from_slice(&coefficients);
        let ntt = host.small_to_ntt(&coefficients, &Basis::range(0..params.tables().len()))?.guarded()?;
        let tag = Tag { fingerprint: params.fingerprint(), key_id, insecure: params.is_insecure() };
        Ok(Self { tag, coefficients: own, ntt })
    }
    /// The coefficients, for storing. Handle with care.
    pub fn expose_coefficients(&self) -> &[i8] {
        // A ring has four coefficients at least.
        bytemuck::cast_slice(self.coefficients.as_slice())
    }
    /// Origin.
    pub fn tag(&self) -> Tag {
        self.tag
    }
    /// The secret modulo all primes in the global order, `[limb][N]`, NTT domain, plain form.
    pub(super) fn words(&self) -> Result<&[u32]> {
        self.ntt.words()
    }
}

/// An encryption of zero that others can encrypt with: `(e - a s, a)` over all primes but the special ones.
#[derive(Debug)]
pub struct PublicKey {
    pub(super) tag: Tag,
    pub(super) seed: Seed,
    /// `[limb][N]`, NTT domain, plain form.
    pub(super) words: Vec<u32>,
}

impl PublicKey {
    pub(super) const DOMAIN: &'static str = "public key, uniform half";
    /// Origin.
    pub fn tag(&self) -> Tag {
        self.tag
    }
    /// Seed of the uniform half, and the other half `[limb][N]` (NTT domain).
    pub fn parts(&self) -> (&Seed, &[u32]) {
        (&self.seed, &self.words)
    }
    /// From stored parts; residues must be canonical.
    ///
    /// # Errors
    /// [`CkksError::ParamsMismatch`] where the tag is of another parameter set, [`CkksError::Malformed`] where words are missing or too
    /// many, [`CkksError::Residue`] where one is not below its modulus.
    pub fn from_parts(params: &Params, tag: Tag, seed: Seed, words: Vec<u32>) -> Result<Self> {
        tag.check_params(params, "load public key")?;
        check_residues("public key", params, &public_basis(params), &words, 1)?;
        Ok(Self { tag, seed, words })
    }
}

fn public_basis(params: &Params) -> Basis {
    Basis::range(0..params.tables().len() - params.special().len())
}

/// Errors unless `words` are `[poly][limb][N]` canonical residues over a basis.
pub(crate) fn check_residues(what: &'static str, params: &Params, basis: &Basis, words: &[u32], polys: usize) -> Result<()> {
    let n = params.degree();
    let want = polys.saturating_mul(basis.len()).saturating_mul(n);
    if words.len() != want {
        return Err(CkksError::Malformed { what, expected: format!("{want} words"), found: format!("{} words", words.len()) });
    }
    let bad = words.par_chunks(n).enumerate().find_map_first(|(i, limb)| {
        let modulus = params.tables().modulus(basis.limbs()[i % basis.len()]).value();
        let at = limb.iter().position(|&w| w >= modulus)?;
        Some(CkksError::Residue { what, index: i * n + at, found: limb[at], modulus })
    });
    bad.map_or(Ok(()), Err)
}

/// A key switching key on a backend: `[digit][2][key limb][N]`, NTT domain, Montgomery form.
#[derive(Debug)]
pub struct KeySwitchKey {
    pub(super) tag: Tag,
    pub(super) request: KeyRequest,
    seed: Seed,
    buffer: Buffer,
}

impl KeySwitchKey {
    const DOMAIN: &'static str = "key switching key, uniform half";

    /// Origin.
    pub fn tag(&self) -> Tag {
        self.tag
    }
    /// What it does.
    pub fn kind(&self) -> KeyKind {
        self.request.kind
    }
    /// Its primes and digits.
    pub fn gadget(&self) -> Gadget {
        self.request.gadget
    }
    /// Seed of the uniform half.
    pub fn seed(&self) -> &Seed {
        &self.seed
    }
    /// Its words.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }
    /// Bytes on the backend.
    pub fn bytes(&self) -> usize {
        self.buffer.shape().bytes()
    }

    /// The half that is not uniform, `[digit][key limb][N]`: with the seed, all there is to store.
    ///
    /// # Errors
    /// [`CkksError::Backend`] where the key is not on this backend or cannot be read.
    pub fn masked_half(&self, backend: &dyn Backend) -> Result<Vec<u32>> {
        let digits = self.request.gadget.digits();
        let select = crate::backend::PolySelect { first: 0, stride: 2, count: digits };
        Ok(backend.download(&backend.select(&self.buffer, select)?)?)
    }

    /// A key in name and shape, all zeros: for a backend whose results have no words.
    ///
    /// # Errors
    /// [`CkksError::Params`] as [`Params::key_basis`], [`CkksError::Backend`] where the backend has no room.
    pub fn blank(params: &Params, backend: &dyn Backend, tag: Tag, request: KeyRequest) -> Result<Self> {
        let basis = params.key_basis(&request.gadget)?;
        let buffer = backend.alloc_key(shape(params, &request.gadget, &basis))?;
        Ok(Self { tag, request, seed: [0; 32], buffer })
    }

    /// From stored parts: expands the seed and checks every residue.
    ///
    /// # Errors
    /// [`CkksError::ParamsMismatch`] where the tag is of another parameter set, [`CkksError::Params`] for a key that may not exist
    /// ([`KeyRequest::check`]), [`CkksError::Malformed`] where words are missing, too many or not below their moduli,
    /// [`CkksError::Backend`] where the backend has no room.
    pub fn from_parts(
        params: &Params,
        backend: &dyn Backend,
        tag: Tag,
        request: KeyRequest,
        seed: Seed,
        words: &[u32],
    ) -> Result<Self> {
        tag.check_params(params, "load key")?;
        check_request(params, &request)?;
        let basis = params.key_basis(&request.gadget)?;
        check_residues("key switching key", params, &basis, words, request.gadget.digits())?;
        let n = params.degree();
        let poly = basis.len() * n;
        let buffer = build_key(backend, shape(params, &request.gadget, &basis), |out| {
            out.par_chunks_mut(2 * poly).enumerate().for_each(|(k, out)| {
                let (b, a) = out.split_at_mut(poly);
                b.copy_from_slice(&words[k * poly..][..poly]);
                a.par_chunks_mut(n).zip(basis.limbs()).enumerate().for_each(|(i, (a, &limb))| {
                    uniform(&mut stream(&seed, Self::DOMAIN, k, i), params.tables().modulus(limb), a);
                });
            });
        })?;
        Ok(Self { tag, request, seed, buffer })
    }
}

fn shape(params: &Params, gadget: &Gadget, basis: &Basis) -> Shape {
    Shape::new(2 * gadget.digits(), basis.len(), params.degree())
}

/// Makes keys. Secret material stays on the host; finished keys go to the backend.
#[derive(Debug)]
pub struct KeyGenerator {
    host: Host,
    backend: Arc<dyn Backend>,
    random: RandomSource,
}

impl KeyGenerator {
    /// A generator whose keys live on `backend`.
    ///
    /// # Errors
    /// [`CkksError::Backend`] where the processor lacks the instruction set asked for
    /// ([`CpuBackend::new`](crate::backend::cpu::CpuBackend::new)).
    pub fn new(params: &Arc<Params>, backend: Arc<dyn Backend>, random: RandomSource) -> Result<Self> {
        Ok(Self { host: Host::new(params)?, backend, random })
    }

    /// A fresh dense ternary secret.
    ///
    /// # Errors
    /// [`CkksError::Randomness`] where the system gives none.
    pub fn secret_key(&self) -> Result<SecretKey> {
        let mut id = [0u8; 16];
        id.copy_from_slice(&self.random.fresh("key id")?[..16]);
        let mut coefficients = self.host.ternary(&*self.random.fresh("secret key")?, "ternary", 1);
        SecretKey::from_coefficients(&self.host.params, KeyId(id), std::mem::take(&mut coefficients.0))
    }

    /// A public encryption key.
    ///
    /// # Errors
    /// [`CkksError::ParamsMismatch`] for a secret key of another parameter set, [`CkksError::Randomness`] where the system gives none.
    pub fn public_key(&self, secret: &SecretKey) -> Result<PublicKey> {
        let params = &self.host.params;
        secret.tag.check_params(params, "public key")?;
        let basis = public_basis(params);
        let errors = self.host.errors(&*self.random.fresh("public key error")?, "gaussian", 1);
        let errors = self.host.small_to_ntt(&errors, &basis)?;
        let seed = *self.random.fresh(PublicKey::DOMAIN)?;
        let mut words = Zeroizing::new(errors.words()?.to_vec());
        let (n, secret_words) = (params.degree(), secret.words()?);
        words.par_chunks_mut(n).zip(basis.limbs()).for_each(|(out, &limb)| {
            let m = params.tables().modulus(limb);
            let mut a = vec![0u32; n];
            uniform(&mut stream(&seed, PublicKey::DOMAIN, 0, limb.index()), m, &mut a);
            host::to_montgomery(&mut a, m);
            host::sub_product(out, &a, &secret_words[limb.index() * n..][..n], m);
        });
        Ok(PublicKey { tag: secret.tag, seed, words: std::mem::take(&mut *words) })
    }

    /// One key switching key. Cost: one NTT a digit and limb, and as many uniform polynomials.
    ///
    /// # Errors
    /// [`CkksError::ParamsMismatch`] for a secret key of another parameter set, [`CkksError::Params`] for a key that may not exist
    /// ([`KeyRequest::check`]), [`CkksError::Randomness`] where the system gives none, [`CkksError::Backend`] where the backend has no
    /// room.
    pub fn key(&self, secret: &SecretKey, request: KeyRequest) -> Result<KeySwitchKey> {
        let (error_seed, seed) = (self.random.fresh("key error")?, *self.random.fresh(KeySwitchKey::DOMAIN)?);
        self.key_from_seeds(secret, request, &error_seed, seed)
    }

    fn key_from_seeds(&self, secret: &SecretKey, request: KeyRequest, error_seed: &Seed, seed: Seed) -> Result<KeySwitchKey> {
        let params = &self.host.params;
        secret.tag.check_params(params, "generate key")?;
        check_request(params, &request)?;
        let (tables, n) = (params.tables(), params.degree());
        let gadget = request.gadget;
        let basis = params.key_basis(&gadget)?;
        // Secrets other than s, over the key's primes: the one the key leads to, and the one it comes from.
        let (target, source) = match request.kind {
            KeyKind::Relin => (None, None),
            KeyKind::Galois(g) => (Some(self.permuted(secret, galois::inverse(g, n), &basis)?), None),
            KeyKind::ToSparse => (Some(self.sparse(secret, &basis)?), None),
            KeyKind::ToDense => (None, Some(self.sparse(secret, &basis)?)),
        };
        let errors = self.host.errors(error_seed, "gaussian", gadget.digits());
        let errors = self.host.small_to_ntt(&errors, &basis)?;
        let error_words = errors.words()?;
        let target_words = target.as_ref().map(SecretBuffer::words).transpose()?;
        let source_words = source.as_ref().map(SecretBuffer::words).transpose()?;
        let secret_words = secret.words()?;
        let special = params.gadget_special(&gadget);
        let poly = basis.len() * n;
        let buffer = build_key(self.backend.as_ref(), shape(params, &gadget, &basis), |out| {
            out.par_chunks_mut(2 * poly).enumerate().for_each(|(k, out)| {
                let (b, a) = out.split_at_mut(poly);
                b.par_chunks_mut(n).zip(a.par_chunks_mut(n)).zip(basis.limbs()).enumerate().for_each(|(i, ((b, a), &limb))| {
                    let m = tables.modulus(limb);
                    uniform(&mut stream(&seed, KeySwitchKey::DOMAIN, k, i), m, a);
                    let s = &secret_words[limb.index() * n..][..n];
                    let s_out = target_words.map_or(s, |t| &t[i * n..][..n]);
                    let s_in = source_words.map_or(s, |t| &t[i * n..][..n]);
                    let e = &error_words[k * poly + i * n..][..n];
                    b.copy_from_slice(e);
                    host::sub_product(b, a, s_out, m);
                    if gadget.digit(k).contains(&limb.index()) {
                        let p = special.limbs().iter().fold(1, |acc, &l| m.mul(acc, tables.modulus(l).value() % m.value()));
                        if request.kind == KeyKind::Relin {
                            let mut scaled = SecretVec(vec![0u32; n]);
                            host::add_multiple(&mut scaled.0, s, p, m);
                            host::add_product(b, &scaled.0, s, m);
                        } else {
                            host::add_multiple(b, s_in, p, m);
                        }
                    }
                    host::to_montgomery(b, m);
                });
            });
        })?;
        Ok(KeySwitchKey { tag: secret.tag, request, seed, buffer })
    }

    /// Exactly the keys requested (duplicates once), in parallel.
    ///
    /// # Errors
    /// As [`Self::key`].
    pub fn generate(&self, secret: &SecretKey, requests: &[KeyRequest]) -> Result<KeySet> {
        self.generate_with(secret, requests, &|| ())
    }

    /// As [`Self::generate`]; calls `progress` after each key, from any thread.
    ///
    /// # Errors
    /// As [`Self::key`].
    pub fn generate_with(&self, secret: &SecretKey, requests: &[KeyRequest], progress: &(dyn Fn() + Sync)) -> Result<KeySet> {
        let unique: BTreeSet<KeyRequest> = requests.iter().copied().collect();
        // Seeds are drawn in order first, so that seeded runs are repeatable whatever the threads do.
        let seeded: Vec<_> = unique
            .into_iter()
            .map(|request| Ok((request, self.random.fresh("key error")?, *self.random.fresh(KeySwitchKey::DOMAIN)?)))
            .collect::<Result<_>>()?;
        let keys = seeded
            .par_iter()
            .map(|(request, error_seed, seed)| {
                let key = self.key_from_seeds(secret, *request, error_seed, *seed);
                progress();
                key
            })
            .collect::<Result<Vec<_>>>()?;
        let mut set = KeySet::new(secret.tag);
        for key in keys {
            set.insert(key)?;
        }
        Ok(set)
    }

    /// The sparse secret that belongs to a secret, over a basis.
    fn sparse(&self, secret: &SecretKey, basis: &Basis) -> Result<SecretBuffer> {
        let weight = self.host.params.need_bootstrap()?.weight;
        let sparse = SparseSecret::derive(&secret.tag.key_id, secret.expose_coefficients(), weight);
        self.host.small_to_ntt(&sparse.coefficients, basis)
    }

    /// The secret under an automorphism, over a basis.
    fn permuted(&self, secret: &SecretKey, galois: u32, basis: &Basis) -> Result<SecretBuffer> {
        let n = self.host.params.degree();
        let shape = Shape::new(1, basis.len(), n);
        let words = secret.words()?;
        let gathered = SecretBuffer::new(build(self.host.cpu.as_ref(), shape, |out| {
            for (out, limb) in out.chunks_exact_mut(n).zip(basis.limbs()) {
                out.copy_from_slice(&words[limb.index() * n..][..n]);
            }
        })?);
        let permuted = SecretBuffer::new(self.host.cpu.automorphism(gathered.buffer(), galois, basis)?);
        Ok(permuted)
    }
}

impl Params {
    /// The Galois element of the rotation by `k` (slot i of the result is slot i + k of the input): `5^k mod 2N`.
    pub fn galois_element(&self, k: i64) -> u32 {
        galois::rotation(k, self.degree())
    }
    /// The Galois element of complex conjugation: `2N - 1`.
    pub fn conjugation_element(&self) -> u32 {
        galois::conjugation(self.degree())
    }
}

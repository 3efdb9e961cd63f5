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

mod generator;
mod set;
mod sparse;

pub use super::origin::{KeyId, Tag};
pub use super::request::{KeyKind, KeyRequest};
pub use generator::KeyGenerator;
pub use set::KeySet;

use super::error::{CkksError, Result};
use super::gadget::Gadget;
use super::host::{Host, SecretBuffer, build_key};
use super::params::Params;
use super::sampler::{SecretVec, Seed, stream, uniform};
use crate::backend::cpu::AlignedWords;
use crate::backend::{Backend, Buffer, Shape};
use crate::math::Basis;
use rayon::prelude::*;
use std::sync::Arc;

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
    /// ([`KeyRequest::check`]), [`CkksError::Malformed`] where words are missing or too many, [`CkksError::Residue`] where one is not below
    /// its modulus, [`CkksError::Backend`] where the backend has no room.
    pub fn from_parts(
        params: &Params,
        backend: &dyn Backend,
        tag: Tag,
        request: KeyRequest,
        seed: Seed,
        words: &[u32],
    ) -> Result<Self> {
        tag.check_params(params, "load key")?;
        request.check(params)?;
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

//! Makes keys from secrets.

use super::set::KeySet;
use super::sparse::SparseSecret;
use super::{KeySwitchKey, PublicKey, SecretKey, public_basis, shape};
use crate::backend::{Backend, Kernels, Shape};
use crate::ckks::error::Result;
use crate::ckks::host::{self, Host, SecretBuffer, build, build_key};
use crate::ckks::origin::KeyId;
use crate::ckks::params::Params;
use crate::ckks::request::{KeyKind, KeyRequest};
use crate::ckks::sampler::{RandomSource, SecretVec, Seed, stream, uniform};
use crate::math::{Basis, galois};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use zeroize::Zeroizing;

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
    /// [`CkksError::Backend`](crate::ckks::CkksError::Backend) where the processor lacks the instruction set asked for
    /// ([`CpuBackend::new`](crate::backend::cpu::CpuBackend::new)).
    pub fn new(params: &Arc<Params>, backend: Arc<dyn Backend>, random: RandomSource) -> Result<Self> {
        Ok(Self { host: Host::new(params)?, backend, random })
    }

    /// A fresh dense ternary secret.
    ///
    /// # Errors
    /// [`CkksError::Randomness`](crate::ckks::CkksError::Randomness) where the system gives none.
    pub fn secret_key(&self) -> Result<SecretKey> {
        let mut id = [0u8; 16];
        id.copy_from_slice(&self.random.fresh("key id")?[..16]);
        let mut coefficients = self.host.ternary(&*self.random.fresh("secret key")?, "ternary", 1);
        SecretKey::from_coefficients(&self.host.params, KeyId(id), std::mem::take(&mut coefficients.0))
    }

    /// A public encryption key.
    ///
    /// # Errors
    /// [`CkksError::ParamsMismatch`](crate::ckks::CkksError::ParamsMismatch) for a secret key of another parameter set,
    /// [`CkksError::Randomness`](crate::ckks::CkksError::Randomness) where the system gives none.
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
    /// [`CkksError::ParamsMismatch`](crate::ckks::CkksError::ParamsMismatch) for a secret key of another parameter set,
    /// [`CkksError::Params`](crate::ckks::CkksError::Params) for a key that may not exist ([`KeyRequest::check`]),
    /// [`CkksError::Randomness`](crate::ckks::CkksError::Randomness) where the system gives none,
    /// [`CkksError::Backend`](crate::ckks::CkksError::Backend) where the backend has no room.
    pub fn key(&self, secret: &SecretKey, request: KeyRequest) -> Result<KeySwitchKey> {
        let (error_seed, seed) = (self.random.fresh("key error")?, *self.random.fresh(KeySwitchKey::DOMAIN)?);
        self.key_from_seeds(secret, request, &error_seed, seed)
    }

    fn key_from_seeds(&self, secret: &SecretKey, request: KeyRequest, error_seed: &Seed, seed: Seed) -> Result<KeySwitchKey> {
        let params = &self.host.params;
        secret.tag.check_params(params, "generate key")?;
        request.check(params)?;
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

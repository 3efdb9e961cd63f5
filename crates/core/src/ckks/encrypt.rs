//! Encryption and decryption: on the host, with the secret key or the public one.

use super::ciphertext::{Ciphertext, check_scale};
use super::compose::Composer;
use super::encoder::Encoder;
use super::error::{CkksError, Result};
use super::host::{self, Host, build};
use super::keys::{PublicKey, SecretKey, check_residues};
use super::origin::{Tag, check_fingerprint};
use super::params::{Level, Params, Scale};
use super::plaintext::{PlainForm, Plaintext};
use super::sampler::{RandomSource, Seed, stream, uniform};
use crate::backend::{Backend, Kernels, Shape};
use rayon::prelude::*;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A fresh ciphertext under the secret key: the second halves are uniform and stand as a seed. Half the size.
#[derive(Debug, Clone)]
pub struct SeededCiphertext {
    /// First halves, `[shard][limb][N]`, NTT domain.
    pub words: Vec<u32>,
    /// Seed of the second halves.
    pub seed: Seed,
    /// The level.
    pub level: Level,
    /// The scale.
    pub scale: Scale,
    /// Origin.
    pub tag: Tag,
}

const DOMAIN: &str = "ciphertext, uniform half";

impl SeededCiphertext {
    /// How many vectors.
    pub fn shards(&self, params: &Params) -> usize {
        self.words.len() / (params.window(self.level).len() * params.degree())
    }

    /// The ciphertext in full, on a backend. Checks every residue.
    ///
    /// # Errors
    /// [`CkksError::ParamsMismatch`] for another parameter set, [`CkksError::Params`] for a level above the top, [`CkksError::Malformed`]
    /// where words are missing or too many, [`CkksError::Residue`] where one is not below its modulus, [`CkksError::ScaleRange`] as
    /// [`Ciphertext::from_parts`], [`CkksError::Backend`] where the backend has no room.
    pub fn expand(&self, params: &Params, backend: &dyn Backend) -> Result<Ciphertext> {
        self.tag.check_params(params, "expand ciphertext")?;
        params.check_level(self.level)?;
        let basis = params.window(self.level);
        let shards = self.shards(params);
        check_residues("ciphertext", params, basis, &self.words, shards)?;
        let n = params.degree();
        let poly = basis.len() * n;
        let buffer = build(backend, Shape::new(2 * shards, basis.len(), n), |out| {
            out.par_chunks_mut(2 * poly).enumerate().for_each(|(shard, out)| {
                let (c0, c1) = out.split_at_mut(poly);
                c0.copy_from_slice(&self.words[shard * poly..][..poly]);
                c1.par_chunks_mut(n).zip(basis.limbs()).for_each(|(out, &limb)| {
                    uniform(&mut stream(&self.seed, DOMAIN, shard, limb.index()), params.tables().modulus(limb), out);
                });
            });
        })?;
        Ciphertext::from_parts(params, buffer, self.level, self.scale, self.tag)
    }
}

/// Encrypts. Sampling is on the host; ciphertexts go to the backend.
#[derive(Debug)]
pub struct Encryptor {
    host: Host,
    backend: Arc<dyn Backend>,
    random: RandomSource,
}

impl Encryptor {
    /// An encryptor for plaintexts and ciphertexts on `backend`.
    ///
    /// # Errors
    /// [`CkksError::Backend`] where the processor lacks the instruction set asked for
    /// ([`CpuBackend::new`](crate::backend::cpu::CpuBackend::new)).
    pub fn new(params: &Arc<Params>, backend: Arc<dyn Backend>, random: RandomSource) -> Result<Self> {
        Ok(Self { host: Host::new(params)?, backend, random })
    }

    /// The level whose window a plaintext is over, if it can be encrypted.
    fn level_of(&self, plain: &Plaintext, op: &'static str) -> Result<Level> {
        let params = &self.host.params;
        check_fingerprint(params, &plain.fingerprint, op)?;
        if plain.form != PlainForm::Plain {
            return Err(CkksError::FormMismatch { op, expected: "plain" });
        }
        let Some(level) = (0..=params.max_level().0).map(Level).find(|&l| *params.window(l) == plain.basis) else {
            let (level, found) = (params.max_level(), plain.basis.len());
            return Err(CkksError::BasisMismatch { op, level, expected: params.window(level).len(), found });
        };
        check_scale(params, op, plain.scale, level)?;
        Ok(level)
    }

    /// Encrypts under the secret key: `(m + e - a s, a)`, the noise is one Gaussian.
    ///
    /// # Errors
    /// As [`Self::encrypt_seeded`] and [`SeededCiphertext::expand`].
    pub fn encrypt(&self, secret: &SecretKey, plain: &Plaintext) -> Result<Ciphertext> {
        self.encrypt_seeded(secret, plain)?.expand(&self.host.params, self.backend.as_ref())
    }

    /// As [`Self::encrypt`], the uniform half as a seed.
    ///
    /// # Errors
    /// [`CkksError::ParamsMismatch`] where the key or the plaintext is of another parameter set, [`CkksError::FormMismatch`] for a
    /// plaintext in Montgomery form, [`CkksError::BasisMismatch`] for one over other primes than those of a level,
    /// [`CkksError::ScaleRange`] for a scale that is not finite or below 1, [`CkksError::Randomness`] where the system gives none, [`CkksError::Backend`] where the plaintext is not on this backend or cannot
    /// be read.
    pub fn encrypt_seeded(&self, secret: &SecretKey, plain: &Plaintext) -> Result<SeededCiphertext> {
        let op = "encrypt";
        let params = &self.host.params;
        secret.tag.check_params(params, op)?;
        let level = self.level_of(plain, op)?;
        let basis = &plain.basis;
        let n = params.degree();
        let errors = self.host.errors(&*self.random.fresh("encryption error")?, "gaussian", plain.polys());
        let errors = self.host.small_to_ntt(&errors, basis)?;
        let error_words = errors.words()?;
        let seed = *self.random.fresh(DOMAIN)?;
        // What is encoded, until it is encrypted in place.
        let mut words = Zeroizing::new(self.backend.download(&plain.buffer)?);
        let secret_words = secret.words()?;
        words.par_chunks_mut(n).enumerate().for_each_init(
            || vec![0u32; n],
            |a, (i, out)| {
                let (shard, limb) = (i / basis.len(), basis.limbs()[i % basis.len()]);
                let m = params.tables().modulus(limb);
                uniform(&mut stream(&seed, DOMAIN, shard, limb.index()), m, a);
                host::add_assign(out, &error_words[i * n..][..n], m);
                host::to_montgomery(a, m);
                host::sub_product(out, a, &secret_words[limb.index() * n..][..n], m);
            },
        );
        let words = std::mem::take(&mut *words);
        Ok(SeededCiphertext { words, seed, level, scale: plain.scale, tag: secret.tag })
    }

    /// Encrypts under the public key (b, a): `(b u + e0 + m, a u + e1)`, u ternary. More noise than [`Self::encrypt`].
    ///
    /// # Errors
    /// As [`Self::encrypt_seeded`]; [`CkksError::Malformed`] for no vectors at all, [`CkksError::Backend`] also where the backend has no
    /// room.
    pub fn encrypt_public(&self, key: &PublicKey, plain: &Plaintext) -> Result<Ciphertext> {
        let op = "encrypt with the public key";
        let params = &self.host.params;
        key.tag.check_params(params, op)?;
        let level = self.level_of(plain, op)?;
        let basis = &plain.basis;
        let n = params.degree();
        let shards = plain.polys();
        let errors = self.host.errors(&*self.random.fresh("encryption error")?, "gaussian", 2 * shards);
        let errors = self.host.small_to_ntt(&errors, basis)?;
        let masks = self.host.ternary(&*self.random.fresh("encryption mask")?, "ternary", shards);
        let masks = self.host.small_to_ntt(&masks, basis)?;
        let (error_words, mask_words) = (errors.words()?, masks.words()?);
        let message = Zeroizing::new(self.backend.download(&plain.buffer)?);
        let poly = basis.len() * n;
        let buffer = build(self.backend.as_ref(), Shape::new(2 * shards, basis.len(), n), |out| {
            out.par_chunks_mut(n).enumerate().for_each_init(
                || vec![0u32; n],
                |a, (i, out)| {
                    let (half, place) = (i / basis.len(), i % basis.len());
                    let (shard, limb) = (half / 2, basis.limbs()[place]);
                    let m = params.tables().modulus(limb);
                    let first = half % 2 == 0;
                    if first {
                        // The key is over the first primes of the global order.
                        a.copy_from_slice(&key.words[limb.index() * n..][..n]);
                    } else {
                        uniform(&mut stream(&key.seed, PublicKey::DOMAIN, 0, limb.index()), m, a);
                    }
                    let u = &mask_words[shard * poly + place * n..][..n];
                    out.copy_from_slice(&error_words[i * n..][..n]);
                    host::add_product(out, a, u, m);
                    if first {
                        host::add_assign(out, &message[shard * poly + place * n..][..n], m);
                    }
                },
            );
        })?;
        Ciphertext::from_parts(params, buffer, level, plain.scale, key.tag)
    }
}

/// Decrypts, on the host.
///
/// What comes out is the message plus noise that depends on the secret: a decrypted result must not go back to whoever
/// evaluated, or the key can be recovered from it (Li and Micciancio, "On the Security of Homomorphic Encryption on
/// Approximate Numbers", 2021).
#[derive(Debug)]
pub struct Decryptor {
    host: Host,
    encoder: Encoder,
    backend: Arc<dyn Backend>,
}

/// Real parts and imaginary parts of a shard's slots.
type ComplexSlots = (Vec<f64>, Vec<f64>);

impl Decryptor {
    /// A decryptor for ciphertexts on `backend`.
    ///
    /// # Errors
    /// [`CkksError::Backend`] where the processor lacks the instruction set asked for
    /// ([`CpuBackend::new`](crate::backend::cpu::CpuBackend::new)).
    pub fn new(params: &Arc<Params>, backend: Arc<dyn Backend>) -> Result<Self> {
        let host = Host::new(params)?;
        let encoder = Encoder::new(params.clone(), host.cpu.clone());
        Ok(Self { host, encoder, backend })
    }

    /// Coefficients of `c0 + c1 s` per shard, centred, as integers in f64 (not divided by the scale).
    /// Wiped when dropped.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn coefficients(&self, secret: &SecretKey, ct: &Ciphertext) -> Result<Zeroizing<Vec<Vec<f64>>>> {
        Ok(self.compose(ct, &self.raw(secret, ct)?))
    }

    fn compose(&self, ct: &Ciphertext, raw: &[u32]) -> Zeroizing<Vec<Vec<f64>>> {
        let params = &self.host.params;
        let basis = params.window(ct.level);
        // Enough limbs for a message 2^40 times the scale; the composer falls back to all of them beyond.
        let composer = Composer::new(params.tables(), basis, ct.scale.log2() + 40.0);
        Zeroizing::new(raw.par_chunks(basis.len() * params.degree()).map(|poly| composer.compose(poly)).collect())
    }

    /// `c0 + c1 s` in coefficient domain: residues `[shard][limb][N]`. Wiped when dropped.
    ///
    /// # Errors
    /// [`CkksError::ParamsMismatch`] where the key or the ciphertext is of another parameter set, [`CkksError::KeyMismatch`] for one
    /// under another key, [`CkksError::Backend`] where it is not on this backend or cannot be read.
    pub fn raw(&self, secret: &SecretKey, ct: &Ciphertext) -> Result<Zeroizing<Vec<u32>>> {
        self.check(secret, ct)?;
        self.raw_of(secret, ct, &self.backend.download(&ct.buffer)?)
    }

    fn check(&self, secret: &SecretKey, ct: &Ciphertext) -> Result<()> {
        let (op, params) = ("decrypt", &self.host.params);
        ct.tag.check_params(params, op)?;
        secret.tag.check_params(params, op)?;
        secret.tag.check_same(&ct.tag, op)
    }

    /// [`Self::raw`] of the downloaded words of a ciphertext that was checked.
    fn raw_of(&self, secret: &SecretKey, ct: &Ciphertext, words: &[u32]) -> Result<Zeroizing<Vec<u32>>> {
        let params = &self.host.params;
        let basis = params.window(ct.level);
        let n = params.degree();
        let poly = basis.len() * n;
        let secret_words = secret.words()?;
        let mut buffer = build(self.host.cpu.as_ref(), Shape::new(ct.shards(), basis.len(), n), |out| {
            out.par_chunks_mut(n).enumerate().for_each(|(i, out)| {
                let (shard, place) = (i / basis.len(), i % basis.len());
                let limb = basis.limbs()[place];
                let m = params.tables().modulus(limb);
                let at = shard * 2 * poly + place * n;
                let s = &secret_words[limb.index() * n..][..n];
                out.copy_from_slice(&words[at..][..n]);
                host::add_product(out, &words[at + poly..][..n], s, m);
            });
        })?;
        buffer.mark_secret();
        self.host.cpu.ntt_inverse(&mut buffer, basis)?;
        Ok(Zeroizing::new(self.host.cpu.download(&buffer)?))
    }

    /// Real parts of the slots, one vector a shard. What is made on the way is wiped; the result is the caller's to wipe.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn decrypt_real(&self, secret: &SecretKey, ct: &Ciphertext) -> Result<Vec<Vec<f64>>> {
        let coefficients = self.coefficients(secret, ct)?;
        coefficients.iter().map(|c| self.encoder.decode_real(c, ct.scale)).collect()
    }

    /// Slots, one vector a shard: real parts, imaginary parts.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn decrypt_complex(&self, secret: &SecretKey, ct: &Ciphertext) -> Result<Vec<ComplexSlots>> {
        let coefficients = self.coefficients(secret, ct)?;
        coefficients.iter().map(|c| self.encoder.decode_complex(c, ct.scale)).collect()
    }

    /// As [`Self::decrypt_complex`]; none for a transparent ciphertext, of which a part that the key is multiplied with is zero: that is
    /// no ciphertext, but numbers that someone wrote down.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn decrypt_unless_transparent(&self, secret: &SecretKey, ct: &Ciphertext) -> Result<Option<Vec<ComplexSlots>>> {
        self.check(secret, ct)?;
        let words = self.backend.download(&ct.buffer)?;
        let half = ct.buffer.shape().poly_words();
        if words.chunks(half.max(1)).skip(1).step_by(2).any(|second| second.iter().all(|&word| word == 0)) {
            return Ok(None);
        }
        let coefficients = self.compose(ct, &self.raw_of(secret, ct, &words)?);
        coefficients.iter().map(|c| self.encoder.decode_complex(c, ct.scale)).collect::<Result<_>>().map(Some)
    }
}

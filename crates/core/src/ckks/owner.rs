//! The owner of a secret key, with all that uses it in one value. What a client of a network is stands above it:
//! [`crate::client::Client`].

use super::ciphertext::Ciphertext;
use super::encoder::Encoder;
use super::encrypt::{Decryptor, Encryptor, SeededCiphertext};
use super::error::Result;
use super::keys::{KeyGenerator, KeySet, SecretKey};
use super::origin::Tag;
use super::params::{Level, Params};
use super::plaintext::{PlainForm, Plaintext};
use super::request::KeyRequest;
use super::sampler::RandomSource;
use crate::backend::Backend;
use std::sync::Arc;

/// Holds a secret key: encrypts vectors, makes the evaluation keys of a server, decrypts.
///
/// Everything secret stays on the processor; ciphertexts and evaluation keys are made for `backend`.
#[derive(Debug)]
pub struct Owner {
    params: Arc<Params>,
    secret: SecretKey,
    generator: KeyGenerator,
    encoder: Encoder,
    encryptor: Encryptor,
    decryptor: Decryptor,
}

impl Owner {
    /// An owner with a fresh secret key.
    ///
    /// # Errors
    /// As [`RandomSource::from_os`], [`KeyGenerator::new`] and [`KeyGenerator::secret_key`].
    pub fn new(params: &Arc<Params>, backend: Arc<dyn Backend>) -> Result<Self> {
        Self::with_randomness(params, backend, RandomSource::from_os)
    }

    /// The same keys and ciphertexts for the same seed: for tests and benchmarks only. Whoever knows the seed can decrypt, and of vectors
    /// encrypted by two owners of one seed anyone sees the difference.
    ///
    /// # Errors
    /// As [`KeyGenerator::new`].
    pub fn insecure_seeded(params: &Arc<Params>, backend: Arc<dyn Backend>, seed: u64) -> Result<Self> {
        let mut purpose = 0;
        Self::with_randomness(params, backend, || {
            purpose += 1;
            Ok(RandomSource::insecure_seeded_for(seed, purpose))
        })
    }

    fn with_randomness(
        params: &Arc<Params>,
        backend: Arc<dyn Backend>,
        mut random: impl FnMut() -> Result<RandomSource>,
    ) -> Result<Self> {
        let generator = KeyGenerator::new(params, backend.clone(), random()?)?;
        Ok(Self {
            secret: generator.secret_key()?,
            generator,
            encoder: Encoder::new(params.clone(), backend.clone()),
            encryptor: Encryptor::new(params, backend.clone(), random()?)?,
            decryptor: Decryptor::new(params, backend)?,
            params: params.clone(),
        })
    }

    /// The parameter set.
    pub fn params(&self) -> &Arc<Params> {
        &self.params
    }
    /// The secret key.
    pub fn secret(&self) -> &SecretKey {
        &self.secret
    }
    /// What everything made with this key is marked with.
    pub fn tag(&self) -> Tag {
        self.secret.tag()
    }

    /// Evaluation keys, exactly those asked for.
    ///
    /// # Errors
    /// As [`KeyGenerator::generate`].
    pub fn evaluation_keys(&self, requests: &[KeyRequest]) -> Result<Arc<KeySet>> {
        self.generator.generate(&self.secret, requests).map(Arc::new)
    }

    /// Real vectors, one a shard (missing slots are 0), as one ciphertext at a level and its scale.
    ///
    /// # Errors
    /// [`CkksError::Params`](super::CkksError::Params) for a level above the top; else as [`Encoder::encode_shards`] and
    /// [`Encryptor::encrypt`].
    pub fn encrypt<V: AsRef<[f64]> + Sync>(&self, level: Level, shards: &[V]) -> Result<Ciphertext> {
        self.encryptor.encrypt(&self.secret, &self.encode(level, shards)?)
    }

    /// As [`Self::encrypt`], in half the bytes: what is sent to a server.
    ///
    /// # Errors
    /// [`CkksError::Params`](super::CkksError::Params) for a level above the top; else as [`Encoder::encode_shards`] and
    /// [`Encryptor::encrypt_seeded`].
    pub fn encrypt_seeded<V: AsRef<[f64]> + Sync>(&self, level: Level, shards: &[V]) -> Result<SeededCiphertext> {
        self.encryptor.encrypt_seeded(&self.secret, &self.encode(level, shards)?)
    }

    fn encode<V: AsRef<[f64]> + Sync>(&self, level: Level, shards: &[V]) -> Result<Plaintext> {
        self.params.check_level(level)?;
        self.encoder.encode_shards(shards, self.params.scale(level), self.params.window(level), PlainForm::Plain)
    }

    /// Real parts of the slots, one vector a shard. Must not go back to whoever evaluated ([`Decryptor`]).
    ///
    /// # Errors
    /// As [`Decryptor::decrypt_real`].
    pub fn decrypt(&self, ct: &Ciphertext) -> Result<Vec<Vec<f64>>> {
        self.decryptor.decrypt_real(&self.secret, ct)
    }
}

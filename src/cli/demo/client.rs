//! The client's side: the secret key, the picture, the answer.

use crate::cli::failure::{Outcome, explain};
use crate::cli::plan::Prepared;
use cipherlens::ckks::{
    Ciphertext, CkksError, Decryptor, Encoder, Encryptor, KeyGenerator, KeyRequest, KeySet, Level, Params, PlainForm,
    RandomSource, SecretKey, SeededCiphertext,
};
use std::sync::Arc;

/// Holder of the secret key.
pub struct Client {
    params: Arc<Params>,
    generator: KeyGenerator,
    secret: SecretKey,
    encoder: Encoder,
    encryptor: Encryptor,
    decryptor: Decryptor,
}

impl Client {
    /// A client with a fresh secret key; a seed gives the same one again and no security.
    pub fn new(prepared: &Prepared, seed: Option<u64>) -> Outcome<Self> {
        Self::make(prepared, seed).map_err(|e| explain("cannot make a secret key", &e))
    }

    fn make(prepared: &Prepared, seed: Option<u64>) -> Result<Self, CkksError> {
        let random = |stream: u64| match seed {
            Some(seed) => Ok(RandomSource::insecure_seeded(seed.wrapping_mul(2).wrapping_add(stream))),
            None => RandomSource::from_os(),
        };
        let (params, backend) = (&prepared.params, &prepared.backend);
        let generator = KeyGenerator::new(params, backend.clone(), random(0)?)?;
        Ok(Self {
            secret: generator.secret_key()?,
            generator,
            encoder: Encoder::new(params.clone(), backend.clone()),
            encryptor: Encryptor::new(params, backend.clone(), random(1)?)?,
            decryptor: Decryptor::new(params, backend.clone())?,
            params: params.clone(),
        })
    }

    /// The keys a server needs, and no others; `made` is called after each.
    pub fn evaluation_keys(&self, requests: &[KeyRequest], made: &(dyn Fn() + Sync)) -> Outcome<Arc<KeySet>> {
        let keys = self.generator.generate_with(&self.secret, requests, made);
        keys.map(Arc::new).map_err(|e| explain("cannot make the evaluation keys", &e))
    }

    /// Encrypts slot vectors, one for each shard, at a level. Half of each ciphertext is a seed, so that is what is sent.
    pub fn encrypt(&self, shards: &[Vec<f64>], level: Level) -> Outcome<SeededCiphertext> {
        let (scale, basis) = (self.params.scale(level), self.params.window(level));
        let plain = self.encoder.encode_shards(shards, scale, basis, PlainForm::Plain);
        let encrypted = plain.and_then(|plain| self.encryptor.encrypt_seeded(&self.secret, &plain));
        encrypted.map_err(|e| explain("cannot encrypt the picture", &e))
    }

    /// The slots of a ciphertext, one vector for each shard.
    pub fn decrypt(&self, ciphertext: &Ciphertext) -> Outcome<Vec<Vec<f64>>> {
        self.decryptor.decrypt_real(&self.secret, ciphertext).map_err(|e| explain("cannot decrypt the answer", &e))
    }
}

//! The client's side: the secret key, the picture, the answer.

use super::failure::{Class, Failure, Outcome, explain};
use super::plan::Prepared;
use cipherlens::backend::Backend;
use cipherlens::ckks::{
    Ciphertext, CkksError, Decryptor, Encoder, Encryptor, KeyGenerator, KeyRequest, KeySet, Level, Params, PlainForm,
    RandomSource, SecretKey, SeededCiphertext,
};
use cipherlens::nn::Tensor;
use std::sync::{Arc, OnceLock};
use zeroize::Zeroizing;

/// Holder of the secret key.
pub struct Client {
    params: Arc<Params>,
    backend: Arc<dyn Backend>,
    secret: SecretKey,
    encoder: Encoder,
    /// Made for the first run and kept: with a seed, another would encrypt the next picture with the same noise, and anyone would see the
    /// difference of the two.
    encryptor: OnceLock<Encryptor>,
}

/// Randomness for one purpose; a seed gives the same again and no security.
fn random(seed: Option<u64>, purpose: u8) -> Result<RandomSource, CkksError> {
    match seed {
        Some(seed) => Ok(RandomSource::insecure_seeded_for(seed, purpose)),
        None => RandomSource::from_os(),
    }
}

impl Client {
    /// A client with a fresh secret key.
    pub fn new(prepared: &Prepared, seed: Option<u64>) -> Outcome<Self> {
        let make = || {
            let generator = KeyGenerator::new(&prepared.params, prepared.host.clone(), random(seed, 0)?)?;
            generator.secret_key()
        };
        make().map(|secret| Self::with_secret(prepared, secret)).map_err(|e| explain("cannot make a secret key", &e))
    }

    /// A client with a secret key it has.
    pub fn with_secret(prepared: &Prepared, secret: SecretKey) -> Self {
        let (params, backend) = (prepared.params.clone(), prepared.host.clone());
        Self { encoder: Encoder::new(params.clone(), backend.clone()), params, backend, secret, encryptor: OnceLock::new() }
    }

    /// The secret key.
    pub fn secret(&self) -> &SecretKey {
        &self.secret
    }

    /// The keys a server needs, and no others; `made` is called after each.
    pub fn evaluation_keys(&self, requests: &[KeyRequest], seed: Option<u64>, made: &(dyn Fn() + Sync)) -> Outcome<KeySet> {
        let make = || {
            let generator = KeyGenerator::new(&self.params, self.backend.clone(), random(seed, 1)?)?;
            generator.generate_with(&self.secret, requests, made)
        };
        make().map_err(|e| explain("cannot make the evaluation keys", &e))
    }

    /// Lays pictures out over shards, as many as one run takes at most, and encrypts them at the level where the network
    /// begins. Half of each ciphertext is a seed, so that is what is sent.
    pub fn encrypt(&self, prepared: &Prepared, pictures: &[Tensor<f64>], seed: Option<u64>) -> Outcome<SeededCiphertext> {
        let shards = prepared.lowered.pack(pictures).map_err(|e| explain("cannot lay the picture out", &e))?;
        let shards = Zeroizing::new(shards);
        let encrypt = |level: Level| {
            let (scale, basis) = (self.params.scale(level), self.params.window(level));
            let plain = self.encoder.encode_repeated(&shards, prepared.lowered.program.slots, scale, basis, PlainForm::Plain)?;
            let encryptor = match self.encryptor.get() {
                Some(encryptor) => encryptor,
                None => {
                    let made = Encryptor::new(&self.params, self.backend.clone(), random(seed, 2)?)?;
                    self.encryptor.get_or_init(|| made)
                }
            };
            encryptor.encrypt_seeded(&self.secret, &plain)
        };
        encrypt(prepared.plan.input_level()).map_err(|e| explain("cannot encrypt the picture", &e))
    }

    /// The logits in an answer, of every picture that a run takes.
    pub fn decrypt(&self, prepared: &Prepared, answer: &Ciphertext) -> Outcome<Vec<Vec<f64>>> {
        let decrypt = || Decryptor::new(&self.params, self.backend.clone())?.decrypt_real(&self.secret, answer);
        let mut slots = decrypt().map(Zeroizing::new).map_err(|e| explain("cannot decrypt the answer", &e))?;
        slots.iter_mut().for_each(|shard| shard.truncate(prepared.lowered.program.slots));
        let logits = prepared.lowered.unpack(&slots).map_err(|e| {
            let advice = "decrypt what `cipherlens run` wrote, with the same model";
            Failure::from_error(Class::BadInput, "this is not the answer of this network", &e, advice)
        })?;
        Ok(logits.iter().map(|logits| logits.values().to_vec()).collect())
    }
}

//! The holder of the secret key: makes keys, encrypts pictures, decrypts answers.

use super::error::ClientError;
use super::interleave;
use super::spec::{ClientSpec, RunSpec};
use super::tensor::Tensor;
use crate::backend::Backend;
use crate::backend::cpu::CpuBackend;
use crate::ckks::sampler::stream;
use crate::ckks::{
    Ciphertext, CkksError, Decryptor, Encoder, Encryptor, KeyGenerator, KeySet, Params, PlainForm, RandomSource, SecretKey,
    SeededCiphertext,
};
use rand::Rng;
use std::sync::{Arc, OnceLock};
use zeroize::Zeroizing;

/// How many times the noise foreseen an answer may be off where it must be empty, real, or a copy. Runs were seen with
/// four times the noise foreseen; the largest of 2^16 slots has three times what the largest of ten results has.
const SLACK: f64 = 128.0;
/// How many times the noise foreseen the noise of a result is taken to be at most, where results are published.
const WORST: f64 = 8.0;
/// Fewest and most bits of [`Client::published`].
const PUBLISH_BITS: [u32; 2] = [8, 64];

/// Holds a secret key: for one network, of which it knows a [`ClientSpec`].
///
/// Everything secret stays on the processor and is wiped when dropped.
#[derive(Debug)]
pub struct Client {
    spec: Arc<ClientSpec>,
    params: Arc<Params>,
    backend: Arc<dyn Backend>,
    secret: SecretKey,
    encoder: Encoder,
    /// Where everything random is from a seed: for tests.
    seed: Option<u64>,
    /// Made for the first picture and kept: with a seed, another would encrypt the next picture with the same noise,
    /// and anyone would see the difference of the two.
    encryptor: OnceLock<Encryptor>,
}

/// What the randomness of a seed is for; each purpose has its own.
#[derive(Clone, Copy)]
enum Purpose {
    Secret = 0,
    Keys = 1,
    Encryption = 2,
    Publishing = 3,
}

fn random(seed: Option<u64>, purpose: Purpose) -> Result<RandomSource, CkksError> {
    match seed {
        Some(seed) => Ok(RandomSource::insecure_seeded_for(seed, purpose as u8)),
        None => RandomSource::from_os(),
    }
}

impl Client {
    /// A client with a fresh secret key; `params` are those of the description ([`ClientSpec::read`],
    /// [`ClientSpec::params`]).
    ///
    /// # Errors
    /// [`ClientError::Scheme`], as where the system gives no randomness.
    pub fn new(spec: &Arc<ClientSpec>, params: &Arc<Params>) -> Result<Self, ClientError> {
        Self::fresh(spec, params, None)
    }

    /// The same key and ciphertexts for the same seed: for tests and benchmarks only. Whoever knows the seed can
    /// decrypt, and of pictures encrypted by two clients of one seed anyone sees the difference.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn insecure_seeded(spec: &Arc<ClientSpec>, params: &Arc<Params>, seed: u64) -> Result<Self, ClientError> {
        Self::fresh(spec, params, Some(seed))
    }

    fn fresh(spec: &Arc<ClientSpec>, params: &Arc<Params>, seed: Option<u64>) -> Result<Self, ClientError> {
        let backend: Arc<dyn Backend> = Arc::new(CpuBackend::new(params.tables().clone()).map_err(CkksError::from)?);
        let generator = KeyGenerator::new(params, backend.clone(), random(seed, Purpose::Secret)?)?;
        Self::over(spec, params, backend, generator.secret_key()?, seed)
    }

    /// A client with a secret key it has, of the parameter set of the description.
    ///
    /// # Errors
    /// [`ClientError::Scheme`] for a key of another parameter set.
    pub fn with_secret(spec: &Arc<ClientSpec>, params: &Arc<Params>, secret: SecretKey) -> Result<Self, ClientError> {
        let backend: Arc<dyn Backend> = Arc::new(CpuBackend::new(params.tables().clone()).map_err(CkksError::from)?);
        Self::over(spec, params, backend, secret, None)
    }

    fn over(
        spec: &Arc<ClientSpec>,
        params: &Arc<Params>,
        backend: Arc<dyn Backend>,
        secret: SecretKey,
        seed: Option<u64>,
    ) -> Result<Self, ClientError> {
        secret.tag().check_params(params, "client")?;
        let encoder = Encoder::new(params.clone(), backend.clone());
        Ok(Self { spec: spec.clone(), params: params.clone(), backend, secret, encoder, seed, encryptor: OnceLock::new() })
    }

    /// The description of the network.
    pub fn spec(&self) -> &Arc<ClientSpec> {
        &self.spec
    }
    /// The parameter set.
    pub fn params(&self) -> &Arc<Params> {
        &self.params
    }
    /// The secret key, for storing. It decrypts everything.
    pub fn secret(&self) -> &SecretKey {
        &self.secret
    }
    /// What its ciphertexts and keys are on, and what reads answers: the processor.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The keys that a server needs for a run, and no others; `made` is called after each. Minutes and gigabytes for a
    /// network that is bootstrapped.
    ///
    /// # Errors
    /// [`ClientError::Scheme`].
    pub fn evaluation_keys(&self, run: &RunSpec, made: &(dyn Fn() + Sync)) -> Result<KeySet, ClientError> {
        let generator = KeyGenerator::new(&self.params, self.backend.clone(), random(self.seed, Purpose::Keys)?)?;
        Ok(generator.generate_with(&self.secret, &run.keys, made)?)
    }

    /// Encrypts as many pictures as a run takes at most, normalised, at the level where the network begins. Half of
    /// each ciphertext is a seed, so that is what is sent.
    ///
    /// # Errors
    /// [`ClientError::Input`] for numbers that the network was not made for, [`ClientError::Layout`] for another shape
    /// or too many pictures.
    pub fn encrypt(&self, run: &RunSpec, pictures: &[Tensor<f64>]) -> Result<SeededCiphertext, ClientError> {
        pictures.iter().try_for_each(|picture| self.check_input(picture))?;
        let shards = Zeroizing::new(run.pack(pictures)?);
        let (scale, basis) = (self.params.scale(run.input_level), self.params.window(run.input_level));
        let plain = self.encoder.encode_repeated(&shards, run.slots, scale, basis, PlainForm::Plain)?;
        let encryptor = match self.encryptor.get() {
            Some(encryptor) => encryptor,
            None => {
                let made = Encryptor::new(&self.params, self.backend.clone(), random(self.seed, Purpose::Encryption)?)?;
                self.encryptor.get_or_init(|| made)
            }
        };
        Ok(encryptor.encrypt_seeded(&self.secret, &plain)?)
    }

    /// Refuses an input with numbers beyond [`ClientSpec::interval`].
    ///
    /// # Errors
    /// [`ClientError::Input`].
    pub fn check_input(&self, picture: &Tensor<f64>) -> Result<(), ClientError> {
        let plane = picture.shape().plane().max(1);
        for (channel, (values, &[least, most])) in picture.values().chunks(plane).zip(&self.spec.interval).enumerate() {
            // Room for the rounding of pixels in single precision.
            let room = 1e-6 * (most - least).max(1.0);
            if let Some(&found) = values.iter().find(|v| !(least - room..=most + room).contains(*v)) {
                return Err(ClientError::Input { channel, found, least, most });
            }
        }
        Ok(())
    }

    /// The results in an answer, of every picture that a run takes, with the digits that the noise of encryption
    /// leaves.
    ///
    /// They must not go back to whoever evaluated ([`Decryptor`]); what may, [`Self::published`] makes of them.
    ///
    /// # Errors
    /// [`ClientError::NotAnAnswer`] for a ciphertext of another level, scale or number of shards, and
    /// [`ClientError::Implausible`] for one that decrypts to what no run of the network gives. A client that lets a
    /// server see which of its answers were refused gives the key away, answer by answer: this makes that dearer, it
    /// does not prevent it.
    pub fn decrypt(&self, run: &RunSpec, answer: &Ciphertext) -> Result<Vec<Vec<f64>>, ClientError> {
        let mut results = self.decrypt_unrounded(run, answer)?;
        results.iter_mut().flatten().for_each(|v| *v = self.spec.rounded(*v));
        Ok(results)
    }

    /// As [`Self::decrypt`], with all digits: for comparing with the clear network where both are at hand. The last
    /// digits are noise that depends on the key.
    ///
    /// # Errors
    /// As [`Self::decrypt`].
    pub fn decrypt_unrounded(&self, run: &RunSpec, answer: &Ciphertext) -> Result<Vec<Vec<f64>>, ClientError> {
        self.check_form(run, answer)?;
        let decryptor = Decryptor::new(&self.params, self.backend.clone())?;
        let slots = Zeroizing::new(decryptor.decrypt_unless_transparent(&self.secret, answer)?.ok_or(ClientError::Implausible)?);
        let noise = SLACK * self.spec.noise / self.spec.output_divisor;
        let mut off: f64 = 0.0;
        let mut real = Zeroizing::new(Vec::with_capacity(slots.len()));
        for (re, im) in slots.iter() {
            off = im.iter().fold(off, |worst, v| larger(worst, v.abs()));
            off = re.iter().enumerate().fold(off, |worst, (s, v)| larger(worst, (v - re[s % run.slots]).abs()));
            real.push(re[..run.slots].to_vec());
        }
        let mut results = Zeroizing::new(Vec::with_capacity(run.pictures));
        for picture in 0..run.pictures {
            let part = Zeroizing::new(interleave::part(&real, picture, run.pictures));
            off = larger(off, run.rest.error(&run.output, &part));
            let result = Zeroizing::new(run.output.unpack(&part)?);
            results.push(result.values().iter().map(|v| v * self.spec.output_divisor).collect::<Vec<f64>>());
        }
        let largest = results.iter().flatten().fold(0.0, |worst, v| larger(worst, v.abs()));
        // One refusal for all that is wrong: the reason is about numbers that the key alone opens.
        if off > noise || largest > self.spec.largest {
            return Err(ClientError::Implausible);
        }
        Ok(std::mem::take(&mut *results))
    }

    /// Results that may be made public: each with normal noise of standard deviation `sqrt(12 n) 2^(bits / 2) t` added
    /// and rounded to a sixteenth of that, where n is how many there are and t bounds the noise of encryption in each
    /// (8 times what is foreseen). One answer published so has `bits` bits of statistical security against recovering
    /// the key from its noise; k answers lose `log2 k` (Li, Micciancio, Schultz and Sorrell, "Securing Approximate
    /// Homomorphic Encryption Using Differential Privacy", 2022, theorem 2). Also the standard deviation.
    ///
    /// # Errors
    /// [`ClientError::PublishBits`] beyond 8 to 64 bits.
    pub fn published(&self, results: &[f64], bits: u32) -> Result<(Vec<f64>, f64), ClientError> {
        let [least, most] = PUBLISH_BITS;
        if !(least..=most).contains(&bits) {
            return Err(ClientError::PublishBits { found: bits, least, most });
        }
        let deviation = (12.0 * results.len() as f64).sqrt() * (f64::from(bits) / 2.0).exp2() * WORST * self.spec.noise;
        let seed = random(self.seed, Purpose::Publishing)?.fresh("publish")?;
        let mut rng = stream(&seed, "normal", 0, 0);
        let unit = deviation / 16.0;
        let noisy = |v: &f64| {
            let with = v + deviation * normal(&mut rng);
            if unit > 0.0 { (with / unit).round() * unit } else { with }
        };
        Ok((results.iter().map(noisy).collect(), deviation))
    }

    /// Level, scale and shards of an answer: public, and told.
    fn check_form(&self, run: &RunSpec, answer: &Ciphertext) -> Result<(), ClientError> {
        let refuse = |what, expected: String, found: String| Err(ClientError::NotAnAnswer { what, expected, found });
        if answer.level() != run.output_level {
            return refuse("level", run.output_level.0.to_string(), answer.level().0.to_string());
        }
        if answer.shards() != run.output.shards() {
            return refuse("number of ciphertexts", run.output.shards().to_string(), answer.shards().to_string());
        }
        let (expected, found) = (run.output_scale(&self.params), answer.scale());
        if (found.0 / expected.0 - 1.0).abs() > 1e-9 {
            return refuse("scale", expected.to_string(), found.to_string());
        }
        Ok(())
    }
}

impl RunSpec {
    /// Pictures as slot vectors `[shard][slot]`; slots without an element are 0, places without a picture hold one of
    /// those given.
    ///
    /// # Errors
    /// [`ClientError::Layout`] for another shape, for none, or for more than a run takes.
    pub fn pack(&self, pictures: &[Tensor<f64>]) -> Result<Vec<Vec<f64>>, ClientError> {
        if pictures.is_empty() || pictures.len() > self.pictures {
            return Err(ClientError::Pictures { most: self.pictures, found: pictures.len() });
        }
        let packed = pictures.iter().map(|x| self.input.pack(x)).collect::<Result<Vec<_>, _>>().map(Zeroizing::new)?;
        Ok(interleave::interleave(&packed, self.pictures))
    }
}

/// The larger; infinite where one is no number.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::INFINITY } else { a.max(b) }
}

/// A standard normal number, by Box and Muller.
fn normal(rng: &mut impl Rng) -> f64 {
    let uniform = |word: u64| ((word >> 11) as f64 + 0.5) * (-53f64).exp2();
    let (u, v) = (uniform(rng.next_u64()), uniform(rng.next_u64()));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

//! What is secret is not left in memory: after keys, seeds and plaintexts are dropped, this process searches its own memory for them.
//!
//! What to search for is worked out by another process, which hands it over with all bits inverted, so that nothing here but the library
//! ever had it. One test alone, since others at the same time would leave copies of their own.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, reason = "a test that cannot go on may stop")]

use cipherlens::backend::{Backend, cpu::CpuBackend};
use cipherlens::ckks::*;
use cipherlens::wire::{Kind, WireError, container, objects};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

const FOLDER: &str = "CIPHERLENS_TEST_SECRETS";
const SEED: u64 = 0x5ec2e7;
/// Bytes that are searched for.
const LENGTH: usize = 96;

struct Scheme {
    params: Arc<Params>,
    backend: Arc<dyn Backend>,
}

impl Scheme {
    fn new() -> Self {
        let params = presets::by_name("n13").expect("a preset");
        let backend = Arc::new(CpuBackend::new(params.tables().clone()).expect("a backend"));
        Self { params, backend }
    }
    fn generator(&self) -> KeyGenerator {
        KeyGenerator::new(&self.params, self.backend.clone(), RandomSource::insecure_seeded(SEED)).expect("a generator")
    }
    fn encryptor(&self) -> Encryptor {
        let random = RandomSource::insecure_seeded(SEED + 1);
        Encryptor::new(&self.params, self.backend.clone(), random).expect("an encryptor")
    }
    fn decryptor(&self) -> Decryptor {
        Decryptor::new(&self.params, self.backend.clone()).expect("a decryptor")
    }
    /// What is encrypted: two vectors, since two are transformed together.
    fn values(&self) -> Zeroizing<Vec<Vec<f64>>> {
        let value = |s: usize, i: usize| ((i * (s + 2)) as f64 * 0.37).sin();
        Zeroizing::new((0..2).map(|s| (0..self.params.slots()).map(|i| value(s, i)).collect()).collect())
    }
    fn encode(&self) -> Plaintext {
        let top = self.params.max_level();
        let encoder = Encoder::new(self.params.clone(), self.backend.clone());
        let (scale, basis) = (self.params.scale(top), self.params.window(top));
        encoder.encode_shards(&self.values(), scale, basis, PlainForm::Plain).expect("a plaintext")
    }
}

fn middle<T: bytemuck::NoUninit>(values: &[T]) -> &[u8] {
    let bytes = bytemuck::cast_slice::<T, u8>(values);
    let at = bytes.len() / 2 / 8 * 8;
    &bytes[at..at + LENGTH]
}

/// Not a test: what the other process does.
#[test]
#[ignore = "the other process of the test below"]
fn writes_what_to_search_for() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let save = |name: &str, bytes: &[u8]| {
        let inverted: Vec<u8> = bytes.iter().map(|b| !b).collect();
        std::fs::write(folder.join(name), inverted).expect("written");
    };
    let scheme = Scheme::new();
    let params = &scheme.params;
    let generator = scheme.generator();
    let secret = generator.secret_key().expect("a key");
    objects::write_secret_key(&folder.join("secret.key"), params, &secret).expect("written");
    let coefficients = secret.expose_coefficients();
    save("key, coefficients", middle(coefficients));
    let words: Vec<i32> = coefficients.iter().map(|&c| c.into()).collect();
    save("key, words of the file", middle(&words));
    // Modulo the first prime, transformed.
    let m = params.tables().modulus(cipherlens::math::LimbId(0));
    let mut residues = vec![0u32; coefficients.len()];
    sampler::small_residues(coefficients, m, &mut residues);
    let first = cipherlens::math::Basis::range(0..1);
    let fill = |_: usize, _: usize, out: &mut [u32]| out.copy_from_slice(&residues);
    let transformed = scheme.backend.upload_ntt(1, &first, &fill).expect("transformed");
    save("key, transformed", middle(&scheme.backend.download(&transformed).expect("words")));

    save("seed of a stream", &sampler::stream(&[9; 32], "test", 0, 0).get_seed());
    let mut errors = vec![0i16; 4096];
    sampler::Gaussian::new(params.sigma()).sample(&mut sampler::stream(&[9; 32], "test", 0, 0), &mut errors);

    save("plaintext, slots", middle(&scheme.values()[1]));
    let plain = scheme.encode();
    save("plaintext, encoded", middle(&scheme.backend.download(plain.buffer()).expect("words")));
    let encrypted = scheme.encryptor().encrypt_seeded(&secret, &plain).expect("a ciphertext");
    objects::write_seeded_ciphertext(&folder.join("ciphertext"), params, &encrypted, None).expect("written");
    let ciphertext = encrypted.expand(params, scheme.backend.as_ref()).expect("a ciphertext");
    let decryptor = scheme.decryptor();
    save("decrypted, residues", middle(&decryptor.raw(&secret, &ciphertext).expect("residues")));
    save("decrypted, coefficients", middle(&decryptor.coefficients(&secret, &ciphertext).expect("coefficients")[1]));
    save("decrypted, slots", middle(&decryptor.decrypt_real(&secret, &ciphertext).expect("slots")[1]));
}

/// How often a pattern, given inverted, is in the memory of this process that can be written.
fn count(inverted: &[u8]) -> usize {
    const WINDOW: usize = 1 << 16;
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let mut memory = File::open("/proc/self/mem").expect("own memory");
    let mut window = vec![0u8; WINDOW + inverted.len() - 1];
    let mut found = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(access)) = (fields.next(), fields.next()) else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        let number = |s: &str| u64::from_str_radix(s, 16).expect("an address");
        let (mut at, end) = (number(start), number(end));
        if !access.starts_with("rw") || line.ends_with("[vvar]") {
            continue;
        }
        while at < end {
            let size = window.len().min((end - at) as usize);
            // Windows overlap, and none of what was read stays for the next.
            if memory.seek(SeekFrom::Start(at)).is_ok() && memory.read_exact(&mut window[..size]).is_ok() {
                found +=
                    window[..size].windows(inverted.len()).filter(|w| w.iter().zip(inverted).all(|(a, b)| *a == !*b)).count();
            }
            window.as_mut_slice().zeroize();
            at += WINDOW as u64;
        }
    }
    found
}

#[test]
fn nothing_secret_is_left_in_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    let exe = std::env::current_exe().expect("this program");
    let status = std::process::Command::new(exe)
        .args(["--exact", "--ignored", "writes_what_to_search_for"])
        .env(FOLDER, dir.path())
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.expect("the other process").success());
    let pattern = |name: &str| std::fs::read(dir.path().join(name)).expect("a pattern");
    // What is found where nothing should be; all of it is told at the end.
    let found = std::cell::RefCell::new(Vec::new());
    let left = |names: &[&str]| {
        for name in names {
            match count(&pattern(name)) {
                0 => {}
                copies => found.borrow_mut().push(format!("{copies} of {name}")),
            }
        }
    };
    let key: [&str; 3] = ["key, coefficients", "key, words of the file", "key, transformed"];
    let scheme = Scheme::new();
    let params = &scheme.params;
    let path = dir.path().join("secret.key");

    // The search finds what is there.
    let mut file = std::fs::read(&path).expect("a file");
    assert_eq!(count(&pattern("key, words of the file")), 1, "the search does not work");
    file.zeroize();
    let secret = objects::read_secret_key(&path, params).expect("a key");
    for name in ["key, coefficients", "key, transformed"] {
        assert_eq!(count(&pattern(name)), 1, "{name}, while the key is in use");
    }
    assert_eq!(count(&pattern("key, words of the file")), 0);
    drop(secret);
    left(&key);

    // Reading that fails after the secret is in memory.
    let damaged = dir.path().join("damaged.key");
    let damage = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Zeroizing::new(std::fs::read(&path).expect("a file"));
        change(&mut bytes);
        std::fs::write(&damaged, &*bytes).expect("written");
    };
    damage(&|bytes| *bytes.last_mut().expect("a byte") ^= 4);
    assert!(matches!(objects::read_secret_key(&damaged, params), Err(WireError::Hash { .. })));
    left(&key);
    forge_last_word(&path, &damaged);
    let index = params.degree() - 1;
    assert!(matches!(objects::read_secret_key(&damaged, params), Err(WireError::SecretWord { index: found }) if found == index));
    left(&key);

    // Keys made, and written.
    let secret = scheme.generator().secret_key().expect("a key");
    let request = KeyRequest::relinearization(params, Level(1)).expect("a request");
    drop(scheme.generator().key(&secret, request).expect("a key"));
    std::fs::remove_file(&damaged).expect("removed");
    objects::write_secret_key(&damaged, params, &secret).expect("written");

    // Encryption.
    drop(scheme.encryptor().encrypt_seeded(&secret, &scheme.encode()).expect("a ciphertext"));
    left(&["plaintext, slots", "plaintext, encoded"]);

    // Decryption.
    let ciphertext =
        objects::read_ciphertext(&dir.path().join("ciphertext"), params, scheme.backend.as_ref()).expect("a ciphertext");
    let mut slots = scheme.decryptor().decrypt_real(&secret, &ciphertext).expect("slots");
    assert_eq!(count(&pattern("decrypted, slots")), 1, "the caller's");
    slots.zeroize();
    left(&["decrypted, residues", "decrypted, coefficients", "decrypted, slots"]);
    drop(secret);
    left(&key);

    // Streams.
    let mut errors = vec![0i16; 4096];
    sampler::Gaussian::new(params.sigma()).sample(&mut sampler::stream(&[9; 32], "test", 0, 0), &mut errors);
    left(&["seed of a stream"]);
    assert!(found.borrow().is_empty(), "left in memory: {:?}", found.borrow());
}

/// The key with a word that is no coefficient at its end, every hash right.
fn forge_last_word(from: &Path, to: &Path) {
    let mut reader = container::Reader::<objects::Metadata<()>>::open(from, Kind::SecretKey).expect("a key");
    let mut words = Zeroizing::new(vec![0u32; reader.chunks()[0].words as usize]);
    reader.chunk_into(0, &mut words).expect("words");
    *words.last_mut().expect("a word") = 7;
    container::write(to, Kind::SecretKey, &reader.metadata, &[&words], true).expect("written");
}

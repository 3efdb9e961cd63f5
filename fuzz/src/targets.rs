//! Readers of the library, as functions of bytes. None may panic, whatever the bytes are; what is accepted is used.
//!
//! Shared by the fuzz targets and by `tests/untrusted.rs`, which runs them on a stable compiler. Each answers whether the bytes were accepted.

use cipherlens::backend::{Backend, cpu::CpuBackend};
use cipherlens::ckks::{Ciphertext, Evaluator, KeySet, Level, Owner, Params, presets};
use cipherlens::client::ClientSpec;
use cipherlens::nn::compiled::Compiled;
use cipherlens::nn::model::Model;
use cipherlens::nn::onnx::OnnxOptions;
use cipherlens::wire::objects;
use std::path::Path;
use std::sync::{Arc, LazyLock};

/// The ring of all files here: N = 32.
pub const PRESET: &str = "insecure-tiny";

/// A scheme to read files for, and a ciphertext to use keys on.
pub struct Bed {
    /// Parameters.
    pub params: Arc<Params>,
    /// Kernels.
    pub backend: Arc<dyn Backend>,
    /// The key of the files.
    pub owner: Owner,
}

/// One for all calls.
pub static BED: LazyLock<Bed> = LazyLock::new(|| {
    let params = presets::by_name(PRESET).expect("a preset");
    let backend: Arc<dyn Backend> = Arc::new(CpuBackend::new(params.tables().clone()).expect("kernels"));
    let owner = Owner::insecure_seeded(&params, backend.clone(), 7).expect("a key");
    Bed { params, backend, owner }
});

/// A file's bytes with its hashes made right again, so that what lies behind them is reached: that of the header, and those of the chunks if the
/// table at the header's end is whole. The format is that of `wire::container`.
pub fn resealed(bytes: &[u8]) -> Vec<u8> {
    let mut file = bytes.to_vec();
    let Some(size) = file.get(12..16).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize) else { return file };
    let Some(end) = size.checked_add(48).filter(|&end| end <= file.len()) else { return file };
    reseal_chunks(&mut file, end);
    let hash = *blake3::Hasher::new().update(&file[..16]).update(&file[48..end]).finalize().as_bytes();
    file[16..48].copy_from_slice(&hash);
    file
}

/// Finds the chunk table from behind: entries of a length (a varint of 1, 3 or 5 bytes) and a hash, whose lengths add up to the file.
fn reseal_chunks(file: &mut [u8], end: usize) {
    for width in [33, 35, 37] {
        let mut table = Vec::new();
        let mut at = end;
        while at >= 48 + width && table.len() < 1024 {
            at -= width;
            let words = match (width, file[at]) {
                (33, n) if n <= 250 => usize::from(n),
                (35, 251) => usize::from(u16::from_le_bytes([file[at + 1], file[at + 2]])),
                (37, 252) => u32::from_le_bytes([file[at + 1], file[at + 2], file[at + 3], file[at + 4]]) as usize,
                _ => break,
            };
            table.insert(0, (at + width - 32, words));
            let length = table.iter().try_fold(end, |at, (_, words)| at.next_multiple_of(64).checked_add(4 * words));
            if length == Some(file.len()) {
                let mut chunk = end;
                for (hash, words) in table {
                    chunk = chunk.next_multiple_of(64);
                    let sum = *blake3::hash(&file[chunk..chunk + 4 * words]).as_bytes();
                    file[hash..hash + 32].copy_from_slice(&sum);
                    chunk += 4 * words;
                }
                return;
            }
        }
    }
}

/// Bytes as a file, both as they are and resealed.
fn as_file(bytes: &[u8], read: impl Fn(&Path) -> bool) -> bool {
    let file = tempfile::NamedTempFile::new().expect("a file");
    [bytes.to_vec(), resealed(bytes)].iter().any(|bytes| {
        std::fs::write(file.path(), bytes).expect("a file that can be written");
        let _ = objects::read_origin(file.path());
        read(file.path())
    })
}

/// A parameter set.
pub fn params(bytes: &[u8]) -> bool {
    as_file(bytes, |path| objects::read_params(path).is_ok())
}

/// A secret key; what it decrypts is not looked at.
pub fn secret_key(bytes: &[u8]) -> bool {
    let Bed { params, backend, .. } = &*BED;
    as_file(bytes, |path| {
        let Ok(key) = objects::read_secret_key(path, params) else { return false };
        let decryptor = cipherlens::ckks::Decryptor::new(params, backend.clone()).expect("a decryptor");
        let _ = fresh().map(|ct| decryptor.decrypt_real(&key, &ct));
        true
    })
}

/// A public key.
pub fn public_key(bytes: &[u8]) -> bool {
    as_file(bytes, |path| objects::read_public_key(path, &BED.params).is_ok())
}

/// Evaluation keys, then one operation of each sort with them.
pub fn evaluation_keys(bytes: &[u8]) -> bool {
    let Bed { params, backend, .. } = &*BED;
    as_file(bytes, |path| {
        let Ok(keys) = objects::read_evaluation_keys(path, params, backend.as_ref()) else { return false };
        let Ok(evaluator) = Evaluator::new(params.clone(), backend.clone(), Arc::new(keys)) else { return true };
        let Some(ct) = fresh() else { return true };
        let _ = evaluator.rotate(&ct, 1);
        let _ = evaluator.rotate_many(&ct, &[1, 2]);
        let _ = evaluator.mul(&ct, &ct);
        true
    })
}

/// A ciphertext, then what its owner and a server would do with it.
pub fn ciphertext(bytes: &[u8]) -> bool {
    let Bed { params, backend, owner } = &*BED;
    as_file(bytes, |path| {
        let Ok(ct) = objects::read_ciphertext(path, params, backend.as_ref()) else { return false };
        let _ = owner.decrypt(&ct);
        if let Ok(evaluator) = Evaluator::new(params.clone(), backend.clone(), Arc::new(KeySet::new(ct.tag()))) {
            let _ = evaluator.drop_to(&ct, Level(0));
            let _ = evaluator.add(&ct, &ct);
        }
        true
    })
}

/// A fresh ciphertext, half of which is a seed: the same reader.
pub fn seeded_ciphertext(bytes: &[u8]) -> bool {
    ciphertext(bytes)
}

/// A compiled network.
pub fn compiled(bytes: &[u8]) -> bool {
    as_file(bytes, |path| {
        let _ = Compiled::is_one(path);
        Compiled::read(path).is_ok_and(|compiled| {
            let _ = compiled.digest();
            true
        })
    })
}

/// What a client is told of a network.
pub fn client_spec(bytes: &[u8]) -> bool {
    [bytes.to_vec(), resealed(bytes)].iter().any(|bytes| {
        ClientSpec::read_from(&bytes[..]).is_ok_and(|(spec, _)| {
            let _ = (spec.run(1), spec.class_name(0), spec.decimals(), spec.rounded(0.123));
            true
        })
    })
}

/// A model file of the program's own.
pub fn model(bytes: &[u8]) -> bool {
    Model::from_bytes(bytes).is_ok()
}

/// An ONNX file.
pub fn onnx(bytes: &[u8]) -> bool {
    Model::from_onnx(bytes, &OnnxOptions::default()).is_ok()
}

/// A ciphertext of this scheme, at the top.
fn fresh() -> Option<Ciphertext> {
    let Bed { params, owner, .. } = &*BED;
    owner.encrypt(params.max_level(), &[vec![0.5; params.slots()]]).ok()
}

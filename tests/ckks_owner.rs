//! The owner of a key in one value, against clear arithmetic and against the parts it is made of.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use cipherlens::backend::cpu::CpuBackend;
use cipherlens::ckks::{CkksError, Decryptor, Evaluator, KeyKind, KeyRequest, Owner, presets};
use std::sync::Arc;

fn vectors(shards: usize, slots: usize) -> Vec<Vec<f64>> {
    (0..shards).map(|s| (0..slots).map(|i| ((s * 7 + i) as f64).sin()).collect()).collect()
}

#[test]
fn a_client_and_a_server_compute_together() {
    let params = presets::by_name("insecure-toy").unwrap();
    let backend = Arc::new(CpuBackend::new(params.tables().clone()).unwrap());
    let (top, slots) = (params.max_level(), params.slots());
    let owner = Owner::new(&params, backend.clone()).unwrap();
    let mut requests = KeyRequest::rotations(&params, top, &[1, -5]).unwrap();
    requests.push(KeyRequest::relinearization(&params, top).unwrap());
    let keys = owner.evaluation_keys(&requests).unwrap();
    let made: Vec<KeyKind> = keys.iter().map(|k| k.kind()).collect();
    assert_eq!(made.len(), 3, "{made:?}");
    assert!(requests.iter().all(|r| made.contains(&r.kind)));

    let values = vectors(3, slots);
    let ct = owner.encrypt(top, &values).unwrap();
    let seeded = owner.encrypt_seeded(top, &values).unwrap().expand(&params, backend.as_ref()).unwrap();
    assert_eq!((ct.shards(), ct.level(), ct.scale()), (3, top, params.scale(top)));
    let server = Evaluator::new(params.clone(), backend.clone(), keys).unwrap();
    let square = owner.decrypt(&server.mul_rescale(&ct, &seeded).unwrap()).unwrap();
    let turned = owner.decrypt(&server.rotate(&ct, -5).unwrap()).unwrap();
    for (s, shard) in values.iter().enumerate() {
        for (i, x) in shard.iter().enumerate() {
            assert!((square[s][i] - x * x).abs() < 1e-6);
            assert!((turned[s][(i + 5) % slots] - x).abs() < 1e-6);
        }
    }
    // A rotation that no key was made for.
    assert!(matches!(server.rotate(&ct, 2), Err(CkksError::MissingKey { .. })));
    // The same answer as from the parts; another owner's ciphertexts are refused.
    let parts = Decryptor::new(&params, backend.clone()).unwrap();
    assert_eq!(parts.decrypt_real(owner.secret(), &ct).unwrap(), owner.decrypt(&ct).unwrap());
    let other = Owner::new(&params, backend).unwrap();
    assert!(matches!(other.decrypt(&ct), Err(CkksError::KeyMismatch { .. })));
}

#[test]
fn a_seed_repeats_keys_and_ciphertexts() {
    let params = presets::by_name("insecure-tiny").unwrap();
    let backend = Arc::new(CpuBackend::new(params.tables().clone()).unwrap());
    let top = params.max_level();
    let words = |seed| {
        let owner = Owner::insecure_seeded(&params, backend.clone(), seed).unwrap();
        let keys = owner.evaluation_keys(&KeyRequest::rotations(&params, top, &[1]).unwrap()).unwrap();
        let key = keys.iter().next().unwrap().masked_half(backend.as_ref()).unwrap();
        (owner.secret().expose_coefficients().to_vec(), key, owner.encrypt_seeded(top, &[vec![0.5; 4]]).unwrap().words)
    };
    assert_eq!(words(3), words(3));
    let (a, b) = (words(3), words(4));
    assert!(a.0 != b.0 && a.1 != b.1 && a.2 != b.2);
    // Keys and encryption do not draw from one stream.
    assert_ne!(a.1[..16], a.2[..16]);
}

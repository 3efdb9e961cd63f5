//! A first encrypted sum: two vectors are encrypted, added by someone who can read neither, and the sum is decrypted.
//!
//!     cargo run --release --example encrypted_sum [-- --backend auto|cpu|gpu]

use cipherlens::ckks::{Evaluator, KeySet, Owner, presets};
use std::error::Error;
use std::sync::Arc;

#[path = "shared/backend.rs"]
mod backend;

fn main() -> Result<(), Box<dyn Error>> {
    // A parameter set at 128 bits of classical security: a ciphertext of it holds a vector of N/2 numbers, its slots.
    let params = presets::by_name("n13")?;
    let backend = backend::from_arguments(&params)?.backend;

    // The client has the secret key. A fresh ciphertext is at the top level: levels are what products use up.
    let owner = Owner::new(&params, backend.clone())?;
    let top = params.max_level();
    let a: Vec<f64> = (0..params.slots()).map(|i| (i as f64 / 100.0).sin()).collect();
    let b: Vec<f64> = (0..params.slots()).map(|i| i as f64 / params.slots() as f64).collect();
    let (ct_a, ct_b) = (owner.encrypt(top, &[&a])?, owner.encrypt(top, &[&b])?);

    // The server has the two ciphertexts. A sum needs no evaluation key and no level, and acts on all slots at once.
    let server = Evaluator::new(params.clone(), backend, Arc::new(KeySet::new(ct_a.tag())))?;
    let sum = server.add(&ct_a, &ct_b)?;
    println!("the sum is at {}, the top level", sum.level());

    // The client decrypts. CKKS computes on approximate numbers: the noise is a part of the answer.
    let slots = owner.decrypt(&sum)?.remove(0);
    let worst = slots.iter().zip(a.iter().zip(&b)).map(|(s, (a, b))| (s - (a + b)).abs()).fold(0.0, f64::max);
    println!("slot 1: {:.9}, expected {:.9}; worst error of {} slots 2^{:.1}", slots[1], a[1] + b[1], slots.len(), worst.log2());
    if worst > 1e-4 {
        return Err(format!("the sum is off by {worst:e}").into());
    }
    Ok(())
}

//! The scheme alone: two vectors are encrypted, multiplied, rotated and decrypted.
//!
//!     cargo run --release --example first_steps [-- --backend auto|cpu|gpu]

use cipherlens::ckks::{Evaluator, KeyRequest, Owner, presets};
use std::error::Error;

#[path = "shared/backend.rs"]
mod backend;

fn main() -> Result<(), Box<dyn Error>> {
    let params = presets::by_name("n14")?;
    let backend = backend::from_arguments(&params)?.backend;
    let top = params.max_level();
    println!("{} slots, {} levels", params.slots(), top.0);

    // The client's side: a secret key, and the two evaluation keys that this computation needs: one for products at the
    // top level, one for the rotation by 3 at the level below, where the product will be.
    let owner = Owner::new(&params, backend.clone())?;
    let below = top.below(1).ok_or("a level to spend")?;
    let mut requests = KeyRequest::rotations(&params, below, &[3])?;
    requests.push(KeyRequest::relinearization(&params, top)?);
    let keys = owner.evaluation_keys(&requests)?;

    // Two vectors as two shards would be one value; here they are two values, so that they can be multiplied.
    let a: Vec<f64> = (0..params.slots()).map(|i| (i as f64 / 1000.0).sin()).collect();
    let b: Vec<f64> = (0..params.slots()).map(|i| 1.0 - i as f64 / params.slots() as f64).collect();
    let (ct_a, ct_b) = (owner.encrypt(top, &[&a])?, owner.encrypt(top, &[&b])?);

    // The server's side: it has the evaluation keys and the ciphertexts.
    let server = Evaluator::new(params.clone(), backend, keys)?;
    let product = server.mul_rescale(&ct_a, &ct_b)?;
    let result = server.rotate(&product, 3)?;
    println!("the result is at {}, scale {}", result.level(), result.scale());

    // The client again.
    let slots = owner.decrypt(&result)?.remove(0);
    let n = params.slots();
    let worst = (0..n).map(|i| (slots[i] - a[(i + 3) % n] * b[(i + 3) % n]).abs()).fold(0.0, f64::max);
    println!("slot 0: {:.9}, expected {:.9}; worst error of all slots 2^{:.1}", slots[0], a[3] * b[3], worst.log2());
    if worst > 1e-5 {
        return Err(format!("the result is off by {worst:e}").into());
    }
    Ok(())
}

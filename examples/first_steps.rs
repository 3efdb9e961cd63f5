//! The scheme alone: two vectors are encrypted, multiplied, rotated and decrypted.
//!
//!     cargo run --release --example first_steps

use cipherlens::backend::cpu::CpuBackend;
use cipherlens::ckks::{
    Decryptor, Encoder, Encryptor, Evaluator, KeyGenerator, KeyKind, KeyRequest, PlainForm, RandomSource, presets,
};
use std::error::Error;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    // A parameter set at 128 bits of security, and the machine it runs on.
    let params = presets::by_name("n14")?;
    let backend = Arc::new(CpuBackend::new(params.tables().clone())?);
    let top = params.max_level();
    println!("{}: N = 2^{}, {} slots, {} levels", params.name(), params.log_n(), params.slots(), top.0);

    // The client's side: a secret key, and the two evaluation keys that this computation needs.
    let generator = KeyGenerator::new(&params, backend.clone(), RandomSource::from_os()?)?;
    let secret = generator.secret_key()?;
    let gadget = params.best_gadget(top..=top)?;
    let below = top.below(1).ok_or("a level to spend")?;
    let requests = [
        KeyRequest { kind: KeyKind::Relin, gadget },
        KeyRequest { kind: KeyKind::Galois(params.galois_element(3)), gadget: params.best_gadget(below..=below)? },
    ];
    let keys = Arc::new(generator.generate(&secret, &requests)?);

    // Two vectors as two shards would be one value; here they are two values, so that they can be multiplied.
    let encoder = Encoder::new(params.clone(), backend.clone());
    let encryptor = Encryptor::new(&params, backend.clone(), RandomSource::from_os()?)?;
    let a: Vec<f64> = (0..params.slots()).map(|i| (i as f64 / 1000.0).sin()).collect();
    let b: Vec<f64> = (0..params.slots()).map(|i| 1.0 - i as f64 / params.slots() as f64).collect();
    let encrypt = |v: &[f64]| {
        let plain = encoder.encode_real(v, params.scale(top), params.window(top), PlainForm::Plain)?;
        encryptor.encrypt(&secret, &plain)
    };
    let (ct_a, ct_b) = (encrypt(&a)?, encrypt(&b)?);

    // The server's side: it has the evaluation keys and the ciphertexts.
    let evaluator = Evaluator::new(params.clone(), backend.clone(), keys)?;
    let product = evaluator.mul_rescale(&ct_a, &ct_b)?;
    let result = evaluator.rotate(&product, 3)?;
    println!("the result is at {}, scale {}", result.level(), result.scale());

    // The client again.
    let slots = Decryptor::new(&params, backend)?.decrypt_real(&secret, &result)?.remove(0);
    let n = params.slots();
    let worst = (0..n).map(|i| (slots[i] - a[(i + 3) % n] * b[(i + 3) % n]).abs()).fold(0.0, f64::max);
    println!("slot 0: {:.9}, expected {:.9}; worst error of all slots 2^{:.1}", slots[0], a[3] * b[3], worst.log2());
    if worst > 1e-5 {
        return Err(format!("the result is off by {worst:e}").into());
    }
    Ok(())
}

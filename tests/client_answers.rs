//! What a client decrypts: answers, and not what a server makes up to learn the key.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use cipherlens::backend::{Backend, Shape, cpu::CpuBackend};
use cipherlens::ckks::{Ciphertext, Level, Params, Scale, presets};
use cipherlens::client::{Client, ClientError, ClientSpec, Layout, Rest, RunSpec, Tensor, input::Input, tensor};
use cipherlens::wire::network::NetworkDigest;
use std::sync::Arc;

/// A network that gives its input back: no server is needed.
fn spec(params: &Params) -> Arc<ClientSpec> {
    let shape = tensor::Shape::new(1, 2, 2);
    let layout = Layout::row_major(shape, 16).unwrap();
    let run = RunSpec {
        pictures: 1,
        plan: NetworkDigest([7; 32]),
        slots: 16,
        input: layout.clone(),
        input_level: Level(0),
        output: layout,
        rest: Rest::Zeros,
        output_level: Level(0),
        keys: Vec::new(),
    };
    let input = Input {
        name: "x".into(),
        shape,
        mean: vec![0.5],
        std: vec![0.25],
        normalisation: Default::default(),
        fit: Default::default(),
    };
    let spec = ClientSpec {
        name: "identity".into(),
        network: NetworkDigest([7; 32]),
        params: params.literal().clone(),
        input,
        interval: vec![[-2.0, 2.0]],
        classes: Vec::new(),
        output_divisor: 1.0,
        largest: 8.0,
        noise: 1e-5,
        runs: vec![run],
    };
    spec.check(params).unwrap();
    Arc::new(spec)
}

/// (v X^j, alpha), at level 0: what decrypts to `v X^j + alpha s`.
fn crafted(client: &Client, alpha: i64, v: i128, j: usize, scale: Scale) -> Ciphertext {
    let params = client.params();
    let backend: Arc<dyn Backend> = Arc::new(CpuBackend::new(params.tables().clone()).unwrap());
    let (basis, n) = (params.window(Level(0)), params.degree());
    let mut words = vec![0u32; 2 * basis.len() * n];
    for (l, &limb) in basis.limbs().iter().enumerate() {
        let m = params.tables().modulus(limb);
        words[l * n + j] = m.reduce_i128(v);
        words[(basis.len() + l) * n] = m.reduce_i64(alpha);
    }
    let mut buffer = backend.upload(Shape::new(2, basis.len(), n), &words).unwrap();
    backend.ntt_forward(&mut buffer, basis).unwrap();
    Ciphertext::from_parts(params, buffer, Level(0), scale, client.secret().tag()).unwrap()
}

/// A coefficient near half the modulus flips its sign with one of the key: two answers to tell apart, were both not refused alike. From
/// amplitudes that wrap round down to those of a result.
#[test]
fn what_a_server_makes_up_is_refused_whatever_the_key_is() {
    let params = presets::by_name("insecure-tiny").unwrap();
    let spec = spec(&params);
    let client = Client::insecure_seeded(&spec, &params, 5).unwrap();
    let run = spec.run(1).unwrap();
    let scale = params.scale(Level(0));
    let q: i128 = params.window(Level(0)).limbs().iter().map(|&l| i128::from(params.tables().modulus(l).value())).product();
    for v in [(q - 1) / 2, q / 4, (4.0 * scale.0) as i128] {
        for j in [1, 2, 3, params.degree() - 1] {
            for alpha in [0, 1, -1] {
                let refusal = client.decrypt(run, &crafted(&client, alpha, v, j, scale));
                assert!(matches!(refusal, Err(ClientError::Implausible)), "{v} X^{j}, {alpha}: {refusal:?}");
            }
        }
    }
    // Zeros, and numbers written down without a part for the key: no run gives them.
    for v in [0, 1] {
        let refusal = client.decrypt(run, &crafted(&client, 0, v, 0, scale));
        assert!(matches!(refusal, Err(ClientError::Implausible)), "{v}: {refusal:?}");
    }
    // A scale of the server's choice is seen before anything is decrypted.
    let refusal = client.decrypt(run, &crafted(&client, 1, (q - 1) / 2, 1, Scale(q as f64 / 20.0)));
    assert!(matches!(refusal, Err(ClientError::NotAnAnswer { what: "scale", .. })), "{refusal:?}");
}

#[test]
fn answers_are_taken_and_rounded() {
    let params = presets::by_name("insecure-tiny").unwrap();
    let spec = spec(&params);
    let client = Client::insecure_seeded(&spec, &params, 6).unwrap();
    let run = spec.run(1).unwrap();
    let picture = Tensor::new(spec.input.shape, vec![0.123456789, -1.0, 1.5, 0.0]).unwrap();
    let sent = client.encrypt(run, &[picture]).unwrap();
    let answer = sent.expand(&params, client.backend().as_ref()).unwrap();
    let exact = client.decrypt_unrounded(run, &answer);
    let Ok(results) = client.decrypt(run, &answer) else { panic!("{exact:?}") };
    let digits = |v: f64| (v * 1e5).round() / 1e5 == v;
    assert!((results[0][0] - 0.123456789).abs() < 1e-2 && results[0].iter().all(|&v| digits(v)), "{results:?}");
    let far = Tensor::new(spec.input.shape, vec![0.0, 0.0, 255.0, 0.0]).unwrap();
    assert!(matches!(client.encrypt(run, &[far]), Err(ClientError::Input { channel: 0, .. })));
}

//! Measured noise against predicted, and precision of the presets.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens::ckks::*;
use support::*;

use cipherlens_testkit::ckks as support;

/// Root mean square of a slot's error.
fn measured(b: &Bench, ct: &Ciphertext, want: &[Vec<f64>]) -> f64 {
    PrecisionStats::compare_shards(want, &b.decrypt(ct)).unwrap().rms_error
}

#[test]
fn measured_noise_is_predicted_within_a_bit() {
    let b = Bench::new("insecure-small");
    let model = NoiseModel::new(&b.params);
    let top = b.params.max_level();
    let scale = b.params.scale(top);
    let rms = (1.0f64 / 3.0).sqrt(); // uniform in [-1, 1]
    let (x, y) = (b.values(4, 1), b.values(4, 2));
    let (cx, cy) = (b.encrypt(&x, top), b.encrypt(&y, top));
    let fresh = model.fresh(scale, rms);
    let check = |name: &str, ct: &Ciphertext, want: &[Vec<f64>], predicted: Noisy| {
        let (got, predicted) = (measured(&b, ct, want), model.slot_deviation(predicted));
        println!("{name:28} measured 2^{:.2} predicted 2^{:.2}", got.log2(), predicted.log2());
        assert!((got / predicted).log2().abs() < 1.0, "{name}: measured {got:e}, predicted {predicted:e}");
    };

    check("fresh, secret key", &cx, &x, fresh);
    let public = b.generator.public_key(&b.secret).unwrap();
    let plain = b.plain(&x, top, PlainForm::Plain);
    check("fresh, public key", &b.encryptor.encrypt_public(&public, &plain).unwrap(), &x, model.fresh_public(scale, rms));
    let none = b.evaluator(&[]);
    check("add", &none.add(&cx, &cy).unwrap(), &map2(&x, &y, |x, y| x + y), model.add(fresh, fresh));

    let product = map2(&x, &y, |x, y| x * y);
    let weights = b.plain(&y, top, PlainForm::Montgomery);
    let plain_product = none.mul_plain(&cx, &weights).unwrap();
    let predicted = model.mul_plain(fresh, scale, rms);
    check("mul_plain", &plain_product, &product, predicted);
    let below = Level(top.0 - 1);
    check("mul_plain, rescale", &none.rescale(&plain_product).unwrap(), &product, model.rescale(predicted, top, below));

    for alpha in 1..=b.params.special().len() {
        let Ok(gadget) = b.params.gadget(Level(0)..=top, alpha) else { continue };
        let galois = KeyRequest { kind: KeyKind::Galois(b.params.galois_element(3)), gadget };
        let e = b.evaluator(&[galois, KeyRequest { kind: KeyKind::Relin, gadget }]);
        let name = |op: &str| format!("{op}, digits of {alpha}");
        let predicted = model.key_switch(fresh, &gadget, top).unwrap();
        check(&name("rotate"), &e.rotate(&cx, 3).unwrap(), &rotated(&x, 3), predicted);
        let low = Level(1);
        let predicted = model.key_switch(model.fresh(b.params.scale(low), rms), &gadget, low).unwrap();
        check(&name("rotate at level 1"), &e.rotate(&b.encrypt(&x, low), 3).unwrap(), &rotated(&x, 3), predicted);
        let predicted = model.mul(fresh, fresh, &gadget, top).unwrap();
        let ct = e.mul(&cx, &cy).unwrap();
        check(&name("mul"), &ct, &product, predicted);
        check(&name("mul, rescale"), &e.rescale(&ct).unwrap(), &product, model.rescale(predicted, top, below));
        check(&name("mul_rescale"), &e.mul_rescale(&cx, &cy).unwrap(), &product, model.rescale(predicted, top, below));
    }
}

#[test]
fn shipped_presets_reach_the_precision_their_noise_model_promises() {
    for preset in ["n13", "n14", "n15-cnn"] {
        let b = Bench::new(preset);
        let model = NoiseModel::new(&b.params);
        let top = b.params.max_level();
        let gadget = b.params.best_gadget(top..=top).unwrap();
        let rotation = KeyRequest { kind: KeyKind::Galois(b.params.galois_element(1)), gadget };
        let e = b.evaluator(&[rotation, KeyRequest { kind: KeyKind::Relin, gadget }]);
        let rms = (1.0f64 / 3.0).sqrt();
        let x = b.values(1, 4);
        let ct = b.encrypt(&x, top);
        let turned = e.rotate(&ct, 1).unwrap();
        let product = e.mul_rescale(&turned, &ct).unwrap();
        let want = map2(&rotated(&x, 1), &x, |a, b| a * b);
        let stats = PrecisionStats::compare_shards(&want, &b.decrypt(&product)).unwrap();
        let fresh = model.fresh(b.params.scale(top), rms);
        let predicted = model.mul(model.key_switch(fresh, &gadget, top).unwrap(), fresh, &gadget, top).unwrap();
        let predicted = model.slot_deviation(model.rescale(predicted, top, Level(top.0 - 1)));
        println!("{preset}: rotation and product: {stats}, predicted {:.1} bits rms", -predicted.log2());
        assert!((stats.rms_error / predicted).log2().abs() < 1.0);
        assert!(stats.worst_bits > 10.0);
        let low = e.drop_to(&product, Level(0)).unwrap();
        assert!(PrecisionStats::compare_shards(&want, &b.decrypt(&low)).unwrap().worst_bits > 10.0);
    }
}

//! Raising the modulus under the sparse secret: what comes out, how large the multiples of q0 are, and what is refused.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens::ckks::overflow::log2_failure;
use cipherlens::ckks::*;
use cipherlens::math::BaseConversion;
use num_bigint::BigInt;
use support::*;

use cipherlens_testkit::ckks as support;

/// Coefficients of the message polynomial, over the scale.
fn message(b: &Bench, ct: &Ciphertext) -> Vec<Vec<f64>> {
    let scale = ct.scale().0;
    b.decryptor.coefficients(&b.secret, ct).unwrap().iter().map(|c| c.iter().map(|x| x / scale).collect()).collect()
}

#[test]
fn a_raised_value_is_the_message_and_multiples_of_q0() {
    let b = Bench::new("insecure-boot");
    let params = &b.params;
    let e = b.evaluator(&params.encapsulation_requests().unwrap());
    let x = b.values(3, 7);
    let ct = e.drop_to(&b.encrypt(&x, params.output_level().unwrap()), Level(0)).unwrap();
    let raised = e.mod_raise(&ct).unwrap();
    let top = params.max_level();
    assert_eq!((raised.level(), raised.scale(), raised.shards()), (top, params.scale(top), 3));
    let (before, after) = (message(&b, &ct), message(&b, &raised));
    let ratio = params.message_ratio();
    let mut multiples = 0.0f64;
    for (m, t) in before.iter().flatten().zip(after.iter().flatten()) {
        let i = (t - m / ratio).round();
        multiples = multiples.max(i.abs());
        // The key switch to the sparse secret adds less than 2^10 to a coefficient of scale 2^38.
        assert!((t - i - m / ratio).abs() * ratio < 28f64.exp2().recip(), "{t} {m}");
    }
    // The noise model, over the scale of the message.
    let model = NoiseModel::new(params);
    let predicted = model.mod_raise(Noisy { deviation: 0.0, scale: ct.scale(), rms: (1.0f64 / 3.0).sqrt() }).unwrap();
    let error = |(m, t): (&f64, &f64)| (t - m / ratio - (t - m / ratio).round()).powi(2);
    let count = (before.len() * params.degree()) as f64;
    let measured = (before.iter().flatten().zip(after.iter().flatten()).map(error).sum::<f64>() / count).sqrt();
    println!("error 2^{:.2} of the range, predicted 2^{:.2}", measured.log2(), (predicted.deviation / predicted.scale.0).log2());
    assert!((measured * predicted.scale.0 / predicted.deviation).log2().abs() < 1.0);
    let rms = (after.iter().flatten().map(|t| t * t).sum::<f64>() / count * params.degree() as f64).sqrt();
    assert!((rms / predicted.rms).log2().abs() < 0.2, "{rms} against {}", predicted.rms);
    assert!(multiples >= 1.0 && multiples < f64::from(params.bootstrap().unwrap().k), "{multiples}");
    // The same call gives the same words, whatever the number of shards.
    assert_eq!(b.words(&e.mod_raise(&ct).unwrap()), b.words(&raised));
}

#[test]
fn the_lift_is_the_centred_representative_times_the_factor() {
    let b = Bench::new("insecure-boot");
    let params = &b.params;
    let (bottom, top) = (params.window(Level(0)), params.window(params.max_level()));
    let factor = params.raise_factor() as u64;
    assert!(factor > 1);
    let conversion = BaseConversion::new(params.tables(), bottom, top, |_| 1).times(params.tables(), factor);
    let modulus = |l| BigInt::from(params.tables().modulus(l).value());
    let q0: BigInt = bottom.limbs().iter().map(|&l| modulus(l)).product();
    let half: BigInt = &q0 / 2;
    let n = params.degree();
    // Both ends, around zero, and values spread over the whole range but for 2^-20 of it around half of q0.
    let mut values: Vec<BigInt> = vec![0.into(), 1.into(), &q0 - 1, &half - (&half >> 20u32), &half + (&half >> 20u32)];
    let mut state = 5u64;
    while values.len() < n {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let value: BigInt = (&q0 * BigInt::from(state)) >> 64u32;
        let near_half: BigInt = (&value - &half).magnitude().clone().into();
        if near_half > (&half >> 20u32) {
            values.push(value);
        }
    }
    let residue = |v: &BigInt, q: &BigInt| u32::try_from(((v % q) + q) % q).unwrap();
    let words: Vec<u32> = bottom.limbs().iter().flat_map(|&l| values.iter().map(move |v| residue(v, &modulus(l)))).collect();
    let input = b.backend.upload(cipherlens::backend::Shape::new(1, bottom.len(), n), &words).unwrap();
    let got = b.backend.download(&b.backend.base_convert(&input, &conversion).unwrap()).unwrap();
    for (limb, got) in top.limbs().iter().zip(got.chunks_exact(n)) {
        for (v, &got) in values.iter().zip(got) {
            let centred = if *v > half { v - &q0 } else { v.clone() };
            assert_eq!(got, residue(&(centred * factor), &modulus(*limb)), "{v} at limb {limb:?}");
        }
    }
}

#[test]
fn multiples_of_q0_stay_below_their_bound() {
    let b = Bench::new("insecure-boot");
    let params = &b.params;
    let circuit = *params.bootstrap().unwrap();
    let e = b.evaluator(&params.encapsulation_requests().unwrap());
    let shards = 64;
    let wanted = 1 << 20;
    let (mut count, mut sum, mut largest) = (0usize, 0.0, 0.0f64);
    let mut histogram = [0usize; 32];
    let mut seed = 0;
    while count < wanted {
        seed += 1;
        let x = b.values(shards, 100 + seed);
        let ct = e.drop_to(&b.encrypt(&x, Level(1)), Level(0)).unwrap();
        for t in message(&b, &e.mod_raise(&ct).unwrap()).iter().flatten() {
            count += 1;
            sum += t * t;
            largest = largest.max(t.round().abs());
            histogram[t.round().abs() as usize] += 1;
        }
    }
    let variance = sum / count as f64;
    println!("{count} coefficients: variance {variance:.4}, |I| up to {largest}, histogram {:?}", &histogram[..12]);
    assert!(largest < f64::from(circuit.k));
    // A sum of h uniform variables, rounded; the relative deviation of the estimate is below sqrt(2 / count).
    let want = (circuit.weight + 1) as f64 / 12.0;
    assert!((variance / want - 1.0).abs() < 6.0 * (2.0 / count as f64).sqrt(), "{variance} against {want}");
    // Tails as computed: each count is binomial.
    for k in 1..10u32 {
        let got = histogram[k as usize..].iter().sum::<usize>() as f64;
        let want = log2_failure(circuit.weight, k, count).exp2();
        assert!((got - want).abs() < 6.0 * want.sqrt() + 6.0, "|I| >= {k}: {got} against {want}");
    }
}

#[test]
fn what_cannot_be_raised_is_refused() {
    let b = Bench::new("insecure-boot");
    let params = &b.params;
    let requests = params.encapsulation_requests().unwrap();
    let e = b.evaluator(&requests);
    let x = b.values(1, 3);
    let ct = b.encrypt(&x, Level(1));
    assert!(matches!(e.mod_raise(&ct), Err(CkksError::LevelMismatch { expected: Level(0), found: Level(1), .. })));
    let low = e.drop_to(&ct, Level(0)).unwrap();
    // One percent off.
    let off = e.scaled_by(e.duplicate(&low).unwrap(), 1.01).unwrap();
    assert!(matches!(e.mod_raise(&off), Err(CkksError::ScaleMismatch { op: "mod_raise", .. })));
    for (missing, kind) in [(0, KeyKind::ToSparse), (1, KeyKind::ToDense)] {
        let only = b.evaluator(&[requests[1 - missing]]);
        let error = only.mod_raise(&low).unwrap_err();
        assert!(matches!(error, CkksError::MissingKey { kind: k, .. } if k == kind), "{error}");
    }
    let other = b.generator.secret_key().unwrap();
    let keys = std::sync::Arc::new(b.generator.generate(&other, &requests).unwrap());
    let foreign = Evaluator::new(params.clone(), b.backend.clone(), keys).unwrap();
    assert!(matches!(foreign.mod_raise(&low), Err(CkksError::KeyMismatch { op: "mod_raise", .. })));
    // A key to the sparse secret over more primes is not made.
    let wide = params.best_gadget(Level(0)..=params.max_level()).unwrap();
    let error = b.generator.key(&b.secret, KeyRequest { kind: KeyKind::ToSparse, gadget: wide }).unwrap_err();
    assert!(matches!(error, CkksError::Params(ParamsError::SparseModulus { cap: 200.0, .. })), "{error}");
    // Nor read: the same refusal for words from elsewhere.
    let keys = b.generator.generate(&b.secret, &[KeyRequest { kind: KeyKind::ToDense, gadget: wide }]).unwrap();
    let key = keys.iter().next().unwrap();
    let words = key.masked_half(b.backend.as_ref()).unwrap();
    let request = KeyRequest { kind: KeyKind::ToSparse, gadget: wide };
    let read = KeySwitchKey::from_parts(params, b.backend.as_ref(), b.secret.tag(), request, *key.seed(), &words);
    assert!(matches!(read, Err(CkksError::Params(ParamsError::SparseModulus { .. }))));
    let plain = Bench::new("insecure-toy");
    let error = plain.evaluator(&[]).mod_raise(&plain.encrypt(&plain.values(1, 1), Level(0))).unwrap_err();
    assert!(matches!(error, CkksError::Params(ParamsError::NoBootstrap { .. })), "{error}");
}

//! Wrong inputs give typed errors with the numbers in them.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens::backend::HornerStep;
use cipherlens::ckks::*;
use std::sync::Arc;
use support::*;

use cipherlens_testkit::ckks as support;

#[test]
fn operations_refuse_what_does_not_fit() {
    let b = Bench::new("insecure-toy");
    let e = b.evaluator(&[b.galois(1, Level(0)..=Level(2), 2)]);
    let x = b.values(2, 1);
    let at = |level: usize| b.encrypt(&x, Level(level));
    let (three, two, zero) = (at(3), at(2), at(0));
    assert!(matches!(e.add(&three, &two), Err(CkksError::LevelMismatch { op: "add", expected: Level(3), found: Level(2) })));
    assert!(matches!(e.drop_to(&two, Level(3)), Err(CkksError::LevelMismatch { .. })));
    assert!(matches!(e.rescale(&zero), Err(CkksError::LevelsExhausted { level: Level(0), needed: 1, .. })));
    let one = b.encrypt(&x[..1], Level(3));
    assert!(matches!(e.sub(&three, &one), Err(CkksError::ShardMismatch { expected: 2, found: 1, .. })));
    let off = Scale(b.params.scale(Level(3)).0 * 1.001);
    let off = b.encoder.encode_shards(&x, off, b.params.window(Level(3)), PlainForm::Plain).unwrap();
    assert!(matches!(e.add(&three, &b.encryptor.encrypt(&b.secret, &off).unwrap()), Err(CkksError::ScaleMismatch { .. })));
    assert!(matches!(e.add_plain(&three, &off), Err(CkksError::ScaleMismatch { .. })));

    let plain = b.plain(&x, Level(3), PlainForm::Plain);
    assert!(matches!(e.mul_plain(&three, &plain), Err(CkksError::FormMismatch { expected: "Montgomery", .. })));
    assert!(matches!(e.add_plain(&two, &plain), Err(CkksError::BasisMismatch { .. })));
    let weights = b.plain(&x, Level(3), PlainForm::Montgomery);
    assert!(matches!(e.add_plain(&three, &weights), Err(CkksError::FormMismatch { expected: "plain", .. })));
    assert!(matches!(b.encryptor.encrypt(&b.secret, &weights), Err(CkksError::FormMismatch { .. })));
    let five = b.plain(&b.values(5, 1), Level(3), PlainForm::Montgomery);
    assert!(matches!(e.mul_plain(&three, &five), Err(CkksError::ShardMismatch { expected: 2, found: 5, .. })));
    let low = b.plain(&x, Level(0), PlainForm::Montgomery);
    assert!(matches!(e.mul_plain(&zero, &low), Err(CkksError::LevelsExhausted { .. })));
    assert!(matches!(e.square(&zero), Err(CkksError::LevelsExhausted { .. })));

    match e.rotate(&three, 2).unwrap_err() {
        CkksError::MissingKey { kind: KeyKind::Galois(25), level: Level(3), have } => {
            assert!(have.contains("Galois 5"), "{have}")
        }
        other => panic!("{other}"),
    }
    match e.rotate(&three, 1).unwrap_err() {
        CkksError::MissingKey { kind: KeyKind::Galois(5), have, .. } => assert!(have.contains("limbs"), "{have}"),
        other => panic!("{other}"),
    }
    assert!(matches!(e.square(&three), Err(CkksError::MissingKey { kind: KeyKind::Relin, .. })));
    let gadget = b.params.gadget(Level(0)..=Level(1), 1).unwrap();
    assert!(matches!(e.mod_up(&three, gadget), Err(CkksError::Params(ParamsError::GadgetRange { .. }))));
    let wide = b.params.gadget(Level(0)..=Level(2), 2).unwrap();
    let digits = e.mod_up(&two, wide).unwrap();
    assert!(matches!(e.rotate_digits(&digits, &three, 1), Err(CkksError::LevelMismatch { .. })));
    assert!(matches!(e.rotate_digits(&digits, &two, 2), Err(CkksError::MissingKey { .. })));
    let other = e.lift_first(&two, b.params.gadget(Level(0)..=Level(2), 1).unwrap()).unwrap();
    assert!(matches!(e.rotate_digits_extended(&digits, &other, 1), Err(CkksError::GadgetMismatch { .. })));
}

#[test]
fn values_of_other_keys_and_parameters_are_refused() {
    let b = Bench::new("insecure-toy");
    let other = Bench::new("insecure-small");
    let x = b.values(1, 1);
    let ct = b.encrypt(&x, Level(2));
    let stranger = b.generator.secret_key().unwrap();
    assert!(matches!(b.decryptor.decrypt_real(&stranger, &ct), Err(CkksError::KeyMismatch { .. })));
    let foreign = b.encryptor.encrypt(&stranger, &b.plain(&x, Level(2), PlainForm::Plain)).unwrap();
    let e = b.evaluator(&[b.galois(1, Level(0)..=Level(2), 2), b.relin()]);
    assert!(matches!(e.add(&ct, &foreign), Err(CkksError::KeyMismatch { .. })));
    assert!(matches!(e.rotate(&foreign, 1), Err(CkksError::KeyMismatch { .. })));
    assert!(matches!(e.square(&foreign), Err(CkksError::KeyMismatch { .. })));
    let small = other.encrypt(&other.values(1, 1), Level(2));
    assert!(matches!(e.add(&ct, &small), Err(CkksError::ParamsMismatch { .. })));
    assert!(matches!(e.negate(&small), Err(CkksError::ParamsMismatch { .. })));
    assert!(matches!(b.decryptor.decrypt_real(&b.secret, &small), Err(CkksError::ParamsMismatch { .. })));
    assert!(matches!(
        Evaluator::new(other.params.clone(), other.backend.clone(), e.keys().clone()),
        Err(CkksError::ParamsMismatch { .. })
    ));
    let mut keys = KeySet::new(other.secret.tag());
    assert!(keys.insert(b.generator.key(&b.secret, b.relin()).unwrap()).is_err());
    assert!(Arc::new(keys).is_empty());
}

/// A key's name alone does not say what its values are modulo: a secret may serve several sets.
#[test]
fn values_of_other_parameters_under_a_key_of_the_same_name_are_refused() {
    let b = Bench::new("insecure-toy");
    let literal = ParamsLiteral { sigma: 3.3, ..b.params.literal().clone() };
    let params = Params::new(literal).unwrap();
    let secret = SecretKey::from_coefficients(&params, b.secret.tag().key_id, b.secret.expose_coefficients().to_vec()).unwrap();
    let generator = KeyGenerator::new(&params, b.backend.clone(), RandomSource::insecure_seeded(SEED)).unwrap();
    let (turn, relin) = (b.galois(1, Level(0)..=Level(2), 2), b.relin());
    let keys = generator.generate(&secret, &[turn, relin]).unwrap();
    let other = Evaluator::new(params.clone(), b.backend.clone(), Arc::new(keys)).unwrap();
    let e = b.evaluator(&[turn, relin]);

    let ct = b.encrypt(&b.values(1, 1), Level(2));
    let encoder = Encoder::new(params.clone(), b.backend.clone());
    let plain = encoder.encode_real(&b.values(1, 1)[0], params.scale(Level(2)), params.window(Level(2)), PlainForm::Plain);
    let encryptor = Encryptor::new(&params, b.backend.clone(), RandomSource::insecure_seeded(SEED)).unwrap();
    let foreign = encryptor.encrypt(&secret, &plain.unwrap()).unwrap();
    let refused = |what: &str, r: Result<()>| assert!(matches!(r, Err(CkksError::ParamsMismatch { .. })), "{what}: {r:?}");

    let product = || other.tensor("tensor", &foreign, &foreign).unwrap();
    refused("relinearize", e.relinearize(product()).map(drop));
    refused("relinearize_rescale", e.relinearize_rescale(product()).map(drop));
    let digits = |e: &Evaluator, ct| (e.mod_up(ct, turn.gadget).unwrap(), e.lift_first(ct, turn.gadget).unwrap());
    let ((own, own_first), (others, others_first)) = (digits(&e, &ct), digits(&other, &foreign));
    assert!(e.rotate_digits_extended(&own, &own_first, 1).is_ok());
    refused("digits", e.rotate_digits_extended(&others, &own_first, 1).map(drop));
    refused("first halves", e.rotate_digits_extended(&own, &others_first, 1).map(drop));
    refused("both", e.rotate_digits_extended(&others, &others_first, 1).map(drop));
    refused("rotate_digits", e.rotate_digits(&others, &ct, 1).map(drop));
    let weights = e.encode_integers(&Integers::default(), Level(2)).unwrap();
    refused("rotated_inner_product", e.rotated_inner_product((&others, &ct), &[1], &weights, &[]).map(drop));
    let mut x = e.lift(&ct, turn.gadget).unwrap();
    let y = other.lift(&foreign, turn.gadget).unwrap();
    let step = HornerStep { x: &x, first: 0, plus: &y, first_plus: 0, shards: 1 };
    refused("rotate_sum_extended", e.rotate_sum_extended(&step, 1).map(drop));
    refused("add_extended_assign", e.add_extended_assign(&mut x, &y));
    let mut keys = KeySet::new(b.secret.tag());
    refused("insert", keys.insert(generator.key(&secret, turn).unwrap()));
}

#[test]
fn levels_that_there_are_not_are_refused() {
    let b = Bench::new("insecure-toy");
    let above = Level(b.params.max_level().0 + 1);
    let owner = Owner::insecure_seeded(&b.params, b.backend.clone(), SEED).unwrap();
    let e = b.evaluator(&[b.relin()]);
    let x = [vec![0.5; b.params.slots()]];
    for level in [above, Level(usize::MAX)] {
        let refused = |what: &str, r: Result<()>| {
            assert!(matches!(r, Err(CkksError::Params(ParamsError::NoSuchLevel { .. }))), "{what}: {r:?}");
        };
        refused("encrypt", owner.encrypt(level, &x).map(drop));
        refused("encrypt_seeded", owner.encrypt_seeded(level, &x).map(drop));
        refused("encode_integers", e.encode_integers(&Integers::default(), level).map(drop));
        refused("covering", e.keys().covering(&b.params, KeyKind::Relin, level).map(drop));
    }
    assert!(owner.encrypt(b.params.max_level(), &x).is_ok());
}

#[test]
fn integers_of_another_degree_are_refused() {
    let (b, other) = (Bench::new("insecure-toy"), Bench::new("insecure-small"));
    let mut integers = Integers::default();
    let ones = |_, re: &mut [f64], im: &mut [f64]| {
        re.fill(1.0);
        im.fill(0.0);
    };
    other.encoder.integers_into(&mut integers, 1, ones, Scale(1024.0), other.params.window(Level(1))).unwrap();
    let e = b.evaluator(&[]);
    assert!(matches!(e.encode_integers(&integers, Level(1)), Err(CkksError::SlotCount { .. })));
    assert!(other.evaluator(&[]).encode_integers(&integers, Level(1)).is_ok());
}

#[test]
fn scales_that_encryption_refuses() {
    let b = Bench::new("insecure-toy");
    let public = b.generator.public_key(&b.secret).unwrap();
    let zeros = vec![vec![0.0; b.params.slots()]];
    for scale in [0.5, -4.0, f64::MIN_POSITIVE] {
        let plain = b.encoder.encode_shards(&zeros, Scale(scale), b.params.window(Level(1)), PlainForm::Plain).unwrap();
        let refused =
            |what: &str, r: Result<()>| assert!(matches!(r, Err(CkksError::ScaleRange { .. })), "{what} {scale}: {r:?}");
        refused("encrypt", b.encryptor.encrypt(&b.secret, &plain).map(drop));
        refused("encrypt_seeded", b.encryptor.encrypt_seeded(&b.secret, &plain).map(drop));
        refused("encrypt_public", b.encryptor.encrypt_public(&public, &plain).map(drop));
    }
    let none: [Vec<f64>; 0] = [];
    let plain = b.encoder.encode_shards(&none, b.params.scale(Level(1)), b.params.window(Level(1)), PlainForm::Plain).unwrap();
    assert!(matches!(b.encryptor.encrypt(&b.secret, &plain), Err(CkksError::Malformed { .. })));
    assert!(matches!(b.encryptor.encrypt_public(&public, &plain), Err(CkksError::Malformed { .. })));
}

#[test]
fn numbers_in_errors_are_those_that_differ() {
    let b = Bench::new("insecure-toy");
    let e = b.evaluator(&[]);
    let ct = b.encrypt(&b.values(1, 1), Level(2));
    let counts = |r: Result<()>| match r {
        Err(CkksError::ShardMismatch { expected, found, .. } | CkksError::SlotCount { expected, found }) => (expected, found),
        other => panic!("{other:?}"),
    };
    let one = Scale(1.0);
    assert_eq!(counts(e.linear_combination(&[], &[], one).map(drop)), (1, 0));
    assert_eq!(counts(e.linear_combination(&[], &[1.0], one).map(drop)), (1, 0));
    assert_eq!(counts(e.linear_combination(&[], &[1.0, 2.0], one).map(drop)), (1, 0));
    assert_eq!(counts(e.linear_combination(&[&ct], &[], one).map(drop)), (1, 0));
    assert_eq!(counts(e.linear_combination(&[&ct, &ct], &[1.0], one).map(drop)), (2, 1));
    assert_eq!(counts(PrecisionStats::compare(&[], &[]).map(drop)), (1, 0));
    assert_eq!(counts(PrecisionStats::compare(&[], &[1.0]).map(drop)), (0, 1));
    assert_eq!(counts(PrecisionStats::compare(&[1.0, 2.0], &[1.0]).map(drop)), (2, 1));

    let fill = |_: usize, re: &mut [f64], im: &mut [f64]| (re.fill(0.5), im.fill(0.0)).0;
    let (scale, basis, slots) = (b.params.scale(Level(1)), b.params.window(Level(1)), b.params.slots());
    for bad in [0, 1, 3, 2 * slots, usize::MAX] {
        let periodic = b.encoder.encode_periodic(bad, 1, fill, scale, basis, PlainForm::Montgomery);
        assert_eq!(periodic.map(drop), Err(CkksError::Period { period: bad, least: 2, slots }));
    }
    let repeated = b.encoder.encode_repeated(&[[0.5; 3]], 3, scale, basis, PlainForm::Montgomery);
    assert_eq!(repeated.map(drop), Err(CkksError::Period { period: 3, least: 1, slots }));
}

#[test]
fn the_encoder_refuses_numbers_it_cannot_hold() {
    let b = Bench::new("insecure-toy");
    let n = b.params.slots();
    let (scale, basis) = (b.params.scale(Level(1)), b.params.window(Level(1)));
    let encode = |v: &[f64]| b.encoder.encode_real(v, scale, basis, PlainForm::Plain).map(|_| ());
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut v = vec![0.5; n];
        v[7] = bad;
        match encode(&v).unwrap_err() {
            CkksError::NotFinite { vector: 0, index: 7, value } => assert!(value.is_nan() == bad.is_nan()),
            other => panic!("{other}"),
        }
        assert!(matches!(b.encoder.encode_complex(&v, &v, scale, basis, PlainForm::Plain), Err(CkksError::NotFinite { .. })));
        assert!(matches!(b.encoder.constant(bad, scale, basis), Err(CkksError::NotFinite { .. })));
    }
    match b.encoder.encode_shards(&[vec![0.0; n], vec![1e20; n]], scale, basis, PlainForm::Plain).unwrap_err() {
        CkksError::EncodingOverflow { vector: 1, log_coefficient, log_limit } => assert!(log_coefficient > log_limit),
        other => panic!("{other}"),
    }
    assert!(matches!(encode(&vec![f64::MAX; n]), Err(CkksError::EncodingOverflow { .. } | CkksError::NotFinite { .. })));
    assert!(matches!(encode(&vec![0.0; n + 1]), Err(CkksError::SlotCount { .. })));
    assert!(matches!(b.encoder.constant(1e30, scale, basis), Err(CkksError::EncodingOverflow { .. })));
    encode(&[]).unwrap();
}

#[test]
fn stored_parts_are_checked_on_load() {
    let b = Bench::new("insecure-toy");
    let request = b.galois(1, Level(0)..=Level(2), 2);
    let key = b.generator.key(&b.secret, request).unwrap();
    let half = key.masked_half(b.backend.as_ref()).unwrap();
    let load = |words: &[u32]| KeySwitchKey::from_parts(&b.params, b.backend.as_ref(), key.tag(), request, *key.seed(), words);
    let again = load(&half).unwrap();
    assert_eq!(b.backend.download(again.buffer()).unwrap(), b.backend.download(key.buffer()).unwrap());
    let mut bad = half.clone();
    bad[5] = u32::MAX;
    let modulus = b.params.tables().modulus(b.params.key_basis(&request.gadget).unwrap().limbs()[0]).value();
    let refused = CkksError::Residue { what: "key switching key", index: 5, found: u32::MAX, modulus };
    assert_eq!(load(&bad).map(drop), Err(refused.clone()));
    *bad.last_mut().unwrap() = u32::MAX;
    assert_eq!(load(&bad).map(drop), Err(refused), "the first");
    assert!(matches!(load(&half[1..]), Err(CkksError::Malformed { .. })));

    let public = b.generator.public_key(&b.secret).unwrap();
    let (seed, words) = public.parts();
    assert!(PublicKey::from_parts(&b.params, public.tag(), *seed, words.to_vec()).is_ok());
    assert!(PublicKey::from_parts(&b.params, public.tag(), *seed, words[1..].to_vec()).is_err());
    let id = b.secret.tag().key_id;
    assert!(SecretKey::from_coefficients(&b.params, id, b.secret.expose_coefficients().to_vec()).is_ok());
    assert!(SecretKey::from_coefficients(&b.params, id, vec![2; b.params.degree()]).is_err());

    let plain = b.plain(&b.values(1, 1), Level(1), PlainForm::Plain);
    let mut seeded = b.encryptor.encrypt_seeded(&b.secret, &plain).unwrap();
    seeded.words[0] = u32::MAX;
    assert!(matches!(seeded.expand(&b.params, b.backend.as_ref()), Err(CkksError::Residue { index: 0, found: u32::MAX, .. })));
    seeded.words.pop();
    assert!(seeded.expand(&b.params, b.backend.as_ref()).is_err());
    seeded.level = Level(77);
    assert!(matches!(seeded.expand(&b.params, b.backend.as_ref()), Err(CkksError::Params(ParamsError::NoSuchLevel { .. }))));
}

#[test]
fn secrets_are_not_printed() {
    let b = Bench::new("insecure-tiny");
    let printed = format!("{:?} {:?} {:?}", b.secret, b.generator, b.encryptor);
    assert!(printed.contains("redacted"));
    assert!(printed.len() < 20_000);
    assert!(!format!("{:?}", b.secret).contains("-1"));
}

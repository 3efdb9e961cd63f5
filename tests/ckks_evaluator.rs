//! Every operation of the evaluator against clear slot arithmetic.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens::backend::{BackendError, HornerStep, PlainTerm};
use cipherlens::ckks::*;
use support::*;

use cipherlens_testkit::ckks as support;

/// 36-bit scales and up, N <= 2^11: fresh noise 2^2, key switch 2^6, slots add 2^5: well below 2^-20 of a slot.
const CLOSE: f64 = 1e-6;

#[test]
fn encrypt_decrypt_symmetric_public_and_seeded() {
    for preset in ["insecure-tiny", "insecure-toy", "insecure-small"] {
        let b = Bench::new(preset);
        let public = b.generator.public_key(&b.secret).unwrap();
        for level in 0..=b.params.max_level().0 {
            let level = Level(level);
            let values = b.values(3, level.0 as u64);
            let plain = b.plain(&values, level, PlainForm::Plain);
            let seeded = b.encryptor.encrypt_seeded(&b.secret, &plain).unwrap();
            let ct = seeded.expand(&b.params, b.backend.as_ref()).unwrap();
            assert_eq!((ct.level(), ct.shards(), ct.scale()), (level, 3, b.params.scale(level)));
            assert!(worst(&b.decrypt(&ct), &values) < CLOSE);
            assert!(worst(&b.decrypt(&b.encryptor.encrypt_public(&public, &plain).unwrap()), &values) < CLOSE);
        }
    }
}

#[test]
fn additions_and_plain_products() {
    for preset in ["insecure-tiny", "insecure-toy", "insecure-small"] {
        let b = Bench::new(preset);
        let e = b.evaluator(&[]);
        for level in 1..=b.params.max_level().0 {
            let level = Level(level);
            let (x, y) = (b.values(2, 1), b.values(2, 2));
            let (cx, cy) = (b.encrypt(&x, level), b.encrypt(&y, level));
            assert!(worst(&b.decrypt(&e.add(&cx, &cy).unwrap()), &map2(&x, &y, |x, y| x + y)) < CLOSE);
            assert!(worst(&b.decrypt(&e.sub(&cx, &cy).unwrap()), &map2(&x, &y, |x, y| x - y)) < CLOSE);
            assert!(worst(&b.decrypt(&e.negate(&cx).unwrap()), &map2(&x, &x, |x, _| -x)) < CLOSE);
            let mut sum = e.duplicate(&cx).unwrap();
            e.add_assign(&mut sum, &cx).unwrap();
            assert!(worst(&b.decrypt(&sum), &map2(&x, &x, |x, _| 2.0 * x)) < CLOSE);
            let p = b.plain(&y, level, PlainForm::Plain);
            assert!(worst(&b.decrypt(&e.add_plain(&cx, &p).unwrap()), &map2(&x, &y, |x, y| x + y)) < CLOSE);
            let one = b.plain(&y[..1], level, PlainForm::Montgomery);
            let product = e.rescale(&e.mul_plain(&cx, &one).unwrap()).unwrap();
            assert_eq!((product.level(), product.scale()), (Level(level.0 - 1), b.params.scale(Level(level.0 - 1))));
            assert!(worst(&b.decrypt(&product), &map2(&x, &[y[0].clone(), y[0].clone()], |x, y| x * y)) < CLOSE);
            let each = b.plain(&y, level, PlainForm::Montgomery);
            let product = e.rescale(&e.mul_plain(&cx, &each).unwrap()).unwrap();
            assert!(worst(&b.decrypt(&product), &map2(&x, &y, |x, y| x * y)) < CLOSE);
            assert!(worst(&b.decrypt(&e.add_scalar(&cx, -0.75).unwrap()), &map2(&x, &x, |x, _| x - 0.75)) < CLOSE);
            let scaled = e.rescale(&e.mul_scalar(&cx, 1.25, b.params.scale(level)).unwrap()).unwrap();
            assert_eq!(scaled.scale(), b.params.scale(scaled.level()));
            assert!(worst(&b.decrypt(&scaled), &map2(&x, &x, |x, _| 1.25 * x)) < CLOSE);
            let triple = e.mul_scalar(&cx, -3.0, Scale(1.0)).unwrap();
            assert!(worst(&b.decrypt(&triple), &map2(&x, &x, |x, _| -3.0 * x)) < CLOSE);
            let terms = vec![
                vec![PlainTerm { plain: 0, source: 0 }, PlainTerm { plain: 1, source: 1 }],
                vec![],
                vec![PlainTerm { plain: 1, source: 0 }],
            ];
            let inner = e.rescale(&e.plain_inner_product(&cx, &each, &terms).unwrap()).unwrap();
            let dot = map2(&map2(&x[..1], &y[..1], |x, y| x * y), &map2(&x[1..], &y[1..], |x, y| x * y), |a, b| a + b);
            let want = [dot[0].clone(), vec![0.0; b.params.slots()], map2(&x[..1], &y[1..], |x, y| x * y)[0].clone()];
            assert!(worst(&b.decrypt(&inner), &want) < CLOSE);
        }
    }
}

#[test]
fn products_at_every_level_down_the_ladder() {
    for preset in ["insecure-tiny", "insecure-toy", "insecure-small"] {
        let b = Bench::new(preset);
        let e = b.evaluator(&[b.relin()]);
        let top = b.params.max_level();
        let (mut x, y) = (b.values(2, 5), b.values(2, 6));
        let mut cx = b.encrypt(&x, top);
        for level in (0..top.0).rev() {
            let cy = b.encrypt(&y, Level(level + 1));
            let product = e.rescale(&e.mul(&cx, &cy).unwrap()).unwrap();
            let merged = e.mul_rescale(&cx, &cy).unwrap();
            x = map2(&x, &y, |x, y| x * y);
            for p in [&product, &merged] {
                assert_eq!((p.level(), p.scale()), (Level(level), b.params.scale(Level(level))));
                assert!(worst(&b.decrypt(p), &x) < CLOSE, "{preset} level {level}");
            }
            let square = e.rescale(&e.square(&cy).unwrap()).unwrap();
            assert!(worst(&b.decrypt(&square), &map2(&y, &y, |y, _| y * y)) < CLOSE);
            cx = product;
        }
    }
}

#[test]
fn drop_to_lands_on_canonical_scales() {
    for preset in ["insecure-toy", "insecure-small"] {
        let b = Bench::new(preset);
        let e = b.evaluator(&[]);
        let x = b.values(2, 5);
        for from in 0..=b.params.max_level().0 {
            let ct = b.encrypt(&x, Level(from));
            for to in 0..=from {
                let low = e.drop_to(&ct, Level(to)).unwrap();
                assert_eq!((low.level(), low.scale()), (Level(to), b.params.scale(Level(to))));
                assert!(worst(&b.decrypt(&low), &x) < CLOSE, "{preset} {from} -> {to}");
                e.add(&low, &b.encrypt(&x, Level(to))).unwrap();
            }
        }
    }
}

#[test]
fn rotations_with_every_kind_of_key() {
    for preset in ["insecure-tiny", "insecure-toy", "insecure-small"] {
        let b = Bench::new(preset);
        let top = b.params.max_level();
        let n = b.params.slots() as i64;
        for alpha in 1..=b.params.special().len() {
            if b.params.gadget(Level(0)..=top, alpha).is_err() {
                continue;
            }
            let steps = [1, 5, -3, n - 1];
            let mut requests: Vec<KeyRequest> = steps.iter().map(|&k| b.galois(k, Level(0)..=top, alpha)).collect();
            requests.push(KeyRequest { kind: KeyKind::Galois(b.params.conjugation_element()), gadget: requests[0].gadget });
            let e = b.evaluator(&requests);
            for level in [0, 1, top.0 / 2, top.0] {
                let level = Level(level);
                let x = b.values(3, 7);
                let ct = b.encrypt(&x, level);
                for k in [0, 1, 5, -3, n - 1, -1, n + 1] {
                    let turned = e.rotate(&ct, k).unwrap();
                    assert!(worst(&b.decrypt(&turned), &rotated(&x, k)) < CLOSE, "{preset} alpha {alpha} {level} rotation {k}");
                }
                let many = e.rotate_many(&ct, &[5, 0, 1, -3]).unwrap();
                for (turned, k) in many.iter().zip([5, 0, 1, -3]) {
                    assert_eq!(b.words(turned), b.words(&e.rotate(&ct, k).unwrap()), "hoisted = not hoisted, bit for bit");
                }
                // Double hoisting: (rot_1 + rot_5 + id) as one sum in the extended basis.
                let gadget = requests[0].gadget;
                let digits = e.mod_up(&ct, gadget).unwrap();
                let lifted = e.lift_first(&ct, gadget).unwrap();
                let mut sum = e.rotate_digits_extended(&digits, &lifted, 1).unwrap();
                e.add_extended_assign(&mut sum, &e.rotate_digits_extended(&digits, &lifted, 5).unwrap()).unwrap();
                e.add_extended_assign(&mut sum, &e.lift(&ct, gadget).unwrap()).unwrap();
                let want = map2(&map2(&rotated(&x, 1), &rotated(&x, 5), |a, b| a + b), &x, |a, b| a + b);
                assert!(worst(&b.decrypt(&e.mod_down(&sum).unwrap()), &want) < CLOSE);
                assert_eq!(
                    b.words(&e.mod_down(&e.lift(&ct, gadget).unwrap()).unwrap()),
                    b.words(&ct),
                    "lift, mod_down: the identity"
                );
                if level > Level(0) {
                    let plan = b.params.key_switch_tables(&gadget, level).unwrap();
                    let w = b.values(1, 8);
                    let weights =
                        b.encoder.encode_shards(&w, b.params.scale(level), &plan.extended, PlainForm::Montgomery).unwrap();
                    let product = e.mod_down_rescale(&e.mul_plain_extended(&sum, &weights).unwrap()).unwrap();
                    assert_eq!(product.scale(), b.params.scale(product.level()));
                    let w3 = vec![w[0].clone(); 3];
                    assert!(worst(&b.decrypt(&product), &map2(&want, &w3, |a, w| a * w)) < CLOSE);
                }
            }
            let (re, im) = (b.values(1, 1).remove(0), b.values(1, 2).remove(0));
            let plain = b.encoder.encode_complex(&re, &im, b.params.scale(top), b.params.window(top), PlainForm::Plain).unwrap();
            let ct = e.conjugate(&b.encryptor.encrypt(&b.secret, &plain).unwrap()).unwrap();
            let (got_re, got_im) = b.decryptor.decrypt_complex(&b.secret, &ct).unwrap().remove(0);
            assert!(worst(&[got_re, got_im.iter().map(|x| -x).collect()], &[re, im]) < CLOSE);
        }
    }
}

#[test]
fn rotations_by_nothing_need_no_key() {
    let b = Bench::new("insecure-toy");
    let e = b.evaluator(&[]);
    let gadget = b.params.gadget(Level(0)..=Level(2), 2).unwrap();
    let (x, y) = (b.encrypt(&b.values(3, 1), Level(2)), b.encrypt(&b.values(3, 2), Level(2)));
    assert_eq!(b.words(&e.rotate(&x, 0).unwrap()), b.words(&x));
    let digits = e.mod_up(&x, gadget).unwrap();
    assert_eq!(b.words(&e.rotate_digits(&digits, &x, 0).unwrap()), b.words(&x));
    let (wide_x, wide_y) = (e.lift(&x, gadget).unwrap(), e.lift(&y, gadget).unwrap());
    let slots = b.params.slots() as i64;
    let step = |first, first_plus, shards| HornerStep { x: &wide_x, first, plus: &wide_y, first_plus, shards };
    for k in [0, slots, -slots] {
        let sum = e.rotate_sum_extended(&step(0, 0, 3), k).unwrap();
        assert_eq!(b.words(&e.mod_down(&sum).unwrap()), b.words(&e.add(&x, &y).unwrap()));
        let some = e.rotate_sum_extended(&step(1, 0, 2), k).unwrap();
        let [x, y] = [b.values(3, 1)[1..].to_vec(), b.values(3, 2)[..2].to_vec()];
        assert!(worst(&b.decrypt(&e.mod_down(&some).unwrap()), &map2(&x, &y, |x, y| x + y)) < CLOSE);
    }
    for (first, plus, shards) in [(2, 0, 2), (0, 1, 3), (usize::MAX, 0, 1), (0, 0, usize::MAX)] {
        let refused = e.rotate_sum_extended(&step(first, plus, shards), 0);
        assert!(matches!(refused, Err(CkksError::Backend(BackendError::Shape { .. }))), "{refused:?}");
    }
}

#[test]
fn the_smallest_covering_key_is_used() {
    let b = Bench::new("insecure-toy");
    let top = b.params.max_level();
    let wide = b.galois(1, Level(0)..=top, 2);
    let narrow = b.galois(1, Level(2)..=Level(2), 2);
    let e = b.evaluator(&[wide, narrow, narrow]);
    assert_eq!(e.keys().len(), 2);
    assert_eq!(e.keys().covering(&b.params, wide.kind, Level(2)).unwrap().gadget(), narrow.gadget);
    assert_eq!(e.keys().covering(&b.params, wide.kind, top).unwrap().gadget(), wide.gadget);
    assert_eq!(e.keys().bytes(), [wide, narrow].iter().map(|r| r.gadget.key_bytes(b.params.degree())).sum::<u64>());
    let x = b.values(1, 3);
    for level in [Level(2), top] {
        assert!(worst(&b.decrypt(&e.rotate(&b.encrypt(&x, level), 1).unwrap()), &rotated(&x, 1)) < CLOSE);
    }
}

#[test]
fn seeds_make_the_same_objects_and_fresh_ones_differ() {
    let (a, b) = (Bench::new("insecure-toy"), Bench::new("insecure-toy"));
    let requests = [a.relin(), a.galois(1, Level(0)..=Level(2), 2), a.galois(3, Level(0)..=Level(2), 2)];
    let (ka, kb) = (a.evaluator(&requests), b.evaluator(&requests));
    for (x, y) in ka.keys().iter().zip(kb.keys().iter()) {
        assert_eq!(a.backend.download(x.buffer()).unwrap(), b.backend.download(y.buffer()).unwrap());
    }
    let x = a.values(1, 1);
    let first = a.encrypt(&x, Level(1));
    assert_eq!(a.words(&first), b.words(&b.encrypt(&x, Level(1))));
    let second = a.encrypt(&x, Level(1));
    let equal = a.words(&first).iter().zip(a.words(&second)).filter(|(x, y)| **x == *y).count();
    assert!(equal < 8, "two encryptions of one message share {equal} words");
}

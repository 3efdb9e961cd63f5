//! The scheme against exact ring arithmetic on big integers, `Z[X] / (X^N + 1)`, N = 32.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens::backend::Shape;
use cipherlens::ckks::*;
use cipherlens::math::Basis;
use num_bigint::BigInt;
use support::*;

use cipherlens_testkit::ckks as support;

type Poly = Vec<BigInt>;

fn product(params: &Params, basis: &Basis) -> BigInt {
    basis.limbs().iter().map(|&l| BigInt::from(params.tables().modulus(l).value())).product()
}

fn modulo(x: &BigInt, q: &BigInt) -> BigInt {
    let r = x % q;
    if r < BigInt::from(0) { r + q } else { r }
}

fn centred(x: &BigInt, q: &BigInt) -> BigInt {
    let r = modulo(x, q);
    if &r * 2 > *q { r - q } else { r }
}

fn multiply(a: &[BigInt], b: &[BigInt]) -> Poly {
    let n = a.len();
    let mut out = vec![BigInt::from(0); n];
    for (i, a) in a.iter().enumerate() {
        for (j, b) in b.iter().enumerate() {
            if i + j < n { out[i + j] += a * b } else { out[i + j - n] -= a * b }
        }
    }
    out
}

fn add(a: &[BigInt], b: &[BigInt]) -> Poly {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// `X -> X^g`.
fn automorphism(a: &[BigInt], g: usize) -> Poly {
    let n = a.len();
    let mut out = vec![BigInt::from(0); n];
    for (i, a) in a.iter().enumerate() {
        let e = i * g % (2 * n);
        out[e % n] = if e < n { a.clone() } else { -a.clone() };
    }
    out
}

/// Residues `[limb][N]` in coefficient domain, by the Chinese remainder theorem in its textbook form, in `[0, Q)`.
fn compose(params: &Params, basis: &Basis, residues: &[u32]) -> Poly {
    let n = params.degree();
    let q = product(params, basis);
    let mut out = vec![BigInt::from(0); n];
    for (i, &l) in basis.limbs().iter().enumerate() {
        let m = params.tables().modulus(l);
        let hat = &q / m.value();
        let inverse = m.inv(u32::try_from(modulo(&hat, &m.value().into())).unwrap());
        for (o, &r) in out.iter_mut().zip(&residues[i * n..]) {
            *o += &hat * m.mul(r, inverse);
        }
    }
    out.iter().map(|x| modulo(x, &q)).collect()
}

/// The polynomials of an NTT-domain buffer over a basis.
fn polys(b: &Bench, words: &[u32], basis: &Basis) -> Vec<Poly> {
    let n = b.params.degree();
    let count = words.len() / (basis.len() * n);
    let mut buffer = b.backend.upload(Shape::new(count, basis.len(), n), words).unwrap();
    b.backend.ntt_inverse(&mut buffer, basis).unwrap();
    b.backend.download(&buffer).unwrap().chunks(basis.len() * n).map(|p| compose(&b.params, basis, p)).collect()
}

fn halves(b: &Bench, ct: &Ciphertext) -> Vec<Poly> {
    polys(b, &b.words(ct), b.params.window(ct.level()))
}

fn secret(b: &Bench) -> Poly {
    b.secret.expose_coefficients().iter().map(|&c| BigInt::from(c)).collect()
}

/// `c0 + c1 s` modulo Q, centred, per shard.
fn phase(b: &Bench, ct: &Ciphertext) -> Vec<Poly> {
    let q = product(&b.params, b.params.window(ct.level()));
    let s = secret(b);
    halves(b, ct).chunks(2).map(|c| add(&c[0], &multiply(&c[1], &s)).iter().map(|x| centred(x, &q)).collect()).collect()
}

fn largest(a: &[BigInt]) -> f64 {
    a.iter().map(|x| x.magnitude().to_string().parse::<f64>().unwrap()).fold(0.0, f64::max)
}

/// Largest coefficient of `a - b` modulo q.
fn distance(a: &[BigInt], b: &[BigInt], q: &BigInt) -> f64 {
    largest(&a.iter().zip(b).map(|(a, b)| centred(&(a - b), q)).collect::<Vec<_>>())
}

#[test]
fn decryption_is_the_phase_and_fresh_noise_is_gaussian() {
    let b = Bench::new("insecure-tiny");
    for level in 0..=b.params.max_level().0 {
        let level = Level(level);
        let values = b.values(2, 3);
        let ct = b.encrypt(&values, level);
        let phases = phase(&b, &ct);
        let raw = b.decryptor.raw(&b.secret, &ct).unwrap();
        let basis = b.params.window(level);
        let q = product(&b.params, basis);
        let floats = b.decryptor.coefficients(&b.secret, &ct).unwrap();
        let plain = b.plain(&values, level, PlainForm::Plain);
        let messages = polys(&b, &b.backend.download(plain.buffer()).unwrap(), basis);
        for (shard, raw) in raw.chunks(basis.len() * b.params.degree()).enumerate() {
            assert_eq!(distance(&compose(&b.params, basis, raw), &phases[shard], &q), 0.0);
            let bound = sampler::Gaussian::new(b.params.sigma()).bound() as f64;
            assert!(distance(&messages[shard], &phases[shard], &q) <= bound);
            let exact: Vec<f64> = phases[shard].iter().map(|x| x.to_string().parse().unwrap()).collect();
            assert_eq!(floats[shard], exact);
        }
    }
}

#[test]
fn keys_satisfy_their_equation() {
    let b = Bench::new("insecure-tiny");
    let (params, n) = (&b.params, b.params.degree());
    let s = secret(&b);
    let g = params.galois_element(3);
    for (kind, levels) in [
        (KeyKind::Relin, Level(0)..=params.max_level()),
        (KeyKind::Galois(g), Level(0)..=params.max_level()),
        (KeyKind::Galois(g), Level(2)..=Level(2)),
        (KeyKind::Galois(params.conjugation_element()), Level(1)..=Level(3)),
    ] {
        for alpha in 1..=3 {
            let Ok(gadget) = params.gadget(levels.clone(), alpha) else { continue };
            let key = b.generator.key(&b.secret, KeyRequest { kind, gadget }).unwrap();
            let basis = params.key_basis(&gadget).unwrap();
            // Out of Montgomery form.
            let mut words = b.backend.download(key.buffer()).unwrap();
            for (i, limb) in words.chunks_mut(n).enumerate() {
                let m = params.tables().modulus(basis.limbs()[i % basis.len()]);
                limb.iter_mut().for_each(|w| *w = m.from_mont(*w));
            }
            let key = polys(&b, &words, &basis);
            let (s_in, s_out) = match kind {
                KeyKind::Relin => (multiply(&s, &s), s.clone()),
                KeyKind::ToSparse | KeyKind::ToDense => unreachable!("the sparse secret is not known outside"),
                KeyKind::Galois(g) => {
                    let inverse = (1..2 * n).step_by(2).find(|x| x * g as usize % (2 * n) == 1).unwrap();
                    (s.clone(), automorphism(&s, inverse))
                }
            };
            let q = product(params, &basis);
            let p = product(params, &params.gadget_special(&gadget));
            for k in 0..gadget.digits() {
                // P g_k as an integer modulo QP: P modulo the digit's primes, 0 modulo all others.
                let digit = product(params, &Basis::range(gadget.digit(k)));
                let rest = &q / &digit;
                let idempotent = &rest * rest.modinv(&digit).unwrap() * &p;
                let want: Poly = s_in.iter().map(|x| x * &idempotent).collect();
                let got = add(&key[2 * k], &multiply(&key[2 * k + 1], &s_out));
                assert!(distance(&got, &want, &q) <= 30.0, "{kind} {gadget} digit {k}");
            }
        }
    }
}

#[test]
fn linear_operations_are_exact() {
    let b = Bench::new("insecure-tiny");
    let e = b.evaluator(&[]);
    let level = Level(3);
    let basis = b.params.window(level);
    let q = product(&b.params, basis);
    let (x, y) = (b.encrypt(&b.values(2, 1), level), b.encrypt(&b.values(2, 2), level));
    let (px, py) = (phase(&b, &x), phase(&b, &y));
    let weights = b.plain(&b.values(1, 3), level, PlainForm::Plain);
    let w = polys(&b, &b.backend.download(weights.buffer()).unwrap(), basis).remove(0);
    let product = e.mul_plain(&x, &b.plain(&b.values(1, 3), level, PlainForm::Montgomery)).unwrap();
    let constant = (0.7 * 2f64.powi(40)).round();
    let scaled = e.mul_scalar(&x, 0.7, Scale(2f64.powi(40))).unwrap();
    for shard in 0..2 {
        assert_eq!(distance(&phase(&b, &e.add(&x, &y).unwrap())[shard], &add(&px[shard], &py[shard]), &q), 0.0);
        assert_eq!(distance(&phase(&b, &e.add_plain(&x, &weights).unwrap())[shard], &add(&px[shard], &w), &q), 0.0);
        assert_eq!(distance(&phase(&b, &product)[shard], &multiply(&px[shard], &w), &q), 0.0);
        let want: Poly = px[shard].iter().map(|x| x * constant as i64).collect();
        assert_eq!(distance(&phase(&b, &scaled)[shard], &want, &q), 0.0);
    }
}

#[test]
fn rescaling_rounds_each_half_to_the_nearest_integer() {
    let b = Bench::new("insecure-tiny");
    let e = b.evaluator(&[]);
    for from in 1..=b.params.max_level().0 {
        let x = b.encrypt(&b.values(2, 9), Level(from));
        let y = e.rescale(&x).unwrap();
        let (source, target) = (b.params.window(Level(from)), b.params.window(Level(from - 1)));
        let (incoming, dropped) = (product(&b.params, &target.minus(source)), product(&b.params, &source.minus(target)));
        let q = product(&b.params, target);
        for (x, y) in halves(&b, &x).iter().zip(halves(&b, &y)) {
            for (x, y) in x.iter().zip(&y) {
                let twice = x * &incoming * 2 + &dropped;
                let want = &twice / (&dropped * 2);
                // Distance of the quotient from a tie, in units of the divisor: ties may go either way.
                let tie = modulo(&twice, &(&dropped * 2)).min(&dropped * 2 - modulo(&twice, &(&dropped * 2)));
                let near_tie = (&tie << 19u32) < &dropped * 2;
                assert!(near_tie || centred(&(want - y), &q) == BigInt::from(0), "level {from}");
            }
        }
    }
}

#[test]
fn products_and_rotations_are_exact_up_to_key_switch_noise() {
    let b = Bench::new("insecure-tiny");
    let gadget = b.params.best_gadget(Level(0)..=b.params.max_level()).unwrap();
    let k = 5;
    let g = b.params.galois_element(k);
    let e = b.evaluator(&[KeyRequest { kind: KeyKind::Relin, gadget }, KeyRequest { kind: KeyKind::Galois(g), gadget }]);
    let model = NoiseModel::new(&b.params);
    for level in 1..=b.params.max_level().0 {
        let level = Level(level);
        let q = product(&b.params, b.params.window(level));
        let (x, y) = (b.encrypt(&b.values(1, 1), level), b.encrypt(&b.values(1, 2), level));
        let (px, py) = (phase(&b, &x).remove(0), phase(&b, &y).remove(0));
        // Only what the key switch adds; 8 deviations.
        let silent = Noisy { deviation: 0.0, scale: Scale(1.0), rms: 0.0 };
        let bound = 8.0 * model.key_switch(silent, &gadget, level).unwrap().deviation;
        assert!(distance(&phase(&b, &e.mul(&x, &y).unwrap())[0], &multiply(&px, &py), &q) < bound);
        assert!(distance(&phase(&b, &e.rotate(&x, k).unwrap())[0], &automorphism(&px, g as usize), &q) < bound);
    }
}

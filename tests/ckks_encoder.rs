//! Encoding against its definition on the slots, and its forms against each other.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on may stop")]

use cipherlens::ckks::*;
use support::*;

use cipherlens_testkit::ckks as support;

/// Value of the polynomial at `zeta^(5^j)`: the definition of slot j.
fn slot(coefficients: &[f64], j: usize) -> (f64, f64) {
    let two_n = 2 * coefficients.len();
    let power = (0..j).fold(1usize, |p, _| p * 5 % two_n);
    let angle = |k: usize| std::f64::consts::TAU * (power * k % two_n) as f64 / two_n as f64;
    coefficients.iter().enumerate().fold((0.0, 0.0), |(re, im), (k, c)| (re + c * angle(k).cos(), im + c * angle(k).sin()))
}

/// Integer coefficients of a plaintext in plain form, through decryption's composer (`(m, 0)` as a ciphertext).
fn coefficients(b: &Bench, plain: &Plaintext, level: Level) -> Vec<Vec<f64>> {
    let zero = b.backend.alloc(plain.buffer().shape()).unwrap();
    let mut parts = Vec::new();
    for i in 0..plain.polys() {
        let one = cipherlens::backend::PolySelect { first: i, stride: 1, count: 1 };
        parts.push(b.backend.select(plain.buffer(), one).unwrap());
        parts.push(b.backend.select(&zero, one).unwrap());
    }
    let both = b.backend.concat(&parts.iter().collect::<Vec<_>>()).unwrap();
    let ct = Ciphertext::from_parts(&b.params, both, level, plain.scale(), b.secret.tag()).unwrap();
    b.decryptor.coefficients(&b.secret, &ct).unwrap().to_vec()
}

#[test]
fn slots_of_encoded_vectors_are_the_vectors() {
    for preset in ["insecure-tiny", "insecure-toy"] {
        let b = Bench::new(preset);
        let level = b.params.max_level();
        for count in [1, 2, 3, 5] {
            let values = b.values(count, count as u64);
            let plain = b.plain(&values, level, PlainForm::Plain);
            for (v, m) in values.iter().zip(coefficients(&b, &plain, level)) {
                assert!(m.iter().all(|c| c.fract() == 0.0));
                for j in [0, 1, 2, b.params.slots() / 2, b.params.slots() - 1] {
                    let (re, im) = slot(&m, j);
                    let scale = plain.scale().0;
                    // Rounding: sqrt(N/24) units as a rule, N/2 at most.
                    let close = b.params.degree() as f64 / scale;
                    assert!((re / scale - v[j]).abs() < close && (im / scale).abs() < close, "{preset} slot {j}");
                }
            }
        }
    }
}

#[test]
fn batches_equal_single_vectors_bit_for_bit() {
    let b = Bench::new("insecure-toy");
    let level = Level(3);
    let (scale, basis) = (b.params.scale(level), b.params.window(level));
    // A partner must not leak into its pair: encode a vector beside zeros, itself and a huge one. The transform mixes both
    // in floating point, so equality is up to one unit in rounding, and exact for equal partners.
    let v = b.values(1, 5).remove(0);
    let single = coefficients(&b, &b.encoder.encode_real(&v, scale, basis, PlainForm::Plain).unwrap(), level).remove(0);
    for partner in [vec![0.0; v.len()], v.clone(), v.iter().map(|x| x * 100.0).collect()] {
        let pair = b.encoder.encode_shards(&[v.clone(), partner], scale, basis, PlainForm::Plain).unwrap();
        let got = coefficients(&b, &pair, level).remove(0);
        assert!(single.iter().zip(&got).all(|(a, b)| (a - b).abs() <= 1.0));
    }
    let zeros = vec![0.0; v.len()];
    let complex = b.encoder.encode_complex(&v, &zeros, scale, basis, PlainForm::Plain).unwrap();
    let got = coefficients(&b, &complex, level).remove(0);
    assert!(single.iter().zip(&got).all(|(a, b)| (a - b).abs() <= 1.0));
    let twice = b.encoder.encode_real(&v, scale, basis, PlainForm::Plain).unwrap();
    assert_eq!(coefficients(&b, &twice, level).remove(0), single, "the same call gives the same bits");
}

#[test]
fn montgomery_form_is_the_plain_form_times_two_to_the_32() {
    let b = Bench::new("insecure-small");
    // Scales through all three reduction paths, under a modulus that holds them.
    for bits in [30.0, 48.0, 60.0, 79.0, 100.0] {
        let level = Level(4);
        let (scale, basis) = (Scale::from_log2(bits), b.params.window(level));
        let values = b.values(3, 11);
        let words = |form| {
            let plain = b.encoder.encode_shards(&values, scale, basis, form).unwrap();
            b.backend.download(plain.buffer()).unwrap()
        };
        let (plain, montgomery) = (words(PlainForm::Plain), words(PlainForm::Montgomery));
        let n = b.params.degree();
        for (i, (p, m)) in plain.chunks(n).zip(montgomery.chunks(n)).enumerate() {
            let modulus = b.params.tables().modulus(basis.limbs()[i % basis.len()]);
            assert!(p.iter().zip(m).all(|(&p, &m)| modulus.to_mont(p) == m), "2^{bits} limb {i}");
        }
    }
}

#[test]
fn complex_vectors_and_short_ones_come_back() {
    let b = Bench::new("insecure-toy");
    let level = Level(2);
    let (scale, basis) = (b.params.scale(level), b.params.window(level));
    let v = b.values(2, 8);
    let plain = b.encoder.encode_complex(&v[0], &v[1], scale, basis, PlainForm::Plain).unwrap();
    let (re, im) = b.encoder.decode_complex(&coefficients(&b, &plain, level)[0], scale).unwrap();
    assert!(worst(&[re, im], &v) < 1e-8);
    let short = b.encoder.encode_real(&[1.0, -2.0], scale, basis, PlainForm::Plain).unwrap();
    let mut want = vec![0.0; b.params.slots()];
    want[..2].copy_from_slice(&[1.0, -2.0]);
    let got = b.encoder.decode_real(&coefficients(&b, &short, level)[0], scale).unwrap();
    assert!(worst(&[got], &[want]) < 1e-8);
}

/// A vector with a period, at its own size, is the vector over all slots: each word stands for as many equal ones.
#[test]
fn periodic_vectors_equal_repeated_ones() {
    let bench = Bench::new("insecure-toy");
    let (params, n) = (&bench.params, bench.params.slots());
    let level = Level(5);
    let (scale, basis) = (params.scale(level), params.window(level));
    for period in [2, 4, 64, n] {
        for form in [PlainForm::Plain, PlainForm::Montgomery] {
            let (a, b) = (bench.values(3, 11), bench.values(3, 12));
            let fill = |i: usize, re: &mut [f64], im: &mut [f64]| {
                re.copy_from_slice(&a[i][..period]);
                im.copy_from_slice(&b[i][..period]);
            };
            let short = bench.encoder.encode_periodic(period, 3, fill, scale, basis, form).unwrap();
            assert_eq!(short.buffer().shape().degree, 2 * period);
            let short = bench.backend.download(short.buffer()).unwrap();
            for i in 0..3 {
                let repeat = |v: &[f64]| v[..period].iter().copied().cycle().take(n).collect::<Vec<_>>();
                let long = bench.encoder.encode_complex(&repeat(&a[i]), &repeat(&b[i]), scale, basis, form).unwrap();
                let long = bench.backend.download(long.buffer()).unwrap();
                let words = &short[i * basis.len() * 2 * period..][..basis.len() * 2 * period];
                let spread: Vec<u32> = words.iter().flat_map(|&w| std::iter::repeat_n(w, n / period)).collect();
                assert!(spread == long, "period {period} vector {i} {form:?}");
            }
        }
    }
    let nothing = |_: usize, _: &mut [f64], _: &mut [f64]| {};
    for period in [0, 1, 3, 2 * n] {
        assert!(bench.encoder.encode_periodic(period, 1, nothing, scale, basis, PlainForm::Plain).is_err());
    }
}

//! Every CPU kernel against its definition, bit for bit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use cipherlens::backend::cpu::{CpuBackend, Isa};
use cipherlens::backend::{
    Backend, BackendError, Buffer, HornerStep, Kernels, KeyRotation, KeySwitchTables, PlainTerm, PolySelect, Shape,
};
use cipherlens::math::{BaseConversion, Basis, BasisChange, LimbId, RnsTables, naive};
use cipherlens_testkit::kernels::{FILLS, Fill, gadget, rng, tables, words};
use num_bigint::BigInt;
use rand::RngExt;
use std::sync::Arc;

fn backends(tables: &Arc<RnsTables>) -> Vec<CpuBackend> {
    Isa::available().into_iter().map(|isa| CpuBackend::with_isa(tables.clone(), isa)).collect()
}

fn upload(backend: &CpuBackend, polys: usize, limbs: usize, words: &[u32]) -> Buffer {
    backend.upload(Shape::new(polys, limbs, backend.tables().degree()), words).unwrap()
}

/// Runs `f` over every limb of the words: `f(limb id, words of it) -> words`.
fn by_limb(tables: &RnsTables, basis: &Basis, words: &[u32], f: impl Fn(LimbId, &[u32]) -> Vec<u32>) -> Vec<u32> {
    words.chunks(tables.degree()).enumerate().flat_map(|(i, limb)| f(basis.limbs()[i % basis.len()], limb)).collect()
}

fn zip_limbs(tables: &RnsTables, basis: &Basis, a: &[u32], b: &[u32], f: impl Fn(LimbId, u32, u32) -> u32) -> Vec<u32> {
    a.iter().zip(b).enumerate().map(|(i, (&x, &y))| f(basis.limbs()[i / tables.degree() % basis.len()], x, y)).collect()
}

#[test]
fn transforms_equal_their_definitions() {
    let mut rng = rng(1);
    for log_n in 4..=9 {
        let t = tables(log_n, 2, 2, 1);
        let basis = Basis::range(0..t.len());
        for backend in backends(&t) {
            for fill in FILLS {
                let a = words(&t, &basis, 2, fill, &mut rng);
                let mut buffer = upload(&backend, 2, t.len(), &a);
                backend.ntt_forward(&mut buffer, &basis).unwrap();
                let want = by_limb(&t, &basis, &a, |l, x| naive::ntt_forward(x, t.ntt(l)));
                assert_eq!(backend.download(&buffer).unwrap(), want, "{} forward 2^{log_n} {fill:?}", backend.name());
                let mut buffer = upload(&backend, 2, t.len(), &a);
                backend.ntt_inverse(&mut buffer, &basis).unwrap();
                let want = by_limb(&t, &basis, &a, |l, x| naive::ntt_inverse(x, t.ntt(l)));
                assert_eq!(backend.download(&buffer).unwrap(), want, "{} inverse 2^{log_n} {fill:?}", backend.name());
            }
        }
    }
}

#[test]
fn the_transform_turns_negacyclic_products_into_products() {
    let mut rng = rng(2);
    let t = tables(7, 1, 1, 1);
    let basis = Basis::range(0..3);
    let (a, b) = (words(&t, &basis, 1, Fill::Random, &mut rng), words(&t, &basis, 1, Fill::Largest, &mut rng));
    let transform = |x: &[u32]| by_limb(&t, &basis, x, |l, x| naive::ntt_forward(x, t.ntt(l)));
    for ((i, x), y) in a.chunks(128).enumerate().zip(b.chunks(128)) {
        let m = t.modulus(LimbId(i as u16));
        let want = naive::ntt_forward(&naive::negacyclic_product(x, y, m), t.ntt(LimbId(i as u16)));
        let (fa, fb) = (transform(&a), transform(&b));
        let got: Vec<_> = (0..128).map(|c| m.mul(fa[i * 128 + c], fb[i * 128 + c])).collect();
        assert_eq!(got, want);
    }
}

#[test]
fn automorphisms_equal_their_definition() {
    let mut rng = rng(3);
    for log_n in 4..=8 {
        let t = tables(log_n, 1, 1, 1);
        let basis = Basis::range(0..3);
        let a = words(&t, &basis, 2, Fill::Random, &mut rng);
        let values = by_limb(&t, &basis, &a, |l, x| naive::ntt_forward(x, t.ntt(l)));
        let two_n = 2u32 << log_n;
        for backend in backends(&t) {
            let buffer = upload(&backend, 2, 3, &values);
            for galois in [1, 3, 5, 25, 2 * rng.random_range(0..two_n / 2) + 1, two_n - 1] {
                let galois = galois % two_n;
                let got = backend.download(&backend.automorphism(&buffer, galois, &basis).unwrap()).unwrap();
                let want =
                    by_limb(&t, &basis, &a, |l, x| naive::ntt_forward(&naive::automorphism(x, galois, t.modulus(l)), t.ntt(l)));
                assert_eq!(got, want, "{} 2^{log_n} galois {galois}", backend.name());
            }
            for galois in [0, 2, two_n, two_n + 1] {
                let refused = backend.automorphism(&buffer, galois, &basis);
                assert!(matches!(refused, Err(BackendError::Galois { .. })));
            }
        }
    }
}

#[test]
fn elementwise_kernels_equal_their_definitions() {
    let mut rng = rng(4);
    for log_n in [4, 5, 8] {
        let t = tables(log_n, 2, 2, 1);
        let basis = Basis::range(0..5);
        for backend in backends(&t) {
            for fill in FILLS {
                let (a, b) = (words(&t, &basis, 4, fill, &mut rng), words(&t, &basis, 4, Fill::Random, &mut rng));
                let (x, y) = (upload(&backend, 4, 5, &a), upload(&backend, 4, 5, &b));
                let got = |b: Buffer| backend.download(&b).unwrap();
                let modulus = |l| *t.modulus(l);
                let sum = zip_limbs(&t, &basis, &a, &b, |l, x, y| modulus(l).add(x, y));
                assert_eq!(got(backend.add(&x, &y, &basis).unwrap()), sum);
                let mut z = backend.duplicate(&x).unwrap();
                backend.add_assign(&mut z, &y, &basis).unwrap();
                assert_eq!(got(z), sum);
                assert_eq!(
                    got(backend.sub(&x, &y, &basis).unwrap()),
                    zip_limbs(&t, &basis, &a, &b, |l, x, y| modulus(l).sub(x, y))
                );
                assert_eq!(got(backend.negate(&x, &basis).unwrap()), zip_limbs(&t, &basis, &a, &b, |l, x, _| modulus(l).neg(x)));
                let constants: Vec<_> = basis.limbs().iter().map(|&l| rng.random_range(0..t.modulus(l).value())).collect();
                assert_eq!(
                    got(backend.mul_constant(&x, &constants, &basis).unwrap()),
                    zip_limbs(&t, &basis, &a, &b, |l, x, _| modulus(l).mul(x, constants[l.index()]))
                );
                let select = PolySelect { first: 1, stride: 2, count: 2 };
                let mut z = backend.duplicate(&x).unwrap();
                backend.add_constant_assign(&mut z, select, &constants, &basis).unwrap();
                let size = 5 * t.degree();
                let mut want = a.clone();
                for (p, poly) in want.chunks_mut(size).enumerate().filter(|(p, _)| p % 2 == 1) {
                    let added =
                        zip_limbs(&t, &basis, &a[p * size..][..size], &b, |l, x, _| modulus(l).add(x, constants[l.index()]));
                    poly.copy_from_slice(&added);
                }
                assert_eq!(got(z), want);
                let one = upload(&backend, 1, 5, &b[..size]);
                let mut z = backend.duplicate(&x).unwrap();
                backend.add_plain_assign(&mut z, select, &one, &basis).unwrap();
                let mut want = a.clone();
                for (p, poly) in want.chunks_mut(size).enumerate().filter(|(p, _)| p % 2 == 1) {
                    poly.copy_from_slice(&zip_limbs(&t, &basis, &a[p * size..][..size], &b, |l, x, y| modulus(l).add(x, y)));
                }
                assert_eq!(got(z), want);
                let product = backend.mul_plain(&x, &one, &basis).unwrap();
                let repeated: Vec<_> = (0..4).flat_map(|_| b[..size].to_vec()).collect();
                assert_eq!(got(product), zip_limbs(&t, &basis, &a, &repeated, |l, x, y| modulus(l).mul_mont(x, y)));

                let mut want = Vec::new();
                for s in 0..2 {
                    let (a0, a1) = a[2 * s * size..][..2 * size].split_at(size);
                    let (b0, b1) = b[2 * s * size..][..2 * size].split_at(size);
                    let mul = |a: &[u32], b: &[u32]| zip_limbs(&t, &basis, a, b, |l, x, y| modulus(l).mul(x, y));
                    want.extend(mul(a0, b0));
                    want.extend(zip_limbs(&t, &basis, &mul(a0, b1), &mul(a1, b0), |l, x, y| modulus(l).add(x, y)));
                    want.extend(mul(a1, b1));
                }
                assert_eq!(got(backend.tensor(&x, &y, &basis).unwrap()), want);

                assert_eq!(got(backend.select(&x, select).unwrap()), [&a[size..2 * size], &a[3 * size..]].concat());
                assert_eq!(got(backend.concat(&[&one, &x]).unwrap()), [&b[..size], &a].concat());
            }
        }
    }
}

#[test]
fn plain_inner_product_equals_its_definition() {
    let mut rng = rng(5);
    for (log_n, plains) in [(4, 3), (6, 40)] {
        let t = tables(log_n, 1, 2, 0);
        let basis = Basis::range(0..3);
        let size = 3 * t.degree();
        for backend in backends(&t) {
            for fill in FILLS {
                let (a, b) = (words(&t, &basis, 6, fill, &mut rng), words(&t, &basis, plains, fill, &mut rng));
                let (x, y) = (upload(&backend, 6, 3, &a), upload(&backend, plains, 3, &b));
                let terms: Vec<Vec<PlainTerm>> = [0, 1, 2, 15, 16, 17, 33, 48]
                    .iter()
                    .map(|&k| {
                        (0..k).map(|_| PlainTerm { plain: rng.random_range(0..plains), source: rng.random_range(0..3) }).collect()
                    })
                    .collect();
                let got = backend.download(&backend.plain_inner_product(&x, &y, &terms, &basis).unwrap()).unwrap();
                let mut want = vec![0; terms.len() * 2 * size];
                for (p, poly) in want.chunks_mut(size).enumerate() {
                    for term in &terms[p / 2] {
                        let (a, b) = (&a[(2 * term.source + p % 2) * size..][..size], &b[term.plain * size..][..size]);
                        for (c, v) in poly.iter_mut().enumerate() {
                            let m = t.modulus(basis.limbs()[c / t.degree()]);
                            *v = m.add(*v, m.mul_mont(a[c], b[c]));
                        }
                    }
                }
                assert_eq!(got, want, "{} {fill:?}", backend.name());
            }
        }
    }
}

#[test]
fn plaintexts_of_a_lower_degree_are_spread_out() {
    let mut rng = rng(15);
    for (log_n, plains) in [(4, 3), (12, 20)] {
        let t = tables(log_n, 1, 2, 0);
        let basis = Basis::range(0..3);
        for backend in backends(&t) {
            for fill in FILLS {
                let x = upload(&backend, 4, 3, &words(&t, &basis, 4, fill, &mut rng));
                let b = words(&t, &basis, plains, fill, &mut rng);
                let terms: Vec<Vec<PlainTerm>> = [0, 1, 17, 33]
                    .iter()
                    .map(|&k| {
                        (0..k).map(|_| PlainTerm { plain: rng.random_range(0..plains), source: rng.random_range(0..2) }).collect()
                    })
                    .collect();
                for degree in [1, t.degree() / 4, t.degree() / 2, t.degree()] {
                    let short: Vec<u32> = b.chunks(t.degree()).flat_map(|limb| limb[..degree].to_vec()).collect();
                    let spread: Vec<u32> =
                        short.iter().flat_map(|&word| std::iter::repeat_n(word, t.degree() / degree)).collect();
                    let short = backend.upload(Shape::new(plains, 3, degree), &short).unwrap();
                    let got = backend.plain_inner_product(&x, &short, &terms, &basis).unwrap();
                    let want = backend.plain_inner_product(&x, &upload(&backend, plains, 3, &spread), &terms, &basis).unwrap();
                    let (got, want) = (backend.download(&got).unwrap(), backend.download(&want).unwrap());
                    assert_eq!(got, want, "{} degree {degree} {fill:?}", backend.name());
                }
                let odd = backend.upload(Shape::new(1, 3, 3), &[0; 9]).unwrap();
                assert!(backend.plain_inner_product(&x, &odd, &terms, &basis).is_err());
            }
        }
    }
}

#[test]
fn base_conversion_equals_its_definition_and_the_integers() {
    let mut rng = rng(6);
    for (log_n, small, main) in [(4, 1, 0), (4, 2, 3), (5, 0, 16), (4, 3, 18), (6, 0, 33)] {
        let t = tables(log_n, small, main, 5);
        let count = small + main;
        let (from, to) = (Basis::range(0..count), Basis::range(count..t.len()));
        let n = t.degree();
        for factor in [1u32, 12345] {
            let c = BaseConversion::new(&t, &from, &to, |_| factor);
            for fill in FILLS {
                let a = words(&t, &from, 3, fill, &mut rng);
                let want: Vec<u32> = a.chunks(count * n).flat_map(|p| naive::base_convert(p, &t, &c)).collect();
                for backend in backends(&t) {
                    let got = backend.base_convert(&upload(&backend, 3, count, &a), &c).unwrap();
                    assert_eq!(backend.download(&got).unwrap(), want, "{} {count} limbs {fill:?}", backend.name());
                }
                // The first polynomial over the integers: the centred representative, exactly.
                let product: BigInt = from.limbs().iter().map(|&l| BigInt::from(t.modulus(l).value())).product();
                for k in 0..n {
                    let mut value = BigInt::from(0);
                    for (i, &l) in from.limbs().iter().enumerate() {
                        let m = t.modulus(l);
                        let hat = &product / m.value();
                        let hat_mod = u32::try_from(&hat % m.value()).unwrap();
                        value += hat * m.mul(m.mul(a[i * n + k], factor % m.value()), m.inv(hat_mod));
                    }
                    value %= &product;
                    if &value * 2 >= product {
                        value -= &product;
                    }
                    for (j, &l) in to.limbs().iter().enumerate() {
                        let q = BigInt::from(t.modulus(l).value());
                        assert_eq!(BigInt::from(want[j * n + k]), ((&value % &q) + &q) % &q);
                    }
                }
            }
        }
    }
}

#[test]
fn basis_changes_equal_their_definition_and_round() {
    let mut rng = rng(7);
    // (source, target): mod_down, rescale by two, rescale with terminal primes coming back, both merged.
    for (small, source, target) in [(3, 0..12, 0..7), (3, 3..9, 3..7), (3, 3..9, 1..6), (3, 3..14, 0..4), (3, 3..9, 3..9)] {
        for log_n in [4, 6] {
            let t = tables(log_n, small, 6, 5);
            let (from, to) = (Basis::range(source.clone()), Basis::range(target.clone()));
            let change = BasisChange::new(&t, &from, &to);
            let n = t.degree();
            for fill in FILLS {
                let a = words(&t, &from, 2, fill, &mut rng);
                let values = by_limb(&t, &from, &a, |l, x| naive::ntt_forward(x, t.ntt(l)));
                let coefficients: Vec<u32> = a.chunks(from.len() * n).flat_map(|p| naive::change_basis(p, &t, &change)).collect();
                let want = by_limb(&t, &to, &coefficients, |l, x| naive::ntt_forward(x, t.ntt(l)));
                for backend in backends(&t) {
                    let got = backend.change_basis(&upload(&backend, 2, from.len(), &values), &change).unwrap();
                    assert_eq!(backend.download(&got).unwrap(), want, "{} {source:?} {target:?} {fill:?}", backend.name());
                }
            }
        }
    }
}

#[test]
fn key_switch_equals_its_definition() {
    let mut rng = rng(8);
    for (log_n, window, alpha, skipped) in [(4, 0..5, 2, 0), (5, 2..8, 3, 1), (6, 1..8, 3, 2), (4, 0..3, 4, 0)] {
        let t = tables(log_n, 3, 5, alpha);
        let plan = gadget(&t, window, alpha, skipped);
        let n = t.degree();
        let (shards, ext, digits) = (3, plan.extended.len(), plan.digits.len());
        let key_shape = Shape::new(2 * (digits + skipped), ext + skipped * alpha, n);
        for fill in FILLS {
            let a = words(&t, &plan.window, 2 * shards, fill, &mut rng);
            let values = by_limb(&t, &plan.window, &a, |l, x| naive::ntt_forward(x, t.ntt(l)));
            let mut key = vec![0; key_shape.words()];
            for poly in key.chunks_mut(key_shape.poly_words()) {
                let used = words(&t, &plan.extended, 1, fill, &mut rng);
                poly[skipped * alpha * n..].copy_from_slice(&used);
            }
            // Digits by definition, in coefficients, then transformed.
            let mut want_digits = Vec::new();
            for s in 0..shards {
                for (digit, conversion) in plan.digits.iter().zip(&plan.mod_up) {
                    let own: Vec<u32> = digit
                        .limbs()
                        .iter()
                        .flat_map(|&l| {
                            a[((2 * s + 1) * plan.window.len() + plan.window.position(l).unwrap()) * n..][..n].to_vec()
                        })
                        .collect();
                    let rest = naive::base_convert(&own, &t, conversion);
                    for &l in plan.extended.limbs() {
                        let limb = match (digit.position(l), conversion.to.position(l)) {
                            (Some(i), _) => &own[i * n..][..n],
                            (_, Some(j)) => &rest[j * n..][..n],
                            _ => unreachable!(),
                        };
                        want_digits.extend(naive::ntt_forward(limb, t.ntt(l)));
                    }
                }
            }
            let mut want_product = vec![0u32; 2 * shards * ext * n];
            for (i, v) in want_product.iter_mut().enumerate() {
                let (p, l, c) = (i / (ext * n), i / n % ext, i % n);
                let m = t.modulus(plan.extended.limbs()[l]);
                for k in 0..digits {
                    let d = want_digits[((p / 2 * digits + k) * ext + l) * n + c];
                    let w = key[((plan.key_digits[k] * 2 + p % 2) * key_shape.limbs + plan.key_limbs[l]) * n + c];
                    *v = m.add(*v, m.mul(d, m.from_mont(w)));
                }
            }
            let product = by_limb(&t, &plan.extended, &want_product, |l, x| naive::ntt_inverse(x, t.ntt(l)));
            let down: Vec<u32> = product.chunks(ext * n).flat_map(|p| naive::change_basis(p, &t, &plan.mod_down)).collect();
            let want = by_limb(&t, &plan.window, &down, |l, x| naive::ntt_forward(x, t.ntt(l)));
            for backend in backends(&t) {
                let src = upload(&backend, 2 * shards, plan.window.len(), &values);
                let key = backend.upload(key_shape, &key).unwrap();
                let select = PolySelect::second_halves(src.shape());
                let digits = backend.mod_up(&src, select, &plan).unwrap();
                assert_eq!(backend.download(&digits).unwrap(), want_digits, "{} mod_up", backend.name());
                let product = backend.key_inner_product(&digits, &key, &plan).unwrap();
                assert_eq!(backend.download(&product).unwrap(), want_product, "{} key_inner_product", backend.name());
                let switched = backend.key_switch(&src, select, &key, &plan).unwrap();
                assert_eq!(backend.download(&switched).unwrap(), want, "{} key_switch", backend.name());
            }
        }
    }
}

#[test]
fn misfits_are_typed_errors() {
    let t = tables(4, 1, 2, 1);
    let basis = Basis::range(0..3);
    for backend in backends(&t) {
        let good = backend.alloc(Shape::new(2, 3, 16)).unwrap();
        let odd = backend.alloc(Shape::new(3, 3, 16)).unwrap();
        let mut short = backend.alloc(Shape::new(2, 2, 16)).unwrap();
        let shape = |r: Result<(), BackendError>| assert!(matches!(r, Err(BackendError::Shape { .. })), "{r:?}");
        shape(backend.upload(Shape::new(1, 3, 16), &[0; 47]).map(drop));
        shape(backend.add(&good, &short, &basis).map(drop));
        shape(backend.ntt_forward(&mut short, &basis));
        shape(backend.tensor(&odd, &odd, &basis).map(drop));
        shape(backend.mul_constant(&good, &[1, 2], &basis).map(drop));
        shape(backend.mul_constant(&good, &[1, 2, u32::MAX], &basis).map(drop));
        shape(backend.select(&good, PolySelect { first: 1, stride: 1, count: 2 }).map(drop));
        shape(backend.select(&good, PolySelect { first: 1, stride: usize::MAX, count: 2 }).map(drop));
        shape(backend.concat(&[&good, &short]).map(drop));
        shape(backend.add(&good, &good, &Basis::range(2..5)).map(drop));
        let terms = [vec![PlainTerm { plain: 3, source: 0 }]];
        shape(backend.plain_inner_product(&good, &odd, &terms, &basis).map(drop));
    }
}

#[test]
fn sizes_that_overflow_are_typed_errors() {
    let t = tables(4, 1, 2, 1);
    let plan = gadget(&t, 0..3, 1, 0);
    for backend in backends(&t) {
        // As many polynomials as make the product wrap round to 0, to a few words, and to more than there is memory.
        for polys in [1 << (usize::BITS - 4), usize::MAX, usize::MAX / (3 * 16) + 1, 1 << (usize::BITS - 8)] {
            let memory = |r: Result<Buffer, BackendError>| {
                assert!(matches!(r, Err(BackendError::OutOfMemory { .. })), "{polys}: {r:?}");
            };
            memory(backend.alloc(Shape::new(polys, 3, 16)));
            memory(backend.alloc_key(Shape::new(3, polys, 16)));
            memory(backend.upload_ntt(polys, &Basis::range(0..3), &|_, _, _| unreachable!()));
        }
        let x = backend.alloc(Shape::new(2, 4, 16)).unwrap();
        let key = backend.alloc(Shape::new(6, 4, 16)).unwrap();
        let sum = |first, plus, shards| {
            let step = HornerStep { x: &x, first, plus: &x, first_plus: plus, shards };
            backend.rotate_sum(&step, KeyRotation { galois: 5, key: &key }, &plan)
        };
        assert!(sum(0, 0, 1).is_ok());
        let half = 1 << (usize::BITS - 1);
        for (first, plus, shards) in [(half, 0, 1), (0, half, 1), (0, 0, half), (0, 0, half + 1), (usize::MAX, 0, 1), (1, 0, 1)] {
            let refused = sum(first, plus, shards);
            assert!(matches!(refused, Err(BackendError::Shape { .. })), "{first} {plus} {shards}: {refused:?}");
        }
    }
}

/// Its fields are public, and kernels write digits in parallel where the plan says.
#[test]
fn plans_whose_digits_are_not_the_window_are_refused() {
    let t = tables(4, 2, 4, 2);
    let plan = || gadget(&t, 0..6, 2, 0);
    let digits = |digits: &[&[u16]]| {
        let digits: Vec<_> = digits.iter().map(|d| Basis::new(d.iter().map(|&l| LimbId(l)))).collect();
        let mod_up = digits.iter().map(|d| BaseConversion::new(&t, d, &plan().extended.minus(d), |_| 1)).collect();
        KeySwitchTables { key_digits: (0..digits.len()).collect(), digits, mod_up, ..plan() }
    };
    let refused = [
        ("a limb in two digits", digits(&[&[0, 1], &[2, 3], &[3, 4, 5]])),
        ("a limb in no digit", digits(&[&[0, 1], &[2, 3], &[4]])),
        ("a digit twice", digits(&[&[0, 1, 2], &[0, 1, 2]])),
        ("no digits", digits(&[])),
        ("a digit of a special prime", digits(&[&[0, 1], &[2, 3], &[4, 5], &[6]])),
    ];
    for backend in backends(&t) {
        let ct = backend.alloc(Shape::new(2, 6, 16)).unwrap();
        let select = PolySelect::second_halves(ct.shape());
        assert!(backend.mod_up(&ct, select, &digits(&[&[4, 5], &[0, 3], &[1, 2]])).is_ok(), "digits in any order");
        for (name, plan) in &refused {
            let key = backend.alloc(Shape::new(2 * plan.digits.len(), 8, 16)).unwrap();
            let shape = |r: Result<Buffer, BackendError>| assert!(matches!(r, Err(BackendError::Shape { .. })), "{name}: {r:?}");
            shape(backend.mod_up(&ct, select, plan));
            shape(backend.key_switch(&ct, select, &key, plan));
        }
    }
}

/// Every backend must agree with the scalar one.
fn agree(backends: &[CpuBackend], what: &str, f: impl Fn(&CpuBackend) -> Buffer) {
    let want = backends[0].download(&f(&backends[0])).unwrap();
    for backend in &backends[1..] {
        assert_eq!(backend.download(&f(backend)).unwrap(), want, "{} {what}", backend.name());
    }
}

#[test]
fn instruction_sets_agree_at_every_degree() {
    let mut rng = rng(9);
    for log_n in 4..=17 {
        let t = tables(log_n, 1, 1, 1);
        let basis = Basis::range(0..3);
        let backends = backends(&t);
        for fill in [Fill::Random, Fill::Largest] {
            let a = words(&t, &basis, 1, fill, &mut rng);
            let run = |f: &dyn Fn(&CpuBackend, &mut Buffer)| {
                agree(&backends, &format!("2^{log_n} {fill:?}"), |b| {
                    let mut x = upload(b, 1, 3, &a);
                    f(b, &mut x);
                    x
                });
            };
            run(&|b, x| b.ntt_forward(x, &basis).unwrap());
            run(&|b, x| b.ntt_inverse(x, &basis).unwrap());
            run(&|b, x| *x = b.automorphism(x, 5, &basis).unwrap());
            run(&|b, x| *x = b.automorphism(x, (2 << log_n) - 1, &basis).unwrap());
            // The round trip ties the scalar transforms, which the definitions check only at small degrees.
            let mut x = upload(&backends[0], 1, 3, &a);
            backends[0].ntt_forward(&mut x, &basis).unwrap();
            backends[0].ntt_inverse(&mut x, &basis).unwrap();
            assert_eq!(backends[0].download(&x).unwrap(), a);
        }
    }
}

#[test]
fn a_large_transform_equals_its_definition_at_some_points() {
    let mut rng = rng(10);
    for log_n in [13, 16, 17] {
        let t = tables(log_n, 0, 1, 0);
        let (basis, n) = (Basis::range(0..1), t.degree());
        let (table, m) = (t.ntt(LimbId(0)), *t.modulus(LimbId(0)));
        let a = words(&t, &basis, 1, Fill::Random, &mut rng);
        for backend in backends(&t) {
            let mut x = upload(&backend, 1, 1, &a);
            backend.ntt_forward(&mut x, &basis).unwrap();
            let got = backend.download(&x).unwrap();
            for i in [0, 1, n / 2, n - 1, rng.random_range(0..n)] {
                let point = m.pow(table.psi(), 2 * naive::bit_reverse(i, log_n) as u64 + 1);
                let want = a.iter().rev().fold(0, |acc, &c| m.add(m.mul(acc, point), c));
                assert_eq!(got[i], want, "{} 2^{log_n} index {i}", backend.name());
            }
        }
    }
}

#[test]
fn the_fused_key_switch_equals_its_parts() {
    let mut rng = rng(11);
    // Sizes where groups of limbs and batches of shards are cut, and digits straddle groups.
    for (log_n, window, alpha, shards) in [(12, 0..13, 5, 3), (13, 1..17, 3, 2), (15, 0..9, 4, 1), (10, 0..6, 20, 5)] {
        let t = tables(log_n, 3, window.end - 3, alpha);
        let plan = gadget(&t, window, alpha, 0);
        let (digits, ext) = (plan.digits.len(), plan.extended.len());
        let a = words(&t, &plan.window, 2 * shards, Fill::Random, &mut rng);
        let key = words(&t, &plan.extended, 2 * digits, Fill::Random, &mut rng);
        let backends = backends(&t);
        let run = |b: &CpuBackend, fused: bool| {
            let src = upload(b, 2 * shards, plan.window.len(), &a);
            let key = upload(b, 2 * digits, ext, &key);
            let select = PolySelect::second_halves(src.shape());
            if fused {
                return b.key_switch(&src, select, &key, &plan).unwrap();
            }
            let digits = b.mod_up(&src, select, &plan).unwrap();
            let product = b.key_inner_product(&digits, &key, &plan).unwrap();
            b.change_basis(&product, &plan.mod_down).unwrap()
        };
        agree(&backends, &format!("2^{log_n} parts"), |b| run(b, false));
        agree(&backends, &format!("2^{log_n} fused"), |b| run(b, true));
        let last = backends.last().unwrap();
        assert_eq!(last.download(&run(last, true)).unwrap(), last.download(&run(last, false)).unwrap());
        // The same bits on any number of threads, where groups and batches are cut otherwise.
        let want = last.download(&run(last, true)).unwrap();
        for threads in 1..=3 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| last.download(&run(last, true)).unwrap()), want, "{threads} threads");
            assert_eq!(pool.install(|| last.download(&run(last, false)).unwrap()), want, "{threads} threads");
        }
    }
}

//! Fused composites give the bits of their steps, on every instruction set.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use chacha20::ChaCha20Rng;
use cipherlens::{
    backend::{
        Backend, BackendError, Buffer, HoistedRotations, HornerStep, Kernels, KeyRotation, PlainTerm, PolySelect, Rotation,
        Shape,
        cpu::{CpuBackend, Isa},
        rotate_digits_by_steps, rotate_sum_by_steps, rotated_inner_product_by_steps,
    },
    ckks::{Level, presets},
    math::{Basis, RnsTables, primes::closest_primes},
};
use rand::{RngExt, SeedableRng};
use std::sync::Arc;

/// Parameter set, level, limbs a digit, shards: one digit and many, none left over and some, more shards than one batch.
const SWITCHES: [(&str, usize, usize, usize); 5] = [
    ("insecure-tiny", 4, 1, 3),
    ("insecure-toy", 8, 3, 1),
    ("insecure-toy", 5, 2, 7),
    ("insecure-toy", 0, 4, 2),
    ("insecure-deep", 14, 7, 20),
];

/// Random residues of polynomials, or the largest there are.
fn words(rng: &mut ChaCha20Rng, tables: &RnsTables, polys: usize, basis: &Basis, extreme: bool) -> Vec<u32> {
    let n = tables.degree();
    let q = |i: usize| tables.modulus(basis.limbs()[i / n % basis.len()]).value();
    (0..polys * basis.len() * n).map(|i| if extreme { q(i) - 1 } else { rng.random_range(0..q(i)) }).collect()
}

#[test]
fn encoded_inner_product_equals_upload_then_inner_product() {
    let seed = 4242;
    println!("seed {seed}");
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    // (log N, limbs, shards, terms of each output): no term, one, a piece, more than a piece, many parts, odd limbs.
    for (log_n, limbs, shards, lengths) in [
        (5, 1, 1, vec![1]),
        (10, 3, 4, vec![0, 7, 40]),
        (12, 5, 2, vec![6]),
        (13, 1, 3, vec![131]),
        (11, 7, 5, vec![12, 13, 1, 0]),
    ] {
        let mut primes = closest_primes(30.0, limbs, log_n + 1, &[]).unwrap();
        primes[0] = closest_primes(24.5, 1, log_n + 1, &primes).unwrap()[0];
        let tables = Arc::new(RnsTables::new(log_n, &primes).unwrap());
        let (n, basis) = (tables.degree(), Basis::range(0..limbs));
        let plains: usize = lengths.iter().sum::<usize>().max(1);
        let mut random = |polys: usize, extreme: bool| -> Vec<u32> {
            (0..polys * limbs * n)
                .map(|i| {
                    let q = primes[i / n % limbs];
                    if extreme { q - 1 } else { rng.random_range(0..q) }
                })
                .collect()
        };
        for extreme in [false, true] {
            let (ct, plain) = (random(2 * shards, extreme), random(plains, extreme));
            let mut next = 0;
            let terms: Vec<Vec<PlainTerm>> = lengths
                .iter()
                .map(|&len| {
                    (0..len)
                        .map(|t| {
                            next += 1;
                            PlainTerm { plain: next - 1, source: (t * 7 + 1) % shards }
                        })
                        .collect()
                })
                .collect();
            let fill = |p: usize, l: usize, out: &mut [u32]| out.copy_from_slice(&plain[(p * limbs + l) * n..][..n]);
            let mut results = Vec::new();
            for isa in Isa::available() {
                let backend = CpuBackend::with_isa(tables.clone(), isa);
                let ct = backend.upload(Shape::new(2 * shards, limbs, n), &ct).unwrap();
                let fused = backend.encoded_inner_product(&ct, plains, &fill, &terms, &basis).unwrap();
                let stored = backend.upload_ntt(plains, &basis, &fill).unwrap();
                let steps = backend.plain_inner_product(&ct, &stored, &terms, &basis).unwrap();
                assert_eq!(fused.shape(), Shape::new(2 * lengths.len(), limbs, n));
                let fused = backend.download(&fused).unwrap();
                assert!(fused == backend.download(&steps).unwrap(), "{} N = 2^{log_n} {lengths:?}", backend.name());
                results.push(fused);
            }
            assert!(results.windows(2).all(|r| r[0] == r[1]), "instruction sets differ");
        }
    }
}

#[test]
fn linear_combinations_equal_their_products_and_sums() {
    let seed = 4244;
    println!("seed {seed}");
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    for (log_n, limbs, polys, parts) in [(4, 1, 2, 1), (5, 3, 4, 3), (13, 2, 2, 19)] {
        let mut primes = closest_primes(30.0, limbs, log_n + 1, &[]).unwrap();
        primes[0] = closest_primes(24.5, 1, log_n + 1, &primes).unwrap()[0];
        let tables = Arc::new(RnsTables::new(log_n, &primes).unwrap());
        let (n, basis) = (tables.degree(), Basis::range(0..limbs));
        for extreme in [false, true] {
            let mut word = |q: u32| if extreme { q - 1 } else { rng.random_range(0..q) };
            let words: Vec<Vec<u32>> =
                (0..parts).map(|_| (0..polys * limbs * n).map(|i| word(primes[i / n % limbs])).collect()).collect();
            let constants: Vec<Vec<u32>> = (0..parts).map(|_| primes.iter().map(|&q| word(q)).collect()).collect();
            for isa in Isa::available() {
                let backend = CpuBackend::with_isa(tables.clone(), isa);
                let upload = |words: &Vec<u32>| backend.upload(Shape::new(polys, limbs, n), words).unwrap();
                let parts: Vec<Buffer> = words.iter().map(upload).collect();
                let parts: Vec<&Buffer> = parts.iter().collect();
                let got = backend.linear_combination(&parts, &constants, &basis).unwrap();
                let mut want = backend.alloc(Shape::new(polys, limbs, n)).unwrap();
                for (part, c) in parts.iter().zip(&constants) {
                    backend.add_assign(&mut want, &backend.mul_constant(part, c, &basis).unwrap(), &basis).unwrap();
                }
                assert!(backend.download(&got).unwrap() == backend.download(&want).unwrap(), "{} 2^{log_n}", backend.name());
                assert!(backend.linear_combination(&[], &[], &basis).is_err());
                assert!(backend.linear_combination(&parts, &constants[1..], &basis).is_err());
            }
        }
    }
}

#[test]
fn rotate_digits_equals_its_steps() {
    let seed = 4243;
    println!("seed {seed}");
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    for (preset, level, alpha, shards) in SWITCHES {
        let params = presets::by_name(preset).unwrap();
        let level = Level(level);
        let gadget = params.gadget(level..=level, alpha).unwrap();
        let plan = params.key_switch_tables(&gadget, level).unwrap();
        let (tables, n) = (params.tables(), params.degree());
        let mut random = |polys, basis: &Basis, extreme| words(&mut rng, tables, polys, basis, extreme);
        let digits = plan.digits.len();
        for extreme in [false, true] {
            let ct = random(2 * shards, &plan.window, extreme);
            let spread = random(shards * digits, &plan.extended, extreme);
            let keys: Vec<_> = (0..2).map(|_| random(2 * digits, &plan.extended, extreme)).collect();
            let plains = random(5, &plan.extended, extreme);
            let first_words = |count: usize| plains.chunks(n).flat_map(|limb| limb[..count].to_vec()).collect::<Vec<u32>>();
            let (short, single) = (first_words(n / 4), first_words(1));
            let lift = params.lift_change(&gadget, level).unwrap();
            let mut results = Vec::new();
            for isa in Isa::available() {
                let backend = CpuBackend::with_isa(tables.clone(), isa);
                let upload = |polys: usize, basis: &Basis, words: &[u32]| {
                    backend.upload(Shape::new(polys, basis.len(), n), words).unwrap()
                };
                let ct = upload(2 * shards, &plan.window, &ct);
                let spread = upload(shards * digits, &plan.extended, &spread);
                let keys: Vec<Buffer> = keys.iter().map(|k| upload(2 * digits, &plan.extended, k)).collect();
                let rotations = [
                    Rotation { galois: 5, key: Some(&keys[0]) },
                    Rotation { galois: 1, key: None },
                    Rotation { galois: 2 * n as u32 - 1, key: Some(&keys[1]) },
                ];
                let fused = backend.rotate_digits(&ct, &spread, &rotations, &plan).unwrap();
                let steps = rotate_digits_by_steps(&backend, &ct, &spread, &rotations, &plan).unwrap();
                assert_eq!(fused.shape(), Shape::new(6 * shards, plan.window.len(), n));
                let fused = backend.download(&fused).unwrap();
                assert!(fused == backend.download(&steps).unwrap(), "{} {preset} {level} alpha {alpha}", backend.name());
                results.push(fused);
                for (degree, plains) in [(n, &plains), (n / 4, &short), (1, &single)] {
                    let plain = backend.upload(Shape::new(5, plan.extended.len(), degree), plains).unwrap();
                    // Three rotations of all shards; an output of nothing, of one product and of many.
                    let term = |i: usize| PlainTerm { plain: i * 7 % 5, source: i * 11 % (3 * shards) };
                    let terms: Vec<Vec<PlainTerm>> = [0, 1, 33].iter().map(|&k| (0..k).map(term).collect()).collect();
                    let hoisted = HoistedRotations { ct: &ct, digits: &spread, rotations: &rotations, lift: &lift };
                    let fused = backend.rotated_inner_product(hoisted, &plan, &plain, &terms).unwrap();
                    let steps = rotated_inner_product_by_steps(&backend, hoisted, &plan, &plain, &terms).unwrap();
                    assert_eq!(fused.shape(), Shape::new(6, plan.extended.len(), n));
                    let (fused, steps) = (backend.download(&fused).unwrap(), backend.download(&steps).unwrap());
                    assert!(fused == steps, "{} {preset} {level} degree {degree}", backend.name());
                    let beyond = [vec![PlainTerm { plain: 0, source: 3 * shards }]];
                    assert!(backend.rotated_inner_product(hoisted, &plan, &plain, &beyond).is_err());
                }
                let halves = PolySelect { first: 0, stride: 2, count: shards };
                let first = backend.change_basis(&backend.select(&ct, halves).unwrap(), &lift).unwrap();
                let rotation = KeyRotation { galois: 25, key: &keys[1] };
                let alone = backend.rotate_extended(&spread, &first, rotation, &plan).unwrap();
                let mut steps = backend.key_inner_product(&spread, rotation.key, &plan).unwrap();
                backend.add_plain_assign(&mut steps, halves, &first, &plan.extended).unwrap();
                let steps = backend.automorphism(&steps, rotation.galois, &plan.extended).unwrap();
                assert!(backend.download(&alone).unwrap() == backend.download(&steps).unwrap(), "{} alone", backend.name());
                assert!(backend.rotate_extended(&spread, &ct, rotation, &plan).is_err());
                let even = [Rotation { galois: 4, key: Some(&keys[0]) }];
                assert!(matches!(backend.rotate_digits(&ct, &spread, &even, &plan), Err(BackendError::Galois { .. })));
                assert!(matches!(backend.rotate_digits(&spread, &ct, &rotations, &plan), Err(BackendError::Shape { .. })));
            }
            assert!(results.windows(2).all(|r| r[0] == r[1]), "instruction sets differ");
        }
    }
}

#[test]
fn sums_of_tensors_and_differences_equal_their_steps() {
    let seed = 4245;
    println!("seed {seed}");
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    // Pairs that fit an accumulator, that fill it, that fold it once, and more than once.
    for (log_n, limbs, shards, pairs) in [(4, 1, 1, 1), (5, 3, 2, 4), (10, 2, 3, 5), (11, 1, 1, 13)] {
        let mut primes = closest_primes(30.0, limbs, log_n + 1, &[]).unwrap();
        primes[0] = closest_primes(24.5, 1, log_n + 1, &primes).unwrap()[0];
        let tables = Arc::new(RnsTables::new(log_n, &primes).unwrap());
        let (n, basis) = (tables.degree(), Basis::range(0..limbs));
        for extreme in [false, true] {
            let mut word = |q: u32| if extreme { q - 1 } else { rng.random_range(0..q) };
            let words: Vec<Vec<u32>> =
                (0..2 * pairs).map(|_| (0..2 * shards * limbs * n).map(|i| word(primes[i / n % limbs])).collect()).collect();
            let mut results = Vec::new();
            for isa in Isa::available() {
                let backend = CpuBackend::with_isa(tables.clone(), isa);
                let upload = |words: &Vec<u32>| backend.upload(Shape::new(2 * shards, limbs, n), words).unwrap();
                let operands: Vec<Buffer> = words.iter().map(upload).collect();
                let pairs: Vec<(&Buffer, &Buffer)> = operands.chunks(2).map(|pair| (&pair[0], &pair[1])).collect();
                let got = backend.download(&backend.tensor_sum(&pairs, &basis).unwrap()).unwrap();
                let mut want = backend.alloc(Shape::new(3 * shards, limbs, n)).unwrap();
                for (a, b) in &pairs {
                    backend.add_assign(&mut want, &backend.tensor(a, b, &basis).unwrap(), &basis).unwrap();
                }
                assert!(got == backend.download(&want).unwrap(), "{} 2^{log_n}, {} pairs", backend.name(), pairs.len());
                results.push(got);
                let mut difference = backend.duplicate(pairs[0].0).unwrap();
                backend.sub_assign(&mut difference, pairs[0].1, &basis).unwrap();
                let steps = backend.sub(pairs[0].0, pairs[0].1, &basis).unwrap();
                assert!(backend.download(&difference).unwrap() == backend.download(&steps).unwrap());
                assert!(backend.tensor_sum(&[], &basis).is_err());
                assert!(backend.tensor_sum(&[(pairs[0].0, &want)], &basis).is_err());
                assert!(backend.sub_assign(&mut difference, &want, &basis).is_err());
            }
            assert!(results.windows(2).all(|r| r[0] == r[1]), "instruction sets differ");
        }
    }
}

#[test]
fn switches_in_the_extended_basis_equal_their_steps() {
    let seed = 4246;
    println!("seed {seed}");
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    for (preset, level, alpha, shards) in SWITCHES.into_iter().chain([("insecure-boot", 12, 6, 1)]) {
        let params = presets::by_name(preset).unwrap();
        let level = Level(level);
        let gadget = params.gadget(level..=level, alpha).unwrap();
        let plan = params.key_switch_tables(&gadget, level).unwrap();
        let lift = params.lift_change(&gadget, level).unwrap();
        let (tables, n) = (params.tables(), params.degree());
        let mut random = |polys, basis: &Basis, extreme| words(&mut rng, tables, polys, basis, extreme);
        for extreme in [false, true] {
            let product = random(3 * shards, &plan.window, extreme);
            // One shard more than is asked for, before and after.
            let x = random(2 * (shards + 2), &plan.extended, extreme);
            let plus = random(2 * (shards + 1), &plan.extended, extreme);
            let key = random(2 * plan.digits.len(), &plan.extended, extreme);
            for isa in Isa::available() {
                let backend = CpuBackend::with_isa(tables.clone(), isa);
                let upload = |basis: &Basis, words: &[u32]| {
                    backend.upload(Shape::new(words.len() / n / basis.len(), basis.len(), n), words).unwrap()
                };
                let (product, key) = (upload(&plan.window, &product), upload(&plan.extended, &key));
                let (x, plus) = (upload(&plan.extended, &x), upload(&plan.extended, &plus));
                let what = format!("{} {preset} {level} alpha {alpha}", backend.name());
                let equal = |fused: &Buffer, steps: &Buffer| {
                    assert_eq!(fused.shape(), steps.shape());
                    assert!(backend.download(fused).unwrap() == backend.download(steps).unwrap(), "{what}");
                };

                let fused = backend.relinearize_extended(&product, &key, &lift, &plan).unwrap();
                let third = |first: usize| PolySelect { first, stride: 3, count: shards };
                let digits = backend.mod_up(&product, third(2), &plan).unwrap();
                let mut steps = backend.key_inner_product(&digits, &key, &plan).unwrap();
                for half in 0..2 {
                    let part = backend.change_basis(&backend.select(&product, third(half)).unwrap(), &lift).unwrap();
                    let to = PolySelect { first: half, stride: 2, count: shards };
                    backend.add_plain_assign(&mut steps, to, &part, &plan.extended).unwrap();
                }
                equal(&fused, &steps);
                assert!(backend.relinearize_extended(&x, &key, &lift, &plan).is_err());
                assert!(backend.relinearize_extended(&product, &product, &lift, &plan).is_err());

                let rotation = KeyRotation { galois: 25, key: &key };
                let step = |first, first_plus| HornerStep { x: &x, first, plus: &plus, first_plus, shards };
                let fused = backend.rotate_sum(&step(1, 1), rotation, &plan).unwrap();
                let steps = rotate_sum_by_steps(&backend, &step(1, 1), rotation, &plan).unwrap();
                equal(&fused, &steps);
                assert!(backend.rotate_sum(&step(3, 1), rotation, &plan).is_err());
                assert!(backend.rotate_sum(&step(1, 2), rotation, &plan).is_err());
                let even = KeyRotation { galois: 4, key: &key };
                assert!(matches!(backend.rotate_sum(&step(1, 1), even, &plan), Err(BackendError::Galois { .. })));

                let ct = backend.select(&product, PolySelect { first: 0, stride: 1, count: 2 * shards }).unwrap();
                let second = PolySelect::second_halves(ct.shape());
                let first = PolySelect { first: 0, ..second };
                let mut steps = backend.key_switch(&ct, second, &key, &plan).unwrap();
                let sum = backend.select(&ct, first).unwrap();
                backend.add_plain_assign(&mut steps, first, &sum, &plan.window).unwrap();
                let steps = backend.automorphism(&steps, 25, &plan.window).unwrap();
                equal(&backend.rotate(&ct, rotation, &plan).unwrap(), &steps);
            }
        }
    }
}

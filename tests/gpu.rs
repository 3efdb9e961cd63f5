//! The GPU backend against the CPU's, bit for bit, in both forms of the wide product.
//!
//! Any adapter will do, software ones too. Where there is none, the tests say so and pass, unless `CIPHERLENS_REQUIRE_GPU`
//! is set, as `.ci/run` does.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use cipherlens::backend::cpu::CpuBackend;
use cipherlens::backend::{Backend, BackendError, Kernels, PlainTerm, PolySelect, Shape};
use cipherlens::math::{BaseConversion, Basis, BasisChange};
use rand::RngExt;
use support::*;

use cipherlens_testkit::gpu as support;

#[test]
fn transforms_and_automorphisms_at_every_degree() {
    let mut rng = rng(21);
    for log_n in 4..=17 {
        let t = tables(log_n, 1, 2, 0);
        let basis = Basis::range(0..3);
        let gpus = gpus(&t);
        for fill in FILLS {
            let a = words(&t, &basis, 3, fill, &mut rng);
            let x = |b: &dyn Backend| b.upload(Shape::new(3, 3, t.degree()), &a).unwrap();
            same(&gpus, &format!("forward 2^{log_n} {fill:?}"), |b| {
                let mut x = x(b);
                b.ntt_forward(&mut x, &basis).unwrap();
                x
            });
            same(&gpus, &format!("inverse 2^{log_n} {fill:?}"), |b| {
                let mut x = x(b);
                b.ntt_inverse(&mut x, &basis).unwrap();
                x
            });
            if matches!(fill, Fill::Random) {
                for galois in [1, 5, 2 * rng.random_range(0..t.degree() as u32) + 1, 2 * t.degree() as u32 - 1] {
                    same(&gpus, &format!("galois {galois} 2^{log_n}"), |b| b.automorphism(&x(b), galois, &basis).unwrap());
                }
            }
        }
    }
}

#[test]
fn elementwise_kernels() {
    let mut rng = rng(22);
    // The last size gives every kernel more than a million random words.
    for (log_n, limbs) in [(4, 5), (8, 3), (16, 4)] {
        let t = tables(log_n, 2, limbs - 2, 0);
        let basis = Basis::range(0..limbs);
        let gpus = gpus(&t);
        for fill in FILLS {
            let a = words(&t, &basis, 4, fill, &mut rng);
            let b = words(&t, &basis, 4, if log_n == 8 { fill } else { Fill::Random }, &mut rng);
            let constants: Vec<_> = basis.limbs().iter().map(|&l| rng.random_range(0..t.modulus(l).value())).collect();
            let x = |g: &dyn Backend| g.upload(Shape::new(4, limbs, t.degree()), &a).unwrap();
            let y = |g: &dyn Backend| g.upload(Shape::new(4, limbs, t.degree()), &b).unwrap();
            let one = |g: &dyn Backend| g.upload(Shape::new(1, limbs, t.degree()), &b[..limbs * t.degree()]).unwrap();
            let select = PolySelect { first: 1, stride: 2, count: 2 };
            let is = |what| format!("{what} 2^{log_n} {fill:?}");
            same(&gpus, &is("add"), |g| g.add(&x(g), &y(g), &basis).unwrap());
            same(&gpus, &is("sub"), |g| g.sub(&x(g), &y(g), &basis).unwrap());
            same(&gpus, &is("negate"), |g| g.negate(&x(g), &basis).unwrap());
            same(&gpus, &is("mul_constant"), |g| g.mul_constant(&x(g), &constants, &basis).unwrap());
            same(&gpus, &is("tensor"), |g| g.tensor(&x(g), &y(g), &basis).unwrap());
            same(&gpus, &is("mul_plain"), |g| g.mul_plain(&x(g), &one(g), &basis).unwrap());
            same(&gpus, &is("select"), |g| g.select(&x(g), select).unwrap());
            same(&gpus, &is("concat"), |g| g.concat(&[&one(g), &x(g)]).unwrap());
            same(&gpus, &is("add_assign"), |g| {
                let mut z = g.duplicate(&x(g)).unwrap();
                g.add_assign(&mut z, &y(g), &basis).unwrap();
                z
            });
            same(&gpus, &is("add_constant_assign"), |g| {
                let mut z = x(g);
                g.add_constant_assign(&mut z, select, &constants, &basis).unwrap();
                z
            });
            same(&gpus, &is("add_plain_assign"), |g| {
                let mut z = x(g);
                g.add_plain_assign(&mut z, select, &one(g), &basis).unwrap();
                z
            });
        }
        same(&gpus, "alloc", |g| g.alloc(Shape::new(2, limbs, t.degree())).unwrap());
    }
}

#[test]
fn plain_inner_products() {
    let mut rng = rng(23);
    for (log_n, limbs, plains) in [(4, 3, 5), (14, 5, 30)] {
        let t = tables(log_n, 1, limbs - 1, 0);
        let basis = Basis::range(0..limbs);
        let gpus = gpus(&t);
        for fill in FILLS {
            let (a, b) = (words(&t, &basis, 6, fill, &mut rng), words(&t, &basis, plains, fill, &mut rng));
            let terms: Vec<Vec<PlainTerm>> = [0, 1, 2, 15, 16, 17, 33]
                .iter()
                .map(|&k| {
                    (0..k).map(|_| PlainTerm { plain: rng.random_range(0..plains), source: rng.random_range(0..3) }).collect()
                })
                .collect();
            same(&gpus, &format!("2^{log_n} {fill:?}"), |g| {
                let x = g.upload(Shape::new(6, limbs, t.degree()), &a).unwrap();
                let y = g.upload(Shape::new(plains, limbs, t.degree()), &b).unwrap();
                g.plain_inner_product(&x, &y, &terms, &basis).unwrap()
            });
            for repeat in [2, 8, t.degree()] {
                let short: Vec<u32> = b.chunks(t.degree()).flat_map(|limb| limb[..t.degree() / repeat].to_vec()).collect();
                same(&gpus, &format!("2^{log_n} repeated {repeat} {fill:?}"), |g| {
                    let x = g.upload(Shape::new(6, limbs, t.degree()), &a).unwrap();
                    let y = g.upload(Shape::new(plains, limbs, t.degree() / repeat), &short).unwrap();
                    g.plain_inner_product(&x, &y, &terms, &basis).unwrap()
                });
            }
            let fill = |p: usize, l: usize, out: &mut [u32]| {
                out.copy_from_slice(&b[(p * limbs + l) * t.degree()..][..t.degree()]);
            };
            same(&gpus, &format!("encoded 2^{log_n}"), |g| {
                let x = g.upload(Shape::new(6, limbs, t.degree()), &a).unwrap();
                g.encoded_inner_product(&x, plains, &fill, &terms, &basis).unwrap()
            });
        }
    }
}

#[test]
fn base_conversions_and_basis_changes() {
    let mut rng = rng(24);
    for (log_n, small, main) in [(4, 1, 0), (4, 2, 3), (15, 0, 16), (5, 3, 18), (13, 0, 33)] {
        let t = tables(log_n, small, main, 11);
        let count = small + main;
        let (from, to) = (Basis::range(0..count), Basis::range(count..t.len()));
        let gpus = gpus(&t);
        let conversion = BaseConversion::new(&t, &from, &to, |_| 12345);
        for fill in FILLS {
            let a = words(&t, &from, 3, fill, &mut rng);
            same(&gpus, &format!("{count} limbs 2^{log_n} {fill:?}"), |g| {
                let x = g.upload(Shape::new(3, count, t.degree()), &a).unwrap();
                g.base_convert(&x, &conversion).unwrap()
            });
        }
    }
    // mod_down, rescale by two, rescale with primes coming back, both merged, nothing dropped.
    for (source, target) in [(0..12, 0..7), (3..9, 3..7), (3..9, 1..6), (3..14, 0..4), (3..9, 3..9), (3..9, 1..9)] {
        for log_n in [4, 12, 13] {
            let t = tables(log_n, 3, 6, 5);
            let (from, to) = (Basis::range(source.clone()), Basis::range(target.clone()));
            let change = BasisChange::new(&t, &from, &to);
            let gpus = gpus(&t);
            for fill in FILLS {
                let a = words(&t, &from, 2, fill, &mut rng);
                same(&gpus, &format!("{source:?} to {target:?} 2^{log_n} {fill:?}"), |g| {
                    let x = g.upload(Shape::new(2, from.len(), t.degree()), &a).unwrap();
                    g.change_basis(&x, &change).unwrap()
                });
            }
        }
    }
}

#[test]
fn every_call_at_every_degree() {
    let mut rng = rng(25);
    for log_n in 4..=17 {
        let tables = tables(log_n, 1, 2, 1);
        let plan = gadget(&tables, 0..3, 1, 0);
        let case = Case { tables, plan, shards: 1, fill: Fill::Random };
        every_call(&gpus(&case.tables), &format!("2^{log_n}"), &case, &mut rng);
    }
}

#[test]
fn every_call_on_many_limbs_and_shards() {
    let mut rng = rng(26);
    for (log_n, window, alpha, skipped, shards) in [
        (4, 0..5, 2, 0, 3),
        (5, 2..8, 3, 1, 2),
        (12, 1..8, 3, 2, 3),
        (4, 0..3, 4, 0, 1),
        (13, 1..17, 3, 0, 2),
        // More than a million words of each result.
        (15, 0..9, 4, 0, 2),
    ] {
        let tables = tables(log_n, 3, 14, alpha);
        let plan = gadget(&tables, window, alpha, skipped);
        let case = Case { tables, plan, shards, fill: Fill::Random };
        every_call(&gpus(&case.tables), &format!("2^{log_n}, {shards} shards"), &case, &mut rng);
    }
}

#[test]
fn every_call_on_the_least_and_largest_residues() {
    let mut rng = rng(27);
    // Sums of more terms than fit between two reductions, and an odd number of limbs.
    for (log_n, window, alpha) in [(4, 0..17, 1), (8, 0..9, 4), (13, 0..5, 2)] {
        for fill in [Fill::Largest, Fill::Zero] {
            let tables = tables(log_n, 3, 14, alpha);
            let plan = gadget(&tables, window.clone(), alpha, 0);
            let case = Case { tables, plan, shards: 2, fill };
            every_call(&gpus(&case.tables), &format!("{fill:?} 2^{log_n}"), &case, &mut rng);
        }
    }
}

#[test]
fn misfits_and_faults_are_typed_errors() {
    let t = tables(4, 1, 2, 1);
    let basis = Basis::range(0..3);
    let cpu = CpuBackend::new(t.clone()).unwrap();
    for gpu in open(&t) {
        let good = gpu.alloc(Shape::new(2, 3, 16)).unwrap();
        let short = gpu.alloc(Shape::new(2, 2, 16)).unwrap();
        let other = cpu.alloc(Shape::new(2, 3, 16)).unwrap();
        let shape = |r: Result<(), BackendError>| assert!(matches!(r, Err(BackendError::Shape { .. })), "{r:?}");
        shape(gpu.upload(Shape::new(1, 3, 16), &[0; 47]).map(drop));
        shape(gpu.add(&good, &short, &basis).map(drop));
        shape(gpu.mul_constant(&good, &[1, 2, u32::MAX], &basis).map(drop));
        assert!(matches!(gpu.add(&good, &other, &basis), Err(BackendError::ForeignBuffer { .. })));
        assert!(matches!(cpu.add(&good, &other, &basis), Err(BackendError::ForeignBuffer { .. })));
        assert!(matches!(gpu.automorphism(&good, 2, &basis), Err(BackendError::Galois { .. })));
        assert!(matches!(gpu.alloc(Shape::new(usize::MAX, 3, 16)), Err(BackendError::OutOfMemory { .. })));
        assert!(matches!(gpu.alloc(Shape::new(1 << 30, 3, 16)), Err(BackendError::OutOfMemory { .. })));
        let sum = gpu.add(&good, &good, &basis).unwrap();
        gpu.destroy();
        assert!(matches!(gpu.download(&sum), Err(BackendError::Device { .. })));
        assert!(matches!(gpu.add(&good, &good, &basis), Err(BackendError::Device { .. })));
    }
}

//! The GPU backend against the CPU's, bit for bit, in both forms of the wide product.
//!
//! Any adapter will do, software ones too. Where there is none, the tests say so and pass, unless `CIPHERLENS_REQUIRE_GPU`
//! is set, as `.ci/run` does.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use cipherlens::backend::cpu::CpuBackend;
use cipherlens::backend::gpu::registry::Wide;
use cipherlens::backend::gpu::{GpuBackend, GpuOptions};
use cipherlens::backend::{Backend, BackendError, Buffer, GadgetPlan, PlainTerm, PolySelect, Rotation, Shape};
use cipherlens::math::primes::closest_primes;
use cipherlens::math::{BaseConversion, Basis, BasisChange, RnsTables};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::{Arc, OnceLock};

fn options(wide: Wide) -> GpuOptions {
    GpuOptions { software: true, wide: Some(wide), ..GpuOptions::from_env() }
}

/// One backend for each form that the adapter has, with these tables.
fn gpus(tables: &Arc<RnsTables>) -> Vec<GpuBackend> {
    static DEVICES: OnceLock<Vec<GpuBackend>> = OnceLock::new();
    DEVICES.get_or_init(|| open(tables)).iter().map(|gpu| gpu.for_tables(tables.clone()).unwrap()).collect()
}

/// The same on devices of their own.
fn open(tables: &Arc<RnsTables>) -> Vec<GpuBackend> {
    let found = cipherlens::backend::gpu::adapters();
    if found.is_empty() {
        assert!(std::env::var_os("CIPHERLENS_REQUIRE_GPU").is_none(), "no adapter");
        println!("no adapter: not tested");
        return Vec::new();
    }
    let int64 = found[0].int64;
    Wide::ALL
        .into_iter()
        .filter(|&wide| wide == Wide::U32 || int64)
        .map(|wide| GpuBackend::new(tables.clone(), &options(wide)).unwrap())
        .collect()
}

fn tables(log_n: u32, small: usize, main: usize, special: usize) -> Arc<RnsTables> {
    let mut primes = closest_primes(25.2, small, log_n + 1, &[]).unwrap();
    primes.extend(closest_primes(30.0, main, log_n + 1, &primes).unwrap());
    primes.extend(closest_primes(29.9, special, log_n + 1, &primes).unwrap());
    Arc::new(RnsTables::new(log_n, &primes).unwrap())
}

#[derive(Debug, Clone, Copy)]
enum Fill {
    Random,
    Largest,
    Zero,
}
const FILLS: [Fill; 3] = [Fill::Random, Fill::Largest, Fill::Zero];

fn words(tables: &RnsTables, basis: &Basis, polys: usize, fill: Fill, rng: &mut StdRng) -> Vec<u32> {
    let n = tables.degree();
    let mut out = Vec::with_capacity(polys * basis.len() * n);
    for _ in 0..polys {
        for &l in basis.limbs() {
            let q = tables.modulus(l).value();
            out.extend((0..n).map(|_| match fill {
                Fill::Random => rng.random_range(0..q),
                Fill::Largest => q - 1,
                Fill::Zero => 0,
            }));
        }
    }
    out
}

/// Runs a call on the CPU and on every GPU form; all must give the same words.
fn same(gpus: &[GpuBackend], what: &str, f: impl Fn(&dyn Backend) -> Buffer) {
    let Some(first) = gpus.first() else { return };
    let cpu = CpuBackend::new(first.tables().clone()).unwrap();
    let want = f(&cpu);
    let (shape, want) = (want.shape(), cpu.download(&want).unwrap());
    for gpu in gpus {
        let got = f(gpu);
        assert_eq!(got.shape(), shape, "{} {what}", gpu.name());
        let got = gpu.download(&got).unwrap();
        if let Some(at) = got.iter().zip(&want).position(|(a, b)| a != b) {
            panic!("{} {what}: word {at} of {shape:?} is {} instead of {}", gpu.name(), got[at], want[at]);
        }
    }
}

fn gadget(tables: &RnsTables, window: std::ops::Range<usize>, alpha: usize, skipped: usize) -> GadgetPlan {
    let (all, special) = (Basis::range(window), Basis::range(tables.len() - alpha..tables.len()));
    let extended = all.then(&special);
    let digits: Vec<_> = all.limbs().chunks(alpha).map(|c| Basis::new(c.iter().copied())).collect();
    GadgetPlan {
        mod_up: digits.iter().map(|d| BaseConversion::new(tables, d, &extended.minus(d), |_| 1)).collect(),
        mod_down: BasisChange::new(tables, &extended, &all),
        key_digits: (0..digits.len()).map(|k| k + skipped).collect(),
        key_limbs: (0..extended.len()).map(|l| l + skipped * alpha).collect(),
        window: all,
        special,
        extended,
        digits,
    }
}

fn rng(seed: u64) -> StdRng {
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

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
    for (log_n, limbs, plains) in [(4, 3, 5), (13, 3, 40)] {
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
    for (log_n, small, main) in [(4, 1, 0), (4, 2, 3), (14, 0, 16), (5, 3, 18), (13, 0, 33)] {
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
fn key_switches_and_their_dispatches() {
    let mut rng = rng(25);
    let own = open(&tables(4, 1, 1, 0));
    for (log_n, window, alpha, skipped) in
        [(4, 0..5, 2, 0), (5, 2..8, 3, 1), (12, 1..8, 3, 2), (4, 0..3, 4, 0), (15, 0..9, 4, 0), (13, 1..17, 3, 0)]
    {
        let t = tables(log_n, 3, 14, alpha);
        let plan = gadget(&t, window, alpha, skipped);
        let key_shape = Shape::new(2 * (plan.digits.len() + skipped), plan.extended.len() + skipped * alpha, t.degree());
        // Devices of their own: others' dispatches are not counted.
        let gpus: Vec<_> = own.iter().map(|gpu| gpu.for_tables(t.clone()).unwrap()).collect();
        let mut dispatches = Vec::new();
        for shards in [1, 3] {
            let a = words(&t, &plan.window, 2 * shards, Fill::Random, &mut rng);
            // Values below 2^24 are canonical for every prime.
            let key: Vec<u32> = (0..key_shape.words()).map(|_| rng.random_range(0..1 << 24)).collect();
            let x = |g: &dyn Backend| g.upload(Shape::new(2 * shards, plan.window.len(), t.degree()), &a).unwrap();
            let is = |what| format!("{what} 2^{log_n} {shards} shards");
            let select = PolySelect { first: 1, stride: 2, count: shards };
            same(&gpus, &is("mod_up"), |g| g.mod_up(&x(g), select, &plan).unwrap());
            same(&gpus, &is("key_inner_product"), |g| {
                let key = g.upload(key_shape, &key).unwrap();
                g.key_inner_product(&g.mod_up(&x(g), select, &plan).unwrap(), &key, &plan).unwrap()
            });
            same(&gpus, &is("rotate_digits"), |g| {
                let key = g.upload(key_shape, &key).unwrap();
                let rotation = |galois, key| Rotation { galois, key };
                let digits = g.mod_up(&x(g), select, &plan).unwrap();
                let rotations = [rotation(5, Some(&key)), rotation(1, None), rotation(25, Some(&key))];
                g.rotate_digits(&x(g), &digits, &rotations, &plan).unwrap()
            });
            let before: Vec<_> = gpus.iter().map(GpuBackend::dispatches).collect();
            same(&gpus, &is("key_switch"), |g| {
                let key = g.upload(key_shape, &key).unwrap();
                g.key_switch(&x(g), select, &key, &plan).unwrap()
            });
            dispatches.push(gpus.iter().zip(before).map(|(g, b)| g.dispatches() - b).collect::<Vec<_>>());
        }
        assert_eq!(dispatches[0], dispatches[1], "dispatches do not grow with shards");
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

#[test]
fn memory_is_refused_at_every_allocation_and_kept_within_its_limit() {
    let t = tables(8, 3, 5, 3);
    let plan = gadget(&t, 0..8, 3, 0);
    if gpus(&t).is_empty() {
        return;
    }
    let (limbs, n) = (plan.window.len(), t.degree());
    let run = |limit: u64| -> Result<(Vec<u32>, u64), BackendError> {
        let gpu = GpuBackend::new(t.clone(), &GpuOptions { memory_limit: Some(limit), ..options(Wide::U32) })?;
        let x = gpu.upload(Shape::new(2, limbs, n), &vec![7; 2 * limbs * n])?;
        let key_shape = Shape::new(2 * plan.digits.len(), plan.extended.len(), n);
        let key = gpu.upload(key_shape, &vec![5; key_shape.words()])?;
        let y = gpu.key_switch(&x, PolySelect::second_halves(x.shape()), &key, &plan)?;
        Ok((gpu.download(&y)?, gpu.peak_bytes()))
    };
    let (want, peak) = run(1 << 40).unwrap();
    let (got, _) = run(peak).unwrap();
    assert_eq!(got, want);
    let mut refused = 0;
    for limit in (0..peak).step_by((peak / 8) as usize) {
        match run(limit) {
            Ok((got, used)) => assert!(got == want && used <= limit),
            Err(BackendError::OutOfMemory { .. }) => refused += 1,
            Err(e) => panic!("{e}"),
        }
    }
    assert!(refused > 3);
}

#[test]
fn small_adapters_switch_keys_in_batches() {
    let mut rng = rng(26);
    let t = tables(10, 3, 5, 3);
    let plan = gadget(&t, 0..8, 3, 0);
    if gpus(&t).is_empty() {
        return;
    }
    let (limbs, n, shards) = (plan.window.len(), t.degree(), 10);
    let small = GpuOptions { largest_binding: Some(1 << 20), ..options(Wide::U32) };
    let gpu = GpuBackend::new(t.clone(), &small).unwrap();
    let a = words(&t, &plan.window, 2 * shards, Fill::Random, &mut rng);
    let key_shape = Shape::new(2 * plan.digits.len(), plan.extended.len(), n);
    let key = words(&t, &plan.extended, key_shape.polys, Fill::Random, &mut rng);
    let select = PolySelect { first: 1, stride: 2, count: shards };
    let x = gpu.upload(Shape::new(2 * shards, limbs, n), &a).unwrap();
    assert!(matches!(gpu.mod_up(&x, select, &plan), Err(BackendError::OutOfMemory { .. })));
    same(&[gpu], "in batches", |g| {
        let x = g.upload(Shape::new(2 * shards, limbs, n), &a).unwrap();
        g.key_switch(&x, select, &g.upload(key_shape, &key).unwrap(), &plan).unwrap()
    });
}

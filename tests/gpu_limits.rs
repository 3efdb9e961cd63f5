//! The GPU backend where there is little of something: bindings, memory, dispatches, and no device at all.
//!
//! As in `tests/gpu.rs`, without an adapter the tests say so and pass, unless `CIPHERLENS_REQUIRE_GPU` is set.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use cipherlens::backend::cpu::CpuBackend;
use cipherlens::backend::gpu::registry::Wide;
use cipherlens::backend::gpu::{GpuBackend, GpuOptions, Limits};
use cipherlens::backend::{
    Backend, BackendError, Buffer, Kernels, KeyRotation, KeySwitchTables, PolySelect, Rotation, Shape, Statistics,
};
use cipherlens::math::RnsTables;
use std::sync::Arc;
use support::*;

use cipherlens_testkit::gpu as support;

/// A device of its own with these options; none where there is no adapter.
fn gpu(tables: &Arc<RnsTables>, options: &GpuOptions) -> Option<GpuBackend> {
    if gpus(tables).is_empty() { None } else { Some(GpuBackend::new(tables.clone(), options).unwrap()) }
}

#[test]
fn buffers_larger_than_a_binding() {
    let mut rng = rng(31);
    // Keys that cannot be bound whole; and limbs so small that parts must be cut where bindings may start.
    for (log_n, limbs, skipped, shards) in [(10, 8, 1, 10), (4, 7, 0, 400)] {
        let tables = tables(log_n, 3, 5, 3);
        let plan = gadget(&tables, 0..limbs, 3, skipped);
        let options = GpuOptions { largest_binding: Some(384 << 10), ..options(Wide::U32) };
        let Some(gpu) = gpu(&tables, &options) else { return };
        let case = Case { tables, plan, shards, fill: Fill::Random };
        every_call(&[gpu], &format!("small bindings, 2^{log_n}"), &case, &mut rng);
    }
}

#[test]
fn little_memory() {
    let mut rng = rng(32);
    let tables = tables(10, 3, 5, 3);
    let plan = gadget(&tables, 0..8, 3, 0);
    let options = GpuOptions { memory_limit: Some(8 << 20), ..options(Wide::U32) };
    let Some(gpu) = gpu(&tables, &options) else { return };
    let case = Case { tables, plan, shards: 6, fill: Fill::Random };
    every_call(&[gpu], "8 MiB", &case, &mut rng);
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

/// A rotation, hoisted rotations, a key switch and a giant step of some shards.
fn rotations(g: &dyn Backend, plan: &KeySwitchTables, keys: &[Buffer], shards: usize) -> Result<Vec<Buffer>, BackendError> {
    let n = g.tables().degree();
    let x = g.alloc(Shape::new(2 * shards, plan.window.len(), n))?;
    let halves = PolySelect::second_halves(x.shape());
    let digits = g.mod_up(&x, halves, plan)?;
    let all: Vec<_> = keys.iter().enumerate().map(|(i, key)| Rotation { galois: 2 * i as u32 + 3, key: Some(key) }).collect();
    let lifted = g.alloc(Shape::new(shards, plan.extended.len(), n))?;
    let one = KeyRotation { galois: 5, key: &keys[0] };
    Ok(vec![
        g.rotate_digits(&x, &digits, &all, plan)?,
        g.key_switch(&x, halves, &keys[0], plan)?,
        g.rotate(&x, one, plan)?,
        g.rotate_extended(&digits, &lifted, one, plan)?,
    ])
}

#[test]
fn dispatches_do_not_grow_with_shards() {
    // On a dry device, as large as a real one.
    let limits = Limits { binding: 2 << 30, buffer: 8 << 30, groups: 65535, storage_buffers: 8, memory: None };
    for log_n in [12, 13, 16] {
        let tables = tables(log_n, 3, 14, 4);
        let plan = gadget(&tables, 0..12, 4, 0);
        let key_shape = Shape::new(2 * plan.digits.len(), plan.extended.len(), tables.degree());
        let count = |shards: usize| {
            let gpu = GpuBackend::dry(tables.clone(), limits, &GpuOptions::default()).unwrap();
            let keys: Vec<_> = (0..5).map(|_| gpu.alloc(key_shape).unwrap()).collect();
            rotations(&gpu, &plan, &keys, shards).unwrap();
            gpu.dispatches()
        };
        let passes = if log_n > 12 { 2 } else { 1 };
        // mod_up with its copies; five products and one division; mod_up, product, division, twice; one product.
        // A division of four limbs converts them where the first of two dispatches of a transform reads them.
        let [mod_up, divide] = [1 + 2 * passes, if passes > 1 { 2 * passes } else { 1 + 2 * passes }];
        let want = (mod_up + 1) + (5 + divide) + 2 * (mod_up + 1 + divide) + 1;
        for shards in [1, 2, 4, 16] {
            assert_eq!(count(shards), want, "2^{log_n}, {shards} shards");
        }
    }
}

#[test]
fn a_dry_device_counts_what_a_real_one_does() {
    let tables = tables(11, 3, 5, 3);
    let plan = gadget(&tables, 0..8, 3, 0);
    let Some(limits) = gpus(&tables).first().map(GpuBackend::limits) else { return };
    let run = |gpu: &GpuBackend| -> Result<Statistics, BackendError> {
        let before = gpu.statistics();
        let key_shape = Shape::new(2 * plan.digits.len(), plan.extended.len(), tables.degree());
        let keys: Vec<_> = (0..5).map(|_| gpu.alloc_key(key_shape).unwrap()).collect();
        for shards in [1, 7] {
            let made = rotations(gpu, &plan, &keys, shards)?;
            gpu.download(&made[0])?;
        }
        Ok(Statistics { allocations: 0, ..gpu.statistics() - before })
    };
    let dry = |memory_limit| {
        let options = GpuOptions { memory_limit, ..options(Wide::U32) };
        run(&GpuBackend::dry(tables.clone(), limits, &options).unwrap())
    };
    // The least memory in which it runs at all: keys must make room.
    let least = (1..64).map(|mib| mib << 20).find(|&limit| dry(Some(limit)).is_ok());
    for memory_limit in [None, least] {
        let options = GpuOptions { memory_limit, ..options(Wide::U32) };
        let Some(real) = gpu(&tables, &options) else { return };
        assert_eq!(real.limits(), limits);
        let (real, dry) = (run(&real).unwrap(), dry(memory_limit).unwrap());
        assert_eq!(real, dry);
        assert_eq!(real.key_evictions > 0, memory_limit.is_some());
        assert!(memory_limit.is_none_or(|limit| real.peak_bytes <= limit));
        println!("{real:?}");
    }
}

#[test]
fn keys_are_uploaded_once_and_again_when_they_change_or_had_to_leave() {
    let tables = tables(8, 3, 5, 3);
    let plan = gadget(&tables, 0..8, 3, 0);
    let mut rng = rng(33);
    let key_shape = Shape::new(2 * plan.digits.len(), plan.extended.len(), tables.degree());
    let cpu = CpuBackend::new(tables.clone()).unwrap();
    let x = words(&tables, &plan.window, 2, Fill::Random, &mut rng);
    let keys: Vec<_> = (0..4)
        .map(|_| cpu.upload(key_shape, &words(&tables, &plan.extended, key_shape.polys, Fill::Random, &mut rng)).unwrap())
        .collect();
    let switched = |b: &dyn Backend, key: &Buffer| {
        let x = b.upload(Shape::new(2, 8, tables.degree()), &x).unwrap();
        b.download(&b.key_switch(&x, PolySelect::second_halves(x.shape()), key, &plan).unwrap()).unwrap()
    };
    let key_bytes = key_shape.bytes() as u64;
    let Some(roomy) = gpu(&tables, &options(Wide::U32)) else { return };
    for round in 1..=2 {
        for key in &keys {
            assert_eq!(switched(&roomy, key), switched(&cpu, key));
        }
        assert_eq!(roomy.statistics().key_bytes, 4 * key_bytes, "round {round}");
    }
    let working = roomy.statistics().peak_bytes - 4 * key_bytes;
    let options = GpuOptions { memory_limit: Some(working + 3 * key_bytes), ..options(Wide::U32) };
    let Some(tight) = gpu(&tables, &options) else { return };
    for _ in 0..2 {
        for key in &keys {
            assert_eq!(switched(&tight, key), switched(&cpu, key));
        }
    }
    let found = tight.statistics();
    assert!(
        found.key_evictions > 0 && found.key_bytes > 4 * key_bytes && found.peak_bytes <= working + 3 * key_bytes,
        "{found:?}"
    );
}

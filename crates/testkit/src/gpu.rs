//! GPU backends for tests, and what they are compared on.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

pub use crate::calls::Case;
pub use crate::kernels::{FILLS, Fill, gadget, rng, tables, words};
use cipherlens::backend::cpu::CpuBackend;
use cipherlens::backend::gpu::registry::Wide;
use cipherlens::backend::gpu::{GpuBackend, GpuOptions};
use cipherlens::backend::{Backend, Buffer, Kernels};
use cipherlens::math::RnsTables;
use rand::rngs::StdRng;
use std::sync::{Arc, OnceLock};

pub fn options(wide: Wide) -> GpuOptions {
    GpuOptions { software: true, wide: Some(wide), ..GpuOptions::from_env() }
}

/// One backend for each form that the adapter has, with these tables.
pub fn gpus(tables: &Arc<RnsTables>) -> Vec<GpuBackend> {
    static DEVICES: OnceLock<Vec<GpuBackend>> = OnceLock::new();
    DEVICES.get_or_init(|| open(tables)).iter().map(|gpu| gpu.for_tables(tables.clone()).unwrap()).collect()
}

/// The same on devices of their own.
pub fn open(tables: &Arc<RnsTables>) -> Vec<GpuBackend> {
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

/// Runs a call on the CPU and on every GPU form; all must give the same words.
pub fn same(gpus: &[GpuBackend], what: &str, f: impl Fn(&dyn Backend) -> Buffer) {
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

/// Every call of the contract on some shards: the words must be the CPU's, whatever the limits of the GPUs.
pub fn every_call(gpus: &[GpuBackend], what: &str, case: &Case, rng: &mut StdRng) {
    crate::calls::every_call(case, rng, &|call, f| same(gpus, &format!("{call}, {what}"), f));
}

//! What a bootstrap and a key switch ask of a GPU, counted on a device that only counts: these numbers may fall, and are lowered here then;
//! they may not grow unseen. No GPU is needed, and no time is measured.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use cipherlens::backend::gpu::{GpuBackend, GpuOptions, Limits};
use cipherlens::backend::{Backend, Shape, Statistics};
use cipherlens::circuits::{BootstrapOptions, Bootstrapper, EncryptedEngine, Order};
use cipherlens::ckks::{Ciphertext, Evaluator, KeyId, KeyRequest, KeySet, KeySwitchKey, Level, Params, Tag, presets};
use std::sync::Arc;

struct Counting {
    params: Arc<Params>,
    gpu: Arc<GpuBackend>,
    tag: Tag,
}

impl Counting {
    fn new(preset: &str) -> Self {
        let params = presets::by_name(preset).unwrap();
        let gpu = GpuBackend::dry(params.tables().clone(), Limits::USUAL, &GpuOptions::default()).unwrap();
        let tag = Tag { fingerprint: params.fingerprint(), key_id: KeyId([0; 16]), insecure: params.is_insecure() };
        Self { params, gpu: Arc::new(gpu), tag }
    }
    fn evaluator(&self, requests: &[KeyRequest]) -> Evaluator {
        let mut keys = KeySet::new(self.tag);
        for &request in requests {
            keys.insert(KeySwitchKey::blank(&self.params, self.gpu.as_ref(), self.tag, request).unwrap()).unwrap();
        }
        Evaluator::new(self.params.clone(), self.gpu.clone(), Arc::new(keys)).unwrap()
    }
    fn ciphertext(&self, level: Level) -> Ciphertext {
        let shape = Shape::new(2, self.params.window(level).len(), self.params.degree());
        let words = self.gpu.alloc(shape).unwrap();
        Ciphertext::from_parts(&self.params, words, level, self.params.scale(level), self.tag).unwrap()
    }
    /// What a call does after some like it: buffers, keys and constants are there.
    fn repeated<T>(&self, call: impl Fn() -> T) -> Statistics {
        (0..3).for_each(|_| drop(call()));
        let before = self.gpu.statistics();
        drop(call());
        self.gpu.statistics() - before
    }
}

#[test]
fn a_bootstrap_asks_no_more_than_it_did() {
    // Dispatches of one vector; the bar that is aimed at is 480.
    for (preset, dispatches) in [("n16-boot", 529), ("n16-boot-lean", 575)] {
        let c = Counting::new(preset);
        let options = BootstrapOptions { order: Order::SlotsFirst, ..BootstrapOptions::new(&c.params) };
        let bootstrapper = Bootstrapper::new(&c.params, &options).unwrap();
        let engine = EncryptedEngine::new(c.evaluator(bootstrapper.keys()));
        let x = Arc::new(c.ciphertext(bootstrapper.input_level()));
        let found = c.repeated(|| bootstrapper.apply(&engine, &x).unwrap());
        println!("{preset}: {found:?} {:?}", c.gpu.dispatches_by_kernel());
        assert!(found.dispatches <= dispatches, "{preset}: {found:?}");
        let moved = found.uploaded_bytes + found.key_bytes + found.downloaded_bytes;
        assert_eq!((found.allocations, moved), (0, 0), "{preset}: what repeats stays");
    }
}

#[test]
fn a_rotation_asks_no_more_than_it_did() {
    let c = Counting::new("n16");
    let top = c.params.max_level();
    let requests = KeyRequest::rotations(&c.params, top, &[1]).unwrap();
    let e = c.evaluator(&requests);
    let x = c.ciphertext(top);
    let found = c.repeated(|| e.rotate(&x, 1).unwrap());
    println!("{found:?}");
    assert!(found.dispatches <= 11, "{found:?}");
    assert_eq!((found.allocations, found.uploaded_bytes, found.key_bytes), (0, 0, 0), "what repeats stays");
}

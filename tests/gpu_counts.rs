//! What a bootstrap and a key switch ask of a GPU, counted on a device that only counts: these numbers may fall, and are lowered here then;
//! they may not grow unseen. No GPU is needed, and no time is measured.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use cipherlens::backend::gpu::{GpuBackend, GpuOptions, Limits};
use cipherlens::backend::{Backend, Shape, Statistics};
use cipherlens::circuits::polynomial::Chebyshev;
use cipherlens::circuits::{BootstrapOptions, Bootstrapper, EncryptedEngine, Gadgets, Order};
use cipherlens::ckks::{Ciphertext, Evaluator, KeyId, KeyKind, KeyRequest, KeySet, KeySwitchKey, Level, Params, Tag, presets};
use cipherlens::nn::{self, LowerOptions, Model};
use cipherlens::plan::{Checkpoints, DeviceDemand, Plan, PlanOptions};
use std::path::Path;
use std::sync::Arc;

struct Counting {
    params: Arc<Params>,
    gpu: Arc<GpuBackend>,
    tag: Tag,
}

impl Counting {
    fn new(preset: &str) -> Self {
        let params = presets::by_name(preset).unwrap();
        let limits = Limits { memory: Some(80 << 30), ..Limits::USUAL };
        let gpu = GpuBackend::dry(params.tables().clone(), limits, &GpuOptions::default()).unwrap();
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
    for (preset, dispatches) in [("n16-boot", 501), ("n16-boot-lean", 548)] {
        let c = Counting::new(preset);
        let options = BootstrapOptions { order: Order::SlotsFirst, ..BootstrapOptions::new(&c.params) };
        let bootstrapper = Bootstrapper::new(&c.params, &options).unwrap();
        let engine = EncryptedEngine::new(c.evaluator(bootstrapper.keys()));
        let x = Arc::new(c.ciphertext(bootstrapper.input_level()));
        let found = c.repeated(|| bootstrapper.apply(&engine, &x).unwrap());
        println!("{preset}: {found:?} {:?} {:?}", c.gpu.dispatches_by_kernel(), c.gpu.traffic_by_kernel());
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

#[test]
fn rotations_of_many_shards_make_no_buffer_again() {
    let c = Counting::new("n16");
    let top = c.params.max_level();
    let requests = KeyRequest::rotations(&c.params, top, &[1]).unwrap();
    let e = c.evaluator(&requests);
    for shards in [4, 16, 64] {
        let shape = Shape::new(2 * shards, c.params.window(top).len(), c.params.degree());
        let words = c.gpu.alloc(shape).unwrap();
        let x = Ciphertext::from_parts(&c.params, words, top, c.params.scale(top), c.tag).unwrap();
        let found = c.repeated(|| e.rotate(&x, 1).unwrap());
        println!("{shards}: {found:?}");
        assert_eq!(found.allocations, 0, "{shards}: {found:?}");
    }
}

#[test]
fn a_polynomial_makes_what_stands_at_one_level_at_once() {
    let c = Counting::new("n16-boot-lean");
    let gadgets = Gadgets::best(&c.params).unwrap();
    // As of a ReLU: uneven, and no coefficient is 0.
    let coefficients: Vec<f64> = (0..128).map(|i| ((i * 7 + 3) % 11) as f64 / 11.0 - 0.4).collect();
    let p = Chebyshev::new(coefficients, [-1.0, 1.0]).unwrap();
    let level = Level(p.depth());
    let of_level = |l| KeyRequest { kind: KeyKind::Relin, gadget: gadgets.product(Level(l)).unwrap() };
    let mut requests: Vec<KeyRequest> = (1..=level.0).map(of_level).collect();
    requests.sort();
    requests.dedup();
    let engine = EncryptedEngine::new(c.evaluator(&requests));
    let x = Arc::new(c.ciphertext(level));
    let found = c.repeated(|| p.apply(&engine, &x, &gadgets).unwrap());
    println!("{found:?} {:?}", c.gpu.dispatches_by_kernel());
    assert!(found.dispatches <= 330, "{found:?}");
    assert_eq!((found.allocations, found.uploaded_bytes, found.key_bytes), (0, 0, 0), "what repeats stays");
}

#[test]
fn a_later_run_of_a_network_sends_its_picture_alone() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/imagenette11.safetensors");
    let (network, params) = (Model::from_file(&path).unwrap(), presets::by_name("n15-cnn").unwrap());
    let lowered = nn::lower(&network, params.slots(), &LowerOptions::default()).unwrap();
    let plan = Plan::new(&lowered.program, &params, &PlanOptions::default()).unwrap();
    let limits = Limits { memory: Some(80 << 30), ..Limits::USUAL };
    let found = DeviceDemand::repeated(&plan, limits, &GpuOptions::default(), Checkpoints::for_plan(&plan)).unwrap();
    let layers: Vec<_> = found.layers.iter().map(|l| (&l.layer, l.statistics.dispatches)).collect();
    println!("{:?} {layers:?}", found.total);
    let picture = Shape::new(2 * plan.program().input_shards, params.window(plan.input_level()).len(), params.degree());
    assert_eq!((found.total.allocations, found.total.key_bytes, found.total.uploaded_bytes), (0, 0, picture.bytes() as u64));
    assert!(found.total.dispatches <= 650, "{:?}", found.total);
}

//! What a bootstrap and a key switch ask of a GPU, counted on a device that only counts: these numbers may fall, and are lowered here then;
//! they may not grow unseen. No GPU is needed, and no time is measured.
#![cfg(feature = "gpu")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use cipherlens::backend::gpu::{GpuBackend, GpuOptions, Limits};
use cipherlens::backend::{Kernels, Shape, Statistics};
use cipherlens::circuits::polynomial::Chebyshev;
use cipherlens::circuits::{BootstrapOptions, Bootstrapper, EncryptedEngine, Gadgets, Order};
use cipherlens::ckks::{Ciphertext, Evaluator, KeyId, KeyKind, KeyRequest, KeySet, KeySwitchKey, Level, Params, Tag, presets};
use cipherlens::nn::calibration::Calibration;
use cipherlens::nn::fit::{FitSpec, Form, fit};
use cipherlens::nn::tensor::{Shape as Shape3, Tensor};
use cipherlens::nn::{self, LowerOptions, Model};
use cipherlens::plan::{Checkpoints, DeviceDemand, Plan, PlanOptions};
use cipherlens_testkit::models::{Builder, ConvShape, seeded};
use rand::RngExt;
use serde_json::json;
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
    // Dispatches of one vector, and the bytes that they move.
    for (preset, dispatches, bytes) in [("n16-boot", 409, 23.4e9), ("n16-boot-lean", 435, 16.6e9)] {
        let c = Counting::new(preset);
        let options = BootstrapOptions { order: Order::SlotsFirst, ..BootstrapOptions::new(&c.params) };
        let bootstrapper = Bootstrapper::new(&c.params, &options).unwrap();
        let engine = EncryptedEngine::new(c.evaluator(bootstrapper.keys()));
        let x = Arc::new(c.ciphertext(bootstrapper.input_level()));
        let found = c.repeated(|| bootstrapper.apply(&engine, &x).unwrap());
        println!("{preset}: {found:?} {:?} {:?}", c.gpu.dispatches_by_kernel(), c.gpu.traffic_by_kernel());
        assert!(found.dispatches <= dispatches && found.traffic_bytes as f64 <= bytes, "{preset}: {found:?}");
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
    // Over the most limbs.
    assert!(found.dispatches <= 11 && found.traffic_bytes <= 780_000_000, "{found:?}");
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
    assert!(found.dispatches <= 239, "{found:?}");
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
    assert!(found.total.dispatches <= 559, "{:?}", found.total);
}

/// A ResNet-20 for pictures of 32 x 32 with weights of no meaning, its ReLUs fitted as such networks' are.
fn resnet20() -> Model {
    let mut rng = seeded(20);
    let mut b = Builder::new(Shape3::new(3, 32, 32));
    let mut shape = Shape3::new(3, 32, 32);
    let relu = || json!({"op": "activation", "function": {"name": "relu"}});
    let mut conv = |b: &mut Builder, name: &str, from: &str, input: Shape3, outputs: usize, [kernel, stride]: [usize; 2]| {
        let (kernel, padding) = ([kernel; 2], [kernel / 2; 4]);
        b.conv(
            name,
            from,
            &ConvShape { input, outputs, kernel, stride: [stride; 2], padding, dilation: [1, 1], groups: 1 },
            &mut rng,
        );
        Shape3::new(outputs, input.height / stride, input.width / stride)
    };
    shape = conv(&mut b, "conv", "x", shape, 16, [3, 1]);
    b.node("relu", &["conv"], relu());
    let mut last = "relu".to_owned();
    for (stage, channels) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..3 {
            let [first, inner, second, shortcut, sum, relu_of] =
                ["a", "ra", "b", "s", "sum", "r"].map(|part| format!("{part}{stage}{block}"));
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let smaller = conv(&mut b, &first, &last, shape, channels, [3, stride]);
            b.node(&inner, &[&first], relu());
            conv(&mut b, &second, &inner, smaller, channels, [3, 1]);
            let beside = if stride == 1 {
                last
            } else {
                conv(&mut b, &shortcut, &last, shape, channels, [1, 2]);
                shortcut
            };
            b.node(&sum, &[&second, &beside], json!({"op": "add"})).node(&relu_of, &[&sum], relu());
            (shape, last) = (smaller, relu_of);
        }
    }
    b.node("pool", &[&last], json!({"op": "global_avg_pool"})).node("flat", &["pool"], json!({"op": "flatten"}));
    let mut rng = seeded(21);
    b.random("w", &[10, 64], 0.1, &mut rng).tensor("bias", &[10], [0.0; 10]);
    b.node("fc", &["flat"], json!({"op": "linear", "weight": "w", "bias": "bias"}));
    let model = b.build("fc");
    let picture = |_| Tensor::new(model.input().shape, (0..3 * 1024).map(|_| rng.random_range(-2.0..2.0)).collect()).unwrap();
    let pictures: Vec<Tensor<f32>> = (0..4).map(picture).collect();
    let calibration = Calibration::measure(&model, &pictures).unwrap();
    fit(&model, &calibration, &[FitSpec { form: Form::Series(127), margin: 2.0, floor: 1e-3 }]).unwrap()
}

#[test]
fn a_later_run_of_resnet_20_asks_no_more_than_it_did() {
    let (network, params) = (resnet20(), presets::by_name("n16-boot-lean").unwrap());
    let lowered = nn::lower(&network, params.slots() / 2, &LowerOptions::default()).unwrap().interleaved(2);
    let plan = Plan::new(&lowered.program, &params, &PlanOptions::default()).unwrap();
    let limits = Limits { memory: Some(80 << 30), ..Limits::USUAL };
    let found = DeviceDemand::repeated(&plan, limits, &GpuOptions::default(), Checkpoints::for_plan(&plan)).unwrap();
    println!("{:?}", found.total);
    let t = found.total;
    // The public ResNet-20, whose shortcuts are no convolutions, asks 13,992 and moves 395 GB.
    assert!(t.dispatches <= 14_117 && t.traffic_bytes <= 435_000_000_000, "{t:?}");
    assert!(t.allocations == 0 && t.key_bytes == 0 && t.uploaded_bytes <= 20_000_000, "{t:?}");
    let convolution = found.layers.iter().find(|l| l.layer == "b22").unwrap();
    assert!(convolution.statistics.dispatches <= 60, "{convolution:?}");
}

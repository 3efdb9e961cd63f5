//! ResNet-20 for CIFAR-10 with public weights, and pictures with their original pixels, from the data folder ([`shared`]).

use crate::shared;
use cipherlens::nn::Model;
use cipherlens::nn::onnx::OnnxOptions;
use cipherlens::nn::simulate::Labelled;
use cipherlens::nn::tensor::Tensor;

/// The network, as exported.
pub fn model() -> Model {
    let bytes = shared::read("models/cifar10_resnet20_akamaster_rawexport.onnx");
    Model::from_onnx(&bytes, &OnnxOptions::default()).expect("a network")
}

/// Pictures of 32 x 32 pixels, RGB bytes by pixel, as inputs of the model.
fn pictures(model: &Model, bytes: &[u8], labels: &[u8]) -> Vec<Labelled> {
    let one = |(pixels, label): (&[u8], &u8)| {
        let planes: Vec<f64> = (0..3).flat_map(|c| pixels.iter().skip(c).step_by(3).map(|v| f64::from(*v) / 255.0)).collect();
        Labelled { x: model.input().normalise(&planes).expect("a picture"), label: Some(usize::from(*label)) }
    };
    bytes.chunks_exact(3072).zip(labels).map(one).collect()
}

/// The first 500 test pictures.
pub fn test_pictures(model: &Model) -> Vec<Labelled> {
    let (pixels, labels) = (shared::read("cifar10/test500_lossless.nhwc.u8"), shared::read("cifar10/test500_lossless.labels.u8"));
    pictures(model, &pixels, &labels)
}

/// A thousand training pictures; batch 0 to 3.
pub fn training_pictures(model: &Model, batch: usize) -> Vec<Labelled> {
    let path = shared::path(&format!("cifar10/train_lossless_batch{batch}.png"));
    let rows = image::open(path).expect("training pictures").to_rgb8();
    let labels = shared::read("cifar10/train.labels.u8");
    pictures(model, rows.as_raw(), &labels[1000 * batch..][..1000])
}

/// The logits of the test pictures with exact ReLUs, in f64, `[picture][class]`.
pub fn reference_logits() -> Vec<[f64; 10]> {
    let archive = shared::read("reference/cifar10_resnet20_test500_logits_fp64.npz");
    shared::npz_f64(&archive, "logits.npy").as_chunks::<10>().0.to_vec()
}

/// Only the inputs.
pub fn inputs(pictures: &[Labelled]) -> Vec<Tensor<f32>> {
    pictures.iter().map(|p| p.x.clone()).collect()
}

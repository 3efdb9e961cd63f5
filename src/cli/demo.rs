//! `cipherlens demo`: [`classify`](super::classify) with the embedded network and photograph.

use super::Global;
use super::classify::Task;
use super::device::Compute;
use super::failure::Outcome;
use super::picture::{Fit, Picture};
use std::path::PathBuf;

/// The photograph of the demo.
static PHOTOGRAPH: &[u8] = include_bytes!("../../assets/images/chelsea.png");
/// Its place in the repository, as reports name it.
const PHOTOGRAPH_NAME: &str = "assets/images/chelsea.png (embedded)";

/// Encrypt a picture, classify it without decrypting, decrypt the answer
#[derive(Debug, Default, clap::Args)]
pub struct Demo {
    /// Picture: PNG, JPEG, GIF, BMP or WebP of any size [default: the embedded photograph of a cat]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Model file: safetensors, ONNX, or what `compile` wrote [default: the embedded network of eleven classes]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Parameter set [default: the compiled network's; else n15-cnn, or n16-boot where that has too few levels]
    #[arg(long, short, value_name = "PRESET")]
    preset: Option<String>,
    /// How the picture is brought to the network's size
    #[arg(long, value_enum, default_value_t)]
    fit: Fit,
    #[command(flatten)]
    compute: Compute,
    /// Make keys and encryption from this number: for tests only, whoever knows it can decrypt
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print one JSON object as the last line of standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
}

impl Demo {
    /// Runs it.
    pub fn run(&self, global: &Global) -> Outcome {
        let picture = match &self.image {
            Some(path) => (Picture::open(path)?, path.display().to_string()),
            None => (Picture::decode(PHOTOGRAPH, "cannot read the embedded photograph")?, PHOTOGRAPH_NAME.to_string()),
        };
        let task = Task {
            model: self.model.as_deref(),
            pictures: vec![picture],
            preset: self.preset.as_deref(),
            max_key_bytes: None,
            fit: self.fit,
            compute: &self.compute,
            seed: self.seed,
            json: self.json,
        };
        task.run(global)
    }
}

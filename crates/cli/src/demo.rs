//! `cipherlens demo`: [`classify`](super::classify) with the embedded network and photograph.

use super::Global;
use super::classify::{ClassifyOptions, Task};
use super::failure::Outcome;
use super::picture::Picture;
use super::sample::Sample;
use std::path::PathBuf;

/// The photograph of the demo.
static PHOTOGRAPH: &[u8] = include_bytes!("../../../assets/images/chelsea.png");
/// Its place in the repository, as reports name it.
const PHOTOGRAPH_NAME: &str = "assets/images/chelsea.png (embedded)";

/// Encrypt a picture, classify it without decrypting, decrypt the answer
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Demo {
    /// Picture: PNG, JPEG, GIF, BMP or WebP of any size [default: the embedded photograph of a cat]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Model file: safetensors, ONNX, or what `compile` wrote [default: the embedded network of eleven classes]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    #[command(flatten)]
    options: ClassifyOptions,
    /// Print one JSON object as the last line of standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
}

impl Demo {
    /// Runs it.
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        let picture = match &self.image {
            Some(path) => Sample::open(path)?,
            None => {
                let picture = Picture::decode(PHOTOGRAPH, "cannot read the embedded photograph")?;
                (Sample::Picture(picture), PHOTOGRAPH_NAME.to_string())
            }
        };
        let task = Task { model: self.model.as_deref(), pictures: vec![picture], options: &self.options, json: self.json };
        task.run(global)
    }
}

//! Models for the commands: the embedded one or a file, and pictures as their input.

use super::failure::{Class, Failure, Outcome};
use super::sample::Sample;
use super::told;
use cipherlens::client::{class_logits, class_name};
use cipherlens::engine::Terms;
use cipherlens::nn::compiled::{Compiled, CompiledError};
use cipherlens::nn::model::{Fit, Model, ModelError};
use cipherlens::nn::onnx::{OnnxError, OnnxOptions, Results};
use cipherlens::nn::simulate::check_picture;
use cipherlens::nn::tensor::Tensor;
use cipherlens::wire::network::NetworkDigest;
use cipherlens::wire::{WireError, container};
use std::path::Path;
use zeroize::Zeroizing;

/// The demo's network.
static EMBEDDED: &[u8] = include_bytes!("../../../models/imagenette11.safetensors");
/// Its place in the repository, as reports name it.
pub(crate) const EMBEDDED_NAME: &str = "models/imagenette11.safetensors (embedded)";

/// A network, opened once: what it is, what to call it, and what was said of it when it was compiled.
pub(crate) struct Source {
    /// The network.
    pub network: Model,
    /// Its file, as reports name it.
    pub name: String,
    /// What its keys and ciphertexts are known by.
    pub digest: NetworkDigest,
    /// The terms it was compiled on; those that ask for nothing where it was not.
    compiled: Terms,
}

/// The network in a file (safetensors, ONNX, or compiled), or the embedded one. `asked`: what an ONNX file leaves open.
pub(crate) fn open(path: Option<&Path>, asked: &OnnxOptions) -> Outcome<Source> {
    let (source, onnx) = open_any(path, asked)?;
    let (name, shape) = (&source.name, source.network.input().shape);
    if let Some(size) = asked.input_size.filter(|size| (size.height, size.width) != (shape.height, shape.width)) {
        return Err(Failure::new(
            Class::Usage,
            format!("--input-size {size} does not fit {name}"),
            format!("the network is for pictures of {}x{}", shape.height, shape.width),
            "leave the option out: it is for ONNX files that leave height and width open",
        ));
    }
    if asked.results != Results::Only && !onnx {
        return Err(Failure::new(
            Class::Usage,
            format!("--results does not fit {name}"),
            "it is no ONNX file, and its result is settled",
            "leave the option out: it is for ONNX files that give several results",
        ));
    }
    Ok(source)
}

/// The network, and whether results could be chosen when it was read.
fn open_any(path: Option<&Path>, asked: &OnnxOptions) -> Outcome<(Source, bool)> {
    let plain = |network: Model, name: String| Source { digest: network.digest(), network, name, compiled: Terms::default() };
    match path {
        Some(path) if told::is_one(path) => Err(told::no_weights(path, "this command")),
        Some(path) if Compiled::is_one(path) => {
            let compiled = open_compiled(path)?;
            let (digest, name) = (compiled.digest(), path.display().to_string());
            let terms = Terms::of(&compiled);
            Ok((Source { network: compiled.model, name, digest, compiled: terms }, false))
        }
        Some(path) => {
            check_other(path)?;
            let network = Model::from_file_with(path, asked).map_err(|e| refuse(&path.display().to_string(), &e))?;
            Ok((plain(network, path.display().to_string()), true))
        }
        None => {
            let network = Model::from_bytes(EMBEDDED).map_err(|e| refuse(EMBEDDED_NAME, &e))?;
            Ok((plain(network, EMBEDDED_NAME.to_string()), false))
        }
    }
}

/// Refuses a file of this program that is no network, before it is taken for one of another.
fn check_other(path: &Path) -> Outcome {
    let what = || format!("cannot use the model {}", path.display());
    match container::kind_of(path) {
        Err(WireError::Magic | WireError::Io { .. }) => Ok(()),
        Err(e) => Err(super::failure::explain(what(), &e)),
        Ok(kind) => Err(Failure::new(
            Class::BadInput,
            what(),
            format!("this is a file of kind `{kind}`, and a network is needed"),
            "name the network: what `cipherlens compile` wrote (net.lens), safetensors or ONNX; clients have net.client in its place",
        )),
    }
}

impl Source {
    /// What is asked for, or else what the network was compiled for.
    pub(crate) fn terms(&self, preset: Option<&str>, max_key_bytes: Option<u64>) -> Terms {
        self.compiled.with(preset, max_key_bytes)
    }
}

/// A compiled network.
pub(crate) fn open_compiled(path: &Path) -> Outcome<Compiled> {
    Compiled::read(path).map_err(|e| match e {
        CompiledError::Model(e) => refuse(&path.display().to_string(), &e),
        CompiledError::File(e @ WireError::Version { .. }) => {
            super::failure::explain(format!("cannot use the model {}", path.display()), &e)
        }
        e => {
            let what = format!("cannot use the compiled network {}", path.display());
            Failure::from_error(Class::BadInput, what, &e, "compile it again: cipherlens compile")
        }
    })
}

fn refuse(name: &str, error: &ModelError) -> Failure {
    let advice = match error {
        ModelError::Onnx(OnnxError::ExternalData { .. }) => "keep a model and its data files together, as told above",
        ModelError::Onnx(OnnxError::InputShape { .. }) => {
            "give the size where it is open, or export the network again, as told above"
        }
        ModelError::Onnx(OnnxError::Results { .. }) => {
            "say which with --results, as in --results a or --results a,b or --results all"
        }
        ModelError::Onnx(OnnxError::NotOnnx(_)) => {
            "if it is ONNX, it is damaged: export or copy it again; `cipherlens compile --help` lists what a model may be"
        }
        ModelError::Onnx(OnnxError::Opset { .. } | OnnxError::NewerOpset { .. }) => "export the network again as told above",
        ModelError::Onnx(_) => "change in the network what is named above, and export it again",
        ModelError::OtherFile { .. } => {
            "name a model: ONNX, safetensors with a graph in its metadata, or what `cipherlens compile` wrote"
        }
        ModelError::Read { .. } => "name a model file that you may read",
        ModelError::NotSafetensors(_) | ModelError::NotAModel { .. } => {
            "a model is a safetensors file with a graph in its metadata: README.md, \"Your own model\""
        }
        ModelError::UnsupportedOperators(_) => {
            "replace each operator by what is said beside it, or take it out, and write the model again"
        }
        ModelError::NotFinite { .. } => "the training diverged or the file was damaged: write the model again",
        _ => {
            "change the network where it is said, and write or export it again; `cipherlens inspect` shows what can be read of it"
        }
    };
    Failure::from_error(Class::BadInput, format!("cannot use the model {name}"), error, advice)
}

/// One of the likeliest classes.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Likely {
    /// Its index.
    pub index: usize,
    /// Its name.
    pub class: String,
    /// Its logit.
    pub logit: f64,
    /// Its softmax.
    pub probability: f64,
}

/// The `count` likeliest classes, likeliest first.
pub(crate) fn likeliest(classes: &[String], logits: &[f64], count: usize) -> Vec<Likely> {
    let logits = Zeroizing::new(class_logits(logits));
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let largest = order.first().map_or(0.0, |&c| logits[c]);
    let total: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
    let likely = |&c: &usize| Likely {
        index: c,
        class: class_name(classes, c),
        logit: logits[c],
        probability: (logits[c] - largest).exp() / total,
    };
    order.iter().take(count).map(likely).collect()
}

/// An input called `name` that is to be encrypted, as a tensor: refused if it would drive a fitted activation out of its
/// interval, since the answer would be noise and nobody could tell.
pub(crate) fn encryptable(
    model: &Model,
    sample: &Sample,
    fit: Option<Fit>,
    name: &str,
) -> Outcome<(Zeroizing<Tensor<f64>>, Vec<String>)> {
    let (tensor, notes) = sample.input(model.input(), fit)?;
    let tensor = Zeroizing::new(tensor);
    check_picture(model, &Zeroizing::new(tensor.cast())).map_err(|e| {
        let advice = "use a picture like those the network was compiled with, or compile it again with pictures like this one";
        Failure::from_error(Class::BadInput, format!("the network would not give its answer for {name}"), &e, advice)
    })?;
    Ok((tensor, notes))
}

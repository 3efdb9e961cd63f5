//! `cipherlens inspect`: what a file is.

use super::failure::{Class, Failure, Outcome, explain};
use super::npy::{self, Array};
use super::output::{Align, Table, bytes, counted, grouped, say};
use super::params::hex;
use super::picture::Picture;
use super::{Global, model, told};
use cipherlens::ckks::presets;
use cipherlens::nn::model::{Fit, Model, ModelError, Operator};
use cipherlens::nn::onnx::OnnxError;
use cipherlens::nn::{Compiled, Notes};
use cipherlens::wire::container::{self, Reader};
use cipherlens::wire::objects::{self, CiphertextBody, KeyBody, Metadata};
use cipherlens::wire::{Kind, WireError, verify};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a file is: a model, a picture, an array, keys, a ciphertext
#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// The file
    file: PathBuf,
    /// Also read all of it: every hash, and every number against its modulus
    #[arg(long)]
    verify: bool,
}

impl Inspect {
    /// Prints it.
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        let path = &self.file;
        if std::fs::metadata(path).is_ok_and(|about| !about.is_file() && !about.is_dir()) {
            let what = format!("cannot tell what {} is", path.display());
            let why = "it is a device or a pipe, no regular file";
            return Err(Failure::new(Class::BadInput, what, why, "write it to a file first, and name that"));
        }
        let mut start = Vec::new();
        let read = File::open(path).and_then(|f| f.take(4096).read_to_end(&mut start));
        read.map_err(|e| {
            let what = format!("cannot read {}", path.display());
            Failure::from_error(Class::BadInput, what, &e, "name a file that you may read")
        })?;
        if Compiled::is_one(path) {
            inspect_compiled(path)?;
            if self.verify {
                say!();
                say!("whole: every hash is right, and the network in it can be run");
            }
            return Ok(());
        }
        if start.starts_with(&container::MAGIC) {
            return inspect_container(path, self.verify);
        }
        if npy::is_named_so(path) {
            let array = Array::open(path)?;
            let [channels, rows, columns] = array.shape;
            let (inputs, channels) = (counted(array.count, "input"), counted(channels, "channel"));
            say!("array, {inputs} of {channels} of {rows} x {columns}, {}", array.treatment());
        } else {
            match image::guess_format(&start) {
                Ok(format) => inspect_picture(path, format)?,
                // What is no model says what it is instead: ONNX has no mark of its own.
                Err(_) => inspect_model(path, global)?,
            }
        }
        if self.verify {
            say!("nothing to verify: files of this kind carry no hashes");
        }
        Ok(())
    }
}

fn inspect_container(path: &Path, whole: bool) -> Outcome {
    let failed = |e: WireError| explain(format!("cannot read {}", path.display()), &e);
    let opened = container::Opened::path(path).map_err(failed)?;
    let (kind, version) = (opened.kind(), opened.version());
    let size = std::fs::metadata(path).map_or(0, |m| m.len());
    say!("{kind}, cipherlens format {version}, {}", bytes(size));
    let origin = objects::read_origin(path).map_err(failed)?;
    if let Some(origin) = &origin {
        let warning = if origin.insecure { " (NO security, tests only)" } else { "" };
        say!("parameter set {}{warning}, fingerprint {}", origin.preset, hex(&origin.fingerprint[..16]));
        say!("made with secret key {}", origin.key_id);
        if let Some(network) = origin.network {
            say!("for network {network}");
        }
    }
    match kind {
        Kind::Ciphertext => {
            let CiphertextBody { level, shards, seed, .. } =
                Reader::<Metadata<CiphertextBody>>::open(path, kind).map_err(failed)?.metadata.body;
            // What a client encrypts carries a seed for one half; what was computed has both halves.
            match seed {
                Some(_) => say!("an encrypted picture (or several), as `encrypt` writes it, for `run`"),
                None => say!("an encrypted answer, as `run` writes it, for `decrypt`"),
            }
            say!("{}, level {level}", counted(shards as usize, "ciphertext"));
        }
        Kind::EvaluationKeys => {
            let keys = Reader::<Metadata<Vec<KeyBody>>>::open(path, kind).map_err(failed)?.metadata.body;
            say!("{}, for the server", counted(keys.len(), "key"));
        }
        _ => {}
    }
    if kind == Kind::ClientSpec {
        // It is small, and read whole.
        let spec = told::read(path)?.0;
        say!("of network {}, {:?}, input {}, preset {}", spec.network, spec.name, spec.input.shape, spec.params.name);
        let runs: Vec<String> = spec.runs.iter().map(|run| run.pictures.to_string()).collect();
        say!("for runs of {} picture{}", runs.join(", "), if runs == ["1"] { "" } else { "s" });
    } else if whole {
        let params = origin.map(|origin| presets::by_name(&origin.preset)).transpose();
        let params = params.map_err(|e| explain("the file can be verified with its parameter set only", &e))?;
        verify(path, params.as_deref()).map_err(failed)?;
    }
    if whole {
        say!("whole: every hash and every number is right");
    }
    Ok(())
}

fn inspect_compiled(path: &Path) -> Outcome {
    let compiled = model::open_compiled(path)?;
    let size = std::fs::metadata(path).map_or(0, |m| m.len());
    let version = container::Opened::path(path).map_or(container::VERSION, |opened| opened.version());
    say!("compiled network, cipherlens format {version}, {}, for preset {}", bytes(size), compiled.preset);
    say!("network {}", compiled.digest());
    inspect_network(&compiled.model, &path.display().to_string());
    print_notes(&compiled.report);
    Ok(())
}

fn inspect_model(path: &Path, global: &Global) -> Outcome {
    let unknown = |failure: Failure| {
        // Asked again where it is no model: a failure does not say of which sort it is.
        let Err(ModelError::Onnx(e @ OnnxError::NotOnnx(_))) = Model::from_file_with(path, &global.onnx()) else {
            return failure;
        };
        let what = format!("cannot tell what {} is", path.display());
        let advice = "files that are known are networks (ONNX, safetensors, or what `compile` wrote), pictures (PNG, JPEG, GIF, BMP, WebP), \
                      arrays (.npy), and what `keygen`, `encrypt` and `run` wrote; if it should be one, it is damaged: copy or make it again";
        Failure::from_error(Class::BadInput, what, &e, advice)
    };
    let model::Source { network, name: file, .. } = model::open(Some(path), &global.onnx()).map_err(unknown)?;
    say!("network {}", network.digest());
    inspect_network(&network, &file);
    Ok(())
}

fn inspect_network(network: &Model, file: &str) {
    say!("model {} ({file})", network.name());
    say!("input {} {}, {} weights", network.input().name, network.input().shape, grouped(network.weights()));
    say!("{}", network.input().normalisation_note());
    say!("pictures of another aspect are {}", if network.input().fit == Fit::Crop { "cropped" } else { "stretched" });
    let classes = network.classes();
    say!("classes {}", if classes.is_empty() { "without names".into() } else { classes.join(", ") });
    say!();
    let mut table =
        Table::new([("node", Align::Left), ("operator", Align::Left), ("reads", Align::Left), ("shape", Align::Right)]);
    for node in network.nodes() {
        let reads: Vec<&str> = node.inputs.iter().map(|&v| network.value_name(v)).collect();
        table.row([node.name.clone(), described(&node.operator), reads.join(", "), node.shape.to_string()]);
    }
    table.print("  ");
    print_notes(network.training());
}

fn print_notes(notes: &Notes) {
    let mut entries = notes.entries().peekable();
    if entries.peek().is_some() {
        say!();
        entries.for_each(|(name, value)| say!("  {name}: {value}"));
    }
}

/// An operator, and what it is fitted to or still to be.
fn described(operator: &Operator) -> String {
    match operator {
        Operator::Activation(function) => format!("{function}, not fitted"),
        Operator::Fitted(fitted) => {
            let degrees: Vec<String> = fitted.degrees().iter().map(usize::to_string).collect();
            let [a, b] = fitted.interval();
            format!("{}, degree {} on [{a:.2}, {b:.2}]", fitted.function, degrees.join(", "))
        }
        operator => operator.name().into(),
    }
}

fn inspect_picture(path: &Path, format: image::ImageFormat) -> Outcome {
    let picture = Picture::open(path)?;
    let (width, height) = picture.size();
    say!("picture, {format:?}, {width}x{height}");
    picture.notes.iter().for_each(|note| say!("  {note}"));
    Ok(())
}

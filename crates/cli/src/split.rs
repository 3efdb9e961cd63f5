//! `cipherlens keygen`, `encrypt`, `run`, `decrypt`: client and server as different people with different files.
//!
//! Both sides derive the plan from the same model file and preset, with the same unit costs, so the keys that `keygen`
//! makes are the keys that `run` needs.

use super::client::Client;
use super::device::Compute;
use super::failure::{Class, Failure, Outcome, explain};
use super::output::{bytes, say, seconds};
use super::picture::fits;
use super::plan::{Costs, Prepared, Wishes, check_memory, prepare, prepare_any};
use super::progress::CountBar;
use super::sample::Sample;
use super::server::Server;
use super::{Global, answer, model};
use cipherlens::nn::Model;
use cipherlens::nn::model::Fit;
use cipherlens::wire::network::NetworkDigest;
use cipherlens::wire::{Kind, WireError, container, objects};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Client: make a secret key, and the evaluation keys a server needs for a network
#[derive(Debug, clap::Args)]
pub struct Keygen {
    /// Model file the keys are for: safetensors, ONNX, or what `compile` wrote [default: the embedded network]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Parameter set [default: the compiled network's; else n15-cnn, or n16-boot where that has too few levels]
    #[arg(long, short, value_name = "PRESET")]
    preset: Option<String>,
    /// A secret key there is already, as for a second network: only evaluation keys are made, on its parameter set
    #[arg(long, short, value_name = "FILE", conflicts_with = "preset")]
    key: Option<PathBuf>,
    /// Folder for secret.key (keep it) and evaluation.keys (send them to the server)
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    insecure: AllowInsecure,
}

/// Client: encrypt a picture
#[derive(Debug, clap::Args)]
pub struct Encrypt {
    /// Picture of any size, or an array of the network's shape (.npy)
    picture: PathBuf,
    /// Model file [default: the embedded network]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The secret key that `keygen` made
    #[arg(long, short, value_name = "FILE")]
    key: PathBuf,
    /// How the picture is brought to the network's size [default: as the network was compiled for; else crop]
    #[arg(long, value_parser = fits())]
    fit: Option<Fit>,
    /// File to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    insecure: AllowInsecure,
}

/// Server: run a network on an encrypted picture
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The encrypted picture
    ciphertext: PathBuf,
    /// Model file [default: the embedded network]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The evaluation keys that the client's `keygen` made
    #[arg(long, short, value_name = "FILE")]
    keys: PathBuf,
    /// File to write the encrypted answer to
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    compute: Compute,
}

/// Client: decrypt an answer
#[derive(Debug, clap::Args)]
pub struct Decrypt {
    /// The encrypted answer
    ciphertext: PathBuf,
    /// Model file [default: the embedded network]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The secret key that `keygen` made
    #[arg(long, short, value_name = "FILE")]
    key: PathBuf,
    /// Also print the logits. Do not hand them back to the server: approximate results tell it about the key
    #[arg(long)]
    logits: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    insecure: AllowInsecure,
}

/// What a client does not do unless told.
#[derive(Debug, clap::Args)]
struct AllowInsecure {
    /// Work with a parameter set that gives no security (tests only)
    #[arg(long)]
    allow_insecure: bool,
}

impl AllowInsecure {
    fn check(&self, prepared: &Prepared) -> Outcome {
        if self.allow_insecure || !prepared.params.is_insecure() {
            return Ok(());
        }
        let what = format!("preset `{}` protects nothing", prepared.params.name());
        let why = "it is for tests: whoever has a ciphertext can decrypt it";
        Err(Failure::new(Class::WrongKey, what, why, "use a preset with 128 bits of security, or --allow-insecure in a test"))
    }
}

fn unusable(path: &Path) -> impl FnOnce(WireError) -> Failure {
    let what = format!("cannot use {}", path.display());
    move |e| explain(what, &e)
}

/// Refuses a file of another kind, before anything is asked of it.
fn check_kind(path: &Path, expected: Kind) -> Outcome {
    match container::kind_of(path).map_err(unusable(path))? {
        found if found == expected => Ok(()),
        found => Err(unusable(path)(WireError::Kind { found: found.to_string(), expected })),
    }
}

/// Refuses a file that was not made for this network; `what` is said of it, as in `answer was`.
fn check_network(path: &Path, what: &'static str, network: NetworkDigest) -> Outcome {
    let origin = objects::read_origin(path).map_err(unusable(path))?;
    origin.map_or(Ok(()), |origin| origin.check_network(what, network)).map_err(unusable(path))
}

/// The network planned for the parameter set that a file belongs to.
fn prepare_for(network: &Model, model: Option<&Path>, path: &Path, compute: &Compute) -> Outcome<Prepared> {
    let terms = model::terms(model, None, None)?;
    let wishes = Wishes::on_terms(&terms, Costs::Typical);
    let origin = objects::read_origin(path).map_err(unusable(path))?;
    match origin {
        Some(origin) => {
            // Keys of another parameter set belong to a plan of that one.
            let same = terms.preset.as_deref() == Some(origin.preset.as_str());
            let kept = if same { wishes.kept } else { Vec::new() };
            prepare(network, &origin.preset, Wishes { kept, ..wishes }, compute)
        }
        None => Err(Failure::new(
            Class::WrongKey,
            format!("cannot use {}", path.display()),
            "the file holds a parameter set alone",
            "name a key or a ciphertext; `cipherlens inspect` tells what a file is",
        )),
    }
}

fn size(path: &Path) -> String {
    bytes(std::fs::metadata(path).map_or(0, |m| m.len()))
}

impl Keygen {
    /// Makes the keys.
    pub fn run(&self, global: &Global) -> Outcome {
        let (network, _) = model::open(self.model.as_deref(), global.input_size)?;
        let (secret_path, keys_path) = (self.output.join("secret.key"), self.output.join("evaluation.keys"));
        let overwritten = if self.key.is_some() { &keys_path } else { &secret_path };
        if overwritten.exists() {
            let what = format!("{} exists already", overwritten.display());
            let why = match self.key {
                Some(_) => "it may be of another network, whose server would lose it",
                None => "overwriting a secret key would make everything encrypted with it unreadable",
            };
            return Err(Failure::new(Class::BadInput, what, why, "name another folder, or move the key away"));
        }
        let prepared = match &self.key {
            Some(key) => {
                check_kind(key, Kind::SecretKey)?;
                prepare_for(&network, self.model.as_deref(), key, &Compute::default())?
            }
            None => {
                let terms = model::terms(self.model.as_deref(), self.preset.as_deref(), None)?;
                let wishes = Wishes::on_terms(&terms, Costs::Typical);
                prepare_any(&network, terms.preset.as_deref(), wishes, &Compute::default())?
            }
        };
        self.insecure.check(&prepared)?;
        check_memory(&prepared.plan)?;
        std::fs::create_dir_all(&self.output).map_err(|e| {
            let what = format!("cannot make the folder {}", self.output.display());
            Failure::from_error(Class::Resources, what, &e, "name a folder that you may write to")
        })?;
        let clock = Instant::now();
        let client = match &self.key {
            Some(key) => {
                let secret = objects::read_secret_key(key, &prepared.params).map_err(unusable(key))?;
                Client::with_secret(&prepared, secret)
            }
            None => Client::new(&prepared, None)?,
        };
        let bar = CountBar::new(global.progress_mode(), prepared.plan.keys().len(), "evaluation keys");
        let keys = client.evaluation_keys(prepared.plan.keys(), None, &|| bar.advance())?;
        bar.finish();
        let backend = prepared.host.as_ref();
        let digest = model::digest(self.model.as_deref(), &network)?;
        objects::write_evaluation_keys(&keys_path, &prepared.params, backend, &keys, Some(digest))
            .map_err(unusable(&keys_path))?;
        if self.key.is_none() {
            objects::write_secret_key(&secret_path, &prepared.params, client.secret()).map_err(unusable(&secret_path))?;
        }
        if !global.quiet {
            if self.key.is_none() {
                say!("{}: keep it, it decrypts everything", secret_path.display());
            }
            say!("{}: {} keys, {}, for the server, for network {digest}", keys_path.display(), keys.len(), size(&keys_path));
            say!("made in {}", seconds(clock.elapsed().as_secs_f64()));
        }
        Ok(())
    }
}

impl Encrypt {
    /// Encrypts.
    pub fn run(&self, global: &Global) -> Outcome {
        let (picture, name) = Sample::open(&self.picture)?;
        let (network, _) = model::open(self.model.as_deref(), global.input_size)?;
        let (input, notes) = model::encryptable(&network, &picture, self.fit, &name)?;
        let prepared = prepare_for(&network, self.model.as_deref(), &self.key, &Compute::default())?;
        self.insecure.check(&prepared)?;
        answer::check_input(&prepared, &network, &input, &name)?;
        let secret = objects::read_secret_key(&self.key, &prepared.params).map_err(unusable(&self.key))?;
        let encrypted = Client::with_secret(&prepared, secret).encrypt(&prepared, &[input], None)?;
        let digest = model::digest(self.model.as_deref(), &network)?;
        objects::write_seeded_ciphertext(&self.output, &prepared.params, &encrypted, Some(digest))
            .map_err(unusable(&self.output))?;
        if !global.quiet {
            notes.iter().for_each(|note| say!("{note}"));
            let shards = encrypted.shards(&prepared.params);
            say!("{}: {shards} ciphertexts, {}, for the server, for network {digest}", self.output.display(), size(&self.output));
        }
        Ok(())
    }
}

impl Run {
    /// Runs the network.
    pub fn run(&self, global: &Global) -> Outcome {
        check_kind(&self.keys, Kind::EvaluationKeys)?;
        check_kind(&self.ciphertext, Kind::Ciphertext)?;
        let (network, _) = model::open(self.model.as_deref(), global.input_size)?;
        let digest = model::digest(self.model.as_deref(), &network)?;
        check_network(&self.keys, "evaluation keys were", digest)?;
        check_network(&self.ciphertext, "ciphertext was", digest)?;
        let prepared = prepare_for(&network, self.model.as_deref(), &self.keys, &self.compute)?;
        check_memory(&prepared.plan)?;
        let (params, backend) = (&prepared.params, prepared.host.as_ref());
        let input = objects::read_ciphertext(&self.ciphertext, params, backend).map_err(unusable(&self.ciphertext))?;
        let keys = objects::read_evaluation_keys(&self.keys, params, backend).map_err(unusable(&self.keys))?;
        let clock = Instant::now();
        let answer = Server::new(&prepared, keys, 1)?.run(input, global.progress_mode())?;
        objects::write_ciphertext(&self.output, params, backend, &answer.ciphertext, Some(digest))
            .map_err(unusable(&self.output))?;
        if !global.quiet {
            let spent = seconds(clock.elapsed().as_secs_f64());
            say!("{}: the encrypted answer, {}, for the client; it took {spent}", self.output.display(), size(&self.output));
        }
        Ok(())
    }
}

impl Decrypt {
    /// Decrypts.
    pub fn run(&self, global: &Global) -> Outcome {
        check_kind(&self.ciphertext, Kind::Ciphertext)?;
        let (network, _) = model::open(self.model.as_deref(), global.input_size)?;
        check_network(&self.ciphertext, "answer was", model::digest(self.model.as_deref(), &network)?)?;
        let prepared = prepare_for(&network, self.model.as_deref(), &self.key, &Compute::default())?;
        self.insecure.check(&prepared)?;
        let (params, backend) = (&prepared.params, prepared.host.as_ref());
        let secret = objects::read_secret_key(&self.key, params).map_err(unusable(&self.key))?;
        let answer = objects::read_ciphertext(&self.ciphertext, params, backend).map_err(unusable(&self.ciphertext))?;
        let expected = prepared.plan.layers().last().map_or(0, |layer| layer.level_out);
        if answer.level().0 != expected {
            let why = format!("it is at {}, and answers of this network are at level {expected}", answer.level());
            let advice = "name the file that `cipherlens run` wrote, not the encrypted picture";
            return Err(Failure::new(Class::BadInput, format!("{} is not the answer", self.ciphertext.display()), why, advice));
        }
        // The files of a picture hold one.
        let logits = Client::with_secret(&prepared, secret).decrypt(&prepared, &answer)?.remove(0);
        answer::check_result(&prepared, &logits)?;
        let top = model::likeliest(&network, &logits, 3);
        let label = top.first().map_or(String::new(), |l| l.class.clone());
        if self.json {
            let classes: Vec<&str> = top.iter().map(|l| l.class.as_str()).collect();
            let mut object = serde_json::json!({ "label": label, "top": classes });
            if self.logits {
                object["logits"] = logits.into();
            }
            say!("{object}");
            return Ok(());
        }
        if global.quiet {
            say!("{label}");
            return Ok(());
        }
        for (rank, likely) in top.iter().enumerate() {
            say!("{}. {}", rank + 1, likely.class);
        }
        if self.logits {
            say!();
            for (class, logit) in logits.iter().enumerate() {
                say!("{logit:>12.6}  {}", model::class_name(&network, class));
            }
            say!("Do not hand these numbers back to the server: they tell it about your key.");
        }
        Ok(())
    }
}

//! The whole path in one process: a picture is encrypted, classified without being decrypted, and the answer decrypted and
//! compared with the clear one. `cipherlens classify`, and what `demo` does with what is built in.
//!
//! [`Client`] holds the secret key; [`Server`] is given the evaluation keys and a ciphertext and nothing else. They run in
//! one process here, and share nothing but what is handed over.

use super::compute::{Compute, size};
use super::failure::{Outcome, about, explain};
use super::output::{bytes, counted, say, seconds};
use super::picture::fits;
use super::progress::{CountBar, LayerBar};
use super::report::{LayerSeconds, Report, Seconds};
use super::sample::Sample;
use super::told;
use super::{Global, model, plan, system};
use cipherlens::engine::{Client, Costs, PrepareOptions, Prepared, Purpose, RunSpec, Server, Session};
use cipherlens::nn::clear::Network;
use cipherlens::nn::model::Fit;
use cipherlens::nn::{Model, Tensor};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use zeroize::Zeroizing;

/// Classify pictures encrypted, from key generation to decryption, in one process
#[derive(Debug, clap::Args)]
pub(crate) struct Classify {
    /// Model file: what `compile` wrote, safetensors, or ONNX without activations to fit
    model: PathBuf,
    /// Pictures: PNG, JPEG, GIF, BMP or WebP of any size; or arrays of the network's shape (.npy)
    #[arg(required = true)]
    pictures: Vec<PathBuf>,
    #[command(flatten)]
    options: ClassifyOptions,
    /// Print one JSON object a picture on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
}

/// How pictures are classified.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ClassifyOptions {
    /// Parameter set [default: the compiled network's; else n15-cnn, or n16-boot where that has too few levels]
    #[arg(long, short, value_name = "PRESET")]
    pub preset: Option<String>,
    /// The most bytes that keys may take in memory, as in 4GiB: fewer keys, more time [default: what the network was compiled for]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_key_bytes: Option<u64>,
    /// How pictures are brought to the network's size [default: as the network was compiled for; else crop]
    #[arg(long, value_parser = fits())]
    pub fit: Option<Fit>,
    #[command(flatten)]
    pub compute: Compute,
    /// Make keys and encryption from this number: for tests only. Whoever knows it can decrypt, and of pictures encrypted with one number
    /// in several runs of this command anyone sees the difference
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

impl Classify {
    /// Runs it.
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        let pictures: Vec<_> = self.pictures.iter().map(|path| Sample::open_all(path)).collect::<Outcome<_>>()?;
        let task = Task {
            model: Some(&self.model),
            pictures: pictures.into_iter().flatten().collect(),
            options: &self.options,
            json: self.json,
        };
        task.run(global)
    }
}

/// What is to be classified, with what, and how.
pub(crate) struct Task<'a> {
    /// Model file; the embedded network if there is none.
    pub model: Option<&'a Path>,
    /// Pictures and what to call them.
    pub pictures: Vec<(Sample, String)>,
    /// What is asked of it.
    pub options: &'a ClassifyOptions,
    /// One JSON object a picture.
    pub json: bool,
}

/// A picture as the network's input.
struct Input {
    image: String,
    tensor: Zeroizing<Tensor<f64>>,
    notes: Vec<String>,
}

impl Task<'_> {
    /// Plans, makes keys, and classifies the pictures, as many in a run as the slots have room for. The last failure of a
    /// picture is returned; the others are classified all the same.
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        let talk = !self.json && !global.quiet;
        let source = model::open(self.model, &global.onnx())?;
        let terms = source.terms(self.options.preset.as_deref(), self.options.max_key_bytes);
        let model::Source { network, name: model_file, digest, .. } = source;
        let mut inputs = Vec::with_capacity(self.pictures.len());
        for (picture, image) in &self.pictures {
            let (tensor, notes) = model::encryptable(&network, picture, self.options.fit, image)?;
            inputs.push(Input { image: image.clone(), tensor, notes });
        }

        let clock = Instant::now();
        // A seeded run is to be repeatable, on any machine.
        let costs = if self.options.seed.is_some() { Costs::Typical } else { Costs::on(&self.options.compute.devices()?) };
        let options = PrepareOptions { pictures: inputs.len(), ..terms.options(costs) };
        let prepared = plan::prepare(&network, terms.preset.as_deref(), options, &self.options.compute)?;
        let planning = clock.elapsed().as_secs_f64();
        for input in &inputs {
            prepared.check_input(&network, &input.tensor).map_err(about(&input.image))?;
        }
        let insecure = prepared.params.is_insecure();
        if talk {
            for Input { image, notes, .. } in &inputs {
                say!("picture   {image}");
                notes.iter().for_each(|note| say!("          {note}"));
            }
            say!("network   {} ({model_file}), input {}", network.name(), network.input().shape);
            say!("          {}", network.input().normalisation_note());
            if insecure || self.options.seed.is_some() {
                say!("WARNING   {}", if insecure { "this preset gives no security" } else { "--seed gives no security" });
            }
            say!();
            plan::print(&prepared, costs);
            say!();
        }
        plan::check_memory(&prepared.plan)?;

        let like = inputs.first().map_or_else(|| told::grey(&network), |input| Ok(Tensor::clone(&input.tensor)))?;
        let like = Zeroizing::new(like);
        let spec = terms.client_spec(&network, digest, &prepared, Purpose::Decrypting(&like))?;
        let run = spec.run_of(Some(digest.together(prepared.lowered.together)), "run is")?.clone();

        // The client: keys, once for all pictures.
        let (count, size) = (prepared.plan.keys().len(), bytes(prepared.plan.key_bytes()));
        if talk {
            let keys = counted(count, "evaluation key");
            say!("client    makes a secret key, which it keeps, and {keys} ({size}) for the server");
        }
        let clock = Instant::now();
        let client = match self.options.seed {
            Some(seed) => Client::insecure_seeded(&spec, &prepared.params, seed)?,
            None => Client::new(&spec, &prepared.params)?,
        };
        let bar = CountBar::new(global.progress_mode(), count, "evaluation keys");
        let keys = client.evaluation_keys(&run, &|| bar.advance())?;
        bar.finish();
        let keygen = clock.elapsed().as_secs_f64();
        let server = Server::new(&prepared).session(Arc::new(keys), inputs.len().div_ceil(prepared.lowered.together))?;
        let made = ClientAndServer { network: &network, clear: Network::new(&network), prepared: &prepared, run, client, server };
        let mut outcome = Ok(());
        for inputs in inputs.chunks(prepared.lowered.together) {
            for mut report in made.classify(self, global, inputs, Seconds { plan: planning, keygen, ..Seconds::default() })? {
                report.model_file.clone_from(&model_file);
                report.expected_max_abs_logit_error = terms.expected_error;
                report.insecure = insecure || self.options.seed.is_some();
                if self.json {
                    report.print_json()
                } else {
                    report.print(global.quiet)
                }
                if let Err(failure) = report.check() {
                    outcome = Err(failure);
                }
            }
        }
        outcome
    }
}

/// Client and server with everything made.
struct ClientAndServer<'a> {
    network: &'a Model,
    clear: Network<f64>,
    prepared: &'a Prepared,
    run: RunSpec,
    client: Client,
    server: Session,
}

impl ClientAndServer<'_> {
    /// One run: a report for each of its pictures.
    fn classify(&self, task: &Task<'_>, global: &Global, inputs: &[Input], mut times: Seconds) -> Outcome<Vec<Report>> {
        let talk = !task.json && !global.quiet;
        let tensors: Vec<Tensor<f64>> = inputs.iter().map(|input| Tensor::clone(&input.tensor)).collect();
        let tensors = Zeroizing::new(tensors);

        // The client: the pictures as shards, encrypted.
        let clock = Instant::now();
        let encrypted = self.client.encrypt(&self.run, &tensors)?;
        times.encrypt = clock.elapsed().as_secs_f64();
        let ciphertext_bytes = 4 * encrypted.words.len() as u64;
        if talk {
            let shards = encrypted.shards(&self.prepared.params);
            let what = if inputs.len() == 1 { "the picture".into() } else { format!("{} pictures", inputs.len()) };
            say!("client    encrypts {what} into {} ({})", counted(shards, "ciphertext"), bytes(ciphertext_bytes));
            say!("server    gets the ciphertexts and the evaluation keys, and runs the network:");
        }

        // The server: no secret key, no picture.
        let clock = Instant::now();
        let bar = LayerBar::new(&self.prepared.plan, global.progress_mode());
        let answer = self.server.run(self.server.expand(&encrypted)?, &bar);
        bar.finish();
        let answer = answer?;
        plan::note_faults(&answer);
        let layers = self.prepared.plan.layers().iter().map(|l| &l.layer).zip(&answer.layer_seconds);
        let layer_seconds: Vec<_> =
            layers.map(|(layer, seconds)| LayerSeconds { layer: layer.clone(), seconds: *seconds }).collect();
        let (answer, device) = (answer.ciphertext, answer.device);
        let words = self.prepared.host.download(answer.buffer()).map_err(|e| explain("the encrypted run failed", &e))?;
        times.run = clock.elapsed().as_secs_f64();
        if talk {
            say!("server    is done after {} and returns {}", seconds(times.run), counted(answer.shards(), "ciphertext"));
        }

        // The client again.
        let clock = Instant::now();
        let logits = Zeroizing::new(self.client.decrypt_unrounded(&self.run, &answer)?);
        times.decrypt = clock.elapsed().as_secs_f64();
        if talk {
            let numbers = logits.iter().take(inputs.len()).map(Vec::len).sum::<usize>();
            say!("client    decrypts {}", counted(numbers, "number"));
            say!();
        }
        let digest = digest(&words);
        let report = |(input, logits): (&Input, &Vec<f64>)| {
            let clear = self.clear.evaluate(&input.tensor).map_err(|e| explain("cannot evaluate the network", &e))?;
            let clear = Zeroizing::new(clear);
            let mut report = Report::new(self.network, self.prepared, clear.values(), logits, times)?;
            report.image.clone_from(&input.image);
            report.pictures_together = inputs.len();
            report.notes.clone_from(&input.notes);
            report.ciphertext_bytes = ciphertext_bytes;
            report.logits_ciphertext_blake3.clone_from(&digest);
            report.device.clone_from(&device);
            report.layer_seconds.clone_from(&layer_seconds);
            report.peak_rss_bytes = system::peak_rss_bytes();
            Ok(report)
        };
        inputs.iter().zip(logits.iter()).map(report).collect()
    }
}

/// BLAKE3 of the words of a ciphertext, each little-endian: equal on every backend for the same seed.
fn digest(words: &[u32]) -> String {
    let mut hasher = blake3::Hasher::new();
    for chunk in words.chunks(1 << 14) {
        let bytes: Vec<u8> = chunk.iter().flat_map(|w| w.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    hasher.finalize().to_hex().to_string()
}

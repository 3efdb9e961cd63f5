//! `cipherlens demo`: a picture is encrypted, classified without being decrypted, and the answer decrypted and compared.
//!
//! [`Client`] holds the secret key; [`Server`] is given the evaluation keys and a ciphertext and nothing else. They run in
//! one process here, and share nothing but what is handed over.

mod report;

use super::client::Client;
use super::device::Compute;
use super::failure::{Outcome, explain};
use super::output::{bytes, say, seconds};
use super::picture::{Fit, Picture};
use super::plan::Costs;
use super::progress::CountBar;
use super::server::Server;
use super::{Global, model, params, plan, system};
use cipherlens::nn::clear::Network;
use report::{Report, Seconds};
use std::path::PathBuf;
use std::time::Instant;

/// The photograph of the demo.
static PHOTOGRAPH: &[u8] = include_bytes!("../../assets/images/chelsea.png");
/// Its place in the repository, as reports name it.
const PHOTOGRAPH_NAME: &str = "assets/images/chelsea.png (embedded)";

/// Encrypt a picture, classify it without decrypting, decrypt the answer
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Picture: PNG, JPEG, GIF, BMP or WebP of any size [default: the embedded photograph of a cat]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Model file [default: the embedded network of eleven classes]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Parameter set
    #[arg(long, short, value_name = "PRESET", default_value = params::DEFAULT_PRESET)]
    preset: String,
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

impl Default for Demo {
    fn default() -> Self {
        let preset = params::DEFAULT_PRESET.to_string();
        Self { image: None, model: None, preset, fit: Fit::default(), compute: Compute::default(), seed: None, json: false }
    }
}

impl Demo {
    /// Runs it.
    pub fn run(&self, global: &Global) -> Outcome {
        let talk = !self.json && !global.quiet;
        let (picture, image) = match &self.image {
            Some(path) => (Picture::open(path)?, path.display().to_string()),
            None => (Picture::decode(PHOTOGRAPH, "cannot read the embedded photograph")?, PHOTOGRAPH_NAME.to_string()),
        };
        let (network, model_file) = model::open(self.model.as_deref())?;
        let (input, notes) = model::input(&network, &picture, self.fit)?;

        let clock = Instant::now();
        // A seeded run is to be repeatable, on any machine.
        let costs = if self.seed.is_some() { Costs::Typical } else { Costs::on(&self.compute) };
        let prepared = plan::prepare(&network, &self.preset, costs, &self.compute)?;
        let planning = clock.elapsed().as_secs_f64();
        let params = &prepared.params;
        if talk {
            say!("picture   {image}");
            notes.iter().for_each(|note| say!("          {note}"));
            say!("network   {} ({model_file}), input {}", network.name(), network.input().shape);
            if params.is_insecure() || self.seed.is_some() {
                say!(
                    "WARNING   {}",
                    if params.is_insecure() { "this preset gives no security" } else { "--seed gives no security" }
                );
            }
            say!();
            plan::print(&prepared, costs);
            say!();
        }
        plan::check_memory(&prepared.plan)?;
        let clear = Network::<f64>::new(&network).evaluate(&input).map_err(|e| explain("cannot evaluate the network", &e))?;

        // The client: keys, then the picture as shards, encrypted.
        let (count, size) = (prepared.plan.keys().len(), bytes(prepared.plan.key_bytes()));
        if talk {
            say!("client    makes a secret key, which it keeps, and {count} evaluation keys ({size}) for the server");
        }
        let clock = Instant::now();
        let client = Client::new(&prepared, self.seed)?;
        let bar = CountBar::new(global.progress_mode(), count, "evaluation keys");
        let keys = client.evaluation_keys(prepared.plan.keys(), self.seed, &|| bar.advance())?;
        bar.finish();
        let keygen = clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        let encrypted = client.encrypt(&prepared, &input, self.seed)?;
        let encrypt = clock.elapsed().as_secs_f64();
        let ciphertext_bytes = 4 * encrypted.words.len() as u64;
        if talk {
            say!("client    encrypts the picture into {} ciphertexts ({})", encrypted.shards(params), bytes(ciphertext_bytes));
            say!("server    gets the ciphertexts and the evaluation keys, and runs the network:");
        }

        // The server: no secret key, no picture.
        let server = Server::new(&prepared, keys)?;
        let clock = Instant::now();
        let answer = server.run(server.expand(&encrypted)?, global.progress_mode())?;
        let (answer, device) = (answer.ciphertext, answer.device);
        let words = prepared.host.download(answer.buffer()).map_err(|e| explain("the encrypted run failed", &e))?;
        let run = clock.elapsed().as_secs_f64();
        if talk {
            say!("server    is done after {} and returns {} ciphertext(s)", seconds(run), answer.shards());
        }

        // The client again.
        let clock = Instant::now();
        let logits = client.decrypt(&prepared, &answer)?;
        let decrypt = clock.elapsed().as_secs_f64();
        if talk {
            say!("client    decrypts {} numbers", logits.len());
            say!();
        }
        let times = Seconds { plan: planning, keygen, encrypt, run, decrypt };
        let mut report = Report::new(&network, &prepared, clear.values(), &logits, times)?;
        report.model_file = model_file;
        report.image = image;
        report.notes = notes;
        report.ciphertext_bytes = ciphertext_bytes;
        report.logits_ciphertext_blake3 = digest(&words);
        report.insecure = params.is_insecure() || self.seed.is_some();
        report.device = device;
        report.peak_rss_bytes = system::peak_rss_bytes();
        if self.json {
            report.print_json()
        } else {
            report.print(global.quiet)
        }
        report.check()
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

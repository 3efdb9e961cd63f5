//! What a run found.

use crate::failure::{Class, Failure, Outcome};
use crate::model::{Likely, likeliest};
use crate::output::{Align, Table, bytes, grouped, say, seconds};
use crate::plan::device_work;
use cipherlens::client::{class_logits, class_name};
use cipherlens::engine::{DeviceRun, Prepared};
use cipherlens::nn::Model;
use cipherlens::plan::LayerReport;
use serde::Serialize;
use zeroize::Zeroizing;

/// Logits that differ by less than this are as good as equal: a smaller range does not make the 1 % bound tighter.
const SMALLEST_RANGE: f64 = 0.01;
/// How many times larger than foreseen an error may be: what is foreseen is the largest of a few.
const FORESEEN_AT_MOST: f64 = 5.0;

/// Seconds of each phase.
/// How far the logits of the classes lie apart.
pub(crate) fn range(logits: &[f64]) -> f64 {
    let logits = Zeroizing::new(class_logits(logits));
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest - logits.iter().copied().fold(f64::INFINITY, f64::min)
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Seconds {
    /// Lowering and planning.
    pub plan: f64,
    /// Secret and evaluation keys.
    pub keygen: f64,
    /// Packing, encoding, encrypting.
    pub encrypt: f64,
    /// The server's work.
    pub run: f64,
    /// Decrypting, decoding, unpacking.
    pub decrypt: f64,
}

/// How long a layer of the plan took.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LayerSeconds {
    /// The layer, as in the plan.
    pub layer: String,
    /// Seconds it took.
    pub seconds: f64,
}

/// Everything worth knowing about a run; `--json` prints it as it is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Version of this program.
    pub version: &'static str,
    /// The network's name.
    pub model: String,
    /// Where it came from.
    pub model_file: String,
    /// Where the picture came from.
    pub image: String,
    /// Pictures in the same run: times, counts and ciphertexts are those of the run.
    pub pictures_together: usize,
    /// What was changed about the picture.
    pub notes: Vec<String>,
    /// Which kernels ran.
    pub backend: &'static str,
    /// Threads.
    pub threads: usize,
    /// Parameter set.
    pub preset: String,
    /// log2 of the ring degree.
    pub log_n: u32,
    /// log2 of the product of all primes.
    pub log_qp: f64,
    /// Bits of classical security of the parameter set; 0: none.
    pub security_bits: u32,
    /// Whether preset or seed give up security.
    pub insecure: bool,
    /// Ciphertexts of the picture.
    pub input_shards: usize,
    /// Most ciphertexts of one value.
    pub max_shards: usize,
    /// Levels used.
    pub levels: usize,
    /// The class decrypted.
    pub label: String,
    /// The class of the clear evaluation.
    pub clear_label: String,
    /// The three likeliest classes.
    pub top: Vec<Likely>,
    /// Decrypted logits.
    pub logits: Vec<f64>,
    /// Clear logits.
    pub clear_logits: Vec<f64>,
    /// Largest difference of the two.
    pub max_abs_logit_error: f64,
    /// What compiling the network foresaw of it; null where that was not done, or for another parameter set.
    pub expected_max_abs_logit_error: Option<f64>,
    /// Mean difference.
    pub mean_abs_logit_error: f64,
    /// Largest clear logit minus smallest.
    pub logit_range: f64,
    /// log2 of the logit range over the largest difference.
    pub precision_bits: f64,
    /// Seconds of each phase.
    pub seconds: Seconds,
    /// What the plan said `run` would take.
    pub estimated_run_seconds: f64,
    /// What the plan said the peak would be.
    pub estimated_peak_bytes: u64,
    /// Peak memory of this process, client and server together.
    pub peak_rss_bytes: Option<u64>,
    /// What a GPU was expected to do and did; null where none computed.
    pub device: Option<DeviceRun>,
    /// Rotations, shard by shard.
    pub rotations: usize,
    /// Products with a key: rotations and relinearizations.
    pub key_switches: usize,
    /// Plaintext-ciphertext products.
    pub plaintext_products: usize,
    /// Ciphertext-ciphertext products.
    pub ciphertext_products: usize,
    /// Bootstrapped values.
    pub bootstraps: usize,
    /// Evaluation keys.
    pub keys: usize,
    /// Their bytes in memory.
    pub key_bytes: u64,
    /// Bytes of the encrypted picture.
    pub ciphertext_bytes: u64,
    /// BLAKE3 of the encrypted answer's words, little-endian; the same on every backend for the same `--seed`.
    pub logits_ciphertext_blake3: String,
    /// The plan, layer by layer.
    pub layers: Vec<LayerReport>,
    /// What each of its layers took.
    pub layer_seconds: Vec<LayerSeconds>,
    #[serde(skip)]
    class_names: Vec<String>,
}

impl Report {
    /// Compares decrypted with clear logits.
    pub(crate) fn new(network: &Model, prepared: &Prepared, clear: &[f64], logits: &[f64], seconds: Seconds) -> Outcome<Self> {
        let (params, plan) = (&prepared.params, &prepared.plan);
        let counts = plan.counts();
        if clear.len() != logits.len() || clear.is_empty() {
            let why = format!("{} logits were decrypted, {} expected", logits.len(), clear.len());
            return Err(Failure::new(Class::Bug, "the answer has the wrong shape", why, crate::failure::BUG_ADVICE));
        }
        let errors: Vec<f64> = clear.iter().zip(logits).map(|(a, b)| (a - b).abs()).collect();
        let max_abs_logit_error = errors.iter().copied().fold(0.0, f64::max);
        let logit_range = range(clear);
        let top = likeliest(network.classes(), logits, 3);
        let label = |top: &[Likely]| top.first().map_or(String::new(), |l| l.class.clone());
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            model: network.name().into(),
            model_file: String::new(),
            image: String::new(),
            pictures_together: 1,
            notes: Vec::new(),
            backend: prepared.backend.name(),
            threads: rayon::current_num_threads(),
            preset: params.name().into(),
            log_n: params.log_n(),
            log_qp: params.log_qp(),
            security_bits: params.security_bits_claim(),
            insecure: params.is_insecure(),
            input_shards: prepared.lowered.program.input_shards,
            max_shards: plan.max_shards(),
            levels: plan.input_level().0,
            label: label(&top),
            clear_label: label(&likeliest(network.classes(), clear, 1)),
            top,
            logits: logits.to_vec(),
            clear_logits: clear.to_vec(),
            max_abs_logit_error,
            expected_max_abs_logit_error: None,
            mean_abs_logit_error: errors.iter().sum::<f64>() / errors.len() as f64,
            logit_range,
            precision_bits: (logit_range / max_abs_logit_error).log2(),
            seconds,
            estimated_run_seconds: plan.seconds(),
            estimated_peak_bytes: plan.peak_bytes(),
            peak_rss_bytes: None,
            device: None,
            rotations: counts.rotations,
            key_switches: counts.key_switches,
            plaintext_products: counts.plaintext_products,
            ciphertext_products: counts.ciphertext_products,
            bootstraps: plan.bootstraps(),
            keys: plan.keys().len(),
            key_bytes: plan.key_bytes(),
            ciphertext_bytes: 0,
            logits_ciphertext_blake3: String::new(),
            layers: plan.layers().to_vec(),
            layer_seconds: Vec::new(),
            class_names: (0..logits.len()).map(|c| class_name(network.classes(), c)).collect(),
        })
    }

    /// One JSON line.
    pub(crate) fn print_json(&self) {
        // A struct of numbers, strings and lists always serializes.
        say!("{}", serde_json::to_string(self).unwrap_or_default());
    }

    /// For a person.
    pub(crate) fn print(&self, quiet: bool) {
        if self.pictures_together > 1 {
            say!("The encrypted answer for {}: {}", self.image, self.label);
        } else {
            say!("The encrypted answer: {}", self.label);
        }
        if quiet {
            return;
        }
        say!();
        for likely in &self.top {
            say!("  {:5.1} %  {}", 100.0 * likely.probability, likely.class);
        }
        say!();
        let mut table = Table::new([
            ("class", Align::Left),
            ("clear", Align::Right),
            ("encrypted", Align::Right),
            ("difference", Align::Right),
        ]);
        for ((class, clear), logit) in self.class_names.iter().zip(&self.clear_logits).zip(&self.logits) {
            table.row([class.clone(), format!("{clear:.6}"), format!("{logit:.6}"), format!("{:.1e}", logit - clear)]);
        }
        table.print("  ");
        say!();
        say!(
            "clear evaluation says {}; largest difference {:.2e} of a range of {:.2}, that is {:.1} bits",
            self.clear_label,
            self.max_abs_logit_error,
            self.logit_range,
            self.precision_bits
        );
        if let Some(expected) = self.expected_max_abs_logit_error {
            say!("expected by the plan: {expected:.1e}");
        }
        let s = &self.seconds;
        say!(
            "seconds: plan {}, keygen {}, encrypt {}, run {} (estimated {}), decrypt {}",
            seconds(s.plan),
            seconds(s.keygen),
            seconds(s.encrypt),
            seconds(s.run),
            seconds(self.estimated_run_seconds),
            seconds(s.decrypt)
        );
        if self.pictures_together > 1 {
            let each = seconds(s.run / self.pictures_together as f64);
            say!("{} pictures in that run, {each} each", self.pictures_together);
        }
        let peak = self.peak_rss_bytes.map_or("unknown".into(), bytes);
        say!(
            "{} rotations, {} key switches, {} plaintext products on {} ({} threads); peak memory {peak}",
            grouped(self.rotations),
            grouped(self.key_switches),
            grouped(self.plaintext_products),
            self.backend,
            self.threads
        );
        if let Some(DeviceRun { planned, done, faults }) = &self.device {
            say!("GPU: {}", device_work(done));
            match planned {
                Some(planned) if planned.dispatches != done.dispatches => say!("     planned: {}", device_work(planned)),
                Some(_) => say!("     as planned"),
                None => say!("     more than the plan could tell"),
            }
            faults.iter().for_each(|fault| say!("     redone on the processor: {fault}"));
        }
        say!();
        say!("Logits are shown because you are the client. Do not hand them back to the server: they tell it about your key.");
    }

    /// A failure if the encrypted answer is not the clear one: off by more than 1 % of the logits' range, and than what was foreseen when the
    /// network was compiled, which left as many answers as were asked for.
    pub(crate) fn check(&self) -> Outcome {
        let foreseen = self.expected_max_abs_logit_error.map_or(0.0, |error| FORESEEN_AT_MOST * error);
        let most = (0.01 * self.logit_range.max(SMALLEST_RANGE)).max(foreseen);
        if self.logits.iter().all(|l| l.is_finite()) && self.max_abs_logit_error <= most {
            return Ok(());
        }
        Err(Failure::new(
            Class::Numeric,
            "the encrypted answer is off by more than 1 % of the logits' range",
            format!("largest difference {:.3e}, range {:.3e}", self.max_abs_logit_error, self.logit_range),
            "use a preset with a larger scale; if the values inside the network are small, report this as a bug",
        ))
    }
}

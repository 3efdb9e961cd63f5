//! `cipherlens bench`: what operations cost on this machine, beside the least they could cost.

mod backends;
mod bootstrap;
pub mod cases;
pub mod floor;
pub mod networks;
mod ops;
mod rotations;

use super::compute::Compute;
use super::failure::{Class, Failure, Outcome, explain};
use super::{Global, params};
use cipherlens::backend::Backend;
use cipherlens::ckks::{
    Ciphertext, CkksError, Encoder, Encryptor, Evaluator, Gadget, KeyGenerator, KeyKind, KeyRequest, Params, PlainForm,
    RandomSource, SecretKey,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time single operations on this machine
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Transforms, products, rotations, rescaling, encoding, encryption
    Ops(ops::Ops),
    /// Rotations of many shards with the same keys: each key is read once for all shards
    Rotations(rotations::Rotations),
    /// Kernels, key switches, rotations, a convolution and the demo, on the processor and on a GPU, compared bit for bit
    Backends(backends::Backends),
    /// A whole bootstrap: seconds by stage, precision, levels, keys, memory
    Bootstrap(bootstrap::Bootstrap),
}

/// Options of every benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// Measure each operation for at least this many seconds
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = positive)]
    seconds: f64,
    #[command(flatten)]
    compute: Compute,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|s: &f64| (0.0..=3600.0).contains(s)).ok_or_else(|| "a number from 0 to 3600 is needed".into())
}

impl Bench {
    /// Runs and prints.
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        match &self.action {
            Action::Ops(ops) => ops.run(global),
            Action::Rotations(rotations) => rotations.run(global),
            Action::Backends(backends) => backends.run(global),
            Action::Bootstrap(bootstrap) => bootstrap.run(global),
        }
    }
    /// Whether the answer is to be one JSON line.
    pub(crate) fn json(&self) -> bool {
        match &self.action {
            Action::Ops(ops) => ops.common.json,
            Action::Rotations(rotations) => rotations.common.json,
            Action::Backends(backends) => backends.json,
            Action::Bootstrap(bootstrap) => bootstrap.json,
        }
    }
}

/// How long one operation takes.
#[derive(Debug, Clone, Copy)]
struct Timing {
    median: f64,
    least: f64,
    repetitions: usize,
}

/// Runs `f` once to warm up, then for at least `seconds` and three times, each time until a GPU is done with it.
fn measure(backend: &dyn Backend, seconds: f64, mut f: impl FnMut() -> Result<(), CkksError>) -> Outcome<Timing> {
    let failed = |e: CkksError| explain("the operation failed", &e);
    let mut f = || f().and_then(|()| Ok(backend.synchronize()?));
    f().map_err(failed)?;
    let mut times: Vec<f64> = Vec::new();
    let begun = Instant::now();
    while times.len() < 3 || begun.elapsed() < Duration::from_secs_f64(seconds) {
        let clock = Instant::now();
        f().map_err(failed)?;
        times.push(clock.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(Timing { median: times[times.len() / 2], least: times[0], repetitions: times.len() })
}

/// Runs `f` in a pool of each size asked for, or in the usual one.
fn with_pools<T: Send>(global: &Global, f: impl Fn(usize) -> Outcome<T> + Send + Sync) -> Outcome<Vec<T>> {
    if global.threads.len() < 2 {
        return Ok(vec![f(rayon::current_num_threads())?]);
    }
    let in_pool = |&threads: &u16| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.into())
            .build()
            .map_err(|e| Failure::from_error(Class::Resources, "cannot start the worker threads", &e, "ask for fewer threads"))?;
        pool.install(|| f(threads.into()))
    };
    global.threads.iter().map(in_pool).collect()
}

/// A scheme with keys for a benchmark, at the top level of a preset.
struct KeyedScheme {
    params: Arc<Params>,
    backend: Arc<dyn Backend>,
    gadget: Gadget,
    encoder: Encoder,
    encryptor: Encryptor,
    generator: KeyGenerator,
    secret: SecretKey,
    evaluator: Evaluator,
}

impl KeyedScheme {
    /// Keys for relinearization and these rotations, with `alpha` primes a digit or the cheapest number.
    fn new(preset: &str, compute: &Compute, alpha: Option<usize>, rotations: &[i64]) -> Outcome<Self> {
        let params = params::open(preset)?;
        let backend = compute.open(&params)?;
        Self::make(params, backend, alpha, rotations).map_err(|e| explain("cannot prepare the benchmark", &e))
    }

    fn make(params: Arc<Params>, backend: Arc<dyn Backend>, alpha: Option<usize>, rotations: &[i64]) -> Result<Self, CkksError> {
        let top = params.max_level();
        let gadget = match alpha {
            Some(alpha) => params.gadget(top..=top, alpha)?,
            None => params.best_gadget(top..=top)?,
        };
        // Nothing secret is protected here, and a fixed seed makes runs repeatable.
        let generator = KeyGenerator::new(&params, backend.clone(), RandomSource::insecure_seeded(1))?;
        let secret = generator.secret_key()?;
        let galois = rotations.iter().map(|&k| KeyKind::Galois(params.galois_element(k)));
        let requests: Vec<KeyRequest> = galois.chain([KeyKind::Relin]).map(|kind| KeyRequest { kind, gadget }).collect();
        let keys = Arc::new(generator.generate(&secret, &requests)?);
        Ok(Self {
            encoder: Encoder::new(params.clone(), backend.clone()),
            encryptor: Encryptor::new(&params, backend.clone(), RandomSource::insecure_seeded(2))?,
            evaluator: Evaluator::new(params.clone(), backend.clone(), keys)?,
            generator,
            secret,
            gadget,
            backend,
            params,
        })
    }

    /// Values in [-1, 1], one vector a shard.
    fn vectors(&self, shards: usize) -> Vec<Vec<f64>> {
        let value = |s: usize, i: usize| ((i * 37 + s * 11) % 1000) as f64 / 500.0 - 1.0;
        (0..shards).map(|s| (0..self.params.slots()).map(|i| value(s, i)).collect()).collect()
    }

    /// A fresh ciphertext at the top level.
    fn encrypt(&self, shards: usize) -> Outcome<Ciphertext> {
        let top = self.params.max_level();
        let (scale, basis) = (self.params.scale(top), self.params.window(top));
        let plain = self.encoder.encode_shards(&self.vectors(shards), scale, basis, PlainForm::Plain);
        let encrypted = plain.and_then(|plain| self.encryptor.encrypt(&self.secret, &plain));
        encrypted.map_err(|e| explain("cannot encrypt", &e))
    }

    /// What the benchmark ran on, for JSON.
    fn describe(&self) -> serde_json::Value {
        let (top, gadget) = (self.params.max_level(), &self.gadget);
        let log_p: f64 = self.params.tables().log2(&self.params.gadget_special(gadget));
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"), "preset": self.params.name(), "backend": self.backend.name(),
            "cpu": super::system::cpu_name(), "log_n": self.params.log_n(), "limbs": self.params.window(top).len(),
            "log_q": self.params.log_q(top), "special_primes": gadget.special(), "log_p": log_p,
            "digits": gadget.digits(), "alpha": gadget.alpha(), "key_bytes": gadget.key_bytes(self.params.degree()),
        })
    }

    /// What the benchmark ran on, for a person.
    fn headline(&self) -> String {
        let d = self.describe();
        format!(
            "{}: N = 2^{}, log Q {:.0} ({} limbs), log P {:.0} ({} primes), {} digits; {} on {}",
            self.params.name(),
            self.params.log_n(),
            d["log_q"].as_f64().unwrap_or(0.0),
            d["limbs"],
            d["log_p"].as_f64().unwrap_or(0.0),
            d["special_primes"],
            d["digits"],
            self.backend.name(),
            super::system::cpu_name().unwrap_or_else(|| "an unknown processor".into())
        )
    }
}

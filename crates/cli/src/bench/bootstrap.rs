//! `cipherlens bench bootstrap`: seconds, levels, precision, keys and memory of a bootstrap.

use super::Compute;
use crate::Global;
use crate::compute::size;
use crate::failure::{Outcome, explain};
use crate::output::{Align, Table, bytes, say};
use crate::progress::{CountBar, Mode};
use crate::{params, system};
use cipherlens::backend::{Backend, Place};
use cipherlens::circuits::bootstrap::Stages;
use cipherlens::circuits::{BootstrapOptions, Bootstrapper, CircuitError, EncryptedEngine, NoisyEngine, Order};
use cipherlens::ckks::{
    CkksError, Decryptor, Encoder, Encryptor, Evaluator, KeyGenerator, Params, PlainForm, PrecisionStats, RandomSource,
    SecretKey, overflow::log2_failure,
};
use cipherlens::plan::CostModel;
use rand::{RngExt, SeedableRng};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A whole bootstrap: seconds by stage, precision over random values of [-1, 1], levels, keys, memory
#[derive(Debug, clap::Args)]
pub(super) struct Bootstrap {
    /// Parameter set
    #[arg(long, short, value_name = "PRESET", default_value = "n16-boot")]
    preset: String,
    /// Slots of a vector, a power of two; fewer than N/2 repeat [default: the most there are]
    #[arg(long, value_name = "N")]
    slots: Option<usize>,
    /// Real vectors bootstrapped by one call; two share a ciphertext
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Random vectors in all, over as many calls as that takes; the first call also prepares what later ones reuse
    #[arg(long, value_name = "C", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=4096))]
    ciphertexts: u16,
    /// SlotsToCoeffs before the modulus is raised, or at the end
    #[arg(long, value_name = "first|last", default_value = "first", value_parser = ["first", "last"])]
    slots_to_coeffs: String,
    /// The most bytes that keys may take, as in 2GiB: fewer keys, more time
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_key_bytes: Option<u64>,
    /// The most bytes of encoded diagonals to keep between calls, as in 1GiB
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "2GiB")]
    max_prepared_bytes: u64,
    #[command(flatten)]
    compute: Compute,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Seconds of each stage, in order, summed over the calls measured.
struct Clock<'a> {
    backend: &'a dyn Backend,
    state: Mutex<(Instant, Vec<(&'static str, f64)>)>,
}

impl Clock<'_> {
    fn seconds(&self) -> Vec<(&'static str, f64)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
    fn restart(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = Instant::now();
    }
}

impl Stages for Clock<'_> {
    fn done(&self, stage: &'static str) {
        // A failure shows in the next operation.
        let _ = self.backend.synchronize();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = state.0.elapsed().as_secs_f64();
        state.0 = Instant::now();
        match state.1.iter_mut().find(|(name, _)| *name == stage) {
            Some((_, seconds)) => *seconds += spent,
            None => state.1.push((stage, spent)),
        }
    }
}

/// What was measured.
struct Measured {
    keygen: f64,
    /// Seconds of each call, the first one apart.
    first: f64,
    calls: Vec<f64>,
    /// Processor seconds of a call, on average: what other work on the machine disturbs least.
    cpu: Option<f64>,
    stages: Vec<(&'static str, f64)>,
    precision: PrecisionStats,
    predicted: PrecisionStats,
    prepared_bytes: usize,
    /// What the planner thinks a call takes, from kernels timed on this machine.
    estimated: f64,
}

impl Bootstrap {
    /// Measures and prints.
    pub(super) fn run(&self, _: &Global) -> Outcome {
        let params = params::open(&self.preset)?;
        let backend = self.compute.open(&params)?;
        let order = if self.slots_to_coeffs == "first" { Order::SlotsFirst } else { Order::SlotsLast };
        let options = BootstrapOptions {
            order,
            slots: self.slots.unwrap_or(params.slots()),
            max_key_bytes: self.max_key_bytes,
            batch: usize::from(self.batch).div_ceil(2),
        };
        let bootstrapper = Bootstrapper::new(&params, &options).map_err(|e| explain("cannot bootstrap like this", &e))?;
        let measured = self.measure(&params, &backend, &bootstrapper).map_err(|e| explain("the bootstrap failed", &e))?;
        self.report(&params, backend.as_ref(), &bootstrapper, &measured).map_err(|e| explain("the bootstrap failed", &e))
    }

    fn measure(
        &self,
        params: &Arc<Params>,
        backend: &Arc<dyn Backend>,
        bootstrapper: &Bootstrapper,
    ) -> Result<Measured, CircuitError> {
        // Nothing secret is protected here, and a fixed seed makes runs repeatable.
        let generator = KeyGenerator::new(params, backend.clone(), RandomSource::insecure_seeded(1))?;
        let secret = generator.secret_key()?;
        let bar = CountBar::new(if self.json { Mode::None } else { Mode::Auto }, bootstrapper.keys().len(), "keys");
        let clock = Instant::now();
        let keys = generator.generate_with(&secret, bootstrapper.keys(), &|| bar.advance())?;
        let keygen = clock.elapsed().as_secs_f64();
        bar.finish();
        let evaluator = Evaluator::new(params.clone(), backend.clone(), Arc::new(keys))?;
        let engine = EncryptedEngine::new(evaluator).with_prepared_bytes(self.max_prepared_bytes as usize);
        let client = Client {
            encoder: Encoder::new(params.clone(), backend.clone()),
            encryptor: Encryptor::new(params, backend.clone(), RandomSource::insecure_seeded(2))?,
            decryptor: Decryptor::new(params, backend.clone())?,
            secret,
        };
        let slots = bootstrapper.options().slots;
        let mut random = chacha20::ChaCha20Rng::seed_from_u64(3);
        let stages = Clock { backend: backend.as_ref(), state: Mutex::new((Instant::now(), Vec::new())) };
        let (mut wants, mut gots, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        let batch = usize::from(self.batch);
        let count = usize::from(self.ciphertexts).div_ceil(batch).max(2);
        let bar = CountBar::new(if self.json { Mode::None } else { Mode::Auto }, count, "bootstraps");
        let mut cpu_before = None;
        let mut cpu = 0.0;
        for call in 0..count {
            let want: Vec<Vec<f64>> = (0..batch).map(|_| (0..slots).map(|_| random.random_range(-1.0..=1.0)).collect()).collect();
            let ct = Arc::new(client.encrypt(params, &want, bootstrapper)?);
            let clock = Instant::now();
            if call > 0 {
                cpu_before = system::cpu_seconds();
            }
            // On a thread of the pool, as `plan::execute` does it.
            let fresh = rayon::scope(|_| match call {
                0 => bootstrapper.apply(&engine, &ct),
                _ => {
                    stages.restart();
                    bootstrapper.apply_observed(&engine, &ct, &stages)
                }
            })?;
            backend.synchronize().map_err(CkksError::from)?;
            calls.push(clock.elapsed().as_secs_f64());
            cpu += system::cpu_seconds().zip(cpu_before).map_or(0.0, |(after, before)| after - before);
            gots.extend(client.decryptor.decrypt_real(&client.secret, &fresh)?.into_iter().map(|mut v| {
                v.truncate(slots);
                v
            }));
            wants.extend(want);
            bar.advance();
        }
        bar.finish();
        let precision = PrecisionStats::compare_shards(&wants, &gots)?;
        let cost = CostModel::measure(params, backend)?;
        let estimated = cost.price(params, &bootstrapper.trace(batch)?).map_err(CkksError::from)?;
        let noisy = NoisyEngine::new(params, 4);
        let x = noisy.encrypted(wants[..batch].to_vec(), bootstrapper.input_level());
        let y = bootstrapper.apply(&noisy, &x)?;
        let predicted = PrecisionStats::compare_shards(&wants[..batch], &y.shards)?;
        let first = calls.remove(0);
        calls.sort_by(f64::total_cmp);
        let stages = stages.seconds().into_iter().map(|(name, s)| (name, s / calls.len() as f64)).collect();
        let cpu = cpu_before.map(|_| cpu / calls.len() as f64);
        Ok(Measured {
            keygen,
            first,
            calls,
            cpu,
            stages,
            precision,
            predicted,
            prepared_bytes: engine.prepared().bytes(),
            estimated,
        })
    }

    fn report(&self, params: &Params, backend: &dyn Backend, b: &Bootstrapper, m: &Measured) -> Result<(), CircuitError> {
        let (input, output) = (b.input_level(), b.output_level());
        let median = m.calls[m.calls.len() / 2];
        let spec = params.need_bootstrap().map_err(CkksError::from)?;
        let failure = log2_failure(spec.weight, spec.k, params.degree() * usize::from(self.batch).div_ceil(2));
        let counts = b.trace(self.batch.into())?.counts;
        let peak = system::peak_rss_bytes();
        let vram = (backend.place() == Place::Device).then(|| backend.statistics().peak_bytes);
        if self.json {
            let object = serde_json::json!({
                "bench": "bootstrap", "version": env!("CARGO_PKG_VERSION"), "preset": params.name(), "backend": backend.name(),
                "cpu": system::cpu_name(), "threads": rayon::current_num_threads(), "log_n": params.log_n(),
                "slots": b.options().slots, "batch": self.batch, "order": b.options().order,
                "seconds": median, "seconds_min": m.calls[0], "cpu_seconds": m.cpu, "seconds_per_vector": median / f64::from(self.batch),
                "seconds_first_call": m.first, "estimated_seconds": m.estimated, "calls": m.calls.len(), "stages": m.stages.iter().map(|&(n, s)| (n.to_string(), s.into())).collect::<serde_json::Map<_, _>>(),
                "ciphertexts": m.precision.count / b.options().slots,
                "precision_bits_mean": m.precision.mean_bits, "precision_bits_worst": m.precision.worst_bits,
                "predicted_bits_mean": m.predicted.mean_bits, "predicted_bits_worst": m.predicted.worst_bits,
                "levels_before": input.0, "level_after": output.0, "levels_after": output.0 - input.0,
                "log_qp": params.log_qp(), "security_bits": params.security_bits_claim(),
                "log2_failure": failure, "keys": b.keys().len(), "key_bytes": b.key_bytes(), "keygen_seconds": m.keygen,
                "prepared_bytes": m.prepared_bytes, "peak_rss_bytes": peak, "peak_vram_bytes": vram, "counts": counts,
            });
            say!("{object}");
            return Ok(());
        }
        let security = params.security_bits_claim();
        say!(
            "{}: N = 2^{}, log QP {:.0}, {security} bits of classical security; {} on {}",
            params.name(),
            params.log_n(),
            params.log_qp(),
            backend.name(),
            system::cpu_name().unwrap_or_else(|| "an unknown processor".into())
        );
        say!();
        let mut table = Table::new([("stage", Align::Left), ("seconds", Align::Right)]);
        for (name, seconds) in &m.stages {
            table.row([name.to_string(), format!("{seconds:.3}")]);
        }
        table.rule();
        table.row([format!("{} vector(s), median of {}", self.batch, m.calls.len()), format!("{median:.3}")]);
        if let Some(cpu) = m.cpu {
            table.row(["processor time of all threads".into(), format!("{cpu:.3}")]);
        }
        table.row(["the first call".into(), format!("{:.3}", m.first)]);
        table.row(["estimated from kernels".into(), format!("{:.3}", m.estimated)]);
        table.print("");
        say!();
        say!("precision   {} (predicted {:.1} mean, {:.1} worst)", m.precision, m.predicted.mean_bits, m.predicted.worst_bits);
        say!("levels      from level {} to level {}: {} to spend before the next", input.0, output.0, output.0 - input.0);
        say!("failure     2^{failure:.0} a call");
        say!("keys        {}, {}, made in {:.1} s", b.keys().len(), bytes(b.key_bytes()), m.keygen);
        say!("prepared    {}", bytes(m.prepared_bytes as u64));
        say!("peak memory {}", peak.map_or("unknown".into(), bytes));
        if let Some(vram) = vram {
            say!("on the GPU  {}", bytes(vram));
        }
        Ok(())
    }
}

/// The side with the secret.
struct Client {
    encoder: Encoder,
    encryptor: Encryptor,
    decryptor: Decryptor,
    secret: SecretKey,
}

impl Client {
    /// Vectors repeated over all slots, at the level where bootstrapping starts.
    fn encrypt(
        &self,
        params: &Params,
        vectors: &[Vec<f64>],
        b: &Bootstrapper,
    ) -> Result<cipherlens::ckks::Ciphertext, CircuitError> {
        let level = b.input_level();
        let repeated: Vec<Vec<f64>> = vectors.iter().map(|v| v.iter().copied().cycle().take(params.slots()).collect()).collect();
        let plain = self.encoder.encode_shards(&repeated, params.scale(level), params.window(level), PlainForm::Plain)?;
        Ok(self.encryptor.encrypt(&self.secret, &plain)?)
    }
}

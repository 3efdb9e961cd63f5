//! Where to compute: `--backend`, and what `doctor` says about GPUs.

use super::failure::{Class, Failure, Outcome, explain};
use cipherlens::backend::Backend;
use cipherlens::backend::choice::{Choice, Devices, Opened};
use cipherlens::ckks::Params;
use cipherlens::plan::Target;
#[cfg(feature = "gpu")]
use cipherlens::{
    backend::gpu::Rates,
    ckks::presets,
    engine::{DEFAULT_PRESET, EngineError},
};
use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use std::sync::Arc;

/// Where to compute: options of every command that evaluates on ciphertexts. Keys are made, pictures encrypted and answers
/// decrypted on the processor whatever is chosen here, since a secret key never reaches a GPU.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Compute {
    /// Where to compute: cpu, gpu, or auto for a GPU that passes its self-test, else the processor [default: cpu]
    #[arg(long, value_name = "auto|cpu|gpu",
          value_parser = PossibleValuesParser::new(Choice::NAMES).try_map(|name| name.parse::<Choice>()))]
    backend: Option<Choice>,
    /// The GPU whose name has this in it, software adapters included [default: WGPU_ADAPTER_NAME, else the best GPU]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    adapter: Option<String>,
    /// The most GPU memory to take, as in 6GiB or 500MB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_vram: Option<u64>,
}

/// The device to plan for: `cpu`, or `gpu` with the rates of the one that there is, else those of a usual one; in words what was taken.
pub(crate) fn target(name: &str) -> Outcome<(Target, Option<String>)> {
    if name == "cpu" {
        return Ok((Target::Processor, None));
    }
    #[cfg(feature = "gpu")]
    {
        let params = presets::by_name(DEFAULT_PRESET).map_err(EngineError::from)?;
        let opened = Devices::from(Choice::Gpu).open(params.tables().clone()).ok();
        let (rates, whose) = match opened.and_then(|opened| opened.gpu) {
            Some(gpu) => {
                let rates = gpu.rates().map_err(|e| explain("cannot measure the GPU", &e))?;
                (rates, gpu.adapter().name.clone())
            }
            None => (Rates::TYPICAL, "no GPU here; an NVIDIA H100's rates".into()),
        };
        let (gap, traffic) = (1e6 * rates.gap, 1e-9 * rates.traffic);
        let words = format!("planned for a GPU ({whose}): {gap:.1} us from kernel to kernel, {traffic:.0} GB/s");
        Ok((Target::Gpu(rates), Some(words)))
    }
    #[cfg(not(feature = "gpu"))]
    {
        let why = "GPU support was left out when it was built";
        Err(Failure::new(
            Class::Usage,
            "this program does not plan for GPUs",
            why,
            "leave out --for, or build it with GPU support",
        ))
    }
}

/// Bytes from `123`, `64MiB`, `6GB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return Err("a number of bytes is needed, as in 6GiB, 500MB or 1000000".into()),
    };
    let bytes = number.parse::<f64>().map_err(|e| e.to_string())? * unit;
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err("at least one byte is needed".into()) }
}

impl Compute {
    /// What is asked for. A GPU that is named is one that is wanted.
    pub(crate) fn devices(&self) -> Outcome<Devices> {
        self.devices_or(Choice::Cpu)
    }

    /// The same for a command that does otherwise where nothing is asked for.
    pub(crate) fn devices_or(&self, usual: Choice) -> Outcome<Devices> {
        let named = self.adapter.is_some();
        let choice = self.backend.unwrap_or(if named { Choice::Gpu } else { usual });
        if choice == Choice::Cpu && (named || self.max_vram.is_some()) {
            let option = if named { "--adapter" } else { "--max-vram" };
            let why = format!("{option} is about a GPU, and the processor is to compute");
            return Err(Failure::new(Class::Usage, "these options contradict each other", why, "say --backend gpu or auto"));
        }
        Ok(Devices { choice, adapter: self.adapter.clone(), memory_limit: self.max_vram })
    }

    /// Whether the processor is sure to compute.
    pub(crate) fn is_cpu(&self) -> bool {
        self.devices().is_ok_and(|d| d.choice == Choice::Cpu)
    }

    /// Opens it, and says on standard error why `auto` took no GPU.
    pub(crate) fn open(&self, params: &Params) -> Outcome<Arc<dyn Backend>> {
        let Opened { backend, no_gpu, .. } = self.devices()?.open(params.tables().clone()).map_err(|e| match self.is_cpu() {
            true => explain("cannot start the CPU kernels", &e),
            false => explain("cannot compute on a GPU", &e),
        })?;
        if let Some(why) = no_gpu {
            crate::output::tell!("note: computing on the processor: {why}");
        }
        Ok(backend)
    }
}

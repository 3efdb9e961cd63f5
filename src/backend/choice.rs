//! Which machine computes: the processor or a GPU, as the user chooses.

use super::cpu::CpuBackend;
#[cfg(feature = "gpu")]
use super::gpu::{GpuBackend, GpuOptions};
use super::{Backend, BackendError, Result};
use crate::math::RnsTables;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// A GPU that passes its self-test, else the processor.
    Auto,
    /// The processor.
    #[default]
    Cpu,
    /// A GPU, or an error.
    Gpu,
}

impl Choice {
    /// The names by which a choice is asked for.
    pub const NAMES: [&'static str; 3] = ["auto", "cpu", "gpu"];
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

impl FromStr for Choice {
    type Err = BackendError;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "gpu" => Ok(Self::Gpu),
            _ => Err(BackendError::NoSuchChoice { asked: name.to_owned(), have: &Self::NAMES }),
        }
    }
}

/// A choice with its details.
#[derive(Debug, Clone, Default)]
pub struct Devices {
    /// Where to compute.
    pub choice: Choice,
    /// Part of the name of the GPU's adapter; none: what `WGPU_ADAPTER_NAME` names, else the best one. Software adapters
    /// are taken by name only.
    pub adapter: Option<String>,
    /// The most bytes of GPU memory to take for residues.
    pub memory_limit: Option<u64>,
}

/// A backend that was opened.
#[derive(Debug, Clone)]
pub struct Opened {
    /// What computes.
    pub backend: Arc<dyn Backend>,
    /// The same, where it is a GPU.
    #[cfg(feature = "gpu")]
    pub gpu: Option<Arc<GpuBackend>>,
    /// Where [`Choice::Auto`] took the processor: why no GPU.
    pub no_gpu: Option<BackendError>,
}

impl From<Choice> for Devices {
    fn from(choice: Choice) -> Self {
        Self { choice, ..Self::default() }
    }
}

impl Devices {
    /// Opens a backend for these primes. A GPU is tested first (`gpu::GpuBackend::new`).
    ///
    /// # Errors
    /// Those of `gpu::GpuBackend::new` where a GPU was asked for, [`BackendError::NoGpuSupport`] where the library
    /// was built without, [`BackendError::Isa`] where the processor lacks the kernels that `CIPHERLENS_CPU` names.
    pub fn open(&self, tables: Arc<RnsTables>) -> Result<Opened> {
        let no_gpu = match self.choice {
            Choice::Cpu => None,
            Choice::Gpu => return self.open_gpu(tables),
            Choice::Auto => match self.open_gpu(tables.clone()) {
                Ok(opened) => return Ok(opened),
                Err(e) => Some(e),
            },
        };
        Ok(Opened {
            backend: Arc::new(CpuBackend::new(tables)?),
            #[cfg(feature = "gpu")]
            gpu: None,
            no_gpu,
        })
    }

    #[cfg(feature = "gpu")]
    fn open_gpu(&self, tables: Arc<RnsTables>) -> Result<Opened> {
        let gpu = Arc::new(GpuBackend::new(tables, &self.gpu_options())?.compile_ahead());
        Ok(Opened { backend: gpu.clone(), gpu: Some(gpu), no_gpu: None })
    }

    #[cfg(not(feature = "gpu"))]
    fn open_gpu(&self, _tables: Arc<RnsTables>) -> Result<Opened> {
        Err(BackendError::NoGpuSupport)
    }

    /// What these details mean for a GPU.
    #[cfg(feature = "gpu")]
    pub fn gpu_options(&self) -> GpuOptions {
        let from_env = GpuOptions::from_env();
        match &self.adapter {
            None => GpuOptions { memory_limit: self.memory_limit, ..from_env },
            Some(name) => GpuOptions {
                adapter: Some(name.clone()),
                software: true,
                memory_limit: self.memory_limit,
                ..GpuOptions::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_have_the_names_they_are_read_by() {
        for (name, choice) in Choice::NAMES.into_iter().zip([Choice::Auto, Choice::Cpu, Choice::Gpu]) {
            assert_eq!(name.parse::<Choice>().unwrap(), choice);
            assert_eq!(choice.to_string(), name);
        }
        assert!("CPU".parse::<Choice>().unwrap_err().to_string().contains("`CPU`"));
    }
}

//! `cipherlens bench backends`: every kernel and composite on the processor and on a GPU in one run, with the results
//! compared bit for bit, beside the floor of each and a copy measured on the same device.

mod report;
mod subject;

use super::cases::{Case, Material, SIZES, Size};
use super::networks::{Loaded, Workload};
use crate::compute::Compute;
use crate::failure::{Outcome, explain};
use crate::place::{check_report, unwritable};
use crate::progress::Mode;
use crate::{Global, model, params, system};
use cipherlens::backend::choice::Choice;
use cipherlens::backend::{Backend, BackendError};
use cipherlens::ckks::Level;
use cipherlens::nn::onnx::OnnxOptions;
use cipherlens::wire::container;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use report::{LayerTime, Line, Measured, Report, Skipped};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use subject::Subject;

/// Preset of the convolution layer and of the demo.
const PRESET: &str = crate::params::DEFAULT_PRESET;
/// Calls that are handed to a GPU before it is waited for, where throughput is measured.
const IN_FLIGHT: usize = 8;
/// Seconds of a call that is long.
const LONG: f64 = 0.1;

/// Kernels, key switches, rotations, a convolution and the demo, on the processor and on a GPU, compared bit for bit
#[derive(Debug, clap::Args)]
pub(super) struct Backends {
    /// Little of everything: the smallest ring, few shards, short runs, no demo
    #[arg(long)]
    quick: bool,
    /// Rings to measure [default: all; with --quick: n14]
    #[arg(long, value_name = "SIZE", value_delimiter = ',', value_parser = sizes())]
    sizes: Vec<Size>,
    /// Only what has this in its name, as in key_switch, rotate, convolution, demo
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    only: Vec<String>,
    /// Numbers of shards that rotations are measured with [default: 1,4,16,64; with --quick: 1,4]
    #[arg(long, value_name = "S", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    shards: Vec<u16>,
    /// Measure everything for at least this many seconds [default: 0.2; with --quick: 0.02]
    #[arg(long, value_name = "S", value_parser = super::positive)]
    seconds: Option<f64>,
    /// Begin nothing more after this many seconds, and say what was left out
    #[arg(long, value_name = "S", value_parser = super::positive)]
    within: Option<f64>,
    /// Also write the tables to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    #[command(flatten)]
    compute: Compute,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

fn sizes() -> impl TypedValueParser<Value = Size> {
    let find = |name: String| SIZES.into_iter().find(|s| s.name == name).ok_or("no such size");
    PossibleValuesParser::new(SIZES.map(|s| s.name)).try_map(find)
}

impl Backends {
    /// Measures and prints.
    pub(super) fn run(&self, global: &Global) -> Outcome {
        let started = Instant::now();
        let talk = global.progress_mode() != Mode::None && !self.json;
        self.markdown.as_deref().map_or(Ok(()), check_report)?;
        let (subjects, no_gpu) = self.subjects()?;
        // Beyond the caches of any device.
        let copy_bytes = if self.quick { 16 << 20 } else { 512 << 20 };
        let devices = subjects.iter().map(|s| s.describe(copy_bytes)).collect::<Outcome<_>>()?;
        let mut report = Report::new(self.quick, devices, no_gpu);
        for size in self.sizes() {
            let material = Material::new(size).map_err(|e| explain("cannot prepare the benchmark", &e))?;
            let opened = subjects.iter().map(|s| s.open(&material.tables)).collect::<Outcome<Vec<_>>>()?;
            for case in self.cases() {
                if self.is_over(started) {
                    report.skipped.push(skipped(material.size.name, &what(case), "all", self.over()));
                    continue;
                }
                if talk {
                    crate::output::tell!("{} {} on {} shard(s)", size.name, case.name(), case.shards);
                }
                self.measure_case(&material, case, &subjects, &opened, &mut report)?;
            }
        }
        for workload in self.workloads()? {
            if self.is_over(started) {
                report.skipped.push(skipped(workload.params.name(), &workload.name, "all", self.over()));
                continue;
            }
            if talk {
                crate::output::tell!("{}", workload.name);
            }
            self.measure_workload(&workload, &subjects, &mut report)?;
        }
        report.seconds = started.elapsed().as_secs_f64();
        if let Some(path) = &self.markdown {
            let text = report.markdown();
            container::write_whole(path, text.as_bytes()).map_err(unwritable(path))?;
        }
        if self.json {
            report.print_json()
        } else {
            report.print()
        }
        report.check()
    }

    /// The processor, and a GPU unless it is not wanted; why there is none.
    fn subjects(&self) -> Outcome<(Vec<Subject>, Option<String>)> {
        let devices = self.compute.devices_or(Choice::Auto)?;
        let mut subjects = vec![Subject::processor()];
        match Subject::gpu(&devices) {
            _ if devices.choice == Choice::Cpu => Ok((subjects, Some("not asked for (--backend cpu)".into()))),
            Ok(gpu) => {
                subjects.push(gpu);
                Ok((subjects, None))
            }
            Err(e) if devices.choice == Choice::Auto => Ok((subjects, Some(e.to_string()))),
            Err(e) => Err(explain("cannot compute on a GPU", &e)),
        }
    }

    fn sizes(&self) -> Vec<Size> {
        match (self.sizes.is_empty(), self.quick) {
            (false, _) => self.sizes.clone(),
            (true, true) => SIZES.into_iter().filter(|s| s.name == "n14").collect(),
            (true, false) => SIZES.to_vec(),
        }
    }

    fn is_over(&self, started: Instant) -> bool {
        self.within.is_some_and(|within| started.elapsed().as_secs_f64() > within)
    }

    fn over(&self) -> String {
        format!("the {} seconds of --within were over", self.within.unwrap_or_default())
    }

    fn wanted(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    fn cases(&self) -> Vec<Case> {
        let usual: &[u16] = if self.quick { &[1, 4] } else { &[1, 4, 16, 64] };
        let shards = if self.shards.is_empty() { usual } else { &self.shards };
        let shards: Vec<usize> = shards.iter().map(|&s| s.into()).collect();
        Case::all(&shards).into_iter().filter(|case| self.wanted(case.name())).collect()
    }

    fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 0.02 } else { 0.2 })
    }

    /// The convolution layer and the demo.
    fn workloads(&self) -> Outcome<Vec<Workload>> {
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| explain("cannot prepare the benchmark", e.as_ref());
        let mut all = Vec::new();
        if self.wanted("convolution") {
            let (preset, channels, side, level) = if self.quick { ("n13", 4, 64, 1) } else { (PRESET, 16, 64, 7) };
            all.push(Workload::convolution(channels, side, params::open(preset)?, Level(level)).map_err(failed)?);
        }
        if !self.quick && self.wanted("demo") {
            let network = model::open(None, &OnnxOptions::default())?.network;
            all.push(Workload::new("demo", &network, params::open(PRESET)?, Level(0)).map_err(failed)?);
        }
        Ok(all)
    }

    fn measure_case(
        &self,
        material: &Material,
        case: Case,
        subjects: &[Subject],
        opened: &[Arc<dyn Backend>],
        report: &mut Report,
    ) -> Outcome {
        let needed = case.memory(material);
        let available = system::memory_bytes().1.into_iter().chain(system::memory_limit_bytes()).min();
        let skip = |device: &str, why: String| skipped(material.size.name, &what(case), device, why);
        // Words on the host, the processor's buffers, and what a GPU's driver keeps.
        if let Some(available) = available.filter(|&a| needed > a / 4) {
            let why = format!("takes {} MB, a quarter of the memory available is {} MB", needed >> 20, available >> 22);
            report.skipped.push(skip("all", why));
            return Ok(());
        }
        let mut line = Line::of_case(material, case);
        let mut reference: Option<String> = None;
        for (subject, backend) in subjects.iter().zip(opened) {
            match self.measure_on(material, case, subject, backend.as_ref()) {
                Ok((digest, measured)) => {
                    let expected = reference.get_or_insert_with(|| digest.clone());
                    line.add(measured, *expected == digest);
                }
                Err(e @ (BackendError::OutOfMemory { .. } | BackendError::Shape { .. })) => {
                    report.skipped.push(skip(subject.name(), e.to_string()));
                }
                Err(e) => return Err(explain(format!("{} failed on {}", case.name(), subject.name()), &e)),
            }
        }
        report.lines.push(line);
        Ok(())
    }

    /// The digest of the first result, and the times of later ones.
    fn measure_on(
        &self,
        material: &Material,
        case: Case,
        subject: &Subject,
        backend: &dyn Backend,
    ) -> Result<(String, Measured), BackendError> {
        let mut job = case.job(material, backend)?;
        let first = job(None)?;
        let digest = digest(&backend.download(&first)?);
        let mut result = Some(first);
        let mut step = |calls: usize| -> Result<f64, BackendError> {
            let clock = Instant::now();
            for _ in 0..calls {
                result = Some(job(result.take())?);
            }
            backend.synchronize()?;
            Ok(clock.elapsed().as_secs_f64() / calls as f64)
        };
        let wall = times(self.seconds(), || step(1))?;
        // Where one call takes long, handing over and waiting does not show.
        let long = wall.first().is_some_and(|&least| least > LONG);
        let in_flight = if subject.is_gpu() && !long { times(self.seconds(), || step(IN_FLIGHT))? } else { wall.clone() };
        drop(job);
        drop(result);
        let kernels = subject.kernels(material, case, if long { 1 } else { IN_FLIGHT })?;
        Ok((digest, Measured::new(subject.name(), &wall, &in_flight, kernels)))
    }

    fn measure_workload(&self, workload: &Workload, subjects: &[Subject], report: &mut Report) -> Outcome {
        let mut line = Line::of_workload(workload)?;
        let mut reference: Option<String> = None;
        let skip = |device: &str, why: String| skipped(workload.params.name(), &workload.name, device, why);
        let available = system::memory_bytes().1.into_iter().chain(system::memory_limit_bytes()).min();
        let needed = 2 * workload.plan.peak_bytes();
        if let Some(available) = available.filter(|&a| needed > a) {
            report.skipped.push(skip("all", format!("takes {} MB of {} MB available", needed >> 20, available >> 20)));
            return Ok(());
        }
        for subject in subjects {
            let run = || -> Result<_, Box<dyn std::error::Error + Send + Sync>> {
                let backend = subject.open(workload.params.tables()).map_err(|f| f.to_string())?;
                let loaded: Loaded<'_> = workload.load(backend)?;
                let digest = digest(&loaded.words(&*loaded.run()?)?);
                let runs = if self.quick { 1 } else { 3 };
                let mut wall = Vec::new();
                for _ in 0..runs {
                    let clock = Instant::now();
                    loaded.run()?;
                    wall.push(clock.elapsed().as_secs_f64());
                }
                wall.sort_by(f64::total_cmp);
                let layers =
                    loaded.layers()?.into_iter().map(|(layer, seconds)| LayerTime { layer, ms: 1e3 * seconds }).collect();
                Ok((digest, Measured { layers, ..Measured::new(subject.name(), &wall, &wall, None) }))
            };
            match run() {
                Ok((digest, measured)) => {
                    let expected = reference.get_or_insert_with(|| digest.clone());
                    line.add(measured, *expected == digest);
                }
                Err(e) => report.skipped.push(skip(subject.name(), e.to_string())),
            }
        }
        report.lines.push(line);
        Ok(())
    }
}

/// Sorted times: as many as fit the seconds, three at least but where they are long.
fn times(seconds: f64, mut step: impl FnMut() -> Result<f64, BackendError>) -> Result<Vec<f64>, BackendError> {
    let (mut times, begun) = (Vec::new(), Instant::now());
    let mut go_on = true;
    while go_on {
        times.push(step()?);
        let elapsed = begun.elapsed().as_secs_f64();
        go_on = elapsed < seconds || times.len() < 3 && elapsed < 2.0;
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn what(case: Case) -> String {
    format!("{}, {} shard(s)", case.name(), case.shards)
}

fn skipped(size: &str, case: &str, device: &str, why: String) -> Skipped {
    Skipped { size: size.into(), case: case.into(), device: device.into(), why }
}

/// BLAKE3 of words.
fn digest(words: &[u32]) -> String {
    blake3::hash(bytemuck::cast_slice(words)).to_hex().to_string()
}

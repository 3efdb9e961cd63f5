//! What was measured, as JSON, as tables for a person, and as Markdown for `benches/record/`.

use super::super::cases::{Case, Material};
use super::super::floor::{Floor, Floors};
use super::super::networks::Workload;
use super::subject::Kernels;
use crate::failure::{Class, Failure, Outcome, explain};
use crate::output::say;
use crate::system;
use cipherlens::ckks::{Level, ParamsError};
use serde::Serialize;
use std::fmt::Write as _;

/// One device.
#[derive(Debug, Serialize)]
pub(super) struct DeviceReport {
    /// `cpu` or `gpu`, as in the lines.
    pub device: &'static str,
    /// Its kernels.
    pub backend: &'static str,
    /// Processor, or adapter with its driver.
    pub adapter: String,
    /// Bytes read and written a second by a copy, in 10^9.
    pub copy_gbs: f64,
    /// Whether it times kernels itself.
    pub timestamps: bool,
    /// What a GPU's calls cost beside their kernels.
    pub overheads: Option<Overheads>,
}

/// What calls cost beside their kernels.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Overheads {
    /// Microseconds of one of a chain of small kernels, each of which needs the one before.
    pub chained_us: f64,
    /// Microseconds of the processor's for recording one.
    pub recorded_us: f64,
    /// Milliseconds of a new buffer of 64 MiB, cleared by its first use.
    pub buffer_ms: f64,
    /// Bytes a second from host memory and back, in 10^9.
    pub upload_gbs: f64,
    pub download_gbs: f64,
}

/// Something left out.
#[derive(Debug, Serialize)]
pub(super) struct Skipped {
    /// Ring or preset.
    pub size: String,
    /// What.
    pub case: String,
    /// Where.
    pub device: String,
    /// Why.
    pub why: String,
}

/// The time of a layer.
#[derive(Debug, Serialize)]
pub(super) struct LayerTime {
    /// The layer.
    pub layer: String,
    /// Milliseconds, the device waited for after it.
    pub ms: f64,
}

/// The time of a kernel within a call.
#[derive(Debug, Clone, Serialize)]
pub(super) struct KernelTime {
    /// The kernel.
    pub kernel: &'static str,
    /// How often it was dispatched.
    pub dispatches: f64,
    /// Milliseconds, all together.
    pub ms: f64,
}

/// Times on one device.
#[derive(Debug, Default, Serialize)]
pub(super) struct Measured {
    /// `cpu` or `gpu`.
    pub device: &'static str,
    /// One call, until the device is done: median.
    pub wall_ms: f64,
    /// The least.
    pub wall_min_ms: f64,
    /// One of several calls handed over together: median.
    pub in_flight_ms: f64,
    /// Sum over its kernels by the device's own clock: mean.
    pub kernels_ms: Option<f64>,
    /// Kernels dispatched.
    pub dispatches: Option<f64>,
    /// Calls timed.
    pub runs: usize,
    /// The floor's bytes over the best of these times, 10^9 a second.
    pub floor_gbs: Option<f64>,
    /// That over the device's copy; filled in when it is printed.
    pub copy_fraction: Option<f64>,
    /// The floor's multiplications over the same time, 10^9 a second.
    pub floor_gmuls: Option<f64>,
    /// Layers of a network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerTime>,
    /// Kernels of one call, slowest first, by the device's own clock.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<KernelTime>,
}

impl Measured {
    /// From sorted seconds, and from what the device does.
    pub(super) fn new(device: &'static str, wall: &[f64], in_flight: &[f64], kernels: Option<Kernels>) -> Self {
        let median = |times: &[f64]| 1e3 * times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
        Self {
            device,
            wall_ms: median(wall),
            wall_min_ms: 1e3 * wall.first().copied().unwrap_or(f64::NAN),
            in_flight_ms: median(in_flight),
            kernels_ms: kernels.as_ref().and_then(|k| k.milliseconds),
            dispatches: kernels.as_ref().map(|k| k.dispatches),
            kernels: kernels.map_or_else(Vec::new, |k| k.each),
            runs: wall.len() + in_flight.len(),
            ..Self::default()
        }
    }

    /// What the device's work takes: by its own clock, else with other calls in flight.
    fn best_ms(&self) -> f64 {
        self.kernels_ms.filter(|&ms| ms > 0.0).unwrap_or(self.in_flight_ms)
    }
}

/// One thing on all devices.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// Ring or preset.
    pub size: String,
    /// log2 of the ring degree.
    pub log_n: u32,
    /// Primes of a ciphertext, at the input.
    pub limbs: usize,
    /// Digits of a key switch.
    pub digits: Option<usize>,
    /// What.
    pub case: String,
    /// Shards at once.
    pub shards: usize,
    /// Bytes that must move.
    pub floor_bytes: Option<u64>,
    /// Products of residues that must be made.
    pub floor_multiplies: Option<u64>,
    /// Whether all devices gave the same bits; nothing where there is one device.
    pub same_bits: Option<bool>,
    /// Processor over GPU, one call and wait each.
    pub speedup: Option<f64>,
    /// Times.
    pub devices: Vec<Measured>,
}

impl Line {
    /// A kernel or composite.
    pub(super) fn of_case(material: &Material, case: Case) -> Self {
        let floor = case.floor(material);
        Self {
            size: material.size.name.into(),
            log_n: material.size.log_n,
            limbs: material.size.limbs,
            digits: Some(material.digits()),
            case: case.name().into(),
            shards: case.shards,
            floor_bytes: Some(floor.bytes),
            floor_multiplies: Some(floor.multiplies),
            same_bits: None,
            speedup: None,
            devices: Vec::new(),
        }
    }

    /// A layer or network. Its floor: keys, input and output moved once, and the multiplications of all that its plan counts.
    pub(super) fn of_workload(workload: &Workload) -> Outcome<Self> {
        let (params, plan) = (&workload.params, &workload.plan);
        let floors =
            |level: Level| -> Result<Floors, ParamsError> { Ok(Floors::new(params, &params.best_gadget(level..=level)?, level)) };
        let floor = || -> Result<Floor, ParamsError> {
            let (layers, shards) = (plan.layers(), plan.program().input_shards);
            let input = floors(plan.input_level())?.ciphertext_bytes(shards);
            let output = match layers.last() {
                Some(last) => floors(Level(last.level_out))?.ciphertext_bytes(last.shards_out),
                None => 0,
            };
            let multiplies = layers.iter().map(|l| Ok(floors(Level(l.level_in))?.multiplies(&l.counts)));
            let multiplies = multiplies.sum::<Result<u64, ParamsError>>()?;
            Ok(Floor { bytes: plan.key_bytes() + input + output, multiplies })
        };
        let floor = floor().map_err(|e| explain("cannot prepare the benchmark", &e))?;
        Ok(Self {
            size: workload.params.name().into(),
            log_n: workload.params.log_n(),
            limbs: workload.params.window(workload.plan.input_level()).len(),
            digits: None,
            case: workload.name.clone(),
            shards: workload.plan.program().input_shards,
            floor_bytes: Some(floor.bytes),
            floor_multiplies: Some(floor.multiplies),
            same_bits: None,
            speedup: None,
            devices: Vec::new(),
        })
    }

    /// Adds a device; `same` as the first one's bits.
    pub(super) fn add(&mut self, mut measured: Measured, same: bool) {
        let seconds = measured.best_ms() / 1e3;
        let rate = |count: Option<u64>| count.map(|c| c as f64 / seconds / 1e9);
        (measured.floor_gbs, measured.floor_gmuls) = (rate(self.floor_bytes), rate(self.floor_multiplies));
        if let Some(first) = self.devices.first() {
            self.same_bits = Some(same && self.same_bits.unwrap_or(true));
            self.speedup = Some(first.wall_ms / measured.wall_ms);
        }
        self.devices.push(measured);
    }
}

/// Everything measured in one run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bench: &'static str,
    version: &'static str,
    quick: bool,
    cpu: Option<String>,
    threads: usize,
    memory_bytes: Option<u64>,
    devices: Vec<DeviceReport>,
    /// Why no GPU was measured.
    no_gpu: Option<String>,
    /// What was measured.
    pub lines: Vec<Line>,
    /// What was not.
    pub skipped: Vec<Skipped>,
    /// How long all of it took.
    pub seconds: f64,
}

impl Report {
    /// Nothing measured yet.
    pub(super) fn new(quick: bool, devices: Vec<DeviceReport>, no_gpu: Option<String>) -> Self {
        Self {
            bench: "backends",
            version: env!("CARGO_PKG_VERSION"),
            quick,
            cpu: system::cpu_name(),
            threads: rayon::current_num_threads(),
            memory_bytes: system::memory_bytes().0,
            devices,
            no_gpu,
            lines: Vec::new(),
            skipped: Vec::new(),
            seconds: 0.0,
        }
    }

    /// What computed.
    fn machines(&self) -> Vec<String> {
        let mut text = Vec::new();
        for d in &self.devices {
            let clock = if d.timestamps { ", times its kernels itself" } else { "" };
            text.push(format!(
                "{}: {} on {}; copies {:.1} GB/s, read and written{clock}",
                d.device, d.backend, d.adapter, d.copy_gbs
            ));
            if let Some(o) = &d.overheads {
                text.push(format!(
                    "{}: {:.1} us for each of a chain of kernels, {:.1} us to record one; {:.2} ms for a new buffer of 64 MiB; {:.1} GB/s up, {:.1} GB/s down",
                    d.device, o.chained_us, o.recorded_us, o.buffer_ms, o.upload_gbs, o.download_gbs
                ));
            }
        }
        text.extend(self.no_gpu.iter().map(|why| format!("gpu: none measured: {why}")));
        text
    }

    fn copy_of(&self, device: &str) -> f64 {
        self.devices.iter().find(|d| d.device == device).map_or(f64::NAN, |d| d.copy_gbs)
    }

    /// One JSON line.
    pub(super) fn print_json(&self) {
        // A struct of numbers, strings and lists always serializes.
        say!("{}", serde_json::to_string(&self.with_fractions()).unwrap_or_default());
    }

    fn with_fractions(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        for (i, line) in self.lines.iter().enumerate() {
            for (k, device) in line.devices.iter().enumerate() {
                let fraction = device.floor_gbs.map(|gbs| gbs / self.copy_of(device.device));
                value["lines"][i]["devices"][k]["copy_fraction"] = fraction.into();
            }
        }
        value
    }

    /// For a person.
    pub(super) fn print(&self) {
        for line in self.markdown().lines() {
            say!("{line}");
        }
    }

    /// As in `benches/record/`.
    pub(super) fn markdown(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let mut put = |text: String| {
            let _ = writeln!(out, "{text}");
        };
        self.machines().into_iter().for_each(|line| put(format!("- {line}")));
        put(format!("- {} threads; all of it in {:.0} s", self.threads, self.seconds));
        put(String::new());
        put("Medians, milliseconds. `wall`: one call until the device is done; `kernels`: by the device's own clock. Floor: bytes that must \
             move once and multiplications; GB/s: the floor's bytes over `kernels`, or over the wall of one of several calls where there is \
             no such clock; `of copy`: that over the measured copy."
            .into());
        let mut sizes: Vec<&str> = Vec::new();
        for line in self.lines.iter().filter(|l| l.digits.is_some()) {
            if !sizes.contains(&line.size.as_str()) {
                sizes.push(&line.size);
            }
        }
        for size in sizes {
            let lines: Vec<&Line> = self.lines.iter().filter(|l| l.size == size && l.digits.is_some()).collect();
            let first = lines[0];
            put(format!("\n## {size}: N = 2^{}, {} limbs, {} digits\n", first.log_n, first.limbs, first.digits.unwrap_or(0)));
            put("| what | shards | floor MB | Mmul | cpu wall | cpu GB/s | of copy | gpu wall | gpu kernels | dispatches | gpu GB/s | \
                 of copy | cpu/gpu | same bits |"
                .into());
            put("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |".into());
            lines.iter().for_each(|line| put(self.row(line)));
            self.batches(&lines).into_iter().for_each(&mut put);
        }
        for line in self.lines.iter().filter(|l| l.digits.is_none()) {
            put(format!("\n## {}, preset {}\n", line.case, line.size));
            for d in &line.devices {
                put(format!("- {}: {:.1} ms, median of {} runs", d.device, d.wall_ms, d.runs / 2));
            }
            put(format!("- same bits: {}; cpu/gpu: {}", yes(line.same_bits), number(line.speedup, 2)));
            let (bytes, multiplies) = (line.floor_bytes.map(|b| b as f64 / 1e6), line.floor_multiplies.map(|m| m as f64 / 1e6));
            put(format!(
                "- floor: {} MB of keys, input and output; {} M multiplications",
                number(bytes, 0),
                number(multiplies, 0)
            ));
            let Some(first) = line.devices.first().filter(|d| d.layers.len() > 1) else { continue };
            put("\n| layer | cpu ms | gpu ms |\n| --- | --- | --- |".into());
            for (i, layer) in first.layers.iter().enumerate() {
                let gpu = line.devices.get(1).and_then(|d| d.layers.get(i)).map(|l| l.ms);
                put(format!("| {} | {:.1} | {} |", layer.layer, layer.ms, number(gpu, 1)));
            }
        }
        if !self.skipped.is_empty() {
            put("\n## Left out\n".into());
            self.left_out().into_iter().for_each(&mut put);
        }
        out
    }

    /// What was left out, one line for each size, device and reason.
    fn left_out(&self) -> Vec<String> {
        let mut groups: Vec<(&Skipped, Vec<&str>)> = Vec::new();
        for s in &self.skipped {
            match groups.iter_mut().find(|(g, _)| (&g.size, &g.device, &g.why) == (&s.size, &s.device, &s.why)) {
                Some((_, cases)) => cases.push(&s.case),
                None => groups.push((s, vec![&s.case])),
            }
        }
        groups.iter().map(|(s, cases)| format!("- {} on {}: {}: {}", s.size, s.device, s.why, cases.join("; "))).collect()
    }

    fn row(&self, line: &Line) -> String {
        let on = |device: &str| line.devices.iter().find(|d| d.device == device);
        let of_copy =
            |d: Option<&Measured>| d.and_then(|d| d.floor_gbs).map(|gbs| 100.0 * gbs / self.copy_of(d.map_or("", |d| d.device)));
        let percent = |p: Option<f64>| p.map_or(String::new(), |p| format!("{p:.0} %"));
        let (cpu, gpu) = (on("cpu"), on("gpu"));
        let cells = [
            line.case.clone(),
            line.shards.to_string(),
            number(line.floor_bytes.map(|b| b as f64 / 1e6), 1),
            number(line.floor_multiplies.map(|m| m as f64 / 1e6), 1),
            number(cpu.map(|d| d.wall_ms), 3),
            number(cpu.and_then(|d| d.floor_gbs), 1),
            percent(of_copy(cpu)),
            number(gpu.map(|d| d.wall_ms), 3),
            number(gpu.and_then(|d| d.kernels_ms), 3),
            number(gpu.and_then(|d| d.dispatches), 0),
            number(gpu.and_then(|d| d.floor_gbs), 1),
            percent(of_copy(gpu)),
            number(line.speedup, 2),
            yes(line.same_bits).into(),
        ];
        format!("| {} |", cells.join(" | "))
    }

    /// What a batch of shards saves: one rotation of one shard, alone and in each batch.
    fn batches(&self, lines: &[&Line]) -> Vec<String> {
        let mut text = Vec::new();
        for case in ["rotate", "rotate_hoisted"] {
            let rows: Vec<&&Line> = lines.iter().filter(|l| l.case == case).collect();
            for device in self.devices.iter().map(|d| d.device) {
                let each = |l: &Line| {
                    let found = l.devices.iter().find(|d| d.device == device);
                    found.map(|d| (d.wall_ms / l.shards as f64, l.shards))
                };
                let each: Vec<(f64, usize)> = rows.iter().filter_map(|l| each(l)).collect();
                if let [(alone, 1), rest @ ..] = each.as_slice()
                    && !rest.is_empty()
                {
                    let rest: Vec<String> = rest
                        .iter()
                        .map(|(ms, shards)| format!("{:.3} of {shards} ({:.2} times cheaper)", ms, alone / ms))
                        .collect();
                    text.push(format!("\n{case} on {device}, ms for one shard: {alone:.3} alone, {}", rest.join(", ")));
                }
            }
        }
        text
    }

    /// A failure if two devices gave different bits.
    pub(super) fn check(&self) -> Outcome {
        let wrong: Vec<String> = self
            .lines
            .iter()
            .filter(|l| l.same_bits == Some(false))
            .map(|l| format!("{} {} on {} shard(s)", l.size, l.case, l.shards))
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        let advice = "use --backend cpu, and report this with the output of `cipherlens doctor`";
        Err(Failure::new(Class::Numeric, "the GPU gives other bits than the processor", wrong.join("; "), advice))
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or(String::new(), |v| format!("{v:.digits$}"))
}

fn yes(same: Option<bool>) -> &'static str {
    match same {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "not compared",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::{Kind, SIZES};

    fn report(same: bool) -> Report {
        let size = SIZES.into_iter().find(|s| s.name == "n14").unwrap();
        let material = Material::new(size).unwrap();
        let device = |device, copy_gbs| DeviceReport {
            device,
            backend: "x",
            adapter: "y".into(),
            copy_gbs,
            timestamps: true,
            overheads: None,
        };
        let mut report = Report::new(true, vec![device("cpu", 10.0), device("gpu", 100.0)], None);
        for shards in [1, 4] {
            let mut line = Line::of_case(&material, Case { kind: Kind::Rotate, shards });
            line.add(Measured::new("cpu", &[0.004, 0.008, 0.009], &[0.004, 0.008, 0.009], None), true);
            line.add(
                Measured::new(
                    "gpu",
                    &[0.002, 0.004, 0.008],
                    &[0.001],
                    Some(Kernels { milliseconds: Some(0.5), dispatches: 7.0, each: Vec::new() }),
                ),
                same,
            );
            report.lines.push(line);
        }
        report
    }

    #[test]
    fn medians_and_rates_are_of_the_devices_own_times() {
        let report = report(true);
        let json = report.with_fractions();
        let (line, floor) = (&report.lines[0], report.lines[0].floor_bytes.unwrap() as f64);
        assert_eq!((line.devices[0].wall_ms, line.devices[1].wall_min_ms, line.speedup), (8.0, 2.0, Some(2.0)));
        let close = |a: &serde_json::Value, b: f64| assert!((a.as_f64().unwrap() / b - 1.0).abs() < 1e-9, "{a} {b}");
        close(&json["lines"][0]["devices"][0]["floor_gbs"], floor / 0.008 / 1e9);
        close(&json["lines"][0]["devices"][1]["floor_gbs"], floor / 0.0005 / 1e9);
        close(&json["lines"][0]["devices"][1]["copy_fraction"], floor / 0.0005 / 1e9 / 100.0);
        let text = report.markdown();
        assert!(text.contains("rotate on gpu, ms for one shard: 4.000 alone, 1.000 of 4 (4.00 times cheaper)"), "{text}");
        assert!(report.check().is_ok());
    }

    #[test]
    fn what_is_left_out_is_told_once_a_reason() {
        let mut report = report(true);
        let skip =
            |case: &str, why: &str| Skipped { size: "n14".into(), case: case.into(), device: "gpu".into(), why: why.into() };
        report.skipped = vec![skip("a", "too large"), skip("b", "no time"), skip("c", "too large")];
        assert_eq!(report.left_out(), ["- n14 on gpu: too large: a; c", "- n14 on gpu: no time: b"]);
    }

    #[test]
    fn other_bits_are_a_failure() {
        let report = report(false);
        assert_eq!(report.lines[0].same_bits, Some(false));
        assert!(report.markdown().contains("| NO |"));
        let failure = report.check().unwrap_err();
        assert_eq!(failure.class, Class::Numeric);
        assert!(failure.to_string().contains("n14 rotate on 4 shard(s)"), "{failure}");
    }
}

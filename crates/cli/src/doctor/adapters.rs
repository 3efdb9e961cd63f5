//! The adapters of this machine: limits, self-tests, and what fits on each.

#![cfg_attr(not(feature = "gpu"), allow(dead_code, reason = "without GPU support there is no adapter to report"))]

use crate::output::{Align, Table, bytes, say, seconds};
use crate::params;
#[cfg(feature = "gpu")]
use cipherlens::backend::choice::{Choice, Devices};
#[cfg(feature = "gpu")]
use cipherlens::backend::gpu::{self, AdapterReport, GpuBackend, GpuOptions, Limits, registry::Wide};
use cipherlens::ckks::presets;
use cipherlens::plan::Plan;
#[cfg(feature = "gpu")]
use cipherlens::plan::{Checkpoints, DeviceDemand};

/// What `--backend gpu` has to choose from.
#[derive(Debug, serde::Serialize)]
pub(super) struct Adapters {
    /// All that the drivers offer, best first.
    pub adapters: Vec<Adapter>,
    /// The adapter that `--backend gpu` would take; its tests were passed.
    pub ready: Option<String>,
    /// Why there is none.
    pub reason: Option<String>,
    /// What takes how much, on any adapter.
    pub presets: Vec<PresetSizes>,
}

/// One adapter.
#[derive(Debug, serde::Serialize)]
pub(super) struct Adapter {
    name: String,
    api: String,
    kind: &'static str,
    driver: String,
    memory_bytes: Option<u64>,
    largest_buffer_bytes: u64,
    largest_binding_bytes: u64,
    workgroup_memory_bytes: u32,
    workgroup_threads: u32,
    storage_buffers: u32,
    int64: bool,
    timestamps: bool,
    /// Empty where it was not tested.
    self_tests: Vec<Test>,
    /// Why it was not tested.
    untested: Option<String>,
    /// Presets whose keys and digits at the top level do not fit its largest buffer.
    too_large: Vec<&'static str>,
    /// How the demo fits its memory.
    demo: Fit,
    /// How fast it is; none where it was not tested.
    speed: Option<Speed>,
}

/// How fast an adapter is, and what that means for the demo once its keys and weights are there, which have to fit.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(super) struct Speed {
    /// Seconds from one kernel to the next that waits for it.
    gap_seconds: f64,
    /// Bytes that kernels read and write in a second.
    traffic_bytes_per_second: f64,
    /// Bytes sent to it in a second.
    upload_bytes_per_second: f64,
    /// The demo's seconds: between kernels, in them, and sending.
    demo_parts: [f64; 3],
    /// The processor's.
    demo_processor_seconds: f64,
}

impl Speed {
    /// What a person wants to know: whether it is faster, and what limits it.
    fn words(&self) -> String {
        let total: f64 = self.demo_parts.iter().sum();
        let times = self.demo_processor_seconds / total;
        let compared = if times >= 1.0 {
            format!("{times:.1} times faster than this processor")
        } else {
            format!("{:.1} times SLOWER than this processor: use --backend cpu", 1.0 / times)
        };
        let [waits, kernels, sent] = self.demo_parts.map(|part| part / total);
        let limit = if waits > 0.5 {
            "what limits it is the time between kernels: more pictures or shards at once cost little"
        } else if sent > 0.5 {
            "what limits it is what is sent to it"
        } else {
            "what limits it is the speed of its kernels"
        };
        format!(
            "the demo would take about {}, {compared}; {limit} ({:.0} % of the time)",
            seconds(total),
            100.0 * waits.max(kernels).max(sent)
        )
    }
}

/// One self-test.
#[derive(Debug, serde::Serialize)]
pub(super) struct Test {
    test: &'static str,
    /// 64: products with 64-bit integers; 32: the exact form without.
    form: u32,
    passed: bool,
    reason: Option<String>,
}

/// How a run fits a device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fit {
    /// Keys and values together.
    Whole,
    /// The values do; keys come and go.
    KeysInTurns,
    /// Not even the values: what does not fit is computed on the processor.
    No,
    /// The driver does not tell its memory.
    Unknown,
}

impl Fit {
    /// Of keys and values in some memory, of which a tenth is left to the driver.
    fn of(memory: Option<u64>, keys: u64, values: u64) -> Self {
        match memory.map(|m| m / 10 * 9) {
            None => Self::Unknown,
            Some(room) if keys + values <= room => Self::Whole,
            Some(room) if values < room => Self::KeysInTurns,
            Some(_) => Self::No,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Whole => "fits with all its keys",
            Self::KeysInTurns => "fits, but not with all its keys: they come and go",
            Self::No => "does NOT fit: the processor computes what does not",
            Self::Unknown => "may fit or not: the driver does not tell its memory",
        }
    }
}

/// What a parameter set takes at its top level, bytes.
#[derive(Debug, serde::Serialize)]
pub(super) struct PresetSizes {
    preset: &'static str,
    key_bytes: u64,
    /// Digits of one shard.
    digit_bytes: u64,
    /// A ciphertext of one shard.
    ciphertext_bytes: u64,
}

fn preset_sizes() -> Vec<PresetSizes> {
    let sizes = |spec: &cipherlens::ckks::ladder::LadderSpec| {
        let params = presets::by_name(spec.name).ok()?;
        let top = params.max_level();
        let gadget = params.best_gadget(top..=top).ok()?;
        let words = |limbs: usize| (4 * limbs * params.degree()) as u64;
        let limbs = params.window(top).len();
        Some(PresetSizes {
            preset: spec.name,
            key_bytes: gadget.key_bytes(params.degree()),
            digit_bytes: words(gadget.digits() * (limbs + gadget.special())),
            ciphertext_bytes: words(2 * limbs),
        })
    };
    presets::all().iter().filter(|spec| !spec.insecure).filter_map(sizes).collect()
}

impl Adapters {
    /// Looks for adapters and tests them, software ones only where one is asked for by name.
    #[cfg(feature = "gpu")]
    pub(super) fn find(devices: &Devices, demo: &Plan) -> Self {
        let (presets, options) = (preset_sizes(), devices.gpu_options());
        let wanted = devices.choice != Choice::Cpu;
        let mut adapters: Vec<Adapter> = Vec::new();
        for report in gpu::adapters() {
            let twin = adapters.iter().any(|a| a.name == report.name);
            adapters.push(Adapter::new(report, twin, wanted.then_some(&options), demo, &presets));
        }
        let taken = |a: &&Adapter| a.untested.is_none();
        let (ready, reason) = match adapters.iter().find(taken) {
            Some(a) if a.works() => (Some(a.name.clone()), None),
            Some(a) => (None, Some(format!("{} failed its self-tests", a.name))),
            // There is none that may be taken: the reason is the one that opening gives.
            None if !wanted => (None, Some("not asked for (--backend cpu)".to_owned())),
            None => (None, gpu::self_tests(&options).err().map(|e| e.to_string())),
        };
        Self { adapters, ready, reason, presets }
    }

    /// None: this program was built without.
    #[cfg(not(feature = "gpu"))]
    pub(super) fn find(_: &cipherlens::backend::choice::Devices, _: &Plan) -> Self {
        let reason = cipherlens::backend::BackendError::NoGpuSupport.to_string();
        Self { adapters: Vec::new(), ready: None, reason: Some(reason), presets: preset_sizes() }
    }

    /// For a person.
    pub(super) fn print(&self) {
        for a in &self.adapters {
            a.print();
        }
        match (&self.ready, &self.reason) {
            (Some(ready), _) => say!("--backend gpu takes {ready}"),
            (_, Some(reason)) => say!("--backend gpu cannot be used: {reason}"),
            _ => {}
        }
        if self.adapters.is_empty() {
            return;
        }
        say!();
        let mut table = Table::new([
            ("preset, top level", Align::Left),
            ("key", Align::Right),
            ("digits of a shard", Align::Right),
            ("ciphertext of a shard", Align::Right),
        ]);
        for p in &self.presets {
            table.row([p.preset.to_owned(), bytes(p.key_bytes), bytes(p.digit_bytes), bytes(p.ciphertext_bytes)]);
        }
        table.print("");
    }
}

#[cfg(feature = "gpu")]
impl Speed {
    /// A second or two of an adapter; none where it fails.
    fn measure(options: &GpuOptions, demo: &Plan) -> Option<Self> {
        let gpu = GpuBackend::new(demo.params().tables().clone(), options).ok()?;
        let rates = gpu.rates().ok()?;
        // With room for all of it, whatever the adapter has: whether it fits is said apart.
        let limits = Limits { memory: Some(80 << 30), ..gpu.limits() };
        let options = GpuOptions { memory_limit: None, ..gpu.options().clone() };
        let asked = DeviceDemand::repeated(demo, limits, &options, Checkpoints::for_plan(demo)).ok()?;
        Some(Self {
            gap_seconds: rates.gap,
            traffic_bytes_per_second: rates.traffic,
            upload_bytes_per_second: rates.upload,
            demo_parts: rates.parts(&asked.total),
            demo_processor_seconds: demo.seconds(),
        })
    }
}

#[cfg(feature = "gpu")]
impl Adapter {
    fn new(report: AdapterReport, twin: bool, options: Option<&GpuOptions>, demo: &Plan, presets: &[PresetSizes]) -> Self {
        let asked = options.is_some();
        let options = options.cloned().unwrap_or_default();
        let lower = |name: &str| name.to_lowercase();
        let named = options.adapter.as_deref().map(|name| lower(&report.name).contains(&lower(name)));
        let untested = match (report.kind, named) {
            _ if !asked => Some("not asked for (--backend cpu)".to_owned()),
            (_, Some(false)) => Some("another one is asked for".to_owned()),
            ("software", None) => Some("a software adapter, taken by name only (--adapter, WGPU_ADAPTER_NAME)".to_owned()),
            _ if twin => Some("an adapter of the same name comes before it".to_owned()),
            _ => None,
        };
        let of_this = GpuOptions { adapter: Some(report.name.clone()), software: true, ..options.clone() };
        let (self_tests, untested) = match untested {
            Some(why) => (Vec::new(), Some(why)),
            None => match gpu::self_tests(&of_this) {
                Ok(tests) => (tests.into_iter().map(Test::new).collect(), None),
                Err(e) => (vec![Test { test: "opening it", form: 0, passed: false, reason: Some(e.to_string()) }], None),
            },
        };
        let passed = untested.is_none() && self_tests.iter().all(|t: &Test| t.passed);
        let memory = report.memory.into_iter().chain(options.memory_limit).min();
        let fits = |p: &PresetSizes| p.key_bytes.max(p.digit_bytes) <= report.largest_buffer.min(memory.unwrap_or(u64::MAX));
        Self {
            self_tests,
            untested,
            speed: if passed { Speed::measure(&of_this, demo) } else { None },
            too_large: presets.iter().filter(|p| !fits(p)).map(|p| p.preset).collect(),
            demo: Fit::of(memory, demo.key_bytes(), demo.peak_bytes().saturating_sub(demo.key_bytes())),
            name: report.name,
            api: report.api,
            kind: report.kind,
            driver: report.driver,
            memory_bytes: report.memory,
            largest_buffer_bytes: report.largest_buffer,
            largest_binding_bytes: report.largest_binding,
            workgroup_memory_bytes: report.workgroup_memory,
            workgroup_threads: report.workgroup_threads,
            storage_buffers: report.storage_buffers,
            int64: report.int64,
            timestamps: report.timestamps,
        }
    }

    /// Whether it passed all tests in one form: that is the one it works with.
    fn works(&self) -> bool {
        let passed = |form: u32| {
            let mut tests = self.self_tests.iter().filter(|t| t.form == form).peekable();
            tests.peek().is_some() && tests.all(|t| t.passed)
        };
        passed(64) || passed(32)
    }
}

impl Adapter {
    fn print(&self) {
        let yes = |has: bool| if has { "yes" } else { "no" };
        say!("adapter     {} ({}, {}, {})", self.name, self.kind, self.api, self.driver);
        let memory = self.memory_bytes.map_or("not told".into(), bytes);
        let (buffer, binding) = (bytes(self.largest_buffer_bytes), bytes(self.largest_binding_bytes));
        say!("            memory {memory}; buffers to {buffer}, bindings to {binding}");
        say!(
            "            workgroups of {} threads with {}, {} storage buffers; 64-bit integers: {}; timestamps: {}",
            self.workgroup_threads,
            bytes(self.workgroup_memory_bytes.into()),
            self.storage_buffers,
            yes(self.int64),
            yes(self.timestamps)
        );
        match &self.untested {
            Some(why) => say!("            not tested: {why}"),
            None => self.self_tests.iter().for_each(Test::print),
        }
        match self.too_large.as_slice() {
            [] => say!("            keys and digits of every preset fit its buffers"),
            names => say!("            too large for its buffers: {}", names.join(", ")),
        }
        say!("            the demo ({}) {}", params::DEFAULT_PRESET, self.demo.words());
        if let Some(speed) = &self.speed {
            let rate = |bytes_per_second: f64| format!("{}/s", bytes(bytes_per_second as u64));
            let (kernels, sent) = (rate(speed.traffic_bytes_per_second), rate(speed.upload_bytes_per_second));
            say!("            {:.1} us between kernels, which move {kernels}; {sent} sent to it", speed.gap_seconds * 1e6);
            say!("            {}", speed.words());
        }
    }
}

impl Test {
    #[cfg(feature = "gpu")]
    fn new(test: gpu::SelfTest) -> Self {
        let form = if test.wide == Wide::U64 { 64 } else { 32 };
        Self { test: test.test, form, passed: test.error.is_none(), reason: test.error.map(|e| e.to_string()) }
    }

    fn print(&self) {
        let verdict = if self.passed { "the processor's bits" } else { "FAILED" };
        let reason = self.reason.as_ref().map_or(String::new(), |r| format!(": {r}"));
        say!("            self-test of {}, {}-bit products: {verdict}{reason}", self.test, self.form);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_said_in_words() {
        let speed = |parts: [f64; 3]| Speed {
            gap_seconds: 3e-6,
            traffic_bytes_per_second: 1e12,
            upload_bytes_per_second: 1e10,
            demo_parts: parts,
            demo_processor_seconds: 2.0,
        };
        assert!(speed([0.06, 0.03, 0.01]).words().contains("20.0 times faster"));
        assert!(speed([0.06, 0.03, 0.01]).words().contains("between kernels: more pictures"));
        assert!(speed([0.1, 9.8, 0.1]).words().contains("5.0 times SLOWER"));
        assert!(speed([0.1, 9.8, 0.1]).words().contains("the speed of its kernels (98 %"));
        assert!(speed([0.1, 0.2, 0.7]).words().contains("what is sent"));
    }

    #[test]
    fn a_tenth_of_the_memory_is_not_counted_on() {
        assert_eq!(Fit::of(Some(1000), 500, 400), Fit::Whole);
        assert_eq!(Fit::of(Some(1000), 501, 400), Fit::KeysInTurns);
        assert_eq!(Fit::of(Some(1000), 500, 900), Fit::No);
        assert_eq!(Fit::of(None, 1, 1), Fit::Unknown);
    }

    #[test]
    fn sizes_of_presets_are_those_of_their_keys() {
        let sizes = preset_sizes();
        let bench = sizes.iter().find(|s| s.preset == "n16-bench").unwrap();
        // 42 limbs in 3 digits with 14 special primes.
        assert_eq!(bench.key_bytes, 3 * 2 * 56 * 65536 * 4);
        assert_eq!(bench.digit_bytes, 3 * 56 * 65536 * 4);
        assert_eq!(bench.ciphertext_bytes, 2 * 42 * 65536 * 4);
    }
}

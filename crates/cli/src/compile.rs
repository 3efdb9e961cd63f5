//! `cipherlens compile`: a trained network becomes one that can run encrypted. Its activations are fitted to what calibration
//! pictures feed them, the cheapest fits that keep its answers are chosen, and the result is planned and written to a file.

use super::comparison::Comparison;
use super::compute::size;
use super::dataset::{Found, Purpose};
use super::failure::{Class, Failure, Outcome, explain};
use super::output::{Align, Table, bytes, counted, grouped, say, seconds};
use super::picture::fits;
use super::place::{check_output, unwritable};
use super::progress::Mode;
use super::{Global, compute, dataset, model, plan, system};
use cipherlens::ckks::presets;
use cipherlens::engine::{self, ClientError, Compilation, CompileOptions, Costs, EngineError, Prepared};
use cipherlens::nn::Model;
use cipherlens::nn::compiled::CompiledError;
use cipherlens::nn::fit::{Choice, ChooseError, ChooseOptions, Form, NotRun, TriedFit, Watch};
use cipherlens::nn::model::{Fit, Input, Normalisation};
use cipherlens::nn::onnx::{MaxPools, OnnxOptions};
use cipherlens::nn::pooling::{self, PoolingError};
use cipherlens::nn::simulate::{Judge, Labelled, NoiseLevels};
use cipherlens::plan::MemoryLimits;
use cipherlens::wire::Kind;
use rayon::prelude::*;
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Largest mean of values in [0, 1].
const LARGEST_MEAN: f64 = 1.0;
/// Largest deviation that values in [0, 1] are divided by.
const LARGEST_STD: f64 = 2.0;
/// Precision that fits are chosen for where nothing is asked.
const USUAL_NOISE_BITS: f64 = 18.0;
/// Of this machine's memory, what a run may hold where nothing is asked: the rest is for what else runs, and for what estimates miss.
const USUAL_PERCENT: u64 = 85;
/// Fit a network's activations to pictures, plan it, and write it to a file that runs encrypted
#[derive(Debug, clap::Args)]
pub(crate) struct Compile {
    /// Model file: ONNX, safetensors, or what `compile` wrote before
    model: PathBuf,
    /// Pictures like those that will be classified, at least 8, some hundreds are better: DIR, arrays of the network's shape (FILE.npy), or
    /// packed:DIR (pictures in few files: docs/files.md). They need no labels
    #[arg(long, value_name = "DIR|FILE.npy|packed:DIR", required = true, num_args = 1..)]
    calib: Vec<String>,
    /// File to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Use at most this many pictures of each --calib, evenly spread
    #[arg(long, value_name = "K", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Parameter set [default: the one of n15-cnn, n16-boot-lean and n16-boot whose plan is fastest]
    #[arg(long, short, value_name = "PRESET")]
    preset: Option<String>,
    /// The most bytes that keys may take in memory, as in 4GiB: fewer keys, more time. Kept in the file, for client and server
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_key_bytes: Option<u64>,
    /// The bytes that a run should hold at most, keys and all, as far as fewer keys help [default: 85 % of this machine's memory]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_memory: Option<u64>,
    #[command(flatten)]
    comparison: Comparison,
    /// The part of unseen pictures on which the answer must stay the same
    #[arg(long, value_name = "PART", default_value_t = 0.99)]
    target: f64,
    /// Fit a polynomial of this degree to every activation, instead of choosing
    #[arg(long, value_name = "D", value_parser = clap::value_parser!(u16).range(1..=255))]
    degree: Option<u16>,
    /// Make the fitted intervals this many times as long as the ranges seen, instead of choosing
    #[arg(long, value_name = "M", value_parser = at_least_one)]
    margin: Option<f64>,
    /// Precision of the encrypted run to choose for, in bits of the noise's standard deviation
    #[arg(long, value_name = "BITS", default_value_t = USUAL_NOISE_BITS, value_parser = finite)]
    noise_bits: f64,
    /// Mean of each channel of the pictures in [0, 1], comma separated [default for ONNX: ImageNet's, for three channels]
    #[arg(long, value_name = "M,M,...", value_delimiter = ',')]
    mean: Vec<f64>,
    /// Standard deviation of each channel, comma separated [default for ONNX: ImageNet's, for three channels]
    #[arg(long, value_name = "S,S,...", value_delimiter = ',')]
    std: Vec<f64>,
    /// Names of the classes, in the order of the logits, comma separated; folders of labelled pictures are named so
    #[arg(long, value_name = "NAME,NAME,...", value_delimiter = ',')]
    classes: Vec<String>,
    /// How pictures are brought to the network's size [default: crop]. Kept in the file, for all who use it
    #[arg(long, value_parser = fits())]
    fit: Option<Fit>,
    /// What the MaxPools of an ONNX file become: maxima, exact and as dear as activations, or convolutions fitted to the pictures, which
    /// take next to nothing and change answers. How many is said
    #[arg(long, value_name = "exact|fitted", default_value = "exact", value_parser = ["exact", "fitted"])]
    max_pool: String,
    /// Plan for what costs little on a graphics card (this machine's, if it has one) or on a processor. The network runs on both
    #[arg(long = "for", value_name = "cpu|gpu", default_value = "cpu", value_parser = ["cpu", "gpu"])]
    device: String,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// A number.
pub(crate) fn finite(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|x| x.is_finite()).ok_or_else(|| "it is not a finite number".into())
}

fn at_least_one(text: &str) -> Result<f64, String> {
    finite(text)
        .and_then(|x| if x >= 1.0 { Ok(x) } else { Err("intervals cannot be shorter than the ranges seen: 1 or more".into()) })
}

impl Compile {
    /// Refuses names whose files would be lost, before the work.
    fn check_outputs(&self) -> Outcome {
        let told = self.output.with_extension("client");
        if told == self.output {
            let what = format!("{} is the name of the clients' file beside the network", told.display());
            return Err(Failure::new(
                Class::Usage,
                what,
                "one of both would be lost",
                "name the network otherwise, as in net.lens",
            ));
        }
        for (path, kind) in [(&self.output, Kind::CompiledNetwork), (&told, Kind::ClientSpec)] {
            check_output(path, kind, &[&self.model])?;
        }
        Ok(())
    }

    /// Compiles.
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        let started = Instant::now();
        let talk = !self.json && !global.quiet;
        self.check_outputs()?;
        if let Some(preset) = &self.preset {
            presets::by_name(preset).map_err(EngineError::from)?;
        }
        let max_pools = if self.max_pool == "fitted" { MaxPools::Convolved } else { MaxPools::Exact };
        let model::Source { network, name: file, .. } =
            model::open(Some(&self.model), &OnnxOptions { max_pools, ..global.onnx() })?;
        let own = network.input().clone();
        self.check_pixels()?;
        self.check_deviations()?;
        let network = network.described(&self.mean, &self.std, &self.classes).map_err(|e| {
            Failure::from_error(
                Class::Usage,
                "the network cannot be described so",
                &e,
                "give one number a channel, one name a class, all different",
            )
        })?;
        let network = network.with_fit(self.fit.unwrap_or(network.input().fit));
        if let Some(warning) = doubly_normalised(&own, network.input()) {
            crate::output::tell!("warning: {warning}");
        }
        let (pictures, notes) = pictures(&network, &self.calib, Purpose::Calibrate, Some(self.limit), None)?;
        if talk {
            let unfitted = network.activations().count();
            say!(
                "{} ({file}): input {}, {}; {}",
                network.name(),
                network.input().shape,
                counted(unfitted, "activation"),
                counted(pictures.len(), "picture")
            );
            notes.iter().for_each(|note| say!("{note}"));
            say!("{}", network.input().normalisation_note());
        }
        let (network, stand_ins) = match max_pools {
            MaxPools::Exact => (network, None),
            MaxPools::Convolved => {
                let fitted = self.fit_pools(&network, &pictures)?;
                if talk {
                    print_stand_ins(&fitted);
                }
                (fitted.model, Some((fitted.stand_ins, fitted.loss)))
            }
        };
        let watch = Watching { talk: global.progress_mode() != Mode::None, stop: super::interrupt::asked() };
        let (target, planned_for) = compute::target(&self.device)?;
        if let (Some(words), true) = (planned_for, talk) {
            say!("{words}");
        }
        let compilation = engine::compile(&network, &pictures, &CompileOptions { target, ..self.options() }, &watch);
        let compilation = compilation.map_err(|e| self.advised(e))?;
        let Compilation { mut compiled, client, prepared, choice, foreseen, kept } = compilation;
        compiled.report.insert("source", file);
        compiled.report.insert("calibrated_with", &self.calib);
        compiled.report.insert("calibration_files", notes);
        if let Some((stand_ins, loss)) = stand_ins {
            compiled.report.insert("max_pools_fitted", json!({ "convolutions": stand_ins, "loss": loss }));
        }
        let divisor = compiled.model.output_divisor();
        compiled.write(&self.output).map_err(|e| match e {
            CompiledError::File(e) => unwritable(&self.output)(e),
            e => explain(format!("cannot write {}", self.output.display()), &e),
        })?;
        let told = self.output.with_extension("client");
        client.write(&told).map_err(|e| match e {
            ClientError::File(e) => unwritable(&told)(e),
            e => e.into(),
        })?;
        let size = std::fs::metadata(&self.output).map_or(0, |m| m.len());
        if self.json {
            let mut object = compiled.report;
            object.insert("client", told.display().to_string());
            object.insert("output", self.output.display().to_string());
            object.insert("output_bytes", size);
            object.insert("plan", plan::json(&prepared));
            object.insert("seconds", started.elapsed().as_secs_f64());
            say!("{object}");
            return Ok(());
        }
        if talk {
            if let Some(choice) = &choice {
                print_fits(choice);
                for layer in &choice.calibration.dead {
                    say!(
                        "note: every picture feeds {layer} the same value: nothing that the network sees changes what comes of it"
                    );
                }
            }
            plan::print(&prepared, Costs::Typical);
            match divisor {
                d if d > 1.0 => say!("the result is divided by {d} while it is encrypted, and multiplied again after decryption"),
                d if d < 1.0 => {
                    say!("the result is multiplied by {} while it is encrypted, and divided again after decryption", 1.0 / d)
                }
                _ => {}
            }
            if let Some((seconds_of, named)) = max_pool_seconds(&network, &prepared) {
                say!(
                    "{named} takes {} of the {} estimated; --max-pool fitted puts a convolution in its place and says what that changes",
                    seconds(seconds_of),
                    seconds(prepared.plan.seconds())
                );
            }
            let error = foreseen.error;
            say!("expected: logits off by about {error:.1e} for encryption, which {:.2} % of the answers survive", 100.0 * kept);
            say!();
        }
        if talk {
            say!("{}: what clients need of the network to make keys, encrypt and decrypt; no weights", told.display());
        }
        say!("{} ({}) written in {}", self.output.display(), bytes(size), seconds(started.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Convolutions in the place of MaxPools.
    fn fit_pools(&self, network: &Model, pictures: &[Labelled]) -> Outcome<pooling::Fitted> {
        let judge = self.comparison.judge().unwrap_or_default();
        pooling::fit(network, pictures, judge).map_err(|e| {
            let (class, advice) = match e {
                PoolingError::NoPools => (Class::Usage, "leave --max-pool out: it is for ONNX files with MaxPool"),
                PoolingError::TooFewPictures { .. } => (Class::Usage, "give more pictures with --calib, or leave --max-pool out"),
                _ => (Class::BadInput, "calibrate on pictures of the kind that the network was trained on"),
            };
            Failure::from_error(class, "no convolution can be fitted to a MaxPool", &e, advice)
        })
    }

    /// Refuses means and deviations of pixels from 0 to 255: they are of values in [0, 1] here.
    fn check_pixels(&self) -> Outcome {
        let beyond = self.mean.iter().map(|m| ("mean", m)).find(|(_, m)| m.abs() > LARGEST_MEAN);
        let beyond = beyond.or_else(|| self.std.iter().map(|s| ("std", s)).find(|(_, s)| **s > LARGEST_STD));
        let Some((name, value)) = beyond else { return Ok(()) };
        let divided = |values: &[f64]| values.iter().map(|v| format!("{:.4}", v / 255.0)).collect::<Vec<_>>().join(",");
        let mut advice = "divide both by 255".to_owned();
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            if !values.is_empty() {
                advice += &format!(", --{name} {}", divided(values));
            }
        }
        Err(Failure::new(
            Class::Usage,
            format!("--{name} {value} is of pixels from 0 to 255"),
            "pictures are fed as (v - mean) / std with v in [0, 1]",
            advice + "; for a network that takes 0 to 255 itself, --mean 0 and --std 0.00392156862745098, once a channel",
        ))
    }

    /// Refuses deviations that nothing can be divided by.
    fn check_deviations(&self) -> Outcome {
        match self.std.iter().find(|std| !(std.is_finite() && **std > 0.0)) {
            None => Ok(()),
            Some(std) => Err(Failure::new(
                Class::Usage,
                format!("--std holds the standard deviation {std}"),
                "pictures are fed as (v - mean) / std, so deviations must be above 0",
                "give one number above 0 a channel, as in --std 0.229,0.224,0.225",
            )),
        }
    }

    /// A failure to compile; where no fit was found under options that narrow the search, they are what to change.
    fn advised(&self, error: EngineError) -> Failure {
        let not_found = match &error {
            EngineError::Fits(ChooseError::TargetNotReached { .. }) => true,
            EngineError::Fits(ChooseError::NoPlan { reason, .. }) => !matches!(reason, NotRun::Cost(_)),
            _ => false,
        };
        let failure = Failure::from(error);
        let mut change = Vec::new();
        if self.degree.is_some() {
            change.push("leave out --degree (then degrees from 15 to 255 are tried)");
        }
        if self.margin.is_some() {
            change.push("leave out --margin (then 1.3 to 2 are tried)");
        }
        if self.noise_bits < USUAL_NOISE_BITS {
            change.push("raise --noise-bits (the default is 18)");
        }
        if !not_found || change.is_empty() {
            return failure;
        }
        Failure { advice: format!("{}; or {}", change.join(", "), failure.advice), ..failure }
    }

    fn options(&self) -> CompileOptions {
        let mut choose =
            ChooseOptions { target: self.target, noise: NoiseLevels::bits(self.noise_bits), ..ChooseOptions::default() };
        choose.judge = self.comparison.judge().unwrap_or_default();
        if let Some(degree) = self.degree {
            choose.forms = vec![Form::Series(degree.into())];
        }
        if let Some(margin) = self.margin {
            choose.margins = vec![margin];
        }
        let usual = || system::memory_in_all().map(|bytes| bytes / 100 * USUAL_PERCENT);
        let limits = MemoryLimits { key_bytes: self.max_key_bytes, all_bytes: self.max_memory.or_else(usual) };
        CompileOptions { preset: self.preset.clone(), limits, choose, ..CompileOptions::default() }
    }
}

/// Tells what is tried, and stops when it is asked to.
struct Watching {
    talk: bool,
    stop: &'static AtomicBool,
}

impl Watch for Watching {
    fn planning(&self, forms: usize) {
        if self.talk {
            crate::output::tell!(
                "  {forms} forms of fits are planned; then fits are tried, the cheapest form first (Ctrl-C ends with the best found)"
            );
        }
    }
    fn tried(&self, fit: &TriedFit, seconds_left: f64) {
        if self.talk {
            crate::output::tell!("  {}; at most {} more", in_words(fit), seconds(seconds_left));
        }
    }
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// What is to be said where a network that normalises pictures itself is given normalised ones.
fn doubly_normalised(own: &Input, given: &Input) -> Option<String> {
    let takes = match own.normalisation {
        Normalisation::Unit => "values of [0, 1], which it normalises itself",
        Normalisation::Pixels => "pixels of 0 to 255",
        Normalisation::Given | Normalisation::Assumed => return None,
    };
    let changed = given.mean != own.mean || given.std != own.std;
    changed.then(|| {
        format!("the network takes {takes}, and --mean and --std change what it is given; leave them out if you are not sure")
    })
}

/// A fit that was tried, in one line.
fn in_words(tried: &TriedFit) -> String {
    let mut forms: Vec<(&Form, usize)> = Vec::new();
    for spec in &tried.specs {
        match forms.iter_mut().find(|(form, _)| **form == spec.form) {
            Some((_, count)) => *count += 1,
            None => forms.push((&spec.form, 1)),
        }
    }
    let forms = match &forms[..] {
        [(form, _)] => form.to_string(),
        mixed => mixed.iter().map(|(form, count)| format!("{count} layers {form}")).collect::<Vec<_>>().join(", "),
    };
    let least = tried.specs.iter().fold(f64::INFINITY, |m, s| m.min(s.margin));
    let most = tried.specs.iter().fold(least, |m, s| m.max(s.margin));
    let rounded = |margin: f64| (1000.0 * margin).round() / 1000.0;
    let margin = if most > least { format!("{} to {}", rounded(least), rounded(most)) } else { rounded(least).to_string() };
    let verdict = if tried.keeps { "enough" } else { "not enough" };
    let outside = match tried.used > 1.0 {
        true => ", a picture leaves an interval".into(),
        false => format!(", {:.4} % leave an interval", 100.0 * tried.outside),
    };
    format!(
        "{forms}, margin {margin}, {}: {:.2} % kept on {}, {:.2} % foreseen on unseen ones{outside}: {verdict}",
        seconds(tried.cost),
        100.0 * tried.agreement,
        counted(tried.pictures, "picture"),
        100.0 * tried.expected
    )
}

/// Labelled pictures as a network's input, at most `limit` of each description, evenly spread; and which files they are from.
pub(crate) fn pictures(
    network: &Model,
    specs: &[String],
    purpose: Purpose,
    limit: Option<u32>,
    fit: Option<Fit>,
) -> Outcome<(Vec<Labelled>, Vec<String>)> {
    let (mut items, mut notes) = (Vec::new(), Vec::new());
    for spec in specs {
        let expected = dataset::Expected::by(network);
        let found = dataset::find(spec, &expected, purpose)?;
        if let Some(said) = found.unlabelled(&expected).filter(|_| purpose == Purpose::Measure) {
            crate::output::tell!("note: {spec}: {said}");
        }
        let Found { items: found, note, unfit, .. } = found;
        let keep = limit.map_or(found.len(), |l| l as usize).min(found.len());
        notes.extend(
            note.map(|note| format!("{spec}: {}{note}", if keep < found.len() { format!("{keep} of ") } else { String::new() })),
        );
        notes.extend(unfit.map(|unfit| format!("{spec}: labels are left out ({})", unfit.why.join("; "))));
        items.extend((0..keep).map(|i| found[i * found.len() / keep].clone()));
    }
    let labelled = |item: &dataset::Item| {
        let (x, _) = item.open()?.input(network.input(), fit)?;
        Ok(Labelled { x: x.cast(), label: item.label })
    };
    Ok((items.par_iter().map(labelled).collect::<Outcome<_>>()?, notes))
}

/// What convolutions in the place of MaxPools change.
fn print_stand_ins(fitted: &pooling::Fitted) {
    for pooling::StandIn { node, unexplained } in &fitted.stand_ins {
        let left = 100.0 * unexplained;
        say!(
            "MaxPool {node}: a convolution of each channel by itself is in its place; {left:.1} % of the variance is not explained"
        );
    }
    let loss = &fitted.loss;
    let on = counted(loss.pictures, "picture");
    say!("on {on} that it was not fitted to, {:.2} % get the answer of the network with MaxPool", 100.0 * loss.agreement());
    if let (Some(exact), Some(fitted)) = (loss.exact_accuracy(), loss.accuracy()) {
        say!("{:.2} % of them are right, {:.2} % with MaxPool", 100.0 * fitted, 100.0 * exact);
    }
}

/// Seconds of a plan that MaxPools take, and what to call them; none where there is none.
fn max_pool_seconds(network: &Model, prepared: &Prepared) -> Option<(f64, String)> {
    let names = pooling::max_pools(network);
    let of_one =
        |layer: &str| names.iter().any(|name| layer.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.')));
    let seconds = prepared.plan.layers().iter().filter(|l| of_one(&l.layer)).map(|l| l.seconds).sum();
    let called = match &names[..] {
        [] => return None,
        [only] => format!("MaxPool {only}"),
        several => format!("MaxPool ({} of them)", several.len()),
    };
    Some((seconds, called))
}

fn print_fits(choice: &Choice) {
    let mut table = Table::new([
        ("activation", Align::Left),
        ("fit", Align::Left),
        ("levels", Align::Right),
        ("interval", Align::Right),
        ("seen", Align::Right),
        ("used", Align::Right),
    ]);
    for l in &choice.simulation.layers {
        let degrees: Vec<String> = l.degrees.iter().map(usize::to_string).collect();
        table.row([
            l.layer.clone(),
            format!("degree {}", degrees.join(", ")),
            l.depth.to_string(),
            format!("[{:.2}, {:.2}]", l.interval[0], l.interval[1]),
            format!("[{:.2}, {:.2}]", l.min, l.max),
            format!("{:.0} %", 100.0 * l.used),
        ]);
    }
    say!();
    table.print("  ");
    print_simulation(&choice.simulation);
    say!("{} tried", counted(choice.tried.len(), "fit"));
    say!();
}

/// How many answers stay, in words.
pub(crate) fn print_simulation(s: &cipherlens::nn::simulate::Simulation) {
    say!();
    let of = match s.judge {
        Judge::Class => String::new(),
        Judge::Distance { .. } => format!("{} of ", counted(s.answers, "pair")),
    };
    let pictures = counted(s.pictures, "picture");
    say!("simulated on {of}{pictures}: {:.2} % get the answer of the exact network", 100.0 * s.agreement());
    say!(
        "foreseen for unseen ones: {:.2} %, and {:.4} % of the pictures leave an interval",
        100.0 * s.expected_agreement,
        100.0 * s.expected_outside
    );
    if let (Some(exact), Some(simulated)) = (s.exact_accuracy(), s.accuracy()) {
        let labelled = grouped(s.labelled);
        say!("of {labelled} labelled ones, {:.2} % are right, {:.2} % by the exact network", 100.0 * simulated, 100.0 * exact);
    }
    say!("logits differ by {:.2e} (root mean square), at most {:.2e}", s.rms_error, s.max_error);
}

//! The command line: what can be asked, and how answers and failures are shown.

use cipherlens::nn::onnx::OnnxOptions;
use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;

mod bench;
mod classify;
mod comparison;
mod compile;
mod compute;
pub mod dataset;
mod demo;
mod doctor;
mod eval;
pub mod failure;
mod inspect;
mod interrupt;
mod map;
mod model;
pub mod npy;
mod output;
mod params;
pub mod picture;
mod place;
mod plan;
mod progress;
mod report;
pub mod sample;
mod secrets;
mod simulate;
mod split;
mod system;
mod told;

/// What the command `bench` measures, for the benchmarks of the repository.
pub mod measured {
    pub use crate::bench::{cases, floor, networks};
}

use failure::{Class, Failure, Outcome};

/// Run trained convolutional networks on encrypted images.
///
/// Without a command, runs the demo: a photograph is encrypted, classified without being decrypted, and the answer is
/// decrypted and compared with the clear one.
#[derive(Debug, Parser)]
#[command(name = "cipherlens", version)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Threads to compute with; `bench` takes several, as in 1,4 [default: all processors]
    #[arg(long, short = 't', global = true, value_name = "T", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Vec<u16>,
    /// Height and width of the pictures, as in 224x224, for an ONNX file that leaves them open; every command on it needs it
    #[arg(long, global = true, value_name = "HxW")]
    pub input_size: Option<cipherlens::nn::onnx::InputSize>,
    /// Which results of an ONNX file that gives several: their names with commas between them, or `all`; every command on it needs it
    #[arg(long, global = true, value_name = "NAMES")]
    pub results: Option<cipherlens::nn::onnx::Results>,
    /// How progress is shown, on standard error
    #[arg(long, global = true, value_enum, default_value_t)]
    pub progress: progress::Mode,
    /// Show the result only
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

impl Global {
    /// What is said of an ONNX file that it leaves open.
    pub(crate) fn onnx(&self) -> OnnxOptions {
        OnnxOptions { input_size: self.input_size, results: self.results.clone().unwrap_or_default(), ..OnnxOptions::default() }
    }

    /// Progress mode with `--quiet` taken into account.
    pub(crate) fn progress_mode(&self) -> progress::Mode {
        if self.quiet { progress::Mode::None } else { self.progress }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Encrypt a picture, classify it without decrypting, decrypt the answer (the default)
    Demo(demo::Demo),
    /// Fit a network's activations to pictures, plan it, and write it to a file that runs encrypted
    Compile(compile::Compile),
    /// Accuracy and agreement with the fitted polynomials and noise, on clear numbers
    Simulate(simulate::Simulate),
    /// Classify pictures encrypted, from key generation to decryption, in one process
    Classify(classify::Classify),
    /// Accuracy on a set of labelled pictures
    Eval(eval::Eval),
    /// What a network costs encrypted, before any key exists
    Plan(plan::PlanCommand),
    /// What clients need of a network, without its weights
    Spec(split::Spec),
    /// Client: make a secret key, and the evaluation keys a server needs for a network
    Keygen(split::Keygen),
    /// Client: encrypt a picture
    Encrypt(split::Encrypt),
    /// Server: run a network on an encrypted picture
    Run(split::Run),
    /// Client: decrypt an answer
    Decrypt(split::Decrypt),
    /// What a file is: a model, a picture, keys, a ciphertext
    Inspect(inspect::Inspect),
    /// What this machine offers: processor, memory, graphics cards with their self-tests, and what fits
    Doctor(doctor::Doctor),
    /// Parameter sets and their security
    Params(params::ParamsCommand),
    /// Time single operations on this machine
    Bench(bench::Bench),
}

impl Command {
    fn run(&self, global: &Global) -> Outcome {
        if self.has_secrets() {
            secrets::no_core_dumps();
        }
        match self {
            Command::Demo(demo) => demo.run(global),
            Command::Compile(compile) => compile.run(global),
            Command::Simulate(simulate) => simulate.run(global),
            Command::Classify(classify) => classify.run(global),
            Command::Eval(eval) => eval.run(global),
            Command::Plan(plan) => plan.run(global),
            Command::Spec(spec) => spec.run(global),
            Command::Keygen(keygen) => keygen.run(global),
            Command::Encrypt(encrypt) => encrypt.run(global),
            Command::Run(run) => run.run(global),
            Command::Decrypt(decrypt) => decrypt.run(global),
            Command::Inspect(inspect) => inspect.run(global),
            Command::Doctor(doctor) => doctor.run(global),
            Command::Params(params) => params.run(),
            Command::Bench(bench) => bench.run(global),
        }
    }
    /// Whether a secret key or what it protects is in this process.
    fn has_secrets(&self) -> bool {
        use Command::*;
        matches!(self, Demo(_) | Classify(_) | Eval(_) | Keygen(_) | Encrypt(_) | Decrypt(_))
    }
    /// Whether the answer is to be one JSON line.
    fn json(&self) -> bool {
        match self {
            Command::Demo(demo) => demo.json,
            Command::Compile(compile) => compile.json,
            Command::Simulate(simulate) => simulate.json,
            Command::Classify(classify) => classify.json,
            Command::Eval(eval) => eval.json,
            Command::Plan(plan) => plan.json,
            Command::Decrypt(decrypt) => decrypt.json,
            Command::Spec(_) | Command::Keygen(_) | Command::Encrypt(_) | Command::Run(_) | Command::Inspect(_) => false,
            Command::Doctor(doctor) => doctor.json,
            Command::Params(params) => params.json(),
            Command::Bench(bench) => bench.json(),
        }
    }
}

/// Runs the command line; never panics.
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(report_bug));
    // The hook has said what there is to say; only the exit code is left.
    std::panic::catch_unwind(run).unwrap_or_else(|_| Class::Bug.exit_code())
}

fn run() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let command = command.unwrap_or_else(|| Command::Demo(demo::Demo::default()));
    let outcome = use_threads(&global, &command).and_then(|()| command.run(&global));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(command.json());
            failure.class.exit_code()
        }
    }
}

/// Sizes the pool that every parallel kernel uses. `bench` makes its own pools when several sizes are asked for.
fn use_threads(global: &Global, command: &Command) -> Outcome {
    if global.threads.len() > 1 && !matches!(command, Command::Bench(_)) {
        let why = format!("{} were given", global.threads.len());
        return Err(Failure::new(Class::Usage, "this command runs with one number of threads", why, "give --threads one number"));
    }
    let threads = global.threads.iter().copied().max().map_or(0, usize::from);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|e| {
        let advice = "ask for fewer threads, or close other programs";
        Failure::from_error(Class::Resources, "cannot start the worker threads", &e, advice)
    })
}

/// What a user sees of a panic: that it is our fault, where, and what to do.
fn report_bug(info: &std::panic::PanicHookInfo<'_>) {
    let place = info.location().map_or_else(|| "an unknown place".into(), |l| format!("{}:{}", l.file(), l.line()));
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let reason = text.unwrap_or("no reason given");
    let failure = Failure::new(
        Class::Bug,
        "cipherlens stopped because of a broken assumption",
        format!("{reason} (at {place}, version {})", env!("CARGO_PKG_VERSION")),
        failure::BUG_ADVICE,
    );
    crate::output::tell!("{}", failure.to_string().trim_end());
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|v| v != "0") {
        crate::output::tell!("{}", std::backtrace::Backtrace::force_capture());
    }
}

//! How the command fails: what happened, why, what to do, and a stable exit code.

use cipherlens::backend::BackendError;
use cipherlens::circuits::CircuitError;
use cipherlens::ckks::{CkksError, ParamsError};
use cipherlens::engine::{ClientError, EngineError, NoneFits, Overflow, Unfit};
use cipherlens::nn::calibration::CalibrationError;
use cipherlens::nn::fit::{ChooseError, FitError, NotRun};
use cipherlens::nn::lower::LowerError;
use cipherlens::plan::PlanError;
use cipherlens::wire::WireError;
use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// What kind of failure, hence which exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The command line asks for something that does not exist.
    Usage = 2,
    /// A file or picture that cannot be used.
    BadInput = 3,
    /// Keys or parameters that do not belong together.
    WrongKey = 4,
    /// Memory, disk or processor features that are not there.
    Resources = 5,
    /// Levels, scales or values out of range.
    Numeric = 6,
    /// A broken promise of this program.
    Bug = 70,
}

impl Class {
    /// The name used in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Class::Usage => "usage",
            Class::BadInput => "bad_input",
            Class::WrongKey => "wrong_key",
            Class::Resources => "resources",
            Class::Numeric => "numeric",
            Class::Bug => "bug",
        }
    }
    /// The process exit code.
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// A failure as the user reads it.
#[derive(Debug)]
pub struct Failure {
    /// Kind, hence exit code.
    pub class: Class,
    /// What happened.
    pub what: String,
    /// Why, outermost reason first.
    pub why: Vec<String>,
    /// What to do about it.
    pub advice: String,
}

impl Failure {
    /// A failure without an underlying error.
    pub fn new(class: Class, what: impl Into<String>, why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { class, what: what.into(), why: vec![why.into()], advice: advice.into() }
    }

    /// A failure caused by an error, whose whole source chain becomes the reason.
    pub fn from_error(class: Class, what: impl Into<String>, error: &(dyn Error + 'static), advice: impl Into<String>) -> Self {
        let (what, mut why) = (what.into(), chain(error));
        // What the error repeats of it is not said again.
        if let Some(rest) = why.first().and_then(|first| first.strip_prefix(&what)?.strip_prefix(": ")).map(str::to_owned) {
            why[0] = rest;
        }
        Self { class, what, why, advice: advice.into() }
    }

    /// Prints it: text on standard error, and one JSON line on standard output when asked for.
    pub fn print(&self, json: bool) {
        super::output::tell!("{}", self.to_string().trim_end());
        if json {
            let object = serde_json::json!({ "error": {
                "class": self.class.name(), "exit_code": self.class as u8,
                "what": self.what, "why": self.why, "advice": self.advice,
            }});
            super::output::line(format_args!("{object}"));
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.what)?;
        for (i, why) in self.why.iter().enumerate() {
            writeln!(f, "  {} {why}", if i == 0 { "why:" } else { "    " })?;
        }
        writeln!(f, "  do:  {}", self.advice)
    }
}

/// Result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// An error and its sources, outermost first, without a source whose text its parent already contains.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut reasons: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(e) = next {
        let text = e.to_string();
        if !reasons.last().is_some_and(|last| last.contains(&text)) {
            reasons.push(text);
        }
        next = e.source();
    }
    reasons
}

/// The first error of a type in a source chain. A transparent error is no link of its chain (its source is that of the error
/// inside), so those of the library are opened here.
pub(crate) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(found) = e.downcast_ref::<T>() {
            return Some(found);
        }
        next = inside(e).or_else(|| e.source());
    }
    None
}

fn inside<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<PlanError>() {
        Some(PlanError::Ckks(e)) => return Some(e),
        Some(PlanError::Params(e)) => return Some(e),
        _ => {}
    }
    match error.downcast_ref::<CkksError>() {
        Some(CkksError::Backend(e)) => return Some(e),
        Some(CkksError::Params(e)) => return Some(e),
        _ => {}
    }
    if let Some(CircuitError::Ckks(e)) = error.downcast_ref() {
        return Some(e);
    }
    match error.downcast_ref::<WireError>() {
        Some(WireError::Scheme(e)) => Some(e),
        _ => None,
    }
}

/// Turns an error of the library into a failure: class and advice come from the innermost error that is known.
pub(crate) fn explain(what: impl Into<String>, error: &(dyn Error + 'static)) -> Failure {
    let kept = find(error).is_some_and(|e| matches!(e, PlanError::Kept(_)));
    let known = kept
        .then_some((Class::BadInput, "compile the network again, or take the file as it was written"))
        .or_else(|| find(error).and_then(of_backend))
        .or_else(|| find(error).and_then(of_scheme))
        .or_else(|| find(error).and_then(of_params))
        .or_else(|| find(error).and_then(of_circuit))
        .or_else(|| find(error).and_then(of_plan))
        .or_else(|| find(error).and_then(of_file));
    let (class, advice) = known.unwrap_or((Class::Bug, BUG_ADVICE));
    let advice = match find(error) {
        Some(PlanError::KeyBytes { least, .. }) if !kept => allow_key_bytes(*least),
        _ => advice.to_owned(),
    };
    Failure::from_error(class, what, error, advice)
}

/// A failure of the engine that concerns an input called `name`.
pub(crate) fn about(name: &str) -> impl Fn(EngineError) -> Failure + use<'_> {
    move |error| of_engine(error, name)
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        of_engine(error, "this input")
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        of_client(error)
    }
}

fn of_engine(error: EngineError, name: &str) -> Failure {
    match &error {
        EngineError::Params(ParamsError::NoSuchPreset { asked, have }) => {
            let advice = "name one of them; `cipherlens params list` tells what each is for";
            Failure::new(Class::Usage, format!("there is no preset `{asked}`"), format!("presets are {have}"), advice)
        }
        EngineError::Params(e) => explain("the parameter set cannot be used", e),
        EngineError::Backend(e @ BackendError::Isa { .. }) => explain("cannot start the CPU kernels", e),
        EngineError::Backend(e @ BackendError::NoSuchCall { .. }) => explain("cannot compare the GPU with the processor", e),
        EngineError::Backend(e) => explain("cannot compute on a GPU", e),
        EngineError::Scheme(e) => explain("keys and network do not fit", e),
        EngineError::Lower { network, preset, source } => {
            let advice = match source {
                LowerError::NotFitted { .. } => FIT_FIRST,
                LowerError::KeptLayouts { .. } => "the file is not as it was written: compile the network again",
                _ => "change the network; README.md, \"Your own model\", lists what runs",
            };
            Failure::from_error(Class::BadInput, cannot_run(network, preset), source, advice)
        }
        EngineError::Plan { network, preset, source } => explain(cannot_run(network, preset), source),
        EngineError::Run(e) => explain("the encrypted run failed", e),
        EngineError::DeviceMemory(e) => {
            let advice = "allow more with --max-vram, use a smaller preset, or --backend cpu";
            Failure::from_error(Class::Resources, "the network does not fit the GPU memory that may be taken", e, advice)
        }
        EngineError::NoPreset { network, why } => {
            let (class, advice) = of_presets(why);
            Failure::new(class, format!("no parameter set runs {network}"), why.to_string(), advice)
        }
        EngineError::Calibration(e) => {
            let advice = "calibrate on pictures of the kind that the network was trained on";
            Failure::from_error(Class::BadInput, "the network cannot be calibrated", e, advice)
        }
        EngineError::Label { .. } | EngineError::NotFinite { .. } => Failure::from_error(
            Class::BadInput,
            "the pictures cannot be used",
            &error,
            "give pictures of this network: finite numbers, labels of its classes",
        ),
        EngineError::Fits(e) => of_fits(e),
        EngineError::Noise { .. } => Failure::new(
            Class::Numeric,
            "encryption would change too many answers",
            error.to_string(),
            "scale up what makes the logits differ (in its last layers it is lost beside larger numbers), name a preset with a larger scale, or \
             ask for less with --target",
        ),
        EngineError::Overflow(e @ Overflow::Results { .. }) => Failure::from_error(
            Class::Numeric,
            "the network's results are too large to be encrypted",
            e,
            "scale the last layer down: only the order of the results decides the class",
        ),
        EngineError::Overflow(e @ Overflow::Constant { .. }) => {
            let what = format!("the network adds numbers for {name} that cannot be encrypted");
            Failure::from_error(
                Class::Numeric,
                what,
                e,
                "take the large biases out of the network where they cancel, or train it again",
            )
        }
        EngineError::Overflow(e @ Overflow::Inside { .. }) => {
            let what = format!("the network makes numbers for {name} that cannot be encrypted");
            Failure::from_error(Class::Numeric, what, e, "scale the weights of the layer before it down")
        }
        EngineError::Overflow(e) => {
            let what = format!("the encrypted answer could not hold the result for {name}");
            Failure::from_error(Class::Numeric, what, e, OVERFLOW_ADVICE)
        }
        EngineError::Client(e) => known_of_client(e),
        EngineError::NoPictures => {
            Failure::new(Class::Usage, "there is nothing to compile with", error.to_string(), "give pictures with --calib")
        }
        e => explain("the network cannot be used", e),
    }
}

/// What to do about activations that are not fitted.
pub(crate) const FIT_FIRST: &str = "cipherlens compile MODEL --calib PICTURES -o net.lens, and use net.lens";

fn cannot_run(network: &str, preset: &str) -> String {
    format!("cannot run `{network}` with preset `{preset}`")
}

/// What to do where no parameter set runs a network.
fn of_presets(none: &NoneFits) -> (Class, String) {
    let plan_of = |unfit: &'_ Unfit| if let Unfit::Plan(e) = unfit { Some(e.clone()) } else { None };
    let least = none.0.iter().filter_map(|(_, unfit)| match *plan_of(unfit)? {
        PlanError::KeyBytes { least, .. } => Some(least),
        _ => None,
    });
    if let Some(least) = least.min() {
        return (Class::Resources, allow_key_bytes(least));
    }
    let advice = match none.0.as_slice() {
        [(named, _)] => {
            format!(
                "name another preset than {named}, or leave --preset out: `cipherlens params list` shows how many levels each has"
            )
        }
        _ => "use a shallower network, or name a preset with bootstrapping".to_owned(),
    };
    (Class::BadInput, advice)
}

fn allow_key_bytes(least: u64) -> String {
    format!("allow at least {}MiB with --max-key-bytes", least.div_ceil(1 << 20))
}

fn of_fits(error: &ChooseError) -> Failure {
    if let ChooseError::NoPlan { reason: NotRun::Cost(reason), .. } = error
        && let Some(none) = reason.downcast_ref::<NoneFits>()
    {
        let (class, advice) = of_presets(none);
        return Failure::from_error(class, "no parameter set runs the network with any fit of its activations", error, advice);
    }
    let (class, advice) = match error {
        ChooseError::TargetNotReached { .. } => {
            (Class::Numeric, "lower --target, calibrate on more pictures (--limit), or train the network longer")
        }
        ChooseError::Fit(FitError::Undefined { .. }) | ChooseError::Calibration(CalibrationError::Undefined { .. }) => {
            (Class::BadInput, "bound what comes to that layer (a clip, adding a constant) and export the network again")
        }
        ChooseError::Calibration(CalibrationError::NoSpread { .. }) => (
            Class::BadInput,
            "calibrate on pictures that differ; if they do, the network is dead (what comes to its activations are constants): train it again",
        ),
        ChooseError::Stopped { expected, .. } => {
            let reached = (1000.0 * expected).floor() / 1000.0;
            let advice = match *expected > 0.0 {
                true => format!("give it more time, or ask for less with --target (the best so far foresees {reached})"),
                false => "give it more time".to_owned(),
            };
            return Failure::from_error(Class::Numeric, "stopped before a fit was found", error, advice);
        }
        ChooseError::TooFewPictures { .. } => (Class::Usage, "give more pictures with --calib"),
        ChooseError::TooFewForTarget { needed, highest, .. } => {
            let advice = format!("give {needed} pictures or more with --calib (and --limit), or --target {highest}");
            return Failure::from_error(Class::Usage, "there are too few pictures for the target", error, advice);
        }
        ChooseError::TargetTooHigh { highest, .. } => {
            let advice = format!("give --target {highest} or less");
            return Failure::from_error(Class::Usage, "the target is too high", error, advice);
        }
        ChooseError::Target { .. } => (Class::Usage, "give --target a number from 0 to 1"),
        _ => (Class::BadInput, "calibrate on pictures of the kind that the network was trained on"),
    };
    Failure::from_error(class, "the activations cannot be fitted", error, advice)
}

fn of_client(error: ClientError) -> Failure {
    known_of_client(&error)
}

/// What a client cannot do with a description that it was given is no fault of the program.
fn of_description(failure: Failure) -> Failure {
    match failure.class {
        Class::Bug => Failure {
            class: Class::BadInput,
            advice: "the description of the network may be damaged: ask for the file again, or compile the network again".into(),
            ..failure
        },
        _ => failure,
    }
}

fn known_of_client(error: &ClientError) -> Failure {
    let (class, what, advice) = match error {
        ClientError::Scheme(e) => return of_description(explain("cannot use the secret key", e)),
        ClientError::Params(e) => return of_description(explain("the parameter set cannot be used", e)),
        ClientError::File(e) => return of_description(explain("cannot use the client's description of the network", e)),
        ClientError::Network { .. } => (
            Class::WrongKey,
            "the files do not belong together",
            "name with --model the very file they were made with, or make keys and ciphertext again for this network; `cipherlens \
             inspect` shows the network of a file",
        ),
        ClientError::NotAnAnswer { .. } => {
            (Class::BadInput, "this is not the answer", "name the file that `cipherlens run` wrote, not the encrypted picture")
        }
        ClientError::Implausible => (
            Class::Numeric,
            "the answer is refused",
            "show the server no reaction to it, a retry included, and make new keys (SECURITY.md): a server that answers otherwise than agreed may be after them",
        ),
        ClientError::Input { .. } => (
            Class::BadInput,
            "the input is not one that the network was made for",
            "use inputs like those the network was compiled with, or compile it again with inputs like this one",
        ),
        ClientError::Pictures { .. } => {
            (Class::Usage, "they are too many pictures for one run", "encrypt fewer at once, in several files")
        }
        ClientError::PublishBits { .. } => {
            (Class::Usage, "the results cannot be published so", "name a number of bits in that range")
        }
        ClientError::Layout(_) => (Class::BadInput, "the input does not fit the network", "use one of the network's shape"),
        _ => (
            Class::BadInput,
            "the description of the network cannot be used",
            "ask for the file again, or compile the network again",
        ),
    };
    Failure::from_error(class, what, error, advice)
}

/// What to do about a result that is too large.
pub(crate) const OVERFLOW_ADVICE: &str =
    "compile the network with pictures like this one among those of --calib: its result is then scaled to fit";

type Known = Option<(Class, &'static str)>;

fn of_backend(error: &BackendError) -> Known {
    match error {
        BackendError::OutOfMemory { .. } => {
            Some((Class::Resources, "close other programs, use fewer threads (--threads) or a smaller preset (--preset)"))
        }
        BackendError::Isa { .. } => {
            Some((Class::Resources, "unset the variable to let cipherlens choose, or set it to one of the kernels named"))
        }
        BackendError::NoAdapter { asked: Some(_), .. } => {
            Some((Class::Resources, "name one of these adapters (--adapter, WGPU_ADAPTER_NAME), or use --backend cpu"))
        }
        BackendError::NoSuchCall { .. } => {
            Some((Class::Usage, "set CIPHERLENS_COMPARE to `all`, or to some of these names with commas between them"))
        }
        BackendError::NoGpuSupport => Some((Class::Usage, "use --backend cpu, or build with `--features gpu`")),
        BackendError::NoAdapter { .. } | BackendError::SelfTest { .. } | BackendError::Device { .. } => {
            Some((Class::Resources, "use --backend cpu; `cipherlens doctor` lists the adapters and tests the best one"))
        }
        BackendError::Divergence { .. } => {
            Some((Class::Bug, "use --backend cpu, and please report this with the output of `cipherlens doctor`"))
        }
        _ => None,
    }
}

fn of_scheme(error: &CkksError) -> Known {
    match error {
        CkksError::LevelsExhausted { .. } | CkksError::ScaleRange { .. } | CkksError::EncodingOverflow { .. } => {
            Some((Class::Numeric, "use a preset with more levels or a smaller scale: `cipherlens params list`"))
        }
        CkksError::NotFinite { .. } => Some((Class::Numeric, "look for overflowing weights or pixels before encoding")),
        CkksError::MissingKey { .. } | CkksError::MissingKeys { .. } => {
            Some((Class::WrongKey, "make the keys again for this very plan"))
        }
        CkksError::ParamsMismatch { .. } | CkksError::KeyMismatch { .. } => {
            Some((Class::WrongKey, "use keys, ciphertexts and parameters that were made together"))
        }
        CkksError::Randomness { .. } => Some((Class::Resources, "make the system's random generator available and try again")),
        CkksError::Malformed { .. } | CkksError::Residue { .. } => {
            Some((Class::BadInput, "the data were damaged: make or copy them again"))
        }
        _ => None,
    }
}

fn of_params(error: &ParamsError) -> Known {
    match error {
        ParamsError::NoBootstrap { .. } => {
            Some((Class::Usage, "name a preset with `boot` in its name: `cipherlens params list`"))
        }
        ParamsError::Insecure { .. } | ParamsError::SparseModulus { .. } | ParamsError::Literal { .. } => {
            Some((Class::BadInput, "use a parameter set or keys made by cipherlens: `cipherlens params list`"))
        }
        _ => None,
    }
}

/// What to do where levels do not suffice.
const MORE_LEVELS: &str = "`cipherlens params list` shows how many levels each preset has; or make the network shallower";

fn of_circuit(error: &CircuitError) -> Known {
    match error {
        CircuitError::LevelsExhausted { .. } => Some((Class::Numeric, MORE_LEVELS)),
        CircuitError::BootstrapSlots { .. } => {
            Some((Class::Usage, "ask for a power of two within these bounds, or take another preset"))
        }
        CircuitError::KeyBytes { .. } => {
            Some((Class::Usage, "allow more, or take a preset with smaller keys: `cipherlens params list`"))
        }
        CircuitError::EmptyMatrix => Some((Class::BadInput, "look at the weights of this layer: they are all zero")),
        CircuitError::Polynomial(_) => Some((Class::BadInput, "look at the coefficients of this activation")),
        _ => None,
    }
}

/// What to do where values would have to be bootstrapped and nothing bounds them.
const BOUND_FIRST: &str = "cipherlens compile MODEL --calib PICTURES -o net.lens: pictures tell how large its values are, which a bootstrap \
                           has to know; or name a preset with more levels";

fn of_plan(error: &PlanError) -> Known {
    match error {
        PlanError::LevelsExhausted { .. } => Some((Class::Numeric, MORE_LEVELS)),
        PlanError::NoPlacement { .. } => Some((Class::Numeric, BOUND_FIRST)),
        PlanError::KeyBytes { .. } => Some((Class::Resources, "allow more bytes with --max-key-bytes")),
        PlanError::Input { .. } => Some((Class::WrongKey, "encrypt the picture again, for this network and preset")),
        _ => None,
    }
}

fn of_file(error: &WireError) -> Known {
    match error {
        WireError::Occupied { .. } => Some((Class::BadInput, "name another file, or move this one away")),
        WireError::Exists { .. } => Some((Class::BadInput, "name another file or folder, or move this one away")),
        WireError::TooLarge { .. } => {
            Some((Class::WrongKey, "ask for the file again: this one cannot be for this network and preset"))
        }
        WireError::Io { action: "write", .. } | WireError::Stream { action: "write", .. } => {
            Some((Class::Resources, "name a file in a folder that is there, that you may write to, and that has room for it"))
        }
        WireError::Io { .. } => Some((Class::BadInput, "name a file that is there and that you may read")),
        WireError::Network { .. } => Some((
            Class::WrongKey,
            "name with --model the very file they were made with, or make keys and ciphertext again for this network; `cipherlens \
             inspect` shows the network of a file",
        )),
        WireError::Origin { .. } => Some((Class::WrongKey, "use keys, ciphertexts and parameters that were made together")),
        WireError::Kind { .. } => Some((Class::WrongKey, "name the right file; `cipherlens inspect` tells what a file is")),
        WireError::Magic => {
            Some((Class::BadInput, "name a file that cipherlens wrote; `cipherlens inspect` tells what a file is"))
        }
        WireError::Version { .. } => Some((
            Class::BadInput,
            "make the file again with this version (compile, keygen, encrypt, run), or use the version of cipherlens that wrote it",
        )),
        _ => Some((Class::BadInput, "the file is damaged or not what it should be: copy or make it again")),
    }
}

/// What to do about a bug.
pub(crate) const BUG_ADVICE: &str =
    "this is a bug in cipherlens: please report it with the command line and the output of `cipherlens doctor`";

#[cfg(test)]
mod tests {
    use super::*;
    use cipherlens::ckks::{KeyKind, Level};

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Repeats(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("inner {0}")]
    struct Inner(u32);

    #[derive(Debug, thiserror::Error)]
    #[error("while running layer conv1")]
    struct Wraps(#[source] BackendError);

    #[test]
    fn chain_leaves_out_what_the_parent_says() {
        assert_eq!(chain(&Repeats(Inner(3))), vec!["outer: inner 3"]);
        let e = Wraps(BackendError::OutOfMemory { op: "mod_up", bytes: 7 });
        assert_eq!(chain(&e).len(), 2);
    }

    #[test]
    fn known_errors_are_found_inside_transparent_ones() {
        let missing = CkksError::MissingKey { kind: KeyKind::Relin, level: Level(3), have: "no keys".into() };
        let e = PlanError::Layer { layer: "act1".into(), source: CircuitError::Ckks(missing) };
        let failure = explain("the encrypted run failed", &e);
        assert_eq!(failure.class, Class::WrongKey);
        assert!(failure.to_string().contains("act1") && failure.to_string().contains("level 3"), "{failure}");
        let e = WireError::Scheme(CkksError::Backend(BackendError::OutOfMemory { op: "upload", bytes: 9 }));
        assert_eq!(explain("cannot read keys", &e).class, Class::Resources);
    }

    /// Whole by its hashes, and yet nothing that a program of ours would have written: nobody has found a bug.
    #[test]
    fn what_a_description_asks_for_and_cannot_be_is_bad_input() {
        let level = ParamsError::NoSuchLevel { name: "made up".into(), level: Level(9), max: 2 };
        assert_eq!(explain("cannot plan", &level).class, Class::Bug, "where no description is at fault");
        for error in [ClientError::Params(level.clone()), ClientError::Scheme(level.into())] {
            let failure = known_of_client(&error);
            assert_eq!(failure.class, Class::BadInput, "{failure}");
            assert!(failure.to_string().contains("description") && !failure.to_string().contains(BUG_ADVICE), "{failure}");
        }
    }

    #[test]
    fn a_kept_plan_that_does_not_fit_is_bad_input() {
        let missing = CkksError::MissingKey { kind: KeyKind::Relin, level: Level(3), have: "no keys".into() };
        let e = PlanError::Kept(Box::new(PlanError::Layer { layer: "act1".into(), source: CircuitError::Ckks(missing) }));
        let failure = explain("cannot run", &e);
        assert_eq!(failure.class, Class::BadInput);
        assert!(failure.to_string().contains("act1") && failure.to_string().contains("compile the network again"), "{failure}");
    }

    /// A network that is too deep and not compiled, and layouts that are not the file's: nobody has found a bug.
    #[test]
    fn plans_and_layouts_that_cannot_be_are_no_bugs() {
        let e = PlanError::NoPlacement { layer: "act1".into(), needed: 3, top: 2, input: 3, output: 16 };
        let failure = explain("cannot run", &e);
        assert_eq!(failure.class, Class::Numeric);
        assert!(failure.to_string().contains("act1") && failure.to_string().contains("compile MODEL"), "{failure}");
        let source = LowerError::KeptLayouts { layer: "conv1".into(), reason: "its layout is not the one that it comes with" };
        let failure = of_engine(EngineError::Lower { network: "net".into(), preset: "n16-boot".into(), source }, "this input");
        assert_eq!(failure.class, Class::BadInput);
        assert!(failure.to_string().contains("conv1") && failure.to_string().contains("compile the network again"), "{failure}");
    }

    #[test]
    fn known_errors_are_found_below_wrappers() {
        let e = Wraps(BackendError::OutOfMemory { op: "mod_up", bytes: 7 });
        let failure = explain("cannot run", &e);
        assert_eq!(failure.class, Class::Resources);
        let text = failure.to_string();
        assert!(
            text.starts_with("error: cannot run\n  why: while running layer conv1\n       cannot allocate 7 bytes"),
            "{text}"
        );
        assert!(text.contains("\n  do:  "), "{text}");
    }
}

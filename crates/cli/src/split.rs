//! `cipherlens keygen`, `encrypt`, `run`, `decrypt`: client and server as different people with different files.
//!
//! A client needs what [`ClientSpec`] tells, which `compile` writes beside the network; where it has the network itself, that is worked
//! out. Keys, ciphertexts and answers carry the digest of the plan they were made for, and a mismatch is named.

mod decrypt;

use super::compute::Compute;
use super::failure::{Class, Failure, Outcome, about, explain};
use super::output::{bytes, counted, say, seconds, tell};
use super::picture::fits;
use super::place::{check_folder, check_output, unwritable};
use super::plan::{check_memory, note_faults, prepare};
use super::progress::{CountBar, LayerBar};
use super::sample::Sample;
use super::{Global, model};
use super::{secrets, told};
use cipherlens::ckks::{Params, SecretKey};
use cipherlens::engine::{Client, ClientError, ClientSpec, Costs, PrepareOptions, Prepared, Purpose, RunSpec, Server, Terms};
use cipherlens::nn::model::Fit;
use cipherlens::nn::{Model, Tensor};
use cipherlens::wire::network::NetworkDigest;
use cipherlens::wire::{Expect, Kind, WireError, container, objects};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use zeroize::Zeroizing;

pub(crate) use decrypt::Decrypt;

/// Most pictures in a run that keys are made for.
const MOST_PICTURES: u32 = 64;

/// What clients need of a network: no weights
#[derive(Debug, clap::Args)]
pub(crate) struct Spec {
    /// Model file: what `compile` wrote (which wrote this beside it), safetensors or ONNX [default: the embedded network]
    model: Option<PathBuf>,
    /// Parameter set [default: the compiled network's; else n15-cnn, or n16-boot where that has too few levels]
    #[arg(long, short, value_name = "PRESET")]
    preset: Option<String>,
    /// File to write, as in net.client
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

/// Client: make a secret key, and the evaluation keys a server needs for a network
#[derive(Debug, clap::Args)]
pub(crate) struct Keygen {
    /// What the keys are for: net.client, or the network itself (what `compile` wrote, safetensors, ONNX) [default: the embedded network]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Pictures that are encrypted and classified together, rounded up to 1, 2, 4, ..., as far as the network has room: they need keys of
    /// their own, and ciphertexts of the same size
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pictures: u32,
    /// Parameter set [default: the compiled network's; else n15-cnn, or n16-boot where that has too few levels]
    #[arg(long, short, value_name = "PRESET")]
    preset: Option<String>,
    /// A secret key there is already, as for a second network: only evaluation keys are made, on its parameter set
    #[arg(long, short, value_name = "FILE", conflicts_with = "preset")]
    key: Option<PathBuf>,
    /// Folder for secret.key (keep it) and evaluation.keys (send them to the server)
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    insecure: AllowInsecure,
}

/// Client: encrypt a picture
#[derive(Debug, clap::Args)]
pub(crate) struct Encrypt {
    /// Picture of any size, or an array of the network's shape (.npy); several that share one ciphertext, where the keys are for that
    #[arg(required = true, value_name = "PICTURES")]
    files: Vec<PathBuf>,
    /// Make a ciphertext for keys of so many pictures (`keygen --pictures K`) of fewer: the places that are left hold the first ones again
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=64))]
    pictures: Option<u32>,
    /// net.client, or the network itself [default: the embedded network]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The secret key that `keygen` made
    #[arg(long, short, value_name = "FILE")]
    key: PathBuf,
    /// How the picture is brought to the network's size [default: as the network was compiled for; else crop]
    #[arg(long, value_parser = fits())]
    fit: Option<Fit>,
    /// File to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    insecure: AllowInsecure,
}

/// Server: run a network on an encrypted picture
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The encrypted picture
    ciphertext: PathBuf,
    /// Model file [default: the embedded network]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The evaluation keys that the client's `keygen` made
    #[arg(long, short, value_name = "FILE")]
    keys: PathBuf,
    /// File to write the encrypted answer to
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    compute: Compute,
}

/// What a client does not do unless told.
#[derive(Debug, clap::Args)]
struct AllowInsecure {
    /// Work with a parameter set that gives no security (tests only)
    #[arg(long)]
    allow_insecure: bool,
}

impl AllowInsecure {
    fn check(&self, params: &Params) -> Outcome {
        if self.allow_insecure || !params.is_insecure() {
            return Ok(());
        }
        let what = format!("preset `{}` protects nothing", params.name());
        let why = "it is for tests: whoever has a ciphertext can decrypt it";
        Err(Failure::new(
            Class::WrongKey,
            what,
            why,
            "use a preset that claims 128 bits of security, or --allow-insecure in a test",
        ))
    }
}

fn unusable(path: &Path) -> impl FnOnce(WireError) -> Failure {
    let what = format!("cannot use {}", path.display());
    move |e| explain(what, &e)
}

/// A ciphertext of the network at another level than its inputs.
fn not_an_input(path: &Path, expected: &str, found: &str) -> Failure {
    Failure::new(
        Class::BadInput,
        format!("{} is not an encrypted picture", path.display()),
        format!("it is at level {found}, as an answer is, and this network's pictures are encrypted at level {expected}"),
        "name the file that `cipherlens encrypt` wrote, not the answer",
    )
}

/// Refuses a file of another kind, before anything is asked of it.
fn check_kind(path: &Path, expected: Kind) -> Outcome {
    let error = match container::kind_of(path) {
        Ok(found) if found == expected => return Ok(()),
        Ok(found) => WireError::Kind { found: found.to_string(), expected },
        Err(e) => e,
    };
    let is_other = matches!(error, WireError::Kind { .. } | WireError::Magic);
    let failure = unusable(path)(error);
    Err(match expected {
        _ if !is_other => failure,
        Kind::SecretKey => Failure { advice: "name the secret key that `cipherlens keygen` made: secret.key".into(), ..failure },
        Kind::EvaluationKeys => {
            Failure { advice: "name the evaluation keys that `cipherlens keygen` made: evaluation.keys".into(), ..failure }
        }
        Kind::Ciphertext => Failure {
            advice: "name what `cipherlens encrypt` wrote (an encrypted picture), or `cipherlens run` (an answer)".into(),
            ..failure
        },
        _ => failure,
    })
}

/// The plan that a file was made for, and its parameter set.
fn origin(path: &Path) -> Outcome<objects::Origin> {
    objects::read_origin(path).map_err(unusable(path))?.ok_or_else(|| {
        Failure::new(
            Class::WrongKey,
            format!("cannot use {}", path.display()),
            "the file holds a parameter set alone",
            "name a key or a ciphertext; `cipherlens inspect` tells what a file is",
        )
    })
}

/// A network planned for the parameter set of a file, for so many pictures in a run.
fn prepare_for(network: &Model, terms: &Terms, preset: &str, pictures: usize, compute: &Compute) -> Outcome<Prepared> {
    let options = terms.options(Costs::Typical);
    // Keys of another parameter set belong to a plan of that one.
    let kept = if terms.preset.as_deref() == Some(preset) { options.kept } else { Vec::new() };
    prepare(network, Some(preset), PrepareOptions { kept, pictures, ..options }, compute)
}

/// How many pictures the plan is for that a file was made for, among those of a network; a failure names the mismatch.
fn pictures_of(path: &Path, what: &'static str, network: NetworkDigest, terms: &Terms) -> Outcome<usize> {
    let found = origin(path)?.network;
    let pictures = terms.pictures_of(network, found);
    pictures.ok_or_else(|| unusable(path)(WireError::Network { what, expected: network, found }))
}

/// What a client knows: what it was told, and the network itself where it has that.
struct Side {
    spec: Arc<ClientSpec>,
    params: Arc<Params>,
    network: Option<(Model, Prepared)>,
}

/// What a client's step is about.
struct Asked<'a> {
    model: Option<&'a Path>,
    /// The parameter set asked for.
    preset: Option<&'a str>,
    /// A key of the parameter set to use.
    key: Option<&'a Path>,
    pictures: Pictures<'a>,
    decrypting: bool,
}

/// How many pictures the run is for.
enum Pictures<'a> {
    /// So many.
    Count(usize),
    /// As many as the answer in a file is of.
    OfAnswer(&'a Path),
}

impl Side {
    fn open(asked: Asked<'_>, global: &Global) -> Outcome<Self> {
        if let Some(path) = asked.model.filter(|path| told::is_one(path)) {
            if asked.preset.is_some() {
                let what = format!("{} is for one parameter set", path.display());
                let advice = "leave --preset out, or name the network itself with --model";
                return Err(Failure::new(Class::Usage, what, "it was planned for that when it was compiled", advice));
            }
            let (spec, params) = told::read(path)?;
            return Ok(Self { spec: Arc::new(spec), params, network: None });
        }
        let source = model::open(asked.model, &global.onnx())?;
        let mut terms = source.terms(asked.preset, None);
        let model::Source { network, digest, .. } = source;
        let pictures = match asked.pictures {
            Pictures::Count(pictures) => pictures,
            Pictures::OfAnswer(path) => pictures_of(path, "answer was", digest, &terms)?,
        };
        let compute = Compute::default();
        let prepared = match asked.key {
            Some(key) => {
                let preset = origin(key)?.preset;
                if terms.preset.as_deref() != Some(preset.as_str()) {
                    terms.client = None;
                }
                prepare_for(&network, &terms, &preset, pictures, &compute)?
            }
            None => {
                let options = PrepareOptions { pictures, ..terms.options(Costs::Typical) };
                prepare(&network, terms.preset.as_deref(), options, &compute)?
            }
        };
        let grey = told::grey(&network)?;
        let purpose = if asked.decrypting { Purpose::Decrypting(&grey) } else { Purpose::Encrypting };
        let spec = terms.client_spec(&network, digest, &prepared, purpose)?;
        Ok(Self { spec, params: prepared.params.clone(), network: Some((network, prepared)) })
    }

    /// The run for so many pictures.
    fn run(&self, pictures: usize) -> Outcome<RunSpec> {
        match &self.network {
            // The one that was planned: others may be told, without their keys.
            Some((_, prepared)) => {
                let plan = self.spec.network.together(prepared.lowered.together);
                Ok(self.spec.run_of(Some(plan), "run is")?.clone())
            }
            None => Ok(self.spec.run(pictures)?.clone()),
        }
    }

    fn client(&self, key: &Path) -> Outcome<Client> {
        Ok(Client::with_secret(&self.spec, &self.params, self.secret(key)?)?)
    }

    fn secret(&self, key: &Path) -> Outcome<SecretKey> {
        secrets::warn_if_shared(key);
        objects::read_secret_key(key, &self.params).map_err(unusable(key))
    }
}

/// Says on standard error where a run takes fewer pictures than were asked for.
fn note_room(asked: usize, run: &RunSpec) {
    let room = run.pictures;
    if room < asked {
        tell!("note: {asked} pictures in one run were asked for, and there is room for {room}");
    }
}

fn size(path: &Path) -> String {
    bytes(std::fs::metadata(path).map_or(0, |m| m.len()))
}

impl Spec {
    /// Writes it.
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        let path = self.model.as_deref();
        check_output(&self.output, Kind::ClientSpec, path.as_slice())?;
        if let Some(path) = path.filter(|path| told::is_one(path)) {
            return Err(told::no_weights(path, "this command"));
        }
        let asked =
            Asked { model: path, preset: self.preset.as_deref(), key: None, pictures: Pictures::Count(1), decrypting: true };
        let side = Side::open(asked, global)?;
        side.spec.write(&self.output).map_err(|e| match e {
            ClientError::File(e) => unwritable(&self.output)(e),
            e => e.into(),
        })?;
        if !global.quiet {
            let (file, network) = (self.output.display(), side.spec.network);
            say!("{file}: {}, what clients need of network {network}, without its weights", size(&self.output));
        }
        Ok(())
    }
}

impl Keygen {
    /// Refuses names that are taken, before the work. Writing refuses them too, should another program be faster.
    fn check_names(&self, secret: &Path, evaluation: &Path) -> Outcome {
        let refuse = |path: &Path, why: &str, advice: &str| {
            if !path.exists() {
                return Ok(());
            }
            Err(Failure::new(Class::BadInput, format!("{} exists already", path.display()), why, advice))
        };
        let advice = "name another folder, or move the key away";
        if self.key.is_some() {
            return refuse(evaluation, "it may be of another network, whose server would lose it", advice);
        }
        let why = "overwriting a secret key would make everything encrypted with it unreadable";
        refuse(secret, why, "name another folder, move the key away, or make evaluation keys from it with --key")?;
        refuse(evaluation, "it belongs to another secret key, whose server would lose it", advice)
    }

    /// Makes the keys.
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        let (secret_path, keys_path) = (self.output.join("secret.key"), self.output.join("evaluation.keys"));
        self.check_names(&secret_path, &keys_path)?;
        check_folder(&self.output)?;
        if let Some(key) = &self.key {
            check_kind(key, Kind::SecretKey)?;
        }
        let (model, preset) = (self.model.as_deref(), self.preset.as_deref());
        let pictures = self.pictures as usize;
        let asked = Asked { model, preset, key: self.key.as_deref(), pictures: Pictures::Count(pictures), decrypting: false };
        let side = Side::open(asked, global)?;
        self.insecure.check(&side.params)?;
        let run = side.run(pictures).map_err(|failure| match pictures {
            1 => failure,
            _ => Failure {
                what: "there is no run of so many pictures".into(),
                advice: "give a smaller number with --pictures".into(),
                ..failure
            },
        })?;
        note_room(pictures, &run);
        if let Some((_, prepared)) = &side.network {
            check_memory(&prepared.plan)?;
        }
        let clock = Instant::now();
        let client = match &self.key {
            Some(key) => side.client(key)?,
            None => Client::new(&side.spec, &side.params)?,
        };
        std::fs::create_dir_all(&self.output).map_err(|e| {
            let what = format!("cannot make the folder {}", self.output.display());
            Failure::from_error(Class::Resources, what, &e, "name a folder that you may write to")
        })?;
        if self.key.is_none() {
            // First, and never over another: evaluation keys can be made again from it, and it from nothing.
            objects::write_secret_key(&secret_path, &side.params, client.secret()).map_err(unwritable(&secret_path))?;
        }
        let bar = CountBar::new(global.progress_mode(), run.keys.len(), "evaluation keys");
        let keys = client.evaluation_keys(&run, &|| bar.advance())?;
        bar.finish();
        objects::write_new_evaluation_keys(&keys_path, &side.params, client.backend().as_ref(), &keys, Some(run.plan))
            .map_err(unwritable(&keys_path))?;
        if !global.quiet {
            if self.key.is_none() {
                say!("{}: keep it, it decrypts everything", secret_path.display());
            }
            let network = side.spec.network;
            let (file, count) = (keys_path.display(), counted(keys.len(), "key"));
            say!("{file}: {count}, {}, for the server, for network {network}", size(&keys_path));
            if run.pictures > 1 {
                say!("they are for {0} pictures in one run: encrypt with --pictures {0}, or that many pictures", run.pictures);
            }
            say!("made in {}", seconds(clock.elapsed().as_secs_f64()));
        }
        Ok(())
    }
}

impl Encrypt {
    /// Encrypts.
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        let model = self.model.as_deref();
        let read: Vec<&Path> = self.files.iter().map(PathBuf::as_path).chain(model).chain([self.key.as_path()]).collect();
        check_output(&self.output, Kind::Ciphertext, &read)?;
        let samples = self.files.iter().map(|path| Sample::open(path)).collect::<Outcome<Vec<_>>>()?;
        let pictures = samples.len();
        let places = self.pictures.map_or(pictures, |places| places as usize);
        if places < pictures {
            let why = format!("--pictures {places} was given, and {pictures} came");
            let what = "there are more pictures than places";
            return Err(Failure::new(Class::Usage, what, why, "give --pictures as `keygen` was given it, or fewer pictures"));
        }
        check_kind(&self.key, Kind::SecretKey)?;
        let asked = Asked { model, preset: None, key: Some(&self.key), pictures: Pictures::Count(places), decrypting: false };
        let side = Side::open(asked, global)?;
        self.insecure.check(&side.params)?;
        // Of its last size from the start: what a vector leaves behind where it grows is not wiped.
        let (mut inputs, mut notes) = (Zeroizing::new(Vec::with_capacity(pictures)), Vec::new());
        for (sample, name) in &samples {
            let said = match &side.network {
                Some((network, prepared)) => {
                    let (input, said) = model::encryptable(network, sample, self.fit, name)?;
                    prepared.check_input(network, &input).map_err(about(name))?;
                    inputs.push(Tensor::clone(&input));
                    said
                }
                None => {
                    let (input, said) = sample.input(&side.spec.input, self.fit)?;
                    inputs.push(input);
                    said
                }
            };
            notes.extend(said);
        }
        let client = side.client(&self.key)?;
        let run = side.run(places)?;
        note_room(places, &run);
        if let Some(keys) = self.keys_beside(&side, client.secret()).filter(|&keys| keys != run.pictures) {
            tell!(
                "warning: the evaluation keys beside {} are for {} in a run, and this ciphertext is for {}: encrypt with --pictures {keys}, or \
                 make keys with --pictures {}",
                self.key.display(),
                counted(keys, "picture"),
                run.pictures,
                run.pictures
            );
        }
        let encrypted = client.encrypt(&run, &inputs)?;
        objects::write_seeded_ciphertext(&self.output, &side.params, &encrypted, Some(run.plan))
            .map_err(unwritable(&self.output))?;
        if !global.quiet {
            notes.iter().for_each(|note| say!("{note}"));
            if side.network.is_none() {
                say!("not checked, without the weights: whether the network was fitted for pictures like these");
            }
            let (shards, network) = (encrypted.shards(&side.params), side.spec.network);
            let file = self.output.display();
            let count = counted(shards, "ciphertext");
            say!("{file}: {count}, {}, for the server, for network {network}", size(&self.output));
            if run.pictures > 1 {
                if run.pictures > pictures {
                    say!(
                        "it has places for {} pictures, and came with {pictures}: the others hold the first again",
                        run.pictures
                    );
                }
                say!(
                    "it takes keys that were made with --pictures {}; decrypt the answer with --pictures {pictures}",
                    run.pictures
                );
            }
        }
        Ok(())
    }
}

impl Encrypt {
    /// How many pictures a run takes with the evaluation keys in the folder of the secret key, where they are there and of this network.
    fn keys_beside(&self, side: &Side, secret: &SecretKey) -> Option<usize> {
        let keys = self.key.with_file_name("evaluation.keys");
        let origin = objects::read_origin(&keys).ok()??;
        let runs = (0..=MOST_PICTURES.ilog2()).map(|log| 1usize << log);
        let mut runs = runs.filter(|&pictures| origin.network == Some(side.spec.network.together(pictures)));
        if origin.key_id == secret.tag().key_id { runs.next() } else { None }
    }
}

impl Run {
    /// Runs the network.
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        let read = [Some(self.ciphertext.as_path()), Some(self.keys.as_path()), self.model.as_deref()];
        check_output(&self.output, Kind::Ciphertext, &read.into_iter().flatten().collect::<Vec<_>>())?;
        check_kind(&self.keys, Kind::EvaluationKeys)?;
        check_kind(&self.ciphertext, Kind::Ciphertext)?;
        if let Some(path) = self.model.as_deref().filter(|path| told::is_one(path)) {
            return Err(told::no_weights(path, "a run"));
        }
        let source = model::open(self.model.as_deref(), &global.onnx())?;
        let terms = source.terms(None, None);
        let model::Source { network, digest, .. } = source;
        let pictures = pictures_of(&self.keys, "evaluation keys were", digest, &terms)?;
        let of_ciphertext = pictures_of(&self.ciphertext, "ciphertext was", digest, &terms)?;
        if pictures != of_ciphertext {
            let what = format!("{} and {} are of different runs", self.keys.display(), self.ciphertext.display());
            let why =
                format!("the keys are for {} in a run, the ciphertext is for {of_ciphertext}", counted(pictures, "picture"));
            let advice = format!("encrypt with --pictures {pictures}, or make keys with --pictures {of_ciphertext}");
            return Err(Failure::new(Class::WrongKey, what, why, advice));
        }
        let prepared = prepare_for(&network, &terms, &origin(&self.keys)?.preset, pictures, &self.compute)?;
        check_memory(&prepared.plan)?;
        let (params, backend) = (&prepared.params, prepared.host.as_ref());
        if params.is_insecure() {
            let name = params.name();
            tell!(
                "warning: {} is of `{name}`, which gives no security: whoever has the ciphertext can read it",
                self.keys.display()
            );
        }
        // Both come from somebody else: what the plan needs, and nothing that is larger.
        let (run, key_id) = (digest.together(pictures), Some(origin(&self.keys)?.key_id));
        let expect = Expect { key_id, ..prepared.expected_input(digest) };
        let input = objects::read_ciphertext_expecting(&self.ciphertext, params, backend, &expect);
        let input = input.map_err(|e| match e {
            WireError::Shape { what: "level", expected, found } => not_an_input(&self.ciphertext, &expected, &found),
            e => unusable(&self.ciphertext)(e),
        })?;
        let expect = Expect { key_id, ..prepared.expected_keys(digest) };
        let keys = objects::read_evaluation_keys_expecting(&self.keys, params, backend, &expect).map_err(unusable(&self.keys))?;
        let clock = Instant::now();
        let session = Server::new(&prepared).session(Arc::new(keys), 1)?;
        let bar = LayerBar::new(&prepared.plan, global.progress_mode());
        let answer = session.run(input, &bar);
        bar.finish();
        let answer = answer?;
        note_faults(&answer);
        objects::write_ciphertext(&self.output, params, backend, &answer.ciphertext, Some(run))
            .map_err(unwritable(&self.output))?;
        if !global.quiet {
            let spent = seconds(clock.elapsed().as_secs_f64());
            say!("{}: the encrypted answer, {}, for the client; it took {spent}", self.output.display(), size(&self.output));
        }
        Ok(())
    }
}

//! `cipherlens decrypt`: what an answer says, and how far two are apart.

use super::{AllowInsecure, Asked, Pictures, Side, check_kind, origin, unusable};
use crate::comparison::above_zero;
use crate::failure::{Class, Failure, Outcome};
use crate::output::say;
use crate::{Global, map, model, npy};
use cipherlens::client::Metric;
use cipherlens::engine::ClientSpec;
use cipherlens::wire::{Expect, Kind, objects};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// Client: decrypt an answer
#[derive(Debug, clap::Args)]
pub(crate) struct Decrypt {
    /// The encrypted answer
    ciphertext: PathBuf,
    /// net.client, or the network itself [default: the embedded network]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The secret key that `keygen` made
    #[arg(long, short, value_name = "FILE")]
    key: PathBuf,
    /// Print so many of the likeliest classes of a picture
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Pictures that were encrypted together, where there are places for several: the answer does not say
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pictures: Option<u32>,
    /// Also print the logits, with the digits that the noise of encryption leaves. Do not hand them back to the server: they tell it about
    /// the key
    #[arg(long)]
    logits: bool,
    /// Print logits that may be made public: with noise that hides what theirs tells about the key, for this many bits of statistical
    /// security (8 to 64; 20 or more costs most of their digits)
    #[arg(long, value_name = "BITS", conflicts_with = "logits")]
    publish: Option<u32>,
    /// Another answer of the same network and key, where these are vectors: print how far the two are apart
    #[arg(long, value_name = "FILE", requires = "metric", conflicts_with_all = ["logits", "publish", "pictures", "npy", "map"])]
    against: Option<PathBuf>,
    /// By which distance: euclidean or cosine (1 less the cosine)
    #[arg(long, value_name = "euclidean|cosine", requires = "against")]
    metric: Option<Metric>,
    /// Say that the two are the same below this distance
    #[arg(long, value_name = "D", requires = "against", value_parser = above_zero)]
    threshold: Option<f64>,
    /// Write the results to this new file, [picture, channel, row, column] in double precision, with the digits that the noise of encryption
    /// leaves. As the logits, they are not for the server
    #[arg(long, value_name = "FILE.npy", conflicts_with = "publish")]
    npy: Option<PathBuf>,
    /// Write a result that is a map (segmentation, depth) to this new file as a picture: one channel in greys, of several the colour of the
    /// greatest at each place
    #[arg(long, value_name = "FILE.png", conflicts_with_all = ["logits", "publish"])]
    map: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    insecure: AllowInsecure,
}

/// Decimal places of a number that noise of a standard deviation leaves: the first that it reaches is the last.
fn decimals_beside(deviation: f64) -> usize {
    if deviation > 0.0 { (-deviation.log10()).ceil().clamp(0.0, 15.0) as usize } else { 15 }
}

/// What is said where logits are shown.
const LOGITS_WARNING: &str = "Do not hand these numbers back to the server: they tell it about your key.";

impl Decrypt {
    /// Decrypts.
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        check_kind(&self.ciphertext, Kind::Ciphertext)?;
        check_kind(&self.key, Kind::SecretKey)?;
        let model = self.model.as_deref();
        let pictures = Pictures::OfAnswer(&self.ciphertext);
        let side = Side::open(Asked { model, preset: None, key: Some(&self.key), pictures, decrypting: true }, global)?;
        self.insecure.check(&side.params)?;
        let made_for = origin(&self.ciphertext)?.network;
        let run = side.spec.run_of(made_for, "answer was")?.clone();
        let client = side.client(&self.key)?;
        let backend = client.backend().clone();
        // No larger than a picture or an answer of this network: which of the two is told by the client.
        let shards = run.input.shards().max(run.output.shards());
        let most = Expect::ciphertext(run.plan, side.params.max_level(), shards).bounded(&side.params).max_bytes;
        let key_id = Some(client.secret().tag().key_id);
        let expect = Expect { network: Some(run.plan), key_id, max_bytes: most, ..Expect::default() };
        let open = |path: &Path| -> Outcome<Zeroizing<Vec<Vec<f64>>>> {
            let answer = objects::read_ciphertext_expecting(path, &side.params, backend.as_ref(), &expect);
            Ok(Zeroizing::new(client.decrypt(&run, &answer.map_err(unusable(path))?)?))
        };
        let mut results = open(&self.ciphertext)?;
        if let (Some(other), Some(metric)) = (&self.against, self.metric) {
            check_kind(other, Kind::Ciphertext)?;
            let other = open(other)?;
            let ([a], [b]) = (&results[..], &other[..]) else {
                let what = format!("{} is the answer of a run of {} pictures", self.ciphertext.display(), run.pictures);
                let why = "two answers of one picture each are compared";
                return Err(Failure::new(Class::Usage, what, why, "write all results with --npy and compare them there"));
            };
            self.print_distance(metric, (a, b), side.spec.noise, global);
            return Ok(());
        }
        let wanted = match self.pictures {
            Some(pictures) => pictures as usize,
            None if run.pictures == 1 => 1,
            // The places without a picture hold one of the others, and look like answers.
            None => {
                let what = format!("the answer has places for {} pictures", run.pictures);
                return Err(Failure::new(
                    Class::Usage,
                    what,
                    "it does not say how many were encrypted",
                    "say it with --pictures",
                ));
            }
        };
        if wanted > run.pictures {
            let what = format!("the answer is of {} pictures at most", run.pictures);
            return Err(Failure::new(Class::Usage, what, format!("--pictures {wanted} was given"), "give a smaller number"));
        }
        results.drain(wanted..).for_each(|mut unasked| unasked.zeroize());
        let published = match self.publish {
            Some(bits) => {
                let (all, deviation) = client.published(&Zeroizing::new(results.concat()), bits)?;
                let each = all.len() / results.len().max(1);
                results.zeroize();
                results.extend(all.chunks(each.max(1)).map(<[f64]>::to_vec));
                Some((bits, deviation))
            }
            None => None,
        };
        if let Some(path) = &self.npy {
            let shape = side.spec.output();
            let dims = [results.len(), shape.channels, shape.height, shape.width];
            npy::write(path, dims, &Zeroizing::new(results.concat()))?;
        }
        if let Some(path) = &self.map {
            let [only] = &results[..] else {
                let what = format!("cannot write {} results as one picture to {}", results.len(), path.display());
                return Err(Failure::new(Class::Usage, what, "--map is of one", "write all of them with --npy"));
            };
            let shape = side.spec.output();
            map::write(path, shape, only)?;
            match self.json {
                true => say!("{}", serde_json::json!({ "map": path.display().to_string(), "shape": shape.to_string() })),
                false => say!("{}: the map, {shape}", path.display()),
            }
            return Ok(());
        }
        results.iter().enumerate().for_each(|(i, logits)| self.print(&side.spec, (i, wanted), logits, published, global));
        Ok(())
    }

    /// How far two results are apart, with the digits that the noise leaves.
    fn print_distance(&self, metric: Metric, (a, b): (&[f64], &[f64]), noise: f64, global: &Global) {
        let error = metric.error(a, b, noise);
        let places = if error > 0.0 { (-error.log10()).floor().clamp(0.0, 9.0) as usize } else { 9 };
        let distance = format!("{:.places$}", metric.distance(a, b));
        let same = self.threshold.map(|threshold| metric.distance(a, b) < threshold);
        let verdict = same.map(|same| if same { "the same" } else { "different" });
        if self.json {
            let number: f64 = distance.parse().unwrap_or(f64::NAN);
            say!(
                "{}",
                serde_json::json!({ "metric": metric, "distance": number, "error": error, "threshold": self.threshold, "same": same })
            );
            return;
        }
        match verdict {
            Some(verdict) if global.quiet => say!("{verdict}"),
            Some(verdict) => say!("{verdict}: the {metric} distance is {distance}"),
            None => say!("{distance}"),
        }
    }

    fn print(
        &self,
        spec: &ClientSpec,
        (picture, pictures): (usize, usize),
        logits: &[f64],
        published: Option<(u32, f64)>,
        global: &Global,
    ) {
        let top = model::likeliest(&spec.classes, logits, self.top as usize);
        let label = top.first().map_or(String::new(), |l| l.class.clone());
        if self.json {
            let classes: Vec<&str> = top.iter().map(|l| l.class.as_str()).collect();
            let mut object = serde_json::json!({ "label": label, "top": classes });
            if pictures > 1 {
                object["picture"] = (picture + 1).into();
            }
            if self.logits || published.is_some() {
                let steps = published.map(|(_, deviation)| 10f64.powi(decimals_beside(deviation) as i32));
                object["logits"] = logits.iter().map(|&v| steps.map_or(v, |steps| (v * steps).round() / steps)).collect();
            }
            if self.logits {
                object["warning"] = LOGITS_WARNING.into();
            }
            if let Some((bits, deviation)) = published {
                object["publish_bits"] = bits.into();
                object["publish_deviation"] = deviation.into();
            }
            say!("{object}");
            return;
        }
        if global.quiet {
            say!("{label}");
            return;
        }
        if pictures > 1 {
            say!("picture {}:", picture + 1);
        }
        match top.len() {
            1 => say!("{label}"),
            _ => top.iter().enumerate().for_each(|(rank, likely)| say!("{}. {}", rank + 1, likely.class)),
        }
        if self.logits || published.is_some() {
            say!();
            let places = published.map_or(spec.decimals(), |(_, deviation)| decimals_beside(deviation)).min(9);
            logits.iter().enumerate().for_each(|(class, logit)| say!("{logit:>12.places$}  {}", spec.class_name(class)));
        }
        if self.logits {
            say!("{LOGITS_WARNING}");
        }
        if let Some((bits, deviation)) = published {
            say!("Noise of standard deviation {deviation:.2e} was added, for {bits} bits of statistical security of one answer.");
        }
    }
}

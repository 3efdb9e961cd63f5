//! `cipherlens eval`: accuracy of the clear evaluation, with the very polynomials that run encrypted, or of encrypted runs.

mod encrypted;

use super::compute::{Compute, size};
use super::failure::{Class, Failure, Outcome};
use super::output::{Align, Table, counted, say, seconds};
use super::picture::fits;
use super::progress::Progress;
use super::{Global, dataset, model};
use cipherlens::client::class_name;
use cipherlens::engine::Costs;
use cipherlens::nn::clear::Network;
use cipherlens::nn::model::Fit;
use rayon::prelude::*;
use std::path::PathBuf;
use std::time::Instant;

/// Pictures evaluated between two progress messages.
const BATCH: usize = 256;

/// Accuracy on a set of labelled pictures
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("numbers").required(true).args(["clear", "encrypted"])))]
pub(crate) struct Eval {
    /// Model file: safetensors, ONNX, or what `compile` wrote [default: the embedded network]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Pictures: DIR (one folder a class, named like the class or its number), FILE.npy (arrays), or packed:DIR (pictures in few files:
    /// docs/files.md); @CLASS at the end labels all of them
    #[arg(long, value_name = "DIR|FILE.npy|packed:DIR", required = true, num_args = 1..)]
    images: Vec<String>,
    /// Evaluate on clear numbers
    #[arg(long)]
    clear: bool,
    /// Run every picture encrypted and compare with the clear evaluation
    #[arg(long)]
    encrypted: bool,
    /// Parameter set of encrypted runs [default: the compiled network's; else n15-cnn, or n16-boot where that is too shallow]
    #[arg(long, short, value_name = "PRESET")]
    preset: Option<String>,
    /// The most bytes that keys of encrypted runs may take in memory, as in 4GiB: fewer keys, more time
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_key_bytes: Option<u64>,
    /// Use at most this many pictures of each --images, evenly spread
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// How pictures are brought to the network's size [default: as the network was compiled for; else crop]
    #[arg(long, value_parser = fits())]
    fit: Option<Fit>,
    #[command(flatten)]
    compute: Compute,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What became of one picture.
struct Prediction {
    label: Option<usize>,
    predicted: usize,
    largest: f64,
}

impl Eval {
    /// Evaluates and prints.
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        let started = Instant::now();
        let source = model::open(self.model.as_deref(), &global.onnx())?;
        let (network, name) = (&source.network, source.name.clone());
        let mut items = Vec::new();
        for spec in &self.images {
            let found = dataset::open(spec, &dataset::Expected::by(network))?;
            let keep = self.limit.map_or(found.len(), |l| l as usize).min(found.len());
            items.extend((0..keep).map(|i| found[i * found.len() / keep].clone()));
        }
        if self.encrypted {
            let terms = source.terms(self.preset.as_deref(), self.max_key_bytes);
            let options = terms.options(Costs::on(&self.compute.devices()?));
            let found = encrypted::run(
                network,
                (&terms, source.digest),
                options,
                &self.compute,
                &items,
                self.fit,
                global.progress_mode(),
            )?;
            if self.json {
                found.print_json()
            } else {
                found.print()
            }
            return Ok(());
        }
        let clear = Network::<f32>::new(network);
        let batches: Vec<_> = items.chunks(BATCH).collect();
        let mut progress = Progress::of_proportions(global.progress_mode(), batches.iter().map(|b| b.len() as f64).collect());
        let mut predictions = Vec::with_capacity(items.len());
        for batch in batches {
            let begun = Instant::now();
            progress.begin("pictures");
            let evaluate = |item: &dataset::Item| -> Outcome<Prediction> {
                let (input, _) = item.open()?.input(network.input(), self.fit)?;
                let logits = clear.evaluate(&input.cast()).map_err(|e| super::failure::explain("cannot evaluate", &e))?;
                if let Some(bad) = logits.values().iter().find(|v| !v.is_finite()) {
                    let why = format!("a logit is {bad}: an activation polynomial left the range it was fitted on");
                    return Err(Failure::new(Class::Numeric, "the network diverged", why, "train with wider ranges"));
                }
                let largest = logits.values().iter().fold(0.0, |m: f64, &v| m.max(f64::from(v).abs()));
                let logits: Vec<f64> = logits.values().iter().map(|v| f64::from(*v)).collect();
                let predicted = model::likeliest(&[], &logits, 1).first().map_or(0, |best| best.index);
                Ok(Prediction { label: item.label, predicted, largest })
            };
            predictions.extend(batch.par_iter().map(evaluate).collect::<Outcome<Vec<_>>>()?);
            progress.end("pictures", begun.elapsed());
        }
        progress.finish();
        self.report(network, &name, &predictions, started.elapsed().as_secs_f64());
        Ok(())
    }

    fn report(&self, network: &cipherlens::nn::Model, name: &str, predictions: &[Prediction], elapsed: f64) {
        let classes = network.answers();
        let labelled = predictions.iter().filter(|p| p.label.is_some()).count();
        let correct = predictions.iter().filter(|p| p.label == Some(p.predicted)).count();
        let accuracy = (labelled > 0).then(|| correct as f64 / labelled as f64);
        let largest = predictions.iter().fold(0.0, |m: f64, p| m.max(p.largest));
        let of_class = |c: usize| {
            let labelled = predictions.iter().filter(|p| p.label == Some(c));
            (labelled.clone().count(), labelled.filter(|p| p.predicted == c).count())
        };
        let predicted = |c: usize| predictions.iter().filter(|p| p.predicted == c).count();
        if self.json {
            let per_class: Vec<_> = (0..classes)
                .map(|c| {
                    let (labelled, correct) = of_class(c);
                    let name = class_name(network.classes(), c);
                    serde_json::json!({ "class": name, "labelled": labelled, "correct": correct, "predicted": predicted(c) })
                })
                .collect();
            let object = serde_json::json!({
                "model": network.name(), "model_file": name, "evaluation": "clear", "images": predictions.len(),
                "labelled": labelled, "correct": correct, "accuracy": accuracy, "max_abs_logit": largest,
                "classes": per_class, "seconds": elapsed,
            });
            say!("{object}");
            return;
        }
        let mut table = Table::new([
            ("class", Align::Left),
            ("pictures", Align::Right),
            ("correct", Align::Right),
            ("predicted", Align::Right),
        ]);
        for c in 0..classes {
            let (labelled, correct) = of_class(c);
            table.row([class_name(network.classes(), c), labelled.to_string(), correct.to_string(), predicted(c).to_string()]);
        }
        table.print("");
        say!();
        let pictures = predictions.len();
        match accuracy {
            Some(a) => say!("{correct} of {} right: {:.2} % top-1", counted(labelled, "labelled picture"), 100.0 * a),
            None => say!("{}, none of them labelled: no accuracy to report", counted(pictures, "picture")),
        }
        let (pictures, elapsed) = (counted(pictures, "picture"), seconds(elapsed));
        say!("{pictures} on clear numbers in {elapsed}; largest |logit| {largest:.2}");
    }
}

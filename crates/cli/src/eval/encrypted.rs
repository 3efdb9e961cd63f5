//! `cipherlens eval --encrypted`: whole encrypted runs on many pictures, against the clear evaluation.

use crate::compute::Compute;
use crate::dataset::Item;
use crate::failure::{Outcome, about, explain};
use crate::model::likeliest;
use crate::output::{counted, say, seconds};
use crate::plan::{check_memory, prepare};
use crate::progress::{CountBar, Mode, Progress};
use crate::told;
use cipherlens::engine::{Client, PrepareOptions, Purpose, Server, Terms};
use cipherlens::nn::Model;
use cipherlens::nn::clear::Network;
use cipherlens::nn::model::Fit;
use cipherlens::wire::network::NetworkDigest;
use std::sync::Arc;
use std::time::Instant;
use zeroize::Zeroizing;

/// How the encrypted runs compare with the clear ones.
#[derive(Debug, Default, serde::Serialize)]
pub(super) struct Agreement {
    /// Always `encrypted`.
    evaluation: &'static str,
    model: String,
    preset: String,
    /// Which kernels ran.
    backend: &'static str,
    images: usize,
    labelled: usize,
    /// Labelled pictures that the encrypted run classifies right.
    correct: usize,
    /// Labelled pictures that the clear evaluation classifies right.
    clear_correct: usize,
    /// Pictures on which both say the same.
    agree: usize,
    /// Largest difference of a logit.
    max_abs_logit_error: f64,
    /// Largest difference over the range of that picture's logits.
    max_relative_logit_error: f64,
    /// Smallest clear distance between the best two logits.
    least_margin: f64,
    /// Pictures in one run.
    pictures_together: usize,
    /// Seconds of a run over its pictures.
    mean_run_seconds: f64,
    seconds: f64,
}

/// Runs all pictures encrypted, with one set of keys.
pub(super) fn run(
    network: &Model,
    (terms, digest): (&Terms, NetworkDigest),
    options: PrepareOptions,
    compute: &Compute,
    items: &[Item],
    fit: Option<Fit>,
    mode: Mode,
) -> Outcome<Agreement> {
    let started = Instant::now();
    let options = PrepareOptions { pictures: items.len(), ..options };
    let prepared = prepare(network, terms.preset.as_deref(), options, compute)?;
    check_memory(&prepared.plan)?;
    let clear = Network::<f64>::new(network);
    let spec = terms.client_spec(network, digest, &prepared, Purpose::Decrypting(&told::grey(network)?))?;
    let plan = digest.together(prepared.lowered.together);
    let how = spec.run_of(Some(plan), "run is")?;
    let client = Client::new(&spec, &prepared.params)?;
    let bar = CountBar::new(mode, how.keys.len(), "evaluation keys");
    let runs = items.len().div_ceil(prepared.lowered.together);
    let keys = client.evaluation_keys(how, &|| bar.advance())?;
    let session = Server::new(&prepared).session(Arc::new(keys), runs)?;
    bar.finish();
    let mut found = Agreement {
        evaluation: "encrypted",
        model: network.name().into(),
        preset: prepared.params.name().into(),
        backend: prepared.backend.name(),
        images: items.len(),
        least_margin: f64::INFINITY,
        pictures_together: prepared.lowered.together,
        ..Agreement::default()
    };
    let together = prepared.lowered.together;
    let mut progress = Progress::new(mode, vec![prepared.plan.seconds(); items.len().div_ceil(together)]);
    let name = if together > 1 { "pictures" } else { "picture" };
    for items in items.chunks(together) {
        let mut pictures = Zeroizing::new(Vec::with_capacity(items.len()));
        for item in items {
            pictures.push(item.open()?.input(network.input(), fit)?.0);
        }
        for picture in pictures.iter() {
            prepared.check_input(network, picture).map_err(about("a picture"))?;
        }
        let encrypted = client.encrypt(how, &pictures)?;
        let clock = Instant::now();
        progress.begin(name);
        let answer = session.run(session.expand(&encrypted)?, &())?;
        progress.end(name, clock.elapsed());
        found.mean_run_seconds += clock.elapsed().as_secs_f64() / found.images as f64;
        let logits = Zeroizing::new(client.decrypt_unrounded(how, &answer.ciphertext)?);
        for ((item, picture), logits) in items.iter().zip(pictures.iter()).zip(logits.iter()) {
            let reference = clear.evaluate(picture).map_err(|e| explain("cannot evaluate the network", &e))?;
            let reference = Zeroizing::new(reference);
            found.compare(network, item.label, reference.values(), logits);
        }
    }
    progress.finish();
    found.seconds = started.elapsed().as_secs_f64();
    Ok(found)
}

impl Agreement {
    fn compare(&mut self, network: &Model, label: Option<usize>, clear: &[f64], logits: &[f64]) {
        let (ours, theirs) = (likeliest(network.classes(), logits, 1), likeliest(network.classes(), clear, 2));
        let index = |l: Option<&crate::model::Likely>| l.map(|l| l.index);
        let (ours, best) = (index(ours.first()), index(theirs.first()));
        self.agree += usize::from(ours == best);
        if label.is_some() {
            self.labelled += 1;
            self.correct += usize::from(ours == label);
            self.clear_correct += usize::from(best == label);
        }
        if let [first, second] = theirs.as_slice() {
            self.least_margin = self.least_margin.min(first.logit - second.logit);
        }
        let error = clear.iter().zip(logits).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let range = crate::report::range(clear);
        self.max_abs_logit_error = self.max_abs_logit_error.max(error);
        self.max_relative_logit_error = self.max_relative_logit_error.max(error / range.max(f64::MIN_POSITIVE));
    }

    /// One JSON line.
    pub(super) fn print_json(&self) {
        // A struct of numbers and strings always serializes.
        say!("{}", serde_json::to_string(self).unwrap_or_default());
    }

    /// For a person.
    pub(super) fn print(&self) {
        say!("{} of {}: the same class encrypted as clear", self.agree, counted(self.images, "picture"));
        if self.labelled > 0 {
            let labelled = counted(self.labelled, "labelled picture");
            say!("of {labelled}, {} right encrypted and {} clear", self.correct, self.clear_correct);
        }
        say!(
            "largest logit difference {:.2e}, {:.2e} of the picture's logit range; smallest margin between the best two {:.2e}",
            self.max_abs_logit_error,
            self.max_relative_logit_error,
            self.least_margin
        );
        if self.pictures_together > 1 {
            say!("{} pictures in one run", self.pictures_together);
        }
        say!("{} a picture on {}, {} in all", seconds(self.mean_run_seconds), self.backend, seconds(self.seconds));
    }
}

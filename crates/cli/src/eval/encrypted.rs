//! `cipherlens eval --encrypted`: whole encrypted runs on many pictures, against the clear evaluation.

use crate::answer;
use crate::client::Client;
use crate::dataset::Item;
use crate::device::Compute;
use crate::failure::{Outcome, explain};
use crate::model::likeliest;
use crate::output::{say, seconds};
use crate::plan::{Wishes, check_memory, prepare_any};
use crate::progress::{CountBar, Mode, Progress};
use crate::server::Server;
use cipherlens::nn::Model;
use cipherlens::nn::clear::Network;
use cipherlens::nn::model::Fit;
use std::time::Instant;

/// How the encrypted runs compare with the clear ones.
#[derive(Debug, Default, serde::Serialize)]
pub struct Agreement {
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
pub fn run(
    network: &Model,
    preset: Option<&str>,
    wishes: Wishes,
    compute: &Compute,
    items: &[Item],
    fit: Option<Fit>,
    mode: Mode,
) -> Outcome<Agreement> {
    let started = Instant::now();
    let prepared = prepare_any(network, preset, Wishes { pictures: items.len(), ..wishes }, compute)?;
    check_memory(&prepared.plan)?;
    let clear = Network::<f64>::new(network);
    let client = Client::new(&prepared, None)?;
    let bar = CountBar::new(mode, prepared.plan.keys().len(), "evaluation keys");
    let runs = items.len().div_ceil(prepared.lowered.together);
    let server = Server::new(&prepared, client.evaluation_keys(prepared.plan.keys(), None, &|| bar.advance())?, runs)?;
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
        let open = |item: &Item| Ok(item.open()?.input(network, fit)?.0);
        let pictures = items.iter().map(open).collect::<Outcome<Vec<_>>>()?;
        for picture in &pictures {
            answer::check_input(&prepared, network, picture, "a picture")?;
        }
        let encrypted = client.encrypt(&prepared, &pictures, None)?;
        let clock = Instant::now();
        progress.begin(name);
        let answer = server.run(server.expand(&encrypted)?, Mode::None)?;
        progress.end(name, clock.elapsed());
        found.mean_run_seconds += clock.elapsed().as_secs_f64() / found.images as f64;
        let logits = client.decrypt(&prepared, &answer.ciphertext)?;
        for ((item, picture), logits) in items.iter().zip(&pictures).zip(&logits) {
            let reference = clear.evaluate(picture).map_err(|e| explain("cannot evaluate the network", &e))?;
            found.compare(network, item.label, reference.values(), logits);
        }
    }
    progress.finish();
    found.seconds = started.elapsed().as_secs_f64();
    Ok(found)
}

impl Agreement {
    fn compare(&mut self, network: &Model, label: Option<usize>, clear: &[f64], logits: &[f64]) {
        let (ours, theirs) = (likeliest(network, logits, 1), likeliest(network, clear, 2));
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
        let largest = clear.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let range = largest - clear.iter().copied().fold(f64::INFINITY, f64::min);
        self.max_abs_logit_error = self.max_abs_logit_error.max(error);
        self.max_relative_logit_error = self.max_relative_logit_error.max(error / range.max(f64::MIN_POSITIVE));
    }

    /// One JSON line.
    pub fn print_json(&self) {
        // A struct of numbers and strings always serializes.
        say!("{}", serde_json::to_string(self).unwrap_or_default());
    }

    /// For a person.
    pub fn print(&self) {
        say!("{} of {} pictures get the same class encrypted as clear", self.agree, self.images);
        if self.labelled > 0 {
            say!("of {} labelled pictures, {} are right encrypted and {} clear", self.labelled, self.correct, self.clear_correct);
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

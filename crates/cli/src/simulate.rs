//! `cipherlens simulate`: what encryption will do to a network's answers, without encrypting.

use super::comparison::Comparison;
use super::compile::{pictures, print_simulation};
use super::dataset::Purpose;
use super::failure::{Class, Failure, Outcome};
use super::output::{Align, Table, say};
use super::picture::fits;
use super::{Global, model, params};
use cipherlens::engine::{self, largest_result};
use cipherlens::nn::Model;
use cipherlens::nn::lower::LowerError;
use cipherlens::nn::model::{Fit, Operator};
use cipherlens::nn::simulate::{ExactAnswers, NoiseLevels, bits_for_error, simulate_against};
use std::path::PathBuf;

/// Precision of a run of which nothing is known, bits.
const USUAL_BITS: f64 = 18.0;
/// Pictures on which the noise is matched to what compiling foresaw.
const SAMPLED: usize = 16;

/// Accuracy and agreement with the fitted polynomials and noise, on clear numbers
#[derive(Debug, clap::Args)]
pub(crate) struct Simulate {
    /// What `compile` wrote
    model: PathBuf,
    /// Pictures: DIR (one folder a class, named like the class or its number), FILE.npy (arrays), or packed:DIR (pictures in few files:
    /// docs/files.md); @CLASS at the end labels all of them
    #[arg(long, value_name = "DIR|FILE.npy|packed:DIR", required = true, num_args = 1..)]
    images: Vec<String>,
    /// Use at most this many pictures of each --images, evenly spread
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Precision of the encrypted run, in bits of the noise's standard deviation [default: with which logits err as compiling
    /// foresaw; 18 where it did not]
    #[arg(long, value_name = "BITS", value_parser = super::compile::finite)]
    noise_bits: Option<f64>,
    #[command(flatten)]
    comparison: Comparison,
    /// What the noise is made from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How pictures are brought to the network's size [default: as the network was compiled for; else crop]
    #[arg(long, value_parser = fits())]
    fit: Option<Fit>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Refuses a network with exact activations: it cannot run encrypted, and would be compared with itself.
fn check_fitted(network: &Model, file: &str) -> Outcome {
    let exact = network.nodes().iter().filter_map(|node| match &node.operator {
        Operator::Activation(function) => Some(format!("{} ({function})", node.name)),
        _ => None,
    });
    let nodes: Vec<String> = exact.collect();
    if nodes.is_empty() {
        return Ok(());
    }
    let error = LowerError::NotFitted { nodes };
    Err(Failure::from_error(Class::BadInput, format!("cannot simulate {file}"), &error, super::failure::FIT_FIRST))
}

impl Simulate {
    /// Simulates and prints. An activation that leaves its interval is a failure, after the figures.
    pub(crate) fn run(&self, global: &Global) -> Outcome {
        let source = model::open(Some(&self.model), &global.onnx())?;
        let terms = source.terms(None, None);
        let model::Source { network, name: file, .. } = source;
        check_fitted(&network, &file)?;
        let (pictures, notes) = pictures(&network, &self.images, Purpose::Measure, self.limit, self.fit)?;
        let failed = |e: &dyn std::error::Error| {
            let advice = "compile again with pictures like these, or with a wider --margin";
            let why = e.to_string();
            Failure::new(Class::Numeric, format!("{file} would not give its answers encrypted"), why, advice)
        };
        let expected = terms.expected_error;
        if let Some(preset) = &terms.preset {
            let most = engine::most_at_the_end(&*params::open(preset)?, &network);
            let largest = largest_result(&network, &pictures)?;
            if largest > most {
                let why = format!("the result reaches {largest:.4e}, and the encrypted answer holds {most:.4e} at most");
                let what = format!("{file} would not give its answers encrypted");
                return Err(Failure::new(Class::Numeric, what, why, super::failure::OVERFLOW_ADVICE));
            }
        }
        let bits = match (self.noise_bits, expected) {
            (Some(bits), _) => bits,
            (None, Some(error)) => {
                let some = &pictures[..pictures.len().min(SAMPLED)];
                bits_for_error(&network, some, error, USUAL_BITS, self.seed).map_err(|e| failed(&e))?
            }
            (None, None) => USUAL_BITS,
        };
        let judge = self.comparison.judge().unwrap_or(terms.judge);
        let exact = ExactAnswers::of(&network, &pictures, judge).map_err(|e| failed(&e))?;
        let found = simulate_against(&exact, &network, &pictures, NoiseLevels::bits(bits), self.seed).map_err(|e| failed(&e))?;
        if self.json {
            let object = serde_json::json!({
                "model": network.name(), "model_file": file, "noise_bits": bits, "agreement": found.agreement(),
                "accuracy": found.accuracy(), "exact_accuracy": found.exact_accuracy(), "simulation": found,
            });
            say!("{object}");
        } else {
            notes.iter().for_each(|note| say!("{note}"));
            let mut table = Table::new([
                ("activation", Align::Left),
                ("interval", Align::Right),
                ("seen", Align::Right),
                ("used", Align::Right),
                ("pictures outside", Align::Right),
            ]);
            for l in &found.layers {
                table.row([
                    l.layer.clone(),
                    format!("[{:.2}, {:.2}]", l.interval[0], l.interval[1]),
                    format!("[{:.2}, {:.2}]", l.min, l.max),
                    format!("{:.0} %", 100.0 * l.used),
                    l.outside.to_string(),
                ]);
            }
            table.print("");
            print_simulation(&found);
            match (self.noise_bits, expected) {
                (None, Some(error)) => {
                    say!("noise of {bits:.1} bits: logits err by {error:.1e}, as compiling foresaw of the encrypted run")
                }
                _ => say!("noise of {bits:.1} bits"),
            }
        }
        found.check_ranges().map_err(|e| failed(&e))
    }
}

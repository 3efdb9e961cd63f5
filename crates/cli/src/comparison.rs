//! `--metric` and `--threshold`: answers that are vectors, of which two are compared.

use cipherlens::client::Metric;
use cipherlens::nn::simulate::Judge;

/// How two answers are compared.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Comparison {
    /// The network makes vectors, as of faces: an answer is whether those of two pictures are nearer than --threshold, by this distance
    #[arg(long, value_name = "euclidean|cosine", requires = "threshold")]
    metric: Option<Metric>,
    /// Two pictures are the same below this distance
    #[arg(long, value_name = "D", requires = "metric", value_parser = above_zero)]
    threshold: Option<f64>,
}

impl Comparison {
    /// What the answers are; none where nothing is asked.
    pub(crate) fn judge(&self) -> Option<Judge> {
        let (metric, threshold) = (self.metric?, self.threshold?);
        Some(Judge::Distance { metric, threshold })
    }
}

/// A positive number.
pub(crate) fn above_zero(text: &str) -> Result<f64, String> {
    super::compile::finite(text).and_then(|x| if x > 0.0 { Ok(x) } else { Err("a distance above 0 is needed".into()) })
}

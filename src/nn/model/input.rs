//! How pictures become a network's input.

use super::Input;
use serde::{Deserialize, Serialize};

/// How a picture is brought to the network's aspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// The largest centred part of the right aspect.
    #[default]
    Crop,
    /// All of it, stretched.
    Stretch,
}

/// Where a network's mean and standard deviation come from. A wrong one is not seen in the answer's shape, so it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalisation {
    /// The model file or the user names them.
    #[default]
    Given,
    /// Nothing names them: ImageNet's for three channels, else none.
    Assumed,
    /// The network normalises pictures of [0, 1] itself.
    Unit,
    /// The network takes pixels of 0 to 255: by the type of its input, or because it normalises those itself.
    Pixels,
}

impl Input {
    /// In words, what is done to the pixels of a picture, and why.
    pub fn normalisation_note(&self) -> String {
        let list = |values: &[f64]| values.iter().map(|v| shown(*v)).collect::<Vec<_>>().join(", ");
        let how = format!("(v - mean) / std for v in [0, 1], mean {}, std {}", list(&self.mean), list(&self.std));
        match self.normalisation {
            Normalisation::Given => format!("pictures are fed as {how}"),
            Normalisation::Assumed if self.shape.channels == 3 => {
                format!(
                    "pictures are fed as {how}: ImageNet's, which is assumed; if it was trained with others, give --mean and --std"
                )
            }
            Normalisation::Assumed => {
                format!("pictures are fed as {how}, which is assumed; if it was trained with others, give --mean and --std")
            }
            Normalisation::Unit => "pictures are fed as values of [0, 1], since the network normalises them itself".into(),
            Normalisation::Pixels => "pictures are fed as pixels of 0 to 255, which is what the network takes".into(),
        }
    }
}

/// A number with four digits at most.
fn shown(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

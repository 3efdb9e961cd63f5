//! How pictures become a network's input.

use super::tensor::{Element, Shape, ShapeMismatch, Tensor};
use serde::{Deserialize, Serialize};

/// The picture a model takes: `(u8 / 255 - mean) / std` per channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Name in the graph.
    pub name: String,
    /// Channels, height, width.
    pub shape: Shape,
    /// Mean per channel.
    pub mean: Vec<f64>,
    /// Standard deviation per channel, positive.
    pub std: Vec<f64>,
    /// Where these come from.
    pub normalisation: Normalisation,
    /// How pictures of another aspect are brought to the shape, where nothing else is asked for.
    pub fit: Fit,
}

/// Why a picture cannot be normalised.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormaliseError {
    /// More or fewer numbers than the shape has.
    #[error(transparent)]
    Shape(#[from] ShapeMismatch),
    /// Not a mean and a deviation for each channel.
    #[error("a picture of {channels} channels needs as many means and deviations, and there are {means} and {deviations}")]
    Channels {
        /// Channels of the shape.
        channels: usize,
        /// Means given.
        means: usize,
        /// Deviations given.
        deviations: usize,
    },
}

impl Input {
    /// The tensor of a picture given as `[channel][row][column]` in [0, 1]: `(v - mean) / std` per channel.
    ///
    /// # Errors
    /// [`NormaliseError::Shape`] where there are not as many numbers as the shape has, [`NormaliseError::Channels`]
    /// where there is not a mean and a deviation for each channel.
    pub fn normalise<T: Element>(&self, planes: &[f64]) -> Result<Tensor<T>, NormaliseError> {
        let (channels, means, deviations) = (self.shape.channels, self.mean.len(), self.std.len());
        if [means, deviations] != [channels; 2] {
            return Err(NormaliseError::Channels { channels, means, deviations });
        }
        if planes.len() != self.shape.len() {
            return Err(ShapeMismatch { expected: self.shape, found: Shape::new(planes.len(), 1, 1) }.into());
        }
        let plane = self.shape.plane();
        let value = |(i, v): (usize, &f64)| T::from_f64((v - self.mean[i / plane]) / self.std[i / plane]);
        Ok(Tensor::new(self.shape, planes.iter().enumerate().map(value).collect())?)
    }
}

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

/// Where a network's mean and standard deviation come from. A wrong one is not seen in the answer's shape, so it is
/// told.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_normalised_is_refused() {
        let input = |means: usize, deviations: usize| Input {
            name: "x".into(),
            shape: Shape::new(2, 1, 2),
            mean: vec![0.5; means],
            std: vec![0.25; deviations],
            normalisation: Normalisation::Given,
            fit: Fit::Crop,
        };
        let planes = [0.5, 0.75, 1.0, 0.0];
        assert_eq!(input(2, 2).normalise::<f64>(&planes).unwrap().values(), [0.0, 1.0, 2.0, -2.0]);
        for (means, deviations) in [(1, 2), (2, 1), (0, 0), (3, 2), (2, 3)] {
            let refused = input(means, deviations).normalise::<f64>(&planes);
            assert_eq!(refused.map(drop), Err(NormaliseError::Channels { channels: 2, means, deviations }));
        }
        let found = Shape::new(3, 1, 1);
        let short = ShapeMismatch { expected: Shape::new(2, 1, 2), found };
        assert_eq!(input(2, 2).normalise::<f64>(&planes[..3]).map(drop), Err(NormaliseError::Shape(short)));
    }
}

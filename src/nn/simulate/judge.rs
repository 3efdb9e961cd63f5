//! What the answer of a network is, and when two networks give the same.

use super::{Labelled, Margins, largest};
use crate::client::{Metric, class_logits};

/// Of so many vectors at most, every two are compared under the noise of encryption: more tell nothing more.
const COMPARED: usize = 64;

/// How a network's results become answers.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judge {
    /// The class of the largest logit, for each picture; of a single number, whether it is above 0.
    #[default]
    Class,
    /// Whether two pictures are the same, by a distance of their results below a threshold: for every two pictures.
    Distance {
        /// The distance.
        metric: Metric,
        /// Below it they are the same.
        threshold: f64,
    },
}

/// An answer: the class of the largest of some numbers.
pub(super) struct Answer {
    /// The pictures that it is of.
    pub of: [usize; 2],
    pub logits: Vec<f64>,
}

impl Judge {
    /// Two pictures are the same: a class.
    const SAME: usize = 0;

    /// The answers of the results of some pictures.
    pub(super) fn answers<T: Copy + Into<f64>>(&self, results: &[&[T]]) -> Vec<Answer> {
        match *self {
            Self::Class => {
                let one = |(i, result): (usize, &&[T])| {
                    let logits: Vec<f64> = result.iter().map(|v| (*v).into()).collect();
                    Answer { of: [i, i], logits: class_logits(&logits) }
                };
                results.iter().enumerate().map(one).collect()
            }
            Self::Distance { metric, threshold } => {
                let pairs = (0..results.len()).flat_map(|i| (0..i).map(move |j| [j, i]));
                let one = |of: [usize; 2]| {
                    let beyond = metric.distance(results[of[0]], results[of[1]]) - threshold;
                    Answer { of, logits: vec![-beyond, beyond] }
                };
                pairs.map(one).collect()
            }
        }
    }

    /// What an answer should be, as far as labels tell.
    pub(super) fn truth(&self, of: [usize; 2], pictures: &[Labelled]) -> Option<usize> {
        let [a, b] = of.map(|i| pictures.get(i).and_then(|p| p.label));
        match self {
            Self::Class => a,
            Self::Distance { .. } => Some(if a? == b? { Self::SAME } else { 1 - Self::SAME }),
        }
    }

    /// How many of the answers survive errors of the results like those seen on some pictures, `[picture][element]`. Results have to be exact
    /// enough to tell a tie ([`resolved_logits`](super::resolved_logits)).
    pub fn under_errors(&self, results: &[Vec<f64>], errors: &[Vec<f64>]) -> Margins {
        match *self {
            Self::Class => {
                let of_classes = |all: &[Vec<f64>]| all.iter().map(|of| class_logits(of)).collect::<Vec<_>>();
                Margins::under_errors(&of_classes(results), &of_classes(errors))
            }
            Self::Distance { metric, threshold } => {
                let (mut margins, mut shifts) = (Vec::new(), Vec::new());
                let some = &results[..results.len().min(COMPARED)];
                for (i, a) in some.iter().enumerate() {
                    for b in &some[..i] {
                        let exact = metric.distance(a, b);
                        margins.push(2.0 * (exact - threshold).abs());
                        // Both vectors have errors of their own.
                        let off = |e: &Vec<f64>| {
                            let a: Vec<f64> = a.iter().zip(e).map(|(a, e)| a + e * std::f64::consts::SQRT_2).collect();
                            2.0 * (metric.distance(&a, b) - exact).abs()
                        };
                        shifts.extend(errors.iter().filter(|e| e.len() == a.len()).map(off));
                    }
                }
                let none = Margins { median: 0.0, mean_shift: 0.0, expected_agreement: 1.0 };
                Margins::of(margins, &shifts, &[]).unwrap_or(none)
            }
        }
    }

    /// What is counted: pictures, or pairs of them.
    pub fn counts(&self) -> &'static str {
        match self {
            Self::Class => "pictures",
            Self::Distance { .. } => "pairs",
        }
    }
}

impl Answer {
    /// Its class, if its numbers are numbers.
    pub(super) fn class(&self) -> Option<usize> {
        self.logits.iter().all(|v| v.is_finite()).then(|| largest(&self.logits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::tensor::{Shape, Tensor};

    #[test]
    fn vectors_are_compared_two_by_two() {
        let judge = Judge::Distance { metric: Metric::Euclidean, threshold: 0.6 };
        let results: [&[f32]; 3] = [&[0.0, 0.0], &[0.3, 0.4], &[3.0, 4.0]];
        let answers = judge.answers(&results);
        let found: Vec<_> = answers.iter().map(|a| (a.of, a.class())).collect();
        assert_eq!(found, [([0, 1], Some(0)), ([0, 2], Some(1)), ([1, 2], Some(1))]);
        assert!((answers[0].logits[0] - 0.1).abs() < 1e-6 && (answers[1].logits[1] - 4.4).abs() < 1e-6);
        let labelled = |label| Labelled { x: Tensor::zeros(Shape::new(1, 1, 1)), label };
        let pictures = [Some(4), Some(4), Some(5), None].map(labelled);
        let truth = |of| judge.truth(of, &pictures);
        assert_eq!([truth([0, 1]), truth([1, 2]), truth([0, 3])], [Some(0), Some(1), None]);
        assert_eq!(judge.answers(&[&[f32::NAN][..], &[0.0]])[0].class(), None);
        // Errors as large as the margin lose answers; errors across the line between two vectors lose none.
        let results = vec![vec![0.0, 0.0], vec![0.5, 0.0]];
        let harmless = judge.under_errors(&results, &[vec![0.0, 1e-3]]);
        assert!(harmless.expected_agreement > 0.999, "{harmless:?}");
        let harmful = judge.under_errors(&results, &[vec![-0.2, 0.0]]);
        assert!(harmful.expected_agreement <= 0.5, "{harmful:?}");
    }

    #[test]
    fn a_single_number_is_told_by_its_sign() {
        let answers = Judge::Class.answers(&[&[-0.5f32][..], &[0.25]]);
        assert_eq!(answers.iter().map(Answer::class).collect::<Vec<_>>(), [Some(0), Some(1)]);
        let margins = Judge::Class.under_errors(&[vec![0.5], vec![-0.4]], &[vec![1e-3]]);
        assert_eq!((margins.median, margins.expected_agreement > 0.999), (0.5, true), "{margins:?}");
        assert_eq!(Judge::Class.under_errors(&[vec![0.5]], &[vec![0.7]]).expected_agreement, 0.5);
    }
}

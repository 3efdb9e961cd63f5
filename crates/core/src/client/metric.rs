//! How far two results are apart, where a network makes vectors that are compared (embeddings of faces, say).

use std::fmt;
use std::str::FromStr;

/// A distance of two vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The length of their difference.
    Euclidean,
    /// 1 less the cosine of the angle between them: 0 for one direction, 2 for opposite ones, 1 where one of them is zero.
    Cosine,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Euclidean, Self::Cosine];

    /// The distance of two vectors of one length.
    pub fn distance<T: Copy + Into<f64>>(self, a: &[T], b: &[T]) -> f64 {
        let sum = |of: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| of((*a).into(), (*b).into())).sum::<f64>();
        match self {
            Self::Euclidean => sum(&|a, b| (a - b) * (a - b)).sqrt(),
            Self::Cosine => {
                let lengths = (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
                if lengths == 0.0 { 1.0 } else { 1.0 - sum(&|a, b| a * b) / lengths }
            }
        }
    }

    /// How far a distance may be off where every number of both vectors is off by at most `error`: to first order, errors
    /// being small beside the vectors.
    pub fn error(self, a: &[f64], b: &[f64], error: f64) -> f64 {
        let of_each = error * (a.len() as f64).sqrt();
        let length = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
        match self {
            Self::Euclidean => 2.0 * of_each,
            Self::Cosine => (of_each / length(a) + of_each / length(b)).min(2.0),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Euclidean => "euclidean",
            Self::Cosine => "cosine",
        })
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|metric| metric.to_string() == name);
        found.ok_or_else(|| format!("{name:?} is no distance that is known: euclidean and cosine are"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_and_their_errors() {
        let (a, b) = ([3.0f64, 0.0, 4.0], [0.0, 5.0, 0.0]);
        assert!((Metric::Euclidean.distance(&a, &b) - 50f64.sqrt()).abs() < 1e-12);
        assert!((Metric::Cosine.distance(&a, &b) - 1.0).abs() < 1e-12, "a right angle");
        assert!(Metric::Cosine.distance(&a, &[6.0, 0.0, 8.0]).abs() < 1e-12);
        assert_eq!(Metric::Cosine.distance(&a, &[0.0; 3]), 1.0);
        for metric in Metric::ALL {
            assert_eq!(metric.to_string().parse(), Ok(metric));
            let (exact, most) = (metric.distance(&a, &b), metric.error(&a, &b, 1e-3));
            for signs in 0..64u32 {
                let off = |v: &[f64; 3], from: u32| {
                    std::array::from_fn::<f64, 3, _>(|i| v[i] + if signs >> (from + i as u32) & 1 == 0 { 1e-3 } else { -1e-3 })
                };
                let found = metric.distance(&off(&a, 0), &off(&b, 3));
                assert!((found - exact).abs() <= 1.001 * most, "{metric}: {found}, not {exact} within {most}");
            }
        }
        assert!("manhattan".parse::<Metric>().is_err());
        assert!((Metric::Euclidean.distance(&[1.0f32, 2.0], &[1.0, 0.0]) - 2.0).abs() < 1e-12);
    }
}

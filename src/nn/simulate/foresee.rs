//! What a simulation on some pictures says about others: how many answers the errors of the logits will cost, and how many
//! pictures will leave an interval.

/// One picture of this many is in the tail that [`part_beyond`] continues.
const TAIL: usize = 10;
/// Fewest pictures in the tail.
const LEAST_TAIL: usize = 4;
/// Logits that differ by less than this part of themselves are equal but for how `f64` rounds.
const TIE: f64 = 1e-13;

/// How sure a network is of its answers, and how far an approximation moves them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Margins {
    /// Median of the difference between the two largest logits.
    pub median: f64,
    /// Mean of how far that difference moved, either way.
    pub mean_shift: f64,
    /// The part of unseen pictures on which the simulated network should say what the exact one says.
    pub expected_agreement: f64,
}

impl Margins {
    /// Of the logits of an exact network, `[picture][class]`, if they are off by errors like those seen on some pictures,
    /// `[picture][class]` too. One logit is the largest whatever happens to it, and where two are the largest there is no answer to lose:
    /// logits have to be exact enough to tell a tie ([`resolved_logits`](super::resolved_logits)).
    pub fn under_errors(logits: &[Vec<f64>], errors: &[Vec<f64>]) -> Self {
        let (mut margins, mut shifts) = (Vec::with_capacity(logits.len()), Vec::new());
        for logits in logits {
            let first = super::largest(logits);
            let Some(second) = super::second_largest(logits, first) else { continue };
            let margin = logits[first] - logits[second];
            if margin <= TIE * logits[first].abs() {
                continue;
            }
            margins.push(margin);
            shifts.extend(errors.iter().filter(|e| e.len() == logits.len()).map(|e| (e[first] - e[second]).abs()));
        }
        Self::of(margins, &shifts).unwrap_or(Self { median: 0.0, mean_shift: 0.0, expected_agreement: 1.0 })
    }

    /// Of margins and the sizes of their shifts; nothing if there are none.
    ///
    /// A network is surer of the pictures it was trained on than of others, so counting answers on those flatters a fit. The
    /// size of its errors is about the same on both. On unseen pictures margins m are spread about evenly from 0 on, half of
    /// them below the median M: `P(m < x) = x / 2M`. A shift by d to the wrong side, which half of all shifts are, then costs
    /// an answer with probability `d / 2M`: in all, `mean |d| / 4M`. A network that is not so sure has more small margins
    /// than that: then what counts is half the part of all pairs of a margin and a shift in which the shift is the larger.
    pub(super) fn of(mut margins: Vec<f64>, shifts: &[f64]) -> Option<Self> {
        margins.sort_by(f64::total_cmp);
        let median = *margins.get(margins.len() / 2)?;
        let count = shifts.len() as f64;
        let mean_shift = shifts.iter().sum::<f64>() / count;
        let below = |shift: &f64| margins.partition_point(|m| m < shift) as f64;
        let seen = shifts.iter().map(below).sum::<f64>() / (2.0 * count * margins.len() as f64);
        let lost = (mean_shift / (4.0 * median)).max(seen);
        // A picture that diverges makes the mean no number.
        let sound = mean_shift.is_finite() && lost.is_finite();
        Some(Self { median, mean_shift, expected_agreement: if sound { (1.0 - lost).max(0.0) } else { 0.0 } })
    }
}

/// The part of all pictures for which a quantity passes 1, from its values on some: the largest tenth of them is continued as
/// an exponential distribution, as sums of many small effects and their largest values fall off at least as fast.
pub(super) fn part_beyond(mut values: Vec<f64>) -> f64 {
    let count = values.len();
    let tail = (count / TAIL).max(LEAST_TAIL);
    if tail >= count {
        return 0.0;
    }
    values.sort_by(|a, b| b.total_cmp(a));
    let threshold = values[tail];
    if threshold >= 1.0 {
        return values.iter().filter(|v| **v > 1.0).count() as f64 / count as f64;
    }
    let mean_excess = values[..tail].iter().map(|v| v - threshold).sum::<f64>() / tail as f64;
    let beyond = if mean_excess > 0.0 { (-(1.0 - threshold) / mean_excess).exp() } else { 0.0 };
    if beyond.is_nan() { 1.0 } else { beyond * tail as f64 / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_lost_are_foreseen_from_margins_and_shifts() {
        // Margins even in [0, 2 M], shifts even in [-d, d]: lost are those below the shift, on average d / 8M in all.
        let (m, d) = (10.0, 0.8);
        let margins: Vec<f64> = (0..10_000).map(|i| 2.0 * m * (f64::from(i) + 0.5) / 10_000.0).collect();
        let shifts: Vec<f64> = (0..997).map(|i| d * (2.0 * (f64::from(i) + 0.5) / 997.0 - 1.0)).collect();
        let lost: usize = shifts.iter().map(|s| margins.iter().filter(|m| **m + s < 0.0).count()).sum();
        let lost = lost as f64 / (10_000.0 * 997.0);
        let sizes: Vec<f64> = shifts.iter().map(|s| s.abs()).collect();
        let found = Margins::of(margins.clone(), &sizes).unwrap();
        assert!((1.0 - found.expected_agreement - lost).abs() < 0.02 * lost);
        // Surer of its answers, as on training pictures: small margins are rare, and the same is foreseen.
        let sure = margins.iter().map(|m| m.max(0.9)).collect();
        let of_sure = Margins::of(sure, &sizes).unwrap();
        assert!((of_sure.expected_agreement - found.expected_agreement).abs() < 0.02 * lost);
        // Less sure: half of the margins below the largest shift, the median where it was.
        let unsure: Vec<f64> = margins.iter().map(|x| if *x < m { 0.08 * x } else { *x }).collect();
        let lost: usize = shifts.iter().map(|s| unsure.iter().filter(|m| **m + s < 0.0).count()).sum();
        let lost = lost as f64 / (10_000.0 * 997.0);
        let found = Margins::of(unsure, &sizes).unwrap();
        assert!((1.0 - found.expected_agreement - lost).abs() < 0.02 * lost && lost > 0.1, "{found:?} {lost}");
        assert_eq!(Margins::of(vec![1.0], &[f64::NAN]).unwrap().expected_agreement, 0.0);
        assert_eq!(Margins::of(Vec::new(), &[]), None);
    }

    #[test]
    fn errors_as_large_as_the_margins_lose_answers() {
        let logits = vec![vec![1.0, 3.0, 2.0], vec![5.0, 5.0, 1.0], vec![2.0, 1.0, 0.0]];
        let small = Margins::under_errors(&logits, &[vec![1e-3, -1e-3, 0.0]]);
        assert_eq!((small.median, small.expected_agreement > 0.99), (1.0, true), "{small:?}");
        let large = Margins::under_errors(&logits, &[vec![10.0, -10.0, 0.0]]);
        assert!(large.expected_agreement <= 0.5, "{large:?}");
        // A factor common to all errors of a picture moves no difference.
        assert_eq!(Margins::under_errors(&logits, &[vec![7.0; 3]]).expected_agreement, 1.0);
        // What all logits have in common hides no margin, and rounding is none.
        let hidden = [vec![5e8, 5e8 + 2.0, 5e8 - 1.0]];
        assert_eq!(Margins::under_errors(&hidden, &[vec![1e-3, -1e-3, 0.0]]).median, 2.0);
        for nothing in [vec![], vec![vec![1.0]], vec![vec![2.0, 2.0]], vec![vec![0.3, 0.1 + 0.2]]] {
            assert_eq!(Margins::under_errors(&nothing, &[vec![9.0, 1.0]]).expected_agreement, 1.0);
        }
    }

    #[test]
    fn a_tail_is_continued() {
        // Quantiles of an exponential distribution of mean e above 0.3: beyond 1 lie exp(-0.7 / e).
        let quantiles = |e: f64, n: u32| (0..n).map(|i| 0.3 - e * ((f64::from(i) + 0.5) / f64::from(n)).ln()).collect::<Vec<_>>();
        for e in [0.05, 0.1] {
            let (found, expected) = (part_beyond(quantiles(e, 1000)), (-0.7 / e).exp());
            assert!((found / expected).ln().abs() < 0.4, "{found} for {expected}");
        }
        let (found, expected) = (part_beyond(quantiles(1.0, 1000)), (-0.7f64).exp());
        assert!((found - expected).abs() < 2e-3, "counted: {found} for {expected}");
        assert_eq!(part_beyond(vec![0.5; 100]), 0.0);
        assert_eq!(part_beyond(vec![f64::INFINITY; 100]), 1.0);
        assert_eq!(part_beyond(Vec::new()), 0.0);
        let mut one = vec![0.5; 100];
        one[3] = f64::INFINITY;
        assert_eq!(part_beyond(one), 0.1, "an infinite value: the tail has no end");
    }
}

//! What a simulation on some pictures says about others: how many answers the errors of the logits will cost, and how many
//! pictures will leave an interval.

/// One picture of this many is in the tail that [`part_beyond`] continues.
const TAIL: usize = 10;
/// Fewest pictures in the tail.
const LEAST_TAIL: usize = 4;
/// Logits that differ by less than this part of themselves are equal but for how `f64` rounds.
const TIE: f64 = 1e-13;
/// One zoomed picture of this many, those that the network is least sure of, says how dense small margins are.
const UNSURE: usize = 16;
/// Fewest zoomed pictures that say it.
const LEAST_ZOOMED: usize = 64;

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
        Self::of(margins, &shifts, &[]).unwrap_or(Self { median: 0.0, mean_shift: 0.0, expected_agreement: 1.0 })
    }

    /// Of margins and the sizes of their shifts, and of the margins of the same pictures zoomed; nothing if there are none.
    ///
    /// A network is surer of the pictures it was trained on than of others, so counting answers on those flatters a fit. The
    /// size of its errors is about the same on both. What is not known is how dense the margins of unseen pictures lie near 0:
    /// `f` for each unit costs `f mean |d| / 2` of the answers where they are shifted by d, since half of all shifts are to the wrong side. Two
    /// numbers bound f. Margins m of unseen pictures are at worst spread about evenly from 0 on, half of them below the median M:
    /// `P(m < x) = x / 2M`, `f = 1 / 2M`. And a network is less sure of what it was trained on, shown zoomed, than of what it has not seen: on
    /// those pictures f is the part of the least sure sixteenth over the margin that these stay below. The smaller of the two counts.
    ///
    /// A network that is not so sure of the very pictures has more small margins: then what counts is half the part of all pairs of a
    /// margin and a shift in which the shift is the larger.
    pub(super) fn of(mut margins: Vec<f64>, shifts: &[f64], zoomed: &[f64]) -> Option<Self> {
        margins.sort_by(f64::total_cmp);
        let median = *margins.get(margins.len() / 2)?;
        let count = shifts.len() as f64;
        let mean_shift = shifts.iter().sum::<f64>() / count;
        let even = mean_shift / (4.0 * median);
        let least = Unsure::of(zoomed).map_or(even, |unsure| even.min(unsure.lost(shifts)));
        let lost = least.max(half_below(&margins, shifts));
        // A picture that diverges makes the mean no number.
        let sound = mean_shift.is_finite() && lost.is_finite();
        Some(Self { median, mean_shift, expected_agreement: if sound { (1.0 - lost).max(0.0) } else { 0.0 } })
    }
}

/// Half the part of all pairs of a margin and a shift in which the shift is the larger; margins in their order.
fn half_below(margins: &[f64], shifts: &[f64]) -> f64 {
    let below = |shift: &f64| margins.partition_point(|m| m < shift) as f64;
    shifts.iter().map(below).sum::<f64>() / (2.0 * shifts.len() as f64 * margins.len() as f64)
}

/// The margins of zoomed pictures.
struct Unsure {
    /// In their order.
    margins: Vec<f64>,
    /// How many of them, in parts of all, lie below each unit near 0.
    density: f64,
}

impl Unsure {
    /// None of too few pictures, or where the least sure of them have no margin at all.
    fn of(zoomed: &[f64]) -> Option<Self> {
        if zoomed.len() < LEAST_ZOOMED {
            return None;
        }
        let mut margins = zoomed.to_vec();
        margins.sort_by(f64::total_cmp);
        let least = margins.len().div_ceil(UNSURE);
        let below = margins[least - 1];
        (below > 0.0).then(|| Self { density: least as f64 / (margins.len() as f64 * below), margins })
    }

    /// The part of the answers that shifts cost: by the density near 0, or by the margins where those are denser behind.
    fn lost(&self, shifts: &[f64]) -> f64 {
        let near = self.density * shifts.iter().sum::<f64>() / (2.0 * shifts.len() as f64);
        near.max(half_below(&self.margins, shifts))
    }
}

/// How the largest values of a quantity fall off: the largest tenth of them is continued as an exponential distribution, as sums of many
/// small effects and their largest values fall off at least as fast.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Tail {
    /// Where it begins.
    pub threshold: f64,
    /// How far what lies in it is from there, on average.
    pub mean_excess: f64,
    /// The part of the values that lie in it.
    pub part: f64,
}

impl Tail {
    /// Of the values of some pictures; none of too few.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        let count = values.len();
        let tail = (count / TAIL).max(LEAST_TAIL);
        if tail >= count {
            return None;
        }
        values.sort_by(|a, b| b.total_cmp(a));
        let threshold = values[tail];
        let mean_excess = values[..tail].iter().map(|v| v - threshold).sum::<f64>() / tail as f64;
        Some(Self { threshold, mean_excess, part: tail as f64 / count as f64 })
    }

    /// The part of all pictures beyond a value; 1 for one before the tail.
    pub fn beyond(&self, value: f64) -> f64 {
        if self.threshold >= value {
            return 1.0;
        }
        let beyond = if self.mean_excess > 0.0 { (-(value - self.threshold) / self.mean_excess).exp() } else { 0.0 };
        if beyond.is_nan() { 1.0 } else { beyond * self.part }
    }
}

/// The part of all pictures for which a quantity passes 1, from its values on some: by their [`Tail`], or counted where that begins behind 1.
pub(super) fn part_beyond(values: Vec<f64>) -> f64 {
    let (count, beyond) = (values.len(), values.iter().filter(|v| **v > 1.0).count());
    match Tail::of(values) {
        Some(tail) if tail.threshold >= 1.0 => beyond as f64 / count as f64,
        Some(tail) => tail.beyond(1.0),
        None => 0.0,
    }
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
        let found = Margins::of(margins.clone(), &sizes, &[]).unwrap();
        assert!((1.0 - found.expected_agreement - lost).abs() < 0.02 * lost);
        // Surer of its answers, as on training pictures: small margins are rare, and the same is foreseen.
        let sure = margins.iter().map(|m| m.max(0.9)).collect();
        let of_sure = Margins::of(sure, &sizes, &[]).unwrap();
        assert!((of_sure.expected_agreement - found.expected_agreement).abs() < 0.02 * lost);
        // Less sure: half of the margins below the largest shift, the median where it was.
        let unsure: Vec<f64> = margins.iter().map(|x| if *x < m { 0.08 * x } else { *x }).collect();
        let lost: usize = shifts.iter().map(|s| unsure.iter().filter(|m| **m + s < 0.0).count()).sum();
        let lost = lost as f64 / (10_000.0 * 997.0);
        let found = Margins::of(unsure, &sizes, &[]).unwrap();
        assert!((1.0 - found.expected_agreement - lost).abs() < 0.02 * lost && lost > 0.1, "{found:?} {lost}");
        assert_eq!(Margins::of(vec![1.0], &[f64::NAN], &[]).unwrap().expected_agreement, 0.0);
        assert_eq!(Margins::of(Vec::new(), &[], &[]), None);
    }

    #[test]
    fn a_network_that_is_sure_of_zoomed_pictures_too_loses_less() {
        let (m, d) = (10.0, 0.8);
        let margins: Vec<f64> = (0..1000).map(|i| m * (0.5 + f64::from(i) / 1000.0)).collect();
        let shifts = vec![d; 50];
        let even = Margins::of(margins.clone(), &shifts, &[]).unwrap();
        assert!((1.0 - even.expected_agreement - d / (4.0 * m)).abs() < 1e-4, "{even:?}");
        // A tenth as dense near 0 as if they were even: 1 in 20 m for a unit, up to m, above that the others.
        let zoomed = |density: f64| -> Vec<f64> {
            (0..2000)
                .map(|i| (f64::from(i) + 0.5) / 2000.0)
                .map(|part| part / density * 2.0 * m)
                .map(|x| x.min(2.0 * m))
                .collect()
        };
        let sure = Margins::of(margins.clone(), &shifts, &zoomed(0.1)).unwrap();
        assert!(((1.0 - sure.expected_agreement) / (0.1 * d / (4.0 * m)) - 1.0).abs() < 0.02, "{sure:?}");
        // No network is expected to be less sure than even, nor are a few pictures a proof, nor those without a margin.
        for no_help in [zoomed(3.0), zoomed(0.1)[..63].to_vec(), vec![0.0; 500]] {
            assert_eq!(Margins::of(margins.clone(), &shifts, &no_help).unwrap(), even);
        }
        // What the very pictures show counts in any case, and so do zoomed ones that are denser where the shifts reach.
        let unsure = vec![0.5; 100];
        assert_eq!(Margins::of(unsure, &shifts, &zoomed(0.1)).unwrap().expected_agreement, 0.5);
        let lump: Vec<f64> =
            (0..1600).map(|i| if i < 100 { 0.7 + f64::from(i) * 1e-4 } else { 0.75 + f64::from(i) * 1e-4 }).collect();
        let lump = Margins::of(margins, &shifts, &lump).unwrap();
        assert!(lump.expected_agreement >= even.expected_agreement && lump.expected_agreement < 1.0, "{lump:?}");
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

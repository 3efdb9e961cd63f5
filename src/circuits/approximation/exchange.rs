//! Finding the alternating extrema of an error function, for the Remez exchange.

/// Points looked at between two neighbouring references.
const BETWEEN: usize = 24;
/// Halvings of the bracket of an extremum; each keeps 0.618 of it.
const GOLDEN_STEPS: usize = 34;

/// A point and the error there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Extremum {
    pub x: f64,
    pub error: f64,
}

/// All local extrema of |e| on the intervals, in order, both ends of every interval among them. `reference` says where the
/// previous extrema were: that is how finely each place is looked at.
pub(super) fn extrema(intervals: &[[f64; 2]], reference: &[f64], e: impl Fn(f64) -> f64) -> Vec<Extremum> {
    let mut found = Vec::new();
    for &[a, b] in intervals {
        let mut marks: Vec<f64> = reference.iter().copied().filter(|x| a < *x && *x < b).collect();
        marks.insert(0, a);
        marks.push(b);
        let mut grid = vec![a];
        for pair in marks.windows(2) {
            let [from, to] = [pair[0], pair[1]];
            // Denser at both ends of the gap, where the extrema of the last round were.
            let inside = |i: usize| {
                let t = (1.0 - (std::f64::consts::PI * i as f64 / BETWEEN as f64).cos()) / 2.0;
                from + (to - from) * t
            };
            grid.extend((1..BETWEEN).map(inside));
            grid.push(to);
        }
        grid.dedup();
        let values: Vec<f64> = grid.iter().map(|x| e(*x)).collect();
        for i in 0..grid.len() {
            let here = values[i];
            let rises = |j: usize| here.abs() >= values[j].abs() || here.signum() != values[j].signum();
            let left = i == 0 || rises(i - 1);
            let right = i + 1 == grid.len() || rises(i + 1);
            if left && right {
                let bracket = [grid[i.saturating_sub(1)], grid[(i + 1).min(grid.len() - 1)]];
                found.push(refine(bracket, Extremum { x: grid[i], error: here }, &e));
            }
        }
    }
    found
}

/// The largest `e sign(start)` in a bracket by golden section; the start itself if nothing in it is larger.
fn refine(bracket: [f64; 2], start: Extremum, e: impl Fn(f64) -> f64) -> Extremum {
    let sign = start.error.signum();
    let ratio = (5.0f64.sqrt() - 1.0) / 2.0;
    let [mut a, mut b] = bracket;
    let (mut x1, mut x2) = (b - ratio * (b - a), a + ratio * (b - a));
    let (mut y1, mut y2) = (sign * e(x1), sign * e(x2));
    for _ in 0..GOLDEN_STEPS {
        if y1 > y2 {
            (b, x2, y2) = (x2, x1, y1);
            x1 = b - ratio * (b - a);
            y1 = sign * e(x1);
        } else {
            (a, x1, y1) = (x1, x2, y2);
            x2 = a + ratio * (b - a);
            y2 = sign * e(x2);
        }
    }
    let best = if y1 > y2 { (x1, y1) } else { (x2, y2) };
    if best.1 > sign * start.error { Extremum { x: best.0, error: sign * best.1 } } else { start }
}

/// `count` of the extrema with alternating signs, the largest one among them and the least of them as large as a greedy
/// choice makes it. None if fewer alternate.
pub(super) fn alternating(all: &[Extremum], count: usize) -> Option<Vec<Extremum>> {
    let mut kept: Vec<Extremum> = Vec::with_capacity(all.len());
    for &point in all {
        match kept.last_mut() {
            Some(last) if last.error.signum() == point.error.signum() => {
                if point.error.abs() > last.error.abs() {
                    *last = point;
                }
            }
            _ => kept.push(point),
        }
    }
    while kept.len() > count {
        let size = |i: usize| kept[i].error.abs();
        let last = kept.len() - 1;
        if kept.len() == count + 1 {
            // One too many: only an end can go without breaking the alternation.
            if size(0) < size(last) {
                kept.remove(0);
            } else {
                kept.pop();
            }
            continue;
        }
        // The least goes; from the inside, its smaller neighbour goes with it.
        let least = (0..kept.len()).min_by(|&i, &j| size(i).total_cmp(&size(j)))?;
        if least == 0 {
            kept.remove(0);
        } else if least == last {
            kept.pop();
        } else {
            let first = if size(least - 1) < size(least + 1) { least - 1 } else { least };
            kept.drain(first..first + 2);
        }
    }
    (kept.len() == count).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extrema_of_a_cosine_are_found_with_both_ends() {
        let found = extrema(&[[0.0, 7.0]], &[1.0, 3.0, 5.0], f64::cos);
        let pi = std::f64::consts::PI;
        let expected = [0.0, pi, 2.0 * pi];
        let alternating = alternating(&found, 3).unwrap();
        for (p, x) in alternating.iter().zip(expected) {
            assert!((p.x - x).abs() < 1e-6 && (p.error.abs() - 1.0).abs() < 1e-12, "{p:?}");
        }
    }

    #[test]
    fn the_largest_alternating_ones_are_kept() {
        let at = |x: f64, error: f64| Extremum { x, error };
        let all = [at(0.0, 0.1), at(1.0, 1.0), at(2.0, 3.0), at(3.0, -2.0), at(4.0, 0.2), at(5.0, -2.5), at(6.0, 1.0)];
        let kept = alternating(&all, 3).unwrap();
        assert_eq!(kept.iter().map(|p| p.x).collect::<Vec<_>>(), [2.0, 5.0, 6.0]);
        assert_eq!(alternating(&all, 4).unwrap().iter().map(|p| p.x).collect::<Vec<_>>(), [2.0, 3.0, 4.0, 5.0]);
        assert_eq!(alternating(&all[..3], 2), None, "all of one sign");
    }
}

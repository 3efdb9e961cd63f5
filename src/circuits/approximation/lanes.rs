//! Sums over many points, several at a time: compiled for wide registers where the processor has them, with the same roundings everywhere.

/// Points taken together.
const LANES: usize = 16;
/// Sums of each of them that are held apart.
const PARTS: usize = 4;

/// A function that is compiled twice: for any processor, and for wide registers.
macro_rules! widened {
    ($(#[$doc:meta])* fn $name:ident($($operand:ident: $kind:ty),*) -> $result:ty = $body:ident, $wide:ident) => {
        $(#[$doc])*
        pub(super) fn $name($($operand: $kind),*) -> $result {
            #[cfg(target_arch = "x86_64")]
            if std::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has what the function needs.
                return unsafe { $wide($($operand),*) };
            }
            $body($($operand),*)
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        fn $wide($($operand: $kind),*) -> $result {
            $body($($operand),*)
        }
    };
}

widened! {
    /// `sum_i weights[i] T_k(points[i])` for each k below `count`, which is 1 or more.
    fn moments(points: &[f64], weights: &[f64], count: usize) -> Vec<f64> = moments_of, moments_wide
}

widened! {
    /// `sum_k c[k] T_k(t)` at each point t (Clenshaw).
    fn values(c: &[f64], points: &[f64]) -> Vec<f64> = values_of, values_wide
}

widened! {
    /// `sum_i a[i] b[i]`.
    fn dot(a: &[f64], b: &[f64]) -> f64 = dot_of, dot_wide
}

#[inline(always)]
fn moments_of(points: &[f64], weights: &[f64], count: usize) -> Vec<f64> {
    let mut sums = vec![[0.0; PARTS]; count];
    for (points, weights) in points.chunks(LANES).zip(weights.chunks(LANES)) {
        // The last chunk is filled up with points that weigh nothing.
        let (mut twice, mut before, mut now) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for (lane, (t, w)) in points.iter().zip(weights).enumerate() {
            // T_(-1) is T_1.
            (twice[lane], before[lane], now[lane]) = (2.0 * t, w * t, *w);
        }
        for sums in &mut sums {
            for lane in 0..LANES {
                sums[lane % PARTS] += now[lane];
            }
            for lane in 0..LANES {
                (before[lane], now[lane]) = (now[lane], twice[lane] * now[lane] - before[lane]);
            }
        }
    }
    sums.iter().map(|sums| sums.iter().sum()).collect()
}

#[inline(always)]
fn values_of(c: &[f64], points: &[f64]) -> Vec<f64> {
    let mut found = Vec::with_capacity(points.len().next_multiple_of(LANES));
    let (constant, rest) = c.split_first().map_or((0.0, &[][..]), |(constant, rest)| (*constant, rest));
    for chunk in points.chunks(LANES) {
        let (mut t, mut b1, mut b2) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        t[..chunk.len()].copy_from_slice(chunk);
        for c in rest.iter().rev() {
            for lane in 0..LANES {
                (b1[lane], b2[lane]) = (2.0 * t[lane] * b1[lane] - b2[lane] + c, b1[lane]);
            }
        }
        found.extend((0..LANES).map(|lane| t[lane] * b1[lane] - b2[lane] + constant));
    }
    found.truncate(points.len());
    found
}

#[inline(always)]
fn dot_of(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    a_rest.iter().zip(b_rest).map(|(a, b)| a * b).chain(sums).sum()
}

#[cfg(test)]
mod tests {
    use super::super::{chebyshev_row, clenshaw};
    use super::*;

    #[test]
    fn sums_are_those_of_one_point_after_the_other() {
        for n in [0, 1, 15, 16, 17, 100] {
            let t: Vec<f64> = (0..n).map(|i| (f64::from(i) * 0.7).sin()).collect();
            let w: Vec<f64> = (0..n).map(|i| f64::from(i % 5) - 1.5).collect();
            let mut want = vec![0.0; 40];
            let mut row = want.clone();
            for (t, w) in t.iter().zip(&w) {
                chebyshev_row(*t, &mut row);
                want.iter_mut().zip(&row).for_each(|(sum, v)| *sum += w * v);
            }
            for (found, want) in moments(&t, &w, 40).iter().zip(&want) {
                assert!((found - want).abs() < 1e-11, "{found}, not {want}");
            }
            let c: Vec<f64> = (0..9).map(|k| 1.0 / f64::from(k + 1)).collect();
            for (found, t) in values(&c, &t).iter().zip(&t) {
                assert_eq!(*found, clenshaw(&c, *t));
            }
            assert_eq!(values(&c, &t).len(), t.len());
            assert!((dot(&t, &w) - t.iter().zip(&w).map(|(t, w)| t * w).sum::<f64>()).abs() < 1e-12);
        }
        assert_eq!(values(&[], &[0.5]), [0.0]);
    }

    #[test]
    fn wide_registers_round_alike() {
        let t: Vec<f64> = (0..333).map(|i| (f64::from(i) * 0.37).cos()).collect();
        let w: Vec<f64> = (0..333).map(|i| 1.0 / f64::from(1 + i % 7)).collect();
        assert_eq!(moments(&t, &w, 77), moments_of(&t, &w, 77));
        assert_eq!(values(&w, &t), values_of(&w, &t));
        assert_eq!(dot(&t, &w), dot_of(&t, &w));
    }
}

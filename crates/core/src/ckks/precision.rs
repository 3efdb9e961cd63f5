//! How close decrypted values are to those wanted.

use super::error::{CkksError, Result};

/// Absolute errors over all slots, as numbers and as bits (`-log2`). Bits of an exact match are infinite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionStats {
    /// Values compared.
    pub count: usize,
    /// Mean absolute error.
    pub mean_error: f64,
    /// Root of the mean squared error.
    pub rms_error: f64,
    /// Largest absolute error.
    pub worst_error: f64,
    /// `-log2` of the mean error.
    pub mean_bits: f64,
    /// `-log2` of the largest error.
    pub worst_bits: f64,
}

impl PrecisionStats {
    /// Compares two sequences of one length. A NaN makes every figure NaN, so it cannot pass for a good result.
    ///
    /// # Errors
    /// [`CkksError::SlotCount`] where the lengths differ, or there is nothing to compare.
    pub fn compare(want: &[f64], got: &[f64]) -> Result<Self> {
        if want.len() != got.len() {
            return Err(CkksError::SlotCount { expected: want.len(), found: got.len() });
        }
        if want.is_empty() {
            return Err(CkksError::SlotCount { expected: 1, found: 0 });
        }
        let (mut sum, mut squares, mut worst) = (0.0, 0.0, 0.0f64);
        for (w, g) in want.iter().zip(got) {
            let error = (w - g).abs();
            sum += error;
            squares += error * error;
            worst = if error.is_nan() || error > worst { error } else { worst };
        }
        let count = want.len();
        let mean_error = sum / count as f64;
        let worst_error = if mean_error.is_nan() { f64::NAN } else { worst };
        Ok(Self {
            count,
            mean_error,
            rms_error: (squares / count as f64).sqrt(),
            worst_error,
            mean_bits: -mean_error.log2(),
            worst_bits: -worst_error.log2(),
        })
    }

    /// [`Self::compare`] over shards.
    ///
    /// # Errors
    /// [`CkksError::ShardMismatch`] where there are more or fewer shards; else as [`Self::compare`].
    pub fn compare_shards<A: AsRef<[f64]>, B: AsRef<[f64]>>(want: &[A], got: &[B]) -> Result<Self> {
        if want.len() != got.len() {
            return Err(CkksError::ShardMismatch { op: "precision", expected: want.len(), found: got.len() });
        }
        let mut all = (Vec::new(), Vec::new());
        for (w, g) in want.iter().zip(got) {
            let (w, g) = (w.as_ref(), g.as_ref());
            if w.len() != g.len() {
                return Err(CkksError::SlotCount { expected: w.len(), found: g.len() });
            }
            all.0.extend_from_slice(w);
            all.1.extend_from_slice(g);
        }
        Self::compare(&all.0, &all.1)
    }
}

impl std::fmt::Display for PrecisionStats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} bits mean, {:.1} worst, over {} values", self.mean_bits, self.worst_bits, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_bits() {
        let s = PrecisionStats::compare(&[1.0, 2.0], &[1.0, 2.25]).unwrap();
        assert_eq!((s.mean_error, s.worst_error, s.mean_bits, s.worst_bits), (0.125, 0.25, 3.0, 2.0));
        assert_eq!(PrecisionStats::compare(&[1.0], &[1.0]).unwrap().worst_bits, f64::INFINITY);
        let nan = PrecisionStats::compare(&[1.0, 1.0, 1.0], &[f64::NAN, 1.0, 2.0]).unwrap();
        assert!(nan.worst_error.is_nan() && nan.mean_bits.is_nan());
        assert!(PrecisionStats::compare(&[1.0], &[]).is_err());
    }
}

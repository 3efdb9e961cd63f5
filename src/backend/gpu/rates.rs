//! How fast an adapter is at what runs ask of it, measured in a second or two: what a run takes there, before it is tried.

use super::GpuBackend;
use super::self_test::plan;
use crate::backend::{Backend, Kernels, PolySelect, Result, Shape, Statistics};
use crate::math::Basis;
use std::time::Instant;

/// Dependent kernels whose time is taken for the gap.
const CHAIN: usize = 256;
/// Bytes written to time an upload.
const UPLOAD: usize = 16 << 20;
/// Times each is repeated; the fastest counts.
const REPEATS: usize = 3;

/// What an adapter takes for what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Rates {
    /// Seconds from one kernel to the next that waits for it.
    pub gap: f64,
    /// Bytes that the kernels of a key switch read and write in a second, gaps left out.
    pub traffic: f64,
    /// Bytes sent to the device in a second.
    pub upload: f64,
}

impl Rates {
    /// About those of the card that was measured (benches/record), an NVIDIA H100: for plans that are made without a GPU at hand.
    pub const TYPICAL: Self = Self { gap: 3e-6, traffic: 1.7e12, upload: 1e10 };

    /// Seconds spent between kernels, in them, and on sending and reading back.
    pub fn parts(&self, asked: &Statistics) -> [f64; 3] {
        let waits = (asked.dispatches + asked.copies) as f64 * self.gap;
        let sent = asked.uploaded_bytes + asked.key_bytes + asked.downloaded_bytes;
        [waits, asked.traffic_bytes as f64 / self.traffic, sent as f64 / self.upload]
    }

    /// Seconds that a run takes which asks for so much.
    pub fn seconds(&self, asked: &Statistics) -> f64 {
        self.parts(asked).iter().sum()
    }
}

impl GpuBackend {
    /// Measures the adapter, with the primes that the backend was made for. A second or two; minutes are a software adapter's.
    ///
    /// # Errors
    /// As [`Backend`] says.
    pub fn rates(&self) -> Result<Rates> {
        let (n, primes) = (self.tables.degree(), self.tables.len());
        let one = Basis::range(0..1);
        let mut x = self.alloc(Shape::new(1, 1, n))?;
        let all = PolySelect::all(x.shape());
        let chain = self.fastest(|| (0..CHAIN).try_for_each(|_| self.add_constant_assign(&mut x, all, &[1], &one)))?;
        let gap = chain / CHAIN as f64;

        let special = primes.div_ceil(4).min(primes - 1).max(1);
        let plan = plan(&self.tables, primes - special, special);
        let x = self.alloc(Shape::new(2, plan.window.len(), n))?;
        let key = self.alloc(Shape::new(2 * plan.digits.len(), plan.extended.len(), n))?;
        let second = PolySelect::second_halves(x.shape());
        let before = self.counted();
        drop(self.key_switch(&x, second, &key, &plan)?);
        let asked = self.counted() - before;
        let switch = self.fastest(|| self.key_switch(&x, second, &key, &plan).map(drop))?;
        // However long gaps are, the kernels take some of it.
        let kernels = (switch - asked.dispatches as f64 * gap).max(switch / 4.0);

        let words = vec![0u32; UPLOAD / 4];
        let shape = Shape::new(1, 1, words.len());
        let upload = self.fastest(|| self.upload(shape, &words).map(drop))?;
        Ok(Rates { gap, traffic: asked.traffic_bytes as f64 / kernels, upload: UPLOAD as f64 / upload })
    }

    /// The fastest of some calls that follow one, until the device is done.
    fn fastest(&self, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
        call()?;
        self.synchronize()?;
        let mut least = f64::INFINITY;
        for _ in 0..REPEATS {
            let start = Instant::now();
            call()?;
            self.synchronize()?;
            least = least.min(start.elapsed().as_secs_f64());
        }
        Ok(least.max(f64::MIN_POSITIVE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_takes_its_gaps_its_bytes_and_what_is_sent() {
        let rates = Rates { gap: 1e-6, traffic: 1e12, upload: 1e10 };
        let asked = Statistics {
            dispatches: 900,
            copies: 100,
            traffic_bytes: 5_000_000_000,
            key_bytes: 3_000_000,
            ..Statistics::default()
        };
        let [waits, kernels, sent] = rates.parts(&asked);
        assert!((waits - 1e-3).abs() < 1e-12 && (kernels - 5e-3).abs() < 1e-12 && (sent - 3e-4).abs() < 1e-12);
        assert!((rates.seconds(&asked) - 6.3e-3).abs() < 1e-12);
    }
}

//! `cipherlens bench rotations`: a tensor of S shards rotated by R steps reads each key once, so the time for one rotation of
//! one shard falls as S grows.

use super::{Common, KeyedScheme, Timing, measure, with_pools};
use crate::Global;
use crate::failure::Outcome;
use crate::output::{Align, Table, bytes, say};

/// Rotations of many shards with the same keys: each key is read once for all shards
#[derive(Debug, clap::Args)]
pub(super) struct Rotations {
    /// Parameter set; everything is measured at its top level
    #[arg(long, short, value_name = "PRESET", default_value = crate::params::DEFAULT_PRESET)]
    preset: String,
    /// Numbers of shards
    #[arg(long, value_name = "S", value_delimiter = ',', default_value = "1,4,16", value_parser = clap::value_parser!(u16).range(1..=1024))]
    shards: Vec<u16>,
    /// Rotations of each value, by 1, 2, ... slots
    #[arg(long, value_name = "R", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    steps: u16,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone)]
struct Line {
    threads: usize,
    shards: usize,
    timing: Timing,
    /// Seconds for one rotation of one shard.
    each: f64,
}

impl Rotations {
    /// Measures and prints.
    pub(super) fn run(&self, global: &Global) -> Outcome {
        let steps: Vec<i64> = (1..=i64::from(self.steps)).collect();
        let scheme = KeyedScheme::new(&self.preset, &self.common.compute, None, &steps)?;
        let lines = with_pools(global, |threads| self.measure_all(&scheme, &steps, threads))?.concat();
        let key_bytes = steps.len() as u64 * scheme.gadget.key_bytes(scheme.params.degree());
        let ciphertext_bytes =
            |shards: usize| shards * 8 * scheme.params.window(scheme.params.max_level()).len() * scheme.params.degree();
        if self.common.json {
            let results: Vec<_> = lines
                .iter()
                .map(|l| {
                    serde_json::json!({
                        "threads": l.threads, "shards": l.shards, "steps": steps.len(), "median_ms": l.timing.median * 1e3,
                        "min_ms": l.timing.least * 1e3, "repetitions": l.timing.repetitions, "ms_per_rotation": l.each * 1e3,
                        "key_bytes_read": key_bytes, "ciphertext_bytes": ciphertext_bytes(l.shards),
                    })
                })
                .collect();
            let mut object = scheme.describe();
            object["bench"] = "rotations".into();
            object["results"] = results.into();
            say!("{object}");
            return Ok(());
        }
        say!("{}", scheme.headline());
        say!("{} rotations share one decomposition; their keys, {}, are read once for all shards", steps.len(), bytes(key_bytes));
        say!();
        let mut table = Table::new([
            ("shards", Align::Right),
            ("threads", Align::Right),
            ("all, ms", Align::Right),
            ("one rotation of one shard, ms", Align::Right),
            ("ciphertext", Align::Right),
        ]);
        for l in &lines {
            table.row([
                l.shards.to_string(),
                l.threads.to_string(),
                format!("{:.2}", l.timing.median * 1e3),
                format!("{:.3}", l.each * 1e3),
                bytes(ciphertext_bytes(l.shards) as u64),
            ]);
        }
        table.print("");
        Ok(())
    }

    fn measure_all(&self, scheme: &KeyedScheme, steps: &[i64], threads: usize) -> Outcome<Vec<Line>> {
        let line = |&shards: &u16| {
            let shards = usize::from(shards);
            let value = scheme.encrypt(shards)?;
            let timing = measure(scheme.backend.as_ref(), self.common.seconds, || {
                let digits = scheme.evaluator.mod_up(&value, scheme.gadget)?;
                steps.iter().try_for_each(|&k| scheme.evaluator.rotate_digits(&digits, &value, k).map(drop))
            })?;
            Ok(Line { threads, shards, timing, each: timing.median / (shards * steps.len()) as f64 })
        };
        self.shards.iter().map(line).collect()
    }
}

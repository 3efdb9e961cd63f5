//! `cipherlens params search`: where the presets for bootstrapping come from.

use crate::failure::Outcome;
use crate::output::{Align, Table, bytes, say};
use cipherlens::ckks::ladder::Grid;
use cipherlens::plan::CostModel;
use cipherlens::plan::parameters::{Goal, PricedSet, search};

/// What the ladder must offer.
#[derive(Debug, clap::Args)]
pub(super) struct Search {
    /// Levels left after a bootstrap
    #[arg(long, value_name = "LEVELS", value_parser = clap::value_parser!(u8).range(1..=60))]
    left: u8,
    /// log2 of the ring degree
    #[arg(long, value_name = "BITS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(15..=17))]
    log_n: u32,
    /// Bits of a level, about: 40 (39.2), or 36 for fewer limbs and less precision
    #[arg(long, value_name = "BITS", default_value_t = 40, value_parser = parse_bits)]
    level_bits: u32,
    /// log2 of the slots of a vector [default: all of the ring]
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(1..=16))]
    log_slots: Option<u32>,
    /// Levels of SlotsToCoeffs, 2 to 5 [default: whatever is best]
    #[arg(long, value_name = "LEVELS", value_parser = clap::value_parser!(u8).range(2..=5))]
    slots_to_coeffs: Option<u8>,
    /// Levels of CoeffsToSlots, 2 to 5 [default: whatever is best]
    #[arg(long, value_name = "LEVELS", value_parser = clap::value_parser!(u8).range(2..=5))]
    coeffs_to_slots: Option<u8>,
    /// How many to print
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    count: usize,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

fn parse_bits(text: &str) -> Result<u32, String> {
    match text {
        "36" => Ok(36),
        "40" => Ok(40),
        _ => Err("36 or 40".into()),
    }
}

impl Search {
    /// Prints candidates.
    pub(super) fn run(&self) -> Outcome {
        let log_slots = self.log_slots.unwrap_or(self.log_n - 1).min(self.log_n - 1);
        let grid = if self.level_bits == 36 { Grid::Bits36 } else { Grid::Bits40 };
        let goal = Goal {
            grid,
            log_n: self.log_n,
            log_slots,
            left: self.left.into(),
            slots_to_coeffs: self.slots_to_coeffs.map(usize::from),
            coeffs_to_slots: self.coeffs_to_slots.map(usize::from),
        };
        let mut found = search(goal, &CostModel::typical(1 << self.log_n))
            .map_err(|e| crate::failure::explain("cannot search for parameters", &e))?;
        found.truncate(self.count);
        if self.json {
            let object = |c: &PricedSet| {
                serde_json::json!({
                    "left": c.sizes.left, "slots_to_coeffs": c.sizes.slots_to_coeffs, "coeffs_to_slots": c.sizes.coeffs_to_slots,
                    "special_primes": c.sizes.special, "log_qp": c.log_qp, "limbs": c.limbs, "digits": c.digits,
                    "keys": c.keys, "key_bytes": c.key_bytes, "estimated_seconds": c.seconds,
                })
            };
            let candidates: Vec<_> = found.iter().map(object).collect();
            say!(
                "{}",
                serde_json::json!({ "log_n": self.log_n, "level_bits": self.level_bits, "log_slots": log_slots, "candidates": candidates })
            );
            return Ok(());
        }
        if found.is_empty() {
            say!("no ladder with {} levels left is secure at N = 2^{}", self.left, self.log_n);
            return Ok(());
        }
        let mut table = Table::new([
            ("StC", Align::Right),
            ("CtS", Align::Right),
            ("special", Align::Right),
            ("log QP", Align::Right),
            ("limbs", Align::Right),
            ("digits", Align::Right),
            ("keys", Align::Right),
            ("key bytes", Align::Right),
            ("estimate", Align::Right),
        ]);
        for c in &found {
            table.row([
                c.sizes.slots_to_coeffs.to_string(),
                c.sizes.coeffs_to_slots.to_string(),
                c.sizes.special.to_string(),
                format!("{:.1}", c.log_qp),
                c.limbs.to_string(),
                c.digits.to_string(),
                c.keys.to_string(),
                bytes(c.key_bytes),
                format!("{:.2} s", c.seconds),
            ]);
        }
        table.print("");
        say!();
        say!("StC, CtS: levels of SlotsToCoeffs and CoeffsToSlots; estimate: two real vectors on four cores with AVX-512");
        Ok(())
    }
}

//! The parameter sets that ship, as sizes; primes are found by [`LadderSpec::literal`], never typed.

use super::ladder::LadderSpec;
use super::params::{Params, ParamsError};
use std::sync::Arc;

const fn spec(name: &'static str, log_n: u32, q0_bits: f64, scale_bits: f64, levels: usize, special: usize) -> LadderSpec {
    LadderSpec {
        name,
        log_n,
        q0_bits,
        scale_bits,
        levels,
        terminal_bits: 24.0,
        max_terminal: 5,
        main_bits: 30.0,
        special,
        insecure: false,
    }
}

/// Ladders of 36 bits use terminal primes of 24 bits (6 = 30 - 24, so windows repeat every 5 levels), those of 40 bits
/// terminal primes of 25 bits (two in, three main ones out). q0 and the number of levels are chosen so that the top level
/// uses all terminal primes or nearly so: a prime that only lower levels use still counts against the security cap.
const SPECS: [LadderSpec; 10] = [
    spec("n13", 13, 48.0, 30.0, 3, 2),
    spec("n14", 14, 60.0, 36.0, 7, 3),
    LadderSpec { terminal_bits: 25.0, ..spec("n15", 15, 50.0, 40.0, 14, 6) },
    spec("n15-cnn", 15, 48.3, 35.98, 14, 9),
    LadderSpec { terminal_bits: 25.0, main_bits: 29.93, ..spec("n16", 16, 50.0, 39.907, 32, 12) },
    LadderSpec { main_bits: 29.9, ..spec("n16-bench", 16, 119.6, 59.8, 19, 14) },
    LadderSpec { insecure: true, ..spec("insecure-tiny", 5, 48.0, 36.0, 4, 3) },
    LadderSpec { insecure: true, ..spec("insecure-toy", 10, 48.0, 36.0, 8, 4) },
    LadderSpec { insecure: true, terminal_bits: 25.0, ..spec("insecure-small", 11, 50.0, 40.0, 8, 4) },
    LadderSpec { insecure: true, ..spec("insecure-deep", 11, 48.0, 36.0, 14, 7) },
];

/// The sizes of every preset.
pub fn all() -> &'static [LadderSpec] {
    &SPECS
}

/// The parameter set of a preset. Cost: its tables ([`Params::new`]).
pub fn by_name(name: &str) -> Result<Arc<Params>, ParamsError> {
    let spec = SPECS.iter().find(|s| s.name == name).ok_or_else(|| ParamsError::NoSuchPreset {
        asked: name.into(),
        have: SPECS.iter().map(|s| s.name).collect::<Vec<_>>().join(", "),
    })?;
    Params::new(spec.literal()?)
}

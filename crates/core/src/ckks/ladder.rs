//! From a few sizes to a parameter set: the deterministic search for primes and windows.

use super::params::{Bootstrap, Level, PRIME_FLOOR, ParamsError, ParamsLiteral, Rung};
use crate::math::primes::closest_primes;

/// What a parameter set should look like; [`LadderSpec::literal`] finds the primes and windows.
#[derive(Debug, Clone, PartialEq)]
pub struct LadderSpec {
    /// Name of the set.
    pub name: &'static str,
    /// log2 of the ring degree.
    pub log_n: u32,
    /// log2 of the modulus of level 0.
    pub q0_bits: f64,
    /// log2 of the scale; each level adds that many bits.
    pub scale_bits: f64,
    /// Levels above level 0, without those of [`Self::bootstrap`].
    pub levels: usize,
    /// log2 of terminal primes (the floor is just above 24).
    pub terminal_bits: f64,
    /// The most terminal primes the ladder may use.
    pub max_terminal: usize,
    /// log2 of main primes.
    pub main_bits: f64,
    /// How many special primes, of the largest size there is.
    pub special: usize,
    /// Largest deviation, in bits, of a level's modulus from its target.
    pub tolerance: f64,
    /// Whether the set is for tests only.
    pub insecure: bool,
    /// The levels on top that bootstrapping takes.
    pub bootstrap: Option<BootstrapSpec>,
}

/// The levels that bootstrapping adds to a ladder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BootstrapSpec {
    /// The circuit they are for.
    pub circuit: Bootstrap,
    /// log2 of q0 over the scale of level 0.
    pub ratio_bits: f64,
    /// Bits of each level of EvalMod.
    pub eval_mod_bits: f64,
    /// Bits of each level of CoeffsToSlots.
    pub coeffs_to_slots_bits: f64,
}

/// Sizes of the primes and levels of a ladder for bootstrapping: every level is a sum of terminal primes, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grid {
    /// Terminal primes of 24.5 bits, base levels of 39.2 (4/3 of a main prime of 29.4), EvalMod 58.8 (two main primes), CoeffsToSlots 53.9 (one
    /// of each). Main primes are half a bit smaller than special ones, so that P exceeds a digit of 12 by 7 bits: key switching is quiet
    /// ([`QUIET_BITS`](super::gadget::QUIET_BITS)), which gives back what the smaller scale takes, and there are 25 bits less to attack.
    Bits40,
    /// Terminal primes of 24.1 bits, base levels of 36 (6/5 of a main prime of 29.93), EvalMod and CoeffsToSlots 54 (one of each): fewer limbs, and
    /// more noise than the error of the sine.
    Bits36,
}

impl Grid {
    /// log2 of terminal and of main primes.
    const fn primes(self) -> (f64, f64) {
        match self {
            Grid::Bits40 => (24.5, 29.4),
            Grid::Bits36 => (24.1, 29.93),
        }
    }
    /// Bits of a base level and of one of EvalMod.
    const fn levels(self) -> (f64, f64) {
        let (terminal, main) = self.primes();
        match self {
            Grid::Bits40 => (4.0 / 3.0 * main, 2.0 * main),
            Grid::Bits36 => (6.0 / 5.0 * main, terminal + main),
        }
    }
}

/// What distinguishes one ladder for bootstrapping from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootstrapSizes {
    /// Sizes of primes and levels.
    pub grid: Grid,
    /// log2 of the ring degree.
    pub log_n: u32,
    /// log2 of the most slots.
    pub log_slots: u32,
    /// Levels that a value has after a bootstrap, until the next one starts.
    pub left: usize,
    /// Levels of SlotsToCoeffs.
    pub slots_to_coeffs: usize,
    /// Levels of CoeffsToSlots.
    pub coeffs_to_slots: usize,
    /// Special primes.
    pub special: usize,
}

/// The usual [`LadderSpec::tolerance`].
pub const LADDER_TOLERANCE: f64 = 0.75;

impl LadderSpec {
    /// A ladder for bootstrapping with EvalMod of degree 31 and 3 double angles, `|I| < 14` for a sparse secret of weight 32, and q0 of
    /// 2^12 times the scale: 23 bits (21 in the worst slot) but for the noise, and a failure in 2^58 bootstraps. q0 is two terminal
    /// primes; for the other levels see [`Grid`].
    pub const fn bootstrapping(name: &'static str, sizes: BootstrapSizes) -> Self {
        let (terminal_bits, main_bits) = sizes.grid.primes();
        let (scale_bits, eval_mod_bits) = sizes.grid.levels();
        Self {
            name,
            log_n: sizes.log_n,
            q0_bits: 2.0 * terminal_bits,
            scale_bits,
            levels: sizes.left + sizes.slots_to_coeffs,
            terminal_bits,
            max_terminal: 12,
            main_bits,
            special: sizes.special,
            // There are few primes of 24 bits, so they are larger than that, each more than the one before.
            tolerance: match sizes.grid {
                Grid::Bits40 => LADDER_TOLERANCE,
                Grid::Bits36 => 2.0 * LADDER_TOLERANCE,
            },
            insecure: false,
            bootstrap: Some(BootstrapSpec {
                circuit: Bootstrap {
                    slots_to_coeffs: sizes.slots_to_coeffs,
                    eval_mod: 8,
                    coeffs_to_slots: sizes.coeffs_to_slots,
                    k: 14,
                    degree: 31,
                    double_angles: 3,
                    weight: 32,
                    log_slots: sizes.log_slots,
                },
                ratio_bits: 12.0,
                eval_mod_bits,
                coeffs_to_slots_bits: terminal_bits + main_bits,
            }),
        }
    }

    /// Levels above level 0, those of bootstrapping included.
    pub fn all_levels(&self) -> usize {
        self.levels + self.bootstrap.map_or(0, |b| b.circuit.eval_mod + b.circuit.coeffs_to_slots)
    }

    /// log2 of the modulus wanted at a level.
    pub fn target_bits(&self, level: Level) -> f64 {
        let base = self.q0_bits + self.scale_bits * level.0.min(self.levels) as f64;
        let Some(b) = &self.bootstrap else { return base };
        let above = level.0.saturating_sub(self.levels);
        let eval_mod = above.min(b.circuit.eval_mod);
        base + b.eval_mod_bits * eval_mod as f64 + b.coeffs_to_slots_bits * (above - eval_mod) as f64
    }

    /// The literal. Special primes are the largest below 2^30, main and terminal primes the closest to their sizes.
    ///
    /// The windows are a shortest path over levels: each level may use any (terminal, main) counts within
    /// [`Self::tolerance`] of [`Self::target_bits`]; the cost is the squared deviation, and a main prime that a
    /// higher level lacks, or a terminal prime more than needed, costs more than any deviation. The smallest number of
    /// terminal primes that admits a path is used.
    ///
    /// # Errors
    /// [`ParamsError::NoLadder`] where some level has no window within the tolerance, [`ParamsError::Math`] where there are too few
    /// primes of a size ([`closest_primes`]).
    pub fn literal(&self) -> Result<ParamsLiteral, ParamsError> {
        let log_two_n = self.log_n.saturating_add(1);
        let top = self.target_bits(Level(self.all_levels()));
        let most_main = ((top / self.main_bits).ceil() as usize).saturating_add(2);
        let special = closest_primes(30.0, self.special, log_two_n, &[])?;
        let main = closest_primes(self.main_bits, most_main, log_two_n, &special)?;
        let mut taken: Vec<u32> = special.iter().chain(&main).copied().collect();
        let mut terminal = Vec::new();
        // Closest to the size, and above the floor: candidates are asked for one by one so that low ones can be skipped.
        while terminal.len() < self.max_terminal {
            let q = closest_primes(self.terminal_bits, 1, log_two_n, &taken)?[0];
            taken.push(q);
            if q > PRIME_FLOOR {
                terminal.push(q);
            }
        }
        let mut failure = None;
        for count in 0..=terminal.len() {
            match self.windows(&terminal[..count], &main) {
                Ok(ladder) => {
                    let used = |f: fn(&Rung) -> usize| ladder.iter().map(f).max().unwrap_or(0);
                    let q0 = |r: &Rung| terminal[..r.terminal].iter().chain(&main[..r.main]).map(|&q| f64::from(q)).product();
                    let q0: f64 = ladder.first().map_or(1.0, q0);
                    return Ok(ParamsLiteral {
                        name: self.name.into(),
                        log_n: self.log_n,
                        terminal: terminal[..used(|r| r.terminal)].to_vec(),
                        main: main[..used(|r| r.main)].to_vec(),
                        special,
                        base_scale: self.bootstrap.map_or(self.scale_bits.exp2(), |b| q0 / b.ratio_bits.exp2()),
                        sigma: super::params::STANDARD_SIGMA,
                        insecure: self.insecure,
                        bootstrap: self.bootstrap.map(|b| b.circuit),
                        ladder,
                    });
                }
                Err(e) => failure = Some(e),
            }
        }
        Err(failure.unwrap_or_else(|| self.no_ladder(0)))
    }

    fn no_ladder(&self, level: usize) -> ParamsError {
        ParamsError::NoLadder {
            level: Level(level),
            target: self.target_bits(Level(level)),
            terminal_bits: self.terminal_bits,
            main_bits: self.main_bits,
            tolerance: self.tolerance,
        }
    }

    fn windows(&self, terminal: &[u32], main: &[u32]) -> Result<Vec<Rung>, ParamsError> {
        let sums = |primes: &[u32]| {
            let mut sums = vec![0.0];
            sums.extend(primes.iter().scan(0.0, |acc, &q| {
                *acc += f64::from(q).log2();
                Some(*acc)
            }));
            sums
        };
        let (terminal_sums, main_sums) = (sums(terminal), sums(main));
        // Per level: candidates with the cost of the best path to them and where it came from.
        let mut layers: Vec<Vec<(Rung, f64, usize)>> = Vec::new();
        for level in 0..=self.all_levels() {
            let target = self.target_bits(Level(level));
            let mut layer = Vec::new();
            for (t, t_sum) in terminal_sums.iter().enumerate() {
                for (m, m_sum) in main_sums.iter().enumerate() {
                    let deviation = t_sum + m_sum - target;
                    if deviation.abs() > self.tolerance {
                        continue;
                    }
                    let rung = Rung { terminal: t, main: m };
                    let own = deviation * deviation;
                    let from = match layers.last() {
                        None => Some((0.0, 0)),
                        Some(previous) => previous
                            .iter()
                            .enumerate()
                            .map(|(i, (below, cost, _))| (cost + below.main.saturating_sub(m) as f64, i))
                            .min_by(|a, b| a.0.total_cmp(&b.0)),
                    };
                    if let Some((cost, i)) = from {
                        layer.push((rung, cost + own, i));
                    }
                }
            }
            if layer.is_empty() {
                return Err(self.no_ladder(level));
            }
            layers.push(layer);
        }
        let mut ladder = Vec::with_capacity(layers.len());
        let mut at = layers
            .last()
            .and_then(|layer| (0..layer.len()).min_by(|&a, &b| layer[a].1.total_cmp(&layer[b].1)))
            .ok_or_else(|| self.no_ladder(self.all_levels()))?;
        for layer in layers.iter().rev() {
            let (rung, _, from) = layer[at];
            ladder.push(rung);
            at = from;
        }
        ladder.reverse();
        Ok(ladder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::MathError;

    #[test]
    fn sizes_that_no_ladder_has_are_refused() {
        let spec = |log_n, main_bits| LadderSpec {
            name: "insecure-none",
            log_n,
            q0_bits: 59.0,
            scale_bits: 29.5,
            levels: 2,
            terminal_bits: 25.0,
            max_terminal: 2,
            main_bits,
            special: 1,
            tolerance: LADDER_TOLERANCE,
            insecure: true,
            bootstrap: None,
        };
        assert!(spec(12, 29.5).literal().is_ok());
        for log_n in [29, 30, 62, 63, 64, u32::MAX] {
            let refused = spec(log_n, 29.5).literal();
            assert!(matches!(refused, Err(ParamsError::Math(MathError::PrimeSupply { .. }))), "{log_n}: {refused:?}");
        }
        // As many main primes as there are numbers, of rings so large that there are few to look at.
        let refused = spec(20, 0.0).literal();
        assert!(matches!(refused, Err(ParamsError::Math(MathError::PrimeSupply { .. }))), "{refused:?}");
    }
}

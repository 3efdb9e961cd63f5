//! A complex linear map of one shard to itself by diagonals a constant step apart: a factor of a Fourier transform.
//!
//! `out[s] = sum_r D_r[s] x[s + r]`, the same for every shard of a value. With `r = first + j step + g giant`, `0 <= j < babies`,
//!
//! `out = sum_g rot_(g giant)( sum_j D'_(g,j) rot_(first + j step)(x) )`,  `D'_(g,j)[s] = D_r[s - g giant]`,
//!
//! and the sum over g goes by Horner's rule, rotating what is there and adding the next: one giant key serves all g. The
//! babies share one mod_up and stay in the extended basis, so no baby costs a division by P (Bossuat et al. 2021, section
//! 4); what is rotated by a giant has its second half divided. Diagonals that repeat are held, encoded and multiplied at
//! the size of their period.

use super::CircuitError;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// One diagonal over a period: real and imaginary parts.
pub type Diagonal = (Vec<f64>, Vec<f64>);

/// One product of an inner sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiagonalTerm {
    /// Index into [`DiagonalTransform::babies`].
    pub baby: usize,
    /// Index of the diagonal.
    pub diagonal: usize,
}

/// The map, cut into baby and giant steps.
#[derive(Debug)]
pub struct DiagonalTransform {
    id: u64,
    slots: usize,
    period: usize,
    babies: Vec<usize>,
    giant: usize,
    /// For each giant the terms of its inner sum; the first giant is the rotation by nothing.
    sums: Vec<Vec<DiagonalTerm>>,
    /// Turned back by their giants.
    diagonals: Vec<Diagonal>,
}

impl DiagonalTransform {
    /// From diagonals by rotation (negative ones to the right), all of one period that divides `slots`, cut into sums of at most
    /// `babies` terms.
    ///
    /// # Errors
    /// [`CircuitError::EmptyMatrix`] without a diagonal, [`CircuitError::Diagonals`] where their lengths differ or are no power of two that
    /// divides `slots`.
    pub fn new(slots: usize, diagonals: &BTreeMap<i64, Diagonal>, babies: usize) -> Result<Self, CircuitError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (Some((&first, (re, _))), Some((&last, _))) = (diagonals.first_key_value(), diagonals.last_key_value()) else {
            return Err(CircuitError::EmptyMatrix);
        };
        let period = re.len();
        let fits = period.is_power_of_two() && slots.is_multiple_of(period);
        if !fits || diagonals.values().any(|(re, im)| re.len() != period || im.len() != period) {
            return Err(CircuitError::Diagonals { slots, period });
        }
        let step = diagonals.keys().map(|r| (r - first).unsigned_abs()).fold(0, gcd).max(1);
        let count = ((last - first).unsigned_abs() / step + 1) as usize;
        let babies = babies.clamp(1, count);
        let turn = |r: i64| r.rem_euclid(slots as i64) as usize;
        let giant = turn((babies as u64 * step) as i64);
        let mut sums = vec![Vec::new(); count.div_ceil(babies)];
        let mut turned = Vec::with_capacity(diagonals.len());
        for (&r, (re, im)) in diagonals {
            let index = ((r - first).unsigned_abs() / step) as usize;
            let (g, baby) = (index / babies, index % babies);
            sums[g].push(DiagonalTerm { baby, diagonal: turned.len() });
            let (mut re, mut im) = (re.clone(), im.clone());
            let by = g * babies * step as usize % period;
            re.rotate_right(by);
            im.rotate_right(by);
            turned.push((re, im));
        }
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            slots,
            period,
            babies: (0..babies).map(|j| turn(first + j as i64 * step as i64)).collect(),
            giant,
            sums,
            diagonals: turned,
        })
    }

    /// Names this transform, for caches of what was made of it.
    pub fn id(&self) -> u64 {
        self.id
    }
    /// Slots of a shard.
    pub fn slots(&self) -> usize {
        self.slots
    }
    /// Slots after which every diagonal repeats.
    pub fn period(&self) -> usize {
        self.period
    }
    /// The baby rotations; 0 may be among them.
    pub fn babies(&self) -> &[usize] {
        &self.babies
    }
    /// The giant rotation, made once for each sum but one.
    pub fn giant(&self) -> usize {
        self.giant
    }
    /// The inner sums, giant by giant.
    pub fn sums(&self) -> &[Vec<DiagonalTerm>] {
        &self.sums
    }
    /// One period of a diagonal, turned back by its giant.
    pub fn diagonal(&self, index: usize) -> &Diagonal {
        &self.diagonals[index]
    }
    /// Plaintext products.
    pub fn products(&self) -> usize {
        self.diagonals.len()
    }
    /// Rotations that need a key, each once.
    pub fn rotations(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.babies.iter().copied().filter(|&b| b != 0).collect();
        if self.sums.len() > 1 {
            all.push(self.giant);
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

//! `X -> X^g` in the NTT domain: a permutation of one limb.
//!
//! Index i holds the value at the root of exponent `2 brv(i) + 1`, so `out[i] = in[j]` with `2 brv(j) + 1 = g (2 brv(i) + 1)
//! mod 2N`. Write i as block and lane (the low w bits). With `c = (g (2 brv(block W) + 1) - 1) / 2` the equation reads
//! `brv(j) = c + g brv(lane) mod N`, brv(lane) standing in the top w bits: so the low bits of c, reversed, are the block of
//! j, the same for all lanes, and its top w bits and g give the lane. A block is one load and one permutation in
//! registers.
//!
//! # Safety
//! As [`lanes`](super::lanes) says. Both pointers are valid for the N words of the permutation, which was made for the width of the
//! instruction set, and apart.

use super::lanes::{Lanes, kernel};

/// The permutation of a Galois element, for blocks of `2^log_width` words.
#[derive(Debug)]
pub(super) struct Permutation {
    /// Per output block: first word of the input block, plus the number of its lane permutation.
    blocks: Vec<u32>,
    /// `[2^log_width][2^log_width]` lane indices.
    lanes: Vec<u32>,
}

fn reverse(i: u32, bits: u32) -> u32 {
    if bits == 0 { 0 } else { i.reverse_bits() >> (32 - bits) }
}

impl Permutation {
    /// For an odd `galois < 2N`.
    pub(super) fn new(galois: u32, log_n: u32, log_width: u32) -> Self {
        let (width, high) = (1u32 << log_width, log_n - log_width);
        let blocks = (0..1u32 << high)
            .map(|block| {
                let exponent = galois.wrapping_mul(2 * reverse(block << log_width, log_n) + 1) & ((2 << log_n) - 1);
                let c = exponent >> 1;
                reverse(c & ((1 << high) - 1), high) << log_width | c >> high
            })
            .collect();
        let lanes = (0..width)
            .flat_map(|c| {
                (0..width).map(move |lane| {
                    let to = c.wrapping_add(galois.wrapping_mul(reverse(lane, log_width))) & (width - 1);
                    reverse(to, log_width)
                })
            })
            .collect();
        Self { blocks, lanes }
    }
}

#[inline(always)]
unsafe fn permute_body<L: Lanes>(l: L, dst: *mut u32, src: *const u32, permutation: &Permutation) {
    let mask = L::WIDTH as u32 - 1;
    let lanes = permutation.lanes.as_ptr();
    let ahead = 32;
    for (i, &block) in permutation.blocks.iter().enumerate() {
        if let Some(&next) = permutation.blocks.get(i + ahead) {
            // SAFETY: every block lies within the limb.
            l.prefetch(unsafe { src.add((next & !mask) as usize) });
        }
        // SAFETY: every block lies within the limb, every lane permutation within the table.
        unsafe {
            let index = l.load(lanes.add((block & mask) as usize * L::WIDTH));
            l.store(dst.add(i * L::WIDTH), l.permute(l.load(src.add((block & !mask) as usize)), index));
        }
    }
}

kernel! {
    /// Writes the permuted limb.
    /// # Safety
    /// As the module says.
    pub(super) fn permute(dst: *mut u32, src: *const u32, permutation: &Permutation) = permute_body
}

//! Negacyclic NTT of one limb, in the order of [`crate::math::ntt_table`].
//!
//! Harvey's lazy butterflies with Shoup constants (arXiv:1205.2926): forward values stay in `[0, 4q)`, inverse ones in
//! `[0, 2q)`, and `4q < 2^32`. Sixteen butterflies cost four multiplications (two for the high half, two low ones).
//!
//! A transform is cut into passes that keep `2^radix` vectors in registers over `radix` stages:
//! - the [`Cut::top`] pass runs over the whole limb, from the source to the destination, and leaves independent blocks;
//! - a block (16 KiB at N = 2^16: first-level cache) goes through the [`Cut::middle`] passes and then the leaves:
//!   `2^radix` neighbouring vectors at a time do `radix` stages between registers, then `log2 WIDTH` stages within pairs
//!   of vectors. For those, a pair (a, b) is zipped before each stage, so that lane i of both belongs to group
//!   `i mod groups`; the twiddles are then plain repeated loads, and one more zip restores the order.
//!
//! A block with first twiddle index t at its first stage uses twiddles `t 2^s + 0 .. 2^s` at its stage s; its
//! sub-block i after r stages has `t 2^r + i`. The whole limb has t = 1.
//!
//! # Safety
//! As [`lanes`](super::lanes) says. `src` and `dst` are valid for the N words of the table, equal or apart, and the instruction set
//! suits that degree ([`Isa::for_degree`]).

use super::isa::Isa;
use super::lanes::{LaneModulus, Lanes, kernel};
use crate::math::NttTable;

/// How the stages of a transform are cut into passes.
#[derive(Debug, Clone, Copy)]
struct Cut {
    top: u32,
    middle: [u32; 8],
    /// Stages between registers in a leaf.
    leaf: u32,
}

impl Cut {
    #[inline(always)]
    fn new<L: Lanes>(log_n: u32) -> Self {
        let leaf = L::LOG_RADIX.min(log_n - L::LOG_WIDTH);
        let mut left = log_n - L::LOG_WIDTH - leaf;
        // A top pass of more than one block goes at a stride that is a multiple of the cache's: eight lines fill a set.
        let top = if left > L::LOG_RADIX { left.div_ceil(left.div_ceil(L::LOG_RADIX)).min(3) } else { left };
        left -= top;
        let mut passes = left.div_ceil(L::LOG_RADIX);
        let middle = std::array::from_fn(|_| {
            let r = if passes == 0 { 0 } else { left.div_ceil(passes) };
            passes = passes.saturating_sub(1);
            left -= r;
            r
        });
        Self { top, middle, leaf }
    }
}

/// The block of a limb that the passes after the top one work on: `(log2 of the number of blocks)` for a degree.
pub(super) fn log_blocks(isa: Isa, log_n: u32) -> u32 {
    use super::lanes::Scalar;
    match isa.for_degree(1 << log_n).level() {
        #[cfg(target_arch = "x86_64")]
        super::isa::Level::Avx512 => Cut::new::<super::lanes::Avx512>(log_n).top,
        #[cfg(target_arch = "x86_64")]
        super::isa::Level::Avx2 => Cut::new::<super::lanes::Avx2>(log_n).top,
        _ => Cut::new::<Scalar>(log_n).top,
    }
}

#[derive(Clone, Copy)]
struct Twiddles<L: Lanes> {
    m: LaneModulus<L>,
    w: *const u32,
    ws: *const u32,
}

impl<L: Lanes> Twiddles<L> {
    #[inline(always)]
    fn new(l: L, table: &NttTable, (w, ws): (&[u32], &[u32])) -> Self {
        Self { m: LaneModulus::new(l, table.modulus()), w: w.as_ptr(), ws: ws.as_ptr() }
    }
    /// Twiddle `i` in every lane.
    #[inline(always)]
    unsafe fn splat(&self, i: usize) -> (L::V, L::V) {
        // SAFETY: the caller's promise: i is below the degree.
        unsafe { (self.m.l.splat(*self.w.add(i)), self.m.l.splat(*self.ws.add(i))) }
    }
    /// Twiddles `i..i + 2^log_count`, repeated.
    #[inline(always)]
    unsafe fn repeated(&self, i: usize, log_count: u32) -> (L::V, L::V) {
        // SAFETY: the caller's promise: the range is below the degree.
        unsafe { (self.m.l.load_repeated(self.w.add(i), log_count), self.m.l.load_repeated(self.ws.add(i), log_count)) }
    }
    /// `(a + b w, a - b w)`: `[0, 4q)` to `[0, 4q)`.
    #[inline(always)]
    fn cooley_tukey(&self, v: &mut [L::V; 16], i: usize, j: usize, (w, ws): (L::V, L::V)) {
        let l = self.m.l;
        let x = self.m.reduce_twice(v[i]);
        let t = self.m.mul_shoup_lazy(v[j], w, ws);
        v[i] = l.add(x, t);
        v[j] = l.sub(l.add(x, self.m.q2), t);
    }
    /// [`Self::cooley_tukey`] with one twiddle a lane.
    #[inline(always)]
    fn cooley_tukey_lanes(&self, a: L::V, b: L::V, (w, ws): (L::V, L::V)) -> (L::V, L::V) {
        let l = self.m.l;
        let x = self.m.reduce_twice(a);
        let t = self.m.mul_shoup_lanes_lazy(b, w, ws);
        (l.add(x, t), l.sub(l.add(x, self.m.q2), t))
    }
    /// `(a + b, (a - b) w)`: `[0, 2q)` to `[0, 2q)`.
    #[inline(always)]
    fn gentleman_sande(&self, v: &mut [L::V; 16], i: usize, j: usize, (w, ws): (L::V, L::V)) {
        let l = self.m.l;
        let difference = l.sub(l.add(v[i], self.m.q2), v[j]);
        v[i] = self.m.reduce_twice(l.add(v[i], v[j]));
        v[j] = self.m.mul_shoup_lazy(difference, w, ws);
    }
    /// [`Self::gentleman_sande`] with one twiddle a lane.
    #[inline(always)]
    fn gentleman_sande_lanes(&self, a: L::V, b: L::V, (w, ws): (L::V, L::V)) -> (L::V, L::V) {
        let l = self.m.l;
        let difference = l.sub(l.add(a, self.m.q2), b);
        (self.m.reduce_twice(l.add(a, b)), self.m.mul_shoup_lanes_lazy(difference, w, ws))
    }
    /// The last butterfly of the inverse, with the final factor: `((a + b) c, (a - b) w c)`, `[0, 2q)` to `[0, q)`.
    #[inline(always)]
    fn last(&self, v: &mut [L::V; 16], i: usize, j: usize, c: &[(L::V, L::V); 2]) {
        let l = self.m.l;
        let difference = l.sub(l.add(v[i], self.m.q2), v[j]);
        v[i] = self.m.reduce_once(self.m.mul_shoup_lazy(l.add(v[i], v[j]), c[0].0, c[0].1));
        v[j] = self.m.reduce_once(self.m.mul_shoup_lazy(difference, c[1].0, c[1].1));
    }
}

/// A butterfly network written out (so that the vectors stay in registers): `stage group: (pairs)`.
macro_rules! network {
    (forward $tw:ident $v:ident $t:ident; $($s:literal $g:literal: $(($i:literal $j:literal))*;)*) => {{
        $(
            let w = $tw.splat(($t << $s) + $g);
            $( $tw.cooley_tukey($v, $i, $j, w); )*
        )*
    }};
    (inverse $tw:ident $v:ident $t:ident $last:ident; $($s:literal $g:literal: $(($i:literal $j:literal))*;)*) => {{
        $(
            match $last {
                Some(c) if $s == 0 => {
                    $( $tw.last($v, $i, $j, c); )*
                }
                _ => {
                    let w = $tw.splat(($t << $s) + $g);
                    $( $tw.gentleman_sande($v, $i, $j, w); )*
                }
            }
        )*
    }};
}

/// Stages of the forward transform on `2^radix` vectors.
#[inline(always)]
unsafe fn forward_stages<L: Lanes>(tw: &Twiddles<L>, v: &mut [L::V; 16], radix: u32, t: usize) {
    // SAFETY: t 2^s + g is below the degree for a block of this transform.
    unsafe {
        match radix {
            1 => network! { forward tw v t;
                0 0: (0 1);
            },
            2 => network! { forward tw v t;
                0 0: (0 2) (1 3);
                1 0: (0 1);
                1 1: (2 3);
            },
            3 => network! { forward tw v t;
                0 0: (0 4) (1 5) (2 6) (3 7);
                1 0: (0 2) (1 3);
                1 1: (4 6) (5 7);
                2 0: (0 1);
                2 1: (2 3);
                2 2: (4 5);
                2 3: (6 7);
            },
            4 => network! { forward tw v t;
                0 0: (0 8) (1 9) (2 10) (3 11) (4 12) (5 13) (6 14) (7 15);
                1 0: (0 4) (1 5) (2 6) (3 7);
                1 1: (8 12) (9 13) (10 14) (11 15);
                2 0: (0 2) (1 3);
                2 1: (4 6) (5 7);
                2 2: (8 10) (9 11);
                2 3: (12 14) (13 15);
                3 0: (0 1);
                3 1: (2 3);
                3 2: (4 5);
                3 3: (6 7);
                3 4: (8 9);
                3 5: (10 11);
                3 6: (12 13);
                3 7: (14 15);
            },
            _ => {}
        }
    }
}

/// Stages of the inverse transform on `2^radix` vectors. With `last`, stage 0 is the last of all and takes the factor.
#[inline(always)]
unsafe fn inverse_stages<L: Lanes>(tw: &Twiddles<L>, v: &mut [L::V; 16], radix: u32, t: usize, last: Option<&[(L::V, L::V); 2]>) {
    // SAFETY: t 2^s + g is below the degree for a block of this transform.
    unsafe {
        match radix {
            1 => network! { inverse tw v t last;
                0 0: (0 1);
            },
            2 => network! { inverse tw v t last;
                1 0: (0 1);
                1 1: (2 3);
                0 0: (0 2) (1 3);
            },
            3 => network! { inverse tw v t last;
                2 0: (0 1);
                2 1: (2 3);
                2 2: (4 5);
                2 3: (6 7);
                1 0: (0 2) (1 3);
                1 1: (4 6) (5 7);
                0 0: (0 4) (1 5) (2 6) (3 7);
            },
            4 => network! { inverse tw v t last;
                3 0: (0 1);
                3 1: (2 3);
                3 2: (4 5);
                3 3: (6 7);
                3 4: (8 9);
                3 5: (10 11);
                3 6: (12 13);
                3 7: (14 15);
                2 0: (0 2) (1 3);
                2 1: (4 6) (5 7);
                2 2: (8 10) (9 11);
                2 3: (12 14) (13 15);
                1 0: (0 4) (1 5) (2 6) (3 7);
                1 1: (8 12) (9 13) (10 14) (11 15);
                0 0: (0 8) (1 9) (2 10) (3 11) (4 12) (5 13) (6 14) (7 15);
            },
            _ => {}
        }
    }
}

#[inline(always)]
unsafe fn load_all<L: Lanes>(l: L, at: *const u32, stride: usize, count: usize) -> [L::V; 16] {
    let mut v = [l.splat(0); 16];
    for (i, v) in v.iter_mut().enumerate() {
        if i < count {
            // SAFETY: the caller's promise.
            *v = unsafe { l.load(at.add(i * stride)) };
        }
    }
    v
}

#[inline(always)]
unsafe fn store_all<L: Lanes>(l: L, at: *mut u32, stride: usize, count: usize, v: &[L::V; 16]) {
    for (i, v) in v.iter().enumerate().rev() {
        if i < count {
            // SAFETY: the caller's promise.
            unsafe { l.store(at.add(i * stride), *v) };
        }
    }
}

/// One strided pass of the forward transform over a block of `len` words.
#[inline(always)]
unsafe fn forward_pass<L: Lanes>(tw: &Twiddles<L>, src: *const u32, dst: *mut u32, len: usize, radix: u32, t: usize) {
    let stride = len >> radix;
    let mut at = 0;
    while at < stride {
        // SAFETY: the 2^radix vectors at this stride lie within the block.
        unsafe {
            let mut v = load_all(tw.m.l, src.add(at), stride, 1 << radix);
            forward_stages(tw, &mut v, radix, t);
            store_all(tw.m.l, dst.add(at), stride, 1 << radix, &v);
        }
        at += L::WIDTH;
    }
}

#[inline(always)]
unsafe fn inverse_pass<L: Lanes>(
    tw: &Twiddles<L>,
    src: *const u32,
    dst: *mut u32,
    len: usize,
    radix: u32,
    t: usize,
    last: Option<&[(L::V, L::V); 2]>,
) {
    let stride = len >> radix;
    let mut at = 0;
    while at < stride {
        // SAFETY: the 2^radix vectors at this stride lie within the block.
        unsafe {
            let mut v = load_all(tw.m.l, src.add(at), stride, 1 << radix);
            inverse_stages(tw, &mut v, radix, t, last);
            store_all(tw.m.l, dst.add(at), stride, 1 << radix, &v);
        }
        at += L::WIDTH;
    }
}

/// Runs `$body` with `$radix` bound to a literal, so that each radix is compiled apart.
macro_rules! by_radix {
    ($r:expr, $radix:ident => $body:expr) => {
        match $r {
            1 => {
                let $radix = 1u32;
                $body
            }
            2 => {
                let $radix = 2u32;
                $body
            }
            3 if L::LOG_RADIX >= 3 => {
                let $radix = 3u32;
                $body
            }
            4 if L::LOG_RADIX >= 4 => {
                let $radix = 4u32;
                $body
            }
            _ => {}
        }
    };
}

/// Applies `$body` to the pairs `$a`, `$b` of the first `$count` vectors, `$i` the number of the first one. Stage by stage,
/// so that neighbouring instructions do not wait for each other.
macro_rules! pairs {
    ($v:ident, $count:expr, ($a:ident, $b:ident, $i:ident) => $body:expr) => {
        pairs!(@ $v, $count, $a, $b, $i, $body; (0 1) (2 3) (4 5) (6 7) (8 9) (10 11) (12 13) (14 15))
    };
    (@ $v:ident, $count:expr, $a:ident, $b:ident, $i:ident, $body:expr; $(($m:literal $n:literal))*) => {
        $( if $n < $count {
            let ($a, $b, $i) = ($v[$m], $v[$n], $m);
            ($v[$m], $v[$n]) = $body;
        } )*
    };
}

#[inline(always)]
unsafe fn forward_pair_stage<L: Lanes, const S: u32>(tw: &Twiddles<L>, v: &mut [L::V; 16], radix: u32, t: usize) {
    if S < L::LOG_WIDTH {
        pairs!(v, 1usize << radix, (a, b, i) => {
            let (a, b) = tw.m.l.zip(a, b);
            // SAFETY: both vectors' twiddles of stage S lie side by side below the degree.
            tw.cooley_tukey_lanes(a, b, unsafe { tw.repeated((t + i) << S, S + 1) })
        });
    }
}

#[inline(always)]
unsafe fn inverse_pair_stage<L: Lanes, const S: u32>(tw: &Twiddles<L>, v: &mut [L::V; 16], radix: u32, t: usize) {
    if S < L::LOG_WIDTH {
        pairs!(v, 1usize << radix, (a, b, i) => {
            let (a, b) = tw.m.l.unzip(a, b);
            // SAFETY: both vectors' twiddles of stage S lie side by side below the degree.
            tw.gentleman_sande_lanes(a, b, unsafe { tw.repeated((t + i) << S, S + 1) })
        });
    }
}

/// The stages within pairs of vectors; canonical words out.
#[inline(always)]
unsafe fn forward_pairs<L: Lanes>(tw: &Twiddles<L>, v: &mut [L::V; 16], radix: u32, t: usize) {
    let (l, m) = (tw.m.l, &tw.m);
    // SAFETY: the caller's promise: t is the twiddle of the first vector.
    unsafe {
        forward_pair_stage::<L, 0>(tw, v, radix, t);
        forward_pair_stage::<L, 1>(tw, v, radix, t);
        forward_pair_stage::<L, 2>(tw, v, radix, t);
        forward_pair_stage::<L, 3>(tw, v, radix, t);
    }
    pairs!(v, 1usize << radix, (a, b, _i) => {
        let (a, b) = if L::LOG_WIDTH > 0 { l.zip(a, b) } else { (a, b) };
        (m.reduce_once(m.reduce_twice(a)), m.reduce_once(m.reduce_twice(b)))
    });
}

/// The stages within pairs of vectors, inverse.
#[inline(always)]
unsafe fn inverse_pairs<L: Lanes>(tw: &Twiddles<L>, v: &mut [L::V; 16], radix: u32, t: usize) {
    // SAFETY: the caller's promise: t is the twiddle of the first vector.
    unsafe {
        inverse_pair_stage::<L, 3>(tw, v, radix, t);
        inverse_pair_stage::<L, 2>(tw, v, radix, t);
        inverse_pair_stage::<L, 1>(tw, v, radix, t);
        inverse_pair_stage::<L, 0>(tw, v, radix, t);
    }
    if L::LOG_WIDTH > 0 {
        pairs!(v, 1usize << radix, (a, b, _i) => tw.m.l.unzip(a, b));
    }
}

#[inline(always)]
unsafe fn forward_leaves<L: Lanes>(
    tw: &Twiddles<L>,
    src: *const u32,
    dst: *mut u32,
    len: usize,
    radix: u32,
    t: usize,
    ahead: &[*const u32],
) {
    let leaf = L::WIDTH << radix;
    for i in 0..len / leaf {
        for stream in ahead {
            for line in (0..leaf).step_by(16) {
                tw.m.l.prefetch_far(stream.wrapping_add(i * leaf + line));
            }
        }
        // SAFETY: leaf i lies within the block.
        unsafe {
            let t = t * (len / leaf) + i;
            let mut v = load_all(tw.m.l, src.add(i * leaf), L::WIDTH, 1 << radix);
            forward_stages(tw, &mut v, radix, t);
            forward_pairs(tw, &mut v, radix, t << radix);
            store_all(tw.m.l, dst.add(i * leaf), L::WIDTH, 1 << radix, &v);
        }
    }
}

#[inline(always)]
unsafe fn inverse_leaves<L: Lanes>(
    tw: &Twiddles<L>,
    src: *const u32,
    dst: *mut u32,
    len: usize,
    radix: u32,
    t: usize,
    last: Option<&[(L::V, L::V); 2]>,
) {
    let leaf = L::WIDTH << radix;
    for i in 0..len / leaf {
        // SAFETY: leaf i lies within the block.
        unsafe {
            let t = t * (len / leaf) + i;
            let mut v = load_all(tw.m.l, src.add(i * leaf), L::WIDTH, 1 << radix);
            inverse_pairs(tw, &mut v, radix, t << radix);
            inverse_stages(tw, &mut v, radix, t, last);
            store_all(tw.m.l, dst.add(i * leaf), L::WIDTH, 1 << radix, &v);
        }
    }
}

#[inline(always)]
unsafe fn forward_top_body<L: Lanes>(l: L, src: *const u32, dst: *mut u32, table: &NttTable) {
    let tw = Twiddles::new(l, table, table.forward());
    let n = 1usize << table.log_n();
    // SAFETY: the caller's promise.
    by_radix!(Cut::new::<L>(table.log_n()).top, radix => unsafe { forward_pass(&tw, src, dst, n, radix, 1) });
}

#[inline(always)]
unsafe fn forward_block_body<L: Lanes>(
    l: L,
    src: *const u32,
    dst: *mut u32,
    table: &NttTable,
    block: usize,
    ahead: &[*const u32],
) {
    let tw = Twiddles::new(l, table, table.forward());
    let cut = Cut::new::<L>(table.log_n());
    let len = 1usize << (table.log_n() - cut.top);
    // SAFETY: block lies within the limb.
    let (src, dst) = unsafe { (src.add(block * len), dst.add(block * len)) };
    let (mut part, mut count, mut from) = (len, 1usize, src);
    for r in cut.middle {
        if r > 0 {
            for i in 0..count {
                let t = ((1 << cut.top) + block) * count + i;
                // SAFETY: part i lies within the block.
                by_radix!(r, radix => unsafe { forward_pass(&tw, from.add(i * part), dst.add(i * part), part, radix, t) });
            }
            part >>= r;
            count <<= r;
            from = dst;
        }
    }
    // SAFETY: the leaves are those of this block.
    by_radix!(cut.leaf, radix => unsafe { forward_leaves(&tw, from, dst, len, radix, (1 << cut.top) + block, ahead) });
}

#[inline(always)]
unsafe fn forward_body<L: Lanes>(l: L, src: *const u32, dst: *mut u32, table: &NttTable) {
    let top = Cut::new::<L>(table.log_n()).top;
    // SAFETY: the caller's promise.
    unsafe {
        forward_top_body(l, src, dst, table);
        for block in 0..1usize << top {
            forward_block_body(l, if top == 0 { src } else { dst }, dst, table, block, &[]);
        }
    }
}

#[inline(always)]
unsafe fn inverse_body<L: Lanes>(l: L, src: *const u32, dst: *mut u32, table: &NttTable, factor: u32) {
    let tw = Twiddles::new(l, table, table.inverse());
    let modulus = table.modulus();
    let cut = Cut::new::<L>(table.log_n());
    let n = 1usize << table.log_n();
    let constant = |c: u32| (l.splat(c), l.splat(modulus.shoup(c)));
    let scale = modulus.mul(table.n_inv(), factor);
    let last = [constant(scale), constant(modulus.mul(scale, table.inverse().0[1]))];
    let len = n >> cut.top;
    let middle: u32 = cut.middle.iter().sum();
    for block in 0..1usize << cut.top {
        let t = (1 << cut.top) + block;
        // SAFETY: block and parts lie within the limb.
        unsafe {
            let (src, dst) = (src.add(block * len), dst.add(block * len));
            if cut.top == 0 {
                by_radix!(cut.leaf, radix => inverse_leaves(&tw, src, dst, len, radix, t, Some(&last)));
            } else {
                by_radix!(cut.leaf, radix => inverse_leaves(&tw, src, dst, len, radix, t, None));
            }
            let (mut part, mut count) = (len >> middle, 1usize << middle);
            for r in cut.middle.iter().rev().copied().filter(|&r| r > 0) {
                part <<= r;
                count >>= r;
                for i in 0..count {
                    let at = dst.add(i * part);
                    by_radix!(r, radix => inverse_pass(&tw, at, at, part, radix, t * count + i, None));
                }
            }
        }
    }
    if cut.top > 0 {
        // SAFETY: the whole limb.
        by_radix!(cut.top, radix => unsafe { inverse_pass(&tw, dst, dst, n, radix, 1, Some(&last)) });
    }
}

kernel! {
    /// Forward transform of the N words at `src` (in `[0, 4q)`) to `dst` (in `[0, q)`), which may be equal.
    ///
    /// # Safety
    /// As the module says.
    pub(super) fn forward(src: *const u32, dst: *mut u32, table: &NttTable) = forward_body
}
kernel! {
    /// The first pass of [`forward`]; then come [`forward_block`]s. Does nothing where there is but one block.
    ///
    /// # Safety
    /// As the module says.
    pub(super) fn forward_top(src: *const u32, dst: *mut u32, table: &NttTable) = forward_top_body
}
kernel! {
    /// The rest of [`forward`] for one of the `2^log_blocks` blocks, from `src` (the limb after the top pass) to `dst`.
    /// Meanwhile a block's words of each stream of `ahead` are fetched from memory, for what comes next.
    ///
    /// # Safety
    /// As the module says; `block < 2^log_blocks`. What `ahead` points to need not be valid.
    pub(super) fn forward_block(src: *const u32, dst: *mut u32, table: &NttTable, block: usize, ahead: &[*const u32]) = forward_block_body
}
kernel! {
    /// Inverse transform times `factor`, of the N words at `src` (in `[0, 2q)`) to `dst` (in `[0, q)`).
    ///
    /// # Safety
    /// As the module says.
    pub(super) fn inverse(src: *const u32, dst: *mut u32, table: &NttTable, factor: u32) = inverse_body
}

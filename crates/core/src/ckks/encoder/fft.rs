//! The special Fourier transform between slots and coefficients.
//!
//! Slot j of a polynomial m of degree N = 2n is `m(zeta^(5^j))`, `zeta = exp(i pi / N)`. Since `zeta^(5^j n) = i`, m is
//! the complex polynomial `w_k = m_k + i m_(k+n)` of degree n, and since `5^j = 4 t_j + 1`, with `omega = exp(2 pi i / n)`:
//!
//! `z_j = sum_k (w_k zeta^k) omega^(k t_j)`
//!
//! a twist by `zeta^k`, a cyclic transform of length n, and the permutation `j -> t_j`. The cyclic transform is
//! Stockham's, radix 4 (the last stage radix 2 if log2 n is odd), on separate arrays of real and imaginary parts; it needs no bit
//! reversal, and its inner loops are contiguous from the second stage on. Cost: about `4.25 n log2 n` flops.
//!
//! # Safety
//! What is generic over vectors may run only where their instructions exist. Nothing else is asked: slices that are too short panic.

use super::vector::Vector;
use crate::ckks::simd_dispatch::simd_dispatch;
use zeroize::Zeroize;

/// Twiddles of one stage.
type Stage = [Vec<f64>; 6];
/// Real and imaginary parts.
type Complex<'a> = (&'a [f64], &'a [f64]);
/// Real and imaginary parts to write.
type ComplexMut<'a> = (&'a mut [f64], &'a mut [f64]);

/// Precomputed roots for one degree.
pub struct SlotTransform {
    n: usize,
    /// `t_j` per slot j.
    position: Vec<u32>,
    /// The slot at each position.
    slot: Vec<u32>,
    /// `zeta^k`.
    twist_re: Vec<f64>,
    twist_im: Vec<f64>,
    /// Per radix-4 stage of length L: `omega_L^p`, `omega_L^2p`, `omega_L^3p` for `p < L / 4`, six arrays.
    stages: Vec<Stage>,
}

/// Work space of one transform: two complex vectors.
#[derive(Debug)]
pub struct Scratch {
    /// First vector; holds the result.
    pub re: Vec<f64>,
    /// Its imaginary part.
    pub im: Vec<f64>,
    other_re: Vec<f64>,
    other_im: Vec<f64>,
}

impl Zeroize for Scratch {
    fn zeroize(&mut self) {
        [&mut self.re, &mut self.im, &mut self.other_re, &mut self.other_im].into_iter().for_each(Zeroize::zeroize);
    }
}

impl Scratch {
    /// For `n` slots.
    pub fn new(n: usize) -> Self {
        Self { re: vec![0.0; n], im: vec![0.0; n], other_re: vec![0.0; n], other_im: vec![0.0; n] }
    }
}

/// `exp(2 pi i k / size)`, accurate to the last bit or so: the angle is reduced to an eighth of the circle in integers.
fn root(k: usize, size: usize) -> (f64, f64) {
    let k = k % size;
    let octant = 8 * k / size;
    // Distance to the nearest multiple of a quarter turn below or above, in units of 1/(8 size) turns.
    let angle = |units: i64| units as f64 / size as f64 * (std::f64::consts::TAU / 8.0);
    let eighths = 8 * k as i64;
    let s = size as i64;
    let (sin, cos) = match octant {
        0 => angle(eighths).sin_cos(),
        1 | 2 => {
            let (s1, c1) = angle(eighths - 2 * s).sin_cos();
            (c1, -s1)
        }
        3 | 4 => {
            let (s1, c1) = angle(eighths - 4 * s).sin_cos();
            (-s1, -c1)
        }
        5 | 6 => {
            let (s1, c1) = angle(eighths - 6 * s).sin_cos();
            (-c1, s1)
        }
        _ => angle(eighths - 8 * s).sin_cos(),
    };
    (cos, sin)
}

impl std::fmt::Debug for SlotTransform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SlotTransform({} slots)", self.n)
    }
}

impl SlotTransform {
    /// Roots for ring degree `2^log_n`, `log_n >= 2`.
    pub fn new(log_n: u32) -> Self {
        let degree = 1usize << log_n;
        let n = degree / 2;
        let mut position = Vec::with_capacity(n);
        let mut slot = vec![0u32; n];
        let mut power = 1usize;
        for j in 0..n {
            let t = (power - 1) / 4 % n;
            position.push(t as u32);
            slot[t] = j as u32;
            power = power * 5 % (2 * degree);
        }
        let (twist_re, twist_im) = (0..n).map(|k| root(k, 2 * degree)).unzip();
        let mut stages = Vec::new();
        let mut length = n;
        while length >= 4 {
            let mut stage: Stage = Default::default();
            for p in 0..length / 4 {
                for (e, pair) in (1..=3).zip([0, 2, 4]) {
                    let (re, im) = root(e * p, length);
                    stage[pair].push(re);
                    stage[pair + 1].push(im);
                }
            }
            stages.push(stage);
            length /= 4;
        }
        Self { n, position, slot, twist_re, twist_im, stages }
    }

    /// Slots.
    pub fn slots(&self) -> usize {
        self.n
    }

    /// From slots to coefficients times `factor`: `re` and `im` are the slots' parts; afterwards `scratch.re[k]` is
    /// coefficient k and `scratch.im[k]` coefficient k + n.
    pub fn to_coefficients(&self, re: &[f64], im: Option<&[f64]>, factor: f64, scratch: &mut Scratch) {
        for (o, &j) in scratch.re.iter_mut().zip(&self.slot) {
            *o = re[j as usize];
        }
        match im {
            Some(im) => {
                for (o, &j) in scratch.im.iter_mut().zip(&self.slot) {
                    *o = im[j as usize];
                }
            }
            None => scratch.im.fill(0.0),
        }
        // Swapping real and imaginary parts before and after conjugates the transform.
        let Scratch { re, im, other_re, other_im } = scratch;
        self.transform(im, re, other_im, other_re);
        twist_back(re, im, &self.twist_re, &self.twist_im, factor / self.n as f64);
    }

    /// From coefficients in `scratch` (as [`Self::to_coefficients`] leaves them) to slots, times `factor`.
    pub fn to_slots(&self, scratch: &mut Scratch, factor: f64, out_re: &mut [f64], out_im: Option<&mut [f64]>) {
        let Scratch { re, im, other_re, other_im } = scratch;
        twist(re, im, &self.twist_re, &self.twist_im, factor);
        self.transform(re, im, other_re, other_im);
        for (o, &t) in out_re.iter_mut().zip(&self.position) {
            *o = re[t as usize];
        }
        if let Some(out) = out_im {
            for (o, &t) in out.iter_mut().zip(&self.position) {
                *o = im[t as usize];
            }
        }
    }

    /// `x_t <- sum_k x_k omega^(k t)`; `y` is work space. Both vectors may change hands.
    fn transform(&self, x_re: &mut Vec<f64>, x_im: &mut Vec<f64>, y_re: &mut Vec<f64>, y_im: &mut Vec<f64>) {
        let mut stride = 1;
        for stage in &self.stages {
            radix4((x_re, x_im), (y_re, y_im), stage, stride);
            std::mem::swap(x_re, y_re);
            std::mem::swap(x_im, y_im);
            stride *= 4;
        }
        if stride < self.n {
            radix2(x_re, x_im);
        }
    }
}

simd_dispatch! {
    /// The last stage of odd log2 n: sums and differences of the halves, in place.
    fn radix2 = radix2_body(re: &mut [f64], im: &mut [f64])
}

#[inline(always)]
fn radix2_body<const FMA: bool>(re: &mut [f64], im: &mut [f64]) {
    for part in [re, im] {
        let (low, high) = part.split_at_mut(part.len() / 2);
        for (a, b) in low.iter_mut().zip(high) {
            (*a, *b) = (*a + *b, *a - *b);
        }
    }
}

/// One stage of Stockham's transform, radix 4: with L = length / stride,
/// `y[q + s (4p + e)] = omega_L^(e p) sum_f i^(e f) x[q + s (p + f L/4)]`.
fn radix4(x: Complex<'_>, y: ComplexMut<'_>, stage: &Stage, stride: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m256d, __m512d};
        #[target_feature(enable = "avx512f,avx2")]
        fn wide(x: Complex<'_>, y: ComplexMut<'_>, stage: &Stage, stride: usize) {
            // SAFETY: the features are enabled here.
            unsafe { radix4_by_width::<__m512d, __m256d>(x, y, stage, stride) }
        }
        #[target_feature(enable = "avx2")]
        fn middle(x: Complex<'_>, y: ComplexMut<'_>, stage: &Stage, stride: usize) {
            // SAFETY: as above.
            unsafe { radix4_by_width::<__m256d, __m256d>(x, y, stage, stride) }
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            if std::arch::is_x86_feature_detected!("avx512f") {
                // SAFETY: just detected.
                return unsafe { wide(x, y, stage, stride) };
            }
            // SAFETY: just detected.
            return unsafe { middle(x, y, stage, stride) };
        }
    }
    // SAFETY: scalar instructions are everywhere.
    unsafe { radix4_by_width::<f64, f64>(x, y, stage, stride) }
}

/// The widest vector that the stride allows.
///
/// # Safety
/// As the module says.
#[inline(always)]
unsafe fn radix4_by_width<V: Vector, H: Vector>(x: Complex<'_>, y: ComplexMut<'_>, stage: &Stage, stride: usize) {
    let quarter = x.0.len() / 4;
    // SAFETY: as this function asks.
    unsafe {
        match stride {
            1 if quarter.is_multiple_of(H::WIDTH) => radix4_first::<H>(x, y, stage),
            _ if stride.is_multiple_of(V::WIDTH) => radix4_strided::<V>(x, y, stage, stride),
            _ if stride.is_multiple_of(H::WIDTH) => radix4_strided::<H>(x, y, stage, stride),
            _ => radix4_strided::<f64>(x, y, stage, stride),
        }
    }
}

/// The four outputs of one butterfly, twiddles included: real parts, imaginary parts.
///
/// # Safety
/// As the module says.
#[inline(always)]
unsafe fn butterfly<V: Vector>(re: [V; 4], im: [V; 4], w: [V; 6]) -> ([V; 4], [V; 4]) {
    // SAFETY: as this function asks.
    unsafe {
        let (s_re, s_im, d_re, d_im) = (re[0].add(re[2]), im[0].add(im[2]), re[0].sub(re[2]), im[0].sub(im[2]));
        let (t_re, t_im, e_re, e_im) = (re[1].add(re[3]), im[1].add(im[3]), re[1].sub(re[3]), im[1].sub(im[3]));
        let (re1, im1) = turn(d_re.sub(e_im), d_im.add(e_re), w[0], w[1]);
        let (re2, im2) = turn(s_re.sub(t_re), s_im.sub(t_im), w[2], w[3]);
        let (re3, im3) = turn(d_re.add(e_im), d_im.sub(e_re), w[4], w[5]);
        ([s_re.add(t_re), re1, re2, re3], [s_im.add(t_im), im1, im2, im3])
    }
}

/// `(re + i im) (c + i s)`.
///
/// # Safety
/// As the module says.
#[inline(always)]
unsafe fn turn<V: Vector>(re: V, im: V, c: V, s: V) -> (V, V) {
    // SAFETY: as this function asks.
    unsafe { (re.mul(c).sub(im.mul(s)), re.mul(s).add(im.mul(c))) }
}

/// The four inputs of butterflies side by side from `at` on.
///
/// # Safety
/// As the module says.
#[inline(always)]
unsafe fn quarters<V: Vector>(x: &[f64], at: usize) -> [V; 4] {
    let f = x.len() / 4;
    // SAFETY: as this function asks.
    unsafe { [V::load(&x[at..]), V::load(&x[at + f..]), V::load(&x[at + 2 * f..]), V::load(&x[at + 3 * f..])] }
}

/// The first stage: one butterfly a lane, results interleaved.
///
/// # Safety
/// As the module says.
#[inline(always)]
unsafe fn radix4_first<V: Vector>(x: Complex<'_>, y: ComplexMut<'_>, stage: &Stage) {
    // SAFETY: as this function asks.
    unsafe {
        for p in (0..x.0.len() / 4).step_by(V::WIDTH) {
            let [a, b, c, d, e, f] = stage;
            let w = [V::load(&a[p..]), V::load(&b[p..]), V::load(&c[p..]), V::load(&d[p..]), V::load(&e[p..]), V::load(&f[p..])];
            let (re, im) = butterfly::<V>(quarters(x.0, p), quarters(x.1, p), w);
            for (y, v) in [(&mut *y.0, re), (&mut *y.1, im)] {
                let mut lanes = [[0.0; 8]; 4];
                for (lanes, v) in lanes.iter_mut().zip(v) {
                    v.store(lanes);
                }
                let out = y[4 * p..4 * (p + V::WIDTH)].as_chunks_mut::<4>().0;
                for (i, out) in out.iter_mut().enumerate() {
                    *out = [lanes[0][i], lanes[1][i], lanes[2][i], lanes[3][i]];
                }
            }
        }
    }
}

/// A stage whose stride is a multiple of the width.
///
/// # Safety
/// As the module says.
#[inline(always)]
unsafe fn radix4_strided<V: Vector>(x: Complex<'_>, y: ComplexMut<'_>, stage: &Stage, stride: usize) {
    // SAFETY: as this function asks.
    unsafe {
        for p in 0..x.0.len() / 4 / stride {
            let [a, b, c, d, e, f] = stage;
            let w = [V::splat(a[p]), V::splat(b[p]), V::splat(c[p]), V::splat(d[p]), V::splat(e[p]), V::splat(f[p])];
            for q in (0..stride).step_by(V::WIDTH) {
                let (re, im) = butterfly::<V>(quarters(x.0, p * stride + q), quarters(x.1, p * stride + q), w);
                for e in 0..4 {
                    let at = (4 * p + e) * stride + q;
                    re[e].store(&mut y.0[at..]);
                    im[e].store(&mut y.1[at..]);
                }
            }
        }
    }
}

simd_dispatch! {
    /// `x_k <- x_k zeta^k factor`.
    fn twist = twist_body(re: &mut [f64], im: &mut [f64], w_re: &[f64], w_im: &[f64], factor: f64)
}

#[inline(always)]
fn twist_body<const FMA: bool>(re: &mut [f64], im: &mut [f64], w_re: &[f64], w_im: &[f64], factor: f64) {
    for (((re, im), &c), &s) in re.iter_mut().zip(im).zip(w_re).zip(w_im) {
        (*re, *im) = ((*re * c - *im * s) * factor, (*re * s + *im * c) * factor);
    }
}

simd_dispatch! {
    /// `x_k <- x_k zeta^-k factor`.
    fn twist_back = twist_back_body(re: &mut [f64], im: &mut [f64], w_re: &[f64], w_im: &[f64], factor: f64)
}

#[inline(always)]
fn twist_back_body<const FMA: bool>(re: &mut [f64], im: &mut [f64], w_re: &[f64], w_im: &[f64], factor: f64) {
    for (((re, im), &c), &s) in re.iter_mut().zip(im).zip(w_re).zip(w_im) {
        (*re, *im) = ((*re * c + *im * s) * factor, (*im * c - *re * s) * factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustfft::{FftPlanner, num_complex::Complex as Point};

    fn noise(n: usize, seed: u64) -> Vec<f64> {
        let mut x = seed;
        (0..n)
            .map(|_| {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (x >> 11) as f64 / 2f64.powi(52) - 1.0
            })
            .collect()
    }

    /// The definition: `z_j = m(zeta^(5^j))` with every root computed afresh.
    fn evaluate(coefficients: &[f64], j: usize) -> Point<f64> {
        let two_n = 2 * coefficients.len();
        let power = (0..j).fold(1usize, |p, _| p * 5 % two_n);
        let at = |k: usize| Point::from_polar(1.0, std::f64::consts::TAU * (power * k % two_n) as f64 / two_n as f64);
        coefficients.iter().enumerate().map(|(k, &c)| at(k) * c).sum()
    }

    #[test]
    fn equals_the_definition_and_inverts() {
        for log_n in [2u32, 3, 4, 5, 6, 9] {
            let n = 1 << (log_n - 1);
            let t = SlotTransform::new(log_n);
            let coefficients = noise(2 * n, log_n.into());
            let mut scratch = Scratch::new(n);
            scratch.re.copy_from_slice(&coefficients[..n]);
            scratch.im.copy_from_slice(&coefficients[n..]);
            let (mut re, mut im) = (vec![f64::NAN; n], vec![f64::NAN; n]);
            t.to_slots(&mut scratch, 2.0, &mut re, Some(&mut im));
            for j in 0..n {
                let want = evaluate(&coefficients, j) * 2.0;
                assert!((re[j] - want.re).abs() + (im[j] - want.im).abs() < 1e-12 * n as f64, "N=2^{log_n} slot {j}");
            }
            t.to_coefficients(&re, Some(&im), 0.5, &mut scratch);
            for k in 0..n {
                assert!((scratch.re[k] - coefficients[k]).abs() < 1e-13 && (scratch.im[k] - coefficients[k + n]).abs() < 1e-13);
            }
        }
    }

    #[test]
    fn all_widths_give_the_same_bits() {
        for log_n in [6u32, 7, 8, 11, 12] {
            let n = 1 << (log_n - 1);
            let t = SlotTransform::new(log_n);
            let (re, im) = (noise(n, 1), noise(n, 2));
            let mut stride = 1;
            for stage in &t.stages {
                let (mut wide, mut narrow) = ((vec![f64::NAN; n], vec![f64::NAN; n]), (vec![f64::NAN; n], vec![f64::NAN; n]));
                radix4((&re, &im), (&mut wide.0, &mut wide.1), stage, stride);
                // SAFETY: scalar instructions are everywhere.
                unsafe { radix4_by_width::<f64, f64>((&re, &im), (&mut narrow.0, &mut narrow.1), stage, stride) };
                assert_eq!(wide, narrow, "N=2^{log_n} stride {stride}");
                stride *= 4;
            }
        }
    }

    #[test]
    fn equals_rustfft_on_all_4n_roots() {
        // An independent route: pad to 2N points, take the plain transform, pick the odd powers 5^j.
        for log_n in [10u32, 13, 14] {
            let (degree, n) = (1usize << log_n, 1usize << (log_n - 1));
            let coefficients = noise(degree, 99);
            let mut padded: Vec<Point<f64>> = coefficients.iter().map(|&c| Point::new(c, 0.0)).collect();
            padded.resize(2 * degree, Point::new(0.0, 0.0));
            FftPlanner::new().plan_fft_inverse(2 * degree).process(&mut padded);
            let t = SlotTransform::new(log_n);
            let mut scratch = Scratch::new(n);
            scratch.re.copy_from_slice(&coefficients[..n]);
            scratch.im.copy_from_slice(&coefficients[n..]);
            let (mut re, mut im) = (vec![0.0; n], vec![0.0; n]);
            t.to_slots(&mut scratch, 1.0, &mut re, Some(&mut im));
            let mut power = 1;
            for j in 0..n {
                let want = padded[power];
                assert!((re[j] - want.re).abs() + (im[j] - want.im).abs() < 1e-10, "N=2^{log_n} slot {j}");
                power = power * 5 % (2 * degree);
            }
        }
    }

    #[test]
    fn roots_are_accurate_all_around() {
        for k in 0..64 {
            let (re, im) = root(k, 64);
            let want = Point::from_polar(1.0, std::f64::consts::TAU * k as f64 / 64.0);
            assert!((re - want.re).abs() + (im - want.im).abs() < 1e-15, "{k}");
        }
    }
}

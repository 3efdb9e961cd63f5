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

use crate::ckks::widest::widest;

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
    stages: Vec<[Vec<f64>; 6]>,
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
            let mut stage: [Vec<f64>; 6] = Default::default();
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
            radix4(x_re, x_im, y_re, y_im, stage, stride);
            std::mem::swap(x_re, y_re);
            std::mem::swap(x_im, y_im);
            stride *= 4;
        }
        if stride < self.n {
            radix2(x_re, x_im);
        }
    }
}

widest! {
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

widest! {
    /// One stage of Stockham's transform, radix 4: with L = length / stride,
    /// `y[q + s (4p + e)] = omega_L^(e p) sum_f i^(e f) x[q + s (p + f L/4)]`.
    fn radix4 = radix4_body(
        x_re: &[f64],
        x_im: &[f64],
        y_re: &mut [f64],
        y_im: &mut [f64],
        stage: &[Vec<f64>; 6],
        stride: usize,
    )
}

#[inline(always)]
fn radix4_body<const FMA: bool>(
    x_re: &[f64],
    x_im: &[f64],
    y_re: &mut [f64],
    y_im: &mut [f64],
    stage: &[Vec<f64>; 6],
    stride: usize,
) {
    match stride {
        1 => radix4_first(x_re, x_im, y_re, y_im, stage),
        4 => radix4_blocks::<4>(x_re, x_im, y_re, y_im, stage, 1),
        _ => radix4_blocks::<8>(x_re, x_im, y_re, y_im, stage, stride / 8),
    }
}

/// The four outputs of one butterfly before the twiddles: real parts, imaginary parts.
#[inline(always)]
fn butterfly(re: [f64; 4], im: [f64; 4]) -> ([f64; 4], [f64; 4]) {
    let (s_re, s_im, d_re, d_im) = (re[0] + re[2], im[0] + im[2], re[0] - re[2], im[0] - im[2]);
    let (t_re, t_im, e_re, e_im) = (re[1] + re[3], im[1] + im[3], re[1] - re[3], im[1] - im[3]);
    ([s_re + t_re, d_re - e_im, s_re - t_re, d_re + e_im], [s_im + t_im, d_im + e_re, s_im - t_im, d_im - e_re])
}

#[inline(always)]
fn radix4_first(x_re: &[f64], x_im: &[f64], y_re: &mut [f64], y_im: &mut [f64], stage: &[Vec<f64>; 6]) {
    let m = x_re.len() / 4;
    let (r0, r1, r2, r3) = (&x_re[..m], &x_re[m..2 * m], &x_re[2 * m..3 * m], &x_re[3 * m..4 * m]);
    let (i0, i1, i2, i3) = (&x_im[..m], &x_im[m..2 * m], &x_im[2 * m..3 * m], &x_im[3 * m..4 * m]);
    let (w1r, w1i, w2r, w2i, w3r, w3i) =
        (&stage[0][..m], &stage[1][..m], &stage[2][..m], &stage[3][..m], &stage[4][..m], &stage[5][..m]);
    for (p, (o_re, o_im)) in y_re.chunks_exact_mut(4).zip(y_im.chunks_exact_mut(4)).enumerate().take(m) {
        let (re, im) = butterfly([r0[p], r1[p], r2[p], r3[p]], [i0[p], i1[p], i2[p], i3[p]]);
        o_re[0] = re[0];
        o_im[0] = im[0];
        o_re[1] = re[1] * w1r[p] - im[1] * w1i[p];
        o_im[1] = re[1] * w1i[p] + im[1] * w1r[p];
        o_re[2] = re[2] * w2r[p] - im[2] * w2i[p];
        o_im[2] = re[2] * w2i[p] + im[2] * w2r[p];
        o_re[3] = re[3] * w3r[p] - im[3] * w3i[p];
        o_im[3] = re[3] * w3i[p] + im[3] * w3r[p];
    }
}

/// A stage whose stride is `blocks * W`.
#[inline(always)]
fn radix4_blocks<const W: usize>(
    x_re: &[f64],
    x_im: &[f64],
    y_re: &mut [f64],
    y_im: &mut [f64],
    stage: &[Vec<f64>; 6],
    blocks: usize,
) {
    let (xr, xi) = (x_re.as_chunks::<W>().0, x_im.as_chunks::<W>().0);
    let (yr, yi) = (y_re.as_chunks_mut::<W>().0, y_im.as_chunks_mut::<W>().0);
    let m = xr.len() / 4 / blocks;
    let f = m * blocks;
    for (p, (o_re, o_im)) in yr.chunks_exact_mut(4 * blocks).zip(yi.chunks_exact_mut(4 * blocks)).enumerate().take(m) {
        let w = [stage[0][p], stage[1][p], stage[2][p], stage[3][p], stage[4][p], stage[5][p]];
        let base = p * blocks;
        let (a_re, b_re) = (&xr[base..base + blocks], &xr[base + f..base + f + blocks]);
        let (c_re, d_re) = (&xr[base + 2 * f..base + 2 * f + blocks], &xr[base + 3 * f..base + 3 * f + blocks]);
        let (a_im, b_im) = (&xi[base..base + blocks], &xi[base + f..base + f + blocks]);
        let (c_im, d_im) = (&xi[base + 2 * f..base + 2 * f + blocks], &xi[base + 3 * f..base + 3 * f + blocks]);
        let (o0r, rest) = o_re.split_at_mut(blocks);
        let (o1r, rest) = rest.split_at_mut(blocks);
        let (o2r, o3r) = rest.split_at_mut(blocks);
        let (o0i, rest) = o_im.split_at_mut(blocks);
        let (o1i, rest) = rest.split_at_mut(blocks);
        let (o2i, o3i) = rest.split_at_mut(blocks);
        for q in 0..blocks {
            for v in 0..W {
                let (re, im) =
                    butterfly([a_re[q][v], b_re[q][v], c_re[q][v], d_re[q][v]], [a_im[q][v], b_im[q][v], c_im[q][v], d_im[q][v]]);
                o0r[q][v] = re[0];
                o0i[q][v] = im[0];
                o1r[q][v] = re[1] * w[0] - im[1] * w[1];
                o1i[q][v] = re[1] * w[1] + im[1] * w[0];
                o2r[q][v] = re[2] * w[2] - im[2] * w[3];
                o2i[q][v] = re[2] * w[3] + im[2] * w[2];
                o3r[q][v] = re[3] * w[4] - im[3] * w[5];
                o3i[q][v] = re[3] * w[5] + im[3] * w[4];
            }
        }
    }
}

widest! {
    /// `x_k <- x_k zeta^k factor`.
    fn twist = twist_body(re: &mut [f64], im: &mut [f64], w_re: &[f64], w_im: &[f64], factor: f64)
}

#[inline(always)]
fn twist_body<const FMA: bool>(re: &mut [f64], im: &mut [f64], w_re: &[f64], w_im: &[f64], factor: f64) {
    for (((re, im), &c), &s) in re.iter_mut().zip(im).zip(w_re).zip(w_im) {
        (*re, *im) = ((*re * c - *im * s) * factor, (*re * s + *im * c) * factor);
    }
}

widest! {
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
    use rustfft::{FftPlanner, num_complex::Complex};

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
    fn evaluate(coefficients: &[f64], j: usize) -> Complex<f64> {
        let two_n = 2 * coefficients.len();
        let power = (0..j).fold(1usize, |p, _| p * 5 % two_n);
        let at = |k: usize| Complex::from_polar(1.0, std::f64::consts::TAU * (power * k % two_n) as f64 / two_n as f64);
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
    fn equals_rustfft_on_all_4n_roots() {
        // An independent route: pad to 2N points, take the plain transform, pick the odd powers 5^j.
        for log_n in [10u32, 13, 14] {
            let (degree, n) = (1usize << log_n, 1usize << (log_n - 1));
            let coefficients = noise(degree, 99);
            let mut padded: Vec<Complex<f64>> = coefficients.iter().map(|&c| Complex::new(c, 0.0)).collect();
            padded.resize(2 * degree, Complex::new(0.0, 0.0));
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
            let want = Complex::from_polar(1.0, std::f64::consts::TAU * k as f64 / 64.0);
            assert!((re - want.re).abs() + (im - want.im).abs() < 1e-15, "{k}");
        }
    }
}

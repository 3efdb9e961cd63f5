//! The convolution of the clear evaluator.

use crate::nn::model::{Conv2d, Window};
use crate::nn::tensor::{Element, Shape, Tensor};

/// Output channels computed together: their sums stay in registers.
const LANES: usize = 16;
/// Output pixels computed together: each weight loaded is used this often, and as many sums as registers hold hide the time that one takes.
const COLUMNS: usize = 6;
/// Neighbouring output columns of a convolution by channels computed together.
const TILE: usize = 32;
/// Neighbouring columns that are laid out anew together: a cache line of f32.
const PATCH: usize = 16;

/// A convolution with weights in the order the kernel reads them.
#[derive(Debug, Clone)]
pub(super) struct PackedConv<T> {
    window: Window,
    groups: usize,
    /// `[group][block of LANES outputs][kernel row][kernel column][input of the group][LANES]`, zeros where a block is
    /// not full.
    weight: Vec<T>,
    bias: Vec<T>,
    inputs: usize,
    outputs: usize,
}

impl<T: Element> PackedConv<T> {
    /// Arranges the weights of a convolution over `input`.
    pub(super) fn new(conv: &Conv2d, input: Shape) -> Self {
        let groups = conv.groups;
        let (inputs, outputs) = (input.channels / groups, conv.bias.len() / groups);
        let [kh, kw] = conv.window.kernel;
        let taps = kh * kw;
        let blocks = outputs.div_ceil(LANES);
        let mut weight = vec![T::default(); groups * blocks * taps * inputs * LANES];
        for (out, plane) in conv.weight.chunks_exact((inputs * taps).max(1)).enumerate() {
            let (group, o) = (out / outputs, out % outputs);
            for (i, taps_of) in plane.chunks_exact(taps).enumerate() {
                for (tap, w) in taps_of.iter().enumerate() {
                    let at = ((group * blocks + o / LANES) * taps + tap) * inputs + i;
                    weight[at * LANES + o % LANES] = T::from_f64(*w);
                }
            }
        }
        Self { window: conv.window, groups, weight, bias: conv.bias.iter().map(|b| T::from_f64(*b)).collect(), inputs, outputs }
    }

    /// The convolution of `x`; `shape` is the shape of the result.
    pub(super) fn run(&self, x: &Tensor<T>, shape: Shape) -> Tensor<T> {
        let mut out = Tensor::zeros(shape);
        if self.inputs == 1 && self.outputs <= LANES / 4 {
            self.run_by_channels(x, &mut out);
            return out;
        }
        let block = self.window.kernel[0] * self.window.kernel[1] * self.inputs * LANES;
        let blocks = self.outputs.div_ceil(LANES);
        for group in 0..self.groups {
            let padded = self.padded(x, group);
            for b in 0..blocks {
                let weight = &self.weight[(group * blocks + b) * block..][..block];
                let first = group * self.outputs + b * LANES;
                let lanes = LANES.min(self.outputs - b * LANES);
                let block = Block { weight, first, lanes };
                #[cfg(target_arch = "x86_64")]
                if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                    // SAFETY: the processor has what the function needs.
                    unsafe { self.run_block_avx2(&padded, &block, &mut out) };
                    continue;
                }
                self.run_block::<false>(&padded, &block, &mut out);
            }
        }
        out
    }

    /// Where a group has one input and few outputs: lanes are neighbouring columns instead. The sums are those of the other kernel,
    /// term by term.
    fn run_by_channels(&self, x: &Tensor<T>, out: &mut Tensor<T>) {
        let mut lines = Lines::new(&self.window, x.shape());
        for group in 0..self.groups {
            lines.fill(&self.window, x.channel(group), x.shape().width);
            #[cfg(target_arch = "x86_64")]
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                // SAFETY: the processor has what the function needs.
                unsafe { self.run_channel_avx2(&lines, group, out) };
                continue;
            }
            self.run_channel::<false>(&lines, group, out);
        }
    }

    /// [`Self::run_channel`] compiled for wide registers.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn run_channel_avx2(&self, lines: &Lines<T>, group: usize, out: &mut Tensor<T>) {
        self.run_channel::<true>(lines, group, out);
    }

    /// All outputs of the one input of a group.
    #[inline(always)]
    fn run_channel<const FUSED: bool>(&self, lines: &Lines<T>, group: usize, out: &mut Tensor<T>) {
        let (shape, window) = (out.shape(), &self.window);
        let ([kh, kw], [down, _]) = (window.kernel, window.stride);
        let weight = &self.weight[group * kh * kw * LANES..][..kh * kw * LANES];
        for o in 0..self.outputs {
            let channel = group * self.outputs + o;
            let plane = &mut out.values_mut()[channel * shape.plane()..][..shape.plane()];
            for (y, line) in plane.chunks_exact_mut(shape.width).enumerate() {
                for (n, tile) in line.chunks_mut(TILE).enumerate() {
                    let mut sums = [T::default(); TILE];
                    for ky in 0..kh {
                        let row = y * down + ky * window.dilation[0];
                        for kx in 0..kw {
                            let w = weight[(ky * kw + kx) * LANES + o];
                            let values = lines.from(row, kx * window.dilation[1], n * TILE);
                            for (sum, v) in sums.iter_mut().zip(values) {
                                *sum = if FUSED { v.mul_add(w, *sum) } else { *v * w + *sum };
                            }
                        }
                    }
                    tile.iter_mut().zip(sums).for_each(|(t, sum)| *t = sum + self.bias[channel]);
                }
            }
        }
    }

    /// The inputs of one group with the padding around them: `[row][column][input of the group]`.
    fn padded(&self, x: &Tensor<T>, group: usize) -> Padded<T> {
        let Shape { height, width, .. } = x.shape();
        let [top, left, bottom, right] = self.window.padding;
        let (inputs, plane) = (self.inputs, x.shape().plane());
        let row = (width + left + right) * inputs;
        let mut values = vec![T::default(); (height + top + bottom) * row];
        let channels = &x.values()[group * inputs * plane..][..inputs * plane];
        for y in 0..height {
            let target = &mut values[(y + top) * row + left * inputs..][..width * inputs];
            // Some columns of all channels at a time: what is written lies close together.
            for first in (0..width).step_by(PATCH) {
                let columns = PATCH.min(width - first);
                let target = &mut target[first * inputs..][..columns * inputs];
                for (c, channel) in channels.chunks_exact(plane).enumerate() {
                    let line = &channel[y * width + first..][..columns];
                    line.iter().zip(target[c..].iter_mut().step_by(inputs)).for_each(|(v, to)| *to = *v);
                }
            }
        }
        Padded { values, row }
    }

    /// [`Self::run_block`] compiled for wide registers.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn run_block_avx2(&self, padded: &Padded<T>, block: &Block<'_, T>, out: &mut Tensor<T>) {
        self.run_block::<true>(padded, block, out);
    }

    /// All pixels of one block of outputs. `FUSED` rounds each product and sum once, which is fast only where the
    /// processor does it.
    #[inline(always)]
    fn run_block<const FUSED: bool>(&self, padded: &Padded<T>, block: &Block<'_, T>, out: &mut Tensor<T>) {
        let Block { weight, first, lanes } = *block;
        let shape = out.shape();
        let window = &self.window;
        let plane = shape.plane();
        for pixel in (0..plane).step_by(COLUMNS) {
            // The last tile repeats the last pixel; the copies are not stored.
            let starts: [usize; COLUMNS] = std::array::from_fn(|p| {
                let at = (pixel + p).min(plane - 1);
                let (row, column) = (at / shape.width, at % shape.width);
                row * window.stride[0] * padded.row + column * window.stride[1] * self.inputs
            });
            let mut sums = [[T::default(); LANES]; COLUMNS];
            let mut taps = weight.chunks_exact(self.inputs * LANES);
            for ky in 0..window.kernel[0] {
                for kx in 0..window.kernel[1] {
                    let offset = ky * window.dilation[0] * padded.row + kx * window.dilation[1] * self.inputs;
                    let Some(tap) = taps.next() else { continue };
                    let pixels = starts.map(|s| &padded.values[s + offset..][..self.inputs]);
                    multiply_add::<T, FUSED>(&mut sums, tap.as_chunks::<LANES>().0, pixels);
                }
            }
            for lane in 0..lanes {
                let target = &mut out.values_mut()[(first + lane) * plane..][..plane];
                for (t, sum) in target[pixel..].iter_mut().zip(&sums) {
                    *t = sum[lane] + self.bias[first + lane];
                }
            }
        }
    }
}

/// Up to [`LANES`] neighbouring output channels.
struct Block<'w, T> {
    weight: &'w [T],
    first: usize,
    lanes: usize,
}

struct Padded<T> {
    values: Vec<T>,
    /// Elements from one row to the next.
    row: usize,
}

/// One channel with the padding around it, the columns of each row by their remainder modulo the stride: `[row][remainder][column /
/// stride]`. What neighbouring outputs read is then side by side.
struct Lines<T> {
    values: Vec<T>,
    stride: usize,
    /// Columns of one remainder, and enough for the last tile to be read whole.
    phase: usize,
}

impl<T: Element> Lines<T> {
    /// With nothing but the padding.
    fn new(window: &Window, input: Shape) -> Self {
        let [top, left, bottom, right] = window.padding;
        let stride = window.stride[1];
        let phase = (left + input.width + right).div_ceil(stride) + TILE;
        Self { values: vec![T::default(); (top + input.height + bottom) * stride * phase], stride, phase }
    }

    /// Lays a channel into the padding.
    fn fill(&mut self, window: &Window, channel: &[T], width: usize) {
        let [top, left, ..] = window.padding;
        let row = self.stride * self.phase;
        for (line, target) in channel.chunks_exact(width).zip(self.values.chunks_exact_mut(row).skip(top)) {
            if self.stride == 1 {
                target[left..left + width].copy_from_slice(line);
                continue;
            }
            for first in 0..self.stride.min(width) {
                let at = left + first;
                let phase = &mut target[at % self.stride * self.phase + at / self.stride..];
                line[first..].iter().step_by(self.stride).zip(phase).for_each(|(v, to)| *to = *v);
            }
        }
    }

    /// What a tile of outputs from `first` on reads of a row at a tap that is `offset` columns away.
    #[inline(always)]
    fn from(&self, row: usize, offset: usize, first: usize) -> &[T] {
        let at = (row * self.stride + offset % self.stride) * self.phase + offset / self.stride + first;
        &self.values[at..at + TILE]
    }
}

/// `sums[p][lane] += pixels[p][i] * weights[i][lane]` over all i.
#[inline(always)]
fn multiply_add<T: Element, const FUSED: bool>(
    sums: &mut [[T; LANES]; COLUMNS],
    weights: &[[T; LANES]],
    pixels: [&[T]; COLUMNS],
) {
    let n = weights.len();
    let [a, b, c, d, e, f] = pixels.map(|p| &p[..n]);
    let mut local = *sums;
    for i in 0..n {
        let w = weights[i];
        for (p, v) in [a[i], b[i], c[i], d[i], e[i], f[i]].into_iter().enumerate() {
            for lane in 0..LANES {
                local[p][lane] = if FUSED { v.mul_add(w[lane], local[p][lane]) } else { v * w[lane] + local[p][lane] };
            }
        }
    }
    *sums = local;
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    /// Groups of one input are as many convolutions of one channel each.
    #[test]
    fn convolutions_by_channels_are_those_of_single_channels() {
        let seed = 53;
        println!("seed {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for (kernel, stride, padding, dilation, outputs, [height, width]) in [
            ([3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1, [9, 70]),
            ([5, 3], [2, 2], [2, 1, 1, 0], [1, 1], 1, [12, 33]),
            ([3, 3], [1, 3], [0, 2, 2, 4], [2, 3], 3, [11, 40]),
            ([1, 1], [2, 1], [0, 0, 0, 0], [1, 1], 2, [5, 32]),
        ] {
            let window = Window { kernel, stride, padding, dilation };
            let (channels, taps) = (3, kernel[0] * kernel[1]);
            let mut numbers = |n: usize| (0..n).map(|_| random.random::<f64>() - 0.5).collect::<Vec<_>>();
            let (weight, bias) = (numbers(channels * outputs * taps), numbers(channels * outputs));
            let x = numbers(channels * height * width);
            let input = Shape::new(channels, height, width);
            let out = |i: usize| {
                let [before, after] = [padding[i], padding[i + 2]];
                ([height, width][i] + before + after - (kernel[i] - 1) * dilation[i] - 1) / stride[i] + 1
            };
            let shape = Shape::new(channels * outputs, out(0), out(1));
            let conv = Conv2d { weight: weight.clone(), bias: bias.clone(), window, groups: channels };
            let found = PackedConv::<f64>::new(&conv, input).run(&Tensor::new(input, x.clone()).expect("as many"), shape);
            for o in 0..shape.channels {
                for y in 0..shape.height {
                    for column in 0..shape.width {
                        let mut sum = bias[o];
                        for tap in 0..taps {
                            let row = (y * stride[0] + tap / kernel[1] * dilation[0]).checked_sub(padding[0]);
                            let col = (column * stride[1] + tap % kernel[1] * dilation[1]).checked_sub(padding[1]);
                            if let (Some(row), Some(col)) = (row.filter(|r| *r < height), col.filter(|c| *c < width)) {
                                sum += weight[o * taps + tap] * x[(o / outputs * height + row) * width + col];
                            }
                        }
                        let got = found.values()[(o * shape.height + y) * shape.width + column];
                        assert!((got - sum).abs() < 1e-13, "{window:?} at {o} {y} {column}: {got}, not {sum}");
                    }
                }
            }
        }
    }
}

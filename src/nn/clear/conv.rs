//! The convolution of the clear evaluator.

use crate::nn::model::{Conv2d, Window};
use crate::nn::tensor::{Element, Shape, Tensor};

/// Output channels computed together: their sums stay in registers.
const LANES: usize = 16;
/// Neighbouring output columns computed together: each weight loaded is used this often.
const COLUMNS: usize = 4;

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
    pub fn new(conv: &Conv2d, input: Shape) -> Self {
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
    pub fn run(&self, x: &Tensor<T>, shape: Shape) -> Tensor<T> {
        let mut out = Tensor::zeros(shape);
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

    /// The inputs of one group with the padding around them: `[row][column][input of the group]`.
    fn padded(&self, x: &Tensor<T>, group: usize) -> Padded<T> {
        let Shape { height, width, .. } = x.shape();
        let [top, left, bottom, right] = self.window.padding;
        let row = (width + left + right) * self.inputs;
        let mut values = vec![T::default(); (height + top + bottom) * row];
        for c in 0..self.inputs {
            let source = x.channel(group * self.inputs + c);
            for (y, line) in source.chunks_exact(width).enumerate() {
                let target = &mut values[(y + top) * row + left * self.inputs..];
                for (x, v) in line.iter().enumerate() {
                    target[x * self.inputs + c] = *v;
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
        for y in 0..shape.height {
            for x in (0..shape.width).step_by(COLUMNS) {
                // The last tile of a row repeats the last column; the copies are not stored.
                let starts: [usize; COLUMNS] = std::array::from_fn(|p| {
                    let column = (x + p).min(shape.width - 1);
                    y * window.stride[0] * padded.row + column * window.stride[1] * self.inputs
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
                    let target = &mut out.values_mut()[((first + lane) * shape.height + y) * shape.width..][..shape.width];
                    for (t, sum) in target[x..].iter_mut().zip(&sums) {
                        *t = sum[lane] + self.bias[first + lane];
                    }
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

/// `sums[p][lane] += pixels[p][i] * weights[i][lane]` over all i.
#[inline(always)]
fn multiply_add<T: Element, const FUSED: bool>(
    sums: &mut [[T; LANES]; COLUMNS],
    weights: &[[T; LANES]],
    pixels: [&[T]; COLUMNS],
) {
    let n = weights.len();
    let [a, b, c, d] = pixels.map(|p| &p[..n]);
    let mut local = *sums;
    for i in 0..n {
        let w = weights[i];
        for (p, v) in [a[i], b[i], c[i], d[i]].into_iter().enumerate() {
            for lane in 0..LANES {
                local[p][lane] = if FUSED { v.mul_add(w[lane], local[p][lane]) } else { v * w[lane] + local[p][lane] };
            }
        }
    }
    *sums = local;
}

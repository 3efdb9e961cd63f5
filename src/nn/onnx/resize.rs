//! Resizing: to the nearest neighbour, with the coordinates of onnxruntime (in f32, each operation rounded as it is there), and linear by
//! whole factors.
//!
//! A coordinate that lies on the border of two pixels falls to one or the other by a rounding error, and so does an extent
//! that is an integer but for one. What is computed here more precisely would be another picture.

use super::attributes::Attributes;
use super::constant::axes_or_all;
use super::graph::{Importer, Known, Refusal, Traced, extent};
use super::op::Op;
use super::operators::constant;
use crate::nn::model::{OperatorSpec, Window};
use crate::nn::tensor::Shape;

/// How a coordinate of the result becomes one of the operand.
#[derive(Clone, Copy, PartialEq)]
enum Placement {
    Asymmetric,
    HalfPixel,
    PytorchHalfPixel,
    HalfPixelSymmetric,
    HalfPixelForNearest,
    AlignCorners,
    /// A part of the operand, from and to, in units of its extent less one.
    CropAndResize,
}

impl Placement {
    fn named(name: &str) -> Result<Self, Refusal> {
        Ok(match name {
            "asymmetric" => Self::Asymmetric,
            "" | "half_pixel" => Self::HalfPixel,
            "pytorch_half_pixel" => Self::PytorchHalfPixel,
            "half_pixel_symmetric" => Self::HalfPixelSymmetric,
            "tf_half_pixel_for_nn" => Self::HalfPixelForNearest,
            "align_corners" => Self::AlignCorners,
            "tf_crop_and_resize" => Self::CropAndResize,
            mode => {
                return Err(Refusal::Unsupported(format!("coordinate_transformation_mode={mode:?} is not known").into()));
            }
        })
    }

    /// Where element `i` of `size` comes from among `n`.
    fn coordinate(self, i: usize, along: &Resized) -> f32 {
        let (i, size, n, scale) = (i as f32, along.size as f32, along.n as f32, along.scale);
        match self {
            Self::Asymmetric => i / scale,
            Self::HalfPixel => (i + 0.5) / scale - 0.5,
            Self::HalfPixelForNearest => (i + 0.5) / scale,
            Self::PytorchHalfPixel if along.size > 1 => (i + 0.5) / scale - 0.5,
            Self::PytorchHalfPixel => 0.0,
            Self::HalfPixelSymmetric => {
                // The last sum is in f64 there.
                let offset = n / 2.0 * (1.0 - size / (scale * n));
                (f64::from(offset + (i + 0.5) / scale) - 0.5) as f32
            }
            Self::AlignCorners if along.size > 1 => i * (n - 1.0) / (size - 1.0),
            Self::AlignCorners => 0.0,
            Self::CropAndResize => {
                let [start, end] = along.roi;
                if along.size > 1 {
                    start * (n - 1.0) + (i * (end - start) * (n - 1.0)) / (size - 1.0)
                } else {
                    (0.5 * f64::from(start + end) * f64::from(n - 1.0)) as f32
                }
            }
        }
    }
}

/// Which pixel a coordinate between two takes.
#[derive(Clone, Copy)]
enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
    /// Of the operators before opset 11: up where the picture shrinks, else down.
    Old,
}

impl Rounding {
    fn named(name: &str) -> Result<Self, Refusal> {
        Ok(match name {
            "" | "round_prefer_floor" => Self::PreferFloor,
            "round_prefer_ceil" => Self::PreferCeil,
            "floor" => Self::Floor,
            "ceil" => Self::Ceil,
            mode => return Err(Refusal::Unsupported(format!("nearest_mode={mode:?} is not known").into())),
        })
    }

    /// Whether a coordinate is so near to where the pixel changes that the last bits decide.
    fn wavers(self, at: f32) -> bool {
        let from = match self {
            Self::PreferFloor | Self::PreferCeil => at - 0.5,
            _ => at,
        };
        (from - from.round()).abs() < 1e-4
    }

    fn round(self, at: f32, scale: f32) -> f32 {
        match self {
            Self::PreferFloor if at == at.trunc() + 0.5 => at.floor(),
            Self::PreferFloor | Self::PreferCeil => at.round(),
            Self::Floor => at.floor(),
            Self::Ceil => at.ceil(),
            Self::Old if scale < 1.0 => at.ceil(),
            Self::Old => at.trunc(),
        }
    }
}

/// One axis: from `n` elements to `size`.
#[derive(Clone, Copy)]
struct Resized {
    n: usize,
    size: usize,
    scale: f32,
    roi: [f32; 2],
}

impl Resized {
    /// Whether the extent that the scale asks for is no whole number.
    fn cut(&self) -> bool {
        self.scale * self.n as f32 != self.size as f32
    }
}

impl Importer<'_> {
    pub(super) fn resize(
        &mut self,
        x: &Traced,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
        name: &str,
    ) -> Result<Traced, Refusal> {
        let linear = matches!(a.text("mode"), "linear" | "bilinear");
        if !linear && !matches!(a.text("mode"), "" | "nearest") {
            let why = format!("{} interpolation is not supported: use mode=\"nearest\" or \"linear\"", a.text("mode"));
            return Err(Refusal::Unsupported(why.into()));
        }
        // Upsample, and Resize of opset 10, have their scales second; Resize has the part to take second, scales third and
        // sizes fourth.
        let old = a.0.op() == Op::Upsample || operands.len() == 2;
        let some = |i: usize| Ok::<_, Refusal>(constant(operands, i)?.filter(|c| c.len() > 0));
        let (scales, sizes) = if old { (some(1)?, None) } else { (some(2)?, some(3)?) };
        let (placement, rounding) = match old {
            true => (Placement::Asymmetric, Rounding::Old),
            false => (Placement::named(a.text("coordinate_transformation_mode"))?, Rounding::named(a.text("nearest_mode"))?),
        };
        let axes = axes_or_all(a.ints("axes"), x.dims.len())?;
        let count = scales.as_ref().or(sizes.as_ref()).map_or(0, |c| c.len());
        if count != axes.len() || (scales.is_some() && sizes.is_some()) {
            return Err(Refusal::Bad(format!("{count} scales or sizes for {} axes; one of both is needed", axes.len())));
        }
        let extents: Vec<usize> = axes.iter().map(|at| x.dims[*at]).collect();
        let mut resized = match (&scales, &sizes) {
            (Some(scales), _) => scaled(&extents, &scales.real())?,
            (_, Some(sizes)) => sized(&extents, &sizes.real(), a.text("keep_aspect_ratio_policy"))?,
            _ => return Err("it has neither scales nor sizes".into()),
        };
        // The same extents are the same picture, whatever the scales say.
        if resized.iter().all(|r| r.n == r.size) && placement != Placement::CropAndResize {
            return Ok(x.clone());
        }
        if placement == Placement::CropAndResize {
            let roi = some(1)?.map(|roi| roi.real()).unwrap_or_default();
            if roi.len() != 2 * resized.len() {
                return Err(Refusal::Bad(format!("its roi has {} numbers for {} axes", roi.len(), resized.len())));
            }
            let (starts, ends) = roi.split_at(resized.len());
            for ((along, start), end) in resized.iter_mut().zip(starts).zip(ends) {
                along.roi = [*start as f32, *end as f32];
            }
        }
        if linear {
            if a.int("antialias", 0) != 0 || a.int("exclude_outside", 0) != 0 {
                return Err(Refusal::Unsupported("linear interpolation with antialias or exclude_outside".into()));
            }
            let changed = axes.into_iter().zip(resized).filter(|(_, along)| along.scale != 1.0);
            return self.interpolated(x, &changed.collect::<Vec<_>>(), placement, name);
        }
        let outside = a.float("extrapolation_value", 0.0);
        let mut x = x.clone();
        for (at, along) in axes.into_iter().zip(resized) {
            // An axis of scale 1 is kept whole, whatever part of it the file names.
            if along.scale == 1.0 {
                continue;
            }
            if placement == Placement::HalfPixelSymmetric
                && (0..along.size).any(|i| rounding.wavers(placement.coordinate(i, &along)))
                && along.cut()
            {
                let why = "half_pixel_symmetric of a size that was rounded comes to lie between two pixels, and runtimes differ in which they take";
                return Err(Refusal::Unsupported(why.into()));
            }
            let pick = |i: usize| {
                let at = placement.coordinate(i, &along);
                let last = (along.n - 1) as f32;
                if placement == Placement::CropAndResize && !(0.0..=last).contains(&at) {
                    return None;
                }
                Some(rounding.round(at, along.scale).clamp(0.0, last) as usize)
            };
            x = self.along(&x, at, (0..along.size).map(pick).collect(), outside, name)?;
        }
        Ok(x)
    }
}

/// An axis whose elements are weighted sums of neighbouring ones, the same weights at every place: of `picks`, a window of these weights at
/// every `stride`-th.
struct Weighted {
    picks: Vec<Option<usize>>,
    weights: Vec<f64>,
    stride: usize,
}

impl Weighted {
    fn unchanged(n: usize) -> Self {
        Self { picks: (0..n).map(Some).collect(), weights: vec![1.0], stride: 1 }
    }

    /// Linear interpolation, where an axis grows or shrinks by a whole factor; none else.
    ///
    /// Growing by s, element i comes from `(i + c) / s`: elements lie s apart with zeros between, those at the ends once more beyond
    /// them, under a triangle 2 s wide. Shrinking, it comes from `s i + c`: from the two elements beside that.
    fn linear(along: &Resized, placement: Placement) -> Option<Self> {
        let (n, size) = (along.n as i64, along.size as i64);
        let whole = |a: i64, b: i64| a.checked_rem(b).filter(|rest| *rest == 0).map(|_| a / b).filter(|s| *s > 0);
        let grows = size > n;
        let (s, c) = match placement {
            Placement::AlignCorners if grows => (whole(size - 1, n - 1)?, 0.0),
            Placement::AlignCorners if size > 1 => (whole(n - 1, size - 1)?, 0.0),
            Placement::Asymmetric | Placement::HalfPixel | Placement::PytorchHalfPixel | Placement::HalfPixelSymmetric => {
                let s = if grows { whole(size, n)? } else { whole(n, size)? };
                // A scale that is not quite that of the extents moves every place.
                let exact = if grows { s as f32 } else { 1.0 / s as f32 };
                if (along.scale - exact).abs() > 1e-6 * exact || (placement == Placement::PytorchHalfPixel && size == 1) {
                    return None;
                }
                let half = (s - 1) as f64 / 2.0;
                (
                    s,
                    if placement == Placement::Asymmetric {
                        0.0
                    } else if grows {
                        -half
                    } else {
                        half
                    },
                )
            }
            _ => return None,
        };
        let inside = |k: i64| k.clamp(0, n - 1) as usize;
        if !grows {
            let (first, part) = (c.floor() as i64, c - c.floor());
            let pair = |i: i64| [s * i + first, s * i + first + 1].map(|k| Some(inside(k)));
            return Some(if part == 0.0 {
                Self { picks: (0..size).map(|i| Some(inside(s * i + first))).collect(), weights: vec![1.0], stride: 1 }
            } else {
                Self { picks: (0..size).flat_map(pair).collect(), weights: vec![1.0 - part, part], stride: 2 }
            });
        }
        let weight = |t: i64| 1.0 - (t as f64 - c).abs() / s as f64;
        let taps: Vec<i64> = (-2 * s..=2 * s).filter(|t| weight(*t) > 0.0).collect();
        let pick = |j: i64| (j.rem_euclid(s) == 0).then(|| inside(j.div_euclid(s)));
        let (first, last) = (*taps.first()?, *taps.last()?);
        Some(Self {
            picks: (first..size + last).map(pick).collect(),
            weights: taps.iter().map(|t| weight(*t)).collect(),
            stride: 1,
        })
    }
}

/// An axis that grows or shrinks by any factor p / q: element `p k + j` comes from beside `q k` plus a place of j's own. So a window at every
/// q-th element makes p results, one for each j.
struct Phased {
    /// q.
    stride: usize,
    /// The first tap is so far from `q k`.
    first: i64,
    /// The taps' weights, by j.
    weights: Vec<Vec<f64>>,
}

impl Phased {
    /// None where the file says what lies outside the picture.
    fn linear(along: &Resized, placement: Placement) -> Option<Self> {
        let Resized { n, size, scale, .. } = *along;
        // A scale that is not quite that of the extents moves every place: each element is one of its own then.
        let exact = size as f32 / n as f32;
        let regular = (scale - exact).abs() <= 1e-6 * exact;
        let half = match placement {
            Placement::CropAndResize | Placement::HalfPixelForNearest => return None,
            Placement::Asymmetric if regular => Some((size, n, 0.0)),
            Placement::HalfPixel | Placement::HalfPixelSymmetric if regular => Some((size, n, 0.5)),
            Placement::PytorchHalfPixel if regular && size > 1 => Some((size, n, 0.5)),
            Placement::AlignCorners if size > 1 && n > 1 => Some((size - 1, n - 1, 0.0)),
            _ => None,
        };
        let (stride, places): (usize, Vec<f64>) = match half {
            Some((grown, from, half)) => {
                let common = gcd(grown, from);
                let (p, q) = (grown / common, from / common);
                (q, (0..p).map(|j| (j as f64 + half) * q as f64 / p as f64 - half).collect())
            }
            None => {
                let last = (n - 1) as f64;
                (n, (0..size).map(|j| f64::from(placement.coordinate(j, along)).clamp(0.0, last)).collect())
            }
        };
        let least = places.iter().fold(f64::INFINITY, |m, x| m.min(x.floor())) as i64;
        let most = places.iter().fold(f64::NEG_INFINITY, |m, x| m.max(x.ceil())) as i64;
        let weights = |x: &f64| (least..=most).map(|tap| (1.0 - (x - tap as f64).abs()).max(0.0)).collect();
        Some(Self { stride, first: least, weights: places.iter().map(weights).collect() })
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Importer<'_> {
    /// Rows (axis 2) or columns (axis 3) of a picture by [`Phased`]: beyond its ends it goes on as it ends.
    fn phased(&mut self, x: &Traced, at: usize, along: &Resized, by: &Phased, name: &str) -> Result<Traced, Refusal> {
        let (phases, taps) = (by.weights.len(), by.weights.first().map_or(0, Vec::len));
        let windows = along.size.div_ceil(phases);
        let last = (along.n - 1) as i64;
        let reach = (windows - 1) * by.stride + taps;
        let pick = |i: usize| Some((i as i64 + by.first).clamp(0, last) as usize);
        let spread = self.along(x, at, (0..reach).map(pick).collect(), 0.0, name)?;
        let (value, shape) = self.picture(&spread, name)?;
        let of_axis = |rows: usize, columns: usize| if at == 2 { [rows, 1] } else { [1, columns] };
        let window =
            Window { kernel: of_axis(taps, taps), stride: of_axis(by.stride, by.stride), padding: [0; 4], dilation: [1, 1] };
        let (height, width) = window.output(shape.height, shape.width).ok_or("nothing is left of its result")?;
        let channels = shape.channels;
        let operator = OperatorSpec::Conv2d {
            weight: self.keep_values(
                vec![channels * phases, 1, window.kernel[0], window.kernel[1]],
                by.weights.concat().repeat(channels),
            )?,
            bias: None,
            stride: window.stride,
            padding: window.padding,
            dilation: window.dilation,
            groups: channels,
        };
        let made = self.emit_picture(name, &[value], operator, Shape::new(channels * phases, height, width))?;
        // The results of a window one after the other along the axis.
        let apart = Traced { dims: vec![1, channels, phases, height, width], ..made };
        let (order, dims) = match at {
            2 => ([0, 1, 3, 2, 4], vec![1, channels, height * phases, width]),
            _ => ([0, 1, 3, 4, 2], vec![1, channels, height, width * phases]),
        };
        let together = Traced { dims, ..self.transposed(&apart, &order, name)? };
        self.along(&together, at, (0..along.size).map(Some).collect(), 0.0, name)
    }

    /// Linear interpolation of a picture: convolutions of each channel by itself.
    fn interpolated(
        &mut self,
        x: &Traced,
        axes: &[(usize, Resized)],
        placement: Placement,
        name: &str,
    ) -> Result<Traced, Refusal> {
        if x.dims.len() != 4 || x.dims[0] != 1 || axes.iter().any(|(at, _)| *at < 2) {
            return Err(Refusal::Unsupported("linear interpolation of others than the rows and columns of pictures".into()));
        }
        let mut x = x.clone();
        let mut whole = Vec::new();
        for (at, along) in axes {
            if let Some(weighted) = Weighted::linear(along, placement) {
                whole.push((*at, weighted));
            } else if let Some(by) = Phased::linear(along, placement) {
                x = self.phased(&x, *at, along, &by, name)?;
            } else {
                let why = "linear interpolation of a part of the picture (tf_crop_and_resize)";
                return Err(Refusal::Unsupported(why.into()));
            }
        }
        if whole.is_empty() {
            return Ok(x);
        }
        let channels = x.dims[1];
        let mut weighted = [Weighted::unchanged(x.dims[2]), Weighted::unchanged(x.dims[3])];
        whole.into_iter().for_each(|(at, by)| weighted[at - 2] = by);
        let [rows, columns] = &weighted;
        let spread = self.along(&x, 2, rows.picks.clone(), 0.0, name)?;
        let spread = self.along(&spread, 3, columns.picks.clone(), 0.0, name)?;
        let kernel = [rows.weights.len(), columns.weights.len()];
        if kernel == [1, 1] {
            return Ok(spread);
        }
        let window = Window { kernel, stride: [rows.stride, columns.stride], padding: [0; 4], dilation: [1, 1] };
        let (value, shape) = self.picture(&spread, name)?;
        let (height, width) = window.output(shape.height, shape.width).ok_or("nothing is left of its result")?;
        let taps: Vec<f64> = rows.weights.iter().flat_map(|r| columns.weights.iter().map(move |c| r * c)).collect();
        let operator = OperatorSpec::Conv2d {
            weight: self.keep_values(vec![channels, 1, kernel[0], kernel[1]], taps.repeat(channels))?,
            bias: None,
            stride: window.stride,
            padding: window.padding,
            dilation: window.dilation,
            groups: channels,
        };
        self.emit_picture(name, &[value], operator, Shape::new(channels, height, width))
    }
}

/// What scales make of extents.
fn scaled(extents: &[usize], scales: &[f64]) -> Result<Vec<Resized>, Refusal> {
    let one = |(&n, &scale): (&usize, &f64)| {
        let scale = scale as f32;
        let size = Some(scale * n as f32).filter(|s| s.is_finite()).and_then(|s| extent(s as i64));
        let size = size.ok_or_else(|| format!("an axis of {n} is resized by {scale}"))?;
        Ok(Resized { n, size, scale, roi: [0.0, 1.0] })
    };
    extents.iter().zip(scales).map(one).collect()
}

/// What sizes make of extents: with a policy they are limits, and all axes are resized by one scale.
fn sized(extents: &[usize], sizes: &[f64], policy: &str) -> Result<Vec<Resized>, Refusal> {
    let impossible = |n: usize, size: f64| Refusal::Bad(format!("an axis of {n} is resized to {size}"));
    let one = |(&n, &size): (&usize, &f64)| {
        let size = extent(size as i64).ok_or_else(|| impossible(n, size))?;
        Ok(Resized { n, size, scale: size as f32 / n as f32, roi: [0.0, 1.0] })
    };
    let mut resized = extents.iter().zip(sizes).map(one).collect::<Result<Vec<_>, Refusal>>()?;
    let scales = resized.iter().map(|r| r.scale);
    let common = match policy {
        "" | "stretch" => None,
        "not_larger" => scales.reduce(f32::min),
        "not_smaller" => scales.reduce(f32::max),
        policy => return Err(Refusal::Unsupported(format!("keep_aspect_ratio_policy={policy:?} is not known").into())),
    };
    if let Some(scale) = common {
        for along in &mut resized {
            let size = (scale * along.n as f32).round();
            along.scale = scale;
            along.size = extent(size as i64).ok_or_else(|| impossible(along.n, size.into()))?;
        }
    }
    Ok(resized)
}

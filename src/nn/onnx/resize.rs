//! Resizing to the nearest neighbour, with the coordinates of onnxruntime: in f32, each operation rounded as it is there.
//!
//! A coordinate that lies on the border of two pixels falls to one or the other by a rounding error, and so does an extent
//! that is an integer but for one. What is computed here more precisely would be another picture.

use super::attributes::Attributes;
use super::constant::axes_or_all;
use super::graph::{Importer, Known, Refusal, Traced, extent};
use super::op::Op;
use super::operators::constant;

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
        if !matches!(a.text("mode"), "" | "nearest") {
            let why = format!("{} interpolation is not supported: use mode=\"nearest\"", a.text("mode"));
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

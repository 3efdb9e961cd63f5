//! Functions of single elements.

use crate::circuits::polynomial::Chebyshev;
use crate::nn::model::{ActivationForm, ActivationFunction, FittedActivation};
use crate::nn::tensor::{Element, Tensor};

/// Elements computed together, so that the recurrence of one does not wait for itself.
const LANES: usize = 32;
/// As many where registers are twice as wide and twice as many.
const WIDE_LANES: usize = 64;

/// A function of each element, perhaps with numbers of its channel.
#[derive(Debug, Clone)]
pub(super) enum Pointwise<T> {
    /// Monomial coefficients, constant first, `[channel][degree + 1]`, or one row for all.
    Polynomial { rows: Vec<Vec<T>> },
    /// `factor x + offset`, `[channel]`.
    Affine { factor: Vec<T>, offset: Vec<T> },
    /// An activation as it is defined, evaluated in f64.
    Exact(ActivationFunction),
    /// `p(x)`, or several one after the other.
    Series(Vec<Series<T>>),
    /// `x (1 + s(x / bound)) / 2` with s the stages one after the other.
    Sign { stages: Vec<Series<T>>, bound: T },
}

/// A polynomial in Chebyshev basis: `t = x slope + offset`, `sum_k coefficients[k] T_k(t)`.
#[derive(Debug, Clone)]
pub(super) struct Series<T> {
    /// Of the odd ones alone where the others are 0.
    coefficients: Vec<T>,
    odd: bool,
    slope: T,
    offset: T,
}

impl<T: Element> Series<T> {
    fn new(p: &Chebyshev) -> Self {
        let [a, b] = p.interval();
        let all = p.coefficients();
        let odd = all.iter().step_by(2).all(|c| *c == 0.0);
        let those: Vec<f64> = if odd { all.iter().skip(1).step_by(2).copied().collect() } else { all.to_vec() };
        Self {
            coefficients: super::cast(&those),
            odd,
            slope: T::from_f64(2.0 / (b - a)),
            offset: T::from_f64(-(a + b) / (b - a)),
        }
    }

    /// The polynomial of every value.
    fn apply(&self, values: &mut [T]) {
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            if std::is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has what the function needs.
                unsafe { self.apply_avx512(values) };
                return;
            }
            // SAFETY: the processor has what the function needs.
            unsafe { self.apply_avx2(values) };
            return;
        }
        self.apply_lanes::<false, LANES>(values);
    }

    /// [`Self::apply_lanes`] compiled for wide registers.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn apply_avx2(&self, values: &mut [T]) {
        self.apply_lanes::<true, LANES>(values);
    }

    /// [`Self::apply_lanes`] compiled for the widest.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    fn apply_avx512(&self, values: &mut [T]) {
        self.apply_lanes::<true, WIDE_LANES>(values);
    }

    /// Clenshaw's recurrence for all elements of a chunk at once. Odd polynomials take half the steps: `T_(2k+3) = 2 T_2 T_(2k+1) - T_(2k-1)`.
    /// `FUSED` rounds each product and sum once, which is fast only where the processor does it.
    #[inline(always)]
    fn apply_lanes<const FUSED: bool, const LANES: usize>(&self, values: &mut [T]) {
        for chunk in values.chunks_mut(LANES) {
            let (mut t, mut b1, mut b2) = ([T::default(); LANES], [T::default(); LANES], [T::default(); LANES]);
            for (t, v) in t.iter_mut().zip(chunk.iter()) {
                *t = *v * self.slope + self.offset;
            }
            let (first, rest) = (self.coefficients[0], &self.coefficients[1..]);
            // Twice the number that a step multiplies by: t, or T_2.
            let mut twice = t.map(|t| t + t);
            if self.odd {
                let two = T::from_f64(2.0);
                twice = twice.map(|t| t * t - two);
            }
            for c in rest.iter().rev() {
                for ((b1, b2), twice) in b1.iter_mut().zip(&mut b2).zip(&twice) {
                    let next = if FUSED { twice.mul_add(*b1, *c - *b2) } else { *twice * *b1 + (*c - *b2) };
                    (*b1, *b2) = (next, *b1);
                }
            }
            for (i, v) in chunk.iter_mut().enumerate() {
                *v = if self.odd {
                    // The last step, and T_1 = T_(-1).
                    t[i] * (twice[i] * b1[i] - b2[i] + first - b1[i])
                } else {
                    t[i] * b1[i] - b2[i] + first
                };
            }
        }
    }
}

impl<T: Element> Pointwise<T> {
    /// The polynomials fitted to an activation.
    pub(super) fn fitted(fitted: &FittedActivation) -> Self {
        match &fitted.form {
            ActivationForm::Chebyshev(p) => Self::Series(vec![Series::new(p)]),
            ActivationForm::Composite(stages) => Self::Series(stages.iter().map(Series::new).collect()),
            ActivationForm::Sign { stages, bound } => {
                Self::Sign { stages: stages.iter().map(Series::new).collect(), bound: T::from_f64(*bound) }
            }
        }
    }

    /// Of every element.
    pub(super) fn run(&self, x: &Tensor<T>) -> Tensor<T> {
        let mut out = x.clone();
        let plane = x.shape().plane();
        match self {
            Self::Polynomial { rows } => {
                for (c, values) in out.values_mut().chunks_exact_mut(plane).enumerate() {
                    let row = &rows[c % rows.len()];
                    for v in values {
                        *v = row.iter().rev().fold(T::default(), |sum, k| sum * *v + *k);
                    }
                }
            }
            Self::Affine { factor, offset } => {
                for ((values, f), o) in out.values_mut().chunks_exact_mut(plane).zip(factor).zip(offset) {
                    values.iter_mut().for_each(|v| *v = *v * *f + *o);
                }
            }
            Self::Exact(ActivationFunction::Relu) => bound(out.values_mut(), T::default(), None),
            Self::Exact(ActivationFunction::Clip { min, max }) => {
                bound(out.values_mut(), T::from_f64(*min), Some(T::from_f64(*max)));
            }
            Self::Exact(function) => {
                out.values_mut().iter_mut().for_each(|v| *v = T::from_f64(function.value(v.to_f64())));
            }
            Self::Series(stages) => stages.iter().for_each(|p| p.apply(out.values_mut())),
            Self::Sign { stages, bound } => {
                let half = T::from_f64(0.5);
                let mut sign: Vec<T> = x.values().iter().map(|v| *v / *bound).collect();
                stages.iter().for_each(|p| p.apply(&mut sign));
                out.values_mut().iter_mut().zip(sign).for_each(|(v, s)| *v = *v * (s * half + half));
            }
        }
        out
    }
}

/// Brings every value to `least` or more and `most` or less; what is no number becomes `least`, as by
/// [`ActivationFunction::value`].
fn bound<T: Element>(values: &mut [T], least: T, most: Option<T>) {
    values.iter_mut().for_each(|v| *v = if *v > least { *v } else { least });
    if let Some(most) = most {
        values.iter_mut().for_each(|v| *v = if *v < most { *v } else { most });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::tensor::Shape;

    /// The vector form against [`FittedActivation::value`], over a chunk and a tail.
    #[test]
    fn fitted_forms_agree_with_their_definition() {
        let p = Chebyshev::interpolate(|x| x.max(0.0), 63, [-3.0, 5.0]).expect("a polynomial");
        let stage = Chebyshev::new(vec![0.0, 1.125, 0.0, -0.125], [-1.0, 1.0]).expect("a polynomial");
        let chain = vec![p.clone().scaled(0.2, 0.0).expect("a polynomial"), stage.clone(), stage.clone()];
        let sign = ActivationForm::Sign { stages: vec![stage; 5], bound: 5.0 };
        for form in [ActivationForm::Chebyshev(p), ActivationForm::Composite(chain), sign] {
            let fitted = FittedActivation { function: ActivationFunction::Relu, form };
            let x: Vec<f64> = (0..77).map(|i| -3.0 + 8.0 * f64::from(i) / 76.0).collect();
            let tensor = Tensor::new(Shape::new(7, 11, 1), x.clone()).expect("77 values");
            let y = Pointwise::<f64>::fitted(&fitted).run(&tensor);
            let single = Pointwise::<f32>::fitted(&fitted).run(&tensor.cast());
            for ((x, y), z) in x.iter().zip(y.values()).zip(single.values()) {
                assert!((fitted.value(*x) - y).abs() < 1e-12, "{x}: {y}");
                assert!((y - f64::from(*z)).abs() < 1e-4, "{x}: {y} in f64, {z} in f32");
            }
        }
    }
}

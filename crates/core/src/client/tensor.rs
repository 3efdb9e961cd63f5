//! A tensor of one picture: channels, rows, columns.

use std::fmt;
use zeroize::Zeroize;

/// Channels, height and width; a vector of n values is `n x 1 x 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Shape {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Shape {
    /// The shape of `channels` planes of `height x width`.
    pub fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// True if there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of one channel.
    pub fn plane(&self) -> usize {
        self.height * self.width
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// What was needed and what came.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a tensor of {expected} was expected, {found} came")]
pub struct ShapeMismatch {
    /// What was needed.
    pub expected: Shape,
    /// What came.
    pub found: Shape,
}

/// The two number types a tensor may hold: f32 to be fast, f64 to be an oracle.
pub trait Element: num::Real {}
impl<T: num::Real> Element for T {}

pub(crate) mod num {
    use std::ops::{Add, AddAssign, Div, Mul, Sub};

    /// f32 or f64.
    #[allow(unnameable_types, reason = "sealed: the kernels exist for these two types alone")]
    pub trait Real:
        Copy
        + Default
        + PartialOrd
        + Send
        + Sync
        + std::fmt::Debug
        + Add<Output = Self>
        + Sub<Output = Self>
        + Mul<Output = Self>
        + Div<Output = Self>
        + AddAssign
        + 'static
    {
        /// Rounds to this type.
        fn from_f64(x: f64) -> Self;
        /// Exact.
        fn to_f64(self) -> f64;
        /// `self * a + b`, rounded once.
        fn mul_add(self, a: Self, b: Self) -> Self;
    }

    impl Real for f32 {
        fn from_f64(x: f64) -> Self {
            x as f32
        }
        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            f32::mul_add(self, a, b)
        }
        fn to_f64(self) -> f64 {
            self.into()
        }
    }

    impl Real for f64 {
        fn from_f64(x: f64) -> Self {
            x
        }
        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            f64::mul_add(self, a, b)
        }
        fn to_f64(self) -> f64 {
            self
        }
    }
}

/// Values in the order `[channel][row][column]`. Whoever holds one of a picture that is nobody else's wraps it in
/// `Zeroizing`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<T = f32> {
    shape: Shape,
    values: Vec<T>,
}

impl<T: Zeroize> Zeroize for Tensor<T> {
    fn zeroize(&mut self) {
        // The length stays.
        self.values.iter_mut().zeroize();
    }
}

impl<T: Element> Tensor<T> {
    /// A tensor of the given values, which must be as many as the shape says.
    ///
    /// # Errors
    /// [`ShapeMismatch`] where there are not as many values as the shape has.
    pub fn new(shape: Shape, values: Vec<T>) -> Result<Self, ShapeMismatch> {
        if values.len() != shape.len() {
            return Err(ShapeMismatch { expected: shape, found: Shape::new(values.len(), 1, 1) });
        }
        Ok(Self { shape, values })
    }

    /// All zeros.
    pub fn zeros(shape: Shape) -> Self {
        Self { shape, values: vec![T::default(); shape.len()] }
    }

    /// Its shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// All values, `[channel][row][column]`.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// All values, `[channel][row][column]`.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// One channel, `[row][column]`.
    pub fn channel(&self, c: usize) -> &[T] {
        &self.values[c * self.shape.plane()..(c + 1) * self.shape.plane()]
    }

    /// One value.
    pub fn at(&self, c: usize, y: usize, x: usize) -> T {
        self.values[(c * self.shape.height + y) * self.shape.width + x]
    }

    /// The same values as a vector `n x 1 x 1`.
    pub fn flatten(self) -> Self {
        Self { shape: Shape::new(self.values.len(), 1, 1), values: self.values }
    }

    /// The same values in another number type.
    pub fn cast<U: Element>(&self) -> Tensor<U> {
        Tensor { shape: self.shape, values: self.values.iter().map(|v| U::from_f64(v.to_f64())).collect() }
    }

    /// Index of the largest value (the first one of equals), none if there is no value.
    pub fn argmax(&self) -> Option<usize> {
        let mut best = None;
        for (i, v) in self.values.iter().enumerate() {
            if best.is_none_or(|b: usize| *v > self.values[b]) {
                best = Some(i);
            }
        }
        best
    }
}

//! Convolutions in the place of MaxPool, fitted to what it gives.
//!
//! A maximum of a window is an activation for every step of it (docs/decisions/032), each bootstrapped; a convolution of each channel by
//! itself is one level. Its weights are those that come nearest, by least squares, to the maxima that some pictures make, labels unused.
//! Then every later convolution is scaled and shifted, channel by channel, so that its results have the mean and deviation that they have
//! behind maxima: the same idea mends merged networks (Jordan et al. 2022, REPAIR). What the network loses is measured on other pictures.

use super::clear::Network;
use super::model::{Model, Node, Operator, Window};
use super::simulate::{ExactAnswers, Judge, Labelled, NoiseLevels, SimulateError, Simulation, simulate_against};
use super::tensor::{ShapeMismatch, Tensor};
use crate::circuits::approximation::{cholesky, solve_cholesky};
use rayon::prelude::*;
use std::collections::HashMap;

/// The note in a model's [`Model::training`]: the nodes that an ONNX file has as MaxPool, made of maxima of pairs.
pub const MAX_POOLS: &str = "max_pools";
/// The note: the nodes that are convolutions in their place.
pub const STAND_INS: &str = "max_pool_stand_ins";
/// Fewest pictures: half of them are fitted to.
pub const LEAST_PICTURES: usize = 8;
/// Most pictures that are fitted to: their windows are many more than weights.
const MOST_FITTED: usize = 128;
/// Most elements of the largest tensor of all pictures that are fitted to.
const MOST_ELEMENTS: usize = 1 << 27;
/// Deviations below this part of the largest of a layer are of channels without content.
const DEAD: f64 = 1e-4;
/// Of the mean square of a tap, what is added to every one so that taps that are alike share their weight.
const RIDGE: f64 = 1e-9;

/// Why convolutions cannot be fitted.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum PoolingError {
    /// Nothing to fit.
    #[error("the network has no MaxPool that a convolution could stand for")]
    NoPools,
    /// Too few pictures.
    #[error(
        "{found} pictures, where convolutions for MaxPool are fitted to one half of at least {LEAST_PICTURES} and measured on the other"
    )]
    TooFewPictures {
        /// How many came.
        found: usize,
    },
    /// A picture that the network cannot be evaluated on.
    #[error(transparent)]
    Simulate(#[from] SimulateError),
}

/// A convolution that stands for a MaxPool.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StandIn {
    /// The node.
    pub node: String,
    /// The part of the variance of the maxima that it does not explain, on the pictures that it was fitted to.
    pub unexplained: f64,
}

/// A network with convolutions in the place of its MaxPools.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The network.
    pub model: Model,
    /// The convolutions, in the network's order.
    pub stand_ins: Vec<StandIn>,
    /// What becomes of the answers of the network with MaxPool, on the pictures that nothing was fitted to.
    pub loss: Simulation,
}

/// The nodes that an ONNX file has as MaxPool and that were read as maxima: their layers are called after them, with a dot behind.
pub fn max_pools(model: &Model) -> Vec<String> {
    model.training().get(MAX_POOLS).unwrap_or_default()
}

/// A convolution to fit.
struct Pool {
    index: usize,
    window: Window,
}

/// Sums over windows of one channel: of the products of any two taps (the last one is 1), of the taps times the maximum, and of the maximum
/// itself and its square.
#[derive(Clone)]
struct Sums {
    taps: Vec<Vec<f64>>,
    with_maximum: Vec<f64>,
    square: f64,
    count: f64,
}

impl Sums {
    fn new(taps: usize) -> Self {
        let triangle = (0..=taps).map(|i| vec![0.0; i + 1]).collect();
        Self { taps: triangle, with_maximum: vec![0.0; taps + 1], square: 0.0, count: 0.0 }
    }

    /// `taps`: those of a window, and 1.
    fn add(&mut self, taps: &[f64], maximum: f64) {
        for ((row, y), a) in self.taps.iter_mut().zip(&mut self.with_maximum).zip(taps) {
            row.iter_mut().zip(taps).for_each(|(sum, b)| *sum += a * b);
            *y += a * maximum;
        }
        self.square += maximum * maximum;
        self.count += 1.0;
    }

    fn merge(mut self, other: &Self) -> Self {
        let rows = self.taps.iter_mut().flatten().zip(other.taps.iter().flatten());
        rows.for_each(|(a, b)| *a += b);
        self.with_maximum.iter_mut().zip(&other.with_maximum).for_each(|(a, b)| *a += b);
        Self { square: self.square + other.square, count: self.count + other.count, ..self }
    }

    /// The weights of the taps and the bias that come nearest; none where nothing was seen.
    fn nearest(&self) -> Option<Vec<f64>> {
        let n = self.taps.len();
        let ridge = RIDGE * self.taps.iter().filter_map(|row| row.last()).sum::<f64>() / n as f64;
        let mut rows = self.taps.clone();
        rows.iter_mut().filter_map(|row| row.last_mut()).for_each(|square| *square += ridge);
        Some(solve_cholesky(&cholesky(rows)?, self.with_maximum.clone()))
    }

    /// Sums of squares: of what weights leave of the maxima, and of the maxima about their mean.
    fn left(&self, weights: &[f64]) -> [f64; 2] {
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut square = self.square - 2.0 * product(weights, &self.with_maximum);
        for (i, row) in self.taps.iter().enumerate() {
            let twice = 2.0 * product(row, &weights[..=i]) - row[i] * weights[i];
            square += weights[i] * twice;
        }
        let sum = self.with_maximum.last().copied().unwrap_or(0.0);
        [square.max(0.0), (self.square - sum * sum / self.count.max(1.0)).max(0.0)]
    }
}

/// The elements of a channel under each window, zeros outside, and the greatest of those inside.
fn windows(channel: &[f32], [height, width]: [usize; 2], window: &Window, mut each: impl FnMut(&[f64], f64)) {
    let Some((rows, columns)) = window.output(height, width) else { return };
    let [kh, kw] = window.kernel;
    let [top, left, ..] = window.padding;
    let mut taps = vec![1.0; kh * kw + 1];
    for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
        let mut greatest = f64::NEG_INFINITY;
        for (t, tap) in taps[..kh * kw].iter_mut().enumerate() {
            let row = (y * window.stride[0] + t / kw * window.dilation[0]).checked_sub(top).filter(|row| *row < height);
            let column = (x * window.stride[1] + t % kw * window.dilation[1]).checked_sub(left).filter(|column| *column < width);
            *tap = match row.zip(column) {
                Some((row, column)) => {
                    let value = f64::from(channel[row * width + column]);
                    greatest = greatest.max(value);
                    value
                }
                None => 0.0,
            };
        }
        each(&taps, greatest);
    }
}

/// The maxima of an operand, in the place of what a convolution made of it.
fn take_maxima(window: &Window, operand: &Tensor<f32>, result: &mut Tensor<f32>, mut each: impl FnMut(usize, &[f64], f64)) {
    let (shape, plane) = (operand.shape(), result.shape().plane());
    for (c, places) in result.values_mut().chunks_exact_mut(plane.max(1)).enumerate() {
        let mut places = places.iter_mut();
        windows(operand.channel(c), [shape.height, shape.width], window, |taps, greatest| {
            each(c, taps, greatest);
            if let Some(place) = places.next() {
                *place = greatest as f32;
            }
        });
    }
}

/// Mean and deviation of each channel.
fn moments(results: &[Tensor<f32>]) -> Vec<[f64; 2]> {
    let channels = results.first().map_or(0, |r| r.shape().channels);
    let of_channel = |c: usize| {
        let values = || results.iter().flat_map(move |r| r.channel(c)).map(|v| f64::from(*v));
        let count = values().count().max(1) as f64;
        let mean = values().sum::<f64>() / count;
        [mean, (values().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt()]
    };
    (0..channels).into_par_iter().map(of_channel).collect()
}

/// Which nodes are convolutions behind a pool.
fn behind(model: &Model, pools: &[Pool]) -> Vec<bool> {
    let mut reached = vec![false];
    for (index, node) in model.nodes().iter().enumerate() {
        reached.push(pools.iter().any(|pool| pool.index == index) || node.inputs.iter().any(|v| reached[v.0]));
    }
    let convolution = |(index, node): (usize, &Node)| {
        matches!(node.operator, Operator::Conv2d(_)) && pools.iter().all(|pool| pool.index != index) && reached[index + 1]
    };
    model.nodes().iter().enumerate().map(convolution).collect()
}

/// Gives a convolution the weights that come nearest to the maxima.
fn settle(node: &mut Node, sums: &[Sums]) -> StandIn {
    let (mut left, mut whole) = (0.0, 0.0);
    if let Operator::Conv2d(conv) = &mut node.operator {
        let taps = conv.weight.len() / sums.len().max(1);
        for (c, sums) in sums.iter().enumerate() {
            let own = &mut conv.weight[c * taps..(c + 1) * taps];
            if let Some(nearest) = sums.nearest() {
                own.copy_from_slice(&nearest[..taps]);
                conv.bias[c] = nearest[taps];
            }
            let weights: Vec<f64> = own.iter().copied().chain([conv.bias[c]]).collect();
            let [l, w] = sums.left(&weights);
            (left, whole) = (left + l, whole + w);
        }
    }
    StandIn { node: node.name.clone(), unexplained: if whole > 0.0 { left / whole } else { 0.0 } }
}

/// Fits the convolutions that an ONNX file's MaxPools were read as ([`super::onnx::MaxPools::Convolved`]) to every second picture, and
/// measures on the others what the network loses. Cost: four evaluations of each picture at most, on all threads.
///
/// # Errors
/// [`PoolingError::NoPools`], [`PoolingError::TooFewPictures`], [`PoolingError::Simulate`] for pictures that the network cannot be evaluated on.
pub fn fit(model: &Model, pictures: &[Labelled], judge: Judge) -> Result<Fitted, PoolingError> {
    let mut model = model.fold_batch_norms();
    let names: Vec<String> = model.training().get(STAND_INS).unwrap_or_default();
    let pool = |(index, node): (usize, &Node)| match &node.operator {
        Operator::Conv2d(conv) if names.contains(&node.name) => Some(Pool { index, window: conv.window }),
        _ => None,
    };
    let pools: Vec<Pool> = model.nodes().iter().enumerate().filter_map(pool).collect();
    if pools.is_empty() {
        return Err(PoolingError::NoPools);
    }
    if pictures.len() < LEAST_PICTURES {
        return Err(PoolingError::TooFewPictures { found: pictures.len() });
    }
    let halves = |odd: usize| pictures.iter().enumerate().skip(odd).step_by(2);
    let wrong = |picture: usize| move |source| SimulateError::WrongKind { picture, pictures: pictures.len(), source };
    for (i, picture) in pictures.iter().enumerate() {
        let (expected, found) = (model.input().shape, picture.x.shape());
        if found != expected {
            return Err(PoolingError::Simulate(wrong(i)(ShapeMismatch { expected, found })));
        }
    }
    let largest = model.nodes().iter().map(|n| n.shape.len()).chain([model.input().shape.len()]).max().unwrap_or(1);
    let most = (MOST_ELEMENTS / largest.max(1)).clamp(LEAST_PICTURES / 2, MOST_FITTED);
    let seen: Vec<&Tensor<f32>> = halves(0).map(|(_, picture)| &picture.x).collect();
    let seen: Vec<&Tensor<f32>> = (0..seen.len().min(most)).map(|k| seen[k * seen.len() / seen.len().min(most)]).collect();
    let (network, behind) = (Network::<f32>::new(&model.exact()), behind(&model, &pools));
    let mut moments_with_maxima: HashMap<usize, Vec<[f64; 2]>> = HashMap::new();
    let mut stand_ins = Vec::with_capacity(pools.len());
    let unseen = |e| PoolingError::Simulate(wrong(0)(e));
    let with_maxima = network.evaluate_together(&seen, |node, operands, results| {
        if let Some(pool) = pools.iter().find(|pool| pool.index == node) {
            let channels = model.nodes()[node].shape.channels;
            let empty = || vec![Sums::new(pool.window.kernel.iter().product()); channels];
            let add = |mut sums: Vec<Sums>, (operand, result): (&&Tensor<f32>, &mut Tensor<f32>)| {
                take_maxima(&pool.window, operand, result, |c, taps, greatest| sums[c].add(taps, greatest));
                sums
            };
            let merge = |a: Vec<Sums>, b: Vec<Sums>| a.into_iter().zip(&b).map(|(a, b)| a.merge(b)).collect();
            let sums = operands.par_iter().zip(results).fold(empty, add).reduce(empty, merge);
            stand_ins.push(settle(&mut model.nodes[node], &sums));
        } else if behind[node] {
            moments_with_maxima.insert(node, moments(results));
        }
    });
    with_maxima.map_err(unseen)?;
    let nearest = Network::<f32>::new(&model.exact());
    let matched = nearest.evaluate_together(&seen, |node, _, results| {
        let (Some(wanted), Operator::Conv2d(conv)) = (moments_with_maxima.get(&node), &mut model.nodes[node].operator) else {
            return;
        };
        let found = moments(results);
        let dead = DEAD * found.iter().chain(wanted).fold(0.0, |m: f64, [_, deviation]| m.max(*deviation));
        let per_channel = conv.weight.len() / wanted.len().max(1);
        for (c, ([mean, deviation], [wanted_mean, wanted_deviation])) in found.into_iter().zip(wanted).enumerate() {
            let factor = if deviation > dead { wanted_deviation / deviation } else { 1.0 };
            conv.weight[c * per_channel..(c + 1) * per_channel].iter_mut().for_each(|w| *w *= factor);
            conv.bias[c] = (conv.bias[c] - mean) * factor + wanted_mean;
            for result in results.iter_mut() {
                let plane = result.shape().plane();
                let own = &mut result.values_mut()[c * plane..(c + 1) * plane];
                own.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) * factor + wanted_mean) as f32);
            }
        }
    });
    matched.map_err(unseen)?;
    let others: Vec<_> = halves(1).collect();
    let exact = |(i, picture): &(usize, &Labelled)| {
        let logits = network.evaluate_altering(&picture.x, |node, operand, result| {
            if let Some(pool) = pools.iter().find(|pool| pool.index == node) {
                take_maxima(&pool.window, operand, result, |_, _, _| ());
            }
        });
        Ok::<_, SimulateError>(logits.map_err(wrong(*i))?.values().to_vec())
    };
    let logits = super::simulate::check_finite(others.par_iter().map(exact).collect::<Result<_, _>>()?)?;
    let exact = ExactAnswers { logits, judge, zoomed_margins: Vec::new() };
    let measured: Vec<Labelled> = others.into_iter().map(|(_, picture)| picture.clone()).collect();
    let loss = simulate_against(&exact, &model, &measured, NoiseLevels::NONE, 1)?;
    Ok(Fitted { model, stand_ins, loss })
}

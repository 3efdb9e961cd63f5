//! Random convolutional networks, such as people train: blocks of convolutions, norms and activations, residual sums, concatenations,
//! averages and maxima over windows, gates, products, permutations, slices, and a head. Calibrated and fitted by the library, so that what comes out can run encrypted.

use crate::models::{Builder, ConvShape};
use cipherlens::nn::calibration::Calibration;
use cipherlens::nn::fit::{FitSpec, Form, fit};
use cipherlens::nn::model::Model;
use cipherlens::nn::tensor::{Shape, Tensor};
use rand::{Rng, RngExt};
use serde_json::{Value, json};

/// How large a network may be.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Largest height and width of the picture.
    pub side: usize,
    /// Most elements of a tensor.
    pub elements: usize,
    /// Most layers with weights.
    pub layers: usize,
    /// How many times larger values are behind a convolution than before it, about.
    pub gain: f32,
}

/// A network whose activations are yet to be fitted.
pub fn random(size: Size, rng: &mut impl Rng) -> Model {
    let channels = [1, 1, 3, 3, 3, 2, 4][rng.random_range(0..7)];
    let side = |rng: &mut dyn FnMut(std::ops::RangeInclusive<usize>) -> usize| rng(5..=size.side);
    let mut draw = |r: std::ops::RangeInclusive<usize>| rng.random_range(r);
    let (height, width) = (side(&mut draw), side(&mut draw));
    let input = Shape::new(channels, height, width);
    let mut net = Net { b: Builder::new(input), last: "x".into(), shape: input, size, count: 0 };
    let layers = rng.random_range(2..=size.layers);
    // One function throughout, as people do, or a mixture.
    let usual = rng.random_range(0..FUNCTIONS);
    while net.count < layers {
        match rng.random_range(0..15) {
            0..=4 => net.block(usual, rng),
            5 | 6 => net.residual(usual, rng),
            7 => net.concatenation(usual, rng),
            8 => net.pool(rng),
            9 => net.max_pool(rng),
            10 => net.gate(rng),
            11 => net.product(usual, rng),
            12 => net.rearrangement(rng),
            13 => net.permutation(rng),
            // A convolution that no activation follows.
            _ => net.conv(rng),
        }
    }
    net.head(usual, rng)
}

const FUNCTIONS: usize = 8;

fn function(which: usize) -> Value {
    match which {
        0..=3 => json!({"name": "relu"}),
        4 => json!({"name": "leaky_relu", "alpha": 0.1}),
        5 => json!({"name": "gelu"}),
        6 => json!({"name": "silu"}),
        _ => json!({"name": "clip", "min": 0.0, "max": 6.0}),
    }
}

struct Net {
    b: Builder,
    last: String,
    shape: Shape,
    size: Size,
    count: usize,
}

impl Net {
    fn name(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}{}", self.count)
    }

    /// A convolution of any kind from the last value.
    fn conv(&mut self, rng: &mut impl Rng) {
        let shape = self.shape;
        let outputs = rng.random_range(1..=24usize).min((self.size.elements / shape.plane().max(1)).max(1));
        let k = [1, 3, 3, 3, 5][rng.random_range(0..5)];
        let stride = if rng.random_range(0..4) == 0 && shape.height.min(shape.width) > 3 { 2 } else { 1 };
        let dilation = if k == 3 && rng.random_range(0..8) == 0 { 2 } else { 1 };
        let (groups, outputs) = match rng.random_range(0..6) {
            0 => (shape.channels, shape.channels),
            1 if shape.channels.is_multiple_of(2) => (2, outputs.next_multiple_of(2)),
            _ => (1, outputs),
        };
        let reach = (k - 1) * dilation;
        let padding = if rng.random_range(0..5) > 0 || shape.height.min(shape.width) <= reach { reach / 2 } else { 0 };
        let c = ConvShape {
            input: shape,
            outputs,
            kernel: [k, k],
            stride: [stride; 2],
            padding: [padding; 4],
            dilation: [dilation; 2],
            groups,
        };
        self.conv_of(c, rng);
    }

    fn conv_of(&mut self, c: ConvShape, rng: &mut impl Rng) {
        let name = self.name("conv");
        self.b.conv(&name, &self.last.clone(), &c, rng);
        self.b.scale(&format!("{name}.w"), self.size.gain).scale(&format!("{name}.b"), self.size.gain);
        let out = |size: usize, a: usize| {
            (size + c.padding[a] + c.padding[a + 2] - (c.kernel[a] - 1) * c.dilation[a] - 1) / c.stride[a] + 1
        };
        self.shape = Shape::new(c.outputs, out(self.shape.height, 0), out(self.shape.width, 1));
        self.last = name;
    }

    fn norm(&mut self, rng: &mut impl Rng) {
        let (name, channels) = (format!("{}.bn", self.last), self.shape.channels);
        let tensor = |part: &str| format!("{name}.{part}");
        self.b.tensor(&tensor("scale"), &[channels], (0..channels).map(|_| rng.random_range(0.5..1.5)));
        self.b.random(&tensor("bias"), &[channels], 0.3, rng).random(&tensor("mean"), &[channels], 0.3, rng);
        self.b.tensor(&tensor("var"), &[channels], (0..channels).map(|_| rng.random_range(0.3..1.0)));
        let node = json!({"op": "batch_norm", "scale": tensor("scale"), "bias": tensor("bias"),
                          "mean": tensor("mean"), "var": tensor("var"), "epsilon": 1e-5});
        self.b.node(&name, &[&self.last.clone()], node);
        self.last = name;
    }

    fn activation(&mut self, usual: usize, rng: &mut impl Rng) {
        let which = if rng.random_range(0..4) == 0 { rng.random_range(0..FUNCTIONS) } else { usual };
        let name = format!("{}.act", self.last);
        self.b.node(&name, &[&self.last.clone()], json!({"op": "activation", "function": function(which)}));
        self.last = name;
    }

    fn block(&mut self, usual: usize, rng: &mut impl Rng) {
        self.conv(rng);
        if rng.random_range(0..2) == 0 {
            self.norm(rng);
        }
        self.activation(usual, rng);
    }

    fn same(&self, outputs: usize, k: usize) -> ConvShape {
        ConvShape::same(self.shape, outputs, k)
    }

    /// `x + conv(act(conv(x)))`, then perhaps an activation.
    fn residual(&mut self, usual: usize, rng: &mut impl Rng) {
        let (from, channels) = (self.last.clone(), self.shape.channels);
        self.conv_of(self.same(channels, 3), rng);
        self.activation(usual, rng);
        self.conv_of(self.same(channels, [1, 3][rng.random_range(0..2)]), rng);
        let (name, branch) = (self.name("add"), self.last.clone());
        self.b.node(&name, &[&branch, &from], json!({"op": "add"}));
        self.last = name;
        if rng.random_range(0..3) > 0 {
            self.activation(usual, rng);
        }
    }

    /// Two convolutions of one value, their channels side by side: as the importer writes it, a sum of the two with zeros between.
    fn concatenation(&mut self, usual: usize, rng: &mut impl Rng) {
        let (from, shape) = (self.last.clone(), self.shape);
        let most = (self.size.elements / (2 * shape.plane().max(1))).clamp(1, 8);
        let [a, b] = [rng.random_range(1..=most), rng.random_range(1..=most)];
        let mut parts = Vec::new();
        for (outputs, before, after, k) in [(a, 0, b, 3), (b, a, 0, 1)] {
            (self.last, self.shape) = (from.clone(), shape);
            self.conv_of(self.same(outputs, k), rng);
            if rng.random_range(0..2) == 0 {
                self.activation(usual, rng);
            }
            let name = format!("{}.part", self.last);
            let channels: Vec<Option<usize>> =
                std::iter::repeat_n(None, before).chain((0..outputs).map(Some)).chain(std::iter::repeat_n(None, after)).collect();
            let all = |n: usize| (0..n).collect::<Vec<_>>();
            let node = json!({"op": "rearrange", "channels": channels, "rows": all(shape.height), "columns": all(shape.width)});
            self.b.node(&name, &[&self.last.clone()], node);
            parts.push(name);
        }
        let name = self.name("concat");
        self.b.node(&name, &[&parts[0], &parts[1]], json!({"op": "add"}));
        (self.last, self.shape) = (name, Shape::new(a + b, shape.height, shape.width));
    }

    fn pool(&mut self, rng: &mut impl Rng) {
        let Shape { channels, height, width } = self.shape;
        if height < 4 || width < 4 {
            return;
        }
        let k = rng.random_range(2..=3);
        let name = self.name("pool");
        self.b.node(&name, &[&self.last.clone()], json!({"op": "avg_pool2d", "kernel": [k, k], "stride": [2, 2]}));
        (self.last, self.shape) = (name, Shape::new(channels, (height - k) / 2 + 1, (width - k) / 2 + 1));
    }

    /// The greatest of 2 x 2, or of 3 x 3 with stride 2, along one axis and then along the other, as the importer writes it.
    fn max_pool(&mut self, rng: &mut impl Rng) {
        if self.shape.height.min(self.shape.width) < 4 {
            return;
        }
        let taps = rng.random_range(2..=3usize);
        for axis in 0..2 {
            let Shape { channels, height, width } = self.shape;
            let all = |n: usize| (0..n).collect::<Vec<_>>();
            let size = [height, width][axis];
            let out = (size - taps) / 2 + 1;
            let (from, shape) = (self.last.clone(), self.shape);
            self.shape = if axis == 0 { Shape::new(channels, out, width) } else { Shape::new(channels, height, out) };
            let parts: Vec<String> = (0..taps)
                .map(|tap| {
                    let picks: Vec<usize> = (0..out).map(|i| 2 * i + tap).collect();
                    let (rows, columns) = if axis == 0 { (picks, all(width)) } else { (all(height), picks) };
                    let name = self.name("tap");
                    let node = json!({"op": "rearrange", "channels": all(shape.channels), "rows": rows, "columns": columns});
                    self.b.node(&name, &[&from], node);
                    name
                })
                .collect();
            self.last = parts[0].clone();
            for part in &parts[1..] {
                let a = self.last.clone();
                let [minus, difference, above, name] = ["minus", "difference", "above", "max"].map(|what| self.name(what));
                let tensor = |part: &str| format!("{minus}.{part}");
                let values = [("scale", -1.0), ("bias", 0.0), ("mean", 0.0), ("var", 1.0)];
                for (part, value) in values {
                    self.b.tensor(&tensor(part), &[channels], std::iter::repeat_n(value, channels));
                }
                let norm = json!({"op": "batch_norm", "scale": tensor("scale"), "bias": tensor("bias"), "mean": tensor("mean"),
                                  "var": tensor("var"), "epsilon": 0.0});
                self.b.node(&minus, &[&a], norm);
                self.b.node(&difference, &[part, &minus], json!({"op": "add"}));
                self.b.node(&above, &[&difference], json!({"op": "activation", "function": {"name": "relu"}}));
                self.b.node(&name, &[&a, &above], json!({"op": "add"}));
                self.last = name;
            }
        }
    }

    /// Every channel times a number between 0 and 1 that all of them decide.
    fn gate(&mut self, rng: &mut impl Rng) {
        let (from, shape) = (self.last.clone(), self.shape);
        let pool = self.name("squeeze");
        self.b.node(&pool, &[&from], json!({"op": "global_avg_pool"}));
        (self.last, self.shape) = (pool, Shape::new(shape.channels, 1, 1));
        self.conv_of(self.same(shape.channels, 1), rng);
        let [open, everywhere, name] = ["open", "everywhere", "gate"].map(|what| self.name(what));
        self.b.node(&open, &[&self.last.clone()], json!({"op": "activation", "function": {"name": "sigmoid"}}));
        let node = json!({"op": "rearrange", "channels": (0..shape.channels).collect::<Vec<_>>(),
                          "rows": vec![0; shape.height], "columns": vec![0; shape.width]});
        self.b.node(&everywhere, &[&open], node);
        self.b.node(&name, &[&from, &everywhere], json!({"op": "multiply"}));
        (self.last, self.shape) = (name, shape);
    }

    /// `conv(x) act(conv(x))`.
    fn product(&mut self, usual: usize, rng: &mut impl Rng) {
        let (from, shape) = (self.last.clone(), self.shape);
        let outputs = rng.random_range(1..=8usize).min((self.size.elements / shape.plane().max(1)).max(1));
        self.conv_of(self.same(outputs, 1), rng);
        let linear = self.last.clone();
        (self.last, self.shape) = (from, shape);
        self.conv_of(self.same(outputs, 3), rng);
        self.activation(usual, rng);
        let name = self.name("product");
        self.b.node(&name, &[&linear, &self.last.clone()], json!({"op": "multiply"}));
        self.last = name;
    }

    /// Channels shuffled between two groups, an axis turned round, every other row and column, or a frame of zeros.
    fn rearrangement(&mut self, rng: &mut impl Rng) {
        let Shape { channels, height, width } = self.shape;
        let of = |n: usize| (0..n).map(Some).collect::<Vec<_>>();
        let [mut c, mut y, mut x] = [channels, height, width].map(of);
        match rng.random_range(0..4) {
            0 if channels.is_multiple_of(2) => c = (0..channels).map(|i| Some(i % 2 * (channels / 2) + i / 2)).collect(),
            1 if height.min(width) > 5 => [y, x] = [y, x].map(|axis| axis.into_iter().step_by(2).collect()),
            2 if (height + 2) * (width + 1) * channels <= self.size.elements => {
                y = std::iter::once(None).chain(y).chain([None]).collect();
                x.push(None);
            }
            _ => [&mut y, &mut x][rng.random_range(0..2)].reverse(),
        }
        let name = self.name("arranged");
        self.shape = Shape::new(c.len(), y.len(), x.len());
        self.b.node(&name, &[&self.last.clone()], json!({"op": "rearrange", "channels": c, "rows": y, "columns": x}));
        self.last = name;
    }

    /// What no list for each axis says: rows for columns, two by two pixels to four channels and back; here and there with a constant in
    /// the place of an element.
    fn permutation(&mut self, rng: &mut impl Rng) {
        let Shape { channels, height, width } = self.shape;
        let at = |c: usize, y: usize, x: usize| (c * height + y) * width + x;
        let (shape, mut sources) = match rng.random_range(0..3) {
            0 if height.is_multiple_of(2) && width.is_multiple_of(2) => {
                let shape = Shape::new(4 * channels, height / 2, width / 2);
                (shape, sources(shape, |c, y, x| at(c / 4, 2 * y + c % 4 / 2, 2 * x + c % 2)))
            }
            1 if channels.is_multiple_of(4) => {
                let shape = Shape::new(channels / 4, 2 * height, 2 * width);
                (shape, sources(shape, |c, y, x| at(4 * c + y % 2 * 2 + x % 2, y / 2, x / 2)))
            }
            _ => {
                let shape = Shape::new(channels, width, height);
                (shape, sources(shape, |c, y, x| at(c, x, y)))
            }
        };
        let name = self.name("permuted");
        let tensor = |part: &str| format!("{name}.{part}");
        let mut node = json!({"op": "gather", "sources": tensor("sources")});
        let dims = [shape.channels, shape.height, shape.width];
        if rng.random_range(0..3) == 0 {
            let mut constants = vec![0.0; sources.len()];
            for (source, constant) in sources.iter_mut().zip(&mut constants).step_by(7) {
                (*source, *constant) = (-1.0, rng.random_range(-0.5..0.5));
            }
            self.b.tensor(&tensor("constants"), &dims, constants);
            node["constants"] = json!(tensor("constants"));
        }
        self.b.tensor(&tensor("sources"), &dims, sources);
        self.b.node(&name, &[&self.last.clone()], node);
        (self.last, self.shape) = (name, shape);
    }

    fn head(mut self, usual: usize, rng: &mut impl Rng) -> Model {
        if rng.random_range(0..2) == 0 || self.shape.len() > 512 {
            let name = self.name("global");
            self.b.node(&name, &[&self.last.clone()], json!({"op": "global_avg_pool"}));
            (self.last, self.shape) = (name, Shape::new(self.shape.channels, 1, 1));
        }
        let flat = self.name("flat");
        self.b.node(&flat, &[&self.last.clone()], json!({"op": "flatten"}));
        (self.last, self.shape) = (flat, Shape::new(self.shape.len(), 1, 1));
        let hidden = rng.random_range(0..3) == 0;
        for outputs in hidden.then(|| rng.random_range(4..=24)).into_iter().chain([rng.random_range(1..=12)]) {
            let (name, columns) = (self.name("fc"), self.shape.channels);
            let size = (columns as f32).recip().sqrt();
            self.b.random(&format!("{name}.w"), &[outputs, columns], size, rng);
            self.b.random(&format!("{name}.b"), &[outputs], 0.3, rng);
            let node = json!({"op": "linear", "weight": format!("{name}.w"), "bias": format!("{name}.b")});
            self.b.node(&name, &[&self.last.clone()], node);
            (self.last, self.shape) = (name, Shape::new(outputs, 1, 1));
            if hidden && self.last.starts_with("fc") && outputs > 12 {
                self.activation(usual, rng);
            }
        }
        let last = self.last.clone();
        self.b.build(&last)
    }
}

/// For each element of a tensor, channel by channel and row by row, where it comes from.
fn sources(shape: Shape, from: impl Fn(usize, usize, usize) -> usize) -> Vec<f32> {
    let Shape { channels, height, width } = shape;
    let places = (0..channels).flat_map(|c| (0..height).flat_map(move |y| (0..width).map(move |x| (c, y, x))));
    places.map(|(c, y, x)| from(c, y, x) as f32).collect()
}

/// Pictures of a network's shape.
pub fn pictures(model: &Model, count: usize, rng: &mut impl Rng) -> Vec<Tensor<f64>> {
    (0..count).map(|_| crate::models::picture(model.input().shape, rng)).collect()
}

/// The network with every activation fitted to pictures: series of any degree that takes no more than `most` levels, composite signs for
/// some ReLUs. None if that cannot be, as where a layer is fed next to nothing.
pub fn fitted(model: &Model, pictures: &[Tensor<f64>], most: usize, rng: &mut impl Rng) -> Option<Model> {
    if model.activations().next().is_none() {
        return Some(model.clone());
    }
    let pictures: Vec<Tensor<f32>> = pictures.iter().map(|p| p.cast()).collect();
    let calibration = Calibration::measure(model, &pictures).ok()?;
    let degree = [3, 7, 15, 31][rng.random_range(0..4).min(most - 2)];
    let specs: Vec<FitSpec> = calibration
        .layers
        .iter()
        .map(|layer| {
            let relu = layer.function == cipherlens::nn::model::ActivationFunction::Relu;
            let form = match rng.random_range(0..10) {
                0 if relu && most > 3 => Form::Composite(vec![3, 3]),
                1 => Form::Series(rng.random_range(2..=degree)),
                _ => Form::Series(degree),
            };
            FitSpec { form, margin: 1.5, floor: 0.1 }
        })
        .collect();
    fit(model, &calibration, &specs).ok()
}

//! Random small models, built through the same door as model files.

use chacha20::ChaCha8Rng;
use cipherlens::circuits::polynomial::Chebyshev;
use cipherlens::nn::clear::{Network, Range};
use cipherlens::nn::model::{ActivationForm, ActivationFunction, FittedActivation, Model, NumberType, TensorData};
use cipherlens::nn::tensor::{Shape, Tensor};
use rand::{Rng, RngExt, SeedableRng};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// A generator for tests that prints its seed, so that a failure can be repeated.
pub fn seeded(seed: u64) -> ChaCha8Rng {
    println!("seed {seed}");
    ChaCha8Rng::seed_from_u64(seed)
}

/// A graph under construction.
pub struct Builder {
    pub nodes: Vec<Value>,
    pub tensors: HashMap<String, (Vec<usize>, Vec<u8>)>,
    pub input: Shape,
    pub training: Value,
}

impl Builder {
    pub fn new(input: Shape) -> Self {
        Self { nodes: Vec::new(), tensors: HashMap::new(), input, training: Value::Null }
    }

    /// Adds an f32 tensor.
    pub fn tensor(&mut self, name: &str, shape: &[usize], values: impl IntoIterator<Item = f32>) -> &mut Self {
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(bytes.len(), 4 * shape.iter().product::<usize>());
        self.tensors.insert(name.to_owned(), (shape.to_vec(), bytes));
        self
    }

    /// Adds a tensor of uniform values in [-size, size].
    pub fn random(&mut self, name: &str, shape: &[usize], size: f32, rng: &mut impl Rng) -> &mut Self {
        let n = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|_| rng.random_range(-size..size)).collect();
        self.tensor(name, shape, values)
    }

    /// Multiplies a tensor that was added.
    pub fn scale(&mut self, name: &str, factor: f32) -> &mut Self {
        let (_, bytes) = self.tensors.get_mut(name).expect("the tensor was added");
        for value in bytes.as_chunks_mut::<4>().0 {
            *value = (f32::from_le_bytes(*value) * factor).to_le_bytes();
        }
        self
    }

    /// Adds a node; the value it makes has its name.
    pub fn node(&mut self, name: &str, inputs: &[&str], mut attributes: Value) -> &mut Self {
        let map = attributes.as_object_mut().expect("attributes are an object");
        map.insert("name".into(), json!(name));
        map.insert("inputs".into(), json!(inputs));
        map.insert("output".into(), json!(name));
        self.nodes.push(attributes);
        self
    }

    /// Adds a convolution with random weights.
    pub fn conv(&mut self, name: &str, input: &str, c: &ConvShape, rng: &mut impl Rng) -> &mut Self {
        let per_group = c.input.channels / c.groups;
        let size = ((per_group * c.kernel[0] * c.kernel[1]) as f32).recip().sqrt();
        self.random(&format!("{name}.w"), &[c.outputs, per_group, c.kernel[0], c.kernel[1]], size, rng);
        self.random(&format!("{name}.b"), &[c.outputs], 0.5, rng);
        let attributes = json!({
            "op": "conv2d", "weight": format!("{name}.w"), "bias": format!("{name}.b"), "stride": c.stride,
            "padding": c.padding, "dilation": c.dilation, "groups": c.groups,
        });
        self.node(name, &[input], attributes)
    }

    pub fn graph(&self, output: &str) -> String {
        let Shape { channels, height, width } = self.input;
        json!({
            "name": "test", "nodes": self.nodes, "output": output, "training": self.training,
            "input": {"name": "x", "channels": channels, "height": height, "width": width,
                      "mean": vec![0.0; channels], "std": vec![1.0; channels]},
        })
        .to_string()
    }

    pub fn build(&self, output: &str) -> Model {
        let find = |name: &str| {
            let (shape, bytes) = self.tensors.get(name)?;
            Some(TensorData { shape: shape.clone(), dtype: NumberType::F32, bytes })
        };
        Model::from_graph(&self.graph(output), find).expect("the test's graph is valid")
    }

    /// The whole model file.
    pub fn file(&self, output: &str) -> Vec<u8> {
        let metadata = HashMap::from([
            ("format".to_owned(), "cipherlens-model".to_owned()),
            ("version".to_owned(), "1".to_owned()),
            ("graph".to_owned(), self.graph(output)),
        ]);
        let views = self.tensors.iter().map(|(name, (shape, bytes))| {
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
            (name.clone(), view.expect("the sizes agree"))
        });
        safetensors::serialize(views, Some(metadata)).expect("serializable")
    }
}

/// A convolution to try.
#[derive(Debug, Clone)]
pub struct ConvShape {
    pub input: Shape,
    pub outputs: usize,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 4],
    pub dilation: [usize; 2],
    pub groups: usize,
}

impl ConvShape {
    /// With a square kernel of odd side k, and padding that keeps height and width.
    pub fn same(input: Shape, outputs: usize, k: usize) -> Self {
        Self { input, outputs, kernel: [k; 2], stride: [1; 2], padding: [k / 2; 4], dilation: [1; 2], groups: 1 }
    }
}

impl ConvShape {
    /// Odd and even sizes, strides 1 to 3, paddings, dilations and groups, with 1 to `max_shards` shards of `slots` slots
    /// if the input is packed densely.
    pub fn random(rng: &mut impl Rng, slots: usize, max_shards: usize) -> Self {
        loop {
            let kernel = [rng.random_range(1..=5), rng.random_range(1..=5)];
            let dilation = [rng.random_range(1..=2), rng.random_range(1..=2)];
            let stride = [rng.random_range(1..=3), rng.random_range(1..=3)];
            let (height, width) = (rng.random_range(1..=40), rng.random_range(1..=40));
            let groups = [1, 1, 1, 2, 3, 4][rng.random_range(0..6)];
            let depthwise = rng.random_range(0..6) == 0;
            let per_group = rng.random_range(1..=6);
            let outputs = groups * rng.random_range(1..=6);
            let (groups, outputs) = if depthwise { (groups * per_group, groups * per_group) } else { (groups, outputs) };
            let per_group = if depthwise { 1 } else { per_group };
            let padding = [0, 1, 2, 3].map(|side: usize| rng.random_range(0..=(kernel[side % 2] - 1) * dilation[side % 2]));
            let input = Shape::new(groups * per_group, height, width);
            let reach = |axis: usize| (kernel[axis] - 1) * dilation[axis] + 1;
            if height + padding[0] + padding[2] < reach(0) || width + padding[1] + padding[3] < reach(1) {
                continue;
            }
            let out = Shape::new(
                outputs,
                (height + padding[0] + padding[2] - reach(0)) / stride[0] + 1,
                (width + padding[1] + padding[3] - reach(1)) / stride[1] + 1,
            );
            if input.len().max(out.len()) > slots * max_shards {
                continue;
            }
            return Self { input, outputs, kernel, stride, padding, dilation, groups };
        }
    }
}

/// Uniform values in [-1, 1].
pub fn picture(shape: Shape, rng: &mut impl Rng) -> Tensor<f64> {
    let values = (0..shape.len()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::new(shape, values).expect("as many values as the shape says")
}

/// The model with a polynomial of low degree, or a composite, in place of each activation: good enough to tell whether two
/// evaluations of it agree. Each is fitted where its input lies in the picture `x`, once those before it are.
pub fn fit(model: &Model, x: &Tensor<f64>, rng: &mut impl Rng) -> Model {
    let mut model = model.fold_batch_norms();
    let nodes: Vec<(usize, ActivationFunction)> = model.activations().map(|(i, _, f)| (i, f)).collect();
    for (node, function) in nodes {
        let mut range = Range::EMPTY;
        let network = Network::<f64>::new(&model);
        let observed = network.evaluate_with(x, |i, operand, _| {
            if i == node {
                range = operand.values().iter().fold(range, |r, v| r.union(Range { min: *v, max: *v }));
            }
        });
        observed.expect("the shape fits");
        let slack = 0.1 + 0.1 * (range.max - range.min) + rng.random_range(0.0..0.1);
        let interval = [range.min.min(0.0) - slack, range.max.max(0.0) + slack];
        let stage = Chebyshev::new(vec![0.0, 1.125, 0.0, -0.125], [-1.0, 1.0]).expect("a polynomial");
        let form = match rng.random_range(0..4) {
            0 | 1 if function == ActivationFunction::Relu => {
                ActivationForm::Sign { stages: vec![stage; rng.random_range(1..=2)], bound: range.magnitude() + slack }
            }
            2 => {
                let first = Chebyshev::new(stage.coefficients().to_vec(), interval).expect("a polynomial");
                let last = Chebyshev::new((0..4).map(|_| rng.random_range(-1.0..1.0)).collect(), [-1.0, 1.0]);
                ActivationForm::Composite(vec![first, stage, last.expect("a polynomial")][..rng.random_range(2..=3)].to_vec())
            }
            _ => {
                // A function that is flat at all nodes of a low degree asks for more of them.
                let degree = rng.random_range(1..=9);
                let fits = (degree..64).find_map(|degree| Chebyshev::interpolate(|x| function.value(x), degree, interval).ok());
                ActivationForm::Chebyshev(fits.expect("a function that is not constant"))
            }
        };
        let fitted = BTreeMap::from([(node, FittedActivation { function, form })]);
        model = model.with_activations(&fitted).expect("the node is an activation");
    }
    model
}

/// Appends random layers until the network has `depth` of them; returns the name of the last value.
///
/// All operators occur, polynomials of every kind: quadratics of either sign, some of whose channels are linear, cubics of
/// one or many sets of coefficients, straight lines; activations that are yet to be fitted; and residual sums of any two values of one shape.
pub fn random_layers(b: &mut Builder, depth: usize, rng: &mut impl Rng) -> String {
    let mut values = vec![("x".to_owned(), b.input)];
    for layer in 0..depth {
        let (from, shape) = values[values.len() - 1].clone();
        let name = format!("v{layer}");
        let channels = shape.channels;
        let next = match rng.random_range(0..13) {
            0..=3 if shape.plane() > 1 => {
                let mut conv = ConvShape::random(rng, 1 << 20, 1);
                let groups = if channels % conv.groups == 0 { conv.groups } else { 1 };
                (conv.groups, conv.outputs, conv.input) = (groups, groups * rng.random_range(1..=4), shape);
                let reach = |axis: usize| (conv.kernel[axis] - 1) * conv.dilation[axis] + 1;
                let fits = |size: usize, axis: usize| size + conv.padding[axis] + conv.padding[axis + 2] >= reach(axis);
                if !fits(shape.height, 0) || !fits(shape.width, 1) {
                    (conv.kernel, conv.padding) = ([1, 1], [0; 4]);
                }
                let out = |size: usize, axis: usize| {
                    let reach = (conv.kernel[axis] - 1) * conv.dilation[axis] + 1;
                    (size + conv.padding[axis] + conv.padding[axis + 2] - reach) / conv.stride[axis] + 1
                };
                b.conv(&name, &from, &conv, rng);
                Shape::new(conv.outputs, out(shape.height, 0), out(shape.width, 1))
            }
            4 => {
                let function = [json!({"name": "relu"}), json!({"name": "gelu"}), json!({"name": "leaky_relu", "alpha": 0.1})];
                b.node(&name, &[&from], json!({"op": "activation", "function": function[rng.random_range(0..3)]}));
                shape
            }
            5..=7 => {
                let per_channel = rng.random_range(0..3) > 0;
                let rows = if per_channel { channels } else { 1 };
                let size: usize = [2, 3, 3, 3, 4][rng.random_range(0..5)];
                let mixed = rng.random_range(0..3) == 0;
                let mut k: Vec<f32> = (0..rows * size).map(|_| rng.random_range(-0.5..0.5)).collect();
                for row in k.chunks_exact_mut(size) {
                    if mixed && rng.random_range(0..2) == 0 {
                        row[size - 1] = 0.0;
                    } else if row[size - 1].abs() < 0.01 {
                        row[size - 1] = 0.3;
                    }
                }
                let shape: &[usize] = if per_channel { &[rows, size] } else { &[size] };
                b.tensor(&format!("{name}.k"), shape, k);
                b.node(&name, &[&from], json!({"op": "polynomial", "coefficients": format!("{name}.k")}));
                values[values.len() - 1].1
            }
            8 => {
                for part in ["scale", "bias", "mean"] {
                    b.random(&format!("{name}.{part}"), &[channels], 1.0, rng);
                }
                b.tensor(&format!("{name}.var"), &[channels], (0..channels).map(|c| 0.5 + c as f32 % 3.0));
                let tensor = |part: &str| format!("{name}.{part}");
                let node = json!({"op": "batch_norm", "scale": tensor("scale"), "bias": tensor("bias"),
                                  "mean": tensor("mean"), "var": tensor("var"), "epsilon": 1e-5});
                b.node(&name, &[&from], node);
                shape
            }
            9 if shape.height > 2 && shape.width > 2 => {
                let (stride, pad, counted) = (rng.random_range(1..=3), rng.random_range(0..=1), rng.random_range(0..2) == 0);
                let node = json!({"op": "avg_pool2d", "kernel": [2, 3], "stride": [stride, 2],
                                  "padding": [pad, pad, pad, pad], "count_include_pad": counted});
                b.node(&name, &[&from], node);
                Shape::new(channels, (shape.height + 2 * pad - 2) / stride + 1, (shape.width + 2 * pad - 3) / 2 + 1)
            }
            10 | 11 => {
                let same: Vec<&String> = values.iter().filter(|(_, s)| *s == shape).map(|(n, _)| n).collect();
                let other = same[rng.random_range(0..same.len())].clone();
                let operands = if rng.random_range(0..2) == 0 { [&from, &other] } else { [&other, &from] };
                b.node(&name, &operands.map(String::as_str), json!({"op": "add"}));
                shape
            }
            _ if layer + 3 >= depth && shape.plane() > 1 => {
                let op = if rng.random_range(0..2) == 0 { "flatten" } else { "global_avg_pool" };
                b.node(&name, &[&from], json!({"op": op}));
                Shape::new(if op == "flatten" { shape.len() } else { channels }, 1, 1)
            }
            _ if shape.plane() == 1 => {
                let outputs = rng.random_range(1..=20);
                let size = (channels as f32).recip().sqrt();
                b.random(&format!("{name}.w"), &[outputs, channels], size, rng).random(
                    &format!("{name}.b"),
                    &[outputs],
                    0.5,
                    rng,
                );
                let node = json!({"op": "linear", "weight": format!("{name}.w"), "bias": format!("{name}.b")});
                b.node(&name, &[&from], node);
                Shape::new(outputs, 1, 1)
            }
            _ => continue,
        };
        values.push((name, next));
    }
    values[values.len() - 1].0.clone()
}

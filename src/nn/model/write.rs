//! A model as the file it can be read from.

use super::{ActivationForm, Gather, Model, Node, Operator, Value};
use crate::wire::network::NetworkDigest;
use serde_json::{Value as Json, json};
use std::collections::HashMap;

impl Model {
    /// What keys and ciphertexts of a model that is run without being compiled are known by: anything that changes its answers changes
    /// it, and what it is called does not: an ONNX file is called by its name.
    pub fn digest(&self) -> NetworkDigest {
        NetworkDigest::of(&[b"model", &self.written_as("")])
    }

    /// The model as a file: safetensors with all numbers in f64, so that what is read is what was written, bit for bit.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.written_as(&self.name)
    }

    /// As [`Self::to_bytes`], with another name.
    pub(in crate::nn) fn written_as(&self, called: &str) -> Vec<u8> {
        let mut file = Writer { tensors: Vec::new() };
        let name = |v: &Value| format!("v{}", v.0);
        let nodes: Vec<Json> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(i, node)| {
                let mut json = file.operator(i, node);
                json["name"] = node.name.as_str().into();
                json["inputs"] = node.inputs.iter().map(name).collect();
                json["output"] = name(&Value(i + 1)).into();
                json
            })
            .collect();
        let input = &self.input;
        let graph = json!({
            "name": called,
            "input": {
                "name": "v0", "channels": input.shape.channels, "height": input.shape.height, "width": input.shape.width,
                "mean": input.mean, "std": input.std, "normalisation": input.normalisation, "fit": input.fit,
            },
            "classes": self.classes,
            "nodes": nodes,
            "output": name(&self.output),
            "output_divisor": self.output_divisor,
            "training": self.training,
        });
        let metadata = HashMap::from([
            (super::file::FORMAT.0.to_owned(), super::file::FORMAT.1.to_owned()),
            (super::file::VERSION.0.to_owned(), super::file::VERSION.1.to_owned()),
            ("graph".to_owned(), graph.to_string()),
        ]);
        safetensors_file(&file.tensors, metadata)
    }
}

struct Writer {
    /// Name, shape, little-endian f64.
    tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
}

impl Writer {
    fn tensor(&mut self, node: usize, part: &str, shape: &[usize], values: &[f64]) -> String {
        let name = format!("{node}.{part}");
        self.tensors.push((name.clone(), shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect()));
        name
    }

    /// The node's operator with its attributes.
    fn operator(&mut self, i: usize, node: &Node) -> Json {
        let op = node.operator.name();
        match &node.operator {
            Operator::Conv2d(c) => {
                let outputs = c.bias.len();
                let per_group = c.weight.len() / (outputs * c.window.kernel[0] * c.window.kernel[1]).max(1);
                let shape = [outputs, per_group, c.window.kernel[0], c.window.kernel[1]];
                json!({
                    "op": op, "weight": self.tensor(i, "weight", &shape, &c.weight),
                    "bias": self.tensor(i, "bias", &[outputs], &c.bias), "stride": c.window.stride,
                    "padding": c.window.padding, "dilation": c.window.dilation, "groups": c.groups,
                })
            }
            Operator::Polynomial(p) => {
                let size = p.degree + 1;
                let rows = p.coefficients.len() / size;
                let shape = if p.per_channel { vec![rows, size] } else { vec![size] };
                json!({ "op": op, "coefficients": self.tensor(i, "coefficients", &shape, &p.coefficients) })
            }
            Operator::Activation(function) => json!({ "op": op, "function": function }),
            Operator::Fitted(fitted) => {
                let (series, composite): (Vec<_>, bool) = match &fitted.form {
                    ActivationForm::Chebyshev(p) => (vec![p], false),
                    ActivationForm::Composite(stages) => (stages.iter().collect(), false),
                    ActivationForm::Sign { stages, .. } => (stages.iter().collect(), true),
                };
                let names: Vec<String> = series
                    .iter()
                    .enumerate()
                    .map(|(k, p)| self.tensor(i, &format!("coefficients{k}"), &[p.degree() + 1], p.coefficients()))
                    .collect();
                // Numbers of JSON are read back as they were written; intervals too are to be the same bits.
                json!({
                    "op": op, "function": fitted.function, "coefficients": names, "interval": fitted.interval(),
                    "composite": composite,
                })
            }
            Operator::BatchNorm { factor, offset } => {
                let n = [factor.len()];
                let (zeros, ones) = (vec![0.0; factor.len()], vec![1.0; factor.len()]);
                json!({
                    "op": op, "scale": self.tensor(i, "scale", &n, factor), "bias": self.tensor(i, "bias", &n, offset),
                    "mean": self.tensor(i, "mean", &n, &zeros), "var": self.tensor(i, "var", &n, &ones), "epsilon": 0.0,
                })
            }
            Operator::AvgPool2d { window, count_include_pad } => json!({
                "op": op, "kernel": window.kernel, "stride": window.stride, "padding": window.padding,
                "count_include_pad": count_include_pad,
            }),
            Operator::GlobalAvgPool | Operator::Flatten | Operator::Add | Operator::Multiply => json!({ "op": op }),
            Operator::Rearrange(map) => {
                json!({ "op": op, "channels": map.channels, "rows": map.rows, "columns": map.columns })
            }
            Operator::Gather(map) => {
                let shape = [map.shape.channels, map.shape.height, map.shape.width];
                let index = |from: &u32| if *from == Gather::NONE { -1.0 } else { f64::from(*from) };
                let sources: Vec<f64> = map.sources.iter().map(index).collect();
                let constants = (!map.constants.is_empty()).then(|| self.tensor(i, "constants", &shape, &map.constants));
                json!({ "op": op, "sources": self.tensor(i, "sources", &shape, &sources), "constants": constants })
            }
            Operator::Linear { weight, bias } => {
                let shape = [bias.len(), weight.len() / bias.len().max(1)];
                json!({
                    "op": op, "weight": self.tensor(i, "weight", &shape, weight),
                    "bias": self.tensor(i, "bias", &[bias.len()], bias),
                })
            }
        }
    }
}

/// A safetensors file: the length of the header, the header, the tensors one after the other.
fn safetensors_file(tensors: &[(String, Vec<usize>, Vec<u8>)], metadata: HashMap<String, String>) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!(metadata));
    let mut at = 0;
    for (name, shape, bytes) in tensors {
        let entry = json!({ "dtype": "F64", "shape": shape, "data_offsets": [at, at + bytes.len()] });
        header.insert(name.clone(), entry);
        at += bytes.len();
    }
    let mut header = Json::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    tensors.iter().for_each(|(.., bytes)| file.extend(bytes));
    file
}

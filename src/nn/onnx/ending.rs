//! The end of a graph: which results are computed, what is passed on to them by what only moves elements, and how several are one.

use super::attributes::Attributes;
use super::graph::{Importer, Known, Made, Refusal, Traced, value_name};
use super::op::Op;
use super::schema::{GraphProto, NodeProto};
use super::{IMAGENET_MEAN, IMAGENET_STD, MaxPools, OnnxError, OnnxOptions, Results};
use crate::nn::model::{Fit, GraphSpec, InputSpec, Model, ModelError, Normalisation, TensorData, printable};
use crate::nn::notes::Notes;
use crate::nn::pooling;
use crate::nn::tensor::Shape;
use std::collections::{HashMap, HashSet};

/// Operators that pass every element on, in whatever shape and order.
const VIEWS: [Op; 7] = [Op::Dropout, Op::Flatten, Op::Identity, Op::Reshape, Op::Squeeze, Op::Transpose, Op::Unsqueeze];

/// The names of the results that are computed.
pub(super) fn results<'f>(graph: &'f GraphProto, wanted: &Results) -> Result<Vec<&'f str>, OnnxError> {
    let found = || graph.output.iter().map(|output| printable(&output.name).into_owned()).collect();
    let refuse = |reason: String| OnnxError::Results { reason, found: found() };
    let all = || graph.output.iter().map(|output| output.name.as_str());
    match (wanted, &graph.output[..]) {
        (_, []) => Err(refuse("the graph gives nothing".into())),
        (Results::Only, [only]) => Ok(vec![&only.name]),
        (Results::Only, several) => {
            Err(refuse(format!("the graph gives {} results, and which of them to compute must be said", several.len())))
        }
        (Results::All, _) => Ok(all().collect()),
        (Results::Named(names), _) => {
            let of = |name: &String| {
                let count = names.iter().filter(|n| *n == name).count();
                let own = all().find(|own| own == name).filter(|_| count == 1);
                own.ok_or_else(|| refuse(format!("there is no result {:?}, or it is asked for twice", printable(name))))
            };
            names.iter().map(of).collect()
        }
    }
}

/// The values that are a result or are passed on to it and to nothing else. `order`: the nodes that the results depend on.
pub(super) fn values<'f>(graph: &'f GraphProto, order: &[usize], output: &'f str) -> HashSet<&'f str> {
    let mut readers: HashMap<&str, usize> = HashMap::new();
    let nodes = || order.iter().map(|i| &graph.node[*i]);
    nodes().flat_map(|node| &node.input).for_each(|name| *readers.entry(name).or_default() += 1);
    let makers: HashMap<&str, &NodeProto> =
        nodes().flat_map(|node| node.output.iter().map(move |name| (name.as_str(), node))).collect();
    let mut ends = HashSet::new();
    // What is one result may be read on the way to another.
    let mut next = Some(output).filter(|name| !readers.contains_key(name));
    while let Some(name) = next.filter(|name| ends.insert(*name)) {
        let of = makers.get(name).copied().filter(|node| {
            let cast = || node.op() == Op::Cast && matches!(Attributes(node).int("to", 1), 1 | 10 | 11 | 16);
            VIEWS.contains(&node.op()) || cast()
        });
        next = of.and_then(|node| node.input.first()).map(String::as_str).filter(|name| readers.get(name) == Some(&1));
    }
    ends
}

impl Importer<'_> {
    /// The value of the result; of several, all their elements one after the other.
    pub(super) fn one_result(&mut self, parts: Vec<Traced>, names: &[&str]) -> Result<usize, Refusal> {
        if let [only] = &parts[..] {
            return self.result(only);
        }
        let sizes: Vec<usize> = parts.iter().map(|part| part.dims.iter().product()).collect();
        let vector = |(part, size): (Traced, &usize)| Some(Known::Traced(Traced { dims: vec![1, *size], ..part }));
        let vectors: Vec<Option<Known>> = parts.into_iter().zip(&sizes).map(vector).collect();
        let joined = self.joined(&vectors, 1, "results")?;
        let each = names.iter().zip(&sizes).map(|(name, size)| format!("{} ({size})", printable(name)));
        let note = format!("the results {}, one after the other", each.collect::<Vec<_>>().join(", "));
        self.about_result = Some(self.about_result.take().map_or_else(|| note.clone(), |before| format!("{note}; {before}")));
        self.result(&joined)
    }

    /// The model that was made, with this result.
    pub(super) fn finish(self, result: usize, shape: Shape, turned: bool, options: &OnnxOptions) -> Result<Model, ModelError> {
        let colour = shape.channels == IMAGENET_MEAN.len();
        let or = |given: &[f64], imagenet: &[f64], plain: f64| match (given.is_empty(), colour) {
            (false, _) => given.to_vec(),
            (true, true) => imagenet.to_vec(),
            (true, false) => vec![plain; shape.channels],
        };
        let mut training = Notes::default();
        if turned {
            let note = "the ONNX file takes [1, height, width, channels]; read as channels first";
            training.insert("input", note);
        }
        if let Some(note) = self.about_result {
            training.insert("output", note);
        }
        match self.max_pools {
            (_, names) if names.is_empty() => {}
            (MaxPools::Exact, names) => training.insert(pooling::MAX_POOLS, names),
            (MaxPools::Convolved, names) => training.insert(pooling::STAND_INS, names),
        }
        let spec = GraphSpec {
            name: if options.name.is_empty() { printable(&self.file.name).into_owned() } else { options.name.clone() },
            input: InputSpec {
                name: value_name(0),
                channels: shape.channels,
                height: shape.height,
                width: shape.width,
                mean: or(&options.mean, &IMAGENET_MEAN, 0.0),
                std: or(&options.std, &IMAGENET_STD, 1.0),
                normalisation: Normalisation::default(),
                fit: Fit::default(),
            },
            classes: options.classes.clone(),
            nodes: self.nodes.into_iter().map(Made::finish).collect(),
            output: value_name(result),
            output_divisor: None,
            training,
        };
        // What was computed on the way takes memory, and is not needed any more.
        drop(self.known);
        let tensors: HashMap<_, _> = self.tensors.iter().map(|(name, c)| (name.as_str(), (c, c.little_endian()))).collect();
        Model::from_spec(spec, |name| {
            let (constant, (dtype, bytes)) = tensors.get(name)?;
            Some(TensorData { shape: constant.dims.clone(), dtype: dtype.clone(), bytes })
        })
    }
}

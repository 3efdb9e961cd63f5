//! The walk over a graph.

use super::attributes::Attributes;
use super::constant::{Budget, Constant, MAX_RANK, product};
use super::external::Folder;
use super::folding::{fold, split};
use super::infer::{self, Operand};
use super::input;
use super::op::Op;
use super::order::{called, channels_last, initializers, order};
use super::schema::{DimensionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};
use super::sums::Stack;
use super::values::Named;
use super::view::Room;
use super::whole::Whole;
use super::{LEAST_OPSET, MOST_OPSET, MaxPools, OnnxError, OnnxOptions, ending};
use crate::nn::model::{
    Formula, MAX_ELEMENTS, MAX_EXTENT, MAX_NODES, Model, ModelError, NodeSpec, OperatorSpec, UnsupportedOperator, printable,
};
use crate::nn::tensor::Shape;
use prost::Message;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Numbers of TensorProto.DataType.
const FLOAT: i32 = 1;
pub(super) const INT64: i32 = 7;
const BOOL: i32 = 9;

/// Longest description of a value that is decoded.
const MAX_NOTE_BYTES: usize = 1 << 12;

/// What is known of a value while the graph is walked.
#[derive(Clone)]
pub(super) enum Known {
    /// It does not depend on the picture.
    Constant(Rc<Constant>),
    /// It does.
    Traced(Traced),
    /// An operator made it that is not supported.
    Lost,
}

/// A function of a value of the model, in a shape of the file.
#[derive(Clone)]
pub(super) struct Traced {
    /// The value: 0 is the picture. It may be a view that no node makes yet.
    pub base: usize,
    /// Extents; the elements are in the order of the base's.
    pub dims: Vec<usize>,
    /// What is done to each element.
    pub expression: Formula,
    /// The node of the file that did it last; empty if none did.
    pub name: Rc<str>,
}

impl Traced {
    /// A value as it is.
    pub(super) fn of(base: usize, dims: Vec<usize>) -> Self {
        Self { base, dims, expression: Formula::x(), name: Rc::from("") }
    }
}

/// Why a node did not become part of the model.
pub(super) enum Refusal {
    /// It is not supported; this is what to do instead.
    Unsupported(Cow<'static, str>),
    /// The file is wrong.
    Bad(String),
    /// An operand is lost already.
    Lost,
    /// Something else.
    Failed(ModelError),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Bad(reason)
    }
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        Self::Bad(reason.to_owned())
    }
}

impl From<OnnxError> for Refusal {
    fn from(error: OnnxError) -> Self {
        Self::Failed(error.into())
    }
}

/// A node of the model under construction; values are counted, the picture being 0.
pub(super) struct Made {
    name: String,
    inputs: Vec<usize>,
    output: usize,
    operator: OperatorSpec,
}

impl Made {
    pub(super) fn finish(self) -> NodeSpec {
        let inputs = self.inputs.into_iter().map(value_name).collect();
        NodeSpec { name: self.name, inputs, output: value_name(self.output), operator: self.operator }
    }
}

/// What the model calls a value.
pub(super) fn value_name(value: usize) -> String {
    format!("v{value}")
}

/// The model under construction.
pub(super) struct Importer<'f> {
    pub file: &'f GraphProto,
    initializers: HashMap<&'f str, usize>,
    pub known: HashMap<&'f str, Known>,
    pub budget: Budget,
    /// Where the files beside the model are.
    folder: &'f Folder<'f>,
    pub nodes: Vec<Made>,
    /// Weights by name: the file's where it has one.
    pub tensors: HashMap<String, Rc<Constant>>,
    /// What the file calls a constant; all of them are held by `known`, so that addresses stay theirs.
    called: HashMap<*const Constant, &'f str>,
    /// Pictures of the batch that the file was written for; one of them is read.
    pub batch: usize,
    /// The file's set of operators.
    pub opset: i64,
    /// Constants that are others for the batch of the file than for one picture, as they are for the batch.
    pub as_written: HashMap<&'f str, Rc<Constant>>,
    /// Values of the picture that are integers.
    pub whole: HashMap<&'f str, Whole>,
    /// How often each value is read; the result once more.
    read: HashMap<&'f str, usize>,
    /// Values that are the result, or passed on to it alone.
    ends: HashSet<&'f str>,
    /// What is said of the result: a softmax that was left out, what several are made of.
    pub about_result: Option<String>,
    /// What a MaxPool becomes, and the names of those that there were.
    pub max_pools: (MaxPools, Vec<String>),
    /// Shapes that the file notes, decoded when one is asked for.
    noted: Option<HashMap<String, Vec<usize>>>,
    /// Constants that could not be computed.
    lost_constants: HashSet<&'f str>,
    /// Number types of constants, as ONNX counts them.
    pub number_types: HashMap<&'f str, i32>,
    /// The node that is read, for what is computed for it.
    reading: String,
    /// Shape of each value.
    pub shapes: Vec<Shape>,
    /// The node that makes a value; none of the picture's, and of views that nothing has computed with.
    pub makers: HashMap<usize, usize>,
    /// What values are that are views.
    pub views: HashMap<usize, Rc<Named>>,
    /// The same elements in another shape.
    pub reshaped: HashMap<(usize, Shape), usize>,
    /// What tensors were joined along a new axis, and the extents that made.
    pub stacks: HashMap<usize, (Vec<usize>, Rc<Stack>)>,
    pub room: Room,
    names: HashSet<String>,
    /// Expressions that have become values, by their base.
    pub settled: HashMap<(usize, Formula), usize>,
}

/// The model of a file.
pub(super) fn import(file: &ModelProto, folder: &Folder<'_>, options: &OnnxOptions) -> Result<Model, ModelError> {
    let no_graph = "it has no graph; if it is a model of TensorFlow (.pb) or of Core ML (.mlmodel), convert it to ONNX";
    let graph = file.graph.as_ref().ok_or_else(|| OnnxError::NotOnnx(no_graph.into()))?;
    let own = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let opset = file.opset_import.iter().filter(|o| own(&o.domain)).map(|o| o.version).max().unwrap_or(0);
    if opset < LEAST_OPSET {
        return Err(OnnxError::Opset { found: opset, least: LEAST_OPSET }.into());
    }
    if opset > MOST_OPSET {
        return Err(OnnxError::NewerOpset { found: opset, most: MOST_OPSET }.into());
    }
    let initializers = initializers(graph)?;
    let inputs: Vec<_> = graph.input.iter().filter(|v| !initializers.contains_key(v.name.as_str())).collect();
    let [input] = inputs[..] else { return Err(OnnxError::Inputs { found: inputs.len() }.into()) };
    let outputs = ending::results(graph, &options.results)?;
    let (mut shape, batch) = input::shape(graph, input, &initializers, options.input_size)?;
    let kind = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).map_or(0, |t| t.elem_type);
    super::normalisation::check_type(&input.name, kind)?;
    let turned = channels_last(graph, &input.name, shape, &initializers);
    if turned {
        shape = Shape::new(shape.width, shape.channels, shape.height);
    }
    let order = order(graph, &input.name, &initializers, &outputs)?;
    let mut read = HashMap::new();
    let names = graph.node.iter().flat_map(|node| &node.input).map(String::as_str);
    names.chain(outputs.iter().copied()).for_each(|name| *read.entry(name).or_default() += 1);
    let mut importer = Importer {
        file: graph,
        initializers,
        known: HashMap::new(),
        budget: Budget::new(),
        folder,
        nodes: Vec::new(),
        tensors: HashMap::new(),
        called: HashMap::new(),
        batch,
        opset,
        as_written: HashMap::new(),
        whole: HashMap::new(),
        read,
        ends: outputs.iter().flat_map(|output| ending::values(graph, &order, output)).collect(),
        about_result: None,
        max_pools: (options.max_pools, Vec::new()),
        noted: None,
        lost_constants: HashSet::new(),
        number_types: HashMap::new(),
        reading: String::new(),
        shapes: vec![shape],
        makers: HashMap::new(),
        views: HashMap::new(),
        reshaped: HashMap::new(),
        stacks: HashMap::new(),
        room: Room::new(),
        names: HashSet::new(),
        settled: HashMap::new(),
    };
    let picture = importer.input(shape, turned).map_err(|refusal| match refusal {
        Refusal::Failed(error) => error,
        _ => OnnxError::NotOnnx("its input cannot be transposed".into()).into(),
    })?;
    importer.known.insert(&input.name, Known::Traced(picture));
    importer.whole.extend(Whole::pixels(kind).map(|pixels| (input.name.as_str(), pixels)));
    let mut unsupported = Vec::new();
    for i in order {
        let node = &graph.node[i];
        importer.reading = called(node, i);
        match importer.node(node) {
            Ok(()) => {}
            Err(Refusal::Lost) => importer.lose(node),
            Err(Refusal::Unsupported(advice)) => {
                let operator = match own(&node.domain) {
                    true => printable(&node.op_type).into_owned(),
                    false => printable(&format!("{}.{}", node.domain, node.op_type)).into_owned(),
                };
                unsupported.push(UnsupportedOperator { node: called(node, i), operator, advice });
                importer.lose(node);
            }
            // Behind what is not supported, it may be for this reason that a node does not fit.
            Err(_) if !unsupported.is_empty() => importer.lose(node),
            Err(Refusal::Bad(reason)) => return Err(ModelError::BadNode { node: called(node, i), reason }),
            Err(Refusal::Failed(error)) => return Err(error),
        }
    }
    let mut parts = Vec::with_capacity(outputs.len());
    for output in &outputs {
        match importer.value(output) {
            Ok(Known::Constant(_)) => return Err(OnnxError::ConstantOutput((*output).to_owned()).into()),
            // Not for nothing: what is refused is told below.
            Ok(Known::Lost) | Err(Refusal::Lost) => parts.push(Err(Refusal::Lost)),
            Ok(Known::Traced(traced)) => parts.push(Ok(traced)),
            Err(refusal) => parts.push(Err(refusal)),
        }
    }
    let called = outputs.join(", ");
    let result = parts.into_iter().collect::<Result<Vec<_>, _>>().and_then(|parts| importer.one_result(parts, &outputs));
    let result = match result {
        _ if !unsupported.is_empty() => return Err(ModelError::UnsupportedOperators(unsupported)),
        Ok(value) => value,
        Err(Refusal::Unsupported(advice)) => {
            let operator = UnsupportedOperator { node: printable(&called).into_owned(), operator: "output".into(), advice };
            return Err(ModelError::UnsupportedOperators(vec![operator]));
        }
        Err(Refusal::Failed(error)) => return Err(error),
        Err(Refusal::Bad(reason)) => return Err(ModelError::BadNode { node: called, reason }),
        Err(Refusal::Lost) => return Err(OnnxError::NotOnnx("the output is made by nothing".into()).into()),
    };
    if result == 0 {
        return Err(OnnxError::NotOnnx("the output is the input".into()).into());
    }
    let own = super::normalisation::own(&importer);
    let mut model = importer.finish(result, shape, turned, options)?;
    super::normalisation::settle(&mut model, kind, own, options);
    if !input.name.is_empty() {
        model.input.name = printable(&input.name).into_owned();
    }
    Ok(model)
}

/// A size that a tensor may have.
pub(super) fn extent(value: i64) -> Option<usize> {
    usize::try_from(value).ok().filter(|v| (1..=MAX_EXTENT).contains(v))
}

impl<'f> Importer<'f> {
    fn node(&mut self, node: &'f NodeProto) -> Result<(), Refusal> {
        if !node.domain.is_empty() && node.domain != "ai.onnx" {
            return Err(Refusal::Unsupported("it is an operator of another domain: export with the standard ones".into()));
        }
        let mut operands = Vec::with_capacity(node.input.len());
        for name in &node.input {
            operands.push(if name.is_empty() { None } else { Some(self.value(name)?) });
        }
        let attributes = Attributes(node);
        attributes.check()?;
        self.of_one(node, &mut operands)?;
        let constants: Option<Vec<Option<&Constant>>> = operands
            .iter()
            .map(|o| match o {
                None => Some(None),
                Some(Known::Constant(c)) => Some(Some(&**c)),
                Some(_) => None,
            })
            .collect();
        if let Some(constants) = constants {
            let Some(made) = self.computed(node, &constants)? else {
                return Err(Refusal::Unsupported(
                    "it computes a constant and is not one of the operators that are computed when the file is read: simplify the \
                     file (onnxsim)"
                        .into(),
                ));
            };
            self.note_computed(node, &constants, &made)?;
            for (i, (made, name)) in made.into_iter().zip(&node.output).enumerate() {
                product(&made.dims).filter(|_| made.dims.len() <= MAX_RANK).ok_or("its shape overflows")?;
                let made = Rc::new(made);
                self.called.insert(Rc::as_ptr(&made), name);
                self.make(node, i, Known::Constant(made));
            }
            if let Some(kind) = self.number_type(node) {
                self.number_types.extend(node.output.iter().map(|name| (name.as_str(), kind)));
            }
            return Ok(());
        }
        if operands.iter().flatten().any(|o| matches!(o, Known::Lost)) && super::operators::is_known(node.op()) {
            return Err(Refusal::Lost);
        }
        let whole = self.integers_of(node, &operands)?;
        self.operator(node, &operands)?;
        if let Some(whole) = whole {
            self.whole.extend(node.output.iter().map(|name| (name.as_str(), whole)));
        }
        Ok(())
    }

    /// What a node makes whose operands are all known; none if it is not one of those that are computed.
    fn computed(&mut self, node: &NodeProto, operands: &[Option<&Constant>]) -> Result<Option<Vec<Constant>>, Refusal> {
        let attributes = Attributes(node);
        let kind = self.number_type(node);
        let made = match node.op() {
            Op::Constant => Some(vec![constant(&attributes, self.folder)?]),
            Op::Split => Some(split(operands, node.output.len(), &attributes, &mut self.budget)?),
            Op::Softmax if self.old_softmax(&attributes, operands)? => None,
            _ => fold(&attributes, operands, kind, &mut self.budget)?.map(|made| vec![made]),
        };
        let typed = |constant: Constant| match kind {
            Some(kind) => constant.typed(kind),
            None => constant,
        };
        Ok(made.map(|made| made.into_iter().map(typed).collect()))
    }

    /// Notes what a node makes for the batch of the file, where that is something else than for one picture.
    fn note_computed(&mut self, node: &'f NodeProto, operands: &[Option<&Constant>], made: &[Constant]) -> Result<(), Refusal> {
        let written: Vec<Option<Rc<Constant>>> =
            node.input.iter().map(|name| self.as_written.get(name.as_str()).cloned()).collect();
        if written.iter().all(Option::is_none) {
            return Ok(());
        }
        let all: Vec<Option<&Constant>> = written.iter().zip(operands).map(|(w, of_one)| w.as_deref().or(*of_one)).collect();
        let whole = self.computed(node, &all)?.unwrap_or_default();
        let others = whole.into_iter().zip(made).zip(&node.output).filter(|((whole, of_one), _)| whole != *of_one);
        self.as_written.extend(others.map(|((whole, _), name)| (name.as_str(), Rc::new(whole))));
        Ok(())
    }

    /// Whether a value is the result, or passed on to it and to nothing else.
    pub(super) fn is_at_the_end(&self, name: Option<&String>) -> bool {
        name.is_some_and(|name| self.ends.contains(name.as_str()))
    }

    /// The number type of the constants that a node makes, as ONNX counts them, where it is known: integers are held as i64, and f16 and
    /// bf16 as f32.
    fn number_type(&self, node: &NodeProto) -> Option<i32> {
        let attributes = Attributes(node);
        let of = |i: usize| self.number_types.get(node.input.get(i)?.as_str()).copied();
        match node.op() {
            Op::Constant => Some(attributes.tensor("value")?.data_type),
            Op::ConstantOfShape => Some(attributes.tensor("value").map_or(FLOAT, |value| value.data_type)),
            Op::Shape | Op::Size => Some(INT64),
            Op::Equal
            | Op::Less
            | Op::LessOrEqual
            | Op::Greater
            | Op::GreaterOrEqual
            | Op::And
            | Op::Or
            | Op::Xor
            | Op::Not
            | Op::IsNaN
            | Op::IsInf => Some(BOOL),
            Op::Cast => i32::try_from(attributes.int("to", 1)).ok(),
            Op::QuantizeLinear => match attributes.int("output_dtype", 0) {
                0 => of(2),
                kind => i32::try_from(kind).ok(),
            },
            Op::CastLike | Op::DequantizeLinear | Op::Where => of(1),
            _ => of(0),
        }
    }

    /// A value by name; tensors of the file are decoded when they are first asked for.
    fn value(&mut self, name: &'f str) -> Result<Known, Refusal> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.clone());
        }
        let Some(&at) = self.initializers.get(name) else {
            return Err(Refusal::Bad(format!("it needs the value {name:?}, which nothing makes")));
        };
        let constant = Rc::new(Constant::decode(&self.file.initializer[at], name, self.folder)?);
        self.budget.grant(constant.len());
        self.number_types.insert(name, self.file.initializer[at].data_type);
        self.called.insert(Rc::as_ptr(&constant), name);
        self.known.insert(name, Known::Constant(constant.clone()));
        Ok(Known::Constant(constant))
    }

    /// Notes what a node made.
    pub(super) fn make(&mut self, node: &'f NodeProto, output: usize, value: Known) {
        if let Some(name) = node.output.get(output).filter(|n| !n.is_empty()) {
            self.known.insert(name, value);
        }
    }

    /// Goes on behind a node that did not become part of the model: with unknown values of the shape that its results have, so
    /// that what reads them is looked at too.
    fn lose(&mut self, node: &'f NodeProto) {
        let operand = |name: &'f String| match self.value(name).ok()? {
            Known::Constant(c) => Some(Operand { dims: c.dims.clone(), constant: Some(c) }),
            Known::Traced(x) => Some(Operand { dims: x.dims, constant: None }),
            Known::Lost => None,
        };
        let operands: Vec<Option<Operand>> = node.input.iter().map(operand).collect();
        // A constant that is lost must not be taken for something that depends on the picture.
        let constant = operands.iter().zip(&node.input).all(|(o, name)| {
            name.is_empty() || o.as_ref().is_some_and(|o| o.constant.is_some()) || self.lost_constants.contains(name.as_str())
        });
        let shapes = infer::shapes(&Attributes(node), &operands);
        for (i, name) in node.output.iter().enumerate() {
            if constant {
                self.lost_constants.insert(name);
                self.make(node, i, Known::Lost);
                continue;
            }
            let dims = shapes.get(i).cloned().flatten().or_else(|| self.described(name));
            let usable = |dims: &Vec<usize>| !dims.contains(&0) && product(dims).is_some_and(|n| n <= MAX_ELEMENTS);
            let value = match dims.filter(usable) {
                Some(dims) => Known::Traced(self.placeholder(dims)),
                None => Known::Lost,
            };
            self.make(node, i, value);
        }
    }

    /// An unknown value of a shape. The model that has one is never finished.
    fn placeholder(&mut self, dims: Vec<usize>) -> Traced {
        let shape = match dims[..] {
            [1, channels, height, width] => Shape::new(channels, height, width),
            _ => Shape::new(dims.iter().product(), 1, 1),
        };
        self.shapes.push(shape);
        let value = self.shapes.len() - 1;
        self.makers.insert(value, self.nodes.len());
        let operator = OperatorSpec::Flatten;
        self.nodes.push(Made { name: String::new(), inputs: Vec::new(), output: value, operator });
        Traced::of(value, dims)
    }

    /// The shape that the file notes for a value; an open batch is one picture.
    fn described(&mut self, name: &str) -> Option<Vec<usize>> {
        let file = self.file;
        let shapes = self.noted.get_or_insert_with(|| {
            let small = file.value_info.iter().filter(|info| info.len() <= MAX_NOTE_BYTES);
            let noted = |info: &bytes::Bytes| {
                let info = ValueInfoProto::decode(info.clone()).ok()?;
                let dims = info.r#type?.tensor_type?.shape?.dim;
                let extent = |(i, d): (usize, &DimensionProto)| match d.dim_value {
                    Some(v) => extent(v),
                    None => (i == 0).then_some(1),
                };
                Some((info.name, dims.iter().enumerate().map(extent).collect::<Option<Vec<usize>>>()?))
            };
            small.filter_map(noted).collect()
        });
        let mut dims = shapes.get(name)?.clone();
        match dims.first_mut() {
            Some(first) if *first == self.batch => *first = 1,
            _ => {}
        }
        Some(dims)
    }

    /// Shape of a value of the model.
    pub(super) fn shape(&self, value: usize) -> Shape {
        self.shapes[value]
    }

    /// The operator that made a value, with its operand.
    pub(super) fn maker(&self, value: usize) -> Option<(&OperatorSpec, usize)> {
        let node = self.nodes.get(*self.makers.get(&value)?)?;
        Some((&node.operator, *node.inputs.first()?))
    }

    /// How often a value of the file is read; the result once more.
    pub(super) fn readers(&self, value: &str) -> usize {
        self.read.get(value).copied().unwrap_or(0)
    }

    /// The one node that reads a value, with its result; none if there are several.
    pub(super) fn only_reader(&self, value: usize) -> Option<(usize, &OperatorSpec)> {
        let mut readers = self.nodes.iter().filter(|node| node.inputs.contains(&value));
        let node = readers.next().filter(|_| readers.next().is_none())?;
        Some((node.output, &node.operator))
    }

    /// The values of a tensor that was kept.
    pub(super) fn kept_values(&self, name: &str) -> Option<Vec<f64>> {
        self.tensors.get(name).map(|constant| constant.real())
    }

    /// Adds a node to the model; its value.
    pub(super) fn emit(&mut self, name: &str, inputs: &[usize], operator: OperatorSpec, shape: Shape) -> Result<usize, Refusal> {
        for value in inputs {
            self.realise(*value)?;
        }
        self.shapes.push(shape);
        let value = self.shapes.len() - 1;
        self.push(name, inputs, operator, value)?;
        Ok(value)
    }

    /// Adds the node that makes a value.
    pub(super) fn push(&mut self, name: &str, inputs: &[usize], operator: OperatorSpec, value: usize) -> Result<(), Refusal> {
        if self.nodes.len() >= MAX_NODES {
            return Err(Refusal::Failed(ModelError::TooManyNodes { found: self.nodes.len() + 1, limit: MAX_NODES }));
        }
        let mut unique = name.to_owned();
        while !self.names.insert(unique.clone()) {
            unique = format!("{name}_{}", self.nodes.len());
        }
        self.makers.insert(value, self.nodes.len());
        self.nodes.push(Made { name: unique, inputs: inputs.to_vec(), output: value, operator });
        Ok(())
    }

    /// What the node is called that makes a value.
    pub(super) fn node_of(&self, value: usize) -> Option<String> {
        self.makers.get(&value).map(|node| self.nodes[*node].name.clone())
    }

    /// The factors of a value that is another one times a number for each channel, as [`Self::affine`] makes it; and the other one.
    pub(super) fn channel_factors(&self, value: usize) -> Option<(Rc<Constant>, usize)> {
        let (OperatorSpec::BatchNorm { scale, bias, mean, var, epsilon: 0.0 }, operand) = self.maker(value)? else { return None };
        let all = |name: &String, value: f64| self.tensors.get(name).is_some_and(|c| c.uniform() == Some(value));
        let plain = all(bias, 0.0) && all(mean, 0.0) && all(var, 1.0);
        Some((self.tensors.get(scale).filter(|_| plain)?.clone(), operand))
    }

    /// Keeps a tensor for a node; the name to find it by. What is used twice is held once.
    pub(super) fn keep(&mut self, constant: &Rc<Constant>) -> String {
        let Some(name) = self.called.get(&Rc::as_ptr(constant)) else {
            return self.keep_computed(constant.clone());
        };
        let name = (*name).to_owned();
        match self.tensors.get(&name) {
            Some(kept) if !Rc::ptr_eq(kept, constant) => self.keep_computed(constant.clone()),
            _ => {
                self.tensors.insert(name.clone(), constant.clone());
                name
            }
        }
    }

    /// A tensor that is kept.
    pub(super) fn kept(&self, name: &str) -> Option<Rc<Constant>> {
        self.tensors.get(name).cloned()
    }

    /// As [`Self::keep`], of new values.
    pub(super) fn keep_values(&mut self, dims: Vec<usize>, values: Vec<f64>) -> Result<String, Refusal> {
        self.budget.take(values.len())?;
        Ok(self.keep_computed(Rc::new(Constant { dims, data: super::constant::Data::Real(values) })))
    }

    /// As [`Self::keep`], of a matrix with rows and columns exchanged.
    pub(super) fn keep_turned(&mut self, matrix: &Constant) -> Result<String, Refusal> {
        let turned = matrix.transposed(&[1, 0], &mut self.budget)?;
        Ok(self.keep_computed(Rc::new(turned)))
    }

    /// What the file has no name for is called by the node that it is computed for.
    fn keep_computed(&mut self, constant: Rc<Constant>) -> String {
        let mut name = format!("{} (computed)", self.reading);
        while self.tensors.contains_key(&name) {
            name = format!("{} (computed, {})", self.reading, self.tensors.len());
        }
        self.tensors.insert(name.clone(), constant);
        name
    }
}

/// The value of a Constant node.
fn constant(attributes: &Attributes<'_>, folder: &Folder<'_>) -> Result<Constant, Refusal> {
    let node = attributes.0;
    let scalar = |data| Constant { dims: Vec::new(), data };
    use super::constant::Data::{Single, Whole};
    for attribute in &node.attribute {
        return Ok(match attribute.name.as_str() {
            "value" => {
                let name = node.output.first().map_or("", String::as_str);
                Constant::decode(attribute.t.as_ref().ok_or("it has no value")?, name, folder)?
            }
            "value_float" => scalar(Single(vec![attribute.f])),
            "value_int" => scalar(Whole(vec![attribute.i])),
            "value_floats" => Constant { dims: vec![attribute.floats.len()], data: Single(attribute.floats.clone()) },
            "value_ints" => Constant::whole(attribute.ints.clone()),
            "sparse_value" => return Err(Refusal::Unsupported("a sparse tensor: write it as a dense one".into())),
            _ => continue,
        });
    }
    Err("it has no value that is read".into())
}

/// A name for people: `/layer1/layer1.0/conv1/Conv` is `layer1.0.conv1`.
pub(super) fn readable(node: &NodeProto) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in node.name.split('/').filter(|p| !p.is_empty()) {
        if parts.last().is_some_and(|last| part.strip_prefix(last).is_some_and(|rest| rest.starts_with('.'))) {
            parts.pop();
        }
        parts.push(part);
    }
    // The module that has weights says it all; one that has none is often called only by what it does.
    let weighted = [Op::Conv, Op::Gemm, Op::MatMul, Op::BatchNormalization].contains(&node.op());
    if weighted && parts.len() > 1 && parts.last() == Some(&node.op_type.as_str()) {
        parts.pop();
    }
    let name = parts.join(".");
    let name = if name.is_empty() { node.op_type.to_lowercase() } else { name };
    printable(&name).into_owned()
}

/// Whether a shape has that many elements.
pub(super) fn holds(dims: &[usize], shape: Shape) -> bool {
    product(dims) == Some(shape.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_people() {
        let called =
            |name: &str, op: &str| readable(&NodeProto { name: name.into(), op_type: op.into(), ..NodeProto::default() });
        assert_eq!(called("/layer1/layer1.0/conv1/Conv", "Conv"), "layer1.0.conv1");
        assert_eq!(called("/layer1/layer1.0/Relu", "Relu"), "layer1.0.Relu");
        assert_eq!(called("/layer1/layer1.0/Relu_1", "Relu"), "layer1.0.Relu_1");
        assert_eq!(called("/Relu", "Relu"), "Relu");
        assert_eq!(called("", "Gemm"), "gemm");
    }
}

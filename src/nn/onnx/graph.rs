//! The walk over a graph.

use super::attributes::Attributes;
use super::constant::{Budget, Constant, product};
use super::expression::Expression;
use super::folding::fold;
use super::schema::{GraphProto, ModelProto, NodeProto};
use super::values::Named;
use super::view::Room;
use super::{IMAGENET_MEAN, IMAGENET_STD, LEAST_OPSET, OnnxError, OnnxOptions};
use crate::nn::model::{
    GraphSpec, InputSpec, MAX_EXTENT, MAX_NODES, Model, ModelError, NodeSpec, OperatorSpec, TensorData, UnsupportedOperator,
};
use crate::nn::tensor::Shape;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

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
    pub expression: Rc<Expression>,
    /// The node of the file that did it last; empty if none did.
    pub name: Rc<str>,
}

impl Traced {
    /// A value as it is.
    pub fn of(base: usize, dims: Vec<usize>) -> Self {
        Self { base, dims, expression: Rc::new(Expression::X), name: Rc::from("") }
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

/// The model under construction.
pub(super) struct Importer<'f> {
    file: &'f GraphProto,
    initializers: HashMap<&'f str, usize>,
    known: HashMap<&'f str, Known>,
    pub budget: Budget,
    nodes: Vec<NodeSpec>,
    tensors: HashMap<String, Rc<Constant>>,
    /// Shape of each value.
    pub shapes: Vec<Shape>,
    /// The node that makes a value; none of the picture's, and of views that nothing has computed with.
    pub makers: HashMap<usize, usize>,
    /// What values are that are views.
    pub views: HashMap<usize, Rc<Named>>,
    /// The same elements in another shape.
    pub reshaped: HashMap<(usize, Shape), usize>,
    pub room: Room,
    names: HashSet<String>,
    /// Expressions that have become values, by their base. The expression is kept so that its address stays its own.
    pub settled: HashMap<(usize, *const Expression), (Rc<Expression>, usize)>,
    /// Names of the graph's outputs.
    pub output: &'f str,
}

/// The model of a file.
pub(super) fn import(file: &ModelProto, options: &OnnxOptions) -> Result<Model, ModelError> {
    let graph = file.graph.as_ref().ok_or_else(|| OnnxError::NotOnnx("it has no graph".into()))?;
    let own = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let opset = file.opset_import.iter().filter(|o| own(&o.domain)).map(|o| o.version).max().unwrap_or(0);
    if opset < LEAST_OPSET {
        return Err(OnnxError::Opset { found: opset, least: LEAST_OPSET }.into());
    }
    let initializers: HashMap<&str, usize> = graph.initializer.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
    let inputs: Vec<_> = graph.input.iter().filter(|v| !initializers.contains_key(v.name.as_str())).collect();
    let [input] = inputs[..] else { return Err(OnnxError::Ends { what: "inputs", found: inputs.len() }.into()) };
    let [output] = &graph.output[..] else {
        return Err(OnnxError::Ends { what: "outputs", found: graph.output.len() }.into());
    };
    let mut shape = input_shape(input)?;
    let turned = channels_last(graph, &input.name, shape);
    if turned {
        shape = Shape::new(shape.width, shape.channels, shape.height);
    }
    let mut importer = Importer {
        file: graph,
        initializers,
        known: HashMap::new(),
        budget: Budget::new(),
        nodes: Vec::new(),
        tensors: HashMap::new(),
        shapes: vec![shape],
        makers: HashMap::new(),
        views: HashMap::new(),
        reshaped: HashMap::new(),
        room: Room::new(),
        names: HashSet::new(),
        settled: HashMap::new(),
        output: &output.name,
    };
    let picture = importer.input(shape, turned).map_err(|refusal| match refusal {
        Refusal::Failed(error) => error,
        _ => OnnxError::NotOnnx("its input cannot be transposed".into()).into(),
    })?;
    importer.known.insert(&input.name, Known::Traced(picture));
    let mut unsupported = Vec::new();
    for i in order(graph, &input.name, &importer.initializers, &output.name)? {
        let node = &graph.node[i];
        match importer.node(node) {
            Ok(()) => {}
            Err(Refusal::Lost) => importer.lose(node),
            Err(Refusal::Unsupported(advice)) => {
                let operator = match own(&node.domain) {
                    true => node.op_type.clone(),
                    false => format!("{}.{}", node.domain, node.op_type),
                };
                unsupported.push(UnsupportedOperator { node: called(node, i), operator, advice });
                importer.lose(node);
            }
            Err(Refusal::Bad(reason)) => return Err(ModelError::BadNode { node: called(node, i), reason }),
            Err(Refusal::Failed(error)) => return Err(error),
        }
    }
    let result = match importer.value(&output.name) {
        Ok(Known::Traced(traced)) => importer.result(&traced),
        Ok(Known::Constant(_)) => return Err(OnnxError::ConstantOutput(output.name.clone()).into()),
        Ok(Known::Lost) => Err(Refusal::Lost),
        Err(refusal) => Err(refusal),
    };
    let result = match result {
        _ if !unsupported.is_empty() => return Err(ModelError::UnsupportedOperators(unsupported)),
        Ok(value) => value,
        Err(Refusal::Unsupported(advice)) => {
            let operator = UnsupportedOperator { node: output.name.clone(), operator: "output".into(), advice };
            return Err(ModelError::UnsupportedOperators(vec![operator]));
        }
        Err(Refusal::Failed(error)) => return Err(error),
        Err(Refusal::Bad(reason)) => return Err(ModelError::BadNode { node: output.name.clone(), reason }),
        Err(Refusal::Lost) => return Err(OnnxError::NotOnnx("the output is made by nothing".into()).into()),
    };
    if result == 0 {
        return Err(OnnxError::NotOnnx("the output is the input".into()).into());
    }
    importer.finish(result, shape, turned, options)
}

/// The shape of the picture: one of any number, three fixed extents.
fn input_shape(input: &super::schema::ValueInfoProto) -> Result<Shape, OnnxError> {
    let shape = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).and_then(|t| t.shape.as_ref());
    let dims = shape.map_or(&[][..], |s| &s.dim);
    let shown = || {
        let dim = |d: &super::schema::DimensionProto| match (d.dim_value, &d.dim_param) {
            (Some(v), _) => v.to_string(),
            (None, Some(name)) => name.chars().take(40).collect(),
            (None, None) => "?".to_owned(),
        };
        OnnxError::InputShape { input: input.name.clone(), shape: dims.iter().take(9).map(dim).collect::<Vec<_>>().join(", ") }
    };
    let [batch, rest @ ..] = dims else { return Err(shown()) };
    // A batch of any size may be one.
    if batch.dim_value.is_some_and(|n| n > 1) {
        return Err(shown());
    }
    let extents: Option<Vec<usize>> = rest.iter().map(|d| extent(d.dim_value?)).collect();
    match extents.as_deref() {
        Some(&[channels, height, width]) => Ok(Shape::new(channels, height, width)),
        _ => Err(shown()),
    }
}

/// Whether a file takes pictures with their channels last, as TensorFlow does: all that it does to them is to bring the channels
/// to the front, but for sums and products before.
fn channels_last(graph: &GraphProto, input: &str, shape: Shape) -> bool {
    if shape.width > 4 {
        return false;
    }
    let mut names = HashSet::from([input]);
    let mut found = false;
    for node in graph.node.iter().filter(|node| node.op_type != "Shape") {
        if !node.input.iter().any(|name| names.contains(name.as_str())) {
            continue;
        }
        match node.op_type.as_str() {
            "Identity" | "Cast" | "Add" | "Sub" | "Mul" | "Div" => names.extend(node.output.iter().map(String::as_str)),
            "Transpose" if Attributes(node).ints("perm") == Some(&[0, 3, 1, 2]) => found = true,
            _ => return false,
        }
    }
    found
}

/// A size that a tensor may have.
pub(super) fn extent(value: i64) -> Option<usize> {
    usize::try_from(value).ok().filter(|v| (1..=MAX_EXTENT).contains(v))
}

/// What messages call a node.
fn called(node: &NodeProto, index: usize) -> String {
    if node.name.is_empty() { format!("number {index}") } else { node.name.clone() }
}

/// Indices of the nodes that the output depends on, each after its operands.
fn order(graph: &GraphProto, input: &str, initializers: &HashMap<&str, usize>, output: &str) -> Result<Vec<usize>, ModelError> {
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        for value in node.output.iter().filter(|o| !o.is_empty()) {
            if value == input || makers.insert(value, i).is_some() {
                return Err(ModelError::DuplicateValue { node: called(node, i), value: value.clone() });
            }
        }
    }
    let maker = |by: &str, value: &str| match makers.get(value) {
        Some(i) => Ok(Some(*i)),
        None if value.is_empty() || value == input || initializers.contains_key(value) => Ok(None),
        None => Err(ModelError::UndefinedValue { node: by.to_owned(), value: value.to_owned() }),
    };
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut state = vec![State::New; graph.node.len()];
    let mut order = Vec::new();
    let mut stack: Vec<(usize, usize)> = maker("the graph's output", output)?.into_iter().map(|i| (i, 0)).collect();
    while let Some((i, next)) = stack.pop() {
        state[i] = State::Open;
        let node = &graph.node[i];
        let Some(value) = node.input.get(next) else {
            state[i] = State::Done;
            order.push(i);
            continue;
        };
        stack.push((i, next + 1));
        if let Some(j) = maker(&called(node, i), value)? {
            match state[j] {
                State::New => stack.push((j, 0)),
                State::Done => {}
                State::Open => {
                    let from = stack.iter().position(|(k, _)| *k == j).unwrap_or(0);
                    let nodes = stack[from..].iter().map(|(k, _)| called(&graph.node[*k], *k)).collect();
                    return Err(ModelError::Cycle { nodes });
                }
            }
        }
    }
    Ok(order)
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
        let constants: Option<Vec<Option<&Constant>>> = operands
            .iter()
            .map(|o| match o {
                None => Some(None),
                Some(Known::Constant(c)) => Some(Some(&**c)),
                Some(_) => None,
            })
            .collect();
        let attributes = Attributes(node);
        if let Some(constants) = constants {
            let folded = match node.op_type.as_str() {
                "Constant" => Some(constant(&attributes)?),
                op => fold(op, &attributes, &constants, &mut self.budget)?,
            };
            let Some(folded) = folded else {
                return Err(Refusal::Unsupported(
                    "it is computed from constants, and only shapes and paddings are: simplify the file (onnxsim)".into(),
                ));
            };
            self.make(node, 0, Known::Constant(Rc::new(folded)));
            return Ok(());
        }
        if operands.iter().flatten().any(|o| matches!(o, Known::Lost)) && super::operators::is_known(&node.op_type) {
            return Err(Refusal::Lost);
        }
        self.operator(node, &operands)
    }

    /// A value by name; tensors of the file are decoded when they are first asked for.
    fn value(&mut self, name: &'f str) -> Result<Known, Refusal> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.clone());
        }
        let Some(&at) = self.initializers.get(name) else {
            return Err(Refusal::Bad(format!("it needs the value {name:?}, which nothing makes")));
        };
        let constant = Rc::new(Constant::decode(&self.file.initializer[at])?);
        self.known.insert(name, Known::Constant(constant.clone()));
        Ok(Known::Constant(constant))
    }

    /// Notes what a node made.
    pub fn make(&mut self, node: &'f NodeProto, output: usize, value: Known) {
        if let Some(name) = node.output.get(output).filter(|n| !n.is_empty()) {
            self.known.insert(name, value);
        }
    }

    fn lose(&mut self, node: &'f NodeProto) {
        (0..node.output.len()).for_each(|i| self.make(node, i, Known::Lost));
    }

    /// Shape of a value of the model.
    pub fn shape(&self, value: usize) -> Shape {
        self.shapes[value]
    }

    /// The operator that made a value, with its operand.
    pub fn maker(&self, value: usize) -> Option<(&OperatorSpec, usize)> {
        let node = self.nodes.get(*self.makers.get(&value)?)?;
        Some((&node.operator, node.inputs.first()?.strip_prefix('v')?.parse().ok()?))
    }

    /// Adds a node to the model; its value.
    pub fn emit(&mut self, name: &str, inputs: &[usize], operator: OperatorSpec, shape: Shape) -> Result<usize, Refusal> {
        for value in inputs {
            self.realise(*value)?;
        }
        self.shapes.push(shape);
        let value = self.shapes.len() - 1;
        self.push(name, inputs, operator, value)?;
        Ok(value)
    }

    /// Adds the node that makes a value.
    pub fn push(&mut self, name: &str, inputs: &[usize], operator: OperatorSpec, value: usize) -> Result<(), Refusal> {
        if self.nodes.len() >= MAX_NODES {
            return Err(Refusal::Failed(ModelError::TooManyNodes { found: self.nodes.len() + 1, limit: MAX_NODES }));
        }
        let mut unique = name.to_owned();
        while !self.names.insert(unique.clone()) {
            unique = format!("{name}_{}", self.nodes.len());
        }
        let inputs = inputs.iter().map(|v| format!("v{v}")).collect();
        self.makers.insert(value, self.nodes.len());
        self.nodes.push(NodeSpec { name: unique, inputs, output: format!("v{value}"), operator });
        Ok(())
    }

    /// Keeps a tensor for a node; the name to find it by. What is used twice is held once.
    pub fn keep(&mut self, constant: &Rc<Constant>) -> String {
        let name = format!("{:p}", Rc::as_ptr(constant));
        self.tensors.entry(name.clone()).or_insert_with(|| constant.clone());
        name
    }

    /// A tensor that is kept.
    pub fn kept(&self, name: &str) -> Option<Rc<Constant>> {
        self.tensors.get(name).cloned()
    }

    /// As [`Self::keep`], of new values.
    pub fn keep_values(&mut self, dims: Vec<usize>, values: Vec<f64>) -> Result<String, Refusal> {
        self.budget.take(values.len())?;
        Ok(self.keep(&Rc::new(Constant { dims, data: super::constant::Data::Real(values) })))
    }

    fn finish(self, result: usize, shape: Shape, turned: bool, options: &OnnxOptions) -> Result<Model, ModelError> {
        let colour = shape.channels == IMAGENET_MEAN.len();
        let or = |given: &[f64], imagenet: &[f64], plain: f64| match (given.is_empty(), colour) {
            (false, _) => given.to_vec(),
            (true, true) => imagenet.to_vec(),
            (true, false) => vec![plain; shape.channels],
        };
        let spec = GraphSpec {
            name: if options.name.is_empty() { self.file.name.chars().take(200).collect() } else { options.name.clone() },
            input: InputSpec {
                name: "v0".into(),
                channels: shape.channels,
                height: shape.height,
                width: shape.width,
                mean: or(&options.mean, &IMAGENET_MEAN, 0.0),
                std: or(&options.std, &IMAGENET_STD, 1.0),
            },
            classes: options.classes.clone(),
            nodes: self.nodes,
            output: format!("v{result}"),
            training: match turned {
                true => {
                    serde_json::json!({ "input": "the ONNX file takes [1, height, width, channels]; read as channels first" })
                }
                false => serde_json::Value::Null,
            },
        };
        // In the machine's own memory, numbers are as little-endian as files only on little-endian machines.
        let bytes: HashMap<&str, (&[usize], Cow<'_, [u8]>)> = self
            .tensors
            .iter()
            .map(|(name, c)| {
                let values: Cow<'_, [f64]> = match &c.data {
                    super::constant::Data::Real(v) => Cow::Borrowed(v),
                    super::constant::Data::Whole(_) => Cow::Owned(c.real()),
                };
                let bytes = match values {
                    Cow::Borrowed(v) if cfg!(target_endian = "little") => Cow::Borrowed(bytemuck::cast_slice(v)),
                    v => Cow::Owned(v.iter().flat_map(|v| v.to_le_bytes()).collect()),
                };
                (name.as_str(), (c.dims.as_slice(), bytes))
            })
            .collect();
        Model::from_spec(spec, |name| {
            let (dims, bytes) = bytes.get(name)?;
            Some(TensorData { shape: dims.to_vec(), dtype: safetensors::Dtype::F64, bytes })
        })
    }
}

/// The value of a Constant node.
fn constant(attributes: &Attributes<'_>) -> Result<Constant, Refusal> {
    let node = attributes.0;
    let scalar = |data| Constant { dims: Vec::new(), data };
    use super::constant::Data::{Real, Whole};
    for attribute in &node.attribute {
        return Ok(match attribute.name.as_str() {
            "value" => Constant::decode(attribute.t.as_ref().ok_or("it has no value")?)?,
            "value_float" => scalar(Real(vec![attribute.f.into()])),
            "value_int" => scalar(Whole(vec![attribute.i])),
            "value_floats" => {
                let values: Vec<f64> = attribute.floats.iter().map(|v| f64::from(*v)).collect();
                Constant { dims: vec![values.len()], data: Real(values) }
            }
            "value_ints" => Constant::whole(attribute.ints.clone()),
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
    let weighted = ["Conv", "Gemm", "MatMul", "BatchNormalization"].contains(&node.op_type.as_str());
    if weighted && parts.len() > 1 && parts.last() == Some(&node.op_type.as_str()) {
        parts.pop();
    }
    let name = parts.join(".");
    let name = if name.is_empty() { node.op_type.to_lowercase() } else { name };
    name.chars().take(200).collect()
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

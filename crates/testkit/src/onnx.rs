//! ONNX files built in memory.

use cipherlens::nn::onnx::schema::*;
use prost::Message;

/// Values of a constant.
pub enum Data {
    Real(Vec<f32>),
    Whole(Vec<i64>),
}

/// A file under construction: one input `x`, one output.
#[derive(Clone)]
pub struct File(pub ModelProto);

/// A node; attributes are added with [`Attribute`]'s methods.
pub fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: format!("/{output}/{op}"),
        input: inputs.iter().map(|i| (*i).to_owned()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

/// Attributes of a node.
pub trait Attribute: Sized {
    fn with(self, attribute: AttributeProto) -> Self;

    fn int(self, name: &str, i: i64) -> Self {
        self.with(AttributeProto { name: name.into(), i, ..AttributeProto::default() })
    }
    fn float(self, name: &str, f: f32) -> Self {
        self.with(AttributeProto { name: name.into(), f, ..AttributeProto::default() })
    }
    fn ints(self, name: &str, ints: &[i64]) -> Self {
        self.with(AttributeProto { name: name.into(), ints: ints.to_vec(), ..AttributeProto::default() })
    }
    fn text(self, name: &str, s: &'static str) -> Self {
        self.with(AttributeProto { name: name.into(), s: s.as_bytes().into(), ..AttributeProto::default() })
    }
    fn tensor(self, name: &str, dims: &[i64], data: Data) -> Self {
        let t = Some(tensor("", dims, data));
        self.with(AttributeProto { name: name.into(), t, ..AttributeProto::default() })
    }
}

impl Attribute for NodeProto {
    fn with(mut self, attribute: AttributeProto) -> Self {
        self.attribute.push(attribute);
        self
    }
}

pub fn tensor(name: &str, dims: &[i64], data: Data) -> TensorProto {
    let mut tensor = TensorProto { name: name.into(), dims: dims.to_vec(), ..TensorProto::default() };
    match data {
        Data::Real(values) => {
            tensor.data_type = 1;
            tensor.raw_data = Some(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into());
        }
        Data::Whole(values) => {
            tensor.data_type = 7;
            tensor.int64_data = values;
        }
    }
    tensor
}

/// The description of a value; a negative extent is a name.
pub fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |d: &i64| match *d {
        d if d < 0 => DimensionProto { dim_param: Some("n".into()), dim_value: None },
        d => DimensionProto { dim_value: Some(d), dim_param: None },
    };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let r#type = Some(TypeProto { tensor_type: Some(TensorTypeProto { elem_type: 1, shape }) });
    ValueInfoProto { name: name.into(), r#type }
}

impl File {
    pub fn new(input: &[i64], output: &str) -> Self {
        let graph = GraphProto { input: vec![value("x", input)], output: vec![value(output, &[])], ..GraphProto::default() };
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
        Self(ModelProto { ir_version: 8, graph: Some(graph), opset_import, ..ModelProto::default() })
    }

    pub fn graph(&mut self) -> &mut GraphProto {
        self.0.graph.as_mut().expect("it was made with a graph")
    }

    pub fn node(mut self, node: NodeProto) -> Self {
        self.graph().node.push(node);
        self
    }

    pub fn constant(mut self, name: &str, dims: &[i64], data: Data) -> Self {
        self.graph().initializer.push(tensor(name, dims, data));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }
}

//! What each operator is, and what to do about those that are not supported.

use super::attributes::Attributes;
use super::constant::{Constant, Data};
use super::expression::{Binary, Unary};
use super::graph::{Importer, Known, Refusal, Traced, readable};
use super::schema::NodeProto;
use crate::nn::model::{ActivationFunction, OperatorSpec};
use crate::nn::tensor::Shape;
use std::rc::Rc;

/// Operators that are read where an operand depends on the picture.
const KNOWN: [&str; 62] = [
    "Abs",
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Celu",
    "Clip",
    "Concat",
    "Conv",
    "DepthToSpace",
    "Div",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Gather",
    "GatherND",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "LogSoftmax",
    "MatMul",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Mul",
    "Neg",
    "PRelu",
    "Pad",
    "Pow",
    "Reciprocal",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Resize",
    "Selu",
    "Shape",
    "Sigmoid",
    "Size",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Swish",
    "Tanh",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Upsample",
];

/// Whether an operator could have been read, had its operands been.
pub(super) fn is_known(op: &str) -> bool {
    KNOWN.contains(&op)
}

/// What to use in place of an operator.
fn advice(op: &str) -> &'static str {
    match op {
        "MaxPool" | "GlobalMaxPool" | "ReduceMax" | "AdaptiveMaxPool" => {
            "a maximum is not a polynomial of low degree: put AveragePool (or a strided convolution) in its place and fine-tune"
        }
        "Softmax" | "LogSoftmax" => "inside a network it divides by sums: leave it out (at the end of one it is dropped)",
        "LayerNormalization" | "InstanceNormalization" | "GroupNormalization" | "LRN" | "LpNormalization" => {
            "it divides by a value of the picture: train with BatchNorm, which folds into convolutions"
        }
        "ConvTranspose" => "use Resize (nearest) and a convolution",
        "ArgMax" | "TopK" | "NonMaxSuppression" => "it selects by comparing: leave it out, the client does it after decryption",
        "If" | "Loop" | "Scan" => "control flow cannot depend on encrypted values: export by tracing",
        "LSTM" | "GRU" | "RNN" | "Attention" | "MultiHeadAttention" => "networks for pictures made of convolutions are run",
        "QuantizeLinear" | "DequantizeLinear" | "QLinearConv" | "ConvInteger" => "export the network before quantisation",
        _ => {
            "supported: Conv, BatchNormalization, activations, Add, Sub, Mul and Div by constants, AveragePool, GlobalAveragePool, \
             ReduceMean, Gemm, MatMul, Flatten, Reshape, Transpose, Slice, Gather, Pad, Concat, Split, Expand, Tile, DepthToSpace, \
             SpaceToDepth, Resize (nearest)"
        }
    }
}

impl<'f> Importer<'f> {
    /// An operator with an operand that depends on the picture.
    pub fn operator(&mut self, node: &'f NodeProto, operands: &[Option<Known>]) -> Result<(), Refusal> {
        let attributes = Attributes(node);
        let name = &readable(node);
        let unsupported = || Refusal::Unsupported(advice(&node.op_type).into());
        // Parameters may depend on the picture in a file; the operand that is traced comes first where there is one.
        let x = || match operands.first() {
            Some(Some(Known::Traced(x))) => Ok(x.clone()),
            Some(Some(Known::Constant(_))) => Err(unsupported()),
            Some(Some(Known::Lost)) => Err(Refusal::Lost),
            _ => Err(Refusal::Bad("its first operand is missing".into())),
        };
        let ends = node.output.first().is_some_and(|o| o == self.output);
        let made = match node.op_type.as_str() {
            "Conv" => self.conv(&x()?, operands, &attributes, name)?,
            "BatchNormalization" => self.batch_norm(&x()?, operands, &attributes, name)?,
            "AveragePool" => self.average_pool(&x()?, &attributes, name)?,
            "GlobalAveragePool" => self.global_average(&x()?, true, name)?,
            "ReduceMean" => self.reduce_mean(&x()?, operands, &attributes, name)?,
            "Gemm" => self.gemm(&x()?, operands, &attributes, name)?,
            "MatMul" => self.matmul(&x()?, operands, name)?,
            "Identity" | "Dropout" => x()?,
            "Cast" if matches!(attributes.int("to", 1), 1 | 10 | 11 | 16) => x()?,
            // The largest logit stays the largest.
            "Softmax" | "LogSoftmax" if ends => x()?,
            "Shape" | "Size" => {
                let x = x()?;
                let bound = |at: i64| {
                    (if at < 0 { at.saturating_add(x.dims.len() as i64) } else { at }).clamp(0, x.dims.len() as i64) as usize
                };
                let (start, end) = (bound(attributes.int("start", 0)), bound(attributes.int("end", i64::MAX)));
                let dims: Vec<i64> = x.dims.iter().map(|d| *d as i64).collect();
                let known = if node.op_type == "Shape" {
                    Constant::whole(dims.get(start..end).unwrap_or(&[]).to_vec())
                } else {
                    Constant { dims: Vec::new(), data: Data::Whole(vec![dims.iter().product()]) }
                };
                self.make(node, 0, Known::Constant(Rc::new(known)));
                return Ok(());
            }
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" => {
                self.reshape(&x()?, node, operands, &attributes, name)?
            }
            "Slice" => self.slice(&x()?, operands, name)?,
            "Gather" => self.gather(&x()?, operands, &attributes, name)?,
            "GatherND" => self.gather_nd(&x()?, operands, &attributes, name)?,
            "Expand" => self.expand(&x()?, operands, name)?,
            "Tile" => self.tile(&x()?, operands, name)?,
            "DepthToSpace" => self.depth_to_space(&x()?, false, &attributes, name)?,
            "SpaceToDepth" => self.depth_to_space(&x()?, true, &attributes, name)?,
            "Pad" => self.pad(&x()?, operands, &attributes, name)?,
            "Resize" | "Upsample" => self.resize(&x()?, operands, &attributes, name)?,
            "Concat" => self.concat(operands, &attributes, name)?,
            "Split" => return self.split(&x()?, node, operands, &attributes, name),
            "Sum" | "Mean" => {
                let mut sum: Option<Known> = None;
                for operand in operands.iter().flatten() {
                    sum = Some(match sum {
                        None => operand.clone(),
                        Some(Known::Constant(_)) if matches!(operand, Known::Constant(_)) => return Err(unsupported()),
                        Some(sum) => Known::Traced(self.binary(Binary::Add, &sum, operand, name)?),
                    });
                }
                match sum {
                    Some(Known::Traced(sum)) if node.op_type == "Mean" => {
                        let count = Constant { dims: Vec::new(), data: Data::Real(vec![operands.len() as f64]) };
                        self.binary(Binary::Divide, &Known::Traced(sum), &Known::Constant(Rc::new(count)), name)?
                    }
                    Some(Known::Traced(sum)) => sum,
                    _ => return Err(unsupported()),
                }
            }
            op => {
                if let Some(op) = binary(op) {
                    let [Some(a), Some(b)] = operands else { return Err(Refusal::Bad("it has no two operands".into())) };
                    self.binary(op, a, b, name)?
                } else if let Some(op) = unary(&attributes, operands)? {
                    self.unary(&x()?, op, name)?
                } else {
                    return Err(unsupported());
                }
            }
        };
        self.make(node, 0, Known::Traced(made));
        Ok(())
    }

    /// x as a value of the shape that its extents in the file say.
    pub fn picture(&mut self, x: &Traced, name: &str) -> Result<(usize, Shape), Refusal> {
        let shape = match x.dims[..] {
            [1, channels, height, width] => Shape::new(channels, height, width),
            [1, channels] => Shape::new(channels, 1, 1),
            _ => {
                let why = format!("it is used on a tensor of shape {:?}; pictures are [1, channels, height, width]", x.dims);
                return Err(Refusal::Unsupported(why.into()));
            }
        };
        Ok((self.placed(x, shape, name)?, shape))
    }

    /// A node whose result is a picture.
    pub fn emit_picture(
        &mut self,
        name: &str,
        inputs: &[usize],
        operator: OperatorSpec,
        shape: Shape,
    ) -> Result<Traced, Refusal> {
        let base = self.emit(name, inputs, operator, shape)?;
        let dims = vec![1, shape.channels, shape.height, shape.width];
        Ok(Traced::of(base, dims))
    }
}

/// An operand that must be known; none if it is left out.
pub(super) fn constant(operands: &[Option<Known>], i: usize) -> Result<Option<Rc<Constant>>, Refusal> {
    match operands.get(i) {
        None | Some(None) => Ok(None),
        Some(Some(Known::Constant(c))) => Ok(Some(c.clone())),
        Some(Some(Known::Lost)) => Err(Refusal::Lost),
        Some(Some(Known::Traced(_))) => Err(Refusal::Unsupported(
            format!("operand {i} depends on the picture; weights and shapes must be known beforehand").into(),
        )),
    }
}

fn binary(op: &str) -> Option<Binary> {
    Some(match op {
        "Add" => Binary::Add,
        "Sub" => Binary::Subtract,
        "Mul" => Binary::Multiply,
        "Div" => Binary::Divide,
        "Pow" => Binary::Power,
        "Min" => Binary::Least,
        "Max" => Binary::Greatest,
        _ => return None,
    })
}

fn unary(a: &Attributes<'_>, operands: &[Option<Known>]) -> Result<Option<Unary>, Refusal> {
    use ActivationFunction::*;
    let function = match a.0.op_type.as_str() {
        "Neg" => return Ok(Some(Unary::Negative)),
        "Abs" => return Ok(Some(Unary::Absolute)),
        "Sqrt" => return Ok(Some(Unary::Root)),
        "Exp" => return Ok(Some(Unary::Exponential)),
        "Reciprocal" => return Ok(Some(Unary::Reciprocal)),
        "Relu" => Relu,
        "LeakyRelu" => LeakyRelu { alpha: a.float("alpha", 0.01) },
        "PRelu" => match constant(operands, 1)?.and_then(|slope| slope.uniform()) {
            Some(alpha) => LeakyRelu { alpha },
            None => return Err(Refusal::Unsupported("a PRelu with one slope for all channels is supported".into())),
        },
        "Elu" => Elu { alpha: a.float("alpha", 1.0) },
        "Selu" => Selu { alpha: a.float("alpha", 1.67326), gamma: a.float("gamma", 1.0507) },
        "Celu" => Celu { alpha: a.float("alpha", 1.0) },
        "Gelu" if a.text("approximate") == "tanh" => GeluTanh,
        "Gelu" => Gelu,
        "Sigmoid" => Sigmoid,
        "HardSigmoid" => HardSigmoid { alpha: a.float("alpha", 0.2), beta: a.float("beta", 0.5) },
        "HardSwish" => HardSwish,
        "Swish" if a.float("alpha", 1.0) == 1.0 => Silu,
        "Tanh" => Tanh,
        "Softplus" => Softplus,
        "Softsign" => Softsign,
        "Mish" => Mish,
        "Erf" => Erf,
        "Clip" => {
            let bound = |i| Ok::<_, Refusal>(constant(operands, i)?.and_then(|b| b.uniform()));
            match (bound(1)?, bound(2)?) {
                (Some(0.0), None) => Relu,
                (Some(0.0), Some(max)) if max >= 1e30 => Relu,
                (Some(min), Some(max)) => Clip { min, max },
                _ => return Err(Refusal::Unsupported("a Clip with both bounds is supported, or one at 0 from below".into())),
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(Unary::Activation(function)))
}

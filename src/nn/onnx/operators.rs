//! What each operator is, and what to do about those that are not supported.

use super::attributes::Attributes;
use super::constant::{Constant, Data};
use super::graph::{INT64, Importer, Known, Refusal, Traced, readable};
use super::op::Op;
use super::schema::NodeProto;
use crate::nn::model::formula::{Binary, Unary};
use crate::nn::model::{ActivationFunction, OperatorSpec};
use crate::nn::tensor::Shape;
use std::rc::Rc;

/// Operators that are read where an operand depends on the picture.
const KNOWN: [Op; 90] = [
    Op::Abs,
    Op::Add,
    Op::And,
    Op::Asinh,
    Op::Atan,
    Op::AveragePool,
    Op::BatchNormalization,
    Op::Cast,
    Op::Celu,
    Op::Clip,
    Op::Concat,
    Op::Conv,
    Op::ConvTranspose,
    Op::Cos,
    Op::Cosh,
    Op::DepthToSpace,
    Op::Div,
    Op::Dropout,
    Op::Elu,
    Op::Equal,
    Op::Erf,
    Op::Exp,
    Op::Expand,
    Op::Flatten,
    Op::Gather,
    Op::GatherND,
    Op::Gelu,
    Op::Gemm,
    Op::GlobalAveragePool,
    Op::GlobalMaxPool,
    Op::Greater,
    Op::GreaterOrEqual,
    Op::HardSigmoid,
    Op::HardSwish,
    Op::Identity,
    Op::LeakyRelu,
    Op::Less,
    Op::LessOrEqual,
    Op::Log,
    Op::LogSoftmax,
    Op::MatMul,
    Op::Max,
    Op::MaxPool,
    Op::Mean,
    Op::Min,
    Op::Mish,
    Op::Mul,
    Op::Neg,
    Op::Not,
    Op::Or,
    Op::PRelu,
    Op::Pad,
    Op::Pow,
    Op::Reciprocal,
    Op::ReduceL1,
    Op::ReduceMax,
    Op::ReduceMean,
    Op::ReduceMin,
    Op::ReduceSum,
    Op::ReduceSumSquare,
    Op::Relu,
    Op::Reshape,
    Op::Resize,
    Op::Selu,
    Op::Shape,
    Op::Shrink,
    Op::Sigmoid,
    Op::Sign,
    Op::Sin,
    Op::Sinh,
    Op::Size,
    Op::Slice,
    Op::Softmax,
    Op::Softplus,
    Op::Softsign,
    Op::SpaceToDepth,
    Op::Split,
    Op::Sqrt,
    Op::Squeeze,
    Op::Sub,
    Op::Sum,
    Op::Swish,
    Op::Tan,
    Op::Tanh,
    Op::ThresholdedRelu,
    Op::Tile,
    Op::Transpose,
    Op::Unsqueeze,
    Op::Upsample,
    Op::Where,
];

/// Whether an operator could have been read, had its operands been.
pub(super) fn is_known(op: Op) -> bool {
    KNOWN.contains(&op)
}

/// What to use in place of an operator.
fn advice(op: Op) -> &'static str {
    match op {
        Op::Softmax | Op::LogSoftmax => {
            "inside a network it divides by sums, but for those of 2: leave it out (at the end of one it is dropped)"
        }
        Op::LayerNormalization | Op::InstanceNormalization | Op::GroupNormalization | Op::LRN | Op::LpNormalization => {
            "it divides by a value of the picture: train with BatchNorm, which folds into convolutions"
        }
        Op::ArgMax | Op::TopK | Op::NonMaxSuppression => {
            "it selects by comparing: leave it out, the client does it after decryption"
        }
        Op::If | Op::Loop | Op::Scan => "control flow cannot depend on encrypted values: export by tracing",
        Op::LSTM | Op::GRU | Op::RNN | Op::Attention | Op::MultiHeadAttention => {
            "networks made of convolutions run, sequences and attention do not: use convolutions and pooling in its place, or another network"
        }
        Op::QuantizeLinear | Op::DequantizeLinear | Op::QLinearConv | Op::ConvInteger => "export the network before quantisation",
        _ => {
            "supported: Conv, ConvTranspose, BatchNormalization, functions of single elements, Add, Sub, Mul, Max and Min, Div by constants, MaxPool, AveragePool, GlobalAveragePool, \
             GlobalMaxPool, ReduceMean, ReduceSum, ReduceMax, Gemm, MatMul, Flatten, Reshape, Transpose, Slice, Gather, Pad, Concat, Split, Expand, Tile, \
             DepthToSpace, SpaceToDepth, Resize (nearest and linear)"
        }
    }
}

impl<'f> Importer<'f> {
    /// An operator with an operand that depends on the picture.
    pub(super) fn operator(&mut self, node: &'f NodeProto, operands: &[Option<Known>]) -> Result<(), Refusal> {
        let attributes = Attributes(node);
        let name = &readable(node);
        let unsupported = || Refusal::Unsupported(advice(node.op()).into());
        // Parameters may depend on the picture in a file; the operand that is traced comes first where there is one.
        let x = || match operands.first() {
            Some(Some(Known::Traced(x))) => Ok(x.clone()),
            Some(Some(Known::Constant(_))) => Err(unsupported()),
            Some(Some(Known::Lost)) => Err(Refusal::Lost),
            _ => Err(Refusal::Bad("its first operand is missing".into())),
        };
        let made = match node.op() {
            Op::Conv => self.conv(&x()?, operands, &attributes, name)?,
            Op::ConvTranspose => self.conv_transpose(&x()?, operands, &attributes, name)?,
            Op::BatchNormalization => self.batch_norm(&x()?, operands, &attributes, name)?,
            Op::AveragePool => self.average_pool(&x()?, &attributes, name)?,
            Op::MaxPool => self.max_pool(&x()?, node, &attributes, name)?,
            Op::GlobalMaxPool => {
                let x = x()?;
                let axes: Vec<usize> = (2..x.dims.len()).collect();
                self.greatest_of_axes(&x, node, &axes, true, name)?
            }
            Op::ReduceMax | Op::ReduceMin => {
                self.reduce_max(&x()?, node, operands, &attributes, (node.op() == Op::ReduceMin, name))?
            }
            Op::GlobalAveragePool => self.global_average(&x()?, true, name)?,
            Op::ReduceMean | Op::ReduceSum | Op::ReduceL1 | Op::ReduceSumSquare => {
                self.reduce_sum(&x()?, operands, &attributes, name)?
            }
            Op::Gemm => self.gemm(&x()?, operands, &attributes, name)?,
            Op::MatMul => self.matmul(&x()?, operands, name)?,
            Op::Identity => x()?,
            Op::Dropout => {
                if !is_off(constant(operands, 1)?.as_deref(), operands.get(2)) {
                    return Err(Refusal::Unsupported("it is in training mode: call model.eval() before the export".into()));
                }
                x()?
            }
            Op::Cast if matches!(attributes.int("to", 1), 1 | 10 | 11 | 16) => x()?,
            // Between integers that fit.
            Op::Cast
                if attributes.int("to", 1) != BOOL && node.input.first().is_some_and(|n| self.whole.contains_key(n.as_str())) =>
            {
                x()?
            }
            Op::Softmax | Op::LogSoftmax => {
                let last = self.is_at_the_end(node.output.first());
                self.softmax(&x()?, node, last, name)?
            }
            Op::Shape | Op::Size => {
                let x = x()?;
                let bound = |at: i64| {
                    (if at < 0 { at.saturating_add(x.dims.len() as i64) } else { at }).clamp(0, x.dims.len() as i64) as usize
                };
                let (start, end) = (bound(attributes.int("start", 0)), bound(attributes.int("end", i64::MAX)));
                let dims: Vec<i64> = x.dims.iter().map(|d| *d as i64).collect();
                let known = if node.op() == Op::Shape {
                    Constant::whole(dims.get(start..end).unwrap_or(&[]).to_vec())
                } else {
                    Constant { dims: Vec::new(), data: Data::Whole(vec![dims.iter().product()]) }
                };
                let size = node.op() == Op::Size;
                self.note_written(node, &known, !x.dims.is_empty() && (size || start == 0), size);
                self.number_types.extend(node.output.first().map(|name| (name.as_str(), INT64)));
                self.make(node, 0, Known::Constant(Rc::new(known)));
                return Ok(());
            }
            Op::Flatten | Op::Reshape | Op::Squeeze | Op::Unsqueeze | Op::Transpose => {
                self.reshape(&x()?, node, operands, &attributes, name)?
            }
            Op::Slice => self.slice(&x()?, operands, name)?,
            Op::Gather => self.gather(&x()?, operands, &attributes, name)?,
            Op::GatherND => self.gather_nd(&x()?, operands, &attributes, name)?,
            Op::Expand => self.expand(&x()?, operands, name)?,
            Op::Tile => self.tile(&x()?, operands, name)?,
            Op::DepthToSpace => self.depth_to_space(&x()?, false, &attributes, name)?,
            Op::SpaceToDepth => self.depth_to_space(&x()?, true, &attributes, name)?,
            Op::Pad => self.pad(&x()?, operands, &attributes, name)?,
            Op::Resize | Op::Upsample => self.resize(&x()?, operands, &attributes, name)?,
            Op::Concat => self.concat(operands, &attributes, name)?,
            Op::Split => return self.split(&x()?, node, operands, &attributes, name),
            Op::Sum | Op::Mean => {
                let mut sum: Option<Known> = None;
                for operand in operands.iter().flatten() {
                    sum = Some(match sum {
                        None => operand.clone(),
                        Some(Known::Constant(_)) if matches!(operand, Known::Constant(_)) => return Err(unsupported()),
                        Some(sum) => Known::Traced(self.binary(Binary::Add, &sum, operand, name)?),
                    });
                }
                match sum {
                    Some(Known::Traced(sum)) if node.op() == Op::Mean => {
                        let count = Constant { dims: Vec::new(), data: Data::Real(vec![operands.len() as f64]) };
                        self.binary(Binary::Divide, &Known::Traced(sum), &Known::Constant(Rc::new(count)), name)?
                    }
                    Some(Known::Traced(sum)) => sum,
                    _ => return Err(unsupported()),
                }
            }
            op => {
                if let Some(made) = self.pointwise(op, operands, &attributes, name)? {
                    made
                } else if let Some(function) = activation(&attributes) {
                    self.apply(&x()?, &function, name)?
                } else {
                    return Err(unsupported());
                }
            }
        };
        self.make(node, 0, Known::Traced(made));
        Ok(())
    }

    /// x as a value of the shape that its extents in the file say.
    pub(super) fn picture(&mut self, x: &Traced, name: &str) -> Result<(usize, Shape), Refusal> {
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
    pub(super) fn emit_picture(
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

/// Whether a Dropout passes everything on. Of its operands, those that say which part is dropped, and whether it is trained.
pub(super) fn is_off(part: Option<&Constant>, training: Option<&Option<Known>>) -> bool {
    let known = match training {
        None | Some(None) => return true,
        Some(Some(Known::Constant(c))) => c.uniform(),
        Some(Some(_)) => None,
    };
    known == Some(0.0) || part.is_some_and(|part| part.uniform() == Some(0.0))
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

fn unary(op: Op) -> Option<Unary> {
    Some(match op {
        Op::Neg => Unary::Negative,
        Op::Abs => Unary::Absolute,
        Op::Sqrt => Unary::Sqrt,
        Op::Exp => Unary::Exp,
        Op::Log => Unary::Log,
        Op::Sin => Unary::Sin,
        Op::Cos => Unary::Cos,
        Op::Atan => Unary::Atan,
        Op::Sinh => Unary::Sinh,
        Op::Cosh => Unary::Cosh,
        Op::Asinh => Unary::Asinh,
        _ => return None,
    })
}

/// A function of two operands, and whether they change places.
fn binary(op: Op) -> Option<(Binary, bool)> {
    Some(match op {
        Op::Add => (Binary::Add, false),
        Op::Sub => (Binary::Subtract, false),
        Op::Mul => (Binary::Multiply, false),
        Op::Div => (Binary::Divide, false),
        Op::Pow => (Binary::Power, false),
        Op::Min | Op::And => (Binary::Least, false),
        Op::Max | Op::Or => (Binary::Greatest, false),
        Op::Greater => (Binary::Above, false),
        Op::GreaterOrEqual => (Binary::AtLeast, false),
        Op::Less => (Binary::Above, true),
        Op::LessOrEqual => (Binary::AtLeast, true),
        Op::Equal => (Binary::Equal, false),
        _ => return None,
    })
}

/// A number as an operand.
fn number(value: f64) -> Known {
    Known::Constant(Rc::new(Constant { dims: Vec::new(), data: Data::Real(vec![value]) }))
}

impl<'f> Importer<'f> {
    /// An operator that makes every element of its result from one element of each operand; none if it is another.
    fn pointwise(
        &mut self,
        op: Op,
        operands: &[Option<Known>],
        a: &Attributes<'_>,
        name: &str,
    ) -> Result<Option<Traced>, Refusal> {
        let operand = |i: usize| operands.get(i).and_then(Option::as_ref).ok_or_else(|| format!("operand {i} is missing"));
        if let Some((op, swapped)) = binary(op) {
            let mut all: Vec<&Known> = (0..operands.len()).map(operand).collect::<Result<_, _>>()?;
            if matches!(op, Binary::Least | Binary::Greatest) {
                // Of any number of operands, in any order: the constants last.
                all.sort_by_key(|o| matches!(o, Known::Constant(_)));
            } else if all.len() != 2 {
                return Err(Refusal::Bad(format!("it has {} operands, not two", all.len())));
            }
            let (first, rest) = all.split_first().ok_or("it has no operands")?;
            let mut made = Known::clone(first);
            for next in rest {
                let (a, b) = if swapped { (*next, &made) } else { (&made, *next) };
                made = Known::Traced(self.binary(op, a, b, name)?);
            }
            return match made {
                Known::Traced(made) => Ok(Some(made)),
                _ => Err(Refusal::Lost),
            };
        }
        let traced = |i: usize| match operand(i)? {
            Known::Traced(x) => Ok(x.clone()),
            Known::Constant(_) => Err(Refusal::Unsupported("its parameters depend on the picture".into())),
            Known::Lost => Err(Refusal::Lost),
        };
        if let Some(op) = unary(op) {
            return self.unary(&traced(0)?, op, name).map(Some);
        }
        let bound = |i: usize| -> Result<Option<f64>, Refusal> {
            let Some(bound) = constant(operands, i)? else { return Ok(None) };
            let bound = bound.uniform().ok_or("a bound is not one number")?;
            // Some exporters write the largest number where there is no bound.
            Ok((bound.abs() < UNBOUNDED).then_some(bound))
        };
        let made = match op {
            Op::Where => self.select([operand(0)?, operand(1)?, operand(2)?], name)?,
            Op::Not => self.binary(Binary::Subtract, &number(1.0), operand(0)?, name)?,
            Op::Reciprocal => self.binary(Binary::Divide, &number(1.0), operand(0)?, name)?,
            Op::Sign => {
                let x = operand(0)?;
                let above = self.binary(Binary::Above, x, &number(0.0), name)?;
                let below = self.binary(Binary::Above, &number(0.0), x, name)?;
                self.binary(Binary::Subtract, &Known::Traced(above), &Known::Traced(below), name)?
            }
            Op::Tan => {
                let x = traced(0)?;
                let (sine, cosine) = (self.unary(&x, Unary::Sin, name)?, self.unary(&x, Unary::Cos, name)?);
                self.binary(Binary::Divide, &Known::Traced(sine), &Known::Traced(cosine), name)?
            }
            // Any number that is not 0 is true.
            Op::Cast if a.int("to", 1) == BOOL => {
                let zero = self.binary(Binary::Equal, operand(0)?, &number(0.0), name)?;
                self.binary(Binary::Subtract, &number(1.0), &Known::Traced(zero), name)?
            }
            Op::PRelu => {
                let slope = constant(operands, 1)?.ok_or("it has no slope")?;
                self.prelu(&traced(0)?, &slope, name)?
            }
            Op::Clip => {
                let x = traced(0)?;
                match (bound(1)?, bound(2)?) {
                    (None, None) => x,
                    (Some(0.0), None) => self.apply(&x, &ActivationFunction::Relu, name)?,
                    (Some(min), Some(max)) if min <= max => self.apply(&x, &ActivationFunction::Clip { min, max }, name)?,
                    (min, max) => {
                        let mut x = Known::Traced(x);
                        for (op, bound) in [(Binary::Greatest, min), (Binary::Least, max)] {
                            if let Some(bound) = bound {
                                x = Known::Traced(self.binary(op, &x, &number(bound), name)?);
                            }
                        }
                        let Known::Traced(x) = x else { return Err(Refusal::Lost) };
                        x
                    }
                }
            }
            Op::Swish if a.float("alpha", 1.0) != 1.0 => {
                let x = traced(0)?;
                let scaled = self.binary(Binary::Multiply, operand(0)?, &number(a.float("alpha", 1.0)), name)?;
                let sigmoid = self.apply(&scaled, &ActivationFunction::Sigmoid, name)?;
                self.binary(Binary::Multiply, &Known::Traced(x), &Known::Traced(sigmoid), name)?
            }
            Op::ThresholdedRelu => {
                let above = self.binary(Binary::Above, operand(0)?, &number(a.float("alpha", 1.0)), name)?;
                self.select([&Known::Traced(above), operand(0)?, &number(0.0)], name)?
            }
            // x + bias below -lambd, x - bias above lambd, 0 between.
            Op::Shrink => {
                let (x, lambda, bias) = (operand(0)?, a.float("lambd", 0.5), a.float("bias", 0.0));
                let moved = |importer: &mut Self, by: f64| match (x, by == 0.0) {
                    (Known::Traced(x), true) => Ok(x.clone()),
                    _ => importer.binary(Binary::Add, x, &number(by), name),
                };
                let above = self.binary(Binary::Above, x, &number(lambda), name)?;
                let below = self.binary(Binary::Above, &number(-lambda), x, name)?;
                let (less, more) = (moved(self, -bias)?, moved(self, bias)?);
                let inner = self.select([&Known::Traced(above), &Known::Traced(less), &number(0.0)], name)?;
                self.select([&Known::Traced(below), &Known::Traced(more), &Known::Traced(inner)], name)?
            }
            _ => return Ok(None),
        };
        Ok(Some(made))
    }
}

/// No number of a network comes near: a bound beyond it is none.
const UNBOUNDED: f64 = 1e30;
/// The number type of truth values.
const BOOL: i64 = 9;

/// An activation with a name.
fn activation(a: &Attributes<'_>) -> Option<ActivationFunction> {
    use ActivationFunction::*;
    Some(match a.0.op() {
        Op::Relu => Relu,
        Op::LeakyRelu => LeakyRelu { alpha: a.float("alpha", 0.01) },
        Op::Elu => Elu { alpha: a.float("alpha", 1.0) },
        Op::Selu => Selu { alpha: a.float("alpha", 1.67326), gamma: a.float("gamma", 1.0507) },
        Op::Celu => Celu { alpha: a.float("alpha", 1.0) },
        Op::Gelu if a.text("approximate") == "tanh" => GeluTanh,
        Op::Gelu => Gelu,
        Op::Sigmoid => Sigmoid,
        Op::HardSigmoid => HardSigmoid { alpha: a.float("alpha", 0.2), beta: a.float("beta", 0.5) },
        Op::HardSwish => HardSwish,
        Op::Swish => Silu,
        Op::Tanh => Tanh,
        Op::Softplus => Softplus,
        Op::Softsign => Softsign,
        Op::Mish => Mish,
        Op::Erf => Erf,
        _ => return None,
    })
}

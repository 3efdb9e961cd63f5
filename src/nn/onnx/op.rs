//! The operators that anything is known of.

use super::schema::NodeProto;
use std::fmt;

/// Operators by the names that ONNX gives them.
macro_rules! operators {
    ($($name:ident)*) => {
        /// What a node does.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(clippy::upper_case_acronyms, reason = "as ONNX calls them")]
        pub(super) enum Op {
            $($name,)*
            /// Something else, or an operator of another domain.
            Other,
        }

        impl Op {
            fn of(name: &str) -> Self {
                match name {
                    $(stringify!($name) => Self::$name,)*
                    _ => Self::Other,
                }
            }

            fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::Other => "another operator",
                }
            }
        }
    };
}

operators! {
    Abs
    Acos
    Add
    And
    ArgMax
    ArgMin
    Asin
    Asinh
    Atan
    Attention
    AveragePool
    BatchNormalization
    Cast
    CastLike
    Ceil
    Celu
    Clip
    Concat
    Constant
    ConstantOfShape
    Conv
    ConvInteger
    ConvTranspose
    Cos
    Cosh
    CumSum
    DepthToSpace
    DequantizeLinear
    Div
    Dropout
    Einsum
    Elu
    Equal
    Erf
    Exp
    Expand
    Flatten
    Floor
    GRU
    Gather
    GatherElements
    GatherND
    Gelu
    Gemm
    GlobalAveragePool
    GlobalLpPool
    GlobalMaxPool
    Greater
    GreaterOrEqual
    GridSample
    GroupNormalization
    HardSigmoid
    HardSwish
    Hardmax
    Identity
    If
    InstanceNormalization
    IsInf
    IsNaN
    LRN
    LSTM
    LayerNormalization
    LeakyRelu
    Less
    LessOrEqual
    Log
    LogSoftmax
    Loop
    LpNormalization
    LpPool
    MatMul
    MatMulInteger
    Max
    MaxPool
    Mean
    MeanVarianceNormalization
    Min
    Mish
    Mod
    Mul
    MultiHeadAttention
    Neg
    NonMaxSuppression
    Not
    Or
    PRelu
    Pad
    Pow
    QLinearConv
    QuantizeLinear
    RMSNormalization
    RNN
    Range
    Reciprocal
    ReduceL1
    ReduceL2
    ReduceLogSum
    ReduceLogSumExp
    ReduceMax
    ReduceMean
    ReduceMin
    ReduceProd
    ReduceSum
    ReduceSumSquare
    Relu
    Reshape
    Resize
    Round
    Scan
    ScatterElements
    ScatterND
    Selu
    Shape
    Shrink
    Sigmoid
    Sign
    Sin
    Sinh
    Size
    Slice
    Softmax
    Softplus
    Softsign
    SpaceToDepth
    Split
    Sqrt
    Squeeze
    Sub
    Sum
    Swish
    Tan
    Tanh
    ThresholdedRelu
    Tile
    TopK
    Transpose
    Trilu
    Unsqueeze
    Upsample
    Where
    Xor
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Op {
    /// Whether it makes one number of each group of numbers along axes.
    pub(super) fn is_reduction(self) -> bool {
        use Op::*;
        matches!(
            self,
            ReduceL1
                | ReduceL2
                | ReduceLogSum
                | ReduceLogSumExp
                | ReduceMax
                | ReduceMean
                | ReduceMin
                | ReduceProd
                | ReduceSum
                | ReduceSumSquare
        )
    }

    /// Whether it makes each element of one element of each operand, all repeated to each other's shape.
    pub(super) fn repeats_operands(self) -> bool {
        use Op::*;
        matches!(
            self,
            Add | Sub
                | Mul
                | Div
                | Mod
                | Pow
                | Min
                | Max
                | Sum
                | Mean
                | And
                | Or
                | Xor
                | Equal
                | Less
                | LessOrEqual
                | Greater
                | GreaterOrEqual
                | Where
                | PRelu
        )
    }

    /// Whether its result has its first operand's shape: of each element, or of all elements on each.
    pub(super) fn keeps_shape(self) -> bool {
        use Op::*;
        matches!(
            self,
            Abs | Acos
                | Asin
                | Atan
                | BatchNormalization
                | Cast
                | CastLike
                | Ceil
                | Celu
                | Clip
                | Cos
                | Cosh
                | CumSum
                | DequantizeLinear
                | Dropout
                | Elu
                | Erf
                | Exp
                | Floor
                | Gelu
                | GroupNormalization
                | HardSigmoid
                | HardSwish
                | Hardmax
                | Identity
                | InstanceNormalization
                | IsInf
                | IsNaN
                | LRN
                | LayerNormalization
                | LeakyRelu
                | Log
                | LogSoftmax
                | LpNormalization
                | MeanVarianceNormalization
                | Mish
                | Neg
                | Not
                | QuantizeLinear
                | RMSNormalization
                | Reciprocal
                | Relu
                | Round
                | ScatterElements
                | ScatterND
                | Selu
                | Shrink
                | Sigmoid
                | Sign
                | Sin
                | Sinh
                | Softmax
                | Softplus
                | Softsign
                | Sqrt
                | Swish
                | Tan
                | Tanh
                | ThresholdedRelu
                | Trilu
        )
    }
}

impl NodeProto {
    /// What the node does; the name that messages give is `op_type`.
    pub(super) fn op(&self) -> Op {
        Op::of(&self.op_type)
    }
}

"""Weights that are computed in an ONNX file, as onnxruntime computes them.

Writes tests/fixtures/constants.onnx, a network of one pixel whose every convolution has weights made by other operators, and
tests/fixtures/constants.f32, its output for a pixel of 1: all these weights. `python tests/onnx_constants.py` needs onnx,
onnxruntime and numpy.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper, numpy_helper

FIXTURES = Path(__file__).parent / "fixtures"
OPSET = 18
rng = np.random.default_rng(7)
nodes, initializers, parts = [], [], []


def const(array, name=None):
    """A tensor of the file; its name."""
    name = name or f"c{len(initializers)}"
    initializers.append(numpy_helper.from_array(np.asarray(array), name))
    return name


def op(kind, *inputs, outputs=1, domain="", **attributes):
    """A node; the name of its (first) result."""
    made = [f"n{len(nodes)}_{i}" for i in range(outputs)]
    nodes.append(helper.make_node(kind, list(inputs), made, name=f"{kind}_{len(nodes)}", domain=domain, **attributes))
    return made[0] if outputs == 1 else made


def floats(*shape):
    return rng.normal(size=shape).astype(np.float32)


def case(weight):
    """A convolution with a computed weight of any shape, as the next part of the output."""
    column = op("Reshape", op("Cast", weight, to=T.FLOAT), const(np.array([-1, 1, 1, 1])))
    parts.append(op("Conv", "x", column))


def cases():
    w, pos = floats(3, 2, 2), np.abs(floats(3, 2, 2)) + 0.25
    # Weight norm, standardisation, binary weights.
    norm = op("ReduceL2", const(w), const(np.array([1, 2])), keepdims=1)
    case(op("Mul", op("Div", const(w), norm), const(floats(3, 1, 1))))
    mean = op("ReduceMean", const(w), const(np.array([1, 2])), keepdims=1)
    centred = op("Sub", const(w), mean)
    variance = op("ReduceMean", op("Mul", centred, centred), const(np.array([1, 2])))
    case(op("Div", centred, op("Sqrt", op("Add", variance, const(np.float32(1e-5))))))
    flat = op("Reshape", const(w), const(np.array([1, 3, -1])))
    bn = op("BatchNormalization", flat, const(floats(3)), const(floats(3)), const(floats(3)), const(np.abs(floats(3))),
            outputs=3, training_mode=1, epsilon=1e-4)
    case(bn[0])
    case(op("BatchNormalization", flat, const(floats(3)), const(floats(3)), const(floats(3)), const(np.abs(floats(3)))))
    case(op("Mul", op("Sign", const(np.array([-2, 0, 3.5], np.float32))), op("ReduceMean", op("Abs", const(w)), keepdims=0)))
    case(op("Where", op("GreaterOrEqual", const(w), const(np.float32(0))), const(np.float32(1)), const(np.float32(-1))))
    case(op("LpNormalization", const(w), axis=1))
    case(op("LpNormalization", const(w), axis=-1, p=1))
    case(op("InstanceNormalization", const(floats(2, 3, 4)), const(floats(3)), const(floats(3))))
    case(op("LayerNormalization", const(w), const(floats(2, 2)), const(floats(2, 2)), axis=1))
    case(op("Softmax", const(w), axis=-1))
    # Quantised weights.
    q = rng.integers(-128, 128, (3, 2, 2)).astype(np.int8)
    case(op("DequantizeLinear", const(q), const(np.float32(0.013)), const(np.int8(-3))))
    case(op("DequantizeLinear", const(q), const(np.abs(floats(3))), const(np.array([1, 2, -3], np.int8)), axis=0))
    case(op("DequantizeLinear", const(q), const(np.abs(floats(2)))))
    case(op("DequantizeLinear", const((q.astype(int) + 128).astype(np.uint8)), const(np.float32(0.5)), const(np.uint8(128))))
    case(op("DequantizeLinear", const(rng.integers(-2**31, 2**31, 5).astype(np.int32)), const(np.float32(1e-7))))
    for zero, scale, axis in [(np.int8(0), np.float32(0.02), 1), (np.uint8(128), np.float32(0.02), 1),
                              (np.zeros(3, np.int8), np.array([0.01, 0.02, 0.5], np.float32), 0)]:
        scale, zero = const(scale), const(zero)
        quantised = op("QuantizeLinear", const(w), scale, zero, axis=axis)
        if axis == 0:
            quantised = op("Clip", quantised, const(np.int8(-127)), const(np.int8(127)))
        case(op("DequantizeLinear", quantised, scale, zero, axis=axis))
    halves = const(np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32))
    case(op("QuantizeLinear", halves, const(np.float32(1)), op("Cast", const(np.float32(0)), to=T.INT8)))
    case(op("Round", halves))
    # Reductions.
    for kind in ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"]:
        case(op(f"Reduce{kind}", const(pos), const(np.array([0, -1])), keepdims=0))
        case(op(f"Reduce{kind}", const(pos)))
        case(op(f"Reduce{kind}", const(pos), const(np.array([1])), keepdims=1))
    case(op("ReduceSum", const(pos), noop_with_empty_axes=1))
    ints = const(np.array([[7, -2], [3, 5]], np.int64))
    for kind in ["Sum", "Max", "Min", "Prod"]:
        case(op(f"Reduce{kind}", ints, const(np.array([1])), keepdims=0))
    # Elements.
    for kind in ["Neg", "Abs", "Sign", "Exp", "Floor", "Ceil", "Reciprocal", "Erf", "Sigmoid", "Tanh", "Relu", "Softplus", "Sin",
                 "Cos"]:
        case(op(kind, const(w)))
    for kind in ["Sqrt", "Log"]:
        case(op(kind, const(pos)))
    a, b = const(pos), const(np.abs(floats(2, 1)) + 0.5)
    for kind in ["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"]:
        case(op(kind, a, b))
        case(op(kind, b, a))
    case(op("Sum", a, b, const(np.float32(2))))
    case(op("Mean", a, b, const(np.float32(2))))
    case(op("Mod", const(np.array([7, -7, 7, -7], np.int64)), const(np.array([3, 3, -3, -3], np.int64))))
    case(op("Mod", const(np.array([7.5, -7.5], np.float32)), const(np.float32(2)), fmod=1))
    case(op("Div", const(np.array([7, -7], np.int64)), const(np.array([2, 2], np.int64))))
    for kind in ["Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"]:
        case(op(kind, const(np.array([1, 2, 3], np.float32)), const(np.float32(2))))
    yes, no = const(np.array([True, True, False, False])), const(np.array([True, False, True, False]))
    for kind in ["And", "Or", "Xor"]:
        case(op(kind, yes, no))
    case(op("Not", yes))
    case(op("Clip", const(w), "", const(np.float32(0.3))))
    case(op("Clip", const(w), const(np.float32(-0.3))))
    # f32 all along: in f64 the small term would stay.
    case(op("Sub", op("Add", const(np.float32([1e-4, 3e-5])), const(np.float32(4096))), const(np.float32(4096))))
    # Shapes, and constants made of nothing.
    case(op("Expand", const(floats(2, 1)), const(np.array([3, 1, 2]))))
    case(op("Tile", const(floats(2, 2)), const(np.array([2, 3]))))
    case(op("Transpose", const(w), perm=[2, 0, 1]))
    case(op("Flatten", op("Transpose", const(w)), axis=2))
    case(op("Pad", const(w), const(np.array([0, 1, 0, 1, -1, 1]))))
    first, second = op("Split", const(w), const(np.array([1, 2])), outputs=2, axis=0)
    case(second)
    case(first)
    case(op("Concat", op("Identity", const(w)), op("Unsqueeze", const(floats(2, 2)), const(np.array([0]))), axis=0))
    case(op("ConstantOfShape", const(np.array([2])), value=helper.make_tensor("v", T.FLOAT, [1], [0.75])))
    case(op("Range", const(np.float32(0.5)), const(np.float32(2.1)), const(np.float32(0.4))))
    case(op("Range", const(np.int64(5)), const(np.int64(-1)), const(np.int64(-2))))
    case(op("Gather", const(w), const(np.array([[1, -1]])), axis=0))
    for kind, value in [("value_float", 1.5), ("value_floats", [1.5, -2.5]), ("value_int", 3), ("value_ints", [3, -4])]:
        case(op("Constant", **{kind: value}))
    case(op("Slice", op("Shape", const(floats(2, 3, 4)), start=1), const(np.array([0])), const(np.array([2]))))
    case(op("CastLike", const(np.array([1.7, -1.7], np.float32)), const(np.int64(0))))
    case(op("Cast", const(np.array([1.7, -1.7, 0], np.float32)), to=T.BOOL))
    # Products.
    case(op("MatMul", const(floats(3, 1, 2, 3)), const(floats(2, 3, 4))))
    case(op("MatMul", const(floats(3)), const(floats(3, 2))))
    case(op("Gemm", const(floats(3, 2)), const(floats(4, 3)), const(floats(4)), transA=1, transB=1, alpha=0.5, beta=2.0))
    case(op("Einsum", const(floats(3, 2)), const(floats(2, 4, 2)), equation="oi,ikl->okl"))
    case(op("Einsum", const(floats(3, 3)), equation="ii->i"))


cases()
nodes.append(helper.make_node("Concat", parts, ["y"], axis=1))
graph = helper.make_graph(
    nodes,
    "constants",
    [helper.make_tensor_value_info("x", T.FLOAT, [1, 1, 1, 1])],
    [helper.make_tensor_value_info("y", T.FLOAT, None)],
    initializers,
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
session = onnxruntime.InferenceSession(model.SerializeToString(), options)
(weights,) = session.run(None, {"x": np.ones((1, 1, 1, 1), np.float32)})
FIXTURES.mkdir(exist_ok=True)
onnx.save(model, FIXTURES / "constants.onnx")
weights.astype("<f4").tofile(FIXTURES / "constants.f32")
print(f"{len(parts)} constants, {weights.size} weights")

"""Writes tests/fixtures/pointwise.safetensors: small ONNX files of pointwise functions, in the spellings of several exporters, and
what onnxruntime makes of numbers from -40 to 40.

    python tests/pointwise.py          (needs onnx, onnxruntime and numpy)
"""

import json
import struct
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CHANNELS, HEIGHT, WIDTH = 4, 9, 9


class File:
    """A graph under construction; every method adds one node and returns the name of its result."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value):
        value = np.asarray(value, dtype=getattr(value, "dtype", np.float32))
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def op(self, kind, *operands, **attributes):
        given = [o if isinstance(o, str) else self.constant(o) for o in operands]
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, given, [name], name=f"/{name}/{kind}", **attributes))
        return name

    def bytes(self, opset):
        self.nodes[-1].output[0] = "y"
        shape = [1, CHANNELS, HEIGHT, WIDTH]
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "y")]
        graph = helper.make_graph(self.nodes, "pointwise", ends[:1], ends[1:], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        return model.SerializeToString()


CASES = {}


def case(recognised=None, opset=17):
    """`recognised`: what the reader is to call it, as a list of the nodes it makes; nothing if that is not fixed."""

    def take(build):
        file = File()
        build(file)
        CASES[build.__name__] = (file.bytes(opset), recognised)

    return take


def f32(v):
    return np.float32(v)


# Made of lines.
@case(["clip(0, 12)"])
def relu_then_min(f): f.op("Min", f.op("Relu", "x"), 12)
@case(["clip(0, 10)"])
def relu_then_clip(f): f.op("Clip", f.op("Relu", "x"), -10, 10)
@case(["clip(0, 6)"])
def clip_then_relu(f): f.op("Relu", f.op("Clip", "x", -6, 6))
@case(["batch_norm", "relu", "batch_norm"])
def clip_from_above(f): f.op("Clip", "x", "", 6)
@case(["batch_norm", "relu", "batch_norm"])
def clip_from_below(f): f.op("Clip", "x", -1)
@case(["relu"])
def clip_from_zero(f): f.op("Clip", "x", 0)
@case(["batch_norm", "relu"])
def clip_without_bounds(f): f.op("Relu", f.op("Clip", f.op("Add", "x", 1)))
@case(["clip(-2, 3)"])
def clip_both(f): f.op("Clip", "x", -2, 3)
@case(["clip(-2, 3)"])
def min_of_three(f): f.op("Max", -2, f.op("Min", 3, "x", 20))
@case(["relu"])
def largest_bound(f): f.op("Clip", "x", 0, np.finfo(np.float32).max)
@case(["leaky_relu(-1)"])
def absolute(f): f.op("Abs", "x")
@case(["relu"])
def relu_by_absolute(f): f.op("Mul", f.op("Add", "x", f.op("Abs", "x")), 0.5)
@case(["leaky_relu(0.1)"])
def leaky_by_where(f): f.op("Where", f.op("Greater", "x", 0), "x", f.op("Mul", "x", 0.1))
@case(["leaky_relu(0.25)"])
def leaky_by_max(f): f.op("Max", "x", f.op("Mul", "x", 0.25))
@case(["relu"])
def relu_by_mask(f): f.op("Mul", "x", f.op("Cast", f.op("GreaterOrEqual", "x", 0), to=TensorProto.FLOAT))
@case(["relu"])
def relu_by_less(f): f.op("Where", f.op("Less", "x", 0), 0, "x")
@case(["relu"])
def relu_by_not(f): f.op("Where", f.op("Not", f.op("LessOrEqual", "x", 0)), "x", 0)
@case(["hard_sigmoid(0.2, 0.5)"])
def hard_sigmoid(f): f.op("HardSigmoid", "x")
@case(["hard_sigmoid(0.16666666666666666, 0.5)", "batch_norm"])
def hard_tanh_scaled(f): f.op("Mul", f.op("Clip", f.op("Div", f.op("Add", "x", 3), 6), 0, 1), 3)
@case()
def two_kinks(f): f.op("Sub", f.op("Relu", "x"), f.op("Relu", f.op("Sub", f.op("Mul", "x", 3), 40)))
@case()
def jumps_far_out(f): f.op("Where", f.op("Greater", "x", 12), 7, f.op("Relu", "x"))
@case()
def band(f): f.op("Where", f.op("And", f.op("Greater", "x", -20), f.op("Less", "x", 11)), "x", 1)
@case()
def outside_band(f): f.op("Where", f.op("Or", f.op("Greater", "x", 20), f.op("Less", "x", -11)), "x", -1)
@case()
def thresholded_relu(f): f.op("ThresholdedRelu", "x", alpha=1.5)
@case()
def hard_shrink(f): f.op("Shrink", "x", lambd=0.5)
@case()
def soft_shrink(f): f.op("Shrink", "x", lambd=0.5, bias=0.5)
@case()
def sign(f): f.op("Sign", "x")
@case()
def equal(f): f.op("Where", f.op("Equal", "x", 3), 50, "x")
@case()
def threshold(f): f.op("Where", f.op("LessOrEqual", "x", 2), -7, "x")
@case(["batch_norm", "relu"])
def mirrored_relu(f): f.op("Relu", f.op("Neg", "x"))

# Smooth, with a name.
@case(["gelu"])
def gelu(f): f.op("Mul", f.op("Mul", "x", f.op("Add", f.op("Erf", f.op("Div", "x", f32(2**0.5))), 1)), 0.5)
@case(["gelu"])
def gelu_in_another_order(f): f.op("Mul", f.op("Add", f.op("Mul", f.op("Erf", f.op("Mul", f32(0.5**0.5), "x")), 0.5), 0.5), "x")
@case(["gelu_tanh"])
def gelu_tanh(f):
    inner = f.op("Mul", f.op("Add", "x", f.op("Mul", f.op("Pow", "x", 3), 0.044715)), f32((2 / np.pi) ** 0.5))
    f.op("Mul", f.op("Mul", "x", 0.5), f.op("Add", f.op("Tanh", inner), 1))
@case(["gelu_tanh"])
def gelu_tanh_by_powers(f):
    cube = f.op("Mul", f.op("Mul", "x", "x"), "x")
    inner = f.op("Mul", f.op("Add", f.op("Mul", 0.044715, cube), "x"), 0.7978845608)
    f.op("Mul", f.op("Mul", f.op("Add", 1, f.op("Tanh", inner)), "x"), 0.5)
@case(["silu"])
def silu(f): f.op("Mul", f.op("Sigmoid", "x"), "x")
@case(["silu"])
def silu_by_exp(f): f.op("Div", "x", f.op("Add", 1, f.op("Exp", f.op("Neg", "x"))))
@case(["hard_swish"])
def hard_swish(f): f.op("Div", f.op("Mul", "x", f.op("Clip", f.op("Add", "x", 3), 0, 6)), 6)
@case(["hard_swish"])
def hard_swish_by_sigmoid(f): f.op("Mul", "x", f.op("HardSigmoid", "x", alpha=1 / 6, beta=0.5))
@case(["mish"])
def mish(f): f.op("Mul", "x", f.op("Tanh", f.op("Softplus", "x")))
@case(["mish"])
def mish_by_log(f): f.op("Mul", "x", f.op("Tanh", f.op("Log", f.op("Add", f.op("Exp", "x"), 1))))
@case(["softplus"])
def softplus_by_where(f): f.op("Where", f.op("Greater", "x", 20), "x", f.op("Softplus", "x"))
@case(["softplus"])
def softplus_by_log(f): f.op("Log", f.op("Add", f.op("Exp", "x"), 1))
@case(["softsign"])
def softsign(f): f.op("Div", "x", f.op("Add", f.op("Abs", "x"), 1))
@case(["sigmoid"])
def sigmoid_by_exp(f): f.op("Reciprocal", f.op("Add", f.op("Exp", f.op("Neg", "x")), 1))
@case(["tanh"])
def tanh_by_sigmoid(f): f.op("Sub", f.op("Mul", f.op("Sigmoid", f.op("Mul", "x", 2)), 2), 1)
@case(["batch_norm", "silu"])
def silu_of_a_line(f):
    line = f.op("Sub", f.op("Mul", "x", 0.25), 1)
    f.op("Mul", line, f.op("Sigmoid", line))

# Smooth, without one.
@case(["x * sigmoid(x * 1.702)"])
def quick_gelu(f): f.op("Mul", "x", f.op("Sigmoid", f.op("Mul", "x", 1.702)))
@case(["x * sigmoid(x * 1.001)"])
def nearly_silu(f): f.op("Mul", "x", f.op("Sigmoid", f.op("Mul", "x", 1.001)))
@case()
def softplus_cut_early(f): f.op("Where", f.op("Greater", "x", 2), "x", f.op("Softplus", "x"))
@case()
def softplus_of_beta(f):
    scaled = f.op("Mul", "x", 0.5)
    f.op("Div", f.op("Where", f.op("Greater", scaled, 20), scaled, f.op("Softplus", scaled)), 0.5)
@case()
def log_sigmoid(f): f.op("Log", f.op("Sigmoid", f.op("Mul", "x", 0.125)))
@case()
def log_sigmoid_by_min(f):
    log = f.op("Log", f.op("Add", f.op("Exp", f.op("Neg", f.op("Abs", "x"))), 1))
    f.op("Sub", f.op("Min", "x", 0), log)
@case()
def exponential(f): f.op("Exp", f.op("Mul", "x", 0.1))
@case()
def log_of_relu(f): f.op("Log", f.op("Add", f.op("Relu", "x"), 1))
@case()
def relu_squared(f): f.op("Mul", f.op("Relu", "x"), f.op("Relu", "x"))
@case()
def relu_squared_by_power(f): f.op("Pow", f.op("Relu", "x"), 2)
@case()
def star_relu(f): f.op("Add", f.op("Mul", f.op("Pow", f.op("Relu", "x"), 2), 0.8944), -0.4472)
@case()
def root_of_relu(f): f.op("Sqrt", f.op("Relu", "x"))
@case()
def root_of_square(f): f.op("Sqrt", f.op("Add", f.op("Mul", "x", "x"), 1))
@case()
def tanh_shrink(f): f.op("Sub", "x", f.op("Tanh", "x"))
@case()
def bell(f): f.op("Exp", f.op("Neg", f.op("Mul", f.op("Mul", "x", "x"), 0.01)))
@case()
def waves(f): f.op("Mul", f.op("Sin", f.op("Mul", "x", 0.2)), f.op("Cos", f.op("Mul", "x", 0.1)))
@case()
def arcs(f): f.op("Add", f.op("Atan", "x"), f.op("Asinh", f.op("Mul", "x", 0.5)))
@case()
def hyperbolic(f): f.op("Div", f.op("Sinh", f.op("Mul", "x", 0.1)), f.op("Cosh", f.op("Mul", "x", 0.1)))
@case()
def elu_by_where(f): f.op("Where", f.op("Greater", "x", 0), "x", f.op("Sub", f.op("Exp", f.op("Min", "x", 0)), 1))
@case()
def rational(f): f.op("Div", "x", f.op("Sqrt", f.op("Add", f.op("Pow", "x", 2), 1)))

# Polynomials stay polynomials.
@case(["polynomial"])
def square(f): f.op("Pow", "x", 2)
@case(["polynomial"])
def cubic(f): f.op("Sub", f.op("Mul", f.op("Mul", "x", "x"), f.op("Mul", "x", 0.01)), f.op("Mul", "x", 0.5))

# Slopes.
@case(["leaky_relu(0.25)"])
def prelu_one_slope(f): f.op("PRelu", "x", np.array([0.25], np.float32))
@case(["relu", "batch_norm", "batch_norm", "add"])
def prelu_of_channels(f): f.op("PRelu", "x", np.array([0.1, 0.25, -0.5, 1.0], np.float32).reshape(4, 1, 1))
@case(["relu", "batch_norm", "batch_norm", "add"])
def prelu_of_channels_and_batch(f): f.op("PRelu", "x", np.array([0.0, 0.25, 2.0, 0.125], np.float32).reshape(1, 4, 1, 1))
@case(["leaky_relu(0.5)"])
def prelu_all_alike(f): f.op("PRelu", "x", np.full((4, 1, 1), 0.5, np.float32))
@case(["relu", "batch_norm", "batch_norm", "add"])
def prelu_by_where(f):
    slopes = np.array([0.1, 0.2, 0.3, 0.9], np.float32).reshape(4, 1, 1)
    f.op("Where", f.op("Greater", "x", 0), "x", f.op("Mul", slopes, "x"))
@case()
def prelu_by_relus(f):
    negative = f.op("Mul", f.op("Relu", f.op("Neg", "x")), np.array([0.1, 0.2, 0.3, 0.9], np.float32).reshape(4, 1, 1))
    f.op("Sub", f.op("Relu", "x"), negative)


def inputs():
    rng = np.random.default_rng(5)
    count = CHANNELS * HEIGHT * WIDTH
    whole = np.arange(-40, 41)
    rest = np.concatenate([rng.uniform(-40, 40, count - 81 - 60), rng.uniform(-3, 3, 60)])
    x = rng.permutation(np.concatenate([whole, rest])).astype(np.float32)
    return x.reshape(1, CHANNELS, HEIGHT, WIDTH)


def write(path, tensors, metadata):
    header, at = {"__metadata__": metadata}, 0
    kinds = {np.dtype(np.float32): "F32", np.dtype(np.uint8): "U8"}
    for name, t in tensors.items():
        header[name] = {"dtype": kinds[t.dtype], "shape": list(t.shape), "data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
    text = json.dumps(header, sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t.tobytes() for t in tensors.values()))


def main():
    x = inputs()
    tensors, cases = {"x": x[0]}, []
    for name, (file, recognised) in CASES.items():
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        (y,) = session.run(None, {"x": x})
        if not np.isfinite(y).all():
            raise SystemExit(f"{name} is not finite: {x[~np.isfinite(y)][:4]}")
        tensors[f"{name}.onnx"] = np.frombuffer(file, np.uint8)
        tensors[f"{name}.output"] = y[0]
        cases.append({"name": name, "recognised": recognised})
    path = Path(__file__).parent / "fixtures" / "pointwise.safetensors"
    write(path, tensors, {"onnxruntime": onnxruntime.__version__, "cases": json.dumps(cases)})
    print(f"{path}: {len(cases)} functions, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

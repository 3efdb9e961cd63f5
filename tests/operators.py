"""Random small ONNX graphs with what onnxruntime computes for them, for tests/nn_operators.rs.

    python tests/operators.py --count 600 --seed 1 --out /tmp/operators.safetensors
    CIPHERLENS_OPERATORS=/tmp/operators.safetensors cargo test --test nn_operators -- --ignored --nocapture

Without --count, the graphs that are stored in tests/fixtures/operators.safetensors are written: each kind of operator alone.
Needs onnx, onnxruntime and numpy. The file has three tensors a graph: `name.onnx` (bytes), `name.input` and `name.output`.
"""

import argparse
import json
import os
import pickle
import struct

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

MOST_ELEMENTS = 20_000
onnxruntime.set_default_logger_severity(4)
# What it computes, not what its optimiser makes of a graph.
PLAIN = onnxruntime.SessionOptions()
PLAIN.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


class Graph:
    """A graph that grows by one operator at a time; what onnxruntime refuses is taken back."""

    def __init__(self, rng, opset, shape):
        self.rng, self.opset = rng, opset
        self.nodes, self.constants = [], []
        self.input = rng.normal(size=shape).astype(np.float32)
        self.values = {"x": self.input}
        self.last = "x"
        # Pictures with their channels last are kept as the network takes them here: channels first.
        self.channels_last = False
        self.count = 0

    def constant(self, values, dtype=np.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def model(self, output):
        ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.input.shape)]
        ends.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
        graph = helper.make_graph(self.nodes, "operators", ends[:1], ends[1:], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def node(self, op, inputs, outputs=1, **attributes):
        """Adds an operator; its results' names, or none."""
        names = [f"v{self.count + k}" for k in range(outputs)]
        self.count += outputs
        self.nodes.append(helper.make_node(op, inputs, names, name=names[0], **attributes))
        try:
            for name in names:
                model = self.model(name).SerializeToString()
                value = onnxruntime.InferenceSession(model, PLAIN, providers=["CPUExecutionProvider"]).run(None, {"x": self.input})[0]
                if not 0 < value.size <= MOST_ELEMENTS or not np.isfinite(value).all() or np.abs(value).max() > 1e4:
                    raise ValueError("not for this test")
                self.values[name] = value
        except Exception:
            self.nodes.pop()
            [self.values.pop(name, None) for name in names]
            return None
        self.last = names[-1]
        return names


def integer(rng, low, high):
    """Both ends included."""
    return int(rng.integers(low, high + 1))


def conv(g, x, shape):
    rng = g.rng
    if len(shape) != 4:
        return
    groups = int(rng.choice([d for d in range(1, shape[1] + 1) if shape[1] % d == 0]))
    out = groups * integer(rng, 1, 3)
    kernel = [integer(rng, 1, 3), integer(rng, 1, 4)]
    weight = g.constant(rng.normal(size=[out, shape[1] // groups, *kernel]) / np.sqrt(shape[1] // groups * kernel[0] * kernel[1]))
    inputs = [x, weight] + ([g.constant(rng.normal(size=[out]))] if rng.random() < 0.7 else [])
    attributes = {"group": groups, "kernel_shape": kernel, "strides": [integer(rng, 1, 3), integer(rng, 1, 2)]}
    auto = rng.choice(["", "", "", "VALID", "SAME_UPPER", "SAME_LOWER"])
    if auto:
        attributes["auto_pad"] = auto
    else:
        attributes["pads"] = [integer(rng, 0, 2) for _ in range(4)]
    if rng.random() < 0.3:
        attributes["dilations"] = [integer(rng, 1, 2), integer(rng, 1, 3)]
    g.node("Conv", inputs, **attributes)


def conv_transpose(g, x, shape):
    rng = g.rng
    if len(shape) != 4:
        return
    groups = int(rng.choice([d for d in range(1, shape[1] + 1) if shape[1] % d == 0]))
    kernel, strides = [integer(rng, 1, 4), integer(rng, 1, 3)], [integer(rng, 1, 3), integer(rng, 1, 3)]
    weight = g.constant(rng.normal(size=[shape[1], integer(rng, 1, 3), *kernel]) / np.sqrt(shape[1] // groups * kernel[0] * kernel[1]))
    out = g.constants[-1].dims[1] * groups
    inputs = [x, weight] + ([g.constant(rng.normal(size=[out]))] if rng.random() < 0.7 else [])
    attributes = {"group": groups, "kernel_shape": kernel, "strides": strides}
    if rng.random() < 0.3:
        attributes["dilations"] = [integer(rng, 1, 2), integer(rng, 1, 3)]
    kind = integer(rng, 0, 3)
    if kind < 2:
        attributes["pads"] = [integer(rng, 0, 2) for _ in range(4)]
    elif kind == 2:
        attributes["auto_pad"] = str(rng.choice(["VALID", "SAME_UPPER", "SAME_LOWER"]))
    if rng.random() < 0.4:
        attributes["output_padding"] = [integer(rng, 0, s - 1) for s in strides]
    g.node("ConvTranspose", inputs, **attributes)


def average_pool(g, x, shape):
    rng = g.rng
    kernel = [integer(rng, 1, 4), integer(rng, 1, 4)]
    attributes = {"kernel_shape": kernel, "strides": [integer(rng, 1, 3), integer(rng, 1, 3)]}
    auto = rng.choice(["", "", "", "VALID", "SAME_UPPER", "SAME_LOWER"])
    if auto:
        attributes["auto_pad"] = auto
    elif rng.random() < 0.6:
        attributes["pads"] = [integer(rng, 0, kernel[k % 2] - 1) for k in range(4)]
    # With both, the shapes that onnxruntime infers and those it computes differ.
    if auto not in ("SAME_UPPER", "SAME_LOWER") and rng.random() < 0.4:
        attributes["ceil_mode"] = 1
    if rng.random() < 0.4:
        attributes["count_include_pad"] = 1
    g.node("AveragePool", [x], **attributes)


def max_pool(g, x, shape):
    rng = g.rng
    kernel = [integer(rng, 1, 5), integer(rng, 1, 4)]
    attributes = {"kernel_shape": kernel, "strides": [integer(rng, 1, 4), integer(rng, 1, 3)]}
    auto = rng.choice(["", "", "", "VALID", "SAME_UPPER", "SAME_LOWER"])
    if auto:
        attributes["auto_pad"] = auto
    elif rng.random() < 0.6:
        attributes["pads"] = [integer(rng, 0, kernel[k % 2] - 1) for k in range(4)]
    # With SAME and one of these, the shapes that onnxruntime infers and those it computes differ.
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        if rng.random() < 0.25:
            attributes["dilations"] = [integer(rng, 1, 2), integer(rng, 1, 3)]
        if rng.random() < 0.4:
            attributes["ceil_mode"] = 1
    before = g.node(str(rng.choice(["Relu", "Sigmoid", "Abs"])), [x]) if rng.random() < 0.4 else [x]
    before and g.node("MaxPool", before, **attributes)


def global_max_pool(g, x, shape):
    g.node("GlobalMaxPool", [x])


def reduce_max(g, x, shape):
    rng = g.rng
    axes = sorted(rng.choice(len(shape), size=integer(rng, 1, len(shape)), replace=False).tolist())
    op, keep = str(rng.choice(["ReduceMax", "ReduceMin"])), integer(rng, 0, 1)
    if g.opset >= 18:
        g.node(op, [x, g.constant(axes, np.int64)], keepdims=keep)
    else:
        g.node(op, [x], axes=axes, keepdims=keep)


def gate(g, x, shape):
    """Squeeze and excitation: every channel times a number computed from all of them."""
    if len(shape) != 4:
        return
    mean = g.node("GlobalAveragePool", [x])
    mixed = mean and g.node("Conv", [mean[0], g.constant(g.rng.normal(size=[shape[1], shape[1], 1, 1]))])
    gate = mixed and g.node("Sigmoid", mixed)
    gate and g.node("Mul", [x, gate[0]][:: 1 if g.rng.random() < 0.5 else -1])


def of_two(g, x, shape):
    """Products, sums, greater and lesser ones of two tensors; one may be repeated to the other's shape."""
    rng = g.rng

    def fits(other):
        try:
            return np.broadcast_shapes(shape, other)
        except ValueError:
            return None

    names = [n for n, v in g.values.items() if fits(v.shape)]
    op = str(rng.choice(["Mul", "Mul", "Add", "Sub", "Max", "Min"]))
    g.node(op, [x, str(rng.choice(names))][:: 1 if rng.random() < 0.5 else -1])


def global_average_pool(g, x, shape):
    g.node("GlobalAveragePool", [x])


def batch_norm(g, x, shape):
    rng, n = g.rng, shape[1] if len(shape) > 1 else 1
    scale, bias, mean = (g.constant(rng.normal(size=[n])) for _ in range(3))
    g.node("BatchNormalization", [x, scale, bias, mean, g.constant(rng.uniform(0.3, 2, size=[n]))], epsilon=1e-3)


def pad(g, x, shape):
    rng = g.rng
    mode = str(rng.choice(["constant", "constant", "edge", "reflect"] + (["wrap"] if g.opset >= 19 else [])))
    pads = np.zeros([2, len(shape)], np.int64)
    for axis in range(1, len(shape)):
        if rng.random() < 0.7:
            pads[:, axis] = [integer(rng, -1, 3), integer(rng, -1 if shape[axis] > 2 else 0, 3)]
    inputs = [x, g.constant(pads.ravel(), np.int64)]
    if mode == "constant" and rng.random() < 0.6:
        inputs.append(g.constant(rng.normal()))
    if g.opset >= 18 and rng.random() < 0.3:
        axes = list(rng.permutation(len(shape)))
        inputs[1] = g.constant(pads[:, axes].ravel(), np.int64)
        inputs = [*inputs, *[""] * (3 - len(inputs)), g.constant(axes, np.int64)]
    g.node("Pad", inputs, mode=mode)


def resize(g, x, shape):
    rng = g.rng
    placements = ["asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners", "tf_crop_and_resize"]
    placements += ["half_pixel_symmetric"] if g.opset >= 19 else []
    attributes = {
        "mode": str(rng.choice(["nearest", "nearest", "linear"])),
        "coordinate_transformation_mode": str(rng.choice(placements)),
        "nearest_mode": str(rng.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])),
    }
    axes = list(range(len(shape)))
    if g.opset >= 18 and rng.random() < 0.5:
        axes = sorted(rng.choice(len(shape), size=integer(rng, 1, len(shape)), replace=False).tolist())
        attributes["axes"] = axes
    roi = "" if g.opset >= 13 else g.constant([])
    if attributes["coordinate_transformation_mode"] == "tf_crop_and_resize":
        roi = g.constant(np.concatenate([rng.uniform(-0.2, 0.4, len(axes)), rng.uniform(0.5, 1.2, len(axes))]))
        attributes["extrapolation_value"] = float(np.float32(rng.normal()))
        if len(shape) == 4 and axes == [0, 1, 2, 3]:
            roi = g.constant([0, 0, *rng.uniform(-0.2, 0.4, 2), 1, 1, *rng.uniform(0.5, 1.2, 2)])
    resized = [a for a in axes if a > 1 or len(shape) < 4]
    if rng.random() < 0.5:
        kinds = [lambda: rng.uniform(0.3, 3), lambda: integer(rng, 3, 30) / 10, lambda: integer(rng, 1, 9) / 3]
        scales = [kinds[integer(rng, 0, 2)]() if a in resized and shape[a] > 1 else 1 for a in axes]
        inputs = [x, roi, g.constant(scales)]
    else:
        sizes = [integer(rng, 1, 3 * shape[a]) if a in resized else shape[a] for a in axes]
        inputs = [x, roi, "" if g.opset >= 13 else g.constant([]), g.constant(sizes, np.int64)]
        if g.opset >= 18 and rng.random() < 0.6:
            attributes["keep_aspect_ratio_policy"] = str(rng.choice(["stretch", "not_larger", "not_smaller"]))
    g.node("Resize", inputs, **attributes)


def slices(g, x, shape):
    rng = g.rng
    axes = sorted(rng.choice(len(shape), size=integer(rng, 1, len(shape)), replace=False).tolist())
    starts, ends, steps = [], [], []
    for axis in axes:
        n, step = shape[axis], int(rng.choice([1, 1, 2, 3, -1, -2]))
        low, high = (0, n) if rng.random() < 0.3 else (integer(rng, 0, n // 2), integer(rng, (n + 1) // 2, n))
        (start, end) = (low, high) if step > 0 else (high - 1, low - 1 if low else -n - 1)
        starts.append(start - n if rng.random() < 0.3 and start < n else start)
        ends.append(end if end != n or rng.random() < 0.5 else 2**62)
        steps.append(step)
    axes = [a - len(shape) if rng.random() < 0.3 else a for a in axes]
    g.node("Slice", [x] + [g.constant(v, np.int64) for v in (starts, ends, axes, steps)])


def gather(g, x, shape):
    rng, axis = g.rng, integer(g.rng, 0, len(shape) - 1)
    size = [[], [1], [integer(rng, 1, 5)], [2, 2]][integer(rng, 0, 3)]
    g.node("Gather", [x, g.constant(rng.integers(-shape[axis], shape[axis], size=size), np.int64)], axis=axis)


def gather_nd(g, x, shape):
    rng = g.rng
    batch = integer(rng, 0, 1) if g.opset >= 12 and len(shape) > 1 else 0
    depth = integer(rng, 1, len(shape) - batch)
    lead = [*shape[:batch], *[integer(rng, 1, 3) for _ in range(integer(rng, 1, 2))]]
    indices = np.stack([rng.integers(-n, n, size=lead) for n in shape[batch : batch + depth]], -1)
    attributes = {"batch_dims": batch} if g.opset >= 12 else {}
    g.node("GatherND", [x, g.constant(indices, np.int64)], **attributes)


def reverse_channels_by_gather_nd(g, x, shape):
    """`x[:, [2, 1, 0]]` as torch's dynamo exporter writes it."""
    order = [1, 0, *range(2, len(shape))]
    turned = len(shape) > 1 and g.node("Transpose", [x], perm=order)
    taken = turned and g.node("GatherND", [turned[0], g.constant(np.arange(shape[1])[::-1, None], np.int64)])
    taken and g.node("Transpose", taken, perm=order)


def split(g, x, shape):
    rng, axis = g.rng, integer(g.rng, 1 if len(shape) > 1 else 0, len(shape) - 1)
    if shape[axis] < 2:
        return
    cut = integer(rng, 1, shape[axis] - 1)
    sizes = [cut, shape[axis] - cut]
    parts = (
        g.node("Split", [x, g.constant(sizes, np.int64)], 2, axis=axis)
        if g.opset >= 13
        else g.node("Split", [x], 2, axis=axis, split=sizes)
    )
    if parts and rng.random() < 0.7:
        g.node("Concat", parts[::-1], axis=axis)


def concat(g, x, shape):
    rng, axis = g.rng, integer(g.rng, 0 if g.rng.random() < 0.1 else min(1, len(shape) - 1), len(shape) - 1)
    fit = [n for n, v in g.values.items() if v.ndim == len(shape) and all(v.shape[a] == shape[a] for a in range(v.ndim) if a != axis)]
    parts = [x, *rng.choice(fit, size=integer(rng, 0, 2))]
    if rng.random() < 0.4:
        own = [*shape[:axis], integer(rng, 1, 2), *shape[axis + 1 :]]
        parts.append(g.constant(rng.normal(size=own) * (rng.random() < 0.6)))
    parts = [str(p) for p in rng.permutation(parts)]
    g.node("Concat", parts, axis=axis - len(shape) if rng.random() < 0.2 else axis)


def factors(rng, n, count):
    """Extents whose product is n."""
    parts = [1] * count
    divisor = 2
    while n > 1:
        while n % divisor == 0:
            parts[integer(rng, 0, count - 1)] *= divisor
            n //= divisor
        divisor += 1
    return parts


def reshape(g, x, shape):
    rng = g.rng
    n = int(np.prod(shape))
    wanted = [1, *factors(rng, n, integer(rng, 1, 5))] if rng.random() < 0.8 else factors(rng, n, integer(rng, 1, 4))
    if rng.random() < 0.5:
        wanted[integer(rng, 0, len(wanted) - 1)] = -1
    g.node("Reshape", [x, g.constant(wanted, np.int64)])


def picture_again(g, x, shape):
    """Back to [1, channels, rows, columns]."""
    n = int(np.prod(shape))
    g.node("Reshape", [x, g.constant([1, *factors(g.rng, n, 3)], np.int64)])


def transpose(g, x, shape):
    perm = g.rng.permutation(len(shape)).tolist()
    # What begins with it takes pictures with their channels last.
    if x != "x" or perm != [0, 3, 1, 2]:
        g.node("Transpose", [x], perm=perm)


def channels_last_input(g, x, shape):
    """As TensorFlow's converter writes it; must come first."""
    if len(g.values) > 1 or shape[3] > 4:
        return
    g.channels_last = True
    names = g.node("Mul", [x, g.constant(0.5)]) if g.rng.random() < 0.4 else [x]
    g.node("Transpose", names, perm=[0, 3, 1, 2])
    # Nothing else is to read it.
    for name in {"x", *names}:
        del g.values[name]


def shuffle(g, x, shape):
    """Channels in groups, the groups transposed."""
    if len(shape) != 4:
        return
    groups = int(g.rng.choice([d for d in range(1, shape[1] + 1) if shape[1] % d == 0]))
    apart = g.node("Reshape", [x, g.constant([1, groups, shape[1] // groups, *shape[2:]], np.int64)])
    turned = apart and g.node("Transpose", apart, perm=[0, 2, 1, 3, 4])
    turned and g.node("Reshape", [turned[0], g.constant([1, -1, *shape[2:]], np.int64)])


def depth_to_space(g, x, shape):
    g.node("DepthToSpace", [x], blocksize=integer(g.rng, 2, 3), mode=str(g.rng.choice(["DCR", "CRD"])))


def space_to_depth(g, x, shape):
    g.node("SpaceToDepth", [x], blocksize=integer(g.rng, 2, 3))


def expand(g, x, shape):
    rng = g.rng
    wanted = [integer(rng, 1, 3) if n == 1 and a > 0 else int(rng.choice([1, n])) for a, n in enumerate(shape)]
    g.node("Expand", [x, g.constant(([1] if rng.random() < 0.2 else []) + wanted, np.int64)])


def tile(g, x, shape):
    g.node("Tile", [x, g.constant([1 if a == 0 else integer(g.rng, 1, 2) for a in range(len(shape))], np.int64)])


def roll(g, x, shape):
    axis = integer(g.rng, 0, len(shape) - 1)
    if shape[axis] < 2:
        return
    at = integer(g.rng, 1, shape[axis] - 1)
    sides = [([at], [2**62]), ([0], [at])]
    parts = [g.node("Slice", [x, g.constant(s, np.int64), g.constant(e, np.int64), g.constant([axis], np.int64)]) for s, e in sides]
    all(parts) and g.node("Concat", [parts[0][0], parts[1][0]], axis=axis)


def flip(g, x, shape):
    axis = integer(g.rng, 0, len(shape) - 1)
    g.node("Slice", [x] + [g.constant([v], np.int64) for v in (-1, -(2**62), axis, -1)])


def squeeze(g, x, shape):
    axes = [a for a, n in enumerate(shape) if n == 1 and g.rng.random() < 0.5]
    if not axes or len(axes) == len(shape):
        return
    g.node("Squeeze", [x, g.constant(axes, np.int64)]) if g.opset >= 13 else g.node("Squeeze", [x], axes=axes)


def unsqueeze(g, x, shape):
    axes = [integer(g.rng, 0, len(shape))]
    if len(shape) < 6:
        g.node("Unsqueeze", [x, g.constant(axes, np.int64)]) if g.opset >= 13 else g.node("Unsqueeze", [x], axes=axes)


def flatten(g, x, shape):
    g.node("Flatten", [x], axis=integer(g.rng, 0, 2) if g.rng.random() < 0.3 else 1)


def reduce_mean(g, x, shape, op="ReduceMean"):
    rng = g.rng
    axes = sorted(rng.choice(len(shape), size=integer(rng, 1, len(shape)), replace=False).tolist())
    if len(shape) == 4 and rng.random() < 0.5:
        axes = [[2, 3], [-1, -2], [1, 2], [1]][integer(rng, 0, 3)]
    keep = integer(rng, 0, 1)
    if g.opset >= (13 if op == "ReduceSum" else 18):
        g.node(op, [x, g.constant(axes, np.int64)], keepdims=keep)
    else:
        g.node(op, [x], axes=axes, keepdims=keep)


def reduce_sum(g, x, shape):
    reduce_mean(g, x, shape, str(g.rng.choice(["ReduceSum", "ReduceSum", "ReduceL1", "ReduceSumSquare"])))


def softmax_of_two(g, x, shape):
    """Of two halves of an axis, as one of two."""
    rng = g.rng
    even = [at for at, n in enumerate(shape) if at > 0 and n % 2 == 0]
    # One of all results is left out at the end.
    if not even or np.prod(shape) == 2:
        return
    at = int(rng.choice(even))
    apart = [*shape[:at], 2, shape[at] // 2, *shape[at + 1 :]]
    if g.opset < 13:
        # Of the axis and all behind it.
        apart = [int(np.prod(shape)) // 2, 2]
    x = g.node("Reshape", [x, g.constant(apart, np.int64)])
    x = x and g.node(str(rng.choice(["Softmax", "Softmax", "LogSoftmax"])), x, axis=at if g.opset >= 13 else 1)
    if x:
        g.node("Reshape", [x[0], g.constant(shape, np.int64)])


def stacked(g, x, shape):
    """Tensors of one shape stacked along a new axis, weighed, and summed."""
    rng = g.rng
    names = [n for n, v in g.values.items() if v.shape == shape]
    count, at = integer(rng, 2, 3), integer(rng, 1, len(shape))
    if len(shape) > 4:
        return
    parts = []
    for name in [x, *rng.choice(names, size=count - 1)]:
        if g.opset >= 13:
            parts += g.node("Unsqueeze", [str(name), g.constant([at], np.int64)])
        else:
            parts += g.node("Unsqueeze", [str(name)], axes=[at])
    x = g.node("Concat", parts, axis=at)
    if not x:
        return
    if rng.random() < 0.7:
        dims = g.values[x[0]].shape
        weights = [n if i == at or rng.random() < 0.2 else 1 for i, n in enumerate(dims)]
        by = g.constant(rng.normal(size=weights))
        if count == 2 and rng.random() < 0.5:
            # What both say together weighs each.
            axes = [i for i in range(1, len(dims)) if i != at]
            by = g.node("ReduceMax", x, axes=axes, keepdims=1) if g.opset < 18 else g.node("ReduceMax", [*x, g.constant(axes, np.int64)])
            by = by and g.node("Softmax", by, axis=at) if g.opset >= 13 else by
            by = by[0] if by else x[0]
        x = g.node("Mul", [x[0], by]) or x
    if rng.random() < 0.7:
        op = str(rng.choice(["ReduceSum", "ReduceMean"]))
        if g.opset >= (13 if op == "ReduceSum" else 18):
            g.node(op, [x[0], g.constant([at], np.int64)], keepdims=0)
        else:
            g.node(op, [x[0]], axes=[at], keepdims=0)


def linear(g, x, shape):
    rng = g.rng
    if np.prod(shape) != shape[-1] or len(shape) < 2:
        return
    n, out = shape[-1], integer(rng, 1, 6)
    weight = rng.normal(size=[n, out]) / np.sqrt(n)
    if len(shape) == 2 and rng.random() < 0.6:
        turned = integer(rng, 0, 1)
        inputs = [x, g.constant(weight.T if turned else weight)]
        inputs += [g.constant(rng.normal(size=[[out], [1, out], [1]][integer(rng, 0, 2)]))] if rng.random() < 0.7 else []
        g.node("Gemm", inputs, transB=turned, alpha=float(rng.choice([1, 0.5])), beta=float(rng.choice([1, 2])))
    else:
        g.node("MatMul", [x, g.constant(weight)])


def linear_of_last(g, x, shape):
    """A product with a matrix along the last axis, which may hold the channels."""
    rng = g.rng
    if len(shape) < 2:
        return
    if len(shape) == 4 and rng.random() < 0.6:
        x, = g.node("Transpose", [x], perm=[0, 2, 3, 1])
        if rng.random() < 0.4:
            x, = g.node("Reshape", [x, g.constant([1, -1, shape[1]], np.int64)])
    n, out = g.values[x].shape[-1], integer(rng, 1, 6)
    weight = g.constant(rng.normal(size=[n, out]) / np.sqrt(n))
    if not g.node("MatMul", [x, weight]):
        return
    if rng.random() < 0.6:
        g.node("Add", [g.last, g.constant(rng.normal(size=[out]))])
    if len(g.values[x].shape) == 4 and rng.random() < 0.7:
        g.node("Transpose", [g.last], perm=[0, 3, 1, 2])


def pixel_constants(g, x, shape):
    """A constant for each element of some axes is added, or taken away, or taken from."""
    rng = g.rng
    dims = [n if rng.random() < 0.7 else 1 for n in shape]
    while len(dims) > 1 and dims[0] == 1 and rng.random() < 0.5:
        dims.pop(0)
    operands = [x, g.constant(rng.normal(size=dims))]
    g.node(str(rng.choice(["Add", "Sub"])), operands[:: 1 if rng.random() < 0.6 else -1])


def flat_linear(g, x, shape):
    flat = g.node("Reshape", [x, g.constant([1, -1], np.int64)])
    flat and linear(g, flat[0], g.values[flat[0]].shape)


def channels_last_tail(g, x, shape):
    """How Keras flattens a picture before a linear layer."""
    turned = len(shape) == 4 and g.node("Transpose", [x], perm=[0, 2, 3, 1])
    turned and flat_linear(g, turned[0], g.values[turned[0]].shape)


def pointwise(g, x, shape):
    rng = g.rng
    simple = ["Relu", "Sigmoid", "Tanh", "Softplus", "Neg", "Identity"] + (["HardSwish"] if g.opset >= 14 else [])
    kind = integer(rng, 0, 5)
    if kind < 3:
        g.node(str(rng.choice(simple)), [x])
    elif kind == 3:
        g.node("LeakyRelu", [x], alpha=0.125) if rng.random() < 0.5 else g.node("Elu", [x], alpha=0.75)
    elif kind == 4:
        gate = g.node("Sigmoid", [x])
        gate and g.node("Mul", [x, gate[0]])
    else:
        g.node("Clip", [x, g.constant(-0.5), g.constant(1.25)])


def scaled(g, x, shape):
    """By one number or one for each channel."""
    rng = g.rng
    dims = [] if rng.random() < 0.4 or len(shape) < 2 else [shape[1]] + [1] * (len(shape) - 2)
    operands = [x, g.constant(rng.uniform(0.5, 1.5, size=dims))]
    op = str(rng.choice(["Add", "Sub", "Mul", "Div"]))
    g.node(op, operands[::-1] if op in ("Add", "Sub") and rng.random() < 0.5 else operands)


def added(g, x, shape):
    alike = [n for n, v in g.values.items() if v.shape == shape]
    g.node(str(g.rng.choice(["Add", "Sub"])), [x, str(g.rng.choice(alike))])


OPERATORS = [
    conv, average_pool, global_average_pool, batch_norm, pad, resize, slices, gather, gather_nd, reverse_channels_by_gather_nd,
    split, concat, reshape, picture_again, transpose, shuffle, depth_to_space, space_to_depth, expand, tile, roll, flip, squeeze,
    unsqueeze, flatten, reduce_mean, channels_last_input, linear, flat_linear, channels_last_tail, pointwise, scaled, added, max_pool, global_max_pool, reduce_max, gate, of_two, conv_transpose, reduce_sum,
    softmax_of_two, stacked, linear_of_last, pixel_constants,
]  # fmt: skip
WEIGHTS = {conv: 3, average_pool: 2, pad: 2, resize: 2, concat: 2, pointwise: 2, picture_again: 2, transpose: 2, flatten: 0.3}
WEIGHTS |= {channels_last_input: 0, gather_nd: 0.5, reduce_mean: 0.6, linear: 0.5, flat_linear: 0.3, channels_last_tail: 0.2, global_average_pool: 0.3}
WEIGHTS |= {max_pool: 2, global_max_pool: 0.3, reduce_max: 0.5, of_two: 2}


def random_graph(seed, only=None):
    rng = np.random.default_rng(seed)
    shape = [1, integer(rng, 1, 6), integer(rng, 1, 12), integer(rng, 1, 12)]
    if only in (depth_to_space, space_to_depth):
        shape = [1, 36, 3, 2] if only == depth_to_space else [1, 2, 6, 12]
    g = Graph(rng, int(rng.choice([11, 12, 13, 17, 18, 19, 21])), shape)
    weights = np.array([WEIGHTS.get(f, 1) for f in OPERATORS], float)
    for _ in range(integer(rng, 1, 12) if only is None else 1):
        first = not g.nodes and rng.random() < 0.1
        f = only or (channels_last_input if first else OPERATORS[rng.choice(len(OPERATORS), p=weights / weights.sum())])
        # Mostly one after the other; sometimes a branch.
        x = g.last if rng.random() < 0.85 else str(rng.choice(list(g.values)))
        f(g, x, g.values[x].shape)
        if only in (reshape, picture_again, squeeze, unsqueeze, flatten, channels_last_input):
            # Alone they do nothing.
            flip(g, g.last, g.values[g.last].shape)
    return g


def isolated(seed, only=None):
    """A random graph made in a process of its own, none if onnxruntime ends it: some sizes make it divide by zero."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "wb") as pipe:
            pickle.dump(random_graph(seed, only), pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    return pickle.loads(content) if status == 0 else None


def moves(g):
    """Whether a graph does anything: its output as its input is no network."""
    return bool(g.nodes) and not np.array_equal(g.values[g.last].ravel(), g.input.ravel())


def save(path, cases):
    header, data = {"__metadata__": {"format": "operators"}}, b""

    def add(name, dtype, shape, content):
        nonlocal data
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content + bytes(-len(content) % 4)
        header[name]["data_offsets"][1] = header[name]["data_offsets"][0] + len(content)

    for name, g in cases.items():
        used = {n for node in g.nodes for n in node.input}
        g.constants = [c for c in g.constants if c.name in used]
        model = g.model(g.last).SerializeToString()
        for part, dtype, values in [
            ("onnx", "U8", np.frombuffer(model + bytes(-len(model) % 4), np.uint8)),
            ("input", "F32", np.ascontiguousarray(g.input.transpose(0, 3, 1, 2)) if g.channels_last else g.input),
            ("output", "F32", g.values[g.last]),
        ]:
            add(f"{name}.{part}", dtype, values.shape, values.tobytes())
        header["__metadata__"][name] = f"opset {g.opset}: " + " ".join(n.op_type for n in g.nodes)
        header["__metadata__"][f"{name}.bytes"] = str(len(model))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default="tests/fixtures/operators.safetensors")
    args = parser.parse_args()
    print(f"seed {args.seed}")
    cases, seed = {}, 1_000_000 * args.seed
    if args.count == 0:
        for f in OPERATORS:
            while f.__name__ not in cases:
                seed += 1
                g = isolated(seed, f)
                if g and moves(g) and g.values[g.last].size < 500 and 's: "linear"' not in str(g.nodes):
                    cases[f.__name__] = g
    while len(cases) < args.count:
        seed += 1
        g = isolated(seed)
        if g and moves(g):
            cases[f"graph{seed}"] = g
    save(args.out, cases)
    print(f"{len(cases)} graphs in {args.out}")


if __name__ == "__main__":
    main()

"""The model file: safetensors weights plus a JSON graph in the header's metadata, and a plain evaluator for it.

The evaluator is what the reported accuracy is measured with: it reads the exported file alone and knows nothing of the
network that was trained.
"""

import json
import os

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from data import MEAN, SIZE, STD
from model import LAYERS

BN_EPSILON = 1e-5


def fold(block):
    """Convolution weight and bias with the batch normalisation behind it folded in (f64 inside)."""
    norm = block.norm
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    weight = block.conv.weight.double() * scale.view(-1, 1, 1, 1)
    bias = norm.bias.double() - norm.running_mean.double() * scale
    return weight.float(), bias.float()


def export_network(model, classes, name, training, path):
    """Writes the network, folded, to `path` (replaced atomically)."""
    nodes, tensors, last = [], {}, "image"
    for layer, _, _, kernel, stride, padding, residual in LAYERS:
        block = model.blocks[layer]
        index = layer.removeprefix("conv")
        weight, bias = fold(block)
        tensors[f"{layer}.weight"], tensors[f"{layer}.bias"] = weight, bias
        nodes.append({
            "op": "conv2d", "name": layer, "inputs": [last], "output": layer,
            "weight": f"{layer}.weight", "bias": f"{layer}.bias",
            "stride": [stride, stride], "padding": [padding] * 4, "dilation": [1, 1], "groups": 1,
        })
        act = f"act{index}"
        tensors[f"{act}.coefficients"] = block.act.coefficients.detach().float()
        nodes.append({
            "op": "polynomial", "name": act, "inputs": [layer], "output": act, "coefficients": f"{act}.coefficients",
        })
        if residual:
            nodes.append({"op": "add", "name": f"add{index}", "inputs": [last, act], "output": f"add{index}"})
            act = f"add{index}"
        last = act
    tensors["fc.weight"], tensors["fc.bias"] = model.fc.weight.detach(), model.fc.bias.detach()
    nodes += [
        {"op": "global_avg_pool", "name": "pool", "inputs": [last], "output": "pool"},
        {"op": "flatten", "name": "flatten", "inputs": ["pool"], "output": "flatten"},
        {"op": "linear", "name": "fc", "inputs": ["flatten"], "output": "logits", "weight": "fc.weight", "bias": "fc.bias"},
    ]
    graph = {
        "name": name,
        "input": {"name": "image", "channels": 3, "height": SIZE, "width": SIZE, "mean": list(MEAN), "std": list(STD)},
        "classes": classes, "nodes": nodes, "output": "logits", "training": training,
    }
    save_model(tensors, graph, path)


def save_model(tensors, graph, path):
    metadata = {"format": "cipherlens-model", "version": "1", "graph": json.dumps(graph)}
    temporary = f"{path}.tmp"
    # clone() drops channels_last strides and shared storage, neither of which the file format knows.
    save_file({k: v.detach().float().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}, temporary, metadata)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def load_model(path):
    with safe_open(str(path), "pt") as f:
        return json.loads(f.metadata()["graph"]), {k: f.get_tensor(k) for k in f.keys()}


def _pad(x, node, value=0.0):
    top, left, bottom, right = node["padding"]
    return F.pad(x, (left, right, top, bottom), value=value)


def _avg_pool(x, node):
    kernel, stride = node["kernel"], node["stride"]
    padded = F.avg_pool2d(_pad(x, node), kernel, stride)
    if node["count_include_pad"]:
        return padded
    return padded / F.avg_pool2d(_pad(torch.ones_like(x), node), kernel, stride)


def _polynomial(x, coefficients):
    per_channel = coefficients.dim() == 2
    shape = (1, -1) + (1,) * (x.dim() - 2) if per_channel else ()
    result = torch.zeros_like(x)
    for degree in reversed(range(coefficients.shape[-1])):
        result = result * x + coefficients[..., degree].reshape(shape)
    return result


def run_node(node, inputs, tensors):
    op, x = node["op"], inputs[0]
    if op == "conv2d":
        return F.conv2d(_pad(x, node), tensors[node["weight"]], tensors[node["bias"]], node["stride"], 0,
                        node["dilation"], node["groups"])
    if op == "polynomial":
        return _polynomial(x, tensors[node["coefficients"]])
    if op == "batch_norm":
        return F.batch_norm(x, tensors[node["mean"]], tensors[node["var"]], tensors[node["scale"]],
                            tensors[node["bias"]], False, 0.0, node["epsilon"])
    if op == "avg_pool2d":
        return _avg_pool(x, node)
    if op == "global_avg_pool":
        return x.mean((2, 3), keepdim=True)
    if op == "flatten":
        return x.flatten(1)
    if op == "add":
        return inputs[0] + inputs[1]
    if op == "linear":
        return F.linear(x, tensors[node["weight"]], tensors[node["bias"]])
    raise ValueError(f"unknown op {op}")


def run_graph(graph, tensors, x, watch=None):
    """Evaluates a graph on a batch; `watch` (a dict) collects each node's input range as (min, max)."""
    values = {graph["input"]["name"]: x}
    for node in graph["nodes"]:
        inputs = [values[i] for i in node["inputs"]]
        if watch is not None:
            low, high = inputs[0].min().item(), inputs[0].max().item()
            seen = watch.get(node["name"], (low, high))
            watch[node["name"]] = (min(low, seen[0]), max(high, seen[1]))
        values[node["output"]] = run_node(node, inputs, tensors)
    return values[graph["output"]]

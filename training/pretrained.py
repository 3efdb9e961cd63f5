"""Trained networks of torchvision's architectures: reading them, and replacing their poolings and activations.

Everything works on the graph that torch.fx traces, in which each use of a shared module is a node of its own.
"""

import copy
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import fx, nn
import torch.nn.functional as F

import activation

RELUS = {nn.ReLU: None, nn.ReLU6: 6.0, F.relu: None, torch.relu: None, F.relu6: 6.0, "relu": None, "relu_": None}


def kind(graph_module, node):
    """The class of the module that a node calls, or the function or the method's name."""
    return type(graph_module.get_submodule(node.target)) if node.op == "call_module" else node.target


def fold(graph_module):
    """Folds every batch normalisation into the convolution before it."""
    for node in list(graph_module.graph.nodes):
        if kind(graph_module, node) is not nn.BatchNorm2d:
            continue
        source = node.args[0]
        if kind(graph_module, source) is not nn.Conv2d or len(source.users) != 1:
            raise SystemExit(f"{node.target}: a batch normalisation that follows no convolution is not supported")
        conv, norm = graph_module.get_submodule(source.target), graph_module.get_submodule(node.target)
        graph_module.set_submodule(source.target, nn.utils.fuse_conv_bn_eval(conv, norm))
        node.replace_all_uses_with(source)
        graph_module.graph.erase_node(node)
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    return graph_module


def onnx_layers(file):
    """(weight, bias) of every Conv and Gemm of an ONNX file, in the order of its nodes."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(file).graph
    if any(n.op_type == "BatchNormalization" for n in graph.node):
        raise SystemExit(f"{file}: batch normalisations must be folded into the convolutions (export in eval mode does it)")
    values = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    layers = []
    for n in graph.node:
        if n.op_type in ("Conv", "Gemm"):
            if len(n.input) != 3 or n.input[1] not in values or n.input[2] not in values:
                raise SystemExit(f"{file}: {n.name} has no constant weight and bias")
            layers.append((values[n.input[1]], values[n.input[2]]))
    return layers


def copy_layers(graph_module, layers, file):
    """Gives each layer, as the network calls them, the first unused weights of the file that have its shape."""
    left = list(layers)
    for node in graph_module.graph.nodes:
        if kind(graph_module, node) not in (nn.Conv2d, nn.Linear):
            continue
        layer = graph_module.get_submodule(node.target)
        found = next((i for i, (w, _) in enumerate(left) if w.shape == layer.weight.shape), None)
        if found is None:
            raise SystemExit(f"{file}: no weights of {list(layer.weight.shape)} left for {node.target}: another architecture?")
        weight, bias = left.pop(found)
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    if left:
        raise SystemExit(f"{file}: {len(left)} layers more than the architecture has")


def check(graph_module, file, pictures):
    """Ends the program unless the network gives the ONNX file's logits to 1e-4 of their range."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    expected = np.concatenate([session.run(None, {name: p.unsqueeze(0).numpy()})[0] for p in pictures])
    with torch.no_grad():
        found = graph_module(pictures).numpy()
    off = np.abs(found - expected).max()
    if not off <= 1e-4 * max(1.0, np.abs(expected).max()):
        raise SystemExit(f"{file}: the network that was built gives logits that differ by {off:.2g}: another architecture?")
    print(f"logits of {file} are met to {off:.1e}", flush=True)


def load(name, file, pictures):
    """Torchvision's architecture `name` with the weights of `file` (.onnx, or a state dict), norms folded, in eval mode."""
    if Path(file).suffix == ".onnx":
        layers = onnx_layers(file)
        model = torchvision.models.get_model(name, weights=None, num_classes=len(layers[-1][1]))
        network = fold(fx.symbolic_trace(model.eval()))
        copy_layers(network, layers, file)
        check(network, file, pictures)
        return network
    state = torch.load(file, weights_only=True)
    classes = len(list(state.values())[-1])
    model = torchvision.models.get_model(name, weights=None, num_classes=classes)
    model.load_state_dict(state)
    return fold(fx.symbolic_trace(model.eval()))


def average_pools(graph_module):
    """An average in place of every maximum, of the same window; padding does not count."""
    for node in graph_module.graph.nodes:
        if kind(graph_module, node) is nn.MaxPool2d:
            pool = graph_module.get_submodule(node.target)
            graph_module.set_submodule(node.target, nn.AvgPool2d(
                pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, count_include_pad=False))


def early_pools(graph_module):
    """Convolution, ReLU, MaxPool becomes convolution, average, ReLU, and convolution and average one convolution.

    Averaging k x k values that lie s apart is a convolution itself: that of the two has the kernel of the first, added
    up at k x k places, and the product of their strides. (At the border it sees zeros where the average saw nothing.)
    """
    for node in list(graph_module.graph.nodes):
        if kind(graph_module, node) is not nn.MaxPool2d:
            continue
        relu = node.args[0]
        source = relu.args[0]
        if (kind(graph_module, relu) not in RELUS or kind(graph_module, source) is not nn.Conv2d
                or len(relu.users) > 1 or len(source.users) > 1):
            raise SystemExit(f"{node.target}: --pool early needs a convolution and a ReLU before the MaxPool, read by it alone")
        pool, conv = graph_module.get_submodule(node.target), graph_module.get_submodule(source.target)
        k, s, p = pool.kernel_size, conv.stride[0], pool.padding
        reach = conv.kernel_size[0] + s * (k - 1)
        merged = nn.Conv2d(conv.in_channels, conv.out_channels, reach, s * pool.stride, conv.padding[0] + s * p,
                           groups=conv.groups)
        with torch.no_grad():
            merged.bias.copy_(conv.bias)
            merged.weight.zero_()
            for i in range(k):
                for j in range(k):
                    rows, columns = (slice(s * a, s * a + conv.kernel_size[0]) for a in (i, j))
                    merged.weight[:, :, rows, columns] += conv.weight / k**2
        graph_module.set_submodule(source.target, merged)
        node.replace_all_uses_with(relu)
        graph_module.graph.erase_node(node)


def adapt(network, pool, name, limit):
    """A copy of `network` with other poolings and activations; what it holds of activations, in the order they are called."""
    network = copy.deepcopy(network)
    if pool != "keep":
        {"average": average_pools, "early": early_pools}[pool](network)
    activations = []
    for node in list(network.graph.nodes):
        if node.op in ("placeholder", "output") or kind(network, node) not in RELUS:
            continue
        target = f"act{len(activations)}"
        activations.append(activation.make(name, limit, RELUS[kind(network, node)]))
        network.add_submodule(target, activations[-1])
        with network.graph.inserting_after(node):
            new = network.graph.call_module(target, (node.args[0],))
        node.replace_all_uses_with(new)
        network.graph.erase_node(node)
    network.delete_all_unused_submodules()
    network.recompile()
    return network.eval(), activations


@torch.no_grad()
def start(network, activations, pictures, like=()):
    """Lets each activation start from what it is fed, with ReLUs before it; or from what that of `like` was, if in one shape.

    A network that is trained to be fed what another is should be fitted to that, not to what its own start makes of it.
    """
    for a in activations:
        a.blend = 0.0
    network(pictures)
    for k, a in enumerate(activations):
        same = k < len(like) and like[k].seen.shape == a.seen.shape
        a.start((like[k] if same else a).seen.float())
        a.blend = 1.0

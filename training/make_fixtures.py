"""Writes the test fixtures: small layers with PyTorch's outputs, and the demo network's answer to chelsea.png.

    python training/make_fixtures.py --data ../shared/data

Every layer is run by PyTorch's own operator, not by the evaluator in graph.py; that evaluator is checked against it.
"""

import argparse
import json
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import data as D
from graph import load_model, run_graph


class Cases:
    def __init__(self):
        self.rng = torch.Generator().manual_seed(7)
        self.tensors, self.cases = {}, []

    def normal(self, *shape, scale=1.0):
        return torch.randn(*shape, generator=self.rng) * scale

    def add(self, name, x, nodes, parameters, y):
        """One case; `nodes` use bare tensor names, which get the case's name in front."""
        for node in nodes:
            for key in ("weight", "bias", "scale", "mean", "var", "coefficients"):
                if key in node:
                    node[key] = f"{name}.{node[key]}"
        graph = {
            "name": name,
            "input": {"name": "x", "channels": x.shape[1], "height": x.shape[2], "width": x.shape[3],
                      "mean": [0.0] * x.shape[1], "std": [1.0] * x.shape[1]},
            "classes": [], "nodes": nodes, "output": nodes[-1]["output"],
        }
        tensors = {f"{name}.{k}": v for k, v in parameters.items()}
        own = run_graph(graph, tensors, x)
        torch.testing.assert_close(own, y, rtol=1e-4, atol=1e-4)
        tensors |= {f"{name}.input": x[0], f"{name}.output": y[0]}
        self.tensors |= {k: v.contiguous().clone() for k, v in tensors.items()}
        self.cases.append({"name": name, "input_shape": list(x.shape[1:]), "graph": graph, "input": f"{name}.input",
                           "output": f"{name}.output"})

    def conv(self, name, c_in, c_out, size, kernel, stride, padding, dilation=(1, 1), groups=1):
        x = self.normal(1, c_in, *size)
        fan = c_in // groups * kernel[0] * kernel[1]
        weight, bias = self.normal(c_out, c_in // groups, *kernel, scale=fan**-0.5), self.normal(c_out, scale=0.1)
        top, left, bottom, right = padding
        y = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride, 0, dilation, groups)
        self.add(name, x, [conv_node("conv", "x", "y", stride, padding, dilation, groups)],
                 {"weight": weight, "bias": bias}, y)

    def pool(self, name, channels, size, kernel, stride, padding, count_include_pad):
        x = self.normal(1, channels, *size)
        y = F.avg_pool2d(x, kernel, stride, padding, False, count_include_pad)
        node = {"op": "avg_pool2d", "name": "pool", "inputs": ["x"], "output": "y", "kernel": list(kernel),
                "stride": list(stride), "padding": [padding[0], padding[1], padding[0], padding[1]],
                "count_include_pad": count_include_pad}
        self.add(name, x, [node], {}, y)


def conv_node(name, source, output, stride, padding, dilation=(1, 1), groups=1, weight="weight", bias="bias"):
    return {"op": "conv2d", "name": name, "inputs": [source], "output": output, "weight": weight, "bias": bias,
            "stride": list(stride), "padding": list(padding), "dilation": list(dilation), "groups": groups}


def layer_cases():
    c = Cases()
    c.conv("conv_3x3_same", 4, 6, (16, 16), (3, 3), (1, 1), (1, 1, 1, 1))
    c.conv("conv_5x5_stride2", 3, 8, (16, 16), (5, 5), (2, 2), (2, 2, 2, 2))
    c.conv("conv_stride3_odd", 2, 5, (17, 13), (3, 3), (3, 3), (1, 1, 1, 1))
    c.conv("conv_asymmetric_padding", 3, 4, (11, 14), (3, 3), (2, 2), (0, 1, 2, 0))
    c.conv("conv_rectangular", 3, 4, (10, 15), (2, 5), (1, 2), (1, 2, 0, 2))
    c.conv("conv_dilated", 4, 4, (16, 16), (3, 3), (1, 1), (2, 2, 2, 2), (2, 2))
    c.conv("conv_grouped", 8, 12, (9, 9), (3, 3), (1, 1), (1, 1, 1, 1), groups=4)
    c.conv("conv_depthwise_stride2", 6, 6, (14, 14), (3, 3), (2, 2), (1, 1, 1, 1), groups=6)
    c.conv("conv_1x1_stride2", 8, 5, (9, 7), (1, 1), (2, 2), (0, 0, 0, 0))
    c.pool("avg_pool_2x2", 5, (12, 12), (2, 2), (2, 2), (0, 0), True)
    c.pool("avg_pool_padded_counted", 3, (11, 13), (3, 3), (2, 2), (1, 1), True)
    c.pool("avg_pool_padded_uncounted", 3, (11, 13), (3, 3), (2, 2), (1, 1), False)

    x = c.normal(1, 7, 8, 8)
    p = {"scale": c.normal(7), "bias": c.normal(7), "mean": c.normal(7), "var": c.normal(7).square() + 0.1}
    c.add("batch_norm", x, [{"op": "batch_norm", "name": "bn", "inputs": ["x"], "output": "y", "scale": "scale",
                             "bias": "bias", "mean": "mean", "var": "var", "epsilon": 1e-5}], p,
          F.batch_norm(x, p["mean"], p["var"], p["scale"], p["bias"], False, 0.0, 1e-5))

    x, weight, bias = c.normal(1, 6, 4, 3), c.normal(10, 72, scale=0.1), c.normal(10)
    c.add("linear", x, [{"op": "flatten", "name": "flatten", "inputs": ["x"], "output": "flat"},
                        {"op": "linear", "name": "fc", "inputs": ["flat"], "output": "y", "weight": "weight", "bias": "bias"}],
          {"weight": weight, "bias": bias}, F.linear(x.flatten(1), weight, bias))

    x = c.normal(1, 9, 8, 8)
    c.add("global_avg_pool", x, [{"op": "global_avg_pool", "name": "pool", "inputs": ["x"], "output": "y"}], {},
          F.adaptive_avg_pool2d(x, 1))

    for name, shape in (("polynomial_shared_cubic", (4,)), ("polynomial_per_channel", (5, 3))):
        x, k = c.normal(1, 5, 8, 8), c.normal(*shape, scale=0.5)
        powers = torch.stack([x**i for i in range(shape[-1])], -1)
        y = (powers * (k if k.dim() == 1 else k.view(1, 5, 1, 1, 3))).sum(-1)
        c.add(name, x, [{"op": "polynomial", "name": "act", "inputs": ["x"], "output": "y",
                         "coefficients": "coefficients"}], {"coefficients": k}, y)

    # A residual block as in the demo network, then the head: x + act(norm(conv(x))), pooled and classified.
    x, weight, bias = c.normal(1, 6, 8, 8), c.normal(6, 6, 3, 3, scale=0.15), c.normal(6, scale=0.1)
    p = {"weight": weight, "bias": bias, "scale": c.normal(6), "bn_bias": c.normal(6), "mean": c.normal(6, scale=0.1),
         "var": c.normal(6).square() + 0.5, "coefficients": c.normal(6, 3, scale=0.3), "fc_weight": c.normal(4, 6),
         "fc_bias": c.normal(4)}
    z = F.batch_norm(F.conv2d(x, weight, bias, padding=1), p["mean"], p["var"], p["scale"], p["bn_bias"], False, 0.0, 1e-5)
    a0, a1, a2 = p["coefficients"].view(1, 6, 1, 1, 3).unbind(-1)
    y = F.linear((x + a0 + a1 * z + a2 * z * z).mean((2, 3)), p["fc_weight"], p["fc_bias"])
    c.add("residual_block", x, [
        conv_node("conv", "x", "conv", (1, 1), (1, 1, 1, 1)),
        {"op": "batch_norm", "name": "bn", "inputs": ["conv"], "output": "bn", "scale": "scale", "bias": "bn_bias",
         "mean": "mean", "var": "var", "epsilon": 1e-5},
        {"op": "polynomial", "name": "act", "inputs": ["bn"], "output": "act", "coefficients": "coefficients"},
        {"op": "add", "name": "add", "inputs": ["x", "act"], "output": "add"},
        {"op": "global_avg_pool", "name": "pool", "inputs": ["add"], "output": "pool"},
        {"op": "flatten", "name": "flatten", "inputs": ["pool"], "output": "flat"},
        {"op": "linear", "name": "fc", "inputs": ["flat"], "output": "y", "weight": "fc_weight", "bias": "fc_bias"},
    ], p, y)
    return c


def write(tensors, metadata, path):
    save_file(tensors, str(path), metadata)
    os.chmod(path, 0o644)
    print(f"{path}: {len(tensors)} tensors, {path.stat().st_size} bytes")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", default="../shared/data")
    p.add_argument("--model", default="models/imagenette11.safetensors")
    p.add_argument("--out", default="tests/fixtures", type=Path)
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    c = layer_cases()
    write(c.tensors, {"torch": torch.__version__, "cases": json.dumps(c.cases)}, args.out / "pytorch_layers.safetensors")

    graph, tensors = load_model(args.model)
    x = D.normalise(D.load_picture(Path(args.data) / "sample_images" / "chelsea.png", "crop"))
    logits = run_graph(graph, tensors, x)
    about = {"preprocessing": "largest centred square, antialiased triangle filter to 128x128 (8-bit), (u8/255 - mean)/std",
             "model": graph["name"], "classes": json.dumps(graph["classes"])}
    write({"input": x[0].contiguous(), "logits": logits[0].contiguous()}, about, args.out / "chelsea_logits.safetensors")
    for name, value in zip(graph["classes"], logits[0].tolist()):
        print(f"  {name:18} {value:8.3f}")


if __name__ == "__main__":
    main()

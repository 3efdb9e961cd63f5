"""Trains the network of examples/onnx_to_label.rs and writes examples/data/stripes.onnx: which way do stripes run?

    python training/stripes.py examples/data/stripes.onnx

Pictures are 16 x 16, `0.5 + 0.4 sin(f (x cos a + y sin a) + p)` plus noise, with a of 0, 45, 90 or 135 degrees.
"""

import math
import sys

import torch
from torch import nn

NAMES = ["vertical", "falling", "horizontal", "rising"]


def pictures(count, rng):
    label = torch.randint(0, 4, (count,), generator=rng)
    angle = label * math.pi / 4 + 0.15 * (torch.rand(count, generator=rng) - 0.5)
    frequency = 0.6 + 0.8 * torch.rand(count, generator=rng)
    phase = 2 * math.pi * torch.rand(count, generator=rng)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    along = x[None] * angle.cos()[:, None, None] + y[None] * angle.sin()[:, None, None]
    clean = 0.5 + 0.4 * (frequency[:, None, None] * along + phase[:, None, None]).sin()
    noisy = clean + 0.05 * torch.randn(clean.shape, generator=rng)
    return noisy.clamp(0, 1)[:, None], label


def main(path):
    torch.manual_seed(1)
    rng = torch.Generator().manual_seed(2)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(2500):
        x, label = pictures(128, rng)
        loss = nn.functional.cross_entropy(network((x - 0.5) / 0.25), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x, label = pictures(4096, rng)
    print("accuracy", (network((x - 0.5) / 0.25).argmax(1) == label).float().mean().item())
    torch.onnx.export(network.eval(), torch.zeros(1, 1, 16, 16), path, input_names=["picture"], output_names=["logits"],
                      opset_version=17, dynamo=False)


if __name__ == "__main__":
    main(sys.argv[1])

"""A six-convolution network whose only non-linearity is a quadratic polynomial per channel.

Under CKKS a ciphertext multiplication uses up one level of the modulus chain, so the depth is what costs. Each
convolution and each quadratic takes one level, pooling and the linear layer together one: 6 + 6 + 1 = 13.
"""

import torch
from torch import nn
import torch.nn.functional as F

# name, in, out, kernel, stride, padding, residual
LAYERS = [
    ("conv1", 3, 32, 5, 2, 2, False),
    ("conv2", 32, 64, 3, 2, 1, False),
    ("conv3", 64, 64, 3, 1, 1, True),
    ("conv4", 64, 128, 3, 2, 1, False),
    ("conv5", 128, 128, 3, 1, 1, True),
    ("conv6", 128, 256, 3, 2, 1, False),
]
LEVELS = 2 * len(LAYERS) + 1

# The least-squares quadratic to ReLU under a standard normal input: x^2 / (2 sqrt(2 pi)) + x / 2 + 1 / (2 sqrt(2 pi)).
RELU_FIT = (0.19947114, 0.5, 0.19947114)


class _QuadraticFunction(torch.autograd.Function):
    """(a2 x + a1) x + a0 with a backward pass that keeps x alone (autograd would keep two more tensors)."""

    @staticmethod
    def forward(ctx, x, coefficients):
        ctx.save_for_backward(x, coefficients)
        a0, a1, a2 = coefficients.to(x.dtype).view(1, -1, 1, 1, 3).unbind(-1)
        return torch.addcmul(a0, torch.addcmul(a1, a2, x), x)

    @staticmethod
    def backward(ctx, grad):
        x, coefficients = ctx.saved_tensors
        _, a1, a2 = coefficients.to(x.dtype).view(1, -1, 1, 1, 3).unbind(-1)
        gx = grad * x
        sums = [t.sum((0, 2, 3), dtype=torch.float32) for t in (grad, gx, gx * x)]
        return grad * torch.addcmul(a1, a2, x, value=2.0), torch.stack(sums, 1)


class Quadratic(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.coefficients = nn.Parameter(torch.tensor(RELU_FIT).repeat(channels, 1))

    def forward(self, x):
        return _QuadraticFunction.apply(x, self.coefficients)


class Block(nn.Module):
    """Convolution, batch normalisation (folded at export), quadratic; optionally added to its own input."""

    def __init__(self, c_in, c_out, kernel, stride, padding, residual):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(c_out)
        self.act = Quadratic(c_out)
        self.residual = residual
        self.activation_input = None

    def forward(self, x):
        z = self.norm(self.conv(x))
        self.activation_input = z
        y = self.act(z)
        return x + y if self.residual else y


class CipherNet(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.blocks = nn.ModuleDict({name: Block(*spec) for name, *spec in LAYERS})
        self.fc = nn.Linear(LAYERS[-1][2], classes)

    def forward(self, x):
        for block in self.blocks.values():
            x = block(x)
        return self.fc(x.mean((2, 3)).float())

    def activation_inputs(self):
        """What the last forward pass fed to each polynomial."""
        return [b.activation_input for b in self.blocks.values()]


def moment_penalty(activation_inputs, limit, share=4):
    """The regulariser of Maloney et al. (arXiv:2306.09189), per channel: mean to 0, deviation to 1, kurtosis to 3.

    The kurtosis term is a Huber loss, since the square of a heavy tail's kurtosis would drown the other terms; these
    three are measured on one `share`-th of the batch, which is plenty. A last term, over the whole batch, pushes back
    single values beyond `limit`, where a quadratic grows fast.
    """
    total = 0.0
    for whole in activation_inputs:
        z = whole[: max(8, len(whole) // share)].float()
        mean = z.mean((0, 2, 3), keepdim=True)
        centred = z - mean
        square = centred * centred
        variance = square.mean((0, 2, 3))
        kurtosis = (square * square).mean((0, 2, 3)) / (variance * variance + 1e-6)
        total = total + mean.square().mean() + (variance.sqrt() - 1).square().mean()
        total = total + F.huber_loss(kurtosis, torch.full_like(kurtosis, 3.0))
        total = total + 10 * (whole.float().abs() - limit).clamp(min=0).square().mean()
    return total / len(activation_inputs)

"""What takes the place of a ReLU: itself, a GELU as wide as its layer's values, or a polynomial for each channel."""

import torch
from torch import nn
import torch.nn.functional as F


class Activation(nn.Module):
    """A ReLU (`ceiling` 6 for ReLU6) that keeps what it was last fed, and each channel's mean and deviation at the start."""

    def __init__(self, ceiling=None):
        super().__init__()
        self.ceiling = ceiling
        self.blend = 1.0
        self.bound = None
        self.keep = True
        self.seen = None

    def exact(self, x):
        return F.relu(x) if self.ceiling is None else x.clamp(0, self.ceiling)

    def start(self, x):
        """Takes the statistics of `x`, values that the exact network feeds to this layer."""
        std, self.mean = torch.std_mean(x, (0, 2, 3), keepdim=True)
        self.std = std.clamp(min=0.05 * float(x.std()))
        self.unit = self.std

    def smooth(self, x):
        return self.exact(x)

    def forward(self, x):
        if self.keep:
            self.seen = x
        if self.blend == 0:
            return self.exact(x)
        y = self.smooth(x)
        return y if self.blend == 1 else torch.lerp(self.exact(x).to(y.dtype), y, self.blend)

    def farthest(self, normalised):
        """The farthest of these values of each picture, in units."""
        return (normalised.abs().amax((2, 3)) * (self.std / self.unit).view(1, -1)).amax(1)

    def normalised(self):
        """What was last fed, less the mean and over the deviation that its channel started with."""
        return (self.seen.float() - self.mean) / self.std


class Gelu(Activation):
    """s gelu(x / s), where s is the whole layer's deviation at the start: the bend at 0 is as wide as the values."""

    def start(self, x):
        super().start(x)
        self.s = round(float(x.std()), 3)

    def smooth(self, x):
        return F.gelu(x / self.s) * self.s


class Polynomial(Activation):
    """A polynomial for each channel, by Horner's rule. Coefficients are of x / unit, which keeps their gradients alike.

    While it has a `bound`, as in training, it is fed nothing beyond so many units: one outlier, raised by layer after layer,
    would otherwise drown a batch's gradients. What is beyond is left to the penalty, which sees it as it is.
    """

    def __init__(self, degree, limit, ceiling=None):
        super().__init__(ceiling)
        self.degree, self.limit = degree, limit
        self.real = None

    def start(self, x):
        """Fits every channel by least squares: nine tenths of the weight on `x`, one tenth evenly within `limit` units.

        A unit is a channel's deviation, or more where that leaves `x` beyond twice the limit: some channels are silent
        but for a few places, and must have a polynomial that is right there.
        """
        super().start(x)
        self.unit = torch.maximum(self.std, (x - self.mean).abs().amax((0, 2, 3), keepdim=True) / (2 * self.limit))
        u = (x / self.unit).transpose(0, 1).flatten(1).double()
        u = u[:, :: max(1, u.shape[1] // 20_000)]
        even = torch.linspace(-self.limit, self.limit, 2001, dtype=torch.float64).expand(len(u), -1)

        def normal_equations(u):
            powers = u.unsqueeze(-1) ** torch.arange(self.degree + 1)
            y = self.exact(u * self.unit.flatten().unsqueeze(1)).unsqueeze(-1)
            return powers.mT @ powers / u.shape[1], powers.mT @ y / u.shape[1]

        (a, b), (c, d) = normal_equations(u), normal_equations(even)
        fitted = torch.linalg.solve(0.9 * a + 0.1 * c, 0.9 * b + 0.1 * d).squeeze(-1)
        self.coefficients = nn.Parameter(fitted.float())

    def of_x(self):
        """Coefficients of powers of x, lowest first: [degree + 1][channels, 1, 1]."""
        real = self.coefficients / self.unit.view(-1, 1) ** torch.arange(self.degree + 1)
        return [c.view(-1, 1, 1) for c in real.unbind(1)]

    def fix(self):
        """Makes the coefficients constants, so that an export holds products and sums alone."""
        self.real = [c.detach().clone() for c in self.of_x()]

    def smooth(self, x):
        if self.bound:
            x = x.clamp(self.mean - self.bound * self.unit, self.mean + self.bound * self.unit)
        c = self.real or self.of_x()
        y = c[-1]
        for lower in reversed(c[:-1]):
            y = y * x + lower
        return y


def make(name, limit, ceiling):
    if name == "relu":
        return Activation(ceiling)
    if name == "gelu":
        return Gelu(ceiling)
    return Polynomial(int(name.removeprefix("poly")), limit, ceiling)

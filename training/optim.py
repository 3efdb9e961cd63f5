"""Muon for the convolutions (Jordan et al., 2024: momentum, then the nearest semi-orthogonal matrix as the step).

Every convolution is followed by batch normalisation, so only the direction of its weight counts: the weight is rescaled
to a fixed norm after each step, and the learning rate is the relative size of a step. Because the step's size does not
depend on the gradient's, a rare huge gradient through the stacked squares does no harm.
"""

import torch


def orthogonalise(g, steps=5):
    """Newton-Schulz iteration that pushes all singular values of `g` to about 1."""
    x = g / (g.norm() + 1e-12)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr, momentum=0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})
        for group in self.param_groups:
            for p in group["params"]:
                self._rescale(p)

    @staticmethod
    @torch.no_grad()
    def _rescale(p):
        p.mul_(len(p) ** 0.5 / p.norm())

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.mul_(group["momentum"]).add_(p.grad)
                update = p.grad + group["momentum"] * buffer
                direction = orthogonalise(update.reshape(len(p), -1)).reshape(p.shape)
                p.add_(direction, alpha=-group["lr"])
                self._rescale(p)

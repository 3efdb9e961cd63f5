"""Fine-tunes a trained network into one that costs less encrypted, and writes it as ONNX. See README.md beside this file.

    python training/finetune.py --model resnet18 --weights resnet18.onnx --activation gelu --out resnet18_gelu.onnx
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import data as D
import pretrained as P
from model import moment_penalty


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", default="../shared/data/pictures224", help="folder with train.* and val.*, packed as data.py says")
    p.add_argument("--model", required=True, help="torchvision's name of the architecture, as resnet18")
    p.add_argument("--weights", required=True, help="a state dict (.pt), or an ONNX file with folded normalisations")
    p.add_argument("--out", required=True, help="ONNX file to write")
    p.add_argument("--pool", choices=["average", "early", "keep"], default="average",
                   help="what a MaxPool becomes: an average; an average before the ReLU, merged with the convolution; itself")
    p.add_argument("--activation", choices=["relu", "gelu", "poly2", "poly4"], default="relu")
    p.add_argument("--epochs", type=int, default=6)
    p.add_argument("--full", type=int, default=3, help="the last epochs, on pictures of full size; those before, on smaller ones")
    p.add_argument("--small", type=int, default=160, help="side of the smaller pictures")
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--lr", type=float, default=2e-4, help="peak rate")
    p.add_argument("--coefficient-lr", type=float, default=1e-3, help="peak rate of the polynomials' coefficients")
    p.add_argument("--penalty", type=float, default=0.1, help="full weight of the range and kurtosis penalty")
    p.add_argument("--limit", type=float, default=5.0, help="activation inputs beyond this many deviations are pushed back")
    p.add_argument("--distil", type=float, default=0.7, help="share of the original's answers in the loss; labels have the rest")
    p.add_argument("--temperature", type=float, default=2.0)
    p.add_argument("--match", type=float, default=1.0, help="weight of being fed, at every activation, what the original is")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=20230619)
    return p.parse_args()


def ramp(progress):
    """0 to 1 over the first third: the weight of the penalty, and the part of the new activations."""
    return min(1.0, 3 * progress)


def release(progress):
    """How far polynomials see in training, in limits: 1 in the first half, rising to 3 as the penalty brings outliers in."""
    return 1 + max(0.0, 4 * progress - 2)


def rate(progress):
    """Up over the first 5 %, then down as a cosine."""
    return progress / 0.05 if progress < 0.05 else 0.5 * (1 + np.cos(np.pi * (progress - 0.05) / 0.95))


def distance(student, teacher):
    """Mean square of how far apart the normalised inputs of the activations are, where they have the same shape."""
    pairs = [(s, t) for s, t in zip(student, teacher) if s.shape == t.shape]
    return sum((s - t).square().mean() for s, t in pairs) / len(pairs)


def reach(activations, inputs, limit):
    """How far each picture's farthest input of each activation lies beyond `limit`, as a mean Huber loss.

    A mean over all values, as in `moment_penalty`, hardly sees one outlier in a million, and one is enough.
    """
    beyond = torch.stack([(a.farthest(z) - limit).clamp(min=0) for a, z in zip(activations, inputs)])
    return F.huber_loss(beyond, torch.zeros_like(beyond))


@torch.no_grad()
def evaluate(network, activations, pictures, labels, batch=50):
    """Part of right answers, then for each activation the farthest input from the mean, in deviations, and the kurtosis."""
    right, farthest, powers = 0, torch.zeros(len(activations)), torch.zeros(len(activations), 5, dtype=torch.float64)
    for i in range(0, len(labels), batch):
        logits = network(D.normalise(pictures[i : i + batch]))
        right += (logits.argmax(1) == labels[i : i + batch]).sum().item()
        for k, a in enumerate(activations):
            z = a.normalised()
            farthest[k] = max(farthest[k], z.abs().max())
            powers[k] += torch.stack([(z**n).mean(dtype=torch.float64) for n in range(5)])
    _, m, m2, m3, m4 = (powers / powers[:, :1]).unbind(1)
    variance = m2 - m * m
    kurtosis = (m4 - 4 * m * m3 + 6 * m * m * m2 - 3 * m**4) / variance**2
    return right / len(labels), (farthest / variance.sqrt()).tolist(), kurtosis.tolist()


def export(network, activations, file, side):
    for a in activations:
        a.keep = False
        if hasattr(a, "fix"):
            a.fix()
    network = network.to(memory_format=torch.contiguous_format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, torch.zeros(1, 3, side, side), file, opset_version=17, dynamo=False,
                          input_names=["input"], output_names=["logits"])


def main():
    args = arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = torch.Generator().manual_seed(args.seed)
    (train_x, train_y), (val_x, val_y) = (D.load_packed(args.data, split) for split in ("train", "val"))
    side = train_x.shape[-1]

    original = P.load(args.model, args.weights, D.normalise(train_x[:4]))
    teacher, taught = P.adapt(original, "keep", "relu", args.limit)
    network, activations = P.adapt(original, args.pool, args.activation, args.limit)
    spread = D.normalise(train_x[:: max(1, len(train_x) // 64)])
    P.start(teacher, taught, spread)
    P.start(network, activations, spread, like=taught)
    before = evaluate(teacher, taught, val_x, val_y)
    print(f"the original: {before[0]:.1%} of {len(val_y)} right", flush=True)

    teacher.to(memory_format=torch.channels_last)
    network.to(memory_format=torch.channels_last)
    coefficients = [a.coefficients for a in activations if hasattr(a, "coefficients")]
    rest = [p for p in network.parameters() if all(p is not c for c in coefficients)]
    groups = [{"params": rest, "peak": args.lr}]
    if coefficients:
        groups.append({"params": coefficients, "peak": args.coefficient_lr})
    optimiser = torch.optim.AdamW(groups, args.lr, weight_decay=0)

    batches = len(train_y) // args.batch
    for epoch in range(args.epochs):
        begun = time.time()
        size = args.small if epoch < args.epochs - args.full else side
        order = torch.randperm(len(train_y), generator=rng)
        sums = torch.zeros(4)
        for i in range(batches):
            progress = (epoch + i / batches) / args.epochs
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * rate(progress)
            for a in activations:
                a.blend, a.bound = ramp(progress), args.limit * release(progress)
            chosen = order[i * args.batch : (i + 1) * args.batch]
            x, y = D.augment(train_x[chosen], size, rng, 0.5, strong=False), train_y[chosen]
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                answers = teacher(x).float()
            logits = network(x)
            inputs = [a.normalised() for a in activations]
            t = args.temperature
            labels = F.cross_entropy(logits, y)
            answers = t * t * F.kl_div(F.log_softmax(logits / t, 1), F.log_softmax(answers / t, 1),
                                       reduction="batchmean", log_target=True)
            match = distance(inputs, [a.normalised() for a in taught])
            penalty = moment_penalty(inputs, args.limit) + reach(activations, inputs, args.limit)
            total = (1 - args.distil) * labels + args.distil * answers + args.match * match
            (total + args.penalty * ramp(progress) * penalty).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            sums += torch.stack([labels, answers, match, penalty]).detach()
        labels, answers, match, penalty = (sums / batches).tolist()
        print(f"epoch {epoch + 1}/{args.epochs} size {size} labels {labels:.3f} original's answers {answers:.3f} "
              f"match {match:.3f} penalty {penalty:.3f} {time.time() - begun:.0f} s", flush=True)

    for a in activations:
        a.blend, a.bound = 1.0, None
    after = evaluate(network, activations, val_x, val_y)
    print(f"of {len(val_y)} right: {before[0]:.1%} before, {after[0]:.1%} after")
    print("activation   farthest input, in deviations   kurtosis")
    for k in range(len(activations)):
        print(f"{k:10}   {before[1][k]:13.1f} -> {after[1][k]:4.1f}       {before[2][k]:8.1f} -> {after[2][k]:4.1f}")
    export(network, activations, args.out, side)
    P.check(network, args.out, D.normalise(val_x[:4]))


if __name__ == "__main__":
    main()

"""Trains the demo network and writes it as a model file. See README.md beside this file.

    python training/train.py --data ../shared/data --out models/imagenette11.safetensors
"""

import argparse
import copy
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import data as D
from evaluate import CAT, evaluate
from graph import export_network
from model import LEVELS, CipherNet, moment_penalty
from optim import Muon

NAME = "imagenette11-quadratic"


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", default="../shared/data", help="folder with imagenette128/, cat128/ and sample_images/")
    p.add_argument("--out", default="models/imagenette11.safetensors", help="model file to write")
    p.add_argument("--checkpoint", default=None, help="file for resuming; read if it exists")
    p.add_argument("--epochs", type=int, nargs=3, default=[16, 20, 12], metavar=("N64", "N96", "N128"),
                   help="epochs at 64, 96 and 128 pixels (stages a and b)")
    p.add_argument("--finetune", type=int, default=3, help="epochs of stage c")
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--lr", type=float, default=0.03, help="peak rate of the convolutions (relative step)")
    p.add_argument("--adam-lr", type=float, default=3e-3, help="peak rate of everything else")
    p.add_argument("--penalty", type=float, default=0.1, help="full weight of the moment penalty (stages b and c)")
    p.add_argument("--limit", type=float, default=5.0, help="activation inputs beyond this are pushed back")
    p.add_argument("--cat-repeat", type=float, default=2.0, help="how often each cat is seen per epoch")
    p.add_argument("--min-scale", type=float, default=0.35, help="smallest share of the picture a random crop keeps")
    p.add_argument("--cat-weight", type=float, default=2.5, help="weight of cats in the loss")
    p.add_argument("--cat-min-scale", type=float, default=0.2, help="the same for cats, at 128 pixels: close-ups of faces")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=20230619)
    p.add_argument("--evaluate-every", type=int, default=5)
    return p.parse_args()


def penalty_weight(epoch, epochs, full):
    """Stage a: nothing for the first eighth, then a tenth of the full weight up to a third; stage b: the full weight."""
    if epoch < epochs / 8:
        return 0.0
    if epoch < epochs / 3:
        return 0.1 * full
    return full


def rate(progress):
    """One cycle: linear rise over the first 8 %, then linear fall to 1 %."""
    return progress / 0.08 if progress < 0.08 else 1 - 0.99 * (progress - 0.08) / 0.92


class Average:
    """Exponential moving average of the weights."""

    def __init__(self, model, decay=0.995):
        self.model, self.decay = copy.deepcopy(model), decay
        self.steps = 0

    @torch.no_grad()
    def update(self, model):
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        for slow, fast in zip(self.model.parameters(), model.parameters()):
            slow.lerp_(fast, 1 - decay)


@torch.no_grad()
def recalibrate(model, x_u8, batch=128, batches=16):
    """Measures the batch normalisation statistics of averaged weights afresh, on untouched training pictures."""
    model.train()
    norms = [b.norm for b in model.blocks.values()]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    order = torch.randperm(len(x_u8), generator=torch.Generator().manual_seed(1))
    for i in range(batches):
        model(D.normalise(x_u8[order[i * batch : (i + 1) * batch]]).contiguous(memory_format=torch.channels_last))
    for norm in norms:
        norm.momentum = 0.1
    model.eval()


def main():
    args = arguments()
    started = time.time()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = torch.Generator().manual_seed(args.seed)
    classes = D.class_names(args.data)
    train_x, train_y = D.load_split(args.data, "train")
    val = D.load_split(args.data, "val")
    print(f"decoded {len(train_y)} + {len(val[1])} pictures in {time.time() - started:.1f} s", flush=True)

    model = CipherNet(len(classes)).to(memory_format=torch.channels_last)
    convs = [b.conv.weight for b in model.blocks.values()]
    rest = [p for p in model.parameters() if all(p is not c for c in convs)]
    optimisers = [Muon(convs, args.lr), torch.optim.AdamW(rest, args.adam_lr, betas=(0.9, 0.99), weight_decay=0.01)]
    peaks = [args.lr, args.adam_lr]
    average = Average(model)

    class_weights = torch.ones(len(classes))
    class_weights[CAT] = args.cat_weight

    def objective(x, y, weight):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), y, class_weights, label_smoothing=0.1)
        penalty = moment_penalty(model.activation_inputs(), args.limit)
        return loss + weight * penalty, loss.detach(), penalty.detach()

    compiled = torch.compile(objective, dynamic=False)

    sizes = [64] * args.epochs[0] + [96] * args.epochs[1] + [128] * args.epochs[2]
    cyclic = len(sizes)
    sizes += [128] * args.finetune
    first, trained = 0, 0.0
    if args.checkpoint and Path(args.checkpoint).exists():
        state = torch.load(args.checkpoint)
        model.load_state_dict(state["model"])
        average.model.load_state_dict(state["average"])
        average.steps = state["steps"]
        for optimiser, saved in zip(optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        rng.set_state(state["rng"])
        first, trained = state["epoch"], state["seconds"]

    for epoch in range(first, len(sizes)):
        begun = time.time()
        finetuning = epoch >= cyclic
        full_size = sizes[epoch] == D.SIZE
        if epoch == cyclic:
            # Stage c goes on from the averaged weights with the normalisation frozen: the very network that is exported.
            recalibrate(average.model, train_x)
            model.load_state_dict(average.model.state_dict())
        model.train()
        for block in model.blocks.values():
            block.norm.train(not finetuning)
        weight = torch.tensor(args.penalty if finetuning else penalty_weight(epoch, cyclic, args.penalty))
        order = D.epoch_order(train_y, args.cat_repeat, rng)
        batches = len(order) // args.batch
        sums = torch.zeros(2)
        for i in range(batches):
            progress = epoch + i / batches
            scale = 0.05 * (1 - (progress - cyclic) / args.finetune) if finetuning else rate(progress / cyclic)
            for optimiser, peak in zip(optimisers, peaks):
                for group in optimiser.param_groups:
                    group["lr"] = peak * scale
            chosen = order[i * args.batch : (i + 1) * args.batch]
            y = train_y[chosen]
            closest = torch.full((len(y),), 0.6 if finetuning else args.min_scale)
            if full_size:
                closest[y == CAT] = args.cat_min_scale
            x = D.augment(train_x[chosen], sizes[epoch], rng, closest, strong=full_size)
            total, loss, penalty = compiled(x, y, weight)
            total.backward()
            torch.nn.utils.clip_grad_norm_(rest, 1.0)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            average.update(model)
            sums += torch.stack([loss, penalty])
        trained += time.time() - begun
        loss, penalty = (sums / batches).tolist()
        print(f"epoch {epoch + 1}/{len(sizes)} size {sizes[epoch]} loss {loss:.4f} penalty {penalty:.4f} "
              f"(weight {weight.item():.3f}) {time.time() - begun:.1f} s, {trained / 60:.1f} min", flush=True)
        last = epoch + 1 == len(sizes)
        if last or (epoch + 1) % args.evaluate_every == 0:
            if finetuning:
                average.model.eval()
            else:
                recalibrate(average.model, train_x)
            about = {"date": time.strftime("%Y-%m-%d"), "epochs": epoch + 1, "train_minutes": round(trained / 60, 1),
                     "multiplicative_levels": LEVELS, "seed": args.seed}
            export_network(average.model, classes, NAME, about, args.out)
            facts = evaluate(args.out, val, Path(args.data) / "sample_images")
            export_network(average.model, classes, NAME, about | facts, args.out)
            print(json.dumps(facts), flush=True)
        if args.checkpoint:
            torch.save({"model": model.state_dict(), "average": average.model.state_dict(), "steps": average.steps,
                        "optimisers": [o.state_dict() for o in optimisers], "rng": rng.get_state(),
                        "epoch": epoch + 1, "seconds": trained}, args.checkpoint + ".tmp")
            Path(args.checkpoint + ".tmp").replace(args.checkpoint)


if __name__ == "__main__":
    main()

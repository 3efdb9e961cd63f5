"""Measures a model file on the validation pictures, in fp32 and from the file alone.

    python training/evaluate.py --data ../shared/data --model models/imagenette11.safetensors
"""

import argparse
import json
from pathlib import Path

import torch

import data as D
from graph import load_model, run_graph

CAT = 10


@torch.no_grad()
def evaluate(path, val, sample_images):
    """Accuracy, activation ranges and the answer to the sample pictures, from the exported file alone, in fp32."""
    graph, tensors = load_model(path)
    x, y = val
    watch, logits = {}, []
    for i in range(0, len(x), 128):
        logits.append(run_graph(graph, tensors, D.normalise(x[i : i + 128]), watch))
    logits = torch.cat(logits)
    right = logits.argmax(1) == y
    ranges = {n["name"]: watch[n["name"]] for n in graph["nodes"] if n["op"] == "polynomial"}
    top = logits.topk(2).values
    facts = {
        "val_images": len(y),
        "val_accuracy": round(right.float().mean().item(), 5),
        "val_accuracy_imagenette": round(right[y != CAT].float().mean().item(), 5),
        "val_accuracy_cat": round(right[y == CAT].float().mean().item(), 5),
        "val_cat_false_alarms": int((logits.argmax(1)[y != CAT] == CAT).sum()),
        "max_abs_logit": round(logits.abs().max().item(), 3),
        "median_margin": round((top[:, 0] - top[:, 1]).median().item(), 3),
        "max_abs_activation_input": {k: round(max(-lo, hi), 2) for k, (lo, hi) in ranges.items()},
    }
    for mode in ("crop", "squash"):
        picture = Path(sample_images) / "chelsea.png"
        if picture.exists():
            out = run_graph(graph, tensors, D.normalise(D.load_picture(picture, mode)))[0]
            others = torch.cat([out[:CAT], out[CAT + 1 :]])
            facts[f"chelsea_{mode}_margin"] = round((out[CAT] - others.max()).item(), 3)
    return facts


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", default="../shared/data")
    p.add_argument("--model", default="models/imagenette11.safetensors")
    args = p.parse_args()
    print(json.dumps(evaluate(args.model, D.load_split(args.data, "val"), Path(args.data) / "sample_images"), indent=1))


if __name__ == "__main__":
    main()

"""Reading and augmenting the training pictures.

The data folder holds Imagenette at 128x128 (`imagenette128/`) and cat photographs (`cat128/`), each split as one file
of concatenated JPEGs (`train.jpgs`), the byte offsets of the pictures (`train.offsets.u32`, N + 1 little-endian values)
and, for Imagenette, one label byte per picture. Everything fits in memory once decoded (about 600 MB).
"""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

SIZE = 128
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def class_names(data):
    """Imagenette's ten names in label order, then `cat`."""
    layout = json.loads((Path(data) / "imagenette128" / "layout.json").read_text())
    return [c["name"] for c in sorted(layout["classes"], key=lambda c: c["label"])] + ["cat"]


def _decode(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def _read_jpegs(folder, split):
    blob = (folder / f"{split}.jpgs").read_bytes()
    offsets = np.fromfile(folder / f"{split}.offsets.u32", dtype="<u4").tolist()
    with ThreadPoolExecutor(4) as pool:
        return np.stack(list(pool.map(lambda ab: _decode(blob[ab[0] : ab[1]]), zip(offsets, offsets[1:]))))


def load_split(data, split):
    """All eleven classes of `train` or `val`: uint8 [N, 3, 128, 128] and int64 [N]."""
    data = Path(data)
    pictures = _read_jpegs(data / "imagenette128", split)
    labels = np.fromfile(data / "imagenette128" / f"{split}.labels.u8", dtype=np.uint8)
    cats = _read_jpegs(data / "cat128", split)
    x = np.concatenate([pictures, cats]).transpose(0, 3, 1, 2)
    y = np.concatenate([labels, np.full(len(cats), 10, np.uint8)])
    return torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.int64))


def load_packed(folder, split):
    """One bundle, `train` or `val`, with its labels: uint8 [N, 3, H, W] and int64 [N]."""
    pictures = _read_jpegs(Path(folder), split).transpose(0, 3, 1, 2)
    labels = np.fromfile(Path(folder) / f"{split}.labels.u8", dtype=np.uint8)
    return torch.from_numpy(np.ascontiguousarray(pictures)), torch.from_numpy(labels.astype(np.int64))


def normalise(x_u8):
    """(u8 / 255 - mean) / std, per channel, f32."""
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    std = torch.tensor(STD).view(1, 3, 1, 1)
    return (x_u8.float() / 255 - mean) / std


def load_picture(path, mode):
    """A picture file as uint8 [1, 3, 128, 128], by an antialiased triangle filter.

    `crop` takes the largest centred square first; `squash` resizes the whole picture and so changes its aspect.
    """
    picture = Image.open(path).convert("RGB")
    if mode == "crop":
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    picture = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).unsqueeze(0)


def augment(x_u8, size, rng, min_scale, strong):
    """Random resized crop to `size`, horizontal flip and colour jitter of a uint8 batch; returns normalised f32.

    `min_scale` (one value or one per picture) is the smallest share of the area that a crop keeps. `strong` asks for
    wider jitter: aspect, white balance, saturation, and every seventh picture in greys.
    """
    n = len(x_u8)

    def uniform(low, high, *shape):
        return torch.empty(n, *shape).uniform_(low, high, generator=rng)

    area = min_scale + (1 - min_scale) * uniform(0, 1)
    aspect = torch.exp(uniform(-0.4, 0.4) if strong else uniform(-0.25, 0.25))
    width = torch.sqrt(area * aspect).clamp(max=1.0)
    height = torch.sqrt(area / aspect).clamp(max=1.0)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = width * flip
    theta[:, 1, 1] = height
    theta[:, 0, 2] = uniform(-1, 1) * (1 - width)
    theta[:, 1, 2] = uniform(-1, 1) * (1 - height)
    x = x_u8.float() / 255
    grid = F.affine_grid(theta, (n, 3, size, size), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    # Brightness, contrast and saturation as one affine map per picture.
    gain = uniform(0.7, 1.3, 1, 1, 1)
    contrast = uniform(0.7, 1.3, 1, 1, 1)
    saturation = uniform(0.7, 1.3, 1, 1, 1)
    if strong:
        saturation = torch.where(uniform(0, 1, 1, 1, 1) < 0.15, 0.0, uniform(0.5, 1.4, 1, 1, 1))
        gain = gain * uniform(0.8, 1.2, 3, 1, 1)
    grey = x.mean(1, keepdim=True)
    level = grey.mean((2, 3), keepdim=True)
    x = gain * (contrast * (saturation * (x - grey) + grey - level) + level)
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    std = torch.tensor(STD).view(1, 3, 1, 1)
    return ((x.clamp(0, 1) - mean) / std).contiguous(memory_format=torch.channels_last)


def epoch_order(labels, cat_repeat, rng):
    """A shuffled epoch in which every cat appears `cat_repeat` times on average."""
    everything = torch.arange(len(labels))
    cats = everything[labels == 10]
    whole, part = divmod(cat_repeat - 1, 1)
    extra = [cats] * int(whole)
    if part:
        extra.append(cats[torch.randperm(len(cats), generator=rng)[: int(part * len(cats))]])
    order = torch.cat([everything, *extra])
    return order[torch.randperm(len(order), generator=rng)]

"""Make builtin:image: ``python pictures.py PICTURES.parquet --teacher TEACHER --output ../build/image``.

A small ResNet (He et al. 2015, arXiv 1512.03385) learns two things of each picture: its class, and what a teacher that
has seen ImageNet makes of it, the pooled features below its classifier, each brought to mean 0 and deviation 1; mean
squared error, as in FitNets (Romero et al. 2015, arXiv 1412.6550, equation 3), at the last layer alone. Both are read
from one linear layer, so that the student is a plain classifier while it learns.

This is training from scratch, which unfreeze is not for: its engine holds the statistics of batch norms still, and here
they have to be found. Hence the loop below. It writes its state after every epoch and goes on from there.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import AutoModelForImageClassification, ResNetConfig, ResNetForImageClassification

EDGE = 64  # of what the student sees
TEACHER_EDGE = 96  # twice as many pixels a side would take four times as long, and there are only 32
HELD_OUT = 2_000
BATCH, RATE, MOMENTUM, WEIGHT_DECAY, SMOOTHING = 128, 0.1, 0.9, 5e-4, 0.1
FEATURE_WEIGHT = 3.0
WARM_UP = 0.15
# Shares of a picture's area that a random crop keeps, and of its sides to each other.
AREAS, ASPECTS = (0.4, 1.0), (0.8, 1.25)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def read_pictures(path: Path) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Pictures (rows, 3, 32, 32) as bytes, the numbers of their classes (rows,), and the names of those."""
    table = pq.read_table(path, columns=["image", "label"])
    found = [np.asarray(Image.open(io.BytesIO(i["bytes"])).convert("RGB")) for i in table.column("image").to_pylist()]
    pictures = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()
    names, numbers = np.unique(table.column("label").to_pylist(), return_inverse=True)
    return pictures, torch.from_numpy(numbers), [str(name) for name in names]


def normalised(pictures: torch.Tensor) -> torch.Tensor:
    """Bytes, or numbers from 0 to 255, to what both models get."""
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    return ((pictures.float() / 255 - mean) / deviation).contiguous(memory_format=torch.channels_last)


def features_of(teacher: Path, pictures: torch.Tensor, file: Path) -> np.ndarray:
    """What the teacher makes of each picture, (rows, features) float16; kept in `file`."""
    if file.is_file():
        return np.load(file, mmap_mode="r")
    model = AutoModelForImageClassification.from_pretrained(teacher, dtype=torch.float32).eval()
    backbone = model.base_model.to(memory_format=torch.channels_last)
    found = []
    with torch.inference_mode():
        for start in range(0, len(pictures), 64):
            large = F.interpolate(
                pictures[start : start + 64].float(), size=TEACHER_EDGE, mode="bilinear", antialias=True
            )
            pooled = backbone(normalised(large)).pooler_output.flatten(1)
            found.append(pooled.numpy().astype(np.float16))
            if start % 6400 == 0:
                print(f"teacher: {start:,} of {len(pictures):,}", flush=True)
    features = np.concatenate(found)
    centered = (features - features.mean(0, dtype=np.float64)) / np.maximum(features.std(0, dtype=np.float64), 1e-3)
    np.save(file, centered.astype(np.float16))
    return np.load(file, mmap_mode="r")


def student(names: list[str], n_features: int) -> ResNetForImageClassification:
    """A ResNet of four short stages; its linear layer gives the classes, then the teacher's features."""
    torch.manual_seed(0)
    outputs = dict(enumerate([*names, *(f"feature {i}" for i in range(n_features))]))
    config = ResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 160, 320],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        id2label=outputs,
        label2id={name: i for i, name in outputs.items()},
    )
    return ResNetForImageClassification(config).to(memory_format=torch.channels_last)


def varied(pictures: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Random crops, half of them mirrored, a little lighter or darker, brought to the student's size."""
    rows = len(pictures)
    area = torch.empty(rows).uniform_(*AREAS, generator=draw)
    aspect = torch.empty(rows).uniform_(*map(math.log, ASPECTS), generator=draw).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    # Between -1 and 1: where the middle of a crop may lie.
    x = (1 - width) * torch.empty(rows).uniform_(-1, 1, generator=draw)
    y = (1 - height) * torch.empty(rows).uniform_(-1, 1, generator=draw)
    side = torch.where(torch.rand(rows, generator=draw) < 0.5, -1.0, 1.0)
    maps = torch.zeros(rows, 2, 3)
    maps[:, 0, 0], maps[:, 0, 2], maps[:, 1, 1], maps[:, 1, 2] = side * width, x, height, y
    grid = F.affine_grid(maps, [rows, 3, EDGE, EDGE], align_corners=False)
    found = F.grid_sample(pictures.float(), grid, padding_mode="reflection", align_corners=False)
    light = torch.empty(rows, 1, 1, 1).uniform_(0.8, 1.2, generator=draw)
    return normalised((found * light).clamp(0, 255))


def decayed_apart(model: nn.Module) -> list[dict[str, Any]]:
    """Parameters whose decay means something, and those of norms and biases."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": weights, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]


def rate_at(progress: float) -> float:
    """From nothing to the highest rate, then along a cosine to nothing."""
    if progress < WARM_UP:
        return RATE * progress / WARM_UP
    return RATE * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def answers(model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """Classes and features of pictures as they are, (rows, classes + features)."""
    model.eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(pictures), 250):
            large = F.interpolate(pictures[start : start + 250].float(), size=EDGE, mode="bilinear")
            found.append(model(pixel_values=normalised(large)).logits)
    return torch.cat(found)


def wanted_of(features: np.ndarray, rows: torch.Tensor) -> torch.Tensor:
    """The teacher's features of some rows, (rows, features)."""
    return torch.from_numpy(np.asarray(features[rows.numpy()], dtype=np.float32))


def train(
    pictures: torch.Tensor, labels: torch.Tensor, names: list[str], features: np.ndarray, folder: Path, epochs: int
) -> Any:
    """The student after its epochs; state.pt lies in `folder` between them."""
    model, classes = student(names, features.shape[1]), len(names)
    optimizer = torch.optim.SGD(decayed_apart(model), RATE, momentum=MOMENTUM, nesterov=True)
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
    held_out, rows = order[:HELD_OUT], order[HELD_OUT:]
    begun, file = 0, folder / "state.pt"
    if file.is_file():
        state = torch.load(file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        begun = state["epoch"]
    steps = len(rows) // BATCH
    for epoch in range(begun, epochs):
        started, model = time.monotonic(), model.train()
        draw = torch.Generator().manual_seed(1_000 + epoch)
        shuffled = rows[torch.randperm(len(rows), generator=draw)]
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate_at((epoch * steps + step) / (epochs * steps))
            chosen = shuffled[step * BATCH : (step + 1) * BATCH]
            outputs = model(pixel_values=varied(pictures[chosen], draw)).logits
            loss = F.cross_entropy(outputs[:, :classes], labels[chosen], label_smoothing=SMOOTHING)
            loss = loss + FEATURE_WEIGHT * F.mse_loss(outputs[:, classes:], wanted_of(features, chosen))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found = answers(model, pictures[held_out])
        share = float((found[:, :classes].argmax(1) == labels[held_out]).float().mean())
        gap = float(F.mse_loss(found[:, classes:], wanted_of(features, held_out)))
        told = f"epoch {epoch + 1}: held out {share:.3f} right, {gap:.3f} of the features' variance left"
        print(f"{told}, {time.monotonic() - started:.0f} s", flush=True)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}, file)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    pictures, labels, names = read_pictures(arguments.pictures)
    features = features_of(arguments.teacher, pictures, arguments.output / "features.npy")
    model = train(pictures, labels, names, features, arguments.output, arguments.epochs)
    model.save_pretrained(arguments.output / "model")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Train GlyphNet, the built-in backbone, on letters and never on a digit.

    python benchmarks/train_glyphnet.py [--out FILE] [--seed 0] [--epochs N]

Every letter of the fonts that matplotlib ships is rendered once, thinned to a skeleton and
stored as the distances to it. Each training image is drawn anew from such a field: warped,
with a stroke of random width, fitted to the box and averaged down to 8x8 cells of 17 grey
levels, as scikit-learn's digits were made. Batch normalisation is folded into the
convolutions at the end. The digits are loaded only after the weights are written, to print
how well they are imprinted.

The same seed gives the same file with the same torch, fonts and kind of processor.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.numpy import save
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from edge_imprint.backbones import glyphnet
from glyphs import distance_fields

WORK = 48  # side of the warped field, before it is fitted to the box
CELLS = 8  # side of the low-resolution image, as in load_digits
LEVELS = 16  # highest grey level of a cell, as in load_digits

BATCH = 256
STEPS_PER_EPOCH = 100
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.05
COSINE_SCALE = 16.0  # logits are this times a cosine
EPOCHS = 12
THREADS = 2  # fixed, since sums are split by thread
SPLITS = 5  # splits of the digits that the printed averages are over

FloatArray = npt.NDArray[np.float32]


def warp(field: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    """Write each glyph with another hand: rotated, slanted, stretched and bent.

    Args:
        field: (N, 1, CANVAS, CANVAS) float32 distance fields.
        noise: Source of the randomness.

    Returns:
        (N, 1, WORK, WORK) float32.
    """
    n = len(field)
    normal = torch.randn(n, 3, generator=noise)
    angle, slant = 0.12 * normal[:, 0], 0.25 * normal[:, 1]
    wide = torch.exp(0.2 * normal[:, 2])
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros(n)
    # Rows of the map from the output to the source: wide * rotation * slant.
    across = torch.stack([wide * cos, wide * (slant * cos - sin), zero], dim=1)
    down = torch.stack([sin, slant * sin + cos, zero], dim=1)
    grid = F.affine_grid(
        torch.stack([across, down], dim=1), [n, 1, WORK, WORK], align_corners=False
    )
    bends = 0.08 * torch.randn(n, 2, 4, 4, generator=noise)
    bends = F.interpolate(bends, size=(WORK, WORK), mode="bicubic", align_corners=False)
    grid = grid + bends.permute(0, 2, 3, 1)
    return F.grid_sample(field, grid, padding_mode="border", align_corners=False)


def fit(field: torch.Tensor, width: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    """Scale each glyph to about the height of the image, as the digits were.

    Args:
        field: (N, 1, WORK, WORK) float32 warped distance fields.
        width: (N, 1, 1, 1) float32 half-widths of the strokes.
        noise: Source of the randomness.

    Returns:
        (N, 1, IMAGE_SIZE, IMAGE_SIZE) float32.
    """
    n = len(field)
    ink = (field < width)[:, 0]
    ticks = (torch.arange(WORK) + 0.5) * (2 / WORK) - 1
    ends = []
    for axis in (1, 2):  # the columns, then the rows, that hold ink
        taken = ink.any(dim=axis)
        low = torch.where(taken, ticks, torch.ones(())).amin(dim=1)
        high = torch.where(taken, ticks, -torch.ones(())).amax(dim=1)
        ends.append((low, high))
    (left, right), (top, bottom) = ends
    normal = torch.randn(n, 3, generator=noise)
    tall = ((bottom - top) / 2).clamp(min=0.2) * torch.exp(0.05 * normal[:, 0])
    # Wide glyphs are squeezed to the width, narrow ones keep their shape.
    wide = torch.maximum(tall, (right - left) / 2 * 1.1)
    zero = torch.zeros(n)
    across = torch.stack([wide, zero, (left + right) / 2 + 0.08 * normal[:, 1] * wide], dim=1)
    down = torch.stack([zero, tall, (top + bottom) / 2 + 0.03 * normal[:, 2] * tall], dim=1)
    size = [n, 1, glyphnet.IMAGE_SIZE, glyphnet.IMAGE_SIZE]
    grid = F.affine_grid(torch.stack([across, down], dim=1), size, align_corners=False)
    return F.grid_sample(field, grid, padding_mode="border", align_corners=False)


def make_images(field: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    """Draw training images as the digits look after the product's preprocessing.

    Args:
        field: (N, 1, CANVAS, CANVAS) float32 distance fields.
        noise: Source of the randomness.

    Returns:
        (N, 3, IMAGE_SIZE, IMAGE_SIZE) float32, normalised by ``MEAN`` and ``STD``.
    """
    uniform = torch.rand(len(field), 1, 1, 1, generator=noise)
    width = 2.0 + 4.5 * uniform
    ink = (width - fit(warp(field, noise), width, noise)).add(0.5).clamp(0, 1)
    cells = F.adaptive_avg_pool2d(ink, CELLS)
    cells = cells + 0.03 * torch.randn(cells.shape, generator=noise)
    cells = (cells * LEVELS).round().clamp(0, LEVELS) / LEVELS
    side = glyphnet.IMAGE_SIZE
    image = F.interpolate(cells, size=(side, side), mode="bilinear", align_corners=False)
    shape = (1, 3, 1, 1)
    mean, std = torch.tensor(glyphnet.MEAN), torch.tensor(glyphnet.STD)
    return (image.expand(-1, 3, -1, -1) - mean.view(shape)) / std.view(shape)


class Trainee(nn.Module):
    """GlyphNet with batch normalisation, and a classifier by cosine on top.

    The classifier compares the normalised embedding with one normalised vector a class,
    which is what the proxies of imprinting do later.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        kernel, padding = glyphnet.KERNEL_SIZE, glyphnet.PADDING
        for i, o, stride, _ in glyphnet.LAYERS:
            self.convs.append(nn.Conv2d(i, o, kernel, stride, padding, bias=False))
            self.norms.append(nn.BatchNorm2d(o))
        self.proxies = nn.Parameter(torch.randn(classes, glyphnet.EMBEDDING_SIZE))

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) float32 images to (N, EMBEDDING_SIZE) float32 embeddings."""
        for layer, conv, norm in zip(glyphnet.LAYERS, self.convs, self.norms, strict=True):
            x = norm(conv(x))
            if layer.relu:
                x = F.relu(x)
        return F.avg_pool2d(x, glyphnet.POOL_SIZE).flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) float32 images to (N, classes) float32 logits."""
        embedding = F.normalize(self.embed(x), dim=1)
        return COSINE_SCALE * embedding @ F.normalize(self.proxies, dim=1).T

    def folded(self) -> dict[str, FloatArray]:
        """Fold the batch normalisation and return the weights of the shipped network."""
        weights: dict[str, FloatArray] = {}
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            bias = norm.bias - norm.running_mean * gain
            kernel = conv.weight * gain.view(-1, 1, 1, 1)
            weights[f"conv{i}.weight"] = kernel.detach().numpy()
            weights[f"conv{i}.bias"] = bias.detach().numpy()
        return weights


def train(seed: int, epochs: int) -> dict[str, FloatArray]:
    """Train on letters and fold the batch normalisation.

    Args:
        seed: Seed of the first weights and of the images.
        epochs: Number of times ``STEPS_PER_EPOCH`` batches.

    Returns:
        The weights, as :func:`edge_imprint.backbones.glyphnet.load_weights` gives them.
    """
    torch.manual_seed(seed)
    noise = torch.Generator().manual_seed(seed)
    fields, labels = distance_fields()
    counts = torch.bincount(labels)
    print(f"{len(labels)} glyphs of {len(counts)} letters", flush=True)
    # Between one draw a glyph and one draw a letter: fonts differ in how many they have.
    chances = 1 / counts[labels].float().sqrt()
    model = Trainee(len(counts))
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=epochs * STEPS_PER_EPOCH, pct_start=0.1
    )
    for epoch in range(epochs):
        total = 0.0
        for _ in range(STEPS_PER_EPOCH):
            chosen = torch.multinomial(chances, BATCH, replacement=True, generator=noise)
            logits = model(make_images(fields[chosen], noise))
            loss = F.cross_entropy(logits, labels[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs} loss {total / STEPS_PER_EPOCH:.3f}", flush=True)
    return model.folded()


def embed_digits(
    weights: Mapping[str, FloatArray],
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Embed scikit-learn's digits as the product does, by way of 8-bit RGB images.

    Returns:
        L2-normalised embeddings, (1797, EMBEDDING_SIZE) float32; the digits, (1797,) int64.
    """
    cells, digits = load_digits(return_X_y=True)
    size = (glyphnet.IMAGE_SIZE, glyphnet.IMAGE_SIZE)
    images = []
    for cell in np.round(cells.reshape(-1, CELLS, CELLS) * 255 / LEVELS).astype(np.uint8):
        image = Image.fromarray(cell).convert("RGB").resize(size, Image.Resampling.BILINEAR)
        images.append(np.asarray(image, dtype=np.float32) / 255)
    mean, std = torch.tensor(glyphnet.MEAN), torch.tensor(glyphnet.STD)
    pixels = (torch.tensor(np.stack(images)) - mean) / std
    network = glyphnet.torch_module(weights)
    with torch.inference_mode():
        embeddings = F.normalize(network(pixels.permute(0, 3, 1, 2)), dim=1)
    return embeddings.numpy(), digits.astype(np.int64)


def accuracies(
    x: FloatArray, y: npt.NDArray[np.int64], split: int
) -> tuple[float, float, float]:
    """Imprint 1,100 digits and classify the 697 others.

    Args:
        x: (1797, D) float32 L2-normalised embeddings.
        y: (1797,) int64 classes.
        split: Seed of the split.

    Returns:
        Accuracies in per cent: the class mean as the only proxy, 20 k-means centres a class,
        and for comparison a logistic regression.
    """
    digits = load_digits(return_X_y=True)[1]
    seen, unseen = train_test_split(
        np.arange(len(y)), test_size=697, stratify=digits, random_state=split
    )
    found = []
    for count in (1, 20):
        scores = []
        for label in np.unique(y):
            members = x[seen][y[seen] == label]
            means = KMeans(count, n_init=1, random_state=0).fit(members).cluster_centers_
            proxies = means / np.linalg.norm(means, axis=1, keepdims=True)
            scores.append((x[unseen] @ proxies.T).max(axis=1))
        found.append(np.unique(y)[np.argmax(scores, axis=0)])
    regression = LogisticRegression(C=100.0, max_iter=2000).fit(x[seen], y[seen])
    found.append(regression.predict(x[unseen]))
    mean, kmeans, logistic = (100 * float(np.mean(f == y[unseen])) for f in found)
    return mean, kmeans, logistic


def main() -> None:
    """Train, write the weights, and print how well the digits are imprinted on them."""
    parser = argparse.ArgumentParser(description="Train GlyphNet on letters.")
    parser.add_argument("--out", type=Path, default=glyphnet.WEIGHTS_PATH)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()

    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    start = time.monotonic()
    weights = train(options.seed, options.epochs)
    data = save(weights)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    part = options.out.with_name(f"{options.out.name}.{os.getpid()}.part")
    part.write_bytes(data)
    os.replace(part, options.out)
    print(f"trained in {time.monotonic() - start:.0f} s, torch {torch.__version__}")
    print(f"{sum(w.size for w in weights.values())} parameters, {len(data)} bytes")
    print(f"sha256 {hashlib.sha256(data).hexdigest()}")

    x, digits = embed_digits(weights)
    print(f"accuracy in %, split seed 0 (average of seeds 0-{SPLITS - 1})")
    print("classes    mean           k-means 20     logistic regression")
    for name, y in [("digit", digits), ("odd/even", digits % 2), ("mod 3", digits % 3)]:
        table = np.array([accuracies(x, y, split) for split in range(SPLITS)])
        pairs = zip(table[0], table.mean(axis=0), strict=True)
        columns = [f"{first:.2f} ({average:.2f})" for first, average in pairs]
        print(f"{name:11}" + "  ".join(columns), flush=True)


if __name__ == "__main__":
    main()

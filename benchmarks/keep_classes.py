# SPDX-License-Identifier: Apache-2.0
"""What becomes of a backbone's own classes when new ones are imprinted beside them.

    python benchmarks/keep_classes.py [--seeds 5]

A small network is trained to tell five of scikit-learn's digits apart, once with an ordinary
linear classifier and once with one by cosine (Qi et al. 2018); the five others are imprinted
beside its own. Shares right on held-out images: each half alone, then both together with the
classifier's rows as they are, and with the factor of `own_scale`.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small products: threads would only slow them

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from common import write_result
from edge_imprint.backbones import OwnClasses
from edge_imprint.imprinting.imprint import imprint
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.judging.crossval import Folds, held_out
from edge_imprint.keep import keep_classes, own_scale

COSINE_SCALE = 16.0
EPOCHS = 30
BATCH = 32
PRESETS = ("qi2018", "imprint")
COLUMNS = ("own alone", "new alone", "own kept", "new", "own scaled", "new", "scale")

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


def make_network() -> nn.Sequential:
    """(N, 1, 8, 8) float32 images to (N, 128) float32 embeddings, none negative."""
    layers: list[nn.Module] = []
    for into, out, stride in ((1, 32, 1), (32, 64, 2), (64, 128, 1)):
        layers += [nn.Conv2d(into, out, 3, stride, 1), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def train(
    images: torch.Tensor, labels: torch.Tensor, cosine: bool
) -> tuple[nn.Module, Float32]:
    """Train network and classifier; give the network and the classifier's (5, 128) rows."""
    network, last = make_network(), nn.Linear(128, 5)
    parameters = [*network.parameters(), *last.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-2, weight_decay=0.05)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH):
            shift = torch.randint(-1, 2, (2,)).tolist()
            embedding = network(torch.roll(images[chosen], shift, (2, 3)))
            logits = last(embedding)
            if cosine:
                unit = F.normalize(embedding, dim=1)
                logits = COSINE_SCALE * unit @ F.normalize(last.weight, dim=1).T
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(logits, labels[chosen]))
            optimizer.step()
            schedule.step()
    return network.eval(), last.weight.detach().numpy()


def measure(seed: int, cosine: bool) -> dict[str, list[float]]:
    """Train on five digits, imprint the others; give a row of `COLUMNS` for each preset."""
    torch.manual_seed(seed)
    cells, digits = load_digits(return_X_y=True)
    images = (cells / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    # The digits renumbered: 0-4 are the network's own, 5-9 are new.
    labels = np.random.default_rng(seed).permutation(10)[digits]
    seen, unseen = train_test_split(
        np.arange(len(labels)), test_size=0.4, random_state=seed, stratify=labels
    )
    learned = seen[labels[seen] < 5]
    network, rows = train(torch.tensor(images[learned]), torch.tensor(labels[learned]), cosine)
    with torch.inference_mode():
        embeddings: Float32 = network(torch.tensor(images)).numpy()

    own = OwnClasses(rows, tuple(f"own {c}" for c in range(5)))
    fresh = seen[labels[seen] >= 5]
    source = ByClass(embeddings[fresh], labels[fresh] - 5)
    old, new = unseen[labels[unseen] < 5], unseen[labels[unseen] >= 5]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    alone = float(np.mean((embeddings[old] @ unit.T).argmax(axis=1) == labels[old]))
    table = {}
    for preset in PRESETS:
        recipe = Recipe.parse(preset)
        head = imprint(source, [f"new {c}" for c in range(5)], recipe)
        scale = own_scale(own, source, held_out(Folds(source), recipe))
        row = [alone, float(np.mean(head.predict(embeddings[new]) == labels[new] - 5))]
        for factor in (1.0, scale):
            kept = keep_classes(head, own, factor)
            row.append(float(np.mean(kept.predict(embeddings[old]) == labels[old] + 5)))
            row.append(float(np.mean(kept.predict(embeddings[new]) == labels[new] - 5)))
        table[preset] = [*row, scale]
    return table


def main() -> None:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description="New classes beside a network's own.")
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    torch.set_num_threads(1)
    result: dict[str, dict[str, list[list[float]]]] = {}
    print("classifier  preset   " + "  ".join(f"{name:>10}" for name in COLUMNS))
    for kind in ("linear", "cosine"):
        tables = [measure(seed, kind == "cosine") for seed in seeds]
        result[kind] = {preset: [table[preset] for table in tables] for preset in PRESETS}
        for preset, rows in result[kind].items():
            means = "  ".join(f"{value:10.3f}" for value in np.mean(rows, axis=0))
            print(f"{kind:10}  {preset:8} {means}", flush=True)
    write_result("keep_classes", {"columns": COLUMNS, "by_seed": result})


if __name__ == "__main__":
    main()

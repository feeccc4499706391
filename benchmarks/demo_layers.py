# SPDX-License-Identifier: Apache-2.0
"""Accuracy of the demo's backbone by layer: digits, and letters like those it was trained on.

GlyphNet knows letters, so its last layer is made for them; whether an earlier one serves
digits better is what is asked. Each layer's map is averaged, as ``--layer`` does it; the row
``demo`` is the backbone as it is, which keeps 2 x 2 cells.

    .venv/bin/python benchmarks/demo_layers.py
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from common import write_result
from edge_imprint import ImprintClassifier, load_backbone
from edge_imprint.backbones.packaged import layers
from edge_imprint.embedding.embedders import ort_embedder
from edge_imprint_runtime import prepare

HELD_OUT = 697  # of 1,797 digits, as in the demo
SPLITS = 5


def main() -> None:
    """Print the table, and write it to ``benchmarks/results/demo_layers.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=SPLITS)
    splits = parser.parse_args().splits
    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    digits = data.target.astype(np.int64)
    tasks = {"ten digits": digits, "odd / even": digits % 2, "mod 3": digits % 3}
    print(f"| layer | numbers | {' | '.join(tasks)} |\n|---|---|{'---|' * len(tasks)}")
    rows = []
    for layer in (None, *reversed(layers())):
        backbone = load_backbone("demo", layer=layer)
        p = backbone.info.preprocess
        pixels = [prepare(Image.fromarray(image).convert("RGB"), p) for image in images]
        x = ort_embedder(backbone)(np.stack(pixels))
        shares = {name: accuracies(x, y, splits) for name, y in tasks.items()}
        cells = " | ".join(f"{100 * np.mean(found):.1f}" for found in shares.values())
        print(f"| {backbone.info.name} | {x.shape[1]} | {cells} |", flush=True)
        rows.append({"backbone": backbone.info.name, "size": x.shape[1], "accuracy": shares})
    write_result("demo_layers", {"splits": splits, "held_out": HELD_OUT, "rows": rows})


def accuracies(
    x: npt.NDArray[np.float32], y: npt.NDArray[np.int64], splits: int
) -> list[float]:
    """Imprint (k-means, k = 20) and classify what was held out, once a split."""
    found = []
    for seed in range(splits):
        train, test, train_y, test_y = train_test_split(
            x, y, test_size=HELD_OUT, stratify=y, random_state=seed
        )
        model = ImprintClassifier(proxies=20, random_state=0).fit(train, train_y)
        found.append(float(np.mean(model.predict(test) == test_y)))
    return found


if __name__ == "__main__":
    main()

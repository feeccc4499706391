# SPDX-License-Identifier: Apache-2.0
"""What the quick pixels are worth to a backbone: nearly the same embedding."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from edge_imprint import load_backbone
from edge_imprint.embedding.embedders import ort_embedder
from edge_imprint_runtime.images import decode_photo

# What docs/data.md states.
LEAST_COSINE = 0.999

SIZES = ((480, 640), (1200, 1600), (641, 333), (2048, 1025), (300, 400), (96, 128))


def scene(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """Draw soft shapes of all sizes, sharp edges, some grain."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(20):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        size = int(rng.integers(3, max(4, min(height, width) // 3)))
        draw.ellipse((x, y, x + size, y + size), fill=tuple(rng.integers(0, 256, 3).tolist()))
    grain = rng.normal(0, 4, (height, width, 3))
    return np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["demo", "timm/resnet18"])
def test_embeddings_of_both_ways_agree(name: str) -> None:
    backbone = load_backbone(name, random_weights=name != "demo")
    preprocess = backbone.info.preprocess
    embed = ort_embedder(backbone)
    differ = 0
    for seed, (height, width) in enumerate(SIZES):
        file = BytesIO()
        Image.fromarray(scene(height, width, seed)).save(file, "JPEG", quality=90)
        both = [
            decode_photo(file.getvalue(), preprocess, name="x", quick=quick)
            for quick in (False, True)
        ]
        differ += not np.array_equal(*both)
        rows = embed(np.stack(both)).astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        assert rows[0] @ rows[1] >= LEAST_COSINE
    assert differ >= 3  # or nothing was tried

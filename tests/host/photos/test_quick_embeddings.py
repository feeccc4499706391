# SPDX-License-Identifier: Apache-2.0
"""What the pixels of the quick ways are worth to a backbone: nearly the same embedding."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge_imprint import load_backbone
from edge_imprint.embedding.embedders import ort_embedder
from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.images import decode_photo
from tests.standins.scenes import scene

# What docs/data.md states: of common sizes, and of those for which it is least.
LEAST_COSINE = {"quick": 0.999, "draft": 0.998}
LEAST_OF_ALL = {"quick": 0.998, "draft": 0.95}
# The demo's 32 pixels are made of twice as many, or hardly more. With ``draft`` libjpeg alone
# makes them of the photo, and nothing is left to resize.
WORST_SIZES = {
    "quick": ((128, 128), (129, 129), (256, 256), (512, 512)),
    "draft": ((64, 64), (65, 65), (128, 128), (256, 256)),
}

SIZES = ((480, 640), (1200, 1600), (641, 333), (2048, 1025), (300, 400), (96, 128))


@pytest.mark.parametrize("decode", LEAST_COSINE)
@pytest.mark.parametrize("name", ["demo", "timm/resnet18"])
def test_embeddings_of_both_ways_agree(name: str, decode: str) -> None:
    backbone = load_backbone(name, random_weights=name != "demo")
    preprocess = backbone.info.preprocess
    embed = ort_embedder(backbone)
    differ = 0
    for seed, (height, width) in enumerate(SIZES):
        both = _both_ways(scene(height, width, seed), preprocess, decode)
        differ += not np.array_equal(*both)
        assert _cosine(embed(np.stack(both))) >= LEAST_COSINE[decode]
    assert differ >= 3  # or nothing was tried


@pytest.mark.parametrize("decode", LEAST_OF_ALL)
def test_embeddings_where_fewest_pixels_stay_for_each_one(decode: str) -> None:
    """Of the demo backbone, whose weights are trained: random ones tell photos apart less."""
    backbone = load_backbone("demo")
    embed = ort_embedder(backbone)
    for height, width in WORST_SIZES[decode]:
        for seed in range(8):
            both = _both_ways(scene(height, width, seed), backbone.info.preprocess, decode)
            assert not np.array_equal(*both)
            assert _cosine(embed(np.stack(both))) >= LEAST_OF_ALL[decode]


def _both_ways(
    pixels: npt.NDArray[np.uint8], preprocess: Preprocess, decode: str
) -> list[npt.NDArray[np.uint8]]:
    """Return a JPEG's pixels at the network's size: the exact ones, then the way's."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    data = file.getvalue()
    return [decode_photo(data, preprocess, name="x", decode=way) for way in ("exact", decode)]


def _cosine(rows: npt.NDArray[np.float32]) -> float:
    first, second = rows.astype(np.float64)
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))

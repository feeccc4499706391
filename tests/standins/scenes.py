# SPDX-License-Identifier: Apache-2.0
"""Drawn scenes: what photos have, of any size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

__all__ = ["scene"]


def scene(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """Draw what photos have: soft shapes of all sizes, sharp edges, some grain."""
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

# SPDX-License-Identifier: Apache-2.0
"""A space, and embeddings whose photos never were."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint.embedding.cache import Space
from edge_imprint_runtime.contract import BackboneInfo, Preprocess

Rows = npt.NDArray[np.float32]
Keys = npt.NDArray[np.uint8]
Embeddings = Callable[..., tuple[Keys, Rows]]


@pytest.fixture(scope="session")
def space() -> Space:
    info = BackboneInfo("timm/resnet18", "pretrained", "ab" * 32, Preprocess(224, 224))
    return Space(info, "cpu fp32", "quick")


@pytest.fixture(scope="session")
def embeddings() -> Embeddings:
    """Return ``make(count, size=6, first=0)``: digests (n, 32), and rows that they decide."""

    def make(count: int, size: int = 6, first: int = 0) -> tuple[Keys, Rows]:
        digests = [sha256(str(i).encode()).digest() for i in range(first, first + count)]
        keys = np.frombuffer(b"".join(digests), np.uint8).reshape(count, 32)
        rows = np.stack(
            [
                np.random.default_rng(i).standard_normal(size)
                for i in range(first, first + count)
            ]
        )
        return keys, rows.astype(np.float32)

    return make

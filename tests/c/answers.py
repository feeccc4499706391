# SPDX-License-Identifier: Apache-2.0
"""What tests of the C library's answers share: images, and Python's answers beside C's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint_runtime import Model, open_model
from tests.c.binding import Library, OpenModel, Predictions


def noise(*shape: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Pixels of which every one counts."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def same(found: Predictions, answer: Any, exact: bool = True) -> None:
    """Hold the C library's answers against Python's, both of ONNX Runtime on one machine."""
    assert len(found) == len(answer)
    assert found.labels == answer.labels
    near = {"rtol": 0, "atol": 0 if exact else 1e-5}
    np.testing.assert_allclose(found.scores, answer.scores, **near)
    if answer.probability is None:
        assert found.probability is None
    else:
        assert found.probability is not None
        np.testing.assert_allclose(found.probability, answer.probability, **near)
    for item, want in enumerate(answer):
        one = found[item]
        assert (one.label, one.nearest, one.index) == (want.label, want.nearest, want.index)
        assert one.score == pytest.approx(want.score, abs=near["atol"])
        assert one.known == (-1 if want.known is None else want.known)
        assert one.proxy == (-1 if want.proxy is None else want.proxy)
        if want.probability is None:
            assert one.probability == -1
        else:
            assert one.probability == pytest.approx(want.probability, abs=near["atol"])


def both(ei: Library, path: Path, **options: Any) -> tuple[OpenModel, Model]:
    """Open a model with the C library and with Python's."""
    return ei.open(path, threads=1, **options), open_model(path, "cpu", threads=1)

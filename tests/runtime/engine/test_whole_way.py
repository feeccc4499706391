# SPDX-License-Identifier: Apache-2.0
"""From a model to an engine to an answer, as a user goes it, on every version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_imprint_runtime import open_model
from edge_imprint_runtime.engine import compile_engine
from edge_imprint_runtime.errors import EngineMismatchError
from tests.standins import World, tensorrt_standin


@pytest.mark.parametrize("form", ["plain", "fp16", "int8", "calibrated", "frames"])
def test_an_engine_answers_as_its_model(
    world: World, forms: dict[str, bytes], tmp_path: Path, form: str
) -> None:
    model, out = tmp_path / "m.onnx", tmp_path / "m.engine"
    model.write_bytes(forms[form])
    compile_engine(model, out, batch=(1, 2, 4))
    opened = open_model(model, "cpu")
    images = np.random.default_rng(1).integers(0, 256, (11, *opened.input_shape))
    images = images.astype(opened.input_dtype)
    with open_model(out) as engine:
        assert engine.provider == "TensorRT"
        assert engine.labels == opened.labels
        got, want = engine.predict(images), opened.predict(images)  # in parts of at most 4
    assert [one.label for one in got] == [one.label for one in want]
    assert np.allclose(got.scores, want.scores, atol=1e-6)


def test_a_stale_engine_is_refused_or_built_again(model: Path) -> None:
    out = model.with_suffix(".engine")
    with tensorrt_standin("10.3.0.30"):
        compile_engine(model, out)
    with tensorrt_standin("10.13.3.9"):
        with pytest.raises(EngineMismatchError, match=r"was built by TensorRT 10\.3\.0\.30"):
            open_model(out)
        with open_model(out, rebuild=True) as engine:
            assert engine.runner.library == "tensorrt 10.13.3.9"

# SPDX-License-Identifier: Apache-2.0
"""What `open_model` opens with what, and what becomes of a model that is closed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_imprint_runtime import open_model
from edge_imprint_runtime.engine.opening import is_engine
from edge_imprint_runtime.errors import (
    ClosedModelError,
    EngineFileError,
    HeadFileError,
    ModelFileError,
    ParameterError,
)

PIXELS = np.full((3, 16, 16, 3), 100, np.uint8)


def test_an_engine_is_known_by_its_name_its_sidecar_or_its_first_bytes(tmp_path: Path) -> None:
    plain, named = tmp_path / "m.onnx", tmp_path / "m.engine"
    for file in (plain, named):
        file.write_bytes(b"\x08\x08")
    assert is_engine(named)
    assert not is_engine(plain)
    for magic in (b"ftrt", b"ptrt"):
        plain.write_bytes(magic + bytes(28))
        assert is_engine(plain)
    plain.write_bytes(b"\x08\x08")
    (tmp_path / "m.onnx.json").write_text('{\n "format": "edge-imprint.engine",\n')
    assert is_engine(plain)


@pytest.mark.parametrize("text", ["", "{}", '{"p50_ms": 1.5}', "no JSON", "\0\0"])
def test_what_others_write_beside_a_model_makes_no_engine_of_it(
    tiny_model: Path, tmp_path: Path, text: str
) -> None:
    shutil.copy(tiny_model, tmp_path / "m.onnx")
    (tmp_path / "m.onnx.json").write_text(text)
    with open_model(tmp_path / "m.onnx", "cpu") as model:
        assert len(model.predict(PIXELS)) == 3


@pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="needs Linux's /proc")
def test_a_file_that_can_t_be_read() -> None:
    with pytest.raises(ModelFileError) as error:
        open_model("/proc/self/mem")
    assert str(error.value) == "cannot read /proc/self/mem: Input/output error"


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_an_engine_runs_in_tensorrt_alone(tmp_path: Path, backend: str) -> None:
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"ftrt")
    with pytest.raises(ParameterError) as error:
        open_model(engine, backend)
    assert str(error.value) == (
        f"{engine} is an engine, which TensorRT alone runs, got backend={backend!r}; "
        "open the ONNX file it was compiled of"
    )


def test_an_engine_without_its_sidecar(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"ftrt" + bytes(28))
    for rebuild in (False, True):  # without it nothing says of what it was built
        with pytest.raises(EngineFileError) as error:
            open_model(engine, rebuild=rebuild)
        assert str(error.value) == (
            f"there is no file {engine}.json, without which nothing is known of the engine; "
            "copy it from where the engine was made, or make both: edge-imprint compile MODEL "
            f"--out {engine} --force"
        )


@pytest.mark.parametrize("option", ["cuda_graph", "rebuild"])
def test_what_only_engines_have(tiny_model: Path, option: str) -> None:
    with pytest.raises(ParameterError) as error:
        open_model(tiny_model, **{option: True})  # type: ignore[arg-type]
    assert str(error.value) == (
        f"{option} is for engines, and {tiny_model} is none; make one of it with: "
        "edge-imprint compile"
    )


def test_a_closed_model_says_so(tiny_model: Path) -> None:
    with open_model(tiny_model, "cpu") as model:
        assert len(model.predict(PIXELS)) == 3
    for use in (model.predict, model.embed):
        if use == model.embed and "embedding" not in model.runner.outputs:
            continue
        with pytest.raises(ClosedModelError) as error:
            use(PIXELS)
        assert str(error.value) == "the model was closed; open it again"
    model.close()  # twice is nothing new
    assert len(model.labels) > 1


def test_what_was_opened_is_closed_where_the_model_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_imprint_runtime.backends.ort import OrtRunner

    closed: list[OrtRunner] = []
    close = OrtRunner.close

    def note(self: OrtRunner) -> None:
        closed.append(self)
        close(self)

    def refuse(*_: Any, **__: Any) -> None:
        raise HeadFileError("refused")

    monkeypatch.setattr(OrtRunner, "close", note)
    monkeypatch.setattr("edge_imprint_runtime.model.Model.__init__", refuse)
    shutil.copy(tiny_model, tmp_path / "m.onnx")
    with pytest.raises(HeadFileError, match="refused"):
        open_model(tmp_path / "m.onnx", "cpu")
    assert len(closed) == 1


@pytest.mark.parametrize("layout", ["every second", "columns first", "backwards"])
def test_arrays_of_any_stride_are_taken(tiny_model: Path, layout: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 16, 16, 3), np.uint8)
    strided = {
        "every second": pixels[::2],
        "columns first": np.asfortranarray(pixels[:3]),
        "backwards": pixels[::-1],
    }[layout]
    assert not strided.flags.c_contiguous
    model = open_model(tiny_model, "cpu")
    np.testing.assert_array_equal(
        model.predict(strided).scores, model.predict(np.array(strided, order="C")).scores
    )

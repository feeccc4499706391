# SPDX-License-Identifier: Apache-2.0
"""Models in every form that is compiled, and engines of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_imprint_export import fuse
from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_export.precision.half import to_half
from edge_imprint_export.precision.int8 import to_int8
from edge_imprint_runtime import Frame, Head, Teachable
from edge_imprint_runtime.engine import compile_engine
from edge_imprint_runtime.engine.sidecar import Sidecar
from edge_imprint_runtime.files import write_atomic
from tests.standins import VERSIONS, World, tensorrt_standin


@pytest.fixture(params=VERSIONS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A machine with a GPU and one of the TensorRTs."""
    with tensorrt_standin(request.param) as made:
        yield made


@pytest.fixture
def one_world() -> Iterator[World]:
    """A machine with a GPU and TensorRT 10.3."""
    with tensorrt_standin("10.3.0.30") as made:
        yield made


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def forms(tiny_backbone: bytes, make_head: Callable[..., Head]) -> dict[str, bytes]:
    """A fused model of each form, as bytes."""
    graph = parse(tiny_backbone, "the test's backbone")
    pixels = np.random.default_rng(2).standard_normal((8, 3, 16, 16)).astype(np.float32)
    head = make_head()

    def fused(backbone: onnx.ModelProto | bytes = tiny_backbone, **options: object) -> bytes:
        of = options.pop("head", head)
        return to_bytes(fuse(backbone, of, **options))  # type: ignore[arg-type]

    return {
        "plain": fused(),
        "teachable": fused(teachable=Teachable("input", 8, 2), target="jetpack-6.2"),
        "fp16": fused(to_half(graph), precision="fp16"),
        "int8": fused(to_int8(graph, [pixels]), precision="int8"),
        "half head": fused(head_precision="fp16"),
        "calibrated": fused(head=make_head(calibrated=True, distance="euclidean")),
        "frames": fused(input="frame", frame=Frame("nv12", 24, 32)),
    }


@pytest.fixture
def model(forms: dict[str, bytes], tmp_path: Path) -> Path:
    """The plain model as a file."""
    return write_atomic(tmp_path / "model.onnx", forms["plain"])


@pytest.fixture
def engine(model: Path, one_world: World) -> tuple[Path, Sidecar]:
    """An engine of the plain model, made by TensorRT 10.3."""
    out = model.with_suffix(".engine")
    return out, compile_engine(model, out)

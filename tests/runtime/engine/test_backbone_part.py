# SPDX-License-Identifier: Apache-2.0
"""A backbone alone, as `export --part backbone` writes it, through every TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edge_imprint_export.frontend import embedder
from edge_imprint_export.graph import add_notes, parse, to_bytes
from edge_imprint_export.precision.half import to_half
from edge_imprint_export.precision.int8 import to_int8
from edge_imprint_runtime import BackboneInfo, Preprocess, open_model
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.backends.trt import TrtRunner
from edge_imprint_runtime.contract import Frame
from edge_imprint_runtime.engine import compile_again, compile_engine, read_sidecar
from edge_imprint_runtime.errors import (
    EngineMismatchError,
    NoContractError,
    ParameterError,
    UnsupportedOptionError,
)
from tests.standins import World

Make = Callable[[str], Path]


@pytest.fixture
def make(tmp_path: Path, tiny_backbone: bytes, tiny_info: BackboneInfo) -> Make:
    """Return a function of a form's name: the part in that form, as a file."""

    def write(form: str) -> Path:
        graph = parse(tiny_backbone, "the test's backbone")
        preprocess = tiny_info.preprocess
        if form == "fp16":
            graph = to_half(graph)
        if form == "int8":
            pixels = np.random.default_rng(2).standard_normal((8, 3, 16, 16))
            graph = to_int8(graph, [pixels.astype(np.float32)])
        frame = Frame("rgb") if form == "frames" else None
        if frame is not None:
            p = preprocess
            sides = (p.height, p.width, "crop", p.resize_height, p.resize_width)
            preprocess = Preprocess(*sides, "linear", p.mean, p.std)
        made = embedder(graph, preprocess, input="frame" if frame else "uint8", frame=frame)
        add_notes(made, {"backbone": "tiny", "backbone_digest": tiny_info.digest})
        path = tmp_path / "bb.onnx"
        path.write_bytes(to_bytes(made))
        return path

    return write


@pytest.mark.parametrize("form", ["fp32", "fp16", "int8", "frames"])
def test_it_is_compiled_and_answers_embeddings(world: World, make: Make, form: str) -> None:
    part = make(form)
    engine = part.with_suffix(".engine")
    size = (24, 40) if form == "frames" else None
    made = compile_engine(part, engine, batch=(1, 2, 4), frame_size=size)
    assert read_sidecar(engine) == made
    assert made.precision == ("fp32" if form == "frames" else form)
    assert made.batch == (1, 2, 4)
    assert made.metadata["edge_imprint.note.backbone"] == "tiny"
    sides = size or (16, 16)
    images = np.random.default_rng(1).integers(0, 256, (3, *sides, 3), np.uint8)
    with closing(TrtRunner(engine)) as runner:
        (got,) = runner.run(["embedding"], images)
    (want,) = OrtRunner(part, "cpu", 1).run(["embedding"], images)
    assert np.allclose(got, want, rtol=0, atol=1e-6)
    assert compile_again(engine).profile == made.profile


def test_a_model_it_is_not(one_world: World, make: Make) -> None:
    part = make("fp32")
    engine = part.with_suffix(".engine")
    compile_engine(part, engine)
    for file in (part, engine):
        with pytest.raises(NoContractError) as caught:
            open_model(file)
        assert str(caught.value) == (
            f"{file} is a backbone alone, which answers embeddings to programs of your own; "
            "export it with its head to classify with it"
        )
    one_world.gpu_name = "Thor"
    with pytest.raises(EngineMismatchError, match="was built for the GPU 'Orin'"):
        TrtRunner(engine)


def test_what_it_has_not(one_world: World, make: Make) -> None:
    part = make("fp32")
    engine = part.with_suffix(".engine")
    with pytest.raises(UnsupportedOptionError) as unsupported:
        compile_engine(part, engine, refittable=True)
    assert str(unsupported.value) == (
        f"{part} has no head whose numbers could be replaced in an engine; leave refittable "
        "(--refittable) out"
    )
    with pytest.raises(ParameterError) as wrong:
        compile_engine(part, engine, frame_size=(24, 40))
    assert str(wrong.value) == (
        f"{part} takes images of one size, so that a frame size says nothing; leave it out"
    )
    with pytest.raises(ParameterError) as missing:
        compile_engine(make("frames"), engine)
    assert str(missing.value) == (
        f"{part} takes frames of any size, and an engine is built for one; give it as "
        "--frame-size WIDTHxHEIGHT"
    )

# SPDX-License-Identifier: Apache-2.0
"""What the C library tells TensorRT of shapes is what Python's tells it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from edge_imprint_export import fuse
from edge_imprint_export.fuse import fuse_head
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import BackboneInfo, Head
from edge_imprint_runtime.backends.ort_options import TENSORRT, tensorrt_setup
from edge_imprint_runtime.contract import Frame, Teachable
from edge_imprint_runtime.knowledge import head_beside
from tests.c import binding
from tests.c.binding import CallError, Library

MakeHead = Callable[..., Head]


@pytest.fixture
def told(
    c_build: Path, ort_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Library, bytes], dict[str, str]]:
    """Return a function that opens a model on a pretended TensorRT: what it was told."""
    monkeypatch.setenv("EI_REAL_ORT", str(ort_library))
    monkeypatch.setenv("EI_FAKE_TOOK", TENSORRT)
    monkeypatch.setenv("EI_FAKE_TOLD", str(tmp_path / "told"))
    false_ort = c_build / "tests" / "libfailing_ort.so"

    def open_it(ei: Library, model: bytes) -> dict[str, str]:
        (tmp_path / "m.onnx").write_bytes(model)
        opened = ei.open(
            tmp_path / "m.onnx",
            provider=binding.TENSORRT,
            library=false_ort,
            cache_folder=tmp_path / "cache",
        )
        assert opened.describe()["provider"] == TENSORRT
        lines = (tmp_path / "told").read_text().splitlines()
        answers = dict(line.split("=", 1) for line in lines)
        answers["max_batch"] = str(opened.describe()["max_batch"])
        return answers

    return open_it


def wanted(path: Path) -> dict[str, str]:
    """What Python tells it, of shapes."""
    setup = tensorrt_setup(path, "onnxruntime 1")
    options = {name: text for name, text in setup.options.items() if "profile" in name}
    return options | {"max_batch": str(setup.max_batch or 0)}


def shapes(answers: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in answers.items() if "profile" in name or "max" in name}


@pytest.mark.parametrize(
    "form",
    ["pixels", "floats", "embeddings", "nv12", "any frame", "default", "input", "votes"],
)
def test_shapes(
    ei: Library,
    told: Callable[[Library, bytes], dict[str, str]],
    tiny_backbone: bytes,
    tiny_info: BackboneInfo,
    make_head: MakeHead,
    tmp_path: Path,
    form: str,
) -> None:
    head, options = make_head(), {}
    if form == "floats":
        options = {"input": "float32"}
    elif form == "nv12":
        options = {"input": "frame", "frame": Frame("nv12", 20, 18)}
    elif form == "any frame":
        linear = replace(tiny_info.preprocess, interpolation="linear")
        head = make_head(backbone=replace(tiny_info, preprocess=linear))
        options = {"input": "frame", "frame": Frame("rgb")}
    elif form == "votes":
        rule = {"aggregation": "mnn", "neighbors": 4, "distance": "euclidean"}
        head = make_head(4, 2, calibrated=True, **rule)
    if form in ("default", "input", "votes"):
        limits = Teachable("default" if form == "default" else "input", 6, 3)
        options = {"teachable": limits}
        head.save(head_beside(tmp_path / "m.onnx"))
    made = (
        fuse_head(make_head(backbone=None))
        if form == "embeddings"
        else fuse(tiny_backbone, head, **options)  # type: ignore[arg-type]
    )
    answers = told(ei, to_bytes(made))
    assert answers["trt_engine_cache_enable"] == "1"
    assert shapes(answers) == wanted(tmp_path / "m.onnx")
    varies = form not in ("any frame", "default")
    assert ("trt_profile_min_shapes" in answers) == varies
    if form in ("input", "votes"):
        assert ",proxies:" in answers["trt_profile_max_shapes"]


@pytest.mark.parametrize(
    "note",
    [
        None,
        "",
        "threshold:1,2,3",
        "proxies",
        "proxies:8x1,8x2",
        "proxies:8x1,8x2,8x3,8x4",
        "proxies:8x2,8x1,8x3",
        "proxies:8x1,8x3,8x2",
        "proxies:8x01,8x2,8x3",
        "proxies:8x0,8x2,8x3",
        "proxies:8x1,8x2,8x1234567890",
        "proxies:8x1,8x2,8",
        "proxies:8x,8x2,8x3",
        "proxies:x1,8x2,8x3",
        "proxies:8x1, 8x2,8x3",
        ":8x1,8x2,8x3",
        "proxies:8x1,8x2,8x3;",
        "proxies:8x1,8x2,8x3 more",
        "proxies:1x1x1x1x1x1x1x1x1,1x1x1x1x1x1x1x1x1,1x1x1x1x1x1x1x1x1",
    ],
)
def test_notes_that_say_no_shapes(
    ei: Library,
    told: Callable[[Library, bytes], dict[str, str]],
    tiny_backbone: bytes,
    make_head: MakeHead,
    tmp_path: Path,
    note: str | None,
) -> None:
    head = make_head()
    made = fuse(tiny_backbone, head, teachable=Teachable("input", 6, 3))
    props = {prop.key: prop.value for prop in made.metadata_props}
    del props["edge_imprint.note.profile"]
    if note is not None:
        props["edge_imprint.note.profile"] = note
    helper.set_model_props(made, props)
    head.save(head_beside(tmp_path / "m.onnx"))
    with pytest.raises(CallError) as caught:
        told(ei, to_bytes(made))
    assert caught.value.status == "EI_MODEL_FILE"
    assert "'profile'" in caught.value.message
    assert "export it again" in caught.value.message


def test_answers_on_a_device_are_those_of_the_images_given(
    ei: Library,
    c_build: Path,
    ort_library: Path,
    tiny_backbone: bytes,
    make_head: MakeHead,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the CPU only pretends to be a GPU: each input is bound anew, parts are joined."""
    monkeypatch.setenv("EI_REAL_ORT", str(ort_library))
    monkeypatch.setenv("EI_FAKE_TOOK", TENSORRT)
    path = tmp_path / "m.onnx"
    path.write_bytes(to_bytes(fuse(tiny_backbone, make_head(), outputs=("scores", "label"))))
    false_ort = c_build / "tests" / "libfailing_ort.so"
    device = ei.open(
        path, provider=binding.TENSORRT, library=false_ort, cache_folder=tmp_path / "cache"
    )
    host, found = ei.open(path), binding.Predictions(ei)
    assert device.describe()["max_batch"] == 8
    images = np.empty((21, 16, 16, 3), np.uint8)  # parts of 7
    for turn in range(3):
        images[:] = np.random.default_rng(turn).integers(0, 256, images.shape)
        given = binding.images_of(images, padding=turn)
        device.predict(given, again=found)
        one_by_one = [host.predict(image[np.newaxis]).scores[0] for image in images]
        np.testing.assert_allclose(found.scores, one_by_one, rtol=0, atol=1e-6)
        assert len(found) == 21

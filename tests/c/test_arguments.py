# SPDX-License-Identifier: Apache-2.0
"""Arguments of any kind: NULL, structs of other releases, images of any description."""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_imprint_export import fuse
from edge_imprint_export.fuse import fuse_head
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import Frame, Teachable
from edge_imprint_runtime.knowledge import head_beside
from tests.c import binding
from tests.c.binding import CallError, Image, Library, OpenModel, Predictions, images_of
from tests.c.building import Builds

MakeHead = Callable[..., Head]
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)


@pytest.fixture
def file(tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path) -> Path:
    """A teachable model, its head beside it."""
    head, path = make_head(), tmp_path / "m.onnx"
    outputs = ("scores", "label", "embedding")
    path.write_bytes(
        to_bytes(fuse(tiny_backbone, head, teachable=Teachable(), outputs=outputs))
    )
    head.save(head_beside(path))
    return path


# Pointers that are NULL --------------------------------------------------------------------


def test_null_is_refused_everywhere(ei: Library, file: Path) -> None:
    model = ei.open(file)
    labels = model.labels
    call, found, rows = ei.c, model.predict(PIXELS), np.zeros(64, np.float32)
    some, into, room = images_of(PIXELS), c.c_void_p(), rows.ctypes.data
    about = binding.Description(size=c.sizeof(binding.Description))
    text = c.create_string_buffer(9)
    count, best = c.c_size_t(), (binding.Ranked * 2)()
    calls = [
        (call.ei_open, b"m.onnx", None, None),
        (call.ei_open_buffer, b"m", 1, None, None),
        (call.ei_open_buffer, b"m", 0, None, c.byref(into)),
        (call.ei_describe, None, c.byref(about)),
        (call.ei_describe, model.handle, None),
        (call.ei_class_name, None, 0, text, 9),
        (call.ei_class_name, model.handle, 0, None, 9),
        (call.ei_predict, None, some, 2, c.byref(into)),
        (call.ei_predict, model.handle, None, 2, c.byref(into)),
        (call.ei_predict, model.handle, some, 2, None),
        (call.ei_top, None, 0, best, 2, c.byref(count)),
        (call.ei_top, found.handle, 0, None, 2, c.byref(count)),
        (call.ei_top, found.handle, 0, best, 2, None),
        (call.ei_embed, None, some, 2, room, 64),
        (call.ei_embed, model.handle, None, 2, room, 64),
        (call.ei_embed, model.handle, some, 2, None, 64),
        (call.ei_embed, model.handle, some, 2, room, 15),
        (call.ei_embed, model.handle, some, 2**62, room, 64),
        (call.ei_prepare, None, some, room, 256),
        (call.ei_prepare, model.handle, None, room, 256),
        (call.ei_teach, None, b"a", some, 2, 0),
        (call.ei_teach, model.handle, None, some, 2, 0),
        (call.ei_teach, model.handle, b"a", None, 2, 0),
        (call.ei_teach_embeddings, model.handle, b"a", None, 2, 0),
        (call.ei_teach_embeddings, model.handle, b"a", room, 0, 0),
        (call.ei_forget, None, b"a"),
        (call.ei_forget, model.handle, None),
        (call.ei_save_head, None, b"a"),
        (call.ei_load_head, None, b"a"),
    ]
    for function, *given_ in calls:
        assert ei.c.ei_status_name(function(*given_)) == b"EI_INVALID_ARGUMENT", given_
    assert not into.value
    assert call.ei_class_count(None) == call.ei_prediction_count(None) == 0
    assert call.ei_predicted_classes(None) == 0
    assert not call.ei_prediction_at(None, 0)
    assert not call.ei_scores_at(None, 0)
    assert not call.ei_probabilities_at(None, 0)
    assert call.ei_predicted_label(None, 0) is None
    call.ei_close(None)
    call.ei_free_predictions(None)
    assert model.labels == labels


def test_a_closed_model_is_found_out_everywhere(
    ei: Library, c_builds: Builds, file: Path
) -> None:
    """In debug builds: each function that takes a model, and closing it once more."""
    debug = c_builds.get("debug", EI_DEBUG="ON", CMAKE_BUILD_TYPE="Debug")
    library = Library(debug / "libedge_imprint.so", ei.ort)
    model = library.open(file)
    closed = c.c_void_p(model.handle.value)
    model.close()
    call, some, rows = library.c, images_of(PIXELS), np.zeros(64, np.float32)
    about = binding.Description(size=c.sizeof(binding.Description))
    found, room = c.c_void_p(), rows.ctypes.data
    calls = [
        (call.ei_describe, c.byref(about)),
        (call.ei_class_name, 0, c.create_string_buffer(9), 9),
        (call.ei_predict, some, 2, c.byref(found)),
        (call.ei_embed, some, 2, room, 64),
        (call.ei_prepare, some, room, 256),
        (call.ei_teach, b"a", some, 2, 0),
        (call.ei_teach_embeddings, b"a", room, 2, 0),
        (call.ei_forget, b"class 0"),
        (call.ei_save_head, None),
        (call.ei_load_head, None),
    ]
    for function, *given_ in calls:
        with pytest.raises(CallError) as caught:
            library.check(function(closed, *given_))
        assert caught.value.status == "EI_CLOSED_MODEL", given_
    assert call.ei_class_count(closed) == 0
    call.ei_close(closed)
    assert not found.value


def test_a_failure_leaves_no_model(ei: Library) -> None:
    handle = c.c_void_p(77)
    ei.c.ei_open(b"/nowhere", None, c.byref(handle))
    assert handle.value is None


# Options of other releases -----------------------------------------------------------------


def test_options_of_an_older_release_keep_their_defaults(
    ei: Library, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_IMPRINT_ONNXRUNTIME", str(ei.ort))
    short = ei.options(size=binding.Options.library.offset, library=b"/nowhere")
    handle = c.c_void_p()
    ei.check(ei.c.ei_open(bytes(file), c.byref(short), c.byref(handle)))
    ei.c.ei_close(handle)
    ei.check(ei.c.ei_open(bytes(file), None, c.byref(handle)))
    ei.c.ei_close(handle)


def test_options_of_a_newer_release(ei: Library, file: Path) -> None:
    class Newer(c.Structure):
        _fields_ = (("known", binding.Options), ("more", c.c_int64))

    newer = Newer(ei.options(size=c.sizeof(Newer)))
    handle, call = c.c_void_p(), ei.c.ei_open
    given_ = c.cast(c.pointer(newer), c.POINTER(binding.Options))
    ei.check(call(bytes(file), given_, c.byref(handle)))
    ei.c.ei_close(handle)
    newer.more = 1
    with pytest.raises(CallError) as caught:
        ei.check(call(bytes(file), given_, c.byref(handle)))
    assert "an option that release 0.1.0 does not know" in caught.value.message


# Images of any description -----------------------------------------------------------------


@pytest.fixture(scope="module")
def models(
    ei: Library, tiny_backbone: bytes, make_head: MakeHead, tiny_info: Any
) -> dict[str, OpenModel]:
    """A model of each form, by name."""
    linear = replace(
        tiny_info, preprocess=replace(tiny_info.preprocess, interpolation="linear")
    )
    made = {
        "pixels": fuse(tiny_backbone, make_head()),
        "floats": fuse(tiny_backbone, make_head(), input="float32"),
        "embeddings": fuse_head(make_head(backbone=None)),
        "any rgb": fuse(
            tiny_backbone, make_head(backbone=linear), input="frame", frame=Frame("rgb")
        ),
    } | {
        form: fuse(tiny_backbone, make_head(), input="frame", frame=Frame(form, 20, 18))
        for form in ("bgr", "nv12", "yuyv")
    }
    return {name: ei.open_buffer(to_bytes(model)) for name, model in made.items()}


SIDES = st.one_of(st.integers(-2, 40), st.sampled_from([2**31 - 1, -(2**31), 2**30, 65536]))
STRIDES = st.one_of(
    st.integers(0, 200), st.sampled_from([2**64 - 1, 2**63, 2**62, 2**32, 2**33 + 1])
)
ROOM = np.zeros(200_000, np.uint8)


def expected(about: dict[str, Any], one: Image) -> str:
    """What must come of one image, said once more."""
    colours = (binding.RGB8, binding.BGR8)
    takes = {about["format"]}
    if about["format"] in colours or about["height"] > 1:
        is_yuv = about["format"] in (binding.NV12, binding.YUYV)
        takes |= set() if is_yuv else set(colours)
    if one.format not in takes:
        return "EI_INPUT_FORMAT"
    if min(one.width, one.height) < 1:
        return "EI_INPUT_SIZE"
    if about["width"] and (one.width, one.height) != (about["width"], about["height"]):
        return "EI_INPUT_SIZE"
    per_pixel = {binding.NV12: 1, binding.YUYV: 2, binding.FLOAT32: 4}.get(one.format, 3)
    row, rows = one.width * per_pixel, one.height
    rows = rows * 3 // 2 if one.format == binding.NV12 else rows
    rows = rows * 3 if one.format == binding.FLOAT32 and one.height > 1 else rows
    stride = one.stride_bytes or row
    if stride < row or stride * rows >= 2**63:
        return "EI_INPUT_STRIDE"
    if one.format == binding.FLOAT32 and stride != row:
        return "EI_INPUT_STRIDE"
    return "EI_OK" if stride * rows <= ROOM.size else "too large to try"


@settings(max_examples=1500)
@given(data=st.data())
def test_any_description(
    ei: Library, models: dict[str, OpenModel], data: st.DataObject
) -> None:
    model = models[data.draw(st.sampled_from(sorted(models)))]
    about = model.describe()
    fits = data.draw(st.booleans())
    width, height = (about["width"] or 23, about["height"] or 11)
    one = Image(
        ROOM.ctypes.data,
        width if fits else data.draw(SIDES),
        height if fits else data.draw(SIDES),
        data.draw(st.one_of(st.just(about["format"]), st.integers(-1, 6))),
        data.draw(STRIDES),
        None,
    )
    want = expected(about, one)
    if want == "too large to try":
        return
    found = Predictions(ei)
    status = ei.c.ei_predict(model.handle, c.byref(one), 1, c.byref(found.handle))
    assert ei.c.ei_status_name(status).decode() == want, ei.c.ei_last_error()
    assert len(found) == (want == "EI_OK")

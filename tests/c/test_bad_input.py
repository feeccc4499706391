# SPDX-License-Identifier: Apache-2.0
"""Every status is provoked by what really causes it, and says in a sentence what was wrong."""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import Frame, Teachable
from edge_imprint_runtime.knowledge import head_beside
from tests.c import binding
from tests.c.binding import CallError, Library, OpenModel, images_of
from tests.c.building import Builds
from tests.c.sites import MakeHead, Site

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)


@pytest.fixture
def site(
    ei: Library,
    c_build: Path,
    c_builds: Builds,
    tiny_backbone: bytes,
    make_head: MakeHead,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    return Site(ei, c_build, c_builds, tiny_backbone, make_head, tmp_path, monkeypatch)


def changed(**fields: object) -> Any:
    """Describe one image, then change fields of the description."""
    made = images_of(PIXELS[:1])
    for name, value in fields.items():
        setattr(made[0], name, value)
    return made


# Cases -------------------------------------------------------------------------------------


def closed_model(site: Site) -> None:
    debug = site.builds.get("debug", EI_DEBUG="ON", CMAKE_BUILD_TYPE="Debug")
    library = Library(debug / "libedge_imprint.so", site.ei.ort)
    site.file.write_bytes(to_bytes(site.fused()))
    model = library.open(site.file)
    handle = c.c_void_p(model.handle.value)
    model.close()
    library.c.ei_close(handle)  # a second time: let pass
    found = OpenModel(library, handle)
    try:
        with pytest.raises(CallError):
            found.describe()
        found.predict(PIXELS)
    finally:
        found.handle = c.c_void_p()


def too_old(site: Site) -> None:
    site.open(library=site.false_ort(EI_FAKE_VERSION="1.15.1"))


def on_cuda(site: Site, words: str) -> None:
    """Let a run fail as CUDA's do: what there is of a GPU here is pretended."""
    library = site.false_ort(EI_FAKE_TOOK="CUDAExecutionProvider", EI_FAIL_WORDS=words)
    model = site.open(library=library, provider=binding.CUDA)
    assert model.describe()["provider"] == "CUDAExecutionProvider"
    found = model.predict(PIXELS)
    c.CDLL(str(library)).failing_ort_at(c.c_long(2))
    try:
        model.predict(PIXELS, again=found)
    finally:
        c.CDLL(str(library)).failing_ort_at(c.c_long(0))


def run_that_fails(site: Site) -> None:
    """Scores that can't be reshaped to 7 rows."""
    model = site.fused()
    for node in model.graph.node:
        for position, name in enumerate(node.output):
            if name == "scores":
                node.output[position] = "bare scores"
    sides = numpy_helper.from_array(np.array([7, 3], np.int64), "sides")
    model.graph.initializer.append(sides)
    model.graph.node.append(helper.make_node("Reshape", ["bare scores", "sides"], ["scores"]))
    site.open(model).predict(PIXELS)


def class_beyond_all(site: Site) -> None:
    """A label that no class has."""
    model = site.fused()
    for node in model.graph.node:
        for position, name in enumerate(node.output):
            if name == "label":
                node.output[position] = "bare label"
    model.graph.initializer.append(numpy_helper.from_array(np.int32([3]), "three"))
    model.graph.node.append(helper.make_node("Add", ["bare label", "three"], ["label"]))
    site.open(model).predict(PIXELS)


def outside_numbers(site: Site) -> None:
    model = site.fused()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    site.file.write_bytes(model.SerializeToString())
    site.ei.open(site.file)


def not_ours(site: Site) -> None:
    site.file.write_bytes(site.backbone)
    site.ei.open(site.file)


def no_onnx(site: Site) -> None:
    site.file.write_bytes(b"no model")
    site.ei.open(site.file)


def other_input(site: Site) -> None:
    site.with_metadata("input", "float32 NCHW RGB")


def without_scores(site: Site) -> None:
    model = site.fused()
    kept = [value for value in model.graph.output if value.name != "scores"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    site.open(model)


def labels_of_64_bits(site: Site) -> None:
    model = site.fused()
    for node in model.graph.node:
        for position, name in enumerate(node.output):
            if name == "label":
                node.output[position] = "bare label"
    cast = helper.make_node("Cast", ["bare label"], ["label"], to=TensorProto.INT64)
    model.graph.node.append(cast)
    value = next(value for value in model.graph.output if value.name == "label")
    value.type.tensor_type.elem_type = TensorProto.INT64
    site.open(model)


def two_inputs(site: Site) -> None:
    model = site.fused()
    model.graph.input.append(
        helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N", 3])
    )
    site.open(model)


def a_map_that_the_head_lacks(site: Site) -> None:
    limits = Teachable("default", 4, 3)
    site.make_head().save(head_beside(site.file))
    site.open(site.fused(site.make_head(center=True), teachable=limits))


def a_map_of_another_size(site: Site) -> None:
    def mapped(width: int) -> Head:
        rng = np.random.default_rng(width)
        proxies, transform = rng.standard_normal((3, width)), rng.standard_normal((8, width))
        plain = site.make_head()
        return Head(
            proxies,
            [0, 1, 2],
            plain.labels,
            plain.rule,
            transform=transform,
            backbone=plain.backbone,
            recipe="-",
        )

    mapped(5).save(head_beside(site.file))
    site.open(site.fused(mapped(6), teachable=Teachable("default", 4, 3)))


def infinite_scores(site: Site) -> None:
    head = site.make_head(backbone=None, norm="none")
    rows = np.full((1, 8), 3e38, np.float32) * np.sign(head.proxies[0])
    site.of_embeddings(head).predict(rows, binding.FLOAT32)


def nan_embedding(site: Site) -> None:
    rows = np.zeros((2, 8), np.float32)
    rows[1, 7] = np.nan
    site.of_embeddings().predict(rows, binding.FLOAT32)


def nan_pixels(site: Site) -> None:
    floats = np.zeros((1, 3, 16, 16), np.float32)
    floats[0, 2, 15, 15] = -np.inf
    site.open(site.fused(input="float32")).predict(floats, binding.FLOAT32)


def float_stride(site: Site) -> None:
    given = images_of(np.zeros((1, 3, 16, 16), np.float32), binding.FLOAT32)
    given[0].stride_bytes = 68
    site.open(site.fused(input="float32")).predict(given)


def frames_of_two_sizes(site: Site) -> None:
    p = site.make_head().backbone.preprocess  # type: ignore[union-attr]
    linear = replace(p, interpolation="linear")
    info = replace(site.make_head().backbone, preprocess=linear)  # type: ignore[type-var]
    model = site.fused(site.make_head(backbone=info), input="frame", frame=Frame("rgb"))
    site.open(model).predict([PIXELS[0], np.zeros((9, 9, 3), np.uint8)])


def no_output(site: Site) -> None:
    site.open(site.fused(outputs=("scores", "label"))).embed(PIXELS)


def nan_head(site: Site) -> None:
    data = bytearray(to_head(site.make_head()))
    data[-4:] = np.float32(np.nan).tobytes()
    site.beside(bytes(data))


def a_head(site: Site) -> None:
    """It is told as what it is."""
    path = site.make_head().save(site.folder / "shop.imprint")
    try:
        site.ei.open(path)
    except CallError as error:
        assert "is a head, not a model" in error.message
        raise


def to_head(head: Head) -> bytes:
    return head.to_bytes()


def loaded_of_another_size(site: Site) -> None:
    """The model goes on with the classes that it had."""
    model, other = site.teachable(), site.folder / "other.head"
    before = model.predict(PIXELS).scores.copy()
    site.make_head(dim=6).save(other)
    try:
        model.load_head(other)
    finally:
        np.testing.assert_array_equal(model.predict(PIXELS).scores, before)


def zero_embedding(site: Site) -> None:
    site.of_embeddings(teachable=Teachable()).teach_embeddings("new", np.zeros((1, 8)))


def no_room_for_classes(site: Site) -> None:
    model = site.teachable()
    model.teach("one more", PIXELS)
    try:
        model.teach("one too many", PIXELS)
    finally:
        assert model.labels == (*site.make_head().labels, "one more")


def last_class(site: Site) -> None:
    model = site.teachable()
    for label in model.labels:
        model.forget(label)


def no_memory(site: Site) -> None:
    """Photos that no address space has room for."""
    model = site.teachable()
    given = images_of(PIXELS)
    call = site.ei.c.ei_teach
    site.ei.check(call(model.handle, b"new", given, 2**44, 0))


def empty_head_path(site: Site) -> None:
    model = site.teachable()
    site.ei.check(site.ei.c.ei_save_head(model.handle, b""))


def not_taught(site: Site, call: str, *given: object) -> None:
    model = site.open()
    getattr(model, call)(*given)


CASES: dict[str, dict[str, Callable[[Site], object]]] = {
    "EI_INVALID_ARGUMENT": {
        "no path": lambda site: site.ei.open(None),
        "empty path": lambda site: site.ei.open(""),
        "no bytes": lambda site: site.ei.open_buffer(None),
        "provider": lambda site: site.open(provider=3),
        "threads": lambda site: site.open(threads=1025),
        "fewer threads": lambda site: site.open(threads=-1),
        "device": lambda site: site.open(device=-1),
        "no size": lambda site: site.open(size=0),
        "a size of anything": lambda site: site.open(size=2**40),
        "no images": lambda site: site.open().predict(PIXELS[:0]),
        "no data": lambda site: site.open().predict(changed(data=None)),
        "no photos": lambda site: site.teachable().teach("a", PIXELS[:0]),
        "proxies": lambda site: site.teachable().teach("a", PIXELS, proxies=-1),
        "rank none": lambda site: site.open().predict(PIXELS).top(0, 0),
        "rank no image": lambda site: site.open().predict(PIXELS).top(2, 1),
        "no room for a name": lambda site: site.open().class_name(0, 0),
        "empty head path": empty_head_path,
    },
    "EI_CLOSED_MODEL": {"used": closed_model},
    "EI_OUT_OF_MEMORY": {"photos": no_memory},
    "EI_LIBRARY_MISSING": {
        "not there": lambda site: site.open(library="/nowhere/libonnxruntime.so"),
        "another": lambda site: site.open(library="libm.so.6"),
        "says nothing": lambda site: site.open(library=site.false_ort(EI_FAKE_NO_BASE="1")),
    },
    "EI_LIBRARY_TOO_OLD": {"1.15": too_old},
    "EI_PROVIDER": {
        "no GPU": lambda site: site.open(provider=binding.CUDA),
        "no TensorRT": lambda site: site.open(provider=binding.TENSORRT),
    },
    "EI_RUN_FAILED": {"reshape": run_that_fails, "class": class_beyond_all},
    "EI_DEVICE": {"launch": lambda site: on_cuda(site, "CUDA failure 719: unspecified")},
    "EI_DEVICE_MEMORY": {"full": lambda site: on_cuda(site, "CUDA failure 2: out of memory")},
    "EI_FILE_MISSING": {
        "not there": lambda site: site.ei.open(site.folder / "missing.onnx"),
        "a folder": lambda site: site.ei.open(site.folder),
    },
    "EI_MODEL_FILE": {
        "text": no_onnx,
        "a head": a_head,
        "other input": other_input,
        "no scores": without_scores,
        "labels of 64 bits": labels_of_64_bits,
        "two inputs": two_inputs,
    },
    "EI_UNSAFE_MODEL": {"numbers elsewhere": outside_numbers},
    "EI_NO_CONTRACT": {"a backbone": not_ours},
    "EI_CONTRACT_VERSION": {"two": lambda site: site.with_metadata("version", "2")},
    "EI_CONTRACT_KEY": {
        "missing": lambda site: site.with_metadata("slots", None),
        "unknown": lambda site: site.with_metadata("novelty", "1"),
    },
    "EI_CONTRACT_VALUE": {
        "labels": lambda site: site.with_metadata("labels", "a, b, c"),
        "a name": lambda site: site.teachable().teach("x" * 1025, PIXELS),
        "an empty name": lambda site: site.teachable().teach("", PIXELS),
        "a name that is no text": lambda site: site.teachable().teach("\udcff", PIXELS),
    },
    "EI_LABEL_COUNT": {"two": lambda site: site.with_metadata("labels", '["a","b"]')},
    "EI_INPUT_SIZE": {
        "wider": lambda site: site.open().predict(changed(width=17)),
        "no pixels": lambda site: site.open().predict(changed(height=0)),
        "fewer than none": lambda site: site.open().predict(changed(width=-16)),
        "a shorter embedding": lambda site: site.of_embeddings().predict(
            np.zeros((1, 7), np.float32), binding.FLOAT32
        ),
        "frames of two sizes": frames_of_two_sizes,
    },
    "EI_INPUT_STRIDE": {
        "short": lambda site: site.open().predict(changed(stride_bytes=47)),
        "endless": lambda site: site.open().predict(changed(stride_bytes=2**63)),
        "of floats": float_stride,
    },
    "EI_INPUT_FORMAT": {
        "nv12": lambda site: site.open().predict(changed(format=binding.NV12)),
        "unknown": lambda site: site.open().predict(changed(format=5)),
        "negative": lambda site: site.open().predict(changed(format=-1)),
        "pixels for embeddings": lambda site: site.of_embeddings().predict(PIXELS),
    },
    "EI_INPUT_VALUE": {"embedding": nan_embedding, "pixels": nan_pixels},
    "EI_OUTPUT_MISSING": {"embedding": no_output},
    "EI_NON_FINITE": {"scores": infinite_scores},
    "EI_NOT_TEACHABLE": {
        "teach": lambda site: not_taught(site, "teach", "a", PIXELS),
        "forget": lambda site: not_taught(site, "forget", "class 0"),
        "save": lambda site: not_taught(site, "save_head"),
        "load": lambda site: not_taught(site, "load_head"),
        "open": lambda site: site.open(head=site.folder / "some.head"),
    },
    "EI_HEAD_FILE": {
        "text": lambda site: site.beside(b"no head at all"),
        "not there": lambda site: site.teachable(head=None).load_head(site.folder / "none"),
        "named, not there": lambda site: site.open(
            site.fused(teachable=Teachable()), head=site.folder / "none"
        ),
        "none loaded": lambda site: site.open(site.fused(teachable=Teachable())).forget("a"),
        "none beside": lambda site: site.open(site.fused(teachable=Teachable("input"))),
        "none in memory": lambda site: site.ei.open_buffer(
            to_bytes(site.fused(teachable=Teachable("input")))
        ),
    },
    "EI_HEAD_VALUE": {"not a number": nan_head},
    "EI_HEAD_MISMATCH": {
        "embedding size": lambda site: site.beside(to_head(site.make_head(dim=6))),
        "loaded, embedding size": loaded_of_another_size,
        "rule": lambda site: site.beside(to_head(site.make_head(norm="none"))),
        "classes": lambda site: site.beside(to_head(site.make_head(9))),
        "proxies": lambda site: site.beside(to_head(site.make_head(3, 6))),
        "center": lambda site: site.beside(to_head(site.make_head(center=True))),
        "lacks a map": a_map_that_the_head_lacks,
        "another map": a_map_of_another_size,
        "calibrated": lambda site: site.beside(to_head(site.make_head(calibrated=True))),
    },
    "EI_ZERO_EMBEDDING": {"taught": zero_embedding},
    "EI_NO_SUCH_CLASS": {
        "forget": lambda site: site.teachable().forget("nobody"),
        "last": last_class,
        "name": lambda site: site.open().class_name(3),
    },
    "EI_NO_ROOM": {
        "classes": no_room_for_classes,
        "proxies": lambda site: site.teachable().teach("a", PIXELS, proxies=4),
    },
    "EI_WRITE_FAILED": {
        "no folder": lambda site: site.teachable().save_head(site.folder / "no" / "a.head"),
        "a folder": lambda site: site.teachable().save_head(site.folder),
    },
}
TABLE = [(status, name) for status, cases in CASES.items() for name in cases]


@pytest.mark.parametrize(("status", "name"), TABLE, ids=lambda part: part.replace(" ", "_"))
def test_a_status_and_what_causes_it(site: Site, status: str, name: str) -> None:
    with pytest.raises(CallError) as caught:
        CASES[status][name](site)
    assert caught.value.status == status, caught.value.message
    message = caught.value.message
    assert len(message) > 15
    assert "\n" not in message
    assert "ONNX Runtime" in message or not message.endswith(".")


def test_every_status_is_provoked(ei: Library) -> None:
    assert {"EI_OK", *CASES} == set(ei.status_names())


def test_names_of_numbers_that_are_no_status(ei: Library) -> None:
    for number in (-1, 4, 51, 10**6):
        assert ei.c.ei_status_name(number) == b"unknown status"

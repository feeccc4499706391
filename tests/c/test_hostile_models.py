# SPDX-License-Identifier: Apache-2.0
"""Models that claim too much or change while they are opened, and numbers beyond memory."""

from __future__ import annotations

import ctypes as c
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, load_model_from_string

from edge_imprint_export.fuse import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import Teachable
from edge_imprint_runtime.knowledge import head_beside
from tests.c.binding import CallError, Description, Library, images_of

MakeHead = Callable[..., Head]
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
OUTPUTS = ("scores", "label", "embedding")
BEYOND = (2**64 - 1, 2**63 - 1, 2**60)

# A shared library that is ONNX Runtime, and renames a file when it is opened.
RENAMING_ORT = """
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

__attribute__((constructor)) static void replace(void)
{
    rename(getenv("EI_NEXT"), getenv("EI_FILE"));
}

const void *OrtGetApiBase(void)
{
    void *real = dlopen(getenv("EI_REAL_ORT"), RTLD_NOW);
    const void *(*get)(void) = (const void *(*)(void))dlsym(real, "OrtGetApiBase");
    return get();
}
"""


@pytest.fixture
def fused(tiny_backbone: bytes, make_head: MakeHead) -> bytes:
    return to_bytes(fuse(tiny_backbone, make_head(), outputs=OUTPUTS))


@pytest.fixture
def teachable(tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path) -> Path:
    """A teachable model, its head beside it."""
    head, path = make_head(), tmp_path / "t.onnx"
    model = fuse(tiny_backbone, head, teachable=Teachable(), outputs=OUTPUTS)
    path.write_bytes(to_bytes(model))
    head.save(head_beside(path))
    return path


# What is checked is what runs --------------------------------------------------------------


def test_no_letters_make_it_another_format(ei: Library, fused: bytes) -> None:
    """ONNX Runtime takes bytes with ORTM in fifth place for its own format, unchecked."""
    producer = b"\x12\x06xxORTM"
    assert producer[4:8] == b"ORTM"
    plain, lettered = ei.open_buffer(fused), ei.open_buffer(producer + fused)
    assert lettered.predict(PIXELS).scores.tolist() == plain.predict(PIXELS).scores.tolist()


def test_no_name_makes_it_another_format(ei: Library, fused: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.ort"
    path.write_bytes(fused)
    assert len(ei.open(path).predict(PIXELS)) == 2


def test_a_file_that_is_replaced_while_it_is_opened(
    ei: Library,
    fused: bytes,
    tiny_backbone: bytes,
    make_head: MakeHead,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the check and the reading: no labels of one with scores of another."""
    path, after, renaming = tmp_path / "m.onnx", tmp_path / "next", tmp_path / "renaming.so"
    path.write_bytes(fused)
    after.write_bytes(to_bytes(fuse(tiny_backbone, make_head(seed=1), outputs=OUTPUTS)))
    (tmp_path / "renaming.c").write_text(RENAMING_ORT)
    compiler = os.environ.get("CC", "cc")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", renaming, tmp_path / "renaming.c", "-ldl"],
        check=True,
    )
    for name, value in (("FILE", path), ("NEXT", after), ("REAL_ORT", ei.ort)):
        monkeypatch.setenv(f"EI_{name}", str(value))
    with pytest.raises(CallError, match="another program replaced it meanwhile") as caught:
        ei.open(path, library=renaming)
    assert caught.value.status == "EI_FILE_MISSING"
    assert not after.exists()
    assert len(ei.open(path, library=renaming).predict(PIXELS)) == 2


# Claims ------------------------------------------------------------------------------------


def test_slots_that_no_memory_holds(ei: Library, teachable: Path, make_head: MakeHead) -> None:
    """70 classes of 2^20 slots would be 2.3 GB, of a model of some kilobytes."""
    make_head(70).save(head_beside(teachable), force=True)
    model = load_model_from_string(teachable.read_bytes())
    props = {prop.key: prop.value for prop in model.metadata_props}
    helper.set_model_props(model, props | {"edge_imprint.slots": str(2**20)})
    teachable.write_bytes(model.SerializeToString())
    with pytest.raises(CallError, match="70 classes of 1048576 slots each are more") as caught:
        ei.open(teachable)
    assert caught.value.status == "EI_HEAD_MISMATCH"


@pytest.mark.parametrize("count", BEYOND)
def test_more_images_than_memory_holds(ei: Library, teachable: Path, count: int) -> None:
    """Such as -1 made a size_t: refused before any of them is looked at."""
    model, some, rows = ei.open(teachable), images_of(PIXELS), np.zeros(16, np.float32)
    labels, found, call = model.labels, c.c_void_p(), ei.c
    room = rows.ctypes.data
    for function, *given in (
        (call.ei_predict, some, count, c.byref(found)),
        (call.ei_embed, some, count, room, 2**64 - 1),
        (call.ei_teach, b"new", some, count, 0),
        (call.ei_teach_embeddings, b"new", room, count, 0),
    ):
        with pytest.raises(CallError, match="more than memory can hold") as caught:
            ei.check(function(model.handle, *given))
        assert caught.value.status == "EI_INVALID_ARGUMENT"
    assert model.labels == labels
    assert not found.value


# Other releases and other tongues ----------------------------------------------------------


def test_a_description_of_an_older_release(ei: Library, teachable: Path) -> None:
    """A program with a smaller struct: what it does not know is not written."""
    model = ei.open(teachable)
    about = Description(size=Description.recipe.offset, recipe=b"mine", library=b"too")
    ei.check(ei.c.ei_describe(model.handle, c.byref(about)))
    assert (about.size, about.width, about.recipe) == (48, 16, b"mine")
    assert about.library == b"too"


@pytest.mark.parametrize("letter", ["é", "日", "🌵"])
def test_an_error_is_not_cut_within_a_character(ei: Library, letter: str) -> None:
    for before in range(4):
        with pytest.raises(CallError) as caught:
            ei.open("x" * before + letter * 1000)
        assert caught.value.message.endswith(letter)
        assert 1018 < len(caught.value.message.encode()) < 1024

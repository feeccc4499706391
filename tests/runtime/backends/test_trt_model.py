# SPDX-License-Identifier: Apache-2.0
"""From an ONNX file through `compile_engine` to a `Model` that answers, learns and closes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, open_model
from edge_imprint_runtime.backends.trt import TrtRunner
from edge_imprint_runtime.contract import Teachable
from edge_imprint_runtime.engine.build import compile_engine
from edge_imprint_runtime.engine.sidecar import sidecar_path
from edge_imprint_runtime.engine.waiting import FIRST_RUN
from edge_imprint_runtime.errors import (
    ClosedModelError,
    DeviceMemoryError,
    HeadFileError,
    ParameterError,
)
from edge_imprint_runtime.knowledge import head_beside
from edge_imprint_runtime.teaching import teach
from tests.standins import World
from tests.standins.cuda_runtime import device_of

MakeForm = Callable[[str], Any]
MakeHead = Callable[..., Head]
FORMS = ("plain", "calibrated", "frames", "input")


def compiled(form: Any, **options: Any) -> Path:
    """Compile a model as a user does."""
    out: Path = form.path.with_suffix(".engine")
    compile_engine(form.path, out, note=lambda _: None, force=True, **form.options | options)
    return out


@pytest.mark.parametrize("name", FORMS)
def test_what_was_compiled_runs(world: World, make_form: MakeForm, name: str) -> None:
    form = make_form(name)
    with closing(TrtRunner(compiled(form, batch=(1, 2, 4)))) as runner:
        held = runner.hold(form.tensors)
        for count in (1, 4, 3):
            images = form.images(count)
            found = runner.run(list(runner.outputs), images, held)
            for a, b in zip(found, form.expected(images), strict=True):
                assert np.allclose(a, b, rtol=0, atol=1e-6)
    assert device_of(world).live == {}


def test_a_batch_of_any_size(world: World, make_form: MakeForm) -> None:
    form = make_form("calibrated")
    images = form.images(21)
    with open_model(form.path, "cpu") as plain:
        want = plain.predict(images)
    with open_model(compiled(form, batch=(2, 4, 8)), cuda_graph=True) as model:
        assert (model.provider, model.placement) == ("TensorRT", None)
        for count in (1, 2, 8, 9, 21):  # padded, whole, split
            found = model.predict(images[:count])
            assert np.allclose(found.scores, want.scores[:count], rtol=0, atol=1e-6)
            assert np.array_equal(found.label, want.label[:count])
            assert np.array_equal(found.known, want.known[:count])  # type: ignore[index]
    with pytest.raises(ClosedModelError):
        model.predict(images)
    assert device_of(world).live == {}


def test_an_engine_is_taught_while_threads_use_it(
    newest: World, tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path
) -> None:
    head, path = make_head(3, 2), tmp_path / "m.onnx"
    path.write_bytes(to_bytes(fuse(tiny_backbone, head, teachable=Teachable("input", 6, 3))))
    engine = tmp_path / "m.engine"
    compile_engine(path, engine, note=lambda _: None)
    with pytest.raises(HeadFileError):
        open_model(engine)
    head.save(head_beside(engine))
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    model = open_model(engine, cuda_graph=True)
    embeddings = model.embed(images)
    heads = [head]
    for i in range(3):
        heads.append(teach(heads[-1], f"new {i}", embeddings[2 * i : 2 * i + 2], proxies=3))
    wants = {h.labels: h.scores(embeddings) for h in heads}
    done, wrong = threading.Event(), []

    def predict() -> None:
        while not done.is_set():
            found = model.predict(images)
            if not np.allclose(found.scores, wants[found.labels], rtol=0, atol=1e-5):
                wrong.append(found)

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(3):
        model.teach_embeddings(f"new {i}", embeddings[2 * i : 2 * i + 2])
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert model.labels == heads[-1].labels
    final = model.predict(images)
    assert np.allclose(final.scores, wants[heads[-1].labels], rtol=0, atol=1e-5)
    with pytest.raises(ParameterError, match="the model holds 6 classes"):
        model.teach_embeddings("one more", embeddings[:1])
    model.save_head()
    model.close()
    with open_model(engine) as again:
        assert np.allclose(again.predict(images).scores, final.scores, rtol=0, atol=1e-6)
    assert device_of(newest).live == {}


def test_an_engine_of_another_machine_is_built_again(
    newest: World, make_form: MakeForm
) -> None:
    form = make_form("plain")
    engine = compiled(form)
    newest.gpu_name, newest.compute_capability = "Thor", (11, 0)
    with open_model(engine, rebuild=True) as model:
        assert model.predict(form.images(2)).scores.shape == (2, 3)
    with open_model(engine) as model:
        assert model.runner.provider == "TensorRT"
    assert device_of(newest).live == {}


def test_a_good_engine_for_which_there_is_no_memory_stays(
    world: World, make_form: MakeForm
) -> None:
    form = make_form("plain")
    engine = compiled(form)
    before, sidecar = engine.read_bytes(), sidecar_path(engine).read_bytes()
    world.memory_bytes = 1_000
    for rebuild in (False, True):
        with pytest.raises(DeviceMemoryError) as caught:
            open_model(engine, rebuild=rebuild)
        assert str(caught.value) == (
            f"TensorRT {world.version} can't load {engine}: Requested amount of GPU memory "
            f"({form.path.stat().st_size} bytes) could not be allocated. There may not be "
            "enough free memory for allocation to succeed.; free memory of the GPU, or "
            "compile with a smaller --batch"
        )
    assert engine.read_bytes() == before
    assert sidecar_path(engine).read_bytes() == sidecar
    assert len(world.called("build_serialized_network")) == 1
    assert device_of(world).live == {}


def test_what_differs_and_may_is_told(
    newest: World, make_form: MakeForm, caplog: pytest.LogCaptureFixture
) -> None:
    engine = compiled(make_form("plain"))
    with open_model(engine):
        assert caplog.messages == []
    newest.driver = 13_000
    with open_model(engine) as model:
        assert caplog.messages == [
            (
                f"{engine} was built with a driver for CUDA 12.6 and CUDA 12.6, here are 13.0 "
                "and 12.6"
            )
        ]
        assert list(model.runner.notes) == caplog.messages  # type: ignore[attr-defined]


def test_a_rebuild_tells_how_far_it_is(
    newest: World, make_form: MakeForm, caplog: pytest.LogCaptureFixture
) -> None:
    engine = compiled(make_form("plain"))
    told: list[tuple[str, int, int]] = []

    def progress(step: str, done: int, total: int) -> None:
        told.append((step, done, total))

    with open_model(engine, rebuild=True, progress=progress):
        assert told == []  # it fits
    newest.gpu_name = "Thor"
    with open_model(engine, rebuild=True, progress=progress):
        assert told[-1] == ("compiling", 100, 100)
    assert caplog.messages == [FIRST_RUN]

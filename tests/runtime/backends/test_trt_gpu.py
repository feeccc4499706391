# SPDX-License-Identifier: Apache-2.0
"""TensorRT itself on a GPU: what the stand-ins can't show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_imprint_runtime.backends.cuda import Cuda
from edge_imprint_runtime.backends.trt import TrtRunner
from edge_imprint_runtime.engine.build import compile_engine

pytestmark = pytest.mark.gpu

MakeForm = Callable[[str], Any]
FORMS = ("plain", "calibrated", "frames", "input")


@pytest.fixture
def compiled(make_form: MakeForm) -> Iterator[Callable[..., tuple[Any, Path]]]:
    """Return a function of a form's name: the form, and its engine, for this GPU."""
    pytest.importorskip("tensorrt", reason="needs the package tensorrt")

    def make(name: str, **options: Any) -> tuple[Any, Path]:
        form = make_form(name)
        engine = form.path.with_suffix(".engine")
        options = {"batch": (1, 2, 8), "note": lambda _: None, "own_kernels": True} | options
        compile_engine(form.path, engine, force=True, **form.options | options)
        return form, engine

    yield make


def agree(found: list[Any], want: list[Any]) -> None:
    """Compare outputs; whole numbers may differ where the scores are as good as equal."""
    for a, b in zip(found, want, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if np.issubdtype(a.dtype, np.floating):
            assert np.allclose(a, b, rtol=1e-3, atol=1e-3)
        else:
            assert np.mean(a == b) >= 0.9


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_it_answers_as_onnx_runtime_does(
    compiled: Callable[..., tuple[Any, Path]], name: str, cuda_graph: bool
) -> None:
    form, engine = compiled(name)
    runner = TrtRunner(engine, cuda_graph=cuda_graph)
    held = runner.hold(form.tensors)
    for seed, count in enumerate((1, 8, 3, 1, 8, 3, 8, 1)):  # records of other batches between
        images = form.images(count, seed)
        agree(runner.run(list(runner.outputs), images, held), form.expected(images))
    runner.close()


def test_records_answer_as_plain_runs_do_bit_by_bit(
    compiled: Callable[..., tuple[Any, Path]],
) -> None:
    form, engine = compiled("input")
    plain, recorded = TrtRunner(engine), TrtRunner(engine, cuda_graph=True)
    for factor in (1.0, -1.0, 1.0):
        tensors = form.tensors | {"proxies": factor * form.tensors["proxies"]}
        held = plain.hold(tensors), recorded.hold(tensors)
        for seed in range(20):
            images = form.images(1 + seed % 8, seed)
            one = plain.run(["scores"], images, held[0])[0]
            assert np.array_equal(one, recorded.run(["scores"], images, held[1])[0])
    plain.close()
    recorded.close()


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_eight_threads_answer_as_one(
    compiled: Callable[..., tuple[Any, Path]], cuda_graph: bool
) -> None:
    form, engine = compiled("input", contexts=4)
    runner = TrtRunner(engine, cuda_graph=cuda_graph)
    held = runner.hold(form.tensors)
    given = [form.images(1 + seed % 8, seed) for seed in range(400)]
    serial = [runner.run(["scores"], images, held)[0] for images in given]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda images: runner.run(["scores"], images, held)[0], given))
    assert all(np.array_equal(a, b) for a, b in zip(serial, found, strict=True))
    runner.close()


def test_stages_and_layers(compiled: Callable[..., tuple[Any, Path]]) -> None:
    form, engine = compiled("plain")
    runner = TrtRunner(engine)
    images = form.images(8)
    for _ in range(3):
        _, times = runner.run_stages(["scores"], images)
    assert all(
        0 < times[f"{stage}_gpu"] < 10**9 for stage in ("copy_in", "compute", "copy_out")
    )
    layers = runner.layers(images)
    assert layers[0].mean_ns > 0
    assert any(layer.kind for layer in layers)
    agree(runner.run(list(runner.outputs), images), form.expected(images))
    runner.close()


def test_closing_gives_all_back(compiled: Callable[..., tuple[Any, Path]]) -> None:
    form, engine = compiled("input")
    cuda, free = Cuda(), []
    for _ in range(6):
        runner = TrtRunner(engine, cuda_graph=True)
        held = runner.hold(form.tensors)
        for count in (1, 8):
            runner.run(["scores"], form.images(count), held)
        runner.close()
        free.append(cuda.memory()[0])
    # What CUDA itself keeps, it keeps once; another program may take a little meanwhile.
    assert free[-1] > free[1] - 4 * 2**20

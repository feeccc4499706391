# SPDX-License-Identifier: Apache-2.0
"""Lanes embed what decoders give, tell of what fails, and end when nobody wants more."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from edge_imprint.embedding.decoders import Tasks, ThreadDecoders
from edge_imprint.embedding.engine import Broken, Embedded
from edge_imprint.embedding.lanes import Lanes
from edge_imprint.embedding.torch_embedder import TorchEmbedder
from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.images import normalize, photo_pixels

P = Preprocess(8, 8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng, made = tmp_path_factory.mktemp("photos"), np.random.default_rng(0), []
    for i in range(30):
        made.append(folder / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(made[-1])
    made[4].write_bytes(b"no photo")
    return made


def decoders(photos: list[Path], preprocess: Preprocess = P) -> ThreadDecoders:
    tasks = Tasks(photos, most=4, least=2, takers=2)
    return ThreadDecoders(tasks, preprocess, decode="exact", most=4)


def sums(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return pixels.sum(axis=(1, 2), dtype=np.float32)


def test_each_photo_once(photos: list[Path]) -> None:
    found = list(Lanes(decoders(photos), sums, 3).results())
    rows = {}
    for one in found:
        if isinstance(one, Embedded):
            rows |= dict(zip(one.indices, one.rows, strict=True))
    assert [one.index for one in found if isinstance(one, Broken)] == [4]
    assert sorted(rows) == [i for i in range(30) if i != 4]
    for i, row in rows.items():
        np.testing.assert_array_equal(row, sums(photo_pixels(photos[i], P)[None])[0])


def test_an_embedder_that_makes_its_own_batches(photos: list[Path]) -> None:
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 5, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    module = torch.nn.Sequential(*layers).eval()
    embedder = TorchEmbedder(module, P, "cpu", batch=7)
    found = list(Lanes(decoders(photos), embedder, 1).results())
    parts = [one for one in found if isinstance(one, Embedded)]
    assert [len(one.indices) for one in parts] == [7, 7, 7, 7, 1]
    assert [one.index for one in found if isinstance(one, Broken)] == [4]
    for one in parts:
        pixels = np.stack([photo_pixels(photos[i], P) for i in one.indices])
        with torch.inference_mode():
            want = module(torch.from_numpy(normalize(pixels, P))).numpy()
        np.testing.assert_allclose(one.rows, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("error", [RuntimeError("no device"), MemoryError()])
def test_an_embedder_that_fails(photos: list[Path], error: BaseException) -> None:
    def fail(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        raise error

    lanes = Lanes(decoders(photos), fail, 2)
    with pytest.raises(type(error)) as caught:
        list(lanes.results())
    assert caught.value is error
    assert not any(thread.is_alive() for thread in lanes._threads)


@pytest.mark.parametrize("how", ["generator closed", "stopped", "stopped from elsewhere"])
def test_ended_in_the_middle(photos: list[Path], how: str) -> None:
    lanes = Lanes(decoders(photos * 10), sums, 2)
    results = lanes.results()
    assert isinstance(next(results), (Embedded, Broken))
    if how == "generator closed":
        results.close()  # type: ignore[attr-defined]
    elif how == "stopped":
        lanes.stop()
    else:
        other = threading.Thread(target=lanes.stop)
        other.start()
        other.join()
    assert list(results) == []
    assert not any(thread.is_alive() for thread in lanes._threads)
    lanes.stop()


def test_results_that_nobody_takes_hold_the_lanes(photos: list[Path]) -> None:
    tasks = Tasks(photos * 100, most=4, least=2, takers=2)
    lanes = Lanes(ThreadDecoders(tasks, P, decode="exact", most=4), sums, 2)
    results = lanes.results()
    next(results)
    for thread in lanes._threads:
        thread.join(0.2)
    # Eight results wait, each lane holds one more, and one was taken; broken ones count.
    assert tasks.take()[0].start <= 4 * (8 + 2 + 1 + 2)
    results.close()  # type: ignore[attr-defined]

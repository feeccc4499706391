# SPDX-License-Identifier: Apache-2.0
"""The local engine as it runs on CUDA, on the stand-in of torch.cuda: photos in, rows out."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_imprint.backbones import Backbone, load_backbone
from edge_imprint.embedding import local
from edge_imprint.embedding.engine import Broken, Embedded
from edge_imprint.embedding.gpus import Choice
from edge_imprint.embedding.local import LocalEngine
from edge_imprint.embedding.torch_embedder import TorchEmbedder
from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.errors import DeviceMemoryError
from edge_imprint_runtime.images import photo_pixels
from tests.host.conftest import WritePhotos
from tests.standins.torch_cuda import FakeCuda, cuda_on_the_cpu

SIDE = 32


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(
        "timm/test_resnet", random_weights=True, preprocess=Preprocess(SIDE, SIDE)
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, write_photos: WritePhotos) -> list[Path]:
    """150 photos, the 8th and the 100th broken."""
    root = write_photos(tmp_path_factory.mktemp("cuda"), {"a": 75, "b": 75})
    files = sorted(root.rglob("*.png"))
    for number in (7, 99):
        files[number].write_bytes(files[number].read_bytes()[:100])
    return files


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    monkeypatch.setattr(local, "choose_device", lambda *_, **__: Choice("cuda"))
    return cuda_on_the_cpu(monkeypatch)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("autocast", [None, "bf16"])
def test_every_photo_once_and_broken_ones_told(
    backbone: Backbone,
    photos: list[Path],
    world: FakeCuda,
    workers: int,
    autocast: str | None,
) -> None:
    engine = LocalEngine(backbone, device="cuda", autocast=autocast, workers=workers)
    assert engine.device == "cuda"
    found: dict[int, np.ndarray[tuple[int], np.dtype[np.float32]]] = {}
    broken = set()
    for result in engine.embed(photos):
        if isinstance(result, Broken):
            assert photos[result.index].name in result.problem
            broken.add(result.index)
            continue
        assert isinstance(result, Embedded)
        for index, digest, row in zip(
            result.indices, result.digests, result.rows, strict=True
        ):
            assert index not in found
            assert digest == hashlib.sha256(photos[index].read_bytes()).digest()
            found[index] = row
    notes = list(engine.notes)
    engine.close()
    assert broken == {7, 99}
    assert sorted([*found, *broken]) == list(range(150))
    p = backbone.info.preprocess
    pixels = np.stack([photo_pixels(photos[i], p, decode="quick") for i in sorted(found)])
    assert backbone.module is not None
    want = TorchEmbedder(backbone.module, p, "cpu")(pixels)
    got = np.stack([found[i] for i in sorted(found)])
    if autocast is None:
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
        assert notes == []
    else:
        lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
        assert ((got * want).sum(axis=1) / lengths).min() >= 0.999
        (note,) = notes
        assert note.startswith("Embedded in bf16: the smallest cosine with float32 on the ")
    assert world.log.count("host waits") >= 3


def test_a_gpu_without_room_ends_the_build_and_the_processes(
    backbone: Backbone, photos: list[Path], world: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    engine = LocalEngine(backbone, device="cuda", workers=1)
    monkeypatch.setattr("edge_imprint.embedding.torch_network.Network.__call__", full)
    with pytest.raises(DeviceMemoryError) as caught:
        list(engine.embed(photos))
    engine.close()
    assert str(caught.value) == (
        "cuda has not enough free memory for one photo (32x32 pixels); free some, or use "
        "--device cpu"
    )

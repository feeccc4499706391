# SPDX-License-Identifier: Apache-2.0
"""The way to a GPU and back, in the order of its calls; and on a GPU where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from edge_imprint.embedding.torch_embedder import LEAST_COSINE, TorchEmbedder
from edge_imprint.embedding.torch_lanes import CudaLane
from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.errors import DeviceError, ProviderError
from tests.standins.torch_cuda import FakeCuda, cuda_on_the_cpu

PREPROCESS = Preprocess(16, 16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


class Net(nn.Module):
    """A small network that moves the stand-in's clock."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, 2)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).mean((2, 3))


class Timed(Net):
    """A launch takes 0.5 ms, an image 10 us; more than ``fits`` do not fit."""

    world: FakeCuda
    fits = 10**6

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > Timed.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        Timed.world.clock_s += 5e-4 + 1e-5 * len(images)
        return super().forward(images)


def pixels(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    made = cuda_on_the_cpu(monkeypatch)
    monkeypatch.setattr(Timed, "world", made, raising=False)
    return made


def test_a_batch_is_sent_while_the_one_before_computes(world: FakeCuda) -> None:
    embed = TorchEmbedder(Net(), PREPROCESS, "cuda", batch=4)
    assert world.log == ["synchronize"]
    world.log.clear()
    images = pixels(14)
    parts = list(embed.stream_photos(enumerate(images)))
    want = TorchEmbedder(Net(), PREPROCESS, "cpu")(images)
    np.testing.assert_allclose(np.concatenate([rows for _, rows in parts]), want, rtol=1e-4)
    assert [tags for tags, _ in parts] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13]
    ]  # fmt: skip

    def sent(count: int) -> list[str]:
        queued = [f"send {count} in copies", "computes waits for copies"]
        return [*queued, f"keep {count} for computes", f"pin ({count}, 8)"]

    filled = ["pin (4, 16, 16, 3)"]
    assert world.log == [
        # the first is waited for: it is tried out
        *filled, *sent(4), "host waits",
        # then the host waits for a batch when the next one is on its way
        *filled, *sent(4), *filled, *sent(4), "host waits",
        *filled, *sent(2), "host waits", "host waits",
    ]  # fmt: skip


def test_the_batch_is_found_by_the_devices_own_clock(world: FakeCuda) -> None:
    embed = TorchEmbedder(Timed(), PREPROCESS, "cuda")
    embed(pixels(8000))
    # 512 against 256 images at once: 9 % faster; 1024 against 512: 4.7 %.
    assert embed.batch == 512
    assert embed.notes == []


def test_short_memory_waits_for_what_is_on_its_way(
    world: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = TorchEmbedder(Timed(), PREPROCESS, "cuda", batch=8)
    images = pixels(40)
    parts: list[tuple[list[int], Any]] = []
    for part in embed.stream_photos(enumerate(images)):
        parts.append(part)
        monkeypatch.setattr(Timed, "fits", 3)
    assert [tag for tags, _ in parts for tag in tags] == list(range(40))
    want = TorchEmbedder(Net(), PREPROCESS, "cpu")(images)
    np.testing.assert_allclose(np.concatenate([rows for _, rows in parts]), want, rtol=1e-4)
    assert embed.batch == 2
    assert world.log.count("empty cache") == 2
    # The batch on its way is waited for before memory is given back.
    short = world.log.index("empty cache")
    assert "host waits" in world.log[short - 2 : short]


def test_short_pinned_memory_makes_smaller_batches(world: FakeCuda) -> None:
    world.free_bytes = 10 * 16 * 16 * 3
    embed = TorchEmbedder(Net(), PREPROCESS, "cuda")
    rows = embed(pixels(40))
    assert rows.shape == (40, 8)
    assert embed.batch == 8


def test_what_cuda_says_is_one_sentence(world: FakeCuda) -> None:
    class Broken(Net):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError(
                "CUDA error: no kernel image is available for execution on the device\n"
                "CUDA kernel errors might be asynchronously reported at some other API call"
            )

    embed = TorchEmbedder(Broken(), PREPROCESS, "cuda")
    with pytest.raises(DeviceError) as caught:
        embed(pixels(2))
    assert str(caught.value) == (
        "torch failed on cpu (CUDA error: no kernel image is available for execution on the "
        "device); run it again, or use --device cpu"
    )


def test_why_torch_finds_no_device_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def old_driver() -> bool:
        import warnings

        warnings.warn("CUDA initialization: The driver is too old\n(found 11)", stacklevel=2)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", old_driver)
    with pytest.raises(ProviderError) as caught:
        CudaLane()
    assert str(caught.value) == (
        "torch finds no CUDA device on this machine (CUDA initialization: The driver is too "
        "old); use --device cpu"
    )


# On a GPU ----------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("autocast", [None, "bf16", "fp16"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_cuda_against_the_cpu(autocast: str | None, channels_last: bool) -> None:
    images = pixels(3000)
    want = TorchEmbedder(Net(), PREPROCESS, "cpu")(images)
    embed = TorchEmbedder(
        Net(), PREPROCESS, "cuda", autocast=autocast, channels_last=channels_last
    )
    got = embed(images)
    least = 0.999999 if autocast is None else LEAST_COSINE
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    assert ((got * want).sum(axis=1) / lengths).min() >= least


@pytest.mark.gpu
def test_cuda_memory_runs_short() -> None:
    class Wide(Net):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            # The whole GPU would be needed for 20 images.
            share = torch.cuda.mem_get_info()[1] // 20
            torch.empty(len(images) * share, dtype=torch.uint8, device="cuda")
            return super().forward(images)

    embed = TorchEmbedder(Wide(), PREPROCESS, "cuda")
    assert embed(pixels(100)).shape == (100, 8)
    assert embed.batch < 20

# SPDX-License-Identifier: Apache-2.0
"""Embedding by torch: on the CPU for real, what only a GPU does in order of its calls."""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from edge_imprint.backbones import Backbone, load_backbone
from edge_imprint.embedding.embedders import ort_embedder
from edge_imprint.embedding.torch_embedder import (
    LEAST_COSINE,
    TorchEmbedder,
    torch_embedder,
)
from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.errors import (
    DeviceMemoryError,
    EmbeddingError,
    InputError,
    ParameterError,
    ProviderError,
)

SIDE = 32
PREPROCESS = Preprocess(SIDE, SIDE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


def pixels(count: int, side: int = SIDE) -> UInt8:
    return np.random.default_rng(side).integers(0, 256, (count, side, side, 3), np.uint8)


class Net(nn.Module):
    """Two convolutions and a mean; at most ``fits`` images at once fit into its memory."""

    def __init__(self, fits: int = 10**6, gain: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2)
        )
        self.fits, self.gain = fits, gain
        self.seen: list[int] = []
        self.eval()

    def __deepcopy__(self, memo: dict[int, Any]) -> Net:
        # What the embedder's copy sees is seen here.
        made = Net(self.fits, self.gain)
        made.load_state_dict(copy.deepcopy(self.state_dict()))
        made.seen = self.seen
        return made

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.seen.append(len(images))
        return self.body(images).mean((2, 3)) * self.gain


def by_hand(module: nn.Module, images: UInt8) -> Float32:
    """The same in the usual layout, an image at a time."""
    mean, std = (np.reshape(v, (3, 1, 1)) for v in (PREPROCESS.mean, PREPROCESS.std))
    with torch.inference_mode():
        rows = [
            module(torch.from_numpy(((x.transpose(2, 0, 1) / 255 - mean) / std)[None]).float())
            for x in images
        ]
    return np.concatenate([row.numpy() for row in rows])


# What it computes --------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("batch", [None, 1, 7, 200])
def test_against_the_module_by_hand(channels_last: bool, batch: int | None) -> None:
    module, images = Net(), pixels(75)
    want = by_hand(module, images)
    module.seen.clear()
    embed = TorchEmbedder(module, PREPROCESS, "cpu", batch=batch, channels_last=channels_last)
    got = embed(images)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert embed.notes == []
    assert (embed.arithmetic, embed.cosine) == ("fp32", None)
    sizes = {None: [32, 32, 11], 1: [1] * 75, 7: [7] * 10 + [5], 200: [75]}
    assert module.seen == sizes[batch]


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "test_convnext"])
def test_real_backbones_against_onnx_runtime(name: str) -> None:
    given = Preprocess(64, 64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    backbone = load_backbone(
        f"timm/{name}", random_weights=True, preprocess=None if "vit" in name else given
    )
    images = pixels(6, backbone.info.preprocess.height)
    want = ort_embedder(backbone)(images)
    got = torch_embedder(backbone, "cpu")(images)
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
    for autocast in ("bf16", "fp16"):
        embed = torch_embedder(backbone, "cpu", autocast=autocast)
        half = embed(images)
        assert np.abs(half - want).max() > 1e-6 * np.abs(want).max()  # it was another way
        lengths = np.linalg.norm(half, axis=1) * np.linalg.norm(want, axis=1)
        cosine = float(((half * want).sum(axis=1) / lengths).min())
        assert embed.cosine == pytest.approx(cosine, abs=1e-4)
        assert cosine >= LEAST_COSINE


def test_the_module_stays_as_it_was() -> None:
    module = Net()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    TorchEmbedder(module, PREPROCESS, "cpu")(pixels(3))
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])
        assert value.stride() == before[key].stride()


def test_a_module_that_cannot_compute_channels_last() -> None:
    class Viewing(Net):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.body(images).view(len(images), -1)

        def __deepcopy__(self, memo: dict[int, Any]) -> Viewing:
            made = Viewing()
            made.load_state_dict(self.state_dict())
            return made

    module, images = Viewing(), pixels(40)
    embed = TorchEmbedder(module, PREPROCESS, "cpu")
    np.testing.assert_allclose(embed(images), by_hand(module, images), rtol=1e-4, atol=1e-5)
    assert embed.notes == ["The backbone can't compute channels_last; it does without."]


# Autocast ----------------------------------------------------------------------------------


@pytest.mark.parametrize("autocast", ["bf16", "fp16"])
def test_autocast_says_how_alike_it_is(autocast: str) -> None:
    module, images = Net(), pixels(40)
    embed = TorchEmbedder(module, PREPROCESS, "cpu", autocast=autocast)
    got, want = embed(images), by_hand(module, images)
    assert got.dtype == np.float32
    assert embed.arithmetic == autocast
    assert embed.cosine is not None
    assert LEAST_COSINE <= embed.cosine < 1
    (note,) = embed.notes
    assert note == (
        f"Embedded in {autocast}: the smallest cosine with float32 on the first 32 photos is "
        f"{embed.cosine:.6f}."
    )
    assert 0 < np.abs(got - want).max() < 0.05 * np.abs(want).max()


class Cancelling(nn.Module):
    """Sums that cancel, of which half precision keeps next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 16, 3, 2)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.conv(images) + 1000 - 1000).mean((2, 3))


def test_autocast_that_is_not_alike_gives_way_and_says_so() -> None:
    module, images = Cancelling(), pixels(40)
    embed = TorchEmbedder(module, PREPROCESS, "cpu", autocast="bf16")
    got = embed(images)
    assert embed.cosine is not None
    assert embed.cosine < LEAST_COSINE
    assert embed.arithmetic == "fp32"
    (note,) = embed.notes
    assert note == (
        "Embedded in float32: in bf16 the smallest cosine with it on the first 32 photos is "
        f"{embed.cosine:.6f}, below 0.999."
    )
    plain = TorchEmbedder(module, PREPROCESS, "cpu")(images)
    np.testing.assert_array_equal(got, plain)


def test_a_photo_beyond_half_precision_is_embedded_in_float32() -> None:
    loud = Preprocess(SIDE, SIDE, std=(1 / 255,) * 3)
    dark, bright = np.full((40, SIDE, SIDE, 3), 2, np.uint8), pixels(3)
    dark += np.random.default_rng(0).integers(0, 2, dark.shape, np.uint8)
    images = np.concatenate([dark, bright])
    with np.errstate(over="ignore"):
        embed = TorchEmbedder(Loud(), loud, "cpu", autocast="fp16")
        got = embed(images)
    want = TorchEmbedder(Loud(), loud, "cpu")(images)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[40:], want[40:], rtol=1e-5)
    assert embed.arithmetic == "fp16"
    assert embed.notes[1:] == [
        "3 photos were embedded in float32: in fp16 a value was too large."
    ]


class Loud(nn.Module):
    """A convolution whose sums pass 65,504 for bright photos; its result is divided again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, SIDE, bias=False)
        with torch.no_grad():
            rising = torch.linspace(0.5, 1, 4 * 3 * SIDE * SIDE)
            self.conv.weight.copy_(rising.view_as(self.conv.weight))
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).flatten(1) / 1000


# Memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fits", [1, 3, 31, 32, 40])
def test_short_memory_halves_the_batch(fits: int) -> None:
    module, images = Net(fits), pixels(100)
    embed = TorchEmbedder(module, PREPROCESS, "cpu")
    got = embed(images)
    np.testing.assert_allclose(got, by_hand(Net(), images), rtol=1e-4, atol=1e-5)
    assert max(module.seen) == embed.batch
    assert fits / 2 < embed.batch <= fits
    if fits < 32:
        (note,) = embed.notes
        assert note == (
            "Batches were made smaller, since the device's memory is short: "
            f"{embed.batch} photos at once."
        )


def test_memory_that_runs_short_on_the_way() -> None:
    module, images = Net(), pixels(200)
    embed = TorchEmbedder(module, PREPROCESS, "cpu", batch=16)
    running = embed._network._module  # type: ignore[union-attr]
    parts = []
    for turn, (tags, rows) in enumerate(embed.stream_photos(enumerate(images))):
        parts.append((tags, rows))
        running.fits = 16 if turn < 3 else 5
    assert [tag for tags, _ in parts for tag in tags] == list(range(200))
    rows = np.concatenate([rows for _, rows in parts])
    np.testing.assert_allclose(rows, by_hand(Net(), images), rtol=1e-4, atol=1e-5)
    assert embed.batch == 4


def test_not_even_one_image_fits() -> None:
    embed = TorchEmbedder(Net(fits=0), PREPROCESS, "cpu")
    with pytest.raises(DeviceMemoryError) as caught:
        embed(pixels(2))
    assert str(caught.value) == (
        "cpu has not enough free memory for one photo (32x32 pixels); free some, or use "
        "--device cpu"
    )


def test_a_library_that_lacks_memory_is_told_by_its_words() -> None:
    class Starved(Net):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.empty(10**15 * len(images))

        def __deepcopy__(self, memo: dict[int, Any]) -> Starved:
            return Starved()

    with pytest.raises(DeviceMemoryError):
        TorchEmbedder(Starved(), PREPROCESS, "cpu")(pixels(2))


# Streaming ---------------------------------------------------------------------------------


def test_a_stream_gives_tags_in_order_and_copies_pixels_at_once() -> None:
    images, slot = pixels(50), np.empty((SIDE, SIDE, 3), np.uint8)
    asked: list[int] = []

    def photos() -> Iterator[tuple[str, UInt8]]:
        for number, image in enumerate(images):
            slot[:] = image  # one slot for all
            asked.append(number)
            yield f"photo {number}", slot

    embed = TorchEmbedder(Net(), PREPROCESS, "cpu", batch=20)
    stream = embed.stream_photos(photos())
    tags, rows = next(stream)
    assert asked == list(range(20))  # no further than it must
    rest = list(stream)
    assert [len(part) for _, part in rest] == [20, 10]
    assert tags + rest[0][0] + rest[1][0] == [f"photo {n}" for n in range(50)]
    got = np.concatenate([rows, *(part for _, part in rest)])
    np.testing.assert_allclose(got, by_hand(Net(), images), rtol=1e-4, atol=1e-5)


def test_an_empty_stream() -> None:
    assert list(TorchEmbedder(Net(), PREPROCESS, "cpu").stream_photos([])) == []


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_batches_of_any_size_come_back_as_they_were(batch: int) -> None:
    images, cuts = pixels(60), [0, 3, 4, 30, 31, 60]
    slot = np.empty_like(images)

    def batches() -> Iterator[tuple[int, UInt8]]:
        for start, end in itertools.pairwise(cuts):
            slot[: end - start] = images[start:end]  # one slot for all
            yield start, slot[: end - start]

    parts = list(TorchEmbedder(Net(), PREPROCESS, "cpu", batch=batch).stream(batches()))
    assert [(start, len(rows)) for start, rows in parts] == [
        (start, end - start) for start, end in itertools.pairwise(cuts)
    ]
    got = np.concatenate([rows for _, rows in parts])
    np.testing.assert_allclose(got, by_hand(Net(), images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (SIDE, SIDE, 1), (1, 1, 3), (SIDE, 8, 3)])
def test_photos_of_another_shape(shape: tuple[int, ...]) -> None:
    embed = TorchEmbedder(Net(), PREPROCESS, "cpu")
    with pytest.raises(InputError) as caught:
        list(embed.stream_photos([(0, np.zeros(shape, np.uint8))]))
    assert str(caught.value) == f"a photo must be (32, 32, 3) uint8, got {shape} uint8"


def test_photos_of_another_type_and_none() -> None:
    embed = TorchEmbedder(Net(), PREPROCESS, "cpu")
    with pytest.raises(InputError, match="got \\(32, 32, 3\\) float32"):
        embed(pixels(1).astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there are no images to embed"):
        embed(pixels(0))


# What is refused ---------------------------------------------------------------------------


def test_wrong_parameters() -> None:
    with pytest.raises(ParameterError) as caught:
        TorchEmbedder(Net(), PREPROCESS, "cpu", autocast="int8")
    assert str(caught.value) == "autocast must be one of bf16, fp16, got 'int8'"
    with pytest.raises(ParameterError) as caught:
        TorchEmbedder(Net(), PREPROCESS, "cpu", batch=0)
    assert str(caught.value) == "batch must be an integer >= 1, got 0"


def test_a_backbone_without_a_module(network: Backbone) -> None:
    with pytest.raises(ParameterError) as caught:
        torch_embedder(network, "cpu")
    assert str(caught.value) == f"the backbone {network.info.name} has no torch module"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none() -> None:
    with pytest.raises(ProviderError) as caught:
        TorchEmbedder(Net(), PREPROCESS, "cuda")
    assert str(caught.value).startswith("torch finds no CUDA device on this machine")
    assert str(caught.value).endswith("; use --device cpu")


@pytest.mark.parametrize(
    ("layer", "got"),
    [(nn.Flatten(0), "(6144,)"), (nn.Identity(), "(2, 3, 32, 32)"), (nn.GRU(32, 4), "tuple")],
)
def test_a_module_that_does_not_give_a_row_an_image(layer: nn.Module, got: str) -> None:
    module = nn.Sequential(nn.Flatten(1, 2), layer) if got == "tuple" else layer
    with pytest.raises(EmbeddingError) as caught:
        TorchEmbedder(module.eval(), PREPROCESS, "cpu")(pixels(2))
    assert str(caught.value) == (
        f"the backbone gives {got} for 2 images, not one row an image; take a module that "
        "gives (N, D), or name a --layer"
    )


def test_a_module_that_fails() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(10, 2)).eval()
    with pytest.raises(EmbeddingError) as caught:
        TorchEmbedder(module, PREPROCESS, "cpu")(pixels(2))
    said = str(caught.value)
    assert said.startswith("the backbone fails on images of 32x32 pixels: ")
    assert "mat1 and mat2 shapes cannot be multiplied" in said
    assert said.endswith("; take a backbone that embeds them")


def test_importing_it_imports_no_torch_and_without_torch_it_says_so() -> None:
    code = (
        "import sys\n"
        "from edge_imprint.embedding.torch_embedder import TorchEmbedder\n"
        "from edge_imprint_runtime import Preprocess\n"
        "from edge_imprint_runtime.errors import MissingPackageError\n"
        "assert 'torch' not in sys.modules\nsys.modules['torch'] = None\n"
        "try: TorchEmbedder(None, Preprocess(8, 8), sys.argv[1])\n"
        "except MissingPackageError as error: print(error)"
    )
    for device in ("cpu", "cuda"):
        done = subprocess.run(
            [sys.executable, "-c", code, device], capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == (
            "embedding on CUDA needs the package 'torch', which is not installed here; "
            "run: pip install 'edge-imprint[host]'"
        ), done.stderr

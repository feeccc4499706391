# SPDX-License-Identifier: Apache-2.0
"""What all tests share: tiny backbones, random heads, and a cache that is nobody's."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir
from onnx import TensorProto, helper

from edge_imprint_export import fuse
from edge_imprint_export.backbone.glyphnet import conv_stack
from edge_imprint_export.graph import tidy, to_bytes
from edge_imprint_runtime import BackboneInfo, Head, Preprocess, Rule
from edge_imprint_runtime.files import write_atomic

# Here and not in a fixture: the hub's client reads it when a test file imports timm.
os.environ["HF_HUB_OFFLINE"] = "1"

# One machine is as slow as it is: a deadline finds neighbours, not bugs. Derandomized, so
# that what fails once fails again, for everyone.
settings.register_profile("house", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("house")

IMAGE_SIZE = 16
EMBEDDING_SIZE = 8

MakeHead = Callable[..., Head]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none, and say so."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and (why := _no_gpu()):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=why))


def _no_gpu() -> str:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        return f"needs a GPU and the package cuda-python: {error}"
    status, count = runtime.cudaGetDeviceCount()
    return (
        "" if int(status) == 0 and count else f"needs a GPU, and there is none: {status.name}"
    )


@pytest.fixture(autouse=True, scope="session")
def _interrupts() -> None:
    """Let tests interrupt what they start: a background job's children would ignore it."""
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _no_home_and_no_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache, none asks the hub for weights."""
    set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_backbone() -> bytes:
    """A backbone graph, 3 convolutions with seeded random weights: 16 px -> 8 numbers.

    As bytes, because `fuse` changes a ModelProto in place and this one is shared.
    """
    rng = np.random.default_rng(7)
    weights, channels = {}, (3, 8, 16, EMBEDDING_SIZE)
    for i, (into, out) in enumerate(itertools.pairwise(channels)):
        scale = np.sqrt(2 / (9 * into))
        weights[f"conv{i}.weight"] = (scale * rng.standard_normal((out, into, 3, 3))).astype(
            np.float32
        )
        weights[f"conv{i}.bias"] = (0.1 * rng.standard_normal(out)).astype(np.float32)
    layers = [(2, True), (2, True), (1, False)]
    return to_bytes(conv_stack(layers, weights, image_size=IMAGE_SIZE, pool_size=4))


@pytest.fixture(scope="session")
def tiny_preprocess() -> Preprocess:
    """The tiny backbone's preprocessing: a crop at 0.875, bicubic, ImageNet's statistics."""
    return Preprocess(
        IMAGE_SIZE,
        IMAGE_SIZE,
        resize="crop",
        resize_height=18,
        resize_width=18,
        interpolation="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


@pytest.fixture(scope="session")
def tiny_info(tiny_backbone: bytes, tiny_preprocess: Preprocess) -> BackboneInfo:
    """What a head remembers of the tiny backbone."""
    digest = hashlib.sha256(tiny_backbone).hexdigest()
    return BackboneInfo("tiny", "packaged", digest, tiny_preprocess)


def with_calibration(head: Head, rows: npt.ArrayLike) -> Head:
    """Give a head thresholds that about half of the rows reach."""
    nearest, label = head.nearest(rows), head.predict(rows)
    near = np.take_along_axis(nearest, label[:, np.newaxis], axis=1)
    return Head(
        head.proxies,
        head.class_index,
        head.labels,
        head.rule,
        center=head.center,
        transform=head.transform,
        metric=head.metric,
        threshold=np.full(len(head.labels), np.median(near)),
        temperature=0.25,
        recipe=head.recipe,
        backbone=head.backbone,
    )


@pytest.fixture(scope="session")
def flat_backbone() -> Callable[..., bytes]:
    """Return a function of (size, opset): a graph whose embedding is its 1 x size/3 pixels."""

    def make(size: int = 12, opset: int = 17) -> bytes:
        values = helper.make_tensor_value_info
        graph = helper.make_graph(
            [helper.make_node("Flatten", ["in"], ["out"], axis=1)],
            "flat",
            [values("in", TensorProto.FLOAT, ["N", 3, 1, size // 3])],
            [values("out", TensorProto.FLOAT, ["N", size])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        return to_bytes(tidy(model, size=size))

    return make


@pytest.fixture(scope="session")
def flat_info() -> BackboneInfo:
    """What a head remembers of the flat backbone of 12 numbers."""
    return BackboneInfo("flat", "packaged", "0" * 64, Preprocess(1, 4))


@pytest.fixture(scope="session")
def make_head(tiny_info: BackboneInfo) -> MakeHead:
    """Return a factory of random heads whose classes have 1 to ``proxies`` proxies each.

    ``make_head(classes, proxies, dim, center=True, transform=True, norm="none", seed=0,
    backbone=None, calibrated=True, **rule)``; by default the head belongs to the tiny
    backbone. ``neighbors`` is cut to the number of proxies. A calibrated head knows half of
    the embeddings given instead of True, or of random ones.
    """

    def make(
        classes: int = 3,
        proxies: int = 2,
        dim: int = EMBEDDING_SIZE,
        *,
        center: bool = False,
        transform: bool = False,
        norm: str = "l2",
        seed: int = 0,
        backbone: BackboneInfo | None = tiny_info,
        calibrated: bool | npt.NDArray[np.generic] = False,
        neighbors: int = 1,
        **rule: str,
    ) -> Head:
        rng = np.random.default_rng(seed)
        counts = rng.integers(1, proxies + 1, classes)
        counts[rng.integers(classes)] = proxies
        mapped = dim + 3 if transform else dim
        matrix = rng.standard_normal((counts.sum(), mapped))
        made = Rule(norm, neighbors=min(neighbors, len(matrix)), **rule)
        mahalanobis = made.distance == "mahalanobis"
        head = Head(
            matrix / np.linalg.norm(matrix, axis=1, keepdims=True),
            np.repeat(np.arange(classes), counts),
            [f"class {i}" for i in range(classes)],
            made,
            center=rng.standard_normal(dim) / 4 if center else None,
            transform=rng.standard_normal((dim, mapped)) / np.sqrt(dim) if transform else None,
            metric=rng.standard_normal((mapped, mapped + 1)) / 2 if mahalanobis else None,
            recipe="random",
            backbone=backbone,
        )
        if calibrated is False:
            return head
        rows = np.random.default_rng(5).standard_normal((200, dim))
        return with_calibration(head, rows if calibrated is True else calibrated)

    return make


@pytest.fixture(scope="session")
def tiny_model(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: bytes, make_head: MakeHead
) -> Path:
    """A fused model on disk: tiny backbone, 3 classes, all outputs. Don't change the file."""
    model = fuse(tiny_backbone, make_head(), outputs=("scores", "label", "embedding"))
    return write_atomic(tmp_path_factory.mktemp("tiny") / "model.onnx", to_bytes(model))

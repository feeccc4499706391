# SPDX-License-Identifier: Apache-2.0
"""A fused model decides as its head does: held against the oracle, with the tie rule."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_export import embedder, fuse
from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_runtime import BackboneInfo, Head, Preprocess, Rule
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.images import normalize

MakeHead = Callable[..., Head]
Pixels = npt.NDArray[np.uint8]

TOLERANCE = 1e-4
TIE = 1e-5


@pytest.fixture(scope="module")
def bare(tiny_backbone: bytes) -> OrtRunner:
    return OrtRunner(tiny_backbone, "cpu", threads=1)


def random_pixels(count: int = 6, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), np.uint8)


def check_against_oracle(
    backbone: bytes, bare: OrtRunner, head: Head, input_form: str, pixels: Pixels
) -> None:
    """Run the fused model, and the same by host arithmetic, bare graph and numpy."""
    assert head.backbone is not None
    floats = normalize(pixels, head.backbone.preprocess)
    embeddings = bare.run(["embedding"], floats)[0]
    oracle = head.scores(embeddings)
    model = OrtRunner(to_bytes(fuse(backbone, head, input=input_form)), "cpu", threads=1)
    given = pixels if input_form == "uint8" else floats
    scores, label = model.run(["scores", "label"], given)
    assert (scores.dtype, label.dtype) == (np.float32, np.int32)
    np.testing.assert_allclose(scores, oracle, rtol=0, atol=TOLERANCE)
    assert np.array_equal(label, scores.argmax(axis=1))
    differ = label != head.predict(embeddings)
    gap = oracle.max(axis=1) - oracle[np.arange(len(oracle)), label]
    assert (gap[differ] <= TIE).all()


@given(
    classes=st.integers(1, 7),
    proxies=st.integers(1, 5),
    center=st.booleans(),
    transform=st.booleans(),
    norm=st.sampled_from(["none", "l2"]),
    input_form=st.sampled_from(["uint8", "float32"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_scores_and_labels_are_the_oracles(
    tiny_backbone: bytes,
    bare: OrtRunner,
    make_head: MakeHead,
    classes: int,
    proxies: int,
    center: bool,
    transform: bool,
    norm: str,
    input_form: str,
    seed: int,
) -> None:
    head = make_head(
        classes, proxies, center=center, transform=transform, norm=norm, seed=seed
    )
    pixels = random_pixels(seed=seed)
    check_against_oracle(tiny_backbone, bare, head, input_form, pixels)


def test_a_thousand_classes(
    tiny_backbone: bytes, bare: OrtRunner, make_head: MakeHead
) -> None:
    head = make_head(1_000, 20, center=True, transform=True)
    check_against_oracle(tiny_backbone, bare, head, "uint8", random_pixels(20))


@pytest.mark.parametrize("fill", [0, 255])
def test_images_of_one_color(
    tiny_backbone: bytes, bare: OrtRunner, make_head: MakeHead, fill: int
) -> None:
    pixels = np.full((2, 16, 16, 3), fill, np.uint8)
    check_against_oracle(tiny_backbone, bare, make_head(5, 3), "uint8", pixels)


def test_any_batch_size(tiny_backbone: bytes, make_head: MakeHead) -> None:
    model = OrtRunner(to_bytes(fuse(tiny_backbone, make_head())), "cpu", threads=1)
    pixels = random_pixels(65)
    whole = model.run(["scores"], pixels)[0]
    for size in (1, 2, 64):
        np.testing.assert_allclose(
            model.run(["scores"], pixels[:size])[0], whole[:size], rtol=0, atol=1e-6
        )


def test_equal_scores_go_to_the_lowest_index(
    tiny_backbone: bytes, tiny_info: BackboneInfo
) -> None:
    """Every class has the same proxies, so that every image is a tie."""
    rows = np.random.default_rng(0).standard_normal((2, 8))
    index = [2, 2, 0, 0, 1, 1]
    head = Head(np.tile(rows, (3, 1)), index, list("abc"), backbone=tiny_info)
    model = OrtRunner(to_bytes(fuse(tiny_backbone, head)), "cpu")
    scores, label = model.run(["scores", "label"], random_pixels(20))
    assert (scores == scores[:, :1]).all()
    assert not label.any()


def test_a_zero_embedding_scores_zero(tiny_backbone: bytes, tiny_info: BackboneInfo) -> None:
    """Not NaN: the divisor of the norm has a floor."""
    transform = np.zeros((8, 8), np.float32)
    head = Head(np.eye(8), range(8), list("abcdefgh"), transform=transform, backbone=tiny_info)
    model = OrtRunner(to_bytes(fuse(tiny_backbone, head)), "cpu")
    scores, label = model.run(["scores", "label"], random_pixels(2))
    assert not scores.any()
    assert not label.any()


@pytest.mark.parametrize("scale", [1e-9, 1e-15])
def test_a_norm_about_epsilon(
    tiny_backbone: bytes, bare: OrtRunner, tiny_info: BackboneInfo, scale: float
) -> None:
    transform = scale * np.eye(8)
    head = Head(np.eye(8), range(8), list("abcdefgh"), transform=transform, backbone=tiny_info)
    check_against_oracle(tiny_backbone, bare, head, "uint8", random_pixels())


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0, 0, 0), (1, 1, 1)), ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((0.1, 0.9, 0), (0.1, 1, 3))],
)
def test_every_normalization(
    tiny_backbone: bytes,
    bare: OrtRunner,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> None:
    info = BackboneInfo("tiny", "packaged", "0" * 64, Preprocess(16, 16, mean=mean, std=std))
    proxies = np.random.default_rng(0).standard_normal((4, 8)) / 3
    head = Head(proxies, range(4), list("abcd"), Rule(embedding_norm="l2"), backbone=info)
    check_against_oracle(tiny_backbone, bare, head, "uint8", random_pixels())


def test_embedder_gives_the_embedding_of_the_fused_model(
    tiny_backbone: bytes, make_head: MakeHead, tiny_preprocess: Preprocess, bare: OrtRunner
) -> None:
    pixels = random_pixels()
    outputs = ("scores", "label", "embedding")
    fused = fuse(tiny_backbone, make_head(center=True, transform=True), outputs=outputs)
    before = to_bytes(fused)
    parts = [fused, embedder(tiny_backbone, tiny_preprocess)]
    found = [OrtRunner(to_bytes(m), "cpu").run(["embedding"], pixels)[0] for m in parts]
    want = bare.run(["embedding"], normalize(pixels, tiny_preprocess))[0]
    assert want.shape == (6, 8)
    for embedding in found:
        np.testing.assert_allclose(embedding, want, rtol=0, atol=1e-5)
    assert np.array_equal(found[0], found[1])
    assert to_bytes(fused) == before


def test_equal_arguments_give_equal_bytes(
    tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path
) -> None:
    """Also from a graph or bytes, and in another process with other hash seeds."""
    head = make_head(4, 3, center=True, transform=True)
    one = to_bytes(fuse(tiny_backbone, head))
    assert to_bytes(fuse(tiny_backbone, head)) == one
    assert to_bytes(fuse(parse(tiny_backbone, "tiny"), head)) == one
    assert to_bytes(fuse(tiny_backbone, make_head(4, 3, center=True, transform=True))) == one
    head.save(tmp_path / "head")
    (tmp_path / "backbone").write_bytes(tiny_backbone)
    code = (
        "import hashlib\n"
        "from edge_imprint_export import fuse\n"
        "from edge_imprint_export.graph import to_bytes\n"
        "from edge_imprint_runtime import Head\n"
        "model = fuse(open('backbone', 'rb').read(), Head.load('head'))\n"
        "print(hashlib.sha256(to_bytes(model)).hexdigest())\n"
    )
    command = [sys.executable, "-c", code]
    for _ in range(2):
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == hashlib.sha256(one).hexdigest()


def test_other_arguments_give_other_bytes(tiny_backbone: bytes, make_head: MakeHead) -> None:
    models = [
        fuse(tiny_backbone, make_head()),
        fuse(tiny_backbone, make_head(seed=1)),
        fuse(tiny_backbone, make_head(norm="none")),
        fuse(tiny_backbone, make_head(center=True)),
        fuse(tiny_backbone, make_head(), input="float32"),
        fuse(tiny_backbone, make_head(), outputs=("scores", "label", "embedding")),
    ]
    assert len({to_bytes(model) for model in models}) == len(models)

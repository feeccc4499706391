# SPDX-License-Identifier: Apache-2.0
"""The weights of one pass are Pillow's, and their blocks leave nothing out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_imprint_export.frames.resample import Pass, resampling
from edge_imprint_runtime.geometry import Span

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def whole(length: int, resized: int) -> Span:
    """Return the span that resizes a side and cuts nothing."""
    return Span(0, length, resized, 0)


def run(lines: npt.NDArray[np.float32], way: Pass) -> npt.NDArray[np.float32]:
    """Do in numpy what the graph does: (rows, source) -> (rows, output without padding)."""
    if not way.blocks:
        return lines[:, way.start : way.stop]
    parts = [lines[:, b.start : b.start + len(b.weights)] @ b.weights for b in way.blocks]
    made = np.concatenate(parts, axis=1)
    return np.clip(np.floor(made + np.float32(0.5)), 0, 255) if way.rounds else made


def noise(rows: int, columns: int, seed: int) -> npt.NDArray[np.uint8]:
    """Half of it black and white, which makes filters overshoot."""
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns), np.uint8)
    pixels[::2] = np.where(pixels[::2] < 128, 0, 255)
    return pixels


@given(
    interpolation=st.sampled_from(list(FILTERS)),
    length=st.integers(1, 300),
    resized=st.integers(1, 300),
)
def test_one_pass_is_that_of_pillow(interpolation: str, length: int, resized: int) -> None:
    pixels = noise(8, length, length * 1_000 + resized)
    way = resampling(whole(length, resized), resized, interpolation)
    got = run(pixels.astype(np.float32), way)
    photo = Image.fromarray(pixels).resize((resized, 8), FILTERS[interpolation])
    want = np.asarray(photo).astype(np.float32)
    assert np.abs(got - want).max() <= 1  # where two roundings of one half differ
    # A column has few different fractions: several of its rows may be such halves at once.
    assert (got != want).mean() <= 0.05
    turned = Image.fromarray(pixels.T.copy()).resize((8, resized), FILTERS[interpolation])
    assert np.array_equal(np.asarray(turned).T, want)


@pytest.mark.parametrize("interpolation", [*FILTERS, "linear"])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize(
    ("span", "size"),
    [
        (Span(0, 1280, 455, 116), 224),
        (Span(2, 90, 31, 4), 22),
        (Span(0, 40, 200, 3), 190),
        (Span(0, 64, 40, -5), 50),
        (Span(10, 44, 20, 0), 20),
    ],
)
def test_blocks_are_the_dense_matrix(
    interpolation: str, step: int, span: Span, size: int
) -> None:
    """Seen from the input: the response of each output to each source pixel."""
    if interpolation != "linear" and span.start:
        span = Span(0, span.length, span.resized, span.offset)
    way = resampling(span, size, interpolation, step=step)
    source = span.start + span.length + 6
    dense = np.zeros((source, size - way.before - way.after))
    done = 0
    for block in way.blocks:
        count = block.weights.shape[1]
        assert block.start % step == 0
        assert len(block.weights) % step == 0
        assert way.start <= block.start
        assert block.start + len(block.weights) <= way.stop
        dense[block.start : block.start + len(block.weights), done : done + count] = (
            block.weights
        )
        done += count
    assert done == size - way.before - way.after
    np.testing.assert_allclose(dense.sum(axis=0), 1, atol=1e-5)
    one = resampling(
        Span(span.start, span.length, span.resized, span.offset + way.before),
        done,
        interpolation,
    )
    lines = noise(4, source, 3).astype(np.float32)
    np.testing.assert_allclose(run(lines, way), run(lines, one), atol=1)
    assert way.overshoots == bool((dense < 0).any())


def test_a_wide_side_comes_in_blocks_and_a_narrow_one_does_not() -> None:
    span = Span(0, 1280, 455, 116)
    way = resampling(span, 224, "bicubic")
    assert (way.start, way.stop) == (322, 961)
    assert [block.weights.shape[1] for block in way.blocks] == [32] * 7
    assert max(len(block.weights) for block in way.blocks) < 105
    assert len(resampling(whole(48, 28), 28, "bicubic").blocks) == 1
    assert len(resampling(whole(48, 64), 64, "lanczos").blocks) == 1


@pytest.mark.parametrize("interpolation", [*FILTERS, "linear"])
def test_what_stays_as_it_is_has_no_weights(interpolation: str) -> None:
    cut = resampling(Span(0, 40, 40, 6), 28, interpolation)
    assert (cut.start, cut.stop, cut.blocks, cut.rounds) == (6, 34, (), False)
    padded = resampling(Span(0, 20, 20, -4), 28, interpolation)
    assert (padded.start, padded.stop, padded.blocks) == (0, 20, ())
    assert (padded.before, padded.after) == (4, 4)


def test_pairs_are_not_split_though_nothing_is_resized() -> None:
    odd = resampling(Span(0, 40, 40, 7), 26, "bicubic", step=2)
    assert (odd.start, odd.stop) == (6, 34)
    lines = noise(4, 40, 0).astype(np.float32)
    assert np.array_equal(run(lines, odd), lines[:, 7:33])
    even = resampling(Span(0, 40, 40, 6), 28, "bicubic", step=2)
    assert even.blocks == ()


def test_weights_of_bilinear_halving_by_hand() -> None:
    """A triangle two source pixels wide at each side: 1/8, 3/8, 3/8, 1/8."""
    (block,) = resampling(whole(8, 4), 4, "bilinear").blocks
    assert block.weights[1:5, 1].tolist() == [0.125, 0.375, 0.375, 0.125]
    assert block.weights[:3, 0].tolist() == pytest.approx([3 / 7, 3 / 7, 1 / 7], abs=1e-6)


def test_weights_of_linear_halving_by_hand() -> None:
    """Not antialiased: the two nearest."""
    (block,) = resampling(whole(8, 4), 4, "linear").blocks
    assert block.weights[:, 1].tolist() == [0, 0, 0.5, 0.5, 0, 0, 0, 0]

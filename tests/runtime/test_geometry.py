# SPDX-License-Identifier: Apache-2.0
"""Which pixels the network sees, and in which order Pillow resizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.geometry import (
    Span,
    fill_color,
    linear_taps,
    spans,
    vertical_first,
)

FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "linear")


@given(
    resize=st.sampled_from(["crop", "stretch", "pad"]),
    interpolation=st.sampled_from(FILTERS),
    sides=st.tuples(*[st.integers(1, 300)] * 4),
    photo=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
)
def test_spans_stay_within_the_photo(
    resize: str, interpolation: str, sides: tuple[int, int, int, int], photo: tuple[int, int]
) -> None:
    preprocess = Preprocess(sides[0], sides[1], resize, sides[2], sides[3], interpolation)
    for span, side, size in zip(spans(*photo, preprocess), photo, sides[:2], strict=True):
        assert span.start >= 0
        assert span.length >= 1
        assert span.start + span.length <= side
        assert span.resized >= 1
        if span.offset < 0:  # padded alike on both sides, but for the odd one
            assert size + 2 * span.offset - span.resized in (0, 1)
        else:
            assert span.offset + min(size, span.resized) <= span.resized
        if interpolation != "linear":
            assert (span.start, span.length) == (0, side)


@given(
    photo=st.tuples(st.integers(2, 80), st.integers(2, 80)),
    box=st.tuples(st.integers(2, 80), st.integers(2, 80)),
)
def test_the_order_is_that_of_the_pillow_at_hand(
    photo: tuple[int, int], box: tuple[int, int]
) -> None:
    """Two passes, one after the other, tell which of them it makes first."""
    (height, width), (to_height, to_width) = photo, box
    pixels = np.random.default_rng(height * 100 + width).integers(
        0, 2, (height, width), np.uint8
    )
    image, lanczos = Image.fromarray(pixels * 255), Image.Resampling.LANCZOS
    made = np.asarray(image.resize((to_width, to_height), lanczos))
    across = image.resize((to_width, height), lanczos).resize((to_width, to_height), lanczos)
    down = image.resize((width, to_height), lanczos).resize((to_width, to_height), lanczos)
    rows, columns = Span(0, height, to_height, 0), Span(0, width, to_width, 0)
    assert np.array_equal(made, down if vertical_first(rows, columns) else across)


def test_taps_by_hand() -> None:
    low, high, share = linear_taps(8, 4)
    assert (low.tolist(), high.tolist()) == ([0, 2, 4, 6], [1, 3, 5, 7])
    assert share.tolist() == [0.5] * 4
    low, high, share = linear_taps(2, 4)
    assert (low.tolist(), high.tolist()) == ([0, 0, 0, 1], [1, 1, 1, 1])
    assert share.tolist() == pytest.approx([0, 0.25, 0.75, 0])
    low, high, share = linear_taps(5, 1)
    assert (low.tolist(), share.tolist()) == ([2], [0])


def test_padding_is_the_mean_colour_or_black() -> None:
    mean = (0.5, 0.25, 2.0)
    assert fill_color(Preprocess(8, 8, "pad", mean=mean)) == (128, 64, 255)
    assert fill_color(Preprocess(8, 8, "crop", mean=mean)) == (0, 0, 0)

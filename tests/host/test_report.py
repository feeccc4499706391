# SPDX-License-Identifier: Apache-2.0
"""Pages escape what they show, and charts are reproducible."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from edge_imprint import report

EVIL = '<script>alert("x")</script>&'


def test_everything_is_escaped() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    text = report.page(
        EVIL,
        EVIL,
        [
            report.cards({EVIL: EVIL}),
            report.section(EVIL, EVIL),
            report.table([EVIL], [[EVIL]]),
            report.facts({EVIL: EVIL}),
            report.gallery([pixels], [EVIL], [True]),
        ],
    )
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 13  # title twice, the gallery's caption twice


def test_facts_leave_out_what_is_unknown() -> None:
    assert "board" not in report.facts({"board": None, "cores": 2})


def test_gallery_holds_the_pixels() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    html = report.gallery([pixels], ["a"], [False])
    (data,) = re.findall(r"base64,([^\"]+)", html)
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert np.array_equal(np.asarray(image), pixels)
    assert "wrong" not in html
    assert "class=wrong" in report.gallery([pixels], ["a"], [True])


def test_table_marks_words_and_the_best() -> None:
    html = report.table(["way", "of", "n"], [["a", "b", "1"], ["c", "d", "2"]], text_columns=2)
    assert html.count("class=text") == 6
    assert "best" not in html
    assert html.count("<tr") == 3
    assert report.table(["n"], [["1"], ["2"]], best=[1]).count("<tr class=best>") == 1


def test_equal_charts_give_equal_bytes() -> None:
    def draw(axes: Axes) -> None:
        axes.plot([1, 2, 3], label="line")
        axes.legend()

    first, second = report.chart(draw), report.chart(draw)
    assert first == second
    assert first.count("<svg") == 1
    assert report.chart(draw, draw).count("<svg") == 2

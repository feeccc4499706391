# SPDX-License-Identifier: Apache-2.0
"""The page of a verification shows what was found, and loads nothing from elsewhere."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_imprint.verify_page import COLUMNS, cells, not_run, pixels_line, render
from edge_imprint_export import fuse, save
from edge_imprint_export.graph import parse
from edge_imprint_export.precision import LayerError, to_half
from edge_imprint_export.proof.result import Pixels, Way, Whole
from edge_imprint_export.proof.whole import verify_whole
from edge_imprint_runtime import Head

MakeHead = Callable[..., Head]
VOID = {"meta", "img", "br", "input", "link"}


class _Page(HTMLParser):
    """Reads a page; every tag that is opened must be closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        names = ("src", "href", "xlink:href")
        self.sources += [value or "" for name, value in attrs if name in names]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@dataclasses.dataclass(frozen=True)
class Verified:
    found: Whole
    photos: list[Path]
    model: Path
    head: Head

    def page(self, **changes: Any) -> str:
        found = dataclasses.replace(self.found, **changes)
        return render(found, self.photos, model=self.model, head=self.head)


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def verified(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_backbone: bytes,
    make_head: MakeHead,
) -> Verified:
    root, head = tmp_path_factory.mktemp("page"), make_head()
    graph = parse(tiny_backbone, "tiny")
    graph = to_half(graph) if request.param == "fp16" else graph
    model = save(fuse(graph, head, precision=request.param), root / "a <b> $m$.onnx")
    photos = []
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
        photos.append(root / f"{number}.png")
        Image.fromarray(pixels).save(photos[-1])
    given = [(path, number % 3) for number, path in enumerate(photos)]
    found = verify_whole(model, head, tiny_backbone, given)
    return Verified(found, photos, model, head)


def test_the_page_opens_offline_and_shows_all(verified: Verified) -> None:
    text = verified.page()
    page = _Page(text)
    shown = " ".join(" ".join(page.texts).split())
    assert {"script", "link", "iframe", "object"} & set(page.tags) == set()
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in page.sources)
    assert not re.search(r"url\(\s*['\"]?(?!#)", text)
    assert "Does a <b> $m$.onnx decide as its head?" in shown
    assert "passed" in page.texts
    for way in verified.found.ways:
        for cell in cells(way):
            assert cell in page.texts
    assert "None: every label is float32's." in page.texts
    assert page.tags.count("svg") == (2 if verified.found.graph.precision == "fp32" else 4)
    assert verified.head.recipe in page.texts


def test_equal_verifications_give_equal_bytes(verified: Verified) -> None:
    assert verified.page() == verified.page()


def test_what_failed_stands_first(verified: Verified) -> None:
    way = dataclasses.replace(verified.found.ways[0], passed=False)
    page = _Page(verified.page(ways=(way,)))
    assert "FAILED" in page.texts
    assert "NO" in page.texts


def test_photos_labelled_otherwise_are_shown_by_lead(verified: Verified) -> None:
    label = verified.found.label_float32.copy()
    label[[2, 5]] = (label[[2, 5]] + 1) % 3
    margin = np.linspace(0.1, 0.8, 8)
    verified.photos[5].unlink(missing_ok=True)  # it was there a minute ago: a grey tile
    page = _Page(verified.page(label=label, margin=margin, rows=tuple(range(8))))
    captions = [text for text in page.texts if "(lead " in text]
    assert [caption[-10:] for caption in captions] == ["(lead 0.6)", "(lead 0.3)"]
    assert page.tags.count("img") == 2


def test_many_layers_show_the_worst(verified: Verified) -> None:
    layers = tuple(LayerError(f"layer$_{i}", "Conv", i / 50, i / 100) for i in range(39))
    layers += (LayerError("layer$_39", "Exp", math.inf, math.inf),)  # an overflow
    page = _Page(verified.page(layers=layers))
    named = [text for text in page.texts if re.fullmatch(r"layer\$_\d+", text)]
    assert named == [f"layer$_{i}" for i in range(39, 24, -1)]


def test_rows_of_the_table() -> None:
    asked = Way("w", "photos", failed="It broke.", passed=False)
    assert cells(asked) == ["w", "photos", "-", "-", "-", "-", "NO"]
    lacks = Way("e", "photos", failed="No such operator.")
    assert cells(lacks)[-1] == "not run"
    assert len(cells(lacks)) == len(COLUMNS)


def test_lines_of_the_command(verified: Verified) -> None:
    lacks = Way("e", "photos", failed="No such operator.")
    found = dataclasses.replace(
        verified.found, ways=(lacks, dataclasses.replace(lacks, inputs="random"))
    )
    assert not_run(found) == ["e: No such operator"]
    assert pixels_line(found) == ""
    seen = dataclasses.replace(found, pixels=Pixels(3, 0.9995, 2.0, True))
    assert pixels_line(seen) == (
        "3 camera frames: 99.950% of the pixels made of them within one grey level of "
        "Pillow's, at most 2 off"
    )
    assert pixels_line(seen) + "." in " ".join(_Page(verified.page(pixels=seen.pixels)).texts)

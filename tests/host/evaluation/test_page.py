# SPDX-License-Identifier: Apache-2.0
"""The page of an evaluation: well-formed, self-contained, for 2 classes and for 60."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from edge_imprint.evaluation.evaluate import evaluate
from edge_imprint.evaluation.page import cells, not_run, render, worst_first
from edge_imprint.evaluation.result import Evaluation, Row

EVIL = '<script>alert("x")</script>&$x^2$'
VOID = {"meta", "img", "br", "hr", "link", "input"}


class _Page(HTMLParser):
    """Reads a page; every tag that is opened must be closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "href", "xlink:href", "data", "poster"):
                self.sources.append(value or "")
            assert not name.startswith("on")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(text: str) -> _Page:
    page = _Page(text)
    assert {"script", "link", "iframe", "object"} & set(page.tags) == set()
    for source in page.sources:  # within the page, or in it
        assert source.startswith(("data:image/png;base64,", "#")), source
    assert not re.search(r"url\(\s*['\"]?(?!#)", text)
    assert "@import" not in text
    return page


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Three digits as photos, the name of one being evil."""
    root, data = tmp_path_factory.mktemp("digits"), load_digits()
    chosen = np.flatnonzero(np.isin(data.target, (1, 7, 8)))[:60]
    paths = []
    for number in chosen:
        paths.append(str(root / f"{number}.png"))
        Image.fromarray((data.images[number] * 15).astype(np.uint8)).save(paths[-1])
    index = np.searchsorted((1, 7, 8), data.target[chosen])
    return evaluate(data.data[chosen], index, ["one", EVIL, "eight"], paths=paths)


@pytest.fixture(scope="module")
def many() -> Evaluation:
    rng = np.random.default_rng(0)
    index = np.repeat(np.arange(40), 5)
    rows = 2 * rng.standard_normal((40, 6))[index] + rng.standard_normal((200, 6))
    return evaluate(rows, index, [f"class {c}" for c in range(40)], folds=3)


@pytest.fixture(scope="module")
def two() -> Evaluation:
    rng = np.random.default_rng(0)
    index = np.repeat([0, 1], 8)
    rows = 5 * np.eye(4)[index] + rng.standard_normal((16, 4))
    return evaluate(rows, index, ["a", "b"], paths=[f"photo-{n}" for n in range(16)])


def test_pictures_are_in_the_page(digits: Evaluation) -> None:
    text = render(digits, title=EVIL, commands=["edge-imprint build x"], pictures=True)
    page = checked(text)
    assert page.tags.count("svg") == 4  # by k, by shots, two maps
    assert page.tags.count("img") >= 24  # nearest and farthest, four each, of three classes
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 5
    assert "<pre>edge-imprint build x</pre>" in text


def test_every_row_is_in_the_table(digits: Evaluation) -> None:
    text = render(digits, title="digits")
    for row in digits.rows:
        assert row.name in text
        assert f"<td>{100 * (row.accuracy or 0):.1f} %</td>" in text
    assert text.count("<tr class=best>") == 1
    assert f"Recommended: {digits.recommendation.row}" in text


def test_a_picture_that_is_gone_is_a_grey_tile(digits: Evaluation) -> None:
    gone = Evaluation(
        **{**digits.__dict__, "paths": tuple(f"{path}.gone" for path in digits.paths or ())}
    )
    checked(render(gone, title="digits", pictures=True))


def test_two_classes_and_no_pictures(two: Evaluation) -> None:
    text = render(two, title="two")
    page = checked(text)
    assert "img" not in page.tags
    assert "photo-3" in text
    assert "takes three classes or more" in text


def test_many_classes_show_the_most_confused(many: Evaluation) -> None:
    text = render(many, title="many")
    checked(text)
    assert "Of 40 classes the 20 with most confusions." in text
    (matrix,) = re.findall(r'<div class="wide heat">.*?</table>', text)
    assert matrix.count("<tr>") == 21
    assert matrix.count("<th><span>") == 21  # 20 and all others
    shown = [int(n) for n in re.findall(r"<td[^>]*>(\d+)</td>", matrix)]
    wrong = many.confusion - np.diag(np.diag(many.confusion))
    order = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")[:20]
    assert sum(shown) == many.confusion[order].sum()
    assert "row " in text  # rows by number, where there are no paths


def test_worst_first(many: Evaluation) -> None:
    recalls = [many.recall[c] for c in worst_first(many)]
    assert recalls == sorted(recalls, key=lambda r: r or 0)
    assert sorted(worst_first(many)) == list(range(40))


def test_equal_evaluations_give_equal_bytes(two: Evaluation) -> None:
    assert render(two, title="two") == render(two, title="two")


def test_cells() -> None:
    row = Row("way", "k", note="a note", accuracy=0.5, low=0.25, high=0.75)
    row = Row(**{**row.__dict__, "balanced_accuracy": 0.4, "make_s": 1.234, "proxies": 7})
    row = Row(**{**row.__dict__, "head_bytes": 12_345})
    assert cells(row) == [
        "way (a note)",
        "50.0 %",
        "25.0 to 75.0",
        "40.0 %",
        "1.23 s",
        "12 kB",
        "7",
    ]
    failed = Row("way", "k", failed="too few")
    assert cells(failed) == ["way", "not run", "-", "-", "-", "-", "-"]


def test_what_was_not_run_is_on_the_page(two: Evaluation) -> None:
    rows = (*two.rows, Row("broken", "k", failed="too few images"))
    changed = Evaluation(**{**two.__dict__, "rows": rows})
    assert not_run(changed) == ["broken: too few images"]
    text = render(changed, title="two")
    checked(text)
    assert "<p>Not run: broken: too few images.</p>" in text


def test_confused_pairs_and_taken_for(two: Evaluation) -> None:
    confusion = np.array([[5, 2, 0], [1, 4, 0], [0, 1, 7]])
    changed = Evaluation(**{**two.__dict__, "confusion": confusion})
    assert changed.confused_pairs(5) == [(0, 1, 3), (1, 2, 1)]
    assert changed.confused_pairs(1) == [(0, 1, 3)]
    assert changed.taken_for(0) == (1, 2)
    assert changed.taken_for(2) == (1, 1)
    assert (
        Evaluation(**{**two.__dict__, "confusion": np.eye(2, dtype=int)}).taken_for(0) is None
    )


def test_photos_of_any_shape_become_square(tmp_path: Path, two: Evaluation) -> None:
    paths = []
    for number in range(16):
        path = tmp_path / f"{number}.jpg"
        Image.new("RGB", (300, 40 + 20 * number), (10 * number, 90, 90)).save(path)
        paths.append(str(path))
    changed = Evaluation(**{**two.__dict__, "paths": tuple(paths)})
    page = checked(render(changed, title="two", pictures=True))
    assert "img" in page.tags

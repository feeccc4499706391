# SPDX-License-Identifier: Apache-2.0
"""The demonstration reaches its figures, and its page holds what it shows."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from edge_imprint.demo import KS, TASKS, run_demo
from edge_imprint_runtime import Head, open_model
from edge_imprint_runtime.errors import OutputWriteError


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    folder = tmp_path_factory.mktemp("demo") / "out"
    steps: list[str] = []

    def tell(step: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        steps.append(step)

    return folder, run_demo(folder, tell), steps


def accuracy(report: dict[str, Any], task: str, method: str) -> float:
    (row,) = [
        row
        for row in report["comparison"]
        if row["task"] == task and row["method"].startswith(method)
    ]
    return float(row["accuracy"])


def test_kmeans_reaches_its_figures(demo: tuple[Path, dict[str, Any], list[str]]) -> None:
    _, report, _ = demo
    for task in TASKS:
        assert accuracy(report, task, "k-means") >= 0.975, task
    assert 0.92 <= accuracy(report, "ten digits", "mean") <= 0.985
    # Classes of several modes: their mean must fall well behind.
    for task in ("odd / even", "digit mod 3"):
        gain = accuracy(report, task, "k-means") - accuracy(report, task, "mean")
        assert gain >= 0.07, task
    assert report["model"]["accuracy"] == accuracy(report, "ten digits", "k-means")


def test_it_knows_what_it_does_not_know(
    demo: tuple[Path, dict[str, Any], list[str]],
) -> None:
    _, report, _ = demo
    unknown = report["unknown"]
    assert unknown["photos_of_known"] + unknown["photos_of_unknown"] == 697
    assert unknown["false_alarm"] <= 0.08
    assert unknown["detected"] >= 0.7
    assert unknown["auroc"] >= 0.95
    above = (np.array(unknown["margin_of_known"]) >= 0).mean()
    assert above == pytest.approx(1 - unknown["false_alarm"])


def test_photos_are_the_digits(demo: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, report, _ = demo
    data = load_digits()
    files = sorted((folder / "photos").glob("*/*/*.png"), key=lambda file: file.name)
    assert len(files) == len(data.images) == 1_797
    assert [int(file.parent.name) for file in files] == data.target.tolist()
    with Image.open(files[5]) as image:
        assert np.array_equal(np.asarray(image), np.round(data.images[5] * 255 / 16))
    assert report["photos_imprinted"] + report["photos_held_out"] == 1_797


def test_verified_and_measured(demo: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, report, _ = demo
    checked = report["verification"]
    assert checked["images"] == 1_797
    assert checked["agreement"] == 1.0
    assert checked["max_difference"] <= 1e-4
    for series in report["latency"]["series"]:
        assert len(series["samples_ns"]) == series["iterations"] >= 1_000
    assert json.loads((folder / "report.json").read_text())["schema"] == "edge-imprint.demo/1"
    assert set(report["accuracy_by_k"]["odd / even"]) == set(KS)


def test_files_work_on_their_own(demo: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, _, _ = demo
    head = Head.load(folder / "digits.imprint")
    model = open_model(folder / "digits.onnx", "cpu")
    assert model.labels == head.labels == tuple("0123456789")
    sevens = sorted((folder / "photos" / "held_out" / "7").iterdir())
    labels = [answer.label for answer in model.predict(sevens)]
    assert labels.count("7") >= 0.95 * len(labels)


def test_progress_names_every_step(demo: tuple[Path, dict[str, Any], list[str]]) -> None:
    _, _, steps = demo
    assert list(dict.fromkeys(steps)) == [
        "writing photos",
        "loading the backbone",
        "reading",
        "embedding",
        "imprinting",
        "looking for suspects",
        "exporting",
        "comparing",
        "accuracy by k",
        "showing it what it does not know",
        "measuring latency",
    ]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "srcset")]


def test_page_is_self_contained(demo: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, report, _ = demo
    text = (folder / "report.html").read_text()
    page = _Page()
    page.feed(text)
    assert page.tags.count("svg") == 6
    assert page.tags.count("img") >= 30
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not re.search(r"url\(\s*['\"]?http", text)
    for row in report["comparison"]:
        assert f"{100 * row['accuracy']:.1f} %" in text


def test_running_again_replaces(demo: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, _, _ = demo
    before = (folder / "digits.onnx").read_bytes()
    run_demo(folder, lambda step, done, total: None)
    assert (folder / "digits.onnx").read_bytes() == before
    assert not list(folder.glob(".*.tmp"))


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "taken"
    file.write_text("mine")
    with pytest.raises(OutputWriteError, match=f"cannot write the demo into {file}"):
        run_demo(file, lambda step, done, total: None)
    assert file.read_text() == "mine"

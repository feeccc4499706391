# SPDX-License-Identifier: Apache-2.0
"""What `evaluate` finds in small and awkward data, and what was hidden there."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_imprint.evaluation.evaluate import evaluate
from edge_imprint.evaluation.result import as_json


def blobs(sizes: list[int], dim: int = 6, seed: int = 0) -> tuple[Any, Any, list[str]]:
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(len(sizes)), sizes)
    rows = 4 * rng.standard_normal((len(sizes), dim))[index]
    return rows + rng.standard_normal(rows.shape), index, [f"c{i}" for i in range(len(sizes))]


def test_a_class_of_one_image_is_not_held_out() -> None:
    found = evaluate(*blobs([1, 6, 5]), folds=3)
    assert found.folds == 3
    assert found.answers.row.tolist() == list(range(1, 12))
    assert found.recall[0] is None
    assert found.unknown_auroc[0] is None
    assert as_json(found)["per_class"][0]["accuracy"] is None


def test_two_classes_have_no_unknowns() -> None:
    found = evaluate(*blobs([8, 8]))
    assert found.unknown_auroc == (None, None)
    assert found.calibration.auroc is None


def test_few_images_make_every_image_a_proxy() -> None:
    found = evaluate(*blobs([3, 3, 3]))
    names = [row.name for row in found.rows]
    assert "imprint, k = 5" not in names
    (row,) = [row for row in found.rows if row.name == "imprint, k = 20"]
    assert row.note == "each image is a proxy"
    assert row.proxies == 9


def test_a_row_that_cannot_run_says_why() -> None:
    # Of two images a class one is held out, and k can't be chosen on the other.
    found = evaluate(*blobs([2, 2]))
    reason = (
        "k can be chosen only where a class has two different images to learn from, so that "
        "one can be held out; add images, or give a number of proxies"
    )
    failed = {row.name: row.failed for row in found.rows if row.failed is not None}
    assert failed == {"imprint, auto": reason, "whitened, auto": reason}
    row = next(row for row in found.rows if row.failed is not None)
    assert (row.accuracy, row.make_s, row.head_bytes, row.proxies) == (None,) * 4
    assert found.recommendation.row not in failed
    assert found.more_photos == (
        "There are too few images a class to tell whether more would pay."
    )
    assert [(point.name, point.n) for point in found.shots] == [
        ("qi2018", 1),
        ("imprint", 1),
        ("whitened", 1),
    ]


def test_mislabelled_and_duplicated_images_are_found() -> None:
    rows, index, labels = blobs([30, 30, 30], dim=12)
    index[[4, 50]] = 2
    rows = np.vstack([rows, rows[70] * (1 + 1e-5)])
    index = np.append(index, 0)
    found = evaluate(rows, index, labels)
    assert {4, 50} <= {suspect.row for suspect in found.suspects}
    assert found.suspects_total <= 5
    (pair,) = found.duplicates
    assert (pair.first, pair.second) == (70, 90)
    assert (pair.first_class, pair.second_class) == (2, 0)
    assert pair.distance < 1e-5


def test_whitening_is_recommended_where_it_pays() -> None:
    # One direction of huge spread within the classes, which says nothing of the class.
    rng = np.random.default_rng(0)
    index = np.repeat(np.arange(4), 40)
    rows = rng.standard_normal((160, 8)) + 3 * np.eye(8)[index]
    rows[:, 7] *= 40
    found = evaluate(rows, index, list("abcd"))
    assert found.recommended.family == "whitened"
    accuracy = {row.name: row.accuracy or 0 for row in found.rows}
    assert accuracy["whitened, k = 1"] > accuracy["qi2018"] + 0.3


def test_classes_along_one_line_need_a_distance() -> None:
    # No angle tells them apart, so that every recipe with L2 is at a loss.
    rng = np.random.default_rng(0)
    index = np.repeat(np.arange(3), 40)
    rows = np.outer(1 + 3 * index, np.ones(4)) + 0.3 * rng.standard_normal((120, 4))
    found = evaluate(rows, index, list("abc"))
    assert found.recommendation.row == "janson2022"
    assert found.recommended.accuracy == 1.0

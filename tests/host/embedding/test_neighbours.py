# SPDX-License-Identifier: Apache-2.0
"""Near-duplicates and suspects: on real digits, and where what is odd was hidden."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from edge_imprint import load_backbone
from edge_imprint.embedding import neighbours as module
from edge_imprint.embedding.embedders import ort_embedder
from edge_imprint.embedding.neighbours import (
    NEAR,
    Neighbours,
    Suspect,
    exact_distance,
    find_neighbours,
)
from edge_imprint_runtime.images import photo_pixels

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Digests = npt.NDArray[np.uint8]
Embed = Callable[[list[Image.Image]], Float32]


def digests_of(rows: Float32) -> Digests:
    found = [hashlib.sha256(row.tobytes()).digest() for row in rows]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 32)


def look(rows: Float32, index: Int64, digests: Digests | None = None) -> Neighbours:
    """Look for what is odd; without digests all contents differ."""
    if digests is None:
        numbers = np.arange(len(rows))[:, np.newaxis]
        digests = digests_of(numbers.astype(np.float32))
    return find_neighbours(lambda at: rows[at], index, digests)


@pytest.fixture(scope="module")
def embed() -> Embed:
    backbone = load_backbone("demo")
    embedder = ort_embedder(backbone, "cpu")

    def of(images: list[Image.Image]) -> Float32:
        pixels = [photo_pixels(image, backbone.info.preprocess) for image in images]
        parts = [np.stack(pixels[i : i + 32]) for i in range(0, len(pixels), 32)]
        return np.concatenate([embedder(part) for part in parts])

    return of


@pytest.fixture(scope="module")
def digits(embed: Embed) -> tuple[Float32, Int64]:
    """All 1,797 of scikit-learn's digits on the demo's backbone, and their classes."""
    data = load_digits()
    pixels = np.round(data.images * (255 / 16)).astype(np.uint8)
    return embed([Image.fromarray(image) for image in pixels]), data.target


def blobs(n: int = 60, classes: int = 3, seed: int = 0) -> tuple[Float32, Int64]:
    rng = np.random.default_rng(seed)
    index = np.arange(n) % classes
    rows = 4 * rng.standard_normal((classes, 16))[index] + rng.standard_normal((n, 16))
    return rows.astype(np.float32), index


# On real photos ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_two_percent_of_wrong_labels_are_found(
    digits: tuple[Float32, Int64], seed: int
) -> None:
    rows, truth = digits
    rng = np.random.default_rng(seed)
    flipped = rng.permutation(len(rows))[: len(rows) // 50]
    index = truth.copy()
    index[flipped] = (truth[flipped] + rng.integers(1, 10, len(flipped))) % 10
    found = look(rows, index)
    said = {suspect.photo for suspect in found.suspects}
    hit = said & set(flipped.tolist())
    assert found.suspect_count == len(said)
    assert len(hit) >= 0.9 * len(said)  # precision
    assert len(hit) >= 0.9 * len(flipped)  # recall
    for suspect in found.suspects:
        assert suspect.own_class == index[suspect.photo]
        assert index[suspect.neighbour] == suspect.other_class != suspect.own_class
        a, b = rows[suspect.photo].astype(float), rows[suspect.neighbour].astype(float)
        expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert suspect.similarity == pytest.approx(expected, abs=1e-5)
    right = sum(s.other_class == truth[s.photo] for s in found.suspects)
    assert right >= 0.9 * len(said)


def test_clean_digits_raise_hardly_an_alarm(digits: tuple[Float32, Int64]) -> None:
    found = look(*digits)
    assert found.suspect_count <= 2
    assert found.duplicate_count == 0
    assert found.compared == 1797


def test_classes_that_overlap_raise_hardly_an_alarm() -> None:
    # Neighbours say next to nothing here: half of the nearest are of another class.
    rng = np.random.default_rng(0)
    rows, index = rng.standard_normal((1_500, 64)), rng.integers(0, 10, 1_500)
    rows += 0.6 * rng.standard_normal((10, 64))[index]
    assert look(rows.astype(np.float32), index).suspect_count <= 15


def stored_again(image: Image.Image) -> dict[str, Image.Image]:
    kept = io.BytesIO()
    image.save(kept, "JPEG", quality=60)
    half = image.width // 2, image.height // 2
    return {
        "JPEG": Image.open(kept),
        "half the size": image.resize(half, Image.Resampling.BOX),
    }


@pytest.mark.parametrize("way", ["JPEG", "half the size"])
def test_a_photo_stored_again_is_found(embed: Embed, way: str) -> None:
    rng, images = np.random.default_rng(0), []
    for pixels in load_sample_images().images:
        whole = Image.fromarray(pixels)
        for _ in range(40):
            x, y = rng.integers(0, whole.width - 160), rng.integers(0, whole.height - 160)
            images.append(whole.crop((int(x), int(y), int(x) + 160, int(y) + 160)))
    again = [stored_again(image)[way] for image in images[::8]]
    index = np.r_[np.repeat([0, 1], 40), np.zeros(10, np.int64)]
    rows = embed(images + again)
    found = look(rows, index)
    pairs = {(d.first, d.second) for d in found.duplicates}
    hidden = {(8 * i, 80 + i) for i in range(10)}
    assert len(hidden & pairs) >= 9
    # Crops of one photo may overlap; no others than crops of one photo are all but the same.
    assert all(
        d.first // 40 == (8 * (d.second - 80)) // 40
        for d in found.duplicates
        if d.second >= 80
    )
    assert found.duplicates[0].contradiction
    assert found.contradiction_count >= 4
    assert not any(d.exact for d in found.duplicates)


# What was hidden ---------------------------------------------------------------------------


def test_same_bytes_contradictions_first() -> None:
    rows, index = blobs()
    near = (rows[7] * (1 + 1e-3 * np.sign(rows[3]))).astype(np.float32)
    rows = np.concatenate([rows, rows[[0, 0, 5]], near[np.newaxis]])
    index = np.r_[index, 0, 1, 2, 1]
    found = look(rows, index, digests_of(rows))
    told = [(d.first, d.second, d.exact, d.contradiction) for d in found.duplicates]
    assert told == [
        (0, 61, True, True),
        (0, 60, True, False),
        (5, 62, True, False),
        (7, 63, False, False),
    ]
    assert (found.duplicate_count, found.contradiction_count) == (4, 1)
    assert [d.similarity for d in found.duplicates[:3]] == [1.0, 1.0, 1.0]
    assert 0.999 < found.duplicates[3].similarity < 1
    first = found.duplicates[0]
    assert (first.first_class, first.second_class) == (0, 1)


def test_a_copy_does_not_vouch_for_its_copy() -> None:
    rows, index = blobs()
    rows = np.concatenate([rows, rows[:1]])
    index = np.r_[index, 0]
    index[[0, 60]] = 1  # the same photo twice, both times under the wrong class
    found = look(rows, index, digests_of(rows))
    assert [(s.photo, s.own_class, s.other_class) for s in found.suspects] == [(0, 1, 0)]


def test_lists_are_cut_and_counts_are_not() -> None:
    rows, index = blobs(400, 4)
    rows = np.concatenate([rows, rows[:150]])
    index = np.r_[index, index[:150]]
    found = look(rows, index, digests_of(rows))
    assert (len(found.duplicates), found.duplicate_count) == (100, 150)


def test_small_classes_have_no_suspects() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20, 8)).astype(np.float32)
    rows[18] = rows[0] + 0.5  # of a class of two
    index = np.r_[np.repeat([0, 1, 2], 6), 3, 3]
    assert all(s.own_class != 3 for s in look(rows, index).suspects)
    for few in (1, 2, 3):  # fewer rows than neighbours are asked for
        found = look(rows[:few], np.arange(few))
        assert (found.suspects, found.duplicates) == ((), ())


def test_one_class_and_rows_that_are_all_equal() -> None:
    rows = np.ones((30, 4), np.float32)
    found = look(rows, np.zeros(30, np.int64))
    assert found.suspect_count == 0
    assert found.duplicate_count >= 29
    assert all(d.similarity == 1 and not d.exact for d in found.duplicates)


@pytest.mark.parametrize("compared", [10, 30, 59])
def test_more_photos_than_are_compared(compared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, index = blobs(60)
    index[[0, 16, 32]] = [1, 2, 0]  # of three classes, so that none vouches for another
    whole = look(rows, index)
    monkeypatch.setattr(module, "_COMPARED", compared)
    part = look(rows, index)
    assert part.compared <= compared
    assert whole.compared == 60
    if compared >= 30:
        assert {s.photo for s in part.suspects} <= {s.photo for s in whole.suspects}
        assert {0, 16, 32} <= {s.photo for s in part.suspects}


def test_the_draw_is_even_by_class_and_by_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMPARED", 25)
    index = np.repeat([0, 1, 2], [100, 4, 50])
    digests = digests_of(np.arange(154, dtype=np.float32)[:, np.newaxis])
    drawn = module._evenly(np.arange(154), index, digests, 0)
    assert np.bincount(index[drawn]).tolist() == [10, 4, 10]
    order = np.random.default_rng(0).permutation(154)
    again = module._evenly(np.arange(154), index[order], digests[order], 0)
    assert set(order[again]) == set(drawn)
    many = np.arange(154)  # more classes than may be drawn
    assert len(module._evenly(many, many, digests, 0)) == 25


def test_order_changes_positions_only() -> None:
    rows, index = blobs(90)
    index[::20] = (index[::20] + 1) % 3
    order = np.random.default_rng(1).permutation(90)
    digests = digests_of(rows)
    one, other = look(rows, index, digests), look(rows[order], index[order], digests[order])
    assert one.suspect_count == other.suspect_count > 0

    def named(suspect: Suspect, names: Int64) -> tuple[int, int, int]:
        return int(names[suspect.photo]), suspect.own_class, suspect.other_class

    assert [named(s, np.arange(90)) for s in one.suspects] == [
        named(s, order) for s in other.suspects
    ]


def test_distances_of_what_is_all_but_the_same() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3_000, 8))
    rows[1_500:] = rows[:1_500] + 1e-5 * rng.standard_normal((1_500, 8))
    rows = rows.astype(np.float32)
    first, second = np.arange(1_500), np.arange(1_500, 3_000)
    unit = (
        rows.astype(np.float64)
        / np.linalg.norm(rows.astype(np.float64), axis=1)[:, np.newaxis]
    )
    expected = np.linalg.norm(unit[first] - unit[second], axis=1)
    found = exact_distance(lambda at: rows[at], first, second)
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=1e-8)
    assert 0 < NEAR < 0.47  # the nearest two of the digits; see the constant's comment

# SPDX-License-Identifier: Apache-2.0
"""Photos left out by their content: the same ones wherever the folder goes."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge_imprint.builder import build
from edge_imprint.embedding.digests import read_digests
from edge_imprint.hold_out import (
    digest_of,
    held_out_share,
    hold_out,
    share_note,
    without,
)
from edge_imprint.photos import Photos, find_photos
from edge_imprint_runtime import Head
from edge_imprint_runtime.errors import ParameterError


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label in ("dark", "light"):
        (folder / label).mkdir()
        for number in range(60):
            low, high = (0, 120) if label == "dark" else (130, 250)
            pixels = rng.integers(low, high, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def test_digests_are_of_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"some photo")
    digest = hashlib.sha256(b"some photo").hexdigest()
    assert [*read_digests([file, tmp_path / "absent"])] == [bytes.fromhex(digest), None]


def chosen(photos: Photos, share: float) -> npt.NDArray[np.bool_]:
    return hold_out(photos, share, read_digests(photos.paths))


def test_the_lowest_digests_are_held_out(photos: Path) -> None:
    found = find_photos(photos)
    digests = read_digests(found.paths)
    lowest = [digest is not None and digest < bytes([64]) + bytes(31) for digest in digests]
    np.testing.assert_array_equal(hold_out(found, 0.25, digests), lowest)


def test_share_is_about_what_was_asked_for_and_names_do_not_matter(
    photos: Path, tmp_path: Path
) -> None:
    found = find_photos(photos)
    out = chosen(found, 0.2)
    assert 12 <= out.sum() <= 36  # 24 +- 12 of 120
    moved = tmp_path / "elsewhere"
    for number, (path, index) in enumerate(zip(found.paths, found.class_index, strict=True)):
        target = moved / found.labels[index] / f"renamed{number:04}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    again = find_photos(moved)
    held = {p.read_bytes() for p, o in zip(found.paths, out, strict=True) if o}
    other = chosen(again, 0.2)
    assert held == {p.read_bytes() for p, o in zip(again.paths, other, strict=True) if o}


def test_more_is_held_out_of_the_same(photos: Path) -> None:
    found = find_photos(photos)
    little, much = chosen(found, 0.1), chosen(found, 0.4)
    assert (much >= little).all() and much.sum() > little.sum()
    assert not chosen(found, 0).any()


def test_a_class_is_never_held_out_whole(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    for label in "ab":
        (folder / label).mkdir(parents=True)
    for number in range(200):  # one photo whose digest is low, in a class of its own
        photo = folder / "a" / "1.png"
        Image.new("RGB", (8, 8), (number, 1, 2)).save(photo)
        if photo.read_bytes() and hashlib.sha256(photo.read_bytes()).digest()[0] < 70:
            break
    for number in range(20):
        Image.new("RGB", (8, 8), (number, 9, 9)).save(folder / "b" / f"{number}.png")
    found = find_photos(folder)
    out = chosen(found, 0.3)
    assert not out[0]
    assert out[1:].any()


@pytest.mark.parametrize("share", [-0.1, 0.51, 1, float("nan")])
def test_no_share(photos: Path, share: float) -> None:
    with pytest.raises(ParameterError) as caught:
        build(photos, backbone="demo", hold_out=share)
    assert str(caught.value) == f"hold_out must be a share from 0 to 0.5, got {share}"


def test_note() -> None:
    assert share_note(0) == {}
    assert held_out_share(()) == 0
    assert held_out_share(tuple(share_note(0.15).items())) == 0.15
    assert held_out_share((("hold_out", "share=2"),)) == 0


def test_build_leaves_them_out(photos: Path, tmp_path: Path) -> None:
    """The head is the one of a folder that never had them."""
    made = build(photos, backbone="demo", hold_out=0.25, out=tmp_path / "a.imprint")
    found = find_photos(photos)
    out = chosen(found, 0.25)
    assert made.held_out == out.sum() > 0
    assert made.images == (~out).sum()
    rest = tmp_path / "rest"
    kept = without(found, out)
    for path, index in zip(kept.paths, kept.class_index, strict=True):
        (rest / kept.labels[index]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, rest / kept.labels[index] / path.name)
    other = build(rest, backbone="demo")
    np.testing.assert_array_equal(made.head.proxies, other.head.proxies)
    read = Head.load(tmp_path / "a.imprint")
    assert held_out_share(read.notes) == 0.25
    digest = digest_of(read_digests(kept.paths))
    assert dict(read.notes)["build"] == f"photos={made.images} sha256={digest} seed=0"
    assert digest_of(reversed(read_digests(find_photos(rest).paths))) == digest
    assert digest_of(read_digests(kept.paths[1:])) != digest

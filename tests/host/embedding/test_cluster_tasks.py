# SPDX-License-Identifier: Apache-2.0
"""What the machines of a cluster do, run here: tables of locations, photos read, embedded."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.backbones import Backbone
from edge_imprint.embedding.cluster_tasks import (
    absolute,
    imprint_group,
    location_table,
    locations,
    read_photos,
)
from edge_imprint.imprinting.proxies import generate
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.photos.locations import Location, Member, Remote
from edge_imprint_runtime.errors import EmbeddingError
from edge_imprint_runtime.images import decode_photo

pytest.importorskip("pyarrow", reason="the extra `ray` is not installed")

# Linux takes any bytes but these in a file's name.
_NAMES = st.binary(min_size=1, max_size=20).map(
    lambda name: os.fsdecode(name.replace(b"\0", b"-").replace(b"/", b"-"))
)
_PATHS = _NAMES.map(lambda name: Path("/photos") / f"-{name}")
_REMOTES = _NAMES.map(lambda name: Remote(f"s3://bucket/{name}"))
_MEMBERS = st.builds(
    Member, _PATHS | _REMOTES, _NAMES, st.integers(0, 2**62), st.integers(0, 2**31)
)


@given(st.lists(_PATHS | _REMOTES | _MEMBERS, max_size=8))
def test_locations_come_back_from_a_table(photos: list[Location]) -> None:
    table = location_table(range(5, 5 + len(photos)), photos)
    assert locations(table) == photos
    assert table.column("index").to_pylist() == list(range(5, 5 + len(photos)))


def test_a_relative_path_is_named_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos: list[Location] = [
        Path("a/b.png"),
        Member(Path("c.tar"), "d.png", 0, 1),
        Remote("s3://e/f"),
    ]
    there = locations(location_table(range(3), photos))
    assert there == [
        tmp_path / "a/b.png",
        Member(tmp_path / "c.tar", "d.png", 0, 1),
        photos[2],
    ]
    assert [str(photo) for photo in there] == [absolute(photo) for photo in photos]


def test_photos_are_read_hashed_and_decoded(photos_folder: Path, network: Backbone) -> None:
    good = sorted((photos_folder / "red").iterdir())[:3]
    missing = photos_folder / "red" / "none.png"
    p = network.info.preprocess
    table = read_photos(
        location_table([7, 3, 9, 1], [good[0], missing, good[1], good[2]]), p, "exact"
    )
    assert table.column("index").to_pylist() == [7, 9, 1, 3]
    problems = table.column("problem").to_pylist()
    assert problems[:3] == [None] * 3
    assert b"cannot read the image" in problems[3]
    assert str(missing).encode() in problems[3]
    for row, file in enumerate(good):
        data = file.read_bytes()
        assert table.column("digest")[row].as_py() == hashlib.sha256(data).digest()
        pixels = decode_photo(data, p, name=str(file), decode="exact")
        assert table.column("pixels")[row].as_py() == pixels.tobytes()


def test_a_group_of_classes_is_clustered_as_all_are() -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((90, 6)).astype(np.float32)
    index = np.repeat(np.arange(3), 30)
    weights = rng.uniform(0.5, 2, 90)
    source, ks = ByClass(rows, index, weights), [2, 5, 1]
    whole = generate(source, "kmeans", ks, 4)
    for chosen in ([1], [2, 0]):
        group = [(c, *source[c], ks[c]) for c in chosen]
        for c, made in imprint_group(group, "kmeans", 4):
            assert made.tobytes() == whole[c].tobytes()


def test_a_group_names_the_class_that_is_wrong() -> None:
    rows = np.ones((4, 2), np.float32)
    bad = rows.copy()
    bad[2] = np.nan
    with pytest.raises(EmbeddingError, match="row 2 of class 17"):
        imprint_group([(16, rows, None, 1), (17, bad, None, 1)], "mean", 0)

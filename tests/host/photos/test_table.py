# SPDX-License-Identifier: Apache-2.0
"""Many locations in little memory: the same ones come out, in any order, anywhere."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.photos import Location, Member, Photos, Readable, Remote, find_photos
from edge_imprint.photos.locations import MAX_PHOTO_BYTES
from edge_imprint.photos.table import Files, Locations, Members, Texts

encoded = st.binary(max_size=20).map(lambda data: data.replace(b"\0", b"").replace(b":", b""))


def members(count: int = 5) -> Members:
    shards = [Path("x-0.tar"), Remote("s3://b/x-1.tar", 10, "tag")]
    return Members(
        shards,
        np.arange(count, dtype=np.int32) % 2,
        Texts([b"%d.jpg" % i for i in range(count)]),
        np.stack([np.arange(count) * 512, np.arange(count) + 7], axis=1),
    )


def objects() -> Files:
    names = Texts([b"a/1.jpg", b"s3://other/2.jpg", b"b/3.jpg"])
    sizes = np.array([10, -1, 30], np.int64)
    return Files("s3://bucket/photos", names, sizes, Texts([b"one", b"", b"three"]))


@given(st.lists(encoded), st.data())
def test_texts_keep_every_byte(texts: list[bytes], data: st.DataObject) -> None:
    made = Texts(texts)
    assert len(made) == len(texts)
    assert [made[i] for i in range(len(made))] == [os.fsdecode(text) for text in texts]
    positions = st.lists(st.integers(0, len(texts) - 1)) if texts else st.just([])
    chosen = data.draw(positions)
    some = made.take(np.array(chosen, np.int64))
    assert [some.encoded(i) for i in range(len(some))] == [texts[i] for i in chosen]
    cut = data.draw(st.integers(0, len(texts)))
    both = Texts.joined([Texts(texts[:cut]), Texts([]), Texts(texts[cut:])])
    assert [both.encoded(i) for i in range(len(both))] == texts


def test_files_are_paths_below_their_home() -> None:
    made = Files(
        Path("/data"), Texts([b"a/1.png", b"/else/2.png", b"caf\xe9.png", b"gs://x/y"])
    )
    want = (
        Path("/data/a/1.png"),
        Path("/else/2.png"),
        Path(os.fsdecode(b"/data/caf\xe9.png")),
        Remote("gs://x/y"),
    )
    assert made == want
    assert made[-1] == want[-1]
    assert made[1:3] == want[1:3]
    assert made[::-1] == want[::-1]
    assert list(made) == list(want)
    assert made != want[:3]
    assert made != "four"
    for index in (4, -5):
        with pytest.raises(IndexError):
            made[index]


def test_objects_carry_what_their_listing_says() -> None:
    assert list(objects()) == [
        Remote("s3://bucket/photos/a/1.jpg", 10, "one"),
        Remote("s3://other/2.jpg"),
        Remote("s3://bucket/photos/b/3.jpg", 30, "three"),
    ]
    assert objects().take([2, 0]) == (objects()[2], objects()[0])


def test_members_know_their_shard() -> None:
    made = members()
    assert made[2] == Member(Path("x-0.tar"), "2.jpg", 1024, 9)
    assert str(made[2]) == "x-0.tar:2.jpg"
    assert made[1].archive == Remote("s3://b/x-1.tar", 10, "tag")  # type: ignore[union-attr]
    assert made.take(np.array([3, 1])) == (made[3], made[1])


@pytest.mark.parametrize("made", [members(), objects(), Files(Path("."), Texts([b"1.png"]))])
def test_locations_travel_and_serve_as_keys(made: Locations) -> None:
    assert pickle.loads(pickle.dumps(made)) == made
    for location in made:
        again: Location = pickle.loads(pickle.dumps(location))
        assert again == location
        assert hash(again) == hash(location)
        assert isinstance(location, Readable)
        assert len(pickle.dumps(location)) < 400
    with pytest.raises(TypeError):
        hash(made)


def test_a_hundred_bytes_a_photo(tmp_path: Path) -> None:
    """What is held of 20,000 photos, all counted; tuples of paths took several times that."""
    for label in ("apple", "pear"):
        (tmp_path / label).mkdir()
        for i in range(100):
            (tmp_path / label / f"a photo of some length {i:08}.jpg").touch()
    found = find_photos(tmp_path)
    many = found.select(np.tile(np.arange(200), 100))
    assert isinstance(many.paths, Locations)
    held = many.paths.nbytes + many.class_index.nbytes
    assert held <= 100 * 20_000
    assert held < len(pickle.dumps(many)) < 100 * 20_000 + 5000  # nothing else is in it
    assert sys.getsizeof(many.paths[0]) < 200


def test_some_of_the_photos() -> None:
    photos = Photos(members(), np.array([0, 0, 1, 1, 2]), ("a", "b", "c"), 3, ("n",), ("p",))
    some = photos.select([4, 0])
    assert some.paths == (members()[4], members()[0])
    assert some.class_index.tolist() == [2, 0]
    assert (some.labels, some.ignored_files) == (photos.labels, 3)
    assert (some.notes, some.problems) == (("n",), ("p",))
    plain = Photos((Path("1"), Path("2")), np.array([0, 1]), ("a", "b")).select([1])
    assert plain.paths == (Path("2"),)


def test_a_member_is_read_by_its_place(tmp_path: Path) -> None:
    shard = tmp_path / "x.tar"
    shard.write_bytes(b"0123456789")
    assert Member(shard, "a", 3, 4).read_bytes() == b"3456"
    assert Member(shard, "a", 3, 0).read_bytes() == b""
    with pytest.raises(OSError, match="the shard ends after 2 of its 4 bytes"):
        Member(shard, "a", 8, 4).read_bytes()
    with pytest.raises(OSError, match="it claims"):
        Member(shard, "a", 0, MAX_PHOTO_BYTES + 1).read_bytes()
    with pytest.raises(FileNotFoundError):
        Member(tmp_path / "gone.tar", "a", 0, 1).read_bytes()

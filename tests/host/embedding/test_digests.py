# SPDX-License-Identifier: Apache-2.0
"""A digest is that of the bytes that are there now, whatever is remembered."""

from __future__ import annotations

import os
import tarfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.embedding import digest_memory, digests
from edge_imprint.embedding.digest_memory import Memory, memory_folder
from edge_imprint.embedding.digests import Digests, read_digests, remember_digests
from edge_imprint.photos import Location, Member, Remote


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled at once, so that no test has to wait two seconds."""
    monkeypatch.setattr(digests, "_SETTLED_NS", -(10**18))


@pytest.fixture
def photos(tmp_path: Path) -> list[Location]:
    files = []
    for i in range(20):
        file = tmp_path / "data" / f"class {i % 3}" / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(100 + i))
        files.append(file)
    return [*files]


def truth(photos: list[Location]) -> list[bytes | None]:
    return [sha256(photo.read_bytes()).digest() for photo in photos]


def known(photos: list[Location]) -> list[bool]:
    """Which are remembered."""
    return read_digests(photos, read=False).known.tolist()


def test_the_digests_of_files(photos: list[Location]) -> None:
    told: list[tuple[int, int]] = []
    found = read_digests(photos, progress=lambda done, of: told.append((done, of)))
    assert list(found) == truth(photos)
    assert told == [(20, 20)]
    assert len(found) == 20
    assert list(found[3:5]) == truth(photos)[3:5]
    mask = np.arange(20) % 2 == 0
    assert list(found.some(mask)) == truth(photos)[::2]
    assert list(read_digests([])) == []


def test_a_file_that_just_changed_is_not_remembered(photos: list[Location]) -> None:
    assert read_digests(photos).known.all()
    assert not any(known(photos))


@pytest.mark.usefixtures("settled")
def test_what_is_remembered_is_not_read(
    photos: list[Location], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = truth(photos)
    assert list(read_digests(photos)) == wanted
    assert all(known(photos))

    def refuse(photo: Location) -> bytes:
        raise AssertionError(f"{photo} is read again")

    monkeypatch.setattr(digests, "_digest", refuse)
    told: list[tuple[int, int]] = []
    again = read_digests(photos, progress=lambda done, of: told.append((done, of)))
    assert list(again) == wanted
    assert told == []
    backwards = read_digests(photos[::-1])
    assert list(backwards) == wanted[::-1]
    with pytest.raises(AssertionError, match="is read again"):
        read_digests(photos, remember=False)


@pytest.mark.usefixtures("settled")
def test_a_change_behind_the_same_size_and_time_is_noticed(photos: list[Location]) -> None:
    read_digests(photos)
    file = photos[4]
    assert isinstance(file, Path)
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )
    assert known(photos) == [i != 4 for i in range(20)]
    assert list(read_digests(photos)) == truth(photos)


@pytest.mark.usefixtures("settled")
def test_a_file_in_the_place_of_another_is_noticed(photos: list[Location]) -> None:
    read_digests(photos)
    one, two = photos[3], photos[6]
    assert isinstance(one, Path)
    assert isinstance(two, Path)
    one.rename(one.with_suffix(".tmp"))
    two.rename(one)
    one.with_suffix(".tmp").rename(two)
    assert list(read_digests(photos)) == truth(photos)


@pytest.mark.usefixtures("settled")
def test_more_photos_cost_their_own_reading(photos: list[Location]) -> None:
    read_digests(photos[:15])
    assert known(photos) == [True] * 15 + [False] * 5
    read_digests(photos[10:])
    assert all(known(photos))
    (memory,) = memory_folder().iterdir()
    assert memory.stat().st_size == 24 + 20 * (8 + 16 + 32) + 32


@pytest.mark.usefixtures("settled")
def test_a_relative_path_is_the_same_file(
    photos: list[Location], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_digests(photos)
    monkeypatch.chdir(tmp_path)
    assert all(known([Path(str(photo)).relative_to(tmp_path) for photo in photos]))


def test_what_is_no_file_is_not_known(photos: list[Location], tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe.jpg", tmp_path / "folder.jpg"
    os.mkfifo(pipe)
    folder.mkdir()
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    odd = tmp_path / os.fsdecode(b"\xff.jpg")
    odd.write_bytes(b"odd name")
    huge = tmp_path / "huge.jpg"
    huge.touch()
    os.truncate(huge, 2**31)
    missing = [pipe, folder, loop, tmp_path / "none.jpg", Path("nul\0.jpg"), huge]
    found = read_digests([photos[0], *missing, odd])
    assert list(found) == [*truth(photos[:1]), *[None] * 6, sha256(b"odd name").digest()]
    assert not found.values[1:-1].any()


@pytest.mark.usefixtures("settled")
def test_a_file_that_becomes_unreadable_is_forgotten(photos: list[Location]) -> None:
    read_digests(photos)
    file = photos[0]
    assert isinstance(file, Path)
    file.unlink()
    assert next(iter(read_digests(photos))) is None
    file.mkdir()
    assert next(iter(read_digests(photos))) is None


@pytest.mark.usefixtures("settled")
def test_members_of_a_shard(tmp_path: Path) -> None:
    archive = tmp_path / "photos.tar"

    def pack(contents: list[bytes]) -> list[Location]:
        with tarfile.open(archive, "w") as tar:
            for i, content in enumerate(contents):
                file = tmp_path / "one"
                file.write_bytes(content)
                tar.add(file, f"{i}.jpg")
        with tarfile.open(archive) as tar:
            return [Member(archive, m.name, m.offset_data, m.size) for m in tar]

    members = pack([b"one", b"two", b"three"])
    assert list(read_digests(members)) == [
        sha256(x).digest() for x in (b"one", b"two", b"three")
    ]
    assert all(known(members))
    members = pack([b"one", b"TWO", b"three"])
    assert not any(known(members))
    assert list(read_digests(members))[1] == sha256(b"TWO").digest()
    archive.unlink()
    assert list(read_digests(members)) == [None] * 3


@pytest.mark.usefixtures("settled")
def test_objects_by_what_their_store_says(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    file = tmp_path / "a.jpg"
    file.write_bytes(b"first")
    url = f"file://{file}"
    stamped, bare = Remote(url, 5, "version 1"), Remote(url, 5)
    assert list(read_digests([stamped, bare])) == [sha256(b"first").digest()] * 2
    assert known([stamped, bare]) == [True, False]
    file.write_bytes(b"other")
    newer = Remote(url, 5, "version 2")
    assert known([newer]) == [False]
    assert list(read_digests([newer])) == [sha256(b"other").digest()]
    assert list(read_digests([Remote(f"file://{tmp_path}/none.jpg")])) == [None]


def test_digests_found_elsewhere_are_remembered(
    photos: list[Location], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_digests(photos, remember=False)
    remember_digests(photos, found)
    assert not any(known(photos))  # they changed since the process began
    started = digests._STARTED_NS
    monkeypatch.setattr(digests, "_STARTED_NS", started + 10**18)
    remember_digests(photos, found)
    assert list(read_digests(photos, read=False)) == truth(photos)


@pytest.mark.usefixtures("settled")
def test_a_few_found_elsewhere_push_no_others_out(
    photos: list[Location], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_memory, "_OTHERS", 3)
    before = [photo for photo in photos if "class 0" in str(photo)]
    read_digests(before)
    found = read_digests(photos, remember=False)  # as by a cluster: two folders more
    remember_digests(photos, found)
    assert all(known(photos))
    remember_digests(photos, Digests(found.values, np.zeros(20, np.bool_)))  # none was found
    assert not any(known(photos))


@pytest.mark.usefixtures("settled")
def test_a_file_that_changes_while_it_is_read(
    photos: list[Location], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = digests._digest

    def changing(photo: Location) -> bytes | None:
        found = digest(photo)
        if photo == photos[5]:
            assert isinstance(photo, Path)
            photo.write_bytes(photo.read_bytes() + b"more")
        return found

    monkeypatch.setattr(digests, "_digest", changing)
    read_digests(photos)
    monkeypatch.undo()
    assert list(read_digests(photos)) == truth(photos)


# The memory's file -------------------------------------------------------------------------


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("cut", [0, 1, 10, 23, 24, 60, 500, -1])
def test_a_memory_cut_short_is_forgotten(photos: list[Location], cut: int) -> None:
    read_digests(photos)
    (memory,) = memory_folder().iterdir()
    memory.write_bytes(memory.read_bytes()[:cut])
    assert not any(known(photos))
    assert list(read_digests(photos)) == truth(photos)
    assert all(known(photos))


@pytest.mark.usefixtures("settled")
def test_every_flipped_bit_of_a_memory_is_noticed(photos: list[Location]) -> None:
    read_digests(photos[:2])
    (memory,) = memory_folder().iterdir()
    whole = memory.read_bytes()
    for position in range(len(whole)):
        bad = bytearray(whole)
        bad[position] ^= 1 << position % 8
        memory.write_bytes(bad)
        assert not any(known(photos[:2]))


@pytest.mark.usefixtures("settled")
def test_a_cache_that_can_not_be_written_costs_time_only(photos: list[Location]) -> None:
    memory_folder().parent.mkdir(parents=True)
    memory_folder().write_text("a file")
    assert list(read_digests(photos)) == truth(photos)
    assert not any(known(photos))


@given(st.lists(st.binary(min_size=16, max_size=16), unique=True, max_size=30), st.data())
def test_a_memory_finds_what_it_learned(keys: list[bytes], data: st.DataObject) -> None:
    count = len(keys)
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
    table = np.frombuffer(b"".join(keys), np.uint8).reshape(count, 16)
    values = np.frombuffer(b"".join(sha256(key).digest() for key in keys), np.uint8)
    values = values.reshape(count, 32)
    root = os.urandom(8)
    Memory(root).learn(np.arange(count, dtype=np.uint64), table, values, kept)
    found, known_ones = Memory(root).find(table[::-1])
    np.testing.assert_array_equal(known_ones, kept[::-1])
    np.testing.assert_array_equal(found, np.where(kept[:, None], values, 0)[::-1])


def test_files_of_other_builds_are_forgotten_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_memory, "_OTHERS", 5)
    rng = np.random.default_rng(0)
    for turn in range(4):
        names = np.arange(3 * turn, 3 * turn + 3, dtype=np.uint64)
        keys = rng.integers(0, 256, (3, 16), np.uint8)
        values = rng.integers(0, 256, (3, 32), np.uint8)
        Memory(b"root").learn(names, keys, values, np.ones(3, np.bool_))
    (memory,) = memory_folder().iterdir()
    assert memory.stat().st_size == 24 + 8 * 56 + 32
    assert Memory(b"root").find(keys)[1].all()


def test_digests_are_a_sequence() -> None:
    made = Digests(np.arange(64, dtype=np.uint8).reshape(2, 32), np.array([True, False]))
    assert made[0] == bytes(range(32))
    assert made[1] is None
    assert made[-1] is None
    assert [*made] == [bytes(range(32)), None]
    with pytest.raises(IndexError):
        made[2]

# SPDX-License-Identifier: Apache-2.0
"""Small shards become one, and no reader, writer or kill notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint.embedding.cache import EmbeddingStore, Space, disk
from edge_imprint.embedding.cache.shards import Shard

Rows = npt.NDArray[np.float32]
Keys = npt.NDArray[np.uint8]
Embeddings = Callable[..., tuple[Keys, Rows]]


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.shard"))


def put(store: EmbeddingStore, keys: Keys, rows: Rows) -> None:
    """Each row into a shard of its own."""
    for key, row in zip(keys, rows, strict=True):
        store.add([key.tobytes()], row[None])
        store.flush()


def test_small_shards_become_one(space: Space, embeddings: Embeddings, tmp_path: Path) -> None:
    keys, rows = embeddings(16)
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys[:15], rows[:15])
        assert len(shards(tmp_path)) == 15
        put(store, keys[15:], rows[15:])
        assert len(shards(tmp_path)) == 1
        np.testing.assert_array_equal(store.read(keys), rows)
    with EmbeddingStore(space, folder=tmp_path) as later:
        np.testing.assert_array_equal(later.read(keys), rows)
        assert later.notes == []


def test_what_is_used_says_so(space: Space, embeddings: Embeddings, tmp_path: Path) -> None:
    keys, rows = embeddings(2)
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys, rows)
    files = [*shards(tmp_path), tmp_path / space.key / "space.json"]
    for file in files:
        os.utime(file, (1e9, 1e9))
    with EmbeddingStore(space, folder=tmp_path) as store:
        assert store.holds(keys[:1]).all()
    used = [file.stat().st_mtime > 1.1e9 for file in files]
    assert used[2]
    assert sorted(used[:2]) == [False, True]  # the one that holds the photo asked for


def test_the_same_photo_is_kept_once(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(4)
    with EmbeddingStore(space, folder=tmp_path) as store:
        for _ in range(4):
            put(store, keys, rows)
        (path,) = shards(tmp_path)
        assert path.stat().st_size == 64 + 4 * (32 + 4 * 6) + 64
        np.testing.assert_array_equal(store.read(keys), rows)


def test_a_reader_finds_what_was_merged_under_it(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(33)
    with EmbeddingStore(space, folder=tmp_path) as writer:
        put(writer, keys[:15], rows[:15])
        one = EmbeddingStore(space, folder=tmp_path)
        two = EmbeddingStore(space, folder=tmp_path)
        three = EmbeddingStore(space, folder=tmp_path)
        assert one.holds(keys).sum() == 15
        put(writer, keys[15:], rows[15:])
        assert len(shards(tmp_path)) < 10
        np.testing.assert_array_equal(one.read(keys[:15]), rows[:15])
        assert two.holds(keys).all()  # it looks again as soon as it misses a file
        assert three.holds(keys[:15]).all()
        assert one.notes == two.notes == three.notes == []


def test_a_store_sees_what_another_one_embeds(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(20)
    with EmbeddingStore(space, folder=tmp_path) as one:
        assert not one.holds(keys).any()
        with EmbeddingStore(space, folder=tmp_path) as two:
            put(two, keys, rows)
        assert one.holds(keys).all()
        np.testing.assert_array_equal(one.read(keys), rows)


def test_a_merge_that_finds_its_parts_gone(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(40)
    one = EmbeddingStore(space, folder=tmp_path)
    put(one, keys[:14], rows[:14])
    with EmbeddingStore(space, folder=tmp_path) as two:
        put(two, keys[14:20], rows[14:20])  # it merges what both hold
    assert len(shards(tmp_path)) < 14
    put(one, keys[20:], rows[20:])
    assert one.holds(keys).all()
    np.testing.assert_array_equal(one.read(keys), rows)
    assert one.notes == []
    one.close()


def test_what_is_merged_while_it_is_listed_is_found(
    space: Space, embeddings: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, rows = embeddings(16)
    other = EmbeddingStore(space, folder=tmp_path)
    put(other, keys[:15], rows[:15])
    real, calls = disk.open_shard, 0

    def slow(path: Path, space_key: bytes) -> tuple[Shard, Keys]:
        nonlocal calls
        calls += 1
        if calls == 4:  # three are open, and twelve are listed
            put(other, keys[15:], rows[15:])
            assert len(shards(tmp_path)) == 1
        return real(path, space_key)

    monkeypatch.setattr(disk, "open_shard", slow)
    with EmbeddingStore(space, folder=tmp_path) as store:
        assert store.embedding_size == 6
        assert calls == 15 + 1
        np.testing.assert_array_equal(store.read(keys), rows)


@pytest.mark.parametrize("call", ["utime", "fsync"])
def test_a_file_system_that_lacks_a_call(
    space: Space,
    embeddings: Embeddings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    real = getattr(os, call)

    def lacking(target: Path | int, *more: object) -> None:
        is_folder = isinstance(target, int) and os.path.isdir(f"/proc/self/fd/{target}")
        if call == "utime" or is_folder:
            raise OSError(22, "Invalid argument")
        real(target, *more)

    monkeypatch.setattr(os, call, lacking)
    keys, rows = embeddings(40)
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys, rows)
        assert len(shards(tmp_path)) < 16  # parts were merged, and are gone
        np.testing.assert_array_equal(store.read(keys), rows)
        assert store.notes == []


def test_a_damaged_part_is_left_out_of_the_whole(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(18)
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys[:15], rows[:15])
    bad = shards(tmp_path)[0]
    data = bytearray(bad.read_bytes())
    data[-65] ^= 1
    bad.write_bytes(data)
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys[15:], rows[15:])
        held = store.holds(keys)
        assert held.sum() == 17
        np.testing.assert_array_equal(store.read(keys[held]), rows[held])
        (note,) = store.notes
        assert note.startswith("the embedding cache held 1 damaged file, left out")


def test_what_a_killed_writer_left_is_removed_later(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, *embeddings(1))
    (shard,) = shards(tmp_path)
    old, new = shard.with_name(".old.tmp"), shard.with_name(".new.tmp")
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    with EmbeddingStore(space, folder=tmp_path) as store:
        assert store.notes == []
    assert not old.exists()
    assert new.exists()  # whose writer may be at work


def test_a_pruned_folder_is_made_again(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(2)
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys[:1], rows[:1])
        for path in tmp_path.rglob("*"):
            if path.is_file():
                path.unlink()
        (tmp_path / space.key).rmdir()
        put(store, keys[1:], rows[1:])
        assert store.notes == []
    (shard,) = shards(tmp_path)
    assert shard.with_name("space.json").is_file()


# Kills -------------------------------------------------------------------------------------

_EMBEDS = """
import signal, sys
from pathlib import Path
import numpy as np
from edge_imprint.embedding.cache import EmbeddingStore, Space, disk, store
from edge_imprint_runtime.contract import BackboneInfo, Preprocess

disk.ROWS = store.ROWS = 8  # so that it writes and merges most of the time
info = BackboneInfo("timm/resnet18", "pretrained", "ab" * 32, Preprocess(224, 224))
keys = np.random.default_rng(0).integers(0, 256, (3000, 32), np.uint8)
with EmbeddingStore(Space(info, "cpu fp32", "quick"), folder=Path(sys.argv[1])) as kept:
    missing = np.flatnonzero(~kept.holds(keys))
    print(len(missing), flush=True)
    for number, i in enumerate(np.array_split(missing, max(1, len(missing) // 5))):
        if number == int(sys.argv[2]):
            signal.pause()  # whoever is to kill it is late
        kept.add([key.tobytes() for key in keys[i]], keys[i].astype(np.float32))
    assert kept.holds(keys).all()
    np.testing.assert_array_equal(kept.read(keys), keys)
    print(*kept.notes, sep="\\n")
"""


def start(folder: Path, most: int = 3000) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _EMBEDS, folder, str(most)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_and_started_again_it_goes_on(tmp_path: Path) -> None:
    # The kill comes when so many files are there, and a little later: in a write, a merge,
    # between the two.
    left, rng = 3000, np.random.default_rng(0)
    for wanted in range(3, 13):
        process = start(tmp_path, most=55)  # of 600 fives: ten leave some to the last
        assert process.stdout is not None
        missing = int(process.stdout.readline())
        assert missing <= left  # nothing that was there is lost
        left = missing
        began = time.monotonic()
        count = len(shards(tmp_path))
        while process.poll() is None and time.monotonic() - began < 30:
            if abs(len(shards(tmp_path)) - count) >= wanted % 5 + 1:
                break
        time.sleep(float(rng.uniform(0, 0.004)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        # Whatever is there is whole, but for files that bear no name yet.
        assert b"" not in [path.read_bytes() for path in shards(tmp_path)]
    assert 0 < left < 3000
    done = start(tmp_path)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    assert out.splitlines()[1:] in ([], [""])  # no note: nothing was damaged


def test_two_processes_at_once(tmp_path: Path) -> None:
    both = [start(tmp_path) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert out.splitlines()[1:] in ([], [""])
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("at", ["write", "merge"])
def test_an_interrupt_leaves_no_half_file(
    space: Space,
    embeddings: Embeddings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    keys, rows = embeddings(16)
    store = EmbeddingStore(space, folder=tmp_path)
    put(store, keys[:15], rows[:15])
    calls = 0

    def interrupted(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == (1 if at == "write" else 2):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(store, keys[15:], rows[15:])
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.undo()
    with EmbeddingStore(space, folder=tmp_path) as later:
        assert later.holds(keys).sum() == (15 if at == "write" else 16)

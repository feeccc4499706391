# SPDX-License-Identifier: Apache-2.0
"""What a store was given it gives back, in any order, to any process, or says why not."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint.embedding.cache import EmbeddingStore, Space, embeddings_folder
from edge_imprint.embedding.cache import store as store_module
from edge_imprint_runtime.errors import CacheError, ParameterError

Rows = npt.NDArray[np.float32]
Keys = npt.NDArray[np.uint8]
Embeddings = Callable[..., tuple[Keys, Rows]]


def put(store: EmbeddingStore, keys: Keys, rows: Rows, step: int = 100) -> None:
    for start in range(0, len(keys), step):
        part = [key.tobytes() for key in keys[start : start + step]]
        store.add(part, rows[start : start + step])


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.shard"))


@pytest.mark.parametrize("keep", [True, False])
def test_rows_come_back_in_the_order_asked(
    space: Space, embeddings: Embeddings, tmp_path: Path, keep: bool
) -> None:
    keys, rows = embeddings(2500)
    with EmbeddingStore(space, folder=tmp_path, keep=keep) as store:
        assert store.embedding_size is None
        assert not store.holds(keys).any()
        put(store, keys, rows)
        assert store.embedding_size == 6
        assert store.holds(keys).all()
        order = np.random.default_rng(0).permutation(2500)
        np.testing.assert_array_equal(store.read(keys[order]), rows[order])
        np.testing.assert_array_equal(store.read(keys[[7, 7, 3]]), rows[[7, 7, 3]])
        assert store.read(keys[:0]).shape == (0, 6)
        assert not store.holds(keys ^ 1).any()
        assert store.notes == []
    assert len(shards(tmp_path)) == (3 if keep else 0)


def test_another_process_reads_them_later(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(1500, size=3)
    rows.view(np.uint32)[0, :] = [0x7FC00001, 0xFF800000, 1]  # bits, not numbers
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys, rows)
    with EmbeddingStore(space, folder=tmp_path) as later:
        assert later.embedding_size == 3
        assert later.holds(keys).all()
        got = later.read(keys)
        np.testing.assert_array_equal(got.view(np.uint32), rows.view(np.uint32))
        got[:] = 0  # the caller's own
        np.testing.assert_array_equal(later.read(keys[1:2]), rows[1:2])


def test_the_default_folder_is_the_users_cache(
    space: Space, embeddings: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with EmbeddingStore(space) as store:
        put(store, *embeddings(1))
    assert embeddings_folder() == tmp_path / "edge-imprint" / "embeddings"
    (shard,) = shards(tmp_path)
    assert shard.parent == embeddings_folder() / space.key
    assert (shard.parent / "space.json").is_file()


def test_a_store_that_is_only_opened_writes_nothing(space: Space, tmp_path: Path) -> None:
    with EmbeddingStore(space, folder=tmp_path / "none") as store:
        store.flush()
    assert not list(tmp_path.iterdir())


def test_it_writes_when_enough_or_old_enough(
    space: Space, embeddings: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(store_module.time, "monotonic", lambda: now)
    keys, rows = embeddings(1100)
    store = EmbeddingStore(space, folder=tmp_path)
    put(store, keys[:1000], rows[:1000])
    assert len(shards(tmp_path)) == 0
    put(store, keys[1000:1030], rows[1000:1030])  # 1,024, and 6 left
    assert len(shards(tmp_path)) == 1
    now += 4.9
    put(store, keys[1030:1031], rows[1030:1031])
    assert len(shards(tmp_path)) == 1
    now += 0.2
    put(store, keys[1031:1032], rows[1031:1032])
    assert len(shards(tmp_path)) == 2
    put(store, keys[1032:], rows[1032:])
    store.close()
    assert len(shards(tmp_path)) == 3
    with EmbeddingStore(space, folder=tmp_path) as later:
        np.testing.assert_array_equal(later.read(keys), rows)


def test_what_does_not_fit_is_refused(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(3)
    with EmbeddingStore(space, folder=tmp_path) as store:
        digests = [key.tobytes() for key in keys]
        with pytest.raises(ParameterError, match=r"rows must be \(3, D\), one a digest"):
            store.add(digests, rows[:2])
        with pytest.raises(ParameterError, match=r"got \(6,\)"):
            store.add(digests, rows[0])
        with pytest.raises(ParameterError, match="digests must be of 32 bytes each"):
            store.add([digests[0] + b"x", digests[1][1:], digests[2]], rows)
        store.add(digests, rows)
        with pytest.raises(ParameterError, match="rows must have 6 numbers"):
            store.add(digests, rows[:, :5])


def test_what_was_never_held_is_a_key_error(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(3)
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys[:2], rows[:2])
        with pytest.raises(KeyError, match=keys[2].tobytes().hex()):
            store.read(keys)


def test_two_stores_at_once(space: Space, embeddings: Embeddings, tmp_path: Path) -> None:
    keys, rows = embeddings(40)
    one = EmbeddingStore(space, folder=tmp_path)
    two = EmbeddingStore(space, folder=tmp_path)
    for i in range(0, 40, 2):  # both embed photo i, and each one of its own
        put(one, keys[i : i + 1], rows[i : i + 1])
        put(two, keys[i : i + 2], rows[i : i + 2])
        one.flush()
        two.flush()
    np.testing.assert_array_equal(two.read(keys), rows)
    np.testing.assert_array_equal(one.read(keys), rows)  # the odd ones are of the other
    one.close()
    two.close()
    with EmbeddingStore(space, folder=tmp_path) as later:
        np.testing.assert_array_equal(later.read(keys), rows)


# Damage ------------------------------------------------------------------------------------


def test_a_damaged_shard_is_noticed_and_made_anew(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(1100)
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys, rows)
    big = max(shards(tmp_path), key=lambda path: path.stat().st_size)
    data = bytearray(big.read_bytes())
    data[-100] ^= 1  # in the last embedding
    big.write_bytes(data)
    with EmbeddingStore(space, folder=tmp_path) as store:
        held = store.holds(keys)
        assert held.tolist() == [False] * 1024 + [True] * 76
        assert store.notes == [
            "the embedding cache held 1 damaged file, left out; 1024 photos are embedded again"
        ]
        assert not big.exists()
        put(store, keys[:1024], rows[:1024])
        np.testing.assert_array_equal(store.read(keys), rows)
        assert store.holds(keys).all()
        assert len(store.notes) == 1
    with EmbeddingStore(space, folder=tmp_path) as store:
        assert store.holds(keys).all()
        assert store.notes == []


def test_a_build_checks_the_files_that_it_needs(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(60)
    for start in (0, 30):
        with EmbeddingStore(space, folder=tmp_path) as store:
            put(store, keys[start : start + 30], rows[start : start + 30])
    bad = shards(tmp_path)[0]
    with EmbeddingStore(space, folder=tmp_path) as store:
        first = bool(store.holds(keys[:1]).all()) and bad.exists()
    data = bytearray(bad.read_bytes())
    data[-64 - 4] ^= 1
    bad.write_bytes(data)
    # Which of the two files holds which photos depends on their random names.
    with EmbeddingStore(space, folder=tmp_path) as store:
        halves = [bool(store.holds(keys[i : i + 1]).all()) for i in (0, 30)]
        assert first
        assert sorted(halves) == [False, True]


def test_a_damaged_list_of_photos(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(30)
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys, rows)
    (path,) = shards(tmp_path)
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    with EmbeddingStore(space, folder=tmp_path) as store:
        assert store.embedding_size is None
        assert not store.holds(keys).any()
        assert store.notes == ["the embedding cache held 1 damaged file, left out"]
    assert shards(tmp_path) == []


def test_a_shard_of_another_size_is_left_out(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    for folder, size in (("a", 6), ("b", 5)):
        with EmbeddingStore(space, folder=tmp_path / folder) as store:
            put(store, *embeddings(3, size=size))
    (other,) = shards(tmp_path / "b")
    (own,) = shards(tmp_path / "a")
    other.rename(own.with_name("zzz.shard"))
    with EmbeddingStore(space, folder=tmp_path / "a") as store:
        assert store.embedding_size == 6
        store.holds(embeddings(3)[0])
        assert store.notes == ["the embedding cache held 1 damaged file, left out"]
    assert shards(tmp_path / "a") == [own]


def test_what_is_no_file_is_not_opened(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    folder = tmp_path / space.key
    (folder / "folder.shard").mkdir(parents=True)
    os.mkfifo(folder / "pipe.shard")
    (folder / "zero.shard").symlink_to("/dev/zero")
    (folder / "loop.shard").symlink_to(folder / "loop.shard")
    keys, rows = embeddings(3)
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys, rows)
        np.testing.assert_array_equal(store.read(keys), rows)
        assert store.notes == []


def test_what_is_damaged_under_a_reader_is_never_given_out(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(3)
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys, rows)
    with EmbeddingStore(space, folder=tmp_path) as store:
        (path,) = shards(tmp_path)
        data = bytearray(path.read_bytes())
        data[-65] ^= 1
        path.write_bytes(data)
        with pytest.raises(CacheError, match="lost files while this ran"):
            store.read(keys)


def test_a_cleared_cache_is_said_by_one_sentence(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(3)
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys, rows)
        store.flush()
        for path in shards(tmp_path):
            path.unlink()
        with pytest.raises(CacheError) as error:
            store.read(keys)
    assert str(error.value) == (
        f"the embedding cache {tmp_path} lost files while this ran, cleared or damaged; "
        "run it again, which embeds their photos anew"
    )


# Folders that can't be used ----------------------------------------------------------------


def sentence(folder: Path, what: str, why: str) -> str:
    return (
        f"the embedding cache {folder} can't be {what} ({why}); what is embedded "
        "now stays in memory, and the next build embeds it again"
    )


@pytest.mark.parametrize("where", ["root", "space"])
def test_a_file_in_place_of_the_folder(
    space: Space, embeddings: Embeddings, tmp_path: Path, where: str
) -> None:
    folder = tmp_path / "cache"
    if where == "root":
        folder.write_text("not a folder")
    else:
        folder.mkdir()
        (folder / space.key).write_text("not a folder")
    keys, rows = embeddings(2100)
    with EmbeddingStore(space, folder=folder) as store:
        put(store, keys, rows)
        assert store.holds(keys).all()
        np.testing.assert_array_equal(store.read(keys[::-1]), rows[::-1])
        assert store.notes == [sentence(folder, "read", "not a directory")]
    assert shards(tmp_path) == []


_FULL = """
import sys
from pathlib import Path
import numpy as np
from edge_imprint.embedding.cache import EmbeddingStore, Space
from edge_imprint_runtime.contract import BackboneInfo, Preprocess
info = BackboneInfo("timm/resnet18", "pretrained", "ab" * 32, Preprocess(224, 224))
keys = np.random.default_rng(0).integers(0, 256, (3000, 32), np.uint8)
rows = np.random.default_rng(1).standard_normal((3000, 6)).astype(np.float32)
with EmbeddingStore(Space(info, "cpu fp32", "quick"), folder=Path(sys.argv[1])) as store:
    for i in range(0, 3000, 100):
        store.add([key.tobytes() for key in keys[i : i + 100]], rows[i : i + 100])
    assert store.holds(keys).all()
    np.testing.assert_array_equal(store.read(keys), rows)
    print(*store.notes, sep="\\n")
"""


@pytest.mark.parametrize("limit_bytes", [0, 100, 30_000])
def test_a_full_disk(tmp_path: Path, limit_bytes: int) -> None:
    # A limit on the size of files stands for the disk: a write stops in the middle.
    done = subprocess.run(
        [sys.executable, "-c", _FULL, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes,) * 2),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == sentence(tmp_path, "written", "file too large") + "\n"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] in (
        [],
        ["space.json"],
    )


def test_a_read_only_cache_is_still_read(
    space: Space, embeddings: Embeddings, tmp_path: Path
) -> None:
    keys, rows = embeddings(30)
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys[:20], rows[:20])
    (path,) = shards(tmp_path)
    facts = path.with_name("space.json")
    facts.unlink()
    facts.mkdir()  # as good as a folder without the right to write, and for root, too
    with EmbeddingStore(space, folder=tmp_path) as store:
        assert store.holds(keys).tolist() == [True] * 20 + [False] * 10
        put(store, keys[20:], rows[20:])
        np.testing.assert_array_equal(store.read(keys), rows)
        (note,) = store.notes
        assert note.startswith(f"the embedding cache {tmp_path} can't be written (")
    assert shards(tmp_path) == [path]


# Memory ------------------------------------------------------------------------------------

_RESIDENT = """
import sys
from pathlib import Path
import numpy as np
from edge_imprint.embedding.cache import EmbeddingStore, Space
from edge_imprint_runtime.contract import BackboneInfo, Preprocess

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

info = BackboneInfo("timm/resnet18", "pretrained", "ab" * 32, Preprocess(224, 224))
keys = np.random.default_rng(0).integers(0, 256, (40 * 512, 32), np.uint8)
with EmbeddingStore(Space(info, "cpu fp32", "quick"), folder=Path(sys.argv[1])) as store:
    for start in range(0, len(keys), 512):
        rows = np.full((512, 1024), start, np.float32)
        store.add([key.tobytes() for key in keys[start : start + 512]], rows)
    del rows
    store.flush()
    store.holds(keys)
    before = resident_bytes()
    for start in range(0, len(keys), 512):
        assert store.read(keys[start : start + 512])[0, 0] == start
    print(resident_bytes() - before)
"""


def test_what_was_read_does_not_stay(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RESIDENT, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    whole_bytes = sum(path.stat().st_size for path in shards(tmp_path))
    assert whole_bytes > 80 * 2**20
    assert int(done.stdout) < 12 * 2**20


def test_threads_share_a_store(space: Space, embeddings: Embeddings, tmp_path: Path) -> None:
    keys, rows = embeddings(2000)
    with EmbeddingStore(space, folder=tmp_path) as store:
        put(store, keys[:1000], rows[:1000])

        def work(seed: int) -> bool:
            rng = np.random.default_rng(seed)
            if seed % 4 == 0:
                part = slice(1000 + 100 * (seed // 4), 1100 + 100 * (seed // 4))
                put(store, keys[part], rows[part], step=7)
            for _ in range(20):
                order = rng.integers(0, 1000, 50)
                np.testing.assert_array_equal(store.read(keys[order]), rows[order])
            return True

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(work, range(40)))
        np.testing.assert_array_equal(store.read(keys), rows)

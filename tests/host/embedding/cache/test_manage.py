# SPDX-License-Identifier: Apache-2.0
"""What the cache holds is told as it is, and what goes is what was named."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint.embedding.cache import EmbeddingStore, Space, manage
from edge_imprint_runtime.errors import CacheError

Rows = npt.NDArray[np.float32]
Keys = npt.NDArray[np.uint8]
Embeddings = Callable[..., tuple[Keys, Rows]]

ROW_BYTES = 32 + 4 * 6
FILE_BYTES = 64 + 64


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "edge-imprint"


@pytest.fixture
def fill(cache: Path, space: Space, embeddings: Embeddings) -> Callable[..., Space]:
    """Return ``fill(name, days)``: a shard of 10 embeddings for each age."""

    def fill(name: str, days: tuple[int, ...]) -> Space:
        digest = f"{len(name):02x}" * 32
        own = replace(space, backbone=replace(space.backbone, name=name, digest=digest))
        folder = cache / "embeddings" / own.key
        for age in days:
            before = set(folder.glob("*.shard"))
            keys, rows = embeddings(10, first=1000 * age)
            with EmbeddingStore(own) as store:
                store.add([key.tobytes() for key in keys], rows)
            (new,) = set(folder.glob("*.shard")) - before
            os.utime(new, (2e9 - 86_400 * age,) * 2)
        os.utime(folder / "space.json", (1e9, 1e9))
        return own

    return fill


def left() -> dict[str, int]:
    return {space.facts["backbone"]: space.embeddings for space in manage.spaces()}


def test_an_empty_cache(cache: Path) -> None:
    assert manage.spaces() == manage.others() == []
    assert manage.prune(max_bytes=0) == manage.clear() == (0, 0)
    assert manage.verify() == manage.Verified(0, 0, ())
    assert not cache.exists()


def test_it_tells_what_is_there(cache: Path, fill: Callable[..., Space]) -> None:
    fill("timm/resnet18", (3, 1))
    fill("demo", (2,))
    for name, size in (
        ("backbones/a.onnx", 700),
        ("backbones/cards/b.json", 30),
        ("odd/x", 5),
    ):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(bytes(size))
    (cache / "weights").mkdir()
    first, second = manage.spaces()
    assert (first.facts["backbone"], second.facts["backbone"]) == ("timm/resnet18", "demo")
    assert (first.embeddings, second.embeddings) == (20, 10)
    assert (len(first.files), first.used_unix_s) == (2, 2e9 - 86_400)
    shards = 2 * FILE_BYTES + 20 * ROW_BYTES
    facts = (cache / "embeddings" / first.key / "space.json").stat().st_size
    assert first.bytes == shards + facts
    assert manage.others() == [
        manage.Other("backbones", "backbone graphs", 2, 730),
        manage.Other("odd", "of another release", 1, 5),
    ]


def test_prune_by_age(fill: Callable[..., Space]) -> None:
    fill("timm/resnet18", (1, 5, 9))
    fill("demo", (7,))
    before = 2e9 - 6 * 86_400
    gone = (2, 2 * (FILE_BYTES + 10 * ROW_BYTES))
    assert manage.prune(before_unix_s=before, dry_run=True) == gone
    assert left() == {"timm/resnet18": 30, "demo": 10}
    assert manage.prune(before_unix_s=before) == gone
    assert left() == {"timm/resnet18": 20}  # the empty space is gone, its facts too


def test_prune_by_size_takes_the_oldest_first(fill: Callable[..., Space]) -> None:
    fill("timm/resnet18", (1, 5, 9))
    fill("demo", (7,))
    one = FILE_BYTES + 10 * ROW_BYTES
    assert manage.prune(max_bytes=4 * one) == (0, 0)
    assert manage.prune(max_bytes=3 * one - 1) == (2, 2 * one)
    assert left() == {"timm/resnet18": 20}
    assert manage.prune(max_bytes=0) == (2, 2 * one)
    assert left() == {}


@pytest.mark.parametrize("pattern", ["timm/*", "timm", "timm/resnet1?", "timm/resnet18"])
def test_prune_by_backbone(fill: Callable[..., Space], pattern: str) -> None:
    fill("timm/resnet18", (1, 5))
    fill("demo", (7,))
    assert manage.prune(backbone=pattern)[0] == 2
    assert left() == {"demo": 10}


def test_what_is_given_holds_together(fill: Callable[..., Space]) -> None:
    fill("timm/resnet18", (1, 5, 9))
    fill("demo", (7,))
    old = 2e9 - 4 * 86_400
    assert manage.prune(backbone="timm", before_unix_s=old, max_bytes=0)[0] == 2
    assert left() == {"timm/resnet18": 10, "demo": 10}


def test_a_space_whose_facts_are_lost(cache: Path, fill: Callable[..., Space]) -> None:
    own = fill("timm/resnet18", (1,))
    (cache / "embeddings" / own.key / "space.json").write_text("{")
    (found,) = manage.spaces()
    assert (found.facts, found.embeddings) == ({}, 10)
    assert manage.prune(backbone="timm") == (0, 0)
    assert manage.prune(before_unix_s=3e9)[0] == 1
    assert manage.spaces() == []


def test_clear_takes_embeddings_and_digests(cache: Path, fill: Callable[..., Space]) -> None:
    fill("timm/resnet18", (1,))
    for name in ("digests/a.digests", "backbones/a.onnx", "odd/x"):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(bytes(10))
    assert manage.clear(dry_run=True)[0] == 3
    assert manage.clear()[0] == 3
    assert manage.spaces() == []
    assert [other.name for other in manage.others()] == ["backbones", "odd"]
    assert manage.clear(everything=True) == (1, 10)
    assert [other.name for other in manage.others()] == ["odd"]  # not ours to remove


def test_clear_leaves_what_links_lead_to(
    cache: Path, fill: Callable[..., Space], tmp_path: Path
) -> None:
    fill("timm/resnet18", (1,))
    larger = tmp_path / "larger disk"
    (cache / "embeddings").rename(larger)
    (cache / "embeddings").symlink_to(larger)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "photo.jpg").write_bytes(b"photo")
    (larger / "link").symlink_to(tmp_path / "kept")
    assert left() == {"timm/resnet18": 10}
    manage.clear()
    assert list(larger.iterdir()) == []
    assert (cache / "embeddings").is_symlink()
    assert (tmp_path / "kept" / "photo.jpg").exists()


def test_what_is_no_file_is_not_opened(cache: Path, fill: Callable[..., Space]) -> None:
    own = fill("timm/resnet18", (1,))
    folder = cache / "embeddings" / own.key
    os.mkfifo(folder / "pipe.shard")
    (folder / "loop.shard").symlink_to(folder / "loop.shard")
    assert left() == {"timm/resnet18": 10}
    assert manage.verify() == manage.Verified(1, 10, ())
    assert manage.prune(max_bytes=0)[0] == 1
    manage.clear()
    assert list((cache / "embeddings").iterdir()) == []


def test_verify_removes_what_is_damaged(cache: Path, fill: Callable[..., Space]) -> None:
    own = fill("timm/resnet18", (1, 5, 9))
    files = sorted((cache / "embeddings" / own.key).glob("*.shard"))
    for file, position in ((files[0], 70), (files[1], -65)):
        data = bytearray(file.read_bytes())
        data[position] ^= 1
        file.write_bytes(data)
    wanted = (
        f"{files[0]}: its list of photos is damaged",
        f"{files[1]}: its embeddings are damaged",
    )
    tried = manage.verify(dry_run=True)
    assert (tried.files, tried.embeddings, sorted(tried.damaged)) == (3, 10, list(wanted))
    assert sorted(manage.verify().damaged) == list(wanted)
    assert manage.verify() == manage.Verified(1, 10, ())


def test_a_folder_that_can_not_be_read(cache: Path) -> None:
    cache.mkdir()
    (cache / "embeddings").write_text("a file")
    with pytest.raises(CacheError) as error:
        manage.spaces()
    assert str(error.value) == (
        f"{cache / 'embeddings'} in the cache can't be read: Not a directory; "
        "see who owns it, and who may write there"
    )

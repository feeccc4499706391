# SPDX-License-Identifier: Apache-2.0
"""Builds over a cache: what is held is not embedded again, and the head is the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@dataclass(frozen=True)
class Shop:
    """Photos, and a cache of their own.

    Attributes:
        photos: A folder of three classes, 6 photos each.
        cache: The folder of the cache.
        environment: With that cache.
        arguments: Of `edge-imprint build`.
        head: What it writes.
    """

    photos: Path
    cache: Path
    environment: dict[str, str]
    arguments: tuple[object, ...]
    head: Path

    def shards(self) -> list[Path]:
        return sorted(self.cache.rglob("*.shard"))


@pytest.fixture
def shop(workshop: Any, tmp_path: Path) -> Shop:
    photos, head = tmp_path / "photos", tmp_path / "head.imprint"
    shutil.copytree(workshop.photos, photos)
    return Shop(
        photos,
        tmp_path / "cache" / "edge-imprint",
        os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
        ("build", photos, "--backbone", workshop.backbone, "--out", head, "--force", "--json"),
        head,
    )


@pytest.fixture
def build(run: Run, shop: Shop) -> Callable[..., dict[str, Any]]:
    """Return ``build(*more)``: what the command printed as JSON."""

    def build(*more: object) -> dict[str, Any]:
        done = run(*shop.arguments, *more, env=shop.environment)
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    return build


Build = Callable[..., dict[str, Any]]


def test_what_is_held_is_not_embedded_again(shop: Shop, build: Build) -> None:
    assert build()["embedded"] == 18
    head = shop.head.read_bytes()
    assert build()["embedded"] == 0
    assert shop.head.read_bytes() == head
    assert build("--recipe", "qi2018")["embedded"] == 0  # another head of the same embeddings
    assert build("--decode", "exact")["embedded"] == 18
    files = shop.shards()
    assert build("--no-cache")["embedded"] == 18
    assert shop.shards() == files


def test_photos_go_by_their_content(shop: Shop, build: Build) -> None:
    build()
    (shop.photos / "red" / "0.png").rename(shop.photos / "red" / "moved.png")
    shutil.copy(shop.photos / "red" / "1.png", shop.photos / "red" / "copy.png")
    assert build()["embedded"] == 0
    changed = shop.photos / "red" / "2.png"
    before = changed.stat()
    with Image.open(changed) as image:
        pixels = np.asarray(image).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(changed)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert build()["embedded"] == 1


def test_a_damaged_shard_is_made_anew(shop: Shop, build: Build) -> None:
    build()
    head = shop.head.read_bytes()
    (shard,) = shop.shards()
    data = bytearray(shard.read_bytes())
    data[-65] ^= 1
    shard.write_bytes(data)
    told = build()
    assert told["embedded"] == 18
    note = "the embedding cache held 1 damaged file, left out; 18 photos are embedded again"
    assert note in told["notes"]
    assert shop.head.read_bytes() == head
    again = build()
    assert (again["embedded"], note in again["notes"]) == (0, False)


def test_a_cache_that_is_no_folder(shop: Shop, build: Build) -> None:
    build()
    head = shop.head.read_bytes()
    shutil.rmtree(shop.cache / "embeddings")
    (shop.cache / "embeddings").write_text("a file")
    told = build()
    assert told["embedded"] == 18
    (note,) = (note for note in told["notes"] if "embedding cache" in note)
    assert "can't be read (not a directory)" in note
    assert shop.head.read_bytes() == head


def test_two_builds_at_once(shop: Shop, command: Path) -> None:
    heads = [shop.head.with_name(f"{number}.imprint") for number in range(2)]
    both = [
        subprocess.Popen(
            [command, *map(str, shop.arguments), "--out", head],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=shop.environment,
        )
        for head in heads
    ]
    for process in both:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    assert heads[0].read_bytes() == heads[1].read_bytes()


def test_a_build_of_what_is_held_loads_nothing_heavy(
    shop: Shop, build: Build, workshop: Any
) -> None:
    young_s = time.time() - os.stat(workshop.backbone.removeprefix("onnx:")).st_ctime
    time.sleep(max(0.0, 2.1 - young_s))  # of a younger file nothing is remembered
    build()
    code = (
        "import sys\n"
        "from edge_imprint.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, shop.arguments)],
        capture_output=True,
        text=True,
        check=True,
        env=shop.environment,
    )
    assert json.loads(done.stdout)["embedded"] == 0
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "numpy" in loaded
    heavy = {"torch", "timm", "torchvision", "onnx", "onnxruntime", "ray", "sklearn", "fsspec"}
    assert not loaded & heavy


def test_killed_and_started_again_it_makes_the_same_head(
    shop: Shop, build: Build, command: Path
) -> None:
    rng = np.random.default_rng(0)
    for number in range(200):
        pixels = rng.integers(0, 256, (48, 48, 3), np.uint8)
        Image.fromarray(pixels).save(shop.photos / "red" / f"more {number}.png")
    start = time.monotonic()
    build()
    whole_s = time.monotonic() - start
    head = shop.head.read_bytes()
    for share in (0.4, 0.7, 0.9):
        shutil.rmtree(shop.cache)
        shop.head.unlink(missing_ok=True)
        process = subprocess.Popen(
            [command, *map(str, shop.arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=shop.environment,
        )
        time.sleep(share * whole_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not shop.head.exists() or shop.head.read_bytes() == head
        build()
        assert shop.head.read_bytes() == head

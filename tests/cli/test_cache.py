# SPDX-License-Identifier: Apache-2.0
"""`cache`: what is kept is shown, pruned, cleared and verified by the real command."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_imprint.embedding.cache import EmbeddingStore, Space
from edge_imprint_runtime.contract import BackboneInfo, Preprocess

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@dataclass(frozen=True)
class Home:
    """A user's cache of 2,000 embeddings of resnet18, a month old, and 10 of demo.

    Attributes:
        folder: The cache folder.
        call: ``call(*arguments)`` runs `edge-imprint cache` for it.
    """

    folder: Path
    call: Callable[..., Done]

    def shards(self) -> list[Path]:
        return sorted((self.folder / "embeddings").rglob("*.shard"))


@pytest.fixture
def home(run: Run, tmp_path: Path) -> Home:
    folder = tmp_path / "edge-imprint"
    rng = np.random.default_rng(0)
    for name, weights, count in (
        ("timm/resnet18", "random:0", 2000),
        ("demo", "packaged", 10),
    ):
        digest = f"{count:064x}"
        info = BackboneInfo(name, weights, digest, Preprocess(224, 224))
        space = Space(info, "cpu fp32", "quick")
        keys = rng.integers(0, 256, (count, 32), np.uint8)
        rows = rng.standard_normal((count, 8)).astype(np.float32)
        with EmbeddingStore(space, folder=folder / "embeddings") as store:
            store.add([key.tobytes() for key in keys], rows)
        age_s = 30 * 86_400 if name != "demo" else 0
        for path in (folder / "embeddings" / space.key).iterdir():
            os.utime(path, (time.time() - age_s - 60,) * 2)
    (folder / "backbones").mkdir()
    (folder / "backbones" / "a.onnx").write_bytes(bytes(1_500_000))

    def call(*arguments: object, columns: int = 80) -> Done:
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "COLUMNS": str(columns)}
        return run("cache", *arguments, env=environment)

    return Home(folder, call)


def test_it_shows_what_is_kept(home: Home) -> None:
    done = home.call(columns=120)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert first.startswith(f"{home.folder}: 1.")
    (row,) = (line for line in lines if "resnet18" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "timm/resnet18, random:0, 224x224, cpu fp32, quick",
        "2,000",
        "129 kB",
        "30 days ago",
    ]
    (row,) = (line for line in lines if "demo" in line)
    assert "1 minute ago" in row
    (row,) = (line for line in lines if "backbone graphs" in line)
    assert "1.5 MB" in row
    (home.folder / "builds").mkdir()
    (home.folder / "builds" / "a.json").write_bytes(bytes(278))
    assert " 278 bytes " in home.call(columns=120).stdout
    narrow = home.call("show", columns=80).stdout.splitlines()[1:]
    assert max(map(len, narrow)) <= 80
    assert not any("…" in line for line in narrow)


def test_as_json(home: Home) -> None:
    for arguments in (["--json"], ["show", "--json"]):
        shown: dict[str, Any] = json.loads(home.call(*arguments).stdout)
        assert shown["format"] == "edge-imprint.cache/1"
        assert shown["folder"] == str(home.folder)
        files = [path for path in home.folder.rglob("*") if path.is_file()]
        assert shown["bytes"] == sum(path.stat().st_size for path in files)
        demo, resnet = shown["embeddings"]
        assert (demo["backbone"], demo["embeddings"]) == ("demo", 10)
        assert (resnet["embeddings"], resnet["files"]) == (2000, 2)
        assert resnet["arithmetic"] == "cpu fp32"
        assert shown["others"] == [
            {"name": "backbones", "what": "backbone graphs", "files": 1, "bytes": 1_500_000}
        ]


def test_an_empty_cache(run: Run, tmp_path: Path) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = run("cache", env=environment)
    assert done.stdout == f"{tmp_path / 'edge-imprint'} holds nothing yet\n"
    assert run("cache", "verify", env=environment).stdout == (
        "0 files read, 0 embeddings are good\n"
    )


@pytest.mark.parametrize(
    "options",
    [("--older", "29d"), ("--older", "600h"), ("--max-size", "4kB"), ("--backbone", "timm/*")],
)
def test_prune(home: Home, options: tuple[str, str]) -> None:
    tried = home.call("prune", *options, "--dry-run")
    assert tried.stdout == "2 files, 128 kB would be removed\n"
    assert len(home.shards()) == 3
    done = home.call("prune", *options, "--json")
    gone = json.loads(done.stdout)
    assert (done.returncode, gone["files"], gone["dry_run"]) == (0, 2, False)
    assert gone["bytes"] == 2000 * (32 + 4 * 8) + 2 * 128
    assert len(home.shards()) == 1
    assert home.call("prune", *options).stdout == "0 files, 0 bytes removed\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "give --older, --max-size or --backbone; or use 'cache clear'"),
        (("--older", "soon"), "Invalid value for --older: must be an age such as 30d, 12h or"),
        (("--older", "3x"), "Invalid value for --older: must be an age such as 30d, 12h or"),
        (("--max-size", "2PB"), "Invalid value for --max-size: must be a size such as 2GB or"),
        (("--max-size", "-1"), "Invalid value for --max-size: must be a size such as 2GB or"),
    ],
)
def test_a_wrong_prune_removes_nothing(
    home: Home, options: tuple[str, ...], sentence: str
) -> None:
    done = home.call("prune", *options)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {sentence}")
    assert len(home.shards()) == 3


def test_clear(home: Home) -> None:
    assert "would be removed" in home.call("clear", "--dry-run").stdout
    assert len(home.shards()) == 3
    assert home.call("clear").returncode == 0
    assert home.shards() == []
    assert (home.folder / "backbones" / "a.onnx").exists()
    assert home.call("clear", "--all").stdout == "1 file, 1.5 MB removed\n"
    assert "holds nothing yet" in home.call().stdout


def test_verify(home: Home) -> None:
    done = home.call("verify")
    assert (done.returncode, done.stdout) == (0, "3 files read, 2,010 embeddings are good\n")
    bad = max(home.shards(), key=lambda path: path.stat().st_size)
    data = bytearray(bad.read_bytes())
    data[-65] ^= 1
    bad.write_bytes(data)
    tried = home.call("verify", "--dry-run")
    assert tried.returncode == 1
    assert tried.stdout.splitlines()[0] == f"{bad}: its embeddings are damaged"
    assert tried.stderr == (
        "error: 1 of 3 files of embeddings are damaged; "
        "the next build embeds their photos again\n"
    )
    done = home.call("verify", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["files"], found["embeddings"]) == (3, 986)
    assert found["damaged"] == [f"{bad}: its embeddings are damaged"]
    assert "1 of 3 files of embeddings were damaged, and are now removed" in done.stderr
    assert not bad.exists()
    assert home.call("verify").returncode == 0


def test_a_folder_that_can_not_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "edge-imprint").write_text("a file")
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    for arguments in ([], ["clear"], ["verify"], ["prune", "--older", "1d"]):
        done = run("cache", *arguments, env=environment)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {tmp_path / 'edge-imprint'}")
        assert "in the cache can't be read: Not a directory" in line

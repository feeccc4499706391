# SPDX-License-Identifier: Apache-2.0
"""The cache of backbone graphs saves time and never changes a result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import onnx
import pytest

from edge_imprint_export.backbone.cache import (
    cache_folder,
    cached,
    known_difference,
    lookup,
    remember_difference,
)
from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_runtime import BackboneInfo, Preprocess
from edge_imprint_runtime.errors import BackboneExportError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


class Maker:
    """Makes the tiny backbone, and counts how often."""

    def __init__(self, backbone: bytes) -> None:
        self.backbone = backbone
        self.calls = 0

    def __call__(self) -> onnx.ModelProto:
        self.calls += 1
        return parse(self.backbone, "tiny")


@pytest.fixture
def maker(tiny_backbone: bytes) -> Maker:
    return Maker(tiny_backbone)


def never() -> onnx.ModelProto:
    pytest.fail("it was in the cache")


def test_made_once_then_found(
    maker: Maker, tiny_info: BackboneInfo, tiny_backbone: bytes, home: Path
) -> None:
    assert lookup(tiny_info) is None
    assert to_bytes(cached(tiny_info, maker)) == tiny_backbone
    assert maker.calls == 1
    assert to_bytes(cached(tiny_info, never)) == tiny_backbone
    found = lookup(tiny_info)
    assert found is not None
    assert to_bytes(found) == tiny_backbone
    (file,) = cache_folder().iterdir()
    assert file.suffix == ".onnx"
    assert cache_folder() == home / "edge-imprint" / "backbones"


def test_what_is_found_is_ones_own(maker: Maker, tiny_info: BackboneInfo) -> None:
    """`fuse` changes a graph in place; the next one to look must not see it."""
    for _ in range(2):
        graph = cached(tiny_info, maker).graph
        assert graph.name == "backbone"
        graph.name = "changed"


def parse_weights(data: bytes) -> list[bytes]:
    return [weights.raw_data for weights in onnx.load_from_string(data).graph.initializer]


def flipped(data: bytes, at: int) -> bytes:
    damaged = bytearray(data)
    damaged[at] ^= 1
    return bytes(damaged)


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda d: b"", lambda d: b"junk", lambda d: d[:1_000], lambda d: d[:-38]),
        lambda d: flipped(d, -1),
        # A bit of a weight: the file parses, and would embed otherwise.
        lambda d: flipped(d, d.index(max(parse_weights(d), key=len)) + 8),
    ],
)
def test_a_damaged_file_is_made_anew(
    maker: Maker,
    tiny_info: BackboneInfo,
    tiny_backbone: bytes,
    damage: Callable[[bytes], bytes],
) -> None:
    cached(tiny_info, maker)
    (file,) = cache_folder().iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert lookup(tiny_info) is None
    assert to_bytes(cached(tiny_info, maker)) == tiny_backbone
    assert maker.calls == 2
    assert file.read_bytes() == whole
    assert onnx.load(file).graph == parse(tiny_backbone, "tiny").graph  # for other tools
    cached(tiny_info, never)


def test_a_cache_that_cannot_be_written(
    maker: Maker, tiny_info: BackboneInfo, tiny_backbone: bytes, home: Path
) -> None:
    (home / "edge-imprint").write_bytes(b"a file where the folder should be")
    for calls in (1, 2):
        assert to_bytes(cached(tiny_info, maker)) == tiny_backbone
        assert maker.calls == calls
    assert lookup(tiny_info) is None


def test_a_folder_in_the_files_place(
    maker: Maker, tiny_info: BackboneInfo, tiny_backbone: bytes
) -> None:
    cached(tiny_info, maker)
    (file,) = cache_folder().iterdir()
    file.unlink()
    file.mkdir()
    assert to_bytes(cached(tiny_info, maker)) == tiny_backbone


def test_the_key_is_all_that_decides_the_graph(
    maker: Maker, tiny_info: BackboneInfo, tiny_preprocess: Preprocess
) -> None:
    cached(tiny_info, maker)
    taller = dataclasses.replace(tiny_preprocess, height=32)
    wider = dataclasses.replace(tiny_preprocess, width=32)
    for other in (
        dataclasses.replace(tiny_info, digest="0" * 64),
        dataclasses.replace(tiny_info, preprocess=taller),
        dataclasses.replace(tiny_info, preprocess=wider),
    ):
        assert lookup(other) is None
    dark = dataclasses.replace(tiny_preprocess, mean=(0.0, 0.0, 0.0))
    for same in (
        dataclasses.replace(tiny_info, name="another name"),
        dataclasses.replace(tiny_info, weights="file:elsewhere"),
        dataclasses.replace(tiny_info, preprocess=dark),
    ):
        assert lookup(same) is not None


@pytest.mark.parametrize("runner", ["onnxruntime", "onnxruntime-gpu"])
def test_a_difference_is_of_the_onnx_runtime_that_ran_it(
    maker: Maker, tiny_info: BackboneInfo, monkeypatch: pytest.MonkeyPatch, runner: str
) -> None:
    cached(tiny_info, maker)
    remember_difference(tiny_info, "form", 2e-7)
    assert known_difference(tiny_info, "form") == 2e-7
    assert known_difference(tiny_info, "another form") is None
    real = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "99.0" if name == runner else real(name)
    )
    assert known_difference(tiny_info, "form") is None
    assert lookup(tiny_info) is not None  # the graph itself is not of it


def test_what_make_raises_comes_through(tiny_info: BackboneInfo) -> None:
    def fail() -> onnx.ModelProto:
        raise BackboneExportError("no")

    with pytest.raises(BackboneExportError, match="no"):
        cached(tiny_info, fail)
    assert not cache_folder().exists()


@pytest.mark.parametrize("home_variable", [None, ""])
def test_without_the_variable_it_is_in_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home_variable: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if home_variable is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", home_variable)
    assert cache_folder() == tmp_path / ".cache" / "edge-imprint" / "backbones"

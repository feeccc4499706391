# SPDX-License-Identifier: Apache-2.0
"""Timings of builds before: used again, never trusted when damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime.engine import compile_engine
from edge_imprint_runtime.engine.tensorrt_api import load
from edge_imprint_runtime.engine.timing import TimingCache, timing_cache_path
from edge_imprint_runtime.errors import EngineFileError
from tests.standins import World, tensorrt_standin


def times_in(path: Path) -> dict[str, float]:
    content = path.read_bytes()
    found: dict[str, float] = json.loads(content[content.index(b"cache") + 5 :])[1]
    return found


def test_one_file_a_version_and_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    name = timing_cache_path("10.3.0.30", "NVIDIA RTX / A2000", "8.6")
    assert name == (
        tmp_path / "edge-imprint/timing/tensorrt-10.3.0.30-NVIDIA-RTX-A2000-sm86.timing"
    )
    assert timing_cache_path("10.3.0.30", "../..", "8.6").parent == name.parent


def test_timings_are_kept_and_used(world: World, model: Path) -> None:
    place = timing_cache_path(world.version, "Orin", "8.7")
    notes: list[str] = []
    compile_engine(model, model.with_suffix(".engine"), note=notes.append)
    first = times_in(place)
    assert len(first) > 10
    content = place.read_bytes()
    edited = first | {"kept": 7.0}
    rewrite(world, place, edited)
    assert place.read_bytes() != content
    compile_engine(model, model.with_suffix(".engine"), note=notes.append, force=True)
    assert times_in(place) == edited  # it began with what was there
    assert len(notes) == 2  # the first-run warnings only


def rewrite(world: World, place: Path, times: dict[str, float]) -> None:
    import hashlib

    data = b"cache" + json.dumps([[world.version, world.gpu_name], times]).encode()
    place.write_bytes(b"edge-imprint.timing 1\n" + hashlib.sha256(data).digest() + data)


def test_what_others_measured_meanwhile_stays(one_world: World, tmp_path: Path) -> None:
    api = load()
    place = tmp_path / "t"
    builder = api.builder(api.log())
    configs, caches = [], []
    for _ in range(2):
        configs.append(builder.create_builder_config())
        caches.append(TimingCache(api, place, given=True))
        caches[-1].attach(configs[-1])
    for number, (config, cache) in enumerate(zip(configs, caches, strict=True)):
        config.cache.times[f"layer {number}"] = 1.0
        cache.save(config)
        assert cache.notes == []
    assert times_in(place) == {"layer 0": 1.0, "layer 1": 1.0}


@given(data=st.data())
def test_a_damaged_file_is_noticed_said_and_made_anew(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    place = tmp_path_factory.mktemp("t") / "t"
    with tensorrt_standin("10.3.0.30") as world:
        rewrite(world, place, {"layer": 1.0})
        content = bytearray(place.read_bytes())
        start = len(b"edge-imprint.timing 1\n")
        if data.draw(st.booleans()):
            del content[data.draw(st.integers(start, len(content) - 1)) :]
        else:
            bit = data.draw(st.integers(8 * start, 8 * len(content) - 1))
            content[bit // 8] ^= 1 << bit % 8
        place.write_bytes(content)
        api = load()
        config = api.builder(api.log()).create_builder_config()
        cache = TimingCache(api, place, given=True)
        cache.attach(config)
        assert cache.notes == [f"the timing cache {place} is damaged; it is made anew"]
        assert config.cache.times == {}
        cache.save(config)
        assert times_in(place) == {}


def test_a_file_of_someone_else_is_left_alone(one_world: World, model: Path) -> None:
    mine = model.with_suffix(".cache")
    mine.write_bytes(b"trtexec's own")
    with pytest.raises(EngineFileError) as caught:
        compile_engine(model, model.with_suffix(".engine"), timing_cache=mine)
    assert str(caught.value) == (
        f"{mine} is no timing cache of edge-imprint; name another file, it would be replaced"
    )
    assert mine.read_bytes() == b"trtexec's own"
    with pytest.raises(EngineFileError, match="cannot read the timing cache"):
        compile_engine(model, model.with_suffix(".engine"), timing_cache=model.parent)


def test_another_file_of_ours(one_world: World, model: Path) -> None:
    mine = model.with_suffix(".timing")
    compile_engine(model, model.with_suffix(".engine"), timing_cache=mine)
    assert len(times_in(mine)) > 10
    assert not timing_cache_path("10.3.0.30", "Orin", "8.7").exists()


def test_timings_of_another_gpu_are_not_taken(one_world: World, model: Path) -> None:
    mine = model.with_suffix(".timing")
    rewrite(World("10.3.0.30", gpu_name="other"), mine, {"layer": 1.0})
    notes: list[str] = []
    out = model.with_suffix(".engine")
    compile_engine(model, out, timing_cache=mine, note=notes.append)
    assert notes[1:] == [f"TensorRT does not take the timings in {mine}; they are made anew"]
    assert "layer" not in times_in(mine)
    assert len(times_in(mine)) > 10


def test_a_cache_that_can_not_be_written_costs_time_only(
    one_world: World, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    notes: list[str] = []
    compile_engine(model, model.with_suffix(".engine"), note=notes.append)
    assert len(notes) == 2
    assert notes[1].startswith("the timings of this build are not kept: ")
    assert os.path.exists(model.with_suffix(".engine"))

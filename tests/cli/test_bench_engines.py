# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint bench` of engines, in this process, on a stand-in for TensorRT."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_imprint.cli import main
from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.headless import headless
from tests.standins import World, tensorrt_standin

Bench = Callable[..., tuple[int, str, str]]
QUICK = ("--iterations", "5", "--warm-up", "0.05s", "--json")


@pytest.fixture
def world() -> Iterator[World]:
    with tensorrt_standin("10.3.0.30") as made:
        yield made


@pytest.fixture
def bench(
    world: World,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_backbone: bytes,
    make_head: Callable[..., Head],
) -> Bench:
    """Return ``bench(*arguments)``: status, stdout, stderr; beside shop.onnx, .engine and
    backbone.onnx."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = to_bytes(fuse(tiny_backbone, make_head()))
    Path("shop.onnx").write_bytes(model)
    Path("backbone.onnx").write_bytes(headless(model, "shop.onnx"))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        out, err = capsys.readouterr()
        return stop.value.code, out, err  # type: ignore[return-value]

    status, _, said = run("compile", "shop.onnx", "--out", "shop.engine")
    assert status == 0, said
    return lambda *arguments: run("bench", *arguments)


def names(done: tuple[int, str, str]) -> list[str]:
    status, out, err = done
    assert status == 0, err
    report: dict[str, Any] = json.loads(out)
    return [series["name"] for series in report["series"]]


@pytest.mark.parametrize("model", [("shop.engine",), ("shop.onnx", "--beside", "shop.engine")])
def test_a_sidecar_is_no_place_for_a_report(bench: Bench, model: tuple[str, ...]) -> None:
    before = Path("shop.engine.json").read_bytes()
    assert bench(*model, "--out", "shop.engine.json", "--force") == (
        1,
        "",
        (
            "error: cannot write shop.engine.json: it is what this is made from; name another "
            "file\n"
        ),
    )
    assert Path("shop.engine.json").read_bytes() == before


def test_a_backbone_beside_an_engine_shows_what_its_head_costs(bench: Bench) -> None:
    beside = ("--beside", "backbone.onnx")
    assert names(bench("shop.engine", *beside, *QUICK)) == ["fused", "backbone only"]
    Path("again.onnx").write_bytes(Path("backbone.onnx").read_bytes())
    done = bench("shop.engine", *beside, "--beside", "again.onnx", *QUICK)
    assert names(done) == ["fused", "backbone only", "again.onnx"]
    done = bench("shop.onnx", *beside, "--beside", "shop.engine", *QUICK)
    assert names(done) == ["fused", "backbone only", "backbone.onnx", "shop.engine"]


@pytest.mark.parametrize("model", [("shop.engine",), ("shop.onnx", "--beside", "shop.engine")])
def test_an_engine_that_does_not_fit_is_compiled_again(
    bench: Bench, model: tuple[str, ...]
) -> None:
    engine = Path("shop.engine")
    engine.write_bytes(engine.read_bytes()[:-100])
    status, _, err = bench(*model, *QUICK)
    assert status == 1
    assert err.startswith("error: shop.engine ")
    assert names(bench(*model, "--rebuild", *QUICK))[0] == "fused"
    assert names(bench(*model, *QUICK))[0] == "fused"


@pytest.mark.parametrize("option", ["--rebuild", "--cuda-graph"])
def test_what_is_for_engines_is_refused_without_one(bench: Bench, option: str) -> None:
    assert bench("shop.onnx", option) == (
        2,
        "",
        (
            f"error: {option[2:].replace('-', '_')} is for engines, and shop.onnx is none; "
            "make one of it with: edge-imprint compile\n"
        ),
    )


def test_what_the_inspector_says_is_in_the_report(bench: Bench) -> None:
    status, out, err = bench("shop.engine", *QUICK)
    assert status == 0, err
    layers = json.loads(out)["engine"]["inspector"]
    assert layers
    assert all(isinstance(layer, (str, dict)) for layer in layers)

# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint compile`, in this process, where a stand-in for TensorRT can be put."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_imprint.cli import _console, main
from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.engine import read_sidecar, waiting
from edge_imprint_runtime.engine.waiting import FIRST_RUN
from tests.standins import Plan, World, tensorrt_standin

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """Return ``cli(*arguments)``: status, stdout, stderr; in a folder with ``shop.onnx``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        out, err = capsys.readouterr()
        return stop.value.code, out, err  # type: ignore[return-value]

    return run


@pytest.fixture
def shop(
    cli: Cli, tmp_path: Path, tiny_backbone: bytes, make_head: Callable[..., Head]
) -> Callable[..., None]:
    """Return ``shop(name, **head)``, which writes a model."""

    def write(name: str = "shop.onnx", **head: Any) -> None:
        (tmp_path / name).write_bytes(to_bytes(fuse(tiny_backbone, make_head(**head))))

    write()
    return write


@pytest.fixture
def world() -> Iterator[World]:
    with tensorrt_standin("10.3.0.30") as made:
        yield made


COMPILE = ("compile", "shop.onnx", "--out", "shop.engine")


def test_what_is_printed(cli: Cli, shop: Any, world: World) -> None:
    status, out, err = cli(*COMPILE, "--batch", "1,2,4")
    assert status == 0
    size = f"{os.path.getsize('shop.engine') / 1e3:.0f} kB"
    assert re.fullmatch(
        rf"shop\.engine: built in [0-9.]+ s, {size}, TensorRT 10\.3\.0\.30, Orin \(8\.7\), "
        r"fp32\n"
        r"shop\.engine\.json: batch 1 to 4, fastest at 2\n",
        out,
    )
    assert err == f"{FIRST_RUN}\ncompiling ...\n"


def test_json(cli: Cli, shop: Any, world: World) -> None:
    status, out, _ = cli(*COMPILE, "--json", "--workspace", "2GB")
    found = json.loads(out)
    assert status == 0
    assert found["engine"] == "shop.engine"
    assert found["sidecar"] == "shop.engine.json"
    made = read_sidecar("shop.engine").as_json()
    assert (
        found.items()
        >= {
            key: made[key]
            for key in ("tensorrt", "gpu_name", "model_sha256", "build_s", "profile")
        }.items()
    )
    assert found["workspace_bytes"] == 2 * 10**9
    assert "metadata" not in found


def test_a_build_is_never_silent(cli: Cli, shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_BEAT_S", 0.05)
    monkeypatch.setattr(_console, "_LINE_S", 1)
    with tensorrt_standin("8.5.3.1", build_s=2.3):
        status, _, err = cli(*COMPILE)
    assert status == 0
    assert err.splitlines() == [
        FIRST_RUN,
        "compiling ...",
        "compiling, 1 s so far",
        "compiling, 2 s so far",
    ]


def test_a_log_shows_how_far_a_build_is(
    cli: Cli, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_BEAT_S", 0.05)
    monkeypatch.setattr(_console, "_LINE_S", 1)
    with tensorrt_standin("10.3.0.30", build_s=1.3):
        status, _, err = cli(*COMPILE)
    assert status == 0
    assert err.startswith(f"{FIRST_RUN}\ncompiling ...\n")
    assert re.search(r"^compiling, 1 s so far \([0-9]+ %\)$", err, re.MULTILINE)


def test_options_reach_the_build(cli: Cli, shop: Any, world: World) -> None:
    status, out, _ = cli(
        *COMPILE,
        *("--batch", "4", "--workspace", "64MiB", "--timing-cache", "my.timing"),
        *("--version-compatible", "--hardware-compatible", "ampere+", "--refittable"),
        *("--optimization-level", "1", "--own-kernels", "--contexts", "2"),
    )
    assert status == 0
    made = read_sidecar("shop.engine")
    assert made.batch == (4, 4, 4)
    assert made.workspace_bytes == 64 * 2**20
    assert (made.version_compatible, made.hardware_compatible) == (True, "ampere+")
    assert (made.refittable, made.optimization_level) == (True, 1)
    assert (made.own_kernels, made.contexts) == (True, 2)
    assert os.path.isfile("my.timing")
    assert "fp32 (REFIT_INDIVIDUAL VERSION_COMPATIBLE)" in out


def test_refit(cli: Cli, shop: Callable[..., None], world: World) -> None:
    assert cli(*COMPILE, "--refittable")[0] == 0
    shop("new.onnx", seed=4)
    refit = ("compile", "new.onnx", "--out", "new.engine", "--refit", "shop.engine")
    status, out, err = cli(*refit)
    assert status == 0
    assert out.startswith("new.engine: refitted in ")
    assert err == ""
    model = Path("new.onnx").read_bytes()
    assert read_sidecar("new.engine").model_file == "new.onnx"
    assert Plan.unpack(Path("new.engine").read_bytes()).onnx == model
    assert Plan.unpack(Path("shop.engine").read_bytes()).onnx != model
    status, _, err = cli(*refit, "--batch", "1,1,4")
    assert status == 2
    assert err == (
        "error: --batch says how an engine is built, and --refit builds none; leave it out; "
        "see 'edge-imprint compile --help'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ("--batch", "1,2"),
            2,
            (
                "Invalid value for --batch: must be the fewest, usual and most images such as "
                "1,1,8, got '1,2'; see 'edge-imprint compile --help'"
            ),
        ),
        (
            ("--batch", "0"),
            2,
            (
                "--batch must be the fewest, usual and most images, such as 1,1,8, in this "
                "order and from 1 to 4096, got 0,0,0"
            ),
        ),
        (
            ("--workspace", "2TB"),
            2,
            (
                "Invalid value for --workspace: must be bytes such as 2GB, 512MB or 1GiB, got "
                "'2TB'; see 'edge-imprint compile --help'"
            ),
        ),
        (
            ("--frame-size", "1280"),
            2,
            (
                "Invalid value for --frame-size: must be WIDTHxHEIGHT such as 1280x720, got "
                "'1280'; see 'edge-imprint compile --help'"
            ),
        ),
        (
            ("--hardware-compatible", "all"),
            2,
            (
                "--hardware-compatible must be one of none, ampere+, "
                "same_compute_capability, "
                "got 'all'"
            ),
        ),
        (
            ("--optimization-level", "9"),
            2,
            "the optimisation level must be a whole number from 0 to 5, got 9",
        ),
        (
            ("--hardware-compatible", "same_compute_capability"),
            2,
            (
                "TensorRT 10.3.0.30 has no engines for other GPUs (same_compute_capability), "
                "TensorRT 10.13 and newer have; leave the option out"
            ),
        ),
    ],
)
def test_bad_options(
    cli: Cli, shop: Any, world: World, arguments: tuple[str, ...], status: int, message: str
) -> None:
    got, out, err = cli(*COMPILE, *arguments)
    assert (got, out) == (status, "")
    assert err.splitlines()[-1] == f"error: {message}"
    assert not os.path.exists("shop.engine")


def test_a_damaged_timing_cache_is_told(cli: Cli, shop: Any, world: World) -> None:
    assert cli(*COMPILE)[0] == 0
    (place,) = Path("cache/edge-imprint/timing").iterdir()
    place.write_bytes(place.read_bytes()[:-1])
    status, _, err = cli(*COMPILE, "--force")
    assert status == 0
    assert err.splitlines()[-1] == (
        f"the timing cache {place.absolute()} is damaged; it is made anew"
    )


def test_without_tensorrt(cli: Cli, shop: Any) -> None:
    status, out, err = cli(*COMPILE)
    assert (status, out) == (1, "")
    assert err == (
        "error: compiling an engine needs the package 'tensorrt', which is not installed "
        "here; run: pip install 'edge-imprint[tensorrt]'\n"
    )


def test_without_a_gpu(cli: Cli, shop: Any, world: World) -> None:
    world.devices = 0
    status, out, err = cli(*COMPILE)
    assert (status, out) == (1, "")
    assert err.startswith("error: no GPU can be used: ")
    assert err.count("\n") == 1


def test_an_engine_is_replaced_with_force_only(cli: Cli, shop: Any, world: World) -> None:
    assert cli(*COMPILE)[0] == 0
    status, _, err = cli(*COMPILE)
    assert status == 1
    assert err == (
        "error: shop.engine exists already; pass --force (in Python force=True) to replace "
        "it\n"
    )
    assert cli(*COMPILE, "--force")[0] == 0


def test_a_folder_that_can_not_be_written(
    cli: Cli, shop: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkdir("kept")
    os.chmod("kept", stat.S_IRUSR | stat.S_IXUSR)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("kept"))
    status, _, err = cli("compile", "shop.onnx", "--out", "kept/e")
    assert status == 1
    assert err == "error: cannot write kept/e: the folder kept is not writable\n"
    assert not world.called("parse")


def test_another_file_in_place_of_a_model(cli: Cli, shop: Any, world: World) -> None:
    Path("text.onnx").write_text("no model")
    status, _, err = cli("compile", "text.onnx", "--out", "e")
    assert status == 1
    assert err.startswith("error: text.onnx is not an ONNX model: ")
    assert cli("compile", "gone.onnx", "--out", "e")[2] == (
        "error: cannot read gone.onnx: there is no such file\n"
    )


def test_a_backbone_alone(cli: Cli, run: Any, workshop: Any, world: World) -> None:
    """Exported, compiled, inspected, and measured beside nothing."""
    exported = run("export", workshop.head, "--part", "backbone", "--out", "bb.onnx")
    assert exported.returncode == 0, exported.stderr
    status, out, _ = cli("compile", "bb.onnx", "--out", "bb.engine")
    assert status == 0
    assert out.endswith("bb.engine.json: batch 1 to 8, fastest at 1\n")
    status, out, _ = cli("inspect", "bb.engine", "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["kind"] == "engine of a backbone alone"
    assert facts["embedding_size"] == 8
    assert facts["precision"] == "fp32"
    assert facts["engine_tensorrt"] == "10.3.0.30"
    assert facts["note_backbone"] == workshop.backbone
    assert "labels" not in facts
    status, out, _ = cli("inspect", "bb.engine")
    assert status == 0
    assert "kind               engine of a backbone alone\n" in out
    status, _, err = cli("predict", "bb.engine", str(workshop.photos))
    assert status == 1
    assert err == (
        "error: bb.engine is a backbone alone, which answers embeddings to programs of your "
        "own; export it with its head to classify with it\n"
    )


def test_a_rebuild_shows_how_far_it_is(
    cli: Cli, shop: Any, workshop: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(waiting, "_BEAT_S", 0.05)
    monkeypatch.setattr(_console, "_LINE_S", 1)
    with tensorrt_standin("8.5.3.1"):
        assert cli(*COMPILE)[0] == 0
    with tensorrt_standin("8.6.2.3", build_s=1.3):
        status, out, err = cli("predict", "shop.engine", str(workshop.photos), "--rebuild")
        assert status == 0
        assert len(out.splitlines()) == 18
        assert err == "compiling ...\ncompiling, 1 s so far\n"
        assert caplog.messages == [FIRST_RUN]
        status, _, err = cli("predict", "shop.engine", str(workshop.photos), "--rebuild")
        assert (status, err) == (0, "")  # it fits now

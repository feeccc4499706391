# SPDX-License-Identifier: Apache-2.0
"""A device with `pip install edge-imprint[cpu]` alone: what it has to do works there."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
from collections.abc import Callable
from html import escape
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from edge_imprint.bench_page import NO_CHARTS
from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import Teachable
from edge_imprint_runtime.knowledge import head_beside

MakeHead = Callable[..., Head]
Command = Callable[..., "subprocess.CompletedProcess[str]"]

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# What the host needs, or a device with a GPU, and nothing here may.
HEAVY = ("cuda", "matplotlib", "onnx", "onnxscript", "pynvml", "scipy", "sklearn")
HEAVY += ("tensorrt", "timm", "torch", "torchvision")
# How pip says that there is no index to install from.
NO_INDEX = (
    "Connection",
    "Failed to establish",
    "IncompleteRead",
    "Max retries",
    "name resolution",
    "Network is unreachable",
    "ProxyError",
    "Server Error",
    "SSLError",
    "timed out",
    "Too Many Requests",
)
MAX_OWN_BYTES = 10_000_000
MAX_BYTES = 400_000_000


@pytest.fixture(scope="session")
def minimal() -> ModuleType:
    """The script that makes such an environment and measures it: it is no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("minimal_install")


@pytest.fixture(scope="session")
def python(minimal: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with nothing but the package and its extra ``cpu``."""
    try:
        made: Path = minimal.make_environment(tmp_path_factory.mktemp("minimal") / "venv")
    except subprocess.CalledProcessError as error:
        words = error.stderr or ""
        if any(sign in words for sign in NO_INDEX):
            pytest.skip("needs a package index to install from, and pip can reach none")
        raise AssertionError(words) from error
    return made


@pytest.fixture
def device(
    minimal: ModuleType,
    python: Path,
    tiny_backbone: bytes,
    make_head: MakeHead,
    tmp_path: Path,
) -> Command:
    """A folder with a teachable model and photos; returns what runs a command there."""
    head = make_head()
    (tmp_path / "shop.onnx").write_bytes(
        to_bytes(fuse(tiny_backbone, head, teachable=Teachable(), outputs=OUTPUTS))
    )
    head.save(head_beside(tmp_path / "shop.onnx"))
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "b.png"):
        pixels = rng.integers(0, 256, (40, 30, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = python.parent / "edge-imprint"
        cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        return subprocess.run(
            [command, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=minimal.clean_environment() | cache,
        )

    return run


OUTPUTS = ("scores", "label", "embedding")
BENCH = ("bench", "shop.onnx", "--threads", "1", "--iterations", "60", "--warm-up", "1s")
# Commands one after another, and what the last prints.
COMMANDS = {
    "help": ([("--help",)], "Commands"),
    "predict": ([("predict", "shop.onnx", "photos")], "b.png"),
    "predict --json": ([("predict", "shop.onnx", "photos", "--json")], '"probability"'),
    "inspect": ([("inspect", "shop.onnx")], "labels"),
    "inspect HEAD": ([("inspect", "shop.onnx.head", "--json")], '"labels"'),
    "teach": (
        [
            ("teach", "shop.onnx", "photos/a.jpg", "--class", "pear"),
            ("predict", "shop.onnx", "photos/a.jpg"),
        ],
        "'pear'",
    ),
    "bench": ([(*BENCH, "--stages", "--layers")], "p99"),
    "report": (
        [
            (*BENCH, "--out", "report.json"),
            ("report", "report.json", "--markdown", "report.md"),
        ],
        "p50",
    ),
    "report --json": (
        [(*BENCH, "--out", "report.json"), ("report", "report.json", "--json")],
        '"series"',
    ),
    "doctor": ([("doctor",)], "CPU"),
    "doctor --json": ([("doctor", "--json")], '"CPUExecutionProvider"'),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_works(device: Command, name: str) -> None:
    commands, wanted = COMMANDS[name]
    for arguments in commands:
        done = device(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert wanted in done.stdout
    if "--json" in commands[-1]:
        assert all(json.loads(line) for line in done.stdout.splitlines())


def test_bench_measures_the_backbone_alone_too(device: Command) -> None:
    done = device(*BENCH, "--json")
    assert done.returncode == 0, done.stderr
    series = json.loads(done.stdout)["series"]
    assert [one["name"] for one in series] == ["fused", "backbone only"]


def test_the_page_comes_without_pictures(device: Command, tmp_path: Path) -> None:
    assert device(*BENCH, "--out", "report.json").returncode == 0
    for arguments in (("report.json",), ("report.json", "report.json", "--force")):
        done = device("report", *arguments, "--html", "page.html")
        assert done.returncode == 0, done.stderr
        page = (tmp_path / "page.html").read_text()
        assert escape(NO_CHARTS) in page
        assert "backbone only" in page
        assert not re.findall(r"<(?:img|svg|script|link)\b", page)
        (tmp_path / "page.html").unlink()


def test_what_the_host_does_names_what_is_missing(device: Command) -> None:
    done = device("export", "shop.onnx.head", "--out", "other.onnx")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_heavy_is_there(python: Path, minimal: ModuleType) -> None:
    code = (
        "import importlib.util, json, sys\n"
        "print(json.dumps([n for n in sys.argv[1:] if importlib.util.find_spec(n)]))\n"
    )
    found = subprocess.run(
        [python, "-c", code, *HEAVY],
        capture_output=True,
        text=True,
        check=True,
        env=minimal.clean_environment(),
    )
    assert json.loads(found.stdout) == []


def test_it_is_small(python: Path, minimal: ModuleType) -> None:
    sizes: dict[str, int] = minimal.installed_bytes(python)
    own = sum(size for name, size in sizes.items() if name.startswith("edge_imprint"))
    largest = ", ".join(
        f"{name} {size / 1e6:.1f} MB" for name, size in list(sizes.items())[:5]
    )
    print(f"{sum(sizes.values()) / 1e6:.1f} MB, of which {own / 1e6:.2f} MB ours; {largest}")
    taken = minimal.import_seconds(python, 3)
    print({what: f"{min(seconds) * 1e3:.0f} ms" for what, seconds in taken.items()})
    assert own < MAX_OWN_BYTES
    assert sum(sizes.values()) < MAX_BYTES

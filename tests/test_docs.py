# SPDX-License-Identifier: Apache-2.0
"""What the documents say is done: commands run, code runs, links lead somewhere."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
from PIL import Image

from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import codec

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with the photos that the README speaks of."""
    rng = np.random.default_rng(0)
    for name, color in {"apple": (200, 40, 40), "pear": (90, 200, 60)}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            noisy = np.clip(np.array(color) + rng.normal(0, 30, (60, 80, 3)), 0, 255)
            suffix = "png" if name == "pear" else "jpg"
            file = tmp_path / "photos" / name / f"{number}.{suffix}"
            Image.fromarray(noisy.astype(np.uint8)).save(file)
    (tmp_path / "new").mkdir()
    for number in range(1, 4):
        noisy = np.clip(np.array([90, 30, 120]) + rng.normal(0, 30, (60, 80, 3)), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(tmp_path / "new" / f"{number}.jpg")
    return tmp_path


def run_block(number: int, folder: Path) -> list[str]:
    """Run commands as written, but without the download and with fewer samples."""
    random = ["--random-weights"]
    instead = {
        "evaluate": random,
        "build": random,
        "bench": ["--iterations", "20", "--warm-up", "1s"],
    }
    ran = []
    for line in blocks("bash")[number].splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "pip":
            continue  # the environment that runs the tests has it; see the extras' test
        if any(word.startswith("s3://") for word in words):
            continue  # nobody's bucket; see tests/host/photos
        assert words[0] == "edge-imprint"
        extra = [] if "--weights" in words else instead.get(words[1], [])
        command = [str(Path(sys.executable).parent / words[0]), *words[1:]]
        done = subprocess.run(
            command + extra,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)
        ran.append(words[1])
    return ran


def test_readme_commands_for_own_photos(folder: Path) -> None:
    ran = run_block(1, folder)
    assert ran[:4] == ["evaluate", "build", "export", "check"]
    assert ran[4:] == ["verify", "predict", "inspect", "bench", "report"]
    assert (folder / "shop.onnx").is_file()
    assert (folder / "latency.json").is_file()


def test_readme_commands_for_any_backbone(folder: Path) -> None:
    module = timm.create_model("resnet18")
    safetensors.torch.save_file(module.state_dict(), folder / "mine.safetensors")
    assert run_block(2, folder) == ["backbones", *["build"] * 3, "cache"]
    heads = [Head.load(folder / f"{name}.imprint") for name in ("other", "earlier", "own")]
    assert [head.embedding_size for head in heads] == [1024, 256, 512]


def test_readme_commands_for_a_device(folder: Path) -> None:
    assert run_block(3, folder) == ["build", *["export"] * 4, "teach"]
    assert (folder / "learns.onnx.head").is_file()
    sizes = [(folder / f"{name}.onnx").stat().st_size for name in ("learns", "orin", "cpu")]
    assert sizes[1] < 0.52 * sizes[0]
    assert sizes[2] < 0.27 * sizes[0]


def test_readme_commands_on_the_device() -> None:
    """They want a GPU; that they are commands, with their options, needs none."""
    from edge_imprint.cli import _COMMANDS

    for line in blocks("bash")[4].splitlines():
        program, name, *words = shlex.split(line, comments=True)
        assert program == "edge-imprint"
        module = importlib.import_module(f"edge_imprint.cli.{_COMMANDS[name][0]}")
        getattr(module, name).make_context(name, words)
    reports = re.search(r"report (\S+) (\S+) .*--fail-if-slower", blocks("bash")[4])
    assert reports is not None
    written = re.findall(r"bench \S+\.engine .*--out (\S+)", blocks("bash")[4])
    assert written == list(reports.groups())  # of this device, and not of the CPU


def test_readme_python(folder: Path) -> None:
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["apple", "pear"]
    assert len([line for line in code.splitlines() if line.strip()]) <= 12


def test_make_demo() -> None:
    """The README's first command, in this checkout's own environment."""
    if not (ROOT / ".venv" / ".demo").exists():
        pytest.skip("make demo would install: this checkout's .venv was not made by make")
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(
        ["make", "demo"], cwd=ROOT, capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    assert "100.00% of 1797 labels agree" in done.stdout
    assert re.search(
        r"latency:   p50 [0-9.]+ ms, p99 [0-9.]+ ms on CPUExecutionProvider\n", done.stdout
    )
    assert (ROOT / "demo-out" / "report.html").is_file()


def test_readme_extras_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for extras in re.findall(r"pip install '\.\[(.*?)\]'", README):
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", project, re.M), extra


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def _anchors(page: Path) -> set[str]:
    """Return what GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_pages_meet_a_heading(page: Path) -> None:
    for file, anchor in re.findall(r"\]\(([\w./-]*)#([^)]+)\)", page.read_text()):
        assert anchor in _anchors(page.parent / file if file else page), (file, anchor)


def test_measuring_page_lists_every_option_and_finding() -> None:
    from edge_imprint.cli._bench import bench

    page = (ROOT / "docs" / "measuring.md").read_text()
    options = page.partition("## Options")[2].partition("\n## ")[0]
    listed = re.findall(r"--[a-z-]+", "".join(re.findall(r"^\| (.+?) \|", options, re.M)))
    known = {name for option in bench.params for name in option.opts if name[:2] == "--"}
    assert set(listed) == known
    findings = page.partition("## Findings")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", findings, re.M)
    codes = set(re.findall(r"`(\w+)`", "".join(cells)))
    sources = (ROOT / "runtime/edge_imprint_runtime/measuring").glob("*.py")
    told = set[str]()
    for file in sources:
        text = file.read_text()
        told |= set(re.findall(r"(?:Finding|_find)\(\s*\"(\w+)\"", text))
        told |= {f"{part}_failed" for part in re.findall(r"\.tried\(\"(\w+)\"", text)}
    assert codes == told


def test_contract_page_lists_the_codes_keys() -> None:
    page = (ROOT / "docs" / "contract.md").read_text()
    rows = re.findall(r"^\| `edge_imprint\.([a-z_]+)` \| (\S+) \| (\S+)", page, re.M)
    assert [key for key, _, _ in rows] == list(codec.MODEL_KEYS)
    in_a_head = [key for key, _, head in rows if head == "required"]
    assert in_a_head == list(codec.HEAD_KEYS)


def test_readme_lists_every_command() -> None:
    from edge_imprint.cli import _COMMANDS

    table = re.findall(r"^\| `edge-imprint (\w+)", README, re.M)
    assert table == list(_COMMANDS)

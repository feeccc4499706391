# SPDX-License-Identifier: Apache-2.0
"""The pages for a Jetson and of the C library: commands run, the service classifies."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edge_imprint
from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.contract import Frame, Teachable
from edge_imprint_runtime.knowledge import head_beside
from tests.c.building import ROOT, run, tool
from tests.c.shop import Program, picture

MakeHead = Callable[..., Head]

UNIT = ROOT / "packaging" / "edge-imprint-classify.service"
CONTAINER = ROOT / "packaging" / "Containerfile"
JETSON = (ROOT / "docs" / "jetson.md").read_text()
PAGE = (ROOT / "docs" / "c.md").read_text()

# What wants the board, its camera, another host, or to change this machine.
ELSEWHERE = {
    "cat",
    "docker",
    "echo",
    "export",
    "gst-launch-1.0",
    "journalctl",
    "nvpmodel",
    "scp",
    "sudo",
    "v4l2-ctl",
    "./build.sh",
}


def commands(page: str) -> list[str]:
    """List the commands of a page's bash blocks, each as one line."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S)
    joined = "".join(blocks).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip()]


@pytest.fixture
def folder(tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path) -> Path:
    """A checkout with a model and photos, as the pages have it before them."""
    for name in ("runtime", "packaging", "docs", "LICENSE"):
        (tmp_path / name).symlink_to(ROOT / name)
    head, model = make_head(3, 2), tmp_path / "shop.onnx"
    teachable = Teachable("default", 8, 3)
    model.write_bytes(to_bytes(fuse(tiny_backbone, head, teachable=teachable)))
    head.save(head_beside(model))
    (tmp_path / "photos" / "mango").mkdir(parents=True)
    for seed in range(3):
        Image.fromarray(picture(seed)).save(tmp_path / "photos" / f"{seed}.jpg")
        Image.fromarray(picture(seed + 9)).save(tmp_path / "photos" / "mango" / f"{seed}.png")
    return tmp_path


@pytest.fixture
def environment(c_build: Path, ort_library: Path) -> dict[str, str]:
    """The programs of this build and of this Python come first."""
    path = os.pathsep.join(
        [str(c_build), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    return {**os.environ, "PATH": path, "EDGE_IMPRINT_ONNXRUNTIME": str(ort_library)}


def run_line(
    line: str, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euc", line],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def test_jetson_commands(folder: Path, environment: dict[str, str]) -> None:
    ran = []
    for line in commands(JETSON):
        words = shlex.split(line, comments=True)
        if words[0] in ELSEWHERE or {"--camera", "--provider", "compared.html"} & {*words}:
            continue  # below they are checked for their options
        if words[:2] == ["edge-imprint", "export"]:
            continue  # the host's part, in the tests of that command
        if words[0] == "cmake" and "--build" in words:
            continue  # c_build is that build
        more = " --iterations 20 --warm-up 1s" if words[0] == "ei-bench" else ""
        done = run_line(line.partition(" #")[0] + more, folder, environment)
        assert done.returncode == 0 or words[:2] == ["edge-imprint", "doctor"], (
            line,
            done.stderr,
        )
        ran.append(words[0])
    assert ran.count("ei-classify") == 2
    for name in ("cmake", "ei-teach", "ei-bench", "edge-imprint"):
        assert name in ran
    assert Head.load(folder / "shop.onnx.head").labels[-1] == "mango"


@pytest.mark.parametrize("program", ["ei-classify", "ei-teach", "ei-bench"])
def test_options_that_the_pages_name_exist(program: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [program, "--help"], env=environment, capture_output=True, text=True, check=True
    )
    known = set(re.findall(r"^  (--[a-z-]+)", done.stdout, re.M))
    lines = [*commands(JETSON), *PAGE.splitlines(), *UNIT.read_text().splitlines()]
    named: set[str] = set()
    for line in lines:
        _, found, rest = line.partition(f"{program} ")
        if found:
            named |= set(
                re.findall(r"(?<![\w-])--[a-z-]+", rest.partition("#")[0].partition(";")[0])
            )
    assert named
    assert named <= known


def test_provider_lines_fail_rather_than_run_elsewhere(
    folder: Path, environment: dict[str, str]
) -> None:
    """Here is no GPU: what asks for one says so."""
    lines = [
        line for line in commands(JETSON) if line.startswith("ei-") and "--provider" in line
    ]
    assert len(lines) == 3
    for line in lines:
        done = run_line(line.partition(" #")[0], folder, environment)
        assert done.returncode == 1, done.stdout
        assert "error: " in done.stderr
        assert not (folder / "tensorrt.json").exists()


def test_c_page_commands(folder: Path, environment: dict[str, str]) -> None:
    """Built, installed, and the example built with it, all as written."""
    tool("pkg-config")
    done = run_line("\n".join(commands(PAGE)), folder, environment)
    assert done.returncode == 0, done.stderr[-3000:]
    shown = subprocess.run(
        [folder / "minimal"],
        cwd=folder,
        env=environment
        | {
            "LD_LIBRARY_PATH": str(
                next((folder / "build").rglob("libedge_imprint.so.0")).parent
            )
        },
        input=bytes(224 * 224 * 3),
        capture_output=True,
        check=False,
    )
    assert shown.returncode == 1
    assert b"16 x 16" in shown.stderr  # what the model takes
    assert (folder / "build" / "examples" / "two_threads").is_file()


def test_c_page_lists_every_status() -> None:
    header = (ROOT / "runtime" / "c" / "include" / "edge_imprint.h").read_text()
    values = dict(re.findall(r"^    (EI_\w+) = (\d+)[,\s]", header, re.M))
    statuses = list(values)[: list(values).index("EI_WRITE_FAILED") + 1]
    table = PAGE.partition("## Errors")[2].partition("\n## ")[0]
    listed: list[str] = []
    for row in re.findall(r"^\| (`.+?) \|", table, re.M):
        names = re.findall(r"`(EI_\w+)`", row)
        if " to " in row:
            first, last = (statuses.index(name) for name in names)
            names = statuses[first : last + 1]
        listed += names
    assert sorted(listed) == sorted(set(statuses) - {"EI_OK"})


def test_packages_are_called_as_they_are_made() -> None:
    for name in re.findall(r"\./([\w-]+)_[\d.]+_arm64\.deb", JETSON):
        assert name in {"libedge-imprint0", "edge-imprint-tools"}
    assert f"_{edge_imprint.__version__}_arm64.deb" in JETSON


# ------------------------------------------------------------------------------ service --


def unit_values(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.M))


def test_the_unit_is_sound(c_build: Path, tmp_path: Path) -> None:
    """As systemd reads it; the program's path is this build's."""
    verify = tool("systemd-analyze", "systemd")
    text = UNIT.read_text().replace("/usr/bin/ei-classify", str(c_build / "ei-classify"))
    (tmp_path / UNIT.name).write_text(text)
    done = subprocess.run(
        [verify, "verify", "--man=no", tmp_path / UNIT.name],
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, told) == (0, []), done.stderr
    (tmp_path / UNIT.name).write_text(text.replace("RestartSec=2", "RestartSec=two"))
    done = subprocess.run(
        [verify, "verify", "--man=no", tmp_path / UNIT.name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert UNIT.name in done.stderr  # it does look


def test_the_services_command_classifies_a_pipe(
    c_build: Path, ort_library: Path, tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path
) -> None:
    """ExecStart as it stands, with its variables, on a pipe that writers come to and leave."""
    program = Program(c_build / "ei-classify", ort_library)
    model, pipe = tmp_path / "model.onnx", tmp_path / "run" / "frames"
    pipe.parent.mkdir()
    frame = Frame("nv12", 24, 40)
    model.write_bytes(to_bytes(fuse(tiny_backbone, make_head(), input="frame", frame=frame)))
    command = unit_values(UNIT.read_text())["ExecStart"]
    command = command.replace("/usr/bin/ei-classify", str(program.path))
    command = command.replace("/run/edge-imprint/frames", str(pipe))
    given = {"MODEL": str(model), "OPTIONS": "--frame 40x24 --format nv12 --count 3"}
    data = np.random.default_rng(0).integers(0, 256, 1440, np.uint8).tobytes()
    with subprocess.Popen(
        ["bash", "-c", f"umask {unit_values(UNIT.read_text())['UMask']}; exec {command}"],
        env=program.environment | given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        stop = threading.Timer(300, process.kill)
        stop.start()
        assert process.stdout is not None
        while not pipe.exists():
            assert process.poll() is None
        assert pipe.stat().st_mode & 0o777 == 0o660
        for number in range(3):
            pipe.write_bytes(data)
            assert process.stdout.readline().startswith(
                f'{{"frame": {number}, "label": "class '
            )
        assert process.wait(300) == 0
        stop.cancel()
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_what_the_page_says_of_the_service_is_in_the_unit() -> None:
    text = UNIT.read_text()
    for path in re.findall(
        r"/(?:etc|run|opt)/\S*?(?:frames|classify\.conf|model\.onnx)", JETSON
    ):
        assert path in text
    assert unit_values(text)["Group"] == "video"
    section = JETSON.partition("## 7. A service")[2].partition("\n## ")[0]
    written = re.findall(r"echo '(\w+)=", section)
    assert written == ["OPTIONS", "EDGE_IMPRINT_ONNXRUNTIME"]
    assert all(f"{name}=" in text for name in written)


# ---------------------------------------------------------------------------- container --


def test_the_containers_commands(c_build: Path, tmp_path: Path) -> None:
    """What it copies is there, its steps are the page's, and what it runs is installed."""
    text = CONTAINER.read_text().replace("\\\n", " ")
    copies = re.findall(r"^COPY (?!--)(\S+) (\S+)$", text, re.M)
    assert [source for source, _ in copies if (ROOT / source).exists()] == [
        "LICENSE",
        "runtime/c",
    ]
    (line,) = (line for line in re.findall(r"^RUN (.*)$", text, re.M) if "cmake -S" in line)
    configure, build, install = (shlex.split(part) for part in line.split("&&"))
    asked = [shlex.split(command) for command in commands(PAGE) if command.startswith("cmake")]
    assert configure[:5] == ["cmake", "-S", "/source/runtime/c", "-B", "/build"]
    assert configure[5].startswith("-DCMAKE_INSTALL_PREFIX=") and len(configure) == 6
    assert [asked[0][2], asked[0][5][:23]] == ["runtime/c", configure[5][:23]]
    assert build == ["cmake", "--build", "/build", "--parallel"]
    assert install == ["DESTDIR=/out", "cmake", "--install", "/build", "--strip"]
    entry = re.search(r'^CMD \["(\S+)"', text, re.M)
    assert entry is not None
    environment = {"DESTDIR": str(tmp_path)}
    run(tool("cmake"), "--install", c_build, "--strip", **environment)
    (program,) = tmp_path.rglob(entry[1])
    assert run(program, "--version").stdout == f"ei-classify {edge_imprint.__version__}\n"

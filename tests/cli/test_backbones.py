# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint backbones`: what it prints, for people and for programs, and what it loads."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_a_table(run: Run) -> None:
    done = run("backbones", "mobilenet_v3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "name                            embedding  params    input  weights",
        "torchvision/mobilenet_v3_small       1024   1.52M  224x224  download",
        "torchvision/mobilenet_v3_large       1280   4.20M  224x224  download",
    ]
    assert done.stderr == "2 of 1,452 backbones\n"


def test_all_that_are_small(run: Run) -> None:
    done = run("backbones", "--max-params", "0.3")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[-1:]] == ["demo"]
    assert lines[-1].split() == ["demo", "512", "0.29M", "32x32", "here"]
    assert all(float(line.split()[2].rstrip("M")) <= 0.3 for line in lines[1:])


def test_json(run: Run) -> None:
    done = run("backbones", "resnet18", "--max-params", "11.178", "--json")
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["format"] == "edge-imprint.backbones/1"
    assert set(answer["versions"]) == {"timm", "torchvision"}
    assert answer["notes"] == []
    first, second = answer["backbones"]
    assert first == {
        "name": "timm/resnet18",
        "embedding_size": 512,
        "parameters": 11_176_512,
        "height": 224,
        "width": 224,
        "weights": "download",
        "source": "hub:timm/resnet18.a1_in1k",
    }
    assert second["name"] == "torchvision/resnet18"


def test_a_network_that_gives_no_vector(run: Run) -> None:
    done = run("backbones", "mobilenetv5_300m_enc")
    assert done.stdout.splitlines()[1].split()[1] == "-"
    answer = json.loads(run("backbones", "mobilenetv5_300m_enc", "--json").stdout)
    assert answer["backbones"][0]["embedding_size"] is None


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_name_that_nothing_has(run: Run, options: list[str]) -> None:
    done = run("backbones", "resnet81", *options)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no backbone matches 'resnet81'; nearest: ")
    assert "timm/resnet18" in line
    assert "--help" not in line


def test_a_name_that_nothing_comes_near(run: Run) -> None:
    done = run("backbones", "qqqqqqqq")
    assert done.returncode == 1
    assert done.stderr == (
        "error: no backbone matches 'qqqqqqqq'; 'edge-imprint backbones' lists all\n"
    )


def test_all_are_too_large(run: Run) -> None:
    done = run("backbones", "vgg", "--max-params", "5")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "error: no backbone that matches 'vgg' has at most 5 million parameters; "
    )
    assert line.endswith(" larger ones do")


@pytest.mark.parametrize("limit", ["0", "-3", "many"])
def test_a_limit_that_is_none(run: Run, limit: str) -> None:
    done = run("backbones", "--max-params", limit)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_goes_away(command: Path) -> None:
    line = f"'{command}' backbones | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("name ")
    assert "Traceback" not in done.stderr


def test_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys\n"
        "from edge_imprint.cli import main\n"
        "try:\n    main(['backbones', 'resnet*', '--json'])\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.strip("[]\n").replace("'", "").split(", "))
    assert "safetensors" in loaded
    assert not loaded & {"torch", "timm", "torchvision", "onnx", "huggingface_hub", "rich"}


@pytest.mark.parametrize(("columns", "longest"), [(70, 31), (80, 41), (120, 80)])
def test_rows_fit_a_terminal(command: Path, columns: int, longest: int) -> None:
    """All but those of long names, which push their own row to the right."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    words = [str(command), "backbones", "*rop*"]
    process = subprocess.Popen(words, stdout=theirs, stderr=subprocess.DEVNULL, env=env)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal ends on Linux
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert process.wait() == 0
    head, *rows = shown.decode().splitlines()
    assert len(head) <= columns
    names = [row.split()[0] for row in rows]
    assert max(map(len, names)) == 42
    short = [len(row) for row, name in zip(rows, names, strict=True) if len(name) <= longest]
    assert max(short) <= columns
    wide = [row for row, name in zip(rows, names, strict=True) if len(name) > longest]
    assert bool(wide) == (columns < 120)

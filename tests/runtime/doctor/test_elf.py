# SPDX-License-Identifier: Apache-2.0
"""What a library asks for, against readelf; damaged files ask for nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edge_imprint_runtime.doctor.elf import needed

LIBRARIES = [
    path
    for package in (onnxruntime, np)
    for path in sorted(Path(package.__file__).parent.rglob("*.so*"))[:4]
]


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf (binutils)")
@pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: str(path.name))
def test_readelf_agrees(path: Path) -> None:
    shown = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True)
    assert needed(path) == re.findall(r"\(NEEDED\)\s+Shared library: \[(.+)\]", shown.stdout)


def test_onnx_runtime_asks_for_the_c_library() -> None:
    shared = [path for path in LIBRARIES if path.name.startswith("onnxruntime_pybind11")]
    assert shared
    assert "libc.so.6" in needed(shared[0])


def test_what_is_no_library_asks_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("libc.so.6")
    (tmp_path / "empty").write_bytes(b"")
    assert needed(tmp_path / "text") == []
    assert needed(tmp_path / "empty") == []
    assert needed(tmp_path / "not there") == []
    assert needed(tmp_path) == []


def test_damage_is_no_error(tmp_path: Path) -> None:
    """Every byte of what the reader walks through may be anything."""
    whole = min(LIBRARIES, key=lambda path: path.stat().st_size).read_bytes()
    rng = np.random.default_rng(0)
    file = tmp_path / "damaged.so"
    for round_ in range(300):
        data = bytearray(whole)
        for place in rng.integers(6, 1024, 8):
            data[place] = int(rng.integers(256))
        file.write_bytes(data[: rng.integers(64, len(data))] if round_ % 3 == 0 else data)
        assert isinstance(needed(file), list)

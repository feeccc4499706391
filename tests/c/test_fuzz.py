# SPDX-License-Identifier: Apache-2.0
"""A short run of each fuzzer over its corpus; the long ones are run by hand.

python -m tests.c.fuzz.make_corpus FOLDER
build/c-tests/fuzz/fuzz_head FOLDER/found FOLDER/head tests/c/fuzz/corpus/head
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.c.building import BUILDS, SOURCE, run, tool

HERE = Path(__file__).parent / "fuzz"
SECONDS = 20
FLAGS = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
FLAGS += ["-ffp-contract=off", "-fsanitize=fuzzer,address,undefined"]
FLAGS += ["-fno-sanitize-recover=all"]
TEXT = ("contract", "contract_values", "errors", "json")
HEAD = (*TEXT, "class_tensors", "clustering", "files", "head", "head_write", "lesson")
HEAD += ("numbers", "rules", "safetensors", "teaching")
MAX_CORPUS_BYTES = 300_000
EMPTY = "int LLVMFuzzerTestOneInput(const char *data, unsigned long bytes);\n"
EMPTY += "int LLVMFuzzerTestOneInput(const char *data, unsigned long bytes)\n"
EMPTY += "{ return data && bytes ? 0 : 0; }\n"


@pytest.fixture(scope="module")
def clang(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A clang that has libFuzzer."""
    found = tool("clang")
    source = tmp_path_factory.mktemp("clang") / "empty.c"
    source.write_text(EMPTY)
    command = [found, "-fsanitize=fuzzer,address", source, "-o", source.with_suffix("")]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this clang has no libFuzzer: {tried.stderr[-200:]}")
    return found


def build(clang: str, name: str, parts: tuple[str, ...]) -> Path:
    """Build a fuzzer of one file and the library's parts that it needs."""
    folder = BUILDS / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    sources = [SOURCE / "src" / f"{part}.c" for part in parts]
    paths = [f"-I{SOURCE / 'include'}", f"-I{SOURCE / 'src'}"]
    program = folder / f"fuzz_{name}"
    run(clang, *FLAGS, *paths, HERE / f"fuzz_{name}.c", *sources, "-lm", "-o", program)
    return program


@pytest.mark.parametrize(("name", "parts"), [("contract", TEXT), ("head", HEAD)])
def test_a_fuzzer_finds_nothing(
    clang: str, tmp_path: Path, name: str, parts: tuple[str, ...]
) -> None:
    corpus = HERE / "corpus" / name
    inputs = len(list(corpus.iterdir()))
    assert inputs > 100
    (tmp_path / "found").mkdir()
    done = subprocess.run(
        [
            *(build(clang, name, parts), f"-max_total_time={SECONDS}", "-max_len=1500"),
            *("-timeout=60", "-print_final_stats=1", f"-artifact_prefix={tmp_path}/"),
            *(tmp_path / "found", corpus),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    executed = re.search(r"number_of_executed_units:\s+(\d+)", done.stderr)
    assert executed is not None
    print(f"fuzz_{name}: {executed[1]} inputs in {SECONDS} s, none of them a finding")
    assert int(executed[1]) > inputs


def test_the_corpus_is_small() -> None:
    files = [file for file in (HERE / "corpus").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= MAX_CORPUS_BYTES

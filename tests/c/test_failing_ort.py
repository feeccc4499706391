# SPDX-License-Identifier: Apache-2.0
"""Each call to ONNX Runtime fails in turn, and its words become a status and a sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, Teachable
from edge_imprint_runtime.knowledge import head_beside
from tests.c.building import Builds, run
from tests.c.ort_tools import CUDA, TENSORRT, Starter

MakeHead = Callable[..., Head]

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
OUTPUTS = {"scores": (np.float32, (2, 3)), "label": (np.int32, (2,))}
PROVIDERS = ["", CUDA, TENSORRT]
# As test_sanitizers.py has it: one build for both.
ADDRESS = {"EI_SANITIZE": "address,undefined", "CMAKE_BUILD_TYPE": "RelWithDebInfo"}
# Nothing is suppressed: what ONNX Runtime gave us, such as a status, is ours to give back.
SANITIZED = {"LSAN_OPTIONS": "print_suppressions=0", "UBSAN_OPTIONS": "print_stacktrace=1"}


@pytest.fixture
def start(c_build: Path, ort_library: Path, tmp_path: Path) -> Starter:
    return Starter(c_build, ort_library, tmp_path)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> str:
    return str(tiny_model)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_each_call_fails_in_turn(
    c_builds: Builds, ort_library: Path, model: str, tmp_path: Path, provider: str
) -> None:
    """The right status, nothing leaked, nothing printed, and the next opening works."""
    allowed = {"EI_MODEL_FILE", "EI_RUN_FAILED"} | ({"EI_PROVIDER"} if provider else set())
    start = Starter(c_builds.get("address", **ADDRESS), ort_library, tmp_path)
    more = SANITIZED | ({"EI_FAKE_TOOK": provider} if provider else {})
    for number in range(1, 6):  # what is done once in a process
        with start.failing(provider, EI_FAIL_AT=str(number), **more) as program:
            (status, *_) = program.ask("open", model)
            assert status.startswith("EI_LIBRARY_MISSING: ") == (number < 5)
            assert "it failed on purpose" in status
            assert program.ask("open", model)[0] == "EI_OK: "
    seen = set()
    with start.failing(provider, **more) as program:
        assert program.ask("open", model)[0] == "EI_OK: "
        program.ask("close")
        for number in range(1, 200):
            program.ask("fail", str(number))
            (status, *_) = program.ask("open", model)
            if status == "EI_OK: ":
                found = program.run(tmp_path, {"images": PIXELS}, OUTPUTS)
                if isinstance(found, dict):
                    break
                status = found
                assert isinstance(program.run(tmp_path, {"images": PIXELS}, OUTPUTS), dict)
                program.ask("close")
            name, _, sentence = status.partition(": ")
            seen.add(name)
            assert name in allowed
            assert "it failed on purpose" in sentence
            assert ".cc" not in sentence
            assert not os.listdir(tmp_path / "temporary")
        else:
            pytest.fail("it never stopped failing")
        assert int(program.ask("calls")[0]) == number - 1
    assert seen == allowed


@pytest.mark.parametrize("build", ["usual", "address"])
@pytest.mark.parametrize("form", ["default", "input"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_each_call_fails_in_turn_over_a_model_s_life(
    c_builds: Builds,
    c_build: Path,
    ort_library: Path,
    tiny_backbone: bytes,
    make_head: MakeHead,
    tmp_path: Path,
    provider: str,
    form: str,
    build: str,
) -> None:
    """The public functions: opening, predicting, teaching; no leak, no half answer."""
    head, path = make_head(calibrated=True), tmp_path / "m.onnx"
    outputs = ("scores", "label", "embedding")
    path.write_bytes(
        to_bytes(fuse(tiny_backbone, head, outputs=outputs, teachable=Teachable(form, 8, 2)))
    )
    head.save(head_beside(path), force=True)
    made = c_builds.get("address", **ADDRESS) if build == "address" else c_build
    environment = SANITIZED | {
        "EI_REAL_ORT": str(ort_library),
        "EI_FAILING": str(made / "tests" / "libfailing_ort.so"),
        "TMPDIR": str(tmp_path),
    }
    if provider:
        environment["EI_FAKE_TOOK"] = provider
    program = made / "tests" / "failing_calls"
    number = str(PROVIDERS.index(provider))
    printed = run(program, path, number, tmp_path, timeout=600, **environment).stdout
    found = {}
    for line in printed.splitlines():
        name, _, about = line.partition(": ")
        count, *statuses = about.split()
        found[name] = set(statuses)
        assert (int(count) > 0) == bool(statuses)
    opening = {"EI_MODEL_FILE", "EI_RUN_FAILED"} | ({"EI_PROVIDER"} if provider else set())
    assert found.pop("open") <= opening
    assert set().union(*found.values()) == {"EI_RUN_FAILED"}
    print(printed)


@pytest.mark.parametrize(
    ("words", "provider", "opening", "running"),
    [
        ("Failed to allocate memory for x", "", "EI_MODEL_FILE", "EI_DEVICE_MEMORY"),
        ("CUDA failure 2: out of memory", CUDA, "EI_DEVICE_MEMORY", "EI_DEVICE_MEMORY"),
        ("std::bad_alloc", CUDA, "EI_DEVICE_MEMORY", "EI_DEVICE_MEMORY"),
        ("CUDNN failure 4: x", CUDA, "EI_PROVIDER", "EI_DEVICE"),
        ("TensorRT EP failed", TENSORRT, "EI_PROVIDER", "EI_DEVICE"),
        ("the graph is wrong", CUDA, "EI_MODEL_FILE", "EI_RUN_FAILED"),
        ("no cudnn here", "", "EI_MODEL_FILE", "EI_RUN_FAILED"),
    ],
)
def test_what_words_mean(
    start: Starter,
    model: str,
    tmp_path: Path,
    words: str,
    provider: str,
    opening: str,
    running: str,
) -> None:
    more = {"EI_FAIL_WORDS": words} | ({"EI_FAKE_TOOK": provider} if provider else {})
    calls = {}
    with start.failing(provider, **more) as program:
        program.ask("open", model)
        calls["opening"] = int(program.ask("calls")[0])
        program.run(tmp_path, {"images": PIXELS}, OUTPUTS)
        # Behind a run of a GPU's there is one more call: to wait for it.
        calls["running"] = int(program.ask("calls")[0]) - (1 if provider else 0)
        program.ask("close")
        program.ask("fail", "1")  # session options: the model, not its provider
        (status,) = program.ask("open", model)
        assert status.startswith(f"{opening}: ")
        assert words in status
        program.ask("fail", "0")
        assert program.ask("open", model)[0] == "EI_OK: "
        program.ask("fail", str(calls["running"] - calls["opening"]))
        found = program.run(tmp_path, {"images": PIXELS}, OUTPUTS)
        assert isinstance(found, str)
        assert found.startswith(f"{running}: ")
        assert words in found
        if running == "EI_DEVICE_MEMORY":
            assert "has not enough memory for 1 images at a time: " in found


MODEL_CC = (
    "/onnxruntime_src/onnxruntime/core/graph/model.cc:182 onnxruntime::Model::Model("
    "ModelProto&&, const PathString&, const Logger&)"
)
B_H = "/a/b.h:77 virtual bool onnxruntime::X::f(int) const [with T = float; U = int]"
E_ACUTE = "\N{LATIN SMALL LETTER E WITH ACUTE}"
PLACES = [
    (f"{MODEL_CC} Unsupported model", "Unsupported model"),
    (f"{'/x' * 300}.cu:1 f({'int, ' * 300}int) no such device", "no such device"),
    (f"While starting: {B_H} (rank) failed", "While starting: (rank) failed"),
    ("one.cc:1 f() two.hpp:22 g(h) const three", "three"),
    ("a\n  b\t\tc  ", "a b c"),
    ("at x.cc:12", "at x.cc:12"),
    ("x.cc: y.cc:z .cc:1 x.txt:12 f() w", "x.cc: y.cc:z .cc:1 x.txt:12 f() w"),
    ("see x.cu:9 f()(int) it", "see it"),
    ("x" * 5000, "x" * 303),
    (E_ACUTE * 400, E_ACUTE * 151),
    ("", ""),
]


@pytest.mark.parametrize(("words", "wanted"), PLACES)
def test_places_in_onnx_runtime_s_source_are_left_out(
    start: Starter, model: str, words: str, wanted: str
) -> None:
    with start.failing("", EI_FAIL_AT="5", EI_FAIL_WORDS=words) as program:
        (status,) = program.ask("open", model)
    shown = status.partition(" can't load the model: ")[2]
    assert shown == wanted


def test_the_folder_is_cleaned_where_a_trace_lies(
    start: Starter, model: str, tmp_path: Path
) -> None:
    """A run that fails leaves the session to write its trace when it is closed."""
    with start.on_gpu(CUDA) as program:
        program.ask("open", model)
        calls = int(program.ask("calls")[0])
        for number in range(calls - 8, calls + 1):
            program.ask("fail", str(number - 4))
            assert program.ask("open", model)[0] != "EI_OK: "
            assert not os.listdir(tmp_path / "temporary")

# SPDX-License-Identifier: Apache-2.0
"""TensorRT's module: how it is found, what it says, and what becomes of a None."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_imprint_runtime.engine import tensorrt_api
from edge_imprint_runtime.engine.answers import deserialize
from edge_imprint_runtime.engine.tensorrt_api import Log, load
from edge_imprint_runtime.errors import (
    DeviceError,
    EngineFileError,
    MissingPackageError,
    UnsupportedOptionError,
)
from tests.standins import World, tensorrt_standin


def test_the_version(world: World) -> None:
    api = load()
    assert api.version == world.numbers
    assert api.text == world.version
    assert api.types_strongly == (world.numbers >= (10, 12))


def test_pips_version_may_be_shorter(
    one_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorrt

    monkeypatch.setattr(tensorrt, "__version__", "10.3.0")
    assert load().version == (10, 3, 0)
    monkeypatch.setattr(tensorrt, "__version__", "10.13.3.9.post1")
    assert load().version == (10, 13, 3, 9)
    monkeypatch.setattr(tensorrt, "__version__", "strange")
    with pytest.raises(DeviceError) as caught:
        load()
    assert str(caught.value) == (
        "TensorRT says that its version is 'strange'; install it again"
    )


def test_without_the_package_on_a_jetson(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tensorrt_api, "_JETSON", str(tmp_path))
    with pytest.raises(MissingPackageError) as caught:
        load("opening an engine")
    assert str(caught.value) == (
        "opening an engine needs the package 'tensorrt', which comes with JetPack and is not "
        "seen here; an environment sees it that was made with: python3 -m venv "
        "--system-site-packages"
    )


@pytest.mark.parametrize(
    "line",
    [
        "raise ImportError('libnvinfer.so.8: cannot open shared object file')",
        "raise OSError('libnvinfer.so.8: cannot open shared object file')",
        "raise FileNotFoundError('libnvinfer.so.8: cannot open shared object file')",
    ],
)
def test_a_package_that_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    (tmp_path / "tensorrt.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(DeviceError) as caught:
        load()
    assert str(caught.value) == (
        "TensorRT is installed and can't be loaded: libnvinfer.so.8: cannot open shared "
        "object file; look at what 'edge-imprint doctor' says"
    )


def test_no_gpu(world: World) -> None:
    api = load()
    world.devices = 0
    with pytest.raises(DeviceError) as caught:
        api.builder(api.log())
    assert str(caught.value) == (
        f"TensorRT {world.version} can't use a GPU here: CUDA initialization failure with "
        "error: 35. Please check your CUDA installation: http://docs.nvidia.com/cuda; look at "
        "what 'edge-imprint doctor' says"
    )


def test_a_none_is_an_error_that_says_why(world: World) -> None:
    api = load()
    log = api.log()
    with pytest.raises(EngineFileError) as caught:
        deserialize(api, b"no engine", "shop.engine", log)
    assert str(caught.value) == (
        f"TensorRT {world.version} can't load shop.engine: Error Code 1: Serialization (Magic "
        "tag does not match); compile it again: edge-imprint compile MODEL --out shop.engine "
        "--force"
    )


def test_a_log_keeps_what_matters(one_world: World) -> None:
    import tensorrt

    log, severity = Log(tensorrt), tensorrt.ILogger.Severity
    say = log.logger.log
    assert log.errors() == ""
    say(severity.INFO, "noise")
    say(severity.WARNING, "a\n  warning")
    assert log.errors() == "a warning"
    for number in range(5):
        say(severity.ERROR, f"error {number}")
    say(severity.WARNING, "later")
    assert log.errors() == "error 2; error 3; error 4"
    assert log.errors(1) == "error 4"
    for _ in range(1_000):
        say(severity.ERROR, "x" * 1_000)
    assert len(log.lines) == 200
    assert len(log.errors()) == 600


def test_a_flag_that_is_not_there(one_world: World) -> None:
    api = load()
    config = api.builder(api.log()).create_builder_config()
    with pytest.raises(UnsupportedOptionError) as caught:
        api.set_flag(config, "STRICT_TYPES")
    assert str(caught.value) == (
        "TensorRT 10.3.0.30 has no builder flag STRICT_TYPES, which this needs"
    )
    api.clear_flag(config, "STRICT_TYPES")  # what is not there is not set


def test_version_compatible_engines_are_allowed_where_they_are_known(world: World) -> None:
    class Runtime:
        engine_host_code_allowed = False

    runtime = Runtime()
    load().allow_newer_engines(runtime)
    assert runtime.engine_host_code_allowed
    load().allow_newer_engines(object())  # 8.5 knows none


def test_a_program_that_only_imports_the_runtime_loads_no_tensorrt(tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise SystemError('loaded')")
    done = subprocess.run(
        [sys.executable, "-c", "import edge_imprint_runtime.engine"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
def test_a_real_builder() -> None:
    api = load()
    assert api.builder(api.log()) is not None


def test_stand_ins_are_gone_after_their_block() -> None:
    with tensorrt_standin("10.3.0.30"):
        assert "tensorrt" in sys.modules
    assert "tensorrt" not in sys.modules

# SPDX-License-Identifier: Apache-2.0
"""Finding GPUs without torch: the real search, over a stand-in for the driver."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_imprint.embedding.gpus import (
    Choice,
    _torch_cuda,
    check_cuda,
    choose_device,
    find_gpus,
)
from edge_imprint_runtime.errors import ProviderError

STANDIN = Path(__file__).parents[2] / "standins" / "cuda_driver.c"

Ask = Callable[..., dict[str, Any]]

CODE = """
import json, sys
from edge_imprint.embedding.gpus import choose_device, find_gpus
from edge_imprint_runtime.errors import ProviderError
sys.path[:0] = sys.argv[2:]
said = {"gpus": vars(find_gpus())}
for device in ("cpu", "cuda", "auto"):
    for has_module in (True, False):
        try:
            found = vars(choose_device(device, has_module=has_module))
        except ProviderError as error:
            found = str(error)
        said[f"{device} {'torch' if has_module else 'onnx'}"] = found
said["heavy"] = sorted({"torch", "onnxruntime", "timm", "onnx"} & set(sys.modules))
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libcuda.so.1."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler, to make what stands in for libcuda.so.1")
    folder = tmp_path_factory.mktemp("driver")
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    target = str(folder / "libcuda.so.1")
    subprocess.run([compiler, *flags, "-o", target, str(STANDIN)], check=True)
    return folder


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Return a function that asks in a fresh interpreter, packages before the real ones."""

    def ask(folder: Path | None, *packages: Path, **environment: str) -> dict[str, Any]:
        given = dict(os.environ) | environment
        given["LD_LIBRARY_PATH"] = str(folder or tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", CODE, "", *map(str, packages)],
            capture_output=True,
            text=True,
            env=given,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert found.pop("heavy") == []
        return found

    return ask


def package(root: Path, name: str, file: str | None) -> Path:
    (root / name).mkdir(parents=True)
    (root / name / "__init__.py").write_text("raise AssertionError('imported')")
    if file is not None:
        (root / name / file).parent.mkdir(exist_ok=True)
        (root / name / file).write_bytes(b"")
    return root


def test_two_gpus_and_libraries_with_their_cuda_parts(
    driver: Path, ask: Ask, tmp_path: Path
) -> None:
    package(tmp_path / "full", "torch", "lib/libtorch_cuda.so")
    package(tmp_path / "full", "onnxruntime", "capi/libonnxruntime_providers_cuda.so")
    (tmp_path / "full" / "torch" / "version.py").write_text("cuda: Optional[str] = '13.2'\n")
    said = ask(driver, tmp_path / "full", GPUS="2", CUDA="13000")
    assert said.pop("gpus") == {"count": 2, "reason": "", "cuda": [13, 0]}
    for case, found in said.items():
        want = "cpu" if case.startswith("cpu") else "cuda"
        assert found == {"device": want, "note": ""}, case


def test_a_driver_that_is_older_than_torch(driver: Path, ask: Ask, tmp_path: Path) -> None:
    package(tmp_path / "full", "torch", "lib/libtorch_cuda.so")
    (tmp_path / "full" / "torch" / "version.py").write_text("cuda: Optional[str] = '13.2'\n")
    said = ask(driver, tmp_path / "full", GPUS="1", CUDA="12040")
    reason = "the NVIDIA driver takes CUDA up to 12.4, and torch is built for 13.2"
    assert said["cuda torch"] == (
        f"{reason}; update the driver, or install an older torch, or use --device cpu"
    )
    note = f"There is a GPU here, but {reason}: photos are embedded on the CPU."
    assert said["auto torch"] == {"device": "cpu", "note": note}


def test_the_version_of_the_torch_that_is_installed_is_read() -> None:
    import torch

    built = _torch_cuda(Path(torch.__file__).parent)
    assert torch.version.cuda == (None if built is None else ".".join(map(str, built)))


def test_a_gpu_and_libraries_without_their_cuda_parts(
    driver: Path, ask: Ask, tmp_path: Path
) -> None:
    package(tmp_path / "bare", "torch", None)
    package(tmp_path / "bare", "onnxruntime", None)
    said = ask(driver, tmp_path / "bare", GPUS="1")
    for kind, library in (("torch", "torch"), ("onnx", "ONNX Runtime")):
        lacks = f"{library} is installed here without its CUDA part"
        assert said[f"cuda {kind}"] == (
            f"{lacks}; install a CUDA build of it, or use --device cpu"
        )
        note = f"There is a GPU here, but {lacks}: photos are embedded on the CPU."
        assert said[f"auto {kind}"] == {"device": "cpu", "note": note}
        assert said[f"cpu {kind}"] == {"device": "cpu", "note": ""}


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"GPUS": "0"}, "the NVIDIA driver shows no GPU"),
        ({"CU_INIT": "100"}, "the NVIDIA driver answers CUDA_ERROR_NO_DEVICE"),
        ({"CU_INIT": "999"}, "the NVIDIA driver answers error 999"),
    ],
)
def test_a_driver_without_a_gpu(
    driver: Path, ask: Ask, environment: dict[str, str], reason: str
) -> None:
    said = ask(driver, **environment)
    assert (said["gpus"]["count"], said["gpus"]["reason"]) == (0, reason)
    assert said["auto torch"] == said["auto onnx"] == {"device": "cpu", "note": ""}
    for kind in ("torch", "onnx"):
        assert said[f"cuda {kind}"] == (
            f"there is no CUDA device on this machine: {reason}; use --device cpu"
        )


def test_a_library_that_is_no_driver(ask: Ask, tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler, to make what stands in for libcuda.so.1")
    (tmp_path / "empty.c").write_text("int nothing;")
    flags = ["-shared", "-fPIC", "-o", str(tmp_path / "libcuda.so.1")]
    subprocess.run([compiler, *flags, str(tmp_path / "empty.c")], check=True)
    reason = "libcuda.so.1 is not CUDA's driver"
    assert ask(tmp_path)["gpus"]["reason"] == reason


def test_no_driver_at_all(ask: Ask, tmp_path: Path) -> None:
    if find_gpus().count:
        pytest.skip("this machine has a driver and a GPU")
    (tmp_path / "libcuda.so.1").write_text("no library")  # found first, wherever one may lie
    said = ask(None)
    assert said["gpus"]["reason"].startswith("no NVIDIA driver is installed (")
    assert said["cuda torch"] == (
        f"there is no CUDA device on this machine: {said['gpus']['reason']}; use --device cpu"
    )
    assert choose_device("auto", has_module=True) == Choice("cpu")
    for device in ("auto", "cpu"):
        check_cuda(device)
    with pytest.raises(ProviderError) as caught:
        check_cuda("cuda")
    assert str(caught.value).startswith("there is no CUDA device on this machine: no NVIDIA")


@pytest.mark.gpu
def test_the_gpu_of_this_machine() -> None:
    import torch

    assert find_gpus().count == torch.cuda.device_count()

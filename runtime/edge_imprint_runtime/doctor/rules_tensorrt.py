# SPDX-License-Identifier: Apache-2.0
"""What is known to go wrong with NVIDIA's driver and with TensorRT itself."""

from __future__ import annotations

from collections.abc import Iterator

from edge_imprint_runtime.doctor.seen import COMPILE, Finding, Seen, numbers, what_it_does
from edge_imprint_runtime.doctor.try_cuda import DRIVER_INSUFFICIENT

__all__ = ["RULES", "tensorrt_does_not_run"]

_ABOUT = "TensorRT"
_DRIVER = "CUDA"


def gpu_not_in_container(seen: Seen) -> Iterator[Finding]:
    """The host has a GPU, and the container was started without it."""
    container = seen.system.get("container")
    if not (seen.gpu and container and seen.cuda.get("status") == "missing"):
        return
    option = "--runtime nvidia" if seen.jetson else "--gpus all"
    yield Finding(
        "gpu-not-in-container",
        "error",
        f"this container ({container}) was started without the host's GPU",
        f"docker run {option} IMAGE",
        _DRIVER,
    )


def no_driver(seen: Seen) -> Iterator[Finding]:
    """There is a GPU, and no driver."""
    if not seen.gpu or seen.system.get("container") or seen.cuda.get("status") != "missing":
        return
    yield Finding(
        "no-driver",
        "error",
        "there is a GPU of NVIDIA's and no driver: libcuda.so.1 is not found",
        "sudo apt-get install nvidia-jetpack" if seen.jetson else _driver(seen),
        _DRIVER,
    )


def old_driver(seen: Seen) -> Iterator[Finding]:
    """The driver is older than the CUDA that is to run on it."""
    status, takes = seen.cuda.get("runtime_status"), seen.cuda.get("driver_cuda")
    by_runtime = status == DRIVER_INSUFFICIENT
    said = [
        provider
        for provider in seen.providers
        if seen.says(provider, "driver version is insufficient", "InsufficientDriver")
    ]
    if not seen.gpu or not takes or not (by_runtime or said):
        return
    needs = seen.cuda.get("runtime_cuda")
    what = (
        f"CUDA {needs} needs a newer one" if by_runtime and needs else "what runs needs more"
    )
    where = " on the host, outside this container" if seen.system.get("container") else ""
    older = (
        f"pip install 'onnxruntime-gpu[cuda,cudnn]<1.27' 'tensorrt-cu{takes.split('.')[0]}'"
    )
    yield Finding(
        "driver-too-old",
        "error",
        f"NVIDIA's driver takes CUDA up to {takes}, and {what}{where} "
        f"(error {DRIVER_INSUFFICIENT}, cudaErrorInsufficientDriver)",
        # PyPI's older builds run on no Jetson either; its own TensorRT fits its driver.
        COMPILE if seen.jetson else older if where else _driver(seen),
        _DRIVER,
    )


def closed_device_files(seen: Seen) -> Iterator[Finding]:
    """The GPU's device files are there and not for this user."""
    files = seen.system.get("device_files", [])
    # Off a Jetson CUDA needs no /dev/dri, which may be another maker's GPU.
    closed = [f for f in files if not f["open"] and (seen.jetson or "/dri/" not in f["path"])]
    if not seen.gpu or not closed:
        return
    groups = dict.fromkeys(f["group"] for f in closed if f["group"] not in (None, "root"))
    shown = ", ".join(file["path"] for file in closed[:3])
    names = ",".join(groups) or "video,render"
    yield Finding(
        "gpu-files-closed",
        "error",
        f"user {seen.system.get('user')} may not use {shown}",
        f"sudo usermod -aG {names} {seen.system.get('user')}  # then log in again",
        _DRIVER,
    )


def hidden_by_environment(seen: Seen) -> Iterator[Finding]:
    """JetPack puts TensorRT's module where a virtual environment does not look."""
    places = seen.system.get("system_tensorrt") or []
    if seen.tensorrt.get("status") != "missing" or not places:
        return
    fitting = f"python{'.'.join(map(str, seen.python[:2]))}"
    near = [place for place in places if f"/{fitting}/" in place or "/python3/" in place]
    if near and seen.system.get("virtual_environment"):
        yield Finding(
            "tensorrt-hidden",
            "error",
            f"TensorRT is in {near[0]}, where this virtual environment does not look",
            f"export PYTHONPATH={near[0]}:$PYTHONPATH  # or python3 -m venv "
            "--system-site-packages",
            _ABOUT,
        )
    elif not near:
        own = ".".join(map(str, seen.python[:2]))
        yield Finding(
            "tensorrt-of-another-python",
            "error",
            f"TensorRT is in {places[0]}, for another Python than this {own}",
            "pip install 'edge-imprint[cpu]'  # JetPack 5: the CPU, by ONNX Runtime"
            if seen.jetpack[:1] == (5,)
            else "/usr/bin/python3 -m venv --system-site-packages venv",
            _ABOUT,
        )


def tensorrt_11_on_jetpack_6(seen: Seen) -> Iterator[Finding]:
    """TensorRT 11 is for JetPack 7.2.2 and later."""
    version = str(seen.tensorrt.get("version") or seen.package("tensorrt") or "")
    if not seen.jetson or numbers(version)[:1] < (11,) or not seen.jetpack:
        return
    if seen.jetpack >= (7,):
        return
    every = " ".join(seen.packages("tensorrt"))
    yield Finding(
        "tensorrt-11-on-old-jetpack",
        "error",
        f"TensorRT {version} is not for JetPack {'.'.join(map(str, seen.jetpack))}, which "
        "stays with its own",
        f"pip uninstall -y {every}" if every else "sudo apt-get install nvidia-jetpack",
        _ABOUT,
    )


def numpy_2_with_tensorrt_8(seen: Seen) -> Iterator[Finding]:
    """TensorRT 8's module was made with numpy 1."""
    version = seen.tensorrt.get("version") or seen.package("tensorrt")
    numpy = seen.package("numpy")
    if numbers(version)[:1] != (8,) or numbers(numpy) < (2,):
        return
    yield Finding(
        "numpy-2-with-tensorrt-8",
        "error",
        f"TensorRT {version}'s Python module was made for numpy 1, and numpy {numpy} is here",
        "pip install 'numpy<2'",
        _ABOUT,
    )


def no_cuda_python(seen: Seen) -> Iterator[Finding]:
    """Engines are run through cuda-python."""
    there = seen.package("cuda-python") or seen.package("cuda-bindings")
    version = seen.tensorrt.get("version")
    if not seen.gpu or there or seen.tensorrt.get("status") == "missing" or not version:
        return
    major = next(iter(numbers(seen.cuda.get("driver_cuda"))), None)
    yield Finding(
        "no-cuda-python",
        "error",
        "TensorRT is here and cuda-python, through which engines are run, is not",
        f"pip install 'cuda-python<{major + 1}'" if major else "pip install cuda-python",
        _ABOUT,
    )


def no_tensorrt(seen: Seen) -> Iterator[Finding]:
    """There is a GPU, and TensorRT is not installed at all."""
    hidden = seen.system.get("system_tensorrt")
    if not seen.gpu or hidden or seen.tensorrt.get("status") != "missing":
        return
    yield Finding(
        "no-tensorrt",
        "warning" if seen.jetson else "note",
        "there is a GPU and no TensorRT: engines can be neither compiled nor run",
        "sudo apt-get install nvidia-jetpack"
        if seen.jetson
        else "pip install 'edge-imprint[tensorrt]'",
        _ABOUT,
    )


def tensorrt_does_not_run(seen: Seen) -> Iterator[Finding]:
    """What no other rule explains."""
    if seen.tensorrt.get("status") in ("runs", "missing", None):
        return
    name = f"TensorRT {seen.tensorrt.get('version') or ''}".strip()
    if not seen.gpu:
        text = f"{name} is installed, but this machine has no GPU of NVIDIA's: nothing to mend"
        yield Finding("no-gpu", "note", text, "", _ABOUT)
        return
    yield Finding(
        f"tensorrt-{seen.tensorrt['status']}",
        "error",
        f"{name} {what_it_does(seen.tensorrt)}: {seen.tensorrt.get('reason', '')}",
        "edge-imprint --debug compile MODEL.onnx --out MODEL.engine",
        _ABOUT,
    )


RULES = (
    gpu_not_in_container,
    no_driver,
    old_driver,
    closed_device_files,
    hidden_by_environment,
    tensorrt_11_on_jetpack_6,
    numpy_2_with_tensorrt_8,
    no_cuda_python,
    no_tensorrt,
)
"""In this order; `tensorrt_does_not_run` comes after all others."""


def _driver(seen: Seen) -> str:
    ubuntu = "ubuntu" in str(seen.system.get("os", "")).lower()
    return "sudo ubuntu-drivers install" if ubuntu else "sudo apt-get install nvidia-driver"

# SPDX-License-Identifier: Apache-2.0
"""What is known to go wrong between ONNX Runtime, its providers, and what they link."""

from __future__ import annotations

from collections.abc import Iterator

from edge_imprint_runtime.doctor.seen import (
    COMPILE,
    Finding,
    Seen,
    family_of,
    major,
    numbers,
    what_it_does,
)

__all__ = ["RULES", "provider_does_not_run"]

_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_GPU_PROVIDERS = (_CUDA, _TENSORRT)
_REINSTALL = "pip uninstall -y {every} && pip install '{one}'"
_TOOLKIT = ("cudart", "cublas", "cufft", "curand")
# The first of its releases that wants a newer Python.
_FIRST_GONE: dict[tuple[int, ...], tuple[int, ...]] = {(3, 10): (1, 24)}


def no_onnxruntime(seen: Seen) -> Iterator[Finding]:
    """Nothing of it is installed."""
    if seen.onnxruntime.get("status") != "missing":
        return
    engines = seen.tensorrt.get("status") == "runs"
    text = "ONNX Runtime is not installed: ONNX models can't be run"
    yield Finding(
        "no-onnxruntime",
        "warning" if engines else "error",
        text + (", engines can" if engines else ""),
        "pip install 'edge-imprint[cpu]'",
        "ONNX Runtime",
    )


def broken_onnxruntime(seen: Seen) -> Iterator[Finding]:
    """It is installed, and can't be imported."""
    if seen.onnxruntime.get("status") not in ("fails", "crashes", "hangs"):
        return
    yield Finding(
        "onnxruntime-broken",
        "error",
        f"ONNX Runtime {what_it_does(seen.onnxruntime)}: {seen.onnxruntime.get('reason')}",
        _last_resort(seen),
        "ONNX Runtime",
    )


def two_onnxruntimes(seen: Seen) -> Iterator[Finding]:
    """Two packages bring the same folder, and the one installed last wins, in parts."""
    found = _builds(seen)
    if len(found) < 2:
        return
    # What PyPI has under that name runs on no Jetson.
    gpu = "onnxruntime-gpu" in found and seen.gpu and not seen.jetson
    one = "onnxruntime-gpu" if gpu else "onnxruntime"
    shown = " and ".join(f"{name} {seen.package(name)}" for name in found)
    hint = "; a GPU's build for JetPack is installed again from where it came" * seen.jetson
    yield Finding(
        "two-onnxruntimes",
        "error",
        f"{shown} are both installed and overwrite each other's files{hint}",
        _REINSTALL.format(every=" ".join(found), one=one),
        "ONNX Runtime",
    )


def cpu_build_with_gpu(seen: Seen) -> Iterator[Finding]:
    """There is a GPU, and an ONNX Runtime that can't use it."""
    listed = seen.onnxruntime.get("listed")
    if not seen.gpu or not listed or set(_GPU_PROVIDERS) & set(listed):
        return
    text = (
        f"there is a GPU, and this ONNX Runtime {seen.onnxruntime.get('version')} was built "
        "for the CPU alone"
    )
    severity, command = "warning", _gpu_build(seen)
    if seen.jetson:  # PyPI's builds for GPUs run on no Jetson
        engines = seen.tensorrt.get("status") == "runs"
        text += ": the GPU is used by engines" if engines else ""
        severity, command = ("note", COMPILE) if engines else ("warning", "")
    yield Finding("onnxruntime-without-gpu", severity, text, command, _CUDA)


def gpu_build_without_gpu(seen: Seen) -> Iterator[Finding]:
    """The other way round."""
    listed = seen.onnxruntime.get("listed", [])
    if seen.gpu or not set(_GPU_PROVIDERS) & set(listed):
        return
    for provider in _GPU_PROVIDERS:
        if provider in listed and seen.providers.get(provider, {}).get("status") != "runs":
            yield Finding(
                "no-gpu",
                "note",
                f"{seen.name(provider)} is listed, but this machine has no GPU of NVIDIA's: "
                "nothing to mend",
                "",
                provider,
            )


def pypi_wheel_on_jetson(seen: Seen) -> Iterator[Finding]:
    """PyPI's aarch64 wheel holds no code for Orin or Thor, and none that could be turned."""
    tags = " ".join(seen.tags("onnxruntime-gpu"))
    if not seen.jetson or "manylinux" not in tags or "aarch64" not in tags:
        return
    yield Finding(
        "pypi-onnxruntime-gpu-on-jetson",
        "error",
        f"onnxruntime-gpu {seen.package('onnxruntime-gpu')} is PyPI's build for servers, "
        "which runs on no Jetson: it holds no code for compute capability 8.7 or 11.0, "
        "and no PTX",
        f"pip uninstall -y onnxruntime-gpu && pip install 'edge-imprint[cpu]' && {COMPILE}",
        _CUDA,
    )


def other_tensorrt_wanted(seen: Seen) -> Iterator[Finding]:
    """The TensorRT provider links one major of TensorRT, and another is there."""
    wanted = [f for f in seen.wanted(_TENSORRT) if family_of(f) == "nvinfer"]
    there = seen.majors("nvinfer")
    if not seen.gpu or not wanted or not there or major(wanted[0]) in there:
        return
    needs, has = major(wanted[0]), ", ".join(str(number) for number in sorted(there))
    cuda = next((m for m in map(major, seen.wanted(_TENSORRT)) if m in (12, 13)), 13)
    cuda = next(iter(seen.majors("cudart") & {12, 13}), cuda)
    install = f"pip install 'tensorrt<{needs + 1}' 'tensorrt-cu{cuda}<{needs + 1}'"
    where = "$(python3 -c 'import tensorrt_libs as t; print(t.__path__[0])')"
    yield Finding(
        "onnxruntime-wants-other-tensorrt",
        "error",
        f"ONNX Runtime {seen.onnxruntime.get('version')}'s TensorRT provider links "
        f"{wanted[0]}, and the TensorRT here is {has}; engines need no such provider",
        COMPILE
        if seen.jetson
        else f"{install} && export LD_LIBRARY_PATH={where}:$LD_LIBRARY_PATH",
        _TENSORRT,
    )


def other_cudnn_wanted(seen: Seen) -> Iterator[Finding]:
    """A provider was built with another major of cuDNN; a wheel's name can't tell."""
    there = seen.majors("cudnn")
    for provider in _GPU_PROVIDERS:
        wanted = [f for f in seen.wanted(provider) if family_of(f) == "cudnn"]
        if not seen.gpu or not wanted or not there or major(wanted[0]) in there:
            continue
        needs, has = major(wanted[0]), ", ".join(str(number) for number in sorted(there))
        hint = "; JetPack 6.0 has cuDNN 8, JetPack 6.1 and later have 9" * seen.jetson
        cuda = next(iter(sorted(seen.majors("cudart"), reverse=True)), 13)
        yield Finding(
            "other-cudnn",
            "error",
            f"{seen.name(provider)} links cuDNN {needs}, and cuDNN {has} is here{hint}",
            COMPILE
            if seen.jetson
            else f"pip install 'nvidia-cudnn-cu{cuda}>={needs},<{needs + 1}'",
            provider,
        )


def other_cuda_wanted(seen: Seen) -> Iterator[Finding]:
    """A provider was built with another major of CUDA."""
    there = seen.majors("cudart") | seen.majors("cublas")
    for provider in _GPU_PROVIDERS:
        wanted = [f for f in seen.wanted(provider) if family_of(f) in ("cudart", "cublas")]
        if not seen.gpu or not wanted or not there or major(wanted[0]) in there:
            continue
        needs, has = major(wanted[0]), ", ".join(str(number) for number in sorted(there))
        yield Finding(
            "other-cuda",
            "error",
            f"{seen.name(provider)} links CUDA {needs}, and CUDA {has} is here",
            COMPILE if seen.jetson else _gpu_build(seen),
            provider,
        )


def libraries_out_of_sight(seen: Seen) -> Iterator[Finding]:
    """What a provider wants is here, where the loader does not look."""
    for provider in _GPU_PROVIDERS:
        wanted = seen.wanted(provider)
        if not seen.gpu or not wanted or not all(wanted.values()):
            continue
        folders = ":".join(dict.fromkeys(folders[0] for folders in wanted.values()))
        yield Finding(
            "libraries-out-of-sight",
            "error",
            f"{seen.name(provider)} does not find {', '.join(wanted)}, which the loader's "
            "path does not lead to",
            f"export LD_LIBRARY_PATH={folders}:$LD_LIBRARY_PATH",
            provider,
        )


def libraries_missing(seen: Seen) -> Iterator[Finding]:
    """What a provider wants is not here, in no version."""
    for provider in _GPU_PROVIDERS:
        gone = {
            file: family_of(file)
            for file, folders in seen.wanted(provider).items()
            if not folders and not seen.majors(family_of(file))
        }
        if not seen.gpu or not gone:
            continue
        if "cuda" in gone.values():
            continue  # the driver's, of which another rule speaks
        only = set(gone.values()) <= {"nvinfer", "nvonnxparser"}
        install = "pip install 'edge-imprint[tensorrt]'" if only else _gpu_build(seen)
        yield Finding(
            "libraries-missing",
            "warning" if only else "error",
            f"{seen.name(provider)} wants {', '.join(gone)}, which this machine lacks",
            "sudo apt-get install nvidia-jetpack" if seen.jetson else install,
            provider,
        )


def no_kernel_image(seen: Seen) -> Iterator[Finding]:
    """The build holds no code for this GPU: it is listed, loads, and then computes nothing."""
    for provider in _GPU_PROVIDERS:
        if not seen.says(provider, "NoKernelImage", "no kernel image"):
            continue
        gpus = seen.cuda.get("gpus") or [{}]
        capability = gpus[0].get("compute_capability", "?")
        yield Finding(
            "no-kernel-image",
            "error",
            f"{seen.name(provider)} holds no code for this GPU's compute capability "
            f"{capability} (cudaErrorNoKernelImageForDevice)",
            COMPILE,
            provider,
        )


def onnxruntime_of_another_python(seen: Seen) -> Iterator[Finding]:
    """Builds for a Python that the makers have left behind are not theirs."""
    version = next(
        (v for v in map(seen.package, ("onnxruntime-gpu", "onnxruntime")) if v), None
    )
    first_gone = _FIRST_GONE.get(seen.python[:2])
    if first_gone is None or version is None or numbers(version) < first_gone:
        return
    gone = ".".join(map(str, first_gone))
    one = "onnxruntime-gpu" if seen.package("onnxruntime-gpu") else "onnxruntime"
    yield Finding(
        "onnxruntime-not-for-this-python",
        "warning",
        f"{one} {version} is here, but from {gone} on ONNX Runtime needs Python 3.11 and this "
        f"is {'.'.join(map(str, seen.python))}: whoever built it is not its maker",
        f"pip install '{one}<{gone}'",
        "",
    )


def provider_does_not_run(seen: Seen) -> Iterator[Finding]:
    """What no other rule explains; providers that this project does not use are no matter."""
    for provider in ("CPUExecutionProvider", *_GPU_PROVIDERS):
        tried = seen.providers.get(provider, {})
        status = tried.get("status")
        if not tried.get("listed") or status in ("runs", None):
            continue
        yield Finding(
            f"provider-{status}",
            "error",
            f"{seen.name(provider)} {what_it_does(tried)}: {tried.get('reason', '')}",
            "" if status in ("partly", "hangs") else _last_resort(seen),
            provider,
        )


RULES = (
    no_onnxruntime,
    broken_onnxruntime,
    two_onnxruntimes,
    cpu_build_with_gpu,
    gpu_build_without_gpu,
    pypi_wheel_on_jetson,
    no_kernel_image,
    other_tensorrt_wanted,
    other_cudnn_wanted,
    other_cuda_wanted,
    libraries_out_of_sight,
    libraries_missing,
    onnxruntime_of_another_python,
)
"""In this order; `provider_does_not_run` comes after all others."""


def _gpu_build(seen: Seen) -> str:
    """Return the command that brings ONNX Runtime for CUDA, with the libraries it links."""
    driver = numbers(seen.cuda.get("driver_cuda"))
    # From 1.27 on PyPI's builds want CUDA 13, and so a driver that takes it.
    limit = "<1.27" if driver and driver < (13,) else ""
    every = " ".join(n for n in _builds(seen) if n != "onnxruntime-gpu")
    install = f"pip install 'onnxruntime-gpu[cuda,cudnn]{limit}'"
    return f"pip uninstall -y {every} && {install}" if every else install


def _last_resort(seen: Seen) -> str:
    one = next(iter(_builds(seen)), "onnxruntime")
    if seen.jetson and one != "onnxruntime":  # PyPI's is another build
        return ""
    return f"pip install --force-reinstall --no-deps {one}"


def _builds(seen: Seen) -> list[str]:
    """List the packages that bring ONNX Runtime itself, and not something beside it."""
    beside = ("onnxruntime-extensions", "onnxruntime-genai")
    return [name for name in seen.packages("onnxruntime") if not name.startswith(beside)]

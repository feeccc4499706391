# SPDX-License-Identifier: Apache-2.0
"""Machines as the doctor's collector describes them: one recorded, others as documented."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

Facts = dict[str, Any]

RUNS = {"status": "runs", "stage": "runs", "reason": "", "lacks": [], "seconds": 0.3}
CPU, CUDA, TENSORRT = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
)
WANTED_BY_CUDA = ["libcublasLt.so.13", "libcublas.so.13", "libcudart.so.13", "libcuda.so.1"]
WANTED_BY_TENSORRT = [
    "libcublas.so.13",
    "libnvinfer.so.10",
    "libnvonnxparser.so.10",
    "libcudart.so.13",
    "libcudnn.so.9",
]


def ran(**facts: Any) -> Facts:
    return RUNS | {"listed": True, "first_run_ms": 1.0, "median_ms": 0.01} | facts


def absent() -> Facts:
    reason = "this ONNX Runtime was built without it"
    return {"status": "missing", "listed": False, "reason": reason}


def library(file: str, version: str, folder: str, origin: str) -> Facts:
    return {"file": file, "version": version, "path": f"{folder}/{file}", "origin": origin}


def package(version: str, *tags: str) -> Facts:
    return {"version": version, "tags": list(tags)}


def server() -> Facts:
    """The machine that this was written on: x86, no GPU, onnxruntime for the CPU."""
    libraries: dict[str, list[Facts]] = {
        family: []
        for family in (
            "cuda", "cudart", "cublas", "cudnn", "curand", "cufft", "nvinfer", "nvonnxparser"
        )
    }  # fmt: skip
    return {
        "machine": {"board": None, "cpu_model": "AMD EPYC", "cores": 2, "cpu_governor": None},
        "readings": {"cpu_mhz_max": 2596.1},
        "system": {
            "os": "Debian GNU/Linux 12 (bookworm)",
            "kernel": "6.1",
            "architecture": "x86_64",
            "python": "3.11.7",
            "python_path": "/venv/bin/python",
            "virtual_environment": True,
            "sees_system_packages": False,
            "container": None,
            "encoding": "utf-8",
            "user": "ada",
            "groups": ["ada"],
            "memory_bytes": 25_276_502_016,
            "memory_available_bytes": 24_377_462_784,
            "swap_bytes": 0,
            "swap_free_bytes": 0,
            "cache_folder": "/cache/edge-imprint",
            "cache_bytes": 0,
            "cache_free_bytes": 70_110_928_896,
            "cache_writable": True,
            "temperatures_c": {},
            "device_files": [],
            "nvidia_on_pci": 0,
            "kernel_driver": None,
            "is_jetson": False,
            "power_modes": {},
            "jtop_service": False,
            "jtop_answers": False,
            "system_tensorrt": [],
        },
        "packages": {
            "numpy": package("2.4.6"),
            "onnxruntime": package("1.31.1", "cp311-cp311-manylinux_2_28_x86_64"),
        },
        "libraries": libraries,
        "gpu": {"present": False, "why": None, "found": []},
        "cuda": {"status": "missing", "stage": "driver library", "reason": "no NVIDIA driver"},
        "onnxruntime": RUNS
        | {"version": "1.31.1", "path": "/ort", "listed": ["AzureExecutionProvider", CPU]},
        "providers": {
            CPU: ran(nodes={CPU: 5}),
            CUDA: absent(),
            TENSORRT: absent(),
        },
        "tensorrt": {"status": "missing", "stage": "import", "reason": "not installed"},
    }


def gpu_server() -> Facts:
    """x86 with a GPU where all is well: CUDA 13, cuDNN 9, TensorRT 10, from pip."""
    facts = server()
    facts["gpu"] = {"present": True, "why": "the driver answers", "found": [{"name": "L4"}]}
    facts["cuda"] = RUNS | {
        "driver_cuda": "13.0",
        "runtime_cuda": "13.0",
        "runtime_status": 0,
        "gpus": [{"name": "L4", "compute_capability": "8.9", "memory_bytes": 24 * 10**9}],
    }
    facts["packages"] = {
        "cuda-python": package("13.4.4"),
        "numpy": package("2.4.6"),
        "onnxruntime-gpu": package("1.31.1", "cp311-cp311-manylinux_2_28_x86_64"),
        "tensorrt": package("10.16.1.11"),
    }
    facts["libraries"] |= {
        "cuda": [library("libcuda.so.1", "580.95", "/usr/lib", "system")],
        "cudart": [library("libcudart.so.13", "13.2.86", "/pip/cu13", "pip")],
        "cublas": [library("libcublas.so.13", "13.4.1.3", "/pip/cu13", "pip")],
        "cudnn": [library("libcudnn.so.9", "9.26.0.51", "/pip/cudnn", "pip")],
        "curand": [library("libcurand.so.10", "10.4", "/pip/cu13", "pip")],
        "nvinfer": [library("libnvinfer.so.10", "10.16.1.11", "/pip/trt", "pip")],
        "nvonnxparser": [library("libnvonnxparser.so.10", "10.16.1.11", "/pip/trt", "pip")],
    }
    facts["onnxruntime"]["listed"] = [TENSORRT, CUDA, CPU]
    facts["providers"] = {
        CPU: ran(),
        CUDA: ran(wants=WANTED_BY_CUDA),
        TENSORRT: ran(wants=WANTED_BY_TENSORRT),
    }
    facts["tensorrt"] = RUNS | {"version": "10.16.1.11", "build_s": 3.0}
    return facts


def orin_nano() -> Facts:
    """JetPack 6.2 as it comes, in a virtual environment that sees it; onnxruntime for CPUs."""
    facts = server()
    facts["machine"] |= {
        "board": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "l4t": "36.4.3",
        "jetpack": "6.2",
        "power_mode": "MAXN_SUPER",
        "gpu_clocks_locked": "yes",
        "cpu_governor": "schedutil",
    }
    facts["system"] |= {
        "os": "Ubuntu 22.04.5 LTS",
        "architecture": "aarch64",
        "python": "3.10.12",
        "sees_system_packages": True,
        "memory_bytes": 7_990_000_000,
        "memory_available_bytes": 5_100_000_000,
        "swap_bytes": 8_000_000_000,
        "is_jetson": True,
        "power_modes": {"15W": 0, "25W": 1, "MAXN_SUPER": 2},
        "jtop_service": True,
        "jtop_answers": True,
        "system_tensorrt": ["/usr/lib/python3.10/dist-packages"],
        "device_files": [{"path": "/dev/nvmap", "group": "video", "open": True}],
        "temperatures_c": {"cpu-thermal": 48.5, "gpu-thermal": 47.0, "cv0-thermal": -256.0},
    }
    facts["packages"] = {
        "cuda-python": package("12.6.0"),
        "jetson-stats": package("4.3.2"),
        "numpy": package("1.26.4"),
        "onnxruntime": package("1.23.2", "cp310-cp310-manylinux_2_27_aarch64"),
    }
    cuda, own = "/usr/local/cuda/lib64", "/usr/lib/aarch64-linux-gnu"
    facts["libraries"] |= {
        "cuda": [library("libcuda.so.1", "1.1", f"{own}/nvidia", "system")],
        "cudart": [library("libcudart.so.12", "12.6.68", cuda, "CUDA folder")],
        "cublas": [library("libcublas.so.12", "12.6.1.4", cuda, "CUDA folder")],
        "cudnn": [library("libcudnn.so.9", "9.3.0", own, "system")],
        "nvinfer": [library("libnvinfer.so.10", "10.3.0", own, "system")],
        "nvonnxparser": [library("libnvonnxparser.so.10", "10.3.0", own, "system")],
    }
    facts["gpu"] = {"present": True, "why": "the driver answers", "found": [{"name": "Orin"}]}
    facts["cuda"] = RUNS | {
        "driver_cuda": "12.6",
        "runtime_cuda": "12.6",
        "runtime_status": 0,
        "gpus": [{"name": "Orin", "compute_capability": "8.7", "memory_bytes": 7_990_000_000}],
    }
    facts["onnxruntime"] |= {"version": "1.23.2"}
    facts["tensorrt"] = RUNS | {"version": "10.3.0", "build_s": 9.0}
    return facts


def jetpack_5() -> Facts:
    """A Xavier NX: TensorRT 8.5 for Python 3.8, and a Python 3.10 of one's own."""
    facts = orin_nano()
    facts["machine"] |= {"l4t": "35.6.0", "jetpack": "5.1.4", "power_mode": "MODE_20W_6CORE"}
    facts["system"] |= {
        "os": "Ubuntu 20.04.6 LTS",
        "power_modes": {"MODE_15W_2CORE": 0, "MODE_20W_6CORE": 8},
        "system_tensorrt": ["/usr/lib/python3.8/dist-packages"],
    }
    facts["libraries"] |= {
        "cudart": [library("libcudart.so.11.0", "11.4.298", "/cuda", "CUDA folder")],
        "cudnn": [library("libcudnn.so.8", "8.6.0", "/usr/lib", "system")],
        "nvinfer": [library("libnvinfer.so.8", "8.5.2", "/usr/lib", "system")],
    }
    facts["cuda"] |= {"driver_cuda": "11.4", "runtime_cuda": "11.4"}
    facts["tensorrt"] = {"status": "missing", "stage": "import", "reason": "not installed"}
    return facts


def thor() -> Facts:
    """JetPack 7.1: TensorRT 10.13, Python 3.12."""
    facts = orin_nano()
    facts["machine"] |= {
        "board": "NVIDIA Jetson AGX Thor Developer Kit",
        "l4t": "38.4.0",
        "jetpack": "7.1",
        "power_mode": "MAXN",
    }
    facts["system"] |= {
        "os": "Ubuntu 24.04.3 LTS",
        "python": "3.12.3",
        "memory_bytes": 131 * 10**9,
        "power_modes": {"MAXN": 0, "120W": 1},
        "system_tensorrt": ["/usr/lib/python3.12/dist-packages"],
    }
    facts["packages"]["onnxruntime"] = package("1.31.1", "cp312-cp312-manylinux_2_28_aarch64")
    facts["packages"]["cuda-python"] = package("13.0.0")
    facts["cuda"] |= {
        "driver_cuda": "13.0",
        "runtime_cuda": "13.0",
        "gpus": [{"name": "Thor", "compute_capability": "11.0", "memory_bytes": 131 * 10**9}],
    }
    facts["tensorrt"] |= {"version": "10.13.3.9"}
    return facts


MACHINES = {
    "server": server(),
    "gpu_server": gpu_server(),
    "orin_nano": orin_nano(),
    "jetpack_5": jetpack_5(),
    "thor": thor(),
}


@pytest.fixture
def machine() -> Callable[..., Facts]:
    """Return ``machine(name, **changes)``: a copy, with mappings put over what is there."""

    def make(name: str, **changes: Any) -> Facts:
        facts = copy.deepcopy(MACHINES[name])
        for part, change in changes.items():
            facts[part] = facts[part] | change if isinstance(change, dict) else change
        return facts

    return make

# SPDX-License-Identifier: Apache-2.0
"""Opening a session of ONNX Runtime on one provider, and what its errors mean."""

from __future__ import annotations

import contextlib
import functools
import re
import warnings
from pathlib import Path
from typing import Any

from edge_imprint_runtime.backends.ort_options import (
    CPU,
    CUDA,
    TENSORRT,
    TensorrtSetup,
    start_list,
)
from edge_imprint_runtime.errors import (
    DeviceError,
    DeviceMemoryError,
    EdgeImprintError,
    InputError,
    ModelFileError,
    ProviderError,
)

__all__ = ["OPTIMIZATIONS", "choose_provider", "open_session", "run_error"]

# How far the graph may be rewritten -> ONNX Runtime's name of it.
OPTIMIZATIONS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}

_PROVIDERS = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}
_ERROR_ONLY = 3  # ONNX Runtime's severity: its warnings speak of its own optimiser
# How ONNX Runtime, CUDA and TensorRT say in a message that memory ran out, and that a device
# failed: no release has an exception of its own for either.
_NO_MEMORY = (
    "failed to allocate memory",
    "out of memory",
    "outofmemory",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",
)
# FILE.cc:LINE and the function's signature, before the words.
_PLACE = re.compile(r"\S+\.(?:cc|cu|h|hpp):\d+ .*?\)(?: const)?(?: \[with .*?\])? (?=\S)")
_DEVICE_FAILED = ("cuda", "cudnn", "cublas", "tensorrt", "no kernel image")


def choose_provider(backend: str, available: list[str]) -> str:
    """Say which provider a backend means here.

    Args:
        backend: ``auto`` (CUDA where it is available, else the CPU), ``cpu``, ``cuda`` or
            ``tensorrt``.
        available: The providers that this ONNX Runtime was built with.

    Returns:
        ONNX Runtime's name of it.

    Raises:
        ProviderError: It is not available.
    """
    if backend == "auto":
        backend = "cuda" if CUDA in available else "cpu"
    provider = _PROVIDERS[backend]
    if provider not in available:
        raise ProviderError(
            f"this ONNX Runtime has no {provider} (it has {', '.join(available)}); "
            "run on the CPU, or pip uninstall onnxruntime, then pip install onnxruntime-gpu; "
            "edge-imprint doctor tells what fits this machine"
        )
    return provider


def open_session(
    ort: Any,
    model: Path | bytes,
    provider: str,
    *,
    setup: TensorrtSetup | None = None,
    threads: int = 0,
    optimization: str = "all",
    trace: Path | None = None,
) -> Any:
    """Open a session whose first provider is the one asked for.

    Args:
        ort: The module ``onnxruntime``.
        model: The file, or its bytes.
        provider: ONNX Runtime's name of it.
        setup: What the TensorRT provider is told.
        threads: Threads for one operator; 0 lets ONNX Runtime choose.
        optimization: Of `OPTIMIZATIONS`.
        trace: Where to trace its runs: the beginning of a file's name.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        ProviderError: The provider does not start.
        DeviceMemoryError: Its device has not enough memory for the model.
        ModelFileError: ONNX Runtime can't load the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _ERROR_ONLY
    # Else a name that ends in .ort has it read another format, which nobody looked into.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.intra_op_num_threads = threads
    options.graph_optimization_level = getattr(
        ort.GraphOptimizationLevel, OPTIMIZATIONS[optimization]
    )
    # Unknown before 1.24, where it is no error.
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace)
    if provider != CPU:
        _preload(ort)
    try:
        with warnings.catch_warnings():
            # A provider that is dropped only warns; it is found out below.
            warnings.simplefilter("ignore")
            session = _without_retry(ort.InferenceSession)(
                model if isinstance(model, bytes) else str(model),
                options,
                providers=start_list(provider, setup, list(ort.get_available_providers())),
                enable_fallback=0,
            )
    except Exception as error:
        where = "the model" if isinstance(model, bytes) else str(model)
        raise _open_error(provider, error, f"ONNX Runtime {ort.__version__}", where) from error
    got = session.get_providers()
    if got[0] != provider:
        raise ProviderError(
            f"{provider} did not start, ONNX Runtime would run on {got[0]}; "
            "look at its message above, or run on the CPU"
        )
    return session


def run_error(provider: str, error: Exception, count: int) -> EdgeImprintError:
    """Turn what a run raised into the error that says what it means.

    Args:
        provider: What ran it.
        error: What ONNX Runtime raised: its exceptions share no base and tell no cause.
        count: Images in the run; 0 where it was none.

    Returns:
        `DeviceMemoryError`, `DeviceError` or `InputError`.
    """
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        what = f"for {count} images at a time" if count else "for the model"
        return DeviceMemoryError(
            f"{provider} has not enough memory {what}: {_short(error)}; "
            "give fewer at a time, or free some"
        )
    if provider != CPU and any(word in text for word in _DEVICE_FAILED):
        return DeviceError(
            f"{provider} failed: {_short(error)}; see what runs here with: edge-imprint doctor"
        )
    return InputError(f"ONNX Runtime could not run the model: {_short(error)}")


def _open_error(provider: str, error: Exception, library: str, where: str) -> EdgeImprintError:
    text = str(error).lower()
    if provider != CPU:
        if any(words in text for words in _NO_MEMORY):
            return run_error(provider, error, 0)
        if "provider" in text or any(word in text for word in _DEVICE_FAILED):
            return ProviderError(
                f"{provider} did not start: {_short(error)}; or run on the CPU"
            )
    return ModelFileError(f"{library} can't load {where}: {_short(error)}")


def _preload(ort: Any) -> None:
    """Load CUDA's libraries from where NVIDIA's wheels put them, if there are any."""
    if hasattr(ort, "preload_dlls"):  # onnxruntime-gpu >= 1.21
        # It prints what it misses, which a build against the system's libraries does not
        # need; what is really missing, the provider says when it starts.
        with contextlib.redirect_stdout(None):
            ort.preload_dlls()


@functools.cache
def _without_retry(session: Any) -> Any:
    """Return the session's class without its retry on another provider.

    Releases before 1.23 have no argument that turns it off before a session is made, and
    print on stdout what they do.
    """

    class Session(session):  # type: ignore[misc]
        @property
        def _enable_fallback(self) -> bool:
            return False

        @_enable_fallback.setter
        def _enable_fallback(self, wanted: bool) -> None:
            pass

    return Session


def _short(error: Exception) -> str:
    """Return the words of ONNX Runtime's message, without the place in its source."""
    return _PLACE.sub("", " ".join(str(error).split()))[:300]

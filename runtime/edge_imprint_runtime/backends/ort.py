# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: the provider asked for is the provider got, or an error says why not."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import (
    InputError,
    MissingPackageError,
    ModelFileError,
    ProviderError,
)
from edge_imprint_runtime.onnx_scan import check_model_file

__all__ = ["OPTIMIZATIONS", "OrtRunner"]

# How far the graph may be rewritten -> ONNX Runtime's name of it.
OPTIMIZATIONS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_ERROR_ONLY = 3  # ONNX Runtime's severity: its warnings speak of its own optimiser


class OrtRunner:
    """One ONNX Runtime session on one provider.

    Args:
        model: The file, or its bytes.
        backend: ``auto`` (CUDA where this ONNX Runtime has it, else the CPU), ``cpu``,
            ``cuda`` or ``tensorrt``.
        threads: Threads for one operator; 0 lets ONNX Runtime choose.
        optimization: How far ONNX Runtime may rewrite the graph, of `OPTIMIZATIONS`.

    Raises:
        MissingPackageError: ONNX Runtime is not installed.
        ProviderError: The provider is not in this ONNX Runtime, or does not start.
        ModelFileError: ONNX Runtime can't load the model.
        UnsafeModelError: The file claims what it does not hold, or wants other files.
    """

    def __init__(
        self,
        model: Path | bytes,
        backend: str = "auto",
        threads: int = 0,
        *,
        optimization: str = "all",
    ) -> None:
        # From 1.29 on, ONNX Runtime's official builds report each session to their maker,
        # unless this is set before they are loaded. Its owner may set it to 0.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingPackageError("onnxruntime", "running a model", "cpu") from error
        self._ort: Any = ort
        self.provider = _choose(backend, list(ort.get_available_providers()))
        self.threads = threads
        options = ort.SessionOptions()
        options.log_severity_level = _ERROR_ONLY
        options.intra_op_num_threads = threads
        options.graph_optimization_level = getattr(
            ort.GraphOptimizationLevel, OPTIMIZATIONS[optimization]
        )
        self._session = self._open(model, options)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.inputs = {
            i.name: (tuple(i.shape), str(i.type)) for i in self._session.get_inputs()
        }
        self.defaults = {
            i.name: (tuple(i.shape), str(i.type))
            for i in self._session.get_overridable_initializers()
        }
        self.outputs = {
            o.name: (tuple(o.shape), str(o.type)) for o in self._session.get_outputs()
        }
        self._input_name = next(iter(self.inputs), "")

    def hold(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Any]:
        """Put arrays where the provider reads them; see `Runner.hold`."""
        if self.provider == _PROVIDERS["cpu"]:
            return dict(arrays)  # read where they lie
        copy = self._ort.OrtValue.ortvalue_from_numpy
        return {name: copy(array, "cuda", 0) for name, array in arrays.items()}

    def run(
        self,
        names: list[str],
        images: npt.NDArray[np.generic],
        held: Mapping[str, Any] | None = None,
    ) -> list[npt.NDArray[np.generic]]:
        """Run the model; see `Runner.run`."""
        try:
            result: list[npt.NDArray[np.generic]] = self._session.run(
                names, {self._input_name: images, **(held or {})}
            )
        except Exception as error:  # ONNX Runtime's own exceptions share no base of theirs
            raise InputError(
                f"ONNX Runtime could not run the model: {_short(error)}"
            ) from error
        return result

    def _open(self, model: Path | bytes, options: Any) -> Any:
        if isinstance(model, Path):
            check_model_file(model)
        source = model if isinstance(model, bytes) else str(model)
        providers = [self.provider]
        if self.provider != _PROVIDERS["cpu"]:
            with contextlib.suppress(AttributeError):  # onnxruntime-gpu >= 1.21
                self._ort.preload_dlls()
        try:
            with warnings.catch_warnings():
                # A provider that is dropped only warns; it is found out below.
                warnings.simplefilter("ignore")
                session = self._ort.InferenceSession(
                    source, options, providers=providers, enable_fallback=0
                )
        except Exception as error:
            where = "the model" if isinstance(model, bytes) else str(model)
            if self.provider != _PROVIDERS["cpu"] and "rovider" in str(error):
                raise ProviderError(
                    f"{self.provider} did not start: {_short(error)}; or run on the CPU"
                ) from error
            raise ModelFileError(
                f"ONNX Runtime {self._ort.__version__} can't load {where}: {_short(error)}"
            ) from error
        got = session.get_providers()
        if got[0] != self.provider:
            raise ProviderError(
                f"{self.provider} did not start, ONNX Runtime would run on {got[0]}; "
                "look at its message above, or run on the CPU"
            )
        return session


def _choose(backend: str, available: list[str]) -> str:
    if backend == "auto":
        backend = "cuda" if _PROVIDERS["cuda"] in available else "cpu"
    provider = _PROVIDERS[backend]
    if provider not in available:
        raise ProviderError(
            f"this ONNX Runtime has no {provider} (it has {', '.join(available)}); "
            "install the package that has it (onnxruntime-gpu), or run on the CPU"
        )
    return provider


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

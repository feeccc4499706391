# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: the provider asked for is the provider got, or an error says why not."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.backends import LayerTime, Placement, say_notice
from edge_imprint_runtime.backends.ort_options import (
    CPU,
    CUDA,
    TENSORRT,
    TensorrtSetup,
    shape_ranges,
    tensorrt_setup,
)
from edge_imprint_runtime.backends.ort_session import (
    OPTIMIZATIONS,
    choose_provider,
    open_session,
    run_error,
)
from edge_imprint_runtime.backends.placement import (
    PlacedNode,
    assigned_nodes,
    judge_placement,
    layer_times,
    shape_nodes,
    shown_nodes,
    traced_nodes,
)
from edge_imprint_runtime.errors import (
    ClosedModelError,
    DeviceError,
    EdgeImprintError,
    MissingPackageError,
    ParameterError,
)
from edge_imprint_runtime.onnx_scan import check_model_file

__all__ = ["OPTIMIZATIONS", "OrtRunner"]

# What a trace can be fed with; text is left out, and what numpy has not.
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(uint16)": np.uint16,
    "tensor(int16)": np.int16,
    "tensor(uint32)": np.uint32,
    "tensor(int32)": np.int32,
    "tensor(uint64)": np.uint64,
    "tensor(int64)": np.int64,
}


class OrtRunner:
    """One ONNX Runtime session on one provider; see `Runner`, which it implements.

    Args:
        model: The file, or its bytes.
        backend: ``auto`` (CUDA where this ONNX Runtime has it, else the CPU), ``cpu``,
            ``cuda`` or ``tensorrt``.
        threads: Threads for one operator; 0 lets ONNX Runtime choose.
        optimization: How far ONNX Runtime may rewrite the graph, of `OPTIMIZATIONS`.
        strict: Whether to refuse a model of which any node that computes would run on
            another provider than asked for; else they are counted in `placement`.
        notice: Told what a user should know and nothing is wrong with, such as that a build
            of minutes begins; None: the log ``edge_imprint_runtime``, which Python shows on
            stderr where nobody set it up.

    Attributes:
        notices: What `notice` was told.

    Raises:
        MissingPackageError: ONNX Runtime is not installed.
        ProviderError: The provider is not in this ONNX Runtime, does not start, or takes no
            node of the model.
        ModelFileError: ONNX Runtime can't load the model.
        UnsafeModelError: The file claims what it does not hold, or wants other files.
        OutputWriteError: TensorRT's engines can't be kept.
    """

    def __init__(
        self,
        model: Path | bytes,
        backend: str = "auto",
        threads: int = 0,
        *,
        optimization: str = "all",
        strict: bool = False,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        # From 1.29 on, ONNX Runtime's official builds report each session to their maker,
        # unless this is set before they are loaded. Its owner may set it to 0.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingPackageError("onnxruntime", "running a model", "cpu") from error
        self._ort: Any = ort
        self.library = f"onnxruntime {ort.__version__}"
        self.provider = choose_provider(backend, list(ort.get_available_providers()))
        self.threads = threads
        self.notices: list[str] = []
        self._notice, self._optimization = notice or say_notice, optimization
        self._source = model
        self._device = "cpu" if self.provider == CPU else "cuda"
        if isinstance(model, Path):
            check_model_file(model)
        self._free_bytes = None if self.provider == CPU else _free_device_bytes()
        self._setup: TensorrtSetup | None = None
        if self.provider == TENSORRT:
            self._setup = tensorrt_setup(model, self.library)
            self._tell(self._setup.first_run_notice())
        session, nodes = self._open_and_ask()
        self._session: Any = session
        self._describe(session)
        shapes = frozenset[str]() if self.provider == CPU else shape_nodes(model)
        self.placement: Placement | None = None
        if nodes is not None:
            self.placement, strays = judge_placement(
                self.provider, nodes, shapes, strict=strict
            )
            self._tell(_stray_notice(self.placement, strays))
        if isinstance(model, bytes):
            self._source = b""  # not held twice: ONNX Runtime has what it needs of it

    def hold(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Any]:
        """Put arrays where the provider reads them; see `Runner.hold`."""
        if self.provider == CPU:
            return dict(arrays)  # read where they lie
        with self._failing(0):
            return {name: self._on_device(array) for name, array in arrays.items()}

    def run(
        self,
        names: list[str],
        images: npt.NDArray[np.generic],
        held: Mapping[str, Any] | None = None,
    ) -> list[npt.NDArray[np.generic]]:
        """Run the model; see `Runner.run`."""
        session = self._session  # once: another thread may close the model
        if session is None:
            raise self._closed()
        feed = {self._input_name: images}
        if held:
            feed.update(held)
        try:
            result: list[npt.NDArray[np.generic]] = session.run(names, feed)
        except Exception as error:  # ONNX Runtime's own exceptions share no base of theirs
            raise run_error(self.provider, error, len(images)) from error
        return result

    def run_stages(
        self,
        names: list[str],
        images: npt.NDArray[np.generic],
        held: Mapping[str, Any] | None = None,
    ) -> tuple[list[npt.NDArray[np.generic]], dict[str, int]]:
        """Run the model and time its stages; see `Runner.run_stages`.

        On the CPU nothing is copied in or out. Elsewhere the images go into memory of the
        device, the outputs stay there until they are copied out, and the device is waited
        for after each stage.
        """
        clock = time.perf_counter_ns
        if self.provider == CPU:
            start = clock()
            found = self.run(names, images, held)
            return found, {"compute": clock() - start}
        session = self._session
        if session is None:
            raise self._closed()
        with self._failing(len(images)):
            binding = session.io_binding()
            for name, value in (held or {}).items():
                binding.bind_ortvalue_input(name, value)
            for name in names:
                binding.bind_output(name, self._device, 0)
            start = clock()
            binding.bind_ortvalue_input(self._input_name, self._on_device(images))
            binding.synchronize_inputs()
            inside = clock()
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            computed = clock()
            found = binding.copy_outputs_to_cpu()
            end = clock()
        stages = {
            "copy_in": inside - start,
            "compute": computed - inside,
            "copy_out": end - computed,
        }
        return found, stages

    def layers(
        self,
        images: npt.NDArray[np.generic],
        held: Mapping[str, Any] | None = None,
        *,
        runs: int = 20,
    ) -> list[LayerTime]:
        """Time the model node by node, in a session of its own; see `Runner.layers`.

        Of CUDA's provider ONNX Runtime knows when a node was launched, not how long it ran:
        there the list is empty, and a notice says so. It is also where the model was given
        as bytes, which are not kept.

        Raises:
            ParameterError: ``runs`` is below 1.
            ClosedModelError: It was closed.
        """
        if self._session is None:
            raise self._closed()
        if runs < 1:
            raise ParameterError(f"runs must be an integer >= 1, got {runs}")
        if isinstance(self._source, bytes):
            return []
        if self.provider == CUDA:
            self._tell(
                "ONNX Runtime does not tell how long a layer takes on CUDA; compile an engine "
                "for that: edge-imprint compile"
            )
            return []
        import tempfile  # here and below, so that a prediction does not wait for it

        with tempfile.TemporaryDirectory(prefix="edge-imprint-") as folder:
            session = self._open(Path(folder) / "run")
            feed = {self._input_name: images, **(held or {})}
            with self._failing(len(images)):
                for _ in range(runs + 2):  # the first find caches and memory cold
                    session.run(None, feed)
            return layer_times(Path(session.end_profiling()), runs)

    def device_memory_bytes(self) -> int | None:
        """Return what the device's free memory lost since this was opened; None on the CPU.

        What other programs took or gave meanwhile counts in. None also where the package
        cuda-python, which asks CUDA, is not there.
        """
        now = None if self._free_bytes is None else _free_device_bytes()
        if now is None or self._free_bytes is None:
            return None
        return max(0, self._free_bytes - now)

    def close(self) -> None:
        """Give back the session once the runs that use it have ended; see `Runner.close`."""
        self._session = None

    # Opening -------------------------------------------------------------------------------

    def _open_and_ask(self) -> tuple[Any, list[PlacedNode] | None]:
        """Open the session, and learn which provider has which nodes; None: nobody says."""
        asks = hasattr(self._ort.InferenceSession, "get_provider_graph_assignment_info")
        ranges = None if asks or self.provider == CPU else shape_ranges(self._source)
        if ranges is None:
            session = self._open()
            return session, assigned_nodes(session)
        import tempfile

        # Before 1.24 the trace of a run tells it; the session goes on without tracing.
        with tempfile.TemporaryDirectory(prefix="edge-imprint-") as folder:
            session = self._open(Path(folder) / "run")
            usual = {name: shapes[1] for name, shapes in ranges.items()}
            inputs = session.get_inputs()
            if any(i.type not in _TYPES for i in inputs):
                session.end_profiling()
                return session, None
            feed: dict[str, Any] = {
                i.name: np.zeros(usual[i.name], _TYPES[i.type]) for i in inputs
            }
            with self._failing(1):
                session.run(None, feed)
            return session, traced_nodes(Path(session.end_profiling()))

    def _open(self, trace: Path | None = None) -> Any:
        return open_session(
            self._ort,
            self._source,
            self.provider,
            setup=self._setup,
            threads=self.threads,
            optimization=self._optimization,
            trace=trace,
        )

    def _describe(self, session: Any) -> None:
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        self.inputs = {i.name: (tuple(i.shape), str(i.type)) for i in session.get_inputs()}
        self.defaults = {
            i.name: (tuple(i.shape), str(i.type))
            for i in session.get_overridable_initializers()
        }
        self.outputs = {o.name: (tuple(o.shape), str(o.type)) for o in session.get_outputs()}
        self._input_name = next(iter(self.inputs), "")
        shape = self.inputs[self._input_name][0] if self.inputs else ()
        self.batch_limits: tuple[int, int | None] = (1, None)
        if shape and isinstance(shape[0], int):
            self.batch_limits = (shape[0], shape[0])
        elif self._setup is not None:
            self.batch_limits = (1, self._setup.max_batch)

    # Running -------------------------------------------------------------------------------

    def _on_device(self, array: npt.NDArray[np.generic]) -> Any:
        value = np.ascontiguousarray(array)
        return self._ort.OrtValue.ortvalue_from_numpy(value, self._device, 0)

    def _tell(self, text: str | None) -> None:
        if text is not None:
            self.notices.append(text)
            self._notice(text)

    def _closed(self) -> ClosedModelError:
        return ClosedModelError("the model was closed; open it again")

    @contextlib.contextmanager
    def _failing(self, count: int) -> Iterator[None]:
        try:
            yield
        except EdgeImprintError:
            raise
        except Exception as error:
            raise run_error(self.provider, error, count) from error


def _stray_notice(placement: Placement, strays: list[PlacedNode]) -> str | None:
    if not strays:
        return None
    total = sum(placement.nodes.values())
    providers = ", ".join(sorted({stray.provider for stray in strays}))
    return (
        f"{placement.asked} left {len(strays)} of {total} nodes to {providers}, which is "
        f"slower: {shown_nodes(strays)}"
    )


def _free_device_bytes() -> int | None:
    from edge_imprint_runtime.backends.cuda_calls import Cuda

    try:
        return Cuda().memory()[0]
    except (MissingPackageError, DeviceError):
        return None

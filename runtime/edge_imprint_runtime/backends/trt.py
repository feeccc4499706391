# SPDX-License-Identifier: Apache-2.0
"""TensorRT itself: an engine that `edge-imprint compile` wrote, run without ONNX Runtime."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.backends import LayerTime, Placement, say_notice
from edge_imprint_runtime.backends.cuda import Cuda, DeviceBuffer, Stream, gpu_facts
from edge_imprint_runtime.backends.trt_lane import Lane, Loaded, ProfilesTaken
from edge_imprint_runtime.backends.trt_layers import layer_times
from edge_imprint_runtime.backends.trt_pool import Pool
from edge_imprint_runtime.backends.trt_tensors import Tensor, read_tensors
from edge_imprint_runtime.engine.answers import deserialize
from edge_imprint_runtime.engine.fits import check_fits, read_engine
from edge_imprint_runtime.engine.sidecar import read_sidecar
from edge_imprint_runtime.engine.tensorrt_api import load
from edge_imprint_runtime.errors import (
    DeviceError,
    InputError,
    OutputMissingError,
    ParameterError,
)

__all__ = ["TrtRunner"]

_MOST_CONTEXTS = 4  # more hardly fill a GPU better, and each takes memory
_Held = Mapping[str, DeviceBuffer]


class TrtRunner:
    """An engine on the GPU; see `Runner` for what its methods take and give.

    Several threads may use it: each run has an execution context, a stream and buffers of
    its own while it lasts. They are made when they are first needed, sized for the largest
    shapes that the engine takes, and used again; a run allocates nothing on the device.

    Args:
        engine: The engine's file; its sidecar lies beside it.
        cuda_graph: Record the engine's kernels once a batch size, and launch the record.
        contexts: How many execution contexts to make, all at once. None: one, and up to four
            as threads ask for them, as far as memory and profiles allow; others wait.
        model_path: The ONNX file to hold the sidecar against; None for the one it names, if
            that is there.

    Attributes:
        sidecar: What lies beside the engine.
        notes: What is another here than where it was built, and may be: sentences, which
            are also said in the log ``edge_imprint_runtime``.

    Raises:
        EngineFileError: Engine or sidecar are missing or damaged, or contradict each other.
        EngineMismatchError: It was built for another GPU, TensorRT or ONNX file.
        DeviceMemoryError: The GPU has not enough memory.
        DeviceError: There is no GPU that can be used, or a call failed.
        MissingPackageError: TensorRT or cuda-python is not installed.
        ParameterError: There can't be so many contexts.
    """

    provider = "TensorRT"
    threads = 0
    placement: Placement | None = None

    def __init__(
        self,
        engine: Path,
        *,
        cuda_graph: bool = False,
        contexts: int | None = None,
        model_path: Path | None = None,
    ) -> None:
        if contexts is not None and (type(contexts) is not int or not 1 <= contexts <= 64):
            raise ParameterError(f"contexts must be an integer from 1 to 64, got {contexts!r}")
        self._where = str(engine)
        self.sidecar = read_sidecar(engine)
        self._api = load()
        self.library = f"tensorrt {self._api.text}"
        gpu, plan = gpu_facts(), read_engine(engine, self.sidecar)
        self.notes = check_fits(
            engine,
            self.sidecar,
            tensorrt_version=self._api.version,
            gpu=gpu,
            model_path=model_path,
        )
        self._cuda = Cuda()
        self._device = int(self._cuda.call("cudaGetDevice"))
        self._closing = threading.Lock()
        self._on_device: weakref.WeakSet[DeviceBuffer] = weakref.WeakSet()
        log = self._api.log()
        self._plan_bytes = len(plan)
        runtime, loaded = deserialize(
            self._api,
            plan,
            self._where,
            log,
            version_compatible=self.sidecar.version_compatible,
        )
        self._loaded = Loaded(self._cuda, runtime, loaded, log, graphs=cuda_graph)
        # Bytes as many as the weights; and no other name of what is to end at `close`.
        del plan, runtime, loaded
        try:
            self._loaded.inputs, self._loaded.outputs = read_tensors(
                self._loaded.engine, self.sidecar, self._where
            )
            self._images = next(iter(self._loaded.inputs.values()))
            self._describe()
            self._pool = self._lanes(contexts)
        except BaseException:
            self._loaded.drop()
            raise
        for text in self.notes:
            say_notice(text)

    def __del__(self) -> None:
        """Close what nobody closed."""
        if hasattr(self, "_pool"):
            with contextlib.suppress(Exception):
                self.close()

    def hold(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Any]:
        """Put arrays on the device, for all contexts; see `Runner.hold`."""
        self._pool.check()
        for name, array in arrays.items():
            tensor = self._loaded.inputs.get(name)
            if tensor is None or tensor is self._images:
                raise InputError(
                    f"{self._where} takes no {name} beside its images; compile the model that "
                    "the head was exported with"
                )
            self._check_array(tensor, array)
        held = {}
        with self._cuda.on(self._device), self._closing:
            self._pool.check()
            self._cuda.sweep()
            stream = Stream(self._cuda)
            try:
                for name, array in arrays.items():
                    whole = np.ascontiguousarray(array)
                    buffer = DeviceBuffer(self._cuda, whole.nbytes, whole.shape)
                    self._on_device.add(buffer)
                    buffer.fill(whole, stream)
                    held[name] = buffer
            finally:
                stream.destroy()
        return held

    def run(
        self,
        names: list[str],
        images: npt.NDArray[np.generic],
        held: Mapping[str, Any] | None = None,
    ) -> list[npt.NDArray[np.generic]]:
        """Run the engine; see `Runner.run`."""
        given = self._check(names, images, held)
        with self._cuda.on(self._device):
            with self._pool.one() as lane:
                found = lane.run(names, images, given)
            self._cuda.sweep()
        return found

    def run_stages(
        self,
        names: list[str],
        images: npt.NDArray[np.generic],
        held: Mapping[str, Any] | None = None,
    ) -> tuple[list[npt.NDArray[np.generic]], dict[str, int]]:
        """Run the engine and time its stages; see `Runner.run_stages`."""
        given = self._check(names, images, held)
        with self._cuda.on(self._device), self._pool.one() as lane:
            return lane.run_stages(names, images, given)

    def layers(
        self,
        images: npt.NDArray[np.generic],
        held: Mapping[str, Any] | None = None,
        *,
        runs: int = 20,
    ) -> list[LayerTime]:
        """Time the engine layer by layer, without its CUDA graph; see `Runner.layers`."""
        if type(runs) is not int or runs < 1:
            raise ParameterError(f"runs must be an integer of at least 1, got {runs!r}")
        given = self._check([], images, held)

        def profile(profiler: Any) -> None:
            with self._cuda.on(self._device), self._pool.one() as lane:
                lane.profile(profiler, images, given, runs)

        return layer_times(self._api.module, profile, self.inspect(), runs)

    def inspect(self) -> str:
        """Return TensorRT's own description of the engine: its layers and tensors, as JSON.

        Raises:
            ClosedModelError: The engine was closed.
        """
        with self._closing:
            self._pool.check()
            inspector = self._loaded.engine.create_engine_inspector()
            form = self._api.module.LayerInformationFormat.JSON
            return str(inspector.get_engine_information(form))

    def device_memory_bytes(self) -> int | None:
        """Return what it takes of the device: contexts, buffers, held arrays, weights.

        The weights are taken to be as large as the engine's file; the rest is counted.
        """
        with self._closing:
            self._pool.check()
            lanes, buffers = self._pool.device_bytes()
            held = sum(buffer.size for buffer in list(self._on_device) if buffer.address)
            return lanes * self._loaded.scratch_bytes() + buffers + held + self._plan_bytes

    def close(self) -> None:
        """Wait for the runs that go on, and free all; see `Runner.close`."""
        with contextlib.ExitStack() as there:
            with contextlib.suppress(DeviceError):  # all is let go of, also where CUDA failed
                there.enter_context(self._cuda.on(self._device))
            self._pool.close()
            with self._closing:
                self._loaded.drop()
                for buffer in list(self._on_device):
                    with contextlib.suppress(DeviceError):
                        buffer.free()
                with contextlib.suppress(DeviceError):
                    self._cuda.sweep()

    # Opening -----------------------------------------------------------------------------

    def _describe(self) -> None:
        """Say what it takes and gives, as the sidecar has it: `read_tensors` compared them."""
        told = self.sidecar
        self.metadata: dict[str, str] = dict(told.metadata)
        self.inputs = {
            name: (tuple(shape), kind) for name, (shape, kind) in told.inputs.items()
        }
        self.defaults: dict[str, tuple[tuple[int | str | None, ...], str]] = {}
        self.outputs = {
            name: (tuple(shape), kind) for name, (shape, kind) in told.outputs.items()
        }
        self.batch_limits: tuple[int, int | None] = (
            self._images.least[0],
            self._images.most[0],
        )

    def _lanes(self, contexts: int | None) -> Pool:
        loaded = self._loaded  # not self, which then only the collector would end
        try:
            return Pool(
                lambda: Lane(loaded), contexts or _MOST_CONTEXTS, at_once=contexts is not None
            )
        except ProfilesTaken as error:
            count = loaded.engine.num_optimization_profiles
            raise ParameterError(
                f"contexts={contexts} is more than {self._where} serves: with TensorRT "
                f"{self._api.text} each needs a profile of the engine's to itself, and it has "
                f"{count}; ask for as many"
            ) from error

    # What is given -----------------------------------------------------------------------

    def _check(
        self, names: list[str], images: npt.NDArray[np.generic], held: _Held | None
    ) -> _Held:
        self._pool.check()
        for name in names:
            if name not in self._loaded.outputs:
                raise OutputMissingError(
                    f"{self._where} has no output {name!r}, it has "
                    f"{', '.join(self._loaded.outputs)}; export and compile the model with it"
                )
        self._check_array(self._images, images)
        given = held or {}
        wanted = self._loaded.inputs.keys() - {self._images.name}
        if given.keys() != wanted:
            raise InputError(
                f"{self._where} takes {', '.join(sorted(wanted)) or 'nothing'} beside its "
                f"images, got {', '.join(sorted(given)) or 'nothing'}; give what hold returned"
            )
        for name, buffer in given.items():
            if not isinstance(buffer, DeviceBuffer) or buffer.cuda is not self._cuda:
                raise InputError(f"{name} was not held by this model; give what hold returned")
        return given

    def _check_array(self, tensor: Tensor, array: npt.NDArray[np.generic]) -> None:
        if not isinstance(array, np.ndarray) or array.dtype != tensor.dtype:
            got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise InputError(f"{tensor.name} must be an array of {tensor.dtype}, got {got}")
        if tensor.takes(array.shape):
            return
        least, most = tensor.least, tensor.most
        if tensor is self._images and tensor.takes((least[0], *array.shape[1:])):
            raise InputError(
                f"{self._where} was compiled for {least[0]} to {most[0]} images a run, got "
                f"{len(array)}; give others, or compile it with another --batch"
            )
        limits = f"{list(least)}" if least == most else f"from {list(least)} to {list(most)}"
        raise InputError(
            f"{tensor.name} must be of shape {limits}, for which {self._where} was compiled, "
            f"got {list(array.shape)}"
        )

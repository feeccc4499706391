# SPDX-License-Identifier: Apache-2.0
"""What one caller of an engine has to itself: a context, a stream, and memory for the most."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.backends.cuda import (
    Cuda,
    DeviceBuffer,
    Event,
    Graph,
    PinnedBuffer,
    Stream,
)
from edge_imprint_runtime.backends.trt_tensors import Tensor
from edge_imprint_runtime.engine.tensorrt_api import Log
from edge_imprint_runtime.errors import DeviceError, DeviceMemoryError

__all__ = ["Lane", "Loaded", "ProfilesTaken"]

Array: TypeAlias = npt.NDArray[np.generic]

_TAKEN = "has been chosen by another IExecutionContext"  # what TensorRT 8 says of a profile


class ProfilesTaken(Exception):  # noqa: N818 - caught in this package, never shown
    """Other contexts use all of the engine's profiles, and TensorRT 8 lets none share."""


@dataclass
class Loaded:
    """An engine on the device, as its lanes share it.

    Attributes:
        cuda: The API.
        runtime: TensorRT's, which must live as long as the engine.
        engine: TensorRT's.
        log: Keeps what TensorRT says.
        inputs: By name, the images first.
        outputs: By name.
        graphs: Whether lanes launch recorded graphs.
    """

    cuda: Cuda
    runtime: Any
    engine: Any
    log: Log
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    graphs: bool = False

    def scratch_bytes(self) -> int:
        """Return how much of the device's memory each context takes for itself."""
        for name in ("device_memory_size_v2", "device_memory_size"):  # the old is gone in 11
            if (found := getattr(self.engine, name, None)) is not None:
                return int(found)
        return 0

    def drop(self) -> None:
        """Let go of the engine, when no context is left, and of its runtime after it."""
        self.engine = None
        self.runtime = None

    def failed(self, call: str) -> DeviceError:
        """Make the error of a call of TensorRT's that answered False or None."""
        said = self.log.errors(1) or "it does not say why"
        return DeviceError(f"TensorRT's {call} failed: {said}; open the model again")


class Lane:
    """One execution context with its stream and its memory; for one thread at a time.

    Its memory is made once, for the largest shapes that the engine takes.

    Args:
        loaded: The engine.

    Raises:
        DeviceMemoryError: The device has not enough memory.
        ProfilesTaken: Other contexts use all of the engine's profiles.
        DeviceError: CUDA or TensorRT failed otherwise.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._images = next(iter(loaded.inputs.values()))
        self._context: Any = None
        self._stream: Stream | None = None
        self._device: dict[str, DeviceBuffer] = {}
        self._host: dict[str, PinnedBuffer] = {}
        self._events: list[Event] = []
        self._graphs: dict[tuple[int, ...], Graph] = {}
        self._forget_shapes()
        try:
            self._stream = Stream(loaded.cuda)
            self._new_context()
            self._make_buffers()
            self._bind()
        except BaseException as error:
            self.close()
            if isinstance(error, DeviceError) and _TAKEN in str(error):
                raise ProfilesTaken from error
            raise

    @property
    def device_bytes(self) -> int:
        """What its buffers take of the device's memory, without the context's own."""
        return sum(buffer.size for buffer in self._device.values())

    def run(
        self, names: list[str], images: Array, held: Mapping[str, DeviceBuffer]
    ) -> list[Array]:
        """Run the engine; what is given was checked.

        Args:
            names: The outputs wanted.
            images: What goes into the first input.
            held: What goes into the others.

        Returns:
            One array an output.

        Raises:
            DeviceError: CUDA or TensorRT failed; the lane is of no use any more.
        """
        self._set_inputs(images, held)
        self._copy_in(images)
        self._compute()
        self._start_copies_out(names)
        self._sync()
        return self._results(names)

    def run_stages(
        self, names: list[str], images: Array, held: Mapping[str, DeviceBuffer]
    ) -> tuple[list[Array], dict[str, int]]:
        """Run the engine stage by stage; arguments and errors as in `run`.

        Returns:
            The outputs, and nanoseconds by stage, on the host's clock and CUDA's.
        """
        while len(self._events) < 2:
            self._events.append(Event(self._loaded.cuda))
        times: dict[str, int] = {}
        found: list[Array] = []

        def pin() -> None:
            np.copyto(self._given, images)

        def give() -> None:
            found.extend(self._results(names))

        self._set_inputs(images, held)
        if self._loaded.graphs:
            self._graph()  # recorded outside of what is timed
        self._time(times, "copy_in", self._start_copy_in, before=pin)
        self._time(times, "compute", self._compute)
        self._time(times, "copy_out", lambda: self._start_copies_out(names), after=give)
        return found, times

    def profile(
        self, profiler: Any, images: Array, held: Mapping[str, DeviceBuffer], runs: int
    ) -> None:
        """Run with a profiler of TensorRT's, which is told each layer's time.

        It gets a context of its own, in the place of the lane's: two would need twice the
        memory, and twice the profiles with TensorRT 8.

        Args:
            profiler: An ``IProfiler``.
            images: As in `run`.
            held: As in `run`.
            runs: How often to run; once more before, of which it is told nothing.

        Raises:
            DeviceError: CUDA or TensorRT failed; the lane is of no use any more.
        """
        self._drop_context()
        self._new_context()
        self._bind()
        self._set_inputs(images, held)
        self._copy_in(images)
        self._enqueue()  # the first run after a change of shapes does more than others
        self._sync()
        self._context.profiler = profiler
        # Else each enqueue waits and reports; both are right, this one is the faster.
        self._context.enqueue_emits_profile = False
        for _ in range(runs):
            self._enqueue()
            self._sync()
            if not self._context.report_to_profiler():
                raise self._loaded.failed("report_to_profiler")
        self._drop_context()
        self._new_context()
        self._bind()

    def close(self) -> None:
        """Free all it holds; what CUDA answers is of no use any more, and not looked at."""
        with contextlib.suppress(DeviceError):
            if self._stream is not None:
                self._stream.synchronize()  # nothing may be freed that still runs
        self._drop_context()
        gone: list[Callable[[], None]] = [event.destroy for event in self._events]
        gone += [buffer.free for buffer in self._device.values()]
        gone += [buffer.free for buffer in self._host.values()]
        if self._stream is not None:
            gone.append(self._stream.destroy)
        for free in gone:
            with contextlib.suppress(DeviceError):
                free()
        self._events, self._device, self._host, self._stream = [], {}, {}, None

    # What it is made of ------------------------------------------------------------------

    def _new_context(self) -> None:
        # Nowhere but in self: a local name would be kept by the traceback of an error.
        loaded = self._loaded
        self._context = loaded.engine.create_execution_context()
        if self._context is None:
            said, needed = loaded.log.errors(1), loaded.scratch_bytes()
            if "memory" in said.lower() or needed > loaded.cuda.memory()[0]:
                raise loaded.cuda.no_room("the GPU", needed)
            raise loaded.failed("create_execution_context")
        if self._context.active_optimization_profile < 0:
            self._choose_profile()

    def _choose_profile(self) -> None:
        """With TensorRT 8 a profile serves one context, and only the first gets one."""
        assert self._stream is not None
        lines, taken = self._loaded.log.lines, True
        for index in range(self._loaded.engine.num_optimization_profiles):
            if self._context.set_optimization_profile_async(index, self._stream.handle):
                taken = False
                break
        # What was said of those in use is dealt with, and would be told of the next error.
        lines[:] = [line for line in lines if _TAKEN not in line[1]]
        if taken:
            raise ProfilesTaken
        self._stream.synchronize()

    def _make_buffers(self) -> None:
        """Make memory for the largest shapes."""
        cuda = self._loaded.cuda
        for name, tensor in self._loaded.inputs.items():
            self._set_shape(name, tensor.most)
        sizes = {self._images.name: _bytes(self._images.most, self._images.dtype)}
        for name, tensor in self._loaded.outputs.items():
            shape = tuple(self._context.get_tensor_shape(name))
            if min(shape, default=0) < 0:
                raise DeviceError(
                    f"the engine's output {name} is of shape {list(shape)}, which depends on "
                    "what is computed; compile a model that edge-imprint exported"
                )
            sizes[name] = _bytes(shape, tensor.dtype)
        for name, size in sizes.items():
            self._device[name] = DeviceBuffer(cuda, size)
            self._host[name] = PinnedBuffer(cuda, size)

    def _bind(self) -> None:
        for name, buffer in self._device.items():
            self._set_address(name, buffer.address)

    def _set_address(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise self._loaded.failed("set_tensor_address")

    def _drop_context(self) -> None:
        self._drop_graphs()
        self._context = None  # TensorRT's object ends with its last reference
        self._forget_shapes()

    def _drop_graphs(self) -> None:
        for graph in self._graphs.values():
            with contextlib.suppress(DeviceError):
                graph.destroy()
        self._graphs = {}

    def _forget_shapes(self) -> None:
        self._shape: tuple[int, ...] = ()
        self._held: tuple[tuple[str, int, tuple[int, ...]], ...] | None = None
        self._given: Array = np.empty(0)  # the images' pinned memory, in their shape
        self._made: dict[str, Array] = {}  # likewise the outputs'

    # A run -------------------------------------------------------------------------------

    def _set_inputs(self, images: Array, held: Mapping[str, DeviceBuffer]) -> None:
        """Tell the context shapes and addresses, where they are not the last run's."""
        # Not the arrays themselves: a lane at rest must not keep an old head alive.
        key = tuple((name, buffer.address, buffer.shape) for name, buffer in held.items())
        if images.shape == self._shape and key == self._held:
            return
        if images.shape != self._shape:
            self._set_shape(self._images.name, images.shape)
        if key != self._held:
            self._drop_graphs()  # they read the old addresses
            for name, buffer in held.items():
                self._set_shape(name, buffer.shape)
                self._set_address(name, buffer.address)
        self._given = self._host[self._images.name].view(self._images.dtype, images.shape)
        for name, tensor in self._loaded.outputs.items():
            shape = tuple(self._context.get_tensor_shape(name))
            self._made[name] = self._host[name].view(tensor.dtype, shape)
        self._shape, self._held = images.shape, key

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if not self._context.set_input_shape(name, shape):
            raise self._loaded.failed("set_input_shape")

    def _copy_in(self, images: Array) -> None:
        np.copyto(self._given, images)
        self._start_copy_in()

    def _start_copy_in(self) -> None:
        name = self._images.name
        assert self._stream is not None
        self._stream.copy_in(self._device[name], self._host[name], self._given.nbytes)

    def _compute(self) -> None:
        if not self._loaded.graphs:
            self._enqueue()
            return
        assert self._stream is not None
        self._graph().launch(self._stream)

    def _enqueue(self) -> None:
        assert self._stream is not None
        if not self._context.execute_async_v3(self._stream.handle):
            raise self._loaded.failed("execute_async_v3")

    def _graph(self) -> Graph:
        """Return the graph of the present shapes and addresses; record it the first time."""
        found = self._graphs.get(self._shape)
        if found is None:
            assert self._stream is not None
            # Once without a record: what TensorRT puts off until the first run after a
            # change of shapes can't be recorded.
            self._enqueue()
            self._sync()
            try:
                found = self._stream.record(self._enqueue)
            except DeviceMemoryError:
                raise
            except DeviceError as error:
                what = str(error).rpartition("; ")[0]  # its advice is not of use here
                raise DeviceError(
                    f"the engine can't be recorded as a CUDA graph: {what}; open it without "
                    "cuda_graph"
                ) from error
            self._graphs[self._shape] = found
        return found

    def _start_copies_out(self, names: list[str]) -> None:
        assert self._stream is not None
        for name in names:
            size = self._made[name].nbytes
            self._stream.copy_out(self._host[name], self._device[name], size)

    def _results(self, names: list[str]) -> list[Array]:
        return [self._made[name].copy() for name in names]

    def _sync(self) -> None:
        assert self._stream is not None
        self._stream.synchronize()

    def _time(
        self,
        times: dict[str, int],
        stage: str,
        work: Callable[[], None],
        *,
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        """Do work, wait for the device, and note how long it took on both clocks.

        What the host does before and after counts on its own clock alone.
        """
        assert self._stream is not None
        first, last = self._events
        start = time.perf_counter_ns()
        if before is not None:
            before()
        first.record(self._stream)
        work()
        last.record(self._stream)
        self._sync()
        if after is not None:
            after()
        times[stage] = time.perf_counter_ns() - start
        times[f"{stage}_gpu"] = last.since_ns(first)


def _bytes(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize

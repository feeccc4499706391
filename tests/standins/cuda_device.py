# SPDX-License-Identifier: Apache-2.0
"""One GPU that is none: host memory, and streams that run when they are waited for.

Work on a stream is done when it is synchronized and not before, so that a forgotten wait
gives wrong numbers here too. Memory is filled with rubbish, freed memory can't be used, and
all that was made and not given back is counted.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

__all__ = [
    "STATUS_TEXTS",
    "CaptureMode",
    "CopyKind",
    "Device",
    "Event",
    "Fault",
    "Graph",
    "Handle",
    "Status",
    "Stream",
    "device_of",
]

# Number and text of each status, as CUDA has them.
STATUS_TEXTS = {
    "cudaSuccess": (0, "no error"),
    "cudaErrorInvalidValue": (1, "invalid argument"),
    "cudaErrorMemoryAllocation": (2, "out of memory"),
    "cudaErrorInsufficientDriver": (
        35,
        "CUDA driver version is insufficient for CUDA runtime version",
    ),
    "cudaErrorNoDevice": (100, "no CUDA-capable device is detected"),
    "cudaErrorInvalidDevice": (101, "invalid device ordinal"),
    "cudaErrorInvalidResourceHandle": (400, "invalid resource handle"),
    "cudaErrorNotReady": (600, "device not ready"),
    "cudaErrorIllegalAddress": (700, "an illegal memory access was encountered"),
    "cudaErrorLaunchFailure": (719, "unspecified launch failure"),
    "cudaErrorStreamCaptureUnsupported": (
        900,
        "operation not permitted when stream is capturing",
    ),
    "cudaErrorStreamCaptureInvalidated": (
        901,
        "operation failed due to a previous error during capture",
    ),
    "cudaErrorUnknown": (999, "unknown error"),
}
_STICKY = ("cudaErrorIllegalAddress", "cudaErrorLaunchFailure")
_RUBBISH = 0xCD

Status = IntEnum("cudaError_t", {name: number for name, (number, _) in STATUS_TEXTS.items()})
CopyKind = IntEnum(
    "cudaMemcpyKind",
    {
        "cudaMemcpyHostToHost": 0,
        "cudaMemcpyHostToDevice": 1,
        "cudaMemcpyDeviceToHost": 2,
        "cudaMemcpyDeviceToDevice": 3,
    },
)
CaptureMode = IntEnum(
    "cudaStreamCaptureMode",
    {
        "cudaStreamCaptureModeGlobal": 0,
        "cudaStreamCaptureModeThreadLocal": 1,
        "cudaStreamCaptureModeRelaxed": 2,
    },
)


class Fault(Exception):  # noqa: N818 - it is a status, and caught here
    """A call, or work on a stream, fails with a status."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = Status[status]


class Handle:
    """A stream, an event, a graph; cuda-python's give their number by int()."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __int__(self) -> int:
        return self.number


@dataclass(eq=False)
class Stream(Handle):
    """An order of work."""

    number: int
    work: deque[Callable[[], None]] = field(default_factory=deque)
    lock: Any = field(default_factory=threading.Lock)
    recorded: list[Callable[[], None]] | None = None  # while it is captured
    recorder: int = 0  # which thread captures it
    broken: bool = False  # the capture is invalid

    __int__ = Handle.__int__


@dataclass(eq=False)
class Event(Handle):
    """A point in time."""

    number: int
    at_s: float | None = None

    __int__ = Handle.__int__


@dataclass(eq=False)
class Graph(Handle):
    """Work that was recorded, or that is ready to be launched."""

    number: int
    work: list[Callable[[], None]]

    __int__ = Handle.__int__


@dataclass
class _Rule:
    status: str | Exception
    skip: int
    times: int


class Device:
    """One GPU.

    Attributes:
        calls: How often each function was called.
        live: What was made and not given back: its number or address, and what it is.
        violations: What must never happen, and would go unnoticed with the real one.
    """

    def __init__(self, world: Any) -> None:
        self.world = world
        self.calls: Counter[str] = Counter()
        self.live: dict[int, tuple[str, int]] = {}
        self.violations: list[str] = []
        self.current: Any = threading.local()
        self.sticky: Status | None = None
        self.last: dict[int, Status] = {}
        self._memory: dict[int, Any] = {}
        self._objects: dict[int, Any] = {}
        self._rules: dict[str, _Rule] = {}
        self._numbers = itertools.count(1000)
        self._lock = threading.RLock()

    # What a test asks for ----------------------------------------------------------------

    def fail(
        self, call: str, status: str | Exception, *, skip: int = 0, times: int = 10**9
    ) -> None:
        """Let a function fail, or ``kernel``: the engine's own work, found out when waiting.

        Args:
            call: Its name.
            status: A status, or what cuda-python itself raises.
            skip: How many calls go well before.
            times: How many fail.
        """
        self._rules[call] = _Rule(status, skip, times)

    def heal(self) -> None:
        """Let nothing fail any more; a sticky error stays."""
        self._rules.clear()

    @property
    def used_bytes(self) -> int:
        """Bytes of the device that are taken."""
        return sum(size for kind, size in self.live.values() if kind != "pinned")

    # What CUDA and TensorRT do -----------------------------------------------------------

    def enter(self, call: str) -> None:
        """Note a call; raise if it is to fail."""
        with self._lock:
            self.calls[call] += 1
            if self.sticky is not None:
                raise Fault(self.sticky.name)
            rule = self._rules.get(call)
            if rule is None:
                return
            if rule.skip:
                rule.skip -= 1
                return
            if rule.times:
                rule.times -= 1
                if isinstance(rule.status, Exception):
                    raise rule.status
                raise Fault(rule.status)

    def allocate(self, kind: str, size: int) -> int:
        """Take memory: ``device``, ``pinned``, or what TensorRT takes for itself."""
        self._not_recording()
        with self._lock:
            if kind != "pinned" and self.used_bytes + size > self.world.memory_bytes:
                raise Fault("cudaErrorMemoryAllocation")
            memory = (ctypes.c_uint8 * size)()
            address = ctypes.addressof(memory)
            ctypes.memset(address, _RUBBISH, size)
            self._memory[address] = memory
            self.live[address] = (kind, size)
            return address

    def free(self, address: int, *kinds: str) -> None:
        """Give memory back."""
        self._not_recording()
        with self._lock:
            if self.live.get(address, ("", 0))[0] not in kinds:
                raise Fault("cudaErrorInvalidValue")
            del self.live[address], self._memory[address]

    def holds(self, address: int, size: int, kind: str) -> bool:
        """Whether memory of a kind is there, and large enough."""
        with self._lock:
            for start, (which, length) in self.live.items():
                if which == kind and start <= address and address + size <= start + length:
                    return True
        return False

    def read(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """Copy an array out of the device's memory."""
        made = np.empty(shape, dtype)
        self.move(made.ctypes.data, address, made.nbytes, reads=address)
        return made

    def write(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Copy an array into the device's memory."""
        whole = np.ascontiguousarray(array)
        self.move(address, whole.ctypes.data, whole.nbytes, reads=address)

    def move(self, to: int, source: int, size: int, *, reads: int) -> None:
        """Copy; ``reads`` is what must be the device's memory."""
        if not self.holds(reads, size, "device"):
            raise Fault("cudaErrorIllegalAddress")
        ctypes.memmove(to, source, size)

    def start(self, stream: int | Handle, work: Callable[[], None]) -> None:
        """Put work on a stream, or into what it records."""
        found = self.find(stream, Stream)
        with found.lock:
            if found.recorded is not None:
                if found.recorder != threading.get_ident():
                    self.violations.append("another thread used a stream that records")
                found.recorded.append(work)
            else:
                found.work.append(work)

    def wait(self, stream: int | Handle) -> None:
        """Do what is on a stream."""
        found = self.find(stream, Stream)
        with found.lock:
            if found.recorded is not None:
                found.broken = True
                raise Fault("cudaErrorStreamCaptureUnsupported")
            while found.work:
                try:
                    found.work.popleft()()
                except Fault as fault:
                    found.work.clear()
                    if fault.status.name in _STICKY:
                        self.sticky = fault.status
                    raise

    def make(self, kind: str, build: Callable[[int], Any]) -> Any:
        """Make an object that has a number."""
        with self._lock:
            number = next(self._numbers)
            self._objects[number] = build(number)
            self.live[number] = (kind, 0)
            return self._objects[number]

    def find(self, handle: int | Handle, kind: type[Any]) -> Any:
        """Return an object by its number."""
        found = self._objects.get(int(handle))
        if not isinstance(found, kind):
            raise Fault("cudaErrorInvalidResourceHandle")
        return found

    def end(self, handle: int | Handle, kind: type[Any]) -> None:
        """Give an object back."""
        self.find(handle, kind)
        with self._lock:
            del self._objects[int(handle)], self.live[int(handle)]

    def recording(self) -> list[Stream]:
        """Return the streams that this thread records."""
        with self._lock:
            streams = [s for s in self._objects.values() if isinstance(s, Stream)]
        mine = threading.get_ident()
        return [s for s in streams if s.recorded is not None and s.recorder == mine]

    def _not_recording(self) -> None:
        for stream in self.recording():
            stream.broken = True
            raise Fault("cudaErrorStreamCaptureUnsupported")


def device_of(world: Any) -> Device:
    """Return a world's GPU; it is made when it is first asked for."""
    found: Device = world.__dict__.setdefault("device", Device(world))
    return found

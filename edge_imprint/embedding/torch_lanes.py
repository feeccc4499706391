# SPDX-License-Identifier: Apache-2.0
"""How a batch reaches a torch device and its rows come back: at once, or while others compute.

On CUDA a batch lies in pinned memory, is copied by a stream of its own while the batch before
it computes, and the host waits for neither until it asks for the rows.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.errors import DeviceError, ProviderError

if TYPE_CHECKING:
    import torch

__all__ = ["CpuLane", "CudaLane", "Flight", "Forward", "Lane", "out_of_memory"]

Forward = Callable[["torch.Tensor"], "torch.Tensor"]
"""(n, H, W, 3) uint8 on the device -> (n, D) float32 on it."""

# What torch and the libraries under it say where memory is short, beside OutOfMemoryError.
_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
_MESSAGE = 200  # characters of torch's message that a sentence quotes


class Flight(Protocol):
    """A batch on its way."""

    def land(self) -> tuple[npt.NDArray[np.float32], float]:
        """Wait for it; return its rows (n, D), and the seconds that the device computed."""


class Lane(Protocol):
    """The way to one device.

    Attributes:
        device: The torch device's name.
        ahead: Batches that may be on their way while the next is filled.
    """

    device: str
    ahead: int

    def buffer(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Return uint8 host memory from which a batch is sent."""

    def send(self, host: torch.Tensor, forward: Forward) -> Flight:
        """Send a batch; ``host`` may not be written until it has landed."""

    def ready(self) -> None:
        """Wait until what was put on the device can be used by `send`."""

    def shrink(self) -> None:
        """Give memory back that is kept for later and held by nothing."""


def out_of_memory(error: RuntimeError) -> bool:
    """Tell whether torch, or a library that it calls, lacked memory."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in _MEMORY)


class CpuLane:
    """Embeds on the CPU, while the caller waits: to compare with, and for tests."""

    device = "cpu"
    ahead = 0

    def buffer(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Return ordinary memory; see `Lane`."""
        import torch

        return torch.empty(shape, dtype=torch.uint8)

    def send(self, host: torch.Tensor, forward: Forward) -> Flight:
        """Compute at once; see `Lane`."""
        began = time.perf_counter()
        rows = forward(host).numpy()
        return _Landed(rows, time.perf_counter() - began)

    def ready(self) -> None:
        """It is there at once; see `Lane`."""

    def shrink(self) -> None:
        """Nothing is kept; see `Lane`."""


class _Landed:
    def __init__(self, rows: npt.NDArray[np.float32], seconds: float) -> None:
        self._landed = rows, seconds

    def land(self) -> tuple[npt.NDArray[np.float32], float]:
        return self._landed


class CudaLane:
    """Embeds on a GPU.

    Args:
        device: ``cuda``, or ``cuda:1`` of several.

    Raises:
        ProviderError: torch finds no such device.
    """

    ahead = 1

    def __init__(self, device: str = "cuda") -> None:
        import torch

        with _silent() as said:
            there = torch.cuda.is_available()
        if not there:
            reason = f" ({said[0]})" if said else ""
            raise ProviderError(
                f"torch finds no CUDA device on this machine{reason}; use --device cpu"
            )
        self.device = device
        with self.failing():
            self._copies, self._computes = (_cuda().Stream(device) for _ in range(2))

    def buffer(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Return pinned memory, which torch keeps and gives again; see `Lane`."""
        return self._pinned(shape, "uint8")

    def send(self, host: torch.Tensor, forward: Forward) -> Flight:
        """Queue the copy, the network and the copy back, and wait for none; see `Lane`."""
        import torch

        began, ended, back = (_cuda().Event(enable_timing=True) for _ in range(3))
        with self.failing():
            with torch.cuda.stream(self._copies):
                pixels = host.to(self.device, non_blocking=True)
            with torch.cuda.stream(self._computes):
                self._computes.wait_stream(self._copies)
                # Its memory is not given to the next copy before this network has read it.
                pixels.record_stream(self._computes)
                began.record(self._computes)
                rows = forward(pixels)
                ended.record(self._computes)
                out = self._pinned(tuple(rows.shape), "float32")
                out.copy_(rows, non_blocking=True)
                back.record(self._computes)
        return _CudaFlight(self, out, (began, ended, back))

    def ready(self) -> None:
        """Wait for the default stream, which the two streams here don't; see `Lane`."""
        import torch

        with self.failing():
            torch.cuda.synchronize(self.device)

    def shrink(self) -> None:
        """Empty torch's cache of device memory; see `Lane`."""
        import torch

        torch.cuda.empty_cache()

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Turn what CUDA says, other than for memory, into a `DeviceError`."""
        try:
            yield
        except RuntimeError as error:
            if "CUDA" not in str(error) or out_of_memory(error):
                raise
            said = str(error).strip().splitlines()[0][:_MESSAGE]
            raise DeviceError(
                f"torch failed on {self.device} ({said}); run it again, or use --device cpu"
            ) from error

    def _pinned(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        import torch

        return torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True)


class _CudaFlight:
    def __init__(self, lane: CudaLane, out: torch.Tensor, events: tuple[Any, ...]) -> None:
        self._lane, self._out, self._events = lane, out, events

    def land(self) -> tuple[npt.NDArray[np.float32], float]:
        began, ended, back = self._events
        with self._lane.failing():
            back.synchronize()
            seconds = began.elapsed_time(ended) / 1e3
        # A copy: pinned memory is dear, and the next batch wants it.
        return self._out.numpy().copy(), seconds


def _cuda() -> Any:
    """Return `torch.cuda`, whose classes have no types."""
    import torch

    return torch.cuda


@contextlib.contextmanager
def _silent() -> Iterator[list[str]]:
    """Keep warnings off the terminal; gives the first line of each when it is over."""
    import warnings

    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said += [str(one.message).strip().splitlines()[0][:_MESSAGE] for one in caught]

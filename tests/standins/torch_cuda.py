# SPDX-License-Identifier: Apache-2.0
"""Stands in for torch.cuda's streams and events on a CPU: what waits for what, and how long.

Work is done at once, and it is noted in which stream. A stream that reads what another has
written without having waited for it fails, as does a host that reads before it has waited.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from edge_imprint.embedding import torch_embedder
from edge_imprint.embedding.torch_lanes import CudaLane
from edge_imprint.embedding.torch_network import Network

__all__ = ["FakeCuda", "cuda_on_the_cpu"]


class FakeCuda:
    """Patches torch so that `CudaLane` runs on the CPU.

    Attributes:
        clock_s: The device's time; a network under test moves it.
        free_bytes: What pinned memory may be asked for.
        log: What was done, in order.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.clock_s = 0.0
        self.free_bytes = 2**40
        self.log: list[str] = []
        self.current = "default"
        self._names = iter(["copies", "computes"] * 100)
        self._patch = patch
        for name, made in {
            "is_available": lambda: True,
            "Stream": self._stream,
            "Event": lambda enable_timing: _Event(self),
            "stream": self._entered,
            "synchronize": lambda device: self.log.append("synchronize"),
            "empty_cache": lambda: self.log.append("empty cache"),
        }.items():
            patch.setattr(torch.cuda, name, made)
        whole = torch.empty

        def empty(*shape: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
            made = whole(*shape, **options)
            if pin_memory:
                self.log.append(f"pin {tuple(made.shape)}")
                if made.nbytes > self.free_bytes:
                    raise RuntimeError("CUDA error: out of memory")
            return made

        patch.setattr(torch, "empty", empty)
        to: Callable[..., torch.Tensor] = torch.Tensor.to

        def sent(tensor: torch.Tensor, *where: Any, **options: Any) -> torch.Tensor:
            if options.get("non_blocking"):
                self.log.append(f"send {len(tensor)} in {self.current}")
                # A copy: what is written into the buffer too early is not seen on a GPU.
                return to(tensor, *where).clone()
            return to(tensor, *where, **options)

        patch.setattr(torch.Tensor, "to", sent)

        def kept(tensor: torch.Tensor, stream: _Stream) -> None:
            self.log.append(f"keep {len(tensor)} for {stream.name}")

        patch.setattr(torch.Tensor, "record_stream", kept)

    def _stream(self, device: str) -> _Stream:
        return _Stream(self, next(self._names))

    @contextlib.contextmanager
    def _entered(self, stream: _Stream) -> Iterator[None]:
        before, self.current = self.current, stream.name
        yield
        self.current = before


def cuda_on_the_cpu(patch: pytest.MonkeyPatch) -> FakeCuda:
    """Let `TorchEmbedder` take the way to CUDA, and end on the CPU."""
    world = FakeCuda(patch)

    class Lane(CudaLane):
        def __init__(self, device: str) -> None:
            super().__init__("cpu")

    def network(module: Any, preprocess: Any, device: str, **options: Any) -> Network:
        return Network(module, preprocess, "cpu", **options)

    patch.setattr(torch_embedder, "CudaLane", Lane)
    patch.setattr(torch_embedder, "Network", network)
    return world


class _Stream:
    def __init__(self, world: FakeCuda, name: str) -> None:
        self.world, self.name = world, name

    def wait_stream(self, other: _Stream) -> None:
        self.world.log.append(f"{self.name} waits for {other.name}")


class _Event:
    def __init__(self, world: FakeCuda) -> None:
        self._world, self._at_s = world, 0.0

    def record(self, stream: _Stream) -> None:
        assert stream.name == self._world.current
        self._at_s = self._world.clock_s

    def synchronize(self) -> None:
        self._world.log.append("host waits")

    def elapsed_time(self, other: _Event) -> float:
        return 1e3 * (other._at_s - self._at_s)

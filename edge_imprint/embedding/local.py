# SPDX-License-Identifier: Apache-2.0
"""Photos -> embeddings on this machine: workers decode, lanes embed, results come as they are.

On a CPU there is a lane for each core, a thread whose runs have one thread of ONNX Runtime's:
so nothing waits for anything inside a run, and an embedding depends on its photo alone. More
threads and processes than cores are ready to run as long as there is work, so that no core
waits for another; what is decoded and not yet embedded is bounded.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edge_imprint.backbones import Backbone
from edge_imprint.embedding.embedders import (
    LANE_BATCH,
    Embedder,
    OrtEmbedder,
    check_device,
    embedder_graph,
    torch_embedder,
)
from edge_imprint.embedding.engine import Engine, Result
from edge_imprint.embedding.gpus import choose_device
from edge_imprint.imprinting.proxies import cores
from edge_imprint.photos import Location
from edge_imprint_runtime.errors import ParameterError, ProviderError
from edge_imprint_runtime.quick import check_decode

if TYPE_CHECKING:
    from edge_imprint.embedding.decoders import Decoders
    from edge_imprint.embedding.lanes import Lanes
    from edge_imprint.embedding.torch_embedder import TorchEmbedder

__all__ = ["LocalEngine"]

# A process that decodes takes 0.2 s to start, in which a lane decodes as many photos of
# 640x480: for fewer none is started.
_FEW = 64
_CPU_BLOCK = 2 * LANE_BATCH
_CUDA_BLOCK = 32
# For glibc: a block of this many bytes is mapped, and goes back as it is freed.
_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 2**21


class LocalEngine(Engine):
    """Embeds on this machine; see `Engine`.

    Args:
        backbone: The backbone. Nothing is loaded or started before the first photo, but ONNX
            Runtime's CUDA where ``auto`` chooses it: it may be installed and not start.
        device: ``cpu``; ``cuda``; ``auto``: CUDA where there is a GPU that can be used.
        autocast: ``bf16`` or ``fp16``, for torch on CUDA; None for float32.
        workers: Processes that decode, at most; 0: threads of this process decode; None: none
            for few photos, else as many as serve, up to one a core.
        decode: ``quick``, ``draft`` or ``exact``; see `decode_photo`.
        batch: Images a run; None to choose. Embeddings of another batch may differ in their
            last bits where they are computed on CUDA.

    Raises:
        ParameterError: An option is out of range, or does not go with another.
        ProviderError: CUDA is asked for and absent.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        device: str = "auto",
        autocast: str | None = None,
        workers: int | None = None,
        decode: str = "quick",
        batch: int | None = None,
    ) -> None:
        check_device(device)
        for name, number, least in (("workers", workers, 0), ("batch", batch, 1)):
            if number is not None and number < least:
                raise ParameterError(f"{name} must be an integer >= {least}, got {number}")
        check_decode(decode)
        self._decode = decode
        choice = choose_device(device, has_module=backbone.has_module)
        self.device = choice.device
        self.notes: list[str] = [choice.note] if choice.note else []
        self._by_torch = self.device == "cuda" and backbone.has_module
        if autocast is not None and not self._by_torch:
            raise ParameterError(
                f"--autocast {autocast} is for a torch backbone on CUDA, and "
                f"{backbone.info.name} is embedded by ONNX Runtime on {self.device} here; "
                "leave it out"
            )
        self.arithmetic = autocast or "fp32"
        self._autocast, self._workers, self._batch = autocast, workers, batch
        self._backbone = backbone
        self._embedder: Embedder | TorchEmbedder | None = None
        self._lanes: list[Lanes] = []
        if device == "auto" and self.device == "cuda" and not self._by_torch:
            self._try_cuda()

    def embed(self, photos: Sequence[Location]) -> Iterator[Result]:
        """Embed photos, each once, in any order; see `Engine.embed`.

        Raises:
            MissingPackageError: A library that embeds is not installed.
            ProviderError, DeviceError, DeviceMemoryError: The device fails.
        """
        if len(photos) == 0:
            return
        # Here, since a build whose embeddings are all cached makes an engine and needs none.
        from edge_imprint.embedding.lanes import Lanes

        count = cores() if self.device == "cpu" else 1
        decoders = self._decoders(photos, count)
        try:
            embedder = self._loaded()  # while the first processes start
            lanes = Lanes(decoders, embedder, count)
        except BaseException:
            decoders.stop()
            raise
        self._lanes.append(lanes)
        try:
            yield from lanes.results()
        finally:
            self._lanes.remove(lanes)
            for note in getattr(embedder, "notes", ()):
                self._note(note)
            del lanes, embedder
            if not self._lanes:  # what comes next, such as the proxies, needs the memory
                self._release()

    def close(self) -> None:
        """Give back processes, threads and memory; an `embed` that is under way ends."""
        for lanes in list(self._lanes):
            lanes.stop()
        self._release()

    def _release(self) -> None:
        if self._embedder is None:
            return
        if hasattr(self._embedder, "close"):
            self._embedder.close()
        self._embedder = None
        with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
            # glibc keeps what threads freed, tens of MiB for threads that are gone, and learns
            # to keep blocks as large as a class, too: what is freed from here on goes back.
            glibc = ctypes.CDLL(None)
            glibc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
            glibc.malloc_trim(0)

    def _decoders(self, photos: Sequence[Location], lanes: int) -> Decoders:
        from edge_imprint.embedding.decoders import ProcessDecoders, Tasks, ThreadDecoders

        cpu, p = self.device == "cpu", self._backbone.info.preprocess
        most = _CPU_BLOCK if cpu else _CUDA_BLOCK
        tasks = Tasks(photos, most=most, least=LANE_BATCH if cpu else most, takers=lanes)
        limit = self._workers
        if limit is None:
            limit = 0 if len(photos) < _FEW else cores()
        if limit == 0:
            return ThreadDecoders(tasks, p, decode=self._decode, most=most)
        try:
            return ProcessDecoders(
                tasks,
                p,
                decode=self._decode,
                most=most,
                first=1 if cpu else limit,
                limit=limit,
                lanes=lanes,
                notes=self.notes,
            )
        except OSError as error:
            self._note(
                "photos were decoded without worker processes, for which there is no memory "
                f"to share: {error.strerror}"
            )
            return ThreadDecoders(tasks, p, decode=self._decode, most=most)

    def _loaded(self) -> Embedder | TorchEmbedder:
        if self._embedder is None:
            if self._by_torch:
                self._embedder = torch_embedder(
                    self._backbone, self.device, autocast=self._autocast, batch=self._batch
                )
            else:
                cpu = self.device == "cpu"
                self._embedder = OrtEmbedder(
                    embedder_graph(self._backbone),
                    self.device,
                    threads=1 if cpu else 0,
                    batch=self._batch or (LANE_BATCH if cpu else _CUDA_BLOCK),
                )
        return self._embedder

    def _try_cuda(self) -> None:
        """Open ONNX Runtime's CUDA provider; where it does not start, embed on the CPU.

        Before anything is embedded, since the cache tells the two devices' embeddings apart.
        """
        try:
            self._loaded()
        except ProviderError as error:
            self.device = "cpu"
            self._note(f"photos are embedded on the CPU: {error}")

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

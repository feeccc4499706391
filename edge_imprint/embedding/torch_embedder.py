# SPDX-License-Identifier: Apache-2.0
"""Pixels -> embeddings by torch on CUDA: batches pinned, prefetched, as large as is fast.

What a GPU computes is held against float32: without autocast it computes in float32 itself
(no TF32); with autocast the first batch is computed both ways, and where they are not alike,
float32 goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from edge_imprint.embedding.batch_search import BatchSearch
from edge_imprint.embedding.torch_lanes import CpuLane, CudaLane, Flight, Lane, out_of_memory
from edge_imprint.embedding.torch_network import ARITHMETICS, Network
from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.errors import (
    DeviceMemoryError,
    EmbeddingError,
    InputError,
    MissingPackageError,
    ParameterError,
)

if TYPE_CHECKING:
    import torch

    from edge_imprint.backbones import Backbone

__all__ = ["LEAST_COSINE", "TorchEmbedder", "torch_embedder"]

LEAST_COSINE = 0.999
"""The cosine with float32 that each photo of the first batch must reach."""

_MESSAGE = 200  # characters of torch's message that a sentence quotes

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Tag = TypeVar("Tag")


def torch_embedder(
    backbone: Backbone,
    device: str = "cuda",
    *,
    autocast: str | None = None,
    batch: int | None = None,
) -> TorchEmbedder:
    """Embed with a backbone's torch module; see `TorchEmbedder`, and for what it raises.

    Raises:
        ParameterError: The backbone has no torch module.
    """
    if backbone.module is None:
        raise ParameterError(f"the backbone {backbone.info.name} has no torch module")
    return TorchEmbedder(
        backbone.module, backbone.info.preprocess, device, autocast=autocast, batch=batch
    )


class TorchEmbedder:
    """Embeds with a torch module. One thread at a time may use it.

    Args:
        module: In evaluation mode: (N, 3, H, W) float32, normalised -> (N, D). It is copied,
            and stays as and where it is.
        preprocess: The module's; its size, mean and standard deviation are used here.
        device: ``cuda`` or ``cuda:1``; ``cpu`` to compare.
        autocast: ``bf16`` or ``fp16``; None: float32.
        batch: Images at once; None: found while it runs, see `BatchSearch`.
        channels_last: Whether the network computes on (N, H, W, C) memory, which tensor
            cores want; a module that can't is given the usual layout, with a note.

    Attributes:
        device: As given.
        arithmetic: What it computes in: ``fp32``, ``bf16`` or ``fp16``; ``fp32`` from the
            first batch on where autocast is not alike enough.
        cosine: The smallest cosine between autocast and float32 over the first batch; None
            without autocast, and before.
        notes: What a user should know, each a sentence; complete when all is embedded.

    Raises:
        ParameterError: There is no such arithmetic, or no such batch.
        ProviderError: torch finds no such device.
        MissingPackageError: torch is not installed.
        DeviceMemoryError: The module does not fit into the device's memory.
        DeviceError: torch fails on the device.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        preprocess: Preprocess,
        device: str = "cuda",
        *,
        autocast: str | None = None,
        batch: int | None = None,
        channels_last: bool = True,
    ) -> None:
        if autocast is not None and autocast not in ARITHMETICS:
            raise ParameterError(
                f"autocast must be one of {', '.join(ARITHMETICS)}, got {autocast!r}"
            )
        if batch is not None and batch < 1:
            raise ParameterError(f"batch must be an integer >= 1, got {batch!r}")
        try:
            import torch  # noqa: F401  (for the lane and the network)
        except ImportError as error:
            raise MissingPackageError("torch", "embedding on CUDA", "host") from error
        self._lane: Lane = CpuLane() if device == "cpu" else CudaLane(device)
        self.device = device
        self.arithmetic = autocast or "fp32"
        self.cosine: float | None = None
        self.notes: list[str] = []
        self._photo = (preprocess.height, preprocess.width, 3)
        self._search = BatchSearch(batch)
        self._first = True  # no batch has been embedded yet
        self._rescued = 0
        try:
            self._network: Network | None = Network(
                module, preprocess, device, channels_last=channels_last
            )
        except RuntimeError as error:
            raise self._said(error, "the network itself") from error
        self._lane.ready()

    @property
    def batch(self) -> int:
        """Images that it embeds at once now."""
        return self._search.size

    def __call__(self, pixels: UInt8) -> Float32:
        """Embed images, however many.

        Args:
            pixels: (N, H, W, 3) uint8 RGB at the network's size.

        Returns:
            (N, D) float32.

        Raises:
            InputError: The images are of another size or type, or there are none.
            EmbeddingError, DeviceMemoryError, DeviceError: As in `stream_photos`.
        """
        if len(pixels) == 0:
            raise InputError("there are no images to embed")
        ((_, rows),) = self.stream([(None, pixels)])
        return rows

    def stream(self, batches: Iterable[tuple[Tag, UInt8]]) -> Iterator[tuple[Tag, Float32]]:
        """Embed batches as they come, of whatever size; see `stream_photos`, which does it.

        Args:
            batches: What tells a batch, and its pixels, (n, H, W, 3) uint8, n >= 1; they are
                copied before the next batch is asked for.

        Yields:
            What tells each batch, and its embeddings, (n, D) float32; in order.
        """
        waiting: deque[tuple[Tag, int]] = deque()

        def photos() -> Iterator[tuple[None, UInt8]]:
            for tag, pixels in batches:
                waiting.append((tag, len(pixels)))
                yield from ((None, one) for one in pixels)

        done: list[Float32] = []
        for _, rows in self.stream_photos(photos()):
            done.append(rows)
            while waiting and sum(map(len, done)) >= waiting[0][1]:
                tag, count = waiting.popleft()
                whole = np.concatenate(done)
                done = [whole[count:]]
                yield tag, whole[:count]

    def stream_photos(
        self, photos: Iterable[tuple[Tag, UInt8]]
    ) -> Iterator[tuple[list[Tag], Float32]]:
        """Embed photos as they come, the next batch filled while the last one computes.

        Args:
            photos: What tells a photo, and its pixels, (H, W, 3) uint8; they are copied before
                the next photo is asked for.

        Yields:
            What tells the photos of a batch, and their embeddings, (n, D) float32; in the
            order in which the photos came.

        Raises:
            InputError: A photo is of another size or type.
            EmbeddingError: The module gives anything but one row an image.
            DeviceMemoryError: Not even one image fits into the device's memory.
            DeviceError: torch fails on the device.
        """
        flying: deque[_Batch[Tag]] = deque()
        tags: list[Tag] = []
        host: Any = None
        for tag, pixels in photos:
            if pixels.shape != self._photo or pixels.dtype != np.uint8:
                raise InputError(
                    f"a photo must be {self._photo} uint8, got {pixels.shape} {pixels.dtype}"
                )
            if host is None:
                host = self._buffer()
                room = host.numpy()
            room[len(tags)] = pixels
            tags.append(tag)
            if len(tags) == len(host):
                flying.append(self._send(tags, host, flying))
                tags, host = [], None
            while len(flying) > self._lane.ahead:
                yield self._landed(flying.popleft())
        if tags:
            flying.append(self._send(tags, host[: len(tags)], flying))
        while flying:
            yield self._landed(flying.popleft())
        self._say_rescued()

    def close(self) -> None:
        """Give the device's memory back."""
        self._network = None
        self._lane.shrink()

    # One batch ----------------------------------------------------------------------------

    def _send(self, tags: list[Tag], host: Any, flying: Iterable[_Batch[Tag]]) -> _Batch[Tag]:
        """Send a batch; where memory is short, after those before it, and in halves."""
        if self._first:
            rows = self._try_out(host)
            self._first = False
            return _Batch(tags, host, rows=rows)
        try:
            flight = self._lane.send(host, self._forward)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        else:
            return _Batch(tags, host, flight)
        for batch in flying:  # what they hold is free once they have landed
            batch.land()
        self._too_large(len(host))
        return _Batch(tags, host, rows=self._in_pieces(host))

    def _landed(self, batch: _Batch[Tag]) -> tuple[list[Tag], Float32]:
        rows, seconds = batch.land()
        if seconds is not None:
            self._search.took(len(rows), seconds)
        if self.arithmetic != "fp32":
            wrong = ~np.isfinite(rows).all(axis=1)
            if wrong.any():  # beyond what half precision holds
                rows = rows.copy()
                exact = self._in_pieces(batch.host[np.flatnonzero(wrong)], exact=True)
                rows[wrong] = exact
                self._rescued += int(np.isfinite(exact).all(axis=1).sum())
        return batch.tags, rows

    def _forward(self, pixels: torch.Tensor) -> torch.Tensor:
        assert self._network is not None
        return self._network(pixels, self.arithmetic)

    def _exactly(self, pixels: torch.Tensor) -> torch.Tensor:
        assert self._network is not None
        return self._network(pixels)

    def _try_out(self, host: Any) -> Float32:
        """Embed the first batch: does the layout do, and is autocast like float32?"""
        rows = self._first_rows(host)
        if self.arithmetic == "fp32":
            return rows
        got = self._in_pieces(host)
        self.cosine = _least_cosine(rows, got)
        seen = f"on the first {len(rows)} photos"
        if self.cosine >= LEAST_COSINE:
            self.notes.append(
                f"Embedded in {self.arithmetic}: the smallest cosine with float32 {seen} is "
                f"{self.cosine:.6f}."
            )
            return got
        self.notes.append(
            f"Embedded in float32: in {self.arithmetic} the smallest cosine with it {seen} is "
            f"{self.cosine:.6f}, below {LEAST_COSINE}."
        )
        self.arithmetic = "fp32"
        return rows

    def _first_rows(self, host: Any) -> Float32:
        """Embed the first batch in float32, in the layout that the module can compute in."""
        assert self._network is not None
        try:
            try:
                return self._in_pieces(host, exact=True)
            except RuntimeError as error:
                # A `view` in the module asks for the usual layout, and says so.
                if "view size" not in str(error) or not self._network.channels_last:
                    raise
            self._network.use_plain_layout()
            self._lane.ready()
            self.notes.append("The backbone can't compute channels_last; it does without.")
            return self._in_pieces(host, exact=True)
        except RuntimeError as error:
            said = str(error).strip().splitlines()[0][:_MESSAGE]
            height, width, _ = self._photo
            raise EmbeddingError(
                f"the backbone fails on images of {height}x{width} pixels: {said}; "
                "take a backbone that embeds them"
            ) from error

    # Memory -------------------------------------------------------------------------------

    def _buffer(self) -> Any:
        while True:
            size = self._search.size
            try:
                return self._lane.buffer((size, *self._photo))
            except RuntimeError as error:
                if not out_of_memory(error) or size == 1:
                    raise self._said(error, "one photo") from error
                self._search.too_large(size)

    def _in_pieces(self, host: Any, *, exact: bool = False) -> Float32:
        """Embed now, in as large pieces as fit into memory."""
        parts, start = [], 0
        while start < len(host):
            piece = host[start : start + self._search.size]
            try:
                flight = self._lane.send(piece, self._exactly if exact else self._forward)
                parts.append(flight.land()[0])
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if len(piece) == 1:
                    raise self._said(error, "one photo") from error
                self._too_large(len(piece))
            else:
                start += len(piece)
        return np.concatenate(parts)

    def _too_large(self, count: int) -> None:
        self._search.too_large(count)
        self._lane.shrink()
        note = "Batches were made smaller, since the device's memory is short: "
        self.notes[:] = [one for one in self.notes if not one.startswith(note)]
        self.notes.append(f"{note}{self._search.size} photos at once.")

    def _said(self, error: RuntimeError, what: str) -> Exception:
        """Return what to raise for an error: one that lacks memory says what to do."""
        if not out_of_memory(error):
            return error
        height, width, _ = self._photo
        return DeviceMemoryError(
            f"{self.device} has not enough free memory for {what} ({height}x{width} pixels); "
            "free some, or use --device cpu"
        )

    def _say_rescued(self) -> None:
        if self._rescued:
            self.notes.append(
                f"{self._rescued} photos were embedded in float32: in {self.arithmetic} a "
                "value was too large."
            )
            self._rescued = 0


class _Batch(Generic[Tag]):
    """A batch that was sent: on its way, or with its rows.

    Attributes:
        tags: What tells its photos.
        host: Their pixels.
    """

    def __init__(
        self,
        tags: list[Tag],
        host: Any,
        flight: Flight | None = None,
        rows: Float32 | None = None,
    ) -> None:
        self.tags, self.host = tags, host
        self._flight, self._rows = flight, rows
        self._seconds: float | None = None

    def land(self) -> tuple[Float32, float | None]:
        """Wait for its rows; with the seconds it computed, where that tells of its size."""
        if self._rows is None:
            assert self._flight is not None
            self._rows, self._seconds = self._flight.land()
        return self._rows, self._seconds


def _least_cosine(a: Float32, b: Float32) -> float:
    """Return the smallest cosine between rows of the same place; 1 where both are zero."""
    wide, other = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1) * np.linalg.norm(other, axis=1)
    same = (wide == other).all(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.where(same, 1.0, (wide * other).sum(axis=1) / lengths)
    return float(np.where(np.isfinite(cosines), cosines, -1.0).min())

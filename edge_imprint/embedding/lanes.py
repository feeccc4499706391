# SPDX-License-Identifier: Apache-2.0
"""Lanes: threads that embed what was decoded, each on its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_imprint.embedding.channel import Channel, ClosedChannel
from edge_imprint.embedding.decoders import Decoded, Decoders
from edge_imprint.embedding.embedders import Embedder
from edge_imprint.embedding.engine import Embedded, Result

if TYPE_CHECKING:
    from edge_imprint.embedding.torch_embedder import TorchEmbedder

__all__ = ["Lanes"]


class Lanes:
    """Embeds what decoders give.

    Args:
        decoders: What decodes; stopped together with the lanes.
        embedder: Embeds; a `TorchEmbedder` is used by one lane.
        count: Lanes.
    """

    def __init__(
        self, decoders: Decoders, embedder: Embedder | TorchEmbedder, count: int
    ) -> None:
        self._decoders, self._embedder = decoders, embedder
        # Bounded, so that who takes the results sets the pace where it is the slowest.
        self._results: Channel[Result | BaseException] = Channel(4 * count)
        self._lock = threading.Lock()
        self._running = count
        run = self._stream if hasattr(embedder, "stream_photos") else self._embed
        self._threads = [
            threading.Thread(
                target=self._run, args=(run,), name="edge-imprint embedding", daemon=True
            )
            for _ in range(count)
        ]

    def results(self) -> Iterator[Result]:
        """Start the lanes, and give what they make; stops them at the end, however it ends."""
        try:
            for thread in self._threads:
                thread.start()
            while True:
                found = self._results.get()
                if isinstance(found, BaseException):
                    raise found
                yield found
        except ClosedChannel:
            return
        finally:
            self.stop()

    def stop(self) -> None:
        """End lanes and decoders; a run that is under way is waited for."""
        self._results.close()
        self._decoders.stop()
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                thread.join()

    def _embed(self) -> None:
        """Embed block by block, where an embedder takes what there is."""
        while (decoded := self._decoders.next()) is not None:
            self._tell_broken(decoded)
            if decoded.indices:
                rows = self._embedder(decoded.pixels)
                self._results.put(Embedded(decoded.indices, decoded.digests, rows))
            self._decoders.give_back(decoded)

    def _stream(self) -> None:
        """Let an embedder make its own batches of what comes."""
        for tags, rows in self._embedder.stream_photos(self._photos()):  # type: ignore[union-attr]
            indices, digests = zip(*tags, strict=True)
            self._results.put(Embedded(indices, digests, rows))

    def _photos(self) -> Iterator[tuple[tuple[int, bytes], npt.NDArray[np.uint8]]]:
        while (decoded := self._decoders.next()) is not None:
            self._tell_broken(decoded)
            yield from zip(
                zip(decoded.indices, decoded.digests, strict=True), decoded.pixels, strict=True
            )
            self._decoders.give_back(decoded)

    def _tell_broken(self, decoded: Decoded) -> None:
        for broken in decoded.broken:
            self._results.put(broken)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except ClosedChannel:
            pass
        except BaseException as error:
            self._fail(error)
        finally:
            with self._lock:
                self._running -= 1
                last = not self._running
            if last:
                self._results.end()

    def _fail(self, error: BaseException) -> None:
        with contextlib.suppress(ClosedChannel):
            self._results.put(error)

# SPDX-License-Identifier: Apache-2.0
"""What the machines of a cluster do: read and decode photos, embed them, cluster classes.

Between them go Arrow tables: one of locations, and one of photos that were read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.embedding.decoding import decode_chunk
from edge_imprint.embedding.embedders import LANE_BATCH, Embedder, OrtEmbedder
from edge_imprint.imprinting.proxies import canonical, make_proxies
from edge_imprint.photos import Location
from edge_imprint.photos.locations import Member, Remote
from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.errors import EdgeImprintError

if TYPE_CHECKING:
    import torch

__all__ = [
    "Embedding",
    "EmbedWorker",
    "Group",
    "Read",
    "absolute",
    "imprint_group",
    "location_table",
    "locations",
    "read_photos",
]

Float32: TypeAlias = npt.NDArray[np.float32]
Group: TypeAlias = list[tuple[int, Float32, npt.NDArray[np.float64] | None, int]]
"""Classes: each its number, (n, D) rows, (n,) weights, and k."""


@dataclass(frozen=True)
class Read:
    """Photos that a worker has read and embedded.

    Attributes:
        indices: Of those that could be decoded, their positions among all photos.
        digests: (n, 32) uint8 of each one's bytes.
        rows: (n, D) float32.
        problems: Of each other one its position and a sentence.
    """

    indices: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint8]
    rows: Float32
    problems: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Embedding:
    """All that embeds: put once, read by every worker.

    Attributes:
        preprocess: From photo to pixels.
        graph: For `OrtEmbedder`; empty where torch embeds.
        module: For torch on CUDA.
        device: ``cpu`` or ``cuda``.
        autocast: ``bf16``, ``fp16`` or None.
    """

    preprocess: Preprocess
    graph: bytes
    module: torch.nn.Module | None
    device: str
    autocast: str | None


# Locations as a table ---------------------------------------------------------------------


def location_table(indices: Sequence[int], photos: Sequence[Location]) -> Any:
    """Write locations into a table, a row a photo.

    Args:
        indices: Positions among all photos.
        photos: Their locations, as many.

    Returns:
        A ``pyarrow.Table``: ``index``, ``place`` (a path's or URL's bytes), ``remote``,
        ``member`` (a name's bytes in a tar shard; null for none), ``offset``, ``size``.
    """
    import pyarrow as pa

    holders = [photo.archive if isinstance(photo, Member) else photo for photo in photos]
    members = [photo if isinstance(photo, Member) else None for photo in photos]
    return pa.table(
        {
            "index": pa.array(indices, pa.int64()),
            "place": pa.array([os.fsencode(_place(h)) for h in holders], pa.binary()),
            "remote": pa.array([isinstance(h, Remote) for h in holders], pa.bool_()),
            "member": pa.array([m and os.fsencode(m.name) for m in members], pa.binary()),
            "offset": pa.array([m.offset if m else 0 for m in members], pa.int64()),
            "size": pa.array([m.size if m else 0 for m in members], pa.int64()),
        }
    )


def locations(table: Any) -> list[Location]:
    """Read locations off a table, as `location_table` wrote it.

    A remote object's size and stamp have served where photos were listed, and don't travel.
    """
    found: list[Location] = []
    for row in table.select(["place", "remote", "member", "offset", "size"]).to_pylist():
        place = os.fsdecode(row["place"])
        holder = Remote(place) if row["remote"] else Path(place)
        if row["member"] is None:
            found.append(holder)
        else:
            name = os.fsdecode(row["member"])
            found.append(Member(holder, name, row["offset"], row["size"]))
    return found


def absolute(photo: Location) -> str:
    """Name a photo as it is named on another machine, where folders are not relative."""
    if isinstance(photo, Member):
        return f"{_place(photo.archive)}:{photo.name}"
    return _place(photo)


def _place(photo: Path | Remote) -> str:
    return photo.url if isinstance(photo, Remote) else os.path.abspath(photo)


# Workers ----------------------------------------------------------------------------------


def read_photos(table: Any, preprocess: Preprocess, decode: str) -> Any:
    """Read and decode the photos of a table of locations; Ray Data's operator.

    Args:
        table: As `location_table` makes it.
        preprocess: From photo to pixels.
        decode: As in `decode_photo`.

    Returns:
        A ``pyarrow.Table`` with as many rows: ``index``; ``digest`` (32 bytes) and ``pixels``
        (H * W * 3 bytes) of a photo that could be decoded, or else its ``problem``.
    """
    import pyarrow as pa

    indices = table.column("index").to_numpy()
    p = preprocess
    pixels = np.empty((len(indices), p.height, p.width, 3), np.uint8)
    chunk = decode_chunk(locations(table), p, pixels, decode=decode)
    # Those that were decoded come first, their pixels side by side, then the others.
    bad = [position for position, _ in chunk.problems]
    pixels[len(chunk.good) :] = 0
    size = pixels[0].size
    flat = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(size), len(indices), [None, pa.py_buffer(pixels)]
    )
    nothing = [None] * len(bad)
    return pa.table(
        {
            "index": pa.array(indices[[*chunk.good, *bad]], pa.int64()),
            "digest": pa.array([*chunk.digests, *nothing], pa.binary(32)),
            "problem": pa.array(
                [None] * len(chunk.good) + [_text(text) for _, text in chunk.problems],
                pa.binary(),
            ),
            "pixels": flat,
        }
    )


class EmbedWorker:
    """An actor: holds a backbone and embeds tables of photos, one at a time.

    Args:
        embedding: A reference to an `Embedding` in a list, so that Ray does not keep it as
            an argument of the actor's.
    """

    def __init__(self, embedding: list[Any]) -> None:
        self._embedding = embedding[0]

    def ready(self) -> str:
        """Load the backbone; what it raises is then an answer, and not a lost actor.

        Returns:
            The id of the machine that it runs on.
        """
        import ray

        what: Embedding = ray.get(self._embedding)
        p = what.preprocess
        self._shape = (p.height, p.width, 3)
        self._embed, self._torch = _embedder(what)
        return str(ray.get_runtime_context().get_node_id())

    def embed(self, table: Any) -> Read:
        """Embed the photos of a table that `read_photos` made."""
        indices = table.column("index").to_numpy()
        problems = table.column("problem").to_pylist()
        good = sum(problem is None for problem in problems)
        pixels = _fixed(table.column("pixels"), good).reshape(good, *self._shape)
        return Read(
            indices[:good].copy(),
            _fixed(table.column("digest"), good).reshape(good, 32).copy(),
            self._embed(pixels) if good else np.empty((0, 0), np.float32),
            tuple(
                (int(index), os.fsdecode(problem))
                for index, problem in zip(indices[good:], problems[good:], strict=True)
            ),
        )

    def notes(self) -> list[str]:
        """Return what a user should know once all is embedded."""
        return [] if self._torch is None else list(self._torch.notes)


def imprint_group(group: Group, generation: str, seed: int) -> list[tuple[int, Float32]]:
    """Make the proxies of a few classes; a task.

    Args:
        group: The classes.
        generation: A key of `GENERATORS`.
        seed: For those that draw.

    Returns:
        Each class's number and its (p, D) proxies.

    Raises:
        ParameterError, EmbeddingError: As `make_proxies` has them; they name the class.
    """
    made = []
    for c, rows, weights, k in group:
        try:
            made.append((c, make_proxies(rows, generation, k, seed, weights=weights)))
        except EdgeImprintError:
            canonical(rows, weights, f"class {c}")  # the same complaint, with its number
            raise
    return made


def _embedder(what: Embedding) -> tuple[Embedder, Any]:
    if what.module is None:
        # One thread and a batch of its own: as a lane of `LocalEngine`, to the last bit.
        batch = LANE_BATCH if what.device == "cpu" else None
        return OrtEmbedder(what.graph, what.device, threads=1, batch=batch), None
    from edge_imprint.embedding.torch_embedder import TorchEmbedder

    embedder = TorchEmbedder(what.module, what.preprocess, "cuda", autocast=what.autocast)
    return embedder, embedder


def _fixed(column: Any, count: int) -> npt.NDArray[np.uint8]:
    """See the first rows of a column of fixed width as bytes, without a copy of one chunk."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    width = array.type.byte_width
    data = np.frombuffer(array.buffers()[1], np.uint8)
    return data[array.offset * width : (array.offset + count) * width]


def _text(problem: str) -> bytes:
    return os.fsencode(problem)  # a file's name in it need not be UTF-8

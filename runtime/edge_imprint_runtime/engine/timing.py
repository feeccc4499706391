# SPDX-License-Identifier: Apache-2.0
"""How long kernels took in builds before: kept, so that the next build is shorter.

TensorRT's bytes lie behind a line and a digest of ours, because TensorRT trusts what it is
given: a damaged cache is found here.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path
from typing import Any

from edge_imprint_runtime.engine.tensorrt_api import TensorRT
from edge_imprint_runtime.errors import EngineFileError, OutputWriteError
from edge_imprint_runtime.files import cache_folder, write_atomic

__all__ = ["TimingCache", "timing_cache_path"]

_MAGIC = b"edge-imprint.timing 1\n"
_DIGEST_BYTES = 32
_MAX_BYTES = 2**30


def timing_cache_path(tensorrt: str, gpu_name: str, compute_capability: str) -> Path:
    """Return where timings lie: in the cache folder, one file a TensorRT and GPU."""
    gpu = re.sub("[^A-Za-z0-9]+", "-", gpu_name).strip("-")[:60] or "gpu"
    name = f"tensorrt-{tensorrt}-{gpu}-sm{compute_capability.replace('.', '')}.timing"
    return cache_folder() / "timing" / name


class TimingCache:
    """One file of timings.

    Args:
        api: TensorRT.
        path: The file; it need not be there.
        given: Whether the user named it: then a file that is none of ours is not replaced.

    Attributes:
        notes: What people should know, sentences: it was damaged, or can't be written.
    """

    def __init__(self, api: TensorRT, path: Path, *, given: bool) -> None:
        self._api, self._path, self._given = api, path, given
        self._cache: Any = None
        self.notes: list[str] = []

    def attach(self, config: Any) -> None:
        """Let a builder use the timings, and add to them.

        Args:
            config: The builder's configuration.

        Raises:
            EngineFileError: The file that was named is no timing cache of ours.
        """
        kept = self._read()
        if kept and not self._set(config, kept):
            self.notes.append(
                f"TensorRT does not take the timings in {self._path}; they are made anew"
            )
            kept = b""
        if not kept and not self._set(config, b""):
            self.notes.append("TensorRT takes no timing cache; the build is not remembered")

    def save(self, config: Any) -> None:
        """Keep what was measured, with what others measured meanwhile.

        A cache that can't be written costs time, never the engine: it is noted.

        Args:
            config: The builder's configuration, after the build.
        """
        if self._cache is None:
            return
        mine = config.get_timing_cache() or self._cache
        if others := self._read(quiet=True):
            other = config.create_timing_cache(others)
            if other is not None:
                mine.combine(other, False)
        serialized = mine.serialize()
        if serialized is None:
            return
        data = bytes(serialized)
        try:
            with contextlib.suppress(FileExistsError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, _MAGIC + _digest(data) + data, force=True)
        except (OSError, OutputWriteError) as error:
            self.notes.append(f"the timings of this build are not kept: {error}")

    def _set(self, config: Any, data: bytes) -> bool:
        cache = config.create_timing_cache(data)
        if cache is None or not config.set_timing_cache(cache, False):
            return False
        self._cache = cache  # must live until the engine is built
        return True

    def _read(self, *, quiet: bool = False) -> bytes:
        """Return TensorRT's bytes; none where there are none to be trusted."""
        try:
            with open(self._path, "rb") as file:
                text = file.read(_MAX_BYTES)
        except FileNotFoundError:
            return b""
        except (OSError, ValueError) as error:
            if self._given and not quiet:
                raise EngineFileError(
                    f"cannot read the timing cache {self._path}: {error}"
                ) from error
            return b""
        if not text:
            return b""
        if not text.startswith(_MAGIC):
            if self._given and not quiet:
                raise EngineFileError(
                    f"{self._path} is no timing cache of edge-imprint; name another file, it "
                    "would be replaced"
                )
            kept, data = b"", b"?"
        else:
            kept = text[len(_MAGIC) :][:_DIGEST_BYTES]
            data = text[len(_MAGIC) + _DIGEST_BYTES :]
        if kept != _digest(data):
            if not quiet:
                self.notes.append(f"the timing cache {self._path} is damaged; it is made anew")
            return b""
        return data


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()

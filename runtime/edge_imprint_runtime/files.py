# SPDX-License-Identifier: Apache-2.0
"""Files: written so that a reader finds the old one or the new one, never a torn one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from edge_imprint_runtime.errors import OutputExistsError, OutputWriteError

__all__ = ["cache_folder", "check_output", "file_sha256", "size_text", "write_atomic"]

_PART_BYTES = 2**20


def check_output(
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> Path:
    """Refuse an output path before the long work that would fill it.

    Args:
        path: The file to be written.
        force: Whether an existing file may be replaced.
        inputs: Files that are read to make it, which even ``force`` must not replace.

    Returns:
        The path.

    Raises:
        OutputExistsError: The file is there and ``force`` is false.
        OutputWriteError: The path is an input, a folder or a device, or its folder is missing
            or not writable.
    """
    out = Path(path)
    folder = out.parent
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(out)  # raises what Path.exists() answers False to
        if out.is_dir():
            raise OutputWriteError(f"cannot write {out}: it is a folder; name a file in it")
        if out.exists() and not out.is_file():  # /dev/null, which root could replace
            raise OutputWriteError(f"cannot write {out}: it is not a regular file")
        for source in inputs:
            if out.exists() and os.path.exists(source) and os.path.samefile(out, source):
                raise OutputWriteError(
                    f"cannot write {out}: it is what this is made from; name another file"
                )
        if out.exists() and not force:
            raise OutputExistsError(
                f"{out} exists already; pass --force (in Python force=True) to replace it"
            )
        if not folder.is_dir():
            raise OutputWriteError(f"cannot write {out}: there is no folder {folder}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputWriteError(f"cannot write {out}: the folder {folder} is not writable")
    except (OSError, ValueError) as error:  # a name too long, a loop of links, a NUL byte
        raise OutputWriteError(f"cannot write {out}: {_reason(error)}") from error
    return out


def write_atomic(path: str | os.PathLike[str], data: bytes, *, force: bool = False) -> Path:
    """Write ``data`` beside ``path``, then rename it into place.

    Args:
        path: The file to write.
        data: Its whole content.
        force: Whether an existing file may be replaced.

    Returns:
        The path.

    Raises:
        OutputExistsError: The file is there and ``force`` is false.
        OutputWriteError: It can't be written; whatever was there before still is.
    """
    out = check_output(path, force=force)
    # A name of its own per writer: two writers must not share one half-written file. Cut to
    # fit file systems that hold names of 255 bytes, of which a letter may take four.
    beside = out.with_name(f".{out.name[:50]}.{os.urandom(4).hex()}.tmp")
    try:
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, out)
    except OSError as error:
        raise OutputWriteError(f"cannot write {out}: {_reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    return out


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text)[:1].lower() + str(text)[1:]


def size_text(size_bytes: int) -> str:
    """Return a file's size for people."""
    if size_bytes < 1000:
        return "1 byte" if size_bytes == 1 else f"{size_bytes} bytes"
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1e3:.0f} kB"
    large = size_bytes >= 1_000_000_000
    return f"{size_bytes / 1e9:.1f} GB" if large else f"{size_bytes / 1e6:.1f} MB"


def cache_folder() -> Path:
    """Return where what can be made again is kept; it need not be there."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "edge-imprint"


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return a file's digest, in hex; OSError where it can't be read."""
    import hashlib  # here, since it brings OpenSSL, and most who write files need none

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(_PART_BYTES):
            digest.update(part)
    return digest.hexdigest()

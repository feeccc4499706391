# SPDX-License-Identifier: Apache-2.0
"""Object stores, through fsspec: what lies below a URL, and its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

from edge_imprint_runtime.errors import EdgeImprintError, MissingPackageError, RemoteError

__all__ = ["Found", "Place", "open_object", "read_object"]

# Which of our extras brings a store's client.
_EXTRAS = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gcs")}
_EXTRAS |= {"gcs": ("gcsfs", "gcs"), "hf": ("huggingface_hub", "hf")}

# A store that can't be reached is to be said in seconds: botocore's own patience is minutes.
_S3_CLIENT = {"connect_timeout": 5, "retries": {"mode": "standard", "max_attempts": 2}}

_READ_AHEAD_BYTES = 2**22

# Where stores say which version an object is of: the first of these is sure by itself, ...
_VERSIONS = ("ETag", "etag", "generation", "blob_id")
# ... else all that is told must be the same: a copied file keeps its mtime.
_TRACES = (*("mtime", "LastModified", "last_modified", "updated", "created", "ino"),)


class Found(NamedTuple):
    """An object in a store.

    Attributes:
        name: Below the place that was listed.
        size: Bytes; -1 where the store does not say.
        stamp: Its entity tag, or when it was changed; empty where the store does not say.
    """

    name: str
    size: int
    stamp: str


class Place:
    """A place in a store.

    Args:
        url: What fsspec takes: ``s3://bucket/folder``.

    Attributes:
        url: As the store itself writes it, without a slash at its end.

    Raises:
        MissingPackageError: fsspec or the store's client is not installed.
        RemoteError: No store has such URLs.
    """

    def __init__(self, url: str) -> None:
        self._given = url
        self._fs, path = _filesystem(url)
        self._path = path.rstrip("/") or path
        self.url = str(self._fs.unstrip_protocol(self._path)).rstrip("/")
        with _refusing(url):
            self._fs.invalidate_cache()  # what was listed minutes ago may have changed

    def entries(self) -> tuple[list[str], list[Found]]:
        """List what lies at the place, not deeper.

        Returns:
            The names of its folders, and its objects, both sorted; nothing where it is an
            object itself.

        Raises:
            RemoteError: It is not there, or can't be listed.
        """
        with _refusing(self._given):
            listed = self._fs.ls(self._path, detail=True)
        folders, objects = [], []
        for info in listed:
            name = self._below(info["name"])
            if not name:
                continue  # some stores keep an empty object for the folder itself
            if info["type"] == "directory":
                folders.append(name)
            else:
                objects.append(_found(name, info))
        return sorted(folders), sorted(objects)

    def below(self, folder: str) -> list[Found]:
        """List all objects below one of its folders, with the folder in their names.

        Raises:
            RemoteError: It can't be listed.
        """
        with _refusing(f"{self.url}/{folder}"):
            listed = self._fs.find(f"{self._path}/{folder}", detail=True)
            self._fs.invalidate_cache()  # of a large bucket it would hold gigabytes
        return sorted(_found(self._below(name), info) for name, info in listed.items())

    def about(self) -> Found | None:
        """Return what the store says of it as an object; None where it is none.

        Raises:
            RemoteError: The store can't be asked.
        """
        with _refusing(self._given):
            try:
                info = self._fs.info(self._path)
            except FileNotFoundError:
                return None
        return None if info["type"] == "directory" else _found(self.url, info)

    def matches(self) -> list[Found]:
        """List the objects that its wildcards stand for, with their whole URLs, sorted.

        Raises:
            RemoteError: The store can't be asked.
        """
        with _refusing(self._given):
            listed = self._fs.glob(self._path, detail=True)
        return sorted(
            _found(str(self._fs.unstrip_protocol(name)), info)
            for name, info in listed.items()
            if info["type"] != "directory"
        )

    def _below(self, name: str) -> str:
        return name.removeprefix(self._path).strip("/")


def read_object(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return the bytes of an object, or some of them.

    Args:
        url: The object.
        start: The first byte; None for its beginning.
        end: The byte after the last; None for its end.

    Raises:
        OSError: It can't be read.
        MissingPackageError: fsspec or the store's client is not installed.
    """
    try:
        fs, path = _filesystem(url)
        data = fs.cat_file(path, start=start, end=end)
    except (OSError, MissingPackageError, MemoryError):
        raise
    except RemoteError as error:  # a URL of no store, perhaps one among many in a manifest
        raise OSError(str(error)) from error
    except Exception as error:  # each store's client has its own kinds
        raise OSError(_reason(error)) from error
    return bytes(data)


@contextmanager
def open_object(url: str) -> Iterator[tuple[IO[bytes], int]]:
    """Open an object to be read from its beginning on.

    Args:
        url: The object.

    Yields:
        The object, seekable, and its size in bytes.

    Raises:
        RemoteError: It can't be reached or read.
        MissingPackageError: fsspec or the store's client is not installed.
    """
    fs, path = _filesystem(url)
    with _refusing(url):
        file = fs.open(path, "rb", block_size=_READ_AHEAD_BYTES, cache_type="readahead")
        with file:
            file.seek(0, 2)
            size = int(file.tell())
            file.seek(0)
            yield file, size


def _filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's client for a URL, and the path within it."""
    protocol = url.partition("://")[0]
    try:
        import fsspec
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingPackageError("fsspec", f"reading {url}", "data") from error
    if "::" in url:
        raise RemoteError(f"{url} is a chain of stores, which is not supported; name one")
    options: dict[str, Any] = {}
    if protocol in ("s3", "s3a") and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        options["config_kwargs"] = _S3_CLIENT
    try:
        fs, path = url_to_fs(url, **options)
    except ImportError as error:
        if protocol not in _EXTRAS:
            raise RemoteError(
                f"reading {url} needs a package that is not installed: {_reason(error)}"
            ) from error
        package, extra = _EXTRAS[protocol]
        raise MissingPackageError(package, f"reading {url}", extra) from error
    except ValueError as error:
        raise RemoteError(
            f"no kind of store has URLs like {url} ({_reason(error)}); "
            "give s3://, gs://, hf:// or another that fsspec knows"
        ) from error
    except Exception as error:  # a client that asks its store at once
        raise _refusal(url, error) from error
    return fs, str(path)


@contextmanager
def _refusing(url: str) -> Iterator[None]:
    """Make a RemoteError of whatever a store's client raises, and leave our own be."""
    try:
        yield
    except (EdgeImprintError, MemoryError):
        raise
    except Exception as error:  # each store's client has its own kinds
        raise _refusal(url, error) from error


def _refusal(url: str, error: Exception) -> RemoteError:
    if isinstance(error, FileNotFoundError):
        return RemoteError(f"there is nothing at {url} ({_reason(error)}); check the name")
    if isinstance(error, PermissionError):
        return RemoteError(
            f"no right to read {url} ({_reason(error)}); check this machine's credentials"
        )
    return RemoteError(
        f"cannot read {url}: {_reason(error)}; check the network, the store's address and "
        "this machine's credentials"
    )


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].strip().rstrip(".")[:160]


def _found(name: str, info: dict[str, Any]) -> Found:
    size = info.get("size")
    sure = [str(info[key]) for key in _VERSIONS if info.get(key) is not None]
    traces = [str(info[key]) for key in _TRACES if info.get(key) is not None]
    stamp = sure[0] if sure else " ".join(traces)
    return Found(name, -1 if size is None else int(size), stamp.strip('"'))

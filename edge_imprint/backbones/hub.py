# SPDX-License-Identifier: Apache-2.0
"""Pretrained weights of timm and torchvision: where they are kept, and how they come here.

Nothing is asked of the network for weights that are here. Where they are not and the network
is not there either, the error says within seconds which file is wanted, and where it goes.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_imprint.backbones.download import (
    CONNECT_S,
    Progress,
    download,
    no_connection,
)
from edge_imprint_runtime.errors import WeightsError
from edge_imprint_runtime.files import cache_folder, file_sha256, size_text

__all__ = ["are_here", "timm_weights", "torchvision_weights", "weights_folder"]

# The file's own name may carry the first digits of its SHA-256: resnet18-f37072fd.pth.
_DIGEST = re.compile(r"-([0-9a-f]{8,64})\.[^.]+$")
# What timm asks the hub for, best first.
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_SAFE = {"open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
_INSTEAD = "--random-weights tries without"


def weights_folder() -> Path:
    """Return where downloaded weights files are kept; it need not be there."""
    return cache_folder() / "weights"


def are_here(source: str) -> bool:
    """Tell whether weights are on this machine, without asking a library.

    Args:
        source: ``hub:REPOSITORY[/FILE]`` or ``file:NAME``, as an entry of the listing says.

    Returns:
        Whether a file of this name is where it would be; its content is not looked at.
    """
    kind, _, place = source.partition(":")
    if kind == "file":
        return any(
            (folder / place).is_file() for folder in (weights_folder(), _torch_folder())
        )
    repository, files = _hub_place(place)
    folder = _hub_folder() / f"models--{repository.replace('/', '--')}" / "snapshots"
    return any(True for file in files for _ in folder.glob(f"*/{file}"))


def timm_weights(name: str, *, progress: Progress | None = None) -> dict[str, Any]:
    """Get a timm model's pretrained weights.

    Args:
        name: timm's name, with a tag (``resnet18.a1_in1k``) or without.
        progress: Told of bytes that come from a plain address.

    Returns:
        What ``timm.create_model`` takes as ``pretrained_cfg_overlay``, so that it reads the
        file itself and asks nothing of the network.

    Raises:
        WeightsError: There are none, or they can't be had.
    """
    config: Any = importlib.import_module("timm").models.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise WeightsError(
            f"timm has no pretrained weights for timm/{name}; give --weights FILE; {_INSTEAD}"
        )
    if not config.hf_hub_id:
        file = _from_address(config.url, f"timm/{name}", 0, progress)
        return {"file": str(file), "custom_load": config.custom_load}
    file = _from_hub(name, config)
    # Only what stands under a file name of its own is of a form of its own.
    return {"file": str(file), "custom_load": config.custom_load == "hf"}


def torchvision_weights(name: str, *, progress: Progress | None = None) -> Path:
    """Get a torchvision model's pretrained weights, those that it calls DEFAULT.

    Args:
        name: torchvision's name.
        progress: Told of the bytes that come.

    Returns:
        The file, checked: in our cache folder, or where torch's hub has put it before.

    Raises:
        WeightsError: They can't be had.
    """
    models: Any = importlib.import_module("torchvision.models")
    weights = models.get_model_weights(name).DEFAULT
    size_bytes = round(weights.meta.get("_file_size", 0) * 2**20)
    return _from_address(weights.url, f"torchvision/{name}", size_bytes, progress)


def _from_address(url: str, name: str, size_bytes: int, progress: Progress | None) -> Path:
    file = url.rpartition("/")[2]
    found = _DIGEST.search(file)
    prefix = found[1] if found else ""
    theirs = _torch_folder() / file
    try:
        if theirs.is_file() and file_sha256(theirs).startswith(prefix):
            return theirs
    except OSError:  # not ours to read: then it is not here
        pass
    out = weights_folder() / file
    try:
        return download(
            url, out, sha256_prefix=prefix, progress=progress or _on_terminal(name)
        )
    except WeightsError as error:
        size = f" (about {size_text(size_bytes)})" if size_bytes else ""
        raise WeightsError(
            f"cannot get the pretrained weights of {name}{size}: {error}, or give it as "
            f"--weights FILE; {_INSTEAD}"
        ) from error


def _on_terminal(name: str) -> Progress | None:
    """Show the download where a person looks on, as the hub's own client does."""
    if not sys.stderr.isatty():
        return None

    def show(there: int, total: int) -> None:
        of = f" of {size_text(total)}" if total else ""
        end = "\n" if there == total else ""
        print(f"\r{name}: {size_text(there)}{of} ", end=end, file=sys.stderr, flush=True)

    return show


def _from_hub(name: str, config: Any) -> Path:
    """Return a file of the hub's cache, downloaded by the hub's own client where it lacks."""
    hub: Any = importlib.import_module("huggingface_hub")
    repository, _, revision = config.hf_hub_id.partition("@")
    asked = {
        "repo_id": repository,
        "revision": revision or None,
        "cache_dir": str(_hub_folder()),
    }
    files = _hub_place(f"{repository}/{config.hf_hub_filename or ''}")[1]
    for file in files:
        kept = hub.try_to_load_from_cache(filename=file, **asked)
        if isinstance(kept, str):
            return Path(kept)
    if hub.constants.HF_HUB_OFFLINE:
        raise _no_weights(name, config, "the hub's client is told to stay offline")
    reason = no_connection(hub.constants.ENDPOINT)
    if reason:
        raise _no_weights(name, config, reason)
    with _quiet():
        for file in files:
            try:
                return _fetched(hub, file, asked)
            except hub.errors.EntryNotFoundError:
                continue
            except Exception as error:  # the client raises its network stack's errors
                raise _no_weights(name, config, _line(error)) from error
    raise _no_weights(name, config, "the repository has no such file")


def _fetched(hub: Any, file: str, asked: dict[str, Any]) -> Path:
    endpoint = hub.constants.ENDPOINT
    address = hub.hf_hub_url(
        asked["repo_id"], file, revision=asked["revision"], endpoint=endpoint
    )
    # Asked alone first: what is refused here, the download would try for half a minute.
    hub.get_hf_file_metadata(address, timeout=CONNECT_S)
    return _checked(Path(hub.hf_hub_download(filename=file, endpoint=endpoint, **asked)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the hub's client says of each try off the terminal; its bar stays."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "httpx", "httpx2")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _checked(file: Path) -> Path:
    """Hold a file that just came against its digest, which the hub's cache names it by."""
    blob = file.resolve()
    if re.fullmatch("[0-9a-f]{64}", blob.name) and file_sha256(blob) != blob.name:
        file.unlink()
        blob.unlink(missing_ok=True)
        raise OSError("what came is not what the hub announced: the SHA-256 differs")
    return file


def _no_weights(name: str, config: Any, reason: str) -> WeightsError:
    from edge_imprint.backbones.listing import shipped

    entry = shipped().find(f"timm/{name.partition('.')[0]}")
    size = ""
    if entry is not None:
        classifier = config.num_classes * ((entry.embedding_size or 0) + 1)
        size = f" (about {size_text(4 * (entry.parameters + classifier))})"
    repository, files = _hub_place(f"{config.hf_hub_id}/{config.hf_hub_filename or ''}")
    own = f"models--{repository.partition('@')[0].replace('/', '--')}"
    # Files of others may be of a form that only timm's own way through the hub reads.
    where = (
        "and give it as --weights FILE"
        if repository.startswith("timm/") and not config.hf_hub_filename
        else f"by building there once, and copy the folder {own} of the hub's cache there "
        f"into {_hub_folder()} here"
    )
    return WeightsError(
        f"cannot get the pretrained weights of timm/{name} ({reason}): where there is a "
        f"network, get the file {files[0]}{size} of the hub's repository {repository} "
        f"{where}; {_INSTEAD}"
    )


def _hub_place(place: str) -> tuple[str, tuple[str, ...]]:
    """Split ``OWNER/NAME[/FILE]`` into the repository and its files to ask for, best first."""
    owner, name, file = [*place.split("/", 2), "", ""][:3]
    if not file:
        return f"{owner}/{name}", _HUB_FILES
    safe = _SAFE.get(file) or re.sub(r"\.bin$", ".safetensors", file)
    return f"{owner}/{name}", tuple(dict.fromkeys((safe, file)))


def _hub_folder() -> Path:
    """Return where the hub's client keeps what it got, by its own rule."""
    home = os.environ.get("HF_HOME") or str(_home() / "huggingface")
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(os.path.expanduser(given or f"{home}/hub")))


def _torch_folder() -> Path:
    """Return where torch's hub keeps the files that it got, by its own rule."""
    home = os.environ.get("TORCH_HOME") or str(_home() / "torch")
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"


def _home() -> Path:
    return cache_folder().parent  # XDG_CACHE_HOME, or the user's .cache


def _line(error: BaseException) -> str:
    text = " ".join(str(error).partition("\nFor more")[0].split())[:200]
    return text.rstrip(".;:") or type(error).__name__

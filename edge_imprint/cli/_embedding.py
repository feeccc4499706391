# SPDX-License-Identifier: Apache-2.0
"""The options of the commands that embed photos: which backbone, where, and how."""

from __future__ import annotations

import functools
import inspect
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edge_imprint.embedding.run import How
    from edge_imprint_runtime.contract import Preprocess

__all__ = ["Chosen", "embedding_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--weights", type=click.Path(), help="A local safetensors file or checkpoint."
    ),
    click.option("--random-weights", is_flag=True, help="Try without pretrained weights."),
    click.option(
        "--preprocess", help="Instead of the backbone's own: a line as 'inspect' prints it."
    ),
    click.option("--layer", help="An earlier layer of the backbone to embed with, pooled."),
    click.option(
        "--split", help="Of a manifest the rows with this split; of a folder this subfolder."
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda."),
    click.option(
        "--autocast", metavar="bf16|fp16", help="Embed faster on CUDA, a little less exactly."
    ),
    click.option(
        "--engine",
        default="local",
        show_default=True,
        help="local, or ray: on a cluster, or on all GPUs of this machine.",
    ),
    click.option("--ray-address", metavar="ADDRESS", help="Of the Ray cluster."),
    click.option("--workers", type=int, help="Processes that decode photos."),
    click.option(
        "--decode",
        default="quick",
        show_default=True,
        help="quick; draft: faster, a little coarser; exact: to the pixel what a device sees.",
    ),
    click.option("--no-cache", is_flag=True, help="Keep no embeddings for the next time."),
    click.option(
        "--max-broken",
        default=0.05,
        show_default=True,
        help="Share of broken photos above which it stops.",
    ),
)


@dataclass(frozen=True)
class Chosen:
    """What the options say of how photos are embedded; see `edge_imprint.build`."""

    weights: str | None
    random_weights: bool
    layer: str | None
    preprocess: Preprocess | None
    split: str | None
    max_broken: float
    how: How
    words: tuple[str, ...]
    """The options that decide the embeddings, as they were given."""


def embedding_options(command: _Command) -> _Command:
    """Add the options that say how photos are embedded; they come as ``chosen``."""

    @functools.wraps(command)
    def gathered(**given: Any) -> Any:
        own = {name: given.pop(name) for name in _NAMES}
        try:
            return command(chosen=_chosen(**own), **given)
        except KeyboardInterrupt as stop:
            from edge_imprint_runtime.files import cache_folder

            if own["no_cache"] or not os.access(cache_folder(), os.W_OK):
                raise
            raise KeyboardInterrupt(
                "what was embedded is kept, and the same command goes on from there"
            ) from stop

    for option in reversed(_OPTIONS):
        option(gathered)
    return gathered  # type: ignore[return-value]


def _chosen(
    weights: str | None,
    random_weights: bool,
    preprocess: str | None,
    layer: str | None,
    split: str | None,
    max_broken: float,
    no_cache: bool,
    engine: str,
    ray_address: str | None,
    device: str,
    autocast: str | None,
    workers: int | None,
    decode: str,
) -> Chosen:
    from edge_imprint.embedding.run import How
    from edge_imprint_runtime.contract.codec import parse_preprocess

    pairs = {
        "--weights": weights,
        "--layer": layer,
        "--preprocess": preprocess,
        "--split": split,
        "--autocast": autocast,
    }
    words = [f"{name} {shlex.quote(value)}" for name, value in pairs.items() if value]
    words += ["--random-weights"] if random_weights else []
    words += [f"--decode {shlex.quote(decode)}"] if decode != "quick" else []
    return Chosen(
        weights=weights,
        random_weights=random_weights,
        layer=layer,
        preprocess=None if preprocess is None else parse_preprocess(preprocess),
        split=split,
        max_broken=max_broken,
        how=How(engine, ray_address, device, autocast, workers, decode, not no_cache),
        words=tuple(words),
    )


_NAMES = tuple(inspect.signature(_chosen).parameters)

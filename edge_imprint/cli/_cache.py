# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint cache`."""

from __future__ import annotations

import re
import time
from typing import Any

import click

from edge_imprint.cli._console import print_json, say, table

__all__ = ["cache"]

_FORMAT = "edge-imprint.cache/1"
_AGES_S = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SIZES = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Tell what would go; remove nothing.")


@click.group(invoke_without_command=True)
@_JSON
@click.pass_context
def cache(context: click.Context, as_json: bool) -> None:
    """Show what is kept so that the next build is quick; prune, clear or verify it.

    All of it can be made again. Without a command, show.
    """
    if context.invoked_subcommand is None:
        _show(as_json)


@cache.command()
@_JSON
def show(as_json: bool) -> None:
    """Show the embeddings by backbone, and what else is kept."""
    _show(as_json)


@cache.command()
@click.option("--older", metavar="AGE", help="Not used for so long, such as 30d or 12h.")
@click.option("--max-size", metavar="SIZE", help="Leave the latest that fit, such as 2GB.")
@click.option("--backbone", metavar="PATTERN", help="Those of these backbones: timm/*.")
@_DRY_RUN
@_JSON
def prune(
    older: str | None, max_size: str | None, backbone: str | None, dry_run: bool, as_json: bool
) -> None:
    """Remove embeddings that fit all that is given."""
    from edge_imprint.embedding.cache import manage

    if older is None and max_size is None and backbone is None:
        raise click.UsageError("give --older, --max-size or --backbone; or use 'cache clear'")
    age_s, max_bytes = _age_s(older), _size_bytes(max_size)
    before = None if age_s is None else time.time() - age_s
    gone = manage.prune(
        before_unix_s=before, max_bytes=max_bytes, backbone=backbone, dry_run=dry_run
    )
    _tell_gone(*gone, dry_run, as_json)


@cache.command()
@click.option("--all", "everything", is_flag=True, help="Graphs and weights, too.")
@_DRY_RUN
@_JSON
def clear(everything: bool, dry_run: bool, as_json: bool) -> None:
    """Remove all embeddings and digests."""
    from edge_imprint.embedding.cache import manage

    _tell_gone(*manage.clear(everything=everything, dry_run=dry_run), dry_run, as_json)


@cache.command()
@_DRY_RUN
@_JSON
def verify(dry_run: bool, as_json: bool) -> None:
    """Check all embeddings; remove what is damaged.

    Each file is held against its checksum. The exit status is 1 where one was.
    """
    from edge_imprint.embedding.cache import manage
    from edge_imprint_runtime.errors import CacheError

    found = manage.verify(dry_run=dry_run)
    if as_json:
        facts = {"files": found.files, "embeddings": found.embeddings}
        print_json({"format": _FORMAT, **facts, "damaged": found.damaged})
    else:
        for sentence in found.damaged:
            say(sentence)
        say(f"{_files(found.files)} read, {found.embeddings:,} embeddings are good")
    if found.damaged:
        what = "are damaged" if dry_run else "were damaged, and are now removed"
        raise CacheError(
            f"{len(found.damaged)} of {found.files} files of embeddings {what}; "
            "the next build embeds their photos again"
        )


def _show(as_json: bool) -> None:
    from edge_imprint.embedding.cache import manage
    from edge_imprint_runtime.files import cache_folder, size_text

    spaces, others = manage.spaces(), manage.others()
    folder = cache_folder()
    total = sum(space.bytes for space in spaces) + sum(other.bytes for other in others)
    if as_json:
        shown: dict[str, Any] = {"format": _FORMAT, "folder": str(folder), "bytes": total}
        shown["embeddings"] = [
            {
                "key": space.key,
                **{name: value for name, value in space.facts.items() if name != "format"},
                "embeddings": space.embeddings,
                "files": len(space.files),
                "bytes": space.bytes,
                "used_unix_s": int(space.used_unix_s),
            }
            for space in spaces
        ]
        shown["others"] = [vars(other) for other in others]
        print_json(shown)
        return
    if not spaces and not others:
        say(f"{folder} holds nothing yet")
        return
    say(f"{folder}: {size_text(total)}")
    if spaces:
        say("")
        rows = [
            [
                _made_by(space.facts),
                f"{space.embeddings:,}",
                size_text(space.bytes),
                _age_text(space.used_unix_s),
            ]
            for space in spaces
        ]
        table("", ["embeddings", "photos", "size", "last used"], rows)
    if others:
        say("")
        rows = [[other.what, str(other.files), size_text(other.bytes)] for other in others]
        table("", ["besides", "files", "size"], rows)


def _made_by(facts: dict[str, Any]) -> str:
    size = re.search(r" size=([0-9]+x[0-9]+) ", str(facts.get("preprocess", "")))
    weights = str(facts.get("weights", ""))
    parts = [facts.get("backbone", "of an unknown backbone")]
    parts += [weights] if weights.startswith(("file:", "random:")) else []
    parts += [size[1] if size else "", facts.get("arithmetic", ""), facts.get("decode", "")]
    return ", ".join(str(part) for part in parts if part)


def _tell_gone(files: int, size_bytes: int, dry_run: bool, as_json: bool) -> None:
    if as_json:
        facts = {"files": files, "bytes": size_bytes, "dry_run": dry_run}
        print_json({"format": _FORMAT, **facts})
    else:
        from edge_imprint_runtime.files import size_text

        verb = "would be removed" if dry_run else "removed"
        say(f"{_files(files)}, {size_text(size_bytes)} {verb}")


def _age_s(text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(s|min|h|d|w)", text)
    if match is None:
        raise click.BadParameter(
            f"must be an age such as 30d, 12h or 90min, got {text!r}", param_hint="--older"
        )
    return float(match[1]) * _AGES_S[match[2]]


def _size_bytes(text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([kmgt]?)b?", text.lower())
    if match is None:
        raise click.BadParameter(
            f"must be a size such as 2GB or 500MB, got {text!r}", param_hint="--max-size"
        )
    return int(float(match[1]) * _SIZES[match[2]])


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _age_text(unix_s: float) -> str:
    seconds = max(0, time.time() - unix_s)
    for name, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"

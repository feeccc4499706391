# SPDX-License-Identifier: Apache-2.0
"""`edge-imprint backbones`."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator

import click

from edge_imprint.backbones.listing import Entry, Listing, list_backbones, near_names
from edge_imprint.cli._console import note, print_json, say

__all__ = ["backbones"]

_FORMAT = "edge-imprint.backbones/1"
_HEADS = ("name", "embedding", "params", "input", "weights")


@click.command()
@click.argument("pattern", default="")
@click.option(
    "--max-params",
    type=click.FloatRange(min=0, min_open=True),
    metavar="M",
    help="The most weights that it may have, in millions.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def backbones(pattern: str, max_params: float | None, as_json: bool) -> None:
    """List the backbones there are: embedding size, weights, input; the small ones first.

    PATTERN is a part of the name, or a whole one with * and ?. The column `weights` says
    whether pretrained ones are here, can be downloaded, or don't exist. Beside these, any
    network that is an ONNX file (onnx:FILE) or a function (python:MODULE:FACTORY) is one.
    """
    limit = math.inf if max_params is None else 1e6 * max_params
    found = list_backbones(pattern, max_parameters=limit)
    if not found.entries:
        raise click.ClickException(_nothing(found, pattern, max_params))
    for text in found.notes:
        note(f"note: {text}")
    if as_json:
        print_json(
            {
                "format": _FORMAT,
                "versions": dict(found.versions),
                "notes": list(found.notes),
                "backbones": [_facts(entry) for entry in found.entries],
            }
        )
        return
    for line in _lines(found.entries):
        say(line)
    note(f"{len(found.entries):,} of {found.known:,} backbones")


def _facts(entry: Entry) -> dict[str, object]:
    measured = entry.embedding_size is not None
    return {
        "name": entry.name,
        "embedding_size": entry.embedding_size or None,
        "parameters": entry.parameters if measured else None,
        "height": entry.height if measured else None,
        "width": entry.width if measured else None,
        "weights": entry.weights,
        "source": entry.source or None,
    }


def _lines(entries: tuple[Entry, ...]) -> Iterator[str]:
    """Lay out plain columns, which any tool can take apart; a long name pushes its own row."""
    rows = [_HEADS, *(_row(entry) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    if sys.stdout.isatty():
        others = sum(widths[1:]) + 2 * len(widths[1:])
        widths[0] = min(widths[0], max(20, shutil.get_terminal_size().columns - others))
    for name, embedding, parameters, side, weights in rows:
        yield (
            f"{name:<{widths[0]}}  {embedding:>{widths[1]}}  {parameters:>{widths[2]}}  "
            f"{side:>{widths[3]}}  {weights}"
        )


def _row(entry: Entry) -> tuple[str, str, str, str, str]:
    if entry.embedding_size is None:
        return entry.name, "?", "?", "?", "?"
    millions = f"{entry.parameters / 1e6:,.2f}M"
    side = f"{entry.height}x{entry.width}"
    return entry.name, str(entry.embedding_size or "-"), millions, side, entry.weights


def _nothing(found: Listing, pattern: str, max_params: float | None) -> str:
    if found.matches:
        return (
            f"no backbone that matches {pattern!r} has at most {max_params:g} million "
            f"parameters; {found.matches:,} larger ones do"
        )
    near = ", ".join(near_names(pattern))
    advice = f"nearest: {near}" if near else "'edge-imprint backbones' lists all"
    return f"no backbone matches {pattern!r}; {advice}"

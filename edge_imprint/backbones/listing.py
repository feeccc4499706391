# SPDX-License-Identifier: Apache-2.0
"""Which backbones there are, told from tables that are shipped, so that no torch is loaded.

``benchmarks/backbones_table.py`` makes a table a library, by building each network. Where
another version of a library is installed, what it has beside the table is measured here.
"""

from __future__ import annotations

import csv
import difflib
import fnmatch
import functools
import importlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = [
    "LIBRARIES",
    "Entry",
    "Listing",
    "Table",
    "list_backbones",
    "near_names",
    "read_table",
    "shipped",
    "write_table",
]

LIBRARIES = ("timm", "torchvision")
"""The libraries of which there is a table."""

_FOLDER = Path(__file__).parent / "data"
_COLUMNS = ("name", "embedding", "parameters", "input", "weights")
_MOST_MEASURED = 20  # up to a second each


@dataclass(frozen=True)
class Entry:
    """What is known of a backbone.

    Attributes:
        name: As ``--backbone`` takes it.
        embedding_size: Length of its embedding; 0 where it gives no vector for an image, and
            so can't be used; None where it was not measured.
        parameters: Number of its weights, without a classifier; 0 where not measured.
        height: Rows of the image that it takes by default, in pixels; 0 where not measured.
        width: Columns, likewise.
        source: Where its pretrained weights are: ``packaged``, ``hub:REPOSITORY[/FILE]``,
            ``file:NAME``; empty where nobody has published any.
    """

    name: str
    embedding_size: int | None
    parameters: int
    height: int
    width: int
    source: str

    @property
    def weights(self) -> str:
        """``here``, ``download`` or ``none``, as it is on this machine now."""
        from edge_imprint.backbones.hub import are_here

        if not self.source:
            return "none"
        return "here" if self.source == "packaged" or are_here(self.source) else "download"


@dataclass(frozen=True)
class Table:
    """What was measured.

    Attributes:
        entries: A backbone each, by kind and name.
        versions: Library -> the version of it that was measured.
    """

    entries: tuple[Entry, ...]
    versions: Mapping[str, str]

    def find(self, name: str) -> Entry | None:
        """Return the entry of this name; None where there is none."""
        return next((entry for entry in self.entries if entry.name == name), None)


@dataclass(frozen=True)
class Listing:
    """An answer.

    Attributes:
        entries: What was asked for, small networks first.
        matches: How many have a name that fits, of any size.
        known: How many backbones there are in all.
        versions: Library -> the version that the answer is of.
        notes: What is to be known of the answer, one sentence each.
    """

    entries: tuple[Entry, ...]
    matches: int
    known: int
    versions: Mapping[str, str]
    notes: tuple[str, ...]


@functools.cache
def shipped() -> Table:
    """Return the tables that are part of the package, as one; the demo's backbone first."""
    tables = [read_table(_FOLDER / f"{library}.csv") for library in LIBRARIES]
    entries = [_demo(), *(entry for table in tables for entry in table.entries)]
    return Table(tuple(entries), {k: v for table in tables for k, v in table.versions.items()})


def list_backbones(pattern: str = "", *, max_parameters: float = math.inf) -> Listing:
    """List backbones.

    Loads torch only where another version of timm or torchvision is installed than the table
    is of; then up to 20 networks that it lacks are measured.

    Args:
        pattern: Part of a name, or, with ``*``, ``?`` or ``[``, a pattern of the whole name,
            with or without its kind; upper and lower case are one. Empty for all.
        max_parameters: The most weights that a network may have.

    Returns:
        What fits.
    """
    table = shipped()
    entries, versions, notes = list(table.entries), dict(table.versions), []
    for library, version in table.versions.items():
        installed = _installed(library)
        if installed == version:
            continue
        what = f"the table is of {library} {version}"
        if installed is None:
            notes.append(
                f"{what}, and {library} is not installed here; "
                "run: pip install 'edge-imprint[host]'"
            )
            continue
        versions[library] = installed
        entries = _renewed(entries, library, pattern)
        notes.append(
            f"{what}, {installed} is installed here: what the table lacks was measured"
        )
    fitting = [entry for entry in entries if _fits(entry.name, pattern)]
    small = [entry for entry in fitting if entry.parameters <= max_parameters]
    small.sort(key=lambda entry: (entry.parameters, entry.name))
    return Listing(tuple(small), len(fitting), len(entries), versions, tuple(notes))


def near_names(pattern: str) -> list[str]:
    """Suggest up to three backbones for a name or a pattern that fits none."""
    bare = pattern.lower().strip("*?").rpartition("/")[2]
    names: dict[str, str] = {}
    for entry in shipped().entries:  # timm's first, where both have a network of the name
        names.setdefault(entry.name.rpartition("/")[2].lower(), entry.name)
    stem = bare.partition(".")[0]  # timm's names may end in a tag
    close = difflib.get_close_matches(bare, names, n=3, cutoff=0.5)
    near = dict.fromkeys([stem, *close] if stem in names else close)
    return [names[name] for name in near][:3]


def read_table(file: Path) -> Table:
    """Read a table.

    Args:
        file: What `write_table` wrote.

    Returns:
        Its entries, and the one version.
    """
    with open(file, encoding="utf-8", newline="") as lines:
        _, library, version = next(lines).split()[:3]
        return Table(tuple(map(_entry(library), csv.DictReader(lines))), {library: version})


def write_table(library: str, version: str, entries: Iterable[Entry]) -> str:
    """Return a table as text: a line with its version, a line of names, a line an entry.

    Args:
        library: One of `LIBRARIES`.
        version: Of it.
        entries: All measured.

    Returns:
        CSV.
    """
    lines = [f"# {library} {version}", ",".join(_COLUMNS)]
    for entry in entries:
        name = entry.name.partition("/")[2]
        side = f"{entry.height}x{entry.width}"
        if entry.height == entry.width:
            side = str(entry.height)
        # Most are the hub's `timm/NAME.TAG`: the tag says it all.
        usual = f"hub:timm/{name}."
        weights = entry.source.removeprefix(usual) if library == "timm" else entry.source
        lines.append(f"{name},{entry.embedding_size},{entry.parameters},{side},{weights}")
    return "\n".join(lines) + "\n"


def _entry(library: str) -> Any:
    def entry(row: Mapping[str, str]) -> Entry:
        name, weights = row["name"], row["weights"]
        if weights and ":" not in weights:
            weights = f"hub:timm/{name}.{weights}"
        height, _, width = row["input"].partition("x")
        return Entry(
            f"{library}/{name}",
            int(row["embedding"]),
            int(row["parameters"]),
            int(height),
            int(width or height),
            weights,
        )

    return entry


def _demo() -> Entry:
    from edge_imprint.backbones import glyphnet

    parameters = sum(math.prod(shape) for shape in glyphnet.weight_shapes().values())
    side = glyphnet.IMAGE_SIZE
    return Entry("demo", glyphnet.EMBEDDING_SIZE, parameters, side, side, "packaged")


def _installed(library: str) -> str | None:
    try:
        return metadata.version(library).partition("+")[0]  # torchvision's say +cpu, +cu130
    except metadata.PackageNotFoundError:
        return None


def _renewed(entries: list[Entry], library: str, pattern: str) -> list[Entry]:
    """Take out what the installed version lacks, add what the table lacks."""
    measure: Any = importlib.import_module("edge_imprint.backbones.measure")
    names = [name for name in measure.names() if name.startswith(f"{library}/")]
    there = {entry.name for entry in entries}
    new = [name for name in names if name not in there]
    wanted = [name for name in new if _fits(name, pattern)][:_MOST_MEASURED]
    kept = [e for e in entries if not e.name.startswith(f"{library}/") or e.name in names]
    return [*kept, *_measured(measure, new, set(wanted))]


def _measured(measure: Any, names: Iterable[str], wanted: set[str]) -> Iterator[Entry]:
    for name in names:
        yield measure.measure(name) if name in wanted else Entry(name, None, 0, 0, 0, "")


def _fits(name: str, pattern: str) -> bool:
    name, pattern = name.lower(), pattern.lower()
    if not any(sign in pattern for sign in "*?["):
        return pattern in name
    short = name.rpartition("/")[2]
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(short, pattern)

# SPDX-License-Identifier: Apache-2.0
"""Which provider runs which node: asked of ONNX Runtime, counted, and refused where it lies.

A provider that starts need not run a model: it may leave every node to the CPU, and ONNX
Runtime says no word. From release 1.24 on it tells, on request, which nodes each provider
took; earlier ones tell it in the trace of a run.
"""

from __future__ import annotations

import json
import mmap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_imprint_runtime.backends import LayerTime, Placement
from edge_imprint_runtime.backends.ort_options import CPU
from edge_imprint_runtime.errors import ModelFileError, ProviderError
from edge_imprint_runtime.protobuf import LENGTH, Wire

__all__ = [
    "PlacedNode",
    "assigned_nodes",
    "judge_placement",
    "layer_times",
    "shape_nodes",
    "shown_nodes",
    "traced_nodes",
]

_NAMED = 20  # strays that are named
_SHOWN = 3  # and in one sentence

_SHAPE_OPERATORS = frozenset({"Shape", "Size"})
_TIME = "_kernel_time"
_GRAPH, _GRAPH_NODE, _GRAPH_INPUT = 7, 1, 11
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR = 1, 2, 3, 4


@dataclass(frozen=True)
class PlacedNode:
    """A node, and what runs it.

    Attributes:
        name: Its name in the graph; "" where it has none.
        operator: Its operator.
        provider: The provider that took it.
    """

    name: str
    operator: str
    provider: str

    def __str__(self) -> str:
        return f"{self.operator} {self.name}".rstrip()


def assigned_nodes(session: Any) -> list[PlacedNode] | None:
    """Ask a session which provider took which nodes.

    Args:
        session: Made with the entry ``session.record_ep_graph_assignment_info`` = 1.

    Returns:
        The nodes, those inside what a provider compiled into one included; None where this
        ONNX Runtime can't be asked.
    """
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return None
    return [
        PlacedNode(node.name, node.op_type, part.ep_name)
        for part in ask()
        for node in part.get_nodes()
    ]


def traced_nodes(trace: Path) -> list[PlacedNode]:
    """Read from the trace of a run which provider ran which nodes.

    Args:
        trace: The file that ONNX Runtime wrote.

    Returns:
        The nodes as they were run: what a provider compiled into one is one.
    """
    found = {_node_of(event): None for event in _node_events(trace)}
    return list(found)


def layer_times(trace: Path, runs: int) -> list[LayerTime]:
    """Read from the trace of some runs how long each node took.

    Args:
        trace: The file that ONNX Runtime wrote.
        runs: How many runs to count, the last ones: the first meet memory that is not there.

    Returns:
        One entry a node, the dearest first; the operator with the provider where that is not
        the CPU.
    """
    times: dict[PlacedNode, list[int]] = {}
    for event in _node_events(trace):
        times.setdefault(_node_of(event), []).append(int(event["dur"]))
    found = [
        LayerTime(node.name, _kind(node), sum(spent[-runs:]) * 1e3 / len(spent[-runs:]))
        for node, spent in times.items()
    ]
    return sorted(found, key=lambda layer: -layer.mean_ns)


def shape_nodes(model: Path | bytes) -> frozenset[str]:
    """Name the nodes whose result depends on no number that goes in, on shapes at most.

    ONNX Runtime keeps them on the CPU on purpose: there the shapes are.

    Args:
        model: The file, or its bytes, that `check_model_file` let through.

    Returns:
        Their names, as far as they have any.

    Raises:
        ModelFileError: It is no ONNX model.
    """
    if isinstance(model, bytes):
        return _shape_nodes(Wire(model, "the model"))
    try:
        with (
            open(model, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _shape_nodes(Wire(data, str(model)))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"cannot read {model}: {error}") from error


def judge_placement(
    asked: str,
    nodes: Sequence[PlacedNode],
    shapes: frozenset[str] = frozenset(),
    *,
    strict: bool = False,
) -> tuple[Placement, list[PlacedNode]]:
    """Count the nodes by provider, and refuse what is not what was asked for.

    Args:
        asked: The provider asked for.
        nodes: All nodes.
        shapes: Names of those that work on shapes only, as `shape_nodes` has them. They are
            counted, but are no strays.
        strict: Whether to refuse every stray.

    Returns:
        The counts, and the strays, all of them.

    Raises:
        ProviderError: The provider runs nothing that computes; or, under ``strict``, not all.
    """
    computing = [
        node
        for node in nodes
        if node.operator not in _SHAPE_OPERATORS and not (node.name and node.name in shapes)
    ]
    strays = [node for node in computing if node.provider != asked]
    if strays and len(strays) == len(computing):
        raise ProviderError(
            f"{asked} took none of the model's nodes, {_elsewhere(strays)}; "
            "choose the backend that can run it"
        )
    if strays and strict:
        raise ProviderError(
            f"{asked} left nodes of the model to others, {_elsewhere(strays)}; "
            "open it without strict if they may"
        )
    counts = Counter(node.provider for node in nodes)
    named = tuple(str(stray) for stray in strays[:_NAMED])
    return Placement(asked, dict(counts.most_common()), named), strays


def shown_nodes(nodes: Sequence[PlacedNode]) -> str:
    """Name some nodes, the first of them, and say how many there are."""
    named = ", ".join(map(str, nodes[:_SHOWN]))
    return named if len(nodes) <= _SHOWN else f"{len(nodes)} of them: {named}, ..."


def _elsewhere(strays: list[PlacedNode]) -> str:
    providers = ", ".join(sorted({stray.provider for stray in strays}))
    return f"{providers} would run {shown_nodes(strays)}"


def _node_events(trace: Path) -> Iterator[dict[str, Any]]:
    for event in json.loads(trace.read_text(encoding="utf-8", errors="replace")):
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_TIME):
            yield event


def _node_of(event: dict[str, Any]) -> PlacedNode:
    about = event["args"]
    name = str(event["name"]).removesuffix(_TIME)
    return PlacedNode(name, str(about.get("op_name", "")), str(about.get("provider", CPU)))


def _kind(node: PlacedNode) -> str:
    return node.operator if node.provider == CPU else f"{node.operator} ({node.provider})"


def _shape_nodes(wire: Wire) -> frozenset[str]:
    found: set[str] = set()
    for number, kind, start, end in wire.read(0, len(wire.data)):
        if (number, kind) == (_GRAPH, LENGTH):
            found |= _shape_nodes_of(wire, start, end)
    return frozenset(found)


def _shape_nodes_of(wire: Wire, start: int, end: int) -> set[str]:
    # Inputs with a default are data too: what is fed there is not known beforehand.
    spans, data = [], set[str]()
    for number, kind, a, b in wire.read(start, end):
        if (number, kind) == (_GRAPH_NODE, LENGTH):
            spans.append((a, b))
        elif (number, kind) == (_GRAPH_INPUT, LENGTH):
            data |= {
                wire.text(x, y) for n, w, x, y in wire.read(a, b) if (n, w) == (1, LENGTH)
            }
    found = set[str]()
    for a, b in spans:  # in topological order, as ONNX demands
        texts: dict[int, list[str]] = {}
        nested = False
        for number, kind, x, y in wire.read(a, b):
            if kind != LENGTH:
                continue
            if number in (_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR):
                texts.setdefault(number, []).append(wire.text(x, y))
            nested = nested or _holds_graph(wire, number, x, y)
        operator = texts.get(_NODE_OPERATOR, [""])[0]
        reads = nested or any(name in data for name in texts.get(_NODE_INPUT, ()))
        if reads and operator not in _SHAPE_OPERATORS:
            data.update(texts.get(_NODE_OUTPUT, ()))
        else:
            found.update(texts.get(_NODE_NAME, ()))
    return found - {""}


def _holds_graph(wire: Wire, number: int, start: int, end: int) -> bool:
    """Tell whether a field of a node is an attribute with a graph, which may read anything."""
    return number == 5 and any(field in (6, 11) for field, _, _, _ in wire.read(start, end))

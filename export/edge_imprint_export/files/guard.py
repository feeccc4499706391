# SPDX-License-Identifier: Apache-2.0
"""Reading an ONNX file from elsewhere: sound and self-contained, or refused in one sentence.

What a file claims is held against what it holds before it is parsed, and where its weights
lie before any other file is opened. What is read then passes ONNX's own check.
"""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from edge_imprint_export.files.external_data import read_spans, vet
from edge_imprint_export.graph import all_nodes, check_graph, graphs_of, without_weights
from edge_imprint_runtime.errors import BackboneExportError, ModelFileError, UnsafeModelError
from edge_imprint_runtime.onnx_scan import MAX_FILE_BYTES, scan

__all__ = ["DOMAINS", "read_model"]

# Whose operators are known: ONNX's own, and those that every ONNX Runtime brings along.
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_MAX_SIDE = 2**31 - 1


def read_model(
    path: str | os.PathLike[str], where: str | None = None, *, foreign: bool = False
) -> onnx.ModelProto:
    """Read an ONNX file that may come from anywhere.

    Weights in files beside it (external data) are read in, from its own folder only.

    Args:
        path: The file.
        where: What messages call it; its path unless given.
        foreign: Let operators pass that the file defines itself or that are of unknown
            domains. It can then be looked at, not run: nothing is known of what they do,
            and what lies inside the file's own is not checked.

    Returns:
        The model, whole: nodes in order, every name defined once, and ONNX's check passed.

    Raises:
        ModelFileError: The file is missing, can't be read, or is no ONNX model.
        UnsafeModelError: It reaches outside its folder, claims what it does not hold, defines
            operators of its own or uses unknown ones (unless ``foreign``), holds what was
            compiled for one accelerator, or its graph is not sound.
    """
    file = Path(path)
    where = str(file) if where is None else where
    model = _parse(_read(file, where), where, foreign)
    try:
        _check_domains(model, where, foreign)
        _check_graph(model.graph, _Scopes(model.graph, where))
        read_spans(vet(model, file.parent, where), where)
        check_graph(_skeleton(model, where), where)
    except UnicodeDecodeError as error:
        raise ModelFileError(
            f"{where} is not an ONNX model: a name in it is not UTF-8 text"
        ) from error
    except BackboneExportError as error:
        raise UnsafeModelError(str(error)) from error
    return model


def _read(file: Path, where: str) -> bytes:
    try:
        # A pipe or a device would be waited for.
        if os.path.exists(file) and not os.path.isfile(file) and not os.path.isdir(file):
            raise ModelFileError(f"cannot read {where}: it is no regular file")
        with open(file, "rb") as stream:
            # One byte more than fits: `scan` says so.
            return stream.read(min(os.fstat(stream.fileno()).st_size, MAX_FILE_BYTES + 1))
    except (OSError, ValueError) as error:  # a NUL byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelFileError(f"cannot read {where}: {reason}") from error


def _parse(data: bytes, where: str, foreign: bool) -> onnx.ModelProto:
    found = scan(data, where)
    if found.trainings or (found.functions and not foreign):
        what = "training graphs" if found.trainings else "operators of its own"
        raise UnsafeModelError(f"{where} defines {what}; export it again without them")
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ModelFileError(f"{where} is not an ONNX model: {error}") from error
    if not model.graph.node:
        raise ModelFileError(f"{where} is not an ONNX model: it has no nodes")
    return model


def _check_domains(model: onnx.ModelProto, where: str, foreign: bool) -> None:
    imported = [_full(entry.domain) for entry in model.opset_import]
    if len(set(imported)) != len(imported):
        raise UnsafeModelError(f"{where} names an operator set twice; export it again")
    for node in all_nodes(model.graph):
        if node.domain not in DOMAINS and not foreign:
            raise UnsafeModelError(
                f"{where} uses {_told(node)} of {node.domain[:80]!r}, and only operators of "
                "ONNX (ai.onnx, ai.onnx.ml) and of ONNX Runtime (com.microsoft) are known; "
                "export it without"
            )
        if _full(node.domain) not in imported:
            raise UnsafeModelError(
                f"{where} uses {_told(node)} of {_full(node.domain)[:80]} without naming that "
                "operator set's version; export it again"
            )


def _full(domain: str) -> str:
    return domain or "ai.onnx"


class _Scopes:
    """What is known where a node stands: tensors of its graph and of those around it."""

    def __init__(self, top: onnx.GraphProto, where: str) -> None:
        self.top, self.where = top, where
        self.known: list[set[str]] = []
        self.later: list[set[str]] = []

    def knows(self, name: str) -> bool:
        return any(name in scope for scope in self.known)

    def refuse(self, graph: onnx.GraphProto, node: onnx.NodeProto, name: str) -> None:
        told = f"{self.where}: {_told(node)} takes {name[:80]!r}"
        if not any(name in scope for scope in self.later):
            raise UnsafeModelError(f"{told}, which nothing makes; export it again")
        if _has_cycle(graph) or _has_cycle(self.top):
            raise UnsafeModelError(
                f"{self.where}: the nodes wait for each other in a cycle, {_told(node)} among "
                "them; export it again"
            )
        raise UnsafeModelError(f"{told} before it is made; sort the nodes, or export it again")


def _check_graph(graph: onnx.GraphProto, scopes: _Scopes) -> None:
    """Check one graph's names and order, and those of the graphs inside it."""
    where = scopes.where
    stored = [tensor.name for tensor in graph.initializer]
    stored += [tensor.values.name for tensor in graph.sparse_initializer]
    fed = [value.name for value in graph.input]
    made = [name for node in graph.node for name in node.output if name]
    # A weight may be listed among the inputs too: it is then their default.
    _check_once("input", fed, where)
    _check_once("tensor", [*stored, *made], where)
    _check_once("tensor", [*fed, *made], where)
    _check_once("node", [node.name for node in graph.node if node.name], where)
    for value in (*graph.input, *graph.output, *graph.value_info):
        _check_shape(value, where)
    known = set(stored) | set(fed)
    scopes.known.append(known)
    scopes.later.append(set(made))
    for node in graph.node:
        if not node.output:
            raise UnsafeModelError(f"{where}: {_told(node)} makes nothing; export it again")
        for name in node.input:
            if name and not scopes.knows(name):
                scopes.refuse(graph, node, name)
        for inner in graphs_of(node):
            _check_graph(inner, scopes)
        known.update(name for name in node.output if name)
    for value in graph.output:
        if not scopes.knows(value.name):
            raise UnsafeModelError(
                f"{where} has the output {value.name[:80]!r}, which no node makes; "
                "export it again"
            )
    scopes.known.pop()
    scopes.later.pop()


def _check_once(kind: str, names: list[str], where: str) -> None:
    if len(set(names)) == len(names) and all(names):
        return
    seen = set[str]()
    for name in names:
        if not name:
            raise UnsafeModelError(f"{where} has a {kind} without a name; export it again")
        if name in seen:
            raise UnsafeModelError(
                f"{where} defines the {kind} {name[:80]!r} twice; export it again"
            )
        seen.add(name)


def _check_shape(value: onnx.ValueInfoProto, where: str) -> None:
    sides = [
        side.dim_value
        for side in value.type.tensor_type.shape.dim
        if side.HasField("dim_value")
    ]
    if min(sides, default=0) < 0 or max(sides, default=0) > _MAX_SIDE:
        raise UnsafeModelError(
            f"{where} gives {value.name[:80]!r} the shape {tuple(sides[:8])}, which no tensor "
            "has; export it again"
        )


def _has_cycle(graph: onnx.GraphProto) -> bool:
    """Tell whether no order of the nodes has each tensor made before it is taken."""
    maker = {name: number for number, node in enumerate(graph.node) for name in node.output}
    takers: dict[int, list[int]] = {}
    waits = [0] * len(graph.node)
    for number, node in enumerate(graph.node):
        inside = [
            name for part in graphs_of(node) for n in all_nodes(part) for name in n.input
        ]
        for source in {maker[name] for name in (*node.input, *inside) if name in maker}:
            takers.setdefault(source, []).append(number)
            waits[number] += 1
    ready = [number for number, count in enumerate(waits) if not count]
    done = 0
    while ready:
        done += 1
        for taker in takers.get(ready.pop(), ()):
            waits[taker] -= 1
            if not waits[taker]:
                ready.append(taker)
    return done < len(graph.node)


def _skeleton(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Copy a model without its weights, for ONNX's check, which wants more than it must."""
    for value in model.graph.input:
        if not value.type.tensor_type.HasField("shape"):
            raise UnsafeModelError(
                f"{where} does not say the shape of its input {value.name[:80]!r}; "
                "export it again"
            )
    bare = without_weights(model)
    # A function that calls itself would never be worked out.
    del bare.functions[:]
    bare.graph.name = bare.graph.name or "graph"
    # What runs a model works out its outputs' shapes.
    shaped = [o for o in bare.graph.output if o.type.tensor_type.HasField("shape")]
    del bare.graph.output[:]
    bare.graph.output.extend(shaped)
    return bare


def _told(node: onnx.NodeProto) -> str:
    name = node.name or next(iter(node.output), "")
    return f"the {node.op_type[:80]} node {name[:80]!r}"

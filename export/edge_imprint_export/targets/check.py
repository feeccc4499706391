# SPDX-License-Identifier: Apache-2.0
"""Tell what a target won't take of a model, and what it will take and compute wrongly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx
from onnx import TensorProto, defs

from edge_imprint_export.graph import all_nodes
from edge_imprint_export.targets.limits import REMEDIES, SEVERITIES, UNREAD_FUNCTIONS, Limit
from edge_imprint_export.targets.records import Target
from edge_imprint_export.targets.rules import (
    DOMAIN_RULES,
    MODEL_RULES,
    NODE_RULES,
    Facts,
    is_standard,
)

__all__ = ["Finding", "Group", "check", "grouped"]

_SHOWN = 3
_REPLACE = "replace it, or run the model with ONNX Runtime"


@dataclass(frozen=True)
class Finding:
    """One thing in a model that a target refuses, computes wrongly, or takes with a remark.

    Attributes:
        severity: ``refused``, ``wrong`` (it loads, the numbers are others) or ``note``.
        node: The node's name, or its first output's where it has none; "" for the file.
        op: The node's operator; "" for the file.
        where: The tensor or the part of the file that it is about.
        what: What the target does with it.
        remedy: What to do.
    """

    severity: str
    node: str
    op: str
    where: str
    what: str
    remedy: str

    @property
    def fails(self) -> bool:
        """Whether the model is not to be run there: it is refused or computed wrongly."""
        return self.severity != "note"

    def __str__(self) -> str:
        subject = f"the {self.op} node {self.node!r}" if self.op else self.where
        return f"{subject}: {self.what}; {self.remedy}"


@dataclass(frozen=True)
class Group:
    """Findings of one cause.

    Attributes:
        severity: As in `Finding`.
        op: As in `Finding`.
        what: As in `Finding`.
        remedy: As in `Finding`.
        count: How many there are.
        names: The first three nodes, or parts of the file.
    """

    severity: str
    op: str
    what: str
    remedy: str
    count: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        named = ", ".join(self.names) + (", ..." if self.count > len(self.names) else "")
        subject = f"{self.count} {self.op} ({named})" if self.op else named
        return f"{self.severity}: {subject}: {self.what}; {self.remedy}"


def check(model: onnx.ModelProto, target: Target) -> list[Finding]:
    """Find all in a model that a target won't take as ONNX means it.

    Args:
        model: Any ONNX model, of edge-imprint or not; it is left as it is.
        target: Where it is to run.

    Returns:
        The findings, refusals first; empty where the target takes the model.
    """
    facts = Facts(model)
    found = [
        *_of_the_file(facts, target),
        *_of_types(facts, target),
        *_of_limits(facts, target),
    ]
    for node in all_nodes(model.graph):
        if is_standard(node):
            found += _of_operator(facts, target, node)
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """Put findings of one cause together, in the order in which they first occur."""
    causes: dict[tuple[str, str, str, str], list[str]] = {}
    for one in findings:
        cause = (one.severity, one.op, one.what, one.remedy)
        causes.setdefault(cause, []).append(one.node or one.where)
    return [
        Group(*cause, len(names), tuple(names[:_SHOWN])) for cause, names in causes.items()
    ]


def _name(node: onnx.NodeProto) -> str:
    return node.name or next(iter(node.output), "")


def _of_the_file(facts: Facts, target: Target) -> Iterator[Finding]:
    """Find an opset or an IR version out of the target's range."""
    where, again = f"opset {facts.opset}", "edge-imprint export --target writes it so"
    if facts.opset > target.max_opset:
        what = f"{target.name} takes up to opset {target.max_opset}"
        yield Finding("refused", "", "", where, what, f"export with an older opset; {again}")
    if facts.opset < target.min_opset:
        what = f"{target.name} takes opset {target.min_opset} and newer"
        yield Finding("refused", "", "", where, what, "export with a newer opset")
    if facts.model.ir_version > target.max_ir_version:
        where = f"IR version {facts.model.ir_version}"
        what = f"{target.name} takes up to IR version {target.max_ir_version}"
        yield Finding("refused", "", "", where, what, f"set a lower ir_version; {again}")


def _of_operator(facts: Facts, target: Target, node: onnx.NodeProto) -> Iterator[Finding]:
    """Find an operator that the target, or the file's own opset, does not know."""
    name, where = _name(node), next(iter(node.output), "")
    if facts.opset <= defs.onnx_opset_version():
        flaw = _flaw_of_form(facts, node)
        if flaw:
            remedy = "export the model again, or state the opset that it is written in"
            yield Finding("refused", name, node.op_type, where, flaw, remedy)
    if not target.knows(node.op_type):
        remedy = REMEDIES.get(node.op_type, _REPLACE)
        what = f"{target.name} has no {node.op_type}"
        yield Finding("refused", name, node.op_type, where, what, remedy)


def _flaw_of_form(facts: Facts, node: onnx.NodeProto) -> str:
    """Say what in a node is not of the file's opset; "" where all is."""
    try:
        schema = defs.get_schema(node.op_type, facts.opset, "")
    except defs.SchemaError:
        return f"opset {facts.opset} has no {node.op_type}"
    for attribute in node.attribute:
        if attribute.name not in schema.attributes:
            return f"{node.op_type} of opset {facts.opset} has no attribute {attribute.name}"
    given = len(node.input)
    if not schema.min_input <= given <= schema.max_input:
        return f"{node.op_type} of opset {facts.opset} does not take {given} inputs"
    return ""


def _of_types(facts: Facts, target: Target) -> Iterator[Finding]:
    """Find tensors of a type that the target does not have."""
    if target.types is None:
        return
    makers = {
        name: node for node in all_nodes(facts.model.graph) for name in node.output if name
    }
    # Inference says nothing of initializers, and types of none of what it does not know.
    for tensor in dict.fromkeys((*facts.values, *facts.constants)):
        kind = facts.kind(tensor)
        if kind == TensorProto.UNDEFINED or kind in target.types:
            continue
        node = makers.get(tensor)
        of = ("", "") if node is None else (_name(node), node.op_type)
        what = f"{target.name} has no {TensorProto.DataType.Name(kind).lower()}"
        remedy = "cast it, or export the model in float32"
        yield Finding("refused", *of, tensor, what, remedy)


def _of_limits(facts: Facts, target: Target) -> Iterator[Finding]:
    """Find what the target's own limits speak of."""
    by_node: list[Limit] = []
    # A target may take functions; nothing is said of a graph in which they hide.
    unread = () if target.limit(UNREAD_FUNCTIONS.rule) else (UNREAD_FUNCTIONS,)
    for limit in (*target.limits, *unread):
        if limit.rule in NODE_RULES:
            by_node.append(limit)
            continue
        for part in MODEL_RULES[limit.rule](facts):
            yield Finding(limit.severity, "", "", part, limit.what, limit.remedy)
    for node in all_nodes(facts.model.graph):
        for limit in by_node:
            # A Cast of another domain is no Cast, and need not have an input.
            speaks_of = is_standard(node) or limit.rule in DOMAIN_RULES
            if speaks_of and NODE_RULES[limit.rule](facts, node):
                where = next(iter(node.output), "")
                yield Finding(
                    limit.severity, _name(node), node.op_type, where, limit.what, limit.remedy
                )

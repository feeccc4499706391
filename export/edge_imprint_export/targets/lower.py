# SPDX-License-Identifier: Apache-2.0
"""A graph rewritten to what its target reads, and the proof that it still says the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import defs, helper

from edge_imprint_export.backbone.cache import known_difference, remember_difference
from edge_imprint_export.graph import (
    EMBEDDING,
    all_graphs,
    all_nodes,
    image_size,
    to_bytes,
)
from edge_imprint_export.nodes import Nodes
from edge_imprint_export.targets.check import check
from edge_imprint_export.targets.lower_forms import FORMS, fit
from edge_imprint_export.targets.lower_nodes import EXPANSIONS, Place
from edge_imprint_export.targets.records import Target
from edge_imprint_export.targets.rules import Facts, is_standard
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.contract import BackboneInfo
from edge_imprint_runtime.errors import BackboneExportError

__all__ = ["MAX_DIFFERENCE", "lower", "lowered"]

MAX_DIFFERENCE = 1e-4
_MIN_IR_VERSION = 8
_SAMPLES = 2
# Raised whenever this file writes another graph for the same target.
_FORM = 1


def lower(model: onnx.ModelProto, target: Target) -> onnx.ModelProto:
    """Rewrite a graph to what a target reads, in place. Weights are not copied.

    The opset becomes the target's newest where it is above it, and stays where it is below;
    operators that the target does not know become plainer ones; attributes and inputs take the
    form of the opset; what a target would misread is said in another way. A graph that the
    target takes as it is stays as it is.

    Args:
        model: A valid graph, such as a backbone's.
        target: Where it is to run.

    Returns:
        The same model. `edge_imprint_export.check.check` finds no more than notes in it.

    Raises:
        BackboneExportError: A node can't be written so that the target takes it; the message
            names it and says what to do. The model is then half rewritten.
    """
    facts = Facts(model)
    opset = _opset_for(facts, target)
    place = Place(Nodes(opset), facts, target)
    graphs = list(all_graphs(model.graph))
    if len(graphs) > 1:
        facts.values  # noqa: B018 - what is inferred, before a graph inside changes
    # Those inside come first: a node that holds one is copied with what it then holds.
    given = [_rewrite(graph, place) for graph in reversed(graphs)]
    _drop_unused(model, set().union(*given))
    model.graph.initializer.extend(place.nodes.constants)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset
    demanded = helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    model.ir_version = max(_MIN_IR_VERSION, demanded)
    for finding in check(model, target):
        if finding.fails:
            raise BackboneExportError(
                f"the graph can't be written for {target.name}: {finding}"
            )
    return model


def lowered(model: onnx.ModelProto, info: BackboneInfo, target: Target) -> onnx.ModelProto:
    """Lower a backbone graph, and see by running both that it embeds the same.

    Both run once in ONNX Runtime, on the same random pixels. What they differ by is kept
    beside the cached graph, so that the next time costs nothing.

    Args:
        model: A backbone graph, ``pixels`` -> ``embedding``; it is changed in place.
        info: Which backbone; its digest stands for its weights.
        target: Where it is to run.

    Returns:
        The same model.

    Raises:
        BackboneExportError: It can't be lowered, does not run, or an embedding differs from
            what it was by more than 1e-4 of the largest number in the embeddings.
    """
    form = _form(target)
    difference = known_difference(info, form)
    if difference is None:
        before = _embeddings(model)
        difference = _difference(before, _embeddings(lower(model, target)))
        remember_difference(info, form, difference)
    else:
        lower(model, target)
    if not difference <= MAX_DIFFERENCE:
        raise BackboneExportError(
            f"the backbone {info.name}, written for {target.name}, gives other embeddings: "
            f"they differ by {difference:.2g} of the largest number (allowed "
            f"{MAX_DIFFERENCE:.0e}); use another target, or export it with opset 17"
        )
    return model


def _form(target: Target) -> str:
    """Return all of a target that decides how a graph is rewritten."""
    rules = sorted(limit.rule for limit in target.limits)
    operators = sorted(target.operators or ())
    return repr((_FORM, target.max_opset, rules, operators))


def _embeddings(model: onnx.ModelProto) -> npt.NDArray[np.float32]:
    """Embed random pixels, the same for all, node by node as written.

    Optimised, ONNX Runtime would find LayerNormalization and Gelu in the arithmetic again.
    """
    height, width = image_size(model)
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((_SAMPLES, 3, height, width)).astype(np.float32)
    runner = OrtRunner(to_bytes(model), "cpu", optimization="disable")
    found = runner.run([EMBEDDING], pixels)[0]
    return found.astype(np.float32)


def _difference(before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]) -> float:
    """Return the largest difference, relative to the largest number; NaN agrees with NaN."""
    both = np.isfinite(before) & np.isfinite(after)
    if before.shape != after.shape or not np.array_equal(
        before[~both], after[~both], equal_nan=True
    ):
        return float("inf")
    scale = float(np.abs(before[both]).max(initial=0)) or 1.0
    return float(np.abs(before[both] - after[both]).max(initial=0)) / scale


def _opset_for(facts: Facts, target: Target) -> int:
    """Return the opset to write: the graph's own where the target takes it."""
    opset = min(facts.opset, target.max_opset)
    scatter = target.limit("scatter_nd_18")
    kinds = {node.op_type for node in all_nodes(facts.model.graph)}
    if scatter is not None and "ScatterND" in kinds:
        opset = min(opset, 17)
    return opset


def _rewrite(graph: onnx.GraphProto, place: Place) -> set[str]:
    """Rewrite the nodes of one graph.

    Returns:
        What the rewritten nodes took, and may no longer be needed.
    """
    rewritten: list[onnx.NodeProto] = []
    given: set[str] = set()
    for node in graph.node:
        nodes = [node] if not is_standard(node) else _rewritten(node, place)
        if len(nodes) != 1 or nodes[0] is not node:
            given.update(node.input)
        rewritten += nodes
    if given:
        del graph.node[:]
        graph.node.extend(rewritten)
    return given


def _rewritten(node: onnx.NodeProto, place: Place) -> list[onnx.NodeProto]:
    nodes = place.nodes.nodes
    nodes.clear()
    form = FORMS.get(node.op_type)
    if _must_expand(node, place):
        EXPANSIONS[node.op_type](place, node)
    elif form is None or not form(place, node):
        return [fit(place, node)]
    return list(nodes)


def _drop_unused(model: onnx.ModelProto, names: set[str]) -> None:
    """Drop those of these constants that nothing needs any more."""
    parts = list(all_graphs(model.graph))
    used = {name for part in parts for node in part.node for name in node.input}
    unused = names - used - {value.name for part in parts for value in part.output}
    for part in parts:
        for position in reversed(range(len(part.initializer))):
            if part.initializer[position].name in unused:
                del part.initializer[position]
        for position in reversed(range(len(part.node))):
            node = part.node[position]
            if node.op_type == "Constant" and node.output[0] in unused:
                del part.node[position]


def _must_expand(node: onnx.NodeProto, place: Place) -> bool:
    """Tell whether a node is to be written as plainer ones."""
    opset, target = place.nodes.opset, place.target
    if node.op_type not in EXPANSIONS:
        return False
    if node.op_type == "GroupNormalization" and opset < 21 <= place.facts.opset:
        return True  # scale and bias are one a channel from opset 21 on, before one a group
    if node.op_type == "LayerNormalization" and any(node.output[1:]):
        return target.limit("layer_norm_outputs") is not None
    if not target.knows(node.op_type) or not defs.has(node.op_type, opset):
        return True
    # ONNX's own check refuses what is deprecated: GroupNormalization of opset 18 to 20.
    deprecated: bool = defs.get_schema(node.op_type, opset, "").deprecated
    return deprecated

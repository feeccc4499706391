# SPDX-License-Identifier: Apache-2.0
"""A bill of materials: what a model file was made of, and by which tools (CycloneDX 1.6)."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import uuid
from importlib import metadata
from typing import Any

import onnx

from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime.contract import BackboneInfo, encode
from edge_imprint_runtime.contract.codec import NOTE_PREFIX, PREFIX
from edge_imprint_runtime.head import Head

__all__ = ["bill_of_materials"]

_TOOLS = ("edge-imprint", "numpy", "onnx", "onnxruntime", "pillow", "safetensors")
_TORCH_TOOLS = ("onnxscript", "timm", "torch")  # which made the graph of a timm backbone
_CLASSIFIER = "License :: OSI Approved :: "
# A name for this kind of content: equal models give equal serial numbers.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:edge-imprint:bill-of-materials")


def bill_of_materials(
    model: onnx.ModelProto, head: Head, *, name: str = "model.onnx"
) -> dict[str, Any]:
    """Say what a model was made of.

    The model, its backbone and its head are listed with their digests, the tools with
    version and licence where they state one. The licence of a backbone's weights is not
    known here; who ships them has to look it up.

    Args:
        model: The exported model, as it is written.
        head: Its head.
        name: What the model's file is called.

    Returns:
        A CycloneDX 1.6 document, for JSON. Equal arguments and tools give an equal one: it
        bears no time, and its serial number comes of its content.

    Raises:
        BackboneExportError: The model is above 2 GiB.
    """
    parts = [_head(head)]
    if head.backbone is not None:
        parts.insert(0, _backbone(head.backbone))
    with_torch = head.backbone is not None and head.backbone.name.startswith("timm/")
    tools = [*_TOOLS, *(_TORCH_TOOLS if with_torch else ())]
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [_python(), *(_tool(tool) for tool in sorted(tools))]},
            "component": _model(model, name),
        },
        "components": parts,
        "dependencies": [
            {"ref": "model", "dependsOn": [part["bom-ref"] for part in parts]},
            *({"ref": part["bom-ref"]} for part in parts),
        ],
    }
    content = json.dumps(bill, sort_keys=True)
    return {"serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, content)}", **bill}


def _model(model: onnx.ModelProto, name: str) -> dict[str, Any]:
    digest = hashlib.sha256(to_bytes(model)).hexdigest()
    said = {entry.key: entry.value for entry in model.metadata_props}
    card: dict[str, Any] = {
        "modelParameters": {
            "task": "image classification",
            "inputs": [{"format": said.get(f"{PREFIX}input", "unknown")}],
            "outputs": [{"format": value.name} for value in model.graph.output],
        }
    }
    proof = re.findall(r"(\S+)=(\S+)", said.get(f"{NOTE_PREFIX}proof", ""))
    if proof:
        metrics = [{"type": key, "value": value} for key, value in proof]
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": name,
        "version": digest[:12],
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "modelCard": card,
        "properties": _properties(said),
    }


def _backbone(info: BackboneInfo) -> dict[str, Any]:
    # Its digest is over names and numbers of the weights, of no file: a property, no hash.
    return {
        "type": "machine-learning-model",
        "bom-ref": "backbone",
        "name": info.name,
        "version": info.digest[:12],
        "properties": _properties(
            {"backbone_weights": info.weights, "backbone_digest": info.digest}
        ),
    }


def _head(head: Head) -> dict[str, Any]:
    digest = hashlib.sha256(head.to_bytes()).hexdigest()
    return {
        "type": "data",
        "bom-ref": "head",
        "name": "head",
        "version": digest[:12],
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "properties": _properties(encode(head.contract)),
    }


def _properties(values: dict[str, str]) -> list[dict[str, str]]:
    named = {key.removeprefix(PREFIX): value for key, value in values.items()}
    # The classes may be many, and are in the model itself.
    return [
        {"name": f"edge_imprint:{key}", "value": value}
        for key, value in sorted(named.items())
        if key != "labels"
    ]


def _python() -> dict[str, Any]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return {"type": "platform", "name": "python", "version": version}


def _tool(package: str) -> dict[str, Any]:
    try:
        said = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        return {"type": "library", "name": package, "version": "not installed here"}
    version = said["Version"]
    tool: dict[str, Any] = {
        "type": "library",
        "name": package,
        "version": version,
        "purl": f"pkg:pypi/{package}@{version}",
    }
    licences = _licences(said)
    return {**tool, "licenses": licences} if licences else tool


def _licences(said: Any) -> list[dict[str, Any]]:
    """Return what a package says of its licence, in its own words."""
    if said["License-Expression"]:
        return [{"expression": said["License-Expression"]}]
    listed = [c for c in said.get_all("Classifier") or () if c.startswith(_CLASSIFIER)]
    if listed:
        return [{"license": {"name": c.removeprefix(_CLASSIFIER)}} for c in sorted(listed)]
    text = (said["License"] or "").strip()
    # Some put the whole text there.
    return [{"license": {"name": text}}] if 0 < len(text) <= 80 and "\n" not in text else []

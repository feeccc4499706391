# SPDX-License-Identifier: Apache-2.0
"""Contract <-> flat text metadata, the same in an ONNX model and in a head file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace

from edge_imprint_runtime.contract.spec import (
    MAX_LABEL_BYTES,
    MAX_LABELS,
    MAX_TEXT_BYTES,
    VERSION,
    BackboneInfo,
    Contract,
    Frame,
    GraphInfo,
    Preprocess,
    Rule,
    Teachable,
    rule_fields,
)
from edge_imprint_runtime.errors import (
    ContractKeyError,
    ContractValueError,
    ContractVersionError,
    EdgeImprintError,
    NoContractError,
    ParameterError,
)

__all__ = [
    "HEAD_KEYS",
    "MODEL_KEYS",
    "OPTIONAL_KEYS",
    "OPTIONAL_MODEL_KEYS",
    "PREFIX",
    "decode",
    "encode",
    "format_frame",
    "format_preprocess",
    "parse_preprocess",
]

PREFIX = "edge_imprint."
# Informational: anyone may add one, no reader depends on it, so new notes need no new version.
NOTE_PREFIX = PREFIX + "note."

HEAD_KEYS = ("version", "labels", "rule", "recipe", "embedding_size")
BACKBONE_KEYS = ("backbone", "backbone_weights", "backbone_digest", "preprocess")
GRAPH_KEYS = ("input", "slots", "precision", "head_precision", "target")
MODEL_KEYS = HEAD_KEYS + BACKBONE_KEYS + GRAPH_KEYS
# There in what is calibrated, and only there; and in a teachable model.
OPTIONAL_KEYS = ("temperature",)
OPTIONAL_MODEL_KEYS = (*OPTIONAL_KEYS, "teachable")

_INPUT_TEXT = {
    "uint8": "uint8 NHWC RGB",
    "float32": "float32 NCHW RGB",
    "embedding": "float32 embedding",
}
_NUMBER = r"[0-9]{1,20}(\.[0-9]{1,20})?(e[-+]?[0-9]{1,3})?"
# JSON may spell one character in six bytes, and wants quotes, commas and brackets.
_MAX_LABELS_TEXT = MAX_LABELS * (6 * MAX_LABEL_BYTES + 4)


def encode(contract: Contract) -> dict[str, str]:
    """Write a contract as flat metadata.

    Args:
        contract: The contract of a model (``graph`` set) or of a head.

    Returns:
        Text by key; all keys begin with ``edge_imprint.``.
    """
    text = {
        "version": str(VERSION),
        "labels": json.dumps(contract.labels, ensure_ascii=False, separators=(",", ":")),
        "rule": " ".join(f"{key}={value}" for key, value in asdict(contract.rule).items()),
        "recipe": contract.recipe,
        "embedding_size": str(contract.embedding_size),
    }
    if contract.backbone is not None:
        text["backbone"] = contract.backbone.name
        text["backbone_weights"] = contract.backbone.weights
        text["backbone_digest"] = contract.backbone.digest
        text["preprocess"] = format_preprocess(contract.backbone.preprocess)
    if contract.graph is not None:
        text |= _encode_graph(contract.graph)
    if contract.temperature is not None:
        text["temperature"] = repr(float(contract.temperature))
    notes = {NOTE_PREFIX + key: value for key, value in contract.notes}
    return {PREFIX + key: value for key, value in text.items()} | notes


def _encode_graph(graph: GraphInfo) -> dict[str, str]:
    text = {
        "input": _INPUT_TEXT.get(graph.input) or format_frame(graph.frame or Frame("rgb")),
        "slots": str(graph.slots),
        "precision": graph.precision,
        "head_precision": graph.head_precision,
        "target": graph.target,
    }
    if graph.teachable is not None:
        t = graph.teachable
        text["teachable"] = f"{t.form} {t.max_classes} {t.taught_proxies}"
    return text


def decode(metadata: Mapping[str, str], *, model: bool, where: str = "this file") -> Contract:
    """Read a contract, limits first; nothing is repaired and nothing guessed.

    Args:
        metadata: All metadata of a file; keys outside ``edge_imprint.`` are not looked at.
        model: Whether the file is a model (graph and backbone are required) or a head.
        where: The file's name, for messages.

    Returns:
        The contract.

    Raises:
        NoContractError: There is no edge-imprint metadata.
        ContractVersionError: The version is not this release's.
        ContractKeyError: A key is missing or unknown.
        ContractValueError: A value is malformed or above its limit.
    """
    text = {
        key[len(PREFIX) :]: value
        for key, value in metadata.items()
        if key.startswith(PREFIX) and not key.startswith(NOTE_PREFIX)
    }
    if not text and NOTE_PREFIX + "backbone_digest" in metadata:
        raise NoContractError(
            f"{where} is a backbone alone, which answers embeddings to programs of your own; "
            "export it with its head to classify with it"
        )
    if not text:
        raise NoContractError(
            f"{where} carries no edge-imprint metadata; "
            "make one with 'edge-imprint build' and 'edge-imprint export'"
        )
    try:
        _check_version(text.get("version"))
        _check_keys(text, model)
        _check_sizes(text)
        notes = sorted(
            (key[len(NOTE_PREFIX) :], value)
            for key, value in metadata.items()
            if key.startswith(NOTE_PREFIX)
        )
        return replace(_decode(text), notes=tuple(notes))
    except EdgeImprintError as error:
        raise type(error)(f"{where}: {error}") from error


def _decode(text: Mapping[str, str]) -> Contract:
    backbone = graph = None
    if "backbone" in text:
        backbone = BackboneInfo(
            name=text["backbone"],
            weights=text["backbone_weights"],
            digest=text["backbone_digest"],
            preprocess=parse_preprocess(text["preprocess"]),
        )
    if "input" in text:
        graph = _decode_graph(text)
    return Contract(
        labels=_decode_labels(text["labels"]),
        rule=_decode_rule(text["rule"]),
        embedding_size=_integer("embedding_size", text["embedding_size"]),
        recipe=text["recipe"],
        backbone=backbone,
        graph=graph,
        temperature=_decode_temperature(text.get("temperature")),
    )


def _decode_graph(text: Mapping[str, str]) -> GraphInfo:
    inputs = {value: key for key, value in _INPUT_TEXT.items()}
    frame = _decode_frame(text["input"]) if text["input"].startswith("frame ") else None
    if frame is None and text["input"] not in inputs:
        raise ContractValueError(
            f"input must be one of {sorted(inputs)} or a frame, got {text['input'][:80]!r}"
        )
    return GraphInfo(
        input="frame" if frame is not None else inputs[text["input"]],
        slots=_integer("slots", text["slots"]),
        precision=text["precision"],
        head_precision=text["head_precision"],
        target=text["target"],
        frame=frame,
        teachable=_decode_teachable(text.get("teachable")),
    )


def _check_version(version: str | None) -> None:
    if version != str(VERSION):
        found = "no version" if version is None else f"version {version[:40]!r}"
        raise ContractVersionError(
            f"the metadata has {found}, this release reads version '{VERSION}'; "
            "use a matching edge-imprint or export the model again"
        )


def _check_keys(text: Mapping[str, str], model: bool) -> None:
    required = set(HEAD_KEYS + GRAPH_KEYS if model else HEAD_KEYS)
    # Of what takes embeddings, a head or a model of a head alone, the backbone may be unknown:
    # all of its keys, or none.
    bare = not model or text.get("input") == _INPUT_TEXT["embedding"]
    if not bare or text.keys() & set(BACKBONE_KEYS):
        required |= set(BACKBONE_KEYS)
    missing = sorted(required - text.keys())
    optional = set(OPTIONAL_MODEL_KEYS if model else OPTIONAL_KEYS)
    unknown = sorted(text.keys() - required - optional)
    if missing:
        raise ContractKeyError(f"the metadata lacks the key {PREFIX}{missing[0]}")
    if unknown:
        raise ContractKeyError(
            f"the metadata has the unknown key {PREFIX + unknown[0][:80]!r}"
        )


def _check_sizes(text: Mapping[str, str]) -> None:
    for key, value in text.items():
        limit = _MAX_LABELS_TEXT if key == "labels" else MAX_TEXT_BYTES
        if len(value) > limit:
            raise ContractValueError(
                f"{key} must be at most {limit} characters, got {len(value)}"
            )


def _decode_labels(text: str) -> tuple[str, ...]:
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ContractValueError(f"labels is not a JSON array of text: {error}") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ContractValueError("labels must be a JSON array of text")
    return tuple(labels)


def _decode_rule(text: str) -> Rule:
    values = _pairs("rule", text, rule_fields())
    neighbors = _integer("neighbors", values.pop("neighbors"))
    try:
        return Rule(neighbors=neighbors, **values)
    except ParameterError as error:
        raise ContractValueError(f"rule: {error}") from error


def _decode_temperature(text: str | None) -> float | None:
    if text is None:
        return None
    if not re.fullmatch(_NUMBER, text):
        raise ContractValueError(f"temperature must be a number, got {text[:40]!r}")
    return float(text)


def format_frame(frame: Frame) -> str:
    """Write a camera's frame as the contract's line, such as ``frame nv12 720x1280 ...``."""
    size = "any" if frame.any_size else f"{frame.height}x{frame.width}"
    colour = f" {frame.matrix} {frame.levels}" if frame.is_yuv else ""
    return f"frame {frame.format} {size}{colour}"


def _decode_frame(text: str) -> Frame:
    words = text.split(" ")[1:]
    if len(words) not in (2, 4):
        raise ContractValueError(
            "input of frames must read 'frame FORMAT HEIGHTxWIDTH' or "
            f"'frame FORMAT HEIGHTxWIDTH MATRIX LEVELS', got {text[:80]!r}"
        )
    height, width = (0, 0) if words[1] == "any" else _size("frame", words[1])
    frame = Frame(words[0], height, width, *words[2:])
    if frame.is_yuv != (len(words) == 4):
        raise ContractValueError(
            f"input {text[:80]!r}: matrix and levels are there for nv12 and yuyv, only"
        )
    return frame


def _decode_teachable(text: str | None) -> Teachable | None:
    if text is None:
        return None
    words = text.split(" ")
    if len(words) != 3:
        raise ContractValueError(
            f"teachable must read 'FORM CLASSES PROXIES', got {text[:80]!r}"
        )
    return Teachable(
        words[0],
        _integer("teachable max_classes", words[1]),
        _integer("teachable taught_proxies", words[2]),
    )


def format_preprocess(preprocess: Preprocess) -> str:
    """Write preprocessing as the contract's line."""
    p = preprocess
    mean, std = (",".join(repr(float(value)) for value in row) for row in (p.mean, p.std))
    return (
        f"resize={p.resize}:{p.resize_height}x{p.resize_width} "
        f"interpolation={p.interpolation} size={p.height}x{p.width} mean={mean} std={std}"
    )


def parse_preprocess(text: str) -> Preprocess:
    """Read preprocessing from the contract's line.

    Raises:
        ContractValueError: The line is malformed, or a value is out of range.
    """
    keys = ("resize", "interpolation", "size", "mean", "std")
    values = _pairs("preprocess", text, keys)
    resize, _, box = values["resize"].partition(":")
    height, width = _size("size", values["size"])
    resize_height, resize_width = _size("resize", box)
    return Preprocess(
        height=height,
        width=width,
        resize=resize,
        resize_height=resize_height,
        resize_width=resize_width,
        interpolation=values["interpolation"],
        mean=_three_numbers("mean", values["mean"]),
        std=_three_numbers("std", values["std"]),
    )


def _pairs(name: str, text: str, keys: tuple[str, ...]) -> dict[str, str]:
    """Split ``a=1 b=2``, with exactly these keys in this order."""
    found = [part.partition("=") for part in text.split(" ")]
    if tuple(key for key, _, _ in found) != keys:
        want = " ".join(f"{key}=..." for key in keys)
        raise ContractValueError(f"{name} must read '{want}', got {text[:200]!r}")
    return {key: value for key, _, value in found}


def _integer(name: str, text: str) -> int:
    # Not int(): it takes signs, spaces, underscores and digits of any script.
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ContractValueError(f"{name} must be a whole number, got {text[:40]!r}")
    return int(text)


def _size(name: str, text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    sides = _integer(f"{name} height", height), _integer(f"{name} width", width)
    if min(sides) < 1:
        raise ContractValueError(f"{name} must be at least 1x1, got {text[:40]!r}")
    return sides


def _three_numbers(name: str, text: str) -> tuple[float, float, float]:
    parts = text.split(",")
    if len(parts) != 3 or not all(re.fullmatch(f"-?{_NUMBER}", part) for part in parts):
        raise ContractValueError(f"{name} must be three numbers, got {text[:80]!r}")
    return float(parts[0]), float(parts[1]), float(parts[2])

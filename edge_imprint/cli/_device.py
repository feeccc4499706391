# SPDX-License-Identifier: Apache-2.0
"""What also runs on a device: `edge-imprint predict` and `inspect`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_imprint.cli._console import build_progress, note, print_json, say
from edge_imprint.photos import expand_photos
from edge_imprint_runtime.contract import decode
from edge_imprint_runtime.contract.codec import (
    GRAPH_KEYS,
    NOTE_PREFIX,
    PREFIX,
    encode,
    format_preprocess,
)
from edge_imprint_runtime.engine.opening import is_engine
from edge_imprint_runtime.errors import (
    BrokenImageError,
    ImageTooLargeError,
    InputError,
    ModelFileError,
    UnreadableImageError,
)
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.knowledge import head_beside
from edge_imprint_runtime.model import open_model

if TYPE_CHECKING:
    from edge_imprint_runtime.engine.sidecar import Sidecar

__all__ = ["inspect", "predict"]

_BACKEND = click.option(
    "--backend", default="auto", show_default=True, help="auto, cpu, cuda or tensorrt."
)
_THREADS = click.option(
    "--threads", default=0, show_default=True, help="CPU threads; 0: ONNX Runtime chooses."
)

# What `inspect` shows of an engine's sidecar.
_OF_ENGINE = (
    "model_file",
    "model_sha256",
    "tensorrt",
    "gpu_name",
    "compute_capability",
    "driver",
    "cuda",
    "strongly_typed",
    "refittable",
    "version_compatible",
    "hardware_compatible",
    "build_s",
)


@click.command()
@click.argument("model", type=click.Path())
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH...")
@_BACKEND
@_THREADS
@click.option("--rebuild", is_flag=True, help="Compile an engine that does not fit again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
def predict(
    model: str,
    paths: tuple[str, ...],
    backend: str,
    threads: int,
    rebuild: bool,
    as_json: bool,
) -> None:
    """Classify photos, or all photos of a folder, with MODEL, an ONNX file or an engine."""
    with build_progress(rebuild) as tell:
        opened = open_model(model, backend, threads=threads, rebuild=rebuild, progress=tell)
    files = [file for path in paths for file in expand_photos(Path(path))]
    failed = 0
    for file in files:
        try:
            answer = opened.predict(file)[0]
        except (BrokenImageError, ImageTooLargeError, UnreadableImageError) as error:
            failed, reason = failed + 1, str(error)
        except InputError as error:  # such as a photo that has not the frame's size
            failed, reason = failed + 1, f"{file}: {error}"
        else:
            reason = ""
        if reason:
            if as_json:
                print_json({"path": str(file), "error": reason})
            note(f"error: {reason}")
            continue
        if as_json:
            print_json({"path": str(file)} | asdict(answer))
        elif answer.known is False:
            say(f"{file}: {answer.label} (nearest {answer.nearest!r}) {answer.score:.4f}")
        else:
            say(f"{file}: {answer.label!r} {answer.score:.4f}")
    if failed:
        raise UnreadableImageError(f"{failed} of {len(files)} photos could not be classified")


@click.command()
@click.argument("model", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def inspect(model: str, as_json: bool) -> None:
    """Show what MODEL (an ONNX model, an engine or a head file) says of itself."""
    facts = _facts(Path(model))
    if as_json:
        print_json(facts)
        return
    labels = facts.pop("labels", None)
    for name, value in facts.items():
        if value is not None:
            say(f"{name:18} {value}")
    if labels is None:  # a backbone alone
        return
    shown = ", ".join(repr(label) for label in labels[:20])
    more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
    say(f"{'labels':18} {len(labels)}: {shown}{more}")


def _facts(path: Path) -> dict[str, Any]:
    if not os.path.isfile(path):
        if os.path.isdir(path):
            raise ModelFileError(f"{path} is a folder; name a model or head file")
        raise ModelFileError(f"there is no model or head file {path}")
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    shapes: dict[str, Any]
    if start[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
        head = Head.load(path)
        contract, shapes, labels = head.contract, {"proxies": len(head.proxies)}, head.labels
        kind = "head"
    elif is_engine(path):  # read off its sidecar, so that no GPU is needed
        from edge_imprint_runtime.engine.sidecar import read_sidecar, sidecar_path

        sidecar, beside = read_sidecar(path), head_beside(path)
        shapes = {"engine_" + name: getattr(sidecar, name) for name in _OF_ENGINE}
        shapes["engine_batch"] = ",".join(map(str, sidecar.batch))
        if list(sidecar.outputs) == ["embedding"]:
            return _backbone_facts(path, sidecar) | shapes
        contract = decode(sidecar.metadata, model=True, where=str(sidecar_path(path)))
        taught = contract.graph and contract.graph.teachable and os.path.lexists(beside)
        labels = Head.load(beside).labels if taught else contract.labels
        kind = "engine"
    else:
        with open_model(path, "cpu") as model:
            contract, shapes, labels = model.contract, {}, model.labels
        kind = "model"
    facts: dict[str, Any] = {"file": str(path), "size_bytes": path.stat().st_size}
    facts["kind"] = kind
    facts |= shapes
    facts |= {"recipe": contract.recipe, "embedding_size": contract.embedding_size}
    facts["rule"] = " ".join(f"{key}={value}" for key, value in asdict(contract.rule).items())
    facts |= {
        "calibrated": contract.temperature is not None,
        "temperature": contract.temperature,
    }
    if contract.backbone is not None:
        backbone = asdict(contract.backbone)
        del backbone["preprocess"]
        facts |= {f"backbone_{key}": value for key, value in backbone.items()}
        facts["preprocess"] = format_preprocess(contract.backbone.preprocess)
    if contract.graph is not None:
        text = encode(contract)
        for key in (*GRAPH_KEYS, "teachable"):
            facts[key] = text.get(PREFIX + key)
        facts["slots"] = contract.graph.slots
    # What was proved was proved of other classes, once some were taught.
    stale = ("proof",) if tuple(labels) != contract.labels else ()
    facts |= {f"note_{name}": value for name, value in contract.notes if name not in stale}
    return facts | {"labels": list(labels)}


def _backbone_facts(path: Path, sidecar: Sidecar) -> dict[str, Any]:
    """Say what an engine of a backbone alone is: it has no contract, but notes."""
    facts: dict[str, Any] = {"file": str(path), "size_bytes": path.stat().st_size}
    size = sidecar.outputs["embedding"][0][-1]
    facts |= {"kind": "engine of a backbone alone", "embedding_size": size}
    facts["precision"] = sidecar.precision
    notes = sorted(sidecar.metadata.items())
    return facts | {f"note_{key.removeprefix(NOTE_PREFIX)}": value for key, value in notes}

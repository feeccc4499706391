# SPDX-License-Identifier: Apache-2.0
"""`export`: a head -> one ONNX file for a target, and the proof that it decides the same."""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_imprint.backbones import graph_for
from edge_imprint.embedding.digests import read_digests
from edge_imprint.evidence import (
    Evidence,
    calibration_batches,
    find_evidence,
    proof_batches,
)
from edge_imprint.hold_out import digest_of
from edge_imprint.make_head import Progress
from edge_imprint.versions import versions
from edge_imprint_export.files.sbom import bill_of_materials
from edge_imprint_export.frames.nodes import check_frame
from edge_imprint_export.frontend import check_input, embedder
from edge_imprint_export.fuse import fuse, fuse_head, save
from edge_imprint_export.graph import add_notes, parse, to_bytes
from edge_imprint_export.precision import LayerError, layer_errors, to_half, to_int8
from edge_imprint_export.precision.int8 import DIALECTS, int8_dialect
from edge_imprint_export.proof.budget import (
    MIN_AGREEMENT,
    Answer,
    Proof,
    prove,
    require_finite,
)
from edge_imprint_export.targets.check import check
from edge_imprint_export.targets.lower import lowered
from edge_imprint_export.targets.records import Target
from edge_imprint_export.targets.records import target as find_target
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.contract import BackboneInfo, Frame, Teachable
from edge_imprint_runtime.contract.codec import format_preprocess
from edge_imprint_runtime.contract.spec import PRECISIONS, check_choice
from edge_imprint_runtime.errors import (
    NoImagesError,
    OutputWriteError,
    ParameterError,
    TargetError,
)
from edge_imprint_runtime.files import check_output, write_atomic
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.model import Model
from edge_imprint_runtime.teaching import check_teachable

if TYPE_CHECKING:
    import onnx

__all__ = ["Export", "export"]

_FEW_PHOTOS = 50  # of as many, all agree by chance where one of twenty labels is another
_LAYER_PHOTOS = 4  # to find where a difference arises
_SEEN = (
    "compared on photos that the head has seen; build with --hold-out 0.1 to compare on others"
)
_FLOAT_WEIGHTS = (
    "TensorRT 8 takes no int8 weights: for {} they are float32 behind Q/DQ, and the file is "
    "no smaller; a newer --target, or onnxruntime, makes it a quarter"
)
_NO_PHOTOS = "it is not known where the photos of the build are now; name photos with --images"


@dataclass(frozen=True)
class Export:
    """What `export` made.

    Attributes:
        path: The model.
        head_path: The head file beside it, of a teachable model; else None.
        head: The head.
        proof: How it compares with its float32 original; None without photos.
        notes: What a user should know.
    """

    path: Path
    head_path: Path | None
    head: Head
    proof: Proof | None
    notes: tuple[str, ...]


def export(
    head: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    part: str = "all",
    target: str = "portable",
    precision: str = "fp32",
    head_precision: str = "fp32",
    input: str = "uint8",
    frame: Frame | None = None,
    teachable: bool | Teachable = False,
    outputs: Sequence[str] = ("scores", "label"),
    images: str | os.PathLike[str] | None = None,
    proof: bool = True,
    min_agreement: float | None = None,
    keep_float32: Sequence[str] = (),
    sbom: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Make the file that a target runs, and hold it against its float32 original.

    Args:
        head: The head file.
        out: The model to write.
        part: ``all``; ``backbone``: from pixels to the embedding; ``head``: from the
            embedding to the label.
        target: What it is for; see `edge_imprint_export.targets.records`.
        precision: Of the backbone: ``fp32``, ``fp16`` or ``int8``.
        head_precision: Of the product with the proxies: ``fp32``, ``fp16``, ``int8`` or
            ``exact``.
        input: As in `fuse`.
        frame: As in `fuse`.
        teachable: As in `fuse`; the head is written beside, as ``OUT.head``.
        outputs: As in `fuse`.
        images: Photos to prove it on and, for int8, to calibrate it with, as `build` takes
            them, or a folder of photos without classes; None for those of the build.
        proof: Whether the file is proved before it is written.
        min_agreement: Share (0..1) of photos whose label must be that of float32; None for
            `MIN_AGREEMENT`.
        keep_float32: Layers that stay float32 under fp16 and int8: names, ``*`` for any
            letters.
        sbom: A bill of materials to write, CycloneDX; None for none.
        weights: As in `graph_for`.
        backbone: As in `graph_for`.
        force: Whether existing files may be replaced.
        progress: Told how far it is.

    Returns:
        What was written, and the proof.

    Raises:
        AgreementError: It agrees with float32 less than asked for; nothing is written.
        TargetError: The target does not take it; nothing is written.
        EdgeImprintError: One of its other classes, each for one cause.
    """
    check_choice("part", part, ("all", "backbone", "head"))
    check_input(input, frame)
    check_choice("precision", precision, PRECISIONS)
    _check(part, precision, head_precision, input, teachable, keep_float32, min_agreement)
    chosen, loaded, tell = find_target(target), Head.load(head), progress or _silent
    named = backbone or (loaded.backbone.name if loaded.backbone is not None else "")
    if teachable:
        _check_teachable(loaded, teachable)
    if frame is not None and loaded.backbone is not None:
        check_frame(frame, loaded.backbone.preprocess)  # before the long work, not after it
    sources = [head, named.removeprefix("onnx:"), *([] if weights is None else [weights])]
    path = check_output(out, force=force, inputs=sources)
    beside = check_output(f"{path}.head", force=force, inputs=sources) if teachable else None
    bill = None if sbom is None else check_output(sbom, force=force, inputs=sources)
    _check_apart(path, beside, bill)

    def original() -> onnx.ModelProto:
        return graph_for(loaded, weights=weights, backbone=backbone)

    evidence = None
    if (proof or precision == "int8") and loaded.backbone is not None:
        evidence = find_evidence(head, loaded, images, calibrate=precision == "int8")
        if precision == "int8" and evidence is None:
            raise NoImagesError(f"int8 is calibrated on photos: {_NO_PHOTOS}")
        asked = min_agreement is not None or {precision, head_precision} != {"fp32"}
        if proof and evidence is None and asked:
            raise NoImagesError(
                f"the model can't be compared with float32: {_NO_PHOTOS}, or leave the "
                "comparison out with --no-proof"
            )
    made, reduced = None, b""
    if part != "head":
        tell("loading the backbone", 0, 1)
        made = original()
        made = _reduced(made, loaded, chosen, precision, keep_float32, evidence, tell)
        reduced = to_bytes(made) if precision != "fp32" and proof else b""
    common: dict[str, Any] = {
        "teachable": teachable,
        "outputs": outputs,
        "target": target,
        "head_precision": head_precision,
        "notes": _how(precision, keep_float32, evidence),
    }
    if made is None:
        model = fuse_head(loaded, **common)
    elif part == "backbone":
        assert loaded.backbone is not None  # graph_for would have refused it
        model = embedder(made, loaded.backbone.preprocess, input=input, frame=frame)
        about = _describe(loaded.backbone, precision, target)
        add_notes(model, about | dict(common["notes"]))
    else:
        model = fuse(made, loaded, input=input, frame=frame, precision=precision, **common)
    _require_target(model, chosen)
    found = None
    if proof and evidence is not None:
        photos = proof_batches(evidence, loaded, input, frame, tell)
        answer = _answer(model, part, loaded, path)
        layers = functools.partial(_layers, original, reduced, evidence, loaded, tell)
        if precision == "fp16":
            # A CPU computes fp16 in float32: what overflows on a GPU shows layer by layer.
            require_finite(layers())
        runner = OrtRunner(to_bytes(original()), "cpu")
        found = prove(answer, loaded, runner, photos, source=evidence.source)
        least = MIN_AGREEMENT if min_agreement is None else min_agreement
        if found.agreement < least:
            found.require(least, layers())
        add_notes(model, {"proof": found.line()})
    if beside is not None:  # first, so that no new model stands beside an older head
        loaded.save(beside, force=force)
    save(model, path, force=force)
    if bill is not None:
        text = json.dumps(bill_of_materials(model, loaded, name=path.name), indent=2) + "\n"
        write_atomic(bill, text.encode(), force=force)
    return Export(
        path,
        beside,
        loaded,
        found,
        _notes(found, evidence, proof, chosen, precision, head_precision, frame),
    )


def _check(
    part: str,
    precision: str,
    head_precision: str,
    input_form: str,
    teachable: bool | Teachable,
    keep_float32: Sequence[str],
    min_agreement: float | None,
) -> None:
    """Refuse options that contradict each other."""
    if min_agreement is not None and not 0 <= min_agreement <= 1:
        raise ParameterError(f"min_agreement must be a share from 0 to 1, got {min_agreement}")
    if keep_float32 and precision == "fp32":
        raise ParameterError(
            "--keep-float32 is for --precision fp16 or int8; in fp32 all layers stay so"
        )
    if part == "backbone" and (head_precision != "fp32" or teachable):
        raise ParameterError(
            "a backbone alone has no proxies; leave out --head-precision and --teachable"
        )
    if part == "head" and (precision != "fp32" or input_form != "uint8"):
        raise ParameterError(
            "a head alone takes embeddings and has no backbone; leave out --precision "
            "and --input"
        )


def _check_teachable(head: Head, teachable: bool | Teachable) -> None:
    """Refuse on the host what a device could not teach."""
    check_teachable(head)
    limit = teachable if isinstance(teachable, Teachable) else Teachable()
    if len(head.labels) > limit.max_classes:
        raise ParameterError(
            f"the head has {len(head.labels)} classes, more than --max-classes "
            f"{limit.max_classes}; allow more"
        )


def _check_apart(*paths: Path | None) -> None:
    """Refuse to write two things into one file."""
    places = [os.path.realpath(path) for path in paths if path is not None]
    for path in places:
        if places.count(path) > 1:
            raise OutputWriteError(
                f"cannot write {path}: it would be written twice, as the model, its head or "
                "its bill of materials; name another file"
            )


def _reduced(
    graph: onnx.ModelProto,
    head: Head,
    target: Target,
    precision: str,
    keep_float32: Sequence[str],
    evidence: Evidence | None,
    tell: Progress,
) -> onnx.ModelProto:
    """Bring a backbone graph into the target's form and the precision."""
    assert head.backbone is not None
    tell("bringing it into the target's form", 0, 1)
    graph = lowered(graph, head.backbone, target)
    if precision == "fp16":
        tell("making it smaller", 0, 1)
        return to_half(graph, keep_float32=keep_float32)
    if precision == "int8":
        assert evidence is not None  # `export` saw to it
        batches = calibration_batches(evidence, head.backbone.preprocess, tell)
        dialect = int8_dialect(target)
        return to_int8(graph, batches, keep_float32=keep_float32, dialect=dialect)
    return graph


def _answer(model: onnx.ModelProto, part: str, head: Head, path: Path) -> Answer:
    """Open what was made, to be asked as `prove` asks."""
    runner = OrtRunner(to_bytes(model), "cpu")
    if part == "backbone":

        def embed(given: Any, _: Any) -> Any:
            rows = runner.run(["embedding"], given)[0]
            return head.scores(rows), head.predict(rows)

        return embed
    opened = Model(runner, str(path), head=head)

    def predict(given: Any, embeddings: Any) -> Any:
        answer = opened.predict(embeddings if part == "head" else given)
        return answer.scores, answer.label

    return predict


def _require_target(model: onnx.ModelProto, target: Target) -> None:
    """Refuse what the target would not take, or compute wrongly."""
    bad = [finding for finding in check(model, target) if finding.fails]
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise TargetError(
            f"the target {target.name} does not take this model: {bad[0]}{more}; "
            "export it for another --target, or take another backbone"
        )


def _layers(
    original: Callable[[], onnx.ModelProto],
    reduced: bytes,
    evidence: Evidence,
    head: Head,
    tell: Progress,
) -> tuple[LayerError, ...]:
    """Find where a reduced backbone leaves its original, on a few of the photos."""
    assert head.backbone is not None
    judges = replace(evidence, calibration=evidence.proof)
    readable = calibration_batches(judges, head.backbone.preprocess, _silent)
    batches = list(itertools.islice(readable, _LAYER_PHOTOS))
    if not reduced or not batches:
        return ()  # that no photo can be read is said by the comparison on them
    tell("comparing layer by layer", 0, 1)
    return layer_errors(original(), parse(reduced, "the backbone"), np.concatenate(batches))


def _describe(info: BackboneInfo, precision: str, target: str) -> dict[str, str]:
    """Say what a backbone alone is: it has no head, and so no contract."""
    return {
        "backbone": info.name,
        "backbone_weights": info.weights,
        "backbone_digest": info.digest,
        "preprocess": format_preprocess(info.preprocess),
        "precision": precision,
        "target": target,
    }


def _how(
    precision: str, keep_float32: Sequence[str], evidence: Evidence | None
) -> list[tuple[str, str]]:
    """Note what it takes to make the same file again, beside head, target and options."""
    notes = [("exported_with", versions())]
    if precision == "int8" and evidence is not None:
        used = [evidence.paths[i] for i in evidence.calibration]
        notes.append(
            ("calibration", f"photos={len(used)} sha256={digest_of(read_digests(used))}")
        )
    if keep_float32:
        notes.append(("keep_float32", " ".join(keep_float32)))
    return notes


def _notes(
    found: Proof | None,
    evidence: Evidence | None,
    proof: bool,
    target: Target,
    precision: str,
    head_precision: str,
    frame: Frame | None,
) -> tuple[str, ...]:
    notes = []
    if proof and found is None:
        notes.append(f"not compared with float32: {_NO_PHOTOS}")
    if found is not None and evidence is not None and evidence.source == "build":
        notes.append(_SEEN)
    if found is not None and found.photos < _FEW_PHOTOS:
        notes.append(
            f"compared on {found.photos} photos only, which shows little; give more with "
            "--images"
        )
    if found is not None and frame is not None and not frame.any_size:
        notes.append(
            f"the photos were cut to frames of {frame.width} x {frame.height} first, for "
            "float32 too; photos of that size show how it does on the camera's own"
        )
    smaller = precision == "int8" or head_precision in ("int8", "exact")
    if smaller and DIALECTS[int8_dialect(target)].float_weights:
        notes.append(_FLOAT_WEIGHTS.format(target.name))
    return tuple(notes)


def _silent(step: str, done: int, total: int) -> None:
    pass

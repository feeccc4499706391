# SPDX-License-Identifier: Apache-2.0
"""Hold a model file against its head in every way at hand, on photos and on random numbers.

The oracle is the bare float32 backbone graph and the head in numpy, whatever the precision of
the model. A float32 model must equal it within the tolerance, a smaller one must decide as it
does on the stated share of photos.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from edge_imprint_export.graph import to_bytes
from edge_imprint_export.proof.budget import MIN_AGREEMENT
from edge_imprint_export.proof.oracle import RANDOM_INPUTS, Array, Oracle
from edge_imprint_export.proof.reference import ReferenceRunner
from edge_imprint_export.proof.result import Batches, Way, Whole
from edge_imprint_export.proof.verify import TOLERANCE, check_pair, compare, joined
from edge_imprint_runtime.backends import Runner
from edge_imprint_runtime.backends.ort import OPTIMIZATIONS, OrtRunner
from edge_imprint_runtime.contract import decode
from edge_imprint_runtime.errors import (
    BrokenImageError,
    EdgeImprintError,
    ImageTooLargeError,
    NoImagesError,
    ParameterError,
    UnreadableImageError,
)
from edge_imprint_runtime.head import Head
from edge_imprint_runtime.knowledge import head_beside
from edge_imprint_runtime.model import Model, Photo, Predictions

__all__ = ["MAX_BATCH", "REFERENCE_INPUTS", "verify_whole"]

MAX_BATCH = 64
REFERENCE_INPUTS = 2
_BATCH = 16
_KEPT = 32  # photos that every way is given

Progress: TypeAlias = Callable[[str, int, int], None]

_UNREADABLE = (BrokenImageError, ImageTooLargeError, UnreadableImageError)


def verify_whole(
    path: str | os.PathLike[str],
    head: Head,
    backbone_onnx: onnx.ModelProto | bytes,
    photos: Sequence[tuple[Photo, int]],
    *,
    tolerance: float = TOLERANCE,
    min_agreement: float = MIN_AGREEMENT,
    batch: int = 8,
    reference: int = REFERENCE_INPUTS,
    progress: Progress | None = None,
) -> Whole:
    """Compare a model file with the oracle in every way at hand.

    All photos go through ONNX Runtime as a device runs it. About 32 of them, and 8 random
    inputs, go through each of its optimisation levels too; ``reference`` of each through
    ONNX's own evaluator; and ``batch`` of them in batches of every size up to that. Nothing
    is asked of a reduced model on random inputs: they are not what its ranges were read off.
    Of a model of camera frames the oracle is given the pixels that the model itself makes of
    a frame, and those are held against Pillow's. A teachable model whose own classes are the
    head's is run without the head too.

    Args:
        path: The model's file.
        head: The head that it was fused from; a teachable model is run with it.
        backbone_onnx: The bare float32 backbone graph.
        photos: Paths or Pillow images, each with its class index, or -1 where it has none.
            For a model that takes camera frames they are cut to a frame's size.
        tolerance: Largest difference that passes, of a float32 model; see `compare`.
        min_agreement: Share (0..1) of photos whose label must be the oracle's, of others.
        batch: Largest batch that must answer as photo by photo.
        reference: Inputs of each kind for ONNX's evaluator, which is slow; 0: none.
        progress: Told how far it is.

    Returns:
        What was found; call ``require()`` to raise where it did not pass.

    Raises:
        ParameterError: A number is out of range.
        BackboneMismatchError: As in `verify`.
        NoImagesError: There are no photos, or none can be read.
        ModelFileError, UnsafeModelError: The file can't be read.
    """
    limits = {"tolerance": (tolerance, 0, 1), "min_agreement": (min_agreement, 0, 1)}
    limits |= {"batch": (batch, 1, MAX_BATCH), "reference": (reference, 0, RANDOM_INPUTS)}
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise ParameterError(f"{name} must be a number from {low} to {high}, got {value}")
    data = backbone_onnx if isinstance(backbone_onnx, bytes) else to_bytes(backbone_onnx)
    run = _Run(Path(path), head, data, tolerance, min_agreement)
    return run.whole(photos, batch, reference, progress or _silent)


@dataclass(frozen=True)
class _Inputs:
    """Inputs of one kind, a row each, and what the oracle and the usual way make of them."""

    kind: str
    given: list[Array]
    embeddings: npt.NDArray[np.float32]
    usual: npt.NDArray[np.float32]

    def first(self, count: int) -> _Inputs:
        return _Inputs(
            self.kind, self.given[:count], self.embeddings[:count], self.usual[:count]
        )


class _Run:
    """One verification: the model as a device runs it, and the oracle."""

    def __init__(
        self, path: Path, head: Head, backbone: bytes, tolerance: float, min_agreement: float
    ) -> None:
        self.path, self.head = path, head
        self.tolerance, self.min_agreement = tolerance, min_agreement
        self.usual = self.opened(OrtRunner(path, "cpu"))
        info = check_pair(self.usual, head)
        self.oracle = Oracle(path, self.usual, info.preprocess, backbone)
        self.graph = self.oracle.graph
        self.reduced = {self.graph.precision, self.graph.head_precision} != {"fp32"}
        contract, teachable = self.usual.contract, self.graph.teachable
        holds_any = teachable is not None and teachable.form == "default"
        self.built_in = holds_any and contract.labels == head.labels
        # A head that was taught, or built of other photos, is another under the same names.
        self.exported = head.samples is None and set(head.contract.notes) <= set(
            contract.notes
        )

    def opened(self, runner: Runner) -> Model:
        """Open the model; one that takes its classes from outside is given the head."""
        contract = decode(runner.metadata, model=True, where=str(self.path))
        given = contract.graph is not None and contract.graph.teachable is not None
        return Model(runner, str(self.path), head=self.head if given else None)

    def whole(
        self,
        photos: Sequence[tuple[Photo, int]],
        batch: int,
        reference: int,
        tell: Progress,
    ) -> Whole:
        answers, embeddings, kept = list[Predictions](), [], list[Array]()
        rows, skipped = list[int](), list[str]()
        step = max(1, len(photos) // _KEPT)
        for given, numbers in self.batched(photos, skipped, tell):
            answers.append(self.usual.predict(given))
            embeddings.append(self.oracle.embeddings(given))
            chosen = [i for i, number in enumerate(numbers) if number % step == 0]
            kept += [given[i : i + 1] for i in chosen[: _KEPT - len(kept)]]
            rows += numbers
        if not rows:
            raise NoImagesError("none of the photos can be read; name others")
        if not kept:
            kept = [given[:1]]
        ways = self.ways({"photos": kept, "random": self.oracle.random()}, reference)
        return self.judged(
            joined(answers),
            np.concatenate(embeddings),
            np.array([photos[row][1] for row in rows]),
            rows=tuple(rows),
            skipped=tuple(skipped),
            notes=tuple(self.notes()),
            ways=tuple(_told(ways, self.runs(reference), tell)),
            batches=self.batches(kept, batch),
            pixels=self.oracle.pixels(kept),
            layers=self.oracle.layers(kept),
        )

    def judged(
        self,
        answer: Predictions,
        embeddings: npt.NDArray[np.float32],
        truth: npt.NDArray[np.int64],
        **more: Any,
    ) -> Whole:
        scores = self.head.scores(embeddings).astype(np.float64)
        label, known = self.head.predict(embeddings), truth >= 0
        best = np.partition(scores, -2, axis=1)[:, -2:] if scores.shape[1] > 1 else scores
        return Whole(
            graph=self.graph,
            labels=self.usual.labels,
            found=compare(answer, self.head, embeddings, self.tolerance),
            reduced=self.reduced,
            min_agreement=self.min_agreement,
            accuracy=_share(answer.label[known], truth[known]),
            accuracy_float32=_share(label[known], truth[known]),
            label=answer.label,
            label_float32=label,
            difference=np.abs(answer.scores - scores).max(axis=1),
            margin=best[:, -1] - best[:, 0],
            **more,
        )

    def batched(
        self, photos: Sequence[tuple[Photo, int]], skipped: list[str], tell: Progress
    ) -> Iterator[tuple[Array, list[int]]]:
        """Yield photos as the model takes them, of one shape a batch, and their numbers."""
        waiting, numbers = list[Array](), list[int]()
        for number, (photo, _) in enumerate(photos):
            tell("comparing", number + 1, len(photos))
            try:
                row = self.oracle.prepared(photo)
            except _UNREADABLE as error:
                skipped.append(str(error))
                continue
            if waiting and (row.shape != waiting[0].shape or len(waiting) == _BATCH):
                yield np.concatenate(waiting), numbers
                waiting, numbers = [], []
            waiting.append(row)
            numbers.append(number)
        if waiting:
            yield np.concatenate(waiting), numbers

    def notes(self) -> Iterator[str]:
        """Tell what a teachable model was, and was not, run with."""
        if self.graph.teachable is None:
            return
        beside = head_beside(self.path)
        if beside.is_file() and not _holds(beside, self.head):
            yield (
                f"{beside} is another head than the one given; the model was run with the one "
                "given, and opens with that beside it"
            )
        if self.graph.teachable.form == "default" and not self.built_in:
            yield (
                "the model's built-in classes are others than the head's, and were not run; "
                "verify it with the head that it was exported from, too"
            )
        elif self.built_in and not self.exported:
            yield (
                "the head was taught, or built anew, since the export: nothing is asked of "
                "the model's built-in classes; verify it with the head that it was exported "
                "from, too"
            )

    def runs(self, reference: int) -> int:
        """Return how many ways there are, on photos and on random inputs."""
        return 2 * (len(OPTIMIZATIONS) + self.built_in + bool(reference))

    def ways(self, kinds: dict[str, list[Array]], reference: int) -> Iterator[Way]:
        """Run each way on some inputs of each kind, a row each."""
        inputs = [self.inputs(kind, given) for kind, given in kinds.items()]
        for level in OPTIMIZATIONS:
            open_model = functools.partial(self.level, level)
            for some in inputs:
                yield self.way(f"ONNX Runtime ({level})", some, open_model)
        for some in inputs if self.built_in else ():
            found = self.way("built-in classes", some, self.without_head)
            yield found if self.exported else replace(found, passed=None)
        for some in inputs if reference else ():
            found = self.way("ONNX's evaluator", some.first(reference), self.reference)
            # It has ONNX's own operators only: what it lacks is no fault of the model.
            yield replace(found, passed=None) if found.failed else found

    def inputs(self, kind: str, given: list[Array]) -> _Inputs:
        rows = np.concatenate([self.oracle.embeddings(row) for row in given])
        return _Inputs(kind, given, rows, _answers(self.usual, given).scores)

    def level(self, level: str) -> Model:
        return self.opened(OrtRunner(self.path, "cpu", optimization=level))

    def without_head(self) -> Model:
        return Model(OrtRunner(self.path, "cpu"), str(self.path))

    def reference(self) -> Model:
        return self.opened(ReferenceRunner(self.oracle.model))

    def way(self, name: str, inputs: _Inputs, open_model: Callable[[], Model]) -> Way:
        try:
            answer = _answers(open_model(), inputs.given)
        except EdgeImprintError as error:
            return Way(name, inputs.kind, passed=False, failed=str(error))
        found = compare(answer, self.head, inputs.embeddings, self.tolerance)
        passed: bool | None = found.passed
        if self.reduced:
            agrees = found.agreement >= self.min_agreement
            passed = agrees if inputs.kind == "photos" else None
        return Way(name, inputs.kind, found, _largest(answer.scores, inputs.usual), passed)

    def batches(self, kept: list[Array], largest: int) -> Batches:
        """Answer the same photos in batches of every size."""
        alike = [row for row in kept if row.shape == kept[0].shape][:largest]
        alone = _answers(self.usual, alike)
        scale = max(1.0, float(np.abs(alone.scores).max()))
        same, count, difference = 0, 0, 0.0
        for size in range(2, len(alike) + 1):
            together = [
                self.usual.predict(np.concatenate(alike[start : start + size]))
                for start in range(0, len(alike), size)
            ]
            answer = joined(together)
            gap = np.abs(_of(alone.scores, alone.label) - _of(alone.scores, answer.label))
            same += int((gap <= self.tolerance * scale).sum())
            count += len(alike)
            difference = max(difference, _largest(answer.scores, alone.scores))
        agreement = same / count if count else 1.0
        if self.reduced:
            passed = agreement >= self.min_agreement
        else:
            passed = agreement == 1.0 and difference <= self.tolerance * scale
        return Batches(len(alike), len(alike), agreement, difference, passed)


def _holds(file: Path, head: Head) -> bool:
    try:
        return Head.load(file).to_bytes() == head.to_bytes()
    except EdgeImprintError:  # what can't be read is not this head
        return False


def _told(ways: Iterable[Way], total: int, tell: Progress) -> Iterator[Way]:
    for done, way in enumerate(ways, 1):
        tell("other ways to run it", done, total)
        yield way


def _silent(step: str, done: int, total: int) -> None:
    pass


def _answers(model: Model, given: list[Array]) -> Predictions:
    return joined([model.predict(row) for row in given])


def _largest(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    return float(np.abs(one.astype(np.float64) - other).max())


def _of(
    scores: npt.NDArray[np.float32], label: npt.NDArray[np.int32]
) -> npt.NDArray[np.float32]:
    return np.take_along_axis(scores, label[:, np.newaxis], axis=1)[:, 0]


def _share(label: npt.NDArray[np.int32], truth: npt.NDArray[np.int64]) -> float | None:
    return float((label == truth).mean()) if len(truth) else None

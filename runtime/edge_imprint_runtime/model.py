# SPDX-License-Identifier: Apache-2.0
"""A fused model on a device: pixels in, label out, all that is needed from the one file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_imprint_runtime.backends import BACKENDS, Runner
from edge_imprint_runtime.contract import Contract, GraphInfo, Preprocess, decode
from edge_imprint_runtime.contract.spec import UNKNOWN
from edge_imprint_runtime.errors import (
    InputError,
    LabelCountError,
    ModelFileError,
    NonFiniteScoresError,
    OutputMissingError,
    ParameterError,
)
from edge_imprint_runtime.images import normalize, photo_pixels

__all__ = ["Model", "Photo", "Prediction", "Predictions", "open_model"]

Photo = str | os.PathLike[str] | Image.Image

_OUTPUTS = (("scores", 2, "tensor(float)"), ("label", 1, "tensor(int32)"))
_CALIBRATED = (("known", 1, "tensor(int32)"), ("probability", 2, "tensor(float)"))


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        label: The class's name, or ``unknown`` where ``known`` is false.
        index: Position of the nearest class in the model's labels.
        score: Its score.
        nearest: Its name.
        known: Whether the image is as near to it as its known ones; None where the model is
            not calibrated.
        probability: That it is this class, among those of the model; None likewise.
    """

    label: str
    index: int
    score: float
    nearest: str
    known: bool | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """The answers for N images: arrays for programs, items for people.

    Attributes:
        scores: (N, C) float32, higher is nearer.
        label: (N,) int32 class indices, whether known or not.
        labels: The C class names.
        known: (N,) bool; None where the model is not calibrated.
        probability: (N, C) float32; None likewise.
    """

    scores: npt.NDArray[np.float32]
    label: npt.NDArray[np.int32]
    labels: tuple[str, ...]
    known: npt.NDArray[np.bool_] | None = None
    probability: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, item: int) -> Prediction:  # type: ignore[override]
        index = int(self.label[item])
        nearest = self.labels[index]
        known = None if self.known is None else bool(self.known[item])
        return Prediction(
            label=UNKNOWN if known is False else nearest,
            index=index,
            score=float(self.scores[item, index]),
            nearest=nearest,
            known=known,
            probability=(
                None if self.probability is None else float(self.probability[item, index])
            ),
        )

    def __iter__(self) -> Iterator[Prediction]:
        return (self[item] for item in range(len(self)))


class Model:
    """A fused model, ready to run. Made by `open_model`.

    Attributes:
        contract: All that the file says of itself.
        labels: The class names.
        provider: The execution provider that runs it.
        threads: Threads for one operator on the CPU; 0: ONNX Runtime's choice, one a core.
    """

    def __init__(self, runner: Runner, where: str) -> None:
        self.contract: Contract = decode(runner.metadata, model=True, where=where)
        assert self.contract.backbone is not None  # decode(model=True) saw to both
        assert self.contract.graph is not None
        self._preprocess: Preprocess = self.contract.backbone.preprocess
        self._graph: GraphInfo = self.contract.graph
        self.labels = self.contract.labels
        self.provider = runner.provider
        self.threads = runner.threads
        self._runner = runner
        self._outputs = list(runner.outputs)
        calibrated = self.contract.temperature is not None
        self._answers = _OUTPUTS + (_CALIBRATED if calibrated else ())
        p = self._preprocess
        uint8 = self._graph.input == "uint8"
        self._shape = (p.height, p.width, 3) if uint8 else (3, p.height, p.width)
        self._dtype: np.dtype[np.generic] = np.dtype(np.uint8 if uint8 else np.float32)
        self._check_graph(where)

    def __repr__(self) -> str:
        """Show what it classifies, and on what it runs."""
        return f"Model({len(self.labels)} classes, {self.provider})"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, without the batch."""
        return self._shape

    @property
    def input_dtype(self) -> np.dtype[np.generic]:
        """Type of the input's numbers."""
        return self._dtype

    def prepare(self, photos: Sequence[Photo]) -> npt.NDArray[np.generic]:
        """Make photos ready for the network.

        Args:
            photos: Paths or Pillow images of any size.

        Returns:
            (N, H, W, 3) uint8, or (N, 3, H, W) float32 where the model takes that.

        Raises:
            InputError: An item is neither a path nor a Pillow image.
            UnreadableImageError, BrokenImageError, ImageTooLargeError: A photo can't be read.
        """
        p = self._preprocess
        pixels = np.empty((len(photos), p.height, p.width, 3), np.uint8)
        for row, photo in zip(pixels, photos, strict=True):
            if not isinstance(photo, (str, os.PathLike, Image.Image)):
                raise InputError(
                    f"a photo must be a path or a Pillow image, got {type(photo).__name__}; "
                    "give arrays as one array, stacked"
                )
            row[:] = photo_pixels(photo, p)
        return pixels if self._graph.input == "uint8" else normalize(pixels, p)

    def predict(
        self, images: Photo | Sequence[Photo] | npt.NDArray[np.generic]
    ) -> Predictions:
        """Classify images.

        Args:
            images: A photo (path or Pillow image), a list of photos, or an array of
                `input_dtype`, ``(N, *input_shape)`` or ``input_shape``.

        Returns:
            One answer an image.

        Raises:
            InputError: An array has another shape or type, or a list holds no photos.
            NonFiniteScoresError: The model answered NaN or infinity.
            UnreadableImageError, BrokenImageError, ImageTooLargeError: A photo can't be read.
        """
        names = [name for name, _, _ in self._answers]
        answer: dict[str, Any] = dict(
            zip(names, self._runner.run(names, self._batch(images)), strict=True)
        )
        if not np.isfinite(answer["scores"]).all():
            raise NonFiniteScoresError(
                "the model answered NaN or infinity; check its input, or export it again"
            )
        if "known" in answer:
            answer["known"] = answer["known"].astype(np.bool_)
        return Predictions(labels=self.labels, **answer)

    def embed(
        self, images: Photo | Sequence[Photo] | npt.NDArray[np.generic]
    ) -> npt.NDArray[np.float32]:
        """Embed images with the model's backbone.

        Args:
            images: As in `predict`.

        Returns:
            (N, D) float32, before normalisation.

        Raises:
            OutputMissingError: The model was exported without this output.
            InputError: An array has another shape or type.
        """
        if "embedding" not in self._outputs:
            raise OutputMissingError(
                "the model has no output 'embedding'; "
                "export it with: edge-imprint export HEAD --out MODEL.onnx --embedding"
            )
        return self._runner.run(["embedding"], self._batch(images))[0]  # type: ignore[return-value]

    def _batch(
        self, images: Photo | Sequence[Photo] | npt.NDArray[np.generic]
    ) -> npt.NDArray[np.generic]:
        if not isinstance(images, np.ndarray):
            one = isinstance(images, (str, os.PathLike, Image.Image))
            if not one and not isinstance(images, Iterable):
                raise InputError(
                    "images must be photos (paths or Pillow images) or an array, "
                    f"got {type(images).__name__}"
                )
            images = self.prepare(
                [cast(Photo, images)] if one else list(cast(Iterable[Photo], images))
            )
        if images.shape == self._shape:
            images = images[np.newaxis]
        if images.dtype != self._dtype or images.shape[1:] != self._shape or not len(images):
            shape = ", ".join(str(side) for side in self._shape)
            raise InputError(
                f"images must be {self._dtype} of shape (N, {shape}) with N >= 1, "
                f"got {images.dtype} {images.shape}; prepare photos with Model.prepare"
            )
        return images

    def _check_graph(self, where: str) -> None:
        """Hold what the graph declares against what the metadata says."""
        for name, rank, want in self._answers:
            if name not in self._runner.outputs:
                raise ModelFileError(f"{where}: the graph has no output {name!r}")
            shape, kind = self._runner.outputs[name]
            if kind != want or len(shape) != rank:
                raise ModelFileError(
                    f"{where}: the graph's output {name!r} is {kind} {list(shape)}, not "
                    f"{want} in {rank} dimensions; export the model again"
                )
        if len(self._runner.inputs) != 1:
            raise ModelFileError(f"{where}: the graph must have one input")
        classes = self._runner.outputs["scores"][0][-1]
        if classes != len(self.labels):
            raise LabelCountError(
                f"{where}: there are {len(self.labels)} labels, "
                f"but the matrix has {classes} classes; export the model again"
            )
        shape, kind = next(iter(self._runner.inputs.values()))
        want = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}[self._graph.input]
        if kind != want or tuple(shape[1:]) != self._shape:
            raise ModelFileError(
                f"{where}: the graph's input is {kind} {list(shape)}, "
                f"its metadata say {want} {list(self._shape)}; export the model again"
            )


def open_model(
    path: str | os.PathLike[str], backend: str = "auto", *, threads: int = 0
) -> Model:
    """Open a fused model.

    Args:
        path: An ONNX file that `edge-imprint export` wrote.
        backend: ``auto`` (CUDA where this ONNX Runtime has it, else the CPU), ``cpu``,
            ``cuda`` or ``tensorrt``. The provider asked for is the one that runs.
        threads: Threads for one operator on the CPU; 0 lets ONNX Runtime choose.

    Returns:
        The model.

    Raises:
        ModelFileError: The file is missing, is no ONNX model, or is not of our form.
        NoContractError, ContractVersionError, ContractKeyError, ContractValueError: Its
            metadata are not what this release reads.
        LabelCountError: Its labels don't match its matrix.
        ProviderError: The provider can't be had.
        MissingPackageError: ONNX Runtime is not installed.
        ParameterError: There is no such backend.
    """
    if backend not in BACKENDS:
        raise ParameterError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if type(threads) is not int or not 0 <= threads <= 1024:
        raise ParameterError(f"threads must be an integer from 0 to 1024, got {threads!r}")
    file = Path(path)
    if not os.path.isfile(file):  # unlike Path's, it takes names that no file can have
        if os.path.isdir(file):
            raise ModelFileError(f"{file} is a folder; name a model file")
        raise ModelFileError(f"there is no model file {file}")
    with open(file, "rb") as start:
        if start.read(9)[8:] == b"{":  # safetensors: eight bytes of length, then JSON
            raise ModelFileError(
                f"{file} is a head, not a model; make one of it with: edge-imprint export"
            )
    from edge_imprint_runtime.backends.ort import OrtRunner

    return Model(OrtRunner(file, backend, threads), str(file))

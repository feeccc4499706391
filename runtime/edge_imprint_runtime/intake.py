# SPDX-License-Identifier: Apache-2.0
"""What goes into a model: its form, and how photos become it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_imprint_runtime.contract import Contract, Frame
from edge_imprint_runtime.errors import InputError, ModelFileError
from edge_imprint_runtime.frames import frame_shape, rgb_to_frame
from edge_imprint_runtime.images import normalize, photo_image, photo_pixels

__all__ = ["Images", "Intake", "Photo"]

Photo: TypeAlias = str | os.PathLike[str] | Image.Image
Images: TypeAlias = Photo | Sequence[Photo] | npt.NDArray[np.generic]

_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


class Intake:
    """The input of a model.

    Args:
        contract: The model's.

    Attributes:
        shape: Of one image, without the batch; 0 for a side of any length.
        dtype: Of its numbers.
    """

    def __init__(self, contract: Contract) -> None:
        assert contract.graph is not None  # decode(model=True) saw to it
        self._form, self._frame = contract.graph.input, contract.graph.frame
        self._preprocess = contract.backbone.preprocess if contract.backbone else None
        self.shape: tuple[int, ...]
        if self._frame is not None:
            self.shape = frame_shape(self._frame)
        elif self._form == "embedding" or self._preprocess is None:
            self.shape = (contract.embedding_size,)
        else:
            p = self._preprocess
            sides = (p.height, p.width)
            self.shape = (*sides, 3) if self._form == "uint8" else (3, *sides)
        is_float = self._form in ("float32", "embedding")
        self.dtype: np.dtype[np.generic] = np.dtype(np.float32 if is_float else np.uint8)

    def prepare(self, photos: Sequence[Photo]) -> npt.NDArray[np.generic]:
        """Make photos ready for the model; see `Model.prepare`."""
        if self._form == "embedding" or self._preprocess is None:
            raise InputError(
                "the model has no backbone and takes embeddings, not photos: give it "
                f"float32 of shape (N, {self.shape[0]})"
            )
        for photo in photos:
            if not isinstance(photo, (str, os.PathLike, Image.Image)):
                raise InputError(
                    f"a photo must be a path or a Pillow image, got {type(photo).__name__}; "
                    "give arrays as one array, stacked"
                )
        if self._frame is not None:
            return _frames(photos, self._frame)
        p = self._preprocess
        pixels = np.empty((len(photos), p.height, p.width, 3), np.uint8)
        for row, photo in zip(pixels, photos, strict=True):
            row[:] = photo_pixels(photo, p)
        return pixels if self._form == "uint8" else normalize(pixels, p)

    def batch(self, images: Images) -> npt.NDArray[np.generic]:
        """Make one array of whatever `Model.predict` takes: (N, `*shape`), C order, N >= 1."""
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
        given = images if images.ndim > len(self.shape) else images[np.newaxis]
        if given.dtype != self.dtype or not len(given) or not self._fits(given.shape[1:]):
            shape = ", ".join(str(side or "any") for side in self.shape)
            hint = "" if self._form == "embedding" else "; prepare photos with Model.prepare"
            raise InputError(
                f"images must be {self.dtype} of shape (N, {shape}) with N >= 1, "
                f"got {images.dtype} {images.shape}{hint}"
            )
        return np.ascontiguousarray(given)

    def check(self, shape: Sequence[int | str | None], kind: str, where: str) -> None:
        """Hold the input that a graph declares against this.

        Args:
            shape: As declared, with the batch.
            kind: Its type, in ONNX Runtime's words.
            where: The model's file, for messages.

        Raises:
            ModelFileError: They differ.
        """
        want, sides = _TYPES[self.dtype.name], shape[1:]
        same = len(sides) == len(self.shape) and all(
            not isinstance(there, int) if side == 0 else there == side
            for there, side in zip(sides, self.shape, strict=True)
        )
        if kind != want or not same:
            raise ModelFileError(
                f"{where}: the graph's input is {kind} {list(shape)}, "
                f"its metadata say {want} {list(self.shape)}; export the model again"
            )

    def _fits(self, sides: tuple[int, ...]) -> bool:
        return len(sides) == len(self.shape) and all(
            there == (side or there) and there > 0
            for there, side in zip(sides, self.shape, strict=True)
        )


def _frames(photos: Sequence[Photo], frame: Frame) -> npt.NDArray[np.uint8]:
    """Make camera frames of photos, which must have a frame's size: (N, ...)."""
    if not photos:
        return np.empty((0, *frame_shape(frame)), np.uint8)
    opened = [photo_image(photo) for photo in photos]
    sizes = {(image.height, image.width) for image in opened}
    if frame.any_size and len(sizes) > 1:
        raise InputError(
            "the model takes frames of any size, but those of one call must have one size; "
            "give photos one by one"
        )
    height, width = next(iter(sizes))
    if not frame.any_size and sizes != {(frame.height, frame.width)}:
        height, width = next(iter(sizes - {(frame.height, frame.width)}))
        raise InputError(
            f"the model takes camera frames of {frame.width} x {frame.height} pixels, a photo "
            f"has {width} x {height}; give photos of that size, or export with --input uint8"
        )
    return rgb_to_frame(np.stack([np.asarray(image) for image in opened]), frame)

# SPDX-License-Identifier: Apache-2.0
"""The C library's public functions for Python's tests: ctypes, typed, errors as exceptions."""

from __future__ import annotations

import ctypes as c
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

RGB8, BGR8, NV12, YUYV, FLOAT32 = range(5)
CPU, CUDA, TENSORRT = range(3)
FORMATS = {"rgb": RGB8, "bgr": BGR8, "nv12": NV12, "yuyv": YUYV}


class Options(c.Structure):
    """ei_options."""

    _fields_ = (
        ("size", c.c_size_t),
        ("provider", c.c_int),
        ("threads", c.c_int32),
        ("device", c.c_int32),
        ("library", c.c_char_p),
        ("head", c.c_char_p),
        ("cache_folder", c.c_char_p),
    )


class Description(c.Structure):
    """ei_description."""

    _fields_ = (
        ("size", c.c_size_t),
        ("format", c.c_int),
        ("width", c.c_int32),
        ("height", c.c_int32),
        ("embedding_size", c.c_int32),
        ("max_batch", c.c_int32),
        ("can_embed", c.c_int32),
        ("calibrated", c.c_int32),
        ("teachable", c.c_int32),
        ("max_classes", c.c_int32),
        ("taught_proxies", c.c_int32),
        ("recipe", c.c_char_p),
        ("backbone", c.c_char_p),
        ("precision", c.c_char_p),
        ("target", c.c_char_p),
        ("provider", c.c_char_p),
        ("library", c.c_char_p),
    )


class Image(c.Structure):
    """ei_image."""

    _fields_ = (
        ("data", c.c_void_p),
        ("width", c.c_int32),
        ("height", c.c_int32),
        ("format", c.c_int),
        ("stride_bytes", c.c_size_t),
        ("chroma", c.c_void_p),
    )


class RawPrediction(c.Structure):
    """ei_prediction."""

    _fields_ = (
        ("label", c.c_char_p),
        ("nearest", c.c_char_p),
        ("index", c.c_int32),
        ("score", c.c_float),
        ("known", c.c_int32),
        ("probability", c.c_float),
        ("proxy", c.c_int32),
    )


class Ranked(c.Structure):
    """ei_ranked."""

    _fields_ = (
        ("label", c.c_char_p),
        ("index", c.c_int32),
        ("score", c.c_float),
        ("probability", c.c_float),
    )


class CallError(Exception):
    """A call that returned another status than EI_OK.

    Attributes:
        status: Its name, such as "EI_PROVIDER".
        message: ei_last_error().
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


@dataclass(frozen=True)
class Prediction:
    """One answer, as ei_prediction has it."""

    label: str
    nearest: str
    index: int
    score: float
    known: int
    probability: float
    proxy: int


def image(array: Array, form: int = RGB8, *, padding: int = 0) -> Image:
    """Describe one array as an ei_image, which keeps it alive.

    Args:
        array: (H, W, 3), (H * 3 / 2, W) for NV12, (H, W, 2) for YUYV, (3, H, W) float32 or
            (D,) float32.
        form: Its format.
        padding: Bytes between rows; the array is copied where there are any.
    """
    array = np.ascontiguousarray(array)
    if array.ndim == 1:
        height, width = 1, len(array)
    elif form == FLOAT32:
        height, width = array.shape[1:]
    else:
        height, width = array.shape[:2]
        height = height * 2 // 3 if form == NV12 else height
    stride = 0
    if padding:
        rows = array.reshape(len(array), -1)
        array = np.full((len(rows), rows.shape[1] + padding), 0xEE, np.uint8)
        array[:, : rows.shape[1]] = rows
        stride = array.shape[1]
    made = Image(array.ctypes.data, width, height, form, stride, None)
    made.kept = array
    return made


def images_of(arrays: Sequence[Array] | Array, form: int = RGB8, padding: int = 0) -> Any:
    """Describe arrays as ei_images, one after the other where they are one array."""
    if isinstance(arrays, np.ndarray) and not padding:
        arrays = np.ascontiguousarray(arrays)
    found = [image(array, form, padding=padding) for array in arrays]
    made = (Image * max(1, len(found)))(*found)
    made.kept = (arrays, found)
    made.count = len(found)
    return made


class Library:
    """The library's functions.

    Args:
        path: libedge_imprint.so.
        ort: ONNX Runtime's shared library, given where a model is opened without another.
    """

    def __init__(self, path: Path, ort: Path) -> None:
        self.c: Any = c.CDLL(str(path))
        self.ort = ort
        pointer, size, status = c.c_void_p, c.c_size_t, c.c_int
        text, into = c.c_char_p, c.POINTER(c.c_void_p)
        for name, answer, *given in (
            ("ei_status_name", text, status),
            ("ei_last_error", text),
            ("ei_version", text),
            ("ei_open", status, text, c.POINTER(Options), into),
            ("ei_open_buffer", status, pointer, size, c.POINTER(Options), into),
            ("ei_close", None, pointer),
            ("ei_describe", status, pointer, c.POINTER(Description)),
            ("ei_class_count", size, pointer),
            ("ei_class_name", status, pointer, size, pointer, size),
            ("ei_predict", status, pointer, pointer, size, into),
            ("ei_free_predictions", None, pointer),
            ("ei_prediction_count", size, pointer),
            ("ei_prediction_at", c.POINTER(RawPrediction), pointer, size),
            ("ei_scores_at", c.POINTER(c.c_float), pointer, size),
            ("ei_probabilities_at", c.POINTER(c.c_float), pointer, size),
            ("ei_predicted_classes", size, pointer),
            ("ei_predicted_label", text, pointer, size),
            ("ei_top", status, pointer, size, pointer, size, pointer),
            ("ei_embed", status, pointer, pointer, size, pointer, size),
            ("ei_prepare", status, pointer, pointer, pointer, size),
            ("ei_teach", status, pointer, text, pointer, size, c.c_int32),
            ("ei_teach_embeddings", status, pointer, text, pointer, size, c.c_int32),
            ("ei_forget", status, pointer, text),
            ("ei_save_head", status, pointer, text),
            ("ei_load_head", status, pointer, text),
        ):
            function = getattr(self.c, name)
            function.restype, function.argtypes = answer, given

    def status_names(self) -> list[str]:
        """The names of all statuses that the library knows, EI_OK included."""
        names = [self.c.ei_status_name(number).decode() for number in range(100)]
        return [name for name in names if name != "unknown status"]

    def check(self, status: int) -> None:
        """Raise what a call failed with."""
        if status:
            raise CallError(
                self.c.ei_status_name(status).decode(), self.c.ei_last_error().decode()
            )

    def options(self, **given: object) -> Options:
        """Make ei_options; ``library`` is the installed ONNX Runtime where not given."""
        made = Options(size=c.sizeof(Options), library=os.fsencode(self.ort))
        for name, value in given.items():
            is_text = isinstance(value, (str, os.PathLike))
            setattr(made, name, os.fsencode(value) if is_text else value)  # type: ignore[arg-type]
        return made

    def open(self, path: str | os.PathLike[str] | None, **options: object) -> OpenModel:
        """Call ei_open."""
        handle = c.c_void_p()
        name = None if path is None else os.fsencode(path)
        made = self.options(**options)
        self.check(self.c.ei_open(name, c.byref(made), c.byref(handle)))
        return OpenModel(self, handle)

    def open_buffer(self, data: bytes | None, **options: object) -> OpenModel:
        """Call ei_open_buffer."""
        handle = c.c_void_p()
        made = self.options(**options)
        kept = None if data is None else c.create_string_buffer(data, len(data))
        size = len(data or b"")
        self.check(self.c.ei_open_buffer(kept, size, c.byref(made), c.byref(handle)))
        return OpenModel(self, handle)


class Predictions:
    """An ei_predictions, to be used again; its answers read as numpy and Python have them."""

    def __init__(self, library: Library) -> None:
        self.library, self.handle = library, c.c_void_p()

    def __len__(self) -> int:
        """How many images there are answers for."""
        return int(self.library.c.ei_prediction_count(self.handle))

    def __getitem__(self, item: int) -> Prediction:
        """Return the answer for one image; IndexError where there is none."""
        found = self.library.c.ei_prediction_at(self.handle, item)
        if not found:
            raise IndexError(item)
        raw = found.contents
        label, nearest = raw.label.decode(), raw.nearest.decode()
        numbers = (raw.index, raw.score, raw.known, raw.probability, raw.proxy)
        return Prediction(label, nearest, *numbers)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes that these answers are of."""
        names = map(self._label, range(self.library.c.ei_predicted_classes(self.handle)))
        return tuple(name.decode() for name in names)

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """(N, C) float32."""
        return self._matrix(self.library.c.ei_scores_at)

    @property
    def probability(self) -> npt.NDArray[np.float32] | None:
        """(N, C) float32, or None."""
        if not self.library.c.ei_probabilities_at(self.handle, 0):
            return None
        return self._matrix(self.library.c.ei_probabilities_at)

    def top(self, item: int, k: int) -> list[tuple[str, int, float, float]]:
        """Call ei_top: (label, index, score, probability)."""
        best, ranked = (Ranked * max(1, k))(), c.c_size_t()
        call = self.library.c.ei_top
        self.library.check(call(self.handle, item, best, k, c.byref(ranked)))
        return [
            (one.label.decode(), one.index, one.score, one.probability)
            for one in best[: ranked.value]
        ]

    def free(self) -> None:
        """Call ei_free_predictions."""
        self.library.c.ei_free_predictions(self.handle)
        self.handle = c.c_void_p()

    def __del__(self) -> None:
        """Free them."""
        self.free()

    def _label(self, index: int) -> bytes:
        found: bytes = self.library.c.ei_predicted_label(self.handle, index)
        return found

    def _matrix(self, row: Callable[..., Any]) -> npt.NDArray[np.float32]:
        classes = self.library.c.ei_predicted_classes(self.handle)
        rows = [
            np.ctypeslib.as_array(row(self.handle, i), (classes,)) for i in range(len(self))
        ]
        return np.stack(rows)


class OpenModel:
    """An ei_model."""

    def __init__(self, library: Library, handle: c.c_void_p) -> None:
        self.library, self.handle = library, handle

    def close(self) -> None:
        """Call ei_close."""
        self.library.c.ei_close(self.handle)
        self.handle = c.c_void_p()

    def __del__(self) -> None:
        """Close it."""
        self.close()

    def describe(self) -> dict[str, Any]:
        """Call ei_describe; text as text."""
        found = Description(size=c.sizeof(Description))
        self.library.check(self.library.c.ei_describe(self.handle, c.byref(found)))
        return {
            name: value.decode() if isinstance(value, bytes) else value
            for name, _ in Description._fields_
            for value in [getattr(found, name)]
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes that it knows now."""
        count = self.library.c.ei_class_count(self.handle)
        return tuple(self.class_name(index) for index in range(count))

    def class_name(self, index: int, room: int = 1025) -> str:
        """Call ei_class_name."""
        text = c.create_string_buffer(room)
        self.library.check(self.library.c.ei_class_name(self.handle, index, text, room))
        return text.value.decode()

    def predict(
        self, images: Any, form: int = RGB8, *, again: Predictions | None = None
    ) -> Predictions:
        """Call ei_predict with arrays, or with what `images_of` made."""
        found = Predictions(self.library) if again is None else again
        given = images if isinstance(images, c.Array) else images_of(images, form)
        call, into = self.library.c.ei_predict, c.byref(found.handle)
        self.library.check(call(self.handle, given, given.count, into))
        return found

    def embed(self, images: Any, form: int = RGB8) -> npt.NDArray[np.float32]:
        """Call ei_embed."""
        given = images if isinstance(images, c.Array) else images_of(images, form)
        rows = np.empty((given.count, self.describe()["embedding_size"]), np.float32)
        call = self.library.c.ei_embed
        self.library.check(call(self.handle, given, given.count, rows.ctypes.data, rows.size))
        return rows

    def prepare(self, photo: Image) -> npt.NDArray[np.uint8]:
        """Call ei_prepare."""
        about = self.describe()
        pixels = np.empty((about["height"], about["width"], 3), np.uint8)
        call, photo_at = self.library.c.ei_prepare, c.byref(photo)
        self.library.check(call(self.handle, photo_at, pixels.ctypes.data, pixels.size))
        return pixels

    def teach(self, label: str, images: Any, form: int = RGB8, *, proxies: int = 0) -> None:
        """Call ei_teach."""
        given = images if isinstance(images, c.Array) else images_of(images, form)
        call, name = self.library.c.ei_teach, label.encode("utf-8", "surrogateescape")
        self.library.check(call(self.handle, name, given, given.count, proxies))

    def teach_embeddings(self, label: str, rows: Array, *, proxies: int = 0) -> None:
        """Call ei_teach_embeddings."""
        rows = np.ascontiguousarray(rows, np.float32)
        call = self.library.c.ei_teach_embeddings
        where = rows.ctypes.data
        self.library.check(call(self.handle, label.encode(), where, len(rows), proxies))

    def forget(self, label: str) -> None:
        """Call ei_forget."""
        self.library.check(self.library.c.ei_forget(self.handle, label.encode()))

    def save_head(self, path: Path | None = None) -> None:
        """Call ei_save_head."""
        name = None if path is None else os.fsencode(path)
        self.library.check(self.library.c.ei_save_head(self.handle, name))

    def load_head(self, path: Path | None = None) -> None:
        """Call ei_load_head."""
        name = None if path is None else os.fsencode(path)
        self.library.check(self.library.c.ei_load_head(self.handle, name))

# SPDX-License-Identifier: Apache-2.0
"""From a photo to the network's pixels: the same code on the host and on the device."""

from __future__ import annotations

import os
import threading
import warnings
from io import BytesIO
from pathlib import Path
from typing import IO, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.errors import (
    BrokenImageError,
    ImageTooLargeError,
    UnreadableImageError,
)
from edge_imprint_runtime.geometry import Span, fill_color, linear_taps, spans
from edge_imprint_runtime.quick import (
    FILTERS,
    ORIENTATION,
    Opened,
    averages,
    check_decode,
    draft,
    lead,
    resized_part,
)

__all__ = [
    "MAX_IMAGE_PIXELS",
    "PhotoSource",
    "Readable",
    "decode_photo",
    "normalize",
    "open_image",
    "photo_image",
    "photo_pixels",
    "prepare",
]

# 179 megapixels, where Pillow itself gives up: more is a decompression bomb, not a photo.
MAX_IMAGE_PIXELS = 178_956_970

_TURNED = frozenset(range(2, 9))  # orientations that `ImageOps.exif_transpose` acts on


@runtime_checkable
class Readable(Protocol):
    """What photos can be read of; `Path` is one. ``str()`` of it names it in messages."""

    def read_bytes(self) -> bytes:
        """Return the file's bytes.

        Raises:
            OSError: They can't be read.
        """


class _Quiet:
    """Leaves out warnings while any thread decodes.

    Pillow warns of odd files that it reads all the same; a photo is then usable. Python's own
    `catch_warnings` is one for all threads: two that overlap would leave it on for good.
    """

    def __init__(self) -> None:
        self._lock, self._depth = threading.Lock(), 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._caught.__exit__(None, None, None)


_quiet = _Quiet()

PhotoSource: TypeAlias = str | os.PathLike[str] | Readable | Image.Image


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read a photo of any common kind as upright RGB.

    Grey, palette, CMYK and 16-bit images are converted; transparency is laid on white; the
    EXIF rotation is applied; of an animation the first frame is taken.

    Args:
        path: An image file.

    Returns:
        An RGB image.

    Raises:
        UnreadableImageError: The file is missing or may not be read.
        BrokenImageError: It is corrupt, truncated, empty, or no image.
        ImageTooLargeError: It has more than `MAX_IMAGE_PIXELS`.
    """
    image = _open(path).image
    # What Pillow loads holds on to its file in some formats; a copy does not.
    return image.copy() if isinstance(image, ImageFile.ImageFile) else image


def photo_image(photo: PhotoSource) -> Image.Image:
    """Make upright RGB of a photo of any common kind.

    Args:
        photo: A path, something readable, or a Pillow image, which is converted as
            `open_image` converts files.

    Returns:
        An RGB image.

    Raises:
        UnreadableImageError, BrokenImageError, ImageTooLargeError: As `open_image` has them.
    """
    if isinstance(photo, Image.Image):
        return _to_rgb(photo, "given")
    return _open(photo).image


def photo_pixels(
    photo: PhotoSource, preprocess: Preprocess, *, decode: str = "exact"
) -> npt.NDArray[np.uint8]:
    """Make a photo of any common kind ready for the network.

    Args:
        photo: A path, something readable, or a Pillow image, which is converted as
            `open_image` converts files.
        preprocess: The steps.
        decode: ``exact``: the pixels that a device computes. ``quick``: a large JPEG is
            decoded small, to 2 pixels or more for each one, and only the part that the
            network sees is resized. ``draft``: as ``quick``, but 1 pixel is enough. The pixels
            of both differ from the exact ones; docs/data.md says how much.

    Returns:
        (H, W, 3) uint8 RGB at the network's size.

    Raises:
        UnreadableImageError, BrokenImageError, ImageTooLargeError: As `open_image` has them.
        ParameterError: There is no such way to decode.
    """
    check_decode(decode)
    if isinstance(photo, Image.Image):
        image = _to_rgb(photo, "given")
        opened = Opened(image, *image.size, 1)
    else:
        opened = _open(photo, preprocess, decode)
    return _fitted(opened, preprocess, _name(photo), decode)


def decode_photo(
    data: bytes, preprocess: Preprocess, *, name: str, decode: str = "exact"
) -> npt.NDArray[np.uint8]:
    """Make a photo ready for the network whose bytes were read already.

    Args:
        data: An image file's bytes.
        preprocess: The steps.
        name: The photo's name, for messages.
        decode: As in `photo_pixels`.

    Returns:
        (H, W, 3) uint8 RGB at the network's size: `photo_pixels` of the same bytes.

    Raises:
        BrokenImageError, ImageTooLargeError: As `open_image` has them.
        ParameterError: There is no such way to decode.
    """
    check_decode(decode)
    opened = _decode(BytesIO(data), name, preprocess, decode)
    return _fitted(opened, preprocess, name, decode)


def _open(
    photo: str | os.PathLike[str] | Readable,
    preprocess: Preprocess | None = None,
    decode: str = "exact",
) -> Opened:
    name = _name(photo)
    try:
        # A file is handed over open: of some formats Pillow reads only what it needs.
        file: IO[bytes] = (
            open(photo, "rb")  # noqa: SIM115 - closed below
            if isinstance(photo, (str, os.PathLike))
            else BytesIO(photo.read_bytes())
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableImageError(f"cannot read the image {name}: {reason}") from error
    with file:
        return _decode(file, name, preprocess, decode)


def _name(photo: PhotoSource) -> str:
    if isinstance(photo, Image.Image):
        return "given"
    return str(Path(photo)) if isinstance(photo, (str, os.PathLike)) else str(photo)


def _decode(file: IO[bytes], name: str, preprocess: Preprocess | None, decode: str) -> Opened:
    """Decode a photo as upright RGB; smaller than it is where the steps can do with that."""
    try:
        with _quiet:
            image = Image.open(file)
            pixels = image.width * image.height
            if pixels > MAX_IMAGE_PIXELS:
                raise ImageTooLargeError(_too_large(name, f"{pixels:,}"))
            if preprocess is not None and isinstance(image, JpegImageFile):
                sides = draft(image, preprocess, decode)
                begins = lead(image, *sides)
                return Opened(_to_rgb(image, name), *sides, begins)
            upright = _to_rgb(image, name)
            return Opened(upright, *upright.size, 1)
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(_too_large(name, "more")) from error
    except (ImageTooLargeError, BrokenImageError):
        raise
    except UnidentifiedImageError as error:  # its own text names a Python object
        raise BrokenImageError(
            f"the image {name} is corrupt, truncated or no image (of no known format); "
            "replace it or take it out"
        ) from error
    except Exception as error:  # Pillow's decoders raise a dozen kinds on damaged bytes
        raise BrokenImageError(
            f"the image {name} is corrupt, truncated or no image ({_first_line(error)}); "
            "replace it or take it out"
        ) from error


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Make upright RGB; an image that is so already is returned itself."""
    image.load()  # first: what a TIFF says of its orientation is used up by that
    if image.mode == "F":
        raise BrokenImageError(
            f"the image {name} holds floating-point pixels of no stated range; "
            "save it with 8 or 16 bits"
        )
    if image.mode.startswith("I"):  # 16 bits, which Pillow may hold in 32
        sixteen = np.asarray(image).astype(np.int64)
        image_exif = image.getexif()
        image = Image.fromarray((np.clip(sixteen, 0, 65535) // 257).astype(np.uint8))
        image.info["exif"] = image_exif.tobytes()
    if image.getexif().get(ORIENTATION, 1) in _TURNED:
        image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _fitted(
    opened: Opened, preprocess: Preprocess, name: str, decode: str
) -> npt.NDArray[np.uint8]:
    if decode == "exact" or not averages(preprocess):
        return prepare(opened.image, preprocess, name=name)
    size = (opened.width, opened.height)
    rows, columns = spans(opened.height, opened.width, preprocess)
    _check_strip(rows, columns, preprocess, name, size)
    return resized_part(opened, rows, columns, preprocess)


def prepare(
    image: Image.Image, preprocess: Preprocess, *, name: str = "given"
) -> npt.NDArray[np.uint8]:
    """Resize and cut a photo to the network's size, as timm's evaluation transform does.

    Args:
        image: An RGB image of any size.
        preprocess: The steps.
        name: The image's name, for messages.

    Returns:
        (H, W, 3) uint8 RGB at the network's size.

    Raises:
        ImageTooLargeError: The photo is a strip so thin that, resized, it has more than
            `MAX_IMAGE_PIXELS`.
    """
    p = preprocess
    rows, columns = spans(image.height, image.width, p)
    _check_strip(rows, columns, p, name, image.size)
    if p.interpolation == "linear":
        image = _linear(image, rows, columns)
    elif (rows.resized, columns.resized) != (image.height, image.width):
        image = image.resize((columns.resized, rows.resized), FILTERS[p.interpolation])
    top, left = rows.offset, columns.offset
    if rows.resized < p.height or columns.resized < p.width:
        canvas = Image.new("RGB", (p.width, p.height), fill_color(p))
        canvas.paste(image, (-left, -top))
        return np.asarray(canvas)
    box = (left, top, left + p.width, top + p.height)
    return np.asarray(image.crop(box) if image.size != (p.width, p.height) else image)


def _check_strip(
    rows: Span, columns: Span, preprocess: Preprocess, name: str, size: tuple[int, int]
) -> None:
    limit = max(MAX_IMAGE_PIXELS, preprocess.resize_height * preprocess.resize_width)
    if rows.resized * columns.resized > limit:
        raise ImageTooLargeError(
            f"the image {name} of {size[0]} x {size[1]} pixels is too thin: resized, "
            f"it would have {columns.resized:,} x {rows.resized:,} pixels; "
            "cut it or take it out"
        )


def _linear(image: Image.Image, rows: Span, columns: Span) -> Image.Image:
    left, top = columns.start, rows.start
    box = (left, top, left + columns.length, top + rows.length)
    pixels = np.asarray(image.crop(box) if box != (0, 0, *image.size) else image)
    upper, lower, row_share = linear_taps(rows.length, rows.resized)
    left_of, right_of, share = linear_taps(columns.length, columns.resized)
    share, row_share = share[:, np.newaxis], row_share[:, np.newaxis, np.newaxis]
    above, below = (
        (1 - share) * line[:, left_of] + share * line[:, right_of]
        for line in (pixels[upper], pixels[lower])
    )
    mixed = (1 - row_share) * above + row_share * below
    return Image.fromarray(np.floor(mixed + 0.5).astype(np.uint8))


def normalize(
    pixels: npt.NDArray[np.uint8], preprocess: Preprocess
) -> npt.NDArray[np.float32]:
    """Do on the host what a uint8 graph does itself.

    Args:
        pixels: (N, H, W, 3) uint8 RGB.
        preprocess: Mean and standard deviation.

    Returns:
        (N, 3, H, W) float32, ``(pixel / 255 - mean) / std``.
    """
    mean, std = (np.array(row, np.float32) for row in (preprocess.mean, preprocess.std))
    scaled = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)


def _too_large(name: str, pixels: str) -> str:
    return (
        f"the image {name} has {pixels} pixels, the limit is {MAX_IMAGE_PIXELS:,}; "
        "make it smaller or take it out"
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]

# SPDX-License-Identifier: Apache-2.0
"""From a photo to the network's pixels: the same code on the host and on the device."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.errors import (
    BrokenImageError,
    ImageTooLargeError,
    UnreadableImageError,
)

__all__ = ["MAX_IMAGE_PIXELS", "normalize", "open_image", "photo_pixels", "prepare"]

# 179 megapixels, where Pillow itself gives up: more is a decompression bomb, not a photo.
MAX_IMAGE_PIXELS = 178_956_970

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


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
    name = Path(path)
    try:
        file = open(name, "rb")  # noqa: SIM115 - closed below, whatever Pillow does
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableImageError(f"cannot read the image {name}: {reason}") from error
    with file:
        try:
            with warnings.catch_warnings():
                # Pillow warns of odd files that it reads all the same; a photo is then usable.
                warnings.simplefilter("ignore")
                return _decode(Image.open(file), name)
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


def _decode(image: Image.Image, name: Path) -> Image.Image:
    pixels = image.width * image.height
    if pixels > MAX_IMAGE_PIXELS:
        raise ImageTooLargeError(_too_large(name, f"{pixels:,}"))
    image.load()
    return _to_rgb(image, str(name))


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
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
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return upright.convert("RGB")


def photo_pixels(
    photo: str | os.PathLike[str] | Image.Image, preprocess: Preprocess
) -> npt.NDArray[np.uint8]:
    """Make a photo of any common kind ready for the network.

    Args:
        photo: A path, or a Pillow image, which is converted as `open_image` converts files.
        preprocess: The steps.

    Returns:
        (H, W, 3) uint8 RGB at the network's size.

    Raises:
        UnreadableImageError, BrokenImageError, ImageTooLargeError: As `open_image` has them.
    """
    if isinstance(photo, Image.Image):
        return prepare(_to_rgb(photo, "given"), preprocess)
    return prepare(open_image(photo), preprocess, name=os.fspath(photo))


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
    size = _resized(image.height, image.width, p)
    if size[0] * size[1] > max(MAX_IMAGE_PIXELS, p.resize_height * p.resize_width):
        raise ImageTooLargeError(
            f"the image {name} of {image.width} x {image.height} pixels is too thin: resized, "
            f"it would have {size[1]:,} x {size[0]:,} pixels; cut it or take it out"
        )
    if size != (image.height, image.width):
        image = image.resize((size[1], size[0]), _FILTERS[p.interpolation])
    fill = tuple(round(255 * value) for value in p.mean) if p.resize == "pad" else (0, 0, 0)
    pad_left, pad_top = max(0, p.width - size[1]) // 2, max(0, p.height - size[0]) // 2
    if p.width > size[1] or p.height > size[0]:
        canvas = Image.new("RGB", (max(p.width, size[1]), max(p.height, size[0])), fill)
        canvas.paste(image, (pad_left, pad_top))
        image = canvas
    left, top = round((image.width - p.width) / 2), round((image.height - p.height) / 2)
    box = (left, top, left + p.width, top + p.height)
    return np.asarray(image.crop(box) if image.size != (p.width, p.height) else image)


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


def _resized(height: int, width: int, p: Preprocess) -> tuple[int, int]:
    """Height and width after the resize; the roundings are those of timm 1.0 / torchvision."""
    box_height, box_width = p.resize_height, p.resize_width
    if p.resize == "stretch":
        return box_height, box_width
    if p.resize == "crop" and box_height == box_width:
        short, long = sorted((height, width))
        longer = int(box_height * long / short)
        return (box_height, longer) if height <= width else (longer, box_height)
    ratios = height / box_height, width / box_width
    ratio = min(ratios) if p.resize == "crop" else max(ratios)
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def _too_large(name: Path, pixels: str) -> str:
    return (
        f"the image {name} has {pixels} pixels, the limit is {MAX_IMAGE_PIXELS:,}; "
        "make it smaller or take it out"
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]

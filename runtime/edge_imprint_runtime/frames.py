# SPDX-License-Identifier: Apache-2.0
"""Camera frames in numpy: to RGB and back; the meaning of what a graph does itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_imprint_runtime.contract import Frame
from edge_imprint_runtime.errors import InputError

__all__ = ["fit", "frame_shape", "frame_to_rgb", "rgb_coefficients", "rgb_to_frame"]

_RED_BLUE = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def frame_shape(frame: Frame) -> tuple[int, ...]:
    """Return the shape of one frame, without the batch.

    Args:
        frame: What the camera delivers.

    Returns:
        (H, W, 3) for ``rgb`` and ``bgr``, (0, 0, 3) where any size will do; (H * 3 / 2, W) for
        ``nv12``; (H, W, 2) for ``yuyv``.
    """
    if frame.format == "nv12":
        return frame.height * 3 // 2, frame.width
    return frame.height, frame.width, 2 if frame.format == "yuyv" else 3


def rgb_coefficients(
    frame: Frame,
) -> tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return what makes RGB of Y, U and V, by ITU-R BT.601 or BT.709.

    ::

        rgb = gain * Y + chroma (U, V) + offset

    Args:
        frame: Of format ``nv12`` or ``yuyv``.

    Returns:
        The gain, chroma (3, 2) and offset (3,), all in units of 0..255.
    """
    luma_range, chroma_range, black = _levels(frame)
    red, blue = _RED_BLUE[frame.matrix]
    green = 1 - red - blue
    chroma = np.zeros((3, 2))
    chroma[2, 0] = 2 * (1 - blue)
    chroma[0, 1] = 2 * (1 - red)
    chroma[1] = -(blue * chroma[2, 0]) / green, -(red * chroma[0, 1]) / green
    chroma *= 255 / chroma_range
    gain = 255 / luma_range
    return gain, chroma, -gain * black - 128 * chroma.sum(axis=1)


def frame_to_rgb(frames: npt.NDArray[np.uint8], frame: Frame) -> npt.NDArray[np.uint8]:
    """Turn camera frames into RGB.

    A colour's Y, U and V become ``floor(x + 0.5)``, cut to 0..255, of what `rgb_coefficients`
    gives; each U and V serves all the pixels that it was sampled from.

    Args:
        frames: (N, `*frame_shape(frame)`) uint8.
        frame: What they are.

    Returns:
        (N, H, W, 3) uint8 RGB.

    Raises:
        InputError: The array is not of this shape and type.
    """
    _check(frames, frame_shape(frame), f"a camera frame of format {frame.format}")
    if frame.format == "rgb":
        return frames
    if frame.format == "bgr":
        return np.ascontiguousarray(frames[..., ::-1])
    if frame.format == "nv12":
        luma = frames[:, : frame.height]
        pairs = frames[:, frame.height :].reshape(len(frames), -1, frame.width // 2, 2)
        chroma = pairs.repeat(2, axis=1).repeat(2, axis=2)
    else:
        luma = frames[..., 0]
        chroma = frames[..., 1].reshape(len(frames), frame.height, -1, 2).repeat(2, axis=2)
    gain, matrix, offset = rgb_coefficients(frame)
    return _to_bytes(gain * luma[..., np.newaxis] + chroma @ matrix.T + offset)


def rgb_to_frame(rgb: npt.NDArray[np.uint8], frame: Frame) -> npt.NDArray[np.uint8]:
    """Turn RGB into camera frames, as a camera would: photos for what takes frames.

    U and V are the mean of the pixels that share them.

    Args:
        rgb: (N, H, W, 3) uint8, H and W those of the frame.
        frame: What to make.

    Returns:
        (N, `*frame_shape(frame)`) uint8.

    Raises:
        InputError: The array is not of this shape and type.
    """
    _check(rgb, (frame.height, frame.width, 3), "an RGB picture for a camera frame")
    if frame.format == "rgb":
        return rgb
    if frame.format == "bgr":
        return np.ascontiguousarray(rgb[..., ::-1])
    luma_range, chroma_range, black = _levels(frame)
    red, blue = _RED_BLUE[frame.matrix]
    luma = rgb @ np.array([red, 1 - red - blue, blue])
    differences = rgb[..., [2, 0]] - luma[..., np.newaxis]
    chroma = differences / (2 * (1 - np.array([blue, red]))) * (chroma_range / 255) + 128
    luma = _to_bytes(luma * (luma_range / 255) + black)
    count, height, width = luma.shape
    if frame.format == "yuyv":
        pairs = _to_bytes(chroma.reshape(count, height, width // 2, 2, 2).mean(axis=3))
        return np.stack([luma, pairs.reshape(luma.shape)], axis=-1)
    blocks = chroma.reshape(count, height // 2, 2, width // 2, 2, 2).mean(axis=(2, 4))
    pairs = _to_bytes(blocks).reshape(count, height // 2, width)
    return np.concatenate([luma, pairs], axis=1)


def fit(image: Image.Image, frame: Frame) -> Image.Image:
    """Make a photo as large as a frame: resized to cover it, cut about the centre.

    For trials with photos in place of a camera; imprinting does not use it.

    Args:
        image: An RGB image of any size.
        frame: What to fit; of any size: the image stays as it is.

    Returns:
        An RGB image of the frame's size.
    """
    if frame.any_size or image.size == (frame.width, frame.height):
        return image
    ratio = min(image.width / frame.width, image.height / frame.height)
    left = (image.width - ratio * frame.width) / 2
    top = (image.height - ratio * frame.height) / 2
    box = (left, top, left + ratio * frame.width, top + ratio * frame.height)
    return image.resize((frame.width, frame.height), Image.Resampling.BICUBIC, box)


def _levels(frame: Frame) -> tuple[int, int, int]:
    """Return the ranges of Y and of U and V, and the Y of black."""
    return (219, 224, 16) if frame.levels == "limited" else (255, 255, 0)


def _to_bytes(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def _check(array: npt.NDArray[Any], shape: tuple[int, ...], what: str) -> None:
    fits = all(want in (0, side) for want, side in zip(shape, array.shape[1:], strict=False))
    if array.dtype != np.uint8 or array.ndim != len(shape) + 1 or not fits:
        text = ", ".join(str(side or "any") for side in shape)
        raise InputError(
            f"{what} must be uint8 of shape (N, {text}), got {array.dtype} {array.shape}"
        )

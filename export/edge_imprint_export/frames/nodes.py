# SPDX-License-Identifier: Apache-2.0
"""Nodes from a camera's frame to the network's pixels: colours, crop and resize."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from edge_imprint_export.frames.resample import Pass, resampling
from edge_imprint_export.nodes import Nodes
from edge_imprint_runtime.contract import Frame, Preprocess
from edge_imprint_runtime.errors import UnsupportedOptionError
from edge_imprint_runtime.frames import rgb_coefficients
from edge_imprint_runtime.geometry import fill_color, spans, vertical_first

__all__ = ["add_frame", "check_frame"]


def check_frame(frame: Frame, preprocess: Preprocess) -> None:
    """Check that a graph can make a network's pixels of such frames.

    Args:
        frame: What the camera delivers.
        preprocess: From a photo to the network's pixels.

    Raises:
        UnsupportedOptionError: Frames of any size are to be resized otherwise than by
            ``linear``, or may have to be padded.
    """
    p = preprocess
    if not frame.any_size:
        return
    if p.interpolation != "linear":
        raise UnsupportedOptionError(
            f"frames of any size can be resized by 'linear' only, not by {p.interpolation!r}; "
            "build the head with --interpolation linear, or name the frame's size"
        )
    if p.resize == "pad" or p.height > p.resize_height or p.width > p.resize_width:
        raise UnsupportedOptionError(
            "frames of any size can't be padded, and this head's preprocessing may pad; "
            "name the frame's size, or build the head with a box that covers the network's "
            "input"
        )


def add_frame(
    nodes: Nodes, images: str, frame: Frame, preprocess: Preprocess, output: str
) -> str:
    """Add the way from a camera's frame to the pixels that `images.prepare` makes of it.

    ::

        images uint8 -> Cast -> cut -> RGB (N,3,rows,columns) -> columns x weights, round
             -> rows x weights, round -> pad -> output (N,3,H,W) float32, whole, 0..255

    Frames of a given size are resized as Pillow does it, antialiased: two products with
    constant weights, rounded to 8 bits after each; under ``linear`` once, at the end. Frames
    of any size go through one Resize. The Cast comes first because TensorRT takes uint8 at the
    door only; TensorRT has neither cubic nor antialiased Resize.

    Args:
        nodes: What to add to.
        images: The input, (N, `*frame_shape(frame)`) uint8.
        frame: What it holds.
        preprocess: From a photo to the network's pixels; mean and std are not applied.
        output: The name of what comes out.

    Returns:
        That name.

    Raises:
        UnsupportedOptionError: As `check_frame` has it.
    """
    check_frame(frame, preprocess)
    x = nodes.add("Cast", [images], "frame/float", to=TensorProto.FLOAT)
    passes = None if frame.any_size else _passes(frame, preprocess)
    if passes is None:
        x = _resize_any(nodes, x, preprocess)
    else:
        x = _resize_given(nodes, x, frame, preprocess, *passes)
    if frame.format == "bgr":
        swap = nodes.constant("frame/bgr", [2, 1, 0], np.int64)
        x = nodes.add("Gather", [x, swap], "frame/rgb", axis=1)
    if passes is not None:
        _pad(nodes, x, preprocess, *passes)
    nodes.nodes[-1].output[0] = output
    return output


def _passes(frame: Frame, p: Preprocess) -> tuple[Pass, Pass]:
    """Lay out rows and columns; what shares U and V is not split."""
    rows, columns = spans(frame.height, frame.width, p)
    row_step, column_step = {"nv12": (2, 2), "yuyv": (1, 2)}.get(frame.format, (1, 1))
    return (
        resampling(rows, p.height, p.interpolation, step=row_step),
        resampling(columns, p.width, p.interpolation, step=column_step),
    )


def _resize_given(
    nodes: Nodes, x: str, frame: Frame, p: Preprocess, rows: Pass, columns: Pass
) -> str:
    """Add what makes (N, 3, rows, columns) of a frame of known size, padding apart."""
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if frame.is_yuv:
        x = _yuv_to_rgb(nodes, x, frame, rows, columns)
        part = _parts_of_pairs(nodes, x, height, width)
    else:
        part = _parts_of_frame(nodes, x, frame, rows, columns)
    once = p.interpolation == "linear"  # Pillow's filters round after each pass
    if vertical_first(*spans(frame.height, frame.width, p)):
        x = _rows(nodes, part("frame/picture", 0, width), rows, once=once)
        if frame.is_yuv:
            part = _parts_of_pairs(nodes, x, p.height - rows.before - rows.after, width)
        else:
            part = _parts_of_picture(nodes, x, width)
        x = _columns(nodes, part, columns, pairs=frame.is_yuv, once=once)
    else:
        x = _columns(nodes, part, columns, pairs=frame.is_yuv, once=once)
        x = _rows(nodes, x, rows, once=once)
    if once and (rows.rounds or columns.rounds):
        x = _round(nodes, x, "frame/resized", overshoots=False)
    return x


# Gives some columns (N, 3, rows, length) of a picture: what names the nodes, the first column
# within what is cut out of the frame, and their number.
_Part = Callable[[str, int, int], str]


def _parts_of_frame(nodes: Nodes, x: str, frame: Frame, rows: Pass, columns: Pass) -> _Part:
    """Cut (N, height, width, 3) only once: each cut copies."""

    def part(name: str, start: int, length: int) -> str:
        begin = [rows.start, columns.start + start]
        end = [rows.stop, columns.start + start + length]
        cut = x
        if begin != [0, 0] or end != [frame.height, frame.width]:
            cut = _cut(nodes, x, f"{name}/cut", [1, 2], begin, end)
        return nodes.add("Transpose", [cut], f"{name}/nchw", perm=[0, 3, 1, 2])

    return part


def _parts_of_picture(nodes: Nodes, x: str, width: int) -> _Part:
    """Cut (N, 3, rows, width)."""

    def part(name: str, start: int, length: int) -> str:
        if length == width:
            return x
        return _cut(nodes, x, f"{name}/cut", [3], [start], [start + length])

    return part


def _parts_of_pairs(nodes: Nodes, x: str, height: int, width: int) -> _Part:
    """Cut (N, 3, height, width) of which first the even columns come, then the odd ones."""

    def part(name: str, start: int, length: int) -> str:
        if length == width:
            return x
        pairs = _reshape(nodes, x, f"{name}/pairs", [0, 3, height, 2, width // 2])
        half = [start // 2], [(start + length) // 2]
        cut = _cut(nodes, pairs, f"{name}/cut", [4], *half)
        return _reshape(nodes, cut, f"{name}/line", [0, 3, height, length])

    return part


def _columns(nodes: Nodes, part: _Part, way: Pass, *, pairs: bool, once: bool) -> str:
    """Add (N, 3, rows, columns) -> (N, 3, rows, width)."""
    name, made = "frame/columns", []
    if not way.blocks:
        x = part(name, 0, way.stop - way.start)
        return _unpaired(nodes, x, name, way.stop - way.start) if pairs else x
    for i, block in enumerate(way.blocks):
        x = part(f"{name}{i}", block.start - way.start, len(block.weights))
        weights = block.weights
        if pairs:
            weights = np.concatenate([weights[::2], weights[1::2]])
        constant = nodes.constant(f"{name}{i}/weights", weights, np.float32)
        made.append(nodes.add("MatMul", [x, constant], f"{name}{i}"))
    x = _joined(nodes, made, name, 3)
    return _round(nodes, x, name, overshoots=way.overshoots) if way.rounds and not once else x


def _unpaired(nodes: Nodes, x: str, name: str, width: int) -> str:
    x = _reshape(nodes, x, f"{name}/pairs", [0, 3, -1, 2, width // 2])
    x = nodes.add("Transpose", [x], f"{name}/unpaired", perm=[0, 1, 2, 4, 3])
    return _reshape(nodes, x, name, [0, 3, -1, width])


def _rows(nodes: Nodes, x: str, way: Pass, *, once: bool) -> str:
    """Add (N, 3, rows, w) -> (N, 3, height, w)."""
    name, made = "frame/rows", []
    if not way.blocks:
        return x
    for i, block in enumerate(way.blocks):
        start, stop = block.start - way.start, block.start - way.start + len(block.weights)
        part = x
        if stop - start < way.stop - way.start:
            part = _cut(nodes, x, f"{name}{i}/cut", [2], [start], [stop])
        weights = nodes.constant(f"{name}{i}/weights", block.weights.T, np.float32)
        made.append(nodes.add("MatMul", [weights, part], f"{name}{i}"))
    x = _joined(nodes, made, name, 2)
    return _round(nodes, x, name, overshoots=way.overshoots) if way.rounds and not once else x


def _yuv_to_rgb(nodes: Nodes, x: str, frame: Frame, rows: Pass, columns: Pass) -> str:
    """Add what makes RGB of Y, U and V: ``floor(gain Y + chroma (U, V) + offset + 0.5)``.

    Columns come out in pairs, first all even ones and then all odd ones: a pair shares its U
    and V, which so need no repeating, and the weights of the columns are laid out likewise.
    """
    height, half = rows.stop - rows.start, (columns.stop - columns.start) // 2
    if frame.format == "nv12":
        luma, chroma = _nv12_planes(nodes, x, frame, rows, columns)
        wide = [0, 3, height // 2, 1, 1, half]
    else:
        luma, chroma = _yuyv_planes(nodes, x, rows, columns)
        wide = [0, 3, height, 1, half]
    gain, matrix, offset = rgb_coefficients(frame)
    if gain != 1:
        times = nodes.constant("frame/gain", gain, np.float32)
        luma = nodes.add("Mul", [luma, times], "frame/luma")
    # A product and not a Conv, for which ONNX Runtime would lay out all pixels anew, twice.
    weights = nodes.constant("frame/chroma/weights", matrix, np.float32)
    bias = nodes.constant("frame/chroma/bias", offset[:, np.newaxis] + 0.5, np.float32)
    chroma = nodes.add("MatMul", [weights, chroma], "frame/chroma/product")
    chroma = nodes.add("Add", [chroma, bias], "frame/chroma")
    chroma = _reshape(nodes, chroma, "frame/chroma/wide", wide)
    x = nodes.add("Add", [luma, chroma], "frame/color")
    x = nodes.add("Floor", [x], "frame/color/whole")
    x = nodes.add("Clip", [x, *_bounds(nodes)], "frame/color/bytes")
    return _reshape(nodes, x, "frame/color/nchw", [0, 3, height, 2 * half])


def _nv12_planes(
    nodes: Nodes, x: str, frame: Frame, rows: Pass, columns: Pass
) -> tuple[str, str]:
    """Add Y (N, 1, rows/2, 2, 2, columns/2) and UV (N, 2, rows/2 * columns/2)."""
    height, half = (rows.stop - rows.start) // 2, (columns.stop - columns.start) // 2
    left, right = columns.start, columns.stop
    luma = _cut(nodes, x, "frame/y", [1, 2], [rows.start, left], [rows.stop, right])
    luma = _reshape(nodes, luma, "frame/y/pairs", [0, 1, height, 2, half, 2])
    luma = nodes.add("Transpose", [luma], "frame/y/paired", perm=[0, 1, 2, 3, 5, 4])
    top, bottom = (frame.height + at // 2 for at in (rows.start, rows.stop))
    chroma = _cut(nodes, x, "frame/uv", [1, 2], [top, left], [bottom, right])
    chroma = _reshape(nodes, chroma, "frame/uv/pairs", [0, height * half, 2])
    return luma, nodes.add("Transpose", [chroma], "frame/uv/planes", perm=[0, 2, 1])


def _yuyv_planes(nodes: Nodes, x: str, rows: Pass, columns: Pass) -> tuple[str, str]:
    """Add Y (N, 1, rows, 2, columns/2) and UV (N, 2, rows * columns/2)."""
    height, half = rows.stop - rows.start, (columns.stop - columns.start) // 2
    left, right = columns.start, columns.stop
    x = _cut(nodes, x, "frame/cut", [1, 2], [rows.start, left], [rows.stop, right])
    x = nodes.add("Transpose", [x], "frame/planes", perm=[0, 3, 1, 2])
    luma = _cut(nodes, x, "frame/y", [1], [0], [1])
    luma = _reshape(nodes, luma, "frame/y/pairs", [0, 1, height, half, 2])
    luma = nodes.add("Transpose", [luma], "frame/y/paired", perm=[0, 1, 2, 4, 3])
    chroma = _cut(nodes, x, "frame/uv", [1], [1], [2])
    chroma = _reshape(nodes, chroma, "frame/uv/pairs", [0, height * half, 2])
    return luma, nodes.add("Transpose", [chroma], "frame/uv/planes", perm=[0, 2, 1])


def _resize_any(nodes: Nodes, x: str, p: Preprocess) -> str:
    """Add what `geometry.spans` says of ``linear``, in whole numbers of the frame's shape."""
    shape = nodes.add("Shape", [x], "frame/shape")
    size, box = np.array([p.height, p.width]), np.array([p.resize_height, p.resize_width])
    sides = _cut(nodes, shape, "frame/sides", [0], [1], [3])
    if p.resize == "crop" or (size != box).any():
        region = _share(nodes, sides, "frame/region", size, box)
        if p.resize == "crop":
            flip = nodes.constant("frame/flip", [1, 0], np.int64)
            flipped = nodes.add("Gather", [sides, flip], "frame/flipped", axis=0)
            other = _share(nodes, flipped, "frame/other", size, box[::-1])
            region = _lesser(nodes, region, other, "frame/cut")
        margin = nodes.add("Sub", [sides, region], "frame/margin")
        two = nodes.constant("frame/two", [2], np.int64)
        start = nodes.add("Div", [margin, two], "frame/start")
        stop = nodes.add("Add", [start, region], "frame/stop")
        axes = nodes.constant("frame/axes", [1, 2], np.int64)
        x = nodes.add("Slice", [x, start, stop, axes], "frame/pixels")
    x = nodes.add("Transpose", [x], "frame/nchw", perm=[0, 3, 1, 2])
    count = _cut(nodes, shape, "frame/count", [0], [0], [1])
    rest = nodes.constant("frame/size", [3, p.height, p.width], np.int64)
    sizes = nodes.add("Concat", [count, rest], "frame/sizes", axis=0)
    # Up to opset 12 what is not given has to be given empty.
    none = nodes.constant("frame/none", [], np.float32) if nodes.opset < 13 else ""
    x = nodes.add(
        "Resize",
        [x, none, none, sizes],
        "frame/linear",
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    return _round(nodes, x, "frame/resized", overshoots=False)


def _share(
    nodes: Nodes,
    sides: str,
    name: str,
    size: npt.NDArray[np.int64],
    box: npt.NDArray[np.int64],
) -> str:
    """Add ``ceil(sides * size / box)`` in whole numbers."""
    times = nodes.constant(f"{name}/times", size, np.int64)
    more = nodes.constant(f"{name}/more", box - 1, np.int64)
    by = nodes.constant(f"{name}/by", box, np.int64)
    x = nodes.add("Mul", [sides, times], f"{name}/product")
    x = nodes.add("Add", [x, more], f"{name}/sum")
    return nodes.add("Div", [x, by], name)


def _lesser(nodes: Nodes, x: str, y: str, output: str) -> str:
    if nodes.opset >= 12:
        return nodes.add("Min", [x, y], output)
    return nodes.add("Where", [nodes.add("Less", [x, y], f"{output}/less"), x, y], output)


def _pad(nodes: Nodes, x: str, p: Preprocess, rows: Pass, columns: Pass) -> str:
    """Add the padding in its colour; Pad itself knows one value for all channels."""
    around = [0, 0, rows.before, columns.before, 0, 0, rows.after, columns.after]
    if not any(around):
        return x
    fill = fill_color(p)
    pads = nodes.constant("frame/pads", around, np.int64)
    if not any(fill):
        return nodes.add("Pad", [x, pads], "frame/padded")
    color = nodes.constant("frame/fill", np.reshape(fill, (1, 3, 1, 1)), np.float32)
    x = nodes.add("Sub", [x, color], "frame/less_fill")
    x = nodes.add("Pad", [x, pads], "frame/padded")
    return nodes.add("Add", [x, color], "frame/filled")


def _round(nodes: Nodes, x: str, name: str, *, overshoots: bool) -> str:
    """Add ``floor(x + 0.5)``, cut to 0..255 where a filter can lead out of it."""
    half = _once(nodes, "frame/half", 0.5)
    x = nodes.add("Add", [x, half], f"{name}/half")
    x = nodes.add("Floor", [x], f"{name}/whole")
    return nodes.add("Clip", [x, *_bounds(nodes)], f"{name}/bytes") if overshoots else x


def _bounds(nodes: Nodes) -> tuple[str, str]:
    return _once(nodes, "frame/black", 0), _once(nodes, "frame/white", 255)


def _once(nodes: Nodes, name: str, value: float) -> str:
    if any(tensor.name == name for tensor in nodes.constants):
        return name
    return nodes.constant(name, value, np.float32)


def _cut(
    nodes: Nodes,
    x: str,
    name: str,
    axes: Sequence[int],
    start: Sequence[int],
    stop: Sequence[int],
) -> str:
    parts = zip(("start", "stop", "axes"), (start, stop, axes), strict=True)
    limits = [nodes.constant(f"{name}/{part}", values, np.int64) for part, values in parts]
    return nodes.add("Slice", [x, *limits], name)


def _reshape(nodes: Nodes, x: str, name: str, shape: Sequence[int]) -> str:
    return nodes.add("Reshape", [x, nodes.constant(f"{name}/shape", shape, np.int64)], name)


def _joined(nodes: Nodes, parts: list[str], name: str, axis: int) -> str:
    return nodes.add("Concat", parts, name, axis=axis) if len(parts) > 1 else parts[0]

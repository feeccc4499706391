# SPDX-License-Identifier: Apache-2.0
"""Which shapes an engine is built for: the optimisation profile."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from edge_imprint_runtime.contract import Contract
from edge_imprint_runtime.contract.spec import MAX_SIDE_PIXELS
from edge_imprint_runtime.errors import ModelFileError, ParameterError

__all__ = ["DEFAULT_BATCH", "MAX_BATCH", "make_profile"]

Shape: TypeAlias = tuple[int, ...]
Range: TypeAlias = tuple[Shape, Shape, Shape]
Declared: TypeAlias = tuple[int | str | None, ...]

DEFAULT_BATCH = (1, 1, 8)
MAX_BATCH = 4096
_SHAPE = r"[1-9][0-9]{0,8}(?:x[1-9][0-9]{0,8})*"
_ENTRY = re.compile(rf"([^\s:]+):({_SHAPE}),({_SHAPE}),({_SHAPE})")


def make_profile(
    inputs: Mapping[str, tuple[Declared, str]],
    contract: Contract | None,
    *,
    where: str,
    batch: tuple[int, int, int] | None = None,
    frame_size: tuple[int, int] | None = None,
) -> dict[str, Range]:
    """Say which shapes each input may have.

    Args:
        inputs: Declared shape and type by name, the images first.
        contract: The model's; its note ``profile`` says how a teachable model may grow. None
            of a backbone alone.
        where: The model's name, for messages.
        batch: Fewest, usual and most images; None: `DEFAULT_BATCH`, or what the file fixes.
        frame_size: Height and width of a frame, pixels, where the model takes any.

    Returns:
        Least, usual and greatest shape by input; equal where nothing varies.

    Raises:
        ParameterError: The batch or the frame size is out of range, missing or of no use.
        ModelFileError: The inputs and the note contradict each other, or one has no range.
    """
    names = list(inputs)
    if not names or not inputs[names[0]][0]:
        raise ModelFileError(f"{where} has no input of images; export it again")
    images = inputs[names[0]][0]
    count = _batch(images[0], batch, where)
    sides = _sides(images, contract, frame_size, where)
    made = {names[0]: _ranged([(n, *sides) for n in count])}
    noted = _noted(contract, where)
    for name in names[1:]:
        declared = inputs[name][0]
        if all(isinstance(side, int) for side in declared):
            fixed = tuple(side for side in declared if isinstance(side, int))
            made[name] = (fixed, fixed, fixed)
            continue
        if name not in noted or not _fits(declared, noted[name]):
            raise ModelFileError(
                f"{where} does not say which shapes its input {name!r} may have (its note "
                "'profile'); export it again"
            )
        made[name] = noted[name]
    return made


def _batch(
    side: int | str | None, batch: tuple[int, int, int] | None, where: str
) -> tuple[int, int, int]:
    if isinstance(side, int):
        if batch is not None and batch != (side, side, side):
            raise ParameterError(
                f"{where} takes {side} images at a time, got batch {_text(batch)}; "
                "leave it out"
            )
        return side, side, side
    found = DEFAULT_BATCH if batch is None else batch
    whole = len(found) == 3 and all(type(n) is int for n in found)
    if not whole or not 1 <= found[0] <= found[1] <= found[2] <= MAX_BATCH:
        raise ParameterError(
            "batch must be the fewest, usual and most images, such as 1,1,8, in this order "
            f"and from 1 to {MAX_BATCH}, got {_text(found)}"
        )
    return found


def _sides(
    images: Declared,
    contract: Contract | None,
    frame_size: tuple[int, int] | None,
    where: str,
) -> tuple[int, ...]:
    """Return the sides of one image."""
    if not _any_size(images, contract):
        if frame_size is not None:
            raise ParameterError(
                f"{where} takes images of one size, so that a frame size says nothing; "
                "leave it out"
            )
        sides = tuple(side for side in images[1:] if isinstance(side, int) and side > 0)
        if len(sides) != len(images) - 1:
            raise ModelFileError(f"{where} has images of an unknown size; export it again")
        return sides
    if frame_size is None:
        raise ParameterError(
            f"{where} takes frames of any size, and an engine is built for one; give it as "
            "--frame-size WIDTHxHEIGHT"
        )
    if len(frame_size) != 2 or any(
        type(side) is not int or not 1 <= side <= MAX_SIDE_PIXELS for side in frame_size
    ):
        raise ParameterError(
            f"a frame's sides must be whole numbers from 1 to {MAX_SIDE_PIXELS} pixels, got "
            f"{_text(frame_size)}"
        )
    return (*frame_size, 3)


def _any_size(images: Declared, contract: Contract | None) -> bool:
    """Tell whether frames of any size are taken."""
    if contract is None:  # a backbone alone declares it
        return images[3:] == (3,) and not any(isinstance(side, int) for side in images[1:3])
    frame = None if contract.graph is None else contract.graph.frame
    return frame is not None and frame.any_size


def _noted(contract: Contract | None, where: str) -> dict[str, Range]:
    """Read the note ``profile``: ``name:MIN,OPT,MAX``, a blank between inputs."""
    made = dict[str, Range]()
    notes = {} if contract is None else dict(contract.notes)
    for entry in notes.get("profile", "").split():
        match = _ENTRY.fullmatch(entry)
        shapes = [] if match is None else [_sizes(text) for text in match.groups()[1:]]
        if match is None or not _ascending(shapes):
            raise ModelFileError(
                f"{where}: the note 'profile' must read 'NAME:MIN,OPT,MAX', got "
                f"{entry[:80]!r}; export it again"
            )
        made[match[1]] = _ranged(shapes)
    return made


def _fits(declared: Declared, shapes: Range) -> bool:
    return all(
        len(shape) == len(declared)
        and all(
            side == size or not isinstance(side, int)
            for side, size in zip(declared, shape, strict=True)
        )
        for shape in shapes
    )


def _ascending(shapes: list[Shape]) -> bool:
    least, usual, most = shapes
    return len(least) == len(usual) == len(most) and all(
        low <= middle <= high for low, middle, high in zip(least, usual, most, strict=True)
    )


def _ranged(shapes: list[Shape]) -> Range:
    least, usual, most = shapes
    return least, usual, most


def _sizes(text: str) -> Shape:
    return tuple(int(side) for side in text.split("x"))


def _text(values: object) -> str:
    return ",".join(map(str, values)) if isinstance(values, (tuple, list)) else repr(values)

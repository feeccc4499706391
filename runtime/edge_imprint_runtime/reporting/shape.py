# SPDX-License-Identifier: Apache-2.0
"""Shapes of JSON values: small checks that are put together, and say where one fails.

They accept what the same words of JSON Schema accept: a boolean is no number, ``1.0`` is an
integer, a length counts code points. A device has no package for JSON Schema.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "Shape",
    "ShapeError",
    "anything",
    "boolean",
    "choice",
    "integer",
    "integers",
    "listing",
    "mapping",
    "maybe",
    "number",
    "record",
    "scalar",
    "text",
]

MAX_INTEGER = 2**63 - 1
MAX_TEXT = 20_000
MAX_DEPTH = 8  # of a value whose form nobody states

Shape = Callable[[Any, str], None]


class ShapeError(Exception):
    """A value has not its shape; raised and caught inside this package.

    Attributes:
        where: The place, such as ``series[0].p50_ms``.
        why: What is wrong there, to be read after the place.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where} {why}")
        self.where, self.why = where, why


def text(longest: int = MAX_TEXT, *, pattern: str | None = None) -> Shape:
    """Take a string of at most so many characters, all of it as the pattern says."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str):
            raise ShapeError(where, f"must be text, and is {_show(value)}")
        if len(value) > longest:
            raise ShapeError(where, f"is longer than {longest} characters")
        if pattern is not None and not re.fullmatch(pattern, value):
            raise ShapeError(where, f"must be of the form {pattern}, and is {_show(value)}")

    return check


def number(low: float = -math.inf, high: float = math.inf) -> Shape:
    """Take a finite number within bounds, these included."""
    bounds = _bounds(low, high)

    def check(value: Any, where: str) -> None:
        if not _is_number(value) or not math.isfinite(value):
            raise ShapeError(where, f"must be a number{bounds}, and is {_show(value)}")
        if not low <= value <= high:
            raise ShapeError(where, f"must be a number{bounds}, and is {_show(value)}")

    return check


def integer(low: int = -MAX_INTEGER, high: int = MAX_INTEGER) -> Shape:
    """Take a whole number within bounds, these included."""
    bounds = _bounds(low, high if high < MAX_INTEGER else math.inf)

    def check(value: Any, where: str) -> None:
        if not _is_whole(value) or not low <= value <= high:
            raise ShapeError(where, f"must be an integer{bounds}, and is {_show(value)}")

    return check


def boolean(value: Any, where: str) -> None:
    """Take true or false."""
    if not isinstance(value, bool):
        raise ShapeError(where, f"must be true or false, and is {_show(value)}")


def choice(*values: str) -> Shape:
    """Take one of these texts."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or value not in values:
            allowed = ", ".join(values)
            raise ShapeError(where, f"must be one of {allowed}, and is {_show(value)}")

    return check


def maybe(shape: Shape) -> Shape:
    """Take null too."""

    def check(value: Any, where: str) -> None:
        if value is not None:
            shape(value, where)

    return check


def listing(shape: Shape, fewest: int = 0, most: int = 1_000_000) -> Shape:
    """Take a list of such values."""

    def check(value: Any, where: str) -> None:
        _check_list(value, where, fewest, most)
        for number_of, item in enumerate(value):
            shape(item, f"{where}[{number_of}]")

    return check


def integers(low: int, *, fewest: int = 0, most: int) -> Shape:
    """Take a long list of whole numbers, quickly."""
    one = integer(low)

    def check(value: Any, where: str) -> None:
        _check_list(value, where, fewest, most)
        if set(map(type, value)) <= {int} and (
            not value or (min(value) >= low and max(value) <= MAX_INTEGER)
        ):
            return
        for number_of, item in enumerate(value):
            one(item, f"{where}[{number_of}]")

    return check


def mapping(shape: Shape, most: int = 1_000, *, longest_key: int = 200) -> Shape:
    """Take an object with any keys, whose values are such."""

    def check(value: Any, where: str) -> None:
        _check_object(value, where)
        if len(value) > most:
            raise ShapeError(where, f"has more than {most} keys")
        for key, item in value.items():
            if len(key) > longest_key:
                raise ShapeError(where, f"has a key of more than {longest_key} characters")
            shape(item, _inside(where, key))

    return check


def record(known: Mapping[str, Shape], *, more: Shape | None = None) -> Shape:
    """Take an object that has all of these keys, and no others.

    Args:
        known: Shapes by key; each key must be there.
        more: The shape of the values of other keys; None: there may be none.
    """

    def check(value: Any, where: str) -> None:
        _check_object(value, where)
        for key in known:
            if key not in value:
                raise ShapeError(_inside(where, key), "is missing")
        for key, item in value.items():
            if key in known:
                known[key](item, _inside(where, key))
            elif more is not None:
                more(item, _inside(where, key))
            else:
                raise ShapeError(_inside(where, key), "is no key of this schema")

    return check


def scalar(value: Any, where: str) -> None:
    """Take text, a finite number, a boolean or null."""
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        text()(value, where)
    elif not _is_number(value) or not math.isfinite(value):
        raise ShapeError(where, f"must be text, a number, true, false or null, {_is(value)}")


def anything(value: Any, where: str, depth: int = 0) -> None:
    """Take any JSON value that is not nested deeply."""
    if depth > MAX_DEPTH:
        raise ShapeError(where, f"is nested more than {MAX_DEPTH} deep")
    if isinstance(value, list):
        for number_of, item in enumerate(value):
            anything(item, f"{where}[{number_of}]", depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            anything(item, _inside(where, key), depth + 1)
    else:
        scalar(value, where)


def _check_list(value: Any, where: str, fewest: int, most: int) -> None:
    if not isinstance(value, list):
        raise ShapeError(where, f"must be a list, and is {_show(value)}")
    if not fewest <= len(value) <= most:
        raise ShapeError(where, f"must hold {fewest} to {most} values, and holds {len(value)}")


def _check_object(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise ShapeError(where or "the whole", f"must be an object, and is {_show(value)}")


def _inside(where: str, key: str) -> str:
    name = key if len(key) <= 60 else f"{key[:57]}..."
    return f"{where}.{name}" if where else name


def _is_number(value: Any) -> bool:
    # Not any number type: NumPy's would not survive being written.
    return type(value) in (int, float)


def _is_whole(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())


def _bounds(low: float, high: float) -> str:
    if math.isinf(high):
        return "" if low <= -MAX_INTEGER else f" >= {low:g}"
    return f" from {low:g} to {high:g}"


def _is(value: Any) -> str:
    return f"and is {_show(value)}"


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 200:  # too long for a line
        return "a number of many digits"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."

# SPDX-License-Identifier: Apache-2.0
"""Names that stand for several: ``shop-{000..009}.tar``, ``shop-{train,extra}-*.tar``."""

from __future__ import annotations

import math
import re
from itertools import product

from edge_imprint_runtime.errors import ShardError

__all__ = ["expand_braces", "has_wildcard", "is_pattern"]

_BRACE = re.compile(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")

# More names than any set of shards has: a slip, not a pattern.
_MAX_NAMES = 100_000


def is_pattern(name: str) -> bool:
    """Whether a name stands for several."""
    return has_wildcard(name) or _BRACE.search(name) is not None


def has_wildcard(name: str) -> bool:
    """Whether a name is to be matched against what there is."""
    return any(sign in name for sign in "*?[")


def expand_braces(pattern: str) -> list[str]:
    """Write out what braces stand for.

    Args:
        pattern: With ``{000..009}`` (as many digits as the first number has) and ``{a,b}``.

    Returns:
        The names; a pattern without braces is one.

    Raises:
        ShardError: It stands for too many.
    """
    parts = _BRACE.split(pattern)
    choices = [
        [part] if place % 2 == 0 else _choices(part) for place, part in enumerate(parts)
    ]
    count = math.prod(len(choice) for choice in choices)
    if count > _MAX_NAMES:
        raise ShardError(
            f"{pattern} stands for {count:,} shards, the limit is {_MAX_NAMES:,}; "
            "name fewer, or a folder of them"
        )
    return ["".join(chosen) for chosen in product(*choices)]


def _choices(inside: str) -> list[str]:
    found = _RANGE.fullmatch(inside)
    if found is None:
        return inside.split(",")
    first, last = int(found[1]), int(found[2])
    if abs(last - first) >= _MAX_NAMES:
        raise ShardError(
            f"{{{inside}}} stands for {abs(last - first) + 1:,} shards, the limit is "
            f"{_MAX_NAMES:,}; name fewer, or a folder of them"
        )
    step = 1 if last >= first else -1
    return [str(number).zfill(len(found[1])) for number in range(first, last + step, step)]

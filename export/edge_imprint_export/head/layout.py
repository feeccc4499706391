# SPDX-License-Identifier: Apache-2.0
"""How a head's proxies lie side by side in one matrix, and the way from columns to classes.

Where classes have about as many proxies each, they are one block of K columns a class. Where
they are ragged, those of like size share a block, so that few columns are padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint_export.nodes import Nodes
from edge_imprint_runtime.errors import ParameterError
from edge_imprint_runtime.head import Head

__all__ = ["Block", "Columns", "Layout", "layout_of", "slots_of"]

Int64: TypeAlias = npt.NDArray[np.int64]

# What a block costs (three nodes), in numbers of the proxy matrix that are read meanwhile.
_BLOCK_NUMBERS = 2**16
_MANY_BLOCKS = 16  # more than these only where columns are beyond 1.25 P


@dataclass(frozen=True)
class Block:
    """Classes that have as many columns each.

    Attributes:
        classes: (n,) int64, ascending.
        slots: Columns of each of them.
    """

    classes: Int64
    slots: int


@dataclass(frozen=True)
class Layout:
    """Which proxy is in which column of the proxy matrix.

    Block after block, in each block class after class, and of each class its proxies in the
    head's order; then its first again, up to the block's slots, which changes nothing under
    the maximum.

    Attributes:
        blocks: Of the classes with most proxies first.
        rows: (S,) int64: which of the head's proxies is in a column.
        padding: (S,) bool: which columns repeat a proxy, to be masked where they are counted.
        classes: (S,) int64: which class a column is of.
    """

    blocks: tuple[Block, ...]
    rows: Int64
    padding: npt.NDArray[np.bool_]
    classes: Int64


def slots_of(head: Head) -> int:
    """Return K, the number of proxies of the class that has most."""
    return int(np.bincount(head.class_index).max())


def layout_of(head: Head, slots: int | None = None) -> Layout:
    """Lay a head's proxies out in columns.

    Args:
        head: P proxies of C classes.
        slots: One block of so many columns a class; by default as few blocks as keep the
            columns within 1.25 P, and more where fewer columns are worth it.

    Returns:
        The layout.

    Raises:
        ParameterError: A class has more proxies than ``slots``.
    """
    counts = np.bincount(head.class_index)
    if slots is not None and slots < counts.max():
        raise ParameterError(
            f"slots must be at least {counts.max()}, the proxies of the class that has most, "
            f"got {slots}; give slots={counts.max()} or more"
        )
    size = head.proxies.shape[1]
    blocks = (
        _blocks(counts, size) if slots is None else (Block(np.arange(len(counts)), slots),)
    )
    first = np.cumsum(counts) - counts
    rows, padding, classes = [], [], []
    for block in blocks:
        slot = np.arange(block.slots)[np.newaxis]
        own = slot < counts[block.classes, np.newaxis]
        rows.append((first[block.classes, np.newaxis] + np.where(own, slot, 0)).ravel())
        padding.append(~own.ravel())
        classes.append(np.repeat(block.classes, block.slots))
    return Layout(blocks, *(np.concatenate(parts) for parts in (rows, padding, classes)))


def _blocks(counts: Int64, size: int) -> tuple[Block, ...]:
    """Split classes by their number of proxies, so that columns and blocks cost least.

    Sorted by number, a block is a run of them, as wide as its greatest: up to each number the
    fewest columns in b blocks follow from those in b - 1 blocks up to the numbers before it.
    """
    numbers, members = np.unique(counts, return_counts=True)
    numbers, members = numbers[::-1], members[::-1]
    before = np.concatenate([[0], np.cumsum(members)])
    # one[i, j]: the columns of numbers i to j (included) in one block; none where i > j.
    one = numbers[:, np.newaxis] * (before[np.newaxis, 1:] - before[:-1, np.newaxis])
    one = np.where(one > 0, one, np.iinfo(np.int64).max // 4)
    total, worth = int(counts.sum()), max(1, _BLOCK_NUMBERS // size)
    fewest, starts = one[0], [np.zeros(len(numbers), np.int64)]
    columns = [int(fewest[-1])]
    while 4 * columns[-1] > 5 * total or (
        columns[-1] - total > worth and len(columns) < _MANY_BLOCKS
    ):
        # choice[i, j]: the fewest columns of the numbers before i, and i to j as a new block.
        choice = one.copy()
        choice[1:] += fewest[:-1, np.newaxis]
        starts.append(choice.argmin(axis=0))
        fewest = choice.min(axis=0)
        columns.append(int(fewest[-1]))
    allowed = [b for b in range(len(columns)) if 4 * columns[b] <= 5 * total]
    last = min(allowed, key=lambda b: columns[b] + worth * b)
    blocks, end = [], len(numbers)
    for start in reversed(starts[: last + 1]):
        begin = int(start[end - 1])
        inside = np.isin(counts, numbers[begin:end])
        blocks.append(Block(np.flatnonzero(inside), int(numbers[begin])))
        end = begin
    return tuple(reversed(blocks))


class Columns:
    """Reductions from the columns of a layout to its classes.

    Args:
        nodes: Where they are added.
        layout: Of the matrix whose product they reduce.
    """

    def __init__(self, nodes: Nodes, layout: Layout) -> None:
        self.layout = layout
        self._nodes = nodes
        self._constants: set[str] = set()

    def reduce(self, kind: str, x: str, by_class: str, output: str) -> str:
        """Add (N, S) -> (N, C): reduce each class's columns.

        One block is a Reshape and the reduction. Several are each cut out first, and put
        back in the order of the classes::

            x (N,S) -> Slice -> Reshape (N,n,k) -> reduction (N,n) -> Concat -> Gather (N,C)

        Args:
            kind: ``ReduceMax``, ``ReduceL1`` or ``ArgMax`` (int64, counts from a class's
                first column).
            x: (N, S).
            by_class: How (N, C, K) is named on the way.
            output: How (N, C) is named.

        Returns:
            ``output``.
        """
        blocks = self.layout.blocks
        if len(blocks) == 1:
            return self._reduce_block(kind, x, by_class, output, "head/slots", blocks[0])
        parts, end = [], 0
        for i, block in enumerate(blocks):
            begin, end = end, end + block.slots * len(block.classes)
            bounds = [
                self._constant(f"head/block{i}/{name}", [value])
                for name, value in (("begin", begin), ("end", end))
            ]
            axis = self._constant("head/column_axis", [1])
            part = self._nodes.add("Slice", [x, *bounds, axis], f"{by_class}{i}/columns")
            shape = f"head/block{i}/slots"
            name = f"{by_class}{i}"
            parts.append(self._reduce_block(kind, part, name, f"{output}/{i}", shape, block))
        order = np.argsort(np.concatenate([block.classes for block in blocks]))
        if np.array_equal(order, np.arange(len(order))):
            return self._nodes.add("Concat", parts, output, axis=1)
        joined = self._nodes.add("Concat", parts, f"{output}/by_block", axis=1)
        place = self._constant("head/class_place", order)
        return self._nodes.add("Gather", [joined, place], output, axis=1)

    def _reduce_block(
        self, kind: str, x: str, by_class: str, output: str, shape: str, block: Block
    ) -> str:
        # -1: the number of classes comes from the matrix, so that a wider one is more classes.
        slots = self._constant(shape, [0, -1, block.slots])
        x = self._nodes.add("Reshape", [x, slots], by_class)
        if kind == "ArgMax":
            return self._nodes.add(kind, [x], output, axis=2, keepdims=0)
        return self._nodes.reduce(kind, x, output, 2, keepdims=0)

    def _constant(self, name: str, values: npt.ArrayLike) -> str:
        """Add an int64 constant, once."""
        if name not in self._constants:
            self._constants.add(name)
            self._nodes.constant(name, values, np.int64)
        return name

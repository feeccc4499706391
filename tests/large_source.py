# SPDX-License-Identifier: Apache-2.0
"""A source whose classes count as large, for the tests of what is read block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edge_imprint.imprinting.class_source import Block, Float32, Float64


class InBlocks:
    """Classes in memory; those above ``limit`` rows pretend to be too large for it."""

    def __init__(
        self,
        classes: Sequence[Float32],
        limit: int,
        *,
        block: int = 37,
        weights: Sequence[Float64] | None = None,
    ) -> None:
        self.classes, self.limit, self.block, self.weights = classes, limit, block, weights
        self.passes = 0

    def __len__(self) -> int:
        return len(self.classes)

    def large(self, c: int) -> bool:
        return len(self.classes[c]) > self.limit

    def __getitem__(self, c: int) -> Block:
        rows = self.classes[c]
        # By content, as a store draws: the order decides nothing.
        order = np.lexsort(rows.T[::-1])
        drawn = order[np.sort(np.random.default_rng(0).permutation(len(rows))[: self.limit])]
        if not self.large(c):
            drawn = np.arange(len(rows))
        return rows[drawn], None if self.weights is None else self.weights[c][drawn]

    def blocks(self, c: int) -> Iterator[Block]:
        self.passes += 1
        rows = self.classes[c]
        for start in range(0, len(rows), self.block):
            part = slice(start, start + self.block)
            yield rows[part], None if self.weights is None else self.weights[c][part]

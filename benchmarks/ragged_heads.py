# SPDX-License-Identifier: Apache-2.0
"""What ragged classes cost: against as many proxies in classes of one size.

The head alone, 512 dimensions. Ragged: one class of 5,000 proxies and a hundred of 5; and
classes of 1 to 200 proxies. Even: as many proxies in as many classes, as near as can be.
Limit: 1.25x at the median. "one block" is what it would be were every class padded to the
largest (the first shape is left out: 505,000 columns).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from common import series_json, write_result
from edge_imprint_export.fuse import fuse_head
from edge_imprint_export.graph import to_bytes
from edge_imprint_export.head.layout import layout_of, slots_of
from edge_imprint_runtime import Head, Rule
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.measuring import measure

SIZE = 512
MOST_COLUMNS = 100_000
SHAPES = {
    "1 x 5,000 and 100 x 5": [5_000] + 100 * [5],
    "1 to 200 a class": list(range(1, 201)),
}
RULES = {"max": Rule(), "5-NN cosine": Rule("l2", "mnn", "cosine", 5)}

Float32 = npt.NDArray[np.float32]


def head_of(counts: list[int], rule: Rule) -> Head:
    """Make a head of random unit proxies, so many a class."""
    proxies = np.random.default_rng(0).standard_normal((sum(counts), SIZE), np.float32)
    proxies /= np.linalg.norm(proxies, axis=1, keepdims=True)
    index = np.repeat(np.arange(len(counts)), counts)
    return Head(proxies, index, [f"class {c}" for c in range(len(counts))], rule)


def even(counts: list[int]) -> list[int]:
    """Spread as many proxies over as many classes."""
    each, more = divmod(sum(counts), len(counts))
    return [each + (c < more) for c in range(len(counts))]


def compare(shape: str, rule: str, batch: int, given: argparse.Namespace) -> dict[str, Any]:
    """Measure one shape under one rule."""
    counts = SHAPES[shape]
    ragged, flat = head_of(counts, RULES[rule]), head_of(even(counts), RULES[rule])
    heads = {"even": flat, "ragged": ragged}
    if slots_of(ragged) * len(counts) <= MOST_COLUMNS:
        heads["one block"] = head_of([max(counts)] * len(counts), RULES[rule])
    rows = np.random.default_rng(1).standard_normal((batch, SIZE), np.float32)
    runs = {
        name: _bind(OrtRunner(to_bytes(fuse_head(head)), "cpu", given.threads), rows)
        for name, head in heads.items()
    }
    series = measure(runs, batch=batch, iterations=given.iterations)
    p50 = {s.name: s.percentile_ms(50) for s in series}
    ratios = {name: value / p50["even"] for name, value in p50.items()}
    layout = layout_of(ragged)
    print(
        f"{shape}, {rule}, batch {batch}: {len(ragged.proxies)} proxies, "
        f"{len(layout.rows)} columns in {len(layout.blocks)} blocks"
    )
    for name, value in p50.items():
        print(f"  {name:10} p50 {value:8.3f} ms   {ratios[name]:6.2f}x")
    return {
        "shape": shape,
        "rule": rule,
        "batch": batch,
        "columns": len(layout.rows),
        "blocks": len(layout.blocks),
        "ratios_p50": ratios,
        "series": series_json(series),
    }


def _bind(runner: OrtRunner, rows: Float32) -> Callable[[], object]:
    return lambda: runner.run(["scores", "label"], rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    results = [
        compare(shape, rule, batch, given)
        for shape in SHAPES
        for rule in RULES
        for batch in (1, 8)
    ]
    write_result("ragged_heads", {"arguments": vars(given), "results": results})


if __name__ == "__main__":
    main()

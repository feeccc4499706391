# SPDX-License-Identifier: Apache-2.0
"""The charts of the evaluation's page."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_imprint import report
from edge_imprint.evaluation.result import Evaluation, Map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

__all__ = ["by_k", "by_shots", "maps"]

_FAMILY_COLORS = {
    "imprint": report.COLORS[0],
    "whitened": report.COLORS[1],
    "qi2018": report.COLORS[2],
}
# More names would lie on top of one another.
_NAMED = 20


def by_k(found: Evaluation, axes: Axes) -> None:
    """Draw accuracy against k, with what is not a matter of k as lines across."""
    ks = sorted({row.k for row in found.rows if row.family and row.k is not None})
    place = {k: i for i, k in enumerate(ks)}
    for family in ("imprint", "whitened"):
        ran = [row for row in found.rows if row.family == family and row.failed is None]
        points = [(place[row.k], row) for row in ran if row.k is not None]
        _line(axes, family, [x for x, _ in points], [row for _, row in points])
        for row in ran:
            if row.kind == "auto" and row.accuracy is not None:
                color = _FAMILY_COLORS[family]
                axes.axhline(
                    100 * row.accuracy, color=color, ls=":", lw=1.4, label=f"{family}, auto"
                )
    for row in found.rows:
        if row.name == "logistic regression" and row.accuracy is not None:
            label = "logistic regression (trained)"
            axes.axhline(
                100 * row.accuracy, color=report.COLORS[4], ls="--", lw=1, label=label
            )
    axes.set_xticks(range(len(ks)), [str(k) for k in ks])
    axes.set(xlabel="k, proxies a class", ylabel="held-out accuracy, %")
    axes.legend(frameon=False, fontsize=8.5, loc="lower right")


def by_shots(found: Evaluation, axes: Axes) -> None:
    """Draw accuracy against the number of images a class."""
    ns = sorted({point.n for point in found.shots})
    place = {n: i for i, n in enumerate(ns)}
    for name in dict.fromkeys(point.name for point in found.shots):
        points = [point for point in found.shots if point.name == name]
        _line(axes, name, [place[point.n] for point in points], points)
    names = [str(n) for n in ns]
    names[-1] = f"all ({ns[-1]})"
    axes.set_xticks(range(len(ns)), names)
    axes.set(xlabel="images a class to learn from", ylabel="held-out accuracy, %")
    axes.legend(frameon=False, fontsize=8.5, loc="lower right")


def maps(found: Evaluation) -> Sequence[Any]:
    """Return what draws each map."""
    return [functools.partial(_map, found, shown) for shown in found.maps]


def _line(axes: Axes, name: str, x: Sequence[int], points: Sequence[Any]) -> None:
    color = _FAMILY_COLORS[name]
    values, low, high = (
        [100 * getattr(point, key) for point in points] for key in ("accuracy", "low", "high")
    )
    axes.plot(x, values, "o-", color=color, label=name, markersize=4.5)
    axes.fill_between(x, low, high, color=color, alpha=0.13, lw=0)


def _map(found: Evaluation, shown: Map, axes: Axes) -> None:
    colors = report.palette(len(found.labels))
    x, y = shown.points.T
    axes.scatter(x, y, s=5, c=colors[shown.point_class], alpha=0.45, lw=0)
    size, edge = (60, 0.9) if len(shown.proxies) <= 100 else (26, 0.5)
    if len(shown.proxies) > 250:
        size, edge = 12, 0.3
    x, y = shown.proxies.T
    axes.scatter(
        x,
        y,
        s=size,
        c=colors[shown.proxy_class],
        marker="D",
        edgecolors="#0f172a",
        linewidths=edge,
    )
    if len(found.labels) <= _NAMED:
        box = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8}
        for c, label in enumerate(found.labels):
            mine = shown.points[shown.point_class == c]
            if len(mine):
                short = label if len(label) <= 14 else f"{label[:13]}…"
                # A dollar sign would start a formula.
                short = short.replace("$", r"\$")
                middle = np.median(mine, axis=0)
                axes.text(
                    middle[0],
                    middle[1],
                    short,
                    fontsize=9,
                    weight="bold",
                    ha="center",
                    va="center",
                    bbox=box,
                )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_title(f"{shown.title}: {shown.explained:.0%} of the variance", fontsize=10.5)

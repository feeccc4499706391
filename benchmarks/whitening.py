# SPDX-License-Identifier: Apache-2.0
"""When whitening helps, when it hurts, and what it costs: the study of docs/whitening.md.

    python benchmarks/whitening.py [--seeds 3]

Figures are per cent right on held-out samples, the mean over the seeds. It prints the tables
of docs/whitening.md, draws its pictures, and keeps all figures in results/whitening.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from common import write_result
from edge_imprint import ImprintClassifier
from edge_imprint.imprinting.imprint import assemble, make_all
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.shrinkage import choose_shrinkage
from edge_imprint.imprinting.sources import ByClass, Mapped
from edge_imprint.imprinting.whitening import fit_whitening
from edge_imprint_runtime import Head
from tasks import Task, all_tasks

DOCS = Path(__file__).parent.parent / "docs"
SHRINKAGES = (0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
SHOTS = (1, 2, 5, 10, 20, 50)
SIZES = (16, 32, 64, 128, 256, 512, 2048)
CURVES = ("digits all", "letters d=4", "digits64", "digitscnn", "syn4")
FEW = ("digits all", "digitscnn")
WIDE = "digits2048"

Table = dict[str, dict[str, list[float]]]


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    presets: Table = {}
    curves: Table = {}
    late: Table = {}
    sizes: Table = {}
    few: dict[str, Table] = {name: {} for name in FEW}
    with threadpool_limits(1):
        for seed in seeds:
            for task in all_tasks(seed):
                compare_presets(task, seed, presets)
                if task.name in CURVES:
                    compare_shrinkages(task, seed, curves)
                if len(np.unique(task.train_y)) >= 8 and task.name != WIDE:
                    teach_later(task, seed, late)
                if task.name in (*CURVES, WIDE):
                    compare_sizes(task, seed, sizes)
                if task.name in FEW:
                    take_few(task, seed, few[task.name])
            print(f"seed {seed} done", flush=True)
    for name, table in {"presets": presets, "late": late, "size": sizes}.items():
        print(f"\n{name}\n{markdown(table)}")
    print("\nshrinkage\n" + markdown(curves))
    for name, table in few.items():
        print(f"\nphotos a class: {name}\n{markdown(table)}")
    print(f"\nmean of all tasks: {means(presets)}")
    draw(curves, few, all_tasks(0))
    result: dict[str, Any] = {
        "presets": presets,
        "shrinkage": curves,
        "late": late,
        "sizes": sizes,
        "few": few,
        "seeds": len(seeds),
        "blas_threads": 1,
    }
    write_result("whitening", result)


class _Raw(argparse.RawDescriptionHelpFormatter):
    pass


def right(predict: Callable[[Any], Any], task: Task) -> float:
    """Per cent of held-out samples right."""
    return float(100 * (predict(task.test) == task.test_y).mean())


def note(table: Table, task: str, column: str, value: float) -> None:
    """Put a figure into a table."""
    table.setdefault(task, {}).setdefault(column, []).append(value)


def recipe_right(task: Task, recipe: str, seed: int, shots: int | None = None) -> float:
    """Per cent right with a recipe."""
    made = ImprintClassifier.from_recipe(recipe, shots=shots, random_state=seed)
    return right(made.fit(task.train, task.train_y).predict, task)


def regression_right(task: Task) -> float:
    """Per cent right with logistic regression on standardised embeddings."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    return right(model.fit(task.train, task.train_y).predict, task)


def compare_presets(task: Task, seed: int, table: Table) -> None:
    """Fill the main table."""
    note(table, task.name, "imprint", recipe_right(task, "imprint", seed))
    note(table, task.name, "logistic regression", regression_right(task))
    plain = "whiten kmeans:20 l2 l2 max"
    note(table, task.name, "whiten", recipe_right(task, plain, seed))
    start = time.perf_counter()
    note(table, task.name, "whiten:auto", recipe_right(task, "whitened", seed))
    note(table, task.name, "auto, s", time.perf_counter() - start)
    source = by_class(task)
    note(table, task.name, "shrinkage", choose_shrinkage(source, seed))


def compare_shrinkages(task: Task, seed: int, table: Table) -> None:
    """Accuracy against the shrinkage."""
    for share in SHRINKAGES:
        recipe = f"whiten:{share} kmeans:20 l2 l2 max"
        note(table, task.name, f"{share:g}", recipe_right(task, recipe, seed))


def compare_sizes(task: Task, seed: int, table: Table) -> None:
    """Accuracy against the directions kept."""
    for size in SIZES:
        if size <= task.train.shape[1]:
            recipe = f"whiten:size={size} kmeans:20 l2 l2 max"
            note(table, task.name, f"E = {size}", recipe_right(task, recipe, seed))


def take_few(task: Task, seed: int, table: Table) -> None:
    """Accuracy against the photos a class."""
    for shots in SHOTS:
        for recipe in ("qi2018", "imprint", "whitened"):
            note(table, recipe, str(shots), recipe_right(task, recipe, seed, shots))
        rows = ByClass(task.train, index_of(task), shots=shots, seed=seed)
        parts = [rows[c][0] for c in range(len(rows))]
        few = np.concatenate(parts)
        labels = np.repeat(np.unique(task.train_y), [len(part) for part in parts])
        if shots > 1:
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
            note(
                table,
                "logistic regression",
                str(shots),
                right(model.fit(few, labels).predict, task),
            )


def teach_later(task: Task, seed: int, table: Table) -> None:
    """Fit the map to half of the classes, then imprint all under that map."""
    classes = np.unique(task.train_y)
    source = by_class(task)
    first = np.isin(task.train_y, classes[: len(classes) // 2])
    half = ByClass(task.train[first], index_of(task)[first])
    for name, size in (("half", None), ("half, E = 128", 128)):
        if size is not None and size >= task.train.shape[1]:
            continue
        whitening = fit_whitening(half, size)
        mapped = Mapped(source, whitening, "l2")
        made = make_all(mapped, Recipe(pre_norm="none"), seed=seed)
        proxies = assemble(made, [str(c) for c in classes], Recipe())
        head = Head(
            proxies.proxies,
            proxies.class_index,
            proxies.labels,
            center=whitening.center,
            transform=whitening.transform,
        )
        note(table, task.name, name, right(lambda z, h=head: classes[h.predict(z)], task))
    note(table, task.name, "all", recipe_right(task, "whiten kmeans:20 l2 l2 max", seed))
    note(table, task.name, "imprint", recipe_right(task, "imprint", seed))


def by_class(task: Task) -> ByClass:
    """A task's training embeddings, class by class."""
    return ByClass(task.train, index_of(task))


def index_of(task: Task) -> npt.NDArray[np.int64]:
    """0..C-1 for a task's training labels."""
    return np.asarray(np.unique(task.train_y, return_inverse=True)[1], np.int64)


def markdown(table: Table) -> str:
    """Write means as a Markdown table."""
    columns = list(dict.fromkeys(name for row in table.values() for name in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in table.items():
        cells = [f"{np.mean(row[c]):.3g}" if c in row else "-" for c in columns]
        cells = [
            f"{np.mean(row[c]):.1f}" if c in row and np.mean(row[c]) > 10 else cell
            for c, cell in zip(columns, cells, strict=True)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def means(table: Table) -> dict[str, float]:
    """Mean of each column over the tasks."""
    columns = list(dict.fromkeys(name for row in table.values() for name in row))
    return {
        c: round(float(np.mean([np.mean(row[c]) for row in table.values()])), 2)
        for c in columns
    }


def draw(curves: Table, few: dict[str, Table], tasks: Sequence[Task]) -> None:
    """Draw the pictures of docs/whitening.md."""
    style = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 10}
    with mpl.rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        left, *right_axes = figure.subplots(1, 3)
        for name, row in curves.items():
            values = [np.mean(row[f"{share:g}"]) for share in SHRINKAGES]
            left.plot(SHRINKAGES, values, marker="o", markersize=4, label=name)
        left.set(xlabel="shrinkage (1: not whitened)", ylabel="right, %")
        left.legend(frameon=False, fontsize=8)
        left.set_title("How far to whiten depends on the backbone", fontsize=10)
        for axes, (name, table) in zip(right_axes, few.items(), strict=True):
            for recipe, row in table.items():
                shots = [n for n in SHOTS if str(n) in row]
                values = [np.mean(row[str(n)]) for n in shots]
                axes.plot(shots, values, marker="o", markersize=4, label=recipe)
            axes.set(xlabel="photos a class", ylabel="right, %", xscale="log")
            axes.set_xticks(SHOTS, [str(n) for n in SHOTS])
            axes.legend(frameon=False, fontsize=8)
            axes.set_title(name, fontsize=10)
        figure.savefig(DOCS / "whitening.png", dpi=110)
        draw_margins(next(task for task in tasks if task.name == "digitscnn"))


def draw_margins(task: Task) -> None:
    """Draw by how much a photo's own class is nearer than any other, old and novel classes."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    recipes = {"l2 (imprint)": "imprint", "whitened": "whitened"}
    axes_pair = figure.subplots(1, 2, sharey=True)
    for axes, (title, recipe) in zip(axes_pair, recipes.items(), strict=True):
        made = ImprintClassifier.from_recipe(recipe).fit(task.train, task.train_y)
        nearest = made.head_.nearest(task.test)
        row = np.arange(len(nearest))
        own = nearest[row, task.test_y]
        nearest[row, task.test_y] = -np.inf
        margin = own - nearest.max(axis=1)
        for name, chosen in {"0-4": task.test_y < 5, "5-9, novel": task.test_y >= 5}.items():
            axes.hist(margin[chosen], bins=40, alpha=0.6, label=name)
        axes.axvline(0, color="black", linestyle="--", linewidth=1)
        wrong = 100 * (margin[task.test_y >= 5] < 0).mean()
        axes.set_title(f"{title}: {wrong:.0f} % of the novel classes wrong", fontsize=10)
        axes.set(xlabel="own class nearer than any other by")
    axes_pair[0].set(ylabel="photos")
    axes_pair[0].legend(frameon=False)
    figure.savefig(DOCS / "whitening-margin.png", dpi=110)


if __name__ == "__main__":
    main()

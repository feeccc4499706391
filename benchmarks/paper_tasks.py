# SPDX-License-Identifier: Apache-2.0
"""The paper's own tasks, for those who have the data: MNIST, FashionMNIST and CIFAR-10.

Nothing is downloaded. The files are those that torchvision keeps and reads; CIFAR-10's are
checked against its checksums first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# The benchmark reads data sets with it; the product itself does without.
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

from edge_imprint import Backbone, load_backbone
from edge_imprint.embedding.embedders import Embedder, pick_embedder
from edge_imprint_runtime import prepare
from edge_imprint_runtime.errors import NoImagesError
from tasks import SUBTASKS, Float32, Int64, Task

__all__ = ["DATASETS", "expected_files", "load", "paper_tasks", "tasks_of"]

DATASETS: dict[str, Any] = {"MNIST": MNIST, "FashionMNIST": FashionMNIST, "CIFAR10": CIFAR10}

_BATCH = 64


def paper_tasks(
    root: Path,
    backbones: Sequence[str],
    datasets: Sequence[str] = tuple(DATASETS),
    *,
    random_weights: bool = False,
    device: str = "auto",
    per_class: int | None = None,
) -> Iterator[Task]:
    """Embed the data sets and make the paper's tasks of them.

    Args:
        root: The folder that holds them, as torchvision lays them out.
        backbones: Names, as `load_backbone` takes them.
        datasets: Keys of `DATASETS`.
        random_weights: As in `load_backbone`; not for ``demo``.
        device: ``auto``, ``cpu`` or ``cuda``.
        per_class: Images a class to use, of the training and of the test part; None for all.

    Yields:
        For each backbone and data set one task per choice of classes.

    Raises:
        NoImagesError: Files are missing or damaged; before anything is embedded.
        EdgeImprintError: A backbone can't be had.
    """
    parts = {name: [load(name, root, train) for train in (True, False)] for name in datasets}
    for backbone in backbones:
        network = load_backbone(backbone, random_weights=random_weights and backbone != "demo")
        embedder, _ = pick_embedder(network, device)
        for name, (train, test) in parts.items():
            yield from tasks_of(name, train, test, network, embedder, per_class)


def load(name: str, root: Path, train: bool, kind: Any = None) -> Any:
    """Open one part of a data set.

    Args:
        name: A key of `DATASETS`.
        root: The folder that holds the data sets.
        train: Whether the training part.
        kind: Instead of torchvision's class: a subclass, such as one with other checksums.

    Returns:
        torchvision's data set: pairs of a Pillow image and its class, 0 to 9.

    Raises:
        NoImagesError: Files are missing or damaged.
    """
    kind = kind or DATASETS[name]
    missing = [file for file in expected_files(kind) if not (root / file).is_file()]
    if missing:
        raise NoImagesError(
            f"{name} is not in {root}: {', '.join(missing)} missing; put the files there, "
            "unpacked, or name another folder with --data-root"
        )
    try:
        return kind(root, train=train, download=False)
    except Exception as error:  # torchvision has no class of its own for it
        raise NoImagesError(
            f"{name} in {root} is damaged or another data set "
            f"({type(error).__name__}); get its files anew"
        ) from error


def expected_files(kind: Any) -> list[str]:
    """Name the files of a data set, relative to the root."""
    if issubclass(kind, CIFAR10):
        names = [name for name, _ in [*kind.train_list, *kind.test_list]]
        return [f"{kind.base_folder}/{name}" for name in [*names, kind.meta["filename"]]]
    folder = f"{kind.__name__}/raw"
    return [f"{folder}/{name.removesuffix('.gz')}" for name, _ in kind.resources]


def tasks_of(
    name: str,
    train: Any,
    test: Any,
    backbone: Backbone,
    embedder: Embedder,
    per_class: int | None = None,
) -> Iterator[Task]:
    """Embed one data set once and make its tasks.

    Args:
        name: What the tasks are called.
        train: A data set as `load` gives it.
        test: Another.
        backbone: The backbone; its preprocessing is applied.
        embedder: What embeds with it.
        per_class: As in `paper_tasks`.

    Yields:
        One task per choice of classes.
    """
    arrays = [_embed(part, backbone, embedder, per_class) for part in (train, test)]
    (x, y), (test_x, test_y) = arrays
    network = backbone.info.name.removeprefix("timm/")
    whole = Task(name, x, y, test_x, test_y, f"{name} on {network}")
    for choice, label in SUBTASKS.items():
        yield whole.relabelled(f"{name} {choice}, {network}", whole.note, label)


def _embed(
    part: Any, backbone: Backbone, embedder: Embedder, per_class: int | None
) -> tuple[Float32, Int64]:
    labels = np.asarray(part.targets, np.int64)
    kept = np.arange(len(labels))
    if per_class is not None:
        kept = np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in range(10)])
    rows = []
    for start in range(0, len(kept), _BATCH):
        images = [part[i][0].convert("RGB") for i in kept[start : start + _BATCH]]
        pixels = np.stack([prepare(image, backbone.info.preprocess) for image in images])
        rows.append(embedder(pixels))
    return np.concatenate(rows), labels[kept]

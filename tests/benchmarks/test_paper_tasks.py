# SPDX-License-Identifier: Apache-2.0
"""The paper's data sets are read from files of their own form, here small ones."""

from __future__ import annotations

import hashlib
import importlib
import io
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge_imprint import load_backbone
from edge_imprint.embedding.embedders import ort_embedder
from edge_imprint_runtime import prepare
from edge_imprint_runtime.errors import NoImagesError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PER_CLASS = {True: 3, False: 2}  # by whether it is the training part

UInt8 = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def paper() -> ModuleType:
    """The script's module: the benchmarks are no package, they lie side by side."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("paper_tasks")


def draw(train: bool, shape: tuple[int, ...]) -> tuple[UInt8, npt.NDArray[np.int64]]:
    """Draw noise around a level of each class, in an order without order."""
    rng = np.random.default_rng(int(train))
    labels = rng.permutation(np.repeat(np.arange(10), PER_CLASS[train]))
    levels = 20 + 20 * labels.reshape(-1, *(1 for _ in shape))
    return (levels + rng.integers(0, 20, (len(labels), *shape))).astype(np.uint8), labels


def write_idx(root: Path, name: str) -> Path:
    """Write MNIST's four files: big-endian sizes behind a magic number, then bytes."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for train, prefix in ((True, "train"), (False, "t10k")):
        images, labels = draw(train, (28, 28))
        for kind, array in (("images", images), ("labels", labels.astype(np.uint8))):
            head = struct.pack(f">{array.ndim + 1}i", 0x800 + array.ndim, *array.shape)
            file = folder / f"{prefix}-{kind}-idx{array.ndim}-ubyte"
            file.write_bytes(head + array.tobytes())
    return root


class OldPickler(pickle.Pickler):
    """Writes arrays as Python 2 and the NumPy of 2009 did, whose files CIFAR-10's are."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.dtype):
            return np.dtype, ("u1", 0, 1), (3, "|", None, None, None, -1, -1, 0)
        if isinstance(value, np.ndarray):
            made = np._core.multiarray._reconstruct, (np.ndarray, (0,), "b")
            text = value.tobytes().decode("latin1")  # a string of Python 2 is read as this
            return *made, (1, value.shape, value.dtype, False, text)
        return NotImplemented


def write_cifar(root: Path, kind: Any) -> Any:
    """Write CIFAR-10's seven files; return its class with the checksums of these."""
    folder = root / kind.base_folder
    folder.mkdir()
    images, labels = draw(True, (3, 32, 32))
    parts = np.array_split(np.arange(len(labels)), 5)
    entries = {
        name: {"data": images[part].reshape(-1, 3_072), "labels": labels[part].tolist()}
        for (name, _), part in zip(kind.train_list, parts, strict=True)
    }
    images, labels = draw(False, (3, 32, 32))
    entries["test_batch"] = {"data": images.reshape(-1, 3_072), "labels": labels.tolist()}
    entries["batches.meta"] = {"label_names": [f"name {c}" for c in range(10)]}
    sums = {}
    for name, entry in entries.items():
        buffer = io.BytesIO()
        OldPickler(buffer, protocol=2).dump(entry)
        data = buffer.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")
        (folder / name).write_bytes(data)
        sums[name] = hashlib.md5(data, usedforsecurity=False).hexdigest()

    own = {
        "train_list": [[name, sums[name]] for name, _ in kind.train_list],
        "test_list": [["test_batch", sums["test_batch"]]],
        "meta": kind.meta | {"md5": sums["batches.meta"]},
    }
    return type("Small", (kind,), own)


def check(part: Any, train: bool, shape: tuple[int, ...]) -> None:
    images, labels = draw(train, shape)
    assert len(part) == len(labels)
    for (image, label), pixels, expected in zip(part, images, labels, strict=True):
        assert label == expected
        as_drawn = pixels.transpose(1, 2, 0) if len(shape) == 3 else pixels
        np.testing.assert_array_equal(np.asarray(image), as_drawn)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_idx_files(paper: ModuleType, tmp_path: Path, name: str, train: bool) -> None:
    check(paper.load(name, write_idx(tmp_path, name), train), train, (28, 28))


@pytest.mark.parametrize("train", [True, False])
def test_cifar_files(paper: ModuleType, tmp_path: Path, train: bool) -> None:
    small = write_cifar(tmp_path, paper.DATASETS["CIFAR10"])
    check(paper.load("CIFAR10", tmp_path, train, small), train, (3, 32, 32))


def test_other_bytes_than_cifars_are_not_opened(paper: ModuleType, tmp_path: Path) -> None:
    write_cifar(tmp_path, paper.DATASETS["CIFAR10"])
    with pytest.raises(NoImagesError) as caught:
        paper.load("CIFAR10", tmp_path, True)
    assert str(caught.value) == (
        f"CIFAR10 in {tmp_path} is damaged or another data set (RuntimeError); "
        "get its files anew"
    )


def test_a_cut_off_file(paper: ModuleType, tmp_path: Path) -> None:
    write_idx(tmp_path, "MNIST")
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1_000])
    with pytest.raises(NoImagesError) as caught:
        paper.load("MNIST", tmp_path, True)
    assert str(caught.value) == (
        f"MNIST in {tmp_path} is damaged or another data set (RuntimeError); "
        "get its files anew"
    )


def test_missing_files_are_named(paper: ModuleType, tmp_path: Path) -> None:
    write_idx(tmp_path, "MNIST")
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(NoImagesError) as caught:
        paper.load("MNIST", tmp_path, True)
    assert str(caught.value) == (
        f"MNIST is not in {tmp_path}: MNIST/raw/t10k-labels-idx1-ubyte missing; put the files "
        "there, unpacked, or name another folder with --data-root"
    )
    with pytest.raises(NoImagesError) as caught:
        paper.load("CIFAR10", tmp_path, True)
    batches = ", ".join(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6))
    assert str(caught.value) == (
        f"CIFAR10 is not in {tmp_path}: {batches}, cifar-10-batches-py/test_batch, "
        "cifar-10-batches-py/batches.meta missing; put the files there, unpacked, or name "
        "another folder with --data-root"
    )


def test_tasks_of_a_data_set(paper: ModuleType, tmp_path: Path) -> None:
    write_idx(tmp_path, "MNIST")
    made = list(paper.paper_tasks(tmp_path, ["demo"], ["MNIST"], device="cpu"))
    assert [task.name for task in made] == [
        f"MNIST {choice}, demo"
        for choice in ("all", "even", "odd", "0-2", "odd/even", "mod 3")
    ]
    assert [sorted(set(task.test_y.tolist())) for task in made] == [
        list(range(count)) for count in (10, 5, 5, 3, 2, 3)
    ]
    assert [len(task.train) for task in made] == [30, 15, 15, 9, 30, 30]
    backbone = load_backbone("demo")
    images, labels = draw(False, (28, 28))
    pixels = np.stack(
        [prepare(Image.fromarray(i).convert("RGB"), backbone.info.preprocess) for i in images]
    )
    expected = ort_embedder(backbone)(pixels)
    np.testing.assert_allclose(made[0].test, expected, atol=1e-5)
    np.testing.assert_array_equal(made[0].test_y, labels)
    np.testing.assert_allclose(made[2].test, expected[labels % 2 == 1], atol=1e-5)
    np.testing.assert_array_equal(made[2].test_y, labels[labels % 2 == 1] // 2)


def test_the_same_code_measures_them(
    paper: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    quality = importlib.import_module("quality")
    write_idx(tmp_path, "MNIST")
    made = list(paper.paper_tasks(tmp_path, ["demo"], ["MNIST"], device="cpu"))
    results = {task.name: [quality.measure(task, seed) for seed in (0, 1)] for task in made}
    first = results["MNIST all, demo"][0]
    assert first["accuracy"].keys() == set(quality.METHODS)
    assert first["by_k"].keys() == set(quality.KS)
    assert first["vci"] is None  # fewer samples than dimensions
    quality.print_accuracy(results)
    quality.print_by_k(results)
    claims = list(quality.claims(results))
    assert [line["met"] for line in claims] == [
        line["figure"] - line["limit"] > line["spread"] for line in claims
    ]
    average = np.mean([r["accuracy"]["imprint"] for rs in results.values() for r in rs])
    whitened = np.mean([r["accuracy"]["whitened"] for rs in results.values() for r in rs])
    found = {line["claim"]: line["figure"] for line in claims}
    assert found["all tasks: whitened - imprint, points"] == pytest.approx(whitened - average)


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    script = [sys.executable, str(BENCHMARKS / "quality.py"), "--backbone", "demo"]
    done = subprocess.run(
        [*script, "--data-root", str(tmp_path), "--dataset", "MNIST"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    names = [
        f"{p}-{k}-ubyte" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1")
    ]
    assert done.stderr == (
        f"error: MNIST is not in {tmp_path}: "
        + ", ".join(f"MNIST/raw/{name}" for name in names)
        + " missing; put the files there, unpacked, or name another folder with --data-root\n"
    )


def test_cifar_on_random_weights_and_some_images_a_class(
    paper: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = write_cifar(tmp_path, paper.DATASETS["CIFAR10"])
    monkeypatch.setitem(paper.DATASETS, "CIFAR10", small)
    first, *_ = paper.paper_tasks(
        tmp_path,
        ["timm/test_convnext"],
        ["CIFAR10"],
        random_weights=True,
        device="cpu",
        per_class=2,
    )
    assert first.name == "CIFAR10 all, test_convnext"
    assert np.bincount(first.train_y).tolist() == [2] * 10
    assert first.train.dtype == np.float32
    assert np.isfinite(first.train).all()

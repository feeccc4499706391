# SPDX-License-Identifier: Apache-2.0
"""Embeddings files: what is read, and one sentence for each way to be wrong."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_imprint.evaluation.embeddings_file import read_embeddings
from edge_imprint_runtime.errors import EmbeddingError, InputError, TooFewClassesError

ROWS = np.arange(8.0).reshape(4, 2)
TEXT = np.array(["cat", "dog", "cat", "ant"])
HOW = (
    "write it with numpy.savez(FILE, embeddings=..., labels=...), embeddings (N, D) and "
    "labels (N,)"
)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(**arrays: Any) -> Path:
        file = tmp_path / "e.npz"
        np.savez(file, **arrays)
        return file

    return write


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8])
def test_embeddings_of_any_real_type(write: Any, dtype: type) -> None:
    read = read_embeddings(write(embeddings=ROWS.astype(dtype), labels=TEXT, other=ROWS))
    assert read.embeddings.dtype == np.float32
    assert np.array_equal(read.embeddings, ROWS)
    assert read.labels == ("ant", "cat", "dog")
    assert read.class_index.tolist() == [1, 2, 1, 0]
    assert read.paths is None


def test_numbers_are_sorted_by_value(write: Any) -> None:
    read = read_embeddings(write(embeddings=ROWS, labels=np.array([10, 9, -1, 10])))
    assert read.labels == ("-1", "9", "10")
    assert read.class_index.tolist() == [2, 1, 0, 2]


def test_bytes_and_paths_are_text(write: Any) -> None:
    labels = np.array([name.encode() for name in ("ä", "b", "ä", "b")])
    paths = np.array(["x", "y", "z", "w"])
    read = read_embeddings(write(embeddings=ROWS, labels=labels, paths=paths))
    assert read.labels == ("b", "ä")
    assert read.paths == ("x", "y", "z", "w")


def with_value(value: float) -> Any:
    rows = ROWS.copy()
    rows[2, 1] = value
    return rows


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        (
            {"labels": TEXT},
            InputError,
            f"{{file}} lacks the array 'embeddings' (it holds 'labels'); {HOW}",
        ),
        (
            {"embeddings": ROWS, "y": TEXT},
            InputError,
            f"{{file}} lacks the array 'labels' (it holds 'embeddings', 'y'); {HOW}",
        ),
        (
            {"embeddings": ROWS[0], "labels": TEXT},
            InputError,
            (
                "the embeddings of {file} must be (N, D) real numbers, N and D at "
                "least 1, got "
                "(2,) of float64"
            ),
        ),
        (
            {"embeddings": ROWS[:0], "labels": TEXT[:0]},
            InputError,
            (
                "the embeddings of {file} must be (N, D) real numbers, N and D at "
                "least 1, got "
                "(0, 2) of float64"
            ),
        ),
        (
            {"embeddings": ROWS + 1j, "labels": TEXT},
            InputError,
            (
                "the embeddings of {file} must be (N, D) real numbers, N and D at "
                "least 1, got "
                "(4, 2) of complex128"
            ),
        ),
        (
            {"embeddings": ROWS, "labels": TEXT[:3]},
            InputError,
            (
                "the labels of {file} must be 4 of integers or text, one an embedding, "
                "got shape "
                "(3,) of <U3"
            ),
        ),
        (
            {"embeddings": ROWS, "labels": np.array([0.5, 1, 2, 1])},
            InputError,
            (
                "the labels of {file} must be 4 of integers or text, one an embedding, "
                "got shape "
                "(4,) of float64"
            ),
        ),
        (
            {"embeddings": ROWS, "labels": np.array(["a", "b", "", "a"])},
            InputError,
            "the label of row 2 of {file} is empty; name it",
        ),
        (
            {"embeddings": ROWS, "labels": np.array([b"a", b"\xff", b"b", b"a"])},
            InputError,
            "the labels of {file} are bytes that are no UTF-8 text",
        ),
        (
            {"embeddings": ROWS, "labels": TEXT, "paths": np.arange(4)},
            InputError,
            "the paths of {file} must be 4 of text, one an embedding, got shape (4,) of int64",
        ),
        (
            {"embeddings": ROWS, "labels": np.array(["cat"] * 4)},
            TooFewClassesError,
            "{file} holds one class only ('cat'); a classifier needs at least two",
        ),
        (
            {"embeddings": with_value(np.nan), "labels": TEXT},
            EmbeddingError,
            "row 2 of the embeddings of {file} holds NaN; mend it or leave it out",
        ),
        (
            {"embeddings": with_value(-np.inf), "labels": TEXT},
            EmbeddingError,
            (
                "row 2 of the embeddings of {file} holds inf, or a number beyond "
                "float32's range; "
                "mend it or leave it out"
            ),
        ),
        (
            {"embeddings": with_value(1e39), "labels": TEXT},
            EmbeddingError,
            (
                "row 2 of the embeddings of {file} holds inf, or a number beyond "
                "float32's range; "
                "mend it or leave it out"
            ),
        ),
        (
            {"embeddings": ROWS, "labels": np.array([1, "a", 2, "b"], object)},
            InputError,
            (
                "the array 'labels' of {file} is pickled Python objects, which are not "
                "read (they "
                "can run code, and may be of mixed types); save numbers or text"
            ),
        ),
    ],
)
def test_what_is_wrong_is_named(
    write: Any, arrays: dict[str, Any], error: type[Exception], message: str
) -> None:
    file = write(**arrays)
    with pytest.raises(error) as caught:
        read_embeddings(file)
    assert type(caught.value) is error
    assert str(caught.value) == message.format(file=file)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_embeddings(tmp_path / "no.npz")
    assert str(caught.value) == f"there is no embeddings file {tmp_path / 'no.npz'}"


def test_a_file_that_is_no_zip(tmp_path: Path) -> None:
    file = tmp_path / "e.npz"
    np.save(tmp_path / "e.npy", ROWS)
    (tmp_path / "e.npy").rename(file)
    with pytest.raises(InputError) as caught:
        read_embeddings(file)
    assert str(caught.value) == f"{file} is no .npz file (a zip of arrays); {HOW}"


def test_a_file_cut_short_or_damaged(write: Any, tmp_path: Path) -> None:
    data = write(embeddings=ROWS, labels=TEXT).read_bytes()
    file = tmp_path / "bad.npz"
    for start in range(0, len(data), 7):
        file.write_bytes(data[:start] + bytes([data[start] ^ 0x5A]) + data[start + 1 :])
        try:
            read_embeddings(file)
        except (InputError, EmbeddingError) as error:
            assert str(file) in str(error)
        file.write_bytes(data[:start])
        with pytest.raises(InputError, match=r"is no \.npz file"):
            read_embeddings(file)


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "photos.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("embeddings.npy", "not an array")
    with pytest.raises(InputError) as caught:
        read_embeddings(file)
    assert str(caught.value).startswith(f"the array 'embeddings' of {file} is broken: ")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("embeddings", "not an array")
    with pytest.raises(InputError) as caught:
        read_embeddings(file)
    assert str(caught.value) == f"what {file} calls 'embeddings' is no .npy array; {HOW}"

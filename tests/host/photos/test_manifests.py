# SPDX-License-Identifier: Apache-2.0
"""Manifests of every dress, and what each is refused for. Photos are empty files."""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.photos import Photos, find_photos
from edge_imprint_runtime.errors import (
    ContractValueError,
    EdgeImprintError,
    ManifestError,
    MissingPackageError,
    NoImagesError,
    TooFewClassesError,
)


def manifest(root: Path, text: str | bytes, photos: Sequence[str] = ()) -> Path:
    """Write a CSV file, and the photos 1.png to 9.png beside it."""
    for name in (*(f"{i}.png" for i in range(1, 10)), *photos):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    file = root / "photos.csv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def parquet(root: Path, columns: dict[str, object]) -> Path:
    file = root / "photos.parquet"
    pq.write_table(pa.table(columns), file, row_group_size=2)
    return file


def labelled(photos: Photos) -> list[tuple[str, str]]:
    index = photos.class_index.tolist()
    return [(str(path), photos.labels[c]) for path, c in zip(photos.paths, index, strict=True)]


def refusal(file: Path, **options: str) -> str:
    with pytest.raises(ManifestError) as caught:
        find_photos(file, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# CSV ---------------------------------------------------------------------------------------


def test_csv_paths_are_relative_to_it_or_absolute(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "1.png"
    text = f"path,label\nb/2.png,dog\n{elsewhere},cat\n../x.png,dog\n"
    file = manifest(tmp_path / "here", text, ["b/2.png", "../x.png", "../elsewhere/1.png"])
    found = find_photos(file)
    assert found.labels == ("cat", "dog")
    assert found.paths == (elsewhere, file.parent / "../x.png", file.parent / "b/2.png")
    assert found.class_index.tolist() == [0, 1, 1]
    assert found.notes == found.problems == ()


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n1.png,cat\n2.png,dog\n",
        "\ufeffpath,label\n1.png,cat\n2.png,dog\n",  # spreadsheets write a byte order mark
        "path,label\r\n1.png,cat\r\n2.png,dog\r\n",
        "path,label\n1.png,cat\n2.png,dog",  # no newline at its end
        "label,path\ncat,1.png\ndog,2.png\n",
        '"path","label"\n"1.png","cat"\n\n"2.png","dog"\n',
        "\npath,label\n./1.png,cat\n.//2.png,dog\n",
        "path,label\n1.png, cat\n2.png,dog\t\n",  # blanks make no other class
    ],
)
def test_csv_in_every_dress(tmp_path: Path, text: str) -> None:
    found = find_photos(manifest(tmp_path, text))
    assert found.labels == ("cat", "dog")
    assert found.paths == (tmp_path / "1.png", tmp_path / "2.png")
    assert found.notes == ()


def test_csv_labels_with_commas_quotes_newlines_and_unicode(tmp_path: Path) -> None:
    text = 'path,label\n1.png,"a, b"\n2.png,"say ""hi"""\n3.png,"two\nlines"\n4.png,日本\n'
    found = find_photos(manifest(tmp_path, text))
    assert found.labels == ("a, b", 'say "hi"', "two\nlines", "日本")


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    text = "id,label,path,by\n7,cat,1.png,me\n8,dog,2.png,\n"
    file = manifest(tmp_path, text)
    assert find_photos(file).notes == (f"columns of {file} that are not used: 'id', 'by'",)
    wide = ",".join(f"c{i}" for i in range(9))
    file = manifest(tmp_path, f"path,label,{wide}\n1.png,a{',' * 9}\n2.png,b{',' * 9}\n")
    assert find_photos(file).notes[0].endswith("'c0', 'c1', 'c2', 'c3', 'c4' and 4 more")


@pytest.mark.parametrize("text", ["", "\n", "path\n", "x,y\n", "path,z\n", "a;b\n"])
def test_csv_without_its_columns(tmp_path: Path, text: str) -> None:
    file = manifest(tmp_path, text)
    said = (
        f"{file} must begin with a line that names the columns path,label, "
        "with a comma between them"
    )
    if ";" in text:
        said = f"{file} separates its columns by semicolons; write commas instead"
    assert refusal(file) == said


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("filename,label", "has no column path; rename 'filename' to path"),
        ("path,class", "has no column label; rename 'class' to label"),
        (
            " Path,Label",
            "has no column path or label; rename ' Path' to path, 'Label' to label",
        ),
        ("image,category,split", "rename 'image' to path, 'category' to label"),
        ("path;label", "separates its columns by semicolons; write commas instead"),
        ("path\tlabel", "separates its columns by tabs; write commas instead"),
        ("path,path,label", "has the column 'path' twice; take one out"),
    ],
)
def test_columns_of_other_names(tmp_path: Path, header: str, said: str) -> None:
    file = manifest(tmp_path, f"{header}\n1.png,a,a\n")
    assert refusal(file).startswith(str(file))
    assert refusal(file).endswith(said)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("path,label\n1.png,cat\n,dog\n", 3),
        ("path,label\n1.png,\n", 2),
        ("path,label\n1.png\n", 2),
        ("path,label\n\n\n1.png,a\n2.png\n", 5),
    ],
)
def test_csv_with_an_empty_field(tmp_path: Path, text: str, line: int) -> None:
    file = manifest(tmp_path, text)
    assert refusal(file) == f"{file}, line {line}: path or label is empty"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"path,label\n1.png,a\n2.png,caf\xe9\n", ", line 3: no UTF-8 (the byte 0xe9); save"),
        (
            "path,label\n1.png,a\n".encode("utf-16"),
            " is in UTF-16; save the manifest as CSV in",
        ),
        ("path,label\n1.png,a\n".encode("utf-16-le"), ", line 1: holds a zero byte; save the"),
        (
            b"path,label\n1.png,a\n2.png,b\0\n",
            ", line 3: holds a zero byte; save the manifest",
        ),
        (b'path,label\n"1.png,cat\n2.png,dog\n', ", line 3: no CSV (unexpected end of data)"),
        (b'path,label\n"1.png"x,cat\n', ", line 2: no CSV (',' expected after '\"')"),
        (b"path,label\n" + b"x" * 200_000 + b",cat\n", ", line 2: no CSV (field larger than"),
        (b"path,label\n" + b"x" * 2_000_000, ", line 2: longer than 1,048,576 bytes; give a"),
        (
            b"path,label\n1.png,a, b\n",
            ", line 2: 3 fields where the first line names 2 columns",
        ),
        (
            b"PK\x03\x04rest",
            " is a zip file or a spreadsheet, not a manifest; unpack it and name the folder",
        ),
        (b"PK\x05\x06" + bytes(18), " is an empty zip file, not a manifest; give a folder"),
        (b"7z\xbc\xaf\x27\x1c\0", " is a 7z file, not a manifest; unpack it and name the"),
        (b"Rar!\x1a\x07\1\0", " is a rar file, not a manifest; unpack it and name the"),
        (b"\x1f\x8brest", " is compressed (gzip), not a manifest; unpack it and name the"),
        (
            tarfile.TarInfo("1.png").tobuf(),
            " is a tar file, not a manifest; let its name end in .tar",
        ),
        (b"\xff\xd8\xffrest", " is a photo, not a manifest; name the folder of the class"),
        (
            b"\x00" * 5000,
            ", line 1: holds a zero byte; save the manifest as CSV in UTF-8, or unpack it if",
        ),
    ],
)
def test_csv_that_cannot_be_read(tmp_path: Path, data: bytes, said: str) -> None:
    file = manifest(tmp_path, data)
    assert refusal(file).startswith(f"{file}{said}")


def test_csv_without_rows_and_with_one_class(tmp_path: Path) -> None:
    with pytest.raises(NoImagesError, match="lists no photos; add a line path,label for each"):
        find_photos(manifest(tmp_path, "path,label\n"))
    with pytest.raises(TooFewClassesError):
        find_photos(manifest(tmp_path, "path,label\n1.png,a\n2.png,a\n"))


def test_csv_label_too_long(tmp_path: Path) -> None:
    with pytest.raises(ContractValueError, match=r"must be 1 to 1024 bytes of text"):
        find_photos(manifest(tmp_path, f"path,label\n1.png,{'x' * 1025}\n2.png,b\n"))


@given(st.binary(max_size=300))
def test_any_bytes_are_photos_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.mktemp("any") / "photos.csv"
    for start in (b"", b"path,label\n", b"path,label,split\n1.png,"):
        file.write_bytes(start + data)
        try:
            find_photos(file)
        except EdgeImprintError as error:
            assert "\n" not in str(error).replace(str(file), "")


# What a manifest says of its photos --------------------------------------------------------


def test_photos_that_are_not_there_are_problems(tmp_path: Path) -> None:
    text = "path,label\n1.png,a\ngone.png,b\n2.png,b\n/no/such/3.png,a\n"
    file = manifest(tmp_path, text)
    found = find_photos(file)
    assert labelled(found) == [(f"{tmp_path}/1.png", "a"), (f"{tmp_path}/2.png", "b")]
    reason = "No such file or directory"
    assert found.problems == (
        f"cannot read the image /no/such/3.png: {reason} (line 5 of {file})",
        f"cannot read the image {tmp_path}/gone.png: {reason} (line 3 of {file})",
    )


def test_a_folder_and_a_pipe_are_no_photos(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    file = manifest(tmp_path, "path,label\n1.png,a\n2.png,b\n.,a\npipe.png,b\n")
    found = find_photos(file)
    assert len(found.paths) == 2
    assert [problem.partition(": ")[2] for problem in found.problems] == [
        f"not a file but a folder, a pipe or a device (line {line} of {file})"
        for line in (4, 5)
    ]


def test_a_class_whose_photos_are_all_gone_stays_a_class(tmp_path: Path) -> None:
    found = find_photos(manifest(tmp_path, "path,label\n1.png,a\ngone.png,b\n2.png,c\n"))
    assert found.labels == ("a", "b", "c")
    assert found.class_index.tolist() == [0, 2]


def test_no_photo_is_there(tmp_path: Path) -> None:
    file = manifest(tmp_path, "path,label\nx.png,a\ny.png,b\n")
    with pytest.raises(NoImagesError) as caught:
        find_photos(file)
    assert str(caught.value).startswith(
        f"none of the photos that {file} names is there; the first: cannot read the image"
    )


def test_folders_as_windows_writes_them(tmp_path: Path) -> None:
    file = manifest(tmp_path, "path,label\nphotos\\1.png,a\n2.png,b\n")
    (problem,) = find_photos(file).problems
    assert problem == (
        f"cannot read the image {tmp_path}/photos\\1.png: No such file or directory, "
        f"write / instead of \\ (line 2 of {file})"
    )


def test_a_photo_named_twice_with_one_label_is_used_once(tmp_path: Path) -> None:
    text = "path,label\n2.png,b\n1.png,a\n./1.png,a\n1.png,a\n.//2.png,b\n3.png,b\n"
    file = manifest(tmp_path, text)
    found = find_photos(file)
    assert labelled(found) == [
        (f"{tmp_path}/1.png", "a"),
        (f"{tmp_path}/2.png", "b"),
        (f"{tmp_path}/3.png", "b"),
    ]
    assert found.notes == (
        f"{file} names 2 photos more than once with one label; each is used once",
    )


def test_one_photo_named_twice(tmp_path: Path) -> None:
    file = manifest(tmp_path, "path,label\n1.png,a\n1.png,a\n2.png,b\n")
    assert find_photos(file).notes == (
        f"{file} names 1 photo more than once with one label; each is used once",
    )


def test_a_photo_with_two_labels_is_refused(tmp_path: Path) -> None:
    file = manifest(tmp_path, "path,label\n1.png,a\n2.png,b\n\n./1.png,b\n")
    assert refusal(file) == (
        f"{file} gives 1.png two labels: 'a' in line 2 and 'b' in line 5; take one out"
    )


def test_splits(tmp_path: Path) -> None:
    text = "path,label,split\n1.png,a,train\n2.png,b,train\n3.png,a,test\n4.png,b,test\n"
    file = manifest(tmp_path, text)
    found = find_photos(file, split="test")
    assert labelled(found) == [(f"{tmp_path}/3.png", "a"), (f"{tmp_path}/4.png", "b")]
    assert found.notes == ()
    found = find_photos(file)
    assert len(found.paths) == 4
    (note,) = found.notes
    assert note == (
        f"the photos of all splits of {file} are used: 'test' (2), 'train' (2); "
        "choose one with --split"
    )
    assert refusal(file, split="val") == (
        f"{file} has no photos of the split 'val'; it has: 'test' (2), 'train' (2)"
    )


def test_a_photo_of_two_splits_is_no_contradiction_in_one(tmp_path: Path) -> None:
    text = "path,label,split\n1.png,a,train\n2.png,b,train\n1.png,b,test\n3.png,a,test\n"
    file = manifest(tmp_path, text)
    assert len(find_photos(file, split="train").paths) == 2
    assert "1.png two labels" in refusal(file)


def test_a_split_of_a_manifest_without_splits(tmp_path: Path) -> None:
    file = manifest(tmp_path, "path,label\n1.png,a\n2.png,b\n")
    assert refusal(file, split="train").endswith("it has no column split")


def test_the_order_is_that_of_labels_and_names(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(1, 10)]
    rng = np.random.default_rng(3)
    want = None
    for _ in range(3):
        rows = [f"{names[i]},{'ab'[i % 2]}" for i in rng.permutation(9)]
        found = labelled(find_photos(manifest(tmp_path, "\n".join(["path,label", *rows]))))
        assert found == sorted(found, key=lambda pair: (pair[1], pair[0]))
        want = want or found
        assert found == want


# Parquet -----------------------------------------------------------------------------------


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    csv = manifest(tmp_path, "path,label\n2.png,b\n1.png,a\ngone.png,b\n3.png,b\n1.png,a\n")
    columns = {
        "path": ["2.png", "1.png", "gone.png", "3.png", "1.png"],
        "label": list("babba"),
    }
    file = parquet(tmp_path, columns)
    got, want = find_photos(file), find_photos(csv)
    assert labelled(got) == labelled(want)
    assert got.problems == (want.problems[0].replace(f"line 4 of {csv}", f"row 3 of {file}"),)
    assert len(got.notes) == 1


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([0, 12], pa.int8()),
        pa.array(["0", "12"]).dictionary_encode(),
        pa.array(["0", "12"], pa.large_string()),
    ],
)
def test_parquet_labels_of_other_types(tmp_path: Path, labels: pa.Array) -> None:
    manifest(tmp_path, "")
    columns = {
        "path": ["1.png", "2.png"],
        "label": labels,
        "split": ["x", "y"],
        "more": [1, 2],
    }
    file = parquet(tmp_path, columns)
    found = find_photos(file)
    assert found.labels == ("0", "12")
    assert found.notes[0] == f"columns of {file} that are not used: 'more'"
    assert "all splits" in found.notes[1]
    with pytest.raises(TooFewClassesError):
        find_photos(file, split="y")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"file": ["1.png"], "label": ["a"]}, "has no column path; rename 'file' to path"),
        ({"x": ["1.png"]}, "must have the columns path and label, it has: 'x'"),
        ({"path": [b"1"], "label": ["a"]}, "holds binary; it must hold text"),
        ({"path": ["1"], "label": [0.5]}, "holds double; it must hold text or whole numbers"),
        ({"path": ["1", None], "label": ["a", "b"]}, ", row 2: path or label is empty"),
        (
            {"path": ["1", "2", "3"], "label": ["a", "b", ""]},
            ", row 3: path or label is empty",
        ),
        (
            {"path": ["1", "2", "1"], "label": ["a", "b", "b"]},
            "gives 1 two labels: 'a' in row 1 and 'b' in row 3; take one out",
        ),
    ],
)
def test_parquet_that_is_refused(
    tmp_path: Path, columns: dict[str, object], said: str
) -> None:
    assert refusal(parquet(tmp_path, columns)).endswith(said)


def test_parquet_that_is_damaged(tmp_path: Path) -> None:
    file = parquet(tmp_path, {"path": ["1.png"] * 50, "label": ["a", "b"] * 25})
    data = file.read_bytes()
    for broken in (b"", data[:-9], data[:50], b"path,label\n1.png,a\n"):
        file.write_bytes(broken)
        assert refusal(file).startswith(f"cannot read {file} as Parquet: ")


def test_parquet_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = parquet(tmp_path, {"path": ["1.png"], "label": ["a"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match=r"needs the package 'pyarrow'.*\[data\]"):
        find_photos(file)

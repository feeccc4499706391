# SPDX-License-Identifier: Apache-2.0
"""Finding labelled photos in class folders. Nothing is decoded, so files are empty."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_imprint.photos import SUFFIXES, Photos, find_photos, image_files
from edge_imprint_runtime.errors import (
    ContractValueError,
    EdgeImprintError,
    NoImagesError,
    TooFewClassesError,
)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


def listed(photos: Photos, root: Path) -> list[tuple[str, str]]:
    return [
        (path.relative_to(root).as_posix(), photos.labels[c])
        for path, c in zip(photos.paths, photos.class_index, strict=True)
    ]


# Folders -----------------------------------------------------------------------------------


def test_sorted_by_class_and_name_whatever_the_order_on_disk(tmp_path: Path) -> None:
    names = ["b/2.png", "a/10.png", "b/1.jpg", "a/9.png", "B/x.png", "a/Z.png"]
    want = [
        ("B/x.png", "B"),
        ("a/10.png", "a"),
        ("a/9.png", "a"),
        ("a/Z.png", "a"),
        ("b/1.jpg", "b"),
        ("b/2.png", "b"),
    ]
    for name, order in (("one", names), ("two", names[::-1])):
        root = touch(tmp_path / name, *order)
        found = find_photos(root)
        assert found.labels == ("B", "a", "b")
        assert listed(found, root) == want
        assert found.ignored_files == 0


def test_labels_with_spaces_unicode_and_newline(tmp_path: Path) -> None:
    names = ("two words", "größe", "日本", "line\nbreak", " lead", 'q"uote', "a,b", "-x", "ß")
    root = touch(tmp_path, *(f"{name}/1.png" for name in names))
    assert find_photos(root).labels == tuple(sorted(names))


def test_other_files_are_ignored_and_counted(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        "a/1.png",
        "b/1.png",
        "readme.txt",  # among the classes
        "loose.png",  # an image of no class
        "a/notes.txt",
        "a/.DS_Store",
        "a/._1.png",  # a Mac's fork, no image
        "b/Thumbs.db",
        "b/png",  # no suffix
    )
    found = find_photos(root)
    assert len(found.paths) == 2
    assert found.ignored_files == 6
    assert found.notes == ("1 images lie outside the class folders and were left out",)


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/1.png", ".git/1.png", ".ipynb_checkpoints/2.png")
    assert find_photos(root).labels == ("a", "b")


def test_every_suffix_in_any_case(tmp_path: Path) -> None:
    names = [f"a/{i}{suffix}" for i, suffix in enumerate(sorted(SUFFIXES))]
    names += [f"b/{i}{suffix.upper()}" for i, suffix in enumerate(sorted(SUFFIXES))]
    assert len(find_photos(touch(tmp_path, *names)).paths) == 2 * len(SUFFIXES)


def test_photos_may_lie_deeper(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/x/y/z/1.png", "a/2.png", "b/2024/07/1.png")
    assert listed(find_photos(root), root) == [
        ("a/2.png", "a"),
        ("a/x/y/z/1.png", "a"),
        ("b/2024/07/1.png", "b"),
    ]


def test_an_empty_class_folder_is_no_class(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/1.png")
    (root / "c").mkdir()
    assert find_photos(root).labels == ("a", "b")


def test_links_to_folders_and_files_are_followed(tmp_path: Path) -> None:
    store = touch(tmp_path / "store", "cats/1.png", "cats/2.png", "dog.png")
    root = touch(tmp_path / "data", "dog/0.png")
    (root / "cat").symlink_to(store / "cats")
    (root / "dog" / "link.png").symlink_to(store / "dog.png")
    (root / "dog" / "gone.png").symlink_to(store / "nowhere.png")
    assert listed(find_photos(root), root) == [
        ("cat/1.png", "cat"),
        ("cat/2.png", "cat"),
        ("dog/0.png", "dog"),
        ("dog/gone.png", "dog"),  # listed; it is reported when it can't be opened
        ("dog/link.png", "dog"),
    ]


def test_loops_of_links_end(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "a/deep/2.png", "b/1.png")
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "deep" / "up").symlink_to(root / "a")
    (root / "b" / "all").symlink_to(root / "b", target_is_directory=True)
    (root / "b" / "itself").symlink_to(root / "b" / "itself")
    found = find_photos(root)
    assert listed(found, root) == [
        ("a/1.png", "a"),
        ("a/deep/2.png", "a"),
        ("b/1.png", "b"),
    ]


def test_what_may_never_end_is_no_photo(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/1.png")
    os.mkfifo(root / "a" / "pipe.png")
    (root / "b" / "linked.png").symlink_to(root / "a" / "pipe.png")
    found = find_photos(root)
    assert listed(found, root) == [("a/1.png", "a"), ("b/1.png", "b")]
    assert found.ignored_files == 2


def test_one_class(tmp_path: Path) -> None:
    with pytest.raises(TooFewClassesError) as caught:
        find_photos(touch(tmp_path, "a/1.png", "a/2.png"))
    assert str(caught.value) == (
        f"{tmp_path} holds one class only ('a'); a classifier needs at least two"
    )


@pytest.mark.parametrize("names", [(), ("a/1.txt", "b/2.txt"), (".a/1.png",)])
def test_no_images(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(NoImagesError) as caught:
        find_photos(touch(tmp_path, *names))
    kinds = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
    assert str(caught.value) == (
        f"{tmp_path} holds no images ({kinds}) in class subfolders; "
        f"put each class's photos into {tmp_path / 'CLASS'}/"
    )


def test_images_of_one_class_alone(tmp_path: Path) -> None:
    with pytest.raises(NoImagesError) as caught:
        find_photos(touch(tmp_path, "1.png", "2.png"))
    assert str(caught.value) == (
        f"{tmp_path} holds images, but none in class subfolders; put each class's photos into "
        f"{tmp_path / 'CLASS'}/, or name the folder above if these are the photos of one class"
    )


def test_the_folder_above_the_class_folders(tmp_path: Path) -> None:
    with pytest.raises(TooFewClassesError) as caught:
        find_photos(touch(tmp_path, "photos/a/1.png", "photos/b/1.png"))
    assert str(caught.value) == (
        f"{tmp_path} holds one class only ('photos'); a classifier needs at least two; the "
        "classes are 'photos', whose photos lie in subfolders; if those are the classes, name "
        f"one of these folders instead of {tmp_path}"
    )


def test_no_name_is_not_the_folder_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(touch(tmp_path, "a/1.png", "b/1.png"))
    assert len(find_photos(".").paths) == 2
    with pytest.raises(NoImagesError, match="the name of the data is empty; name a folder"):
        find_photos("")


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(NoImagesError) as caught:
        find_photos(tmp_path / "gone")
    assert str(caught.value) == (
        f"there is no folder or file {tmp_path / 'gone'}; name a folder with one subfolder "
        "a class, a CSV or Parquet file, or tar shards"
    )


@pytest.mark.parametrize("name", ["", "nul\0byte", "x" * 300, "\udcff"])
def test_an_odd_name_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(EdgeImprintError):
        find_photos(name or "\0")


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has UTF-8 names only")
def test_a_folder_name_that_is_not_utf8(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png")
    bad = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(bad)
    with open(bad + b"/1.png", "wb"):
        pass
    with pytest.raises(ContractValueError) as caught:
        find_photos(tmp_path)
    assert str(caught.value) == ("label 'caf\\udce9' is not valid Unicode text; rename it")


def test_a_file_name_that_is_not_utf8_is_fine(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    with open(os.fsencode(tmp_path) + b"/a/caf\xe9.png", "wb"):
        pass
    assert len(find_photos(tmp_path).paths) == 3


def test_a_folder_that_may_not_be_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    if os.geteuid() == 0:
        pytest.skip("root may list every folder")
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(NoImagesError, match=r"^cannot list the folder .*/b: Permission"):
            find_photos(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o755)


def test_image_files_of_one_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a/c.JPG", "x.txt", "._b.png")
    assert image_files(tmp_path) == ([tmp_path / "a/c.JPG", tmp_path / "b.png"], 2)


def test_a_name_that_looks_like_a_pattern_is_a_folder_first(tmp_path: Path) -> None:
    root = touch(tmp_path / "x-{1..3}[ab]*", "a/1.png", "b/1.png")
    assert find_photos(root).labels == ("a", "b")


def test_folders_nested_deeper_than_python_calls_itself(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/1.png")
    here = os.getcwd()
    try:
        os.chdir(root / "a")
        for _ in range(1050):
            os.mkdir("d")
            os.chdir("d")
        assert len(find_photos(root).paths) == 2
    finally:
        os.chdir(here)
        # pytest's own cleaning calls itself once for each folder.
        subprocess.run(["rm", "-rf", str(root / "a")], check=True)


def test_a_split_is_a_subfolder(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/2.png", "test/b/2.png")
    found = find_photos(root, split="test")
    assert listed(found, root) == [("test/a/2.png", "a"), ("test/b/2.png", "b")]
    for split in ("val", ".", "..", ""):
        with pytest.raises(NoImagesError) as caught:
            find_photos(root, split=split)
        assert str(caught.value) == (
            f"{root} has no folder {split!r} for that split; name one that it has"
        )


def test_the_class_index_is_int64(tmp_path: Path) -> None:
    found = find_photos(touch(tmp_path, "a/1.png", "b/1.png", "b/2.png"))
    assert found.class_index.dtype == np.int64
    assert found.class_index.tolist() == [0, 1, 1]

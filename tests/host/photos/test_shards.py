# SPDX-License-Identifier: Apache-2.0
"""Photos in tar shards: samples, labels, patterns; shards that are cut short, or hostile."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import pytest

from edge_imprint.photos import Member, Photos, find_photos
from edge_imprint.photos.locations import MAX_PHOTO_BYTES
from edge_imprint.photos.patterns import expand_braces, is_pattern
from edge_imprint_runtime.errors import (
    NoImagesError,
    ParameterError,
    ShardError,
    TooFewClassesError,
)
from tests.host.photos.shard_maker import header, padded, write_shard


def labelled(photos: Photos) -> dict[str, str]:
    """Return each photo's shard, name and label; its bytes must be its own name's."""
    made = {}
    for path, c in zip(photos.paths, photos.class_index.tolist(), strict=True):
        assert isinstance(path, Member)
        assert path.read_bytes() == path.name.encode()
        made[f"{Path(str(path.archive)).name}:{path.name}"] = photos.labels[c]
    return made


def sample(key: str, ending: str = "jpg", **others: object) -> dict[str, bytes]:
    name = f"{key}.{ending}"
    made = {name: name.encode()}
    for end, value in others.items():
        text = json.dumps(value) if end == "json" else str(value)
        made[f"{key}.{end}"] = text.encode()
    return made


# Labels --------------------------------------------------------------------------------------


def test_a_label_is_text_beside_the_photo(tmp_path: Path) -> None:
    files = {
        **sample("0001", cls="pear\n"),
        **sample("0002", "PNG", json={"label": "apple", "caption": "x"}),
        **sample("0003", "webp", json={"class": "pear", "x": [1]}, txt="a caption"),
        **sample("d/0004", json={"cls": "apple"}),
        **sample("d/0005", cls=" a fruit, größer ", json={"label": "not this"}),
    }
    found = find_photos(write_shard(tmp_path / "x.tar", files))
    assert labelled(found) == {
        "x.tar:0001.jpg": "pear",
        "x.tar:0002.PNG": "apple",
        "x.tar:0003.webp": "pear",
        "x.tar:d/0004.jpg": "apple",
        "x.tar:d/0005.jpg": "a fruit, größer",
    }
    assert (found.notes, found.problems, found.ignored_files) == ((), (), 0)


@pytest.mark.parametrize("name", ["classes.txt", "labels.txt"])
def test_numbers_are_named_by_a_file_beside_the_shards(tmp_path: Path, name: str) -> None:
    files = {**sample("1", cls=2), **sample("2", json={"label": 0}), **sample("3", cls="02")}
    shard = write_shard(tmp_path / "x.tar", files)
    found = find_photos(shard)
    assert found.labels == ("0", "02", "2")
    assert "a classes.txt beside the shards" in found.notes[0]
    (tmp_path / name).write_text("\ufeffzero\n one \ntwo\n\n", encoding="utf-8")
    found = find_photos(shard)
    assert sorted(labelled(found).values()) == ["two", "two", "zero"]
    assert found.labels == ("two", "zero")
    assert found.notes == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "a\nb\n",
            "a label in the shards is 2, but {} names 2 classes, 0 to 1; mend that file",
        ),
        (
            "a\nb\na\n",
            "{}, line 3: names 'a' again (first in line 1); give each class its own",
        ),
        ("a\n\nb\n", "{}, line 2: empty; give each class its own name"),
        (b"caf\xe9\n", "{} is no text in UTF-8; save it so"),
    ],
)
def test_a_file_of_names_that_names_them_wrongly(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    shard = write_shard(tmp_path / "x.tar", {**sample("1", cls=2), **sample("2", cls=0)})
    names = tmp_path / "classes.txt"
    names.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ShardError) as caught:
        find_photos(shard)
    assert str(caught.value).startswith(said.format(names))


def test_text_labels_leave_the_file_of_names_alone(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    shard = write_shard(tmp_path / "x.tar", {**sample("1", cls=1), **sample("2", cls="b c")})
    assert find_photos(shard).labels == ("1", "b c")


@pytest.mark.parametrize("above", ["", "photos/", "./data/photos/", "/abs/", "../up/"])
def test_a_label_is_the_folder_in_the_shard(tmp_path: Path, above: str) -> None:
    names = [f"{above}pear/1.jpg", f"{above}apple/deep/2.v2.jpg", f"{above}apple/2.jpg"]
    found = find_photos(write_shard(tmp_path / "x.tar", {n: n.encode() for n in names}))
    assert list(labelled(found).values()) == ["apple", "apple", "pear"]
    shared = "/".join(part for part in above.split("/") if part.strip("."))
    note = f"the classes are the folders below {shared!r} in the shards"
    assert found.notes == ((note,) if shared else ())


def test_samples_without_a_label_are_problems(tmp_path: Path) -> None:
    files = {
        **sample("1", cls="a"),
        **sample("2", cls="b"),
        **sample("3"),
        **sample("4", cls=" \n"),
        **sample("5", json={"label": 0.5}),
        **sample("6", json=["label"]),
        **sample("7", cls="x" * 5000),
        "8.jpg": b"8.jpg",
        "8.json": b"{",
        "9.jpg": b"9.jpg",
        "9.cls": b"\xff",
        "9a.jpg": b"",
        "9a.json": b"[" * 100_000,
        "9b.txt": b"a caption of no photo",
        "notes": b"",
        ".hidden.jpg": b"",
    }
    found = find_photos(write_shard(tmp_path / "x.tar", files))
    assert len(found.paths) == 2
    assert found.ignored_files == 3
    start = f"the image {tmp_path}/x.tar:"
    said = {text.removeprefix(start)[:2]: text for text in found.problems}
    assert sorted(said) == ["3.", "4.", "5.", "6.", "7.", "8.", "9.", "9a"]
    assert said["3."] == (
        f"{start}3.jpg has no label (no .cls, no label in .json, no folder); add one, "
        "or take it out"
    )
    assert "its .json can't be read" in said["5."]
    assert "its .cls is too large (5,000 bytes)" in said["7."]
    assert "its .json can't be read" in said["8."]
    assert "its .cls can't be read" in said["9."]


def test_no_sample_has_a_label(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "x.tar", sample("1"))
    with pytest.raises(NoImagesError) as caught:
        find_photos(shard)
    assert str(caught.value).startswith(
        f"no photo with a label is in the shards of {shard}; the first problem: the image"
    )
    with pytest.raises(
        NoImagesError, match=r"no photo with a label is in the shards of .*x.tar$"
    ):
        find_photos(write_shard(tmp_path / "x.tar", {"a.txt": b""}))
    with pytest.raises(TooFewClassesError):
        find_photos(write_shard(tmp_path / "x.tar", sample("1", cls="a")))


def test_a_sample_of_several_photos(tmp_path: Path) -> None:
    files = {
        "1.jpg": b"1.jpg",
        "1.png": b"1.png",
        "1.cls": b"a",
        "2.seg.png": b"a mask, for 2.jpg is there",
        "2.jpg": b"2.jpg",
        "2.cls": b"b",
    }
    found = find_photos(write_shard(tmp_path / "x.tar", files))
    assert labelled(found) == {"x.tar:1.jpg": "a", "x.tar:2.jpg": "b"}
    assert found.notes == ("1 samples hold several photos; the first of each was used",)


def test_of_one_name_twice_the_later_file_stands(tmp_path: Path) -> None:
    files = [("a/1.jpg", b"old"), ("b/2.jpg", b"b/2.jpg"), ("a/1.jpg", b"a/1.jpg")]
    found = find_photos(write_shard(tmp_path / "x.tar", files))
    assert labelled(found) == {"x.tar:a/1.jpg": "a", "x.tar:b/2.jpg": "b"}
    assert found.notes[0].startswith("1 names are twice in one shard; the later file stands")


# Shards --------------------------------------------------------------------------------------


def write_set(root: Path, count: int = 3) -> dict[str, str]:
    want = {}
    for i in range(count):
        files = {}
        for key, label in ((f"{i}-b", "pear"), (f"{i}-a", "apple")):
            files |= sample(key, cls=label)
            want[f"x-{i:03}.tar:{key}.jpg"] = label
        write_shard(root / f"x-{i:03}.tar", files)
    return want


@pytest.mark.parametrize("pattern", ["", "x-{000..002}.tar", "x-*.tar", "x-00[0-2].tar"])
def test_a_folder_and_patterns_of_shards(tmp_path: Path, pattern: str) -> None:
    want = write_set(tmp_path)
    (tmp_path / "readme.txt").touch()
    found = find_photos(f"{tmp_path}/{pattern}" if pattern else tmp_path)
    assert labelled(found) == want
    assert found.class_index.tolist() == [0, 0, 0, 1, 1, 1]
    order = [str(path) for path in found.paths]
    assert order == sorted(order[:3]) + sorted(order[3:])


def test_a_folder_of_shards_from_a_system_that_shouts(tmp_path: Path) -> None:
    write_shard(tmp_path / "X.TAR", {**sample("1", cls="a"), **sample("2", cls="b")})
    assert len(find_photos(tmp_path).paths) == 2


def test_some_of_the_shards(tmp_path: Path) -> None:
    want = write_set(tmp_path)
    some = {name: label for name, label in want.items() if "x-001" not in name}
    assert labelled(find_photos(f"{tmp_path}/x-{{000,002}}.tar")) == some
    found = find_photos(f"{tmp_path}/{{x-00[02],y*}}.tar")
    assert labelled(found) == some


def test_patterns_that_match_nothing(tmp_path: Path) -> None:
    write_set(tmp_path)
    with pytest.raises(ShardError) as caught:
        find_photos(f"{tmp_path}/x-{{000..003}}.tar")
    pattern = f"{tmp_path}/x-{{000..003}}.tar"
    assert str(caught.value) == (
        f"there is no shard {tmp_path}/x-003.tar; mend the pattern {pattern}"
    )
    (tmp_path / "y-0").mkdir()
    for none in ("y-*.tar", "y-*"):  # a folder is no shard
        with pytest.raises(NoImagesError, match="no shard matches"):
            find_photos(f"{tmp_path}/{none}")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("x.tar", ["x.tar"]),
        ("x-{8..11}", ["x-8", "x-9", "x-10", "x-11"]),
        ("x-{08..11}", ["x-08", "x-09", "x-10", "x-11"]),
        ("x-{2..1}", ["x-2", "x-1"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("x{,y}", ["x", "xy"]),
        ("{plain}", ["{plain}"]),
        ("a{1..x}", ["a1..x"]),
    ],
)
def test_braces(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names
    assert is_pattern(pattern) == (pattern not in ("x.tar", "{plain}"))


@pytest.mark.parametrize("pattern", ["{0..999999999}", "{0..999}{0..999}", "{0..1}" * 20])
def test_braces_without_end(pattern: str) -> None:
    with pytest.raises(ShardError, match=r"shards, the limit is 100,000; name fewer"):
        find_photos(f"/nowhere/{pattern}.tar")


def test_a_split_of_shards(tmp_path: Path) -> None:
    want = write_set(tmp_path / "train")
    write_set(tmp_path / "val", 1)
    assert labelled(find_photos(tmp_path, split="train")) == want
    with pytest.raises(ParameterError, match=r"have no splits; .* as in val-\*\.tar"):
        find_photos(tmp_path / "train" / "x-000.tar", split="val")


def test_class_folders_come_before_shards(tmp_path: Path) -> None:
    write_set(tmp_path)
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").touch()
    assert find_photos(tmp_path).labels == ("a", "b")


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar"])
def test_a_compressed_shard_is_refused(tmp_path: Path, name: str) -> None:
    data = write_shard(tmp_path / "plain.tar", sample("1", cls="a")).read_bytes()
    (tmp_path / "plain.tar").unlink()
    (tmp_path / name).write_bytes(gzip.compress(data))
    for given in (tmp_path / name, tmp_path):
        with pytest.raises(ShardError) as caught:
            find_photos(given)
        assert str(caught.value) == (
            f"the shard {tmp_path / name} is compressed (gzip), and photos can't be read out "
            "of the middle of it; unpack it to a .tar, which is hardly larger"
        )


# Damage and malice ---------------------------------------------------------------------------


def test_of_a_shard_cut_short_what_is_whole_is_used(tmp_path: Path) -> None:
    want = write_set(tmp_path, 2)
    shard = tmp_path / "x-001.tar"
    shard.write_bytes(shard.read_bytes()[:2563])  # inside its second sample's photo
    found = find_photos(tmp_path)
    del want["x-001.tar:1-a.jpg"]
    assert labelled(found) == want
    (problem,) = found.problems
    assert problem == (
        f"the shard {shard} is cut short after 2,563 bytes, inside 1-a.jpg; 1 photos before "
        "that are used, copy the shard again for the others"
    )


def test_a_photo_whose_label_was_cut_off_is_no_second_problem(tmp_path: Path) -> None:
    want = write_set(tmp_path, 2)
    shard = tmp_path / "x-001.tar"
    shard.write_bytes(shard.read_bytes()[:3100])  # its second photo is whole, its .cls is not
    found = find_photos(tmp_path)
    del want["x-001.tar:1-a.jpg"]
    assert labelled(found) == want
    assert len(found.problems) == 1


def test_a_shard_that_shrinks_later_is_an_unreadable_photo(tmp_path: Path) -> None:
    write_set(tmp_path, 1)
    found = find_photos(tmp_path)
    (tmp_path / "x-000.tar").write_bytes(b"")
    with pytest.raises(OSError, match="the shard ends after 0 of its 7 bytes"):
        found.paths[0].read_bytes()


def test_links_are_never_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, kind in (("a/1.jpg", tarfile.SYMTYPE), ("a/2.jpg", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            tar.addfile(info)
        info = tarfile.TarInfo("a")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
        for name in ("/etc/3.jpg", "../../b/4.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            (tmp_path / "data").write_text(name)
            with open(tmp_path / "data", "rb") as file:
                tar.addfile(info, file)
    found = find_photos(tmp_path / "x.tar")
    assert labelled(found) == {"x.tar:/etc/3.jpg": "etc", "x.tar:../../b/4.jpg": "b"}
    assert found.notes == ("2 links or devices in the shards were left out",)


def test_a_photo_larger_than_any_camera_s(tmp_path: Path) -> None:
    shard = tmp_path / "x.tar"
    size = MAX_PHOTO_BYTES + 512
    with open(shard, "wb") as file:  # sparse: no disk is filled
        for name in ("a/1.jpg", "b/2.jpg"):
            file.write(header(name.encode(), len(name)) + padded(name.encode()))
        file.write(header(b"a/huge.jpg", size))
        file.seek(size, 1)
        file.write(bytes(1024))
    found = find_photos(shard)
    assert labelled(found) == {"x.tar:a/1.jpg": "a", "x.tar:b/2.jpg": "b"}
    (problem,) = found.problems
    assert problem == (
        f"the image {shard}:a/huge.jpg has {size:,} bytes, the limit is "
        f"{MAX_PHOTO_BYTES:,}; take it out"
    )


@pytest.mark.parametrize("data", [b"", b"no tar at all " * 99])
def test_one_shard_that_is_none(tmp_path: Path, data: bytes) -> None:
    write_set(tmp_path)
    (tmp_path / "x-001.tar").write_bytes(data)
    with pytest.raises(ShardError) as caught:
        find_photos(tmp_path)
    what = "is no tar file" if data else "is empty"
    assert str(caught.value) == (
        f"the shard {tmp_path}/x-001.tar {what}; copy it again, or take it out"
    )


def test_a_shard_that_cannot_be_read(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "x-001.tar").unlink()
    (tmp_path / "x-001.tar").mkdir()
    with pytest.raises(
        ShardError, match=r"^cannot read the shard .*x-001.tar: Is a directory$"
    ):
        find_photos(tmp_path)

# SPDX-License-Identifier: Apache-2.0
"""Tar headers, against Python's own reader; and damaged in every way."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.photos.tar_headers import Entry, TarReader
from edge_imprint_runtime.errors import ShardError
from tests.host.photos.shard_maker import FORMATS, header, padded, write_shard

END = bytes(1024)


def read(data: bytes) -> tuple[list[Entry], str]:
    reader = TarReader(io.BytesIO(data), len(data), "x.tar")
    return list(reader.entries()), reader.cut


names = st.lists(
    st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1)
    .filter(lambda name: name.strip(".") != "")
    .map(lambda name: name[:60]),
    min_size=1,
    max_size=6,
).map("/".join)


@given(
    st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=6),
    st.sampled_from(["gnu", "pax"]),
)
def test_what_python_writes_is_found_where_it_lies(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, bytes]], form: str
) -> None:
    data = write_shard(tmp_path_factory.mktemp("t") / "x.tar", files, form).read_bytes()
    found, cut = read(data)
    assert cut == ""
    assert [(e.name.decode(), data[e.offset : e.offset + e.size]) for e in found] == files
    assert all(entry.is_file for entry in found)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(m.offset_data, m.size) for m in tar] == [(e.offset, e.size) for e in found]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["a" * 99, "d/" * 60 + "x.jpg", "n" * 100])
def test_names_of_every_length(tmp_path: Path, form: str, name: str) -> None:
    (entry,), cut = read(write_shard(tmp_path / "x.tar", {name: b"1"}, form).read_bytes())
    assert (entry.name.decode(), cut) == (name, "")


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_names_longer_than_a_header(tmp_path: Path, form: str) -> None:
    name = "/".join(["größe" * 20] * 5) + "/日本.jpg"
    found, cut = read(
        write_shard(tmp_path / "x.tar", {name: b"12", "b": b""}, form).read_bytes()
    )
    assert ([entry.name.decode() for entry in found], cut) == ([name, "b"], "")


def test_what_is_no_plain_file_is_said_to_be_none(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"name{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    found, cut = read((tmp_path / "x.tar").read_bytes())
    assert [entry.is_file for entry in found] == [False] * 4
    assert cut == ""


def test_a_size_in_pax_and_in_base_256() -> None:
    record = b"12 size=700\n"
    data = header(b"p", len(record), b"x") + padded(record) + header(b"a", 0) + bytes(1024)
    (entry,), _ = read(data + END)
    assert (entry.name, entry.size) == (b"a", 700)
    data = header(b"a", b"\x80" + (700).to_bytes(11, "big")) + bytes(1024) + END
    (entry,), cut = read(data)
    assert (entry.size, cut) == (700, "")


@pytest.mark.parametrize(
    "record",
    [
        *(b"", b"path", b"999 path=x\n", b"0 path=x\n", b"-5 path=x\n", b"9" * 600),
        *(b"3 \n" * 9, b"11 size=-1\n", b"\xff" * 40, b" " * 30, b"12 size=\xb2\xb2\xb2\n"),
    ],
)
def test_a_pax_record_that_says_nothing_is_passed_over(record: bytes) -> None:
    data = header(b"p", len(record), b"x") + padded(record) + header(b"a", 3) + padded(b"abc")
    (entry,), cut = read(data + END)
    assert (entry.name, entry.size, cut) == (b"a", 3, "")


GOOD = header(b"a.jpg", 600) + padded(bytes(600))


@pytest.mark.parametrize(
    ("data", "cut"),
    [
        (GOOD + END, ""),
        (GOOD + bytes(512), ""),
        (GOOD, "is cut short after 1,536 bytes (it lacks its end mark)"),
        (GOOD + GOOD[:300], "is cut short after 1,836 bytes, inside a header"),
        (GOOD + GOOD[:700], "is cut short after 2,236 bytes, inside a.jpg"),
        (GOOD + b"x" * 512 + END, "is damaged at byte 1,536"),
        (GOOD + header(b"b", 2**40) + END, "is cut short after 3,072 bytes, inside b"),
        (GOOD + header(b"b", 2**40, b"L") + END, "is cut short after 3,072 bytes, inside b"),
        (GOOD + header(b"b", b"\xff" * 12), "is damaged at byte 1,536 (a size below zero)"),
        (GOOD + header(b"b", b"89"), "is damaged at byte 1,536 (a size below zero)"),
        (
            GOOD + header(b"b", b"\x80" + b"\xff" * 11),
            "is cut short after 2,048 bytes, inside b",
        ),
        (
            GOOD + header(b"b", 2**21, b"x") + bytes(2**21) + END,
            "is damaged at byte 1,536 (an endless name)",
        ),
    ],
)
def test_what_is_whole_before_the_damage_is_found(data: bytes, cut: str) -> None:
    found, said = read(data)
    assert [(entry.name, entry.offset, entry.size) for entry in found] == [
        (b"a.jpg", 512, 600)
    ]
    assert said == cut


def test_every_cut_of_a_shard_is_noticed(tmp_path: Path) -> None:
    files = {f"{i}.jpg": b"x" * 700 for i in range(3)}
    data = write_shard(tmp_path / "x.tar", files, "ustar").read_bytes()
    body = 3 * (512 + 1024)
    for length in range(512, body + 1, 64):
        found, cut = read(data[:length])
        assert cut.startswith(f"is cut short after {length:,} bytes")
        assert len(found) == sum(length >= i * 1536 + 512 + 700 for i in range(3))
    assert read(data[: body + 512])[1] == ""


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"x" * 511, "is no tar file"),
        (b"x" * 5000, "is no tar file"),
        (b"\xff\xd8\xff\xe0" * 600, "is no tar file"),
        (GOOD[:500], "is no tar file"),
        (
            b"\x1f\x8b" + bytes(900),
            "is compressed (gzip), and photos can't be read out of the",
        ),
        (b"\x28\xb5\x2f\xfd" + bytes(900), "is compressed (zstd)"),
    ],
)
def test_what_is_no_shard_at_all(data: bytes, what: str) -> None:
    with pytest.raises(ShardError) as caught:
        read(data)
    assert str(caught.value).startswith(f"the shard x.tar {what}")


def test_a_name_that_begins_like_a_compressed_file() -> None:
    (entry,), _ = read(header(b"BZh.jpg", 1) + padded(b"1") + END)
    assert entry.name == b"BZh.jpg"


@given(st.binary(min_size=512, max_size=4096), st.data())
def test_any_bytes_end(data: bytes, draw: st.DataObject) -> None:
    whole = GOOD + data
    found, _ = read(whole)
    assert all(0 <= e.offset <= e.offset + e.size <= len(whole) for e in found)
    spoilt = bytearray(GOOD + GOOD + END)
    for place in draw.draw(st.lists(st.integers(512, len(spoilt) - 1), max_size=5)):
        spoilt[place] = draw.draw(st.integers(0, 255))
    found, _ = read(bytes(spoilt))
    assert found[0].name == b"a.jpg"

# SPDX-License-Identifier: Apache-2.0
"""Photos decoded in C: the pixels of Python's `open_image`; of bad ones its verdict."""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_imprint.photos import SUFFIXES, expand_photos
from edge_imprint_runtime.errors import (
    BrokenImageError,
    ImageTooLargeError,
    NoImagesError,
)
from tests.c.photo_reader import (
    Reader,
    in_python,
    part,
    picture,
    png,
    same,
    saved,
)


@pytest.fixture(scope="module")
def reader(c_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    made = Reader(c_build / "tests" / "photo_check", tmp_path_factory.mktemp("photos"))
    yield made
    made.close()


# --------------------------------------------------------------------------------- JPEG --


@pytest.mark.parametrize("quality", [30, 90, 100])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_is_pillows_to_the_bit(
    reader: Reader, quality: int, progressive: bool, subsampling: str
) -> None:
    for seed, size in enumerate([(1, 1), (16, 16), (37, 53), (240, 319)]):
        image = Image.fromarray(picture(seed, *size, 3))
        options = {"quality": quality, "progressive": progressive, "subsampling": subsampling}
        same(reader.read_bytes(saved(image, "JPEG", **options)))


def test_grey_and_cmyk_jpegs(reader: Reader) -> None:
    same(reader.read_bytes(saved(Image.fromarray(picture(1, 40, 50)), "JPEG")))
    for restart in (0, 2):
        inks = Image.fromarray(picture(2, 40, 50, 4, noise=60), "CMYK")
        same(reader.read_bytes(saved(inks, "JPEG", quality=95, restart_marker_blocks=restart)))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_photos_are_turned_upright(reader: Reader, orientation: int, kind: str) -> None:
    image = Image.fromarray(picture(3, 24, 41, 3))
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    exif[0x0112] = orientation
    same(reader.read_bytes(saved(image, kind, exif=exif)))


def test_what_an_xmp_packet_says_of_the_turn(reader: Reader) -> None:
    image = Image.fromarray(picture(4, 10, 20, 3))
    for text in (
        b'<x tiff:Orientation="6">',
        b"<tiff:Orientation>8</tiff:Orientation>",
        b"<tiff:Orientation>\n8",
        b'tiff:Orientation="9"',
        b"tiff:Orientation",
    ):
        found = reader.read_bytes(saved(image, "JPEG", xmp=text))
        same(found)
        chunk = part(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text)
        packed = part(b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0x\0" + zlib.compress(text))
        for one in (chunk, packed):
            same(reader.read_bytes(png(2, 1, 8, 0, b"\0\5\6", before=one)))


def test_damaged_jpegs(reader: Reader) -> None:
    good = saved(Image.fromarray(picture(5, 60, 80, 3)), "JPEG", quality=90)
    verdicts = []
    for data in (
        good[:-1],
        good[:-2],
        good[:-300],
        good[:-300] + b"\xff\xd9",
        good[:200],
        good[:20],
        good[:3],
        good + b"more",
        good[:-2] + b"\xff\xff\xd9",
        good[:-2] + b"abc" + good[-2:],
        good[:2] + b"\xff\xe1\0\x10Exif\0\0garbage!" + good[2:],
        good[:2] + b"\xff\xe1\0\x08Exif\0\0" + good[2:],
        good[:2] + b"\xff\xfe\xff\xff" + good[2:],
        good[:2] + b"\xff\xd9",
    ):
        found = reader.read_bytes(data)
        same(found)
        verdicts.append(isinstance(found[0], tuple))
    assert verdicts.count(True) == 8
    frame = good.index(b"\xff\xc0")
    for offset, byte in (
        (4, 12),
        (5, 0),
        (7, 0),
        (9, 2),
        (9, 5),
    ):  # bits, height, width, layers
        data = bytearray(good)
        data[frame + offset] = byte
        if offset in (5, 7):
            data[frame + offset + 1] = byte
        found = reader.read_bytes(bytes(data))
        assert isinstance(found[0], tuple), (offset, byte)
        same(found)


def test_a_jpeg_of_too_many_pixels(reader: Reader) -> None:
    data = bytearray(saved(Image.new("RGB", (8, 8)), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    in_c, expected = reader.read_bytes(bytes(data))
    assert isinstance(in_c, tuple)
    assert isinstance(expected, tuple)
    assert in_c[0] is expected[0] is ImageTooLargeError
    assert "has 65500 x 65500 pixels, the limit is 178,956,970; make it smaller" in in_c[1]


# ---------------------------------------------------------------------------------- PPM --


@given(
    kind=st.sampled_from([b"P5", b"P6"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    most=st.one_of(st.integers(1, 65535), st.sampled_from([1, 100, 255, 256, 65535])),
    seed=st.integers(0, 2**32 - 1),
    blanks=st.lists(
        st.sampled_from([b" ", b"\n", b"\t \r\n", b" # so\n", b"#x\r "]),
        min_size=4,
        max_size=4,
    ),
)
def test_every_form_of_ppm(
    reader: Reader,
    kind: bytes,
    size: tuple[int, int],
    most: int,
    seed: int,
    blanks: list[bytes],
) -> None:
    samples = size[0] * size[1] * (3 if kind == b"P6" else 1)
    rng = np.random.default_rng(seed)
    body = rng.integers(0, most + 1, samples).astype(">u2" if most > 255 else "u1").tobytes()
    words = [b"%d" % number for number in (*size, most)]
    header = kind + b"\n" + b"".join(map(bytes.__add__, blanks, words)) + b"\n"
    same(reader.read_bytes(header + body))
    same(reader.read_bytes(header + body[:-1]))
    same(reader.read_bytes(header + body + b"x"))


@pytest.mark.parametrize(
    "data",
    [
        b"P6 0 1 255\n",
        b"P6 -1 1 255\n123",
        b"P6 1 1 0\n123",
        b"P6 1 1 65536\n123456",
        b"P6 00000000001 1 255\n123",
        b"P6 0000000001 1 255\n123",
        b"P61 1 255\n123",
        b"P6\r\n1 1\r\n255\r\n123",
        b"P6 1#x\n 1 255\n123",
        b"P6 1 1 255#x\n123",
        b"P6 x 1 255\n123",
        b"P6 1 1",
        b"P6",
        b"P6 20000 20000 255\n",
        b"P5 2 1 100\n\xff\x01",
        b"",
        b"no image",
        b"GIF89a",
    ],
)
def test_odd_headers(reader: Reader, data: bytes) -> None:
    same(reader.read_bytes(data))


# ------------------------------------------------------------------------------- others --


def test_messages_are_pythons(reader: Reader, tmp_path: Path) -> None:
    for name in ("gone.jpg", "x" * 300):
        assert reader.read(tmp_path / name) == in_python(tmp_path / name)
    assert reader.read(tmp_path) == in_python(tmp_path)
    (tmp_path / "short.ppm").write_bytes(b"P6 1 1 255\n1")
    assert reader.read(tmp_path / "short.ppm") == (
        BrokenImageError,
        (
            f"the image {tmp_path}/short.ppm is corrupt, truncated or no image "
            "(image file is truncated); replace it or take it out"
        ),
    )
    (tmp_path / "a.jpg").write_bytes(b"no image at all")
    answer = reader.read(tmp_path / "a.jpg")
    assert isinstance(answer, tuple)
    assert "(no JPEG, PNG or PPM file)" in answer[1]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("WEBP", "WebP"), ("GIF", "GIF"), ("BMP", "BMP"), ("TIFF", "TIFF"), ("PPM", "PBM")),
        *(("AVIF", "AVIF"), ("JPEG2000", "JPEG 2000")),
    ],
)
def test_what_only_python_reads_is_named(reader: Reader, kind: str, name: str) -> None:
    """Not called broken, which it is not."""
    image = Image.fromarray(picture(3, 8, 8, 3))
    try:
        data = saved(image.convert("1") if name == "PBM" else image, kind)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {name}")
    ours, theirs = reader.read_bytes(data)
    assert isinstance(ours, tuple)
    assert not isinstance(theirs, tuple)
    assert ours[0] is BrokenImageError
    told = f"is {name}, and only JPEG, PNG and PPM are read here; convert it"
    assert ours[1].endswith(told)


def mangled(good: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Good files, with some bytes changed and some cut out."""

    def change(data: bytes, edits: list[tuple[int, int, int]]) -> bytes:
        changed = bytearray(data)
        for at, length, byte in edits:
            start = at % (len(changed) or 1)
            changed[start : start + length] = bytes([byte]) if length else b""
        return bytes(changed)

    edit = st.tuples(st.integers(0, 2**16), st.integers(0, 3), st.integers(0, 255))
    return st.builds(change, st.sampled_from(good), st.lists(edit, min_size=1, max_size=6))


def good_files() -> list[bytes]:
    image = Image.fromarray(picture(6, 20, 30, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = image.quantize(16)
    return [
        saved(image, "JPEG", exif=exif),
        saved(image, "JPEG", progressive=True),
        saved(image.convert("CMYK"), "JPEG"),
        saved(image, "PNG", exif=exif),
        saved(palette, "PNG", transparency=3),
        png(2, 1, 8, 0, b"\0\5\6", before=part(b"zTXt", b"Raw profile type exif\0\0x")),
        saved(image, "PPM"),
    ]


@given(data=mangled(good_files()))
def test_damaged_files_never_crash_it(reader: Reader, data: bytes) -> None:
    """A picture, or a refusal; Pillow's own verdict where the damage is no checksum's."""
    in_c, expected = reader.read_bytes(data)
    if isinstance(expected, tuple):
        return
    if not isinstance(in_c, tuple):
        assert in_c.shape == expected.shape


def test_a_missing_library_is_named(c_build: Path, tmp_path: Path) -> None:
    """The loader is told to look where nothing is, for these two alone."""
    blocked = {"libturbojpeg.so.0": "libturbojpeg0", "libpng16.so.16": "libpng16-16"}
    source = tmp_path / "block.c"
    source.write_text(
        "#define _GNU_SOURCE\n"
        "#include <dlfcn.h>\n#include <stdlib.h>\n#include <string.h>\n"
        "void *dlopen(const char *name, int flags)\n{\n"
        '    if (name && !strcmp(name, getenv("BLOCKED")))\n        return NULL;\n'
        "    void *(*real)(const char *, int);\n"
        '    *(void **)&real = dlsym(RTLD_NEXT, "dlopen");\n'
        "    return real(name, flags);\n}\n"
    )
    shim = tmp_path / "block.so"
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", shim, "-ldl"], check=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.jpg")
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    for (library, package), name in zip(blocked.items(), ("a.jpg", "a.png"), strict=True):
        done = subprocess.run(
            [c_build / "tests" / "photo_check"],
            input=f"{tmp_path / name}\n",
            env={"LD_PRELOAD": str(shim), "BLOCKED": library},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(
            f"4 0 0 to read the image {tmp_path / name} takes {library}"
        )
        assert f"apt install {package}" in done.stdout


def test_photos_of_a_folder(c_build: Path, tmp_path: Path) -> None:
    for name in (
        *("b/2.PNG", "b/1.jpg", "a.jpeg", "c.txt", "._d.jpg", ".jpg", "e.ppm", "Z.png"),
        *(f"suffixes/x{suffix}" for suffix in SUFFIXES),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "empty").mkdir()

    def listed(path: Path) -> tuple[int, list[str]]:
        command = [c_build / "tests" / "photo_check", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()

    for path in (tmp_path / "b" / "1.jpg", tmp_path / "gone", tmp_path / "link"):
        assert listed(path) == (0, [str(file) for file in expand_photos(path)])
    # Each file once: of the two ways into "b" the one that the folder lists first.
    status, names = listed(tmp_path)
    assert status == 0
    assert {Path(name).name for name in names} == {
        *("2.PNG", "1.jpg", "a.jpeg", "e.ppm", "Z.png"),
        *(f"x{suffix}" for suffix in SUFFIXES),  # those that are refused by name, too
    }
    assert len(names) == 5 + len(SUFFIXES)
    assert names == sorted(names)
    with pytest.raises(NoImagesError) as refused:
        expand_photos(tmp_path / "empty")
    assert listed(tmp_path / "empty") == (1, [str(refused.value)])

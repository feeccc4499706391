# SPDX-License-Identifier: Apache-2.0
"""10,000 photos, 300 of them broken in ten ways: each is reported, none stops the build."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

COUNT, BROKEN_OF_EACH, CLASSES = 10_000, 30, 5
COMMAND = Path(sys.executable).with_name("edge-imprint")


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def templates() -> list[list[bytes]]:
    """Return 40 small photos a class, around a colour a class; JPEGs and PNGs by turns."""
    made = []
    for c in range(CLASSES):
        rng = np.random.default_rng(c)
        colour = rng.integers(40, 216, 3)
        photos = []
        for i in range(40):
            noise = rng.integers(-40, 40, (24, 24, 3))
            kind = "PNG" if i % 2 else "JPEG"
            photos.append(encoded((colour + noise).astype(np.uint8), kind))
        made.append(photos)
    return made


def bomb(good: bytes) -> bytes:
    """Return a PNG that claims 900 megapixels."""
    size = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = b"IHDR" + size
    return (
        good[:8]
        + struct.pack(">I", 13)
        + body
        + struct.pack(">I", zlib.crc32(body))
        + good[33:]
    )


def ways(jpeg: bytes, png: bytes) -> dict[str, Callable[[Path], object]]:
    """Return ten ways in which a photo is broken: what makes a file so."""
    floats = encoded(np.zeros((4, 4), np.float32), "TIFF")
    return {
        "empty": Path.touch,
        "text": lambda file: file.write_text("no photo"),
        "page": lambda file: file.write_text("<html>404: no such photo</html>" * 20),
        "cut_jpeg": lambda file: file.write_bytes(jpeg[: len(jpeg) // 2]),
        "cut_png": lambda file: file.write_bytes(png[:200]),
        "bits": lambda file: file.write_bytes(png[:70] + bytes(40) + png[110:]),
        "bomb": lambda file: file.write_bytes(bomb(png)),
        "floats": lambda file: file.write_bytes(floats),
        "gone": lambda file: file.symlink_to("nowhere.png"),
        "loop": lambda file: file.symlink_to(file.name),
    }


SAID = {
    "empty": "is corrupt, truncated or no image",
    "text": "is corrupt, truncated or no image",
    "page": "is corrupt, truncated or no image",
    "cut_jpeg": "is corrupt, truncated or no image",
    "cut_png": "is corrupt, truncated or no image",
    "bits": "is corrupt, truncated or no image",
    "bomb": "pixels, the limit is 178,956,970",
    "floats": "holds floating-point pixels",
    "gone": "No such file or directory",
    "loop": "Too many levels of symbolic links",
}


def make(root: Path) -> dict[str, str]:
    """Write the photos; return the way in which each broken one is, by its path."""
    photos, broken = templates(), {}
    for c in range(CLASSES):
        (root / f"class{c}").mkdir(parents=True)
    jpeg, png = photos[0][0], photos[0][1]
    for number in range(COUNT - len(SAID) * BROKEN_OF_EACH):
        c, i = number % CLASSES, number // CLASSES
        data = photos[c][i % 40]
        # A number behind the end, which readers leave alone: each file has its own content.
        (root / f"class{c}" / f"{i:05}.jpg").write_bytes(data + b"%08d" % number)
    for way, breaks in ways(jpeg, png).items():
        for i in range(BROKEN_OF_EACH):
            file = root / f"class{i % CLASSES}" / f"{way}{i:03}.png"
            breaks(file)
            broken[str(file)] = way
    return broken


def test_each_of_300_broken_photos_is_reported(tmp_path: Path) -> None:
    broken = make(tmp_path / "photos")
    assert len(broken) == 300
    done = subprocess.run(
        [
            *(COMMAND, "build", tmp_path / "photos", "--backbone", "demo", "--json"),
            *("--out", tmp_path / "head"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["images"] == COUNT - 300
    assert made["images_by_class"] == {f"class{c}": 1940 for c in range(CLASSES)}
    assert len(made["skipped"]) == 300
    told: Counter[str] = Counter()
    for sentence in made["skipped"]:
        (path,) = {word.rstrip(":") for word in sentence.split()} & broken.keys()
        assert SAID[broken.pop(path)] in sentence
        told[path] += 1
    assert not broken
    assert set(told.values()) == {1}
    assert "Traceback" not in done.stderr
    assert (tmp_path / "head").is_file()
    shown = [line for line in done.stderr.splitlines() if line.startswith("skipped: ")]
    assert 1 < len(shown) < 50  # and the rest as one line, so that a terminal stays readable
    assert "more (all of them with --json)" in shown[-1]

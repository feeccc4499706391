# SPDX-License-Identifier: Apache-2.0
"""`build` on photos that are broken, odd, or embed as nothing."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_imprint import Backbone, build
from edge_imprint.embedding.engine import Result
from edge_imprint.embedding.local import LocalEngine
from edge_imprint.embedding.run import How
from edge_imprint.photos import Location
from edge_imprint_export.backbone.glyphnet import conv_stack
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime.errors import EmbeddingError, NoImagesError, TooManyBrokenError

WritePhotos = Callable[..., Path]


# Broken photos -----------------------------------------------------------------------------


def break_photo(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[:60])
    return file


def test_five_percent_may_be_broken_and_no_more(
    write_photos: WritePhotos, network: Backbone, tmp_path: Path
) -> None:
    root = write_photos(tmp_path / "photos", {"a": 30, "b": 10})  # more than one batch
    broken = [break_photo(root / "a" / f"a-{i}.png") for i in (0, 29)]
    made = build(root, backbone=network, proxies=2)
    assert made.images == 38
    assert len(made.skipped) == 2
    for file, said in zip(sorted(broken), made.skipped, strict=True):
        assert said.startswith(f"the image {file} is corrupt, truncated or no image (")
    break_photo(root / "b" / "b-9.png")  # the very last photo
    with pytest.raises(TooManyBrokenError) as caught:
        build(root, backbone=network, proxies=2, out=tmp_path / "head")
    assert str(caught.value) == (
        f"3 of 40 photos are broken, more than 5%; the first: {made.skipped[0]}; "
        "mend them, or allow more with --max-broken"
    )
    assert not (tmp_path / "head").exists()
    assert build(root, backbone=network, proxies=2, max_broken=0.1).images == 37


def test_copies_of_a_broken_photo_are_each_told_in_one_more_pass(
    write_photos: WritePhotos,
    network: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = write_photos(tmp_path, {"a": 6, "b": 6})
    empty = [root / "a" / f"a-{i}.png" for i in range(4)]
    for file in empty:
        file.write_bytes(b"")
    passes: list[int] = []

    def embed(self: LocalEngine, photos: Sequence[Location]) -> Iterator[Result]:
        passes.append(len(photos))
        return real(self, photos)

    real = LocalEngine.embed
    monkeypatch.setattr(LocalEngine, "embed", embed)
    made = build(root, backbone=network, max_broken=0.5, how=How(cache=False))
    assert passes == [9, 3]
    assert (made.images, len(made.skipped)) == (8, 4)
    assert all(str(file) in said for file, said in zip(empty, made.skipped, strict=True))


def test_a_head_does_not_feel_the_broken_photos(
    write_photos: WritePhotos, network: Backbone, tmp_path: Path
) -> None:
    root = write_photos(tmp_path, {"a": 5, "b": 5})
    for name in ("a/a-0.png", "b/b-2.png"):
        break_photo(root / name)
    some = build(root, backbone=network, max_broken=0.2).head
    for name in ("a/a-0.png", "b/b-2.png"):
        (root / name).unlink()
    assert some.proxies.tobytes() == build(root, backbone=network).head.proxies.tobytes()


@pytest.mark.parametrize("max_broken", [0.9, 1])
def test_a_class_left_with_no_photo(
    write_photos: WritePhotos, network: Backbone, tmp_path: Path, max_broken: float
) -> None:
    root = write_photos(tmp_path, {"a": 3, "b": 1, "c": 2})
    broken = break_photo(root / "b" / "b-0.png")
    with pytest.raises(NoImagesError) as caught:
        build(root, backbone=network, max_broken=max_broken)
    assert str(caught.value).startswith(
        f"the class 'b' has no readable photo; the first broken: the image {broken} is corrupt"
    )


def test_every_photo_broken(
    write_photos: WritePhotos, network: Backbone, tmp_path: Path
) -> None:
    root = write_photos(tmp_path, {"a": 2, "b": 2})
    for file in root.rglob("*.png"):
        break_photo(file)
    with pytest.raises(TooManyBrokenError, match=r"^4 of 4 photos are broken"):
        build(root, backbone=network)
    with pytest.raises(NoImagesError, match=r"^the class 'a' has no readable photo"):
        build(root, backbone=network, max_broken=1)


def test_all_kinds_of_broken_photos(
    write_photos: WritePhotos, network: Backbone, tmp_path: Path
) -> None:
    root = write_photos(tmp_path, {"a": 2, "b": 2})
    good = (root / "a" / "a-0.png").read_bytes()
    (root / "a" / "empty.png").touch()
    (root / "a" / "text.jpg").write_text("no photo")
    (root / "b" / "gone.png").symlink_to(root / "nowhere")
    (root / "b" / "bits.png").write_bytes(good[:70] + bytes(40) + good[110:])
    size = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)  # a decompression bomb
    chunk = (
        struct.pack(">I", 13) + b"IHDR" + size + struct.pack(">I", zlib.crc32(b"IHDR" + size))
    )
    (root / "b" / "bomb.png").write_bytes(good[:8] + chunk + good[33:])
    made = build(root, backbone=network, max_broken=0.8)
    assert made.images == 4
    said = {sentence.split(str(root))[1].split(" ")[0]: sentence for sentence in made.skipped}
    assert set(said) == {
        "/a/empty.png", "/a/text.jpg", "/b/gone.png:", "/b/bits.png", "/b/bomb.png"
    }  # fmt: skip
    assert "No such file" in said["/b/gone.png:"]
    assert "pixels, the limit is" in said["/b/bomb.png"]


def test_odd_photos_are_photos_too(
    write_photos: WritePhotos, network: Backbone, tmp_path: Path
) -> None:
    root = write_photos(tmp_path, {"plain": 2})
    folder = root / "odd"
    folder.mkdir()
    rgb = Image.open(root / "plain" / "plain-0.png")
    alpha = Image.fromarray(
        np.arange(24 * 24, dtype=np.uint16).reshape(24, 24).astype(np.uint8)
    )
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    sixteen = np.arange(24 * 24, dtype=np.uint16).reshape(24, 24) * 100
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.convert("L").save(folder / "grey.png")
    rgb.convert("1").save(folder / "bits.png")
    rgb.convert("LA").save(folder / "grey-alpha.png")
    rgba.save(folder / "rgba.png")
    rgba.save(folder / "rgba.webp")
    rgb.quantize(16).save(folder / "palette.png")
    rgb.quantize(16).save(folder / "see-through.png", transparency=3)
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.convert("CMYK").save(folder / "cmyk.tif")
    Image.fromarray(sixteen).save(folder / "sixteen.png")
    Image.fromarray(sixteen).save(folder / "sixteen.tiff")
    rgb.save(folder / "turned.jpg", exif=exif)
    rgb.save(folder / "moving.gif", save_all=True, append_images=[rgba.convert("RGB")])
    rgb.resize((1, 1)).save(folder / "dot.bmp")
    rgb.resize((900, 1)).save(folder / "line.ppm")
    made = build(root, backbone=network, max_broken=0)
    assert made.skipped == ()
    assert made.images == 2 + 15


# Embeddings that are none ------------------------------------------------------------------


def one_layer(tmp_path: Path, weight: float, bias: float) -> str:
    """An ONNX backbone that passes each channel on, as Relu(weight * x + bias)."""
    weights = {
        "conv0.weight": np.zeros((3, 3, 3, 3), np.float32),
        "conv0.bias": np.full(3, bias, np.float32),
    }
    weights["conv0.weight"][range(3), range(3), 1, 1] = weight
    graph = conv_stack([(1, True)], weights, image_size=16, pool_size=16)
    (tmp_path / "one.onnx").write_bytes(to_bytes(graph))
    return f"onnx:{tmp_path / 'one.onnx'}"


@pytest.mark.parametrize(
    ("weight", "what"),
    [
        (0.0, "zero"),
        (float("nan"), "NaN, infinite or too large"),
        (3e38, "NaN, infinite or too large"),
        (1e20, "NaN, infinite or too large"),  # finite, but its norm overflows
    ],
)
def test_a_backbone_of_useless_weights(
    photos_folder: Path, tmp_path: Path, weight: float, what: str
) -> None:
    with pytest.raises(EmbeddingError) as caught:
        build(photos_folder, backbone=one_layer(tmp_path, weight, 0), out=tmp_path / "head")
    assert re.fullmatch(  # whichever photo is the first to be done
        f"the backbone's embedding of {photos_folder}/(\\w+)/\\1-[0-9].png is {what}; "
        "check the backbone's weights, or take the photo out",
        str(caught.value),
    )
    assert not (tmp_path / "head").exists()


def test_one_dark_photo_is_named(write_photos: WritePhotos, tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", {"a": 3, "b": 3})
    Image.new("RGB", (20, 20)).save(root / "b" / "b-1.png")  # black: below the Relu
    with pytest.raises(EmbeddingError) as caught:
        build(root, backbone=one_layer(tmp_path, 1, 0.5))
    assert str(root / "b" / "b-1.png") in str(caught.value)

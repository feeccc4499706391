# SPDX-License-Identifier: Apache-2.0
"""What `build` tells of odd photos: how many wrong labels and copies it finds, and how fast.

    python benchmarks/neighbours.py [--quick]

2 % of the labels are changed, five times, and none: precision and recall of the suspects.
Photos are stored again in several ways: how near they come, as a share of the typical distance
from a photo to its nearest neighbour, and how many are nearer than the limit. Everything is on
real photos: scikit-learn's digits and crops of its two photographs, on the demo's backbone.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits, load_sample_images

from common import write_result
from edge_imprint import load_backbone
from edge_imprint.embedding.embedders import ort_embedder
from edge_imprint.embedding.neighbours import NEAR, find_neighbours
from edge_imprint_runtime.images import photo_pixels

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

FLIPPED = 0.02
SEEDS = 5
RUNS = 15


def embedder() -> Callable[[Sequence[Image.Image]], Float32]:
    """Return what embeds images on the demo's backbone."""
    backbone = load_backbone("demo")
    run = ort_embedder(backbone, "cpu")

    def embed(images: Sequence[Image.Image]) -> Float32:
        pixels = [photo_pixels(image, backbone.info.preprocess) for image in images]
        parts = [run(np.stack(pixels[i : i + 32])) for i in range(0, len(pixels), 32)]
        return np.concatenate(parts)

    return embed


def look(rows: Float32, index: Int64) -> tuple[set[int], float]:
    """Return the suspects, and the seconds."""
    digests = np.random.default_rng(0).integers(0, 256, (len(rows), 32)).astype(np.uint8)
    start = time.perf_counter()
    found = find_neighbours(lambda at: rows[at], index, digests)
    return {suspect.photo for suspect in found.suspects}, time.perf_counter() - start


def wrong_labels(rows: Float32, truth: Int64) -> dict[str, float]:
    """Change labels, and look for them."""
    classes = int(truth.max()) + 1
    said = hit = hidden = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        flipped = rng.permutation(len(rows))[: max(1, round(FLIPPED * len(rows)))]
        index = truth.copy()
        index[flipped] = (truth[flipped] + rng.integers(1, classes, len(flipped))) % classes
        suspects, _ = look(rows, index)
        said += len(suspects)
        hit += len(suspects & set(flipped.tolist()))
        hidden += len(flipped)
    return {
        "precision": hit / max(said, 1),
        "recall": hit / hidden,
        "suspects_of_clean": len(look(rows, truth)[0]),
        "photos": len(rows),
    }


def stored_again(image: Image.Image) -> dict[str, Image.Image]:
    """Store a photo in other ways."""
    w, h = image.size
    made = {}
    for quality in (80, 50):
        kept = io.BytesIO()
        image.save(kept, "JPEG", quality=quality)
        made[f"JPEG, quality {quality}"] = Image.open(kept)
    made["half the size"] = image.resize((w // 2, h // 2), Image.Resampling.BICUBIC)
    made["twice the size"] = image.resize((w * 2, h * 2), Image.Resampling.BICUBIC)
    made["5 % brighter"] = ImageEnhance.Brightness(image).enhance(1.05)
    made["2 % cut off each side"] = image.crop((w // 50, h // 50, w - w // 50, h - h // 50))
    made["mirrored"] = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return made


def crops() -> list[Image.Image]:
    """Cut 240 squares out of two photographs."""
    rng, made = np.random.default_rng(0), []
    for pixels in load_sample_images().images:
        image = Image.fromarray(pixels)
        for _ in range(120):
            side = int(rng.integers(96, 200))
            x = int(rng.integers(0, image.width - side))
            y = int(rng.integers(0, image.height - side))
            made.append(image.crop((x, y, x + side, y + side)))
    return made


def unit(rows: Float32) -> npt.NDArray[np.float64]:
    """Scale rows to length one."""
    wide = rows.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def copies(embed: Callable[[Sequence[Image.Image]], Float32]) -> dict[str, Any]:
    """Measure how near photos are that are stored again."""
    photos = crops()
    rows = unit(embed(photos))
    apart = np.sqrt(np.maximum(2 - 2 * rows @ rows.T, 0))
    np.fill_diagonal(apart, np.inf)
    typical = float(np.median(apart.min(axis=1)))
    some = range(0, len(photos), 3)
    again = [stored_again(photos[i]) for i in some]
    result = {}
    for way in again[0]:
        other = unit(embed([images[way] for images in again]))
        share = np.linalg.norm(other - rows[list(some)], axis=1) / typical
        result[way] = {
            "median": float(np.median(share)),
            "q90": float(np.quantile(share, 0.9)),
            "found": float((share <= NEAR).mean()),
        }
    return result


def nearest_digits(rows: Float32) -> float:
    """Return the smallest distance between two digits, as a share of the typical one."""
    wide = unit(rows)
    apart = np.sqrt(np.maximum(2 - 2 * wide @ wide.T, 0))
    np.fill_diagonal(apart, np.inf)
    return float(apart.min() / np.median(apart.min(axis=1)))


def seconds(count: int, runs: int) -> list[float]:
    """Time photos of 512 numbers in 100 classes."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((count, 512), np.float32)
    index = rng.integers(0, 100, count)
    return [look(rows, index)[1] for _ in range(runs)]


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="no 20,000 photos")
    quick = parser.parse_args().quick
    embed = embedder()
    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    rows = embed([Image.fromarray(image) for image in images])
    pixels = np.ascontiguousarray(data.data, np.float32)
    some = np.concatenate([np.flatnonzero(data.target == c)[:20] for c in range(10)])
    labels = {
        "digits, ten classes": wrong_labels(rows, data.target),
        "digits, odd or even": wrong_labels(rows, data.target % 2),
        "digits, 20 a class": wrong_labels(rows[some], data.target[some]),
        "digits, raw pixels": wrong_labels(pixels, data.target),
    }
    for name, found in labels.items():
        print(
            f"{name:20} precision {found['precision']:.2f}, recall {found['recall']:.2f}; "
            f"{found['suspects_of_clean']} suspects of {found['photos']} right ones"
        )
    nearest = nearest_digits(rows)
    print(f"the nearest two digits: {nearest:.2f} of the typical distance; limit {NEAR}")
    again = copies(embed)
    for way, near in again.items():
        print(
            f"{way:22} {near['median']:.2f} of the typical distance "
            f"(90 %: {near['q90']:.2f}), {near['found']:.0%} found"
        )
    times = {}
    for count, runs in ((2_000, RUNS), *(() if quick else ((20_000, 3),))):
        times[str(count)] = seconds(count, runs)
        print(f"{count} x 512: {np.median(times[str(count)]):.3f} s")
    write_result(
        "neighbours",
        {
            "quick": quick,
            "labels": labels,
            "nearest_digits": nearest,
            "stored_again": again,
            "seconds": times,
        },
    )


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""What 10^6, 10^8 and 10^9 photos cost in machines, hours and bytes: docs/scale.md.

    python benchmarks/scale.py --measure [--photos 300]     measure the rates, keep them
    python benchmarks/scale.py [--docs]                     reckon with those that were kept

``--docs`` puts the tables into docs/scale.md.

Rates are of one core, with one thread, best of some runs; `scale_model.py` is the model.
Networks, storage and GPUs are not measured here: what is assumed of them stands in `FLEETS`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from common import RESULTS, write_result
from edge_imprint.backbones import Backbone, load_backbone
from edge_imprint.embedding.cache import EmbeddingStore, Space
from edge_imprint.embedding.cluster import RayEngine
from edge_imprint.embedding.embedders import LANE_BATCH, OrtEmbedder, embedder_graph
from edge_imprint.imprinting.proxies import make_proxies
from edge_imprint.photos import find_photos
from edge_imprint_runtime.files import write_atomic
from edge_imprint_runtime.images import decode_photo
from photo_sets import make_jpegs
from scale_model import Cost, Fleet, Rates, cost

DOCS = Path(__file__).parents[1] / "docs" / "scale.md"
PHOTOS = (10**6, 10**8, 10**9)
DAY_H = 24.0
FLEETS = (
    Fleet("1 x 2 cores", 1, 2),
    Fleet("1 x 16 cores", 1, 16),
    Fleet("16 x 16 cores", 16, 16),
    Fleet("256 x 16 cores", 256, 16),
    Fleet("1 x 1 GPU, 16 cores", 1, 16, gpus=1),
    Fleet("4 x 8 GPUs, 64 cores", 4, 64, gpus=8),
    Fleet("32 x 8 GPUs, 64 cores", 32, 64, gpus=8),
)
_BACKBONE = "timm/resnet18"
# Pixels in a table, as in embedding/cluster.py.
_TABLE_BYTES = {"cores": 2**23, "GPUs": 2**25}
_ROWS = 20_000


def main() -> None:
    """Measure, or reckon."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--docs", action="store_true")
    arguments = parser.parse_args()
    file = RESULTS / "scale.json"
    if not arguments.measure and not file.is_file():
        raise SystemExit("no rates are kept; run with --measure first")
    if arguments.measure:
        rates = measure(arguments.photos)
        costs = [(fleet, _cost(rates, fleet, n)) for n in PHOTOS for fleet in FLEETS]
        reckoned = [asdict(fleet) | {"cost": asdict(made)} for fleet, made in costs]
        write_result("scale", {"rates": asdict(rates), "reckoned": reckoned})
    rates = Rates(**json.loads(file.read_text())["rates"])
    measured, reckoned = rates_table(rates), [*day_table(rates)]
    for photos in PHOTOS:
        reckoned += ["", f"### {photos:,} photos", "", *costs_table(rates, photos)]
    if arguments.docs:
        page = DOCS.read_text()
        for mark, lines in (("measured", measured), ("reckoned", reckoned)):
            page = put_between(page, mark, lines)
        write_atomic(DOCS, page.encode(), force=True)
    else:
        print("\n".join([*measured, "", *reckoned]))


def put_between(page: str, mark: str, lines: Sequence[str]) -> str:
    """Replace what a page has between the two comments of a mark."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->\n"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"the page must have {begin.strip()} and {end.strip()} once")
    head, rest = page.split(begin)
    return head + begin + "\n".join(["", *lines, "", ""]) + end + rest.split(end)[1]


def measure(photos: int) -> Rates:
    """Measure what a photo costs at each stage, on this machine."""
    backbone = load_backbone(_BACKBONE, random_weights=True)
    p = backbone.info.preprocess
    with tempfile.TemporaryDirectory(prefix="edge-imprint-") as folder:
        files = make_jpegs(Path(folder) / "photos", photos, 10, seed=0)
        data = [file.read_bytes() for file in files]
        pixels = decode_photo(data[0], p, name="0", decode="quick")
        batch = np.repeat(pixels[np.newaxis], LANE_BATCH, axis=0)
        embedder = OrtEmbedder(embedder_graph(backbone), threads=1, batch=LANE_BATCH)
        rows = np.random.default_rng(0).standard_normal((_ROWS, embedder(batch).shape[1]))
        rows = rows.astype(np.float32)
        list_s, list_bytes = _listing(Path(folder) / "listing")
        add_s, take_s = _store(backbone, rows, Path(folder) / "store")
        return Rates(
            photo_bytes=sum(map(len, data)) / photos,
            pixels_bytes=pixels.nbytes,
            row_bytes=rows[0].nbytes,
            list_s=list_s,
            list_bytes=list_bytes,
            read_s=_best(lambda: [file.read_bytes() for file in files]) / photos,
            hash_s=_best(lambda: [hashlib.sha256(one).digest() for one in data]) / photos,
            decode_s=_best(
                lambda: [decode_photo(one, p, name="", decode="quick") for one in data]
            )
            / photos,
            embed_s=_best(lambda: [embedder(batch) for _ in range(10)]) / (10 * LANE_BATCH),
            hand_out_s=_handing_out(Path(folder) / "small"),
            add_s=add_s,
            take_s=take_s,
            cluster_s=_best(lambda: make_proxies(rows[:2000], "kmeans", 20, 0)) / 2000,
        )


def rates_table(rates: Rates) -> list[str]:
    """Lay out what was measured, a line a stage."""
    cores = [
        ("read from memory", rates.read_s, rates.photo_bytes),
        ("hash (SHA-256)", rates.hash_s, rates.photo_bytes),
        ("decode and resize", rates.decode_s, rates.pixels_bytes),
        ("embed (resnet18, float32)", rates.embed_s, rates.row_bytes),
        ("cluster (k-means, k = 20)", rates.cluster_s, rates.row_bytes),
        ("list", rates.list_s, rates.list_bytes),
        ("keep an embedding", rates.add_s, rates.row_bytes),
        ("read an embedding back", rates.take_s, rates.row_bytes),
    ]
    lines = ["| stage | images/s of a core | bytes an image |", "|---|--:|--:|"]
    lines += [f"| {name} | {1 / s:,.0f} | {size:,.0f} |" for name, s, size in cores]
    for of in _TABLE_BYTES:
        table = _table(rates, of)
        what = f"hand out a table of {table} ({of}), take its result"
        lines.append(f"| {what} | {table / rates.hand_out_s:,.0f} | |")
    return lines


def costs_table(rates: Rates, photos: int) -> list[str]:
    """Lay out what so many photos cost on each fleet."""
    lines = [
        "| machines | images/s | hours: list + embed + cluster | machine-hours | limit |",
        "|---|--:|--:|--:|---|",
    ]
    for fleet in FLEETS:
        made = _cost(rates, fleet, photos)
        parts = (made.listing_s, made.embedding_s, made.clustering_s)
        hours = " + ".join(f"{_hours(s / 3600)}" for s in parts)
        lines.append(
            f"| {fleet.name} | {made.images_per_s:,.0f} | {hours} | "
            f"{made.machine_hours:,.1f} | {made.bottleneck} |"
        )
    return [*lines, "", _bytes_line(made)]


def day_table(rates: Rates) -> list[str]:
    """Lay out how many machines do it in a day; or what forbids it."""
    lines = [
        "| photos | 16-core machines for a day | 8-GPU machines for a day |",
        "|--:|---|---|",
    ]
    for photos in PHOTOS:
        few = [
            _machines_for_a_day(rates, photos, lambda n: Fleet("", n, 16)),
            _machines_for_a_day(rates, photos, lambda n: Fleet("", n, 64, gpus=8)),
        ]
        lines.append(f"| {photos:,} | {few[0]} | {few[1]} |")
    return lines


def _machines_for_a_day(rates: Rates, photos: int, fleet: Callable[[int], Fleet]) -> str:
    for machines in (2**i for i in range(13)):
        made = _cost(rates, fleet(machines), photos)
        if made.hours <= DAY_H:
            return f"{machines} ({made.hours:.1f} h; {made.bottleneck})"
    limits = f"{made.bottleneck}; {made.clustering_bottleneck}"
    return f"none: {made.hours:,.0f} h with {machines:,} ({limits})"


def _cost(rates: Rates, fleet: Fleet, photos: int) -> Cost:
    return cost(rates, fleet, photos, table=_table(rates, "GPUs" if fleet.gpus else "cores"))


def _table(rates: Rates, of: str) -> int:
    return int(_TABLE_BYTES[of] // rates.pixels_bytes)


def _bytes_line(made: Cost) -> str:
    return (
        f"Read: {_size(made.read_bytes)}. Kept on the first machine: {_size(made.kept_bytes)} "
        f"of embeddings on its disk, {_size(made.memory_bytes)} of locations and digests in "
        "its memory."
    )


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 0.1 else f"{hours:.2f}"


def _size(count: float) -> str:
    units = iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while count >= 1000 and unit != "TB":
        count, unit = count / 1000, next(units)
    return f"{count:.3g} {unit}"


# Measuring ----------------------------------------------------------------------------------


def _best(work: Callable[[], object], runs: int = 5) -> float:
    """Return the seconds of the fastest run: others share the machine."""
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _listing(folder: Path) -> tuple[float, float]:
    """Return seconds and bytes to list a photo; the files are empty."""
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for i in range(_ROWS // 2):
            (folder / label / f"photo-{i:06}.jpg").touch()
    list_s = _best(lambda: find_photos(folder)) / _ROWS
    tracemalloc.start()
    photos = find_photos(folder)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return list_s, held / len(photos.paths)


def _store(backbone: Backbone, rows: np.ndarray, folder: Path) -> tuple[float, float]:
    """Return seconds to keep an embedding, and to read one back."""
    digests = [hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(len(rows))]
    keys = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    space = Space(backbone.info, "cpu fp32", "quick")

    def add() -> None:
        with EmbeddingStore(space, folder=folder / str(time.perf_counter_ns())) as store:
            for i in range(0, len(rows), 64):
                store.add(digests[i : i + 64], rows[i : i + 64])

    add_s = _best(add, 3)
    with EmbeddingStore(space, folder=sorted(folder.iterdir())[0]) as store:
        store.holds(keys)
        take_s = _best(lambda: store.read(keys), 3)
    return add_s / len(rows), take_s / len(rows)


def _handing_out(folder: Path) -> float:
    """Return the seconds of this process for a table: its own work, not that of others.

    Measured with photos so small that there is little else to do.
    """
    files = make_jpegs(folder, 640, 10, seed=1, size=(64, 48))
    many: Sequence[Path] = files * 10
    engine = RayEngine(load_backbone("demo"), device="cpu")
    results = engine.embed(many)
    next(results)
    start, tables = time.process_time(), 0
    for _ in results:
        tables += 1
    spent = time.process_time() - start
    engine.close()
    return spent / tables


if __name__ == "__main__":
    main()

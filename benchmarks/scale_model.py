# SPDX-License-Identifier: Apache-2.0
"""A model of a build on a cluster: stages in a row, each with its servers and its time.

Photos go in tables. A table needs a fixed time of one server of each stage, first come first
served, and only so many tables are under way at once. Nothing is drawn: with times that are
fixed the departures of a stage with c servers are

    departure[n] = max(departure of n from the stage before, departure[n - c]) + time

so that a build of 10^9 photos is reckoned from its first tables: after those its pace is even.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Cost", "Fleet", "Rates", "Stage", "cost", "makespan_s", "stages"]

# Tables that are followed one by one at least; more where there are many servers.
_FOLLOWED = 2048
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Rates:
    """What a photo costs, as measured on one machine.

    Attributes:
        photo_bytes: Of a file.
        pixels_bytes: Of a photo that is decoded and resized.
        row_bytes: Of an embedding.
        list_s: To list a photo, on the first machine.
        list_bytes: What a listed photo takes of the first machine's memory.
        read_s: To read a file from memory, of a core.
        hash_s: SHA-256, of a core.
        decode_s: To decode and resize, of a core.
        embed_s: The backbone, of a core.
        hand_out_s: To hand out a table and take its result, on the first machine.
        add_s: To keep an embedding, on the first machine.
        take_s: To read an embedding back, on the first machine.
        cluster_s: k-means, of a core.
    """

    photo_bytes: float
    pixels_bytes: float
    row_bytes: float
    list_s: float
    list_bytes: float
    read_s: float
    hash_s: float
    decode_s: float
    embed_s: float
    hand_out_s: float
    add_s: float
    take_s: float
    cluster_s: float


@dataclass(frozen=True)
class Fleet:
    """Machines; what is not counted here is assumed, and was not measured.

    Attributes:
        name: What a table calls it.
        machines: How many.
        cores: Of each.
        gpus: Of each; 0: the cores embed.
        gpu_images_per_s: What one GPU embeds. Assumed.
        network_bytes_per_s: Of each machine. Assumed.
        storage_bytes_per_s: Of what holds the photos, in all. Assumed.
    """

    name: str
    machines: int
    cores: int
    gpus: int = 0
    gpu_images_per_s: float = 2500.0
    network_bytes_per_s: float = 1.25e9
    storage_bytes_per_s: float = 5e9

    @property
    def all_cores(self) -> int:
        """Cores of all machines."""
        return self.machines * self.cores


@dataclass(frozen=True)
class Stage:
    """A stage: its name, how many serve in it, and how long one takes for a table (s)."""

    name: str
    servers: int
    time_s: float

    @property
    def tables_per_s(self) -> float:
        """What it does at most."""
        return self.servers / self.time_s if self.time_s else math.inf


@dataclass(frozen=True)
class Cost:
    """What a build costs.

    Attributes:
        photos: How many.
        listing_s: Until all are listed.
        embedding_s: From the first table to the last.
        clustering_s: From the first class to the last.
        images_per_s: The pace of embedding.
        bottleneck: The stage that sets the pace.
        clustering_bottleneck: What sets the pace of clustering.
        machine_hours: Of all machines, for the whole build.
        read_bytes: Photos.
        kept_bytes: Embeddings and their digests, on the first machine's disk.
        memory_bytes: Of the list of photos and their digests, on the first machine.
    """

    photos: int
    listing_s: float
    embedding_s: float
    clustering_s: float
    images_per_s: float
    bottleneck: str
    clustering_bottleneck: str
    machine_hours: float
    read_bytes: float
    kept_bytes: float
    memory_bytes: float

    @property
    def hours(self) -> float:
        """Of the whole build."""
        return (self.listing_s + self.embedding_s + self.clustering_s) / 3600


def stages(rates: Rates, fleet: Fleet, table: int) -> list[Stage]:
    """Lay out the stages that a table of photos goes through.

    Decoded tables are embedded where they were decoded, wherever a worker there is free; the
    share that travels is taken to be the worst, all but 1/machines of them.
    """
    travels = 1 - 1 / fleet.machines
    moved_bytes = rates.photo_bytes + travels * rates.pixels_bytes
    core_s = rates.read_s + rates.hash_s + rates.decode_s
    if not fleet.gpus:
        core_s += rates.embed_s
    row = [
        Stage("storage", 1, table * rates.photo_bytes / fleet.storage_bytes_per_s),
        Stage("network", fleet.machines, table * moved_bytes / fleet.network_bytes_per_s),
        Stage("cores", fleet.all_cores, table * core_s),
    ]
    if fleet.gpus:
        gpus = fleet.machines * fleet.gpus
        row.append(Stage("GPUs", gpus, table / fleet.gpu_images_per_s))
    result_bytes = table * (rates.row_bytes + _DIGEST_BYTES)
    return [
        *row,
        Stage("first machine's network", 1, result_bytes / fleet.network_bytes_per_s),
        Stage("first machine", 1, rates.hand_out_s + table * rates.add_s),
    ]


def makespan_s(row: Sequence[Stage], tables: int, under_way: int) -> float:
    """Return the time until the last table has left the last stage.

    Args:
        row: The stages.
        tables: How many tables, >= 1.
        under_way: How many may be between the first stage and the last, >= 1.

    Returns:
        Seconds. Of many tables the pace of the last of those that are followed goes on.
    """
    servers = max(stage.servers for stage in row)
    followed = min(tables, max(_FOLLOWED, 8 * servers, 4 * under_way))
    # Of each stage, and of the whole, the departures of all tables that are followed.
    left = [[0.0] * followed for _ in row]
    for n in range(followed):
        time_s = left[-1][n - under_way] if n >= under_way else 0.0
        for stage, departures in zip(row, left, strict=True):
            free_s = departures[n - stage.servers] if n >= stage.servers else 0.0
            time_s = max(time_s, free_s) + stage.time_s
            departures[n] = time_s
    last = left[-1]
    if followed == tables:
        return last[-1]
    half = followed // 2
    pace_s = (last[-1] - last[half - 1]) / (followed - half)
    return last[-1] + (tables - followed) * pace_s


def cost(rates: Rates, fleet: Fleet, photos: int, *, table: int = 64) -> Cost:
    """Reckon what a build of so many photos costs.

    Args:
        rates: What a photo costs.
        fleet: The machines.
        photos: How many, >= 1.
        table: Photos in a table.

    Returns:
        The cost.
    """
    row = stages(rates, fleet, table)
    tables = math.ceil(photos / table)
    # Each core decodes a table; a worker has two in hand, and for each one lies ready.
    workers = fleet.machines * (fleet.gpus or fleet.cores)
    embedding_s = makespan_s(row, tables, fleet.all_cores + 3 * workers)
    clustering = {
        "cores": rates.cluster_s / fleet.all_cores,
        "first machine": rates.take_s,
        "first machine's network": rates.row_bytes / fleet.network_bytes_per_s,
    }
    slowest = max(clustering, key=lambda name: clustering[name])
    listing_s, clustering_s = photos * rates.list_s, photos * clustering[slowest]
    whole_s = listing_s + embedding_s + clustering_s
    return Cost(
        photos,
        listing_s,
        embedding_s,
        clustering_s,
        photos / embedding_s,
        min(row, key=lambda stage: stage.tables_per_s).name,
        slowest,
        fleet.machines * whole_s / 3600,
        photos * rates.photo_bytes,
        photos * (rates.row_bytes + _DIGEST_BYTES),
        photos * (rates.list_bytes + _DIGEST_BYTES),
    )

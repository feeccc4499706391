# SPDX-License-Identifier: Apache-2.0
"""A cluster of two nodes gives what this machine gives, to the last bit."""

from __future__ import annotations

import io
import os
import signal
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint.backbones import Backbone
from edge_imprint.embedding import cluster as cluster_module
from edge_imprint.embedding.cluster import RayEngine
from edge_imprint.embedding.cluster_tasks import Read, locations, read_photos
from edge_imprint.embedding.engine import Broken, Engine
from edge_imprint.embedding.local import LocalEngine
from edge_imprint.imprinting.proxies import generate
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.photos.locations import Location, Member, Remote
from edge_imprint_runtime.errors import (
    ClusterError,
    EmbeddingError,
    ModelFileError,
    ProviderError,
)
from tests.host.embedding.ray_clusters import ray_cluster

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")

Rows = dict[int, tuple[bytes, bytes]]
Float32 = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    with ray_cluster(2) as cluster:
        yield cluster


@pytest.fixture
def engine(two_nodes: Any, network: Backbone) -> Iterator[RayEngine]:
    made = RayEngine(network, device="cpu", address=two_nodes.address)
    yield made
    made.close()
    assert not ray.is_initialized()


def all_results(engine: Engine, photos: Sequence[Location]) -> tuple[Rows, dict[int, str]]:
    """Collect an engine's results; each photo has one."""
    rows: Rows = {}
    broken: dict[int, str] = {}
    for result in engine.embed(photos):
        if isinstance(result, Broken):
            assert result.index not in rows | broken
            broken[result.index] = result.problem
        else:
            for index, digest, row in zip(
                result.indices, result.digests, result.rows, strict=True
            ):
                assert index not in rows | broken
                rows[index] = digest, row.tobytes()
    return rows, broken


def in_a_shard(folder: Path, photo: Path) -> Member:
    file = folder / "shard.tar"
    data = photo.read_bytes()
    with tarfile.open(file, "w") as tar:
        member = tarfile.TarInfo("one.png")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return Member(file, "one.png", 512, len(data))


def test_photos_of_all_kinds_embed_as_here(
    engine: RayEngine,
    network: Backbone,
    photos_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    photos: list[Location] = sorted(photos_folder.rglob("*.png")) * 3
    monkeypatch.chdir(photos_folder)
    (tmp_path / "broken.png").write_bytes(b"no image")
    photos[5:5] = [tmp_path / "broken.png", Path("missing.png"), Path("red/red-1.png")]
    photos.append(in_a_shard(tmp_path, photos_folder / "red" / "red-2.png"))
    photos.append(Remote((photos_folder / "blue" / "blue-0.png").as_uri()))
    local = LocalEngine(network, device="cpu")
    expected = all_results(local, photos)
    local.close()
    assert set(expected[1]) == {5, 6}
    capfd.readouterr()

    found = all_results(engine, photos)

    assert found == expected
    assert engine.notes == []
    assert (engine.device, engine.arithmetic) == ("cpu", "fp32")
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")  # Ray keeps its words for its log files


def test_a_photo_that_ends_its_process_is_broken_and_no_other(
    engine: RayEngine, photos_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = sorted(photos_folder.rglob("*.png"))

    def crashing(table: Any, preprocess: Any, decode: str) -> Any:
        if any(str(photo).endswith("green-3.png") for photo in locations(table)):
            os.kill(os.getpid(), signal.SIGKILL)
        return read_photos(table, preprocess, decode)

    monkeypatch.setattr(cluster_module, "read_photos", crashing)
    monkeypatch.setattr(cluster_module, "_RETRIES", 0)
    rows, broken = all_results(engine, photos)
    bad = photos.index(photos_folder / "green" / "green-3.png")
    assert broken == {
        bad: f"the image {photos[bad]} ended each process that decoded it; "
        "replace it or take it out"
    }
    assert set(rows) == set(range(len(photos))) - {bad}


def test_classes_cluster_as_here(engine: RayEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_imprint.embedding.cluster_classes._GROUP_BYTES", 4096)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((600, 12)).astype(np.float32)
    index = rng.integers(0, 9, 600)
    index[:9] = np.arange(9)
    source, ks = ByClass(rows, index, rng.uniform(0, 2, 600)), [1, 2, 3, 4, 5, 6, 7, 8, 900]
    told: list[tuple[int, int]] = []
    for generation in ("kmeans", "mean", "kmedoids"):
        told.clear()
        made = engine.generate(
            source, generation, ks, 5, progress=lambda *step: told.append(step)
        )
        here = generate(source, generation, ks, 5)
        assert [part.tobytes() for part in made] == [part.tobytes() for part in here]
        assert told[-1] == (9, 9)
        assert told == sorted(told)


def test_a_class_larger_than_memory_is_clustered_here(engine: RayEngine) -> None:
    rows = np.random.default_rng(1).standard_normal((40, 4)).astype(np.float32)

    class Large(ByClass):
        def large(self, c: int) -> bool:
            return c == 1

        def blocks(self, c: int) -> Iterator[tuple[Float32, None]]:
            whole, _ = super().__getitem__(c)
            yield from ((whole[i : i + 7], None) for i in range(0, len(whole), 7))

        def __getitem__(self, c: int) -> tuple[Float32, Any]:
            whole, weights = super().__getitem__(c)
            return (whole[:3], weights) if c == 1 else (whole, weights)

    source = Large(rows, np.repeat([0, 1], 20))
    made = engine.generate(source, "mean", [1, 1], 0)
    here = generate(source, "mean", [1, 1], 0)
    assert [part.tobytes() for part in made] == [part.tobytes() for part in here]
    assert np.allclose(made[1], rows[20:].mean(axis=0), atol=1e-6)


def test_what_a_machine_raises_is_raised_here(engine: RayEngine) -> None:
    rows = np.ones((40, 4), np.float32)
    rows[33] = np.inf
    source = ByClass(rows, np.repeat(np.arange(4), 10))
    with pytest.raises(EmbeddingError, match="row 3 of class 3"):
        engine.generate(source, "mean", [1] * 4, 0)


def test_rows_that_end_each_process_are_not_tried_for_ever(engine: RayEngine) -> None:
    class EndsWhoReadsIt:
        def __reduce__(self) -> Any:
            return os._exit, (7,)

    class Source:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, c: int) -> Any:
            return np.ones((3, 4), np.float32), EndsWhoReadsIt()

    with pytest.raises(ClusterError, match="clustering a class failed on a machine"):
        engine.generate(Source(), "mean", [1], 0)


def test_a_cluster_without_gpus_refuses_cuda(
    two_nodes: Any, network: Backbone, photos_folder: Path
) -> None:
    engine = RayEngine(network, device="cuda", address=two_nodes.address)
    with pytest.raises(ProviderError, match="no machine of the Ray cluster has a GPU"):
        list(engine.embed([photos_folder / "red" / "red-0.png"]))
    engine.close()


def test_large_photos_that_a_lost_machine_had_get_another_pass(
    network: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each is a table of its own from the start; that one is lost says nothing of the photo.
    monkeypatch.setattr(cluster_module, "_TABLE_BYTES", {"cpu": 1})
    engine, passes = RayEngine(network, device="cpu"), list[list[int]]()

    def embed(nodes: Any, pool: Any, photos: Any, todo: Sequence[int], rows: int) -> Any:
        passes.append(list(todo))
        assert rows == 1
        for i in set(todo) - ({1, 2} if len(passes) == 1 else {2}):
            zeros = np.zeros((1, 32), np.uint8)
            yield Read(np.array([i]), zeros, np.ones((1, 4), np.float32), ())

    monkeypatch.setattr(engine, "_pass", embed)
    nodes: Any = SimpleNamespace(cpus=2, gpus=0)
    paths = [Path(f"{i}.png") for i in range(4)]
    found = list(engine._embed(nodes, Any, paths, range(4)))
    assert passes == [[0, 1, 2, 3], [1, 2]]
    assert [r.index for r in found if isinstance(r, Broken)] == [2]


def test_tables_where_all_gpus_are_lost(network: Backbone) -> None:
    engine = RayEngine(network, device="cuda")
    nodes: Any = SimpleNamespace(cpus=2, gpus=0)
    assert engine._table_photos(400, nodes) == 100


def test_a_worker_that_can_not_start_says_why(
    engine: RayEngine, photos_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "embedder_graph", lambda _: b"no graph")
    with pytest.raises(ModelFileError, match="can't load the model"):
        list(engine.embed([photos_folder / "red" / "red-0.png"]))


def test_an_embed_that_is_left_ends_its_workers(
    engine: RayEngine, photos_folder: Path
) -> None:
    photos = sorted(photos_folder.rglob("*.png"))
    results = engine.embed(photos * 20)
    next(results)
    results.close()
    rows, broken = all_results(engine, photos)  # there is room for new ones
    assert len(rows) == len(photos)
    assert not broken


def test_the_cluster_stays(two_nodes: Any) -> None:
    assert all(
        node.all_processes["raylet"][0].process.poll() is None
        for node in two_nodes.list_all_nodes()
    )

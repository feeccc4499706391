# SPDX-License-Identifier: Apache-2.0
"""A node of three is lost while a build embeds: the head is that of one machine alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_imprint import build
from edge_imprint.backbones import Backbone
from edge_imprint.embedding.run import How
from tests.host.conftest import WritePhotos
from tests.host.embedding.ray_clusters import kill_node, ray_cluster

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Any]:
    with ray_cluster(3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory: pytest.TempPathFactory, write_photos: WritePhotos) -> Path:
    """Three classes of 150, 100 and 50 photos, one of them broken."""
    root = tmp_path_factory.mktemp("many")
    write_photos(root, {"red": 150, "green": 100, "blue": 50})
    (root / "red" / "red-3.png").write_bytes(b"no image")
    return root


@pytest.fixture
def local_head(tmp_path: Path, many_photos: Path, network: Backbone) -> bytes:
    head = tmp_path / "local.npz"
    build(many_photos, backbone=network, out=head, proxies=5, how=How(cache=False))
    return head.read_bytes()


def test_a_node_is_killed_in_mid_embedding(
    tmp_path: Path,
    three_nodes: Any,
    many_photos: Path,
    network: Backbone,
    local_head: bytes,
    capfd: pytest.CaptureFixture[str],
) -> None:
    done_at_kill: list[int] = []

    def progress(step: str, done: int, total: int) -> None:
        if step == "embedding" and done and not done_at_kill:
            done_at_kill.append(done)
            kill_node(three_nodes)

    head = tmp_path / "ray.npz"
    how = How(engine="ray", ray_address=three_nodes.address, cache=False, device="cpu")
    made = build(
        many_photos, backbone=network, out=head, proxies=5, how=how, progress=progress
    )
    assert 0 < done_at_kill[0] < 200
    assert head.read_bytes() == local_head
    assert made.images == 299
    assert len(made.skipped) == 1
    assert any("1 of 3 machines of the cluster, or" in note for note in made.notes)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")

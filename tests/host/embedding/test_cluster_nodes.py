# SPDX-License-Identifier: Apache-2.0
"""Addresses where no cluster is: each said in one sentence, before Ray waits a minute."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_imprint.backbones import Backbone
from edge_imprint.embedding.cluster import RayEngine
from edge_imprint.embedding.cluster_nodes import Nodes, first_line
from edge_imprint_runtime.errors import ClusterError, MissingPackageError, ParameterError

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")


@pytest.fixture
def web_server() -> Iterator[str]:
    """The address of what listens, and is no cluster."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), http.server.BaseHTTPRequestHandler
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens, and that nobody else takes meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_nobody_listens(nobody: str, network: Backbone) -> None:
    engine = RayEngine(network, device="cpu", address=nobody)
    with pytest.raises(ClusterError) as error:
        list(engine.embed([Path("a.png")]))
    assert str(error.value) == (
        f"cannot reach a Ray cluster at {nobody}: Connection refused; give HOST:PORT of its "
        "head, auto on one of its machines, or leave --ray-address out"
    )
    assert not ray.is_initialized()


def test_something_else_listens(web_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_imprint.embedding.cluster_nodes._ANSWER_S", 3.0)
    with pytest.raises(ClusterError, match="is no Ray cluster of this Ray's version"):
        Nodes(web_server)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("head", "'head' is no address"),
        (":6379", "':6379' is no address"),
        ("head:port", "'head:port' is no address"),
        ("head:99999", "'head:99999' is no address"),
        ("ray://head:10001", "is a client's: run the build on a machine of the cluster"),
        ("auto", "no cluster at auto: Could not find any running Ray instance; give "),
    ],
)
def test_an_address_that_is_none(
    address: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where clusters that run are told of
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ClusterError, match=says) as error:
        Nodes(address)
    assert "\n" not in str(error.value)


def test_the_environment_of_ray_names_a_cluster(
    nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    with pytest.raises(ClusterError, match=nobody):
        Nodes()


def test_without_ray_it_says_what_to_install(
    network: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    engine = RayEngine(network, device="cpu")
    with pytest.raises(MissingPackageError, match=r"edge-imprint\[ray\]"):
        list(engine.embed([Path("a.png")]))


def test_no_photos_need_no_cluster(network: Backbone, nobody: str) -> None:
    assert list(RayEngine(network, device="cpu", address=nobody).embed([])) == []


def test_what_can_not_be_asked_for(network: Backbone) -> None:
    with pytest.raises(ParameterError, match="device must be one of"):
        RayEngine(network, device="tpu")
    with pytest.raises(ParameterError, match="decode must be one of"):
        RayEngine(network, device="cpu", decode="fast")
    with pytest.raises(ParameterError, match="--autocast is for CUDA"):
        RayEngine(network, device="cpu", autocast="bf16")


def test_making_the_engine_loads_nothing_heavy(onnx_file: Path) -> None:
    code = (
        "import sys\n"
        "from edge_imprint.backbones import load_backbone\n"
        "from edge_imprint.embedding.cluster import RayEngine\n"
        "RayEngine(load_backbone('demo'), device='cpu', address='auto')\n"
        "print({'ray', 'torch', 'onnxruntime', 'pyarrow'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    assert done.stdout.strip() == "set()"


def test_the_first_line_that_says_something() -> None:
    assert first_line(ValueError("\n\n  no room.\nat all")) == "no room"
    assert first_line(ValueError()) == "ValueError"

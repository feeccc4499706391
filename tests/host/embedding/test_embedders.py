# SPDX-License-Identifier: Apache-2.0
"""Same pixels in, same embedding out: ONNX Runtime's graph against torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from edge_imprint import Backbone, load_backbone
from edge_imprint.embedding.embedders import (
    LANE_BATCH,
    OrtEmbedder,
    embedder_graph,
    ort_embedder,
    pick_embedder,
    torch_embedder,
)
from edge_imprint.embedding.gpus import find_gpus
from edge_imprint_runtime.errors import ParameterError, ProviderError


def pixels(n: int, side: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Photos are smooth: noise at three scales, so that no layer sees a flat image."""
    rng = np.random.default_rng(seed)
    out = np.zeros((n, side, side, 3))
    for cells in (2, 8, side):
        coarse = rng.uniform(0, 85, (n, cells, cells, 3))
        out += coarse.repeat(side // cells, axis=1).repeat(side // cells, axis=2)
    return out.astype(np.uint8)


# A convolution network, a transformer, a ConvNeXt; the latter two hold LayerNorm and GELU.
@pytest.fixture(scope="module", params=["test_efficientnet", "test_vit", "test_convnext"])
def timm_net(request: pytest.FixtureRequest) -> Backbone:
    return load_backbone(f"timm/{request.param}", random_weights=True)


def test_ort_and_torch_embed_alike(timm_net: Backbone) -> None:
    images = pixels(5, timm_net.info.preprocess.height)
    graph = ort_embedder(timm_net)(images)
    eager = torch_embedder(timm_net, "cpu")(images)
    assert graph.dtype == eager.dtype == np.float32
    assert graph.shape == eager.shape
    assert np.abs(graph - eager).max() <= 1e-4 * np.abs(eager).max()
    norms = np.linalg.norm(graph, axis=1) * np.linalg.norm(eager, axis=1)
    assert ((graph * eager).sum(axis=1) / norms > 0.99999).all()
    # ... and the photos are told apart, so that agreement means something.
    assert np.abs(graph[0] - graph[1]).max() > 1e-3 * np.abs(graph).max()


def test_a_photo_alone_and_among_others(timm_net: Backbone) -> None:
    images = pixels(3, timm_net.info.preprocess.height)
    embed = ort_embedder(timm_net)
    together, alone = (
        embed(images),
        np.concatenate([embed(images[i : i + 1]) for i in range(3)]),
    )
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4 * np.abs(alone).max())


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_runs_of_one_size_make_an_embedding_depend_on_its_photo_alone(
    timm_net: Backbone, batch: int
) -> None:
    graph = embedder_graph(timm_net)
    images = pixels(9, timm_net.info.preprocess.height)
    embed = OrtEmbedder(graph, threads=1, batch=batch)
    together = embed(images)
    assert together.shape[0] == 9
    for i in range(9):
        np.testing.assert_array_equal(embed(images[i : i + 1])[0], together[i])
    np.testing.assert_array_equal(embed(images[::-1])[::-1], together)
    np.testing.assert_array_equal(embed(images[4:6]), together[4:6])


def test_several_threads_share_one(network: Backbone) -> None:
    images = pixels(12, 16)
    embed = OrtEmbedder(embedder_graph(network), threads=1, batch=LANE_BATCH)
    want = embed(images)
    with ThreadPoolExecutor(4) as threads:
        for got in threads.map(embed, [images] * 40):
            np.testing.assert_array_equal(got, want)


def test_a_graph_of_a_fixed_batch(flat_backbone: Callable[..., bytes]) -> None:
    model = onnx.load_from_string(flat_backbone())
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    model.graph.input[0].name = model.graph.node[0].input[0] = "images"
    model.graph.output[0].name = model.graph.node[0].output[0] = "embedding"
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    embed = OrtEmbedder(model.SerializeToString(), batch=4)
    assert embed.batch == 2
    rows = np.arange(5 * 12, dtype=np.uint8).reshape(5, 3, 1, 4)
    np.testing.assert_array_equal(embed(rows), rows.reshape(5, 12))


def test_ort_embedder_against_the_bare_graph(network: Backbone, tiny_backbone: bytes) -> None:
    import onnxruntime as ort

    images, p = pixels(4, 16), network.info.preprocess
    floats = (images.transpose(0, 3, 1, 2) / 255 - np.reshape(p.mean, (3, 1, 1))) / np.reshape(
        p.std, (3, 1, 1)
    )
    session = ort.InferenceSession(tiny_backbone, providers=["CPUExecutionProvider"])
    want = session.run(None, {"pixels": floats.astype(np.float32)})[0]
    np.testing.assert_allclose(ort_embedder(network)(images), want, rtol=1e-4, atol=1e-5)


def test_the_demo_backbone_against_torch() -> None:
    import torch

    from edge_imprint.backbones.glyphnet import EMBEDDING_SIZE, load_weights, torch_module

    images = pixels(4, 32)
    got = ort_embedder(load_backbone("demo"))(images)
    assert got.shape == (4, EMBEDDING_SIZE)
    floats = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255 / 0.5
    with torch.inference_mode():
        want = torch_module(load_weights())(floats).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def test_picking(network: Backbone) -> None:
    for device in ("cpu", "auto"):
        embed, runs_on = pick_embedder(network, device)
        assert runs_on == "cpu"
        assert embed(pixels(2, 16)).shape == (2, 8)


@pytest.mark.parametrize("device", ["gpu", "", "CPU", "cuda:0", None])
def test_an_unknown_device(network: Backbone, device: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        pick_embedder(network, device)
    assert str(caught.value) == f"device must be one of auto, cpu, cuda, got {device!r}"


def test_cuda_where_there_is_none(network: Backbone) -> None:
    if find_gpus().count:
        pytest.skip("this machine has CUDA")
    with pytest.raises(ProviderError, match="there is no CUDA device on this machine"):
        pick_embedder(network, "cuda")


@pytest.mark.parametrize(
    ("package", "purpose", "extra"),
    [("onnx", "embedding photos", "host"), ("onnxruntime", "running a model", "cpu")],
)
def test_without_a_package(package: str, purpose: str, extra: str) -> None:
    # MissingPackageError, in an interpreter that refuses the import.
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from edge_imprint import load_backbone\n"
        "from edge_imprint.embedding.embedders import ort_embedder\n"
        "from edge_imprint_runtime.errors import MissingPackageError\n"
        "try: ort_embedder(load_backbone('demo'))\n"
        "except MissingPackageError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == (
        f"{purpose} needs the package '{package}', which is not installed here; "
        f"run: pip install 'edge-imprint[{extra}]'"
    ), done.stderr

# SPDX-License-Identifier: Apache-2.0
"""Same pixels in, same embedding out: ONNX Runtime's graph against torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_imprint import Backbone, load_backbone
from edge_imprint.embedding.embedders import ort_embedder, pick_embedder, torch_embedder
from edge_imprint_runtime import Preprocess
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


def test_torch_embedder_leaves_the_module_as_it_was(timm_net: Backbone) -> None:
    assert timm_net.module is not None
    before = {key: value.clone() for key, value in timm_net.module.state_dict().items()}
    torch_embedder(timm_net, "cpu")(pixels(2, timm_net.info.preprocess.height))
    after = timm_net.module.state_dict()
    assert all((after[key] == value).all() for key, value in before.items())
    assert not timm_net.module.training


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
    import onnxruntime
    import torch

    if torch.cuda.is_available() or "CUDAExecutionProvider" in (
        onnxruntime.get_available_providers()
    ):
        pytest.skip("this machine has CUDA")
    with pytest.raises(ProviderError) as caught:
        pick_embedder(network, "cuda")
    assert str(caught.value).startswith(
        "this ONNX Runtime has no CUDAExecutionProvider (it has "
    )
    timm_net = load_backbone(
        "timm/test_efficientnet", random_weights=True, preprocess=Preprocess(64, 64)
    )
    with pytest.raises(ProviderError) as caught:
        pick_embedder(timm_net, "cuda")
    assert str(caught.value) == (
        "torch finds no CUDA device on this machine; use --device cpu"
    )


def test_torch_embedder_without_a_module(network: Backbone) -> None:
    with pytest.raises(ParameterError) as caught:
        torch_embedder(network, "cpu")
    assert str(caught.value) == f"the backbone {network.info.name} has no torch module"


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

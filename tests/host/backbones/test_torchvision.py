# SPDX-License-Identifier: Apache-2.0
"""torchvision's models: every one embeds, with its own preprocessing and its own classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.overrides import TorchFunctionMode

from edge_imprint.backbones import Backbone, listing, load_backbone
from edge_imprint.backbones.torchvision_models import bare, names, preprocess_of
from edge_imprint_runtime import prepare
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import (
    BackboneNotFoundError,
    ParameterError,
    WeightsError,
)

NAME = "torchvision/squeezenet1_1"  # 0.7 M parameters, the smallest
MODELS: Any = torchvision.models


class WithoutNumbers(TorchFunctionMode):
    """Makes weights on the meta device. Not all tensors: regnets compute with some."""

    MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        options = dict(kwargs or {})
        if func in self.MAKERS:
            options["device"] = options.get("device") or "meta"
        return func(*args, **options)


def test_all_of_torchvisions_classifiers_are_known() -> None:
    assert len(names()) >= 80
    assert {"resnet18", "vit_h_14", "maxvit_t", "squeezenet1_0", "regnet_y_128gf"} <= set(
        names()
    )


@pytest.mark.parametrize("name", names())
def test_every_model_gives_one_embedding_an_image(name: str) -> None:
    with WithoutNumbers():
        module = bare(name).to("meta")  # and what it was not: tables of positions
    p = preprocess_of(module, name)
    with torch.inference_mode():
        out = module(torch.empty(2, 3, p.height, p.width, device="meta"))
    told = listing.shipped().find(f"torchvision/{name}")
    assert told is not None
    assert out.shape == (2, told.embedding_size)
    assert (told.height, told.width) == (p.height, p.width)
    # What was taken off is all that the whole model has beside.
    with WithoutNumbers():
        whole = {**MODELS.get_model(name, weights=None, **_as_trained(name)).state_dict()}
    left = {key: tuple(whole[key].shape) for key in whole.keys() - module.state_dict().keys()}
    assert module.state_dict().keys() <= whole.keys()
    assert {shape[0] for shape in left.values()} == {1000}
    assert len(left) in (1, 2)


def _as_trained(name: str) -> dict[str, Any]:
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": False, "transform_input": True}
    return {}


@pytest.mark.parametrize(
    "name", ["squeezenet1_1", "efficientnet_b1", "inception_v3", "swin_v2_t"]
)
def test_preprocessing_gives_torchvisions_own_pixels(name: str) -> None:
    # Nearest, bilinear and bicubic; a box larger than what is cut from it.
    p = preprocess_of(torch.nn.Identity(), name)
    photo = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (431, 600, 3)).astype(np.uint8)
    )
    want = MODELS.get_model_weights(name).DEFAULT.transforms()(photo).numpy()
    mine = prepare(photo, p).transpose(2, 0, 1) / 255
    mean, std = (np.reshape(row, (3, 1, 1)) for row in (p.mean, p.std))
    np.testing.assert_allclose((mine - mean) / std, want, atol=1e-5)


@pytest.fixture(scope="module")
def random_net() -> Backbone:
    return load_backbone(NAME, random_weights=True)


def test_random_weights_are_seeded_and_leave_torchs_seed_alone(random_net: Backbone) -> None:
    before = torch.random.get_rng_state()
    again = load_backbone("torchvision/mnasnet0_5", random_weights=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(9)
    assert again.info == load_backbone("torchvision/mnasnet0_5", random_weights=True).info
    assert (again.info.name, again.info.weights) == ("torchvision/mnasnet0_5", "random:0")
    assert again.info.digest != random_net.info.digest
    assert again.module is not None
    assert not again.module.training
    assert not any(p.requires_grad for p in again.module.parameters())


def test_the_graph_computes_what_the_module_does(random_net: Backbone) -> None:
    from edge_imprint_export.graph import to_bytes

    module = random_net.module
    assert module is not None
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want = module(images).numpy()
    found = OrtRunner(to_bytes(random_net.onnx), "cpu").run(["embedding"], images.numpy())[0]
    assert found.shape == want.shape == (2, 512)
    assert np.abs(found - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vit_b_32", "maxvit_t"])
def test_the_classifier_is_what_the_whole_model_ends_in(name: str) -> None:
    network = load_backbone(f"torchvision/{name}", random_weights=True)
    assert network.classifier is not None
    own = network.classifier()
    assert network.module is not None
    assert len(own.labels) == 1000
    assert own.labels[:2] == ("tench", "goldfish")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = MODELS.get_model(name, weights=None).eval()
    images = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        last = [m for m in whole.modules() if isinstance(m, torch.nn.Linear)][-1]
        if last.bias is not None:
            last.bias.zero_()
        want = whole(images).numpy()
        embedding = network.module(images).numpy()
    np.testing.assert_allclose(embedding @ own.weights.T, want, atol=1e-4 * abs(want).max())


def test_a_classifier_that_is_a_convolution(random_net: Backbone) -> None:
    assert random_net.classifier is not None
    with pytest.raises(ParameterError) as caught:
        random_net.classifier()
    assert str(caught.value) == (
        f"{NAME} has no classifier whose classes could be kept: it ends in a convolution, not "
        "in a linear layer; use another backbone, or leave out --keep-classes"
    )


def test_weights_from_a_file(tmp_path: Path) -> None:
    name = "torchvision/mobilenet_v3_small"
    whole = MODELS.get_model("mobilenet_v3_small", weights=None, num_classes=7)
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "mine.pth")
    network = load_backbone(name, weights=tmp_path / "mine.pth")
    assert network.info.weights == "file:mine.pth"
    assert network.module is not None
    state = network.module.state_dict()
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in state.items())
    assert network.classifier is not None
    own = network.classifier()
    assert own.labels == tuple(f"class {c}" for c in range(7))
    assert np.array_equal(own.weights, whole.classifier[3].weight.detach().numpy())
    torch.save(state, tmp_path / "bare.pth")
    bare_net = load_backbone(name, weights=tmp_path / "bare.pth")
    assert bare_net.info.digest == network.info.digest
    assert bare_net.classifier is not None
    with pytest.raises(WeightsError, match=r"hold no classifier \(classifier\.3\.weight\) of"):
        bare_net.classifier()


def test_unknown_and_unfetched(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackboneNotFoundError) as caught:
        load_backbone("torchvision/resnet81")
    assert str(caught.value).startswith(
        f"torchvision {torchvision.__version__} has no model 'resnet81'; nearest: "
        "torchvision/resnet18, "
    )

    def unreachable(name: str) -> Path:
        raise WeightsError(f"cannot get {name}")

    monkeypatch.setattr(
        "edge_imprint.backbones.torchvision_models.torchvision_weights", unreachable
    )
    with pytest.raises(WeightsError, match="cannot get resnet18"):
        load_backbone("torchvision/resnet18")

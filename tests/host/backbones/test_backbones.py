# SPDX-License-Identifier: Apache-2.0
"""Backbones by name: seeded weights, timm's own preprocessing, and graphs for heads."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from edge_imprint.backbones import Backbone, graph_for, load_backbone
from edge_imprint_export.graph import image_size, to_bytes
from edge_imprint_runtime import BackboneInfo, Head, Preprocess, prepare
from edge_imprint_runtime.errors import (
    BackboneExportError,
    BackboneMismatchError,
    BackboneNotFoundError,
    ParameterError,
)

NAME = "timm/test_efficientnet"  # 99 k parameters
FORMS = "'demo', 'timm/NAME', 'torchvision/NAME', 'onnx:FILE' or 'python:MODULE:FACTORY'"


def head_of(info: BackboneInfo, dim: int = 8) -> Head:
    return Head(np.eye(2, dim), [0, 1], ["a", "b"], backbone=info)


def python(code: str) -> str:
    """Run code in a fresh interpreter; gives its stdout."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def random_net() -> Backbone:
    return load_backbone(NAME, random_weights=True)


# timm --------------------------------------------------------------------------------------


def test_random_weights_are_seeded_and_leave_torchs_seed_alone(random_net: Backbone) -> None:
    import torch

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    again = load_backbone(NAME, random_weights=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert again.info == random_net.info
    assert again.info.weights == "random:0"
    assert again.info.name == NAME
    assert random_net.module is not None
    assert not random_net.module.training
    assert not any(p.requires_grad for p in random_net.module.parameters())


def test_another_network_has_another_digest(random_net: Backbone) -> None:
    other = load_backbone("timm/test_efficientnet_gn", random_weights=True)
    assert other.info.digest != random_net.info.digest


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_mambaout"])
def test_preprocessing_gives_timms_own_pixels(name: str) -> None:
    import timm

    network = load_backbone(f"timm/{name}", random_weights=True)
    config = timm.data.resolve_model_data_config(network.module)
    p = network.info.preprocess
    assert (3, p.height, p.width) == config["input_size"]
    assert (p.mean, p.std) == (config["mean"], config["std"])
    assert p.interpolation == config["interpolation"]
    pixels = np.random.default_rng(0).integers(0, 256, (211, 300, 3)).astype(np.uint8)
    photo = Image.fromarray(pixels)
    want = timm.data.create_transform(**config, is_training=False)(photo).numpy()
    mine = prepare(photo, p).transpose(2, 0, 1) / 255
    mean, std = (np.reshape(row, (3, 1, 1)) for row in (p.mean, p.std))
    np.testing.assert_allclose((mine - mean) / std, want, atol=1e-5)


def test_another_preprocessing_makes_a_graph_of_its_size(random_net: Backbone) -> None:
    network = load_backbone(NAME, random_weights=True, preprocess=Preprocess(64, 96))
    assert network.info.digest == random_net.info.digest
    assert image_size(network.onnx) == (64, 96)
    assert image_size(graph_for(head_of(network.info, 256))) == (64, 96)


def test_a_size_that_the_network_refuses() -> None:
    network = load_backbone(
        "timm/test_vit3", random_weights=True, preprocess=Preprocess(96, 96)
    )
    with pytest.raises(
        BackboneExportError,
        match=r"^the backbone timm/test_vit3 does not run on 96x96 pixels: ",
    ):
        network.onnx  # noqa: B018 - reading it makes it


@pytest.mark.parametrize(
    ("name", "start", "nearest"),
    [
        ("resnet18", f"there is no backbone 'resnet18'; use {FORMS}; nearest: ", "/resnet18"),
        (
            "torchvision/resnet51",
            "has no model 'resnet51'",
            "; nearest: torchvision/resnet50, ",
        ),
        ("torchvision/", f"there is no backbone 'torchvision/'; use {FORMS}", ""),
        ("timm/resnet81", "has no model 'resnet81'", "; nearest: timm/resnet18, "),
        ("timm/mobilenetv3_smal_100", "no model", "mobilenetv3_small_100"),
        ("Demo", f"there is no backbone 'Demo'; use {FORMS}", "; nearest: demo"),
        (
            "net.onnx",
            f"there is no backbone 'net.onnx'; use {FORMS}",
            "nearest: onnx:net.onnx",
        ),
        ("", f"there is no backbone ''; use {FORMS}", ""),
        ("timm/", f"there is no backbone 'timm/'; use {FORMS}", ""),
        ("timm/resnet18.no_such_tag", "cannot make the model 'resnet18.no_such_tag'", ""),
    ],
)
def test_unknown_names(name: str, start: str, nearest: str) -> None:
    with pytest.raises(BackboneNotFoundError) as caught:
        load_backbone(name, random_weights=True)
    assert start in str(caught.value)
    assert nearest in str(caught.value)
    assert caught.value.exit_code == 2


def test_options_that_contradict_each_other(onnx_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError) as caught:
        load_backbone(NAME, weights=tmp_path / "w.pt", random_weights=True)
    assert str(caught.value) == "give --weights FILE or --random-weights, not both"
    options: dict[str, dict[str, Any]] = {
        "--weights": {"weights": "w.pt"},
        "--random-weights": {"random_weights": True},
    }
    for name in ("demo", f"onnx:{onnx_file}"):
        for option, given in options.items():
            with pytest.raises(ParameterError) as caught:
                load_backbone(name, **given)
            assert (
                str(caught.value)
                == f"the backbone {name} brings its own weights; leave out {option}"
            )


def test_pretrained_weights_without_a_connection() -> None:
    # In an interpreter of its own: the hub's client reads HF_HUB_OFFLINE when it is imported.
    text = python(
        "from edge_imprint import load_backbone\n"
        "from edge_imprint_runtime.errors import WeightsError\n"
        f"try: load_backbone({NAME!r})\n"
        "except WeightsError as error: print(error)"
    )
    assert text.startswith(f"cannot get the pretrained weights of {NAME} (")
    assert text.endswith("give it as --weights FILE; --random-weights tries without")
    assert "\n" not in text


@pytest.mark.parametrize("package", ["torch", "timm"])
def test_without_a_package(package: str) -> None:
    # MissingPackageError, in an interpreter that refuses the import.
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from edge_imprint import load_backbone\n"
        "from edge_imprint_runtime.errors import MissingPackageError\n"
        "try: load_backbone('timm/resnet18')\n"
        "except MissingPackageError as error: print(error)"
    )
    assert python(code) == (
        f"a timm backbone needs the package '{package}', which is not installed here; "
        "run: pip install 'edge-imprint[host]'"
    )


# The own classes of timm's models ----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 512),
        ("mobilenetv3_small_100", 1024),  # a layer between pooling and classifier
        ("vit_tiny_patch16_224", 192),
        ("convnext_atto", 320),
        ("efficientnet_b0", 1280),
        ("dla46_c", 256),  # a 1x1 convolution
        ("sequencer2d_s", 384),  # whose get_classifier() gives the whole head
    ],
)
def test_the_classifier_is_what_the_whole_model_ends_in(name: str, size: int) -> None:
    import timm
    import torch

    network = load_backbone(f"timm/{name}", random_weights=True)
    assert network.module is not None
    assert network.classifier is not None
    before = torch.random.get_rng_state()
    own = network.classifier()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert own.weights.dtype == np.float32
    assert own.weights.shape == (1000, size)
    assert own.labels[:2] == ("tench", "goldfish")

    p = network.info.preprocess
    whole: Any = timm.create_model(name).eval()
    whole.load_state_dict(network.module.state_dict(), strict=False)
    last = whole.get_submodule(whole.pretrained_cfg["classifier"])
    with torch.inference_mode():
        last.weight.copy_(torch.tensor(own.weights).reshape(last.weight.shape))
        last.bias.zero_()
        images = torch.rand(1, 3, p.height, p.width)
        want = whole(images).numpy()
        embedding = network.module(images).numpy()
    np.testing.assert_allclose(embedding @ own.weights.T, want, atol=1e-4 * abs(want).max())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("deit_tiny_distilled_patch16_224", "it has 2 classifiers, not one"),
        ("crossvit_tiny_240", "it has 2 classifiers, not one"),
        ("vit_small_patch16_dinov3", "timm states none for it"),
        ("caformer_s18", "it takes 2048 numbers, not the embedding"),
        ("qwen3_vit_88m_enc", "timm states none for it"),
        ("resnet50_clip", "timm has no class names for its 1024 outputs"),
    ],
)
def test_models_without_classes_to_keep(name: str, reason: str) -> None:
    network = load_backbone(f"timm/{name}", random_weights=True)
    assert network.classifier is not None
    with pytest.raises(ParameterError) as caught:
        network.classifier()
    assert str(caught.value) == (
        f"timm/{name} has no classifier whose classes could be kept: {reason}; "
        "use another backbone, or leave out --keep-classes"
    )


@pytest.mark.parametrize(
    ("count", "first", "twice"),
    [
        (1000, "tench", ("crane (n02012849)", "crane (n03126707)")),
        (11821, "benthos (n00005787)", ("crane (n02012849)", "crane (n03126707)")),
        (21841, "organism", ("maillot (n03710637)", "maillot (n03710721)")),
        (21843, "organism", ("maillot (n03710637)", "maillot (n03710721)")),
    ],
)
def test_imagenets_names_are_short_and_unique(
    count: int, first: str, twice: tuple[str, ...]
) -> None:
    from edge_imprint.backbones.timm_models import class_names

    names = class_names(count)
    assert names is not None
    assert len(names) == count
    assert names[0] == first
    assert set(twice) <= set(names)
    assert "great white shark" in names
    # What a head takes as labels: unique, short, not empty.
    assert Head(np.eye(1).repeat(count, 0), np.arange(count), names).labels == names


def test_names_that_timm_does_not_have() -> None:
    from edge_imprint.backbones.timm_models import class_names

    assert class_names(512) is None
    assert class_names(0) is None


def test_the_other_backbones_have_no_classes_of_their_own(network: Backbone) -> None:
    assert network.classifier is None
    assert load_backbone("demo").classifier is None


# ONNX --------------------------------------------------------------------------------------


def test_onnx_file(onnx_file: Path, network: Backbone) -> None:
    assert network.info.name == f"onnx:{onnx_file}"
    assert network.info.weights == "own"
    assert network.module is None
    assert image_size(network.onnx) == (16, 16)
    p = network.info.preprocess
    assert (p.height, p.width, p.resize, p.resize_height) == (16, 16, "crop", 18)
    assert p.mean == (0.485, 0.456, 0.406)


def test_onnx_file_of_a_fixed_batch(
    onnx_file: Path, network: Backbone, tmp_path: Path
) -> None:
    model = onnx.load(onnx_file)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "fixed.onnx")
    fixed = load_backbone(f"onnx:{tmp_path / 'fixed.onnx'}")
    assert fixed.info.digest == network.info.digest
    assert to_bytes(fixed.onnx) == to_bytes(network.onnx)


def test_notes_in_an_onnx_file_do_not_change_its_digest(
    onnx_file: Path, network: Backbone, tmp_path: Path
) -> None:
    model = onnx.load(onnx_file)
    model.doc_string, model.producer_version = "exported on a Monday", "9"
    onnx.save(model, tmp_path / "noted.onnx")
    assert load_backbone(f"onnx:{tmp_path / 'noted.onnx'}").info.digest == network.info.digest
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    onnx.save(model, tmp_path / "other.onnx")
    assert load_backbone(f"onnx:{tmp_path / 'other.onnx'}").info.digest != network.info.digest


@pytest.mark.parametrize("shape", [["N", 8], ["N", 1, 16, 16], ["N", 3, "H", "W"]])
def test_onnx_file_that_takes_no_image(tmp_path: Path, shape: list[Any]) -> None:
    make = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [make("x", TensorProto.FLOAT, shape)],
        [make("y", TensorProto.FLOAT, shape)],
    )
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    with pytest.raises(BackboneExportError, match=r"it must take float32 \(N, 3, H, W\)"):
        load_backbone(f"onnx:{tmp_path / 'm.onnx'}")


def test_onnx_file_missing_or_broken(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").touch()
    for name, reason in (
        ("gone.onnx", "cannot read the backbone .*: No such file"),
        ("text.onnx", "the backbone .* is not an ONNX model"),
        ("empty.onnx", "the backbone .* is not an ONNX model: it has no nodes"),
        ("", "cannot read the backbone .*: Is a directory"),
    ):
        with pytest.raises(BackboneExportError, match=reason):
            load_backbone(f"onnx:{tmp_path / name}")


def test_another_preprocessing_for_an_onnx_file(onnx_file: Path) -> None:
    mine = Preprocess(16, 16, mean=(0.5, 0.5, 0.5))
    assert load_backbone(f"onnx:{onnx_file}", preprocess=mine).info.preprocess == mine
    with pytest.raises(ParameterError) as caught:
        load_backbone(f"onnx:{onnx_file}", preprocess=Preprocess(8, 16))
    assert str(caught.value) == (
        f"the backbone onnx:{onnx_file} takes 16x16 pixels, the preprocessing makes 8x16; "
        "give another --preprocess"
    )


# graph_for ---------------------------------------------------------------------------------


def test_graph_for_from_the_cache_needs_no_torch_and_no_file(
    random_net: Backbone, tmp_path: Path
) -> None:
    want = to_bytes(random_net.onnx)  # fills the cache
    head_of(random_net.info, 256).save(tmp_path / "head.safetensors")
    code = (
        "import sys, hashlib\n"
        "from edge_imprint.backbones import graph_for\n"
        "from edge_imprint_export.graph import to_bytes\n"
        "from edge_imprint_runtime import Head\n"
        f"graph = to_bytes(graph_for(Head.load({str(tmp_path / 'head.safetensors')!r})))\n"
        "heavy = {'torch', 'timm', 'sklearn', 'onnxruntime'} & set(sys.modules)\n"
        "print(hashlib.sha256(graph).hexdigest(), sorted(heavy))"
    )
    assert python(code) == f"{hashlib.sha256(want).hexdigest()} []"


def test_graph_for_without_the_cache(
    network: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert to_bytes(graph_for(head_of(network.info))) == to_bytes(network.onnx)
    assert len(list(tmp_path.rglob("*.onnx"))) == 1  # and it is cached now


@pytest.mark.parametrize("name", [NAME, "onnx"])
def test_graph_for_another_digest(
    name: str, random_net: Backbone, network: Backbone, tmp_path: Path
) -> None:
    at_hand = (network if name == "onnx" else random_net).info
    info = replace(at_hand, digest="0" * 64)
    with pytest.raises(BackboneMismatchError) as caught:
        graph_for(head_of(info))
    assert str(caught.value) == (
        f"the backbone {info.name} at hand has other weights than the head was built with "
        f"(digest {at_hand.digest[:12]}, the head says 000000000000); build the head again"
    )


def test_graph_for_a_head_of_bare_embeddings() -> None:
    with pytest.raises(BackboneMismatchError) as caught:
        graph_for(Head(np.eye(2), [0, 1], ["a", "b"]))
    assert str(caught.value) == (
        "the head does not say which backbone it belongs to; make it with edge-imprint build"
    )

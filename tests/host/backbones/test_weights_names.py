# SPDX-License-Identifier: Apache-2.0
"""Names in weights files: prefixes, names of old, and those of other networks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.backbones import load_backbone, weights
from edge_imprint_runtime.errors import WeightsError


@pytest.mark.parametrize("classes", [1000, 7, 0])
def test_weights_of_another_network_name_it(classes: int, tmp_path: Path) -> None:
    import timm
    import torch

    file = tmp_path / "resnet.pt"
    state = timm.create_model("test_resnet", num_classes=classes).state_dict()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
    with pytest.raises(WeightsError, match=r"don't fit timm/test_efficientnet: \d+ of") as got:
        load_backbone("timm/test_efficientnet", weights=file)
    assert str(got.value).endswith(
        " tensors are missing, such as blocks.0.0.bn1.bias; they fit timm/test_resnet"
    )


def test_torchvisions_network_under_timms_name_is_found_too(tmp_path: Path) -> None:
    import torch
    import torchvision

    state = torchvision.models.mobilenet_v3_small().state_dict()
    file = tmp_path / "net.pth"
    torch.save(state, file)
    # Its classifier is two layers, of which the backbone keeps one.
    with pytest.raises(WeightsError, match=r"; they fit torchvision/mobilenet_v3_small$"):
        load_backbone("timm/mobilenetv3_small_100", weights=file)


def test_weights_of_a_deeper_network_are_refused(tmp_path: Path) -> None:
    """A ResNet-34 holds each tensor of a ResNet-18, in the same shape, and more."""
    import timm
    import torch

    file = tmp_path / "deeper.pth"
    state = timm.create_model("resnet34").state_dict()
    torch.save({f"module.{key}": value for key, value in state.items()}, file)
    with pytest.raises(WeightsError) as caught:
        load_backbone("timm/resnet18", weights=file)
    assert str(caught.value).startswith(
        f"the weights {file} are of a deeper network than timm/resnet18: they have layer1.2, "
        "too; they fit timm/resnet34"
    )


def test_old_names_of_densenets_layers(tmp_path: Path) -> None:
    """torchvision's own weights of them still have the names of 2017."""
    import torch
    import torchvision

    torch.manual_seed(3)
    whole = torchvision.models.densenet121().state_dict()
    new = {
        f"{kind}{number}": f"{kind}.{number}" for kind in ("norm", "conv") for number in (1, 2)
    }
    old = {
        re.sub(r"(?<=\d\.)(norm|conv)([12])", lambda m: new[m[0]], key): value
        for key, value in whole.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    digests = set()
    for number, state in enumerate((whole, old)):
        torch.save(state, tmp_path / f"{number}.pth")
        for kind in ("timm", "torchvision"):
            file = tmp_path / f"{number}.pth"
            digests.add((kind, load_backbone(f"{kind}/densenet121", weights=file).info.digest))
    assert len(digests) == 2


def test_old_names_of_vits_layers() -> None:
    """On the meta device: the smallest has 86 million parameters."""
    import torch
    import torchvision

    with torch.device("meta"):
        state = torchvision.models.vit_b_32().state_dict()
    old = {
        key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
        for key, value in state.items()
    }
    assert old.keys() != state.keys()
    undressed = weights._undressed(old, state, Path("w.pth"))
    assert undressed.keys() == state.keys()


@given(
    prefix=st.lists(st.sampled_from(["module", "model", "backbone", "net", "a"]), max_size=4),
    beside=st.lists(st.sampled_from(["head.weight", "loss.scale", "fc.bias"]), unique=True),
    names=st.lists(
        st.from_regex(r"[b-d](\.[0-9])?(\.[e-g])?\.(weight|bias)", fullmatch=True),
        min_size=1,
        max_size=12,
        unique=True,
    ),
)
def test_any_prefix_is_found(prefix: list[str], beside: list[str], names: list[str]) -> None:
    dress = "".join(f"{part}." for part in prefix)
    whole: dict[str, Any] = {f"{dress}{name}": name for name in names}
    got = weights._undressed({**whole, **dict.fromkeys(beside, "")}, names, Path("w.pt"))
    assert {name: got[name] for name in names} == {name: name for name in names}
    assert len(got) == len(names) + len(beside)


def test_layers_that_ask_for_their_version(tmp_path: Path) -> None:
    import torch
    import torchvision

    state = dict(torchvision.models.mnasnet0_5().state_dict())  # a dict has no versions
    torch.save(state, tmp_path / "w.pth")
    loaded = load_backbone("torchvision/mnasnet0_5", weights=tmp_path / "w.pth")
    assert loaded.info.weights == "file:w.pth"


def test_positions_of_another_image_size_go_through_timms_own_conversion(
    tmp_path: Path,
) -> None:
    import timm
    import torch

    state = timm.create_model("test_vit", img_size=64, num_classes=4).state_dict()
    torch.save(state, tmp_path / "w.pth")
    loaded = load_backbone("timm/test_vit", weights=tmp_path / "w.pth")
    assert loaded.module is not None
    own = loaded.module.state_dict()
    assert own["pos_embed"].shape != state["pos_embed"].shape
    assert torch.equal(own["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"])
    assert loaded.classifier is not None
    assert len(loaded.classifier().labels) == 4

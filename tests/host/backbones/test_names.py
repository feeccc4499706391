# SPDX-License-Identifier: Apache-2.0
"""Backbones' names: taken apart, and put together again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint.backbones.names import Name, onnx_path, parse_name
from edge_imprint_runtime.errors import BackboneNotFoundError, ParameterError

PLAIN = st.text(st.characters(exclude_characters="#"), max_size=20)
KINDS = st.sampled_from(["timm", "torchvision", "onnx", "python"])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("demo", Name("demo", "")),
        ("demo#conv3.relu", Name("demo", "", "conv3.relu")),
        ("timm/resnet18.a1_in1k#layer3.0", Name("timm", "resnet18.a1_in1k", "layer3.0")),
        ("torchvision/vit_b_16", Name("torchvision", "vit_b_16")),
        ("python:a.b:make#net.1", Name("python", "a.b:make", "net.1")),
        (
            "onnx:gone.onnx#/layer4/Relu_output_0",
            Name("onnx", "gone.onnx", "/layer4/Relu_output_0"),
        ),
        ("onnx:gone.onnx#a#b", Name("onnx", "gone.onnx#a", "b")),
    ],
)
def test_names(text: str, name: Name) -> None:
    assert parse_name(text) == name
    assert str(name) == text


@given(KINDS, PLAIN.filter(bool), PLAIN.filter(bool) | st.none())
def test_what_is_put_together_comes_apart(kind: str, rest: str, layer: str | None) -> None:
    name = Name(kind, rest, layer)
    assert parse_name(str(name)) == name
    assert parse_name(name.base, layer) == name
    assert parse_name(str(name), layer) == name


def test_a_file_whose_own_name_holds_the_mark(tmp_path: Path) -> None:
    odd, plain = tmp_path / "a#b.onnx", tmp_path / "a"
    odd.touch()
    assert parse_name(f"onnx:{odd}") == Name("onnx", str(odd))
    assert parse_name(f"onnx:{odd}#x#0") == Name("onnx", str(odd), "x#0")
    assert onnx_path(f"onnx:{odd}#x") == odd
    plain.touch()  # the longest name that is a file
    assert parse_name(f"onnx:{odd}") == Name("onnx", str(odd))
    assert parse_name(f"onnx:{plain}#c#d") == Name("onnx", str(plain), "c#d")
    assert onnx_path("timm/resnet18") is None


def test_two_layers_and_an_empty_one() -> None:
    with pytest.raises(ParameterError) as caught:
        parse_name("timm/resnet18#layer3", "layer2")
    assert str(caught.value) == (
        "the backbone timm/resnet18#layer3 names the layer 'layer3' and --layer another, "
        "'layer2'; give one"
    )
    for text, layer in (("demo#", None), ("demo", "")):
        with pytest.raises(ParameterError, match=r"names an empty layer; give --layer NAME"):
            parse_name(text, layer)


@pytest.mark.parametrize("text", ["", "resnet18", "Demo", "demo/x", "onnx/x", "#layer"])
def test_unknown_kinds(text: str) -> None:
    with pytest.raises(BackboneNotFoundError, match=r"^there is no backbone '.*'; use 'demo'"):
        parse_name(text)

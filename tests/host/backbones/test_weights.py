# SPDX-License-Identifier: Apache-2.0
"""Local weights for a timm backbone: the dresses they come in, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_imprint.backbones import Backbone, OwnClasses, graph_for, load_backbone
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head
from edge_imprint_runtime.errors import ParameterError, WeightsError

NAME = "timm/test_efficientnet"
FIRST = "conv_stem.weight"


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    """Weights as a training leaves them: another seed, with a classifier."""
    import timm
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        return dict(timm.create_model("test_efficientnet", num_classes=7).state_dict())


@pytest.fixture(scope="module")
def plain(tensors: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    from safetensors.torch import save_file

    file = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_file(tensors, file)
    return load_backbone(NAME, weights=file)


def test_safetensors(plain: Backbone, tensors: dict[str, Any]) -> None:
    import torch

    assert plain.info.weights == "file:mine.safetensors"
    assert plain.module is not None
    state = plain.module.state_dict()
    assert set(tensors) - set(state) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(value, tensors[key]) for key, value in state.items())
    assert plain.info.digest != load_backbone(NAME, random_weights=True).info.digest


DRESSES: dict[str, Callable[[dict[str, Any]], object]] = {
    "plain": lambda t: t,
    "state_dict": lambda t: {"state_dict": t, "epoch": 3},
    "model": lambda t: {"model": t, "optimizer": {"lr": 0.1}},
    "model_state_dict": lambda t: {"model_state_dict": t},
    "module.": lambda t: {f"module.{key}": value for key, value in t.items()},
    "both": lambda t: {"state_dict": {f"module.{key}": value for key, value in t.items()}},
    "model.": lambda t: {f"model.{key}": value for key, value in t.items()},
    "ema": lambda t: {"state_dict": {f"module.model.{k}": v for k, v in t.items()}},
    "with numbers": lambda t: {**t, "step": 3},
    "backbone.": lambda t: {f"backbone.{key}": value for key, value in t.items()},
    "compiled": lambda t: {f"_orig_mod.{key}": value for key, value in t.items()},
    "compiled last": lambda t: {"model": {f"_orig_mod.module.{k}": v for k, v in t.items()}},
    "compiled in the middle": lambda t: {
        key.replace(".", "._orig_mod.", 1): value for key, value in t.items()
    },
    "four deep": lambda t: {
        "model": {"state_dict": {f"model.backbone.module.{k}": v for k, v in t.items()}}
    },
    "beside a loss": lambda t: {
        "state_dict": {f"model.{k}": v for k, v in t.items()} | {"loss.scale": t[FIRST] * 0}
    },
    "under any name": lambda t: {f"my.encoder.{key}": value for key, value in t.items()},
    "averaged": lambda t: {"state_dict": {k: v * 0 for k, v in t.items()}, "model_ema": t},
    "not averaged yet": lambda t: {"state_dict": t, "state_dict_ema": None},
    "teacher": lambda t: {
        "student": {f"module.backbone.{key}": value * 0 for key, value in t.items()},
        "teacher": {f"backbone.{key}": value for key, value in t.items()},
    },
    "usual and unusual": lambda t: {
        **{f"model.{key}": value for key, value in t.items()},
        **{f"ema.{key}": value * 0 for key, value in t.items()},
    },
    "double": lambda t: {k: v.double() if v.is_floating_point() else v for k, v in t.items()},
    "without counters": lambda t: {
        key: value for key, value in t.items() if not key.endswith("num_batches_tracked")
    },
}


@pytest.mark.parametrize("dress", DRESSES)
def test_checkpoints_of_torch(
    dress: str, plain: Backbone, tensors: dict[str, Any], tmp_path: Path
) -> None:
    import torch

    torch.save(DRESSES[dress](tensors), tmp_path / "checkpoint.pth")
    loaded = load_backbone(NAME, weights=tmp_path / "checkpoint.pth")
    assert loaded.info == replace(plain.info, weights="file:checkpoint.pth")


def test_missing_tensors(tensors: dict[str, Any], tmp_path: Path) -> None:
    import torch

    file = tmp_path / "w.pt"
    torch.save({k: v for k, v in tensors.items() if not k.startswith("conv_stem")}, file)
    with pytest.raises(WeightsError) as caught:
        load_backbone(NAME, weights=file)
    counters = sum(key.endswith("num_batches_tracked") for key in tensors)
    wanted = len(tensors) - counters - 2
    assert str(caught.value) == (
        f"the weights {file} don't fit {NAME}: 1 of {wanted} tensors are missing, "
        "such as conv_stem.weight; name the backbone that they belong to"
    )


def test_a_tensor_of_another_shape(tensors: dict[str, Any], tmp_path: Path) -> None:
    import torch

    file = tmp_path / "w.pt"
    shape = tuple(tensors["conv_stem.weight"].shape)
    torch.save({**tensors, "conv_stem.weight": torch.zeros(1, 2)}, file)
    with pytest.raises(WeightsError) as caught:
        load_backbone(NAME, weights=file)
    assert str(caught.value) == (
        f"the weights {file} don't fit {NAME}: conv_stem.weight has shape (1, 2), "
        f"the backbone wants {shape}; name the backbone that they belong to"
    )


def test_two_networks_in_one_file(tensors: dict[str, Any], tmp_path: Path) -> None:
    import torch

    file = tmp_path / "two.pt"
    both = {f"{side}.{k}": v for side in ("query", "keys") for k, v in tensors.items()}
    torch.save(both, file)
    with pytest.raises(WeightsError) as caught:
        load_backbone(NAME, weights=file)
    assert str(caught.value) == (
        f"the weights {file} hold 2 networks that fit, under keys., query.; save one of them "
        "alone"
    )


def test_safetensors_are_told_by_their_content(
    plain: Backbone, tensors: dict[str, Any], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "checkpoint.bin")
    loaded = load_backbone(NAME, weights=tmp_path / "checkpoint.bin")
    assert loaded.info.digest == plain.info.digest


# The classifier ----------------------------------------------------------------------------


def own_of(name: str, tensors: dict[str, Any], file: Path) -> OwnClasses:
    """Write weights and read the classifier that comes with them."""
    from safetensors.torch import save_file

    save_file(tensors, file)
    network = load_backbone(name, weights=file)
    assert network.classifier is not None
    return network.classifier()


def test_the_classifier_of_a_file(
    plain: Backbone, tensors: dict[str, Any], tmp_path: Path
) -> None:
    import torch

    assert plain.classifier is not None
    own = plain.classifier()
    assert torch.equal(torch.tensor(own.weights), tensors["classifier.weight"])
    assert own.labels == tuple(f"class {c}" for c in range(7))
    dressed = {f"module.{key}": value.double() for key, value in tensors.items()}
    again = own_of(NAME, dressed, tmp_path / "dressed.safetensors")
    np.testing.assert_array_equal(again.weights, own.weights)


def test_a_file_of_as_many_classes_as_timm_states_has_their_names(tmp_path: Path) -> None:
    import timm

    whole = timm.create_model("test_efficientnet").state_dict()
    own = own_of(NAME, whole, tmp_path / "w.safetensors")
    assert own.labels[:2] == ("tench", "goldfish")


def test_the_classifier_is_no_part_of_the_digest(
    plain: Backbone, tensors: dict[str, Any], tmp_path: Path
) -> None:
    import torch

    state = {key: value for key, value in tensors.items() if "classifier" not in key}
    other = {**tensors, "classifier.weight": torch.rand(3, 256)}
    for number, content in enumerate((state, other)):
        torch.save(content, tmp_path / f"{number}.pt")
        loaded = load_backbone(NAME, weights=tmp_path / f"{number}.pt")
        assert loaded.info.digest == plain.info.digest


def test_a_file_without_a_classifier(tensors: dict[str, Any], tmp_path: Path) -> None:
    import torch

    file = tmp_path / "w.safetensors"
    state = {key: value for key, value in tensors.items() if "classifier" not in key}
    for weight in ({}, {"classifier.weight": torch.tensor(1.0)}):
        with pytest.raises(WeightsError) as caught:
            own_of(NAME, {**state, **weight}, file)
        assert str(caught.value) == (
            f"the weights {file} hold no classifier (classifier.weight), whose classes could "
            "be kept; give a file with one, or leave out --keep-classes"
        )


def test_a_classifier_of_another_width(tensors: dict[str, Any], tmp_path: Path) -> None:
    import torch

    other = {**tensors, "classifier.weight": torch.rand(7, 255)}
    with pytest.raises(ParameterError) as caught:
        own_of(NAME, other, tmp_path / "w.safetensors")
    assert str(caught.value).startswith(
        f"{NAME} has no classifier whose classes could be kept: "
        "it doesn't fit onto the embedding ("
    )
    assert "size mismatch for classifier.weight" in str(caught.value)


def test_what_stands_between_embedding_and_classifier_is_found_out(tmp_path: Path) -> None:
    # A batch normalisation, which timm takes off with the classifier.
    import timm

    state = timm.create_model("efficientvit_m0").state_dict()
    assert own_of(
        "timm/efficientvit_m0", state, tmp_path / "a.safetensors"
    ).labels  # untrained
    state["head.bn.running_mean"] += 1
    with pytest.raises(ParameterError) as caught:
        own_of("timm/efficientvit_m0", state, tmp_path / "b.safetensors")
    assert str(caught.value) == (
        "timm/efficientvit_m0 has no classifier whose classes could be kept: it is more than "
        "one linear layer on the embedding; use another backbone, or leave out --keep-classes"
    )


def test_a_file_that_changed_since(tensors: dict[str, Any], tmp_path: Path) -> None:
    import torch

    file = tmp_path / "w.pt"
    torch.save(tensors, file)
    network = load_backbone(NAME, weights=file)
    assert network.classifier is not None
    for change in ({"conv_stem.weight": tensors["conv_stem.weight"] + 1}, None):
        torch.save({**tensors, **change} if change else {"x": torch.zeros(1)}, file)
        with pytest.raises(WeightsError) as caught:
            network.classifier()
        assert str(caught.value) == (
            f"the weights {file} are no longer those that the backbone was loaded with; "
            "load it again"
        )


# Files that are none -----------------------------------------------------------------------


class Evil:
    """Runs a command where a pickle is trusted."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.file}'",)


def test_a_pickle_that_brings_code_is_refused_and_not_run(
    tensors: dict[str, Any], tmp_path: Path
) -> None:
    import torch

    file, mark = tmp_path / "evil.pt", tmp_path / "was-run"
    torch.save({**tensors, "x": Evil(mark)}, file)
    with pytest.raises(WeightsError) as caught:
        load_backbone(NAME, weights=file)
    assert str(caught.value).startswith(f"cannot read the weights {file}: it brings code; ")
    assert str(caught.value).endswith(
        "; give a safetensors file or a checkpoint that holds tensors only"
    )
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    torch.load(file, weights_only=False)
    assert mark.exists()  # the trap does snap where it is trusted


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", bytes(4096)])
def test_a_corrupt_file(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=r"^cannot read the weights [^\n]*$") as caught:
        load_backbone(NAME, weights=tmp_path / name)
    assert "weights_only" not in str(caught.value)  # torch's advice is to run what is in it


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_truncated_file(suffix: str, tensors: dict[str, Any], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save

    file = tmp_path / f"w{suffix}"
    if suffix == ".pt":
        torch.save(tensors, file)
    else:
        file.write_bytes(save(tensors))
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"^cannot read the weights [^\n]*$"):
        load_backbone(NAME, weights=file)


@pytest.mark.parametrize("content", [[1, 2], {}, 3.5, {"state_dict": {}}, {"a": 1}])
def test_a_checkpoint_without_named_tensors(content: object, tmp_path: Path) -> None:
    import torch

    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"the weights .* hold no named tensors$"):
        load_backbone(NAME, weights=tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["gone.pt", "gone/w.pt", "x" * 300])
def test_no_such_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_backbone(NAME, weights=tmp_path / name)
    assert str(caught.value) == f"there is no weights file {tmp_path / name}"


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_backbone(NAME, weights=tmp_path)
    assert str(caught.value) == f"the weights {tmp_path} are a folder; name the file in it"


def test_graph_for_a_head_of_local_weights(
    plain: Backbone,
    tensors: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    want = to_bytes(plain.onnx)
    head = Head(np.eye(2, 256), [0, 1], ["a", "b"], backbone=plain.info)
    assert to_bytes(graph_for(head)) == want  # cached: the file is not asked for
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with pytest.raises(WeightsError) as caught:
        graph_for(head)
    assert str(caught.value) == (
        "the head was built with the weights 'mine.safetensors', which are no longer cached; "
        "pass --weights FILE"
    )
    torch.save(tensors, tmp_path / "moved.pt")
    assert to_bytes(graph_for(head, weights=tmp_path / "moved.pt")) == want

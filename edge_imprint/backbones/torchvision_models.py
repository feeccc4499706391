# SPDX-License-Identifier: Apache-2.0
"""torchvision's models as frozen modules: their weights, preprocessing and own classes.

Imported where a torchvision backbone is asked for: torch and torchvision take seconds.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from torch import nn

from edge_imprint.backbones.hub import torchvision_weights
from edge_imprint.backbones.weights import load_into, read_again
from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.errors import BackboneNotFoundError, ParameterError, WeightsError

__all__ = ["bare", "load", "names", "preprocess_of", "read_classifier"]

_RANDOM_SEED = 0
_CLASSES = 1000
# As the pretrained ones were made. Their own initialisation takes seconds, and is replaced.
_INCEPTIONS: dict[str, Any] = {
    "aux_logits": False,
    "init_weights": False,
    "transform_input": True,
}


def names() -> list[str]:
    """Name torchvision's classification models, sorted."""
    models: Any = torchvision.models  # it exports its registry untyped
    return sorted(models.list_models(module=models))


def bare(name: str) -> nn.Module:
    """Make a model without its classifier, with the weights it is initialised with.

    What is left ends in what the classifier took: (N, 3, H, W) -> (N, D).

    Args:
        name: torchvision's name.

    Returns:
        The module, in evaluation mode, where torch makes tensors (the meta device too).

    Raises:
        BackboneNotFoundError: torchvision has no such model.
    """
    module = _whole(name)
    if isinstance(getattr(module, "classifier", None), nn.Sequential) and not _linears(module):
        # SqueezeNet's classifier is a convolution, whose maps are averaged.
        module.classifier = nn.AdaptiveAvgPool2d(1)
    else:
        module.set_submodule(_linears(module)[-1], nn.Identity())
    return module


def load(name: str, *, weights: Path | None, random_weights: bool) -> tuple[nn.Module, str]:
    """Load a model without its classifier, frozen, in evaluation mode, float32.

    Args:
        name: torchvision's name.
        weights: A local safetensors file or torch checkpoint; None for torchvision's best.
        random_weights: Seeded random weights instead.

    Returns:
        The module, and where its weights are from: ``pretrained``, ``file:NAME`` or
        ``random:SEED``.

    Raises:
        BackboneNotFoundError: torchvision has no such model.
        WeightsError: The weights can't be had or don't fit.
    """
    _check(name)
    # Fetched first: who has no network is told at once.
    file = weights if weights is not None or random_weights else torchvision_weights(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        module = bare(name)
    source = f"random:{_RANDOM_SEED}"
    if file is not None:
        load_into(module, file, name=f"torchvision/{name}")
        source = "pretrained" if weights is None else f"file:{file.name}"
    return module.eval().requires_grad_(False).float(), source


def preprocess_of(module: nn.Module, name: str) -> Preprocess:
    """Read a model's own preprocessing: that of its best weights.

    Args:
        module: The model; not looked at, every model of a name has the same.
        name: torchvision's name.

    Returns:
        The preprocessing.
    """
    best = _transforms(name)
    (side,), (box,) = best.crop_size, best.resize_size
    return Preprocess(
        height=side,
        width=side,
        resize="crop",
        resize_height=box,
        resize_width=box,
        interpolation=best.interpolation.value,
        mean=tuple(float(value) for value in best.mean),  # type: ignore[arg-type]
        std=tuple(float(value) for value in best.std),  # type: ignore[arg-type]
    )


def read_classifier(
    name: str, module: nn.Module, *, weights: Path | None, random_weights: bool
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Read the classifier that belongs to a loaded model: its last linear layer.

    Args:
        name: torchvision's name.
        module: What `load` gave for it.
        weights: The file that `load` read; None for torchvision's.
        random_weights: As `load` was told.

    Returns:
        (C, D) float32, a row a class, without the bias; and C unique names: ImageNet's where C
        is 1000, else ``class 0``, ``class 1``, ...

    Raises:
        ParameterError: The model has no such classifier.
        WeightsError: The file holds none, or torchvision's weights can't be had.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        whole = _whole(name)
    layers = _linears(whole)
    if not layers:
        raise ParameterError(
            f"torchvision/{name} has no classifier whose classes could be kept: it ends in a "
            "convolution, not in a linear layer; use another backbone, or leave out "
            "--keep-classes"
        )
    key = f"{layers[-1]}.weight"
    if random_weights:
        rows = whole.state_dict()[key]
    else:
        file = torchvision_weights(name) if weights is None else weights
        found = read_again(file, module).get(key)
        size = whole.state_dict()[key].shape[1]
        if found is None or found.ndim != 2 or found.shape[1] != size:
            raise WeightsError(
                f"the weights {file} hold no classifier ({key}) of {size} numbers a class, "
                "whose classes could be kept; give a file with one, or leave out "
                "--keep-classes"
            )
        rows = found
    array: npt.NDArray[np.float32] = rows.detach().float().numpy().copy()
    return array, _labels(name, len(array))


def _check(name: str) -> None:
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=3)
        near = ", ".join(f"torchvision/{one}" for one in close)
        raise BackboneNotFoundError(
            f"torchvision {torchvision.__version__} has no model {name!r}"
            + (f"; nearest: {near}" if near else "")
        )


def _whole(name: str) -> nn.Module:
    """Make a model with its classifier, for the input that its best weights take."""
    _check(name)
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = _INCEPTIONS
    elif name.startswith("vit_"):  # whose positions are of one size
        options = {"image_size": _transforms(name).crop_size[0]}
    models: Any = torchvision.models
    module: nn.Module = models.get_model(name, weights=None, **options)
    return module.eval()


def _linears(module: nn.Module) -> list[str]:
    """Name the linear layers of as many outputs as there are classes; the last classifies."""
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and layer.out_features == _CLASSES
    ]


def _transforms(name: str) -> Any:
    models: Any = torchvision.models
    return models.get_model_weights(name).DEFAULT.transforms()


def _labels(name: str, count: int) -> tuple[str, ...]:
    if count != _CLASSES:
        return tuple(f"class {c}" for c in range(count))
    models: Any = torchvision.models
    return tuple(models.get_model_weights(name).DEFAULT.meta["categories"])  # unique

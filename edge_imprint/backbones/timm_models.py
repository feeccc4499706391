# SPDX-License-Identifier: Apache-2.0
"""timm's models as frozen modules: their weights, preprocessing and own classes.

Imported where a timm backbone is asked for: torch and timm take seconds.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch

from edge_imprint.backbones.hub import timm_weights
from edge_imprint.backbones.weights import load_into, read_again
from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.errors import (
    BackboneExportError,
    BackboneNotFoundError,
    ParameterError,
    WeightsError,
)

__all__ = ["class_names", "load", "preprocess_of", "read_classifier"]

_RANDOM_SEED = 0
# Two ways through the same layers differ by rounding only; relative to the largest logit.
_TOLERANCE = 1e-4


def load(
    name: str, *, weights: Path | None, random_weights: bool
) -> tuple[torch.nn.Module, str]:
    """Load a model without its classifier, frozen, in evaluation mode, float32.

    Args:
        name: timm's name.
        weights: A local safetensors file or torch checkpoint; None for the hub's.
        random_weights: Seeded random weights instead.

    Returns:
        The module, and where its weights are from: ``pretrained``, ``file:NAME`` or
        ``random:SEED``.

    Raises:
        BackboneNotFoundError: timm has no such model.
        WeightsError: The weights can't be had or don't fit.
    """
    if not timm.is_model(name):
        close = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=3)
        near = ", ".join(f"timm/{one}" for one in close)
        raise BackboneNotFoundError(
            f"timm {timm.__version__} has no model {name!r}"
            + (f"; nearest: {near}" if near else "")
        )
    pretrained = weights is None and not random_weights
    module: torch.nn.Module = _create(name, pretrained, 0)
    source = "pretrained" if pretrained else f"random:{_RANDOM_SEED}"
    if weights is not None:
        load_into(module, weights, name=f"timm/{name}")
        source = f"file:{weights.name}"
    return module.eval().requires_grad_(False).float(), source


def preprocess_of(module: torch.nn.Module, name: str) -> Preprocess:
    """Read a model's own preprocessing.

    Args:
        module: The model.
        name: timm's name, for messages.

    Returns:
        The preprocessing.

    Raises:
        BackboneExportError: It takes other than three channels.
    """
    data: Any = timm.data  # it exports nothing by type
    config = data.resolve_model_data_config(module)
    channels, height, width = config["input_size"]
    if channels != 3:
        raise BackboneExportError(
            f"timm/{name} takes {channels} channels; use a backbone that takes RGB images"
        )
    modes = {"squash": "stretch", "border": "pad"}
    return Preprocess(
        height=height,
        width=width,
        resize=modes.get(config["crop_mode"], "crop"),
        resize_height=math.floor(height / config["crop_pct"]),
        resize_width=math.floor(width / config["crop_pct"]),
        interpolation=config["interpolation"],
        mean=tuple(float(value) for value in config["mean"]),  # type: ignore[arg-type]
        std=tuple(float(value) for value in config["std"]),  # type: ignore[arg-type]
    )


def read_classifier(
    name: str, module: torch.nn.Module, *, weights: Path | None, random_weights: bool
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Read the classifier that belongs to a loaded model.

    It must be one linear layer (or 1x1 convolution) on the model's embedding, which is tried
    out: the whole model's logits, without the bias, are the product of its weights with it.

    Args:
        name: timm's name.
        module: What `load` gave for it.
        weights: The file that `load` read; None for the hub's.
        random_weights: As `load` was told.

    Returns:
        (C, D) float32, a row a class, without the bias; and C unique names. ImageNet's, where
        C is the number of classes that timm states for these weights, else ``class 0``,
        ``class 1``, ...

    Raises:
        ParameterError: The model has no such classifier.
        WeightsError: The file holds none, or the hub's weights can't be had.
    """
    config: Any = module.pretrained_cfg
    key, stated = config["classifier"], config["num_classes"]
    if isinstance(key, tuple):  # distilled: their mean is no product with the embedding
        raise _no_classes(name, f"it has {len(key)} classifiers, not one")
    if not key:
        raise _no_classes(name, "timm states none for it")
    tensors = None if weights is None else read_again(weights, module)
    if tensors is not None and not tensors.get(f"{key}.weight", torch.empty(0)).ndim > 1:
        raise WeightsError(
            f"the weights {weights} hold no classifier ({key}.weight), whose classes could "
            "be kept; give a file with one, or leave out --keep-classes"
        )
    count = stated if tensors is None else len(tensors[f"{key}.weight"])
    if not count:
        raise _no_classes(name, "timm states none for it")
    numbered = tuple(f"class {c}" for c in range(count))
    labels = class_names(count) if count == stated else numbered
    if labels is None:  # CLIP's 512 to 1280 numbers are a projection, though timm says classes
        raise _no_classes(name, f"timm has no class names for its {count} outputs")
    whole = _create(name, weights is None and not random_weights, count).eval().float()
    own, source = module.state_dict(), tensors or whole.state_dict()
    rest = (whole.state_dict().keys() - own.keys()) & source.keys()
    try:
        whole.load_state_dict({**own, **{k: source[k] for k in rest}})
        layer = whole.get_submodule(key)
    except (RuntimeError, AttributeError) as error:  # other layers, or of another shape
        reason = " ".join(str(error).split())[:200]
        raise _no_classes(name, f"it doesn't fit onto the embedding ({reason})") from error
    return _linear_rows(name, module, whole, layer), labels


def _linear_rows(
    name: str, module: torch.nn.Module, whole: torch.nn.Module, layer: torch.nn.Module
) -> npt.NDArray[np.float32]:
    """Return the layer's rows, where the logits without bias are their product."""
    if not isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)):
        raise _no_classes(name, f"it ends in a {type(layer).__name__}, not in a linear layer")
    rows = layer.weight.detach().flatten(1)
    data: Any = timm.data
    size = data.resolve_model_data_config(module)["input_size"]
    images = torch.randn(2, *size, generator=torch.Generator().manual_seed(_RANDOM_SEED))
    with torch.inference_mode():
        if layer.bias is not None:
            layer.bias.zero_()
        embedding, logits = module(images), whole(images)
        if embedding.shape != (2, rows.shape[1]):
            raise _no_classes(name, f"it takes {rows.shape[1]} numbers, not the embedding")
        off = (embedding @ rows.T - logits).abs().max()
        if not off <= _TOLERANCE * logits.abs().max():  # NaN is not
            raise _no_classes(name, "it is more than one linear layer on the embedding")
    array: npt.NDArray[np.float32] = rows.numpy().copy()
    return array


def _no_classes(name: str, reason: str) -> ParameterError:
    return ParameterError(
        f"timm/{name} has no classifier whose classes could be kept: {reason}; "
        "use another backbone, or leave out --keep-classes"
    )


def class_names(count: int) -> tuple[str, ...] | None:
    """Name the classes of a classifier that was trained on ImageNet.

    Args:
        count: Its number of classes, by which timm tells 1k, 12k, 21k and their variants.

    Returns:
        ``count`` unique names: the first of each synset's, with the synset's number where
        several have the same. None where no ImageNet has so many.
    """
    data: Any = timm.data
    subset = data.infer_imagenet_subset({"num_classes": count})
    if subset is None:
        return None
    info = data.ImageNetInfo(subset)
    short = [text.split(",")[0].strip() for text in info.label_descriptions()]
    often = Counter(short)  # 'crane' is a bird and a machine
    return tuple(
        text if often[text] == 1 else f"{text} ({synset})"
        for text, synset in zip(short, info.label_names(), strict=True)
    )


def _create(name: str, pretrained: bool, num_classes: int) -> Any:
    # What the hub keeps is fetched before, so that timm only reads a file that is here.
    overlay = timm_weights(name) if pretrained else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        try:
            return timm.create_model(
                name,
                pretrained=pretrained,
                num_classes=num_classes,
                pretrained_cfg_overlay=overlay,
            )
        except Exception as error:  # timm and its models raise as they like
            if pretrained:
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise WeightsError(
                    f"cannot read the pretrained weights of timm/{name} ({reason}); give "
                    "--weights FILE, or --random-weights to try without"
                ) from error
            raise BackboneNotFoundError(
                f"timm cannot make the model {name!r}: {error}"
            ) from error

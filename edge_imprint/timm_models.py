# SPDX-License-Identifier: Apache-2.0
"""timm's models as frozen modules: their weights, and their own preprocessing.

Imported where a timm backbone is asked for: torch and timm take seconds.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch

from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.errors import (
    BackboneExportError,
    BackboneNotFoundError,
    WeightsError,
)

__all__ = ["load", "nearest", "preprocess_of"]

_RANDOM_SEED = 0


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
        near = nearest(name)
        raise BackboneNotFoundError(
            f"timm {timm.__version__} has no model {name!r}"
            + (f"; nearest: {', '.join(near)}" if near else "")
        )
    pretrained = weights is None and not random_weights
    module: torch.nn.Module = _create(name, pretrained)
    source = "pretrained" if pretrained else f"random:{_RANDOM_SEED}"
    if weights is not None:
        _load_weights(module, weights)
        source = f"file:{weights.name}"
    return module.eval().requires_grad_(False).float(), source


def nearest(name: str) -> list[str]:
    """Suggest up to three of timm's names for one that it lacks."""
    return difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=3)


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


def _create(name: str, pretrained: bool) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        try:
            with _quiet_hub():
                return timm.create_model(name, pretrained=pretrained, num_classes=0)
        except Exception as error:  # the hub's client raises its network stack's errors
            if pretrained:
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise WeightsError(
                    f"cannot get the pretrained weights of timm/{name} ({reason}); give "
                    "--weights FILE, or --random-weights to try without"
                ) from error
            raise BackboneNotFoundError(
                f"timm cannot make the model {name!r}: {error}"
            ) from error


def _load_weights(module: torch.nn.Module, file: Path) -> None:
    tensors = _read_weights(file)
    for prefix in ("module.", "model.", "backbone."):  # what training frameworks put before
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key[len(prefix) :]: value for key, value in tensors.items()}
    wanted = module.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    if missing:
        raise WeightsError(
            f"the weights {file} don't fit: {len(missing)} of {len(wanted)} tensors are "
            f"missing, such as {missing[0]}; name the backbone that they belong to"
        )
    for key, tensor in wanted.items():
        if tensor.shape != tensors[key].shape:
            raise WeightsError(
                f"the weights {file} don't fit: {key} has shape {tuple(tensors[key].shape)}, "
                f"the backbone wants {tuple(tensor.shape)}"
            )
    # What is left over is the classifier, which imprinting replaces.
    module.load_state_dict({key: tensors[key] for key in wanted})


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    if not os.path.isfile(file):
        raise WeightsError(f"there is no weights file {file}")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and safetensors each raise their own
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(
            f"cannot read the weights {file}: {reason}; give a safetensors file or a "
            "checkpoint that holds tensors only"
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise WeightsError(f"the weights {file} hold no named tensors")
    return {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep the hub client's retries and progress bars off the terminal while weights load."""
    loggers = [
        logging.getLogger(name) for name in ("timm", "huggingface_hub", "httpx", "httpx2")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

# SPDX-License-Identifier: Apache-2.0
"""Frozen backbones by name, each with its weights' digest and its own preprocessing."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_imprint_runtime.contract import BackboneInfo, Preprocess
from edge_imprint_runtime.errors import (
    BackboneExportError,
    BackboneMismatchError,
    BackboneNotFoundError,
    MissingPackageError,
    ParameterError,
    WeightsError,
)
from edge_imprint_runtime.head import Head

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["Backbone", "graph_for", "load_backbone"]

# ImageNet's, for ONNX files, which do not say what they were trained with.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_DEFAULT_CROP = 0.875
_RANDOM_SEED = 0


@dataclass(frozen=True)
class Backbone:
    """A frozen network that embeds images.

    Attributes:
        info: Name, weights, digest and preprocessing; what a head remembers.
        module: The torch module where there is one (timm), in evaluation mode, float32.
    """

    info: BackboneInfo
    make_graph: Callable[[], onnx.ModelProto]
    module: torch.nn.Module | None = None

    @property
    def onnx(self) -> onnx.ModelProto:
        """Its graph, ``pixels`` (N, 3, H, W) -> ``embedding`` (N, D), cached."""
        from edge_imprint_export.cache import cached

        return cached(self.info, self.make_graph)


def load_backbone(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    random_weights: bool = False,
    preprocess: Preprocess | None = None,
) -> Backbone:
    """Load a frozen backbone.

    Args:
        name: ``demo`` (the packaged GlyphNet), ``timm/NAME`` or ``onnx:FILE``.
        weights: A local safetensors file or torch checkpoint (timm only).
        random_weights: Seeded random weights, to try without a download (timm only).
        preprocess: Instead of the backbone's own; its size too, where timm's network takes it.

    Returns:
        The backbone.

    Raises:
        BackboneNotFoundError: There is none of this name; the message suggests the nearest.
        WeightsError: The weights can't be had or don't fit.
        BackboneExportError: The backbone can't be a graph of one image input.
        MissingPackageError: torch, timm or onnx is not installed.
        ParameterError: The options contradict each other.
    """
    if weights is not None and random_weights:
        raise ParameterError("give --weights FILE or --random-weights, not both")
    kind, separator, rest = name.partition("/")
    if kind == "timm" and separator:
        return _timm(rest, weights, random_weights, preprocess)
    if name != "demo" and not name.startswith("onnx:"):
        raise BackboneNotFoundError(
            f"there is no backbone {name!r}; use 'demo', 'timm/NAME' or 'onnx:FILE'"
            + _suggestion(name, "timm/")
        )
    if weights is not None or random_weights:
        raise ParameterError(f"the backbone {name} brings its own weights; give none")
    backbone = _demo() if name == "demo" else _onnx(Path(name[len("onnx:") :]))
    if preprocess is None:
        return backbone
    own = backbone.info.preprocess
    if (preprocess.height, preprocess.width) != (own.height, own.width):
        raise ParameterError(
            f"the backbone {name} takes {own.height}x{own.width} pixels, "
            f"the preprocessing makes {preprocess.height}x{preprocess.width}"
        )
    return replace(backbone, info=replace(backbone.info, preprocess=preprocess))


def graph_for(head: Head, *, weights: str | os.PathLike[str] | None = None) -> onnx.ModelProto:
    """Get the graph of the backbone that a head was made with.

    From the cache where it is there, which needs no torch; else the backbone is loaded anew.

    Args:
        head: A head that names its backbone.
        weights: The file that the head was built with, where it was one.

    Returns:
        The backbone graph.

    Raises:
        BackboneMismatchError: The head names no backbone, or the one loaded is another.
        WeightsError: Its weights can't be had.
        BackboneNotFoundError, BackboneExportError, MissingPackageError: As in `load_backbone`.
    """
    from edge_imprint_export.cache import lookup

    info = head.backbone
    if info is None:
        raise BackboneMismatchError(
            "the head does not say which backbone it belongs to; "
            "make it with edge-imprint build"
        )
    found = lookup(info)
    if found is not None:
        return found
    kind = info.weights.partition(":")[0]
    if kind == "file" and weights is None:
        raise WeightsError(
            f"the head was built with the weights {info.weights[5:]!r}, which are no longer "
            "cached; pass --weights FILE"
        )
    backbone = load_backbone(
        info.name,
        weights=weights,
        random_weights=kind == "random",
        preprocess=info.preprocess if info.name.startswith("timm/") else None,
    )
    if backbone.info.digest != info.digest:
        raise BackboneMismatchError(
            f"the backbone {info.name} at hand has other weights than the head was built with "
            f"(digest {backbone.info.digest[:12]}, the head says {info.digest[:12]}); "
            "build the head again"
        )
    return replace(backbone, info=info).onnx


def _demo() -> Backbone:
    from edge_imprint import glyphnet

    weights = glyphnet.load_weights()

    def make_graph() -> onnx.ModelProto:
        glyph_graph = _export_package("glyphnet")
        layers = [(layer.stride, layer.relu) for layer in glyphnet.LAYERS]
        size, pool = glyphnet.IMAGE_SIZE, glyphnet.POOL_SIZE
        graph: onnx.ModelProto = glyph_graph.conv_stack(
            layers, weights, image_size=size, pool_size=pool
        )
        return graph

    side = glyphnet.IMAGE_SIZE
    preprocess = Preprocess(side, side, mean=glyphnet.MEAN, std=glyphnet.STD)
    digest = _digest("glyphnet", weights)
    return Backbone(BackboneInfo("demo", "packaged", digest, preprocess), make_graph)


def _onnx(file: Path) -> Backbone:
    onnx_file, graphs = _export_package("onnx_file"), _export_package("graph")
    graph = onnx_file.read_backbone(file)
    height, width = graphs.image_size(graph)
    preprocess = Preprocess(
        height,
        width,
        resize="crop",
        resize_height=math.floor(height / _DEFAULT_CROP),
        resize_width=math.floor(width / _DEFAULT_CROP),
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    )
    # The tidied graph, not the file: external weights count, notes and producers don't.
    digest = hashlib.sha256(graphs.to_bytes(graph)).hexdigest()
    info = BackboneInfo(f"onnx:{file}", "packaged", digest, preprocess)
    return Backbone(info, lambda: graph)


def _timm(
    name: str,
    weights: str | os.PathLike[str] | None,
    random_weights: bool,
    preprocess: Preprocess | None,
) -> Backbone:
    torch, timm = _torch_and_timm()
    if not timm.is_model(name):
        raise BackboneNotFoundError(
            f"timm {timm.__version__} has no model {name!r}" + _suggestion(name, "")
        )
    pretrained = weights is None and not random_weights
    module = _create(torch, timm, name, pretrained)
    if weights is not None:
        _load_weights(torch, module, Path(weights))
        source = f"file:{Path(weights).name}"
    else:
        source = "pretrained" if pretrained else f"random:{_RANDOM_SEED}"
    module = module.eval().requires_grad_(False).float()
    preprocess = preprocess or _timm_preprocess(timm, module, name)
    arrays = {key: value.numpy() for key, value in module.state_dict().items()}
    info = BackboneInfo(f"timm/{name}", source, _digest(name, arrays), preprocess)

    def make_graph() -> onnx.ModelProto:
        graph: onnx.ModelProto = _export_package("torch_export").export_module(
            module, height=preprocess.height, width=preprocess.width, name=info.name
        )
        return graph

    return Backbone(info, make_graph, module)


def _create(torch: Any, timm: Any, name: str, pretrained: bool) -> Any:
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


def _timm_preprocess(timm: Any, module: torch.nn.Module, name: str) -> Preprocess:
    config = timm.data.resolve_model_data_config(module)
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


def _load_weights(torch: Any, module: torch.nn.Module, file: Path) -> None:
    tensors = _read_weights(torch, file)
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


def _read_weights(torch: Any, file: Path) -> dict[str, torch.Tensor]:
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


def _digest(name: str, arrays: Mapping[str, npt.NDArray[np.generic]]) -> str:
    """Hash a network: its name and each weight's name, type, shape and bytes."""
    state = hashlib.sha256(f"{name}\n".encode())
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        state.update(f"{key} {array.dtype} {array.shape}\n".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def _suggestion(name: str, prefix: str) -> str:
    try:
        import timm
    except ImportError:
        return ""
    known = timm.list_models()
    near = difflib.get_close_matches(name.rpartition("/")[2].partition(".")[0], known, n=3)
    return f"; nearest: {', '.join(prefix + match for match in near)}" if near else ""


def _torch_and_timm() -> tuple[Any, Any]:
    try:
        import timm
        import torch
    except ImportError as error:
        package = str(error.name or "timm")
        raise MissingPackageError(package, "a timm backbone", "host") from error
    return torch, timm


def _export_package(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"edge_imprint_export.{module}")
    except ImportError as error:
        raise MissingPackageError("onnx", "a backbone's graph", "host") from error


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep the hub client's retries and progress bars off the terminal while weights load."""
    import logging

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

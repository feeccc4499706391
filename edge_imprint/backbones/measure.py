# SPDX-License-Identifier: Apache-2.0
"""What a backbone of timm or torchvision is, found by building it without weights.

On torch's meta device, where a tensor has a shape and no numbers: the largest network takes
no memory, and a second at most. Imported where it is needed: torch takes seconds.
"""

from __future__ import annotations

import logging
from typing import Any

import timm
import torch
import torchvision
from torch.overrides import TorchFunctionMode

from edge_imprint.backbones import torchvision_models
from edge_imprint.backbones.listing import Entry
from edge_imprint_runtime.errors import BackboneNotFoundError

__all__ = ["measure", "names", "tensor_shapes"]


# What makes tensors as large as a network; the rest may be read while it is built.
_MAKERS = frozenset(
    {torch.empty, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros}
)


class _WithoutNumbers(TorchFunctionMode):
    """Weights are made on the meta device, but not what a constructor computes with.

    torch.device("meta") would take both, and some of torchvision's read a range's numbers.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Add the device where none is named."""
        options = dict(kwargs or {})
        if func in _MAKERS and options.get("device") is None:
            options["device"] = "meta"
        return func(*args, **options)


def names() -> list[str]:
    """Name all that the installed libraries have, as ``KIND/NAME``, sorted."""
    return [f"timm/{name}" for name in sorted(timm.list_models())] + [
        f"torchvision/{name}" for name in torchvision_models.names()
    ]


def _bare_module(name: str) -> torch.nn.Module:
    """Build a backbone without its classifier and without numbers.

    Args:
        name: ``timm/NAME`` or ``torchvision/NAME``.

    Returns:
        The module on the meta device, in evaluation mode: (N, 3, H, W) -> (N, D).

    Raises:
        BackboneNotFoundError: The library can't make it on the meta device.
    """
    kind, _, rest = name.partition("/")
    level = logging.getLogger("timm").level
    logging.getLogger("timm").setLevel(logging.CRITICAL)  # it warns of what has no weights
    try:
        if kind == "timm":
            with torch.device("meta"):
                module: torch.nn.Module = timm.create_model(rest, num_classes=0)
        else:
            with _WithoutNumbers():
                module = torchvision_models.bare(rest)
    except Exception as error:  # what a network's constructor raises is its own
        raise BackboneNotFoundError(f"cannot make {name} without weights: {error}") from error
    finally:
        logging.getLogger("timm").setLevel(level)
    return module.to("meta").eval()


def measure(name: str) -> Entry:
    """Find out what the listing tells of a backbone.

    Args:
        name: ``timm/NAME`` or ``torchvision/NAME``, one of `names`.

    Returns:
        Its entry; without an embedding size where it does not turn (N, 3, H, W) into (N, D).

    Raises:
        BackboneNotFoundError: The library can't make it on the meta device.
    """
    kind, _, rest = name.partition("/")
    size, weights = _timm_facts(rest) if kind == "timm" else _torchvision_facts(rest)
    module = _bare_module(name)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    try:
        with torch.inference_mode():
            out: Any = module(torch.empty(2, *size, device="meta"))
        fits = size[0] == 3 and out.ndim == 2 and len(out) == 2
        embedding = int(out.shape[1]) if fits else 0
    except Exception:  # a network of other inputs (two images, a text) is none for us
        embedding = 0
    return Entry(name, embedding, parameters, size[1], size[2], weights)


def tensor_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the tensors that a backbone's weights hold.

    Args:
        name: ``timm/NAME`` or ``torchvision/NAME``.

    Returns:
        As in its ``state_dict``, without the classifier.

    Raises:
        BackboneNotFoundError: The library can't make it on the meta device.
    """
    state = _bare_module(name).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


def _timm_facts(name: str) -> tuple[tuple[int, int, int], str]:
    """Return timm's own input size (C, H, W), and where its weights are."""
    config: Any = timm.models.get_pretrained_cfg(name)
    channels, height, width = config.input_size
    if config.hf_hub_id:
        place = "" if not config.hf_hub_filename else f"/{config.hf_hub_filename}"
        weights = f"hub:{config.hf_hub_id}{place}"
    else:
        weights = f"file:{config.url.rpartition('/')[2]}" if config.url else ""
    return (channels, height, width), weights


def _torchvision_facts(name: str) -> tuple[tuple[int, int, int], str]:
    own: Any = torchvision.models
    weights = own.get_model_weights(name).DEFAULT
    side = weights.transforms().crop_size[0]
    return (3, side, side), f"file:{weights.url.rpartition('/')[2]}"

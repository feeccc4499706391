# SPDX-License-Identifier: Apache-2.0
"""Pixels -> embeddings. On a CPU by the very graph that will be deployed; on CUDA by torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.backbones import Backbone
from edge_imprint_runtime.errors import MissingPackageError, ParameterError, ProviderError

__all__ = [
    "DEVICES",
    "Embedder",
    "check_device",
    "ort_embedder",
    "pick_embedder",
    "torch_embedder",
]

DEVICES = ("auto", "cpu", "cuda")

Embedder: TypeAlias = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""(N, H, W, 3) uint8 RGB at the network's size -> (N, D) float32."""


def check_device(device: str) -> None:
    """Refuse a device that there is not, before a backbone is loaded for it.

    Raises:
        ParameterError: There is no such device.
    """
    if device not in DEVICES:
        raise ParameterError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")


def pick_embedder(backbone: Backbone, device: str = "auto") -> tuple[Embedder, str]:
    """Choose what embeds.

    Args:
        backbone: The backbone.
        device: ``cpu``: ONNX Runtime. ``cuda``: torch for a backbone that has a torch module,
            else ONNX Runtime's CUDA provider. ``auto``: CUDA where torch has a module and a
            GPU, else the CPU.

    Returns:
        The embedder, and the device it runs on.

    Raises:
        ParameterError: There is no such device.
        ProviderError: CUDA is asked for and absent.
        MissingPackageError: ONNX Runtime is not installed.
    """
    check_device(device)
    if device == "cpu" or backbone.module is None:
        runs_on = "cpu" if device == "auto" else device
        return ort_embedder(backbone, runs_on), runs_on
    import torch

    if torch.cuda.is_available():
        return torch_embedder(backbone, "cuda"), "cuda"
    if device == "cuda":
        raise ProviderError("torch finds no CUDA device on this machine; use --device cpu")
    return ort_embedder(backbone, "cpu"), "cpu"


def ort_embedder(backbone: Backbone, device: str = "cpu") -> Embedder:
    """Embed with ONNX Runtime, through the preprocessing and backbone nodes of a fused model.

    Args:
        backbone: The backbone.
        device: ``cpu`` or ``cuda``.

    Returns:
        The embedder.

    Raises:
        MissingPackageError: ONNX Runtime is not installed.
        ProviderError: The provider can't be had.
    """
    try:
        from edge_imprint_export.frontend import embedder
        from edge_imprint_export.graph import to_bytes
    except ImportError as error:
        raise MissingPackageError("onnx", "embedding photos", "host") from error
    from edge_imprint_runtime.backends.ort import OrtRunner

    runner = OrtRunner(to_bytes(embedder(backbone.onnx, backbone.info.preprocess)), device)

    def embed(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return runner.run(["embedding"], pixels)[0]  # type: ignore[return-value]

    return embed


def torch_embedder(backbone: Backbone, device: str) -> Embedder:
    """Embed with torch, in float32.

    Args:
        backbone: A backbone with a torch module.
        device: ``cuda``, or ``cpu`` to compare.

    Returns:
        The embedder.

    Raises:
        ParameterError: The backbone has no torch module.
    """
    if backbone.module is None:
        raise ParameterError(f"the backbone {backbone.info.name} has no torch module")
    import torch

    # TF32 keeps ten bits of a factor: embeddings would no longer be those of the device.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    module = copy.deepcopy(backbone.module).to(device)  # the backbone itself stays where it is
    p = backbone.info.preprocess
    mean = torch.tensor(p.mean, device=device).view(1, 3, 1, 1) * 255
    scale = 1 / (torch.tensor(p.std, device=device).view(1, 3, 1, 1) * 255)

    def embed(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
            floats = images.permute(0, 3, 1, 2).float().contiguous()
            result: npt.NDArray[np.float32] = module((floats - mean) * scale).cpu().numpy()
        return result

    return embed

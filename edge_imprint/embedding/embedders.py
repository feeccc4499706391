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
    "LANE_BATCH",
    "OrtEmbedder",
    "check_device",
    "embedder_graph",
    "ort_embedder",
    "pick_embedder",
    "torch_embedder",
]

DEVICES = ("auto", "cpu", "cuda")

# Images a run of one thread on a CPU: from here on larger runs are no faster (resnet18), and
# the last run's filling costs little. Engines share it, so that their embeddings are the same.
LANE_BATCH = 4

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


class OrtEmbedder:
    """Embeds with ONNX Runtime; several threads may call one at the same time.

    With ``threads=1`` and a ``batch``, an embedding depends on its photo alone, to the last
    bit: a run always has ``batch`` images, the last one filled up with zeros. (ONNX Runtime's
    kernels choose by the size of a product how they add it up.)

    Args:
        graph: What `embedder_graph` made.
        device: ``cpu`` or ``cuda``.
        threads: Threads for one operator; 0 lets ONNX Runtime choose.
        batch: Images a run; None to run as many at a time as are given.

    Raises:
        MissingPackageError: ONNX Runtime is not installed.
        ProviderError: The provider can't be had.
    """

    def __init__(
        self, graph: bytes, device: str = "cpu", *, threads: int = 0, batch: int | None = None
    ) -> None:
        from edge_imprint_runtime.backends.ort import OrtRunner

        self._runner = OrtRunner(graph, device, threads)
        self.batch = self._runner.batch_limits[1] or batch

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed (N, H, W, 3) uint8 RGB at the network's size -> (N, D) float32."""
        count, batch = len(pixels), self.batch or len(pixels)
        if count <= batch and self.batch is None:
            return self._run(pixels)
        parts = []
        for start in range(0, count, batch):
            part = pixels[start : start + batch]
            if len(part) < batch:
                missing = np.zeros((batch - len(part), *part.shape[1:]), np.uint8)
                part = np.concatenate([part, missing])
            parts.append(self._run(part))
        return np.concatenate(parts)[:count]

    def _run(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        rows: npt.NDArray[np.float32] = self._runner.run(["embedding"], pixels)[0]  # type: ignore[assignment]
        return rows


def embedder_graph(backbone: Backbone) -> bytes:
    """Make the preprocessing and backbone nodes of a fused model: ``images`` -> ``embedding``.

    Args:
        backbone: The backbone.

    Returns:
        An ONNX file's bytes, for `OrtEmbedder`, also in another process.

    Raises:
        MissingPackageError: onnx is not installed.
    """
    try:
        from edge_imprint_export.frontend import embedder
        from edge_imprint_export.graph import to_bytes
    except ImportError as error:
        raise MissingPackageError("onnx", "embedding photos", "host") from error
    return to_bytes(embedder(backbone.onnx, backbone.info.preprocess))


def ort_embedder(backbone: Backbone, device: str = "cpu") -> Embedder:
    """Embed with ONNX Runtime, through the preprocessing and backbone nodes of a fused model.

    Args:
        backbone: The backbone.
        device: ``cpu`` or ``cuda``.

    Returns:
        The embedder.

    Raises:
        MissingPackageError: ONNX Runtime or onnx is not installed.
        ProviderError: The provider can't be had.
    """
    return OrtEmbedder(embedder_graph(backbone), device)


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

# SPDX-License-Identifier: Apache-2.0
"""Pixels -> embeddings. On a CPU by the very graph that will be deployed; on CUDA by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_imprint.backbones import Backbone
from edge_imprint.embedding.gpus import choose_device
from edge_imprint.embedding.torch_embedder import torch_embedder
from edge_imprint_runtime.errors import MissingPackageError, ParameterError

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
    """Choose what embeds pixels that are at hand; for photos there is `LocalEngine`.

    Args:
        backbone: The backbone.
        device: As in `choose_device`; on CUDA torch embeds for a backbone that has a torch
            module, else ONNX Runtime's CUDA provider.

    Returns:
        The embedder, and the device it runs on.

    Raises:
        ParameterError: There is no such device.
        ProviderError: CUDA is asked for and absent.
        MissingPackageError: ONNX Runtime is not installed.
    """
    check_device(device)
    runs_on = choose_device(device, has_module=backbone.has_module).device
    if runs_on == "cuda" and backbone.has_module:
        return torch_embedder(backbone, runs_on), runs_on
    return ort_embedder(backbone, runs_on), runs_on


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

# SPDX-License-Identifier: Apache-2.0
"""A torch module behind its preprocessing, on a device: uint8 pixels in, float32 rows out."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

from edge_imprint_runtime.contract import Preprocess
from edge_imprint_runtime.errors import EmbeddingError

if TYPE_CHECKING:
    import torch

__all__ = ["ARITHMETICS", "Network"]

ARITHMETICS = ("bf16", "fp16")
"""What autocast may compute in, beside float32."""

_TYPES = {"bf16": "bfloat16", "fp16": "float16"}


class Network:
    """A module on a device.

    Args:
        module: In evaluation mode: (N, 3, H, W) float32, normalised -> (N, D). It is copied,
            and stays as and where it is.
        preprocess: The module's mean and standard deviation.
        device: torch's name of the device.
        channels_last: Whether to compute on (N, H, W, C) memory.

    Attributes:
        channels_last: As given; see `use_plain_layout`.

    Raises:
        RuntimeError: torch's own, such as where memory is short.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        preprocess: Preprocess,
        device: str,
        *,
        channels_last: bool,
    ) -> None:
        import torch

        # TF32 keeps ten bits of a factor: embeddings would no longer be those of the device.
        # cuDNN's own search (benchmark) is left off: it takes a second at each new batch size,
        # and picks kernels by their time, so that runs would differ.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self.channels_last = channels_last
        self._kind = torch.device(device).type
        self._module = copy.deepcopy(module).to(device)
        if channels_last:
            self._module.to(memory_format=torch.channels_last)
        self._mean = torch.tensor(preprocess.mean, device=device).view(1, 3, 1, 1) * 255
        std = torch.tensor(preprocess.std, device=device).view(1, 3, 1, 1) * 255
        self._scale = 1 / std

    def __call__(self, pixels: torch.Tensor, arithmetic: str = "fp32") -> torch.Tensor:
        """Compute.

        Args:
            pixels: (n, H, W, 3) uint8, on the device.
            arithmetic: ``fp32``, ``bf16`` or ``fp16``.

        Returns:
            (n, D) float32, on the device.

        Raises:
            EmbeddingError: The module gives anything but one row an image.
            RuntimeError: torch's own.
        """
        import torch

        with torch.inference_mode(), contextlib.ExitStack() as entered:
            images = pixels.permute(0, 3, 1, 2).float()  # in memory it is channels_last still
            if not self.channels_last:
                images = images.contiguous()
            images = (images - self._mean) * self._scale
            if arithmetic != "fp32":
                dtype = getattr(torch, _TYPES[arithmetic])
                entered.enter_context(torch.autocast(self._kind, dtype=dtype))
            rows: Any = self._module(images)
        if not isinstance(rows, torch.Tensor) or rows.ndim != 2 or len(rows) != len(pixels):
            got = tuple(getattr(rows, "shape", ())) or type(rows).__name__
            raise EmbeddingError(
                f"the backbone gives {got} for {len(pixels)} images, not one row an image; "
                "take a module that gives (N, D), or name a --layer"
            )
        return rows.float()

    def use_plain_layout(self) -> None:
        """Compute on (N, C, H, W) memory from now on, as modules with a `view` may need."""
        import torch

        self.channels_last = False
        self._module.to(memory_format=torch.contiguous_format)

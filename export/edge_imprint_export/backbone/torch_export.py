# SPDX-License-Identifier: Apache-2.0
"""A frozen torch module -> a backbone graph. The only file of these that imports torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import onnx

from edge_imprint_export.graph import EMBEDDING, PIXELS, check_graph, tidy
from edge_imprint_runtime.errors import BackboneExportError, MissingPackageError
from edge_imprint_runtime.graph_files import OPSET

if TYPE_CHECKING:
    import torch

__all__ = ["OPSET", "export_module"]


def export_module(
    module: torch.nn.Module, *, height: int, width: int, name: str
) -> onnx.ModelProto:
    """Trace a frozen module once, with a dynamic batch.

    Args:
        module: From (N, 3, height, width) float32 to (N, D) float32, in evaluation mode.
        height: Pixels.
        width: Pixels.
        name: The backbone's name, for messages.

    Returns:
        The backbone graph.

    Raises:
        BackboneExportError: torch can't export it, or its output is not (N, D).
        MissingPackageError: torch's ONNX exporter is not installed.
    """
    import torch

    try:
        import onnxscript  # noqa: F401 - what torch exports with
    except ImportError as error:
        raise MissingPackageError("onnxscript", "exporting a backbone", "host") from error
    # Two images: a batch of one would be taken for a constant.
    example = torch.zeros(2, 3, height, width)
    try:
        with torch.inference_mode():
            shape = tuple(module(example).shape)
    except Exception as error:  # a network asserts and raises as it likes
        text = " ".join(str(error).split())[:300]
        raise BackboneExportError(
            f"the backbone {name} does not run on {height}x{width} pixels: {text}"
        ) from error
    if len(shape) != 2 or shape[0] != 2:
        raise BackboneExportError(
            f"the backbone {name} answers shape {shape} for two images, not (2, D); "
            "use one that pools its features into one embedding"
        )
    batch = torch.export.Dim("N", min=1, max=65_536)
    try:
        with _silence():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[PIXELS],
                output_names=[EMBEDDING],
                dynamic_shapes=({0: batch},),
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever its many parts raise
        text = " ".join(str(error).split())[:300]
        raise BackboneExportError(f"torch can't export the backbone {name}: {text}") from error
    assert program is not None  # dynamo=True always returns one
    model = tidy(program.model_proto, size=shape[1])
    check_graph(model, f"the backbone {name}")
    return model


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's chatter from the user; what it raises still comes through."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

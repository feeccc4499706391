# SPDX-License-Identifier: Apache-2.0
"""The oracle's side of a whole verification: what the model is given, seen another way."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from PIL import Image

from edge_imprint_export.files.guard import read_model
from edge_imprint_export.graph import (
    EMBEDDING,
    PIXELS,
    all_nodes,
    graphs_of,
    parse,
    to_bytes,
)
from edge_imprint_export.precision.layers import LayerError, layer_errors, layer_name
from edge_imprint_export.proof.result import Pixels
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.contract import GraphInfo, Preprocess
from edge_imprint_runtime.frames import fit, frame_shape, frame_to_rgb
from edge_imprint_runtime.images import normalize, photo_image, photo_pixels, prepare
from edge_imprint_runtime.model import Model, Photo

__all__ = ["RANDOM_INPUTS", "Array", "Oracle"]

RANDOM_INPUTS = 8
_MIN_WITHIN = 0.999  # of pixels, that differ from Pillow's by one grey level at most
_LEVEL_SLACK = 1e-2  # grey levels: what float32 loses in normalising
_ANY_SIZE = (300, 420)  # pixels, of random frames where any size will do
_LAYER_PHOTOS = 4

Array: TypeAlias = npt.NDArray[np.generic]


class Oracle:
    """The bare float32 backbone, and how what a model takes becomes what it takes.

    Args:
        path: The model's file.
        usual: The same, opened.
        preprocess: From a photo to the network's input.
        backbone: The bare float32 backbone graph, as bytes.
    """

    def __init__(
        self, path: Path, usual: Model, preprocess: Preprocess, backbone: bytes
    ) -> None:
        assert usual.contract.graph is not None  # what is opened as a model says it
        self.path, self.usual, self.preprocess = path, usual, preprocess
        self.graph: GraphInfo = usual.contract.graph
        self.bytes, self.backbone = backbone, OrtRunner(backbone, "cpu")

    @functools.cached_property
    def model(self) -> onnx.ModelProto:
        """The model, read by the guard."""
        return read_model(self.path)

    def prepared(self, photo: Photo) -> Array:
        """Return one photo as the model takes it: (1, ...)."""
        if self.graph.frame is not None:
            return self.usual.prepare([fit(photo_image(photo), self.graph.frame)])
        if self.graph.input == "embedding":
            pixels = photo_pixels(photo, self.preprocess)[np.newaxis]
            return self.embed(normalize(pixels, self.preprocess))
        return self.usual.prepare([photo])

    def embeddings(self, given: Array) -> npt.NDArray[np.float32]:
        """Embed what the model takes by another way: (n, D) float32."""
        if self.graph.input == "embedding":
            return given.astype(np.float32)
        return self.embed(self.floats(given))

    def floats(self, given: Array) -> npt.NDArray[np.float32]:
        """Return what the model takes as the bare backbone takes it: (n, 3, H, W) float32."""
        if self.graph.input == "float32":
            return given.astype(np.float32)
        pixels = given.astype(np.uint8)
        if self.graph.frame is not None:
            # Its own: how near they are to Pillow's is told apart, by `pixels`.
            return self.door.run([PIXELS], pixels)[0].astype(np.float32)
        return normalize(pixels, self.preprocess)

    @functools.cached_property
    def door(self) -> OrtRunner:
        """The part of a model of camera frames that ends at the network's pixels."""
        part = _part(self.model, self.model.graph.input[0], PIXELS)
        return OrtRunner(to_bytes(part), "cpu")

    def pixels(self, kept: list[Array]) -> Pixels | None:
        """Compare the pixels that a model makes of camera frames with Pillow's."""
        if self.graph.frame is None:
            return None
        p, differences = self.preprocess, []
        mean, std = (np.array(three).reshape(1, 3, 1, 1) for three in (p.mean, p.std))
        for given in kept:
            rgb = frame_to_rgb(given.astype(np.uint8), self.graph.frame)[0]
            want = prepare(Image.fromarray(rgb), p).transpose(2, 0, 1)
            levels = (self.floats(given).astype(np.float64) * std + mean) * 255
            differences.append(np.abs(levels[0] - want))
        found = np.stack(differences)
        within = float((found <= 1 + _LEVEL_SLACK).mean())
        largest = float(found.max())
        return Pixels(len(kept), within, largest, within >= _MIN_WITHIN)

    def embed(self, floats: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Run the bare backbone: (n, 3, H, W) -> (n, D)."""
        return self.backbone.run([EMBEDDING], floats)[0].astype(np.float32)

    def random(self) -> list[Array]:
        """Return random inputs of the model's shape and type, one a row."""
        rng = np.random.default_rng(0)
        shape = self.usual.input_shape
        if self.graph.frame is not None and self.graph.frame.any_size:
            shape = (*_ANY_SIZE, *frame_shape(self.graph.frame)[2:])
        if self.usual.input_dtype == np.uint8:
            drawn: Array = rng.integers(0, 256, (RANDOM_INPUTS, *shape), np.uint8)
        else:
            drawn = rng.standard_normal((RANDOM_INPUTS, *shape), np.float32)
        return [drawn[i : i + 1] for i in range(RANDOM_INPUTS)]

    def layers(self, kept: list[Array]) -> tuple[LayerError, ...]:
        """Compare a reduced backbone with float32, layer by layer."""
        if self.graph.precision == "fp32" or self.graph.input == "embedding":
            return ()
        floats = np.concatenate([self.floats(row) for row in kept[:_LAYER_PHOTOS]])
        original = parse(self.bytes, "the backbone")
        graph = self.model.graph
        inside = any(PIXELS in node.output for node in graph.node)
        # Of float32 images preprocessing is the caller's.
        source = PIXELS if inside else graph.input[0].name
        value = helper.make_tensor_value_info(
            source, TensorProto.FLOAT, ["N", *floats.shape[1:]]
        )
        found = layer_errors(original, _part(self.model, value, EMBEDDING), floats)
        place = {layer_name(node): i for i, node in enumerate(original.graph.node)}
        return tuple(sorted(found, key=lambda layer: place[layer.name]))


def _part(model: onnx.ModelProto, source: onnx.ValueInfoProto, end: str) -> onnx.ModelProto:
    """Cut out of a fused model what leads from one tensor to another, as it is there."""
    graph = model.graph
    needed, kept = {end}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output) and source.name not in node.output:
            kept.append(node)
            inside = [user for inner in graphs_of(node) for user in all_nodes(inner)]
            needed.update(name for user in (node, *inside) for name in user.input)
    part = onnx.ModelProto(ir_version=model.ir_version)
    part.opset_import.extend(model.opset_import)
    part.graph.name = "part"
    part.graph.node.extend(reversed(kept))
    part.graph.initializer.extend(t for t in graph.initializer if t.name in needed)
    part.graph.input.append(source)
    part.graph.output.append(helper.make_tensor_value_info(end, TensorProto.FLOAT, None))
    return part

# SPDX-License-Identifier: Apache-2.0
"""Layer by layer: where the error is, how large, and that its names can be kept."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper

from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_export.precision import LayerError, layer_errors, to_half, to_int8
from edge_imprint_export.targets.lower import lower
from edge_imprint_export.targets.records import target
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import BackboneMismatchError

Array: TypeAlias = npt.NDArray[np.float32]


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return parse(to_bytes(model), "a copy")


def scaled(model: onnx.ModelProto, weight: str, factor: float) -> onnx.ModelProto:
    """Copy a graph with one weight scaled."""
    other = copy(model)
    for tensor in other.graph.initializer:
        if tensor.name == weight:
            values = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(values, weight))
    return other


def tensor_of(model: onnx.ModelProto, name: str, pixels: Array) -> npt.NDArray[np.float64]:
    probe = copy(model)
    del probe.graph.output[:]
    probe.graph.output.append(helper.make_tensor_value_info(name, 1, None))
    return OrtRunner(to_bytes(probe), "cpu").run([name], pixels)[0].astype(np.float64)


def by_name(found: tuple[LayerError, ...]) -> dict[str, LayerError]:
    assert len({layer.name for layer in found}) == len(found)
    return {layer.name: layer for layer in found}


def test_equal_graphs_have_no_error(residual: onnx.ModelProto, images: Array) -> None:
    found = layer_errors(residual, copy(residual), images)
    assert [layer.name for layer in found] == [node.name for node in residual.graph.node]
    assert {(layer.error, layer.added) for layer in found} == {(0.0, 0.0)}


def test_the_layer_that_errs_comes_first_with_its_error(
    residual: onnx.ModelProto, images: Array
) -> None:
    other = scaled(residual, "second.w", 1.1)
    found = layer_errors(residual, other, images)
    assert (found[0].name, found[0].op) == ("second", "Conv")
    layers = by_name(found)
    assert layers["first_relu"].error == 0.0
    for name, output in (("second", "e"), ("add", "f"), ("flat", "embedding")):
        a, b = (tensor_of(model, output, images) for model in (residual, other))
        expected = np.linalg.norm(a - b) / np.linalg.norm(a)
        assert layers[name].error == pytest.approx(expected, rel=1e-4)
    assert layers["second"].added == layers["second"].error
    assert layers["add"].added == 0.0  # the shortcut is right: the sum errs less
    assert layers["flat"].added == 0.0


def test_images_are_not_all_run_at_once(residual: onnx.ModelProto, images: Array) -> None:
    other = scaled(residual, "first.w", 0.9)
    whole = by_name(layer_errors(residual, other, images[:9]))
    a, b = (tensor_of(model, "c", images[:9]) for model in (residual, other))
    expected = np.linalg.norm(a - b) / np.linalg.norm(a)
    assert whole["first"].error == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("lowered", [False, True])
@pytest.mark.parametrize("dialect", ["portable", "tensorrt-8", "tensorrt", "onnxruntime"])
def test_int8_is_compared_as_it_is_read(
    residual: onnx.ModelProto, images: Array, dialect: str, lowered: bool
) -> None:
    graph = lower(copy(residual), target("portable")) if lowered else residual
    reduced = to_int8(graph, [images], dialect=dialect)
    layers = by_name(layer_errors(residual, reduced, images))
    # A ReLU that saturation does is compared where it ends, without what it cut off.
    for name in ("stem_relu", "first_relu", "last_relu", "pool", "flat"):
        assert 0 < layers[name].error < 0.05, name
    assert "second" in layers
    assert ({"stem", "first", "add"} <= set(layers)) == (dialect != "onnxruntime")


def test_what_costs_most_can_be_kept(residual: onnx.ModelProto, images: Array) -> None:
    before = layer_errors(residual, to_int8(residual, [images]), images)
    worst = next(layer for layer in before if layer.op == "Conv")
    kept = to_int8(residual, [images], keep_float32=[worst.name])
    after = by_name(layer_errors(residual, kept, images))
    assert after[worst.name].added < worst.added


def test_half_errs_by_its_rounding(residual: onnx.ModelProto, images: Array) -> None:
    found = layer_errors(residual, to_half(residual), images)
    assert len(found) == len(residual.graph.node)
    assert 0 < max(layer.error for layer in found) < 2e-3


def test_what_is_not_finite_is_infinitely_wrong_where_it_begins(
    residual: onnx.ModelProto, images: Array
) -> None:
    found = layer_errors(residual, to_half(residual), images * 40_000)
    assert (found[0].name, found[0].error, found[0].added) == ("stem", np.inf, np.inf)
    assert {layer.added for layer in found[2:]} == {0.0}


def test_a_layer_without_a_name_is_called_by_its_output(
    residual: onnx.ModelProto, images: Array
) -> None:
    nameless = copy(residual)
    for node in nameless.graph.node:
        node.name = ""
    found = layer_errors(nameless, to_half(nameless, keep_float32=["c"]), images)
    assert {layer.name for layer in found} == set("abcdefgh") | {"embedding"}


def test_graphs_of_nothing_in_common_are_refused(
    residual: onnx.ModelProto, images: Array
) -> None:
    other = copy(residual)
    for node in other.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"other/{name}" if len(name) == 1 else name for name in names]
    other.graph.node[-1].output[0] = other.graph.output[0].name = "rows"
    with pytest.raises(BackboneMismatchError) as caught:
        layer_errors(residual, other, images)
    assert str(caught.value) == (
        "the two graphs have no layer in common; compare a backbone with what was made of it"
    )


def test_given_graphs_stay(residual: onnx.ModelProto, images: Array) -> None:
    reduced = to_half(residual)
    before = to_bytes(residual), to_bytes(reduced)
    layer_errors(residual, reduced, images[:1])
    assert (to_bytes(residual), to_bytes(reduced)) == before

# SPDX-License-Identifier: Apache-2.0
"""int8 graphs: the arithmetic, where Q and DQ stand in each dialect, and what is refused."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_export.precision import int8_dialect, to_int8
from edge_imprint_export.precision.int8 import DIALECTS
from edge_imprint_export.targets.check import check
from edge_imprint_export.targets.lower import lower
from edge_imprint_export.targets.records import TARGETS, target

Array: TypeAlias = npt.NDArray[np.float32]
Embed: TypeAlias = Callable[[onnx.ModelProto, Array], Array]
Linear: TypeAlias = Callable[..., onnx.ModelProto]
MakeGraph: TypeAlias = Callable[..., onnx.ModelProto]

all_dialects = pytest.mark.parametrize("dialect", DIALECTS)


def ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def made_by(model: onnx.ModelProto, tensor: str) -> str:
    return next(node.op_type for node in model.graph.node if tensor in node.output)


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def optimised(model: onnx.ModelProto, path: Path) -> Counter[str]:
    """Count the operators that ONNX Runtime really runs on this CPU."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(to_bytes(model), options, providers=["CPUExecutionProvider"])
    return ops(onnx.load(path))


# Arithmetic --------------------------------------------------------------------------------


def in_int8(rows: Array, weight: Array) -> npt.NDArray[np.float64]:
    """Multiply in whole numbers, with the scales of symmetric int8."""
    step = np.abs(rows).max().astype(np.float64) / 127
    steps = np.abs(weight).max(axis=0).astype(np.float64) / 127
    a = np.clip(np.rint(rows / step), -128, 127)
    b = np.clip(np.rint(weight / steps), -127, 127)
    return (a @ b) * step * steps


@pytest.mark.parametrize("dialect", ["portable", "tensorrt-8", "tensorrt"])
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 9), low=st.integers(-6, 3))
def test_a_product_is_that_of_whole_numbers(
    linear: Linear, embed: Embed, dialect: str, seed: int, size: int, low: int
) -> None:
    rng = np.random.default_rng(seed)
    spread = 10.0 ** rng.uniform(low, 3, size)  # each channel has a scale of its own
    weight = (rng.standard_normal((48, size)) * spread).astype(np.float32)
    pixels = rng.standard_normal((4, 3, 4, 4)).astype(np.float32)
    made = to_int8(linear(weight), [pixels[:1], pixels[1:]], dialect=dialect)
    expected = in_int8(pixels.reshape(4, -1), weight)
    # A number on the edge between two steps may fall to either.
    edge = np.abs(pixels).max() / 127 * np.abs(weight).max(axis=0)
    assert (np.abs(embed(made, pixels) - expected) <= 1e-4 * np.abs(expected) + edge).all()
    close = np.abs(embed(made, pixels) - expected) <= 1e-5 * edge * 127
    assert close.mean() > 0.9


@all_dialects
def test_the_embedding_stays_near(
    residual: onnx.ModelProto, images: Array, embed: Embed, dialect: str
) -> None:
    made = to_int8(residual, [images], dialect=dialect)
    expected, got = embed(residual, images), embed(made, images)
    assert np.linalg.norm(got - expected) < 0.03 * np.linalg.norm(expected)
    assert not np.array_equal(got, expected)


@all_dialects
def test_batches_do_not_matter_and_bytes_are_equal(
    residual: onnx.ModelProto, images: Array, dialect: str
) -> None:
    whole = to_bytes(to_int8(residual, [images], dialect=dialect))
    parts = (images[start : start + 5] for start in range(0, len(images), 5))
    assert to_bytes(to_int8(residual, parts, dialect=dialect)) == whole


def test_images_outside_the_calibration_are_cut_off(
    linear: Linear, embed: Embed, images: Array
) -> None:
    weight = np.random.default_rng(5).standard_normal((192, 3)).astype(np.float32)
    made = to_int8(linear(weight), [np.clip(images, -1, 1)])
    rows = np.clip(images, -128 / 127, 1).reshape(len(images), -1)
    expected = rows.astype(np.float64) @ weight
    assert np.abs(embed(made, images) - expected).max() < 0.05 * np.abs(expected).max()


def test_bytes_do_not_hang_on_the_process() -> None:
    code = (
        "import hashlib, numpy as np\n"
        "from edge_imprint import load_backbone\n"
        "from edge_imprint_export.graph import to_bytes\n"
        "from edge_imprint_export.precision import to_half, to_int8\n"
        "graph = load_backbone('demo').onnx\n"
        "images = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype('f4')\n"
        "made = [to_half(graph)] + [to_int8(graph, [images], dialect=d) for d in "
        f"{tuple(DIALECTS)}]\n"
        "print([hashlib.sha256(to_bytes(m)).hexdigest() for m in made])\n"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        for seed in ("1", "2")
    ]
    assert printed[0].stdout == printed[1].stdout != ""
    assert {run.stderr for run in printed} == {""}  # no chatter of the tools either


# Form --------------------------------------------------------------------------------------


@all_dialects
def test_interface_and_given_graph_stay(
    residual: onnx.ModelProto, images: Array, dialect: str
) -> None:
    before = to_bytes(residual)
    made = to_int8(residual, [images], dialect=dialect)
    assert to_bytes(residual) == before
    assert list(made.graph.input) == list(residual.graph.input)
    assert list(made.graph.output) == list(residual.graph.output)
    assert (made.producer_name, made.ir_version) == ("edge-imprint", 8)
    assert not made.graph.value_info
    assert {(entry.domain, entry.version) for entry in made.opset_import} == {("", 17)}


@pytest.mark.parametrize("dialect", ["portable", "tensorrt-8", "tensorrt"])
def test_tensorrt_reads_int8_around_zero_and_float_biases(
    residual: onnx.ModelProto, images: Array, dialect: str
) -> None:
    made = to_int8(residual, [images], dialect=dialect)
    values = constants(made)
    for node in made.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = values[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
            assert (values[node.input[1]] > 0).all()
    assert not {array.dtype for array in values.values()} & {np.dtype(np.int32)}
    for name in ("stem", "first", "second"):
        assert values[node_of(made, name).input[2]].dtype == np.float32


@all_dialects
def test_weights_have_a_scale_for_each_channel(
    residual: onnx.ModelProto, images: Array, dialect: str
) -> None:
    made = to_int8(residual, [images], dialect=dialect)
    values = constants(made)
    original = constants(residual)
    for name in ("stem", "first", "second"):
        dequantize = next(
            node for node in made.graph.node if node.output[0] == node_of(made, name).input[1]
        )
        assert {a.name: a.i for a in dequantize.attribute} == {"axis": 0}
        weight = original[f"{name}.w"].astype(np.float64)
        steps = np.abs(weight).max(axis=(1, 2, 3)) / 127
        np.testing.assert_allclose(values[dequantize.input[1]], steps, rtol=1e-6)
        if DIALECTS[dialect].float_weights:
            quantize = next(
                node for node in made.graph.node if node.output[0] == dequantize.input[0]
            )
            np.testing.assert_array_equal(values[quantize.input[0]], original[f"{name}.w"])
        else:
            whole = values[dequantize.input[0]]
            assert whole.dtype == np.int8
            expected = np.rint(weight / steps.reshape(-1, 1, 1, 1))
            assert np.abs(whole - expected).max() <= 1
            assert (whole == expected).mean() > 0.99


@pytest.mark.parametrize("dialect", ["tensorrt-8", "tensorrt"])
def test_tensorrt_gets_pairs_at_inputs_and_the_shortcut(
    residual: onnx.ModelProto, images: Array, dialect: str
) -> None:
    made = to_int8(residual, [images], dialect=dialect)
    for name in ("stem", "first", "second"):
        layer = node_of(made, name)
        assert made_by(made, layer.input[0]) == "DequantizeLinear"
        read_by = {n.op_type for n in made.graph.node if layer.output[0] in n.input}
        assert "QuantizeLinear" not in read_by
    add = node_of(made, "add")
    assert [made_by(made, name) for name in add.input] == ["Conv", "DequantizeLinear"]
    # A pair for each reader, as TensorRT has it.
    readers = Counter(name for node in made.graph.node for name in node.input)
    for node in made.graph.node:
        if node.op_type == "DequantizeLinear":
            assert readers[node.output[0]] == 1


def test_portable_runs_in_whole_numbers_on_onnx_runtime(
    residual: onnx.ModelProto, images: Array, tmp_path: Path
) -> None:
    made = to_int8(residual, [images])
    if platform.machine() not in ("x86_64", "AMD64", "aarch64"):
        pytest.skip(f"which kernels ONNX Runtime has on {platform.machine()} is not known")
    run = optimised(made, tmp_path / "portable.onnx")
    assert run["QLinearConv"] == 3
    assert run["Conv"] == run["FusedConv"] == 0
    # Equal scales would be one pair of two readers, which it leaves in float32 on x86.
    scales = [
        constants(made)[node.input[1]]
        for node in made.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] == "b"
    ]
    assert len({float(scale) for scale in scales}) == len(scales) == 2
    np.testing.assert_allclose(scales[0], scales[1], rtol=3e-7)


def test_onnx_runtime_gets_uint8_without_relus(
    residual: onnx.ModelProto, images: Array, tmp_path: Path
) -> None:
    made = to_int8(residual, [images], dialect="onnxruntime")
    assert ops(made)["Relu"] == 0
    run = optimised(made, tmp_path / "onnxruntime.onnx")
    assert (run["QLinearConv"], run["QLinearAdd"]) == (3, 1)


@pytest.mark.parametrize("dialect", ["tensorrt", "onnxruntime"])
def test_a_quarter_of_the_size(linear: Linear, images: Array, dialect: str) -> None:
    weight = np.random.default_rng(0).standard_normal((192, 500)).astype(np.float32)
    graph = linear(weight)
    made = to_int8(graph, [images], dialect=dialect)
    assert len(to_bytes(made)) < 0.27 * len(to_bytes(graph))


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_takes_its_dialect(
    residual: onnx.ModelProto, images: Array, name: str
) -> None:
    chosen = target(name)
    graph = lower(parse(to_bytes(residual), "it"), chosen)
    made = to_int8(graph, [images], dialect=int8_dialect(chosen))
    assert [finding for finding in check(made, chosen) if finding.severity != "note"] == []


def test_targets_have_these_dialects() -> None:
    assert {name: int8_dialect(target(name)) for name in TARGETS} == {
        "portable": "portable",
        "jetpack-5.1": "tensorrt-8",
        "jetpack-6.0": "tensorrt-8",
        "jetpack-6.2": "tensorrt",
        "jetpack-7.0": "tensorrt",
        "jetpack-7.2": "tensorrt",
        "tensorrt-11": "tensorrt",
        "onnxruntime": "onnxruntime",
    }

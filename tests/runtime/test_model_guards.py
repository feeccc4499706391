# SPDX-License-Identifier: Apache-2.0
"""What a model refuses to do: run elsewhere than asked, or answer NaN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Contract, GraphInfo, Head, open_model
from edge_imprint_runtime.contract import encode
from edge_imprint_runtime.errors import (
    EdgeImprintError,
    LabelCountError,
    ModelFileError,
    NonFiniteScoresError,
    ParameterError,
    ProviderError,
)

MakeHead = Callable[..., Head]

PIXELS = np.full((1, 16, 16, 3), 100, np.uint8)
AVAILABLE = onnxruntime.get_available_providers()


@pytest.mark.parametrize(
    ("backend", "provider"),
    [("cuda", "CUDAExecutionProvider"), ("tensorrt", "TensorrtExecutionProvider")],
)
def test_an_absent_provider_is_never_replaced(
    tiny_model: Path, tmp_path: Path, backend: str, provider: str
) -> None:
    if provider in AVAILABLE:
        pytest.skip(f"this ONNX Runtime has {provider}")
    # Refused before the file is looked at, so no session of another provider was ever made.
    (tmp_path / "text").write_text("no model")
    for path in (tiny_model, tmp_path / "text"):
        with pytest.raises(ProviderError, match=f"this ONNX Runtime has no {provider}"):
            open_model(path, backend)


def test_auto_is_the_cpu_where_there_is_no_cuda(tiny_model: Path) -> None:
    if "CUDAExecutionProvider" in AVAILABLE:
        pytest.skip("this ONNX Runtime has CUDA")
    assert open_model(tiny_model).provider == "CPUExecutionProvider"
    assert open_model(tiny_model, "auto").provider == "CPUExecutionProvider"


@pytest.mark.parametrize("backend", ["gpu", "CPU", "", "cpu ", "openvino"])
def test_an_unknown_backend(tiny_model: Path, backend: str) -> None:
    with pytest.raises(
        ParameterError, match="backend must be one of auto, cpu, cuda, tensorrt"
    ):
        open_model(tiny_model, backend)


@pytest.mark.parametrize("threads", [-1, 1_025, 1.0, True, "1"])
def test_impossible_threads(tiny_model: Path, threads: int) -> None:
    with pytest.raises(ParameterError, match="threads must be an integer from 0 to 1024"):
        open_model(tiny_model, "cpu", threads=threads)


def test_a_name_does_not_choose_the_format(tiny_model: Path, tmp_path: Path) -> None:
    # ONNX Runtime would read another format off it, which nobody had looked into before.
    named = tmp_path / "shop.ort"
    named.write_bytes(tiny_model.read_bytes())
    found, expected = (open_model(path, "cpu").predict(PIXELS) for path in (named, tiny_model))
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_threads_change_nothing(tiny_model: Path) -> None:
    one, two = (open_model(tiny_model, "cpu", threads=n).predict(PIXELS) for n in (1, 2))
    np.testing.assert_allclose(one.scores, two.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["proxies", "backbone/conv2.bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers(
    tiny_model: Path, tmp_path: Path, name: str, value: float
) -> None:
    proto = onnx.load(tiny_model)
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    weights = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.full_like(weights, value), name))
    (tmp_path / "m.onnx").write_bytes(to_bytes(proto))
    with pytest.raises(NonFiniteScoresError, match="NaN or infinity"):
        open_model(tmp_path / "m.onnx", "cpu").predict(PIXELS)


def write_model(
    path: Path,
    head: Head,
    *,
    inputs: int = 1,
    scores: tuple[int, list[str | int]] = (TensorProto.FLOAT, ["N", 3]),
    label: tuple[int, list[str | int]] = (TensorProto.INT32, ["N"]),
) -> Path:
    """Write a graph of constants that carries the metadata of a model but isn't one."""
    nodes, outputs = [], []
    for name, (kind, shape) in (("scores", scores), ("label", label)):
        values = np.zeros([1 if side == "N" else side for side in shape])
        constant = numpy_helper.from_array(
            values.astype(helper.tensor_dtype_to_np_dtype(kind)), name
        )
        nodes.append(helper.make_node("Constant", [], [name], value=constant))
        outputs.append(helper.make_tensor_value_info(name, kind, shape))
    images = [
        helper.make_tensor_value_info(f"images{i or ''}", TensorProto.UINT8, ["N", 16, 16, 3])
        for i in range(inputs)
    ]
    graph = helper.make_graph(nodes, "constants", images, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    contract = Contract(
        head.labels, head.rule, 8, "given", backbone=head.backbone, graph=GraphInfo("uint8", 1)
    )
    helper.set_model_props(model, encode(contract))
    path.write_bytes(to_bytes(model))
    return path


FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
FORGED: list[tuple[dict[str, object], type[EdgeImprintError]]] = [
    ({"inputs": 0}, ModelFileError),
    ({"inputs": 2}, ModelFileError),
    ({"scores": (FLOAT, [])}, ModelFileError),
    ({"scores": (FLOAT, [3])}, ModelFileError),
    ({"scores": (FLOAT, ["N", 1, 3])}, ModelFileError),
    ({"scores": (TensorProto.DOUBLE, ["N", 3])}, ModelFileError),
    ({"scores": (FLOAT, ["N", 2])}, LabelCountError),
    ({"label": (INT64, ["N"])}, ModelFileError),
    ({"label": (INT32, [])}, ModelFileError),
    ({"label": (INT32, ["N", 1])}, ModelFileError),
]


@pytest.mark.parametrize(("form", "error"), FORGED, ids=str)
def test_a_graph_of_another_form(
    make_head: MakeHead, tmp_path: Path, form: dict[str, object], error: type[EdgeImprintError]
) -> None:
    """Our metadata on a graph that is not ours, as another tool's surgery may leave it."""
    path = write_model(tmp_path / "forged.onnx", make_head(), **form)  # type: ignore[arg-type]
    with pytest.raises(error, match=r"forged\.onnx"):
        open_model(path)


def test_the_form_that_the_forged_ones_miss(make_head: MakeHead, tmp_path: Path) -> None:
    answers = open_model(write_model(tmp_path / "m.onnx", make_head())).predict(PIXELS)
    assert answers.scores.tolist() == [[0, 0, 0]]

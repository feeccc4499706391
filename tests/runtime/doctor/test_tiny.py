# SPDX-License-Identifier: Apache-2.0
"""The tiny model: the packaged file is what the script makes, and its answer is known."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edge_imprint_runtime.doctor import tiny


def test_the_packaged_file_is_what_the_script_makes() -> None:
    made = runpy.run_path(str(Path(__file__).with_name("make_tiny_model.py")))["make"]()
    assert tiny.FILE.read_bytes() == made
    assert len(made) < 1024


def test_every_device_reads_it() -> None:
    model = onnx.load(tiny.FILE)
    assert (model.ir_version, model.opset_import[0].version) == (7, 13)
    assert [node.op_type for node in model.graph.node] == [
        "Conv",
        "Relu",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    ]


def test_onnx_runtime_agrees_with_numpy() -> None:
    session = ort.InferenceSession(str(tiny.FILE), providers=["CPUExecutionProvider"])
    for pixels in (tiny.images(), np.random.default_rng(0).random((1, 3, 8, 8), np.float32)):
        (got,) = session.run(["scores"], {"images": pixels})
        np.testing.assert_allclose(got, tiny.answer(pixels), rtol=1e-5, atol=1e-6)


def test_the_answer_is_neither_even_nor_small() -> None:
    expected = tiny.answer(tiny.images())
    assert np.abs(np.diff(np.sort(expected.ravel()))).min() > 0.05
    assert np.abs(expected).max() > 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_right_answer_is_right_in_every_precision(dtype: type) -> None:
    assert tiny.is_right(tiny.answer(tiny.images()).astype(dtype))


def test_a_wrong_answer_is_wrong() -> None:
    right = tiny.answer(tiny.images())
    assert not tiny.is_right(np.zeros_like(right))
    assert not tiny.is_right(right[:, ::-1])
    assert not tiny.is_right(right[0])
    assert not tiny.is_right(right + 0.1)
    assert not tiny.is_right(np.where(np.arange(5) == 1, np.float32(np.nan), right))

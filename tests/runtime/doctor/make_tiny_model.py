# SPDX-License-Identifier: Apache-2.0
"""Makes the doctor's tiny model; run it to write the file that is packaged."""

from __future__ import annotations

from onnx import TensorProto, checker, helper, numpy_helper

from edge_imprint_runtime.doctor import tiny


def make() -> bytes:
    """Return the model: Conv, Relu, GlobalAveragePool, Flatten, Gemm."""
    values = helper.make_tensor_value_info
    w = {name: numpy_helper.from_array(array, name) for name, array in tiny.weights().items()}
    nodes = [
        helper.make_node(
            "Conv", ["images", "kernel", "kernel_bias"], ["c"], "conv", pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["m"], "mean"),
        helper.make_node("Flatten", ["m"], ["f"], "flatten"),
        helper.make_node(
            "Gemm", ["f", "matrix", "matrix_bias"], ["scores"], "scores", transB=1
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [values("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [values("scores", TensorProto.FLOAT, [1, 5])],
        list(w.values()),
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=7,
        producer_name="edge-imprint",
    )
    checker.check_model(model, full_check=True)
    made: bytes = model.SerializeToString(deterministic=True)
    return made


if __name__ == "__main__":
    tiny.FILE.write_bytes(make())
    print(f"{tiny.FILE.name}: {tiny.FILE.stat().st_size} bytes")

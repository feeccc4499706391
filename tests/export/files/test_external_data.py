# SPDX-License-Identifier: Apache-2.0
"""Weights beside a model are read, and nothing that lies elsewhere is ever opened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_imprint_export.files.guard import read_model
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.errors import ModelFileError, UnsafeModelError

WEIGHTS = np.random.default_rng(0).standard_normal((4, 2_000)).astype(np.float32)
BIAS = np.arange(2_000, dtype=np.float32)
X = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)

value = helper.make_tensor_value_info


def sound() -> onnx.ModelProto:
    """Return a model from ``x`` (N, 4) to ``y`` (N, 2000): MatMul, Add, Relu."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "product"),
        helper.make_node("Add", ["m", "b"], ["s"], "sum"),
        helper.make_node("Relu", ["s"], ["y"], "relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["N", 4])],
        [value("y", TensorProto.FLOAT, ["N", 2_000])],
        [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(BIAS, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    return OrtRunner(to_bytes(model), "cpu").run(["y"], X)[0]


def write(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def outside(path: Path, model: onnx.ModelProto, **entries: str) -> Path:
    """Write a model whose weights ``w`` lie in another file, and that file beside it."""
    (path.parent / "w.bin").write_bytes(bytes(16) + WEIGHTS.tobytes())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    told = {"location": "w.bin", "offset": "16", "length": str(WEIGHTS.nbytes)} | entries
    for key, text in told.items():
        tensor.external_data.add(key=key, value=text)
    return write(path, model)


def test_weights_beside_are_read_in(tmp_path: Path) -> None:
    model = read_model(outside(tmp_path / "m.onnx", sound()))
    (tmp_path / "w.bin").unlink()
    assert to_bytes(model) == to_bytes(sound())


def test_weights_in_a_folder_inside_and_by_a_link_that_stays_inside(tmp_path: Path) -> None:
    path = outside(tmp_path / "m.onnx", sound(), location="sub/w.bin")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").symlink_to(tmp_path / "w.bin")
    assert to_bytes(read_model(path)) == to_bytes(sound())


def test_a_constant_and_weights_of_a_subgraph_outside(tmp_path: Path) -> None:
    """Other places where numbers can lie; the bytes are onnx's own doing."""
    model = sound()
    inner = helper.make_graph(
        [helper.make_node("Identity", ["v"], ["o"])],
        "inner",
        [],
        [value("o", TensorProto.FLOAT, [2_000])],
        [numpy_helper.from_array(BIAS, "v")],
    )
    flag = numpy_helper.from_array(np.array(True), "flag")
    model.graph.initializer.append(flag)
    del model.graph.initializer[1]  # b
    model.graph.node.insert(
        0, helper.make_node("If", ["flag"], ["b"], then_branch=inner, else_branch=inner)
    )
    constant = helper.make_node(
        "Constant", [], ["w"], value=numpy_helper.from_array(WEIGHTS, "")
    )
    del model.graph.initializer[0]
    model.graph.node.insert(0, constant)
    whole = run(model)
    for tensor, data in (
        (model.graph.node[0].attribute[0].t, WEIGHTS),
        (model.graph.node[1].attribute[0].g.initializer[0], BIAS),
        (model.graph.node[1].attribute[1].g.initializer[0], BIAS),
    ):
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"{len(data.shape)}.bin")
        (tmp_path / f"{len(data.shape)}.bin").write_bytes(data.tobytes())
    np.testing.assert_array_equal(run(read_model(write(tmp_path / "m.onnx", model))), whole)


# Weights that lie elsewhere ------------------------------------------------------------------

TOLD = "{path} keeps numbers of 'w' in {location!r}, "
ELSEWHERE = TOLD + "which is no file in its own folder; put the weights beside the model"
MISFIT = TOLD + "at an offset and length that don't fit its shape; export it again"

EXTERNAL: dict[str, tuple[dict[str, str], str]] = {
    "above": ({"location": "../secret.bin"}, ELSEWHERE),
    "above, roundabout": ({"location": "sub/../../secret.bin"}, ELSEWHERE),
    "above, in Windows' way": ({"location": "..\\secret.bin"}, ELSEWHERE),
    "absolute": ({"location": "/etc/hostname"}, ELSEWHERE),
    "nowhere": ({"location": ""}, ELSEWHERE),
    "a NUL byte": ({"location": "w.bin\0"}, ELSEWHERE),
    "a link out": (
        {"location": "link.bin"},
        TOLD + "a link out of its own folder; put the weights beside the model",
    ),
    "a linked folder": (
        {"location": "linked/secret.bin"},
        TOLD + "a link out of its own folder; put the weights beside the model",
    ),
    "the folder itself": (
        {"location": "."},
        TOLD + "a link out of its own folder; put the weights beside the model",
    ),
    "a folder": ({"location": "sub"}, TOLD + "which is no regular file; export it again"),
    "a pipe": ({"location": "pipe"}, TOLD + "which is no regular file; export it again"),
    "too short": (
        {"offset": "17"},
        TOLD + "which has 32,016 bytes where 32,017 are needed; copy it again, whole",
    ),
    "far beyond": (
        {"offset": "9" * 19},
        TOLD + "which has 32,016 bytes where 10,000,000,000,000,031,999 are needed; "
        "copy it again, whole",
    ),
    "an offset below zero": ({"offset": "-16"}, MISFIT),
    "an offset that is no number": ({"offset": "1_6"}, MISFIT),
    "a length too small": ({"length": "16"}, MISFIT),
    "a length too large": ({"length": "32001"}, MISFIT),
}


@pytest.mark.parametrize(("entries", "sentence"), EXTERNAL.values(), ids=EXTERNAL.keys())
def test_weights_outside_the_folder_or_of_other_bounds(
    tmp_path: Path, entries: dict[str, str], sentence: str
) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(bytes(100_000))
    (folder / "link.bin").symlink_to("../secret.bin")
    (folder / "linked").symlink_to("..")
    os.mkfifo(folder / "pipe")
    path = outside(folder / "m.onnx", sound(), **entries)
    with pytest.raises(UnsafeModelError) as caught:
        read_model(path)
    location = entries.get("location", "w.bin")
    assert str(caught.value) == sentence.format(path=path, location=location)


def test_nothing_outside_is_opened(tmp_path: Path) -> None:
    """What the system was asked to open, seen by the interpreter's own audit."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(100_000))
    (folder / "link.bin").symlink_to("../secret.bin")
    path = outside(folder / "m.onnx", sound(), location="link.bin")
    code = (
        "import sys\n"
        "from edge_imprint_export.files.guard import read_model\n"
        "from edge_imprint_runtime.errors import UnsafeModelError\n"
        "opened = []\n"
        "sys.addaudithook(lambda name, args: name == 'open' and opened.append(str(args[0])))\n"
        "try:\n"
        "    read_model(sys.argv[1])\n"
        "except UnsafeModelError:\n"
        "    print([name for name in opened if 'link' in name or 'secret' in name], opened)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("[] [")
    assert "m.onnx" in done.stdout


def test_missing_weights(tmp_path: Path) -> None:
    path = outside(tmp_path / "m.onnx", sound(), location="gone.bin")
    with pytest.raises(ModelFileError) as caught:
        read_model(path)
    assert str(caught.value) == (
        f"cannot read {path}: its weights 'gone.bin' can't be read "
        "(No such file or directory); put them beside the model"
    )


def two_outside(path: Path, offset: int, length: int) -> Path:
    """Write a model of which both weights lie in ``w.bin``, the bias at an offset."""
    model = sound()
    bias = model.graph.initializer[1]
    bias.ClearField("raw_data")
    bias.data_location = TensorProto.EXTERNAL
    for key, text in (("location", "./w.bin"), ("offset", offset), ("length", length)):
        bias.external_data.add(key=key, value=str(text))
    return outside(path, model)


def test_weights_that_overlap(tmp_path: Path) -> None:
    with pytest.raises(UnsafeModelError) as caught:
        read_model(two_outside(tmp_path / "m.onnx", 12, BIAS.nbytes))
    assert str(caught.value) == (
        f"{tmp_path / 'm.onnx'} has weights that overlap in 'w.bin'; export it again"
    )


def test_weights_that_are_one_and_the_same_are_tied(tmp_path: Path) -> None:
    model = sound()
    model.graph.initializer.append(numpy_helper.from_array(WEIGHTS, "w2"))
    tied = model.graph.initializer[2]
    tied.ClearField("raw_data")
    for key, text in (("location", "w.bin"), ("offset", "16")):
        tied.external_data.add(key=key, value=text)
    read = read_model(outside(tmp_path / "m.onnx", model))
    assert read.graph.initializer[2].raw_data == WEIGHTS.tobytes()


def test_one_small_file_that_would_be_read_over_and_over(tmp_path: Path) -> None:
    model = sound()
    (tmp_path / "w.bin").write_bytes(b"")
    with open(tmp_path / "hole.bin", "wb") as file:
        file.truncate(2**30)  # no bytes on the disk
    for name in ("one", "two", "three"):
        tensor = TensorProto(name=name, dims=[2**30], data_type=TensorProto.UINT8)
        tensor.external_data.add(key="location", value="hole.bin")
        model.graph.initializer.append(tensor)
    path = write(tmp_path / "m.onnx", model)
    with pytest.raises(UnsafeModelError) as caught:
        read_model(path)
    assert str(caught.value) == (
        f"{path} keeps more than 2,147,483,647 bytes of weights in other files, and one ONNX "
        "file holds no more; use a smaller model"
    )

# SPDX-License-Identifier: Apache-2.0
"""The way from an ONNX file to an engine, against stand-ins of five TensorRTs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import BackboneInfo, Frame, Head, Preprocess, open_model
from edge_imprint_runtime.backends.cuda import Cuda
from edge_imprint_runtime.engine import (
    compile_again,
    compile_engine,
    read_sidecar,
    sidecar_path,
)
from edge_imprint_runtime.engine.waiting import FIRST_RUN
from edge_imprint_runtime.errors import (
    DeviceError,
    DeviceMemoryError,
    EngineBuildError,
    EngineFileError,
    EngineMismatchError,
    MissingPackageError,
    ModelFileError,
    NoContractError,
    OutputExistsError,
    OutputWriteError,
    ParameterError,
    TargetError,
)
from tests.standins import Plan, World, tensorrt_standin

FORMS = ("plain", "teachable", "fp16", "int8", "half head", "calibrated", "frames")


def write(folder: Path, data: bytes, name: str = "model.onnx") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def facts_of(engine: Path) -> dict[str, Any]:
    return Plan.unpack(engine.read_bytes()).facts


# What is built -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_compiled_by_every_version(
    world: World, forms: dict[str, bytes], tmp_path: Path, form: str
) -> None:
    model, out = write(tmp_path, forms[form]), tmp_path / "model.engine"
    made = compile_engine(model, out)
    assert read_sidecar(out) == made
    assert made.tensorrt == world.version
    # What TensorRT 8.5 writes holds no version.
    assert made.plan_tensorrt == (world.version if world.numbers >= (8, 6) else None)
    assert (made.gpu_name, made.compute_capability) == ("Orin", "8.7")
    assert made.model_file == "model.onnx"
    assert made.precision == {"fp16": "fp16", "int8": "int8"}.get(form, "fp32")
    assert made.strongly_typed == (world.numbers >= (10, 12))
    plan = Plan.unpack(out.read_bytes())
    assert plan.onnx == forms[form]
    assert plan.facts["verbosity"] == "DETAILED"
    assert "TF32" not in plan.facts["flags"]
    # The shapes of what may vary; what is fixed TensorRT knows.
    varies = {name: list(map(list, shapes)) for name, shapes in made.profile.items()}
    assert plan.facts["profile"].items() <= varies.items()
    assert next(iter(made.inputs)) == next(iter(made.profile)) == "images"
    assert made.batch == (1, 1, 8)
    # No raw number of a flag: what was asked for came out under its name.
    weak = {"fp16": ["FP16"], "half head": ["FP16"], "int8": ["INT8"]}.get(form, [])
    weak += ["OBEY_PRECISION_CONSTRAINTS"] if "FP16" in weak else []
    assert list(made.builder_flags) == ([] if made.strongly_typed else sorted(weak))
    assert set(made.builder_flags) <= set(plan.facts["flags"])


def test_networks_are_made_with_the_flags_of_their_version(world: World, model: Path) -> None:
    compile_engine(model, model.with_suffix(".engine"))
    want = {8: 0b1, 10: 0b10 if world.numbers >= (10, 12) else 0, 11: 0b1}
    assert world.called("create_network") == [(want[world.numbers[0]],)]


def test_what_is_float32_in_a_half_graph_is_held_to_it(
    world: World, forms: dict[str, bytes], tmp_path: Path
) -> None:
    model, out = write(tmp_path, forms["fp16"]), tmp_path / "model.engine"
    compile_engine(model, out)
    held = facts_of(out)["held"]
    if world.numbers >= (10, 12):
        assert held == {}  # the types are the graph's
        return
    kinds = {v.name: v.type.tensor_type.elem_type for v in typed(forms["fp16"])}
    arithmetic = [
        node
        for node in onnx.load_from_string(forms["fp16"]).graph.node
        if node.op_type not in ("Cast", "ArgMax") and kinds.get(node.output[0]) == 1
    ]
    names = {node.name for node in arithmetic}
    assert {"head/norm/ReduceL2", "head/similarity/MatMul", "scores/ReduceMax"} <= names
    assert {name for name in held if not name.startswith("(")} == names
    assert set(map(tuple, held.values())) == {("precision FLOAT", "output 0 FLOAT")}
    # What a node's broadcast became, a layer without a name of ours, is held with it.
    order = list(onnx.load_from_string(forms["fp16"]).graph.node)
    wide = [i for i, n in enumerate(order) if n.op_type in ("Sub", "Div", "Max")]
    helpers = {f"(Unnamed Layer* {i}) [Shuffle]" for i in wide if order[i].name in names}
    assert {name for name in held if name.startswith("(")} == helpers
    assert helpers


def typed(data: bytes) -> list[Any]:
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(data)).graph
    return [*graph.value_info, *graph.output]


def test_a_teachable_model_may_grow(
    world: World, forms: dict[str, bytes], tmp_path: Path
) -> None:
    model, out = write(tmp_path, forms["teachable"]), tmp_path / "model.engine"
    made = compile_engine(model, out, batch=(1, 2, 4))
    assert made.profile == {
        "images": ((1, 16, 16, 3), (2, 16, 16, 3), (4, 16, 16, 3)),
        "proxies": ((8, 4), (8, 12), (8, 32)),
    }
    assert facts_of(out)["profile"]["proxies"] == [[8, 4], [8, 12], [8, 32]]


def test_frames_of_any_size_are_compiled_for_one(
    one_world: World,
    flat_backbone: Callable[..., bytes],
    tmp_path: Path,
    make_head: Callable[..., Head],
) -> None:
    info = BackboneInfo("flat", "packaged", "0" * 64, Preprocess(1, 4, interpolation="linear"))
    head = make_head(dim=12, backbone=info)
    data = to_bytes(fuse(flat_backbone(12), head, input="frame", frame=Frame("rgb")))
    model, out = write(tmp_path, data), tmp_path / "model.engine"
    with pytest.raises(ParameterError) as caught:
        compile_engine(model, out)
    assert str(caught.value) == (
        f"{model} takes frames of any size, and an engine is built for one; give it as "
        "--frame-size WIDTHxHEIGHT"
    )
    made = compile_engine(model, out, frame_size=(48, 64))
    assert made.profile["images"] == ((1, 48, 64, 3), (1, 48, 64, 3), (8, 48, 64, 3))
    assert compile_again(out).profile == made.profile


# What goes wrong ---------------------------------------------------------------------------


def test_without_tensorrt(model: Path) -> None:
    with pytest.raises(MissingPackageError) as caught:
        compile_engine(model, model.with_suffix(".engine"))
    assert str(caught.value) == (
        "compiling an engine needs the package 'tensorrt', which is not installed here; run: "
        "pip install 'edge-imprint[tensorrt]'"
    )


def test_without_a_gpu(world: World, model: Path) -> None:
    world.devices = 0
    with pytest.raises(DeviceError) as caught:
        compile_engine(model, model.with_suffix(".engine"))
    assert "\n" not in str(caught.value)


def test_a_none_becomes_what_the_logger_was_told(world: World, model: Path) -> None:
    world.faults["build_serialized_network"] = "Error Code 10: could not find any\nkernel"
    out = model.with_suffix(".engine")
    with pytest.raises(EngineBuildError) as caught:
        compile_engine(model, out)
    assert str(caught.value) == (
        f"TensorRT {world.version} can't build an engine of {model}: Error Code 10: could not "
        "find any kernel"
    )
    assert not out.exists()
    assert not sidecar_path(out).exists()


def test_too_little_memory_has_an_error_of_its_own(one_world: World, model: Path) -> None:
    one_world.faults["build_serialized_network"] = "Cuda Runtime (out of memory)"
    with pytest.raises(DeviceMemoryError) as caught:
        compile_engine(model, model.with_suffix(".engine"))
    assert str(caught.value) == (
        f"TensorRT 10.3.0.30 can't build an engine of {model}: Cuda Runtime (out of memory); "
        "free memory of the GPU, or give a smaller --batch or --workspace"
    )


def test_what_the_parser_can_not_read_is_named(world: World, model: Path) -> None:
    world.faults["parse"] = "Assertion failed: all is wrong"
    with pytest.raises(EngineBuildError) as caught:
        compile_engine(model, model.with_suffix(".engine"))
    node = "node 'preprocess/float/Cast' (Cast)" if world.numbers >= (10,) else "node 0"
    assert str(caught.value) == (
        f"TensorRT {world.version} can't read {model}: {node}: Assertion failed: all is "
        "wrong; 'edge-imprint check' tells what a target refuses"
    )


def test_a_model_of_another_target_is_told_where_to_go(
    world: World, tiny_backbone: bytes, make_head: Callable[..., Head], tmp_path: Path
) -> None:
    data = to_bytes(
        fuse(tiny_backbone, make_head(), head_precision="int8", target="onnxruntime")
    )
    model = write(tmp_path, data)
    with pytest.raises(TargetError) as caught:
        compile_engine(model, tmp_path / "e")
    target = {
        "8.5.3.1": "jetpack-5.1",
        "8.6.2.3": "jetpack-6.0",
        "10.3.0.30": "jetpack-6.2",
        "10.13.3.9": "jetpack-7.0",
        "11.1.0.0": "tensorrt-11",
    }[world.version]
    assert str(caught.value) == (
        f"{model} (exported for 'onnxruntime') has the operator MatMulInteger, which no "
        f"TensorRT reads; export it again with: edge-imprint export --target {target}"
    )
    assert not world.called("parse")


def test_a_model_that_is_none_of_ours_or_no_model(
    one_world: World, tmp_path: Path, tiny_backbone: bytes
) -> None:
    foreign = onnx.load_from_string(tiny_backbone)
    foreign.graph.node.add(op_type="Identity", input=["embedding"], output=["other"])
    foreign.graph.output[0].name = "other"
    with pytest.raises(NoContractError):
        compile_engine(write(tmp_path, foreign.SerializeToString()), tmp_path / "e")
    with pytest.raises(ModelFileError):
        compile_engine(write(tmp_path, b"no model"), tmp_path / "e")
    with pytest.raises(ModelFileError, match="there is no such file"):
        compile_engine(tmp_path / "gone.onnx", tmp_path / "e")


def test_a_hostile_file_is_refused_before_it_is_read(
    one_world: World, forms: dict[str, bytes], tmp_path: Path
) -> None:
    made = onnx.load_from_string(forms["plain"])
    made.graph.initializer[0].dims[0] = 10**9
    with pytest.raises(Exception, match="which is not what its numbers fill"):
        compile_engine(write(tmp_path, made.SerializeToString()), tmp_path / "e")
    assert not one_world.called("parse")


# Writing -----------------------------------------------------------------------------------


def test_an_engine_is_not_replaced_unasked(engine: tuple[Path, Any], model: Path) -> None:
    out, _ = engine
    before = out.read_bytes()
    with pytest.raises(OutputExistsError):
        compile_engine(model, out)
    sidecar_path(out).unlink()
    out.unlink()
    sidecar_path(out).write_text("{}")
    with pytest.raises(OutputExistsError):
        compile_engine(model, out)
    assert not out.exists()
    compile_engine(model, out, force=True)
    assert out.read_bytes() == before


def test_the_model_itself_is_never_replaced(one_world: World, model: Path) -> None:
    before = model.read_bytes()
    with pytest.raises(OutputWriteError, match="it is what this is made from"):
        compile_engine(model, model, force=True)
    assert model.read_bytes() == before


def test_a_crash_between_both_files_leaves_what_is_refused(
    engine: tuple[Path, Any], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, old = engine
    from edge_imprint_runtime.engine import store

    def crash(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_sidecar", crash)
    with pytest.raises(KeyboardInterrupt):
        compile_engine(model, out, batch=(1, 2, 4), force=True)
    from edge_imprint_runtime.engine.fits import read_engine

    assert read_sidecar(out) == old
    with pytest.raises(EngineFileError, match="is not the engine that the file beside it"):
        read_engine(out, old)


def test_no_folder_or_no_space(
    one_world: World, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputWriteError, match="there is no folder"):
        compile_engine(model, tmp_path / "gone" / "e")
    assert not one_world.called("parse")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.warns(RuntimeWarning, match="timings of this build are not kept"),
        pytest.raises(OutputWriteError, match="no space left on device"),
    ):
        compile_engine(model, tmp_path / "e")
    assert not (tmp_path / "e").exists()
    assert not list(tmp_path.glob(".*.tmp"))


# Again -------------------------------------------------------------------------------------


def test_a_stale_engine_is_compiled_again_as_it_was(
    model: Path, forms: dict[str, bytes]
) -> None:
    out = model.with_suffix(".engine")
    with tensorrt_standin("10.3.0.30"):
        old = compile_engine(
            model,
            out,
            batch=(1, 2, 4),
            workspace_bytes=2**22,
            version_compatible=True,
            refittable=True,
            optimization_level=1,
            contexts=2,
        )
    with tensorrt_standin("10.13.3.9", gpu_name="Thor", compute_capability=(11, 0)):
        new = compile_again(out)
    assert (new.tensorrt, new.gpu_name) == ("10.13.3.9", "Thor")
    for name in (
        "profile",
        "workspace_bytes",
        "version_compatible",
        "refittable",
        "optimization_level",
        "contexts",
        "model_sha256",
    ):
        assert getattr(new, name) == getattr(old, name), name
    assert read_sidecar(out) == new
    model.unlink()
    with tensorrt_standin("8.5.3.1"), pytest.raises(EngineFileError) as caught:
        compile_again(out)
    assert str(caught.value) == (
        f"{out} is to be compiled again, and its ONNX file {model} is gone; put it back, or "
        f"run: edge-imprint compile MODEL --out {out} --force"
    )


def test_a_fixed_batch_is_kept(
    one_world: World, forms: dict[str, bytes], tmp_path: Path
) -> None:
    made = onnx.load_from_string(forms["plain"])
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    model, out = write(tmp_path, made.SerializeToString()), tmp_path / "model.engine"
    assert compile_engine(model, out).batch == (4, 4, 4)
    assert compile_again(out).batch == (4, 4, 4)
    with pytest.raises(ParameterError) as caught:
        compile_engine(model, out, batch=(1, 1, 4), force=True)
    assert str(caught.value) == (
        f"{model} takes 4 images at a time, got batch 1,1,4; leave it out"
    )


def test_the_numbers_of_the_model_are_the_engines(
    one_world: World, engine: tuple[Path, Any], model: Path
) -> None:
    import onnxruntime

    out, _ = engine
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    answers = [
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(
            None, {"images": images}
        )
        for data in (model.read_bytes(), Plan.unpack(out.read_bytes()).onnx)
    ]
    for one, other in zip(*answers, strict=True):
        assert np.array_equal(one, other)


def test_a_name_that_is_no_text_is_kept(one_world: World, model: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(model.parent) + b"/caf\xe9"))
    folder.mkdir()
    named = model.rename(folder / model.name)
    made = compile_engine(named, model.with_suffix(".engine"))
    assert read_sidecar(model.with_suffix(".engine")) == made
    assert model.parent / made.model_file == named


def test_behind_a_link_to_its_folder_an_engine_knows_its_model(
    one_world: World, model: Path
) -> None:
    (model.parent / "real" / "deep").mkdir(parents=True)
    (model.parent / "link").symlink_to(model.parent / "real" / "deep")
    engine = model.parent / "link" / "m.engine"
    made = compile_engine(model, engine)
    assert made.model_file == "../../model.onnx"
    model.write_bytes(model.read_bytes() + b"\x32\x00")
    with pytest.raises(EngineMismatchError, match="was compiled of another"):
        open_model(engine)


def test_building_again_is_announced(
    one_world: World, engine: tuple[Path, Any], model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model.write_bytes(model.read_bytes() + b"\x32\x00")
    open_model(engine[0], rebuild=True).close()
    assert caplog.messages == [FIRST_RUN]


def test_the_build_is_on_the_gpu_that_the_caller_chose(
    one_world: World, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorrt

    one_world.devices, found = 2, []
    build = tensorrt.Builder.build_serialized_network

    def spy(*given: Any) -> Any:
        found.append(Cuda().call("cudaGetDevice"))
        return build(*given)

    monkeypatch.setattr(tensorrt.Builder, "build_serialized_network", spy)
    Cuda().call("cudaSetDevice", 1)
    compile_engine(model, model.with_suffix(".engine"))
    assert found == [1]

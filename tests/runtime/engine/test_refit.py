# SPDX-License-Identifier: Apache-2.0
"""Other proxies in an engine that was built already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_imprint_export import fuse
from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_export.precision.half import to_half
from edge_imprint_runtime import Head, Teachable
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.engine import compile_engine, read_sidecar, refit_engine
from edge_imprint_runtime.errors import (
    EngineBuildError,
    EngineFileError,
    EngineMismatchError,
    OutputExistsError,
    UnsupportedOptionError,
)
from tests.standins import Plan, World, tensorrt_standin


@pytest.fixture
def make(
    tiny_backbone: bytes, make_head: Callable[..., Head], tmp_path: Path
) -> Callable[..., Path]:
    """Return ``make(name, seed=, **head options)``: a model, of calibrated ragged heads."""

    def made(name: str, *, options: dict[str, Any] | None = None, **head: Any) -> Path:
        head = {"calibrated": True, "center": True, "transform": True, "seed": 1} | head
        data = to_bytes(fuse(tiny_backbone, make_head(**head), **(options or {})))
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return made


def answers(data: bytes) -> list[np.ndarray[Any, Any]]:
    images = np.random.default_rng(3).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    return OrtRunner(data, "cpu").run(["scores", "label", "probability"], images)


def test_a_refitted_engine_is_one_of_the_new_model(
    world: World, make: Callable[..., Path], tmp_path: Path
) -> None:
    old, new = make("old.onnx"), make("new.onnx", seed=6)
    built = compile_engine(old, tmp_path / "old.engine", refittable=True)
    flag = "REFIT_INDIVIDUAL" if world.numbers >= (10,) else "REFIT"
    assert built.builder_flags == (flag,)
    can = set(Plan.unpack((tmp_path / "old.engine").read_bytes()).facts["refittable"])
    assert can >= built.head.keys() >= {"proxies", "center", "transform", "threshold"}
    assert (can == built.head.keys()) == (world.numbers >= (10,))  # else all weights
    made = refit_engine(tmp_path / "old.engine", new, tmp_path / "new.engine")
    assert read_sidecar(tmp_path / "new.engine") == made
    got = answers(Plan.unpack((tmp_path / "new.engine").read_bytes()).onnx)
    for one, other in zip(got, answers(new.read_bytes()), strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(got[0], answers(old.read_bytes())[0])
    assert made.metadata == OrtRunner(new.read_bytes(), "cpu").metadata
    assert made.model_file == "new.onnx"
    assert made.profile == built.profile
    assert len(world.called("build_serialized_network")) == 1  # built nothing again


def test_an_engine_may_replace_itself(
    one_world: World, make: Callable[..., Path], tmp_path: Path
) -> None:
    model, out = make("m.onnx"), tmp_path / "m.engine"
    compile_engine(model, out, refittable=True)
    make("m.onnx", seed=6)  # the file that the sidecar names, exported again
    with pytest.raises(OutputExistsError):
        refit_engine(out, model, out)
    refit_engine(out, model, out, force=True)
    assert np.array_equal(
        answers(Plan.unpack(out.read_bytes()).onnx)[0], answers(model.read_bytes())[0]
    )


@pytest.mark.parametrize(
    ("options", "head", "reason"),
    [
        ({}, {"classes": 4}, "{new} has the shape [11, 8] of 'proxies' where {old} has"),
        ({}, {"calibrated": False}, "{new} has nothing of 'temperature' where {old} has the"),
        (
            {"head_precision": "fp16"},
            {},
            "{new} has the shape",
        ),
        (
            {"outputs": ("scores", "label", "proxy")},
            {},
            "{new} differs from {old} in more than its head's numbers (its precision, rule, ",
        ),
        ({}, {"norm": "none"}, "{new} differs from {old} in more than its head's numbers"),
    ],
)
def test_what_is_fixed_in_an_engine_stays(
    one_world: World,
    make: Callable[..., Path],
    tmp_path: Path,
    options: dict[str, Any],
    head: dict[str, Any],
    reason: str,
) -> None:
    old, out = make("old.onnx"), tmp_path / "old.engine"
    compile_engine(old, out, refittable=True)
    new = make("new.onnx", options=options, **head)
    with pytest.raises(EngineMismatchError) as caught:
        refit_engine(out, new, tmp_path / "new.engine")
    assert str(caught.value).startswith(reason.format(new=new, old=out))
    assert not (tmp_path / "new.engine").exists()
    assert not one_world.called("deserialize")


def test_another_backbone_or_precision(
    one_world: World,
    make: Callable[..., Path],
    tmp_path: Path,
    tiny_backbone: bytes,
    make_head: Callable[..., Head],
) -> None:
    import dataclasses

    old, out, new = make("old.onnx"), tmp_path / "old.engine", tmp_path / "new.onnx"
    compile_engine(old, out, refittable=True)
    head = make_head(calibrated=True, center=True, transform=True, seed=1)
    half = to_half(parse(tiny_backbone, "b"))
    new.write_bytes(to_bytes(fuse(half, head, precision="fp16")))
    with pytest.raises(EngineMismatchError, match=r"differs from .* in more than its head's"):
        refit_engine(out, new, tmp_path / "new.engine")
    assert head.backbone is not None
    other = dataclasses.replace(head.backbone, digest="f" * 64)
    head = make_head(calibrated=True, center=True, transform=True, seed=1, backbone=other)
    new.write_bytes(to_bytes(fuse(tiny_backbone, head)))
    with pytest.raises(EngineMismatchError) as caught:
        refit_engine(out, new, tmp_path / "new.engine")
    assert str(caught.value) == (
        f"{new} has another backbone than {out}; compile it: edge-imprint compile MODEL --out "
        "ENGINE"
    )


def test_an_engine_that_was_not_built_for_it(
    engine: tuple[Path, Any], model: Path, tmp_path: Path
) -> None:
    out, _ = engine
    with pytest.raises(EngineMismatchError) as caught:
        refit_engine(out, model, tmp_path / "new.engine")
    assert str(caught.value) == (
        f"{out} was compiled without --refittable, so that nothing in it can be replaced; "
        "compile MODEL with it"
    )


def test_an_engine_of_another_machine(
    one_world: World, make: Callable[..., Path], tmp_path: Path
) -> None:
    model, out = make("m.onnx"), tmp_path / "m.engine"
    compile_engine(model, out, refittable=True)
    with (
        tensorrt_standin("10.13.3.9"),
        pytest.raises(EngineMismatchError, match=r"was built by TensorRT 10\.3\.0\.30"),
    ):
        refit_engine(out, model, tmp_path / "new.engine")
    out.write_bytes(out.read_bytes()[:-1])
    with pytest.raises(EngineFileError, match="is not the engine that the file beside it"):
        refit_engine(out, model, tmp_path / "new.engine")


def test_what_was_fused_with_the_head_is_given_again(
    world: World, make: Callable[..., Path], tmp_path: Path
) -> None:
    old, new, out = make("old.onnx"), make("new.onnx", seed=6), tmp_path / "old.engine"
    compile_engine(old, out, refittable=True)
    world.fused = {"center": ("backbone/conv2.bias",)}
    if world.numbers >= (10,):  # it can't be, since only the head's were marked
        with pytest.raises(EngineBuildError, match=r"wants 'backbone/conv2.bias'"):
            refit_engine(out, new, tmp_path / "new.engine")
        return
    refit_engine(out, new, tmp_path / "new.engine")
    got = answers(Plan.unpack((tmp_path / "new.engine").read_bytes()).onnx)
    assert np.array_equal(got[0], answers(new.read_bytes())[0])


def test_a_refit_that_fails_says_why(
    one_world: World, make: Callable[..., Path], tmp_path: Path
) -> None:
    model, out = make("m.onnx"), tmp_path / "m.engine"
    compile_engine(model, out, refittable=True)
    one_world.faults["refit_cuda_engine"] = "all is lost"
    with pytest.raises(EngineBuildError) as caught:
        refit_engine(out, model, tmp_path / "new.engine")
    assert str(caught.value) == (
        f"TensorRT 10.3.0.30 can't refit the engine with {model}: all is lost"
    )
    assert not (tmp_path / "new.engine").exists()


def test_a_model_without_numbers_of_its_own(
    one_world: World, make: Callable[..., Path], tmp_path: Path
) -> None:
    teachable = {"teachable": Teachable("input", 8, 2), "target": "jetpack-6.2"}
    model = make("m.onnx", options=teachable)
    with pytest.raises(UnsupportedOptionError) as caught:
        compile_engine(model, tmp_path / "m.engine", refittable=True)
    assert str(caught.value) == (
        f"{model} has no head whose numbers could be replaced in an engine; leave refittable "
        "(--refittable) out"
    )

# SPDX-License-Identifier: Apache-2.0
"""What is asked of a build reaches TensorRT, or is refused in one sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edge_imprint_runtime.engine import build as build_module
from edge_imprint_runtime.engine import compile_engine
from edge_imprint_runtime.errors import ParameterError, UnsupportedOptionError
from tests.standins import Plan, World

ALL = "hardware_compatible must be one of none, ampere+, same_compute_capability, got 'all'"
BATCH = (
    "batch must be the fewest, usual and most images, such as 1,1,8, in this order and from "
    "1 to 4096, got 2,1,8"
)


def facts_of(engine: Path) -> dict[str, Any]:
    return Plan.unpack(engine.read_bytes()).facts


def test_options_reach_tensorrt(world: World, model: Path) -> None:
    out = model.with_suffix(".engine")
    compile_engine(model, out, workspace_bytes=2**21, own_kernels=True)
    facts = facts_of(out)
    assert facts["workspace"] == 2**21
    assert facts["sources"] == (0b11 if world.numbers >= (11,) else 0b11000)


NEWER: list[tuple[dict[str, Any], str, tuple[int, int], str]] = [
    ({"version_compatible": True}, "version-compatible engines", (8, 6), "8.6"),
    ({"optimization_level": 5}, "an optimisation level", (8, 6), "8.6"),
    (
        {"hardware_compatible": "ampere+"},
        "engines for other GPUs (ampere+)",
        (8, 6),
        "8.6",
    ),
    (
        {"hardware_compatible": "same_compute_capability"},
        "engines for other GPUs (same_compute_capability)",
        (10, 13),
        "10.13",
    ),
]


@pytest.mark.parametrize(("option", "what", "since", "text"), NEWER)
def test_an_option_that_a_version_lacks_is_refused(
    world: World,
    model: Path,
    option: dict[str, Any],
    what: str,
    since: tuple[int, int],
    text: str,
) -> None:
    out = model.with_suffix(".engine")
    if world.numbers < since:
        with pytest.raises(UnsupportedOptionError) as caught:
            compile_engine(model, out, **option)
        assert str(caught.value) == (
            f"TensorRT {world.version} has no {what}, TensorRT {text} and newer have; "
            "leave the option out"
        )
        assert not out.exists()
        assert not world.called("parse")  # said before any work
        return
    made = compile_engine(model, out, **option)
    facts = facts_of(out)
    assert dataclasses.asdict(made).items() >= option.items()
    if "version_compatible" in option:
        assert made.builder_flags == ("VERSION_COMPATIBLE",)
    elif "optimization_level" in option:
        assert facts["level"] == 5
    else:
        name = "AMPERE_PLUS" if "ampere+" in option.values() else "SAME_COMPUTE_CAPABILITY"
        assert facts["hardware"] == name


def test_an_engine_of_a_jetson_is_for_jetsons(
    one_world: World, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "is_jetson", lambda: True)
    with pytest.raises(UnsupportedOptionError) as caught:
        compile_engine(model, model.with_suffix(".engine"), hardware_compatible="ampere+")
    assert str(caught.value) == (
        "an engine made on a Jetson runs on Jetsons of that kind only; leave "
        "hardware_compatible (--hardware-compatible) out"
    )


def test_one_profile_serves_all_where_it_can(world: World, model: Path) -> None:
    out = model.with_suffix(".engine")
    compile_engine(model, out, contexts=3)
    assert facts_of(out)["profiles"] == (3 if world.numbers < (8, 6) else 1)
    assert ("PROFILE_SHARING_0806" in facts_of(out)["flags"]) == (
        (8, 6) <= world.numbers < (10,)
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"workspace_bytes": 1},
            "the workspace must be at least 1,048,576 bytes, got 1",
        ),
        (
            {"optimization_level": 6},
            "the optimisation level must be a whole number from 0 to 5, got 6",
        ),
        ({"contexts": 0}, "contexts must be a whole number from 1 to 16, got 0"),
        (
            {"hardware_compatible": "all"},
            ALL,
        ),
        (
            {"batch": (2, 1, 8)},
            BATCH,
        ),
    ],
)
def test_a_value_out_of_range_is_refused(
    one_world: World, model: Path, option: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        compile_engine(model, model.with_suffix(".engine"), **option)
    assert str(caught.value) == message

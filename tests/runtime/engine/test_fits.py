# SPDX-License-Identifier: Apache-2.0
"""Whether an engine fits: what differs, and what is said."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest

from edge_imprint_runtime.backends.cuda import GpuFacts
from edge_imprint_runtime.engine import Sidecar, check_fits
from edge_imprint_runtime.engine.fits import read_engine
from edge_imprint_runtime.errors import EngineFileError, EngineMismatchError

HERE = GpuFacts("Orin", "8.7", "12.6", "12.6", 8 * 2**30)
VERSION = (10, 3, 0, 30)


def again(out: Path) -> str:
    command = f"edge-imprint compile {out.with_name('model.onnx')} --out {out} --force"
    return f"compile it here: {command}, or open it with rebuild (--rebuild)"


def check(
    engine: tuple[Path, Sidecar],
    version: tuple[int, ...] = VERSION,
    gpu: GpuFacts = HERE,
    model: Path | None = None,
    **changed: Any,
) -> tuple[str, ...]:
    out, made = engine
    made = dataclasses.replace(made, **changed)
    return check_fits(out, made, tensorrt_version=version, gpu=gpu, model_path=model)


def test_where_it_was_built_it_fits(engine: tuple[Path, Sidecar]) -> None:
    assert check(engine) == ()
    assert check(engine, (10, 3, 0)) == ()  # as pip's TensorRT says its version


@pytest.mark.parametrize(
    ("made", "here", "compatible", "fits"),
    [
        ("10.3.0.30", (10, 3, 0, 26), False, False),
        ("10.3.0.30", (10, 3, 1, 30), False, False),
        ("10.3.0.30", (10, 7, 0, 23), False, False),
        ("10.3.0.30", (10, 7, 0, 23), True, True),
        ("10.3.0.30", (10, 3, 0, 31), True, True),
        ("10.3.0.30", (10, 2, 9, 99), True, False),
        ("10.3.0.30", (11, 1, 0, 0), True, True),
        ("8.6.2.3", (10, 3, 0, 30), True, True),
        ("8.6.2.3", (11, 1, 0, 0), True, False),
        ("10.3.0.30", (8, 6, 2, 3), True, False),
        ("10.3.0", (10, 3, 0, 26), False, True),
    ],
)
def test_another_tensorrt(
    engine: tuple[Path, Sidecar],
    made: str,
    here: tuple[int, ...],
    compatible: bool,
    fits: bool,
) -> None:
    changed = {"tensorrt": made, "version_compatible": compatible}
    if fits:
        assert check(engine, here, **changed) == ()
        return
    with pytest.raises(EngineMismatchError) as caught:
        check(engine, here, **changed)
    rule = "a version-compatible engine is for the same or the next major version"
    rule = rule if compatible else "an engine runs with the very version that made it"
    assert str(caught.value) == (
        f"{engine[0]} was built by TensorRT {made}, here is {'.'.join(map(str, here))}, and "
        f"{rule}; {again(engine[0])}"
    )


@pytest.mark.parametrize(
    ("built", "here", "level", "fits"),
    [
        (("Orin", "8.7"), ("Orin", "8.7"), "none", True),
        (("Orin", "8.7"), ("Thor", "11.0"), "none", False),
        (("NVIDIA A10", "8.6"), ("NVIDIA A40", "8.6"), "none", False),
        (("NVIDIA A10", "8.6"), ("NVIDIA A40", "8.6"), "same_compute_capability", True),
        (("NVIDIA A10", "8.6"), ("NVIDIA L4", "8.9"), "same_compute_capability", False),
        (("NVIDIA A10", "8.6"), ("NVIDIA L4", "8.9"), "ampere+", True),
        (("NVIDIA A10", "8.6"), ("NVIDIA T4", "7.5"), "ampere+", False),
        (("NVIDIA A10", "8.6"), ("NVIDIA Thor", "11.0"), "ampere+", True),
        # One GPU, whose number CUDA 13 changed.
        (("Thor", "10.1"), ("Thor", "11.0"), "none", True),
        (("Thor", "11.0"), ("Thor", "10.1"), "none", True),
    ],
)
def test_another_gpu(
    engine: tuple[Path, Sidecar],
    built: tuple[str, str],
    here: tuple[str, str],
    level: str,
    fits: bool,
) -> None:
    gpu = dataclasses.replace(HERE, name=here[0], compute_capability=here[1])
    changed = dict(zip(("gpu_name", "compute_capability"), built, strict=True))
    changed["hardware_compatible"] = level
    if fits:
        assert check(engine, gpu=gpu, **changed) == ()
        return
    with pytest.raises(EngineMismatchError) as caught:
        check(engine, gpu=gpu, **changed)
    assert str(caught.value) == (
        f"{engine[0]} was built for the GPU {built[0]!r} (compute capability {built[1]}), "
        f"here is {here[0]!r} ({here[1]}); {again(engine[0])}"
    )


def test_another_kind_of_machine(engine: tuple[Path, Sidecar]) -> None:
    with pytest.raises(EngineMismatchError, match="was built on sparc64, this machine is"):
        check(engine, platform="sparc64")


def test_another_driver_or_memory_is_a_note(engine: tuple[Path, Sidecar]) -> None:
    notes = check(
        engine, gpu=dataclasses.replace(HERE, driver="13.0", memory_bytes=64 * 2**30)
    )
    assert notes == (
        (
            f"{engine[0]} was built with a driver for CUDA 12.6 and CUDA 12.6, here are 13.0 "
            "and 12.6"
        ),
        (
            f"{engine[0]} was built on a GPU 'Orin' with 9 GB of memory, this one has 69 GB: "
            "it may be slower than one compiled here"
        ),
    )


def test_another_model(engine: tuple[Path, Sidecar], model: Path, tmp_path: Path) -> None:
    message = (
        f"{engine[0]} was compiled of another {model} than the one that is there now; "
        f"{again(engine[0])}"
    )
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    with pytest.raises(EngineMismatchError) as caught:
        check(engine)
    assert str(caught.value) == message
    model.write_bytes(content + b"x")
    with pytest.raises(EngineMismatchError) as caught:
        check(engine)
    assert str(caught.value) == message
    model.unlink()
    assert check(engine) == ()  # an engine runs without it
    other = tmp_path / "other.onnx"
    other.write_bytes(b"x")
    with pytest.raises(EngineMismatchError, match="was compiled of another"):
        check(engine, model=other)


def test_what_is_pasted_is_one_command(engine: tuple[Path, Sidecar]) -> None:
    out, made = engine
    out = out.with_name("my shop.engine")
    with pytest.raises(EngineMismatchError) as caught:
        check((out, made), gpu=dataclasses.replace(HERE, name="Thor"), model_file="a b.onnx")
    command = str(caught.value).partition("compile it here: ")[2].partition(", or open")[0]
    model = str(out.parent / "a b.onnx")
    assert shlex.split(command) == [
        "edge-imprint", "compile", model, "--out", str(out), "--force"
    ]  # fmt: skip


def test_an_engine_is_read_once(engine: tuple[Path, Sidecar]) -> None:
    out, made = engine
    assert read_engine(out, made) == out.read_bytes()


def test_another_engine(engine: tuple[Path, Sidecar]) -> None:
    out, made = engine
    content = out.read_bytes()
    out.write_bytes(content + b"x")
    with pytest.raises(EngineFileError) as caught:
        read_engine(out, made)
    assert str(caught.value) == (
        f"{out} is not the engine that the file beside it describes (it has "
        f"{len(content) + 1:,} bytes instead of {len(content):,}): it is damaged, or one of "
        f"both was replaced; {again(out)}"
    )
    out.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(EngineFileError, match=r"describes \(its digest is another\)"):
        read_engine(out, made)
    out.write_bytes(content)
    with pytest.raises(EngineFileError) as caught:
        read_engine(out, dataclasses.replace(made, plan_tensorrt="10.3.0.29"))
    assert str(caught.value) == (
        f"{out} says of itself that TensorRT 10.3.0.30 made it, the file beside it 10.3.0.29; "
        f"{again(out)}"
    )
    out.unlink()
    with pytest.raises(EngineFileError) as caught:
        read_engine(out, made)
    assert str(caught.value) == f"there is no engine file {out}"

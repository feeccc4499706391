# SPDX-License-Identifier: Apache-2.0
"""The one command for a GPU, rehearsed: packed, run where there is none and on stand-ins."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edge_imprint_runtime.doctor.attempt import attempt
from edge_imprint_runtime.errors import ProviderError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ENGINES = (
    "tensorrt_compile", "tensorrt_parity", "engine_reload", "staleness", "teachable_profile",
    "batches", "cuda_graph", "threads", "refit",
)  # fmt: skip


@pytest.fixture(scope="module")
def models() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("gpu_models")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's models, as the script packs them."""
    out = tmp_path_factory.mktemp("gpu") / "pack"
    run("gpu_check_pack.py", "--out", out, "--backbone", "demo")
    return out


def run(script: str, *arguments: object, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "gpu_check.json").read_text())
    return found


# Packing -----------------------------------------------------------------------------------


def test_pieces_make_the_file_again(models: ModuleType) -> None:
    rng = np.random.default_rng(0)
    half = rng.standard_normal(5000).astype(np.float16)
    other, small = rng.bytes(9000), rng.bytes(100)
    base = b"start" + half.tobytes() + b"between" + other + b"end"
    wide = half.astype(np.float32).tobytes()
    data = b"head" + other + small + wide + b"middle" + other + half.tobytes() + b"tail"
    made = models.pieces(data, [other, small, wide, half.tobytes()], base, [half.tobytes()])
    assert [piece[0] for piece in made if piece[0] != "text"] == ["copy", "wide", "copy"]
    assert models.join(made, base) == data
    assert len(json.dumps(made)) < len(data) / 2


def test_what_is_packed_is_small_and_comes_out_whole(
    models: ModuleType, packed: Path, tmp_path: Path
) -> None:
    manifest = models.unpack(packed, tmp_path)
    whole = {name for name in manifest["files"] if (packed / name).is_file()}
    assert whole == {"demo-fp16.onnx", "demo-teachable.onnx.head"}
    assert {facts["part"] for facts in manifest["models"].values()} == {
        "fused",
        "backbone",
        "teachable",
        "other",
    }
    for name, facts in manifest["models"].items():
        assert (tmp_path / name).stat().st_size == facts["bytes"]
    (tmp_path / "demo-fp32.onnx").write_bytes(b"damaged")
    models.unpack(packed, tmp_path)
    assert (tmp_path / "demo-fp32.onnx").stat().st_size > 100_000


def test_a_damaged_pack_is_refused(models: ModuleType, packed: Path, tmp_path: Path) -> None:
    manifest = json.loads((packed / models.MANIFEST).read_text())
    damaged = tmp_path / "pack"
    damaged.mkdir()
    for name in manifest["files"]:
        if (packed / name).is_file():
            (damaged / name).write_bytes((packed / name).read_bytes() + b"\0")
    (damaged / models.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="is not what was packed; pack it again"):
        models.unpack(damaged, tmp_path / "out")


# Running -----------------------------------------------------------------------------------


def test_without_a_gpu_every_check_says_so(packed: Path, tmp_path: Path) -> None:
    if attempt("cuda")["status"] == "runs":
        pytest.skip("there is a GPU here")
    said = run("gpu_check.py", packed, "--out", tmp_path, "--quick", status=3)
    assert said.splitlines()[-1] == "no check could use a GPU"
    checks = results(tmp_path)["checks"]
    passed = {name for name, one in checks.items() if one["outcome"] == "passed"}
    assert passed == {"machine", "cpu_provider", "bench_cpu"}
    for name in set(checks) - passed:
        assert checks[name]["outcome"] == "skipped"
        assert "no GPU: " in checks[name]["reason"]
    parity = checks["cpu_provider"]["found"]
    assert {one["labels_same_of_clear"] for one in parity.values()} == {1.0}
    assert (tmp_path / "reports" / "cpu-demo-fp32.onnx.html").is_file()


def test_engines_are_checked_on_the_stand_in(packed: Path, tmp_path: Path) -> None:
    only = ",".join(ENGINES)
    arguments = ("--out", tmp_path, "--quick", "--standin", "8.5.3.1", "--only", only)
    run("gpu_check.py", packed, *arguments, status=3)
    checks = results(tmp_path)["checks"]
    assert {name: one["outcome"] for name, one in checks.items()} == dict.fromkeys(
        ENGINES, "passed"
    )
    assert len(checks["staleness"]["found"]) >= 6
    assert checks["teachable_profile"]["found"]["taught"] == ["new"] * 3


def test_what_goes_wrong_is_a_failure_and_the_rest_goes_on(
    packed: Path, tmp_path: Path
) -> None:
    """Answers that are not the model's, and a check that comes before what it needs."""
    wrong = tmp_path / "pack"
    wrong.mkdir()
    for file in packed.iterdir():
        (wrong / file.name).write_bytes(file.read_bytes())
    with np.load(wrong / "demo-fp32.npz") as arrays:
        answers = dict(arrays)
    np.savez(wrong / "demo-fp32.npz", **answers | {"scores": answers["scores"] + 0.01})
    arguments = ("--out", tmp_path / "out", "--quick", "--standin", "10.3.0.30")
    chosen = ("--models", "demo-fp32", "--only", "tensorrt_parity,cpu_provider")
    run("gpu_check.py", wrong, *arguments, *chosen, status=1)
    checks = results(tmp_path / "out")["checks"]
    assert checks["tensorrt_parity"]["outcome"] == "skipped"
    assert checks["tensorrt_parity"]["reason"] == "demo-fp32.engine was not compiled"
    assert checks["cpu_provider"]["outcome"] == "failed"
    assert checks["cpu_provider"]["reason"] == (
        "demo-fp32.onnx: a score is 0.01 off, more than 0.0001"
    )


def test_wrong_use(packed: Path, tmp_path: Path) -> None:
    run("gpu_check.py", packed, "--out", tmp_path, "--only", "none", status=2)
    command = [sys.executable, str(BENCHMARKS / "gpu_check.py"), str(packed)]
    command += ["--out", str(tmp_path / "out"), "--models", "demo,resnet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    manifest = json.loads((packed / "manifest.json").read_text())
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "gpu_check.py: error: no model begins with 'resnet'; there are "
        f"{', '.join(manifest['models'])}"
    )
    assert not (tmp_path / "out").exists()


def test_half_unpacked_wheels_are_not_taken(models: ModuleType, tmp_path: Path) -> None:
    wheels, site = tmp_path / "pack" / "wheels", tmp_path / "site"
    wheels.mkdir(parents=True)
    (wheels / "a-1-py3-none-any.whl").write_bytes(b"no wheel")
    with pytest.raises(zipfile.BadZipFile):
        models.install(tmp_path / "pack", site)
    assert not site.exists()
    with zipfile.ZipFile(wheels / "a-1-py3-none-any.whl", "w") as made:
        made.writestr("a.py", "x = 1")
    (tmp_path / "site.part").mkdir(exist_ok=True)
    (tmp_path / "site.part" / "b.py").write_text("cut off")
    assert models.install(tmp_path / "pack", site) == ["a-1-py3-none-any.whl"]
    assert [file.name for file in site.iterdir()] == ["a.py"]
    assert models.install(tmp_path / "pack", site) == ["a-1-py3-none-any.whl"]


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        ("this ONNX Runtime has no TensorrtExecutionProvider (it has x); run", "skipped"),
        ("TensorrtExecutionProvider did not start: libnvinfer.so.10; or run", "skipped"),
        ("TensorrtExecutionProvider took none of the model's nodes, 9 are", "failed"),
    ],
)
def test_a_provider_that_takes_nothing_is_a_failure(
    models: ModuleType, monkeypatch: pytest.MonkeyPatch, message: str, outcome: str
) -> None:
    checks = importlib.import_module("gpu_checks")

    def refuse(*_: object) -> None:
        raise ProviderError(message)

    monkeypatch.setattr(checks, "_provider", refuse)
    kind = checks.Skipped if outcome == "skipped" else ProviderError
    with pytest.raises(kind) as caught:
        checks.tensorrt_provider(None)
    assert str(caught.value) == message

# SPDX-License-Identifier: Apache-2.0
"""Arrows run down only: what each package may import, read off its text and tried for real."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
HOMES = {
    "edge_imprint": ROOT / "edge_imprint",
    "edge_imprint_export": ROOT / "export" / "edge_imprint_export",
    "edge_imprint_runtime": ROOT / "runtime" / "edge_imprint_runtime",
}
FILES = [file for home in HOMES.values() for file in sorted(home.rglob("*.py"))]

# Which of our packages each may import.
ARROWS = {
    "edge_imprint": {"edge_imprint", "edge_imprint_export", "edge_imprint_runtime"},
    "edge_imprint_export": {"edge_imprint_export", "edge_imprint_runtime"},
    "edge_imprint_runtime": {"edge_imprint_runtime"},
}

# Which files may import a library that is large or not always there: a folder, or a file.
LIBRARIES = {
    "torch": (
        "edge_imprint/backbones/",
        "edge_imprint/embedding/torch_",
        "edge_imprint/imprinting/kmeans_cuda.py",
        "export/edge_imprint_export/backbone/torch_export.py",
    ),
    "timm": ("edge_imprint/backbones/measure.py", "edge_imprint/backbones/timm_models.py"),
    "torchvision": (
        "edge_imprint/backbones/measure.py",
        "edge_imprint/backbones/torchvision_models.py",
    ),
    "ray": ("edge_imprint/embedding/cluster",),
    "fsspec": ("edge_imprint/photos/remote.py",),
    "pyarrow": (
        "edge_imprint/embedding/cluster_tasks.py",
        "edge_imprint/photos/manifest_rows.py",
    ),
    "onnxscript": ("export/edge_imprint_export/backbone/torch_export.py",),
    "onnxruntime": (
        "export/edge_imprint_export/precision/tools.py",
        "runtime/edge_imprint_runtime/backends/ort.py",
        "runtime/edge_imprint_runtime/doctor/try_onnxruntime.py",
    ),
    "tensorrt": ("runtime/edge_imprint_runtime/engine/tensorrt_api.py",),
    "cuda": ("runtime/edge_imprint_runtime/backends/cuda_calls.py",),
    "psutil": (
        "runtime/edge_imprint_runtime/measuring/memory.py",
        "runtime/edge_imprint_runtime/sensors/host.py",
    ),
    "cpuinfo": ("runtime/edge_imprint_runtime/machine.py",),
    "pynvml": ("runtime/edge_imprint_runtime/sensors/nvidia.py",),
    "jtop": ("runtime/edge_imprint_runtime/sensors/jetson.py",),
    "onnx": ("export/edge_imprint_export/",),
    "sklearn": (
        "edge_imprint/classifier.py",
        "edge_imprint/demo.py",
        "edge_imprint/evaluation/linear.py",
    ),
    "scipy": (),
    "threadpoolctl": ("edge_imprint/imprinting/proxies.py",),
    "matplotlib": ("edge_imprint/report.py",),
    "click": ("edge_imprint/cli/",),
    "rich": ("edge_imprint/cli/",),
}
HEAVY = {*LIBRARIES, "pandas"} - {"click", "rich"}


def imports(file: Path) -> Iterator[str]:
    """Name every module that a file imports, wherever it does, but not for types only."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def loaded_by(code: str, *arguments: str) -> set[str]:
    """Run code in a fresh interpreter; give the top-level names of what it has loaded."""
    report = "\nimport json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code + report, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


def modules(package: str) -> list[str]:
    home = HOMES[package]
    found = [file.relative_to(home.parent).with_suffix("") for file in home.rglob("*.py")]
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in found)


# Read off the text -------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_arrows_run_down_only(file: Path) -> None:
    package = next(name for name, home in HOMES.items() if home in file.parents)
    ours = {name for name in imports(file) if name.partition(".")[0] in ARROWS}
    wrong = {name for name in ours if name.partition(".")[0] not in ARROWS[package]}
    assert not wrong
    if HOMES["edge_imprint"] / "cli" not in file.parents:
        assert not {name for name in ours if name.startswith("edge_imprint.cli")}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_in_its_files_only(library: str) -> None:
    users = {
        name_of(file)
        for file in FILES
        if any(name.partition(".")[0] == library for name in imports(file))
    }
    allowed = LIBRARIES[library]
    assert {user for user in users if not user.startswith(allowed)} == set()
    for home in allowed:  # a line of the table that nothing needs is to be taken out
        assert any(user.startswith(home) for user in users), home


def test_the_reader_of_imports_sees_them(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    file.write_text(
        "import a.b\nfrom c import d\nif TYPE_CHECKING:\n    import hidden\n"
        "def f():\n    import e as g\n"
    )
    assert sorted(imports(file)) == ["a.b", "c.d", "e"]


# Tried for real ----------------------------------------------------------------------------


def test_the_runtime_loads_numpy_and_pillow_only() -> None:
    got = loaded_by("".join(f"import {name}\n" for name in modules("edge_imprint_runtime")))
    assert {"numpy", "PIL"} <= got
    assert not got & (HEAVY | {"click", "rich", "edge_imprint", "edge_imprint_export"})


@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_a_prediction_loads_onnx_runtime_and_nothing_of_the_host(
    tiny_model: Path, backend: str
) -> None:
    got = loaded_by(
        "import sys, numpy as np\n"
        "from edge_imprint_runtime import open_model\n"
        "model = open_model(sys.argv[1], sys.argv[2])\n"
        "model.predict(np.zeros((2, *model.input_shape), model.input_dtype))",
        str(tiny_model),
        backend,
    )
    assert "onnxruntime" in got
    assert not got & (
        HEAVY - {"onnxruntime"} | {"click", "rich", "edge_imprint", "edge_imprint_export"}
    )


def test_importing_the_host_package_loads_nothing() -> None:
    got = loaded_by("import edge_imprint")
    assert not got & (HEAVY | {"numpy", "click", "rich", "PIL"})
    assert not got & {"edge_imprint_export", "edge_imprint_runtime"}


def test_importing_the_exporter_loads_no_torch_and_no_host() -> None:
    got = loaded_by("".join(f"import {name}\n" for name in modules("edge_imprint_export")))
    assert "onnx" in got
    assert not got & (HEAVY - {"onnx"} | {"click", "rich", "edge_imprint"})


def test_the_way_from_embeddings_to_a_head_loads_numpy_only() -> None:
    core = ["collapse", "keep", "make_head"]
    core += [f"judging.{name}" for name in ("calibrate", "choose", "crossval", "folds")]
    imprinting = (ROOT / "edge_imprint" / "imprinting").glob("[a-z]*.py")
    core += [f"imprinting.{file.stem}" for file in imprinting if file.stem != "kmeans_cuda"]
    got = loaded_by("".join(f"import edge_imprint.{name}\n" for name in core))
    assert "numpy" in got
    assert not got & (HEAVY | {"click", "rich"})


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("backbones", set()),
        ("embedding.run", set()),
        ("embedding.local", set()),
        ("embedding.cluster", set()),
        ("photos", set()),
        ("backbones.glyphnet", set()),
        ("builder", set()),
        # joblib, under scikit-learn, asks psutil how many cores there are; pandas and what it
        # brings are loaded where they happen to be installed.
        ("classifier", {"pandas", "psutil", "pyarrow", "sklearn", "scipy", "threadpoolctl"}),
        ("cli", set()),
        ("cli._backbones", set()),
        ("cli._build", set()),
        ("cli._cache", set()),
        ("cli._evaluate", set()),
        ("cli._export", {"onnx"}),
        ("cli._check", {"onnx"}),
        ("cli._verify", {"onnx"}),
        ("cli._teach", set()),
        ("cli._device", set()),
        ("cli._bench", set()),
        ("cli._compile", set()),
        ("cli._doctor", set()),
        ("cli._report", set()),
        ("bench_page", set()),
        ("compare_page", set()),
    ],
)
def test_a_host_module_loads_what_it_needs_only(module: str, allowed: set[str]) -> None:
    assert (loaded_by(f"import edge_imprint.{module}") & HEAVY) <= allowed


def test_a_warm_build_loads_neither_a_network_nor_what_runs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for label, grey in (("dark", 20), ("light", 200)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 30), (grey, grey, 10 * i)).save(
                tmp_path / "photos" / label / f"{i}.png"
            )
    code = (
        "import sys\nfrom edge_imprint import build\n"
        "made = build(sys.argv[1], backbone='timm/test_resnet', random_weights=True)\n"
        "assert made.embedded == int(sys.argv[2]), made.embedded"
    )
    loaded_by(code, str(tmp_path / "photos"), "6")
    warm = loaded_by(code, str(tmp_path / "photos"), "0")
    assert not warm & (HEAVY - {"threadpoolctl"})

# SPDX-License-Identifier: Apache-2.0
"""The examples: built as a user builds them, run, and shown in the page as they are."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, open_model
from edge_imprint_runtime.contract import Teachable
from edge_imprint_runtime.images import prepare
from edge_imprint_runtime.knowledge import head_beside
from tests.c.building import ROOT, run, tool
from tests.c.shop import Program, picture

MakeHead = Callable[..., Head]

EXAMPLES = ROOT / "runtime" / "c" / "examples"
NAMES = ("minimal", "teach", "two_threads")


@pytest.fixture(scope="module")
def examples(c_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, built by find_package against an installed library."""
    root = tmp_path_factory.mktemp("examples")
    run(tool("cmake"), "--install", c_build, "--prefix", root / "installed")
    prefix = f"-DCMAKE_PREFIX_PATH={root / 'installed'}"
    run("cmake", "-S", EXAMPLES, "-B", root / "build", prefix, "-DCMAKE_BUILD_TYPE=Debug")
    run("cmake", "--build", root / "build")
    return root / "build"


@pytest.fixture
def model(tiny_backbone: bytes, make_head: MakeHead, tmp_path: Path) -> Path:
    """A teachable model of 16 x 16 pixels, and its head."""
    head, path = make_head(3, 2), tmp_path / "shop.onnx"
    made = fuse(tiny_backbone, head, teachable=Teachable("default", 8, 3))
    path.write_bytes(to_bytes(made))
    head.save(head_beside(path))
    return path


def code_lines(source: str) -> int:
    """Count what is neither blank nor comment."""
    bare = re.sub(r"/\*.*?\*/", "", source, flags=re.S)
    return sum(bool(line.strip()) for line in bare.splitlines())


def test_the_readme_shows_all_examples_as_they_are() -> None:
    """Whole, but for the licence and what stands above the first of them."""
    shown = re.findall(r"^```c\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    for name, text in zip(NAMES, shown, strict=True):
        source = (EXAMPLES / f"{name}.c").read_text()
        assert source.endswith(text)
        assert code_lines(text) == code_lines(source)


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "c.md").read_text()
    shown = re.search(r"<!-- minimal.c -->\n```c\n(.*?)```", page, re.S)
    assert shown is not None
    source = (EXAMPLES / "minimal.c").read_text()
    assert source.endswith(shown[1])
    assert source.removesuffix(shown[1]).startswith("/* SPDX")
    lines = [code_lines((EXAMPLES / f"{name}.c").read_text()) for name in NAMES]
    assert [len_ <= most for len_, most in zip(lines, (17, 60, 110), strict=True)] == [
        True
    ] * 3


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", NAMES)
def test_no_compiler_warns(name: str, compiler: str) -> None:
    """As C99 with POSIX, which is all that a user's compiler may know."""
    run(
        tool(compiler),
        *("-std=gnu99", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror"),
        *("-I", EXAMPLES.parent / "include", EXAMPLES / f"{name}.c"),
    )


def test_minimal(
    examples: Path,
    tiny_backbone: bytes,
    make_head: MakeHead,
    ort_library: Path,
    tmp_path: Path,
) -> None:
    """It takes 224 x 224 pixels; of another model it says so."""
    minimal = Program(examples / "minimal", ort_library)
    small = to_bytes(fuse(tiny_backbone, make_head()))
    (tmp_path / "shop.onnx").write_bytes(small)
    done = minimal(cwd=tmp_path, input=bytes(224 * 224 * 3), text=False)
    assert done.returncode == 1
    assert b"16 x 16" in done.stderr
    (tmp_path / "shop.onnx").unlink()
    done = minimal(cwd=tmp_path, input=bytes(224 * 224 * 3), text=False)
    assert done.returncode == 1
    assert b"shop.onnx" in done.stderr
    (tmp_path / "shop.onnx").write_bytes(to_bytes(of_224(make_head)))
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    done = minimal(cwd=tmp_path, input=pixels.tobytes(), text=False)
    assert done.returncode == 0, done.stderr
    (found,) = open_model(tmp_path / "shop.onnx", "cpu").predict(pixels)
    assert done.stdout.decode() == found.label + "\n"


def of_224(make_head: MakeHead) -> object:
    """A model of 224 x 224 pixels, as small as one can be."""
    from dataclasses import replace

    from onnx import TensorProto, helper

    from edge_imprint_export.graph import tidy

    head = make_head(3, 2, 3)
    assert head.backbone is not None
    sizes = {"height": 224, "width": 224, "resize_height": 256, "resize_width": 256}
    info = replace(head.backbone, preprocess=replace(head.backbone.preprocess, **sizes))
    head = Head(head.proxies, head.class_index, head.labels, backbone=info)
    values = helper.make_tensor_value_info
    nodes = [
        helper.make_node("GlobalAveragePool", ["in"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["out"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [values("in", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [values("out", TensorProto.FLOAT, ["N", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return fuse(to_bytes(tidy(model, size=3)), head)


def test_teach(examples: Path, model: Path, ort_library: Path) -> None:
    """What Python teaches of the same pixels: the same head file, the same labels."""
    frames = [np.full((24, 40, 3), 30, np.uint8) for _ in range(3)]
    frames += [picture(seed) for seed in range(4)]
    program = Program(examples / "teach", ort_library)
    twin = model.with_name("twin.onnx")
    twin.write_bytes(model.read_bytes())
    head_beside(twin).write_bytes(head_beside(model).read_bytes())
    data = b"".join(frame.tobytes() for frame in frames)
    done = program(model, "40x24", "dark", 3, input=data, text=False)
    assert done.returncode == 0, done.stderr
    opened = open_model(twin, "cpu")
    assert opened.contract.backbone is not None
    recipe = opened.contract.backbone.preprocess
    pixels = np.stack([prepare(Image.fromarray(frame), recipe) for frame in frames])
    opened.teach("dark", pixels[:3])
    labels = [one.label for one in opened.predict(pixels[3:])]
    told = [f"{number} {label}" for number, label in enumerate(labels, 3)]
    assert done.stdout.decode().splitlines() == told
    ours = Head.load(head_beside(model))
    assert opened.head is not None
    assert ours.labels == opened.head.labels
    np.testing.assert_allclose(ours.proxies, opened.head.proxies, atol=1e-5)
    assert program(model).returncode == 2
    done = program(model.with_name("gone.onnx"), "4x4", "x", 1)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_two_threads(examples: Path, model: Path, ort_library: Path) -> None:
    """One answers while the other learns two classes; all is saved at the end."""
    program = Program(examples / "two_threads", ort_library)
    with subprocess.Popen(
        [program.path, model, "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=program.environment,
        text=True,
    ) as process:
        out, _ = process.communicate("first\nsecond\n", timeout=300)
        assert process.returncode == 0
    assert "learned first: 4 classes\n" in out
    assert "learned second: 5 classes\n" in out
    answered = re.search(r"^(\d+) of (\d+) frames answered$", out, re.M)
    assert answered is not None
    assert 0 < int(answered[1]) <= int(answered[2]) == 400
    assert Head.load(head_beside(model)).labels[-2:] == ("first", "second")

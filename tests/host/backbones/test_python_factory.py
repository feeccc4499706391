# SPDX-License-Identifier: Apache-2.0
"""A user's own network: what its factory may do, and what is said of one that fails."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_imprint.backbones import Backbone, load_backbone
from edge_imprint_export.graph import image_size, to_bytes
from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.contract.codec import format_preprocess
from edge_imprint_runtime.errors import (
    BackboneExportError,
    BackboneNotFoundError,
    ParameterError,
    WeightsError,
)

NET = """
import torch
from edge_imprint_runtime import Preprocess

class Net(torch.nn.Module):
    def __init__(self, channels=6, stride=2):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = torch.nn.Conv2d(3, channels, 3, stride=stride)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))

    def forward(self, x):
        return torch.relu(self.conv(x)).mean((2, 3))

SMALL = Preprocess(12, 20)
"""
_numbers = itertools.count()
WriteModule = Callable[..., str]


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Return ``write("def make(): ...")``: a module in the current folder; gives its name."""
    monkeypatch.chdir(tmp_path)
    written: list[str] = []

    def write(text: str, name: str = "") -> str:
        name = name or f"a_users_net_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(NET + text)
        written.append(name)
        return name

    before = list(sys.path)
    yield write
    assert sys.path == before
    for name in written:
        sys.modules.pop(name, None)


def make(write_module: WriteModule, text: str, **options: Preprocess) -> Backbone:
    return load_backbone(f"python:{write_module(text)}:make", **options)


def test_a_module_alone_is_taken_for_imagenets(write_module: WriteModule) -> None:
    backbone = make(write_module, "def make(): return Net()")
    p = backbone.info.preprocess
    assert (p.height, p.width, p.resize, p.resize_height) == (224, 224, "crop", 256)
    assert backbone.info.weights == "own"
    (note,) = backbone.notes
    assert note == (
        f"{backbone.info.name} does not say how photos are prepared for it; assumed: "
        f"{format_preprocess(p)} (let it return a pair, the module and such a line, or give "
        "another with --preprocess)"
    )
    assert backbone.classifier is None
    assert backbone.module is not None
    assert not backbone.module.training
    given = make(write_module, "def make(): return Net()", preprocess=Preprocess(12, 20))
    assert (given.info.preprocess, given.notes) == (Preprocess(12, 20), ())


@pytest.mark.parametrize(
    "pair", ["Net(), SMALL", f"Net(), {format_preprocess(Preprocess(12, 20))!r}"]
)
def test_a_module_and_its_preprocessing(write_module: WriteModule, pair: str) -> None:
    backbone = make(write_module, f"def make(): return {pair}")
    assert (backbone.info.preprocess, backbone.notes) == (Preprocess(12, 20), ())
    assert image_size(backbone.onnx) == (12, 20)
    images = np.random.default_rng(0).standard_normal((2, 3, 12, 20)).astype(np.float32)
    found = OrtRunner(to_bytes(backbone.onnx), "cpu").run(["embedding"], images)[0]
    import torch

    assert backbone.module is not None
    want = backbone.module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max())


def test_a_layer_of_it(write_module: WriteModule) -> None:
    name = write_module("def make(): return Net(), SMALL")
    whole, layer = (load_backbone(f"python:{name}:make{tail}") for tail in ("", "#conv"))
    assert layer.info.name == f"python:{name}:make#conv"
    assert layer.info.digest != whole.info.digest


def test_what_it_prints_stays_off_stdout(
    write_module: WriteModule, capfd: pytest.CaptureFixture[str]
) -> None:
    make(write_module, "print('importing')\ndef make(): print('making'); return Net()")
    out, err = capfd.readouterr()
    assert (out, err) == ("", "importing\nmaking\n")


def test_the_digest_is_of_name_text_weights_and_parts(
    write_module: WriteModule, tmp_path: Path
) -> None:
    """A number read from a file is no weight, yet makes another network."""
    read = (
        "from pathlib import Path\ndef make(): return Net(stride=int(Path('n').read_text()))"
    )
    name = write_module(read)
    digests = []
    for text in ("1", "2", "2"):
        (tmp_path / "n").write_text(text)
        digests.append(load_backbone(f"python:{name}:make").info.digest)
    assert digests[0] != digests[1] == digests[2]
    # Other text, though nothing else: what it computes can't be told from outside.
    write_module(read + "\n# otherwise\n", name)
    assert load_backbone(f"python:{name}:make").info.digest not in digests


def test_a_module_that_was_changed_is_read_again(write_module: WriteModule) -> None:
    name = write_module("def make(): return Net(6), SMALL")
    assert load_backbone(f"python:{name}:make").module is not None
    write_module("def make(): return Net(channels=10), SMALL", name)
    module = load_backbone(f"python:{name}:make").module
    assert module is not None
    assert {key: tuple(v.shape) for key, v in module.state_dict().items()} == {
        "conv.weight": (10, 3, 3, 3),
        "conv.bias": (10,),
    }


def test_a_helper_module_that_was_changed(write_module: WriteModule) -> None:
    helper = write_module("N = 6")
    name = write_module(f"import {helper}\ndef make(): return {helper}.Net({helper}.N)")
    first = load_backbone(f"python:{name}:make")
    write_module("N = 8  # its text counts, and it is what is run", helper)
    second = load_backbone(f"python:{name}:make")
    assert second.info.digest != first.info.digest
    assert second.module is not None
    assert second.module.state_dict()["conv.bias"].shape == (8,)


def test_the_text_of_functions_from_elsewhere_is_part_of_the_digest(
    write_module: WriteModule, tmp_path: Path
) -> None:
    """What a forward calls decides the embedding as much as the module that it is in."""
    far, near = write_module("def pool(x): return x.mean((2, 3))"), write_module("")
    name = write_module("")
    (tmp_path / f"{near}.py").write_text(f"from {far} import pool\n")
    late = f"\n        from {near} import pool\n        return pool"
    text = NET.replace("return torch.relu(self.conv(x)).mean((2, 3))", f"{late}(self.conv(x))")
    found = []
    for pool in ("mean", "amax"):
        (tmp_path / f"{name}.py").write_text(text + "def make(): return Net(), SMALL")
        (tmp_path / f"{far}.py").write_text(f"def pool(x): return x.{pool}((2, 3))\n")
        backbone = load_backbone(f"python:{name}:make")
        images = np.random.default_rng(0).standard_normal((2, 3, 12, 20)).astype(np.float32)
        rows = OrtRunner(to_bytes(backbone.onnx), "cpu").run(["embedding"], images)[0]
        found.append((backbone.info.digest, rows))
    assert found[0][0] != found[1][0]
    assert (found[0][1] < found[1][1]).all()
    # Nothing has changed since; nor does it matter what else was imported meanwhile.
    write_module("", "a_users_other")
    importlib.import_module("json.tool")
    assert load_backbone(f"python:{name}:make").info.digest == found[1][0]


def test_modules_of_one_package_find_each_other(
    write_module: WriteModule, tmp_path: Path
) -> None:
    package = tmp_path / "a_users_package"
    (package / "inner").mkdir(parents=True)
    for folder in (package, package / "inner"):
        (folder / "__init__.py").write_text("")
    (package / "numbers.py").write_text("N = 2\n")
    (package / "inner" / "ops.py").write_text("from ..numbers import N\n")
    (package / "net.py").write_text(
        NET.replace("mean((2, 3))", "mean((2, 3)) * ops.N").replace(
            "import torch\n", "import torch\nfrom .inner import ops\n"
        )
        + "def make(): return Net(), SMALL"
    )
    first = load_backbone("python:a_users_package.net:make").info.digest
    assert load_backbone("python:a_users_package.net:make").info.digest == first
    (package / "numbers.py").write_text("N = 3\n")
    assert load_backbone("python:a_users_package.net:make").info.digest != first
    for name in [name for name in sys.modules if name.startswith("a_users_package")]:
        del sys.modules[name]


def test_weights_from_a_file(write_module: WriteModule, tmp_path: Path) -> None:
    import torch

    name = write_module("def make(): return Net(), SMALL")
    own = load_backbone(f"python:{name}:make")
    assert own.module is not None
    tensors = {f"module.{key}": value + 1 for key, value in own.module.state_dict().items()}
    torch.save(tensors, tmp_path / "w.pt")
    other = load_backbone(f"python:{name}:make", weights=tmp_path / "w.pt")
    assert other.info.weights == "file:w.pt"
    assert other.info.digest != own.info.digest
    torch.save({"x": torch.zeros(1)}, tmp_path / "none.pt")
    with pytest.raises(WeightsError, match=f"don't fit python:{name}:make"):
        load_backbone(f"python:{name}:make", weights=tmp_path / "none.pt")
    with pytest.raises(ParameterError, match="own weights; leave out --random-weights"):
        load_backbone(f"python:{name}:make", random_weights=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "def make(): raise RuntimeError('no\\ndata')",
            "raised RuntimeError: no data; mend it",
        ),
        ("def make(): raise SystemExit(3)", "raised SystemExit: 3; mend it"),
        ("def make(): assert False", "raised AssertionError; mend it"),
        ("def make(a): pass", "raised TypeError: make() missing 1 required positional"),
        ("def make(): pass", "returned a NoneType; it must return a torch module, or"),
        ("def make(): return Net(), 3", "returned a tuple of Net, int; it must"),
        ("def make(): return ()", "returned a tuple of nothing; it must"),
        (
            "def make(): return Net(), 'size=3'",
            "returned a preprocessing that can't be read: ",
        ),
        ("make = Net()", "is a Net; it must be a function that takes nothing"),
        ("make = 3", "is a int; it must be a function that takes nothing"),
    ],
)
def test_factories_that_fail(write_module: WriteModule, text: str, reason: str) -> None:
    with pytest.raises(BackboneExportError) as caught:
        make(write_module, text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("raise ValueError('x')", BackboneExportError, "raised ValueError: x; mend it"),
        ("import sys; sys.exit(1)", BackboneExportError, "raised SystemExit: 1; mend it"),
        ("def f(:", BackboneExportError, "raised SyntaxError: "),
        ("import no_such_thing", BackboneNotFoundError, "needs the module 'no_such_thing'"),
        ("def mak(): pass", BackboneNotFoundError, "has no function 'make' for the backbone"),
    ],
)
def test_modules_that_fail(
    write_module: WriteModule, text: str, kind: type[Exception], reason: str
) -> None:
    with pytest.raises(kind) as caught:
        make(write_module, text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("write_module")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("python:no_such_net:make", "there is no module 'no_such_net' for the backbone"),
        ("python:json.no_such_net:make", "there is no module 'json.no_such_net' for"),
        ("python:json", "must be python:MODULE:FACTORY, such as python:my_net:make"),
        ("python:net.py:", "must be python:MODULE:FACTORY"),
        ("python::make", "must be python:MODULE:FACTORY"),
        ("python:../net:make", "must be python:MODULE:FACTORY"),
        ("python:json:load_it", "nearest: load, loads"),
    ],
)
def test_names_that_lead_nowhere(name: str, reason: str) -> None:
    with pytest.raises(BackboneNotFoundError) as caught:
        load_backbone(name)
    assert reason in str(caught.value)


def test_a_network_that_does_not_embed(write_module: WriteModule) -> None:
    backbone = make(write_module, "def make(): return Net().conv, SMALL")
    with pytest.raises(BackboneExportError, match=r"answers shape \(2, 6, 5, 9\) for two"):
        _ = backbone.onnx

# SPDX-License-Identifier: Apache-2.0
"""What a card remembers is what loading would say, or it is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edge_imprint.backbones import Backbone, load_backbone
from edge_imprint.backbones.cards import Card, Cards
from edge_imprint.backbones.names import parse_name
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Preprocess
from edge_imprint_runtime.errors import BackboneMismatchError
from edge_imprint_runtime.graph_files import cache_folder, graph_path, has_graph

NAME = "timm/test_efficientnet"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    folder = tmp_path / "home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust files that were written a moment ago, for tests that do not race."""
    monkeypatch.setattr("edge_imprint.backbones.cards._SETTLED_S", -3600.0)


def with_graph(backbone: Backbone) -> Backbone:
    """Put any file in its graph's place: what counts is that there is one."""
    path = graph_path(backbone.info)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"graph")
    return backbone


def card_file() -> Path:
    (file,) = (cache_folder() / "cards").iterdir()
    return file


FRESH = """
import json, sys
from edge_imprint.backbones import load_backbone
backbone = load_backbone(*{args}, **{options})
backbone.ensure_graph()
heavy = {{"torch", "timm", "torchvision", "onnx", "onnxruntime"}} & set(sys.modules)
print(json.dumps([backbone.info.digest, backbone.has_module, sorted(heavy)]))
"""


def fresh(*args: Any, **options: Any) -> Any:
    """Load in an interpreter of its own; gives digest, has_module and heavy imports."""
    done = subprocess.run(
        [sys.executable, "-c", FRESH.format(args=args, options=options)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("name", [NAME, "torchvision/squeezenet1_1", f"{NAME}#blocks.1"])
def test_what_was_loaded_is_recalled_without_torch(name: str) -> None:
    backbone = with_graph(load_backbone(name, random_weights=True))
    digest, has_module, heavy = fresh(name, random_weights=True)
    assert (digest, has_module, heavy) == (backbone.info.digest, True, [])
    again = load_backbone(name, random_weights=True)
    assert again.info == backbone.info
    assert again.module is not None  # loaded now, and found to be the same
    assert backbone.module is not None
    assert again.module is not backbone.module


@pytest.mark.usefixtures("home")
def test_the_demo_needs_nothing_heavy_once_its_graph_is_there() -> None:
    load_backbone("demo").ensure_graph()
    assert fresh("demo")[1:] == [False, []]


@pytest.mark.usefixtures("home", "settled")
def test_an_onnx_file_is_recalled_without_onnx(onnx_file: Path) -> None:
    backbone = load_backbone(f"onnx:{onnx_file}")
    assert card_file()
    assert not has_graph(backbone.info)
    backbone.ensure_graph()
    again = load_backbone(f"onnx:{onnx_file}")
    assert (again.info, again.notes) == (backbone.info, backbone.notes)
    assert to_bytes(again.make_graph()) == to_bytes(backbone.onnx)
    # Its own preprocessing is no part of the card.
    mine = Preprocess(16, 16, mean=(0.5, 0.5, 0.5))
    other = load_backbone(f"onnx:{onnx_file}", preprocess=mine)
    assert (other.info.preprocess, other.notes) == (mine, ())


@pytest.mark.usefixtures("home")
def test_the_warm_onnx_file_in_a_fresh_interpreter(onnx_file: Path) -> None:
    young_s = time.time() - os.stat(onnx_file).st_ctime
    time.sleep(max(0.0, 2.1 - young_s))  # until it has settled; see `Cards`
    load_backbone(f"onnx:{onnx_file}").ensure_graph()
    assert fresh(f"onnx:{onnx_file}")[1:] == [False, []]


@pytest.mark.usefixtures("home")
def test_a_file_of_a_moment_ago_is_not_trusted(onnx_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.onnx"
    file.write_bytes(onnx_file.read_bytes())
    os.utime(file, (1, 1))  # its mtime says nothing; its ctime, which nobody can set, does
    load_backbone(f"onnx:{file}").ensure_graph()
    assert not (cache_folder() / "cards").exists()


@pytest.mark.usefixtures("home", "settled")
@pytest.mark.parametrize("how", ["other bytes", "same size and time", "gone"])
def test_a_changed_weights_file(how: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = tmp_path / "w.safetensors"
    module = load_backbone(NAME, random_weights=True).module
    assert module is not None
    save_file(module.state_dict(), file)
    first = with_graph(load_backbone(NAME, weights=file))
    assert load_backbone(NAME, weights=file).info == first.info
    before = os.stat(file)
    tensors = load_file(file)
    if how == "gone":
        file.unlink()
        from edge_imprint_runtime.errors import WeightsError

        with pytest.raises(WeightsError, match="there is no weights file"):
            load_backbone(NAME, weights=file)
        return
    if how == "other bytes":
        tensors["extra"] = tensors["conv_stem.weight"].clone()
    tensors["conv_stem.weight"] = tensors["conv_stem.weight"] + 1
    save_file(tensors, file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load_backbone(NAME, weights=file).info.digest != first.info.digest


@pytest.mark.usefixtures("home", "settled")
def test_changed_external_weights(tmp_path: Path, tiny_backbone: bytes) -> None:
    file = tmp_path / "m.onnx"
    model = onnx.load_model_from_string(tiny_backbone)
    onnx.save_model(
        model, file, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    first = load_backbone(f"onnx:{file}")
    first.ensure_graph()
    stamped = json.loads(card_file().read_text())["card"]["files"]
    assert [Path(path).name for path, _ in stamped] == ["m.onnx", "w.bin"]
    weights = np.frombuffer((tmp_path / "w.bin").read_bytes(), np.float32) * 2
    (tmp_path / "w.bin").write_bytes(weights.astype(np.float32).tobytes())
    assert load_backbone(f"onnx:{file}").info.digest != first.info.digest


@pytest.mark.usefixtures("home")
def test_a_card_without_its_graph_is_not_taken() -> None:
    backbone = with_graph(load_backbone(NAME, random_weights=True))
    graph_path(backbone.info).unlink()
    found = Cards(parse_name(NAME), random_weights=True).find()
    assert found is None
    assert load_backbone(NAME, random_weights=True).info == backbone.info


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "no text": lambda data: bytes(200),
    "a list": lambda data: b"[]",
    "deep": lambda data: b"[" * 100_000,
    "a digit": lambda data: data.replace(b'"digest": "', b'"digest": "0', 1),
    "another name": lambda data: data.replace(b"test_efficientnet", b"test_efficientnot"),
    "other notes": lambda data: data.replace(b'"notes": []', b'"notes": 5'),
}


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_card_is_made_anew(damage: str) -> None:
    backbone = with_graph(load_backbone(NAME, random_weights=True))
    file = card_file()
    good = file.read_bytes()
    assert DAMAGES[damage](good) != good
    file.write_bytes(DAMAGES[damage](good))
    assert Cards(parse_name(NAME), random_weights=True).find() is None
    assert load_backbone(NAME, random_weights=True).info == backbone.info
    assert file.read_bytes() == good


def test_a_cache_that_cannot_be_written(home: Path) -> None:
    home.write_bytes(b"a file where the folder should be")
    first = load_backbone(NAME, random_weights=True)
    assert load_backbone(NAME, random_weights=True).info == first.info


@pytest.mark.usefixtures("home")
def test_the_card_is_of_all_options(monkeypatch: pytest.MonkeyPatch) -> None:
    name = parse_name(NAME)
    mine = Preprocess(64, 64)
    cards = [
        Cards(name),
        Cards(name, random_weights=True),
        Cards(name, weights=Path("a")),
        Cards(name, weights=Path("b")),
        Cards(name, preprocess=mine),
        Cards(name, preprocess=replace(mine, interpolation="bicubic")),
        Cards(parse_name(f"{NAME}#blocks.1")),
    ]
    real = metadata.version
    for tool in ("torch", "timm", "torchvision", "onnx"):
        with monkeypatch.context() as patch:
            patch.setattr(
                metadata, "version", lambda asked, t=tool: "99" if asked == t else real(asked)
            )
            cards.append(Cards(name))
    assert len({card.path for card in cards}) == len(cards)


@pytest.mark.usefixtures("home", "settled")
def test_weights_that_turn_out_to_be_others(tmp_path: Path) -> None:
    """Such as a hub's, which were updated: what was remembered is not passed off as them."""
    backbone = with_graph(load_backbone(NAME, random_weights=True))
    wrong = replace(backbone.info, digest="0" * 64)
    cards = Cards(parse_name(NAME), random_weights=True)
    cards.keep(Card(wrong, ()))
    graph_path(wrong).write_bytes(b"graph")
    recalled = load_backbone(NAME, random_weights=True)
    assert recalled.info == wrong
    with pytest.raises(BackboneMismatchError) as caught:
        _ = recalled.module
    assert str(caught.value) == (
        f"the weights of {NAME} are no longer those that were remembered (digest "
        f"{backbone.info.digest[:12]}, it was 000000000000); run it again, with what there is "
        "now"
    )
    assert load_backbone(NAME, random_weights=True).info == backbone.info


@pytest.mark.usefixtures("home", "settled")
def test_an_onnx_file_that_changes_between_recalling_and_reading(
    onnx_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(onnx_file.read_bytes())
    load_backbone(f"onnx:{file}").ensure_graph()
    recalled = load_backbone(f"onnx:{file}")
    model = onnx.load(file)
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    onnx.save(model, file)
    with pytest.raises(BackboneMismatchError, match=r"^the file of onnx:.* is no longer the"):
        recalled.make_graph()

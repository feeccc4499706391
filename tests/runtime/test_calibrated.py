# SPDX-License-Identifier: Apache-2.0
"""A calibrated model on a device: probabilities, and an answer to what it does not know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper
from PIL import Image

from edge_imprint.cli import main
from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, open_model
from edge_imprint_runtime.errors import ModelFileError

MakeHead = Callable[..., Head]

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def embeddings(tiny_model: Path) -> npt.NDArray[np.float32]:
    return open_model(tiny_model, "cpu").embed(PIXELS)


@pytest.fixture(params=["max", "mnn"])
def head(
    make_head: MakeHead, embeddings: npt.NDArray[np.float32], request: pytest.FixtureRequest
) -> Head:
    return make_head(
        neighbors=1 if request.param == "max" else 3,
        aggregation=request.param,
        calibrated=embeddings,
    )


@pytest.fixture
def file(tmp_path: Path, tiny_backbone: bytes, head: Head) -> Path:
    (tmp_path / "m.onnx").write_bytes(to_bytes(fuse(tiny_backbone, head)))
    return tmp_path / "m.onnx"


def test_predictions_of_a_calibrated_model(
    file: Path, head: Head, embeddings: npt.NDArray[np.float32]
) -> None:
    model = open_model(file, "cpu")
    assert model.contract.temperature == 0.25
    answers = model.predict(PIXELS)
    assert answers.known is not None
    assert answers.probability is not None
    assert answers.known.dtype == np.bool_
    assert 10 < answers.known.sum() < 30
    assert np.array_equal(answers.known, head.known(embeddings))
    assert answers.probability.dtype == np.float32
    np.testing.assert_allclose(answers.probability, head.probability(embeddings), atol=1e-5)
    for row, answer in enumerate(answers):
        index = int(answers.label[row])
        assert (answer.index, answer.nearest) == (index, head.labels[index])
        assert answer.known is bool(answers.known[row])
        assert answer.label == (head.labels[index] if answer.known else "unknown")
        assert answer.score == answers.scores[row, index]
        assert answer.probability == answers.probability[row, index]
        assert type(answer.probability) is float


def test_without_calibration_there_is_neither(tiny_model: Path) -> None:
    answers = open_model(tiny_model, "cpu").predict(PIXELS)
    assert answers.known is answers.probability is None
    assert answers[0].known is answers[0].probability is None
    assert answers[0].label == answers[0].nearest


@pytest.mark.parametrize("name", ["known", "probability"])
def test_a_calibrated_graph_without_an_output(file: Path, name: str) -> None:
    proto = onnx.load(file)
    kept = [value for value in proto.graph.output if value.name != name]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    file.write_bytes(to_bytes(proto))
    with pytest.raises(ModelFileError, match=f"the graph has no output '{name}'"):
        open_model(file)


def test_metadata_that_promise_a_calibration(tiny_model: Path, tmp_path: Path) -> None:
    proto = onnx.load(tiny_model)
    metadata = {p.key: p.value for p in proto.metadata_props}
    helper.set_model_props(proto, metadata | {"edge_imprint.temperature": "0.5"})
    (tmp_path / "m.onnx").write_bytes(to_bytes(proto))
    with pytest.raises(ModelFileError, match="the graph has no output 'known'"):
        open_model(tmp_path / "m.onnx")


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_predict_says_unknown(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = open_model(file, "cpu").predict(PIXELS)
    (tmp_path / "photos").mkdir()
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).resize((18, 18)).save(tmp_path / "photos" / f"{number:02}.png")
    model, want = open_model(file, "cpu"), []
    for photo in sorted((tmp_path / "photos").iterdir()):
        (answer,) = model.predict(photo)
        text = repr(answer.label) if answer.known else f"unknown (nearest {answer.nearest!r})"
        want.append(f"{photo}: {text} {answer.score:.4f}")
    assert any("unknown" in line for line in want)
    assert said(capsys, "predict", file, tmp_path / "photos").splitlines() == want
    lines = said(capsys, "predict", file, tmp_path / "photos", "--json").splitlines()
    keys = {"path", "label", "index", "score", "nearest", "known", "probability", "proxy"}
    assert len(lines) == len(answers)
    for line in map(json.loads, lines):
        assert set(line) == keys
        assert (line["label"] == "unknown") == (line["known"] is False)
        assert 0 <= line["probability"] <= 1


def test_inspect_says_whether_it_is_calibrated(
    file: Path,
    head: Head,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for path in (file, head.save(tmp_path / "head")):
        facts = json.loads(said(capsys, "inspect", path, "--json"))
        assert (facts["calibrated"], facts["temperature"]) == (True, 0.25)
        assert "temperature        0.25\n" in said(capsys, "inspect", path)
    facts = json.loads(said(capsys, "inspect", tiny_model, "--json"))
    assert (facts["calibrated"], facts["temperature"]) == (False, None)
    text = said(capsys, "inspect", tiny_model)
    assert "calibrated         False\n" in text
    assert "temperature" not in text

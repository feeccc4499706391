# SPDX-License-Identifier: Apache-2.0
"""`export`: files for targets, with their proof, or nothing at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from edge_imprint import Backbone, Export, export
from edge_imprint.builder import build
from edge_imprint_runtime import Frame, Head, open_model
from edge_imprint_runtime.contract.codec import NOTE_PREFIX
from edge_imprint_runtime.errors import (
    AgreementError,
    BackboneMismatchError,
    NoImagesError,
    OutputExistsError,
    OutputWriteError,
    ParameterError,
)

WritePhotos = Callable[..., Path]
HEAD_ALONE = (
    "a head alone takes embeddings and has no backbone; leave out --precision and --input"
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, write_photos: WritePhotos) -> Path:
    root = tmp_path_factory.mktemp("exports") / "photos"
    return write_photos(root, {"red": 30, "green": 30, "blue": 30})


@pytest.fixture(scope="module")
def head(photos: Path, network: Backbone) -> Path:
    file = photos.parent / "head.imprint"
    build(photos, backbone=network, out=file, hold_out=0.2)
    return file


def notes(path: Path) -> dict[str, str]:
    properties = onnx.load(path).metadata_props
    return {
        entry.key[len(NOTE_PREFIX) :]: entry.value
        for entry in properties
        if entry.key.startswith(NOTE_PREFIX)
    }


def test_what_is_found_is_printed_in_the_file(head: Path, tmp_path: Path) -> None:
    made = export(head, out=tmp_path / "m.onnx")
    assert made.path == tmp_path / "m.onnx"
    assert made.proof is not None
    assert made.proof.source == "held_out"
    assert made.proof.agreement == 1.0
    assert made.proof.max_difference < 1e-4
    few = f"compared on {made.proof.photos} photos only, which shows little; give more with "
    assert made.notes == (few + "--images",)
    found = notes(made.path)
    assert found["proof"] == made.proof.line()
    assert found["exported_with"].startswith("edge-imprint=")
    assert found["hold_out"] == "share=0.200000"
    assert found["build"].startswith("photos=")
    assert dict(open_model(made.path).contract.notes) == found


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_precisions_are_proved(head: Path, tmp_path: Path, precision: str) -> None:
    made = export(head, out=tmp_path / "m.onnx", precision=precision, target="onnxruntime")
    assert made.proof is not None
    assert made.proof.agreement >= 0.99
    assert 0 < made.proof.mean_difference <= made.proof.max_difference < 0.2
    graph = open_model(made.path).contract.graph
    assert graph is not None
    assert (graph.precision, graph.target) == (precision, "onnxruntime")


def test_a_budget_not_met_writes_nothing_and_names_layers(
    head: Path, photos: Path, tmp_path: Path
) -> None:
    """Photos where one class becomes another, so that the least difference decides."""
    exact = open_model(export(head, out=tmp_path / "exact.onnx", proof=False).path)
    ends = [Image.open(photos / name / f"{name}-0.png") for name in ("red", "green")]
    steps = [Image.blend(*ends, share) for share in np.linspace(0, 1, 200)]
    turn = int(np.argmax(np.diff(exact.predict(steps).label) != 0))
    rng = np.random.default_rng(0)
    folder = tmp_path / "between"
    folder.mkdir()
    for number in range(300):
        pixels = np.asarray(steps[turn]).astype(int) + rng.integers(-2, 3, (24, 24, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    out = tmp_path / "m.onnx"
    with pytest.raises(AgreementError) as caught:
        export(head, out=out, precision="int8", images=folder, min_agreement=1.0)
    message = str(caught.value)
    assert message.startswith("the exported model agrees with float32 on ")
    assert "the layers that cost most: backbone/" in message
    assert not out.exists()


def test_layers_can_stay_float32(head: Path, tmp_path: Path) -> None:
    part = export(head, out=tmp_path / "a.onnx", precision="int8", target="onnxruntime")
    kept = export(
        head,
        out=tmp_path / "b.onnx",
        precision="int8",
        target="onnxruntime",
        keep_float32=["*conv0*"],
    )
    count = [
        sum(node.op_type == "QuantizeLinear" for node in onnx.load(made.path).graph.node)
        for made in (part, kept)
    ]
    assert count[1] < count[0]
    found = notes(kept.path)
    assert found["keep_float32"] == "*conv0*"
    assert re.fullmatch("photos=[0-9]+ sha256=[0-9a-f]{64}", found["calibration"])


def test_frames(head: Path, tmp_path: Path) -> None:
    frame = Frame("yuyv", 48, 64)
    made = export(head, out=tmp_path / "m.onnx", input="frame", frame=frame)
    assert made.proof is not None
    assert made.proof.agreement == 1.0
    model = open_model(made.path)
    assert model.input_shape == (48, 64, 2)
    assert len(model.predict(np.zeros((2, 48, 64, 2), np.uint8))) == 2


def test_teachable_writes_the_head_beside(head: Path, tmp_path: Path) -> None:
    made = export(head, out=tmp_path / "m.onnx", teachable=True, target="jetpack-6.2")
    assert made.head_path == tmp_path / "m.onnx.head"
    beside = Head.load(made.head_path)
    np.testing.assert_array_equal(beside.proxies, Head.load(head).proxies)
    assert open_model(made.path).labels == ("blue", "green", "red")
    with pytest.raises(OutputExistsError, match=r"m\.onnx exists already"):
        export(head, out=tmp_path / "m.onnx", teachable=True)
    made.path.unlink()
    with pytest.raises(OutputExistsError, match=r"m\.onnx\.head exists already"):
        export(head, out=tmp_path / "m.onnx", teachable=True)


@pytest.mark.parametrize("part", ["backbone", "head"])
def test_parts(head: Path, tmp_path: Path, part: str) -> None:
    made = export(head, out=tmp_path / "m.onnx", part=part)
    assert made.proof is not None
    assert made.proof.agreement == 1.0
    model = onnx.load(made.path)
    names = [model.graph.input[0].name, *(value.name for value in model.graph.output)]
    want = {"backbone": ["images", "embedding"], "head": ["embedding", "scores", "label"]}
    assert names == want[part]
    assert notes(made.path)["proof"] == made.proof.line()


def test_a_bare_head_is_exported_alone(tmp_path: Path) -> None:
    file = Head(np.eye(4), range(4), list("abcd")).save(tmp_path / "bare.imprint")
    made = export(file, out=tmp_path / "m.onnx", part="head")
    assert made.proof is None
    model = open_model(made.path)
    assert [answer.label for answer in model.predict(np.eye(4, dtype=np.float32))] == list(
        "abcd"
    )
    with pytest.raises(BackboneMismatchError, match="does not say which backbone"):
        export(file, out=tmp_path / "whole.onnx")


def test_photos_that_are_gone_are_said_to_be(
    head: Path, tmp_path: Path, network: Backbone, write_photos: WritePhotos
) -> None:
    photos = write_photos(tmp_path / "photos", {"red": 6, "blue": 6})
    file = tmp_path / "h.imprint"
    build(photos, backbone=network, out=file)
    photos.rename(tmp_path / "moved")
    made = export(file, out=tmp_path / "m.onnx")
    gone = "it is not known where the photos of the build are now; name photos with --images"
    assert made.proof is None
    assert made.notes == (f"not compared with float32: {gone}",)
    with pytest.raises(NoImagesError) as caught:
        export(file, out=tmp_path / "n.onnx", precision="int8")
    assert str(caught.value) == f"int8 is calibrated on photos: {gone}"
    again = export(file, out=tmp_path / "n.onnx", images=tmp_path / "moved")
    seen = "compared on photos that the head has seen; build with --hold-out 0.1 to "
    few = "compared on 12 photos only, which shows little; give more with --images"
    assert again.notes == (seen + "compare on others", few)
    assert again.proof is not None
    assert again.proof.source == "build"  # known by what they hold
    for options in ({"precision": "fp16"}, {"head_precision": "int8"}, {"min_agreement": 0.5}):
        with pytest.raises(NoImagesError) as caught:
            export(file, out=tmp_path / "p.onnx", **options)  # type: ignore[arg-type]
        assert str(caught.value) == (
            f"the model can't be compared with float32: {gone}, or leave the comparison out "
            "with --no-proof"
        )
    assert not (tmp_path / "p.onnx").exists()
    assert export(file, out=tmp_path / "p.onnx", precision="fp16", proof=False).proof is None
    silent = export(file, out=tmp_path / "o.onnx", proof=False)
    assert (silent.proof, silent.notes) == (None, ())


def test_other_photos_are_given_ones_and_all_judge(
    head: Path, tmp_path: Path, write_photos: WritePhotos
) -> None:
    other = write_photos(tmp_path / "other", {"red": 30, "green": 30}, size=20)
    made = export(head, out=tmp_path / "m.onnx", images=other)
    assert made.proof is not None
    assert (made.proof.photos, made.proof.source) == (60, "given")
    assert made.notes == ()


def test_nothing_is_written_twice_into_one_file(head: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    for bill, options in ((out, {}), (tmp_path / "m.onnx.head", {"teachable": True})):
        with pytest.raises(OutputWriteError) as caught:
            export(head, out=out, sbom=bill, **options)  # type: ignore[arg-type]
        assert str(caught.value) == (
            f"cannot write {bill}: it would be written twice, as the model, its head or its "
            "bill of materials; name another file"
        )
    assert list(tmp_path.iterdir()) == []


def test_fp16_with_broken_photos_among_those_given(
    head: Path, tmp_path: Path, photos: Path
) -> None:
    folder = tmp_path / "mostly broken"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.png").write_bytes(b"no image %d" % number)
    (folder / "good.png").write_bytes((photos / "red" / "red-0.png").read_bytes())
    made = export(head, out=tmp_path / "m.onnx", precision="fp16", images=folder)
    assert made.proof is not None
    assert made.proof.photos == 1


def test_bill_of_materials(head: Path, tmp_path: Path) -> None:
    bill = tmp_path / "bom.json"
    export(head, out=tmp_path / "m.onnx", sbom=bill)
    found = json.loads(bill.read_text())
    assert found["bomFormat"] == "CycloneDX"
    assert found["metadata"]["component"]["name"] == "m.onnx"
    with pytest.raises(OutputExistsError):
        export(head, out=tmp_path / "n.onnx", sbom=bill)
    assert not (tmp_path / "n.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_agreement": 1.1}, "min_agreement must be a share from 0 to 1, got 1.1"),
        ({"part": "tail"}, "part must be 'all' or 'backbone' or 'head', got 'tail'"),
        ({"precision": "int4"}, "precision must be 'fp32' or 'fp16' or 'int8', got 'int4'"),
        (
            {"keep_float32": ["conv0"]},
            "--keep-float32 is for --precision fp16 or int8; in fp32 all layers stay so",
        ),
        (
            {"part": "backbone", "teachable": True},
            "a backbone alone has no proxies; leave out --head-precision and --teachable",
        ),
        (
            {"part": "head", "precision": "fp16"},
            HEAD_ALONE,
        ),
    ],
)
def test_options_that_contradict(
    head: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        export(head, out=tmp_path / "m.onnx", **options)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_the_head_is_never_replaced(head: Path) -> None:
    with pytest.raises(OutputWriteError, match="it is what this is made from"):
        export(head, out=head, force=True)


def test_equal_exports_are_equal_bytes(head: Path, tmp_path: Path) -> None:
    def made(name: str, **options: str) -> Export:
        return export(head, out=tmp_path / name, **options)  # type: ignore[arg-type]

    for precision in ("fp32", "fp16", "int8"):
        first, second = (made(f"{precision}{i}", precision=precision) for i in range(2))
        assert first.path.read_bytes() == second.path.read_bytes()

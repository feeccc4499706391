# SPDX-License-Identifier: Apache-2.0
"""A teachable model on a device: the head beside it, teaching, and answers meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper
from PIL import Image

from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import BackboneInfo, Head, Model, Preprocess, open_image, open_model
from edge_imprint_runtime.contract import Teachable
from edge_imprint_runtime.errors import (
    BrokenImageError,
    ContractValueError,
    HeadFileError,
    HeadMismatchError,
    InputError,
    ModelFileError,
    NotTeachableError,
    OutputWriteError,
    ParameterError,
)
from edge_imprint_runtime.files import write_atomic
from edge_imprint_runtime.knowledge import head_beside
from edge_imprint_runtime.teaching import forget, teach

MakeHead = Callable[..., Head]
MakeModel = Callable[..., Path]
Pixels = npt.NDArray[np.uint8]


def pixels(count: int, seed: int = 0) -> Pixels:
    """Noise about a colour: (count, 16, 16, 3)."""
    rng = np.random.default_rng(seed)
    found: Pixels = np.clip(
        rng.integers(0, 256, 3) + rng.integers(-30, 30, (count, 16, 16, 3)), 0, 255
    ).astype(np.uint8)
    return found


@pytest.fixture
def make_model(tiny_backbone: bytes, tmp_path: Path) -> MakeModel:
    """Return ``make(head, form="default", classes=6, proxies=3, beside=True)``: a path."""

    def make(
        head: Head,
        form: str = "default",
        classes: int = 6,
        proxies: int = 3,
        *,
        beside: bool = True,
    ) -> Path:
        path = tmp_path / "m.onnx"
        made = fuse(tiny_backbone, head, teachable=Teachable(form, classes, proxies))
        path.write_bytes(to_bytes(made))
        if beside:
            head.save(head_beside(path), force=True)
        return path

    return make


def agree(model: Model, head: Head, images: Pixels) -> bool:
    """Whether the model answers as the oracle does."""
    answer, embeddings = model.predict(images), model.embed(images)
    return (
        answer.labels == head.labels
        and np.array_equal(answer.label, head.predict(embeddings))
        and np.allclose(answer.scores, head.scores(embeddings), rtol=0, atol=1e-5)
    )


# The head beside the model -----------------------------------------------------------------


@pytest.mark.parametrize("form", ["default", "input"])
def test_what_lies_beside_is_what_it_knows(
    make_model: MakeModel, make_head: MakeHead, form: str
) -> None:
    path = make_model(make_head(), form)
    assert head_beside(path).name == "m.onnx.head"
    model = open_model(path, "cpu")
    assert agree(model, make_head(), pixels(20))
    assert model.contract.labels == model.labels == make_head().labels
    # Another head of the same backbone and rule: more classes, other proxies.
    other = make_head(5, 4, seed=3)
    other.save(head_beside(path), force=True)
    assert agree(open_model(path, "cpu"), other, pixels(20))


def test_without_a_head_beside_the_default_answers_and_cannot_be_taught(
    make_model: MakeModel, make_head: MakeHead
) -> None:
    path = make_model(make_head(), beside=False)
    model = open_model(path, "cpu")
    assert model.head is None
    assert agree(model, make_head(), pixels(20))
    for call in (
        lambda: model.teach("new", pixels(1)),
        lambda: model.forget("class 0"),
        model.save_head,
    ):
        with pytest.raises(HeadFileError) as caught:
            call()
        assert str(caught.value) == (
            "teaching starts from the head beside the model, and there is no file "
            f"{path}.head; copy it from where the model was exported"
        )


def test_without_a_default_the_head_must_be_there(
    make_model: MakeModel, make_head: MakeHead
) -> None:
    path = make_model(make_head(), "input", beside=False)
    with pytest.raises(HeadFileError) as caught:
        open_model(path)
    assert str(caught.value) == (
        f"{path} takes its classes from a head, and there is no file {path}.head; "
        "copy it from where the model was exported"
    )


def test_a_file_beside_another_model_is_not_looked_at(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(tiny_model.read_bytes())
    head_beside(path).write_text("no head")
    model = open_model(path)
    with pytest.raises(NotTeachableError) as caught:
        model.teach("new", pixels(1))
    assert str(caught.value) == (
        f"{path} was exported without --teachable, so that its classes can't change; "
        "export it again with it"
    )


def test_a_head_that_is_none(make_model: MakeModel, make_head: MakeHead) -> None:
    path = make_model(make_head())
    head_beside(path).write_bytes(b"no head at all")
    with pytest.raises(HeadFileError, match=r"m\.onnx\.head is not a head file"):
        open_model(path)


AGAIN = "; put the head there that was exported with the model, or export it again"
SIX = "the model holds 6; export it again with a higher --max-classes"
TAKEN = "; put the head there that was exported with the model"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": None}, f"was made with another backbone than the model{AGAIN}"),
        ({"digest": "1" * 64}, f"was made with another backbone than the model{AGAIN}"),
        (
            {"preprocess": Preprocess(16, 16)},
            f"was made with other preprocessing than the model's{AGAIN}",
        ),
        ({"norm": "none"}, f"has another embedding size or rule than the model{AGAIN}"),
        ({"dim": 9}, f"has another embedding size or rule than the model{AGAIN}"),
        ({"classes": 7}, f"has 7 classes, {SIX}"),
        ({"proxies": 6}, None),
        ({"center": True}, f"has center, which the model does not take{TAKEN}"),
        ({"calibrated": True}, None),
    ],
)
def test_a_head_that_does_not_fit(
    make_model: MakeModel,
    make_head: MakeHead,
    tiny_info: BackboneInfo,
    change: dict[str, Any],
    message: str | None,
) -> None:
    path = make_model(make_head())
    beside = head_beside(path)
    for name in ("digest", "preprocess"):
        if name in change:
            change = {"backbone": replace(tiny_info, **change)}
    other = make_head(**({"classes": 3, "proxies": 2} | change))
    other.save(beside, force=True)
    if "calibrated" in change:
        message = f"of {beside} and its model only one is calibrated{AGAIN}"
    elif "proxies" in change:
        label = other.labels[np.bincount(other.class_index).argmax()]
        message = (
            f"{beside}: class {label!r} has 6 proxies, the model has room for 5 a class; "
            "export the model again from this head"
        )
    else:
        message = f"{beside} {message}"
    with pytest.raises(HeadMismatchError) as caught:
        open_model(path)
    assert str(caught.value) == message


def test_a_map_of_another_size(make_model: MakeModel, make_head: MakeHead) -> None:
    head = make_head(transform=True)
    path = make_model(head)
    assert head.transform is not None
    narrow = Head(
        head.proxies[:, :5],
        head.class_index,
        head.labels,
        transform=head.transform[:, :5],
        backbone=head.backbone,
    )
    narrow.save(head_beside(path), force=True)
    with pytest.raises(HeadMismatchError) as caught:
        open_model(path)
    assert str(caught.value) == (
        f"{path}.head has proxies of shape [5, 'columns'], the model takes [11, 'columns']"
        f"{TAKEN}"
    )
    make_head().save(head_beside(path), force=True)
    with pytest.raises(HeadMismatchError, match="lacks transform, which the model takes"):
        open_model(path)


# Teaching ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["default", "input"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_it_answers_as_the_taught_head_does(
    make_model: MakeModel, make_head: MakeHead, form: str, calibrated: bool
) -> None:
    head = make_head(calibrated=calibrated)
    model = open_model(make_model(head, form), "cpu")
    new = pixels(6, seed=1)
    taught = model.teach("new", new)
    assert model.head is taught
    assert model.labels == (*head.labels, "new")
    assert (model.predict(new).label == 3).all()
    alone = np.concatenate([model.embed(image) for image in new])
    for name in ("proxies", "samples", "threshold"):
        wanted = getattr(teach(head, "new", alone, proxies=3), name)
        assert np.array_equal(getattr(taught, name), wanted) or wanted is None
    assert agree(model, taught, pixels(30, seed=2))
    assert agree(model, model.forget("class 1"), pixels(30, seed=2))
    assert model.labels == ("class 0", "class 2", "new")


def test_photos_in_each_form(
    make_model: MakeModel, make_head: MakeHead, tmp_path: Path
) -> None:
    """Paths, images and arrays, alone or several, are taught alike."""
    path, images = make_model(make_head()), pixels(3)
    files = []
    for i, image in enumerate(Image.fromarray(row) for row in images):
        files.append(tmp_path / f"{i}.png")
        image.resize((18, 18)).save(files[-1])
    opened = [open_image(file) for file in files]
    prepared = open_model(path).prepare(files)
    heads = []
    for photos in (files, opened, [str(file) for file in files], prepared):
        model = open_model(path, threads=1)
        heads.append(model.teach("new", photos))  # type: ignore[arg-type]
        one_by_one = open_model(path, threads=1)
        for photo in photos:
            one_by_one.teach("new", photo)  # type: ignore[arg-type]
        heads.append(one_by_one.require_head())
    saved = {head.save(tmp_path / "h", force=True).read_bytes() for head in heads}
    assert len(saved) == 1


def test_it_goes_on_where_it_was_saved(make_model: MakeModel, make_head: MakeHead) -> None:
    path, images = make_model(make_head()), pixels(10)
    whole = open_model(path, threads=1)
    whole.teach("new", images)
    for part in (images[:5], images[5:]):
        model = open_model(path, threads=1)
        model.teach("new", part)
        assert model.save_head() == head_beside(path)
    assert open_model(path).labels[-1] == "new"
    parts = head_beside(path).read_bytes()
    assert whole.save_head(path.with_name("other")).read_bytes() == parts


def test_limits(make_model: MakeModel, make_head: MakeHead) -> None:
    model = open_model(make_model(make_head(), classes=4, proxies=2))
    with pytest.raises(ParameterError) as caught:
        model.teach("new", pixels(5), proxies=3)
    assert str(caught.value) == (
        "the model has room for 2 taught proxies a class, got proxies=3; give fewer, or "
        "export it again with a higher --taught-proxies"
    )
    model.teach("new", pixels(5))
    with pytest.raises(ParameterError) as caught:
        model.teach("another", pixels(5))
    assert str(caught.value) == (
        "the model holds 4 classes and knows 4; forget one, or export it again with a higher "
        "--max-classes"
    )
    model.teach("new", pixels(5, seed=9), proxies=1)
    assert np.bincount(model.require_head().class_index)[3] == 1
    model.forget("class 0")
    model.teach("another", pixels(5))


def test_what_fails_changes_nothing(
    make_model: MakeModel, make_head: MakeHead, tmp_path: Path
) -> None:
    path = make_model(make_head(calibrated=True))
    model = open_model(path)
    before = model.head
    (tmp_path / "text.png").write_text("no image")
    for images, label, error in (
        ([tmp_path / "text.png"], "new", BrokenImageError),
        ([], "new", InputError),
        (np.zeros((1, 3, 16, 16), np.uint8), "new", InputError),
        (pixels(2), "unknown", ContractValueError),
    ):
        with pytest.raises(error):
            model.teach(label, images)  # type: ignore[arg-type]
        assert model.head is before
    model.teach("new", pixels(2))
    with pytest.raises(OutputWriteError):
        model.save_head(tmp_path / "missing" / "head")
    assert Head.load(head_beside(path)).labels == make_head().labels


def test_answers_are_of_one_head_while_another_thread_teaches(
    make_model: MakeModel, make_head: MakeHead
) -> None:
    head = make_head()
    model = open_model(make_model(head), threads=1)
    images, new = pixels(8, seed=5), pixels(3, seed=6)
    embeddings = model.embed(images)
    more = teach(head, "new", np.concatenate([model.embed(row) for row in new]), proxies=3)
    less = forget(more, "class 0")
    wanted = {known.labels: known.scores(embeddings) for known in (head, more, less)}
    failed: list[str] = []
    seen: set[tuple[str, ...]] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            answer = model.predict(images)
            seen.add(answer.labels)
            scores = wanted.get(answer.labels)
            if scores is None or scores.shape != answer.scores.shape:
                failed.append(f"{answer.labels} with {answer.scores.shape}")
            elif not np.allclose(answer.scores, scores, rtol=0, atol=1e-5):
                failed.append(f"scores of {answer.labels}")

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    original = model._known
    for _ in range(60):
        model.teach("new", new)
        model.forget("class 0")
        model._known = original
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(seen) > 1


def test_several_threads_teach_and_nothing_is_lost(
    make_model: MakeModel, make_head: MakeHead
) -> None:
    model = open_model(make_model(make_head(), classes=40), threads=1)
    threads = [
        threading.Thread(target=model.teach, args=(f"new {i}", pixels(2, seed=i)))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(model.labels) == {*make_head().labels, *(f"new {i}" for i in range(8))}


def test_an_older_head_is_not_written_over_a_newer_one(
    make_model: MakeModel, make_head: MakeHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread is held where it writes; what another teaches meanwhile is not lost."""
    path = make_model(make_head())
    model = open_model(path, threads=1)
    writing, go, done = threading.Event(), threading.Event(), threading.Event()

    def gated(*given: Any, **options: Any) -> Path:
        if not writing.is_set():
            writing.set()
            assert go.wait(120)
        return write_atomic(*given, **options)

    def teach_and_save() -> None:
        model.teach("new", pixels(2))
        model.save_head()
        done.set()

    monkeypatch.setattr("edge_imprint_runtime.head.write_atomic", gated)
    threads = [threading.Thread(target=each) for each in (model.save_head, teach_and_save)]
    threads[0].start()
    assert writing.wait(120)
    threads[1].start()
    done.wait(0.5)  # it gets far where nothing holds it
    assert len(model.predict(pixels(1))) == 1  # answers go on meanwhile
    go.set()
    for thread in threads:
        thread.join(120)
    assert done.is_set()
    assert Head.load(head_beside(path)).labels == model.labels == (*make_head().labels, "new")


def test_teaching_loads_neither_torch_nor_onnx(
    make_model: MakeModel, make_head: MakeHead
) -> None:
    code = (
        "import sys, numpy as np\n"
        "from edge_imprint_runtime import open_model\n"
        "model = open_model(sys.argv[1])\n"
        "model.teach('new', np.zeros((2, 16, 16, 3), np.uint8))\n"
        "model.save_head()\n"
        "assert not {'onnx', 'torch', 'edge_imprint_export'} & sys.modules.keys()\n"
    )
    path = make_model(make_head())
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Head.load(head_beside(path)).labels[-1] == "new"


def test_a_graph_with_inputs_that_its_metadata_do_not_speak_of(
    make_model: MakeModel, make_head: MakeHead
) -> None:
    path = make_model(make_head(), "input")
    proto = onnx.load(path)
    kept = {p.key: p.value for p in proto.metadata_props if "teachable" not in p.key}
    helper.set_model_props(proto, kept)
    path.write_bytes(to_bytes(proto))
    with pytest.raises(ModelFileError, match="the graph must have one input"):
        open_model(path)

# SPDX-License-Identifier: Apache-2.0
"""`build`: photos in, head file out; against a head made by hand, and all that stops it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge_imprint import Backbone, ImprintClassifier, build
from edge_imprint.embedding.engine import Result
from edge_imprint.embedding.gpus import find_gpus
from edge_imprint.embedding.local import LocalEngine
from edge_imprint.embedding.run import How
from edge_imprint.photos import Location
from edge_imprint_runtime import Head, Preprocess
from edge_imprint_runtime.errors import (
    BackboneNotFoundError,
    OutputExistsError,
    OutputWriteError,
    ParameterError,
)

WritePhotos = Callable[..., Path]

EXACT = How(decode="exact")


def embedded_by_hand(folder: Path, graph: bytes, p: Preprocess) -> npt.NDArray[np.float32]:
    """Embed a folder's PNG files with Pillow, numpy and ONNX Runtime alone."""
    import onnxruntime as ort

    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rows = []
    for file in sorted(folder.iterdir()):
        image = Image.open(file).convert("RGB").resize((p.resize_width, p.resize_height), 2)
        left, top = (p.resize_width - p.width) // 2, (p.resize_height - p.height) // 2
        crop = np.asarray(image)[top : top + p.height, left : left + p.width]
        x = ((crop / 255 - np.array(p.mean)) / np.array(p.std)).astype(np.float32)
        rows.append(session.run(None, {"pixels": x.transpose(2, 0, 1)[np.newaxis]})[0][0])
    return np.stack(rows)


@pytest.fixture(scope="module")
def by_hand(
    photos_folder: Path, tiny_backbone: bytes, network: Backbone
) -> dict[str, npt.NDArray[np.float32]]:
    return {
        label: embedded_by_hand(photos_folder / label, tiny_backbone, network.info.preprocess)
        for label in ("blue", "green", "red")
    }


def test_a_head_of_means_is_the_one_made_by_hand(
    photos_folder: Path, network: Backbone, by_hand: dict[str, npt.NDArray[np.float32]]
) -> None:
    made = build(photos_folder, backbone=network, recipe="qi2018", how=EXACT)
    assert made.head.labels == ("blue", "green", "red")
    for c, rows in enumerate(by_hand.values()):
        want = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
        want /= np.linalg.norm(want)
        np.testing.assert_allclose(made.head.proxies[c], want, atol=1e-5)


def test_a_head_of_kmeans_is_the_classifiers(
    photos_folder: Path, network: Backbone, by_hand: dict[str, npt.NDArray[np.float32]]
) -> None:
    made = build(photos_folder, backbone=network, proxies=3, how=EXACT)
    rows = np.concatenate(list(by_hand.values()))
    names = np.repeat(list(by_hand), [len(part) for part in by_hand.values()])
    want = ImprintClassifier("kmeans", 3).fit(rows, names).head_
    np.testing.assert_array_equal(made.head.class_index, want.class_index)
    np.testing.assert_allclose(made.head.scores(rows), want.scores(rows), atol=1e-4)
    assert (made.head.recipe, made.head.rule) == (want.recipe, want.rule)


def test_what_a_build_says_of_itself(
    photos_folder: Path, network: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no digest is remembered
    told: list[tuple[str, int, int]] = []
    out = tmp_path / "head.safetensors"
    made = build(
        photos_folder,
        backbone=network,
        out=out,
        how=How(cache=False),
        progress=lambda *step: told.append(step),
    )
    assert made.path == out
    assert made.images == 18
    assert made.skipped == ()
    assert made.device == "cpu"
    assert made.head.backbone == network.info
    (note,) = made.notes
    assert note == (
        "fewer photos than 20 proxies in 'blue' (4), 'green' (6), 'red' (8): "
        "each photo becomes a proxy there"
    )
    assert min(made.embed_s, made.imprint_s) > 0
    steps = list(dict.fromkeys(step for step, _, _ in told))
    assert steps == [
        "loading the backbone",
        "reading",
        "embedding",
        "imprinting",
        "looking for suspects",
    ]
    assert {("reading", 18, 18), ("embedding", 18, 18), ("imprinting", 3, 3)} <= set(told)
    loaded = Head.load(out)
    assert loaded.proxies.tobytes() == made.head.proxies.tobytes()
    assert loaded.contract == made.head.contract


def test_many_small_classes_and_ignored_files_are_noted(
    write_photos: WritePhotos, network: Backbone, tmp_path: Path
) -> None:
    root = write_photos(tmp_path, {f"c{i}": 1 for i in range(7)})
    (root / "c0" / "notes.txt").touch()
    made = build(root, backbone=network, proxies=2)
    few = ", ".join(f"'c{i}' (1)" for i in range(5))
    assert made.notes == (
        "1 file is no image of a kind that is read, and was ignored",
        f"fewer photos than 2 proxies in {few} and 2 more: each photo becomes a proxy there",
    )
    assert len(made.head.proxies) == 7  # a class of one image is its one proxy
    assert build(root, backbone=network, recipe="qi2018").notes == made.notes[:1]


# Bytes -------------------------------------------------------------------------------------


def test_the_head_file_depends_on_names_and_photos_only(
    photos_folder: Path, network: Backbone, tmp_path: Path
) -> None:
    for name, files in (
        ("one", sorted(photos_folder.rglob("*.png"))),
        ("two", sorted(photos_folder.rglob("*.png"), reverse=True)),
    ):
        for file in files:  # written to disk in another order, at another place
            target = tmp_path / name / file.relative_to(photos_folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    lines = [f"{f.relative_to(photos_folder)},{f.parent.name}" for f in files]
    (tmp_path / "one" / "photos.csv").write_text("\n".join(["path,label", *lines]))
    heads = []
    for number, data in enumerate(("one", "one", "two", "one/photos.csv")):
        out = tmp_path / f"head-{number}"
        build(tmp_path / data, backbone=network, proxies=3, out=out)
        heads.append(out.read_bytes())
    assert heads == heads[:1] * 4
    build(tmp_path / "one", backbone=network, proxies=3, random_state=9, out=out, force=True)
    assert out.read_bytes() != heads[0]


# Refused before the long work --------------------------------------------------------------


def test_outputs_are_refused_before_a_backbone_is_loaded(
    photos_folder: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    old.write_text("old")
    for out, error, said in (
        (
            old,
            OutputExistsError,
            f"{old} exists already; pass --force (in Python force=True) to replace it",
        ),
        (
            tmp_path,
            OutputWriteError,
            f"cannot write {tmp_path}: it is a folder; name a file in it",
        ),
        (
            tmp_path / "gone" / "head",
            OutputWriteError,
            f"cannot write {tmp_path}/gone/head: there is no folder {tmp_path}/gone",
        ),
    ):
        # A backbone that does not exist: loading it would raise another error.
        with pytest.raises(error) as caught:
            build(photos_folder, backbone="no such backbone", out=out)
        assert str(caught.value) == said
    assert [file.name for file in tmp_path.iterdir()] == ["old"]
    assert old.read_text() == "old"
    with pytest.raises(BackboneNotFoundError):
        build(photos_folder, backbone="no such backbone", out=tmp_path / "new")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"proxies": 0}, "proxies must be an integer >= 1 or 'auto', got 0"),
        ({"proxies": "many"}, "proxies must be an integer >= 1 or 'auto', got 'many'"),
        (
            {"proxies": 5, "recipe": "qi2018"},
            (
                "the recipe 'l2 mean l2 l2 max' makes one proxy a class, whatever number of "
                "proxies is asked for; leave out --proxies, or take another --recipe"
            ),
        ),
        (
            {"proxies": 5, "recipe": "l2 all l2 l2 max"},
            (
                "the recipe 'l2 all l2 l2 max' makes each photo a proxy, whatever number of "
                "proxies is asked for; leave out --proxies, or take another --recipe"
            ),
        ),
        (
            {"proxies": "auto", "recipe": "l2 fps:3 l2 l2 max"},
            "proxies='auto' chooses k for generation='kmeans', not for 'fps'; give a number",
        ),
        (
            {"recipe": "l2 kmeans:auto l2 l2 mnn:3"},
            (
                "k can be chosen class by class under aggregation='max' and post_norm 'none' "
                "or 'l2', not in the recipe 'l2 kmeans:auto l2 l2 mnn:3'; "
                "give a number of proxies"
            ),
        ),
        (
            {"recipe": "l2 kmeans:3 l2"},
            (
                "a recipe is a preset (qi2018, hosoda2024, janson2022, imprint, whitened, "
                "least-squares) or five words such as 'l2 kmeans:20 l2 l2 max', "
                "got 'l2 kmeans:3 l2'"
            ),
        ),
        ({"shots": 0}, "shots must be None or an integer >= 1, got 0"),
        *(
            (
                {"false_alarm": share},
                f"false_alarm must be a share above 0 and below 1, got {share!r}",
            )
            for share in (0, 1, 2, float("nan"))
        ),
        ({"random_state": -1}, "random_state must be an integer >= 0, got -1"),
        ({"max_broken": 1.5}, "max_broken must be a share from 0 to 1, got 1.5"),
        ({"max_broken": float("nan")}, "max_broken must be a share from 0 to 1, got nan"),
        ({"how": How(device="gpu")}, "device must be one of auto, cpu, cuda, got 'gpu'"),
    ],
)
def test_parameters_are_refused_before_the_photos_are_looked_for(
    option: dict[str, object], said: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        build("no such folder", backbone="no such backbone", **option)  # type: ignore[arg-type]
    assert str(caught.value) == said


def test_a_loaded_backbone_takes_no_weights(photos_folder: Path, network: Backbone) -> None:
    with pytest.raises(
        ParameterError, match="a loaded backbone has its weights and preprocessing; give none"
    ):
        build(photos_folder, backbone=network, random_weights=True)


def test_embedded_on_cuda_elsewhere(
    photos_folder: Path, network: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By a cluster's GPUs or by ONNX Runtime; torch here has none, and the CPU clusters.
    if find_gpus().count:
        pytest.skip("this machine has CUDA")

    class Elsewhere(LocalEngine):
        def embed(self, photos: Sequence[Location]) -> Iterator[Result]:
            yield from super().embed(photos)
            self.device = "cuda"

    monkeypatch.setattr(
        "edge_imprint.builder.make_engine", lambda backbone, how: Elsewhere(backbone)
    )
    made = build(photos_folder, backbone=network, how=How(cache=False))
    assert made.device == "cuda"
    here = build(photos_folder, backbone=network, how=How(cache=False, device="cpu"))
    np.testing.assert_array_equal(made.head.proxies, here.head.proxies)

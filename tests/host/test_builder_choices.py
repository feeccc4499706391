# SPDX-License-Identifier: Apache-2.0
"""`build` with a recipe, shots, k chosen, calibration and the backbone's own classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_imprint import Backbone, ImprintClassifier, build
from edge_imprint.backbones import OwnClasses
from edge_imprint.builder import Build
from edge_imprint.embedding.run import How, embed_photos
from edge_imprint.imprinting.recipe import PRESETS, Recipe
from edge_imprint.photos import find_photos
from edge_imprint_runtime import Head
from edge_imprint_runtime.errors import ParameterError, TooFewImagesError

WritePhotos = Callable[..., Path]
NAMES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def classified(photos_folder: Path, network: Backbone) -> Callable[[ImprintClassifier], Head]:
    """Return what fits a classifier to the folder's embeddings and gives its head."""
    photos = find_photos(photos_folder)
    made = embed_photos(photos, network, How())
    names = np.array(photos.labels)[made.class_index]
    return lambda classifier: classifier.fit(made.rows, names).head_


def made_alike(made: Build, want: Head) -> None:
    assert (made.head.recipe, made.head.rule) == (want.recipe, want.rule)
    assert made.head.proxies.tobytes() == want.proxies.tobytes()
    np.testing.assert_array_equal(made.head.class_index, want.class_index)


@pytest.mark.parametrize(
    "line",
    [*PRESETS, "none fps:2 none none mnn:3:manhattan:distance", "l2 kmeans:auto l2 l2 max"],
)
def test_every_recipe_makes_the_classifiers_head(
    line: str,
    photos_folder: Path,
    network: Backbone,
    classified: Callable[[ImprintClassifier], Head],
    tmp_path: Path,
) -> None:
    out = tmp_path / "head"
    made = build(photos_folder, backbone=network, recipe=line, out=out, random_state=4)
    made_alike(made, classified(ImprintClassifier.from_recipe(line, random_state=4)))
    loaded = Head.load(out)
    assert loaded.contract == made.head.contract
    assert loaded.recipe.split()[2:] == PRESETS.get(line, line).split()[2:]
    same = build(photos_folder, backbone=network, recipe=Recipe.parse(line), random_state=4)
    made_alike(same, made.head)
    assert (made.choice is None) == ("auto l2 l2" not in line)
    assert made.calibration is None


def test_proxies_take_the_place_of_the_recipes(photos_folder: Path, network: Backbone) -> None:
    made = build(photos_folder, backbone=network, recipe="l2 random:7 l2 l2 max", proxies=2)
    assert made.head.recipe == "l2 random:2 l2 l2 max"
    assert len(made.head.proxies) == 6


def test_shots(
    photos_folder: Path,
    network: Backbone,
    classified: Callable[[ImprintClassifier], Head],
) -> None:
    made = build(photos_folder, backbone=network, proxies=20, shots=5, random_state=3)
    made_alike(made, classified(ImprintClassifier(proxies=20, shots=5, random_state=3)))
    assert made.images == 14
    assert made.images_by_class == {"blue": 4, "green": 5, "red": 5}
    assert made.notes == (
        (
            "fewer photos than 20 proxies in 'blue' (4), 'green' (5), 'red' (5): "
            "each photo becomes a proxy there"
        ),
    )
    assert build(photos_folder, backbone=network, shots=99).images == 18


def test_proxies_are_chosen_on_held_out_photos(photos_folder: Path, network: Backbone) -> None:
    told: list[str] = []
    made = build(
        photos_folder,
        backbone=network,
        proxies="auto",
        progress=lambda step, done, total: told.append(step),
    )
    assert list(dict.fromkeys(told))[-4:] == [
        "choosing proxies",
        "looking at whitening",
        "imprinting",
        "looking for suspects",
    ]
    assert made.choice is not None
    assert made.choice.candidates == (1, 2, 5)
    assert np.bincount(made.head.class_index).tolist() == made.choice.ks
    assert made.head.recipe == "l2 kmeans:auto l2 l2 max"
    assert made.notes == ()


def test_a_calibrated_head(photos_folder: Path, network: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "head"
    made = build(
        photos_folder, backbone=network, out=out, calibrate=True, false_alarm=0.3, proxies=2
    )
    calibration = made.calibration
    assert calibration is not None
    loaded = Head.load(out)
    assert loaded.temperature == made.head.temperature == calibration.temperature
    np.testing.assert_array_equal(loaded.threshold, calibration.threshold)
    assert calibration.false_alarm < 0.6
    assert calibration.auroc is not None
    plain = build(photos_folder, backbone=network, proxies=2).head
    assert plain.proxies.tobytes() == made.head.proxies.tobytes()
    assert (plain.threshold, plain.temperature) == (None, None)
    # A stricter share of alarms lowers the thresholds.
    strict = build(
        photos_folder, backbone=network, calibrate=True, false_alarm=0.01, proxies=2
    )
    assert strict.calibration is not None
    assert (strict.calibration.threshold < calibration.threshold).all()


def test_a_class_named_unknown(
    write_photos: WritePhotos, network: Backbone, tmp_path: Path
) -> None:
    root, out = write_photos(tmp_path / "photos", {"cat": 3, "unknown": 3}), tmp_path / "head"
    told: list[str] = []
    with pytest.raises(ParameterError) as caught:
        build(
            root,
            backbone=network,
            out=out,
            calibrate=True,
            progress=lambda step, done, total: told.append(step),
        )
    assert str(caught.value) == (
        "a class is called 'unknown', which a calibrated model answers where it does not "
        "know; rename the class"
    )
    assert told == []  # before the long work
    assert not out.exists()
    assert build(root, backbone=network, out=out).head.labels == ("cat", "unknown")


NONE_TO_HOLD_OUT = (
    "no class has two different images, so that none can be held out; add images"
)
NO_K = (
    "k can be chosen only where a class has two different images to learn from, so that one "
    "can be held out; add images, or give a number of proxies"
)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"calibrate": True}, NONE_TO_HOLD_OUT), ({"proxies": "auto"}, NO_K)],
)
def test_one_photo_a_class_leaves_none_to_hold_out(
    options: dict[str, object],
    message: str,
    write_photos: WritePhotos,
    network: Backbone,
    tmp_path: Path,
) -> None:
    root, out = write_photos(tmp_path / "photos", {"cat": 1, "dog": 1}), tmp_path / "head"
    with pytest.raises(TooFewImagesError) as caught:
        build(root, backbone=network, out=out, **options)  # type: ignore[arg-type]
    assert str(caught.value) == message
    assert [file.name for file in tmp_path.iterdir()] == ["photos"]


def test_the_backbones_own_classes_stay(photos_folder: Path, network: Backbone) -> None:
    weights = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    own = replace(network, classifier=lambda: OwnClasses(weights, ("w", "x", "y", "z")))
    made = build(photos_folder, backbone=own, keep_classes=True, calibrate=True)
    assert made.head.labels == (*NAMES, "w", "x", "y", "z")
    assert made.images_by_class == {"blue": 4, "green": 6, "red": 8}
    kept = [note for note in made.notes if note.startswith("4 classes of the backbone")]
    assert len(kept) == 1
    alone = build(photos_folder, backbone=network, calibrate=True).head
    np.testing.assert_array_equal(made.head.proxies[: len(alone.proxies)], alone.proxies)
    assert made.head.temperature == alone.temperature


def test_a_backbone_without_classes_of_its_own(
    photos_folder: Path, network: Backbone, tmp_path: Path
) -> None:
    told: list[str] = []
    with pytest.raises(ParameterError) as caught:
        build(
            photos_folder,
            backbone=network,
            keep_classes=True,
            out=tmp_path / "head",
            progress=lambda step, done, total: told.append(step),
        )
    assert str(caught.value) == (
        f"the backbone {network.info.name} brings no classes of its own; "
        "use a timm backbone, or leave out --keep-classes"
    )
    assert "embedding" not in told
    assert list(tmp_path.iterdir()) == []

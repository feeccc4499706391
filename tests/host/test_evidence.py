# SPDX-License-Identifier: Apache-2.0
"""Which photos an export is calibrated with and judged by, and in which form they come."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_imprint import Backbone
from edge_imprint.builder import build
from edge_imprint.embedding.digests import read_digests
from edge_imprint.evidence import calibration_batches, find_evidence, proof_batches
from edge_imprint.hold_out import hold_out
from edge_imprint.photos import find_photos
from edge_imprint_runtime import Frame, Head
from edge_imprint_runtime.errors import NoImagesError
from edge_imprint_runtime.frames import frame_to_rgb
from edge_imprint_runtime.images import normalize, photo_pixels, prepare

WritePhotos = Callable[..., Path]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, write_photos: WritePhotos) -> Path:
    root = tmp_path_factory.mktemp("evidence") / "photos"
    return write_photos(root, {"red": 40, "green": 20, "blue": 10})


def built(photos: Path, network: Backbone, folder: Path, share: float = 0.0) -> Path:
    file = folder / "head.imprint"
    build(photos, backbone=network, out=file, hold_out=share, force=True)
    return file


def silent(step: str, done: int, total: int) -> None:
    pass


def test_photos_of_the_build_are_remembered(
    photos: Path, network: Backbone, tmp_path: Path
) -> None:
    file = built(photos, network, tmp_path)
    evidence = find_evidence(file, Head.load(file), None, calibrate=False)
    assert evidence is not None
    assert evidence.source == "build"
    assert sorted(evidence.proof) == list(range(70))
    assert len(evidence.calibration) == 0
    classes = evidence.truth[evidence.proof[:15]]  # in turns: all classes from the first on
    assert np.bincount(classes).tolist() == [5, 5, 5]


def test_a_copied_head_finds_them_and_a_moved_folder_is_said_to_be_gone(
    photos: Path, network: Backbone, tmp_path: Path
) -> None:
    moved = tmp_path / "photos"
    shutil.copytree(photos, moved)
    file = built(moved, network, tmp_path)
    copy = tmp_path / "copy.imprint"
    shutil.copy(file, copy)
    assert find_evidence(copy, Head.load(copy), None, calibrate=False) is not None
    moved.rename(tmp_path / "elsewhere")
    assert find_evidence(copy, Head.load(copy), None, calibrate=False) is None


def test_held_out_photos_judge_and_the_others_calibrate(
    photos: Path, network: Backbone, tmp_path: Path
) -> None:
    file = built(photos, network, tmp_path, share=0.3)
    evidence = find_evidence(file, Head.load(file), None, calibrate=True)
    assert evidence is not None
    assert evidence.source == "held_out"
    found = find_photos(photos)
    out = hold_out(found, 0.3, read_digests(found.paths))
    assert set(evidence.proof) == set(np.flatnonzero(out))
    assert set(evidence.calibration) == set(np.flatnonzero(~out))


def test_without_held_out_photos_half_calibrate(
    photos: Path, network: Backbone, tmp_path: Path
) -> None:
    file = built(photos, network, tmp_path)
    evidence = find_evidence(file, Head.load(file), photos, calibrate=True)
    assert evidence is not None
    assert len(evidence.calibration) == 35
    assert set(evidence.calibration).isdisjoint(evidence.proof)
    assert len(evidence.proof) == 35
    again = find_evidence(file, Head.load(file), photos, calibrate=True)
    assert again is not None
    np.testing.assert_array_equal(evidence.proof, again.proof)


def test_other_photos_may_have_other_classes_or_none(
    photos: Path, network: Backbone, tmp_path: Path, write_photos: WritePhotos
) -> None:
    file = built(photos, network, tmp_path)
    other = write_photos(tmp_path / "other", {"red": 3, "pink": 3})
    evidence = find_evidence(file, Head.load(file), other, calibrate=False)
    assert evidence is not None
    assert sorted(evidence.truth) == [-1, -1, -1, 2, 2, 2]
    flat = find_evidence(file, Head.load(file), other / "red", calibrate=False)
    assert flat is not None
    assert flat.truth.tolist() == [-1, -1, -1]
    assert sorted(flat.proof) == [0, 1, 2]


@pytest.mark.parametrize("images", ["absent", "empty"])
def test_no_photos(photos: Path, network: Backbone, tmp_path: Path, images: str) -> None:
    file = built(photos, network, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoImagesError, match=images):
        find_evidence(file, Head.load(file), tmp_path / images, calibrate=False)


def test_one_photo_can_not_calibrate_and_judge(
    photos: Path, network: Backbone, tmp_path: Path, write_photos: WritePhotos
) -> None:
    file = built(photos, network, tmp_path)
    one = write_photos(tmp_path / "one", {"red": 1}) / "red"
    with pytest.raises(NoImagesError) as caught:
        find_evidence(file, Head.load(file), one, calibrate=True)
    assert str(caught.value) == (
        f"{one} holds too few photos to calibrate int8 with some and compare on others; "
        "give more with --images"
    )


def test_batches_are_what_model_and_backbone_take(
    photos: Path, network: Backbone, tmp_path: Path
) -> None:
    file = built(photos, network, tmp_path)
    head = Head.load(file)
    evidence = find_evidence(file, head, photos, calibrate=True)
    assert evidence is not None
    assert head.backbone is not None
    preprocess = head.backbone.preprocess
    batches = list(proof_batches(evidence, head, "uint8", None, silent))
    given, pixels, truth = (np.concatenate(part) for part in zip(*batches, strict=True))
    want = np.stack([photo_pixels(evidence.paths[i], preprocess) for i in evidence.proof])
    np.testing.assert_array_equal(given, want)
    np.testing.assert_array_equal(pixels, want)
    np.testing.assert_array_equal(truth, evidence.truth[evidence.proof])
    floats = next(proof_batches(evidence, head, "float32", None, silent))
    np.testing.assert_array_equal(floats[0], normalize(want[: len(floats[0])], preprocess))
    calibration = np.concatenate(list(calibration_batches(evidence, preprocess, silent)))
    rows = [photo_pixels(evidence.paths[i], preprocess) for i in evidence.calibration]
    np.testing.assert_array_equal(calibration, normalize(np.stack(rows), preprocess))


@pytest.mark.parametrize("frame", [Frame("bgr", 30, 40), Frame("nv12", 30, 40), Frame("rgb")])
def test_frames_are_what_the_camera_would_deliver(
    photos: Path, network: Backbone, tmp_path: Path, frame: Frame
) -> None:
    file = built(photos, network, tmp_path)
    head = Head.load(file)
    evidence = find_evidence(file, head, photos, calibrate=False)
    assert evidence is not None
    assert head.backbone is not None
    given, pixels, _ = next(proof_batches(evidence, head, "frame", frame, silent))
    seen = frame_to_rgb(given, frame)
    size = (24, 24) if frame.any_size else (30, 40)
    assert seen.shape[1:] == (*size, 3)
    for rgb, row in zip(seen, pixels, strict=True):
        want = prepare(Image.fromarray(rgb), head.backbone.preprocess)
        np.testing.assert_array_equal(row, want)


def test_broken_photos_are_left_out_and_none_left_is_said(
    photos: Path, network: Backbone, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos / "red", folder)
    for number, file in enumerate(sorted(folder.iterdir())):
        if number % 2:
            file.write_bytes(b"no image")
    head_file = built(photos, network, tmp_path)
    head = Head.load(head_file)
    evidence = find_evidence(head_file, head, folder, calibrate=False)
    assert evidence is not None
    count = sum(
        len(truth) for _, _, truth in proof_batches(evidence, head, "uint8", None, silent)
    )
    assert count == 20
    for file in folder.iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(NoImagesError) as caught:
        list(proof_batches(evidence, head, "uint8", None, silent))
    assert str(caught.value) == (
        "none of the photos to compare on can be read; give others with --images"
    )

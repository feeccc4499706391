# SPDX-License-Identifier: Apache-2.0
"""A backbone's own classes beside imprinted ones, from timm's model to the fused graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint import Backbone, load_backbone
from edge_imprint.backbones import OwnClasses
from edge_imprint.imprinting.imprint import imprint
from edge_imprint.imprinting.recipe import Recipe
from edge_imprint.imprinting.sources import ByClass
from edge_imprint.judging.crossval import Folds, HeldOut, held_out
from edge_imprint.keep import check_keep, keep_classes, own_classes, own_scale
from edge_imprint_export import fuse
from edge_imprint_export.graph import to_bytes
from edge_imprint_runtime import Head, Preprocess, Rule
from edge_imprint_runtime.errors import HeadValueError, ParameterError, WeightsError

Float32 = npt.NDArray[np.float32]
NAME = "timm/test_resnet"
SIZE = 64


def unit(rows: npt.ArrayLike) -> npt.NDArray[np.float64]:
    wide = np.asarray(rows, np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def own_of(rows: npt.ArrayLike, *labels: str) -> OwnClasses:
    return OwnClasses(np.asarray(rows, np.float32), labels)


HEAD = Head(
    [[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0]],
    [0, 1, 1],
    ["a", "b"],
    recipe="l2 kmeans:2 l2 l2 max",
)
OWN = own_of([[0, 0, 5], [3, 0, 4]], "x", "y")


# The head ----------------------------------------------------------------------------------


def test_new_classes_come_first_and_rows_become_unit_proxies() -> None:
    kept = keep_classes(HEAD, OWN)
    assert kept.labels == ("a", "b", "x", "y")
    assert kept.class_index.tolist() == [0, 1, 1, 2, 3]
    np.testing.assert_array_equal(kept.proxies[:3], HEAD.proxies)
    np.testing.assert_allclose(kept.proxies[3:], [[0, 0, 1], [0.6, 0, 0.8]])
    assert (kept.rule, kept.recipe, kept.backbone) == (HEAD.rule, HEAD.recipe, HEAD.backbone)
    assert (kept.threshold, kept.temperature) == (None, None)


def test_an_imprinted_class_wins_a_tie() -> None:
    kept = keep_classes(HEAD, own_of([[2, 0, 0]], "x"))
    assert kept.predict([[1.0, 0, 0]]).tolist() == [0]


def test_scale_is_what_the_cosine_is_multiplied_by() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 3))
    want = keep_classes(HEAD, OWN).scores(rows) * [1, 1, 1.7, 1.7]
    np.testing.assert_allclose(keep_classes(HEAD, OWN, 1.7).scores(rows), want, rtol=1e-5)


def test_cosine_becomes_the_inner_product_that_it_is() -> None:
    cosine = Head(HEAD.proxies, HEAD.class_index, HEAD.labels, Rule(distance="cosine"))
    rows = np.random.default_rng(0).standard_normal((50, 3))
    kept = keep_classes(cosine, OWN)
    assert kept.rule == Rule()
    np.testing.assert_allclose(kept.scores(rows)[:, :2], cosine.scores(rows), atol=1e-6)


def test_a_kept_class_of_a_calibrated_head_is_never_unknown() -> None:
    calibrated = Head(
        HEAD.proxies, HEAD.class_index, HEAD.labels, threshold=[0.9, 0.95], temperature=0.1
    )
    kept = keep_classes(calibrated, OWN)
    assert kept.temperature == 0.1
    assert kept.threshold is not None
    np.testing.assert_array_equal(kept.threshold[:2], calibrated.threshold)
    rows = np.array([[1, 0, 0], [0.8, 0.1, -0.6], [0, 0, 1], [-1, -1, -1e-3]], np.float32)
    assert kept.predict(rows).tolist() == [0, 0, 2, 2]
    assert kept.known(rows).tolist() == [True, False, True, True]
    assert kept.probability(rows).shape == (4, 4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 9), st.integers(2, 7))
def test_the_answers_are_those_of_a_loop(seed: int, new: int, own: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    proxies, rows = unit(rng.standard_normal((2 * new, dim))), rng.standard_normal((own, dim))
    head = Head(proxies, np.arange(2 * new) % new, [f"new {c}" for c in range(new)])
    kept = keep_classes(head, own_of(rows, *(f"class {c}" for c in range(own))))
    for z in rng.standard_normal((5, dim)):
        cosines = [max(z @ p for p in proxies[c::new]) for c in range(new)]
        cosines += [z @ row / np.sqrt(row @ row) for row in rows.astype(np.float32)]
        want = np.array(cosines) / np.linalg.norm(z)
        np.testing.assert_allclose(kept.scores(z[np.newaxis])[0], want, atol=1e-5)


# What can't be -----------------------------------------------------------------------------


REFUSED = (
    "the backbone's own classes can be kept only where the nearest of L2-normalised proxies "
    "decides by its cosine, not with {}; use --recipe imprint, or leave out --keep-classes"
)
RECIPES = {
    "whiten mean l2 l2 max": "whitened or centred embeddings",
    "l2 mean none l2 max": "proxies that are not L2-normalised",
    "l2 mean quantile l2 max": "proxies that are not L2-normalised",
    "l2 mean l2 none max": "embedding_norm='none'",
    "l2 mean l2 l2 max:euclidean": "distance='euclidean'",
    "l2 kmeans:2 l2 l2 mnn:1": "aggregation='mnn'",
    "none mean none none mnn:1:manhattan": "embedding_norm='none' and "
    "proxies that are not L2-normalised and aggregation='mnn' and distance='manhattan'",
}


@pytest.mark.parametrize("line", RECIPES)
def test_recipes_that_compare_otherwise(line: str) -> None:
    recipe = Recipe.parse(line)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20, 3)).astype(np.float32)
    made = imprint(ByClass(rows, np.arange(20) % 2), ["a", "b"], recipe)
    for refuse in (
        lambda: check_keep(OWN, ["a", "b"], recipe),
        lambda: keep_classes(made, OWN),
    ):
        with pytest.raises(ParameterError) as caught:
            refuse()
        assert str(caught.value) == REFUSED.format(RECIPES[line])


@pytest.mark.parametrize("line", ["imprint", "qi2018", "none random:3 l2 l2 max:cosine"])
def test_recipes_that_do(line: str) -> None:
    check_keep(OWN, ["a", "b"], Recipe.parse(line))


def test_a_label_that_both_have() -> None:
    own = own_of(np.eye(3), "crane (n02012849)", "b", "a")
    for labels, named in ((["a", "b"], "'a' (and 1 more)"), (["crane", "b"], "'b'")):
        head = Head(np.eye(2, 3), [0, 1], labels)
        for refuse in (
            lambda labels=labels: check_keep(own, labels, Recipe()),
            lambda head=head: keep_classes(head, own),
        ):
            with pytest.raises(ParameterError) as caught:
                refuse()
            assert str(caught.value) == (
                f"the class {named} is one of the backbone's own too; "
                "rename its folder, or leave out --keep-classes"
            )


def test_another_embedding_size() -> None:
    with pytest.raises(HeadValueError) as caught:
        keep_classes(HEAD, own_of(np.eye(4), *"wxyz"))
    assert str(caught.value) == (
        "the head takes embeddings of 3 numbers, the backbone's classifier of 4; "
        "take the classes of the backbone it was made with"
    )


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_a_row_without_a_direction(value: float) -> None:
    with pytest.raises(WeightsError) as caught:
        keep_classes(HEAD, own_of([[1, 2, 3], [value, 0, 0]], "x", "y"))
    assert str(caught.value) == (
        "the classifier's row of the class 'y' is zero, NaN or infinite; "
        "give other weights, or leave out --keep-classes"
    )


@pytest.mark.parametrize("scale", [0, -1.0, np.nan, np.inf])
def test_a_scale_out_of_range(scale: float) -> None:
    with pytest.raises(ParameterError) as caught:
        keep_classes(HEAD, OWN, scale)
    assert str(caught.value) == f"scale must be a number above 0, got {scale!r}"


def test_a_backbone_without_classes_of_its_own(network: Backbone) -> None:
    for backbone in (network, load_backbone("demo")):
        with pytest.raises(ParameterError) as caught:
            own_classes(backbone)
        assert str(caught.value) == (
            f"the backbone {backbone.info.name} brings no classes of its own; "
            "use a timm backbone, or leave out --keep-classes"
        )


# The scale ---------------------------------------------------------------------------------


def two_worlds() -> tuple[OwnClasses, ByClass, Float32]:
    """Old and new classes on one sphere, the rows at an angle to the old classes' images.

    As measured on trained networks: everything has a direction in common, and a row has less
    of it than an image.
    """
    rng = np.random.default_rng(4)
    means = np.eye(9)[:8] + 1.6 * np.eye(9)[8]  # 4 old, 4 new
    images = np.repeat(means, 60, axis=0) + 0.12 * rng.standard_normal((480, 9))
    own = own_of(np.eye(9)[:4], *(f"old {c}" for c in range(4)))
    new = ByClass(images[240:].astype(np.float32), np.repeat(np.arange(4), 60))
    return own, new, images[:240].astype(np.float32)


def test_without_a_scale_new_classes_take_the_old_ones_and_with_it_few() -> None:
    own, source, old = two_worlds()
    recipe = Recipe.parse("l2 kmeans:5 l2 l2 max")
    head = imprint(source, [f"new {c}" for c in range(4)], recipe)
    truth = np.repeat(np.arange(4, 8), 60)
    answers = held_out(Folds(source), recipe)
    scale = own_scale(own, source, answers)
    assert (keep_classes(head, own).predict(old) == truth).mean() < 0.1
    kept = keep_classes(head, own, scale)
    assert (kept.predict(old) == truth).mean() > 0.9
    new = np.concatenate([source[c][0] for c in range(4)])
    assert (kept.predict(new) < 4).mean() > 0.94


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.9))
def test_the_scale_is_the_largest_that_loses_no_more(seed: int, lost: float) -> None:
    rng = np.random.default_rng(seed)
    rows = np.abs(rng.standard_normal((40, 3))).astype(np.float32)
    classes = np.arange(40) % 2
    source, own = ByClass(rows, classes), own_of(np.eye(3) + 0.1, *"xyz")
    answers = held_out(Folds(source), Recipe.parse("l2 mean l2 l2 max"))
    scale = own_scale(own, source, answers, lost)
    ordered = np.concatenate([rows[classes == 0], rows[classes == 1]])
    nearest = (unit(ordered) @ unit(own.weights).T).max(axis=1)
    new = answers.nearest.max(axis=1)
    assert (scale * 0.9999 * nearest > new).sum() <= lost * 40
    assert (scale * 1.0001 * nearest > new).sum() > lost * 40 - 1e-9


def test_own_classes_that_are_never_near_need_no_scale() -> None:
    _, source, _ = two_worlds()
    answers = held_out(Folds(source), Recipe.parse("l2 mean l2 l2 max"))
    assert own_scale(own_of(-np.eye(9)[8:], "far"), source, answers) == 1.0


@pytest.mark.parametrize("lost", [-0.1, 1, np.nan])
def test_a_share_out_of_range(lost: float) -> None:
    own, source, _ = two_worlds()
    nothing: Any = HeldOut(*[np.empty(0)] * 5)
    with pytest.raises(ParameterError) as caught:
        own_scale(own, source, nothing, lost)
    assert str(caught.value) == f"lost must be a share from 0 to below 1, got {lost!r}"


# From timm's model to the fused graph ------------------------------------------------------


def test_the_kept_head_decides_as_the_whole_model_in_torch_and_in_the_graph() -> None:
    import timm
    import torch

    backbone = load_backbone(NAME, random_weights=True, preprocess=Preprocess(SIZE, SIZE))
    assert backbone.module is not None
    own = own_classes(backbone)
    assert (own.weights.shape, own.labels[:2]) == ((1000, 96), ("tench", "goldfish"))

    p = backbone.info.preprocess
    rng = np.random.default_rng(0)
    # Smooth images: on noise alone an untrained network answers always the same.
    coarse = torch.tensor(rng.uniform(0, 255, (24, 3, 4, 4)))
    images = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    pixels = images.round().permute(0, 2, 3, 1).numpy().astype(np.uint8)
    ready = (pixels / 255 - np.array(p.mean)) / np.array(p.std)
    tensor = torch.tensor(ready.transpose(0, 3, 1, 2), dtype=torch.float32)

    # The oracle: timm's own model of 1,000 classes, its rows normalised, its bias zero.
    whole: Any = timm.create_model("test_resnet", num_classes=1000).eval()
    state = {"fc.weight": torch.tensor(unit(own.weights)), "fc.bias": torch.zeros(1000)}
    whole.load_state_dict({**backbone.module.state_dict(), **state})
    with torch.inference_mode():
        embeddings, logits = backbone.module(tensor).numpy(), whole(tensor).numpy()

    source = ByClass(embeddings[:8], np.arange(8) % 2)
    made = imprint(source, ["one", "two"], Recipe.parse("qi2018"), backbone=backbone.info)
    kept = keep_classes(made, own)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(kept.scores(embeddings)[:, 2:], logits / norms, atol=1e-5)
    top = np.sort(logits / norms, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-4
    assert clear.sum() > 12
    answers = kept.scores(embeddings)[:, 2:].argmax(axis=1)
    assert (answers == logits.argmax(axis=1))[clear].all()

    for head in (kept, keep_classes(made, own, 2.0)):
        model = fuse(backbone.onnx, head)
        session = ort.InferenceSession(to_bytes(model), providers=["CPUExecutionProvider"])
        scores, label = session.run(["scores", "label"], {"images": pixels})
        want = head.scores(embeddings)
        np.testing.assert_allclose(scores, want, atol=1e-4)
        top = np.sort(want, axis=1)
        clear = top[:, -1] - top[:, -2] > 2e-4
        assert clear.sum() > 12
        assert (label == head.predict(embeddings))[clear].all()


def test_a_kept_head_is_saved_and_read(tmp_path: Any) -> None:
    backbone = load_backbone(NAME, random_weights=True)
    head = Head(np.eye(2, 96), [0, 1], ["one", "two"], backbone=backbone.info)
    kept = keep_classes(head, own_classes(backbone), 1.5)
    again = Head.load(kept.save(tmp_path / "head.safetensors"))
    np.testing.assert_array_equal(again.proxies, kept.proxies)
    assert again.labels == kept.labels
    assert again.backbone == replace(backbone.info)

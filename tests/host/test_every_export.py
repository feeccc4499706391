# SPDX-License-Identifier: Apache-2.0
"""Every recipe in every precision for every target, on real digits, against the oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from edge_imprint import Backbone, load_backbone
from edge_imprint.embedding.embedders import ort_embedder
from edge_imprint.imprinting.imprint import imprint
from edge_imprint.imprinting.recipe import PRESETS, Recipe
from edge_imprint.imprinting.sources import ByClass
from edge_imprint_export import fuse
from edge_imprint_export.graph import parse, to_bytes
from edge_imprint_export.precision import int8_dialect, to_half, to_int8
from edge_imprint_export.targets.check import check
from edge_imprint_export.targets.lower import lowered
from edge_imprint_export.targets.records import TARGETS
from edge_imprint_runtime import Head, Model
from edge_imprint_runtime.backends.ort import OrtRunner
from edge_imprint_runtime.images import normalize, prepare

RECIPES = {**PRESETS, "votes": "l2 kmeans:5 none l2 mnn:5:cosine:distance"}
# Largest |score - oracle score| beside the largest |score|, and the labels that must agree.
LIMITS = {"fp32": (1e-4, 1.0), "fp16": (1e-2, 0.99), "int8": (0.25, 0.97)}


@dataclass(frozen=True)
class Digits:
    """Embedded digits to imprint, and pixels to try a model with."""

    backbone: Backbone
    train: npt.NDArray[np.float32]
    train_digit: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.uint8]
    embeddings: npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def digits() -> Digits:
    backbone = load_backbone("demo")
    images, digit = load_digits(return_X_y=True)
    pixels = np.stack(
        [
            prepare(
                Image.fromarray((16 * image.reshape(8, 8)).clip(0, 255).astype(np.uint8))
                .resize((32, 32))
                .convert("RGB"),
                backbone.info.preprocess,
            )
            for image in images[:700]
        ]
    )
    embeddings = ort_embedder(backbone)(pixels)
    return Digits(backbone, embeddings[:500], digit[:500], pixels[500:], embeddings[500:])


@pytest.fixture(scope="module")
def graphs(digits: Digits) -> dict[tuple[str, str], bytes]:
    """The backbone for each target and in each precision, as `export` makes it."""
    made = {}
    reduced: dict[tuple[str, bytes], bytes] = {}  # several targets share a form
    calibration = [
        normalize(digits.pixels[i : i + 1], digits.backbone.info.preprocess) for i in range(32)
    ]
    for name, target in TARGETS.items():
        plain = lowered(digits.backbone.onnx, digits.backbone.info, target)
        data = to_bytes(plain)
        made[name, "fp32"] = data
        half, dialect = ("fp16", data), int8_dialect(target)
        if half not in reduced:
            reduced[half] = to_bytes(to_half(parse(data, "it")))
        if (dialect, data) not in reduced:
            int8 = to_int8(parse(data, "it"), calibration, dialect=dialect)
            reduced[dialect, data] = to_bytes(int8)
        made[name, "fp16"], made[name, "int8"] = reduced[half], reduced[dialect, data]
    assert len({made[name, "int8"] for name in TARGETS}) >= 4  # a form for each dialect
    return made


def head_of(digits: Digits, recipe: str) -> Head:
    source = ByClass(digits.train, digits.train_digit)
    labels = [str(digit) for digit in range(10)]
    return imprint(source, labels, Recipe.parse(recipe), backbone=digits.backbone.info)


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_in_every_precision_for_every_target(
    digits: Digits, graphs: dict[tuple[str, str], bytes], recipe: str, precision: str
) -> None:
    head = head_of(digits, RECIPES[recipe])
    rows = digits.embeddings[32:]
    scores, label = head.scores(rows), head.predict(rows)
    limit, agree = LIMITS[precision]
    for name, target in TARGETS.items():
        model = fuse(graphs[name, precision], head, target=name, precision=precision)
        assert [finding for finding in check(model, target) if finding.fails] == []
        opened = Model(OrtRunner(to_bytes(model), "cpu"), name)
        assert opened.contract.graph is not None
        assert opened.contract.graph.target == name
        assert opened.contract.graph.precision == precision
        answer = opened.predict(digits.pixels[32:])
        assert (answer.label == label).mean() >= agree, name
        if head.rule.aggregation == "max":  # a vote is there or not: no small difference
            difference = np.abs(answer.scores - scores).max() / np.abs(scores).max()
            assert difference <= limit, name


@pytest.mark.parametrize("head_precision", ["fp16", "int8", "exact"])
@pytest.mark.parametrize("recipe", ["imprint", "whitened", "qi2018"])
def test_every_head_precision_for_every_target(
    digits: Digits, graphs: dict[tuple[str, str], bytes], recipe: str, head_precision: str
) -> None:
    head = head_of(digits, RECIPES[recipe])
    rows = digits.embeddings
    scores, label = head.scores(rows), head.predict(rows)
    for name, target in TARGETS.items():
        data = graphs[name, "fp32"]
        model = fuse(data, head, target=name, head_precision=head_precision)
        assert [finding for finding in check(model, target) if finding.fails] == []
        answer = Model(OrtRunner(to_bytes(model), "cpu"), name).predict(digits.pixels)
        np.testing.assert_allclose(answer.scores, scores, rtol=0, atol=0.03, err_msg=name)
        agreement = (answer.label == label).mean()
        assert agreement >= (1.0 if head_precision == "exact" else 0.99), name


def test_equal_arguments_give_equal_bytes(
    digits: Digits, graphs: dict[tuple[str, str], bytes]
) -> None:
    head = head_of(digits, RECIPES["imprint"])
    for precision in LIMITS:
        made = [
            to_bytes(fuse(graphs["portable", precision], head, precision=precision))
            for _ in range(2)
        ]
        assert made[0] == made[1]

# SPDX-License-Identifier: Apache-2.0
"""A space is named by all that decides an embedding but its photo, and by nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge_imprint.embedding.cache import Space
from edge_imprint.embedding.cache.space import read_facts
from edge_imprint_runtime.contract.codec import parse_preprocess


def with_backbone(space: Space, **changes: str) -> Space:
    return replace(space, backbone=replace(space.backbone, **changes))


def test_the_key_names_a_folder(space: Space) -> None:
    assert len(space.key) == 32
    assert set(space.key) <= set("0123456789abcdef")
    assert space.key == replace(space).key


def test_all_that_decides_an_embedding_changes_the_key(space: Space) -> None:
    preprocess = replace(space.backbone.preprocess, interpolation="bicubic")
    others = [
        replace(space, arithmetic="cuda fp32"),
        replace(space, decode="exact"),
        replace(space, decode="draft"),
        with_backbone(space, digest="cd" * 32),
        with_backbone(space, name="timm/resnet18#layer3"),
        with_backbone(space, name="timm/resnet18#layer2"),
        replace(space, backbone=replace(space.backbone, preprocess=preprocess)),
    ]
    assert len({space.key, *(other.key for other in others)}) == 8


def test_a_moved_file_is_the_same_backbone(space: Space) -> None:
    here, there = (
        with_backbone(space, name="onnx:a.onnx"),
        with_backbone(space, name="onnx:b/c"),
    )
    assert here.key == there.key
    assert here.key == with_backbone(here, weights="own").key


def test_the_facts_are_for_people(space: Space, tmp_path: Path) -> None:
    facts = space.facts()
    assert facts["backbone"] == "timm/resnet18"
    assert facts["arithmetic"] == "cpu fp32"
    assert facts["decode"] == "quick"
    assert parse_preprocess(facts["preprocess"]) == space.backbone.preprocess
    (tmp_path / "space.json").write_text(json.dumps(facts))
    assert read_facts(tmp_path) == facts


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "other/9"}', "\xff"])
def test_damaged_facts_are_none(tmp_path: Path, text: str) -> None:
    assert read_facts(tmp_path) is None
    (tmp_path / "space.json").write_bytes(text.encode("latin-1"))
    assert read_facts(tmp_path) is None

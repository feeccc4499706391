# SPDX-License-Identifier: Apache-2.0
"""What a teachable model knows comes to its engine with it, and is never lost there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_imprint_runtime import Head, teach
from edge_imprint_runtime.engine import compile_engine
from edge_imprint_runtime.errors import HeadFileError
from edge_imprint_runtime.files import write_atomic
from edge_imprint_runtime.knowledge import head_beside
from tests.standins import World

MakeHead = Callable[..., Head]


@pytest.fixture
def teachable(forms: dict[str, bytes], tmp_path: Path) -> Path:
    return write_atomic(tmp_path / "model.onnx", forms["teachable"])


def test_the_head_beside_the_model_is_put_beside_the_engine(
    teachable: Path, one_world: World, make_head: MakeHead
) -> None:
    head, out = make_head(), teachable.with_suffix(".engine")
    head.save(head_beside(teachable))
    compile_engine(teachable, out)
    assert head_beside(out).read_bytes() == head_beside(teachable).read_bytes()


def test_what_an_engine_was_taught_stays(
    teachable: Path, one_world: World, make_head: MakeHead
) -> None:
    head, out = make_head(), teachable.with_suffix(".engine")
    head.save(head_beside(teachable))
    taught = teach(head, "new", head.proxies[:1])
    taught.save(head_beside(out))
    compile_engine(teachable, out)
    assert Head.load(head_beside(out)).labels == taught.labels


def test_a_model_without_a_head_and_one_that_can_not_learn(
    teachable: Path, forms: dict[str, bytes], one_world: World, make_head: MakeHead
) -> None:
    compile_engine(teachable, out := teachable.with_suffix(".engine"))
    assert not head_beside(out).exists()
    plain = write_atomic(teachable.with_name("plain.onnx"), forms["plain"])
    make_head().save(head_beside(plain))  # just a file, which has nothing to do with it
    compile_engine(plain, out := plain.with_suffix(".engine"))
    assert not head_beside(out).exists()


def test_a_head_that_can_not_be_read_is_said_before_the_long_build(
    teachable: Path, one_world: World
) -> None:
    head_beside(teachable).write_bytes(b"no head")
    with pytest.raises(HeadFileError):
        compile_engine(teachable, out := teachable.with_suffix(".engine"))
    assert not out.exists()
    assert one_world.called("build_serialized_network") == []

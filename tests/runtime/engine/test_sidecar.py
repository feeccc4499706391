# SPDX-License-Identifier: Apache-2.0
"""What lies beside an engine: what is written is read, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime.engine import Sidecar, read_sidecar, sidecar_path
from edge_imprint_runtime.engine import sidecar as module
from edge_imprint_runtime.engine.fits import read_engine
from edge_imprint_runtime.engine.sidecar import FORMAT, write_sidecar
from edge_imprint_runtime.errors import EngineFileError

SHA = st.text("0123456789abcdef", min_size=64, max_size=64)
COUNT, SIDE = st.integers(1, 2**63 - 1), st.integers(1, 2**62)
NAME = st.text(
    st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20
)
SHAPE = st.lists(st.integers(0, 9_999), max_size=4).map(tuple)
SIDES = st.lists(st.one_of(st.integers(0, 999), st.none(), NAME), max_size=4).map(tuple)
VALUE = st.tuples(SIDES, st.sampled_from(["tensor(uint8)", "tensor(float)"]))
VERSION = st.lists(st.integers(0, 99), min_size=3, max_size=4).map(
    lambda parts: ".".join(map(str, parts))
)


def growing(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    return shape, tuple(side + 1 for side in shape), tuple(side + 2 for side in shape)


@st.composite
def sidecars(draw: st.DrawFn) -> Sidecar:
    ranked = VALUE.filter(lambda value: len(value[0]) > 0)
    inputs = draw(st.dictionaries(NAME, ranked, min_size=1, max_size=3))
    return Sidecar(
        engine_bytes=draw(COUNT),
        engine_sha256=draw(SHA),
        plan_tensorrt=draw(st.none() | VERSION),
        model_file=draw(NAME.filter(bool)),
        model_bytes=draw(COUNT),
        model_sha256=draw(SHA),
        graph_sha256=draw(SHA),
        head=draw(st.dictionaries(NAME, SHAPE, max_size=3)),
        metadata=draw(st.dictionaries(NAME, NAME, max_size=3)),
        inputs=inputs,
        outputs=draw(st.dictionaries(NAME, VALUE, max_size=3)),
        profile={
            name: growing(tuple(draw(SIDE) for _ in shape))  # type: ignore[misc]
            for name, (shape, _) in inputs.items()
        },
        tensorrt=draw(VERSION),
        gpu_name=draw(NAME),
        compute_capability=draw(st.sampled_from(["8.7", "11.0", "7.2"])),
        gpu_memory_bytes=draw(COUNT),
        driver=draw(NAME),
        cuda=draw(NAME),
        precision=draw(st.sampled_from(["fp32", "fp16", "int8"])),
        strongly_typed=draw(st.booleans()),
        builder_flags=draw(
            st.lists(st.sampled_from(["FP16", "REFIT"]), max_size=2).map(tuple)
        ),
        version_compatible=draw(st.booleans()),
        hardware_compatible=draw(st.sampled_from(["none", "ampere+"])),
        refittable=draw(st.booleans()),
        optimization_level=draw(st.none() | st.integers(0, 5)),
        own_kernels=draw(st.booleans()),
        workspace_bytes=draw(st.none() | COUNT),
        build_s=draw(st.floats(0, 1e6)),
        built_unix_s=draw(COUNT),
        contexts=draw(st.integers(1, 16)),
    )


@given(sidecars())
def test_what_is_written_is_read(tmp_path_factory: Any, sidecar: Sidecar) -> None:
    engine = tmp_path_factory.mktemp("s") / "e"
    assert write_sidecar(engine, sidecar) == sidecar_path(engine)
    assert read_sidecar(engine) == sidecar


def test_the_file_is_what_the_page_says(engine: tuple[Path, Sidecar]) -> None:
    out, _made = engine
    found = json.loads(sidecar_path(out).read_text())
    assert (found.pop("format"), found.pop("version")) == (FORMAT, 1)
    assert len(found.pop("digest")) == 64
    assert list(found) == [field.name for field in dataclasses.fields(Sidecar)]
    page = (Path(__file__).parents[3] / "docs" / "engines.md").read_text()
    assert all(f"`{name}`" in page for name in found)


@given(st.data())
def test_a_flipped_bit_or_a_lost_end_is_found(
    tmp_path_factory: Any, made: dict[str, bytes], data: st.DataObject
) -> None:
    """In either file: it is refused, never a traceback, and never taken for what it was."""
    folder = tmp_path_factory.mktemp("s")
    name = data.draw(st.sampled_from(sorted(made)))
    for each, content in made.items():
        (folder / each).write_bytes(content)
    old = read_sidecar(folder / "e")
    content = bytearray(made[name])
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
    (folder / name).write_bytes(content)
    try:
        found = read_sidecar(folder / "e")
        assert read_engine(folder / "e", found) == made["e"]
    except EngineFileError as error:
        assert "\n" not in str(error)
    else:  # only what is between JSON's values may be another
        assert name == "e.json"
        assert found == old


@pytest.fixture(scope="session")
def made(tmp_path_factory: Any, forms: dict[str, bytes]) -> dict[str, bytes]:
    from edge_imprint_runtime.engine import compile_engine
    from tests.standins import tensorrt_standin

    folder = tmp_path_factory.mktemp("made")
    (folder / "m.onnx").write_bytes(forms["plain"])
    with tensorrt_standin("10.3.0.30"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        compile_engine(folder / "m.onnx", folder / "e")
    return {name: (folder / name).read_bytes() for name in ("e", "e.json")}


# Each of these is one change to what was written, its digest made right again.
CHANGES: list[tuple[str, Any, str]] = [
    ("format", "else", "its format is not 'edge-imprint.engine'"),
    ("version", 2, "it is of version 2, and this edge-imprint reads version 1"),
    ("version", True, "it is of version True, and this edge-imprint reads version 1"),
    ("engine_bytes", 0, "the field 'engine_bytes' can't be 0"),
    ("engine_bytes", 1.0, "the field 'engine_bytes' can't be 1.0"),
    ("engine_bytes", True, "the field 'engine_bytes' can't be True"),
    ("engine_sha256", "A" * 64, f"the field 'engine_sha256' can't be '{'A' * 59}"),
    ("model_file", "", "the field 'model_file' can't be ''"),
    ("model_file", "a\0b", r"the field 'model_file' can't be 'a\x00b'"),
    ("metadata", {"a": 1}, "the field 'metadata' can't be 1"),
    ("inputs", [], "the field 'inputs' can't be []"),
    ("inputs", {"images": [[1.5], "tensor(uint8)"]}, "the field 'inputs' can't be [[1.5],"),
    ("outputs", {"s": [[1], "float"]}, "the field 'outputs' can't be 'float'"),
    ("profile", {"images": [[1], [1]]}, "the field 'profile' can't be [[1], [1]]"),
    ("profile", {"images": [[2], [1], [3]]}, "the field 'profile' can't be [[2], [1], [3]]"),
    ("profile", {"other": [[1], [1], [1]]}, "the profile is not of its inputs"),
    ("profile", {"images": [[], [], []]}, "the profile has no batch"),
    ("tensorrt", "10", "the field 'tensorrt' can't be '10'"),
    ("precision", "fp8", "the field 'precision' can't be 'fp8'"),
    ("builder_flags", ["a b"], "the field 'builder_flags' can't be 'a b'"),
    ("build_s", -1, "the field 'build_s' can't be -1"),
    ("contexts", 0, "the field 'contexts' can't be 0"),
    ("compute_capability", "8", "the field 'compute_capability' can't be '8'"),
    ("more", 1, "the field 'more' is unknown or missing"),
]


@pytest.mark.parametrize(("field", "value", "reason"), CHANGES)
def test_a_wrong_value_is_named(
    engine: tuple[Path, Sidecar], field: str, value: object, reason: str
) -> None:
    out, made = engine
    values = made.as_json() | {field: value}
    del values["digest"]
    refuse(out, json.dumps(values | {"digest": module._digest(values)}), reason)


def refuse(out: Path, text: str, reason: str) -> None:
    sidecar_path(out).write_text(text)
    with pytest.raises(EngineFileError) as caught:
        read_sidecar(out)
    message = str(caught.value)
    start = f"{sidecar_path(out)} can't be read as what edge-imprint wrote beside the engine: "
    assert message.startswith(start + reason)
    command = f"edge-imprint compile MODEL --out {out} --force"
    assert message.endswith(f"; make both again: {command}")


def test_what_json_alone_would_take_is_refused(engine: tuple[Path, Sidecar]) -> None:
    out, made = engine
    text = sidecar_path(out).read_text()
    refuse(out, text.replace('"build_s"', '"engine_bytes": 1, "build_s"'), "a field is there")
    refuse(out, text.replace('"built_unix_s": ', '"built_unix_s": NaN, "x": '), "NaN is no")
    refuse(out, "[]", "its format is not")
    refuse(out, "[" * 100_000, "")
    refuse(out, text.replace(made.engine_sha256, "0" * 64), "its digest is not that of")
    values = {k: v for k, v in made.as_json().items() if k not in ("driver", "digest")}
    refuse(
        out,
        json.dumps(values | {"digest": module._digest(values)}),
        "the field 'driver' is unknown or missing",
    )


def test_a_sidecar_of_gigabytes_is_not_read(
    engine: tuple[Path, Sidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = engine
    monkeypatch.setattr(module, "MAX_SIDECAR_BYTES", 100)
    with pytest.raises(EngineFileError, match="it has more than 100 bytes"):
        read_sidecar(out)


def test_no_sidecar(engine: tuple[Path, Sidecar]) -> None:
    out, _ = engine
    sidecar_path(out).unlink()
    with pytest.raises(EngineFileError) as caught:
        read_sidecar(out)
    assert str(caught.value) == (
        f"there is no file {sidecar_path(out)}, without which nothing is known of the engine; "
        "copy it from where the engine was made, or make both: edge-imprint compile MODEL "
        f"--out {out} --force"
    )

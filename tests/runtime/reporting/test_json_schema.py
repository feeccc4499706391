# SPDX-License-Identifier: Apache-2.0
"""The reader takes what docs/report.schema.json takes, and refuses what it refuses.

The package jsonschema, which shares no code with the reader, is the oracle.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_imprint_runtime.reporting.form import check_form
from edge_imprint_runtime.reporting.shape import ShapeError
from tests.report_example import example_report, smallest_report

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "report.schema.json").read_text())
ORACLE = jsonschema.Draft202012Validator(SCHEMA)
ENGINE = {
    "tensorrt": "10.3.0.30",
    "gpu_name": "Orin",
    "compute_capability": "8.7",
    "driver": None,
    "cuda": "12.6",
    "precision": "fp16",
    "build_s": 431.0,
    "profile": {"images": [[1, 3, 8, 8], [1, 3, 8, 8], [8, 3, 8, 8]]},
}


def reader_takes(report: Any) -> bool:
    try:
        check_form(report, "")
    except ShapeError:
        return False
    return True


def parts(schema: dict[str, Any], where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Name every part of the schema."""
    yield where, schema
    for key, part in schema.get("properties", {}).items():
        yield from parts(part, f"{where}.{key}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from parts(schema[name], f"{where}[]")
    for name, part in schema.get("$defs", {}).items():
        yield from parts(part, f"#{name}")


def test_the_schema_is_one_and_says_what_each_key_means() -> None:
    ORACLE.check_schema(SCHEMA)
    for where, part in parts(SCHEMA):
        assert "description" in part or where.endswith("[]") or "$ref" in part, where
        if "properties" in part:
            assert set(part["required"]) == set(part["properties"]), where
            assert "additionalProperties" in part, where


@pytest.mark.parametrize(
    "report",
    [
        example_report(50),
        smallest_report(count=2),
        example_report(20, stable=False, label="a", commit="b", engine=ENGINE),
    ],
    ids=["full", "small", "engine"],
)
def test_both_take_a_report(report: dict[str, Any]) -> None:
    ORACLE.validate(report)
    check_form(report, "")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Name every place in a report; of long lists, the first two values."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value[:2]):
            yield from places(item, (*path, number))


def _example() -> dict[str, Any]:
    """A report that has each part once, and little of each, so that checks are quick."""
    report = example_report(8, stable=False, engine=ENGINE)
    sensors = report["sensors"]
    sensors["times_s"] = sensors["times_s"][:3]
    sensors["readings"] = {"cpu_mhz": [2_400.0, None, 2_401.0]}
    for series in report["series"]:
        series["warm_up_ns"] = series["warm_up_ns"][:3]
    return report | {"series": report["series"][-2:], "layers": report["layers"][:2]}


EXAMPLE = _example()
PLACES = list(places(EXAMPLE))
INSTEAD: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2.0,
    1.5,
    -0.5,
    101,
    2**63 - 1,
    2**63,
    1e300,
    "",
    "x",
    "Whole",
    "whole",
    "turns",
    "host",
    "cuda_events",
    "f" * 64,
    "x" * 301,
    "x" * 20_001,
    [],
    [1],
    [1, 2],
    [0.5, None],
    [1, 2, 3],
    ["x"],
    {},
    {"x": 1},
    {"x": "y"},
    {"p50": [1, 2]},
    {"x" * 201: 1},
]


@settings(max_examples=800)
@given(place=st.sampled_from(PLACES), how=st.integers(0, len(INSTEAD) + 2))
def test_both_refuse_the_same(place: tuple[Any, ...], how: int) -> None:
    report = copy.deepcopy(EXAMPLE)
    inside: Any = report
    for key in place[:-1]:
        inside = inside[key]
    last = place[-1]
    if how < len(INSTEAD):
        inside[last] = copy.deepcopy(INSTEAD[how])
    elif how == len(INSTEAD):
        del inside[last]
    elif isinstance(inside, list):
        inside.append(copy.deepcopy(inside[last]))
    elif how == len(INSTEAD) + 1:
        inside[f"{last}_"] = inside[last]
    else:
        inside[f"{last}_"] = inside.pop(last)
    assert reader_takes(report) == ORACLE.is_valid(report)


def test_the_mutations_are_of_both_kinds() -> None:
    taken = set()
    for place in (("label",), ("series", 0, "p50_ms"), ("engine", "profile")):
        for value in INSTEAD:
            report = copy.deepcopy(EXAMPLE)
            inside: Any = report
            for key in place[:-1]:
                inside = inside[key]
            inside[place[-1]] = value
            taken.add((place, reader_takes(report)))
    assert {("label",), ("series", 0, "p50_ms")} <= {place for place, ok in taken if not ok}
    assert len({place for place, ok in taken if ok}) == 3


def test_a_tree_of_unknown_facts_ends_somewhere() -> None:
    deep: Any = 1
    for _ in range(20):
        deep = [deep]
    with pytest.raises(ShapeError) as error:
        check_form(EXAMPLE | {"engine": ENGINE | {"deep": deep}}, "")
    assert str(error.value) == f"engine.deep{'[0]' * 9} is nested more than 8 deep"

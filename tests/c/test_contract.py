# SPDX-License-Identifier: Apache-2.0
"""The contract in C: Python's verdict on any metadata, and Python's values."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_imprint_runtime.contract import (
    MAX_LABEL_BYTES,
    MAX_LABELS,
    Contract,
    decode,
    encode,
)
from edge_imprint_runtime.contract.codec import MODEL_KEYS, NOTE_PREFIX, PREFIX
from edge_imprint_runtime.contract.spec import MAX_TEXT_BYTES
from edge_imprint_runtime.errors import (
    ContractKeyError,
    ContractValueError,
    ContractVersionError,
    EdgeImprintError,
    NoContractError,
)
from tests.c.building import tool
from tests.c.text_asking import Answer, Asking, text
from tests.runtime.test_contract import (
    BACKBONES,
    BARE_HEAD,
    GRAPHS,
    HEADS,
    MODEL,
)
from tests.runtime.test_contract_values import CASES, NOT_NUMBERS
from tests.runtime.test_contract_values import MODEL as ALL_KEYS

STATUS: dict[type[EdgeImprintError], str] = {
    NoContractError: "EI_NO_CONTRACT",
    ContractVersionError: "EI_CONTRACT_VERSION",
    ContractKeyError: "EI_CONTRACT_KEY",
    ContractValueError: "EI_CONTRACT_VALUE",
}
# In the order of contract.h.
NORMS = ("none", "l2")
AGGREGATIONS = ("max", "mnn")
DISTANCES = ("inner_product", "cosine", "euclidean", "manhattan", "mahalanobis")
WEIGHTINGS = ("uniform", "distance")
RESIZES = ("crop", "stretch", "pad")
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "linear")
INPUTS = ("uint8", "float32", "embedding", "frame")
FORMATS = ("rgb", "bgr", "nv12", "yuyv")
FORMS = ("", "default", "input")


@pytest.fixture(scope="module")
def check(c_build: Path) -> Iterator[Asking]:
    with Asking(c_build / "tests" / "text_check") as asking:
        yield asking


def ask(check: Asking, metadata: Mapping[str, str], *, model: bool) -> Answer:
    """Let C read metadata."""
    pairs = [part for pair in metadata.items() for part in pair]
    return check.ask("contract", "1" if model else "0", "m.onnx", *pairs)


def values_of(contract: Contract) -> dict[str, Any]:
    """Write a contract as text_check does."""
    rule, backbone, graph = contract.rule, contract.backbone, contract.graph
    values: dict[str, Any] = {
        "labels": list(contract.labels),
        "rule": [
            NORMS.index(rule.embedding_norm),
            AGGREGATIONS.index(rule.aggregation),
            DISTANCES.index(rule.distance),
            rule.neighbors,
            WEIGHTINGS.index(rule.weighting),
        ],
        "embedding_size": contract.embedding_size,
        "recipe": contract.recipe,
        "has_backbone": int(backbone is not None),
        "has_graph": int(graph is not None),
        "calibrated": int(contract.temperature is not None),
        "temperature": contract.temperature or 0.0,
    }
    if backbone is not None:
        p = backbone.preprocess
        values |= {"backbone": backbone.name, "backbone_digest": backbone.digest}
        values["preprocess"] = [
            *(p.height, p.width, RESIZES.index(p.resize), p.resize_height, p.resize_width),
            *(FILTERS.index(p.interpolation), *p.mean, *p.std),
        ]
    if graph is not None:
        frame, taught = graph.frame, graph.teachable
        values |= {
            "input": INPUTS.index(graph.input),
            "slots": graph.slots,
            "precision": graph.precision,
            "target": graph.target,
            "frame": [0, 0, 0]
            if frame is None
            else [FORMATS.index(frame.format), frame.height, frame.width],
            "teachable": [0, 0, 0]
            if taught is None
            else [FORMS.index(taught.form), taught.max_classes, taught.taught_proxies],
        }
    return values


def same_verdict(check: Asking, metadata: Mapping[str, str], *, model: bool) -> Answer:
    """Hold C's verdict and values against Python's."""
    answer = ask(check, metadata, model=model)
    try:
        contract = decode(metadata, model=model, where="m.onnx")
    except EdgeImprintError as error:
        assert answer["status"] == STATUS[type(error)], (answer, error)
        said = text(answer, "error")
        assert said.startswith("m.onnx")
        assert "\n" not in said
        assert len(said) < 1000
        return answer
    assert answer["status"] == "EI_OK", text(answer, "error")
    values = values_of(contract)
    found = {
        name: [text(label, "text") for label in answer[name]]
        if name == "labels"
        else text(answer, name)
        if isinstance(values[name], str)
        else answer[name]
        for name in values
    }
    assert found == values
    if contract.backbone is not None:
        assert text(answer, "preprocess_line") == metadata[PREFIX + "preprocess"]
    return answer


def changed(metadata: Mapping[str, str], key: str, value: str | None) -> dict[str, str]:
    """Change one value, or leave the key out."""
    others = {k: v for k, v in metadata.items() if k != PREFIX + key}
    return others if value is None else others | {PREFIX + key: value}


@given(HEADS)
def test_heads(check: Asking, contract: Contract) -> None:
    same_verdict(check, encode(contract), model=False)
    same_verdict(check, encode(contract), model=True)


@given(HEADS, BACKBONES, GRAPHS)
def test_models(check: Asking, contract: Contract, backbone: Any, graph: Any) -> None:
    whole = dataclasses.replace(contract, backbone=backbone, graph=graph)
    same_verdict(check, encode(whole), model=True)
    same_verdict(check, encode(whole), model=False)


@pytest.mark.parametrize(("key", "value"), CASES)
def test_malformed_values(check: Asking, key: str, value: str) -> None:
    answer = same_verdict(check, ALL_KEYS | {PREFIX + key: value}, model=True)
    assert answer["status"] == "EI_CONTRACT_VALUE"
    names = {
        "labels": "label|there must be 1",
        "input": "input|frame",
        "rule": "rule|neighbors",
    }
    assert re.match(f"m.onnx: .?({names.get(key, key)})", text(answer, "error"))


def test_the_metadata_that_are_not_malformed(check: Asking) -> None:
    answer = same_verdict(check, ALL_KEYS, model=True)
    assert answer["status"] == "EI_OK"
    assert answer["temperature"] == 0.25


@pytest.mark.parametrize("version", [None, "", "0", "2", "01", "1 ", "+1", "1.0", "\uff11"])
def test_versions(check: Asking, version: str | None) -> None:
    for more in ({}, {PREFIX + "novelty": "x"}):
        metadata = changed(ALL_KEYS, "version", version) | more
        answer = same_verdict(check, metadata, model=True)
        assert answer["status"] == "EI_CONTRACT_VERSION"
    twice = ["contract", "1", "", PREFIX + "version", "2", PREFIX + "version", "2"]
    assert check.ask(*twice)["status"] == "EI_CONTRACT_VERSION"


@pytest.mark.parametrize("metadata", [encode(MODEL), encode(BARE_HEAD), dict(ALL_KEYS)])
def test_missing_keys(check: Asking, metadata: dict[str, str]) -> None:
    for model in (True, False):
        for key in MODEL_KEYS:
            for other in ("recipe", "backbone", "nothing"):
                less = changed(changed(metadata, key, None), other, None)
                same_verdict(check, less, model=model)


@pytest.mark.parametrize("key", ["novelty", "Version", "labels ", "note", "", "a\nb", "zzz"])
def test_unknown_keys(check: Asking, key: str) -> None:
    more = ALL_KEYS | {PREFIX + key: "1", PREFIX + "novel": "2"}
    answer = same_verdict(check, more, model=True)
    assert answer["status"] == "EI_CONTRACT_KEY"
    first = min(key, "novel").replace("\n", "\\x0a")
    assert f"unknown key 'edge_imprint.{first}'" in text(answer, "error")
    same_verdict(check, more, model=False)


def test_no_contract(check: Asking) -> None:
    for metadata in ({}, {"producer": "torch"}, {NOTE_PREFIX + "by": "me"}):
        answer = same_verdict(check, metadata, model=True)
        assert answer["status"] == "EI_NO_CONTRACT"
    backbone = {NOTE_PREFIX + "backbone_digest": "0" * 64}
    answer = ask(check, backbone, model=True)
    with pytest.raises(NoContractError) as caught:
        decode(backbone, model=True, where="m.onnx")
    assert text(answer, "error") == str(caught.value)


def test_what_python_says_c_says(check: Asking) -> None:
    """Where a user can do something about it, in the same words."""
    digest = ALL_KEYS | {PREFIX + "backbone_digest": "x"}
    for metadata in ({}, changed(ALL_KEYS, "version", "2"), changed(ALL_KEYS, "rule", None)):
        with pytest.raises(EdgeImprintError) as caught:
            decode(metadata, model=True, where="m.onnx")
        assert text(ask(check, metadata, model=True), "error") == str(caught.value)
    with pytest.raises(EdgeImprintError) as caught:
        decode(digest, model=True, where="m.onnx")
    assert text(ask(check, digest, model=True), "error") == str(caught.value)


def test_keys_that_are_there_twice(check: Asking) -> None:
    pairs = [part for pair in ALL_KEYS.items() for part in pair]
    for key, value in ALL_KEYS.items():
        answer = check.ask("contract", "1", "m", *pairs, key, value)
        if key == PREFIX + "version":
            assert answer["status"] in ("EI_CONTRACT_KEY", "EI_CONTRACT_VERSION")
            continue
        assert answer["status"] == "EI_CONTRACT_KEY"
        assert f"has the key {key} twice" in text(answer, "error")


def test_other_tools_keys_are_not_looked_at(check: Asking) -> None:
    more = {"other": "\0", "edge_imprint": "", "edge_imprintx.version": "2", "": "x"}
    noted = {NOTE_PREFIX + "by": "x" * 10_000}
    answer = same_verdict(check, ALL_KEYS | more | noted, model=True)
    kept = {text(entry, "key"): text(entry, "value") for entry in answer["metadata"]}
    assert kept == ALL_KEYS | noted


def test_nul_and_bytes_that_are_no_utf8(check: Asking) -> None:
    """Refused in their turn: after version and keys, as any value."""
    for bad in (b"a\0b", b"\0", b"\xff", b"a\xed\xa0\x80"):
        for key in ("recipe", "backbone", "labels", "rule", "target", "temperature"):
            pairs = [part for pair in changed(ALL_KEYS, key, None).items() for part in pair]
            answer = check.ask("contract", "1", "m", *pairs, PREFIX + key, bad)
            assert answer["status"] == "EI_CONTRACT_VALUE"
            text(answer, "error")  # which is UTF-8 all the same
            answer = check.ask("contract", "1", "m", *pairs[2:], PREFIX + key, bad)
            assert answer["status"] != "EI_CONTRACT_VALUE"
        pairs = [part for pair in ALL_KEYS.items() for part in pair]
        for key in (NOTE_PREFIX.encode() + b"by", NOTE_PREFIX.encode() + bad, b"other"):
            answer = check.ask("contract", "1", "m", *pairs, key, bad)
            assert answer["status"] == "EI_OK"
            assert len(answer["metadata"]) == len(ALL_KEYS)
        answer = check.ask("contract", "1", "m", *pairs, PREFIX.encode() + bad, "")
        assert answer["status"] == "EI_CONTRACT_KEY"
        text(answer, "error")
    version = [*pairs[:0], PREFIX + "version", b"1\0"]
    assert check.ask("contract", "1", "m", *version)["status"] == "EI_CONTRACT_VERSION"


def test_label_limits(check: Asking) -> None:
    head = encode(BARE_HEAD)
    most = [str(i) for i in range(MAX_LABELS)]
    for labels in (most, ["é" * (MAX_LABEL_BYTES // 2), "b"]):
        line = json.dumps(labels, ensure_ascii=False)
        same_verdict(check, head | {PREFIX + "labels": line}, model=False)
    for labels in ([*most, "one more"], ["x" * (MAX_LABEL_BYTES + 1)], ["a", ""]):
        answer = same_verdict(
            check, head | {PREFIX + "labels": json.dumps(labels)}, model=False
        )
        assert answer["status"] == "EI_CONTRACT_VALUE"


def test_a_late_duplicate_among_many_labels(check: Asking) -> None:
    """Found in time: comparing every pair of 65,536 labels would take a minute."""
    stem = "x" * 1000
    labels = [f"{stem}{i}" for i in range(MAX_LABELS - 1)]
    line = json.dumps([*labels, labels[-1]])
    before = psutil.Process(check.process_id).cpu_times()
    answer = same_verdict(check, encode(BARE_HEAD) | {PREFIX + "labels": line}, model=False)
    assert "is there twice" in text(answer, "error")
    after = psutil.Process(check.process_id).cpu_times()
    assert after.user + after.system - before.user - before.system < 20


def test_values_that_contradict_each_other(check: Asking) -> None:
    for key, value in (
        ("head_precision", "fp16"),  # of a teachable model
        ("labels", '["cat","unknown"]'),  # of a calibrated one
        ("input", "frame nv12 2x2 bt2020 full"),
        ("input", "frame nv12 2x2 bt601 tv"),
        ("input", "frame nv12 2x2 bt601 full "),
    ):
        answer = same_verdict(check, ALL_KEYS | {PREFIX + key: value}, model=True)
        assert answer["status"] == "EI_CONTRACT_VALUE"
    labels = changed(ALL_KEYS, "temperature", None) | {PREFIX + "labels": '["cat","unknown"]'}
    assert same_verdict(check, labels, model=True)["status"] == "EI_OK"
    precision = changed(ALL_KEYS, "teachable", None) | {PREFIX + "head_precision": "fp16"}
    assert same_verdict(check, precision, model=True)["status"] == "EI_OK"


def test_sizes_are_counted_in_characters_and_bytes(check: Asking) -> None:
    for size in (MAX_TEXT_BYTES // 2, MAX_TEXT_BYTES // 2 + 1):
        same_verdict(check, ALL_KEYS | {PREFIX + "recipe": "é" * size}, model=True)
    for key in ("recipe", "rule", "precision"):
        answer = same_verdict(
            check, ALL_KEYS | {PREFIX + key: "x" * (MAX_TEXT_BYTES + 1)}, model=True
        )
        assert "must be at most 4096 characters, got 4097" in text(answer, "error")


WORDS = st.sampled_from(
    [
        *("frame", "rgb", "nv12", "yuyv", "any", "2x2", "720x1280", "bt601", "full", "0x0"),
        *("limited", "default", "input", "256", "5", "0", "", "é", "l2", "max", "=", "x", ","),
        *("embedding_norm=l2", "aggregation=mnn", "distance=cosine", "neighbors=3", "8192x1"),
        *("weighting=uniform", "weighting=distance", "resize=pad:3x4", "size=3x4", "1e5"),
        *("interpolation=linear", "mean=0,0,0", "mean=1,2,", "mean=,1,1", "std=1,2,3", "-0.5"),
        *("std=1,2,3,4", "std=1,2,3,", "8193x1"),
    ]
)
LINES = st.lists(WORDS, max_size=6).map(" ".join) | st.lists(WORDS, max_size=4).map("".join)
KEYS = st.sampled_from([*MODEL_KEYS, "teachable", "temperature"])


@given(st.lists(st.tuples(KEYS, LINES), min_size=1, max_size=2), st.booleans())
def test_any_lines(check: Asking, lines: list[tuple[str, str]], model: bool) -> None:
    """Lines made of the parts that lines are made of."""
    whole = ALL_KEYS if model else {k: ALL_KEYS[k] for k in encode(BARE_HEAD)}
    same_verdict(check, whole | {PREFIX + key: line for key, line in lines}, model=model)


DIGITS = st.text("0123456789", min_size=1, max_size=21)
NUMBERS = st.builds(
    lambda sign, whole, rest, power: sign + whole + rest + power,
    st.sampled_from(["", "-"]),
    DIGITS,
    st.just("") | DIGITS.map(lambda digits: "." + digits),
    st.just("") | st.integers(-400, 400).map(lambda power: f"e{power:+d}"),
)
# Half way between two float64, and about where float64 begins and ends.
HARD = ["9007199254740993", "9007199254740993.00000000000000000001", "5e-324", "2.4e-324"]
HARD += ["1.7976931348623157e308", "1.7976931348623159e308", "2.2250738585072011e-308"]
HARD += ["0.1", "123456789.12345678901234567890e-20", "99999999999999999999e288", "0e999"]


def same_number(check: Asking, number: str) -> None:
    steps = ALL_KEYS[PREFIX + "preprocess"]
    for old, new in (("mean=0.0", f"mean={number}"), ("std=1.0", f"std={number}")):
        assert old in steps
        line = {PREFIX + "preprocess": steps.replace(old, new)}
        same_verdict(check, ALL_KEYS | line, model=True)
    same_verdict(check, ALL_KEYS | {PREFIX + "temperature": number}, model=True)


@given(NUMBERS | st.floats(0, allow_infinity=False).map(repr))
def test_numbers_are_rounded_as_python_rounds(check: Asking, number: str) -> None:
    same_number(check, number)


def test_hard_numbers(check: Asking) -> None:
    for number in (*HARD, *NOT_NUMBERS, "1e-12", "1e12", "9.99e-13", "1000000000000.0001"):
        same_number(check, number)


COMMA = """comment_char %
escape_char /
LC_NUMERIC
decimal_point ","
thousands_sep "."
grouping 3;3
END LC_NUMERIC
"""


def test_a_comma_of_the_host_programs_locale_changes_nothing(
    c_build: Path, tmp_path: Path
) -> None:
    source, made = tmp_path / "comma", tmp_path / "xx_XX"
    source.write_text(COMMA)
    command = [tool("localedef", "libc-bin"), "-c", "-i", source, "-f", "ANSI_X3.4-1968"]
    # It warns of the categories that are not there, and answers 1.
    subprocess.run([*command, made], capture_output=True, check=False)
    environment = os.environ | {"LOCPATH": str(tmp_path)}
    with Asking(c_build / "tests" / "text_check", env=environment) as check:
        assert check.ask("locale", "xx_XX")["good"]
        assert check.ask("comma")["good"]
        for number in ("0.25", "2.5e-1", "0,25", "1234.5"):
            same_number(check, number)


@pytest.mark.parametrize("label", ["a", "é" * 512, "x" * 1024, '"\\\n'])
def test_labels_that_teaching_takes(check: Asking, label: str) -> None:
    assert check.ask("label", label)["status"] == "EI_OK"


@pytest.mark.parametrize("label", [b"", b"x" * 1025, b"\xff", "\ud800", "é" * 513])
def test_labels_that_teaching_refuses(check: Asking, label: str | bytes) -> None:
    answer = check.ask("label", label)
    assert answer["status"] == "EI_CONTRACT_VALUE"
    assert "label " in text(answer, "error")


def test_quotes_in_messages_are_short_and_printable(check: Asking) -> None:
    for given_, shown in (
        ("plain", "'plain'"),
        ("", "''"),
        ("é" * 40, "'" + "é" * 40 + "'"),
        ("é" * 41, "'" + "é" * 40 + "'..."),
        ("x" * 79 + "é!", "'" + "x" * 79 + "é'..."),
        ("\n\x7f\0", "'\\x0a\\x7f\\x00'"),
        (b"\xff" * 200, "'" + "\\xff" * 80 + "'..."),
        (b"\xc3", "'\\xc3'"),
    ):
        assert text(check.ask("quote", given_), "text") == shown


def test_each_failed_allocation_is_told(check: Asking) -> None:
    for count in range(1, 200):
        check.ask("fail", str(count))
        answer = ask(check, ALL_KEYS, model=True)
        if not answer["failed"]:
            break
        assert answer["status"] == "EI_OUT_OF_MEMORY"
        assert "not enough memory" in text(answer, "error")
    assert 30 < count < 199
    assert answer["status"] == "EI_OK"

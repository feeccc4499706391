# SPDX-License-Identifier: Apache-2.0
"""The contract's codec: what is written is read, all else is refused by its own name."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_imprint_runtime import BackboneInfo, Contract, GraphInfo, Preprocess, Rule
from edge_imprint_runtime.contract import (
    MAX_LABEL_BYTES,
    MAX_LABELS,
    VERSION,
    Frame,
    Teachable,
    decode,
    encode,
)
from edge_imprint_runtime.contract.codec import (
    HEAD_KEYS,
    MODEL_KEYS,
    NOTE_PREFIX,
    OPTIONAL_KEYS,
    PREFIX,
)
from edge_imprint_runtime.contract.spec import (
    MAX_EMBEDDING_SIZE,
    MAX_SIDE_PIXELS,
    MAX_SLOTS,
)
from edge_imprint_runtime.errors import (
    ContractKeyError,
    ContractValueError,
    ContractVersionError,
    EdgeImprintError,
    NoContractError,
    ParameterError,
)

# Unicode without what can't be written as UTF-8 (surrogates) and without NUL.
LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
NAMES = st.text(LETTERS, min_size=1, max_size=60)
SIDES = st.integers(1, MAX_SIDE_PIXELS)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SCALES = st.floats(min_value=0, exclude_min=True, allow_infinity=False)

PREPROCESSES = st.builds(
    Preprocess,
    height=SIDES,
    width=SIDES,
    resize=st.sampled_from(["crop", "stretch", "pad"]),
    resize_height=SIDES,
    resize_width=SIDES,
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box"]),
    mean=st.tuples(NUMBERS, NUMBERS, NUMBERS),
    std=st.tuples(SCALES, SCALES, SCALES),
)
BACKBONES = st.builds(
    BackboneInfo,
    name=NAMES,
    weights=NAMES,
    digest=st.text("0123456789abcdef", min_size=64, max_size=64),
    preprocess=PREPROCESSES,
)
PAIRED = st.integers(1, MAX_SIDE_PIXELS // 2).map(lambda half: 2 * half)
FRAMES = (
    st.builds(Frame, format=st.sampled_from(["rgb", "bgr"]), height=SIDES, width=SIDES)
    | st.builds(Frame, format=st.sampled_from(["rgb", "bgr"]))
    | st.builds(
        Frame,
        format=st.sampled_from(["nv12", "yuyv"]),
        height=PAIRED,
        width=PAIRED,
        matrix=st.sampled_from(["bt601", "bt709"]),
        levels=st.sampled_from(["limited", "full"]),
    )
)
TEACHABLES = st.builds(
    Teachable,
    form=st.sampled_from(["default", "input"]),
    max_classes=st.integers(1, MAX_LABELS),
    taught_proxies=st.integers(1, MAX_SLOTS),
)
PRECISION = st.sampled_from(["fp32", "fp16", "int8"])
INPUT = st.sampled_from(["uint8", "float32", "embedding"])
SLOTS = st.integers(1, MAX_SLOTS)
GRAPHS = (
    st.builds(
        GraphInfo,
        input=INPUT,
        slots=SLOTS,
        precision=PRECISION,
        head_precision=PRECISION | st.just("exact"),
        target=st.from_regex(r"\A[a-z0-9][a-z0-9.-]{0,63}\Z"),
    )
    | st.builds(GraphInfo, input=st.just("frame"), slots=SLOTS, frame=FRAMES)
    | st.builds(GraphInfo, input=INPUT, slots=SLOTS, teachable=TEACHABLES)
)
RULES = st.builds(Rule, embedding_norm=st.sampled_from(["none", "l2"])) | st.builds(
    Rule,
    embedding_norm=st.sampled_from(["none", "l2"]),
    aggregation=st.just("mnn"),
    distance=st.sampled_from(["cosine", "euclidean", "manhattan", "mahalanobis"]),
    neighbors=st.integers(1, 10**9 - 1),
    weighting=st.sampled_from(["uniform", "distance"]),
)
HEADS = st.builds(
    Contract,
    labels=st.lists(NAMES, min_size=1, max_size=20, unique=True).map(tuple),
    rule=RULES,
    embedding_size=st.integers(1, MAX_EMBEDDING_SIZE),
    recipe=NAMES,
    backbone=st.none() | BACKBONES,
    temperature=st.none() | st.floats(1e-12, 1e12),
)
DIGEST = "0123456789abcdef" * 4
MODEL = Contract(
    labels=("cat", "dog"),
    rule=Rule(),
    embedding_size=8,
    recipe="l2 kmeans:20 l2 l2 max",
    backbone=BackboneInfo("tiny", "packaged", DIGEST, Preprocess(16, 16)),
    graph=GraphInfo("uint8", 20),
)
BARE_HEAD = dataclasses.replace(MODEL, backbone=None, graph=None)


def changed(key: str, value: str | None) -> dict[str, str]:
    """Return a valid model's metadata with one value changed, or without the key."""
    text = {k: v for k, v in encode(MODEL).items() if k != PREFIX + key}
    return text if value is None else text | {PREFIX + key: value}


@given(HEADS)
@example(dataclasses.replace(BARE_HEAD, labels=('a "b"', "c\nd", "e\\f", "[]", " ", "😀ü")))
def test_head_contract_round_trip(contract: Contract) -> None:
    assert decode(encode(contract), model=False) == contract


@given(HEADS, BACKBONES, GRAPHS)
def test_model_contract_round_trip(
    contract: Contract, backbone: BackboneInfo, graph: GraphInfo
) -> None:
    contract = dataclasses.replace(contract, backbone=backbone, graph=graph)
    text = encode(contract)
    assert decode(text, model=True) == contract
    optional = [*(() if contract.temperature is None else OPTIONAL_KEYS)]
    optional += [] if graph.teachable is None else ["teachable"]
    assert set(text) == {PREFIX + key for key in (*MODEL_KEYS, *optional)}


def test_metadata_are_spelled_as_documented() -> None:
    """A C reader depends on each of these characters."""
    assert encode(MODEL) == {
        "edge_imprint.version": "1",
        "edge_imprint.labels": '["cat","dog"]',
        "edge_imprint.rule": "embedding_norm=l2 aggregation=max distance=inner_product "
        "neighbors=1 weighting=uniform",
        "edge_imprint.recipe": "l2 kmeans:20 l2 l2 max",
        "edge_imprint.embedding_size": "8",
        "edge_imprint.backbone": "tiny",
        "edge_imprint.backbone_weights": "packaged",
        "edge_imprint.backbone_digest": DIGEST,
        "edge_imprint.preprocess": "resize=stretch:16x16 interpolation=bilinear size=16x16 "
        "mean=0.0,0.0,0.0 std=1.0,1.0,1.0",
        "edge_imprint.input": "uint8 NHWC RGB",
        "edge_imprint.slots": "20",
        "edge_imprint.precision": "fp32",
        "edge_imprint.head_precision": "fp32",
        "edge_imprint.target": "portable",
    }


@pytest.mark.parametrize(
    ("graph", "key", "text"),
    [
        (GraphInfo("float32", 1), "input", "float32 NCHW RGB"),
        (GraphInfo("embedding", 1), "input", "float32 embedding"),
        (GraphInfo("frame", 1, frame=Frame("bgr")), "input", "frame bgr any"),
        (
            GraphInfo("frame", 1, frame=Frame("rgb", 720, 1280)),
            "input",
            "frame rgb 720x1280",
        ),
        (
            GraphInfo("frame", 1, frame=Frame("nv12", 720, 1280, "bt709", "full")),
            "input",
            "frame nv12 720x1280 bt709 full",
        ),
        (GraphInfo("uint8", 1, "int8", "exact"), "precision", "int8"),
        (GraphInfo("uint8", 1, "int8", "exact"), "head_precision", "exact"),
        (GraphInfo("uint8", 1, target="jetpack-6.2"), "target", "jetpack-6.2"),
        (GraphInfo("uint8", 1, teachable=Teachable()), "teachable", "default 256 5"),
        (
            GraphInfo("uint8", 1, teachable=Teachable("input", 10, 1)),
            "teachable",
            "input 10 1",
        ),
    ],
)
def test_graphs_are_spelled_as_documented(graph: GraphInfo, key: str, text: str) -> None:
    contract = dataclasses.replace(MODEL, graph=graph)
    written = encode(contract)
    assert written[PREFIX + key] == text
    assert decode(written, model=True) == contract


def test_a_model_of_a_head_alone_may_not_know_its_backbone() -> None:
    bare = dataclasses.replace(MODEL, backbone=None, graph=GraphInfo("embedding", 1))
    assert decode(encode(bare), model=True) == bare
    with pytest.raises(ContractKeyError, match=r"lacks the key edge_imprint\.backbone$"):
        decode(encode(bare) | {PREFIX + "input": "uint8 NHWC RGB"}, model=True)
    half = encode(bare) | {PREFIX + "backbone": "demo"}
    with pytest.raises(ContractKeyError, match=r"lacks the key edge_imprint\.backbone_"):
        decode(half, model=True)


def test_a_head_is_not_teachable() -> None:
    with pytest.raises(ContractKeyError, match=r"unknown key 'edge_imprint\.teachable'"):
        decode(encode(BARE_HEAD) | {PREFIX + "teachable": "default 256 5"}, model=False)


def test_labels_are_spelled_as_they_are() -> None:
    text = encode(dataclasses.replace(BARE_HEAD, labels=("dög", "😀", 'a"\n')))
    assert text["edge_imprint.labels"] == '["dög","😀","a\\"\\n"]'


def test_no_contract() -> None:
    for metadata in ({}, {"producer": "torch"}, {NOTE_PREFIX + "by": "me"}):
        with pytest.raises(NoContractError, match=r"m\.onnx carries no edge-imprint metadata"):
            decode(metadata, model=True, where="m.onnx")


@pytest.mark.parametrize("version", [None, "", "0", "2", "01", "1 ", "+1", "1.0", "\uff11"])
def test_unknown_version(version: str | None) -> None:
    assert VERSION == 1
    with pytest.raises(ContractVersionError, match="this release reads version '1'"):
        decode(changed("version", version), model=True)


def test_unknown_version_is_told_before_unknown_keys() -> None:
    newer = changed("version", "2") | {PREFIX + "novelty": "x"}
    with pytest.raises(ContractVersionError):
        decode(newer, model=True)


@pytest.mark.parametrize("key", MODEL_KEYS[1:])
def test_model_lacks_a_key(key: str) -> None:
    with pytest.raises(ContractKeyError, match=f"lacks the key edge_imprint.{key}"):
        decode(changed(key, None), model=True)


@pytest.mark.parametrize("key", HEAD_KEYS[1:])
def test_head_lacks_a_key(key: str) -> None:
    text = encode(BARE_HEAD)
    del text[PREFIX + key]
    with pytest.raises(ContractKeyError, match=f"lacks the key edge_imprint.{key}"):
        decode(text, model=False)


def test_head_with_half_a_backbone() -> None:
    text = encode(dataclasses.replace(MODEL, graph=None))
    del text[PREFIX + "preprocess"]
    with pytest.raises(ContractKeyError, match=r"lacks the key edge_imprint\.preprocess"):
        decode(text, model=False)


@pytest.mark.parametrize("key", ["novelty", "Version", "labels ", "note", "", "a\nb"])
def test_unknown_key(key: str) -> None:
    with pytest.raises(ContractKeyError, match=r"unknown key .?edge_imprint\.") as caught:
        decode(changed("novelty", None) | {PREFIX + key: "1"}, model=True)
    assert "\n" not in str(caught.value)


def test_head_does_not_take_a_models_keys() -> None:
    with pytest.raises(ContractKeyError, match="unknown key"):
        decode(encode(MODEL), model=False)


def test_notes_are_kept_and_other_tools_keys_not_looked_at() -> None:
    text = encode(MODEL) | {
        NOTE_PREFIX + "by": "x" * 10_000,
        "other": "\0",
        "edge_imprint": "",
    }
    noted = dataclasses.replace(MODEL, notes=(("by", "x" * 10_000),))
    assert decode(text, model=True) == noted
    assert encode(noted)[NOTE_PREFIX + "by"] == "x" * 10_000


RULE = encode(MODEL)[PREFIX + "rule"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("neighbors=1", "neighbors=5", "neighbors must be 1 under aggregation='max', got 5"),
        ("=uniform", "=distance", "weighting must be 'uniform' under aggregation='max'"),
        ("=max", "=median", "aggregation must be 'max' or 'mnn', got 'median'"),
    ],
)
def test_rules_that_contradict_themselves(old: str, new: str, reason: str) -> None:
    with pytest.raises(ContractValueError, match=f"^m: rule: {reason}"):
        decode(changed("rule", RULE.replace(old, new)), model=True, where="m")


@pytest.mark.parametrize("text", ["0.25", "1", "1e-07", "1e+10", "0.1234567890123456"])
def test_a_temperature_is_read(text: str) -> None:
    assert decode(changed("temperature", text), model=True).temperature == float(text)


@pytest.mark.parametrize(
    "text",
    ["", "0", "0.0", "-1", "nan", "inf", "1e-13", "1e13", "1,5", " 1", "1e999", "1" * 30],
)
def test_temperatures_that_are_none(text: str) -> None:
    with pytest.raises(ContractValueError, match="temperature must be a number"):
        decode(changed("temperature", text), model=True)


def test_no_class_of_a_calibrated_head_is_named_unknown() -> None:
    labels = ("cat", "unknown")
    assert dataclasses.replace(MODEL, labels=labels).labels == labels
    with pytest.raises(ContractValueError) as caught:
        dataclasses.replace(MODEL, labels=labels, temperature=1.0)
    assert str(caught.value) == (
        "no class of a calibrated head may be named 'unknown', "
        "its answer where it knows none; rename the class"
    )


def test_the_page_has_the_optional_keys_too() -> None:
    page = (Path(__file__).parents[2] / "docs" / "contract.md").read_text()
    for key in OPTIONAL_KEYS:
        assert f"\n| `edge_imprint.{key}` | if calibrated | if calibrated |" in page


def test_label_limits_hold_at_the_limit() -> None:
    most = tuple(str(i) for i in range(MAX_LABELS))
    longest = ("é" * (MAX_LABEL_BYTES // 2), "b")
    for labels in (most, longest):
        contract = dataclasses.replace(BARE_HEAD, labels=labels)
        assert decode(encode(contract), model=False).labels == labels
    too_many = json.dumps([*most, "one more"])
    with pytest.raises(ContractValueError, match=f"1 to {MAX_LABELS} labels, got 65537"):
        decode(encode(BARE_HEAD) | {PREFIX + "labels": too_many}, model=False)


def test_late_duplicate_among_many_labels() -> None:
    """Found in time: comparing every pair of 65,536 labels would take a minute."""
    labels = [str(i) for i in range(MAX_LABELS - 1)]
    twice = json.dumps([*labels, labels[-1]])
    with pytest.raises(ContractValueError, match="'65534' is there twice"):
        decode(encode(BARE_HEAD) | {PREFIX + "labels": twice}, model=False)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Rule(embedding_norm="l1"), ParameterError),
        (lambda: Rule(neighbors=True), ParameterError),
        (lambda: Rule(neighbors=0), ParameterError),
        (lambda: Rule(neighbors=2), ParameterError),
        (lambda: Rule(weighting="distance"), ParameterError),
        (lambda: Rule(distance="minkowski"), ParameterError),
        (lambda: Rule(aggregation="mnn", weighting="distance"), ParameterError),
        (lambda: dataclasses.replace(MODEL, temperature=0.0), ContractValueError),
        (lambda: dataclasses.replace(MODEL, temperature=math.nan), ContractValueError),
        (lambda: dataclasses.replace(MODEL, temperature=1), ContractValueError),
        (lambda: Preprocess(0, 16), ContractValueError),
        (lambda: Preprocess(16, 16.0), ContractValueError),  # type: ignore[arg-type]
        (lambda: Preprocess(16, 16, std=(1, 1, 0)), ContractValueError),
        (lambda: Preprocess(16, 16, mean=(0, 0)), ContractValueError),  # type: ignore[arg-type]
        (lambda: BackboneInfo("a", "b", "c", Preprocess(1, 1)), ContractValueError),
        (lambda: GraphInfo("frame", 1), ContractValueError),
        (lambda: GraphInfo("uint8", 1, "int4"), ContractValueError),
        (lambda: GraphInfo("uint8", 1, "exact"), ContractValueError),
        (lambda: GraphInfo("uint8", 1, head_precision="bf16"), ContractValueError),
        (lambda: GraphInfo("uint8", 1, target="Jetson Orin"), ContractValueError),
        (lambda: GraphInfo("uint8", 1, frame=Frame("rgb")), ContractValueError),
        (
            lambda: GraphInfo("uint8", 1, head_precision="int8", teachable=Teachable()),
            ContractValueError,
        ),
        (lambda: Frame("i420", 2, 2), ContractValueError),
        (lambda: Frame("rgb", 0, 2), ContractValueError),
        (lambda: Frame("rgb", 2, 8193), ContractValueError),
        (lambda: Frame("nv12"), ContractValueError),
        (lambda: Frame("nv12", 3, 2), ContractValueError),
        (lambda: Frame("yuyv", 2, 3), ContractValueError),
        (lambda: Frame("rgb", 2, 2, "bt709"), ContractValueError),
        (lambda: Frame("nv12", 2, 2, "bt2020"), ContractValueError),
        (lambda: Frame("nv12", 2, 2, levels="tv"), ContractValueError),
        (lambda: Teachable("refit"), ContractValueError),
        (lambda: Teachable(max_classes=0), ContractValueError),
        (lambda: Teachable(taught_proxies=True), ContractValueError),
        (lambda: dataclasses.replace(MODEL, embedding_size=0), ContractValueError),
        (lambda: dataclasses.replace(MODEL, labels=(1,)), ContractValueError),
    ],
)
def test_types_are_valid_once_they_exist(
    make: Callable[[], object], error: type[EdgeImprintError]
) -> None:
    with pytest.raises(error):
        make()


VALUES = st.sampled_from(list(encode(MODEL).values())) | st.text(max_size=80)
KEYS = st.sampled_from([PREFIX + key for key in MODEL_KEYS]) | st.text().map(PREFIX.__add__)


@given(st.dictionaries(KEYS, VALUES), st.booleans())
def test_any_metadata_decode_or_are_refused(metadata: dict[str, str], model: bool) -> None:
    try:
        contract = decode(metadata, model=model)
    except EdgeImprintError as error:
        assert str(error)
    else:
        assert decode(encode(contract), model=model) == contract


@given(st.sampled_from(MODEL_KEYS[1:]), st.data())
def test_any_one_value_decodes_or_is_refused(key: str, data: st.DataObject) -> None:
    """Near misses, which random metadata never reach: the right text, a few letters off."""
    right = encode(MODEL)[PREFIX + key]
    start = data.draw(st.integers(0, len(right)))
    stop = data.draw(st.integers(start, min(len(right), start + 4)))
    wrong = right[:start] + data.draw(st.text(max_size=4)) + right[stop:]
    try:
        contract = decode(changed(key, wrong), model=True)
    except EdgeImprintError as error:
        assert str(error)
    else:
        assert decode(encode(contract), model=True) == contract
